"""BiGAN: a GAN with an encoder, which gives images a code without any label.

Donahue, Krahenbuhl and Darrell 2017, https://arxiv.org/abs/1605.09782

    python bigan.py                              # digits, 5 minutes on two CPU cores
    python bigan.py --paper --data_dir MNIST     # the authors' setting, on full MNIST
    python bigan.py --resume results/bigan --sample_only --n_samples 100
    python tools/explore.py results/bigan --walk real
    python tools/evaluate.py bigan results/bigan

Method
    A generator G turns noise z, uniform in [-1, 1], into an image. An encoder E goes
    the other way: it turns an image x into a code. A discriminator D sees pairs of an
    image and a code, and gives a logit, which is high where it takes the image for real
    and the code for the encoder's. With the sigmoid s, D maximizes, and G and E
    minimize (equation 3):

        V = E[log s(D(x, E(x)))] + E[log(1 - s(D(G(z), z)))]

    D never sees an image beside its reconstruction. Yet against the best D, G and E
    invert each other at the optimum: G(E(x)) = x and E(G(z)) = z (theorem 2), for only
    then do both kinds of pairs have the same distribution. G and E are trained with the
    two kinds exchanged, which gives stronger gradients (section 3.4). All three
    networks are updated at once, from the same pairs:

        loss_D  = -1/2 E[log s(D(x, E(x)))] - 1/2 E[log(1 - s(D(G(z), z)))]
        loss_GE = -1/2 E[log(1 - s(D(x, E(x))))] - 1/2 E[log s(D(G(z), z))]

    The networks are the perceptrons of the authors' code for MNIST
    (github.com/jeffdonahue/bigan, train_mnist.sh), which know nothing of a pixel's
    neighbours. The second layers of G and D read z again.

What to expect
    The rows of the pictures are test images, their reconstructions G(E(x)), twice, and
    then images of random z. A reconstruction mostly has the image's shape, but not its
    strokes, and sometimes another class: nothing in the losses compares pixels. A
    loss_D near log 2 = 0.69 means that D guesses; it falls during the run, while
    loss_GE rises.

Differences from the authors' code (--paper undoes the first)
    * fewer updates
    * always: statistics of batch norm for evaluation are running averages of the
      training; the authors compute them again after it
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' train_mnist.sh, with the defaults of their train_gan.py: 200 epochs at
# the full learning rate, and 200 in which it falls to a hundredth.
PAPER = {
    "n_epochs": 400,
    "decay_epoch": 200,
    "batch_size": 128,
    "lr": 0.0002,
    "weight_decay": 2.5e-5,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 28,
    "channels": 1,
    "latent_dim": 50,
    "width": 1024,
}
LAST_RATE = 0.01  # the learning rate of the last epoch over the first one
N_TEST = 500  # bundled digits that are kept for tests
N_SHOWN = 20  # test images in a picture, and as many images of noise


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=200, batch_size=128, lr=0.0002, checkpoint_interval=10)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=28, at_least=4, at_most=256, help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=50, help="length of z")
    parser.add_architecture(
        "--width", type=int, default=1024, at_most=8192, help="units in each hidden layer"
    )

    # Training
    parser.add_argument(
        "--weight_decay", type=float, default=2.5e-5, help="weight of the squared weights"
    )
    parser.add_argument(
        "--decay_epoch",
        type=int,
        default=100,
        at_least=0,
        help="epochs at the full learning rate, before it falls to a hundredth",
    )
    return parser.parse(argv)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        self.first = nn.Sequential(  # (B, latent_dim) -> (B, width)
            nn.Linear(latent_dim, width, bias=False),
            nn.BatchNorm(width, affine=False),
            nn.ReLU(),
        )
        self.second = nn.Sequential(  # (B, width + latent_dim) -> (B, width)
            nn.Linear(width + latent_dim, width, bias=False),
            nn.BatchNorm(width, affine=False),
            nn.ReLU(),
        )
        self.output = nn.Linear(width, channels * img_size**2, bias=False)
        self.tanh = nn.Tanh()

    def execute(self, z):
        h = self.second(jt.concat([self.first(z), z], dim=1))
        images = self.tanh(self.output(h) / 2)  # a sigmoid in [-1, 1]: 2 s(h) - 1 = tanh(h / 2)
        return images.reshape(-1, *self.shape)


class Encoder(nn.Module):
    """images (B, channels, img_size, img_size)  ->  codes (B, latent_dim) in [-1, 1].

    `features` (B, width) are those of the last hidden layer.
    """

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * img_size**2, width, bias=False),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm(width, affine=False),
            nn.LeakyReLU(0.2),
        )
        self.output = nn.Linear(width, latent_dim, bias=False)
        self.tanh = nn.Tanh()

    def features(self, images):
        return self.hidden((images + 1) / 2)  # pixels in [0, 1]

    def execute(self, images):
        return self.tanh(self.output(self.features(images)) / 2)


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size), z (B, latent_dim)  ->  logits (B,).

    They are high for real images with the codes of the encoder.
    """

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        self.first = nn.Sequential(  # (B, channels, img_size, img_size) -> (B, width)
            nn.Flatten(),
            nn.Linear(channels * img_size**2, width, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.second = nn.Sequential(  # (B, width + latent_dim) -> (B, 1)
            nn.Linear(width + latent_dim, width, bias=False),
            nn.BatchNorm(width, affine=False),
            nn.LeakyReLU(0.2),
        )
        self.output = nn.Linear(width, 1, bias=False)

    def execute(self, images, z):
        h = self.first((images + 1) / 2)  # pixels in [0, 1]
        h = self.second(jt.concat([h, z], dim=1))
        return self.output(h).reshape(-1)


def initialize(network):
    """Weights from N(0, 0.02^2)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)


def build(args):
    sizes = (args.latent_dim, args.img_size, args.channels, args.width)
    generator = Generator(*sizes)
    encoder = Encoder(*sizes)
    discriminator = Discriminator(*sizes)
    for network in (generator, encoder, discriminator):
        initialize(network)
        network.train()
    nn.init.constant_(discriminator.output.weight, 0)  # D begins undecided
    return generator, encoder, discriminator


# ---- losses and one training step ----


def discriminator_loss(encoded_logits, generated_logits):
    """loss_D of logits (B,), of the pairs (x, E(x)) and of the pairs (G(z), z).

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(encoded_logits, generated_logits)
    return (nn.softplus(-encoded_logits).mean() + nn.softplus(generated_logits).mean()) / 2


def train_step(networks, optimizers, real, z):
    """Updates D, and G and E, all from the same pairs.

    Args:
        networks: the generator, the encoder and the discriminator.
        optimizers: of D, and of G and E.
        real: images (B, C, H, W) in [-1, 1].
        z: noise (B, latent_dim).

    Returns:
        {"loss_D", "loss_GE"} as Jittor scalars.
    """
    generator, encoder, discriminator = networks
    optimizer_D, optimizer_GE = optimizers
    encoded_logits = discriminator(real, encoder(real))
    generated_logits = discriminator(generator(z), z)

    # D: images with their codes against noise with its images
    loss_D = discriminator_loss(encoded_logits, generated_logits)
    optimizer_D.step(loss_D, retain_graph=True)  # Jittor: the gradients, and the update

    # G and E: the same pairs, which D should take for the other kind; the logits are
    # those of D before its update
    loss_GE = discriminator_loss(generated_logits, encoded_logits)
    optimizer_GE.step(loss_GE)
    return {"loss_D": loss_D, "loss_GE": loss_GE}


# ---- training ----


def learning_rate(epoch, args):
    """Of an epoch, counted from 1: constant at first, then it falls exponentially."""
    n_falling = args.n_epochs - args.decay_epoch
    share = max(0, epoch - args.decay_epoch) / max(1, n_falling)
    return args.lr * LAST_RATE ** min(1, share)


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, n_test=N_TEST)
    shown = test_images(args)
    networks = build(args)
    generator, encoder, discriminator = networks
    options = {
        "lr": args.lr,
        "betas": (args.b1, args.b2),
        "weight_decay": args.weight_decay,
    }
    optimizer_D = nn.Adam(discriminator.parameters(), **options)
    optimizer_GE = nn.Adam(generator.parameters() + encoder.parameters(), **options)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        encoder=encoder,
        discriminator=discriminator,
        optimizer_D=optimizer_D,
        optimizer_GE=optimizer_GE,
    )
    run.restore()  # from --resume or --init_from, if given

    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for optimizer in (optimizer_D, optimizer_GE):
            optimizer.lr = learning_rate(epoch, args)
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            z = run.noise("uniform", args.batch_size, args.latent_dim)
            losses = train_step(networks, (optimizer_D, optimizer_GE), real, z)
            run.log(losses)
            if run.every(args.sample_interval):
                save_picture(run, generator, encoder, shown, args)
    write_samples(run, generator, encoder, shown, args)


