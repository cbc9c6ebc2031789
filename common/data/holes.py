"""Images with a hole: in the middle, or of a random shape; and holes of people's files.

A hole is a mask, true where pixels are missing.
"""

from common.data.augment import NONE, sides
from common.data.decode import decoded, is_array, open_image, opened, pixels_of
from common.data.folders import load_originals
from common.data.items import LazyImages
from common.errors import UserError

import math

import numpy as np
from PIL import Image

HOLES = ("center", "random")

# Of `random_mask`, as in the code of Pathak 2016's authors
# (github.com/pathak22/context-encoder, train_random.lua).
RESOLUTION = 0.06  # random values for each pixel, along a side
DENSITY = 0.25  # a pixel is missing where the pattern of values in [0, 1] is lower
LEAST = 0.2  # share of missing pixels
MOST = 0.3
# The authors' side of the images. In larger ones the regions grow with them; else all
# images would have about the same share of missing pixels, which is below LEAST.
COARSEST = 128
OPAQUE = 128  # of 255: pixels of a lower opacity are missing
WHITE = 128  # of 255: pixels of a mask that are at least as bright are missing


def center_mask(shape, overlap=0):
    """(H, W) bool: the middle half of both sides, without a rim.

    Args:
        shape: (height, width), multiples of 4.
        overlap: the width of the rim of the middle half that is not missing, in pixels.
    """
    height, width = shape
    mask = np.zeros(shape, bool)
    rows = slice(height // 4 + overlap, height - height // 4 - overlap)
    columns = slice(width // 4 + overlap, width - width // 4 - overlap)
    mask[rows, columns] = True
    return mask


def random_mask(shape, rng):
    """(H, W) bool: smooth random regions, 20 to 30 % of the image.

    A coarse grid of uniform values is enlarged by bicubic interpolation, and pixels
    below DENSITY are missing. Patterns with other shares of them are drawn again.

    Args:
        shape: (height, width).
        rng: a numpy generator.
    """
    height, width = shape
    rows = RESOLUTION * min(height, COARSEST)
    columns = RESOLUTION * min(width, COARSEST)
    while True:
        # Two values beyond each side, for the cubic kernel.
        grid = rng.random((math.ceil(rows) + 5, math.ceil(columns) + 5), dtype=np.float32)
        top, left = 2 + rng.random(2)
        box = (left, top, left + columns, top + rows)
        pattern = Image.fromarray(grid).resize((width, height), Image.BICUBIC, box=box)
        mask = np.asarray(pattern) < DENSITY
        if LEAST < mask.mean() < MOST:
            return mask


def mask_of(hole, shape, rng, overlap=0):
    """(H, W) bool, `center_mask` or `random_mask`.

    Args:
        hole: "center" or "random".
        rng: a numpy generator; the mask in the centre does not use it.
    """
    if hole == "center":
        return center_mask(shape, overlap)
    return random_mask(shape, rng)


class WithHoles(LazyImages):
    """Items (image (C, H, W), mask (1, H, W) float32, 1 where pixels are missing).

    The images are whole. A random mask depends on the item's seed and its index.

    Args:
        originals: a data set of images.
        shape: their (height, width).
        hole: "center" or "random".
        overlap: as of `center_mask`.
    """

    def __init__(self, originals, shape, hole, overlap=0):
        super().__init__()
        self.originals = originals
        self.in_memory = getattr(originals, "in_memory", True)
        self.shape = shape
        self.hole = hole
        self.overlap = overlap

    def __len__(self):
        return len(self.originals)

    def load(self, index, seed=0):
        # Not `item`: if a file has broken, this class takes the next one.
        load = getattr(self.originals, "load", self.originals.item)
        pixels = load(index, seed)[0]
        rng = np.random.default_rng([seed, index])
        mask = mask_of(self.hole, self.shape, rng, self.overlap)
        return pixels, mask[None].astype(np.float32)


def load_with_holes(data_dir, img_size, channels, hole, overlap=0, *, split="train", augment=NONE):
    """Images and the masks of their holes, for models that complete images.

    A batch is images (B, channels, H, W) float32 in [-1, 1] and masks (B, 1, H, W)
    float32 in {0, 1}.

    Args:
        data_dir, split, augment: as of `load_originals`.
        img_size: the side of a square or (height, width), multiples of 4. Built-in
            images are square.
        hole: "center" or "random".
        overlap: as of `center_mask`.
    """
    data = load_originals(data_dir, img_size, channels, split=split, augment=augment)
    return WithHoles(data, sides(img_size), hole, overlap)


# ---- holes of files ----


def open_with_hole(path, mask_path, channels):
    """A picture as pixels (C, H, W) uint8, and its hole (H, W) bool.

    Args:
        path: the picture.
        mask_path: a mask of the same size, white where pixels are missing. With None
            they are missing where the picture is transparent.
        channels: 1 or 3.

    Raises:
        Unreadable: one of the files cannot be read.
        UserError: the mask has another size or is transparent itself, or nothing or
            everything is missing.
    """
    pixels = pixels_of(open_image(path, channels))
    if mask_path is None:
        hole = transparent_region(path, pixels.shape[1:])
        source = path
    else:
        hole = read_mask(mask_path, path, pixels.shape[1:])
        source = mask_path
    if not hole.any():
        if mask_path is None:
            raise UserError(
                f"{path} has no hole: make the region transparent, "
                "or give --mask with a picture that is white there and black elsewhere"
            )
        raise UserError(f"{source} has no hole: a mask is white where pixels are missing")
    if hole.all():
        raise UserError(f"the hole of {source} covers everything, and leaves nothing to start from")
    return pixels, hole


def transparent_region(path, shape):
    """(H, W) bool: where a picture is transparent."""
    opacity = opacity_of(path)
    if opacity is None:
        return np.zeros(shape, bool)
    return opacity < OPAQUE


def is_transparent(path):
    """Whether a picture is transparent anywhere."""
    opacity = opacity_of(path)
    return opacity is not None and opacity.min() < OPAQUE


def opacity_of(path):
    """(H, W) uint8, the opacity of an image file; None if it has no such channel."""
    if is_array(path):
        return None
    with opened(path) as image:
        if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
            return None
        return decoded(image, lambda upright: np.asarray(upright.convert("RGBA"))[..., 3])


def read_mask(mask_path, path, shape):
    """(H, W) bool of a mask's file: where it is white.

    Args:
        path: the picture it belongs to, for errors.
        shape: the picture's (height, width).
    """
    pixels = pixels_of(open_image(mask_path, 1))[0]
    if is_transparent(mask_path):
        raise UserError(
            f"{mask_path} is transparent in places: a mask is white where pixels are missing and "
            "black elsewhere (without --mask, the transparent region of a picture is its hole)"
        )
    if pixels.shape != tuple(shape):
        raise UserError(
            f"{mask_path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"and {path} has {shape[1]} x {shape[0]}: a mask has the size of its picture"
        )
    return pixels >= WHITE


# ---- how well holes are filled ----


def hole_distances(complete, data, batch_size=100):
    """How far completed images are from the originals, in their holes alone.

    Args:
        complete: a function of images (N, C, H, W) and masks (N, 1, H, W) that returns
            completed images.
        data: a `WithHoles` data set.

    Returns:
        {"val_L1": the mean |difference| of missing values, which lie in [-1, 1],
        "val_PSNR": the mean of the images' PSNR in dB}.
    """
    l1 = []
    psnr = []
    for first in range(0, len(data), batch_size):
        images, masks = data.batch(np.arange(first, min(first + batch_size, len(data))))
        difference = complete(images, masks) - images
        n_missing = images.shape[1] * masks.sum((1, 2, 3))
        l1.extend((masks * np.abs(difference)).sum((1, 2, 3)) / n_missing)
        mse = (masks * difference**2).sum((1, 2, 3)) / n_missing
        psnr.extend(10 * np.log10(4 / np.maximum(mse, 1e-10)))  # the values' range is 2
    return {"val_L1": float(np.mean(l1)), "val_PSNR": float(np.mean(psnr))}
