"""Crops and mirroring by hand: every place occurs, nothing is stretched, the seed decides, digits stay as they are."""

from common import UserError
from common.data import load_attributes, load_domains, load_images, load_pairs
from common.data.augment import NONE, Augment, augmentation, square

import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image
from registry import images

import cyclegan
import pix2pix
import spade


def test_the_papers_sizes():
    """256 pixels are cut out of 286 (Isola 2017, section 6.2)."""
    assert [Augment().decoded(size) for size in (256, 128, (128, 256))] == [
        (286, 286),
        (143, 143),
        (143, 286),
    ]


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


def test_flags_of_a_crop_that_cannot_be(fails):
    for flags, message in (
        (["--load_size", 100, "--img_size", 128], "--load_size 100: it must be at least 128"),
        (["--load_size", 286, "--no_crop"], "leave it or --no_crop out"),
    ):
        for script in (pix2pix, cyclegan, spade):
            code, line = fails(script.main, flags)
            assert code == 2 and message in line


def test_each_flag_by_itself(tmp_path):
    """Crops of 32 from a ramp scaled to 48, mirrored or not; without crops, two images are seen."""
    ramp(tmp_path / "trainA/x.png", 32)
    ramp(tmp_path / "trainB/x.png", 32)

    def seen(*flags):
        args = pix2pix.parse_args(["--img_size", "32", "--channels", "1", *flags])
        data = load_pairs(tmp_path, 32, 1, augment=augmentation(args))
        inputs = [data.batch([0], [seed])[0][0, 0] for seed in range(60)]
        return (
            {x.tobytes() for x in inputs},
            {bool(x[0, 0] < x[0, -1]) for x in inputs},
            data.decoded,
        )

    crops, ways, decoded = seen("--load_size", "48")
    assert (ways, decoded) == ({True, False}, (48, 48))
    assert len(crops) > 20  # of 17 places from left to right, mirrored or not
    crops, ways, _ = seen("--load_size", "48", "--no_flip")
    assert ways == {True} and 10 < len(crops) <= 17
    crops, ways, decoded = seen("--no_crop")
    assert (len(crops), ways, decoded) == (2, {True, False}, (32, 32))
    crops, ways, _ = seen("--no_crop", "--no_flip")
    assert (len(crops), ways) == (1, {True})


def test_crops_by_hand():
    """Each pixel of 6 x 6 holds its number, so a part tells where it was cut out."""
    pixels = np.arange(36).reshape(1, 6, 6)
    seen = set()
    for seed in range(300):
        part = Augment().apply(pixels, 4, seed)
        mirrored = bool(part[0, 0, 0] > part[0, 0, -1])
        upright = part[..., ::-1] if mirrored else part
        top, left = divmod(int(upright[0, 0, 0]), 6)
        assert np.array_equal(upright, pixels[:, top : top + 4, left : left + 4])
        seen.add((top, left, mirrored))
    assert seen == {
        (top, left, mirrored) for top in range(3) for left in range(3) for mirrored in (False, True)
    }


def test_crops_of_rectangles_by_hand():
    pixels = np.arange(35).reshape(1, 5, 7)
    seen = set()
    for seed in range(100):
        part = Augment().apply(pixels, (4, 5), seed)
        upright = part[..., ::-1] if part[0, 0, 0] > part[0, 0, -1] else part
        top, left = divmod(int(upright[0, 0, 0]), 7)
        assert np.array_equal(upright, pixels[:, top : top + 4, left : left + 5])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(2) for left in range(3)}


def test_digits_are_square():
    assert square(32) == square((32, 32)) == 32
    with pytest.raises(UserError, match="digits are square, not 32 x 64"):
        square((32, 64))


def test_the_seed_decides():
    pixels = np.arange(36).reshape(1, 6, 6)
    assert np.array_equal(Augment().apply(pixels, 4, 5), Augment().apply(pixels, 4, 5))
    assert not np.array_equal(Augment().apply(pixels, 4, 5), Augment().apply(pixels, 4, 6))


def ramp(path, width=32):
    """An image that grows brighter to the right; its mirror image grows darker."""
    path.parent.mkdir(parents=True)
    Image.fromarray(np.tile(np.linspace(0, 255, width, dtype=np.uint8), (32, 1))).save(path)


def test_pairs_are_cut_and_mirrored_alike(tmp_path):
    ramp(tmp_path / "trainA/x.png")
    ramp(tmp_path / "trainB/x.png")
    data = load_pairs(tmp_path, 32, 3, augment=Augment())
    seen = set()
    for seed in range(20):
        inputs, targets = data.batch([0], [seed])
        assert np.array_equal(inputs, targets)
        seen.add(bool(inputs[0, 0, 0, 0] < inputs[0, 0, 0, -1]))
    assert seen == {True, False}
    assert len({data.batch([0], [seed])[0].tobytes() for seed in range(20)}) > 5  # several crops


def test_domains_and_attributes(tmp_path):
    """Domains are cut and mirrored, each by itself; images with attributes are mirrored alone."""
    ramp(tmp_path / "A/train/x.png")
    ramp(tmp_path / "B/train/x.png")
    data = load_domains(tmp_path, None, 32, 1, augment=Augment())
    both = [data.batch([0], [seed]) for seed in range(20)]
    assert {tuple(bool(x[0, 0, 0, 0] < x[0, 0, 0, -1]) for x in pair) for pair in both} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    assert len({a.tobytes() for a, _ in both}) > 5

    data = load_attributes(tmp_path, 32, 1, flip=True)
    (plain,) = load_images(tmp_path / "A", 32, 1).batch([0])
    seen = {data.batch([0], [seed])[0].tobytes() for seed in range(20)}
    assert seen == {plain.tobytes(), np.ascontiguousarray(plain[..., ::-1]).tobytes()}


def test_augmented_batches_follow_from_the_seeds(tmp_path):
    images(tmp_path / "data", 3, (40, 50))
    data = load_images(tmp_path / "data", 32, 3, augment=Augment())
    indices, seeds = [0, 1, 2, 0], [7, 8, 9, 10]
    (in_threads,) = next(data.stream([indices], dict(zip(indices, seeds))))
    (again,) = data.batch(indices, [10, 8, 9, 10])
    assert np.array_equal(in_threads, again)


@pytest.mark.parametrize("augment", [NONE, Augment()])
def test_digits_are_never_augmented(tmp_path, augment):
    """Half-white digits, white on the left: mirrored, it would be on the right."""
    half = np.zeros((4, 8, 8), np.uint8)
    half[:, :, :4] = 255
    folder = write_idx_folder(tmp_path, half, np.zeros(4, np.uint8))
    for data in (
        load_domains(folder, folder, 8, 1, augment=augment),
        load_images(folder, 8, 1, augment=augment),
    ):
        for seed in range(5):
            x = data.batch(np.arange(4), [seed] * 4)[0]
            assert np.array_equal(
                x, np.broadcast_to(half[:, None] / 127.5 - 1, x.shape).astype(np.float32)
            )
