"""`jittor_fast` in Jittor's operators, as on a GPU: with the kernels switched off, the same numbers must come out."""

import jittor as jt
import numpy as np
import pytest

import jittor_fast as fast
from jittor_fast import kernels, layers

torch = pytest.importorskip("torch")


@pytest.fixture
def operators(monkeypatch):
    monkeypatch.setattr(kernels, "enabled", False)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_with_a_large_mean(operators, affine):
    """E[x^2] - E[x]^2 in float32 would lose the variance of 1 beside a mean of 1,000."""
    x, dy = 1000 + normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1)
    ours, theirs = (
        fast.InstanceNorm2d(4, affine=affine),
        torch.nn.InstanceNorm2d(4, affine=affine).double(),
    )
    if affine:
        weight, bias = 1 + 0.1 * normal(4, seed=2), normal(4, seed=3)
        ours.weight.update(jt.array(weight)), ours.bias.update(jt.array(bias))
        theirs.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    vx, tx = jt.array(x), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y, expected = ours(vx), theirs(tx)
    (expected * torch.tensor(dy)).sum().backward()
    assert np.allclose(y.numpy(), expected.detach().numpy(), atol=2e-3)
    assert np.allclose(jt.grad((y * jt.array(dy)).sum(), vx).numpy(), tx.grad.numpy(), atol=2e-3)


def test_adam_has_the_papers_eps(operators):
    """With gradients of about 1e-7, an eps of 3.2e-7 instead of 1e-8 would shorten the first step to a quarter."""
    p0, gradients = normal(50), 1e-7 * normal(3, 50, seed=1)
    p, expected = jt.array(p0), torch.tensor(p0, dtype=torch.float64, requires_grad=True)
    ours, theirs = (
        fast.Adam([p], lr=0.01, betas=(0.5, 0.9)),
        torch.optim.Adam([expected], lr=0.01, betas=(0.5, 0.9)),
    )
    for g in gradients:
        ours.step((p * jt.array(g)).sum())
        expected.grad = torch.tensor(g, dtype=torch.float64)
        theirs.step()
    assert np.abs(p.numpy() - p0).max() > 0.02
    assert np.allclose(p.numpy(), expected.detach().numpy(), atol=1e-5)


def test_dropout_draws_the_same_mask_as_the_kernel(monkeypatch):
    x, results = jt.array(1 + np.abs(normal(3, 5, 7))), []
    for enabled in (True, False):
        monkeypatch.setattr(kernels, "enabled", enabled)
        fast.set_seed(123456789)
        layer = fast.Dropout(0.3)
        layer.train()
        y = layer(x)
        results.append((y.numpy(), jt.grad(y.sum(), x).numpy()))
    assert all(np.array_equal(a, b) for a, b in zip(*results))
    values, slopes = results[0]
    assert np.array_equal(values == 0, slopes == 0)
    assert 0.5 < (slopes != 0).mean() < 0.9
    assert np.allclose(slopes[slopes != 0], 1 / 0.7)


def test_hashes_are_those_of_32_bits():
    i = np.arange(4000, dtype=np.uint32) ^ np.uint32(987654321)
    i = (i ^ (i >> 16)) * np.uint32(0x21F0AAAD)
    i = (i ^ (i >> 15)) * np.uint32(0xD35A2D97)
    assert np.array_equal(layers.hashes(4000, 987654321).numpy(), i ^ (i >> 15))


def test_a_seed_gives_its_masks_again():
    layer, x, masks = fast.Dropout(0.5), jt.ones((1000,)), []
    layer.train()
    for seed in (1 << 29, 1 << 29, 1 << 30):
        fast.set_seed(seed)
        masks.append([(layer(x).numpy() != 0).tobytes() for _ in range(2)])
    assert masks[0] == masks[1]
    assert len({*masks[0], *masks[2]}) == 4
