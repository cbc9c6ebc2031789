"""Holes: masks in the middle and of random shapes, and those of people's files."""

from common import UserError
from common.data import holes
from common.data.augment import Augment

import numpy as np
import pytest
from PIL import Image
from registry import images


def rng(*seed):
    return np.random.default_rng(seed)


# ---- masks ----


@pytest.mark.parametrize(("overlap", "first", "end"), [(0, 2, 6), (1, 3, 5)])
def test_the_middle_half_without_a_rim(overlap, first, end):
    expected = np.zeros((8, 8), bool)
    expected[first:end, first:end] = True
    assert np.array_equal(holes.center_mask((8, 8), overlap), expected)


def test_rectangles_have_rectangular_holes():
    mask = holes.center_mask((8, 16))
    assert mask.sum() == 4 * 8
    assert mask[2:6, 4:12].all()


@pytest.mark.parametrize("size", [32, 128, 256])
def test_random_regions_take_20_to_30_percent(size):
    for seed in range(5):
        mask = holes.random_mask((size, size), rng(seed))
        assert mask.shape == (size, size)
        assert 0.2 < mask.mean() < 0.3


def test_random_regions_are_smooth():
    """Along a row of 128 pixels there are about 8 values of the coarse grid.

    Independent pixels, a quarter of which are missing, would change 48 times a row.
    """
    masks = [holes.random_mask((128, 128), rng(seed)) for seed in range(10)]
    changes = [(mask[:, 1:] != mask[:, :-1]).sum(1).mean() for mask in masks]
    assert 1 < np.mean(changes) < 6


def test_every_place_can_be_missing():
    masks = np.stack([holes.random_mask((32, 32), rng(seed)) for seed in range(200)])
    shares = masks.mean(0)
    assert 0.1 < shares.min() <= shares.max() < 0.45


# ---- data sets ----


def test_masks_depend_on_the_seed_and_the_index():
    data = holes.load_with_holes("faces", 32, 3, "random", split="val")
    pictures, masks = data.batch([0, 1, 0], [5, 5, 6])
    assert pictures.shape == (3, 3, 32, 32)
    assert masks.shape == (3, 1, 32, 32)
    assert set(np.unique(masks)) == {0, 1}
    assert masks.dtype == np.float32
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert np.array_equal(masks, data.batch([0, 1, 0], [5, 5, 6])[1])


def test_images_are_whole_and_digits_are_not_mirrored():
    data = holes.load_with_holes(None, 32, 1, "center", 1, augment=Augment())
    pictures, masks = data.batch([3, 3], [1, 2])
    assert len(data) == 4500
    assert np.array_equal(pictures[0], pictures[1])
    assert pictures[0, 0, 9:23, 9:23].max() > 0
    assert masks[0].sum() == 14 * 14


def test_of_a_folder_without_a_test_split_a_hundred_images_are_used(tmp_path, capsys):
    images(tmp_path / "mine", 103, (8, 8))
    assert len(holes.load_with_holes(tmp_path / "mine", 8, 3, "center", split="val")) == 100
    assert "has no test split" in capsys.readouterr().err
    assert len(holes.load_with_holes(tmp_path / "mine", 8, 3, "center")) == 103


def test_a_file_that_breaks_is_replaced_by_the_next_one(tmp_path):
    images(tmp_path / "mine", 3, (8, 8))
    data = holes.load_with_holes(tmp_path / "mine", 8, 3, "random")
    expected = data.batch([1])
    (tmp_path / "mine/0.png").write_bytes(b"no image")
    found = data.batch([0])
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


# ---- files ----


def picture(folder, mode="RGB", name="a.png", size=(6, 4)):
    pixels = rng(1).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    path = folder / name
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def with_alpha(folder, opacity, mode="RGBA"):
    """A picture of 6 x 4 pixels whose upper left 2 x 3 have this opacity."""
    alpha = np.full((4, 6), 255, np.uint8)
    alpha[:2, :3] = opacity
    image = Image.new(mode, (6, 4), 90 if mode == "LA" else (10, 20, 30))
    image.putalpha(Image.fromarray(alpha))
    image.save(folder / "alpha.png")
    return folder / "alpha.png"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("opacity", [0, 127])
def test_a_transparent_region_is_a_hole(tmp_path, mode, opacity):
    pixels, hole = holes.open_with_hole(with_alpha(tmp_path, opacity, mode), None, 3)
    assert pixels.shape == (3, 4, 6)
    expected = np.zeros((4, 6), bool)
    expected[:2, :3] = True
    assert np.array_equal(hole, expected)


def test_a_transparent_colour_of_a_palette_is_a_hole(tmp_path):
    image = Image.new("P", (6, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((5, 3), 1)
    image.save(tmp_path / "p.png", transparency=1)
    _, hole = holes.open_with_hole(tmp_path / "p.png", None, 3)
    assert hole.sum() == 1
    assert hole[3, 5]


def test_a_mask_is_white_where_pixels_are_missing(tmp_path):
    """Grey counts as the nearer of black and white."""
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    mask[1, 3] = 128
    mask[1, 4] = 127
    Image.fromarray(mask).save(tmp_path / "m.png")
    path = picture(tmp_path)
    pixels, hole = holes.open_with_hole(path, tmp_path / "m.png", 1)
    assert pixels.shape == (1, 4, 6)
    assert np.argwhere(hole).tolist() == [[1, 2], [1, 3]]


def test_a_mask_decides_and_not_the_transparency(tmp_path):
    mask = np.zeros((4, 6), bool)
    mask[3, 5] = True
    np.save(tmp_path / "m.npy", mask)
    _, hole = holes.open_with_hole(with_alpha(tmp_path, 0), tmp_path / "m.npy", 3)
    assert np.array_equal(hole, mask)


def test_wrong_masks(tmp_path):
    path = picture(tmp_path)
    sizes = {"small": (5, 4), "black": (6, 4), "white": (6, 4)}
    for name, size in sizes.items():
        value = 255 if name == "white" else 0
        Image.new("L", size, value).save(tmp_path / f"{name}.png")
    cases = [
        (path, None, "a.png has no hole: make the region transparent, or give --mask"),
        (with_alpha(tmp_path, 128), None, "alpha.png has no hole"),
        (path, "small.png", "small.png has 5 x 4 pixels, and .*a.png has 6 x 4"),
        (path, "black.png", "black.png has no hole: a mask is white where pixels are missing"),
        (path, "white.png", "the hole of .*white.png covers everything"),
        (path, "missing.png", "missing.png cannot be read"),
    ]
    for image, mask, message in cases:
        mask = None if mask is None else tmp_path / mask
        with pytest.raises(UserError, match=message) as raised:
            holes.open_with_hole(image, mask, 3)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"alpha.png is transparent in places: a mask is white"):
        holes.open_with_hole(path, with_alpha(tmp_path, 0), 3)
