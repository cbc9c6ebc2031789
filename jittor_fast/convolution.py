"""Convolutions by the fastest of several algorithms, with first and second derivatives.

A convolution y of an image x with weights w is bilinear, and so are its two gradients.
Each of the three is a function of the two others, and their derivatives are made of the
same three operations. There are up to five algorithms for each:

    direct      oneDNN's, over blocks of 8 or 16 channels
    columns     one product of matrices for each piece of an image, best with few
                channels (`jittor_fast.columns`)
    product     one product of matrices in all, where the filter covers the whole image
                (`jittor_fast.columns`)
    winograd2   fewer multiplications, for 3 x 3 and 4 x 4 filters
                (`jittor_fast.winograd`)
    winograd4   fewer still, in larger tiles; not for 4 x 4 with stride 1

Which is the fastest depends on the shapes and on the processor, so that
`jittor_fast.algorithms` times them once on a machine.

`Conv` and `ConvTranspose` leave to `jittor.nn` what does not fit: a GPU, no oneDNN,
dilated filters or groups. Filters that are not square take the direct algorithm.
`jittor.nn` would run them too, but it finds the same operator of oneDNN by another
route; where two of Jittor's threads compile it at once, for the one and for the other,
the run can end.
"""

import ctypes
import functools
from dataclasses import dataclass

import jittor as jt
from jittor import nn

from jittor_fast import algorithms, columns, winograd
from jittor_fast.call import fits, header, kernel

HEADER = header("bias.h")

# The tiles of Winograd's algorithm for each (kernel size, stride).
TILES = {(3, 1): (2, 4), (4, 2): (2, 4), (4, 1): (2,)}


# ---- the shapes of a convolution, and what can run it ----


