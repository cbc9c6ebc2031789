"""One's own pictures through pix2pix.py, cyclegan.py and stargan.py: where they go, and what cannot be translated."""

import shutil

import pytest
from PIL import Image
from registry import images, load, run

TRANSLATE = {"pix2pix": [], "cyclegan": ["--direction", "BtoA"], "stargan": ["--set", "dark=1"]}

pytestmark = pytest.mark.parametrize("name", list(TRANSLATE))


def test_one_image_and_no_out_dir(name, tiny, tmp_path):
    trained = shutil.copytree(tiny.half, tmp_path / "run")
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    run(name, "--resume", trained, "--sample_only", "--input", tmp_path / "x.png", *TRANSLATE[name])
    assert Image.open(trained / "translated/x.png").size == (32, 32)


def test_a_model_of_rectangles(name, tiny, tmp_path):
    """It trains, and translates upright and lying pictures at their own aspect ratio, scaled to cover its shape."""
    shape = ["--img_height", 32, "--img_width", 64]
    run(name, *tiny.flags, *shape, "--n_epochs", 1, "--out_dir", tmp_path / "run")
    Image.new("RGB", (40, 80)).save(tmp_path / "upright.png")
    Image.new("RGB", (160, 40)).save(tmp_path / "lying.png")
    for picture, size in (("upright", (64, 128)), ("lying", (128, 32))):
        flags = ["--input", tmp_path / f"{picture}.png", *TRANSLATE[name]]
        run(name, "--resume", tmp_path / "run", "--sample_only", *flags)
        assert Image.open(tmp_path / f"run/translated/{picture}.png").size == size


def test_tiles(name, tiny, tmp_path, fails):
    """A picture keeps its size, larger or smaller than a tile; a tile is as an image must be, and needs a picture."""
    call = [
        "--resume",
        tiny.half,
        "--sample_only",
        "--input",
        tmp_path,
        "--out_dir",
        tmp_path / "out",
        "--tile",
    ]
    for picture, size in (("large", (70, 50)), ("small", (20, 30))):
        Image.new("RGB", size, (200, 100, 50)).save(tmp_path / f"{picture}.png")
    run(name, *call, 32, *TRANSLATE[name])
    assert [Image.open(tmp_path / f"out/{x}.png").size for x in ("large", "small")] == [
        (70, 50),
        (20, 30),
    ]
    code, line = fails(load(name).main, [*call, 42, *TRANSLATE[name]])
    assert code == 2
    assert "--tile 42: it must be a multiple of" in line


def test_drawn_digits_cannot_be_rectangles(name, tmp_path, fails):
    code, line = fails(
        load(name).main, ["--img_width", 64, "--img_height", 32, "--out_dir", tmp_path]
    )
    assert code == 2
    assert "digits are square, not 32 x 64" in line


def test_an_input_is_never_overwritten(name, tiny, tmp_path, fails):
    images(tmp_path / "mine", 1)
    before = (tmp_path / "mine/0.png").read_bytes()
    flags = ["--input", tmp_path / "mine", "--out_dir", tmp_path / "mine", *TRANSLATE[name]]
    code, line = fails(load(name).main, ["--resume", tiny.half, "--sample_only", *flags])
    assert code == 2
    assert "overwritten" in line
    assert (tmp_path / "mine/0.png").read_bytes() == before


def test_nothing_to_translate(name, tiny, tmp_path, fails):
    for path in (tmp_path / "nowhere", tiny.half / "config.json"):
        flags = ["--input", path, "--out_dir", tmp_path / "out", *TRANSLATE[name]]
        code, line = fails(load(name).main, ["--resume", tiny.half, "--sample_only", *flags])
        assert code == 2
        assert str(path) in line
