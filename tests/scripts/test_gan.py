"""gan.py: losses by hand, steps against PyTorch, the authors' setting, a training."""

import common
from common.data import load_images

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from jittor import nn
from registry import run

import gan as script
from tools.describe import n_parameters

SMALL = ["--img_size", "8", "--width", "6", "--maxout_units", "5", "--latent_dim", "6"]
WITHOUT_DROPOUT = ["--dropout", "0", "--input_dropout", "0"]
LARGE_WEIGHTS = ["--init_G", "0.5", "--init_D", "0.5"]


def build(*flags):
    return script.build(script.parse_args([str(flag) for flag in flags]))


# ---- losses and the step ----


def test_losses_by_hand():
    real = jt.array([2.0, 1.0])
    fake = jt.array([0.5, -1.0])
    of_real = np.log1p(np.exp([-2, -1])).mean()
    of_fake = np.log1p(np.exp([0.5, -1])).mean()
    assert np.isclose(script.discriminator_loss(real, fake).item(), (of_real + of_fake) / 2)
    assert np.isclose(script.generator_loss(fake).item(), np.log1p(np.exp([-0.5, 1])).mean())


def test_a_discriminator_that_guesses_has_a_loss_of_log_2():
    loss = script.discriminator_loss(jt.zeros(4), jt.zeros(4))
    assert np.isclose(loss.item(), np.log(2))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_two_steps_against_pytorch(noise):
    """The second one has a velocity, and another momentum and learning rate."""
    twins = pytest.importorskip("tools.twins")
    generator, discriminator = build(*SMALL, *WITHOUT_DROPOUT, *LARGE_WEIGHTS, "--noise", noise)
    optimizer_G = nn.SGD(generator.parameters(), lr=0.1, momentum=0.5)
    optimizer_D = nn.SGD(discriminator.parameters(), lr=0.1, momentum=0.5)
    networks = (generator, discriminator, optimizer_G, optimizer_D)
    twin = twins.Twin("gan", write_back=False)
    rng = np.random.default_rng(0)
    for momentum, lr in ((0.5, 0.1), (0.9, 0.05)):
        for optimizer in (optimizer_G, optimizer_D):
            optimizer.momentum = momentum
            optimizer.lr = lr
        real = jt.array(rng.uniform(-1, 1, (8, 1, 8, 8)).astype(np.float32))
        z_D = jt.array(rng.standard_normal((8, 6), dtype=np.float32))
        z_G = jt.array(rng.standard_normal((8, 6), dtype=np.float32))
        expected = twin.train_step(*networks, real, z_D, z_G)
        found = script.train_step(*networks, real, z_D, z_G)
        twins.assert_same_losses(found, expected)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)


# ---- the authors' setting: github.com/goodfeli/adversarial, mnist.yaml ----


def linear(n_in, n_out):
    """Weights and biases of a linear layer."""
    return n_in * n_out + n_out


def test_parameters_of_the_paper():
    """G has 100, 1200, 1200, 784 units; D 784, twice 240 maxout units of 5, and 1."""
    generator, discriminator = build("--paper")
    expected = linear(100, 1200) + linear(1200, 1200) + linear(1200, 784)
    assert n_parameters(generator) == expected
    expected = linear(784, 240 * 5) + linear(240, 240 * 5) + linear(240, 1)
    assert n_parameters(discriminator) == expected


def test_initial_weights_of_the_paper():
    """Uniform, within 0.05 in G and 0.005 in D (`irange`); the biases are 0."""
    generator, discriminator = build("--paper")
    for network, bound in ((generator, 0.05), (discriminator, 0.005)):
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        assert len(layers) == 3
        for layer in layers:
            weight = layer.weight.numpy()
            assert 0.97 * bound < np.abs(weight).max() <= bound
            assert np.isclose(weight.std(), bound / np.sqrt(3), rtol=0.1)
            assert not layer.bias.numpy().any()


def test_settings_of_the_paper():
    """Of the pixels, 0.8 are kept, and of the hidden units 0.5 (`include_prob`)."""
    args = script.parse_args(["--paper"])
    assert args.batch_size == 100
    assert args.latent_dim == 100
    assert args.img_size == 28
    assert np.isclose(args.input_dropout, 1 - 0.8)
    assert np.isclose(args.dropout, 1 - 0.5)


def test_noise_of_the_paper():
    """`noise: 'uniform'`: of variance 1, so within the square root of 3."""
    assert script.parse_args(["--paper"]).noise == "uniform"
    generator, _ = build(*SMALL, *LARGE_WEIGHTS, "--noise", "uniform")
    z = np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32)
    images = generator(jt.array(z)).numpy()
    generator.z_scale = 1
    assert np.allclose(generator(jt.array(np.sqrt(np.float32(3)) * z)).numpy(), images, atol=1e-6)
    assert not np.allclose(generator(jt.array(z)).numpy(), images, atol=1e-2)


