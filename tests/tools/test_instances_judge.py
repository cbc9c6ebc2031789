"""tools/judges/instances.py: measures by hand, right and wrong answers, runs."""

from common.data.toy import crowds

import numpy as np
from registry import run
from untrained import write_untrained_run

import pix2pixhd
from tools import evaluate
from tools.judges import instances


def test_where_objects_touch_by_hand():
    """Borders between classes do not count."""
    labels = np.int32([[[1, 1, 1, 0], [1, 1, 1, 0]]])
    ids = np.int32([[[2, 2, 3, 4], [2, 5, 3, 4]]])
    expected = [[[0, 1, 1, 0], [1, 1, 1, 0]]]
    assert instances.touching(labels, ids).astype(int).tolist() == expected


def test_distances_by_hand():
    labels = np.int32([[[1, 1, 1, 1]]])
    ids = np.int32([[[2, 2, 3, 3]]])
    real = np.zeros((1, 3, 1, 4), np.float32)
    painted = real + np.float32([1, 0.5, 0.25, 0.25])
    rows = {name: value for name, value, _ in instances.distance_rows(labels, ids, real, painted)}
    assert rows == {"L1": 0.5, "L1 where objects of a class touch": 0.375}


def test_changes_by_hand():
    before = np.zeros((2, 1, 2, 2), np.float32)
    after = before + np.float32([[1, 0.5], [0, 0.25]])
    inside = np.array([[[True, False], [False, False]], np.zeros((2, 2), bool)])
    values = [value for _, value, _ in instances.change_rows(before, after, inside)]
    assert np.allclose(values, [1, 0.25, 4])


def test_one_object_of_each_map_gets_another_look():
    """The larger one of the two digits; the sky, which is larger, stays as it is."""
    looks = pix2pixhd.Looks(n_classes=2, n_clusters=3, feature_dim=1)
    looks.centres[:, :, 0] = [[1, 2, 0], [1, 5, 9]]
    looks.counts[:] = [2, 2]
    labels = np.int32([[[0, 0, 0, 0, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 1]]])
    ids = np.int32([[[0, 0, 0, 0, 1, 2, 2]], [[0, 0, 0, 0, 0, 0, 1]]])
    codes = np.float32([[[1], [1], [4]], [[2], [5], [0]]])
    changed, inside = instances.other_looks(labels, ids, codes, looks)
    assert changed[0, :, 0].tolist() == [1, 1, 1]  # of 1 and 5, 1 is farther from 4
    assert changed[1, :, 0].tolist() == [1, 5, 0]
    assert inside[0].tolist() == [[False] * 5 + [True] * 2]
    assert inside[1].tolist() == [[True] * 6 + [False]]


def test_squares_show_their_digits():
    """A digit alone in its square; one that is mostly covered is left out."""
    shapes = np.zeros((3, 40, 40), bool)
    shapes[0, 5:25, 5:15] = True
    shapes[1, 5:20, 5:15] = True  # it covers three quarters of the first one
    shapes[2, 30:38, 30:38] = True
    ids = np.zeros((40, 40), np.uint8)
    for k, shape in enumerate(shapes, 1):
        ids[shape] = k
    labels = np.where(ids > 0, crowds.DIGIT, 0)
    crowd = crowds.Crowd(labels, ids, [7, 1, 4], list(shapes), [0, 0, 0])
    image = np.where(ids == 2, 1.0, -1.0)[None].repeat(3, axis=0).astype(np.float32)
    squares, digits = instances.squares_of(crowd, image, only_touching=False)
    assert digits.tolist() == [1, 4]
    assert squares.shape == (2, 3, 32, 32)
    # 10 of 15 + 2 x 2 pixels across, 15 down, from an edge of 2.
    assert (squares[0, 0, 5:26, 10:22] > 0.9).all()
    assert (squares[0, 0, :, :5] < -0.9).all() and (squares[0, 0, :, 27:] < -0.9).all()
    _, touching = instances.squares_of(crowd, image, only_touching=True)
    assert touching.tolist() == [1]


def test_a_reader_learns():
    rng = np.random.default_rng(0)
    digits = np.arange(40, dtype=np.int32) % 10
    squares = np.full((40, 3, 32, 32), -1, np.float32)
    for square, digit in zip(squares, digits):
        square[:, 3 * digit : 3 * digit + 3] = 1
    squares += 0.01 * rng.standard_normal(squares.shape).astype(np.float32)
    reader = instances.train_reader(squares, digits, n_steps=40)
    assert (instances.predict(reader, squares).argmax(1) == digits).mean() > 0.9


def test_a_run_on_the_crowds(tmp_path, monkeypatch):
    monkeypatch.setattr(crowds, "N_CROWDS", {"train": 12, "test": 6})
    flags = ("--img_size", 32, "--width", 2, "--width_D", 2, "--width_E", 2, "--n_blocks", 1)
    flags += ("--n_down", 2, "--n_epochs", 1, "--batch_size", 4, "--global_epochs", 0)
    run("pix2pixhd", *flags, "--out_dir", tmp_path / "run")
    rows = evaluate.main(["instances", str(tmp_path / "run"), "--n_steps", "2"])
    assert list(rows) == [
        "L1",
        "L1 where objects of a class touch",
        "touching digits read, images",
        "touching digits read, outputs",
        "another code: change inside the object",
        "another code: change outside it",
        "another code: inside over outside",
    ]
    assert rows["another code: change inside the object"] > 0
    run("pix2pixhd", *flags, "--feature_dim", 0, "--out_dir", tmp_path / "plain")
    rows = evaluate.main(["instances", str(tmp_path / "plain"), "--n_steps", "2"])
    assert len(rows) == 4


def test_the_run_of_another_script_is_refused(tmp_path, fails):
    folder = write_untrained_run("pix2pix", tmp_path / "run", "--width", "4", "--img_size", "32")
    code, line = fails(evaluate.main, ["instances", folder])
    assert code == 2
    assert "was written by pix2pix.py, not by pix2pixhd.py" in line
