"""Image files as arrays: found, checked, opened in any mode, scaled and cropped."""

from common.data import deep
from common.data.augment import sides
from common.data.deep import Deep
from common.data.files import check_regular, find_files
from common.data.layout import existing_folder, not_found
from common.errors import UserError, warn

import math
import os
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")
# Suffixes of pictures that no script reads; one line counts the files that have them.
PASSED_OVER = (
    ".avif",
    ".dng",
    ".exr",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jp2",
    ".jxl",
    ".pgm",
    ".ppm",
    ".psd",
    ".svg",
    ".tga",
)
# Pillow's names of the formats that it may take a file for, whatever its suffix. Among
# the others is PostScript, for which it would start an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
FORMAT_OF = {  # which of them is tried first
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
LARGEST_IMAGE = 100_000_000  # pixels; larger files are decompression bombs, not photographs
# Images of more pixels are decoded one at a time: each may take a gigabyte, and there
# are up to eight threads.
ALONE = 50_000_000

# Up to DECODE_ALL files are decoded once at the start. Of more files only the headers
# are read, and of more than CHECK_ALL about that many headers, evenly spaced: a million
# would take minutes.
DECODE_ALL = 5000
CHECK_ALL = 50_000

EXIF_ORIENTATION = 0x0112
TURNS = {  # what makes an image upright, for each EXIF orientation
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}
QUARTER_TURNS = (Image.TRANSPOSE, Image.ROTATE_270, Image.TRANSVERSE, Image.ROTATE_90)
ONE_OR_THREE = "1 or 3"  # channels: as many as the file has

# Images above LARGEST_IMAGE are refused, so Pillow's warning about them is not needed.
# The filter is set here because threads cannot each set one for a while.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Nor are those about damage: what cannot be read is named, with the reason.
warnings.filterwarnings("ignore", module=r"PIL\.")

alone = threading.Lock()  # held while an image above ALONE is decoded


class Unreadable(UserError):
    """An image file that cannot be read.

    Attributes:
        path: the file.
        reason: why not, in words.
    """

    def __init__(self, path, error):
        self.path = path
        reason = str(error).replace(str(path), Path(path).name)
        self.reason = " ".join(reason.split()) or type(error).__name__
        super().__init__(f"{path} cannot be read ({self.reason})")


def to_float(pixels):
    """uint8 in [0, 255] as float32 in [-1, 1]; other arrays are returned unchanged."""
    if pixels.dtype != np.uint8:
        return pixels
    images = pixels.astype(np.float32)
    images *= 1 / 127.5
    images -= 1
    return images


def list_images(folder):
    """All image files below a folder, sorted by path.

    One line counts pictures of other formats.

    Raises:
        UserError: it is not a folder, or holds no image.
    """
    folder = existing_folder(folder)
    files = find_files(folder, (*SUFFIXES, *PASSED_OVER))
    others = Counter()
    for file in files:
        ending = file.suffix.lower()
        if ending in PASSED_OVER:
            others[ending] += 1
    if others:
        files = [file for file in files if file.suffix.lower() in SUFFIXES]
        counts = ", ".join(f"{n:,} {ending}" for ending, n in sorted(others.items()))
        warn(f"{folder}: pictures of other formats are passed over: {counts}")
    if not files:
        listed = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise not_found(folder, f"{listed} images")
    return files


# ---- opening ----


@contextmanager
def opened(path):
    """An open Pillow image, of which only the header has been read.

    Raises:
        Unreadable: here or in the `with` block, the file is missing, damaged, empty, no
            file, or larger than LARGEST_IMAGE.
    """
    first = FORMAT_OF.get(suffix_of(path), FORMATS[0])
    try:
        check_regular(path)
        with Image.open(path, formats=(first, *FORMATS)) as image:
            if not 0 < image.width * image.height <= LARGEST_IMAGE:
                raise ValueError(f"{image.width} x {image.height} pixels")
            yield image
    # Decoders raise errors of all types for damaged files, and other ones in each of
    # their versions.
    except Exception as error:
        raise Unreadable(path, error) from error


def decoded(image, convert=None):
    """Decodes an image of `opened`, and turns it upright.

    Args:
        convert: a function of this Pillow image, whose result is returned instead.
    """
    with others_waiting(image):
        image.load()
        turn = turn_of(image)
        if turn is not None:
            image = image.transpose(turn)
        return image if convert is None else convert(image)


def others_waiting(image):
    """A context in which no other thread decodes a large image, if this one is."""
    return alone if image.width * image.height > ALONE else nullcontext()


def turn_of(image):
    """The method of Pillow's `transpose` that makes an image upright, or None.

    An orientation that cannot be read, whatever is wrong with it, counts as none: the
    pixels are whole, and are shown as they are stored.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # EXIF data may follow the pixels; damage before them is the image's
    try:
        return TURNS.get(image.getexif().get(EXIF_ORIENTATION))
    except Exception:
        return None


def open_image(path, channels, at_least=None):
    """As `open_picture`, but always with 8 bits, as a Pillow image."""
    image = open_picture(path, channels, at_least)
    return image.eight_bits() if isinstance(image, Deep) else image


def open_picture(path, channels, at_least=None):
    """Opens an image file, turned upright as its EXIF orientation says.

    Args:
        channels: 1 or 3; for an array in a `.npy` file, any number; ONE_OR_THREE for
            the array's own, and for 3 of other files.
        at_least: a side in pixels, or (height, width). A JPEG may be decoded at a
            fraction of its size, but not below this one, which is faster.

    Returns:
        A Pillow image of mode "L" or "RGB", on white where it is transparent; or a
        `Deep` image, if the file has more than 8 bits.

    Raises:
        Unreadable: the file is missing, damaged, empty, or larger than LARGEST_IMAGE;
            it holds NaN or values out of range, or an array with other channels.
    """
    if is_array(path):
        allowed = (1, 3) if channels == ONE_OR_THREE else (channels,)
        try:
            check_regular(path)
            return deep.read_npy(path, allowed, LARGEST_IMAGE)
        except Exception as error:
            raise Unreadable(path, error) from error
    if channels == ONE_OR_THREE:
        channels = 3
    with opened(path) as image:
        if channels not in (1, 3):
            raise ValueError(
                f"an image file has 1 or 3 channels, not {channels}; "
                "arrays in .npy files have any number"
            )
        if at_least is not None:
            side = max(sides(at_least))
            image.draft(None, (side, side))
        return decoded(image, lambda upright: with_channels(upright, channels))


def with_channels(image, channels):
    """A decoded Pillow image as `open_picture` returns it."""
    if image.mode in deep.DEEP_MODES:
        return deep.from_pillow(image, channels)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def size_of(path):
    """(width, height) of the image that `open_picture` would return.

    Only the header is read, except for rotated TIFF files.
    """
    if is_array(path):
        try:
            check_regular(path)
            shape = deep.shape_of(path)
            if len(shape) not in (2, 3):
                raise ValueError(f"an array of shape {shape}; expected (H, W) or (H, W, C)")
            height, width = shape[:2]
        except Exception as error:
            raise Unreadable(path, error) from error
        return width, height
    with opened(path) as image, others_waiting(image):  # EXIF may follow the pixels
        is_turned = turn_of(image) in QUARTER_TURNS
        if is_turned and image.format == "TIFF":
            # Some versions of Pillow turn the size of a TIFF when it is opened, others
            # when it is loaded.
            image.load()
            return image.size
        width, height = image.size
        return (height, width) if is_turned else (width, height)


def is_array(path):
    """Whether a file holds a numpy array, by its suffix."""
    return suffix_of(path) == ".npy"


def suffix_of(path):
    """The suffix of a path in lower case; faster than pathlib, for each image."""
    return os.path.splitext(path)[1].lower()


# ---- arrays ----


def fit(image, img_size):
    """Scales an image until it covers `img_size`, and crops its centre.

    Args:
        image: of `open_picture`.
        img_size: the side of a square, or (height, width).

    Returns:
        (C, H, W), as `pixels_of` returns it.
    """
    height, width = sides(img_size)
    if isinstance(image, Deep):
        fitted = image.fit((width, height), Image.BICUBIC)
    else:
        fitted = ImageOps.fit(image, (width, height), Image.BICUBIC)
    return pixels_of(fitted)


def pixels_of(image):
    """An image of `open_picture` as (C, H, W).

    Returns:
        uint8 in [0, 255]; or float32 in [-1, 1], if it is a `Deep` image.
    """
    if isinstance(image, Deep):
        return image.pixels()
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    return pixels.transpose(2, 0, 1)


# ---- checking ----


def check_images(files, channels=3):
    """The files without those that cannot be read, which one warning names.

    Of many files only headers are read (DECODE_ALL, CHECK_ALL).

    Args:
        channels: as of `open_picture`; None for label maps, which are not photographs.

    Raises:
        UserError: more than two files and more than 1 % of them are broken, or all.
    """
    is_thorough = len(files) <= DECODE_ALL

    def reason_of(path):
        try:
            check(path, channels, is_thorough)
        except Unreadable as error:
            return error.reason
        return None

    step = max(1, math.ceil(len(files) / CHECK_ALL))
    checked = files[::step]
    with ThreadPoolExecutor(workers()) as pool:
        reasons = dict(zip(checked, pool.map(reason_of, checked)))
    broken = [file for file in checked if reasons[file] is not None]
    if not broken:
        return files

    names = ", ".join(str(file) for file in broken[:10])
    if len(broken) > 10:
        names += ", ..."
    names += f" ({reasons[broken[0]]})"
    if len(broken) > max(len(checked) // 100, 2) or len(broken) == len(checked):
        raise UserError(f"{len(broken)} of {len(checked)} images cannot be read: {names}")
    warn(f"skipping {len(broken)} of {len(checked)} images that cannot be read: {names}")
    return [file for file in files if reasons.get(file) is None]


def check(path, channels, is_thorough):
    """Reads the header of an image file, or all of it.

    Raises:
        Unreadable: it cannot be read.
    """
    if not is_thorough:
        size_of(path)
    elif channels is None:
        with opened(path) as image:
            decoded(image)
    else:
        open_picture(path, channels, at_least=1)


def workers():
    """Threads that decode images: one per core, up to 8."""
    return min(8, os.cpu_count() or 1)
