"""`jittor.nn`, with faster layers and mended functions under Jittor's names.

A script that imports this module runs with `from jittor import nn` too: what Jittor
lacks is in `jittor_fast` itself.
"""

# Everything here is imported for those who import this module.
# ruff: noqa: F401, F403

from jittor.nn import *

from jittor_fast.activations import ELU, LeakyReLU, ReLU, Tanh, softplus
from jittor_fast.convolution import Conv, ConvTranspose
from jittor_fast.dropout import Dropout
from jittor_fast.functional import conv2d, conv_transpose
from jittor_fast.images import ReflectionPad2d, Upsample, avg_pool2d, max_pool2d
from jittor_fast.norms import BatchNorm, InstanceNorm2d
from jittor_fast.optim import Adam

# Jittor's other names for them.
BatchNorm1d = BatchNorm
BatchNorm2d = BatchNorm
BatchNorm3d = BatchNorm
Conv2d = Conv
ConvTranspose2d = ConvTranspose
conv = conv2d
conv_transpose2d = conv_transpose
InstanceNorm = InstanceNorm2d
InstanceNorm1d = InstanceNorm2d
InstanceNorm3d = InstanceNorm2d
Leaky_relu = LeakyReLU
Relu = ReLU
