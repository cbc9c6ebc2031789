"""A folder of pictures with holes: windows, alignment, untouched pixels, masks."""

from common import UserError
from common.inpainting import covering, cut, fill, fill_folder, window_around

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def hole_at(shape, rows, columns):
    missing = np.zeros(shape, bool)
    missing[slice(*rows), slice(*columns)] = True
    return missing


def noise(shape, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(channels, *shape), dtype=np.uint8)


# ---- windows ----


@pytest.mark.parametrize(
    ("missing", "hole", "overlap", "expected"),
    [
        # 20 rows of at most 14 in 32: a scale of 20 / 14, so 32 become 45.7.
        (hole_at((100, 200), (40, 60), (10, 20)), "center", 1, (27, -8, 46, 46)),
        # A small hole in a large picture: the size of the training images.
        (hole_at((100, 200), (40, 44), (50, 54)), "center", 0, (26, 36, 32, 32)),
        (hole_at((100, 200), (40, 44), (50, 54)), "random", 0, (26, 36, 32, 32)),
        # In a corner, the window of "random" moves into the picture.
        (hole_at((100, 200), (0, 4), (196, 200)), "random", 0, (0, 168, 32, 32)),
        (hole_at((100, 200), (0, 4), (196, 200)), "center", 0, (-14, 182, 32, 32)),
        # A quarter of the window: 40 x 40 of 80 x 80.
        (hole_at((100, 200), (30, 70), (80, 120)), "random", 0, (10, 60, 80, 80)),
        # The whole of a picture that is smaller than the training images.
        (hole_at((16, 16), (4, 12), (4, 12)), "center", 0, (0, 0, 16, 16)),
        # 31 pixels are not in the middle of 62: one more.
        (hole_at((100, 100), (30, 61), (30, 61)), "center", 0, (14, 14, 63, 63)),
    ],
)
def test_the_window_of_a_hole(missing, hole, overlap, expected):
    assert window_around(missing, (32, 32), hole, overlap) == expected


def test_the_window_of_a_rectangular_network():
    missing = hole_at((200, 400), (80, 120), (100, 220))
    assert window_around(missing, (32, 64), "center", 0) == (40, 40, 120, 240)


def test_a_window_beyond_the_picture_is_reflected():
    pixels = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    expected = [[3, 2, 2, 3], [1, 0, 0, 1], [1, 0, 0, 1], [3, 2, 2, 3]]
    assert cut(pixels, -2, -1, 4, 4)[0].tolist() == [
        [2, 2, 3, 3],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
    ]
    assert cut(pixels, 1, 1, 1, 1).tolist() == [[[3]]]
    assert np.array_equal(cut(np.uint8([expected]), 0, 0, 4, 4)[0], expected)


def test_a_smaller_mask_has_every_pixel_that_it_touches():
    mask = hole_at((8, 8), (3, 4), (5, 6))
    assert np.argwhere(covering(mask, (4, 4))).tolist() == [[1, 2]]
    assert covering(hole_at((8, 8), (3, 5), (0, 8)), (4, 4)).sum() == 8


# ---- filling ----


@pytest.mark.parametrize("hole", ["center", "random"])
@pytest.mark.parametrize("channels", [1, 3])
def test_only_the_hole_changes(hole, channels):
    pixels = noise((50, 70), channels)
    missing = hole_at((50, 70), (3, 30), (40, 60))
    seen = []

    def complete(images, masks):
        seen.append((images.shape, masks.shape, set(np.unique(masks))))
        return np.zeros_like(images)

    filled = fill(pixels, missing, complete, (32, 32), hole)
    assert seen == [((1, channels, 32, 32), (1, 1, 32, 32), {0, 1})]
    assert np.array_equal(filled[:, ~missing], pixels[:, ~missing])
    assert (filled[:, missing] == 128).all()


@pytest.mark.parametrize("hole", ["center", "random"])
@pytest.mark.parametrize("rows", [(10, 18), (20, 60), (0, 15)])
def test_what_the_network_draws_comes_to_its_place(hole, rows):
    """It sees a ramp and returns it; the hole of the picture gets the ramp's values."""
    ramp = np.linspace(0, 250, 80)
    pixels = np.broadcast_to(ramp[:, None], (1, 80, 80)).round().astype(np.uint8)
    missing = hole_at((80, 80), rows, (30, 30 + rows[1] - rows[0]))
    top, _, height, _ = window_around(missing, (32, 32), hole, 0)

    def complete(images, masks):
        centres = top + (np.arange(32) + 0.5) * height / 32 - 0.5
        drawn = np.clip(centres * 250 / 79, 0, 255) / 127.5 - 1
        return np.broadcast_to(np.float32(drawn)[:, None], images.shape)

    filled = fill(pixels, missing, complete, (32, 32), hole)
    assert np.abs(filled.astype(int) - pixels)[:, missing].max() <= 3


