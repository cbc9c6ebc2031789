"""began.py: the step against PyTorch, the balance by hand, the paper's architecture and counts; that it learns."""

from common.networks import n_parameters

import math

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from registry import differences, meta, run

import began as script
from jittor_fast import nn

TINY = ["--img_size", "16", "--latent_dim", "6", "--width", "4"]


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


# ---- the step ----


@pytest.mark.parametrize("flags", [[], ["--skip_connections"]])
def test_step_is_pytorchs(flags):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    args = script.parse_args([*TINY, *flags])
    G, D = script.build(args)
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.9, 0.999)) for m in (G, D)
    )
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16, 16)).astype(np.float32))
    z_D, z_G = (jt.array(script.latent(rng, 8, args)) for _ in range(2))
    twin, k = Twin("began", write_back=False), jt.array(np.float32([0.7]))
    inputs = (G, D, optimizer_G, optimizer_D, real, z_D, z_G, k)
    expected = twin.train_step(*inputs)
    assert_same_losses(script.train_step(*inputs), expected)
    assert_same_step(D, twin.module(D), optimizer_D)
    assert_same_step(G, twin.module(G), optimizer_G)


def test_reconstruction_loss_by_hand():
    images, reconstructions = jt.array([[1.0, -1.0]]), jt.array([[0.5, 0.0]])
    assert np.isclose(script.reconstruction_loss(images, reconstructions).item(), (0.5 + 1.0) / 2)


def test_loss_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.reconstruction_loss(jt.zeros((4, 1, 8, 8)), jt.zeros((4, 3, 8, 8)))


# ---- the balance ----


def test_k_and_the_measure_by_hand():
    balance = script.Balance(gamma=0.5, lambda_k=0.1, patience=100)
    assert np.isclose(balance.update(loss_real=2.0, loss_G=0.4), 2.0 + 0.6)
    assert np.isclose(balance.k, 0.1 * (0.5 * 2.0 - 0.4))
    assert np.isclose(balance.update(loss_real=1.0, loss_G=3.0), 1.0 + 2.5)
    assert balance.k == 0  # 0.06 - 0.25 lies below
    balance.update(loss_real=100.0, loss_G=0.0)
    assert balance.k == 1


def test_the_rate_is_halved_when_a_mean_of_the_measure_is_no_lower():
    """Means over two updates of 3, 2, 2 and 1: the third does not fall."""
    balance, halvings = script.Balance(gamma=0.5, lambda_k=0, patience=2), []
    for loss_real in (4, 2, 1, 3, 2, 2, 1, 1):
        balance.update(loss_real, loss_real / 2)  # in balance, M is L(x)
        halvings.append(balance.n_halvings)
    assert halvings == [0, 0, 0, 0, 0, 1, 1, 1]


def test_a_shorter_patience_of_a_resumed_run_counts():
    long, short = (script.Balance(gamma=0.5, lambda_k=0, patience=n) for n in (10, 2))
    for _ in range(5):
        long.update(1.0, 0.5)
    short.load_state_dict({**long.state_dict(), "last_mean": 0.5})
    short.update(1.0, 0.5)
    assert (short.n_halvings, short.n_updates, short.last_mean) == (1, 0, 1.0)


def test_halved_rate_and_k_reach_the_step(tmp_path, monkeypatch, idx_folder):
    """With a patience of one update the rate halves at every rise; k is the one that the last step left."""
    seen, real_step = [], script.train_step

    def step(*args):
        losses = real_step(*args)
        seen.append(
            (
                args[2].lr,
                args[3].lr,
                args[7].item(),
                losses["loss_real"].item(),
                losses["loss_G"].item(),
            )
        )
        return losses

    monkeypatch.setattr(script, "train_step", step)
    flags = [
        *TINY,
        "--batch_size",
        10,
        "--n_epochs",
        3,
        "--patience",
        1,
        "--lambda_k",
        0.3,
        "--lr",
        0.02,
    ]
    run("began", *flags, "--gamma", 1, "--data_dir", idx_folder, "--out_dir", tmp_path)
    k, rate, last = 0.0, 0.02, math.inf
    for lr_G, lr_D, used, loss_real, loss_G in seen:
        assert (lr_G, lr_D) == (rate, rate)
        assert np.isclose(used, k, atol=1e-6)
        k = min(max(k + 0.3 * (loss_real - loss_G), 0), 1)
        measure = loss_real + abs(loss_real - loss_G)
        rate, last = (rate / 2 if measure >= last else rate), measure
    assert len(seen) == 12
    assert k > 0 and rate < 0.02
    assert np.isclose(meta(tmp_path)["values"]["balance"]["k"], k)


