"""dcgan.py: the step against PyTorch, losses by hand, the paper's architecture and counts; that it learns."""

import common
from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from registry import run

import dcgan as script
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


# ---- the step ----


@pytest.mark.parametrize(
    ("loss", "flags"),
    [("bce", []), ("lsgan", []), ("hinge", []), ("bce", ["--minibatch_discrimination", "5,3"])],
)
def test_step_is_pytorchs(loss, flags):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    G, D = script.build(
        script.parse_args(["--img_size", "16", "--latent_dim", "6", "--width", "4", *flags])
    )
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16, 16)).astype(np.float32))
    z_D, z_G = jt.array(rng.standard_normal((2, 8, 6)).astype(np.float32))
    noises = [
        jt.array(0.3 * rng.standard_normal((8, 1, 16, 16)).astype(np.float32)) for _ in range(3)
    ]
    ours, theirs, twin = iter(noises), iter(noises), Twin("dcgan", write_back=False)

    expected = twin.train_step(
        G, D, optimizer_G, optimizer_D, real, z_D, z_G, lambda: next(theirs), loss
    )
    got = script.train_step(
        G, D, optimizer_G, optimizer_D, real, z_D, z_G, lambda: next(ours), loss
    )
    assert next(ours, None) is None  # each of D's three batches has had noise of its own
    assert_same_losses(got, expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


@pytest.mark.parametrize(
    ("loss", "expected_D", "expected_G"),
    [
        ("bce", np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5)), np.log1p(np.exp(-0.5))),
        ("lsgan", ((2 - 1) ** 2 + 0.5**2) / 2, (0.5 - 1) ** 2 / 2),
        ("hinge", 0 + 1.5, -0.5),
    ],
)
def test_losses_by_hand(loss, expected_D, expected_G):
    real, fake = jt.array([2.0]), jt.array([0.5])
    assert np.isclose(script.discriminator_loss(real, fake, loss).item(), expected_D)
    assert np.isclose(script.generator_loss(fake, loss).item(), expected_G)


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)), "bce")


# ---- minibatch discrimination ----


def test_nearness_by_hand():
    """Salimans 2016, section 3.2: a row's own distance is 0, and counts as 1."""
    layer = script.MinibatchDiscrimination(2, 2, 1)
    layer.weight.assign(jt.array(np.float32([[[1], [0]], [[0], [10]]])))  # M is (x1, 10 x2)
    features = np.float32([[0, 1], [1, 1], [3, 2]])
    found = layer(jt.array(features)).numpy()
    assert np.array_equal(found[:, :2], features)
    first = [1 + np.exp(-1) + np.exp(-3), 1 + np.exp(-1) + np.exp(-2), 1 + np.exp(-3) + np.exp(-2)]
    assert np.allclose(found[:, 2], first)
    assert np.allclose(found[:, 3], [2 + np.exp(-10)] * 2 + [1 + 2 * np.exp(-10)])


