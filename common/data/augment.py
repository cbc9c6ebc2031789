"""Random crops and mirroring of images, which follow from an item's seed alone. Digits are never augmented: a mirrored
digit is no digit.
"""

import numpy as np

from common.errors import UserError

JITTER = 286 / 256  # of img_size (Isola 2017, section 6.2; Zhu 2017, the authors' code)


def sides(img_size):
    """(height, width) of an `img_size`, which is both or one number for both."""
    return (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)


def square(img_size):
    """The one side of an `img_size`.

    Raises:
        UserError: height and width differ, which digits cannot have.
    """
    height, width = sides(img_size)
    if height != width:
        raise UserError(
            f"digits are square, not {height} x {width}: --img_height and --img_width need images in --data_dir"
        )
    return height


def enlarged(img_size):
    """(height, width) of an image from which `crop_and_mirror` cuts out `img_size`."""
    return tuple(round(JITTER * side) for side in sides(img_size))


def crop_and_mirror(pixels, img_size, seed):
    """A random part of (..., H, W) pixels, of `img_size`, mirrored in every other case."""
    rng, (height, width) = np.random.default_rng(seed), sides(img_size)
    top, left = rng.integers((pixels.shape[-2] - height + 1, pixels.shape[-1] - width + 1))
    return mirror(pixels[..., top : top + height, left : left + width], rng)


def mirror(pixels, rng):
    """Pixels (..., H, W), in every other case with left and right exchanged."""
    return pixels[..., ::-1] if rng.integers(2) else pixels
