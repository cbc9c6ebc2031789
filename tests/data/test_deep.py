"""Images of more than eight bits: values by hand, scaled and cut as Pillow does with eight, and what is refused."""

from common import UserError
from common.data import load_domains, load_images, load_pairs
from common.data.decode import Unreadable, fit, open_image, open_picture, pixels_of, size_of

import numpy as np
import pytest
from PIL import Image

LEVELS = np.array([[0, 1, 2, 255], [256, 257, 32768, 65535]], np.uint16)  # of 16 bits


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
def test_sixteen_bits_keep_every_level(tmp_path, suffix, channels):
    values = LEVELS if suffix != "npy" else np.repeat(LEVELS[..., None], channels, axis=2)
    path = write(tmp_path / f"x.{suffix}", values)
    pixels = pixels_of(open_picture(path, channels))
    assert (pixels.shape, pixels.dtype) == ((channels, 2, 4), np.float32)
    assert np.abs(pixels - (LEVELS / 32767.5 - 1)).max() < 1e-7
    assert len(np.unique(pixels)) == 8
    assert size_of(path) == (4, 2)
    eight = np.asarray(open_image(path, channels)).reshape(2, 4, channels)
    assert np.array_equal(eight[..., 0], np.round(LEVELS / 257))


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
    assert np.allclose(pixels_of(open_picture(path, 1))[0], [[-1, -0.5], [0, 1]], atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (20, 40), (5, 3)])
def test_they_are_scaled_and_cut_as_pillow_does(tmp_path, size):
    """An image of eight bits, and the same one times 257, agree within Pillow's rounding."""
    values = np.random.default_rng(0).integers(110, 146, size=(12, 16, 3), dtype=np.uint8)
    usual = fit(open_picture(write(tmp_path / "x.png", values), 3), size)
    deep = fit(open_picture(write(tmp_path / "x.npy", 257 * values.astype(np.uint16)), 3), size)
    assert usual.shape == deep.shape and np.abs(deep).max() <= 1
    assert np.abs(deep - (usual / 127.5 - 1)).max() < 1.6 / 127.5  # two passes, each rounded to 1


# ---- as data ----


def test_files_of_both_kinds_in_one_batch(tmp_path):
    write(tmp_path / "a.png", np.full((8, 8), 255, np.uint8))
    write(tmp_path / "b.png", np.full((8, 8), 256, np.uint16))
    write(tmp_path / "c.npy", np.zeros((8, 8)))
    (images,) = load_images(tmp_path, 8, 1).batch([0, 1, 2])
    assert np.allclose(images.mean((1, 2, 3)), [1, 256 / 32767.5 - 1, -1], atol=1e-6)


