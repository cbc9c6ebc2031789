"""What a visitor of a page enters, checked, as numbers and arrays.

Every mistake is a UserError, whose text the page shows.
"""

from common.data.captions import LONGEST
from common.data.decode import Unreadable, fit, open_image, open_picture, pixels_of, to_float
from common.data.holes import OPAQUE, WHITE, is_transparent, opacity_of
from common.errors import UserError

import base64
import io
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST_SEED = 2**32 - 1
MOST_DIGITS = 40  # of a number that is drawn
N_DIGITS = 10  # with at most so many labels, each of them is one digit
URL_START = "data:image/png;base64,"
LARGEST_DRAWING = 16_000_000  # letters of a canvas's content; it usually has thousands


def is_natural(text):
    return text.isascii() and text.isdigit()


def plain_text(text):
    """A field's text, stripped; full-width digits and letters as ordinary ones."""
    return unicodedata.normalize("NFKC", text or "").strip()


def shortened(text):
    return text if len(text) <= 20 else f"{text[:20]}..."


# ---- numbers and sentences ----


def seed_of(text):
    """The text of a seed as an int from 0 to LARGEST_SEED."""
    text = plain_text(text)
    if not is_natural(text) or len(text) > len(str(LARGEST_SEED)) or int(text) > LARGEST_SEED:
        found = f"; got {shortened(text)}" if text else ""
        raise UserError(f"A seed is a whole number from 0 to {LARGEST_SEED:,}{found}.")
    return int(text)


def slider_value(value, low, high):
    """The value of a slider, whose field a visitor may have emptied."""
    if value is None or not low <= value <= high:
        raise UserError(f"Beside the slider there must be a number from {low} to {high}.")
    return value


def labels_of(text, n_labels):
    """The labels that a visitor writes, (N,) int32.

    With at most N_DIGITS labels every digit is one, and blanks and hyphens do not
    count: "555-0123". With more, blanks or commas separate them: "3 17 22".
    """
    text = plain_text(text)
    if n_labels <= N_DIGITS:
        words = list(re.sub(r"[\s-]", "", text))
        wanted = f"a number of the digits 0 to {n_labels - 1}, such as 0120"
    else:
        words = re.split(r"[\s,]+", text) if text else []
        wanted = f"labels from 0 to {n_labels - 1} with blanks between them, such as 0 1 2"
    if not words:
        raise UserError(f"Write {wanted}.")
    if len(words) > MOST_DIGITS:
        raise UserError(f"Write at most {MOST_DIGITS} digits or labels; got {len(words):,}.")
    for word in words:
        if not is_natural(word) or len(word) > 9 or int(word) >= n_labels:
            raise UserError(f"Write {wanted}; {shortened(word)} is none.")
    return np.array([int(word) for word in words], np.int32)


def sentence_of(text):
    """A sentence, and a remark if only its beginning can be read, or else None."""
    text = (text or "").encode(errors="replace").decode().strip()  # without half characters
    if not text:
        raise UserError("Write a sentence.")
    if len(text.encode()) <= LONGEST:
        return text, None
    return text, f"The model reads the first {LONGEST} bytes of a sentence; the rest is left out."


# ---- pictures ----


def picture_of(path, channels, shape):
    """An uploaded file as an image (1, C, H, W) in [-1, 1], and a remark or None.

    It is scaled until it covers the shape, and its centre is cropped.

    Args:
        channels: 1 or 3; for an array in a `.npy` file, any number.
        shape: (height, width).
    """
    image, remark = opened_picture(path, channels, at_least=shape)
    return to_float(fit(image, shape))[None], remark


def small_picture_of(path, channels, largest):
    """As `picture_of`, at its own size, or reduced to a longer side of `largest`."""
    image, remark = opened_picture(path, channels, at_least=largest)
    factor = largest / max(image.size)
    if factor < 1:
        width, height = (max(1, round(factor * side)) for side in image.size)
        image = image.resize((width, height), Image.BICUBIC)
        reduced = f"The picture is reduced to {width} x {height} pixels first."
        remark = reduced if remark is None else f"{remark} {reduced}"
    return to_float(pixels_of(image))[None], remark


