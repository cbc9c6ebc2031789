"""improved_gan.py: steps against PyTorch, cures by hand, the authors' sizes, labels."""

import csv

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from registry import ROWS, assert_same_run, run

import improved_gan as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ROWS["improved_gan"].flags
STILL = ["--input_noise", 0, "--hidden_noise", 0]  # PyTorch's noise is other noise


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


# ---- the step ----

CURES = ["--arch", "conv", "--img_size", 16, "--width", 4, "--n_labels", 0]


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--img_size", 8], {}),
        (["--img_size", 8, "--virtual_batch_norm"], {"history_weight": 0.1}),
        ([*CURES, "--minibatch_discrimination", "4,3"], {"matches_features": False}),
        ([*CURES, "--virtual_batch_norm"], {"label_smoothing": 0.25, "unlabeled_weight": 2.0}),
    ],
    ids=["labels", "history", "minibatch", "smoothing"],
)
def test_step_equals_pytorch(flags, settings):
    twins = pytest.importorskip("tools.twins")
    args = parse("--latent_dim", 6, *flags, *STILL)
    networks = script.build(args)
    size = args.img_size
    # SGD: Adam's first update of a weight whose gradient is rounding has a random sign,
    # and G's loss is that of the updated D.
    optimizers = [nn.SGD(network.parameters(), lr=0.01) for network in networks]
    rng = np.random.default_rng(0)
    real = variable(rng.uniform(-1, 1, (9, 1, size, size)))
    labeled = None
    if args.n_labels > 0:
        images = variable(rng.uniform(-1, 1, (9, 1, size, size)))
        labeled = (images, jt.array(rng.integers(10, size=9, dtype=np.int32)))
    z = [variable(rng.uniform(-1, 1, (9, 6))) for _ in range(2)]
    means = []
    for network in networks:
        history = script.History(network)
        means.append({name: mean + 0.1 for name, mean in history.means.items()})
    options = {
        "unlabeled_weight": 1.0,
        "matches_features": True,
        "label_smoothing": 0.0,
        "history_weight": 0.0,
        **settings,
    }

    twin = twins.Twin("improved_gan", write_back=False)
    step = (networks, optimizers, real, labeled, z, means)
    expected = twin.train_step(*step, settings=options)
    found = script.train_step(*step, settings=options)
    assert ("loss_lab" in found) == (args.n_labels > 0)
    twins.assert_same_losses(found, expected)
    for network, optimizer in zip(networks, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


def test_losses_by_hand():
    """D(x) = Z / (Z + 1), with Z the sum of the logits' exponentials."""
    logits = np.float32([[0, 1], [-2, 0.5]])
    Z = np.exp(logits).sum(1)
    assert np.allclose(script.log_Z(variable(logits)).numpy(), np.log(Z), atol=1e-6)
    assert np.isclose(script.log_Z(variable([[1000.0, 999.0]])).item(), 1000 + np.log1p(np.exp(-1)))
    D = Z / (Z + 1)
    fake = variable([[0.3, -1.0]])
    Z_fake = np.exp([0.3, -1.0]).sum()
    of_fake = -np.log(1 / (Z_fake + 1))
    for smoothing in (0, 0.25):
        of_real = -((1 - smoothing) * np.log(D) + smoothing * np.log(1 - D)).mean()
        loss = script.unlabeled_loss(variable(logits), fake, smoothing)
        assert np.isclose(loss.item(), (of_real + of_fake) / 2)
    assert np.isclose(script.adversarial_loss(variable(logits)).item(), -np.log(D).mean())
    features = variable([[1, 2], [3, 2]])
    others = variable([[0, 0], [0, 2]])
    assert np.isclose(script.feature_matching(features, others).item(), (4 + 1) / 2)


# ---- layers ----


def test_first_weights_follow_the_data():
    """Outputs of 500 images have the mean 0 and the variance 1 (weight norm's init)."""
    layer = script.WeightNormLinear(7, 5)
    x = variable(3 + 2 * np.random.default_rng(0).standard_normal((500, 7)))
    layer.fit(x)
    outputs = layer(x).numpy()
    assert np.allclose(outputs.mean(0), 0, atol=1e-4)
    assert np.allclose(outputs.std(0), 1, atol=1e-3)
    assert layer.fixed_scale.is_stop_grad()
    assert layer.scale is None
    # They are constants: the gradient at images is that of a layer with equal values.
    copy = script.WeightNormLinear(7, 5)
    for ours, theirs in zip(copy.parameters(), layer.parameters()):
        ours.assign(jt.array(theirs.numpy()))
    gradients = [jt.grad((network(x) ** 3).sum(), x).numpy() for network in (layer, copy)]
    assert np.allclose(*gradients, rtol=1e-4, atol=1e-4)
    assert not script.WeightNormLinear(7, 5, trains_scale=True).scale.is_stop_grad()


def test_nearness_by_hand():
    """Salimans 2016, section 3.2; an image's distance to itself is 0, and counts 1."""
    layer = script.MinibatchDiscrimination(2, 2, 1)
    weight = [[[1], [0]], [[0], [10]]]  # M is (x1, 10 x2)
    layer.weight.assign(variable(weight))
    features = np.float32([[0, 1], [1, 1], [3, 2]])
    found = layer(jt.array(features)).numpy()
    assert np.array_equal(found[:, :2], features)
    first = [
        1 + np.exp(-1) + np.exp(-3),
        1 + np.exp(-1) + np.exp(-2),
        1 + np.exp(-3) + np.exp(-2),
    ]
    second = [2 + np.exp(-10), 2 + np.exp(-10), 1 + 2 * np.exp(-10)]
    assert np.allclose(found[:, 2], first)
    assert np.allclose(found[:, 3], second)


@pytest.mark.parametrize("discriminates", [False, True])
def test_a_logit_depends_on_the_batch_by_discrimination_only(discriminates):
    """In eval mode, where batch norm does not depend on the batch."""
    flags = [*CURES, "--minibatch_discrimination", "5,3"] if discriminates else CURES
    images = np.random.default_rng(0).uniform(-1, 1, (4, 1, 16, 16)).astype(np.float32)
    copies = np.concatenate([images[:1]] * 4)
    _, discriminator = script.build(parse(*flags))
    discriminator.eval()
    among_others = discriminator(jt.array(images)).numpy()[0]
    among_copies = discriminator(jt.array(copies)).numpy()[0]
    assert np.isclose(among_others, among_copies, rtol=1e-5, atol=1e-7)[0] != discriminates


def test_parameters_of_minibatch_discrimination():
    """T has A B C weights, and the last layer has B more."""
    _, plain = script.build(parse(*CURES))
    _, discriminator = script.build(parse(*CURES, "--minibatch_discrimination", "50,5"))
    n_features = 16 * 8
    expected = n_features * 50 * 5 + 50
    assert n_parameters(discriminator) - n_parameters(plain) == expected


@pytest.mark.parametrize("text", ["100", "100,0", "a,5", "1000,5"])
def test_kernels_are_two_numbers(text, fails):
    code, line = fails(script.main, ["--minibatch_discrimination", text])
    assert code == 2
    assert "must be B,C" in line


@pytest.mark.parametrize("shape", [(5,), (5, 3, 4)])
def test_virtual_batch_norm_does_not_mix_images(shape):
    """Of the same image, it makes the same whatever else is in the batch."""
    rng = np.random.default_rng(0)
    n = script.N_REFERENCE
    x = rng.standard_normal((n + 3, *shape)).astype(np.float32)
    norm = script.VirtualBatchNorm(5)
    together = norm(jt.array(x)).numpy()
    alone = norm(jt.array(x[[*range(n), n + 1]])).numpy()
    assert np.allclose(together[n + 1], alone[n], atol=1e-5)
    places = (0, *range(2, x.ndim))
    assert np.allclose(together[:n].mean(places), 0, atol=1e-5)
    assert np.allclose(together[:n].std(places), 1, atol=1e-3)


def test_history_is_the_mean_of_all_past_weights():
    network = nn.Linear(2, 1)
    history = script.History(network)
    values = [1.0, 4.0, 7.0]
    for value in values:
        network.weight.assign(jt.full((1, 2), value))
        history.update()
    assert np.allclose(history.means["weight"].numpy(), 4)
    restored = script.History(network)
    restored.load_state_dict(history.state_dict())
    assert restored.count == 3
    assert np.allclose(restored.means["weight"].numpy(), 4)
    distance = script.distance_from({"weight": variable([[4, 4]])}, network)
    assert np.isclose(distance.item(), 2 * 3**2)


# ---- the authors' setting: github.com/openai/improved-gan ----


def test_parameters_of_the_authors():
    """train_mnist_feature_matching.py; here G has a gain in its norms."""
    G, D = script.build(parse("--paper"))
    dense = 100 * 500 + 500 * 500 + 500 * 784
    assert n_parameters(G) == dense + 2 * 2 * 500 + 2 * 784
    sizes = (784, 1000, 500, 250, 250, 250)
    weights = sum(a * b + b for a, b in zip(sizes, sizes[1:]))
    assert n_parameters(D) == weights + 250 * 10 + 2 * 10  # the last scale is trained
    args = parse("--paper")
    assert (args.lr, args.b1, args.batch_size, args.n_epochs) == (0.003, 0.5, 100, 300)
    noises = [layer.deviation for layer in D.modules() if isinstance(layer, script.Noise)]
    assert noises == [0.3, 0.5, 0.5, 0.5, 0.5, 0.5]


# ---- labels ----


def test_equally_many_labels_of_each_class(tmp_path, fails):
    labels = np.repeat(np.arange(10, dtype=np.uint8), [2, *[5] * 9])
    pixels = np.repeat(labels[:, None, None] * 20, 8, axis=1).repeat(8, axis=2)
    write_idx_folder(tmp_path, pixels, labels, "train")
    args = parse("--img_size", 8, "--n_labels", 20, "--data_dir", tmp_path)
    data = script.load(args, "train")
    images, chosen = script.choose_labeled(data, args)
    chosen = chosen.numpy()
    assert np.bincount(chosen).tolist() == [2] * 10
    assert np.allclose(images.numpy().mean((1, 2, 3)), 2 * chosen * 20 / 255 - 1, atol=0.01)

    flags = ["--img_size", 8, "--data_dir", tmp_path, "--out_dir", tmp_path / "out"]
    code, line = fails(script.main, [*flags, "--n_labels", 30])
    assert code == 2
    assert "takes 3 of each class, and class 0 has 2 images" in line
    code, line = fails(script.main, [*flags, "--n_labels", 9])
    assert code == 2
    assert "--n_labels 9: each of the --n_classes 10 needs one at least" in line


def test_the_first_classes_get_what_is_left_over(tmp_path):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 5)
    write_idx_folder(tmp_path, np.zeros((50, 8, 8), np.uint8), labels, "train")
    args = parse("--img_size", 8, "--n_labels", 23, "--data_dir", tmp_path)
    _, chosen = script.choose_labeled(script.load(args, "train"), args)
    assert np.bincount(chosen.numpy()).tolist() == [3] * 3 + [2] * 7


def test_equal_runs_in_one_process_are_equal(tiny_runs, tmp_path):
    """The noise by which the first weights are scaled follows from --seed too."""
    tiny = tiny_runs("improved_gan")
    run("improved_gan", *tiny.flags, "--n_epochs", 1, "--out_dir", tmp_path / "again")
    assert_same_run(tiny.half, tmp_path / "again")


def test_errors_are_measured(tiny_runs, tmp_path):
    run("improved_gan", *tiny_runs("improved_gan").flags, "--n_epochs", 2, "--out_dir", tmp_path)
    with open(tmp_path / "validation.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["error"]) <= 1 for row in rows)
