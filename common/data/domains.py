"""Two domains of images without pairs: the CycleGAN layout, two folders of any kind, or drawn digits."""

from pathlib import Path

import numpy as np

from common.data.decode import BROKEN, fit, open_image, to_float
from common.data.digits import load_digits
from common.data.drawn import digit_domains
from common.data.folders import ImageFolder, LazyImages
from common.errors import UserError, say

JITTER = 286 / 256  # of img_size, from which a random part of img_size is cut out (Zhu 2017, the authors' code)


def load_domains(data_dir, data_dir_B, img_size, channels, split="train", augment=False):
    """The domains A and B, as an `Unpaired` data set.

    Args:
        data_dir: a folder with `trainA/ trainB/ testA/ testB/`, or `train/A train/B ...`; with `data_dir_B` the
            folder of domain A alone. None for the drawn digits.
        data_dir_B: the folder of domain B, where the two lie apart. Each may hold images or IDX files.
        split: "train" or "test". A layout without a test part gives its training part.
        augment: random crops and mirroring, of images but never of digits.

    Raises:
        UserError: a domain is missing, empty, or broken.
    """
    if data_dir is None:
        if data_dir_B is not None:
            raise UserError("--data_dir_B needs --data_dir, the folder of domain A")
        domains = [ArrayImages(images) for images, _ in digit_domains(img_size, split, channels)]
        source = "the bundled digits, drawn"
    else:
        folders = find_domains(Path(data_dir).expanduser(), data_dir_B, split)
        domains = [load_domain(folder, img_size, channels, split, augment) for folder in folders]
        source = " and ".join(map(str, folders))
    a, b = domains
    say(f"Data ({split}): {len(a):,} images of domain A, {len(b):,} of domain B, from {source}.")
    return Unpaired(a, b)


def find_domains(root, root_B, split):
    """The folders of A and B."""
    if root_B is not None:
        return root, Path(root_B).expanduser()
    if not root.is_dir():
        raise UserError(f"--data_dir {root.absolute()} is not a folder")
    for part in ([split, "val"] if split == "test" else [split]) + ["train"]:
        for a, b in ((root / f"{part}A", root / f"{part}B"), (root / part / "A", root / part / "B")):
            if a.is_dir() or b.is_dir():
                return a, b
    names = ", ".join(sorted(f.name for f in root.iterdir())[:5]) or "nothing"
    raise UserError(
        f"{root.absolute()} holds neither trainA/ and trainB/ nor train/A/ and train/B/; found: {names}. "
        f"--data_dir_B names the folder of domain B, where the two lie apart"
    )


def load_domain(folder, img_size, channels, split, augment):
    if folder.is_dir() and any("idx" in f.name for f in folder.iterdir() if f.is_file()):
        return load_digits(folder, img_size, channels, split=split, n_classes=256)
    return (JitteredFolder if augment else ImageFolder)(folder, img_size, channels)


class ArrayImages:
    """(N, C, S, S) uint8 images in memory."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batch(self, indices, seeds=None):
        return (to_float(self.images[indices]),)


class JitteredFolder(ImageFolder):
    """As ImageFolder, with random crops and mirroring that follow from an item's seed."""

    def load(self, index, seed=0):
        rng = np.random.default_rng(seed)
        for i in range(index, index + len(self)):
            try:
                image = open_image(self.files[i % len(self)], self.channels, self.img_size)
            except BROKEN:
                continue  # broken since the check at the start: the next takes its place
            larger = fit(image, round(JITTER * self.img_size))
            top, left = rng.integers(larger.shape[-1] - self.img_size + 1, size=2)
            part = larger[:, top : top + self.img_size, left : left + self.img_size]
            return (part[..., ::-1] if rng.integers(2) else part,)
        raise UserError("none of the images can be read any more")


class Unpaired(LazyImages):
    """Items (a, b) of float32 images in [-1, 1]; as many as the larger domain has.

    An item takes its own image of the larger domain and a random one, which follows from its seed, of the smaller.
    """

    def __init__(self, a, b):
        self.domains = a, b

    def __len__(self):
        return max(map(len, self.domains))

    def load(self, index, seed=0):
        seed = int(seed)
        chosen = [index if len(d) == len(self) else (seed >> 8) % len(d) for d in self.domains]
        if len(self.domains[0]) == len(self.domains[1]):
            chosen[1] = (seed >> 8) % len(self)  # else every epoch would show the same two together
        return tuple(d.batch(np.array([i]), [seed + k])[0][0] for k, (d, i) in enumerate(zip(self.domains, chosen)))

    def stream(self, chunks, seeds):
        """As in LazyImages; images that lie in memory need no threads."""
        if any(isinstance(d, LazyImages) for d in self.domains):
            yield from super().stream(chunks, seeds)
        else:
            for indices in chunks:
                yield self.batch(indices, seeds[indices])
