"""attend and max_pool2d against PyTorch."""

import jittor as jt
import numpy as np
import pytest

from jittor_fast import attend, call, nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
F = torch.nn.functional


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["kernels", "operators"])
def kernels(request, monkeypatch):
    """Whether the kernels run, or Jittor's operators as on a GPU."""
    monkeypatch.setattr(call, "enabled", request.param)


def assert_same_gradients(ours, theirs, arrays):
    """Values and gradients of the same function of variables and of tensors."""
    variables = [jt.array(array) for array in arrays]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = ours(*variables)
    expected = theirs(*tensors)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    weights = normal(*y.shape, seed=9)
    found = jt.grad((y * jt.array(weights)).sum(), variables)
    gradients = torch.autograd.grad((expected * torch.tensor(weights)).sum(), tensors)
    for gradient, value in zip(gradients, found):
        scale = gradient.abs().max().item()
        np.testing.assert_allclose(value.numpy(), gradient.numpy(), rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("sizes", [(3, 2, 5, 12, 4), (1, 1, 1, 1, 1), (5, 8, 32, 256, 64)])
def test_attend(kernels, sizes):
    """Of images, depth, size, pixels and places."""
    n, depth, size, pixels, places = sizes

    def reference(queries, keys, values):
        weights = F.softmax(queries.transpose(1, 2) @ keys, dim=2)
        return values @ weights.transpose(1, 2)

    arrays = [
        normal(n, depth, pixels),
        normal(n, depth, places, seed=1),
        normal(n, size, places, seed=2),
    ]
    assert_same_gradients(attend, reference, arrays)


def test_attend_with_large_products():
    """exp(300) is infinite; the softmax is not."""
    queries = jt.array(np.full((1, 1, 2), 300, np.float32))
    keys = jt.array(np.float32([[[0, 1]]]))
    values = jt.array(np.float32([[[5, 7]]]))
    assert np.allclose(attend(queries, keys, values).numpy(), 7)


def test_attend_has_no_second_derivative():
    x = jt.array(normal(1, 2, 4))
    y = attend(x, x, x)
    with pytest.raises(RuntimeError, match="second derivative"):
        jt.grad((jt.grad(y.sum(), x) ** 2).sum(), x).sync()


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 3, 3), (8, 16, 32, 32), (2, 2, 5, 7)])
def test_max_pool(kernels, shape):
    assert_same_gradients(
        lambda x: nn.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), [normal(*shape)]
    )


def test_max_pool_of_equal_pixels():
    """The first one gets the gradient, as in PyTorch."""
    x = jt.ones((1, 1, 2, 4))
    (gradient,) = jt.grad(nn.max_pool2d(x, 2).sum(), [x])
    assert gradient.numpy().tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


def test_other_windows_are_jittors():
    x = normal(1, 2, 7, 7)
    found = nn.max_pool2d(jt.array(x), 3, stride=2).numpy()
    assert np.array_equal(found, F.max_pool2d(torch.tensor(x), 3, stride=2).numpy())
