"""Images for models without labels: a folder of any images, digits, or faces."""

from common.data.augment import NONE
from common.data.decode import check_images, fit, list_images, open_picture
from common.data.digits import holds_idx, load_digits
from common.data.faces import SOURCE, AugmentedFaces, grey, load_faces, read_faces
from common.data.items import LazyImages
from common.data.layout import built_in, existing_folder, expanded, find_split, split_folder
from common.data.toy.stacked import Stacked
from common.errors import UserError, say

# Of a folder without a test split, so many training images are used instead of it.
N_STAND_IN = 100
N_TEST = 500  # bundled digits and faces in the test split


class ImageFolder(LazyImages):
    """All images below a folder; items ((channels, H, W) uint8,).

    Images of another shape are scaled until they cover it, and their centre is cropped.
    They are decoded ahead of the training step, and never all in memory.

    Args:
        folder: a path.
        img_size: the side of a square or (height, width).
        channels: 1 or 3; for arrays in `.npy` files, any number.
        augment: an `Augment`.
    """

    def __init__(self, folder, img_size, channels, augment=NONE):
        super().__init__()
        self.files = check_images(list_images(folder), channels)
        self.img_size = img_size
        self.channels = channels
        self.augment = augment

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        size = self.augment.decoded(self.img_size)
        image = open_picture(self.files[index], self.channels, at_least=size)
        pixels = fit(image, size)
        return (self.augment.apply(pixels, self.img_size, seed),)


def holds_digits(data_dir):
    """Whether `load_images` gives digits: the default, stacked digits, or IDX files."""
    word = built_in(data_dir)
    if word is not None:
        return word in ("digits", "stacked")
    return holds_idx(expanded(data_dir))


def load_images(data_dir, img_size, channels, *, split="train", n_test=0, augment=NONE):
    """Images for a model without labels.

    A batch is images (B, channels, H, W) float32 in [-1, 1]; built-in images and IDX
    files have labels (B,) int32 after them.

    Args:
        data_dir: a folder of images, in subfolders too, or of IDX files. Folders
            `train` and `test` (or `val`) in it are its splits. "stacked" for images of
            three digits (`Stacked`), "faces" for the built-in faces, "digits" or None
            for the digits of `load_digits`.
        img_size: the side of a square or (height, width). Built-in images are square.
        channels: 1 or 3; "stacked" has 3.
        split: "train" or "test". Without a test split the training images are used
            instead, with a warning.
        n_test: as of `load_digits`.
        augment: an `Augment` for images in folders.

    Raises:
        UserError: there is nothing to read, too many files are broken, or a built-in
            set does not have that many channels.
    """
    word = built_in(data_dir)
    if word == "stacked":
        if channels != 3:
            raise UserError(f"--data_dir stacked has images of 3 channels, not {channels}")
        return Stacked(load_digits(None, img_size, channels=1, split=split, n_test=n_test))
    if word == "faces":
        return load_faces(img_size, channels, split, n_test)
    if holds_digits(data_dir):
        return load_digits(data_dir, img_size, channels, n_classes=None, split=split, n_test=n_test)
    root = existing_folder(data_dir)
    _, folder = find_split(
        root,
        split,
        lambda name: split_folder(root, name),
        expected="train/ beside test/ or val/",
    )
    data = ImageFolder(folder, img_size, channels, augment)
    say(f"Data ({split}): {len(data):,} images from {folder}.")
    return data


def load_originals(data_dir, img_size, channels, *, split="train", augment=NONE):
    """Images for a model that learns to restore them, with unseen ones to test it on.

    Args:
        data_dir: a folder as of `load_images`; "faces" for the built-in faces, "digits"
            or None for the digits of `load_digits`. Of bundled digits and faces the
            last N_TEST are the test split.
        img_size: the side of a square or (height, width). Built-in images are square.
        channels: 1 or 3.
        split: "train", or "val" or "test". Without a test split the first N_STAND_IN
            training images are used instead, with a warning.
        augment: an `Augment` for faces and images in folders. Digits are never
            augmented.

    Returns:
        A data set whose items have the image (C, H, W) first.
    """
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        pixels = read_faces(split, N_TEST).pixels
        if channels == 1:
            pixels = grey(pixels)
        data = AugmentedFaces((pixels,), img_size, augment)
        say(f"Data ({split}): {len(data):,} images from {SOURCE}.")
        return data
    if holds_digits(data_dir):
        part = "train" if split == "train" else "test"
        return load_images(data_dir, img_size, channels, split=part, n_test=N_TEST)
    root = existing_folder(data_dir)
    found, folder = find_split(
        root,
        split,
        lambda name: split_folder(root, name),
        expected="train/ beside test/ or val/",
    )
    data = ImageFolder(folder, img_size, channels, augment)
    if found == "train" and split != "train":
        data.files = data.files[:N_STAND_IN]
    say(f"Data ({split}): {len(data):,} images from {folder}.")
    return data
