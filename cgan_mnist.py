"""Conditional GAN on MNIST (Mirza and Osindero 2014), which writes a digit string of your choice.

    python cgan_mnist.py --n_epochs 100
    python cgan_mnist.py --resume results/cgan_mnist --sample_only --number 5550123

A generator G draws a digit from noise z and a label y; a discriminator D scores how well an image fits a label.
With the least-squares objective (Mao 2017) D is trained towards 1 on real pairs and 0 on generated ones, and G
towards a score of 1 for its own:

    L_D = 1/2 E[(D(x, y) - 1)^2] + 1/2 E[D(G(z, y'), y')^2]        x, y real; y' drawn at random
    L_G = E[(D(G(z, y'), y') - 1)^2]

Networks and rates are those of the Jittor challenge's warm-up contest. Departures from its code:
  * batch norm's eps is 1e-5: the contest passes 0.8 by position, where momentum was meant;
  * the discriminator's dropout is off unless --dropout 0.4 asks for it. The contest defines it, but never calls
    `.train()`, without which Jittor leaves it out; with it, fewer digits were readable (README, "Quality");
  * samples come from an exponential moving average of G's weights (--ema_decay);
  * the last epoch is saved, and pictures keep their true contrast.

Expect readable digits after ten epochs. After training, `result.png` shows --number, from noise shrunk to 0.7 of its
length, for the most typical shapes; during it, the columns of the grids in `samples/` are the digits 0 to 9.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import jittor as jt
import numpy as np
from jittor import nn

from common import fast

CONV_SIZES = (16, 32, 64)
TRUNCATION = 0.7  # of the strip's noise: fewer odd shapes, at the price of variety (Brock 2019, section 3.1)


def parse_args(argv=None):
    parser = common.Parser(
        "cgan_mnist", __doc__, architecture=("arch", "latent_dim", "n_classes", "img_size", "channels", "ema_decay"),
        of_the_call=("number",), n_epochs=100, batch_size=64, lr=0.0002, b1=0.5, b2=0.999, img_size=32, channels=1,
        sample_interval=1000, checkpoint_interval=5, log_interval=100,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--arch", choices=("mlp", "conv"), default="mlp", help="the contest's networks, or convolutional ones")
    add("--latent_dim", type=number(int, at_least=1, at_most=4096), default=100, help="length of the noise vector")
    add("--n_classes", type=number(int, at_least=2, at_most=1000), default=10, help="number of labels")
    add("--loss", choices=("lsgan", "bce", "matching"), default="lsgan",
        help="matching: least squares, and real images with wrong labels count as fakes")  # fmt: skip
    add("--dropout", type=number(float, at_least=0, below=1), default=0.0, help="in the discriminator; contest: 0.4")
    add("--ema_decay", type=number(float, at_least=0, below=1), default=0.999, help="of the averaged weights; 0: off")
    add("--number", help="the digit string of result.png, by default every digit; it is written nowhere else")
    add("--download", action="store_true", help="fetch full MNIST (11 MB) into Jittor's data set folder")
    args = parser.parse(argv)
    if args.number is None:
        args.number = "0123456789"[: args.n_classes]
    if not (args.number.isascii() and args.number.isdigit()):
        parser.error("--number must be a string of the digits 0 to 9, such as 5550123")
    if max(map(int, args.number)) >= args.n_classes:
        parser.error(f"--number holds a digit that is not below --n_classes {args.n_classes}")
    if args.arch == "conv" and args.img_size not in CONV_SIZES:
        nearest = min(CONV_SIZES, key=lambda size: abs(size - args.img_size))
        parser.error(f"--img_size must be 16, 32 or 64 with --arch conv, nearest is {nearest}; got {args.img_size}")
    if args.arch == "mlp" and not 4 <= args.img_size <= 256:
        parser.error(f"--img_size must be from 4 to 256 with --arch mlp, got {args.img_size}")
    return args


# ---- networks ----


class Generator(nn.Module):
    """(B, latent_dim) noise and (B,) labels to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, latent_dim, n_classes, img_size, channels):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        layers, width = [], latent_dim + n_classes
        for next_width in (128, 256, 512, 1024):
            layers.append(nn.Linear(width, next_width))
            if next_width > 128:
                layers.append(fast.BatchNorm(next_width))
            layers.append(nn.LeakyReLU(0.2))
            width = next_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, channels * img_size**2), fast.Tanh())

    def execute(self, z, labels):
        images = self.layers(jt.concat([z, self.label_embedding(labels)], dim=1))
        return images.reshape(-1, *self.shape)


