"""Improved GAN: a classifier from a hundred labels, and cures for a GAN's training.

Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen 2016,
https://arxiv.org/abs/1606.03498

    python improved_gan.py                            # digits; 6 minutes, two cores
    python improved_gan.py --unlabeled_weight 0       # the labels alone
    python improved_gan.py --paper --data_dir MNIST   # the authors' setting
    python improved_gan.py --n_labels 0 --arch conv --img_size 32 --channels 3 \\
        --data_dir stacked --loss_G adversarial --lr 0.0006 --batch_size 32 \\
        --minibatch_discrimination 100,5

Method
    The discriminator D is a classifier of K classes. Of its logits l_1 to l_K it makes
    a probability that an image x is real, with Z(x) = exp(l_1) + ... + exp(l_K):

        D(x) = Z(x) / (Z(x) + 1)

    A few images have labels y, the others none. D minimizes (section 5)

        loss_lab = -E[log p(y|x)]                                   the few with labels
        loss_unl = -1/2 E[log D(x)] - 1/2 E[log(1 - D(G(z)))]       all others

    A generator G draws images from uniform noise z. It is to match the mean
    of D's features f, those of its last hidden layer (feature matching, section 3.1):

        loss_G = mean of (E[f(x)] - E[f(G(z))])^2

    With --n_labels 0 there are no labels: D has one logit l, and D(x) = s(l) with the
    sigmoid s, as in other GANs. --loss_G adversarial minimizes -E[log D(G(z))] instead.

    Four further cures have flags of their own. --minibatch_discrimination (section 3.2)
    lets D see how much the images of a batch differ. --label_smoothing a takes 1 - a
    instead of 1 as D's target for real images (section 3.4). --virtual_batch_norm
    (section 3.5) normalizes each image of G by the statistics of one fixed batch of
    noise and of its own, so that an image does not depend on the others of its batch.
    --historical_averaging w adds to the losses of D and of G the squared distance of
    their weights from the mean of all their past values, times w (section 3.3).

What to expect
    validation.csv has the share of test images that the averaged D names wrong, once an
    epoch. The images of feature matching are worse than those of other GANs, and
    better for the classifier.

Differences from the authors' code (--paper undoes the first)
    * fewer updates, and a faster average of D for that
    * always: D and G see the same unlabelled images in a step
    * always: batch norm in G has a gain
    * always: historical averaging is not in their code; the mean is that of all steps
    * always: minibatch discrimination is the paper's; their code also scales its
      distances and shifts its sums, by parameters that are fitted to the first batch
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_digits, load_images, whole_batch

import argparse
import math
import re

import jittor as jt
import numpy as np

# jittor.nn on all CPU cores (`from jittor import nn` works too), and what Jittor lacks
from jittor_fast import add_noise, nn, weight_norm

# The authors' code (github.com/openai/improved-gan, mnist_svhn_cifar10/
# train_mnist_feature_matching.py).
PAPER = {
    "n_epochs": 300,
    "batch_size": 100,
    "lr": 0.003,
    "b1": 0.5,
    "b2": 0.999,
    "n_labels": 100,
    "arch": "mlp",
    "img_size": 28,
    "channels": 1,
    "latent_dim": 100,
    "ema_decay": 0.9999,
    "unlabeled_weight": 1.0,
    "loss_G": "feature_matching",
}
N_TEST = 500  # bundled digits that are kept for tests
N_FIRST = 500  # images by which D's first weights are scaled
N_REFERENCE = 64  # noise of the fixed batch of virtual batch norm
# The authors' Adam divides by sqrt(v + 1e-8), whose root is at least 1e-4. Feature
# matching has such small gradients that this slows G down.
ADAM_EPS = 1e-4


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=200, batch_size=100, lr=0.003)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()
    add_architecture(parser)
    parser.add_argument(
        "--unlabeled_weight", type=float, default=1.0, help="weight of loss_unl (0: labels alone)"
    )
    parser.add_argument(
        "--loss_G",
        choices=("feature_matching", "adversarial"),
        default="feature_matching",
        help="loss of G",
    )
    parser.add_argument(
        "--label_smoothing",
        type=float,
        default=0.0,
        below=1,
        help="by how much D's target for real images is below 1",
    )
    parser.add_argument(
        "--historical_averaging",
        type=float,
        default=0.0,
        help="weight of the distance of all weights from their past mean",
    )
    args = parser.parse(argv)
    if 0 < args.n_labels < args.n_classes:
        parser.error(
            f"--n_labels {args.n_labels}: each of the --n_classes {args.n_classes} needs one "
            "at least"
        )
    if args.arch == "conv" and args.img_size not in (16, 32, 64, 128):
        parser.error(f"--img_size {args.img_size}: --arch conv takes 16, 32, 64 or 128")
    return args


def add_architecture(parser):
    """Flags that are stored with the weights; --resume takes them from there."""
    parser.add_architecture(
        "--n_labels", type=int, default=100, at_least=0, at_most=100000, help="labels that are used"
    )
    parser.add_architecture(
        "--n_classes", type=int, default=10, at_least=2, at_most=256, help="number of labels"
    )
    parser.add_architecture(
        "--arch", choices=("mlp", "conv"), default="mlp", help="dense layers, or DCGAN's"
    )
    parser.add_architecture("--img_size", type=int, default=28, help="side of the images")
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--width", type=int, default=32, at_most=1024, help="channels next to the image, with conv"
    )
    parser.add_architecture(
        "--input_noise", type=float, default=0.3, help="deviation of D's input noise, with mlp"
    )
    parser.add_architecture(
        "--hidden_noise", type=float, default=0.5, help="the same before D's other layers"
    )
    parser.add_architecture(
        "--minibatch_discrimination",
        type=kernels,
        metavar="B,C",
        help="let D compare the images of a batch, by B kernels of C dimensions, such as 100,5",
    )
    parser.add_architecture(
        "--virtual_batch_norm", action="store_true", help="G's norms refer to one fixed batch"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of D (0 disables it)"
    )


def kernels(text):
    """An argparse type: checks that the text is "B,C" and returns it unchanged."""
    if not re.fullmatch("[1-9][0-9]{0,2},[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError(
            f"must be B,C, two whole numbers from 1 to 999 such as 100,5, got {text!r}"
        )
    return text


# ---- layers ----


class Noise(nn.Module):
    """Adds Gaussian noise of a standard deviation in training."""

    def __init__(self, deviation):
        super().__init__()
        self.deviation = deviation

    def execute(self, x):
        if self.deviation == 0 or not self.is_training():
            return x
        return add_noise(x, self.deviation)


class Softplus(nn.Module):
    def execute(self, x):
        return nn.softplus(x)


class WeightNormLinear(nn.Module):
    """x (B, n_in)  ->  (B, n_out), by weights whose lengths are parameters.

    The weights of an output are scale * v / |v| (Salimans and Kingma 2016,
    https://arxiv.org/abs/1602.07868). The scale is fixed, by `fit`; with `trains_scale`
    a trained factor is added.
    """

    def __init__(self, n_in, n_out, trains_scale=False):
        super().__init__()
        self.weight = 0.1 * jt.randn(n_out, n_in)
        self.bias = jt.zeros(n_out)
        self.fixed_scale = jt.ones(n_out).stop_grad()
        self.scale = jt.ones(n_out) if trains_scale else None

    def execute(self, x):
        scale = self.fixed_scale if self.scale is None else self.fixed_scale * self.scale
        return nn.linear(x, weight_norm(self.weight, scale), self.bias)

    def fit(self, x):
        """Scales and shifts the outputs for x to the mean 0 and the variance 1."""
        outputs = self(x).detach()  # the fitted values are no function of the weights
        mean = outputs.mean(0)
        deviation = jt.sqrt(((outputs - mean) ** 2).mean(0))
        self.fixed_scale.assign(self.fixed_scale / deviation)
        self.bias.assign((self.bias.detach() - mean) / deviation)


class MinibatchDiscrimination(nn.Module):
    """Features (N, A)  ->  (N, A + B), with each image's nearness to the others.

    With a weight T of shape (A, B, C) and M = features T, the added columns are, summed
    over the whole batch,

        o(i)_b = sum over j of exp(-|M_ib - M_jb|_1)
    """

    def __init__(self, n_features, n_kernels, kernel_dim):
        super().__init__()
        self.weight = 0.05 * jt.randn(n_features, n_kernels, kernel_dim)

    def execute(self, features):
        n_features, n_kernels, kernel_dim = self.weight.shape
        products = jt.matmul(features, self.weight.reshape(n_features, -1))
        M = products.reshape(-1, 1, n_kernels, kernel_dim)  # (N, 1, B, C)
        others = M
        if self.is_training():  # with the images of the other processes, if there are any
            others = whole_batch(M)
        others = others.transpose(1, 0, 2, 3)  # (1, N, B, C)
        distances = jt.abs(M - others).sum(3)  # (N, N, B)
        return jt.concat([features, jt.exp(-distances).sum(1)], dim=1)


class VirtualBatchNorm(nn.Module):
    """x (R + B, C, ...)  ->  the same shape.

    The first R = N_REFERENCE images are those of the fixed batch, by whose statistics
    they are normalized. Each other image is normalized by the statistics of these R
    images and of itself.
    """

    def __init__(self, c):
        super().__init__()
        self.weight = jt.ones(c)
        self.bias = jt.zeros(c)

    def execute(self, x):
        shape = [1, -1] + [1] * (x.ndim - 2)
        places = list(range(2, x.ndim))
        first = x
        second = x**2
        if places:  # the moments (R + B, C) of each image
            first = x.mean(places)
            second = second.mean(places)
        n = N_REFERENCE
        reference_first = first[:n].mean(0, keepdims=True)
        reference_second = second[:n].mean(0, keepdims=True)
        own_first = (n * reference_first + first[n:]) / (n + 1)
        own_second = (n * reference_second + second[n:]) / (n + 1)
        mean = jt.concat([reference_first.expand(n, -1), own_first], dim=0)
        mean_square = jt.concat([reference_second.expand(n, -1), own_second], dim=0)
        deviation = jt.sqrt(mean_square - mean**2 + 1e-5)
        all_shape = list(mean.shape) + [1] * len(places)
        normalized = (x - mean.reshape(all_shape)) / deviation.reshape(all_shape)
        return normalized * self.weight.reshape(shape) + self.bias.reshape(shape)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size), both in [-1, 1].

    `reference` is the noise of the fixed batch.
    """

    def __init__(self, arch, latent_dim, img_size, channels, width, virtual_batch_norm):
        super().__init__()
        self.shape = (channels, img_size, img_size)
        norm = VirtualBatchNorm if virtual_batch_norm else nn.BatchNorm
        if arch == "mlp":
            layers = dense_generator(latent_dim, math.prod(self.shape), norm)
        else:
            layers = convolutional_generator(latent_dim, img_size, channels, width, norm)
        self.layers = nn.Sequential(*layers)
        self.tanh = nn.Tanh()
        self.is_convolutional = arch == "conv"
        self.reference = None
        if virtual_batch_norm:
            self.reference = (2 * jt.rand(N_REFERENCE, latent_dim) - 1).stop_grad()

    def execute(self, z):
        if self.reference is not None:
            z = jt.concat([self.reference, z], dim=0)
        if self.is_convolutional:
            images = self.tanh(self.layers(z.reshape(len(z), -1, 1, 1)))
        else:  # z in [0, 1] and a sigmoid, as in the authors' code
            images = self.tanh(self.layers((z + 1) / 2) / 2)
        if self.reference is not None:
            images = images[N_REFERENCE:]
        return images.reshape(-1, *self.shape)


def dense_generator(latent_dim, n_pixels, norm):
    """Layers (B, latent_dim)  ->  (B, n_pixels)."""
    return [
        nn.Linear(latent_dim, 500, bias=False),
        norm(500),
        Softplus(),
        nn.Linear(500, 500, bias=False),
        norm(500),
        Softplus(),
        WeightNormLinear(500, n_pixels, trains_scale=True),
    ]


def convolutional_generator(latent_dim, img_size, channels, width, norm):
    """Layers (B, latent_dim, 1, 1)  ->  (B, channels, img_size, img_size): DCGAN's."""
    n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
    c = width * 2**n_blocks
    layers = [  # -> (B, c, 4, 4)
        nn.ConvTranspose(latent_dim, c, 4, bias=False),
        norm(c),
        nn.ReLU(),
    ]
    for _ in range(n_blocks):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
        layers += [
            nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
            norm(c // 2),
            nn.ReLU(),
        ]
        c //= 2
    layers += [nn.ConvTranspose(c, channels, 4, stride=2, padding=1)]
    return layers


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  logits (B, n_outputs).

    `features` (B, n) are those of the last hidden layer.
    """

    def __init__(self, arch, img_size, channels, width, noise, n_outputs, n_kernels, kernel_dim):
        super().__init__()
        if arch == "mlp":
            layers, n = dense_features(channels * img_size**2, *noise)
        else:
            layers, n = convolutional_features(img_size, channels, width)
        self.layers = nn.Sequential(*layers)
        layers = []
        if n_kernels > 0:
            layers += [MinibatchDiscrimination(n, n_kernels, kernel_dim)]
        if arch == "mlp":
            layers += [Noise(noise[1])]
            layers += [WeightNormLinear(n + n_kernels, n_outputs, trains_scale=True)]
        else:
            layers += [nn.Linear(n + n_kernels, n_outputs)]
        self.last = nn.Sequential(*layers)
        self.is_convolutional = arch == "conv"

    def features(self, images):
        if not self.is_convolutional:
            images = (images + 1) / 2  # pixels in [0, 1], as in the authors' code
        return self.layers(images)

    def execute(self, images):
        return self.last(self.features(images))

    def fit(self, images):
        """Scales the first weights of dense layers for images (N, C, H, W)."""
        h = (images + 1) / 2
        for network in (self.layers, self.last):
            for layer in network:
                if isinstance(layer, WeightNormLinear):
                    layer.fit(h)
                h = layer(h)


def dense_features(n_pixels, input_noise, hidden_noise):
    """Layers (B, C, H, W)  ->  (B, 250), and that number."""
    layers = [nn.Flatten(), Noise(input_noise)]
    n = n_pixels
    for i, n_out in enumerate((1000, 500, 250, 250, 250)):
        if i > 0:
            layers += [Noise(hidden_noise)]
        layers += [WeightNormLinear(n, n_out), nn.ReLU()]
        n = n_out
    return layers, n


def convolutional_features(img_size, channels, width):
    """Layers (B, C, H, W)  ->  (B, n), as DCGAN's, and n."""
    c = width
    layers = [
        nn.Conv(channels, c, 4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2),
    ]
    for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
        layers += [
            nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(2 * c),
            nn.LeakyReLU(0.2),
        ]
        c *= 2
    layers += [nn.Flatten()]
    return layers, 16 * c


def initialize(network, arch):
    """Weights of plain layers from N(0, 0.05^2); of DCGAN's networks, N(0, 0.02^2)."""
    deviation = 0.05 if arch == "mlp" else 0.02
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=deviation)


def build(args):
    n_kernels = 0
    kernel_dim = 0
    if args.minibatch_discrimination is not None:  # the text "B,C"
        B, C = args.minibatch_discrimination.split(",")
        n_kernels = int(B)
        kernel_dim = int(C)
    generator = Generator(
        args.arch,
        args.latent_dim,
        args.img_size,
        args.channels,
        args.width,
        args.virtual_batch_norm,
    )
    discriminator = Discriminator(
        args.arch,
        args.img_size,
        args.channels,
        args.width,
        (args.input_noise, args.hidden_noise),
        args.n_classes if args.n_labels > 0 else 1,
        n_kernels,
        kernel_dim,
    )
    for network in (generator, discriminator):
        initialize(network, args.arch)
        network.train()
    return generator, discriminator


# ---- losses and one training step ----


def log_Z(logits):
    """log Z (B,) of logits (B, K), without overflow. D(x) = s(log Z)."""
    largest = logits.max(1, keepdims=True)
    return jt.log(jt.exp(logits - largest).sum(1)) + largest.reshape(-1)


def unlabeled_loss(real_logits, fake_logits, label_smoothing):
    """loss_unl of logits (B, K).

    With l = log Z, -log D = softplus(-l) and -log(1 - D) = softplus(l). The target t of
    a real image gives t softplus(-l) + (1 - t) softplus(l) = softplus(l) - t l.
    """
    real = log_Z(real_logits)
    fake = log_Z(fake_logits)
    loss_real = (nn.softplus(real) - (1 - label_smoothing) * real).mean()
    return 0.5 * loss_real + 0.5 * nn.softplus(fake).mean()


def feature_matching(real_features, fake_features):
    """loss_G of features (B, n)."""
    common.check_same_shape(real_features, fake_features)
    # whole_batch gives the features themselves, unless several processes share the
    # batch.
    real_mean = whole_batch(real_features).mean(0)
    fake_mean = whole_batch(fake_features).mean(0)
    return ((real_mean - fake_mean) ** 2).mean()


def adversarial_loss(fake_logits):
    """-E[log D] of logits (B, K)."""
    return nn.softplus(-log_Z(fake_logits)).mean()


def distance_from(means, network):
    """The squared distance of a network's weights from {name: mean}."""
    distance = 0
    for name, parameter in network.named_parameters():
        if name in means:
            distance += ((parameter - means[name]) ** 2).sum()
    return distance


def train_step(networks, optimizers, real, labeled, z, means, *, settings):
    """Updates D, then G.

    Args:
        networks, optimizers: (of G, of D).
        real: images (B, C, H, W) in [-1, 1], whose labels are not used.
        labeled: images (N, C, H, W) and their labels (N,); None without any.
        z: noise (B, latent_dim) of D's update, and that of G's.
        means: ({name: past mean of a weight of G}, the same of D), or None if they have
            no weight.
        settings: {"unlabeled_weight", "label_smoothing", "history_weight": numbers,
            "matches_features": whether G matches features; otherwise its loss is
            adversarial}.

    Returns:
        {"loss_unl", "loss_G"}, and "loss_lab" with labels, as Jittor scalars; the
        distance from the means is not in them.
    """
    losses = discriminator_step(networks, optimizers, real, labeled, z[0], means, settings)
    losses["loss_G"] = generator_step(networks, optimizers, real, z[1], means, settings)
    return losses


def discriminator_step(networks, optimizers, real, labeled, z, means, settings):
    """Classes of labelled images, and real images against generated ones."""
    generator, discriminator = networks
    _, optimizer_D = optimizers
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z)
    real_logits = discriminator(real)
    loss_unl = unlabeled_loss(real_logits, discriminator(fake), settings["label_smoothing"])
    losses = {"loss_unl": loss_unl}
    loss_D = settings["unlabeled_weight"] * loss_unl
    if labeled is not None:
        images, labels = labeled
        losses["loss_lab"] = nn.cross_entropy_loss(discriminator(images), labels)
        loss_D = losses["loss_lab"] + loss_D
    if settings["history_weight"] > 0:
        loss_D = loss_D + settings["history_weight"] * distance_from(means[1], discriminator)
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates
    return losses


