"""pix2pixhd.py: the steps against PyTorch, codes by hand, the paper, phases, looks."""

import common
from common.data import instances, label_maps
from common.vgg import Perceptual

import csv

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import ROWS, differences, meta, run, saved_arrays

import pix2pixhd as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = [*ROWS["pix2pixhd"].flags, "--n_classes", 4]
NAMES = ("optimizer_global", "optimizer_coarse_D", "optimizer_enhancer", "optimizer_G")


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def variable(array):
    return jt.array(np.asarray(array, np.float32))


def integers(array):
    return jt.array(np.asarray(array, np.int32))


# ---- the step ----


def batch(size):
    """Labels, ids and images: squares of 4 x 4 pixels, whose ids are below 5."""
    rng = np.random.default_rng(0)
    n = size // 4
    labels = rng.integers(4, size=(3, n, n)).repeat(4, axis=1).repeat(4, axis=2)
    ids = rng.integers(5, size=(3, n, n)).repeat(4, axis=1).repeat(4, axis=2)
    return integers(labels), integers(ids), variable(rng.uniform(-1, 1, (3, 3, size, size)))


@pytest.mark.parametrize("phase", ["global", "enhancer", "both", "no encoder"])
def test_step_equals_pytorch(phase):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    flags = ["--feature_dim", 0, "--no_boundary"] if phase == "no encoder" else []
    generator, encoder, discriminator = script.build(parse(*TINY, *flags))
    # The initial weights are so small that the gradients of biases before a norm, which
    # are 0, would be rounding of nearly the size of the others.
    for network in (generator, encoder, discriminator):
        for parameter in [] if network is None else network.parameters():
            parameter.assign(8 * parameter)
    size = 32
    trained = generator.parameters_of_whole_images()
    of_D = discriminator.parameters()
    if phase == "global":
        generator = generator.coarse
        size = 16
        trained = generator.parameters() + encoder.parameters()
        of_D = discriminator.coarse_parameters()
    elif phase == "enhancer":
        trained = generator.enhancer.parameters()
    optimizer_G = nn.Adam(trained, lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(of_D, lr=0.01, betas=(0.5, 0.999))
    networks = (generator, encoder, discriminator)
    arguments = (networks, (optimizer_G, optimizer_D), *batch(size))
    options = {"lambda_FM": 10.0, "lambda_VGG": 10.0}

    twin = Twin("pix2pixhd", write_back=False)
    expected = twin.train_step(*arguments, **options)
    assert set(expected) == {"loss_D", "loss_G", "loss_FM"}
    assert_same_losses(script.train_step(*arguments, **options), expected)
    assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    assert_same_step(generator, twin.module(generator), optimizer_G)
    if phase == "global":
        assert_same_step(encoder, twin.module(encoder), optimizer_G)


def test_losses_by_hand():
    real = [[variable([1.0]), variable([2.0, 0.5])], [variable([3.0]), variable([0.0])]]
    fake = [[variable([2.0]), variable([-3.0, 0.0])], [variable([-1.0]), variable([0.5])]]
    # At the first size: real (1 + 0.25) / 2, fake 9 / 2; at the second: 1 and 0.25.
    loss_D = script.discriminator_loss(real, fake)
    assert np.isclose(loss_D.item(), (0.625 + 4.5 + 1 + 0.25) / 2)
    assert np.isclose(script.generator_loss(fake).item(), (16 + 1) / 2 + 0.25)
    assert np.isclose(script.feature_matching(real, fake).item(), (1 + 4) / 2)
    for other in ([[jt.zeros((2, 1)), jt.zeros(2)]], [[jt.zeros(2), jt.zeros((1, 2))]]):
        with pytest.raises(ValueError, match="different shapes"):
            script.discriminator_loss([[jt.zeros(2), jt.zeros((2, 1))]], other)


# ---- VGG19 ----

# The convolutions of torchvision's VGG19 up to relu5_1, with 2 outputs for its 64; and
# the layers whose features are compared, with their weights.
INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
WIDTHS = (2, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16)
SHARES = {0: 1 / 32, 5: 1 / 16, 10: 1 / 8, 19: 1 / 4, 28: 1}


@pytest.fixture
def vgg(tmp_path):
    """A file of random weights with torchvision's names."""
    rng = np.random.default_rng(0)
    weights = {}
    c = 3
    for index, width in zip(INDICES, WIDTHS):
        weight = rng.standard_normal((width, c, 3, 3)) * (2 / (9 * c)) ** 0.5
        weights[f"features.{index}.weight"] = weight.astype(np.float32)
        weights[f"features.{index}.bias"] = rng.standard_normal(width).astype(np.float32)
        c = width
    np.savez(tmp_path / "vgg.npz", **weights)
    return tmp_path / "vgg.npz"


def test_the_perceptual_loss_is_pytorchs(vgg):
    """That of the authors' models/networks.py, in PyTorch's functions."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    real, fake = np.random.default_rng(1).uniform(-1, 1, (2, 2, 3, 32, 32)).astype(np.float32)
    x = torch.tensor(fake)
    y = torch.tensor(real)
    expected = 0
    with np.load(vgg) as weights:
        for index in INDICES:
            if index in SHARES and index > 0:
                x = F.max_pool2d(x, 2)
                y = F.max_pool2d(y, 2)
            weight = torch.tensor(weights[f"features.{index}.weight"])
            bias = torch.tensor(weights[f"features.{index}.bias"])
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            y = F.relu(F.conv2d(y, weight, bias, padding=1))
            expected += SHARES.get(index, 0) * F.l1_loss(x, y).item()
    loss = Perceptual(vgg)(jt.array(real), jt.array(fake))
    assert np.isclose(loss.item(), expected, rtol=1e-4)


def test_a_run_with_vgg_logs_its_loss(tiny_runs, tmp_path, vgg):
    flags = [*tiny_runs("pix2pixhd").flags, "--n_epochs", 1, "--vgg", vgg]
    run("pix2pixhd", *flags, "--out_dir", tmp_path / "out")
    assert meta(tmp_path / "out")["losses"]["loss_VGG"] > 0


# ---- boundaries and codes ----


def test_boundaries_by_hand():
    ids = integers([[[0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 0, 0]]])
    expected = [[0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1]]
    assert script.boundaries(ids).numpy().tolist() == [[expected]]


def test_means_of_objects_and_their_gradient():
    """Each pixel gets the gradient of its object's mean, over the object's size."""
    features = variable([[[[1, 2], [3, 6]]], [[[5, 7], [9, 11]]]])
    ids = integers([[[0, 0], [0, 3]], [[3, 3], [1, 1]]])
    codes = script.average(features, ids)
    assert codes.shape == [2, script.MOST_INSTANCES, 1]
    assert codes[0, :4, 0].numpy().tolist() == [2, 0, 0, 6]
    assert codes[1, :4, 0].numpy().tolist() == [0, 10, 0, 6]
    filled = script.fill(codes, ids)
    assert filled.numpy().tolist() == [[[[2, 2], [2, 6]]], [[[6, 6], [10, 10]]]]
    weights = variable([[[[1, 0], [2, 5]]], [[[1, 2], [3, 4]]]])
    gradient = jt.grad((filled * weights).sum(), features).numpy()
    assert gradient.tolist() == [[[[1, 1], [1, 5]]], [[[1.5, 1.5], [3.5, 3.5]]]]


def test_inputs_by_hand():
    """Channels of the classes, of the boundary, and of the codes."""
    inputs = script.Inputs(n_classes=2, has_boundary=True, feature_dim=1)
    codes = np.zeros((1, script.MOST_INSTANCES, 1))
    codes[0, 7] = 0.5
    x = inputs(integers([[[0, 1]]]), integers([[[4, 7]]]), variable(codes))
    assert inputs.n_channels == 4
    assert x.numpy().tolist() == [[[[1, 0]], [[0, 1]], [[1, 1]], [[0, 0.5]]]]
    plain = script.Inputs(n_classes=2, has_boundary=False, feature_dim=0)
    assert plain(integers([[[0, 1]]]), integers([[[4, 7]]])).shape == [1, 2, 1, 2]


def test_the_encoder_halves_large_images():
    """The same codes, from images of both sizes."""
    _, encoder, _ = script.build(parse(*TINY))
    labels, ids, images = batch(32)
    _, half_ids, half_images = script.at_half_size(labels, ids, images)
    assert half_images.shape == [3, 3, 16, 16]
    whole = encoder(images, ids).numpy()
    assert np.array_equal(whole, encoder(half_images, half_ids).numpy())
    assert whole[:, :5].any() and not whole[:, 5:].any()


def test_half_size_by_hand():
    maps = integers(np.arange(8).reshape(1, 2, 4))
    images = variable([[[[0, 1, 2, 3], [4, 5, 6, 7]]]])
    labels, ids, means = script.at_half_size(maps, maps + 10, images)
    assert labels.numpy().tolist() == [[[0, 2]]]
    assert ids.numpy().tolist() == [[[10, 12]]]
    assert means.numpy().tolist() == [[[[2.5, 4.5]]]]


def test_each_discriminator_has_its_size():
    """Half-size images are seen by the first two, which see the whole ones halved."""
    _, _, discriminator = script.build(parse(*TINY))
    for size, n in ((32, 3), (16, 2)):
        outputs = discriminator(*batch(size))
        assert len(outputs) == n
        assert [of_size[0].shape[2] for of_size in outputs] == [5, 9, 17][:n]


# ---- the paper ----


def convolution(c_in, c_out, side):
    return (c_in * side**2 + 1) * c_out


def test_counts_of_the_paper():
    """By hand, layer by layer; 35 classes of Cityscapes, a boundary, codes of 3."""
    generator, encoder, discriminator = script.build(parse("--paper", "--n_classes", 35))
    x = 35 + 1 + 3
    halvings = sum(convolution(64 * 2**i, 128 * 2**i, 3) for i in range(4))
    doublings = sum(convolution(128 * 2**i, 64 * 2**i, 3) for i in range(4))
    blocks = 9 * 2 * convolution(1024, 1024, 3)
    G1 = convolution(x, 64, 7) + halvings + blocks + doublings + convolution(64, 3, 7)
    assert n_parameters(generator.coarse) == G1
    assert round(G1 / 1e6, 1) == 182.6
    G2 = convolution(x, 32, 7) + convolution(32, 64, 3) + 3 * 2 * convolution(64, 64, 3)
    G2 += convolution(64, 32, 3) + convolution(32, 3, 7)
    assert n_parameters(generator.enhancer) == G2
    E = convolution(3, 16, 7) + convolution(16, 3, 7)
    E += sum(convolution(16 * 2**i, 32 * 2**i, 3) for i in range(4))
    E += sum(convolution(32 * 2**i, 16 * 2**i, 3) for i in range(4))
    assert n_parameters(encoder) == E
    D = convolution(35 + 1 + 3, 64, 4) + convolution(64, 128, 4) + convolution(128, 256, 4)
    D += convolution(256, 512, 4) + convolution(512, 1, 4)
    assert n_parameters(discriminator) == 3 * D


def test_settings_of_the_authors_code():
    """scripts/train_512p_feat.sh, then train_1024p_feat_24G.sh; options/*.py."""
    args = parse("--paper")
    assert args.shape == (1024, 2048)
    assert (args.global_epochs, args.n_epochs - args.global_epochs) == (200, 100)
    assert (args.lr, args.b1, args.b2, args.batch_size) == (0.0002, 0.5, 0.999, 1)
    assert (args.lambda_FM, args.feature_dim, args.n_clusters) == (10, 3, 10)


@pytest.mark.parametrize(
    ("first_epoch", "epoch", "share"),
    [
        *((0, 1, 1), (0, 100, 1), (0, 101, 100 / 101), (0, 200, 1 / 101)),
        *((200, 1, 1), (210, 40, 1), (210, 41, 50 / 51), (210, 90, 1 / 51)),
    ],
)
def test_the_rate_falls_in_both_halves_of_the_run(first_epoch, epoch, share):
    """niter and niter_decay of the authors' code: 100 + 100 and 50 + 50 epochs."""
    args = parse("--paper")
    rate = script.rate(args, epoch, first_epoch, is_half=first_epoch == 0)
    assert rate == pytest.approx(0.0002 * share)


# ---- three phases ----


@pytest.fixture(scope="module")
def three_epochs(tiny_runs, tmp_path_factory):
    """The folder of a run with an epoch of each phase, which keeps each checkpoint."""
    folder = tmp_path_factory.mktemp("three_epochs")
    phases = ["--global_epochs", 1, "--fixed_epochs", 1, "--n_epochs", 3, "--keep", 3]
    run("pix2pixhd", *tiny_runs("pix2pixhd").flags, *phases, "--out_dir", folder)
    return folder


def trained_parts(one, two):
    """The parts, and the halves of G, that differ between two checkpoints."""
    parts = set()
    for name in differences(one, two):
        part, rest = name.split("/", 1)
        parts.add(f"{part}.{rest.split('.')[0]}" if part == "generator" else part)
    return parts


def test_a_phase_trains_its_networks_alone(three_epochs):
    first, second, third = (three_epochs / f"checkpoint_step_{step:07d}.npz" for step in (4, 8, 12))
    of_D = {"discriminator", "optimizer_D"}
    # The first one was saved just before the looks were found.
    expected = {"generator.enhancer", "optimizer_enhancer", "looks", *of_D}
    assert trained_parts(first, second) == expected
    joint = {"generator.coarse", "generator.enhancer", "optimizer_G", *of_D}
    assert trained_parts(second, third) == joint
    with np.load(first) as file:
        assert not file["optimizer_enhancer/m/0.0"].any()
        assert file["optimizer_global/m/0.0"].any()
        assert file["optimizer_coarse_D/m/0.0"].any()


@pytest.mark.parametrize("step", [4, 8])
def test_a_run_resumed_after_a_phase_is_the_same(three_epochs, tmp_path, step):
    run("pix2pixhd", "--resume", three_epochs / f"checkpoint_step_{step:07d}.npz", *to(tmp_path))
    assert differences(three_epochs, tmp_path) == []


def to(folder):
    return ["--out_dir", folder]


@pytest.mark.parametrize("n_images", [4, 12])
def test_a_run_resumed_within_a_phase_is_the_same(three_epochs, tiny_runs, tmp_path, n_images):
    """Stopped in the middle of the first and of the second epoch."""
    flags = [*tiny_runs("pix2pixhd").flags, "--global_epochs", 1, "--fixed_epochs", 1]
    flags += ["--n_epochs", 3]
    run("pix2pixhd", *flags, "--n_images", n_images, *to(tmp_path / "part"))
    assert meta(tmp_path / "part")["n_images"] == n_images
    run("pix2pixhd", "--resume", tmp_path / "part", "--n_images", 24, *to(tmp_path / "rest"))
    assert differences(three_epochs, tmp_path / "rest") == []


def test_sizes_and_rates_of_the_steps(tiny_runs, tmp_path, monkeypatch):
    seen = []
    real_step = script.train_step

    def step(networks, optimizers, labels, ids, images, **options):
        rates = {optimizer.lr for optimizer in optimizers}
        seen.append((type(networks[0]).__name__, images.shape[2], labels.shape[2], rates))
        return real_step(networks, optimizers, labels, ids, images, **options)

    monkeypatch.setattr(script, "train_step", step)
    flags = ["--n_epochs", 4, "--global_epochs", 2, "--fixed_epochs", 1, "--lr", 0.25]
    flags += ["--decay_epoch", 3]
    run("pix2pixhd", *tiny_runs("pix2pixhd").flags, *flags, "--out_dir", tmp_path)
    expected = [("GlobalGenerator", 16, 16, {0.25})] * 4
    expected += [("GlobalGenerator", 16, 16, {0.125})] * 4
    expected += [("Generator", 32, 32, {0.25})] * 4
    expected += [("Generator", 32, 32, {0.125})] * 4
    assert seen == expected
    with open(tmp_path / "losses.csv") as file:
        assert len(list(csv.DictReader(file))) == 16


# ---- looks ----


class TwoScenes:
    """Maps with a large and a small object of class 0, and a small one of class 2."""

    def __len__(self):
        return 2

    def batch(self, indices):
        ids = np.zeros((1, 16, 16), np.int32)
        ids[0, 0, :3] = 1
        ids[0, 1, :4] = 2
        labels = np.where(ids == 2, 2, 0)
        images = np.stack([np.full((3, 16, 16), 0.25 + 0.5 * k, np.float32) for k in indices])
        n = len(images)
        images[:, :, 0, :3] = -1
        images[:, :, 1, :4] = 1
        return labels.repeat(n, axis=0), ids.repeat(n, axis=0), images


def colours(images, ids):
    """An encoder whose codes are mean colours."""
    return script.average(images, ids)


def test_looks_of_large_objects():
    looks = script.Looks(n_classes=4, n_clusters=3, feature_dim=3)
    assert not looks.are_known()
    looks.find(colours, TwoScenes(), chunk=1)
    assert looks.counts.tolist() == [2, 0, 1, 0]
    assert sorted(looks.centres[0, :2, 0].tolist()) == [0.25, 0.75]
    assert looks.centres[2, 0].tolist() == [1, 1, 1]
    restored = script.Looks(4, 3, 3)
    restored.load_state_dict(looks.state_dict())
    assert restored.are_known()
    assert np.array_equal(restored.centres, looks.centres)
    with pytest.raises(ValueError, match="more looks than"):
        restored.load_state_dict({**looks.state_dict(), "counts": np.int32([4, 0, 0, 0])})


def test_codes_are_drawn_among_the_looks_of_a_class():
    looks = script.Looks(n_classes=3, n_clusters=3, feature_dim=1)
    looks.centres[:, :, 0] = [[1, 2, 9], [3, 9, 9], [9, 9, 9]]
    looks.counts[:] = [2, 1, 0]
    labels = np.int32([[[0, 0, 1, 2]]]).repeat(40, axis=0)
    ids = np.int32([[[5, 5, 6, 7]]]).repeat(40, axis=0)
    codes = looks.draw(labels, ids, np.random.default_rng(0))[..., 0]
    assert set(codes[:, 5]) == {1, 2}
    assert set(codes[:, 6]) == {3}
    assert not codes[:, 7].any()  # a class that no training image has shown


def test_looks_are_in_the_checkpoint_of_a_finished_run(tiny_runs, tmp_path):
    half = tiny_runs("pix2pixhd").half
    arrays = saved_arrays(half)
    assert arrays["looks/centres"].shape == (3, 3, 2)
    assert (arrays["looks/counts"] > 0).all()
    run("pix2pixhd", "--resume", half, "--sample_only", "--out_dir", tmp_path / "0")
    picture = np.asarray(Image.open(tmp_path / "0/result.png"))
    assert picture.shape[:2] == (5 * 34 + 2, 3 * 34 + 2)
    assert np.array_equal(picture, np.asarray(Image.open(half / "result.png")))
    # Another seed draws other looks, and changes nothing else.
    run("pix2pixhd", "--resume", half, "--sample_only", "--seed", 1, "--out_dir", tmp_path / "1")
    other = np.asarray(Image.open(tmp_path / "1/result.png"))
    assert np.array_equal(picture[: 3 * 34], other[: 3 * 34])
    assert not np.array_equal(picture[3 * 34 :], other[3 * 34 :])


def test_a_stopped_run_finds_its_looks_when_it_draws(tiny_runs, tmp_path, monkeypatch):
    """The numbered checkpoint of an epoch has none yet."""
    flags = [*tiny_runs("pix2pixhd").flags, "--n_epochs", 1, "--keep", 1]
    run("pix2pixhd", *flags, "--out_dir", tmp_path)
    early = tmp_path / "checkpoint_step_0000004.npz"
    assert not saved_arrays(early)["looks/counts"].any()
    for name, path in (("a", early), ("b", tmp_path)):
        run("pix2pixhd", "--resume", path, "--sample_only", "--out_dir", tmp_path / name)
    results = [(tmp_path / name / "result.png").read_bytes() for name in "ab"]
    assert results[0] == results[1]


def test_g1_paints_until_the_enhancer_is_trained(tiny_runs, tmp_path):
    """Its pixels are doubled."""
    flags = [*tiny_runs("pix2pixhd").flags, "--global_epochs", 1, "--n_epochs", 1]
    run("pix2pixhd", *flags, "--out_dir", tmp_path)
    resume = ["--resume", tmp_path, "--n_epochs", 2, "--out_dir", tmp_path / "whole"]
    run("pix2pixhd", *resume)
    for folder, is_doubled in ((tmp_path, True), (tmp_path / "whole", False)):
        picture = np.asarray(Image.open(folder / "result.png"))
        tile = picture[2 + 2 * 34 :, 2:][:32, :32]
        small = tile[::2, ::2]
        doubled = small.repeat(2, axis=0).repeat(2, axis=1)
        assert small.std() > 0
        assert np.array_equal(tile, doubled) == is_doubled


def test_rows_of_pictures(tiny_runs, tmp_path, monkeypatch):
    """Maps with black boundaries, images, outputs with own codes and random looks."""
    half = tiny_runs("pix2pixhd").half
    args = parse("--resume", half)
    labels, ids, expected = instances.load(args, "test").batch(range(3))
    rows = []
    monkeypatch.setattr(common.Run, "save_rows", lambda run, *given, to: rows.extend(given))
    run("pix2pixhd", "--resume", half, "--sample_only", "--out_dir", tmp_path)
    maps, images, own, *random = rows
    edges = script.boundaries(integers(ids)).numpy() > 0
    coloured = label_maps.colours_of(labels, 3)
    assert np.array_equal(maps, np.where(edges, -1, coloured))
    assert np.array_equal(images, expected)
    assert own.shape == images.shape and len(random) == 2
    assert not np.allclose(random[0], random[1], atol=1e-6)


# ---- maps of a folder ----


def test_maps_of_a_folder_are_painted(tiny_runs, tmp_path):
    """With random looks, which depend on the seed; no image is needed."""
    tiny = tiny_runs("pix2pixhd")
    maps = ["--maps", tiny.data / "test_label", "--instance_maps", tiny.data / "test_inst"]
    flags = ["--resume", tiny.half, "--sample_only", "--data_dir", tmp_path / "gone", *maps]
    pictures = []
    for k, seed in enumerate((0, 0, 1)):
        run("pix2pixhd", *flags, "--seed", seed, "--out_dir", tmp_path / str(k))
        assert len(list((tmp_path / f"{k}/painted").iterdir())) == 3
        pictures.append(np.asarray(Image.open(tmp_path / f"{k}/painted/1.png")))
    assert pictures[0].shape == (32, 32, 3)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_folders_of_maps_that_do_not_fit(tiny_runs, tmp_path, fails):
    tiny = tiny_runs("pix2pixhd")
    resume = ["--resume", tiny.half, "--sample_only", "--out_dir", tmp_path / "out"]
    labels = ["--maps", tiny.data / "test_label"]
    cases = [
        ([*labels], "the networks read instance maps too"),
        (["--instance_maps", tiny.data / "test_inst"], "--instance_maps belongs to --maps"),
        ([*labels, "--instance_maps", tiny.data / "train_inst"], "5 files have no partner"),
        ([*labels, "--instance_maps", tmp_path / "gone"], "gone is not a folder"),
        (
            ["--maps", tiny.data / "test_inst", "--instance_maps", tiny.data / "test_inst"],
            "label 4",
        ),
    ]
    for flags, message in cases:
        code, line = fails(script.main, [*resume, *flags])
        assert code == 2
        assert message in line
    code, line = fails(script.main, [*labels])
    assert code == 2
    assert "--maps needs --sample_only" in line


# ---- without instance maps, without an encoder ----


def test_without_instance_maps(tiny_runs, tmp_path, capsys, fails):
    """One line says so; the networks have no boundary, and stay so when resumed."""
    tiny = tiny_runs("pix2pixhd")
    data = tmp_path / "data"
    data.mkdir()
    for folder in tiny.data.iterdir():
        if "inst" not in folder.name:
            (data / folder.name).symlink_to(folder)
    flags = [*tiny.flags, "--n_epochs", 1, "--data_dir", data]
    run("pix2pixhd", *flags, "--out_dir", tmp_path / "out")
    said = capsys.readouterr().out
    assert said.count("There are no instance maps: no boundaries") == 1
    assert meta(tmp_path / "out")["args"]["no_boundary"] is True
    run("pix2pixhd", "--resume", tmp_path / "out", "--n_epochs", 2)
    code, line = fails(script.main, ["--resume", tiny.half, "--n_epochs", 2, "--data_dir", data])
    assert code == 2
    assert "was trained with instance maps" in line


def test_without_an_encoder(tiny_runs, tmp_path):
    flags = [*tiny_runs("pix2pixhd").flags, "--feature_dim", 0, "--global_epochs", 1]
    run("pix2pixhd", *flags, "--out_dir", tmp_path)
    assert "encoder" not in {name.split("/")[0] for name in saved_arrays(tmp_path)}
    run("pix2pixhd", "--resume", tmp_path, "--sample_only", "--out_dir", tmp_path / "samples")
    picture = np.asarray(Image.open(tmp_path / "samples/result.png"))
    assert picture.shape[:2] == (3 * 34 + 2, 3 * 34 + 2)


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 34], "--img_size 34: it must be a multiple of 4, such as 32 or 36"),
        (["--img_size", 4], "--img_size 4: it must be a multiple of 4, such as 8 or 12"),
        (["--img_width", 40, "--n_down", 3], "--img_width 40: it must be a multiple of 16"),
        (["--n_down", 0], "--n_down"),
        (["--feature_dim", -1], "--feature_dim"),
        (["--global_epochs", -1], "--global_epochs: must be a whole number at least 0"),
        (["--vgg", "vgg19.pth"], "vgg19.pth is not an .npz file"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
