"""Reads weights from a file of PyTorch, without PyTorch, and runs no code of the file.

A `.pth` is a pickle, which can call any function when it is loaded. The reader allows
only the few names that a dict of tensors needs. It reads both formats: the zip archive
of PyTorch 1.6 and later, and the older one, in which five pickles and then the numbers
follow each other (torch/serialization.py, `_legacy_save`).
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
# What a damaged file may raise.
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
        UserError: the file is of another format, is damaged, or holds anything other
            than tensors.
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
    """What an archive of PyTorch 1.6 or later holds."""
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if Path(name).name == "data.pkl")
        unpickler = Unpickler(io.BytesIO(archive.read(pickled)))
        found = unpickler.load()
        for key, storage in unpickler.storages.items():
            data = archive.read(pickled.replace("data.pkl", f"data/{key}"))
            storage.numbers = np.frombuffer(data, storage.dtype)
    return found


def read_legacy(file):
    """What a file of the older format holds."""
    file.seek(0)
    if Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("its first number is not PyTorch's")
    Unpickler(file).load()  # the version of the format
    Unpickler(file).load()  # the machine that wrote it
    unpickler = Unpickler(file)
    found = unpickler.load()
    for key in Unpickler(file).load():
        storage = unpickler.storages[key]
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        data = file.read(count * storage.dtype.itemsize)
        storage.numbers = np.frombuffer(data, storage.dtype)
    return found
