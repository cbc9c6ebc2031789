"""Images with captions: a table or text files in a folder, digits, faces."""

from common.data.augment import NONE
from common.data.decode import SUFFIXES, check_images, fit, list_images, open_image
from common.data.digits import load_digits
from common.data.faces import SOURCE, describe, read_faces
from common.data.files import Names, find_files, read_encoded, read_text, warn_of_encoding
from common.data.items import LazyImages
from common.data.layout import (
    built_in,
    existing_folder,
    expanded,
    find_split,
    not_found,
    split_folder,
)
from common.data.toy import drawn
from common.errors import UserError, say, warn

import csv
import io
import itertools
from collections import defaultdict

import numpy as np

TABLE = "captions.csv"
EXPECTED = (
    f"images with {TABLE} (columns file and caption) or with a .txt of the same name "
    "(a caption in each line)"
)
N_EXAMPLES = 8  # captions that a training run draws pictures of, at most
N_TRIES = 100  # draws of a wrong caption, before it is drawn from those that are wrong
EVERY = 5  # without a test folder, every fifth image is in the test split

# ---- texts as bytes ----

N_BYTES = 256  # values of a byte of UTF-8; 0, which no text contains, is padding
LONGEST = 201  # bytes of a text that are read
ROOM = 8  # zeros at the end of the longest text, so that no text touches the end


def encode(texts):
    """Texts as (N, L) int32 codes: their bytes in UTF-8, padded with zeros.

    Texts are stripped, converted to lower case and cut after LONGEST bytes. L is the
    length of the longest, plus ROOM. A byte of the command line that is no UTF-8
    becomes a question mark.
    """
    all_bytes = [text.strip().lower().encode(errors="replace")[:LONGEST] for text in texts]
    length = max(len(text_bytes) for text_bytes in all_bytes) + ROOM
    codes = np.zeros((len(all_bytes), length), np.int32)
    for code, text_bytes in zip(codes, all_bytes):
        code[: len(text_bytes)] = list(text_bytes)
    return codes


def read_texts(path):
    """The lines of a text file, without empty ones.

    Raises:
        UserError: the file cannot be read, or holds no text.
    """
    texts = lines_of(read_text(expanded(path), may_be_pipe=True))
    if not texts:
        raise UserError(f"{path} holds no text")
    return texts


def lines_of(text):
    """The lines of a text, without empty ones."""
    return [line for line in text.splitlines() if line.strip()]


# ---- digits and their description ----

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
    """Whether a combination never occurs in training.

    This holds for a fifth of all combinations, and for a fifth of those with any one
    digit, colour, stroke or ground.

    Args:
        combination: (digit, colour, stroke, ground), indices as in SHAPE.
    """
    digit, colour, stroke, ground = combination
    return (digit + colour + 2 * stroke + 3 * ground) % len(COLOURS) == 0


def combinations(held_out):
    """(M, 4) int: the combinations that never occur in training, or those that do."""
    every = itertools.product(*(range(n) for n in SHAPE))
    return np.array([c for c in every if is_held_out(c) == held_out])


def descriptions(combination, language="en"):
    """The captions of a combination, one for each phrasing."""
    words = [column[value] for column, value in zip(WORDS[language], combination)]
    return [phrasing.format(*words) for phrasing in PHRASINGS[language]]


def paint(pixels, looks, img_size):
    """Paints digits in colour.

    Args:
        pixels: (N, 28, 28) uint8 digits, white on black.
        looks: (N, 3) int: colour, stroke and ground of each digit, indices as in SHAPE.
        img_size: S.

    Returns:
        (N, 3, S, S) uint8.
    """
    colour, stroke, ground = looks.T
    is_bold = stroke[:, None, None] == 1
    shape = np.where(is_bold, drawn.dilate(pixels, 1), pixels)
    inside = drawn.enlarge(shape, img_size)[:, None] / np.float32(255)
    ink = COLOURS[colour][:, :, None, None]
    paper = GROUNDS[ground].astype(np.float32)[:, :, None, None]
    return np.uint8(paper + (ink - paper) * inside + 0.5)


def described_digits(img_size, split):
    """The digits of `load_digits`, each in a random look.

    The test split has only the combinations that are held out, the training split the
    others.

    Returns:
        Images (N, 3, S, S) uint8, and their combinations (N, 4) int: digit, colour,
        stroke, ground.
    """
    digits = load_digits(None, 28, 1, split=split, n_test=drawn.N_TEST)
    pixels = digits.images[:, 0]
    rng = np.random.default_rng([13, split == "test"])
    allowed = combinations(held_out=split == "test")
    chosen = np.stack([rng.choice(allowed[allowed[:, 0] == label]) for label in digits.labels])
    images = drawn.empty(len(pixels), 3, img_size)
    for chunk in drawn.chunks(len(pixels)):
        images[chunk] = paint(pixels[chunk], chosen[chunk, 1:], img_size)
    return images, chosen


# ---- a folder ----


