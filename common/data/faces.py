"""Built-in faces: 5,000 drawings with attributes, captions and label maps.

A drawing has 16 x 16 pixels, which are repeated to make it larger, so that they stay
sharp squares. The last 500 faces are the test split. faces5k/README.md says where they
come from, and what their file holds.
"""

from common.data.augment import NONE, sides
from common.data.items import InMemory, LazyImages
from common.errors import UserError, say

from dataclasses import dataclass
from pathlib import Path

import numpy as np

BUNDLED = Path(__file__).parent / "faces5k" / "faces.npz"
SOURCE = "the built-in faces"
SIDE = 16  # of a drawing, in pixels
N_TEST = 500

# The columns of the attributes.
ATTRIBUTES = (
    "Longhaired",
    "Brown_Hair",
    "Blond_Hair",
    "Black_Hair",
    "Red_Hair",
    "Blue_Hair",
    "Green_Hair",
    "Eyeglasses",
    "Beard",
    "Wearing_Hat",
    "Smiling",
    "Skin_Light",
    "Skin_Medium",
    "Skin_Dark",
)
HAIR = ATTRIBUTES[1:7]  # a face has exactly one; its index is the face's class
SKIN = ATTRIBUTES[11:]  # a face has exactly one

# What stargan.py changes if --selected_attrs does not choose. A beard often has nearly
# the colour of the skin, and a hat can hide the hair.
CHOSEN = (*HAIR, "Eyeglasses")

# The classes of the label maps.
PARTS = (
    "background",
    "skin",
    "hair",
    "eyes",
    "mouth",
    "clothes",
    "glasses",
    "hat",
    "beard",
)

# cyclegan.py's domains A and B.
DOMAINS = ("Black_Hair", "Blond_Hair")


@dataclass
class Drawings:
    """Faces at their own size.

    Attributes:
        pixels: (N, 3, 16, 16) uint8.
        attributes: (N, 14) uint8 in {0, 1}, with the columns of ATTRIBUTES.
        parts: (N, 16, 16) uint8, indices of PARTS.
    """

    pixels: np.ndarray
    attributes: np.ndarray
    parts: np.ndarray

    def has(self, name):
        """(N,) whether each face has the attribute of this name."""
        return self.attributes[:, ATTRIBUTES.index(name)] == 1

    def classes(self):
        """(N,) int32, the colour of each face's hair, an index of HAIR."""
        first = ATTRIBUTES.index(HAIR[0])
        return self.attributes[:, first : first + len(HAIR)].argmax(1).astype(np.int32)

    def images(self, img_size, channels):
        """The faces as `Enlarged` images of a size, with 1 or 3 channels."""
        pixels = self.pixels if channels == 3 else grey(self.pixels)
        return Enlarged(pixels, check_size(img_size))


def read_faces(split, n_test=N_TEST):
    """The `Drawings` of a split.

    Args:
        split: "train", or "test" or "val" for the test split.
        n_test: the number of faces in the test split, which are the last ones. With 0,
            the training split has all faces.
    """
    with np.load(BUNDLED) as file:
        keep = slice(None, len(file["index"]) - n_test)
        if split != "train":
            keep = slice(-n_test or -N_TEST, None)
        index = file["index"][keep]
        pixels = file["palette"][index].transpose(0, 3, 1, 2)
        return Drawings(pixels, file["attributes"][keep], file["parts"][index])


def load_faces(img_size, channels, split="train", n_test=0):
    """Faces with the colour of their hair as labels, for models of one image.

    Args:
        img_size: the side S of the images, a multiple of 16, or a pair of equal sides.
        channels: 1 or 3.
        split, n_test: as of `read_faces`.

    Returns:
        An `InMemory` data set: images (N, channels, S, S) uint8, labels (N,) int32.

    Raises:
        UserError: faces of that shape cannot be drawn.
    """
    drawings = read_faces(split, n_test)
    data = InMemory(drawings.images(img_size, channels), drawings.classes())
    say(f"Data ({split}): {len(data):,} images from {SOURCE}.")
    return data


# ---- sizes and colours ----


