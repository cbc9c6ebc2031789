"""gman.py: the step against PyTorch, values by hand, lambda, the authors' sizes."""

import common

import jittor as jt
import numpy as np
import pytest
from registry import ROWS, run, saved_arrays

import gman as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ROWS["gman"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


def batch(rng, n=10):
    """Real images and noise."""
    return variable(rng.uniform(-1, 1, (n, 1, 16, 16))), variable(rng.uniform(-1, 1, (n, 6)))


def build(*flags, is_trained=False, lam=1.0):
    """G, discriminators without dropout and with larger weights, and a softmax."""
    generator, discriminators = script.build(parse(*TINY, "--dropout", 0, *flags))
    for network in (generator, discriminators):
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.assign(10 * parameter)
    return generator, discriminators, script.ArithmeticSoftmax(lam, is_trained)


def optimizers_of(networks, rate=0.01):
    """Of G with the softmax, and of the discriminators.

    SGD: Adam's first update of a weight whose gradient is rounding has a random sign.
    """
    generator, discriminators, softmax = networks
    optimizer_G = nn.SGD(generator.parameters() + softmax.parameters(), lr=rate)
    return optimizer_G, nn.SGD(discriminators.parameters(), lr=rate)


# ---- the step ----


@pytest.mark.parametrize("objective", ["original", "modified"])
@pytest.mark.parametrize("is_trained", [False, True])
def test_step_equals_pytorch(objective, is_trained):
    """Both updates are those of the weights before the step; lambda's, too."""
    twins = pytest.importorskip("tools.twins")
    networks = build(is_trained=is_trained, lam=5.0)
    optimizers = optimizers_of(networks)
    settings = {"objective": objective, "lam_reward": 0.01}
    twin = twins.Twin("gman", write_back=False)
    step = (networks, optimizers, *batch(np.random.default_rng(0)))
    for _ in range(2):
        expected = twin.train_step(*step, **settings)
        twins.assert_same_losses(script.train_step(*step, **settings), expected)
    optimizer_G, optimizer_D = optimizers
    generator, discriminators, softmax = networks
    for network, optimizer in (
        (generator, optimizer_G),
        (softmax, optimizer_G),
        (discriminators, optimizer_D),
    ):
        twins.assert_same_step(network, twin.module(network), optimizer)
    assert expected.keys() == {"loss_D", "loss_G"} | ({"lam"} if is_trained else set())


def test_the_discriminators_share_the_images():
    """Each sees its own, and no other one's loss reaches it."""
    _, discriminators, _ = build()
    images, _ = batch(np.random.default_rng(0))
    logits = discriminators(images)
    assert logits.shape == [2, 5]
    for i, member in enumerate(discriminators.members):
        own = images.numpy()[[i, i + 5]]
        assert np.allclose(logits.numpy()[:, i], member(jt.array(own)).numpy(), atol=1e-6)
    others = [p for member in list(discriminators.members)[1:] for p in member.parameters()]
    gradients = jt.grad(logits[:, 0].sum(), others)
    assert all((gradient.numpy() == 0).all() for gradient in gradients)


def test_images_that_cannot_be_shared():
    _, discriminators, _ = build()
    with pytest.raises(common.UserError, match=r"9 images .* by 5 discriminators"):
        discriminators(jt.zeros((9, 1, 16, 16)))


def test_one_discriminator_is_a_gan():
    """F is its value, whatever lambda; G's gradient is that of a minimax game."""
    networks = build("--n_discriminators", 1, lam=7.0)
    generator, discriminators, _ = networks
    real, z = batch(np.random.default_rng(0))
    D_real = 0.01 + 0.98 * jt.sigmoid(discriminators(real))
    D_fake = 0.01 + 0.98 * jt.sigmoid(discriminators(generator(z)))
    expected = (jt.log(D_real).mean() + jt.log(1 - D_fake).mean()).item()
    losses = script.train_step(
        networks, optimizers_of(networks), real, z, objective="original", lam_reward=0
    )
    assert np.isclose(losses["loss_G"].item(), expected, rtol=1e-5)
    assert np.isclose(losses["loss_D"].item(), -expected, rtol=1e-5)


# ---- values and their softmax, by hand ----


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_values_by_hand():
    real = np.array([[2.0, -1.0], [0.0, 3.0]])
    fake = np.array([[-1.0, 0.5], [1.0, -2.0]])
    D_real = 0.01 + 0.98 * sigmoid(real)
    D_fake = 0.01 + 0.98 * sigmoid(fake)
    first = np.log(D_real).mean(0)
    for objective, second in (
        ("original", np.log(1 - D_fake).mean(0)),
        ("modified", -np.log(D_fake).mean(0)),
    ):
        found = script.values(variable(real), variable(fake), objective).numpy()
        assert np.allclose(found, first + second, rtol=1e-5)
    with pytest.raises(ValueError, match="different shapes"):
        script.values(jt.zeros((2, 3)), jt.zeros((3, 2)), "original")


def test_values_are_bounded():
    """A logit of any size has a finite logarithm and a finite gradient."""
    logits = variable([[-1e4, -50, 0, 50, 1e4]])
    V = script.values(logits, -logits, "original")
    gradient = jt.grad(V.sum(), logits).numpy()
    lowest, highest = 2 * np.log(0.01), 2 * np.log(0.99)
    expected = [lowest, lowest, 2 * np.log(0.5), highest, highest]
    assert np.allclose(V.numpy(), expected, rtol=1e-4)
    assert np.isfinite(gradient).all()


def test_softmax_by_hand():
    V = np.array([-1.0, -0.5, -2.0])
    weights = np.exp(2 * V) / np.exp(2 * V).sum()
    for is_trained in (False, True):
        softmax = script.ArithmeticSoftmax(2.0, is_trained)
        assert np.isclose(softmax(variable(V)).item(), (weights * V).sum(), rtol=1e-5)
    assert np.isclose(script.ArithmeticSoftmax(0.0, False)(variable(V)).item(), V.mean())
    assert np.isclose(script.ArithmeticSoftmax(1000.0, False)(variable(V)).item(), -0.5)


@pytest.mark.parametrize("lam", [0.001, 1.0, 50.0])
def test_a_trained_lambda_begins_at_its_flag(lam):
    assert np.isclose(script.ArithmeticSoftmax(lam, True).lam().item(), lam, rtol=1e-3)


def moved_lambda(V, lam_reward):
    """Lambda after a step from 1 on F - lam_reward lambda."""
    softmax = script.ArithmeticSoftmax(1.0, True)
    optimizer = nn.SGD(softmax.parameters(), lr=0.1)
    optimizer.step(softmax(variable(V)) - lam_reward * softmax.lam())
    return softmax.lam().item()


def test_lambda_moves_as_it_should():
    """dF / dlambda is the variance of V under the weights, which the reward opposes."""
    V = np.array([-1.0, -0.5, -2.0])
    weights = np.exp(V) / np.exp(V).sum()
    variance = (weights * V**2).sum() - (weights * V).sum() ** 2
    assert moved_lambda(V, 0.9 * variance) < 1 < moved_lambda(V, 1.1 * variance)
    assert moved_lambda([-1, -1, -1], 0.001) > 1


def test_a_trained_lambda_is_stored_and_resumed(tiny_runs, tmp_path):
    flags = [*tiny_runs("gman").flags, "--learn_lam", "--lr", 0.01, "--dropout", 0]
    run("gman", *flags, "--n_epochs", 2, "--out_dir", tmp_path / "whole")
    run("gman", *flags, "--n_epochs", 1, "--out_dir", tmp_path / "half")
    half = saved_arrays(tmp_path / "half")["softmax/raw"]
    run("gman", "--resume", tmp_path / "half", "--n_epochs", 2)
    whole = saved_arrays(tmp_path / "whole")
    resumed = saved_arrays(tmp_path / "half")
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        assert np.array_equal(array, resumed[name]), name
    start = script.ArithmeticSoftmax(1.0, True).raw.numpy()
    assert start != half and half != whole["softmax/raw"]


# ---- flags ----


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n_discriminators", 7], "--batch_size 60: it must be a multiple of 7"),
        (["--width_G", 10], "--width_G 10: it must be a multiple of 4"),
        (["--learn_lam", "--lam", 0], "--learn_lam needs a --lam over 0"),
    ],
)
def test_flags_that_do_not_fit(flags, words, fails):
    code, line = fails(script.parse_args, [str(flag) for flag in flags])
    assert code == 2
    assert words in line


