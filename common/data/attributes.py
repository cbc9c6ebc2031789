"""Images with attributes: CelebA, a folder for each domain, coloured digits, faces."""

from common.data.augment import mirror, square
from common.data.decode import SUFFIXES, check_images, fit, list_images, open_picture
from common.data.faces import ATTRIBUTES as FACE_ATTRIBUTES
from common.data.faces import CHOSEN, SOURCE, read_faces
from common.data.files import Names, is_data, read_text
from common.data.items import LazyImages
from common.data.layout import (
    built_in,
    existing_folder,
    find_split,
    not_found,
    split_folder,
    warn_of_missing_test_split,
)
from common.data.toy.drawn import ATTRIBUTES, coloured_digits
from common.errors import UserError, say

import csv
import difflib
import io
from dataclasses import dataclass

import numpy as np

LIST = "list_attr_celeba"  # CelebA's table of attributes, a .txt or .csv file
IMAGES = ("img_align_celeba", "images")  # folders of its images, in the order of search

# So many images at the end of CelebA's list are the test split, as in the authors'
# code; of a short list, a tenth of it.
N_TEST = 2000


@dataclass
class Table:
    """The attributes of a data set.

    Attributes:
        values: (N, A) float32 in {0, 1}.
        names: the names of the A attributes.
        exclusive: those names of which an image has at most one, such as hair colours.
            [] if there are none.
        exactly_one: whether every training image has one of `exclusive`. A bald person
            has no hair colour.
    """

    values: np.ndarray
    names: list
    exclusive: list
    exactly_one: bool


def load_attributes(data_dir, img_size, channels, selected=None, split="train", flip=False):
    """Images with attributes.

    A batch is images (B, channels, H, W) float32 in [-1, 1] and attributes (B, A)
    float32 in {0, 1}.

    Args:
        data_dir: a folder with `img_align_celeba/` and `list_attr_celeba.txt` (or
            .csv), or with one folder for each domain, which may lie in `train/` and
            `test/`. "faces" for the built-in faces, "digits" or None for coloured
            digits.
        img_size: the side of a square or (height, width). Built-in images are square.
        channels: 1 or 3.
        selected: names of attributes, in the order of the columns (default: all; of
            the faces, those of `faces.CHOSEN`).
        split: "train" or "test". The test split of CelebA is the end of its list.
            Folders without a test split use their training images, with a warning.
        flip: whether to mirror images at random. Digits are never mirrored.

    Returns:
        An `AttributeImages`. It has `attributes` (N, A), and `names`, `exclusive` and
        `exactly_one` as in `Table`.

    Raises:
        UserError: the list or a column is missing, an attribute has only one value, or
            there is nothing to read.
    """
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        drawings = read_faces(split)
        table = faces_table(drawings, selected)
        source = SOURCE
        images = drawings.images(img_size, channels)
        data = AttributeImages(images, table, img_size, channels, flip)
    elif word == "digits":
        images, table = read_coloured_digits(selected, split, square(img_size), channels)
        source = "the bundled digits, coloured"
        data = AttributeImages(images, table, img_size, channels)
    else:
        source = existing_folder(data_dir)
        read = read_domains if find_list(source) is None else read_celeba
        files, table = read(source, selected, split, channels)
        data = AttributeImages(files, table, img_size, channels, flip)
    report(data, source, split)
    return data


def report(data, source, split):
    """Prints how many images have each attribute.

    Raises:
        UserError: all training images have an attribute, or none of them. A network
            cannot learn it then.
    """
    counts = data.attributes.sum(axis=0).astype(int)
    listed = ", ".join(f"{name} {count:,}" for name, count in zip(data.names, counts))
    say(f"Data ({split}): {len(data):,} images from {source}: {listed}.")
    if split != "train":
        return
    for name, count in zip(data.names, counts):
        if count in (0, len(data)):
            which = "no image has" if count == 0 else "every image has"
            raise UserError(
                f"{source}: {which} the attribute {name}; it cannot be learnt, leave it out"
            )


