"""Pictures: a batch of images as one grid in a file."""

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")


def save_image(images, path, nrow=10, padding=2, value_range=(-1, 1)):
    """Writes images as one picture, a grid filled row by row.

    Args:
        images: (N, C, H, W) floats, numpy or Jittor, N >= 1, C 1 (grey) or 3 (RGB). Values outside
            `value_range` are clipped: the range is fixed, so that the picture never hides a lack of contrast.
        path: ends in .png, .jpg or .jpeg; its folder is made.
        nrow: images in a row. The last row is filled up with black.
        padding: black pixels between the images and around the grid.
        value_range: (black, white).

    The picture has rows * (H + padding) + padding lines, and min(nrow, N) columns counted likewise.

    Raises:
        ValueError: a wrong shape, a value that is not finite, an unknown suffix, a range that is empty.
    """
    path, pixels = Path(path), to_uint8(images, value_range)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a picture ends in {', '.join(SUFFIXES)}")
    if nrow < 1 or padding < 0:
        raise ValueError(f"nrow must be at least 1 and padding at least 0, got {nrow} and {padding}")
    grid = make_grid(pixels, nrow, padding)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(path)


def to_uint8(images, value_range=(-1, 1)):
    """(N, C, H, W) floats in `value_range` as (N, H, W, C) uint8, rounded to the nearest."""
    images = np.asarray(images.numpy() if hasattr(images, "numpy") else images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must be (N, C, H, W) with N >= 1 and C 1 or 3, got {list(images.shape)}")
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high), got {value_range}")
    if not np.isfinite(images).all():
        raise ValueError("images hold values that are NaN or infinite")
    scaled = np.clip((images.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.floor(scaled + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def make_grid(pixels, nrow, padding):
    """(N, H, W, C) uint8 as one (height, width, C) picture."""
    n, height, width, channels = pixels.shape
    columns = min(nrow, n)
    rows = -(-n // columns)
    grid = np.zeros((rows * (height + padding) + padding, columns * (width + padding) + padding, channels), np.uint8)
    for i, image in enumerate(pixels):
        top = padding + i // columns * (height + padding)
        left = padding + i % columns * (width + padding)
        grid[top : top + height, left : left + width] = image
    return grid
