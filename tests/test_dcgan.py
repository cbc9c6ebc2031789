"""dcgan.py: losses and attributes by hand, walks through latent space, warnings, bad input."""

from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest
from jittor import nn
from PIL import Image
from small import make_data, run

import common
import dcgan as script
from common import fast

TINY = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, "--n_epochs", 1]


@pytest.mark.parametrize("std", [0.0, 0.5])
def test_instance_noise_has_the_shape_of_a_batch_and_its_deviation(std):
    args = script.parse_args(["--instance_noise", str(std), "--channels", "3", "--batch_size", "64"])
    noise = script.instance_noise(SimpleNamespace(rng=np.random.default_rng(0), shard=np.asarray), args)
    assert np.shape(noise) == ((64, 3, 32, 32) if std else ())
    assert np.std(noise) == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "expected_D", "expected_G"),
    [
        ("bce", np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5)), np.log1p(np.exp(-0.5))),
        ("lsgan", ((2 - 1) ** 2 + 0.5**2) / 2, (0.5 - 1) ** 2),
        ("hinge", 0 + 1.5, -0.5),
    ],
)
def test_losses_by_hand(loss, expected_D, expected_G):
    real, fake = jt.array([2.0]), jt.array([0.5])
    assert np.isclose(script.discriminator_loss(real, fake, loss).item(), expected_D)
    assert np.isclose(script.generator_loss(fake, loss).item(), expected_G)


@pytest.mark.parametrize("x", [-80.0, -30.0, 0.0, 30.0, 80.0])
def test_softplus_does_not_saturate(x):
    assert np.isclose(script.softplus(jt.array([x])).item(), np.logaddexp(0, x), rtol=1e-5, atol=1e-12)


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)), "bce")


def test_architecture_of_the_paper():
    """No norm at the generator's output nor the discriminator's input; weights from N(0, 0.02)."""
    jt.set_global_seed(987654321)
    generator, discriminator = script.build(script.parse_args(["--img_size", "64", "--width", "32"]))
    G, D = ([*m.layers.layers.values()] for m in (generator, discriminator))
    assert [type(layer) for layer in G[-3:]] == [fast.ReLU, fast.ConvTranspose, fast.Tanh]
    assert [type(layer) for layer in D[:2]] == [fast.Conv, fast.LeakyReLU]
    assert D[1].scale == 0.2
    assert sum(isinstance(layer, fast.BatchNorm) for layer in G) == 4
    assert sum(isinstance(layer, fast.BatchNorm) for layer in D) == 3
    weights = np.concatenate([layer.weight.numpy().ravel() for layer in G if isinstance(layer, nn.ConvTranspose)])
    assert abs(weights.mean()) < 1e-4
    assert np.isclose(weights.std(), 0.02, rtol=0.01)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes_by_depth(size):
    generator, discriminator = script.build(script.parse_args(["--img_size", str(size), "--width", "2"]))
    images = script.sample(generator, np.zeros((2, 116), np.float32))
    assert images.shape == (2, 1, size, size)
    assert discriminator(jt.array(images)).shape == [2]


# ---- latent space ----


def test_slerp_by_hand():
    """From (1, 0) to (0, 1): the middle lies on the circle at 45 degrees."""
    path = script.slerp(np.float32([1, 0]), np.float32([0, 1]), 3)
    assert np.allclose(path, [[1, 0], [np.sqrt(0.5), np.sqrt(0.5)], [0, 1]], atol=1e-6)
    assert np.allclose(script.slerp(np.float32([1, 2]), np.float32([1, 2]), 3), [[1, 2]] * 3)


def test_arithmetic_by_hand():
    z = np.float32([[1, 0], [0, 1], [2, 2], [4, 6]])
    assert script.arithmetic(z, base=[3], plus=[0, 1], minus=[2]).tolist() == [[4 + 0.5 - 2, 6 + 0.5 - 2]]


def bar(width, lean=0.0, brightness=1.0):
    """(1, 1, 32, 32): a bar of 20 rows on black, `lean` columns to the right for every row up."""
    image = np.full((1, 1, 32, 32), -1.0, np.float32)
    for row in range(6, 26):
        left = round(16 - width / 2 + lean * (15.5 - row))
        image[0, 0, row, left : left + width] = 2 * brightness - 1
    return image


def test_thickness_is_the_width_of_a_bar():
    # A bar of w x 20 pixels has area 20 w and edges of 2 * 20 + 2 w pixels.
    for w in (2, 4, 6):
        assert np.isclose(script.thickness(bar(w))[0], 2 * 20 * w / (40 + 2 * w), rtol=1e-5)


def test_slant_is_the_lean_of_a_bar():
    for lean in (-0.5, 0.0, 0.5):
        assert np.isclose(script.slant(bar(3, lean))[0], lean, atol=0.03)


def test_brightness_is_the_mean():
    assert np.isclose(script.brightness(bar(4, brightness=0.5))[0], 0.5 * 4 * 20 / 32**2)


def test_direction_finds_the_axis_that_decides():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 5)).astype(np.float32)
    w = np.float32([0.6, 0, -0.8, 0, 0])
    direction = script.attribute_direction(z, np.exp(z @ w))
    assert np.isclose(np.linalg.norm(direction), 1, atol=1e-6)
    assert direction @ w > 0.99


