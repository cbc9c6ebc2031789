"""InfoGAN: a GAN whose latent codes get a meaning without labels.

Chen et al. 2016, https://arxiv.org/abs/1606.03657

    python infogan.py                      # digits, 4 minutes on two CPU cores
    python infogan.py --paper --download   # the authors' setting, on full MNIST
    python infogan.py --resume results/infogan --sample_only --code 3
    python infogan.py --resume results/infogan --sample_only --continuous -1.5 0.5
    python tools/evaluate.py infogan results/infogan

Method
    Beside noise z, a generator G takes codes c: a category c_1, and continuous codes
    c_2 and c_3, uniform in [-1, 1]. No label says what they mean, but images x = G(z,
    c) should reveal them: the mutual information I(c; x) is to be high. A network Q
    gives the distribution of an image's codes, and with it a lower bound (equation 5),
    which is logged in nats:

        L_I = E[log Q(c|x)] + H(c)  <=  I(c; x)

    Q shares the layers of the discriminator D up to its last one. With logits D(x), the
    sigmoid s, and fresh noise and codes for each, D and Q minimize loss_D - lambda L_I,
    then G minimizes loss_G - lambda L_I:

        loss_D = -E[log s(D(x))] - E[log(1 - s(D(G(z, c))))]
        loss_G = -E[log s(D(G(z, c)))]

    `info_category`, with lambda 1, is at most H(c_1) = log 10 = 2.30. For a continuous
    code Q gives a Gaussian with its mean and standard deviation (appendix C); its
    lambda is smaller (section 6). `info_continuous`, summed over the codes, has no
    upper bound: it grows by log 2 = 0.69 whenever Q's error is halved. The networks are
    those of table 1; what the paper leaves open follows the authors' code
    (github.com/openai/InfoGAN), which fixes the standard deviations at 1.

What to expect
    Categories become digits within 20 epochs. In two trainings they classified 68 and
    84 % of unseen digits correctly, and 79 % in the same training in PyTorch, since
    some digits share a category; the continuous codes are slant and width
    (docs/scripts/infogan.md). In result.png and samples/ (figure 2 of the paper) the
    category changes from left to right in the first five rows, c_2 from -2 to 2 in the
    next five, then c_3; all else is equal in a row.

Differences from the paper (--paper undoes all of them)
    * half of the width and of the batch, and 60 epochs of the bundled digits

With --paper too, Q's standard deviations are learned, as in the paper, and their codes
have a lambda of 0.1 (--lambda_continuous); the authors' code has 1 for both.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Chen 2016, table 1 and appendix C; beta1, batch and length (5,000 updates) are those
# of the authors' code. The paper says only that continuous codes have a smaller lambda;
# 0.1 is ours.
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
N_TEST = 500  # bundled digits that tools/evaluate.py keeps for its test
N_ROWS = 5  # of each panel in a picture


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=60, batch_size=64, lr=0.0002)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture("--img_size", type=int, default=28, help="side of the images")
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=62, help="length of z")
    parser.add_architecture(
        "--n_categories", type=int, default=10, at_least=2, at_most=256, help="values of c_1"
    )
    parser.add_architecture(
        "--n_continuous", type=int, default=2, at_most=16, help="number of continuous codes"
    )
    parser.add_architecture(
        "--width", type=int, default=32, at_most=1024, help="channels next to the image"
    )

    # Training
    parser.add_argument(
        "--lr_ratio",
        type=float,
        default=5.0,
        above=0,
        help="learning rate of G, as a multiple of --lr, which is that of D and Q",
    )
    parser.add_argument(
        "--lambda_category", type=float, default=1.0, help="weight of the category's information"
    )
    parser.add_argument(
        "--lambda_continuous",
        type=float,
        default=0.1,
        help="weight of the continuous codes' information",
    )

    # Samples
    parser.add_argument(
        "--code",
        type=int,
        at_least=0,
        stored=False,
        help="with --sample_only: draw only this category",
    )
    parser.add_argument(
        "--continuous",
        type=float,
        at_least=None,
        nargs="+",
        stored=False,
        help="with --sample_only: draw with these codes, such as -1.5 0.5",
    )
    args = parser.parse(argv)
    parser.multiple_of(args, "img_size", 4, at_least=8)
    check_codes(parser, args)
    return args


def check_codes(parser, args):
    if (args.code is not None or args.continuous) and not args.sample_only:
        parser.error("--code and --continuous need --sample_only and --resume with a checkpoint")
    if args.code is not None and args.code >= args.n_categories:
        parser.error(f"--code {args.code}: the categories are 0 to {args.n_categories - 1}")
    if args.continuous and len(args.continuous) != args.n_continuous:
        parser.error(
            f"--continuous must be {args.n_continuous} numbers, got {len(args.continuous)}"
        )


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim), categories (B,), continuous (B, n_continuous)  ->  images.

    The images (B, channels, img_size, img_size) are in [-1, 1].
    """

    def __init__(self, latent_dim, n_categories, n_continuous, img_size, channels, width):
        super().__init__()
        self.n_categories = n_categories
        self.shape = (2 * width, img_size // 4, img_size // 4)
        n_features = math.prod(self.shape)
        self.dense = nn.Sequential(  # noise and codes -> (B, n_features)
            nn.Linear(latent_dim + n_categories + n_continuous, 16 * width, bias=False),
            nn.BatchNorm(16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, n_features, bias=False),
            nn.BatchNorm(n_features),
            nn.ReLU(),
        )
        self.upwards = nn.Sequential(  # (B, 2 width, S / 4, S / 4) -> (B, channels, S, S)
            nn.ConvTranspose(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(width),
            nn.ReLU(),
            nn.ConvTranspose(width, channels, 4, stride=2, padding=1),
        )
        self.tanh = nn.Tanh()

    def execute(self, z, categories, continuous):
        one_hot = nn.one_hot(categories, self.n_categories).float32()
        h = self.dense(jt.concat([z, one_hot, continuous], dim=1))
        logits = self.upwards(h.reshape(-1, *self.shape))
        return self.tanh(logits / 2)  # a sigmoid in [-1, 1]: 2 s(h) - 1 = tanh(h / 2)


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  D's logits (B,) and Q's posterior.

    D and Q share their body. The logits are high for real images. The posterior is
    three tensors: logits (B, n_categories), means (B, n_continuous), and the logarithms
    of standard deviations (B, n_continuous).
    """

    def __init__(self, n_categories, n_continuous, img_size, channels, width):
        super().__init__()
        self.n_categories = n_categories
        self.n_continuous = n_continuous
        self.body = nn.Sequential(  # (B, channels, S, S) -> (B, 16 width)
            nn.Conv(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(2 * width),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(2 * width * (img_size // 4) ** 2, 16 * width, bias=False),
            nn.BatchNorm(16 * width),
            nn.LeakyReLU(0.1),
        )
        self.D = nn.Linear(16 * width, 1)
        self.Q = nn.Sequential(
            nn.Linear(16 * width, 2 * width, bias=False),
            nn.BatchNorm(2 * width),
            nn.LeakyReLU(0.1),
            nn.Linear(2 * width, n_categories + 2 * n_continuous),
        )

    def execute(self, images):
        pixels = (images + 1) / 2  # in [0, 1], so that padding with 0 is black
        h = self.body(pixels)
        codes = self.Q(h)
        k = self.n_categories
        n = self.n_continuous
        return self.D(h).reshape(-1), codes[:, :k], codes[:, k : k + n], codes[:, k + n :]


def initialize(network):
    """N(0, 0.02^2), batch norm from N(1, 0.02^2), biases 0 (authors' custom_ops.py)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.0)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    generator = Generator(
        args.latent_dim,
        args.n_categories,
        args.n_continuous,
        args.img_size,
        args.channels,
        args.width,
    )
    discriminator = Discriminator(
        args.n_categories, args.n_continuous, args.img_size, args.channels, args.width
    )
    for network in (generator, discriminator):
        initialize(network)
        network.train()
    return generator, discriminator


# ---- losses and one training step ----


def discriminator_loss(real_logits, fake_logits):
    """loss_D of logits (B,).

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """loss_G of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def information(posterior, categories, continuous):
    """L_I in nats: of the category, at most log K, and summed over continuous codes.

    Args:
        posterior: Q's logits (B, K) of the category, means (B, n) and logarithms of
            standard deviations (B, n).
        categories, continuous: the codes (B,) and (B, n) that G was given.
    """
    logits, mean, log_deviation = posterior
    common.check_same_shape(mean, log_deviation, continuous)
    entropy = math.log(logits.shape[1])
    info_category = entropy - nn.cross_entropy_loss(logits, categories)

    errors = (continuous - mean) / jt.exp(log_deviation)
    log_Q = -0.5 * math.log(2 * math.pi) - log_deviation - 0.5 * errors**2
    info_continuous = (math.log(2) + log_Q).sum(dim=1).mean()  # log 2: entropy of U(-1, 1)
    return info_category, info_continuous


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, latent_D, latent_G, *, lambdas
):
    """Updates D and Q, then G.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        latent_D, latent_G: G's inputs in the two updates: noise (B, latent_dim),
            categories (B,) and continuous codes (B, n_continuous).
        lambdas: weights of the category's and of the continuous codes' information.

    Returns:
        {"loss_D", "loss_G", "info_category", "info_continuous"} as Jittor scalars, the
        last two of G's update.
    """
    lambda_category, lambda_continuous = lambdas

    # D and Q: real images against generated ones, and the codes of the generated ones
    _, categories, continuous = latent_D
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(*latent_D)
    fake_logits, *posterior = discriminator(fake)
    real_logits, *_ = discriminator(real)
    loss_D = discriminator_loss(real_logits, fake_logits)
    info_category, info_continuous = information(posterior, categories, continuous)
    objective = loss_D - lambda_category * info_category - lambda_continuous * info_continuous
    optimizer_D.step(objective)  # Jittor: gradients of D's and Q's parameters, and the update

    # G: new images, which D should take for real and whose codes Q should recognize
    _, categories, continuous = latent_G
    fake_logits, *posterior = discriminator(generator(*latent_G))
    loss_G = generator_loss(fake_logits)
    info_category, info_continuous = information(posterior, categories, continuous)
    objective = loss_G - lambda_category * info_category - lambda_continuous * info_continuous
    optimizer_G.step(objective)
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "info_category": info_category,
        "info_continuous": info_continuous,
    }