# ---- samples ----


def test_images(args):
    """The first N_SHOWN images (N, C, H, W) of the test split, numpy."""
    data = load_images(args.data_dir, args.img_size, args.channels, split="test", n_test=N_TEST)
    images, *_ = data.batch(np.arange(min(N_SHOWN, len(data))))
    return images


def save_picture(run, generator, encoder, shown, args, to=None):
    """Saves test images, their reconstructions, and images of random z.

    Args:
        shown: the test images (N, C, H, W).
        to: a file name in the output folder (default: that of the step's samples).
    """
    reconstructed = common.predict(generator, common.predict(encoder, shown))
    z = run.fixed_noise("uniform", N_SHOWN, args.latent_dim)
    rows = []
    for first in range(0, len(shown), 10):
        rows.append(shown[first : first + 10])
        rows.append(reconstructed[first : first + 10])
    samples = common.predict(generator, z)
    run.save_grid(np.concatenate([*rows, samples]), to=to, nrow=10, watched=samples)


def write_samples(run, generator, encoder, shown, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    save_picture(run, generator, encoder, shown, args, to="result.png")
    write_asked(run, generator, args)


def write_asked(run, generator, args):
    """Writes samples.npz if --n_samples asks for it."""
    if args.n_samples:
        z = run.fixed_noise("uniform", args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


def generate(run, args):
    """Draws samples from a checkpoint; reconstructions would need the data."""
    generator, _, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    z = run.fixed_noise("uniform", 100, args.latent_dim)
    run.save_grid(common.predict(generator, z), to="result.png")
    write_asked(run, generator, args)


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
