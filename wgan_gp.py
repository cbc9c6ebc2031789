"""WGAN-GP: a Wasserstein GAN whose critic has a gradient penalty.

Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville 2017,
https://arxiv.org/abs/1704.00028

    python wgan_gp.py                             # digits, 8 minutes on two CPU cores
    python wgan_gp.py --paper --data_dir PHOTOS   # the paper's setting, own images
    python wgan_gp.py --data_dir stacked          # three digits as an image's channels
    python tools/explore.py results/wgan_gp --walk interpolate

Method
    A generator G turns noise z ~ N(0, 1) into an image. A critic f gives an image x a
    score f(x) without bounds, which is high for real images. A critic that changes by
    at most 1 per unit of distance (1-Lipschitz) gives a lower bound on the Wasserstein
    distance W between the data and the images of G, which the best such critic attains
    (Kantorovich and Rubinstein):

        W = max over f of  E[f(x)] - E[f(G(z))]

    The best f has slope 1 almost everywhere between the data and the images of G.
    Slopes other than 1 are therefore penalized, at points
    x_hat = alpha x + (1 - alpha) G(z) with one alpha ~ U(0, 1) for each image. The
    critic minimizes L_f and G minimizes L_G, each on fresh noise (algorithm 1):

        wasserstein = E[f(x)] - E[f(G(z))]
        penalty = E[(|grad f(x_hat)| - 1)^2]
        L_f = -wasserstein + 10 penalty
        L_G = -E[f(G(z))]

    A training step is one update of the critic; every fifth one (--n_critic) updates G
    too. The networks are DCGAN's as in the authors' code
    (github.com/igul222/improved_wgan_training), with batch norm in G. The critic has no
    norm: batch norm would make the penalty of one image depend on the others (section
    4). --layer_norm gives it layer norm, which the paper recommends instead.

What to expect
    Digits appear after a few hundred updates of G. At the end the FID in a digit
    classifier's features is 3.13, and 3.40 for the same training in PyTorch
    (docs/scripts/wgan_gp.md). `wasserstein` rises while the critic learns, then falls
    as the images improve; losses.png shows it. `penalty`, which is logged without its
    weight, stays far below 1 in a good run.

Differences from the paper (--paper undoes all of them)
    * 32 x 32 digits, at half of the authors' width and with 4 x 4 filters, not 5 x 5
    * five times the paper's learning rate, since a default run has few updates of G
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Gulrajani 2017, algorithm 1 and section 4: learning rate, betas, n_critic and batch.
# The sizes are those of the authors' gan_64x64.py. Its 200,000 updates of G take 50
# epochs of their 64 x 64 ImageNet (1,281,149 images). The critic is that file's
# DCGANDiscriminator without a norm (bn=False), as in section 4: "we omit batch
# normalization in the critic". With bn=True it has layer norm (--layer_norm).
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
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=100, batch_size=64, lr=0.0005)
    parser.set_defaults(sample_interval=1000, checkpoint_interval=10)
    parser.add_adam(b1=0.0, b2=0.9)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=128, help="length of z")
    parser.add_architecture(
        "--width", type=int, default=32, at_most=1024, help="channels next to the image"
    )
    parser.add_architecture(
        "--kernel_size", type=int, default=4, choices=(4, 5), help="side of the filters"
    )
    parser.add_architecture("--layer_norm", action="store_true", help="layer norm in the critic")
    parser.add_architecture(
        "--ema_decay", type=float, default=0.0, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--n_critic", type=int, default=5, help="updates of the critic for each update of G"
    )
    return parser.parse(argv)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width, kernel_size):
        super().__init__()
        n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
        c = width * 2**n_blocks

        self.project = nn.Linear(latent_dim, c * 4 * 4)
        layers = [  # (B, c, 4, 4)
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        for _ in range(n_blocks):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                doubling(c, c // 2, kernel_size, bias=False),
                nn.BatchNorm(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, img_size / 2, ...) -> (B, channels, img_size, img_size)
            doubling(c, channels, kernel_size, bias=True),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        features = self.project(z).reshape(len(z), -1, 4, 4)
        return self.layers(features)


class Critic(nn.Module):
    """images (B, channels, img_size, img_size)  ->  scores (B,), high for real ones."""

    def __init__(self, img_size, channels, width, kernel_size, layer_norm):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size / 2, ...)
            halving(channels, c, kernel_size),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [halving(c, 2 * c, kernel_size)]
            if layer_norm:
                layers += [LayerNorm(2 * c)]
            layers += [nn.LeakyReLU(0.2)]
            c *= 2
        layers += [
            nn.Flatten(),  # (B, c, 4, 4) -> (B, 16 c)
            nn.Linear(16 * c, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images).reshape(-1)


class LayerNorm(nn.Module):
    """x (B, channels, H, W)  ->  the same shape.

    Each image gets the mean 0 and the variance 1, then each channel a learned scale and
    shift (Ba 2016, https://arxiv.org/abs/1607.06450; the authors' code).
    """

    def __init__(self, channels):
        super().__init__()
        self.weight = jt.ones((1, channels, 1, 1))
        self.bias = jt.zeros((1, channels, 1, 1))

    def execute(self, x):
        centred = x - x.mean((1, 2, 3), keepdims=True)
        variance = (centred**2).mean((1, 2, 3), keepdims=True)
        return centred / jt.sqrt(variance + 1e-5) * self.weight + self.bias


def halving(c_in, c_out, kernel_size):
    """A convolution that halves height and width."""
    padding = (kernel_size - 1) // 2
    return nn.Conv(c_in, c_out, kernel_size, stride=2, padding=padding)


def doubling(c_in, c_out, kernel_size, bias):
    """A transposed convolution that doubles height and width."""
    return nn.ConvTranspose(
        c_in,
        c_out,
        kernel_size,
        stride=2,
        padding=(kernel_size - 1) // 2,
        output_padding=kernel_size % 2,  # 2 H would be 2 H - 1 with a side of 5
        bias=bias,
    )


def initialize(network):
    """Uniform weights of standard deviation 0.02, biases of 0 (authors' code)."""
    bound = 0.02 * math.sqrt(3)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)


def build(args):
    generator = Generator(
        args.latent_dim, args.img_size, args.channels, args.width, args.kernel_size
    )
    critic = Critic(args.img_size, args.channels, args.width, args.kernel_size, args.layer_norm)
    for network in (generator, critic):
        initialize(network)
        network.train()
    return generator, critic


# ---- losses and one training step ----


def wasserstein_estimate(real_scores, fake_scores):
    """E[f(x)] - E[f(G(z))] of scores (B,)."""
    common.check_same_shape(real_scores, fake_scores)
    return real_scores.mean() - fake_scores.mean()


def gradient_penalty(critic, real, fake, alpha):
    """E[(|grad f(x_hat)| - 1)^2] at x_hat = alpha real + (1 - alpha) fake.

    The norm is that of the gradient for all pixels of an image.

    Args:
        real, fake: (B, ...) of the same shape; fake carries no gradient.
        alpha: (B, 1, ...) in [0, 1], one value for each image.
    """
    common.check_same_shape(real, fake)
    x_hat = alpha * real + (1 - alpha) * fake
    x_hat.start_grad()  # the gradient is computed for x_hat, and no further back

    # A score depends on one image only, so the gradient of their sum holds the gradient
    # of each score.
    gradient = jt.grad(critic(x_hat).sum(), x_hat)
    squared_norm = (gradient.reshape(len(gradient), -1) ** 2).sum(1)
    norm = jt.sqrt(squared_norm + 1e-12)  # the root has no derivative at 0
    return ((norm - 1) ** 2).mean()


def generator_loss(fake_scores):
    """L_G of scores (B,)."""
    return -fake_scores.mean()


def train_step(
    generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, alpha, *, update_G=True
):
    """Updates the critic and, with `update_G`, then the generator.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) of the two updates; z_G is read with `update_G`
            only.
        alpha: (B, 1, 1, 1) in [0, 1], which places the points x_hat.

    Returns:
        {"wasserstein", "penalty"}, computed before the update, and "loss_G" with
        `update_G`, as Jittor scalars.
    """
    # critic: real images against generated ones. It has no norm, so one pass of both
    # batches gives the same scores as two passes.
    with jt.no_grad():
        fake = generator(z_D)
    scores = critic(jt.concat([real, fake], dim=0))
    wasserstein = wasserstein_estimate(scores[: len(real)], scores[len(real) :])
    penalty = gradient_penalty(critic, real, fake, alpha)
    loss_D = -wasserstein + PENALTY * penalty
    optimizer_D.step(loss_D)  # Jittor: computes the critic's gradients, and updates
    losses = {"wasserstein": wasserstein, "penalty": penalty}

    # G: new images, which should get higher scores
    if update_G:
        fake = generator(z_G)
        loss_G = generator_loss(critic(fake))
        optimizer_G.step(loss_G)
        losses["loss_G"] = loss_G
    return losses


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, critic = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(critic.parameters(), lr=args.lr, betas=(args.b1, args.b2))

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        critic=critic,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            update_G = run.step % args.n_critic == 0
            z_D = run.normal(args.batch_size, args.latent_dim)
            z_G = run.normal(args.batch_size, args.latent_dim) if update_G else None
            alpha = run.uniform(args.batch_size, 1, 1, 1)
            losses = train_step(
                generator,
                critic,
                optimizer_G,
                optimizer_D,
                real,
                z_D,
                z_G,
                alpha,
                update_G=update_G,
            )
            if update_G:
                averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


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
