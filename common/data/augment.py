"""Random crops and mirroring of images, which follow from an item's seed alone. Digits are never augmented: a mirrored
digit is no digit.
"""

from common.errors import UserError

from dataclasses import dataclass
from typing import Optional

import numpy as np

JITTER = 286 / 256  # of img_size (Isola 2017, section 6.2; Zhu 2017, the authors' code)


@dataclass(frozen=True)
class Augment:
    """How training images change from epoch to epoch.

    Attributes:
        crop: whether a part of `img_size` is cut at random out of a larger image.
        flip: whether every other image is mirrored.
        load_size: the shorter side of that larger image, in pixels; JITTER times that of `img_size`, if None.
    """

    crop: bool = True
    flip: bool = True
    load_size: Optional[int] = None

    def decoded(self, img_size):
        """(height, width) to which an image is scaled, and out of which `img_size` is cut."""
        shape = sides(img_size)
        if not self.crop:
            return shape
        factor = JITTER if self.load_size is None else self.load_size / min(shape)
        return tuple(round(factor * side) for side in shape)

    def apply(self, pixels, img_size, seed):
        """A random part of (..., H, W) pixels, of `img_size`, perhaps mirrored."""
        rng, (height, width) = np.random.default_rng(seed), sides(img_size)
        top, left = rng.integers((pixels.shape[-2] - height + 1, pixels.shape[-1] - width + 1))
        part = pixels[..., top : top + height, left : left + width]
        return mirror(part, rng) if self.flip else part


NONE = Augment(crop=False, flip=False)


def augmentation(args):
    """The `Augment` of the flags that `Parser.add_augmentation` offers."""
    return Augment(not args.no_crop, not args.no_flip, args.load_size)


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


def mirror(pixels, rng):
    """Pixels (..., H, W), in every other case with left and right exchanged."""
    return pixels[..., ::-1] if rng.integers(2) else pixels
