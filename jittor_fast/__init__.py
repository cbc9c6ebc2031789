"""`jittor.nn` on all CPU cores, and what Jittor lacks; see the README beside this file.

* `from jittor_fast import nn` instead of `from jittor import nn`
* `chunk` instead of `jt.chunk`
* `Adagrad`, `SpectralNorm` and `weight_norm`, which Jittor lacks
* `add_noise`, Gaussian noise on all cores
* `fir_resample` and `modulate`, for images (N, C, H, W), and `attend`
* `ema_update` and `set_seed`, for the code around a training loop
"""

from jittor_fast import nn
from jittor_fast.attention import attend
from jittor_fast.dropout import set_seed
from jittor_fast.noise import add_noise
from jittor_fast.optim import Adagrad, ema_update
from jittor_fast.resample import fir_resample, modulate
from jittor_fast.slices import chunk
from jittor_fast.spectral import SpectralNorm
from jittor_fast.weight_norm import weight_norm

__all__ = [
    "Adagrad",
    "SpectralNorm",
    "add_noise",
    "attend",
    "chunk",
    "ema_update",
    "fir_resample",
    "modulate",
    "nn",
    "set_seed",
    "weight_norm",
]
