"""wgan.py: the estimate by hand, clipping, the schedule, one step against PyTorch."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn
from registry import run

import dcgan
import wgan as script
from tools.describe import n_parameters

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4", "--channels", "3"]


@pytest.fixture
def pair():
    """A small generator and its critic."""
    return script.build(script.parse_args(TINY))


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


def batch(rng, n=8):
    """Images, and the noise of both updates."""
    images = rng.uniform(-1, 1, (n, 3, 16, 16))
    noise = rng.standard_normal((2, n, 6))
    return variables(images, *noise)


def trained_copies(network):
    return [p.numpy() for p in network.parameters() if not p.is_stop_grad()]


# ---- losses, clipping and schedule ----


def test_wasserstein_estimate_by_hand():
    real, fake = variables([3.0, 5.0], [1.0, 0.0])
    assert np.isclose(script.wasserstein_estimate(real, fake).item(), 3.5)
    assert np.isclose(script.generator_loss(real).item(), -4)
    with pytest.raises(ValueError, match="different shapes"):
        script.wasserstein_estimate(jt.zeros(4), jt.zeros((4, 1)))


def test_clipping_of_weights_but_not_of_statistics(pair):
    """By hand: -3, -0.01, 0.002 and 5 within 0.01. Norms' scales are weights too."""
    _, critic = pair
    conv = next(m for m in critic.modules() if isinstance(m, nn.Conv))
    norm = next(m for m in critic.modules() if isinstance(m, nn.BatchNorm))
    values = np.tile(np.float32([-3, -0.01, 0.002, 5]), conv.weight.numel() // 4)
    conv.weight.assign(jt.array(values.reshape(conv.weight.shape)))
    norm.running_mean.assign(jt.array(np.float32([-4, -1, 1, 4, 0, 2, 3, 5])))

    script.clip_weights(critic, 0.01)
    assert np.unique(conv.weight.numpy()).tolist() == np.float32([-0.01, 0.002, 0.01]).tolist()
    assert norm.weight.numpy().tolist() == [np.float32(0.01)] * 8  # they were near 1
    assert norm.running_mean.numpy().tolist() == [-4, -1, 1, 4, 0, 2, 3, 5]
    assert norm.running_var.numpy().tolist() == [1] * 8


def steps_that_update_the_generator(n_updates, n_critic, n_critic_long):
    """The authors' main.py: Diters updates of the critic before each of G."""
    steps = []
    step = 0
    for gen_iterations in range(n_updates):
        is_long = gen_iterations < 25 or gen_iterations % 500 == 0
        step += n_critic_long if is_long else n_critic
        steps.append(step)
    return steps


@pytest.mark.parametrize(
    ("n_critic", "n_critic_long"), [(5, 100), (5, 25), (2, 2), (1, 1), (7, 3), (3, 1)]
)
def test_the_schedule_is_that_of_the_authors_code(n_critic, n_critic_long):
    expected = steps_that_update_the_generator(1600, n_critic, n_critic_long)
    steps = range(1, expected[-1] + 1)
    found = [step for step in steps if script.updates_generator(step, n_critic, n_critic_long)]
    assert found == expected


def test_the_schedule_by_hand():
    """With 5 and 100: 25 long rounds and 475 short ones, then 1 long to 499 short."""
    updates = [step for step in range(1, 10_000) if script.updates_generator(step, 5, 100)]
    assert updates[:2] == [100, 200]
    assert updates[24:26] == [2500, 2505]
    rounds = np.diff(updates)
    assert np.flatnonzero(rounds == 100).tolist() == [*range(24), 499, 999]
    assert set(rounds[24:]) == {5, 100}


def test_noise_is_drawn_for_scheduled_updates_only(tmp_path, monkeypatch, idx_folder):
    """4 steps in each of 7 epochs, with an update of the generator in every third."""
    schedule = []

    def step(*args, update_G, **kwargs):
        z_D, z_G = args[5:7]
        assert z_D.shape == [10, 6]
        assert (z_G is not None) == update_G
        schedule.append(update_G)
        return {"wasserstein": jt.zeros(1)}

    monkeypatch.setattr(script, "train_step", step)
    flags = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10]
    flags += ["--n_epochs", 7, "--n_critic", 2, "--n_critic_long", 3]
    run("wgan", *flags, "--data_dir", idx_folder, "--out_dir", tmp_path / "out")
    assert schedule == [step % 3 == 0 for step in range(1, 29)]


# ---- against PyTorch ----


