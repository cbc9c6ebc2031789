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
LARGEST_FILE = 1 << 26  # bytes; six times the largest file


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot download MNIST into {folder}: {error.strerror}") from error
    for name, md5 in MNIST_FILES.items():
        path = folder / name
        if has_md5(path, md5):
            continue
        problems = []
        is_there = False
        for mirror in MNIST_MIRRORS:
            if not is_there:
                problem = fetch(mirror + name, path, md5)
                problems.append(problem)
                is_there = problem is None
        if not is_there:
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
    try:
        start = size_of_file(part)
        ranges = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(url, headers=ranges)
        # Its own context verifies certificates, whatever was done to urllib's default.
        context = ssl.create_default_context()
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            receive(answer, part, start)
        if not has_md5(part, md5):
            problem = wrong_content(part)
            part.unlink()
            if start:  # what was there already may have been something else
                return fetch(url, path, md5)
            return f"{url}: {problem}"
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer: start again next time
            part.unlink(missing_ok=True)
        return in_one_line(url, error)
    except Exception as error:  # proxies answer anything; http.client raises as many types
        if is_page(part) or size_of_file(part) == 0:
            part.unlink(missing_ok=True)
        return in_one_line(url, getattr(error, "reason", None) or error)
    return None


def size_of_file(path):
    """The bytes of a file; 0 if it is not there."""
    return path.stat().st_size if path.is_file() else 0


def in_one_line(url, error):
    """What went wrong with an address, in words."""
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{url}: {words[:200]}"


def wrong_content(part):
    """What a file with a wrong MD5 is, in words."""
    if is_page(part):
        return "wrong MD5 (it is a web page, perhaps of a proxy that asks for a login)"
    return f"wrong MD5 (of {part.stat().st_size:,} bytes)"


def is_page(part):
    """Whether a file begins as a web page, and not as a gzipped one."""
    if not part.is_file():
        return False
    with open(part, "rb") as file:
        return file.read(64).lstrip().startswith(b"<")


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
            start += len(block)
            if start > LARGEST_FILE:
                break  # the MD5 will be wrong
            file.write(block)
            bar.update(len(block))
    if start < total:
        raise ValueError(f"the transfer ended after {start:,} of {total:,} bytes")


def has_md5(path, md5):
    """Whether there is a file with that MD5."""
    if not path.is_file() or path.stat().st_size > LARGEST_FILE:
        return False
    return hashlib.md5(path.read_bytes()).hexdigest() == md5
