"""Crops and mirroring by hand.

Every place occurs, nothing is stretched, the seed decides, and digits stay as they are.
"""

import common
from common import UserError
from common.data import load_attributes, load_domains, load_images, load_pairs
from common.data.augment import NONE, Augment, augmentation, square

import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image
from registry import images


def parse(*flags):
    """The arguments of a script with the flags of augmentation."""
    parser = common.Parser("script.py", "", {})
    parser.add_images(img_size=256, channels=3)
    parser.add_augmentation()
    return parser.parse([str(flag) for flag in flags])


# ---- sizes ----


@pytest.mark.parametrize(
    ("img_size", "expected"),
    [(256, (286, 286)), (128, (143, 143)), ((128, 256), (143, 286))],
)
def test_the_papers_sizes(img_size, expected):
    """256 pixels are cropped out of 286 (Isola 2017, section 6.2)."""
    assert Augment().decoded(img_size) == expected


@pytest.mark.parametrize(
    ("augment", "img_size", "expected"),
    [
        (Augment(load_size=286), 256, (286, 286)),
        (Augment(load_size=300), (256, 512), (300, 600)),  # the shorter side
        (Augment(load_size=300), (512, 256), (600, 300)),
        (Augment(load_size=256), 256, (256, 256)),
        (Augment(crop=False), (256, 512), (256, 512)),
        (NONE, 256, (256, 256)),
    ],
)
def test_sizes_before_the_crop(augment, img_size, expected):
    assert augment.decoded(img_size) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--load_size", 100, "--img_size", 128], "--load_size 100: it must be at least 128"),
        (["--load_size", 286, "--no_crop"], "--load_size is the size before the random crop"),
    ],
)
def test_flags_that_contradict_each_other(flags, message, fails):
    code, line = fails(lambda argv: parse(*argv), flags)
    assert code == 2
    assert message in line


# ---- crops and mirroring ----


def ramp(path, width=32):
    """An image that grows brighter to the right; mirrored, it grows darker."""
    path.parent.mkdir(parents=True)
    row = np.linspace(0, 255, width, dtype=np.uint8)
    Image.fromarray(np.tile(row, (32, 1))).save(path)


def rises(image):
    """Whether a (C, H, W) image grows brighter to the right."""
    return bool(image[0, 0, 0] < image[0, 0, -1])


@pytest.mark.parametrize(
    ("flags", "decoded", "fewest", "most", "directions"),
    [
        # 17 places from left to right, mirrored or not
        (["--load_size", 48], (48, 48), 21, 34, {True, False}),
        (["--load_size", 48, "--no_flip"], (48, 48), 11, 17, {True}),
        (["--no_crop"], (32, 32), 2, 2, {True, False}),
        (["--no_crop", "--no_flip"], (32, 32), 1, 1, {True}),
    ],
)
def test_each_flag_alone(tmp_path, flags, decoded, fewest, most, directions):
    """Crops of 32 pixels from a ramp."""
    ramp(tmp_path / "trainA/x.png")
    ramp(tmp_path / "trainB/x.png")
    augment = augmentation(parse("--img_size", 32, *flags))
    data = load_pairs(tmp_path, 32, 1, augment=augment)
    inputs = [data.batch([0], [seed])[0][0] for seed in range(60)]
    assert data.decoded == decoded
    assert fewest <= len({x.tobytes() for x in inputs}) <= most
    assert {rises(x) for x in inputs} == directions


def test_crops_by_hand():
    """Each pixel of 6 x 6 holds its index, so a crop shows where it was cut out."""
    pixels = np.arange(36).reshape(1, 6, 6)
    seen = set()
    for seed in range(300):
        crop = Augment().apply(pixels, 4, seed)
        is_mirrored = not rises(crop)
        if is_mirrored:
            crop = crop[..., ::-1]
        top, left = divmod(int(crop[0, 0, 0]), 6)
        assert np.array_equal(crop, pixels[:, top : top + 4, left : left + 4])
        seen.add((top, left, is_mirrored))
    assert len(seen) == 3 * 3 * 2


