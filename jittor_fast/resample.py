"""Filtered resampling, and a factor for each channel of an image, on all CPU cores."""

import jittor as jt

from jittor_fast.call import fits, header, kernel

HEADER = header("resample.h")
TAPS = (1, 3, 3, 1)


# ---- resampling ----


class Resample(jt.Function):
    """The operation of `fir_resample`; its gradient is one too, with other numbers.

    Args:
        shape: (H', W') of the result.
        up, down, before: as of `fir_resample`.
        gain: by which a row and a column of pixels become brighter, if up = down = 1.
    """

    def __init__(self, shape, up, down, before, gain):
        self.shape = shape
        self.numbers = (up, down, before, gain)

    def execute(self, x):
        n, c, height, width = x.shape
        self.sides = (height, width)
        up, down, before, gain = self.numbers
        scalars = {
            "planes": n * c,
            "height": height,
            "width": width,
            "new_height": self.shape[0],
            "new_width": self.shape[1],
            "up": up,
            "down": down,
            "before": before,
            "gain": gain,
        }
        return kernel(HEADER, "fir_resample", [[n, c, *self.shape]], [x], **scalars)[0]

    def grad(self, dy):
        up, down, before, gain = self.numbers
        # The filter is symmetric. It reaches from `before` pixels before an output
        # pixel to len(TAPS) - 1 - `before` behind it; the gradient looks the other way.
        return Resample(self.sides, down, up, len(TAPS) - 1 - before, gain)(dy)


def along(x, axis, size, up, down, before, gain):
    """The operation along one axis, 2 or 3, in Jittor's operators."""
    shape = list(x.shape)
    shape[axis] = size
    result = 0
    for k, tap in enumerate(TAPS):
        position = f"(i{axis}*{down}-{before}+{k})"
        indices = [f"i{i}" for i in range(4)]
        indices[axis] = f"{position}/{up}"
        pixels = x.reindex(shape, indices, overflow_conditions=[f"{position}%{up}!=0"])
        result = result + gain * tap / sum(TAPS) * pixels
    return result


def fir_resample(x, up=1, down=1, padding=(0, 0)):
    """An image (N, C, H, W), filtered by (1, 3, 3, 1) and made larger or smaller.

    As `upfirdn` of signal processing: zeros are put between the pixels (up - 1 of them)
    and around them; the result is filtered along both axes, and every down-th pixel is
    kept. Away from the edges it is as bright as the image. Derivatives of any order.

    Args:
        up, down: 1 or 2, not both of them 2.
        padding: zeros (before, after) along both axes, after the pixels were pulled
            apart; between 0 and 3.

    Returns:
        (N, C, H', W') with H' = (up H + before + after - 4) // down + 1, likewise W'.
    """
    before, after = padding
    shape = [(up * side + before + after - len(TAPS)) // down + 1 for side in x.shape[2:]]
    if fits(x):
        return Resample(shape, up, down, before, up)(x)
    for axis, size in zip((2, 3), shape):
        x = along(x, axis, size, up, down, before, up)
    return x


# ---- a factor for each channel ----


# The constructors get the operands too: what `execute` gets passes no second derivative
# on.


class Modulate(jt.Function):
    """x (N, C, H, W) times a factor (N, C) for each channel."""

    def __init__(self, x, factor):
        self.x = x
        self.factor = factor

    def execute(self, x, factor):
        scalars = {"planes": factor.numel(), "length": x.shape[2] * x.shape[3]}
        return kernel(HEADER, "modulate", [x.shape], [x, factor], **scalars)[0]

    def grad(self, dy):
        dx = Modulate(dy, self.factor)(dy, self.factor)
        dfactor = PlaneProducts(self.x, dy)(self.x, dy)
        return dx, dfactor


class PlaneProducts(jt.Function):
    """The sums (N, C) of x * y over the pixels of two images (N, C, H, W)."""

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def execute(self, x, y):
        n, c, height, width = x.shape
        scalars = {"planes": n * c, "length": height * width}
        return kernel(HEADER, "plane_products", [[n, c]], [x, y], **scalars)[0]

    def grad(self, dsums):
        dx = Modulate(self.y, dsums)(self.y, dsums)
        dy = Modulate(self.x, dsums)(self.x, dsums)
        return dx, dy


class ModulateAndShift(jt.Function):
    """x (N, C, H, W) times a factor (N, C), plus a shift (N, C)."""

    def __init__(self, x, factor):
        self.x = x
        self.factor = factor

    def execute(self, x, factor, shift):
        scalars = {"planes": factor.numel(), "length": x.shape[2] * x.shape[3]}
        inputs = [x, factor, shift]
        return kernel(HEADER, "modulate_and_shift", [x.shape], inputs, **scalars)[0]

    def grad(self, dy):
        dx = Modulate(dy, self.factor)(dy, self.factor)
        dfactor = PlaneProducts(self.x, dy)(self.x, dy)
        return dx, dfactor, PlaneSums()(dy)


class PlaneSums(jt.Function):
    """The sums (N, C) of x (N, C, H, W) over the pixels."""

    def execute(self, x):
        n, c, height, width = x.shape
        self.shape = x.shape
        scalars = {"planes": n * c, "length": height * width}
        return kernel(HEADER, "plane_sums", [[n, c]], [x], **scalars)[0]

    def grad(self, dsums):
        return dsums.reshape(*dsums.shape, 1, 1).broadcast(self.shape)


def modulate(x, factor, shift=None):
    """x (N, C, H, W) times a factor (N, C) for each channel of each image.

    Args:
        shift: (N, C), which is added (default: 0).
    """
    if shift is None:
        if fits(x, factor):
            return Modulate(x, factor)(x, factor)
        return x * factor.reshape(*factor.shape, 1, 1)
    if fits(x, factor, shift):
        return ModulateAndShift(x, factor)(x, factor, shift)
    return x * factor.reshape(*factor.shape, 1, 1) + shift.reshape(*shift.shape, 1, 1)
