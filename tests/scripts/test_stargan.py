"""stargan.py: the step against PyTorch, the paper's numbers, the method by hand, attributes, translating, bad input."""

import common
from common.checkpoint import Reader
from common.data.targets import Attributes, spread
from common.networks import n_parameters

import csv
import json

import jittor as jt
import numpy as np
import pytest
from PIL import Image

import stargan as script
from jittor_fast import nn

TINY = ["--img_size", 32, "--width", 4, "--n_blocks", 1, "--n_critic", 2, "--batch_size", 2]


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def parsed(*flags):
    return script.parse_args([str(flag) for flag in flags])


def built(*flags, names=("red", "green", "bold")):
    args = parsed(*flags)
    args.selected_attrs = list(names)
    return script.build(args)


# ---- against PyTorch ----


@pytest.mark.parametrize("update_G", [False, True])
def test_step_is_that_of_pytorch(update_G):
    """Losses, gradients and updated weights, of a step of D alone too; the twin takes every pass by itself."""
    twins = pytest.importorskip("tools.twins", reason="needs PyTorch")
    rng = np.random.default_rng(0)
    G, D = built(*TINY)
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    before = [p.numpy() for p in G.parameters()]
    real = jt.array(rng.uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    labels, targets = (jt.array(rng.integers(2, size=(4, 3)).astype(np.float32)) for _ in range(2))
    inputs = (
        G,
        D,
        optimizer_G,
        optimizer_D,
        real,
        labels,
        targets,
        jt.array(rng.random((4, 1, 1, 1))),
    )
    numbers = {"update_G": update_G, "weights": {"gp": 9.0, "cls": 0.7, "rec": 8.0}}
    twin = twins.Twin("stargan", write_back=False)
    expected, got = twin.train_step(*inputs, **numbers), script.train_step(*inputs, **numbers)
    losses = ["wasserstein", "penalty", "loss_D_cls", "loss_G_adv", "loss_G_cls", "loss_rec"]
    assert [*got] == losses[: 6 if update_G else 3]
    twins.assert_same_losses(got, expected)
    twins.assert_same_step(D, twin.module(D), optimizer_D)
    if update_G:
        twins.assert_same_step(G, twin.module(G), optimizer_G)
    else:
        assert all(np.array_equal(old, p.numpy()) for old, p in zip(before, G.parameters()))


def test_classification_loss_by_hand():
    """Summed over attributes, averaged over the batch: two images, each log 2 for a logit of 0, and log(1 + e^-2)."""
    logits, wanted = np.float32([[0, 2], [0, -2]]), np.float32([[1, 1], [0, 0]])
    loss = script.classification_loss(jt.array(logits), jt.array(wanted)).item()
    assert np.isclose(loss, np.log(2) + np.log1p(np.exp(-2)))
    with pytest.raises(ValueError, match="same"):
        script.classification_loss(jt.array(logits), jt.array(wanted[:1]))


def test_penalty_by_hand():
    """A score of k times the sum of 3 x 4 pixels has a gradient of norm k sqrt(12), at whatever point."""
    real, fake, alpha = (
        jt.array(np.random.default_rng(0).random(s)) for s in ((2, 3, 4), (2, 3, 4), (2, 1, 1))
    )
    penalty = script.gradient_penalty(lambda x: 0.5 * x.sum((1, 2)), real, fake, alpha)
    assert np.isclose(penalty.item(), (0.5 * np.sqrt(12) - 1) ** 2, rtol=1e-5)


# ---- the paper ----


def test_paper_setting_and_its_published_sizes():
    """The layers of model.py in github.com/yunjey/stargan, added up, for 5 attributes at 128 x 128.

    G: 7 x 7 convolutions of 8 -> 64 and 64 -> 3 channels, 4 x 4 ones of 64 -> 128 -> 256 -> 128 -> 64, twelve 3 x 3
    ones of 256 -> 256, no biases; scale and shift after each but the last. D: six 4 x 4 convolutions with biases of
    3 -> 64 -> ... -> 2048, then 3 x 3 to one score and 2 x 2 to 5 logits without.
    """
    convolutions = 49 * (8 + 3) * 64 + 2 * 16 * (64 * 128 + 128 * 256) + 12 * 9 * 256**2
    norms = 2 * (64 + 128 + 256 + 12 * 256 + 128 + 64)
    widths = [3, 64, 128, 256, 512, 1024, 2048]
    trunk = sum(16 * a * b + b for a, b in zip(widths, widths[1:]))
    assert (convolutions + norms, trunk + 9 * 2048 + 4 * 2048 * 5) == (8_430_528, 44_762_048)
    G, D = built("--paper", names="abcde")
    assert (n_parameters(G), n_parameters(D)) == (8_430_528, 44_762_048)
    args = parsed("--paper")
    assert (args.lr, args.b1, args.b2, args.batch_size, args.n_critic) == (1e-4, 0.5, 0.999, 16, 5)
    assert (args.lambda_gp, args.lambda_cls, args.lambda_rec) == (10, 1, 10)
    assert (args.n_epochs, args.decay_epoch, args.decay_until) == (20, 10, 20)


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
def test_discriminator_has_six_layers_where_they_fit(height, width, depth, patches):
    _, D = built("--img_height", height, "--img_width", width, "--width", 1)
    assert sum(isinstance(layer, nn.Conv) for layer in D.layers.layers.values()) == depth
    scores, logits = D(jt.zeros((1, 3, height, width)))
    assert (scores.shape, logits.shape) == ([1, 1, *patches], [1, 3])


def test_norms_and_biases_of_the_generator():
    """The authors' has a norm after each convolution but the last, and no bias."""
    G, _ = built("--width", 2)
    convolutions = [m for m in G.modules() if isinstance(m, (nn.Conv, nn.ConvTranspose))]
    assert len(convolutions) == 3 + 2 * 6 + 3
    assert all(m.bias is None for m in convolutions)
    assert sum(isinstance(m, nn.InstanceNorm2d) for m in G.modules()) == len(convolutions) - 1


def test_initial_weights_have_the_range_of_pytorchs():
    """U(-a, a), a = 1 / sqrt(fan in), where the fan in of a transposed convolution counts its output channels."""
    G, D = built("--width", 8)
    for layer in [
        m
        for module in (G, D)
        for m in module.modules()
        if isinstance(m, (nn.Conv, nn.ConvTranspose))
    ]:
        bound = 1 / np.sqrt(np.prod(layer.weight.shape[1:]))
        weights = layer.weight.numpy()
        assert 0.95 * bound < np.abs(weights).max() <= bound
        assert np.isclose(weights.std(), bound / np.sqrt(3), rtol=0.1)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(1, 1.0), (10, 1.0), (11, 10 / 11), (15, 6 / 11), (20, 1 / 11), (21, 1 / 11), (99, 1 / 11)],
)
def test_learning_rate_by_hand(epoch, expected):
    assert np.isclose(
        script.learning_rate(epoch, 3e-4, decay_epoch=10, decay_until=20), 3e-4 * expected
    )


