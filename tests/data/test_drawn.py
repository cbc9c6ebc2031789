"""The sets that are drawn from the bundled digits: their pixels, splits and memory."""

from common import UserError
from common.data.toy import drawn

import tracemalloc

import numpy as np
import pytest


def test_the_splits_share_no_digit():
    train, train_labels = drawn.bundled_digits("train")
    test, test_labels = drawn.bundled_digits("test")
    assert (len(train_labels), len(test_labels)) == (4500, 500)
    assert np.bincount(test_labels).tolist() == [50] * 10
    seen = {image.tobytes() for image in train}
    assert not any(image.tobytes() in seen for image in test)


def flat(arrays):
    """The arrays of nested tuples."""
    result = []
    for item in arrays:
        if isinstance(item, tuple):
            result += flat(item)
        else:
            result.append(item)
    return result


SETS = [drawn.outline_pairs, drawn.coloured_digits, drawn.digit_domains]


@pytest.mark.parametrize("make", SETS)
def test_chunks_do_not_show_in_the_pixels(make, monkeypatch):
    expected = flat(make(16, "test"))
    monkeypatch.setattr(drawn, "CHUNK", 7)
    for array, other in zip(expected, flat(make(16, "test"))):
        assert np.array_equal(array, other)


@pytest.mark.parametrize("make", SETS)
def test_drawing_needs_little_more_memory_than_the_images(make):
    """2,250 images of 3 channels are 55 MB in float64; a chunk of 100 is 2.5 MB."""
    tracemalloc.start()
    images = [array for array in flat(make(32, "train")) if array.ndim == 4]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - sum(array.nbytes for array in images) < 30e6


@pytest.mark.parametrize("make", SETS)
def test_sets_have_a_largest_size(make):
    with pytest.raises(UserError, match=r"drawn images of 800 x 800 .* lower --img_size"):
        make(800, "train")


def test_outlines_are_grey_and_paintings_have_the_colour_of_their_class():
    outlines, paintings, labels = drawn.outline_pairs(64, "test")
    assert outlines.shape == paintings.shape == (500, 3, 64, 64)
    assert (outlines == outlines[:, :1]).all()
    assert (paintings[:, :, 0, 0] == drawn.GROUND).all()
    for k in range(10):
        painting = paintings[labels == k][0].reshape(3, -1).T.astype(int)
        distance = np.abs(painting - drawn.COLOURS[k]).max(axis=1)
        assert (distance == 0).sum() > 50


@pytest.mark.parametrize("channels", [1, 3])
def test_no_digit_is_in_both_domains(channels):
    (white, labels_A), (inked, labels_B) = drawn.digit_domains(32, "train", channels)
    assert white.shape == inked.shape == (2250, channels, 32, 32)
    assert white.mean() < 60
    assert inked.mean() > 150
    assert np.bincount(labels_A).tolist() == np.bincount(labels_B).tolist() == [225] * 10

    pixels, labels = drawn.bundled_digits("train")
    assert np.array_equal(np.concatenate([labels_A, labels_B]), labels)
    first_half = {image.tobytes() for image in pixels[:2250]}
    second_half = {image.tobytes() for image in pixels[2250:]}
    assert not first_half & second_half


def test_coloured_digits_have_exactly_one_colour():
    pictures, attributes, _ = drawn.coloured_digits(32, "test")
    assert (attributes[:, :3].sum(axis=1) == 1).all()
    for k in range(3):
        mean = pictures[attributes[:, k] == 1].mean(axis=(0, 2, 3))
        assert mean.argmax() == k


def test_the_digit_or_the_ground_has_the_colour():
    pictures, attributes, _ = drawn.coloured_digits(32, "test")
    is_inverted = attributes[:, 4] == 1
    corners = pictures[:, :, 0, 0]
    colours = drawn.ATTRIBUTE_COLOURS[attributes[:, :3].argmax(axis=1)]
    assert not corners[~is_inverted].any()
    assert (corners[is_inverted] == colours[is_inverted]).all()
    brightest = pictures.min(axis=1).max(axis=(1, 2))  # how white the whitest pixel is
    assert (brightest[is_inverted] > 240).all()
    assert (brightest[~is_inverted] < 70).all()


def test_shapes_by_hand():
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, 1, 1] = 9
    assert drawn.dilate(pixels, 1)[0].tolist() == [[9, 9, 9, 0]] * 3 + [[0] * 4]
    assert not drawn.erode(pixels > 0, 1).any()
    assert drawn.halve(pixels)[0].tolist() == [[2, 0], [0, 0]]  # 9 / 4, rounded
    assert drawn.grey(np.uint8([[[[1]], [[2]], [[5]]]])).tolist() == [[[[3]]]]  # 8 / 3, rounded
