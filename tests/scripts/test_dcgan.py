"""dcgan.py: losses by hand, one step against PyTorch, the paper's sizes, a training."""

import common

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from registry import run

import dcgan as script
from jittor_fast import nn
from tools.describe import n_parameters

SMALL = ["--img_size", "16", "--width", "4", "--latent_dim", "6"]


def build(*flags):
    return script.build(script.parse_args([str(flag) for flag in flags]))


def layers_of(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


# ---- losses and one step ----


def test_losses_by_hand():
    """At a real logit of 2 and a fake one of 1/2: -log s(2) - log(1 - s(1/2))."""
    real = jt.array([2.0])
    fake = jt.array([0.5])
    expected = np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))
    assert np.isclose(script.discriminator_loss(real, fake).item(), expected)
    assert np.isclose(script.generator_loss(fake).item(), np.log1p(np.exp(-0.5)))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))


class Blur:
    """Adds the next batch of noise to the images at each call."""

    def __init__(self, noise):
        self.left = list(noise)

    def __call__(self, images):
        return images + jt.array(self.left.pop(0))


def test_step_against_pytorch():
    twins = pytest.importorskip("tools.twins")
    generator, discriminator = build(*SMALL)
    optimizer_G = nn.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.999))
    networks = (generator, discriminator, optimizer_G, optimizer_D)
    rng = np.random.default_rng(0)
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16, 16)).astype(np.float32))
    z_D = jt.array(rng.standard_normal((8, 6), dtype=np.float32))
    z_G = jt.array(rng.standard_normal((8, 6), dtype=np.float32))
    noise = 0.3 * rng.standard_normal((3, 8, 1, 16, 16), dtype=np.float32)

    twin = twins.Twin("dcgan", write_back=False)
    expected = twin.train_step(*networks, real, z_D, z_G, blur=Blur(noise))
    blur = Blur(noise)
    found = script.train_step(*networks, real, z_D, z_G, blur=blur)
    assert blur.left == []  # each of the three batches that D sees had its own noise
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)


# ---- the paper ----


def test_layers_of_the_paper():
    """Radford 2015, section 3: no batch norm at G's output and at D's input."""
    generator, discriminator = build("--img_size", 64, "--width", 2)
    G = list(generator.layers.layers.values())
    D = list(discriminator.layers.layers.values())
    assert [type(layer) for layer in G[-3:]] == [nn.ReLU, nn.ConvTranspose, nn.Tanh]
    assert [type(layer) for layer in D[:2]] == [nn.Conv, nn.LeakyReLU]
    assert D[1].scale == 0.2
    assert len(layers_of(generator, nn.BatchNorm)) == 4
    assert len(layers_of(discriminator, nn.BatchNorm)) == 3


def test_initial_weights_of_the_paper():
    """Section 4: N(0, 0.02^2). The norms' scales have the same deviation around 1."""
    generator, discriminator = build("--img_size", 64, "--width", 32)
    kernels = [layer.weight.numpy().ravel() for layer in layers_of(generator, nn.ConvTranspose)]
    weights = np.concatenate(kernels)
    assert abs(weights.mean()) < 1e-4
    assert np.isclose(weights.std(), 0.02, rtol=0.01)
    norms = layers_of(discriminator, nn.BatchNorm)
    scales = np.concatenate([layer.weight.numpy() for layer in norms])
    assert abs(scales.mean() - 1) < 4 * 0.02 / len(scales) ** 0.5
    assert np.isclose(scales.std(), 0.02, rtol=0.2)


def test_parameters_of_the_paper():
    """Figure 1 of Radford 2015: z of 100; 4 x 4 x 1024, 8 x 8 x 512, ..., 64 x 64 x 3.

    Kernels are 4 x 4; there is no bias beside batch norm, whose scale and shift count.
    D mirrors G, from 3 channels to one logit.
    """
    generator, discriminator = build("--paper")
    channels = [100, 1024, 512, 256, 128, 3]
    kernels = sum(16 * n_in * n_out for n_in, n_out in zip(channels, channels[1:]))
    norms = 2 * (1024 + 512 + 256 + 128)
    assert n_parameters(generator) == kernels + norms == 12_658_432

    channels = [3, 128, 256, 512, 1024, 1]
    kernels = sum(16 * n_in * n_out for n_in, n_out in zip(channels, channels[1:]))
    norms = 2 * (256 + 512 + 1024)
    assert n_parameters(discriminator) == kernels + norms


