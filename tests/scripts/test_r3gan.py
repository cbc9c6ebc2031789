"""r3gan.py: losses and penalties by hand, the paper's sizes, a step against PyTorch."""

import math

import jittor as jt
import numpy as np
import pytest
from registry import run

import r3gan as script
from jittor_fast import nn
from tools.describe import n_parameters

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "8", "--group_size", "4"]


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


@pytest.fixture
def pair():
    """Small networks whose blocks have last convolutions other than 0."""
    rng = np.random.default_rng(0)
    networks = script.build(script.parse_args([*TINY, "--channels", "3"]))
    for network in networks:
        for parameter in network.parameters():
            noise = 0.2 * rng.standard_normal(parameter.shape)
            parameter.assign(parameter + jt.array(np.float32(noise)))
    return networks


# ---- losses ----


def test_loss_by_hand():
    """log(1 + exp(-t)) for t = 1 and t = -2."""
    scores, others = variables([3, 0], [2, 2])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert np.isclose(script.relativistic_loss(scores, others).item(), expected)
    with pytest.raises(ValueError, match="different shapes"):
        script.relativistic_loss(jt.zeros(4), jt.zeros((4, 1)))


def test_only_differences_of_scores_count(pair):
    """A constant that is added to D's scores changes neither loss."""
    real, fake = variables([0.5, -1, 2], [1, 0, 0.25])
    for x, y in ((real, fake), (fake, real)):
        loss = script.relativistic_loss(x, y).item()
        assert np.isclose(script.relativistic_loss(x + 7, y + 7).item(), loss, atol=1e-5)


def test_slopes_by_hand():
    """Those of a linear D with weights w are |w|^2 everywhere."""
    gradient = jt.array(np.float32([[[[3, 4]]], [[[0, 1]]]]))
    assert script.squared_slopes(gradient).numpy().tolist() == [25, 1]


# ---- networks ----


def test_sizes_of_the_authors_networks():
    """Counted from train.py and R3GAN/Networks.py, preset CIFAR10: four sizes."""
    c = 768
    block = c * 2 * c + 2 * c + 2 * c * 9 * 16 + 2 * c + 2 * c * c
    generator = 16 * c + 64 * c + 8 * block + 3 * c
    discriminator = 3 * c + 8 * block + 16 * c + c
    networks = script.build(script.parse_args(["--paper"]))
    assert [n_parameters(network) for network in networks] == [generator, discriminator]
    # With classes, which add 64 c to G and c^2 + 9 c to D, they are the paper's.
    assert round((generator + 64 * c) / 1e6, 1) == 20.8
    assert round((discriminator + c * c + 9 * c) / 1e6, 1) == 21.3


def test_channels_are_halved_beyond_32_pixels():
    """The authors' FFHQ-256: 768 up to 32 x 32 pixels, then 384, 192 and 96."""
    widths = script.widths_of(256, 768, full_width_size=32)
    assert widths == {4: 768, 8: 768, 16: 768, 32: 768, 64: 384, 128: 192, 256: 96}


def test_initial_weights():
    """Blocks start as the identity; the others keep the variance of their inputs."""
    args = script.parse_args(["--width", "128", "--full_width_size", "32"])
    jt.set_global_seed(0)
    G, D = script.build(args)
    blocks = [layer for layer in D.modules() if isinstance(layer, script.Residual)]
    assert len(blocks) == 4
    for block in blocks:
        first, _, grouped, _, last = block.layers
        assert not last.weight.numpy().any()
        expected = math.sqrt(2 / 1.04) / 4**0.25
        for conv, n_inputs in ((first, 128), (grouped, 9 * 16)):
            deviation = conv.weight.numpy().std() * math.sqrt(n_inputs)
            assert np.isclose(deviation, expected, rtol=0.03)
            assert not conv.bias.numpy().any()
    images = jt.randn(64, 1, 32, 32)
    assert D(images).shape == [64]
    assert G(jt.randn(2, 64)).shape == [2, 1, 32, 32]


