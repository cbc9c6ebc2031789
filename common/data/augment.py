"""Random crops and mirroring of training images.

They depend on an item's seed alone, so a resumed run sees the same images. Digits are
never augmented: a mirrored digit is not a digit.
"""

from common.errors import UserError

from dataclasses import dataclass
from typing import Optional

import numpy as np

# Size before the crop, relative to img_size: Isola 2017, section 6.2; Zhu 2017, the
# authors' code.
JITTER = 286 / 256


@dataclass(frozen=True)
class Augment:
    """How training images change from epoch to epoch.

    Attributes:
        crop: whether a random crop of `img_size` is cut out of a larger image.
        flip: whether half of the images, chosen at random, are mirrored.
        load_size: the shorter side of that larger image in pixels (default: JITTER
            times the shorter side of `img_size`).
    """

    crop: bool = True
    flip: bool = True
    load_size: Optional[int] = None

    def decoded(self, img_size):
        """(height, width) to which an image is scaled before it is cropped."""
        shape = sides(img_size)
        if not self.crop:
            return shape
        if self.load_size is None:
            factor = JITTER
        else:
            factor = self.load_size / min(shape)
        return tuple(round(factor * side) for side in shape)

    def apply(self, pixels, img_size, seed):
        """A random crop, mirrored or not.

        Args:
            pixels: (..., H, W), as large as `decoded(img_size)`.
            img_size: of the crop, the side of a square or (height, width).
            seed: an integer; equal seeds give equal crops of the two images of a pair.
        """
        rng = np.random.default_rng(seed)
        height, width = sides(img_size)
        n_places = (pixels.shape[-2] - height + 1, pixels.shape[-1] - width + 1)
        top, left = rng.integers(n_places)
        crop = pixels[..., top : top + height, left : left + width]
        return mirror(crop, rng) if self.flip else crop


NONE = Augment(crop=False, flip=False)


def augmentation(args):
    """The `Augment` that the flags of `Parser.add_augmentation` describe."""
    return Augment(crop=not args.no_crop, flip=not args.no_flip, load_size=args.load_size)


def sides(img_size):
    """(height, width) of an `img_size`: the side of a square, or already a pair."""
    if isinstance(img_size, int):
        return (img_size, img_size)
    return tuple(img_size)


def square(img_size):
    """The side of an `img_size` that is a square.

    Raises:
        UserError: height and width differ, which is not possible for digits.
    """
    height, width = sides(img_size)
    if height != width:
        raise UserError(
            f"digits are square, not {height} x {width}: "
            "--img_height and --img_width need images in --data_dir"
        )
    return height


def mirror(pixels, rng):
    """(..., H, W) pixels, mirrored left to right with probability 1/2."""
    return pixels[..., ::-1] if rng.integers(2) else pixels
