"""infogan.py: information by hand, a step against PyTorch, table 1, the codes drawn."""

import common

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image
from registry import run

import infogan as script
from jittor_fast import nn
from tools.describe import n_parameters

TINY = ["--img_size", 8, "--width", 2, "--latent_dim", 6, "--n_categories", 3, "--batch_size", 10]


def parse(*flags):
    return script.parse_args([str(flag) for flag in flags])


def random_latents(n, args):
    """G's inputs of the two updates, as Jittor variables."""
    rng = np.random.default_rng(0)
    latents = []
    for _ in range(2):
        arrays = script.fixed_latent(rng, n, args)
        latents.append(tuple(jt.array(array) for array in arrays))
    return latents


# ---- information, in nats ----


def category_information(logits, categories):
    """Of Q's logits (B, K), and the categories (B,) that G was given."""
    zeros = jt.zeros((len(logits), 1))
    posterior = (jt.array(np.float32(logits)), zeros, zeros)
    info_category, _ = script.information(posterior, jt.array(categories), zeros)
    return info_category.item()


def test_information_of_a_category_by_hand():
    """If Q is certain and right it is log K, and 0 if all K are equally likely.

    Otherwise it is log K + log Q(c|x), which is negative if Q is certain and wrong.
    """
    assert np.isclose(category_information([[50, 0, 0], [0, 0, 50]], [0, 2]), np.log(3))
    assert np.isclose(category_information([[7, 7, 7]], [1]), 0, atol=1e-6)
    logits = np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    expected = np.log(3) + (np.log(1 / 2) + np.log(1 / 4)) / 2
    assert np.isclose(category_information(logits, [0, 1]), expected)
    assert category_information([[50, 0, 0]], [1]) < -40


def continuous_information(error, deviation):
    """Of two codes, with Q's means `error` away from them."""
    mean = jt.full((3, 2), 0.2)
    log_deviation = jt.full((3, 2), float(np.log(deviation)))
    posterior = (jt.zeros((3, 4)), mean, log_deviation)
    _, info = script.information(posterior, jt.zeros((3,), "int32"), mean + error)
    return info.item()


@pytest.mark.parametrize(("error", "deviation"), [(0.0, 1.0), (0.3, 0.5), (-0.3, 0.1)])
def test_information_of_continuous_codes_by_hand(error, deviation):
    """log 2, the entropy of U(-1, 1), + log N(c; mean, deviation^2), for each code."""
    density = np.exp(-(error**2) / (2 * deviation**2)) / (deviation * np.sqrt(2 * np.pi))
    expected = 2 * np.log(2 * density)
    assert np.isclose(continuous_information(error, deviation), expected, rtol=1e-5)


def test_half_the_error_is_log_2_more_information():
    gain = continuous_information(0.05, 0.1) - continuous_information(0.1, 0.2)
    assert np.isclose(gain, 2 * np.log(2), rtol=1e-4)


def test_information_refuses_shapes_that_would_broadcast():
    posterior = (jt.zeros((4, 3)), jt.zeros((4, 2)), jt.zeros((4, 2)))
    with pytest.raises(ValueError, match="different shapes"):
        script.information(posterior, jt.zeros(4), jt.zeros((4, 1)))


# ---- the adversarial losses and one step ----


def test_losses_by_hand():
    """Logits of 0 are guesses: 2 log 2. At 2 and 1/2: -log s(2) - log(1 - s(1/2))."""
    loss = script.discriminator_loss(jt.zeros(3), jt.zeros(3))
    assert np.isclose(loss.item(), 2 * np.log(2))
    loss = script.discriminator_loss(jt.array([2.0]), jt.array([0.5]))
    assert np.isclose(loss.item(), np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5)))
    loss = script.generator_loss(jt.array([0.5]))
    assert np.isclose(loss.item(), np.log1p(np.exp(-0.5)))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)))


def test_step_against_pytorch():
    twins = pytest.importorskip("tools.twins")
    args = parse(*TINY)
    generator, discriminator = script.build(args)
    # With the initial deviation of 0.02, the codes would hardly reach the image.
    for network in (generator, discriminator):
        for parameter in network.parameters():
            if not parameter.is_stop_grad():
                parameter.assign(5 * parameter)
    optimizer_G = nn.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.999))
    networks = (generator, discriminator, optimizer_G, optimizer_D)
    real = np.random.default_rng(1).uniform(-1, 1, (8, 1, 8, 8)).astype(np.float32)
    tensors = (jt.array(real), *random_latents(8, args))

    twin = twins.Twin("infogan", write_back=False)
    expected = twin.train_step(*networks, *tensors, lambdas=(0.7, 0.3))
    found = script.train_step(*networks, *tensors, lambdas=(0.7, 0.3))
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer_D)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)


