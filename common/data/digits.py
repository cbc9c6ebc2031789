"""Digits in IDX files, and seeded batches of any data set.

A data set is an object with `len()` and `batch(indices, seeds)`, which gives a tuple of numpy arrays: images as
(B, C, H, W) float32 in [-1, 1] first, labels after them.
"""

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.decode import to_float
from common.errors import UserError, say

BUNDLED = Path(__file__).parent / "mnist5k"
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049  # IDX: 0x0803 is three-dimensional uint8, 0x0801 one-dimensional
LARGEST_IDX = 1 << 31  # bytes of pixels; forty times MNIST
MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
MNIST_FILES = {  # MD5 of the gzipped files, as in Jittor's and torchvision's sources
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


class Digits:
    """Labelled images in memory.

    Attributes:
        images: (N, C, S, S) uint8.
        labels: (N,) int32.
    """

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def batch(self, indices, seeds=None):
        """Images (B, C, S, S) float32 in [-1, 1] and labels (B,) int32."""
        return to_float(self.images[indices]), self.labels[indices]


def load_digits(data_dir=None, img_size=28, channels=1, n_classes=10, download=False, split="train", n_test=0):
    """Labelled digits, resized once.

    They come from `data_dir` (a folder of IDX files, gzipped or not: MNIST, Fashion-MNIST, KMNIST, USPS); without
    it from full MNIST in Jittor's data set folder, where it lies there or `download` fetches it; else from the
    5,000 MNIST digits bundled here. One line says which.

    Args:
        split: "train" or "test". Where there are no test files, the last `n_test` training images are the test
            part (the bundled digits are in an order in which they hold every class equally).

    Raises:
        UserError: files are missing, damaged, or do not belong together; a label is not below `n_classes`.
    """
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        source = str(folder)
    elif download or all((mnist_folder() / name).is_file() for name in MNIST_FILES):
        folder = mnist_folder()
        source = f"full MNIST in {folder}"
        if download:
            download_mnist(folder)
    else:
        folder = BUNDLED
        source = "the 5,000 bundled MNIST digits (--download fetches all 60,000, --data_dir takes your own)"
    own_test_files = find_idx(folder, "test", required=False) is not None
    pixels, labels = read_digits(folder, "test" if split == "test" and own_test_files else "train")
    if not own_test_files and n_test:
        keep = slice(-n_test, None) if split == "test" else slice(None, -n_test)
        pixels, labels = pixels[keep], labels[keep]
    if len(labels) == 0:
        raise UserError(f"{folder}: holds no images for the {split} part")
    if labels.max() >= n_classes:
        raise UserError(f"{folder}: holds the label {labels.max()}, but --n_classes is {n_classes}")
    say(f"Data ({split}): {len(labels):,} images from {source}.")
    return Digits(resize_all(pixels, img_size, channels), labels.astype(np.int32))


def mnist_folder():
    """Where Jittor's own MNIST class looks."""
    from jittor.dataset.dataset import dataset_root

    return Path(dataset_root) / "mnist_data"


def resize_all(pixels, img_size, channels):
    """(N, H, W) uint8 as (N, channels, img_size, img_size), bilinear as in the contest's code."""
    if pixels.shape[1:] != (img_size, img_size):
        size = (img_size, img_size)
        pixels = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.BILINEAR)) for p in pixels])
    return np.repeat(pixels[:, None], channels, axis=1)


def find_idx(folder, split, required=True):
    """The pair (images file, labels file) of a folder, or None if it is not there and not `required`."""
    if not folder.is_dir():
        raise UserError(f"--data_dir {folder.absolute()} is not a folder")
    stems = {"train": ("train",), "test": ("t10k", "test")}[split]
    pair = []
    for kind in ("images", "labels"):
        found = [f for f in sorted(folder.iterdir()) if f.name.startswith(stems) and kind in f.name and "idx" in f.name]
        pair += found[:1]
    if len(pair) == 2:
        return pair
    if required:
        names = ", ".join(sorted(f.name for f in folder.iterdir())[:5]) or "nothing"
        raise UserError(
            f"{folder.absolute()} holds no {stems[0]}-images-idx3-ubyte and {stems[0]}-labels-idx1-ubyte "
            f"(.gz or not); found: {names}"
        )
    return None


def read_digits(folder, split):
    """(N, H, W) uint8 images and (N,) uint8 labels of a folder of IDX files."""
    images_file, labels_file = find_idx(folder, split)
    images, labels = read_idx(images_file, IMAGES_MAGIC), read_idx(labels_file, LABELS_MAGIC)
    if len(images) != len(labels):
        raise UserError(f"{images_file} holds {len(images)} images, but {labels_file.name} {len(labels)} labels")
    return images, labels


def read_idx(path, magic):
    """One IDX file, gzipped or not (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Args:
        magic: the number that the file must begin with; its last byte is the number of dimensions.

    Raises:
        UserError: another magic number, a size that does not match the header, damaged compression.
    """
    n_dims = magic & 0xFF
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = file.read(4 + 4 * n_dims)
            if len(header) < 4 + 4 * n_dims or struct.unpack(">I", header[:4])[0] != magic:
                found = int.from_bytes(header[:4], "big")
                raise UserError(f"{path} is not the expected IDX file: its magic number is {found}, not {magic}")
            shape = struct.unpack(f">{n_dims}I", header[4:])
            size = int(np.prod([int(s) for s in shape], dtype=object))
            if size > LARGEST_IDX:
                raise UserError(f"{path}: its header claims {size:,} bytes, more than can be read")
            data = file.read(size + 1)  # one more, to notice a file that is too long, and never a whole bomb
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if len(data) != size:
        relation = "more" if len(data) > size else "fewer"
        raise UserError(f"{path} holds {relation} bytes than its header says ({size:,}): it is truncated or damaged")
    return np.frombuffer(data, np.uint8).reshape(shape)


def download_mnist(folder):
    """Fetches the four files of MNIST that are not yet in `folder`, resuming what an earlier call began."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, md5 in MNIST_FILES.items():
        path = folder / name
        if path.is_file() and file_md5(path) == md5:
            continue
        problems = []
        for mirror in MNIST_MIRRORS:
            if not path.is_file():
                problems.append(fetch(mirror + name, path, md5))
        if not path.is_file():
            raise UserError(
                f"cannot download MNIST ({'; '.join(problems)}). Put these files into {folder} yourself, or use "
                f"--data_dir: {', '.join(MNIST_FILES)}"
            )


def fetch(url, path, md5):
    """Downloads one file to `path`; what is wrong, in words, or None."""
    import ssl

    from tqdm import tqdm

    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        # A context of its own, which verifies certificates whatever was done to urllib's default.
        with urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context()) as answer:
            resumed = answer.status == 206
            total = int(answer.headers.get("Content-Length", 0)) + (start if resumed else 0)
            bar = tqdm(desc=path.name, total=total or None, initial=start if resumed else 0, unit="B", unit_scale=True)
            with open(part, "ab" if resumed else "wb") as file, bar:
                while block := answer.read(1 << 16):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer: begin again next time
            part.unlink(missing_ok=True)
        return f"{url}: {error}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
    if file_md5(part) != md5:
        part.unlink()
        return f"{url}: wrong MD5"
    os.replace(part, path)
    return None


def file_md5(path):
    return hashlib.md5(Path(path).read_bytes()).hexdigest()
