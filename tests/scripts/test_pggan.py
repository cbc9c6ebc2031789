"""pggan.py: layers by hand, phases, the paper's sizes, steps against PyTorch."""

import jittor as jt
import numpy as np
import pytest
from registry import run, saved_arrays

import pggan as script
from jittor_fast import nn
from tools.describe import n_parameters

twins = pytest.importorskip("tools.twins")
TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "2", "--max_width", "6"]


def variables(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


@pytest.fixture
def pair():
    return script.build(script.parse_args([*TINY, "--channels", "3"]))


# ---- layers ----


def test_pixel_norm_by_hand():
    """The root mean square of (3, 4) is 5 / sqrt(2)."""
    x = jt.array(np.float32([[[[3]], [[4]]]]))
    expected = np.array([3, 4]) * np.sqrt(2) / 5
    assert np.allclose(script.PixelNorm()(x).numpy().ravel(), expected)


def test_deviation_of_groups_by_hand():
    """Images 0 and 2 form a group, and 1 and 3, with a deviation each."""
    x = np.zeros((4, 1, 2, 2), np.float32)
    x[2] = 2  # deviation 1 in the first group
    x[3] = 6  # deviation 3 in the second one
    found = script.MinibatchDeviation(2)(jt.array(x)).numpy()
    assert found.shape == (4, 2, 2, 2)
    assert np.allclose(found[:, 1, 0, 0], [1, 3, 1, 3], atol=1e-3)


def test_real_images_are_mixed_with_their_halves():
    """A pixel of 1 in a square of four has the mean 1/4."""
    images = np.zeros((1, 1, 4, 4), np.float32)
    images[0, 0, 0, 0] = 1
    mixed = script.at_size(jt.array(images), 4, alpha=0.6).numpy()[0, 0]
    assert np.allclose(mixed[:2, :2], [[0.7, 0.1], [0.1, 0.1]])
    assert not mixed[2:].any()
    halved = script.at_size(jt.array(images), 2, alpha=1.0).numpy()[0, 0]
    assert halved.tolist() == [[0.25, 0], [0, 0]]


def test_a_new_layer_begins_as_the_old_image(pair):
    """With alpha = 0 both networks do what they did at half the size."""
    generator, discriminator = pair
    z = jt.randn(4, 6)
    small = generator(z, 8).numpy()
    large = generator(z, 16, 0.0)
    assert np.allclose(large.numpy(), small.repeat(2, 2).repeat(2, 3), atol=1e-5)
    scores = discriminator(jt.array(small)).numpy()
    assert np.allclose(discriminator(large, 0.0).numpy(), scores, atol=1e-5)


# ---- the paper ----


def test_sizes_of_the_paper():
    """Counted from the authors' networks.py, G_paper and D_paper, at 1024 x 1024."""
    widths = [min(8192 // 2**i, 512) for i in range(10)]  # [1] at 4 x 4, [9] at 1024 x 1024
    generator = 512 * 16 * 512 + 512 + 9 * 512**2 + 512 + 3 * (512 + 1)
    discriminator = 3 * 512 + 512 + 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 512 + 1
    for c_in, c in zip(widths[1:], widths[2:]):
        generator += 9 * c_in * c + c + 9 * c * c + c + 3 * (c + 1)
        discriminator += 3 * c + c + 9 * c * c + c + 9 * c * c_in + c_in
    networks = script.build(script.parse_args(["--paper"]))
    assert [n_parameters(network) for network in networks] == [generator, discriminator]
    assert round(generator / 1e6, 1) == round(discriminator / 1e6, 1) == 23.1  # as in table 2


def test_phases_of_the_paper():
    phases = script.growths(script.parse_args(["--paper"]), n_images=19000000)
    assert list(phases)[:4] == ["4", "8 fading", "8", "16 fading"] and list(phases)[-1] == "1024"
    assert phases["1024"].start == 16 * 800000 and phases["1024"].length is None
    assert phases["8 fading"].alpha(1000000) == 0.25
    assert phases["8"].alpha(1600001) == 1.0


def test_without_growing():
    args = script.parse_args(["--first_size", "32"])
    assert list(script.growths(args, 1000)) == ["32"]


def test_without_fading():
    args = script.parse_args(["--img_size", "8", "--fade_images", "0", "--stable_images", "20"])
    phases = script.growths(args, 50)
    assert [(name, phase.start, phase.length) for name, phase in phases.items()] == [
        ("4", 0, 20),
        ("8", 20, None),
    ]
    assert phases["8"].alpha(20) == 1


def test_a_short_run_has_fewer_phases():
    args = script.parse_args(["--stable_images", "30", "--fade_images", "20"])
    phases = script.growths(args, 65)
    spans = [(name, phase.start, phase.length) for name, phase in phases.items()]
    assert spans == [("4", 0, 30), ("8 fading", 30, 20), ("8", 50, 15)]
    assert script.growths(args, 40)["8 fading"].alpha(40) == 0.5


# ---- the step ----


@pytest.mark.parametrize(("size", "alpha"), [(4, 1.0), (8, 0.3), (16, 1.0)])
def test_step_against_pytorch(pair, size, alpha):
    rng = np.random.default_rng(1)
    real = rng.uniform(-1, 1, (8, 3, size, size))
    inputs = variables(real, *rng.standard_normal((2, 8, 6)), rng.random((8, 1, 1, 1)))
    optimizers = []
    for network in pair:
        parameters = network.parameters_at(size, alpha < 1)
        optimizers.append(nn.Adam(parameters, lr=1e-3, betas=(0.0, 0.99)))
    twin = twins.Twin("pggan", write_back=False)
    expected = twin.train_step(pair, optimizers, *inputs, alpha=alpha)
    found = script.train_step(pair, optimizers, *inputs, alpha=alpha)
    assert found.keys() == expected.keys()
    for name in found:
        assert np.isclose(found[name].item(), expected[name].item(), rtol=1e-4, atol=1e-6), name
    for network, optimizer in zip(pair, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


# ---- a run ----


def test_a_run_grows(tiny_runs, tmp_path):
    """Each phase trains the layers of its size, and leaves those of larger ones."""
    flags = [*tiny_runs("pggan").flags, "--stable_images", 20, "--fade_images", 20]
    run("pggan", *flags, "--n_images", 40, "--keep", 9, "--out_dir", tmp_path / "a")
    run("pggan", *flags, "--n_images", 20, "--out_dir", tmp_path / "b")
    grown = saved_arrays(tmp_path / "a")
    small = saved_arrays(tmp_path / "b")
    for name, changes in (("blocks.0", True), ("blocks.1", True), ("blocks.2", False)):
        keys = [key for key in grown if key.startswith(f"generator/{name}.")]
        assert keys
        for key in keys:
            assert np.array_equal(grown[key], small[key]) != changes, key


def test_bad_flags(fails):
    code, line = fails(script.main, ["--first_size", "12"])
    assert code == 2
    assert "--first_size 12 must be one of 4, 8, 16, 32" in line
