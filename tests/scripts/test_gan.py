"""gan.py: the step against PyTorch, losses and first biases by hand, the authors' sizes and schedules, bad input."""

import common
from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from jittor import nn
from registry import run

import gan as script

SMALL = ["--img_size", "8", "--width", "6", "--maxout_units", "5", "--latent_dim", "6"]


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def without_dropout():
    flags = ["--dropout", "0", "--input_dropout", "0", "--init_G", "0.5", "--init_D", "0.5"]
    return script.build(script.parse_args([*SMALL, *flags]))


# ---- the step ----


def test_two_steps_are_pytorchs():
    """The second one has momentum from the first, and another momentum and rate."""
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    G, D = without_dropout()
    optimizer_G, optimizer_D = (nn.SGD(m.parameters(), lr=0.1, momentum=0.5) for m in (G, D))
    twin = Twin("gan", write_back=False)
    twins, inputs = [], []
    for momentum, rate in ((0.5, 0.1), (0.9, 0.05)):
        real = jt.array(rng.uniform(-1, 1, (8, 1, 8, 8)).astype(np.float32))
        inputs.append(
            (momentum, rate, real, *jt.array(rng.standard_normal((2, 8, 6)).astype(np.float32)))
        )
    for momentum, rate, *tensors in inputs:
        for optimizer in (optimizer_G, optimizer_D):
            optimizer.momentum, optimizer.lr = momentum, rate
        twins.append(twin.train_step(G, D, optimizer_G, optimizer_D, *tensors))
    for (momentum, rate, *tensors), expected in zip(inputs, twins):
        for optimizer in (optimizer_G, optimizer_D):
            optimizer.momentum, optimizer.lr = momentum, rate
        assert_same_losses(script.train_step(G, D, optimizer_G, optimizer_D, *tensors), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_losses_by_hand():
    real, fake = jt.array([2.0, 1.0]), jt.array([0.5, -1.0])
    expected_D = (np.log1p(np.exp([-2, -1])).mean() + np.log1p(np.exp([0.5, -1])).mean()) / 2
    assert np.isclose(script.discriminator_loss(real, fake).item(), expected_D)
    assert np.isclose(script.generator_loss(fake).item(), np.log1p(np.exp([-0.5, 1])).mean())


def test_a_discriminator_that_can_tell_nothing_has_a_loss_of_log_2():
    assert np.isclose(script.discriminator_loss(jt.zeros(4), jt.zeros(4)).item(), np.log(2))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))


# ---- the authors' setting ----


def test_parameters_of_the_paper():
    """From the layers of the authors' mnist.yaml: G 100-1200-1200-784; D 784 to twice 240 x 5 maxout, to 1."""
    generator, discriminator = script.build(script.parse_args(["--paper"]))

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    assert n_parameters(generator) == linear(100, 1200) + linear(1200, 1200) + linear(1200, 784)
    assert n_parameters(discriminator) == linear(784, 240 * 5) + linear(240, 240 * 5) + linear(
        240, 1
    )
    for module, bound in ((generator, 0.05), (discriminator, 0.005)):
        weights = [p.numpy() for name, p in module.named_parameters() if name.endswith("weight")]
        assert len(weights) == 3
        assert all(0.97 * bound < np.abs(w).max() <= bound for w in weights)
        assert all(
            abs(w.std() / (bound / np.sqrt(3)) - 1) < 0.1 for w in weights
        )  # of a uniform distribution


def test_values_of_the_paper():
    """The authors' mnist.yaml: 0.8 of the pixels and half of the units are kept."""
    args = vars(script.parse_args(["--paper"]))
    authors = {
        "batch_size": 100,
        "lr": 0.1,
        "lr_decay": 1.000004,
        "momentum": 0.5,
        "final_momentum": 0.7,
    }
    authors |= {
        "latent_dim": 100,
        "input_dropout": 0.2,
        "dropout": 0.5,
        "img_size": 28,
        "channels": 1,
    }
    assert {name: args[name] for name in authors} == authors


def test_the_schedule_of_the_paper():
    """Momentum from 0.5 at the first epoch to 0.7 at the 250th; the rate is divided by 1.000004 after each update."""
    args, optimizer = script.parse_args(["--paper"]), nn.SGD([jt.zeros(1)], lr=1.0)
    for step, epoch, rate, momentum in [
        (1, 1, 0.1, 0.5),
        (2, 1, 0.1 / 1.000004, 0.5),
        (250_001, 250, 0.1 * np.exp(-1), 0.7),
        (250_001, 400, 0.1 * np.exp(-1), 0.7),
        (1, 125.5, 0.1, 0.6),
    ]:
        script.schedule(optimizer, step, epoch, args)
        assert np.allclose([optimizer.lr, optimizer.momentum], [rate, momentum], rtol=1e-5)


def test_a_maxout_unit_is_the_largest_of_five_linear_functions():
    layer = script.Maxout(3, 2)
    x = np.float32([[1, -2, 0.5], [0, 1, 1]])
    w, b = layer.linear.weight.numpy(), layer.linear.bias.numpy()
    expected = [
        [
            max(w[5 * unit + piece] @ row + b[5 * unit + piece] for piece in range(5))
            for unit in (0, 1)
        ]
        for row in x
    ]
    assert np.allclose(layer(jt.array(x)).numpy(), expected, atol=1e-6)


def test_the_generator_begins_at_the_mean_image():
    """With hidden units of 0 it draws the mean; pixels that always are black or white stay finite."""
    generator, _ = without_dropout()
    images = np.random.default_rng(0).uniform(-1, 1, (20, 1, 8, 8)).astype(np.float32)
    images[:, :, 0], images[:, :, 1] = -1, 1
    script.begin_at_mean(generator, images)
    generator.output.weight.assign(jt.zeros((64, 6)))
    drawn = common.in_chunks(generator, np.ones((2, 6), np.float32))
    assert np.allclose(drawn, images.mean(0), atol=1e-5)
    assert np.isfinite(generator.output.bias.numpy()).all()


def test_dropout_leaves_out_pixels_and_units_in_training_alone():
    _, discriminator = script.build(script.parse_args([*SMALL, "--init_D", "0.5"]))
    images = jt.ones((64, 1, 8, 8))  # 64 equal rows
    assert discriminator(images).numpy().std() > 1e-3
    discriminator.eval()
    assert discriminator(images).numpy().std() < 1e-6


# ---- runs ----


def test_it_learns(tmp_path):
    """Of bars in three places G draws their mean at first, and after some hundred updates one of them."""
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 12:16] = 255
    shifted = np.stack([np.roll(bar, shift, axis=1) for shift in (-8, 0, 8)] * 10)
    folder = write_idx_folder(tmp_path / "data", shifted, np.zeros(30, np.uint8))
    flags = [
        "--img_size",
        14,
        "--width",
        32,
        "--maxout_units",
        20,
        "--latent_dim",
        4,
        "--batch_size",
        30,
        "--init_D",
        0.2,
    ]
    distances = []
    for n_epochs in (1, 300):
        out = tmp_path / str(n_epochs)
        run(
            "gan",
            "--data_dir",
            folder,
            *flags,
            "--n_epochs",
            n_epochs,
            "--n_samples",
            50,
            "--out_dir",
            out,
        )
        with np.load(out / "samples.npz") as samples:
            images = samples["images"][..., 0] / 255.0
        real = common.data.load_images(str(folder), 14, 1).images[:3, 0] / 255.0
        distances.append(np.abs(images[:, None] - real).mean((2, 3)).min(1).mean())
    assert distances[1] < distances[0] / 3, distances


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 3], "--img_size must be from 4 to 256"),
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
