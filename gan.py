"""GAN: the original generative adversarial network.

Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661

    python gan.py                      # digits, 4 minutes on two CPU cores
    python gan.py --paper --download   # the authors' setting, on full MNIST
    python gan.py --resume results/gan --sample_only --n_samples 100
    python tools/explore.py results/gan --walk interpolate

Method
    A generator G turns noise z into an image. A discriminator D gives the
    probability s(D(x)) that an image x is real; s is the sigmoid. They play a game for
    one value, which D maximizes and G minimizes (equation 1):

        V(D, G) = E[log s(D(x))] + E[log(1 - s(D(G(z))))]

    Against the best D, V is -log 4 plus twice the Jensen-Shannon divergence of the two
    distributions (theorem 1). While D is far ahead, log(1 - s) is flat, so that G
    maximizes log s(D(G(z))) instead (section 3). D and G are updated in turn, each on
    fresh noise (algorithm 1 with k = 1):

        loss_D = -1/2 V(D, G)
        loss_G = -E[log s(D(G(z)))]

    The networks and the optimizer are those of the authors' code for MNIST
    (github.com/goodfeli/adversarial, mnist.yaml). Both networks are perceptrons. G has
    rectified linear units and a sigmoid at its output, whose biases start at the mean
    image. D has maxout units (Goodfellow 2013, https://arxiv.org/abs/1302.4389) and
    dropout. Gradient descent has a momentum that rises over 250 epochs, and a learning
    rate that falls a little with each update.

What to expect
    Digits appear after about 60 of the 200 epochs; at the end most can be read. Their
    FID in a digit classifier's features is 11.8, and 10.8 for the same training in
    PyTorch (docs/scripts/gan.md). A loss_D of log 2 = 0.69 means that D cannot
    distinguish real from generated images; near 0, D has won and G no longer learns.

Differences from the authors' code
    * G has 400 units in a layer instead of 1200, with initial weights twice as large
      for that, and D has 100 maxout units instead of 240 (--paper undoes this)
    * z is N(0, 1), not uniform with the same variance (--paper undoes this)

With --paper too:
    * the updates are those of algorithm 1; the code updates both networks at once and
      on the same noise
    * an epoch of --download has all 60,000 images of MNIST; the code keeps 10,000 of
      them for validation
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' mnist.yaml. Their training is stopped by hand; this one ends when the
# momentum has risen, after 250 epochs.
PAPER = {
    "n_epochs": 250,
    "batch_size": 100,
    "lr": 0.1,
    "lr_decay": 1.000004,
    "momentum": 0.5,
    "final_momentum": 0.7,
    "img_size": 28,
    "channels": 1,
    "latent_dim": 100,
    "noise": "uniform",
    "width": 1200,
    "maxout_units": 240,
    "init_G": 0.05,
    "init_D": 0.005,
    "input_dropout": 0.2,
    "dropout": 0.5,
}
MOMENTUM_EPOCHS = 250  # until the momentum has risen
PIECES = 5  # linear functions in a maxout unit


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=200, batch_size=100, lr=0.1, checkpoint_interval=10)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=28, at_least=4, at_most=256, help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--noise",
        choices=("normal", "uniform"),
        default="normal",
        help="N(0, 1), or uniform in [-sqrt(3), sqrt(3)], which has the same variance",
    )
    parser.add_architecture(
        "--width", type=int, default=400, at_most=8192, help="units in each hidden layer of G"
    )
    parser.add_architecture(
        "--maxout_units", type=int, default=100, help="units in each hidden layer of D"
    )

    # Initialization and training
    parser.add_argument(
        "--init_G", type=float, default=0.1, above=0, help="largest initial weight of G"
    )
    parser.add_argument(
        "--init_D", type=float, default=0.005, above=0, help="largest initial weight of D"
    )
    parser.add_argument(
        "--input_dropout", type=float, default=0.2, below=1, help="dropout of D's pixels"
    )
    parser.add_argument(
        "--dropout", type=float, default=0.5, below=1, help="dropout of D's hidden units"
    )
    parser.add_argument(
        "--lr_decay",
        type=float,
        default=1.000004,
        at_least=1,
        at_most=2,
        help="divisor of the learning rate after each update",
    )
    parser.add_argument(
        "--momentum", type=float, default=0.5, below=1, help="momentum of the first epoch"
    )
    parser.add_argument(
        "--final_momentum",
        type=float,
        default=0.7,
        below=1,
        help=f"momentum after {MOMENTUM_EPOCHS} epochs",
    )
    return parser.parse(argv)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1].

    z is multiplied by `z_scale` first.
    """

    def __init__(self, latent_dim, img_size, channels, width, z_scale):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.z_scale = z_scale
        self.hidden = nn.Sequential(
            nn.Linear(latent_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.output = nn.Linear(width, channels * img_size**2)
        self.tanh = nn.Tanh()

    def execute(self, z):
        logits = self.output(self.hidden(self.z_scale * z))
        images = self.tanh(logits / 2)  # a sigmoid in [-1, 1]: 2 s(h) - 1 = tanh(h / 2)
        return images.reshape(-1, *self.shape)


class Maxout(nn.Module):
    """(B, n_in)  ->  (B, n_out), each the largest of PIECES linear functions."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.n_out = n_out
        self.linear = nn.Linear(n_in, n_out * PIECES)

    def execute(self, x):
        pieces = self.linear(x).reshape(-1, self.n_out, PIECES)
        return pieces.max(dim=2)  # Jittor's max gives no indices


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  logits (B,), high for real."""

    def __init__(self, img_size, channels, maxout_units, input_dropout, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(input_dropout),
            Maxout(channels * img_size**2, maxout_units),
            nn.Dropout(dropout),
            Maxout(maxout_units, maxout_units),
            nn.Dropout(dropout),
            nn.Linear(maxout_units, 1),
        )

    def execute(self, images):
        pixels = (images + 1) / 2  # in [0, 1], where dropout makes a pixel black
        return self.layers(pixels).reshape(-1)


def initialize(network, bound):
    """Weights uniform in [-bound, bound], biases 0, as in mnist.yaml."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.constant_(layer.bias, 0.0)


def start_at_mean(generator, images):
    """Sets G's output biases so that a hidden layer of zeros gives the mean image.

    Args:
        images: (N, C, H, W) in [-1, 1], numpy.
    """
    mean = (images.mean(0, dtype=np.float64).reshape(-1) + 1) / 2  # in [0, 1]
    mean = np.clip(mean, 1e-7, 1 - 1e-7)
    logits = np.log(mean / (1 - mean))
    generator.output.bias.assign(jt.array(logits.astype(np.float32)))


def build(args):
    # The runs' uniform noise lies in [-1, 1] and has a variance of 1/3.
    z_scale = math.sqrt(3) if args.noise == "uniform" else 1
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width, z_scale)
    discriminator = Discriminator(
        args.img_size, args.channels, args.maxout_units, args.input_dropout, args.dropout
    )
    initialize(generator, args.init_G)
    generator.train()
    initialize(discriminator, args.init_D)
    discriminator.train()  # Jittor's dropout is off until .train()
    return generator, discriminator


# ---- losses and one training step ----


def discriminator_loss(real_logits, fake_logits):
    """-V / 2 of logits (B,).

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return (nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()) / 2


def generator_loss(fake_logits):
    """The non-saturating loss of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G):
    """Updates D, then G.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) of the two updates.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    # D: real images against generated ones
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z_D)
    loss_D = discriminator_loss(discriminator(real), discriminator(fake))
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: new images, which D should take for real
    fake = generator(z_G)
    loss_G = generator_loss(discriminator(fake))
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


