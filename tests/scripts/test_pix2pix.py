"""pix2pix.py: published numbers, a step against PyTorch, patches, noise, learning, translations, bad input."""

from common.data.pairs import distances
from common.networks import in_chunks, n_parameters
from common.optional import doubled

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images, load, run

import cyclegan
import pix2pix as script
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def build(*flags):
    return script.build(
        script.parse_args([str(f) for f in ("--img_size", 32, "--width", 4, *flags)])
    )


def adam(module, lr=0.01):
    return nn.Adam(module.parameters(), lr=lr, betas=(0.5, 0.999))


# ---- the paper ----


def test_parameters_of_the_paper():
    """The authors' PyTorch code prints 54.414 M and 2.769 M (junyanz/pytorch-CycleGAN-and-pix2pix at 256)."""
    counts = [n_parameters(module) / 1e6 for module in script.build(script.parse_args(["--paper"]))]
    assert [round(count, 3) for count in counts] == [54.414, 2.769]


def test_parameters_of_the_resnet():
    """Those of the authors' resnet_9blocks without biases before batch norm, by the sizes of its layers."""
    kernels = [
        3 * 64 * 49,
        64 * 128 * 9,
        128 * 256 * 9,
        18 * 256 * 256 * 9,
        256 * 128 * 9,
        128 * 64 * 9,
        64 * 3 * 49,
    ]
    norms = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    generator, _ = script.build(script.parse_args(["--paper", "--arch", "resnet"]))
    assert n_parameters(generator) == sum(kernels) + norms + 3


def test_the_resnet_is_cyclegans_generator():
    """Without dropout, from the same kernels: a norm has a scale of 1 and a shift of 0 here, and none there.

    Biases before norms, which they have there, are taken away again.
    """
    ours, _ = build("--arch", "resnet", "--dropout", 0)
    theirs = cyclegan.Generator(3, 4, 6, "transpose")
    for layer in ours.modules():
        if isinstance(layer, jt.nn.InstanceNorm2d):
            layer.weight, layer.bias = jt.ones_like(layer.weight), jt.zeros_like(layer.bias)
    kernels, others = ([p for p in G.parameters() if p.ndim == 4] for G in (ours, theirs))
    assert [p.shape for p in kernels] == [p.shape for p in others]
    for one, other in zip(kernels, others):
        other.assign(one.numpy())
    theirs.parameters()[-1].assign(
        ours.parameters()[-1].numpy()
    )  # the bias after which no norm comes
    x = pixels(2, 3, 32, 32)
    assert np.allclose(in_chunks(ours, x), in_chunks(theirs, x), atol=1e-5)


def test_settings_of_the_paper():
    """Isola 2017, sections 3.1, 3.3 and 6.2: facades."""
    args = script.parse_args(["--paper"])
    assert (args.n_epochs, args.batch_size, args.lr, args.b1, args.b2) == (
        200,
        1,
        0.0002,
        0.5,
        0.999,
    )
    assert (args.img_size, args.width, args.norm, args.dropout) == (256, 64, "batch", 0.5)
    assert (args.loss, args.lambda_L1) == ("bce", 100)
    assert (args.decay_epoch, args.decay_until) == (100, 200)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(1, 101), (100, 101), (101, 100), (150, 51), (200, 1), (300, 1)]
)
def test_the_rate_is_constant_then_falls_and_never_rises_again(epoch, rate):
    """In 101 equal steps after epoch 100, the last of which is never taken."""
    assert np.isclose(
        script.learning_rate(epoch, 0.0101, decay_epoch=100, decay_until=200), rate * 0.0001
    )


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_a_run_that_is_resumed_for_more_epochs_keeps_its_rates(name, tiny, tmp_path, monkeypatch):
    """Two epochs of which the second has half the rate; two more stay there."""
    module, rates = load(name), []
    step = module.train_step

    def train_step(*args, **kwargs):
        rates.append([a.lr for a in args if isinstance(a, jt.optim.Optimizer)])
        return step(*args, **kwargs)

    monkeypatch.setattr(module, "train_step", train_step)
    run(name, *tiny.flags, "--lr", 0.004, "--decay_epoch", 1, "--out_dir", tmp_path / "run")
    run(name, "--resume", tmp_path / "run", "--n_epochs", 4)
    assert np.allclose(rates, [[0.004] * 2] * 4 + [[0.002] * 2] * 12)


