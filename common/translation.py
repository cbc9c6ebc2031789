"""A folder of pictures through a trained network that translates images."""

from common.checkpoint import write_atomically
from common.data.decode import (
    FORMAT_OF,
    Unreadable,
    check_images,
    list_images,
    open_picture,
    pixels_of,
    size_of,
    to_float,
    workers,
)
from common.data.layout import expanded
from common.errors import UserError, say, warn
from common.images import as_picture, save_picture, to_uint8

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

LONGEST = 8  # times the shorter side; a longer strip would not fit into memory
QUALITY = {suffix: {"quality": 95} for suffix in (".jpg", ".jpeg", ".webp")}


def translate_folder(
    run, source, translate, shape, channels, *, multiple, tile=None, condition=None, prepare=None
):
    """Writes one translation for each image of `source`, under the same name.

    It keeps each image's aspect ratio: an image is scaled until it just covers `shape`.
    If the architecture needs sides that are multiples of `multiple`, the image is
    padded by reflection to the right and below, and the translation is cropped. With
    `tile` the image keeps its size and is translated in square tiles of that side.

    Args:
        run: the translations go to its `out_dir`, in the subfolders of `source`; if
            that is the trained run's own folder, into `translated` within it.
        source: an image, or a folder that is searched recursively.
        translate: a function of an image (1, channels, H, W), float32 numpy in [-1, 1],
            that returns one with any number of channels; with `tile` it may be larger.
        shape: (height, width) that the network was trained at.
        channels: of the images that `translate` takes.
        condition: a function of the whole image, whose result `translate` takes as a
            second argument, the same for all tiles.
        prepare: a function of each image of `open_picture`, whose result is translated
            instead.

    Raises:
        UserError: there is nothing to read, too much of it is broken, or an output
            would overwrite its input or become one.
    """
    source = expanded(source)
    is_file = source.is_file()
    root = source.parent if is_file else source
    out_dir = output_folder(run, root, is_file)
    files = check_images([source] if is_file else list_images(source), channels)
    needs_covering = tile is None or condition is not None
    if needs_covering:
        files = without_strips(files)
    n_written = 0
    for file, image in readable(files, channels, at_least=None if tile else shape):
        if prepare is not None:
            image = prepare(image)
        covering = cover(image, shape) if needs_covering else None
        translation = translate_one(image, covering, translate, multiple, tile, condition)
        write_picture(translation, out_dir / file.relative_to(root))
        n_written += 1
    say(f"Translated {n_written} images into {out_dir}.")


def readable(files, channels, at_least):
    """Yields (file, image of `open_picture`), without those that cannot be read.

    Of many files, `check_images` reads only the headers.
    """
    for file in files:
        try:
            image = open_picture(file, channels, at_least)
        except Unreadable as error:
            warn(f"{error}; it is left out")
        else:
            yield file, image


def without_strips(files):
    """The files without those that are much longer than wide, which one warning names.

    Raises:
        UserError: there are no others.
    """

    def size(file):
        try:
            return size_of(file)
        except Unreadable:  # `readable` will say so
            return 1, 1

    with ThreadPoolExecutor(workers()) as pool:
        sizes = list(pool.map(size, files))
    strips = [i for i, sides in enumerate(sizes) if max(sides) > LONGEST * min(sides)]
    if not strips:
        return files
    width, height = sizes[strips[0]]
    names = ", ".join(str(files[i]) for i in strips[:10])
    if len(strips) > 10:
        names += ", ..."
    reason = f"{width} x {height} pixels are longer than {LONGEST} to 1"
    if len(strips) == len(files):
        raise UserError(f"nothing is left to translate: {names} ({reason})")
    warn(f"skipping {len(strips)} of {len(files)} images: {names} ({reason})")
    left_out = set(strips)
    return [file for i, file in enumerate(files) if i not in left_out]


def output_folder(run, root, is_file):
    """The folder of the translations, which is neither the run's own nor the input.

    Args:
        root: the folder of the input.
        is_file: whether the input is one file in it.
    """
    out_dir = run.out_dir
    resume = run.args.resume
    if resume and out_dir.resolve() == Path(resume).resolve().parent:
        out_dir = out_dir / "translated"
    if out_dir.resolve() == root.resolve():
        raise UserError(f"--out_dir {out_dir} holds the --input itself, which it would overwrite")
    if not is_file and root.resolve() in out_dir.resolve().parents:
        raise UserError(
            f"--out_dir {out_dir} lies within the --input {root}, so the next call would "
            "translate the translations; choose another folder"
        )
    return out_dir


