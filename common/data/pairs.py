"""Images in pairs, A and B of the same scene: the pix2pix layout, two folders, or drawn digits."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.decode import check_images, fit, list_images, open_image
from common.data.drawn import bundled_digits, draw_outlines
from common.data.folders import LazyImages
from common.errors import UserError, say, warn

KEEP = 512 << 20  # bytes of decoded pairs that are kept in memory; a larger set is decoded anew in each epoch
JITTER = 286 / 256  # of img_size, from which a random part of img_size is cut out (Isola 2017, section 6.2)
EXIF_ORIENTATION = 274


def load_pairs(data_dir, img_size, channels, direction="AtoB", split="train", augment=False):
    """Pairs of (input, target) images for a translator.

    Args:
        data_dir: a folder with `train/` and `val/` (or `test/`) of side-by-side images, A on the left; or with
            `trainA/ trainB/` and `valA/ valB/` (or `testA/ testB/`) of equal names, whatever their suffixes. None
            for the drawn digits: A outlines, B paintings.
        direction: "AtoB", or "BtoA", which makes B the input.
        split: "train", or "val" for the part that is not trained on. Without one, `val` gives training pairs, with
            a warning.
        augment: random crops and mirroring, the same for both sides. The drawn digits are never augmented: a
            mirrored digit is no digit.

    Raises:
        UserError: a part is missing or empty, a partner is missing, sizes of a pair differ, a width is odd.
    """
    if data_dir is None:
        data, source = DrawnPairs(img_size, channels, direction, split), "the bundled digits, drawn"
    else:
        root = Path(data_dir).expanduser()
        pairs, source = find_pairs(root, split)
        data = Pairs(pairs, img_size, channels, direction, augment)
    say(f"Data ({split}): {len(data):,} pairs from {source}.")
    return data


def find_pairs(root, split):
    """The pairs of files of a part, and where they lie; a pair in one file is (file, None)."""
    if not root.is_dir():
        raise UserError(f"--data_dir {root.absolute()} is not a folder")
    for name in {"train": ["train"], "val": ["val", "test"]}[split]:
        if (root / name).is_dir():
            return side_by_side(root / name), root / name
        if (root / f"{name}A").is_dir() or (root / f"{name}B").is_dir():
            return two_folders(root / f"{name}A", root / f"{name}B"), root / f"{name}A"
    if split == "val":
        pairs, source = find_pairs(root, "train")
        warn(f"{root.absolute()} has no val or test part: pictures and validation are of training pairs")
        return pairs[:100], source
    names = ", ".join(sorted(f.name for f in root.iterdir())[:5]) or "nothing"
    raise UserError(
        f"{root.absolute()} holds neither train/ (side-by-side images) nor trainA/ and trainB/; found: {names}"
    )


def side_by_side(folder):
    """(file, None) for every image, which holds A in its left half and B in its right."""
    files = check_images(list_images(folder))
    for file in files:
        width, height = size_of(file)
        if width % 2:
            raise UserError(f"{file}: {width} x {height} pixels cannot be halved into A and B; the width must be even")
    return [(file, None) for file in files]


def two_folders(folder_A, folder_B):
    """(file of A, file of B) for all names, which may differ in the suffix."""
    named_A, named_B = ({f.relative_to(d).with_suffix(""): f for f in list_images(d)} for d in (folder_A, folder_B))
    for have, lack, folder in ((named_A, named_B, folder_B), (named_B, named_A, folder_A)):
        missing = [str(have[name]) for name in have if name not in lack]
        if missing:
            more = ", ..." if len(missing) > 5 else ""
            raise UserError(f"{len(missing)} images have no partner in {folder}: {', '.join(missing[:5])}{more}")
    good = {*check_images(list(named_A.values())), *check_images(list(named_B.values()))}
    pairs = [(named_A[name], named_B[name]) for name in named_A]
    pairs = [pair for pair in pairs if good.issuperset(pair)]
    for a, b in pairs:
        if size_of(a) != size_of(b):
            sizes = " and ".join("{} x {}".format(*size_of(file)) for file in (a, b))
            raise UserError(f"{a} and {b} are a pair, but their sizes differ: {sizes}")
    return pairs


def size_of(path):
    """(width, height) of an image as `open_image` gives it, from its header."""
    with Image.open(path) as image:
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        return image.size[::-1] if turned else image.size


class Pairs(LazyImages):
    """Pairs of files as (input, target), both (channels, img_size, img_size) uint8; the middle, where not square.

    Args:
        pairs: of `find_pairs`.
        augment: scale to JITTER times the size, cut out a random part, mirror every other pair.
    """

    def __init__(self, pairs, img_size, channels, direction, augment):
        self.pairs, self.img_size, self.channels = pairs, img_size, channels
        self.direction, self.augment = direction, augment
        self.decoded_size = round(JITTER * img_size) if augment else img_size
        self.keeps = len(pairs) * 2 * channels * self.decoded_size**2 <= KEEP
        self.kept = {}

    def __len__(self):
        return len(self.pairs)

    def load(self, index, seed=0):
        both = self.kept.get(index)
        if both is None:
            both = self.decode(*self.pairs[index])
            if self.keeps:
                self.kept[index] = both
        if self.augment:
            both = jitter(both, self.img_size, np.random.default_rng(seed))
        a, b = both
        return (a, b) if self.direction == "AtoB" else (b, a)

    def decode(self, file_A, file_B):
        """A and B as (2, channels, decoded_size, decoded_size) uint8."""
        a = open_image(file_A, self.channels)
        if file_B is None:
            half = a.width // 2
            a, b = a.crop((0, 0, half, a.height)), a.crop((half, 0, a.width, a.height))
        else:
            b = open_image(file_B, self.channels)
        return np.stack([fit(a, self.decoded_size), fit(b, self.decoded_size)])


def jitter(both, img_size, rng):
    """(2, C, S, S) as a random (2, C, img_size, img_size) part, mirrored in every other case."""
    top, left = rng.integers(both.shape[-1] - img_size + 1, size=2)
    both = both[..., top : top + img_size, left : left + img_size]
    return both[..., ::-1] if rng.integers(2) else both


class DrawnPairs(LazyImages):
    """Outlines of the bundled digits and their paintings (`synthetic.outline_pairs`), drawn when they are needed."""

    def __init__(self, img_size, channels, direction, split):
        self.pixels, self.labels = bundled_digits("train" if split == "train" else "test")
        self.img_size, self.channels, self.direction = img_size, channels, direction

    def __len__(self):
        return len(self.labels)

    def load(self, index, seed=0):
        outlines, paintings = draw_outlines(self.pixels[[index]], self.labels[[index]], self.img_size)
        pair = outlines[0], paintings[0]
        if self.channels == 1:
            pair = tuple(np.asarray(Image.fromarray(x.transpose(1, 2, 0)).convert("L"))[None] for x in pair)
        return pair if self.direction == "AtoB" else pair[::-1]
