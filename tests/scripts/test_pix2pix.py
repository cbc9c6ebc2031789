"""pix2pix.py: published sizes, one step against PyTorch, networks, noise, learning."""

import common
from common.data.pairs import distances
from common.data.tasks import TASKS

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images, run

import cyclegan
import pix2pix as script
from jittor_fast import nn


def pixels(*shape, seed=0):
    """Random values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def build(*flags):
    flags = ["--img_size", 32, "--width", 4, *flags]
    return script.build(script.parse_args([str(flag) for flag in flags]))


def adam(network, lr=0.01):
    return nn.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))


def n_parameters(network):
    """How many weights are trained; batch norm's running statistics are not."""
    return sum(p.numel() for p in network.parameters() if not p.is_stop_grad())


# ---- the paper ----


def test_parameters_of_the_paper():
    """The authors' PyTorch code prints 54.414 M and 2.769 M at 256 pixels.

    github.com/junyanz/pytorch-CycleGAN-and-pix2pix
    """
    networks = script.build(script.parse_args(["--paper"]))
    counts = [round(n_parameters(network) / 1e6, 3) for network in networks]
    assert counts == [54.414, 2.769]


def test_parameters_of_the_resnet():
    """The authors' resnet_9blocks without biases before batch norm, layer by layer."""
    kernels = [
        3 * 64 * 49,
        64 * 128 * 9,
        128 * 256 * 9,
        18 * 256 * 256 * 9,
        256 * 128 * 9,
        128 * 64 * 9,
        64 * 3 * 49,
    ]
    norms = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    generator, _ = script.build(script.parse_args(["--paper", "--arch", "resnet"]))
    assert n_parameters(generator) == sum(kernels) + norms + 3


def kernels(network):
    return [p for p in network.parameters() if p.ndim == 4]


def test_the_resnet_is_the_generator_of_cyclegan():
    """With the same kernels, no dropout, and norms that scale by 1 and shift by 0."""
    ours, _ = build("--arch", "resnet", "--dropout", 0)
    theirs = cyclegan.Generator(3, 4, 6, "transpose")
    for layer in ours.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.weight.assign(jt.ones_like(layer.weight))
            layer.bias.assign(jt.zeros_like(layer.bias))
    assert [p.shape for p in kernels(ours)] == [p.shape for p in kernels(theirs)]
    for kernel, other in zip(kernels(ours), kernels(theirs)):
        other.assign(kernel.numpy())
    # The norms remove all biases of theirs but the last one.
    theirs.parameters()[-1].assign(ours.parameters()[-1].numpy())
    x = pixels(2, 3, 32, 32)
    assert np.allclose(common.predict(ours, x), common.predict(theirs, x), atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "norm", "flags", "channels"),
    [
        ("bce", "instance", [], (3, 3)),
        ("lsgan", "instance", [], (3, 3)),
        ("bce", "batch", [], (3, 3)),
        ("lsgan", "batch", [], (3, 3)),
        ("lsgan", "instance", ["--upsample", "resize", "--input_channels", 2], (2, 3)),
        ("lsgan", "instance", ["--arch", "resnet", "--output_channels", 1], (3, 1)),
        ("lsgan", "batch", ["--arch", "resnet", "--upsample", "resize"], (3, 3)),
    ],
)
def test_step_against_pytorch(loss, norm, flags, channels):
    twins = pytest.importorskip("tools.twins")
    G, D = build("--norm", norm, "--dropout", 0, *flags)
    optimizer_G = adam(G)
    optimizer_D = adam(D)
    inputs = jt.array(pixels(3, channels[0], 32, 32, seed=0))
    targets = jt.array(pixels(3, channels[1], 32, 32, seed=1))
    arguments = [G, D, optimizer_G, optimizer_D, inputs, targets]

    twin = twins.Twin("pix2pix", write_back=False)
    expected = twin.train_step(*arguments, loss=loss, lambda_L1=100.0)
    found = script.train_step(*arguments, loss=loss, lambda_L1=100.0)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(D, twin.module(D), optimizer_D)
    twins.assert_same_step(G, twin.module(G), optimizer_G)


