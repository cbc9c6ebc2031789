"""Labelled images: IDX files, full MNIST, 5,000 bundled digits, or built-in faces."""

from common.data import mnist
from common.data.augment import square
from common.data.decode import SUFFIXES
from common.data.faces import load_faces
from common.data.files import check_regular, is_data
from common.data.items import InMemory
from common.data.layout import built_in, existing_folder, find_split, not_found
from common.errors import UserError, say

import gzip
import math
import os
import struct
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

BUNDLED = Path(__file__).parent / "mnist5k"
IMAGES_MAGIC = 2051  # 0x0803: uint8, three dimensions
LABELS_MAGIC = 2049  # 0x0801: uint8, one dimension
LARGEST_IDX = 1 << 31  # bytes of pixels; forty times MNIST
MOST_UNPACKED = 1100  # bytes that a byte of a gzipped file can become
LARGEST_RESIZED = 1 << 33  # bytes of pixels at the size of the images
STEMS = {"train": ("train",), "test": ("t10k", "test"), "val": ("val",)}  # of file names


def load_digits(data_dir=None, img_size=28, channels=1, n_classes=10, *, split="train", n_test=0):
    """Labelled images, such as digits, resized once and kept in memory.

    Args:
        data_dir: a folder of IDX files, gzipped or not (MNIST, Fashion-MNIST, KMNIST,
            USPS). "digits" or None for full MNIST, if it lies in Jittor's data folder,
            and otherwise the 5,000 bundled digits. "faces" for the built-in faces,
            whose labels are the colour of their hair.
        img_size: the side S of the square images.
        channels: 1, or 3 for three equal channels.
        n_classes: the labels must be below it (None: any labels).
        split: "train" or "test". Without test files the training images are used
            instead, with a warning.
        n_test: the number of bundled digits or faces in the test split, since the sets
            have no test files. They are the last ones. Any ten neighbours among the
            digits hold every digit once, so both splits hold all equally often.

    Returns:
        A `Digits` data set: images (N, channels, S, S) uint8, labels (N,) int32.

    Raises:
        UserError: files are missing, damaged, or do not belong together; a label is not
            below `n_classes`; `data_dir` is a built-in set without such labels.
    """
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        data = load_faces(img_size, channels, split, n_test)
        check_labels(data.labels, n_classes, "the built-in faces")
        return data
    folder, source = find_digits(None if word == "digits" else data_dir)
    pixels, labels = read_split(folder, split, n_test)
    if len(labels) == 0:
        raise UserError(f"{folder}: holds no images for the {split} split")
    check_labels(labels, n_classes, folder)
    say(f"Data ({split}): {len(labels):,} images from {source}.")
    side = square(img_size)
    check_memory(pixels, side)
    return Digits(pixels, labels.astype(np.int32), side, channels)


class Digits(InMemory):
    """Digits that are resized when their images are first used.

    A run compares its networks with those of its checkpoint before that: the arguments
    of a stranger's checkpoint could ask for gigabytes of pixels.

    Attributes:
        images: (N, channels, img_size, img_size) uint8, as of `resize_all`.
    """

    def __init__(self, pixels, labels, img_size, channels):
        self.pixels = pixels
        self.labels = labels
        self.img_size = img_size
        self.channels = channels

    def __len__(self):
        return len(self.labels)

    @cached_property
    def images(self):
        return resize_all(self.pixels, self.img_size, self.channels)


def check_labels(labels, n_classes, source):
    """Refuses labels that are not below `n_classes`, if that is not None."""
    if n_classes is not None and labels.max() >= n_classes:
        raise UserError(f"{source}: holds the label {labels.max()}, but --n_classes is {n_classes}")


def find_digits(data_dir):
    """The folder of the digits, and a description of it in words."""
    if data_dir is not None:
        folder = existing_folder(data_dir)
        return folder, str(folder)
    folder = mnist.mnist_folder()
    if all((folder / name).is_file() for name in mnist.MNIST_FILES):
        return folder, f"full MNIST in {folder}"
    source = "the 5,000 bundled MNIST digits"
    return BUNDLED, f"{source} (--download fetches all 60,000, --data_dir takes your own)"


def read_split(folder, split, n_test):
    """(N, H, W) uint8 images and (N,) uint8 labels of a split.

    Args:
        n_test: as of `load_digits`.
    """
    if folder == BUNDLED and n_test:
        pixels, labels = read_digits(folder, "train")
        keep = slice(-n_test, None) if split == "test" else slice(None, -n_test)
        return pixels[keep], labels[keep]
    found, _ = find_split(
        folder,
        split,
        lambda name: find_idx(folder, name, required=False),
        expected=idx_names("train"),
    )
    return read_digits(folder, found)