# ---- the authors' setting: github.com/iDurugkar/GMAN, GMAN.py and models.py ----


def test_parameters_of_the_authors():
    generator, discriminators = script.build(parse("--paper"))
    transposed = 9 * 100 * 512 + 25 * (512 * 256 + 256 * 128 + 128)
    biases = 512 + 256 + 128 + 1
    norms = 2 * (512 + 256 + 128)
    assert n_parameters(generator) == transposed + biases + norms

    convolutions = 9 * (64 + 64 * 128 + 128 * 256) + 64 + 128 + 256
    dense = 8 * 8 * 256 + 1
    assert n_parameters(discriminators) == 5 * (convolutions + dense)
    assert all(
        layer.eps == 1e-3 for layer in generator.modules() if isinstance(layer, nn.BatchNorm)
    )


def test_dropout_of_the_authors():
    """They keep 0.42, 0.44, ... 0.5 after the first two layers."""
    _, discriminators = script.build(parse("--paper"))
    for i, member in enumerate(discriminators.members, 1):
        layers = [layer for layer in member.modules() if isinstance(layer, nn.Dropout)]
        assert len(layers) == 2
        assert all(np.isclose(1 - layer.p, 0.4 + 0.02 * i) for layer in layers)


def test_settings_of_the_authors():
    args = parse("--paper")
    assert (args.lr, args.b1, args.b2) == (0.0002, 0.5, 0.999)
    assert args.batch_size == args.n_discriminators * 100 == 500
    assert args.n_epochs * 60000 == 25 * 600 * args.batch_size
    assert (args.lam, args.objective, args.learn_lam) == (1, "original", False)


def test_first_weights():
    """Normal, cut off at two standard deviations; biases 0."""
    for network in script.build(parse()):
        for layer in network.modules():
            if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.Linear)):
                assert np.abs(layer.weight.numpy()).max() <= 0.0401
                assert (layer.bias.numpy() == 0).all()
    weight = network.members[0].layers[6].weight.numpy()
    assert np.isclose(weight.std(), 0.02 * 0.88, rtol=0.03)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes(size):
    flags = ["--img_size", size, "--width_G", 16, "--width_D", 2, "--channels", 3]
    generator, discriminators = script.build(parse(*flags))
    images = generator(jt.zeros((3, 100)))
    assert images.shape == [3, 3, size, size]
    assert discriminators(images).shape == [1, 3]
