"""unit.py: published sizes, shared layers, a step against PyTorch, both directions."""

import common

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import run

import unit as script
from jittor_fast import nn

TINY = ["--img_size", "32", "--width", "4", "--n_blocks", "1", "--channels", "3"]


def pixels(*shape, seed=0):
    """Random values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


# ---- the paper ----


def convolution(c_in, c_out, size):
    """The weights and biases of a convolution."""
    return c_in * c_out * size**2 + c_out


def test_parameters_of_the_paper():
    """The layers of the authors' yaml, counted by hand."""
    block = 2 * convolution(256, 256, 3)
    encoder = convolution(3, 64, 7) + convolution(64, 128, 3) + convolution(128, 256, 3)
    decoder = convolution(256, 128, 3) + convolution(128, 64, 3) + convolution(64, 3, 1)
    vaes = 2 * (encoder + 3 * block) + 2 * block + 2 * (decoder + 3 * block)
    widths = [3, 64, 128, 256, 512, 1024, 2048]
    discriminator = convolution(2048, 1, 1)
    for c_in, c_out in zip(widths, widths[1:]):
        discriminator += convolution(c_in, c_out, 3)
    networks = script.build(script.parse_args(["--paper"]))
    assert [n_parameters(network) for network in networks] == [vaes, discriminator, discriminator]


@pytest.mark.parametrize(("size", "n"), [(32, 4), (64, 5), (128, 6), (256, 7)])
def test_a_discriminator_leaves_two_by_two_scores(size, n):
    args = script.parse_args(["--img_size", str(size), "--width", "1"])
    assert args.n_layers_D == n
    _, D_A, _ = script.build(args)
    assert D_A(jt.zeros((1, 1, size, size))).shape == [1, 1, 2, 2]


def test_step_against_pytorch():
    """The domains, the noises and the weights differ, so an exchange would be found."""
    twins = pytest.importorskip("tools.twins")
    networks = script.build(script.parse_args(TINY))
    vaes, D_A, D_B = networks
    for parameter in vaes.parameters():  # larger weights, so that no loss is near to 0
        parameter.assign(3 * parameter)
    adam = {"lr": 0.01, "betas": (0.5, 0.999), "weight_decay": 0.0001}
    optimizer_G = nn.Adam(vaes.parameters(), **adam)
    optimizer_D = nn.Adam(D_A.parameters() + D_B.parameters(), **adam)
    arguments = [
        networks,
        (optimizer_G, optimizer_D),
        jt.array(pixels(2, 3, 32, 32, seed=1)),
        jt.array(pixels(2, 3, 32, 32, seed=2) / 2),
        jt.array(normal(4, 16, 8, 8, seed=3)),
        jt.array(normal(4, 16, 8, 8, seed=4)),
    ]
    weights = {"lambda_GAN": 10.0, "lambda_rec": 100.0, "lambda_KL": 0.1}
    twin = twins.Twin("unit", write_back=False)
    expected = twin.train_step(*arguments, **weights)
    found = script.train_step(*arguments, **weights)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(vaes, twin.module(vaes), optimizer_G)
    for network in (D_A, D_B):
        twins.assert_same_step(network, twin.module(network), optimizer_D)


# ---- losses ----


def test_the_adversarial_losses_by_hand():
    """log 2 for logits of 0; for D both terms."""
    zeros = jt.zeros((2, 1, 4, 4))
    assert script.discriminator_loss(zeros, zeros).item() == pytest.approx(2 * np.log(2))
    assert script.generator_loss(zeros).item() == pytest.approx(np.log(2))


def test_the_divergences_are_means_of_squares():
    """Of A, (1 + 9) / 2, and of B, (4 + 0) / 2."""
    assert script.kl_divergences(jt.array(np.float32([[1, -3], [2, 0]]))).item() == 7


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.l1_distance(jt.zeros((2, 3)), jt.zeros((2, 1)))
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros((2, 1)), jt.zeros((2, 2)))


# ---- shared layers ----


def test_both_domains_share_the_innermost_layers():
    """Their change changes both domains; that of A's own layers does not change B."""
    vaes, _, _ = script.build(script.parse_args(TINY))
    images = pixels(1, 3, 32, 32)

    def outputs():
        codes = [common.predict(encode, images) for encode in (vaes.encode_A, vaes.encode_B)]
        decoders = (vaes.decode_A, vaes.decode_B)
        return codes + [common.predict(decode, normal(1, 16, 8, 8)) for decode in decoders]

    def changed(parameters):
        before = outputs()
        for parameter in parameters:
            parameter.assign(parameter + 0.1 * jt.array(normal(*parameter.shape)))
        return [not np.array_equal(a, b) for a, b in zip(before, outputs())]

    assert changed(vaes.shared_encoder.parameters()) == [True, True, False, False]
    assert changed(vaes.shared_decoder.parameters()) == [False, False, True, True]
    assert changed(vaes.encoder_A.parameters()) == [True, False, False, False]
    assert changed(vaes.decoder_B.parameters()) == [False, False, False, True]


def test_translations_go_through_the_other_domain():
    vaes, _, _ = script.build(script.parse_args(TINY))
    images = jt.array(pixels(2, 3, 32, 32))
    expected = vaes.decode_B(vaes.encode_A(images)).numpy()
    assert np.array_equal(vaes.A_to_B(images).numpy(), expected)
    expected = vaes.decode_A(vaes.encode_B(images)).numpy()
    assert np.array_equal(vaes.B_to_A(images).numpy(), expected)


# ---- both directions ----


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_direction_chooses_the_translation(tiny_runs, tmp_path, direction):
    """--input through the VAEs, compared with the exported weights."""
    half = tiny_runs("unit").half
    picture = np.random.default_rng(3).integers(256, size=(32, 32), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    flags = ["--input", tmp_path / "x.png", "--direction", direction, "--out_dir", tmp_path / "o"]
    run("unit", "--resume", half, "--sample_only", *flags)

    vaes, _, _ = script.build(script.parse_args(["--resume", str(half), "--sample_only"]))
    vaes.load(str(half / "vaes_last.pkl"))
    network = vaes.A_to_B if direction == "AtoB" else vaes.B_to_A
    image = np.float32(picture)[None, None] / 127.5 - 1
    translation = common.predict(network, image)[0, 0]
    expected = np.clip((translation + 1) * 127.5, 0, 255)
    found = np.asarray(Image.open(tmp_path / "o/x.png"), np.float32)
    assert np.abs(found - expected).max() <= 1


# ---- flags ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 50], "such as 48 or 52"),
        (["--n_layers_D", 6], "at most 5 fit"),
        (["--n_samples", 5], "--n_samples"),
        (["--input", "x"], "--input needs --sample_only"),
        (["--direction", "AtoC"], "--direction"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


def test_the_length_in_epochs_replaces_that_of_the_paper_in_images():
    assert script.parse_args(["--paper"]).n_images == 500000
    args = script.parse_args(["--paper", "--n_epochs", "3"])
    assert (args.n_epochs, args.n_images) == (3, None)