def test_a_halved_rate_is_resumed(tmp_path, idx_folder):
    """In the middle of what M is averaged over."""
    flags = [
        *TINY,
        "--batch_size",
        10,
        "--patience",
        3,
        "--lambda_k",
        0.3,
        "--gamma",
        1,
        "--lr",
        0.02,
    ]
    flags += ["--data_dir", idx_folder]
    run("began", *flags, "--n_epochs", 4, "--out_dir", tmp_path / "whole")
    run("began", *flags, "--n_epochs", 2, "--out_dir", tmp_path / "half")
    run("began", "--resume", tmp_path / "half", "--n_epochs", 4)
    whole, half = (meta(tmp_path / name)["values"]["balance"] for name in ("whole", "half"))
    assert whole == half
    assert whole["n_halvings"] > 0 and whole["n_updates"] == 16 % 3
    assert differences(tmp_path / "whole", tmp_path / "half") == []


@pytest.mark.parametrize("state", [{"k": 1.5}, {"k": -0.1}, {"k": math.nan}, {"n_halvings": -1}])
def test_a_damaged_balance_is_refused(state):
    balance = script.Balance(gamma=0.5, lambda_k=0.001, patience=10)
    with pytest.raises(ValueError, match="outside"):
        balance.load_state_dict({**balance.state_dict(), **state})


# ---- the architecture ----


def conv_parameters(n_in, n_out):
    return 9 * n_in * n_out + n_out


@pytest.mark.parametrize(("size", "skip"), [(32, False), (64, True)])
def test_counts_of_the_paper(size, skip):
    """Section 3.5 with n = 128 and N_h = 64: two convolutions at each size, 8 x 8 at the end, n, 2n, 3n, ... in the
    encoder and n in the decoder; dense layers between. The skip's tensor has n channels more, at all sizes but 8 x 8.
    """
    n, n_sizes = 128, int(math.log2(size)) - 2
    widths = [n * (i + 1) for i in range(n_sizes)]
    encoder = conv_parameters(3, n) + sum(2 * conv_parameters(c, c) for c in widths)
    encoder += sum(conv_parameters(a, b) for a, b in zip(widths, widths[1:]))  # with stride 2
    encoder += 64 * widths[-1] * 64 + 64
    decoder = 64 * 64 * n + 64 * n + 2 * n_sizes * conv_parameters(n, n) + conv_parameters(n, 3)
    decoder += (n_sizes - 1) * 9 * n * n if skip else 0
    G, D = script.build(
        script.parse_args(["--paper", "--img_size", str(size)] + ["--skip_connections"] * skip)
    )
    assert n_parameters(G) == decoder
    assert n_parameters(D) == encoder + decoder


def test_the_largest_model_of_the_paper_is_described():
    """The paper counts 17.3 million parameters without saying of what; four sizes with n = 128 have as many."""
    G, D = script.build(script.parse_args(["--paper", "--img_size", "64"]))
    assert round((n_parameters(G) + n_parameters(D)) / 1e6, 1) == 17.3


def test_the_skip_brings_the_code_to_every_size():
    """With the layers of the smallest size silenced, an image without the skip no longer depends on h."""
    z = jt.array(np.random.default_rng(0).uniform(-1, 1, (2, 6)).astype(np.float32))
    for flags in ([], ["--skip_connections"]):
        G, _ = script.build(script.parse_args([*TINY, *flags]))
        G.sizes[0].layers["2"].weight.assign(jt.zeros((4, 4, 3, 3)))
        one, two = G(z).numpy()
        assert np.allclose(one, two) == (flags == [])


def test_noise_has_its_distribution():
    z = script.latent(np.random.default_rng(0), 1000, script.parse_args(["--latent_dim", "50"]))
    assert (z.shape, z.dtype) == ((1000, 50), np.float32)
    assert abs(z.mean()) < 0.02 and np.isclose(z.std(), 3**-0.5, rtol=0.02)
    assert np.abs(z).max() <= 1


# ---- it learns ----


def test_it_learns_and_finds_its_balance(tmp_path):
    """Of images of one grey level each: after 250 steps they are reconstructed, and G's err gamma times as much."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(40, 215, 200)
    pixels = np.repeat(levels, 256).reshape(200, 16, 16).astype(np.uint8)
    data = write_idx_folder(tmp_path / "data", pixels, np.zeros(200, np.uint8))
    training = ["--data_dir", data, "--batch_size", 20, "--n_epochs", 25, "--lr", 0.003]
    training += ["--gamma", 0.8, "--lambda_k", 0.15]
    run(
        "began",
        *TINY,
        *training,
        "--log_interval",
        1,
        "--n_samples",
        200,
        "--out_dir",
        tmp_path / "out",
    )
    log = np.genfromtxt(tmp_path / "out/losses.csv", delimiter=",", names=True)
    early, late = log[:20], log[-125:]
    assert late["measure"].mean() < 0.5 * early["measure"].mean()
    assert np.isclose(late["loss_G"].mean() / late["loss_real"].mean(), 0.8, rtol=0.1)
    assert 0 < late["k"].max() < 1
    with np.load(tmp_path / "out/samples.npz") as samples:
        images = samples["images"].astype(np.float64)
    assert images.std((1, 2, 3)).mean() < 20  # of one level each
    assert 40 < images.mean() < 215


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "nearest is 32"),
        (["--img_size", 256], "nearest is 128"),
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
