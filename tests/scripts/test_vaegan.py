"""vaegan.py: steps against PyTorch, losses by hand, whose turn it is, sizes."""

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, run

import vaegan as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ROWS["vaegan"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


# ---- the step ----


@pytest.mark.parametrize("objective", ["original", "modified"])
@pytest.mark.parametrize("shift", [0, 5, -5], ids=["all", "D is ahead", "D is behind"])
def test_two_steps_equal_pytorch(shift, objective):
    """With a shift of D's last bias, L_fake or L_real is far from log 2.

    A positive one makes L_real small and L_fake large: both are out of bounds, and all
    networks are updated.
    """
    twins = pytest.importorskip("tools.twins")
    jt.set_global_seed(1 << 29)
    networks = script.build(parse(*TINY))
    _, _, D = networks
    last = D.logits[6]
    last.bias.assign(last.bias + shift)
    optimizers = [nn.RMSprop(n.parameters(), lr=0.0001, alpha=0.9) for n in networks]
    twin = twins.Twin("vaegan", write_back=False)
    rng = np.random.default_rng(0)
    for _ in range(2):
        real = variable(rng.uniform(-1, 1, (6, 1, 16, 16)))
        noise = variable(rng.standard_normal((6, 5)))
        z_p = variable(rng.standard_normal((6, 5)))
        step = (networks, optimizers, real, noise, z_p)
        settings = {"gamma": 0.01, "objective": objective}
        expected = twin.train_step(*step, **settings)
        twins.assert_same_losses(script.train_step(*step, **settings), expected)
    for network, optimizer in zip(networks, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


@pytest.mark.parametrize(
    ("loss_real", "loss_fake", "decoder", "discriminator"),
    [
        (0.69, 0.69, True, True),
        (0.2, 0.69, True, False),  # below 0.68 - 0.35 = 0.33
        (0.69, 0.3, True, False),
        (1.1, 0.69, False, True),  # above 0.68 + 0.35 = 1.03
        (0.69, 1.1, False, True),
        (0.2, 1.1, True, True),  # neither would be
    ],
)
def test_whose_turn_it_is(loss_real, loss_fake, decoder, discriminator):
    """The authors' model/aegan.py, GradientDescent.train_epoch; a margin of 0.35."""
    assert script.who_is_updated(loss_real, loss_fake) == (decoder, discriminator)


def test_who_is_not_updated_keeps_its_weights(monkeypatch):
    monkeypatch.setattr(script, "who_is_updated", lambda loss_real, loss_fake: (True, False))
    networks = script.build(parse(*TINY))
    optimizers = [nn.RMSprop(n.parameters(), lr=0.01) for n in networks]
    before = [n.parameters()[0].numpy() for n in networks]
    rng = np.random.default_rng(0)
    real = variable(rng.uniform(-1, 1, (6, 1, 16, 16)))
    codes = variable(rng.standard_normal((6, 5)))
    script.train_step(networks, optimizers, real, codes, codes, gamma=0.01, objective="original")
    moved = [not np.array_equal(a, n.parameters()[0].numpy()) for a, n in zip(before, networks)]
    assert moved == [True, True, False]


def test_losses_by_hand():
    mean = variable([[0.0, 2.0]])
    log_variance = variable([[np.log(4.0), 0.0]])
    expected = (4 - 1 - np.log(4) + 4) / 2
    assert np.isclose(script.prior_loss(mean, log_variance).item(), expected)

    features = variable(np.zeros((2, 1, 1, 2)))
    others = variable([[[[3.0, 4.0]]], [[[0.0, 1.0]]]])
    assert np.isclose(script.likelihood_loss(features, others).item(), (25 / 2 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="different shapes"):
        script.likelihood_loss(features, others[:1])

    loss_real, loss_fake = script.gan_losses(variable([2, 0, 1, -3]), 1)
    assert np.isclose(loss_real.item(), np.log1p(np.exp(-2)))
    assert np.isclose(loss_fake.item(), np.log1p(np.exp([0, 1, -3])).mean())


@pytest.mark.parametrize("objective, slope", [("original", 1e-3), ("modified", 1 - 1e-3)])
def test_only_the_modified_loss_moves_an_image_that_D_sees_through(objective, slope):
    """D = 0.001: |d log(1 - D) / dl| is D, and |d log D / dl| is 1 - D."""
    logits = variable([np.log(1e-3 / (1 - 1e-3))])
    gradient = jt.grad(script.fooling_loss(logits, objective), logits)
    assert np.isclose(gradient.item(), -slope)


# ---- the authors' setting ----


def norm(c):
    return 2 * c


def test_parameters_of_the_authors():
    """github.com/andersbll/autoencoding_beyond_pixels, architectures.py, img64x64."""
    E, decoder, D = script.build(parse("--paper"))
    convolutions = 25 * (3 * 64 + 64 * 128 + 128 * 256)
    dense = 256 * 64 * 1024 + 2 * (1024 * 128 + 128)
    assert n_parameters(E) == convolutions + dense + norm(64 + 128 + 256 + 1024)

    convolutions = 25 * (256 * 256 + 256 * 128 + 128 * 32 + 32 * 3) + 3
    dense = 128 * 256 * 64
    assert n_parameters(decoder) == convolutions + dense + norm(256 * 64 + 256 + 128 + 32)

    convolutions = 25 * (3 * 32 + 32 * 128 + 128 * 256 + 256 * 256) + 32
    dense = 256 * 64 * 512 + 512 + 1
    assert n_parameters(D) == convolutions + dense + norm(128 + 256 + 256 + 512)


def test_the_features_are_those_of_the_third_strided_convolution():
    """`recon_depth=9` in celeba_aegan.py: before its norm."""
    _, _, D = script.build(parse(*TINY))
    x = variable(np.random.default_rng(0).uniform(-1, 1, (3, 1, 16, 16)))
    logits, features = D(x)
    assert logits.shape == [3]
    assert features.shape == [3, 16, 2, 2]
    strides = [layer.stride for layer in D.features.modules() if isinstance(layer, nn.Conv)]
    assert strides == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert isinstance(D.features[8], nn.Conv)


# ---- the run ----


def test_pictures_show_reconstructions(tiny_runs, tmp_path):
    """Ten test images, their reconstructions, and five rows of samples."""
    half = tiny_runs("vaegan").half
    assert Image.open(half / "result.png").size == (10 * 18 + 2, 7 * 18 + 2)
    resume = ["--resume", half, "--sample_only"]  # without the data, samples alone
    run("vaegan", *resume, "--n_samples", 3, "--out_dir", tmp_path)
    assert Image.open(tmp_path / "result.png").size == (10 * 18 + 2, 10 * 18 + 2)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].shape == (3, 16, 16, 1)