@pytest.mark.parametrize(
    ("loss", "expected_D", "expected_G"),
    [
        ("bce", (np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))) / 2, np.log1p(np.exp(-0.5))),
        ("lsgan", ((2 - 1) ** 2 + 0.5**2) / 2, (0.5 - 1) ** 2),
    ],
)
def test_losses_by_hand(loss, expected_D, expected_G):
    real = jt.array([2.0])
    fake = jt.array([0.5])
    assert np.isclose(script.discriminator_loss(real, fake, loss).item(), expected_D)
    assert np.isclose(script.adversarial_loss(fake, 1.0, loss).item(), expected_G)


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.l1_distance(jt.zeros((2, 3)), jt.zeros((2, 1)))
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros((2, 1)), jt.zeros((1, 1)), "bce")


# ---- networks ----


@pytest.mark.parametrize(
    ("n_layers", "side", "patch"), [(0, 32, 1), (1, 64, 16), (3, 128, 70), (5, 512, 286)]
)
def test_a_score_depends_on_the_patches_of_the_paper(monkeypatch, n_layers, side, patch):
    """Isola 2017, section 4.4. There its gradient is not zero.

    Norms are left out: they make each score depend on the whole image.
    """
    monkeypatch.setattr(script, "norm_layer", lambda norm, channels: nn.Identity())
    flags = ["--img_size", side, "--width", 2, "--channels", 1, "--n_layers_D", n_layers]
    _, discriminator = script.build(script.parse_args([str(flag) for flag in flags]))
    inputs = jt.array(pixels(1, 1, side, side, seed=0))
    outputs = jt.array(pixels(1, 1, side, side, seed=1))
    scores = discriminator(inputs, outputs)
    n = side if n_layers == 0 else side // 2**n_layers - 2
    assert scores.shape == [1, 1, n, n]
    for gradient in jt.grad(scores[0, 0, n // 2 - 1, n // 2], [inputs, outputs]):
        rows, columns = np.nonzero(gradient.numpy()[0, 0])
        assert len(rows) == patch * patch
        assert np.ptp(rows) == patch - 1
        assert np.ptp(columns) == patch - 1


@pytest.mark.parametrize(
    ("n_layers", "channels"), [(1, [64, 128, 1]), (5, [64, 128, 256, 512, 512, 512, 1])]
)
def test_discriminators_of_the_paper(n_layers, channels):
    """Isola 2017, appendix 6.1.2: C64-C128, and C64-C128-C256-C512-C512-C512."""
    flags = ["--img_size", "256", "--width", "64", "--n_layers_D", str(n_layers)]
    _, discriminator = script.build(script.parse_args(flags))
    convolutions = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv)]
    assert [layer.out_channels for layer in convolutions] == channels


def test_images_that_are_too_small_for_the_patches(fails):
    code, line = fails(script.main, ["--img_size", "64", "--n_layers_D", "5"])
    assert code == 2
    assert "--n_layers_D 5 needs images of at least 96 pixels, got 64 x 64" in line


def test_the_rate_of_the_paper_is_constant():
    """github.com/phillipi/pix2pix, train.lua: 200 epochs at one learning rate."""
    args = script.parse_args(["--paper"])
    for epoch in (1, 101, 200):
        rate = common.linear_decay(epoch, args.lr, args.decay_epoch, args.decay_until)
        assert rate == 0.0002


@pytest.mark.parametrize(
    ("height", "width", "innermost_shape"),
    [
        (32, 32, (1, 1)),
        (256, 256, (1, 1)),
        (512, 512, (1, 1)),
        (96, 96, (3, 3)),
        (32, 64, (1, 2)),
        (384, 512, (3, 4)),
    ],
)
def test_the_unet_halves_as_often_as_both_sides_allow(height, width, innermost_shape):
    flags = ["--img_height", height, "--img_width", width, "--width", 1, "--channels", 1]
    generator, _ = script.build(script.parse_args([str(flag) for flag in flags]))
    innermost = generator.down[-1]
    execute = innermost.execute
    shapes = []

    def recorded(x):
        x = execute(x)
        shapes.append(x.shape)
        return x

    innermost.execute = recorded
    assert generator(jt.zeros((1, 1, height, width))).shape == [1, 1, height, width]
    assert shapes == [[1, 8, *innermost_shape]]