def read_captions(folder):
    """{image file: list of its captions} for the images below a folder, in their order.

    They come from `captions.csv` (columns file and caption; a file may have several
    rows), or from a text file of the same name for each image.

    Raises:
        UserError: there are no captions, or a table lacks a column.
    """
    files = list_images(folder)
    if (folder / TABLE).is_file():
        captions = from_table(folder, files)
    else:
        captions = from_text_files(folder, files)
    described = {file: captions[file] for file in files if captions.get(file)}
    if not described:
        raise not_found(folder, EXPECTED)
    missing = [file for file in files if file not in described]
    if missing:
        warn(
            f"{len(missing):,} of {len(files):,} images have no caption and are left out: "
            f"{missing[0]}"
        )
    return described


def read_splits(root):
    """{"train": captions, "test": captions}, each as `read_captions` returns them.

    The splits lie in folders `train` and `test`. If there is no folder `train`, every
    fifth image is in the test split.
    """
    if (root / "train").is_dir():
        train = read_captions(root / "train")
        _, folder = find_split(root, "test", lambda name: split_folder(root, name), EXPECTED)
        return {"train": train, "test": read_captions(folder)}
    train = {}
    test = {}
    for i, (file, captions) in enumerate(read_captions(root).items()):
        split = train if i % EVERY else test
        split[file] = captions
    return {"train": train, "test": test}


def from_table(folder, files):
    """{image file: captions} from the folder's table, whose paths start at the folder.

    A name without a folder finds an image in a subfolder too (`Names`).

    Raises:
        UserError: it is no such table, or names none of the images.
    """
    path = folder / TABLE
    rows = read_rows(path)
    names = Names(folder, files, SUFFIXES, path)
    captions = defaultdict(list)
    absent = []
    for name, caption in rows:
        file = names.find(name)
        if file is None:
            absent.append(name)
        elif caption.strip():
            captions[file].append(caption)
    if len(absent) == len(rows):
        raise names.none_found(absent)
    if absent:
        warn(
            f"{len(absent):,} of {len(rows):,} rows of {path} name no image that is there: "
            f"{absent[0]}"
        )
    return captions


def read_rows(path):
    """[(file, caption)] of a table, in its order.

    A caption in the last column may have commas without quotes.

    Raises:
        UserError: it cannot be read, lacks a column, or has a row with more columns
            than its first line.
    """
    text = read_text(path)
    first, _, _ = text.partition("\n")
    has_spaces = ", " in first  # after each comma, and in front of quotes
    try:
        # strict: an open quote would take the rows below it into the caption.
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, skipinitialspace=has_spaces, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}; a caption with quotation marks begins and "
            "ends with one, and has each of its own twice"
        ) from error
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    if len(lines) < 2 or not {"file", "caption"} <= set(header):
        found = ", ".join(lines[0][1]) if len(lines) > 1 else "no rows"
        raise UserError(
            f"{path}: expected a first line with the columns file and caption; found: {found}"
        )
    column = header.index("caption")
    rows = []
    for number, cells in lines[1:]:
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(header):
            if column != len(header) - 1:
                raise UserError(
                    f"{path}, line {number}: {len(cells)} columns, but the first line has "
                    f"{len(header)}; a caption with a comma needs quotation marks around it"
                )
            comma = ", " if has_spaces else ","
            cells[column:] = [comma.join(cells[column:])]
        cells += [""] * (len(header) - len(cells))
        rows.append((cells[header.index("file")], cells[column]))
    return rows


def from_text_files(folder, files):
    """{image file: captions} from text files with the images' names.

    They lie beside the images, or elsewhere below the folder. There, of several files
    of one name, the one in the folder of the same name belongs to an image.

    Raises:
        UserError: a text file may belong to several images, or an image have several.
    """
    texts = find_files(folder, (".txt",), warns=False)  # `list_images` has warned
    owners = {}  # image file: text file
    there = set(texts)
    for file in files:
        text = file.with_suffix(".txt")
        if text in there:
            owners[file] = text
    beside = set(owners.values())
    texts = [text for text in texts if text not in beside]
    owners.update(share_out(folder, [file for file in files if file not in owners], texts))

    captions = {}
    guesses = {}  # encoding: the first file that is read in it
    for file, path in owners.items():
        text, guess = read_encoded(path)
        captions[file] = lines_of(text)
        if guess is not None:
            guesses.setdefault(guess, path)
    for guess, path in guesses.items():
        warn_of_encoding(path, guess)
    return captions


def share_out(folder, files, texts):
    """{image file: text file} for those that have the same name in different folders.

    Those with the most names of folders in common, counted from the file, find each
    other first.

    Raises:
        UserError: there are several of one name, equally near.
    """
    stems = {text.stem for text in texts}
    files = [file for file in files if file.stem in stems]
    start = len(folder.parts)
    deepest = max((len(file.parts) - start for file in files), default=0)
    owners = {}
    for n in range(deepest, 0, -1):  # of names that agree, with that of the file
        groups = defaultdict(lambda: ([], []))
        for kind, paths in enumerate((files, texts)):
            for path in paths:
                names = (*path.parts[start:-1], path.stem)
                groups["/".join(names[-n:])][kind].append(path)
        for some_files, some_texts in groups.values():
            if min(len(some_files), len(some_texts)) == 0:
                continue
            if len(some_files) > 1:
                first, second = some_files[:2]
                raise UserError(f"{some_texts[0]} may be the text of {first} or of {second}")
            if len(some_texts) > 1:
                first, second = some_texts[:2]
                raise UserError(f"the text of {some_files[0]} may be {first} or {second}")
            owners[some_files[0]] = some_texts[0]
        taken = set(owners.values())
        files = [file for file in files if file not in owners]
        texts = [text for text in texts if text not in taken]
    return owners