# ---- G's inputs ----


def random_latent(run, args):
    """G's inputs for a training batch, as Jittor variables."""
    z = run.noise("uniform", args.batch_size, args.latent_dim)
    continuous = run.noise("uniform", args.batch_size, args.n_continuous)
    categories = run.integers(0, args.n_categories, args.batch_size)
    return z, categories, continuous


def fixed_latent(rng, n, args):
    """G's inputs for n samples as numpy, with --code and --continuous if given."""
    z = rng.uniform(-1, 1, (n, args.latent_dim)).astype(np.float32)
    continuous = rng.uniform(-1, 1, (n, args.n_continuous)).astype(np.float32)
    categories = rng.integers(args.n_categories, size=n, dtype=np.int32)
    if args.code is not None:
        categories[:] = args.code
    if args.continuous:
        continuous[:] = args.continuous
    return z, categories, continuous


def panels(rng, args):
    """G's inputs for a picture whose rows change one code from left to right.

    The first N_ROWS rows change the category, the next N_ROWS c_2, and so on.
    """
    k = args.n_categories
    n_panels = 1 + args.n_continuous
    row_starts = fixed_latent(rng, N_ROWS * n_panels, args)
    # Each of them k times: equal inputs for the k images of a row.
    z, categories, continuous = (x.repeat(k, axis=0) for x in row_starts)

    size = N_ROWS * k  # images of a panel
    categories[:size] = np.tile(np.arange(k), N_ROWS)
    for i in range(args.n_continuous):
        panel = slice(size * (i + 1), size * (i + 2))
        continuous[panel, i] = np.tile(np.linspace(-2, 2, k), N_ROWS)
    return z, categories, continuous


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, n_test=N_TEST)
    generator, discriminator = build(args)
    lr_G = args.lr * args.lr_ratio
    optimizer_G = nn.Adam(generator.parameters(), lr=lr_G, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed = panels(run.fixed_rng(), args)
    lambdas = (args.lambda_category, args.lambda_continuous)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            latent_D = random_latent(run, args)
            latent_G = random_latent(run, args)
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                real,
                latent_D,
                latent_G,
                lambdas=lambdas,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(generator, *fixed), nrow=args.n_categories)
    write_samples(run, generator, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    if args.code is not None or args.continuous:
        fixed = fixed_latent(run.fixed_rng(), 100, args)
    else:
        fixed = panels(run.fixed_rng(), args)
    images = common.predict(generator, *fixed)
    run.save_grid(images, to="result.png", nrow=args.n_categories)
    if args.n_samples:
        latent = fixed_latent(run.fixed_rng(), args.n_samples, args)
        _, codes, continuous = latent
        run.save_samples(common.predict(generator, *latent), codes=codes, continuous=continuous)


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    write_samples(run, generator, args)


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
