"""Attention on all CPU cores."""

import jittor as jt
from jittor import nn

from jittor_fast.call import fits, header, kernel
from jittor_fast.convolution import onednn_is_loaded

HEADER = header("attention.h")


class Attend(jt.Function):
    """The operation of `attend`."""

    def execute(self, queries, keys, values):
        n, depth, pixels = queries.shape
        size, places = values.shape[1:]
        self.scalars = {
            "images": n,
            "depth": depth,
            "size": size,
            "pixels": pixels,
            "places": places,
        }
        shapes = [[n, size, pixels], [n, pixels, places]]
        inputs = [queries, keys, values]
        result, weights = kernel(HEADER, "attend", shapes, inputs, **self.scalars)
        self.saved = (*inputs, weights)
        return result

    def grad(self, dresult):
        return AttendGradient(self.scalars)(*self.saved, dresult)


class AttendGradient(jt.Function):
    """The gradients of `Attend` for queries, keys and values."""

    def __init__(self, scalars):
        self.scalars = scalars

    def execute(self, queries, keys, values, weights, dresult):
        inputs = [queries, keys, values, weights, dresult]
        shapes = [queries.shape, keys.shape, values.shape]
        return tuple(kernel(HEADER, "attend_gradient", shapes, inputs, **self.scalars))

    def grad(self, *gradients):
        raise RuntimeError("jittor_fast's attend has no second derivative")


def attend(queries, keys, values):
    """Values of all places, weighted for each pixel.

    The weights of pixel i are the softmax over j of queries[:, :, i] . keys[:, :, j].

    Jittor's product of batches of matrices runs on one core, in plain loops.

    Args:
        queries: (N, depth, pixels).
        keys: (N, depth, places).
        values: (N, size, places).

    Returns:
        (N, size, pixels).
    """
    if fits(queries, keys, values) and onednn_is_loaded():
        return Attend()(queries, keys, values)
    weights = nn.softmax(jt.matmul(queries.transpose(0, 2, 1), keys), dim=2)
    return jt.matmul(values, weights.transpose(0, 2, 1))
