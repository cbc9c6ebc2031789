"""Files that break or vanish during a run: one policy for all kinds of data."""

from common import UserError
from common.data import load_attributes, load_domains, load_images, load_pairs
from common.data.augment import NONE, Augment

import numpy as np
import pytest
from PIL import Image
from registry import images


def greys(folder, values):
    """Images 0.png, 1.png, ... of 8 x 8 pixels, each of one grey."""
    folder.mkdir(parents=True)
    for i, value in enumerate(values):
        Image.new("L", (8, 8), value).save(folder / f"{i}.png")


def images_of(root):
    return augmented_images(root, NONE)


def augmented_images(root, augment=None):
    greys(root / "trainA", [0, 51, 102, 153])
    return load_images(root / "trainA", 8, 1, augment=augment or Augment())


def pairs_in_two_folders(root):
    greys(root / "trainA", [0, 51, 102, 153])
    greys(root / "trainB", [255, 204, 153, 102])
    return load_pairs(root, 8, 1)


def pairs_side_by_side(root):
    (root / "train").mkdir(parents=True)
    for i, (a, b) in enumerate([(0, 255), (51, 204), (102, 153), (153, 102)]):
        pixels = np.full((8, 16), a, np.uint8)
        pixels[:, 8:] = b
        Image.fromarray(pixels).save(root / f"train/{i}.png")
    return load_pairs(root, 8, 1)


def domains(root):
    return augmented_domains(root, NONE)


def augmented_domains(root, augment=None):
    greys(root / "trainA", [0, 51, 102, 153])
    greys(root / "trainB", [204])
    return load_domains(root, None, 8, 1, augment=augment or Augment())


def attributes(root):
    greys(root / "old", [0, 51, 102])
    greys(root / "young", [153])
    return load_attributes(root, 8, 1)


TRAIN_A = [f"trainA/{i}.png" for i in range(4)]
TRAIN = [f"train/{i}.png" for i in range(4)]
OLD_AND_YOUNG = ["old/0.png", "old/1.png", "old/2.png", "young/0.png"]

# The grey of each item, and that of its partner or its attributes.
IMAGES = [[0], [51], [102], [153]]
PAIRS = [[0, 255], [51, 204], [102, 153], [153, 102]]
DOMAINS = [[0, 204], [51, 204], [102, 204], [153, 204]]
LABELLED = [[0, 1, 0], [51, 1, 0], [102, 1, 0], [153, 0, 1]]

KINDS = {  # name: (a function that makes the data, the items' files, the items' values)
    "images": (images_of, TRAIN_A, IMAGES),
    "images, augmented": (augmented_images, TRAIN_A, IMAGES),
    "pairs in two folders": (pairs_in_two_folders, TRAIN_A, PAIRS),
    "pairs side by side": (pairs_side_by_side, TRAIN, PAIRS),
    "domains": (domains, TRAIN_A, DOMAINS),
    "domains, augmented": (augmented_domains, TRAIN_A, DOMAINS),
    "attributes": (attributes, OLD_AND_YOUNG, LABELLED),
}


def values(columns):
    """For each item of a batch the grey of its images, and its attributes."""
    found = []
    for column in columns:
        if column.ndim == 4:
            column = (column[:, :, 0, 0] + 1) * 127.5
        found.append(column)
    return np.hstack(found).round().astype(int).tolist()


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """The data, its items' values, its items' files."""
    make, files, expected = KINDS[request.param]
    root = tmp_path / "data"
    return make(root), expected, [root / file for file in files]


def test_items_of_intact_files(kind, capsys):
    data, expected, _ = kind
    assert values(data.batch(range(4), range(4))) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["vanishes", "breaks"])
@pytest.mark.parametrize(("item", "next_item"), [(2, 3), (3, 0)])
def test_the_next_item_is_used_instead(kind, capsys, how, item, next_item):
    """It has its own label or partner; after the last item comes the first.

    There is one warning, however often the file is met.
    """
    data, expected, files = kind
    if how == "vanishes":
        files[item].unlink()
    else:
        files[item].write_bytes(b"no image")
    for _ in range(2):
        found = values(data.batch([1, item, item], [0, 0, 0]))
        assert found == [expected[1], expected[next_item], expected[next_item]]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {files[item]} cannot be read (")
    assert line.endswith("; the next item is used instead")


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
    message = r"none of the \d items can be read any more.*\.png cannot be read"
    with pytest.raises(UserError, match=message):
        data.batch([1], [0])
    with pytest.raises(UserError, match=message):
        next(data.stream([[1]], [0] * 4))
    assert capsys.readouterr().err == ""  # one error instead of a warning for each file


def test_each_file_has_its_own_warning(tmp_path, capsys):
    images(tmp_path / "data", 4)
    data = load_images(tmp_path / "data", 8, 1)
    for i in (1, 2):
        (tmp_path / f"data/{i}.png").unlink()
    data.batch([1, 2])
    files = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert files == [f"{tmp_path}/data/1.png", f"{tmp_path}/data/2.png"]


def test_the_other_domain_keeps_its_image(tmp_path):
    """Only A's file is broken, so B's image is the one that the seed had chosen."""
    images(tmp_path / "trainA", 3, seed=0)
    images(tmp_path / "trainB", 3, seed=1)
    data = load_domains(tmp_path, None, 32, 3)
    a, b = data.batch([0], [2 << 8])
    (tmp_path / "trainA/0.png").unlink()
    next_a, same_b = data.batch([0], [2 << 8])
    assert not np.array_equal(a, next_a)
    assert np.array_equal(b, same_b)


def test_a_pair_in_memory_does_not_need_its_file(tmp_path, capsys):
    data = pairs_in_two_folders(tmp_path)
    before = values(data.batch([0]))
    (tmp_path / "trainA/0.png").unlink()
    assert values(data.batch([0])) == before
    assert capsys.readouterr().err == ""
