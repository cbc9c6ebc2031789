"""Pairs of images of the same scene: pix2pix's layout, two folders, or built in."""

from common.data.augment import NONE, square
from common.data.decode import check_images, fit, list_images, open_picture, size_of
from common.data.faces import SOURCE, face_pairs
from common.data.items import LazyImages
from common.data.layout import built_in, existing_folder, find_split, two_folders
from common.data.toy.drawn import bundled_digits, draw_outlines
from common.errors import UserError, say

import numpy as np
from PIL import Image

# Bytes of decoded pairs that are kept in memory. A larger data set is decoded again in
# every epoch.
KEEP = 512 << 20
N_STAND_IN = 100  # training pairs that are used instead of a missing test split


def load_pairs(data_dir, img_size, channels, direction="AtoB", split="train", augment=NONE):
    """Pairs of images for a translator.

    A batch is inputs (B, C, H, W) and targets (B, C, H, W), float32 in [-1, 1].

    Args:
        data_dir: a folder with `train/` and `val/` (or `test/`) of side-by-side images,
            A on the left; or with folders `trainA/ trainB/ valA/ valB/`, or `train/A`,
            `train/B` and so on, or `A/train`, `B/train` and so on, in which the two
            files of a pair have the same name, whatever its suffix. "faces" for the
            built-in faces: grey ones are A, those in colour B. "digits" or None for
            drawn digits: outlines are A, paintings B.
        img_size: the side of a square or (height, width). Built-in images are square.
        channels: of all images, or (of inputs, of targets): 1 or 3; for arrays in
            `.npy` files, any number.
        direction: "AtoB"; "BtoA" makes B the input.
        split: "train", or "val" or "test" for the pairs that are not trained on. If
            there are none, the first N_STAND_IN training pairs are used instead, with a
            warning.
        augment: an `Augment`, the same for both images of a pair; digits are never
            augmented.

    Raises:
        UserError: a split is missing or empty, an image has no partner, the sizes of a
            pair differ, or the width of a side-by-side image is odd.
    """
    channels = (channels, channels) if isinstance(channels, int) else tuple(channels)
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        source = SOURCE
        data = face_pairs(img_size, channels, direction, split, augment)
    elif word == "digits":
        source = "the bundled digits, drawn"
        data = DrawnPairs(square(img_size), channels, direction, split)
    else:
        channels_AB = channels if direction == "AtoB" else channels[::-1]
        files, source = find_pairs(existing_folder(data_dir), split, channels_AB)
        data = Pairs(files, img_size, channels_AB, direction, augment)
    say(f"Data ({split}): {len(data):,} pairs from {source}.")
    return data


# ---- finding pairs ----


def find_pairs(root, split, channels):
    """The pairs of a split.

    Args:
        channels: of A and of B.

    Returns:
        A list of (file of A, file of B), or (file, None) for side-by-side images; and
        the folder where they lie.
    """

    def look(name):
        folders = two_folders(root, name)
        if folders is None and (root / name).is_dir():
            folders = (root / name,)
        return folders

    expected = "train/ (side-by-side images), or trainA/ and trainB/"
    found, folders = find_split(root, split, look, expected)
    if len(folders) == 2:
        pairs = match(*folders, channels)
    else:
        pairs = halves(folders[0], channels)
    if found == "train" and split != "train":
        pairs = pairs[:N_STAND_IN]
    return pairs, folders[0]


def halves(folder, channels):
    """(file, None) for every image, with A in its left half and B in its right half.

    Raises:
        UserError: a width is odd.
    """
    files = list_images(folder)
    for count in sorted(set(channels)):
        files = check_images(files, count)
    for file in files:
        width, height = size_of(file)
        if width % 2:
            raise UserError(
                f"{file}: {width} x {height} pixels cannot be halved into A and B; "
                "the width must be even"
            )
    return [(file, None) for file in files]


def match(folder_A, folder_B, channels):
    """As `match_names`, for pairs of equal size.

    Raises:
        UserError: the sizes of a pair differ.
    """
    pairs = match_names(folder_A, folder_B, channels)
    for a, b in pairs:
        width_A, height_A = size_of(a)
        width_B, height_B = size_of(b)
        if (width_A, height_A) != (width_B, height_B):
            raise UserError(
                f"{a} and {b} are a pair, but their sizes differ: "
                f"{width_A} x {height_A} and {width_B} x {height_B}"
            )
    return pairs


def match_names(folder_A, folder_B, channels):
    """(file of A, file of B) for all names; the suffixes may differ.

    Pairs with a file that cannot be read are left out, with a warning.

    Args:
        channels: of A and of B, as of `check_images`.

    Raises:
        UserError: a file has no partner.
    """
    named_A = by_name(folder_A)
    named_B = by_name(folder_B)
    check_partners(named_A, named_B, folder_B)
    check_partners(named_B, named_A, folder_A)
    readable = set(check_images(list(named_A.values()), channels[0]))
    readable.update(check_images(list(named_B.values()), channels[1]))
    pairs = [(named_A[name], named_B[name]) for name in named_A]
    return [pair for pair in pairs if readable.issuperset(pair)]


