"""infogan.py: the step against PyTorch, information by hand, table 1 of the paper; codes asked for; that it learns."""

import common
from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image
from registry import run

import infogan as script
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


TINY = ["--img_size", 8, "--width", 2, "--latent_dim", 6, "--n_categories", 3, "--batch_size", 10]


# ---- the step ----


def test_step_is_pytorchs():
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng, args = np.random.default_rng(0), parse(*TINY)
    G, D = script.build(args)
    for module in (
        G,
        D,
    ):  # of weights with a deviation of 0.02 alone, the codes would hardly reach the image
        for p in module.parameters():
            if not p.is_stop_grad():
                p.assign(p * 5)
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    real = jt.array(rng.uniform(-1, 1, (8, 1, 8, 8)).astype(np.float32))
    latents = [tuple(map(jt.array, script.latent(rng, 8, args))) for _ in range(2)]
    step, twin = (
        (G, D, optimizer_G, optimizer_D, real, *latents, (0.7, 0.3)),
        Twin("infogan", write_back=False),
    )
    expected = twin.train_step(*step)
    assert_same_losses(script.train_step(*step), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_the_weights_of_information_reach_both_updates():
    """D and Q, and G, move otherwise with a lambda than without; Q's last layer has no gradient but information's."""
    moved = {}
    for lambdas in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        jt.set_global_seed(987654321)
        args, rng = parse(*TINY), np.random.default_rng(0)
        G, D = script.build(args)
        optimizer_G, optimizer_D = (jt.nn.SGD(m.parameters(), lr=1.0) for m in (G, D))
        head, bottom = D.Q[-1].weight.numpy().copy(), G.dense[0].weight.numpy().copy()
        latents = [tuple(map(jt.array, script.latent(rng, 8, args))) for _ in range(2)]
        script.train_step(G, D, optimizer_G, optimizer_D, jt.zeros((8, 1, 8, 8)), *latents, lambdas)
        moved[lambdas] = D.Q[-1].weight.numpy() - head, G.dense[0].weight.numpy() - bottom
    k, n = args.n_categories, args.n_continuous
    assert not moved[0.0, 0.0][0].any()
    of_category, of_continuous = moved[1.0, 0.0][0], moved[0.0, 1.0][0]
    assert of_category[:k].any() and not of_category[k:].any()
    assert (
        of_continuous[k : k + n].any()
        and of_continuous[k + n :].any()
        and not of_continuous[:k].any()
    )
    assert not np.allclose(moved[1.0, 0.0][1], moved[0.0, 0.0][1])
    assert not np.allclose(moved[0.0, 1.0][1], moved[0.0, 0.0][1])


# ---- information, in nats ----


def of_category(logits, categories):
    zeros = jt.zeros((len(logits), 1))
    return script.information(
        (jt.array(np.float32(logits)), zeros, zeros), jt.array(categories), zeros
    )[0].item()


def test_information_of_a_category_by_hand():
    """Certain and right: log K. Without an idea: 0. Probabilities 1/2 and 1/4 of the right ones of three: the rest."""
    assert np.isclose(of_category([[50, 0, 0], [0, 0, 50]], [0, 2]), np.log(3))
    assert np.isclose(of_category([[7, 7, 7]], [1]), 0, atol=1e-6)
    logits = np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    assert np.isclose(of_category(logits, [0, 1]), np.log(3) - (np.log(2) + np.log(4)) / 2)
    assert of_category([[50, 0, 0]], [1]) < -40  # sure and wrong: a lower bound may be negative


def test_information_of_continuous_codes_by_hand():
    """log 2 + log N(c; mean, deviation) for each of two codes; a deviation that halves with the error adds log 2."""

    def info(error, deviation):
        mean, log_deviation = jt.full((3, 2), 0.2), jt.full((3, 2), float(np.log(deviation)))
        logits, categories = jt.zeros((3, 4)), jt.zeros((3,), "int32")
        return script.information((logits, mean, log_deviation), categories, mean + error)[1].item()

    for error, deviation in ((0.0, 1.0), (0.3, 0.5), (-0.3, 0.1)):
        density = np.exp(-(error**2) / (2 * deviation**2)) / (deviation * np.sqrt(2 * np.pi))
        assert np.isclose(info(error, deviation), 2 * np.log(2 * density), rtol=1e-5)
    assert np.isclose(info(0.05, 0.1) - info(0.1, 0.2), 2 * np.log(2), rtol=1e-4)


def test_losses_by_hand():
    """At logits of 0 nothing is told apart: 2 log 2. At 2 and 1/2: -log s(2) - log(1 - s(1/2))."""
    assert np.isclose(script.discriminator_loss(jt.zeros(3), jt.zeros(3)).item(), 2 * np.log(2))
    loss = script.discriminator_loss(jt.array([2.0]), jt.array([0.5])).item()
    assert np.isclose(loss, np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5)))


