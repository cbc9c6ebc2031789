"""StyleGAN2: a generator whose layers each obey a style.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020,
https://arxiv.org/abs/1912.04958

    python stylegan2.py                               # digits, 12 minutes
    python stylegan2.py --paper --data_dir FACES      # the paper's setting, own images
    python stylegan2.py --data_dir PHOTOS --img_size 64 --channels 3 \\
        --augment color,translation,cutout            # a few hundred photographs
    python tools/explore.py results/stylegan2 --walk mixing

Method
    A mapping network f turns noise z ~ N(0, I) into w = f(z). The synthesis network g
    starts from a learned constant of 4 x 4 pixels and doubles it until it has the
    image's size. Each of its convolutions i obeys a style, an affine function
    s = A_i(w) with one factor for each input channel j, which scales the weights v
    (modulation); then the weights of each output channel k are scaled to length 1
    (demodulation, section 2):

        v'_kj  = s_j v_kj
        v''_kj = v'_kj / |v'_k|

    After the convolution come noise (one map for all channels, times a learned
    strength), a bias and leaky ReLU. The image is a sum over all sizes: at each, a
    modulated 1 x 1 convolution of the features is added to the image of the size
    before, doubled. The discriminator D is a residual network. Doubling and halving
    filter by 1 3 3 1.

    The losses are those of Goodfellow 2014 (https://arxiv.org/abs/1406.2661, with the
    non-saturating L_G of its section 3), with two penalties. R_1 is on D's slope at
    real images (Mescheder 2018, https://arxiv.org/abs/1801.04406). By R_path, steps of
    equal length in w should change an image equally much everywhere: J_w is the
    Jacobian of g at w, y an image of noise, and a the moving average of the lengths
    |J_w^T y|. With the sigmoid s:

        L_D    = -E[log s(D(x))] - E[log(1 - s(D(G(z))))] + gamma/2 R_1
        L_G    = -E[log s(D(G(z)))] + path_weight R_path
        R_1    = E[|grad D(x)|^2]
        R_path = E[(|J_w^T y| - a)^2]

    R_1 is computed in every 16th step alone, with 16 times its weight, and R_path
    likewise in every 4th (lazy regularization). Weights are N(0, 1) and are scaled when
    they are used (equalized learning rate, Karras 2018,
    https://arxiv.org/abs/1710.10196). In 90 % of the batches, the layers from a random
    one on obey the style of another w (mixing), so that layers do not rely on each
    other's styles. Samples can be drawn nearer to the mean of w (truncation); they are
    better, and less varied. Both are from Karras 2019
    (https://arxiv.org/abs/1812.04948).

    --augment is another paper (Zhao 2020, https://arxiv.org/abs/2006.10738): D sees
    real and generated images through random changes, so that it cannot memorize a few
    hundred images. Its functions are at the end of this file.

What to expect
    Nearly all digits are whole at the end; their FID in a digit classifier's features
    is 2.83 (docs/scripts/stylegan2.md). A loss_D near 2 log 2 = 1.39 means that D
    guesses; near 0, that it has won. r1 is logged without its weight; if it grows
    without end, raise --r1_gamma. The table of tools/explore.py --walk mixing shows
    what coarse and fine layers decide.

Differences from the paper (--paper undoes the first three)
    * 32 x 32 pixels, 64 channels at most, w of length 64 by two mapping layers, and a
      learning rate of 0.0025
    * R_path is off (--path_weight), and gamma is 1. The authors leave R_path out for
      small images, and lower gamma with the number of pixels (train.py of
      github.com/NVlabs/stylegan2-ada-pytorch, cfg cifar and auto).
    * images are not mirrored
    * always: R_path is computed for whole batches, where the authors' code takes half
      of one to save memory; a has no gradient; images with the same noise in all of
      them are shown, and --n_samples draws new noise for each
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import batch_mean, load_images
from common.data.augment import Augment

import argparse
import math

import jittor as jt
import numpy as np

from jittor_fast import fir_resample, modulate, nn  # jittor.nn on all CPU cores, and more

# Config F of the paper, by the authors' code (github.com/NVlabs/stylegan2,
# run_training.py and training/): 25 million images of FFHQ, mirrored. ema_decay is a
# half-life of 10,000 images.
PAPER = {
    "n_images": 25000000,
    "batch_size": 32,
    "lr": 0.002,
    "b1": 0.0,
    "b2": 0.99,
    "img_size": 1024,
    "channels": 3,
    "width": 32,
    "max_width": 512,
    "latent_dim": 512,
    "mapping_layers": 8,
    "group_size": 4,
    "ema_decay": 0.5 ** (32 / 10000),
    "r1_gamma": 10.0,
    "r1_every": 16,
    "path_weight": 2.0,
    "path_every": 4,
    "mixing": 0.9,
    "mirror": True,
}
MAPPING_RATE = 0.01  # the learning rate of the mapping network over that of the others
MEAN_DECAY = 0.995  # of the moving average of w
PATH_DECAY = 0.99  # of the moving average of path lengths
# Of leaky ReLU, so that values keep their variance. The layers before it have the
# factor: leaky_relu(c x) = c leaky_relu(x) for every c > 0.
GAIN = math.sqrt(2)
AUGMENTATIONS = ("color", "translation", "cutout")


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=36, batch_size=32, lr=0.0025)
    parser.add_adam(b1=0.0, b2=0.99)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size",
        type=int,
        default=32,
        choices=(16, 32, 64, 128, 256, 512, 1024),
        help="side of the images",
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=1024, help="channels next to the image"
    )
    parser.add_architecture(
        "--max_width",
        type=int,
        default=64,
        at_most=1024,
        help="most channels of a layer; their number doubles where the size is halved",
    )
    parser.add_architecture("--latent_dim", type=int, default=64, help="length of z and of w")
    parser.add_architecture(
        "--mapping_layers", type=int, default=2, at_most=20, help="layers from z to w"
    )
    parser.add_architecture(
        "--group_size", type=int, default=4, help="images that D compares with each other"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.998, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--r1_gamma", type=float, default=1.0, help="weight of the penalty R_1, gamma"
    )
    parser.add_argument("--r1_every", type=int, default=16, help="steps from one R_1 to the next")
    parser.add_argument(
        "--path_weight", type=float, default=0.0, help="weight of R_path (0 disables it)"
    )
    parser.add_argument(
        "--path_every", type=int, default=4, help="steps from one R_path to the next"
    )
    parser.add_argument(
        "--mixing",
        type=float,
        default=0.9,
        at_least=0,
        at_most=1,
        help="share of the batches with two styles",
    )
    parser.add_argument(
        "--augment",
        type=augmentations,
        metavar="NAMES",
        help="what changes the images that D sees, such as color,translation,cutout; for small "
        "data sets",
    )
    parser.add_argument(
        "--mirror", action="store_true", help="mirror half of the images in a folder"
    )

    # Samples
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        stored=False,
        help="factor of the samples' distances from the mean of w; below 1 they are better and "
        "more alike",
    )
    return parser.parse(argv)


# ---- layers with scaled weights ----


class ScaledLinear(nn.Module):
    """x (B, n_in)  ->  (B, n_out).

    The weights are N(0, 1), or wider by 1 / rate, and are scaled when they are used. So
    Adam, whose updates do not depend on the scale, changes all layers at an equal rate,
    and those with a small `rate` more slowly.
    """

    def __init__(self, n_in, n_out, gain=1.0, bias=0.0, rate=1.0):
        super().__init__()
        self.weight = jt.randn(n_out, n_in) / rate
        self.bias = jt.zeros(n_out) + bias
        self.weight_gain = gain * rate / math.sqrt(n_in)
        self.bias_gain = gain * rate

    def execute(self, x):
        return nn.linear(x, self.weight_gain * self.weight, self.bias_gain * self.bias)


class ScaledConv(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H, W), or half of that size if `down`.

    Its weights are N(0, 1), and scaled when they are used.
    """

    def __init__(self, c_in, c_out, size, gain=1.0, down=False, has_bias=True):
        super().__init__()
        self.weight = jt.randn(c_out, c_in, size, size)
        self.bias = jt.zeros(c_out) if has_bias else None
        self.weight_gain = gain / math.sqrt(c_in * size**2)
        self.bias_gain = gain
        self.size = size
        self.down = down

    def execute(self, x):
        weight = self.weight_gain * self.weight
        bias = None if self.bias is None else self.bias_gain * self.bias
        if not self.down:
            return nn.conv2d(x, weight, bias, padding=self.size // 2)
        if self.size == 1:
            return nn.conv2d(fir_resample(x, down=2, padding=(1, 1)), weight, bias)
        # (H, W) -> (H + 1, W + 1) -> (H / 2, W / 2)
        return nn.conv2d(fir_resample(x, padding=(2, 2)), weight, bias, stride=2)


class ModulatedConv(nn.Module):
    """x (B, c_in, H, W), style (B, c_in)  ->  (B, c_out, H, W); (2 H, 2 W) if `up`.

    Each image has its own weights v''. They follow from v by one factor for each input
    channel and one for each output channel. So one convolution with v does it for the
    whole batch: the input channels are scaled before it, the output channels after it.
    """

    def __init__(self, c_in, c_out, size, up=False, demodulates=True):
        super().__init__()
        self.weight = jt.randn(c_out, c_in, size, size)
        self.gain = 1 / math.sqrt(c_in * size**2)
        self.size = size
        self.up = up
        self.demodulates = demodulates

    def execute(self, x, style):
        if not self.demodulates:
            style = self.gain * style
        x = modulate(x, style)
        if self.up:  # (H, W) -> (2 H + 1, 2 W + 1) -> (2 H, 2 W)
            # The factor 4 makes up for the zeros between the pixels.
            x = nn.conv_transpose(x, 4 * self.weight.transpose(1, 0, 2, 3), stride=2)
            x = fir_resample(x, padding=(1, 1))
        else:
            x = nn.conv2d(x, self.weight, padding=self.size // 2)
        if self.demodulates:
            x = modulate(x, GAIN * self.demodulation(style))
        return x

    def demodulation(self, style):
        """1 / |v'_k| (B, c_out) of a style (B, c_in)."""
        squares = (self.weight**2).sum((2, 3))  # (c_out, c_in)
        return 1 / jt.sqrt(nn.linear(style**2, squares) + 1e-8)


# ---- generator ----


class Mapping(nn.Module):
    """z (B, latent_dim)  ->  w (B, latent_dim).

    Attributes:
        running_mean: the moving average (latent_dim,) of w in training.
    """

    def __init__(self, latent_dim, n_layers):
        super().__init__()
        layers = []
        for _ in range(n_layers):
            layers += [
                ScaledLinear(latent_dim, latent_dim, gain=GAIN, rate=MAPPING_RATE),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers)
        self.running_mean = jt.zeros(latent_dim).stop_grad()

    def execute(self, z):
        z = z / jt.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
        w = self.layers(z)
        if self.is_training():
            old = self.running_mean
            self.running_mean.update(old + (1 - MEAN_DECAY) * (batch_mean(w.mean(0)) - old))
        return w


class StyledConv(nn.Module):
    """x (B, c_in, H, W), w (B, latent_dim)  ->  (B, c_out, H', W').

    It also takes noise (B, 1, H', W').
    """

    def __init__(self, latent_dim, c_in, c_out, up=False):
        super().__init__()
        self.style = ScaledLinear(latent_dim, c_in, bias=1.0)
        self.conv = ModulatedConv(c_in, c_out, 3, up)
        self.noise_strength = jt.zeros(1)
        self.bias = jt.zeros((1, c_out, 1, 1))
        self.activation = nn.LeakyReLU(0.2)

    def execute(self, x, w, noise):
        x = self.conv(x, self.style(w))
        return self.activation(x + GAIN * (self.noise_strength * noise + self.bias))


class ToImage(nn.Module):
    """x (B, c, H, W), w (B, latent_dim)  ->  images (B, channels, H, W)."""

    def __init__(self, latent_dim, c, channels):
        super().__init__()
        self.style = ScaledLinear(latent_dim, c, bias=1.0)
        self.conv = ModulatedConv(c, channels, 1, demodulates=False)
        self.bias = jt.zeros((1, channels, 1, 1))

    def execute(self, x, w):
        return self.conv(x, self.style(w)) + self.bias


class Synthesis(nn.Module):
    """ws (B, n_styles, latent_dim)  ->  images (B, channels, img_size, img_size).

    Attributes:
        sizes: the side of each convolution's output, 4, 8, 8, 16, 16 and so on.
        n_styles: of the convolutions, and of the last ToImage. The others have that of
            the convolution behind them.
        n_noise: how many noise values an image takes.
    """

    def __init__(self, latent_dim, img_size, channels, width, max_width):
        super().__init__()
        c = width_at(4, img_size, width, max_width)
        self.constant = jt.randn(1, c, 4, 4)
        self.sizes = [4]
        convs = [StyledConv(latent_dim, c, c)]
        to_images = [ToImage(latent_dim, c, channels)]
        size = 8
        while size <= img_size:  # (B, c_in, size / 2, size / 2) -> (B, c, size, size)
            c_in = c
            c = width_at(size, img_size, width, max_width)
            self.sizes += [size, size]
            convs += [
                StyledConv(latent_dim, c_in, c, up=True),
                StyledConv(latent_dim, c, c),
            ]
            to_images += [ToImage(latent_dim, c, channels)]
            size *= 2
        self.convs = nn.ModuleList(convs)
        self.to_images = nn.ModuleList(to_images)
        self.n_styles = len(self.sizes) + 1
        self.n_noise = sum(side**2 for side in self.sizes)
        # Of all images that are drawn without other noise; it is not trained.
        self.fixed_noise = np.random.default_rng(0).standard_normal((1, self.n_noise), np.float32)

    def execute(self, ws, noise=None):
        """Draws images.

        Args:
            noise: (B, n_noise) from N(0, 1); default: the same for all images.
        """
        maps = self.noise_maps(jt.array(self.fixed_noise) if noise is None else noise)
        x = self.constant.broadcast((len(ws), *self.constant.shape[1:]))
        x = self.convs[0](x, ws[:, 0], maps[0])
        images = self.to_images[0](x, ws[:, 1])
        for i in range(1, len(self.sizes), 2):
            x = self.convs[i](x, ws[:, i], maps[i])
            x = self.convs[i + 1](x, ws[:, i + 1], maps[i + 1])
            images = fir_resample(images, up=2, padding=(2, 1))
            images += self.to_images[(i + 1) // 2](x, ws[:, i + 2])
        return images

    def noise_maps(self, noise):
        """(B, n_noise) as a list of maps (B, 1, size, size)."""
        maps = []
        first = 0
        for size in self.sizes:
            maps.append(noise[:, first : first + size**2].reshape(-1, 1, size, size))
            first += size**2
        return maps


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size).

    Nothing keeps the images in [-1, 1] but D.

    Attributes:
        path_running_mean: the moving average (1,) of path lengths.
    """

    def __init__(self, latent_dim, mapping_layers, img_size, channels, width, max_width):
        super().__init__()
        self.mapping = Mapping(latent_dim, mapping_layers)
        self.synthesis = Synthesis(latent_dim, img_size, channels, width, max_width)
        self.path_running_mean = jt.zeros(1).stop_grad()

    def execute(self, z, truncation=None, noise=None):
        """Draws images.

        Args:
            truncation: (B,), the factor of w's distance from its mean (default: 1).
            noise: as of `Synthesis`.
        """
        w = self.mapping(z)
        if truncation is not None:
            mean = self.mapping.running_mean
            w = mean + truncation.reshape(-1, 1) * (w - mean)
        return self.synthesis(self.repeated(w), noise)

    def repeated(self, w):
        """w (B, latent_dim) as the styles of all layers, (B, n_styles, latent_dim)."""
        return w.unsqueeze(1).repeat(1, self.synthesis.n_styles, 1)

    def mixed(self, z, other_z, cutoff):
        """Styles (B, n_styles, latent_dim): that of z in the first `cutoff` layers."""
        w = self.mapping(jt.concat([z, other_z], dim=0))
        first = self.repeated(w[: len(z)])
        second = self.repeated(w[len(z) :])
        is_first = np.arange(self.synthesis.n_styles) < cutoff
        mask = jt.array(np.float32(is_first).reshape(1, -1, 1))
        return mask * first + (1 - mask) * second


def width_at(size, img_size, width, max_width):
    """The channels of layers whose images have this side."""
    return min(width * img_size // size, max_width)


# ---- discriminator ----


class Residual(nn.Module):
    """x (B, c_in, H, W)  ->  (B, c_out, H / 2, W / 2).

    The sum of both paths is divided by sqrt(2), so that it keeps their variance.
    """

    def __init__(self, c_in, c_out):
        super().__init__()
        self.skip = ScaledConv(c_in, c_out, 1, gain=math.sqrt(0.5), down=True, has_bias=False)
        self.layers = nn.Sequential(
            ScaledConv(c_in, c_in, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            ScaledConv(c_in, c_out, 3, gain=GAIN * math.sqrt(0.5), down=True),
            nn.LeakyReLU(0.2),
        )

    def execute(self, x):
        return self.skip(x) + self.layers(x)


class MinibatchDeviation(nn.Module):
    """x (B, C, H, W)  ->  (B, C + 1, H, W), with how much the images of a group differ.

    The added channel is the standard deviation over the images of a group, averaged
    over all channels and pixels (Karras 2018, minibatch standard deviation). With it D
    can see that G draws too similar images.
    """

    def __init__(self, group_size):
        super().__init__()
        self.group_size = group_size

    def execute(self, x):
        n, _, height, width = x.shape
        size = math.gcd(n, self.group_size)  # groups are of equal size
        groups = x.reshape(size, n // size, -1)
        differences = groups - groups.mean(0, keepdims=True)
        deviation = jt.sqrt((differences**2).mean(0) + 1e-8).mean(1)  # (n / size,)
        added = deviation.reshape(1, -1, 1, 1, 1).broadcast((size, n // size, 1, height, width))
        return jt.concat([x, added.reshape(n, 1, height, width)], dim=1)


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  logits (B,), high for real."""

    def __init__(self, img_size, channels, width, max_width, group_size):
        super().__init__()
        c = width_at(img_size, img_size, width, max_width)
        layers = [  # (B, channels, img_size, img_size) -> (B, c, img_size, img_size)
            ScaledConv(channels, c, 1, gain=GAIN),
            nn.LeakyReLU(0.2),
        ]
        size = img_size
        while size > 4:  # (B, c_in, size, size) -> (B, c, size / 2, size / 2)
            size //= 2
            c_in = c
            c = width_at(size, img_size, width, max_width)
            layers += [Residual(c_in, c)]
        layers += [  # (B, c, 4, 4) -> (B, 1)
            MinibatchDeviation(group_size),
            ScaledConv(c + 1, c, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            ScaledLinear(16 * c, c, gain=GAIN),
            nn.LeakyReLU(0.2),
            ScaledLinear(c, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def build(args):
    generator = Generator(
        args.latent_dim,
        args.mapping_layers,
        args.img_size,
        args.channels,
        args.width,
        args.max_width,
    )
    discriminator = Discriminator(
        args.img_size, args.channels, args.width, args.max_width, args.group_size
    )
    generator.train()
    discriminator.train()
    return generator, discriminator


# ---- losses and training steps ----


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B,), without R_1.

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """L_G of logits (B,), without R_path."""
    return nn.softplus(-fake_logits).mean()


def squared_slope(gradient):
    """R_1 of the gradients (B, C, H, W) at the images of a batch."""
    return (gradient**2).sum((1, 2, 3)).mean()


def path_lengths(gradient):
    """|J_w^T y| (B,) of gradients (B, n_styles, latent_dim).

    w acts through all styles; their number divides the squared length, as in the
    authors' code.
    """
    return jt.sqrt((gradient**2).sum(2).mean(1))


def train_step(networks, optimizers, real, latents_G, latents_D, changes):
    """Updates G, then D, without the penalties.

    Args:
        networks, optimizers: (of G, of D).
        real: images (B, C, H, W) in [-1, 1].
        latents_G, latents_D: what the images of each update are drawn from: z and
            other_z (B, latent_dim), the cutoff of `Generator.mixed`, and noise
            (B, n_noise).
        changes: what `augment` does to G's images in the update of G, to those in the
            update of D, and to the real ones.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    changes_G, changes_fake, changes_real = changes

    # G: new images, which D should take for real
    *styles, noise = latents_G
    fake = generator.synthesis(generator.mixed(*styles), noise)
    loss_G = generator_loss(discriminator(augment(fake, changes_G)))
    optimizer_G.step(loss_G)  # Jittor: computes the gradients of G's parameters, and updates

    # D: real images against generated ones
    *styles, noise = latents_D
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator.synthesis(generator.mixed(*styles), noise)
    real_logits = discriminator(augment(real, changes_real))
    fake_logits = discriminator(augment(fake, changes_fake))
    loss_D = discriminator_loss(real_logits, fake_logits)
    optimizer_D.step(loss_D)
    return {"loss_D": loss_D, "loss_G": loss_G}


def r1_step(discriminator, optimizer_D, real, changes, *, weight):
    """Updates D by R_1 alone.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        changes: what `augment` does to them.

    Returns:
        {"r1"}, without its weight, as a Jittor scalar.
    """
    images = real.detach()
    images.start_grad()  # the gradient is computed for the images
    logits = discriminator(augment(images, changes))
    r1 = squared_slope(jt.grad(logits.sum(), images))
    # The last bias does not change the slope, and Jittor warns of a parameter without a
    # gradient. The second term gives it one, which is 0.
    optimizer_D.step(weight * r1 + 0 * logits.sum())
    return {"r1": r1}


def path_step(generator, optimizer_G, latents, y, *, weight):
    """Updates G by R_path alone.

    Args:
        latents: as of `train_step`.
        y: images (B, C, H, W) of N(0, 1) noise.

    Returns:
        {"path_length", "path_penalty"}, without its weight, as Jittor scalars.
    """
    *styles, noise = latents
    ws = generator.mixed(*styles)
    images = generator.synthesis(ws, noise)
    n_pixels = y.shape[2] * y.shape[3]
    gradient = jt.grad((images * y).sum() / math.sqrt(n_pixels), ws)
    lengths = path_lengths(gradient)

    old = generator.path_running_mean
    generator.path_running_mean.update(old + (1 - PATH_DECAY) * (batch_mean(lengths.mean()) - old))
    penalty = ((lengths - generator.path_running_mean) ** 2).mean()
    # As in `r1_step`: the last bias does not change a length, either.
    optimizer_G.step(weight * penalty + 0 * images.sum())
    return {"path_length": lengths.mean(), "path_penalty": penalty}


# ---- training ----


def lazy_adam(network, args, every):
    """Adam for a network that has a further update in every `every`-th step.

    Its rate and betas make up for that, as in the paper's lazy regularization; with
    None there is no such update.
    """
    share = 1 if every is None else every / (every + 1)
    betas = (args.b1**share, args.b2**share)
    return nn.Adam(network.parameters(), lr=share * args.lr, betas=betas)


def train(run, args):
    data = load(args)
    networks = build(args)
    generator, discriminator = networks
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    optimizer_G = lazy_adam(generator, args, args.path_every if args.path_weight else None)
    optimizer_D = lazy_adam(discriminator, args, args.r1_every if args.r1_gamma else None)
    optimizers = (optimizer_G, optimizer_D)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            losses = update(run, args, networks, optimizers, real)
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


def load(args):
    flips = Augment(crop=False, flip=args.mirror)
    return load_images(args.data_dir, args.img_size, args.channels, augment=flips)


def update(run, args, networks, optimizers, real):
    """One training step, with the penalties whose turn it is; returns all losses."""
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    synthesis = generator.synthesis
    latents_G = draw_latents(run, args, synthesis)
    latents_D = draw_latents(run, args, synthesis)
    changes = [draw_changes(run, args) for _ in range(3)]
    losses = train_step(networks, optimizers, real, latents_G, latents_D, changes)

    # The first step has both penalties, so that all kernels are compiled in it.
    if args.path_weight and (run.step - 1) % args.path_every == 0:
        latents = draw_latents(run, args, synthesis)
        y = run.normal(args.batch_size, *real.shape[1:])
        weight = args.path_every * args.path_weight
        losses.update(path_step(generator, optimizer_G, latents, y, weight=weight))
    if args.r1_gamma and (run.step - 1) % args.r1_every == 0:
        weight = args.r1_every * args.r1_gamma / 2
        changes = draw_changes(run, args)
        losses.update(r1_step(discriminator, optimizer_D, real, changes, weight=weight))
    return losses


def draw_latents(run, args, synthesis):
    """z, other_z, the cutoff, and noise; see `train_step`."""
    z = run.normal(args.batch_size, args.latent_dim)
    other_z = run.normal(args.batch_size, args.latent_dim)
    cutoff = synthesis.n_styles
    if run.rng.random() < args.mixing:  # one cutoff for the whole batch
        cutoff = int(run.rng.integers(1, synthesis.n_styles))
    return z, other_z, cutoff, run.normal(args.batch_size, synthesis.n_noise)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    truncation = np.full(100, args.truncation, np.float32)
    run.save_grid(common.predict(generator, fixed_z, truncation), to="result.png")
    if args.n_samples:
        run.save_samples(draw_samples(run, generator, args))


def draw_samples(run, generator, args, chunk=500):
    """--n_samples images (N, C, H, W) as numpy, each with its own noise."""
    rng = run.fixed_rng()
    z = rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
    samples = []
    for first in range(0, len(z), chunk):  # the noise of all of them can be gigabytes
        part = z[first : first + chunk]
        truncation = np.full(len(part), args.truncation, np.float32)
        noise = rng.standard_normal((len(part), generator.synthesis.n_noise), dtype=np.float32)
        samples.append(common.predict(generator, part, truncation, noise))
    return np.concatenate(samples)


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    run.checkpoint(generator=generator, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, args)


# ---- differentiable augmentation (Zhao 2020, https://arxiv.org/abs/2006.10738) ----


def augmentations(text):
    """An argparse type: checks names such as "color,cutout" and returns the text."""
    names = text.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(AUGMENTATIONS):
        raise argparse.ArgumentTypeError(
            f"must be one or more of {', '.join(AUGMENTATIONS)}, with commas between them, "
            f"got {text!r}"
        )
    return text


def draw_changes(run, args):
    """The random numbers of `augment` for a batch, by --augment; {} without it.

    They are those of the authors' code (github.com/mit-han-lab/data-efficient-gans):
    the brightness changes by up to 0.5, the contrast by a factor from 0.5 to 1.5, the
    saturation by one from 0 to 2; images are shifted by up to an eighth of their side,
    and a square of half of their side, with its centre anywhere, becomes grey.
    """
    names = (args.augment or "").split(",")
    n = args.batch_size
    side = args.img_size
    changes = {}
    if "color" in names:
        changes["brightness"] = run.uniform(n, 1, 1, 1) - 0.5
        changes["saturation"] = 2 * run.uniform(n, 1, 1, 1)
        changes["contrast"] = 0.5 + run.uniform(n, 1, 1, 1)
    if "translation" in names:
        changes["down"] = run.integers(-(side // 8), side // 8 + 1, n)
        changes["right"] = run.integers(-(side // 8), side // 8 + 1, n)
    if "cutout" in names:
        changes["row"] = run.integers(0, side + 1, n)
        changes["column"] = run.integers(0, side + 1, n)
    return changes


def augment(images, changes):
    """Images (B, C, H, H) as D sees them; their gradient is that of G.

    Args:
        changes: as of `draw_changes`: Jittor variables, or {}.
    """
    if "brightness" in changes:
        images = images + changes["brightness"]
        grey = images.mean(1, keepdims=True)
        images = grey + changes["saturation"] * (images - grey)
        mean = images.mean((1, 2, 3), keepdims=True)
        images = mean + changes["contrast"] * (images - mean)
    if "down" in changes:  # what is shifted in from outside is 0, grey
        side = images.shape[2]
        rows = shift_matrices(changes["down"], side)
        columns = shift_matrices(changes["right"], side).transpose(0, 1, 3, 2)
        images = jt.matmul(jt.matmul(rows, images), columns)
    if "row" in changes:
        side = images.shape[2]
        is_row = is_near(changes["row"], side).reshape(-1, 1, side, 1)
        is_column = is_near(changes["column"], side).reshape(-1, 1, 1, side)
        images = images * (1 - is_row * is_column)
    return images


def shift_matrices(shifts, side):
    """Matrices (B, 1, side, side), which move rows down by `shifts` (B,)."""
    i = jt.index((len(shifts), 1, side, side), 2)
    j = jt.index((len(shifts), 1, side, side), 3)
    return (i - j == shifts.reshape(-1, 1, 1, 1)).float32()


def is_near(centres, side):
    """(B, side): 1 for the rows of a square of half the side around its centre (B,)."""
    distance = jt.index((len(centres), side), 1) - centres.reshape(-1, 1)
    return ((distance >= -(side // 4)) & (distance < side // 4)).float32()


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
