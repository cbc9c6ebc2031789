"""Images with a class: a folder for each class, digits, or faces."""

from common.data.attributes import domain_folders
from common.data.augment import NONE
from common.data.decode import check_images, fit, list_images, open_picture
from common.data.digits import load_digits
from common.data.folders import holds_digits
from common.data.items import LazyImages
from common.data.layout import existing_folder, find_split, is_built_in, not_found, split_folder
from common.errors import UserError, say

import numpy as np


def load_classes(data_dir, img_size, channels, n_classes, *, augment=NONE):
    """Training images with a class.

    A batch is images (B, channels, H, W) float32 in [-1, 1] and labels (B,) int32.

    Args:
        data_dir: a folder with one folder for each class, in `train/` if there are
            splits; the classes are numbered in the order of the folders' names. Or a
            folder of IDX files, or a built-in set, as of `load_digits`.
        img_size: the side of a square.
        channels: 1 or 3.
        n_classes: how many classes there are.
        augment: an `Augment` for images in folders.

    Raises:
        UserError: there is nothing to read, or another number of classes.
    """
    if is_built_in(data_dir) or holds_digits(data_dir):
        return load_digits(data_dir, img_size, channels, n_classes)
    root = existing_folder(data_dir)

    def look(name):
        folder = split_folder(root, name)
        return None if folder is None else domain_folders(folder)

    expected = "two or more folders, one for each class, or IDX files"
    _, folders = find_split(root, "train", look, expected)
    if len(folders) < 2:
        raise not_found(root, expected)
    if len(folders) != n_classes:
        raise UserError(
            f"{root} holds {len(folders)} folders, one for each class: give --n_classes "
            f"{len(folders)}, not {n_classes}"
        )
    files = []
    labels = []
    for k, folder in enumerate(folders):
        readable = check_images(list_images(folder), channels)
        files += readable
        labels += [k] * len(readable)
    say(f"Data (train): {len(files):,} images of {n_classes} classes from {root}.")
    return ClassFolders(files, np.array(labels, np.int32), img_size, channels, augment)


class ClassFolders(LazyImages):
    """Images of classes; items ((channels, H, W) uint8, a label).

    Args:
        files: a list of paths.
        labels: (N,) int32.
        img_size: the side of a square.
        channels: 1 or 3.
        augment: an `Augment`.
    """

    def __init__(self, files, labels, img_size, channels, augment=NONE):
        super().__init__()
        self.files = files
        self.labels = labels
        self.img_size = img_size
        self.channels = channels
        self.augment = augment

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        size = self.augment.decoded(self.img_size)
        image = open_picture(self.files[index], self.channels, at_least=size)
        pixels = fit(image, size)
        return self.augment.apply(pixels, self.img_size, seed), self.labels[index]
