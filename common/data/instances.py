"""Label maps with instance maps and photographs: layouts, checks, triples of all three.

A label map has a class for each pixel. An instance map has an id for each pixel: two
pixels are of one instance if they have the same class and the same id.
"""

from common.data.augment import NONE, augmentation
from common.data.decode import (
    check_images,
    fit,
    list_images,
    open_picture,
    size_of,
    workers,
)
from common.data.faces import PARTS, SOURCE, face_maps
from common.data.items import LazyImages
from common.data.label_maps import (
    LARGEST_LABEL,
    Classes,
    built_in_classes,
    check_pair,
    check_suffixes,
    found_classes,
    open_map,
    resized,
    scan,
    shares,
)
from common.data.layout import built_in, existing_folder, find_split, not_found
from common.data.pairs import N_STAND_IN, PairsOfFiles
from common.data.toy import crowds
from common.errors import UserError, say

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np

MOST_INSTANCES = 1024  # in a map
# Folder names within a split, in the order of search.
LABEL_DIRS = ("labels", "label")
IMAGE_DIRS = ("imgs", "images", "img")
INSTANCE_DIRS = ("instances", "insts", "inst")
# What Cityscapes adds to the names of the three files of a scene.
ENDINGS = re.compile(r"(_gtFine|_gtCoarse)?_(labelIds|labelTrainIds|instanceIds|leftImg8bit)$")
EXPECTED = (
    "train_label (PNG maps), train_img (images) and perhaps train_inst (PNG maps of ids); "
    "or the same as train/labels, train/imgs and train/instances"
)


# ---- loading ----


def load(args, split):
    """Triples of a label map, its instances and its image.

    A batch is classes (B, H, W) int32, ids (B, H, W) int32, and images (B, channels, H,
    W) float32 in [-1, 1], with (H, W) = args.shape. The ids number the instances of a
    map from 0 on, and are below MOST_INSTANCES.

    The data lie in `data_dir`, a folder as EXPECTED says, with `test_...` or `val_...`
    besides. Without it, or with "digits", they are drawn crowds of digits; with "faces"
    they are the parts of the built-in faces, which have no instances. The first
    N_STAND_IN training triples replace a missing test split. Training triples of files
    and of faces are augmented.

    Where there are no instance maps, a class is one instance, `no_boundary` is set, and
    one line says so.

    Args:
        args: has data_dir, no_boundary, n_classes, ignore_label, channels, shape, and
            the flags of `Parser.add_augmentation`. If n_classes is None, it is set to
            what the maps hold.
        split: "train" or "test".

    Raises:
        UserError: a split or a partner is missing, shapes differ, a map cannot be read,
            or holds a label that is too large or too many instances.
    """
    classes = Classes(args.n_classes, args.ignore_label)
    augment = augmentation(args) if split == "train" else NONE
    word = built_in(args.data_dir, ("digits", "faces"))
    has_ids = True
    if word == "digits":
        classes = built_in_classes(classes, len(crowds.CLASSES), "the drawn crowds")
        source = "the bundled digits, drawn as crowds"
        triples = crowds.Crowds(*args.shape, split, args.channels)
    elif word == "faces":
        classes = built_in_classes(classes, len(PARTS), SOURCE)
        source = SOURCE
        has_ids = False
        triples = face_maps(args.shape, args.channels, split, augment)
    else:
        files, source = find_triples(existing_folder(args.data_dir), split)
        has_ids = files[0][1] is not None
        counts = scan([label_map for label_map, _, _ in files], classes)
        if classes.n is None:
            classes = found_classes(counts, classes.ignore)
        if has_ids:
            check_instances([instance_map for _, instance_map, _ in files])
        triples = Triples(files, args.shape, args.channels, classes, augment)
        say(f"Classes ({split}): {shares(counts, classes)}")
    args.n_classes = classes.n
    settle_boundary(args, has_ids, split, source)
    say(f"Data ({split}): {len(triples):,} label maps and images from {source}.")
    return Instances(triples)


def n_classes(args):
    """The number of classes that the networks are made for.

    If neither a flag nor a checkpoint has set it, it is found in the training data.
    """
    if args.n_classes is None:
        load(args, "train")
    return Classes(args.n_classes, args.ignore_label).total


