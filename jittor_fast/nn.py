"""`jittor.nn`, with faster layers and mended functions under Jittor's names."""

from jittor.nn import *  # noqa: F403

from jittor_fast.convolution import (  # noqa: F401
    Conv,
    ConvTranspose,
    together,
)
from jittor_fast.layers import (  # noqa: F401
    ELU,
    Dropout,
    LeakyReLU,
    ReflectionPad2d,
    ReLU,
    Tanh,
    Upsample,
    avg_pool2d,
    softplus,
)
from jittor_fast.norms import BatchNorm, InstanceNorm2d, modulate  # noqa: F401
from jittor_fast.optim import Adagrad, Adam  # noqa: F401
from jittor_fast.spectral import SpectralNorm  # noqa: F401
