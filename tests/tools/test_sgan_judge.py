"""tools/judges/sgan.py: variances by hand, an untrained run."""

import numpy as np
import pytest
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import sgan


def test_variances_by_hand():
    groups = np.float32([[[0, 1], [2, 1]], [[5, 0], [5, 6]]])  # variances 1, 0 and 0, 9
    assert np.isclose(sgan.variance(groups), 2.5)
    features = np.float32([[0], [4], [1], [1], [7]])
    labels = np.array([3, 3, 0, 0, 0])  # variances 4 and 8
    assert np.isclose(sgan.variance_by_label(features, labels), 6)


def test_an_untrained_run_and_one_that_ignores_its_noise(tmp_path, monkeypatch):
    flags = ("--img_size", "20", "--width", "2", "--latent_dim", "6")
    run = str(write_untrained_run("sgan", tmp_path / "run", *flags))
    found = evaluate.main(["sgan", run])
    assert found["accuracy of the encoder"] < 0.4
    assert found["variance of features of one label"] > 0
    assert found["variance of images of the same features"] > 0

    monkeypatch.setattr(sgan, "draw_features", lambda *args: np.ones((10, 4, 16), np.float32))
    found = evaluate.main(["sgan", run])
    assert found["variance of features of one label"] == pytest.approx(0)
