"""The noise of the unconditional generators."""

import numpy as np
import pytest

import common


def test_noise_is_a_uniform_code_and_normal_entries():
    z = common.latent_noise(np.random.default_rng(0), 20_000, latent_dim=6, n_codes=4)
    assert (z.shape, z.dtype) == ((20_000, 10), np.float32)
    code, normal = z[:, :4], z[:, 4:]
    assert ((code == 5).sum(1) == 1).all()
    assert ((code == 0).sum(1) == 3).all()
    assert np.allclose((code == 5).mean(0), 1 / 4, atol=0.01)
    assert np.allclose(normal.mean(0), 0, atol=0.03)
    assert np.allclose(normal.std(0), 1, atol=0.03)
    assert np.abs(np.corrcoef(z.T)[:4, 4:]).max() < 0.03


def test_without_codes_noise_is_one_normal():
    z = common.latent_noise(np.random.default_rng(3), 5, latent_dim=7, n_codes=0)
    assert np.array_equal(z, np.random.default_rng(3).standard_normal((5, 7), dtype=np.float32))


@pytest.mark.parametrize("n_codes", [2, 16])
def test_clusters_lie_far_apart(n_codes):
    """Points of two clusters differ by at least the distance of their codes, 5 * sqrt(2)."""
    z = common.latent_noise(np.random.default_rng(1), 500, latent_dim=3, n_codes=n_codes)
    code = z[:, :n_codes].argmax(1)
    distance = np.linalg.norm(z[:, None] - z[None], axis=2)
    assert distance[code[:, None] != code].min() >= 5 * np.sqrt(2) - 1e-5
