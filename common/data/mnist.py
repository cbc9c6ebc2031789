"""Full MNIST: where it lies, and its download from two mirrors."""

from common.errors import UserError

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

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
BLOCK = 1 << 16  # bytes that are read at once


def mnist_folder():
    """The folder in which Jittor's own MNIST class looks, as a `Path`."""
    from jittor.dataset.dataset import dataset_root

    return Path(dataset_root) / "mnist_data"


def download_mnist(folder):
    """Downloads those of MNIST's four files that are not in a folder yet.

    A download that was interrupted is resumed.

    Args:
        folder: a `Path`; it is created if it is not there.

    Raises:
        UserError: neither mirror has a file, or there is no network.
    """
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
                f"cannot download MNIST ({'; '.join(problems)}). Put these files into {folder} "
                f"yourself, or use --data_dir: {', '.join(MNIST_FILES)}"
            )


def fetch(url, path, md5):
    """Downloads one file.

    Args:
        url: the file's address.
        path: where to write it. It appears there only if it is complete.
        md5: its MD5, in hexadecimal.

    Returns:
        What went wrong, in words; None if nothing did.
    """
    import ssl

    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        # Its own context verifies certificates, whatever was done to urllib's default.
        context = ssl.create_default_context()
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            receive(answer, part, start)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer: start again next time
            part.unlink(missing_ok=True)
        return f"{url}: {error}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
    if file_md5(part) != md5:
        part.unlink()
        return f"{url}: wrong MD5"
    os.replace(part, path)
    return None


def receive(answer, part, start):
    """Writes a server's answer to a file, with a progress bar.

    Args:
        answer: an open HTTP response.
        part: the file. The answer is appended to it if the server sends only the rest.
        start: the bytes that are in it already.
    """
    from tqdm import tqdm

    is_rest = answer.status == 206  # the server knows ranges
    if not is_rest:
        start = 0
    total = start + int(answer.headers.get("Content-Length", 0))
    bar = tqdm(desc=part.stem, total=total or None, initial=start, unit="B", unit_scale=True)
    with open(part, "ab" if is_rest else "wb") as file, bar:
        while block := answer.read(BLOCK):
            file.write(block)
            bar.update(len(block))


def file_md5(path):
    """The MD5 of a file, in hexadecimal."""
    return hashlib.md5(Path(path).read_bytes()).hexdigest()