class CaptionedImages(LazyImages):
    """Images with a caption and a wrong caption.

    An item is an image (C, S, S) uint8, one of its captions, and a caption that it does
    not have, both (L,) int32 as `encode` makes them. The seed chooses the two captions.

    Args:
        images: a list of files, or an array (N, C, S, S) uint8.
        captions: N lists of texts.
        img_size: the side of a square.
        channels: 1 or 3.
        examples: captions of other images, to draw pictures of.
        augment: an `Augment` for images in files.
    """

    def __init__(self, images, captions, img_size, channels, examples, augment=NONE):
        super().__init__()
        self.images = images
        self.captions = captions
        self.in_memory = not isinstance(images, list)
        self.img_size = img_size
        self.channels = channels
        self.examples = examples
        self.augment = augment
        texts = list(dict.fromkeys(itertools.chain.from_iterable(captions)))  # each once
        self.numbers = {text: i for i, text in enumerate(texts)}  # rows of `codes`
        self.codes = encode(texts)

    def __len__(self):
        return len(self.images)

    def load(self, index, seed=0):
        pixels = self.pixels(index, seed)
        rng = np.random.default_rng(seed)
        own = self.captions[index]
        caption = own[rng.integers(len(own))]
        wrong = self.wrong_caption(own, rng)
        return pixels, self.codes[self.numbers[caption]], self.codes[self.numbers[wrong]]

    def wrong_caption(self, own, rng):
        """A caption of another image that is none of an image's own."""
        for _ in range(N_TRIES):
            others = self.captions[rng.integers(len(self))]
            wrong = others[rng.integers(len(others))]
            if wrong not in own:
                return wrong
        left = [text for text in self.numbers if text not in own]
        return left[rng.integers(len(left))]

    def pixels(self, index, seed):
        """An image (C, S, S) uint8, by `augment` and the seed if it is a file's."""
        if self.in_memory:
            return self.images[index]
        size = self.augment.decoded(self.img_size)
        image = open_image(self.images[index], self.channels, at_least=size)
        return self.augment.apply(fit(image, size), self.img_size, seed)


def load_captions(data_dir, img_size, channels=3, language="en", split="train", augment=NONE):
    """Images with captions, as `CaptionedImages`.

    Args:
        data_dir: a folder of images with captions, as `read_splits` finds them. "faces"
            for the built-in faces. "digits" or None for coloured digits; a fifth of
            the combinations is the test split.
        img_size: the side of a square.
        channels: 1 or 3.
        language: "en" or "zh", of the captions of built-in images.
        split: "train" or "test".
        augment: an `Augment` for images in a folder.

    Raises:
        UserError: images or captions are missing or cannot be read, all captions are
            equal, or an image has all of them.
    """
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        source = SOURCE
        drawings = read_faces(split)
        images = drawings.images(img_size, channels)
        captions = [describe(face, language) for face in drawings.attributes]
        unseen = [describe(face, language) for face in read_faces("test").attributes]
    elif word == "digits":
        source = "the digits, coloured"
        images, looks = described_digits(img_size, split)
        if channels == 1:
            images = drawn.grey(images)
        captions = [descriptions(look, language) for look in looks]
        unseen = [descriptions(look, language) for look in combinations(held_out=True)]
    else:
        source = existing_folder(data_dir)
        splits = read_splits(source)
        images = check_images(list(splits[split]), channels)
        captions = [splits[split][file] for file in images]
        unseen = list(splits["test"].values())
    check_captions(images, captions, source, split)
    data = CaptionedImages(images, captions, img_size, channels, choose_examples(unseen), augment)
    say(
        f"Data ({split}): {len(data):,} images from {source}, "
        f"with {len(data.numbers):,} different captions."
    )
    return data


def check_captions(images, captions, source, split):
    """Refuses images for which no caption of the data set is wrong."""
    texts = set(itertools.chain.from_iterable(captions))
    if len(texts) < 2:
        raise UserError(
            f"{source}: expected images with different captions, "
            f"found {len(captions)} for the {split} split"
        )
    for i, group in enumerate(captions):
        if len(set(group)) == len(texts):
            raise UserError(
                f"{images[i]} has all {len(texts)} captions of the {split} split, so none is "
                "wrong for it: it needs fewer, or other images need further ones"
            )


def choose_examples(captions):
    """At most N_EXAMPLES captions, evenly spaced and of different phrasings.

    Args:
        captions: lists of texts.
    """
    step = -(-len(captions) // N_EXAMPLES)  # rounded up
    chosen = captions[::step]
    # On the command line a text with a hyphen at its start would be taken for a flag.
    return [group[i % len(group)].strip().lstrip("-") for i, group in enumerate(chosen)]
