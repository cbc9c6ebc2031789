"""Data for the three translators, drawn from the bundled digits: no download, and the same pixels in every run.

The bundled digits run through the classes in turn, so the last 500 hold 50 of each: they are every set's test part,
and the first 4,500 its training part. All images are uint8 (N, C, S, S).
"""

from common.data.digits import BUNDLED, read_digits

import numpy as np
from PIL import Image

N_TEST = 500
CHUNK = 100  # digits that are drawn at once: whole sets in floating point would fill gigabytes
COLOURS = np.uint8(  # of the digits 0 to 9 in `outline_pairs`
    [
        [215, 35, 35],  # red
        [250, 145, 20],  # orange
        [235, 215, 45],  # yellow
        [30, 150, 55],  # green
        [45, 200, 215],  # cyan
        [35, 75, 215],  # blue
        [130, 45, 170],  # violet
        [250, 135, 195],  # pink
        [120, 75, 35],  # brown
        [60, 60, 60],  # grey
    ]
)
GROUND = 240  # grey of the plain ground of `outline_pairs`
ATTRIBUTES = ("red", "green", "blue", "bold", "inverted")
ATTRIBUTE_COLOURS = np.array([[235, 45, 45], [40, 200, 60], [60, 90, 245]], np.uint8)
INK, PAPER = np.array([35, 40, 85]), np.array([225, 210, 175])


def bundled_digits(split):
    """The bundled digits of a part, "train" or "test": (N, 28, 28) uint8 and (N,) int32 labels."""
    pixels, labels = read_digits(BUNDLED, "train")
    keep = slice(None, -N_TEST) if split == "train" else slice(-N_TEST, None)
    return pixels[keep], labels[keep].astype(np.int32)


def chunks(n):
    """Slices of at most CHUNK that cover n items in their order."""
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


# ---- pix2pix: outlines and painted digits ----


def outline_pairs(img_size, split):
    """Outlines of digits and the same digits painted, in a colour that only the digit's class tells.

    Returns:
        Outlines (N, 3, S, S), dark lines on white; paintings (N, 3, S, S) in COLOURS on grey; labels (N,).
    """
    pixels, labels = bundled_digits(split)
    outlines, paintings = (
        np.empty((len(labels), 3, img_size, img_size), np.uint8) for _ in range(2)
    )
    for part in chunks(len(labels)):
        outlines[part], paintings[part] = draw_outlines(pixels[part], labels[part], img_size)
    return outlines, paintings, labels


