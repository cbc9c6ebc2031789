"""vae.py: both terms of the bound by hand, its step against PyTorch, a likelihood known in closed form, pictures."""

import common
from common.data import load_images
from common.networks import n_parameters

import json

import jittor as jt
import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image

import vae as script
from jittor_fast import nn
from tools import log_likelihood as tool

TINY = [
    "--img_size",
    8,
    "--hidden",
    7,
    "--latent_dim",
    3,
    "--batch_size",
    10,
    "--n_epochs",
    1,
    "--sample_interval",
    4,
]


def run(*argv):
    return script.main([str(a) for a in argv])


def parse(*argv):
    return script.parse_args([str(a) for a in argv])


@pytest.fixture
def digits(tmp_path):
    rng, labels = np.random.default_rng(0), np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        write_idx_folder(
            tmp_path / "digits", rng.integers(256, size=(40, 28, 28), dtype=np.uint8), labels, split
        )
    return tmp_path / "digits"


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("test", 6)):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / part / f"{i}.png")
    return tmp_path / "photos"


# ---- the bound by hand ----


def test_bernoulli_likelihood_by_hand():
    """Pixels 1 and 0 with probabilities 0.8 and 0.3 of white: log 0.8 + log 0.7, summed over the pixels."""
    logits = np.log([0.8 / 0.2, 0.3 / 0.7]).astype(np.float32).reshape(1, 1, 1, 2)
    got = script.log_likelihood(jt.array(logits), jt.array(np.float32([[[[1, 0]]]])), "bernoulli")
    assert np.allclose(got.numpy(), [np.log(0.8) + np.log(0.7)])


def test_gaussian_likelihood_by_hand():
    """Means 0.8 and 0.3 of pixels 1 and 0.3, variance 0.04: twice -log(2 pi 0.04) / 2, and -0.2^2 / (2 * 0.04)."""
    logits = np.log([0.8 / 0.2, 0.3 / 0.7]).astype(np.float32).reshape(1, 1, 1, 2)
    got = script.log_likelihood(
        jt.array(logits), jt.array(np.float32([[[[1, 0.3]]]])), "gaussian", jt.array([0.04])
    )
    assert np.allclose(got.numpy(), [-np.log(2 * np.pi * 0.04) - 0.5], atol=1e-5)


def test_gaussian_likelihood_is_a_density_of_pixels():
    """Over all values of one pixel it integrates to 1."""
    x = np.linspace(-2, 3, 5001, dtype=np.float32).reshape(-1, 1, 1, 1)
    logits = np.full_like(x, np.log(0.6 / 0.4))
    density = np.exp(
        script.log_likelihood(jt.array(logits), jt.array(x), "gaussian", jt.array([0.01])).numpy()
    )
    assert np.isclose(density.sum() * 0.001, 1, atol=1e-4)
    assert density.max() > 1  # so that its logarithm may be positive


def test_likelihood_of_extreme_logits_is_finite():
    logits, x = np.float32([[[[200, -200]]]]), np.zeros((1, 1, 1, 2), np.float32)
    got = script.log_likelihood(jt.array(logits), jt.array(x), "bernoulli")
    assert np.allclose(got.numpy(), [-200])


def test_likelihood_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        script.log_likelihood(jt.zeros((2, 1, 4, 4)), jt.zeros((2, 1, 1, 4)), "bernoulli")


def test_best_variance_is_the_mean_squared_error():
    """Means of 0.5 and pixels 0.5 +- 0.1 and +- 0.3: (0.01 + 0.09) / 2. No other variance makes them likelier."""
    x = jt.array(np.float32([0.6, 0.4, 0.8, 0.2]).reshape(2, 1, 1, 2))
    logits = jt.zeros((2, 1, 1, 2))
    best = script.best_variance(logits, x)
    assert np.isclose(best.item(), 0.05)
    likelihood = [
        script.log_likelihood(logits, x, "gaussian", best * f).mean().item() for f in (0.9, 1, 1.1)
    ]
    assert max(likelihood) == likelihood[1]


def test_the_variance_cannot_collapse():
    """A perfect reconstruction is as uncertain as its rounding to 256 values: (1 / 255)^2 / 12."""
    x = jt.full((2, 1, 1, 2), 0.5)
    assert np.isclose(script.best_variance(jt.zeros((2, 1, 1, 2)), x).item(), (1 / 255) ** 2 / 12)


