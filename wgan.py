"""Wasserstein GAN with weight clipping (Arjovsky 2017, https://arxiv.org/abs/1701.07875).

    python wgan.py
    python wgan.py --paper --data_dir PHOTOS
    python tools/explore.py results/wgan --walk interpolate

A critic f whose slope is nowhere above K bounds K times the Wasserstein distance between the data and the images of
a generator G from below, and meets it where it is the best of its kind (Kantorovich and Rubinstein):

    K W = max_f  E[f(x)] - E[f(G(z))]

Every weight of f is kept in [-c, c] (--clip), which bounds its slope by some K. The critic maximizes the difference,
the generator minimizes it, each on fresh noise z ~ N(0, 1) (algorithm 1):

    wasserstein = E[f(x)] - E[f(G(z))]
    loss_G = -E[f(G(z))]

The estimate falls as the images improve, and `losses.png` shows it. It is in units of the unknown K, so that two runs
with different critics cannot be compared by it; `wgan_gp.py` fixes K at 1.

The critic should be near its best when the generator is updated. So it is updated --n_critic times for each update of
the generator, and --n_critic_long times for each of the first 25 and every 500th, as in the authors' code
(github.com/martinarjovsky/WassersteinGAN). The rest is from there too: DCGAN's two networks, batch norm in both,
weights from N(0, 0.02^2), real and generated images in batches of their own, weights clipped before each update of the
critic, RMSProp.

A step is one update of the critic. The default trains on 32 x 32 digits at three eighths of the authors' width; digits
show after about 4,000 steps. It departs from their code, which --paper undoes, in numbers alone: the rate is ten times
theirs, the batch half of it and --n_critic_long a quarter, since a default run has few updates of the generator.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import itertools
import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# The authors' code, main.py: its defaults.
PAPER = {
    "n_epochs": 25,
    "batch_size": 64,
    "lr": 0.00005,
    "clip": 0.01,
    "n_critic": 5,
    "n_critic_long": 100,
    "img_size": 64,
    "channels": 3,
    "width": 64,
    "latent_dim": 100,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    architecture = ("latent_dim", "width", "img_size", "channels", "ema_decay")
    parser = common.Parser("wgan", __doc__, PAPER, architecture, uses_adam=False)
    parser.set_defaults(n_epochs=150, batch_size=32, lr=0.0005, img_size=32, channels=1)
    parser.set_defaults(sample_interval=1000, checkpoint_interval=10, log_interval=50)
    add, number = parser.add_argument, common.number
    add("--clip", type=number(float, above=0), default=0.01, help="largest weight of the critic")
    add(
        "--n_critic",
        type=number(int, at_least=1),
        default=5,
        help="updates of the critic for one of the generator",
    )
    add(
        "--n_critic_long",
        type=number(int, at_least=1),
        default=25,
        help="the same at first and every 500th time",
    )
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=100,
        help="length of the noise vector",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=1024),
        default=24,
        help="channels next to the image",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.0,
        help="of averaged weights; 0: off",
    )
    args = parser.parse(argv)
    parser.one_of(args, "img_size", (16, 32, 64, 128))
    return args


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


class Critic(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) scores without bounds: high for real."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        layers = [nn.Conv(channels, width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        c = width
        for _ in range(int(math.log2(img_size)) - 3):  # c doubles, height and width halve
            layers += [nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm(2 * c), nn.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(
            *layers, nn.Conv(c, 1, 4, bias=False)
        )  # (B, c, 4, 4) to (B, 1, 1, 1)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def initialize(module):
    """Weights of convolutions from N(0, 0.02^2), of batch norms from N(1, 0.02^2), as in the authors' code."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The generator and the critic of these arguments."""
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width)
    critic = Critic(args.img_size, args.channels, args.width)
    for module in (generator, critic):
        initialize(module)
        module.train()
    return generator, critic


# ---- losses and the step ----


def wasserstein_estimate(real_scores, fake_scores):
    """E[f(x)] - E[f(G(z))] from (B,) scores."""
    if real_scores.shape != fake_scores.shape:
        raise ValueError(f"scores of different shapes: {real_scores.shape} and {fake_scores.shape}")
    return real_scores.mean() - fake_scores.mean()


def clip_weights(critic, clip):
    """Brings every weight into [-clip, clip], those of batch norm too, but no running statistics."""
    for name, parameter in critic.named_parameters():
        if not name.endswith(("running_mean", "running_var")):
            parameter.update(parameter.clamp(-clip, clip))
            parameter.start_grad()


def train_step(generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, clip):
    """One update of the critic and, unless z_G is None, one of the generator.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z_D, z_G: (B, latent_dim) noise of each update.

    Returns:
        {"wasserstein"}, the estimate before the update, and {"loss_G"} where G is updated, as Jittor scalars.
    """
    clip_weights(critic, clip)
    with jt.no_grad():
        fake = generator(z_D)
    wasserstein = wasserstein_estimate(critic(real), critic(fake))
    optimizer_D.step(-wasserstein)
    if z_G is None:
        return {"wasserstein": wasserstein}

    loss_G = -critic(generator(z_G)).mean()
    optimizer_G.step(loss_G)
    return {"wasserstein": wasserstein, "loss_G": loss_G}


def steps_with_generator(n_critic, n_critic_long):
    """The numbers, from 1, of the steps that update the generator too."""
    step = 0
    for i in itertools.count():
        step += n_critic_long if i < 25 or i % 500 == 0 else n_critic
        yield step


# ---- training and samples ----


def latent(rng, n, args):
    """(n, latent_dim) numpy noise from N(0, 1), float32."""
    return rng.standard_normal((n, args.latent_dim), dtype=np.float32)


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, args.download)
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, critic = build(args)
    ema = common.EMA(generator, args.ema_decay)
    optimizer_G = nn.RMSprop(generator.parameters(), lr=args.lr)
    optimizer_D = nn.RMSprop(critic.parameters(), lr=args.lr)
    run.track(
        exports={"generator": ema.module},
        generator=generator,
        critic=critic,
        ema=ema,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        batches=batches,
    )

    def draw(z):
        return common.in_chunks(ema.module, z)

    grid_z = latent(run.sample_rng, 100, args)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0])
    updates_of_G = (
        s for s in steps_with_generator(args.n_critic, args.n_critic_long) if s > run.step
    )
    next_update = next(updates_of_G)
    for _ in run.epochs():
        for real, *_ in run.steps(batches):
            z_D, z_G = run.normal(args.batch_size, args.latent_dim), None
            if run.step == next_update:
                z_G = run.normal(args.batch_size, args.latent_dim)
            losses = train_step(
                generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, clip=args.clip
            )
            if run.step == next_update:
                ema.update()
                next_update = next(updates_of_G)
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
    return lambda z: common.in_chunks(ema.module, z)


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
            generator, critic = build(args)
            common.describe("generator", generator, jt.zeros((1, args.latent_dim)))
            common.describe(
                "critic", critic, jt.zeros((1, args.channels, args.img_size, args.img_size))
            )
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
