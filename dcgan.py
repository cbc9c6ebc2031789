"""DCGAN: a generative adversarial network of convolutions (Radford 2015, https://arxiv.org/abs/1511.06434).

    python dcgan.py
    python dcgan.py --paper --data_dir PHOTOS
    python tools/explore.py results/dcgan --walk interpolate

A generator G turns noise z into an image, a discriminator D tells images of the data from generated ones. With
logits D(x) and the logistic function s, D and G minimize in turn, each on fresh noise (Goodfellow 2014,
https://arxiv.org/abs/1406.2661, algorithm 1, and the non-saturating L_G of its section 3):

    L_D = -E[log s(D(x))] - E[log(1 - s(D(G(z))))]
    L_G = -E[log s(D(G(z)))]

--loss lsgan takes squared distances of D to 1 and 0 instead (Mao 2017, https://arxiv.org/abs/1611.04076), --loss hinge
max(0, 1 - D(x)) and max(0, 1 + D(G(z))) (Lim 2017, https://arxiv.org/abs/1705.02894).

--minibatch_discrimination B,C lets D see how near the images of a batch are to each other (Salimans 2016,
https://arxiv.org/abs/1606.03498, section 3.2). `tools/evaluate.py modes` counts what a run with --stacked has lost.

The architecture is Radford's (section 3): strided and transposed convolutions alone, batch norm except at G's output
and D's input, ReLU in G and leaky ReLU of 0.2 in D, tanh at the end; weights from N(0, 0.02^2), Adam with beta1 0.5.

The default trains on 32 x 32 digits, a quarter of the paper's width, for six minutes on two CPU cores; digits show
after five epochs. It departs from the paper, which --paper undoes (figures in docs/quality.md):
  * all that D sees carries normal noise (--instance_noise, Sonderby 2016, https://arxiv.org/abs/1610.04490): else D
    soon tells the few images of a small data set with certainty, and G has little to learn from;
  * the rate is three times the paper's and the batch a quarter, since a default run has few updates;
  * noise is normal, as in the authors' code, not uniform: a walk between two points can follow the sphere;
  * samples come from an exponential moving average of G's weights (--ema_decay).
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images, whole_batch

import argparse
import functools
import math
import re

import jittor as jt
import numpy as np

from jittor_fast import nn

# Radford 2015, section 4; width and epochs of the authors' code (github.com/soumith/dcgan.torch, main.lua).
PAPER = {
    "n_epochs": 25,
    "batch_size": 128,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 64,
    "channels": 3,
    "width": 128,
    "latent_dim": 100,
    "noise": "uniform",
    "loss": "bce",
    "instance_noise": 0.0,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    architecture = (
        "latent_dim",
        "width",
        "img_size",
        "channels",
        "ema_decay",
        "noise",
        "minibatch_discrimination",
    )
    parser = common.Parser("dcgan", __doc__, PAPER, architecture)
    parser.set_defaults(
        n_epochs=60, batch_size=32, lr=0.0006, b1=0.5, b2=0.999, img_size=32, channels=1
    )
    parser.set_defaults(sample_interval=500, checkpoint_interval=5, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=100,
        help="length of the noise vector",
    )
    add(
        "--noise",
        choices=("normal", "uniform"),
        default="normal",
        help="N(0, 1), or uniform in [-1, 1]",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=1024),
        default=32,
        help="channels next to the image",
    )
    add("--loss", choices=("bce", "lsgan", "hinge"), default="bce", help="the adversarial loss")
    add(
        "--instance_noise",
        type=number(float, at_least=0),
        default=0.5,
        help="deviation of the noise on D's input",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.999,
        help="of the averaged weights; 0: off",
    )
    add(
        "--minibatch_discrimination",
        type=kernels,
        metavar="B,C",
        help="B kernels of C numbers at D's end, say 100,5",
    )
    add(
        "--stacked",
        action="store_true",
        help="three digits as the channels of one image: 1,000 modes to count",
    )
    args = parser.parse(argv)
    parser.one_of(args, "img_size", (16, 32, 64, 128))
    return args


def kernels(text):
    """The argparse type of "B,C", which stays the text that is stored."""
    if not re.fullmatch("[1-9][0-9]{0,2},[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError(
            f"must be B,C, two whole numbers from 1 to 999 such as 100,5, got {text!r}"
        )
    return text


# ---- networks ----


class Generator(nn.Module):
    """(B, latent_dim) noise to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        n_doublings = int(math.log2(img_size)) - 3
        c = width * 2**n_doublings
        layers = [
            nn.ConvTranspose(latent_dim, c, 4, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]  # (B, c, 4, 4)
        for _ in range(n_doublings):  # c halves, height and width double
            layers += [nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm(c // 2), nn.ReLU()]
            c //= 2
        layers += [nn.ConvTranspose(c, channels, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(z.reshape(z.shape[0], -1, 1, 1))


class MinibatchDiscrimination(nn.Module):
    """(N, A) features to (N, A + B): beside each row, how near the other rows are to it (Salimans 2016, section 3.2).

    M = features T, with T (A, B, C);  o(i)_b = sum over j of exp(-|M_ib - M_jb|_1), over the whole batch.
    """

    def __init__(self, n_features, n_kernels, kernel_dim):
        self.weight = jt.zeros((n_features, n_kernels, kernel_dim))

    def execute(self, features):
        n_features, n_kernels, kernel_dim = self.weight.shape
        M = jt.matmul(features, self.weight.reshape(n_features, -1)).reshape(
            -1, 1, n_kernels, kernel_dim
        )
        others = whole_batch(M).transpose(1, 0, 2, 3)  # (1, N, B, C)
        return jt.concat([features, jt.exp(-jt.abs(M - others).sum(3)).sum(1)], dim=1)


class Discriminator(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) logits: high for real; 0 kernels leave discrimination out."""

    def __init__(self, img_size, channels, width, n_kernels=0, kernel_dim=0):
        super().__init__()
        layers = [nn.Conv(channels, width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        c = width
        for _ in range(int(math.log2(img_size)) - 3):  # c doubles, height and width halve
            layers += [nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm(2 * c), nn.LeakyReLU(0.2)]
            c *= 2
        if n_kernels:
            layers += [nn.Flatten(), MinibatchDiscrimination(16 * c, n_kernels, kernel_dim)]
        last = (
            nn.Linear(16 * c + n_kernels, 1, bias=False)
            if n_kernels
            else nn.Conv(c, 1, 4, bias=False)
        )
        self.layers = nn.Sequential(
            *layers, last
        )  # (B, c, 4, 4) to (B, 1, 1, 1) or, by way of rows, to (B, 1)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def initialize(module):
    """Weights of convolutions from N(0, 0.02^2), of batch norms from N(1, 0.02^2) (Radford 2015, section 4)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear, MinibatchDiscrimination)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The generator and the discriminator of these arguments."""
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width)
    discrimination = map(int, (args.minibatch_discrimination or "0,0").split(","))
    discriminator = Discriminator(args.img_size, args.channels, args.width, *discrimination)
    for module in (generator, discriminator):
        initialize(module)
        module.train()
    return generator, discriminator


# ---- losses and the step ----


def discriminator_loss(real_logits, fake_logits, loss):
    """Logits (B,) of real and of generated images; -log s(x) = softplus(-x)."""
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"logits of different shapes: {real_logits.shape} and {fake_logits.shape}")
    if loss == "bce":
        return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()
    if loss == "lsgan":
        return (((real_logits - 1) ** 2).mean() + (fake_logits**2).mean()) / 2
    return jt.maximum(1 - real_logits, 0).mean() + jt.maximum(1 + fake_logits, 0).mean()


def generator_loss(fake_logits, loss):
    """Non-saturating: G raises the logits of its images."""
    if loss == "bce":
        return nn.softplus(-fake_logits).mean()
    if loss == "lsgan":
        return ((fake_logits - 1) ** 2).mean() / 2
    return -fake_logits.mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, noise, loss):
    """One update of D, then one of G.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z_D, z_G: (B, latent_dim) noise of each update.
        noise: a function that gives instance noise of real's shape, or 0; D sees no image without it.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    with jt.no_grad():
        fake = generator(z_D)
    loss_D = discriminator_loss(discriminator(real + noise()), discriminator(fake + noise()), loss)
    optimizer_D.step(loss_D)

    loss_G = generator_loss(discriminator(generator(z_G) + noise()), loss)
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


# ---- training and samples ----


def latent(rng, n, args):
    """(n, latent_dim) numpy noise of --noise, float32."""
    if args.noise == "normal":
        return rng.standard_normal((n, args.latent_dim), dtype=np.float32)
    return rng.uniform(-1, 1, (n, args.latent_dim)).astype(np.float32)


def train(run, args):
    data = load_images(
        args.data_dir, args.img_size, args.channels, args.download, stacked=args.stacked
    )
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator = build(args)
    ema = common.EMA(generator, args.ema_decay)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    run.track(
        exports={"generator": ema.module},
        generator=generator,
        discriminator=discriminator,
        ema=ema,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        batches=batches,
    )
    shape = (args.batch_size, args.channels, args.img_size, args.img_size)

    def noise():
        return args.instance_noise * run.normal(*shape) if args.instance_noise else 0

    draw = functools.partial(common.in_chunks, ema.module)
    grid_z = latent(run.sample_rng, 100, args)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    for _ in run.epochs():
        for real, *_ in run.steps(batches):
            z_D, z_G = (run.shard(latent(run.rng, args.batch_size, args)) for _ in range(2))
            losses = train_step(
                generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, noise, args.loss
            )
            ema.update()
            run.log(losses)
            if run.every(args.sample_interval):
                images = draw(grid_z)
                common.save_image(images, run.sample_path)
                watch.see_samples(images)
    write_results(run, draw, grid_z, args)


def load_generator(run, args):
    """A function that gives the images (N, C, H, W) in [-1, 1] of (N, latent_dim) noise, both numpy."""
    generator, _ = build(args)
    ema = common.EMA(generator, args.ema_decay)
    run.track(generator=generator, ema=ema)
    return functools.partial(common.in_chunks, ema.module)


def generate(run, args):
    write_results(run, load_generator(run, args), latent(run.sample_rng, 100, args), args)


def write_results(run, draw, grid_z, args):
    """result.png, and the samples of --n_samples."""
    if not run.is_main:
        return
    common.save_image(draw(grid_z), run.out_dir / "result.png")
    if args.n_samples:
        run.save_samples(draw(latent(run.sample_rng, args.n_samples, args)))


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            generator, discriminator = build(args)
            common.describe("generator", generator, jt.zeros((1, args.latent_dim)))
            common.describe(
                "discriminator",
                discriminator,
                jt.zeros((1, args.channels, args.img_size, args.img_size)),
            )
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