def translate_one(image, covering, translate, multiple, tile, condition):
    """The translation (C, H, W) of one image; see `translate_folder`.

    Args:
        image: of `open_picture`.
        covering: its pixels (C, H, W) at the size that just covers the trained one;
            None if they are not needed.
    """
    conditions = []
    if covering is not None:
        height, width = covering.shape[1:]
        below = -height % multiple
        right = -width % multiple
        padded = np.pad(covering, [(0, 0), (0, below), (0, right)], mode="reflect")
        whole = to_float(padded)[None]
        if condition is not None:
            conditions = [condition(whole)]
    if tile is None:
        return translate(whole, *conditions)[0, :, :height, :width]
    own_size = to_float(pixels_of(image))[None]
    return in_tiles(lambda images: translate(images, *conditions), own_size, (tile, tile))[0]


def cover(image, shape):
    """Pixels (C, H, W) of an image, scaled until it just covers (height, width)."""
    height, width = shape
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    return pixels_of(image.resize(size, Image.BICUBIC))


def in_tiles(translate, images, tile):
    """`translate` of images (N, C, H, W) in overlapping tiles, joined without seams.

    Neighbours share at least a quarter of a tile, where their weights fall linearly
    towards each one's border. An image smaller than a tile is padded by reflection.

    Args:
        translate: a function of images (N, C, *tile) that returns images of that size,
            or of a multiple of it, with any number of channels.
        tile: (height, width).

    Returns:
        (N, any, H, W), or the same multiple of H and W.
    """
    height, width = images.shape[2:]
    below = max(tile[0] - height, 0)
    right = max(tile[1] - width, 0)
    images = np.pad(images, [(0, 0), (0, 0), (0, below), (0, right)], mode="reflect")
    total = None
    for top in tile_starts(images.shape[2], tile[0]):
        for left in tile_starts(images.shape[3], tile[1]):
            part = images[:, :, top : top + tile[0], left : left + tile[1]]
            output = translate(np.ascontiguousarray(part))
            if total is None:
                scale = output.shape[2] // tile[0]
                weight = np.outer(ramp(scale * tile[0]), ramp(scale * tile[1]))
                weights = np.zeros((scale * images.shape[2], scale * images.shape[3]), np.float32)
                total = np.zeros((*output.shape[:2], *weights.shape), np.float32)
            rows = slice(scale * top, scale * (top + tile[0]))
            columns = slice(scale * left, scale * (left + tile[1]))
            total[:, :, rows, columns] += weight * output
            weights[rows, columns] += weight
    return (total / weights)[:, :, : scale * height, : scale * width]


def ramp(side):
    """Weights along a tile's side: they rise over a quarter of it, are 1, and fall."""
    positions = np.arange(side)
    from_border = np.minimum(positions, positions[::-1]) + np.float32(0.5)
    return np.minimum(from_border / (side // 4), 1)


def tile_starts(side, tile):
    """Where the tiles along a side of at least `tile` pixels start, evenly spaced."""
    count = 1 + -(-(side - tile) // (tile - tile // 4))
    return [round(i * (side - tile) / max(count - 1, 1)) for i in range(count)]


def write_picture(image, target):
    """Writes a translation (C, H, W) in [-1, 1] to a path.

    If C is neither 1 nor 3, or the path ends in `.npy`, it becomes an array (H, W, C)
    float32 in [0, 1], or (H, W) if C is 1. Otherwise it becomes a picture of 8 bits.
    The folder is created.
    """
    if target.suffix.lower() != ".npy" and len(image) in (1, 3):
        picture = as_picture(to_uint8(image[None])[0])
        suffix = target.suffix.lower()
        save_picture(picture, target, FORMAT_OF.get(suffix, "PNG"), **QUALITY.get(suffix, {}))
        return
    values = ((image + 1) / 2).clip(0, 1).transpose(1, 2, 0).astype(np.float32)
    if target.suffix.lower() != ".npy":
        target = target.with_name(f"{target.name}.npy")
    array = values[..., 0] if len(image) == 1 else values
    write_atomically(target, lambda file: np.save(file, array), makes_folder=True, is_flushed=False)
