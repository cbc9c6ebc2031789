"""Folders of images: any size, any mode, decoded ahead of the training step and never all in memory."""

from common.data.augment import NONE
from common.data.decode import check_images, fit, list_images, open_picture
from common.data.digits import holds_idx, load_digits
from common.data.items import LazyImages
from common.data.layout import existing_folder, find_part, part_folder
from common.data.stacked import Stacked
from common.errors import UserError, say

from pathlib import Path


class ImageFolder(LazyImages):
    """Every image below a folder, as (channels, H, W) uint8; its middle, where its shape is another.

    Args:
        img_size: a number, or (height, width).
        augment: an `Augment`.
    """

    def __init__(self, folder, img_size, channels, augment=NONE):
        super().__init__()
        self.files = check_images(list_images(folder), channels)
        self.img_size, self.channels, self.augment = img_size, channels, augment

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        size = self.augment.decoded(self.img_size)
        pixels = fit(open_picture(self.files[index], self.channels, at_least=size), size)
        return (self.augment.apply(pixels, self.img_size, seed),)


def holds_digits(data_dir):
    """Whether `load_images` reads labelled digits: from IDX files in `data_dir`, or because there is no `data_dir`."""
    return data_dir is None or holds_idx(Path(data_dir).expanduser())


def load_images(
    data_dir,
    img_size,
    channels,
    download=False,
    split="train",
    n_test=0,
    augment=NONE,
    stacked=False,
):
    """Images for a model without labels: (B, channels, img_size, img_size) first in each batch.

    Args:
        data_dir: a folder of IDX files (their labels come second in a batch) or of images, in subfolders too; a `train`
            and a `test` or `val` folder in it are taken for their parts. None for the digits of `load_digits`.
        download, n_test: of `load_digits`.
        img_size: a number, or (height, width), which digits have as a square alone.
        split: "train" or "test". Where there is no test part, training images serve, with a warning.
        augment: an `Augment`, of images but never of digits.
        stacked: three digits as the channels of one image, see `Stacked`; `channels` is 3.

    Raises:
        UserError: there is nothing to read, or too much of it is broken.
    """
    if holds_digits(data_dir):
        n_classes, channels = (10, 1) if stacked else (None, channels)
        digits = load_digits(data_dir, img_size, channels, n_classes, download, split, n_test)
        return Stacked(digits) if stacked else digits
    if stacked:
        raise UserError(
            f"{data_dir} holds no IDX files of digits, of which --stacked makes its images"
        )
    root = existing_folder(data_dir)
    _, folder = find_part(
        root, split, lambda name: part_folder(root, name), "train/ beside test/ or val/"
    )
    data = ImageFolder(folder, img_size, channels, augment)
    say(f"Data ({split}): {len(data):,} images from {folder}.")
    return data
