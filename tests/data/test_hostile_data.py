"""Data from strangers: nothing in a file is executed, and one line names the file."""

from common import UserError
from common.data import load_attributes, load_digits
from common.data.attributes import read_table
from common.data.folders import ImageFolder

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder
from PIL import Image
from registry import images

MARKER = "hostile_code_ran"
PICKLE = f"cos\nmkdir\n(S'{MARKER}'\ntR.".encode()  # unpickling it makes a folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Hostile code would leave its marker in this folder."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARKER).exists()


# ---- images ----


def picture(suffix, size=(16, 16), mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, suffix, **options)
    return buffer.getvalue()


def png_that_claims(width, height):
    """A PNG whose header claims another size, with the right checksum."""
    data = bytearray(picture("png"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def wrong_checksum():
    data = picture("png")
    return data[:29] + b"\0\0\0\0" + data[33:]


def animated():
    frames = [Image.new("P", (16, 16), k) for k in range(4)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def npy(shape, version=1, n_bytes=None):
    """A .npy file of a few bytes whose header claims a shape, or a length."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = (len(header) if n_bytes is None else n_bytes).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(64)


READABLE = {
    "CMYK": ("x.jpg", picture("jpeg", mode="CMYK")),
    "one bit": ("x.png", picture("png", mode="1")),
    "an animation under another suffix": ("x.png", animated()),
    "a JPEG called PNG": ("x.png", picture("jpeg")),
    "one pixel": ("x.png", picture("png", (1, 1))),
    "a line": ("x.png", picture("png", (500, 1))),
    "32 bits": ("x.png", picture("tiff", mode="I")),
}
BROKEN = {
    "nothing": ("x.png", b""),
    "text": ("x.jpg", b"<html>404</html>"),
    "half a PNG": ("x.png", picture("png")[:50]),
    "half a JPEG": ("x.jpg", picture("jpeg", (200, 200))[:300]),
    "no pixels": ("x.png", png_that_claims(0, 16)),
    "a bomb of 4 billion pixels": ("x.png", png_that_claims(65000, 65000)),
    "a bomb beyond 32 bits": ("x.png", png_that_claims(2**31 - 1, 2**31 - 1)),
    "a pickle": ("x.bmp", PICKLE),
    "a wrong checksum": ("x.png", wrong_checksum()),
    "PostScript": ("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    "an array of a wrong type": ("x.npy", npy("'a'")),
    "an array beyond 64 bits": ("x.npy", npy(f"({2**63}, 1)")),
    "an array of negative sides": ("x.npy", npy("(-16, 16)")),
    "an array with a header of 1 GB": ("x.npy", npy("(8, 8, 3)", 2, 1 << 30)),
    "an array larger than its file": ("x.npy", npy("(9999, 9999, 3)")),
    "an archive called array": ("x.npy", b"PK\3\4" + bytes(40)),
}


@pytest.mark.parametrize("case", READABLE)
def test_odd_images_are_read(tmp_path, case):
    name, data = READABLE[case]
    (tmp_path / name).write_bytes(data)
    (pixels,) = ImageFolder(tmp_path, 16, 3).load(0)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == (np.float32 if case == "32 bits" else np.uint8)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images_are_named_and_skipped(tmp_path, capsys, case):
    name, data = BROKEN[case]
    images(tmp_path / "data", 3)
    (tmp_path / "data" / name).write_bytes(data)
    assert len(ImageFolder(tmp_path / "data", 16, 3)) == 3
    assert name in capsys.readouterr().err


# ---- digits and attributes ----

IMAGES_HEADER = b"\0\0\x08\x03"
IDX = {
    "nothing": b"",
    "three bytes": b"\0\0\x08",
    "labels instead of images": idx_bytes(np.zeros(40, np.uint8)),
    "floats": b"\0\0\x0d\x03" + struct.pack(">3I", 1, 2, 2) + bytes(16),
    "sizes beyond the memory": IMAGES_HEADER + b"\xff" * 12,
    "a byte too few": idx_bytes(np.zeros((40, 4, 4), np.uint8))[:-1],
    "a byte too many": idx_bytes(np.zeros((40, 4, 4), np.uint8)) + b"\0",
    "fewer images than labels": idx_bytes(np.zeros((39, 4, 4), np.uint8)),
    "half of a compressed file": b"\x1f\x8b\x08" + bytes(20),
    "a pickle": PICKLE,
    "no pixels": idx_bytes(np.zeros((40, 0, 28), np.uint8)),
    "a wrong checksum in gzip": gzip.compress(bytes(3000))[:-8] + bytes(8),
    "gzip of an unknown method": b"\x1f\x8b\x09" + bytes(20),
}


def test_digits_that_would_fill_the_memory(tmp_path):
    """40 kB on the disk, and 15 GB at 28 x 28."""
    pixels = np.zeros((20_000_000, 1, 1), np.uint8)
    folder = write_idx_folder(tmp_path / "data", pixels, np.zeros(20_000_000, np.uint8))
    with pytest.raises(UserError, match=r"20,000,000 images of 28 x 28 would take"):
        load_digits(folder)


@pytest.mark.parametrize("case", IDX)
def test_damaged_digits(tmp_path, case):
    pixels = np.zeros((40, 4, 4), np.uint8)
    folder = write_idx_folder(tmp_path / "data", pixels, np.zeros(40, np.uint8))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(IDX[case])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz"):
        load_digits(folder)


HEAD = b"2\nMale Young\n"
TABLES = {
    "nothing": b"",
    "a header alone": HEAD,
    "a row that is too short": HEAD + b"0.png 1\n1.png 1 -1\n",
    "a row that is too long": HEAD + b"0.png 1 -1\n1.png 1 -1 1\n",
    "words instead of numbers": HEAD + b"0.png yes no\n",
    "numbers out of range": HEAD + b"0.png 1 7\n",
    "images that are not there": HEAD + b"a.png 1 -1\nb.png -1 1\n",
    "names that leave the folder": HEAD + b"../../x.png 1 -1\n/etc/passwd -1 1\n",
    "only one value": HEAD + b"0.png 1 1\n1.png 1 1\n",
    "bytes that are not text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("case", TABLES)
def test_damaged_tables(tmp_path, case):
    images(tmp_path / "data/img_align_celeba", 2)
    (tmp_path / "data/list_attr_celeba.txt").write_bytes(TABLES[case])
    with pytest.raises(UserError, match=f"{tmp_path}/data"):
        load_attributes(tmp_path / "data", 32, 3)


def test_tables_with_byte_order_mark_and_crlf_are_read(tmp_path):
    path = tmp_path / "list_attr_celeba.txt"
    path.write_bytes(b"\xef\xbb\xbf2\r\nMale Young\r\n0.png  1 -1\r\n1.png -1  1\r\n")
    header, rows = read_table(path)
    assert header == ["Male", "Young"]
    assert rows == [("0.png", [1.0, 0.0]), ("1.png", [0.0, 1.0])]