def settle_boundary(args, has_ids, split, source):
    """Sets `no_boundary` where there are no instance maps.

    Raises:
        UserError: the networks of a checkpoint, or of the training split, need them.
    """
    if has_ids:
        return
    checkpoint = args.resume or args.init_from
    if checkpoint and not args.no_boundary:
        raise UserError(f"{checkpoint} was trained with instance maps, and {source} has none")
    if split != "train" and not args.no_boundary:
        raise UserError(f"{source} has no instance maps beside it, as the training split has")
    if split == "train":
        say("There are no instance maps: no boundaries, and a code for each class of a map.")
    args.no_boundary = True


# ---- layouts ----


def find_triples(root, split):
    """The files of a split.

    Returns:
        A list of (label map, instance map or None, image), and the label maps' folder.
    """
    found, folders = find_split(root, split, lambda name: folders_of(root, name), EXPECTED)
    labels, instances, images = folders
    if labels is None:
        raise UserError(
            f"{(instances or images).absolute()} has no label maps beside it: expected {EXPECTED}"
        )
    if images is None:
        raise not_found(root, EXPECTED)
    named = [by_name(folder) for folder in folders if folder is not None]
    for one in named:
        for other in named:
            check_partners(one, other)
    files = []
    for name, label_map in named[0].items():
        instance_map = named[1][name] if instances is not None else None
        files.append((label_map, instance_map, named[-1][name]))
    check_files(files)
    files = readable(files)
    if found == "train" and split != "train":
        files = files[:N_STAND_IN]
    return files, labels


def folders_of(root, name):
    """The folders (labels, instances, images) of a split; None for one that is missing.

    Returns:
        None if there is neither a folder of maps nor one of images.
    """
    candidates = [[], [], []]
    for k, names in enumerate((LABEL_DIRS, INSTANCE_DIRS, IMAGE_DIRS)):
        candidates[k] += [root / f"{name}_{d}" for d in names]
        candidates[k] += [root / name / d for d in names]
        if name == "train":
            candidates[k] += [root / d for d in names]
    found = [next((d for d in of_kind if d.is_dir()), None) for of_kind in candidates]
    return None if found == [None, None, None] else tuple(found)


def by_name(folder):
    """{name: file} of a folder, without suffixes and Cityscapes' endings.

    Raises:
        UserError: two files have the same name.
    """
    named = {}
    for file in list_images(folder):
        name = ENDINGS.sub("", str(file.relative_to(folder).with_suffix("")))
        if name in named:
            raise UserError(
                f"{named[name]} and {file.name} have the same name; "
                "maps and images are matched by it, so one of them must go"
            )
        named[name] = file
    return named


def check_partners(named, others):
    """Refuses files of one folder that have no partner in another one."""
    missing = [str(file) for name, file in named.items() if name not in others]
    if missing:
        listed = ", ".join(missing[:5])
        more = ", ..." if len(missing) > 5 else ""
        folder = next(iter(others.values())).parent
        raise UserError(f"{len(missing)} files have no partner in {folder}: {listed}{more}")


def check_files(files):
    """Refuses lossy maps, and triples whose sizes do not fit.

    A map and its instances have the same size, and the image the same aspect ratio.
    """
    check_suffixes([label_map for label_map, _, _ in files])
    check_suffixes([instance_map for _, instance_map, _ in files if instance_map is not None])
    for label_map, instance_map, image in files:
        if instance_map is not None:
            check_same_size(label_map, instance_map)
        check_pair(label_map, image)


def check_same_size(label_map, instance_map):
    w, h = size_of(label_map)
    width, height = size_of(instance_map)
    if (w, h) != (width, height):
        raise UserError(
            f"{label_map} and {instance_map} belong together, but their sizes differ: "
            f"{w} x {h} and {width} x {height}"
        )


def check_instances(files):
    """Refuses instance maps with too many ids, as a photograph has them."""

    def count(path):
        return np.count_nonzero(np.bincount(open_map(path).ravel()))

    with ThreadPoolExecutor(workers()) as pool:
        counts = list(pool.map(count, files))
    for file, n in zip(files, counts):
        if n > MOST_INSTANCES:
            raise UserError(
                f"{file} is no instance map: it has {n:,} ids, and at most {MOST_INSTANCES:,} "
                "are allowed"
            )