def generator_step(networks, optimizers, real, z, means, settings):
    """Images with the features of real ones, or images that D takes for real."""
    generator, discriminator = networks
    optimizer_G, _ = optimizers
    fake = generator(z)
    if settings["matches_features"]:
        with jt.no_grad():
            real_features = discriminator.features(real)
        loss_G = feature_matching(real_features, discriminator.features(fake))
    else:
        loss_G = adversarial_loss(discriminator(fake))
    objective = loss_G
    if settings["history_weight"] > 0:
        objective = loss_G + settings["history_weight"] * distance_from(means[0], generator)
    optimizer_G.step(objective)
    return loss_G


class History:
    """The means of all past values of a network's weights.

    Attributes:
        means: {name: Jittor variable}.
    """

    def __init__(self, network):
        self.network = network
        self.count = 0
        self.means = {}
        for name, parameter in network.named_parameters():
            if not parameter.is_stop_grad():
                self.means[name] = jt.array(parameter.numpy()).stop_grad()

    def update(self):
        """Takes the present weights in; call it after each update of the network."""
        self.count += 1
        for name, parameter in self.network.named_parameters():
            if name in self.means:
                mean = self.means[name]
                mean.update(mean + (parameter.detach() - mean) / self.count)

    def state_dict(self):
        state = {name: mean.numpy() for name, mean in self.means.items()}
        return {"count": self.count, **state}

    def load_state_dict(self, state):
        self.count = int(state["count"])
        for name, mean in self.means.items():
            mean.assign(jt.array(state[name]))