def test_crops_of_rectangles_by_hand():
    pixels = np.arange(35).reshape(1, 5, 7)
    seen = set()
    for seed in range(100):
        crop = Augment().apply(pixels, (4, 5), seed)
        if not rises(crop):
            crop = crop[..., ::-1]
        top, left = divmod(int(crop[0, 0, 0]), 7)
        assert np.array_equal(crop, pixels[:, top : top + 4, left : left + 5])
        seen.add((top, left))
    assert len(seen) == 2 * 3


def test_digits_are_square():
    assert square(32) == square((32, 32)) == 32
    with pytest.raises(UserError, match="digits are square, not 32 x 64"):
        square((32, 64))


def test_the_seed_decides():
    pixels = np.arange(36).reshape(1, 6, 6)
    assert np.array_equal(Augment().apply(pixels, 4, 5), Augment().apply(pixels, 4, 5))
    assert not np.array_equal(Augment().apply(pixels, 4, 5), Augment().apply(pixels, 4, 6))


# ---- data sets ----


def test_both_images_of_a_pair_are_augmented_equally(tmp_path):
    ramp(tmp_path / "trainA/x.png")
    ramp(tmp_path / "trainB/x.png")
    data = load_pairs(tmp_path, 32, 3, augment=Augment())
    crops = set()
    directions = set()
    for seed in range(20):
        inputs, targets = data.batch([0], [seed])
        assert np.array_equal(inputs, targets)
        crops.add(inputs.tobytes())
        directions.add(rises(inputs[0]))
    assert directions == {True, False}
    assert len(crops) > 5


def test_domains_are_augmented_independently(tmp_path):
    ramp(tmp_path / "A/train/x.png")
    ramp(tmp_path / "B/train/x.png")
    data = load_domains(tmp_path, None, 32, 1, augment=Augment())
    crops = set()
    directions = set()
    for seed in range(20):
        a, b = data.batch([0], [seed])
        crops.add(a.tobytes())
        directions.add((rises(a[0]), rises(b[0])))
    assert directions == {(True, True), (True, False), (False, True), (False, False)}
    assert len(crops) > 5


def test_images_with_attributes_are_mirrored_only(tmp_path):
    ramp(tmp_path / "A/train/x.png")
    ramp(tmp_path / "B/train/x.png")
    (plain,) = load_images(tmp_path / "A", 32, 1).batch([0])
    mirrored = np.ascontiguousarray(plain[..., ::-1])
    data = load_attributes(tmp_path, 32, 1, flip=True)
    seen = {data.batch([0], [seed])[0].tobytes() for seed in range(20)}
    assert seen == {plain.tobytes(), mirrored.tobytes()}


def test_batches_of_the_stream_follow_from_the_seeds(tmp_path):
    images(tmp_path / "data", 3, (40, 50))
    data = load_images(tmp_path / "data", 32, 3, augment=Augment())
    seeds = [10, 8, 9]
    (in_threads,) = next(data.stream([[0, 1, 2, 0]], seeds))
    (expected,) = data.batch([0, 1, 2, 0], [10, 8, 9, 10])
    assert np.array_equal(in_threads, expected)


@pytest.mark.parametrize("augment", [NONE, Augment()])
def test_digits_are_never_augmented(tmp_path, augment):
    """Their left half is white; mirrored, it would be the right one."""
    pixels = np.zeros((4, 8, 8), np.uint8)
    pixels[:, :, :4] = 255
    folder = write_idx_folder(tmp_path, pixels, np.zeros(4, np.uint8))
    expected = (pixels[:, None] / 127.5 - 1).astype(np.float32)
    for data in (
        load_domains(folder, folder, 8, 1, augment=augment),
        load_images(folder, 8, 1, augment=augment),
    ):
        for seed in range(5):
            digits = data.batch(np.arange(4), [seed] * 4)[0]
            assert np.array_equal(digits, expected)
