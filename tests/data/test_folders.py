"""Folders of images: every mode and size, broken files, order, memory."""

from common import UserError
from common.data import Batches, decode, items, load_images
from common.data.decode import check_images, fit, list_images, open_image, size_of
from common.data.folders import ImageFolder

import io
import os
import struct
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pictures"


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path, **options)
    return path


def plain(colour, size=(4, 6), dtype=np.uint8):
    """An image (H, W) of one grey, or (H, W, C) of one colour."""
    return np.full((*size, *np.shape(colour)), colour, dtype)


def many(folder, n):
    """n images of different greys."""
    for i in range(n):
        save(folder / f"{i:04d}.png", plain(i % 256, (8, 8)))


def test_images_in_subfolders_are_listed_in_order(folder):
    for name in ("b/2.PNG", "b/1.jpeg", "a.bmp", "c.webp"):
        save(folder / name, plain([0, 0, 0]))
    (folder / "notes.txt").write_text("x")
    (folder / "d.png").mkdir()
    names = [str(file.relative_to(folder)) for file in list_images(folder)]
    assert names == ["a.bmp", "b/1.jpeg", "b/2.PNG", "c.webp"]


def test_a_folder_that_is_not_there(folder):
    with pytest.raises(UserError, match="is not a folder"):
        list_images(folder)


def test_a_folder_without_images(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"expected png, jpg, .*; found: notes\.txt"):
        list_images(folder)


def test_idx_files_and_images(folder, idx_folder):
    many(folder / "train", 3)
    many(folder / "val", 2)
    assert len(load_images(folder, 8, 1)) == 3
    assert len(load_images(folder, 8, 1, split="test")) == 2
    assert len(load_images(idx_folder, 8, 1)) == 40


# ---- modes ----


@pytest.mark.parametrize(
    ("array", "mode", "expected"),
    [
        (plain(100), "L", [100, 100, 100]),
        (plain([10, 20, 30]), "RGB", [10, 20, 30]),
        (plain([10, 20, 30, 255]), "RGBA", [10, 20, 30]),
        (plain([10, 20, 30, 0]), "RGBA", [255, 255, 255]),  # transparent: on white
        (plain([40, 255]), "LA", [40, 40, 40]),
        (plain(0x6464, dtype=np.uint16), None, [100, 100, 100]),  # 0x6464 / 257
    ],
)
def test_modes(folder, array, mode, expected):
    path = save(folder / "x.png", array, mode)
    assert np.asarray(open_image(path, 3))[2, 3].tolist() == expected
    if expected[0] == expected[1]:
        assert np.asarray(open_image(path, 1))[2, 3] == expected[0]