@pytest.mark.parametrize(
    ("mu", "sigma", "expected"),
    [(0.0, 1.0, 0.0), (2.0, 1.0, 2.0), (0.0, 0.5, 0.5 * (0.25 - 1 - np.log(0.25)))],
)
def test_kl_by_hand(mu, sigma, expected):
    mean, logvar = np.full((2, 3), mu, np.float32), np.full((2, 3), 2 * np.log(sigma), np.float32)
    assert np.allclose(
        script.kl_divergence(jt.array(mean), jt.array(logvar)).numpy(),
        [3 * expected] * 2,
        atol=1e-6,
    )


# ---- the paper, and one step against PyTorch ----


def test_the_published_setting():
    """Kingma 2013: 500 tanh units (section 5; equations 11 and 12), Adagrad, minibatches of 100, one sample of z."""
    args = parse("--paper")
    assert {name: getattr(args, name) for name in script.PAPER} == script.PAPER
    assert args.beta == 1
    assert (args.hidden, args.batch_size, args.optimizer) == (500, 100, "adagrad")
    assert args.lr in (0.01, 0.02, 0.1)
    assert args.n_epochs == round(1e8 / 60000)  # to the right end of figure 2
    encoder, decoder = script.build(args)
    # W3, b3 from 784 pixels to 500; W4, b4 and W5, b5 to 20 latents; W1, b1 and W2, b2 back.
    assert n_parameters(encoder) == 784 * 500 + 500 + 2 * (500 * 20 + 20)
    assert n_parameters(decoder) == 20 * 500 + 500 + 500 * 784 + 784
    weights = np.concatenate(
        [p.numpy().ravel() for m in (encoder, decoder) for p in m.parameters()]
    )
    assert abs(weights.mean()) < 1e-4
    assert np.isclose(weights.std(), 0.01, rtol=0.01)


VARIANTS = [
    ("conv", "bernoulli", "adam"),
    ("conv", "gaussian", "adam"),
    ("mlp", "bernoulli", "adagrad"),
]


@pytest.mark.parametrize(("arch", "likelihood", "optimizer"), VARIANTS)
def test_step_against_pytorch(arch, likelihood, optimizer):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    jt.set_global_seed(987654321)
    rng = np.random.default_rng(0)
    flags = ["--arch", arch, "--likelihood", likelihood, "--latent_dim", 3, "--hidden", 7]
    encoder, decoder = script.build(parse(*flags, "--img_size", 8))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    if optimizer == "adam":
        update = nn.Adam(parameters, lr=0.01, betas=(0.9, 0.999))
    else:
        update = nn.Adagrad(parameters, lr=0.01, weight_decay=0.001)
    x = rng.random((6, 1, 8, 8), dtype=np.float32)
    x = (x > 0.5).astype(np.float32) if likelihood == "bernoulli" else x
    step = (jt.array(x), jt.array(rng.standard_normal((6, 3), dtype=np.float32)), 0.7, likelihood)
    twin = Twin("vae", write_back=False)
    want = twin.train_step(encoder, decoder, update, *step)
    got = script.train_step(encoder, decoder, update, *step)
    assert got.keys() == {"reconstruction", "kl", "elbo"}
    assert_same_losses(got, want, atol=1e-4)
    assert_same_step(encoder, twin.module(encoder), update)
    assert_same_step(decoder, twin.module(decoder), update)  # with the running variance
    if likelihood == "gaussian":
        assert (
            0.9 < decoder.running_var.item() < 0.93
        )  # a tenth of the way from 1, and no parameter of the optimizer's


def test_adagrad_by_hand():
    """Two steps on 2 p^2 from p = 1, rate 0.5 and decay 1: g = 4 p + p, v is the sum of g^2, p -= 0.5 g / sqrt(v)."""
    p = jt.array([1.0, 0.0])
    optimizer = nn.Adagrad([p], lr=0.5, weight_decay=1)
    optimizer.step(2 * (p * p).sum())
    assert np.allclose(p.numpy(), [0.5, 0])  # where the gradient has always been 0, nothing moves
    optimizer.step(2 * (p * p).sum())
    assert np.allclose(p.numpy(), [0.5 - 0.5 * 2.5 / np.sqrt(5**2 + 2.5**2), 0])


def test_the_weights_have_a_prior(digits, tmp_path, monkeypatch):
    """-log N(0, I) of the weights, divided by the number of images, has the gradient p / n."""
    decays, adam = [], nn.Adam

    def spy(*args, weight_decay, **kwargs):
        decays.append(weight_decay)
        return adam(*args, weight_decay=weight_decay, **kwargs)

    monkeypatch.setattr(nn, "Adam", spy)
    run("--data_dir", digits, *TINY, "--out_dir", tmp_path / "out")
    assert decays == [1 / 40]


# ---- the likelihood by kind of data ----


