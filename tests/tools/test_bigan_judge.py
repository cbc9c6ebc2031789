"""tools/judges/bigan.py: neighbours and distances by hand, an untrained run."""

import numpy as np
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import bigan

SMALL = ("--width", "12", "--img_size", "8", "--latent_dim", "5")


def test_nearest_neighbours_by_hand(monkeypatch):
    codes = np.float32([[0, 0], [3, 0], [0, 5]])
    labels = np.array([7, 8, 9])
    test_codes = np.float32([[1, 0], [2, 0], [0, 2.4], [0, 2.6]])
    monkeypatch.setattr(bigan, "CHUNK", 3)
    share = bigan.nearest_share(codes, labels, test_codes, np.array([7, 8, 9, 9]))
    assert share == 3 / 4


def test_distances_by_hand():
    """Images of 2 x 1 pixels: values in [-1, 1] differ by twice as much as pixels."""
    images = np.float32([[[[1], [1]]], [[[-1], [-1]]]])
    reconstructed = np.float32([[[[1], [0]]], [[[-1], [-1]]]])
    rows = {name: value for name, value, _ in bigan.reconstruction_rows(images, reconstructed)}
    assert np.isclose(rows["reconstruction: distance"], 0.5 / 2)
    of_others = (np.sqrt(1 + 0.25) + np.sqrt(2)) / 2
    assert np.isclose(rows["reconstruction: distance from another digit"], of_others)
    assert np.isclose(rows["reconstruction: ratio"], 0.25 / of_others)


def test_an_untrained_run(tmp_path, fails):
    run = write_untrained_run("bigan", tmp_path / "run", *SMALL)
    found = evaluate.main(["bigan", str(run)])
    assert 0.8 < found["1-NN in pixels"] < 1
    assert 0.1 < found["1-NN in codes"] < found["1-NN in pixels"]
    assert np.isclose(found["reconstruction: ratio"], 1, atol=0.02)

    colour = write_untrained_run("bigan", tmp_path / "colour", *SMALL, "--channels", "3")
    code, line = fails(evaluate.main, ["bigan", colour])
    assert code == 2
    assert "draws colour images" in line
