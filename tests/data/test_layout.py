"""Splits of data sets: where each kind finds them, and what is said without one."""

from common import UserError
from common.data import load_attributes, load_digits, load_domains, load_images, load_pairs
from common.data.layout import find_split

import numpy as np
import pytest
from conftest import write_idx_folder
from registry import images

# ---- functions that make a split, and functions that load it ----


def idx_files(folder, split):
    name = {"train": "train", "test": "t10k"}[split]
    pixels = np.random.default_rng(len(name)).integers(256, size=(5, 8, 8), dtype=np.uint8)
    write_idx_folder(folder, pixels, np.arange(5, dtype=np.uint8), name)


def folders(*names, size=(8, 8)):
    """A function that makes folders of 5 random images.

    Args:
        names: with {} instead of the name of the split.
    """

    def make(folder, split):
        for k, name in enumerate(names):
            images(folder / name.format(split), 5, size, seed=k + 10 * len(split))

    return make


def digits(folder, split):
    return load_digits(folder, 8, split=split, n_test=2)


def digits_as_images(folder, split):
    return load_images(folder, 8, 1, split=split, n_test=2)


def photographs(folder, split):
    return load_images(folder, 8, 1, split=split)


def pairs(folder, split):
    return load_pairs(folder, 8, 1, split=split)


def domains(folder, split):
    return load_domains(folder, None, 8, 1, split)


def domains_apart(folder, split):
    return load_domains(folder / "one", folder / "other", 8, 1, split)


def attributes(folder, split):
    return load_attributes(folder, 8, 1, split=split)


KINDS = {
    "digits": (idx_files, digits),
    "IDX files as images": (idx_files, digits_as_images),
    "images": (folders("{}"), photographs),
    "pairs side by side": (folders("{}", size=(16, 8)), pairs),
    "pairs in two folders": (folders("{}A", "{}B"), pairs),
    "pairs in two folders of a split": (folders("{}/A", "{}/B"), pairs),
    "pairs in splits of two folders": (folders("A/{}", "B/{}"), pairs),
    "domains trainA": (folders("{}A", "{}B"), domains),
    "domains train/A": (folders("{}/A", "{}/B"), domains),
    "domains A/train": (folders("A/{}", "B/{}"), domains),
    "a folder for each attribute": (folders("{}/old", "{}/young"), attributes),
}
WITHOUT_SPLITS = {
    "images": (folders("."), photographs),
    "a folder for each attribute": (folders("old", "young"), attributes),
}


def arrays_of(data):
    """All items of a data set, as bytes."""
    n = len(data)
    return [column.tobytes() for column in data.batch(np.arange(n), [256 * i for i in range(n)])]


# ---- a test split that is missing ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_test_split(kind, tmp_path, capsys):
    """The training images are used instead, with one warning that names the folder."""
    make, load = KINDS[kind]
    make(tmp_path, "train")
    train = arrays_of(load(tmp_path, "train"))
    assert capsys.readouterr().err == ""

    assert arrays_of(load(tmp_path, "test")) == train
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {tmp_path} has no test split: pictures and validation use training images"
    )

    make(tmp_path, "test")
    assert arrays_of(load(tmp_path, "test"))[0] != train[0]
    assert arrays_of(load(tmp_path, "train")) == train
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", WITHOUT_SPLITS)
def test_a_folder_without_splits_is_a_training_split(kind, tmp_path, capsys):
    make, load = WITHOUT_SPLITS[kind]
    folder = tmp_path / "data"
    make(folder, "train")
    assert arrays_of(load(folder, "train")) == arrays_of(load(folder, "test"))
    assert capsys.readouterr().err.count(f"{folder} has no test split") == 1


def test_each_of_two_domains_that_lie_apart_is_named(tmp_path, capsys):
    idx_files(tmp_path / "one", "train")
    images(tmp_path / "other", 3)
    domains_apart(tmp_path, "test")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" has ")[0] for line in lines] == [
        f"warning: {tmp_path}/one",
        f"warning: {tmp_path}/other",
    ]


def test_two_domains_that_lie_apart_have_their_own_splits(tmp_path, capsys):
    idx_files(tmp_path / "one", "train")
    idx_files(tmp_path / "one", "test")
    images(tmp_path / "other/train", 3)
    images(tmp_path / "other/val", 2)
    assert [len(domain) for domain in domains_apart(tmp_path, "train").domains] == [5, 3]
    assert [len(domain) for domain in domains_apart(tmp_path, "test").domains] == [5, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("n", "n_test", "n_warnings"), [(9, 9, 1), (10, 1, 0)])
def test_a_short_list_of_celeba(tmp_path, capsys, n, n_test, n_warnings):
    """Its last tenth is the test split; a tenth of nine images is none."""
    images(tmp_path / "images", 10)
    rows = "".join(f"{i}.png {2 * (i % 2) - 1}\n" for i in range(n))
    (tmp_path / "list_attr_celeba.txt").write_text(f"{n}\nYoung\n{rows}")
    assert len(attributes(tmp_path, "test")) == n_test
    assert capsys.readouterr().err.count("has no test split") == n_warnings


def test_at_most_100_training_pairs_are_used_for_validation(tmp_path):
    images(tmp_path / "train", 101, (4, 2))
    assert len(pairs(tmp_path, "train")) == 101
    assert len(pairs(tmp_path, "val")) == 100


# ---- names ----


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_the_preferred_name_of_a_split(tmp_path, split):
    found = find_split(tmp_path, split, lambda name: f"data of {name}", "splits")
    assert found == (split, f"data of {split}")


@pytest.mark.parametrize(("split", "other"), [("test", "val"), ("val", "test")])
def test_the_other_name_of_the_test_split(tmp_path, capsys, split, other):
    found = find_split(tmp_path, split, {other: "data"}.get, "splits")
    assert found == (other, "data")
    assert capsys.readouterr().err == ""


# ---- errors ----


def load_two_domains(folder, img_size, channels):
    return load_domains(folder, None, img_size, channels)


LOADERS = [load_images, load_pairs, load_attributes, load_two_domains]


@pytest.mark.parametrize("load", LOADERS)
def test_nothing_is_there(load, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        load(tmp_path / "nowhere", 32, 3)
    with pytest.raises(UserError, match=f"{tmp_path}: expected .*; found: nothing"):
        load(tmp_path, 32, 3)


@pytest.mark.parametrize("load", LOADERS)
def test_a_test_split_alone_cannot_be_trained_on(load, tmp_path):
    images(tmp_path / "test", 3)
    with pytest.raises(UserError, match=f"{tmp_path}: expected .*; found: test$"):
        load(tmp_path, 32, 3)


def test_at_most_five_names_are_listed(tmp_path):
    for k in range(7):
        (tmp_path / str(k)).mkdir()
    with pytest.raises(UserError, match=r"found: 0, 1, 2, 3, 4, \.\.\.$"):
        find_split(tmp_path, "train", lambda name: None, "splits")
