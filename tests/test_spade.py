"""spade.py: the step against PyTorch, losses by hand, published counts and settings; what is handed in."""

from common.data import hand_in
from common.networks import n_parameters
from common.optional import Perceptual

import json
import shutil
from argparse import Namespace

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import differences, load, meta, run, saved_arrays

import spade as script
from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


SMALL = ["--width", "4", "--img_size", "32", "--style_dim", "5", "--n_classes", "4"]


# ---- the step ----


def vgg(path, width=4):
    """A file of random weights with the names and the order of torchvision's VGG19; `width` for its 64."""
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    state, c, number = {}, 3, 0
    for size, n in ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4)):
        for _ in range(n):
            weight = (
                rng.standard_normal((size * width, c, 3, 3)).astype(np.float32)
                * (2 / (9 * c)) ** 0.5
            )
            bias = rng.standard_normal(size * width).astype(np.float32)
            state |= {
                f"features.{number}.weight": torch.tensor(weight),
                f"features.{number}.bias": torch.tensor(bias),
            }
            c, number = size * width, number + 2
        number += 1  # pooling
    state["classifier.0.weight"] = torch.zeros(3, 2)
    torch.save(state, path)
    return path


def test_the_perceptual_loss_is_pytorchs(tmp_path):
    """SPADE's loss in PyTorch's functions, and its gradient, of odd sizes and of grey images; from both formats."""
    torch = pytest.importorskip("torch")
    F, rng = torch.nn.functional, np.random.default_rng(1)
    state = torch.load(vgg(tmp_path / "vgg.pth"))
    np.savez(tmp_path / "vgg.npz", **{name: value.numpy() for name, value in state.items()})
    numbers = {
        0: 1 / 32,
        2: 0,
        5: 1 / 16,
        7: 0,
        10: 1 / 8,
        12: 0,
        14: 0,
        16: 0,
        19: 1 / 4,
        21: 0,
        23: 0,
        25: 0,
        28: 1,
    }

    def expected(x, y):
        total = 0
        for number, weight in numbers.items():
            if number in (5, 10, 19, 28):
                x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
            conv = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            x, y = (F.relu(F.conv2d(v, *conv, padding=1)) for v in (x, y))
            total = total + weight * F.l1_loss(x, y)
        return total

    for suffix, shape in (("pth", (2, 3, 36, 52)), ("npz", (2, 1, 32, 32))):
        real, fake = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
        x = torch.tensor(fake, requires_grad=True)
        want = expected(x.expand(-1, 3, -1, -1), torch.tensor(real).expand(-1, 3, -1, -1))
        want.backward()
        ours = jt.array(fake)
        got = Perceptual(tmp_path / f"vgg.{suffix}")(jt.array(real), ours)
        assert np.isclose(got.item(), want.item(), rtol=1e-4)
        gradient = jt.grad(got, ours).numpy()
        assert np.abs(gradient - x.grad.numpy()).max() < 1e-4 * x.grad.abs().max().item()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda state: state.pop("features.16.weight"),
            "has no features.16.weight: it is not VGG19",
        ),
        (
            lambda state: state.update({"features.5.bias": np.zeros(3)}),
            "features.5.weight is (8, 4, 3, 3), and",
        ),
        (
            lambda state: state.update({"features.0.weight": np.zeros((4, 1, 3, 3))}),
            "(..., 3, 3, 3) is wanted",
        ),
        (lambda state: state.clear(), "has no features.0.weight"),
    ],
)
def test_weights_that_are_not_vgg19s(tiny_runs, tmp_path, fails, spoil, message):
    torch = pytest.importorskip("torch")
    state = {name: value.numpy() for name, value in torch.load(vgg(tmp_path / "vgg.pth")).items()}
    spoil(state)
    np.savez(tmp_path / "vgg.npz", **state)
    flags = [
        *tiny_runs("spade").flags,
        "--vgg",
        tmp_path / "vgg.npz",
        "--out_dir",
        tmp_path / "out",
    ]
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line and "vgg.npz" in line


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04" + bytes(50)])
@pytest.mark.parametrize("suffix", ["pth", "npz"])
def test_files_that_hold_no_weights(tiny_runs, tmp_path, fails, content, suffix):
    if content is not None:
        (tmp_path / f"vgg.{suffix}").write_bytes(content)
    flags = [
        *tiny_runs("spade").flags,
        "--vgg",
        tmp_path / f"vgg.{suffix}",
        "--out_dir",
        tmp_path / "out",
    ]
    code, line = fails(script.main, flags)
    assert code == 2
    assert f"vgg.{suffix}" in line


