"""common/data/stacked.py and the scripts that take --stacked: what lies in the channels, and whose order it is."""

import common
from common.data import load_images
from common.data.stacked import Stacked

import numpy as np
import pytest
from registry import load, run, saved_arrays

SCRIPTS = ["began", "dcgan", "wgan_gp"]
TINY = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, "--n_epochs", 1]


@pytest.fixture
def stacked(idx_folder):
    return load_images(idx_folder, 28, 3, stacked=True)


def test_channels_are_digits_of_the_data_and_the_label_names_them(stacked, idx_folder):
    digits = load_images(idx_folder, 28, 1)
    images, labels = stacked.batch(np.arange(40), np.arange(40) * 977 + 5)
    assert (images.shape, images.dtype, labels.dtype, len(stacked)) == (
        (40, 3, 28, 28),
        np.float32,
        np.int32,
        40,
    )
    known = {image.tobytes(): label for image, label in zip(*digits.batch(np.arange(40)))}
    for image, label in zip(images, labels):
        a, b, c = (known[channel.tobytes()] for channel in image)
        assert label == 100 * a + 10 * b + c


def test_digits_meet_anew_in_every_epoch_and_the_seed_decides():
    class Numbers:
        """Digit i is an image of the number i."""

        def __len__(self):
            return 500

        def batch(self, indices, seeds=None):
            return np.float32(indices).reshape(-1, 1, 1, 1), np.asarray(indices) % 10

    def epochs(seed):
        batches = common.Batches(Stacked(Numbers()), 50, seed)
        return [np.concatenate([images[:, :, 0, 0] for images, _ in batches]) for _ in range(2)]

    first, second = epochs(3)
    assert np.array_equal(first, epochs(3)[0]) and not np.array_equal(first, epochs(4)[0])
    assert sorted(first[:, 0]) == sorted(second[:, 0]) == list(range(500))
    others = {
        epoch: dict(zip(rows[:, 0], map(tuple, rows[:, 1:])))
        for epoch, rows in enumerate((first, second))
    }
    assert np.mean([others[0][i] == others[1][i] for i in range(500)]) < 0.02
    # each of the others is uniform, and they do not hang together: all correlations within 4 standard errors of 0
    rows = np.concatenate([first, second])
    assert np.abs(rows.mean(0) - 249.5).max() < 4 * 500 / np.sqrt(12 * 1000)
    assert np.abs(np.corrcoef(rows.T) - np.eye(3)).max() < 4 / np.sqrt(1000)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_draw_three_channels(name, idx_folder, tmp_path):
    run(name, *TINY, "--stacked", "--data_dir", idx_folder, "--n_samples", 3, "--out_dir", tmp_path)
    with np.load(tmp_path / "samples.npz") as samples:
        images = samples["images"]
    assert images.shape == (3, 16, 16, 3)
    assert (images != images[..., :1]).any()
    args = load(name).parse_args(["--resume", str(tmp_path)])
    assert (args.stacked, args.channels) == (True, 3)
    assert saved_arrays(tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_folder_of_photographs_cannot_be_stacked(name, fails, tmp_path):
    (tmp_path / "photos").mkdir()
    code, line = fails(
        load(name).main,
        ["--stacked", "--data_dir", tmp_path / "photos", "--out_dir", tmp_path / "out"],
    )
    assert code == 2
    assert "holds no IDX files of digits" in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_stacked_images_have_three_channels(name, fails):
    code, line = fails(load(name).main, ["--stacked", "--channels", "1"])
    assert code == 2
    assert "3 channels" in line