class Bars(nn.Module):
    """A generator of blurred bars: three axes of (B, 6) noise change their width, lean and brightness."""

    def execute(self, z):
        rows, columns = (jt.array(a.astype(np.float32)) for a in np.mgrid[-15.5:16, -15.5:16][:, None])
        axes = [(0.6 * z[:, i] + 0.8 * z[:, i + 3]).reshape(-1, 1, 1) for i in range(3)]
        width, lean, brightness = 2 + jt.exp(0.4 * axes[0]), 0.4 * jt.tanh(axes[1]), jt.sigmoid(1 + axes[2])
        inside = jt.sigmoid(2 * (width - jt.abs(columns + lean * rows))) * (jt.abs(rows) < 11).float32()
        return (2 * brightness * inside - 1).unsqueeze(1)


def test_a_walk_along_a_direction_keeps_the_code():
    """Nine points about each of five starts, along the attribute and at right angles to it."""
    seen = []

    class Recorder(Bars):
        def execute(self, z):
            seen.append(z.numpy())
            return super().execute(z[:, 4:])

    args = script.parse_args(["--latent_dim", "6", "--n_codes", "4"])
    args.walk, rng = "direction", np.random.default_rng(0)
    z = common.latent_noise(rng, 100, latent_dim=6, n_codes=4)
    images, nrow = script.walk(Recorder(), args, z, rng)
    walked = seen[-1].reshape(5, 2, 9, 10)
    assert (images.shape, nrow) == ((90, 1, 32, 32), 9)
    assert np.array_equal(walked[..., :4], np.broadcast_to(z[:5, None, None, :4], (5, 2, 9, 4)))
    along, off = (walked[0, i, 8, 4:] - walked[0, i, 0, 4:] for i in (0, 1))
    assert np.allclose([along @ along, off @ off, along @ off], [64, 64, 0], atol=1e-3)


@pytest.mark.parametrize("attribute", ["thickness", "slant", "brightness"])
def test_the_attribute_is_monotone_along_its_direction(attribute):
    """From each of 50 starts, nine steps along the direction never take the attribute back, and far overall."""
    rng, generator, measure = np.random.default_rng(0), Bars(), script.ATTRIBUTES[attribute]
    z = rng.standard_normal((2000, 6)).astype(np.float32)
    spread = measure(script.sample(generator, z)).std()
    along = script.attribute_direction(z, measure(script.sample(generator, z)))
    values = np.stack([measure(script.sample(generator, z[:50] + d * along)) for d in np.linspace(-2, 2, 9)])
    assert (np.diff(values, axis=0) > 0).all()
    assert (values[-1] - values[0]).mean() > 2 * spread


@pytest.fixture
def trained(tmp_path):
    run("dcgan", "--data_dir", make_data("dcgan", tmp_path / "data"), *TINY, "--out_dir", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--walk", "interpolate"], (10, 8)),
        (["--walk", "arithmetic", "--plus", "3,17,22", "--minus", "4,5,9"], (10, 4)),
        (["--walk", "arithmetic", "--base", "0,1,2", "--plus", "3,17,22", "--minus", "4,5,9"], (3, 4)),
        (["--walk", "direction", "--attribute", "slant"], (9, 10)),
    ],
)
def test_each_walk_writes_one_picture(trained, tmp_path, flags, size):
    run("dcgan", "--resume", trained, "--sample_only", *flags, "--out_dir", tmp_path / "walk")
    (picture,) = (tmp_path / "walk").iterdir()
    assert picture.name == f"walk_{flags[1]}.png"
    assert Image.open(picture).size == tuple(18 * n + 2 for n in size)


# ---- warnings ----


class Noise:
    def __len__(self):
        return 100

    def batch(self, indices):
        return (np.random.default_rng(0).uniform(-1, 1, (len(indices), 1, 4, 4)).astype(np.float32),)


def test_mean_distance_by_hand():
    # Points 0, 3 and 4i: distances 3, 4 and 5.
    assert np.isclose(script.mean_distance(np.float32([[0, 0], [3, 0], [0, 4]])), 4)


def test_a_collapse_is_told_once(capsys):
    watch, same = script.Watch(Noise()), np.zeros((50, 1, 4, 4), np.float32)
    watch.see_samples(Noise().batch(range(50))[0])
    assert capsys.readouterr().err == ""
    watch.see_samples(same)
    watch.see_samples(same)
    assert capsys.readouterr().err.count("collapsed") == 1


def test_a_discriminator_that_has_won_is_told_once(capsys):
    watch = script.Watch(Noise())
    for losses in ([0.005, 0.02], [0.001, 0.009], [0.002]):
        for loss in losses:
            watch.see_loss(loss)
        watch.end_epoch()
    assert capsys.readouterr().err.count("discriminator has won") == 1


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--img_size", 256], "nearest is 128"),
        (["--walk", "interpolate"], "--walk needs --sample_only"),
        (["--plus", "1,x"], "--plus must be numbers of samples from 0 to 99"),
        (["--minus", "100"], "--minus must be"),
        (["--loss", "wgan"], "--loss"),
        (["--attribute", "colour"], "--attribute"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


def test_arithmetic_needs_both_lists(trained, fails):
    code, line = fails(script.main, ["--resume", trained, "--sample_only", "--walk", "arithmetic", "--plus", "1"])
    assert code == 2
    assert "--plus and --minus" in line
