"""Checkpoints from strangers: nothing in them runs, and one line names the file."""

from common import UserError, checkpoint

import gc
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from registry import EVERY_SCRIPT, ROWS, load, run

import dcgan

MARKER = "hostile_code_ran"


class Bomb:
    """Unpickling it leaves a folder behind."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)


@pytest.fixture(scope="module")
def good(tiny_runs):
    """The bytes of a checkpoint that loads."""
    return (tiny_runs("dcgan").half / checkpoint.FILE_NAME).read_bytes()


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
    """A zip file of {name: bytes}, or of pairs, in which a name may occur twice."""
    if isinstance(contents, dict):
        contents = list(contents.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
    return buffer.getvalue()


def array_of(entry):
    return np.load(io.BytesIO(entry))


def with_header(text, data=b"", version=(1, 0)):
    """A .npy file with any text as its header."""
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header + data


def header(shape, descr="<f4", fortran=False):
    return str({"descr": descr, "fortran_order": fortran, "shape": shape})


def refused(fails, tmp_path, data):
    """Drawing samples from the file ends in a line that names it."""
    path = tmp_path / "stranger.npz"
    path.write_bytes(data)
    flags = ["--resume", path, "--sample_only", "--out_dir", tmp_path / "out"]
    code, line = fails(dcgan.main, flags)
    assert code == 2
    assert str(path) in line
    assert len(line) < 4200
    return line


def refused_in_training(fails, tmp_path, data, idx_folder):
    """So does training on, which reads more of it."""
    path = tmp_path / "stranger.npz"
    path.write_bytes(data)
    flags = ["--data_dir", idx_folder, "--out_dir", tmp_path / "out", "--n_epochs", 2]
    code, line = fails(dcgan.main, ["--resume", path, *flags])
    assert code == 2
    assert str(path) in line
    assert len(line) < 1000
    return line


# ---- one array of a checkpoint ----

ARRAYS = ["generator/layers.0.weight", "averaged/layers.1.running_var", "optimizer_G/m/0.0"]


def with_nan(x):
    x = x.copy()
    x.flat[0] = np.nan
    return x


CHANGES = {
    "an object array with code": lambda x: npy(np.array([Bomb()], object)),
    "a pickle instead of an array": lambda x: pickle.dumps(Bomb()),
    "float64": lambda x: npy(x.astype(np.float64)),
    "float16": lambda x: npy(x.astype(np.float16)),
    "int32": lambda x: npy(x.astype(np.int32)),
    "another byte order": lambda x: npy(x.astype(">f4")),
    "complex": lambda x: npy(x.astype(np.complex64)),
    "text": lambda x: npy(np.full(x.shape, "x")),
    "a structure": lambda x: npy(np.zeros(x.shape, [("a", "<f4")])),
    "another shape": lambda x: npy(x.ravel()[:-1]),
    "one dimension more": lambda x: npy(x[None]),
    "a scalar": lambda x: npy(x.ravel()[0]),
    "no values": lambda x: npy(x[:0]),
    "NaN": lambda x: npy(with_nan(x)),
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


def with_array(good, name, change):
    contents = entries(good)
    contents[f"{name}.npy"] = CHANGES[change](array_of(contents[f"{name}.npy"]))
    return archive_of(contents)


@pytest.mark.parametrize("name", ARRAYS[:2])
@pytest.mark.parametrize("change", CHANGES)
def test_an_array_of_a_checkpoint(good, tmp_path, fails, name, change):
    line = refused(fails, tmp_path, with_array(good, name, change))
    assert name in line


@pytest.mark.parametrize("change", list(CHANGES)[:6])
def test_an_array_that_only_training_reads(good, tmp_path, fails, idx_folder, change):
    data = with_array(good, ARRAYS[2], change)
    line = refused_in_training(fails, tmp_path, data, idx_folder)
    assert ARRAYS[2] in line


# ---- the text of a checkpoint ----


def meta_with(**changes):
    """A function that changes entries of the text; `a__b` is the entry b within a."""

    def change(meta):
        for key, value in changes.items():
            *path, last = key.split("__")
            target = meta
            for name in path:
                target = target[name]
            target[last] = value
        return json.dumps(meta)

    return change


def with_text(good, change):
    contents = entries(good)
    text = change(json.loads(array_of(contents["meta.npy"]).tobytes()))
    if isinstance(text, str):
        text = text.encode()
    contents["meta.npy"] = npy(np.frombuffer(text, np.uint8))
    return archive_of(contents)


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
    "no learning rate": meta_with(args__lr=None),
    "a negative size": meta_with(args__img_size=-16),
    "a size beyond the memory": meta_with(args__img_size=1 << 40),
    "a width that the weights do not have": meta_with(args__width=5),
    "a size of a megabyte of digits": meta_with(args__img_size="9" * 900_000),
    "a flag that is called for a megabyte": meta_with(args={"x" * 900_000: 1}),
    "an unknown choice": meta_with(args__noise="pink"),
    "an infinite rate": meta_with(args__lr=float("inf")),
    "a step that is no number": meta_with(step="9"),
    "a negative step": meta_with(step=-9),
    "an epoch that is no number": meta_with(epoch=1.5),
    "a negative epoch": meta_with(epoch=-1),
    "images that are no number": meta_with(n_images=None),
    "a negative number of images": meta_with(n_images=-40),
    "a number of more digits than are read": lambda meta: json.dumps(meta).replace(
        '"step": ', '"step": ' + "9" * 5000
    ),
    "values that are no dict": meta_with(values=3),
    "values of a part that are no dict": meta_with(values__averaged=3),
    "a count of an average that is text": meta_with(values__averaged__n_updates="x"),
    "a negative count of an average": meta_with(values__averaged__n_updates=-10),
    "losses that are no numbers": meta_with(losses__loss_D="low"),
    "a loss that is not finite": meta_with(losses__loss_D=float("nan")),
    "a loss whose name is a formula": meta_with(losses={"$\\frac{$": 1.0}),
    "ten thousand losses": meta_with(losses={f"loss_{i}": 1.0 for i in range(10000)}),
    "a step beyond all bounds": meta_with(step=2**63),
    "a count of an average beyond all bounds": meta_with(values__averaged__n_updates=10**18),
    "a rate of 400 digits": meta_with(args__lr=10**400),
    "a script that clears the terminal": meta_with(script="\x1b[2J"),
    "an argument that clears the terminal": meta_with(args={"\x1b[2J\n": 1}),
}


@pytest.mark.parametrize("change", TEXTS)
def test_the_text_of_a_checkpoint(good, tmp_path, fails, change):
    refused(fails, tmp_path, with_text(good, TEXTS[change]))


STATES = {
    "a count of updates that is text": meta_with(values__optimizer_G__n_step="x"),
    "a negative count of updates": meta_with(values__optimizer_G__n_step=-1),
    "a count of updates beyond all bounds": meta_with(values__optimizer_G__n_step=10**18),
    "a position outside the data": meta_with(order__position=10**9),
    "a negative position": meta_with(order__position=-1),
    "a position that is text": meta_with(order__position="1"),
    "a position between two images": meta_with(order__position=2.5),
    "a batch size that is text": meta_with(order__batch_size="x"),
    "an order of nothing": meta_with(order={}),
    "a state of the order that is text": meta_with(order__start_of_epoch="x"),
    "another generator of the order": meta_with(
        order__start_of_epoch={"bit_generator": "os.system"}
    ),
    "a next state of the order that is text": meta_with(order__rng="x"),
    "a first epoch that is text": meta_with(first_epoch="x"),
    "a state of the noise that is text": meta_with(rng="x"),
    "another generator of the noise": meta_with(rng={"bit_generator": "MT19937", "state": {}}),
    "a state that is too large": meta_with(rng__state__state=1 << 200),
    "a remainder that is too large": meta_with(rng__uinteger=1 << 200),
    "a state of the order that is too large": meta_with(
        order__start_of_epoch__state__state=1 << 200
    ),
}


@pytest.mark.parametrize("change", STATES)
def test_states_that_only_training_reads(good, tmp_path, fails, idx_folder, change):
    data = with_text(good, STATES[change])
    refused_in_training(fails, tmp_path, data, idx_folder)


# ---- arguments that ask for more memory than there is ----

# What a stranger's checkpoint may ask for, within the limits of the flags.
HUGE = {
    "began": {"width": 1024, "img_size": 128},
    "biggan": {"width": 1024, "img_size": 256, "latent_dim": 140},
    "bigan": {"width": 8192, "img_size": 256, "latent_dim": 4096},
    "cgan_mnist": {"arch": "mlp", "img_size": 256, "latent_dim": 4096},
    "context_encoder": {"width": 256, "bottleneck": 4096, "img_size": 256},
    "cyclegan": {"width": 256, "n_blocks": 100},
    "dcgan": {"width": 1024, "img_size": 128},
    "gan": {"width": 8192, "maxout_units": 4096, "img_size": 256},
    "gman": {"width_G": 2048, "width_D": 512, "n_discriminators": 10},
    "improved_gan": {"arch": "conv", "width": 1024, "img_size": 128},
    "infogan": {"width": 1024, "img_size": 512},
    "pggan": {"width": 1024, "max_width": 1024, "img_size": 1024},
    "pix2pix": {"width": 256, "img_size": 512},
    "pix2pixhd": {"width": 256, "n_blocks": 50},
    "r3gan": {"width": 4096, "n_blocks": 20, "img_size": 256},
    "sgan": {"width": 256, "img_size": 128},
    "spade": {"width": 256, "style_dim": 4096},
    "srgan": {"width": 256, "n_blocks": 100},
    "stackgan": {"width_G": 4096, "width_D": 4096, "n_blocks": 100},
    "stargan": {"width": 256, "n_blocks": 100},
    "stylegan2": {"width": 1024, "max_width": 1024, "img_size": 1024},
    "text2img": {"width_G": 4096, "width_D": 4096},
    "unit": {"width": 256, "n_blocks": 50},
    "vae": {"hidden": 4096, "img_size": 1024},
    "vaegan": {"width": 512, "img_size": 128},
    "wgan": {"width": 1024, "img_size": 128},
    "wgan_gp": {"width": 1024, "img_size": 128},
}
MEMORY = 200 << 20  # bytes that a refusal may take; the networks would take gigabytes


class Peak:
    """How much a process's memory grows at most within a `with` block."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        self.start = self.read("VmRSS")
        return self

    def __exit__(self, *error):
        self.growth = self.read("VmHWM") - self.start

    def read(self, name):
        """A line of /proc/self/status such as `VmHWM:  12345 kB`, in bytes."""
        text = Path("/proc/self/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) << 10


def test_every_script_has_huge_networks():
    assert HUGE.keys() == ROWS.keys()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("flags", [["--sample_only"], []], ids=["samples", "training"])
@pytest.mark.parametrize("name", EVERY_SCRIPT)
def test_huge_networks_are_refused_before_they_take_memory(tiny_runs, tmp_path, fails, name, flags):
    """The names and shapes of the file are compared before anything is computed."""
    tiny = tiny_runs(name)
    good = (tiny.half / checkpoint.FILE_NAME).read_bytes()
    path = tmp_path / "stranger.npz"
    path.write_bytes(with_text(good, meta_with(**{f"args__{k}": v for k, v in HUGE[name].items()})))
    if not flags:
        flags = ["--data_dir", tiny.data, "--n_epochs", 9]
    with Peak() as peak:
        code, line = fails(load(name).main, ["--resume", path, *flags, "--out_dir", tmp_path / "o"])
    gc.collect()  # what still waits to be computed would be, by the next test
    assert code == 2
    assert str(path) in line
    assert peak.growth < MEMORY


# ---- the archive itself ----


def flagged_as_encrypted(data):
    """Bit 0 of the flags, in the local and in the central header of the first entry."""
    data = bytearray(data)
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def without(data, name):
    contents = entries(data)
    del contents[name]
    return archive_of(contents)


def twice(data, name):
    contents = entries(data)
    return archive_of([*contents.items(), (name, contents[name])])


def with_entry(data, name, array, method=zipfile.ZIP_STORED):
    return archive_of({**entries(data), name: npy(array)}, method)


FIRST = ARRAYS[0] + ".npy"


def without_suffix(data, name):
    contents = entries(data)
    contents[name.removesuffix(".npy")] = contents.pop(name)
    return archive_of(contents)


def with_method(data, method):
    """Another compression in the local and in the central header of the first entry."""
    data = bytearray(data)
    struct.pack_into("<H", data, 8, method)
    struct.pack_into("<H", data, data.find(b"PK\x01\x02") + 10, method)
    return bytes(data)


def with_name_that_is_no_text(data):
    """Flagged as UTF-8, which it is not."""
    data = bytearray(data)
    central = data.find(b"PK\x01\x02")
    data[central + 9] |= 8
    data[central + 46] = 255
    return bytes(data)


def with_long_header(data):
    """A header of 64 MB, deflated to little."""
    text = header((4,)).encode().ljust(64 << 20)
    entry = b"\x93NUMPY" + bytes((2, 0)) + struct.pack("<I", len(text)) + text
    return archive_of({**entries(data), FIRST: entry}, zipfile.ZIP_DEFLATED)


def with_gigabytes(data):
    """One more entry, which nobody reads, and of which the directory says 4 GB."""
    data = bytearray(archive_of({**entries(data), "other/x.npy": b""}))
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 0xFFFF0000)
    return bytes(data)


