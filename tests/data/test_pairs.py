"""Pairs of images: both layouts, both directions, and what is wrong with a pair."""

from common import UserError
from common.data import load_pairs
from common.data.augment import Augment
from common.data.drawn import outline_pairs

import numpy as np
import pytest
from PIL import Image
from registry import images


def pair_image(path, left, right, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], 2 * size[0], 3), np.uint8)
    pixels[:, : size[0]], pixels[:, size[0] :] = left, right
    Image.fromarray(pixels).save(path)


def test_side_by_side_pairs_and_both_directions(tmp_path):
    pair_image(tmp_path / "train/x.png", 255, 0)
    for direction, expected in (("AtoB", [1, -1]), ("BtoA", [-1, 1])):
        inputs, targets = load_pairs(tmp_path, 32, 3, direction).batch([0])
        assert [inputs.mean(), targets.mean()] == expected


@pytest.mark.parametrize("layout", ["train{}", "train/{}", "{}/train"])
def test_two_folders_of_equal_names(tmp_path, layout):
    """The names agree, the suffixes need not; pairs lie in subfolders too."""
    for side, suffix, value in (("A", "png", 255), ("B", "bmp", 0)):
        folder = tmp_path / layout.format(side) / "deep"
        folder.mkdir(parents=True)
        Image.new("L", (32, 32), value).save(folder / f"x.{suffix}")
    inputs, targets = load_pairs(tmp_path, 32, 3).batch([0])
    assert [inputs.mean(), targets.mean()] == [1, -1]


def test_a_pair_with_a_broken_side_is_left_out(tmp_path, capsys):
    for side in "AB":
        images(tmp_path / f"train{side}", 4)
    (tmp_path / "trainB/1.png").write_bytes(b"no image")
    assert [a.name for a, _ in load_pairs(tmp_path, 32, 3).files] == ["0.png", "2.png", "3.png"]
    assert capsys.readouterr().err.count("trainB/1.png") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: images(d / "train", 2, (33, 32)), "33 x 32 pixels cannot be halved"),
        (
            lambda d: (images(d / "trainA", 2), images(d / "trainB", 3)),
            "1 images have no partner in .*trainA: .*2.png",
        ),
        (
            lambda d: (images(d / "trainA", 2), images(d / "trainB", 2, (40, 32))),
            "sizes differ: 32 x 32 and 40 x 32",
        ),
        (lambda d: images(d / "trainA", 2), "trainB is not a folder"),
        (lambda d: images(d / "elsewhere", 2), r"expected train/ .*; found: elsewhere"),
        (lambda d: (d / "train").mkdir(parents=True), "expected png, jpg, .*; found: nothing"),
    ],
)
def test_bad_pairs(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as error:
        load_pairs(tmp_path / "data", 32, 3)
    assert str(tmp_path / "data") in str(error.value)


def test_rectangles(tmp_path):
    """Scaled until they cover the shape, the middle cut out: by hand, from a picture of three stripes."""
    stripes = np.repeat(np.uint8([0, 128, 255]), 20)[:, None].repeat(40, axis=1)  # 60 x 40 pixels
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        Image.fromarray(stripes).save(tmp_path / f"train{side}/x.png")
    inputs, _ = load_pairs(tmp_path, (20, 40), 1).batch([0])
    assert inputs.shape == (1, 1, 20, 40)
    assert np.allclose(inputs, 128 / 127.5 - 1, atol=1e-6)
    inputs, targets = load_pairs(tmp_path, (32, 64), 1, augment=Augment()).batch([0], [7])
    assert inputs.shape == (1, 1, 32, 64)
    assert np.array_equal(inputs, targets)


def test_drawn_pairs_are_those_of_the_whole_set():
    """They are drawn one by one when they are needed; "val" and "test" are the same part."""
    outlines, paintings, _ = outline_pairs(32, "test")
    for split in ("val", "test"):
        data = load_pairs(None, 32, 3, "BtoA", split)
        inputs, targets = data.batch([3, 499])
        assert len(data) == 500
        assert np.allclose(inputs, paintings[[3, 499]] / 127.5 - 1, atol=1e-6)
        assert np.allclose(targets, outlines[[3, 499]] / 127.5 - 1, atol=1e-6)
    grey, _ = load_pairs(None, 32, 1).batch([0])
    assert grey.shape == (1, 1, 32, 32)