def test_what_would_broadcast_is_refused():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))
    with pytest.raises(ValueError, match="different shapes"):
        script.information(
            (jt.zeros((4, 3)), jt.zeros((4, 2)), jt.zeros((4, 2))), jt.zeros(4), jt.zeros((4, 1))
        )


# ---- the paper ----


def test_counts_of_table_1():
    """Chen 2016, table 1 and section C.1: 74 numbers to G; Q gives 10 logits, 2 means and 2 deviations.

    No bias beside batch norm, whose scale and shift count.
    """
    G, D = script.build(parse("--paper"))
    norms = 2 * (1024 + 7 * 7 * 128 + 64)
    dense = 74 * 1024 + 1024 * 7 * 7 * 128
    assert n_parameters(G) == dense + 16 * 128 * 64 + (16 * 64 * 1 + 1) + norms
    body = (16 * 64 + 64) + 16 * 64 * 128 + 7 * 7 * 128 * 1024
    heads = (1024 + 1) + 1024 * 128 + (128 * 14 + 14)
    assert n_parameters(D) == body + heads + 2 * (128 + 1024 + 128)


def test_settings_of_the_paper():
    """Appendix C: rates of 2e-4 and 1e-3, lambda 1, leaky rate 0.1. The authors' launcher: 5,000 batches of 128."""
    args = parse("--paper")
    assert (args.lr, args.lr * args.lr_ratio) == (0.0002, 0.001)
    assert (args.lambda_category, args.b1, args.batch_size) == (1, 0.5, 128)
    assert abs(args.n_epochs * (60000 // 128) - 5000) <= 60000 // 128 / 2
    slopes = {
        layer.scale
        for layer in script.build(parse(*TINY))[1].modules()
        if isinstance(layer, nn.LeakyReLU)
    }
    assert slopes == {0.1}


def test_first_weights_are_the_authors():
    """Deviations of 0.02 (custom_ops.py), about 0 and, of the norms' scales, 1."""
    G, D = script.build(parse("--width", 16))
    for layer in (G.dense[3], D.body[6]):
        assert np.isclose(layer.weight.numpy().std(), 0.02, rtol=0.02)
    assert not D.Q[-1].bias.numpy().any()
    scales = G.dense[4].weight.numpy()
    assert np.isclose(scales.std(), 0.02, rtol=0.1) and abs(scales.mean() - 1) < 0.002


def test_the_latent_has_its_distributions():
    args = parse("--latent_dim", 50)
    z, categories, continuous = script.latent(np.random.default_rng(0), 2000, args)
    for uniform, d in ((z, 50), (continuous, 2)):
        assert (uniform.shape, uniform.dtype) == ((2000, d), np.float32)
        assert np.abs(uniform).max() <= 1 and abs(uniform.mean()) < 0.03
        assert np.isclose(uniform.std(), 3**-0.5, rtol=0.03)
    assert (categories.shape, categories.dtype) == ((2000,), np.int32)
    assert np.bincount(categories, minlength=10).min() > 150


def test_g_sees_each_code_by_itself():
    """Another category, or another number, changes the image, and each in its own way."""
    G, _ = script.build(parse(*TINY))
    z = np.zeros((5, 6), np.float32)
    categories = np.int32([0, 1, 2, 0, 0])
    continuous = np.float32([[0, 0], [0, 0], [0, 0], [1, 0], [0, 1]])
    images = common.in_chunks(G, z, categories, continuous)
    assert images.shape == (5, 1, 8, 8)
    distances = np.abs(images[:, None] - images).max((2, 3, 4))
    assert (distances[~np.eye(5, dtype=bool)] > 0).all()


# ---- pictures and samples ----


def test_panels_are_those_of_figure_2():
    """Rows of equal noise: of all categories, then of each number from -2 to 2."""
    args = parse("--n_categories", 4, "--latent_dim", 3)
    z, categories, continuous = script.panels(np.random.default_rng(0), args)
    z, categories, continuous = (x.reshape(3, 5, 4, -1) for x in (z, categories, continuous))
    assert (z == z[:, :, :1]).all()
    assert len(np.unique(z[:, :, 0, 0])) == 15
    assert categories[0, :, :, 0].tolist() == [[0, 1, 2, 3]] * 5
    assert (continuous[0] == continuous[0][:, :1]).all()
    for i in (1, 2):
        assert np.allclose(continuous[i, ..., i - 1], [[-2, -2 / 3, 2 / 3, 2]] * 5)
        assert (continuous[i, ..., 2 - i] == continuous[i, :, :1, 2 - i]).all()
        assert (categories[i] == categories[i][:, :1]).all()


def test_what_is_asked_is_drawn(tiny_runs, tmp_path, monkeypatch):
    half, seen, real = tiny_runs("infogan").half, [], common.in_chunks
    monkeypatch.setattr(
        common, "in_chunks", lambda network, *arrays: seen.append(arrays) or real(network, *arrays)
    )
    resume = ["--resume", half, "--sample_only", "--n_samples", 7]
    run("infogan", *resume, "--code", 2, "--continuous", -1.5, 0.5, "--out_dir", tmp_path / "both")
    assert [len(z) for z, *_ in seen] == [100, 7]
    for _, categories, continuous in seen:
        assert (categories == 2).all() and (continuous == np.float32([-1.5, 0.5])).all()
    assert Image.open(tmp_path / "both/result.png").size == (3 * 10 + 2, 34 * 10 + 2)
    with np.load(tmp_path / "both/samples.npz") as samples:
        assert samples["codes"].tolist() == [2] * 7
        assert np.array_equal(samples["continuous"], np.float32([[-1.5, 0.5]] * 7))
    run("infogan", *resume, "--out_dir", tmp_path / "none")
    with np.load(tmp_path / "none/samples.npz") as samples:
        assert len(set(samples["codes"])) > 1
        assert np.abs(samples["continuous"]).max() <= 1 and samples["continuous"].std() > 0.2


# ---- it learns ----


def test_categories_become_the_kinds_of_image(tmp_path):
    """Of images with a bright left or a bright right half, each category comes to draw one kind; Q tells them all."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 40, size=(200, 8, 8))
    for side in (0, 1):
        pixels[side::2, :, 4 * side : 4 * side + 4] += 180
    data = write_idx_folder(tmp_path / "data", pixels.astype(np.uint8), np.zeros(200, np.uint8))
    flags = [
        "--img_size",
        8,
        "--width",
        4,
        "--latent_dim",
        6,
        "--n_categories",
        2,
        "--batch_size",
        20,
        "--lr",
        0.001,
    ]
    out = [
        "--n_epochs",
        60,
        "--log_interval",
        100,
        "--n_samples",
        200,
        "--out_dir",
        tmp_path / "out",
    ]
    losses = run("infogan", "--data_dir", data, *flags, *out)
    assert 0.6 < losses["info_category"] <= np.log(2) + 1e-6
    with np.load(tmp_path / "out/samples.npz") as samples:
        images, codes = samples["images"][..., 0] / 255, samples["codes"]
    is_left = images[:, :, :4].mean((1, 2)) > images[:, :, 4:].mean((1, 2))
    shares = [is_left[codes == k].mean() for k in (0, 1)]
    assert min(shares) < 0.1 and max(shares) > 0.9, shares


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 30], "--img_size 30: it must be a multiple of 4, such as 28 or 32"),
        (["--n_categories", 1], "--n_categories: must be a whole number at least 2"),
        (["--lambda_category", -1], "--lambda_category: must be a number at least 0"),
        (["--lr_ratio", 0], "--lr_ratio: must be a number above 0"),
        (["--code", 3], "--code and --continuous need --sample_only"),
        (["--continuous", 0.5, 1], "--code and --continuous need --sample_only"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--code", 3], "--code 3: the categories are 0 to 2"),
        (["--continuous", 0.5], "--continuous must be 2 numbers, got 1"),
        (["--continuous", "x", 1], "--continuous: must be a number"),
    ],
)
def test_codes_that_the_model_does_not_know(fails, tiny_runs, flags, message):
    code, line = fails(
        script.main, ["--resume", tiny_runs("infogan").half, "--sample_only", *flags]
    )
    assert code == 2
    assert message in line