def opened_picture(path, channels, at_least):
    """An uploaded file as `open_picture` returns it, and a remark or None."""
    if path is None:
        raise UserError("Choose a picture first.")
    try:
        image = open_picture(path, channels, at_least=at_least)
    except Unreadable as error:
        kinds = "a PNG, JPEG, WEBP, BMP or TIFF file" if channels in (1, 3) else "a .npy file"
        raise UserError(
            f"{Path(path).name} cannot be used ({error.reason}). Give {kinds} of at most "
            "100 million pixels."
        ) from error
    remark = None
    if Path(path).suffix.lower() == ".gif":
        remark = "Of a GIF only the first frame is used."
    return image, remark


def transparency_of(path, shape):
    """(H, W) bool: where an uploaded picture is transparent, scaled as it is."""
    opacity = opacity_of(path)
    if opacity is None:
        return np.zeros(shape, bool)
    return fit(Image.fromarray(opacity), shape)[0] < OPAQUE


def mask_of(path, shape):
    """The hole (H, W) bool of an uploaded mask, scaled as its picture is."""
    if path is None:
        raise UserError("Choose a mask first.")
    try:
        mask = open_image(path, 1)
        if is_transparent(path):
            raise UserError("The mask is transparent. It should be white in the hole, else black.")
    except Unreadable as error:
        raise UserError(f"{Path(path).name} cannot be used ({error.reason}).") from error
    hole = fit(mask, shape)[0] >= WHITE
    if not hole.any():
        raise UserError("The mask has no hole: it is white where the hole is.")
    return hole


def hole_of(url, size, shape, colour):
    """The hole (H, W) bool that is brushed on a canvas.

    Args:
        url, size: as of `drawing_of`; the size is a multiple of the shape.
        shape: (H, W).
        colour: (r, g, b) of the brush.
    """
    is_brushed = (drawing_of(url, size) == np.uint8(colour)).all(2)
    height, width = shape
    times = size[0] // width
    shares = is_brushed.reshape(height, times, width, times).mean((1, 3))
    return shares >= 0.5


def drawing_of(url, size):
    """The content of a canvas as RGB (height, width, 3) uint8.

    Args:
        url: a PNG picture as a data URL; None or empty for a canvas that nobody has
            touched.
        size: (width, height) that it must have.
    """
    if not url:
        raise UserError("The canvas is empty: draw something first.")
    if not url.startswith(URL_START) or len(url) > LARGEST_DRAWING:
        raise UserError("The drawing cannot be read.")
    try:
        data = base64.b64decode(url.removeprefix(URL_START), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != tuple(size):
                raise ValueError(f"{image.size[0]} x {image.size[1]} pixels")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # whatever Pillow raises for a damaged file
        raise UserError(f"The drawing cannot be read ({error}).") from error


def url_of(pixels):
    """RGB (height, width, 3) uint8 as a data URL, for a canvas."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return URL_START + base64.b64encode(file.getvalue()).decode()


def outlines_of(url, size, shape, ground):
    """A drawing as an image (1, 3, H, W) in [-1, 1].

    Args:
        url, size: as of `drawing_of`; the size may be a multiple of the shape, so that
            halving makes the lines smooth.
        shape: (height, width) of the image.
        ground: the colour of a canvas without a line, (r, g, b).
    """
    pixels = drawing_of(url, size)
    if (pixels == np.uint8(ground)).all():
        raise UserError("The canvas is empty: draw something first.")
    height, width = shape
    small = Image.fromarray(pixels).resize((width, height), Image.BOX)
    return to_float(np.asarray(small).transpose(2, 0, 1))[None]


def classes_of(url, size, colours):
    """A painted map as classes (1, H, W) int32: each pixel's nearest colour.

    Args:
        colours: (n, 3) uint8, one for each class.
    """
    pixels = drawing_of(url, size).astype(np.int32)
    best = np.zeros(pixels.shape[:2], np.int32)
    smallest = np.full(pixels.shape[:2], np.iinfo(np.int32).max, np.int32)
    for k, colour in enumerate(colours.astype(np.int32)):  # one at a time: maps may be large
        distance = ((pixels - colour) ** 2).sum(2)
        is_nearer = distance < smallest
        best[is_nearer] = k
        smallest[is_nearer] = distance[is_nearer]
    return best[None]
