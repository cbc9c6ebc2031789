"""Pictures: a batch of images as one grid in a file, and a folder of pictures through a trained translator."""

from common.data.decode import check_images, list_images, open_picture, pixels_of, to_float
from common.errors import UserError, say

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
OPTIONS = {suffix: {"quality": 95} for suffix in (".jpg", ".jpeg", ".webp")}  # of Pillow
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
        raise ValueError(
            f"nrow must be at least 1 and padding at least 0, got {nrow} and {padding}"
        )
    grid = make_grid(pixels, nrow, padding)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(path)


def save_rows(path, *rows, columns=False):
    """Writes rows of equally many images as one picture.

    Args:
        rows: (N, C, H, W) in [-1, 1]; their C may differ. Of more than three channels the
            first three are shown, and of two the first.
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
    """Writes (N, C, H, W) floats in [-1, 1] as 00000.png, 00001.png, ... into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(to_uint8(images)):
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
            folder / f"{i:05d}.png"
        )


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
        points, names = (
            centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T,
            ("PC 1", "PC 2"),
        )
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    y = points[:, 1] if points.shape[1] == 2 else np.zeros(len(points))
    dots = axes.scatter(
        points[:, 0], y, c=labels, cmap="tab10" if labels is not None else None, s=4
    )
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if labels is not None:
        figure.colorbar(dots, label="label")
    figure.savefig(path, dpi=100)


def to_uint8(images, value_range=(-1, 1)):
    """(N, C, H, W) floats in `value_range` as (N, H, W, C) uint8, rounded to the nearest."""
    images = np.asarray(images.numpy() if hasattr(images, "numpy") else images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images must be (N, C, H, W) with N >= 1 and C 1 or 3, got {list(images.shape)}"
        )
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
    grid = np.zeros(
        (rows * (height + padding) + padding, columns * (width + padding) + padding, channels),
        np.uint8,
    )
    for i, image in enumerate(pixels):
        top = padding + i // columns * (height + padding)
        left = padding + i % columns * (width + padding)
        grid[top : top + height, left : left + width] = image
    return grid


# ---- one's own pictures through a trained translator ----


def translate_folder(run, source, translate, shape, channels, multiple, tile=None, look=None):
    """Writes one translation for each image of `source`, under the same name and at the same aspect ratio.

    An image is scaled until it just covers `shape`, (height, width), which the network was trained at. Where the
    architecture needs sides that divide by `multiple`, it is padded by reflection to the right and below, and the
    translation is cut back. With `tile` it keeps its size, and is translated in squares of so many pixels (`in_tiles`).

    Args:
        run: the translations go to its out_dir, in the subfolders of `source`; into `translated` within it where
            it is the trained run's own folder.
        source: an image, or a folder that is searched recursively.
        translate: a function of a (1, channels, H, W) float32 numpy image in [-1, 1] that gives one of the same
            height and width, with any number of channels.
        channels: of the images that `translate` takes.

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
    for file in files:
        target = out_dir / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(
            translate_file(file, translate, shape, channels, multiple, tile, look), target
        )
    say(f"Translated {len(files)} images into {out_dir}.")
    return len(files)


def translate_file(source, translate, shape, channels, multiple, tile=None, look=None):
    """The translation (C, H, W) of one file; see `translate_folder`."""
    image, known = open_picture(source, channels, at_least=None if tile else shape), []
    if tile is None or look:
        covering = cover(image, source, shape)
        height, width = covering.shape[1:]
        padded = np.pad(
            covering, [(0, 0), (0, -height % multiple), (0, -width % multiple)], mode="reflect"
        )
        whole = to_float(padded)[None]
        known = [look(whole)] if look else []
    if tile is None:
        return translate(whole, *known)[0, :, :height, :width]
    return in_tiles(
        lambda images: translate(images, *known), to_float(pixels_of(image))[None], (tile, tile)
    )[0]


def cover(image, source, shape):
    """Pixels (C, H, W) of an image that is scaled until it just covers `shape`, (height, width)."""
    if max(image.size) > LONGEST * min(image.size):
        raise UserError(
            f"{source}: {image.width} x {image.height} pixels are longer than {LONGEST} to 1"
        )
    scale = max(side / own for side, own in zip(shape, image.size[::-1]))
    height, width = (max(side, round(own * scale)) for side, own in zip(shape, image.size[::-1]))
    return pixels_of(image.resize((width, height), Image.BICUBIC))


def in_tiles(translate, images, tile):
    """`translate` of (N, C, H, W) images in tiles of (height, width), joined without seams.

    Neighbours share a quarter of a tile or more, where their weights fall linearly towards each one's border. An image
    that is smaller than a tile is padded by reflection.

    Args:
        translate: a function of (N, C, *tile) images that gives as large ones, with any number of channels.
    """
    height, width = images.shape[2:]
    below, right = (max(most - side, 0) for most, side in zip(tile, images.shape[2:]))
    images = np.pad(images, [(0, 0), (0, 0), (0, below), (0, right)], mode="reflect")
    weight, total, weights = np.outer(*map(ramp, tile)), 0, np.zeros(images.shape[2:], np.float32)
    for top in tile_starts(images.shape[2], tile[0]):
        for left in tile_starts(images.shape[3], tile[1]):
            place = ..., slice(top, top + tile[0]), slice(left, left + tile[1])
            output = translate(np.ascontiguousarray(images[place]))
            if isinstance(total, int):
                total = np.zeros((*output.shape[:2], *images.shape[2:]), np.float32)
            total[place] += weight * output
            weights[place[1:]] += weight
    return (total / weights)[:, :, :height, :width]


def ramp(side):
    """The weights along a side of a tile: they rise over a quarter of it, are 1, and fall again."""
    from_border = np.minimum(np.arange(side), np.arange(side)[::-1]) + np.float32(0.5)
    return np.minimum(from_border / (side // 4), 1)


def tile_starts(side, tile):
    """Where the tiles along a side of at least `tile` pixels begin, evenly spaced."""
    count = 1 + -(-(side - tile) // (tile - tile // 4))
    return [round(i * (side - tile) / max(count - 1, 1)) for i in range(count)]


def write_picture(image, target):
    """Writes a translation (C, H, W) in [-1, 1] to a path.

    An array, where the path ends in `.npy` or C is neither 1 nor 3: (H, W, C) float32 in [0, 1], (H, W) where C is 1.
    A picture of eight bits otherwise.
    """
    if target.suffix.lower() != ".npy" and len(image) in (1, 3):
        pixels = to_uint8(image[None])[0]
        Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(
            target, **OPTIONS.get(target.suffix, {})
        )
        return
    values = ((image + 1) / 2).clip(0, 1).transpose(1, 2, 0).astype(np.float32)
    target = target if target.suffix.lower() == ".npy" else target.with_name(f"{target.name}.npy")
    np.save(target, values[..., 0] if len(image) == 1 else values)