def test_settings_of_the_paper():
    """Radford 2015, section 4; z is uniform, and nothing is added to D's input."""
    args = script.parse_args(["--paper"])
    assert args.batch_size == 128
    assert args.lr == 0.0002
    assert args.b1 == 0.5
    assert args.img_size == 64
    assert args.latent_dim == 100
    assert args.noise == "uniform"
    assert args.instance_noise == 0
    assert args.ema_decay == 0
    # github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py: niter, ngf and ndf
    assert args.n_epochs == 25
    assert args.width == 128


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes_by_depth(size):
    generator, discriminator = build("--img_size", size, "--width", 2, "--latent_dim", 3)
    images = common.predict(generator, np.zeros((2, 3), np.float32))
    assert images.shape == (2, 1, size, size)
    assert common.predict(discriminator, images).shape == (2,)


# ---- the noise of a run ----


@pytest.fixture
def steps_of(monkeypatch, idx_folder, tmp_path):
    """A function of flags that runs four steps: (real, z_D, z_G, blur) of each."""

    def call(*flags):
        steps = []
        real_step = script.train_step

        def train_step(*args, blur):
            steps.append((*args[4:], blur))
            return real_step(*args, blur=blur)

        monkeypatch.setattr(script, "train_step", train_step)
        training = ["--batch_size", 10, "--n_epochs", 1, "--data_dir", idx_folder]
        run("dcgan", *SMALL, *training, *flags, "--out_dir", tmp_path / "out")
        assert len(steps) == 4
        return steps

    return call


@pytest.mark.parametrize(("kind", "deviation"), [("normal", 1), ("uniform", 3**-0.5)])
def test_z_has_the_distribution_that_was_asked_for(steps_of, kind, deviation):
    steps = steps_of("--noise", kind, "--latent_dim", 100)
    z = np.stack([[z_D.numpy(), z_G.numpy()] for _, z_D, z_G, _ in steps])
    assert z.shape == (4, 2, 10, 100)
    assert abs(z.mean()) < 0.05
    assert np.isclose(z.std(), deviation, rtol=0.03)
    assert (np.abs(z).max() <= 1) == (kind == "uniform")
    assert len(np.unique(z[..., 0])) == 80  # no noise is used twice


@pytest.mark.parametrize("deviation", [0.0, 0.3])
def test_instance_noise(steps_of, deviation):
    noise = []
    for real, _, _, blur in steps_of("--instance_noise", deviation):
        for _ in range(2):
            noise.append((blur(real) - real).numpy())
    noise = np.stack(noise)
    assert noise.shape == (8, 10, 1, 16, 16)
    assert np.isclose(noise.std(), deviation, rtol=0.05)
    if deviation > 0:
        assert not np.allclose(noise[0], noise[1])


# ---- it learns ----


def test_it_learns_two_grey_levels(tmp_path):
    """Half of the images are dark, half bright: after 600 steps G draws both.

    An untrained G draws grey images only, and so does one without a gradient of D; a
    collapsed one draws one level.
    """
    rng = np.random.default_rng(0)
    levels = np.where(np.arange(200) % 2 == 0, 64, 192)
    pixels = levels[:, None, None] + 8 * rng.standard_normal((200, 16, 16))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    data = write_idx_folder(tmp_path / "data", pixels, np.zeros(200, np.uint8))
    flags = ["--img_size", 16, "--width", 8, "--latent_dim", 6, "--ema_decay", 0.98]
    flags += ["--batch_size", 20, "--n_epochs", 60, "--lr", 0.002, "--log_interval", 1000]
    run("dcgan", *flags, "--data_dir", data, "--n_samples", 200, "--out_dir", tmp_path / "out")
    with np.load(tmp_path / "out/samples.npz") as samples:
        images = samples["images"].astype(np.float64)
    means = images.mean((1, 2, 3))
    is_dark = means < 96
    is_bright = means > 160
    assert (is_dark | is_bright).mean() > 0.7
    assert is_dark.mean() > 0.2
    assert is_bright.mean() > 0.2
    # An image has one level: one that is half dark and half bright has 64.
    assert images.std((1, 2, 3)).mean() < 45


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "--img_size: invalid choice"),
        (["--noise", "cauchy"], "--noise"),
        (["--ema_decay", 1], "--ema_decay"),
        (["--instance_noise", -0.5], "--instance_noise"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
