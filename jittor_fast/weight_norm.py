"""Weight norm (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868).

Jittor lacks it.
"""

import jittor as jt

from jittor_fast.call import fits, header, kernel

HEADER = header("weight_norm.h")


class WeightNorm(jt.Function):
    """v (n_out, n_in) and scale (n_out,)  ->  w (n_out, n_in)."""

    def execute(self, v, scale):
        rows, columns = v.shape
        self.scalars = {"rows": rows, "columns": columns}
        shapes = [v.shape, [rows]]
        w, lengths = kernel(HEADER, "weight_norm", shapes, [v, scale], **self.scalars)
        self.saved = (v, scale, lengths)
        return w

    def grad(self, dw):
        return WeightNormGradient(self.scalars)(*self.saved, dw)


class WeightNormGradient(jt.Function):
    """The gradients of `WeightNorm` for v and scale."""

    def __init__(self, scalars):
        self.scalars = scalars

    def execute(self, v, scale, lengths, dw):
        shapes = [v.shape, scale.shape]
        inputs = [v, scale, lengths, dw]
        return kernel(HEADER, "weight_norm_gradient", shapes, inputs, **self.scalars)

    def grad(self, *gradients):
        raise RuntimeError("jittor_fast's weight norm has no second derivative")


def weight_norm(v, scale):
    """Weights (n_out, n_in) whose rows are scale * v / |v|.

    The kernel has no second derivative.

    Args:
        v: (n_out, n_in).
        scale: (n_out,), the lengths of the rows.
    """
    if fits(v, scale):
        return WeightNorm()(v, scale)
    lengths = jt.sqrt((v**2).sum(1))
    return v * (scale / lengths).unsqueeze(1)
