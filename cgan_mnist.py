"""Conditional GAN (Mirza and Osindero 2014, https://arxiv.org/abs/1411.1784) that writes a digit string of your choice.

    python cgan_mnist.py
    python cgan_mnist.py --paper --download
    python cgan_mnist.py --resume results/cgan_mnist --sample_only --number 5550123

A generator G draws a digit from noise z and a label y; a discriminator D scores how well an image fits a label. With
the least-squares objective (Mao 2017, https://arxiv.org/abs/1611.04076) D is trained towards 1 on real pairs and
towards 0 on generated ones, and G towards a score of 1 for its own:

    L_D = 1/2 E[(D(x, y) - 1)^2] + 1/2 E[D(G(z, y'), y')^2]        x, y real; y' drawn at random
    L_G = E[(D(G(z, y'), y') - 1)^2]

--loss bce takes the cross entropy of Mirza's paper instead. --loss matching is GAN-CLS (Reed 2016,
https://arxiv.org/abs/1605.05396, algorithm 1) with squares: real images with a wrong label count as fakes too.

Both networks are perceptrons that take the label's embedding beside their input, as in the warm-up contest of the
Jittor challenge (github.com/Jittor/JGAN, models/cgan), which follows github.com/eriklindernoren/PyTorch-GAN.
--arch conv has convolutions, and a projection discriminator (Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637).

The default trains in four minutes on two CPU cores; digits fit their labels after 30 epochs. Departures:
  * samples come from an exponential moving average of G's weights (--ema_decay), which --paper undoes;
  * batch norm's eps is 1e-5, with --paper too: the contest's code passes 0.8 by position, for momentum.

`result.png` shows --number; in the grids of `samples/` the columns are the digits 0 to 9.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_digits

import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# The code of the contest, CGAN.py, on the 60,000 digits of MNIST (--download). Its discriminator has dropout of 0.4,
# but it never calls `.train()`, without which Jittor leaves dropout out.
PAPER = {
    "n_epochs": 100,
    "batch_size": 64,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 32,
    "channels": 1,
    "latent_dim": 100,
    "arch": "mlp",
    "loss": "lsgan",
    "dropout": 0.0,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    architecture = ("arch", "latent_dim", "n_classes", "img_size", "channels", "ema_decay")
    parser = common.Parser("cgan_mnist", __doc__, PAPER, architecture, of_the_call=("number",))
    parser.set_defaults(
        n_epochs=100, batch_size=64, lr=0.0002, b1=0.5, b2=0.999, img_size=32, channels=1
    )
    parser.set_defaults(sample_interval=1000, checkpoint_interval=5, log_interval=100)
    add, number = parser.add_argument, common.number
    add(
        "--arch",
        choices=("mlp", "conv"),
        default="mlp",
        help="the contest's networks, or convolutional ones",
    )
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=100,
        help="length of the noise vector",
    )
    add(
        "--n_classes",
        type=number(int, at_least=2, at_most=256),
        default=10,
        help="number of labels",
    )
    add(
        "--loss", choices=("lsgan", "bce", "matching"), default="lsgan", help="the adversarial loss"
    )
    add(
        "--dropout",
        type=number(float, at_least=0, below=1),
        default=0.0,
        help="in D; the contest means to have 0.4",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.999,
        help="of the averaged weights; 0: off",
    )
    add(
        "--number",
        help="the digits of result.png, 0123456789 unless given; they are written nowhere else",
    )
    args = parser.parse(argv)
    if args.number is None:
        args.number = "0123456789"[: args.n_classes]
    if not (args.number.isascii() and args.number.isdigit()):
        parser.error("--number must be a string of the digits 0 to 9, such as 5550123")
    if max(map(int, args.number)) >= args.n_classes:
        parser.error(f"--number holds a digit that is not below --n_classes {args.n_classes}")
    if args.arch == "conv":
        parser.one_of(args, "img_size", (16, 32, 64))
    elif not 4 <= args.img_size <= 256:
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
            layers += [nn.Linear(width, next_width)]
            if next_width > 128:
                layers += [nn.BatchNorm(next_width)]
            layers += [nn.LeakyReLU(0.2)]
            width = next_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, channels * img_size**2), nn.Tanh())

    def execute(self, z, labels):
        images = self.layers(jt.concat([z, self.label_embedding(labels)], dim=1))
        return images.reshape(-1, *self.shape)


class Discriminator(nn.Module):
    """(B, channels, img_size, img_size) images and (B,) labels to (B,) scores: high for a real pair."""

    def __init__(self, n_classes, img_size, channels, dropout):
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        layers = [nn.Linear(channels * img_size**2 + n_classes, 512), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers += [nn.Linear(512, 512), nn.Dropout(dropout), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(512, 1))

    def execute(self, images, labels):
        flat = images.reshape(images.shape[0], -1)
        return self.layers(jt.concat([flat, self.label_embedding(labels)], dim=1)).reshape(-1)


class ConvGenerator(nn.Module):
    """As Generator: from 4 x 4 upwards, each transposed convolution doubles the size."""

    def __init__(self, latent_dim, n_classes, img_size, channels, width=64):
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        n_doublings = int(math.log2(img_size)) - 3
        c = self.top = width * 2**n_doublings
        self.project = nn.Linear(latent_dim + n_classes, c * 4 * 4)
        layers = [nn.BatchNorm(c), nn.ReLU()]
        for _ in range(n_doublings):  # c halves, height and width double
            layers += [nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm(c // 2), nn.ReLU()]
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.ConvTranspose(c, channels, 4, stride=2, padding=1), nn.Tanh()
        )

    def execute(self, z, labels):
        h = self.project(jt.concat([z, self.label_embedding(labels)], dim=1))
        return self.layers(h.reshape(-1, self.top, 4, 4))


class ProjectionDiscriminator(nn.Module):
    """As Discriminator: D(x, y) = psi(h) + <v(y), h>, h the features of x, v an embedding (Miyato 2018, section 3)."""

    def __init__(self, n_classes, img_size, channels, dropout, width=64, n_features=128):
        super().__init__()
        layers = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        c = width
        for _ in range(int(math.log2(img_size)) - 3):  # c doubles, height and width halve
            layers += [nn.Conv(c, 2 * c, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            c *= 2
        layers += [nn.Flatten(), nn.Dropout(dropout)]  # (B, c, 4, 4) to (B, c * 4 * 4)
        self.features = nn.Sequential(*layers, nn.Linear(c * 4 * 4, n_features), nn.LeakyReLU(0.2))
        self.realism = nn.Linear(n_features, 1)
        self.label_embedding = nn.Embedding(n_classes, n_features)

    def execute(self, images, labels):
        h = self.features(images)
        return self.realism(h).reshape(-1) + (self.label_embedding(labels) * h).sum(dim=1)


def build(args):
    """The generator and the discriminator of these arguments."""
    kinds = {"mlp": (Generator, Discriminator), "conv": (ConvGenerator, ProjectionDiscriminator)}[
        args.arch
    ]
    generator = kinds[0](args.latent_dim, args.n_classes, args.img_size, args.channels)
    discriminator = kinds[1](args.n_classes, args.img_size, args.channels, args.dropout)
    for module in (generator, discriminator):
        module.train()
    return generator, discriminator


# ---- losses and the step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (B,) that should all be `target`, 1 or 0; for bce they are logits."""
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def discriminator_loss(real_scores, fake_scores, wrong_scores, loss):
    """Scores (B,) of real pairs, of generated ones and, for matching, of real images with wrong labels, or None.

    Fakes of both kinds together weigh as much as the real pairs (Reed 2016, algorithm 1).
    """
    fakes = [scores for scores in (fake_scores, wrong_scores) if scores is not None]
    if any(scores.shape != real_scores.shape for scores in fakes):
        raise ValueError(
            f"scores of different shapes: {[scores.shape for scores in (real_scores, *fakes)]}"
        )
    fake = sum(adversarial_loss(scores, 0.0, loss) for scores in fakes) / len(fakes)
    return (adversarial_loss(real_scores, 1.0, loss) + fake) / 2


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, labels, z, wanted, wrong_labels, loss
):
    """One update of G, then one of D on the same generated images, as in the contest's code.

    Args:
        real, labels: (B, C, H, W) images in [-1, 1] and their (B,) labels.
        z, wanted: (B, latent_dim) noise and the (B,) labels to draw.
        wrong_labels: (B,) labels that `real` does not have; only matching takes them.

    Returns:
        {"loss_G", "loss_D"} as Jittor scalars.
    """
    fake = generator(z, wanted)
    loss_G = adversarial_loss(discriminator(fake, wanted), 1.0, loss)
    optimizer_G.step(loss_G)

    fake_scores = discriminator(fake.detach(), wanted)
    wrong_scores = discriminator(real, wrong_labels) if loss == "matching" else None
    loss_D = discriminator_loss(discriminator(real, labels), fake_scores, wrong_scores, loss)
    optimizer_D.step(loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D}


