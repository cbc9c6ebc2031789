"""What pix2pix.py, cyclegan.py and stargan.py share: own pictures, learning rates."""

import shutil

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images, load, run

TRANSLATE = {"pix2pix": [], "cyclegan": ["--direction", "BtoA"], "stargan": ["--set", "dark=1"]}

pytestmark = pytest.mark.parametrize("name", list(TRANSLATE))


# ---- translating one's own pictures ----


def test_one_image_and_no_out_dir(name, tiny, tmp_path):
    trained = shutil.copytree(tiny.half, tmp_path / "run")
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    run(name, "--resume", trained, "--sample_only", "--input", tmp_path / "x.png", *TRANSLATE[name])
    assert Image.open(trained / "translated/x.png").size == (32, 32)


def test_a_folder_becomes_a_folder_of_the_same_names(name, tiny, tmp_path):
    mine = tmp_path / "mine"
    out = tmp_path / "out"
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (tiny.half / "checkpoint_last.npz").read_bytes()
    flags = ["--input", mine, "--out_dir", out, *TRANSLATE[name]]
    run(name, "--resume", tiny.half, "--sample_only", *flags)
    sizes = {}
    for file in out.rglob("*.*"):
        sizes[str(file.relative_to(out))] = Image.open(file).size
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (tiny.half / "checkpoint_last.npz").read_bytes() == before


def test_networks_of_rectangles(name, tiny, tmp_path):
    """They translate upright and lying pictures, scaled to cover the trained shape."""
    shape = ["--img_height", 32, "--img_width", 64]
    run(name, *tiny.flags, *shape, "--n_epochs", 1, "--out_dir", tmp_path / "run")
    Image.new("RGB", (40, 80)).save(tmp_path / "upright.png")
    Image.new("RGB", (160, 40)).save(tmp_path / "lying.png")
    for picture, size in (("upright", (64, 128)), ("lying", (128, 32))):
        flags = ["--input", tmp_path / f"{picture}.png", *TRANSLATE[name]]
        run(name, "--resume", tmp_path / "run", "--sample_only", *flags)
        assert Image.open(tmp_path / f"run/translated/{picture}.png").size == size


def test_tiles_keep_the_size_of_a_picture(name, tiny, tmp_path):
    """Of one that is larger than a tile, and of one that is smaller."""
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (70, 50), (200, 100, 50)).save(mine / "large.png")
    Image.new("RGB", (20, 30), (200, 100, 50)).save(mine / "small.png")
    flags = ["--input", mine, "--out_dir", tmp_path / "out", "--tile", 32, *TRANSLATE[name]]
    run(name, "--resume", tiny.half, "--sample_only", *flags)
    assert Image.open(tmp_path / "out/large.png").size == (70, 50)
    assert Image.open(tmp_path / "out/small.png").size == (20, 30)


def test_a_tile_that_the_network_cannot_take(name, tiny, tmp_path, fails):
    flags = ["--input", tmp_path, "--tile", 42, *TRANSLATE[name]]
    code, line = fails(load(name).main, ["--resume", tiny.half, "--sample_only", *flags])
    assert code == 2
    assert "--tile 42: it must be a multiple of" in line


def test_drawn_images_cannot_be_rectangles(name, tmp_path, fails):
    flags = ["--img_width", 64, "--img_height", 32, "--out_dir", tmp_path]
    code, line = fails(load(name).main, flags)
    assert code == 2
    assert "are square, not 32 x 64" in line


def test_an_input_is_never_overwritten(name, tiny, tmp_path, fails):
    mine = tmp_path / "mine"
    images(mine, 1)
    before = (mine / "0.png").read_bytes()
    flags = ["--input", mine, "--out_dir", mine, *TRANSLATE[name]]
    code, line = fails(load(name).main, ["--resume", tiny.half, "--sample_only", *flags])
    assert code == 2
    assert "overwrite" in line
    assert (mine / "0.png").read_bytes() == before


def test_nothing_to_translate(name, tiny, tmp_path, fails):
    for path in (tmp_path / "nowhere", tiny.half / "config.json"):
        flags = ["--input", path, "--out_dir", tmp_path / "out", *TRANSLATE[name]]
        code, line = fails(load(name).main, ["--resume", tiny.half, "--sample_only", *flags])
        assert code == 2
        assert str(path) in line


# ---- learning rates ----


def optimizers_of(arguments):
    """The optimizers among the arguments of a training step, some of them in tuples."""
    found = []
    for argument in arguments:
        items = argument if isinstance(argument, tuple) else (argument,)
        found += [item for item in items if isinstance(item, jt.optim.Optimizer)]
    return found


def test_a_run_that_is_resumed_for_more_epochs_keeps_its_rates(name, tiny, tmp_path, monkeypatch):
    """The second of two epochs has half of the rate; two more have it as well."""
    script = load(name)
    real_step = script.train_step
    rates = []

    def train_step(*args, **kwargs):
        rates.append([optimizer.lr for optimizer in optimizers_of(args)])
        return real_step(*args, **kwargs)

    monkeypatch.setattr(script, "train_step", train_step)
    run(name, *tiny.flags, "--lr", 0.004, "--decay_epoch", 1, "--out_dir", tmp_path / "run")
    run(name, "--resume", tmp_path / "run", "--n_epochs", 4)
    assert np.allclose(rates, [[0.004] * 2] * 4 + [[0.002] * 2] * 12)