def test_a_run_with_vgg_goes_on_bit_by_bit(tiny_runs, tmp_path):
    """Its loss is logged, its weights are in no checkpoint, and a resumed run takes the file again."""
    flags = [*tiny_runs("spade").flags, "--vgg", vgg(tmp_path / "vgg.pth")]
    run("spade", *flags, "--out_dir", tmp_path / "whole")
    run("spade", *flags, "--n_epochs", 1, "--decay_until", 2, "--out_dir", tmp_path / "half")
    run("spade", "--resume", tmp_path / "half", "--n_epochs", 2)
    assert differences(tmp_path / "whole", tmp_path / "half") == []
    assert "loss_VGG" in meta(tmp_path / "half")["losses"]
    assert not [
        name for name in saved_arrays(tmp_path / "half") if "features" in name or "parts" in name
    ]
    (tmp_path / "vgg.pth").unlink()
    run("spade", "--resume", tmp_path / "half", "--sample_only")  # which needs no loss


@pytest.mark.parametrize("with_vgg", [False, True])
def test_step_is_pytorchs(tmp_path, with_vgg):
    """Of a rectangle, whose images are stretched for the encoder."""
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    networks = G, E, D = script.build(script.parse_args([*SMALL, "--img_width", "64"]))
    for p in weights(
        G, E, D
    ):  # at the start they are so small that rounding tells in the first layers' gradients
        if p.ndim > 1:
            p.assign(20 * p)
    for layers in (
        D.large,
        D.small,
    ):  # beyond a corner of the hinge, where the last bias has a gradient that is not 0
        layers[4].bias.assign(layers[4].bias + 1)
    optimizer_G, optimizer_D = (
        nn.Adam(w, lr=0.001, betas=(0.0, 0.9)) for w in (weights(G, E), weights(D))
    )
    labels = jt.array(rng.integers(4, size=(3, 32, 64), dtype=np.int32))
    images = jt.array(rng.uniform(-1, 1, (3, 3, 32, 64)).astype(np.float32))
    noise, twin = (
        jt.array(rng.standard_normal((3, 5)).astype(np.float32)),
        Twin("spade", write_back=False),
    )
    arguments = (
        networks,
        optimizer_G,
        optimizer_D,
        labels,
        images,
        noise,
        {"FM": 10.0, "KL": 0.05, "VGG": 10.0},
    )
    arguments = (*arguments, Perceptual(vgg(tmp_path / "vgg.pth"))) if with_vgg else arguments
    expected = twin.train_step(*arguments)
    assert_same_losses(script.train_step(*arguments), expected)
    for module, optimizer in ((D, optimizer_D), (G, optimizer_G), (E, optimizer_G)):
        assert_same_step(module, twin.module(module), optimizer)


def weights(*modules):
    return [p for module in modules for p in module.parameters()]


