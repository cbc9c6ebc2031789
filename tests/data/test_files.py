"""Files of a data set: what is found below a folder, what is left out, and texts."""

from common import UserError
from common.data import (
    files,
    load_attributes,
    load_digits,
    load_domains,
    load_images,
    load_pairs,
)
from common.data.captions import load_captions, read_texts
from common.data.decode import list_images
from common.data.digits import find_idx, holds_idx
from common.data.label_maps import find_maps

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registry import images


def names(folder):
    return [file.relative_to(folder).as_posix() for file in list_images(folder)]


# ---- links ----


def test_links_to_folders_are_followed(tmp_path, capsys):
    images(tmp_path / "disk/cats", 2)
    images(tmp_path / "data/dogs", 2)
    (tmp_path / "data/cats").symlink_to(tmp_path / "disk/cats")
    assert names(tmp_path / "data") == ["cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png"]
    assert capsys.readouterr().err == ""


def test_pairs_behind_links(tmp_path):
    for side in ("trainA", "trainB"):
        images(tmp_path / "disk" / side, 3)
        (tmp_path / "data" / side).mkdir(parents=True)
        (tmp_path / "data" / side / "x").symlink_to(tmp_path / "disk" / side)
    assert len(load_pairs(tmp_path / "data", 32, 3)) == 3


@pytest.mark.parametrize("target", [".", "a", "..", "/"])
def test_links_in_a_circle(tmp_path, capsys, target):
    """They end, each image is listed once, and the warning names the link."""
    images(tmp_path / "data/a", 2)
    images(tmp_path / "data/b", 1)
    (tmp_path / "data/a/back").symlink_to(os.path.join("..", target) if target != "/" else "/")
    assert names(tmp_path / "data") == ["a/0.png", "a/1.png", "b/0.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {tmp_path}/data: not all of it is read: "
        "a/back/ (a link to a folder that is read already)"
    )


def test_two_links_into_each_other(tmp_path, capsys):
    images(tmp_path / "one", 1)
    images(tmp_path / "two", 1)
    (tmp_path / "one/to").symlink_to(tmp_path / "two")
    (tmp_path / "two/to").symlink_to(tmp_path / "one")
    assert names(tmp_path / "one") == ["0.png", "to/0.png"]
    assert "to/to/ (a link to a folder" in capsys.readouterr().err


def test_a_folder_is_read_under_its_own_name(tmp_path, capsys):
    """A link that is found before it does not take its images."""
    images(tmp_path / "real", 1)
    (tmp_path / "a").symlink_to(tmp_path / "real")
    assert names(tmp_path) == ["real/0.png"]
    assert "a/ (a link to a folder that is read already)" in capsys.readouterr().err


# ---- what cannot be read ----


