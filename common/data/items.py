"""The two kinds of data set: images in memory, and images that are decoded when they are needed."""

from common.data.decode import Unreadable, to_float, workers
from common.errors import UserError, warn

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

AHEAD = 4  # batches that are being decoded while the model computes


class InMemory:
    """Images in memory, with a label or a row of attributes for each.

    Attributes:
        images: (N, C, S, S) uint8.
        labels: N rows, such as (N,) int32 classes.
    """

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def item(self, index, seed=0):
        """One image (C, S, S) uint8 and its label."""
        return self.images[index], self.labels[index]

    def batch(self, indices, seeds=None):
        """Images (B, C, S, S) float32 in [-1, 1] and their labels."""
        return to_float(self.images[indices]), self.labels[indices]


class LazyImages:
    """A data set whose items are decoded when they are needed, in threads ahead of the training step.

    A subclass has `len()` and `load(index, seed)`, which gives a tuple of arrays for one item and raises `Unreadable`
    where its file cannot be read. Files can break or vanish during a training of days: then the next item that can be
    read takes the place of the whole item, with its own label or partner, and one warning names the file.
    """

    in_memory = False  # True: there is nothing to decode ahead of time

    def __init__(self):
        self.warned, self.lock = set(), threading.Lock()

    def item(self, index, seed=0):
        """The item at `index`, or the next one that can be read.

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
        for error in errors:
            with self.lock:  # several threads meet the same file
                is_new = error.path not in self.warned
                self.warned.add(error.path)
            if is_new:
                warn(f"{error}; the next item takes its place")

    def batch(self, indices, seeds=None):
        """The items' arrays as batches; images as float32 in [-1, 1]."""
        seeds = [0] * len(indices) if seeds is None else seeds
        return stack([self.item(i, s) for i, s in zip(indices, seeds)])

    def stream(self, chunks, seeds):
        """The batches of index arrays `chunks`, in their order; `seeds` has a number for each item of the data set."""
        if self.in_memory:
            yield from (self.batch(chunk, [seeds[i] for i in chunk]) for chunk in chunks)
            return
        chunks, pending = iter(chunks), deque()
        pool = ThreadPoolExecutor(workers())

        def begin_next():
            for chunk in chunks:
                pending.append([pool.submit(self.item, i, seeds[i]) for i in chunk])
                break

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
    """Items' arrays as batches; uint8 is taken for an image."""
    return tuple(stack_column(column) for column in zip(*items))


def stack_column(arrays):
    if len({array.dtype for array in arrays}) > 1:  # images of eight bits beside deeper ones
        arrays = [to_float(array) for array in arrays]
    return to_float(np.stack(arrays))
