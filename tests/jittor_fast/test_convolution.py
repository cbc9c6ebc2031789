"""Convolutions by all algorithms, against results by hand and PyTorch's."""

from fractions import Fraction

import jittor as jt
import numpy as np
import pytest
from jittor import nn as jittor_nn

from jittor_fast import algorithms, convolution, nn, winograd

# images, inputs, height, width, outputs, kernel, stride, padding
SHAPES = [
    (2, 5, 8, 8, 7, 3, 1, 1),
    (3, 4, 7, 9, 6, 3, 1, 0),  # odd sizes: tiles reach beyond the output
    (1, 4, 6, 6, 8, 3, 1, 2),  # the output is larger than the input
    (2, 3, 8, 8, 4, 4, 2, 1),
    (2, 6, 9, 11, 4, 4, 2, 1),  # the input's last row and column are in no patch
    (3, 2, 4, 4, 3, 4, 2, 0),  # a single output for each image
    (1, 4, 40, 50, 8, 4, 2, 1),  # more tiles than a chunk
    (2, 6, 9, 7, 3, 4, 1, 1),  # fewer outputs than inputs: mirrored columns
]
# The filter is as large as the image.
COVERED = [(3, 5, 4, 4, 6, 4, 1, 0), (2, 4, 3, 3, 1, 3, 2, 0)]
# No tiles.
OTHER = [
    (1, 3, 12, 11, 4, 7, 1, 3),
    (2, 2, 9, 9, 5, 3, 2, 1),
    (1, 5, 8, 7, 2, 7, 1, 0),
    (1, 3, 5, 5, 2, 1, 1, 0),
]
# kernel, stride and padding, down and across
OBLONG = [((1, 5), 1, (0, 2)), ((3, 1), (2, 1), (1, 0)), (3, (1, 2), 1), ((2, 3), 1, 0)]
ALGORITHMS = ("direct", "columns", "winograd2", "winograd4")


def cases():
    """(shape, algorithm) for all that can run each shape."""
    for shape in SHAPES + OTHER:
        tiles = convolution.TILES.get(shape[5:7], ())
        for name in ("direct", "columns", *(f"winograd{tile}" for tile in tiles)):
            yield shape, name
    for shape in COVERED:
        for name in ("direct", "columns", "product"):
            yield shape, name
    for sizes in OBLONG:
        yield (2, 5, 9, 12, 4, *sizes), "direct"


def taking(name, monkeypatch):
    """Lets all convolutions take this algorithm.

    Returns:
        A list that gets the result ("y", "x" or "w") of each operation that takes it.
    """
    calls = []

    def forced(shapes, result, functions):
        assert name in shapes.possible()
        calls.append(result)
        return name

    monkeypatch.setattr(algorithms, "fastest", forced)
    return calls


# ---- by hand ----


def layer_of(cls, weight, **options):
    """A layer with these weights, (outputs, inputs, k, k) or transposed."""
    first, second, k, _ = np.shape(weight)
    inputs, outputs = (second, first) if cls is nn.Conv else (first, second)
    layer = cls(inputs, outputs, k, bias=False, **options)
    layer.weight.update(jt.array(np.asarray(weight, np.float32)))
    return layer


