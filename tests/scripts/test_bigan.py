"""bigan.py: the step against PyTorch, the authors' sizes, losses by hand, pictures."""

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, run

import bigan as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ROWS["bigan"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


# ---- the step ----


def test_two_steps_equal_pytorch():
    """The second one shows whether G and E had D's logits from before its update."""
    twins = pytest.importorskip("tools.twins")
    networks = script.build(parse(*TINY))
    for network in networks:
        for parameter in network.parameters():
            if not parameter.is_stop_grad():
                parameter.assign(10 * parameter)
    G, E, D = networks
    D.output.weight.assign(variable(np.linspace(-1, 1, 12).reshape(1, 12)))
    options = {"lr": 0.01, "betas": (0.5, 0.999), "weight_decay": 0.1}
    optimizer_D = nn.Adam(D.parameters(), **options)
    optimizer_GE = nn.Adam(G.parameters() + E.parameters(), **options)
    twin = twins.Twin("bigan", write_back=False)
    rng = np.random.default_rng(0)
    for _ in range(2):
        real = variable(rng.uniform(-1, 1, (9, 1, 8, 8)))
        z = variable(rng.uniform(-1, 1, (9, 5)))
        step = (networks, (optimizer_D, optimizer_GE), real, z)
        expected = twin.train_step(*step)
        twins.assert_same_losses(script.train_step(*step), expected)
    twins.assert_same_step(D, twin.module(D), optimizer_D)
    twins.assert_same_step(G, twin.module(G), optimizer_GE)
    twins.assert_same_step(E, twin.module(E), optimizer_GE)


def test_losses_by_hand():
    """The two kinds of pairs change places between loss_D and loss_GE."""
    encoded = variable([2, 0])
    generated = variable([-1, 3])
    expected = (np.log1p(np.exp([-2, 0])).mean() + np.log1p(np.exp([-1, 3])).mean()) / 2
    assert np.isclose(script.discriminator_loss(encoded, generated).item(), expected)
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))


def test_d_begins_undecided():
    """The authors' README prints 0.6932 = log 2 for all losses at epoch 0."""
    _, _, D = script.build(parse(*TINY))
    rng = np.random.default_rng(0)
    logits = D(variable(rng.uniform(-1, 1, (6, 1, 8, 8))), variable(rng.uniform(-1, 1, (6, 5))))
    assert not logits.numpy().any()
    assert np.isclose(script.discriminator_loss(logits, logits).item(), np.log(2))


# ---- the authors' setting: github.com/jeffdonahue/bigan ----


def test_parameters_of_the_authors():
    """net.py, mnist_mlp: two hidden layers of 1,024, no biases, z in two layers."""
    G, E, D = script.build(parse("--paper"))
    assert n_parameters(G) == 50 * 1024 + (1024 + 50) * 1024 + 1024 * 784
    assert n_parameters(E) == 784 * 1024 + 1024 * 1024 + 1024 * 50
    assert n_parameters(D) == 784 * 1024 + (1024 + 50) * 1024 + 1024


def test_learning_rates_of_the_authors():
    """200 epochs at 0.0002, then 200 in which it falls to a hundredth."""
    args = parse("--paper")
    rates = [script.learning_rate(epoch, args) for epoch in (1, 200, 300, 400)]
    assert np.allclose(rates, [0.0002, 0.0002, 0.00002, 0.000002])
    assert (args.batch_size, args.b1, args.weight_decay) == (128, 0.5, 2.5e-5)


def test_codes_and_images_are_in_range():
    G, E, _ = script.build(parse(*TINY))
    for network in (G, E):
        for parameter in network.parameters():
            parameter.assign(1000 * parameter)
    rng = np.random.default_rng(0)
    for output in (
        G(variable(rng.uniform(-1, 1, (6, 5)))),
        E(variable(rng.uniform(-1, 1, (6, 1, 8, 8)))),
    ):
        assert 0.9 < np.abs(output.numpy()).max() <= 1


# ---- the run ----


def test_pictures_show_reconstructions(tiny_runs, tmp_path):
    """Twice ten test images above their reconstructions, then twenty samples."""
    half = tiny_runs("bigan").half
    assert Image.open(half / "result.png").size == (10 * 10 + 2, 6 * 10 + 2)
    resume = ["--resume", half, "--sample_only"]  # without the data, samples alone
    run("bigan", *resume, "--n_samples", 3, "--out_dir", tmp_path)
    assert Image.open(tmp_path / "result.png").size == (10 * 10 + 2, 10 * 10 + 2)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].shape == (3, 8, 8, 1)
