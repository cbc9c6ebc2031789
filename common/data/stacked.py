"""Stacked digits: three digits as the channels of one image, 1,000 classes whose loss can be counted (Metz 2017)."""

import numpy as np


class Stacked:
    """Images of three digits, red, green and blue, from a data set of digits of one channel (`InMemory`).

    An image's first digit is the one of its index; its seed, new in every epoch, draws the two others. There are as
    many images as digits. Labels are 100 a + 10 b + c, of the digits a, b and c. Metz 2017, section 3.3.1
    (https://arxiv.org/abs/1611.02163), draws all three at random.
    """

    def __init__(self, digits):
        self.digits = digits

    def __len__(self):
        return len(self.digits)

    def batch(self, indices, seeds=None):
        """Images (B, 3, S, S) float32 in [-1, 1] and labels (B,) int32."""
        n = len(self.digits)
        seeds = (
            np.random.default_rng(13).integers(2**63, size=len(indices))
            if seeds is None
            else np.asarray(seeds)
        )
        parts = [self.digits.batch(which) for which in (indices, seeds % n, seeds // n % n)]
        labels = [labels.astype(np.int32) for _, labels in parts]
        return np.concatenate([images for images, _ in parts], axis=1), labels[0] * 100 + labels[
            1
        ] * 10 + labels[2]
