"""The smallest runs of the scripts, a few steps each, for what must hold whatever the model."""

import importlib

import numpy as np
from conftest import write_idx_folder
from PIL import Image

FLAGS = {  # 2 epochs of 4 steps
    "cgan_mnist": ["--img_size", 8, "--batch_size", 10],
    "dcgan": ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10],
    "wgan_gp": ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, "--n_critic", 2],
    "vae": ["--img_size", 8, "--hidden", 7, "--latent_dim", 3, "--batch_size", 10],
    "pix2pix": ["--img_size", 32, "--width", 4, "--batch_size", 2],
    "cyclegan": ["--img_size", 32, "--width", 4, "--n_blocks", 1, "--pool_size", 3, "--batch_size", 2],
    "stargan": ["--img_size", 32, "--width", 4, "--n_blocks", 1, "--n_critic", 2, "--batch_size", 2],
}
SHARED = ["--n_epochs", 2, "--sample_interval", 4, "--log_interval", 2, "--checkpoint_interval", 1]


def digits(folder):
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        write_idx_folder(folder, rng.integers(256, size=(40, 28, 28), dtype=np.uint8), labels, split)


def images(folder, n, size=(32, 32), seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(256, size=(*size[::-1], 3), dtype=np.uint8)).save(folder / f"{i}.png")


def pairs(folder):
    images(folder / "train", 8, size=(64, 32))
    images(folder / "val", 2, size=(64, 32), seed=1)


def domains(folder):
    images(folder / "trainA", 8)
    images(folder / "trainB", 5, size=(40, 30), seed=1)
    images(folder / "testA", 3, seed=2)
    images(folder / "testB", 2, seed=3)


def folders(folder):
    for k, name in enumerate(("bright", "dark", "old")):
        images(folder / name, 3 - k % 2, seed=k)


DATA = {"pix2pix": pairs, "cyclegan": domains, "stargan": folders}


def make_data(name, folder):
    """A small data set of the script's kind."""
    DATA.get(name, digits)(folder)
    return folder


def run(name, *argv):
    return importlib.import_module(name).main([str(a) for a in argv])


def saved_arrays(folder):
    """Everything in a run's last checkpoint but its text."""
    with np.load(folder / "checkpoint_last.npz") as file:
        return {key: file[key] for key in file.files if key != "meta"}


def differences(one, other):
    """Names of the arrays that differ between the checkpoints of two runs, in any bit."""
    one, other = saved_arrays(one), saved_arrays(other)
    return sorted(one.keys() ^ other.keys()) + [key for key in one if not np.array_equal(one[key], other.get(key))]
