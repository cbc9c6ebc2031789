"""fir_resample, modulate and the convolutions with given weights, against PyTorch."""

import jittor as jt
import numpy as np
import pytest

from jittor_fast import call, fir_resample, modulate, nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
F = torch.nn.functional


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["kernels", "operators"])
def kernels(request, monkeypatch):
    """Whether the kernels run, or Jittor's operators as on a GPU."""
    monkeypatch.setattr(call, "enabled", request.param)


# ---- derivatives ----


def assert_same_derivatives(ours, theirs, arrays):
    """Values, gradients, and the gradients of a sum of squared gradients.

    Args:
        ours, theirs: the same function of as many variables, or tensors.
        arrays: the values of its arguments.
    """
    variables = [jt.array(array) for array in arrays]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = ours(*variables)
    expected = theirs(*tensors)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-4)

    weights = normal(*y.shape, seed=9)
    first = jt.grad((y * jt.array(weights)).sum(), variables)
    expected_first = torch.autograd.grad(
        (expected * torch.tensor(weights)).sum(), tensors, create_graph=True
    )
    for found, gradient in zip(first, expected_first):
        np.testing.assert_allclose(found.numpy(), gradient.detach().numpy(), rtol=1e-4, atol=1e-3)

    y = ours(*variables)
    first = jt.grad((y**2).sum(), variables)
    second = jt.grad(sum((gradient**2).sum() for gradient in first), variables)
    expected = theirs(*tensors)
    gradients = torch.autograd.grad((expected**2).sum(), tensors, create_graph=True)
    penalty = sum((gradient**2).sum() for gradient in gradients)
    for found, gradient in zip(second, torch.autograd.grad(penalty, tensors)):
        scale = gradient.abs().max().item()
        np.testing.assert_allclose(found.numpy(), gradient.numpy(), rtol=1e-3, atol=1e-4 * scale)


# ---- resampling ----


def upfirdn(x, up, down, padding):
    """Zeros between and around the pixels, the filter, every down-th pixel."""
    n, c, height, width = x.shape
    wide = torch.zeros(n, c, up * height, up * width)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, (*padding, *padding))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8 * up
    weight = torch.outer(taps, taps).expand(c, 1, 4, 4)
    return F.conv2d(wide, weight, groups=c)[:, :, ::down, ::down]


CASES = [(1, 1, (1, 1)), (1, 1, (2, 2)), (2, 1, (2, 1)), (1, 2, (1, 1))]


@pytest.mark.parametrize(("up", "down", "padding"), CASES)
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 5, 3)])
def test_resampling(kernels, shape, up, down, padding):
    assert_same_derivatives(
        lambda x: fir_resample(x, up, down, padding),
        lambda x: upfirdn(x, up, down, padding),
        [normal(*shape)],
    )


@pytest.mark.parametrize(("up", "down", "padding"), CASES)
def test_resampling_on_all_threads(up, down, padding):
    """More than 65,536 pixels."""
    x = normal(3, 32, 34, 40)
    found = fir_resample(jt.array(x), up, down, padding).numpy()
    expected = upfirdn(torch.tensor(x), up, down, padding).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_by_hand(kernels):
    """Doubled: between a and b stand (3 a + b) / 4 and (a + 3 b) / 4."""
    row = np.float32([0, 4, 8, 0])
    image = np.tile(row, (4, 1))[None, None]
    doubled = fir_resample(jt.array(image), up=2, padding=(2, 1)).numpy()
    assert doubled.shape == (1, 1, 8, 8)
    assert np.allclose(doubled[0, 0, 3], [0, 1, 3, 5, 7, 6, 2, 0])
    halved = fir_resample(jt.array(image), down=2, padding=(1, 1)).numpy()
    assert halved.shape == (1, 1, 2, 2)
    # (1 * 0 + 3 * 0 + 3 * 4 + 1 * 8) / 8 along the row, 7 / 8 across it at the edge
    assert np.allclose(halved[0, 0, 0], np.array([20, 28]) / 8 * 7 / 8)


# ---- a factor for each channel ----


def test_modulation(kernels):
    assert_same_derivatives(
        modulate, lambda x, s: x * s[:, :, None, None], [normal(2, 3, 4, 5), normal(2, 3, seed=1)]
    )


def test_modulation_on_all_threads():
    x = normal(5, 16, 32, 32)
    factor = normal(5, 16, seed=1)
    a = jt.array(x)
    b = jt.array(factor)
    y = modulate(a, b)
    dx, dfactor = jt.grad((y**2).sum(), [a, b])
    np.testing.assert_allclose(y.numpy(), x * factor[:, :, None, None], rtol=1e-6)
    np.testing.assert_allclose(dx.numpy(), 2 * x * factor[:, :, None, None] ** 2, rtol=1e-5)
    expected = 2 * factor * (np.float64(x) ** 2).sum((2, 3))
    np.testing.assert_allclose(dfactor.numpy(), expected, rtol=1e-4)


def test_modulation_with_a_shift(kernels):
    assert_same_derivatives(
        modulate,
        lambda x, s, b: x * s[:, :, None, None] + b[:, :, None, None],
        [normal(2, 3, 4, 5), normal(2, 3, seed=1), normal(2, 3, seed=2)],
    )


def test_modulation_with_a_shift_on_all_threads():
    x = normal(5, 16, 32, 32)
    factor = normal(5, 16, seed=1)
    shift = normal(5, 16, seed=2)
    variables = [jt.array(a) for a in (x, factor, shift)]
    y = modulate(*variables)
    expected = x * factor[:, :, None, None] + shift[:, :, None, None]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-5)
    dx, dfactor, dshift = jt.grad((y**2).sum(), variables)
    dx_expected = 2 * expected * factor[:, :, None, None]
    np.testing.assert_allclose(dx.numpy(), dx_expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dfactor.numpy(), 2 * (x * expected).sum((2, 3)), rtol=1e-3)
    np.testing.assert_allclose(dshift.numpy(), 2 * expected.sum((2, 3)), rtol=1e-3, atol=1e-2)


# ---- convolutions with given weights ----


@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (1, 1, 0)])
def test_convolution(kernels, k, stride, padding):
    assert_same_derivatives(
        lambda x, w, b: nn.conv2d(x, w, b, stride=stride, padding=padding),
        lambda x, w, b: F.conv2d(x, w, b, stride=stride, padding=padding),
        [normal(2, 3, 7, 7), normal(4, 3, k, k, seed=1), normal(4, seed=2)],
    )


@pytest.mark.parametrize(("stride", "padding", "more"), [(2, 0, 0), (2, 1, 1), (1, 1, 0)])
def test_transposed_convolution(kernels, stride, padding, more):
    assert_same_derivatives(
        lambda x, w: nn.conv_transpose(x, w, None, stride, padding, more),
        lambda x, w: F.conv_transpose2d(x, w, None, stride, padding, more),
        [normal(2, 3, 5, 5), normal(3, 4, 3, 3, seed=1)],
    )


def test_groups_and_dilation_are_jittors():
    x = normal(2, 4, 7, 7)
    w = normal(6, 2, 3, 3, seed=1)
    found = nn.conv2d(jt.array(x), jt.array(w), groups=2, dilation=2).numpy()
    expected = F.conv2d(torch.tensor(x), torch.tensor(w), groups=2, dilation=2).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