def check_partners(named, others, folder):
    """Refuses names that are not among those of the other folder.

    Args:
        named, others: {name: file} of `by_name`.
        folder: that of the others.
    """
    missing = [str(file) for name, file in named.items() if name not in others]
    if missing:
        listed = ", ".join(missing[:5])
        if len(missing) > 5:
            listed += ", ..."
        raise UserError(f"{len(missing)} images have no partner in {folder}: {listed}")


def by_name(folder):
    """{path in the folder without its suffix: file} for the images of a folder.

    Raises:
        UserError: two files differ only in their suffix.
    """
    named = {}
    for file in list_images(folder):
        name = file.relative_to(folder).with_suffix("")
        if name in named:
            raise UserError(
                f"{named[name]} and {file.name} have the same name; "
                "pairs are matched by it, so one of them must go"
            )
        named[name] = file
    return named


# ---- data sets ----


class PairsOfFiles(LazyImages):
    """Items of two files, as two arrays (..., H, W).

    A subclass has `decode(file, other)`, which returns both arrays of an item.

    Args:
        files: a list of (file, other file).
        img_size: of the items, the side of a square or (height, width).
        augment: an `Augment`, the same for both arrays.

    Attributes:
        decoded: (height, width) of the arrays of `decode`; larger than the items, if
            these are random crops.
    """

    def __init__(self, files, img_size, augment):
        super().__init__()
        self.files = files
        self.img_size = img_size
        self.augment = augment
        self.decoded = augment.decoded(img_size)
        self.kept = {}  # decoded arrays, by index

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        arrays = self.kept.get(index)
        if arrays is None:
            arrays = self.decode(*self.files[index])
            n_bytes = sum(array.nbytes for array in arrays)
            if len(self) * n_bytes <= KEEP:  # the whole data set fits
                self.kept[index] = arrays
        return tuple(self.augment.apply(array, self.img_size, seed) for array in arrays)


class Pairs(PairsOfFiles):
    """The pairs of `find_pairs`: items (input, target), both (C, H, W) as of `fit`.

    Images of another shape are scaled until they cover it, and their centre is cropped.

    Args:
        channels: of A and of B.
        direction: "AtoB" or "BtoA".
    """

    def __init__(self, files, img_size, channels, direction, augment):
        super().__init__(files, img_size, augment)
        self.channels = channels
        self.direction = direction

    def load(self, index, seed=0):
        a, b = super().load(index, seed)
        return (a, b) if self.direction == "AtoB" else (b, a)

    def decode(self, file_A, file_B):
        """A and B as arrays; `file_B` is None if both are in `file_A`, side by side."""
        a = open_picture(file_A, self.channels[0])
        b = open_picture(file_B or file_A, self.channels[1])
        if file_B is None:
            half = a.width // 2
            a = a.crop((0, 0, half, a.height))
            b = b.crop((half, 0, b.width, b.height))
        return fit(a, self.decoded), fit(b, self.decoded)


class DrawnPairs(LazyImages):
    """Outlines of the bundled digits and their paintings, drawn when needed.

    They are those of `drawn.outline_pairs`.

    Args:
        img_size: the side S of the images.
        channels: (of inputs, of targets), 1 or 3.
        direction: "AtoB", from outlines to paintings, or "BtoA".
        split: "train"; "val" and "test" are the same split.
    """

    def __init__(self, img_size, channels, direction, split):
        super().__init__()
        if not set(channels) <= {1, 3}:
            raise UserError(
                f"the drawn digits have 1 or 3 channels, not {channels[0]} and {channels[1]}"
            )
        self.pixels, self.labels = bundled_digits(split)
        self.img_size = img_size
        self.channels = channels
        self.direction = direction

    def __len__(self):
        return len(self.labels)

    def load(self, index, seed=0):
        pixels = self.pixels[[index]]
        labels = self.labels[[index]]
        outlines, paintings = draw_outlines(pixels, labels, self.img_size)
        pair = [outlines[0], paintings[0]]
        if self.direction == "BtoA":
            pair.reverse()
        return tuple(grey(x) if n == 1 else x for x, n in zip(pair, self.channels))


def grey(pixels):
    """(3, H, W) uint8 as (1, H, W), by Pillow's weights of red, green and blue."""
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    return np.asarray(image.convert("L"))[None]


def distances(draw, data, batch_size):
    """How far translations are from their targets, over all pairs of a data set.

    Args:
        draw: a function of inputs (N, C, H, W) and of the index of the first one, that
            returns their translations.
        data: a data set of (input, target).
        batch_size: of the inputs.

    Returns:
        {"val_L1": the mean |y - G(x)| for values in [-1, 1], "val_PSNR": the mean of
        the images' PSNR in dB}.
    """
    l1 = []
    psnr = []
    for first in range(0, len(data), batch_size):
        end = min(first + batch_size, len(data))
        inputs, targets = data.batch(np.arange(first, end))
        difference = draw(inputs, first) - targets
        l1.extend(np.abs(difference).mean((1, 2, 3)))
        mse = np.maximum((difference**2).mean((1, 2, 3)), 1e-10)
        psnr.extend(10 * np.log10(4 / mse))  # the values' range is 2, its square 4
    return {"val_L1": float(np.mean(l1)), "val_PSNR": float(np.mean(psnr))}
