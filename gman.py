"""GMAN: one generator against several discriminators.

Durugkar, Gemp and Mahadevan 2017, https://arxiv.org/abs/1611.01673

    python gman.py                              # digits, 6 minutes on two CPU cores
    python gman.py --n_discriminators 1 --batch_size 20    # a GAN
    python gman.py --learn_lam                  # GMAN*: G also trains lambda
    python gman.py --paper --data_dir MNIST     # the authors' setting, on full MNIST
    python gman.py --resume results/gman --sample_only --n_samples 100

Method
    A generator G turns noise z into an image. Each of N discriminators gives an image x
    a logit l_i(x), which is high where it takes x for real. With the sigmoid s, it
    stands for the probability

        D_i(x) = 0.01 + 0.98 s(l_i(x))

    so that no logarithm is far below 0 (section 4.2). D_i maximizes its own value V_i,
    on its own share of the step's real and generated images. G minimizes the arithmetic
    softmax F of all values, with lambda >= 0 (section 3, equation 3):

        V_i = E[log D_i(x)] + E[log(1 - D_i(G(z)))]
        F   = w_1 V_1 + ... + w_N V_N,     w_i = exp(lambda V_i) / sum_j exp(lambda V_j)

    With lambda = 0, F is the mean. The larger lambda is, the more weight the best
    discriminator has. Most GANs replace log(1 - D) by -log D for G, whose gradient
    otherwise vanishes when D wins. With several discriminators it vanishes only if all
    of them win, so that G can keep the original (section 3.3.2). --objective modified
    replaces it.

    The discriminators differ in their images and in their dropout, which is strongest
    in D_1. With --learn_lam, which is GMAN* (section 3.4), G also trains lambda, and
    minimizes F - c lambda: it is rewarded for the harder training of a large lambda.

What to expect
    loss_D is the mean of -V_i. 1.39 = 2 log 2 means that the discriminators guess; it
    cannot fall below 0.02. loss_G is F, and is thus negative. With --objective modified
    it is near 0 when the discriminators guess.

Differences from the authors' code (--paper undoes the first)
    * three discriminators, smaller networks and batches, three times the learning rate,
      fewer updates, and samples from averaged weights (--ema_decay)
    * always: F has the whole V_i, as in the paper. Their code leaves out its first
      term, which does not depend on G but changes the weights w_i.
    * always: --learn_lam trains lambda, which is constant in their code
    * always: samples are drawn with the running statistics of batch norm, not with
      those of their batch
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images, whole_batch

import math

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' code (github.com/iDurugkar/GMAN, GMAN.py), for MNIST. Its 25 epochs of
# 600 updates, each on 500 images, are 125 passes over 60,000 images.
PAPER = {
    "n_epochs": 125,
    "batch_size": 500,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 32,
    "channels": 1,
    "n_discriminators": 5,
    "width_G": 512,
    "width_D": 64,
    "latent_dim": 100,
    "ema_decay": 0.0,
    "learn_lam": False,
    "dropout": 0.6,
    "lam": 1.0,
    "objective": "original",
}
MARGIN = 0.01  # how far the probabilities stay from 0 and 1


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=60, batch_size=60, lr=0.0006)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--n_discriminators",
        type=int,
        default=3,
        at_most=64,
        help="number of discriminators, which share the --batch_size images of a step",
    )
    parser.add_architecture(
        "--width_G", type=int, default=128, at_most=2048, help="channels of G's 4 x 4 maps"
    )
    parser.add_architecture(
        "--width_D", type=int, default=32, at_most=512, help="channels of D's first maps"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
    )
    parser.add_architecture(
        "--learn_lam", action="store_true", help="GMAN*: G trains lambda, which begins at --lam"
    )

    # Training
    parser.add_argument(
        "--dropout",
        type=float,
        default=0.6,
        below=1,
        help="dropout of the discriminators; that of the last is lower by a sixth",
    )
    parser.add_argument(
        "--lam", type=float, default=1.0, help="lambda of the softmax (0 gives the mean)"
    )
    parser.add_argument(
        "--lam_reward", type=float, default=0.001, help="c of F - c lambda, with --learn_lam"
    )
    parser.add_argument(
        "--objective",
        choices=("original", "modified"),
        default="original",
        help="G minimizes log(1 - D), or -log D",
    )
    args = parser.parse(argv)
    parser.multiple_of(args, "batch_size", args.n_discriminators, at_least=args.n_discriminators)
    parser.multiple_of(args, "width_G", args.img_size // 8, at_least=args.img_size // 8)
    if args.learn_lam and args.lam == 0:
        parser.error("--learn_lam needs a --lam over 0, at which lambda begins")
    return args


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        c = width
        # The authors' first kernel covers 3 x 3 of the 4 x 4 places. The last row and
        # column get the bias alone.
        layers = [  # (B, latent_dim, 1, 1) -> (B, width, 4, 4)
            nn.ConvTranspose(latent_dim, c, 3, stride=4, output_padding=1),
            nn.BatchNorm(c, eps=1e-3),
            nn.ReLU(),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 5, stride=2, padding=2, output_padding=1),
                nn.BatchNorm(c // 2, eps=1e-3),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, c, img_size / 2, ...) -> (B, channels, img_size, img_size)
            nn.ConvTranspose(c, channels, 5, stride=2, padding=2, output_padding=1),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(z.reshape(len(z), -1, 1, 1))


class Discriminator(nn.Module):
    """images (B, channels, S, S)  ->  logits (B,), high for real images."""

    def __init__(self, img_size, channels, width, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(channels, width, 3, stride=2, padding=1),  # -> (B, width, S / 2, S / 2)
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Conv(width, 2 * width, 3, stride=2, padding=1),  # -> (B, 2 width, S / 4, S / 4)
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Conv(2 * width, 4 * width, 3, padding=1),  # -> (B, 4 width, S / 4, S / 4)
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * (img_size // 4) ** 2, 1),
        )

    def execute(self, images):
        return self.layers(images).reshape(-1)


class Discriminators(nn.Module):
    """images (B N, channels, S, S)  ->  logits (B, N), B images for each of D_1 to D_N.

    Raises:
        UserError: the images cannot be shared equally.
    """

    def __init__(self, n, img_size, channels, width, dropout):
        super().__init__()
        self.members = nn.ModuleList()
        for i in range(1, n + 1):
            # With 0.6 these are the authors' 0.6 - 0.1 i / n.
            p = dropout * (1 - i / (6 * n))
            self.members.append(Discriminator(img_size, channels, width, p))

    def execute(self, images):
        n = len(self.members)
        if len(images) % n:
            raise common.UserError(
                f"{len(images)} images cannot be shared equally by {n} discriminators: "
                "choose another --batch_size"
            )
        # Every n-th image, not a block of them: where several processes share a step,
        # each discriminator then sees the same images as in one process.
        logits = [D(images[i::n]) for i, D in enumerate(self.members)]
        return jt.stack(logits, dim=1)


class ArithmeticSoftmax(nn.Module):
    """values V (N,)  ->  F, their mean with the weights softmax(lambda V) (equation 3).

    Args:
        lam: lambda, at least 0; above 0 if it is trained.
        is_trained: whether lambda is a parameter. It is softplus(raw), which is
            positive.
    """

    def __init__(self, lam, is_trained):
        super().__init__()
        self.fixed = lam
        self.raw = None
        if is_trained:
            self.raw = jt.array([lam + math.log(-math.expm1(-lam))])

    def lam(self):
        return self.fixed if self.raw is None else nn.softplus(self.raw)

    def execute(self, values):
        weights = nn.softmax(self.lam() * values, dim=0)
        return (weights * values).sum()


def initialize(network):
    """Weights from N(0, 0.02^2), cut off at two standard deviations; biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.constant_(layer.bias, 0)


