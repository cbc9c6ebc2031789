"""spade.py: the step against PyTorch, losses by hand, published counts and settings."""

import common
from common.data import label_maps
from common.vgg import Perceptual

import jittor as jt
import numpy as np
import pytest
from registry import differences, meta, run, saved_arrays

import spade as script
from jittor_fast import nn
from tools.describe import n_parameters

SMALL = ["--width", "4", "--img_size", "32", "--style_dim", "5", "--n_classes", "4"]
LAMBDAS = {"lambda_FM": 10.0, "lambda_KL": 0.05, "lambda_VGG": 10.0}


def variable(array):
    return jt.array(np.asarray(array, np.float32))


def parameters(*networks):
    return [p for network in networks for p in network.parameters()]


# ---- VGG19 ----

# Torchvision's VGG19 up to relu5_1: the indices of the convolutions at each size, and
# how many outputs they have, with 4 for its 64.
VGG19 = (((0, 2), 4), ((5, 7), 8), ((10, 12, 14, 16), 16), ((19, 21, 23, 25), 32), ((28,), 32))


def vgg_weights():
    """{name: array} of random weights with torchvision's names."""
    rng = np.random.default_rng(0)
    weights = {"classifier.0.weight": np.zeros((3, 2), np.float32)}
    c = 3
    for indices, n_outputs in VGG19:
        for index in indices:
            weight = rng.standard_normal((n_outputs, c, 3, 3)) * (2 / (9 * c)) ** 0.5
            weights[f"features.{index}.weight"] = weight.astype(np.float32)
            bias = rng.standard_normal(n_outputs)
            weights[f"features.{index}.bias"] = bias.astype(np.float32)
            c = n_outputs
    return weights


@pytest.fixture
def vgg(tmp_path):
    """The file of `vgg_weights`."""
    np.savez(tmp_path / "vgg.npz", **vgg_weights())
    return tmp_path / "vgg.npz"


