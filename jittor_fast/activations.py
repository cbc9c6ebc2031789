"""Activations on all CPU cores."""

import jittor as jt
from jittor import nn

from jittor_fast.call import fits, header, kernel

HEADER = header("activations.h")


# ---- ReLU and leaky ReLU ----


class LeakyReLUFunction(jt.Function):
    """x where `sign` is positive, else slope * x, with a slope that is not negative.

    With the sign of the first x the function is its own gradient.

    Args:
        sign: of x's shape; default: x itself.
    """

    def __init__(self, slope, sign=None):
        self.slope = slope
        self.sign = sign

    def execute(self, x):
        sign = x if self.sign is None else self.sign
        (y,) = kernel(HEADER, "leaky_relu", [x.shape], [sign, x], n=x.numel(), slope=self.slope)
        if self.sign is None:
            # y has the sign of x, and is kept for the next layer's gradient anyway
            self.sign = y
        return y

    def grad(self, dy):
        return LeakyReLUFunction(self.slope, self.sign)(dy)


class LeakyReLU(nn.Module):
    """`jittor.nn.LeakyReLU`: x where it is positive, else scale * x."""

    def __init__(self, scale=0.01):
        super().__init__()
        self.scale = scale

    def execute(self, x):
        if not fits(x):
            return nn.leaky_relu(x, self.scale)
        return LeakyReLUFunction(self.scale)(x)


class ReLU(nn.Module):
    """`jittor.nn.ReLU`: max(x, 0).

    Jittor's own takes ten times as long as its leaky ReLU.
    """

    def __init__(self):
        super().__init__()

    def execute(self, x):
        if not fits(x):
            return nn.relu(x)
        return LeakyReLUFunction(0.0)(x)


# ---- tanh ----


class TanhFunction(jt.Function):
    """tanh(x), of any shape.

    The constructor gets x too: what `execute` gets passes no second derivative on.
    """

    def __init__(self, x):
        self.x = x

    def execute(self, x):
        if fits(x):
            (self.y,) = kernel(HEADER, "tanh", [x.shape], [x], n=x.numel())
        else:
            self.y = jt.tanh(x).detach()
        return self.y

    def grad(self, dy):
        return TanhGradient()(self.x, self.y, dy)


class TanhGradient(jt.Function):
    """dy * (1 - y^2) with y = tanh(x).

    x is an input only for the second derivative, which Jittor cannot see through y.
    """

    def execute(self, x, y, dy):
        self.y = y
        self.dy = dy
        return dy * (1 - y * y)

    def grad(self, ddx):
        slope = 1 - self.y * self.y
        return -2 * self.y * slope * self.dy * ddx, None, slope * ddx


class Tanh(nn.Tanh):
    """`jittor.nn.Tanh`, with the gradient 1 - tanh(x)^2, which is finite everywhere.

    Jittor's own is 1 / cosh(x)^2, and cosh(x)^2 overflows: it is NaN from |x| = 45 on,
    so that one outlier ends a training for good.
    """

    def execute(self, x):
        return TanhFunction(x)(x)


# ---- ELU ----


class ELUFunction(jt.Function):
    """ELU(x) with an alpha of 1, of any shape.

    The constructor gets x for the same reason as that of `TanhFunction`.
    """

    def __init__(self, x):
        self.x = x

    def execute(self, x):
        (self.y,) = kernel(HEADER, "elu", [x.shape], [x], n=x.numel())
        return self.y

    def grad(self, dy):
        return ELUGradient()(self.x, self.y, dy)


class ELUGradient(jt.Function):
    """dy where x is positive, else dy * exp(x), which is dy * (y + 1) with y = ELU(x).

    x is an input for the same reason as in `TanhGradient`.
    """

    def execute(self, x, y, dy):
        self.y = y
        self.dy = dy
        return self.times_slope(dy)

    def times_slope(self, d):
        return kernel(HEADER, "elu_gradient", [d.shape], [self.y, d], n=d.numel())[0]

    def grad(self, ddx):
        second = jt.ternary(self.y > 0, jt.zeros_like(self.y), self.y + 1)
        return second * self.dy * ddx, None, self.times_slope(ddx)


class ELU(nn.ELU):
    """`jittor.nn.ELU` (Clevert 2016): x where positive, else alpha * (exp(x) - 1).

    Jittor's own has the gradient NaN where exp(x) overflows. The kernel is for an alpha
    of 1.
    """

    def execute(self, x):
        if self.alpha == 1 and fits(x):
            return ELUFunction(x)(x)
        # Not maximum(x, 0) + ...: where both are equal, its gradient in Jittor is 0.
        negative = self.alpha * (jt.exp(jt.minimum(x, 0)) - 1)
        return jt.ternary(x >= 0, x, negative)


# ---- softplus ----


def softplus(x, beta=1.0, threshold=20.0):
    """`jittor.nn.softplus`: log(1 + exp(beta * x)) / beta, of any shape.

    Jittor's own has the same values and slopes up to the last bits.

    Args:
        threshold: has no effect. Jittor continues with the line y = x where beta * x is
            above it, against an overflow that does not happen here.
    """
    if beta != 1:
        return softplus(beta * x) / beta
    return jt.maximum(x, 0) + jt.log(1 + jt.exp(-jt.abs(x)))