@pytest.mark.parametrize("name", ALGORITHMS)
def test_by_hand_3x3(name, monkeypatch):
    calls = taking(name, monkeypatch)
    x = jt.array(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    # The sums of the 3 x 3 windows of 0 .. 15.
    sums = layer_of(nn.Conv, np.ones((1, 1, 3, 3)))(x)
    np.testing.assert_allclose(sums.numpy(), [[[[45, 54], [81, 90]]]], rtol=1e-5)
    # The pixel below to the right of each window's centre.
    corner = np.zeros((1, 1, 3, 3))
    corner[0, 0, 2, 2] = 1
    pixels = layer_of(nn.Conv, corner)(x)
    np.testing.assert_allclose(pixels.numpy(), [[[[10, 11], [14, 15]]]], rtol=1e-5)
    assert calls == ["y", "y"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_by_hand_4x4_with_stride_2(name, monkeypatch):
    calls = taking(name, monkeypatch)
    ones = np.ones((1, 1, 4, 4))
    # With a border of zeros each window holds 3 x 3 pixels: around 5, 6, 9 and 10.
    x = jt.array(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    sums = layer_of(nn.Conv, ones, stride=2, padding=1)(x)
    np.testing.assert_allclose(sums.numpy(), [[[[45, 54], [81, 90]]]], rtol=1e-5)
    # Transposed: each of the 2 x 2 values spreads over 4 x 4 pixels, two apart; the
    # border is cut off.
    y = jt.array(np.array([[[[1, 2], [3, 4]]]], np.float32))
    spread = layer_of(nn.ConvTranspose, ones, stride=2, padding=1)(y)
    expected = [[1, 3, 3, 2], [4, 10, 10, 6], [4, 10, 10, 6], [3, 7, 7, 4]]
    np.testing.assert_allclose(spread.numpy(), [[expected]], rtol=1e-5)
    assert calls == ["y", "x"]


@pytest.mark.parametrize(("tile", "taps"), [(2, 2), (2, 3), (2, 4), (4, 2), (4, 3)])
def test_winograds_matrices_give_the_filter_exactly(tile, taps):
    d = [Fraction(i * i - 7) for i in range(tile + taps - 1)]
    g = [Fraction(2 * i + 3) for i in range(taps)]
    products = []
    B, G, A = winograd.matrices(tile, taps)
    for b_row, g_row in zip(B, G):
        from_d = sum(b * x for b, x in zip(b_row, d))
        from_g = sum(b * x for b, x in zip(g_row, g))
        products.append(from_d * from_g)
    outputs = [sum(row[i] * m for row, m in zip(A, products)) for i in range(tile)]
    assert outputs == [sum(d[i + j] * g[j] for j in range(taps)) for i in range(tile)]


# ---- against PyTorch ----


def copy_weights(ours, theirs, torch):
    theirs.weight.data = torch.tensor(ours.weight.numpy())
    theirs.bias.data = torch.tensor(ours.bias.numpy())


def assert_close(got, expected):
    """Within 2e-5 of the largest element."""
    for one, other in zip(got, expected):
        other = other.detach().numpy()
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("layer", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("shape", "name"), list(cases()))
def test_values_and_both_derivatives(layer, shape, name, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    calls = taking(name, monkeypatch)
    images, inputs, height, width, outputs, k, stride, padding = shape
    if shape in COVERED and layer == "ConvTranspose":
        height = 1  # from one pixel to an image
        width = 1
    # A sum that nearly cancels would be off by more of its own size.
    jt.set_global_seed(0)
    ours = getattr(nn, layer)(inputs, outputs, k, stride=stride, padding=padding)
    theirs = getattr(torch.nn, f"{layer}2d")(inputs, outputs, k, stride=stride, padding=padding)
    copy_weights(ours, theirs, torch)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, inputs, height, width), dtype=np.float32)
    u = rng.standard_normal(tuple(ours.weight.shape), dtype=np.float32)

    t = torch.tensor(x, requires_grad=True)
    z = theirs(t)
    d = rng.standard_normal(tuple(z.shape), dtype=np.float32)
    loss = (torch.tanh(z) * torch.tensor(d)).sum()
    expected = torch.autograd.grad(loss, [t, theirs.weight, theirs.bias], create_graph=True)
    penalty = (expected[0] ** 2).sum() + (expected[1] * torch.tensor(u)).sum()
    expected_again = torch.autograd.grad(penalty, [t, theirs.weight])

    a = jt.array(x)
    y = ours(a)
    got = jt.grad((jt.tanh(y) * jt.array(d)).sum(), [a, ours.weight, ours.bias])
    penalty = (got[0] ** 2).sum() + (got[1] * jt.array(u)).sum()
    again = jt.grad(penalty, [a, ours.weight])
    assert_close([y, *got, *again], [z, *expected, *expected_again])
    assert set(calls) == {"x", "y", "w"}


@pytest.mark.parametrize("name", ["direct", "columns"])
def test_a_transposed_convolution_with_output_padding(name, monkeypatch):
    """As CycleGAN's, from odd and even sizes to their doubles.

    The last row and column have the bias, too.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    calls = taking(name, monkeypatch)
    jt.set_global_seed(0)
    sizes = {"stride": 2, "padding": 1, "output_padding": 1}
    ours = nn.ConvTranspose(5, 3, 3, **sizes)
    theirs = torch.nn.ConvTranspose2d(5, 3, 3, **sizes)
    copy_weights(ours, theirs, torch)
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 6), dtype=np.float32)
    a = jt.array(x)
    y = ours(a)
    t = torch.tensor(x, requires_grad=True)
    z = theirs(t)
    assert tuple(y.shape) == tuple(z.shape) == (2, 3, 14, 12)
    got = jt.grad(jt.tanh(y).sum(), [a, ours.weight, ours.bias])
    expected = torch.autograd.grad(torch.tanh(z).sum(), [t, theirs.weight, theirs.bias])
    assert_close([y, *got], [z, *expected])
    assert set(calls) == {"x", "y", "w"}


# ---- against Jittor ----


def test_what_the_kernels_cannot_do_is_left_to_jittor(monkeypatch):
    calls = taking("direct", monkeypatch)
    image = jt.array(np.ones((2, 8, 8, 8), np.float32))
    nn.Conv(8, 8, 3, padding=1, groups=2)(image)
    nn.Conv(8, 8, 3, padding=2, dilation=2)(image)
    nn.ConvTranspose(8, 8, 3, dilation=2)(image)
    assert not calls


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_is_jittors_layer_otherwise(name, monkeypatch):
    """It takes Jittor's state, and runs as Jittor's where oneDNN is missing."""
    ours = getattr(nn, name)(64, 64, 3, padding=1)
    plain = getattr(jittor_nn, name)(64, 64, 3, padding=1)
    values = {key: v.numpy() for key, v in plain.named_parameters()}
    assert set(values) == {"weight", "bias"}
    ours.load_state_dict(values)
    x = jt.array(np.random.default_rng(0).standard_normal((2, 64, 8, 8), dtype=np.float32))
    expected = plain(x).numpy()
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=0, atol=atol)
    monkeypatch.setattr(convolution, "onednn_is_loaded", lambda: False)
    np.testing.assert_array_equal(ours(x).numpy(), expected)


def test_wrong_channels_are_refused_as_by_jittor(monkeypatch):
    calls = taking("direct", monkeypatch)
    for layer in (nn.Conv(4, 4, 3), nn.ConvTranspose(4, 4, 3)):
        with pytest.raises((AssertionError, RuntimeError)):
            layer(jt.array(np.ones((1, 5, 8, 8), np.float32))).sync()
    assert not calls


@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_calls_give_equal_bits(name, monkeypatch):
    taking(name, monkeypatch)
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((4, 64, 16, 16), dtype=np.float32))
    layer = nn.Conv(64, 96, 4, stride=2, padding=1)
    results = []
    for _ in range(3):
        y = layer(x)
        gradients = jt.grad((y**2).sum(), [x, layer.weight])
        results.append([v.numpy() for v in (y, *gradients)])
    for result in results[1:]:
        for got, expected in zip(result, results[0]):
            np.testing.assert_array_equal(got, expected)