def torch_vgg_loss(real, fake):
    """SPADE's perceptual loss in PyTorch's functions, after github.com/NVlabs/SPADE."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {name: torch.tensor(value) for name, value in vgg_weights().items()}
    loss = 0
    for (indices, _), share in zip(VGG19, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)):
        if indices[0] > 0:
            real = functional.max_pool2d(real, 2)
            fake = functional.max_pool2d(fake, 2)
        for index in indices:
            weight = weights[f"features.{index}.weight"]
            bias = weights[f"features.{index}.bias"]
            real = functional.relu(functional.conv2d(real, weight, bias, padding=1))
            fake = functional.relu(functional.conv2d(fake, weight, bias, padding=1))
            if index == indices[0]:
                loss = loss + share * functional.l1_loss(fake, real)
    return loss


@pytest.mark.parametrize("shape", [(2, 3, 36, 52), (2, 1, 32, 32)])
def test_the_perceptual_loss_is_pytorchs(vgg, shape):
    """With its gradient; for odd sizes and for grey images, too."""
    torch = pytest.importorskip("torch")
    real, fake = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype(np.float32)
    x = torch.tensor(fake, requires_grad=True)
    y = torch.tensor(real)
    expected = torch_vgg_loss(y.expand(-1, 3, -1, -1), x.expand(-1, 3, -1, -1))
    expected.backward()

    ours = jt.array(fake)
    loss = Perceptual(vgg)(jt.array(real), ours)
    assert np.isclose(loss.item(), expected.item(), rtol=1e-4)
    gradient = jt.grad(loss, ours).numpy()
    assert np.abs(gradient - x.grad.numpy()).max() < 1e-4 * x.grad.abs().max().item()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.16.weight": None}, "has no features.16.weight: it is not VGG19"),
        ({"features.5.bias": np.zeros(3)}, "features.5.weight is (8, 4, 3, 3), expected"),
        ({"features.0.weight": np.zeros((4, 1, 3, 3))}, "expected (..., 3, 3, 3)"),
    ],
)
def test_weights_of_another_network(tiny_runs, tmp_path, fails, changes, message):
    weights = vgg_weights()
    weights.update(changes)
    weights = {name: value for name, value in weights.items() if value is not None}
    np.savez(tmp_path / "vgg.npz", **weights)
    flags = ["--vgg", tmp_path / "vgg.npz", "--out_dir", tmp_path / "out"]
    code, line = fails(script.main, [*tiny_runs("spade").flags, *flags])
    assert code == 2
    assert message in line and "vgg.npz" in line


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_a_file_without_weights(tiny_runs, tmp_path, fails, content):
    if content is not None:
        (tmp_path / "vgg.npz").write_bytes(content)
    flags = ["--vgg", tmp_path / "vgg.npz", "--out_dir", tmp_path / "out"]
    code, line = fails(script.main, [*tiny_runs("spade").flags, *flags])
    assert code == 2
    assert "vgg.npz cannot be read" in line


def test_a_file_of_pytorch_is_refused_with_advice(fails):
    code, line = fails(script.parse_args, ["--vgg", "vgg19.pth"])
    assert code == 2
    assert "vgg19.pth is not an .npz file" in line and "tools/convert_weights.py" in line


def test_a_run_with_vgg_continues_bit_by_bit(tiny_runs, tmp_path, vgg):
    """The loss is logged, and no checkpoint holds its weights.

    A resumed run reads the file again; samples do not need it.
    """
    flags = [*tiny_runs("spade").flags, "--vgg", vgg]
    run("spade", *flags, "--out_dir", tmp_path / "whole")
    run("spade", *flags, "--n_epochs", 1, "--decay_until", 2, "--out_dir", tmp_path / "half")
    run("spade", "--resume", tmp_path / "half", "--n_epochs", 2)
    assert differences(tmp_path / "whole", tmp_path / "half") == []
    assert "loss_VGG" in meta(tmp_path / "half")["losses"]
    parts = {name.split("/")[0] for name in saved_arrays(tmp_path / "half")}
    assert parts == {
        *("generator", "encoder", "discriminator", "averaged_G", "averaged_E"),
        *("optimizer_G", "optimizer_D"),
    }
    vgg.unlink()
    run("spade", "--resume", tmp_path / "half", "--sample_only")


# ---- the step ----


@pytest.mark.parametrize("with_vgg", [False, True])
def test_step_is_pytorchs(vgg, with_vgg):
    """For rectangular images, which are scaled to a square for the encoder."""
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    networks = script.build(script.parse_args([*SMALL, "--img_width", "64"]))
    generator, encoder, discriminator = networks
    # The initial weights are so small that the first layers' gradients are mostly
    # rounding.
    for parameter in parameters(*networks):
        if parameter.ndim > 1:
            parameter.assign(20 * parameter)
    # The scores are moved beyond the corner of the hinge: there the last bias has a
    # gradient that is not 0.
    for patches in (discriminator.large, discriminator.small):
        last = patches.layers[4]
        last.bias.assign(last.bias + 1)
    optimizer_G = nn.Adam(parameters(generator, encoder), lr=0.001, betas=(0.0, 0.9))
    optimizer_D = nn.Adam(parameters(discriminator), lr=0.001, betas=(0.0, 0.9))
    rng = np.random.default_rng(0)
    labels = jt.array(rng.integers(4, size=(3, 32, 64), dtype=np.int32))
    images = variable(rng.uniform(-1, 1, (3, 3, 32, 64)))
    noise = variable(rng.standard_normal((3, 5)))
    arguments = (networks, (optimizer_G, optimizer_D), labels, images, noise)
    options = dict(LAMBDAS)
    if with_vgg:
        options["vgg_loss"] = Perceptual(vgg)

    twin = Twin("spade", write_back=False)
    expected = twin.train_step(*arguments, **options)
    losses = script.train_step(*arguments, **options)
    assert ("loss_VGG" in losses) == with_vgg
    assert_same_losses(losses, expected)
    assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    assert_same_step(generator, twin.module(generator), optimizer_G)
    assert_same_step(encoder, twin.module(encoder), optimizer_G)


def test_losses_by_hand():
    real = [[variable([1.0]), variable([2.0, 0.5])], [variable([3.0]), variable([0.0])]]
    fake = [[variable([2.0]), variable([-3.0, 0.0])], [variable([-1.0]), variable([0.5])]]
    # Hinges at the first size: real 0 and 0.5, fake 0 and 1; at the second: 1 and 1.5.
    loss_D = script.discriminator_loss(real, fake)
    assert np.isclose(loss_D.item(), ((0.25 + 0.5) + (1 + 1.5)) / 2)
    assert np.isclose(script.generator_loss(fake).item(), -(-1.5 + 0.5) / 2)
    assert np.isclose(script.feature_matching(real, fake).item(), (1 + 4) / 2)


def test_losses_refuse_other_shapes():
    real = [[jt.zeros((2, 1)), jt.zeros((2, 1))]]
    for fake in ([[jt.zeros((2, 1)), jt.zeros(2)]], [[jt.zeros(2), jt.zeros(2)]]):
        with pytest.raises(ValueError, match="different shapes"):
            script.discriminator_loss(real, fake)
    with pytest.raises(ValueError, match="different shapes"):
        script.feature_matching(real, [[jt.zeros(2), jt.zeros((2, 1))]])


def test_divergence_by_hand():
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2 in each dimension."""
    mean = variable([[0.0, 2.0], [0.0, 0.0]])
    log_variance = variable([[0.0, 0.0], [np.log(4.0), 0.0]])
    expected = (2 + (4 - 1 - np.log(4)) / 2) / 2
    assert np.isclose(script.divergence(mean, log_variance).item(), expected)


