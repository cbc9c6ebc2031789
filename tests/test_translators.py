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
