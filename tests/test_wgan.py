"""wgan.py: the estimate by hand, clipping, the schedule, one step against PyTorch, the published numbers."""

from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest
from jittor import nn

import dcgan
import wgan as script

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4", "--channels", "3"]


@pytest.fixture
def pair():
    jt.set_global_seed(987654321)
    return script.build(script.parse_args(TINY))


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


def batch(rng, n=8):
    """Images, and the noise of both updates."""
    return variables(rng.uniform(-1, 1, (n, 3, 16, 16)), *rng.standard_normal((2, n, 6)))


def test_wasserstein_estimate_by_hand():
    assert np.isclose(script.wasserstein_estimate(*variables([3.0, 5.0], [1.0, 0.0])).item(), 3.5)
    with pytest.raises(ValueError, match="different shapes"):
        script.wasserstein_estimate(jt.zeros(4), jt.zeros((4, 1)))


def test_the_schedule_is_that_of_the_authors_code():
    """100 updates of the critic for each of the first 25 of the generator, and every 500th counted from 0; else 5."""
    steps = script.steps_with_generator(n_critic=5, n_critic_long=100)
    at = [next(steps) for _ in range(1002)]
    assert at[:2] == [100, 200]
    assert at[24:26] == [2500, 2505]
    assert np.flatnonzero(np.diff(at) == 100).tolist() == [*range(24), 499, 999]
    assert set(np.diff(at)[24:]) == {5, 100}


def test_clipping_takes_all_weights_and_no_statistics(pair):
    """By hand: -3, -0.01, 0.002 and 5 within 0.01. Norms are scaled by weights too; their statistics are none."""
    _, critic = pair
    conv = next(m for m in critic.modules() if isinstance(m, nn.Conv))
    norm = next(m for m in critic.modules() if isinstance(m, nn.BatchNorm))
    values = np.tile(np.float32([-3, -0.01, 0.002, 5]), conv.weight.numel() // 4).reshape(
        conv.weight.shape
    )
    conv.weight.assign(jt.array(values))
    norm.running_mean.assign(jt.array(np.float32([-4, -1, 1, 4, 0, 2, 3, 5])))
    script.clip_weights(critic, 0.01)
    assert np.unique(conv.weight.numpy()).tolist() == np.float32([-0.01, 0.002, 0.01]).tolist()
    assert norm.weight.numpy().tolist() == [np.float32(0.01)] * 8  # they were near 1
    assert norm.running_mean.numpy().tolist() == [-4, -1, 1, 4, 0, 2, 3, 5]
    assert norm.running_var.numpy().tolist() == [1] * 8


@pytest.mark.parametrize("updates_G", [True, False])
def test_step_against_pytorch(pair, updates_G):
    """Three steps in a row, since a weight that clipping has frozen would show in the second; clipped at first."""
    generator, critic = pair
    optimizers = [nn.RMSprop(m.parameters(), lr=0.001) for m in pair]
    before = [p.numpy() for p in generator.parameters() if not p.is_stop_grad()]
    twin, rng = twins.Twin("wgan", write_back=False), np.random.default_rng(0)
    for _ in range(3):
        real, z_D, z_G = batch(rng)
        arguments = (generator, critic, *optimizers, real, z_D, z_G if updates_G else None)
        want = twin.train_step(*arguments, clip=0.02)
        got = script.train_step(*arguments, clip=0.02)
        assert got.keys() == ({"wasserstein", "loss_G"} if updates_G else {"wasserstein"})
        twins.assert_same_losses(got, want)
        twins.assert_same_step(critic, twin.module(critic), optimizers[1])
        twins.assert_same_step(generator, twin.module(generator), optimizers[0])
    after = [p.numpy() for p in generator.parameters() if not p.is_stop_grad()]
    assert any(np.array_equal(a, b) for a, b in zip(before, after)) != updates_G


def test_rmsprop_by_hand():
    """v = 0.99 v + 0.01 g^2, p -= lr g / (sqrt(v) + 1e-8), as in PyTorch; with g = 2, then -1."""
    p = jt.array([1.0])
    optimizer = nn.RMSprop([p], lr=0.1)
    for g in (2.0, -1.0):
        optimizer.step((p * g).sum())
    first, second = 0.01 * 4, 0.99 * 0.01 * 4 + 0.01
    assert np.isclose(p.item(), 1 - 0.1 * 2 / first**0.5 + 0.1 / second**0.5, rtol=1e-5)
    assert (optimizer.alpha, optimizer.eps) == (0.99, 1e-8)


def test_paper():
    """The numbers of the authors' main.py; parameters by models/dcgan.py at 64 x 64, layer by layer."""
    args = script.parse_args(["--paper"])
    got = (args.lr, args.clip, args.n_critic, args.n_critic_long, args.batch_size, args.n_epochs)
    assert got == (5e-5, 0.01, 5, 100, 64, 25)
    assert (args.img_size, args.channels, args.width, args.latent_dim, args.ema_decay) == (
        64,
        3,
        64,
        100,
        0,
    )
    generator, critic = script.build(args)
    pyramid = 16 * (512 * 256 + 256 * 128 + 128 * 64)  # 4 x 4 filters without biases
    assert (
        n_parameters(generator)
        == 16 * 100 * 512 + pyramid + 16 * 64 * 3 + 2 * (512 + 256 + 128 + 64)
        == 3_576_704
    )
    assert (
        n_parameters(critic)
        == 16 * 3 * 64 + pyramid + 16 * 512 * 1 + 2 * (512 + 256 + 128)
        == 2_765_568
    )


def test_networks_are_those_of_dcgan(pair):
    """What is written out twice on purpose gives the same images and scores from the same weights."""
    others = dcgan.build(dcgan.parse_args(TINY))
    z = jt.array(np.random.default_rng(0).standard_normal((8, 6), dtype=np.float32))
    for one, other in zip(pair, others):
        other.load_state_dict({name: value.numpy() for name, value in one.state_dict().items()})
    images = pair[0](z)
    assert np.array_equal(images.numpy(), others[0](z).numpy())
    assert np.array_equal(pair[1](images).numpy(), others[1](images).numpy())


def test_initial_weights(pair):
    """N(0, 0.02^2), and N(1, 0.02^2) for the scale of batch norms."""
    generator, _ = script.build(script.parse_args(["--width", "16"]))
    weights = [
        m.weight.numpy().ravel() for m in generator.modules() if isinstance(m, nn.ConvTranspose)
    ]
    scales = [m.weight.numpy().ravel() for m in generator.modules() if isinstance(m, nn.BatchNorm)]
    assert np.isclose(np.concatenate(weights).std(), 0.02, rtol=0.02)
    assert abs(np.concatenate(weights).mean()) < 2e-4
    assert np.isclose(np.concatenate(scales).std(), 0.02, rtol=0.3)
    assert np.isclose(np.concatenate(scales).mean(), 1, atol=0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--n_critic", 0], "--n_critic"),
        (["--n_critic_long", 0], "--n_critic_long"),
        (["--clip", 0], "--clip"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
