"""Images with more than 8 bits: values by hand, scaling and cropping, errors."""

from common import UserError
from common.data import load_domains, load_images, load_pairs
from common.data.decode import Unreadable, fit, open_image, open_picture, pixels_of, size_of

import numpy as np
import pytest
from PIL import Image

LEVELS = np.array([[0, 1, 2, 255], [256, 257, 32768, 65535]], np.uint16)


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values, allow_pickle=True)
    else:
        Image.fromarray(values).save(path)
    return path


# ---- values ----


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_every_level(tmp_path, suffix, channels):
    values = LEVELS
    if suffix == "npy":
        values = np.repeat(LEVELS[..., None], channels, axis=2)
    path = write(tmp_path / f"x.{suffix}", values)
    pixels = pixels_of(open_picture(path, channels))
    assert (pixels.shape, pixels.dtype) == ((channels, 2, 4), np.float32)
    assert np.abs(pixels - (LEVELS / 32767.5 - 1)).max() < 1e-7
    assert len(np.unique(pixels)) == 8
    assert size_of(path) == (4, 2)
    eight_bits = np.asarray(open_image(path, channels)).reshape(2, 4, channels)
    assert np.array_equal(eight_bits[..., 0], np.round(LEVELS / 257))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.uint8([[0, 51], [102, 255]]), [[-1, -0.6], [-0.2, 1]]),
        (np.array([[False, True], [True, False]]), [[-1, 1], [1, -1]]),
        (np.float64([[0, 0.25], [0.5, 1]]), [[-1, -0.5], [0, 1]]),
        (np.float16([[0, 0.25], [0.5, 1]]), [[-1, -0.5], [0, 1]]),
        (np.asfortranarray(np.float32([[[0.0], [0.25]], [[0.5], [1.0]]])), [[-1, -0.5], [0, 1]]),
    ],
)
def test_arrays_by_hand(tmp_path, values, expected):
    pixels = pixels_of(open_picture(write(tmp_path / "x.npy", values), 1))
    assert np.allclose(pixels[0], expected, atol=1e-6)


def test_the_channels_of_an_array_keep_their_order(tmp_path):
    values = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    pixels = pixels_of(open_picture(write(tmp_path / "x.npy", values), 5))
    assert np.allclose(pixels, 2 * values.transpose(2, 0, 1) - 1, atol=1e-6)


def test_a_tiff_of_floats(tmp_path):
    path = write(tmp_path / "x.tif", np.float32([[0, 0.25], [0.5, 1]]))
    pixels = pixels_of(open_picture(path, 1))
    assert np.allclose(pixels[0], [[-1, -0.5], [0, 1]], atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (20, 40), (5, 3)])
def test_they_are_scaled_and_cropped_as_pillow_does(tmp_path, size):
    """An image of 8 bits and the same one times 257 agree within Pillow's rounding."""
    values = np.random.default_rng(0).integers(110, 146, size=(12, 16, 3), dtype=np.uint8)
    write(tmp_path / "x.png", values)
    write(tmp_path / "x.npy", 257 * values.astype(np.uint16))
    usual = fit(open_picture(tmp_path / "x.png", 3), size)
    deep = fit(open_picture(tmp_path / "x.npy", 3), size)
    assert usual.shape == deep.shape
    assert np.abs(deep).max() <= 1
    assert np.abs(deep - (usual / 127.5 - 1)).max() < 1.6 / 127.5  # two passes, each rounded


# ---- in data sets ----


def test_files_of_both_kinds_in_one_batch(tmp_path):
    write(tmp_path / "a.png", np.full((8, 8), 255, np.uint8))
    write(tmp_path / "b.png", np.full((8, 8), 256, np.uint16))
    write(tmp_path / "c.npy", np.zeros((8, 8)))
    (images,) = load_images(tmp_path, 8, 1).batch([0, 1, 2])
    assert np.allclose(images.mean((1, 2, 3)), [1, 256 / 32767.5 - 1, -1], atol=1e-6)