def build(args):
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width_G)
    discriminators = Discriminators(
        args.n_discriminators, args.img_size, args.channels, args.width_D, args.dropout
    )
    for network in (generator, discriminators):
        initialize(network)
        network.train()  # Jittor's dropout is off until .train()
    return generator, discriminators


# ---- losses and one training step ----


def log_probability(logits):
    """log D of logits; that of -logits is log(1 - D)."""
    return jt.log(MARGIN + (1 - 2 * MARGIN) * jt.sigmoid(logits))


def values(real_logits, fake_logits, objective):
    """V_1 to V_N, (N,), of logits (B, N).

    Args:
        objective: "original", or "modified" with -log D instead of log(1 - D).
    """
    common.check_same_shape(real_logits, fake_logits)
    # whole_batch gives the logits themselves, unless several processes share the batch.
    # F is not linear in V: each process needs V of the whole batch.
    real = log_probability(whole_batch(real_logits))
    if objective == "original":
        fake = log_probability(-whole_batch(fake_logits))
    else:
        fake = -log_probability(whole_batch(fake_logits))
    return real.mean(0) + fake.mean(0)


def train_step(networks, optimizers, real, z, *, objective, lam_reward):
    """Updates all discriminators and G at once: each loss is that before any update.

    Args:
        networks: G, the discriminators, and the softmax.
        optimizers: of G (and of the softmax, if it is trained) and of the
            discriminators.
        real: images (B, C, H, W) in [-1, 1]; B is a multiple of N.
        z: noise (B, latent_dim).
        objective: that of G; see `values`.
        lam_reward: the c of F - c lambda, if lambda is trained.

    Returns:
        {"loss_D", "loss_G"}, and "lam" if it is trained, as Jittor scalars.
    """
    generator, discriminators, softmax = networks
    optimizer_G, optimizer_D = optimizers
    fake = generator(z)
    real_logits = discriminators(real)
    fake_logits = discriminators(fake)

    # D: each one maximizes its own value
    V = values(real_logits, fake_logits, "original")

    # G: the softmax of all values
    loss_G = softmax(values(real_logits, fake_logits, objective))
    losses = {"loss_D": -V.mean(), "loss_G": loss_G}
    total = loss_G
    if softmax.raw is not None:
        losses["lam"] = softmax.lam()
        total = loss_G - lam_reward * losses["lam"]

    # Jittor: backward computes the gradients of the optimizer's own parameters. That of
    # G passes through D, so that D must not be updated before.
    optimizer_D.backward(-V.sum(), retain_graph=True)
    optimizer_G.backward(total)
    optimizer_D.step()
    optimizer_G.step()
    return losses


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, discriminators = build(args)
    softmax = ArithmeticSoftmax(args.lam, args.learn_lam)
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    of_G = generator.parameters() + softmax.parameters()
    optimizer_G = nn.Adam(of_G, lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminators.parameters(), lr=args.lr, betas=(args.b1, args.b2))

    parts = {  # what checkpoint_last.npz holds
        "generator": generator,
        "discriminators": discriminators,
        "averaged": averaged,
        "optimizer_G": optimizer_G,
        "optimizer_D": optimizer_D,
    }
    if args.learn_lam:
        parts["softmax"] = softmax
    run.checkpoint(**parts)
    run.restore()  # from --resume or --init_from, if given

    networks = (generator, discriminators, softmax)
    optimizers = (optimizer_G, optimizer_D)
    fixed_z = run.fixed_noise("uniform", 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            z = run.noise("uniform", args.batch_size, args.latent_dim)
            losses = train_step(
                networks,
                optimizers,
                real,
                z,
                objective=args.objective,
                lam_reward=args.lam_reward,
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("uniform", 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise("uniform", args.n_samples, args.latent_dim)
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