def test_learning_rate_of_a_run_that_ends_before_its_fall():
    assert [
        script.learning_rate(e, 0.1, decay_epoch=5, decay_until=until)
        for e in (6, 9)
        for until in (2, 4, 5)
    ] == [0.1] * 6


# ---- attributes ----

HAIR = Attributes(["black", "blond", "male", "young"], ["black", "blond"], may_have_none=True)
COLOURS = Attributes(["red", "green", "bold"], ["red", "green"])


def test_changes_of_attributes_by_hand():
    have = np.float32([[1, 0, 1]])
    assert COLOURS.change(have, {"green": 1, "bold": 0}).tolist() == [[0, 1, 0]]
    assert [t.tolist() for t in COLOURS.all_targets(have)] == [
        [[1, 0, 1]],
        [[0, 1, 1]],
        [[1, 0, 0]],
    ]
    assert have.tolist() == [[1, 0, 1]]


def test_attributes_that_logits_tell():
    """An image of exactly one colour has the likeliest, however unlikely; a bald head has no colour of hair."""
    logits = np.float32([[-3, -1, 2], [4, 5, -6]])
    assert COLOURS.from_logits(logits).tolist() == [[0, 1, 1], [0, 1, 0]]
    logits = np.float32([[-3, -1, 2, 5], [4, 5, -6, 1]])
    assert HAIR.from_logits(logits).tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
    bald = HAIR.change(HAIR.from_logits(logits[:1]), HAIR.parse_changes("young=0"))
    assert bald.tolist() == [[0, 0, 1, 0]]


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


