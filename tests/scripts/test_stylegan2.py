"""stylegan2.py: published sizes, weights for each image, steps against PyTorch."""

import common

import jittor as jt
import numpy as np
import pytest

import stylegan2 as script
from jittor_fast import nn
from tools.describe import n_parameters

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
twins = pytest.importorskip("tools.twins")
F = torch.nn.functional

TINY = [
    *("--img_size", "16", "--width", "4", "--max_width", "6", "--latent_dim", "5"),
    *("--channels", "3", "--batch_size", "8"),
]
N = 8


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def networks():
    """Small networks; the noise has an influence, as it has after some training."""
    generator, discriminator = script.build(script.parse_args(TINY))
    for conv in generator.synthesis.convs:
        conv.noise_strength.assign(jt.array(np.float32([0.3])))
    return generator, discriminator


def latents(generator, cutoff=3, seed=1):
    """As `script.draw_latents` returns them."""
    z = normal(2, N, 5, seed=seed)
    noise = normal(N, generator.synthesis.n_noise, seed=seed + 1)
    return jt.array(z[0]), jt.array(z[1]), cutoff, jt.array(noise)


def all_changes(seed=3):
    """As `script.draw_changes` returns them, of all augmentations."""
    rng = np.random.default_rng(seed)
    return {
        "brightness": jt.array(np.float32(rng.uniform(-0.5, 0.5, (N, 1, 1, 1)))),
        "saturation": jt.array(np.float32(rng.uniform(0, 2, (N, 1, 1, 1)))),
        "contrast": jt.array(np.float32(rng.uniform(0.5, 1.5, (N, 1, 1, 1)))),
        "down": jt.array(np.int32(rng.integers(-2, 3, N))),
        "right": jt.array(np.int32(rng.integers(-2, 3, N))),
        "row": jt.array(np.int32(rng.integers(0, 17, N))),
        "column": jt.array(np.int32(rng.integers(0, 17, N))),
    }


# ---- the published setting ----


def test_parameters_of_the_authors():
    """What stylegan2-ada-pytorch prints for 1024 x 1024 and two mapping layers.

    Its table lists 262,656 parameters for a mapping layer, of which config F has eight.
    """
    args = script.parse_args(["--paper", "--mapping_layers", "2"])
    generator, discriminator = script.build(args)
    assert n_parameters(generator) == 28_794_124
    assert n_parameters(discriminator) == 29_012_513
    generator, _ = script.build(script.parse_args(["--paper"]))
    assert n_parameters(generator) == 28_794_124 + 6 * 262_656
    assert generator.synthesis.n_styles == 18  # w in the paper is fed to 18 layers


def test_layers_of_the_authors():
    """Single lines of that table: modulated layers, and the discriminator's."""
    generator, discriminator = script.build(script.parse_args(["--paper"]))
    convs = [n_parameters(layer) for layer in generator.synthesis.convs]
    assert convs[:2] == [2_622_465, 2_622_465]
    assert convs[-4:] == [139_457, 69_761, 51_297, 25_665]
    assert n_parameters(generator.synthesis.to_images[0]) == 264_195
    layers = discriminator.layers
    assert n_parameters(layers[0]) == 128
    assert n_parameters(layers[2]) == 2_048 + 9_248 + 18_496
    assert [n_parameters(layers[i]) for i in (-6, -3, -1)] == [2_364_416, 4_194_816, 513]


def test_the_average_has_a_half_life_of_10_000_images():
    args = script.parse_args(["--paper"])
    assert np.isclose(args.ema_decay ** (10_000 / args.batch_size), 0.5)


def test_lazy_penalties_change_adams_settings():
    """c = k / (k + 1), the rate times c, and beta to the power of c."""
    args = script.parse_args(["--lr", "0.002", "--b1", "0.5"])
    network = nn.Linear(2, 2)
    optimizer = script.lazy_adam(network, args, 16)
    assert np.isclose(optimizer.lr, 0.002 * 16 / 17)
    assert np.allclose(optimizer.betas, (0.5 ** (16 / 17), 0.99 ** (16 / 17)))
    optimizer = script.lazy_adam(network, args, None)
    assert (optimizer.lr, optimizer.betas) == (0.002, (0.5, 0.99))


