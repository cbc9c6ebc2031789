"""BigGAN: images of a class that is asked for.

Brock, Donahue and Simonyan 2019, https://arxiv.org/abs/1809.11096

    python biggan.py                                # digits, 13 minutes
    python biggan.py --data_dir PHOTOS --img_size 64 --channels 3 --n_classes 5
    python biggan.py --resume results/biggan --sample_only --truncation 0.5
    python tools/explore.py results/biggan --walk truncation
    python tools/explore.py results/biggan --walk classes

Method
    A generator G draws an image from noise z ~ N(0, I) and a class y. A discriminator D
    gives an image x and its class a score, which is high for real pairs. Both minimize
    the hinge loss (Lim 2017, https://arxiv.org/abs/1705.02894), D twice as often:

        L_D = E[max(0, 1 - D(x, y))] + E[max(0, 1 + D(G(z, y), y))]
        L_G = -E[D(G(z, y), y)]

    G consists of residual blocks. z is cut into pieces: the first one becomes an image
    of 4 x 4 pixels, and each block gets another one. A block's condition c is its piece
    of z beside e(y), an embedding of the class that all blocks share. It acts through
    batch norm, whose gain and bias are linear functions of it (section 3):

        (1 + W_g c) * (x - mean) / deviation + W_b c

    D's score is psi(h) + <v(y), h>, where h are features of the image, summed over all
    pixels, psi is linear, and v(y) is another embedding of the class (Miyato and Koyama
    2018, https://arxiv.org/abs/1802.05637). At one size, both networks have a layer
    that relates all pixels to each other (self-attention, Zhang 2019,
    https://arxiv.org/abs/1805.08318). Each weight is divided by its largest singular
    value (spectral norm, Miyato 2018, https://arxiv.org/abs/1802.05957), and starts as
    an orthogonal matrix.

    Samples can be drawn from z without extreme values: each of them whose absolute
    value is above a threshold is drawn again (truncation, section 3.1). The lower
    --truncation, the better the images, and the more alike. --ortho_weight keeps G
    smooth enough for that: with the rows of a weight W as the filters, it penalizes
    their products, but not their lengths,

        R(W) = sum over i != j of (W W^T)_ij^2

What to expect
    A classifier reads 97.2 % of the images as the digit that was asked for after 10 of
    the 40 epochs, and 99.7 % at the end, where the FID in a classifier's features is
    1.41 (docs/scripts/biggan.md). A loss_D of 2 means that D guesses; near 0, it has
    won. loss_G has no level that says how good the images are.

Differences from the paper (--paper undoes the first)
    * 32 x 32 digits, narrow networks, batches of 32, higher learning rates, a shorter
      average of G, and no penalty R
    * always: the average of G begins with the first update, where the authors' scripts
      wait for 20,000
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.augment import Augment
from common.data.classes import load_classes

import math

import jittor as jt
import numpy as np

from jittor_fast import SpectralNorm, attend, modulate, nn  # jittor.nn on all CPU cores, and more

# The model for 128 x 128 ImageNet with a width of 96. Sizes are those of the authors'
# code (github.com/ajbrock/BigGAN-PyTorch, scripts/launch_BigGAN_bs256x8.sh), whose
# utils.py has the paper's learning rates, updates of D, average and weight of R as its
# defaults. The length, 250,000 updates of G, is that of github.com/google/compare_gan
# (example_configs/biggan_imagenet128.gin).
PAPER = {
    "n_images": 2 * 250000 * 2048,
    "batch_size": 2048,
    "lr": 0.00005,
    "lr_ratio": 4.0,
    "b1": 0.0,
    "b2": 0.999,
    "n_critic": 2,
    "img_size": 128,
    "channels": 3,
    "n_classes": 1000,
    "width": 96,
    "latent_dim": 120,
    "shared_dim": 128,
    "attention": 64,
    "ema_decay": 0.9999,
    "ortho_weight": 0.0001,
}
# The channels of G at 4 x 4 pixels and after each block, in multiples of the width
# (BigGAN.py of the authors' code, G_arch and D_arch).
G_CHANNELS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
# Those of D after each block.
D_CHANNELS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
SMALLEST = {32: 8, 64: 4, 128: 4, 256: 4}  # the size at which D ends
# A 3 x 3 filter on an image that is doubled, or whose result is halved, is a 4 x 4
# filter with stride 2. Along each axis, its weights are those of the 3 x 3 filter times
# these matrices.
DOUBLING = ((0, 0, 1, 1), (0, 1, 1, 0), (1, 1, 0, 0))
HALVING = ((0.5, 0.5, 0, 0), (0, 0.5, 0.5, 0), (0, 0, 0.5, 0.5))


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=40, batch_size=32, lr=0.0005)
    parser.add_adam(b1=0.0, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=tuple(G_CHANNELS), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--n_classes", type=int, default=10, help="number of classes")
    parser.add_architecture(
        "--width",
        type=int,
        default=8,
        at_least=2,
        at_most=1024,
        help="channels next to the image; a quarter of all layers' at 32 x 32 pixels",
    )
    parser.add_architecture("--latent_dim", type=int, default=80, help="length of z")
    parser.add_architecture(
        "--shared_dim", type=int, default=128, help="length of the classes' embedding in G"
    )
    parser.add_architecture(
        "--attention",
        type=int,
        default=16,
        choices=(0, 8, 16, 32, 64, 128),
        help="size of the image at which there is self-attention (0: none)",
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--lr_ratio", type=float, default=2.0, above=0, help="D's learning rate over G's, --lr"
    )
    parser.add_argument("--n_critic", type=int, default=2, help="updates of D for each update of G")
    parser.add_argument(
        "--ortho_weight", type=float, default=0.0, help="weight of the penalty R (0 disables it)"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="mirror half of the images in a folder"
    )

    # Samples
    parser.add_argument(
        "--truncation",
        type=float,
        at_least=0.01,
        stored=False,
        help="largest absolute value in the samples' z, such as 0.5; the lower, the better and the "
        "more alike (default: none)",
    )
    args = parser.parse(argv)
    parser.multiple_of(args, "latent_dim", len(G_CHANNELS[args.img_size]), at_least=1)
    if args.attention > args.img_size // 2:  # D never has a larger image behind a block
        parser.error(f"--attention {args.attention}: at most half of --img_size {args.img_size}")
    return args


# ---- layers that both networks have ----


class DoublingConv(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, 2 H, 2 W).

    The image is doubled by repeating its pixels, then filtered by 3 x 3. Several of the
    nine weights meet copies of the same pixel. Added up beforehand, they are a
    transposed convolution with 4/9 of the multiplications.
    """

    def __init__(self, c_in, c_out):
        super().__init__()
        self.weight = jt.zeros((c_out, c_in, 3, 3))
        self.bias = jt.zeros(c_out)

    def execute(self, x):
        weight = resized(self.weight, DOUBLING).transpose(1, 0, 2, 3)
        return nn.conv_transpose(x, weight, self.bias, stride=2, padding=1)


