"""began.py: the balance by hand, a step against PyTorch, the paper's sizes."""

import math

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from registry import differences, meta, run

import began as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4"]


def build(*flags):
    return script.build(script.parse_args([str(flag) for flag in flags]))


# ---- losses and one step ----


def test_reconstruction_loss_by_hand():
    images = jt.array([[1.0, -1.0]])
    reconstructions = jt.array([[0.5, 0.0]])
    loss = script.reconstruction_loss(images, reconstructions)
    assert np.isclose(loss.item(), (0.5 + 1.0) / 2)


def test_loss_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.reconstruction_loss(jt.zeros((4, 1, 8, 8)), jt.zeros((4, 3, 8, 8)))


@pytest.mark.parametrize("flags", [[], ["--skip_connections"]])
def test_step_against_pytorch(flags):
    twins = pytest.importorskip("tools.twins")
    generator, discriminator = build(*TINY, *flags)
    optimizer_G = nn.Adam(generator.parameters(), lr=0.01, betas=(0.9, 0.999))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=0.01, betas=(0.9, 0.999))
    networks = (generator, discriminator, optimizer_G, optimizer_D)
    rng = np.random.default_rng(0)
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16, 16)).astype(np.float32))
    z_D = jt.array(rng.uniform(-1, 1, (8, 6)).astype(np.float32))
    z_G = jt.array(rng.uniform(-1, 1, (8, 6)).astype(np.float32))
    k = jt.array([0.7])

    twin = twins.Twin("began", write_back=False)
    expected = twin.train_step(*networks, real, z_D, z_G, k=k)
    found = script.train_step(*networks, real, z_D, z_G, k=k)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)


# ---- the balance ----


def test_k_and_the_measure_by_hand():
    balance = script.Balance(gamma=0.5, lambda_k=0.1, patience=100)
    assert np.isclose(balance.update(loss_real=2.0, loss_G=0.4), 2.0 + 0.6)
    assert np.isclose(balance.k, 0.1 * (0.5 * 2.0 - 0.4))
    assert np.isclose(balance.update(loss_real=1.0, loss_G=3.0), 1.0 + 2.5)
    assert balance.k == 0  # not 0.06 - 0.25
    balance.update(loss_real=100.0, loss_G=0.0)
    assert balance.k == 1  # not 5


def test_the_learning_rate_is_halved_when_a_mean_of_the_measure_does_not_fall():
    """Means over two updates of 3, 2, 2 and 1: the third one does not fall."""
    balance = script.Balance(gamma=0.5, lambda_k=0, patience=2)
    halvings = []
    for loss_real in (4, 2, 1, 3, 2, 2, 1, 1):
        balance.update(loss_real, loss_real / 2)  # in balance, M is L(x)
        halvings.append(balance.n_halvings)
    assert halvings == [0, 0, 0, 0, 0, 1, 1, 1]


def test_a_resumed_run_may_have_a_shorter_patience():
    """Its mean is then over the five updates that were done, and the next one."""
    long = script.Balance(gamma=0.5, lambda_k=0, patience=10)
    short = script.Balance(gamma=0.5, lambda_k=0, patience=2)
    for _ in range(5):
        long.update(1.0, 0.5)
    short.load_state_dict({**long.state_dict(), "last_mean": 0.5})
    short.update(1.0, 0.5)
    assert (short.n_halvings, short.n_updates, short.last_mean) == (1, 0, 1.0)


UNBALANCED = [*TINY, "--batch_size", 10, "--lambda_k", 0.3, "--gamma", 1, "--lr", 0.02]


def test_k_and_the_learning_rate_reach_the_step(tmp_path, monkeypatch, idx_folder):
    """With a patience of one update, the learning rate is halved whenever M rises."""
    steps = []
    real_step = script.train_step

    def train_step(*args, k):
        optimizer_G, optimizer_D = args[2:4]
        losses = real_step(*args, k=k)
        values = (losses["loss_real"].item(), losses["loss_G"].item())
        steps.append((optimizer_G.lr, optimizer_D.lr, k.item(), *values))
        return losses

    monkeypatch.setattr(script, "train_step", train_step)
    flags = [*UNBALANCED, "--patience", 1, "--n_epochs", 3, "--data_dir", idx_folder]
    run("began", *flags, "--out_dir", tmp_path)
    k = 0.0
    lr = 0.02
    last_measure = math.inf
    for lr_G, lr_D, k_used, loss_real, loss_G in steps:
        assert (lr_G, lr_D) == (lr, lr)
        assert np.isclose(k_used, k, atol=1e-6)
        k = min(max(k + 0.3 * (loss_real - loss_G), 0), 1)
        measure = loss_real + abs(loss_real - loss_G)
        if measure >= last_measure:
            lr /= 2
        last_measure = measure
    assert len(steps) == 12
    assert k > 0
    assert lr < 0.02
    assert np.isclose(meta(tmp_path)["values"]["balance"]["k"], k)


