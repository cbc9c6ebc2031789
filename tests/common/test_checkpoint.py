"""Checkpoints: read strictly, written atomically, and without running code."""

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

from jittor_fast import nn

META = {
    "script": "x",
    "args": {},
    "step": 3,
    "epoch": 1,
    "n_images": 30,
    "phase": "",
    "losses": {"loss": 0.5},
    "rng": {},
    "order": {},
}


def make_parts(seed=1234567, width=3):
    jt.set_global_seed(seed)
    network = nn.Sequential(nn.Linear(4, width), nn.BatchNorm(width))
    optimizer = nn.Adam(network.parameters(), lr=0.1)
    network.train()
    for _ in range(2):
        output = network(jt.ones((5, 4)) * jt.rand(5, 1))
        optimizer.step((output**2).sum() + network[0].weight.sum())
    jt.sync_all()
    return {"net": network, "optimizer": optimizer}


def arrays_of(parts):
    """{part/name: array or value} of all parts."""
    arrays = {}
    for part_name, part in parts.items():
        for name, value in checkpoint.get_state(part).items():
            arrays[f"{part_name}/{name}"] = value
    return arrays


def assert_same(one, other):
    one = arrays_of(one)
    other = arrays_of(other)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


@pytest.fixture
def saved(tmp_path):
    """(path, parts) of a checkpoint."""
    parts = make_parts()
    path = tmp_path / checkpoint.FILE_NAME
    checkpoint.save(path, parts, META)
    return path, parts