@pytest.mark.parametrize("update_G", [True, False])
def test_step_against_pytorch(pair, update_G):
    generator, critic = pair
    optimizer_G = nn.RMSprop(generator.parameters(), lr=0.001)
    optimizer_D = nn.RMSprop(critic.parameters(), lr=0.001)
    networks = (generator, critic, optimizer_G, optimizer_D)
    real, z_D, z_G = batch(np.random.default_rng(0))
    tensors = (real, z_D, z_G if update_G else None)
    before = trained_copies(generator)

    twin = twins.Twin("wgan", write_back=False)
    expected = twin.train_step(*networks, *tensors, clip=0.02, update_G=update_G)
    found = script.train_step(*networks, *tensors, clip=0.02, update_G=update_G)
    assert found.keys() == ({"wasserstein", "loss_G"} if update_G else {"wasserstein"})
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(critic, twin.module(critic), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)
    unchanged = [np.array_equal(a, b) for a, b in zip(before, trained_copies(generator))]
    assert any(unchanged) != update_G


def test_clipped_weights_are_trained_further(pair):
    """Three steps against PyTorch: clipping must not freeze a weight.

    They are SGD's, since RMSProp turns the rounding of a small gradient into an update
    of full size.
    """
    generator, critic = pair
    optimizer_G = nn.SGD(generator.parameters(), lr=0.1)
    optimizer_D = nn.SGD(critic.parameters(), lr=0.1)
    networks = (generator, critic, optimizer_G, optimizer_D)
    twin = twins.Twin("wgan", write_back=False)
    rng = np.random.default_rng(0)
    for _ in range(3):
        before = trained_copies(critic)
        real, z_D, z_G = batch(rng)
        expected = twin.train_step(*networks, real, z_D, z_G, clip=0.02)
        found = script.train_step(*networks, real, z_D, z_G, clip=0.02)
        twins.assert_same_losses(found, expected)
        twins.assert_same_step(critic, twin.module(critic), optimizer_D)
        twins.assert_same_step(generator, twin.module(generator), optimizer_G)
        pairs = zip(before, trained_copies(critic))
        assert not any(np.array_equal(a, b) for a, b in pairs)


def test_rmsprop_by_hand():
    """PyTorch's v = 0.99 v + 0.01 g^2, p -= lr g / (sqrt(v) + 1e-8); g = 2, then -1."""
    p = jt.array([1.0])
    optimizer = nn.RMSprop([p], lr=0.1)
    for g in (2.0, -1.0):
        optimizer.step((p * g).sum())
    first = 0.01 * 4
    second = 0.99 * 0.01 * 4 + 0.01
    assert np.isclose(p.item(), 1 - 0.1 * 2 / first**0.5 + 0.1 / second**0.5, rtol=1e-5)
    assert (optimizer.alpha, optimizer.eps) == (0.99, 1e-8)


# ---- the authors' networks ----


def test_parameters_of_the_paper():
    """models/dcgan.py of the authors' code at 64 x 64, layer by layer."""
    generator, critic = script.build(script.parse_args(["--paper"]))
    middle = 16 * (512 * 256 + 256 * 128 + 128 * 64)  # 4 x 4 filters without biases

    norms = 2 * (512 + 256 + 128 + 64)
    expected = 16 * 100 * 512 + middle + 16 * 64 * 3 + norms
    assert n_parameters(generator) == expected == 3_576_704

    norms = 2 * (512 + 256 + 128)
    expected = 16 * 3 * 64 + middle + 16 * 512 * 1 + norms
    assert n_parameters(critic) == expected == 2_765_568


def test_networks_are_those_of_dcgan(pair):
    """Both scripts write them out: the same weights give the same images and scores."""
    generator, critic = pair
    other_generator, other_critic = dcgan.build(dcgan.parse_args(TINY))
    for network, other in ((generator, other_generator), (critic, other_critic)):
        state = {name: value.numpy() for name, value in network.state_dict().items()}
        other.load_state_dict(state)
    z = jt.array(np.random.default_rng(0).standard_normal((8, 6), dtype=np.float32))
    images = generator(z)
    assert np.array_equal(images.numpy(), other_generator(z).numpy())
    assert np.array_equal(critic(images).numpy(), other_critic(images).numpy())


def test_initial_weights():
    """N(0, 0.02^2), and N(1, 0.02^2) for the scales of batch norm."""
    generator, _ = script.build(script.parse_args(["--width", "16"]))
    layers = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose)]
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm)]
    weights = np.concatenate([m.weight.numpy().ravel() for m in layers])
    scales = np.concatenate([m.weight.numpy().ravel() for m in norms])
    assert np.isclose(weights.std(), 0.02, rtol=0.02)
    assert abs(weights.mean()) < 2e-4
    assert np.isclose(scales.std(), 0.02, rtol=0.3)
    assert np.isclose(scales.mean(), 1, atol=0.01)


# ---- bad input ----


@pytest.mark.parametrize(
    "flags",
    [
        ["--img_size", 48],
        ["--n_critic", 0],
        ["--n_critic_long", 0],
        ["--clip", 0],
        ["--ema_decay", 1],
    ],
)
def test_bad_flags(fails, flags):
    code, line = fails(script.main, flags)
    assert code == 2
    assert flags[0] in line