# ---- training ----


def load(args, split):
    """Labelled images, or with --n_labels 0 any images."""
    if args.n_labels > 0:
        return load_digits(
            args.data_dir, args.img_size, args.channels, args.n_classes, split=split, n_test=N_TEST
        )
    return load_images(args.data_dir, args.img_size, args.channels, split=split, n_test=N_TEST)


def choose_labeled(data, args):
    """The images (n_labels, C, S, S) whose labels are used, and those; or None.

    There are equally many of each class, chosen by --seed. Where this cannot be, the
    first classes have one more.
    """
    if args.n_labels == 0:
        return None
    rng = np.random.default_rng([args.seed, 5])
    chosen = []
    for label in range(args.n_classes):
        n = args.n_labels // args.n_classes
        if label < args.n_labels % args.n_classes:
            n += 1
        indices = np.flatnonzero(data.labels == label)
        if len(indices) < n:
            raise common.UserError(
                f"--n_labels {args.n_labels} takes {n} of each class, and class {label} has "
                f"{len(indices)} images"
            )
        chosen.append(rng.permutation(indices)[:n])
    images, labels = data.batch(np.concatenate(chosen))
    return jt.array(images), jt.array(labels)


def train(run, args):
    data = load(args, "train")
    labeled = choose_labeled(data, args)
    test = load(args, "test") if labeled is not None else None
    networks = build(args)
    generator, discriminator = networks
    if args.arch == "mlp":
        first = np.arange(min(N_FIRST, len(data)))
        discriminator.fit(jt.array(data.batch(first)[0]))
    averaged = common.EMA(discriminator, args.ema_decay)
    adam = {"lr": args.lr, "betas": (args.b1, args.b2), "eps": ADAM_EPS}
    optimizer_G = nn.Adam(generator.parameters(), **adam)
    optimizer_D = nn.Adam(discriminator.parameters(), **adam)
    optimizers = (optimizer_G, optimizer_D)
    histories = []
    if args.historical_averaging > 0:
        histories = [History(generator), History(discriminator)]

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged_D=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        **{f"history_{i}": history for i, history in enumerate(histories)},
    )
    run.restore()  # from --resume or --init_from, if given

    settings = loss_settings(args)
    fixed_z = run.fixed_noise("uniform", 100, args.latent_dim)
    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            z = [run.noise("uniform", args.batch_size, args.latent_dim) for _ in range(2)]
            means = [history.means for history in histories] or None
            some = labeled_batch(run, args, labeled)
            losses = train_step(networks, optimizers, real, some, z, means, settings=settings)
            averaged.update()
            for history in histories:
                history.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(generator, fixed_z))
        if test is not None:
            run.save_validation(epoch, error=test_error(averaged.module, test))
    write_samples(run, generator, args)


def loss_settings(args):
    """The settings of `train_step`."""
    return {
        "unlabeled_weight": args.unlabeled_weight,
        "label_smoothing": args.label_smoothing,
        "history_weight": args.historical_averaging,
        "matches_features": args.loss_G == "feature_matching",
    }


def labeled_batch(run, args, labeled):
    """As many labelled images as --batch_size, and their labels; or None."""
    if labeled is None:
        return None
    images, labels = labeled
    n = len(images)
    if n > args.batch_size:
        chosen = run.integers(0, n, args.batch_size)
    else:  # all of them, again and again until the batch is full
        chosen = run.cycle(n, args.batch_size)
    return images[chosen], labels[chosen]


def test_error(discriminator, test):
    """The share of test images that D names wrong."""
    images, labels = test.batch(np.arange(len(test)))
    return float(np.mean(common.predict(discriminator, images).argmax(1) != labels))


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
