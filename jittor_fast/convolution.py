"""Convolutions by the fastest of several ways, with first and second derivatives.

A convolution y of an image x with weights w is bilinear, and so are its two gradients; each of the three is a function
of the two others, and their derivatives are made of the same three. There are up to five ways to run each:

    direct      oneDNN's, over blocks of 8 or 16 channels
    columns     one product of matrices for each piece of an image, best with few channels (`jittor_fast.columns`)
    product     one product of matrices in all, where the filter covers the whole image (`jittor_fast.columns`)
    winograd2   fewer multiplications, for 3 x 3 and 4 x 4 filters (`jittor_fast.winograd`)
    winograd4   fewer still, in larger tiles; not for 4 x 4 with stride 1

Which is fastest depends on the shapes and on the processor, so `jittor_fast.ways` times them once on a machine.

`Conv` and `ConvTranspose` stand for those of `jittor.nn`, which run where this does not fit: on a GPU, without oneDNN,
for dilated filters or groups. Filters that are not square take the direct way; `jittor.nn` would run them too, but with
the same operator of oneDNN found in another way, and where two of Jittor's threads compile it at once, for the one and
for the other, the run can end.
"""

import ctypes
import functools
from dataclasses import dataclass

import jittor as jt
from jittor import nn

from jittor_fast import columns, ways, winograd
from jittor_fast.kernels import fits, kernel


@dataclass(frozen=True)
class Shapes:
    """Of one convolution: input x (N, C, H, W), weights w (O, C, k, k), output y (N, O, H', W').

    Stride and padding are pairs, down and across, where the filter or one of them is not the same in both.
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
        return self.w[2] // self.stride

    def mirrored(self):
        """Whether `columns` takes the output as the narrow image."""
        return self.stride == 1 and self.y[1] < self.x[1] and self.padding < self.w[2]

    def multiplications(self):
        return self.y[0] * self.y[2] * self.y[3] * self.w[0] * self.w[1] * self.w[2] * self.w[3]

    def covers(self):
        """Whether the filter covers the whole image, as in a generator's first layer and a discriminator's last."""
        return self.x[2:] == self.w[2:] and self.padding == 0

    def possible(self):
        """The ways that this convolution can take."""
        if not self.is_square:
            return ["direct"]
        tiles = {(3, 1): (2, 4), (4, 2): (2, 4), (4, 1): (2,)}.get((self.w[2], self.stride), ())
        return ["direct", "columns", *["product"] * self.covers()] + [
            f"winograd{tile}" for tile in tiles
        ]

    def likely(self):
        """The way that is mostly the fastest on two cores of an AMD EPYC: for small layers, and under mpirun."""
        if not self.is_square:
            return "direct"
        narrow = self.y[1] if self.mirrored() else self.x[1]
        if self.covers():
            return "product"
        if narrow <= 4:
            return "columns"
        for tile in (4, 2):
            n_tiles = self.y[0] * -(-self.y[2] // tile) * -(-self.y[3] // tile)
            fits = f"winograd{tile}" in self.possible() and min(self.w[:2]) >= 64 and n_tiles >= 32
            if fits and self.multiplications() >= ways.WORTH_TIMING:
                return f"winograd{tile}"
        return "direct"


def both(number):
    """A pair of what is one number where it is the same down and across."""
    return (number, number) if isinstance(number, int) else number


def direct(shapes, result, first, second):
    """The operation with this result, "y", "x" or "w", on the two other operands in the order x, y, w."""
    sizes = [*both(shapes.stride), *both(shapes.padding), 1, 1]
    if result == "y":
        return jt.mkl_ops.mkl_conv(first, second, *sizes)
    if result == "x":
        return jt.mkl_ops.mkl_conv_backward_x(second, first, *shapes.x[2:], *sizes)
    return jt.mkl_ops.mkl_conv_backward_w(first, second, *shapes.w[2:], *sizes)


WAYS = {
    "direct": direct,
    "columns": columns.run,
    "product": columns.product,
    "winograd2": functools.partial(winograd.run, 2),
    "winograd4": functools.partial(winograd.run, 4),
}


def run(shapes, result, first, second):
    return WAYS[ways.fastest(shapes, result, WAYS)](shapes, result, first, second)


# What `execute` is given passes no second derivative on, therefore the constructors get it too.
class Forward(jt.Function):
    """y from x and w."""

    def __init__(self, shapes, x, w):
        self.shapes, self.x, self.w = shapes, x, w

    def execute(self, x, w):
        return run(self.shapes, "y", x, w)

    def grad(self, dy):
        return GradX(self.shapes, dy, self.w)(dy, self.w), GradW(self.shapes, self.x, dy)(
            self.x, dy
        )


class GradX(jt.Function):
    """x's shape from y's and w: the transposed convolution."""

    def __init__(self, shapes, y, w):
        self.shapes, self.y, self.w = shapes, y, w

    def execute(self, y, w):
        return run(self.shapes, "x", y, w)

    def grad(self, dx):
        return Forward(self.shapes, dx, self.w)(dx, self.w), GradW(self.shapes, dx, self.y)(
            dx, self.y
        )


class GradW(jt.Function):
    """w's shape from x's and y's."""

    def __init__(self, shapes, x, y):
        self.shapes, self.x, self.y = shapes, x, y

    def execute(self, x, y):
        return run(self.shapes, "w", x, y)

    def grad(self, dw):
        return GradX(self.shapes, self.y, dw)(self.y, dw), Forward(self.shapes, self.x, dw)(
            self.x, dw
        )