@dataclass(frozen=True)
class Shapes:
    """The shapes of one convolution.

    x (N, C, H, W) is the input, w (O, C, k, k) the weights, y (N, O, H', W') the
    output.
    Stride and padding are ints, or pairs (down, across) where the filter or one of them
    is not the same in both directions.
    """

    x: tuple
    w: tuple
    y: tuple
    stride: int
    padding: int

    @property
    def is_square(self):
        return isinstance(self.stride, int)

    @property
    def taps(self):
        """The side of a filter for each phase of the image (`jittor_fast.winograd`)."""
        return self.w[2] // self.stride

    def mirrored(self):
        """Whether `columns` takes the output as the narrow image."""
        return self.stride == 1 and self.y[1] < self.x[1] and self.padding < self.w[2]

    def multiplications(self):
        """Those of the direct algorithm."""
        outputs = self.y[0] * self.y[2] * self.y[3]
        return outputs * self.w[0] * self.w[1] * self.w[2] * self.w[3]

    def covers(self):
        """Whether the filter covers the whole image.

        It does in a generator's first layer, and in a discriminator's last.
        """
        return self.x[2:] == self.w[2:] and self.padding == 0

    def possible(self):
        """The algorithms that can run this convolution."""
        if not self.is_square:
            return ["direct"]
        names = ["direct", "columns"]
        if self.covers():
            names.append("product")
        for tile in TILES.get((self.w[2], self.stride), ()):
            names.append(f"winograd{tile}")
        return names

    def likely(self):
        """The algorithm that is mostly the fastest on two cores of an AMD EPYC.

        Small layers take it, and layers under mpirun.
        """
        if not self.is_square:
            return "direct"
        if self.covers():
            return "product"
        narrow = self.y[1] if self.mirrored() else self.x[1]
        if narrow <= 4:
            return "columns"
        if self.multiplications() >= algorithms.WORTH_TIMING and min(self.w[:2]) >= 64:
            for tile in (4, 2):
                n_tiles = self.y[0] * -(-self.y[2] // tile) * -(-self.y[3] // tile)
                if f"winograd{tile}" in self.possible() and n_tiles >= 32:
                    return f"winograd{tile}"
        return "direct"


def pair(size):
    """(down, across) of an int, which is the same in both directions, or of a pair."""
    return (size, size) if isinstance(size, int) else size


def direct(shapes, result, first, second):
    """One of a convolution's three operations by oneDNN.

    Args:
        shapes: a `jittor_fast.convolution.Shapes`.
        result: which operand to compute: the output "y", the input "x" or the
            weights "w".
        first, second: the two other operands, in the order x, y, w.
    """
    sizes = [*pair(shapes.stride), *pair(shapes.padding), 1, 1]
    if result == "y":
        return jt.mkl_ops.mkl_conv(first, second, *sizes)
    if result == "x":
        return jt.mkl_ops.mkl_conv_backward_x(second, first, *shapes.x[2:], *sizes)
    return jt.mkl_ops.mkl_conv_backward_w(first, second, *shapes.w[2:], *sizes)


ALGORITHMS = {
    "direct": direct,
    "columns": columns.run,
    "product": columns.product,
    "winograd2": functools.partial(winograd.run, 2),
    "winograd4": functools.partial(winograd.run, 4),
}


def run(shapes, result, first, second):
    """The same by the fastest algorithm."""
    name = algorithms.fastest(shapes, result, ALGORITHMS)
    return ALGORITHMS[name](shapes, result, first, second)


# ---- the three operations, each the others' derivative ----


# The constructors get the operands too: what `execute` gets passes no second derivative
# on.


class Forward(jt.Function):
    """y from x and w."""

    def __init__(self, shapes, x, w):
        self.shapes = shapes
        self.x = x
        self.w = w

    def execute(self, x, w):
        return run(self.shapes, "y", x, w)

    def grad(self, dy):
        dx = GradX(self.shapes, dy, self.w)(dy, self.w)
        dw = GradW(self.shapes, self.x, dy)(self.x, dy)
        return dx, dw


class GradX(jt.Function):
    """x's shape from those of y and w: the transposed convolution."""

    def __init__(self, shapes, y, w):
        self.shapes = shapes
        self.y = y
        self.w = w

    def execute(self, y, w):
        return run(self.shapes, "x", y, w)

    def grad(self, dx):
        dy = Forward(self.shapes, dx, self.w)(dx, self.w)
        dw = GradW(self.shapes, dx, self.y)(dx, self.y)
        return dy, dw


class GradW(jt.Function):
    """w's shape from those of x and y."""

    def __init__(self, shapes, x, y):
        self.shapes = shapes
        self.x = x
        self.y = y

    def execute(self, x, y):
        return run(self.shapes, "w", x, y)

    def grad(self, dw):
        dx = GradX(self.shapes, self.y, dw)(self.y, dw)
        dy = Forward(self.shapes, self.x, dw)(self.x, dw)
        return dx, dy


# ---- the bias ----


def layout(shape):
    """The sizes by which `kernels/bias.h` reads an image (N, C, H, W)."""
    n, c, height, width = shape
    return {"images": n, "channels": c, "length": height * width}


class AddBias(jt.Function):
    """y (N, C, H, W) with a bias (C,) for each channel."""

    def execute(self, y, bias):
        return kernel(HEADER, "add_bias", [y.shape], [y, bias], **layout(y.shape))[0]

    def grad(self, dy):
        return dy, SumChannels()(dy)


class SumChannels(jt.Function):
    """The sums (C,) of an image (N, C, H, W)."""

    def execute(self, x):
        self.shape = x.shape
        return kernel(HEADER, "sum_channels", [[x.shape[1]]], [x], **layout(x.shape))[0]

    def grad(self, ds):
        return AddBias()(jt.zeros(self.shape), ds)


def add_bias(y, bias):
    """y with a bias (C,), or as it is with None."""
    return y if bias is None else AddBias()(y, bias)


# ---- the layers ----


@functools.lru_cache(None)
def onednn_is_loaded():
    """Whether oneDNN is there, with the matrix product that the kernels call.

    It is not with `use_mkl=0`.
    """
    return jt.mkl_ops is not None and hasattr(ctypes.CDLL(None), "dnnl_sgemm")


def fits_layer(layer, x):
    """Whether the kernels can run a layer: it has neither dilation nor groups."""
    return (
        set(layer.dilation) == {1}
        and layer.groups == 1
        and x.shape[1] == layer.in_channels
        and fits(x, layer.weight)
        and onednn_is_loaded()
    )


def stride_and_padding(layer):
    """Of a layer, as in `Shapes`."""
    stride = tuple(layer.stride)
    padding = tuple(layer.padding)
    if all(down == across for down, across in (layer.kernel_size, stride, padding)):
        return stride[0], padding[0]
    return stride, padding


class Conv(nn.Conv):
    """`jittor.nn.Conv`."""

    def execute(self, x):
        if not fits_layer(self, x):
            return super().execute(x)
        y = [x.shape[0], self.out_channels]
        for side, k, s, p in zip(x.shape[2:], self.kernel_size, self.stride, self.padding):
            y.append((side + 2 * p - k) // s + 1)
        shapes = Shapes(
            tuple(x.shape), tuple(self.weight.shape), tuple(y), *stride_and_padding(self)
        )
        return add_bias(Forward(shapes, x, self.weight)(x, self.weight), self.bias)


class ConvTranspose(nn.ConvTranspose):
    """`jittor.nn.ConvTranspose`: the gradient of a convolution for its input."""

    def execute(self, x):
        if not fits_layer(self, x):
            return super().execute(x)
        wide = [x.shape[0], self.out_channels]
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.output_padding)
        for side, k, s, p, more in sides:
            wide.append((side - 1) * s + k - 2 * p + more)
        shapes = Shapes(
            tuple(wide), tuple(self.weight.shape), tuple(x.shape), *stride_and_padding(self)
        )
        return add_bias(GradX(shapes, x, self.weight)(x, self.weight), self.bias)
