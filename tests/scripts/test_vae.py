"""vae.py: the bound by hand, one step against PyTorch, what it stores and draws."""

import json

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image

import vae as script
from jittor_fast import Adagrad, nn
from tools.describe import n_parameters

TINY = [
    *("--img_size", 8, "--hidden", 7, "--latent_dim", 3, "--batch_size", 10),
    *("--n_epochs", 1, "--sample_interval", 4),
]


def run(*argv):
    script.main([str(a) for a in argv])


def parse(*argv):
    return script.parse_args([str(a) for a in argv])


@pytest.fixture
def digits(tmp_path):
    """A folder with 40 random digits in each split."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
        write_idx_folder(tmp_path / "digits", images, labels, split)
    return tmp_path / "digits"


@pytest.fixture
def photos(tmp_path):
    """A folder with 20 training and 6 test images of random colours."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 6)):
        folder = tmp_path / "photos" / split
        folder.mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


# ---- the bound by hand ----


def two_pixels(first, second):
    """A Jittor image (1, 1, 1, 2)."""
    return jt.array(np.float32([first, second]).reshape(1, 1, 1, 2))


LOGITS = (np.log(0.8 / 0.2), np.log(0.3 / 0.7))  # of the means 0.8 and 0.3


def test_bernoulli_likelihood_by_hand():
    """Pixels 1 and 0, white with probability 0.8 and 0.3: log 0.8 + log 0.7."""
    found = script.log_likelihood(two_pixels(*LOGITS), two_pixels(1, 0), "bernoulli")
    assert np.allclose(found.numpy(), [np.log(0.8) + np.log(0.7)])


def test_gaussian_likelihood_by_hand():
    """Means 0.8 and 0.3 of pixels 1 and 0.3, with variance 0.04.

    Twice -log(2 pi 0.04) / 2, and -0.2^2 / (2 * 0.04).
    """
    variance = jt.array([0.04])
    found = script.log_likelihood(two_pixels(*LOGITS), two_pixels(1, 0.3), "gaussian", variance)
    assert np.allclose(found.numpy(), [-np.log(2 * np.pi * 0.04) - 0.5], atol=1e-5)


def test_gaussian_likelihood_is_a_density_of_pixels():
    """It integrates to 1 over the values of a pixel, and its logarithm may exceed 0."""
    x = np.linspace(-2, 3, 5001, dtype=np.float32).reshape(-1, 1, 1, 1)
    logits = np.full_like(x, np.log(0.6 / 0.4))
    found = script.log_likelihood(jt.array(logits), jt.array(x), "gaussian", jt.array([0.01]))
    density = np.exp(found.numpy())
    assert np.isclose(density.sum() * 0.001, 1, atol=1e-4)
    assert density.max() > 1


def test_likelihood_of_extreme_logits_is_finite():
    found = script.log_likelihood(two_pixels(200, -200), two_pixels(0, 0), "bernoulli")
    assert np.allclose(found.numpy(), [-200])


def test_likelihood_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.log_likelihood(jt.zeros((2, 1, 4, 4)), jt.zeros((2, 1, 1, 4)), "bernoulli")


def test_best_variance_is_the_mean_squared_error():
    """Means of 0.5 for pixels 0.5 +- 0.1 and +- 0.3: (0.01 + 0.09) / 2.

    Any other variance makes the pixels less likely.
    """
    x = jt.array(np.float32([0.6, 0.4, 0.8, 0.2]).reshape(2, 1, 1, 2))
    logits = jt.zeros((2, 1, 1, 2))
    best = script.best_variance(logits, x)
    assert np.isclose(best.item(), 0.05)
    likelihoods = []
    for factor in (0.9, 1, 1.1):
        found = script.log_likelihood(logits, x, "gaussian", factor * best)
        likelihoods.append(found.mean().item())
    assert max(likelihoods) == likelihoods[1]


def test_the_variance_cannot_collapse():
    """Its lower bound is the variance of rounding to 256 levels, (1 / 255)^2 / 12."""
    x = jt.full((2, 1, 1, 2), 0.5)
    found = script.best_variance(jt.zeros((2, 1, 1, 2)), x)
    assert np.isclose(found.item(), (1 / 255) ** 2 / 12)


