"""Wasserstein GAN with gradient penalty (Gulrajani 2017, https://arxiv.org/abs/1704.00028).

    python wgan_gp.py
    python wgan_gp.py --paper --data_dir PHOTOS
    python tools/explore.py results/wgan_gp --walk interpolate

A critic f that changes by at most 1 per unit of distance (1-Lipschitz) bounds the Wasserstein distance between the
data and the images of a generator G from below, and, at its best, meets it (Kantorovich and Rubinstein):

    W = max_f  E[f(x)] - E[f(G(z))]

The best f has slope 1 almost everywhere between the data and the images, so slopes other than 1 are penalized, at
points x^ = a x + (1 - a) G(z) with one a ~ U(0, 1) for each image. The critic minimizes L_f, the generator L_G, each
on fresh noise z ~ N(0, 1) (algorithm 1):

    wasserstein = E[f(x)] - E[f(G(z))]
    penalty = E[(|grad f(x^)| - 1)^2]
    L_f = -wasserstein + 10 penalty
    L_G = -E[f(G(z))]

The estimate falls as the images improve, and `losses.png` shows it; a good run's penalty stays far below 1.

A step is one update of the critic; every fifth (--n_critic) updates the generator too. Networks are DCGAN's as in
the authors' code (github.com/igul222/improved_wgan_training), batch norm in G. The critic has no norm: batch norm
would make the penalty of one image depend on the others (section 4).

The default trains on 32 x 32 digits, at half the authors' width and with filters of 4 x 4, not 5 x 5, for eight minutes
on two CPU cores; digits show after a few hundred updates of the generator. It departs from the paper, which --paper
undoes, in numbers alone: Adam's rate is also five times the paper's, since a default run has few such updates.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# Rate, betas, n_critic and batch: Gulrajani 2017, algorithm 1 and section 4. Sizes: the authors' gan_64x64.py, whose
# updates of G, 200,000, are as many epochs of their 64 x 64 ImageNet (1,281,149 images). The critic is that file's
# DCGANDiscriminator without a norm (bn=False), as in section 4: "we omit batch normalization in the critic". With
# bn=True it has layer norm, which the paper recommends where a norm is wanted.
PAPER = {
    "n_epochs": 50,
    "batch_size": 64,
    "lr": 0.0001,
    "b1": 0.0,
    "b2": 0.9,
    "n_critic": 5,
    "img_size": 64,
    "channels": 3,
    "width": 64,
    "kernel_size": 5,
    "latent_dim": 128,
    "ema_decay": 0.0,
}
PENALTY = 10.0  # lambda in Gulrajani 2017, section 4


def parse_args(argv=None):
    architecture = ("latent_dim", "width", "kernel_size", "img_size", "channels", "ema_decay")
    parser = common.Parser("wgan_gp", __doc__, PAPER, architecture)
    parser.set_defaults(
        n_epochs=100, batch_size=64, lr=0.0005, b1=0.0, b2=0.9, img_size=32, channels=1
    )
    parser.set_defaults(sample_interval=1000, checkpoint_interval=10, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--n_critic",
        type=number(int, at_least=1),
        default=5,
        help="updates of the critic for one of the generator",
    )
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=128,
        help="length of the noise vector",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=1024),
        default=32,
        help="channels next to the image",
    )
    add(
        "--kernel_size",
        type=int,
        choices=(4, 5),
        default=4,
        help="of the convolutions that halve or double",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.0,
        help="of averaged weights; 0: off",
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


class Generator(nn.Module):
    """(B, latent_dim) noise to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width, kernel_size):
        super().__init__()
        n_doublings = int(math.log2(img_size)) - 3
        c, k = width * 2**n_doublings, kernel_size
        self.project = nn.Linear(latent_dim, c * 4 * 4)
        layers = [nn.BatchNorm(c), nn.ReLU()]
        up = {"stride": 2, "padding": (k - 1) // 2, "output_padding": k % 2}
        for _ in range(n_doublings):  # c halves, height and width double
            layers += [
                nn.ConvTranspose(c, c // 2, k, bias=False, **up),
                nn.BatchNorm(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        self.layers = nn.Sequential(*layers, nn.ConvTranspose(c, channels, k, **up), nn.Tanh())

    def execute(self, z):
        return self.layers(self.project(z).reshape(z.shape[0], -1, 4, 4))


class Critic(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) scores without bounds: high for real."""

    def __init__(self, img_size, channels, width, kernel_size):
        super().__init__()
        c, k, down = width, kernel_size, {"stride": 2, "padding": (kernel_size - 1) // 2}
        layers = [nn.Conv(channels, c, k, **down), nn.LeakyReLU(0.2)]
        for _ in range(int(math.log2(img_size)) - 3):  # c doubles, height and width halve
            layers += [nn.Conv(c, 2 * c, k, **down), nn.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(c * 4 * 4, 1)
        )  # (B, c, 4, 4) to (B, 1)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def initialize(module):
    """Uniform weights of standard deviation 0.02 and biases of 0, as in the authors' code."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
            bound = 0.02 * math.sqrt(3)
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)


def build(args):
    """The generator and the critic of these arguments."""
    generator = Generator(
        args.latent_dim, args.img_size, args.channels, args.width, args.kernel_size
    )
    critic = Critic(args.img_size, args.channels, args.width, args.kernel_size)
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


def gradient_penalty(critic, real, fake, alpha):
    """E[(|grad f(x^)| - 1)^2] at x^ = alpha real + (1 - alpha) fake, the norm taken over each image as a whole.

    Args:
        real, fake: (B, ...) of equal shapes; fake carries no gradient.
        alpha: (B, 1, ...) one number in [0, 1] for each image.
    """
    between = alpha * real + (1 - alpha) * fake
    between.start_grad()
    gradient = jt.grad(critic(between).sum(), between)
    squares = (gradient.reshape(gradient.shape[0], -1) ** 2).sum(1)
    return ((jt.sqrt(squares + 1e-12) - 1) ** 2).mean()  # the root of 0 has no derivative


def train_step(generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, alpha):
    """One update of the critic and, unless z_G is None, one of the generator.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z_D, z_G: (B, latent_dim) noise of each update.
        alpha: (B, 1, 1, 1) in [0, 1], which places the points x^.

    Returns:
        {"wasserstein", "penalty"} before the update, and {"loss_G"} where G is updated, as Jittor scalars.
    """
    with jt.no_grad():
        fake = generator(z_D)
    scores = critic(jt.concat([real, fake], dim=0))  # without norms, one pass equals two
    wasserstein = wasserstein_estimate(scores[: len(real)], scores[len(real) :])
    penalty = gradient_penalty(critic, real, fake, alpha)
    optimizer_D.step(-wasserstein + PENALTY * penalty)
    losses = {"wasserstein": wasserstein, "penalty": penalty}
    if z_G is None:
        return losses

    loss_G = -critic(generator(z_G)).mean()
    optimizer_G.step(loss_G)
    return {**losses, "loss_G": loss_G}


# ---- training and samples ----


def latent(rng, n, args):
    """(n, latent_dim) numpy noise from N(0, 1), float32."""
    return rng.standard_normal((n, args.latent_dim), dtype=np.float32)


def train(run, args):
    data = load_images(
        args.data_dir, args.img_size, args.channels, args.download, stacked=args.stacked
    )
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, critic = build(args)
    ema = common.EMA(generator, args.ema_decay)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(critic.parameters(), lr=args.lr, betas=(args.b1, args.b2))
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
    for _ in run.epochs():
        for real, *_ in run.steps(batches):
            updates_G = run.step % args.n_critic == 0
            z_D, z_G = run.normal(args.batch_size, args.latent_dim), None
            if updates_G:
                z_G = run.normal(args.batch_size, args.latent_dim)
            alpha = run.uniform(args.batch_size, 1, 1, 1)
            losses = train_step(generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, alpha)
            if updates_G:
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