@pytest.mark.parametrize(
    ("loss", "norm", "flags"),
    [
        ("bce", "instance", []),
        ("lsgan", "instance", []),
        ("bce", "batch", []),
        ("lsgan", "batch", []),
        ("lsgan", "instance", ["--upsample", "resize", "--input_channels", 2]),
        ("lsgan", "instance", ["--arch", "resnet", "--output_channels", 1]),
        ("lsgan", "batch", ["--arch", "resnet", "--upsample", "resize"]),
    ],
)
def test_a_step_is_that_of_pytorch(norm, loss, flags):
    twins = pytest.importorskip("tools.twins")
    G, D = build("--norm", norm, "--dropout", 0, *flags)
    optimizers, twin = (adam(G), adam(D)), twins.Twin("pix2pix", write_back=False)
    channels = [
        flags[-1] if flag in flags else 3 for flag in ("--input_channels", "--output_channels")
    ]
    batch = [jt.array(pixels(3, c, 32, 32, seed=seed)) for seed, c in enumerate(channels)]
    want = twin.train_step(G, D, *optimizers, *batch, loss=loss, lambda_L1=100.0)
    got = script.train_step(G, D, *optimizers, *batch, loss=loss, lambda_L1=100.0)
    twins.assert_same_losses(got, want)
    for module, optimizer in zip((D, G), optimizers[::-1]):
        twins.assert_same_step(module, twin.module(module), optimizer)


@pytest.mark.parametrize(
    ("loss", "expected_D", "expected_G"),
    [
        ("bce", (np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))) / 2, np.log1p(np.exp(-0.5))),
        ("lsgan", ((2 - 1) ** 2 + 0.5**2) / 2, (0.5 - 1) ** 2),
    ],
)
def test_losses_by_hand(loss, expected_D, expected_G):
    real, fake = jt.array([2.0]), jt.array([0.5])
    assert np.isclose(script.discriminator_loss(real, fake, loss).item(), expected_D)
    assert np.isclose(script.adversarial_loss(fake, 1.0, loss).item(), expected_G)


def test_the_distance_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.l1_distance(jt.zeros((2, 3)), jt.zeros((2, 1)))


# ---- networks ----


def test_a_score_sees_a_patch_of_70_pixels(monkeypatch):
    """Where its gradient is not zero; without norms, which let every pixel of an image into each score."""
    monkeypatch.setattr(script, "norm_layer", lambda norm, channels: jt.nn.Identity())
    score = script.PatchGAN(2, 2, "none")
    inputs, outputs = (jt.array(pixels(1, 1, 128, 128, seed=seed)) for seed in (0, 1))
    scores = score(inputs, outputs)
    assert scores.shape == [1, 1, 14, 14]
    for gradient in jt.grad(scores[0, 0, 6, 7], [inputs, outputs]):
        rows, columns = np.nonzero(gradient.numpy()[0, 0])
        assert len(rows) == 70 * 70
        assert np.ptp(rows) == np.ptp(columns) == 69


@pytest.mark.parametrize(
    ("height", "width", "innermost_shape"),
    [
        (32, 32, (1, 1)),
        (256, 256, (1, 1)),
        (512, 512, (1, 1)),
        (96, 96, (3, 3)),
        (32, 64, (1, 2)),
        (384, 512, (3, 4)),
    ],
)
def test_unet_of_every_shape(height, width, innermost_shape):
    """It halves the image as often as both sides allow, down to one pixel of a square of a power of two."""
    shapes, flags = (
        [],
        ["--img_height", str(height), "--img_width", str(width), "--width", "1", "--channels", "1"],
    )
    generator, _ = script.build(script.parse_args(flags))
    innermost = generator.down[-1]
    execute = innermost.execute
    innermost.execute = lambda x: shapes.append(execute(x).shape) or execute(x)
    assert generator(jt.zeros((1, 1, height, width))).shape == [1, 1, height, width]
    assert shapes == [[1, 8, *innermost_shape]]


@pytest.mark.parametrize(("size", "n"), [(32, 1), (64, 2), (256, 3)])
def test_dropout_follows_the_first_layers_of_full_width(size, n):
    generator = script.UNet(
        script.common.halvings(size, size), 3, 3, 1, "instance", 0.5, "transpose"
    )
    assert [any(isinstance(m, nn.Dropout) for m in layer.modules()) for layer in generator.up] == [
        True
    ] * n + [False] * (len(generator.up) - n)


