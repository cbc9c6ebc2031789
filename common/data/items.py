"""The two kinds of data set: images in memory, and images decoded when needed."""

from common.data.decode import Unreadable, to_float, workers
from common.errors import UserError, warn

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

AHEAD = 4  # batches that are decoded while the model computes


class InMemory:
    """Images in memory, each with a label or a vector of attributes.

    Attributes:
        images: (N, C, S, S) uint8.
        labels: an array of length N, such as (N,) int32 classes.
    """

    def __init__(self, images, labels):
        self.images = images
        self.labels = labels

    def __len__(self):
        return len(self.images)

    def item(self, index, seed=0):
        """One image (C, S, S) uint8 and its label. The seed is not used."""
        return self.images[index], self.labels[index]

    def batch(self, indices, seeds=None):
        """Images (B, C, S, S) float32 in [-1, 1] and their labels."""
        return to_float(self.images[indices]), self.labels[indices]


class LazyImages:
    """A data set whose items are decoded in threads, ahead of the training step.

    A subclass has `len()` and `load(index, seed)`, which returns a tuple of arrays for
    one item and raises `Unreadable` if its file cannot be read.

    Files can break or vanish during a training of several days. The next readable item
    is used instead, together with its own label or partner, and one warning names the
    file.
    """

    in_memory = False  # True: there is nothing to decode ahead of time

    def __init__(self):
        self.warned = set()
        self.lock = threading.Lock()

    def item(self, index, seed=0):
        """The item at `index`, or the next readable one.

        Raises:
            UserError: no item can be read any more.
        """
        errors = []
        for i in range(index, index + len(self)):
            try:
                arrays = self.load(i % len(self), seed)
            except Unreadable as error:
                errors.append(error)
                continue
            self.warn_once(errors)
            return arrays
        raise UserError(
            f"none of the {len(self):,} items can be read any more; the last error: {errors[-1]}"
        )

    def warn_once(self, errors):
        """Prints a warning for each file that has not had one yet."""
        for error in errors:
            with self.lock:  # several threads can meet the same file
                is_new = error.path not in self.warned
                self.warned.add(error.path)
            if is_new:
                warn(f"{error}; the next item is used instead")

    def batch(self, indices, seeds=None):
        """The items' arrays as a tuple of batches, images as float32 in [-1, 1].

        Args:
            seeds: an integer for each index (default: 0).
        """
        if seeds is None:
            seeds = [0] * len(indices)
        return stack([self.item(i, seed) for i, seed in zip(indices, seeds)])

    def stream(self, chunks, seeds):
        """Yields the batches of the index arrays `chunks`, in their order.

        Args:
            chunks: index arrays, one per batch.
            seeds: an integer for each item of the data set.
        """
        if self.in_memory:
            for chunk in chunks:
                yield self.batch(chunk, [seeds[i] for i in chunk])
            return

        chunks = iter(chunks)
        pending = deque()  # futures of the batches that are being decoded
        pool = ThreadPoolExecutor(workers())

        def begin_next():
            chunk = next(chunks, None)
            if chunk is not None:
                pending.append([pool.submit(self.item, i, seeds[i]) for i in chunk])

        try:
            for _ in range(AHEAD):
                begin_next()
            while pending:
                items = [future.result() for future in pending.popleft()]
                begin_next()
                yield stack(items)
        finally:
            pool.shutdown(cancel_futures=True)


def stack(items):
    """The arrays of a list of items as a tuple of batches."""
    return tuple(stack_column(column) for column in zip(*items))


def stack_column(arrays):
    """One array of each item as a batch; uint8 arrays are images, made float32."""
    if len({array.dtype for array in arrays}) > 1:  # images of 8 bits beside deeper ones
        arrays = [to_float(array) for array in arrays]
    return to_float(np.stack(arrays))
