"""stackgan.py: both stages' steps against PyTorch, KL by a formula, the paper's sizes, three phases, pictures."""

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, run, saved_arrays

import stackgan as script
import text2img
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


TINY = ROWS["stackgan"].flags


def array(rng, *shape):
    return jt.array(rng.standard_normal(shape).astype(np.float32))


# ---- the steps ----


@pytest.mark.parametrize("stage", [1, 2])
def test_step_is_pytorchs(stage):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng, parts = np.random.default_rng(0), script.build(parse(*TINY))
    G, D = parts[f"generator{stage}"], parts[f"discriminator{stage}"]
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16 * stage, 16 * stage)).astype(np.float32))
    texts = [array(rng, 8, 8) for _ in range(2)]
    sources = [
        array(rng, 8, 6) if stage == 1 else jt.tanh(array(rng, 8, 1, 16, 16)) for _ in range(2)
    ]
    noise = [array(rng, 8, script.N_C) for _ in range(2)]
    step = (G, D, optimizer_G, optimizer_D, real, texts, sources, noise)
    twin = Twin("stackgan", write_back=False)
    expected = twin.train_step(*step, kl_weight=2.0)
    assert set(expected) == {"loss_D", "loss_G", "KL"}
    assert_same_losses(script.train_step(*step, kl_weight=2.0), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_losses_by_hand():
    """KL of N(2, 1): 2^2 / 2; of N(0, e^2): (e^2 - 1) / 2 - 1; their mean. D's losses are text2img.py's."""
    mean, log_deviation = np.float32([[2, 0]]), np.float32([[0, 1]])
    got = script.kl_divergence(jt.array(mean), jt.array(log_deviation)).item()
    assert np.isclose(got, (2 + (np.exp(2) - 1) / 2 - 1) / 2, rtol=1e-5)
    logits = [jt.array(np.float32(x)) for x in ([2, 0], [-1, 3], [0.5, -4])]
    expected = (
        np.log1p(np.exp([-2, 0])).mean() + np.log1p(np.exp([[-1, 3], [0.5, -4]])).mean(1).sum() / 2
    )
    assert np.isclose(script.discriminator_loss(*logits).item(), expected, rtol=1e-5)
    assert np.isclose(text2img.discriminator_loss(*logits).item(), expected, rtol=1e-5)


def test_the_text_is_blurred_by_its_own_deviation():
    augmentation, rng = script.Augmentation(8), np.random.default_rng(0)
    text, e = array(rng, 3, 8), array(rng, 3, script.N_C)
    still, mean, log_deviation = augmentation(text, jt.zeros_like(e))
    blurred, *_ = augmentation(text, e)
    assert np.array_equal(still.numpy(), mean.numpy())
    assert np.allclose(
        (blurred - mean).numpy(), np.exp(log_deviation.numpy()) * e.numpy(), atol=1e-5
    )
    h = text.numpy() @ augmentation.linear.weight.numpy().T + augmentation.linear.bias.numpy()
    assert np.allclose(np.concatenate([mean.numpy(), log_deviation.numpy()], axis=1), h, atol=1e-5)


# ---- the paper ----


def test_architecture_of_the_paper():
    """Zhang 2017, section 4: N_g = N_d = 128, N_z = 100, M_g = 16, M_d = 4, 64 and 256 pixels, 4 residual blocks."""
    args = parse("--paper")
    assert (args.batch_size, args.lr, args.halve_every, args.stage1_epochs) == (
        64,
        0.0002,
        100,
        600,
    )
    assert args.n_epochs - args.text_epochs - args.stage1_epochs == 600
    G1 = script.Generator1(100, 1024, 3, 64, args.width_G)
    first = G1.layers[0]
    assert (first.in_channels, first.out_channels, first.kernel_size) == (100 + 128, 1024, (4, 4))
    halved = [
        x.stride
        for x in script.Generator2(1024, 3, 64, 4, 8, 4).down.modules()
        if isinstance(x, jt.nn.Conv)
    ]
    assert halved == [(1, 1), (2, 2), (2, 2)]  # 64 to 16
    G2 = script.Generator2(1024, 3, 64, 4, 8, 4)
    assert sum(isinstance(x, script.ResidualBlock) for x in G2.join.modules()) == 4
    assert sum(isinstance(x, jt.nn.Upsample) for x in G2.up.modules()) == 4  # 16 to 256
    assert G2.join[0].in_channels == 4 * 8 + 128
    for size in (64, 256):
        D = script.Discriminator(1024, 3, size, 2)
        strides = [x.stride[0] for x in D.body.modules() if isinstance(x, jt.nn.Conv)]
        assert size // np.prod(strides) == 4
        assert D.head[0].in_channels == D.head[0].out_channels + 128
        assert (D.head[0].kernel_size, D.head[3].kernel_size) == ((1, 1), (4, 4))


# ---- three phases ----


@pytest.fixture(scope="module")
def phases(tiny_runs, tmp_path_factory):
    """Flags of a run with an epoch of each phase, and its folder; it keeps each epoch's checkpoint."""
    out = tmp_path_factory.mktemp("phases")
    flags = [
        *tiny_runs("stackgan").flags,
        "--text_epochs",
        1,
        "--stage1_epochs",
        1,
        "--n_epochs",
        3,
        "--keep",
        3,
    ]
    run("stackgan", *flags, "--out_dir", out / "whole")
    return flags, out / "whole"


def test_what_a_phase_trains(phases):
    """Weights that differ between the checkpoints before and after an epoch."""
    files = [phases[1] / f"checkpoint_step_{step:07d}.npz" for step in (4, 8, 12)]
    first, second, third = map(saved_arrays, files)

    def changed(one, two):
        return {key.split("/")[0] for key in one if not np.array_equal(one[key], two[key])} - {
            "batches"
        }

    of_a_stage = (
        "generator",
        "discriminator",
        "optimizer_generator",
        "optimizer_discriminator",
        "ema",
    )
    assert changed(first, second) == {f"{name}1" for name in of_a_stage}
    assert changed(second, third) == {f"{name}2" for name in of_a_stage}
    with open(phases[1] / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["loss_D"]) for row in rows] == [False] * 4 + [True] * 8