@pytest.mark.parametrize(
    ("mu", "sigma", "expected"),
    [(0.0, 1.0, 0.0), (2.0, 1.0, 2.0), (0.0, 0.5, 0.5 * (0.25 - 1 - np.log(0.25)))],
)
def test_kl_by_hand(mu, sigma, expected):
    mean = np.full((2, 3), mu, np.float32)
    logvar = np.full((2, 3), 2 * np.log(sigma), np.float32)
    found = script.kl_divergence(jt.array(mean), jt.array(logvar))
    assert np.allclose(found.numpy(), [3 * expected] * 2, atol=1e-6)


# ---- the paper, and one step against PyTorch ----


def test_parameters_of_the_paper():
    """Kingma 2013: 500 tanh units, section 5; equations 11 and 12 name W1 to W5.

    W3, b3 from 784 pixels to 500; W4, b4 and W5, b5 to 20 latents; W1, b1 and W2, b2
    back.
    """
    encoder, decoder = script.build(parse("--paper"))
    assert n_parameters(encoder) == 784 * 500 + 500 + 2 * (500 * 20 + 20)
    assert n_parameters(decoder) == 20 * 500 + 500 + 500 * 784 + 784

    parameters = [*encoder.parameters(), *decoder.parameters()]
    weights = np.concatenate([p.numpy().ravel() for p in parameters])
    assert abs(weights.mean()) < 1e-4
    assert np.isclose(weights.std(), 0.01, rtol=0.01)


def test_length_of_the_papers_training():
    """Figure 2 ends at 10^8 images of MNIST's 60,000; beta is 1."""
    args = parse("--paper")
    assert args.n_epochs == round(1e8 / 60000)
    assert args.beta == 1


VARIANTS = [
    ("conv", "bernoulli", "adam"),
    ("conv", "gaussian", "adam"),
    ("mlp", "bernoulli", "adagrad"),
]


@pytest.mark.parametrize(("arch", "likelihood", "optimizer"), VARIANTS)
def test_step_against_pytorch(arch, likelihood, optimizer):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    flags = ["--arch", arch, "--likelihood", likelihood, "--latent_dim", 3, "--hidden", 7]
    encoder, decoder = script.build(parse(*flags, "--img_size", 8))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    if optimizer == "adam":
        update = nn.Adam(parameters, lr=0.01, betas=(0.9, 0.999))
    else:
        update = Adagrad(parameters, lr=0.01, weight_decay=0.001)
    x = rng.random((6, 1, 8, 8), dtype=np.float32)
    if likelihood == "bernoulli":
        x = (x > 0.5).astype(np.float32)
    noise = rng.standard_normal((6, 3), dtype=np.float32)
    tensors = (jt.array(x), jt.array(noise))

    twin = Twin("vae", write_back=False)
    settings = {"beta": 0.7, "likelihood": likelihood}
    expected = twin.train_step(encoder, decoder, update, *tensors, **settings)
    found = script.train_step(encoder, decoder, update, *tensors, **settings)
    assert found.keys() == {"reconstruction", "kl", "elbo"}
    assert_same_losses(found, expected, atol=1e-4)
    assert_same_step(encoder, twin.module(encoder), update)
    assert_same_step(decoder, twin.module(decoder), update)  # with the running variance
    if likelihood == "gaussian":  # a tenth of the distance from 1; the optimizer skips it
        assert 0.9 < decoder.running_var.item() < 0.93


def test_adagrad_by_hand():
    """Two steps on 2 p^2 from p = 1, with a rate of 0.5 and a decay of 1.

    g = 4 p + p, v is the sum of g^2, p -= 0.5 g / sqrt(v).
    """
    p = jt.array([1.0, 0.0])
    optimizer = Adagrad([p], lr=0.5, weight_decay=1)
    optimizer.step(2 * (p * p).sum())
    assert np.allclose(p.numpy(), [0.5, 0])  # a gradient of 0 moves nothing
    optimizer.step(2 * (p * p).sum())
    assert np.allclose(p.numpy(), [0.5 - 0.5 * 2.5 / np.sqrt(5**2 + 2.5**2), 0])


def test_the_weights_have_a_prior(digits, tmp_path, monkeypatch):
    """-log N(0, I) of a weight p, over the number of images n, has the gradient p / n.

    The folder has 40 images.
    """
    decays = []
    adam = nn.Adam

    def spy(*args, weight_decay, **kwargs):
        decays.append(weight_decay)
        return adam(*args, weight_decay=weight_decay, **kwargs)

    monkeypatch.setattr(nn, "Adam", spy)
    run("--data_dir", digits, *TINY, "--out_dir", tmp_path / "out")
    assert decays == [1 / 40]


