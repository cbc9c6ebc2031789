"""Conditional GAN that writes a string of digits of your choice.

Mirza and Osindero 2014, https://arxiv.org/abs/1411.1784

    python cgan_mnist.py                      # digits, 4 minutes on two CPU cores
    python cgan_mnist.py --number 5550123     # result.png shows this number
    python cgan_mnist.py --paper --download   # the contest's setting, on full MNIST
    python cgan_mnist.py --resume results/cgan_mnist --sample_only --number 5550123

Method
    A generator G draws a digit from noise z and a label y. A discriminator D scores how
    well an image x fits a label. With the least-squares objective (Mao 2017,
    https://arxiv.org/abs/1611.04076) D is trained towards 1 on real pairs and towards 0
    on generated ones, and G towards a score of 1 for its own; y' is drawn at random:

        L_D = 1/2 E[(D(x, y) - 1)^2] + 1/2 E[D(G(z, y'), y')^2]
        L_G = E[(D(G(z, y'), y') - 1)^2]

    Both networks are perceptrons that take the label's embedding beside their input, as
    in the warm-up contest of the Jittor challenge (github.com/Jittor/JGAN,
    models/cgan), whose code follows github.com/eriklindernoren/PyTorch-GAN.

    --loss bce takes the cross entropy of Mirza's paper. --loss matching is GAN-CLS
    (Reed 2016, https://arxiv.org/abs/1605.05396, algorithm 1) with squares: real images
    with a wrong label count as fake too. --arch conv takes convolutional networks, at
    the end of this file.

What to expect
    Digits fit their labels after 30 epochs. At the end a digit classifier reads 98.7 %
    of them as the label that was asked for; the FID in its features is 1.23, and 1.58
    for the same training in PyTorch (docs/scripts/cgan_mnist.md). In the pictures of
    samples/ the columns are the digits 0 to 9. A loss_D near 0.25 means that D guesses;
    near 0, D has won.

Differences from the contest's code
    * samples are drawn from averaged weights (--ema_decay; --paper undoes this)
    * batch norm's eps is 1e-5, with --paper too: the contest's code writes
      BatchNorm1d(n, 0.8), which sets eps; momentum was probably meant
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_digits

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The contest's CGAN.py, on the 60,000 digits of MNIST (--download). Its discriminator
# has dropout of 0.4, but the code never calls `.train()`, without which Jittor's
# dropout is off.
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
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=100, batch_size=64, lr=0.0002)
    parser.set_defaults(sample_interval=1000, log_interval=100)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--arch", choices=("mlp", "conv"), default="mlp", help="perceptrons or convolutions"
    )
    parser.add_architecture(
        "--img_size", type=int, default=32, at_least=4, at_most=256, help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--n_classes", type=int, default=10, at_least=2, at_most=256, help="number of labels"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--loss", choices=("lsgan", "bce", "matching"), default="lsgan", help="adversarial loss"
    )
    parser.add_argument(
        "--dropout",
        type=float,
        default=0.0,
        below=1,
        help="dropout in D (the contest's code has 0.4, but never switches it on)",
    )
    parser.add_argument(
        "--number", stored=False, help="the digits of result.png (default: 0123456789)"
    )
    args = parser.parse(argv)
    check_number(parser, args)
    if args.arch == "conv" and args.img_size not in (16, 32, 64):
        parser.error(f"--img_size {args.img_size}: --arch conv needs 16, 32 or 64")
    return args


def check_number(parser, args):
    if args.number is None:
        args.number = "0123456789"[: args.n_classes]
    if not (args.number.isascii() and args.number.isdigit()):
        parser.error("--number must be a string of the digits 0 to 9, such as 5550123")
    if max(int(digit) for digit in args.number) >= args.n_classes:
        parser.error(f"--number has a digit that is not below --n_classes {args.n_classes}")


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim), labels (B,)  ->  images (B, channels, img_size, img_size).

    The images are in [-1, 1].
    """

    def __init__(self, latent_dim, n_classes, img_size, channels):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + n_classes, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 256),
            nn.BatchNorm(256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 512),
            nn.BatchNorm(512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 1024),
            nn.BatchNorm(1024),
            nn.LeakyReLU(0.2),
            nn.Linear(1024, channels * img_size**2),
            nn.Tanh(),
        )

    def execute(self, z, labels):
        inputs = jt.concat([z, self.label_embedding(labels)], dim=1)
        return self.layers(inputs).reshape(-1, *self.shape)


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size), labels (B,)  ->  scores (B,).

    The scores are high for real pairs.
    """

    def __init__(self, n_classes, img_size, channels, dropout):
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        self.layers = nn.Sequential(
            nn.Linear(channels * img_size**2 + n_classes, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 1),
        )

    def execute(self, images, labels):
        pixels = images.reshape(len(images), -1)
        inputs = jt.concat([pixels, self.label_embedding(labels)], dim=1)
        return self.layers(inputs).reshape(-1)


def build(args):
    if args.arch == "conv":
        generator_class = ConvGenerator
        discriminator_class = ProjectionDiscriminator
    else:
        generator_class = Generator
        discriminator_class = Discriminator
    generator = generator_class(args.latent_dim, args.n_classes, args.img_size, args.channels)
    discriminator = discriminator_class(args.n_classes, args.img_size, args.channels, args.dropout)
    generator.train()
    discriminator.train()  # Jittor's dropout is off until .train()
    return generator, discriminator


# ---- losses and one training step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (B,) that should be `target`, 1 or 0; logits for bce."""
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def discriminator_loss(real_scores, fake_scores, wrong_scores, loss):
    """L_D of scores (B,).

    Args:
        wrong_scores: of real images with wrong labels, for matching; otherwise None.
            They count as fake: both types of fakes together weigh as much as the real
            pairs (Reed 2016, algorithm 1).
    """
    common.check_same_shape(real_scores, fake_scores)
    fakes = [adversarial_loss(fake_scores, 0.0, loss)]
    if wrong_scores is not None:
        common.check_same_shape(real_scores, wrong_scores)
        fakes.append(adversarial_loss(wrong_scores, 0.0, loss))
    real = adversarial_loss(real_scores, 1.0, loss)
    return (real + sum(fakes) / len(fakes)) / 2


