"""Pairs made from any images: what a translator's input is made of its target.

edges     a drawing of the target's edges, by Canny's method
color     the target in grey
inpaint   the target with a white hole
enlarge   the target's small copy, enlarged again by bicubic interpolation
"""

from common.data.augment import NONE, sides
from common.data.decode import to_float
from common.data.deep import Deep
from common.data.folders import load_originals
from common.data.holes import mask_of
from common.data.items import LazyImages
from common.data.layout import built_in
from common.data.pairs import grey
from common.data.resolution import resize, shrink
from common.errors import UserError

import numpy as np
from PIL import Image

TASKS = ("edges", "color", "inpaint", "enlarge")
SCALE = 4  # of enlarge, along a side

# Of `edges`: grey levels per pixel, after smoothing. A step of 48 levels between two
# even areas reaches STRONG, and one of 20 reaches WEAK.
STRONG = 15.0
WEAK = 6.0
SMOOTH = np.float32([1, 4, 6, 4, 1]) / 16  # binomial, of about the Gaussian with std 1
SLOPE = np.float32([-1, 0, 1]) / 2
ACROSS = np.float32([1, 2, 1]) / 4  # with SLOPE, Sobel's kernel divided by 8
DIAGONAL = np.tan(np.pi / 8)  # of the steepest direction that counts as horizontal


# ---- inputs ----


def make_input(task, pixels, mask=None):
    """The input that belongs to a target (C, H, W) uint8, C 1 or 3.

    Args:
        task: one of TASKS.
        mask: (H, W) bool, where pixels are missing; of "inpaint".

    Returns:
        (C, H, W) uint8, or (1, H, W) if it is grey: for "edges" and "color".
    """
    if task == "edges":
        return np.where(edges(with_channels(pixels, 1)[0]), 0, 255).astype(np.uint8)[None]
    if task == "color":
        return with_channels(pixels, 1)
    if task == "inpaint":
        return np.where(mask, np.uint8(255), pixels)
    return resize(shrink(pixels, SCALE), pixels.shape[1:])


def with_channels(pixels, channels):
    """(C, H, W) uint8 with 1 or 3 channels, of an image that has 1 or 3."""
    if len(pixels) == channels:
        return pixels
    return grey(pixels) if channels == 1 else np.repeat(pixels, 3, axis=0)


def edges(pixels):
    """Where a grey image (H, W) has edges, as thin lines; (H, W) bool.

    Canny 1986: the image is smoothed. Where its gradient is at least WEAK, and is the
    largest one along its own direction (of four: horizontal, vertical, two diagonals),
    there may be an edge; and it is kept if a chain of such pixels links it to one whose
    gradient is at least STRONG.
    """
    image = along(along(pixels.astype(np.float32), SMOOTH, 0), SMOOTH, 1)
    x = along(along(image, SLOPE, 1), ACROSS, 0)
    y = along(along(image, SLOPE, 0), ACROSS, 1)
    strength = np.hypot(x, y)
    thin = np.where(is_ridge(strength, x, y), strength, 0)
    return linked(thin >= STRONG, thin >= WEAK)


def along(image, kernel, axis):
    """The correlation with a kernel along an axis; the border's pixels are repeated."""
    reach = len(kernel) // 2
    margins = [(0, 0), (0, 0)]
    margins[axis] = (reach, reach)
    padded = np.pad(image, margins, mode="edge")
    n = image.shape[axis]
    total = np.zeros_like(image)
    for start, weight in enumerate(kernel):
        total += weight * padded.take(range(start, start + n), axis)
    return total


def is_ridge(strength, x, y):
    """Where the strength is larger than that of both neighbours along the gradient.

    Of two equal ones, the left or upper one is kept.

    Args:
        strength, x, y: (H, W), the gradient's length and its parts.
    """
    height, width = strength.shape
    padded = np.pad(strength, 1)

    def shifted(down, right):
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    is_horizontal = np.abs(y) <= DIAGONAL * np.abs(x)
    is_vertical = np.abs(x) <= DIAGONAL * np.abs(y)
    falls = x * y > 0  # the gradient points down to the right, or up to the left
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    directions = [is_horizontal, is_vertical, falls]
    before = np.select(directions, [shifted(-a, -b) for a, b in steps[:3]], shifted(-1, 1))
    after = np.select(directions, [shifted(a, b) for a, b in steps[:3]], shifted(1, -1))
    return (strength > before) & (strength >= after)


