"""The sets that are drawn from the bundled digits: their pixels by hand, no digit in two parts, little memory."""

from common.data import drawn

import tracemalloc

import numpy as np
import pytest


def test_train_and_test_part_share_no_digit():
    train, test = (drawn.bundled_digits(split) for split in ("train", "test"))
    assert [len(train[1]), len(test[1])] == [4500, 500]
    assert np.bincount(test[1]).tolist() == [50] * 10
    seen = {image.tobytes() for image in train[0]}
    assert not [image for image in test[0] if image.tobytes() in seen]


def flat(arrays):
    """The arrays of nested tuples."""
    return [x for item in arrays for x in (flat(item) if isinstance(item, tuple) else [item])]


SETS = [drawn.outline_pairs, drawn.coloured_digits, drawn.digit_domains]


@pytest.mark.parametrize("make", SETS)
def test_chunks_do_not_show_in_the_pixels(make, monkeypatch):
    whole = flat(make(16, "test"))
    monkeypatch.setattr(drawn, "CHUNK", 7)
    assert all(np.array_equal(a, b) for a, b in zip(whole, flat(make(16, "test"))))


@pytest.mark.parametrize("make", SETS)
def test_drawing_needs_little_more_memory_than_the_images(make):
    """2,250 images of 3 channels in float64 would be 55 MB, more than once; a chunk of 100 is 2.5 MB."""
    tracemalloc.start()
    images = [x for x in flat(make(32, "train")) if x.ndim == 4]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - sum(x.nbytes for x in images) < 30e6


def test_outlines_tell_no_colour_and_paintings_have_that_of_their_class():
    outlines, paintings, labels = drawn.outline_pairs(64, "test")
    assert outlines.shape == paintings.shape == (500, 3, 64, 64)
    assert (outlines == outlines[:, :1]).all()  # grey
    assert (paintings[:, :, 0, 0] == drawn.GROUND).all()
    for k in range(10):
        painting = paintings[labels == k][0].reshape(3, -1).T.astype(int)
        assert (np.abs(painting - drawn.COLOURS[k]).max(1) == 0).sum() > 50


@pytest.mark.parametrize("channels", [1, 3])
def test_no_digit_is_in_both_domains(channels):
    (white, labels_A), (inked, labels_B) = drawn.digit_domains(32, "train", channels)
    assert white.shape == inked.shape == (2250, channels, 32, 32)
    assert white.mean() < 60 < 150 < inked.mean()
    assert np.bincount(labels_A).tolist() == np.bincount(labels_B).tolist() == [225] * 10
    pixels, labels = drawn.bundled_digits("train")
    assert np.array_equal(np.concatenate([labels_A, labels_B]), labels)
    halves = [{image.tobytes() for image in half} for half in (pixels[:2250], pixels[2250:])]
    assert not halves[0] & halves[1]


def test_coloured_digits_have_exactly_one_colour():
    pictures, attributes, _ = drawn.coloured_digits(32, "test")
    assert (attributes[:, :3].sum(1) == 1).all()
    for k in range(3):
        mean = pictures[attributes[:, k] == 1].mean((0, 2, 3))
        assert mean.argmax() == k
    inverted = attributes[:, 4] == 1
    corners = pictures[:, :, 0, 0]  # of the ground
    assert not corners[~inverted].any()
    assert (corners[inverted] == drawn.ATTRIBUTE_COLOURS[attributes[inverted, :3].argmax(1)]).all()
    assert (pictures.min(1).max((1, 2))[inverted] > 240).all()  # the digit is white
    assert (pictures.min(1).max((1, 2))[~inverted] < 70).all()


def test_shapes_by_hand():
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, 1, 1] = 9
    assert drawn.dilate(pixels, 1)[0].tolist() == [[9, 9, 9, 0]] * 3 + [[0] * 4]
    assert not drawn.erode(pixels > 0, 1).any()
    assert drawn.halve(pixels)[0].tolist() == [[2, 0], [0, 0]]  # 9 / 4, rounded
    assert drawn.grey(np.uint8([[[[1]], [[2]], [[5]]]])).tolist() == [[[[3]]]]  # 8 / 3, rounded
