"""tools/judge_labels.py: measures by hand, right answers and wrong ones, runs and folders."""

from common.data.toy import scenes

import jittor as jt
import numpy as np
import pytest
from registry import images, label_maps, run
from test_judge_translators import untrained

from tools import evaluate, judge_labels


def test_mean_iou_by_hand():
    """Of class 0, 3 pixels are right of 3 + 1 + 2 ; of class 1, 4 of 4 + 3 + 1; class 2 is nowhere."""
    confusion = np.array([[3, 1, 0], [2, 4, 1], [0, 0, 0]])
    assert np.isclose(judge_labels.mean_iou(confusion), (3 / 6 + 4 / 8) / 2)


def test_what_is_read_is_counted(monkeypatch):
    logits = jt.array(np.float32([[[[9, 0]], [[0, 0]], [[0, 9]]]]))  # reads 0 and 2
    monkeypatch.setattr(judge_labels, "in_chunks", lambda network, images, chunk: logits.numpy())
    counts = judge_labels.read(None, None, np.int32([[[0, 1]]]), 3)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_style_of_pictures_that_are_right_and_of_ones_that_are_not():
    data = scenes.Scenes(32, 32, "test")
    classes, real = data.batch(range(80))
    times = data.times[:80]
    chosen = np.array([np.flatnonzero(times == t)[0] for t in (times + 1) % 4])
    wanted = np.stack([as_at(classes[i], times[k]) for i, k in enumerate(chosen)])
    right = dict(row[:2] for row in judge_labels.style_rows(classes, real, wanted, times, chosen))
    wrong = dict(row[:2] for row in judge_labels.style_rows(classes, real, real, times, chosen))
    off, time = "style of another scene: colours off by", "style of another scene: its time of day"
    assert right[off] < 0.1 < 0.3 < wrong[off]
    assert right[time] == 1 and wrong[time] == 0


def as_at(classes, time):
    return (
        scenes.paint(classes.astype(np.uint8), time, np.random.default_rng(0)) / np.float32(127.5)
        - 1
    )


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "N_SCENES", {"train": 16, "test": 12})


def test_a_run_on_the_drawn_scenes(few_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_labels, "train_segmenter", lambda *args: None)
    monkeypatch.setattr(judge_labels, "in_chunks", lambda network, x, chunk: perfect.get(id(x), x))
    run(
        "spade",
        "--img_size",
        32,
        "--width",
        2,
        "--n_epochs",
        1,
        "--batch_size",
        8,
        "--out_dir",
        tmp_path,
    )
    perfect, real_read = {}, judge_labels.read

    def read(network, x, classes, total):
        perfect[id(x)] = np.eye(total)[classes].transpose(0, 3, 1, 2)
        return real_read(network, x, classes, total)

    monkeypatch.setattr(judge_labels, "read", read)
    rows = evaluate.main(["labels", str(tmp_path)])
    assert rows["real images: mean IoU"] == rows["painted, random style: mean IoU"] == 1
    assert 0 <= rows["style of another scene: its time of day"] <= 1


def test_a_folder_of_pictures(tmp_path, capsys):
    """Real images in the place of painted ones are read as well as themselves; noise is not."""
    label_maps(tmp_path / "data")
    folders = {"same": tmp_path / "data/val/imgs", "noise": tmp_path / "noise"}
    images(folders["noise"], 3, seed=9)
    rows = {
        name: evaluate.main(
            ["labels", str(folder), "--maps", str(tmp_path / "data"), "--n_steps", "1"]
        )
        for name, folder in folders.items()
    }
    assert rows["same"]["painted: mean IoU"] == rows["same"]["real images: mean IoU"]
    assert (
        rows["noise"]["real images: mean IoU"] == rows["same"]["real images: mean IoU"]
    )  # the same segmenter
    (tmp_path / "noise/1.png").unlink()
    with pytest.raises(SystemExit):
        evaluate.main(["labels", str(folders["noise"]), "--maps", str(tmp_path / "data")])
    assert "has no picture of 1; 1 of 3 maps are so" in capsys.readouterr().err


def test_the_segmenter_learns():
    """Two classes of plain colours are read right after a few steps."""
    classes = (
        np.random.default_rng(0)
        .integers(2, size=(16, 4, 4))
        .repeat(4, axis=1)
        .repeat(4, axis=2)
        .astype(np.int32)
    )
    pictures = (classes[:, None] * 1.6 - 0.8).repeat(3, axis=1).astype(np.float32)

    class Data:
        def __len__(self):
            return 16

        def batch(self, indices, seeds=None):
            return classes[indices], pictures[indices]

    network = judge_labels.train_segmenter(Data(), 3, 2, 20)
    assert judge_labels.mean_iou(judge_labels.read(network, pictures, classes, 2)) > 0.95


def test_another_scripts_run(tmp_path, capsys):
    folder = untrained("pix2pix", tmp_path / "run")
    with pytest.raises(SystemExit):
        evaluate.main(["labels", str(folder)])
    assert "was written by pix2pix.py, not by spade.py" in capsys.readouterr().err