def test_a_palette_and_its_transparent_colour(folder):
    folder.mkdir()
    image = Image.new("P", (4, 4))
    image.putpalette([1, 2, 3, 200, 100, 50] + [0] * 762)
    image.putpixel((0, 0), 1)
    image.save(folder / "x.png", transparency=0)
    pixels = np.asarray(open_image(folder / "x.png", 3))
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_cmyk_is_converted(folder):
    folder.mkdir()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(folder / "x.jpg", quality=100)
    red, green, blue = np.asarray(open_image(folder / "x.jpg", 3))[4, 4]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_photograph_with_an_exif_orientation_is_upright(folder, suffix):
    """Orientation 6 says: turn it by 90 degrees clockwise to see it upright."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # bright on the left, which becomes the top
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(folder / f"x.{suffix}", pixels, exif=exif, quality=95)
    image = np.asarray(open_image(path, 1))
    assert image.shape == (32, 16)
    assert size_of(path) == (16, 32)
    assert image[:8].mean() > 200
    assert image[-8:].mean() < 50


def exif_of(*entries):
    """A block of EXIF data: entries of (tag, type, count, four bytes)."""
    body = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body + bytes(4)


QUARTER = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
ODD_EXIF = {  # name: (the block, whether the orientation of 6 can be read)
    "a number beyond its type": (
        exif_of(QUARTER, (0x0102, 4, 1, struct.pack("<I", 70000))),
        True,
    ),
    "an entry of an unknown type": (exif_of(QUARTER, (0x0131, 200, 1, bytes(4))), True),
    "more than there is": (exif_of(QUARTER, (0x0131, 2, 4_000_000_000, bytes(4))), True),
    "a text as orientation": (exif_of((0x0112, 2, 2, b"6\0\0\0")), False),
    "two orientations": (exif_of((0x0112, 3, 2, struct.pack("<HH", 6, 6))), True),
    "an orientation of 99": (exif_of((0x0112, 3, 1, struct.pack("<HH", 99, 0))), False),
    "half a block": (exif_of(QUARTER)[:20], False),
    "four bytes": (b"Exif\0\0MM\0*", False),
    "nothing": (b"Exif\0\0", False),
}


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("case", ODD_EXIF)
def test_odd_exif_entries_do_not_cost_the_pixels(folder, case, suffix):
    """They are turned if the orientation can be read, and otherwise read as stored."""
    block, is_turned = ODD_EXIF[case]
    path = save(folder / f"x.{suffix}", plain(90, (16, 32)), exif=block)
    size = (16, 32) if is_turned else (32, 16)
    assert open_image(path, 1).size == size
    assert size_of(path) == size
    assert check_images([path]) == [path]


def test_an_orientation_in_a_picture_of_sixteen_bits(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(folder / "x.png", plain(0x6464, (16, 32), np.uint16), exif=exif)
    assert open_image(path, 1).size == size_of(path) == (16, 32)


def test_fit_crops_the_centre():
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 200
    fitted = fit(Image.fromarray(pixels), 4)
    assert fitted.shape == (3, 4, 4)
    assert (fitted == 200).all()


def test_images_lie_between_minus_one_and_one(folder):
    save(folder / "x.png", plain(255, (8, 8)))
    save(folder / "y.png", plain(0, (8, 8)))
    (images,) = ImageFolder(folder, 8, 1).batch([0, 1])
    assert images.dtype == np.float32
    assert images.shape == (2, 1, 8, 8)
    assert (images[0] == 1).all()
    assert (images[1] == -1).all()


# ---- broken files ----


def test_broken_files_are_skipped_with_one_warning(folder, capsys):
    many(folder, 200)
    intact = (folder / "0000.png").read_bytes()
    (folder / "broken.png").write_bytes(intact[: len(intact) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    assert len(load_images(folder, 8, 1)) == 200
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ")
    assert "broken.png" in warning
    assert "empty.jpg" in warning


def test_too_many_broken_files_are_an_error(folder):
    many(folder, 20)
    for i in range(3):
        (folder / f"broken{i}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="3 of 23 images cannot be read"):
        load_images(folder, 8, 1)


def test_a_decompression_bomb_is_not_decoded(folder, monkeypatch):
    path = save(folder / "x.png", plain(1, (40, 40)))
    monkeypatch.setattr(decode, "LARGEST_IMAGE", 1599)
    with pytest.raises(ValueError, match="40 x 40 pixels"):
        open_image(path, 1)


def test_large_images_are_decoded_one_at_a_time(folder, monkeypatch):
    large = save(folder / "large.png", plain(1, (40, 40)))
    small = save(folder / "small.png", plain(1, (40, 39)))
    monkeypatch.setattr(decode, "ALONE", 1599)
    monkeypatch.setattr(decode, "alone", MagicMock())
    open_image(small, 1)
    assert not decode.alone.__enter__.called
    open_image(large, 1)
    assert decode.alone.__enter__.called


@pytest.mark.parametrize("error", [MemoryError(), TypeError("x"), struct.error("y"), OSError(5)])
def test_whatever_a_decoder_raises(folder, capsys, monkeypatch, error):
    many(folder, 4)
    load = decode.decoded

    def failing(image, convert):
        if "0002" in image.filename:
            raise error
        return load(image, convert)

    monkeypatch.setattr(decode, "decoded", failing)
    assert [file.name for file in check_images(list_images(folder))] == [
        "0000.png",
        "0001.png",
        "0003.png",
    ]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: skipping 1 of 4 images that cannot be read: {folder}/0002")


@pytest.mark.parametrize("name", ["x.png", "x.npy"])
def test_what_is_no_file_is_not_opened(folder, name):
    """It would wait for ever, though a file of that name was there when a run began."""
    folder.mkdir()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name} cannot be read \\({name} is no file"):
        open_image(folder / name, 1)
    with pytest.raises(UserError, match="is no file"):
        size_of(folder / name)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "bmp"])
def test_truncated_files_are_found_wherever_they_end(folder, suffix):
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    data = buffer.getvalue()
    step = max(len(data) // 25, 1)
    for length in range(0, len(data) * 9 // 10, step):
        file = folder / f"{length}.{suffix}"
        file.write_bytes(data[:length])
        with pytest.raises(UserError, match="1 of 1 images cannot be read"):
            check_images([file])


def test_a_png_without_its_end_is_found_with_its_size(folder, monkeypatch):
    """EXIF data may follow the pixels, so the size needs all of the file."""
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    path = save(folder / "x.png", pixels)
    path.write_bytes(path.read_bytes()[:-300])
    monkeypatch.setattr(decode, "DECODE_ALL", 0)
    with pytest.raises(UserError, match="1 of 1 images cannot be read"):
        check_images([path])


def test_of_very_many_files_some_are_checked(tmp_path, monkeypatch, capsys):
    files = [tmp_path / f"{i}.png" for i in range(25)]
    for file in files:
        Image.new("L", (4, 4)).save(file)
    files[3].write_bytes(b"no image")
    files[4].write_bytes(b"no image")
    monkeypatch.setattr(decode, "CHECK_ALL", 10)  # every third file: 3, but not 4
    assert check_images(files, 1) == files[:3] + files[4:]
    assert "skipping 1 of 9 images" in capsys.readouterr().err


# ---- order and memory ----


def test_batches_come_in_the_order_of_the_seed(folder):
    many(folder, 40)

    def greys(seed):
        batches = Batches(ImageFolder(folder, 8, 1), 8, np.random.default_rng(seed))
        means = np.concatenate([images.mean(axis=(1, 2, 3)) for (images,) in batches])
        return ((means + 1) * 127.5).round().tolist()

    first = greys(0)
    assert sorted(first) == list(range(40))
    assert first == greys(0)
    assert first != greys(1)


def test_few_batches_are_decoded_ahead(folder):
    """So the memory does not grow with the folder."""
    many(folder, 60)
    data = ImageFolder(folder, 8, 1)
    load = data.load
    loaded = []

    def counted_load(index, seed):
        loaded.append(index)
        return load(index, seed)

    data.load = counted_load
    stream = data.stream([[i] for i in range(60)], np.zeros(60, np.int64))
    for _ in range(10):
        next(stream)
    assert len(loaded) <= 10 + items.AHEAD + 1
    stream.close()


def test_an_interrupted_stream_leaves_no_threads(folder):
    many(folder, 20)
    before = threading.active_count()
    stream = ImageFolder(folder, 8, 1).stream([[i] for i in range(20)], np.zeros(20, np.int64))
    next(stream)
    stream.close()
    assert threading.active_count() <= before
