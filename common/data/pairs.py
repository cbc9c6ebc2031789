"""Images in pairs, A and B of the same scene: the pix2pix layout, two folders, or drawn digits."""

from common.data.augment import NONE, square
from common.data.decode import check_images, fit, list_images, open_picture, size_of
from common.data.drawn import bundled_digits, draw_outlines
from common.data.items import LazyImages
from common.data.layout import existing_folder, find_part, two_folders
from common.errors import UserError, say

import numpy as np
from PIL import Image

KEEP = (
    512 << 20
)  # bytes of decoded pairs that are kept in memory; a larger set is decoded anew in each epoch
N_STAND_IN = 100  # training pairs that serve where there is no test part


def load_pairs(data_dir, img_size, channels, direction="AtoB", split="train", augment=NONE):
    """Pairs of (input, target) images for a translator.

    Args:
        data_dir: a folder with `train/` and `val/` (or `test/`) of side-by-side images, A on the left; or with two
            folders of equal names, whatever their suffixes: `trainA/ trainB/ valA/ valB/`, or `train/A train/B ...`, or
            `A/train B/train ...`. None for the drawn digits: A outlines, B paintings.
        img_size: a number, or (height, width), which drawn digits have as a square alone.
        channels: of all images, or (of inputs, of targets): 1 or 3, and any number of arrays in `.npy` files.
        direction: "AtoB", or "BtoA", which makes B the input.
        split: "train", or "val" or "test" for the part that is not trained on. Where there is none, the first
            N_STAND_IN training pairs serve, with a warning.
        augment: an `Augment`, the same for both sides, of images but never of the drawn digits.

    Raises:
        UserError: a part is missing or empty, a partner is missing, sizes of a pair differ, a width is odd.
    """
    channels = (channels, channels) if isinstance(channels, int) else tuple(channels)
    if data_dir is None:
        data, source = (
            DrawnPairs(square(img_size), channels, direction, split),
            "the bundled digits, drawn",
        )
    else:
        of_A_and_B = channels if direction == "AtoB" else channels[::-1]
        files, source = find_pairs(existing_folder(data_dir), split, of_A_and_B)
        data = Pairs(files, img_size, of_A_and_B, direction, augment)
    say(f"Data ({split}): {len(data):,} pairs from {source}.")
    return data


def find_pairs(root, split, channels):
    """The pairs of files of a part, and the folder where they lie; a pair in one file is (file, None)."""

    def look(name):
        side_by_side = (root / name,) if (root / name).is_dir() else None
        return two_folders(root, name) or side_by_side

    part, folders = find_part(
        root, split, look, "train/ (side-by-side images), or trainA/ and trainB/"
    )
    pairs = match(*folders, channels) if len(folders) == 2 else halves(*folders, channels)
    return pairs[:N_STAND_IN] if part == "train" and split != "train" else pairs, folders[0]


def halves(folder, channels):
    """(file, None) for every image, which holds A in its left half and B in its right."""
    files = list_images(folder)
    for count in sorted({*channels}):
        files = check_images(files, count)
    for file in files:
        width, height = size_of(file)
        if width % 2:
            raise UserError(
                f"{file}: {width} x {height} pixels cannot be halved into A and B; the width must be even"
            )
    return [(file, None) for file in files]


def match(folder_A, folder_B, channels):
    """As `match_names`, where both sides of a pair have one size."""
    pairs = match_names(folder_A, folder_B, channels)
    for a, b in pairs:
        if size_of(a) != size_of(b):
            sizes = " and ".join("{} x {}".format(*size_of(file)) for file in (a, b))
            raise UserError(f"{a} and {b} are a pair, but their sizes differ: {sizes}")
    return pairs


def match_names(folder_A, folder_B, channels):
    """(file of A, file of B) for all names, which may differ in the suffix; `channels` of A and of B are checked."""
    named_A, named_B = by_name(folder_A), by_name(folder_B)
    for have, lack, folder in ((named_A, named_B, folder_B), (named_B, named_A, folder_A)):
        missing = [str(have[name]) for name in have if name not in lack]
        if missing:
            more = ", ..." if len(missing) > 5 else ""
            raise UserError(
                f"{len(missing)} images have no partner in {folder}: {', '.join(missing[:5])}{more}"
            )
    good = {
        file
        for named, n in zip((named_A, named_B), channels)
        for file in check_images([*named.values()], n)
    }
    pairs = [(named_A[name], named_B[name]) for name in named_A]
    return [pair for pair in pairs if good.issuperset(pair)]


