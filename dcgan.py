"""Generative adversarial networks (Goodfellow 2014), all convolutional (DCGAN, Radford 2015).

    python dcgan.py
    python dcgan.py --data_dir PHOTOS --img_size 64 --channels 3
    python dcgan.py --resume results/dcgan --sample_only --walk interpolate

A generator G turns noise z into an image, a discriminator D tells images from data. With logits D(x) and the
non-saturating generator loss of Goodfellow 2014 (section 3):

    L_D = -E[log s(D(x))] - E[log(1 - s(D(G(z))))]        s: the logistic function
    L_G = -E[log s(D(G(z)))]

--loss lsgan takes squared distances of D to 1 and 0 instead (Mao 2017), --loss hinge max(0, 1 -+ D) (Lim 2017).
--arch mlp is the fully connected original of 2014.

The architecture is Radford's: strided and transposed convolutions, batch norm except at G's output and D's input,
ReLU in G and leaky ReLU 0.2 in D, weights from N(0, 0.02), Adam with beta1 0.5. Departures:
  * D sees data and samples through normal noise (--instance_noise, Sonderby 2017): otherwise it soon tells them apart
    with certainty, and what G can learn from it is little;
  * three times Radford's rate of 2e-4 and a quarter of his batch of 128, since a default run has few updates;
  * sizes other than 64 by the number of layers; a quarter of Radford's width, enough for digits (--width 128);
  * noise is normal, not uniform, so that a walk between two points can follow the sphere, and has 16 clusters
    (--n_codes): from a single one, a continuous G draws what lies between two digits too; both updates of a step
    share it;
  * --loss lsgan has the half of Mao's losses in L_D alone;
  * samples come from an exponential moving average of G's weights (--ema_decay);
  * the original of 2014 had maxout and dropout in D; --arch mlp has leaky ReLU.

Expect digits after five epochs. With --sample_only, --walk shows the latent space: `interpolate` between random
pairs, `arithmetic` on picked samples (numbered by row from 0 in the grids of `samples/`), and `direction` along
which an attribute changes.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import functools
import math

import jittor as jt
import numpy as np
from jittor import nn

from common import fast
from common.datasets import warn
from common.folders import load_images

CONV_SIZES = (16, 32, 64, 128)
GRID = 100  # samples in a grid


def parse_args(argv=None):
    parser = common.Parser(
        "dcgan", __doc__, architecture=("arch", "latent_dim", "n_codes", "width", "img_size", "channels", "ema_decay"),
        of_the_call=("walk", "base", "plus", "minus", "attribute"), n_epochs=60, batch_size=32, lr=0.0006, b1=0.5,
        b2=0.999, img_size=32, channels=1, sample_interval=500, checkpoint_interval=5, log_interval=50,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--arch", choices=("conv", "mlp"), default="conv", help="DCGAN, or the fully connected original")
    add("--latent_dim", type=number(int, at_least=1, at_most=4096), default=100, help="length of the noise vector")
    add("--n_codes", type=number(int, at_least=0, at_most=4096), default=16, help="clusters of noise; 0: one normal")
    add("--width", type=number(int, at_least=1, at_most=1024), default=32, help="channels next to the image")
    add("--loss", choices=("bce", "lsgan", "hinge"), default="bce", help="the adversarial loss")
    add("--instance_noise", type=number(float, at_least=0), default=0.5,
        help="standard deviation of the noise on all that D sees; 0: none")  # fmt: skip
    add("--ema_decay", type=number(float, at_least=0, below=1), default=0.999, help="of the averaged weights; 0: off")
    add("--download", action="store_true", help="fetch full MNIST (11 MB) into Jittor's data set folder")
    add("--walk", choices=("interpolate", "arithmetic", "direction"), help="with --sample_only: what to show")
    add("--base", help="arithmetic: samples to start from, such as 0,1,2; by default the grid's first row")
    add("--plus", help="arithmetic: samples whose mean is added, such as 3,17,22")
    add("--minus", help="arithmetic: samples whose mean is subtracted, such as 4,5,9")
    add("--attribute", choices=tuple(ATTRIBUTES), default="thickness", help="direction: what changes along it")
    args = parser.parse(argv)
    if args.arch == "conv" and args.img_size not in CONV_SIZES:
        nearest = min(CONV_SIZES, key=lambda size: abs(size - args.img_size))
        parser.error(f"--img_size {args.img_size}: --arch conv takes 16, 32, 64 or 128; nearest is {nearest}")
    if args.arch == "mlp" and not 4 <= args.img_size <= 128:
        parser.error(f"--img_size must be from 4 to 128 with --arch mlp, got {args.img_size}")
    if args.walk and not args.sample_only:
        parser.error("--walk needs --sample_only and --resume with a trained model")
    if args.walk == "arithmetic" and not (args.plus and args.minus):
        parser.error("--walk arithmetic needs --plus and --minus, such as --plus 3,17,22 --minus 4,5,9")
    for name in ("base", "plus", "minus"):
        setattr(args, name, parse_indices(parser, name, getattr(args, name)))
    return args


def parse_indices(parser, name, text):
    """"3,17,22" as a list of numbers of samples in a grid."""
    if not text:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) < GRID for part in parts):
        parser.error(f"--{name} must be numbers of samples from 0 to {GRID - 1}, such as 3,17,22; got {text!r}")
    return [int(part) for part in parts]


# ---- networks ----


class Generator(nn.Module):
    """(B, z_dim) noise to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, z_dim, img_size, channels, width):
        super().__init__()
        n_doublings = int(math.log2(img_size)) - 3
        c = width * 2**n_doublings
        layers = [fast.ConvTranspose(z_dim, c, 4, bias=False), fast.BatchNorm(c), fast.ReLU()]  # (B, c, 4, 4)
        for _ in range(n_doublings):  # c halves, height and width double
            layers += [fast.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False), fast.BatchNorm(c // 2),
                       fast.ReLU()]  # fmt: skip
            c //= 2
        self.layers = nn.Sequential(*layers, fast.ConvTranspose(c, channels, 4, stride=2, padding=1), fast.Tanh())

    def execute(self, z):
        return self.layers(z.reshape(z.shape[0], -1, 1, 1))


