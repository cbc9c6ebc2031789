"""Images with attributes: CelebA's layout, a folder for each domain, or coloured digits."""

from common.data.augment import mirror, square
from common.data.decode import check_images, fit, list_images, open_picture
from common.data.drawn import ATTRIBUTES, coloured_digits
from common.data.items import LazyImages
from common.data.layout import (
    existing_folder,
    find_part,
    not_found,
    part_folder,
    training_images_serve,
)
from common.errors import UserError, say

import csv
import difflib
from dataclasses import dataclass

import numpy as np

LIST = "list_attr_celeba"
IMAGES = ("img_align_celeba", "images")
TEST_PART = (
    2000  # images of CelebA's end that are not trained on, as in the authors' code; at most a tenth
)


@dataclass
class Table:
    """The attributes of a data set.

    Attributes:
        values: (N, A) float32 in {0, 1}.
        names: of the A attributes.
        exclusive: names among them of which an image has at most one, such as colours of hair; [] if there are none.
        exactly_one: whether every training image has one of `exclusive`. A bald head has no colour of hair.
    """

    values: np.ndarray
    names: list
    exclusive: list
    exactly_one: bool


def load_attributes(data_dir, img_size, channels, selected=None, split="train", flip=False):
    """Images (B, channels, H, W) in [-1, 1] with attributes (B, A) float32 in {0, 1}.

    Args:
        data_dir: a folder with `img_align_celeba/` and `list_attr_celeba.txt` (or .csv), or with one folder for each
            domain, also within `train/` and `test/`. None for coloured digits.
        img_size: a number, or (height, width), which digits have as a square alone.
        selected: names of the attributes, in their order; all domains, if None.
        split: "train" or "test". Of CelebA, the end of the list is the test part. Of folders, where there is no test
            part, training images serve, with a warning.
        flip: random mirroring, of images but never of digits.

    Returns:
        The data set, with `attributes` (N, A), `names`, `exclusive` and `exactly_one` as in Table.

    Raises:
        UserError: the list or a column is missing, an attribute has one value only, there is nothing to read.
    """
    if data_dir is None:
        images, table = read_coloured_digits(selected, split, square(img_size), channels)
        data, source = (
            AttributeImages(images, table, img_size, channels),
            "the bundled digits, coloured",
        )
    else:
        root = existing_folder(data_dir)
        files, table = (read_celeba if find_list(root) else read_domains)(
            root, selected, split, channels
        )
        data, source = AttributeImages(files, table, img_size, channels, flip), root
    report(data, source, split)
    return data


def report(data, source, split):
    """Prints how many images have each attribute; one that all or none have teaches nothing."""
    counts = data.attributes.sum(0).astype(int)
    listed = ", ".join(f"{name} {count:,}" for name, count in zip(data.names, counts))
    say(f"Data ({split}): {len(data):,} images from {source}: {listed}.")
    for name, count in zip(data.names, counts):
        if split == "train" and count in (0, len(data)):
            which = "no image has" if count == 0 else "every image has"
            raise UserError(
                f"{source}: {which} the attribute {name}; it cannot be learnt, leave it out"
            )


def choose(available, selected, where):
    """Indices of the selected names among the available ones."""
    if selected is None:
        return list(range(len(available)))
    for name in selected:
        if name not in available:
            near = (
                difflib.get_close_matches(name, available, n=3, cutoff=0.4) or list(available)[:8]
            )
            raise UserError(f"--selected_attrs: {where} has no {name}; nearest: {', '.join(near)}")
        if selected.count(name) > 1:
            raise UserError(f"--selected_attrs names {name} twice")
    return [list(available).index(name) for name in selected]


def read_coloured_digits(selected, split, img_size, channels):
    """Images (N, channels, S, S) uint8, and their table."""
    images, attributes, _ = coloured_digits(img_size, split, channels)
    columns = choose(ATTRIBUTES, selected, "the coloured digits")
    names = [ATTRIBUTES[i] for i in columns]
    colours = [name for name in names if name in ATTRIBUTES[:3]]
    return images, Table(
        attributes[:, columns].astype(np.float32), names, colours, len(colours) == 3
    )


# ---- CelebA ----


def find_list(root):
    """CelebA's table of attributes, or None; a folder of its images without the table is an error."""
    for name in (f"{LIST}.txt", f"{LIST}.csv", f"Anno/{LIST}.txt"):
        if (root / name).is_file():
            return root / name
    if (root / IMAGES[0]).is_dir():
        raise not_found(root, f"{LIST}.txt beside {IMAGES[0]}/")
    return None


