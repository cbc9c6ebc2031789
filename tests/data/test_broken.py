"""Files that break or vanish in the middle of a run: one policy, whatever the kind of data."""

from common import UserError
from common.data import load_attributes, load_domains, load_images, load_pairs
from common.data.augment import NONE, Augment

import numpy as np
import pytest
from PIL import Image
from registry import images


def greys(folder, values, width=8):
    """Images 0.png, 1.png, ... of one grey each."""
    folder.mkdir(parents=True)
    for i, value in enumerate(values):
        Image.new("L", (width, 8), value).save(folder / f"{i}.png")


def pairs_in_two_folders(root):
    greys(root / "trainA", [0, 51, 102, 153])
    greys(root / "trainB", [255, 204, 153, 102])
    return load_pairs(root, 8, 1)


def pairs_side_by_side(root):
    (root / "train").mkdir(parents=True)
    for i, (a, b) in enumerate(zip([0, 51, 102, 153], [255, 204, 153, 102])):
        Image.fromarray(np.repeat([[a] * 8 + [b] * 8], 8, axis=0).astype(np.uint8)).save(
            root / f"train/{i}.png"
        )
    return load_pairs(root, 8, 1)


def folder_of_images(root, augment=NONE):
    greys(root / "trainA", [0, 51, 102, 153])
    return load_images(root / "trainA", 8, 1, augment=augment)


def domains(root, augment=NONE):
    greys(root / "trainA", [0, 51, 102, 153])
    greys(root / "trainB", [204])
    return load_domains(root, None, 8, 1, augment=augment)


def attributes(root):
    greys(root / "old", [0, 51, 102])
    greys(root / "young", [153])
    return load_attributes(root, 8, 1)


TRAIN_A, TRAIN = ([f"{folder}/{i}.png" for i in range(4)] for folder in ("trainA", "train"))
PAIRS = [[0, 255], [51, 204], [102, 153], [153, 102]]
DOMAINS = [[0, 204], [51, 204], [102, 204], [153, 204]]
LABELLED = [[0, 1, 0], [51, 1, 0], [102, 1, 0], [153, 0, 1]]
KINDS = {  # what makes the data; its items' files; each one's grey, and that of its partner or its attributes
    "images": (folder_of_images, TRAIN_A, [[0], [51], [102], [153]]),
    "images, augmented": (
        lambda root: folder_of_images(root, Augment()),
        TRAIN_A,
        [[0], [51], [102], [153]],
    ),
    "pairs in two folders": (pairs_in_two_folders, TRAIN_A, PAIRS),
    "pairs side by side": (pairs_side_by_side, TRAIN, PAIRS),
    "domains": (domains, TRAIN_A, DOMAINS),
    "domains, augmented": (lambda root: domains(root, Augment()), TRAIN_A, DOMAINS),
    "attributes": (attributes, ["old/0.png", "old/1.png", "old/2.png", "young/0.png"], LABELLED),
}


def values(columns):
    """For each item the grey of its images and its attributes."""
    columns = [
        (column[:, :, 0, 0] + 1) * 127.5 if column.ndim == 4 else column for column in columns
    ]
    return np.hstack(columns).round().astype(int).tolist()


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """The data, its items' values, its items' files."""
    make, files, expected = KINDS[request.param]
    return make(tmp_path / "data"), expected, [tmp_path / "data" / file for file in files]


def test_items_of_files_that_are_whole(kind, capsys):
    data, expected, _ = kind
    assert values(data.batch(range(4), range(4))) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["vanishes", "breaks"])
@pytest.mark.parametrize(("item", "next_item"), [(2, 3), (3, 0)])
def test_the_next_item_takes_its_place(kind, capsys, how, item, next_item):
    """With its own label or partner, and one warning however often the file is met; the first follows the last."""
    data, expected, files = kind
    if how == "vanishes":
        files[item].unlink()
    else:
        files[item].write_bytes(b"no image")
    for _ in range(2):
        assert values(data.batch([1, item, item], [0, 0, 0])) == [
            expected[i] for i in (1, next_item, next_item)
        ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {files[item]} cannot be read (")
    assert line.endswith("; the next item takes its place")


def test_threads_that_meet_the_same_file_warn_once(kind, capsys):
    data, expected, files = kind
    files[0].unlink()
    for batch in data.stream([[0, 0, 0, 0]] * 8, [0] * 4):
        assert values(batch) == [expected[1]] * 4
    assert capsys.readouterr().err.count("warning:") == 1


def test_nothing_can_be_read_any_more(kind, capsys):
    data, _, files = kind
    for file in files:
        file.unlink()
    for read in (lambda: data.batch([1], [0]), lambda: next(data.stream([[1]], [0] * 4))):
        with pytest.raises(
            UserError, match=r"none of the \d items can be read any more.*\.png cannot be read"
        ):
            read()
    assert capsys.readouterr().err == ""  # one error instead of a warning for each file


def test_each_file_has_a_warning_of_its_own(tmp_path, capsys):
    images(tmp_path / "data", 4)
    data = load_images(tmp_path / "data", 8, 1)
    for i in (1, 2):
        (tmp_path / f"data/{i}.png").unlink()
    data.batch([1, 2])
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        f"{tmp_path}/data/1.png",
        f"{tmp_path}/data/2.png",
    ]


def test_the_other_domain_keeps_its_image(tmp_path):
    """Only A's file is broken, so B's image is the one that the seed had chosen."""
    images(tmp_path / "trainA", 3, seed=0)
    images(tmp_path / "trainB", 3, seed=1)
    data = load_domains(tmp_path, None, 32, 3)
    before = data.batch([0], [2 << 8])
    (tmp_path / "trainA/0.png").unlink()
    after = data.batch([0], [2 << 8])
    assert not np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


def test_a_pair_in_memory_needs_its_file_no_more(tmp_path, capsys):
    data = pairs_in_two_folders(tmp_path)
    before = values(data.batch([0]))
    (tmp_path / "trainA/0.png").unlink()
    assert values(data.batch([0])) == before
    assert capsys.readouterr().err == ""
