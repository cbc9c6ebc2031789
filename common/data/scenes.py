"""Scenes for label maps, drawn from the bundled digits: no download, and the same pixels in every run.

Digits lie over sky, water and ground. A map tells where each class is; at what time of day the scene is seen, and so
all its colours, it does not tell: that is the style.
"""

from common.data.drawn import COLOURS, bundled_digits, dilate, enlarge, grey
from common.data.items import LazyImages

import numpy as np

CLASSES = ("sky", "water", "ground", *(f"digit {k}" for k in range(10)))
SKY, WATER, GROUND, FIRST_DIGIT = range(4)
N_SCENES = {"train": 2000, "test": 200}
TIMES = ("dawn", "noon", "dusk", "night")
LIGHT = np.float32(
    [[1.0, 0.8, 0.8], [1.0, 1.0, 1.0], [0.95, 0.6, 0.4], [0.35, 0.42, 0.65]]
)  # RGB, of each time
ZENITH = np.float32(
    [[130, 150, 205], [60, 130, 230], [75, 55, 115], [8, 10, 32]]
)  # the sky's colours at its top
HORIZON = np.float32(
    [[250, 205, 190], [185, 222, 250], [250, 135, 55], [32, 38, 80]]
)  # and at its bottom
SEA, SAND = np.float32([40, 120, 130]), np.float32([215, 185, 120])  # in white light


class Scenes(LazyImages):
    """Maps (height, width) int32 of CLASSES and their pictures (channels, height, width) uint8, drawn when needed.

    No digit is in both parts, "train" and "test".

    Attributes:
        times: (N,) the time of day of each scene, an index of TIMES.
    """

    def __init__(self, height, width, split, channels=3):
        super().__init__()
        self.split = "train" if split == "train" else "test"
        self.pixels, self.digits = bundled_digits(self.split)
        self.height, self.width, self.channels = height, width, channels
        self.times = np.random.default_rng([13, self.split == "test"]).permutation(
            N_SCENES[self.split]
        ) % len(TIMES)

    def __len__(self):
        return N_SCENES[self.split]

    def load(self, index, seed=0):
        rng = np.random.default_rng([14, self.split == "test", index])
        labels = self.draw_map(rng)
        picture = paint(labels, self.times[index], rng)
        return labels.astype(np.int32), grey(picture[None])[0] if self.channels == 1 else picture

    def draw_map(self, rng):
        """A map (height, width) uint8: sky, water below a waving horizon, ground below a shore, two to four digits."""
        height, width = self.height, self.width
        rows, x = np.arange(height)[:, None], np.arange(width) / width
        labels = np.full((height, width), SKY, np.uint8)
        for name, low, high in ((WATER, 0.3, 0.5), (GROUND, 0.6, 0.85)):
            wave = 0.04 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.uniform()))
            line = rng.uniform(low, high) + wave + rng.uniform(-0.1, 0.1) * (x - 0.5)
            labels[rows >= line * height] = name
        for k in rng.choice(len(self.digits), rng.integers(2, 5), replace=False):
            side = int(rng.uniform(0.45, 0.6) * min(height, width))
            shape = enlarge(dilate(self.pixels[[k]], 1), side)[0] > 127
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            labels[top : top + side, left : left + side][shape] = FIRST_DIGIT + self.digits[k]
        return labels


def paint(labels, time, rng):
    """The picture (3, H, W) uint8 of a map (H, W) at a time of day, an index of TIMES."""
    height, width = labels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    noise = rng.standard_normal((height, width)).astype(np.float32)
    light = LIGHT[time][:, None, None]

    def flat(colour):
        return colour[:, None, None]

    low = np.clip(y / 0.5, 0, 1)
    picture = flat(ZENITH[time]) * (1 - low) + flat(HORIZON[time]) * low
    ripples = 1 + 0.2 * np.sin(2 * np.pi * (12 * y + 0.5 * np.sin(2 * np.pi * x))) + 0.03 * noise
    water = (0.7 * flat(SEA) * light + 0.3 * flat(HORIZON[time])) * ripples
    ground = flat(SAND) * light * (1 + 0.12 * noise)
    for name, texture in ((WATER, water), (GROUND, ground)):
        picture = np.where(labels == name, texture, picture)
    for k in np.unique(labels[labels >= FIRST_DIGIT]) - FIRST_DIGIT:
        angle = np.pi * k / 10  # the stripes of each digit have a direction of their own
        stripes = 1 + 0.25 * np.sign(
            np.sin(2 * np.pi * 10 * (np.cos(angle) * x + np.sin(angle) * y))
        )
        digit = flat(COLOURS[k].astype(np.float32)) * light * stripes
        picture = np.where(labels == FIRST_DIGIT + k, digit, picture)
    return np.uint8(np.clip(picture, 0, 255) + 0.5)
