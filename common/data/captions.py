"""Images with captions: a folder with a table of them or a text file for each image, or digits described by code."""

from common.data import drawn
from common.data.augment import mirror
from common.data.decode import check_images, fit, list_images, open_image
from common.data.digits import load_digits
from common.data.items import LazyImages
from common.data.layout import existing_folder, find_part, not_found, part_folder
from common.errors import UserError, say, warn

import csv
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np

TABLE = "captions.csv"
EXPECTED = f"images with {TABLE} (columns file and caption) or with a .txt of the same name (a caption in each line)"
N_BYTES = 256  # values of a byte of UTF-8; 0, which no text holds, fills up
LONGEST = 201  # bytes of a caption that are read
ROOM = 8  # zeros at least at the end of each text, so that no text touches the end
N_EXAMPLES = 8  # texts that a training shows, at most
EVERY = 5  # where there is no test folder, each so many-th image is of the test part

# ---- digits described by code ----

COLOURS = np.uint8([[225, 35, 35], [25, 150, 50], [45, 85, 235], [245, 140, 15], [150, 45, 190]])
GROUNDS = np.uint8([[0, 0, 0], [255, 255, 255]])
SHAPE = (10, len(COLOURS), 2, len(GROUNDS))  # digits, colours, thin or bold, grounds
WORDS = {
    "en": [
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        ["red", "green", "blue", "orange", "purple"],
        ["thin", "bold"],
        ["black", "white"],
    ],
    "zh": [
        ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九"],
        ["红色", "绿色", "蓝色", "橙色", "紫色"],
        ["细", "粗"],
        ["黑", "白"],
    ],
}
PHRASINGS = {
    "en": [
        "a {2} {1} {0} on {3}",
        "the {0} is {1}, its strokes {2}, the ground {3}",
        "on {3}: the digit {0}, {2} and {1}",
        "the number {0}, written in {2} {1} on {3}",
        "{2} {1} {0}, {3} background",
    ],
    "zh": [
        "{3}底上的{1}{2}体数字{0}",
        "一个{1}的{0},笔画{2},{3}底",
        "{3}色背景,{2}笔画写的{1}{0}",
        "数字{0},{1},{2}体,{3}色的底",
        "{2}体的{1}{0},写在{3}底上",
    ],
}


def is_held_out(combination):
    """Whether a (digit, colour, stroke, ground) never occurs in training: a fifth of all, and of each value."""
    digit, colour, stroke, ground = combination
    return (digit + colour + 2 * stroke + 3 * ground) % len(COLOURS) == 0


def combinations(held_out):
    """(M, 4) int: the combinations that never occur in training, or those that do."""
    every = itertools.product(*map(range, SHAPE))
    return np.array([c for c in every if is_held_out(c) == held_out])


def descriptions(combination, language="en"):
    """The captions of a combination, one in each phrasing."""
    words = [column[value] for column, value in zip(WORDS[language], combination)]
    return [phrasing.format(*words) for phrasing in PHRASINGS[language]]


def paint(pixels, looks, img_size):
    """(N, 28, 28) digits as (N, 3, S, S) uint8, with (N, 3) colours, strokes and grounds."""
    colour, stroke, ground = looks.T
    shape = np.where(stroke[:, None, None] == 1, drawn.dilate(pixels, 1), pixels)
    inside = drawn.enlarge(shape, img_size)[:, None] / np.float32(255)
    ink, paper = (
        COLOURS[colour][:, :, None, None],
        GROUNDS[ground].astype(np.float32)[:, :, None, None],
    )
    return np.uint8(paper + (ink - paper) * inside + 0.5)


def described_digits(img_size, split, download=False):
    """The digits of `load_digits` in looks drawn at random; in the test part, of the combinations held out.

    Returns:
        Images (N, 3, S, S) uint8 and their combinations (N, 4): digit, colour, stroke, ground.
    """
    digits = load_digits(None, 28, 1, download=download, split=split, n_test=drawn.N_TEST)
    pixels, labels = digits.images[:, 0], digits.labels
    rng, allowed = (
        np.random.default_rng([13, split == "test"]),
        combinations(held_out=split == "test"),
    )
    chosen = np.stack([rng.choice(allowed[allowed[:, 0] == label]) for label in labels])
    images = [paint(pixels[part], chosen[part, 1:], img_size) for part in drawn.chunks(len(labels))]
    return np.concatenate(images), chosen


# ---- captions as numbers ----


def encode(texts):
    """Texts as (N, L) int32: the bytes of their UTF-8 in small letters, cut after LONGEST, and zeros, ROOM at least."""
    rows = [text.strip().lower().encode()[:LONGEST] for text in texts]
    codes = np.zeros((len(rows), max(map(len, rows)) + ROOM), np.int32)
    for code, row in zip(codes, rows):
        code[: len(row)] = list(row)
    return codes