def test_likelihood_by_kind_of_data(digits, photos, tmp_path):
    assert parse().likelihood == "bernoulli"
    assert parse("--data_dir", digits).likelihood == "bernoulli"
    assert parse("--channels", 3).likelihood == "gaussian"
    assert parse("--data_dir", photos).likelihood == "gaussian"
    assert parse("--data_dir", photos, "--likelihood", "bernoulli").likelihood == "bernoulli"


def test_the_settled_likelihood_and_its_variance_are_stored(photos, tmp_path, fails):
    """A run on photographs: what it settled on is kept for resuming, and its variance for sampling and evaluation."""
    out = tmp_path / "out"
    run("--data_dir", photos, "--channels", 3, *TINY, "--export_pkl", "--out_dir", out)
    assert json.loads((out / "config.json").read_text())["args"]["likelihood"] == "gaussian"
    with np.load(out / "checkpoint_last.npz") as file:
        variance = file["decoder/running_var"]
    # Two steps from 1, each a tenth of the way to the squared error of noise in [0, 1], about 1/12.
    assert np.isclose(variance, 0.81 + 0.19 / 12, atol=0.005)
    assert parse("--resume", out).likelihood == "gaussian"
    run("--resume", out, "--n_epochs", 2)
    with np.load(out / "checkpoint_last.npz") as file:
        assert np.isclose(file["decoder/running_var"], 0.9**4 + (1 - 0.9**4) / 12, atol=0.01)
    code, line = fails(script.main, ["--resume", out, "--likelihood", "bernoulli"])
    assert code == 2
    assert "gaussian" in line
    exported = jt.load(str(out / "decoder_last.pkl"))
    assert "dense.0.weight" in exported  # what generates, not the encoder
    assert exported["running_var"].shape == (1,)
    assert not (out / "encoder_last.pkl").exists()


# ---- the importance-sampled estimate ----


def test_log_mean_exp_does_not_overflow():
    assert np.allclose(
        tool.log_mean_exp(np.array([[-1000.0, -1000.0], [0.0, np.log(3)]])), [-1000, np.log(2)]
    )


