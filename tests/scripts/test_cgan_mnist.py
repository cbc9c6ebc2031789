"""cgan_mnist.py: losses by hand, its step against PyTorch, short runs, bad input."""

import common
from common.networks import n_parameters

import gzip
import json

import jittor as jt
import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder
from PIL import Image

import cgan_mnist as script
from jittor_fast import nn

SMALL = [
    "--n_epochs",
    2,
    "--batch_size",
    10,
    "--img_size",
    8,
    "--sample_interval",
    4,
    "--log_interval",
    2,
]


def run(*argv):
    return script.main([str(a) for a in argv])


@pytest.fixture
def short(idx_folder):
    """The flags of a run of 2 epochs of 4 steps."""
    return ["--data_dir", idx_folder, *SMALL]


def saved_arrays(folder):
    with np.load(folder / "checkpoint_last.npz") as file:
        return {name: file[name] for name in file.files if name != "meta"}


# ---- numbers ----


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("lsgan", ((2 - 1) ** 2 + (-1 - 1) ** 2) / 2),
        ("matching", ((2 - 1) ** 2 + (-1 - 1) ** 2) / 2),
        ("bce", (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2),
    ],
)
def test_generator_loss_by_hand(loss, expected):
    assert np.isclose(script.adversarial_loss(jt.array([2.0, -1.0]), 1.0, loss).item(), expected)


def test_discriminator_loss_by_hand():
    real, fake, wrong = jt.array([0.5, 1.0]), jt.array([2.0, 0.0]), jt.array([1.0, 1.0])
    # real: (0.25 + 0) / 2, fake: (4 + 0) / 2, wrong: (1 + 1) / 2
    assert np.isclose(script.discriminator_loss(real, fake, None, "lsgan").item(), (0.125 + 2) / 2)
    assert np.isclose(
        script.discriminator_loss(real, fake, wrong, "matching").item(), (0.125 + (2 + 1) / 2) / 2
    )


def test_loss_is_right_where_a_sigmoid_would_saturate():
    assert np.isclose(script.adversarial_loss(jt.array([40.0]), 0.0, "bce").item(), 40)


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros((4, 1)), None, "lsgan")
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros(4), jt.zeros(4), jt.zeros((4, 1)), "matching")


def test_the_projection_by_hand():
    """With h = (1, -2, 0.5): psi(h) = 2 * 1 - 1 * -2 + 0 + 3, and label 1 has the embedding (0, 1, 4)."""
    D = script.ProjectionDiscriminator(2, 16, 1, 0.0, width=2, n_features=3)
    D.features = lambda images: jt.array([[1.0, -2.0, 0.5]])
    D.realism.weight.assign(jt.array([[2.0, -1.0, 0.0]]))
    D.realism.bias.assign(jt.array([3.0]))
    D.label_embedding.weight.assign(jt.array([[0.0, 0.0, 0.0], [0.0, 1.0, 4.0]]))
    score = [D(jt.zeros((1, 1, 16, 16)), jt.array([label])).item() for label in (0, 1)]
    assert np.allclose(score, [7, 7 - 2 + 2])


def test_parameters_of_the_paper():
    """Layer by layer from the sizes in the contest's CGAN.py (github.com/Jittor/JGAN, models/cgan)."""
    args = script.parse_args(["--paper"])
    generator, discriminator = script.build(args)

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    def norm(width):
        return 2 * width

    G = 10 * 10 + linear(110, 128) + linear(128, 256) + norm(256) + linear(256, 512) + norm(512)
    G += linear(512, 1024) + norm(1024) + linear(1024, 32 * 32)
    D = 10 * 10 + linear(32 * 32 + 10, 512) + 2 * linear(512, 512) + linear(512, 1)
    assert (
        (n_parameters(generator), n_parameters(discriminator)) == (G, D) == (1_757_412, 1_055_845)
    )


