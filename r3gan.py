"""R3GAN: a regularized relativistic loss, and residual networks without norm.

Huang, Gokaslan, Kuleshov and Tompkin 2024, https://arxiv.org/abs/2501.05441

    python r3gan.py                               # digits, 14 minutes on two CPU cores
    python r3gan.py --data_dir stacked            # three digits as an image's channels
    python r3gan.py --paper --data_dir CIFAR10    # the authors' setting for CIFAR-10

Method
    The discriminator D does not judge images one by one: its loss compares a real image
    with a generated one, and so does the generator's (Jolicoeur-Martineau 2018,
    https://arxiv.org/abs/1807.00734). With pairs of a real image x and an image G(z) of
    noise z ~ N(0, I), f(t) = log(1 + exp(-t)), and gamma > 0:

        L_D = E[f(D(x) - D(G(z)))] + gamma/2 (R_1 + R_2)
        L_G = E[f(D(G(z)) - D(x))]
        R_1 = E[|grad D(x)|^2]
        R_2 = E[|grad D(G(z))|^2]

    Since only differences count, D cannot push all generated images to one side of a
    threshold that all real ones pass, so that G has to cover all real images. This loss
    alone does not converge. It does with R_1 and R_2, which keep D flat at real and at
    generated images (section 2).

    With a loss that is stable, the networks need none of the usual remedies. G and D
    mirror each other. They consist of residual blocks of three convolutions: 1 x 1 to
    twice the channels, 3 x 3 in groups of channels, and 1 x 1 back. There is no norm.
    Instead the weights start so that a block of L keeps its input's variance (Zhang
    2019, Fixup, https://arxiv.org/abs/1901.09321): the last convolution of a block
    starts at 0, the others with a factor of L^(-1/4) (section 3). Images are
    resampled by the filter 1 3 3 1.

    Over the run (or --schedule_images), the learning rate and gamma fall to --lr_end
    and --gamma_end, Adam's second beta rises from 0.9 to --b2, and the average of G
    gets longer, each along half a period of a cosine.

What to expect
    A loss_D of log 2 = 0.69 means that D does not distinguish real from generated
    images; it stays a little below. If it is far below, as 0.1, D is too far ahead:
    raise --gamma. `difference` is the mean of D(x) - D(G(z)). r1 and r2 are not
    weighted. At the end the FID is 1.07 in a digit classifier's features
    (docs/scripts/r3gan.md).

Differences from the paper (--paper undoes the first)
    * 32 x 32 digits; 64 channels up to 8 x 8 pixels and fewer beyond, where the paper
      has 768 up to 32 x 32; one block at each size; batches of 32 with a higher
      learning rate; no mirroring; and another gamma. The authors note that gamma
      belongs to the data and the networks.
    * always: no adaptive augmentation, which is another paper's (Karras 2020,
      https://arxiv.org/abs/2006.06676)
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images
from common.data.augment import Augment

import math

import jittor as jt
import numpy as np

from jittor_fast import fir_resample, nn  # jittor.nn on all CPU cores, and more

# The authors' setting for CIFAR-10 (github.com/brownvc/R3GAN, train.py, CIFAR10), which
# they trained for 250 million images (table 9 of the paper). Their Adam has b1 = 0.
PAPER = {
    "n_images": 250000000,
    "schedule_images": 20000000,
    "batch_size": 512,
    "lr": 0.0002,
    "lr_end": 0.00005,
    "b1": 0.0,
    "b2": 0.99,
    "gamma": 0.05,
    "gamma_end": 0.005,
    "img_size": 32,
    "channels": 3,
    "width": 768,
    "full_width_size": 32,
    "n_blocks": 2,
    "group_size": 16,
    "latent_dim": 64,
    "ema_images": 5000000,
    "mirror": True,
}
EXPANSION = 2  # how many times as many channels a block has inside
FIRST_B2 = 0.9  # Adam's second beta at the start
# Of leaky ReLU with a slope of 0.2: weights with this factor keep the variance.
GAIN = math.sqrt(2 / (1 + 0.2**2))


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=24, batch_size=32, lr=0.0025)
    parser.set_defaults(sample_interval=200, log_interval=20, checkpoint_interval=1)
    parser.add_adam(b1=0.0, b2=0.99)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size",
        type=int,
        default=32,
        choices=(16, 32, 64, 128, 256),
        help="side of the images",
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--width", type=int, default=64, at_most=4096, help="channels up to --full_width_size"
    )
    parser.add_architecture(
        "--full_width_size",
        type=int,
        default=8,
        choices=(4, 8, 16, 32),
        help="side of the largest images with --width channels; beyond, the channels are halved "
        "with each doubling",
    )
    parser.add_architecture(
        "--n_blocks", type=int, default=1, at_most=20, help="residual blocks at each size"
    )
    parser.add_architecture(
        "--group_size", type=int, default=16, help="channels of a group of a 3 x 3 convolution"
    )
    parser.add_architecture("--latent_dim", type=int, default=64, help="length of z")

    # Training
    parser.add_argument(
        "--lr_end", type=float, default=0.0006, help="learning rate at the end of the run"
    )
    parser.add_argument(
        "--schedule_images",
        type=int,
        help="images until gamma, the rates and the average have their last values (default: "
        "those of the whole run)",
    )
    parser.add_argument("--gamma", type=float, default=5.0, help="weight of R_1 and R_2, gamma")
    parser.add_argument("--gamma_end", type=float, default=0.5, help="gamma at the end of the run")
    parser.add_argument(
        "--ema_images",
        type=int,
        default=10000,
        help="half-life of the average of G at the end of the run, in images",
    )
    parser.add_argument(
        "--mirror", action="store_true", help="mirror half of the images in a folder"
    )
    args = parser.parse(argv)
    widths = widths_of(args.img_size, args.width, args.full_width_size)
    narrowest = EXPANSION * widths[args.img_size]
    if narrowest % args.group_size != 0:
        parser.error(
            f"--group_size {args.group_size} must divide {narrowest}, the channels inside the "
            f"blocks at {args.img_size} x {args.img_size} pixels (--width, --full_width_size)"
        )
    return args


def widths_of(img_size, width, full_width_size):
    """{size: channels of its blocks} for the sizes 4, 8, ..., img_size."""
    widths = {}
    size = 4
    while size <= img_size:
        widths[size] = width * full_width_size // max(size, full_width_size)
        size *= 2
    return widths


# ---- networks ----


def scaled(layer, gain=1.0):
    """The layer with weights from N(0, gain^2 / n), for n inputs of an output."""
    fan_in = math.prod(layer.weight.shape[1:])
    nn.init.gauss_(layer.weight, mean=0, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zero_(layer.bias)
    return layer


class Residual(nn.Module):
    """x (B, c, H, W)  ->  x + f(x), where f consists of three convolutions.

    Args:
        n_blocks: how many blocks the network has.
    """

    def __init__(self, c, group_size, n_blocks):
        super().__init__()
        inside = EXPANSION * c
        gain = GAIN * n_blocks**-0.25
        self.layers = nn.Sequential(
            scaled(nn.Conv(c, inside, 1), gain),
            nn.LeakyReLU(0.2),
            scaled(nn.Conv(inside, inside, 3, padding=1, groups=inside // group_size), gain),
            nn.LeakyReLU(0.2),
            scaled(nn.Conv(inside, c, 1, bias=False), gain=0),
        )

    def execute(self, x):
        return x + self.layers(x)


class FirstImage(nn.Module):
    """z (B, latent_dim)  ->  (B, c, 4, 4).

    Each channel is a learned image of 4 x 4 pixels, times a linear function of z.
    """

    def __init__(self, latent_dim, c):
        super().__init__()
        self.images = jt.randn(1, c, 4, 4)
        self.linear = scaled(nn.Linear(latent_dim, c, bias=False))

    def execute(self, z):
        return self.images * self.linear(z).reshape(len(z), -1, 1, 1)


class Score(nn.Module):
    """x (B, c, 4, 4)  ->  (B,): a weighted sum of each channel, and of the sums."""

    def __init__(self, c):
        super().__init__()
        self.weights = jt.randn(1, c, 4, 4) / 4
        self.linear = scaled(nn.Linear(c, 1, bias=False))

    def execute(self, x):
        return self.linear((self.weights * x).sum((2, 3))).reshape(-1)


class Doubling(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, 2 H, 2 W)."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = None
        if c_in != c_out:
            self.conv = scaled(nn.Conv(c_in, c_out, 1, bias=False))

    def execute(self, x):
        if self.conv is not None:
            x = self.conv(x)
        return fir_resample(x, up=2, padding=(2, 1))


class Halving(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H / 2, W / 2)."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = None
        if c_in != c_out:
            self.conv = scaled(nn.Conv(c_in, c_out, 1, bias=False))

    def execute(self, x):
        x = fir_resample(x, down=2, padding=(1, 1))
        if self.conv is not None:
            x = self.conv(x)
        return x


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size).

    They are mostly in [-1, 1].

    Args:
        widths: {size: channels} from 4 to img_size.
        n_blocks: at each size.
    """

    def __init__(self, latent_dim, widths, channels, n_blocks, group_size):
        super().__init__()
        n_all = n_blocks * len(widths)
        layers = [FirstImage(latent_dim, widths[4])]
        for size, c in widths.items():
            if size > 4:  # (B, c_in, size / 2, size / 2) -> (B, c, size, size)
                layers += [Doubling(widths[size // 2], c)]
            for _ in range(n_blocks):
                layers += [Residual(c, group_size, n_all)]
        layers += [scaled(nn.Conv(c, channels, 1, bias=False))]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  scores (B,).

    Only the difference of two scores has a meaning.

    Args:
        widths, n_blocks: as of `Generator`.
    """

    def __init__(self, widths, channels, n_blocks, group_size):
        super().__init__()
        n_all = n_blocks * len(widths)
        sizes = sorted(widths, reverse=True)
        layers = [scaled(nn.Conv(channels, widths[sizes[0]], 1, bias=False))]
        for size in sizes:
            for _ in range(n_blocks):
                layers += [Residual(widths[size], group_size, n_all)]
            if size > 4:  # (B, c_in, size, size) -> (B, c, size / 2, size / 2)
                layers += [Halving(widths[size], widths[size // 2])]
        layers += [Score(widths[4])]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


def build(args):
    widths = widths_of(args.img_size, args.width, args.full_width_size)
    shape = (widths, args.channels, args.n_blocks, args.group_size)
    generator = Generator(args.latent_dim, *shape)
    discriminator = Discriminator(*shape)
    generator.train()
    discriminator.train()
    return generator, discriminator


# ---- losses and one training step ----


def relativistic_loss(scores, other_scores):
    """E[f(D(x) - D(y))] of scores (B,) of images x, which should be higher, and y."""
    common.check_same_shape(scores, other_scores)
    return nn.softplus(other_scores - scores).mean()


def squared_slopes(gradient):
    """|grad D|^2 (B,) of the gradients (B, C, H, W) at the images of a batch."""
    return (gradient**2).sum((1, 2, 3))


def train_step(networks, optimizers, real, z_D, z_G, *, gamma):
    """Updates D, then G.

    Args:
        networks, optimizers: (of G, of D).
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) for each update.

    Returns:
        {"loss_D", "loss_G", "difference", "r1", "r2"} as Jittor scalars; loss_D is
        without the penalties, which are without their weight.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    n = len(real)

    # D: pairs of a real and a generated image, and D's slope at both
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z_D)
    images = jt.concat([real, fake], dim=0).detach()
    images.start_grad()  # the gradient is computed for the images
    scores = discriminator(images)
    loss_D = relativistic_loss(scores[:n], scores[n:])
    slopes = squared_slopes(jt.grad(scores.sum(), images))
    r1 = slopes[:n].mean()
    r2 = slopes[n:].mean()
    optimizer_D.step(loss_D + gamma / 2 * (r1 + r2))

    # G: new images, which D should prefer to the real ones
    fake = generator(z_G)
    with jt.no_grad():
        real_scores = discriminator(real)
    loss_G = relativistic_loss(discriminator(fake), real_scores)
    optimizer_G.step(loss_G)  # Jittor: computes the gradients of G's parameters, and updates
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "difference": (scores[:n] - scores[n:]).mean(),
        "r1": r1,
        "r2": r2,
    }