class Discriminator(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) logits: high for real."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        layers = [fast.Conv(channels, width, 4, stride=2, padding=1), fast.LeakyReLU(0.2)]
        c = width
        for _ in range(int(math.log2(img_size)) - 3):
            layers += [fast.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False), fast.BatchNorm(2 * c),
                       fast.LeakyReLU(0.2)]  # fmt: skip
            c *= 2
        self.layers = nn.Sequential(*layers, fast.Conv(c, 1, 4))  # (B, c, 4, 4) to (B, 1, 1, 1)

    def execute(self, images):
        return self.layers(images).reshape(-1)


class MLPGenerator(nn.Module):
    """As Generator, fully connected."""

    def __init__(self, z_dim, img_size, channels, width):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 4 * width), fast.ReLU(),
            nn.Linear(4 * width, 8 * width), fast.BatchNorm(8 * width), fast.ReLU(),
            nn.Linear(8 * width, 16 * width), fast.BatchNorm(16 * width), fast.ReLU(),
            nn.Linear(16 * width, channels * img_size**2), fast.Tanh(),
        )  # fmt: skip

    def execute(self, z):
        return self.layers(z).reshape(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """As Discriminator, fully connected."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels * img_size**2, 8 * width), fast.LeakyReLU(0.2),
            nn.Linear(8 * width, 4 * width), fast.LeakyReLU(0.2),
            nn.Linear(4 * width, 1),
        )  # fmt: skip

    def execute(self, images):
        return self.layers(images.reshape(images.shape[0], -1)).reshape(-1)


def initialize(module):
    """Weights of convolutions from N(0, 0.02), of batch norms from N(1, 0.02), biases 0 (Radford 2015, section 4)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)
        elif isinstance(layer, fast.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The generator and the discriminator of these arguments."""
    conv = args.arch == "conv"
    z_dim = args.n_codes + args.latent_dim
    generator = (Generator if conv else MLPGenerator)(z_dim, args.img_size, args.channels, args.width)
    discriminator = (Discriminator if conv else MLPDiscriminator)(args.img_size, args.channels, args.width)
    if conv:  # an MLP with such small weights hardly learns
        initialize(generator), initialize(discriminator)
    generator.train(), discriminator.train()
    return generator, discriminator


# ---- losses and the step ----


def softplus(x):
    """log(1 + exp(x)) without overflow, and without the saturation of Jittor's own below -20."""
    return jt.maximum(x, 0) + jt.log(1 + jt.exp(-jt.abs(x)))


def discriminator_loss(real_logits, fake_logits, loss):
    """Logits (B,) of real and of generated images; -log s(x) = softplus(-x)."""
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"logits of different shapes: {real_logits.shape} and {fake_logits.shape}")
    if loss == "bce":
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()
    if loss == "lsgan":
        return (((real_logits - 1) ** 2).mean() + (fake_logits**2).mean()) / 2
    return jt.maximum(1 - real_logits, 0).mean() + jt.maximum(1 + fake_logits, 0).mean()


