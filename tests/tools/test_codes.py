"""tools/judges/codes.py: right answers, wrong ones, and untrained networks."""

import math

import jittor as jt
import numpy as np
import pytest
from untrained import write_untrained_run

from jittor_fast import nn
from tools import evaluate
from tools.explore import slant
from tools.judges import codes, image_sets

SMALL = ("--width", "2", "--img_size", "16", "--latent_dim", "6")


def test_meanings_by_hand():
    """Category 0 holds three 7s and a 1, category 2 two 5s, and category 1 nothing."""
    found = codes.meanings(np.array([0, 0, 0, 0, 2, 2]), np.array([7, 1, 7, 7, 5, 5]), 3)
    assert found.tolist() == [7, -1, 5]


def test_rank_correlation_by_hand():
    """Up, down, and 2 1 3: 1 - 6 * (1 + 1) / (3 * 8) = 0.5."""
    values = np.float32([[0.1, 5, 6], [3, 2, -1], [2, 1, 3]])
    assert np.allclose(codes.rank_correlation(values), [1, -1, 0.5])


def leaning(code, size=24):
    """(N, 1, S, S): bars that lean as much as their code (N,) says."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (np.abs(columns + 0.2 * code[:, None, None] * rows) < 2) & (np.abs(rows) < 8)
    return (2.0 * inside - 1)[:, None].astype(np.float32)


def test_a_code_that_leans_the_digit(monkeypatch):
    """Walks along the second code, from one end of the slant to the other.

    The first code keeps its value.
    """
    continuous = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    starts = (np.zeros((4, 3)), np.zeros(4, int), continuous)
    seen = []

    def predict(network, z, categories, continuous):
        seen.append(continuous)
        return leaning(continuous[:, 1])

    monkeypatch.setattr(codes, "predict", predict)
    images = codes.walks(None, starts, 1)
    assert np.array_equal(seen[0][:, 0].reshape(4, 9), np.tile(continuous[:, :1], 9))

    deviations = {"thickness": 0.1, "slant": 0.2, "brightness": 0.1}
    rows = {name: (value, of) for name, value, of in codes.walk_rows(1, images, deviations)}
    value, of = rows["code 2: slant"]
    assert value > 0.99
    first, last = (slant(leaning(np.float32([code])))[0] for code in (-2, 2))
    assert f"mean from {first:.3f} to {last:.3f}, always up; deviation of samples 0.200" in of


def test_an_untrained_run_and_one_whose_categories_are_the_digits(tmp_path, monkeypatch):
    run = str(write_untrained_run("infogan", tmp_path / "run", *SMALL))
    poor = evaluate.main(["infogan", run])
    assert poor["error"] > 0.5
    assert poor["error, by the statistics of real digits"] > 0.5
    assert -0.5 < poor["information of the category"] < 0.2 < math.log(10)
    for i in (1, 2):
        assert {f"code {i}: {name}" for name in ("thickness", "slant", "brightness")} < set(poor)

    def known_categories(discriminator, images):
        """A category for each digit; the digits run through the classes in turn."""
        labels = image_sets.digits("train", None, 16).labels
        return (labels[: len(images)] + 3) % 10

    monkeypatch.setattr(codes, "best_categories", known_categories)
    assert evaluate.main(["infogan", run])["error"] == 0


def test_batch_norm_takes_the_statistics_of_the_digits():
    """By hand: each channel gets mean 0 and variance 1, whatever the training's."""
    norm = nn.BatchNorm(2, affine=False)
    norm.running_mean.assign(jt.array(np.float32([5, -5])))
    norm.eval()
    x = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    codes.use_statistics_of_batches(nn.Sequential(norm))
    y = norm(jt.array(x)).numpy()
    assert np.allclose(y, (x - x.mean(0)) / x.std(0), atol=1e-3)
    assert np.array_equal(norm.running_mean.numpy(), [5, -5])


def test_the_codes_of_colour_images_cannot_be_judged(tmp_path, fails):
    run = write_untrained_run("infogan", tmp_path / "run", *SMALL, "--channels", "3")
    code, line = fails(evaluate.main, ["infogan", run])
    assert code == 2
    assert "draws colour images" in line


@pytest.mark.parametrize("name", ["infogan", "text2img"])
def test_the_run_of_another_script_is_refused(tmp_path, fails, name):
    run = write_untrained_run("pix2pix", tmp_path / "run", "--width", "4", "--img_size", "32")
    code, line = fails(evaluate.main, [name, run])
    assert code == 2
    assert f"was written by pix2pix.py, not by {name}.py" in line
