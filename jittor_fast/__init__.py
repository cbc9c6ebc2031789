"""Layers and an optimizer that use every core, in the place of Jittor's own.

On a CPU Jittor runs convolutions and matrix products on all cores, and everything else on one. Here the rest is
written as small C++ kernels with OpenMP, and a convolution takes the fastest of several ways
(`jittor_fast.convolution`). Names, arguments, attributes and initial values are those of `jittor.nn`, so that a model,
its checkpoints and its optimizer's state do not depend on which of the two it uses:

    Conv, ConvTranspose, BatchNorm, InstanceNorm2d, ReflectionPad2d, Dropout, LeakyReLU, ReLU, ELU, Tanh,
    Upsample, Adam, ema_update, set_seed

Adagrad and SpectralNorm, which Jittor has not, avg_pool2d and softplus, where Jittor's are wrong, and `together` and
`modulate`, two convolutions of one input as one and what SPADE does with them, are here too.

On a GPU, for other types than float32, and for batch norm of (N, C) or under mpirun, Jittor's operators run instead.
A compiler without OpenMP ignores the pragmas: the same numbers come out, on one thread.

A script takes a layer from `fast` wherever it is listed above, and every other one (Linear, Embedding, Flatten,
Sequential, ModuleList) from `jittor.nn`.

Second derivatives, which a gradient penalty needs: convolutions, padding, dropout and activations have them. The
kernels of the two norms and of `modulate` do not and raise RuntimeError; a penalised critic with a norm takes
`jittor.nn`'s.

Every loop is split statically and no sum is shared between threads, so that equal runs with as many threads give
equal bits, also where they stop and go on: which way a convolution takes is kept on the machine (`jittor_fast.ways`).
"""

from jittor_fast.convolution import Conv, ConvTranspose, together
from jittor_fast.layers import (
    ELU,
    Dropout,
    LeakyReLU,
    ReflectionPad2d,
    ReLU,
    Tanh,
    Upsample,
    avg_pool2d,
    set_seed,
    softplus,
)
from jittor_fast.norms import BatchNorm, InstanceNorm2d, modulate
from jittor_fast.optim import Adagrad, Adam, ema_update
from jittor_fast.spectral import SpectralNorm

__all__ = [
    "ELU",
    "Adagrad",
    "Adam",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "InstanceNorm2d",
    "LeakyReLU",
    "ReLU",
    "ReflectionPad2d",
    "SpectralNorm",
    "Tanh",
    "Upsample",
    "avg_pool2d",
    "ema_update",
    "modulate",
    "set_seed",
    "softplus",
    "together",
]
