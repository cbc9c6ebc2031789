"""Pairs of images: both layouts, both directions, and what is wrong with a pair."""

from common import UserError
from common.data import load_pairs
from common.data.augment import Augment
from common.data.pairs import distances
from common.data.toy.drawn import outline_pairs

import numpy as np
import pytest
from PIL import Image
from registry import images


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("AtoB", (1, -1)), ("BtoA", (-1, 1))],
)
def test_side_by_side_pairs_in_both_directions(tmp_path, direction, expected):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32] = 255
    (tmp_path / "train").mkdir()
    Image.fromarray(pixels).save(tmp_path / "train/x.png")
    inputs, targets = load_pairs(tmp_path, 32, 3, direction).batch([0])
    assert (inputs.mean(), targets.mean()) == expected


@pytest.mark.parametrize("layout", ["train{}", "train/{}", "{}/train"])
def test_two_folders_of_equal_names(tmp_path, layout):
    """The suffixes of a pair may differ, and pairs may lie in subfolders."""
    for side, suffix, value in (("A", "png", 255), ("B", "bmp", 0)):
        folder = tmp_path / layout.format(side) / "deep"
        folder.mkdir(parents=True)
        Image.new("L", (32, 32), value).save(folder / f"x.{suffix}")
    inputs, targets = load_pairs(tmp_path, 32, 3).batch([0])
    assert (inputs.mean(), targets.mean()) == (1, -1)


def test_a_pair_with_a_broken_side_is_left_out(tmp_path, capsys):
    images(tmp_path / "trainA", 4)
    images(tmp_path / "trainB", 4)
    (tmp_path / "trainB/1.png").write_bytes(b"no image")
    data = load_pairs(tmp_path, 32, 3)
    assert [a.name for a, _ in data.files] == ["0.png", "2.png", "3.png"]
    assert capsys.readouterr().err.count("trainB/1.png") == 1


def test_rectangles(tmp_path):
    """Three stripes, 60 x 40 pixels, of which 20 x 40 in the middle remain."""
    stripes = np.repeat(np.uint8([0, 128, 255]), 20)[:, None].repeat(40, axis=1)
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        Image.fromarray(stripes).save(tmp_path / f"train{side}/x.png")
    inputs, _ = load_pairs(tmp_path, (20, 40), 1).batch([0])
    assert inputs.shape == (1, 1, 20, 40)
    assert np.allclose(inputs, 128 / 127.5 - 1, atol=1e-6)
    inputs, targets = load_pairs(tmp_path, (32, 64), 1, augment=Augment()).batch([0], [7])
    assert inputs.shape == (1, 1, 32, 64)
    assert np.array_equal(inputs, targets)


@pytest.mark.parametrize("split", ["val", "test"])
def test_drawn_pairs_are_those_of_the_whole_set(split):
    """They are drawn one by one; "val" and "test" are the same split."""
    outlines, paintings, _ = outline_pairs(32, "test")
    data = load_pairs(None, 32, 3, "BtoA", split)
    inputs, targets = data.batch([3, 499])
    assert len(data) == 500
    assert np.allclose(inputs, paintings[[3, 499]] / 127.5 - 1, atol=1e-6)
    assert np.allclose(targets, outlines[[3, 499]] / 127.5 - 1, atol=1e-6)


def test_grey_drawn_pairs():
    inputs, targets = load_pairs(None, 32, 1).batch([0])
    assert inputs.shape == targets.shape == (1, 1, 32, 32)


class FourPairs:
    """Inputs of 0 and targets of 0.5, as (1, 2, 2) images."""

    def __len__(self):
        return 4

    def batch(self, indices):
        zeros = np.zeros((len(indices), 1, 2, 2))
        return zeros, zeros + 0.5


def test_distances_by_hand():
    """All differences are 0.5, so the PSNR is 10 log10(4 / 0.25) = 12.04 dB."""
    seen = []

    def draw(inputs, first):
        seen.append((len(inputs), first))
        return inputs

    result = distances(draw, FourPairs(), batch_size=3)
    assert seen == [(3, 0), (1, 3)]
    assert result["val_L1"] == 0.5
    assert result["val_PSNR"] == pytest.approx(12.0412, abs=1e-4)


# ---- errors ----


def odd_width(folder):
    images(folder / "train", 2, (33, 32))


def a_missing_partner(folder):
    images(folder / "trainA", 2)
    images(folder / "trainB", 3)


def different_sizes(folder):
    images(folder / "trainA", 2)
    images(folder / "trainB", 2, (40, 32))


def one_side(folder):
    images(folder / "trainA", 2)


def another_folder(folder):
    images(folder / "elsewhere", 2)


def empty(folder):
    (folder / "train").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (odd_width, "33 x 32 pixels cannot be halved"),
        (a_missing_partner, "1 images have no partner in .*trainA: .*2.png"),
        (different_sizes, "sizes differ: 32 x 32 and 40 x 32"),
        (one_side, "trainB is not a folder"),
        (another_folder, r"expected train/ .*; found: elsewhere"),
        (empty, "expected png, jpg, .*; found: nothing"),
    ],
)
def test_bad_pairs(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as error:
        load_pairs(tmp_path / "data", 32, 3)
    assert str(tmp_path / "data") in str(error.value)