def test_dropout_stays_on_in_samples():
    """It is the noise: other seeds give other pictures, the same seed the same; half of the numbers are zero."""
    generator, _ = build()
    x = pixels(2, 3, 32, 32)
    one, same, other = (in_chunks(generator, x, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    noise = script.Noise(0.5)
    noise.eval()
    assert np.isclose((noise(jt.ones((100, 100))).numpy() == 0).mean(), 0.5, atol=0.02)


def test_batch_norm_takes_the_statistics_of_the_test_batch():
    """In evaluation as in training, by the formula."""
    x = 3 + 2 * pixels(4, 2, 5, 5)
    norm = script.norm_layer("batch", 2)
    norm.weight, norm.bias = jt.array([2.0, 1.0]), jt.array([0.0, -1.0])
    mean, std = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    expected = (x - mean) / std * np.float32([2, 1])[:, None, None] + np.float32([0, -1])[
        :, None, None
    ]
    norm.train()
    assert np.allclose(norm(jt.array(x)).numpy(), expected, atol=1e-4)
    norm.eval()
    assert np.allclose(norm(jt.array(x)).numpy(), expected, atol=1e-4)


def checkerboard(layers, size=32):
    """How much the means of a constant image's four phases differ, as a share of its deviation, after `layers`."""
    y = jt.nn.Sequential(*layers)(jt.ones((1, 4, size, size))).numpy()[0, :, 8:-8, 8:-8]
    phases = np.stack([y[:, i::2, j::2].mean((1, 2)) for i in (0, 1) for j in (0, 1)])
    return phases.std(0).mean() / np.abs(y).mean()


def test_resizing_has_no_checkerboard():
    """With random weights: a flat image stays flat, where a transposed convolution gives it a pattern of 2 x 2."""
    assert checkerboard(doubled("resize", 4, 4, size=4, bias=False)) < 1e-5
    assert checkerboard(doubled("transpose", 4, 4, size=4, bias=False)) > 0.1
    assert checkerboard(doubled("transpose", 4, 4, size=3, bias=False)) > 0.1


def test_other_channels_from_training_to_translations(tmp_path):
    """Inputs of two channels in arrays, 16-bit greys as outputs; an array becomes an array of their channels."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for part in ("train", "val"):
        for side in "AB":
            (data / f"{part}{side}").mkdir(parents=True)
        for i in range(2):
            np.save(data / f"{part}A/{i}.npy", rng.random((32, 32, 2)))
            Image.fromarray(rng.integers(65536, size=(32, 32), dtype=np.uint16)).save(
                data / f"{part}B/{i}.png"
            )
    flags = [
        "--input_channels",
        2,
        "--output_channels",
        1,
        "--img_size",
        32,
        "--width",
        4,
        "--batch_size",
        2,
    ]
    run("pix2pix", "--data_dir", data, *flags, "--n_epochs", 1, "--out_dir", tmp_path / "run")
    assert Image.open(tmp_path / "run/result.png").size == (2 * 34 + 2, 3 * 34 + 2)
    run("pix2pix", "--resume", tmp_path / "run", "--sample_only", "--input", data / "valA/0.npy")
    values = np.load(tmp_path / "run/translated/0.npy")
    assert (values.shape, values.dtype) == ((32, 32), np.float32)
    assert 0 <= values.min() < values.max() <= 1


def test_it_learns():
    """One pair, 60 steps: the distance to the target falls to less than a third."""
    G, D = build("--width", 8)
    optimizers = adam(G, 0.002), adam(D, 0.002)
    pair = [jt.array(pixels(1, 3, 4, 4, seed=seed).repeat(8, 2).repeat(8, 3)) for seed in (0, 1)]
    losses = [
        script.train_step(G, D, *optimizers, *pair, loss="bce", lambda_L1=100.0)["loss_L1"].item()
    ]
    for _ in range(60):
        losses.append(
            script.train_step(G, D, *optimizers, *pair, loss="bce", lambda_L1=100.0)[
                "loss_L1"
            ].item()
        )
    assert np.mean(losses[-5:]) < losses[0] / 3, losses


def test_validation_by_hand():
    """Pairs whose outputs are off by 0.1 and 0.5: the mean distance, and the mean of 10 log10(4 / mse)."""

    class Pairs:
        def __len__(self):
            return 3

        def batch(self, indices):
            offsets = np.float32([0.1, 0.1, 0.5])[indices].reshape(-1, 1, 1, 1)
            return np.zeros((len(indices), 1, 2, 2), np.float32), np.zeros(
                (len(indices), 1, 2, 2), np.float32
            ) + offsets

    seen = []
    values = distances(lambda inputs, first: seen.append(first) or inputs, Pairs(), batch_size=2)
    assert seen == [0, 2]
    assert np.isclose(values["val_L1"], 0.7 / 3)
    assert np.isclose(
        values["val_PSNR"], (2 * 10 * np.log10(4 / 0.01) + 10 * np.log10(4 / 0.25)) / 3
    )


# ---- translating one's own pictures ----


def test_a_folder_becomes_a_folder_of_the_same_names(tiny_runs, tmp_path):
    trained = tiny_runs("pix2pix").half
    mine = tmp_path / "mine"
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (trained / "checkpoint_last.npz").read_bytes()
    out = tmp_path / "out"
    run("pix2pix", "--resume", trained, "--sample_only", "--input", mine, "--out_dir", out)
    sizes = {str(f.relative_to(out)): Image.open(f).size for f in out.rglob("*") if f.is_file()}
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (trained / "checkpoint_last.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 100], "--img_size 100: it must be a multiple of 32, such as 96 or 128"),
        (["--img_width", 100], "--img_width 100: it must be a multiple of 32, such as 96 or 128"),
        (["--n_samples", 5], "--n_samples"),
        (["--input", "x"], "--input needs --sample_only"),
        (["--direction", "AtoC"], "--direction"),
        (["--norm", "layer"], "--norm"),
        (["--input_channels", 0], "--input_channels: must be a whole number at least 1"),
        (["--tile", 64], "--tile needs --input"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