def generator_loss(fake_logits, loss):
    """Non-saturating: G raises the logit of its images (hinge: linearly)."""
    if loss == "bce":
        return softplus(-fake_logits).mean()
    if loss == "lsgan":
        return ((fake_logits - 1) ** 2).mean()
    return -fake_logits.mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z, noise_real, noise_fake, loss):
    """One update of D, then one of G on the same z.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z: (B, z_dim) noise.
        noise_real, noise_fake: what is added to the images before D sees them, (B, C, H, W), or 0.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    fake = generator(z)
    noisy = fake + noise_fake
    loss_D = discriminator_loss(discriminator(real + noise_real), discriminator(noisy.detach()), loss)
    optimizer_D.step(loss_D)
    loss_G = generator_loss(discriminator(noisy), loss)
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


# ---- samples ----


def sample(generator, z, chunk=500):
    """(N, C, H, W) numpy images in [-1, 1] from (N, z_dim) numpy noise."""
    was_training = generator.is_training()
    generator.eval()
    with jt.no_grad():
        images = [generator(jt.array(z[i : i + chunk])).numpy() for i in range(0, len(z), chunk)]
    if was_training:
        generator.train()
    return np.concatenate(images)


def slerp(a, b, steps):
    """(steps, z_dim) points on the arc from a to b: normal noise lies near a sphere, the chord inside it."""
    angle = math.acos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
    t = np.linspace(0, 1, steps)[:, None]
    if angle < 1e-4:
        return ((1 - t) * a + t * b).astype(np.float32)
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / math.sin(angle)).astype(np.float32)


def arithmetic(z, base, plus, minus):
    """(n, z_dim): z[base] - mean z[minus] + mean z[plus]; several base samples are averaged too, if given.

    The mean of three samples is more stable than one (Radford 2015, section 6.3.2).
    """
    start = z[base].mean(0, keepdims=True) if base else z[:10]
    return start - z[minus].mean(0) + z[plus].mean(0)


def ink(images):
    """(N, C, H, W) in [-1, 1] as (N, H, W) in [0, 1]."""
    return (images.mean(1) + 1) / 2


def brightness(images):
    """Mean of the pixels, in [0, 1]."""
    return ink(images).mean((1, 2))


def thickness(images):
    """Width of the strokes in pixels: a line of width w has area w for every 2 pixels of its two edges."""
    x = ink(images)
    edges = np.abs(np.diff(x, axis=1)).sum((1, 2)) + np.abs(np.diff(x, axis=2)).sum((1, 2))
    return 2 * x.sum((1, 2)) / np.maximum(edges, 1e-6)


def slant(images):
    """Lean to the right: columns to the right for every row up, by second moments."""
    x = ink(images)
    rows, columns = np.mgrid[: x.shape[1], : x.shape[2]]
    total = np.maximum(x.sum((1, 2)), 1e-6)[:, None, None]
    dr = rows - (x * rows).sum((1, 2), keepdims=True) / total
    dc = columns - (x * columns).sum((1, 2), keepdims=True) / total
    return -(x * dr * dc).sum((1, 2)) / np.maximum((x * dr * dr).sum((1, 2)), 1e-6)


ATTRIBUTES = {"thickness": thickness, "slant": slant, "brightness": brightness}


def attribute_direction(z, values, steps=500, rate=1.0):
    """The unit vector (z_dim,) along which logistic regression finds above-median values of an attribute."""
    target = (values > np.median(values)).astype(np.float64)
    w, b = np.zeros(z.shape[1]), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(z @ w + b))) - target
        w -= rate * (z.T @ error / len(z) + 1e-3 * w)
        b -= rate * error.mean()
    return (w / np.linalg.norm(w)).astype(np.float32)


def walk(generator, args, z, rng):
    """The images (N, C, H, W) that --walk asks for, and how many stand in a row."""
    draw = functools.partial(common.latent_noise, rng, latent_dim=args.latent_dim, n_codes=args.n_codes)
    if args.walk == "interpolate":
        pairs = zip(draw(8), draw(8))
        return sample(generator, np.concatenate([slerp(a, b, 10) for a, b in pairs])), 10
    if args.walk == "arithmetic":
        rows = [z[args.minus], z[args.plus], z[args.base] if args.base else z[:10]]
        columns = max(map(len, rows))
        rows = [np.resize(row, (columns, z.shape[1])) for row in rows]
        result = np.resize(arithmetic(z, args.base, args.plus, args.minus), (columns, z.shape[1]))
        return sample(generator, np.concatenate([*rows, result])), columns
    points = draw(2000)
    along = attribute_direction(points, ATTRIBUTES[args.attribute](sample(generator, points)))
    off = rng.standard_normal(len(along), dtype=np.float32)
    for direction in (along, off):
        direction[: args.n_codes] = 0  # a code is one of a few: no line leads from one to the next
        direction /= np.linalg.norm(direction)
    off -= off @ along * along
    off /= np.linalg.norm(off)
    distances = np.linspace(-4, 4, 9, dtype=np.float32)[:, None]
    rows = [start + distances * direction for start in z[:5] for direction in (along, off)]
    return sample(generator, np.concatenate(rows)), 9


def write_results(run, generator, args, z, rng):
    """result.png or the picture of --walk, and samples.npz where --n_samples asks for it."""
    if args.walk:
        images, nrow = walk(generator, args, z, rng)
        common.save_image(images, run.out_dir / f"walk_{args.walk}.png", nrow=nrow)
    else:
        common.save_image(sample(generator, z), run.out_dir / "result.png")
    if args.n_samples:
        run.save_samples(sample(generator, common.latent_noise(rng, args.n_samples, args.latent_dim, args.n_codes)))


def mean_distance(images):
    """Mean Euclidean distance between pairs of (N, ...) images."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    return distances.sum() / (len(flat) * (len(flat) - 1))


