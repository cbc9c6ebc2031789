"""tools/judges/labels.py: measures by hand, right and wrong answers, folders, runs."""

from common.data.toy import scenes

import numpy as np
from registry import images, label_maps, run
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import labels


def test_mean_iou_by_hand():
    """Of class 0, 3 pixels of 3 + 1 + 2 are right; of class 1, 4 of 4 + 3 + 1.

    Class 2 does not occur.
    """
    counts = np.array([[3, 1, 0], [2, 4, 1], [0, 0, 0]])
    assert np.isclose(labels.mean_iou(counts), (3 / 6 + 4 / 8) / 2)


def test_what_is_read_is_counted(monkeypatch):
    """The classes are 0 and 1, and it reads 0 and 2."""
    logits = np.float32([[[[9, 0]], [[0, 0]], [[0, 9]]]])
    monkeypatch.setattr(labels, "predict", lambda network, images, chunk: logits)
    counts = labels.read(None, None, np.int32([[[0, 1]]]), 3)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


class PlainColours:
    """Pairs of a map, of squares in two classes, and an image of two greys."""

    def __init__(self):
        small = np.random.default_rng(0).integers(2, size=(16, 4, 4))
        self.classes = small.repeat(4, axis=1).repeat(4, axis=2).astype(np.int32)
        self.images = (self.classes[:, None] * 1.6 - 0.8).repeat(3, axis=1).astype(np.float32)

    def __len__(self):
        return len(self.classes)

    def batch(self, indices, seeds=None):
        return self.classes[indices], self.images[indices]


def test_the_segmenter_learns():
    data = PlainColours()
    network = labels.train_segmenter(data, channels=3, n_classes=2, n_steps=20)
    counts = labels.read(network, data.images, data.classes, 2)
    assert labels.mean_iou(counts) > 0.95


# ---- style ----


def scene_at(classes, time):
    """The picture (3, H, W) in [-1, 1] of a map at a time of day."""
    pixels = scenes.paint(classes.astype(np.uint8), time, np.random.default_rng(0))
    return pixels / np.float32(127.5) - 1


def test_style_of_right_pictures_and_of_wrong_ones():
    """Right ones show another scene's time of day, wrong ones their own."""
    data = scenes.Scenes(32, 32, "test")
    classes, real = data.batch(range(80))
    times = data.times[:80]
    chosen = np.array([np.flatnonzero(times == t)[0] for t in (times + 1) % 4])
    wanted = np.stack([scene_at(classes[i], times[k]) for i, k in enumerate(chosen)])
    right_rows = labels.style_rows(classes, real, wanted, times, chosen)
    wrong_rows = labels.style_rows(classes, real, real, times, chosen)
    right = {measure: value for measure, value, _ in right_rows}
    wrong = {measure: value for measure, value, _ in wrong_rows}
    off = "style of another scene: colours off by"
    time = "style of another scene: its time of day"
    assert right[off] < 0.1
    assert wrong[off] > 0.3
    assert right[time] == 1
    assert wrong[time] == 0


# ---- runs and folders ----


def test_a_run_on_the_drawn_scenes(tmp_path, monkeypatch):
    """With a segmenter that makes no mistake."""
    monkeypatch.setattr(scenes, "N_SCENES", {"train": 16, "test": 12})
    flags = ("--img_size", 32, "--width", 2, "--n_epochs", 1, "--batch_size", 8)
    run("spade", *flags, "--out_dir", tmp_path)

    def perfect_read(network, images, classes, n_classes):
        counts = np.bincount(classes.ravel(), minlength=n_classes)
        return np.diag(counts)

    monkeypatch.setattr(labels, "train_segmenter", lambda *args: None)
    monkeypatch.setattr(labels, "read", perfect_read)
    rows = evaluate.main(["labels", str(tmp_path)])
    assert rows["real images: mean IoU"] == 1
    assert rows["painted, random style: mean IoU"] == 1
    assert 0 <= rows["style of another scene: its time of day"] <= 1


def test_a_folder_of_pictures(tmp_path, fails):
    """Real images instead of painted ones are read as well as themselves.

    Another folder is read by the same segmenter.
    """
    label_maps(tmp_path / "data")
    real = tmp_path / "data" / "val" / "imgs"
    noise = tmp_path / "noise"
    images(noise, 3, seed=9)
    flags = ["--maps", str(tmp_path / "data")]
    of_real = evaluate.main(["labels", str(real), *flags, "--n_steps", "1"])
    of_noise = evaluate.main(["labels", str(noise), *flags, "--n_steps", "1"])
    assert of_real["painted: mean IoU"] == of_real["real images: mean IoU"]
    assert of_noise["real images: mean IoU"] == of_real["real images: mean IoU"]

    (noise / "1.png").unlink()
    code, line = fails(evaluate.main, ["labels", noise, *flags])
    assert code == 2
    assert "has no picture of 1; 1 of 3 maps lack one" in line


def test_the_run_of_another_script_is_refused(tmp_path, fails):
    folder = write_untrained_run("pix2pix", tmp_path / "run", "--width", "4", "--img_size", "32")
    code, line = fails(evaluate.main, ["labels", folder])
    assert code == 2
    assert "was written by pix2pix.py, not by spade.py" in line