def movements(lambdas):
    """How far a step of SGD moves Q's last layer and G's first one."""
    jt.set_global_seed(987654321)
    args = parse(*TINY)
    generator, discriminator = script.build(args)
    optimizer_G = jt.nn.SGD(generator.parameters(), lr=1.0)
    optimizer_D = jt.nn.SGD(discriminator.parameters(), lr=1.0)
    networks = (generator, discriminator, optimizer_G, optimizer_D)
    weights = (discriminator.Q[-1].weight, generator.dense[0].weight)
    before = [weight.numpy().copy() for weight in weights]
    real = jt.zeros((8, 1, 8, 8))
    script.train_step(*networks, real, *random_latents(8, args), lambdas=lambdas)
    return [weight.numpy() - start for weight, start in zip(weights, before)]


def test_information_reaches_both_updates():
    """Q's last layer has no other gradient.

    It gives 3 logits, 2 means and 2 deviations.
    """
    Q_without, G_without = movements((0.0, 0.0))
    Q_category, G_category = movements((1.0, 0.0))
    Q_continuous, G_continuous = movements((0.0, 1.0))
    assert not Q_without.any()
    assert Q_category[:3].any()
    assert not Q_category[3:].any()
    assert not Q_continuous[:3].any()
    assert Q_continuous[3:5].any()
    assert Q_continuous[5:].any()
    assert not np.allclose(G_category, G_without)
    assert not np.allclose(G_continuous, G_without)


# ---- the paper ----


def test_parameters_of_table_1():
    """Chen 2016, table 1 and section C.1: G has 74 inputs.

    Q gives 10 logits, 2 means and 2 deviations. There is no bias beside batch norm,
    whose scale and shift count.
    """
    generator, discriminator = script.build(parse("--paper"))
    dense = 74 * 1024 + 1024 * 7 * 7 * 128
    norms = 2 * (1024 + 7 * 7 * 128 + 64)
    upwards = 16 * 128 * 64 + (16 * 64 * 1 + 1)
    assert n_parameters(generator) == dense + upwards + norms

    body = (16 * 64 + 64) + 16 * 64 * 128 + 7 * 7 * 128 * 1024
    heads = (1024 + 1) + 1024 * 128 + (128 * 14 + 14)
    norms = 2 * (128 + 1024 + 128)
    assert n_parameters(discriminator) == body + heads + norms


def test_settings_of_the_paper():
    """Appendix C; the length is that of the authors' code: 5,000 batches of 128."""
    args = parse("--paper")
    assert args.lr == 0.0002
    assert args.lr * args.lr_ratio == 0.001
    assert args.lambda_category == 1
    assert args.b1 == 0.5
    assert args.batch_size == 128
    updates_in_epoch = 60000 // 128
    assert abs(args.n_epochs * updates_in_epoch - 5000) <= updates_in_epoch / 2


def test_leaky_relus_of_the_paper():
    """Appendix C: a slope of 0.1."""
    _, discriminator = script.build(parse(*TINY))
    slopes = [m.scale for m in discriminator.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.1] * 4


def test_initial_weights_are_those_of_the_authors_code():
    """custom_ops.py: a deviation of 0.02 around 0, or around 1 for norms' scales."""
    generator, discriminator = script.build(parse("--width", 16))
    for layer in (generator.dense[3], discriminator.body[6]):
        assert np.isclose(layer.weight.numpy().std(), 0.02, rtol=0.02)
    assert not discriminator.Q[-1].bias.numpy().any()
    scales = generator.dense[4].weight.numpy()
    assert np.isclose(scales.std(), 0.02, rtol=0.1)
    assert abs(scales.mean() - 1) < 0.002


# ---- G's inputs ----


def assert_distributions(z, categories, continuous):
    """Of 2,000 inputs with z of 50."""
    for uniform, dim in ((z, 50), (continuous, 2)):
        assert uniform.shape == (2000, dim)
        assert uniform.dtype == np.float32
        assert np.abs(uniform).max() <= 1
        assert abs(uniform.mean()) < 0.03
        assert np.isclose(uniform.std(), 3**-0.5, rtol=0.03)
    assert categories.shape == (2000,)
    assert categories.dtype == np.int32
    assert np.bincount(categories, minlength=10).min() > 150


def test_distributions_of_the_inputs(tmp_path):
    """In training, and for samples."""
    args = parse("--latent_dim", 50, "--batch_size", 2000, "--out_dir", tmp_path)
    with common.Run(args) as open_run:
        latent = script.random_latent(open_run, args)
        assert_distributions(*[variable.numpy() for variable in latent])
        assert_distributions(*script.fixed_latent(open_run.fixed_rng(), 2000, args))


def test_every_code_changes_the_image():
    """The category and both continuous codes do, each differently."""
    generator, _ = script.build(parse(*TINY))
    z = np.zeros((5, 6), np.float32)
    categories = np.int32([0, 1, 2, 0, 0])
    continuous = np.float32([[0, 0], [0, 0], [0, 0], [1, 0], [0, 1]])
    images = common.predict(generator, z, categories, continuous)
    assert images.shape == (5, 1, 8, 8)
    distances = np.abs(images[:, None] - images).max((2, 3, 4))
    assert (distances[~np.eye(5, dtype=bool)] > 0).all()


