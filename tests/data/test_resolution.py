"""Two sizes of an image: bicubic copies by hand, crops, images that are too small."""

from common.data import resolution
from common.errors import UserError

import numpy as np
import pytest
from PIL import Image


def kernel(x):
    """Keys' cubic with a = -1/2 (Keys 1981, equation 15)."""
    x = abs(x)
    if x < 1:
        return 3 / 2 * x**3 - 5 / 2 * x**2 + 1
    if x < 2:
        return -1 / 2 * x**3 + 5 / 2 * x**2 - 4 * x + 2
    return 0.0


def test_weights_of_the_centre_by_hand():
    """Shrinking by 2: the middle pixels count for k(1/4) / 2, their neighbours less.

    k(1/4) = 0.8671875, k(3/4) = 0.2265625, k(5/4) = -0.0703125, k(7/4) = -0.0234375.
    """
    row = resolution.bicubic_weights(16, 8)[3]
    expected = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    assert np.allclose(row[3:11], [*expected, *expected[::-1]])
    assert row[:3].tolist() == [0] * 3 and row[11:].tolist() == [0] * 5


def test_the_border_is_mirrored_by_hand():
    """Enlarging two pixels a, b: around -1/4 lie the mirrored b and a, then a and b."""
    near = kernel(0.25) + kernel(0.75)  # of a itself and of its mirror image at -1
    far = kernel(1.25) + kernel(1.75)
    assert np.allclose(resolution.bicubic_weights(2, 4)[0], [near, far])


@pytest.mark.parametrize("scale", [2, 4])
def test_pillow_shrinks_equally_away_from_the_border(scale):
    """Pillow also widens the kernel; at the border it leaves out what is beyond."""
    pixels = np.random.default_rng(0).uniform(0, 1, (64, 48)).astype(np.float32)
    image = Image.fromarray(pixels).resize((48 // scale, 64 // scale), Image.BICUBIC)
    found = resolution.shrink(pixels, scale)
    assert np.allclose(found[2:-2, 2:-2], np.asarray(image)[2:-2, 2:-2], atol=1e-5)


def test_a_ramp_stays_a_ramp():
    """Bicubic interpolation reproduces linear functions; bytes are rounded."""
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))[None]
    small = resolution.shrink(ramp, 4)
    assert small.dtype == np.uint8
    assert np.array_equal(small[0, 8, 2:-2], np.arange(6, 256, 16)[2:-2])


def write(folder, *sizes):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_crops_are_cut_at_the_images_own_size(tmp_path):
    write(tmp_path, (40, 36))
    data = resolution.load_resolutions(tmp_path, 32, 4, 3, "train")
    pixels = np.asarray(Image.open(tmp_path / "0.png")).transpose(2, 0, 1)
    found = set()
    for seed in range(20):
        small, crop = data.load(0, seed)
        places = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(9)
            for mirrored in (1, -1)
            if np.array_equal(crop, pixels[:, top : top + 32, left : left + 32][..., ::mirrored])
        ]
        assert len(places) == 1
        assert np.array_equal(small, resolution.shrink(crop, 4)) and small.shape == (3, 8, 8)
        found.update(places)
    assert len(found) > 10


def test_images_that_are_too_small_are_left_out(tmp_path, capsys):
    write(tmp_path, (40, 36), (31, 64))
    data = resolution.load_resolutions(tmp_path, 32, 2, 3, "train")
    assert len(data) == 1
    assert "1 of 2 images are smaller than the crop of 32 x 32 pixels" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"all 2 images are smaller .*64 x 64 pixels \(--img_size"):
        resolution.load_resolutions(tmp_path, 64, 2, 3, "train")


def test_the_scenes_have_their_own_copies():
    data = resolution.load_resolutions(None, 64, 4, 3, "test")
    small, large = data.batch(np.arange(2))
    assert small.shape == (2, 3, 16, 16) and large.shape == (2, 3, 64, 64)
    assert small.dtype == large.dtype == np.float32
    assert np.abs(small - large.reshape(2, 3, 16, 4, 16, 4).mean((3, 5))).mean() < 0.05
