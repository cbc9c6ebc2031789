"""SGAN: a stack of two generators, which inverts a classifier layer by layer.

Huang, Li, Poursaeed, Hopcroft and Belongie 2017, https://arxiv.org/abs/1612.04357

    python sgan.py                              # digits, 4 minutes on two CPU cores
    python sgan.py --paper --data_dir MNIST     # the authors' setting, on full MNIST
    python sgan.py --entropy_weight 0           # without the entropy loss
    python sgan.py --resume results/sgan --sample_only --n_samples 1000
    python tools/evaluate.py sgan results/sgan

Method
    An encoder E is trained to classify images x: a first part E_0 turns an image into
    features h_1, a second part E_1 these into the label y. Then E is fixed. Two
    generators go the other way: G_1 draws features from a label and noise z_1, G_0
    draws an image from features and noise z_0, so that

        h_1^ = G_1(y, z_1),    x^ = G_0(h_1^, z_0)

    Each has a discriminator, D_1 of features and D_0 of images, which gives a logit,
    high for real ones, and also recovers the noise: Q_i is a second output of D_i. With
    the sigmoid s, and i = 1 or 0 (section 3):

        L_adv  = -E[log s(D_i(generated))]
        L_cond = cross entropy of E_1(h_1^) and y, for G_1
                 E[(E_0(x^) - h_1^)^2], for G_0
        L_ent  = E[(Q_i(generated) - z_i)^2]

    G_i minimizes L_adv + L_cond + 10 L_ent. L_cond makes it obey what it is drawn from,
    which it could do with the same image each time; L_ent is a bound on the entropy of
    what it draws, and makes it use its noise. D_i and Q_i minimize

        L_D = -1/2 E[log s(D_i(real))] - 1/2 E[log(1 - s(D_i(generated)))] + 10 L_ent

    The generators are trained jointly, each by its own losses alone.

What to expect
    The rows of the pictures are test images, one of each class, four rows of images
    that G_0 draws from their features, and five rows from labels alone. The numbers 1
    and 0 in the logged names are those of the generators. A loss_D near log 2 = 0.69
    means that D guesses; a loss_ent of 1/12 = 0.083 means that nothing of the uniform
    noise is recovered.

Differences from the authors' code (--paper undoes the first)
    * half of the width, batches of 50, five times the learning rate, fewer updates
    * always: the encoder, whose weights come with their code, is trained here first
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_digits

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' code (github.com/xunhuang1995/SGAN, mnist/train_joint.py), here after 5
# epochs of the encoder.
PAPER = {
    "n_epochs": 205,
    "encoder_epochs": 5,
    "batch_size": 100,
    "lr": 0.0001,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 28,
    "channels": 1,
    "width": 32,
    "latent_dim": 50,
    "cond_weight": 1.0,
    "entropy_weight": 10.0,
}
ENCODER_RATE = 0.001  # Adam's learning rate for the encoder
N_TEST = 500  # bundled digits that are kept for tests


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=45, batch_size=50, lr=0.0005)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=28, at_most=128, help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--n_classes", type=int, default=10, at_least=2, at_most=256, help="number of labels"
    )
    parser.add_architecture("--latent_dim", type=int, default=50, help="length of z_1 and z_0")
    parser.add_architecture(
        "--width", type=int, default=16, at_most=256, help="channels of the first layers"
    )

    # Training
    parser.add_argument(
        "--encoder_epochs",
        type=int,
        default=5,
        at_least=0,
        help="how many of the epochs train the encoder, before the generators",
    )
    parser.add_argument("--cond_weight", type=float, default=1.0, help="weight of L_cond")
    parser.add_argument("--entropy_weight", type=float, default=10.0, help="weight of L_ent")
    args = parser.parse(argv)
    parser.multiple_of(args, "img_size", 4, at_least=20)
    return args


# ---- encoder ----


class Encoder(nn.Module):
    """images (B, channels, S, S)  ->  logits of the labels (B, n_classes).

    `features` are h_1 (B, 8 width), `classify` turns them into logits.
    """

    def __init__(self, img_size, channels, n_classes, width):
        super().__init__()
        last = img_size // 4 - 3  # the side of the last map
        self.layers = nn.Sequential(
            nn.Conv(channels, width, 5),  # -> (B, width, S - 4, S - 4)
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv(width, width, 5),  # -> (B, width, S / 2 - 6, S / 2 - 6)
            nn.ReLU(),
            nn.MaxPool2d(2),  # -> (B, width, S / 4 - 3, S / 4 - 3)
            nn.Flatten(),
            nn.Linear(width * last**2, 8 * width),
            nn.ReLU(),
        )
        self.label = nn.Linear(8 * width, n_classes)

    def features(self, images):
        return self.layers((images + 1) / 2)  # pixels in [0, 1]

    def classify(self, features):
        return self.label(features)

    def execute(self, images):
        return self.classify(self.features(images))


# ---- generators ----


class Generator1(nn.Module):
    """labels (B,), z_1 (B, latent_dim)  ->  features (B, 8 width), not negative."""

    def __init__(self, latent_dim, n_classes, width):
        super().__init__()
        self.n_classes = n_classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + n_classes, 16 * width, bias=False),
            nn.BatchNorm(16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, 16 * width, bias=False),
            nn.BatchNorm(16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, 8 * width),
            nn.ReLU(),
        )

    def execute(self, labels, z):
        one_hot = nn.one_hot(labels, self.n_classes).float32()
        return self.layers(jt.concat([z, one_hot], dim=1))


class Generator0(nn.Module):
    """features (B, 8 width), z_0 (B, latent_dim)  ->  images in [-1, 1].

    The images are (B, channels, S, S).
    """

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        side = img_size // 4 - 3
        self.shape = (4 * width, side, side)
        self.embed = nn.Sequential(  # (B, latent_dim) -> (B, 4 width)
            nn.Linear(latent_dim, 4 * width, bias=False),
            nn.BatchNorm(4 * width),
            nn.ReLU(),
        )
        n_units = 4 * width * side**2
        self.dense = nn.Sequential(  # (B, 12 width) -> (B, 4 width side side)
            nn.Linear(12 * width, n_units, bias=False),
            nn.BatchNorm(n_units),
            nn.ReLU(),
        )
        self.layers = nn.Sequential(
            nn.ConvTranspose(
                4 * width, 4 * width, 5, stride=2, padding=2, output_padding=1, bias=False
            ),  # -> (B, 4 width, S / 2 - 6, S / 2 - 6)
            nn.BatchNorm(4 * width),
            nn.ReLU(),
            nn.ConvTranspose(4 * width, 2 * width, 5, bias=False),  # -> 4 pixels more
            nn.BatchNorm(2 * width),
            nn.ReLU(),
            nn.ConvTranspose(
                2 * width, 2 * width, 5, stride=2, padding=2, output_padding=1, bias=False
            ),  # -> (B, 2 width, S - 4, S - 4)
            nn.BatchNorm(2 * width),
            nn.ReLU(),
            nn.ConvTranspose(2 * width, channels, 5),  # -> (B, channels, S, S)
        )
        self.tanh = nn.Tanh()

    def execute(self, features, z):
        h = self.dense(jt.concat([features, self.embed(z)], dim=1))
        images = self.layers(h.reshape(-1, *self.shape))
        return self.tanh(images / 2)  # a sigmoid in [-1, 1]: 2 s(h) - 1 = tanh(h / 2)


# ---- discriminators ----


class Discriminator1(nn.Module):
    """features (B, 8 width)  ->  D_1's logits (B,) and Q_1's noise (B, latent_dim)."""

    def __init__(self, latent_dim, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8 * width, 8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, 8 * width),
            nn.ReLU(),
        )
        self.D = nn.Linear(8 * width, 1)
        self.Q = nn.Linear(8 * width, latent_dim)

    def execute(self, features):
        h = self.body(features)
        return self.D(h).reshape(-1), jt.sigmoid(self.Q(h))


class Discriminator0(nn.Module):
    """images (B, channels, S, S)  ->  D_0's logits (B,) and Q_0's noise."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        side = -(-img_size // 8)  # rounded up, as the strided layers do
        self.body = nn.Sequential(
            nn.Conv(channels, width, 5, stride=2, padding=2),  # -> (B, width, S / 2, S / 2)
            nn.LeakyReLU(0.2),
            nn.Conv(width, 2 * width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv(2 * width, 4 * width, 5, stride=2, padding=2),  # -> (B, 4 width, S / 8, S / 8)
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * side**2, 8 * width),
            nn.ReLU(),
        )
        self.D = nn.Linear(8 * width, 1)
        self.Q = nn.Linear(8 * width, latent_dim)

    def execute(self, images):
        h = self.body((images + 1) / 2)  # pixels in [0, 1]
        return self.D(h).reshape(-1), jt.sigmoid(self.Q(h))


