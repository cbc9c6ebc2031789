"""vae.py: both terms of the bound by hand, the estimate of a known likelihood, pictures, bad input."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn
from PIL import Image
from small import FLAGS, SHARED, make_data, run

import vae as script


def test_bernoulli_likelihood_by_hand():
    """Pixels 1 and 0 with probabilities 0.8 and 0.3 of white: log 0.8 + log 0.7, summed over the pixels."""
    logits = np.log([0.8 / 0.2, 0.3 / 0.7]).astype(np.float32).reshape(1, 1, 1, 2)
    got = script.log_likelihood(jt.array(logits), jt.array(np.float32([[[[1, 0]]]])), "bernoulli")
    assert np.allclose(got.numpy(), [np.log(0.8) + np.log(0.7)])


def test_gaussian_likelihood_by_hand():
    x, output = np.float32([[[[0, 1]]]]), np.float32([[[[0, 3]]]])
    got = script.log_likelihood(jt.array(output), jt.array(x), "gaussian")
    assert np.allclose(got.numpy(), [-np.log(2 * np.pi) - 2])  # twice -log(2 pi) / 2, and -(3 - 1)^2 / 2


def test_likelihood_of_extreme_logits_is_finite():
    logits, x = np.float32([[[[200, -200]]]]), np.zeros((1, 1, 1, 2), np.float32)
    got = script.log_likelihood(jt.array(logits), jt.array(x), "bernoulli")
    assert np.allclose(got.numpy(), [-200])


def test_likelihood_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        script.log_likelihood(jt.zeros((2, 1, 4, 4)), jt.zeros((2, 1, 1, 4)), "bernoulli")


@pytest.mark.parametrize(
    ("mu", "sigma", "expected"),
    [(0.0, 1.0, 0.0), (2.0, 1.0, 2.0), (0.0, 0.5, 0.5 * (0.25 - 1 - np.log(0.25)))],
)
def test_kl_by_hand(mu, sigma, expected):
    mean, logvar = np.full((2, 3), mu, np.float32), np.full((2, 3), 2 * np.log(sigma), np.float32)
    assert np.allclose(script.kl_divergence(jt.array(mean), jt.array(logvar)).numpy(), [3 * expected] * 2, atol=1e-6)


def test_log_mean_exp_does_not_overflow():
    assert np.allclose(script.log_mean_exp(np.array([[-1000.0, -1000.0], [0.0, np.log(3)]])), [-1000, np.log(2)])


class LinearDecoder(nn.Module):
    """p(x|z) = N(Wz, I), whose marginal is N(0, I + W W^T)."""

    def __init__(self, weights):
        super().__init__()
        self.weights = jt.array(weights)

    def execute(self, z):
        return jt.matmul(z, self.weights.transpose()).reshape(z.shape[0], 1, 1, -1)


def test_importance_weights_estimate_a_likelihood_known_in_closed_form():
    """A linear Gaussian model: log p(x) is exact, and the estimate with a rough q comes within 0.05 nats of it."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 2)).astype(np.float32)
    x = (rng.standard_normal((20, 2)) @ w.T + rng.standard_normal((20, 4))).astype(np.float32)
    covariance = np.eye(4) + w @ w.T
    exact = -0.5 * (4 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]
                    + np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x))  # fmt: skip
    posterior = np.linalg.inv(np.eye(2) + w.T @ w)  # covariance of p(z|x); q is made a fifth wider in deviation
    mu = (x @ w @ posterior).astype(np.float32)
    logvar = np.tile(np.log(1.44 * np.diag(posterior)), (20, 1)).astype(np.float32)
    noise = rng.standard_normal((20, 5000, 2)).astype(np.float32)
    weights = script.importance_weights(LinearDecoder(w), x.reshape(20, 1, 1, 4), mu, logvar, noise, "gaussian")
    assert weights.shape == (20, 5000)
    assert np.abs(script.log_mean_exp(weights) - exact).max() < 0.05
    assert (weights.mean(1) < exact).all()  # the ELBO is a lower bound


def test_binarization_has_the_pixels_probability():
    x = script.binarize(np.full((1000, 1, 10, 10), 0.3, np.float32), np.random.default_rng(0))
    assert set(np.unique(x)) == {0, 1}
    assert abs(x.mean() - 0.3) < 0.005


def test_grid_of_two_latents_covers_the_quantiles():
    """Corner by corner: the smallest quantile of z1 is left, the largest of z2 above."""

    class Identity(nn.Module):
        def execute(self, z):
            return z.reshape(-1, 1, 1, 2)

    images = script.plane(Identity(), "bernoulli", side=4)
    z = np.log(images / (1 - images)).reshape(4, 4, 2)
    quantiles = [-1.1503, -0.3186, 0.3186, 1.1503]  # of the normal distribution at 1/8, 3/8, 5/8, 7/8
    assert np.allclose(z[0, :, 0], quantiles, atol=1e-3)
    assert np.allclose(z[:, 0, 1], quantiles[::-1], atol=1e-3)


@pytest.fixture
def data(tmp_path):
    return make_data("vae", tmp_path / "data")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--model", "vae"], {"reconstructions.png", "result.png", "scatter.png"}),
        (["--model", "vae", "--latent_dim", 2], {"reconstructions.png", "result.png", "scatter.png", "plane.png"}),
        (["--model", "ae"], {"reconstructions.png", "result.png", "scatter.png"}),
        (["--model", "ae", "--latent_dim", 1], {"reconstructions.png", "result.png", "scatter.png"}),
    ],
)
def test_pictures(data, tmp_path, flags, names):
    out = tmp_path / "out"
    run("vae", "--data_dir", data, *SHARED, *FLAGS["vae"], *flags, "--out_dir", out)
    assert {f.name for f in out.glob("*.png")} - {"losses.png"} == names
    assert Image.open(out / "reconstructions.png").size == (10 * 10 + 2, 8 * 10 + 2)  # 40 test images, and theirs


def test_evaluate_prints_the_estimates(data, tmp_path, capsys):
    run("vae", "--data_dir", data, *SHARED, *FLAGS["vae"], "--out_dir", tmp_path / "out")
    flags = ["--resume", tmp_path / "out", "--sample_only", "--evaluate", "--importance_samples", 20, "--n_eval", 30]
    for _ in range(2):  # the same for the same model
        run("vae", *flags)
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Test part")]
    assert first == second
    assert "30 images: log-likelihood -" in first
    assert "20 importance samples" in first


def test_the_auto_encoder_has_no_prior(data, tmp_path, fails):
    run("vae", "--data_dir", data, *SHARED, *FLAGS["vae"], "--model", "ae", "--out_dir", tmp_path / "out")
    for flags in (["--n_samples", 3], ["--evaluate"], []):
        code, line = fails(script.main, ["--resume", tmp_path / "out", "--sample_only", *flags])
        assert code == 2
        assert "no prior" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 30], "such as 28 or 32"),
        (["--latent_dim", 0], "--latent_dim"),
        (["--beta", -1], "--beta"),
        (["--model", "vqvae"], "--model"),
        (["--importance_samples", 0], "--importance_samples"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
