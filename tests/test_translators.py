"""pix2pix.py, cyclegan.py, stargan.py: parts of the method by hand, translating folders, bad input."""

import importlib

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from small import FLAGS, SHARED, folders, images, make_data, run

import cyclegan
import pix2pix
import stargan
from common import fast


def test_pool_by_hand():
    """It fills first; then each image is exchanged for an older one, or passes."""
    rng, pool = np.random.default_rng(0), cyclegan.ImagePool(2, (1, 1, 1))
    first = np.float32([1, 2]).reshape(2, 1, 1, 1)
    assert np.array_equal(pool.exchange(first, rng), first)
    kept, passed, exchanged = [1.0, 2.0], 0, 0
    for value in range(3, 103):
        (got,) = pool.exchange(np.full((1, 1, 1, 1), value, np.float32), rng).ravel()
        if got == value:
            passed += 1
        else:
            exchanged += 1
            kept[kept.index(got)] = value
        assert sorted(pool.images.ravel()) == sorted(kept)
    assert 35 <= passed <= 65
    assert passed + exchanged == 100


def test_pool_of_size_zero_passes_everything():
    x = np.ones((3, 1, 1, 1), np.float32)
    assert np.array_equal(cyclegan.ImagePool(0, (1, 1, 1)).exchange(x, np.random.default_rng(0)), x)


def test_exclusive_names_attributes_of_the_data(tmp_path, fails):
    folders(tmp_path / "data")
    argv = ["--data_dir", tmp_path / "data", "--out_dir", tmp_path / "out", "--batch_size", 2, "--exclusive", "none"]
    code, line = fails(stargan.main, argv)
    assert code == 2
    assert "--exclusive: none is none of bright, dark, old" in line


def test_changes_of_attributes_by_hand():
    names, exclusive = ["red", "green", "bold"], ["red", "green"]
    have = np.float32([[1, 0, 1]])
    assert stargan.change(have, names, exclusive, {"green": 1, "bold": 0}).tolist() == [[0, 1, 0]]
    targets = stargan.all_targets(have, names, exclusive)
    assert [t.tolist() for t in targets] == [[[1, 0, 1]], [[0, 1, 1]], [[1, 0, 0]]]


def test_classification_loss_by_hand():
    """Summed over attributes, averaged over the batch: two images, each log 2 for a logit of 0, and log(1 + e^-2)."""
    logits, wanted = np.float32([[0, 2], [0, -2]]), np.float32([[1, 1], [0, 0]])
    loss = stargan.classification_loss(jt.array(logits), jt.array(wanted)).item()
    assert np.isclose(loss, np.log(2) + np.log1p(np.exp(-2)))


# ---- networks ----


@pytest.mark.parametrize(("size", "rows"), [(64, 6), (256, 30)])
def test_patchgan_scores_patches_of_70_pixels(size, rows):
    """Receptive field: 1 + 3 (1 + 1 + 2 * (1 + 2 * (1 + ...))) = 70 for kernels of 4, strides 2, 2, 2, 1, 1."""
    field = 1
    for stride in (1, 1, 2, 2, 2):
        field = field * stride + 4 - stride
    assert field == 70
    score = pix2pix.PatchGAN(3, 2, "instance")
    x = jt.zeros((1, 3, size, size))
    assert score(x, x).shape == cyclegan.PatchGAN(3, 2)(x).shape == [1, 1, rows, rows]


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512])
def test_unet_of_every_size(size):
    generator = pix2pix.UNet(size, 1, 1, "instance", 0.5)
    assert generator(jt.zeros((1, 1, size, size))).shape == [1, 1, size, size]
    assert len(generator.down) == int(np.log2(size))


def test_dropout_stays_on_in_samples():
    """It is the noise: other seeds give other pictures, the same seed the same."""
    jt.set_global_seed(987654321)
    generator, _ = pix2pix.build(pix2pix.parse_args(["--img_size", "32", "--width", "4"]))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    one, same, other = (pix2pix.sample(generator, x, seed) for seed in (1 << 29, 1 << 29, 1 << 30))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert generator.is_training()


