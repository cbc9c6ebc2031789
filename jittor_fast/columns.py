"""Convolutions as products of matrices, best where one side has few channels.

A patch of the narrow image, all of its channels, is a column of a matrix
(C * k * k, number of patches). The wide image is the weights, (O, C * k * k), times
this matrix; so are both gradients products with it or for it. oneDNN's direct
convolution fills up its vectors with zeros where there are three channels; here the
vectors lie along the rows of the image.

The narrow image is the input. At stride 1 it can be the output too: then the
convolution's gradient for its input, which is a convolution with the mirrored filter,
is run instead.

A filter as large as the image has one patch in each, and all images together are one
product.
"""

import math

from jittor_fast.call import header, kernel

HEADER = header("columns.h")


def run(shapes, result, first, second):
    """One of a convolution's three operations.

    Args:
        shapes: a `jittor_fast.convolution.Shapes`.
        result: which operand to compute: the output "y", the input "x" or the
            weights "w".
        first, second: the two other operands, in the order x, y, w.
    """
    mirrored = shapes.mirrored()
    if mirrored:
        narrow, wide = shapes.y, shapes.x
        padding = shapes.w[2] - 1 - shapes.padding
    else:
        narrow, wide = shapes.x, shapes.y
        padding = shapes.padding
    if result == "w":
        wanted = "w"
        if mirrored:
            first, second = second, first
    else:
        wanted = "N" if (result == "y") == mirrored else "W"
    scalars = {
        "result": ord(wanted),
        "images": narrow[0],
        "narrow": narrow[1],
        "height": narrow[2],
        "width": narrow[3],
        "wide": wide[1],
        "down": wide[2],
        "across": wide[3],
        "k": shapes.w[2],
        "stride": shapes.stride,
        "padding": padding,
        "mirrored": int(mirrored),
    }
    shape = list(getattr(shapes, result))
    return kernel(HEADER, "columns", [shape], [first, second], **scalars)[0]


def product(shapes, result, first, second):
    """The same where the filter covers the whole image."""
    scalars = {
        "result": ord(result),
        "images": shapes.x[0],
        "outputs": shapes.w[0],
        "inputs": math.prod(shapes.w[1:]),
    }
    shape = list(getattr(shapes, result))
    return kernel(HEADER, "product", [shape], [first, second], **scalars)[0]
