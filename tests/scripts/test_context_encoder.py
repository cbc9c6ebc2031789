"""context_encoder.py: published sizes, a step against PyTorch, holes, own pictures."""

import common

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images, run

import context_encoder as script
from jittor_fast import nn

SMALL = ["--img_size", 16, "--width", 4, "--bottleneck", 12]


def pixels(*shape, seed=0):
    """Random values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def build(*flags):
    args = script.parse_args([str(flag) for flag in (*SMALL, *flags)])
    return args, *script.build(args)


def adam(network, lr=0.01):
    return nn.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))


def square_mask(n, size, first, end):
    """Masks (n, 1, S, S) with a square hole."""
    masks = np.zeros((n, 1, size, size), np.float32)
    masks[:, :, first:end, first:end] = 1
    return masks


# ---- the paper ----


def n_parameters(network):
    """How many weights are trained; batch norm's running statistics are not."""
    return sum(p.numel() for p in network.parameters() if not p.is_stop_grad())


def convolutions(channels, kernel_size=4):
    """Weights of a chain of convolutions without biases, and of the norms between."""
    kernels = sum(a * b for a, b in zip(channels, channels[1:])) * kernel_size**2
    return kernels, 2 * sum(channels[1:-1])


@pytest.mark.parametrize(
    ("flags", "encoder", "decoder", "discriminator"),
    [
        (
            [],
            [3, 64, 64, 128, 256, 512, 4000],
            [4000, 512, 256, 128, 64, 3],
            [3, 64, 128, 256, 512, 1],
        ),
        (
            ["--hole", "random"],
            [3, 64, 64, 128, 256, 512, 4000],
            [4000, 512, 256, 128, 64, 64, 3],
            [3, 64, 64, 128, 256, 512, 1],
        ),
        (
            ["--hole", "random", "--img_size", "64"],
            [3, 64, 128, 256, 512, 4000],
            [4000, 512, 256, 128, 64, 3],
            [3, 64, 128, 256, 512, 1],
        ),
    ],
)
def test_networks_of_the_authors_code(flags, encoder, decoder, discriminator):
    """train.lua and train_random.lua, layer by layer.

    Their convolutions have biases, which are set to zero before every step. The first
    convolutions of encoder and discriminator have no norm.
    """
    found = [n_parameters(n) for n in script.build(script.parse_args(["--paper", *flags]))]
    kernels, norms = convolutions(encoder)
    expected_G = kernels + norms - 2 * 64 + 2 * 4000
    kernels, norms = convolutions(decoder)
    expected_G += kernels + norms
    kernels, norms = convolutions(discriminator)
    assert found == [expected_G, kernels + norms - 2 * 64]


@pytest.mark.parametrize(
    ("hole", "channels", "overlap"),
    [("center", 1, 1), ("center", 3, 0), ("random", 3, 1)],
)
def test_step_against_pytorch(hole, channels, overlap):
    twins = pytest.importorskip("tools.twins")
    _, G, D = build("--hole", hole, "--channels", channels)
    optimizer_G = adam(G)
    optimizer_D = adam(D)
    masks = square_mask(5, 16, 4 + overlap, 12 - overlap)
    arguments = [G, D, optimizer_G, optimizer_D, jt.array(pixels(5, channels, 16, 16))]
    arguments += [jt.array(masks)]
    options = {"hole": hole, "overlap": overlap, "lambda_rec": 0.9, "lambda_adv": 0.1}

    twin = twins.Twin("context_encoder", write_back=False)
    expected = twin.train_step(*arguments, **options)
    found = script.train_step(*arguments, **options)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(D, twin.module(D), optimizer_D)
    twins.assert_same_step(G, twin.module(G), optimizer_G)


@pytest.mark.parametrize(("rim", "expected"), [(0, 1.0), (1, (12 * 10 + 4) / 16)])
def test_the_error_weighs_ten_times_in_the_rim(rim, expected):
    """Parts of 4 x 4 pixels, all of which are off by one."""
    real = jt.array(pixels(2, 3, 4, 4))
    found = script.reconstruction_loss(real + 1, real, rim).item()
    assert np.isclose(found, expected, rtol=1e-5)


