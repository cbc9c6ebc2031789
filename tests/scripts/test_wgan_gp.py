"""wgan_gp.py: a known distance, the penalty by hand, one step against PyTorch."""

import jittor as jt
import numpy as np
import pytest

import stargan
import wgan_gp as script
from jittor_fast import nn
from tools.describe import n_parameters

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4", "--channels", "3"]


@pytest.fixture
def pair():
    """A small generator and its critic.

    The critic's weights are ten times the initial ones, so that its slopes are nearer
    to 1.
    """
    generator, critic = script.build(script.parse_args(TINY))
    for parameter in critic.parameters():
        parameter.assign(10 * parameter)
    return generator, critic


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


def batch(rng, n=8):
    """Images, the noise of both updates, and alpha."""
    images = rng.uniform(-1, 1, (n, 3, 16, 16))
    noise = rng.standard_normal((2, n, 6))
    alpha = rng.random((n, 1, 1, 1))
    return variables(images, *noise, alpha)


def trained_copies(network):
    return [p.numpy() for p in network.parameters() if not p.is_stop_grad()]


# ---- losses ----


def test_wasserstein_estimate_by_hand():
    real, fake = variables([3.0, 5.0], [1.0, 0.0])
    assert np.isclose(script.wasserstein_estimate(real, fake).item(), 3.5)
    assert np.isclose(script.generator_loss(real).item(), -4)
    with pytest.raises(ValueError, match="different shapes"):
        script.wasserstein_estimate(jt.zeros(4), jt.zeros((4, 1)))


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25)])
def test_penalty_of_a_linear_critic(slope, expected):
    """The gradient of f(x) = slope * u.x with |u| = 1 has the norm |slope|."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((1, 2, 3, 3))
    weights = slope * u / np.linalg.norm(u)
    images = rng.standard_normal((2, 5, 2, 3, 3))
    weights, real, fake, alpha = variables(weights, *images, rng.random((5, 1, 1, 1)))

    def critic(x):
        return (x * weights).sum((1, 2, 3))

    penalty = script.gradient_penalty(critic, real, fake, alpha)
    assert np.isclose(penalty.item(), expected, atol=1e-5)


def test_penalty_is_taken_at_a_point_of_each_image():
    """f(x) = x^2 / 2 has the gradient x, so the penalty shows where it was taken."""
    real, fake, alpha = variables([[4], [4], [4]], [[0], [0], [0]], [[0.25], [0.5], [1]])
    penalty = script.gradient_penalty(lambda x: (x**2).sum(1) / 2, real, fake, alpha)
    assert np.isclose(penalty.item(), (0 + 1 + 9) / 3, rtol=1e-5)  # x_hat = 1, 2, 4


class Dense(nn.Module):
    """points (B, 2)  ->  scores (B,)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 1),
        )

    def execute(self, x):
        return self.layers(x).reshape(-1)


@pytest.mark.parametrize("distance", [1.0, 2.0])
def test_a_trained_critic_estimates_the_distance_of_two_gaussians(distance):
    """N(0, I) and N(d, I) are |d| apart (the shift itself): within 15 %.

    The penalty lets the slope exceed 1 a little: s d - 10 (s - 1)^2 is largest at
    s = 1 + d / 20. The generator returns its noise.
    """
    rng = np.random.default_rng(0)
    critic = Dense()
    shift = np.float32([0.6, 0.8]) * distance
    optimizer = nn.Adam(critic.parameters(), lr=0.002, betas=(0.0, 0.9))
    estimates = []
    for _ in range(400):
        points, z = rng.standard_normal((2, 256, 2))
        real, z, alpha = variables(points + shift, z, rng.random((256, 1)))
        losses = script.train_step(
            lambda z: z, critic, None, optimizer, real, z, None, alpha, update_G=False
        )
        estimates.append(losses["wasserstein"])
    last = np.concatenate([estimate.numpy() for estimate in estimates[-100:]])
    assert abs(last.mean() / distance - 1) < 0.15


# ---- against PyTorch ----


@pytest.mark.parametrize("update_G", [True, False])
def test_step_against_pytorch(pair, update_G):
    generator, critic = pair
    optimizer_G = nn.Adam(generator.parameters(), lr=0.001, betas=(0.0, 0.9))
    optimizer_D = nn.Adam(critic.parameters(), lr=0.001, betas=(0.0, 0.9))
    before = trained_copies(generator)
    real, z_D, z_G, alpha = batch(np.random.default_rng(0))
    networks = (generator, critic, optimizer_G, optimizer_D)
    tensors = (real, z_D, z_G if update_G else None, alpha)

    twin = twins.Twin("wgan_gp", write_back=False)
    expected = twin.train_step(*networks, *tensors, update_G=update_G)
    found = script.train_step(*networks, *tensors, update_G=update_G)
    names = {"wasserstein", "penalty", "loss_G"} if update_G else {"wasserstein", "penalty"}
    assert found.keys() == names
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(critic, twin.module(critic), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)
    unchanged = [np.array_equal(a, b) for a, b in zip(before, trained_copies(generator))]
    assert any(unchanged) != update_G


def test_steps_with_layer_norm_against_pytorch():
    """Two updates of the critic, with the second derivative through its norm."""
    generator, critic = script.build(script.parse_args([*TINY, "--layer_norm"]))
    optimizer_G = nn.Adam(generator.parameters(), lr=0.001, betas=(0.0, 0.9))
    optimizer_D = nn.Adam(critic.parameters(), lr=0.001, betas=(0.0, 0.9))
    networks = (generator, critic, optimizer_G, optimizer_D)
    twin = twins.Twin("wgan_gp", write_back=False)
    for seed in (0, 1):
        tensors = batch(np.random.default_rng(seed))
        expected = twin.train_step(*networks, *tensors, update_G=True)
        twins.assert_same_losses(script.train_step(*networks, *tensors), expected)
    twins.assert_same_step(critic, twin.module(critic), optimizer_D)


