"""SPADE's modulation, until the pages are converted."""

import jittor as jt
import numpy as np
import pytest

from jittor_fast import call, nn

SHAPES = [(2, 3, 4, 4), (1, 5, 7, 3), (3, 1, 9, 2), (4, 8, 65, 67)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_modulation(shape, enabled, monkeypatch):
    monkeypatch.setattr(call, "enabled", enabled)
    x = normal(*shape)
    gamma = normal(*shape, seed=1)
    beta = normal(*shape, seed=2)
    d = normal(*shape, seed=3)
    a = jt.array(x)
    both = jt.array(np.concatenate([gamma, beta], axis=1))
    y = nn.modulate(a, both)
    dx, dboth = jt.grad((y * jt.array(d)).sum(), [a, both])
    expected = [x * (1 + gamma) + beta, d * (1 + gamma), np.concatenate([d * x, d], axis=1)]
    for got, wanted in zip((y, dx, dboth), expected):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_modulation_refuses_a_second_derivative_and_other_shapes():
    a = jt.array(normal(2, 3, 4, 4))
    both = jt.array(normal(2, 6, 4, 4))
    dx = jt.grad((nn.modulate(a, both) ** 2).sum(), a)
    with pytest.raises(RuntimeError, match="second derivative"):
        jt.grad((dx * dx).sum(), both)
    with pytest.raises(ValueError, match=r"\[2, 6, 4, 4\], got \[2, 3, 4, 4\]"):
        nn.modulate(a, a)