def test_the_balance_is_resumed(tmp_path, idx_folder):
    """In the middle of a mean of M, and after a halving."""
    flags = [*UNBALANCED, "--patience", 3, "--data_dir", idx_folder]
    whole = tmp_path / "whole"
    half = tmp_path / "half"
    run("began", *flags, "--n_epochs", 4, "--out_dir", whole)
    run("began", *flags, "--n_epochs", 2, "--out_dir", half)
    run("began", "--resume", half, "--n_epochs", 4)
    balance = meta(whole)["values"]["balance"]
    assert meta(half)["values"]["balance"] == balance
    assert balance["n_halvings"] > 0
    assert balance["n_updates"] == 16 % 3
    assert differences(whole, half) == []


@pytest.mark.parametrize("state", [{"k": 1.5}, {"k": -0.1}, {"k": math.nan}, {"n_halvings": -1}])
def test_a_damaged_balance_is_refused(state):
    balance = script.Balance(gamma=0.5, lambda_k=0.001, patience=10)
    with pytest.raises(ValueError, match="outside"):
        balance.load_state_dict({**balance.state_dict(), **state})


# ---- the paper ----


def conv(n_in, n_out):
    """Weights and biases of a 3 x 3 convolution."""
    return 9 * n_in * n_out + n_out


@pytest.mark.parametrize(("size", "has_skip"), [(32, False), (64, True)])
def test_parameters_of_the_paper(size, has_skip):
    """Berthelot 2017, section 3.5, with n = 128 channels and a code of 64.

    There are two convolutions at each size down to 8 x 8, with n, 2n, 3n, ... channels
    in the encoder and n in the decoder, and dense layers between the two. A skip
    connection adds n channels to the input at every size above 8 x 8.
    """
    n = 128
    n_sizes = int(math.log2(size)) - 2
    channels = [n * (i + 1) for i in range(n_sizes)]
    encoder = conv(3, n) + sum(2 * conv(c, c) for c in channels)
    encoder += sum(conv(c, c + n) for c in channels[:-1])  # with stride 2
    encoder += 64 * channels[-1] * 64 + 64
    decoder = 64 * 64 * n + 64 * n + 2 * n_sizes * conv(n, n) + conv(n, 3)
    if has_skip:
        decoder += (n_sizes - 1) * 9 * n * n
    flags = ["--skip_connections"] if has_skip else []
    generator, discriminator = build("--paper", "--img_size", size, *flags)
    assert n_parameters(generator) == decoder
    assert n_parameters(discriminator) == encoder + decoder


def test_size_of_a_model_of_the_paper():
    """The paper counts 17.3 million parameters, without saying of which model.

    With n = 128, images of 64 x 64 need as many.
    """
    generator, discriminator = build("--paper", "--img_size", 64)
    total = n_parameters(generator) + n_parameters(discriminator)
    assert round(total / 1e6, 1) == 17.3


def test_settings_of_the_paper():
    """Sections 3.4 and 4.1; the epochs are 450,000 updates on 360,000 faces."""
    args = script.parse_args(["--paper"])
    assert args.batch_size == 16
    assert 5e-5 <= args.lr <= 1e-4
    assert args.lambda_k == 0.001
    assert args.latent_dim == 64
    assert args.n_epochs * 360_000 / args.batch_size == 450_000


@pytest.mark.parametrize(("flags", "is_blind"), [([], True), (["--skip_connections"], False)])
def test_skip_connections_bring_the_code_to_every_size(flags, is_blind):
    """Without them, images do not depend on h once the smallest size is silenced."""
    z = np.random.default_rng(0).uniform(-1, 1, (2, 6)).astype(np.float32)
    generator, _ = build(*TINY, *flags)
    generator.sizes[0].layers["2"].weight.assign(jt.zeros((4, 4, 3, 3)))
    first, second = generator(jt.array(z)).numpy()
    assert np.allclose(first, second) == is_blind


# ---- it learns ----


def test_it_learns_and_finds_its_balance(tmp_path):
    """The images have one grey level each.

    After 250 updates they are reconstructed, and the error of G's images is gamma times
    that of real ones.
    """
    levels = np.random.default_rng(0).uniform(40, 215, 200)
    pixels = np.repeat(levels, 256).reshape(200, 16, 16).astype(np.uint8)
    data = write_idx_folder(tmp_path / "data", pixels, np.zeros(200, np.uint8))
    flags = [*TINY, "--batch_size", 20, "--n_epochs", 25, "--lr", 0.003, "--log_interval", 1]
    flags += ["--gamma", 0.8, "--lambda_k", 0.15, "--n_samples", 200]
    run("began", *flags, "--data_dir", data, "--out_dir", tmp_path / "out")
    log = np.genfromtxt(tmp_path / "out/losses.csv", delimiter=",", names=True)
    early = log[:20]
    late = log[-125:]
    assert late["measure"].mean() < 0.5 * early["measure"].mean()
    assert np.isclose(late["loss_G"].mean() / late["loss_real"].mean(), 0.8, rtol=0.1)
    assert 0 < late["k"].max() < 1
    with np.load(tmp_path / "out/samples.npz") as samples:
        images = samples["images"].astype(np.float64)
    assert images.std((1, 2, 3)).mean() < 20  # one level each
    assert 40 < images.mean() < 215


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "--img_size: invalid choice"),
        (["--gamma", 0], "--gamma"),
        (["--gamma", 1.5], "--gamma"),
        (["--lambda_k", -1], "--lambda_k"),
        (["--patience", 0], "--patience"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
