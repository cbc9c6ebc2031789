"""Weights from a file of PyTorch's, without PyTorch, and without running what such a file may hold.

A `.pth` is a pickle, which can call any function when it is loaded. Here it can name only the few that a dict of
tensors needs. Both formats are read: the zip archive of PyTorch 1.6 and later, and the older one, in which five pickles
and then the numbers follow each other (torch/serialization.py, `_legacy_save`).
"""

from common.errors import UserError

import io
import math
import pickle
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
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RecursionError,
)


class Storage:
    """A row of numbers that tensors are views of; `numbers` is filled in once it has been read."""

    def __init__(self, dtype):
        self.dtype, self.numbers = dtype, None


class Tensor:
    """What the file says of a tensor: which part of a storage it is."""

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = (
            storage,
            offset,
            tuple(size),
            tuple(stride),
        )

    def array(self):
        """A copy of the numbers, which lie `stride` apart in the storage: in another order, where it was permuted."""
        last = self.offset + sum((side - 1) * step for side, step in zip(self.size, self.stride))
        if min(self.offset, *self.size, *self.stride, 0) < 0 or len(self.size) != len(self.stride):
            raise ValueError("a tensor of no possible shape")
        if 0 not in self.size and max(last + 1, math.prod(self.size)) > len(self.storage.numbers):
            raise ValueError("a tensor that is larger than its storage")
        numbers = self.storage.numbers[self.offset :]
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers, self.size, steps, writeable=False).copy()


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
    """{name: array} of a state dict in a file of PyTorch's.

    Raises:
        UserError: it is no such file, is damaged, or holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            found = read_zip(file) if zipfile.is_zipfile(file) else read_legacy(file)
        if not isinstance(found, dict) or not found:
            raise ValueError("it holds no dict of weights")
        return {str(name): tensor.array() for name, tensor in found.items()}
    except DAMAGE as error:
        raise UserError(f"{path} cannot be read as PyTorch's weights: {error}") from error


def read_zip(file):
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if Path(name).name == "data.pkl")
        unpickler = Unpickler(io.BytesIO(archive.read(pickled)))
        found = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.numbers = np.frombuffer(
                archive.read(pickled.replace("data.pkl", f"data/{key}")), storage.dtype
            )
    return found


def read_legacy(file):
    file.seek(0)
    if Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("its first number is not PyTorch's")
    Unpickler(file).load(), Unpickler(file).load()  # the version, and what the machine was
    unpickler = Unpickler(file)
    found = unpickler.load()
    for key in Unpickler(file).load():
        storage = unpickler.storages[key]
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        storage.numbers = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
    return found
