"""A folder of pictures with holes, filled by a trained network."""

from common.data.decode import check_images, list_images, to_float
from common.data.holes import center_mask, open_with_hole
from common.data.layout import expanded
from common.errors import UserError, say
from common.images import to_uint8
from common.translation import output_folder, write_picture

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

SHARE = 0.25  # of the window's pixels, that a hole of any shape takes at most


def fill_folder(run, source, mask, complete, shape, channels, *, hole, overlap=0):
    """Writes each picture of `source` with its hole filled, under the same name.

    All other pixels stay as they are. The network sees a window around the hole, scaled
    to the size of its training images. Where the window is larger than the picture, it
    is filled up by reflection.

    Args:
        run: the pictures go to its `out_dir`, as those of `translate_folder`.
        source: an image, or a folder that is searched recursively.
        mask: the mask of one picture or of all pictures, or a folder of masks with
            their names, whatever the suffix; or None, if the transparent regions are
            the holes (`holes.open_with_hole`). It may lie within `source`.
        complete: a function of images (1, channels, H, W) float32 in [-1, 1] and masks
            (1, 1, H, W) float32, 1 where pixels are missing, that returns completed
            images.
        shape: (H, W) that the network was trained at.
        channels: 1 or 3.
        hole: of the training images, "center" or "random". The window of "center" has
            the hole in its middle.
        overlap: as of `holes.center_mask`.

    Raises:
        UserError: there is nothing to read, a picture has no hole or a wrong mask, or
            an output would overwrite its input.
    """
    source = expanded(source)
    is_file = source.is_file()
    root = source.parent if is_file else source
    out_dir = output_folder(run, root, is_file)
    mask = None if mask is None else expanded(mask)
    files = [source] if is_file else list_images(source)
    if mask is not None:
        files = without_masks(files, mask, source)
    files = check_images(files, channels)
    masks = masks_of(mask, files, root)
    for file in files:
        pixels, missing = open_with_hole(file, masks[file], channels)
        filled = fill(pixels, missing, complete, shape, hole, overlap)
        write_picture(to_float(filled), out_dir / file.relative_to(root))
    say(f"Filled the holes of {len(files)} images into {out_dir}.")


def without_masks(files, mask, source):
    """The files of the folder `source` that do not belong to a mask within it."""
    mask = real(mask)
    if real(source) not in mask.parents:
        return files
    pictures = []
    for file in files:
        path = real(file)
        if mask != path and mask not in path.parents:
            pictures.append(file)
    return pictures


def masks_of(mask, files, root):
    """{file: its mask's file, or None}; see `fill_folder`.

    Args:
        mask: a path, or None.

    Raises:
        UserError: there is no mask, or none of a file's name, or a picture would be its
            own mask.
    """
    if mask is None:
        return dict.fromkeys(files)
    if mask.is_file():
        found = dict.fromkeys(files, mask)
    else:
        found = masks_by_name(mask, files, root)
    for file, path in found.items():
        if real(file) == real(path):
            raise UserError(f"--mask {mask}: {path} is the picture itself, and no mask of it")
    return found


def masks_by_name(folder, files, root):
    """{file: the mask in a folder that has its name, whatever the suffix}."""
    named = {}
    for path in list_images(folder):
        named[path.relative_to(folder).with_suffix("")] = path
    found = {}
    for file in files:
        name = file.relative_to(root).with_suffix("")
        if name not in named:
            raise UserError(f"{file} has no mask: {folder} holds none of its name")
        found[file] = named[name]
    return found


def real(path):
    """A path without links; a loop of links is no error here."""
    return Path(os.path.realpath(path))


def fill(pixels, missing, complete, shape, hole, overlap=0):
    """A picture (C, H, W) uint8 with its missing pixels replaced.

    Args:
        missing: (H, W) bool.
        complete, shape, hole, overlap: as of `fill_folder`.
    """
    top, left, height, width = window_around(missing, shape, hole, overlap)
    # What lies in the hole must not bleed into its surroundings when they are scaled.
    mean = pixels[:, ~missing].mean(1).round().astype(np.uint8)
    known = np.where(missing, mean[:, None, None], pixels)
    image = scaled(cut(known, top, left, height, width), shape)
    if hole == "center":
        mask = center_mask(shape, overlap)
    else:
        mask = covering(cut(missing[None], top, left, height, width)[0], shape)
    output = complete(to_float(image)[None], mask[None, None].astype(np.float32))
    patch = scaled(to_uint8(output)[0].transpose(2, 0, 1), (height, width))

    filled = pixels.copy()
    rows, columns = np.nonzero(missing)  # all of them lie in the window
    filled[:, rows, columns] = patch[:, rows - top, columns - left]
    return filled


def window_around(missing, shape, hole, overlap):
    """(top, left, height, width) of the part of a picture that the network sees.

    It has the aspect ratio of the training images, and may reach beyond the picture. It
    is not smaller than them, unless the picture is.

    Args:
        missing: (H, W) bool, the picture's hole.
        shape, hole, overlap: as of `fill_folder`.
    """
    rows = np.nonzero(missing.any(1))[0]
    columns = np.nonzero(missing.any(0))[0]
    box = (rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0])
    room = shape  # for the hole, at the size of the training images
    least = min(1, *(n / side for n, side in zip(missing.shape, shape)))
    if hole == "center":
        room = [side // 2 - 2 * overlap for side in shape]
    else:
        least = max(least, math.sqrt(missing.sum() / (SHARE * shape[0] * shape[1])))
    scale = max(least, *(n / side for n, side in zip(box, room)))
    height, width = (math.ceil(scale * side) for side in shape)
    if hole == "center":  # an even rest, so that the hole lies exactly in the middle
        height += (height - box[0]) % 2
        width += (width - box[1]) % 2
    top = int(rows[0] + box[0] // 2 - height // 2)
    left = int(columns[0] + box[1] // 2 - width // 2)
    if hole == "random":
        top = inside(top, height, missing.shape[0])
        left = inside(left, width, missing.shape[1])
    return top, left, height, width


def inside(start, length, side):
    """The start of a window, moved into a picture that is not smaller than it."""
    if length > side:
        return start
    return min(max(start, 0), side - length)


def cut(pixels, top, left, height, width):
    """A window of (C, H, W), which is reflected beyond the borders."""
    below = max(top + height - pixels.shape[1], 0)
    right = max(left + width - pixels.shape[2], 0)
    margins = [(0, 0), (max(-top, 0), below), (max(-left, 0), right)]
    padded = np.pad(pixels, margins, mode="symmetric")
    top = max(top, 0)
    left = max(left, 0)
    return padded[:, top : top + height, left : left + width]


def scaled(pixels, shape):
    """(C, H, W) uint8 at another size, by bicubic interpolation."""
    size = (shape[1], shape[0])
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels]
    return np.stack([np.asarray(plane.resize(size, Image.BICUBIC)) for plane in planes])


def covering(mask, shape):
    """A mask (H, W) at another size, with all pixels that it touches."""
    image = Image.fromarray(np.where(mask, np.float32(1), np.float32(0)))
    return np.asarray(image.resize((shape[1], shape[0]), Image.BOX)) > 0