def read_texts(path):
    """The lines of a text file, without empty ones.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise UserError(f"{path} holds no text")
    return texts


# ---- a folder ----


def read_captions(folder):
    """{image file: its captions} below a folder, in the files' order.

    Raises:
        UserError: no captions, or a table without its columns.
    """
    files = list_images(folder)
    captions = (
        from_table(folder, files) if (folder / TABLE).is_file() else from_text_files(folder, files)
    )
    described = {file: captions[file] for file in files if captions.get(file)}
    if not described:
        raise not_found(folder, EXPECTED)
    if len(described) < len(files):
        missing = next(file for file in files if file not in described)
        warn(
            f"{len(files) - len(described):,} of {len(files):,} images have no caption and are left out: {missing}"
        )
    return described


def read_parts(root):
    """{"train", "test": the captions of `read_captions`}; without folders of parts, each fifth image is a test."""
    if (root / "train").is_dir():
        parts = {"train": read_captions(root / "train")}
        _, folder = find_part(root, "test", lambda name: part_folder(root, name), EXPECTED)
        return parts | {"test": read_captions(folder)}
    described = list(read_captions(root).items())
    parts = {"train": [x for i, x in enumerate(described) if i % EVERY], "test": described[::EVERY]}
    return {split: dict(part) for split, part in parts.items()}


def from_table(folder, files):
    path = folder / TABLE
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not rows or not {"file", "caption"} <= set(rows[0]):
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise UserError(
            f"{path}: expected a first line with the columns file and caption; found: {found}"
        )
    places = {file.name: file for file in files} | {
        file.relative_to(folder).as_posix(): file for file in files
    }
    captions = defaultdict(list)
    for row in rows:
        if row["file"] in places and (row["caption"] or "").strip():
            captions[places[row["file"]]].append(row["caption"])
    return captions


def from_text_files(folder, files):
    """Of a text file beside an image, or of one with its stem elsewhere below the folder."""
    stems = {path.stem: path for path in sorted(folder.rglob("*.txt"))}
    captions = {}
    for file in files:
        beside = file.with_suffix(".txt")
        path = beside if beside.is_file() else stems.get(file.stem)
        if path is not None:
            captions[file] = read_texts(path)
    return captions


class CaptionedImages(LazyImages):
    """Items: image (C, S, S) uint8, its caption and one that is none of its captions, both (L,) int32 as of `encode`.

    Which of an image's captions, and which wrong one, depends on the seed.

    Args:
        images: files, or (N, C, S, S) uint8.
        captions: N lists of texts.
        examples: texts of images that are not among these.
        augment: random mirroring.
    """

    def __init__(self, images, captions, img_size, channels, examples, augment=False):
        super().__init__()
        self.examples = examples
        self.images, self.captions, self.in_memory = (
            images,
            captions,
            isinstance(images, np.ndarray),
        )
        self.img_size, self.channels, self.augment = img_size, channels, augment
        texts = list(dict.fromkeys(text for group in captions for text in group))
        self.numbers = {text: i for i, text in enumerate(texts)}
        self.codes = encode(texts)

    def __len__(self):
        return len(self.images)

    def load(self, index, seed=0):
        rng, own = np.random.default_rng(seed), self.captions[index]
        if self.in_memory:
            pixels = self.images[index]
        else:
            pixels = fit(
                open_image(self.images[index], self.channels, at_least=self.img_size), self.img_size
            )
        caption, wrong = own[rng.integers(len(own))], None
        while wrong is None or wrong in own:
            others = self.captions[rng.integers(len(self))]
            wrong = others[rng.integers(len(others))]
        pixels = mirror(pixels, rng) if self.augment else pixels
        return pixels, self.codes[self.numbers[caption]], self.codes[self.numbers[wrong]]


def load_captions(
    data_dir, img_size, channels=3, language="en", split="train", augment=False, download=False
):
    """Images with captions, as CaptionedImages.

    Args:
        data_dir: a folder of images with `captions.csv` (columns file and caption, several rows of a file allowed), or
            with a text file of the same name for each image; `train/` and `test/` in it are its parts, else every
            fifth image is the test part. None for coloured digits, of which a fifth of the combinations is the test.
        language: "en" or "zh", of the digits' captions.
        split: "train" or "test".
        download: of `load_digits`.

    Raises:
        UserError: images or captions are missing or cannot be read; all captions are equal.
    """
    if data_dir is None:
        images, looks = described_digits(img_size, split, download)
        images, source = drawn.grey(images) if channels == 1 else images, "the digits, coloured"
        captions, unseen = (
            [descriptions(c, language) for c in part]
            for part in (looks, combinations(held_out=True))
        )
    else:
        root = source = existing_folder(data_dir)
        parts = read_parts(root)
        images = check_images(list(parts[split]), channels)
        captions, unseen = [parts[split][file] for file in images], list(parts["test"].values())
    if not any(set(group) - set(captions[0]) for group in captions):
        raise UserError(
            f"{source}: expected images with different captions, found {len(captions)} for the {split} part"
        )
    chosen = unseen[:: -(-len(unseen) // N_EXAMPLES)]
    examples = [group[i % len(group)].strip().lstrip("-") for i, group in enumerate(chosen)]
    data = CaptionedImages(images, captions, img_size, channels, examples, augment)
    say(
        f"Data ({split}): {len(data):,} images from {source}, with {len(data.numbers):,} different captions."
    )
    return data
