"""Unpaired domains: which images come together, and folders of different kinds."""

from common import UserError
from common.data import load_domains
from common.data.toy.drawn import digit_domains

import numpy as np
import pytest
from registry import images


def test_domains_of_different_sizes(tmp_path):
    """An epoch has every image of the larger domain, random ones of the smaller."""
    images(tmp_path / "trainA", 2, (50, 40))
    images(tmp_path / "trainB", 7, (32, 64), seed=1)
    data = load_domains(tmp_path, None, 32, 1)
    assert len(data) == 7
    a, b = data.batch(range(7), [k << 8 for k in range(7)])
    assert a.shape == b.shape == (7, 1, 32, 32)
    assert len({x.tobytes() for x in b}) == 7
    assert len({x.tobytes() for x in a}) == 2


def test_domains_of_equal_size_are_not_paired_by_their_order(tmp_path):
    images(tmp_path / "train/A", 5)
    images(tmp_path / "train/B", 5, seed=1)
    data = load_domains(tmp_path, None, 32, 3)
    partners = {data.batch([2], [seed << 8])[1].tobytes() for seed in range(50)}
    assert len(partners) == 5


def test_idx_files_and_images(tmp_path, idx_folder):
    images(tmp_path / "pictures", 3)
    data = load_domains(idx_folder, tmp_path / "pictures", 32, 3)
    a, b = data.batch([0], [0])
    assert a.shape == b.shape == (1, 3, 32, 32)
    assert np.array_equal(a[:, 0], a[:, 1])  # grey digits in three channels


def test_idx_files_within_the_folders_of_a_layout(tmp_path, idx_folder, capsys):
    """Without a test split there is one warning, whatever the folders hold."""
    idx_folder.rename(tmp_path / "trainA")
    images(tmp_path / "trainB", 3)
    data = load_domains(tmp_path, None, 32, 1)
    assert [len(domain) for domain in data.domains] == [40, 3]
    assert capsys.readouterr().err == ""
    data = load_domains(tmp_path, None, 32, 1, split="test")
    assert [len(domain) for domain in data.domains] == [40, 3]
    assert capsys.readouterr().err.count("warning:") == 1


def test_a_folder_with_the_name_of_a_built_in_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "stacked", 2)
    images(tmp_path / "other", 3)
    data = load_domains("stacked", "other", 32, 1)
    assert [len(domain) for domain in data.domains] == [2, 3]


def test_drawn_digits():
    data = load_domains(None, None, 32, 1, split="test")
    (white, _), (inked, _) = digit_domains(32, "test")
    a, b = next(data.stream([np.array([3, 7])], np.array([256 * 9] * 250)))
    assert np.allclose(a, white[[3, 7]] / 127.5 - 1, atol=1e-6)
    assert np.allclose(b, inked[[9, 9]] / 127.5 - 1, atol=1e-6)


# ---- errors ----


def one_domain(folder):
    images(folder / "trainA", 2)


def an_empty_domain(folder):
    images(folder / "trainA", 2)
    (folder / "trainB").mkdir()


def another_folder(folder):
    images(folder / "x", 2)


def no_layout(folder):
    images(folder, 2)


@pytest.mark.parametrize(
    ("make", "data_dir_B", "message"),
    [
        (one_domain, None, "trainB is not a folder"),
        (an_empty_domain, None, "trainB: expected png, jpg"),
        (
            another_folder,
            None,
            "expected trainA/ and trainB/, or train/A/ and train/B/ .*; found: x",
        ),
        (no_layout, "no such folder", "no such folder is not a folder"),
    ],
)
def test_bad_domains(tmp_path, make, data_dir_B, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        load_domains(tmp_path / "data", data_dir_B, 32, 3)


def test_a_second_folder_needs_a_first(tmp_path):
    with pytest.raises(UserError, match="--data_dir_B needs --data_dir"):
        load_domains(None, tmp_path, 32, 3)
