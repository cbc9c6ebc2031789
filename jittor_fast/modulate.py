"""SPADE's modulation on all CPU cores."""

import jittor as jt

from jittor_fast.call import fits, header, kernel

HEADER = header("modulate.h")


def sizes(x):
    return {"images": x.shape[0], "channels": x.shape[1], "length": x.shape[2] * x.shape[3]}


class Modulate(jt.Function):
    """y, of x's shape, from x (N, C, H, W) and both (N, 2 C, H, W)."""

    def execute(self, x, both):
        self.saved = x, both
        return kernel(HEADER, "modulate", [x.shape], [x, both], **sizes(x))[0]

    def grad(self, dy):
        return ModulateGradient()(*self.saved, dy)


class ModulateGradient(jt.Function):
    """The gradients of `Modulate` for x and both."""

    def execute(self, x, both, dy):
        shapes = [x.shape, both.shape]
        return tuple(kernel(HEADER, "modulate_gradient", shapes, [x, both, dy], **sizes(x)))

    def grad(self, *gradients):
        raise RuntimeError("jittor_fast's modulate has no second derivative")


def modulate(x, both):
    """x (1 + gamma) + beta (Park 2019), of x's shape.

    Args:
        x: (N, C, H, W).
        both: (N, 2 C, H, W), gamma and behind it beta.

    Raises:
        ValueError: `both` has another shape.
    """
    n, c, h, w = x.shape
    if tuple(both.shape) != (n, 2 * c, h, w):
        raise ValueError(
            f"modulate: {list(x.shape)} needs gamma and beta {[n, 2 * c, h, w]}, "
            f"got {list(both.shape)}"
        )
    if fits(x, both):
        return Modulate()(x, both)
    return x * (1 + both[:, :c]) + both[:, c:]
