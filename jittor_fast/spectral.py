"""Spectral norm (Miyato 2018, https://arxiv.org/abs/1802.05957), which Jittor lacks."""

import jittor as jt
from jittor import nn

EPS = 1e-12


def unit(x):
    """A vector divided by its length."""
    return x / jt.maximum(jt.sqrt((x * x).sum()), EPS)


class SpectralNorm(nn.Module):
    """A convolution whose weight W is divided by its largest singular value.

    W counts as a matrix with a row for each output. In training each call takes one
    step of power iteration (Miyato 2018, algorithm 1), as PyTorch's `spectral_norm`:

        v = unit(W^T u),    u = unit(W v),    s = u^T W v

    with gradients through W alone. In evaluation u stays as it is, so that s follows
    from the weights and from u.

    Attributes:
        conv: the convolution, a module with `weight`.
        weight_u: (outputs,), a buffer; a checkpoint holds it, for the next step of the
            iteration.
    """

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        self.weight_u = unit(jt.randn(conv.weight.shape[0])).stop_grad()

    def execute(self, x):
        weight = self.conv.weight
        self.conv.weight = weight / self.sigma(weight)
        y = self.conv(x)
        self.conv.weight = weight
        return y

    def sigma(self, weight):
        """The largest singular value, (1,)."""
        matrix = weight.reshape(weight.shape[0], -1)
        fixed = matrix.detach()
        v = unit((fixed * self.weight_u.detach().unsqueeze(1)).sum(0))
        u = unit((fixed * v).sum(1))
        if self.is_training():
            self.weight_u.update(u)
        return ((matrix * v).sum(1) * u).sum()
