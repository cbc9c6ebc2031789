"""sgan.py: the steps against PyTorch, losses by hand, the authors' sizes, phases."""

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, differences, run

import sgan as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ROWS["sgan"].flags


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


def batch(rng, n=8):
    """Images, labels and the noise of both updates."""
    real = variable(rng.uniform(-1, 1, (n, 1, 20, 20)))
    labels = jt.array(rng.integers(10, size=n, dtype=np.int32))
    noise = [tuple(variable(rng.random((n, 6))) for _ in range(2)) for _ in range(2)]
    return real, labels, noise


# ---- the steps ----


def test_step_equals_pytorch():
    """No gradient reaches the encoder, and none of G_0's losses reaches G_1."""
    twins = pytest.importorskip("tools.twins")
    networks = script.build(parse(*TINY))
    for network in networks:
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.assign(3 * parameter)
    # SGD: Adam's first update of a weight whose gradient is rounding has a random sign,
    # and the generators' losses are those of the updated discriminators.
    optimizers = [nn.SGD(network.parameters(), lr=0.01) for network in networks[1:]]
    weights = {"cond_weight": 2.0, "entropy_weight": 10.0}
    before = [p.numpy() for p in networks[0].parameters()]
    twin = twins.Twin("sgan", write_back=False)
    step = (networks, optimizers, *batch(np.random.default_rng(0)))
    expected = twin.train_step(*step, **weights)
    twins.assert_same_losses(script.train_step(*step, **weights), expected)
    for network, optimizer in zip(networks[1:], optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)
    assert all(np.array_equal(a, p.numpy()) for a, p in zip(before, networks[0].parameters()))


def test_encoder_step_equals_pytorch():
    twins = pytest.importorskip("tools.twins")
    encoder, *_ = script.build(parse(*TINY))
    optimizer = nn.Adam(encoder.parameters(), lr=0.001, betas=(0.9, 0.999))
    twin = twins.Twin("sgan", write_back=False)
    real, labels, _ = batch(np.random.default_rng(0))
    expected = twin.step("encoder_step", encoder, optimizer, real, labels)
    twins.assert_same_losses(script.encoder_step(encoder, optimizer, real, labels), expected)
    twins.assert_same_step(encoder, twin.module(encoder), optimizer)


def test_losses_by_hand():
    real, fake = variable([2, 0]), variable([-1, 3])
    expected = (np.log1p(np.exp([-2, 0])).mean() + np.log1p(np.exp([-1, 3])).mean()) / 2
    assert np.isclose(script.discriminator_loss(real, fake).item(), expected)
    assert np.isclose(script.generator_loss(fake).item(), np.log1p(np.exp([1, -3])).mean())
    assert np.isclose(script.square_loss(variable([[1, 2]]), variable([[0, 4]])).item(), 2.5)
    for loss in (script.discriminator_loss, script.square_loss):
        with pytest.raises(ValueError, match="different shapes"):
            loss(jt.zeros(4), jt.zeros((4, 1)))


# ---- the authors' setting: github.com/xunhuang1995/SGAN, mnist/train_joint.py ----


def linear(n_in, n_out):
    """Weights and biases of a linear layer."""
    return n_in * n_out + n_out


def norm(c):
    return 2 * c


def test_parameters_of_the_authors():
    E, G1, G0, D1, D0 = script.build(parse("--paper"))
    convolutions = 25 * 32 + 32 + 25 * 32 * 32 + 32
    assert n_parameters(E) == convolutions + linear(32 * 16, 256) + linear(256, 10)

    dense = 60 * 512 + 512 * 512 + norm(512 + 512)
    assert n_parameters(G1) == dense + linear(512, 256)

    dense = 50 * 128 + (256 + 128) * 128 * 16 + norm(128 + 128 * 16)
    convolutions = 25 * (128 * 128 + 128 * 64 + 64 * 64 + 64) + 1
    assert n_parameters(G0) == dense + convolutions + norm(128 + 64 + 64)

    heads = linear(256, 1) + linear(256, 50)
    assert n_parameters(D1) == 2 * linear(256, 256) + heads
    convolutions = 25 * (32 + 32 * 64 + 64 * 128) + 32 + 64 + 128
    assert n_parameters(D0) == convolutions + linear(128 * 16, 256) + heads


def test_settings_of_the_authors():
    args = parse("--paper")
    assert (args.batch_size, args.lr, args.b1) == (100, 0.0001, 0.5)
    assert args.n_epochs - args.encoder_epochs == 200
    assert (args.cond_weight, args.entropy_weight) == (1, 10)


@pytest.mark.parametrize("size", [20, 28, 32])
def test_sizes(size):
    """The stack gives images of the size that the encoder reads."""
    E, G1, G0, D1, D0 = script.build(parse("--img_size", size, "--width", 2))
    labels = jt.array(np.arange(3, dtype=np.int32))
    z = variable(np.zeros((3, 50)))
    features = G1(labels, z)
    images = G0(features, z)
    assert images.shape == [3, 1, size, size]
    assert E.features(images).shape == features.shape == [3, 16]
    for logits, recovered in (D1(features), D0(images)):
        assert logits.shape == [3]
        assert recovered.shape == [3, 50]


# ---- two phases, and the picture ----


def test_the_encoder_is_trained_first_and_then_fixed(tiny_runs, tmp_path):
    flags = [*tiny_runs("sgan").flags, "--encoder_epochs", 2, "--n_epochs", 3, "--keep", 3]
    run("sgan", *flags, "--log_interval", 1, "--out_dir", tmp_path)
    first, second, third = sorted(tmp_path.glob("checkpoint_step_*.npz"))
    moved = differences(first, second)
    assert {name.split("/")[0] for name in moved} == {"encoder", "optimizer_E"}
    moved = {name.split("/")[0] for name in differences(second, third)}
    assert "encoder" not in moved
    assert {"generator1", "generator0", "discriminator1", "discriminator0"} <= moved
    with open(tmp_path / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["cross_entropy"]
    assert rows[-1]["loss_ent0"]


def test_pictures(tiny_runs, tmp_path):
    """Ten test images, four rows of their features, five of labels."""
    resume = ["--resume", tiny_runs("sgan").half, "--sample_only"]
    run("sgan", *resume, "--n_samples", 12, "--out_dir", tmp_path)
    assert Image.open(tmp_path / "result.png").size == (10 * 22 + 2, 10 * 22 + 2)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].shape == (12, 20, 20, 1)
        assert samples["labels"].tolist() == [*range(10), 0, 1]
