"""Where the splits of a data set lie on disk.

Every loader finds its training and test split here, so that a missing test split is
treated in one way, and a folder with the wrong contents gets one message.
"""

from common.errors import UserError, warn

import errno
import os
from pathlib import Path

# Data sets that --data_dir names by a word. A folder of that name is written ./word.
BUILT_IN = ("digits", "faces", "stacked")

# Folder names of each split, in the order in which they are tried.
NAMES = {
    "train": ("train",),
    "test": ("test", "val"),
    "val": ("val", "test"),
}


def is_built_in(data_dir):
    """Whether a --data_dir is the name of a built-in data set, not a folder."""
    return data_dir in BUILT_IN


def built_in(data_dir, offered=BUILT_IN):
    """The word for the built-in data set that a --data_dir names; None for a folder.

    Args:
        data_dir: None stands for the digits.
        offered: the words that the caller takes.

    Raises:
        UserError: it is another word.
    """
    word = "digits" if data_dir is None else data_dir
    if not is_built_in(word):
        return None
    if word not in offered:
        words = " or ".join(f"--data_dir {other}" for other in offered)
        raise UserError(
            f"--data_dir {word}: this script takes {words}, or a folder; "
            f"a folder of that name is ./{word}"
        )
    return word


def existing_folder(path):
    """A path that the user gave, as a `Path` to a folder that exists.

    Raises:
        UserError: it is not a folder, or may not be read.
    """
    folder = expanded(path)
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # such as a folder above it that may not be entered
        raise UserError(f"{folder.absolute()} cannot be read: {error.strerror}") from error
    if not is_folder:
        raise UserError(f"{folder.absolute()} is not a folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{folder.absolute()} cannot be read: {os.strerror(errno.EACCES)}")
    return folder


def expanded(path):
    """A path that the user gave, with `~` replaced by the home folder.

    Raises:
        UserError: it is empty, or there is no such home folder.
    """
    if not str(path):
        raise UserError("the name of a folder is empty; the current folder is called .")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from error


def not_found(folder, expected):
    """The error for a folder with the wrong contents: what was expected, what is there.

    Args:
        expected: what the folder should hold, in words.
    """
    try:
        names = sorted(file.name for file in folder.iterdir())
    except OSError as error:
        return UserError(f"{folder.absolute()} cannot be read: {error.strerror}")
    found = ", ".join(names[:5]) or "nothing"
    if len(names) > 5:
        found += ", ..."
    return UserError(f"{folder.absolute()}: expected {expected}; found: {found}")


def find_split(root, split, look, expected):
    """Finds a split of a data set.

    If there is no test split, the training split is used instead, with a warning.

    Args:
        root: the data set's folder.
        split: "train", "test" or "val". The last two mean the same split; they differ
            in which of the two names is tried first.
        look: a function of a name ("train", "test" or "val") that returns whatever the
            data set has under that name, or None.
        expected: what `root` should hold, in words.

    Returns:
        The name under which the split was found ("train" if the training split is used
        instead), and the result of `look`.

    Raises:
        UserError: there is no training split either.
    """
    for name in NAMES[split]:
        found = look(name)
        if found is not None:
            return name, found
    if split == "train":
        raise not_found(root, expected)
    found = look("train")
    if found is None:
        raise not_found(root, expected)
    warn_of_missing_test_split(root)
    return "train", found


def warn_of_missing_test_split(root):
    """Warns that pictures and validation use training images instead of unseen ones."""
    warn(f"{root.absolute()} has no test split: pictures and validation use training images")


def split_folder(root, name):
    """The folder `root/name` of a split, or None if there is none.

    A root without folders for its splits is a training split itself.
    """
    if (root / name).is_dir():
        return root / name
    has_parts = any((root / other).is_dir() for other in NAMES["test"])
    if name == "train" and not has_parts:
        return root
    return None


def two_folders(root, name):
    """The folders of A and B of a split, or None if neither is there.

    They are called `trainA` and `trainB`, `train/A` and `train/B`, or `A/train` and
    `B/train`, for the name "train".
    """
    layouts = (
        (f"{name}A", f"{name}B"),
        (f"{name}/A", f"{name}/B"),
        (f"A/{name}", f"B/{name}"),
    )
    for a, b in layouts:
        if (root / a).is_dir() or (root / b).is_dir():
            return root / a, root / b
    return None
