"""Two domains of images without pairs: the CycleGAN layout, two folders of any kind, or drawn digits."""

from common.data.augment import NONE, square
from common.data.digits import holds_idx, load_digits
from common.data.drawn import digit_domains
from common.data.folders import ImageFolder, load_images
from common.data.items import InMemory, LazyImages
from common.data.layout import existing_folder, find_part, two_folders
from common.errors import UserError, say


def load_domains(data_dir, data_dir_B, img_size, channels, split="train", augment=NONE):
    """The domains A and B, as an `Unpaired` data set.

    Args:
        data_dir: a folder with `trainA/ trainB/ testA/ testB/`, or `train/A train/B ...`, or `A/train B/train ...`;
            with `data_dir_B` the folder of domain A alone, as `load_images` takes it. None for the drawn digits.
        data_dir_B: the folder of domain B, where the two lie apart. Each may hold images or IDX files.
        img_size: a number, or (height, width), which digits have as a square alone.
        split: "train" or "test". Where there is no test part, training images serve, with a warning.
        augment: an `Augment`, of training images but never of digits.

    Raises:
        UserError: a domain is missing, empty, or broken.
    """
    if data_dir is None:
        if data_dir_B is not None:
            raise UserError("--data_dir_B needs --data_dir, the folder of domain A")
        a, b = (InMemory(*domain) for domain in digit_domains(square(img_size), split, channels))
        source = "the bundled digits, drawn"
    elif data_dir_B is not None:
        source = f"{data_dir} and {data_dir_B}"
        a, b = (
            load_images(d, img_size, channels, split=split, augment=augment)
            for d in (data_dir, data_dir_B)
        )
    else:
        root = existing_folder(data_dir)
        expected = "trainA/ and trainB/, or train/A/ and train/B/ (--data_dir_B names a folder that lies apart)"
        part, folders = find_part(root, split, lambda name: two_folders(root, name), expected)
        source = " and ".join(map(str, folders))
        part = "train" if part == "train" else "test"
        a, b = (
            read_domain(existing_folder(folder), img_size, channels, part, augment)
            for folder in folders
        )
    say(f"Data ({split}): {len(a):,} images of domain A, {len(b):,} of domain B, from {source}.")
    return Unpaired(a, b)


def read_domain(folder, img_size, channels, part, augment):
    """All images of a folder such as `trainA`, or the part of its IDX files."""
    if holds_idx(folder):
        return load_digits(folder, img_size, channels, n_classes=None, split=part)
    return ImageFolder(folder, img_size, channels, augment)


class Unpaired(LazyImages):
    """Items (a, b), images (C, H, W) uint8; as many as the larger domain has.

    An item takes its own image of the larger domain and a random one, which follows from its seed, of the smaller.

    Attributes:
        domains: the data sets of A and B.
    """

    def __init__(self, a, b):
        super().__init__()
        self.domains = a, b
        self.in_memory = all(isinstance(domain, InMemory) for domain in self.domains)

    def __len__(self):
        return max(map(len, self.domains))

    def load(self, index, seed=0):
        seed = int(seed)
        chosen = [index if len(d) == len(self) else (seed >> 8) % len(d) for d in self.domains]
        if len(self.domains[0]) == len(self.domains[1]):
            chosen[1] = (seed >> 8) % len(self)  # else every epoch would show the same two together
        # Each domain replaces its own broken files: the other domain's image stays.
        return tuple(d.item(i, seed + k)[0] for k, (d, i) in enumerate(zip(self.domains, chosen)))
