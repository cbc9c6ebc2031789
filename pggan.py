"""PGGAN: a GAN that grows from images of 4 x 4 pixels to large ones.

Karras, Aila, Laine and Lehtinen 2018, https://arxiv.org/abs/1710.10196

    python pggan.py                               # digits, 16 minutes on two CPU cores
    python pggan.py --first_size 32               # the same networks, without growing
    python pggan.py --paper --data_dir FACES      # the paper's setting, own images

Method
    G and D begin with images of 4 x 4 pixels, and learn what is large in them. Then
    layers for 8 x 8 pixels are added to both, and so on up to --img_size. New layers
    are faded in: with alpha from 0 to 1, G's image is

        alpha (image of the new layers) + (1 - alpha) (the last image, twice as large)

    and D sees an image through its new layers and, half as large, through the old input
    layer, with the same alpha (section 2, figure 2). Real images are mixed likewise,
    with their own copies of half the size. Each size has a phase of --fade_images and
    one of --stable_images; the last one lasts until the run ends.

    The losses are those of WGAN-GP (Gulrajani 2017, https://arxiv.org/abs/1704.00028),
    with points x_hat = u x + (1 - u) G(z), one u ~ U(0, 1) for each image, and a term
    that keeps D(x) near 0, where it would drift otherwise (appendix A.1):

        wasserstein = E[D(x)] - E[D(G(z))]
        penalty = E[(|grad D(x_hat)| - 1)^2]
        drift = E[D(x)^2]
        L_D = -wasserstein + 10 penalty + 0.001 drift
        L_G = -E[D(G(z))]

    Three changes keep the training healthy. Weights are N(0, 1) and are scaled when
    they are used, so that all layers learn at one rate (section 4.1). In G each pixel's
    features are divided by their root mean square after every convolution (section
    4.2). D gets the standard deviation over the images of a group as a further channel,
    so that it can see that G draws too similar images (section 3). Samples come from
    averaged weights of G. Adam begins with new moments in every phase, as in the
    authors' code.

What to expect
    The pictures are always of the full size, so that their pixels become smaller as the
    run continues; digits appear at 16 x 16. `wasserstein` rises from size to size and
    says little about quality. `penalty`, which is logged without its weight, stays far
    below 1. The FID is 9.4 in a digit classifier's features, worse than that of
    dcgan.py, which takes less time (docs/scripts/pggan.md).

Differences from the paper (--paper undoes all of them)
    * 32 x 32 digits, 64 channels at most, batches of 32
    * phases of 10,000 images instead of 800,000
    * images are not mirrored
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images
from common.data.augment import Augment

import math

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Appendix A.1 and section 6.3, and the authors' config.py (branch
# original-theano-version of github.com/tkarras/progressive_growing_of_gans): CelebA-HQ,
# mirrored, 19 million images. Images of 256 pixels and more had smaller batches there,
# for lack of memory: 14, 6 and 3.
PAPER = {
    "n_images": 19000000,
    "stable_images": 800000,
    "fade_images": 800000,
    "first_size": 4,
    "batch_size": 16,
    "lr": 0.001,
    "b1": 0.0,
    "b2": 0.99,
    "img_size": 1024,
    "channels": 3,
    "width": 16,
    "max_width": 512,
    "latent_dim": 512,
    "group_size": 4,
    "ema_decay": 0.999,
    "mirror": True,
}
PENALTY_WEIGHT = 10
DRIFT_WEIGHT = 0.001
GAIN = math.sqrt(2)  # of weights before leaky ReLU


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=33, batch_size=32, lr=0.001)
    parser.set_defaults(sample_interval=200, log_interval=20, checkpoint_interval=1)
    parser.add_adam(b1=0.0, b2=0.99)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size",
        type=int,
        default=32,
        choices=(8, 16, 32, 64, 128, 256, 512, 1024),
        help="side of the images at the end",
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=1024, help="channels at the full size"
    )
    parser.add_architecture(
        "--max_width",
        type=int,
        default=64,
        at_most=1024,
        help="most channels of a layer; their number doubles where the size is halved",
    )
    parser.add_architecture("--latent_dim", type=int, default=64, help="length of z")
    parser.add_architecture(
        "--group_size", type=int, default=4, help="images that D compares with each other"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--first_size",
        type=int,
        default=4,
        help="side of the first images (--img_size: no growing)",
    )
    parser.add_argument(
        "--stable_images", type=int, default=10000, help="images between two additions of layers"
    )
    parser.add_argument(
        "--fade_images",
        type=int,
        default=10000,
        at_least=0,
        help="images while new layers are faded in (0: they are there at once)",
    )
    parser.add_argument(
        "--mirror", action="store_true", help="mirror half of the images in a folder"
    )
    args = parser.parse(argv)
    if args.first_size not in sizes_of(args.img_size):
        sizes = ", ".join(map(str, sizes_of(args.img_size)))
        parser.error(f"--first_size {args.first_size} must be one of {sizes}")
    return args


def sizes_of(img_size):
    """[4, 8, ..., img_size]"""
    sizes = [4]
    while sizes[-1] < img_size:
        sizes.append(2 * sizes[-1])
    return sizes


# ---- layers ----


class ScaledLinear(nn.Module):
    """x (B, n_in)  ->  (B, n_out).

    Its weights are N(0, 1), and scaled when they are used.
    """

    def __init__(self, n_in, n_out, gain):
        super().__init__()
        self.weight = jt.randn(n_out, n_in)
        self.bias = jt.zeros(n_out)
        self.scale = gain / math.sqrt(n_in)

    def execute(self, x):
        return nn.linear(x, self.scale * self.weight, self.bias)


class ScaledConv(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H, W). As ScaledLinear."""

    def __init__(self, c_in, c_out, size, gain=GAIN):
        super().__init__()
        self.weight = jt.randn(c_out, c_in, size, size)
        self.bias = jt.zeros(c_out)
        self.scale = gain / math.sqrt(c_in * size**2)
        self.padding = size // 2

    def execute(self, x):
        return nn.conv2d(x, self.scale * self.weight, self.bias, padding=self.padding)