def by_name(folder):
    """{path in the folder without its suffix: file} of the images.

    Raises:
        UserError: two files differ in the suffix alone.
    """
    named = {}
    for file in list_images(folder):
        first = named.setdefault(file.relative_to(folder).with_suffix(""), file)
        if first is not file:
            raise UserError(
                f"{first} and {file.name} have one name; pairs are found by it, so one of them must go"
            )
    return named


class PairsOfFiles(LazyImages):
    """Items of two files, both (..., H, W) arrays; a subclass has `decode`, which gives both of an item's files.

    Attributes:
        decoded: (height, width) of what `decode` gives: larger than the items, where these are random parts of it.

    Args:
        files: [(one, other)].
        img_size: a number, or (height, width), of the items.
        augment: an `Augment`, the same for both.
    """

    def __init__(self, files, img_size, augment):
        super().__init__()
        self.files, self.img_size, self.augment = files, img_size, augment
        self.decoded = augment.decoded(img_size)
        self.kept = {}

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        both = self.kept.get(index)
        if both is None:
            both = self.decode(*self.files[index])
            if len(self) * sum(x.nbytes for x in both) <= KEEP:  # all of them may stay in memory
                self.kept[index] = both
        return tuple(self.augment.apply(x, self.img_size, seed) for x in both)


class Pairs(PairsOfFiles):
    """Pairs of `find_pairs` as (input, target), (channels, H, W) as of `fit`; the middle, where the shape is another.

    `channels` are those of A and of B.
    """

    def __init__(self, files, img_size, channels, direction, augment):
        super().__init__(files, img_size, augment)
        self.channels, self.direction = channels, direction

    def load(self, index, seed=0):
        a, b = super().load(index, seed)
        return (a, b) if self.direction == "AtoB" else (b, a)

    def decode(self, file_A, file_B):
        a, b = (
            open_picture(file_A, self.channels[0]),
            open_picture(file_B or file_A, self.channels[1]),
        )
        if file_B is None:
            half = a.width // 2
            a, b = a.crop((0, 0, half, a.height)), b.crop((half, 0, b.width, b.height))
        return fit(a, self.decoded), fit(b, self.decoded)


class DrawnPairs(LazyImages):
    """Outlines of the bundled digits and their paintings (`drawn.outline_pairs`), drawn when they are needed."""

    def __init__(self, img_size, channels, direction, split):
        super().__init__()
        self.pixels, self.labels = bundled_digits(split)
        self.img_size, self.channels, self.direction = img_size, channels, direction
        if not {*channels} <= {1, 3}:
            raise UserError(
                f"the drawn digits have 1 or 3 channels, not {channels[0]} and {channels[1]}"
            )

    def __len__(self):
        return len(self.labels)

    def load(self, index, seed=0):
        outlines, paintings = draw_outlines(
            self.pixels[[index]], self.labels[[index]], self.img_size
        )
        pair = outlines[0], paintings[0]
        pair = pair if self.direction == "AtoB" else pair[::-1]
        return tuple(grey(x) if n == 1 else x for x, n in zip(pair, self.channels))


def distances(draw, data, batch_size):
    """How far translations are from their targets, over all pairs of a data set.

    Args:
        draw: a function of (N, C, H, W) inputs, and of the first one's number, that translates them.

    Returns:
        {"val_L1": the mean |y - G(x)| for values in [-1, 1], "val_PSNR": the mean of the images' PSNR in dB}.
    """
    l1, psnr = [], []
    for first in range(0, len(data), batch_size):
        inputs, targets = data.batch(np.arange(first, min(first + batch_size, len(data))))
        difference = draw(inputs, first) - targets
        l1 += [*np.abs(difference).mean((1, 2, 3))]
        mse = np.maximum((difference**2).mean((1, 2, 3)), 1e-10)
        psnr += [*10 * np.log10(4 / mse)]  # the values' range is 2, its square 4
    return {"val_L1": float(np.mean(l1)), "val_PSNR": float(np.mean(psnr))}


def grey(pixels):
    """(3, H, W) uint8 as (1, H, W)."""
    return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]
