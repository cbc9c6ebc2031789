"""Inception-v3 (Szegedy 2016, arXiv 1512.00567) as the source of features for photographs, in torchvision's layout.

Two files of weights fit. Published FIDs belong to the first; numbers of the two cannot be compared.

    pt_inception-2015-12-05-6726825d.pth    TensorFlow's weights of 2015, converted by https://github.com/mseitzer/pytorch-fid
                                            (its releases). Their graph averages without the padding around an image,
                                            and its last block takes a maximum in the place of an average
    inception_v3_google-0cc3c7bd.pth        torchvision's `inception_v3`, from https://download.pytorch.org/models
"""

from common import checkpoint
from common.data.decode import to_float
from common.errors import UserError
from common.networks import in_chunks

from pathlib import Path

import jittor as jt

from jittor_fast import nn
from tools.torch_files import read_weights

SIZE, N_FEATURES = 299, 2048
N_CLASSES = {
    1008: "FID's weights of 2015",
    1000: "torchvision's weights; not comparable with published FIDs",
}
WHERE = (
    "--inception FILE with Inception-v3's weights: pt_inception-2015-12-05-6726825d.pth from the releases of "
    "https://github.com/mseitzer/pytorch-fid, or torchvision's inception_v3"
)


class ConvNorm(nn.Module):
    """(B, C, H, W) through a convolution, batch norm and ReLU."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=0.001)

    def execute(self, x):
        return nn.relu(self.bn(self.conv(x)))


class Average(nn.Module):
    """The mean of 3 x 3 values around each; at the border of those inside only, if the padding is not to count.

    Jittor's own pool counts the padding, whatever `count_include_pad` says.
    """

    def __init__(self, count_padding):
        super().__init__()
        self.count_padding = count_padding

    def execute(self, x):
        means = nn.pool(x, 3, "mean", stride=1, padding=1)
        if self.count_padding:
            return means
        return means / nn.pool(jt.ones((1, 1, *x.shape[2:])), 3, "mean", stride=1, padding=1)


class Block(nn.Module):
    """(B, C, H, W) through several chains of layers, whose outputs are concatenated along the channels.

    Args:
        chains: a list of chains. Of a chain's items, (name, channels, kernel) is a convolution that keeps the size,
            (name, channels, kernel, 2) one that halves it without padding, a list of items several beside each
            other on the same input, and a module runs as it is.
    """

    def __init__(self, inputs, *chains):
        super().__init__()
        self.chains = [self.build_chain(inputs, chain) for chain in chains]
        self.outputs = sum(outputs for _, outputs in self.chains)

    def build_chain(self, inputs, chain):
        layers = []
        for item in chain:
            if isinstance(item, nn.Module):
                layers.append([item])
                continue
            items = item if isinstance(item, list) else [item]
            layers.append([self.build_layer(inputs, *each) for each in items])
            inputs = sum(each[1] for each in items)
        return layers, inputs

    def build_layer(self, inputs, name, outputs, kernel, stride=1):
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        layer = ConvNorm(
            inputs, outputs, sides, stride, tuple(s // 2 for s in sides) if stride == 1 else 0
        )
        setattr(self, name, layer)
        return layer

    def execute(self, x):
        results = []
        for layers, _ in self.chains:
            y = x
            for beside in layers:
                ys = [layer(y) for layer in beside]
                y = ys[0] if len(ys) == 1 else jt.concat(ys, dim=1)
            results.append(y)
        return jt.concat(results, dim=1)


def block_a(inputs, pooled, pool):
    return Block(
        inputs,
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        [pool, ("branch_pool", pooled, 1)],
    )


def block_b(inputs):
    return Block(
        inputs,
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
        [nn.Pool(3, stride=2)],
    )


def block_c(inputs, c, pool):
    tall, wide = (7, 1), (1, 7)
    doubled = [("1", c, 1), ("2", c, tall), ("3", c, wide), ("4", c, tall), ("5", 192, wide)]
    return Block(
        inputs,
        [("branch1x1", 192, 1)],
        [("branch7x7_1", c, 1), ("branch7x7_2", c, wide), ("branch7x7_3", 192, tall)],
        [(f"branch7x7dbl_{number}", *rest) for number, *rest in doubled],
        [pool, ("branch_pool", 192, 1)],
    )


def block_d(inputs):
    sevens = [("1", 192, 1), ("2", 192, (1, 7)), ("3", 192, (7, 1)), ("4", 192, 3, 2)]
    return Block(
        inputs,
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [(f"branch7x7x3_{number}", *rest) for number, *rest in sevens],
        [nn.Pool(3, stride=2)],
    )


def block_e(inputs, pool):
    return Block(
        inputs,
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
        [pool, ("branch_pool", 192, 1)],
    )


class Inception(nn.Module):
    """(B, 3, 299, 299) images in [-1, 1] to (B, 2048) means of the last block.

    Args:
        of_2015: whether the pools are those of FID's graph, rather than torchvision's.
    """

    def __init__(self, of_2015):
        super().__init__()
        pool = Average(count_padding=not of_2015)
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = block_a(192, 32, pool)
        self.Mixed_5c = block_a(256, 64, pool)
        self.Mixed_5d = block_a(288, 64, pool)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128, pool)
        self.Mixed_6c = block_c(768, 160, pool)
        self.Mixed_6d = block_c(768, 160, pool)
        self.Mixed_6e = block_c(768, 192, pool)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, pool)
        self.Mixed_7c = block_e(2048, nn.Pool(3, stride=1, padding=1) if of_2015 else pool)

    def execute(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = nn.pool(x, 3, "maximum", stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = nn.pool(x, 3, "maximum", stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6e(
            self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        )  # (B, 768, 17, 17)
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))  # from (B, 2048, 8, 8)


def load_fitting(network, weights, path, name):
    """Puts {name: array}, read from a file, into the network called `name`; what that does not have is left out.

    Raises:
        UserError: one of the network's is missing or has another shape.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    wrong = [
        key for key, shape in expected.items() if key not in weights or weights[key].shape != shape
    ]
    if wrong:
        raise UserError(
            f"{path} does not fit {name}: {', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}"
        )
    checkpoint.load_module(network, {key: weights[key] for key in expected})


class InceptionJudge:
    """Inception-v3 with the weights of a file.

    Raises:
        UserError: the file is missing, damaged, or holds another network.
    """

    size, channels = SIZE, 3

    def __init__(self, path):
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"--inception {path} is no file; expected {WHERE}")
        weights = read_weights(path)
        n_classes = len(weights.get("fc.weight", ()))
        if n_classes not in N_CLASSES:
            raise UserError(f"{path} does not hold Inception-v3; expected {WHERE}")
        self.network = Inception(of_2015=n_classes == 1008)
        load_fitting(self.network, weights, path, "Inception-v3")
        self.network.eval()
        self.description = f"{N_FEATURES} of Inception-v3 ({N_CLASSES[n_classes]})"

    def __call__(self, pixels):
        """(N, 2048) features of (N, 3, 299, 299) uint8 images, and None in the place of what is read."""
        return in_chunks(self.network, to_float(pixels), chunk=10), None
