"""What tools/evaluate.py compares: images of a samples.npz, of a folder, of IDX files, or the digits at hand.

Whatever they come from, images reach every measure by the one way of `ImageSet.batch`: uint8 pixels as saved, scaled
by Pillow's bicubic filter, whose support grows with the reduction, so that nothing aliases (Parmar 2022, "On Aliased
Resizing and Surprising Subtleties in GAN Evaluation").
"""

from common.data import load_digits
from common.data.decode import check_images, list_images, open_image, workers
from common.data.digits import IMAGES_MAGIC, LABELS_MAGIC, find_idx, read_digits, read_idx
from common.errors import UserError

import functools
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = {"digits": "train", "digits:test": "test"}
N_TEST = 500  # of the bundled digits, which have no test files
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class ImageSet:
    """Images of any sizes.

    Args:
        name: where they come from, for the table.
        opened: a function of an index that gives a Pillow image of mode L or RGB.
        sizes: (N, 2) widths and heights, or one pair where all are equal.

    Attributes:
        is_colour: whether an image has channels that differ; of a folder, one of the first 50.
        labels: (N,) integers, or None.
        names: N names by which images of two folders are paired, or None.
    """

    def __init__(self, name, opened, n, sizes, is_colour, labels=None, names=None):
        self.name, self.opened, self.n = name, opened, n
        self.sizes, self.is_colour, self.labels, self.names = (
            np.atleast_2d(sizes),
            is_colour,
            labels,
            names,
        )

    def __len__(self):
        return self.n

    @property
    def resolution(self):
        """Width x height of the images, or of the smallest and the largest."""
        areas = self.sizes.prod(1)
        ends = [" x ".join(map(str, self.sizes[i])) for i in (areas.argmin(), areas.argmax())]
        return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

    def batch(self, indices, size, channels):
        """(B, channels, size, size) uint8; images that are not square are stretched."""
        with ThreadPoolExecutor(workers()) as pool:
            return np.stack(
                list(pool.map(lambda i: scaled(self.opened(i), (size, size), channels), indices))
            )


def scaled(image, size, channels):
    """A Pillow image as (channels, height, width) uint8; `size` is (width, height)."""
    image = image.convert("L" if channels == 1 else "RGB").resize(size, Image.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def load(source, half=None, mnist=None, like=None):
    """The images that a word of the command line names.

    Args:
        source: "digits" or "digits:test" (of `mnist`, of full MNIST where it lies in Jittor's data set folder, or of
            the bundled digits), a samples.npz, a file of IDX images, a folder of IDX files (its training part), or a
            folder of images.
        like: an ImageSet whose size the digits take, if its images are squares of one size; MNIST's own is 28.
        half: "left" or "right", of pictures that hold a pair side by side.

    Raises:
        UserError: there is nothing of the kind, or it is damaged.
    """
    images = load_whole(source, mnist, like)
    if half is None:
        return images
    opened = images.opened

    def opened_half(i):
        image = opened(i)
        middle = image.width // 2
        return image.crop(
            (0, 0, middle, image.height)
            if half == "left"
            else (middle, 0, 2 * middle, image.height)
        )

    sizes = images.sizes // [2, 1]
    if sizes.min() == 0:
        raise UserError(f"{source}: images of a single column have no half")
    name = f"{source}, {half} half"
    return ImageSet(
        name, opened_half, len(images), sizes, images.is_colour, images.labels, images.names
    )


def load_whole(source, mnist, like):
    if source in WORDS:
        sides = set() if like is None else set(like.sizes.ravel().tolist())
        data = digits(WORDS[source], mnist, sides.pop() if len(sides) == 1 else 28)
        return of_pixels(source, data.images.transpose(0, 2, 3, 1), data.labels)
    path = Path(source).expanduser()
    if path.is_dir():
        for split in ("train", "test"):
            if find_idx(path, split, required=False) is not None:
                return of_pixels(source, *read_digits(path, split))
        return of_folder(source, path)
    if not path.is_file():
        words = " or ".join(WORDS)
        raise UserError(
            f"{source} is neither a samples.npz, nor a folder, nor a file of IDX images, nor {words}"
        )
    if path.suffix == ".npz":
        return of_samples(source, path)
    if "idx" in path.name:
        labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        has_labels = labels != path and labels.is_file()
        pixels = read_idx(path, IMAGES_MAGIC)
        return of_pixels(source, pixels, read_idx(labels, LABELS_MAGIC) if has_labels else None)
    raise UserError(
        f"{source}: expected a file of type .npz, or IDX images; a single picture is no set of images"
    )


@functools.lru_cache(None)
def digits(split, mnist, size):
    """MNIST's training or test part as the scripts load it: with images (N, 1, size, size) uint8 and labels (N,)."""
    if mnist is not None and not Path(mnist).expanduser().is_dir():
        raise UserError(f"--mnist {mnist} is not a folder")
    return load_digits(mnist, size, 1, n_classes=10, split=split, n_test=N_TEST)


def of_pixels(name, pixels, labels=None):
    """An ImageSet of (N, H, W) or (N, H, W, C) uint8."""
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if labels is not None and len(labels) != len(pixels):
        raise UserError(f"{name} holds {len(pixels):,} images, but {len(labels):,} labels")
    if 0 in pixels.shape:
        raise UserError(f"{name} holds no images")
    is_colour = pixels.ndim == 4 and bool((pixels != pixels[..., :1]).any())
    return ImageSet(
        name,
        lambda i: Image.fromarray(pixels[i]),
        len(pixels),
        pixels.shape[2:0:-1],
        is_colour,
        labels,
    )


def of_samples(name, path):
    """The `images` of an .npz file, (N, H, W, C) uint8, and its `labels`, if it has some."""
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in ("images", "labels") if key in file.files}
            found = ", ".join(file.files)
    except UNREADABLE as error:
        raise UserError(f"{name} cannot be read as an .npz file of arrays ({error})") from error
    if "images" not in arrays:
        raise UserError(
            f"{name} holds no array `images`, as --n_samples writes it; found: {found or 'nothing'}"
        )
    images, labels = arrays["images"], arrays.get("labels")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{name}: images must be uint8 (N, H, W, C) with C 1 or 3, found {images.dtype} {images.shape}"
        )
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{name}: labels must be whole numbers (N,), found {labels.dtype} {labels.shape}"
        )
    return of_pixels(name, images, labels)


def of_folder(name, folder):
    """The images below a folder, each under its path in it without the suffix."""
    files = check_images(list_images(folder))
    with ThreadPoolExecutor(workers()) as pool:
        sizes = list(pool.map(upright_size, files))
    is_colour = any(has_colour(open_image(file, 3)) for file in files[:50])
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    return ImageSet(
        name, lambda i: open_image(files[i], 3), len(files), sizes, is_colour, names=names
    )


def upright_size(file):
    """(width, height) by the header, turned as the EXIF orientation asks for."""
    with Image.open(file) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def has_colour(image):
    pixels = np.asarray(image)
    return bool((pixels != pixels[..., :1]).any())
