"""A network's outputs for numpy arrays: chunks, modes, gradients, seeds."""

import common

import jittor as jt
import numpy as np

from jittor_fast import nn


class Sum(nn.Module):
    """x + y, with dropout; it notes how many rows each call has."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.n_rows = []

    def execute(self, x, y):
        self.n_rows.append(len(x))
        return self.dropout(x + y)


def test_chunks_are_joined_and_the_network_evaluates():
    network = Sum()
    x = np.arange(7, dtype=np.float32)
    network.train()
    assert common.predict(network, x, 2 * x, chunk=3).tolist() == (3 * x).tolist()
    assert network.n_rows == [3, 3, 1]
    assert network.is_training()


def test_a_network_in_eval_mode_stays_there():
    network = Sum()
    network.eval()
    x = np.arange(7, dtype=np.float32)
    common.predict(network, x, x, chunk=7)
    assert not network.is_training()
    assert network.n_rows == [7]


def test_several_outputs():
    x = np.arange(5, dtype=np.float32)
    twice, squares = common.predict(lambda v: (2 * v, v * v), x, chunk=2)
    assert twice.tolist() == (2 * x).tolist()
    assert squares.tolist() == (x * x).tolist()


def test_no_gradient_is_kept():
    w = jt.ones((1,))
    kept = []

    def network(x):
        kept.append(w * x)
        return kept[0]

    common.predict(network, np.ones(3, np.float32))
    assert kept[0].is_stop_grad()


def test_a_seed_repeats_what_is_drawn():
    def network(x):
        return x + jt.rand(x.shape)

    x = np.zeros((6, 4), np.float32)
    one = common.predict(network, x, chunk=3, seed=1)
    same = common.predict(network, x, chunk=3, seed=1)
    other = common.predict(network, x, chunk=3, seed=2)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == one.size  # each chunk draws its own values
