"""Label maps and their photographs: layouts, checks, and pairs of both for training."""

from common.data.augment import NONE, augmentation
from common.data.decode import decoded, fit, open_picture, opened, size_of, workers
from common.data.faces import PARTS, SOURCE, face_maps
from common.data.layout import built_in, existing_folder, find_split, warn_of_missing_test_split
from common.data.pairs import N_STAND_IN, PairsOfFiles, match_names
from common.data.toy.scenes import CLASSES, Scenes
from common.errors import UserError, say, warn

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Optional

import jittor as jt
import numpy as np
from PIL import Image, ImageOps

# Folder names within a split, in the order of search.
LABEL_DIRS = ("labels", "label")
IMAGE_DIRS = ("imgs", "images", "img")

MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes of a label map
LOSSY = ("JPEG", "MPO", "WEBP")  # Pillow's formats that alter labels
LARGEST_LABEL = 65535
MOST_CLASSES = 256  # that are found in maps without --n_classes
SAME_SHAPE = 0.02  # relative difference between the aspect ratios of a map and its image
HUE_STEP = 0.618034  # turns of the colour wheel between two consecutive classes


@dataclass(frozen=True)
class Classes:
    """The labels that maps may hold.

    Attributes:
        n: labels go from 0 to n - 1; None if the data decide.
        ignore: a further label, such as 255 for unknown, or None. It is a class too,
            the last one.
    """

    n: Optional[int]
    ignore: Optional[int] = None

    @property
    def total(self):
        """The number of classes, with that of `ignore`."""
        return self.n + (self.ignore is not None)

    def of(self, labels):
        """Labels as classes from 0 to total - 1, int32."""
        if self.ignore is None:
            return labels.astype(np.int32)
        return np.where(labels == self.ignore, self.n, labels).astype(np.int32)


# ---- loading ----


def n_classes(args):
    """The number of classes that the networks are made for.

    If neither a flag nor a checkpoint has set it, it is found in the training data.
    """
    if args.n_classes is None:
        load(args, "train")
    return Classes(args.n_classes, args.ignore_label).total


def load(args, split):
    """Pairs of a label map and its image.

    A batch is classes (B, H, W) int32 and images (B, channels, H, W) float32 in
    [-1, 1], with (H, W) = args.shape.

    The data lie in `data_dir`, a folder with `train/labels` and `train/imgs` (or
    `images`), and perhaps `val` or `test` like it; or in `label_dir` and `image_dir`.
    Without these flags, or with "digits" as data_dir, they are drawn scenes; with
    "faces" they are the parts of the built-in faces. The first N_STAND_IN training
    pairs replace a missing test split. Training pairs of files and of faces are
    augmented.

    Args:
        args: has data_dir, label_dir, image_dir, n_classes, ignore_label, channels,
            shape, and the flags of `Parser.add_augmentation`. If n_classes is None, it
            is set to what the maps hold.
        split: "train" or "test".

    Raises:
        UserError: a split or a partner is missing, shapes differ, a map cannot be read
            or holds a label that is too large.
    """
    classes = Classes(args.n_classes, args.ignore_label)
    augment = augmentation(args) if split == "train" else NONE
    is_two_folders = args.label_dir or args.image_dir
    word = None if is_two_folders else built_in(args.data_dir, ("digits", "faces"))
    if word is None:
        files, source = find_maps(args.data_dir, args.label_dir, args.image_dir, split)
        counts = scan([label_map for label_map, _ in files], classes)
        if classes.n is None:
            classes = found_classes(counts, classes.ignore)
        data = LabelMaps(files, args.shape, args.channels, classes, augment)
        say(f"Classes ({split}): {shares(counts, classes)}")
    elif word == "faces":
        classes = built_in_classes(classes, len(PARTS), SOURCE)
        source = SOURCE
        data = face_maps(args.shape, args.channels, split, augment)
    else:
        classes = built_in_classes(classes, len(CLASSES), "the drawn scenes")
        source = "the bundled digits, drawn as scenes"
        data = Scenes(*args.shape, split, args.channels)
    args.n_classes = classes.n
    say(f"Data ({split}): {len(data):,} label maps and images from {source}.")
    return data


