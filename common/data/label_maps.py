"""Label maps and their photographs: where they lie, what is wrong with them, and pairs of both for training."""

from common.data.augment import NONE, augmentation
from common.data.decode import fit, list_images, open_picture, opened, size_of, workers
from common.data.layout import existing_folder, find_part, training_images_serve
from common.data.pairs import N_STAND_IN, PairsOfFiles, match_names
from common.data.scenes import CLASSES, Scenes
from common.errors import UserError, say, warn
from common.flags import number

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Optional

import jittor as jt
import numpy as np
from PIL import Image, ImageOps

LABEL_DIRS, IMAGE_DIRS = (
    ("labels", "label"),
    ("imgs", "images", "img"),
)  # of a part, in the order of search
MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # of Pillow
MOST_CLASSES = 256
SAME_SHAPE = 0.02  # by what share the ratio of width to height of a map and of its image may differ
HUES = 0.618034  # of a turn between the colours of two labels that follow each other


@dataclass(frozen=True)
class Classes:
    """The labels that maps may hold: 0 to n - 1, and `ignore`, which becomes a class of its own, the last."""

    n: Optional[int]
    ignore: Optional[int] = None

    @property
    def total(self):
        return self.n + (self.ignore is not None)

    def of(self, labels):
        """Labels as int32 classes from 0 to total - 1."""
        return np.where(
            labels == (-1 if self.ignore is None else self.ignore), self.n, labels
        ).astype(np.int32)


# ---- flags ----

FLAGS = ("n_classes", "ignore_label")  # of those below, the ones that networks depend on


def add_flags(parser):
    """Offers the flags of label maps, and those of random crops, to a script's parser."""
    parser.add_augmentation()
    add = parser.add_argument
    add(
        "--label_dir",
        metavar="DIR",
        help="a folder of maps, with --image_dir in the place of --data_dir",
    )
    add("--image_dir", metavar="DIR", help="a folder of images with the maps' names")
    add(
        "--n_classes",
        type=number(int, at_least=1, at_most=65536),
        help="labels are below it; found, unless given",
    )
    add(
        "--ignore_label",
        type=number(int, at_least=0, at_most=65535),
        help="a label that is a class of its own",
    )


def n_classes(args):
    """The classes that the networks see; those of the data, where no flag and no checkpoint has told their number."""
    if args.n_classes is None:
        load(args, "train")
    return Classes(args.n_classes, args.ignore_label).total


# ---- loading ----


def load(args, split):
    """Pairs of (classes (H, W) int32, image (channels, H, W)), (H, W) = args.shape.

    The data are `data_dir`, a folder with `train/labels` and `train/imgs` (or `images`), and perhaps `val` or `test`
    like it; or `label_dir` and `image_dir`; or, without flags, the drawn scenes. Where there is no test part, the first
    N_STAND_IN training pairs serve. Training pairs of files are cropped and mirrored at random, as the flags say.

    Args:
        args: of a parser with the flags of `add_flags`. `n_classes`, where it is None, becomes what the maps hold.
        split: "train" or "test".

    Raises:
        UserError: a part or a partner is missing, shapes do not fit, a map cannot be read or holds too large a label.
    """
    classes, shape = Classes(args.n_classes, args.ignore_label), args.shape
    folders = args.data_dir, args.label_dir, args.image_dir
    if not any(folders):
        if classes not in (Classes(None), Classes(len(CLASSES))):
            raise UserError(
                f"the drawn scenes have {len(CLASSES)} classes; other ones need --data_dir"
            )
        data, source = Scenes(*shape, split, args.channels), "the bundled digits, drawn as scenes"
        classes = Classes(len(CLASSES))
    else:
        files, source = find_maps(*folders, split)
        counts = scan([label_map for label_map, _ in files], classes)
        if classes.n is None:
            classes = found_classes(counts, classes.ignore)
        augment = augmentation(args) if split == "train" else NONE
        data = LabelMaps(files, shape, args.channels, classes, augment)
        say(f"Classes ({split}): {shares(counts, classes)}")
    args.n_classes = args.stored["n_classes"] = classes.n
    say(f"Data ({split}): {len(data):,} label maps and images from {source}.")
    return data


def found_classes(counts, ignore):
    """The classes of {label: pixels}."""
    if 255 in counts and ignore is None and len(counts) < 128:
        warn("the label 255 often stands for unknown: --ignore_label 255 would make fewer classes")
    return Classes(max((label for label in counts if label != ignore), default=0) + 1, ignore)


# ---- layouts ----


def find_maps(data_dir, label_dir, image_dir, split):
    """The pairs of files (map, image) of a part, and the folder of its maps."""
    if label_dir or image_dir:
        if data_dir or not (label_dir and image_dir):
            raise UserError(
                "--label_dir and --image_dir belong together, in the place of --data_dir"
            )
        folders, part = (existing_folder(label_dir), existing_folder(image_dir)), "train"
        if split != "train":
            training_images_serve(folders[0])
    else:
        root = existing_folder(data_dir)
        expected = "train/labels (PNG maps) and train/imgs (images), or the two folders --label_dir and --image_dir"
        part, folders = find_part(root, split, lambda name: two_folders_of(root, name), expected)
    check_suffixes(folders[0])
    files = match_names(*folders, channels=(None, 3))
    for label_map, image in files:
        check_pair(label_map, image)
    return files[:N_STAND_IN] if part == "train" and split != "train" else files, folders[0]


