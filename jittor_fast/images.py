"""Padding, pooling and upsampling of images (N, C, H, W) on all CPU cores."""

import jittor as jt
from jittor import nn

from jittor_fast.call import fits, header, kernel

HEADER = header("images.h")


# ---- padding ----


class Pad(jt.Function):
    """Reflection padding by (left, right, top, bottom), or its transpose.

    Each is the other's gradient.
    """

    def __init__(self, padding, transposed=False):
        self.padding = padding
        self.transposed = transposed

    def execute(self, x):
        left, right, top, bottom = self.padding
        n, c, height, width = x.shape
        if self.transposed:
            height -= top + bottom
            width -= left + right
            shape = [n, c, height, width]
        else:
            shape = [n, c, height + top + bottom, width + left + right]
        scalars = {
            "planes": n * c,
            "height": height,
            "width": width,
            "left": left,
            "right": right,
            "top": top,
            "bottom": bottom,
        }
        function = "reflection_pad_transposed" if self.transposed else "reflection_pad"
        return kernel(HEADER, function, [shape], [x], **scalars)[0]

    def grad(self, dy):
        return Pad(self.padding, not self.transposed)(dy)


class ReflectionPad2d(nn.ReflectionPad2d):
    """`jittor.nn.ReflectionPad2d`: padding by an int or by (left, right, top, bottom).

    Raises:
        ValueError: the padding is not below the image's size.
    """

    def __init__(self, padding):
        if isinstance(padding, tuple):  # Jittor's constructor compares the tuple with 0
            super().__init__(0)
            self.padding = padding
            self.pl, self.pr, self.pt, self.pb = padding
        else:
            super().__init__(padding)

    def execute(self, x):
        if not fits(x):
            return super().execute(x)
        padding = (self.pl, self.pr, self.pt, self.pb)
        height, width = x.shape[2:]
        if min(padding) < 0 or max(padding[:2]) >= width or max(padding[2:]) >= height:
            raise ValueError(
                f"ReflectionPad2d {padding} does not fit {tuple(x.shape)}: "
                "it must be below the size"
            )
        return Pad(padding)(x)


# ---- pooling ----


class Pool(jt.Function):
    """The means over the pixels of windows inside the image, or the transpose.

    Each is the other's gradient.

    Args:
        large, small: the shapes (N, C, H, W) of the image and of its means.
    """

    def __init__(self, large, small, size, stride, padding, transposed=False):
        self.large = large
        self.small = small
        self.windows = (size, stride, padding)
        self.transposed = transposed

    def execute(self, x):
        n, c, height, width = self.large
        size, stride, padding = self.windows
        scalars = {
            "planes": n * c,
            "height": height,
            "width": width,
            "pooled_height": self.small[2],
            "pooled_width": self.small[3],
            "size": size,
            "stride": stride,
            "padding": padding,
        }
        if self.transposed:
            return kernel(HEADER, "average_pool_transposed", [self.large], [x], **scalars)[0]
        return kernel(HEADER, "average_pool", [self.small], [x], **scalars)[0]

    def grad(self, dy):
        return Pool(self.large, self.small, *self.windows, not self.transposed)(dy)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """`jittor.nn.avg_pool2d`, where count_include_pad=False has an effect.

    Jittor's own counts the padding all the same, except with ceil_mode=True.

    The kernel takes square windows that leave the padding out, or have none; Jittor's
    operator takes the others.
    """
    stride = stride or kernel_size
    if ceil_mode or (count_include_pad and padding != 0):
        return nn.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad)
    if all(isinstance(size, int) for size in (kernel_size, stride, padding)) and fits(x):
        n, c, height, width = x.shape
        pooled = [(side + 2 * padding - kernel_size) // stride + 1 for side in (height, width)]
        return Pool([n, c, height, width], [n, c, *pooled], kernel_size, stride, padding)(x)
    means = nn.avg_pool2d(x, kernel_size, stride, padding)
    if padding == 0:
        return means
    # The share of each window that lies inside the image.
    inside = nn.avg_pool2d(jt.ones((1, 1, *x.shape[2:])), kernel_size, stride, padding)
    return means / inside


class MaxPool(jt.Function):
    """The largest of each 2 x 2 pixels."""

    def execute(self, x):
        n, c, height, width = x.shape
        self.shape = x.shape
        shape = [n, c, height // 2, width // 2]
        scalars = {"planes": n * c, "height": height, "width": width}
        y, self.places = kernel(HEADER, "max_pool", [shape, shape], [x], **scalars)
        return y

    def grad(self, dy):
        return MaxPoolGradient(self.shape)(dy, self.places)


class MaxPoolGradient(jt.Function):
    """The gradient of `MaxPool`, for places as its kernel gives them."""

    def __init__(self, shape):
        self.shape = shape

    def execute(self, dy, places):
        n, c, height, width = self.shape
        scalars = {"planes": n * c, "height": height, "width": width}
        inputs = [dy, places]
        return kernel(HEADER, "max_pool_transposed", [self.shape], inputs, **scalars)[0]

    def grad(self, *gradients):
        raise RuntimeError("jittor_fast's max_pool2d has no second derivative")


def max_pool2d(
    x, kernel_size, stride=None, padding=0, dilation=None, return_indices=None, ceil_mode=False
):
    """`jittor.nn.max_pool2d`; windows of 2 x 2 pixels, side by side, have a kernel."""
    is_plain = padding == 0 and dilation is None and not return_indices and not ceil_mode
    if kernel_size == 2 and stride in (None, 2) and is_plain and fits(x):
        return MaxPool()(x)
    return nn.max_pool2d(x, kernel_size, stride, padding, dilation, return_indices, ceil_mode)


# ---- upsampling ----


class Double(jt.Function):
    """(N, C, H, W) to (N, C, 2 H, 2 W) by the nearest pixels, or the transpose.

    Each is the other's gradient.
    """

    def __init__(self, transposed=False):
        self.transposed = transposed

    def execute(self, x):
        n, c, height, width = x.shape
        if self.transposed:
            height //= 2
            width //= 2
        scalars = {"planes": n * c, "height": height, "width": width}
        if self.transposed:
            shape = [n, c, height, width]
            return kernel(HEADER, "double_pixels_transposed", [shape], [x], **scalars)[0]
        shape = [n, c, 2 * height, 2 * width]
        return kernel(HEADER, "double_pixels", [shape], [x], **scalars)[0]

    def grad(self, dy):
        return Double(not self.transposed)(dy)


class Upsample(nn.Upsample):
    """`jittor.nn.Upsample`; doubling by the nearest pixels has a kernel."""

    def execute(self, x):
        if self.scale_factor != 2 or self.mode != "nearest" or x.ndim != 4:
            return super().execute(x)
        if fits(x):
            return Double()(x)
        n, c, h, w = x.shape
        repeated = x.reshape(n, c, h, 1, w, 1).broadcast([n, c, h, 2, w, 2])
        return repeated.reshape(n, c, 2 * h, 2 * w)