def test_values_of_the_paper():
    """The contest's flags; it averages no weights, and its dropout is never switched on."""
    args = vars(script.parse_args(["--paper"]))
    contest = {
        "n_epochs": 100,
        "batch_size": 64,
        "lr": 0.0002,
        "b1": 0.5,
        "b2": 0.999,
        "latent_dim": 100,
    }
    contest |= {"n_classes": 10, "img_size": 32, "channels": 1, "sample_interval": 1000}
    contest |= {"arch": "mlp", "loss": "lsgan", "ema_decay": 0, "dropout": 0}
    assert {name: args[name] for name in contest} == contest


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(arch, channels):
    args = script.parse_args(["--arch", arch, "--channels", str(channels), "--img_size", "16"])
    generator, discriminator = script.build(args)
    labels = np.arange(4, dtype=np.int32)
    images = common.in_chunks(generator, np.zeros((4, 100), np.float32), labels)
    assert images.shape == (4, channels, 16, 16)
    assert np.abs(images).max() <= 1
    assert discriminator(jt.array(images), jt.array(labels)).shape == [4]


def test_batch_norm_has_the_usual_eps():
    norms = [m for m in script.Generator(5, 10, 6, 1).modules() if hasattr(m, "running_mean")]
    assert [norm.eps for norm in norms] == [1e-5] * 3


def test_dropout_is_where_the_contest_has_it_and_acts_in_training():
    _, discriminator = script.build(script.parse_args(["--dropout", "0.4", "--img_size", "6"]))
    kinds = [
        (type(layer).__name__, getattr(layer, "p", None))
        for layer in discriminator.layers.layers.values()
    ]
    assert [i for i, (kind, p) in enumerate(kinds) if (kind, p) == ("Dropout", 0.4)] == [3, 6]
    images, labels = jt.ones((64, 1, 6, 6)), jt.zeros((64,), "int32")  # 64 equal rows
    assert discriminator(images, labels).numpy().std() > 1e-4
    discriminator.eval()
    assert discriminator(images, labels).numpy().std() < 1e-6


def test_samples_depend_on_their_label_only_through_it():
    """One row's image does not depend on the others: eval mode uses running statistics."""
    generator = script.Generator(5, 10, 6, 1)
    generator.train()
    z, labels = (
        np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32),
        np.int32([1, 2, 2]),
    )
    together = common.in_chunks(generator, z, labels)
    assert np.allclose(together[1:2], common.in_chunks(generator, z[1:2], labels[1:2]), atol=1e-5)
    assert not np.allclose(
        common.in_chunks(generator, z[1:2], np.int32([3])), together[1:2], atol=1e-4
    )


# ---- the step, against PyTorch ----


@pytest.mark.parametrize(
    ("arch", "loss"),
    [
        ("mlp", "lsgan"),
        ("mlp", "bce"),
        ("mlp", "matching"),
        ("conv", "lsgan"),
        ("conv", "matching"),
    ],
)
def test_a_step_is_pytorchs(arch, loss):
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    jt.set_global_seed(987654321)
    rng = np.random.default_rng(0)
    args = script.parse_args(["--arch", arch, "--img_size", "16", "--latent_dim", "5"])
    G, D = script.build(args)
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (G, D)
    )
    real, z = rng.uniform(-1, 1, (8, 1, 16, 16)), rng.standard_normal((8, 5))
    labels, wanted, wrong = (jt.array(rng.integers(10, size=8).astype(np.int32)) for _ in range(3))
    inputs = [
        jt.array(real.astype(np.float32)),
        labels,
        jt.array(z.astype(np.float32)),
        wanted,
        wrong,
    ]
    twin = Twin("cgan_mnist", write_back=False)
    want = twin.train_step(G, D, optimizer_G, optimizer_D, *inputs, loss=loss)
    got = script.train_step(G, D, optimizer_G, optimizer_D, *inputs, loss=loss)
    assert_same_losses(got, want)
    assert_same_step(G, twin.module(G), optimizer_G)
    assert_same_step(D, twin.module(D), optimizer_D)


def test_a_wrong_label_never_is_the_images_own(short, tmp_path, monkeypatch):
    """And the other labels are drawn as they come: over 80 draws, each of the nine steps from the label shows."""
    shifts = []

    def train_step(G, D, optimizer_G, optimizer_D, real, labels, z, wanted, wrong_labels, loss):
        shifts.append((wrong_labels.numpy() - labels.numpy()) % 10)
        assert 0 <= wrong_labels.numpy().min() <= wrong_labels.numpy().max() < 10
        return {"loss_G": jt.array([0.0]), "loss_D": jt.array([1.0])}

    monkeypatch.setattr(script, "train_step", train_step)
    run(*short, "--loss", "matching", "--out_dir", tmp_path / "out")
    assert set(np.concatenate(shifts).tolist()) == set(range(1, 10))