# ---- training and samples ----


def train(run, args):
    data = load_digits(args.data_dir, args.img_size, args.channels, args.n_classes, args.download)
    batches = common.Batches(data, args.batch_size, args.seed)
    networks = generator, discriminator = build(args)
    ema = common.EMA(generator, args.ema_decay)
    optimizers = [
        nn.Adam(network.parameters(), lr=args.lr, betas=(args.b1, args.b2)) for network in networks
    ]
    run.track(
        exports={"generator": ema.module},
        generator=generator,
        discriminator=discriminator,
        ema=ema,
        optimizer_G=optimizers[0],
        optimizer_D=optimizers[1],
        batches=batches,
    )

    def draw(z, labels):
        return common.in_chunks(ema.module, z, labels)

    grid_labels = np.tile(np.arange(args.n_classes, dtype=np.int32), 10)  # a column for each digit
    grid_z = run.sample_rng.standard_normal((len(grid_labels), args.latent_dim), dtype=np.float32)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    for _ in run.epochs():
        for real, labels in run.steps(batches):
            z = run.normal(args.batch_size, args.latent_dim)
            wanted = run.integers(0, args.n_classes, args.batch_size)
            wrong = (labels + run.integers(1, args.n_classes, args.batch_size)) % args.n_classes
            losses = train_step(
                *networks, *optimizers, real, labels, z, wanted, wrong, loss=args.loss
            )
            ema.update()
            run.log(losses)
            if run.every(args.sample_interval):
                images = draw(grid_z, grid_labels)
                common.save_image(images, run.sample_path, nrow=args.n_classes)
                watch.see_samples(images)
    write_results(run, draw, args)


