"""Small functions, by hand and against the schedules that they replaced."""

import common

import jittor as jt
import numpy as np
import pytest


def test_equal_shapes_pass():
    common.check_same_shape(jt.zeros((2, 3)), np.zeros((2, 3)), jt.ones((2, 3)))
    common.check_same_shape(jt.zeros((4,)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4,), (4, 1)), r"different shapes: \(4,\), \(4, 1\)"),  # they would broadcast to 4 x 4
        (((2, 1), (2, 3)), r"\(2, 1\), \(2, 3\)"),
        (((2,), (2,), (3,)), r"\(2,\), \(2,\), \(3,\)"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(shapes, message):
    tensors = [jt.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        common.check_same_shape(*tensors)


# ---- linear_decay ----


def decay_of_the_scripts(epoch, lr, decay_epoch, decay_until):
    """The function that pix2pix, cyclegan, stargan and spade each had."""
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    return lr * (decay_until + 1 - min(epoch, decay_until)) / (decay_until + 1 - decay_epoch)


@pytest.mark.parametrize("decay_epoch", [0, 1, 5, 100])
def test_decay_is_that_of_the_scripts_to_the_last_bit(decay_epoch):
    for decay_until in (0, 1, 4, 5, 6, 20, 200):
        for epoch in range(1, 2 + max(decay_epoch, decay_until)):
            for lr in (0.0002, 0.0001, 3e-4, 1.0):
                expected = decay_of_the_scripts(epoch, lr, decay_epoch, decay_until)
                assert common.linear_decay(epoch, lr, decay_epoch, decay_until) == expected


@pytest.mark.parametrize(
    ("epoch", "rate"), [(1, 101), (100, 101), (101, 100), (150, 51), (200, 1), (300, 1)]
)
def test_decay_by_hand(epoch, rate):
    """It falls by 1 / 101 of the rate after epoch 100, and never reaches 0."""
    found = common.linear_decay(epoch, 0.0101, decay_epoch=100, decay_until=200)
    assert np.isclose(found, rate * 0.0001)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(1, 1), (10, 1), (11, 10 / 11), (15, 6 / 11), (20, 1 / 11), (21, 1 / 11), (99, 1 / 11)],
)
def test_a_shorter_decay_by_hand(epoch, factor):
    found = common.linear_decay(epoch, 3e-4, decay_epoch=10, decay_until=20)
    assert np.isclose(found, 3e-4 * factor)


@pytest.mark.parametrize("decay_until", [2, 4, 5])
def test_nothing_falls_if_the_decay_would_end_before_it_begins(decay_until):
    for epoch in (1, 6, 9):
        assert common.linear_decay(epoch, 0.1, decay_epoch=5, decay_until=decay_until) == 0.1


# ---- step_decay ----


@pytest.mark.parametrize(
    ("epoch", "factor"), [(1, 1), (100, 1), (101, 1 / 2), (200, 1 / 2), (201, 1 / 4), (600, 1 / 32)]
)
def test_steps_by_hand(epoch, factor):
    assert common.step_decay(epoch, 0.0002, halve_every=100) == 0.0002 * factor


def test_a_rate_that_is_never_halved():
    assert [common.step_decay(epoch, 0.1, halve_every=0) for epoch in (1, 9, 999)] == [0.1] * 3


# ---- halvings ----


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(1, 1, 0), (2, 2, 1), (256, 256, 8), (64, 48, 4), (48, 64, 4), (32, 9, 0), (96, 40, 3)],
)
def test_halvings_of_both_sides(height, width, count):
    assert common.halvings(height, width) == count
    assert height % 2**count == width % 2**count == 0
