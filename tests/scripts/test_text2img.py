"""text2img.py: the step against PyTorch, the paper, both phases, texts and pictures."""

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, assert_same_run, differences, meta, run

import text2img as script
from jittor_fast import nn

TINY = ROWS["text2img"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


# ---- the step ----


def codes(rng, n, dim):
    """(n, dim) with a mean square of 1."""
    x = rng.standard_normal((n, dim)).astype(np.float32)
    return jt.array(x / np.sqrt((x**2).mean(1, keepdims=True)))


@pytest.mark.parametrize(("with_wrong", "interpolate"), [(True, False), (False, True)])
def test_step_equals_pytorch(with_wrong, interpolate):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    G, D, _, _ = script.build(parse(*TINY))
    optimizer_G = nn.Adam(G.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(D.parameters(), lr=0.01, betas=(0.5, 0.999))
    real = jt.array(rng.uniform(-1, 1, (9, 1, 16, 16)).astype(np.float32))
    texts = [codes(rng, 9, 8) for _ in range(2)]
    z = [codes(rng, 9, 6), codes(rng, 9 + 4 if interpolate else 9, 6)]
    step = (G, D, optimizer_G, optimizer_D, real, texts, z)
    options = {"with_wrong": with_wrong, "interpolate": interpolate}

    twin = Twin("text2img", write_back=False)
    expected = twin.train_step(*step, **options)
    assert_same_losses(script.train_step(*step, **options), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_codes_halfway_between_two_texts():
    text = jt.array(np.float32([[0, 2], [4, 0], [6, 8], [1, 1], [9, 9]]))
    assert np.array_equal(script.halfway(text).numpy(), [[3, 5], [2.5, 0.5]])


def test_wrong_texts_and_generated_images_count_half_each():
    right, wrong, fake = (jt.array(np.float32([x])) for x in (2, -1, 0.5))
    of_right = np.log1p(np.exp(-2))
    of_wrong = np.log1p(np.exp(-1))
    of_fake = np.log1p(np.exp(0.5))
    loss = script.discriminator_loss(right, wrong, fake).item()
    assert np.isclose(loss, of_right + of_wrong / 2 + of_fake / 2)
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)), jt.zeros(4))


# ---- the paper ----


def test_architecture_of_the_paper():
    """Reed 2016, section 4.1.

    A text is projected to 128 dimensions, with a leaky ReLU. In G it joins the noise,
    in D the features of 4 x 4.
    """
    G, D, _, _ = script.build(parse("--paper"))
    for network in (G, D):
        linear, activation = network.project.layers.values()
        assert (linear.in_features, linear.out_features) == (1024, 128)
        assert isinstance(activation, nn.LeakyReLU)
    first = G.layers[0]
    assert (first.in_channels, first.out_channels) == (100 + 128, 1024)
    assert first.kernel_size == (4, 4)
    join = D.head[0]
    assert (join.in_channels, join.out_channels) == (512 + 128, 512)
    assert join.kernel_size == (1, 1)


def test_training_of_the_paper():
    """Reed 2016, section 5."""
    args = parse("--paper")
    assert (args.batch_size, args.lr, args.b1) == (64, 0.0002, 0.5)
    assert args.img_size == 64
    assert (args.n_epochs - args.text_epochs, args.halve_every) == (600, 100)
    assert args.interpolate


def test_the_learning_rate_is_halved(tiny_runs, tmp_path, monkeypatch):
    rates = []
    real_step = script.train_step

    def train_step(G, D, optimizer_G, optimizer_D, *args, **kwargs):
        rates.append((optimizer_G.lr, optimizer_D.lr))
        return real_step(G, D, optimizer_G, optimizer_D, *args, **kwargs)

    monkeypatch.setattr(script, "train_step", train_step)
    flags = ["--n_epochs", 5, "--text_epochs", 1, "--halve_every", 2, "--lr", 0.25]
    run("text2img", *tiny_runs("text2img").flags, *flags, "--out_dir", tmp_path)
    of_epochs = [0.25, 0.25, 0.125, 0.125]  # from the second epoch on
    assert rates == [(rate, rate) for rate in of_epochs for _ in range(4)]


# ---- two phases ----


@pytest.fixture(scope="module")
def phases(tiny_runs, tmp_path_factory):
    """Flags of two epochs of the encoders and one of the GAN, and the run's folder."""
    folder = tmp_path_factory.mktemp("phases")
    flags = [*tiny_runs("text2img").flags, "--text_epochs", 2, "--n_epochs", 3, "--keep", 3]
    run("text2img", *flags, "--out_dir", folder)
    return flags, folder