# ---- the architecture ----


def test_spade_by_hand():
    """1 + gamma scales the normalized features, and beta shifts them."""
    layer = script.SPADE(channels=2, n_classes=3, hidden=4)
    layer.gamma_beta.weight.assign(jt.zeros_like(layer.gamma_beta.weight))
    layer.gamma_beta.bias.assign(variable([0.5, -1.0, 7.0, 2.0]))  # two gammas, two betas
    layer.train()
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype(np.float32)
    normalized = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    y = layer(jt.array(x), jt.zeros((3, 3, 8, 8))).numpy()
    assert np.allclose(y[:, 0], 1.5 * normalized[:, 0] + 7, atol=1e-3)
    assert np.allclose(y[:, 1], 2, atol=1e-3)


def test_counts_of_the_authors_code():
    """It prints 92.5 and 5.6 million for 256 pixels, 19 classes and no encoder.

    There, a convolution of the map, from 19 to 1024 channels, takes the place of the
    dense layer of the style code.
    """
    generator, _, discriminator = script.build(script.parse_args(["--paper", "--n_classes", "19"]))
    convolution = 19 * 1024 * 9 + 1024
    dense = (256 + 1) * 1024 * 8 * 8
    assert round((n_parameters(generator) - dense + convolution) / 1e6, 1) == 92.5
    assert round(n_parameters(discriminator) / 1e6, 1) == 5.6


def test_settings_of_the_paper():
    """Park 2019, section 4: learning rates, batch size, and the epochs of ADE20K."""
    args = script.parse_args(["--paper"])
    assert (args.lr, args.lr * args.lr_ratio) == (0.0001, 0.0004)
    assert (args.batch_size, args.n_epochs, args.decay_epoch) == (32, 200, 100)
    assert (args.b1, args.lambda_FM, args.lambda_KL, args.style_dim) == (0, 10, 0.05, 256)


