"""GAN: the original generative adversarial network (Goodfellow 2014, https://arxiv.org/abs/1406.2661).

    python gan.py
    python gan.py --paper --download
    python tools/explore.py results/gan --walk interpolate

A generator G turns noise z ~ N(0, 1) into an image, a discriminator D gives the probability s(D(x)) that an image is of
the data. They play a game for one value: D maximizes it, G minimizes it (equation 1):

    V(D, G) = E[log s(D(x))] + E[log(1 - s(D(G(z))))]

Against the best D, V is -log 4 plus twice the Jensen-Shannon divergence of the two distributions (theorem 1), so that
loss_D is log 2 = 0.69 where D can tell nothing apart. While D is far ahead, log(1 - s) is flat, so G maximizes
log s(D(G(z))) instead (section 3). D and G are updated in turn, each on fresh noise (algorithm 1 with k = 1):

    loss_D = -1/2 V(D, G)
    loss_G = -E[log s(D(G(z)))]

Networks and optimizer are those of the authors' code for MNIST (github.com/goodfeli/adversarial, mnist.yaml). Both are
perceptrons. G has rectified linear units and a sigmoid at the end, whose biases begin where they draw the mean image. D
has maxout units (Goodfellow 2013, https://arxiv.org/abs/1302.4389) and dropout. Gradient descent has momentum, which
rises over 250 epochs, and a rate that falls a little with each update. The code updates both networks at once and on
the same noise; here, with --paper too, the updates are those of algorithm 1.

The default departs from it in numbers alone, for four minutes on two CPU cores: G has 400 units in a layer and not
1200, with initial weights twice as large for that, and D has 100 maxout units and not 240. Digits show after some 60 of
its 200 epochs; in the end most can be read.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import jittor as jt
import numpy as np

from jittor_fast import nn

# The authors' mnist.yaml. It is stopped by hand; 250 epochs is where its momentum has risen.
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
    "width": 1200,
    "maxout_units": 240,
    "init_G": 0.05,
    "init_D": 0.005,
    "input_dropout": 0.2,
    "dropout": 0.5,
}
MOMENTUM_EPOCHS = 250
PIECES = 5  # linear functions in a maxout unit


def parse_args(argv=None):
    architecture = ("latent_dim", "width", "maxout_units", "img_size", "channels")
    parser = common.Parser("gan", __doc__, PAPER, architecture, uses_adam=False)
    parser.set_defaults(n_epochs=200, batch_size=100, lr=0.1, img_size=28, channels=1)
    parser.set_defaults(sample_interval=500, checkpoint_interval=10, log_interval=50)
    add, number = parser.add_argument, common.number
    share = number(float, at_least=0, below=1)
    add(
        "--lr_decay",
        type=number(float, at_least=1),
        default=1.000004,
        help="the rate's divisor after each update",
    )
    add("--momentum", type=share, default=0.5, help="of gradient descent, at first")
    add(
        "--final_momentum", type=share, default=0.7, help=f"the same after {MOMENTUM_EPOCHS} epochs"
    )
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=100,
        help="length of the noise vector",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=8192),
        default=400,
        help="units in each hidden layer of G",
    )
    add(
        "--maxout_units",
        type=number(int, at_least=1, at_most=4096),
        default=100,
        help="in each hidden layer of D",
    )
    add("--init_G", type=number(float, above=0), default=0.1, help="largest initial weight of G")
    add("--init_D", type=number(float, above=0), default=0.005, help="largest initial weight of D")
    add("--input_dropout", type=share, default=0.2, help="share of the pixels that D does not see")
    add(
        "--dropout",
        type=share,
        default=0.5,
        help="share of the hidden units of D that are left out",
    )
    args = parser.parse(argv)
    if not 4 <= args.img_size <= 256:
        parser.error(f"--img_size must be from 4 to 256, got {args.img_size}")
    return args


# ---- networks ----


class Generator(nn.Module):
    """(B, latent_dim) noise to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.hidden = nn.Sequential(
            nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.output = nn.Linear(width, channels * img_size**2)
        self.tanh = nn.Tanh()

    def execute(self, z):
        h = self.output(self.hidden(z))
        return self.tanh(h / 2).reshape(-1, *self.shape)  # 2 s(h) - 1 = tanh(h / 2)


class Maxout(nn.Module):
    """(B, n_in) to (B, n_out): each output is the largest of PIECES linear functions of the input."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.n_out = n_out
        self.linear = nn.Linear(n_in, n_out * PIECES)

    def execute(self, x):
        return self.linear(x).reshape(-1, self.n_out, PIECES).max(dim=2)


class Discriminator(nn.Module):
    """(B, channels, img_size, img_size) images to (B,) logits: high for real."""

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
        return self.layers((images + 1) / 2).reshape(
            -1
        )  # pixels in [0, 1], so that dropout makes them black


def initialize(module, bound):
    """Weights uniform in [-bound, bound], biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.constant_(layer.bias, 0.0)


def begin_at_mean(generator, images):
    """Biases with which G draws, from zeros, the mean of (N, C, H, W) images in [-1, 1]: log(p / (1 - p))."""
    p = np.clip((images.mean(0, dtype=np.float64).reshape(-1) + 1) / 2, 1e-7, 1 - 1e-7)
    generator.output.bias.assign(jt.array(np.log(p / (1 - p)).astype(np.float32)))


def build(args):
    """The generator and the discriminator of these arguments."""
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width)
    discriminator = Discriminator(
        args.img_size, args.channels, args.maxout_units, args.input_dropout, args.dropout
    )
    for module, bound in ((generator, args.init_G), (discriminator, args.init_D)):
        initialize(module, bound)
        module.train()
    return generator, discriminator


