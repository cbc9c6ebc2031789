"""Batch norm and instance norm on all CPU cores."""

import jittor as jt
from jittor import nn

from jittor_fast.call import fits, header, kernel

HEADER = header("norms.h")


class Norm(jt.Function):
    """x (N, C, ...), weight (C,) and bias (C,) to x's shape.

    Args:
        groups: how many means there are: C for batch norm, N * C for instance norm.
        pieces: in how many pieces a group lies in memory: N for batch norm, 1 for
            instance norm (see `kernels/norms.h`).

    Attributes:
        mean, variance: (groups,), the variance biased.
    """

    def __init__(self, groups, pieces, eps):
        self.groups = groups
        self.pieces = pieces
        self.eps = eps

    def execute(self, x, weight, bias):
        self.scalars = {
            "groups": self.groups,
            "pieces": self.pieces,
            "length": x.numel() // (self.groups * self.pieces),
            "channels": weight.shape[0],
            "eps": self.eps,
        }
        shapes = [x.shape, [self.groups], [self.groups]]
        y, self.mean, self.variance = kernel(
            HEADER, "normalize", shapes, [x, weight, bias], **self.scalars
        )
        self.saved = (x, weight, self.mean, self.variance)
        return y

    def grad(self, dy):
        return NormGradient(self.scalars)(*self.saved, dy)


class NormGradient(jt.Function):
    """The gradients of `Norm` for x, weight and bias."""

    def __init__(self, scalars):
        self.scalars = scalars

    def execute(self, x, weight, mean, variance, dy):
        groups = self.scalars["groups"]
        channels = self.scalars["channels"]
        inputs = [x, weight, mean, variance, dy]
        shapes = [x.shape, [groups], [groups]]
        dx, dweight, dbias = kernel(HEADER, "normalize_gradient", shapes, inputs, **self.scalars)
        if groups > channels:  # instance norm: a sum for each image
            dweight = dweight.reshape((-1, channels)).sum(0)
            dbias = dbias.reshape((-1, channels)).sum(0)
        return dx, dweight, dbias

    def grad(self, *gradients):
        raise RuntimeError(
            "jittor_fast's norms have no second derivative: "
            "use those of jittor.nn under a gradient penalty"
        )


def weight_and_bias(norm):
    """Those of a norm; 1 and 0 where it has none."""
    if norm.affine:
        return norm.weight, norm.bias
    return jt.ones(norm.num_features).stop_grad(), jt.zeros(norm.num_features).stop_grad()


class BatchNorm(nn.BatchNorm):
    """`jittor.nn.BatchNorm` for (N, C) and (N, C, ...).

    running_var is unbiased, as in PyTorch; Jittor's own is biased.

    Raises:
        ValueError: the input has another number of channels.
    """

    def execute(self, x):
        if x.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm({self.num_features}) got {x.shape[1]} channels")
        if not self.is_train:
            return super().execute(x)
        if x.ndim == 2 or (self.sync and jt.in_mpi) or not fits(x):
            y, mean, variance = self.plain(x)
        else:
            norm = Norm(self.num_features, x.shape[0], self.eps)
            y = norm(x, *weight_and_bias(self))
            mean = norm.mean
            variance = norm.variance
        count = x.numel() // self.num_features * (jt.world_size if self.sync else 1)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.update(self.running_mean + (mean - self.running_mean) * self.momentum)
        self.running_var.update(self.running_var + (unbiased - self.running_var) * self.momentum)
        return y

    def plain(self, x):
        """The norm in Jittor's operators: y, mean and variance.

        In training under mpirun, these are of the batches of all processes.
        """
        dims = [0, *range(2, x.ndim)]

        def average(v):
            v = v.mean(dims)
            return v.mpi_all_reduce("mean") if self.sync and self.is_train and jt.in_mpi else v

        mean = average(x)
        centred = x - mean.broadcast(x, dims)
        variance = average(centred * centred)
        y = centred * (self.weight / jt.sqrt(variance + self.eps)).broadcast(x, dims)
        if self.affine:
            y = y + self.bias.broadcast(x, dims)
        return y, mean, variance


class InstanceNorm2d(nn.InstanceNorm2d):
    """`jittor.nn.InstanceNorm2d` for (N, C, ...).

    Raises:
        ValueError: the input has another number of channels.
    """

    def execute(self, x):
        if x.shape[1] != self.num_features:
            raise ValueError(f"InstanceNorm2d({self.num_features}) got {x.shape[1]} channels")
        if fits(x):
            return Norm(x.shape[0] * x.shape[1], 1, self.eps)(x, *weight_and_bias(self))
        # Jittor's own takes E[x^2] - E[x]^2 for the variance, which a large mean
        # swallows.
        inside = list(range(2, x.ndim))
        centred = x - x.mean(inside, keepdims=True)
        y = centred / jt.sqrt((centred * centred).mean(inside, keepdims=True) + self.eps)
        if not self.affine:
            return y
        dims = [0, *inside]
        return y * self.weight.broadcast(x, dims) + self.bias.broadcast(x, dims)
