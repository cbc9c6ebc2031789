"""Scenes with label maps, drawn from the bundled digits.

They need no download, and have the same pixels in every run. Digits lie over sky, water
and ground. A map says where each class is, but not at what time of day the scene is
seen, which changes all its colours: the time of day is the style.
"""

from common.data.items import LazyImages
from common.data.toy.drawn import COLOURS, bundled_digits, dilate, enlarge, grey

from dataclasses import dataclass

import numpy as np

CLASSES = ("sky", "water", "ground", *(f"digit {k}" for k in range(10)))
SKY = 0
WATER = 1
GROUND = 2
FIRST_DIGIT = 3
N_SCENES = {"train": 2000, "test": 200}

# RGB of the light, of the sky at its top, and of the sky at its bottom, at each time.
TIMES = ("dawn", "noon", "dusk", "night")
LIGHT = np.float32([[1.0, 0.8, 0.8], [1.0, 1.0, 1.0], [0.95, 0.6, 0.4], [0.35, 0.42, 0.65]])
ZENITH = np.float32([[130, 150, 205], [60, 130, 230], [75, 55, 115], [8, 10, 32]])
HORIZON = np.float32([[250, 205, 190], [185, 222, 250], [250, 135, 55], [32, 38, 80]])

# RGB in white light.
SEA = np.float32([40, 120, 130])
SAND = np.float32([215, 185, 120])


@dataclass
class Placed:
    """A digit within a scene.

    Attributes:
        digit: which one it is.
        top, left, side: of its square, in pixels.
        shape: (side, side) bool, where it has ink.
    """

    digit: int
    top: int
    left: int
    side: int
    shape: np.ndarray

    def cut(self, image):
        """Its square of an image (..., H, W)."""
        rows = slice(self.top, self.top + self.side)
        return image[..., rows, self.left : self.left + self.side]


class Scenes(LazyImages):
    """Items (map (height, width) int32, picture (channels, height, width) uint8).

    A map holds indices of CLASSES. A scene depends on its index alone, and is drawn
    when needed. No digit is in both splits, "train" and "test".

    Args:
        height, width: of the scenes, in pixels.
        split: "train" or "test".
        channels: 1 or 3.

    Attributes:
        times: (N,) the time of day of each scene, an index of TIMES.
    """

    def __init__(self, height, width, split, channels=3):
        super().__init__()
        self.split = "train" if split == "train" else "test"
        self.pixels, self.digits = bundled_digits(self.split)
        self.height = height
        self.width = width
        self.channels = channels
        rng = np.random.default_rng([13, self.split == "test"])
        self.times = rng.permutation(N_SCENES[self.split]) % len(TIMES)

    def __len__(self):
        return N_SCENES[self.split]

    def load(self, index, seed=0):
        rng = self.rng_of(index)
        labels, _ = self.draw_map(rng)
        picture = paint(labels, self.times[index], rng)
        if self.channels == 1:
            picture = grey(picture[None])[0]
        return labels.astype(np.int32), picture

    def rng_of(self, index):
        """The numpy generator that draws a scene: its map, then its picture."""
        return np.random.default_rng([14, self.split == "test", index])

    def draw_map(self, rng):
        """A random map (height, width) uint8, and the `Placed` digits in it.

        It has sky, water below a wavy horizon, ground below a wavy shore, and two to
        four digits anywhere; the later ones cover the earlier ones.
        """
        height = self.height
        width = self.width
        y = np.arange(height)[:, None]
        x = np.arange(width) / width
        labels = np.full((height, width), SKY, np.uint8)
        for name, low, high in ((WATER, 0.3, 0.5), (GROUND, 0.6, 0.85)):
            wave = 0.04 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.uniform()))
            line = rng.uniform(low, high) + wave + rng.uniform(-0.1, 0.1) * (x - 0.5)
            labels[y >= line * height] = name
        placed = []
        for k in rng.choice(len(self.digits), rng.integers(2, 5), replace=False):
            side = int(rng.uniform(0.45, 0.6) * min(height, width))
            shape = enlarge(dilate(self.pixels[[k]], 1), side)[0] > 127
            top = rng.integers(height - side + 1)
            left = rng.integers(width - side + 1)
            labels[top : top + side, left : left + side][shape] = FIRST_DIGIT + self.digits[k]
            placed.append(Placed(int(self.digits[k]), top, left, side, shape))
        return labels, placed


def paint(labels, time, rng):
    """The picture of a map.

    Args:
        labels: (H, W) indices of CLASSES.
        time: the time of day, an index of TIMES.
        rng: a numpy generator of the textures.

    Returns:
        (3, H, W) uint8.
    """
    height, width = labels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    noise = rng.standard_normal((height, width)).astype(np.float32)
    light = LIGHT[time][:, None, None]
    horizon = HORIZON[time][:, None, None]
    zenith = ZENITH[time][:, None, None]

    low = np.clip(y / 0.5, 0, 1)
    picture = zenith * (1 - low) + horizon * low

    ripples = 1 + 0.2 * np.sin(2 * np.pi * (12 * y + 0.5 * np.sin(2 * np.pi * x))) + 0.03 * noise
    water = (0.7 * SEA[:, None, None] * light + 0.3 * horizon) * ripples
    picture = np.where(labels == WATER, water, picture)

    ground = SAND[:, None, None] * light * (1 + 0.12 * noise)
    picture = np.where(labels == GROUND, ground, picture)

    for k in np.unique(labels[labels >= FIRST_DIGIT]) - FIRST_DIGIT:
        angle = np.pi * k / 10  # each digit's stripes have their own direction
        distance = np.cos(angle) * x + np.sin(angle) * y
        stripes = 1 + 0.25 * np.sign(np.sin(2 * np.pi * 10 * distance))
        digit = COLOURS[k].astype(np.float32)[:, None, None] * light * stripes
        picture = np.where(labels == FIRST_DIGIT + k, digit, picture)
    return np.uint8(np.clip(picture, 0, 255) + 0.5)
