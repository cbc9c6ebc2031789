"""tools/judge_modes.py: modes and divergences counted by hand, on digits that are grey levels."""

import math

import numpy as np
import pytest
from conftest import write_idx_folder

from tools import digit_classifier, evaluate, judge_modes

LEVELS = np.arange(10, dtype=np.uint8) * 25 + 5


class LevelJudge:
    """Reads the grey level 25 k + 5 as the digit k, with certainty unless it is 0."""

    size, channels, description = 32, 1, "levels"

    def __call__(self, pixels):
        digits = (pixels.mean((1, 2, 3)) // 25).astype(int)
        probabilities = np.eye(10)[digits]
        probabilities[digits == 0, :2] = 0.6, 0.4
        return digits[:, None].astype(np.float32), probabilities


@pytest.fixture
def levels(monkeypatch, tmp_path):
    """A folder of MNIST's layout with equally many zeros and ones, as grey levels."""
    monkeypatch.setattr(digit_classifier, "of_digits", lambda mnist, n_steps: LevelJudge())
    labels = np.arange(40, dtype=np.uint8) % 2
    pixels = np.broadcast_to(LEVELS[labels][:, None, None], (40, 28, 28)).astype(np.uint8)
    for split in ("train", "t10k"):
        write_idx_folder(tmp_path / "mnist", pixels, labels, split)
    return tmp_path / "mnist"


def save(path, digits):
    """samples.npz of (N, 3) digits as the channels of 16 x 16 images."""
    np.savez(path, images=np.broadcast_to(LEVELS[digits][:, None, None], (len(digits), 16, 16, 3)))
    return str(path)


def test_modes_and_divergence_by_hand(levels, tmp_path, capsys):
    """Half of the samples are 001, half 101; the data has each of eight modes as often."""
    samples = save(tmp_path / "samples.npz", np.array([[0, 0, 1], [1, 0, 1]] * 200))
    table = evaluate.main(["modes", samples, "--mnist", str(levels)])
    assert table["modes"] == 2
    assert table["KL"] == pytest.approx(math.log(8 / 2))
    assert (table["certain"], table["modes of the certain"]) == (
        0,
        0,
    )  # the digit 0 is in all of them
    # Of many equal points the balls have no radius. Both modes are real, but six of eight real ones are not covered.
    assert table["precision"] == 1
    assert table["recall"] == pytest.approx(2 / 8, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    assert (table["precision of real stacks"], table["recall of real stacks"]) == (1, 1)
    assert table["modes of real stacks"] == 8
    assert table["KL of real stacks"] == pytest.approx(
        7 / (2 * 400), abs=4 * math.sqrt(2 * 7) / (2 * 400)
    )
    assert "400 samples: other figures are of 26,000" in capsys.readouterr().err


def test_modes_of_certain_samples(levels, tmp_path):
    """Of 111, 111, 110 and 101 the first two are certain."""
    table = evaluate.main(
        [
            "modes",
            save(tmp_path / "s.npz", np.array([[1, 1, 1]] * 2 + [[1, 1, 0], [1, 0, 1]])),
            "--mnist",
            str(levels),
        ]
    )
    assert (table["modes"], table["certain"], table["modes of the certain"]) == (3, 0.5, 1)


def test_the_order_of_the_channels_counts(levels, tmp_path):
    digits = np.array(np.unravel_index(np.arange(1000), (10, 10, 10))).T
    samples = evaluate.image_sets.load(save(tmp_path / "all.npz", digits))
    found, certain, features = judge_modes.read_stacks(
        LevelJudge(), [samples.opened(i) for i in range(1000)]
    )
    assert np.array_equal(found, np.arange(1000))
    assert certain.sum() == 9**3
    assert np.array_equal(features, digits)  # so that they are of the three channels in their order


def test_divergence_is_infinite_where_the_data_has_nothing():
    assert judge_modes.divergence(np.array([0, 1]), np.array([1.0, 0.0])) == math.inf
    assert judge_modes.divergence(np.array([0, 1, 1, 1]), np.array([0.5, 0.5])) == pytest.approx(
        0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    )


def test_grey_samples_are_refused(levels, tmp_path, fails):
    np.savez(tmp_path / "grey.npz", images=np.zeros((5, 16, 16, 1), np.uint8))
    code, line = fails(evaluate.main, ["modes", tmp_path / "grey.npz", "--mnist", levels])
    assert code == 2
    assert "stacked digits" in line


def test_too_few_samples_are_refused(levels, tmp_path, fails):
    code, line = fails(
        evaluate.main, ["modes", save(tmp_path / "s.npz", np.eye(3, dtype=int)), "--mnist", levels]
    )
    assert code == 2
    assert "more than 3" in line
