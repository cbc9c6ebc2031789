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


def mnist_folder():
    """Where Jittor's own MNIST class looks."""
    from jittor.dataset.dataset import dataset_root

    return Path(dataset_root) / "mnist_data"


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
        with urllib.request.urlopen(
            request, timeout=30, context=ssl.create_default_context()
        ) as answer:
            resumed = answer.status == 206
            total = int(answer.headers.get("Content-Length", 0)) + (start if resumed else 0)
            bar = tqdm(
                desc=path.name,
                total=total or None,
                initial=start if resumed else 0,
                unit="B",
                unit_scale=True,
            )
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