def choose(available, selected, where):
    """The indices of the selected names among the available ones.

    Args:
        available: a sequence of names.
        selected: a list of names, or None for all.
        where: what the available names belong to, for the error.

    Raises:
        UserError: a name is not available or occurs twice.
    """
    available = list(available)
    if selected is None:
        return list(range(len(available)))
    for name in selected:
        if name not in available:
            nearest = difflib.get_close_matches(name, available, n=3, cutoff=0.4)
            listed = ", ".join(nearest or available[:8])
            raise UserError(f"--selected_attrs: {where} has no {name}; nearest: {listed}")
        if selected.count(name) > 1:
            raise UserError(f"--selected_attrs names {name} twice")
    return [available.index(name) for name in selected]


def read_coloured_digits(selected, split, img_size, channels):
    """Coloured digits (N, channels, S, S) uint8, and their `Table`."""
    images, attributes, _ = coloured_digits(img_size, split, channels)
    columns = choose(ATTRIBUTES, selected, "the coloured digits")
    names = [ATTRIBUTES[i] for i in columns]
    colours = [name for name in names if name in ATTRIBUTES[:3]]
    values = attributes[:, columns].astype(np.float32)
    # Without all three colours in the table, a digit can have none of them.
    return images, Table(values, names, exclusive=colours, exactly_one=len(colours) == 3)


def faces_table(drawings, selected):
    """The `Table` of built-in faces. Hair colours exclude each other."""
    columns = choose(FACE_ATTRIBUTES, list(selected or CHOSEN), SOURCE)
    names = [FACE_ATTRIBUTES[i] for i in columns]
    values = drawings.attributes[:, columns].astype(np.float32)
    return Table(values, names, *hair_colours(names, values))


def hair_colours(names, values):
    """Which attributes exclude each other, and whether every image has one of them.

    Args:
        names: of the A attributes.
        values: (N, A) in {0, 1}, of the training images.
    """
    exclusive = [name for name in names if name.endswith("_Hair")]
    if len(exclusive) < 2:  # a single colour excludes nothing
        return [], False
    colours = values[:, [names.index(name) for name in exclusive]]
    return exclusive, bool((colours.sum(axis=1) == 1).all())


# ---- CelebA ----


def find_list(root):
    """The file with CelebA's table of attributes, or None if this is not CelebA.

    Raises:
        UserError: CelebA's images are there, but not the table.
    """
    for name in (f"{LIST}.txt", f"{LIST}.csv", f"Anno/{LIST}.txt"):
        if (root / name).is_file():
            return root / name
    if (root / IMAGES[0]).is_dir():
        raise not_found(root, f"{LIST}.txt beside {IMAGES[0]}/")
    return None


def find_images(root, table):
    """The folder of CelebA's images.

    Args:
        table: the file of `find_list`, for the error.
    """
    for name in IMAGES:
        folder = root / name
        if (folder / name).is_dir():  # some archives unpack to a folder within itself
            return folder / name
        if folder.is_dir():
            return folder
    raise not_found(root, f"{IMAGES[0]}/ with the images beside {table.name}")


