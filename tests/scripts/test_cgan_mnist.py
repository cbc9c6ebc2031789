"""cgan_mnist.py: losses by hand, steps against PyTorch, short runs, bad input."""

import common

import csv
import gzip
import io
import json
import zipfile

import jittor as jt
import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder
from PIL import Image
from registry import saved_arrays

import cgan_mnist as script
from jittor_fast import nn
from tools.describe import n_parameters

SMALL = [
    *("--n_epochs", 2, "--batch_size", 10, "--img_size", 8),
    *("--sample_interval", 4, "--log_interval", 2),
]


def run(*argv):
    script.main([str(a) for a in argv])


def build(*flags):
    return script.build(script.parse_args([str(flag) for flag in flags]))


@pytest.fixture
def short(idx_folder):
    """The flags of a run of 2 epochs of 4 steps."""
    return ["--data_dir", idx_folder, *SMALL]


# ---- losses ----


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("lsgan", ((2 - 1) ** 2 + (-1 - 1) ** 2) / 2),
        ("matching", ((2 - 1) ** 2 + (-1 - 1) ** 2) / 2),
        ("bce", (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2),
    ],
)
def test_generator_loss_by_hand(loss, expected):
    scores = jt.array([2.0, -1.0])
    assert np.isclose(script.generator_loss(scores, loss).item(), expected)


def test_discriminator_loss_by_hand():
    real = jt.array([0.5, 1.0])
    fake = jt.array([2.0, 0.0])
    wrong = jt.array([1.0, 1.0])
    of_real = (0.25 + 0) / 2
    of_fake = (4 + 0) / 2
    of_wrong = (1 + 1) / 2
    loss = script.discriminator_loss(real, fake, None, "lsgan")
    assert np.isclose(loss.item(), (of_real + of_fake) / 2)
    loss = script.discriminator_loss(real, fake, wrong, "matching")
    assert np.isclose(loss.item(), (of_real + (of_fake + of_wrong) / 2) / 2)


def test_a_discriminator_that_guesses_has_a_loss_of_a_quarter():
    guesses = jt.full((4,), 0.5)
    loss = script.discriminator_loss(guesses, guesses, None, "lsgan")
    assert np.isclose(loss.item(), 1 / 4)


def test_the_loss_is_right_where_a_sigmoid_would_saturate():
    loss = script.adversarial_loss(jt.array([40.0]), 0.0, "bce")
    assert np.isclose(loss.item(), 40)


def test_losses_refuse_shapes_that_would_broadcast():
    four = jt.zeros(4)
    column = jt.zeros((4, 1))
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(four, column, None, "lsgan")
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(four, four, column, "matching")


# ---- networks ----


def linear(n_in, n_out):
    """Weights and biases of a linear layer."""
    return n_in * n_out + n_out


def test_parameters_of_the_paper():
    """Layer by layer from the contest's CGAN.py (github.com/Jittor/JGAN)."""
    generator, discriminator = build("--paper")
    embedding = 10 * 10
    G = embedding + linear(110, 128) + linear(128, 256) + linear(256, 512)
    G += linear(512, 1024) + linear(1024, 32 * 32)
    G += 2 * (256 + 512 + 1024)  # batch norm
    D = embedding + linear(32 * 32 + 10, 512) + 2 * linear(512, 512) + linear(512, 1)
    assert n_parameters(generator) == G == 1_757_412
    assert n_parameters(discriminator) == D == 1_055_845


def test_settings_of_the_paper():
    """Those of the contest's CGAN.py, which averages no weights."""
    args = script.parse_args(["--paper"])
    assert args.n_epochs == 100
    assert args.batch_size == 64
    assert args.lr == 0.0002
    assert (args.b1, args.b2) == (0.5, 0.999)
    assert args.latent_dim == 100
    assert args.n_classes == 10
    assert args.img_size == 32
    assert args.channels == 1
    assert args.sample_interval == 1000
    assert args.ema_decay == 0
    assert args.dropout == 0  # Jittor's is off without .train(), which is never called


