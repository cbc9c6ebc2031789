"""Pictures: a batch of images as one grid in a file."""

from common.checkpoint import write_atomically
from common.errors import NotFinite, UserError

from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def save_image(images, path, nrow=10, padding=2, value_range=(-1, 1)):
    """Writes images as one picture, a grid that is filled row by row.

    Args:
        images: (N, C, H, W) floats, numpy or Jittor, N >= 1, C 1 (grey) or 3 (RGB).
            Values outside `value_range` are clipped. The range is fixed, so that the
            picture never hides a lack of contrast.
        path: ends in .png, .jpg or .jpeg; its folder is created.
        nrow: images in a row. The last row is filled up with black.
        padding: black pixels between the images and around the grid.
        value_range: (black, white).

    The picture has rows * (H + padding) + padding lines, and min(nrow, N) columns
    counted likewise.

    Raises:
        ValueError: a wrong shape, an unknown suffix, or an empty range.
        NotFinite: a value is NaN or infinite.
        UserError: the file cannot be written.
    """
    path = Path(path)
    pixels = to_uint8(images, value_range)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    if nrow < 1 or padding < 0:
        raise ValueError(f"nrow must be at least 1 and padding at least 0: {nrow}, {padding}")
    picture = as_picture(make_grid(pixels, nrow, padding))
    file_format = FORMATS[path.suffix.lower()]
    write_atomically(path, lambda file: picture.save(file, file_format), makes_folder=True)


def save_rows(path, *rows, columns=False):
    """Writes rows of equally many images as one picture.

    Args:
        rows: (N, C, H, W) in [-1, 1]; their C may differ. Of more than three channels
            the first three are shown, and of two the first.
        columns: draw each of `rows` as a column.
    """
    if any(row.shape[1] != 1 for row in rows):
        rows = [as_rgb(row) for row in rows]
    if columns:
        images = np.stack(rows, axis=1)
        save_image(images.reshape(-1, *images.shape[2:]), path, nrow=len(rows))
    else:
        save_image(np.concatenate(rows), path, nrow=len(rows[0]))


def as_rgb(images):
    """(N, C, H, W) with any C as (N, 3, H, W)."""
    if images.shape[1] > 2:
        return images[:, :3]
    return images[:, :1].repeat(3, axis=1)


def save_each(images, folder):
    """Writes (N, C, H, W) floats in [-1, 1] as 00000.png, 00001.png, and so on."""
    for i, pixels in enumerate(to_uint8(images)):
        save_picture(as_picture(pixels), folder / f"{i:05d}.png", "PNG")


def save_picture(picture, path, file_format, **options):
    """Writes an image of Pillow, one of many, which are not flushed to the disk each.

    Args:
        path: its folder is created.
        file_format, options: as of Pillow's `save`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomically(
            path,
            lambda file: picture.save(file, file_format, **options),
            makes_folder=True,
            is_flushed=False,
        )
    except ValueError as error:  # a format that does not hold so large a picture
        raise UserError(f"cannot write {path}: {error}") from error


def as_picture(pixels):
    """(H, W, C) uint8 as an image of Pillow, grey if C is 1."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save_scatter(points, labels, path):
    """Writes a picture of points in the plane, coloured by label.

    Args:
        points: (N, d) numpy, N >= 2. If d > 2, their first two principal components are
            shown; if d = 1, a line.
        labels: (N,) numbers, or None.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    x_name, y_name = "z1", "z2"
    if points.shape[1] > 2:
        centred = points - points.mean(0)
        directions = np.linalg.svd(centred, full_matrices=False)[2]
        points = centred @ directions[:2].T
        x_name, y_name = "PC 1", "PC 2"
    if points.shape[1] == 1:
        y = np.zeros(len(points))
        y_name = ""
    else:
        y = points[:, 1]

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    colours = "tab10" if labels is not None else None
    dots = axes.scatter(points[:, 0], y, c=labels, cmap=colours, s=4)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    if labels is not None:
        figure.colorbar(dots, label="label")
    write_atomically(path, lambda file: figure.savefig(file, dpi=100, format="png"))


def to_uint8(images, value_range=(-1, 1)):
    """(N, C, H, W) floats in `value_range` as (N, H, W, C) uint8, rounded."""
    if hasattr(images, "numpy"):
        images = images.numpy()
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images must be (N, C, H, W) with N >= 1 and C 1 or 3, got {list(images.shape)}"
        )
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high), got {value_range}")
    if not np.isfinite(images).all():
        raise NotFinite("images hold values that are NaN or infinite")
    scaled = np.clip((images.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.floor(scaled + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def make_grid(pixels, nrow, padding):
    """(N, H, W, C) uint8 as one picture (height, width, C)."""
    n, height, width, channels = pixels.shape
    columns = min(nrow, n)
    rows = -(-n // columns)
    down = height + padding
    across = width + padding
    grid = np.zeros((rows * down + padding, columns * across + padding, channels), np.uint8)
    for i, image in enumerate(pixels):
        top = padding + i // columns * down
        left = padding + i % columns * across
        grid[top : top + height, left : left + width] = image
    return grid
