"""Pictures: a batch of images as one grid in a file, and a folder of pictures through a trained translator."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.decode import check_images, list_images, open_image, to_float
from common.errors import UserError, say

SUFFIXES = (".png", ".jpg", ".jpeg")
LONGEST = 8  # times the shorter side; a longer strip would not fit into memory


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


def save_each(images, folder):
    """Writes (N, C, H, W) floats in [-1, 1] as 00000.png, 00001.png, ... into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(to_uint8(images)):
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(folder / f"{i:05d}.png")


def save_scatter(points, labels, path):
    """A picture of points in the plane, coloured by label.

    Args:
        points: (N, d) numpy, N >= 2; with d > 2 their first two principal components are shown, with d = 1 a line.
        labels: (N,) numbers, or None.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    names = ("z1", "z2" if points.shape[1] == 2 else "")
    if points.shape[1] > 2:
        centred = points - points.mean(0)
        points, names = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T, ("PC 1", "PC 2")
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    y = points[:, 1] if points.shape[1] == 2 else np.zeros(len(points))
    dots = axes.scatter(points[:, 0], y, c=labels, cmap="tab10" if labels is not None else None, s=4)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if labels is not None:
        figure.colorbar(dots, label="label")
    figure.savefig(path, dpi=100)


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


# ---- one's own pictures through a trained translator ----


def translate_folder(run, source, translate, shape, channels, multiple):
    """Writes one translation for each image of `source`, under the same name and at the same aspect ratio.

    An image is scaled until it just covers `shape`, (height, width), which the network was trained at. Where the
    architecture needs sides that divide by `multiple`, it is padded by reflection to the right and below, and the
    translation is cut back.

    Args:
        run: the translations go to its out_dir, in the subfolders of `source`; into `translated` within it where
            it is the trained run's own folder.
        source: an image, or a folder that is searched recursively.
        translate: a function of a (1, channels, H, W) float32 numpy image in [-1, 1] that gives one of the same
            height and width with 1 or 3 channels.
        channels: 1 or 3, of the images that `translate` takes.

    Returns:
        The number of images written.

    Raises:
        UserError: nothing to read, too much of it broken, or an output that would overwrite its input.
    """
    source = Path(source).expanduser()
    files = [source] if source.is_file() else list_images(source)
    root = source.parent if source.is_file() else source
    out_dir = run.out_dir
    if run.args.resume and out_dir.resolve() == Path(run.args.resume).resolve().parent:
        out_dir = out_dir / "translated"
    if out_dir.resolve() == root.resolve():
        raise UserError(f"--out_dir {out_dir} holds the --input itself, which would be overwritten")
    files = check_images(files, channels)
    if not files:
        raise UserError(f"--input {source.absolute()} cannot be read as an image")
    for file in files:
        target = out_dir / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        translate_file(file, target, translate, shape, channels, multiple)
    say(f"Translated {len(files)} images into {out_dir}.")
    return len(files)


def translate_file(source, target, translate, shape, channels, multiple):
    """As `translate_folder`, for one file."""
    image = open_image(source, channels, at_least=shape)
    if max(image.size) > LONGEST * min(image.size):
        raise UserError(f"{source}: {image.width} x {image.height} pixels are longer than {LONGEST} to 1")
    scale = max(side / own for side, own in zip(shape, image.size[::-1]))
    height, width = (max(side, round(own * scale)) for side, own in zip(shape, image.size[::-1]))
    pixels = np.asarray(image.resize((width, height), Image.BICUBIC)).reshape(height, width, channels)
    padding = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    padded = np.pad(pixels, padding, mode="reflect").transpose(2, 0, 1)
    result = to_uint8(translate(to_float(padded[None])))[0, :height, :width]
    Image.fromarray(result[..., 0] if result.shape[-1] == 1 else result).save(target, quality=95)
