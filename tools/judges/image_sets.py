"""What tools/evaluate.py compares: images of files and folders, or built-in digits.

Wherever they come from, every measure gets images by `ImageSet.batch`: the uint8 pixels
as they were saved, scaled by Pillow's bicubic filter. Its support grows with the
reduction, so that nothing aliases (Parmar 2022, "On Aliased Resizing and Surprising
Subtleties in GAN Evaluation").
"""

from common.data import load_digits
from common.data.decode import (
    ONE_OR_THREE,
    check_images,
    list_images,
    open_image,
    size_of,
    workers,
)
from common.data.deep import check_header
from common.data.digits import IMAGES_MAGIC, LABELS_MAGIC, find_idx, read_digits, read_idx
from common.data.layout import expanded
from common.errors import UserError

import functools
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

WORDS = {"digits": "train", "digits:test": "test"}
N_TEST = 500  # of the bundled digits, which have no test files
LARGEST_SAMPLES = 1 << 34  # bytes of the arrays of an .npz file


class ImageSet:
    """Images of any sizes.

    Args:
        name: where they come from, for the table.
        open_one: a function of an index that returns a Pillow image of mode L or RGB.
        n: the number of images.
        sizes: (N, 2) widths and heights, or one pair if all are equal.
        is_colour: whether an image has channels that differ; of a folder, one of the
            first 50.
        labels: (N,) integers, or None.
        names: the N paths of a folder's images in it, by which those of two folders are
            paired; or None.
    """

    def __init__(self, name, open_one, n, sizes, is_colour, labels=None, names=None):
        self.name = name
        self.open_one = open_one
        self.n = n
        self.sizes = np.atleast_2d(sizes)
        self.is_colour = is_colour
        self.labels = labels
        self.names = names

    def __len__(self):
        return self.n

    @property
    def resolution(self):
        """Width x height of the images, or of the smallest and of the largest."""
        areas = self.sizes.prod(1)
        smallest = " x ".join(map(str, self.sizes[areas.argmin()]))
        largest = " x ".join(map(str, self.sizes[areas.argmax()]))
        return smallest if smallest == largest else f"{smallest} to {largest}"

    def batch(self, indices, size, channels):
        """(B, channels, size, size) uint8; images that are not square are stretched."""

        def scaled_one(index):
            return scaled(self.open_one(index), (size, size), channels)

        with ThreadPoolExecutor(workers()) as pool:
            return np.stack(list(pool.map(scaled_one, indices)))


