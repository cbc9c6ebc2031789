"""Convolutions after Winograd, against numbers worked out by hand and against PyTorch's."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn

from common import fast
from common.fast import winograd

# images, inputs, height, width, outputs, kernel, stride, padding
SHAPES = [
    (2, 5, 8, 8, 7, 3, 1, 1),
    (3, 4, 7, 9, 6, 3, 1, 0),  # odd sizes: tiles reach beyond the output
    (1, 4, 6, 6, 8, 3, 1, 2),  # output larger than the input
    (2, 3, 8, 8, 4, 4, 2, 1),
    (2, 6, 9, 11, 4, 4, 2, 1),
    (3, 2, 4, 4, 3, 4, 2, 0),  # a single output for each image
    (1, 4, 40, 50, 8, 4, 2, 1),  # more tiles than a chunk
]


@pytest.fixture
def always(monkeypatch):
    """Lets small layers take the kernels too, and counts how often they do."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES", 1)
    return count_calls(monkeypatch)


def count_calls(monkeypatch):
    calls, run = [], winograd.Layer.run

    def counting(layer, result, *operands):
        calls.append(result)
        return run(layer, result, *operands)

    monkeypatch.setattr(winograd.Layer, "run", counting)
    return calls


def layer_of(cls, weight, **options):
    """A layer with these weights, (outputs, inputs, k, k) or for a transposed one (inputs, outputs, k, k)."""
    first, second = np.shape(weight)[:2]
    inputs, outputs = (second, first) if cls is fast.Conv else (first, second)
    layer = cls(inputs, outputs, np.shape(weight)[2], bias=False, **options)
    layer.weight.update(jt.array(np.asarray(weight, np.float32)))
    return layer


def test_by_hand_3x3(always):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    # The sums of the 3 x 3 windows of 0 .. 15; then the pixel that lies below to the right of the window's centre.
    assert layer_of(fast.Conv, np.ones((1, 1, 3, 3)))(jt.array(x)).numpy().tolist() == [[[[45, 54], [81, 90]]]]
    corner = np.zeros((1, 1, 3, 3))
    corner[0, 0, 2, 2] = 1
    assert layer_of(fast.Conv, corner)(jt.array(x)).numpy().tolist() == [[[[10, 11], [14, 15]]]]
    assert always == ["y", "y"]


def test_by_hand_4x4_with_stride_2(always):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    ones = np.ones((1, 1, 4, 4))
    # With a border of zeros each window holds 3 x 3 pixels: those around 5, 6, 9 and 10.
    got = layer_of(fast.Conv, ones, stride=2, padding=1)(jt.array(x)).numpy()
    assert got.tolist() == [[[[45, 54], [81, 90]]]]
    # Transposed: each of the 2 x 2 numbers spreads over 4 x 4 pixels, two apart; the border is cut off.
    y = np.array([[[[1, 2], [3, 4]]]], np.float32)
    got = layer_of(fast.ConvTranspose, ones, stride=2, padding=1)(jt.array(y)).numpy()
    assert got.tolist() == [[[[1, 3, 3, 2], [4, 10, 10, 6], [4, 10, 10, 6], [3, 7, 7, 4]]]]
    assert always == ["y", "x"]


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_both_derivatives(name, shape, always):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    images, inputs, height, width, outputs, k, stride, padding = shape
    ours = getattr(fast, name)(inputs, outputs, k, stride=stride, padding=padding)
    theirs = getattr(torch.nn, f"{name}2d")(inputs, outputs, k, stride=stride, padding=padding)
    theirs.weight.data, theirs.bias.data = (torch.tensor(v.numpy()) for v in (ours.weight, ours.bias))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, inputs, height, width), dtype=np.float32)
    u = rng.standard_normal(tuple(ours.weight.shape), dtype=np.float32)

    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(t)
    d = rng.standard_normal(tuple(z.shape), dtype=np.float32)
    parts = jt.grad((jt.tanh(y) * jt.array(d)).sum(), [a, ours.weight, ours.bias])
    again = jt.grad((parts[0] ** 2).sum() + (parts[1] * jt.array(u)).sum(), [a, ours.weight])
    loss = (torch.tanh(z) * torch.tensor(d)).sum()
    expected = torch.autograd.grad(loss, [t, theirs.weight, theirs.bias], create_graph=True)
    scalar = (expected[0] ** 2).sum() + (expected[1] * torch.tensor(u)).sum()
    expected_again = torch.autograd.grad(scalar, [t, theirs.weight])
    for got, wanted in zip([y, *parts, *again], [z, *expected, *expected_again]):
        wanted = wanted.detach().numpy()
        np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert set(always) == {"x", "y", "w"}


def test_what_pays_takes_the_kernels_and_nothing_else_does(monkeypatch):
    calls = count_calls(monkeypatch)
    image = jt.array(np.ones((2, 64, 8, 8), np.float32))
    for options in ({"kernel_size": 3, "padding": 1}, {"kernel_size": 4, "stride": 2, "padding": 1}):
        fast.Conv(64, 64, **options)(image), fast.ConvTranspose(64, 64, **options)(image)
    assert calls == ["y", "x", "x"]  # the convolution with stride 2 has 8 tiles, too few; the others have 32
    for other in (
        fast.Conv(64, 64, 3, padding=1, groups=2),
        fast.Conv(64, 64, 3, padding=2, dilation=2),
        fast.Conv(64, 63, 3),
        fast.Conv(64, 64, (3, 1)),
        fast.Conv(64, 64, 5),
        fast.ConvTranspose(64, 64, 4, stride=2, output_padding=1),
    ):
        other(image)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_is_jittors_layer_otherwise(name, monkeypatch):
    ours, plain = (getattr(module, name)(64, 64, 3, padding=1) for module in (fast, nn))
    values = {key: v.numpy() for key, v in plain.named_parameters()}
    assert set(values) == {"weight", "bias"}
    ours.load_state_dict(values)
    x = jt.array(np.random.default_rng(0).standard_normal((2, 64, 8, 8), dtype=np.float32))
    expected = plain(x).numpy()
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    monkeypatch.setattr(winograd, "onednn_is_loaded", lambda: False)
    np.testing.assert_array_equal(ours(x).numpy(), expected)


def test_wrong_channels_are_refused_as_by_jittor(always):
    for layer in (fast.Conv(4, 4, 3), fast.ConvTranspose(4, 4, 3)):
        with pytest.raises((AssertionError, RuntimeError)):
            layer(jt.array(np.ones((1, 5, 8, 8), np.float32))).sync()
    assert not always


def test_equal_calls_give_equal_bits(always):
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((4, 64, 16, 16), dtype=np.float32))
    layer = fast.Conv(64, 96, 4, stride=2, padding=1)
    results = []
    for _ in range(3):
        y = layer(x)
        results.append([v.numpy() for v in (y, *jt.grad((y**2).sum(), [x, layer.weight]))])
    for result in results[1:]:
        for got, expected in zip(result, results[0]):
            np.testing.assert_array_equal(got, expected)
