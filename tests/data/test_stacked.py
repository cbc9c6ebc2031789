"""Stacked digits: what the channels hold, who takes them, and in which order."""

from common import UserError
from common.data import (
    BUILT_IN,
    Batches,
    digits,
    holds_digits,
    is_built_in,
    load_digits,
    load_images,
    mnist,
)
from common.data.toy.stacked import Stacked

import numpy as np
import pytest
from registry import images, load, run, saved_arrays

SCRIPTS = ["began", "dcgan", "pggan", "r3gan", "wgan_gp"]
TINY = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, "--n_epochs", 1]


@pytest.fixture(autouse=True)
def bundled(idx_folder, tmp_path, monkeypatch):
    """40 digits instead of the 5,000 bundled ones; full MNIST is not there."""
    monkeypatch.setattr(digits, "BUNDLED", idx_folder)
    monkeypatch.setattr(mnist, "mnist_folder", lambda: tmp_path / "mnist_data")


# ---- the data set ----


def test_channels_are_digits_and_the_label_names_them():
    stacked = load_images("stacked", 28, 3)
    pixels, labels = stacked.batch(np.arange(40), np.arange(40) * 977 + 5)
    assert len(stacked) == 40
    assert (pixels.shape, pixels.dtype) == ((40, 3, 28, 28), np.float32)
    assert labels.dtype == np.int32

    known = {}
    for image, label in zip(*load_digits(None, 28, 1).batch(np.arange(40))):
        known[image.tobytes()] = label
    for image, label in zip(pixels, labels):
        a, b, c = (known[channel.tobytes()] for channel in image)
        assert label == 100 * a + 10 * b + c


class Numbers:
    """500 integers in place of digits: image i holds the value i."""

    def __len__(self):
        return 500

    def batch(self, indices, seeds=None):
        return np.float32(indices).reshape(-1, 1, 1, 1), np.asarray(indices) % 10


def two_epochs(seed):
    """The numbers in the channels of all images, (500, 3) for each epoch."""
    batches = Batches(Stacked(Numbers()), 50, np.random.default_rng(seed))
    epochs = []
    for _ in range(2):
        epochs.append(np.concatenate([pixels[:, :, 0, 0] for pixels, _ in batches]))
    return epochs


def test_the_seed_decides():
    first, _ = two_epochs(seed=3)
    assert np.array_equal(first, two_epochs(seed=3)[0])
    assert not np.array_equal(first, two_epochs(seed=4)[0])


def test_every_epoch_stacks_other_digits():
    first, second = two_epochs(seed=3)
    assert sorted(first[:, 0]) == sorted(second[:, 0]) == list(range(500))
    others = {a: (b, c) for a, b, c in first}
    same = [others[a] == (b, c) for a, b, c in second]
    assert np.mean(same) < 0.02


def test_the_channels_are_uniform_and_independent():
    """Means and correlations lie within 4 standard errors of their expectation."""
    values = np.concatenate(two_epochs(seed=3))
    assert np.abs(values.mean(axis=0) - 249.5).max() < 4 * 500 / np.sqrt(12 * 1000)
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 4 / np.sqrt(1000)


# ---- the name ----


def test_the_name_is_a_kind_of_data():
    assert "stacked" in BUILT_IN
    assert is_built_in("stacked")
    assert holds_digits("stacked")
    assert not is_built_in(None)


def test_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "stacked", 2)
    assert not is_built_in("./stacked")
    assert not holds_digits("./stacked")
    assert len(load_images("./stacked", 8, 3)) == 2
    assert len(load_images(tmp_path / "stacked", 8, 3)) == 2


def test_stacked_images_have_three_channels():
    with pytest.raises(UserError, match="stacked has images of 3 channels, not 1"):
        load_images("stacked", 28, 1)


def test_scripts_with_labels_do_not_take_them():
    with pytest.raises(UserError, match=r"--data_dir digits or --data_dir faces.*\./stacked"):
        load_digits("stacked")


# ---- scripts ----


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_draw_three_channels(name, tmp_path):
    out_dir = tmp_path / "out"
    flags = ["--group_size", 4] if name == "r3gan" else []
    run(name, *TINY, *flags, "--data_dir", "stacked", "--n_samples", 3, "--out_dir", out_dir)
    with np.load(out_dir / "samples.npz") as samples:
        pixels = samples["images"]
    assert pixels.shape == (3, 16, 16, 3)
    assert (pixels != pixels[..., :1]).any()
    args = load(name).parse_args(["--resume", str(out_dir)])
    assert args.data_dir == "stacked"
    assert args.channels == 3
    assert saved_arrays(out_dir)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_refuse_another_number_of_channels(name, fails):
    code, line = fails(load(name).main, ["--data_dir", "stacked", "--channels", 1])
    assert code == 2
    assert "3 channels" in line
