"""Seeded, endless, equal batches of any data set, and each process's share of them."""

from common.errors import UserError

import jittor as jt
import numpy as np


class Batches:
    """Endless epochs of shuffled, equal batches whose order depends on the seed alone.

    Iterating gives one epoch, or the rest of one after `load_state_dict`. The last images that do not fill a
    batch are left out (a batch of another size would also compile another set of kernels). Under mpirun,
    `batch_size` is the size over all processes, and each gets its contiguous share of every batch.

    Args:
        data: an object with `len()` and `batch(indices, seeds)`; `seeds` has an integer for each image, from
            which it draws its augmentation.
    """

    def __init__(self, data, batch_size, seed):
        if batch_size > len(data):
            raise UserError(
                f"--batch_size {batch_size} is more than the {len(data)} images of the data set"
            )
        self.data, self.batch_size = data, batch_size
        self.rng = np.random.default_rng([seed, 1])
        self.start_of_epoch = self.rng.bit_generator.state
        self.position = 0  # images of this epoch that have been given out

    def __len__(self):
        return len(self.data) // self.batch_size

    def __iter__(self):
        self.rng.bit_generator.state = self.start_of_epoch
        order = self.rng.permutation(len(self.data))
        seeds = self.rng.integers(2**63, size=len(self.data))
        first, last = self.position, len(self) * self.batch_size
        chunks = [order[i : i + self.batch_size] for i in range(first, last, self.batch_size)]
        for batch in self.data_in_order(
            [shard(c) for c in chunks if len(c) == self.batch_size], seeds
        ):
            self.position += self.batch_size
            yield batch
        self.start_of_epoch = self.rng.bit_generator.state
        self.position = 0

    def data_in_order(self, chunks, seeds):
        """The batches; a data set that decodes files offers `stream`, which works ahead in threads."""
        if hasattr(self.data, "stream"):
            yield from self.data.stream(chunks, seeds)
        else:
            for indices in chunks:
                yield self.data.batch(indices, seeds[indices])

    def state_dict(self):
        return {"start_of_epoch": self.start_of_epoch, "position": self.position}

    def load_state_dict(self, state):
        if not 0 <= state["position"] <= len(self.data):
            raise ValueError("the position lies outside the data set")
        self.rng.bit_generator.state = self.start_of_epoch = state["start_of_epoch"]
        self.position = state["position"]


def shard(array):
    """This process's contiguous share of an array over the whole batch; all of it without mpirun."""
    share = len(array) // jt.world_size
    return array[jt.rank * share : (jt.rank + 1) * share]


def whole_batch(share):
    """The batch over all processes from each one's share, a Jittor variable; gradients pass through to every share."""
    if not jt.in_mpi:
        return share
    rows = [jt.zeros_like(share)] * jt.world_size
    rows[jt.rank] = share
    return jt.concat(rows).mpi_all_reduce("add")


def batch_mean(value):
    """The mean over the whole batch of a Jittor variable that each process has for its own share; no gradient."""
    return value.detach().mpi_all_reduce("mean") if jt.in_mpi else value.detach()
