"""text2img.py: the steps against PyTorch, losses by hand, texts and pictures, resuming both phases; that it learns."""

import common
from common.data.captions import encode

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, assert_same_run, meta, run

import text2img as script
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


TINY = ROWS["text2img"].flags
TEXTS = ["a thin red one on black", "一个红色的粗三", "x"]


def codes(rng, n, d=8):
    """(n, d) with a mean square of 1."""
    x = rng.standard_normal((n, d)).astype(np.float32)
    return jt.array(x / np.sqrt((x**2).mean(1, keepdims=True)))


# ---- the steps ----


@pytest.mark.parametrize(("with_wrong", "interpolate"), [(True, False), (False, True)])
def test_step_is_pytorchs(with_wrong, interpolate):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    G, D, *_ = script.build(parse(*TINY))
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    real = jt.array(rng.uniform(-1, 1, (9, 1, 16, 16)).astype(np.float32))
    texts, noise = [codes(rng, 9) for _ in range(2)], [codes(rng, 9, 6) for _ in range(2)]
    step = (G, D, optimizer_G, optimizer_D, real, texts, noise, with_wrong, interpolate)
    twin = Twin("text2img", write_back=False)
    expected = twin.train_step(*step)
    assert ("loss_G_between" in expected) == interpolate
    assert_same_losses(script.train_step(*step), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_text_encoder_is_pytorchs():
    torch = pytest.importorskip("torch")
    from tools.twins import Twin

    encoder, texts = script.TextEncoder(8), encode(TEXTS)
    twin = Twin("text2img").module(encoder)
    got = encoder(jt.array(texts))
    weights = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    want = twin(torch.tensor(texts))
    assert np.allclose(got.numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
    (want * torch.tensor(weights)).sum().backward()
    names = [name for name, _ in encoder.named_parameters()]
    grads = jt.grad((got * weights).sum(), [p for _, p in encoder.named_parameters()])
    theirs = dict(twin.named_parameters())
    for name, grad in zip(names, grads):
        expected = theirs[name].grad.numpy()
        assert np.allclose(grad.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()), (
            name
        )


def test_known_codes_are_the_encoders():
    encoder, texts = script.TextEncoder(8), encode(TEXTS)
    known = script.KnownCodes(encoder, texts)
    expected = encoder(jt.array(texts)).numpy()
    encoder.output.weight *= 2  # they stay
    assert np.allclose(known(jt.array(texts[[2, 0, 2]])).numpy(), expected[[2, 0, 2]], atol=1e-6)


def test_a_codes_mean_square_is_one_and_its_text_counts_to_the_end():
    """However many zeros follow; in any language; small letters or not."""
    encoder = script.TextEncoder(8)
    texts = [*TEXTS, "A thin red ONE on black", "a thin red one on black."]
    together = common.in_chunks(encoder, encode(texts))
    assert np.allclose((together**2).mean(1), 1, atol=1e-4)
    alone = np.concatenate([common.in_chunks(encoder, encode([text])) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(together[0], together[3], atol=1e-5)
    assert not np.allclose(together[0], together[4], atol=1e-3)


# ---- losses by hand ----


def test_matching_by_hand():
    """Cosines 1 of the right pairs and 0 of the others: log(1 + 2 e^-10) of three. All equal: log 3."""
    eye = jt.array(np.eye(3, dtype=np.float32) * np.sqrt(3))
    assert np.isclose(script.matching_loss(eye, eye).item(), np.log1p(2 * np.exp(-10)), rtol=1e-3)
    ones = jt.ones((3, 4))
    assert np.isclose(script.matching_loss(ones, ones).item(), np.log(3), rtol=1e-5)
    assert np.isclose(
        script.matching_loss(eye, eye[jt.array([1, 2, 0])]).item(),
        np.log(np.exp(10) + 2),
        rtol=1e-4,
    )


def test_matching_goes_both_ways():
    """One image fits both texts: of the rows log(2) and 10, less log(1 + e^-10), of the columns the two 5s and 0s."""
    images, texts = np.float32([[1, 1], [1, -1]]), np.float32([[1, 1], [1, 1]])
    scores = 10 * images @ texts.T / 2
    rows = np.log(np.exp(scores).sum(1)) - scores.diagonal()
    columns = np.log(np.exp(scores).sum(0)) - scores.diagonal()
    loss = script.matching_loss(jt.array(images), jt.array(texts)).item()
    assert rows.mean() != columns.mean()
    assert np.isclose(loss, (rows.mean() + columns.mean()) / 2, rtol=1e-5)


def test_fakes_of_both_kinds_weigh_half_each():
    loss = script.discriminator_loss(jt.array([2.0]), jt.array([-1.0]), jt.array([0.5])).item()
    assert np.isclose(
        loss, np.log1p(np.exp(-2)) + (np.log1p(np.exp(-1)) + np.log1p(np.exp(0.5))) / 2
    )
    with pytest.raises(ValueError, match="logits of shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)), jt.zeros(4))


# ---- the paper ----


def test_architecture_of_the_paper():
    """Reed 2016, section 4.1: the text to 128 numbers with a leaky ReLU, beside the noise in G, at 4 x 4 in D."""
    G, D, *_ = script.build(parse("--paper"))
    for network in (G, D):
        linear, activation = network.project.layers.values()
        assert (linear.in_features, linear.out_features, type(activation)) == (
            1024,
            128,
            nn.LeakyReLU,
        )
    first = G.layers[0]
    assert (first.in_channels, first.out_channels, first.kernel_size) == (100 + 128, 1024, (4, 4))
    join = D.head[0]
    assert (join.in_channels, join.out_channels, join.kernel_size) == (512 + 128, 512, (1, 1))
    args = parse("--paper")
    assert (args.batch_size, args.lr, args.b1, args.img_size, args.n_epochs) == (
        64,
        0.0002,
        0.5,
        64,
        600,
    )


def test_the_rate_is_halved(tiny_runs, tmp_path, monkeypatch):
    rates, real = [], script.train_step
    monkeypatch.setattr(
        script, "train_step", lambda *a: rates.append((a[2].lr, a[3].lr)) or real(*a)
    )
    flags = [*tiny_runs("text2img").flags, "--n_epochs", 5, "--halve_every", 2, "--lr", 0.25]
    run("text2img", *flags, "--out_dir", tmp_path)
    assert rates == [(rate, rate) for rate in (0.25, 0.25, 0.125, 0.125, 0.0625) for _ in range(4)]


# ---- two phases ----


@pytest.fixture(scope="module")
def phases(tiny_runs, tmp_path_factory):
    """Flags of a run with an epoch of the encoders and one of the GAN, and its folder."""
    out = tmp_path_factory.mktemp("phases")
    flags = [*tiny_runs("text2img").flags, "--text_epochs", 1]
    run("text2img", *flags, "--out_dir", out / "whole")
    return flags, out


def test_the_encoders_learn_first_and_stay(phases):
    import csv

    flags, out = phases
    with open(out / "whole/losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["loss_D"]) for row in rows] == [False] * 4 + [True] * 4
    assert float(rows[3]["matching"]) < float(rows[0]["matching"])
    run("text2img", *flags, "--n_epochs", 1, "--out_dir", out / "first")
    with (
        np.load(out / "first/checkpoint_last.npz") as first,
        np.load(out / "whole/checkpoint_last.npz") as whole,
    ):
        for key in first.files:
            same = np.array_equal(first[key], whole[key])
            if key.startswith(("text_encoder/", "image_encoder/")):
                assert same, key
            elif key.startswith("generator/") and key.endswith("0.weight"):
                assert not same, key


def test_a_run_resumed_within_the_first_phase_is_the_same(phases, tmp_path):
    flags, out = phases
    run("text2img", *flags, "--n_epochs", 1, "--out_dir", tmp_path / "half")
    run("text2img", "--resume", tmp_path / "half", "--n_epochs", 2)
    assert_same_run(out / "whole", tmp_path / "half")


# ---- texts ----


def test_texts_of_the_pictures(tiny_runs, tmp_path):
    """Stored from the test part's captions; others by --text and --text_file; in rows of 8, of equal noise."""
    half = tiny_runs("text2img").half
    stored = meta(half)["args"]["text"]
    assert len(stored) == 8 and all("picture of" in text for text in stored)
    (tmp_path / "texts.txt").write_text("a red one\n\n一只鸟\n", encoding="utf-8")
    resume = ["--resume", half, "--sample_only"]
    for name, flags, n_rows in (
        ("stored", [], 8),
        ("typed", ["--text", "a red one", "一只鸟", "a red one"], 3),
        ("file", ["--text_file", tmp_path / "texts.txt"], 2),
        ("walk", ["--walk", "a red one", "一只鸟"], 10),
    ):
        run("text2img", *resume, *flags, "--out_dir", tmp_path / name)
        assert Image.open(tmp_path / name / "result.png").size == (8 * 18 + 2, n_rows * 18 + 2)
    typed, walked, read = (
        np.asarray(Image.open(tmp_path / f"{f}/result.png")) for f in ("typed", "walk", "file")
    )
    row = slice(2, 18)
    assert np.array_equal(typed[row], typed[row.start + 36 : row.stop + 36])
    assert np.array_equal(typed[:36], read[:36])
    assert np.array_equal(walked[row], typed[row])
    assert np.array_equal(walked[2 + 9 * 18 : 18 + 9 * 18], typed[20:36])


def test_samples_tell_their_captions(tiny_runs, tmp_path):
    flags = ["--text", "a red one", "一只鸟", "--n_samples", 5, "--out_dir", tmp_path]
    run("text2img", "--resume", tiny_runs("text2img").half, "--sample_only", *flags)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["captions"].tolist() == [
            "a red one",
            "一只鸟",
            "a red one",
            "一只鸟",
            "a red one",
        ]
        assert samples["images"].shape == (5, 16, 16, 1)


# ---- it learns ----


def test_it_draws_what_the_text_says(tmp_path):
    """Of dark and bright images, named so, each text draws its own, the ones whose words it shares too."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for i in range(200):
        level, name = ((50, "dark"), (205, "bright"))[i % 2]
        pixels = np.clip(level + 10 * rng.standard_normal((16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{('a {} picture', 'it is {}')[i // 2 % 2].format(name)}\n")
    (folder / "captions.csv").write_text("file,caption\n" + "".join(rows))
    sizes = [
        "--img_size",
        16,
        "--channels",
        1,
        "--width_G",
        8,
        "--width_D",
        8,
        "--latent_dim",
        6,
        "--text_dim",
        8,
    ]
    training = [
        "--n_epochs",
        20,
        "--text_epochs",
        5,
        "--batch_size",
        18,
        "--lr",
        0.002,
        "--ema_decay",
        0.95,
    ]
    out = ["--text", "very dark", "quite bright", "--n_samples", 100, "--out_dir", tmp_path / "out"]
    run("text2img", "--data_dir", folder, *sizes, *training, "--log_interval", 100, *out)
    with np.load(tmp_path / "out/samples.npz") as samples:
        means = samples["images"].mean((1, 2, 3))
    dark, bright = means[::2], means[1::2]
    assert np.mean(dark < 110) > 0.8 and np.mean(bright > 145) > 0.8, (dark.mean(), bright.mean())


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--language", "fr"], "--language"),
        (["--text_epochs", -1], "--text_epochs: must be a whole number at least 0"),
        (["--walk", "a", "b"], "--walk needs --sample_only"),
        (["--walk", "a"], "--walk"),
        (["--text_file", "no_such_file"], "no_such_file cannot be read"),
        (["--ema_decay", 1], "--ema_decay"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