def check_memory(pixels, img_size):
    """Refuses a size of the images that the digits cannot have in memory."""
    n_bytes = len(pixels) * img_size * img_size
    if n_bytes > LARGEST_RESIZED:
        raise UserError(
            f"{len(pixels):,} images of {img_size} x {img_size} would take {n_bytes:,} bytes of "
            f"memory, and at most {LARGEST_RESIZED:,} are used: lower --img_size"
        )


def resize_all(pixels, img_size, channels):
    """Resizes digits bilinearly, as the contest's code does.

    Args:
        pixels: (N, H, W) uint8.
        img_size: S.
        channels: C.

    Returns:
        (N, C, S, S) uint8. The channels are equal, and share their memory.
    """
    if pixels.shape[1:] != (img_size, img_size):
        resized = np.empty((len(pixels), img_size, img_size), np.uint8)
        for target, image in zip(resized, pixels):
            target[:] = Image.fromarray(image).resize((img_size, img_size), Image.BILINEAR)
        pixels = resized
    return np.broadcast_to(pixels[:, None], (len(pixels), channels, img_size, img_size))


# ---- IDX files ----


def holds_idx(folder):
    """Whether this is a folder with IDX files, by their names."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return False
    for name in names:
        is_named = "idx" in name and is_data(name)
        if is_named and Path(name).suffix.lower() not in SUFFIXES and (folder / name).is_file():
            return True
    return False


def idx_names(split):
    """The usual file names of a split, in words."""
    stem = STEMS[split][0]
    return f"{stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte (.gz or not)"


def find_idx(folder, split, required=True):
    """Finds the IDX files of a split.

    Returns:
        (images file, labels file); None if one is missing and they are not `required`.

    Raises:
        UserError: one is missing and they are `required`.
    """
    images = None
    labels = None
    for file in sorted(existing_folder(folder).iterdir()):
        if not file.name.startswith(STEMS[split]) or "idx" not in file.name:
            continue
        if not file.is_file():
            continue
        if "images" in file.name and images is None:
            images = file
        if "labels" in file.name and labels is None:
            labels = file
    if images is not None and labels is not None:
        return images, labels
    if required:
        raise not_found(folder, idx_names(split))
    return None


def read_digits(folder, split):
    """(N, H, W) uint8 images and (N,) uint8 labels of a folder of IDX files.

    Raises:
        UserError: files are missing or damaged, or their lengths differ.
    """
    images_file, labels_file = find_idx(folder, split)
    images = read_idx(images_file, IMAGES_MAGIC)
    labels = read_idx(labels_file, LABELS_MAGIC)
    if len(images) != len(labels):
        raise UserError(
            f"{images_file} holds {len(images)} images, but {labels_file.name} {len(labels)} labels"
        )
    return images, labels


def read_idx(path, magic):
    """One IDX file, gzipped or not.

    The format is described at http://yann.lecun.com/exdb/mnist ("the IDX file format").

    Args:
        magic: the magic number that the file must begin with; its last byte is the
            number of dimensions.

    Returns:
        A uint8 array.

    Raises:
        UserError: another magic number, a size that does not match the header, or
            damaged compression.
    """
    try:
        n_bytes = check_regular(path)
        with open(path, "rb") as file:
            is_gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzipped else open(path, "rb") as file:
            shape = read_idx_header(file, path, magic)
            size = math.prod(shape)
            if size > LARGEST_IDX:
                raise UserError(f"{path}: its header claims {size:,} bytes, more than can be read")
            # Memory for no more than the file can hold. One byte more shows a file that
            # is too long, without unpacking all of a gzip bomb.
            most = n_bytes * MOST_UNPACKED if is_gzipped else n_bytes
            data = file.read(min(size, most) + 1)
    except UserError:
        raise
    except Exception as error:  # whatever gzip and zlib raise for a damaged file
        raise UserError(f"{path} cannot be read: {error or type(error).__name__}") from error
    if len(data) != size:
        relation = "more" if len(data) > size else "fewer"
        raise UserError(
            f"{path} holds {relation} bytes than its header says ({size:,}): "
            "it is truncated or damaged"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_idx_header(file, path, magic):
    """The shape in the header of an open IDX file, as a tuple of integers."""
    n_dims = magic & 0xFF
    header = file.read(4 + 4 * n_dims)
    found = int.from_bytes(header[:4], "big")
    if len(header) < 4 + 4 * n_dims or found != magic:
        raise UserError(
            f"{path} is not the expected IDX file: its magic number is {found}, not {magic}"
        )
    shape = struct.unpack(f">{n_dims}I", header[4:])
    if 0 in shape[1:]:
        raise UserError(f"{path}: its header claims images of {shape[2]} x {shape[1]} pixels")
    return shape
