"""`jittor.nn.conv2d` and `conv_transpose`, by the algorithms of `Conv`.

They are for weights that a network computes, such as scaled ones.
"""

from jittor import nn

from jittor_fast.call import fits
from jittor_fast.convolution import Forward, GradX, Shapes, add_bias, onednn_is_loaded


def is_plain(x, weight, n_inputs, *settings):
    """Whether the kernels can run a convolution without dilation, groups or pairs.

    Args:
        n_inputs: the channels that the weights expect.
        settings: stride, padding and the like, which must be ints.
    """
    return (
        all(isinstance(value, int) for value in settings)
        and x.shape[1] == n_inputs
        and weight.shape[2] == weight.shape[3]
        and fits(x, weight)
        and onednn_is_loaded()
    )


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`jittor.nn.conv2d`, with weights (O, C, k, k) and a bias (O,)."""
    fast = is_plain(x, weight, weight.shape[1], stride, padding)
    if not fast or dilation != 1 or groups != 1:
        return nn.conv2d(x, weight, bias, stride, padding, dilation, groups)
    n_outputs, _, k, _ = weight.shape
    y = [x.shape[0], n_outputs]
    for side in x.shape[2:]:
        y.append((side + 2 * padding - k) // stride + 1)
    shapes = Shapes(tuple(x.shape), tuple(weight.shape), tuple(y), stride, padding)
    return add_bias(Forward(shapes, x, weight)(x, weight), bias)


def conv_transpose(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """`jittor.nn.conv_transpose`, with weights (C, O, k, k) and a bias (O,)."""
    fast = is_plain(input, weight, weight.shape[0], stride, padding, output_padding)
    if not fast or dilation != 1 or groups != 1:
        settings = (stride, padding, output_padding, groups, dilation)
        return nn.conv_transpose(input, weight, bias, *settings)
    _, n_outputs, k, _ = weight.shape
    wide = [input.shape[0], n_outputs]
    for side in input.shape[2:]:
        wide.append((side - 1) * stride + k - 2 * padding + output_padding)
    shapes = Shapes(tuple(wide), tuple(weight.shape), tuple(input.shape), stride, padding)
    return add_bias(GradX(shapes, input, weight)(input, weight), bias)