@pytest.mark.parametrize(("size", "n"), [(32, 1), (64, 2), (256, 3)])
def test_dropout_follows_the_first_layers_of_full_width(size, n):
    depth = common.halvings(size, size)
    generator = script.UNet(depth, 3, 3, 1, "instance", 0.5, "transpose")
    has_dropout = []
    for layer in generator.up:
        has_dropout.append(any(isinstance(m, nn.Dropout) for m in layer.modules()))
    assert has_dropout == [True] * n + [False] * (depth - 1 - n)


def test_dropout_stays_on_in_samples():
    """Other seeds give other pictures, the same seed the same picture."""
    generator, _ = build()
    x = pixels(2, 3, 32, 32)
    first = common.predict(generator, x, seed=5)
    assert np.array_equal(first, common.predict(generator, x, seed=5))
    assert not np.allclose(first, common.predict(generator, x, seed=6))


def test_dropout_zeroes_half_of_the_values_in_eval_mode():
    noise = script.Noise(0.5)
    noise.eval()
    share = (noise(jt.ones((100, 100))).numpy() == 0).mean()
    assert np.isclose(share, 0.5, atol=0.02)


def test_batch_norm_uses_the_statistics_of_the_present_batch():
    """In eval mode as in training, by the formula."""
    x = 3 + 2 * pixels(4, 2, 5, 5)
    norm = script.norm_layer("batch", 2)
    norm.weight.assign(jt.array([2.0, 1.0]))
    norm.bias.assign(jt.array([0.0, -1.0]))
    normalized = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    scale = np.float32([2, 1]).reshape(1, 2, 1, 1)
    shift = np.float32([0, -1]).reshape(1, 2, 1, 1)
    expected = scale * normalized + shift
    norm.train()
    assert np.allclose(norm(jt.array(x)).numpy(), expected, atol=1e-4)
    norm.eval()
    assert np.allclose(norm(jt.array(x)).numpy(), expected, atol=1e-4)


def checkerboard(layers, size=32):
    """How much a 2 x 2 pattern there is in what the layers make of a constant image.

    It is the deviation of the means of the four phases, relative to the mean value.
    """
    image = jt.ones((1, 4, size, size))
    y = nn.Sequential(*layers)(image).numpy()[0, :, 8:-8, 8:-8]
    phases = np.stack([y[:, i::2, j::2].mean((1, 2)) for i in (0, 1) for j in (0, 1)])
    return phases.std(0).mean() / np.abs(y).mean()


def test_resizing_leaves_no_checkerboard():
    """With random weights, a transposed convolution does."""
    assert checkerboard(script.upsampling("resize", 4, 4, 4, bias=False)) < 1e-5
    assert checkerboard(script.upsampling("transpose", 4, 4, 4, bias=False)) > 0.1
    assert checkerboard(script.upsampling("transpose", 4, 4, 3, bias=False)) > 0.1


# ---- training ----


def test_it_learns_one_pair():
    """In 60 steps the distance to the target falls to less than a third."""
    G, D = build("--width", 8)
    optimizer_G = adam(G, lr=0.002)
    optimizer_D = adam(D, lr=0.002)
    pair = []
    for seed in (0, 1):  # squares of 8 x 8 pixels
        small = pixels(1, 3, 4, 4, seed=seed)
        pair.append(jt.array(small.repeat(8, axis=2).repeat(8, axis=3)))
    found = []
    for _ in range(61):
        losses = script.train_step(
            G, D, optimizer_G, optimizer_D, *pair, loss="bce", lambda_L1=100.0
        )
        found.append(losses["loss_L1"].item())
    assert np.mean(found[-5:]) < found[0] / 3, found