# ---- training ----


def learning_rate(step, args):
    """The learning rate of a step, counted from 1."""
    return args.lr / args.lr_decay ** (step - 1)


def momentum(epoch, args):
    """The momentum of an epoch, counted from 1: it rises linearly, then stays."""
    risen = min((epoch - 1) / (MOMENTUM_EPOCHS - 1), 1)
    return args.momentum + risen * (args.final_momentum - args.momentum)


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, discriminator = build(args)
    if not (args.resume or args.init_from):  # whose biases are trained already
        images, *_ = data.batch(np.arange(min(5000, len(data))))  # enough for their mean
        start_at_mean(generator, images)
    optimizer_G = nn.SGD(generator.parameters(), lr=args.lr, momentum=args.momentum)
    optimizer_D = nn.SGD(discriminator.parameters(), lr=args.lr, momentum=args.momentum)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise(args.noise, 100, args.latent_dim)
    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            for optimizer in (optimizer_G, optimizer_D):
                optimizer.lr = learning_rate(run.step, args)
                optimizer.momentum = momentum(epoch, args)
            z_D = run.noise(args.noise, args.batch_size, args.latent_dim)
            z_G = run.noise(args.noise, args.batch_size, args.latent_dim)
            losses = train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G)
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(generator, fixed_z))
    write_samples(run, generator, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise(args.noise, 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise(args.noise, args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


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