def generator_loss(fake_scores, loss):
    """L_G of scores (B,)."""
    return adversarial_loss(fake_scores, 1.0, loss)


def train_step(networks, optimizers, real, labels, z, fake_labels, wrong_labels, *, loss):
    """Updates G, then D on the same generated images, as in the contest's code.

    Args:
        networks, optimizers: (of G, of D).
        real, labels: images (B, C, H, W) in [-1, 1] and their labels (B,).
        z, fake_labels: noise (B, latent_dim), and the labels (B,) to draw.
        wrong_labels: labels (B,) that `real` does not have, for matching.

    Returns:
        {"loss_G", "loss_D"} as Jittor scalars.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers

    # G 的更新：让判别器把生成的图片当作真的
    # G: images that D should score as real
    fake = generator(z, fake_labels)
    loss_G = generator_loss(discriminator(fake, fake_labels), loss)
    optimizer_G.step(loss_G)  # Jittor: computes the gradients of G's parameters, and updates

    # D 的更新：区分真实图片与生成图片；detach 使梯度不会传回 G
    # D: real pairs against generated ones; detach keeps G out of D's gradient
    fake_scores = discriminator(fake.detach(), fake_labels)
    wrong_scores = None
    if loss == "matching":
        wrong_scores = discriminator(real, wrong_labels)
    real_scores = discriminator(real, labels)
    loss_D = discriminator_loss(real_scores, fake_scores, wrong_scores, loss)
    optimizer_D.step(loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D}


# ---- training ----


def train(run, args):
    data = load_digits(args.data_dir, args.img_size, args.channels, args.n_classes)
    generator, discriminator = build(args)
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    networks = (generator, discriminator)
    optimizers = (optimizer_G, optimizer_D)
    n_classes = args.n_classes
    grid_labels = np.tile(np.arange(n_classes, dtype=np.int32), 10)  # a column for each digit
    grid_z = run.fixed_noise("normal", len(grid_labels), args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, labels in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            z = run.noise("normal", args.batch_size, args.latent_dim)
            fake_labels = run.integers(0, n_classes, args.batch_size)
            # For matching: a shift of 1 to n_classes - 1 never gives the right label.
            wrong_labels = (labels + run.integers(1, n_classes, args.batch_size)) % n_classes
            losses = train_step(
                networks, optimizers, real, labels, z, fake_labels, wrong_labels, loss=args.loss
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, grid_z, grid_labels), nrow=n_classes)
    write_samples(run, averaged.module, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes --number as result.png, and samples.npz if --n_samples asks for it."""
    digits = np.array([int(digit) for digit in args.number], np.int32)
    z = run.fixed_noise("normal", len(digits), args.latent_dim)
    run.save_grid(common.predict(generator, z, digits), to="result.png", nrow=len(digits))
    if args.n_samples:
        labels = np.arange(args.n_samples, dtype=np.int32) % args.n_classes
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z, labels), labels=labels)


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    run.checkpoint(generator=generator, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, args)


# ---- --arch conv ----


class ConvGenerator(nn.Module):
    """The same inputs and outputs as Generator, by transposed convolutions."""

    def __init__(self, latent_dim, n_classes, img_size, channels, width=64):
        super().__init__()
        n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
        c = width * 2**n_blocks
        self.n_features = c
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        self.project = nn.Linear(latent_dim + n_classes, c * 4 * 4)

        layers = [
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        for _ in range(n_blocks):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, img_size / 2, ...) -> (B, channels, img_size, img_size)
            nn.ConvTranspose(c, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z, labels):
        h = self.project(jt.concat([z, self.label_embedding(labels)], dim=1))
        return self.layers(h.reshape(-1, self.n_features, 4, 4))


class ProjectionDiscriminator(nn.Module):
    """The same inputs and outputs as Discriminator, by convolutions and a projection.

    D(x, y) = psi(h) + <v(y), h>, with features h of x, a linear psi and an embedding v
    (Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637, section 3).
    """

    def __init__(self, n_classes, img_size, channels, dropout, width=64, n_features=128):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size / 2, ...)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [  # (B, c, 4, 4) -> (B, n_features)
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(c * 4 * 4, n_features),
            nn.LeakyReLU(0.2),
        ]
        self.features = nn.Sequential(*layers)
        self.psi = nn.Linear(n_features, 1)
        self.label_embedding = nn.Embedding(n_classes, n_features)

    def execute(self, images, labels):
        h = self.features(images)
        score = self.psi(h).reshape(-1)
        projection = (self.label_embedding(labels) * h).sum(dim=1)
        return score + projection


def main(argv=None):
    args = parse_args(argv)
    jt.flags.use_cuda = common.choose_device(args.device)  # 1 where a GPU works, else 0
    with common.Run(args) as run:  # seeds, the output folder, errors in one line
        if args.sample_only:
            generate(run, args)
        else:
            train(run, args)


if __name__ == "__main__":
    main()