def rewrite(path, changes):
    """Replaces entries of the file, {name: bytes}, or drops those that are None."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for name, data in changes.items():
        content[f"{name}.npy"] = data
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def text(meta):
    return npy(np.frombuffer(json.dumps(meta).encode(), np.uint8))


# ---- what comes back ----


def test_a_round_trip(saved):
    path, parts = saved
    other = make_parts(seed=7654321)
    assert not np.array_equal(arrays_of(parts)["net/0.weight"], arrays_of(other)["net/0.weight"])
    reader = checkpoint.Reader(path)
    reader.load(other)
    assert_same(parts, other)
    assert {key: reader.meta[key] for key in META} == META
    assert other["optimizer"].n_step == 2


def test_it_is_a_plain_npz(saved):
    path, _ = saved
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert all(array.dtype != object for array in arrays.values())
    assert "net/0.weight" in arrays
    meta = json.loads(arrays["meta"].tobytes())
    assert meta["values"]["optimizer"] == {"n_step": 2}
    assert meta["format"] == checkpoint.FORMAT == 3


def test_loaded_weights_are_still_trained(saved):
    path, _ = saved
    parts = make_parts(seed=7654321)
    checkpoint.Reader(path).load(parts)
    before = arrays_of(parts)["net/0.weight"]
    parts["optimizer"].step(parts["net"][0].weight.sum())
    assert not np.array_equal(before, arrays_of(parts)["net/0.weight"])


def test_parts_that_are_not_wanted_stay_unread(saved):
    """Only samples are drawn then, and their discriminator may be damaged."""
    path, parts = saved
    rewrite(path, {"stranger/x": b"no array"})
    network = {"net": make_parts(seed=7654321)["net"]}
    checkpoint.Reader(path).load(network, exact=False)
    assert_same(network, {"net": parts["net"]})


@pytest.mark.parametrize("name", ["", checkpoint.FILE_NAME])
def test_a_checkpoint_is_found_by_its_folder_too(saved, name):
    path, _ = saved
    assert checkpoint.find(path.parent / name) == path
    path.unlink()
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.find(path.parent / name)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net/0.weight": None}, "missing: net/0.weight"),
        ({"net/new": npy(np.zeros(3, np.float32))}, "unexpected: net/new"),
        ({"stranger/new": npy(np.zeros(3, np.float32))}, "unexpected: stranger/new"),
        (
            {"net/0.bias": npy(np.zeros(4, np.float32))},
            r"net/0.bias is float32\[4\], expected float32\[3\]",
        ),
        ({"net/0.bias": npy(np.zeros(3, np.float64))}, "is float64"),
        ({"net/0.bias": npy(np.array([1, 2, 3], object), allow_pickle=True)}, "is object"),
        ({"net/0.bias": npy(np.float32([0, np.nan, 0]))}, "NaN"),
        ({"net/0.bias": npy(np.zeros(3, np.float32))[:-1]}, "damaged"),
        ({"net/0.bias": b"no header"}, "damaged"),
        ({"meta": text({})}, "not a checkpoint"),
        ({"meta": npy(np.frombuffer(b"[" * 100000, np.uint8))}, "not a checkpoint"),
        ({"meta": None}, "not a checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(saved, changes, message):
    path, _ = saved
    rewrite(path, changes)
    parts = make_parts(seed=7654321)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.Reader(path).load(parts)
    assert str(path) in str(error.value)
    assert_same(parts, make_parts(seed=7654321))


@pytest.mark.parametrize("key", checkpoint.META_TYPES)
@pytest.mark.parametrize("change", ["missing", "another type"])
def test_each_entry_of_the_text_is_checked(saved, key, change):
    path, _ = saved
    meta = dict(checkpoint.Reader(path).meta)
    if change == "missing":
        del meta[key]
    else:
        meta[key] = None
    rewrite(path, {"meta": text(meta)})
    with pytest.raises(UserError, match="not a checkpoint of these scripts"):
        checkpoint.Reader(path)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_another_format_names_both(saved, version):
    path, _ = saved
    meta = {**checkpoint.Reader(path).meta, "format": version}
    rewrite(path, {"meta": text(meta)})
    with pytest.raises(UserError) as error:
        checkpoint.Reader(path)
    assert str(error.value) == f"{path} has format {version}, and this version reads format 3"


def test_another_width_is_refused(saved):
    path, _ = saved
    with pytest.raises(UserError, match="expected"):
        checkpoint.Reader(path).load(make_parts(width=2))


def test_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    files = (pickle.dumps(Evil()), npy(np.array([Evil()], object), allow_pickle=True))
    for i, data in enumerate(files):
        path = tmp_path / f"{i}.npz"
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a checkpoint"):
            checkpoint.Reader(path)
    assert not (tmp_path / "was_run").exists()


def test_a_bomb_is_not_unpacked(saved):
    """A header of four gigabytes."""
    path, _ = saved
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (10**9,)}
    np.lib.format.write_array_header_1_0(header, fields)
    rewrite(path, {"net/0.bias": header.getvalue()})
    with pytest.raises(UserError, match="expected float32"):
        checkpoint.Reader(path).load(make_parts())


@pytest.mark.parametrize("keep", [0, 1, 100, -100])
def test_truncated_files(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.Reader(path)


def test_flipped_bits_are_noticed(saved):
    path, parts = saved
    data = bytearray(path.read_bytes())
    position = data.find(arrays_of(parts)["net/0.weight"].tobytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        checkpoint.Reader(path).load(make_parts())


# ---- writing ----


def test_a_full_disk_leaves_the_last_good_checkpoint(saved, monkeypatch):
    path, parts = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; the last good one is still"):
        checkpoint.save(path, parts, {**META, "step": 4})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_weights_that_are_not_finite_are_not_saved(saved):
    path, parts = saved
    before = path.read_bytes()
    parts["net"][0].bias.update(jt.array(np.float32([0, np.inf, 0])))
    with pytest.raises(NotFinite, match=r"net/0\.bias"):
        checkpoint.save(path, parts, META)
    assert path.read_bytes() == before


def test_the_newest_numbered_copies_are_kept(saved):
    """By the time at which they were made: a new run counts from 0 again."""
    path, parts = saved
    for step in (8, 12, 4):
        checkpoint.save(path, parts, {**META, "step": step})
        checkpoint.keep_numbered(path, step, n=2)
        newest = checkpoint.Reader(path.with_name(f"checkpoint_step_{step:07d}.npz"))
        assert newest.meta["step"] == step
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [path.name, "checkpoint_step_0000004.npz", "checkpoint_step_0000012.npz"]


def test_exported_weights_are_jittors_own_format(tmp_path):
    network = make_parts()["net"]
    checkpoint.export_pickle(tmp_path / "net_last.pkl", network)
    assert [file.name for file in tmp_path.iterdir()] == ["net_last.pkl"]
    stored = jt.load(str(tmp_path / "net_last.pkl"))
    expected = checkpoint.module_state(network)
    assert stored.keys() == expected.keys()
    for name, value in stored.items():
        assert np.array_equal(np.asarray(value), expected[name]), name


# ---- read_npz ----


def test_arrays_from_a_strangers_npz(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    assert checkpoint.read_npz(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_an_npz_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as an"):
        checkpoint.read_npz(path)


def test_an_npz_with_a_pickle(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], object))
    with pytest.raises(UserError, match="cannot be read as an"):
        checkpoint.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [
        ("loss_D", True),
        ("loss/adversarial (mean)", True),
        ("my-gan", True),
        ("损失", True),
        ("", False),
        ("a\x1b[31m", False),
        ("$x$", False),
        ("a" * 201, False),
    ],
)
def test_names_that_a_copy_may_use(name, is_plain):
    assert checkpoint.is_plain_name(name) == is_plain
