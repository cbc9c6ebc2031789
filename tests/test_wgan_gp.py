"""wgan_gp.py: the estimate of a known distance, the penalty by hand, clipping."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn
from small import make_data, run, saved_arrays

import wgan_gp as script
from common import fast


def test_wasserstein_estimate_by_hand():
    assert np.isclose(script.wasserstein_estimate(jt.array([3.0, 5.0]), jt.array([1.0, 0.0])).item(), 3.5)
    with pytest.raises(ValueError, match="different shapes"):
        script.wasserstein_estimate(jt.zeros(4), jt.zeros((4, 1)))


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25)])
def test_penalty_of_a_linear_critic(slope, expected):
    """f(x) = slope * u.x with |u| = 1 has the gradient's norm |slope| everywhere."""
    u = np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)
    u = jt.array(slope * u / np.linalg.norm(u))
    real, fake = jt.randn((5, 2, 3, 3)), jt.randn((5, 2, 3, 3))
    penalty = script.gradient_penalty(lambda x: (x * u).sum((1, 2, 3)), real, fake, jt.rand((5, 1, 1, 1)))
    assert np.isclose(penalty.item(), expected, atol=1e-5)


def test_penalty_is_taken_at_each_images_own_point():
    """f(x) = x^2 / 2 has the gradient x: the penalty shows at which x^ it was taken."""
    real, fake = np.float32([[4], [4], [4]]), np.float32([[0], [0], [0]])
    alpha = np.float32([[0.25], [0.5], [1]])  # x^ = 1, 2, 4
    penalty = script.gradient_penalty(lambda x: (x**2).sum(1) / 2, *map(jt.array, (real, fake, alpha)))
    assert np.isclose(penalty.item(), (0 + 1 + 9) / 3, rtol=1e-5)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), fast.LeakyReLU(0.2), nn.Linear(64, 64), fast.LeakyReLU(0.2),
                                    nn.Linear(64, 1))  # fmt: skip

    def execute(self, x):
        return self.layers(x).reshape(-1)


@pytest.mark.parametrize("distance", [1.0, 2.0])
def test_a_trained_critic_estimates_the_distance_of_two_gaussians(distance):
    """N(0, I) and N(d, I) are |d| apart (a shift's transport is the shift itself): within 15 %.

    The penalty lets the slope exceed 1 a little: s d - 10 (s - 1)^2 is largest at s = 1 + d / 20.
    """
    jt.set_global_seed(987654321)
    rng = np.random.default_rng(0)
    critic, shift = Dense(), np.float32([0.6, 0.8]) * np.float32(distance)
    optimizer = fast.Adam(critic.parameters(), lr=0.002, betas=(0.0, 0.9))
    estimates = []
    for step in range(400):
        real, fake = rng.standard_normal((2, 256, 2)).astype(np.float32)
        alpha = rng.random((256, 1), dtype=np.float32)
        losses = script.critic_step(critic, optimizer, *map(jt.array, (real + shift, fake, alpha)))
        if step >= 300:
            estimates.append(losses["wasserstein"].item())
    assert abs(np.mean(estimates) / distance - 1) < 0.15


def test_clipping_keeps_every_weight_in_its_range(tmp_path):
    run("wgan_gp", "--data_dir", make_data("wgan_gp", tmp_path / "data"), "--constraint", "clip", "--clip_value", 0.02,
        "--img_size", 16, "--width", 4, "--batch_size", 10, "--n_epochs", 1, "--out_dir", tmp_path / "out")  # fmt: skip
    critic = {k: v for k, v in saved_arrays(tmp_path / "out").items() if k.startswith("critic/")}
    assert critic
    assert all(np.abs(weights).max() <= 0.02 for weights in critic.values())
    assert max(np.abs(weights).max() for weights in critic.values()) == np.float32(0.02)


def test_constants_of_the_papers():
    gp, clip = (script.parse_args(["--constraint", c]) for c in ("gp", "clip"))
    assert (gp.b1, gp.b2, gp.n_critic) == (0.0, 0.9, 5)
    assert (clip.lr, clip.clip_value) == (5e-5, 0.01)
    assert isinstance(script.build_optimizers(clip, *script.build(clip))[0], nn.RMSprop)


def test_the_critic_has_no_batch_norm():
    _, critic = script.build(script.parse_args([]))
    assert not [m for m in critic.modules() if isinstance(m, nn.BatchNorm)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--n_critic", 0], "--n_critic"),
        (["--clip_value", 0], "--clip_value"),
        (["--constraint", "spectral"], "--constraint"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