def test_validation_by_hand():
    """Outputs off by 0.1, 0.1 and 0.5; the PSNR of each is 10 log10(4 / mse)."""

    class Pairs:
        def __len__(self):
            return 3

        def batch(self, indices):
            offsets = np.float32([0.1, 0.1, 0.5])[indices].reshape(-1, 1, 1, 1)
            inputs = np.zeros((len(indices), 1, 2, 2), np.float32)
            return inputs, inputs + offsets

    seen = []

    def translate(inputs, first):
        seen.append(first)
        return inputs

    values = distances(translate, Pairs(), batch_size=2)
    assert seen == [0, 2]
    psnr = 10 * np.log10(4 / np.array([0.01, 0.01, 0.25]))
    assert np.isclose(values["val_L1"], 0.7 / 3)
    assert np.isclose(values["val_PSNR"], psnr.mean())


def arrays_and_deep_pictures(folder):
    """Two pairs in each split: arrays of two channels, and pictures of 16 bits."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for side in "AB":
            (folder / f"{part}{side}").mkdir(parents=True)
        for i in range(2):
            np.save(folder / f"{part}A/{i}.npy", rng.random((32, 32, 2)))
            grey = rng.integers(65536, size=(32, 32), dtype=np.uint16)
            Image.fromarray(grey).save(folder / f"{part}B/{i}.png")
    return folder


def test_other_channels_from_training_to_translations(tmp_path):
    """An array becomes an array with the channels of the outputs."""
    data = arrays_and_deep_pictures(tmp_path / "data")
    flags = ["--input_channels", 2, "--output_channels", 1, "--img_size", 32, "--width", 4]
    flags += ["--batch_size", 2, "--n_epochs", 1, "--out_dir", tmp_path / "run"]
    run("pix2pix", "--data_dir", data, *flags)
    assert Image.open(tmp_path / "run/result.png").size == (2 * 34 + 2, 3 * 34 + 2)
    run("pix2pix", "--resume", tmp_path / "run", "--sample_only", "--input", data / "valA/0.npy")
    values = np.load(tmp_path / "run/translated/0.npy")
    assert values.shape == (32, 32)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max() <= 1


# ---- pairs made from any images ----


def write_step(path, size=(64, 32), mode="RGB"):
    """A picture whose right half is red, and its left half dark."""
    pixels = np.full((size[1], size[0], 3), 20, np.uint8)
    pixels[:, size[0] // 2 :] = [255, 0, 0]
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return path


def inputs_of(monkeypatch):
    """A list of the images that every G is given from now on."""
    seen = []
    real = script.UNet.execute

    def execute(network, x):
        seen.append(x.numpy())
        return real(network, x)

    monkeypatch.setattr(script.UNet, "execute", execute)
    return seen


def task_run(task, folder, *flags):
    """The folder of a run of one step on two images."""
    images(folder / "mine", 2, (32, 32))
    flags = ["--img_size", 32, "--width", 4, "--batch_size", 2, "--n_epochs", 1, *flags]
    flags += ["--data_dir", folder / "mine", "--out_dir", folder / "run"]
    run("pix2pix", "--task", task, *flags)
    return folder / "run"


@pytest.mark.parametrize("task", TASKS)
def test_a_training_on_a_folder_of_images(task, tmp_path, monkeypatch):
    """Two steps, and the task is that of the resumed run."""
    images(tmp_path / "mine/train", 4, (40, 40))
    images(tmp_path / "mine/val", 2, (40, 40), seed=1)
    flags = ["--img_size", 32, "--width", 4, "--batch_size", 2, "--hole", "random"]
    flags += ["--data_dir", tmp_path / "mine", "--n_epochs", 1, "--out_dir", tmp_path / "run"]
    seen = inputs_of(monkeypatch)
    run("pix2pix", "--task", task, *flags)
    assert len(list(tmp_path.glob("run/result.png"))) == 1
    if task in ("edges", "color"):
        assert all(np.array_equal(x[:, 0], x[:, 1]) for x in seen)
    assert script.parse_args(["--resume", str(tmp_path / "run")]).task == task


def test_a_drawing_is_taken_as_it_is(tmp_path, monkeypatch):
    folder = task_run("edges", tmp_path)
    path = write_step(tmp_path / "a.png", (32, 32))
    seen = inputs_of(monkeypatch)
    run("pix2pix", "--resume", folder, "--sample_only", "--input", path)
    assert np.allclose(seen[0], np.asarray(Image.open(path)).transpose(2, 0, 1) / 127.5 - 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_to_colour_is_made_grey(tmp_path, monkeypatch, channels):
    """Red is 76 of 255."""
    folder = task_run("color", tmp_path, "--input_channels", str(channels))
    path = write_step(tmp_path / "a.png", (32, 32))
    seen = inputs_of(monkeypatch)
    run("pix2pix", "--resume", folder, "--sample_only", "--input", path)
    assert seen[0].shape == (1, channels, 32, 32)
    assert np.allclose(seen[0][:, :, :, :16], 20 / 127.5 - 1)
    assert np.allclose(seen[0][:, :, :, 16:], 76 / 127.5 - 1)
    assert Image.open(folder / "translated/a.png").mode == "RGB"


def test_a_small_picture_becomes_four_times_as_large(tmp_path, monkeypatch):
    """In tiles of the trained size, also if it is larger or smaller than one."""
    folder = task_run("enlarge", tmp_path)
    seen = inputs_of(monkeypatch)
    for name, size in (("a.png", (12, 9)), ("b.jpg", (3, 5))):
        path = write_step(tmp_path / name, size)
        run("pix2pix", "--resume", folder, "--sample_only", "--input", path)
        larger = Image.open(folder / "translated" / name)
        assert larger.size == (4 * size[0], 4 * size[1])
    assert {x.shape for x in seen} == {(1, 3, 32, 32)}
    assert len(seen) == 2 * 2 + 1


@pytest.mark.parametrize("hole", ["center", "random"])
def test_only_the_hole_of_a_picture_is_filled(tmp_path, monkeypatch, hole):
    """With a mask, and where the picture is transparent; G sees white there."""
    folder = task_run("inpaint", tmp_path, "--hole", hole)
    path = write_step(tmp_path / "a.png")
    mask = np.zeros((32, 64), np.uint8)
    mask[10:20, 30:38] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    with Image.open(path) as image:
        image.putalpha(Image.fromarray(255 - mask))
        image.save(tmp_path / "b.png")
    seen = inputs_of(monkeypatch)
    flags = ["--resume", folder, "--sample_only", "--input"]
    run("pix2pix", *flags, path, "--mask", tmp_path / "m.png")
    run("pix2pix", *flags, tmp_path / "b.png")
    assert np.array_equal(*seen)
    assert (seen[0].min(1) == 1).mean() == (0.25 if hole == "center" else 80 / 1024)
    before = np.asarray(Image.open(path))
    filled = [np.asarray(Image.open(folder / "translated" / n)) for n in ("a.png", "b.png")]
    assert np.array_equal(*filled)
    assert np.array_equal(filled[0][mask == 0], before[mask == 0])
    assert not np.array_equal(filled[0][mask > 0], before[mask > 0])


def test_a_picture_without_a_hole(tmp_path, fails):
    folder = task_run("inpaint", tmp_path)
    path = write_step(tmp_path / "a.png")
    code, line = fails(script.main, ["--resume", folder, "--sample_only", "--input", path])
    assert code == 2
    assert "a.png has no hole: make the region transparent" in line


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 100], "--img_size 100: it must be a multiple of 32, such as 96 or 128"),
        (["--img_width", 100], "--img_width 100: it must be a multiple of 32, such as 96 or 128"),
        (["--n_samples", 5], "--n_samples"),
        (["--input", "x"], "--input needs --sample_only"),
        (["--direction", "AtoC"], "--direction"),
        (["--norm", "layer"], "--norm"),
        (["--input_channels", 0], "--input_channels: must be a whole number at least 1"),
        (["--tile", 64], "--tile needs --input"),
        (["--task", "sharpen"], "--task"),
        (["--task", "color"], "no colour to learn in grey images"),
        (["--task", "edges", "--direction", "BtoA"], "--direction swaps the images of pairs"),
        (["--mask", "x.png"], "--mask needs --input"),
        (
            ["--task", "inpaint", "--input_channels", 1],
            "--task inpaint completes its inputs: give both the same channels",
        ),
    ],
)
def test_bad_flags(fails, flags, message, tmp_path):
    code, line = fails(script.main, [*flags, "--out_dir", tmp_path])
    assert code == 2
    assert message in line
