"""Image files as arrays: found, checked, opened in any size and mode, scaled and cut."""

from common.checkpoint import HEADER_DAMAGE
from common.data import deep
from common.data.augment import sides
from common.data.deep import Deep
from common.data.layout import existing_folder, not_found
from common.errors import UserError, warn

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")
LARGEST_IMAGE = 100_000_000  # pixels; beyond it lie decompression bombs, not photographs
DECODE_ALL = 5000  # folders up to this size are decoded once at the start, larger ones have their headers checked
CHECK_ALL = 50_000  # of larger ones still, about as many headers, evenly spread: a million would take minutes
BROKEN = (OSError, *HEADER_DAMAGE, Image.DecompressionBombError)
EXIF_ORIENTATION = 0x0112

# Images above LARGEST_IMAGE are refused. The filter is set once: threads cannot each set one for a while.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unreadable(UserError):
    """An image file that cannot be read.

    Attributes:
        path: the file.
        reason: why not.
    """

    def __init__(self, path, error):
        self.path = path
        self.reason = str(error).replace(str(path), Path(path).name) or type(error).__name__
        super().__init__(f"{path} cannot be read ({self.reason})")


def to_float(pixels):
    """uint8 in [0, 255] as float32 in [-1, 1]; floats, which are there already, as they are."""
    if pixels.dtype != np.uint8:
        return pixels
    images = pixels.astype(np.float32)
    images *= 1 / 127.5
    images -= 1
    return images


def list_images(folder):
    """All images below a folder, sorted by path.

    Raises:
        UserError: it is no folder, or holds no image.
    """
    folder = existing_folder(folder)
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise not_found(folder, f"{', '.join(s[1:] for s in SUFFIXES)} images")
    return files


@contextmanager
def opened(path):
    """An open Pillow image, of which only the header has been read.

    Raises:
        Unreadable: here or within, the file is missing, damaged, empty, or larger than LARGEST_IMAGE.
    """
    try:
        with Image.open(path) as image:
            if not 0 < image.width * image.height <= LARGEST_IMAGE:
                raise ValueError(f"{image.width} x {image.height} pixels")
            yield image
    except BROKEN as error:
        raise Unreadable(path, error) from error


def open_image(path, channels, at_least=None):
    """As `open_picture`, with eight bits of what has more of them."""
    image = open_picture(path, channels, at_least)
    return image.eight_bits() if isinstance(image, Deep) else image


def open_picture(path, channels, at_least=None):
    """One image, upright: a Pillow image of mode "L" or "RGB", on white where it is transparent, or a `Deep` one.

    Args:
        channels: 1 or 3, and any number of an array in a `.npy` file.
        at_least: a JPEG may be decoded at a fraction of its size, but not below this number of pixels, or (height,
            width).

    Raises:
        Unreadable: the file is missing, damaged, empty, or larger than LARGEST_IMAGE; it holds NaN, values out of
            range, or an array of another number of channels.
    """
    if is_array(path):
        try:
            return deep.read_npy(path, channels, LARGEST_IMAGE)
        except BROKEN as error:
            raise Unreadable(path, error) from error
    with opened(path) as image:
        if channels not in (1, 3):
            raise ValueError(
                f"an image file has 1 or 3 channels, not {channels}; arrays in .npy files have any number"
            )
        if at_least is not None:
            image.draft(None, (max(sides(at_least)),) * 2)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in deep.DEEP_MODES:
            return deep.from_pillow(image, channels)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if channels == 1 else "RGB")


def size_of(path):
    """(width, height) of an image as `open_picture` gives it, from its header."""
    if is_array(path):
        try:
            height, width = deep.shape_of(path)[:2]
        except BROKEN as error:
            raise Unreadable(path, error) from error
        return width, height
    with opened(path) as image:
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        if (
            turned and image.format == "TIFF"
        ):  # Pillow turns its size at the opening or at the loading, by its version
            image.load()
            return image.size
        return image.size[::-1] if turned else image.size


def is_array(path):
    return Path(path).suffix.lower() == ".npy"


def fit(image, img_size):
    """An image of `open_picture` scaled until it covers `img_size`, a number or (height, width); its middle.

    Returns:
        (C, H, W) as in `pixels_of`.
    """
    size = sides(img_size)[::-1]
    return pixels_of(
        image.fit(size, Image.BICUBIC)
        if isinstance(image, Deep)
        else ImageOps.fit(image, size, Image.BICUBIC)
    )


def pixels_of(image):
    """(C, H, W) of an image of `open_picture`: uint8, or float32 in [-1, 1] of a `Deep` one."""
    if isinstance(image, Deep):
        return image.pixels()
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def check_images(files, channels=3):
    """The files that can be read, as far as they are checked; one warning names the others.

    Args:
        channels: as in `open_picture`; None for files that are not taken for images (label maps).

    Raises:
        UserError: more than one in a hundred is broken, and more than two; or all of them.
    """

    def reason_of(path):
        try:
            if len(files) > DECODE_ALL:
                size_of(path)
            elif channels is None:
                with opened(path) as image:
                    image.load()
            else:
                open_picture(path, channels, at_least=1)
        except Unreadable as error:
            return error.reason
        return None

    checked = files[:: -(-len(files) // CHECK_ALL)]
    with ThreadPoolExecutor(workers()) as pool:
        reasons = dict(zip(checked, pool.map(reason_of, checked)))
    broken = [file for file in checked if reasons[file] is not None]
    if not broken:
        return files
    names = ", ".join(str(f) for f in broken[:10]) + (", ..." if len(broken) > 10 else "")
    names += f" ({reasons[broken[0]]})"
    if len(broken) > max(len(checked) // 100, 2) or len(broken) == len(checked):
        raise UserError(f"{len(broken)} of {len(checked)} images cannot be read: {names}")
    warn(f"skipping {len(broken)} of {len(checked)} images that cannot be read: {names}")
    return [file for file in files if reasons.get(file) is None]


def workers():
    return min(8, os.cpu_count() or 1)