@pytest.mark.parametrize(("size", "n"), [(32, 1), (64, 2), (256, 3)])
def test_dropout_follows_the_first_layers_of_full_width(size, n):
    generator = pix2pix.UNet(size, 3, 1, "instance", 0.5)
    assert len([m for m in generator.modules() if isinstance(m, fast.Dropout)]) == n


@pytest.mark.parametrize(("size", "n"), [(128, 6), (256, 9)])
def test_residual_blocks_follow_the_size(size, n):
    G, *_ = cyclegan.build(cyclegan.parse_args(["--img_size", str(size), "--width", "1"]))
    assert sum(isinstance(m, cyclegan.Residual) for m in G.modules()) == n


# ---- translating one's own pictures ----

TRANSLATE = {"pix2pix": [], "cyclegan": ["--direction", "BtoA"], "stargan": ["--set", "dark=1"]}


@pytest.fixture(params=list(TRANSLATE))
def trained(request, tmp_path):
    name = request.param
    data = make_data(name, tmp_path / "data")
    run(name, "--data_dir", data, *SHARED, *FLAGS[name], "--n_epochs", 1, "--out_dir", tmp_path / "run")
    data.rename(tmp_path / "moved away")
    return name, tmp_path / "run"


def test_a_folder_becomes_a_folder_of_the_same_names(trained, tmp_path):
    name, run_dir = trained
    mine = tmp_path / "mine"
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (run_dir / "checkpoint_last.npz").read_bytes()
    out = tmp_path / "out"
    run(name, "--resume", run_dir, "--sample_only", "--input", mine, "--out_dir", out, *TRANSLATE[name])
    sizes = {str(f.relative_to(out)): Image.open(f).size for f in out.rglob("*") if f.is_file()}
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (run_dir / "checkpoint_last.npz").read_bytes() == before


def test_one_image_and_no_out_dir(trained, tmp_path):
    name, run_dir = trained
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    run(name, "--resume", run_dir, "--sample_only", "--input", tmp_path / "x.png", *TRANSLATE[name])
    assert Image.open(run_dir / "translated/x.png").size == (32, 32)


def test_an_input_is_never_overwritten(trained, tmp_path, fails):
    name, run_dir = trained
    images(tmp_path / "mine", 1)
    flags = ["--input", tmp_path / "mine", "--out_dir", tmp_path / "mine", *TRANSLATE[name]]
    code, line = fails(importlib.import_module(name).main, ["--resume", run_dir, "--sample_only", *flags])
    assert code == 2
    assert "overwritten" in line


def test_nothing_to_translate(trained, tmp_path, fails):
    name, run_dir = trained
    main = importlib.import_module(name).main
    for path in (tmp_path / "nowhere", run_dir / "config.json"):
        flags = ["--input", path, "--out_dir", tmp_path / "o", *TRANSLATE[name]]
        code, line = fails(main, ["--resume", run_dir, "--sample_only", *flags])
        assert code == 2
        assert str(path) in line


@pytest.mark.parametrize("text", ["blue", "blue=2", "grey=1", "dark=", ""])
def test_bad_set(tmp_path, fails, text):
    run(
        "stargan",
        "--data_dir",
        make_data("stargan", tmp_path / "data"),
        *SHARED,
        *FLAGS["stargan"],
        "--n_epochs",
        1,
        "--out_dir",
        tmp_path / "run",
    )
    flags = ["--resume", tmp_path / "run", "--sample_only", "--input", tmp_path, "--set", text]
    code, line = fails(stargan.main, flags)
    assert code == 2
    assert "--set takes bright=0|1,dark=0|1,old=0|1" in line


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (pix2pix, ["--img_size", 100], "nearest are 64 and 128"),
        (cyclegan, ["--img_size", 50], "such as 48 or 52"),
        (stargan, ["--img_size", 100], "nearest is 128"),
        (pix2pix, ["--n_samples", 5], "--input"),
        (cyclegan, ["--input", "x"], "--input needs --sample_only"),
        (stargan, ["--input", "x"], "--input needs --sample_only"),
        (pix2pix, ["--direction", "AtoC"], "--direction"),
    ],
)
def test_bad_flags(fails, script, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