# ---- training ----


def train(run, args):
    data = load(args)
    networks = build(args)
    generator, discriminator = networks
    # Samples are drawn from the averaged weights; `update_schedules` sets the decay.
    averaged = common.EMA(generator, 0.5)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizers = (optimizer_G, optimizer_D)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    n_images = args.schedule_images or args.n_images or args.n_epochs * len(data)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            share = run.n_images / n_images  # of the schedules, done before this step
            gamma = update_schedules(args, share, optimizers, averaged)
            z_D = run.normal(args.batch_size, args.latent_dim)
            z_G = run.normal(args.batch_size, args.latent_dim)
            losses = train_step(networks, optimizers, real, z_D, z_G, gamma=gamma)
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


def load(args):
    flips = Augment(crop=False, flip=args.mirror)
    return load_images(args.data_dir, args.img_size, args.channels, augment=flips)


def along_a_cosine(start, end, share):
    """From `start` to `end`, as `share` goes from 0 to 1; then it stays `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1))) / 2


def update_schedules(args, share, optimizers, averaged):
    """Sets the rates, second betas and the average's decay; returns gamma.

    Args:
        share: how much of the schedules is done: from 0 to 1, and more after their end.
    """
    for optimizer in optimizers:
        optimizer.lr = along_a_cosine(args.lr, args.lr_end, share)
        optimizer.betas = (args.b1, along_a_cosine(FIRST_B2, args.b2, share))
    half_life = along_a_cosine(0, args.ema_images, share)
    if half_life > 0:
        averaged.decay = 0.5 ** (args.batch_size / half_life)
    return along_a_cosine(args.gamma, args.gamma_end, share)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        rng = run.fixed_rng()
        z = rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
        run.save_samples(common.predict(generator, z))


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, 0.5)
    run.checkpoint(generator=generator, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, args)


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
