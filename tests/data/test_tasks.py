"""Pairs made from any images: edges, grey, holes, small copies, by hand."""

from common import UserError
from common.data import tasks
from common.data.augment import Augment
from common.data.deep import from_array

import numpy as np
import pytest
from PIL import Image
from registry import images


def step(height, size=16, at=8):
    """A grey image that rises by `height` levels between two columns."""
    pixels = np.full((size, size), 100, np.uint8)
    pixels[:, at:] = 100 + height
    return pixels


# ---- edges ----


def test_a_step_becomes_a_line_of_one_pixel():
    """Smoothed, a step of h has slopes of 10/32 h on both sides, and less beyond.

    The left one of two equal pixels is kept. Upside down, lines are where they were.
    """
    expected = np.zeros((16, 16), bool)
    expected[:, 7] = True
    assert np.array_equal(tasks.edges(step(100)), expected)
    assert np.array_equal(tasks.edges(255 - step(100)), expected)
    assert np.array_equal(tasks.edges(step(100).T), expected.T)


def test_thresholds():
    """10/32 of 48 levels are 15, and 10/32 of 47 are less."""
    assert tasks.edges(step(48))[:, 7].all()
    assert not tasks.edges(step(47)).any()


def test_a_weak_edge_is_kept_where_a_strong_one_continues_it():
    weak = step(20)
    assert not tasks.edges(weak).any()
    assert not tasks.edges(step(19)).any()
    fading = np.full((41, 16), 100, np.uint8)
    fading[:, 8:] += np.arange(60, 19, -1, dtype=np.uint8)[:, None]  # 60 levels to 20
    assert (tasks.edges(fading)[:, 7:9].sum(1) == 1).all()
    assert not tasks.edges(fading[13:]).any()  # 47 to 20


@pytest.mark.parametrize("falls", [True, False])
def test_of_a_diagonal_step_both_sides_are_equal(falls):
    """None of the two is larger than its neighbours along the gradient."""
    rows, columns = np.indices((16, 16))
    if not falls:
        columns = columns[:, ::-1]
    pixels = np.where(columns > rows, 200, 0).astype(np.uint8)
    expected = (columns == rows) | (columns == rows + 1)
    inside = slice(3, 13)
    assert np.array_equal(tasks.edges(pixels)[inside], expected[inside])


def test_the_chain_of_a_spiral_is_followed_to_its_end():
    weak = np.zeros((9, 9), bool)
    weak[0, :] = weak[:, 8] = weak[8, 1:] = weak[2:, 1] = True
    weak[2, 2:7] = True
    strong = np.zeros_like(weak)
    strong[2, 6] = True
    assert np.array_equal(tasks.linked(strong, weak), weak)
    weak[4, 1] = False
    assert not tasks.linked(strong, weak)[5:].any()
    assert tasks.linked(strong, weak)[3, 1]


def test_an_even_area_has_no_edges_and_is_drawn_white():
    pixels = np.full((3, 16, 16), 77, np.uint8)
    drawing = tasks.make_input("edges", pixels)
    assert drawing.shape == (1, 16, 16)
    assert (drawing == 255).all()


def test_edges_are_black_on_white():
    drawing = tasks.make_input("edges", step(100)[None])
    assert (drawing[0, :, 7] == 0).all()
    assert (np.delete(drawing[0], 7, axis=1) == 255).all()


# ---- the others ----


def test_grey_by_the_weights_of_the_colours():
    """0.299, 0.587 and 0.114 of 255, rounded."""
    pixels = np.zeros((3, 1, 4), np.uint8)
    for k in range(3):
        pixels[k, 0, k] = 255
    assert tasks.make_input("color", pixels).tolist() == [[[76, 150, 29, 0]]]


def test_a_hole_is_white():
    pixels = np.arange(2 * 4, dtype=np.uint8).reshape(1, 2, 4)
    mask = np.zeros((2, 4), bool)
    mask[1, 2] = True
    expected = [[[0, 1, 2, 3], [4, 5, 255, 7]]]
    assert tasks.make_input("inpaint", pixels, mask).tolist() == expected


