"""Checkpoints: strict, atomic, and deaf to code."""

from common import UserError, checkpoint
from common.errors import NotFinite

import io
import json
import os
import pickle
import zipfile

import jittor as jt
import numpy as np
import pytest
from jittor import nn

META = {"script": "x", "args": {}, "step": 3, "epoch": 1, "losses": {}}


def make_parts(seed=1234567, width=3):
    jt.set_global_seed(seed)
    net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm(width))
    optimizer = nn.Adam(net.parameters(), lr=0.1)
    net.train()
    for _ in range(2):
        optimizer.step((net(jt.ones((5, 4)) * jt.rand(5, 1)) ** 2).sum() + net[0].weight.sum())
    jt.sync_all()
    return {"net": net, "optimizer": optimizer}


def arrays(parts):
    return {f"{n}/{k}": v for n, p in parts.items() for k, v in checkpoint.get_state(p).items()}


def assert_same(left, right):
    left, right = arrays(left), arrays(right)
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), name


@pytest.fixture
def saved(tmp_path):
    parts = make_parts()
    path = tmp_path / checkpoint.FILE_NAME
    checkpoint.save(path, parts, META)
    return path, parts


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, **changes):
    """Replaces entries of the file, or drops those that are None."""
    content = {
        **entries(path),
        **{name.replace("__", "/") + ".npy": data for name, data in changes.items()},
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def test_round_trip(saved):
    path, parts = saved
    other = make_parts(seed=7654321)
    assert not np.array_equal(arrays(parts)["net/0.weight"], arrays(other)["net/0.weight"])
    reader = checkpoint.Reader(path)
    reader.load(other)
    assert_same(parts, other)
    assert {key: reader.meta[key] for key in META} == META
    assert other["optimizer"].n_step == 2


def test_it_is_a_plain_npz(saved):
    with np.load(saved[0], allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert "net/0.weight" in file.files


def test_loaded_weights_are_still_trained(saved):
    path, _ = saved
    parts = make_parts(seed=7654321)
    checkpoint.Reader(path).load(parts)
    before = arrays(parts)["net/0.weight"]
    parts["optimizer"].step(parts["net"][0].weight.sum())
    assert not np.array_equal(before, arrays(parts)["net/0.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net__0.weight": None}, "missing: net/0.weight"),
        ({"net__new": npy(np.zeros(3, np.float32))}, "unexpected: net/new"),
        ({"stranger__new": npy(np.zeros(3, np.float32))}, "unexpected: stranger/new"),
        (
            {"net__0.bias": npy(np.zeros(4, np.float32))},
            r"net/0.bias is float32\[4\], expected float32\[3\]",
        ),
        ({"net__0.bias": npy(np.zeros(3, np.float64))}, "is float64"),
        ({"net__0.bias": npy(np.array([1, 2, 3], object), allow_pickle=True)}, "is object"),
        ({"net__0.bias": npy(np.float32([0, np.nan, 0]))}, "NaN"),
        ({"net__0.bias": npy(np.zeros(3, np.float32))[:-1]}, "damaged"),
        ({"net__0.bias": b"no header"}, "damaged"),
        ({"meta": npy(np.frombuffer(b"{}", np.uint8))}, "not a checkpoint"),
        ({"meta": npy(np.frombuffer(b"[" * 100000, np.uint8))}, "not a checkpoint"),
        ({"meta": None}, "not a checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(saved, changes, message):
    path, _ = saved
    rewrite(path, **changes)
    parts, untouched = make_parts(seed=7654321), make_parts(seed=7654321)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.Reader(path).load(parts)
    assert str(path) in str(error.value)
    assert_same(parts, untouched)


def test_another_width_is_refused(saved):
    with pytest.raises(UserError, match="expected"):
        checkpoint.Reader(saved[0]).load(make_parts(width=2))


def test_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    for i, data in enumerate(
        (pickle.dumps(Evil()), npy(np.array([Evil()], object), allow_pickle=True))
    ):
        path = tmp_path / f"{i}.npz"
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a checkpoint"):
            checkpoint.Reader(path)
    assert not (tmp_path / "was_run").exists()


def test_a_bomb_is_not_unpacked(saved):
    path, _ = saved
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9,)}
    )
    rewrite(path, **{"net__0.bias": header.getvalue()})
    with pytest.raises(UserError, match="expected float32"):
        checkpoint.Reader(path).load(make_parts())


@pytest.mark.parametrize("keep", [0, 1, 100, -100])
def test_truncated_files(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.Reader(path)


def test_flipped_bits_are_noticed(saved):
    path, _ = saved
    data = bytearray(path.read_bytes())
    position = data.find(arrays(make_parts())["net/0.weight"].tobytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        checkpoint.Reader(path).load(make_parts())


def test_a_full_disk_leaves_the_last_good_checkpoint(saved, monkeypatch):
    path, parts = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; the last good one is still"):
        checkpoint.save(path, parts, {**META, "step": 4})
    assert path.read_bytes() == before
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_weights_that_are_not_finite_are_not_saved(saved):
    path, parts = saved
    before = path.read_bytes()
    parts["net"][0].bias.update(jt.array(np.float32([0, np.inf, 0])))
    with pytest.raises(NotFinite, match=r"net/0\.bias"):
        checkpoint.save(path, parts, META)
    assert path.read_bytes() == before


def test_meta_is_text_that_json_reads(saved):
    with np.load(saved[0]) as file:
        meta = json.loads(file["meta"].tobytes())
    assert meta["values"]["optimizer"] == {"n_step": 2}


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_names_both(saved, version):
    path, _ = saved
    text = {**checkpoint.Reader(path).meta, "format": version}
    rewrite(path, meta=npy(np.frombuffer(json.dumps(text).encode(), np.uint8)))
    with pytest.raises(UserError) as error:
        checkpoint.Reader(path)
    assert str(error.value) == f"{path} has format {version}, and this version reads format 2"


def test_numbered_copies(saved):
    """The newest are kept, by the time at which they were made: a run begun anew counts from 0 again."""
    path, parts = saved
    for step in (8, 12, 4):
        checkpoint.save(path, parts, {**META, "step": step})
        checkpoint.keep_numbered(path, step, n=2)
        newest = checkpoint.Reader(path.with_name(f"checkpoint_step_{step:07d}.npz"))
        assert newest.meta["step"] == step
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [path.name, "checkpoint_step_0000004.npz", "checkpoint_step_0000012.npz"]


@pytest.mark.parametrize("where", ["", checkpoint.FILE_NAME])
def test_a_checkpoint_is_found_by_its_folder_too(saved, where):
    path, _ = saved
    assert checkpoint.find(path.parent / where) == path
    path.unlink()
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.find(path.parent / where)
