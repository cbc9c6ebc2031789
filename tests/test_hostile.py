"""Files from strangers: whatever is in them, nothing runs, nothing hangs, and one line names the file (exit code 2)."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder
from PIL import Image
from small import FLAGS, SHARED, images, make_data, run

import dcgan
import stargan
from common import checkpoint, folders

MARKER = "hostile_code_ran"


class Bomb:
    """Unpickling it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a checkpoint that loads."""
    folder = tmp_path_factory.mktemp("good")
    data = make_data("dcgan", folder / "data")
    run("dcgan", "--data_dir", data, *SHARED, *FLAGS["dcgan"], "--n_epochs", 1, "--out_dir", folder / "run")
    return (folder / "run/checkpoint_last.npz").read_bytes()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Hostile code that ran would leave its marker in this folder."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARKER).exists()


def entries(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(contents, method=zipfile.ZIP_STORED):
    """A zip file of {name: bytes}, or of pairs where a name occurs twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents.items() if isinstance(contents, dict) else contents:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
    return buffer.getvalue()


def with_header(text, data=b"", version=(1, 0)):
    """A .npy file with any text as its header."""
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header + data


def header(shape, descr="<f4", fortran=False):
    return str({"descr": descr, "fortran_order": fortran, "shape": shape})


# ---- one array of a checkpoint ----

ARRAYS = ["generator/layers.0.weight", "ema/layers.1.running_var", "optimizer_G/m/0.0"]
CHANGES = {
    "an object array with code": lambda x: npy(np.array([Bomb()], object)),
    "a pickle in place of an array": lambda x: pickle.dumps(Bomb()),
    "float64": lambda x: npy(x.astype(np.float64)),
    "float16": lambda x: npy(x.astype(np.float16)),
    "int32": lambda x: npy(x.astype(np.int32)),
    "another byte order": lambda x: npy(x.astype(">f4")),
    "complex": lambda x: npy(x.astype(np.complex64)),
    "text": lambda x: npy(np.full(x.shape, "x")),
    "a structure": lambda x: npy(np.zeros(x.shape, [("a", "<f4")])),
    "another shape": lambda x: npy(x.ravel()[:-1]),
    "one dimension more": lambda x: npy(x[None]),
    "a number": lambda x: npy(x.ravel()[0]),
    "no values": lambda x: npy(x[:0]),
    "NaN": lambda x: npy(np.where(np.arange(x.size).reshape(x.shape) == 0, np.nan, x).astype(np.float32)),
    "infinity": lambda x: npy(np.full_like(x, np.inf)),
    "a size of terabytes": lambda x: with_header(header((1 << 40,)), b"\0" * 64),
    "a negative size": lambda x: with_header(header((-1, 4)), b"\0" * 64),
    "an overflowing size": lambda x: with_header(header((1 << 62, 1 << 62)), b"\0" * 64),
    "the right header and no data": lambda x: with_header(header(x.shape)),
    "the right header and too much data": lambda x: with_header(header(x.shape), x.tobytes() + b"\0" * 999),
    "a header that calls a function": lambda x: with_header(f"__import__('os').mkdir({MARKER!r})"),
    "a header that is no dict": lambda x: with_header("[1, 2, 3]"),
    "a deeply nested header": lambda x: with_header("(" * 60 + ")" * 50),
    "an unknown version": lambda x: with_header(header(x.shape), x.tobytes(), version=(9, 0)),
    "nothing": lambda x: b"",
    "a magic number alone": lambda x: b"\x93NUMPY",
}


def refused(fails, tmp_path, data):
    """Both ways of opening a checkpoint refuse it, and name it."""
    path = tmp_path / "stranger.npz"
    path.write_bytes(data)
    code, line = fails(dcgan.main, ["--resume", path, "--sample_only", "--out_dir", tmp_path / "out"])
    assert code == 2
    assert str(path) in line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("name", ARRAYS[:2])
