"""Folders of images: every mode and size, broken files, order, memory."""

from common import Batches, UserError
from common.data import decode, items, load_images
from common.data.decode import check_images, fit, list_images, open_image, size_of
from common.data.folders import ImageFolder

import io
import threading

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


def grey(value, size=(4, 6)):
    return np.full(size, value, np.uint8)


def test_lists_images_in_subfolders_sorted_and_nothing_else(folder):
    for name in ("b/2.PNG", "b/1.jpeg", "a.bmp", "c.webp"):
        save(folder / name, np.zeros((4, 4, 3), np.uint8))
    (folder / "notes.txt").write_text("x")
    (folder / "d.png").mkdir()
    names = [str(f.relative_to(folder)) for f in list_images(folder)]
    assert names == ["a.bmp", "b/1.jpeg", "b/2.PNG", "c.webp"]


@pytest.mark.parametrize(
    ("make", "message"),
    [(False, "is not a folder"), (True, "expected png, jpg, .*; found: notes.txt")],
)
def test_nothing_to_read(folder, make, message):
    if make:
        folder.mkdir()
        (folder / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=message):
        list_images(folder)


# ---- modes: what an image becomes, by hand ----


@pytest.mark.parametrize(
    ("array", "mode", "expected"),
    [
        (grey(100), "L", [100, 100, 100]),
        (np.full((4, 6, 3), [10, 20, 30], np.uint8), "RGB", [10, 20, 30]),
        (np.full((4, 6, 4), [10, 20, 30, 255], np.uint8), "RGBA", [10, 20, 30]),
        (
            np.full((4, 6, 4), [10, 20, 30, 0], np.uint8),
            "RGBA",
            [255, 255, 255],
        ),  # transparent: on white
        (np.full((4, 6, 2), [40, 255], np.uint8), "LA", [40, 40, 40]),
        (np.full((4, 6), 0x6464, np.uint16), None, [100, 100, 100]),  # 16 bits: 0x6464 / 257
    ],
)
def test_modes(folder, array, mode, expected):
    path = save(folder / "x.png", array, mode)
    assert np.asarray(open_image(path, 3))[2, 3].tolist() == expected
    if expected[0] == expected[1]:
        assert np.asarray(open_image(path, 1))[2, 3] == expected[0]


def test_palette_and_its_transparent_colour(folder):
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
def test_an_exif_rotated_photograph_stands_upright(folder, suffix):
    folder.mkdir()
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = (
        255  # bright on the left; orientation 6: turn by 90 degrees clockwise to see it upright
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / f"x.{suffix}", exif=exif, quality=95)
    image = np.asarray(open_image(folder / f"x.{suffix}", 1))
    assert image.shape == (32, 16)
    assert size_of(folder / f"x.{suffix}") == (16, 32)
    assert image[:8].mean() > 200 > 50 > image[-8:].mean()


def test_fit_cuts_out_the_middle():
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 200
    assert (fit(Image.fromarray(pixels), 4) == 200).all()
    assert fit(Image.fromarray(pixels), 4).shape == (3, 4, 4)


def test_images_lie_between_minus_one_and_one(folder):
    save(folder / "x.png", grey(255, (8, 8)))
    save(folder / "y.png", grey(0, (8, 8)))
    (images,) = ImageFolder(folder, 8, 1).batch([0, 1])
    assert images.dtype == np.float32
    assert images.shape == (2, 1, 8, 8)
    assert images[0].min() == images[0].max() == 1
    assert images[1].min() == images[1].max() == -1


# ---- broken files ----


def many(folder, n):
    for i in range(n):
        save(folder / f"{i:04d}.png", grey(i % 256, (8, 8)))


def test_broken_files_are_skipped_with_one_warning(folder, capsys):
    many(folder, 200)
    good = (folder / "0000.png").read_bytes()
    (folder / "broken.png").write_bytes(good[: len(good) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    data = load_images(folder, 8, 1)
    assert len(data) == 200
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "broken.png" in warnings[0]
    assert "empty.jpg" in warnings[0]


def test_too_many_broken_files_are_an_error(folder):
    many(folder, 20)
    for i in range(3):
        (folder / f"broken{i}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="3 of 23 images cannot be read"):
        load_images(folder, 8, 1)


def test_a_decompression_bomb_is_not_decoded(folder, monkeypatch):
    path = save(folder / "x.png", grey(1, (40, 40)))
    monkeypatch.setattr(decode, "LARGEST_IMAGE", 1599)
    with pytest.raises(ValueError, match="40 x 40 pixels"):
        open_image(path, 1)


# ---- order and memory ----


def test_batches_come_in_the_order_of_the_seed(folder):
    many(folder, 40)

    def greys(seed):
        batches = Batches(ImageFolder(folder, 8, 1), 8, seed)
        return [[round((x.mean() + 1) * 127.5) for x in images] for (images,) in batches]

    first = greys(0)
    assert sorted(grey for batch in first for grey in batch) == list(range(40))
    assert first == greys(0) != greys(1)


def test_few_batches_are_decoded_ahead(folder):
    """So memory does not grow with the folder."""
    many(folder, 60)
    data, loaded = ImageFolder(folder, 8, 1), []
    load = data.load
    data.load = lambda *args: loaded.append(args) or load(*args)
    stream = data.stream([[i] for i in range(60)], np.zeros(60, np.int64))
    for _ in range(10):
        next(stream)
    assert len(loaded) <= 10 + items.AHEAD + 1
    stream.close()


def test_data_set_of_idx_files_or_of_images(folder, idx_folder):
    many(folder / "train", 3)
    many(folder / "val", 2)
    assert len(load_images(folder, 8, 1)) == 3
    assert len(load_images(folder, 8, 1, split="test")) == 2
    assert len(load_images(idx_folder, 8, 1)) == 40


def test_an_interrupted_stream_leaves_no_threads(folder):
    many(folder, 20)
    before = threading.active_count()
    stream = ImageFolder(folder, 8, 1).stream([[i] for i in range(20)], np.zeros(20, np.int64))
    next(stream)
    stream.close()
    assert threading.active_count() <= before


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "bmp"])
def test_truncated_files_are_found_wherever_they_end(folder, suffix):
    folder.mkdir()
    buffer, pixels = (
        io.BytesIO(),
        np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8),
    )
    Image.fromarray(pixels).save(buffer, suffix)
    data = buffer.getvalue()
    lengths = range(0, len(data) * 9 // 10, max(len(data) // 25, 1))
    for i, length in enumerate(lengths):
        (folder / f"{i}.{suffix}").write_bytes(data[:length])
    for file in folder.iterdir():
        with pytest.raises(UserError, match="1 of 1 images cannot be read"):
            check_images([file])


def test_of_very_many_files_some_are_checked(tmp_path, monkeypatch, capsys):
    files = [tmp_path / f"{i}.png" for i in range(25)]
    for i, file in enumerate(files):
        Image.new("L", (4, 4)).save(file)
        if i in (3, 4):
            file.write_bytes(b"no image")
    monkeypatch.setattr(decode, "CHECK_ALL", 10)  # every third file, then: 3, but not 4
    assert check_images(files, 1) == files[:3] + files[4:]
    assert "skipping 1 of 9 images" in capsys.readouterr().err