def test_adversarial_losses_by_hand():
    real = jt.array([2.0])
    fake = jt.array([0.5])
    expected = np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))
    assert np.isclose(script.discriminator_loss(real, fake).item(), expected)
    assert np.isclose(script.adversarial_loss(fake).item(), np.log1p(np.exp(-0.5)))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.reconstruction_loss(jt.zeros((2, 3, 4, 4)), jt.zeros((2, 1, 4, 4)), 0)
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros((2,)), jt.zeros((1,)))


# ---- holes ----


@pytest.mark.parametrize(
    ("channels", "colour"),
    [(3, [117, 104, 123]), (1, [0.299 * 117 + 0.587 * 104 + 0.114 * 123])],
)
def test_the_colour_of_a_hole(channels, colour):
    images = pixels(2, channels, 16, 16)
    masks = square_mask(2, 16, 5, 11)
    expected = images.copy()
    expected[:, :, 5:11, 5:11] = (np.float32(colour) / 127.5 - 1).reshape(1, -1, 1, 1)
    assert np.allclose(script.with_hole(images, masks), expected, atol=1e-6)
    found = script.with_hole(jt.array(images), jt.array(masks))
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    assert script.with_hole(images, masks).dtype == np.float32


def test_what_g_predicts():
    images = np.arange(64).reshape(1, 1, 8, 8)
    assert np.array_equal(script.predicted_part(images, "center"), images[:, :, 2:6, 2:6])
    assert script.predicted_part(images, "random") is images


@pytest.mark.parametrize(("hole", "overlap"), [("center", 1), ("random", 0)])
def test_only_missing_pixels_are_replaced(hole, overlap, monkeypatch):
    """The visible rim of the predicted part stays as it is, too."""
    args, generator, _ = build("--hole", hole, "--overlap", overlap, "--channels", 3)
    images = pixels(3, 3, 16, 16)
    masks = square_mask(3, 16, 4 + overlap, 12 - overlap)
    if hole == "random":
        masks[0, 0, 0, 0] = 1
    side = 16 if hole == "random" else 8
    drawn = pixels(3, 3, side, side, seed=1)
    seen = []

    def predict(network, inputs):
        seen.append(inputs)
        return drawn

    monkeypatch.setattr(common, "predict", predict)
    completed = script.completer(generator, args)(images, masks)
    expected = images.copy()
    if hole == "center":
        expected[:, :, 5:11, 5:11] = drawn[:, :, 1:7, 1:7]
    else:
        expected[:, :, 4:12, 4:12] = drawn[:, :, 4:12, 4:12]
        expected[0, :, 0, 0] = drawn[0, :, 0, 0]
    assert np.array_equal(completed, expected)
    assert np.array_equal(seen[0], script.with_hole(images, masks))


@pytest.mark.parametrize(("hole", "side"), [("center", 8), ("random", 16)])
def test_the_discriminator_sees_what_g_predicts(hole, side):
    _, generator, discriminator = build("--hole", hole)
    parts = generator(jt.zeros((2, 1, 16, 16)))
    assert parts.shape == [2, 1, side, side]
    assert discriminator(parts).shape == [2]


# ---- training ----


def test_it_learns_to_fill_one_batch():
    """In 60 steps the error falls to less than a tenth; D sees what is missing."""
    _, G, D = build("--width", 8)
    optimizer_G = adam(G, lr=0.01)
    optimizer_D = adam(D, lr=0.001)
    coarse = pixels(8, 1, 4, 4).repeat(4, axis=2).repeat(4, axis=3)
    batch = (jt.array(coarse), jt.array(square_mask(8, 16, 5, 11)))
    found = []
    for _ in range(60):
        losses = script.train_step(
            G,
            D,
            optimizer_G,
            optimizer_D,
            *batch,
            hole="center",
            overlap=1,
            lambda_rec=0.999,
            lambda_adv=0.001,
        )
        found.append(losses["loss_rec"].item())
    assert np.mean(found[-5:]) < found[0] / 10, found


def small_run(folder, *flags):
    """The folder of a run of one epoch on a folder of pictures."""
    images(folder / "mine/train", 8, (20, 24))
    images(folder / "mine/val", 3, (20, 24), seed=1)
    flags = [*SMALL, "--channels", 3, "--batch_size", 4, "--n_epochs", 1, *flags]
    flags += ["--data_dir", folder / "mine", "--out_dir", folder / "run"]
    run("context_encoder", *flags)
    return folder / "run"