@pytest.mark.parametrize("change", CHANGES)
def test_an_array_of_a_checkpoint(good, tmp_path, fails, name, change):
    contents = entries(good)
    contents[name + ".npy"] = CHANGES[change](np.load(io.BytesIO(contents[name + ".npy"])))
    line = refused(fails, tmp_path, archive_of(contents))
    assert name in line


@pytest.mark.parametrize("change", list(CHANGES)[:6])
def test_an_array_that_only_training_reads(good, tmp_path, fails, idx_folder, change):
    contents, name = entries(good), ARRAYS[2]
    contents[name + ".npy"] = CHANGES[change](np.load(io.BytesIO(contents[name + ".npy"])))
    (tmp_path / "x.npz").write_bytes(archive_of(contents))
    flags = ["--data_dir", idx_folder, "--out_dir", tmp_path / "out", "--n_epochs", 2]
    code, line = fails(dcgan.main, ["--resume", tmp_path / "x.npz", *flags])
    assert code == 2
    assert "x.npz" in line
    assert name in line


# ---- the text of a checkpoint ----


def meta_with(**changes):
    def change(meta):
        for key, value in changes.items():
            target, parts = meta, key.split("__")
            for part in parts[:-1]:
                target = target[part]
            target[parts[-1]] = value
        return json.dumps(meta)

    return change


TEXTS = {
    "no JSON": lambda meta: "__import__('os')",
    "a list": lambda meta: "[1]",
    "a number": lambda meta: "1",
    "nothing": lambda meta: "",
    "nested beyond all bounds": lambda meta: "[" * 200_000,
    "two megabytes": lambda meta: json.dumps(meta) + " " * (2 << 20),
    "bytes that are no text": lambda meta: b"\xff\xfe\x00",
    "another format": meta_with(format=99),
    "a format that is no number": meta_with(format="1"),
    "another script": meta_with(script="../../etc/passwd"),
    "a script that is no text": meta_with(script=["dcgan"]),
    "arguments that are no dict": meta_with(args=[1]),
    "an unknown argument": meta_with(args__shell="rm"),
    "an argument of another type": meta_with(args__img_size="big"),
    "a dict as an argument": meta_with(args__lr={"a": 1}),
    "a negative size": meta_with(args__img_size=-16),
    "a size beyond the memory": meta_with(args__img_size=1 << 40),
    "a width that the weights do not have": meta_with(args__width=5),
    "an unknown architecture": meta_with(args__arch="transformer"),
    "an infinite rate": meta_with(args__lr=float("inf")),
    "a step that is no number": meta_with(step="9"),
    "an epoch that is no number": meta_with(epoch=1.5),
    "values that are no dict": meta_with(values=3),
}


@pytest.mark.parametrize("change", TEXTS)
def test_the_text_of_a_checkpoint(good, tmp_path, fails, change):
    contents = entries(good)
    text = TEXTS[change](json.loads(np.load(io.BytesIO(contents["meta.npy"])).tobytes()))
    text = text if isinstance(text, bytes) else text.encode()
    contents["meta.npy"] = npy(np.frombuffer(text, np.uint8))
    refused(fails, tmp_path, archive_of(contents))


STATES = {
    "a count of updates that is text": meta_with(values__optimizer_G__n_step="x"),
    "a position outside the data": meta_with(values__batches__position=10**9),
    "a negative position": meta_with(values__batches__position=-1),
    "a state of the order that is text": meta_with(values__batches__start_of_epoch="x"),
    "another generator of the order": meta_with(values__batches__start_of_epoch={"bit_generator": "os.system"}),
    "a state of the noise that is text": meta_with(rng="x"),
    "another generator of the noise": meta_with(rng={"bit_generator": "MT19937", "state": {}}),
}


