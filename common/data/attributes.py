"""Images with attributes: CelebA's layout, a folder for each domain, or coloured digits."""

import csv
import difflib
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.decode import check_images, fit, list_images, open_image, to_float
from common.data.drawn import ATTRIBUTES, coloured_digits
from common.data.folders import LazyImages
from common.errors import UserError, say

LIST = "list_attr_celeba"
IMAGES = ("img_align_celeba", "images")
TEST_PART = 2000  # images of CelebA's end that are not trained on, as in the authors' code; at most a tenth


def load_attributes(data_dir, img_size, channels, selected=None, split="train", augment=False):
    """Images (B, channels, img_size, img_size) in [-1, 1] with attributes (B, A) float32 in {0, 1}.

    Args:
        data_dir: a folder with `img_align_celeba/` and `list_attr_celeba.txt` (or .csv), or with one folder for each
            domain, also within `train/` and `test/`. None for coloured digits.
        selected: names of the attributes, in their order; all domains, if None.
        augment: random mirroring, of images but never of digits.

    Returns:
        The data set, with `names`, `exclusive` (names of which an image has exactly one) and `attributes` (N, A).

    Raises:
        UserError: the list or a column is missing, an attribute has one value only, there is nothing to read.
    """
    if data_dir is None:
        images, attributes, _ = coloured_digits(img_size, split)
        columns = choose(ATTRIBUTES, selected, "the coloured digits")
        images = images if channels == 3 else np.uint8(images.mean(1, keepdims=True) + 0.5)
        data = AttributeImages(images, attributes[:, columns], [ATTRIBUTES[i] for i in columns],
                               list(ATTRIBUTES[:3]), img_size, channels)  # fmt: skip
        source = "the bundled digits, coloured"
    else:
        root = Path(data_dir).expanduser()
        if not root.is_dir():
            raise UserError(f"--data_dir {root.absolute()} is not a folder")
        read = read_celeba if find_list(root) else read_domains
        files, attributes, names, exclusive = read(root, selected, split, channels)
        data, source = AttributeImages(files, attributes, names, exclusive, img_size, channels, augment), root
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
            raise UserError(f"{source}: {which} the attribute {name}; it cannot be learnt, leave it out")


def choose(available, selected, where):
    """Indices of the selected names among the available ones."""
    if selected is None:
        return list(range(len(available)))
    for name in selected:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=3, cutoff=0.4) or list(available)[:8]
            raise UserError(f"--selected_attrs: {where} has no {name}; nearest: {', '.join(near)}")
        if selected.count(name) > 1:
            raise UserError(f"--selected_attrs names {name} twice")
    return [list(available).index(name) for name in selected]


# ---- CelebA ----


def find_list(root):
    """CelebA's table of attributes, or None; a folder of its images without the table is an error."""
    for name in (f"{LIST}.txt", f"{LIST}.csv", f"Anno/{LIST}.txt"):
        if (root / name).is_file():
            return root / name
    if (root / IMAGES[0]).is_dir():
        raise UserError(f"{root.absolute()} holds {IMAGES[0]}/, but not {LIST}.txt beside it")
    return None


def read_celeba(root, selected, split, channels):
    """Files, attributes (N, A), names, and the hair colours among them, which exclude each other."""
    path = find_list(root)
    folder = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root.absolute()} holds {path.name}, but no {IMAGES[0]}/ with the images")
    if (folder / folder.name).is_dir():  # some archives unpack to a folder within itself
        folder = folder / folder.name
    header, rows = read_table(path)
    columns = choose(header, selected, path)
    present = {str(f.relative_to(folder)): f for f in list_images(folder)}
    kept = [(present[name], values) for name, values in rows if name in present]
    if not kept:
        raise UserError(f"none of the {len(rows)} images that {path} lists lies in {folder}")
    n_test = min(TEST_PART, len(kept) // 10)
    kept = kept[len(kept) - n_test :] if split == "test" and n_test else kept[: len(kept) - n_test]
    good = set(check_images([file for file, _ in kept], channels))
    files = [file for file, _ in kept if file in good]
    attributes = np.array([values for file, values in kept if file in good], np.float32)[:, columns]
    names = [header[i] for i in columns]
    hair = [name for name in names if name.endswith("_Hair")]
    return files, attributes, names, hair if len(hair) > 1 else []


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
    header = lines[0][len(lines[0]) - n_values :]  # a comma-separated file names the first column too
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != n_values + 1 or len(header) != n_values or not set(line[1:]) <= {"1", "-1", "0"}:
            raise UserError(f"{path}, row {number}: expected a file name and {len(header)} values of 1 or -1")
        rows.append((line[0], [float(value == "1") for value in line[1:]]))
    return header, rows


# ---- a folder for each domain ----


def read_domains(root, selected, split, channels):
    """Files, one-hot attributes (N, A), the folders' names, and all of them again as exclusive."""
    part = next((root / name for name in ([split] if split == "train" else ["test", "val", "train"])
                 if (root / name).is_dir()), root)  # fmt: skip
    folders = sorted(f for f in part.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(folders) < 2:
        found = ", ".join(sorted(f.name for f in part.iterdir())[:5]) or "nothing"
        raise UserError(
            f"{part.absolute()} holds neither {LIST}.txt nor two or more folders, one for each domain; found: {found}"
        )
    columns = choose([f.name for f in folders], selected, part)
    files, attributes = [], []
    for k, folder in enumerate(folders[i] for i in columns):
        found = check_images(list_images(folder), channels)
        files += found
        attributes += [np.eye(len(columns), dtype=np.float32)[k]] * len(found)
    names = [folders[i].name for i in columns]
    return files, np.array(attributes), names, names


class AttributeImages(LazyImages):
    """Images, as files or as a uint8 array (N, C, S, S), and their attributes (N, A)."""

    def __init__(self, images, attributes, names, exclusive, img_size, channels, augment=False):
        self.images, self.attributes = images, attributes.astype(np.float32)
        self.names, self.exclusive = list(names), [name for name in exclusive if name in names]
        self.img_size, self.channels, self.augment = img_size, channels, augment

    def __len__(self):
        return len(self.images)

    def load(self, index, seed=0):
        if isinstance(self.images, np.ndarray):
            return self.images[index], self.attributes[index]
        try:
            pixels = fit(open_image(self.images[index], self.channels, self.img_size), self.img_size)
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.images[index]} can no longer be read: {error}") from error
        if self.augment and int(seed) % 2:
            pixels = pixels[..., ::-1]
        return pixels, self.attributes[index]

    def stream(self, chunks, seeds):
        """As in LazyImages; images that lie in memory need no threads."""
        if not isinstance(self.images, np.ndarray):
            yield from super().stream(chunks, seeds)
        else:
            for indices in chunks:
                yield to_float(self.images[indices]), self.attributes[indices]