def two_folders_of(root, name):
    """The folders of maps and of images of a part; a root that holds both is a training part. None without both."""
    for parent in (root / name, *([root] if name == "train" else [])):
        found = [
            [parent / d for d in names if (parent / d).is_dir()]
            for names in (LABEL_DIRS, IMAGE_DIRS)
        ]
        if all(found):
            return found[0][0], found[1][0]
    return None


def check_suffixes(folder):
    wrong = [
        file for file in list_images(folder) if file.suffix.lower() in (".jpg", ".jpeg", ".webp")
    ]
    if wrong:
        raise UserError(
            f"{wrong[0]}: {wrong[0].suffix[1:]} alters the labels of a map; maps are PNG or BMP files"
        )


def check_pair(label_map, image):
    (w, h), (width, height) = size_of(label_map), size_of(image)
    if abs(w * height - width * h) > SAME_SHAPE * width * h:
        raise UserError(
            f"{label_map} and {image} are a pair, but their shapes differ: {w} x {h} and {width} x {height}"
        )


# ---- maps ----


def open_map(path):
    """A map as (H, W) int32: the pixels of a grey PNG of any depth, or the indices of a palette.

    Raises:
        Unreadable: the file is missing or damaged.
        UserError: it holds colours, fractions, or labels that are not from 0 to 65535.
    """
    with opened(path) as image:
        mode = image.mode
        image.load()
        labels = np.asarray(image)
    if mode not in MAP_MODES:
        raise UserError(
            f"{path} is no label map: it has mode {mode}, and a map is grey or has a palette"
        )
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() > 65535:
        raise UserError(
            f"{path} is no label map: it holds {labels.min()} to {labels.max()}; labels start at 0"
        )
    return labels.astype(np.int32)


def scan(files, classes):
    """{label: pixels} of all maps.

    Raises:
        UserError: a label is not one of `classes`, or of MOST_CLASSES where their number is to be found; it names the
            first such file, its largest label, and how often it occurs.
    """
    limit = classes.n or MOST_CLASSES

    def count(path):
        counts = np.bincount(open_map(path).ravel())
        labels = np.flatnonzero(counts)
        wrong = [label for label in labels if label >= limit and label != classes.ignore]
        return Counter(dict(zip(labels.tolist(), counts[labels].tolist()))), max(
            wrong, default=None
        )

    with ThreadPoolExecutor(workers()) as pool:
        results = list(pool.map(count, files))
    bad = [
        (file, label, counts[label])
        for file, (counts, label) in zip(files, results)
        if label is not None
    ]
    if bad:
        file, label, n = bad[0]
        more = f"; {len(bad)} of {len(files)} maps are so" if len(bad) > 1 else ""
        raise UserError(
            f"{file} holds the label {label} in {n:,} pixels, and labels go from 0 to {limit - 1}{more}. Raise "
            f"--n_classes, or give --ignore_label {label} if it stands for unknown"
        )
    return sum((counts for counts, _ in results), Counter())


def shares(counts, classes):
    """What share of the pixels each class has, in words."""
    n_pixels = sum(counts.values())
    found = [f"{label} {100 * counts[label] / n_pixels:.3g}%" for label in sorted(counts)]
    absent = [str(label) for label in range(classes.n) if label not in counts]
    some = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
    return ", ".join(found) + (f"; {len(absent)} have no pixel: {some}" if absent else "")


def colours_of(classes, total):
    """Classes (B, H, W) as colours (B, 3, H, W) in [-1, 1], one for each class, to be looked at."""
    k = np.arange(total)[:, None]
    rgb = 0.5 + 0.5 * np.cos(2 * np.pi * (k * HUES + np.array([0, 1 / 3, 2 / 3])))
    bright = np.float32((0.55 + 0.45 * (k % 3) / 2) * rgb * 2 - 1)
    return bright[classes].transpose(0, 3, 1, 2)


def one_hot(classes, total):
    """(B, H, W) classes, a Jittor variable, as (B, total, H, W) float32."""
    return (classes.unsqueeze(1) == jt.arange(total).reshape(1, -1, 1, 1)).float32()


def resized(labels, shape):
    """A map at another (height, width), its middle where the shape differs: each pixel takes its nearest label."""
    return np.asarray(ImageOps.fit(Image.fromarray(labels), shape[::-1], Image.NEAREST)).astype(
        np.int32
    )


class LabelMaps(PairsOfFiles):
    """Files of `find_maps` as (classes (H, W) int32, image (channels, H, W) uint8); the middle, of other shapes."""

    def __init__(self, files, shape, channels, classes, augment):
        super().__init__(files, shape, augment)
        self.channels, self.classes = channels, classes

    def decode(self, label_map, image):
        labels = self.classes.of(resized(open_map(label_map), self.decoded))
        return labels, fit(open_picture(image, self.channels, at_least=self.decoded), self.decoded)