def read_celeba(root, selected, split, channels):
    """Files and their table; the hair colours exclude each other."""
    path = find_list(root)
    folder = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    if folder is None:
        raise not_found(root, f"{IMAGES[0]}/ with the images beside {path.name}")
    if (folder / folder.name).is_dir():  # some archives unpack to a folder within itself
        folder = folder / folder.name
    header, rows = read_table(path)
    columns = choose(header, selected, path)
    names = [header[i] for i in columns]
    hair = [name for name in names if name.endswith("_Hair")]
    present = {str(f.relative_to(folder)): f for f in list_images(folder)}
    files = [present[name] for name, _ in rows if name in present]
    if not files:
        raise UserError(f"none of the {len(rows)} images that {path} lists lies in {folder}")
    values = np.array([values for name, values in rows if name in present], np.float32)[:, columns]
    first_of_test = len(files) - min(TEST_PART, len(files) // 10)
    exclusive = hair if len(hair) > 1 else []
    colours = values[:first_of_test, [names.index(name) for name in exclusive]]
    kept = range(first_of_test)
    if split != "train" and first_of_test < len(files):
        kept = range(first_of_test, len(files))
    elif split != "train":
        training_images_serve(root)
    good = set(check_images([files[i] for i in kept], channels))
    kept = [i for i in kept if files[i] in good]
    exactly_one = bool(exclusive) and bool((colours.sum(1) == 1).all())
    return [files[i] for i in kept], Table(values[kept], names, exclusive, exactly_one)


def read_table(path):
    """The attributes' names, and (file name, values in {0, 1}) of each row; CelebA's own format or comma-separated."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".csv":
        lines = [row for row in csv.reader(text.splitlines()) if row]
    else:
        lines = [line.split() for line in text.splitlines() if line.strip()]
        if lines and len(lines[0]) == 1 and lines[0][0].isdigit():
            lines = lines[1:]  # the number of images
    if len(lines) < 2:
        raise UserError(f"{path} lists no images")
    n_values = len(lines[1]) - 1
    header = lines[0][
        len(lines[0]) - n_values :
    ]  # a comma-separated file names the first column too
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if (
            len(line) != n_values + 1
            or len(header) != n_values
            or not set(line[1:]) <= {"1", "-1", "0"}
        ):
            raise UserError(
                f"{path}, row {number}: expected a file name and {len(header)} values of 1 or -1"
            )
        rows.append((line[0], [float(value == "1") for value in line[1:]]))
    return header, rows


# ---- a folder for each domain ----


def read_domains(root, selected, split, channels):
    """Files and their table; all attributes, the folders' names, exclude each other."""
    expected = f"{LIST}.txt, or two or more folders, one for each domain"

    def look(name):
        part = part_folder(root, name)
        return part and domain_folders(part)

    _, folders = find_part(root, split, look, expected)
    if len(folders) < 2:
        raise not_found(root, expected)
    columns = choose([f.name for f in folders], selected, folders[0].parent)
    files, domains = [], []
    for k, folder in enumerate(folders[i] for i in columns):
        found = check_images(list_images(folder), channels)
        files += found
        domains += [k] * len(found)
    names = [folders[i].name for i in columns]
    return files, Table(np.eye(len(names), dtype=np.float32)[domains], names, names, True)


def domain_folders(part):
    return sorted(f for f in part.iterdir() if f.is_dir() and not f.name.startswith("."))


class AttributeImages(LazyImages):
    """Images with attributes: items (image (C, H, W) uint8, (A,) float32 in {0, 1}).

    Args:
        images: files, or (N, C, H, W) uint8.
        table: a Table with a row for each of them.
        flip: random mirroring, of files.
    """

    def __init__(self, images, table, img_size, channels, flip=False):
        super().__init__()
        self.images, self.in_memory = images, isinstance(images, np.ndarray)
        self.attributes, self.names = table.values, table.names
        self.exclusive, self.exactly_one = table.exclusive, table.exactly_one
        self.img_size, self.channels, self.flip = img_size, channels, flip

    def __len__(self):
        return len(self.images)

    def load(self, index, seed=0):
        if self.in_memory:
            return self.images[index], self.attributes[index]
        pixels = fit(
            open_picture(self.images[index], self.channels, at_least=self.img_size), self.img_size
        )
        return mirror(
            pixels, np.random.default_rng(seed)
        ) if self.flip else pixels, self.attributes[index]
