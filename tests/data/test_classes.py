"""Images with classes: a folder for each, digits, faces."""

from common import UserError
from common.data import Batches
from common.data.augment import Augment
from common.data.classes import load_classes

import numpy as np
import pytest
from PIL import Image


def save(path, colour, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three classes; the class of a red image is 2."""
    for i in range(4):
        save(tmp_path / "set" / "apes" / f"{i}.png", (0, 0, 10 + i))
    save(tmp_path / "set" / "birds" / "deep" / "0.png", (0, 255, 0), (16, 8))
    for i in range(2):
        save(tmp_path / "set" / "cats" / f"{i}.jpg", (255, 0, 0))
    return tmp_path / "set"


def test_labels_follow_the_names_of_the_folders(folder):
    data = load_classes(folder, 8, 3, 3)
    assert len(data) == 7
    images, labels = data.batch(np.arange(7))
    assert images.shape == (7, 3, 8, 8) and images.dtype == np.float32
    assert labels.tolist() == [0, 0, 0, 0, 1, 2, 2] and labels.dtype == np.int32
    assert np.allclose(images[0, 2], 10 / 127.5 - 1)
    assert np.allclose(images[4, 1], 1)
    assert images[5, 0].min() > 0.95


def test_the_training_split(folder, tmp_path):
    """A folder `test` beside it is no class."""
    folder.rename(tmp_path / "whole")
    (tmp_path / "both").mkdir()
    (tmp_path / "whole").rename(tmp_path / "both" / "train")
    save(tmp_path / "both" / "test" / "apes" / "0.png", (1, 1, 1))
    assert len(load_classes(tmp_path / "both", 8, 3, 3)) == 7


def test_images_keep_their_labels_in_any_order(folder):
    data = load_classes(folder, 8, 3, 3)
    for images, labels in Batches(data, 2, np.random.default_rng(0)):
        channel = images.mean((2, 3)).argmax(1)  # blue, green, red: 2 - label
        assert (channel == 2 - labels).all()


def test_a_broken_file_keeps_its_neighbours_labels(folder, capsys):
    data = load_classes(folder, 8, 3, 3)
    (folder / "birds" / "deep" / "0.png").write_bytes(b"broken")
    images, labels = data.batch([4])
    assert labels.tolist() == [2] and images[0, 0].min() > 0.95
    assert "the next item" in capsys.readouterr().err


def test_mirroring(folder):
    """Half of the images, by their seeds."""
    path = folder / "apes" / "0.png"
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(path)
    data = load_classes(folder, 8, 3, 3, augment=Augment(crop=False, flip=True))
    left = [data.batch([0], [seed])[0][0, 0, 0, 0] == 1 for seed in range(40)]
    assert 10 < sum(left) < 30


def test_digits_and_faces():
    data = load_classes(None, 32, 1, 10)
    assert len(data) >= 5000
    data = load_classes("faces", 32, 3, 6)
    images, labels = data.batch([0, 1])
    assert images.shape == (2, 3, 32, 32) and labels.max() < 6


def test_another_number_of_classes(folder):
    with pytest.raises(UserError, match=r"3 folders, .* give --n_classes 3, not 10"):
        load_classes(folder, 8, 3, 10)


def test_no_classes(tmp_path):
    save(tmp_path / "one" / "0.png", (1, 2, 3))
    with pytest.raises(UserError, match=r"two or more folders, one for each class.*found: one"):
        load_classes(tmp_path, 8, 3, 10)
    with pytest.raises(UserError, match="is not a folder"):
        load_classes(tmp_path / "none", 8, 3, 10)