def linked(strong, weak):
    """The pixels of `weak` that a chain of neighbours in `weak` links to `strong`.

    Args:
        strong, weak: (H, W) bool; all of `strong` is in `weak`.
    """
    height, width = weak.shape
    while True:
        padded = np.pad(strong, 1)
        grown = np.zeros_like(weak)
        for down in range(3):
            for right in range(3):
                grown |= padded[down : down + height, right : right + width]
        grown &= weak
        if (grown == strong).all():
            return strong
        strong = grown


# ---- the data set ----


class TaskPairs(LazyImages):
    """Items (input, target), both (C, H, W) uint8.

    Args:
        originals: a data set of images with 1 or 3 channels, the targets.
        task: one of TASKS.
        channels: (of inputs, of targets), 1 or 3.
        hole: of "inpaint", "center" or "random". A random one depends on the item's
            seed and its index.
    """

    def __init__(self, originals, task, channels, hole):
        super().__init__()
        self.originals = originals
        self.in_memory = getattr(originals, "in_memory", True)
        self.task = task
        self.channels = channels
        self.hole = hole

    def __len__(self):
        return len(self.originals)

    def load(self, index, seed=0):
        # Not `item`: if a file has broken, this class takes the next one.
        load = getattr(self.originals, "load", self.originals.item)
        pixels = eight_bits(load(index, seed)[0])
        mask = None
        if self.task == "inpaint":
            mask = mask_of(self.hole, pixels.shape[1:], np.random.default_rng([seed, index]))
        pair = (make_input(self.task, pixels, mask), pixels)
        return tuple(with_channels(x, n) for x, n in zip(pair, self.channels))


def eight_bits(pixels):
    """Pixels (C, H, W) of `decode.pixels_of` as uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.uint8(np.round(127.5 * (pixels + 1)))


def load_task_pairs(task, data_dir, img_size, channels, hole="center", split="train", augment=NONE):
    """Pairs for a translator, of which only the targets are needed.

    A batch is inputs (B, C, H, W) and targets (B, C, H, W), float32 in [-1, 1].

    Args:
        task: one of TASKS.
        data_dir, split, augment: as of `load_originals`.
        img_size: the side of a square or (height, width), multiples of 4. Built-in
            images are square.
        channels: (of inputs, of targets), 1 or 3.
        hole: of "inpaint", "center" or "random".

    Raises:
        UserError: the images or the channels do not suit the task.
    """
    if not set(channels) <= {1, 3}:
        raise UserError(f"--task {task}: images have 1 or 3 channels, not {channels}")
    is_grey = channels[1] == 1 or built_in(data_dir, ("digits", "faces")) == "digits"
    if task == "color" and is_grey:
        raise UserError(
            "--task color: there is no colour to learn in grey images; "
            "give images in colour, such as --data_dir faces"
        )
    data = load_originals(data_dir, sides(img_size), max(channels), split=split, augment=augment)
    return TaskPairs(data, task, channels, hole)


# ---- pictures of people ----


def prepare(task):
    """A function that makes an opened picture what the task takes; None if it is that.

    Args:
        task: one of TASKS, or None.
    """
    return {"color": in_grey, "enlarge": enlarged}.get(task)


def of_eight_bits(image):
    return image.eight_bits() if isinstance(image, Deep) else image


def in_grey(image):
    """An image of `open_picture` without its colours, in the same mode."""
    image = of_eight_bits(image)
    return image.convert("L").convert(image.mode)


def enlarged(image):
    """An image of `open_picture`, enlarged by bicubic interpolation.

    `translate_folder` leaves out those that would be larger than LARGEST_IMAGE.
    """
    image = of_eight_bits(image)
    height = SCALE * image.height
    width = SCALE * image.width
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return Image.fromarray(resize(pixels, (height, width)))
    larger = resize(pixels.transpose(2, 0, 1), (height, width))
    return Image.fromarray(np.ascontiguousarray(larger.transpose(1, 2, 0)))


def of_upload(task, image):
    """What "color" and "enlarge" take of an image (1, C, H, W) in [-1, 1]."""
    pixels = eight_bits(image[0])
    if task == "color":
        return to_float(with_channels(make_input(task, pixels), len(pixels)))[None]
    shape = [SCALE * side for side in pixels.shape[1:]]
    return to_float(resize(pixels, shape))[None]


def completer(translate):
    """A function of images and masks that fills holes, for `inpainting.fill_folder`.

    Args:
        translate: a function of inputs (N, C, H, W) that returns their outputs.
    """

    def complete(images, masks):
        white = np.float32(1)  # as in training
        return translate(np.where(masks == 1, white, images))

    return complete