class FirstImage(nn.Module):
    """z (B, latent_dim)  ->  (B, c, 4, 4), linear, with one bias for each channel."""

    def __init__(self, latent_dim, c):
        super().__init__()
        self.weight = jt.randn(16 * c, latent_dim)
        self.bias = jt.zeros((1, c, 1, 1))
        self.scale = GAIN / 4 / math.sqrt(latent_dim)  # a quarter, as in the authors' code

    def execute(self, z):
        x = nn.linear(z, self.scale * self.weight)
        return x.reshape(len(z), -1, 4, 4) + self.bias


class PixelNorm(nn.Module):
    """x (B, C, ...)  ->  x divided by its root mean square over the channels."""

    def execute(self, x):
        return x / jt.sqrt((x**2).mean(1, keepdims=True) + 1e-8)


class MinibatchDeviation(nn.Module):
    """x (B, C, H, W)  ->  (B, C + 1, H, W), with how much the images of a group differ.

    The added channel is the standard deviation over the images of a group, its mean
    over all channels and pixels.
    """

    def __init__(self, group_size):
        super().__init__()
        self.group_size = group_size

    def execute(self, x):
        n, _, height, width = x.shape
        size = math.gcd(n, self.group_size)  # groups are of equal size
        groups = x.reshape(size, n // size, -1)
        differences = groups - groups.mean(0, keepdims=True)
        deviation = jt.sqrt((differences**2).mean(0) + 1e-8).mean(1)  # (n / size,)
        added = deviation.reshape(1, -1, 1, 1, 1).broadcast((size, n // size, 1, height, width))
        return jt.concat([x, added.reshape(n, 1, height, width)], dim=1)


def double(images):
    """Images (B, C, H, W) as (B, C, 2 H, 2 W): each pixel becomes four."""
    return nn.interpolate(images, scale_factor=2, mode="nearest")


def halve(images):
    """Images (B, C, H, W) as (B, C, H / 2, W / 2): means of four pixels."""
    return nn.avg_pool2d(images, 2)


class Halving(nn.Module):
    """As `halve`."""

    def execute(self, images):
        return halve(images)


def fade(new, old, alpha):
    """alpha new + (1 - alpha) old, of equal shapes."""
    return old + alpha * (new - old)


# ---- networks ----


def width_at(size, img_size, width, max_width):
    """The channels of layers whose images have this side."""
    return min(width * img_size // size, max_width)


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, size, size).

    Attributes:
        blocks: one for each size from 4 to img_size. The first one takes z, the others
            (B, c_in, size / 2, size / 2) to (B, c, size, size).
        to_images: for each size.
    """

    def __init__(self, latent_dim, img_size, channels, width, max_width):
        super().__init__()
        self.sizes = sizes_of(img_size)
        c = width_at(4, img_size, width, max_width)
        first_block = nn.Sequential(
            PixelNorm(),
            FirstImage(latent_dim, c),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            ScaledConv(c, c, 3),
            nn.LeakyReLU(0.2),
            PixelNorm(),
        )
        blocks = [first_block]
        to_images = [ScaledConv(c, channels, 1, gain=1)]
        for size in self.sizes[1:]:
            c_in = c
            c = width_at(size, img_size, width, max_width)
            block = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                ScaledConv(c_in, c, 3),
                nn.LeakyReLU(0.2),
                PixelNorm(),
                ScaledConv(c, c, 3),
                nn.LeakyReLU(0.2),
                PixelNorm(),
            )
            blocks += [block]
            to_images += [ScaledConv(c, channels, 1, gain=1)]
        self.blocks = nn.ModuleList(blocks)
        self.to_images = nn.ModuleList(to_images)

    def execute(self, z, size=None, alpha=1.0):
        """Draws images.

        Args:
            size: of the images (default: img_size).
            alpha: how far the layers of this size are faded in; at 4 x 4 it is 1.
        """
        level = len(self.sizes) - 1 if size is None else self.sizes.index(size)
        x = z
        old = None
        for i in range(level + 1):
            if i == level and alpha < 1:
                old = self.to_images[i - 1](x)
            x = self.blocks[i](x)
        images = self.to_images[level](x)
        return images if old is None else fade(images, double(old), alpha)

    def parameters_at(self, size, is_fading):
        """The parameters that images of this size depend on."""
        level = self.sizes.index(size)
        found = self.to_images[level].parameters()
        for i in range(level + 1):
            found += self.blocks[i].parameters()
        if is_fading:
            found += self.to_images[level - 1].parameters()
        return found


class Discriminator(nn.Module):
    """images (B, channels, size, size)  ->  scores (B,), without bounds.

    Attributes:
        from_images: for each size from 4 to img_size, (B, channels, size, size) to
            (B, c, size, size).
        blocks: for each size but 4, (B, c, size, size) to (B, c_out, size / 2,
            size / 2).
    """

    def __init__(self, img_size, channels, width, max_width, group_size):
        super().__init__()
        self.sizes = sizes_of(img_size)
        from_images = []
        blocks = []
        for size in self.sizes:
            c = width_at(size, img_size, width, max_width)
            layer = nn.Sequential(
                ScaledConv(channels, c, 1),
                nn.LeakyReLU(0.2),
            )
            from_images += [layer]
            if size == 4:
                continue
            block = nn.Sequential(
                ScaledConv(c, c, 3),
                nn.LeakyReLU(0.2),
                ScaledConv(c, width_at(size // 2, img_size, width, max_width), 3),
                nn.LeakyReLU(0.2),
                Halving(),
            )
            blocks += [block]
        self.from_images = nn.ModuleList(from_images)
        self.blocks = nn.ModuleList(blocks)
        c = width_at(4, img_size, width, max_width)
        self.last = nn.Sequential(  # (B, c, 4, 4) -> (B, 1)
            MinibatchDeviation(group_size),
            ScaledConv(c + 1, c, 3),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            ScaledLinear(16 * c, c, gain=GAIN),
            nn.LeakyReLU(0.2),
            ScaledLinear(c, 1, gain=1),
        )

    def execute(self, images, alpha=1.0):
        """Scores images of any size from 4 to img_size; alpha as of the generator."""
        level = self.sizes.index(images.shape[2])
        x = self.from_images[level](images)
        for i in reversed(range(level)):
            x = self.blocks[i](x)
            if i == level - 1 and alpha < 1:
                x = fade(x, self.from_images[i](halve(images)), alpha)
        return self.last(x).reshape(-1)

    def parameters_at(self, size, is_fading):
        """The parameters that scores of images of this size depend on."""
        level = self.sizes.index(size)
        found = self.last.parameters() + self.from_images[level].parameters()
        for i in range(level):
            found += self.blocks[i].parameters()
        if is_fading:
            found += self.from_images[level - 1].parameters()
        return found


def build(args):
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width, args.max_width)
    discriminator = Discriminator(
        args.img_size, args.channels, args.width, args.max_width, args.group_size
    )
    generator.train()
    discriminator.train()
    return generator, discriminator


# ---- losses and one training step ----


def gradient_penalty(discriminator, real, fake, u, alpha):
    """The penalty between real and generated images (B, C, H, W), at u (B, 1, 1, 1)."""
    common.check_same_shape(real, fake)
    x_hat = (u * real + (1 - u) * fake).detach()
    x_hat.start_grad()  # the gradient is computed for the points
    gradient = jt.grad(discriminator(x_hat, alpha).sum(), x_hat)
    norm = jt.sqrt((gradient**2).sum((1, 2, 3)) + 1e-12)
    return ((norm - 1) ** 2).mean()


def train_step(networks, optimizers, real, z_D, z_G, u, *, alpha):
    """Updates D, then G.

    Args:
        networks, optimizers: (of G, of D).
        real: images (B, C, size, size) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) for each update.
        u: (B, 1, 1, 1) in [0, 1].
        alpha: how far the layers of this size are faded in.

    Returns:
        {"wasserstein", "penalty", "drift", "loss_G"} as Jittor scalars, without their
        weights.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    size = real.shape[2]

    # D: real images against generated ones
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z_D, size, alpha)
    real_scores = discriminator(real, alpha)
    fake_scores = discriminator(fake, alpha)
    wasserstein = real_scores.mean() - fake_scores.mean()
    penalty = gradient_penalty(discriminator, real, fake, u, alpha)
    drift = (real_scores**2).mean()
    optimizer_D.step(-wasserstein + PENALTY_WEIGHT * penalty + DRIFT_WEIGHT * drift)

    # G: new images, to which D should give high scores
    loss_G = -discriminator(generator(z_G, size, alpha), alpha).mean()
    optimizer_G.step(loss_G)  # Jittor: computes the gradients of G's parameters, and updates
    return {"wasserstein": wasserstein, "penalty": penalty, "drift": drift, "loss_G": loss_G}


# ---- training ----


class Growth:
    """A phase of the training: images of one size.

    Attributes:
        size: the side of its images.
        fade_images: while how many images the layers of this size are faded in; 0: they
            are there from the start.
        start: images of the run before the phase.
        length: in images; None for the last phase.
    """

    def __init__(self, size, fade_images, start, length):
        self.size = size
        self.fade_images = fade_images
        self.start = start
        self.length = length

    def alpha(self, n_images):
        """How far the layers are faded in after `n_images` images of the run."""
        if self.fade_images == 0:
            return 1.0
        return min((n_images - self.start) / self.fade_images, 1.0)


def growths(args, n_images):
    """{name: Growth} of the phases of a run of `n_images` images, in their order."""
    phases = {}
    start = 0
    for size in sizes_of(args.img_size):
        if size < args.first_size:
            continue
        if size > args.first_size and args.fade_images > 0:
            phases[f"{size} fading"] = Growth(size, args.fade_images, start, args.fade_images)
            start += args.fade_images
        phases[f"{size}"] = Growth(size, 0, start, args.stable_images)
        start += args.stable_images
    phases[f"{args.img_size}"].length = None

    reached = {}  # by the run
    for name, phase in phases.items():
        if phase.start < n_images:
            reached[name] = phase
            if phase.length is not None:
                phase.length = min(phase.length, n_images - phase.start)
    return reached


def train(run, args):
    data = load(args)
    networks = build(args)
    generator, discriminator = networks
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)

    phases = growths(args, args.n_images or args.n_epochs * len(data))
    lengths = {name: phase.length for name, phase in phases.items()}
    for name in run.phases(lengths, in_images=True):
        phase = phases[name]
        is_fading = phase.fade_images > 0
        optimizer_G = adam(generator.parameters_at(phase.size, is_fading), args)
        optimizer_D = adam(discriminator.parameters_at(phase.size, is_fading), args)
        run.checkpoint(  # what checkpoint_last.npz holds
            generator=generator,
            discriminator=discriminator,
            averaged=averaged,
            optimizer_G=optimizer_G,
            optimizer_D=optimizer_D,
        )
        run.restore()  # from --resume or --init_from, if given
        for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
            # A batch of digits also has labels (*_), which this method does not use.
            for images, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
                alpha = phase.alpha(run.n_images)
                z_D = run.normal(args.batch_size, args.latent_dim)
                z_G = run.normal(args.batch_size, args.latent_dim)
                u = run.uniform(args.batch_size, 1, 1, 1)
                real = at_size(images, phase.size, alpha)
                optimizers = (optimizer_G, optimizer_D)
                losses = train_step(networks, optimizers, real, z_D, z_G, u, alpha=alpha)
                averaged.update()
                run.log(losses)
                if run.every(args.sample_interval):
                    run.save_grid(draw(averaged.module, fixed_z, phase.size, alpha))
    write_samples(run, averaged.module, args)