def test_a_run_resumed_within_the_first_phase_is_the_same(phases, tmp_path):
    _, whole = phases
    run("stackgan", "--resume", whole / "checkpoint_step_0000004.npz", "--out_dir", tmp_path)
    arrays, again = saved_arrays(whole), saved_arrays(tmp_path)
    assert [key for key in arrays if not np.array_equal(arrays[key], again[key])] == []


def test_each_stage_starts_at_the_full_rate(tiny_runs, tmp_path, monkeypatch):
    rates, real = [], script.train_step
    monkeypatch.setattr(
        script, "train_step", lambda *a, **k: rates.append((a[2].lr, a[3].lr)) or real(*a, **k)
    )
    flags = ["--n_epochs", 5, "--stage1_epochs", 3, "--halve_every", 2, "--lr", 0.25]
    run("stackgan", *tiny_runs("stackgan").flags, *flags, "--out_dir", tmp_path)
    assert rates == [(rate, rate) for rate in (0.25, 0.25, 0.125, 0.25, 0.25) for _ in range(4)]


def test_stage_2_reads_stage_1s_images(tiny_runs, tmp_path, monkeypatch):
    """G starts from noise while stage I trains, then from its images, through which no gradient flows."""
    seen, real = [], script.train_step
    monkeypatch.setattr(
        script, "train_step", lambda *a, **k: seen.append((a[6], a[4].shape)) or real(*a, **k)
    )
    run("stackgan", *tiny_runs("stackgan").flags, "--stage1_epochs", 1, "--out_dir", tmp_path)
    small = [tuple(x.shape) for sources, _ in seen for x in sources]
    assert small == [(8, 6)] * 8 + [(8, 1, 16, 16)] * 8
    assert [tuple(shape) for _, shape in seen] == [(8, 1, 16, 16)] * 4 + [(8, 1, 32, 32)] * 4
    assert not seen[-1][0][0].requires_grad


# ---- pictures ----


def test_pictures_show_both_stages(tiny_runs, tmp_path):
    """A row of stage I, each pixel of it twice as large, above one of stage II; stored texts or others."""
    half = tiny_runs("stackgan").half
    run("stackgan", "--resume", half, "--sample_only", "--out_dir", tmp_path / "stored")
    flags = ["--text", "a red one", "一只鸟", "--n_samples", 3, "--out_dir", tmp_path / "typed"]
    run("stackgan", "--resume", half, "--sample_only", *flags)
    assert Image.open(tmp_path / "stored/result.png").size == (8 * 34 + 2, 2 * 8 * 34 + 2)
    picture = np.asarray(Image.open(tmp_path / "typed/result.png"))
    assert picture.shape[:2] == (4 * 34 + 2, 8 * 34 + 2)
    first, second = (picture[top : top + 32, 2:34].astype(int) for top in (2, 36))
    assert np.array_equal(first[::2, ::2], first[1::2, 1::2])
    assert not np.array_equal(second[::2, ::2], second[1::2, 1::2])
    with np.load(tmp_path / "typed/samples.npz") as samples:
        assert samples["captions"].tolist() == ["a red one", "一只鸟", "a red one"]


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48, "--scale", 4], "it must be 64, 128 or 256; nearest is 64"),
        (["--img_size", 16], "it must be 32, 64 or 128; nearest is 32"),
        (["--scale", 3], "--scale"),
        (["--stage1_epochs", -1], "--stage1_epochs: must be a whole number at least 0"),
        (["--kl_weight", -1], "--kl_weight"),
        (["--width_G", 2], "--width_G"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