@pytest.mark.parametrize("n_doublings", [4, 5, 6])
def test_sizes_by_doublings(n_doublings):
    flags = ["--img_size", "64", "--img_width", "128", "--width", "1", "--style_dim", "2"]
    flags += ["--n_doublings", str(n_doublings), "--n_classes", "3"]
    generator, _, _ = script.build(script.parse_args(flags))
    factor = 2**n_doublings
    assert generator.first.weight.shape == [16 * (64 // factor) * (128 // factor), 2]
    images = generator(jt.zeros((1, 64, 128), dtype="int32"), jt.zeros((1, 2)))
    assert images.shape == [1, 3, 64, 128]


@pytest.mark.parametrize("shape", [(64, 128), (48, 96)])
def test_the_encoder_takes_a_square(shape):
    """The side is the largest power of two that the longer side contains."""
    encoder = script.Encoder(shape, channels=3, style_dim=5, width=2)
    assert encoder.size == (128 if shape == (64, 128) else 64)
    mean, log_variance = encoder(jt.zeros((2, 3, *shape)))
    assert mean.shape == log_variance.shape == [2, 5]


def test_initial_weights():
    """Glorot's: a deviation of 0.02 sqrt(2 / (inputs + outputs)); biases 0."""
    flags = ["--width", "8", "--n_classes", "5"]
    generator, encoder, discriminator = script.build(script.parse_args(flags))

    def deviation(n_inputs, n_outputs):
        return pytest.approx(0.02 * (2 / (n_inputs + n_outputs)) ** 0.5, rel=0.03)

    block = generator.blocks[0]
    assert block.conv_0.conv.weight.numpy().std() == deviation(9 * 128, 9 * 128)
    assert not block.conv_0.conv.bias.numpy().any()
    # gamma and beta are initialized as two convolutions of 128 outputs.
    assert block.norm_0.gamma_beta.weight.numpy().std() == deviation(9 * 16, 9 * 128)
    assert encoder.mean.weight.numpy().std() == deviation(16 * 64, 16)
    assert discriminator.large.layers[1][0].conv.bias is None


def test_shrink_takes_the_nearest_pixels():
    maps = variable(np.arange(32).reshape(1, 1, 4, 8))
    assert script.shrink(maps, 2).numpy().tolist() == [[[[0, 2, 4, 6], [16, 18, 20, 22]]]]
    assert script.shrink(maps, 4).numpy().shape == (1, 1, 4, 8)


# ---- the run ----


def test_the_learning_rate_of_the_discriminator(tiny_runs, tmp_path, monkeypatch):
    rates = []
    real_step = script.train_step

    def step(networks, optimizers, *args, **options):
        rates.append([optimizer.lr for optimizer in optimizers])
        return real_step(networks, optimizers, *args, **options)

    monkeypatch.setattr(script, "train_step", step)
    flags = [*tiny_runs("spade").flags, "--lr", 0.01, "--lr_ratio", 4, "--decay_epoch", 1]
    run("spade", *flags, "--out_dir", tmp_path)
    assert rates[0] == [0.01, 0.04]
    assert rates[-1] == [0.005, 0.02]


def test_rows_of_pictures(tiny_runs, tmp_path, monkeypatch):
    """Maps, images, and outputs; one row of these has the first image's style."""
    half = tiny_runs("spade").half
    args = script.parse_args(["--resume", str(half)])
    labels, expected = label_maps.load(args, "test").batch(range(3))
    rows = []
    monkeypatch.setattr(common.Run, "save_rows", lambda run, *given, to: rows.extend(given))
    run("spade", "--resume", half, "--sample_only", "--out_dir", tmp_path)
    maps, images, own, first, random = rows
    assert np.array_equal(maps, label_maps.colours_of(labels, 4))
    assert np.array_equal(images, expected)
    assert np.allclose(own[0], first[0], atol=1e-6)
    assert not np.allclose(own[1], first[1], atol=1e-6)
    assert random.shape == own.shape