def test_pairs_with_different_channels(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.random((8, 8, 2))
    b = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
    write(tmp_path / "trainA/x.npy", a)
    write(tmp_path / "trainB/x.png", b)
    expected_A = 2 * a.transpose(2, 0, 1) - 1
    expected_B = b.transpose(2, 0, 1) / 127.5 - 1

    inputs, targets = load_pairs(tmp_path, 8, (2, 3), "AtoB").batch([0])
    assert np.allclose(inputs[0], expected_A, atol=1e-6)
    assert np.allclose(targets[0], expected_B, atol=1e-6)

    inputs, targets = load_pairs(tmp_path, 8, (3, 2), "BtoA").batch([0])
    assert np.allclose(inputs[0], expected_B, atol=1e-6)
    assert np.allclose(targets[0], expected_A, atol=1e-6)


def test_pairs_in_one_array(tmp_path):
    values = np.linspace(0, 1, 8 * 16 * 4).reshape(8, 16, 4)
    write(tmp_path / "train/x.npy", values)
    inputs, targets = load_pairs(tmp_path, 8, 4).batch([0])
    expected = 2 * values.transpose(2, 0, 1) - 1
    assert np.allclose(inputs[0], expected[:, :, :8], atol=1e-6)
    assert np.allclose(targets[0], expected[:, :, 8:], atol=1e-6)


def test_domains_of_arrays(tmp_path):
    write(tmp_path / "trainA/x.npy", np.full((8, 8, 1), 0.25))
    write(tmp_path / "trainB/x.npy", np.full((8, 8, 1), 1.0))
    a, b = load_domains(tmp_path, None, 8, 1).batch([0])
    assert (a.mean(), b.mean()) == (-0.5, 1)


# ---- errors ----


@pytest.mark.parametrize(
    ("values", "channels", "reason"),
    [
        (np.float32([[0, np.nan]]), 1, "it holds nan to nan, and floats must lie from 0 to 1"),
        (np.float32([[0, np.inf]]), 1, "it holds 0 to inf"),
        (np.float32([[-0.5, 1]]), 1, "it holds -0.5 to 1"),
        (np.float32([[0, 255]]), 1, "it holds 0 to 255"),
        (np.zeros(5), 1, r"of shape \(5,\); expected \(H, W\) or \(H, W, 1\) for 1 channels"),
        (np.zeros((2, 2, 2, 2)), 2, r"of shape \(2, 2, 2, 2\); expected \(H, W, 2\)"),
        (np.zeros((4, 4, 4)), 3, r"of shape \(4, 4, 4\); expected \(H, W, 3\) for 3 channels"),
        (np.zeros((4, 4)), 3, r"expected \(H, W, 3\)"),
        (np.zeros((4, 4), np.int64), 1, "type int64; uint8, uint16, bool and floats can be read"),
        (np.zeros((4, 4), complex), 1, "values of type complex128"),
        (np.array([[None]]), 1, "Python objects"),
        (np.zeros((0, 4)), 1, "4 x 0 pixels|empty file"),
    ],
)
def test_arrays_that_are_not_images(tmp_path, values, channels, reason):
    path = write(tmp_path / "x.npy", values)
    with pytest.raises(Unreadable, match=reason):
        open_picture(path, channels)


@pytest.mark.parametrize("shape", [(), (9,), (2, 3, 4, 5)])
def test_arrays_without_a_width(tmp_path, shape):
    path = write(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with pytest.raises(Unreadable, match=r"an array of shape \(.*; expected \(H, W\)"):
        size_of(path)


def test_files_that_are_not_arrays(tmp_path):
    path = write(tmp_path / "x.npy", np.zeros((40, 40)))
    intact = path.read_bytes()
    long_header = intact[:10] + b"{" * 70
    for data in (b"", b"text", intact[:-1], intact[:60], long_header, b"\x80\x04K\x01."):
        path.write_bytes(data)
        with pytest.raises(Unreadable, match=r"x\.npy cannot be read"):
            open_picture(path, 1)
        with pytest.raises(Unreadable, match=r"x\.npy cannot be read"):
            size_of(path)


def test_an_array_that_claims_to_be_huge(tmp_path):
    """Its header says more than the file holds: no such memory is asked for."""
    path = write(tmp_path / "x.npy", np.zeros((4, 4), np.uint8))
    data = path.read_bytes().replace(b"(4, 4)", b"(9999999, 9999999)")
    path.write_bytes(data.replace(b" " * 13, b"", 1))  # keeps the header's length
    with pytest.raises(Unreadable):
        open_picture(path, 1)


@pytest.mark.parametrize(
    ("values", "channels", "reason"),
    [
        (np.zeros((4, 4, 3), np.uint8), 2, "an image file has 1 or 3 channels, not 2"),
        (np.full((4, 4), 70000, np.int32), 1, "it holds 70000 to 70000, and 16 bits go from 0"),
        (np.full((4, 4), 1.5, np.float32), 1, "it holds 1.5 to 1.5, and floats must lie from 0"),
    ],
)
def test_pictures_that_are_refused(tmp_path, values, channels, reason):
    with pytest.raises(Unreadable, match=reason):
        open_picture(write(tmp_path / "x.tif", values), channels)


def test_a_folder_of_wrong_arrays_is_one_line_with_the_reason(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.npy", np.zeros((8, 8, 4)))
    message = r"5 of 5 images cannot be read: .*0.npy.*\(an array of shape \(8, 8, 4\)"
    with pytest.raises(UserError, match=message):
        load_images(tmp_path, 8, 3)


def test_drawn_digits_have_no_other_channels():
    with pytest.raises(UserError, match="1 or 3 channels, not 2 and 3"):
        load_pairs(None, 32, (2, 3))