def check_size(img_size):
    """(S, S) of an `img_size`.

    Raises:
        UserError: it is no square, or S is no multiple of 16.
    """
    height, width = sides(img_size)
    if height != width:
        raise UserError(
            f"{SOURCE} are square, not {height} x {width}: "
            "--img_height and --img_width need images in --data_dir"
        )
    if height % SIDE:
        below = max(height // SIDE * SIDE, SIDE)
        raise UserError(
            f"--img_size {height}: {SOURCE} have {SIDE} x {SIDE} pixels, so it must be a multiple "
            f"of {SIDE}, such as {below} or {below + SIDE}"
        )
    return height, width


def enlarge(pixels, shape):
    """Drawings at a larger size: every pixel becomes a square of whole pixels.

    Where the shape is no multiple of 16, the outermost pixels are repeated around the
    drawing to fill it.

    Args:
        pixels: (..., 16, 16).
        shape: (height, width), not smaller.
    """
    factor = min(shape) // SIDE
    larger = pixels.repeat(factor, axis=-2).repeat(factor, axis=-1)
    margins = [(0, 0)] * (pixels.ndim - 2)
    for side in shape:
        missing = side - factor * SIDE
        margins.append((missing // 2, missing - missing // 2))
    return np.pad(larger, margins, mode="edge")


def grey(pixels):
    """(N, 3, H, W) uint8 as (N, 1, H, W), by Pillow's weights of the three colours."""
    weights = np.array([19595, 38470, 7471], np.uint32)[:, None, None]
    sums = (pixels * weights).sum(axis=1, keepdims=True, dtype=np.uint32)
    return np.uint8((sums + (1 << 15)) >> 16)


class Enlarged:
    """Drawings (N, C, 16, 16) as images (N, C, H, W), which are made when indexed.

    All of them would take gigabytes at the sizes of papers.
    """

    def __init__(self, pixels, shape):
        self.pixels = pixels
        self.larger = shape

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return enlarge(self.pixels[index], self.larger)


class AugmentedFaces(LazyImages):
    """Items of one or more arrays (..., S, S) that are cropped and mirrored equally.

    Args:
        arrays: a tuple of arrays (N, ..., 16, 16).
        img_size: S, a multiple of 16, or a pair of equal sides.
        augment: an `Augment`. A crop moves a face, but keeps the size of its pixels.
    """

    in_memory = True

    def __init__(self, arrays, img_size, augment=NONE):
        super().__init__()
        self.arrays = arrays
        self.img_size = check_size(img_size)
        self.augment = augment

    def __len__(self):
        return len(self.arrays[0])

    def load(self, index, seed=0):
        shape = self.augment.decoded(self.img_size)
        item = []
        for array in self.arrays:
            larger = enlarge(array[index], shape)
            item.append(self.augment.apply(larger, self.img_size, seed))
        return tuple(item)


# ---- for translators ----


def face_pairs(img_size, channels, direction, split, augment=NONE):
    """Pairs of a grey face, A, and the same face in colour, B.

    Args:
        img_size: as of `load_faces`.
        channels: (of inputs, of targets), 1 or 3. With 3, grey has equal channels.
        direction: "AtoB" or "BtoA".
        split: "train"; "val" and "test" are the test split.
        augment: an `Augment`.
    """
    if not set(channels) <= {1, 3}:
        raise UserError(f"{SOURCE} have 1 or 3 channels, not {channels[0]} and {channels[1]}")
    colour = read_faces(split).pixels
    pair = [np.repeat(grey(colour), 3, axis=1), colour]
    if direction == "BtoA":
        pair.reverse()
    arrays = [grey(pixels) if n == 1 else pixels for pixels, n in zip(pair, channels)]
    return AugmentedFaces(tuple(arrays), img_size, augment)


def face_domains(img_size, channels, split, augment=NONE):
    """The faces of each of DOMAINS, two data sets of images."""
    drawings = read_faces(split)
    pixels = drawings.pixels if channels == 3 else grey(drawings.pixels)
    return [AugmentedFaces((pixels[drawings.has(name)],), img_size, augment) for name in DOMAINS]


def face_maps(img_size, channels, split, augment=NONE):
    """Label maps (S, S) int32 with the classes of PARTS, and their faces."""
    drawings = read_faces(split)
    pixels = drawings.pixels if channels == 3 else grey(drawings.pixels)
    return AugmentedFaces((drawings.parts.astype(np.int32), pixels), img_size, augment)


# ---- captions ----

# {0} to {3} stand for the words of a face, and {4} for what else it has. The first
# English sentence is that of the data's source.
WORDS = {
    "en": {
        "mood": ("sad", "happy"),
        "length": ("short", "long"),
        "hair": ("brown", "blond", "black", "red", "blue", "green"),
        "skin": ("light", "medium", "dark"),
    },
    "zh": {
        "mood": ("难过", "开心"),
        "length": ("短", "长"),
        "hair": ("棕色", "金色", "黑色", "红色", "蓝色", "绿色"),
        "skin": ("浅", "中等", "深"),
    },
}
PHRASINGS = {
    "en": (
        "a {mood} face with {length} {hair} hair and {skin} skin{extras}",
        "a {mood} face, {skin} skin, {length} {hair} hair{extras}",
        "someone with {skin} skin and {length} {hair} hair who looks {mood}{extras}",
        "{length} {hair} hair, {skin} skin, a {mood} look{extras}",
        "the {hair} hair is {length}, the skin {skin}, the face {mood}{extras}",
    ),
    "zh": (
        "一张{mood}的脸，{hair}{length}发，{skin}肤色{extras}",
        "一个{hair}{length}发的人，{skin}肤色，看起来很{mood}{extras}",
        "{skin}肤色，{hair}的{length}头发，表情{mood}{extras}",
        "这个人留着{hair}{length}发，肤色{skin}，神情{mood}{extras}",
        "{mood}的表情，{hair}{length}发，{skin}肤色{extras}",
    ),
}
EXTRAS = {  # of a beard, glasses, a hat
    "en": (", with a beard", ", wearing glasses", ", in a hat"),
    "zh": ("，有胡子", "，戴眼镜", "，戴帽子"),
}


def describe(attributes, language="en"):
    """The captions of a face, one for each phrasing.

    Args:
        attributes: (14,) in {0, 1}.
        language: "en" or "zh".
    """
    has = dict(zip(ATTRIBUTES, attributes))
    words = WORDS[language]
    extras = ""
    for name, text in zip(("Beard", "Eyeglasses", "Wearing_Hat"), EXTRAS[language]):
        if has[name]:
            extras += text
    chosen = {
        "mood": words["mood"][int(has["Smiling"])],
        "length": words["length"][int(has["Longhaired"])],
        "hair": words["hair"][[has[name] for name in HAIR].index(1)],
        "skin": words["skin"][[has[name] for name in SKIN].index(1)],
        "extras": extras,
    }
    return [phrasing.format(**chosen) for phrasing in PHRASINGS[language]]
