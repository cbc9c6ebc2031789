"""Spectral norm against PyTorch's."""

import jittor as jt
import numpy as np
import pytest

from jittor_fast import SpectralNorm, nn

torch = pytest.importorskip("torch")


@pytest.fixture
def pair():
    """A convolution with spectral norm here, and in PyTorch with the same state."""
    ours = SpectralNorm(nn.Conv(5, 7, 3, padding=1))
    inner = torch.nn.Conv2d(5, 7, 3, padding=1)
    state = {name: torch.tensor(v.numpy()) for name, v in ours.conv.state_dict().items()}
    inner.load_state_dict(state)
    theirs = torch.nn.utils.spectral_norm(inner)
    theirs.weight_u = torch.tensor(ours.weight_u.numpy())
    ours.train()
    return ours, theirs


def batch():
    return np.random.default_rng(0).standard_normal((2, 5, 6, 6)).astype(np.float32)


def test_the_vector_has_length_1(pair):
    ours, _ = pair
    assert np.isclose(np.linalg.norm(ours.weight_u.numpy()), 1, atol=1e-6)


def test_training_steps_are_pytorchs(pair):
    """Outputs, gradients by their updates, and the state of the power iteration."""
    ours, theirs = pair
    x = batch()
    optimizer = nn.Adam(ours.parameters(), lr=0.01)
    other = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for _ in range(4):
        got = ours(jt.array(x))
        expected = theirs(torch.tensor(x))
        assert np.allclose(got.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        assert np.allclose(ours.weight_u.numpy(), theirs.weight_u.numpy(), rtol=1e-4, atol=1e-5)
        optimizer.step((got**3).mean())
        other.zero_grad()
        (expected**3).mean().backward()
        other.step()
        jt.sync_all()
    weight = ours.conv.weight.numpy()
    assert np.allclose(weight, theirs.weight_orig.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_iteration_finds_the_largest_singular_value(pair):
    ours, _ = pair
    for _ in range(200):
        ours(jt.array(batch())).sync()
    weight = ours.conv.weight
    largest = np.linalg.svd(weight.numpy().reshape(7, -1), compute_uv=False)[0]
    assert np.isclose(ours.sigma(weight).item(), largest, rtol=1e-4)


def test_evaluation_leaves_the_vector_alone(pair):
    ours, _ = pair
    ours(jt.array(batch())).sync()
    before = ours.weight_u.numpy().copy()
    ours.eval()
    ours(jt.array(batch())).sync()
    assert np.array_equal(ours.weight_u.numpy(), before)
