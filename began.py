"""BEGAN: boundary equilibrium generative adversarial networks (Berthelot 2017, https://arxiv.org/abs/1703.10717).

    python began.py
    python began.py --paper --data_dir PHOTOS
    python tools/explore.py results/began --walk real

The discriminator D is an auto-encoder, and L(v) = E|v - D(v)| is how badly it reconstructs images v. D learns to
reconstruct the data well and the images of a generator G badly, G to make images that D reconstructs well, each on
fresh noise z, uniform in [-1, 1] (section 3.4):

    L_D = L(x) - k L(G(z_D))
    L_G = L(G(z_G))
    k  <- k + lambda_k (gamma L(x) - L(G(z_G))),  kept in [0, 1], from k = 0

k holds the two in balance: in equilibrium L(G(z)) = gamma L(x). A small gamma lets D attend to the data, and G's images
are clean and alike; a large one makes D tell them apart, and they are varied and rougher. How far a training has come
shows in the measure M, which falls while it learns; the rate is halved when M stalls (sections 3.4.1 and 4.1):

    M = L(x) + |gamma L(x) - L(G(z_G))|

`losses.png` shows k and M (measure); at the end loss_G / loss_real is near gamma.

The networks are the paper's (section 3.5): 3 x 3 convolutions with ELU, two at each size; the encoder's channels n, 2n,
3n, ... grow with each subsampling, the decoder has n everywhere and doubles by the nearest neighbour. Dense layers lead
to h and from it. G is built as D's decoder. --skip_connections, an option in the paper too, gives h's first tensor to
every size of the decoders.

The default trains on 32 x 32 digits for seven minutes on two CPU cores. They are clean, but only ones, sevens, nines:
what is easy to reconstruct. It departs from the paper, which --paper undoes, in numbers: a 16th of the width, a quarter
of the code, ten times the rate and 50 times lambda_k, for few updates; gamma 0.95, since 0.5 draws little but ones.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import functools
import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# Berthelot 2017, sections 3.4 and 4.1: gamma, lambda_k, batch, rates of 5e-5 to 1e-4, Adam's usual betas, codes of 64
# in most experiments, n = 128 at 128 x 128. The numbers of epochs and of updates after which M has stalled are ours.
PAPER = {
    "n_epochs": 40,
    "batch_size": 16,
    "lr": 0.0001,
    "b1": 0.9,
    "b2": 0.999,
    "img_size": 128,
    "channels": 3,
    "width": 128,
    "latent_dim": 64,
    "gamma": 0.5,
    "lambda_k": 0.001,
    "patience": 20000,
}
SMALLEST = 8  # height and width at the encoder's end, at every size of images
NOISE = "uniform"  # in [-1, 1], as tools/explore.py must know


def parse_args(argv=None):
    architecture = ("latent_dim", "width", "img_size", "channels", "skip_connections")
    parser = common.Parser("began", __doc__, PAPER, architecture)
    parser.set_defaults(
        n_epochs=30, batch_size=16, lr=0.001, b1=0.9, b2=0.999, img_size=32, channels=1
    )
    parser.set_defaults(sample_interval=1000, checkpoint_interval=5, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=16,
        help="length of z and of h",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=1024),
        default=8,
        help="n, the channels next to the image",
    )
    add(
        "--gamma",
        type=number(float, above=0, at_most=1),
        default=0.95,
        help="L(G(z)) / L(x) in equilibrium: variety",
    )
    add(
        "--lambda_k",
        type=number(float, at_least=0),
        default=0.05,
        help="how fast k follows the balance",
    )
    add(
        "--patience",
        type=number(int, at_least=1),
        default=1000,
        help="updates in a mean of M; a rise halves the rate",
    )
    add(
        "--skip_connections",
        action="store_true",
        help="give h's first tensor to every size of the decoders too",
    )
    add(
        "--stacked",
        action="store_true",
        help="three digits as the channels of one image: 1,000 modes to count",
    )
    args = parser.parse(argv)
    parser.one_of(args, "img_size", (16, 32, 64, 128))
    return args


# ---- networks ----


def conv(n_in, n_out, stride=1):
    """A 3 x 3 convolution and its ELU."""
    return [nn.Conv(n_in, n_out, 3, stride=stride, padding=1), nn.ELU()]


class Decoder(nn.Module):
    """(B, latent_dim) codes to (B, channels, img_size, img_size) images, which nothing bounds to [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width, skip_connections):
        super().__init__()
        self.width, self.skip_connections = width, skip_connections
        self.project = nn.Linear(latent_dim, width * SMALLEST**2)
        inputs = [width] + [2 * width if skip_connections else width] * int(
            math.log2(img_size // SMALLEST)
        )
        self.sizes = nn.ModuleList(
            [nn.Sequential(*conv(n, width), *conv(width, width)) for n in inputs]
        )
        self.image, self.doubled = nn.Conv(width, channels, 3, padding=1), nn.Upsample(2)

    def execute(self, h):
        first = self.project(h).reshape(h.shape[0], self.width, SMALLEST, SMALLEST)
        x = self.sizes[0](first)
        for i in range(1, len(self.sizes)):  # height and width double
            x = self.doubled(x)
            if self.skip_connections:
                first = self.doubled(first)
                x = jt.concat([x, first], dim=1)
            x = self.sizes[i](x)
        return self.image(x)


class AutoEncoder(nn.Module):
    """(B, channels, img_size, img_size) images to their reconstructions, through codes h (B, latent_dim)."""

    def __init__(self, latent_dim, img_size, channels, width, skip_connections):
        super().__init__()
        layers, c = conv(channels, width), width
        for _ in range(
            int(math.log2(img_size // SMALLEST))
        ):  # c grows by n, height and width halve
            layers += conv(c, c) + conv(c, c) + conv(c, c + width, stride=2)
            c += width
        layers += conv(c, c) + conv(c, c)  # (B, c, 8, 8)
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(c * SMALLEST**2, latent_dim))
        self.decoder = Decoder(latent_dim, img_size, channels, width, skip_connections)

    def execute(self, images):
        return self.decoder(self.encoder(images))


def initialize(module):
    """Xavier's uniform weights and biases of 0; the paper does not say."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0)


def build(args):
    """The generator and the discriminator of these arguments."""
    sizes = (args.latent_dim, args.img_size, args.channels, args.width, args.skip_connections)
    generator, discriminator = Decoder(*sizes), AutoEncoder(*sizes)
    for module in (generator, discriminator):
        initialize(module)
        module.train()
    return generator, discriminator


# ---- losses, the balance and the step ----


def reconstruction_loss(images, reconstructions):
    """L(v) = E|v - D(v)|, the mean over images and pixels."""
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"images and reconstructions of different shapes: {images.shape} and {reconstructions.shape}"
        )
    return jt.abs(images - reconstructions).mean()


class Balance:
    """k, and how often the rate was halved: whenever the mean of M over `patience` updates was not below the last."""

    def __init__(self, gamma, lambda_k, patience):
        self.gamma, self.lambda_k, self.patience = gamma, lambda_k, patience
        self.k, self.n_halvings, self.last_mean, self.total, self.n_updates = (
            0.0,
            0,
            math.inf,
            0.0,
            0,
        )

    def update(self, loss_real, loss_G):
        """Takes L(x) and L(G(z_G)) of the whole batch, as floats, and gives M."""
        error = self.gamma * loss_real - loss_G
        measure = loss_real + abs(error)
        self.k = min(max(self.k + self.lambda_k * error, 0.0), 1.0)
        self.total, self.n_updates = self.total + measure, self.n_updates + 1
        if self.n_updates >= self.patience:
            mean = self.total / self.n_updates
            self.n_halvings += mean >= self.last_mean
            self.last_mean, self.total, self.n_updates = mean, 0.0, 0
        return measure

    def state_dict(self):
        return {
            name: vars(self)[name]
            for name in ("k", "n_halvings", "last_mean", "total", "n_updates")
        }

    def load_state_dict(self, state):
        if not 0 <= state["k"] <= 1 or state["n_halvings"] < 0:
            raise ValueError("k lies outside [0, 1], or a count is negative")
        vars(self).update({name: state[name] for name in self.state_dict()})


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, k):
    """One update of D, then one of G.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z_D, z_G: (B, latent_dim) noise of each update.
        k: (1,) the weight of G's images in D's loss, in [0, 1].

    Returns:
        {"loss_real", "loss_fake", "loss_G"}: L(x), L(G(z_D)) and L(G(z_G)), as Jittor scalars.
    """
    with jt.no_grad():
        fake = generator(z_D)
    reconstructed = discriminator(
        jt.concat([real, fake], dim=0)
    )  # without norms, one pass equals two
    loss_real = reconstruction_loss(real, reconstructed[: len(real)])
    loss_fake = reconstruction_loss(fake, reconstructed[len(real) :])
    optimizer_D.step(loss_real - k * loss_fake)

    fake = generator(z_G)
    loss_G = reconstruction_loss(fake, discriminator(fake))
    optimizer_G.step(loss_G)
    return {"loss_real": loss_real, "loss_fake": loss_fake, "loss_G": loss_G}


# ---- training and samples ----


def latent(rng, n, args):
    """(n, latent_dim) numpy noise, uniform in [-1, 1], float32."""
    return rng.uniform(-1, 1, (n, args.latent_dim)).astype(np.float32)


def train(run, args):
    data = load_images(
        args.data_dir, args.img_size, args.channels, args.download, stacked=args.stacked
    )
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator = build(args)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    balance = Balance(args.gamma, args.lambda_k, args.patience)
    run.track(
        exports={"generator": generator},
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        balance=balance,
        batches=batches,
    )
    grid_z = latent(run.sample_rng, 100, args)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0])
    for _ in run.epochs():
        for real, *_ in run.steps(batches):
            optimizer_G.lr = optimizer_D.lr = args.lr / 2**balance.n_halvings
            z_D, z_G = (run.shard(latent(run.rng, args.batch_size, args)) for _ in range(2))
            k = jt.array(np.float32([balance.k]))
            losses = train_step(
                generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, k
            )
            measure = balance.update(
                *(common.batch_mean(losses[name]).item() for name in ("loss_real", "loss_G"))
            )
            run.log({**losses, "k": k, "measure": jt.array(np.float32([measure]))})
            if run.every(args.sample_interval):
                images = common.in_chunks(generator, grid_z)
                common.save_image(images, run.sample_path)
                watch.see_samples(images)
    write_results(run, functools.partial(common.in_chunks, generator), grid_z, args)


def load_generator(run, args):
    """A function that gives the images (N, C, H, W) of (N, latent_dim) noise, both numpy."""
    generator, _ = build(args)
    run.track(generator=generator)
    return functools.partial(common.in_chunks, generator)


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