def readable(files):
    """The triples of which all files can be read; a warning names the others."""
    maps = [file for triple in files for file in triple[:2] if file is not None]
    good = set(check_images(maps, None))
    good.update(check_images([image for _, _, image in files], 3))
    return [triple for triple in files if good.issuperset(f for f in triple if f is not None)]


# ---- maps without images ----


def find_maps(label_dir, instance_dir, classes):
    """{name: (label map, instance map or None)} of two folders, checked.

    Args:
        instance_dir: may be None.
        classes: the `Classes` that a model was trained with.

    Raises:
        UserError: a folder or a partner is missing, sizes differ, or a map holds other
            labels.
    """
    label_maps = by_name(existing_folder(label_dir))
    check_suffixes(label_maps.values())
    scan(list(label_maps.values()), classes)
    if instance_dir is None:
        return {name: (file, None) for name, file in label_maps.items()}
    instance_maps = by_name(existing_folder(instance_dir))
    check_partners(label_maps, instance_maps)
    check_partners(instance_maps, label_maps)
    check_suffixes(instance_maps.values())
    check_instances(list(instance_maps.values()))
    found = {}
    for name, file in label_maps.items():
        check_same_size(file, instance_maps[name])
        found[name] = (file, instance_maps[name])
    return found


def load_maps(label_map, instance_map, shape, classes):
    """Classes and ids (1, H, W) int32 of one pair of `find_maps`, for a network."""
    labels, ids = open_maps(label_map, instance_map, shape)
    labels = classes.of(labels)
    return labels[None], numbered(labels, ids)[None]


# ---- data sets ----


class Triples(PairsOfFiles):
    """The files of `find_triples`: items (classes, ids, image).

    Classes and ids are (H, W) int32, the ids as the file has them, and 0 without a
    file. Maps and images of another shape are scaled until they cover it, and their
    centre is cropped.

    Args:
        files: a list of (label map, instance map or None, image).
        shape: (height, width) of the items.
        channels: 1 or 3, of the images.
        classes: the `Classes` of the maps.
        augment: an `Augment`, the same for all three.
    """

    def __init__(self, files, shape, channels, classes, augment):
        super().__init__(files, shape, augment)
        self.channels = channels
        self.classes = classes

    def decode(self, label_map, instance_map, image):
        labels, ids = open_maps(label_map, instance_map, self.decoded)
        picture = open_picture(image, self.channels, at_least=self.decoded)
        return self.classes.of(labels), ids, fit(picture, self.decoded)


def open_maps(label_map, instance_map, shape):
    """Labels and ids (H, W) int32 of files, at (height, width); see `Triples`."""
    labels = resized(open_map(label_map), shape)
    ids = np.zeros_like(labels)
    if instance_map is not None:
        ids = resized(open_map(instance_map), shape)
    try:
        numbered(labels, ids)
    except ValueError as error:
        raise UserError(f"{label_map} and {instance_map}: {error}") from error
    return labels, ids


class Instances(LazyImages):
    """Items (classes, ids, image) whose ids are those of `numbered`.

    Args:
        source: a data set of (classes, ids, image), or of (classes, image), where a
            class is an instance.
    """

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.in_memory = source.in_memory

    def __len__(self):
        return len(self.source)

    def load(self, index, seed=0):
        labels, *ids, picture = self.source.load(index, seed)
        return labels, numbered(labels, ids[0] if ids else np.zeros_like(labels)), picture


def numbered(labels, ids):
    """(H, W) int32: the instances of a map, numbered from 0 on.

    Pixels are of one instance if they have the same label and the same id.

    Args:
        labels, ids: (H, W) integers from 0 to LARGEST_LABEL.

    Raises:
        ValueError: there are more than MOST_INSTANCES.
    """
    pairs = labels.astype(np.int64) * (LARGEST_LABEL + 1) + ids
    found, numbers = np.unique(pairs, return_inverse=True)
    if len(found) > MOST_INSTANCES:
        raise ValueError(f"{len(found):,} instances, and at most {MOST_INSTANCES:,} are allowed")
    return numbers.reshape(labels.shape).astype(np.int32)
