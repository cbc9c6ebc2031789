"""Two domains of images without pairs: CycleGAN's layout, two folders, or built in."""

from common.data.augment import NONE, square
from common.data.digits import holds_idx, load_digits
from common.data.faces import SOURCE, face_domains
from common.data.folders import ImageFolder, load_images
from common.data.items import InMemory, LazyImages
from common.data.layout import built_in, existing_folder, find_split, two_folders
from common.data.toy.drawn import digit_domains
from common.errors import UserError, say


def load_domains(data_dir, data_dir_B, img_size, channels, split="train", augment=NONE):
    """The domains A and B, as an `Unpaired` data set.

    A batch is images of A and images of B, both (B, channels, H, W) float32 in [-1, 1].

    Args:
        data_dir: a folder with `trainA/ trainB/ testA/ testB/`, or with `train/A`,
            `train/B` and so on, or with `A/train`, `B/train` and so on. Each may hold
            images or IDX files. With `data_dir_B`, the folder of domain A, as
            `load_images` takes it. "faces" for the built-in faces, those with black
            hair and those with blond hair; "digits" or None for drawn digits.
        data_dir_B: the folder of domain B, if it is not in the same folder as A.
        img_size: the side of a square or (height, width). Built-in images are square.
        channels: 1 or 3.
        split: "train" or "test". Training images replace a missing test split.
        augment: an `Augment` for images; digits are never augmented.

    Raises:
        UserError: a domain is missing, empty, or broken.
    """
    if data_dir is None and data_dir_B is not None:
        raise UserError("--data_dir_B needs --data_dir, the folder of domain A")
    # With data_dir_B, both are folders.
    word = built_in(data_dir, ("digits", "faces")) if data_dir_B is None else None
    if word is not None:
        source, a, b = built_in_domains(word, img_size, channels, split, augment)
    elif data_dir_B is not None:
        source = f"{data_dir} and {data_dir_B}"
        # As folders, so that neither is taken for the name of a built-in data set.
        folder_A = existing_folder(data_dir)
        folder_B = existing_folder(data_dir_B)
        a = load_images(folder_A, img_size, channels, split=split, augment=augment)
        b = load_images(folder_B, img_size, channels, split=split, augment=augment)
    else:
        found, folder_A, folder_B = find_domains(existing_folder(data_dir), split)
        source = f"{folder_A} and {folder_B}"
        a = read_domain(folder_A, img_size, channels, found, augment)
        b = read_domain(folder_B, img_size, channels, found, augment)
    say(f"Data ({split}): {len(a):,} images of domain A, {len(b):,} of domain B, from {source}.")
    return Unpaired(a, b)


def built_in_domains(word, img_size, channels, split, augment):
    """What "faces" or "digits" are, in words, and their domains A and B."""
    if word == "faces":
        a, b = face_domains(img_size, channels, split, augment)
        return SOURCE, a, b
    white, inked = digit_domains(square(img_size), split, channels)
    return "the bundled digits, drawn", InMemory(*white), InMemory(*inked)


def find_domains(root, split):
    """The split of IDX files ("train" or "test"), and the folders of A and B."""
    expected = (
        "trainA/ and trainB/, or train/A/ and train/B/ "
        "(--data_dir_B names a folder that lies apart)"
    )
    name, folders = find_split(root, split, lambda name: two_folders(root, name), expected)
    found = "train" if name == "train" else "test"
    return found, *folders


def read_domain(folder, img_size, channels, split, augment):
    """The images of a folder such as `trainA`, or a split of its IDX files.

    Raises:
        UserError: it is not a folder, or is empty.
    """
    folder = existing_folder(folder)
    if holds_idx(folder):
        return load_digits(folder, img_size, channels, n_classes=None, split=split)
    return ImageFolder(folder, img_size, channels, augment)


class Unpaired(LazyImages):
    """Items (image of A, image of B), both (C, H, W) uint8.

    There are as many items as the larger domain has images. Each holds its own image of
    the larger domain, and an image of the smaller one that its seed chooses.

    Attributes:
        domains: the data sets of A and B.
    """

    def __init__(self, a, b):
        super().__init__()
        self.domains = (a, b)
        self.in_memory = isinstance(a, InMemory) and isinstance(b, InMemory)

    def __len__(self):
        a, b = self.domains
        return max(len(a), len(b))

    def load(self, index, seed=0):
        a, b = self.domains
        seed = int(seed)
        random = seed >> 8
        index_A = index if len(a) == len(self) else random % len(a)
        index_B = index if len(b) == len(self) else random % len(b)
        if len(a) == len(b):
            index_B = random % len(b)  # otherwise every epoch would show the same two together
        # Each domain replaces its own broken files, so the other domain keeps its
        # image.
        image_A = a.item(index_A, seed)[0]
        image_B = b.item(index_B, seed + 1)[0]
        return image_A, image_B