def test_pairs_of_different_channels(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.random((8, 8, 2)), rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
    write(tmp_path / "trainA/x.npy", a)
    write(tmp_path / "trainB/x.png", b)
    expected = 2 * a.transpose(2, 0, 1) - 1, b.transpose(2, 0, 1) / 127.5 - 1
    for direction, channels, order in (("AtoB", (2, 3), 1), ("BtoA", (3, 2), -1)):
        pair = load_pairs(tmp_path, 8, channels, direction).batch([0])
        for got, want in zip(pair, expected[::order]):
            assert np.allclose(got[0], want, atol=1e-6)


def test_pairs_in_one_array(tmp_path):
    values = np.linspace(0, 1, 8 * 16 * 4).reshape(8, 16, 4)
    write(tmp_path / "train/x.npy", values)
    for got, want in zip(load_pairs(tmp_path, 8, 4).batch([0]), (values[:, :8], values[:, 8:])):
        assert np.allclose(got[0], 2 * want.transpose(2, 0, 1) - 1, atol=1e-6)


def test_domains_of_arrays(tmp_path):
    for side, value in (("A", 0.25), ("B", 1.0)):
        write(tmp_path / f"train{side}/x.npy", np.full((8, 8, 1), value))
    a, b = load_domains(tmp_path, None, 8, 1).batch([0])
    assert (a.mean(), b.mean()) == (-0.5, 1)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("values", "channels", "reason"),
    [
        (np.float32([[0, np.nan]]), 1, "it holds nan to nan, and floats must lie from 0 to 1"),
        (np.float32([[0, np.inf]]), 1, "it holds 0 to inf"),
        (np.float32([[-0.5, 1]]), 1, "it holds -0.5 to 1"),
        (np.float32([[0, 255]]), 1, "it holds 0 to 255"),
        (np.zeros(5), 1, r"an array of shape \(5,\); \(H, W\) or \(H, W, 1\) is wanted"),
        (np.zeros((2, 2, 2, 2)), 2, r"an array of shape \(2, 2, 2, 2\); \(H, W, 2\) is wanted"),
        (
            np.zeros((4, 4, 4)),
            3,
            r"an array of shape \(4, 4, 4\); \(H, W, 3\) is wanted for 3 channels",
        ),
        (np.zeros((4, 4)), 3, r"\(H, W, 3\) is wanted"),
        (
            np.zeros((4, 4), np.int64),
            1,
            "values of type int64; uint8, uint16, bool and floats can be read",
        ),
        (np.zeros((4, 4), complex), 1, "values of type complex128"),
        (np.array([[None]]), 1, "Python objects"),
        (np.zeros((0, 4)), 1, "4 x 0 pixels|empty file"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, values, channels, reason):
    path = write(tmp_path / "x.npy", values)
    with pytest.raises(Unreadable, match=reason):
        open_picture(path, channels)


def test_files_that_are_no_arrays(tmp_path):
    whole = write(tmp_path / "x.npy", np.zeros((40, 40))).read_bytes()
    for data in (b"", b"text", whole[:-1], whole[:60], whole[:10] + b"{" * 70, b"\x80\x04K\x01."):
        (tmp_path / "x.npy").write_bytes(data)
        for read in (
            lambda: open_picture(tmp_path / "x.npy", 1),
            lambda: size_of(tmp_path / "x.npy"),
        ):
            with pytest.raises(Unreadable, match=r"x\.npy cannot be read"):
                read()


def test_an_array_that_claims_to_be_huge(tmp_path):
    """Its header says more than the file holds: nothing of that size is asked of memory."""
    path = write(tmp_path / "x.npy", np.zeros((4, 4), np.uint8))
    path.write_bytes(
        path.read_bytes().replace(b"(4, 4)", b"(9999999, 9999999)").replace(b" " * 13, b"", 1)
    )
    with pytest.raises(Unreadable):
        open_picture(path, 1)


@pytest.mark.parametrize(
    ("values", "channels", "reason"),
    [
        (np.zeros((4, 4, 3), np.uint8), 2, "an image file has 1 or 3 channels, not 2"),
        (
            np.full((4, 4), 70000, np.int32),
            1,
            "it holds 70000 to 70000, and 16 bits go from 0 to 65535",
        ),
        (
            np.full((4, 4), 1.5, np.float32),
            1,
            "it holds 1.5 to 1.5, and floats must lie from 0 to 1",
        ),
    ],
)
def test_pictures_that_are_refused(tmp_path, values, channels, reason):
    with pytest.raises(Unreadable, match=reason):
        open_picture(write(tmp_path / "x.tif", values), channels)


def test_a_folder_of_wrong_arrays_is_one_line_with_the_reason(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.npy", np.zeros((8, 8, 4)))
    with pytest.raises(
        UserError, match=r"5 of 5 images cannot be read: .*0.npy.*\(an array of shape \(8, 8, 4\)"
    ):
        load_images(tmp_path, 8, 3)


def test_drawn_digits_have_no_other_channels():
    with pytest.raises(UserError, match="1 or 3 channels, not 2 and 3"):
        load_pairs(None, 32, (2, 3))