# ---- losses and the step ----


def discriminator_loss(real_logits, fake_logits):
    """-V / 2 from logits (B,) of real and of generated images; -log s(x) = softplus(-x)."""
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"logits of different shapes: {real_logits.shape} and {fake_logits.shape}")
    return (nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()) / 2


def generator_loss(fake_logits):
    """Non-saturating: G raises the logits of its images."""
    return nn.softplus(-fake_logits).mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G):
    """One update of D, then one of G.

    Args:
        real: (B, C, H, W) in [-1, 1].
        z_D, z_G: (B, latent_dim) noise of each update.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    with jt.no_grad():
        fake = generator(z_D)
    loss_D = discriminator_loss(discriminator(real), discriminator(fake))
    optimizer_D.step(loss_D)

    loss_G = generator_loss(discriminator(generator(z_G)))
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


# ---- training and samples ----


def schedule(optimizer, step, epoch, args):
    """Sets the rate of a step and the momentum of an epoch, both counted from 1."""
    risen = min((epoch - 1) / (MOMENTUM_EPOCHS - 1), 1)
    optimizer.lr = args.lr / args.lr_decay ** (step - 1)
    optimizer.momentum = args.momentum + risen * (args.final_momentum - args.momentum)


def latent(rng, n, args):
    """(n, latent_dim) numpy noise from N(0, 1), float32."""
    return rng.standard_normal((n, args.latent_dim), dtype=np.float32)


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, args.download)
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator = build(args)
    begin_at_mean(generator, data.batch(np.arange(min(5000, len(data))))[0])
    optimizer_G = nn.SGD(generator.parameters(), lr=args.lr, momentum=args.momentum)
    optimizer_D = nn.SGD(discriminator.parameters(), lr=args.lr, momentum=args.momentum)
    run.track(
        exports={"generator": generator},
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        batches=batches,
    )

    def draw(z):
        return common.in_chunks(generator, z)

    grid_z = latent(run.sample_rng, 100, args)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    for epoch in run.epochs():
        for real, *_ in run.steps(batches):
            for optimizer in (optimizer_G, optimizer_D):
                schedule(optimizer, run.step, epoch, args)
            z_D, z_G = (run.normal(args.batch_size, args.latent_dim) for _ in range(2))
            losses = train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G)
            run.log(losses)
            if run.every(args.sample_interval):
                images = draw(grid_z)
                common.save_image(images, run.sample_path)
                watch.see_samples(images)
    write_results(run, draw, grid_z, args)


def load_generator(run, args):
    """A function that gives the images (N, C, H, W) in [-1, 1] of (N, latent_dim) noise, both numpy."""
    generator, _ = build(args)
    run.track(generator=generator)
    return lambda z: common.in_chunks(generator, z)


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