def load_generator(run, args):
    """A function that gives the images (N, C, H, W) in [-1, 1] of (N, latent_dim) noise and (N,) labels, all numpy."""
    generator, _ = build(args)
    ema = common.EMA(generator, args.ema_decay)
    run.track(generator=generator, ema=ema)
    return lambda z, labels: common.in_chunks(ema.module, z, labels)


def generate(run, args):
    write_results(run, load_generator(run, args), args)


def write_results(run, draw, args):
    """result.png with the digits of --number, and the samples of --n_samples with their labels."""
    if not run.is_main:
        return
    digits = np.array([int(digit) for digit in args.number], np.int32)
    z = run.sample_rng.standard_normal((len(digits), args.latent_dim), dtype=np.float32)
    common.save_image(draw(z, digits), run.out_dir / "result.png", nrow=len(digits))
    if args.n_samples:
        labels = np.arange(args.n_samples, dtype=np.int32) % args.n_classes
        z = run.sample_rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
        run.save_samples(draw(z, labels), labels=labels)


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            generator, discriminator = build(args)
            label, image = (
                jt.zeros((1,), "int32"),
                jt.zeros((1, args.channels, args.img_size, args.img_size)),
            )
            common.describe("generator", generator, jt.zeros((1, args.latent_dim)), label)
            common.describe("discriminator", discriminator, image, label)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