def test_batch_norm_has_the_usual_eps():
    generator, _ = build()
    norms = [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 3


def test_dropout_is_where_the_contest_has_it():
    _, discriminator = build("--dropout", 0.4)
    layers = list(discriminator.layers.layers.values())
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)]
    assert places == [3, 6]  # after the second and the third linear layer
    assert [layers[i].p for i in places] == [0.4, 0.4]


def test_dropout_acts_in_training_only():
    _, discriminator = build("--dropout", 0.4, "--img_size", 6)
    images = jt.ones((64, 1, 6, 6))  # equal pairs: only dropout makes their scores differ
    labels = jt.zeros((64,), "int32")
    assert discriminator(images, labels).numpy().std() > 1e-4
    discriminator.eval()
    assert discriminator(images, labels).numpy().std() < 1e-6


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(arch, channels):
    generator, discriminator = build("--arch", arch, "--channels", channels, "--img_size", 16)
    z = np.zeros((4, 100), np.float32)
    labels = np.arange(4, dtype=np.int32)
    images = common.predict(generator, z, labels)
    assert images.shape == (4, channels, 16, 16)
    assert np.abs(images).max() <= 1
    assert common.predict(discriminator, images, labels).shape == (4,)


def test_a_sample_depends_on_its_own_label_only():
    """Not on the other samples: in eval mode batch norm uses running statistics."""
    generator, _ = build("--latent_dim", 5, "--img_size", 6)
    z = np.random.default_rng(0).standard_normal((3, 5), dtype=np.float32)
    together = common.predict(generator, z, np.int32([1, 2, 2]))
    alone = common.predict(generator, z[1:2], np.int32([2]))
    other = common.predict(generator, z[1:2], np.int32([3]))
    assert np.allclose(together[1:2], alone, atol=1e-5)
    assert not np.allclose(other, alone, atol=1e-4)


def test_projection_by_hand():
    """Miyato and Koyama 2018: psi(h) + <v(y), h>, with h = (1, -2, 0.5).

    psi(h) is 2 * 1 - 1 * -2 + 0 + 3, and label 1 has the embedding (0, 1, 4).
    """
    discriminator = script.ProjectionDiscriminator(2, 16, 1, 0.0, width=2, n_features=3)
    discriminator.features = lambda images: jt.array([[1.0, -2.0, 0.5]])
    discriminator.psi.weight.assign(jt.array([[2.0, -1.0, 0.0]]))
    discriminator.psi.bias.assign(jt.array([3.0]))
    embeddings = jt.array([[0.0, 0.0, 0.0], [0.0, 1.0, 4.0]])
    discriminator.label_embedding.weight.assign(embeddings)
    image = jt.zeros((1, 1, 16, 16))
    assert np.isclose(discriminator(image, jt.array([0])).item(), 7)
    assert np.isclose(discriminator(image, jt.array([1])).item(), 7 - 2 + 2)


# ---- one step against PyTorch ----


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
def test_step_against_pytorch(arch, loss):
    twins = pytest.importorskip("tools.twins")
    generator, discriminator = build("--arch", arch, "--img_size", 16, "--latent_dim", 5)
    optimizer_G = nn.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.999))
    networks = (generator, discriminator)
    optimizers = (optimizer_G, optimizer_D)
    rng = np.random.default_rng(0)
    real = jt.array(rng.uniform(-1, 1, (8, 1, 16, 16)).astype(np.float32))
    z = jt.array(rng.standard_normal((8, 5), dtype=np.float32))
    labels, fake_labels, wrong_labels = jt.array(rng.integers(10, size=(3, 8), dtype=np.int32))
    tensors = (real, labels, z, fake_labels, wrong_labels)

    twin = twins.Twin("cgan_mnist", write_back=False)
    expected = twin.train_step(networks, optimizers, *tensors, loss=loss)
    found = script.train_step(networks, optimizers, *tensors, loss=loss)
    twins.assert_same_losses(found, expected)
    twins.assert_same_step(generator, twin.module(generator), optimizer_G)
    twins.assert_same_step(discriminator, twin.module(discriminator), optimizer_D)