def test_what_was_in_the_hole_is_not_seen():
    """Neither in the hole, nor around it."""
    missing = hole_at((64, 64), (20, 44), (20, 44))
    seen = []

    def complete(images, masks):
        seen.append(images)
        return images

    for value in (0, 255):
        pixels = noise((64, 64))
        pixels[:, missing] = value
        fill(pixels, missing, complete, (32, 32), "random")
    assert np.array_equal(*seen)


def test_the_mask_of_the_middle_covers_the_hole():
    missing = hole_at((64, 64), (20, 49), (25, 40))
    seen = []

    def complete(images, masks):
        seen.append(masks[0, 0])
        return images

    fill(noise((64, 64)), missing, complete, (32, 32), "center", overlap=1)
    expected = np.zeros((32, 32))
    expected[9:23, 9:23] = 1
    assert np.array_equal(seen[0], expected)


# ---- folders ----


def folder_run(out):
    args = SimpleNamespace(resume=None)
    return SimpleNamespace(out_dir=out, args=args)


def write_pictures(folder, names, size=(40, 30)):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(size[::-1], seed=i).transpose(1, 2, 0)).save(path)


def write_masks(folder, names, size=(40, 30)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = hole_at(size[::-1], (5, 10), (5, 12))
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


def white(images, masks):
    return np.ones_like(images)


def test_a_folder_with_one_mask_or_one_for_each_picture(tmp_path):
    names = ["a.png", "deep/b.png"]
    write_pictures(tmp_path / "mine", names)
    write_masks(tmp_path / "masks", ["a.bmp", "deep/b.png"])
    for number, mask in enumerate(("masks", "masks/a.bmp")):
        out = tmp_path / f"out{number}"
        options = {"hole": "center"}
        mask = tmp_path / mask
        fill_folder(folder_run(out), tmp_path / "mine", mask, white, (32, 32), 3, **options)
        for name in names:
            before = np.asarray(Image.open(tmp_path / "mine" / name))
            after = np.asarray(Image.open(out / name))
            assert (after[5:10, 5:12] == 255).all()
            assert np.array_equal(after[10:], before[10:])


@pytest.mark.parametrize("masks", [["masks/a.png", "masks/b.png"], ["mask.png"]])
def test_masks_within_the_folder_are_no_pictures(tmp_path, masks):
    write_pictures(tmp_path / "mine", ["a.png", "b.png"])
    write_masks(tmp_path / "mine", masks)
    mask = tmp_path / "mine" / masks[0].split("/")[0]
    run = folder_run(tmp_path / "out")
    fill_folder(run, tmp_path / "mine", mask, white, (32, 32), 3, hole="center")
    files = [file for file in run.out_dir.rglob("*") if file.is_file()]
    assert sorted(file.name for file in files) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["", "a.png"])
def test_a_picture_is_not_its_own_mask(tmp_path, name):
    write_pictures(tmp_path / "mine", ["a.png"])
    source = tmp_path / "mine" / name
    with pytest.raises(UserError, match=r"a\.png is the picture itself, and no mask of it"):
        run = folder_run(tmp_path / "out")
        fill_folder(run, source, source, white, (32, 32), 3, hole="center")
    assert not run.out_dir.exists()


def test_masks_above_the_pictures(tmp_path):
    write_pictures(tmp_path / "masks/mine", ["a.png"])
    write_masks(tmp_path / "masks", ["a.png"])
    run = folder_run(tmp_path / "out")
    source = tmp_path / "masks/mine"
    fill_folder(run, source, tmp_path / "masks", white, (32, 32), 3, hole="center")
    assert (np.asarray(Image.open(tmp_path / "out/a.png"))[5:10, 5:12] == 255).all()


def test_a_mask_that_is_a_loop_of_links(tmp_path):
    write_pictures(tmp_path / "mine", ["a.png"])
    (tmp_path / "mask.png").symlink_to(tmp_path / "mask.png")
    with pytest.raises(UserError, match="is not a folder"):
        run = folder_run(tmp_path / "out")
        mask = tmp_path / "mask.png"
        fill_folder(run, tmp_path / "mine", mask, white, (32, 32), 3, hole="center")


def test_what_is_wrong_with_a_folder(tmp_path):
    write_pictures(tmp_path / "mine", ["a.png", "b.png"])
    write_masks(tmp_path / "masks", ["a.png"])
    write_masks(tmp_path / "small", ["a.png", "b.png"], size=(20, 30))
    arguments = (white, (32, 32), 3)
    for mask, message in {
        "masks": "b.png has no mask: .*masks holds none of its name",
        "small": "a.png has 20 x 30 pixels, and .*a.png has 40 x 30",
    }.items():
        with pytest.raises(UserError, match=message):
            mask = tmp_path / mask
            run = folder_run(tmp_path / "out")
            fill_folder(run, tmp_path / "mine", mask, *arguments, hole="center")
    with pytest.raises(UserError, match="holds the --input itself"):
        run = folder_run(tmp_path / "mine")
        fill_folder(run, tmp_path / "mine", None, *arguments, hole="center")
