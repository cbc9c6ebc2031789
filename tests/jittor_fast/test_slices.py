"""`jittor_fast.chunk` against Jittor's own."""

import inspect

import jittor as jt
import numpy as np
import pytest

import jittor_fast
from jittor_fast import call


def results(chunk, x, used, options):
    """The slices, and the first and second derivatives of a loss of some of them."""
    a = jt.array(x)
    slices = chunk(a, *options)
    loss = sum((slices[i] ** 3).sum() * (i + 1) for i in used)
    gradient = jt.grad(loss, a)
    again = jt.grad((gradient**2).sum(), a)
    return [v.numpy() for v in (*slices, gradient, again)]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("used", [(0, 1), (1,)])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((6, 4, 7), (2,)),
        ((6, 4, 7), (2, 1)),
        ((6, 4, 7), (2, -2)),
        ((6, 4, 7), (2, 2)),  # the second slice is smaller
        ((6, 4, 7), (3, 0)),
        ((4, 8, 65, 67), (2, 1)),  # large enough to be shared between the cores
    ],
)
def test_is_jittors(shape, options, used, enabled, monkeypatch):
    """Also where the loss does not depend on a slice."""
    monkeypatch.setattr(call, "enabled", enabled)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    got = results(jittor_fast.chunk, x, used, options)
    expected = results(jt.chunk, x, used, options)
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_has_jittors_arguments():
    assert inspect.signature(jittor_fast.chunk) == inspect.signature(jt.chunk)
