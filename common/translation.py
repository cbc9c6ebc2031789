"""A folder of pictures through a trained network that translates images."""

from common.checkpoint import write_atomically
from common.data.decode import (
    FORMAT_OF,
    LARGEST_IMAGE,
    SUFFIXES,
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
MOST_ALONG = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels of a side, in a file
STRIP = 256  # lines of a picture that become bytes at once


def translate_folder(
    run, source, translate, shape, channels, multiple, tile=None, by=1, condition=None, prepare=None
):
    """Writes one translation for each image of `source`, under the same name.

    It keeps each image's aspect ratio: an image is scaled until it just covers `shape`.
    If the architecture needs sides that are multiples of `multiple`, the image is
    padded by reflection to the right and below, and the translation is cropped. With
    `tile` the image keeps its size and is translated in square tiles of that side.
    Images that cannot be translated are left out, and a warning names them.

    Args:
        run: the translations go to its `out_dir`, in the subfolders of `source`; if
            that is the trained run's own folder, into `translated` within it.
        source: an image, or a folder that is searched recursively.
        translate: a function of an image (1, channels, H, W), float32 numpy in [-1, 1],
            that returns one with any number of channels; with `tile` it may be larger.
        shape: (height, width) that the network was trained at.
        channels: of the images that `translate` takes.
        by: with `tile`, how many times larger `translate` makes a side.
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
    files = translatable(files, needs_covering, None if tile is None else by)
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


def translatable(files, needs_covering, scale):
    """The files without those that cannot be translated, which warnings name.

    Args:
        needs_covering: whether images are scaled until they cover the trained shape.
        scale: of images translated at their own size, the factor of a side; or None.

    Raises:
        UserError: there are no others.
    """
    if needs_covering:
        files = without_strips(files)
    if scale is not None:
        files = without_giants(files, scale)
    return files


def without_strips(files):
    """The files without those that are much longer than wide; see `without`."""

    def reason_of(file, width, height):
        if max(width, height) > LONGEST * min(width, height):
            return f"{width} x {height} pixels are longer than {LONGEST} to 1"

    return without(files, reason_of)


def without_giants(files, scale):
    """The files without those whose translations no file would hold; see `without`."""

    def reason_of(file, width, height):
        most = MOST_ALONG.get(file.suffix.lower(), LARGEST_IMAGE)
        if scale**2 * width * height > LARGEST_IMAGE:
            limit = f"{LARGEST_IMAGE:,} in all"
        elif scale * max(width, height) > most:
            limit = f"{most:,} along a side of a {file.suffix} file"
        else:
            return None
        return (
            f"{width} x {height} pixels would become {scale * width} x {scale * height}, "
            f"and at most {limit} are written"
        )

    return without(files, reason_of)


def without(files, reason_of):
    """The files without those that cannot be translated, which one warning names.

    Args:
        reason_of: a function of a file, its width and its height that returns why it
            cannot be, or None.

    Raises:
        UserError: there are no others.
    """

    def reason(file):
        try:
            width, height = size_of(file)
        except Unreadable:  # `readable` will say so
            return None
        return reason_of(file, width, height)

    with ThreadPoolExecutor(workers()) as pool:
        reasons = list(pool.map(reason, files))
    wrong = [i for i, found in enumerate(reasons) if found is not None]
    if not wrong:
        return files
    names = ", ".join(str(files[i]) for i in wrong[:10])
    if len(wrong) > 10:
        names += ", ..."
    first = reasons[wrong[0]]
    if len(wrong) == len(files):
        raise UserError(f"nothing is left to translate: {names} ({first})")
    warn(f"skipping {len(wrong)} of {len(files)} images: {names} ({first})")
    left_out = set(wrong)
    return [file for i, file in enumerate(files) if i not in left_out]


def output_folder(run, root, is_file):
    """The folder of the translations, which is neither the run's own nor the input.

    Args:
        root: the folder of the input.
        is_file: whether the input is one file in it.

    Raises:
        UserError: there is no input, or the translations would overwrite it or become
            one.
    """
    if not is_file and not root.exists():
        raise UserError(f"--input {root} is neither a picture nor a folder")
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
    total /= weights
    return total[:, :, : scale * height, : scale * width]


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
    float32 in [0, 1], or (H, W) if C is 1. Otherwise it becomes a picture of 8 bits, a
    PNG where the path ends in no suffix that scripts read. The folder is created.
    """
    suffix = target.suffix.lower()
    if suffix != ".npy" and len(image) in (1, 3):
        # In strips: `to_uint8` needs several times the memory of what it converts.
        strips = [image[None, :, i : i + STRIP] for i in range(0, image.shape[1], STRIP)]
        pixels = np.concatenate([to_uint8(strip)[0] for strip in strips])
        if suffix not in SUFFIXES:
            target = target.with_name(f"{target.name}.png")
        options = QUALITY.get(suffix, {})
        save_picture(as_picture(pixels), target, FORMAT_OF.get(suffix, "PNG"), **options)
        return
    values = ((image + 1) / 2).clip(0, 1).transpose(1, 2, 0).astype(np.float32)
    if suffix != ".npy":
        target = target.with_name(f"{target.name}.npy")
    array = values[..., 0] if len(image) == 1 else values
    write_atomically(target, lambda file: np.save(file, array), makes_folder=True, is_flushed=False)
