"""Slices on all CPU cores."""

import math

import jittor as jt

from jittor_fast.call import fits, header, kernel

HEADER = header("slices.h")


def sizes(shape, dim):
    """The sizes by which `kernels/slices.h` reads an array that is halved."""
    return {"outer": math.prod(shape[:dim]), "inner": math.prod(shape[dim:]) // 2}


class Halve(jt.Function):
    """x to its two halves along a dimension, whose size is even."""

    def __init__(self, dim):
        self.dim = dim

    def execute(self, x):
        self.half = list(x.shape)
        self.half[self.dim] //= 2
        return kernel(HEADER, "halve", [self.half, self.half], [x], **sizes(x.shape, self.dim))

    def grad(self, *gradients):
        # None where the loss does not depend on a half.
        first, second = (jt.zeros(self.half) if g is None else g for g in gradients)
        return Join(self.dim)(first, second)


class Join(jt.Function):
    """The transpose of `Halve`."""

    def __init__(self, dim):
        self.dim = dim

    def execute(self, first, second):
        shape = list(first.shape)
        shape[self.dim] *= 2
        scalars = sizes(shape, self.dim)
        return kernel(HEADER, "join", [shape], [first, second], **scalars)[0]

    def grad(self, dx):
        return tuple(Halve(self.dim)(dx))


def chunk(x, chunks, dim=0):
    """`jt.chunk`: a list of slices along a dimension; the last one may be smaller.

    Two equal slices have a kernel, forward and backward. Jittor makes a gradient of x's
    size from that of each slice, filled up with zeros, and adds them on one core.
    """
    if chunks != 2 or x.shape[dim] % 2 or not fits(x):
        return jt.chunk(x, chunks, dim)
    return Halve(dim % x.ndim)(x)