class Discriminator(nn.Module):
    """(B, C, H, W) images and (B,) labels to (B, 1) scores: high for a real image with its own label."""

    def __init__(self, n_classes, img_size, channels, dropout):
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        layers, width = [], channels * img_size**2 + n_classes
        for i in range(3):
            layers.append(nn.Linear(width, 512))
            if i > 0:
                layers.append(fast.Dropout(dropout))
            layers.append(nn.LeakyReLU(0.2))
            width = 512
        self.layers = nn.Sequential(*layers, nn.Linear(512, 1))

    def execute(self, images, labels):
        flat = images.reshape(images.shape[0], -1)
        return self.layers(jt.concat([flat, self.label_embedding(labels)], dim=1))


class ConvGenerator(nn.Module):
    """As Generator: from 4 x 4 upwards, doubling the size with each transposed convolution."""

    def __init__(self, latent_dim, n_classes, img_size, channels, width=64):
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        n_ups = int(np.log2(img_size)) - 2
        self.top = width * 2 ** (n_ups - 1)
        self.project = nn.Linear(latent_dim + n_classes, self.top * 4 * 4)
        layers, c = [fast.BatchNorm(self.top), nn.ReLU()], self.top
        for _ in range(n_ups - 1):
            layers += [fast.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
                       fast.BatchNorm(c // 2), nn.ReLU()]  # fmt: skip
            c //= 2
        self.layers = nn.Sequential(*layers, fast.ConvTranspose(c, channels, 4, stride=2, padding=1), fast.Tanh())

    def execute(self, z, labels):
        x = self.project(jt.concat([z, self.label_embedding(labels)], dim=1))
        return self.layers(x.reshape(-1, self.top, 4, 4))  # (B, top, 4, 4) to (B, channels, img_size, img_size)


class ConvDiscriminator(nn.Module):
    """(B, C, H, W) images and (B,) labels to (B, 2) scores: is the image real, does it fit the label.

    The second is the inner product of image features and the label's embedding (Miyato and Koyama 2018).
    """

    def __init__(self, n_classes, img_size, channels, dropout, width=64):
        super().__init__()
        layers, c = [fast.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        for _ in range(int(np.log2(img_size)) - 3):
            layers += [fast.Conv(c, 2 * c, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(*layers)  # (B, c, 4, 4)
        self.dropout = fast.Dropout(dropout)
        self.realism = nn.Linear(c * 4 * 4, 1)
        self.features = nn.Linear(c * 4 * 4, 128)
        self.label_embedding = nn.Embedding(n_classes, 128)

    def execute(self, images, labels):
        h = self.dropout(self.layers(images).reshape(images.shape[0], -1))
        match = (self.features(h) * self.label_embedding(labels)).sum(dim=1, keepdims=True)
        return jt.concat([self.realism(h), match], dim=1)


# ---- losses and the step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (any shape) that should all be `target`, 1 or 0; scores are logits for bce."""
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def generator_loss(fake_scores, loss):
    """Every score of a generated image should say real."""
    return adversarial_loss(fake_scores, 1.0, loss)


def discriminator_loss(real_scores, fake_scores, wrong_scores, loss):
    """Real pairs score 1, generated ones 0, and so do real images with a wrong label, where they are given.

    Scores are (B, 1), or (B, 2) for realism and match. A generated image counts against the first only, a wrong
    label against the last only. Fakes of both kinds together weigh as much as the real pairs (Reed 2016, 4.2).
    """
    fake = adversarial_loss(fake_scores[:, :1], 0.0, loss)
    if wrong_scores is not None:
        fake = (fake + adversarial_loss(wrong_scores[:, -1:], 0.0, loss)) / 2
    return (adversarial_loss(real_scores, 1.0, loss) + fake) / 2


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, labels, z, wanted, wrong_labels, loss):
    """One update of G, then one of D.

    Args:
        real, labels: (B, C, H, W) images in [-1, 1] and their (B,) labels.
        z, wanted: (B, latent_dim) noise and the (B,) labels to draw.
        wrong_labels: (B,) labels that `real` does not have, or None for an objective without them.

    Returns:
        {"loss_G", "loss_D"} as Jittor scalars.
    """
    fake = generator(z, wanted)
    loss_G = generator_loss(discriminator(fake, wanted), loss)
    optimizer_G.step(loss_G)

    wrong_scores = None if wrong_labels is None else discriminator(real, wrong_labels)
    loss_D = discriminator_loss(
        discriminator(real, labels), discriminator(fake.detach(), wanted), wrong_scores, loss
    )
    optimizer_D.step(loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D}


# ---- samples ----


def sample(generator, z, labels, chunk=500):
    """(N, C, H, W) numpy images in [-1, 1] from (N, latent_dim) noise and (N,) labels, both numpy."""
    was_training = generator.is_training()
    generator.eval()
    images = []
    with jt.no_grad():
        for i in range(0, len(z), chunk):
            images.append(generator(jt.array(z[i : i + chunk]), jt.array(labels[i : i + chunk])).numpy())
    if was_training:
        generator.train()
    return np.concatenate(images)


def write_results(run, generator, args, rng):
    """result.png, the strip of --number, and samples.npz where --n_samples asks for it."""
    digits = np.array([int(digit) for digit in args.number], np.int32)
    z = TRUNCATION * rng.standard_normal((len(digits), args.latent_dim), dtype=np.float32)
    common.save_image(sample(generator, z, digits), run.out_dir / "result.png", nrow=len(digits))
    if args.n_samples:
        labels = np.arange(args.n_samples, dtype=np.int32) % args.n_classes
        z = rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
        run.save_samples(sample(generator, z, labels), labels=labels)


def build(args):
    """The generator and the discriminator of these arguments."""
    conv = args.arch == "conv"
    shape = (args.n_classes, args.img_size, args.channels)
    generator = (ConvGenerator if conv else Generator)(args.latent_dim, *shape)
    discriminator = (ConvDiscriminator if conv else Discriminator)(*shape, args.dropout)
    generator.train(), discriminator.train()  # Jittor's dropout is off until it is asked for
    return generator, discriminator


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        sample_rng = np.random.default_rng([args.seed, 3])  # of its own, so that pictures disturb no training
        generator, discriminator = build(args)
        ema = common.EMA(generator, args.ema_decay)
        if args.sample_only:
            run.track(generator=generator, ema=ema)
            write_results(run, ema.module, args, sample_rng)
            return run.losses

        data = common.load_digits(args.data_dir, args.img_size, args.channels, args.n_classes, args.download)
        batches = common.Batches(data, args.batch_size, args.seed)
        optimizer_G = fast.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        optimizer_D = fast.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        run.track(generator=generator, discriminator=discriminator, ema=ema, optimizer_G=optimizer_G,
                  optimizer_D=optimizer_D, batches=batches)  # fmt: skip

        grid_labels = np.tile(np.arange(args.n_classes, dtype=np.int32), 10)  # a column for each digit
        grid_z = sample_rng.standard_normal((len(grid_labels), args.latent_dim), dtype=np.float32)
        needs_wrong_labels = args.loss == "matching" or args.arch == "conv"
        for _ in run.epochs():
            for real, labels in run.steps(batches):
                z = run.shard(run.rng.standard_normal((args.batch_size, args.latent_dim), dtype=np.float32))
                wanted = run.shard(run.rng.integers(args.n_classes, size=args.batch_size, dtype=np.int32))
                shift = run.shard(run.rng.integers(1, args.n_classes, size=args.batch_size, dtype=np.int32))
                wrong_labels = (labels + shift) % args.n_classes if needs_wrong_labels else None
                losses = train_step(generator, discriminator, optimizer_G, optimizer_D, real, labels, z, wanted,
                                    wrong_labels, args.loss)  # fmt: skip
                ema.update()
                run.log(losses)
                if run.every(args.sample_interval):
                    images = sample(ema.module, grid_z, grid_labels)
                    common.save_image(images, run.out_dir / f"samples/step_{run.step:07d}.png", nrow=args.n_classes)
        if run.is_main:
            write_results(run, ema.module, args, sample_rng)
    return run.losses


if __name__ == "__main__":
    main()