def test_panels_are_those_of_figure_2():
    """Images of a row have the same noise; its category, c_2 or c_3 changes."""
    args = parse("--n_categories", 4, "--latent_dim", 3)
    inputs = script.panels(np.random.default_rng(0), args)
    z, categories, continuous = (x.reshape(3, 5, 4, -1) for x in inputs)
    assert (z == z[:, :, :1]).all()
    assert len(np.unique(z[:, :, 0, 0])) == 15  # another noise in each row
    assert categories[0, :, :, 0].tolist() == [[0, 1, 2, 3]] * 5
    assert (continuous[0] == continuous[0][:, :1]).all()
    for i in (1, 2):
        changing = continuous[i, ..., i - 1]
        other = continuous[i, ..., 2 - i]
        assert np.allclose(changing, [[-2, -2 / 3, 2 / 3, 2]] * 5)
        assert (other == other[:, :1]).all()
        assert (categories[i] == categories[i][:, :1]).all()


# ---- samples ----


def test_samples_have_the_codes_that_were_asked_for(tiny_runs, tmp_path, monkeypatch):
    half = tiny_runs("infogan").half  # trained before the samples are observed
    seen = []
    real_predict = common.predict

    def predict(network, *arrays):
        seen.append(arrays)
        return real_predict(network, *arrays)

    monkeypatch.setattr(common, "predict", predict)
    flags = ["--resume", half, "--sample_only", "--n_samples", 7]
    flags += ["--code", 2, "--continuous", -1.5, 0.5]
    run("infogan", *flags, "--out_dir", tmp_path)
    assert [len(z) for z, *_ in seen] == [100, 7]
    for _, categories, continuous in seen:
        assert (categories == 2).all()
        assert (continuous == np.float32([-1.5, 0.5])).all()
    assert Image.open(tmp_path / "result.png").size == (3 * 10 + 2, 34 * 10 + 2)
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["codes"].tolist() == [2] * 7
        assert np.array_equal(samples["continuous"], np.float32([[-1.5, 0.5]] * 7))


def test_samples_have_random_codes_otherwise(tiny_runs, tmp_path):
    flags = ["--resume", tiny_runs("infogan").half, "--sample_only", "--n_samples", 50]
    run("infogan", *flags, "--out_dir", tmp_path)
    with np.load(tmp_path / "samples.npz") as samples:
        assert set(samples["codes"]) == {0, 1, 2}
        assert np.abs(samples["continuous"]).max() <= 1
        assert samples["continuous"].std() > 0.2


# ---- it learns ----


def test_categories_become_types_of_images(tmp_path):
    """The left or the right half of an image is bright.

    After 600 updates each category draws one of the two, and Q recognizes it.
    """
    pixels = np.random.default_rng(0).integers(0, 40, size=(200, 8, 8))
    pixels[0::2, :, :4] += 180
    pixels[1::2, :, 4:] += 180
    data = write_idx_folder(tmp_path / "data", pixels.astype(np.uint8), np.zeros(200, np.uint8))
    flags = ["--img_size", 8, "--width", 4, "--latent_dim", 6, "--n_categories", 2]
    flags += ["--batch_size", 20, "--lr", 0.001, "--n_epochs", 60, "--log_interval", 10]
    out = tmp_path / "out"
    run("infogan", *flags, "--data_dir", data, "--n_samples", 200, "--out_dir", out)
    log = np.genfromtxt(out / "losses.csv", delimiter=",", names=True)
    # The median, since the information may break down for some updates.
    assert 0.6 < np.median(log["info_category"][30:]) <= np.log(2)
    with np.load(out / "samples.npz") as samples:
        images = samples["images"][..., 0] / 255
        codes = samples["codes"]
    is_left = images[:, :, :4].mean((1, 2)) > images[:, :, 4:].mean((1, 2))
    shares = sorted(is_left[codes == category].mean() for category in (0, 1))
    assert shares[0] < 0.1
    assert shares[1] > 0.9


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 30], "--img_size 30: it must be a multiple of 4, such as 28 or 32"),
        (["--n_categories", 1], "--n_categories: must be a whole number at least 2"),
        (["--lambda_category", -1], "--lambda_category: must be a number at least 0"),
        (["--lr_ratio", 0], "--lr_ratio: must be a number above 0"),
        (["--code", 3], "--code and --continuous need --sample_only"),
        (["--continuous", 0.5, 1], "--code and --continuous need --sample_only"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--code", 3], "--code 3: the categories are 0 to 2"),
        (["--continuous", 0.5], "--continuous must be 2 numbers, got 1"),
        (["--continuous", "x", 1], "--continuous: must be a number"),
    ],
)
def test_codes_that_the_model_does_not_have(fails, tiny_runs, flags, message):
    resume = ["--resume", tiny_runs("infogan").half, "--sample_only"]
    code, line = fails(script.main, [*resume, *flags])
    assert code == 2
    assert message in line
