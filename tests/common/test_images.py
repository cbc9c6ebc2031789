"""Pictures, pixel by pixel against grids made by hand."""

from common import UserError, save_image
from common.errors import NotFinite
from common.images import save_each, save_rows, to_uint8

import errno
import os

import jittor as jt
import numpy as np
import pytest
from PIL import Image

BLACK_GREY_WHITE = np.float32([-1, 0, 1]).reshape(3, 1, 1, 1) * np.ones((3, 1, 2, 3), np.float32)


def read(path):
    return np.asarray(Image.open(path))


# ---- save_image ----


@pytest.mark.parametrize("images", [BLACK_GREY_WHITE, jt.array(BLACK_GREY_WHITE)])
def test_a_grid_is_padded_and_filled_row_by_row(tmp_path, images):
    save_image(images, tmp_path / "new" / "folder" / "grid.png", nrow=2, padding=1)
    black = [0] * 3
    grey = [128] * 3
    white = [255] * 3
    between = [0] * 9
    above = [0, *black, 0, *grey, 0]
    below = [0, *white, 0, *black, 0]
    expected = [between, above, above, between, below, below, between]
    assert read(tmp_path / "new" / "folder" / "grid.png").tolist() == expected


def test_one_image_without_padding_keeps_its_pixels(tmp_path):
    image = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16) / 127.5 - 1
    save_image(image, tmp_path / "one.png", padding=0)
    assert read(tmp_path / "one.png").tolist() == np.arange(256).reshape(16, 16).tolist()


def test_rgb_keeps_the_order_of_its_channels(tmp_path):
    image = np.float32([1, 0, 0]).reshape(1, 3, 1, 1)
    save_image(image, tmp_path / "red.png", padding=0, value_range=(0, 1))
    assert read(tmp_path / "red.png").tolist() == [[[255, 0, 0]]]


def test_the_range_is_fixed_and_values_are_clipped():
    image = np.float32([-3, -1, -0.5, 0.5, 3]).reshape(1, 1, 1, 5)
    # (x + 1) / 2 * 255 is 63.75 for -0.5, and 191.25 for 0.5.
    assert to_uint8(image).ravel().tolist() == [0, 0, 64, 191, 255]


def test_the_suffix_chooses_the_format(tmp_path):
    save_image(np.zeros((1, 3, 8, 8), np.float32), tmp_path / "x.jpg")
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 8, 8), {}, r"\(N, C, H, W\)"),
        ((1, 2, 8, 8), {}, r"\(N, C, H, W\)"),
        ((0, 1, 8, 8), {}, "N >= 1"),
        ((1, 1, 8, 8), {"nrow": 0}, "nrow"),
        ((1, 1, 8, 8), {"padding": -1}, "padding"),
        ((1, 1, 8, 8), {"value_range": (1, 1)}, "value_range"),
    ],
)
def test_wrong_arguments(tmp_path, shape, options, message):
    with pytest.raises(ValueError, match=message):
        save_image(np.zeros(shape, np.float32), tmp_path / "x.png", **options)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    with pytest.raises(NotFinite, match="NaN or infinite"):
        save_image(np.full((1, 1, 4, 4), value, np.float32), tmp_path / "x.png")


def test_an_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match="ends in"):
        save_image(np.zeros((1, 1, 4, 4), np.float32), tmp_path / "x.gif")


# ---- save_rows ----

# One pixel each, whose first channel is white and whose other channels are black.
ONE_OF_EACH = [np.full((1, c, 1, 1), -1, np.float32) for c in (1, 3, 4, 2)]
for pixel in ONE_OF_EACH:
    pixel[:, 0] = 1


def test_rows_of_different_channels(tmp_path):
    """Grey stays grey beside RGB. Of four channels three are shown, of two one."""
    save_rows(tmp_path / "rows.png", *ONE_OF_EACH)
    white = [255, 255, 255]
    red = [255, 0, 0]
    assert read(tmp_path / "rows.png")[2::3, 2].tolist() == [white, red, red, white]


def test_grey_rows_are_a_grey_picture(tmp_path):
    save_rows(tmp_path / "grey.png", ONE_OF_EACH[0], ONE_OF_EACH[0])
    assert read(tmp_path / "grey.png").shape == (8, 5)


def test_rows_and_columns(tmp_path):
    one = np.float32([-1, 0]).reshape(2, 1, 1, 1)
    two = np.float32([1, -1]).reshape(2, 1, 1, 1)
    save_rows(tmp_path / "rows.png", one, two)
    assert read(tmp_path / "rows.png")[2::3, 2::3].tolist() == [[0, 128], [255, 0]]
    save_rows(tmp_path / "columns.png", one, two, columns=True)
    assert read(tmp_path / "columns.png")[2::3, 2::3].tolist() == [[0, 255], [128, 0]]


# ---- save_each ----


def test_a_link_in_the_place_of_a_picture_is_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "png").mkdir()
    (tmp_path / "png/00000.png").symlink_to(tmp_path / "mine.txt")
    save_each(BLACK_GREY_WHITE[:1], tmp_path / "png")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "png/00000.png").is_symlink()


def test_a_full_disk_leaves_no_half_picture(tmp_path, monkeypatch):
    def full(picture, file, file_format):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*00000\.png: No space left on device"):
        save_each(BLACK_GREY_WHITE, tmp_path / "png")
    assert list((tmp_path / "png").iterdir()) == []


def test_each_image_in_its_own_file(tmp_path):
    save_each(BLACK_GREY_WHITE, tmp_path / "new" / "folder")
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    assert [read(file).tolist() for file in files] == [[[v] * 3] * 2 for v in (0, 128, 255)]
    save_each(np.float32([1, -1, 0]).reshape(1, 3, 1, 1), tmp_path / "rgb")
    assert read(tmp_path / "rgb/00000.png").tolist() == [[[255, 0, 128]]]