def test_an_image_is_judged_by_its_batch():
    """In eval mode, where batch norm does not look at it; without discrimination an image's logit is its own."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 1, 16, 16)).astype(np.float32)
    alike = np.concatenate([images[:1]] * 4)
    for flags in ([], ["--minibatch_discrimination", "5,3"]):
        _, D = script.build(script.parse_args(["--img_size", "16", "--width", "4", *flags]))
        D.eval()
        one, two = (D(jt.array(batch)).numpy()[0] for batch in (images, alike))
        assert np.isclose(one, two, rtol=1e-5, atol=1e-7) == (flags == [])


def test_count_of_minibatch_discrimination():
    """T has A B C numbers, and the last layer A + B; the convolution that it replaces had A."""
    plain, with_it = (
        n_parameters(
            script.build(script.parse_args(["--img_size", "16", "--width", "4", *flags]))[1]
        )
        for flags in ([], ["--minibatch_discrimination", "50,5"])
    )
    assert with_it - plain == 16 * 8 * 50 * 5 + 50


# ---- the architecture ----


def test_architecture_of_the_paper():
    """Radford 2015, section 3: no norm at G's output nor D's input; section 4: weights from N(0, 0.02^2)."""
    generator, discriminator = script.build(
        script.parse_args(["--img_size", "64", "--width", "32"])
    )
    G, D = ([*m.layers.layers.values()] for m in (generator, discriminator))
    assert [type(layer) for layer in G[-3:]] == [nn.ReLU, nn.ConvTranspose, nn.Tanh]
    assert [type(layer) for layer in D[:2]] == [nn.Conv, nn.LeakyReLU]
    assert D[1].scale == 0.2
    assert sum(isinstance(layer, nn.BatchNorm) for layer in G) == 4
    assert sum(isinstance(layer, nn.BatchNorm) for layer in D) == 3
    weights = np.concatenate(
        [layer.weight.numpy().ravel() for layer in G if isinstance(layer, nn.ConvTranspose)]
    )
    assert abs(weights.mean()) < 1e-4
    assert np.isclose(weights.std(), 0.02, rtol=0.01)
    scales = np.concatenate(
        [layer.weight.numpy() for layer in D if isinstance(layer, nn.BatchNorm)]
    )
    assert abs(scales.mean() - 1) < 4 * 0.02 / len(scales) ** 0.5
    assert np.isclose(scales.std(), 0.02, rtol=0.2)


def test_counts_of_the_paper():
    """Figure 1 of Radford 2015: 100 numbers to 4 x 4 x 1024, 8 x 8 x 512, 16 x 16 x 256, 32 x 32 x 128, 64 x 64 x 3.

    Kernels of 4 x 4 as in the authors' code; no bias beside batch norm, whose scale and shift count.
    """
    channels = [100, 1024, 512, 256, 128, 3]
    kernels = sum(16 * a * b for a, b in zip(channels, channels[1:]))
    norms = 2 * sum(channels[1:-1])
    G, D = script.build(script.parse_args(["--paper"]))
    assert n_parameters(G) == kernels + norms == 12_658_432
    # D mirrors it, from 3 channels to one logit.
    channels = [3, 128, 256, 512, 1024, 1]
    assert n_parameters(D) == sum(16 * a * b for a, b in zip(channels, channels[1:])) + 2 * (
        256 + 512 + 1024
    )


def test_settings_of_the_paper():
    """Radford 2015, section 4: batches of 128, Adam with a rate of 0.0002 and beta1 0.5, a uniform z of length 100."""
    args = script.parse_args(["--paper"])
    assert (args.batch_size, args.lr, args.b1, args.img_size, args.latent_dim) == (
        128,
        0.0002,
        0.5,
        64,
        100,
    )
    assert (args.noise, args.loss, args.instance_noise, args.ema_decay) == ("uniform", "bce", 0, 0)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes_by_depth(size):
    args = script.parse_args(["--img_size", str(size), "--width", "2", "--latent_dim", "3"])
    generator, discriminator = script.build(args)
    images = common.in_chunks(generator, np.zeros((2, 3), np.float32))
    assert images.shape == (2, 1, size, size)
    assert common.in_chunks(discriminator, images).shape == (2,)


# ---- noise ----


def test_noise_has_its_distribution():
    draws = {
        noise: script.latent(
            np.random.default_rng(0),
            1000,
            script.parse_args(["--noise", noise, "--latent_dim", "50"]),
        )
        for noise in ("normal", "uniform")
    }
    for z, deviation in ((draws["normal"], 1), (draws["uniform"], 3**-0.5)):
        assert (z.shape, z.dtype) == ((1000, 50), np.float32)
        assert abs(z.mean()) < 0.02 and np.isclose(z.std(), deviation, rtol=0.02)
    assert np.abs(draws["uniform"]).max() <= 1 < np.abs(draws["normal"]).max()


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_what_d_sees_carries_instance_noise(tmp_path, monkeypatch, idx_folder, std):
    seen, real_step = [], script.train_step

    def step(*args):
        seen.append(args[7]())
        return real_step(*args)

    monkeypatch.setattr(script, "train_step", step)
    flags = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, "--n_epochs", 1]
    run(
        "dcgan",
        *flags,
        "--data_dir",
        idx_folder,
        "--instance_noise",
        std,
        "--out_dir",
        tmp_path / "out",
    )
    assert len(seen) == 4
    if std == 0:
        assert seen == [0] * 4
    else:
        noise = np.stack([x.numpy() for x in seen])
        assert noise.shape == (4, 10, 1, 16, 16)
        assert np.isclose(noise.std(), std, rtol=0.05)


# ---- it learns ----


def test_it_learns_two_grey_levels(tmp_path):
    """Half of the images are dark, half bright: after 600 steps G makes both, and little in between.

    An untrained G gives grey images alone, a generator without a gradient of D too, and a collapsed one one level.
    """
    rng = np.random.default_rng(0)
    levels = np.where(np.arange(200) % 2 == 0, 64, 192)
    pixels = np.clip(levels[:, None, None] + 8 * rng.standard_normal((200, 16, 16)), 0, 255).astype(
        np.uint8
    )
    data = write_idx_folder(tmp_path / "data", pixels, np.zeros(200, np.uint8))
    network = ["--img_size", 16, "--width", 8, "--latent_dim", 6, "--ema_decay", 0.98]
    training = [
        "--data_dir",
        data,
        "--batch_size",
        20,
        "--n_epochs",
        60,
        "--lr",
        0.002,
        "--log_interval",
        1000,
    ]
    run("dcgan", *network, *training, "--n_samples", 200, "--out_dir", tmp_path / "out")
    with np.load(tmp_path / "out/samples.npz") as samples:
        images = samples["images"].astype(np.float64)
    means = images.mean((1, 2, 3))
    dark, bright = means < 96, means > 160
    assert (dark | bright).mean() > 0.7
    assert dark.mean() > 0.2 and bright.mean() > 0.2
    assert (
        images.std((1, 2, 3)).mean() < 45
    )  # an image is of one level: half dark, half bright it would have 64


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--img_size", 256], "nearest is 128"),
        (["--loss", "wgan"], "--loss"),
        (["--noise", "cauchy"], "--noise"),
        (["--ema_decay", 1], "--ema_decay"),
        (["--instance_noise", -0.5], "--instance_noise"),
        (["--minibatch_discrimination", "100"], "must be B,C"),
        (["--minibatch_discrimination", "100,0"], "must be B,C"),
        (["--stacked", "--channels", 1], "--stacked makes images of 3 channels"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