def refuse(monkeypatch, folder):
    """Makes the system refuse a folder, as one of another user."""
    scandir = os.scandir

    def refusing(path):
        if os.path.realpath(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_folders_that_cannot_be_read_are_named(tmp_path, capsys, monkeypatch):
    for name in "abc":
        images(tmp_path / name, 1)
    (tmp_path / "d.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "e").symlink_to(tmp_path / "unmounted")
    refuse(monkeypatch, tmp_path / "b")
    assert names(tmp_path) == ["a/0.png", "c/0.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "not all of it is read: b/ (Permission denied), d.png (a link that leads nowhere), "
        "e (a link that leads nowhere)"
    )


def test_the_folder_itself_cannot_be_read(tmp_path, monkeypatch):
    images(tmp_path / "data", 1)
    refuse(monkeypatch, tmp_path / "data")
    with pytest.raises(UserError, match="data cannot be read: Permission denied"):
        list_images(tmp_path / "data")


@pytest.mark.parametrize(
    "loader",
    [
        lambda folder: load_images(folder, 8, 1),
        lambda folder: load_digits(folder),
        lambda folder: load_pairs(folder, 8, 3),
        lambda folder: load_domains(folder, None, 8, 3),
        lambda folder: load_attributes(folder, 8, 3),
        lambda folder: load_captions(folder, 8),
    ],
    ids=["images", "digits", "pairs", "domains", "attributes", "captions"],
)
def test_a_data_folder_that_may_not_be_entered(tmp_path, monkeypatch, loader):
    """As root, who may enter every folder, one can only pretend."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    is_file = Path.is_file

    def refusing(path):
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    monkeypatch.setattr(Path, "is_dir", lambda path: refusing(path) or path.exists())
    with pytest.raises(UserError, match=f"{tmp_path} cannot be read: Permission denied"):
        loader(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the name of a folder is empty"),
        ("~nosuchuser/x", "nosuchuser"),
        # Python 3.14 says that no folder has such a name, older ones raise the error.
        ("x" * 300, "cannot be read: File name too long|is not a folder"),
        ("no\0name", "is not a folder"),
    ],
)
def test_names_that_cannot_be_folders(path, message):
    with pytest.raises(UserError, match=message):
        load_images(path, 8, 1)


def test_fifos_are_no_files(tmp_path):
    images(tmp_path / "data", 2)
    for name in ("x.png", "x.npy", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        os.mkfifo(tmp_path / "data" / name)
    assert names(tmp_path / "data") == ["0.png", "1.png"]
    assert not holds_idx(tmp_path / "data")
    assert find_idx(tmp_path / "data", "train", required=False) is None


# ---- what is no data ----

APPLE = b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(96)
LEFTOVERS = ("._0.png", "__MACOSX/x.png", ".ipynb_checkpoints/0-checkpoint.png", ".Trash-0/x.png")
LEFTOVERS = (*LEFTOVERS, "$RECYCLE.BIN/x.png", "@eaDir/0.png/thumb.jpg", "__MACOSX/a/._0.png")


def litter(folder):
    """Leaves in a folder what systems and editors leave."""
    picture = (folder / "0.png").read_bytes()
    for name in LEFTOVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(APPLE if "._" in name else picture)


def test_leftovers_are_no_images(tmp_path, capsys):
    images(tmp_path / ".hidden/data", 2)  # above the data, dots are no reason
    litter(tmp_path / ".hidden/data")
    assert names(tmp_path / ".hidden/data") == ["0.png", "1.png"]
    assert len(load_images(tmp_path / ".hidden/data", 8, 1)) == 2
    assert capsys.readouterr().err == ""


def test_leftovers_are_no_partners(tmp_path):
    for side in ("trainA", "trainB"):
        images(tmp_path / side, 3)
    litter(tmp_path / "trainA")
    assert len(load_pairs(tmp_path, 32, 3)) == 3


def test_leftovers_are_no_maps(tmp_path):
    images(tmp_path / "train/imgs", 2)
    litter(tmp_path / "train/imgs")
    (tmp_path / "train/labels").mkdir()
    for i in range(2):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / f"train/labels/{i}.png")
    litter(tmp_path / "train/labels")
    pairs, _ = find_maps(tmp_path, None, None, "train")
    assert [label_map.name for label_map, _ in pairs] == ["0.png", "1.png"]


def test_leftovers_are_no_domains(tmp_path):
    for name in ("old", "young", "__MACOSX", ".Trash-0", "@eaDir"):
        images(tmp_path / name, 2)
    assert load_attributes(tmp_path, 32, 3).names == ["old", "young"]


def test_leftovers_are_no_digits(tmp_path, idx_folder):
    for file in list(idx_folder.iterdir()):
        (idx_folder / f"._{file.name}").write_bytes(APPLE)
    images_file, labels_file = find_idx(idx_folder, "train")
    assert images_file.name == "train-images-idx3-ubyte.gz"
    assert labels_file.name == "train-labels-idx1-ubyte.gz"
    images(tmp_path / "photos", 2)
    shutil.copy(idx_folder / f"._{images_file.name}", tmp_path / "photos")
    assert not holds_idx(tmp_path / "photos")


def test_pictures_of_other_formats_are_counted(tmp_path, capsys):
    images(tmp_path / "data", 2)
    for name in ("a.gif", "b.HEIC", "c.heic", "notes.txt", "Thumbs.db"):
        (tmp_path / "data" / name).write_bytes(b"x")
    assert names(tmp_path / "data") == ["0.png", "1.png"]
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/data: pictures of other formats are passed over: 1 .gif, 2 .heic\n"
    )


# ---- texts ----


def test_texts_that_are_too_long(tmp_path, monkeypatch):
    (tmp_path / "x.txt").write_text("12345678")
    monkeypatch.setattr(files, "LARGEST_TEXT", 8)
    assert files.read_text(tmp_path / "x.txt") == "12345678"
    monkeypatch.setattr(files, "LARGEST_TEXT", 7)
    for path in (tmp_path / "x.txt", "/dev/zero"):
        with pytest.raises(UserError, match=r"has more than 7 bytes|is no file"):
            files.read_text(path)
        with pytest.raises(UserError, match="has more than 7 bytes"):
            files.read_text(path, may_be_pipe=True)


def test_a_text_from_a_pipe(tmp_path):
    """As of --text_file <(command)."""
    reading, writing = os.pipe()
    os.write(writing, b"a bird\n")
    os.close(writing)
    assert read_texts(f"/dev/fd/{reading}") == ["a bird"]
    os.close(reading)


def test_a_pipe_in_a_data_set(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"x\.csv is no file"):
        files.read_text(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "data", [b"\xff\xfea\0b\0", b"\x89PNG\r\n\x1a\n\0\x81\x02", b"\x81\x8d\xff\xff"]
)
def test_bytes_that_are_no_text(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.csv cannot be read as text: ."):
        files.read_text(tmp_path / "x.csv")