def test_schedule_of_the_paper():
    """Momentum is 0.5 in the first epoch and 0.7 from the 250th.

    The learning rate is divided by 1.000004 after each update.
    """
    args = script.parse_args(["--paper"])
    assert script.learning_rate(1, args) == 0.1
    assert np.isclose(script.learning_rate(2, args), 0.1 / 1.000004, rtol=1e-9)
    assert np.isclose(script.learning_rate(250_001, args), 0.1 * np.exp(-1), rtol=1e-5)
    assert script.momentum(1, args) == 0.5
    assert np.isclose(script.momentum(125.5, args), 0.6)
    assert np.isclose(script.momentum(250, args), 0.7)
    assert np.isclose(script.momentum(400, args), 0.7)


def test_the_schedule_reaches_both_optimizers(tmp_path, monkeypatch, idx_folder):
    """Four steps in each of two epochs."""
    seen = []

    def train_step(generator, discriminator, *args):
        optimizers = args[:2]
        seen.append([(optimizer.lr, optimizer.momentum) for optimizer in optimizers])
        return {"loss_D": jt.ones(1), "loss_G": jt.ones(1)}

    monkeypatch.setattr(script, "train_step", train_step)
    flags = [*SMALL, "--batch_size", 10, "--n_epochs", 2, "--lr", 0.8, "--lr_decay", 2]
    flags += ["--momentum", 0.1, "--final_momentum", 0.349]
    run("gan", *flags, "--data_dir", idx_folder, "--out_dir", tmp_path / "out")
    for step, (of_G, of_D) in enumerate(seen):
        momentum = 0.1 if step < 4 else 0.101  # 1/249 of the rise
        assert of_G == of_D
        assert np.allclose(of_G, [0.8 / 2**step, momentum])
    assert len(seen) == 8


# ---- layers ----


def test_a_maxout_unit_is_the_largest_of_five_linear_functions():
    layer = script.Maxout(3, 2)
    x = np.float32([[1, -2, 0.5], [0, 1, 1]])
    weight = layer.linear.weight.numpy()
    bias = layer.linear.bias.numpy()
    expected = np.zeros((2, 2))
    for i in range(2):
        for unit in range(2):
            pieces = range(5 * unit, 5 * unit + 5)
            expected[i, unit] = max(weight[piece] @ x[i] + bias[piece] for piece in pieces)
    assert np.allclose(layer(jt.array(x)).numpy(), expected, atol=1e-6)


def test_the_generator_starts_at_the_mean_image():
    """Hidden units of 0 give the mean, also where a pixel is always black or white."""
    generator, _ = build(*SMALL)
    images = np.random.default_rng(0).uniform(-1, 1, (20, 1, 8, 8)).astype(np.float32)
    images[:, :, 0] = -1
    images[:, :, 1] = 1
    script.start_at_mean(generator, images)
    generator.output.weight.assign(jt.zeros((64, 6)))
    drawn = common.predict(generator, np.ones((2, 6), np.float32))
    assert np.allclose(drawn, images.mean(0), atol=1e-5)
    assert np.isfinite(generator.output.bias.numpy()).all()


def test_dropout_acts_in_training_only():
    _, discriminator = build(*SMALL, *LARGE_WEIGHTS)
    images = jt.ones((64, 1, 8, 8))  # equal images: only dropout makes their logits differ
    assert discriminator(images).numpy().std() > 1e-3
    discriminator.eval()
    assert discriminator(images).numpy().std() < 1e-6


# ---- it learns ----


def test_it_learns_to_draw_an_image(tmp_path, monkeypatch):
    """All images are the same bar: G draws grey at first, and it after 150 updates.

    With bars in several places, so small a G draws one of them at a time and jumps
    between them: its last samples depend on the seed and on a compiler's roundings.
    Here the distance falls from 0.46 to between 0.04 and 0.11 for each of ten seeds.
    With the sign of either loss changed, or a D that does not learn, it stays.
    """
    monkeypatch.setattr(script, "start_at_mean", lambda generator, images: None)
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 12:16] = 255
    folder = write_idx_folder(tmp_path / "data", np.stack([bar] * 30), np.zeros(30, np.uint8))
    real = load_images(str(folder), 14, 1).images[0, 0] / 255.0
    flags = ["--img_size", 14, "--width", 32, "--maxout_units", 20, "--latent_dim", 4]
    flags += ["--batch_size", 30, "--init_D", 0.2, "--data_dir", folder, "--n_samples", 50]
    distances = []  # of the samples to the bar
    for n_epochs in (1, 150):
        out = tmp_path / str(n_epochs)
        run("gan", *flags, "--n_epochs", n_epochs, "--out_dir", out)
        with np.load(out / "samples.npz") as samples:
            images = samples["images"][..., 0] / 255.0
        distances.append(np.abs(images - real).mean())
    assert 0.3 < distances[0] < 0.7, distances
    assert distances[1] < distances[0] / 2, distances


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 3], "--img_size: must be a whole number at least 4 and at most 256"),
        (["--momentum", 1], "--momentum: must be a number at least 0 and below 1"),
        (["--lr_decay", 0.9], "--lr_decay: must be a number at least 1"),
        (["--init_G", 0], "--init_G: must be a number above 0"),
        (["--dropout", 1], "--dropout"),
        (["--b1", 0.5], "unrecognized arguments: --b1"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
