"""Random crops and mirroring of images, which follow from an item's seed alone. Digits are never augmented: a mirrored
digit is no digit.
"""

import numpy as np

JITTER = 286 / 256  # of img_size (Isola 2017, section 6.2; Zhu 2017, the authors' code)


def enlarged(img_size):
    """The side of an image from which `crop_and_mirror` cuts out `img_size`."""
    return round(JITTER * img_size)


def crop_and_mirror(pixels, img_size, seed):
    """A random (..., img_size, img_size) part of (..., S, S) pixels, mirrored in every other case."""
    rng = np.random.default_rng(seed)
    top, left = rng.integers(pixels.shape[-1] - img_size + 1, size=2)
    return mirror(pixels[..., top : top + img_size, left : left + img_size], rng)


def mirror(pixels, rng):
    """Pixels (..., H, W), in every other case with left and right exchanged."""
    return pixels[..., ::-1] if rng.integers(2) else pixels