def scaled(image, size, channels):
    """A Pillow image as (channels, height, width) uint8.

    Args:
        size: (width, height).
    """
    image = image.convert("L" if channels == 1 else "RGB").resize(size, Image.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


# ---- what a word of the command line names ----


def load(source, half=None, mnist=None, like=None):
    """The images that a word of the command line names.

    Args:
        source: "digits" or "digits:test" (of `mnist`, of full MNIST if it lies in
            Jittor's data folder, or of the bundled digits), a samples.npz, a file of
            IDX images, a folder of IDX files (its training split), or a folder of
            images.
        half: "left" or "right", for pictures that hold a pair side by side.
        mnist: a folder of MNIST's IDX files, or None.
        like: an ImageSet whose size the digits take, if its images are squares of one
            size (default: MNIST's own size, 28).

    Raises:
        UserError: there is no such source, or it is damaged.
    """
    images = load_whole(source, mnist, like)
    if half is None:
        return images

    def open_half(index):
        image = images.open_one(index)
        middle = image.width // 2
        if half == "left":
            return image.crop((0, 0, middle, image.height))
        return image.crop((middle, 0, 2 * middle, image.height))

    sizes = images.sizes // [2, 1]
    if sizes.min() == 0:
        raise UserError(f"{source}: images of a single column have no half")
    return ImageSet(
        f"{source}, {half} half",
        open_half,
        len(images),
        sizes,
        images.is_colour,
        images.labels,
        images.names,
    )


def load_whole(source, mnist, like):
    """`load`, without its `half`."""
    if source in WORDS:
        sides = set() if like is None else set(like.sizes.ravel().tolist())
        size = sides.pop() if len(sides) == 1 else 28
        data = digits(WORDS[source], mnist, size)
        return of_pixels(source, data.images.transpose(0, 2, 3, 1), data.labels)
    path = expanded(source)
    if path.is_dir():
        for split in ("train", "test"):
            if find_idx(path, split, required=False) is not None:
                return of_pixels(source, *read_digits(path, split))
        return of_folder(source, path)
    if not path.is_file():
        raise UserError(
            f"{source} is neither a samples.npz, nor a folder, nor a file of IDX images, "
            f"nor {' or '.join(WORDS)}"
        )
    if path.suffix == ".npz":
        return of_samples(source, path)
    if "idx" in path.name:
        return of_idx(source, path)
    raise UserError(
        f"{source}: expected a file of type .npz, or IDX images; "
        "a single picture is not a set of images"
    )


@functools.lru_cache(None)
def digits(split, mnist, size):
    """MNIST's training or test split as the scripts load it.

    Returns:
        A data set with `images` (N, 1, size, size) uint8 and `labels` (N,).
    """
    if mnist is not None and not expanded(mnist).is_dir():
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
    height, width = pixels.shape[1:3]
    is_colour = pixels.ndim == 4 and bool((pixels != pixels[..., :1]).any())
    return ImageSet(
        name,
        lambda index: Image.fromarray(pixels[index]),
        len(pixels),
        (width, height),
        is_colour,
        labels,
    )


def of_idx(name, path):
    """A file of IDX images, with the labels of the file beside it, if there is one."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    pixels = read_idx(path, IMAGES_MAGIC)
    if labels == path or not labels.is_file():
        return of_pixels(name, pixels)
    return of_pixels(name, pixels, read_idx(labels, LABELS_MAGIC))


def of_samples(name, path):
    """The `images` (N, H, W, C) uint8 of an .npz file, and its `labels` if any."""
    arrays, names = read_arrays(path, ("images", "labels"), LARGEST_SAMPLES)
    found = ", ".join(names)
    if "images" not in arrays:
        raise UserError(
            f"{name} holds no array `images`, as --n_samples writes it; found: {found or 'nothing'}"
        )
    images = arrays["images"]
    labels = arrays.get("labels")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{name}: images must be uint8 (N, H, W, C) with C 1 or 3, "
            f"found {images.dtype} {images.shape}"
        )
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{name}: labels must be whole numbers (N,), found {labels.dtype} {labels.shape}"
        )
    return of_pixels(name, images, labels)


def read_arrays(path, wanted, largest):
    """Arrays of an .npz file, and the names of all that are in it.

    Args:
        wanted: the names of those that are read, if they are there.
        largest: bytes that they may have together.

    Raises:
        UserError: the file cannot be read, whatever is wrong with it, or is too large.
    """
    try:
        size = 0
        with zipfile.ZipFile(path) as archive:
            for name in wanted:
                if f"{name}.npy" in archive.namelist():
                    size += archive.getinfo(f"{name}.npy").file_size
                    with archive.open(f"{name}.npy") as file:
                        check_header(file)
        if size > largest:
            raise ValueError(f"arrays of {size:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted if name in file.files}
            return arrays, file.files
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as an .npz file of arrays ({reason})") from error


def of_folder(name, folder):
    """The images below a folder."""
    files = check_images(list_images(folder), ONE_OR_THREE)
    with ThreadPoolExecutor(workers()) as pool:
        sizes = list(pool.map(size_of, files))
    is_colour = any(has_colour(open_image(file, ONE_OR_THREE)) for file in files[:50])
    names = [file.relative_to(folder).as_posix() for file in files]
    return ImageSet(
        name,
        lambda index: open_image(files[index], ONE_OR_THREE),
        len(files),
        sizes,
        is_colour,
        names=names,
    )


def has_colour(image):
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels != pixels[..., :1]).any())