def test_a_wrong_label_is_never_the_images_own(short, tmp_path, monkeypatch):
    """All nine others occur within 80 draws."""
    shifts = []

    def train_step(networks, optimizers, real, labels, z, fake_labels, wrong_labels, *, loss):
        wrong = wrong_labels.numpy()
        assert 0 <= wrong.min() <= wrong.max() < 10
        shifts.extend((wrong - labels.numpy()) % 10)
        return {"loss_G": jt.array([0.0]), "loss_D": jt.array([1.0])}

    monkeypatch.setattr(script, "train_step", train_step)
    run(*short, "--loss", "matching", "--out_dir", tmp_path / "out")
    assert len(shifts) == 80
    assert set(shifts) == set(range(1, 10))


# ---- runs ----


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_what_a_run_writes(short, tmp_path, arch):
    out = tmp_path / "out"
    flags = ["--img_size", 16, "--arch", arch, "--n_samples", 25, "--export_pkl"]
    run(*short, *flags, "--number", "31415926", "--out_dir", out)
    assert {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()} == {
        ".lock",
        "config.json",
        "index.html",
        "losses.csv",
        "losses.png",
        "checkpoint_last.npz",
        "generator_last.pkl",
        "discriminator_last.pkl",
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
    with (out / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", "loss_G", "loss_D"]
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    assert [row["epoch"] for row in rows] == ["1", "1", "2", "2"]
    assert all(np.isfinite([float(row["loss_G"]), float(row["loss_D"])]).all() for row in rows)


def test_the_averaged_generator_is_exported(short, tmp_path):
    run(*short, "--export_pkl", "--out_dir", tmp_path)
    arrays = saved_arrays(tmp_path)
    exported = jt.load(str(tmp_path / "generator_last.pkl"))
    assert len(exported) > 0
    for name, value in exported.items():
        assert np.array_equal(value, arrays[f"averaged/{name}"])


@pytest.mark.parametrize("loss", ["bce", "matching"])
def test_other_losses_train(short, tmp_path, loss):
    run(*short, "--loss", loss, "--ema_decay", 0, "--out_dir", tmp_path / "out")
    assert (tmp_path / "out/result.png").is_file()


def test_the_number_is_stored_nowhere(short, tmp_path):
    out = tmp_path / "out"
    run(*short, "--out_dir", out, "--number", "8675309")
    for file in out.rglob("*"):
        assert "8675309" not in file.name
        assert file.is_dir() or b"8675309" not in file.read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert "number" not in config["args"]


def test_a_number_is_drawn_from_a_checkpoint(short, tmp_path):
    out = tmp_path / "out"
    strip = tmp_path / "strip"
    run(*short, "--out_dir", out)
    before = (out / "checkpoint_last.npz").read_bytes()
    run("--resume", out, "--sample_only", "--number", "42", "--out_dir", strip)
    assert [f.name for f in strip.iterdir()] == ["result.png"]
    assert Image.open(strip / "result.png").size == (2 * 10 + 2, 12)
    assert (out / "checkpoint_last.npz").read_bytes() == before


def test_config_names_the_arguments_and_versions(short, tmp_path):
    run(*short, "--n_epochs", 1, "--seed", 5, "--out_dir", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["script"] == "cgan_mnist"
    assert config["args"]["seed"] == 5
    assert config["versions"]["jittor"] == jt.__version__


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--number", "12a"], "--number must be a string of the digits"),
        (["--number", ""], "--number: the value is empty"),
        (["--number", "१२"], "--number must be a string of the digits"),
        (["--number", "7", "--n_classes", 5], "not below --n_classes 5"),
        (["--latent_dim", 0], "--latent_dim"),
        (["--n_samples", -1], "--n_samples"),
        (["--img_size", 3], "--img_size: must be a whole number at least 4 and at most 256"),
        (["--img_size", 28, "--arch", "conv"], "--arch conv needs 16, 32 or 64"),
        (["--loss", "hinge"], "--loss"),
        (["--b1", 1], "--b1"),
        (["--batch_size", 41], "--batch_size 41 is more than the 40 images"),
    ],
)
def test_bad_flags(short, tmp_path, fails, flags, message):
    out = tmp_path / "out"
    code, line = fails(script.main, [*short, "--out_dir", out, *flags])
    assert code == 2
    assert message in line
    assert not (out / "checkpoint_last.npz").exists()


def test_a_gpu_that_is_not_there(short, fails):
    if jt.has_cuda:
        pytest.skip("this machine has a GPU")
    code, line = fails(script.main, [*short, "--device", "cuda"])
    assert code == 2
    assert "--device cuda" in line


def no_files(folder):
    for file in folder.iterdir():
        file.unlink()


def no_folder(folder):
    no_files(folder)
    folder.rmdir()


def broken_compression(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bx")


def no_magic_number(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(99)))


def truncated_labels(folder):
    labels = idx_bytes(np.zeros(9, np.uint8))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(labels[:-1])


def three_images_and_four_labels(folder):
    write_idx_folder(folder, np.zeros((3, 4, 4), np.uint8), np.zeros(4, np.uint8))


def a_label_of_ten(folder):
    write_idx_folder(folder, np.zeros((2, 4, 4), np.uint8), np.full(2, 10, np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_files, "found: nothing"),
        (no_folder, "is not a folder"),
        (broken_compression, "cannot be read"),
        (no_magic_number, "magic number is 0"),
        (truncated_labels, "fewer"),
        (three_images_and_four_labels, "3 images, but"),
        (a_label_of_ten, "the label 10"),
    ],
)
def test_bad_data(idx_folder, short, tmp_path, fails, damage, message):
    damage(idx_folder)
    code, line = fails(script.main, [*short, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert message in line


@pytest.mark.parametrize("sample_only", [False, True])
def test_out_dir_that_cannot_be_written(short, tmp_path, fails, sample_only):
    flags = short
    if sample_only:
        run(*short, "--n_epochs", 1, "--out_dir", tmp_path / "out")
        flags = ["--resume", tmp_path / "out", "--sample_only"]
    (tmp_path / "file").write_text("in the way")
    code, line = fails(script.main, [*flags, "--out_dir", tmp_path / "file/out"])
    assert code == 2
    assert "cannot be written" in line


# ---- bad checkpoints ----


@pytest.fixture
def resumed(short, tmp_path, fails):
    """A function of a change of a checkpoint's bytes; resuming gives its error line."""
    run(*short, "--n_epochs", 1, "--out_dir", tmp_path / "out")
    data = (tmp_path / "out/checkpoint_last.npz").read_bytes()

    def call(change, *flags):
        path = tmp_path / "changed.npz"
        path.write_bytes(change(data))
        code, line = fails(script.main, ["--resume", path, "--n_epochs", 2, *flags])
        assert code == 2
        return line

    return call


def replaced(old, new):
    """A change of the text in a checkpoint; the archive itself stays sound."""

    def change(data):
        result = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "meta.npy":
                    assert old.encode() in content
                    content = content.replace(old.encode(), new.encode())
                target.writestr(name, content)
        return result.getvalue()

    return change


def test_files_that_are_no_checkpoints(resumed, tmp_path, fails):
    assert "damaged" in resumed(lambda data: data[:-50])
    assert "damaged" in resumed(lambda data: b"text")
    code, line = fails(script.main, ["--resume", tmp_path / "nothing"])
    assert code == 2
    assert "no checkpoint at" in line


def test_a_flag_that_contradicts_the_checkpoint(resumed):
    line = resumed(lambda data: data, "--latent_dim", 7)
    assert "--latent_dim 7 contradicts" in line
    assert "trained with latent_dim 100" in line


def test_a_checkpoint_with_a_changed_text(resumed):
    """The new text is as long as the old one."""
    assert "was written by xgan_mnist.py" in resumed(replaced("cgan_mnist", "xgan_mnist"))
    assert "does not fit" in resumed(replaced('"n_step"', '"m_step"'))
    assert "--latent_dim" in resumed(replaced('"latent_dim": 100', '"latent_dim": -99'))
    assert "expected" in resumed(replaced('"latent_dim": 100', '"latent_dim": 101'))
    assert "does not know: xrch" in resumed(replaced('"arch"', '"xrch"'))