# ---- runs ----


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_run_writes_what_the_readme_says(idx_folder, tmp_path, arch):
    out = tmp_path / "out"
    flags = [
        "--data_dir",
        idx_folder,
        *SMALL,
        "--img_size",
        16,
        "--arch",
        arch,
        "--n_samples",
        25,
        "--export_pkl",
    ]
    losses = run(*flags, "--out_dir", out, "--number", "31415926")
    assert losses.keys() == {"loss_G", "loss_D"}
    assert all(np.isfinite(value) for value in losses.values())
    names = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert names == {
        "config.json",
        "index.html",
        "losses.csv",
        "losses.png",
        "checkpoint_last.npz",
        "generator_last.pkl",
        "result.png",
        "samples.npz",
        "samples/step_0000004.png",
        "samples/step_0000008.png",
    }
    assert Image.open(out / "result.png").size == (8 * 18 + 2, 20)
    with np.load(out / "samples.npz") as samples:
        assert samples["images"].shape == (25, 16, 16, 1)
        assert samples["images"].dtype == np.uint8
        assert samples["labels"].tolist() == [i % 10 for i in range(25)]
    rows = (out / "losses.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss_G,loss_D"
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["2", "1"],
        ["4", "1"],
        ["6", "2"],
        ["8", "2"],
    ]
    assert jt.load(str(out / "generator_last.pkl")).keys() == {
        name.removeprefix("ema/") for name in saved_arrays(out) if name.startswith("ema/")
    }


def test_the_number_is_written_nowhere(short, tmp_path):
    run(*short, "--out_dir", tmp_path / "out", "--number", "8675309")
    for file in (tmp_path / "out").rglob("*"):
        assert "8675309" not in file.name
        assert file.is_dir() or b"8675309" not in file.read_bytes()


def test_sample_only_needs_no_data(short, tmp_path, monkeypatch):
    run(*short, "--out_dir", tmp_path / "out")
    before = (tmp_path / "out/checkpoint_last.npz").read_bytes()
    monkeypatch.setattr(script, "load_digits", None)
    run(
        "--resume",
        tmp_path / "out",
        "--sample_only",
        "--number",
        "42",
        "--out_dir",
        tmp_path / "strip",
    )
    assert [f.name for f in (tmp_path / "strip").iterdir()] == ["result.png"]
    assert Image.open(tmp_path / "strip/result.png").size == (2 * 10 + 2, 12)
    assert (tmp_path / "out/checkpoint_last.npz").read_bytes() == before


