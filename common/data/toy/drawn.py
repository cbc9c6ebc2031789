"""Data for three translators, drawn from the bundled digits.

They need no download, and have the same pixels in every run. The bundled digits run
through the classes in turn, so the last 500 hold 50 of each: they are the test split of
every set, and the first 4,500 the training split. All images are uint8 (N, C, S, S).
"""

from common.data.digits import BUNDLED, read_digits
from common.errors import UserError

import numpy as np
from PIL import Image

N_TEST = 500
LARGEST_SET = 1 << 30  # bytes of a set's images; at 256 x 256 all sets have fewer
CHUNK = 100  # digits that are drawn at once: whole sets of floats would fill gigabytes

# The digits' colours in `outline_pairs`, and the grey of their background.
COLOURS = np.uint8(
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
GROUND = 240

# The attributes of `coloured_digits`, and RGB of the first three.
ATTRIBUTES = ("red", "green", "blue", "bold", "inverted")
ATTRIBUTE_COLOURS = np.array([[235, 45, 45], [40, 200, 60], [60, 90, 245]], np.uint8)

# RGB of ink and paper in `digit_domains`.
INK = np.array([35, 40, 85])
PAPER = np.array([225, 210, 175])


def bundled_digits(split):
    """The bundled digits of a split.

    Args:
        split: "train" or "test".

    Returns:
        (N, 28, 28) uint8, white on black, and labels (N,) int32.
    """
    pixels, labels = read_digits(BUNDLED, "train")
    keep = slice(None, -N_TEST) if split == "train" else slice(-N_TEST, None)
    return pixels[keep], labels[keep].astype(np.int32)


def empty(n, channels, img_size):
    """Memory for images (N, channels, S, S) uint8.

    Raises:
        UserError: it is more than a drawn set may take. The size may be that of a
            stranger's checkpoint.
    """
    n_bytes = n * channels * img_size**2
    if n_bytes > LARGEST_SET:
        raise UserError(
            f"{n:,} drawn images of {img_size} x {img_size} would take {n_bytes:,} bytes of "
            f"memory, and at most {LARGEST_SET:,} are used: lower --img_size"
        )
    return np.empty((n, channels, img_size, img_size), np.uint8)


def chunks(n):
    """Slices of at most CHUNK items that cover n items in their order."""
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


# ---- pix2pix: outlines and painted digits ----


def outline_pairs(img_size, split):
    """Outlines of digits, and the same digits painted.

    The colour of a painting depends on the digit's class, which the outline shows only
    by its shape.

    Args:
        img_size: S.
        split: "train" or "test".

    Returns:
        Outlines (N, 3, S, S), dark lines on white; paintings (N, 3, S, S) in COLOURS on
        grey; labels (N,).
    """
    pixels, labels = bundled_digits(split)
    outlines = empty(len(labels), 3, img_size)
    paintings = np.empty_like(outlines)
    for chunk in chunks(len(labels)):
        outlines[chunk], paintings[chunk] = draw_outlines(pixels[chunk], labels[chunk], img_size)
    return outlines, paintings, labels


def draw_outlines(pixels, labels, img_size):
    """Outlines and paintings of digits, as in `outline_pairs`.

    Args:
        pixels: (N, 28, 28) uint8.
        labels: (N,) int.
        img_size: S.
    """
    # At twice the size, so that halving it at the end makes the edges smooth.
    shape = enlarge(pixels, 2 * img_size) > 127
    width = max(1, img_size // 64)
    line = dilate(shape, width) & ~erode(shape, width)
    outlines = halve(np.where(line, 0, 255))[:, None]
    inside = halve(np.where(shape, 255, 0))[:, None] / np.float32(255)
    colour = COLOURS[labels][:, :, None, None].astype(np.float32)
    paintings = np.uint8(GROUND + (colour - GROUND) * inside + 0.5)
    return np.repeat(outlines, 3, axis=1), paintings


# ---- CycleGAN: two unpaired domains ----


def digit_domains(img_size, split, channels=1):
    """White digits on black, and bold dark digits on light textured paper.

    No digit is in both domains.

    Args:
        img_size: S.
        split: "train" or "test".
        channels: 1; or 3 for blue ink on yellowish paper.

    Returns:
        (images, labels) of the white digits and (images, labels) of the inked ones.
        Images are (N, channels, S, S).
    """
    pixels, labels = bundled_digits(split)
    half = len(labels) // 2  # a multiple of ten, so both halves hold all classes equally often
    inked = empty(len(labels) - half, channels, img_size)
    white = np.repeat(enlarge(pixels[:half], img_size)[:, None], channels, axis=1)
    rng = np.random.default_rng([11, split == "test"])
    for chunk in chunks(len(inked)):
        sheets = draw_on_paper(pixels[half:][chunk], img_size, rng)
        inked[chunk] = grey(sheets) if channels == 1 else sheets
    return (white, labels[:half]), (inked, labels[half:])


def draw_on_paper(pixels, img_size, rng):
    """Digits in bold blue ink, each on another sheet of paper with visible fibres.

    Args:
        pixels: (N, 28, 28) uint8.
        img_size: S.
        rng: a numpy generator of the fibres.

    Returns:
        (N, 3, S, S) uint8.
    """
    bold = enlarge(dilate(enlarge(pixels, 56), 1), img_size)[:, None] / np.float32(255)
    noise = rng.normal(0, 7, (len(pixels), 1, img_size, img_size)).astype(np.float32)
    # Fibres are noise that is smeared three pixels to the right.
    fibres = noise + np.roll(noise, 1, axis=3) + np.roll(noise, 2, axis=3)
    paper = PAPER[:, None, None] + fibres
    inked = paper + (INK[:, None, None] - paper) * bold
    return np.uint8(np.clip(inked, 0, 255) + 0.5)


# ---- StarGAN: attributes ----


def coloured_digits(img_size, split, channels=3):
    """Coloured digits with the attributes of ATTRIBUTES.

    Exactly one of red, green and blue is 1. `bold` strokes are two of the original's
    pixels wider. The digit has the colour, on black; if it is `inverted`, the
    background has the colour, and the digit is white. In both cases the digit is the
    brighter part: StarGAN's losses cannot distinguish a digit from its complement, and
    with dark digits on a bright background it learned to draw the complement.

    Args:
        img_size: S.
        split: "train" or "test".
        channels: 1 or 3.

    Returns:
        Images (N, channels, S, S), attributes (N, 5) int32 in {0, 1}, labels (N,) of
        the digits.
    """
    pixels, labels = bundled_digits(split)
    rng = np.random.default_rng([12, split == "test"])
    colour = rng.integers(3, size=len(labels))
    bold, inverted = rng.integers(2, size=(2, len(labels)))
    colours = np.eye(3, dtype=np.int32)[colour]
    attributes = np.column_stack([colours, bold, inverted]).astype(np.int32)
    images = empty(len(labels), channels, img_size)
    for chunk in chunks(len(labels)):
        coloured = colour_digits(
            pixels[chunk], colour[chunk], bold[chunk], inverted[chunk], img_size
        )
        images[chunk] = grey(coloured) if channels == 1 else coloured
    return images, attributes, labels


def colour_digits(pixels, colour, bold, inverted, img_size):
    """Digits with the looks of `coloured_digits`.

    Args:
        pixels: (N, 28, 28) uint8.
        colour: (N,) indices of ATTRIBUTE_COLOURS.
        bold, inverted: (N,) of 0 and 1.
        img_size: S.

    Returns:
        (N, 3, S, S) uint8.
    """
    strokes = np.where(bold[:, None, None] == 1, dilate(pixels, 1), pixels)
    shape = enlarge(strokes, img_size)[:, None] / np.float32(255)
    paint = ATTRIBUTE_COLOURS[colour].astype(np.float32)[:, :, None, None]
    is_inverted = inverted[:, None, None, None] == 1
    ground = np.where(is_inverted, paint, 0)
    ink = np.where(is_inverted, 255, paint)
    return np.uint8(ground + (ink - ground) * shape + 0.5)


# ---- shapes ----


def enlarge(pixels, size):
    """(N, H, W) uint8 as (N, size, size), by bicubic interpolation."""
    larger = np.empty((len(pixels), size, size), np.uint8)
    for target, image in zip(larger, pixels):
        target[:] = Image.fromarray(image).resize((size, size), Image.BICUBIC)
    return larger


def grey(images):
    """(N, 3, H, W) uint8 as (N, 1, H, W): the mean of the channels, rounded."""
    return np.uint8(images.mean(axis=1, keepdims=True) + 0.5)


def halve(pixels):
    """(N, 2S, 2S) as (N, S, S) uint8: the mean of four neighbours, rounded."""
    wide = pixels.astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    return np.uint8((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4)


def dilate(pixels, radius):
    """Makes bright shapes wider.

    Each pixel becomes the largest one of a square around it.

    Args:
        pixels: (N, H, W).
        radius: from the centre of that square to its sides, in pixels.
    """
    height, width = pixels.shape[1:]
    padded = np.pad(pixels, [(0, 0), (radius, radius), (radius, radius)])
    shifts = range(2 * radius + 1)
    rows = np.maximum.reduce([padded[:, s : s + height] for s in shifts])
    return np.maximum.reduce([rows[:, :, s : s + width] for s in shifts])


def erode(mask, radius):
    """Makes the shapes of a boolean mask narrower: the opposite of `dilate`."""
    return ~dilate(~mask, radius)
