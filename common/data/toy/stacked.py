"""Stacked digits: three digits as the channels of one image.

They have 1,000 classes, so that the classes which a generator has lost can be counted
(Metz 2017, section 3.3.1, https://arxiv.org/abs/1611.02163).
"""

import numpy as np


class Stacked:
    """Images of three digits: a red, a green and a blue one.

    There are as many images as digits. The first digit of an image is the one of its
    index. The two others depend on its seed, which is new in every epoch. Metz 2017
    draws all three at random. The label of the digits a, b and c is 100 a + 10 b + c.

    Args:
        digits: an `InMemory` data set of digits with one channel.
    """

    def __init__(self, digits):
        self.digits = digits

    def __len__(self):
        return len(self.digits)

    def batch(self, indices, seeds=None):
        """Images (B, 3, S, S) float32 in [-1, 1] and labels (B,) int32.

        Args:
            seeds: an integer from 0 to 2^63 - 1 for each index (default: the same
                random ones in every call).
        """
        if seeds is None:
            seeds = np.random.default_rng(13).integers(2**63, size=len(indices))
        seeds = np.asarray(seeds)
        n = len(self.digits)
        red, a = self.digits.batch(indices)
        green, b = self.digits.batch(seeds % n)
        blue, c = self.digits.batch(seeds // n % n)
        images = np.concatenate([red, green, blue], axis=1)
        labels = 100 * a.astype(np.int32) + 10 * b.astype(np.int32) + c.astype(np.int32)
        return images, labels
