"""Where the parts of a data set lie, and what is said where one is missing. Every kind of data finds its parts here."""

from common.errors import UserError, warn

from pathlib import Path

NAMES = {
    "train": ("train",),
    "test": ("test", "val"),
    "val": ("val", "test"),
}  # of a part, in the order of search


def existing_folder(path):
    """A path that the user gave, as an existing folder.

    Raises:
        UserError: it is no folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder.absolute()} is not a folder")
    return folder


def not_found(folder, expected):
    """The error of a folder that does not hold what was expected: says what that is, and what is there."""
    names = sorted(f.name for f in folder.iterdir())
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return UserError(f"{folder.absolute()}: expected {expected}; found: {found or 'nothing'}")


def find_part(root, split, look, expected):
    """A part of a data set. Where there is no test part, the training images serve, with a warning.

    Args:
        root: the data set's folder.
        split: "train", "test" or "val"; the last two mean the same, and differ in which name is preferred.
        look: a function of a name, "train", "test" or "val", that gives what lies under it, or None.
        expected: what `root` must hold, in words.

    Returns:
        The name under which something was found ("train" if training images serve), and what it is.

    Raises:
        UserError: there is not even a training part.
    """
    for name in NAMES[split]:
        if (found := look(name)) is not None:
            return name, found
    if split == "train" or (found := look("train")) is None:
        raise not_found(root, expected)
    training_images_serve(root)
    return "train", found


def training_images_serve(root):
    """The warning that no pictures of unseen images can be had."""
    warn(
        f"{root.absolute()} has no test part: pictures, and any validation, are of training images"
    )


def part_folder(root, name):
    """The folder `root/name`. A root that has no parts is a training part itself. None, if it is not there."""
    if (root / name).is_dir():
        return root / name
    has_parts = any((root / other).is_dir() for other in NAMES["test"])
    return root if name == "train" and not has_parts else None


def two_folders(root, name):
    """The folders of A and B: `trainA trainB`, `train/A train/B` or `A/train B/train`; None, if neither is there."""
    for a, b in ((f"{name}A", f"{name}B"), (f"{name}/A", f"{name}/B"), (f"A/{name}", f"B/{name}")):
        if (root / a).is_dir() or (root / b).is_dir():
            return root / a, root / b
    return None