def test_matching_and_bce_train(short, tmp_path):
    for loss in ("bce", "matching"):
        run(*short, "--out_dir", tmp_path / loss, "--loss", loss, "--ema_decay", 0)
        assert (tmp_path / loss / "result.png").is_file()


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--number", "12a"], "--number must be a string of the digits"),
        (["--number", ""], "--number must be a string of the digits"),
        (["--number", "१२"], "--number must be a string of the digits"),
        (["--number", "7", "--n_classes", 5], "not below --n_classes 5"),
        (["--n_epochs", 0], "--n_epochs: must be a whole number at least 1"),
        (["--batch_size", -64], "--batch_size"),
        (["--lr", 0], "--lr: must be a number above 0"),
        (["--lr", "nan"], "--lr"),
        (["--b1", 1], "--b1"),
        (["--latent_dim", 0], "--latent_dim"),
        (["--n_samples", -1], "--n_samples"),
        (["--sample_interval", 0], "--sample_interval"),
        (["--img_size", 0], "--img_size"),
        (["--img_size", 3], "--img_size must be from 4 to 256"),
        (["--img_size", 28, "--arch", "conv"], "nearest is 32"),
        (["--channels", 2], "--channels"),
        (["--loss", "hinge"], "--loss"),
        (["--sample_only"], "--sample_only needs --resume"),
        (["--n_epoch", 3], "unrecognized arguments: --n_epoch"),
        (["--device", "cuda"], "--device cuda"),
        (["--batch_size", 41], "--batch_size 41 is more than the 40 images"),
    ],
)
def test_bad_flags(idx_folder, tmp_path, fails, flags, message):
    if "cuda" in flags and jt.has_cuda:
        pytest.skip("this machine has a GPU")
    code, line = fails(
        script.main, ["--data_dir", idx_folder, "--out_dir", tmp_path / "out", *flags]
    )
    assert code == 2
    assert message in line
    assert not (tmp_path / "out/checkpoint_last.npz").exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda d: [f.unlink() for f in d.iterdir()], "found: nothing"),
        (lambda d: [f.unlink() for f in d.iterdir()] + [d.rmdir()], "is not a folder"),
        (lambda d: (d / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bx"), "cannot be read"),
        (
            lambda d: (d / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(99))),
            "magic number is 0",
        ),
        (
            lambda d: write_idx_folder(d, np.zeros((3, 4, 4), np.uint8), np.zeros(4, np.uint8)),
            "3 images, but",
        ),
        (
            lambda d: write_idx_folder(d, np.zeros((2, 4, 4), np.uint8), np.full(2, 10, np.uint8)),
            "the label 10",
        ),
        (
            lambda d: (d / "train-labels-idx1-ubyte.gz").write_bytes(
                idx_bytes(np.zeros(9, np.uint8))[:-1]
            ),
            "fewer",
        ),
    ],
)
def test_bad_data(idx_folder, tmp_path, fails, prepare, message):
    prepare(idx_folder)
    code, line = fails(
        script.main, ["--data_dir", idx_folder, "--out_dir", tmp_path / "out", *SMALL]
    )
    assert code == 2
    assert message in line


def test_bad_checkpoints(short, tmp_path, fails):
    out = tmp_path / "out"
    run(*short, "--out_dir", out, "--n_epochs", 1)
    good = (out / "checkpoint_last.npz").read_bytes()

    def resume(data, *flags):
        (tmp_path / "x.npz").write_bytes(data)
        code, line = fails(script.main, ["--resume", tmp_path / "x.npz", "--n_epochs", 2, *flags])
        assert code == 2
        return line

    assert "no checkpoint at" in fails(script.main, ["--resume", tmp_path / "nothing"])[1]
    assert "damaged" in resume(good[:-50])
    assert "damaged" in resume(b"text")
    assert "--latent_dim 7 contradicts" in resume(good, "--latent_dim", 7)
    assert "trained with latent_dim 100" in resume(good, "--latent_dim", 7)
    # Tampering with the stored text, without its size.
    assert "was written by xgan_mnist.py" in resume(replaced(good, "cgan_mnist", "xgan_mnist"))
    assert "does not fit" in resume(replaced(good, '"n_step"', '"m_step"'))
    assert "--latent_dim" in resume(replaced(good, '"latent_dim": 100', '"latent_dim": -99'))
    assert "expected" in resume(replaced(good, '"latent_dim": 100', '"latent_dim": 101'))
    assert "does not know: xrch" in resume(replaced(good, '"arch"', '"xrch"'))


def replaced(data, old, new):
    """A checkpoint's bytes with its text changed, rewritten so that the archive itself is sound."""
    import io
    import zipfile

    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "meta.npy":
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            target.writestr(name, content)
    return result.getvalue()


@pytest.mark.parametrize("sample_only", [False, True])
def test_out_dir_that_cannot_be_written(short, tmp_path, fails, sample_only):
    (tmp_path / "file").write_text("in the way")
    flags = ["--out_dir", tmp_path / "file" / "out"]
    if sample_only:
        run(*short, "--out_dir", tmp_path / "out", "--n_epochs", 1)
        flags += ["--resume", tmp_path / "out", "--sample_only"]
    code, line = fails(script.main, [*([] if sample_only else short), *flags])
    assert code == 2
    assert "cannot be written" in line


def test_config_names_the_arguments_and_versions(short, tmp_path):
    run(*short, "--out_dir", tmp_path / "out", "--seed", 5)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["script"] == "cgan_mnist"
    assert config["args"]["seed"] == 5
    assert config["versions"]["jittor"] == jt.__version__
    assert "number" not in config["args"]