def build(args):
    """E, G_1, G_0, D_1 and D_0."""
    encoder = Encoder(args.img_size, args.channels, args.n_classes, args.width)
    generator1 = Generator1(args.latent_dim, args.n_classes, args.width)
    generator0 = Generator0(args.latent_dim, args.img_size, args.channels, args.width)
    discriminator1 = Discriminator1(args.latent_dim, args.width)
    discriminator0 = Discriminator0(args.latent_dim, args.img_size, args.channels, args.width)
    for network in (encoder, generator1, generator0, discriminator1, discriminator0):
        network.train()
    for network in (generator1, generator0):
        initialize(network)
    return encoder, generator1, generator0, discriminator1, discriminator0


def initialize(network):
    """Weights from N(0, 0.02^2), as the authors' generators."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)


# ---- losses and training steps ----


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B,), without L_ent.

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return (nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()) / 2


def generator_loss(fake_logits):
    """L_adv of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def square_loss(values, targets):
    """The mean squared difference: L_ent of noise, and L_cond of features."""
    common.check_same_shape(values, targets)
    return ((values - targets) ** 2).mean()


def encoder_step(encoder, optimizer, images, labels):
    """Updates the encoder as a classifier of images (B, C, S, S) with labels (B,)."""
    cross_entropy = nn.cross_entropy_loss(encoder(images), labels)
    optimizer.step(cross_entropy)  # Jittor: computes its gradients, and updates
    return {"cross_entropy": cross_entropy}