def test_spectral_norm_is_pytorchs():
    """Outputs, gradients and the state of the power iteration over steps; and in evaluation, once it has converged."""
    torch = pytest.importorskip("torch")
    rng, ours = np.random.default_rng(0), nn.SpectralNorm(nn.Conv(5, 7, 3, padding=1))
    inner = torch.nn.Conv2d(5, 7, 3, padding=1)
    inner.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.conv.state_dict().items()})
    theirs = torch.nn.utils.spectral_norm(inner)
    theirs.weight_u = torch.tensor(ours.weight_u.numpy())
    assert np.isclose(np.linalg.norm(ours.weight_u.numpy()), 1, atol=1e-6)
    ours.train()
    optimizer, other = (
        nn.Adam(ours.parameters(), lr=0.01),
        torch.optim.Adam(theirs.parameters(), lr=0.01),
    )
    x = rng.standard_normal((2, 5, 6, 6)).astype(np.float32)
    for _ in range(4):
        got, expected = ours(jt.array(x)), theirs(torch.tensor(x))
        assert np.allclose(got.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        assert np.allclose(ours.weight_u.numpy(), theirs.weight_u.numpy(), rtol=1e-4, atol=1e-5)
        optimizer.step((got**3).mean())
        other.zero_grad()
        (expected**3).mean().backward()
        other.step()
        jt.sync_all()
    weight = ours.conv.weight.numpy()
    assert np.allclose(weight, theirs.weight_orig.detach().numpy(), rtol=1e-4, atol=1e-5)
    for _ in range(200):
        ours(jt.array(x)).sync()
    sigma = ours.sigma(ours.conv.weight).item()
    assert np.isclose(sigma, np.linalg.svd(weight.reshape(7, -1), compute_uv=False)[0], rtol=1e-4)
    before = ours.weight_u.numpy().copy()
    ours.eval()
    ours(jt.array(x)).sync()
    assert np.array_equal(ours.weight_u.numpy(), before)


def test_pooling_leaves_the_padding_out():
    x = jt.array(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    got = nn.avg_pool2d(x, 3, stride=2, padding=1).numpy()[0, 0]
    assert np.allclose(
        got,
        [[(0 + 1 + 4 + 5) / 4, (1 + 2 + 3 + 5 + 6 + 7) / 6], [(4 + 5 + 8 + 9 + 12 + 13) / 6, 10]],
    )


def test_losses_by_hand():
    def outputs(scores, features):
        return [jt.array(np.float32(v)) for v in (*scores, *features)]

    real, fake = (
        outputs(([2.0, 0.5], [0.0]), ([1.0], [3.0])),
        outputs(([-3.0, 0.0], [0.5]), ([2.0], [-1.0])),
    )
    # First size: real 0 and 0.5, fake 0 and 1; second size: real 1, fake 1.5.
    assert np.isclose(script.discriminator_loss(real, fake).item(), ((0.25 + 0.5) + (1 + 1.5)) / 2)
    loss_G, loss_FM = script.generator_losses(real, fake)
    assert np.isclose(loss_G.item(), -(-1.5 + 0.5) / 2)
    assert np.isclose(loss_FM.item(), (1 + 4) / 2)
    with pytest.raises(ValueError, match="different shapes"):
        script.generator_losses(real, [x.unsqueeze(0) for x in fake])


def test_divergence_by_hand():
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2 for each number of a code."""
    mean, log_variance = (
        jt.array([[0.0, 2.0], [0.0, 0.0]]),
        jt.array([[0.0, 0.0], [np.log(4.0), 0.0]]),
    )
    assert np.isclose(
        script.divergence(mean, log_variance).item(), (2 + (4 - 1 - np.log(4)) / 2) / 2
    )


# ---- the architecture ----


def test_counts_of_the_authors_code():
    """It prints 92.5 and 5.6 million for 256 pixels and 19 classes without an encoder.

    There a convolution of the map, 19 to 1024 channels, is in the place of the dense layer of the code.
    """
    G, _, D = script.build(script.parse_args(["--paper", "--n_classes", "19"]))
    convolution, dense = 19 * 1024 * 9 + 1024, (256 + 1) * 1024 * 8 * 8
    assert round((n_parameters(G) - dense + convolution) / 1e6, 1) == 92.5
    assert round(n_parameters(D) / 1e6, 1) == 5.6


def test_settings_of_the_paper():
    """Park 2019, section 4: rates of 0.0001 and 0.0004, batches of 32, 200 epochs of ADE20K."""
    args = script.parse_args(["--paper"])
    assert (args.lr, args.lr * args.lr_ratio, args.b1, args.batch_size, args.n_epochs) == (
        0.0001,
        0.0004,
        0,
        32,
        200,
    )
    assert (args.decay_epoch, args.style_dim, args.lambda_FM, args.lambda_KL) == (
        100,
        256,
        10,
        0.05,
    )


@pytest.mark.parametrize("n_doublings", [4, 5, 6])
def test_sizes_by_doublings(n_doublings):
    flags = [
        "--img_size",
        "64",
        "--img_width",
        "128",
        "--n_doublings",
        str(n_doublings),
        "--width",
        "1",
    ]
    G = script.build(script.parse_args([*flags, "--style_dim", "2", "--n_classes", "3"]))[0]
    factor = 2**n_doublings
    assert G.first.weight.shape == [16 * (64 // factor) * (128 // factor), 2]
    assert G(jt.zeros((1, 64, 128), dtype="int32"), jt.zeros((1, 2))).shape == [1, 3, 64, 128]


def test_initial_weights():
    """Glorot's: a deviation of 0.02 sqrt(2 / (inputs + outputs)); biases 0."""
    G, E, D = script.build(script.parse_args(["--width", "8", "--n_classes", "5"]))
    conv = G.blocks[0].conv_0.conv
    assert np.isclose(conv.weight.numpy().std(), 0.02 * (2 / (9 * 2 * 128)) ** 0.5, rtol=0.03)
    assert not conv.bias.numpy().any()
    assert np.isclose(E.mean.weight.numpy().std(), 0.02 * (2 / (16 * 64 + 16)) ** 0.5, rtol=0.03)
    assert D.large[1].layers["0"].conv.bias is None


def test_the_rate_of_the_discriminator(tiny_runs, tmp_path, monkeypatch):
    seen, real_step = [], script.train_step

    def step(networks, optimizer_G, optimizer_D, *args):
        seen.append((optimizer_G.lr, optimizer_D.lr))
        return real_step(networks, optimizer_G, optimizer_D, *args)

    monkeypatch.setattr(script, "train_step", step)
    flags = [*tiny_runs("spade").flags, "--lr", 0.01, "--lr_ratio", 4, "--decay_epoch", 1]
    run("spade", *flags, "--out_dir", tmp_path)
    assert seen[0] == (0.01, 0.04)
    assert seen[-1] == (0.005, 0.02)


# ---- handing in ----


@pytest.fixture
def trained(tiny_runs, tmp_path):
    return shutil.copytree(tiny_runs("spade").half, tmp_path / "run")


def make_maps(folder, n=5, size=(40, 24)):
    folder.mkdir()
    for i in range(n):
        Image.fromarray(np.full(size[::-1], i % 4, np.uint8)).save(folder / f"{i}.png")
    return folder


def paint(trained, maps, out, *flags):
    run("spade", "--resume", trained, "--sample_only", "--input", maps, "--out_dir", out, *flags)
    return {file.name: Image.open(file) for file in sorted(out.iterdir())}


def test_names_sizes_and_format(trained, tmp_path):
    maps = make_maps(tmp_path / "maps")
    own = paint(trained, maps, tmp_path / "own")
    assert [*own] == [f"{i}.jpg" for i in range(5)]
    assert {(x.size, x.format, x.mode) for x in own.values()} == {((40, 24), "JPEG", "RGB")}
    assert {
        x.size for x in paint(trained, maps, tmp_path / "out", "--out_size", "512x384").values()
    } == {(512, 384)}
    one = paint(trained, maps / "3.png", tmp_path / "one")
    assert [*one] == ["3.jpg"]


def test_pieces_of_a_large_map_are_the_map():
    """Of a painter that gives each class its colour: the pieces, as large as in training, are joined without seams."""
    classes, codes, seen = (
        np.random.default_rng(0).integers(5, size=(1, 70, 100)),
        np.zeros((1, 2)),
        [],
    )

    class Colours(hand_in.Painter):
        def __init__(self):
            self.args = Namespace(shape=(32, 48))

        def paint(self, classes, codes):
            assert codes.shape == (1, 2) and classes.dtype == np.int32
            seen.append(classes.shape)
            return np.stack([classes / 4, 1 - classes / 4], axis=1).astype(np.float32)

    got = Colours().paint_in_tiles(classes, codes)
    assert np.allclose(got, np.stack([classes / 4, 1 - classes / 4], axis=1), atol=1e-5)
    assert {*seen} == {(1, 32, 48)} and len(seen) == 3 * 3


def test_a_map_in_pieces(trained, tmp_path):
    """At its own size; one of the training's size is a single piece, and the picture is the one without --tiles."""
    maps, side = tmp_path / "maps", meta(trained)["args"]["img_size"]
    maps.mkdir()
    for name, shape in (("large", (90, 110)), ("same", (side, side))):
        labels = np.random.default_rng(1).integers(2, size=shape, dtype=np.uint8)
        Image.fromarray(labels).save(maps / f"{name}.png")
    pieces = paint(trained, maps, tmp_path / "out", "--tiles")
    whole = paint(trained, maps, tmp_path / "whole")
    assert pieces["large.jpg"].size == (110, 90)
    assert np.array_equal(np.asarray(pieces["same.jpg"]), np.asarray(whole["same.jpg"]))


def test_several_outputs_of_a_map(trained, tmp_path):
    several = paint(trained, make_maps(tmp_path / "maps", n=2), tmp_path / "out", "--n_outputs", 3)
    assert [*several] == [f"{i}_{k}.jpg" for i in range(2) for k in range(3)]


def test_a_call_that_was_stopped_is_continued(trained, tmp_path, monkeypatch):
    """Pictures that are there are left alone, and the rest is what an undisturbed call gives."""
    maps, out, real = make_maps(tmp_path / "maps"), tmp_path / "out", hand_in.write_pictures
    whole = paint(trained, maps, tmp_path / "whole")
    calls = []

    def stop(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(hand_in, "write_pictures", stop)
    with pytest.raises(KeyboardInterrupt):
        paint(trained, maps, out)
    done = {file.name: file.stat().st_mtime_ns for file in out.glob("*.jpg")}
    assert len(done) == 2  # one batch
    monkeypatch.setattr(hand_in, "write_pictures", real)
    again = paint(trained, maps, out)
    assert [*again] == [*whole]
    assert all((out / name).stat().st_mtime_ns == time for name, time in done.items())
    assert all(np.array_equal(np.asarray(again[name]), np.asarray(whole[name])) for name in whole)
    paint(trained, maps, out, "--seed", 1)  # another call begins anew
    assert all((out / name).stat().st_mtime_ns != time for name, time in done.items())


def test_references(trained, tiny_runs, tmp_path, monkeypatch):
    """--ref, --ref_dir and --ref_json find the same image, with any suffix in the file, and it alone is encoded."""
    seen, real = [], hand_in.Painter.encode
    monkeypatch.setattr(
        hand_in.Painter, "encode", lambda painter, x: seen.append(x) or real(painter, x)
    )
    maps, folder = make_maps(tmp_path / "maps", n=2), tmp_path / "styles"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (100 * i, 50, 200)).save(folder / f"{i}.png")
    (tmp_path / "refs.json").write_text(json.dumps({"0.png": "1.jpg", "1.png": "1.png"}))
    ways = {
        "ref": (["--ref", folder / "1.png"], [1, 1]),
        "ref_dir": (["--ref_dir", folder], [0, 1]),
        "ref_json": (["--ref_json", tmp_path / "refs.json", "--image_dir", folder], [1, 1]),
    }
    for name, (flags, expected) in ways.items():
        seen.clear()
        paint(trained, maps, tmp_path / name, *flags)
        red = [round((x[0, 0].mean() + 1) * 127.5) for x in seen]
        assert red == [100 * k for k in expected]
    (tmp_path / "own.json").write_text(json.dumps({"0.png": "3.png", "1.png": "4.jpg"}))
    seen.clear()
    paint(
        trained, maps, tmp_path / "own", "--ref_json", tmp_path / "own.json"
    )  # of the data that it was trained on
    files = [tiny_runs("spade").data / f"train/imgs/{k}.jpg" for k in (3, 4)]
    pixels = [np.asarray(Image.open(file)).transpose(2, 0, 1) / 127.5 - 1 for file in files]
    assert np.allclose(np.concatenate(seen), pixels, atol=1e-5)


def bad_json(text):
    def make(folder):
        (folder / "refs.json").write_text(text)
        return ["--ref_json", folder / "refs.json", "--image_dir", folder]

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda d: ["--ref", d / "none.png"],
            "none.png, the reference of 0.png, is not there; 2 of 2",
        ),
        (lambda d: ["--ref_dir", d / "maps2"], "maps2"),
        (bad_json("{"), "refs.json is no JSON file"),
        (bad_json("[1]"), "refs.json is no JSON file"),
        (bad_json('{"0.png": "x.jpg"}'), "refs.json has no image for 1.png"),
        (
            bad_json('{"0.png": "x.jpg", "1.png": "y.jpg"}'),
            "x, the reference of 0.png, is not there",
        ),
        (
            lambda d: ["--ref", d / "x", "--n_outputs", 2],
            "--ref and --n_outputs ask for different styles",
        ),
        (
            lambda d: ["--ref", d / "x", "--ref_dir", d],
            "--ref and --ref_dir ask for different styles",
        ),
        (lambda d: ["--out_size", "512"], "--out_size: must be width x height such as 512x384"),
        (
            lambda d: Image.fromarray(np.full((8, 8), 9, np.uint8)).save(d / "maps/1.png") or [],
            "1.png holds the label 9",
        ),
        (
            lambda d: Image.new("RGB", (8, 8)).save(d / "maps/1.png") or [],
            "1.png is no label map: it has mode RGB",
        ),
        (lambda d: (d / "maps/1.png").write_bytes(b"x") and [], "1.png cannot be read"),
        (
            lambda d: Image.new("L", (8, 8)).save(d / "maps/1.jpg") or [],
            "1.jpg: jpg alters the labels",
        ),
        (lambda d: ["--input", d / "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_handed_in(trained, tmp_path, fails, make, message):
    maps = make_maps(tmp_path / "maps", n=2)
    flags = ["--input", maps, "--out_dir", tmp_path / "out", *make(tmp_path)]
    code, line = fails(load("spade").main, ["--resume", trained, "--sample_only", *flags])
    assert code == 2
    assert message in line
    assert not [*(tmp_path / "out").glob("*.jpg")]
