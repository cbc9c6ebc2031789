"""Weight norm beside PyTorch's."""

import jittor as jt
import numpy as np
import pytest

from jittor_fast import call, weight_norm

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 401)])
def test_weights_and_gradients(monkeypatch, enabled, shape):
    """(300, 401) has more than 65,536 elements, which several threads share."""
    monkeypatch.setattr(call, "enabled", enabled)
    rng = np.random.default_rng(0)
    v, dw = rng.standard_normal((2, *shape)).astype(np.float32)
    scale = rng.standard_normal(shape[0]).astype(np.float32)
    a, b = jt.array(v), jt.array(scale)
    w = weight_norm(a, b)
    gradients = jt.grad((w * jt.array(dw)).sum(), [a, b])

    t = torch.tensor(v, dtype=torch.float64, requires_grad=True)
    g = torch.tensor(scale, dtype=torch.float64).unsqueeze(1).requires_grad_()
    expected = torch._weight_norm(t, g, 0)
    (expected * torch.tensor(dw)).sum().backward()
    np.testing.assert_allclose(w.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[0].numpy(), t.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1].numpy(), g.grad.numpy()[:, 0], rtol=1e-4, atol=1e-5)
