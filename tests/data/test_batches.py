"""The order of batches: seeded, whole, and the same after a stop in the middle of an epoch."""

from common import Batches, UserError

import numpy as np
import pytest


class Numbers:
    """Ten numbers as images, with the seed that each was given."""

    def __len__(self):
        return 10

    def batch(self, indices, seeds):
        return np.array(indices), np.array(seeds)


def epoch(batches):
    return [(indices.tolist(), seeds.tolist()) for indices, seeds in batches]


def test_an_epoch_is_a_permutation_without_the_rest():
    batches = Batches(Numbers(), batch_size=3, seed=0)
    first, second = epoch(batches), epoch(batches)
    assert len(batches) == len(first) == 3
    assert len({i for indices, _ in first for i in indices}) == 9
    assert first != second


def test_order_depends_on_the_seed_alone():
    orders = [epoch(Batches(Numbers(), batch_size=5, seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_a_state_in_the_middle_of_an_epoch_continues_there():
    whole = Batches(Numbers(), batch_size=2, seed=7)
    expected = epoch(whole) + epoch(whole)
    stopped = Batches(Numbers(), batch_size=2, seed=7)
    iterator = iter(stopped)
    seen = [next(iterator) for _ in range(3)]
    resumed = Batches(Numbers(), batch_size=2, seed=99)
    resumed.load_state_dict(stopped.state_dict())
    got = [(i.tolist(), s.tolist()) for i, s in seen] + epoch(resumed) + epoch(resumed)
    assert got == expected


def test_batch_size_above_the_data():
    with pytest.raises(UserError, match="--batch_size 11 is more than the 10 images"):
        Batches(Numbers(), batch_size=11, seed=0)
