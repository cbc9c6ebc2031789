"""The order of batches: seeded, complete, and the same after a stop within an epoch."""

from common import UserError
from common.data import Batches, spread

import numpy as np
import pytest


class Numbers:
    """Ten integers in place of images, each with the seed that it was given."""

    def __len__(self):
        return 10

    def batch(self, indices, seeds=None):
        return np.array(indices), np.array(seeds)


def batches_of(batch_size, seed):
    return Batches(Numbers(), batch_size, np.random.default_rng(seed))


def epoch(batches):
    return [(indices.tolist(), seeds.tolist()) for indices, seeds in batches]


def test_an_epoch_is_a_permutation_without_an_incomplete_batch():
    batches = batches_of(batch_size=3, seed=0)
    first = epoch(batches)
    second = epoch(batches)
    assert len(batches) == len(first) == 3
    seen = set()
    for indices, _ in first:
        seen.update(indices)
    assert len(seen) == 9
    assert first != second


def test_the_order_depends_on_the_seed_alone():
    first = epoch(batches_of(batch_size=5, seed=0))
    again = epoch(batches_of(batch_size=5, seed=0))
    other = epoch(batches_of(batch_size=5, seed=1))
    assert first == again
    assert first != other


def test_a_state_within_an_epoch_continues_there():
    undisturbed = batches_of(batch_size=2, seed=7)
    expected = epoch(undisturbed) + epoch(undisturbed)

    stopped = batches_of(batch_size=2, seed=7)
    iterator = iter(stopped)
    seen = epoch(next(iterator) for _ in range(3))

    resumed = batches_of(batch_size=2, seed=99)
    resumed.load_state_dict(stopped.state_dict())
    assert seen + epoch(resumed) + epoch(resumed) == expected


def test_a_state_of_another_data_set_is_refused():
    batches = batches_of(batch_size=2, seed=0)
    state = batches.state_dict()
    with pytest.raises(ValueError, match="outside the data set"):
        batches.load_state_dict({**state, "position": 11})


def test_a_batch_larger_than_the_data_set():
    with pytest.raises(UserError, match="--batch_size 11 is more than the 10 images"):
        batches_of(batch_size=11, seed=0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (50, list(range(10)))],
)
def test_items_spread_over_a_data_set(n, expected):
    indices, _ = spread(Numbers(), n)
    assert indices.tolist() == expected