class LinearDecoder(nn.Module):
    """Means W z + 1/2 (given as their logits) with variance 0.01, so that p(x) = N(1/2, 0.01 I + W W^T)."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.running_var = jt.array(weights), jt.array(np.float32([0.01]))

    def execute(self, z):
        mean = jt.matmul(z, self.weights.transpose()) + 0.5
        return jt.log(mean / (1 - mean)).reshape(z.shape[0], 1, 1, -1)


def test_the_estimate_of_a_likelihood_known_in_closed_form():
    """A linear Gaussian model: log p(x) is exact, and the estimate with a rough q comes within 0.05 nats of it."""
    rng = np.random.default_rng(0)
    w = (0.05 * rng.uniform(-1, 1, (4, 2))).astype(np.float32)  # means stay within (0, 1)
    x = (0.5 + rng.standard_normal((20, 2)) @ w.T + 0.1 * rng.standard_normal((20, 4))).astype(
        np.float32
    )
    covariance, centred = 0.01 * np.eye(4) + w @ w.T, x - 0.5
    squares = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    exact = -0.5 * (4 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + squares)
    posterior = np.linalg.inv(
        np.eye(2) + w.T @ w / 0.01
    )  # covariance of p(z|x); q is a fifth wider in deviation
    mu = (centred @ w @ posterior / 0.01).astype(np.float32)
    logvar = np.tile(np.log(1.44 * np.diag(posterior)), (20, 1)).astype(np.float32)
    noise = rng.standard_normal((20, 5000, 2)).astype(np.float32)
    weights = tool.log_weights(
        LinearDecoder(w), x.reshape(20, 1, 1, 4), mu, logvar, noise, "gaussian"
    )
    assert weights.shape == (20, 5000)
    assert np.abs(tool.log_mean_exp(weights) - exact).max() < 0.05
    assert (weights.mean(1) < exact).all()  # the ELBO is a lower bound


def test_the_estimate_where_the_code_says_nothing(digits):
    """A decoder of constant logits, and q = N(m, 1): every w_k has the mean p(x), which is known, and KL is m^2 / 2."""

    class Shifted(nn.Module):
        def execute(self, x):
            return jt.full((x.shape[0], 1), 0.5), jt.zeros((x.shape[0], 1))

    class Constant(nn.Module):
        def execute(self, z):
            return jt.full((z.shape[0], 1, 8, 8), float(np.log(0.7 / 0.3)))

    data = load_images(digits, 8, 1, split="test")
    got = tool.evaluate(Shifted(), Constant(), data, "bernoulli", n_samples=2000, n_eval=30)
    white = tool.binarize((data.batch(np.arange(30))[0] + 1) / 2, np.random.default_rng(20131220))
    assert got["n_images"] == 30
    assert np.isclose(got["kl"], 0.125)
    assert got["active_latents"] == 0
    # The noise of the weights is drawn after each image's binarization, so the counts of white pixels vary a little.
    expected = 64 * (white.mean() * np.log(0.7) + (1 - white.mean()) * np.log(0.3))
    assert abs(got["log_likelihood"] - expected) < 3 * got["standard_error"]
    assert np.isclose(got["elbo"], got["log_likelihood"] - 0.125, atol=0.02)


def test_binarization_has_the_pixels_probability():
    x = tool.binarize(np.full((1000, 1, 10, 10), 0.3, np.float32), np.random.default_rng(0))
    assert set(np.unique(x)) == {0, 1}
    assert abs(x.mean() - 0.3) < 0.005


# ---- pictures ----


def test_the_plane_covers_the_quantiles():
    """Corner by corner: the smallest quantile of z1 is left, the largest of z2 above."""
    z = script.plane(side=4).reshape(4, 4, 2)
    quantiles = [
        -1.1503,
        -0.3186,
        0.3186,
        1.1503,
    ]  # of the normal distribution at 1/8, 3/8, 5/8, 7/8
    assert np.allclose(z[0, :, 0], quantiles, atol=1e-3)
    assert np.allclose(z[:, 0, 1], quantiles[::-1], atol=1e-3)


PICTURES = {"reconstructions.png", "scatter.png"}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], PICTURES | {"result.png"}),
        (["--latent_dim", 2], PICTURES | {"result.png", "plane.png"}),
        (["--latent_dim", 1], PICTURES | {"result.png"}),
    ],
)
def test_pictures(digits, tmp_path, monkeypatch, flags, names):
    written, save_image = [], common.save_image
    monkeypatch.setattr(
        common,
        "save_image",
        lambda x, path, **kw: (written.append(path.name), save_image(x, path, **kw)),
    )
    out = tmp_path / "out"
    run("--data_dir", digits, *TINY, *flags, "--out_dir", out)
    assert {f.name for f in out.glob("*.png")} - {"losses.png"} == names
    assert len(written) == len(set(written))  # each is written once
    assert Image.open(out / "reconstructions.png").size == (
        10 * 10 + 2,
        8 * 10 + 2,
    )  # 40 test images, and theirs
    assert (out / "samples/step_0000004.png").is_file()


def test_samples_and_likelihood_of_a_run(digits, tmp_path, capsys):
    out = tmp_path / "out"
    run("--data_dir", digits, *TINY, "--out_dir", out)
    result = (out / "result.png").read_bytes()
    run("--resume", out, "--sample_only", "--n_samples", 3)
    assert (
        out / "result.png"
    ).read_bytes() == result  # the same grid, drawn from the checkpoint alone
    with np.load(out / "samples.npz") as file:
        assert file["images"].shape == (3, 8, 8, 1)
    flags = [str(out), "--importance_samples", "20", "--n_eval", "30"]
    first, second = tool.main(flags), tool.main(flags)
    assert first == second
    assert first["elbo"] < first["log_likelihood"] < 0
    assert "30 test images: log-likelihood -" in capsys.readouterr().out


def test_load_generator_gives_the_means_of_the_pixels(digits, tmp_path):
    """In [-1, 1]: 2 s(l) - 1 = tanh(l / 2)."""
    out = tmp_path / "out"
    run("--data_dir", digits, *TINY, "--out_dir", out)
    args, z = (
        parse("--resume", out, "--sample_only"),
        np.random.default_rng(0).standard_normal((4, 3), np.float32),
    )
    with common.Run(args) as running:
        images = script.load_generator(running, args)(z)
        _, decoder = script.build(args)
        running.track(decoder=decoder)
        assert np.allclose(images, np.tanh(decoder(jt.array(z)).numpy() / 2), atol=1e-5)
    assert images.shape == (4, 1, 8, 8)


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 30], "such as 28 or 32"),
        (["--latent_dim", 0], "--latent_dim"),
        (["--beta", -1], "--beta"),
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--importance_samples", "0"], "--importance_samples"),
        (["--n_eval", "1"], "--n_eval"),
        ([], "no checkpoint"),
    ],
)
def test_bad_flags_of_the_estimate(fails, tmp_path, flags, message):
    code, line = fails(tool.main, [tmp_path, *flags])
    assert code == 2
    assert message in line
