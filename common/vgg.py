"""VGG19, whose features measure how alike two images look.

Its weights come with no script: `python tools/convert_weights.py VGG19.pth vgg19.npz`
makes the file that --vgg names from torchvision's.
"""

from common.checkpoint import read_npz
from common.errors import UserError

import jittor as jt
import numpy as np

from jittor_fast import nn

# Of the images that VGG19 was trained on, RGB in [0, 1] (torchvision's documentation).
MEAN = np.float32([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
DEVIATION = np.float32([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


def check_name(parser, path):
    """Refuses a --vgg that is no .npz file; None is allowed."""
    if path is not None and not path.endswith(".npz"):
        parser.error(
            f"--vgg {path} is not an .npz file; one is written by "
            "'python tools/convert_weights.py VGG19.pth vgg19.npz'"
        )


def layers(path, counts):
    """The first layers of VGG19 as one module, with torchvision's indices.

    Args:
        path: an `.npz` file of VGG19's weights with torchvision's names,
            `features.0.weight` and so on.
        counts: how many convolutions there are at each size, such as (2, 2, 4, 4, 1),
            which ends with relu5_1; (2, 2, 4, 4, 4) are all of them.

    Raises:
        UserError: the file cannot be read, or holds other weights.
    """
    weights = read_npz(path)
    modules = []
    c = 3
    for n_convs in counts:
        if modules:
            modules += [nn.MaxPool2d(2)]
        for _ in range(n_convs):
            conv = convolution(weights, len(modules), c, path)
            modules += [conv, nn.ReLU()]
            c = conv.out_channels
    return nn.Sequential(*modules)


def convolution(weights, index, c_in, path):
    """The convolution of 3 x 3 with this index, from {name: array}."""
    names = (f"features.{index}.weight", f"features.{index}.bias")
    for name in names:
        if name not in weights:
            raise UserError(f"--vgg {path} has no {name}: it is not VGG19 in torchvision's layout")
    weight = weights[names[0]]
    bias = weights[names[1]]
    if weight.ndim != 4 or weight.shape[1:] != (c_in, 3, 3) or bias.shape != weight.shape[:1]:
        raise UserError(f"--vgg {path}: {names[0]} is {weight.shape}, expected (..., {c_in}, 3, 3)")
    conv = nn.Conv(c_in, len(weight), 3, padding=1)
    conv.load_state_dict({"weight": np.float32(weight), "bias": np.float32(bias)})
    return conv


def as_rgb(images):
    """(B, 1 or 3, H, W)  ->  (B, 3, H, W), grey repeated."""
    return jt.concat([images, images, images], dim=1) if images.shape[1] == 1 else images


def normalize(images):
    """Images (B, 1 or 3, H, W) in [-1, 1] as VGG19 was trained on them."""
    return ((as_rgb(images) + 1) / 2 - jt.array(MEAN)) / jt.array(DEVIATION)


# The weight of a layer's features in `Perceptual`, by its index in torchvision's
# `vgg19().features`: relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1. They are those of
# the code of pix2pixHD and of SPADE (github.com/NVIDIA/pix2pixHD, models/networks.py;
# github.com/NVlabs/SPADE, models/networks/loss.py).
LAYER_WEIGHTS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1}


class Perceptual(nn.Module):
    """real and fake, images (B, 1 or 3, H, W) in [-1, 1]  ->  the perceptual loss.

    It is the weighted sum of the L1 distances of VGG19's features. As in the code
    named above, the images go into VGG19 as they are. Its weights stay as they are,
    and no gradient reaches `real`.

    Args:
        path: see `layers`.

    Raises:
        UserError: the file cannot be read, or holds other weights.
    """

    def __init__(self, path):
        super().__init__()
        self.layers = layers(path, (2, 2, 4, 4, 1))  # up to relu5_1
        self.eval()

    def execute(self, real, fake):
        n = len(real)
        x = as_rgb(jt.concat([real.detach(), fake]))
        loss = 0
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in LAYER_WEIGHTS:
                loss += LAYER_WEIGHTS[i] * jt.abs(x[:n].detach() - x[n:]).mean()
        return loss
