"""Gaussian noise on all CPU cores, with the same values on every device."""

import jittor as jt

from jittor_fast.call import fits, header, kernel
from jittor_fast.dropout import draw_seed, hashes

HEADER = header("noise.h")


class Noise(jt.Function):
    """Adds noise to x; the gradient passes unchanged.

    Args:
        seed: an integer of 32 bits.
    """

    def __init__(self, deviation, seed):
        self.deviation = deviation
        self.seed = seed

    def execute(self, x):
        if fits(x):
            scalars = {"n": x.numel(), "seed": self.seed, "deviation": self.deviation}
            return kernel(HEADER, "add_noise", [x.shape], [x], **scalars)[0]
        first = hashes(jt.index((x.numel(),), 0).uint32(), self.seed)
        # hash(first + c) as in `kernels/noise.h`
        second = hashes((first + 0x9E3779B9).uint32(), 0)
        length = jt.sqrt(-2 * jt.log(between_0_and_1(first)))
        noise = length * jt.cos(6.2831853 * between_0_and_1(second))
        return x + self.deviation * noise.reshape(x.shape)

    def grad(self, dy):
        return dy


def between_0_and_1(h):
    """The upper 24 bits of hashes (n,) uint32 as float32 in ]0, 1[."""
    return ((h >> 8).float32() + 0.5) * 2**-24


def add_noise(x, deviation):
    """x + deviation * n, with n from N(0, 1) of x's shape.

    Each call draws its own seed, as `Dropout` does: `set_seed` repeats the noise.
    """
    return Noise(deviation, draw_seed())(x)