def test_encoders_are_trained_first_and_then_fixed(phases):
    _, folder = phases
    with open(folder / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["loss_D"]) for row in rows] == [False] * 8 + [True] * 4
    assert float(rows[7]["matching"]) < float(rows[0]["matching"])

    first, second, third = (folder / f"checkpoint_step_{step:07d}.npz" for step in (4, 8, 12))
    trained = {name.split("/")[0] for name in differences(first, second)}
    assert trained == {"text_encoder", "image_encoder", "optimizer_T"}
    trained = {name.split("/")[0] for name in differences(second, third)}
    assert trained == {"generator", "discriminator", "averaged", "optimizer_G", "optimizer_D"}


def test_a_run_resumed_within_the_first_phase_is_the_same(phases, tmp_path):
    flags, whole = phases
    run("text2img", *flags, "--n_epochs", 1, "--out_dir", tmp_path)
    run("text2img", "--resume", tmp_path, "--n_epochs", 3)
    assert_same_run(whole, tmp_path)


# ---- texts and pictures ----


@pytest.fixture(scope="module")
def picture(tiny_runs, tmp_path_factory):
    """A function of flags that draws result.png; it returns (n_rows, 16, 8 * 18).

    A row holds eight images of 16 x 16 pixels, two pixels apart.
    """

    def draw(*flags):
        folder = tmp_path_factory.mktemp("picture")
        half = tiny_runs("text2img").half
        run("text2img", "--resume", half, "--sample_only", *flags, "--out_dir", folder)
        pixels = np.asarray(Image.open(folder / "result.png"))[2:, 2:]
        assert pixels.shape[1] == 8 * 18
        return pixels.reshape(-1, 18, 8 * 18)[:, :16]

    return draw


def test_pictures_of_stored_texts(tiny_runs, picture):
    """The captions of the test split are stored in the checkpoint."""
    stored = meta(tiny_runs("text2img").half)["args"]["text"]
    assert len(stored) == 8
    assert all("picture of" in text for text in stored)
    assert len(picture()) == 8


def test_pictures_of_other_texts(picture, tmp_path):
    """A row depends on its text alone; --text_file gives the same rows as --text."""
    rows = picture("--text", "a red one", "一只鸟", "a red one")
    assert len(rows) == 3
    assert np.array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[1])
    file = tmp_path / "texts.txt"
    file.write_text("a red one\n\n一只鸟\n", encoding="utf-8")
    assert np.array_equal(picture("--text_file", file), rows[:2])


def test_a_walk_goes_from_the_first_text_to_the_second(picture):
    rows = picture("--text", "a red one", "一只鸟")
    walk = picture("--walk", "a red one", "一只鸟")
    assert len(walk) == 10
    assert np.array_equal(walk[0], rows[0])
    assert np.array_equal(walk[9], rows[1])


def test_samples_have_captions(tiny_runs, tmp_path):
    flags = ["--text", "a red one", "一只鸟", "--n_samples", 3, "--out_dir", tmp_path]
    run("text2img", "--resume", tiny_runs("text2img").half, "--sample_only", *flags)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["captions"].tolist() == ["a red one", "一只鸟", "a red one"]
        assert samples["images"].shape == (3, 16, 16, 1)


# ---- training ----


def dark_and_bright(folder):
    """200 images of 16 x 16, dark ones and bright ones in turn, in two phrasings."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["file,caption\n"]
    for i in range(200):
        level, name = [(50, "dark"), (205, "bright")][i % 2]
        phrasing = ["a {} picture", "it is {}"][i // 2 % 2]
        pixels = np.clip(level + 10 * rng.standard_normal((16, 16)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{phrasing.format(name)}\n")
    (folder / "captions.csv").write_text("".join(rows))


def test_images_show_what_their_text_says(tmp_path):
    """The texts share only one word with those of the training."""
    dark_and_bright(tmp_path / "data")
    flags = [
        *("--img_size", 16, "--channels", 1, "--width_G", 8, "--width_D", 8),
        *("--latent_dim", 6, "--text_dim", 8, "--ema_decay", 0.95, "--lr", 0.002),
        *("--n_epochs", 20, "--text_epochs", 5, "--batch_size", 18, "--log_interval", 100),
        *("--text", "very dark", "quite bright", "--n_samples", 100),
    ]
    run("text2img", "--data_dir", tmp_path / "data", *flags, "--out_dir", tmp_path / "out")
    with np.load(tmp_path / "out/samples.npz") as samples:
        means = samples["images"].mean((1, 2, 3))
    dark = means[::2]
    bright = means[1::2]
    assert np.mean(dark < 110) > 0.8, dark.mean()
    assert np.mean(bright > 145) > 0.8, bright.mean()


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "--img_size"),
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
