"""Shuffled batches of any data set, and each process's share of them."""

from common.errors import UserError

import jittor as jt
import numpy as np


class Batches:
    """Endless epochs of shuffled batches of equal size.

    Iterating over it gives one epoch, or the rest of one after `load_state_dict`. The
    last images, if they do not fill a batch, are left out of the epoch: a batch of
    another size would need another set of compiled kernels. Under mpirun, `batch_size`
    is the size over all processes, and each process gets its contiguous share of each
    batch.

    Args:
        data: an object with `len()` and `batch(indices, seeds)`. `seeds` holds an
            integer for each image, which determines its augmentation.
        batch_size: images per batch.
        rng: a numpy Generator that shuffles. Nothing else may draw from it: a resumed
            run sets it back to its state at the start of the epoch.

    Raises:
        UserError: the data set is smaller than a batch.
    """

    def __init__(self, data, batch_size, rng):
        if batch_size > len(data):
            raise UserError(
                f"--batch_size {batch_size} is more than the {len(data)} images of the data set"
            )
        self.data = data
        self.batch_size = batch_size
        self.rng = rng
        self.start_of_epoch = rng.bit_generator.state
        self.position = 0  # images of this epoch that were already given out

    def __len__(self):
        """Batches per epoch."""
        return len(self.data) // self.batch_size

    def __iter__(self):
        # The order of an epoch is drawn again from the state at its start, so that a
        # checkpoint holds this state and a position instead of all indices.
        self.rng.bit_generator.state = self.start_of_epoch
        order = self.rng.permutation(len(self.data))
        seeds = self.rng.integers(2**63, size=len(self.data))

        shares = []
        end = len(self) * self.batch_size
        for first in range(self.position, end, self.batch_size):
            chunk = order[first : first + self.batch_size]
            if len(chunk) == self.batch_size:
                shares.append(shard(chunk))

        for batch in self.data_in_order(shares, seeds):
            self.position += self.batch_size
            yield batch
        self.start_of_epoch = self.rng.bit_generator.state
        self.position = 0

    def data_in_order(self, chunks, seeds):
        """Yields the batches of the index arrays `chunks`.

        A data set that decodes files has a method `stream`, which works ahead in
        threads.

        Args:
            chunks: index arrays, one per batch.
            seeds: (N,) integers, one for each item of the data set.
        """
        if hasattr(self.data, "stream"):
            yield from self.data.stream(chunks, seeds)
        else:
            for indices in chunks:
                yield self.data.batch(indices, seeds[indices])

    def state_dict(self):
        """What a checkpoint stores: the generator's state and the position."""
        return {"start_of_epoch": self.start_of_epoch, "position": self.position}

    def load_state_dict(self, state):
        """Continues where `state_dict` was called.

        Raises:
            KeyError, TypeError, ValueError: the state is damaged.
        """
        if not 0 <= state["position"] <= len(self.data):
            raise ValueError("the position lies outside the data set")
        self.rng.bit_generator.state = state["start_of_epoch"]
        self.start_of_epoch = state["start_of_epoch"]
        self.position = state["position"]


def spread(data, n=10):
    """The batch of n items, evenly spaced over a data set; of all, if it has fewer."""
    n = min(n, len(data))
    indices = np.linspace(0, len(data) - 1, n).astype(int)
    return data.batch(indices)


# ---- processes of mpirun ----


def shard(array):
    """This process's contiguous share of an array (B, ...) over the whole batch.

    Without mpirun it is the whole array.
    """
    share = len(array) // jt.world_size
    return array[jt.rank * share : (jt.rank + 1) * share]


def whole_batch(share):
    """The batch (B, ...) over all processes, from each one's share.

    Args:
        share: a Jittor variable. Gradients reach the shares of all processes.
    """
    if not jt.in_mpi:
        return share
    shares = [jt.zeros_like(share)] * jt.world_size
    shares[jt.rank] = share
    return jt.concat(shares).mpi_all_reduce("add")


def batch_mean(value):
    """The mean over all processes of a Jittor variable, without its gradient.

    Args:
        value: a mean over this process's share of the batch.
    """
    value = value.detach()
    if jt.in_mpi:
        value = value.mpi_all_reduce("mean")
    return value
