"""tools/judges/modes.py: modes and divergences by hand; the digits are grey levels."""

import math

import numpy as np
import pytest
from conftest import write_idx_folder

from tools import evaluate
from tools.judges import digit_classifier, image_sets, modes

LEVELS = np.arange(10, dtype=np.uint8) * 25 + 5


class LevelClassifier:
    """Reads the grey level 25 k + 5 as the digit k, with certainty except for 0."""

    size = 32
    channels = 1
    description = "levels"

    def __call__(self, pixels):
        digits = (pixels.mean((1, 2, 3)) // 25).astype(int)
        probabilities = np.eye(10)[digits]
        probabilities[digits == 0, :2] = (0.6, 0.4)
        return digits[:, None].astype(np.float32), probabilities


@pytest.fixture
def levels(monkeypatch, tmp_path):
    """A folder in MNIST's layout with equally many zeros and ones, as grey levels."""
    monkeypatch.setattr(digit_classifier, "of_digits", lambda mnist, n_steps: LevelClassifier())
    labels = np.arange(40, dtype=np.uint8) % 2
    pixels = np.broadcast_to(LEVELS[labels][:, None, None], (40, 28, 28)).astype(np.uint8)
    for split in ("train", "t10k"):
        write_idx_folder(tmp_path / "mnist", pixels, labels, split)
    return tmp_path / "mnist"


def save(path, digits):
    """Writes samples.npz, of (N, 3) digits as the channels of 16 x 16 images."""
    images = np.broadcast_to(LEVELS[digits][:, None, None], (len(digits), 16, 16, 3))
    np.savez(path, images=images)
    return str(path)


def test_modes_and_divergence_by_hand(levels, tmp_path, capsys):
    """Half of the samples are 001, half 101; the data have each of eight modes equally.

    Balls around many equal points have no radius. Both modes are real, but six of the
    eight real ones are not covered.
    """
    samples = save(tmp_path / "samples.npz", np.array([[0, 0, 1], [1, 0, 1]] * 200))
    table = evaluate.main(["modes", samples, "--mnist", str(levels)])
    assert table["modes"] == 2
    assert table["KL"] == pytest.approx(math.log(8 / 2))
    assert table["certain"] == 0  # the digit 0 is in all of them
    assert table["modes of the certain"] == 0
    assert table["precision"] == 1
    error = math.sqrt(0.25 * 0.75 / 400)
    assert table["recall"] == pytest.approx(2 / 8, abs=4 * error)

    assert table["precision of real stacks"] == 1
    assert table["recall of real stacks"] == 1
    assert table["modes of real stacks"] == 8
    error = math.sqrt(2 * 7) / (2 * 400)
    assert table["KL of real stacks"] == pytest.approx(7 / (2 * 400), abs=4 * error)
    assert "400 samples: other figures are of 26,000" in capsys.readouterr().err


def test_modes_of_certain_samples(levels, tmp_path):
    """Of 111, 111, 110 and 101 the first two are certain."""
    samples = save(tmp_path / "s.npz", np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1]]))
    table = evaluate.main(["modes", samples, "--mnist", str(levels)])
    assert table["modes"] == 3
    assert table["certain"] == 0.5
    assert table["modes of the certain"] == 1


def test_the_order_of_the_channels_counts(tmp_path):
    digits = np.array(np.unravel_index(np.arange(1000), (10, 10, 10))).T
    samples = image_sets.load(save(tmp_path / "all.npz", digits))
    stacks = [samples.open_one(i) for i in range(1000)]
    found, is_certain, features = modes.read_stacks(LevelClassifier(), stacks)
    assert np.array_equal(found, np.arange(1000))
    assert is_certain.sum() == 9**3
    assert np.array_equal(features, digits)  # those of the three channels, in their order


def test_divergence_is_infinite_if_the_data_lack_a_mode():
    assert modes.divergence(np.array([0, 1]), np.array([1.0, 0.0])) == math.inf
    found = modes.divergence(np.array([0, 1, 1, 1]), np.array([0.5, 0.5]))
    assert found == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_grey_samples_are_refused(levels, tmp_path, fails):
    np.savez(tmp_path / "grey.npz", images=np.zeros((5, 16, 16, 1), np.uint8))
    code, line = fails(evaluate.main, ["modes", tmp_path / "grey.npz", "--mnist", levels])
    assert code == 2
    assert "--data_dir stacked" in line


def test_too_few_samples_are_refused(levels, tmp_path, fails):
    samples = save(tmp_path / "s.npz", np.eye(3, dtype=int))
    code, line = fails(evaluate.main, ["modes", samples, "--mnist", levels])
    assert code == 2
    assert "more than 3" in line