def draw_outlines(pixels, labels, img_size):
    """The outlines and the paintings of (N, 28, 28) digits, as in `outline_pairs`."""
    shape = (
        enlarge(pixels, 2 * img_size) > 127
    )  # at twice the size: halving it at the end smooths the edges
    width = max(1, img_size // 64)
    line = dilate(shape, width) & ~erode(shape, width)
    outlines = np.repeat(halve(np.where(line, 0, 255))[:, None], 3, axis=1)
    colour = COLOURS[labels][:, :, None, None].astype(np.float32)
    inside = halve(np.where(shape, 255, 0))[:, None] / np.float32(255)
    return outlines, np.uint8(GROUND + (colour - GROUND) * inside + 0.5)


# ---- CycleGAN: two unpaired domains ----


def digit_domains(img_size, split, channels=1):
    """White digits on black, and bold dark digits on light textured paper. No digit is in both domains.

    Args:
        channels: 1, or 3 for blue ink on yellowish paper.

    Returns:
        (images, labels) of the white digits, (images, labels) of the inked ones; images (N, channels, S, S).
    """
    pixels, labels = bundled_digits(split)
    half = len(labels) // 2  # a multiple of ten, so that both halves hold every class equally
    white = np.repeat(enlarge(pixels[:half], img_size)[:, None], channels, axis=1)
    inked = np.empty((len(labels) - half, channels, img_size, img_size), np.uint8)
    rng = np.random.default_rng([11, split == "test"])
    for part in chunks(len(inked)):
        sheets = draw_on_paper(pixels[half:][part], img_size, rng)
        inked[part] = grey(sheets) if channels == 1 else sheets
    return (white, labels[:half]), (inked, labels[half:])


def draw_on_paper(pixels, img_size, rng):
    """(N, 28, 28) digits in bold blue ink on paper: light and dark fibres, a different sheet for each."""
    bold = enlarge(dilate(enlarge(pixels, 56), 1), img_size)[:, None] / np.float32(255)
    fine = rng.normal(0, 7, (len(pixels), 1, img_size, img_size)).astype(np.float32)
    fibres = (
        fine + np.roll(fine, 1, axis=3) + np.roll(fine, 2, axis=3)
    )  # noise drawn out to the right
    paper = PAPER[:, None, None] + fibres
    return np.uint8(np.clip(paper + (INK[:, None, None] - paper) * bold, 0, 255) + 0.5)


# ---- StarGAN: attributes ----


def coloured_digits(img_size, split, channels=3):
    """Coloured digits with the attributes of ATTRIBUTES.

    Exactly one of red, green and blue is 1. `bold` strokes are two pixels of the original wider. Colour is the digit's,
    on black, or, `inverted`, the ground's under a white digit. The digit is the brighter part in both: StarGAN's losses
    cannot tell a digit from its complement, and with dark digits on a bright ground it learned to draw the latter.

    Returns:
        Images (N, channels, S, S), attributes (N, 5) int32 in {0, 1}, labels (N,) of the digits.
    """
    pixels, labels = bundled_digits(split)
    rng = np.random.default_rng([12, split == "test"])
    colour = rng.integers(3, size=len(labels))
    bold, inverted = rng.integers(2, size=(2, len(labels)))
    attributes = np.column_stack([np.eye(3, dtype=np.int32)[colour], bold, inverted]).astype(
        np.int32
    )
    images = np.empty((len(labels), channels, img_size, img_size), np.uint8)
    for part in chunks(len(labels)):
        coloured = colour_digits(pixels[part], colour[part], bold[part], inverted[part], img_size)
        images[part] = grey(coloured) if channels == 1 else coloured
    return images, attributes, labels


def colour_digits(pixels, colour, bold, inverted, img_size):
    """(N, 28, 28) digits as (N, 3, S, S), each in its colour, 0 to 2, bold and inverted or not."""
    shape = enlarge(np.where(bold[:, None, None] == 1, dilate(pixels, 1), pixels), img_size)[
        :, None
    ] / np.float32(255)
    paint, swap = (
        ATTRIBUTE_COLOURS[colour].astype(np.float32)[:, :, None, None],
        inverted[:, None, None, None] == 1,
    )
    ground, ink = np.where(swap, paint, 0), np.where(swap, 255, paint)
    return np.uint8(ground + (ink - ground) * shape + 0.5)


# ---- shapes ----


def enlarge(pixels, size):
    """(N, H, W) uint8 as (N, size, size), bicubic."""
    larger = np.empty((len(pixels), size, size), np.uint8)
    for target, image in zip(larger, pixels):
        target[:] = Image.fromarray(image).resize((size, size), Image.BICUBIC)
    return larger


def grey(images):
    """(N, 3, H, W) uint8 as (N, 1, H, W): the mean of the three."""
    return np.uint8(images.mean(axis=1, keepdims=True) + 0.5)


def halve(pixels):
    """(N, 2S, 2S) as (N, S, S) uint8: the mean of every four."""
    wide = pixels.astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    return np.uint8((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4)


def dilate(pixels, radius):
    """(N, H, W) with each pixel the largest within `radius` across, down and along the diagonals."""
    height, width = pixels.shape[1:]
    around = np.pad(pixels, [(0, 0), (radius, radius), (radius, radius)])
    rows = np.maximum.reduce([around[:, s : s + height] for s in range(2 * radius + 1)])
    return np.maximum.reduce([rows[:, :, s : s + width] for s in range(2 * radius + 1)])


def erode(mask, radius):
    """The opposite of `dilate`, of a boolean mask."""
    return ~dilate(~mask, radius)