def test_layer_norm_by_hand():
    """Each image on its own, over channels and pixels; then each channel's own line."""
    norm = script.LayerNorm(2)
    norm.weight.assign(jt.array(np.float32([2, 3]).reshape(1, 2, 1, 1)))
    norm.bias.assign(jt.array(np.float32([0, 1]).reshape(1, 2, 1, 1)))
    x = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    mean = x.mean((1, 2, 3), keepdims=True)
    expected = (x - mean) / x.std((1, 2, 3), keepdims=True)
    expected = expected * np.reshape([2, 3], (1, 2, 1, 1)) + np.reshape([0, 1], (1, 2, 1, 1))
    assert np.allclose(norm(jt.array(x)).numpy(), expected, atol=1e-4)


def test_second_derivative_of_the_penalty(pair):
    """The penalty's gradient for the weights passes through that for the images."""
    _, critic = pair
    twin = twins.Twin("wgan_gp")
    real, _, _, alpha = batch(np.random.default_rng(0))
    fake, *_ = batch(np.random.default_rng(1))
    penalty = script.gradient_penalty(critic, real, fake, alpha)
    their_critic = twin.get(critic)
    expected = twin.source.gradient_penalty(
        their_critic, twin.get(real), twin.get(fake), twin.get(alpha)
    )
    assert np.isclose(penalty.item(), expected.item(), rtol=1e-4)

    expected.backward()
    parameters = twins.trained(critic)
    theirs = dict(their_critic.named_parameters())
    for name, gradient in zip(parameters, jt.grad(penalty, list(parameters.values()))):
        if name.endswith("bias"):  # adds a constant to the scores while no slope changes
            assert not gradient.numpy().any()
            continue
        want = theirs[name].grad.numpy()
        tolerance = 1e-4 * np.abs(want).max()
        assert np.allclose(gradient.numpy(), want, rtol=1e-4, atol=tolerance), name


def test_stargan_has_the_same_penalty(pair):
    """Both scripts write it out."""
    _, critic = pair
    real, _, _, alpha = batch(np.random.default_rng(0))
    fake, *_ = batch(np.random.default_rng(1))
    ours = script.gradient_penalty(critic, real, fake, alpha)
    other = stargan.gradient_penalty(critic, real, fake, alpha)
    assert ours.item() == other.item()


# ---- the published setting ----


def test_length_of_the_papers_training():
    """ITERS of the authors' gan_64x64.py: 200,000 updates of G, on 64 x 64 ImageNet."""
    args = script.parse_args(["--paper"])
    updates_of_G = args.n_epochs * 1_281_149 / args.batch_size / args.n_critic
    assert np.isclose(updates_of_G, 200_000, rtol=0.01)


def test_parameters_of_the_paper():
    """DCGANGenerator and DCGANDiscriminator of the authors' gan_64x64.py.

    The sums leave out biases before batch norm, which have no effect, and the critic's
    norms.
    """
    generator, critic = script.build(script.parse_args(["--paper"]))
    middle = 25 * (512 * 256 + 256 * 128 + 128 * 64)  # 5 x 5 filters

    project = (128 + 1) * 4 * 4 * 512
    norms = 2 * (512 + 256 + 128 + 64)
    expected = project + middle + norms + 25 * 64 * 3 + 3
    assert n_parameters(generator) == expected == 5_364_291

    biases = 512 + 256 + 128
    expected = (25 * 3 + 1) * 64 + middle + biases + 4 * 4 * 512 + 1
    assert n_parameters(critic) == expected == 4_314_753


def test_the_critic_has_no_norm(pair):
    generator, critic = pair
    assert sum(isinstance(m, nn.BatchNorm) for m in generator.modules()) == 2
    types = {type(m) for m in critic.layers.layers.values()}
    assert types == {nn.Conv, nn.LeakyReLU, nn.Flatten, nn.Linear}


@pytest.mark.parametrize("kernel_size", ["4", "5"])
def test_both_kernel_sizes_give_images_of_the_same_size(kernel_size):
    args = script.parse_args([*TINY, "--kernel_size", kernel_size])
    generator, critic = script.build(args)
    images = generator(jt.zeros((2, 6)))
    assert images.shape == [2, 3, 16, 16]
    assert critic(images).shape == [2]


def test_initial_weights():
    """Uniform of standard deviation 0.02, so within 0.02 sqrt(3); biases are 0."""
    for network in script.build(script.parse_args(["--width", "16"])):
        types = (nn.Conv, nn.ConvTranspose, nn.Linear)
        layers = [m for m in network.modules() if isinstance(m, types)]
        weights = np.concatenate([m.weight.numpy().ravel() for m in layers])
        assert np.isclose(weights.std(), 0.02, rtol=0.02)
        assert 0.034 < np.abs(weights).max() <= 0.0347
        assert not any(m.bias.numpy().any() for m in layers if m.bias is not None)


# ---- bad input ----


@pytest.mark.parametrize(
    "flags",
    [["--img_size", 48], ["--n_critic", 0], ["--clip", 1], ["--kernel_size", 3]],
)
def test_bad_flags(fails, flags):
    code, line = fails(script.main, flags)
    assert code == 2
    assert flags[0] in line