def built_in_classes(asked, n, source):
    """The `Classes` of built-in maps, which have n.

    Raises:
        UserError: other ones are asked for.
    """
    if asked not in (Classes(None), Classes(n)):
        raise UserError(f"{source} have {n} classes; other ones need --data_dir")
    return Classes(n)


def found_classes(counts, ignore):
    """The `Classes` of maps.

    Args:
        counts: {label: pixels}.
        ignore: the label of unknown pixels, or None.
    """
    if 255 in counts and ignore is None and len(counts) < 128:
        warn("the label 255 often stands for unknown: --ignore_label 255 would make fewer classes")
    largest = max((label for label in counts if label != ignore), default=0)
    return Classes(largest + 1, ignore)


# ---- layouts ----


def find_maps(data_dir, label_dir, image_dir, split):
    """The pairs of files of a split, as [(map, image)], and the folder of its maps."""
    if label_dir or image_dir:
        if data_dir or not (label_dir and image_dir):
            raise UserError("--label_dir and --image_dir belong together, and replace --data_dir")
        found = "train"
        folders = (existing_folder(label_dir), existing_folder(image_dir))
        if split != "train":
            warn_of_missing_test_split(folders[0])
    else:
        root = existing_folder(data_dir)
        expected = (
            "train/labels (PNG maps) and train/imgs (images), "
            "or the two folders --label_dir and --image_dir"
        )
        found, folders = find_split(root, split, lambda name: two_folders_of(root, name), expected)
    files = match_names(*folders, channels=(None, 3))
    check_suffixes([label_map for label_map, _ in files])
    for label_map, image in files:
        check_pair(label_map, image)
    if found == "train" and split != "train":
        files = files[:N_STAND_IN]
    return files, folders[0]


def two_folders_of(root, name):
    """The folders of maps and of images of a split, or None if one is missing.

    A root that holds both is a training split itself.
    """
    parents = [root / name]
    if name == "train":
        parents.append(root)
    for parent in parents:
        labels = [parent / d for d in LABEL_DIRS if (parent / d).is_dir()]
        images = [parent / d for d in IMAGE_DIRS if (parent / d).is_dir()]
        if labels and images:
            return labels[0], images[0]
    return None


def check_suffixes(files):
    """Refuses maps in formats with lossy compression."""
    for file in files:
        if file.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            raise UserError(
                f"{file}: {file.suffix[1:]} alters the labels of a map; maps are PNG or BMP files"
            )


def check_pair(label_map, image):
    """Refuses a map and an image whose aspect ratios differ."""
    w, h = size_of(label_map)
    width, height = size_of(image)
    if abs(w * height - width * h) > SAME_SHAPE * width * h:
        raise UserError(
            f"{label_map} and {image} are a pair, but their shapes differ: "
            f"{w} x {h} and {width} x {height}"
        )


# ---- maps ----


def open_map(path):
    """A label map as (H, W) int32.

    Labels are the pixels of a grey PNG or BMP file of any depth, or the indices of a
    palette. The map is turned upright as its EXIF orientation says, like its image.

    Raises:
        Unreadable: the file is missing or damaged.
        UserError: it holds colours, fractions, or labels that are not from 0 to 65535.
    """
    with opened(path) as image:
        mode = image.mode
        stored_as = image.format
        labels = np.asarray(decoded(image))
    if stored_as in LOSSY:
        raise UserError(
            f"{path}: its content is {stored_as}, which alters the labels of a map, whatever "
            "its suffix; maps are PNG or BMP files"
        )
    if mode not in MAP_MODES:
        raise UserError(
            f"{path} is no label map: it has mode {mode}, and a map is grey or has a palette"
        )
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() > LARGEST_LABEL:
        raise UserError(
            f"{path} is no label map: it holds {labels.min()} to {labels.max()}; labels start at 0"
        )
    return labels.astype(np.int32)


