"""Pictures, pixel by pixel against hand-made grids."""

from common import save_image
from common.pictures import (
    in_tiles,
    save_each,
    save_rows,
    tile_starts,
    to_uint8,
    translate_file,
    write_picture,
)

import numpy as np
import pytest
from PIL import Image


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


def test_rows_of_different_channels(tmp_path):
    """A grey row is shown in grey beside colours, of four channels the first three, of two the first."""
    rows = [np.full((1, c, 1, 1), -1, np.float32) for c in (1, 3, 4, 2)]
    for row in rows:
        row[:, 0] = 1
    save_rows(tmp_path / "rows.png", *rows)
    assert read(tmp_path / "rows.png")[2::3, 2].tolist() == [
        [255] * 3,
        [255, 0, 0],
        [255, 0, 0],
        [255] * 3,
    ]
    save_rows(tmp_path / "grey.png", rows[0], rows[0])
    assert read(tmp_path / "grey.png").shape == (8, 5)


# ---- translations ----


def test_where_tiles_begin():
    """Tiles of 32 share 8 pixels or more, and reach both ends."""
    assert [tile_starts(side, 32) for side in (32, 33, 56, 57, 64)] == [
        [0],
        [0, 1],
        [0, 24],
        [0, 12, 25],
        [0, 16, 32],
    ]
    for side in range(32, 200):
        starts = tile_starts(side, 32)
        assert starts[0] == 0 and starts[-1] == side - 32
        assert max(np.diff(starts), default=0) <= 24


@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [
        (64, 64, (32, 32)),
        (97, 61, (32, 32)),
        (33, 200, (32, 32)),
        (32, 32, (32, 32)),
        (9, 50, (32, 48)),
    ],
)
def test_tiles_of_a_function_of_each_pixel_are_the_whole(height, width, tile):
    """Two images, from three channels to two; the tiles all have one shape."""
    images, shapes = (
        np.random.default_rng(0).uniform(-1, 1, (2, 3, height, width)).astype(np.float32),
        set(),
    )

    def translate(x):
        shapes.add(x.shape)
        return np.tanh(np.stack([x[:, 0] * x[:, 1], x[:, 2] - 0.5], axis=1))

    got, whole = in_tiles(translate, images, tile), translate(images)
    assert got.shape == whole.shape
    assert np.abs(got - whole).max() < 1e-5
    assert shapes == {(2, 3, *tile), (2, 3, height, width)}


def test_tiles_have_no_seams():
    """Three tiles of other values: from one's to the next one's in equal steps over the 8 pixels that they share."""
    count = iter(range(3))
    got = in_tiles(
        lambda x: np.full_like(x, next(count)), np.zeros((1, 1, 32, 80), np.float32), (32, 32)
    )[0, 0]
    assert np.array_equal(got, got[:1].repeat(32, axis=0))
    row = got[0]
    assert np.allclose(row[[0, 23, 32, 47, 56, 79]], [0, 0, 1, 1, 2, 2])
    assert np.allclose(row[24:32], (np.arange(8) + 0.5) / 8)
    assert np.allclose(row[48:56], 1 + (np.arange(8) + 0.5) / 8)


def test_what_is_known_of_a_whole_picture_reaches_every_tile(tmp_path):
    """The whole one is scaled until it covers the shape of the training."""
    Image.new("RGB", (90, 60), (255, 0, 0)).save(tmp_path / "x.png")
    seen = []

    def look(image):
        seen.append(image.shape)
        return np.full((1, 3, 1, 1), 0.25, np.float32)

    got = translate_file(tmp_path / "x.png", lambda x, known: x * known, (32, 32), 3, 4, 40, look)
    assert seen == [(1, 3, 32, 48)]
    assert got.shape == (3, 60, 90)
    assert np.allclose(got[:, 7, 50], [0.25, -0.25, -0.25])


def test_translations_as_pictures_and_as_arrays(tmp_path):
    image = np.float32([[[-1, 0]], [[1, -1]], [[0.5, 2]]])  # (3, 1, 2)
    for suffix in ("png", "tif", "bmp"):
        write_picture(image, tmp_path / f"x.{suffix}")
        assert read(tmp_path / f"x.{suffix}").tolist() == [[[0, 255, 191], [128, 0, 255]]]
    for suffix in ("jpg", "webp"):
        write_picture(image, tmp_path / f"x.{suffix}")
        assert read(tmp_path / f"x.{suffix}").shape == (1, 2, 3)
    write_picture(image, tmp_path / "x.npy")
    assert np.allclose(np.load(tmp_path / "x.npy"), [[[0, 1, 0.75], [0.5, 0, 1]]])
    write_picture(image[:1], tmp_path / "grey.npy")
    assert np.allclose(np.load(tmp_path / "grey.npy"), [[0, 0.5]])
    write_picture(image[:2], tmp_path / "two.png")
    assert np.allclose(np.load(tmp_path / "two.png.npy"), [[[0, 1], [0.5, 0]]])


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
