"""Wasserstein GAN with gradient penalty (Gulrajani 2017), and with weight clipping (Arjovsky 2017).

    python wgan_gp.py
    python wgan_gp.py --constraint clip

A critic f that changes by at most 1 per unit of distance (1-Lipschitz) bounds the Wasserstein distance between the
data and the images of a generator G from below, and, trained to its optimum, meets it (Kantorovich-Rubinstein):

    W = max_f  E[f(x)] - E[f(G(z))]

The critic maximizes the difference, the generator minimizes it; the estimate falls as the images improve, and
`losses.png` shows it. The constraint, at points x^ = a x + (1 - a) G(z) with one a ~ U(0, 1) for each image:

    L_f = E[f(G(z))] - E[f(x)] + 10 E[(|grad f(x^)| - 1)^2]
    L_G = -E[f(G(z))]

--constraint clip clips every weight of the critic to [-clip_value, clip_value] instead, and uses RMSProp.

A step is one update of the critic; the generator is updated in every --n_critic-th. As in the papers, Adam has
betas 0 and 0.9, n_critic is 5, and clip takes RMSProp with 5e-5. Departures from Gulrajani 2017:
  * Adam's rate is five times the paper's 1e-4: a default run has few updates of the generator;
  * networks are DCGAN's (the paper's for 28x28 and 64x64 differ little), the critic without any normalisation: batch
    norm would make the penalty of one image depend on the others;
  * noise has 32 clusters (--n_codes): from a single one, a continuous G draws what lies between two digits too;
  * the generator's update takes the noise of the critic's update before it;
  * samples come from an exponential moving average of G's weights (--ema_decay).

Expect digits after a few hundred updates of the generator.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import math

import jittor as jt
import numpy as np
from jittor import nn

from common import fast
from common.folders import load_images

SIZES = (16, 32, 64, 128)
PENALTY = 10.0  # lambda in Gulrajani 2017, section 4


def parse_args(argv=None):
    parser = common.Parser(
        "wgan_gp", __doc__,
        architecture=("latent_dim", "n_codes", "width", "img_size", "channels", "ema_decay", "constraint"),
        n_epochs=100, batch_size=64, lr=0.0005, b1=0.0, b2=0.9, img_size=32, channels=1, sample_interval=1000,
        checkpoint_interval=10, log_interval=50,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--constraint", choices=("gp", "clip"), default="gp", help="gradient penalty, or weight clipping and RMSProp")
    add("--n_critic", type=number(int, at_least=1), default=5, help="updates of the critic for one of the generator")
    add("--clip_value", type=number(float, above=0), default=0.01, help="with --constraint clip: largest weight")
    add("--latent_dim", type=number(int, at_least=1, at_most=4096), default=100, help="length of the noise vector")
    add("--n_codes", type=number(int, at_least=0, at_most=4096), default=32, help="clusters of noise; 0: one normal")
    add("--width", type=number(int, at_least=1, at_most=1024), default=32, help="channels next to the image")
    add("--ema_decay", type=number(float, at_least=0, below=1), default=0.999, help="of the averaged weights; 0: off")
    add("--download", action="store_true", help="fetch full MNIST (11 MB) into Jittor's data set folder")
    args = parser.parse(argv)
    if args.img_size not in SIZES:
        nearest = min(SIZES, key=lambda size: abs(size - args.img_size))
        parser.error(f"--img_size {args.img_size}: it must be 16, 32, 64 or 128; nearest is {nearest}")
    if args.constraint == "clip" and args.lr == parser.get_default("lr"):
        args.lr = 0.00005  # Arjovsky 2017, algorithm 1
    return args


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


class Critic(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) scores, unbounded; no normalisation."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        layers = [fast.Conv(channels, width, 4, stride=2, padding=1), fast.LeakyReLU(0.2)]
        c = width
        for _ in range(int(math.log2(img_size)) - 3):
            layers += [fast.Conv(c, 2 * c, 4, stride=2, padding=1), fast.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(*layers, fast.Conv(c, 1, 4))  # (B, c, 4, 4) to (B, 1, 1, 1)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def build(args):
    """The generator and the critic of these arguments."""
    generator = Generator(args.n_codes + args.latent_dim, args.img_size, args.channels, args.width)
    critic = Critic(args.img_size, args.channels, args.width)
    generator.train(), critic.train()
    return generator, critic


def build_optimizers(args, generator, critic):
    if args.constraint == "clip":
        return tuple(nn.RMSprop(net.parameters(), lr=args.lr) for net in (generator, critic))
    return tuple(fast.Adam(net.parameters(), lr=args.lr, betas=(args.b1, args.b2)) for net in (generator, critic))


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


def clip_weights(critic, clip_value):
    """Brings every weight into [-clip_value, clip_value] (Arjovsky 2017)."""
    for parameter in critic.parameters():
        parameter.update(parameter.clamp(-clip_value, clip_value))
        parameter.start_grad()


def critic_step(critic, optimizer, real, fake, alpha, clip_value=None):
    """One update of the critic; with `clip_value` weights are clipped, else gradients are penalised.

    Returns:
        {"wasserstein", "penalty"} as Jittor scalars; the estimate is the one before the update.
    """
    scores = critic(jt.concat([real, fake], dim=0))  # without norms, one pass equals two
    estimate = wasserstein_estimate(scores[: len(real)], scores[len(real) :])
    if clip_value is not None:
        optimizer.step(-estimate)
        clip_weights(critic, clip_value)
        return {"wasserstein": estimate}
    penalty = gradient_penalty(critic, real, fake, alpha)
    optimizer.step(-estimate + PENALTY * penalty)
    return {"wasserstein": estimate, "penalty": penalty}


def train_step(generator, critic, optimizer_G, optimizer_D, real, z, alpha, update_G, clip_value=None):
    """One update of the critic and, with `update_G`, one of the generator on the same (B, z_dim) noise.

    Returns:
        {"wasserstein"} and, without clipping, {"penalty"} as Jittor scalars.
    """
    if not update_G:
        with jt.no_grad():
            fake = generator(z)
        return critic_step(critic, optimizer_D, real, fake, alpha, clip_value)
    fake = generator(z)
    losses = critic_step(critic, optimizer_D, real, fake.detach(), alpha, clip_value)
    optimizer_G.step(-critic(fake).mean())
    return losses


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


def write_results(run, generator, args, z, rng):
    """result.png, and samples.npz where --n_samples asks for it."""
    common.save_image(sample(generator, z), run.out_dir / "result.png")
    if args.n_samples:
        run.save_samples(sample(generator, common.latent_noise(rng, args.n_samples, args.latent_dim, args.n_codes)))


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        sample_rng = np.random.default_rng([args.seed, 3])  # of its own, so that pictures disturb no training
        grid_z = common.latent_noise(sample_rng, 100, args.latent_dim, args.n_codes)
        if args.sample_only:
            generator, _ = build(args)
            ema = common.EMA(generator, args.ema_decay)
            run.track(generator=generator, ema=ema)
            write_results(run, ema.module, args, grid_z, sample_rng)
            return run.losses

        data = load_images(args.data_dir, args.img_size, args.channels, args.download)
        batches = common.Batches(data, args.batch_size, args.seed)
        generator, critic = build(args)
        ema = common.EMA(generator, args.ema_decay)
        optimizer_G, optimizer_D = build_optimizers(args, generator, critic)
        run.track(generator=generator, critic=critic, ema=ema, optimizer_G=optimizer_G, optimizer_D=optimizer_D,
                  batches=batches)  # fmt: skip
        clip_value = args.clip_value if args.constraint == "clip" else None
        for _ in run.epochs():
            for real, *_ in run.steps(batches):
                z = run.shard(common.latent_noise(run.rng, args.batch_size, args.latent_dim, args.n_codes))
                alpha = run.shard(run.rng.random((args.batch_size, 1, 1, 1), dtype=np.float32))
                update_G = run.step % args.n_critic == 0
                losses = train_step(generator, critic, optimizer_G, optimizer_D, real, z, alpha, update_G, clip_value)
                if update_G:
                    ema.update()
                run.log(losses)
                if run.every(args.sample_interval):
                    common.save_image(sample(ema.module, grid_z), run.out_dir / f"samples/step_{run.step:07d}.png")
        if run.is_main:
            write_results(run, ema.module, args, grid_z, sample_rng)
    return run.losses


if __name__ == "__main__":
    main()
