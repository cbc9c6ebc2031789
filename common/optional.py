"""Networks that a translator has with a flag alone: --upsample and --arch of generators, --vgg of a loss."""

from common.checkpoint import DAMAGE, HEADER_DAMAGE
from common.data.torch_files import read_weights
from common.errors import UserError

from pathlib import Path

import jittor as jt
import numpy as np

from jittor_fast import nn

# VGG19's convolutions by torchvision's numbers, in parts that end in relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1.
VGG19 = ([0], [2, 5], [7, 10], [12, 14, 16, 19], [21, 23, 25, 28])
AFTER_POOLING = (5, 10, 19, 28)
PART_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


def doubled(upsample, c_in, c_out, size, bias=True):
    """Layers from (B, c_in, H, W) to (B, c_out, 2 H, 2 W).

    Args:
        upsample: "transpose" is a transposed convolution. Its kernels overlap unevenly, or with uneven weights, which
            can be seen as a checkerboard. "resize", nearest pixels and a convolution of 3 x 3, has none of it (Odena
            2016, https://distill.pub/2016/deconv-checkerboard).
        size: of the transposed convolution's kernels, 3 or 4.
    """
    if upsample == "resize":
        return [nn.Upsample(2), nn.Conv(c_in, c_out, 3, padding=1, bias=bias)]
    return [
        nn.ConvTranspose(c_in, c_out, size, stride=2, padding=1, output_padding=size % 2, bias=bias)
    ]


class Residual(nn.Module):
    """x + f(x), with f two convolutions and noise between them; (B, C, H, W) both."""

    def __init__(self, channels, norm, noise):
        super().__init__()
        layers = []
        for between in ([nn.ReLU(), noise()], []):
            conv = nn.Conv(channels, channels, 3, bias=False)
            layers += [nn.ReflectionPad2d(1), conv, norm(channels), *between]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return x + self.layers(x)


class ResNet(nn.Module):
    """The generator of Johnson 2016 (https://arxiv.org/abs/1603.08155) and of CycleGAN, as pix2pix.py can take it.

    (B, c_in, H, W) to (B, c_out, H, W) in [-1, 1]; H and W are multiples of 4.

    Args:
        n_blocks: residual blocks; 6 up to 128 pixels and 9 above, in the authors' code.
        norm: a function of a number of channels that gives a layer with a shift, so that the convolution before it
            has no bias.
        noise: a function that gives the layer within each block.
        upsample: of `doubled`.
    """

    def __init__(self, n_blocks, c_in, c_out, width, norm, noise, upsample):
        super().__init__()
        layers, c = (
            [nn.ReflectionPad2d(3), nn.Conv(c_in, width, 7, bias=False), norm(width), nn.ReLU()],
            width,
        )
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1, bias=False),
                norm(2 * c),
                nn.ReLU(),
            ]
            c *= 2
        layers += [Residual(c, norm, noise) for _ in range(n_blocks)]
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, width, H, W)
            layers += [*doubled(upsample, c, c // 2, size=3, bias=False), norm(c // 2), nn.ReLU()]
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.ReflectionPad2d(3), nn.Conv(width, c_out, 7), nn.Tanh()
        )

    def execute(self, x):
        return self.layers(x)


class Perceptual(nn.Module):
    """The distance of images in the features of VGG19, as SPADE's code has it (github.com/NVlabs/SPADE, loss.py).

    The sum over relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of the mean |difference|, times PART_WEIGHTS. As there,
    images (B, 1 or 3, H, W) go in as they are, in [-1, 1]. Nothing of it is trained.

    Args:
        path: weights in torchvision's layout (`features.0.weight` and so on): a state dict that PyTorch has saved, or
            an `.npz` file with the same names.

    Raises:
        UserError: the file cannot be read, or holds other weights.
    """

    def __init__(self, path):
        super().__init__()
        weights, c, self.parts = read_vgg(Path(path).expanduser()), 3, nn.ModuleList()
        for numbers in VGG19:
            layers = []
            for number in numbers:
                layers += [nn.MaxPool2d(2)] if number in AFTER_POOLING else []
                layers += [vgg_layer(weights, number, c, path), nn.ReLU()]
                c = layers[-2].out_channels
            self.parts.append(nn.Sequential(*layers))
        self.eval()

    def execute(self, real, fake):
        """The distance as a scalar; no gradient goes to `real`."""
        n, x = len(real), jt.concat([real.detach(), fake], dim=0)
        x, distance = x if x.shape[1] == 3 else jt.concat([x] * 3, dim=1), 0
        for part, weight in zip(self.parts, PART_WEIGHTS):
            x = part(x)
            distance += weight * jt.abs(x[:n].detach() - x[n:]).mean()
        return distance


def read_vgg(path):
    """{name: array} of a file of weights."""
    if not path.is_file():
        raise UserError(
            f"--vgg {path.absolute()} is not a file; it names VGG19's weights in torchvision's layout"
        )
    if path.suffix.lower() != ".npz":
        return read_weights(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (*DAMAGE, *HEADER_DAMAGE, AttributeError) as error:
        raise UserError(f"--vgg {path} cannot be read: {error}") from error


def vgg_layer(weights, number, c_in, path):
    """A convolution of 3 x 3 with its weights."""
    names = f"features.{number}.weight", f"features.{number}.bias"
    missing = [name for name in names if name not in weights]
    if missing:
        raise UserError(
            f"--vgg {path} has no {missing[0]}: it is not VGG19 in torchvision's layout"
        )
    weight, bias = (weights[name] for name in names)
    if weight.ndim != 4 or weight.shape[1:] != (c_in, 3, 3) or bias.shape != weight.shape[:1]:
        raise UserError(
            f"--vgg {path}: {names[0]} is {weight.shape}, and (..., {c_in}, 3, 3) is wanted"
        )
    conv = nn.Conv(c_in, len(weight), 3, padding=1)
    conv.load_state_dict(
        {"weight": np.array(weight, np.float32), "bias": np.array(bias, np.float32)}
    )
    return conv