def train_step(networks, optimizers, real, labels, noise, *, cond_weight, entropy_weight):
    """Updates both discriminators, then both generators.

    Args:
        networks: the encoder, G_1, G_0, D_1 and D_0.
        optimizers: of G_1, G_0, D_1 and D_0.
        real, labels: images (B, C, S, S) in [-1, 1] and their labels (B,).
        noise: (z_1, z_0), each (B, latent_dim) in [0, 1], of both updates.

    Returns:
        {name: loss} as Jittor scalars, without their weights; loss_D without L_ent.
    """
    noise_D, noise_G = noise
    losses = discriminator_step(networks, optimizers[2:], real, labels, noise_D, entropy_weight)
    weights = (cond_weight, entropy_weight)
    losses.update(generator_step(networks, optimizers[:2], labels, noise_G, weights))
    return losses


def discriminator_step(networks, optimizers, real, labels, noise, entropy_weight):
    encoder, generator1, generator0, discriminator1, discriminator0 = networks
    optimizer_D1, optimizer_D0 = optimizers
    z1, z0 = noise
    with jt.no_grad():  # this update needs no gradients of E, G_1 and G_0
        features = encoder.features(real)
        fake_features = generator1(labels, z1)
        fake = generator0(fake_features, z0)

    # D_1: features of images against those of G_1
    real_logits, _ = discriminator1(features)
    fake_logits, recovered = discriminator1(fake_features)
    loss_D1 = discriminator_loss(real_logits, fake_logits)
    optimizer_D1.step(loss_D1 + entropy_weight * square_loss(recovered, z1))

    # D_0: images against those of the whole stack
    real_logits, _ = discriminator0(real)
    fake_logits, recovered = discriminator0(fake)
    loss_D0 = discriminator_loss(real_logits, fake_logits)
    optimizer_D0.step(loss_D0 + entropy_weight * square_loss(recovered, z0))
    return {"loss_D1": loss_D1, "loss_D0": loss_D0}


def generator_step(networks, optimizers, labels, noise, weights):
    encoder, generator1, generator0, discriminator1, discriminator0 = networks
    optimizer_G1, optimizer_G0 = optimizers
    cond_weight, entropy_weight = weights
    z1, z0 = noise

    # G_1: features that D_1 takes for real, that E reads as the label, and that vary
    features = generator1(labels, z1)
    logits, recovered = discriminator1(features)
    loss_G1 = generator_loss(logits)
    loss_cond1 = nn.cross_entropy_loss(encoder.classify(features), labels)
    loss_ent1 = square_loss(recovered, z1)
    optimizer_G1.step(loss_G1 + cond_weight * loss_cond1 + entropy_weight * loss_ent1)

    # G_0: images that D_0 takes for real, with these features, and that vary. The
    # features are those before the update of G_1, to which no gradient goes.
    features = features.detach()
    fake = generator0(features, z0)
    logits, recovered = discriminator0(fake)
    loss_G0 = generator_loss(logits)
    loss_cond0 = square_loss(encoder.features(fake), features)
    loss_ent0 = square_loss(recovered, z0)
    optimizer_G0.step(loss_G0 + cond_weight * loss_cond0 + entropy_weight * loss_ent0)
    return {
        "loss_G1": loss_G1,
        "loss_cond1": loss_cond1,
        "loss_ent1": loss_ent1,
        "loss_G0": loss_G0,
        "loss_cond0": loss_cond0,
        "loss_ent0": loss_ent0,
    }


# ---- training ----


def load(args, split):
    return load_digits(
        args.data_dir, args.img_size, args.channels, args.n_classes, split=split, n_test=N_TEST
    )


