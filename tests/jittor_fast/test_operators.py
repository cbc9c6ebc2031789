"""`jittor_fast` in Jittor's operators, as on a GPU, gives the kernels' results."""

import jittor as jt
import numpy as np
import pytest

import jittor_fast
from jittor_fast import call, dropout, nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_with_a_large_mean(affine, monkeypatch):
    """In float32, E[x^2] - E[x]^2 would lose the variance beside a mean of 1,000."""
    monkeypatch.setattr(call, "enabled", False)
    ours = nn.InstanceNorm2d(4, affine=affine)
    theirs = torch.nn.InstanceNorm2d(4, affine=affine).double()
    if affine:
        weight = 1 + 0.1 * normal(4, seed=2)
        bias = normal(4, seed=3)
        ours.weight.update(jt.array(weight))
        ours.bias.update(jt.array(bias))
        theirs.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    x = 1000 + normal(2, 4, 8, 8)
    dy = normal(2, 4, 8, 8, seed=1)
    a = jt.array(x)
    y = ours(a)
    dx = jt.grad((y * jt.array(dy)).sum(), a)
    t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = theirs(t)
    (expected * torch.tensor(dy)).sum().backward()
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=2e-3)
    np.testing.assert_allclose(dx.numpy(), t.grad.numpy(), atol=2e-3)


def test_dropout_draws_the_same_mask_as_the_kernel(monkeypatch):
    x = jt.array(1 + np.abs(normal(3, 5, 7)))
    results = []
    for enabled in (True, False):
        monkeypatch.setattr(call, "enabled", enabled)
        jittor_fast.set_seed(123456789)
        layer = nn.Dropout(0.3)
        layer.train()
        y = layer(x)
        results.append((y.numpy(), jt.grad(y.sum(), x).numpy()))
    for kernel, operators in zip(*results):
        np.testing.assert_array_equal(kernel, operators)
    values, slopes = results[0]
    np.testing.assert_array_equal(values == 0, slopes == 0)
    assert 0.5 < (slopes != 0).mean() < 0.9
    np.testing.assert_allclose(slopes[slopes != 0], 1 / 0.7, rtol=1e-5)


def test_hashes_are_those_of_32_bits():
    numbers = np.arange(4000, dtype=np.uint32)
    i = numbers ^ np.uint32(987654321)
    i = (i ^ (i >> 16)) * np.uint32(0x21F0AAAD)
    i = (i ^ (i >> 15)) * np.uint32(0xD35A2D97)
    found = dropout.hashes(jt.array(numbers), 987654321)
    np.testing.assert_array_equal(found.numpy(), i ^ (i >> 15))


def test_a_seed_gives_its_masks_again():
    layer = nn.Dropout(0.5)
    layer.train()
    x = jt.ones((1000,))
    masks = []
    for seed in (1 << 29, 1 << 29, 1 << 30):
        jittor_fast.set_seed(seed)
        masks.append([(layer(x).numpy() != 0).tobytes() for _ in range(2)])
    assert masks[0] == masks[1]
    assert len({*masks[0], *masks[2]}) == 4