# ---- the likelihood by type of data ----


def test_likelihood_by_type_of_data(digits, photos):
    assert parse().likelihood == "bernoulli"
    assert parse("--data_dir", digits).likelihood == "bernoulli"
    assert parse("--channels", 3).likelihood == "gaussian"
    assert parse("--data_dir", photos).likelihood == "gaussian"
    assert parse("--data_dir", photos, "--likelihood", "bernoulli").likelihood == "bernoulli"


def running_var(out):
    with np.load(out / "checkpoint_last.npz") as file:
        return file["decoder/running_var"]


def test_the_settled_likelihood_and_its_variance_are_stored(photos, tmp_path, fails):
    """A run on photographs keeps both for --resume, sampling and evaluation.

    Each of its two steps moves the variance from 1 by a tenth of the distance to the
    squared error of noise in [0, 1], about 1/12.
    """
    out = tmp_path / "out"
    run("--data_dir", photos, "--channels", 3, *TINY, "--export_pkl", "--out_dir", out)
    config = json.loads((out / "config.json").read_text())
    assert config["args"]["likelihood"] == "gaussian"
    assert np.isclose(running_var(out), 0.81 + 0.19 / 12, atol=0.005)
    exported = jt.load(str(out / "decoder_last.pkl"))
    assert "dense.0.weight" in exported
    assert exported["running_var"].shape == (1,)

    assert parse("--resume", out).likelihood == "gaussian"
    run("--resume", out, "--n_epochs", 2)
    assert np.isclose(running_var(out), 0.9**4 + (1 - 0.9**4) / 12, atol=0.01)
    code, line = fails(script.main, ["--resume", out, "--likelihood", "bernoulli"])
    assert code == 2
    assert "gaussian" in line


# ---- pictures ----


def test_the_plane_covers_the_quantiles():
    """The smallest quantile of z1 is at the left, the greatest of z2 at the top."""
    z = script.plane(side=4).reshape(4, 4, 2)
    # of the normal distribution at 1/8, 3/8, 5/8 and 7/8
    quantiles = [-1.1503, -0.3186, 0.3186, 1.1503]
    assert np.allclose(z[0, :, 0], quantiles, atol=1e-3)
    assert np.allclose(z[:, 0, 1], quantiles[::-1], atol=1e-3)


def test_decoded_images_are_the_means_of_the_pixels():
    """In [-1, 1]: 2 s(l) - 1 = tanh(l / 2)."""
    _, decoder = script.build(parse("--img_size", 8, "--latent_dim", 3))
    z = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    images = script.decode(decoder, z)
    assert images.shape == (4, 1, 8, 8)
    assert np.allclose(images, np.tanh(decoder(jt.array(z)).numpy() / 2), atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "more"),
    [([], set()), (["--latent_dim", 2], {"plane.png"}), (["--latent_dim", 1], set())],
)
def test_pictures(digits, tmp_path, flags, more):
    out = tmp_path / "out"
    run("--data_dir", digits, *TINY, *flags, "--out_dir", out)
    names = {file.name for file in out.glob("*.png")} - {"losses.png"}
    assert names == {"result.png", "reconstructions.png", "scatter.png"} | more
    # 40 test images and their reconstructions, 10 in a row
    assert Image.open(out / "reconstructions.png").size == (10 * 10 + 2, 8 * 10 + 2)
    assert (out / "samples/step_0000004.png").is_file()


def test_samples_of_a_run(digits, tmp_path):
    """They are drawn from the checkpoint alone."""
    out = tmp_path / "out"
    run("--data_dir", digits, *TINY, "--out_dir", out)
    result = (out / "result.png").read_bytes()
    run("--resume", out, "--sample_only", "--n_samples", 3)
    assert (out / "result.png").read_bytes() == result
    with np.load(out / "samples.npz") as file:
        assert file["images"].shape == (3, 8, 8, 1)


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 30], "such as 28 or 32"),
        (["--latent_dim", 0], "--latent_dim"),
        (["--beta", -1], "--beta"),
        (["--lr_decay", 1.5], "--lr_decay"),
        (["--arch", "resnet"], "--arch"),
        (["--likelihood", "laplace"], "--likelihood"),
        (["--optimizer", "sgd"], "--optimizer"),
        (["--hidden", 0], "--hidden"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


def test_the_mlp_takes_any_size():
    assert parse("--arch", "mlp", "--img_size", 30).img_size == 30
