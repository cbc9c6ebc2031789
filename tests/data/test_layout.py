"""Parts of data sets: where each kind finds its train and test part, and what is said where one is missing."""

from common import UserError
from common.data import load_attributes, load_digits, load_domains, load_images, load_pairs
from common.data.layout import find_part

import numpy as np
import pytest
from conftest import write_idx_folder
from registry import images


def idx(folder, split):
    name = {"train": "train", "test": "t10k"}[split]
    pixels = np.random.default_rng(len(name)).integers(256, size=(5, 8, 8), dtype=np.uint8)
    write_idx_folder(folder, pixels, np.arange(5, dtype=np.uint8), name)


def several(*names, size=(8, 8)):
    """Makes folders of 5 random images, `{}` in their names standing for the part."""

    def make(folder, split):
        for k, name in enumerate(names):
            images(folder / name.format(split), 5, size, seed=k + 10 * len(split))

    return make


def domains_apart(folder, split):
    return load_domains(folder / "one", folder / "other", 8, 1, split)


def domains(folder, split):
    return load_domains(folder, None, 8, 1, split)


def pairs(folder, split):
    return load_pairs(folder, 8, 1, split=split)


def attributes(folder, split):
    return load_attributes(folder, 8, 1, split=split)


KINDS = {  # what makes a part, and what loads one
    "digits": (idx, lambda folder, split: load_digits(folder, 8, split=split, n_test=2)),
    "IDX files as images": (
        idx,
        lambda folder, split: load_images(folder, 8, 1, split=split, n_test=2),
    ),
    "images": (several("{}"), lambda folder, split: load_images(folder, 8, 1, split=split)),
    "pairs side by side": (several("{}", size=(16, 8)), pairs),
    "pairs in two folders": (several("{}A", "{}B"), pairs),
    "pairs in two folders of a part": (several("{}/A", "{}/B"), pairs),
    "pairs in parts of two folders": (several("A/{}", "B/{}"), pairs),
    "domains trainA": (several("{}A", "{}B"), domains),
    "domains train/A": (several("{}/A", "{}/B"), domains),
    "domains A/train": (several("A/{}", "B/{}"), domains),
    "a folder for each attribute": (several("{}/old", "{}/young"), attributes),
}


def pixels_of(data):
    return [
        column.tobytes()
        for column in data.batch(np.arange(len(data)), [256 * i for i in range(len(data))])
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_test_part(kind, tmp_path, capsys):
    """Training images serve, with one warning that names the folder; with a test part, they do not."""
    make, load = KINDS[kind]
    make(tmp_path, "train")
    train = pixels_of(load(tmp_path, "train"))
    assert capsys.readouterr().err == ""
    assert pixels_of(load(tmp_path, "test")) == train
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == f"warning: {tmp_path} has no test part: pictures, and any validation, are of training images"
    )
    make(tmp_path, "test")
    assert pixels_of(load(tmp_path, "test"))[0] != train[0]
    assert pixels_of(load(tmp_path, "train")) == train
    assert capsys.readouterr().err == ""


WITHOUT_PARTS = {
    "images": (several("."), KINDS["images"][1]),
    "a folder for each attribute": (several("old", "young"), attributes),
}


@pytest.mark.parametrize("kind", WITHOUT_PARTS)
def test_a_folder_without_parts_is_a_training_part(kind, tmp_path, capsys):
    make, load = WITHOUT_PARTS[kind]
    make(tmp_path / "data", "train")
    assert pixels_of(load(tmp_path / "data", "train")) == pixels_of(load(tmp_path / "data", "test"))
    assert capsys.readouterr().err.count(f"{tmp_path}/data has no test part") == 1


def test_each_of_two_domains_that_lie_apart_is_named(tmp_path, capsys):
    idx(tmp_path / "one", "train")
    images(tmp_path / "other", 3)
    domains_apart(tmp_path, "test")
    assert [line.split(" has ")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"warning: {tmp_path}/one",
        f"warning: {tmp_path}/other",
    ]
    idx(tmp_path / "one", "test")
    (tmp_path / "other").rename(tmp_path / "train")
    images(tmp_path / "other/val", 2)
    (tmp_path / "train").rename(tmp_path / "other/train")
    assert [len(domain) for domain in domains_apart(tmp_path, "train").domains] == [5, 3]
    assert [len(domain) for domain in domains_apart(tmp_path, "test").domains] == [5, 2]
    assert capsys.readouterr().err == ""


def test_a_short_list_of_celeba_has_no_test_part(tmp_path, capsys):
    """A tenth of nine images is none; of ten it is the last."""
    images(tmp_path / "images", 10)
    for n, expected in ((9, 9), (10, 1)):
        rows = "".join(f"{i}.png {2 * (i % 2) - 1}\n" for i in range(n))
        (tmp_path / "list_attr_celeba.txt").write_text(f"{n}\nYoung\n{rows}")
        assert len(attributes(tmp_path, "test")) == expected
        assert capsys.readouterr().err.count("has no test part") == (n == 9)


def test_a_stand_in_for_validation_is_at_most_100_pairs(tmp_path):
    images(tmp_path / "train", 101, (4, 2))
    assert [len(pairs(tmp_path, split)) for split in ("train", "val")] == [101, 100]


@pytest.mark.parametrize(
    ("split", "expected"), [("train", "train"), ("test", "test"), ("val", "val")]
)
def test_the_preferred_name_of_a_part(tmp_path, split, expected):
    assert find_part(tmp_path, split, lambda name: name * 2, "parts") == (expected, expected * 2)


def test_the_other_name_of_the_test_part(tmp_path, capsys):
    for split, only in (("test", "val"), ("val", "test")):
        assert find_part(
            tmp_path, split, lambda name, only=only: 1 if name == only else None, "parts"
        ) == (only, 1)
    assert capsys.readouterr().err == ""


LOADERS = [
    load_images,
    load_pairs,
    load_attributes,
    lambda folder, *kind: load_domains(folder, None, *kind),
]


@pytest.mark.parametrize("load", LOADERS)
def test_nothing_is_there(load, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        load(tmp_path / "nowhere", 32, 3)
    with pytest.raises(UserError, match=f"{tmp_path}: expected .*; found: nothing"):
        load(tmp_path, 32, 3)


@pytest.mark.parametrize("load", LOADERS)
def test_a_test_part_alone_cannot_be_trained_on(load, tmp_path):
    images(tmp_path / "test", 3)
    with pytest.raises(UserError, match=f"{tmp_path}: expected .*; found: test$"):
        load(tmp_path, 32, 3)


def test_what_is_found_is_named_up_to_five(tmp_path):
    for k in range(7):
        (tmp_path / str(k)).mkdir()
    with pytest.raises(UserError, match=r"found: 0, 1, 2, 3, 4, \.\.\.$"):
        find_part(tmp_path, "train", lambda name: None, "parts")
