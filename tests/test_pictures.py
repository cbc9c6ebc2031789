"""Pictures, pixel by pixel against hand-made grids."""

import numpy as np
import pytest
from PIL import Image

from common import save_image
from common.pictures import save_each, to_uint8


def read(path):
    return np.asarray(Image.open(path))


def test_grid_is_padded_and_filled_row_by_row(tmp_path):
    images = np.float32([-1, 0, 1]).reshape(3, 1, 1, 1) * np.ones((3, 1, 2, 3), np.float32)
    save_image(images, tmp_path / "new" / "folder" / "grid.png", nrow=2, padding=1)
    black, grey, white, line = [[0] * 3, [128] * 3, [255] * 3, [0] * 9]
    above, below = [0, *black, 0, *grey, 0], [0, *white, 0, 0, 0, 0, 0]
    expected = [line, above, above, line, below, below, line]
    assert read(tmp_path / "new" / "folder" / "grid.png").tolist() == expected


def test_one_image_without_padding_keeps_its_pixels(tmp_path):
    image = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16) / 127.5 - 1
    save_image(image, tmp_path / "one.png", padding=0)
    assert read(tmp_path / "one.png").tolist() == np.arange(256).reshape(16, 16).tolist()


def test_rgb_keeps_the_order_of_its_channels(tmp_path):
    image = np.float32([1, 0, 0]).reshape(1, 3, 1, 1)
    save_image(image, tmp_path / "red.png", padding=0, value_range=(0, 1))
    assert read(tmp_path / "red.png").tolist() == [[[255, 0, 0]]]


def test_range_is_fixed_and_values_are_clipped():
    image = np.float32([-3, -1, -0.5, 0.5, 3]).reshape(1, 1, 1, 5)
    # (x + 1) / 2 * 255 for -0.5 is 63.75, for 0.5 it is 191.25
    assert to_uint8(image).ravel().tolist() == [0, 0, 64, 191, 255]


def test_each_image_in_a_file_of_its_own(tmp_path):
    images = np.float32([-1, 0, 1]).reshape(3, 1, 1, 1) * np.ones((3, 1, 2, 3), np.float32)
    save_each(images, tmp_path / "new" / "folder")
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    assert [read(file).tolist() for file in files] == [[[v] * 3] * 2 for v in (0, 128, 255)]
    save_each(np.float32([1, -1, 0]).reshape(1, 3, 1, 1), tmp_path / "rgb")
    assert read(tmp_path / "rgb/00000.png").tolist() == [[[255, 0, 128]]]


def test_jpeg_by_suffix(tmp_path):
    save_image(np.zeros((1, 3, 8, 8), np.float32), tmp_path / "x.jpg")
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 8, 8), {}, "(N, C, H, W)"),
        ((1, 2, 8, 8), {}, "(N, C, H, W)"),
        ((0, 1, 8, 8), {}, "N >= 1"),
        ((1, 1, 8, 8), {"nrow": 0}, "nrow"),
        ((1, 1, 8, 8), {"padding": -1}, "padding"),
        ((1, 1, 8, 8), {"value_range": (1, 1)}, "value_range"),
    ],
)
def test_wrong_arguments(tmp_path, shape, options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        save_image(np.zeros(shape, np.float32), tmp_path / "x.png", **options)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        save_image(np.full((1, 1, 4, 4), bad, np.float32), tmp_path / "x.png")


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match="ends in"):
        save_image(np.zeros((1, 1, 4, 4), np.float32), tmp_path / "x.gif")