def test_a_small_copy_is_enlarged_again():
    """Pillow's bicubic filter, which differs at the border, agrees within it."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((64, 64), Image.BICUBIC))
    small = Image.fromarray(pixels).resize((16, 16), Image.BICUBIC)
    expected = np.asarray(small.resize((64, 64), Image.BICUBIC)).astype(int)
    found = tasks.make_input("enlarge", pixels[None])[0].astype(int)
    inside = slice(16, 48)
    assert np.abs(found - expected)[inside, inside].max() <= 2
    assert np.abs(found - pixels)[inside, inside].max() > 10


# ---- data sets ----


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("channels", [(3, 3), (1, 3), (1, 1)])
def test_pairs_of_the_built_in_faces(task, channels):
    if task == "color" and channels == (1, 1):
        pytest.skip("no colours")
    data = tasks.load_task_pairs(task, "faces", 32, channels, split="val")
    inputs, targets = data.batch([0, 499])
    assert inputs.shape == (2, channels[0], 32, 32)
    assert targets.shape == (2, channels[1], 32, 32)
    assert len(data) == 500
    if channels == (3, 3) and task in ("edges", "color"):
        assert np.array_equal(inputs[:, 0], inputs[:, 2])
    if task == "inpaint":
        assert (inputs[:, :, 8:24, 8:24] == 1).all()
        if channels == (3, 3):
            assert np.array_equal(inputs[:, :, :8], targets[:, :, :8])


def test_the_target_is_the_augmented_image(tmp_path):
    images(tmp_path / "train", 2, (40, 40))
    data = tasks.load_task_pairs("color", tmp_path, 32, (1, 3), augment=Augment())
    first = data.batch([0, 0], [1, 2])
    assert not np.array_equal(first[1][0], first[1][1])
    weights = np.float32([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    assert np.allclose(first[0][:, 0], (weights * first[1]).sum(1), atol=1 / 127)


def test_random_holes_change_with_the_seed_and_the_image():
    data = tasks.load_task_pairs("inpaint", None, 32, (1, 1), "random")
    inputs, _ = data.batch([0, 1, 0, 0], [3, 3, 4, 3])
    holes = inputs == 1
    assert not np.array_equal(holes[0], holes[1])
    assert not np.array_equal(holes[0], holes[2])
    assert np.array_equal(inputs[0], inputs[3])


def test_images_of_16_bits_count_as_images_of_8(tmp_path):
    (tmp_path / "mine").mkdir()
    deep = np.full((32, 32), 257 * 40, np.uint16)
    Image.fromarray(deep).save(tmp_path / "mine/a.png")
    inputs, targets = tasks.load_task_pairs("inpaint", tmp_path / "mine", 32, (1, 1)).batch([0])
    assert np.allclose(targets, 40 / 127.5 - 1)
    assert (inputs[0, 0, 8:24, 8:24] == 1).all()


@pytest.mark.parametrize(
    ("task", "data_dir", "channels", "message"),
    [
        ("color", None, (3, 3), "no colour to learn in grey images; give images in colour"),
        ("color", "digits", (1, 3), "no colour to learn"),
        ("color", "faces", (1, 1), "no colour to learn"),
        ("edges", "faces", (2, 3), "--task edges: images have 1 or 3 channels"),
        ("edges", "stacked", (3, 3), "this script takes --data_dir digits or --data_dir faces"),
        ("edges", "nowhere", (3, 3), "nowhere is not a folder"),
    ],
)
def test_what_does_not_suit_a_task(task, data_dir, channels, message):
    with pytest.raises(UserError, match=message):
        tasks.load_task_pairs(task, data_dir, 32, channels)


# ---- pictures of people ----


def test_a_picture_to_colour_is_made_grey():
    image = Image.new("RGB", (2, 2), (255, 0, 0))
    prepared = tasks.prepare("color")(image)
    assert prepared.mode == "RGB"
    assert prepared.getpixel((0, 0)) == (76, 76, 76)
    deep = from_array(np.full((2, 2, 3), [1.0, 0.0, 0.0]), 3)
    assert tasks.prepare("color")(deep).getpixel((1, 1)) == (76, 76, 76)
    assert tasks.prepare("edges") is tasks.prepare(None) is None


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_to_enlarge_is_four_times_as_large(mode):
    larger = tasks.prepare("enlarge")(Image.new(mode, (5, 3), 60))
    assert larger.mode == mode
    assert larger.size == (20, 12)
    assert larger.getpixel((7, 7)) == Image.new(mode, (1, 1), 60).getpixel((0, 0))
