"""wgan_gp.py: a known distance, the penalty by hand, one step against PyTorch, the published numbers."""

from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest

import stargan
import wgan_gp as script
from jittor_fast import nn

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4", "--channels", "3"]


@pytest.fixture
def pair():
    """Weights ten times the initial ones, so that the tiny critic's slopes are nearer to 1."""
    jt.set_global_seed(987654321)
    generator, critic = script.build(script.parse_args(TINY))
    for parameter in critic.parameters():
        parameter.assign(10 * parameter)
    return generator, critic


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


def batch(rng, n=8):
    """Images, the noise of both updates, and alpha."""
    return variables(
        rng.uniform(-1, 1, (n, 3, 16, 16)),
        *rng.standard_normal((2, n, 6)),
        rng.random((n, 1, 1, 1)),
    )


# ---- losses ----


def test_wasserstein_estimate_by_hand():
    assert np.isclose(script.wasserstein_estimate(*variables([3.0, 5.0], [1.0, 0.0])).item(), 3.5)
    with pytest.raises(ValueError, match="different shapes"):
        script.wasserstein_estimate(jt.zeros(4), jt.zeros((4, 1)))


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25)])
def test_penalty_of_a_linear_critic(slope, expected):
    """f(x) = slope * u.x with |u| = 1 has the gradient's norm |slope| everywhere."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((1, 2, 3, 3))
    u, real, fake, alpha = variables(
        slope * u / np.linalg.norm(u),
        *rng.standard_normal((2, 5, 2, 3, 3)),
        rng.random((5, 1, 1, 1)),
    )
    penalty = script.gradient_penalty(lambda x: (x * u).sum((1, 2, 3)), real, fake, alpha)
    assert np.isclose(penalty.item(), expected, atol=1e-5)


def test_penalty_is_taken_at_each_images_own_point():
    """f(x) = x^2 / 2 has the gradient x: the penalty shows at which x^ it was taken."""
    points = variables([[4], [4], [4]], [[0], [0], [0]], [[0.25], [0.5], [1]])  # x^ = 1, 2, 4
    penalty = script.gradient_penalty(lambda x: (x**2).sum(1) / 2, *points)
    assert np.isclose(penalty.item(), (0 + 1 + 9) / 3, rtol=1e-5)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        first = [nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*first, nn.Linear(64, 1))

    def execute(self, x):
        return self.layers(x).reshape(-1)


@pytest.mark.parametrize("distance", [1.0, 2.0])
def test_a_trained_critic_estimates_the_distance_of_two_gaussians(distance):
    """N(0, I) and N(d, I) are |d| apart (a shift's transport is the shift itself): within 15 %.

    The penalty lets the slope exceed 1 a little: s d - 10 (s - 1)^2 is largest at s = 1 + d / 20. The generator
    gives its noise back.
    """
    jt.set_global_seed(987654321)
    rng = np.random.default_rng(0)
    critic, shift = Dense(), np.float32([0.6, 0.8]) * distance
    optimizer = nn.Adam(critic.parameters(), lr=0.002, betas=(0.0, 0.9))
    estimates = []
    for step in range(400):
        real, z = rng.standard_normal((2, 256, 2))
        real, z, alpha = variables(real + shift, z, rng.random((256, 1)))
        losses = script.train_step(lambda z: z, critic, None, optimizer, real, z, None, alpha)
        if step >= 300:
            estimates.append(losses["wasserstein"].item())
    assert abs(np.mean(estimates) / distance - 1) < 0.15


# ---- against PyTorch ----


@pytest.mark.parametrize("updates_G", [True, False])
def test_step_against_pytorch(pair, updates_G):
    generator, critic = pair
    optimizers = [nn.Adam(m.parameters(), lr=0.001, betas=(0.0, 0.9)) for m in pair]
    before = [p.numpy() for p in generator.parameters() if not p.is_stop_grad()]
    twin, (real, z_D, z_G, alpha) = (
        twins.Twin("wgan_gp", write_back=False),
        batch(np.random.default_rng(0)),
    )
    arguments = (generator, critic, *optimizers, real, z_D, z_G if updates_G else None, alpha)
    want = twin.train_step(*arguments)
    got = script.train_step(*arguments)
    assert got.keys() == (
        {"wasserstein", "penalty", "loss_G"} if updates_G else {"wasserstein", "penalty"}
    )
    twins.assert_same_losses(got, want)
    twins.assert_same_step(critic, twin.module(critic), optimizers[1])
    twins.assert_same_step(generator, twin.module(generator), optimizers[0])
    after = [p.numpy() for p in generator.parameters() if not p.is_stop_grad()]
    assert any(np.array_equal(a, b) for a, b in zip(before, after)) != updates_G


def test_second_derivative_of_the_penalty(pair):
    """The penalty's gradient for the critic's weights, which goes through the gradient for its inputs."""
    _, critic = pair
    twin = twins.Twin("wgan_gp")
    real, _, _, alpha = batch(np.random.default_rng(0))
    fake, *_ = batch(np.random.default_rng(1))
    penalty = script.gradient_penalty(critic, real, fake, alpha)
    expected = twin.source.gradient_penalty(twin.get(critic), *map(twin.get, (real, fake, alpha)))
    assert np.isclose(penalty.item(), expected.item(), rtol=1e-4)
    expected.backward()
    parameters, theirs = twins.trained(critic), dict(twin.get(critic).named_parameters())
    for name, gradient in zip(parameters, jt.grad(penalty, list(parameters.values()))):
        if name.endswith("bias"):  # moves all scores alike, as long as no slope changes
            assert not gradient.numpy().any()
            continue
        want = theirs[name].grad.numpy()
        assert np.allclose(gradient.numpy(), want, rtol=1e-4, atol=1e-4 * np.abs(want).max()), name


def test_stargan_has_the_same_penalty(pair):
    """It is written out twice on purpose."""
    real, _, _, alpha = batch(np.random.default_rng(0))
    fake, *_ = batch(np.random.default_rng(1))
    one, other = (s.gradient_penalty(pair[1], real, fake, alpha).item() for s in (script, stargan))
    assert one == other


# ---- the published setting ----


def test_paper():
    """Gulrajani 2017, algorithm 1 and section 4; layers of DCGANGenerator and DCGANDiscriminator in gan_64x64.py.

    Left out of the sums: biases before batch norm, which it takes away, and the critic's norms.
    """
    args = script.parse_args(["--paper"])
    assert (args.lr, args.b1, args.b2, args.n_critic, args.batch_size, script.PENALTY) == (
        1e-4,
        0,
        0.9,
        5,
        64,
        10,
    )
    assert (args.img_size, args.channels, args.width, args.latent_dim, args.ema_decay) == (
        64,
        3,
        64,
        128,
        0,
    )
    updates_of_G = args.n_epochs * 1_281_149 / args.batch_size / args.n_critic
    assert np.isclose(updates_of_G, 200_000, rtol=0.01)  # ITERS, on 64 x 64 ImageNet
    generator, critic = script.build(args)
    pyramid = 25 * (512 * 256 + 256 * 128 + 128 * 64)  # 5 x 5 filters
    norms, project = 2 * (512 + 256 + 128 + 64), (128 + 1) * 4 * 4 * 512
    assert n_parameters(generator) == project + pyramid + norms + 25 * 64 * 3 + 3 == 5_364_291
    assert (
        n_parameters(critic)
        == (25 * 3 + 1) * 64 + pyramid + 512 + 256 + 128 + 4 * 4 * 512 + 1
        == 4_314_753
    )


def test_the_critic_has_no_norm(pair):
    generator, critic = pair
    assert sum(isinstance(m, nn.BatchNorm) for m in generator.modules()) == 2
    assert {type(m) for m in critic.layers.layers.values()} == {
        nn.Conv,
        nn.LeakyReLU,
        nn.Flatten,
        nn.Linear,
    }


def test_initial_weights():
    """Uniform of deviation 0.02, so within 0.02 sqrt(3); biases are 0."""
    jt.set_global_seed(987654321)
    for module in script.build(script.parse_args(["--width", "16"])):
        layers = [
            m for m in module.modules() if isinstance(m, (nn.Conv, nn.ConvTranspose, nn.Linear))
        ]
        weights = np.concatenate([m.weight.numpy().ravel() for m in layers])
        assert np.isclose(weights.std(), 0.02, rtol=0.02)
        assert 0.034 < np.abs(weights).max() <= 0.0347
        assert not any(m.bias.numpy().any() for m in layers if m.bias is not None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--n_critic", 0], "--n_critic"),
        (["--clip", 1], "--clip"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
