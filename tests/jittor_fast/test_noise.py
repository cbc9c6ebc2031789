"""Gaussian noise: its distribution, its gradient, and its seeds."""

import jittor as jt
import numpy as np
import pytest

import jittor_fast
from jittor_fast import add_noise, call

N = 1_000_000


def drawn(seed, n=N):
    jittor_fast.set_seed(seed)
    return add_noise(jt.zeros(n), 1.0).numpy()


def test_the_distribution_is_normal():
    noise = np.sort(drawn(1 << 29))
    torch = pytest.importorskip("torch")
    expected = torch.special.ndtr(torch.tensor(noise, dtype=torch.float64)).numpy()
    found = (np.arange(N) + 0.5) / N
    # Kolmogorov and Smirnov: 1.63 / sqrt(N) is exceeded by one of a hundred samples.
    assert np.abs(expected - found).max() < 1.63 / np.sqrt(N)
    assert abs(noise.mean()) < 4 / np.sqrt(N)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / N)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / N)
    assert 4.5 < noise[-1] < 6 and -6 < noise[0] < -4.5


def test_elements_and_calls_are_independent():
    jittor_fast.set_seed(1 << 29)
    zeros = jt.zeros(N)
    first = add_noise(zeros, 1.0).numpy()
    second = add_noise(zeros, 1.0).numpy()
    bound = 4 / np.sqrt(N)
    assert abs((first * second).mean()) < bound
    for step in (1, 2, 3, 16, 1000):
        assert abs((first[step:] * first[:-step]).mean()) < bound
        assert abs((first[step:] ** 2 * first[:-step] ** 2).mean() - 1) < 10 * bound


def test_a_seed_gives_its_noise_again():
    assert np.array_equal(drawn(1 << 29, 100), drawn(1 << 29, 100))
    assert not np.array_equal(drawn(1 << 29, 100), drawn(1 << 30, 100))


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_added_and_the_gradient_passes(monkeypatch, enabled):
    monkeypatch.setattr(call, "enabled", enabled)
    x = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    a = jt.array(x)
    jittor_fast.set_seed(1 << 29)
    y = add_noise(a, 0.5)
    noise = drawn(1 << 29, x.size).reshape(x.shape)
    np.testing.assert_allclose(y.numpy(), x + 0.5 * noise, atol=1e-5)
    dx = jt.grad((y**2).sum(), a)
    np.testing.assert_allclose(dx.numpy(), 2 * y.numpy(), atol=1e-5)


def test_operators_draw_the_noise_of_the_kernel(monkeypatch):
    by_kernel = drawn(1 << 29, 1000)
    monkeypatch.setattr(call, "enabled", False)
    np.testing.assert_allclose(drawn(1 << 29, 1000), by_kernel, atol=1e-5)