@pytest.mark.parametrize("change", STATES)
def test_states_that_only_training_reads(good, tmp_path, fails, idx_folder, change):
    contents = entries(good)
    text = STATES[change](json.loads(np.load(io.BytesIO(contents["meta.npy"])).tobytes()))
    contents["meta.npy"] = npy(np.frombuffer(text.encode(), np.uint8))
    (tmp_path / "x.npz").write_bytes(archive_of(contents))
    flags = ["--data_dir", idx_folder, "--out_dir", tmp_path / "out", "--n_epochs", 2]
    code, line = fails(dcgan.main, ["--resume", tmp_path / "x.npz", *flags])
    assert code == 2
    assert "x.npz" in line


# ---- the archive itself ----


def flagged_as_encrypted(data):
    """Bit 0 of the flags, in the local and in the central header of the first entry."""
    data = bytearray(data)
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


ARCHIVES = {
    "nothing": lambda data: b"",
    "text": lambda data: b"not an archive",
    "a pickle": lambda data: pickle.dumps(Bomb()),
    "a pickle in an archive": lambda data: archive_of({"data.pkl": pickle.dumps(Bomb())}),
    "an archive of nothing": lambda data: archive_of({}),
    "no text in it": lambda data: archive_of({k: v for k, v in entries(data).items() if k != "meta.npy"}),
    "the text twice": lambda data: archive_of([*entries(data).items(), ("meta.npy", entries(data)["meta.npy"])]),
    "an array twice": lambda data: archive_of([*entries(data).items(), next(iter(entries(data).items()))]),
    "an array missing": lambda data: archive_of(dict([*entries(data).items()][1:])),
    "a weight too many": lambda data: archive_of({**entries(data), "generator/../../x.npy": npy(np.zeros(1))}),
    "encryption": flagged_as_encrypted,
    "half of it": lambda data: data[: len(data) // 2],
    "its end missing": lambda data: data[:-30],
    "its beginning missing": lambda data: data[100:],
    "a bomb of compressed zeros": lambda data: archive_of(
        {**entries(data), ARRAYS[0] + ".npy": npy(np.zeros((2000, 2000), np.float32))}, zipfile.ZIP_DEFLATED
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")  # made on purpose
@pytest.mark.parametrize("change", ARCHIVES)
def test_the_archive_of_a_checkpoint(good, tmp_path, fails, change):
    refused(fails, tmp_path, ARCHIVES[change](good))


def test_names_that_leave_the_folder_write_nothing(good, tmp_path):
    """An entry of a foreign part lies in the file unread."""
    data = archive_of({**entries(good), "../../escaped.npy": npy(np.zeros(3))})
    (tmp_path / "x.npz").write_bytes(data)
    run("dcgan", "--resume", tmp_path / "x.npz", "--sample_only", "--out_dir", tmp_path / "out")
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_a_link_in_the_place_of_the_temporary_file(good, tmp_path):
    """The checkpoint's temporary file lies in the run's own folder; what it is renamed to is a file."""
    target = tmp_path / "target"
    checkpoint.write_atomically(target, lambda file: file.write(good))
    assert target.read_bytes() == good
    assert [f.name for f in tmp_path.iterdir()] == ["target"]


# ---- images ----


def picture(suffix, size=(16, 16), mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, suffix, **options)
    return buffer.getvalue()


def png_that_claims(width, height):
    """A PNG whose header claims another size, with the right checksum."""
    import zlib

    data = bytearray(picture("png"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def animated():
    frames = [Image.new("P", (16, 16), k) for k in range(4)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


READABLE = {
    "CMYK": ("x.jpg", lambda: picture("jpeg", mode="CMYK")),
    "one bit": ("x.png", lambda: picture("png", mode="1")),
    "an animation under another suffix": ("x.png", animated),
    "a JPEG called PNG": ("x.png", lambda: picture("jpeg")),
    "one pixel": ("x.png", lambda: picture("png", (1, 1))),
    "a line": ("x.png", lambda: picture("png", (500, 1))),
    "32 bits": ("x.png", lambda: picture("tiff", mode="I")),
}
BROKEN = {
    "nothing": ("x.png", lambda: b""),
    "text": ("x.jpg", lambda: b"<html>404</html>"),
    "half a PNG": ("x.png", lambda: picture("png")[:50]),
    "half a JPEG": ("x.jpg", lambda: picture("jpeg", (200, 200))[:300]),
    "no pixels": ("x.png", lambda: png_that_claims(0, 16)),
    "a bomb of 4 billion pixels": ("x.png", lambda: png_that_claims(65000, 65000)),
    "a bomb beyond 32 bits": ("x.png", lambda: png_that_claims(2**31 - 1, 2**31 - 1)),
    "a pickle": ("x.bmp", lambda: pickle.dumps(Bomb())),
    "a wrong checksum": ("x.png", lambda: picture("png")[:29] + b"\0\0\0\0" + picture("png")[33:]),
}


@pytest.mark.parametrize("case", READABLE)
def test_odd_images_are_read(tmp_path, case):
    name, make = READABLE[case]
    (tmp_path / name).write_bytes(make())
    (pixels,) = folders.ImageFolder(tmp_path, 16, 3).load(0)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images_are_named_and_skipped(tmp_path, capsys, case):
    name, make = BROKEN[case]
    images(tmp_path / "data", 3)
    (tmp_path / "data" / name).write_bytes(make())
    assert len(folders.ImageFolder(tmp_path / "data", 16, 3)) == 3
    assert name in capsys.readouterr().err


# ---- digits and attributes ----

IDX = {
    "nothing": b"",
    "three bytes": b"\0\0\x08",
    "labels in the place of images": idx_bytes(np.zeros(40, np.uint8)),
    "floats": b"\0\0\x0d\x03" + struct.pack(">3I", 1, 2, 2) + bytes(16),
    "sizes beyond the memory": b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "a byte too few": idx_bytes(np.zeros((40, 4, 4), np.uint8))[:-1],
    "a byte too many": idx_bytes(np.zeros((40, 4, 4), np.uint8)) + b"\0",
    "fewer images than labels": idx_bytes(np.zeros((39, 4, 4), np.uint8)),
    "half of a compressed file": b"\x1f\x8b\x08" + bytes(20),
    "a pickle": pickle.dumps(Bomb()),
}


@pytest.mark.parametrize("case", IDX)
def test_damaged_digits(tmp_path, fails, case):
    folder = write_idx_folder(tmp_path / "data", np.zeros((40, 4, 4), np.uint8), np.zeros(40, np.uint8))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(IDX[case])
    code, line = fails(dcgan.main, ["--data_dir", folder, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert "train-images-idx3-ubyte.gz" in line


HEAD = "2\nMale Young\n"
TABLES = {
    "nothing": "",
    "a header alone": HEAD,
    "a row that is too short": HEAD + "0.png 1\n1.png 1 -1\n",
    "a row that is too long": HEAD + "0.png 1 -1\n1.png 1 -1 1\n",
    "words for numbers": HEAD + "0.png yes no\n",
    "numbers out of range": HEAD + "0.png 1 7\n",
    "images that are not there": HEAD + "a.png 1 -1\nb.png -1 1\n",
    "names that leave the folder": HEAD + "../../x.png 1 -1\n/etc/passwd -1 1\n",
    "one value only": HEAD + "0.png 1 1\n1.png 1 1\n",
    "bytes that are no text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("case", TABLES)
def test_damaged_tables(tmp_path, fails, case):
    images(tmp_path / "data/img_align_celeba", 2)
    text = TABLES[case]
    (tmp_path / "data/list_attr_celeba.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, line = fails(stargan.main, ["--data_dir", tmp_path / "data", "--out_dir", tmp_path / "out"])
    assert code == 2
    assert str(tmp_path / "data") in line


def test_tables_with_byte_order_mark_and_crlf_are_read(tmp_path):
    from common.attributes import read_table

    path = tmp_path / "list_attr_celeba.txt"
    path.write_bytes(b"\xef\xbb\xbf2\r\nMale Young\r\n0.png  1 -1\r\n1.png -1  1\r\n")
    assert read_table(path) == (["Male", "Young"], [("0.png", [1.0, 0.0]), ("1.png", [0.0, 1.0])])