def load(args):
    flips = Augment(crop=False, flip=args.mirror)
    return load_images(args.data_dir, args.img_size, args.channels, augment=flips)


def adam(parameters, args):
    return nn.Adam(parameters, lr=args.lr, betas=(args.b1, args.b2))


def at_size(images, size, alpha):
    """Real images (B, C, H, H) at a phase's size, mixed with copies of half of it."""
    while images.shape[2] > size:
        images = halve(images)
    if alpha < 1:
        images = fade(images, double(halve(images)), alpha)
    return images


def current_growth(run, args):
    """The size that the images of a run have reached, and its alpha."""
    reached = None
    for phase in growths(args, max(run.n_images, 1)).values():
        if reached is None or run.n_images > phase.start:
            reached = phase
    return reached.size, reached.alpha(run.n_images)


# ---- samples ----


def draw(generator, z, size, alpha):
    """Images (N, C, img_size, img_size) of noise z, numpy; small ones are enlarged."""

    def network(z):
        return generator(z, size, alpha)

    images = common.predict(network, z)
    times = generator.sizes[-1] // size
    return images.repeat(times, axis=2).repeat(times, axis=3)


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    size, alpha = current_growth(run, args)
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(draw(generator, fixed_z, size, alpha), to="result.png")
    if args.n_samples:
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(draw(generator, z, size, alpha))


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
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
