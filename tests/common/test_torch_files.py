"""Weights from files of PyTorch, good, damaged and hostile; their conversion."""

from common import torch_files
from common.checkpoint import read_npz
from common.errors import UserError
from common.torch_files import read_weights

import pickle
import struct
import zipfile

import numpy as np
import pytest

from tools import convert_weights

torch = pytest.importorskip("torch")

both_formats = pytest.mark.parametrize("legacy", [True, False])


def save(weights, path, legacy):
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    return path


def state():
    """{name: tensor} of layers, and of tensors that are views of others."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (1, 2)), torch.nn.BatchNorm2d(3))
    permuted = torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)
    part = torch.arange(24.0).reshape(4, 6)[1:3, 2:4]
    return {**layers.state_dict(), "permuted": permuted, "part": part}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value.numpy()), name


# ---- reading ----


@both_formats
def test_both_formats(tmp_path, legacy):
    expected = state()
    assert_equal(read_weights(save(expected, tmp_path / "w.pth", legacy)), expected)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3,), (2,)),
        (3, (2,), (1,)),
        (0, (10**9,), (0,)),  # one number again and again, in memory that no file has
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage(offset, size, stride):
    storage = torch_files.Storage(np.dtype("<f4"))
    storage.numbers = np.arange(4, dtype=np.float32)
    with pytest.raises(ValueError, match="a tensor"):
        torch_files.Tensor(storage, offset, size, stride).array()


class Harmful:
    """Unpickling it leaves a file behind."""

    def __reduce__(self):
        return eval, ("open('harm', 'w')",)


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """A function that writes a harmful file of some format; nothing of it may run."""
    monkeypatch.chdir(tmp_path)

    def write(kind):
        if kind == "pickle":
            (tmp_path / "w.pth").write_bytes(pickle.dumps(Harmful()))
        else:
            save({"weight": Harmful()}, tmp_path / "w.pth", kind == "legacy")
        return tmp_path / "w.pth"

    yield write
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_no_code_of_a_file_runs(harmful, kind):
    with pytest.raises(UserError, match="eval"):
        read_weights(harmful(kind))


@both_formats
def test_damaged_files_end_in_one_line(tmp_path, legacy):
    path = save({"a": torch.arange(1000.0)}, tmp_path / "w.pth", legacy)
    data = path.read_bytes()
    for end in (0, 10, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match="cannot be read"):
            read_weights(path)


HEAD = pickle.dumps(torch_files.LEGACY_MAGIC, 2)
ASKING = {  # for memory that the file does not have
    "a memo of 2**30 objects": HEAD[:-1] + b"r" + struct.pack("<I", 1 << 30) + b".",
    "bytes beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".",
    "a memo of 2**26 objects": b"\x80\x02K\1r" + struct.pack("<I", 1 << 26) + b".",
}


@pytest.mark.parametrize("case", ASKING)
def test_files_that_ask_for_memory(tmp_path, case):
    (tmp_path / "w.pth").write_bytes(ASKING[case])
    with pytest.raises(UserError, match=r"w\.pth cannot be read as PyTorch's weights: ."):
        read_weights(tmp_path / "w.pth")


def test_a_legacy_storage_that_claims_more_numbers(tmp_path):
    path = save({"a": torch.arange(10.0)}, tmp_path / "w.pth", legacy=True)
    data = path.read_bytes()
    for count in (1 << 31, 1 << 61, -1):
        path.write_bytes(data.replace(struct.pack("<q", 10), struct.pack("<q", count)))
        with pytest.raises(UserError, match="a storage of"):
            read_weights(path)


def rewritten(path, compression, change=None):
    """The archive of some weights, written again."""
    save({"a": torch.zeros(1_000_000)}, path, legacy=False)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        for info in archive.filelist:
            for field, value in (change or {}).items():
                setattr(info, field, value)
    return path


@pytest.mark.parametrize(
    ("compression", "change"),
    [
        (zipfile.ZIP_DEFLATED, None),  # 4 MB in 4 kB
        (zipfile.ZIP_STORED, {"compress_type": 99}),
        (zipfile.ZIP_STORED, {"compress_type": zipfile.ZIP_LZMA}),
        (zipfile.ZIP_STORED, {"compress_type": zipfile.ZIP_DEFLATED}),
        (zipfile.ZIP_STORED, {"flag_bits": 1}),
        (zipfile.ZIP_STORED, {"extract_version": 99}),
        (zipfile.ZIP_STORED, {"file_size": 1 << 40}),
    ],
)
def test_archives_that_pytorch_does_not_write(tmp_path, compression, change):
    path = rewritten(tmp_path / "w.pth", compression, change)
    with pytest.raises(UserError, match=r"w\.pth cannot be read as PyTorch's weights: ."):
        read_weights(path)


def test_many_tensors_of_one_storage(tmp_path):
    numbers = torch.zeros(1000)
    path = save({str(i): numbers for i in range(5)}, tmp_path / "w.pth", legacy=False)
    with pytest.raises(UserError, match="its tensors are larger than the file"):
        read_weights(path)


# ---- conversion ----


@both_formats
def test_conversion(tmp_path, legacy, capsys):
    expected = state()
    source = save(expected, tmp_path / "w.pth", legacy)
    convert_weights.main([str(source), str(tmp_path / "w.npz")])
    assert_equal(read_npz(tmp_path / "w.npz"), expected)
    assert f"Wrote {len(expected)} arrays" in capsys.readouterr().out


def test_nothing_is_written_for_a_harmful_file(harmful, tmp_path, fails):
    code, line = fails(convert_weights.main, [harmful("zip"), tmp_path / "w.npz"])
    assert code == 2
    assert line.startswith("convert_weights.py: error: ") and "eval" in line
    assert not (tmp_path / "w.npz").exists()


def test_bad_calls_end_in_one_line(tmp_path, fails):
    for arguments, message in (
        ([tmp_path / "none.pth", tmp_path / "w.npz"], "none.pth cannot be read"),
        ([tmp_path / "w.pth", tmp_path / "w.pth"], "the target ends in .npz"),
        ([tmp_path / "w.pth"], "TARGET"),
    ):
        code, line = fails(convert_weights.main, arguments)
        assert code == 2
        assert message in line
    path = save(state(), tmp_path / "w.pth", legacy=False)
    code, line = fails(convert_weights.main, [path, tmp_path / "none" / "w.npz"])
    assert code == 2
    assert "cannot write" in line


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_an_npz_that_is_none(tmp_path, content):
    (tmp_path / "w.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.npz cannot be read as an \.npz file"):
        read_npz(tmp_path / "w.npz")


def test_an_npz_of_objects_or_of_one_array(tmp_path):
    np.savez(tmp_path / "objects.npz", weight=np.array([{}]))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("objects.npz", "array.npy"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_npz(tmp_path / name)
