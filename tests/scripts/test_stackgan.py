"""stackgan.py: the steps against PyTorch, losses by hand, the paper, the phases."""

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, differences, run

import stackgan as script
from jittor_fast import nn

TINY = ROWS["stackgan"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def normal(rng, *shape):
    return jt.array(rng.standard_normal(shape).astype(np.float32))


# ---- the steps ----


@pytest.mark.parametrize("stage", [1, 2])
def test_step_equals_pytorch(stage):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    _, G1, D1, G2, D2 = script.build(parse(*TINY))
    G = {1: G1, 2: G2}[stage]
    D = {1: D1, 2: D2}[stage]
    optimizer_G = nn.Adam(G.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(D.parameters(), lr=0.01, betas=(0.5, 0.999))
    size = 16 * stage
    real = jt.array(rng.uniform(-1, 1, (8, 1, size, size)).astype(np.float32))
    texts = [normal(rng, 8, 8) for _ in range(2)]
    if stage == 1:
        sources = [normal(rng, 8, 6) for _ in range(2)]
    else:
        sources = [jt.tanh(normal(rng, 8, 1, 16, 16)) for _ in range(2)]
    noise = [normal(rng, 8, script.N_C) for _ in range(2)]
    step = (G, D, optimizer_G, optimizer_D, real, texts, sources, noise)

    twin = Twin("stackgan", write_back=False)
    expected = twin.train_step(*step, kl_weight=2.0)
    assert set(expected) == {"loss_D", "loss_G", "KL"}
    assert_same_losses(script.train_step(*step, kl_weight=2.0), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_kl_by_hand():
    """Of N(2, 1): 2^2 / 2; of N(0, e^2): (e^2 - 1) / 2 - 1; and their mean."""
    mean = jt.array(np.float32([[2, 0]]))
    log_deviation = jt.array(np.float32([[0, 1]]))
    expected = (2 + (np.exp(2) - 1) / 2 - 1) / 2
    assert np.isclose(script.kl_divergence(mean, log_deviation).item(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="different shapes"):
        script.kl_divergence(mean, log_deviation.transpose(0, 1))


def test_loss_D_by_hand():
    right, wrong, fake = (jt.array(np.float32(x)) for x in ([2, 0], [-1, 3], [0.5, -4]))
    of_right = np.log1p(np.exp([-2, 0])).mean()
    of_wrong = np.log1p(np.exp([-1, 3])).mean()
    of_fake = np.log1p(np.exp([0.5, -4])).mean()
    loss = script.discriminator_loss(right, wrong, fake).item()
    assert np.isclose(loss, of_right + of_wrong / 2 + of_fake / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(right, wrong.reshape(2, 1), fake)


def test_augmentation_by_hand():
    """c = mean + deviation e, where mean and log(deviation) are linear in the text."""
    rng = np.random.default_rng(0)
    augmentation = script.Augmentation(8)
    text = normal(rng, 3, 8)
    e = normal(rng, 3, script.N_C)
    c, mean, log_deviation = (output.numpy() for output in augmentation(text, e))
    weight = augmentation.linear.weight.numpy()
    h = text.numpy() @ weight.T + augmentation.linear.bias.numpy()
    assert np.allclose(np.concatenate([mean, log_deviation], axis=1), h, atol=1e-5)
    assert np.allclose(c - mean, np.exp(log_deviation) * e.numpy(), atol=1e-5)


# ---- the paper ----


def n_of(layers, kind):
    return sum(isinstance(layer, kind) for layer in layers.modules())


def test_lengths_of_the_paper():
    """Zhang 2017, section 4: 600 epochs of each stage, halved every 100."""
    args = parse("--paper")
    assert (args.batch_size, args.lr, args.halve_every) == (64, 0.0002, 100)
    assert args.stage1_epochs == 600
    assert args.n_epochs - args.text_epochs - args.stage1_epochs == 600


def test_generators_of_the_paper():
    """Zhang 2017, section 4: N_g = 128, N_z = 100, M_g = 16, 64 and 256 pixels."""
    first = script.Generator1(100, 1024, 3, 64, parse("--paper").width_G).layers[0]
    assert (first.in_channels, first.out_channels) == (100 + 128, 1024)
    assert first.kernel_size == (4, 4)
    G2 = script.Generator2(1024, 3, 64, 4, 8, 4)
    strides = [layer.stride for layer in G2.down.modules() if isinstance(layer, jt.nn.Conv)]
    assert strides == [(1, 1), (2, 2), (2, 2)]  # 64 to 16
    assert G2.join[0].in_channels == 4 * 8 + 128
    assert n_of(G2.join, script.ResidualBlock) == 4
    assert n_of(G2.up, jt.nn.Upsample) == 4  # 16 to 256


def test_first_weights_of_the_authors():
    """misc/custom_ops.py of their code: N(0, 0.02^2), and biases of 0."""
    _, G1, D1, G2, D2 = script.build(parse("--text_dim", 128))
    for linear in (G1.augmentation.linear, G2.augmentation.linear, D1.project[0], D2.project[0]):
        weight = linear.weight.numpy()
        assert abs(weight.mean()) < 0.001
        assert abs(weight.std() - 0.02) < 0.001
        assert not linear.bias.numpy().any()


@pytest.mark.parametrize("size", [64, 256])
def test_discriminators_of_the_paper(size):
    """Zhang 2017, section 4: N_d = 128, M_d = 4."""
    D = script.Discriminator(1024, 3, size, 2)
    strides = [layer.stride[0] for layer in D.body.modules() if isinstance(layer, jt.nn.Conv)]
    assert size // np.prod(strides) == 4
    assert D.head[0].in_channels == D.head[0].out_channels + 128
    assert (D.head[0].kernel_size, D.head[3].kernel_size) == ((1, 1), (4, 4))


# ---- three phases ----


@pytest.fixture(scope="module")
def three_epochs(tiny_runs, tmp_path_factory):
    """The folder of a run with an epoch of each phase, which keeps each checkpoint."""
    folder = tmp_path_factory.mktemp("three_epochs")
    phases = ["--text_epochs", 1, "--stage1_epochs", 1, "--n_epochs", 3, "--keep", 3]
    run("stackgan", *tiny_runs("stackgan").flags, *phases, "--out_dir", folder)
    return folder


def trained_parts(one, two):
    """The parts of which some array differs between two checkpoints."""
    return {name.split("/")[0] for name in differences(one, two)}


def rows_of(folder):
    with open(folder / "losses.csv") as file:
        return list(csv.DictReader(file))


def test_a_phase_trains_its_networks_alone(three_epochs):
    names = ("generator", "discriminator", "averaged")
    names += ("optimizer_generator", "optimizer_discriminator")
    first, second, third = (three_epochs / f"checkpoint_step_{step:07d}.npz" for step in (4, 8, 12))
    assert trained_parts(first, second) == {f"{name}1" for name in names}
    assert trained_parts(second, third) == {f"{name}2" for name in names}
    rows = rows_of(three_epochs)
    assert [bool(row["loss_D"]) for row in rows] == [False] * 4 + [True] * 8


def test_a_run_resumed_after_the_first_phase_is_the_same(three_epochs, tmp_path):
    checkpoint = three_epochs / "checkpoint_step_0000004.npz"
    run("stackgan", "--resume", checkpoint, "--out_dir", tmp_path)
    assert differences(three_epochs, tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "n_steps", "n_of_encoders"),
    [(["--text_epochs", 5, "--n_epochs", 1], 4, 4), (["--text_epochs", 1, "--n_images", 48], 6, 4)],
)
def test_phases_end_with_the_run(tiny_runs, tmp_path, flags, n_steps, n_of_encoders):
    """An epoch has four steps of eight images."""
    run("stackgan", *tiny_runs("stackgan").flags, *flags, "--out_dir", tmp_path)
    rows = rows_of(tmp_path)
    assert len(rows) == n_steps
    assert sum(bool(row.get("loss_D")) for row in rows) == n_steps - n_of_encoders


def spy(monkeypatch, note):
    """Calls `note` with the arguments of each training step."""
    real_step = script.train_step

    def train_step(*args, **kwargs):
        note(*args)
        return real_step(*args, **kwargs)

    monkeypatch.setattr(script, "train_step", train_step)


def test_each_stage_starts_at_the_full_rate(tiny_runs, tmp_path, monkeypatch):
    rates = []
    spy(monkeypatch, lambda G, D, opt_G, opt_D, *rest: rates.append((opt_G.lr, opt_D.lr)))
    flags = ["--n_epochs", 5, "--stage1_epochs", 3, "--halve_every", 2, "--lr", 0.25]
    run("stackgan", *tiny_runs("stackgan").flags, *flags, "--out_dir", tmp_path)
    of_epochs = [0.25, 0.25, 0.125, 0.25, 0.25]
    assert rates == [(rate, rate) for rate in of_epochs for _ in range(4)]


def test_stage_2_starts_from_images_of_stage_1(tiny_runs, tmp_path, monkeypatch):
    """No gradient flows through these images."""
    seen = []
    spy(monkeypatch, lambda *args: seen.append((args[4], args[6])))
    run("stackgan", *tiny_runs("stackgan").flags, "--stage1_epochs", 1, "--out_dir", tmp_path)
    assert [tuple(real.shape) for real, _ in seen] == [(8, 1, 16, 16)] * 4 + [(8, 1, 32, 32)] * 4
    shapes = [tuple(source.shape) for _, sources in seen for source in sources]
    assert shapes == [(8, 6)] * 8 + [(8, 1, 16, 16)] * 8
    assert not seen[-1][1][0].requires_grad


# ---- pictures ----


def test_pictures_show_both_stages(tiny_runs, tmp_path, monkeypatch):
    """A row of stage I, each pixel doubled, above one of stage II; 34 pixels a row."""
    resume = ["--resume", tiny_runs("stackgan").half, "--sample_only"]
    run("stackgan", *resume, "--out_dir", tmp_path / "stored")
    assert Image.open(tmp_path / "stored/result.png").size == (8 * 34 + 2, 2 * 8 * 34 + 2)

    def black_and_white(encoders, generator2, texts, small, e2):
        columns = np.tile(np.float32([-1, 1]), 16)
        return np.broadcast_to(columns, (len(texts), 1, 32, 32))

    # An untrained stage II draws grey; these columns can be found in the picture.
    monkeypatch.setattr(script, "draw_stage2", black_and_white)
    texts = ["--text", "a red one", "一只鸟", "--n_samples", 3]
    run("stackgan", *resume, *texts, "--out_dir", tmp_path / "typed")
    picture = np.asarray(Image.open(tmp_path / "typed/result.png")).astype(int)
    assert picture.shape[:2] == (4 * 34 + 2, 8 * 34 + 2)
    small = picture[2:34, 2:34]
    large = picture[36:68, 2:34]
    assert np.array_equal(small[::2, ::2], small[1::2, 1::2])
    assert np.array_equal(np.unique(large[:, ::2]), [0])
    assert np.array_equal(np.unique(large[:, 1::2]), [255])
    with np.load(tmp_path / "typed/samples.npz") as samples:
        assert samples["captions"].tolist() == ["a red one", "一只鸟", "a red one"]
        assert samples["images"].shape == (3, 32, 32, 1)


def test_images_are_enlarged_by_repetition():
    images = np.arange(4).reshape(1, 1, 2, 2)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert script.enlarge(images, 2)[0, 0].tolist() == expected


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48, "--scale", 4], "with --scale 4 it must be 64, 128 or 256"),
        (["--img_size", 16], "with --scale 2 it must be 32, 64 or 128"),
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
