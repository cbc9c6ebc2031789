"""Dropout on all CPU cores, with the same masks on every device."""

import jittor as jt
import numpy as np
from jittor import nn

from jittor_fast.call import fits, header, kernel

HEADER = header("dropout.h")

# Dropout's seeds are drawn here and not on the device: on a GPU, Jittor's set_seed does
# not restart its sequence.
seeds = np.random.default_rng(0)


def set_seed(seed):
    """Seeds Jittor's generator, and the seeds of the dropouts that follow.

    It replaces jt.set_seed in a script that uses this dropout.
    """
    global seeds
    seeds = np.random.default_rng(seed)
    jt.set_seed(seed)


def draw_seed():
    """The next seed, an integer of 32 bits."""
    return int(seeds.integers(2**32))


def hashes(numbers, seed):
    """The hashes of `kernels/hash.h` in Jittor's operators.

    Args:
        numbers: (n,) uint32, as the result.
        seed: is combined with each of them by an exclusive or.
    """
    first = jt.array(np.array([0x21F0AAAD], np.uint32))
    second = jt.array(np.array([0xD35A2D97], np.uint32))
    h = numbers ^ jt.array(np.array([seed], np.uint32))
    h = (h ^ (h >> 16)) * first
    h = (h ^ (h >> 15)) * second
    return (h ^ (h >> 15)).uint32()  # the operators give int32, with the same bits


class DropoutFunction(jt.Function):
    """Sets a fraction p of x to 0, and scales the rest by 1 / (1 - p).

    It is linear, and its own gradient: which elements are kept follows from the seed.

    Args:
        p: above 0 and below 1.
        seed: an integer of 32 bits.
    """

    def __init__(self, p, seed):
        self.p = p
        self.seed = seed

    def execute(self, x):
        limit = int(self.p * 2**32)
        scale = 1 / (1 - self.p)
        if fits(x):
            scalars = {"n": x.numel(), "seed": self.seed, "limit": limit, "scale": scale}
            return kernel(HEADER, "dropout", [x.shape], [x], **scalars)[0]
        kept = hashes(jt.index((x.numel(),), 0).uint32(), self.seed)
        kept = kept >= jt.array(np.array([limit], np.uint32))
        return x * kept.float32().reshape(x.shape) * scale

    def grad(self, dy):
        return DropoutFunction(self.p, self.seed)(dy)


class Dropout(nn.Dropout):
    """`jittor.nn.Dropout`: off until `.train()`. Each call draws its own seed."""

    def execute(self, x):
        if not self.is_train or not 0 < self.p < 1:
            return super().execute(x)
        return DropoutFunction(self.p, draw_seed())(x)
