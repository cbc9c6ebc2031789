"""InfoGAN: codes that find their own meaning (Chen 2016, https://arxiv.org/abs/1606.03657).

    python infogan.py
    python infogan.py --paper --download
    python infogan.py --resume results/infogan --sample_only --code 3 --continuous -1.5 0.5

Beside noise z, a generator G takes codes c: a category c_1, and numbers c_2, c_3 uniform in [-1, 1]. Nothing says what
they mean, but images x = G(z, c) must tell them: their information I(c; x) is to be high. A network Q gives a
distribution of an image's codes, and with it a lower bound (equation 5), which is logged in nats:

    L_I = E[log Q(c|x)] + H(c) <= I(c; x)

Q shares the body of the discriminator D. With logits D(x) and the logistic function s, and each on fresh noise and
codes, D and Q minimize loss_D - lambda L_I, then G minimizes loss_G - lambda L_I:

    loss_D = -E[log s(D(x))] - E[log(1 - s(D(G(z, c))))]
    loss_G = -E[log s(D(G(z, c)))]

`info_category`, with lambda 1, is at most H(c_1) = log 10 = 2.30. Of a number Q gives a Gaussian with its mean and
deviation (appendix C); lambda is smaller there (section 6), and `info_continuous`, summed over the numbers, has no
bound: it grows by log 2 = 0.69 with each halving of Q's error. Networks are those of table 1; what the paper leaves
open is the authors' code (github.com/openai/InfoGAN), which fixes the deviations at 1.

The default departs from it in numbers alone: half the width, half the batch and 60 epochs of the bundled digits, in
four minutes on two CPU cores. Categories become digits in 20 epochs; in three trainings they named 68, 79 and 84 % of
unseen digits right, since some digits share one; the numbers are slant and width (tools/evaluate.py infogan). In
`result.png` and the grids of `samples/`, figure 2 of the paper, the category changes from left to right in the first
five rows, c_2 from -2 to 2 in the next five, then c_3; all else is equal in a row.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# Chen 2016, table 1 and appendix C; beta1, batch and length (5,000 updates) from the authors' code. The paper says only
# that continuous codes have a smaller lambda; 0.1 is this script's.
PAPER = {
    "n_epochs": 11,
    "batch_size": 128,
    "lr": 0.0002,
    "lr_ratio": 5.0,
    "b1": 0.5,
    "img_size": 28,
    "width": 64,
    "latent_dim": 62,
    "n_categories": 10,
    "n_continuous": 2,
    "lambda_category": 1.0,
}
NOISE = "uniform"  # in [-1, 1], as tools/explore.py must know
N_TEST = 500  # bundled digits that tools/evaluate.py judges by
N_ROWS = 5  # of each panel in a picture


def parse_args(argv=None):
    architecture = ("latent_dim", "n_categories", "n_continuous", "width", "img_size", "channels")
    parser = common.Parser(
        "infogan", __doc__, PAPER, architecture, of_the_call=("code", "continuous")
    )
    parser.set_defaults(
        n_epochs=60, batch_size=64, lr=0.0002, b1=0.5, b2=0.999, img_size=28, channels=1
    )
    parser.set_defaults(sample_interval=500, checkpoint_interval=5, log_interval=50)
    add, number = parser.add_argument, common.number
    count, weight = number(int, at_least=1, at_most=4096), number(float, at_least=0)
    add(
        "--lr_ratio",
        type=number(float, above=0),
        default=5.0,
        help="learning rate of G over --lr, that of D and Q",
    )
    add("--latent_dim", type=count, default=62, help="length of the noise vector")
    add(
        "--n_categories",
        type=number(int, at_least=2, at_most=256),
        default=10,
        help="values of the categorical code",
    )
    add(
        "--n_continuous",
        type=number(int, at_least=1, at_most=16),
        default=2,
        help="continuous codes",
    )
    add("--lambda_category", type=weight, default=1.0, help="weight of the category's information")
    add("--lambda_continuous", type=weight, default=0.1, help="weight of the numbers' information")
    add(
        "--width",
        type=number(int, at_least=1, at_most=1024),
        default=32,
        help="channels next to the image",
    )
    add("--code", type=number(int, at_least=0), help="with --sample_only: draw this category alone")
    add(
        "--continuous",
        type=number(float),
        nargs="+",
        help="with --sample_only: draw with these, such as -1.5 0.5",
    )
    args = parser.parse(argv)
    parser.multiple_of(args, "img_size", 4, at_least=8)
    if (args.code is not None or args.continuous) and not args.sample_only:
        parser.error(
            "--code and --continuous need --sample_only and --resume with the checkpoint to sample from"
        )
    if args.code is not None and args.code >= args.n_categories:
        parser.error(f"--code {args.code}: the categories are 0 to {args.n_categories - 1}")
    if args.continuous and len(args.continuous) != args.n_continuous:
        parser.error(
            f"--continuous must be {args.n_continuous} numbers, got {len(args.continuous)}"
        )
    return args


# ---- networks ----


class Generator(nn.Module):
    """(B, latent_dim) noise, (B,) categories and (B, n_continuous) to (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, n_categories, n_continuous, img_size, channels, width):
        super().__init__()
        self.n_categories = n_categories
        self.shape = (2 * width, img_size // 4, img_size // 4)
        sizes, layers = (
            (latent_dim + n_categories + n_continuous, 16 * width, math.prod(self.shape)),
            [],
        )
        for n_in, n_out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm(n_out), nn.ReLU()]
        self.dense = nn.Sequential(*layers)
        layers = [nn.ConvTranspose(2 * width, width, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm(width), nn.ReLU()]
        self.upwards = nn.Sequential(
            *layers, nn.ConvTranspose(width, channels, 4, stride=2, padding=1)
        )
        self.tanh = nn.Tanh()

    def execute(self, z, categories, continuous):
        h = self.dense(
            jt.concat([z, nn.one_hot(categories, self.n_categories).float32(), continuous], dim=1)
        )
        h = self.upwards(
            h.reshape(-1, *self.shape)
        )  # (B, 2 * width, img_size / 4, img_size / 4) to the images' shape
        return self.tanh(h / 2)  # 2 s(h) - 1 = tanh(h / 2)


class Discriminator(nn.Module):
    """D and Q, which share their body: (B, channels, img_size, img_size) images to D's (B,) logits, high for real, and
    Q's posterior: (B, n_categories) logits, (B, n_continuous) means and (B, n_continuous) logarithms of deviations.
    """

    def __init__(self, n_categories, n_continuous, img_size, channels, width):
        super().__init__()
        self.n_categories, self.n_continuous = n_categories, n_continuous
        layers = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        layers += [nn.Conv(width, 2 * width, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm(2 * width), nn.LeakyReLU(0.1), nn.Flatten()]
        layers += [nn.Linear(2 * width * (img_size // 4) ** 2, 16 * width, bias=False)]
        self.body = nn.Sequential(*layers, nn.BatchNorm(16 * width), nn.LeakyReLU(0.1))
        self.D = nn.Linear(16 * width, 1)
        layers = [
            nn.Linear(16 * width, 2 * width, bias=False),
            nn.BatchNorm(2 * width),
            nn.LeakyReLU(0.1),
        ]
        self.Q = nn.Sequential(*layers, nn.Linear(2 * width, n_categories + 2 * n_continuous))

    def execute(self, images):
        h = self.body((images + 1) / 2)  # pixels in [0, 1], so that padding with 0 is black
        codes, k, n = self.Q(h), self.n_categories, self.n_continuous
        return self.D(h).reshape(-1), codes[:, :k], codes[:, k : k + n], codes[:, k + n :]


def initialize(module):
    """Weights from N(0, 0.02^2), of batch norms from N(1, 0.02^2), biases 0 (the authors' custom_ops.py)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.0)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The generator, and D and Q in one network."""
    codes = args.n_categories, args.n_continuous
    generator = Generator(args.latent_dim, *codes, args.img_size, args.channels, args.width)
    discriminator = Discriminator(*codes, args.img_size, args.channels, args.width)
    for module in (generator, discriminator):
        initialize(module)
        module.train()
    return generator, discriminator


# ---- losses and the step ----


def discriminator_loss(real_logits, fake_logits):
    """Logits (B,) of real and of generated images; -log s(x) = softplus(-x)."""
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"logits of different shapes: {real_logits.shape} and {fake_logits.shape}")
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def information(posterior, categories, continuous):
    """L_I in nats of the (B,) categories, at most log K, and of the (B, n) continuous codes, summed over them.

    `posterior` is Q's: (B, K) logits of the category, (B, n) means and (B, n) logarithms of deviations.
    """
    logits, mean, log_deviation = posterior
    if not mean.shape == log_deviation.shape == continuous.shape:
        raise ValueError(
            f"codes of different shapes: {mean.shape}, {log_deviation.shape} and {continuous.shape}"
        )
    of_category = math.log(logits.shape[1]) - nn.cross_entropy_loss(logits, categories)
    errors = (continuous - mean) / jt.exp(log_deviation)
    log_Q = -0.5 * math.log(2 * math.pi) - log_deviation - 0.5 * errors**2
    return of_category, (math.log(2) + log_Q).sum(dim=1).mean()


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, latent_D, latent_G, lambdas
):
    """One update of D and Q, then one of G.

    Args:
        real: (B, C, H, W) in [-1, 1].
        latent_D, latent_G: what G takes in each update: (B, latent_dim) noise, (B,) categories, (B, n_continuous).
        lambdas: weights of the information of the category and of the continuous codes.

    Returns:
        {"loss_D", "loss_G", "info_category", "info_continuous"} as Jittor scalars, the last two of G's update.
    """
    with jt.no_grad():
        fake = generator(*latent_D)
    fake_logits, *posterior = discriminator(fake)
    loss_D = discriminator_loss(discriminator(real)[0], fake_logits)
    category, continuous = information(posterior, *latent_D[1:])
    optimizer_D.step(loss_D - lambdas[0] * category - lambdas[1] * continuous)

    fake_logits, *posterior = discriminator(generator(*latent_G))
    loss_G = nn.softplus(-fake_logits).mean()  # -log s(x) = softplus(-x)
    category, continuous = information(posterior, *latent_G[1:])
    optimizer_G.step(loss_G - lambdas[0] * category - lambdas[1] * continuous)
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "info_category": category,
        "info_continuous": continuous,
    }


# ---- training and samples ----


def latent(rng, n, args):
    """What G takes, numpy: (n, latent_dim) noise, (n,) categories, (n, n_continuous) codes; those asked for, if any."""
    z, continuous = (
        rng.uniform(-1, 1, (n, d)).astype(np.float32) for d in (args.latent_dim, args.n_continuous)
    )
    categories = rng.integers(args.n_categories, size=n, dtype=np.int32)
    if args.code is not None:
        categories[:] = args.code
    if args.continuous:
        continuous[:] = args.continuous
    return z, categories, continuous


def panels(rng, args):
    """What G takes for a picture whose panels have N_ROWS rows of n_categories images each."""
    k, n = args.n_categories, N_ROWS * args.n_categories
    z, categories, continuous = (
        x.repeat(k, axis=0) for x in latent(rng, N_ROWS * (1 + args.n_continuous), args)
    )
    categories[:n] = np.tile(np.arange(k), N_ROWS)
    for i in range(args.n_continuous):
        continuous[n * (i + 1) : n * (i + 2), i] = np.tile(np.linspace(-2, 2, k), N_ROWS)
    return z, categories, continuous


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, args.download, n_test=N_TEST)
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator = build(args)
    optimizer_G = nn.Adam(
        generator.parameters(), lr=args.lr * args.lr_ratio, betas=(args.b1, args.b2)
    )
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    networks = {"generator": generator, "discriminator": discriminator}
    optimizers = {"optimizer_G": optimizer_G, "optimizer_D": optimizer_D}
    run.track(exports={"generator": generator}, **networks, **optimizers, batches=batches)
    picture, lambdas = panels(run.sample_rng, args), (args.lambda_category, args.lambda_continuous)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    for _ in run.epochs():
        for real, *_ in run.steps(batches):
            latents = [
                tuple(map(run.shard, latent(run.rng, args.batch_size, args))) for _ in range(2)
            ]
            run.log(train_step(*networks.values(), *optimizers.values(), real, *latents, lambdas))
            if run.every(args.sample_interval):
                images = common.in_chunks(generator, *picture)
                common.save_image(images, run.sample_path, nrow=args.n_categories)
                watch.see_samples(images)
    write_results(run, generator, picture, args)


def load_generator(run, args):
    """A function of (N, latent_dim) noise and (N,) categories, numpy, that gives images; continuous codes are 0."""
    generator, _ = build(args)
    run.track(generator=generator)
    return lambda z, categories: common.in_chunks(
        generator, z, categories, np.zeros((len(z), args.n_continuous), "f4")
    )


def generate(run, args):
    generator, _ = build(args)
    run.track(generator=generator)
    is_asked = args.code is not None or args.continuous
    picture = latent(run.sample_rng, 100, args) if is_asked else panels(run.sample_rng, args)
    write_results(run, generator, picture, args)


def write_results(run, generator, picture, args):
    """result.png, and the samples of --n_samples with their codes."""
    if not run.is_main:
        return
    common.save_image(
        common.in_chunks(generator, *picture), run.out_dir / "result.png", nrow=args.n_categories
    )
    if args.n_samples:
        z, codes, continuous = latent(run.sample_rng, args.n_samples, args)
        run.save_samples(
            common.in_chunks(generator, z, codes, continuous), codes=codes, continuous=continuous
        )


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            generator, discriminator = build(args)
            codes = jt.zeros((1,), "int32"), jt.zeros((1, args.n_continuous))
            common.describe("generator", generator, jt.zeros((1, args.latent_dim)), *codes)
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