def read_celeba(root, selected, split, channels):
    """The image files of a split and their `Table`. Hair colours exclude each other."""
    path = find_list(root)
    folder = find_images(root, path)
    header, rows = read_table(path)
    columns = choose(header, selected, path)
    names = [header[i] for i in columns]

    present = Names(folder, list_images(folder), SUFFIXES, path)
    files = []
    listed = []  # their values
    for name, row in rows:
        file = present.find(name)
        if file is not None:
            files.append(file)
            listed.append(row)
    if not files:
        raise present.none_found([name for name, _ in rows])
    values = np.array(listed, np.float32)[:, columns]

    n_train = len(files) - min(N_TEST, len(files) // 10)
    exclusive, exactly_one = hair_colours(names, values[:n_train])

    kept = range(n_train)
    if split != "train":
        if n_train < len(files):
            kept = range(n_train, len(files))
        else:
            warn_of_missing_test_split(root)
    readable = set(check_images([files[i] for i in kept], channels))
    kept = [i for i in kept if files[i] in readable]
    return [files[i] for i in kept], Table(values[kept], names, exclusive, exactly_one)


def read_table(path):
    """Reads a table of attributes, in CelebA's format or comma-separated.

    CelebA's values of 1 and -1 become 1.0 and 0.0.

    Returns:
        The attributes' names, and a list of (file name, values in {0.0, 1.0}).

    Raises:
        UserError: the file cannot be read, lists nothing, has other separators, or has
            a row that does not fit.
    """
    lines = split_lines(path)
    if len(lines) < 2:
        raise UserError(f"{path} lists no images")
    check_separator(path, lines[1])
    # A .csv names the column of files too; in a .txt, spaces may divide a file's name.
    n_values = min(len(lines[1]) - 1, len(lines[0]))
    header = lines[0][len(lines[0]) - n_values :]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        values = line[len(line) - n_values :]
        name = line[: len(line) - n_values]
        is_complete = len(name) == 1 or (len(name) > 1 and path.suffix != ".csv")
        if not is_complete or not set(values) <= {"1", "-1", "0"}:
            raise UserError(
                f"{path}, row {number}: expected a file name and {len(header)} values of 1 or -1; "
                f"found: {', '.join(line[:5])}"
            )
        rows.append((" ".join(name), [float(value == "1") for value in values]))
    return header, rows


def check_separator(path, cells):
    """Refuses a table whose columns are separated in another way than its suffix says.

    Args:
        cells: its second line.
    """
    expected = "commas" if path.suffix == ".csv" else "spaces"
    for separator, found in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        is_separator = any(cell.endswith(separator) for cell in cells[:-1])
        if is_separator or (len(cells) == 1 and separator in cells[0]):
            raise UserError(
                f"{path}: its columns are separated by {found}; those of a {path.suffix} file are "
                f"separated by {expected}"
            )


def split_lines(path):
    """The lines of a table as lists of texts, without empty lines."""
    text = read_text(path)
    if path.suffix == ".csv":
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        return [[cell.strip() for cell in row] for row in rows if row]
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if lines and len(lines[0]) == 1 and lines[0][0].isdigit():
        lines = lines[1:]  # CelebA's first line is the number of images
    return lines


# ---- one folder for each domain ----


def read_domains(root, selected, split, channels):
    """The image files of a split and their `Table`.

    The attributes are the names of the folders, and all exclude each other.
    """
    expected = f"{LIST}.txt, or two or more folders, one for each domain"

    def look(name):
        folder = split_folder(root, name)
        return None if folder is None else domain_folders(folder)

    _, folders = find_split(root, split, look, expected)
    if len(folders) < 2:
        raise not_found(root, expected)
    columns = choose([folder.name for folder in folders], selected, folders[0].parent)
    folders = [folders[i] for i in columns]

    files = []
    domains = []  # the index of each file's folder
    for k, folder in enumerate(folders):
        readable = check_images(list_images(folder), channels)
        files += readable
        domains += [k] * len(readable)
    names = [folder.name for folder in folders]
    values = np.eye(len(names), dtype=np.float32)[domains]
    return files, Table(values, names, exclusive=names, exactly_one=True)


def domain_folders(folder):
    """The folders in a folder, sorted, without those that hold no data."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and is_data(f.name))


class AttributeImages(LazyImages):
    """Images with attributes: items (image (C, H, W) uint8, (A,) float32 in {0, 1}).

    Args:
        images: a list of files, or an array (N, C, H, W) uint8.
        table: the `Table` of these images.
        img_size: the side of a square or (height, width).
        channels: 1 or 3.
        flip: whether to mirror images at random.
    """

    def __init__(self, images, table, img_size, channels, flip=False):
        super().__init__()
        self.images = images
        self.in_memory = not isinstance(images, list)
        self.attributes = table.values
        self.names = table.names
        self.exclusive = table.exclusive
        self.exactly_one = table.exactly_one
        self.img_size = img_size
        self.channels = channels
        self.flip = flip

    def __len__(self):
        return len(self.images)

    def load(self, index, seed=0):
        if self.in_memory:
            pixels = self.images[index]
        else:
            image = open_picture(self.images[index], self.channels, at_least=self.img_size)
            pixels = fit(image, self.img_size)
        if self.flip:
            pixels = mirror(pixels, np.random.default_rng(seed))
        return pixels, self.attributes[index]