ARCHIVES = {
    "nothing": lambda data: b"",
    "text": lambda data: b"not an archive",
    "a pickle": lambda data: pickle.dumps(Bomb()),
    "a pickle in an archive": lambda data: archive_of({"data.pkl": pickle.dumps(Bomb())}),
    "an archive of nothing": lambda data: archive_of({}),
    "no text in it": lambda data: without(data, "meta.npy"),
    "the text twice": lambda data: twice(data, "meta.npy"),
    "an array twice": lambda data: twice(data, FIRST),
    "an array missing": lambda data: without(data, FIRST),
    "a weight too many": lambda data: with_entry(data, "generator/../../x.npy", np.zeros(1)),
    "encryption": flagged_as_encrypted,
    "half of it": lambda data: data[: len(data) // 2],
    "its end missing": lambda data: data[:-30],
    "its beginning missing": lambda data: data[100:],
    "a text without its suffix": lambda data: without_suffix(data, "meta.npy"),
    "an array without its suffix": lambda data: without_suffix(data, FIRST),
    "a name that is no text": with_name_that_is_no_text,
    "LZMA": lambda data: archive_of(entries(data), zipfile.ZIP_LZMA),
    "bytes that are no LZMA": lambda data: with_method(data, zipfile.ZIP_LZMA),
    "bytes that are no deflated ones": lambda data: with_method(data, zipfile.ZIP_DEFLATED),
    "an unknown compression": lambda data: with_method(data, 99),
    "a header of 64 MB": with_long_header,
    "gigabytes in an entry that is not read": with_gigabytes,
    "a bomb of compressed zeros": lambda data: with_entry(
        data, FIRST, np.zeros((2000, 2000), np.float32), zipfile.ZIP_DEFLATED
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")  # made on purpose
@pytest.mark.parametrize("change", ARCHIVES)
def test_the_archive_of_a_checkpoint(good, tmp_path, fails, change):
    refused(fails, tmp_path, ARCHIVES[change](good))


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_are_one_line_or_nothing(good, tmp_path, seed):
    """Reading all of it either works, or raises a UserError, whatever the damage."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "x.npz"
    ends = {"read": 0, "refused": 0}
    for _ in range(150):
        data = bytearray(good)
        first = rng.choice([0, len(good) - 3000])  # the first entry, or the directory
        for place in first + rng.integers(min(3000, len(good)), size=rng.integers(1, 5)):
            data[min(place, len(good) - 1)] = rng.integers(256)
        path.write_bytes(data)
        try:
            reader = checkpoint.Reader(path)
            expected = {n: np.zeros(1, np.float32) for n in reader.names if n != "meta"}
            reader.read_arrays(expected)
            ends["read"] += 1
        except UserError as error:
            assert str(path) in str(error)
            ends["refused"] += 1
    assert ends["refused"] > 100


def test_names_that_leave_the_folder_write_nothing(good, tmp_path):
    """An entry of an unknown part stays unread."""
    (tmp_path / "x.npz").write_bytes(with_entry(good, "../../escaped.npy", np.zeros(3)))
    run("dcgan", "--resume", tmp_path / "x.npz", "--sample_only", "--out_dir", tmp_path / "out")
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_no_text_of_a_checkpoint_reaches_the_terminal_as_it_is(good, tmp_path, fails):
    line = refused(fails, tmp_path, with_text(good, TEXTS["an argument that clears the terminal"]))
    assert line.isprintable()
    change = meta_with(args__data_dir="\x1b[2J\nnowhere")
    (tmp_path / "x.npz").write_bytes(with_text(good, change))
    flags = ["--resume", tmp_path / "x.npz", "--out_dir", tmp_path / "out", "--n_epochs", 9]
    code, line = fails(dcgan.main, flags)
    assert code == 2
    assert line.isprintable()


def test_the_temporary_file_is_renamed(good, tmp_path):
    checkpoint.write_atomically(tmp_path / "target", lambda file: file.write(good))
    assert (tmp_path / "target").read_bytes() == good
    assert [file.name for file in tmp_path.iterdir()] == ["target"]