@pytest.mark.parametrize("hole", ["center", "random"])
def test_from_photographs_to_filled_ones(hole, tmp_path):
    """The pictures of a run are those of the run that is opened again."""
    folder = small_run(tmp_path, "--hole", hole)
    picture = Image.open(folder / "result.png")
    assert picture.size == (3 * 18 + 2, 3 * 18 + 2)
    lines = (folder / "validation.csv").read_text().splitlines()
    assert lines[0] == "epoch,val_L1,val_PSNR"
    run("context_encoder", "--resume", folder, "--sample_only", "--out_dir", tmp_path / "again")
    again = Image.open(tmp_path / "again/result.png")
    assert np.array_equal(np.asarray(picture), np.asarray(again))

    rng = np.random.default_rng(0)
    before = rng.integers(256, size=(50, 40, 3), dtype=np.uint8)
    mask = np.zeros((50, 40), np.uint8)
    mask[3:20, 10:16] = 255
    Image.fromarray(before).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    flags = ["--sample_only", "--input", tmp_path / "a.png", "--mask", tmp_path / "m.png"]
    run("context_encoder", "--resume", folder, *flags)
    after = np.asarray(Image.open(folder / "translated/a.png"))
    assert np.array_equal(after[mask == 0], before[mask == 0])
    assert not np.array_equal(after[mask > 0], before[mask > 0])


def test_validation_counts_missing_pixels_alone(tmp_path):
    """Two values of four, off by 0.5 and 0.1; 10 log10(4 / 0.13) = 14.88 dB."""

    class Data:
        def __len__(self):
            return 2

        def batch(self, indices):
            masks = np.zeros((len(indices), 1, 2, 2), np.float32)
            masks[:, :, 0] = 1
            return np.zeros((len(indices), 1, 2, 2), np.float32), masks

    def complete(images, masks):
        return images + np.float32([[0.5, 0.1], [9, 9]])

    found = script.hole_distances(complete, Data(), batch_size=1)
    assert np.isclose(found["val_L1"], 0.3)
    assert np.isclose(found["val_PSNR"], 10 * np.log10(4 / 0.13), atol=1e-4)


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 100], "--img_size"),
        (["--hole", "left"], "--hole"),
        (["--overlap", -1], "--overlap: must be a whole number at least 0"),
        (["--overlap", 8], "--overlap 8: nothing of the 16 pixels would be missing"),
        (["--mask", "x.png"], "--mask needs --input"),
        (["--load_size", 31], "--load_size 31: it must be at least 32"),
        (["--data_dir", "stacked"], "--data_dir stacked: this script takes"),
    ],
)
def test_bad_flags(fails, flags, message, tmp_path):
    code, line = fails(script.main, [*flags, "--out_dir", tmp_path])
    assert code == 2
    assert message in line


def test_pictures_that_cannot_be_filled(fails, tmp_path):
    folder = small_run(tmp_path)
    Image.new("RGB", (20, 20), (9, 9, 9)).save(tmp_path / "a.png")
    sizes = {"black": (20, 20), "white": (20, 20), "small": (20, 19)}
    for name, size in sizes.items():
        Image.new("L", size, 255 if name == "white" else 0).save(tmp_path / f"{name}.png")
    clear = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    cases = {
        (): "a.png has no hole: make the region transparent, or give --mask",
        ("black",): "black.png has no hole: a mask is white where pixels are missing",
        ("white",): "the hole of " + str(tmp_path / "white.png") + " covers everything",
        ("small",): "small.png has 20 x 19 pixels, and",
        ("clear",): "clear.png is transparent in places: a mask is white where",
    }
    for names, message in cases.items():
        flags = ["--resume", folder, "--sample_only", "--input", tmp_path / "a.png"]
        for name in names:
            flags += ["--mask", tmp_path / f"{name}.png"]
        code, line = fails(script.main, flags)
        assert code == 2
        assert message in line
    flags = ["--resume", folder, "--sample_only", "--input", tmp_path / "clear.png"]
    code, line = fails(script.main, flags)
    assert code == 2
    assert "clear.png covers everything" in line