class HalvingConv(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H / 2, W / 2).

    A filter of 3 x 3, then the mean of four pixels; again as one convolution.
    """

    def __init__(self, c_in, c_out):
        super().__init__()
        self.weight = jt.zeros((c_out, c_in, 3, 3))
        self.bias = jt.zeros(c_out)

    def execute(self, x):
        return nn.conv2d(x, resized(self.weight, HALVING), self.bias, stride=2, padding=1)


def resized(weight, matrix):
    """Weights (c_out, c_in, 3, 3) as (c_out, c_in, 4, 4), by a matrix for each axis."""
    both_axes = jt.array(np.float32(np.kron(matrix, matrix)))  # (9, 16)
    return jt.matmul(weight.reshape(-1, 9), both_axes).reshape(*weight.shape[:2], 4, 4)


class Attention(nn.Module):
    """x (B, C, H, W)  ->  (B, C, H, W), which relates all pixels to each other.

    For each pixel i, weights beta_ij of all places j, each of 2 x 2 pixels, say where
    values g_j are taken from:

        y_i = x_i + gamma W_o sum_j beta_ij g_j,    beta_i = softmax_j(theta_i . phi_j)

    theta, phi and g are 1 x 1 convolutions of x, of which phi and g are pooled. gamma
    is trained, and starts at 0.
    """

    def __init__(self, c):
        super().__init__()
        depth = max(c // 8, 1)
        self.theta = SpectralNorm(nn.Conv(c, depth, 1, bias=False))
        self.phi = SpectralNorm(nn.Conv(c, depth, 1, bias=False))
        self.g = SpectralNorm(nn.Conv(c, c // 2, 1, bias=False))
        self.out = SpectralNorm(nn.Conv(c // 2, c, 1, bias=False))
        self.gamma = jt.zeros(1)

    def execute(self, x):
        n, c, height, width = x.shape
        theta = self.theta(x).flatten(2)  # (B, C / 8, H W)
        phi = nn.max_pool2d(self.phi(x), 2).flatten(2)  # (B, C / 8, H W / 4)
        g = nn.max_pool2d(self.g(x), 2).flatten(2)  # (B, C / 2, H W / 4)
        values = attend(theta, phi, g)  # (B, C / 2, H W)
        return x + self.gamma * self.out(values.reshape(n, c // 2, height, width))


# ---- generator ----


class ConditionalBatchNorm(nn.Module):
    """x (B, C, H, W) and conditions (B, n_conditions)  ->  (B, C, H, W)."""

    def __init__(self, n_conditions, c):
        super().__init__()
        self.norm = nn.BatchNorm(c, affine=False)
        self.gain = SpectralNorm(nn.Linear(n_conditions, c, bias=False))
        self.bias = SpectralNorm(nn.Linear(n_conditions, c, bias=False))

    def execute(self, x, conditions):
        gain = 1 + self.gain(conditions)  # (B, C)
        bias = self.bias(conditions)
        return modulate(self.norm(x), gain, bias)


class GeneratorBlock(nn.Module):
    """x (B, c_in, H, W) and conditions (B, n_conditions)  ->  (B, c_out, 2 H, 2 W)."""

    def __init__(self, n_conditions, c_in, c_out):
        super().__init__()
        self.norm_1 = ConditionalBatchNorm(n_conditions, c_in)
        self.conv_1 = SpectralNorm(DoublingConv(c_in, c_out))
        self.norm_2 = ConditionalBatchNorm(n_conditions, c_out)
        self.conv_2 = SpectralNorm(nn.Conv(c_out, c_out, 3, padding=1))
        self.skip = SpectralNorm(nn.Conv(c_in, c_out, 1))
        self.activation = nn.ReLU()
        self.upsample = nn.Upsample(2)

    def execute(self, x, conditions):
        h = self.conv_1(self.activation(self.norm_1(x, conditions)))
        h = self.conv_2(self.activation(self.norm_2(h, conditions)))
        # 1 x 1 filters may come before the doubling: then they have fewer pixels.
        return h + self.upsample(self.skip(x))


class Generator(nn.Module):
    """z (B, latent_dim), labels (B,)  ->  images (B, channels, img_size, img_size).

    The images are in [-1, 1].
    """

    def __init__(self, latent_dim, n_classes, shared_dim, img_size, channels, width, attention):
        super().__init__()
        c, *widths = (width * factor for factor in G_CHANNELS[img_size])
        self.n_pieces = len(widths) + 1
        piece = latent_dim // self.n_pieces
        self.embedding = nn.Embedding(n_classes, shared_dim)
        self.first = SpectralNorm(nn.Linear(piece, c * 4 * 4))
        blocks = []
        self.attention_after = None  # the index of a block
        size = 4
        for i, c_out in enumerate(widths):  # (B, c, size, size) -> (B, c_out, 2 size, 2 size)
            blocks += [GeneratorBlock(shared_dim + piece, c, c_out)]
            c = c_out
            size *= 2
            if size == attention:
                self.attention_after = i
                self.attention = Attention(c)
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Sequential(
            nn.BatchNorm(c),
            nn.ReLU(),
            SpectralNorm(nn.Conv(c, channels, 3, padding=1)),
            nn.Tanh(),
        )

    def execute(self, z, labels):
        return self.draw(z, self.embedding(labels))

    def draw(self, z, e):
        """Images of noise (B, latent_dim) and of embedded classes e (B, shared_dim)."""
        pieces = jt.chunk(z, self.n_pieces, dim=1)
        x = self.first(pieces[0]).reshape(len(z), -1, 4, 4)
        for i, block in enumerate(self.blocks):
            x = block(x, jt.concat([e, pieces[i + 1]], dim=1))
            if i == self.attention_after:
                x = self.attention(x)
        return self.last(x)


# ---- discriminator ----


class DiscriminatorBlock(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H, W), or half of that size if `down`."""

    def __init__(self, c_in, c_out, down, is_first):
        super().__init__()
        self.conv_1 = SpectralNorm(nn.Conv(c_in, c_out, 3, padding=1))
        if down:
            self.conv_2 = SpectralNorm(HalvingConv(c_out, c_out))
        else:
            self.conv_2 = SpectralNorm(nn.Conv(c_out, c_out, 3, padding=1))
        self.skip = None
        if down or c_in != c_out:
            self.skip = SpectralNorm(nn.Conv(c_in, c_out, 1))
        self.activation = nn.ReLU()
        self.down = down
        self.is_first = is_first

    def execute(self, x):
        h = x if self.is_first else self.activation(x)  # images have no activation
        h = self.conv_2(self.activation(self.conv_1(h)))
        if self.down:
            x = nn.avg_pool2d(x, 2)
        if self.skip is not None:
            x = self.skip(x)
        return h + x


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size), labels (B,)  ->  scores (B,)."""

    def __init__(self, n_classes, img_size, channels, width, attention):
        super().__init__()
        c = channels
        layers = []
        size = img_size
        for factor in D_CHANNELS[img_size]:  # (B, c_in, size, size) -> (B, c, ...)
            c_in = c
            c = width * factor
            down = size > SMALLEST[img_size]
            layers += [DiscriminatorBlock(c_in, c, down, is_first=size == img_size)]
            if down:
                size //= 2
                if size == attention:
                    layers += [Attention(c)]
        layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.psi = SpectralNorm(nn.Linear(c, 1))
        self.embedding = SpectralNorm(nn.Embedding(n_classes, c))

    def execute(self, images, labels):
        h = self.layers(images).sum((2, 3))
        projection = (self.embedding(labels) * h).sum(dim=1)
        return self.psi(h).reshape(-1) + projection


# ---- initial weights ----


def orthogonal(shape):
    """Random weights (n, ...) as numpy, whose rows or columns are orthonormal."""
    matrix = jt.randn(shape[0], math.prod(shape[1:])).numpy()
    is_wide = matrix.shape[0] < matrix.shape[1]
    Q, R = np.linalg.qr(matrix.T if is_wide else matrix)
    Q = Q * np.sign(np.diag(R))  # otherwise not all directions are equally likely
    return np.float32(Q.T if is_wide else Q).reshape(shape)


def initialize(network):
    """Orthogonal weights, and biases of 0."""
    for layer in network.modules():
        if not isinstance(layer, (nn.Conv, nn.Linear, nn.Embedding, DoublingConv, HalvingConv)):
            continue
        layer.weight.assign(jt.array(orthogonal(layer.weight.shape)))
        if getattr(layer, "bias", None) is not None:
            nn.init.zero_(layer.bias)


def build(args):
    generator = Generator(
        args.latent_dim,
        args.n_classes,
        args.shared_dim,
        args.img_size,
        args.channels,
        args.width,
        args.attention,
    )
    discriminator = Discriminator(
        args.n_classes, args.img_size, args.channels, args.width, args.attention
    )
    for network in (generator, discriminator):
        if not args.resume:  # otherwise the weights come from the checkpoint
            initialize(network)
        network.train()
    return generator, discriminator


# ---- losses and one training step ----


def discriminator_loss(real_scores, fake_scores):
    """L_D of scores (B,)."""
    common.check_same_shape(real_scores, fake_scores)
    return jt.maximum(1 - real_scores, 0).mean() + jt.maximum(1 + fake_scores, 0).mean()


def generator_loss(fake_scores):
    """L_G of scores (B,)."""
    return -fake_scores.mean()


def non_orthogonality(generator):
    """R, summed over all weights but those of the classes' embedding."""
    penalty = 0
    for name, weight in generator.named_parameters():
        if not name.endswith("weight") or weight.ndim == 1 or name == "embedding.weight":
            continue
        rows = weight.reshape(weight.shape[0], -1)
        products = jt.matmul(rows, rows.transpose(1, 0))
        others = 1 - jt.array(np.eye(len(rows), dtype=np.float32))
        penalty += ((products * others) ** 2).sum()
    return penalty


