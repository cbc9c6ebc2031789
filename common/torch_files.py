"""Weights from a file of PyTorch, read without PyTorch and without running its code.

A `.pth` is a pickle, which can call any function when it is loaded. The reader allows
only the few names that a dict of tensors needs. It reads both formats: the zip archive
of PyTorch 1.6 and later, and the older one, in which five pickles and then the numbers
follow each other (torch/serialization.py, `_legacy_save`).
"""

from common.checkpoint import load_module
from common.data.files import check_regular
from common.errors import UserError

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
LARGEST_PICKLE = 1 << 24  # bytes of the description of a network's weights
LARGEST_MEMO = 1 << 20  # objects that it may number
MOST_VIEWS = 4  # times the numbers of a file that its tensors may have together


class Storage:
    """The numbers that tensors are views of.

    Attributes:
        numbers: a one-dimensional array, set once it has been read.
    """

    def __init__(self, dtype):
        self.dtype = dtype
        self.numbers = None


class Tensor:
    """A view of a storage, as the file describes it.

    Args:
        offset: of its first number in the storage.
        size: its shape.
        stride: how far apart neighbours along each axis lie in the storage.
    """

    def __init__(self, storage, offset, size, stride, *_):
        self.storage = storage
        self.offset = offset
        self.size = tuple(size)
        self.stride = tuple(stride)

    def array(self):
        """A copy of the numbers, with the tensor's shape.

        Raises:
            ValueError: the shape is impossible, or reaches beyond the storage.
        """
        if len(self.size) != len(self.stride) or min(self.offset, *self.size, *self.stride, 0) < 0:
            raise ValueError("a tensor of no possible shape")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        n_stored = len(self.storage.numbers)
        # The product too: with a stride of 0, a few bytes could become gigabytes.
        if 0 not in self.size and max(last + 1, math.prod(self.size)) > n_stored:
            raise ValueError("a tensor that is larger than its storage")
        numbers = self.storage.numbers[self.offset :]
        steps = [step * numbers.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(numbers, self.size, steps, writeable=False)
        return view.copy()


class Unpickler(pickle.Unpickler):
    """Builds dicts, Storages and Tensors, and refuses everything else."""

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): Tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        if (module, name) not in known:
            raise ValueError(f"it names {module}.{name}, which weights do not need")
        return known[module, name]

    def persistent_load(self, identity):
        kind, dtype, key = identity[:3]
        if kind != "storage":
            raise ValueError(f"it holds a {kind}")
        return self.storages.setdefault(key, Storage(dtype))


def read_weights(path):
    """{name: array} of a state dict in a file of PyTorch.

    Raises:
        UserError: the file is of another format, is damaged in any way, needs more
            memory than its size explains, or holds anything other than tensors.
    """
    try:
        size = check_regular(path)
        with open(path, "rb") as file:
            read = read_zip if zipfile.is_zipfile(file) else read_legacy
            found, storages = read(file, size)
        if not isinstance(found, dict) or not found:
            raise ValueError("it holds no dict of weights")
        check_views(found.values(), storages)
        return {str(name): tensor.array() for name, tensor in found.items()}
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as PyTorch's weights: {reason}") from error


def check_views(tensors, storages):
    """Refuses tensors that repeat the numbers of their storages again and again."""
    n_stored = sum(len(storage.numbers) for storage in storages)
    if sum(math.prod(tensor.size) for tensor in tensors) > MOST_VIEWS * n_stored:
        raise ValueError("its tensors are larger than the file")


def check_pickle(file):
    """Refuses a pickle that asks for much memory: its memo, or texts beyond its end.

    The position in the file is behind the pickle afterwards.
    """
    for operation, value, _ in pickletools.genops(file):
        if "PUT" in operation.name and value > LARGEST_MEMO:
            raise ValueError(f"it numbers {value:,} objects")


def load(unpickler, file):
    """What an unpickler reads at the file's position, after it has been checked."""
    start = file.tell()
    check_pickle(file)
    file.seek(start)
    return unpickler.load()


def read_zip(file, size):
    """What an archive of PyTorch 1.6 or later holds, and its storages.

    Args:
        size: of the file, in bytes.
    """
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if Path(name).name == "data.pkl")
        if archive.getinfo(pickled).file_size > LARGEST_PICKLE:
            raise ValueError("its description of the weights is too long")
        description = io.BytesIO(archive.read(pickled))
        unpickler = Unpickler(description)
        found = load(unpickler, description)
        left = size
        for key, storage in unpickler.storages.items():
            name = pickled.replace("data.pkl", f"data/{key}")
            # PyTorch compresses nothing, so a file holds all of its numbers.
            left -= archive.getinfo(name).file_size
            if left < 0:
                raise ValueError("its entries are larger than the file")
            storage.numbers = np.frombuffer(archive.read(name), storage.dtype)
    return found, unpickler.storages.values()


def read_legacy(file, size):
    """What a file of the older format holds, and its storages.

    Args:
        size: of the file, in bytes.
    """
    file.seek(0)
    if load(Unpickler(file), file) != LEGACY_MAGIC:
        raise ValueError("its first number is not PyTorch's")
    load(Unpickler(file), file)  # the version of the format
    load(Unpickler(file), file)  # the machine that wrote it
    unpickler = Unpickler(file)
    found = load(unpickler, file)
    for key in load(Unpickler(file), file):
        storage = unpickler.storages[key]
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        n_bytes = count * storage.dtype.itemsize
        if not 0 <= n_bytes <= size:
            raise ValueError(f"a storage of {count:,} numbers")
        storage.numbers = np.frombuffer(file.read(n_bytes), storage.dtype)
    return found, unpickler.storages.values()


def load_fitting(network, weights, path, name):
    """Loads the weights that a network has; the others in the file are ignored.

    Args:
        network: a Jittor module.
        weights: {name: array}.
        path: the file that they come from, for the error.
        name: of the network, for the error.

    Raises:
        UserError: a weight of the network is missing or has another shape.
    """
    wrong = []
    for key, value in network.state_dict().items():
        if key not in weights or weights[key].shape != tuple(value.shape):
            wrong.append(key)
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        raise UserError(f"{path} does not fit {name}: {', '.join(wrong[:3])}{more}")
    load_module(network, {key: weights[key] for key in network.state_dict()})
