"""stargan.py: published sizes, one step against PyTorch, attributes, translations."""

import common
from common.checkpoint import Reader

import csv
import json

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images

import stargan as script
from jittor_fast import nn

TINY = ["--img_size", 32, "--width", 4, "--n_blocks", 1, "--n_critic", 2, "--batch_size", 2]


def parsed(*flags):
    return script.parse_args([str(flag) for flag in flags])


def build(*flags, names=("red", "green", "bold")):
    args = parsed(*flags)
    args.selected_attrs = list(names)
    return script.build(args)


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


# ---- losses ----


@pytest.mark.parametrize("update_G", [False, True])
def test_step_against_pytorch(update_G):
    twins = pytest.importorskip("tools.twins", reason="needs PyTorch")
    rng = np.random.default_rng(0)
    G, D = build(*TINY)
    optimizer_G = nn.Adam(G.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(D.parameters(), lr=0.01, betas=(0.5, 0.999))
    before = [p.numpy() for p in G.parameters()]
    real = jt.array(rng.uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    labels = jt.array(rng.integers(2, size=(4, 3)).astype(np.float32))
    targets = jt.array(rng.integers(2, size=(4, 3)).astype(np.float32))
    alpha = jt.array(rng.random((4, 1, 1, 1)))
    arguments = [(G, D), (optimizer_G, optimizer_D), real, labels, targets, alpha]
    options = {"update_G": update_G, "weights": {"gp": 9.0, "cls": 0.7, "rec": 8.0}}

    twin = twins.Twin("stargan", write_back=False)
    expected = twin.train_step(*arguments, **options)
    found = script.train_step(*arguments, **options)
    names = ["wasserstein", "penalty", "loss_D_cls", "loss_G_adv", "loss_G_cls", "loss_rec"]
    assert list(found) == names[: 6 if update_G else 3]
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(D, twin.module(D), optimizer_D)
    if update_G:
        twins.assert_same_step(G, twin.module(G), optimizer_G)
    else:
        assert all(np.array_equal(old, p.numpy()) for old, p in zip(before, G.parameters()))


def test_classification_loss_by_hand():
    """Each of two images has log 2 for a logit of 0, and log(1 + e^-2)."""
    logits = jt.array(np.float32([[0, 2], [0, -2]]))
    attributes = jt.array(np.float32([[1, 1], [0, 0]]))
    loss = script.classification_loss(logits, attributes).item()
    assert np.isclose(loss, np.log(2) + np.log1p(np.exp(-2)))
    with pytest.raises(ValueError, match="different shapes"):
        script.classification_loss(logits, attributes[:1])


def test_penalty_by_hand():
    """k times the sum of 3 x 4 pixels has a gradient of norm k sqrt(12) everywhere."""
    rng = np.random.default_rng(0)
    real = jt.array(rng.random((2, 3, 4)))
    fake = jt.array(rng.random((2, 3, 4)))
    alpha = jt.array(rng.random((2, 1, 1)))
    penalty = script.gradient_penalty(lambda x: 0.5 * x.sum((1, 2)), real, fake, alpha)
    assert np.isclose(penalty.item(), (0.5 * np.sqrt(12) - 1) ** 2, rtol=1e-5)


# ---- the paper ----


def test_parameters_of_the_paper():
    """The layers of the authors' model.py, added up, for 5 attributes at 128 x 128.

    github.com/yunjey/stargan. G: 7 x 7 convolutions of 8 -> 64 and 64 -> 3 channels, 4
    x 4 ones of 64 -> 128 -> 256 -> 128 -> 64, twelve 3 x 3 ones of 256 -> 256, no
    biases; scale and shift after each but the last. D: six 4 x 4 convolutions with
    biases of 3 -> 64 -> ... -> 2048, then 3 x 3 to one score and 2 x 2 to 5 logits
    without.
    """
    G, D = build("--paper", names="abcde")
    convolutions = 49 * (8 + 3) * 64 + 2 * 16 * (64 * 128 + 128 * 256) + 12 * 9 * 256**2
    norms = 2 * (64 + 128 + 256 + 12 * 256 + 128 + 64)
    assert n_parameters(G) == convolutions + norms == 8_430_528
    widths = [3, 64, 128, 256, 512, 1024, 2048]
    trunk = sum(16 * a * b + b for a, b in zip(widths, widths[1:]))
    assert n_parameters(D) == trunk + 9 * 2048 + 4 * 2048 * 5 == 44_762_048


@pytest.mark.parametrize(
    ("height", "width", "depth", "patches"),
    [
        (32, 32, 4, [2, 2]),
        (64, 64, 5, [2, 2]),
        (128, 128, 6, [2, 2]),
        (256, 256, 6, [4, 4]),
        (96, 64, 5, [3, 2]),
    ],
)
def test_depth_of_the_discriminator(height, width, depth, patches):
    _, D = build("--img_height", height, "--img_width", width, "--width", 1)
    convolutions = [m for m in D.layers.layers.values() if isinstance(m, nn.Conv)]
    assert len(convolutions) == depth
    scores, logits = D(jt.zeros((1, 3, height, width)))
    assert scores.shape == [1, 1, *patches]
    assert logits.shape == [1, 3]


def test_norms_and_biases_of_the_generator():
    """The authors' has a norm after each convolution but the last, and no bias."""
    G, _ = build("--width", 2)
    convolutions = [m for m in G.modules() if isinstance(m, (nn.Conv, nn.ConvTranspose))]
    norms = [m for m in G.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(convolutions) == 3 + 2 * 6 + 3
    assert len(norms) == len(convolutions) - 1
    assert all(m.bias is None for m in convolutions)


def test_initial_weights_have_the_range_of_pytorch():
    """U(-a, a) with a = 1 / sqrt(fan in).

    The fan in of a transposed convolution counts its output channels.
    """
    for network in build("--width", 8):
        for layer in network.modules():
            if not isinstance(layer, (nn.Conv, nn.ConvTranspose)):
                continue
            bound = 1 / np.sqrt(np.prod(layer.weight.shape[1:]))
            weights = layer.weight.numpy()
            assert 0.95 * bound < np.abs(weights).max() <= bound
            assert np.isclose(weights.std(), bound / np.sqrt(3), rtol=0.1)


# ---- attributes ----

HAIR = script.Attributes(
    names=["black", "blond", "male", "young"],
    exclusive=["black", "blond"],
    may_have_none=True,
)
COLOURS = script.Attributes(names=["red", "green", "bold"], exclusive=["red", "green"])


def test_changes_by_hand():
    red_and_bold = np.float32([[1, 0, 1]])
    changed = COLOURS.change(red_and_bold, {"green": 1, "bold": 0})
    assert changed.tolist() == [[0, 1, 0]]
    targets = [target.tolist() for target in COLOURS.all_targets(red_and_bold)]
    assert targets == [[[1, 0, 1]], [[0, 1, 1]], [[1, 0, 0]]]
    assert red_and_bold.tolist() == [[1, 0, 1]]


def test_attributes_of_logits_where_an_image_has_exactly_one_colour():
    """It gets the likeliest, however unlikely."""
    logits = np.float32([[-3, -1, 2], [4, 5, -6]])
    assert COLOURS.from_logits(logits).tolist() == [[0, 1, 1], [0, 1, 0]]


def test_attributes_of_logits_where_an_image_may_have_none():
    """A bald head has no hair colour, and keeps none when another attribute changes."""
    logits = np.float32([[-3, -1, 2, 5], [4, 5, -6, 1]])
    found = HAIR.from_logits(logits)
    assert found.tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert HAIR.change(found[:1], HAIR.parse_changes("young=0")).tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("text", ["blue", "blue=1", "red=2", "grey=1", "bold=", ""])
def test_bad_changes(text):
    with pytest.raises(common.UserError, match=r"^--set takes red=0\|1,green=0\|1,bold=0\|1; got"):
        COLOURS.parse_changes(text)


def test_changes_that_exclude_each_other():
    assert COLOURS.parse_changes(" red=0, green=1") == {"red": 0, "green": 1}
    assert HAIR.parse_changes("black=0") == {"black": 0}
    with pytest.raises(common.UserError, match="only one of red, green"):
        COLOURS.parse_changes("red=1,green=1")
    with pytest.raises(common.UserError, match="exactly one of red, green; set that one to 1"):
        COLOURS.parse_changes("red=0")


# ---- runs ----


def celeba(folder, hair):
    """A data set in CelebA's layout.

    Args:
        hair: (black, blond) of each image, 0 or 1. They are male and young by turns.
    """
    images(folder / "img_align_celeba", len(hair))
    lines = [str(len(hair)), "Black_Hair Blond_Hair Male Young"]
    for i, (black, blond) in enumerate(hair):
        attributes = (black, blond, i % 2, i // 2 % 2)
        lines.append(" ".join([f"{i}.png", *(str(2 * value - 1) for value in attributes)]))
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(*argv):
    script.main([str(a) for a in argv])


def stored(folder):
    return Reader(folder / "checkpoint_last.npz").meta["args"]


def trained(folder, hair=((1, 0), (0, 1), (0, 0), (0, 1)) * 3, flags=()):
    """The folder of a run of one epoch on `celeba`."""
    data = celeba(folder / "data", hair)
    run("--data_dir", data, *TINY, "--n_epochs", 1, "--out_dir", folder / "run", *flags)
    return folder / "run"


def test_losses_that_not_every_step_has(tmp_path):
    """G is updated in every second of five steps; its losses keep their last value."""
    out = trained(tmp_path, flags=["--log_interval", 3, "--sample_interval", 4])
    with open(out / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    names = ["wasserstein", "penalty", "loss_D_cls", "loss_G_adv", "loss_G_cls", "loss_rec"]
    assert list(row) == ["step", "epoch", *names]
    assert row["step"] == "3"
    assert all(np.isfinite(float(row[name])) for name in names)
    assert [f.name for f in (out / "samples").iterdir()] == ["step_0000004.png"]
    # One image of the test split, and four translations.
    assert Image.open(out / "result.png").size == (5 * 34 + 2, 34 + 2)


@pytest.mark.parametrize(
    ("hair", "expected"), [([(1, 0), (0, 1)] * 6, False), ([(1, 0), (0, 0)] * 6, True)]
)
def test_whether_an_image_may_have_none_follows_from_the_data(tmp_path, hair, expected):
    hair = [*hair, (0, 1), (1, 0)]
    out = trained(tmp_path, hair)
    assert stored(out)["exclusive"] == ["Black_Hair", "Blond_Hair"]
    assert stored(out)["may_have_none"] is expected
    assert json.loads((out / "config.json").read_text())["args"] == stored(out)
    args = parsed("--resume", out, "--sample_only")
    assert args.exclusive == ["Black_Hair", "Blond_Hair"]
    assert args.may_have_none is expected


def test_fine_tuning_starts_from_the_weights_alone(tmp_path):
    """With a learning rate of nearly 0 they stay; the attributes are the new data's."""
    first = trained(tmp_path)
    data = celeba(tmp_path / "others", [(1, 0), (0, 1)] * 6)
    flags = ["--init_from", first, "--data_dir", data, "--batch_size", 11, "--lr", 1e-9]
    run(*flags, "--n_epochs", 1, "--out_dir", tmp_path / "tuned")
    assert stored(first)["may_have_none"] is True
    assert stored(tmp_path / "tuned")["may_have_none"] is False
    before = np.load(first / "checkpoint_last.npz")
    after = np.load(tmp_path / "tuned/checkpoint_last.npz")
    weights = [key for key in before.files if key.startswith(("generator/", "discriminator/"))]
    assert len(weights) > 10
    assert all(np.allclose(before[key], after[key], rtol=0, atol=1e-6) for key in weights)


# ---- translating one's own pictures ----


def test_attributes_reach_the_generator_as_set(tmp_path, monkeypatch):
    """D sees a head without hair; only what --set names is changed.

    The whole picture is translated, of which D gets the middle.
    """
    out = trained(tmp_path)
    Image.new("RGB", (40, 60), (9, 9, 9)).save(tmp_path / "x.png")
    seen = []

    def generate(self, x, attributes):
        seen.append((x.shape, attributes.numpy().tolist()))
        return x

    def discriminate(self, x):
        assert x.shape == [1, 3, 32, 32]
        return jt.zeros((1, 1, 2, 2)), jt.array([[-2.0, -1.0, 3.0, 4.0]])

    monkeypatch.setattr(script.Generator, "execute", generate)
    monkeypatch.setattr(script.Discriminator, "execute", discriminate)
    flags = ["--input", tmp_path / "x.png", "--set", "Young=0", "--out_dir", tmp_path / "o"]
    run("--resume", out, "--sample_only", *flags)
    assert seen == [([1, 3, 48, 32], [[0, 0, 1, 0]])]
    assert Image.open(tmp_path / "o/x.png").size == (32, 48)


def test_translating_needs_no_training_data(tmp_path, fails):
    out = trained(tmp_path)
    (tmp_path / "data").rename(tmp_path / "moved")
    images(tmp_path / "mine", 1)
    flags = ["--resume", out, "--sample_only", "--input", tmp_path / "mine", "--set"]
    run(*flags, "Blond_Hair=1", "--out_dir", tmp_path / "fair")
    assert (tmp_path / "fair/0.png").is_file()
    code, line = fails(script.main, [*flags, "Grey_Hair=1"])
    assert code == 2
    assert "--set takes Black_Hair=0|1" in line


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 100], "such as 96 or 128"),
        (["--img_height", 48], "such as 32 or 64"),
        (["--input", "x"], "--input needs --sample_only"),
        (["--set", "x=1"], "--input and --set belong together"),
        (["--n_critic", 0], "must be a whole number at least 1"),
        (["--lambda_gp", -1], "must be a number at least 0"),
        (
            ["--exclusive", "grey", "--batch_size", 2],
            "--exclusive: grey is not one of Brown_Hair, Blond_Hair",
        ),
    ],
)
def test_bad_flags(fails, tmp_path, flags, message):
    code, line = fails(script.main, [*flags, "--out_dir", tmp_path])
    assert code == 2
    assert message in line
