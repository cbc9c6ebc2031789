"""Image files as arrays: found, checked, opened in any size and mode, scaled and cut."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from common.data.augment import sides
from common.data.layout import existing_folder, not_found
from common.errors import UserError, warn

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST_IMAGE = 100_000_000  # pixels; beyond it lie decompression bombs, not photographs
DECODE_ALL = 5000  # folders up to this size are decoded once at the start, larger ones have their headers checked
BROKEN = (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)
EXIF_ORIENTATION = 0x0112

# Images above LARGEST_IMAGE are refused. The filter is set once: threads cannot each set one for a while.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unreadable(UserError):
    """An image file that cannot be read.

    Attributes:
        path: the file.
    """

    def __init__(self, path, error):
        super().__init__(f"{path} cannot be read ({error or type(error).__name__})")
        self.path = path


def to_float(pixels):
    """uint8 in [0, 255] as float32 in [-1, 1]."""
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
    """One image as a Pillow image of mode "L" (channels 1) or "RGB" (3), upright, on white where it is transparent.

    Args:
        at_least: a JPEG may be decoded at a fraction of its size, but not below this number of pixels, or (height,
            width).

    Raises:
        Unreadable: the file is missing, damaged, empty, or larger than LARGEST_IMAGE.
    """
    with opened(path) as image:
        if at_least is not None:
            image.draft(None, (max(sides(at_least)),) * 2)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":  # 16 bits, which convert() would cut off at 255
            image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).round().astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if channels == 1 else "RGB")


def size_of(path):
    """(width, height) of an image as `open_image` gives it, from its header."""
    with opened(path) as image:
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        return image.size[::-1] if turned else image.size


def fit(image, img_size):
    """A Pillow image scaled until it covers `img_size`, a number or (height, width); its middle, as (C, H, W) uint8."""
    image = ImageOps.fit(image, sides(img_size)[::-1], Image.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def check_images(files, channels=3):
    """The files that can be read; one warning names the others.

    Raises:
        UserError: more than one in a hundred is broken.
    """

    def is_good(path):
        try:
            if len(files) <= DECODE_ALL:
                open_image(path, channels, at_least=1)
            else:
                size_of(path)
        except Unreadable:
            return False
        return True

    with ThreadPoolExecutor(workers()) as pool:
        good = list(pool.map(is_good, files))
    broken = [file for file, readable in zip(files, good) if not readable]
    if not broken:
        return files
    names = ", ".join(str(f) for f in broken[:10]) + (", ..." if len(broken) > 10 else "")
    if len(broken) > max(len(files) // 100, 2):
        raise UserError(f"{len(broken)} of {len(files)} images cannot be read: {names}")
    warn(f"skipping {len(broken)} of {len(files)} images that cannot be read: {names}")
    return [file for file, readable in zip(files, good) if readable]


def workers():
    return min(8, os.cpu_count() or 1)
