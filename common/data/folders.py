"""Folders of images: any size, any mode, decoded ahead of the training step and never all in memory."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.data.decode import BROKEN, check_images, fit, list_images, open_image, to_float, workers
from common.data.digits import load_digits
from common.errors import UserError, say, warn

AHEAD = 4  # batches that are being decoded while the model computes


class LazyImages:
    """A data set whose items are decoded when they are needed, in threads ahead of the training step.

    A subclass has `len()` and `load(index, seed)`, which gives a tuple of arrays for one item.
    """

    def batch(self, indices, seeds=None):
        seeds = [0] * len(indices) if seeds is None else seeds
        return self.stack([self.load(i, s) for i, s in zip(indices, seeds)])

    def stack(self, items):
        """Items' arrays as batches; uint8 is taken for an image."""
        columns = [np.stack(column) for column in zip(*items)]
        return tuple(to_float(column) if column.dtype == np.uint8 else column for column in columns)

    def stream(self, chunks, seeds):
        """The batches of index arrays `chunks`, in their order; `seeds` has a number for each item of the data set."""
        chunks, pending = iter(chunks), deque()
        pool = ThreadPoolExecutor(workers())

        def begin_next():
            for chunk in chunks:
                pending.append([pool.submit(self.load, i, seeds[i]) for i in chunk])
                break

        try:
            for _ in range(AHEAD):
                begin_next()
            while pending:
                items = [future.result() for future in pending.popleft()]
                begin_next()
                yield self.stack(items)
        finally:
            pool.shutdown(cancel_futures=True)


class ImageFolder(LazyImages):
    """Every image below a folder, as (channels, img_size, img_size); its middle, where it is not square.

    A file that turns out to be broken during the training is replaced by the next, with one warning.
    """

    def __init__(self, folder, img_size, channels):
        self.files = check_images(list_images(folder), channels)
        self.img_size, self.channels = img_size, channels
        self.known_broken = set()

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=None):
        for i in range(index, index + len(self)):
            path = self.files[i % len(self)]
            try:
                return (fit(open_image(path, self.channels, self.img_size), self.img_size),)
            except BROKEN as error:
                if path not in self.known_broken:
                    self.known_broken.add(path)
                    warn(f"{path} cannot be read ({error}); the next image takes its place")
        raise UserError("none of the images can be read any more")


def holds_digits(data_dir):
    """Whether `load_images` reads labelled digits: from IDX files in `data_dir`, or because there is no `data_dir`."""
    folder = Path(data_dir).expanduser() if data_dir is not None else None
    return folder is None or (folder.is_dir() and any("idx" in f.name for f in folder.iterdir() if f.is_file()))


def load_images(data_dir, img_size, channels, download=False, split="train", n_test=0):
    """Images for a model without labels: (B, channels, img_size, img_size) first in each batch.

    `data_dir` may hold IDX files (their labels come second in a batch) or images, in subfolders too; a `train` and a
    `test` or `val` folder in it are taken for their parts. Without it, the digits of `load_digits`.

    Raises:
        UserError: there is nothing to read, or too much of it is broken.
    """
    if holds_digits(data_dir):
        return load_digits(data_dir, img_size, channels, download=download, split=split, n_test=n_test, n_classes=256)
    folder = Path(data_dir).expanduser()
    names = {"train": ["train"], "test": ["test", "val"]}[split]
    part = next((name for name in names if (folder / name).is_dir()), None)
    if part is None and split == "test":
        warn(f"{folder} has no test/ or val/: the test part is of training images")
        part = "train" if (folder / "train").is_dir() else None
    folder = folder / part if part else folder
    data = ImageFolder(folder, img_size, channels)
    say(f"Data ({split}): {len(data):,} images from {folder}.")
    return data
