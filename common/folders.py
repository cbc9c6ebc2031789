"""Folders of images: any size, any mode, decoded ahead of the training step and never all in memory."""

import os
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.datasets import load_digits, say, to_float, warn
from common.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST_IMAGE = 100_000_000  # pixels; beyond it lie decompression bombs, not photographs
DECODE_ALL = 5000  # folders up to this size are decoded once at the start, larger ones have their headers checked
AHEAD = 4  # batches that are being decoded while the model computes
BROKEN = (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)


def list_images(folder):
    """All images below a folder, sorted by path.

    Raises:
        UserError: it is no folder, or holds no image.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder.absolute()} is not a folder")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        names = ", ".join(sorted(f.name for f in folder.iterdir())[:5]) or "nothing"
        raise UserError(f"{folder.absolute()} holds no {', '.join(s[1:] for s in SUFFIXES)} images; found: {names}")
    return files


def open_image(path, channels, at_least=None):
    """One image as a Pillow image of mode "L" (channels 1) or "RGB" (3), upright, on white where it is transparent.

    Args:
        at_least: a JPEG may be decoded at a fraction of its size, but both sides at least so many pixels.

    Raises:
        one of BROKEN: the file is damaged, empty, or larger than LARGEST_IMAGE.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warning of large images; they are refused below
        with Image.open(path) as image:
            if not 0 < image.width * image.height <= LARGEST_IMAGE:
                raise ValueError(f"{image.width} x {image.height} pixels")
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits, which convert() would cut off at 255
        image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def fit(image, img_size):
    """A Pillow image scaled to a shorter side of `img_size`, its middle cut out: (C, img_size, img_size) uint8."""
    image = ImageOps.fit(image, (img_size, img_size), Image.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def check_images(files, channels=3):
    """The files that can be read; one warning names the others.

    Raises:
        UserError: more than one in a hundred is broken.
    """

    def problem(path):
        try:
            if len(files) <= DECODE_ALL:
                open_image(path, channels, at_least=1)
            else:
                with Image.open(path):
                    pass
        except BROKEN as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(workers()) as pool:
        problems = list(pool.map(problem, files))
    broken = [file for file, found in zip(files, problems) if found]
    if not broken:
        return files
    names = ", ".join(str(f) for f in broken[:10]) + (", ..." if len(broken) > 10 else "")
    if len(broken) > max(len(files) // 100, 2):
        raise UserError(f"{len(broken)} of {len(files)} images cannot be read: {names}")
    warn(f"skipping {len(broken)} of {len(files)} images that cannot be read: {names}")
    return [file for file, found in zip(files, problems) if not found]


def workers():
    return min(8, os.cpu_count() or 1)


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


def load_images(data_dir, img_size, channels, download=False, split="train", n_test=0):
    """Images for a model without labels: (B, channels, img_size, img_size) first in each batch.

    `data_dir` may hold IDX files (their labels come second in a batch) or images, in subfolders too; a `train` and a
    `test` or `val` folder in it are taken for their parts. Without it, the digits of `load_digits`.

    Raises:
        UserError: there is nothing to read, or too much of it is broken.
    """
    folder = Path(data_dir).expanduser() if data_dir is not None else None
    if folder is None or (folder.is_dir() and any("idx" in f.name for f in folder.iterdir() if f.is_file())):
        return load_digits(data_dir, img_size, channels, download=download, split=split, n_test=n_test, n_classes=256)
    names = {"train": ["train"], "test": ["test", "val"]}[split]
    part = next((name for name in names if (folder / name).is_dir()), None)
    if part is None and split == "test":
        warn(f"{folder} has no test/ or val/: the test part is of training images")
        part = "train" if (folder / "train").is_dir() else None
    folder = folder / part if part else folder
    data = ImageFolder(folder, img_size, channels)
    say(f"Data ({split}): {len(data):,} images from {folder}.")
    return data
