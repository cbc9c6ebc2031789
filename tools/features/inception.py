"""Inception-v3 (Szegedy 2016, arXiv 1512.00567), for features of photographs.

It has torchvision's layout. Two files of weights fit. Published FIDs are of the first;
figures of the two cannot be compared.

    pt_inception-2015-12-05-6726825d.pth
        TensorFlow's weights of 2015, converted by
        https://github.com/mseitzer/pytorch-fid (its releases). Their graph averages
        without the padding around an image, and its last block takes a maximum instead
        of an average.
    inception_v3_google-0cc3c7bd.pth
        torchvision's `inception_v3`, from https://download.pytorch.org/models
"""

from common.data.decode import to_float
from common.data.layout import expanded
from common.errors import UserError
from common.predict import predict
from common.torch_files import load_fitting, read_weights

import jittor as jt

from jittor_fast import nn

SIZE = 299
N_FEATURES = 2048
N_CLASSES = {
    1008: "FID's weights of 2015",
    1000: "torchvision's weights; not comparable with published FIDs",
}
WHERE = (
    "--inception FILE with Inception-v3's weights: pt_inception-2015-12-05-6726825d.pth from "
    "the releases of https://github.com/mseitzer/pytorch-fid, or torchvision's inception_v3"
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
    """The mean of the 3 x 3 values around each value, (B, C, H, W) in and out.

    Args:
        count_padding: whether the zeros around the image count at its border. Jittor's
            own pool counts them, whatever `count_include_pad` says.
    """

    def __init__(self, count_padding):
        super().__init__()
        self.count_padding = count_padding

    def execute(self, x):
        means = nn.pool(x, 3, "mean", stride=1, padding=1)
        if self.count_padding:
            return means
        shares = nn.pool(jt.ones((1, 1, *x.shape[2:])), 3, "mean", stride=1, padding=1)
        return means / shares


class Block(nn.Module):
    """(B, C, H, W) through several chains of layers, whose outputs are concatenated.

    Args:
        inputs: C.
        chains: lists of items. The item (name, channels, kernel) is a convolution that
            keeps the size, (name, channels, kernel, 2) one that halves it without
            padding. A list of items is several layers with the same input. A module
            runs as it is.
    """

    def __init__(self, inputs, *chains):
        super().__init__()
        self.chains = [self.build_chain(inputs, chain) for chain in chains]

    def build_chain(self, inputs, chain):
        """A list of lists of layers; those of an inner list have the same input."""
        layers = []
        for item in chain:
            if isinstance(item, nn.Module):
                layers.append([item])
                continue
            items = item if isinstance(item, list) else [item]
            layers.append([self.build_layer(inputs, *each) for each in items])
            inputs = sum(each[1] for each in items)
        return layers

    def build_layer(self, inputs, name, outputs, kernel, stride=1):
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = 0
        if stride == 1:
            padding = tuple(side // 2 for side in sides)
        layer = ConvNorm(inputs, outputs, sides, stride, padding)
        setattr(self, name, layer)
        return layer

    def execute(self, x):
        results = []
        for chain in self.chains:
            y = x
            for layers in chain:
                outputs = [layer(y) for layer in layers]
                y = outputs[0] if len(outputs) == 1 else jt.concat(outputs, dim=1)
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
    tall = (7, 1)
    wide = (1, 7)
    return Block(
        inputs,
        [("branch1x1", 192, 1)],
        [("branch7x7_1", c, 1), ("branch7x7_2", c, wide), ("branch7x7_3", 192, tall)],
        [
            ("branch7x7dbl_1", c, 1),
            ("branch7x7dbl_2", c, tall),
            ("branch7x7dbl_3", c, wide),
            ("branch7x7dbl_4", c, tall),
            ("branch7x7dbl_5", 192, wide),
        ],
        [pool, ("branch_pool", 192, 1)],
    )


def block_d(inputs):
    return Block(
        inputs,
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2),
        ],
        [nn.Pool(3, stride=2)],
    )


def block_e(inputs, pool):
    return Block(
        inputs,
        [("branch1x1", 320, 1)],
        [
            ("branch3x3_1", 384, 1),
            [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))],
        ],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
        [pool, ("branch_pool", 192, 1)],
    )


class Inception(nn.Module):
    """images (B, 3, 299, 299) in [-1, 1]  ->  means (B, 2048) of the last block.

    Args:
        of_2015: whether the pools are those of FID's graph, rather than torchvision's.
    """

    def __init__(self, of_2015):
        super().__init__()
        pool = Average(count_padding=not of_2015)
        last_pool = pool
        if of_2015:
            last_pool = nn.Pool(3, stride=1, padding=1)
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
        self.Mixed_7c = block_e(2048, last_pool)

    def execute(self, x):
        x = self.Conv2d_1a_3x3(x)
        x = self.Conv2d_2a_3x3(x)
        x = self.Conv2d_2b_3x3(x)  # (B, 64, 147, 147)
        x = nn.pool(x, 3, "maximum", stride=2)
        x = self.Conv2d_3b_1x1(x)
        x = self.Conv2d_4a_3x3(x)  # (B, 192, 71, 71)
        x = nn.pool(x, 3, "maximum", stride=2)
        x = self.Mixed_5b(x)
        x = self.Mixed_5c(x)
        x = self.Mixed_5d(x)  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)
        x = self.Mixed_6b(x)
        x = self.Mixed_6c(x)
        x = self.Mixed_6d(x)
        x = self.Mixed_6e(x)  # (B, 768, 17, 17)
        x = self.Mixed_7a(x)
        x = self.Mixed_7b(x)
        x = self.Mixed_7c(x)  # (B, 2048, 8, 8)
        return x.mean((2, 3))


class InceptionFeatures:
    """Inception-v3 with the weights of a file.

    Raises:
        UserError: the file is missing, damaged, or holds another network.
    """

    size = SIZE
    channels = 3

    def __init__(self, path):
        path = expanded(path)
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
        """Features (N, 2048) of (N, 3, 299, 299) uint8 images, and None.

        The second is where a classifier of digits has probabilities.
        """
        return predict(self.network, to_float(pixels), chunk=10), None
