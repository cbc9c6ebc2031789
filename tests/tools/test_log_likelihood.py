"""tools/log_likelihood.py: its estimate where the likelihood is known, and of a run."""

from common.data import load_images

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder

import vae
from jittor_fast import nn
from tools import log_likelihood as tool


@pytest.fixture
def digits(tmp_path):
    """A folder with 40 random digits in each split."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
        write_idx_folder(tmp_path / "digits", images, labels, split)
    return tmp_path / "digits"


def test_log_mean_exp_does_not_overflow():
    values = np.array([[-1000.0, -1000.0], [0.0, np.log(3)]])
    assert np.allclose(tool.log_mean_exp(values), [-1000, np.log(2)])


class LinearDecoder(nn.Module):
    """codes z  ->  the logits of the means W z + 1/2, with variance 0.01.

    So p(x) = N(1/2, 0.01 I + W W^T).
    """

    def __init__(self, weights):
        super().__init__()
        self.weights = jt.array(weights)
        self.running_var = jt.array(np.float32([0.01]))

    def execute(self, z):
        mean = jt.matmul(z, self.weights.transpose()) + 0.5
        return jt.log(mean / (1 - mean)).reshape(z.shape[0], 1, 1, -1)


def test_the_estimate_of_a_likelihood_in_closed_form():
    """A linear Gaussian model: the estimate is within 0.05 nats of the exact log p(x).

    The standard deviation of q is a fifth greater than that of the exact p(z|x).
    """
    rng = np.random.default_rng(0)
    w = (0.05 * rng.uniform(-1, 1, (4, 2))).astype(np.float32)  # means stay within (0, 1)
    codes = rng.standard_normal((20, 2))
    pixel_noise = rng.standard_normal((20, 4))
    x = (0.5 + codes @ w.T + 0.1 * pixel_noise).astype(np.float32)
    centred = x - 0.5

    covariance = 0.01 * np.eye(4) + w @ w.T
    squares = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    exact = -0.5 * (4 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + squares)

    posterior = np.linalg.inv(np.eye(2) + w.T @ w / 0.01)  # covariance of p(z|x)
    mu = (centred @ w @ posterior / 0.01).astype(np.float32)
    logvar = np.tile(np.log(1.44 * np.diag(posterior)), (20, 1)).astype(np.float32)
    noise = rng.standard_normal((20, 5000, 2)).astype(np.float32)
    images = x.reshape(20, 1, 1, 4)
    weights = tool.log_weights(LinearDecoder(w), images, mu, logvar, noise, "gaussian")
    assert weights.shape == (20, 5000)
    assert np.abs(tool.log_mean_exp(weights) - exact).max() < 0.05
    assert (weights.mean(1) < exact).all()  # the ELBO is a lower bound


class ShiftedEncoder(nn.Module):
    """q(z|x) = N(1/2, 1) for each image."""

    def execute(self, x):
        return jt.full((x.shape[0], 1), 0.5), jt.zeros((x.shape[0], 1))


class ConstantDecoder(nn.Module):
    """Each pixel is white with probability 0.7, whatever the code."""

    def execute(self, z):
        return jt.full((z.shape[0], 1, 8, 8), float(np.log(0.7 / 0.3)))


def test_the_estimate_if_the_code_has_no_influence(digits):
    """With q = N(m, 1) each w_k has the mean p(x), which is known; KL is m^2 / 2."""
    data = load_images(digits, 8, 1, split="test")
    found = tool.evaluate(
        ShiftedEncoder(), ConstantDecoder(), data, "bernoulli", n_samples=2000, n_eval=30
    )
    assert found["n_images"] == 30
    assert np.isclose(found["kl"], 0.125)
    assert found["active_latents"] == 0

    # The tool draws noise between two binarizations, so its white pixels are not
    # exactly these.
    grey = (data.batch(np.arange(30))[0] + 1) / 2
    share = tool.binarize(grey, np.random.default_rng(20131220)).mean()
    expected = 64 * (share * np.log(0.7) + (1 - share) * np.log(0.3))
    assert abs(found["log_likelihood"] - expected) < 3 * found["standard_error"]
    assert np.isclose(found["elbo"], found["log_likelihood"] - 0.125, atol=0.02)


def test_binarization_has_the_pixels_probability():
    x = tool.binarize(np.full((1000, 1, 10, 10), 0.3, np.float32), np.random.default_rng(0))
    assert set(np.unique(x)) == {0, 1}
    assert abs(x.mean() - 0.3) < 0.005


def test_the_estimate_of_a_run(digits, tmp_path, capsys):
    """Two calls agree, and the ELBO is below the estimate."""
    out = tmp_path / "out"
    flags = ["--img_size", "8", "--hidden", "7", "--latent_dim", "3", "--batch_size", "10"]
    vae.main(["--data_dir", str(digits), *flags, "--n_epochs", "1", "--out_dir", str(out)])
    flags = [str(out), "--importance_samples", "20", "--n_eval", "30"]
    first = tool.main(flags)
    second = tool.main(flags)
    assert first == second
    assert first["elbo"] < first["log_likelihood"] < 0
    assert "30 test images: log-likelihood -" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--importance_samples", "0"], "--importance_samples"),
        (["--n_eval", "1"], "--n_eval"),
        ([], "no checkpoint"),
    ],
)
def test_bad_flags(fails, tmp_path, flags, message):
    code, line = fails(tool.main, [tmp_path, *flags])
    assert code == 2
    assert message in line