def scan(files, classes):
    """Counts the pixels of each label in all maps.

    Returns:
        A `Counter` {label: pixels}.

    Raises:
        UserError: a label is not one of `classes`; or not below MOST_CLASSES, if
            `classes.n` is None. It names the first such file, its largest such label,
            and how often this occurs.
    """
    limit = classes.n or MOST_CLASSES

    def count(path):
        counts = np.bincount(open_map(path).ravel())
        labels = np.flatnonzero(counts)
        return Counter(dict(zip(labels.tolist(), counts[labels].tolist())))

    with ThreadPoolExecutor(workers()) as pool:
        counts_of_files = list(pool.map(count, files))
    bad = []
    for file, counts in zip(files, counts_of_files):
        wrong = [label for label in counts if label >= limit and label != classes.ignore]
        if wrong:
            bad.append((file, max(wrong), counts[max(wrong)]))
    if bad:
        file, label, n_pixels = bad[0]
        more = f"; {len(bad)} of {len(files)} maps hold such labels" if len(bad) > 1 else ""
        raise UserError(
            f"{file} holds the label {label} in {n_pixels:,} pixels, but labels go from 0 to "
            f"{limit - 1}{more}. Raise --n_classes, or give --ignore_label {label} if it stands "
            "for unknown"
        )
    return sum(counts_of_files, Counter())


def shares(counts, classes):
    """The percentage of pixels of each class, in words.

    Args:
        counts: {label: pixels}.
    """
    n_pixels = sum(counts.values())
    text = ", ".join(f"{label} {100 * counts[label] / n_pixels:.3g}%" for label in sorted(counts))
    absent = [str(label) for label in range(classes.n) if label not in counts]
    if absent:
        text += f"; {len(absent)} have no pixel: {', '.join(absent[:10])}"
    if len(absent) > 10:
        text += ", ..."
    return text


def colours_of(classes, total):
    """Classes as colours to look at, one for each class.

    Args:
        classes: (B, H, W) integers.
        total: the number of classes.

    Returns:
        (B, 3, H, W) float32 in [-1, 1].
    """
    k = np.arange(total)[:, None]
    hues = k * HUE_STEP + np.array([0, 1 / 3, 2 / 3])
    rgb = 0.5 + 0.5 * np.cos(2 * np.pi * hues)
    brightness = 0.55 + 0.45 * (k % 3) / 2
    colours = np.float32(brightness * rgb * 2 - 1)
    return colours[classes].transpose(0, 3, 1, 2)


def one_hot(classes, total):
    """(B, H, W) classes, a Jittor variable, as (B, total, H, W) float32."""
    return (classes.unsqueeze(1) == jt.arange(total).reshape(1, -1, 1, 1)).float32()


def resized(labels, shape):
    """A map at another size.

    It is scaled until it covers the shape, and its centre is cropped. Each pixel takes
    the nearest label, since there is nothing between two labels.

    Args:
        labels: (H, W) int32.
        shape: (height, width).
    """
    height, width = shape
    fitted = ImageOps.fit(Image.fromarray(labels), (width, height), Image.NEAREST)
    return np.asarray(fitted).astype(np.int32)


class LabelMaps(PairsOfFiles):
    """The files of `find_maps`: items (classes (H, W) int32, image (channels, H, W)).

    Maps and images of another shape are scaled until they cover it, and their centre is
    cropped.

    Args:
        files: a list of (map, image).
        shape: (height, width) of the items.
        channels: 1 or 3, of the images.
        classes: the `Classes` of the maps.
        augment: an `Augment`, the same for a map and its image.
    """

    def __init__(self, files, shape, channels, classes, augment):
        super().__init__(files, shape, augment)
        self.channels = channels
        self.classes = classes

    def decode(self, label_map, image):
        labels = resized(open_map(label_map), self.decoded)
        picture = open_picture(image, self.channels, at_least=self.decoded)
        return self.classes.of(labels), fit(picture, self.decoded)