class FakeRun:
    """What a step takes of a run."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.step = 0

    def normal(self, *shape):
        return jt.array(self.rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, *shape):
        return jt.array(self.rng.random(shape, dtype=np.float32))

    def integers(self, low, high, n):
        return jt.array(self.rng.integers(low, high, size=n, dtype=np.int32))


def test_each_penalty_has_its_steps(networks, monkeypatch):
    """With 2 and 3: R_1 in steps 1, 3, 5 and 7, R_path in 1, 4 and 7."""
    args = script.parse_args([*TINY, "--r1_every", "2", "--path_every", "3", "--r1_gamma", "5"])
    run = FakeRun()
    found = {"r1": [], "path": []}

    def step(name):
        def record(*args, weight):
            found[name].append((run.step, weight))
            return {name: 0}

        return record

    monkeypatch.setattr(script, "train_step", lambda *args: {"loss_D": 0})
    monkeypatch.setattr(script, "r1_step", step("r1"))
    monkeypatch.setattr(script, "path_step", step("path"))
    for args.path_weight in (2.0, 0.0):  # with and without R_path
        for run.step in range(1, 9):
            losses = script.update(run, args, networks, (None, None), jt.zeros((N, 3, 16, 16)))
            assert ("r1" in losses) == (run.step % 2 == 1)
    assert found["r1"][:4] == [(1, 5.0), (3, 5.0), (5, 5.0), (7, 5.0)]  # 2 * 5 / 2
    assert found["path"] == [(1, 6.0), (4, 6.0), (7, 6.0)]


def test_mixing_is_a_share_of_the_batches(networks):
    """The other ones have the first style in all layers: a cutoff of 6."""
    synthesis = networks[0].synthesis
    args = script.parse_args([*TINY, "--mixing", "0.5"])
    run = FakeRun()
    cutoffs = [script.draw_latents(run, args, synthesis)[2] for _ in range(200)]
    assert set(cutoffs) == {1, 2, 3, 4, 5, 6}
    assert 70 < cutoffs.count(6) < 130


# ---- modulated convolutions ----


def modulated(layer, x, style, up):
    """The same with weights of its own for each image, one after the other."""
    images = []
    for image, s in zip(x, style):
        weight = torch.tensor(layer.weight.numpy()) * torch.tensor(s)[None, :, None, None]
        if layer.demodulates:
            norms = (weight.flatten(1) ** 2).sum(1) + 1e-8
            weight = weight / norms.sqrt()[:, None, None, None]
        if up:
            y = F.conv_transpose2d(torch.tensor(image)[None], weight.transpose(0, 1), stride=2)
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
            kernel = torch.outer(taps, taps).expand(len(weight), 1, 4, 4)
            y = F.conv2d(y, kernel, padding=1, groups=len(weight))
        else:
            y = F.conv2d(torch.tensor(image)[None], weight, padding=layer.size // 2)
        images.append(y[0])
    return torch.stack(images)


@pytest.mark.parametrize("up", [False, True])
def test_a_convolution_with_weights_for_each_image(up):
    layer = script.ModulatedConv(3, 5, 3, up=up)
    x = normal(4, 3, 6, 6)
    style = 1 + normal(4, 3, seed=1)
    found = layer(jt.array(x), jt.array(style)).numpy() / np.sqrt(2)
    expected = modulated(layer, x, style, up).numpy()
    assert found.shape == ((4, 5, 12, 12) if up else (4, 5, 6, 6))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_last_convolutions_are_not_demodulated():
    layer = script.ModulatedConv(3, 2, 1, demodulates=False)
    x = normal(4, 3, 6, 6)
    style = normal(4, 3, seed=1)
    expected = modulated(layer, x, style / np.float32(np.sqrt(3)), False).numpy()
    assert np.allclose(layer(jt.array(x), jt.array(style)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_demodulated_outputs_keep_the_variance():
    """Whatever the style: that is what demodulation is for."""
    layer = script.ModulatedConv(32, 64, 3)
    x = normal(2, 32, 16, 16)
    style = np.float32([np.full(32, 0.01), np.full(32, 100)])
    variances = layer(jt.array(x), jt.array(style)).numpy()[:, :, 1:-1, 1:-1].var((1, 2, 3))
    assert np.allclose(variances, 2, rtol=0.1)  # times the square of the gain


# ---- the other layers ----


def test_weights_are_scaled_when_they_are_used():
    layer = script.ScaledLinear(16, 3, gain=2.0, rate=0.01)
    weight = layer.weight.numpy()
    assert 70 < weight.std() < 130  # 1 / rate
    layer.bias.assign(jt.array(np.float32([100, 0, -100])))
    x = normal(4, 16)
    expected = x @ weight.T * 2 * 0.01 / 4 + np.float32([2, 0, -2])
    assert np.allclose(layer(jt.array(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_a_smaller_image_is_filtered_first(size):
    layer = script.ScaledConv(2, 3, size, down=True, gain=1.5)
    x = normal(2, 2, 8, 8)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps).expand(2, 1, 4, 4)
    weight = torch.tensor(layer.weight.numpy()) * 1.5 / np.sqrt(2 * size**2)
    if size == 1:
        smaller = F.conv2d(torch.tensor(x), kernel, padding=1, stride=2, groups=2)
        expected = F.conv2d(smaller, weight)
    else:
        filtered = F.conv2d(torch.tensor(x), kernel, padding=2, groups=2)
        expected = F.conv2d(filtered, weight, stride=2)
    found = layer(jt.array(x)).numpy()
    assert found.shape == (2, 3, 4, 4)
    assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "group_size", "size"), [(8, 4, 4), (6, 4, 2), (1, 4, 1)])
def test_minibatch_deviation(n, group_size, size):
    """The images of a group lie n / size apart, as in the authors' code."""
    x = normal(n, 3, 4, 4)
    found = script.MinibatchDeviation(group_size)(jt.array(x)).numpy()
    assert np.array_equal(found[:, :3], x)
    for i in range(n):
        group = x[i % (n // size) :: n // size]
        assert len(group) == size
        expected = np.sqrt(group.var(0) + 1e-8).mean()
        assert np.allclose(found[i, 3], expected, rtol=1e-4)


# ---- styles ----


def test_mapping_takes_the_direction_of_z_alone():
    mapping = script.Mapping(5, 3)
    mapping.eval()
    z = normal(4, 5)
    assert np.allclose(mapping(jt.array(z)).numpy(), mapping(jt.array(7 * z)).numpy(), atol=1e-4)


def test_the_mean_of_w_moves_in_training_alone():
    mapping = script.Mapping(5, 2)
    z = jt.array(normal(4, 5))
    mapping.eval()
    w = mapping(z).numpy()
    assert not mapping.running_mean.numpy().any()
    mapping.train()
    mapping(z).sync()
    assert np.allclose(mapping.running_mean.numpy(), 0.005 * w.mean(0), rtol=1e-4)
    mapping(z).sync()
    assert np.allclose(mapping.running_mean.numpy(), (1 - 0.995**2) * w.mean(0), rtol=1e-4)


def test_layers_before_the_cutoff_have_the_first_style(networks):
    generator, _ = networks
    generator.eval()
    z, other_z, _, _ = latents(generator)
    first = generator.mapping(z).numpy()
    second = generator.mapping(other_z).numpy()
    for cutoff in (1, 3, 6):
        ws = generator.mixed(z, other_z, cutoff).numpy()
        assert ws.shape == (N, 6, 5)
        for i in range(6):
            assert np.allclose(ws[:, i], first if i < cutoff else second, atol=1e-5)


def test_truncation_moves_w_to_its_mean(networks):
    generator, _ = networks
    generator.eval()
    mean = normal(5, seed=4)
    generator.mapping.running_mean.assign(jt.array(mean))
    z = normal(2, 5)
    w = generator.mapping(jt.array(z)).numpy()
    psi = np.float32([0.0, 0.7])
    found = common.predict(generator, z, psi)
    moved = mean + psi[:, None] * (w - mean)
    expected = generator.synthesis(generator.repeated(jt.array(moved))).numpy()
    assert np.allclose(found, expected, atol=1e-4)
    assert np.allclose(
        common.predict(generator, z, np.ones(2, np.float32)), generator(z), atol=1e-4
    )


def test_images_without_noise_of_their_own_share_it(networks):
    """The same z gives the same image; other noise gives another one."""
    generator, _ = networks
    generator.eval()
    z = np.repeat(normal(1, 5), 2, axis=0)
    same = common.predict(generator, z)
    assert np.array_equal(same[0], same[1])
    noise = normal(2, generator.synthesis.n_noise)
    other = common.predict(generator, z, np.ones(2, np.float32), noise)
    assert not np.allclose(other[0], other[1], atol=1e-3)
    assert generator.synthesis.n_noise == 4**2 + 2 * 8**2 + 2 * 16**2


# ---- losses ----


def test_the_losses_by_hand():
    """log 2 for logits of 0; for D both terms."""
    zeros = jt.zeros(3)
    assert script.discriminator_loss(zeros, zeros).item() == pytest.approx(2 * np.log(2))
    assert script.generator_loss(zeros).item() == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros((2, 1)), jt.zeros(2))


class Plane(nn.Module):
    """images (B, 1, 2, 2)  ->  logits (B,): a sum with weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = jt.array(np.float32(weights))

    def execute(self, images):
        return (images * self.weights).sum((1, 2, 3))


def test_r1_of_a_plane():
    """Its slope is the weights' length; a step of SGD shrinks them by 2 lr weight."""
    plane = Plane([[3, 0], [0, -4]])
    images = jt.array(normal(5, 1, 2, 2))
    losses = script.r1_step(plane, nn.SGD(plane.parameters(), lr=0.1), images, {}, weight=2.0)
    assert np.isclose(losses["r1"].item(), 25)
    assert np.allclose(plane.weights.numpy(), 0.6 * np.float32([[3, 0], [0, -4]]), rtol=1e-5)


def test_path_lengths_by_hand():
    """Of 3 and 4 in two layers: sqrt((9 + 16) / 2)."""
    gradient = np.zeros((1, 2, 5), np.float32)
    gradient[0, 0, 1] = 3
    gradient[0, 1, 4] = -4
    assert np.isclose(script.path_lengths(jt.array(gradient)).item(), np.sqrt(12.5))


# ---- against PyTorch ----


def adams(networks):
    return [nn.Adam(network.parameters(), lr=0.01, betas=(0.0, 0.99)) for network in networks]


@pytest.mark.parametrize("augmented", [False, True])
def test_step_against_pytorch(networks, augmented):
    generator, _ = networks
    optimizers = adams(networks)
    changes = [all_changes(seed) if augmented else {} for seed in range(3)]
    arguments = [
        networks,
        tuple(optimizers),
        jt.array(normal(N, 3, 16, 16, seed=5)),
        latents(generator),
        latents(generator, cutoff=2, seed=7),
        changes,
    ]
    twin = twins.Twin("stylegan2", write_back=False)
    expected = twin.train_step(*arguments)
    found = script.train_step(*arguments)
    twins.assert_same_losses(found, expected)
    for network, optimizer in zip(networks, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


@pytest.mark.parametrize("augmented", [False, True])
def test_r1_against_pytorch(networks, augmented):
    """All weights move by the second derivative, and no bias behind the last group."""
    _, discriminator = networks
    (optimizer,) = adams([discriminator])
    before = {key: value.numpy().copy() for key, value in discriminator.state_dict().items()}
    images = jt.array(normal(N, 3, 16, 16, seed=5))
    arguments = (discriminator, optimizer, images, all_changes() if augmented else {})
    twin = twins.Twin("stylegan2", write_back=False)
    expected = twin.step("r1_step", *arguments, weight=3.0)
    found = script.r1_step(*arguments, weight=3.0)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer)
    after = discriminator.state_dict()
    still = {key for key in before if np.array_equal(after[key].numpy(), before[key])}
    assert not any(key.endswith("weight") for key in still)
    assert {key for key in still if key.startswith("layers.10")} == {"layers.10.bias"}


def test_path_step_against_pytorch(networks):
    generator, _ = networks
    (optimizer,) = adams([generator])
    y = jt.array(normal(N, 3, 16, 16, seed=6))
    arguments = (generator, optimizer, latents(generator), y)
    twin = twins.Twin("stylegan2", write_back=False)
    expected = twin.step("path_step", *arguments, weight=4.0)
    found = script.path_step(*arguments, weight=4.0)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(generator, twin.module(generator), optimizer)
    length = found["path_length"].item()
    assert np.isclose(generator.path_running_mean.item(), 0.01 * length, rtol=1e-4)


# ---- differentiable augmentation ----


def test_no_changes_leave_the_images():
    images = jt.array(normal(2, 3, 16, 16))
    assert script.augment(images, {}) is images


def test_a_shift_by_hand():
    """Down by 2 and to the left by 1; what comes in is 0."""
    images = normal(1, 3, 16, 16)
    changes = {"down": jt.array(np.int32([2])), "right": jt.array(np.int32([-1]))}
    found = script.augment(jt.array(images), changes).numpy()
    expected = np.zeros_like(images)
    expected[:, :, 2:, :-1] = images[:, :, :-2, 1:]
    assert np.allclose(found, expected)


def test_a_cut_by_hand():
    """A square of 8 pixels around (2, 16), of which a quarter lies inside."""
    images = normal(1, 1, 16, 16)
    changes = {"row": jt.array(np.int32([2])), "column": jt.array(np.int32([16]))}
    found = script.augment(jt.array(images), changes).numpy()
    expected = images.copy()
    expected[:, :, 0:6, 12:16] = 0
    assert np.array_equal(found, expected)


def test_colours_by_hand():
    """(1, 0, 0) brighter by 0.5, twice as saturated, with half of the contrast."""
    images = np.zeros((1, 3, 16, 16), np.float32)
    images[:, 0] = 1
    changes = {
        "brightness": jt.array(np.full((1, 1, 1, 1), 0.5, np.float32)),
        "saturation": jt.array(np.full((1, 1, 1, 1), 2.0, np.float32)),
        "contrast": jt.array(np.full((1, 1, 1, 1), 0.5, np.float32)),
    }
    found = script.augment(jt.array(images), changes).numpy()[0, :, 0, 0]
    # Brighter: 1.5, 0.5, 0.5 with a mean of 5/6; more saturated: 13/6, 1/6, 1/6.
    assert np.allclose(found, 5 / 6 + 0.5 * (np.array([13, 1, 1]) / 6 - 5 / 6), atol=1e-5)


def test_random_changes_lie_in_their_ranges():
    args = script.parse_args([*TINY, "--augment", "color,translation,cutout"])
    args.batch_size = 4000
    with_all = script.draw_changes(FakeRun(), args)
    ranges = {key: (v.numpy().min(), v.numpy().max()) for key, v in with_all.items()}
    for key, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        assert low <= ranges[key][0] < low + 0.05 and high - 0.05 < ranges[key][1] <= high
    for key, low, high in (("down", -2, 2), ("right", -2, 2), ("row", 0, 16), ("column", 0, 16)):
        assert ranges[key] == (low, high)
    args.augment = "cutout"
    assert script.draw_changes(FakeRun(), args).keys() == {"row", "column"}
    args.augment = None
    assert script.draw_changes(FakeRun(), args) == {}


# ---- flags ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "--img_size"),
        (["--mixing", 1.5], "--mixing"),
        (["--r1_every", 0], "--r1_every"),
        (["--augment", "flip"], "color, translation, cutout"),
        (["--augment", "color,color"], "color, translation, cutout"),
        (["--truncation", -1], "--truncation"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
