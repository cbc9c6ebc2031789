"""Images in two sizes, for super-resolution: an original, and its small copy.

The small copy is made by the antialiased bicubic interpolation of the literature: Keys'
kernel with a = -0.5, widened by the factor where an image shrinks, weights that sum to
1, and pixels that are mirrored at the border. Matlab's `imresize` does the same, whose
copies the published figures are measured on (github.com/xinntao/BasicSR,
utils/matlab_functions.py). Pillow's differs at the border alone, OpenCV's everywhere:
it does not widen the kernel.
"""

from common.data.augment import mirror
from common.data.decode import (
    Unreadable,
    check_images,
    list_images,
    open_picture,
    pixels_of,
    size_of,
    workers,
)
from common.data.faces import SOURCE, read_faces
from common.data.items import LazyImages
from common.data.layout import built_in, existing_folder, find_split, split_folder
from common.data.toy.scenes import Scenes
from common.errors import UserError, say, warn

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def cubic(x):
    """Keys' kernel with a = -0.5, of an array of distances in pixels."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@functools.lru_cache(64)
def bicubic_weights(n_in, n_out):
    """(n_out, n_in) float64: each output pixel as a weighted sum of input pixels."""
    scale = n_out / n_in
    stretch = max(1 / scale, 1)  # the kernel is widened where the image shrinks
    centres = (np.arange(n_out) + 0.5) / scale - 0.5
    reach = int(np.ceil(2 * stretch)) + 1
    first = np.floor(centres).astype(int) - reach
    sources = first[:, None] + np.arange(2 * reach + 2)
    values = cubic((centres[:, None] - sources) / stretch)
    values /= values.sum(axis=1, keepdims=True)
    weights = np.zeros((n_out, n_in))
    rows = np.arange(n_out)[:, None]
    np.add.at(weights, (rows, mirrored(sources, n_in)), values)
    return weights


def mirrored(indices, n):
    """Indices beyond 0 to n - 1, mirrored at the border: -1 is 0, n is n - 1."""
    indices = indices % (2 * n)
    return np.where(indices < n, indices, 2 * n - 1 - indices)


def resize(pixels, shape):
    """Bicubic interpolation, computed in float64.

    Args:
        pixels: (..., H, W); uint8 becomes uint8 again, rounded and clipped.
        shape: (height, width) of the result.
    """
    height, width = shape
    resized = bicubic_weights(pixels.shape[-2], height) @ pixels.astype(np.float64)
    resized = resized @ bicubic_weights(pixels.shape[-1], width).T
    if pixels.dtype == np.uint8:
        return np.uint8(np.clip(np.floor(resized + 0.5), 0, 255))
    return resized.astype(pixels.dtype)


def shrink(pixels, scale):
    """The small copy of (..., H, W), whose sides are multiples of `scale`."""
    return resize(pixels, (pixels.shape[-2] // scale, pixels.shape[-1] // scale))


class Crops(LazyImages):
    """Items (small copy (C, s, s), crop (C, S, S)) uint8 of images at their own size.

    Args:
        files: images of at least S x S pixels.
        size: S.
        scale: S / s.
        channels: 1 or 3.
        random: whether crops are random and half of them mirrored, by an item's seed;
            otherwise they are the centres.
    """

    def __init__(self, files, size, scale, channels, random):
        super().__init__()
        self.files = files
        self.size = size
        self.scale = scale
        self.channels = channels
        self.random = random

    def __len__(self):
        return len(self.files)

    def load(self, index, seed=0):
        path = self.files[index]
        pixels = pixels_of(open_picture(path, self.channels))
        height, width = pixels.shape[1:]
        if min(height, width) < self.size:
            raise Unreadable(path, f"{width} x {height} pixels are smaller than the crop")
        if self.random:
            rng = np.random.default_rng(seed)
            top, left = rng.integers((height - self.size + 1, width - self.size + 1))
        else:
            top = (height - self.size) // 2
            left = (width - self.size) // 2
        crop = pixels[:, top : top + self.size, left : left + self.size]
        if self.random:
            crop = mirror(crop, rng)
        return shrink(crop, self.scale), crop


class SceneCopies(LazyImages):
    """Items (small copy, scene) uint8 of the drawn scenes of digits."""

    def __init__(self, size, scale, channels, split):
        super().__init__()
        self.scenes = Scenes(size, size, split, channels)
        self.scale = scale

    def __len__(self):
        return len(self.scenes)

    def load(self, index, seed=0):
        _, picture = self.scenes.load(index)
        return shrink(picture, self.scale), picture


class FaceCopies(LazyImages):
    """Items (small copy, face) uint8 of the built-in faces.

    Half of those for training are mirrored.
    """

    in_memory = True

    def __init__(self, size, scale, channels, split):
        super().__init__()
        self.faces = read_faces(split).images(size, channels)
        self.scale = scale
        self.mirrors = split == "train"

    def __len__(self):
        return len(self.faces)

    def load(self, index, seed=0):
        face = self.faces[index]
        if self.mirrors:
            face = mirror(face, np.random.default_rng(seed))
        return shrink(face, self.scale), face


def load_resolutions(data_dir, size, scale, channels, split):
    """Images of `size` x `size` pixels and their small copies.

    A batch is small copies (B, channels, size / scale, size / scale) and images (B,
    channels, size, size), both float32 in [-1, 1].

    Args:
        data_dir: a folder of images of at least this size, in subfolders too; folders
            `train` and `test` (or `val`) in it are its splits. "digits" or None for
            drawn scenes of digits, "faces" for the built-in faces.
        split: "train", with random crops, half of them mirrored, or "test", with the
            centres of the images.

    Raises:
        UserError: there is nothing to read, or all images are smaller.
    """
    word = built_in(data_dir, ("digits", "faces"))
    if word == "faces":
        data = FaceCopies(size, scale, channels, split)
        source = SOURCE
    elif word == "digits":
        data = SceneCopies(size, scale, channels, split)
        source = "the bundled digits, drawn as scenes"
    else:
        files, source = find_images(data_dir, size, channels, split)
        data = Crops(files, size, scale, channels, random=split == "train")
    say(f"Data ({split}): {len(data):,} images from {source}.")
    return data


def find_images(data_dir, size, channels, split):
    """The images of a split that are large enough, and the folder where they lie."""
    root = existing_folder(data_dir)
    _, folder = find_split(
        root,
        split,
        lambda name: split_folder(root, name),
        expected="train/ beside test/ or val/",
    )
    files = check_images(list_images(folder), channels)
    return large_enough(files, size), folder


def large_enough(files, size):
    """The files without those smaller than the crop, which one warning counts.

    Raises:
        UserError: all of them are smaller.
    """

    def is_large(path):
        try:
            return min(size_of(path)) >= size
        except Unreadable:  # loading it will say so
            return True

    with ThreadPoolExecutor(workers()) as pool:
        kept = [path for path, large in zip(files, pool.map(is_large, files)) if large]
    crop = f"the crop of {size} x {size} pixels (--img_size)"
    if not kept:
        raise UserError(f"all {len(files):,} images are smaller than {crop}")
    if len(kept) < len(files):
        warn(f"{len(files) - len(kept):,} of {len(files):,} images are smaller than {crop}")
    return kept
