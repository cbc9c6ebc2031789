"""Labelled digits in IDX files: the user's, full MNIST, or the 5,000 that are bundled here."""

from common.data import mnist
from common.data.augment import square
from common.data.decode import SUFFIXES
from common.data.items import InMemory
from common.data.layout import existing_folder, find_part, not_found
from common.errors import UserError, say

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

BUNDLED = Path(__file__).parent / "mnist5k"
IMAGES_MAGIC, LABELS_MAGIC = (
    2051,
    2049,
)  # IDX: 0x0803 is three-dimensional uint8, 0x0801 one-dimensional
LARGEST_IDX = 1 << 31  # bytes of pixels; forty times MNIST
STEMS = {"train": ("train",), "test": ("t10k", "test"), "val": ("val",)}  # of the files of a part


def load_digits(
    data_dir=None, img_size=28, channels=1, n_classes=10, download=False, split="train", n_test=0
):
    """Labelled digits, resized once: `InMemory`, images (N, channels, img_size, img_size), labels (N,) int32.

    They come from `data_dir` (a folder of IDX files, gzipped or not: MNIST, Fashion-MNIST, KMNIST, USPS); without
    it from full MNIST in Jittor's data set folder, where it lies there or `download` fetches it; else from the
    5,000 MNIST digits bundled here. One line says which.

    Args:
        n_classes: the labels must be below it; None for any.
        split: "train" or "test". Where there are no test files, the training images serve, with a warning.
        n_test: of the bundled digits, which have no test files, the last so many are the test part and leave the
            training part (they are in an order in which they hold every class equally).

    Raises:
        UserError: files are missing, damaged, or do not belong together; a label is not below `n_classes`.
    """
    folder, source = find_digits(data_dir, download)
    if folder == BUNDLED and n_test:
        part, keep = "train", slice(-n_test, None) if split == "test" else slice(None, -n_test)
    else:
        part, _ = find_part(
            folder, split, lambda part: find_idx(folder, part, required=False), idx_names("train")
        )
        keep = slice(None)
    pixels, labels = (array[keep] for array in read_digits(folder, part))
    if len(labels) == 0:
        raise UserError(f"{folder}: holds no images for the {split} part")
    if n_classes is not None and labels.max() >= n_classes:
        raise UserError(f"{folder}: holds the label {labels.max()}, but --n_classes is {n_classes}")
    say(f"Data ({split}): {len(labels):,} images from {source}.")
    return InMemory(resize_all(pixels, square(img_size), channels), labels.astype(np.int32))


def find_digits(data_dir, download):
    """The folder of the digits, and what it is, in words."""
    if data_dir is not None:
        folder = existing_folder(data_dir)
        return folder, str(folder)
    folder = mnist.mnist_folder()
    if download:
        mnist.download_mnist(folder)
    if download or all((folder / name).is_file() for name in mnist.MNIST_FILES):
        return folder, f"full MNIST in {folder}"
    return (
        BUNDLED,
        "the 5,000 bundled MNIST digits (--download fetches all 60,000, --data_dir takes your own)",
    )


def resize_all(pixels, img_size, channels):
    """(N, H, W) uint8 as (N, channels, img_size, img_size), bilinear as in the contest's code; equal channels are one
    piece of memory.
    """
    if pixels.shape[1:] != (img_size, img_size):
        resized = np.empty((len(pixels), img_size, img_size), np.uint8)
        for target, image in zip(resized, pixels):
            target[:] = Image.fromarray(image).resize((img_size, img_size), Image.BILINEAR)
        pixels = resized
    return np.broadcast_to(pixels[:, None], (len(pixels), channels, img_size, img_size))


def holds_idx(folder):
    """Whether this is a folder that holds IDX files, by their names."""
    files = folder.iterdir() if folder.is_dir() else ()
    return any("idx" in f.name and f.suffix.lower() not in SUFFIXES and f.is_file() for f in files)


def idx_names(part):
    stem = STEMS[part][0]
    return f"{stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte (.gz or not)"


def find_idx(folder, part, required=True):
    """The pair (images file, labels file) of a folder, or None if it is not there and not `required`."""
    files = [
        f
        for f in sorted(existing_folder(folder).iterdir())
        if f.name.startswith(STEMS[part]) and "idx" in f.name
    ]
    pair = [next((f for f in files if kind in f.name), None) for kind in ("images", "labels")]
    if None not in pair:
        return pair
    if required:
        raise not_found(folder, idx_names(part))
    return None


def read_digits(folder, part):
    """(N, H, W) uint8 images and (N,) uint8 labels of a folder of IDX files."""
    images_file, labels_file = find_idx(folder, part)
    images, labels = read_idx(images_file, IMAGES_MAGIC), read_idx(labels_file, LABELS_MAGIC)
    if len(images) != len(labels):
        raise UserError(
            f"{images_file} holds {len(images)} images, but {labels_file.name} {len(labels)} labels"
        )
    return images, labels


def read_idx(path, magic):
    """One IDX file, gzipped or not (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Args:
        magic: the number that the file must begin with; its last byte is the number of dimensions.

    Raises:
        UserError: another magic number, a size that does not match the header, damaged compression.
    """
    n_dims = magic & 0xFF
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = file.read(4 + 4 * n_dims)
            if len(header) < 4 + 4 * n_dims or struct.unpack(">I", header[:4])[0] != magic:
                found = int.from_bytes(header[:4], "big")
                raise UserError(
                    f"{path} is not the expected IDX file: its magic number is {found}, not {magic}"
                )
            shape = struct.unpack(f">{n_dims}I", header[4:])
            size = int(np.prod([int(s) for s in shape], dtype=object))
            if size > LARGEST_IDX:
                raise UserError(f"{path}: its header claims {size:,} bytes, more than can be read")
            data = file.read(
                size + 1
            )  # one more, to notice a file that is too long, and never a whole bomb
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if len(data) != size:
        relation = "more" if len(data) > size else "fewer"
        raise UserError(
            f"{path} holds {relation} bytes than its header says ({size:,}): it is truncated or damaged"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