def train(run, args):
    data = load(args, "train")
    shown = one_of_each_class(load(args, "test"))
    networks = build(args)
    encoder, generator1, generator0, discriminator1, discriminator0 = networks
    betas = (args.b1, args.b2)
    optimizer_E = nn.Adam(encoder.parameters(), lr=ENCODER_RATE, betas=(0.9, 0.999))
    optimizers = [
        nn.Adam(network.parameters(), lr=args.lr, betas=betas) for network in networks[1:]
    ]
    optimizer_G1, optimizer_G0, optimizer_D1, optimizer_D0 = optimizers

    run.checkpoint(  # what checkpoint_last.npz holds
        encoder=encoder,
        generator1=generator1,
        generator0=generator0,
        discriminator1=discriminator1,
        discriminator0=discriminator0,
        optimizer_E=optimizer_E,
        optimizer_G1=optimizer_G1,
        optimizer_G0=optimizer_G0,
        optimizer_D1=optimizer_D1,
        optimizer_D0=optimizer_D0,
    )
    run.restore()  # from --resume or --init_from, if given

    for phase in run.phases({"encoder": args.encoder_epochs, "stack": None}):  # None: the rest
        for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
            for real, labels in run.batches(data):  # counts the steps; Ctrl-C saves and stops
                if phase == "encoder":
                    run.log(encoder_step(encoder, optimizer_E, real, labels))
                    continue
                losses = train_step(
                    networks,
                    optimizers,
                    real,
                    labels,
                    step_noise(run, args),
                    cond_weight=args.cond_weight,
                    entropy_weight=args.entropy_weight,
                )
                run.log(losses)
                if run.every(args.sample_interval):
                    save_picture(run, networks, shown, args)
    write_samples(run, networks, shown, args)


def step_noise(run, args):
    """(z_1, z_0) of the discriminators' update, and of the generators'."""
    shape = (args.batch_size, args.latent_dim)
    return [(run.uniform(*shape), run.uniform(*shape)) for _ in range(2)]


# ---- samples ----


def one_of_each_class(data):
    """The first image (n, C, S, S) of each class that occurs, numpy."""
    images, labels = data.batch(np.arange(len(data)))
    _, first = np.unique(labels, return_index=True)
    return images[first]


def draw(networks, labels, rng, args):
    """Images (N, C, S, S) of labels (N,), both numpy."""
    _, generator1, *_ = networks
    z1 = rng.random((len(labels), args.latent_dim), dtype=np.float32)
    features = common.predict(generator1, labels, z1)
    return redraw(networks, features, rng, args)


def redraw(networks, features, rng, args):
    """Images (N, C, S, S) of features (N, 8 width), both numpy."""
    _, _, generator0, _, _ = networks
    z0 = rng.random((len(features), args.latent_dim), dtype=np.float32)
    return common.predict(generator0, features, z0)


def save_picture(run, networks, shown, args, to=None):
    """Saves test images, images drawn from their features, and images of labels.

    Args:
        shown: the test images (n, C, S, S), one of each class.
        to: a file name in the output folder (default: that of the step's samples).
    """
    encoder, *_ = networks
    rng = run.fixed_rng()
    features = predict_features(encoder, shown)
    rows = [shown]
    for _ in range(4):
        rows.append(redraw(networks, features, rng, args))
    labels = np.tile(np.arange(args.n_classes, dtype=np.int32), 5)[: 5 * len(shown)]
    samples = draw(networks, labels, rng, args)
    run.save_grid(np.concatenate([*rows, samples]), to=to, nrow=len(shown), watched=samples)


def predict_features(encoder, images):
    """h_1 (N, 8 width) of images (N, C, S, S), both numpy."""
    return common.predict(encoder.features, images)


def write_samples(run, networks, shown, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    save_picture(run, networks, shown, args, to="result.png")
    write_asked(run, networks, args)


def write_asked(run, networks, args):
    """Writes samples.npz if --n_samples asks for it."""
    if args.n_samples:
        labels = np.arange(args.n_samples, dtype=np.int32) % args.n_classes
        images = draw(networks, labels, run.fixed_rng(), args)
        run.save_samples(images, labels=labels)


def generate(run, args):
    """Draws ten samples of each label from a checkpoint."""
    networks = build(args)
    _, generator1, generator0, _, _ = networks
    run.checkpoint(generator1=generator1, generator0=generator0)
    run.restore()
    labels = np.tile(np.arange(args.n_classes, dtype=np.int32), 10)
    images = draw(networks, labels, run.fixed_rng(), args)
    run.save_grid(images, to="result.png", nrow=args.n_classes)
    write_asked(run, networks, args)


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