def test_groups_do_not_mix():
    """The 3 x 3 convolution of a block sees the channels of its own group alone."""
    block = script.Residual(8, group_size=4, n_blocks=1)
    conv = block.layers[2]
    x = np.random.default_rng(0).standard_normal((1, 16, 5, 5)).astype(np.float32)
    changed = x.copy()
    changed[:, 4:8] += 1
    before = conv(jt.array(x)).numpy()
    after = conv(jt.array(changed)).numpy()
    differs = np.abs(after - before).max((0, 2, 3)) > 1e-6
    assert differs.tolist() == [False] * 4 + [True] * 4 + [False] * 8


# ---- the step ----


def test_step_against_pytorch(pair):
    """Losses, second derivatives, gradients and weights of D and G."""
    rng = np.random.default_rng(1)
    real = rng.uniform(-1, 1, (8, 3, 16, 16))
    inputs = variables(real, *rng.standard_normal((2, 8, 6)))
    optimizers = [nn.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.9)) for network in pair]
    twin = twins.Twin("r3gan", write_back=False)
    expected = twin.train_step(pair, optimizers, *inputs, gamma=3.0)
    found = script.train_step(pair, optimizers, *inputs, gamma=3.0)
    assert found.keys() == expected.keys()
    for name in found:
        assert np.isclose(found[name].item(), expected[name].item(), rtol=1e-4), name
    for network, optimizer in zip(pair, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


def test_both_penalties_move_the_weights(pair):
    """With gamma = 0 D's first convolution gets another gradient."""
    rng = np.random.default_rng(1)
    inputs = variables(rng.uniform(-1, 1, (8, 3, 16, 16)), *rng.standard_normal((2, 8, 6)))
    weight = pair[1].layers[0].weight
    before = weight.numpy()
    moved = []
    for gamma in (0.0, 3.0):
        weight.assign(jt.array(before))
        optimizers = [nn.SGD(network.parameters(), lr=0.1) for network in pair]
        script.train_step(pair, optimizers, *inputs, gamma=gamma)
        moved.append(weight.numpy() - before)
    assert np.abs(moved[1] - moved[0]).max() > 0.1 * np.abs(moved[0]).max()


# ---- schedules ----


def test_schedules():
    """A cosine's half period: the start, three quarters of the way at 1/3, the end."""
    values = [script.along_a_cosine(2e-4, 5e-5, share) for share in (0, 1 / 3, 0.5, 1, 1.2)]
    assert np.allclose(values, [2e-4, 1.625e-4, 1.25e-4, 5e-5, 5e-5])

    args = script.parse_args(["--paper"])
    generator = nn.Linear(2, 2)
    optimizer = nn.Adam(generator.parameters(), lr=1)
    averaged = script.common.EMA(generator, 0.5)
    assert script.update_schedules(args, 0, [optimizer], averaged) == 0.05
    assert optimizer.lr == 2e-4 and optimizer.betas == (0.0, 0.9) and averaged.decay == 0.5
    gamma = script.update_schedules(args, 1, [optimizer], averaged)
    assert np.isclose(gamma, 0.005) and np.isclose(optimizer.lr, 5e-5)
    assert np.allclose(optimizer.betas, (0, 0.99))
    assert np.isclose(averaged.decay ** (5000000 / 512), 0.5)  # the half-life


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], [0, 0.25, 0.5, 0.75]), (["--schedule_images", 20], [0, 0.5, 1, 1.5])],
)
def test_schedules_are_as_long_as_the_run_or_as_asked(
    tiny_runs, tmp_path, monkeypatch, flags, expected
):
    shares = []
    update = script.update_schedules

    def recorded(args, share, *rest):
        shares.append(share)
        return update(args, share, *rest)

    monkeypatch.setattr(script, "update_schedules", recorded)
    run("r3gan", *tiny_runs("r3gan").flags, "--n_images", 40, *flags, "--out_dir", tmp_path / "a")
    assert shares == expected


def test_bad_flags(fails):
    code, line = fails(script.main, ["--width", "40", "--full_width_size", "16"])
    assert code == 2
    assert "--group_size 16 must divide 40" in line