def test_shown_items_are_evenly_spaced():
    class Numbers:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def batch(self, indices):
            return list(indices)

    assert spread(Numbers(19), n=10) == list(range(0, 19, 2))
    assert spread(Numbers(3), n=10) == [0, 1, 2]


# ---- runs ----


def images(folder, n, size=(32, 32), seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(256, size=(*size[::-1], 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )


def celeba(folder, hair):
    """Images of whom the i-th has the colours of hair `hair[i]` of (black, blond), and is male and young by turns."""
    images(folder / "img_align_celeba", len(hair))
    rows = [
        f"{i}.png {2 * a - 1} {2 * b - 1} {i % 2 * 2 - 1} {i // 2 % 2 * 2 - 1}"
        for i, (a, b) in enumerate(hair)
    ]
    text = "\n".join([str(len(hair)), "Black_Hair Blond_Hair Male Young", *rows])
    (folder / "list_attr_celeba.txt").write_text(text + "\n")
    return folder


def run(*argv):
    return script.main([str(a) for a in argv])


def stored(folder):
    return Reader(folder / "checkpoint_last.npz").meta["args"]


def trained(folder, hair=((1, 0), (0, 1), (0, 0), (0, 1)) * 3, flags=()):
    run(
        "--data_dir",
        celeba(folder / "data", hair),
        *TINY,
        "--n_epochs",
        1,
        "--out_dir",
        folder / "run",
        *flags,
    )
    return folder / "run"


def test_losses_are_logged_by_themselves_at_any_interval(tmp_path):
    """Five steps, two updates of G: what is stored is what ran, and G's losses keep their last value."""
    out = trained(tmp_path, flags=["--log_interval", 3, "--sample_interval", 4, "--export_pkl"])
    assert stored(out)["log_interval"] == 3
    with open(out / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    losses = ["wasserstein", "penalty", "loss_D_cls", "loss_G_adv", "loss_G_cls", "loss_rec"]
    assert [*row] == ["step", "epoch", *losses]
    assert row["step"] == "3"
    assert all(np.isfinite(float(row[name])) for name in losses)
    assert sorted(f.name for f in out.glob("*.pkl")) == ["generator_last.pkl"]
    assert [f.name for f in (out / "samples").iterdir()] == ["step_0000004.png"]
    assert Image.open(out / "result.png").size == (
        5 * 34 + 2,
        34 + 2,
    )  # an image of the test part, four changes


@pytest.mark.parametrize(
    ("hair", "expected"), [([(1, 0), (0, 1)] * 6, False), ([(1, 0), (0, 0)] * 6, True)]
)
def test_the_data_tell_whether_an_image_may_have_none(tmp_path, hair, expected):
    hair = [*hair, (0, 1), (1, 0)]
    out = trained(tmp_path, hair)
    assert stored(out)["exclusive"] == ["Black_Hair", "Blond_Hair"]
    assert stored(out)["may_have_none"] is expected
    assert json.loads((out / "config.json").read_text())["args"] == stored(out)
    args = parsed("--resume", out, "--sample_only")
    assert (args.exclusive, args.may_have_none) == (["Black_Hair", "Blond_Hair"], expected)


def test_a_rate_that_has_fallen_stays_when_the_run_goes_on(tmp_path, monkeypatch):
    seen, step = [], script.train_step

    def recording(generator, discriminator, optimizer_G, optimizer_D, *args, **kwargs):
        seen.append((optimizer_G.lr, optimizer_D.lr))
        return step(generator, discriminator, optimizer_G, optimizer_D, *args, **kwargs)

    monkeypatch.setattr(script, "train_step", recording)
    out = trained(tmp_path, flags=["--n_epochs", 2, "--decay_epoch", 1, "--lr", 0.004])
    run("--resume", out, "--n_epochs", 3)
    assert np.allclose(seen, np.repeat([[0.004], [0.002], [0.002]], len(seen) // 3, axis=0))


def test_fine_tuning_starts_from_the_weights_alone(tmp_path):
    first = trained(tmp_path)
    data = celeba(tmp_path / "others", [(1, 0), (0, 1)] * 6)
    flags = [
        "--init_from",
        first,
        "--data_dir",
        data,
        "--batch_size",
        11,
        "--n_epochs",
        1,
        "--lr",
        1e-9,
    ]
    run(*flags, "--out_dir", tmp_path / "tuned")
    assert stored(tmp_path / "tuned")["may_have_none"] is False  # as the new data tell
    one, other = (np.load(folder / "checkpoint_last.npz") for folder in (first, tmp_path / "tuned"))
    weights = [key for key in one.files if key.startswith(("generator/", "discriminator/"))]
    assert len(weights) > 10
    assert all(np.allclose(one[key], other[key], rtol=0, atol=1e-6) for key in weights)


# ---- translating one's own pictures ----


def test_attributes_reach_the_generator_as_set(tmp_path, monkeypatch):
    """Of a head that D sees without hair, only what --set names is changed; the whole picture is translated."""
    out, seen = trained(tmp_path), []
    Image.new("RGB", (40, 60), (9, 9, 9)).save(tmp_path / "x.png")

    def generate(self, x, attributes):
        seen.append((x.shape, attributes.numpy().tolist()))
        return x

    def discriminate(self, x):
        assert x.shape == [1, 3, 32, 32]
        return jt.zeros((1, 1, 2, 2)), jt.array([[-2.0, -1.0, 3.0, 4.0]])

    monkeypatch.setattr(script.Generator, "execute", generate)
    monkeypatch.setattr(script.Discriminator, "execute", discriminate)
    run(
        "--resume",
        out,
        "--sample_only",
        "--input",
        tmp_path / "x.png",
        "--set",
        "Young=0",
        "--out_dir",
        tmp_path / "o",
    )
    assert seen == [([1, 3, 48, 32], [[0, 0, 1, 0]])]
    assert Image.open(tmp_path / "o/x.png").size == (32, 48)


def test_a_folder_becomes_a_folder_of_the_same_names(tmp_path, fails):
    out, mine = trained(tmp_path), tmp_path / "mine"
    (tmp_path / "data").rename(tmp_path / "moved away")  # translating needs no training data
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (out / "checkpoint_last.npz").read_bytes()
    flags = ["--resume", out, "--sample_only", "--input", mine, "--set"]
    run(*flags, "Blond_Hair=1", "--out_dir", tmp_path / "fair")
    sizes = {
        str(f.relative_to(tmp_path / "fair")): Image.open(f).size
        for f in (tmp_path / "fair").rglob("*.*")
    }
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (out / "checkpoint_last.npz").read_bytes() == before
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
            "--exclusive: grey is none of red, green, blue, bold, inverted",
        ),
    ],
)
def test_bad_flags(fails, tmp_path, flags, message):
    code, line = fails(script.main, [*flags, "--out_dir", tmp_path])
    assert code == 2
    assert message in line


def test_architecture_cannot_change_on_resume(tmp_path, fails):
    out = trained(tmp_path)
    code, line = fails(script.main, ["--resume", out, "--n_blocks", 2])
    assert code == 2
    assert "n_blocks 2 contradicts" in line