class Watch:
    """Warns once when D has won (its loss stays under 0.01 for an epoch), and once when the samples collapse."""

    def __init__(self, data):
        self.real_distance = mean_distance(data.batch(np.arange(min(GRID, len(data))))[0])
        self.highest_loss, self.told = 0.0, set()

    def tell(self, what, message):
        if what not in self.told:
            self.told.add(what)
            warn(message)

    def see_loss(self, loss_D):
        self.highest_loss = max(self.highest_loss, loss_D)

    def end_epoch(self):
        if 0 < self.highest_loss < 0.01:
            self.tell("won", "the discriminator has won: its loss was under 0.01 for an epoch, and the generator no "
                      "longer learns from it; try another --loss, --lr or --seed")  # fmt: skip
        self.highest_loss = 0.0

    def see_samples(self, images):
        if mean_distance(images) < self.real_distance / 10:
            self.tell("collapse", "the samples have collapsed: they differ by less than a tenth of what the data's "
                      "images do; try another --loss, --lr or --seed")  # fmt: skip


def instance_noise(run, args):
    """Normal noise as large as a batch of images; 0 without --instance_noise."""
    if args.instance_noise == 0:
        return 0.0
    shape = args.batch_size, args.channels, args.img_size, args.img_size
    return run.shard(np.float32(args.instance_noise) * run.rng.standard_normal(shape, dtype=np.float32))


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        sample_rng = np.random.default_rng([args.seed, 3])  # of its own, so that pictures disturb no training
        grid_z = common.latent_noise(sample_rng, GRID, args.latent_dim, args.n_codes)
        if args.sample_only:
            generator, _ = build(args)
            ema = common.EMA(generator, args.ema_decay)
            run.track(generator=generator, ema=ema)
            write_results(run, ema.module, args, grid_z, sample_rng)
            return run.losses

        data = load_images(args.data_dir, args.img_size, args.channels, args.download)
        batches = common.Batches(data, args.batch_size, args.seed)
        generator, discriminator = build(args)
        ema = common.EMA(generator, args.ema_decay)
        optimizer_G = fast.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        optimizer_D = fast.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        run.track(generator=generator, discriminator=discriminator, ema=ema, optimizer_G=optimizer_G,
                  optimizer_D=optimizer_D, batches=batches)  # fmt: skip
        watch = Watch(data)
        for _ in run.epochs():
            for real, *_ in run.steps(batches):
                z = run.shard(common.latent_noise(run.rng, args.batch_size, args.latent_dim, args.n_codes))
                noise_real, noise_fake = instance_noise(run, args), instance_noise(run, args)
                losses = train_step(generator, discriminator, optimizer_G, optimizer_D, real, z, noise_real,
                                    noise_fake, args.loss)  # fmt: skip
                ema.update()
                run.log(losses)
                watch.see_loss(run.losses.get("loss_D", 1.0))
                if run.every(args.sample_interval):
                    images = sample(ema.module, grid_z)
                    common.save_image(images, run.out_dir / f"samples/step_{run.step:07d}.png")
                    watch.see_samples(images)
            watch.end_epoch()
        if run.is_main:
            write_results(run, ema.module, args, grid_z, sample_rng)
    return run.losses


if __name__ == "__main__":
    main()
