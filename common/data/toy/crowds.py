"""Crowds of digits with label maps and instance ids, drawn from the bundled digits.

They need no download, and have the same pixels in every run. Several digits stand in
front of sky, water and ground, and overlap. All of them are of one class, so that the
map alone does not show where one ends and the next begins: the ids do. Neither shows
the colour of a digit, or the time of day.
"""

from common.data.items import LazyImages
from common.data.toy.drawn import COLOURS, bundled_digits, dilate, enlarge, grey
from common.data.toy.scenes import GROUND, LIGHT, SKY, TIMES, WATER, paint

from dataclasses import dataclass

import numpy as np

CLASSES = ("sky", "water", "ground", "digit")
DIGIT = 3
N_CROWDS = {"train": 2000, "test": 200}
RIM = 0.25  # brightness of a digit's outermost pixels, over that of its inner ones


@dataclass
class Crowd:
    """What is drawn in one scene.

    Attributes:
        labels: (H, W) uint8, indices of CLASSES.
        ids: (H, W) uint8: 0 outside the digits, k within the k-th digit.
        digits: the digits (0 to 9) from the first id on; the later ones cover the
            earlier ones, which may be hidden.
        shapes: for each digit its pixels (H, W), bool, also the covered ones.
        colours: for each digit, an index of COLOURS.
    """

    labels: np.ndarray
    ids: np.ndarray
    digits: list
    shapes: list
    colours: list


class Crowds(LazyImages):
    """Items (labels, ids, picture): (H, W) int32 twice, and (channels, H, W) uint8.

    A scene depends on its index alone, and is drawn when needed. No digit is in both
    splits, "train" and "test".

    Args:
        height, width: of the scenes, in pixels.
        split: "train" or "test".
        channels: 1 or 3.
    """

    def __init__(self, height, width, split, channels=3):
        super().__init__()
        self.split = "train" if split == "train" else "test"
        self.pixels, self.digits = bundled_digits(self.split)
        self.height = height
        self.width = width
        self.channels = channels

    def __len__(self):
        return N_CROWDS[self.split]

    def load(self, index, seed=0):
        crowd, rng = self.drawn(index)
        picture = paint_crowd(crowd, rng.integers(len(TIMES)), rng)
        if self.channels == 1:
            picture = grey(picture[None])[0]
        return crowd.labels.astype(np.int32), crowd.ids.astype(np.int32), picture

    def drawn(self, index):
        """The `Crowd` of an index, and the generator that then paints it."""
        rng = np.random.default_rng([17, self.split == "test", index])
        labels = draw_grounds(self.height, self.width, rng)
        ids = np.zeros_like(labels)
        crowd = Crowd(labels, ids, [], [], [])
        n_digits = rng.integers(3, 6)
        place = rng.uniform(0, 1, 2)  # of the first digit: from the top, from the left
        for k in rng.choice(len(self.digits), n_digits, replace=False):
            side = int(rng.uniform(0.4, 0.5) * min(self.height, self.width))
            free = np.array([self.height - side, self.width - side])
            shape = np.zeros(labels.shape, bool)
            top, left = np.int64(place * free)
            ink = enlarge(dilate(self.pixels[[k]], 1), side)[0] > 127
            shape[top : top + side, left : left + side] = ink
            crowd.digits.append(int(self.digits[k]))
            crowd.shapes.append(shape)
            crowd.colours.append(int(rng.integers(len(COLOURS))))
            labels[shape] = DIGIT
            ids[shape] = len(crowd.digits)
            # The next digit's centre is less than a digit away, so that they overlap.
            angle = rng.uniform(0, 2 * np.pi)
            step = rng.uniform(0.5, 0.85) * side * np.array([np.sin(angle), np.cos(angle)])
            place = np.clip(place + step / free, 0, 1)
        return crowd, rng


def draw_grounds(height, width, rng):
    """A map (height, width) uint8 of sky, water below a wavy line, and ground."""
    y = np.arange(height)[:, None] / height
    x = np.arange(width) / width
    labels = np.full((height, width), SKY, np.uint8)
    for name, low, high in ((WATER, 0.3, 0.5), (GROUND, 0.6, 0.85)):
        wave = 0.04 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.uniform()))
        labels[y >= rng.uniform(low, high) + wave] = name
    return labels


def paint_crowd(crowd, time, rng):
    """The picture (3, H, W) uint8 of a `Crowd` at a time of day, an index of TIMES.

    A digit has its own colour in that time's light, and a dark rim of one pixel.
    """
    grounds = np.where(crowd.labels == DIGIT, GROUND, crowd.labels)
    picture = paint(grounds, time, rng).astype(np.float32)
    light = LIGHT[time][:, None, None]
    rims = borders(crowd.ids)
    for k, colour in enumerate(crowd.colours, 1):
        paintwork = COLOURS[colour].astype(np.float32)[:, None, None] * light
        paintwork = np.where(rims, RIM * paintwork, paintwork)
        picture = np.where(crowd.ids == k, paintwork, picture)
    return np.uint8(picture + 0.5)


def borders(ids):
    """(H, W) bool: where one of the four neighbours has another id."""
    edge = np.zeros(ids.shape, bool)
    differs = ids[1:] != ids[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    differs = ids[:, 1:] != ids[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    return edge
