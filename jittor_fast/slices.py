"""Slices of a Var."""

import jittor as jt


class Chunk(jt.Function):
    """The slices of `jt.chunk`, with their gradients joined."""

    def __init__(self, chunks, dim):
        self.chunks = chunks
        self.dim = dim

    def execute(self, x):
        slices = jt.chunk(x, self.chunks, self.dim)
        self.shapes = [s.shape for s in slices]
        return slices

    def grad(self, *gradients):
        joined = []
        for gradient, shape in zip(gradients, self.shapes):
            # None where the loss does not depend on the slice.
            joined.append(jt.zeros(shape) if gradient is None else gradient)
        return jt.concat(joined, dim=self.dim)


def chunk(x, chunks, dim=0):
    """`jt.chunk`: a list of slices along a dimension; the last one may be smaller.

    The gradient is one concatenation. Jittor's own makes a gradient of x's size from
    that of each slice, filled up with zeros, and adds them.
    """
    return Chunk(chunks, dim)(x)