def train_step(networks, optimizers, real, labels, inputs_D, inputs_G=None, *, ortho_weight):
    """Updates D, then G if `inputs_G` is given.

    Args:
        networks, optimizers: (of G, of D).
        real, labels: images (B, C, H, W) in [-1, 1] and their classes (B,).
        inputs_D, inputs_G: noise (B, latent_dim) and classes (B,) of the images that
            are drawn for each update.

    Returns:
        {"loss_D"} as a Jittor scalar; where G was updated also "loss_G", and
        "non_orthogonality", which is not weighted, if its weight is not 0.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    n = len(real)

    # D: real images against generated ones
    z, fake_labels = inputs_D
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z, fake_labels)
    images = jt.concat([real, fake], dim=0)
    scores = discriminator(images, jt.concat([labels, fake_labels], dim=0))
    loss_D = discriminator_loss(scores[:n], scores[n:])
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates
    losses = {"loss_D": loss_D}

    # G: new images, which D should score as real
    if inputs_G is not None:
        z, fake_labels = inputs_G
        loss_G = generator_loss(discriminator(generator(z, fake_labels), fake_labels))
        losses["loss_G"] = loss_G
        if ortho_weight > 0:
            losses["non_orthogonality"] = non_orthogonality(generator)
            loss_G = loss_G + ortho_weight * losses["non_orthogonality"]
        optimizer_G.step(loss_G)
    return losses


# ---- training ----


def train(run, args):
    data = load(args)
    networks = build(args)
    generator, discriminator = networks
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=betas)
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr_ratio * args.lr, betas=betas)
    optimizers = (optimizer_G, optimizer_D)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    def draw_inputs():
        z = run.normal(args.batch_size, args.latent_dim)
        return z, run.integers(0, args.n_classes, args.batch_size)

    grid_labels = labels_of_grid(args)
    grid_z = run.fixed_noise("normal", len(grid_labels), args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, labels in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            inputs_D = draw_inputs()
            inputs_G = draw_inputs() if run.step % args.n_critic == 0 else None
            losses = train_step(
                networks,
                optimizers,
                real,
                labels,
                inputs_D,
                inputs_G,
                ortho_weight=args.ortho_weight,
            )
            if inputs_G is not None:
                averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, grid_z, grid_labels))
    write_samples(run, averaged.module, args)


def load(args):
    flips = Augment(crop=False, flip=args.mirror)
    return load_classes(args.data_dir, args.img_size, args.channels, args.n_classes, augment=flips)


# ---- samples ----


def labels_of_grid(args):
    """The classes (N,) of a picture: ten images in a row of each of the first 20."""
    return np.repeat(np.arange(min(args.n_classes, 20), dtype=np.int32), 10)


def truncated_noise(rng, n, dim, threshold):
    """Noise (n, dim) from N(0, 1); values beyond a threshold are drawn again.

    Args:
        rng: a numpy generator.
        threshold: None keeps all values.
    """
    z = rng.standard_normal((n, dim), dtype=np.float32)
    if threshold is not None:
        while True:
            is_beyond = np.abs(z) > threshold
            if not is_beyond.any():
                break
            z[is_beyond] = rng.standard_normal(is_beyond.sum(), dtype=np.float32)
    return z


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    labels = labels_of_grid(args)
    z = truncated_noise(run.fixed_rng(), len(labels), args.latent_dim, args.truncation)
    run.save_grid(common.predict(generator, z, labels), to="result.png")
    if args.n_samples:
        labels = np.arange(args.n_samples, dtype=np.int32) % args.n_classes
        z = truncated_noise(run.fixed_rng(), len(labels), args.latent_dim, args.truncation)
        run.save_samples(common.predict(generator, z, labels), labels=labels)


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
