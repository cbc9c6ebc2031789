"""Checkpoints from strangers: nothing in them runs, nothing hangs, and one line names the file (exit code 2)."""

from common import checkpoint

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from registry import run

import dcgan

MARKER = "hostile_code_ran"


class Bomb:
    """Unpickling it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)


@pytest.fixture(scope="module")
def good(tiny_runs):
    """The bytes of a checkpoint that loads."""
    return (tiny_runs("dcgan").half / "checkpoint_last.npz").read_bytes()


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
    "NaN": lambda x: npy(
        np.where(np.arange(x.size).reshape(x.shape) == 0, np.nan, x).astype(np.float32)
    ),
    "infinity": lambda x: npy(np.full_like(x, np.inf)),
    "a size of terabytes": lambda x: with_header(header((1 << 40,)), b"\0" * 64),
    "a negative size": lambda x: with_header(header((-1, 4)), b"\0" * 64),
    "an overflowing size": lambda x: with_header(header((1 << 62, 1 << 62)), b"\0" * 64),
    "the right header and no data": lambda x: with_header(header(x.shape)),
    "the right header and too much data": lambda x: with_header(
        header(x.shape), x.tobytes() + b"\0" * 999
    ),
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
    code, line = fails(
        dcgan.main, ["--resume", path, "--sample_only", "--out_dir", tmp_path / "out"]
    )
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
    "another generator of the order": meta_with(
        values__batches__start_of_epoch={"bit_generator": "os.system"}
    ),
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
    "no text in it": lambda data: archive_of(
        {k: v for k, v in entries(data).items() if k != "meta.npy"}
    ),
    "the text twice": lambda data: archive_of(
        [*entries(data).items(), ("meta.npy", entries(data)["meta.npy"])]
    ),
    "an array twice": lambda data: archive_of(
        [*entries(data).items(), next(iter(entries(data).items()))]
    ),
    "an array missing": lambda data: archive_of(dict([*entries(data).items()][1:])),
    "a weight too many": lambda data: archive_of(
        {**entries(data), "generator/../../x.npy": npy(np.zeros(1))}
    ),
    "encryption": flagged_as_encrypted,
    "half of it": lambda data: data[: len(data) // 2],
    "its end missing": lambda data: data[:-30],
    "its beginning missing": lambda data: data[100:],
    "a bomb of compressed zeros": lambda data: archive_of(
        {**entries(data), ARRAYS[0] + ".npy": npy(np.zeros((2000, 2000), np.float32))},
        zipfile.ZIP_DEFLATED,
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