# in: an image, a bias. out: their sum.
ADD_BIAS = """
    const int64 length = in0_shape2 * in0_shape3, channels = in0_shape1;
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 p = 0; p < in0_shape0 * channels; p++) {
        const float bias = in1_p[p % channels];
        for (int64 i = p * length; i < (p + 1) * length; i++) out0_p[i] = in0_p[i] + bias;
    }
"""

# in: an image. out: the sum of each of its channels.
SUM_CHANNELS = """
    const int64 length = in0_shape2 * in0_shape3, channels = in0_shape1;
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 c = 0; c < channels; c++) {
        double sum = 0;
        for (int64 n = 0; n < in0_shape0; n++) {
            const float* x = in0_p + (n * channels + c) * length;
            float part = 0;
            for (int64 i = 0; i < length; i++) part += x[i];
            sum += part;
        }
        out0_p[c] = sum;
    }
"""


class AddBias(jt.Function):
    """y (N, C, H, W) with a bias (C) for each channel."""

    def execute(self, y, bias):
        return kernel([y.shape], [y, bias], ADD_BIAS)[0]

    def grad(self, dy):
        return dy, SumChannels()(dy)


class SumChannels(jt.Function):
    """The sums (C) of an image (N, C, H, W)."""

    def execute(self, x):
        self.shape = x.shape
        return kernel([[x.shape[1]]], [x], SUM_CHANNELS)[0]

    def grad(self, ds):
        return AddBias()(jt.zeros(self.shape), ds)


@functools.lru_cache(None)
def onednn_is_loaded():
    """Whether oneDNN's operators and the matrix product that the kernels call are there; not with `use_mkl=0`."""
    return jt.mkl_ops is not None and hasattr(ctypes.CDLL(None), "dnnl_sgemm")


def fits_layer(layer, x):
    """Whether the kernels can run a layer of `jittor.nn`: no dilation and no groups."""
    return (
        set(layer.dilation) == {1}
        and layer.groups == 1
        and x.shape[1] == layer.in_channels
        and fits(x, layer.weight)
        and onednn_is_loaded()
    )


def stride_and_padding(layer):
    """Numbers, or pairs where the filter or one of them is not the same in both directions."""
    square = all(len(set(pair)) == 1 for pair in (layer.kernel_size, layer.stride, layer.padding))
    stride, padding = tuple(layer.stride), tuple(layer.padding)
    return (stride[0], padding[0]) if square else (stride, padding)


def add_bias(y, bias):
    return y if bias is None else AddBias()(y, bias)


def convolve(layer, x, weight, bias):
    """x's convolution with weights (O, C, k, l) and a bias (O) or None, the rest as in the layer."""
    sides = zip(x.shape[2:], layer.kernel_size, layer.stride, layer.padding)
    y = (x.shape[0], weight.shape[0], *((side + 2 * p - k) // s + 1 for side, k, s, p in sides))
    shapes = Shapes(tuple(x.shape), tuple(weight.shape), y, *stride_and_padding(layer))
    return add_bias(Forward(shapes, x, weight)(x, weight), bias)


def together(x, *layers):
    """The outputs (N, O, H', W') of several `Conv` for one input x (N, C, H, W), joined along the channels.

    The layers have biases, and equal kernel sizes, strides and paddings. They run as one convolution, so that x and the
    gradient for it pass through memory once.
    """
    watched = any(
        "execute" in vars(layer) for layer in layers
    )  # by `common.describe`, which has to see each layer run
    if watched or not all(fits_layer(layer, x) for layer in layers):
        return jt.concat([layer(x) for layer in layers], dim=1)
    weight, bias = (
        jt.concat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias")
    )
    return convolve(layers[0], x, weight, bias)


class Conv(nn.Conv):
    """`jittor.nn.Conv`."""

    def execute(self, x):
        return (
            convolve(self, x, self.weight, self.bias) if fits_layer(self, x) else super().execute(x)
        )


class ConvTranspose(nn.ConvTranspose):
    """`jittor.nn.ConvTranspose`: the gradient of a convolution for its input."""

    def execute(self, x):
        if not fits_layer(self, x):
            return super().execute(x)
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.output_padding)
        wide = (
            x.shape[0],
            self.out_channels,
            *((side - 1) * s + k - 2 * p + more for side, k, s, p, more in sides),
        )
        shapes = Shapes(wide, tuple(self.weight.shape), tuple(x.shape), *stride_and_padding(self))
        return add_bias(GradX(shapes, x, self.weight)(x, self.weight), self.bias)
