"""Activations, padding, pooling and dropout on all CPU cores; see `jittor_fast` for what its layers have in common."""

import jittor as jt
import numpy as np
from jittor import nn

from jittor_fast.kernels import fits, kernel

# ---- activations ----

# in: a number with the sign of the activation's input, and the number to let through or to scale.
LEAKY_RELU = """
    const float slope = data["slope"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] > 0 ? in1_p[i] : slope * in1_p[i];
"""


class LeakyReLUFunction(jt.Function):
    """x where `sign` is positive, elsewhere slope * x; `sign` is x where it is not given, and slope is not negative.

    With the sign of the first x it is its own gradient.
    """

    def __init__(self, slope, sign=None):
        self.slope, self.sign = slope, sign

    def execute(self, x):
        sign = x if self.sign is None else self.sign
        (y,) = kernel([x.shape], [sign, x], LEAKY_RELU, slope=self.slope)
        if self.sign is None:
            self.sign = y  # has x's sign, and is kept for the next layer's gradient anyway
        return y

    def grad(self, dy):
        return LeakyReLUFunction(self.slope, self.sign)(dy)


class LeakyReLU(nn.Module):
    """`jittor.nn.LeakyReLU`: max(x, scale * x)."""

    def __init__(self, scale=0.01):
        self.scale = scale

    def execute(self, x):
        return LeakyReLUFunction(self.scale)(x) if fits(x) else nn.leaky_relu(x, self.scale)


class ReLU(nn.Module):
    """`jittor.nn.ReLU`, which takes ten times as long as its LeakyReLU."""

    def execute(self, x):
        return LeakyReLUFunction(0.0)(x) if fits(x) else nn.relu(x)


# Jittor's own gradient of tanh is dy / cosh(x)^2, and cosh(x)^2 overflows: it is NaN from |x| = 45 on, so that one
# outlier ends a training for good.
TANH = """
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = std::tanh(in0_p[i]);
"""


class TanhFunction(jt.Function):
    """tanh(x), of any shape; x is given twice, since what `execute` gets passes no second derivative on."""

    def __init__(self, x):
        self.x = x

    def execute(self, x):
        self.y = kernel([x.shape], [x], TANH)[0] if fits(x) else jt.tanh(x).detach()
        return self.y

    def grad(self, dy):
        return TanhGrad()(self.x, self.y, dy)


class TanhGrad(jt.Function):
    """dy * (1 - y^2) with y = tanh(x); x is here for the second derivative, which Jittor cannot see through y."""

    def execute(self, x, y, dy):
        self.y, self.dy = y, dy
        return dy * (1 - y * y)

    def grad(self, ddx):
        slope = 1 - self.y * self.y
        return -2 * self.y * slope * self.dy * ddx, None, slope * ddx


class Tanh(nn.Module):
    """tanh, with the gradient 1 - tanh^2, which is finite everywhere."""

    def execute(self, x):
        return TanhFunction(x)(x)


# in: x. out: ELU(x).
ELU_FORWARD = """
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] > 0 ? in0_p[i] : std::exp(in0_p[i]) - 1;
"""

# in: y = ELU(x), dy. out: dy * dELU/dx, and exp(x) = y + 1 for negative x.
ELU_GRAD = """
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] > 0 ? in1_p[i] : (in0_p[i] + 1) * in1_p[i];
"""


class ELUFunction(jt.Function):
    """ELU(x), of any shape; x is given twice, as in `TanhFunction`."""

    def __init__(self, x):
        self.x = x

    def execute(self, x):
        (self.y,) = kernel([x.shape], [x], ELU_FORWARD)
        return self.y

    def grad(self, dy):
        return ELUGrad()(self.x, self.y, dy)


class ELUGrad(jt.Function):
    """dy where x is positive, elsewhere dy * exp(x), which is dy * (y + 1) with y = ELU(x); x is as in `TanhGrad`."""

    def execute(self, x, y, dy):
        self.y, self.dy = y, dy
        return kernel([dy.shape], [y, dy], ELU_GRAD)[0]

    def grad(self, ddx):
        second = jt.ternary(self.y > 0, jt.zeros_like(self.y), self.y + 1)
        return second * self.dy * ddx, None, kernel([ddx.shape], [self.y, ddx], ELU_GRAD)[0]


class ELU(nn.Module):
    """`jittor.nn.ELU` with an alpha of 1: x where it is positive, elsewhere exp(x) - 1 (Clevert 2016).

    Jittor's own has the gradient NaN where exp(x) overflows.
    """

    def execute(self, x):
        return ELUFunction(x)(x) if fits(x) else jt.maximum(x, 0) + jt.exp(jt.minimum(x, 0)) - 1


def softplus(x):
    """log(1 + exp(x)), of any shape, without overflow, and without the saturation of Jittor's own below -20."""
    return jt.maximum(x, 0) + jt.log(1 + jt.exp(-jt.abs(x)))


# ---- padding ----

PAD = """
    const int64 left = data["left"], top = data["top"], planes = in0_shape0 * in0_shape1;
    const int64 H = in0_shape2, W = in0_shape3, OH = out0_shape2, OW = out0_shape3;
    #pragma omp parallel for collapse(2) schedule(static) if (WORTH_SHARING(out0->num))
    for (int64 p = 0; p < planes; p++)
    for (int64 i = 0; i < OH; i++) {
        const int64 row = H - 1 - std::abs(H - 1 - std::abs(i - top));  // 1 0 1 2 ... H-1 H-2
        const float* x = in0_p + (p * H + row) * W;
        float* y = out0_p + (p * OH + i) * OW;
        for (int64 j = 0; j < left; j++) y[j] = x[left - j];
        for (int64 j = 0; j < W; j++) y[left + j] = x[j];
        for (int64 j = left + W; j < OW; j++) y[j] = x[2 * (W - 1) - (j - left)];
    }
"""

# The transpose of PAD: every number of dy is added to where it came from.
PAD_GRAD = """
    const int64 left = data["left"], top = data["top"], planes = in0_shape0 * in0_shape1;
    const int64 H = out0_shape2, W = out0_shape3, OH = in0_shape2, OW = in0_shape3;
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 p = 0; p < planes; p++) {
        for (int64 i = 0; i < H * W; i++) out0_p[p * H * W + i] = 0;
        for (int64 i = 0; i < OH; i++) {
            const int64 row = H - 1 - std::abs(H - 1 - std::abs(i - top));
            const float* dy = in0_p + (p * OH + i) * OW;
            float* dx = out0_p + (p * H + row) * W;
            for (int64 j = 0; j < left; j++) dx[left - j] += dy[j];
            for (int64 j = 0; j < W; j++) dx[j] += dy[left + j];
            for (int64 j = left + W; j < OW; j++) dx[2 * (W - 1) - (j - left)] += dy[j];
        }
    }
"""


class Pad(jt.Function):
    """Reflection padding by (left, right, top, bottom), or its transpose; each is the other's gradient."""

    def __init__(self, padding, transposed=False):
        self.padding, self.transposed = padding, transposed

    def execute(self, x):
        left, right, top, bottom = self.padding
        sign = -1 if self.transposed else 1
        shape = [
            *x.shape[:2],
            x.shape[2] + sign * (top + bottom),
            x.shape[3] + sign * (left + right),
        ]
        return kernel([shape], [x], PAD_GRAD if self.transposed else PAD, left=left, top=top)[0]

    def grad(self, dy):
        return Pad(self.padding, not self.transposed)(dy)


class ReflectionPad2d(nn.ReflectionPad2d):
    """`jittor.nn.ReflectionPad2d`: (N, C, H, W), padded by an int or by (left, right, top, bottom)."""

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
        padding = self.pl, self.pr, self.pt, self.pb
        if min(padding) < 0 or max(padding[:2]) >= x.shape[3] or max(padding[2:]) >= x.shape[2]:
            raise ValueError(
                f"ReflectionPad2d {padding} does not fit {tuple(x.shape)}: it must be below the size"
            )
        return Pad(padding)(x)


# ---- pooling ----


# in: an image. out: the means over windows, of those pixels that lie inside; transposed, the other way round.
POOL = """
    const int64 k = data["kernel_size"], stride = data["stride"], pad = data["padding"];
    const bool transposed = data["transposed"];
    const int64 H = transposed ? out0_shape2 : in0_shape2, W = transposed ? out0_shape3 : in0_shape3;
    const int64 OH = transposed ? in0_shape2 : out0_shape2, OW = transposed ? in0_shape3 : out0_shape3;
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 p = 0; p < in0_shape0 * in0_shape1; p++) {
        float* large = (transposed ? out0_p : const_cast<float*>(in0_p)) + p * H * W;
        float* small = (transposed ? const_cast<float*>(in0_p) : out0_p) + p * OH * OW;
        if (transposed) for (int64 i = 0; i < H * W; i++) large[i] = 0;
        for (int64 i = 0; i < OH; i++)
        for (int64 j = 0; j < OW; j++) {
            const int64 top = std::max<int64>(0, i * stride - pad), bottom = std::min(H, i * stride - pad + k);
            const int64 left = std::max<int64>(0, j * stride - pad), right = std::min(W, j * stride - pad + k);
            const float share = 1.0f / ((bottom - top) * (right - left));
            float sum = 0;
            for (int64 y = top; y < bottom; y++)
                for (int64 x = left; x < right; x++)
                    if (transposed) large[y * W + x] += small[i * OW + j] * share;
                    else sum += large[y * W + x];
            if (!transposed) small[i * OW + j] = sum * share;
        }
    }
"""


class Pool(jt.Function):
    """`avg_pool2d`, or its transpose to the given shape; each is the other's gradient."""

    def __init__(self, shape, transposed=False, **sizes):
        self.shape, self.transposed, self.sizes = shape, transposed, sizes

    def execute(self, x):
        self.given = list(x.shape)
        return kernel([self.shape], [x], POOL, transposed=int(self.transposed), **self.sizes)[0]

    def grad(self, dy):
        return Pool(self.given, not self.transposed, **self.sizes)(dy)


def avg_pool2d(x, kernel_size, stride, padding):
    """`jittor.nn.avg_pool2d` without the padding in the means, whose count_include_pad=False counts it all the same."""
    if fits(x):
        size = [(side + 2 * padding - kernel_size) // stride + 1 for side in x.shape[2:]]
        return Pool([*x.shape[:2], *size], kernel_size=kernel_size, stride=stride, padding=padding)(
            x
        )
    ones = jt.ones((1, 1, *x.shape[2:]))
    means, counted = (
        nn.avg_pool2d(v, kernel_size, stride=stride, padding=padding) for v in (x, ones)
    )
    return means / counted


# ---- upsampling ----

# in: an image. out: each pixel as four; transposed, the sums of every four.
DOUBLE = """
    const bool transposed = data["transposed"];
    const int64 width = transposed ? out0_shape3 : in0_shape3;
    const int64 rows = in0_shape0 * in0_shape1 * (transposed ? out0_shape2 : in0_shape2);
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num + out0->num))
    for (int64 row = 0; row < rows; row++) {
        const float* x = in0_p + row * (transposed ? 4 : 1) * width;
        float* y = out0_p + row * (transposed ? 1 : 4) * width;
        for (int64 i = 0; i < width; i++) {
            if (transposed) y[i] = (x[2 * i] + x[2 * i + 1]) + (x[2 * (width + i)] + x[2 * (width + i) + 1]);
            else y[2 * i] = y[2 * i + 1] = y[2 * (width + i)] = y[2 * (width + i) + 1] = x[i];
        }
    }
"""


class Double(jt.Function):
    """(B, C, H, W) to (B, C, 2H, 2W) by the nearest pixels, or its transpose; each is the other's gradient."""

    def __init__(self, transposed=False):
        self.transposed = transposed

    def execute(self, x):
        sides = [side // 2 if self.transposed else side * 2 for side in x.shape[2:]]
        return kernel([[*x.shape[:2], *sides]], [x], DOUBLE, transposed=int(self.transposed))[0]

    def grad(self, dy):
        return Double(not self.transposed)(dy)


class Upsample(nn.Upsample):
    """`jittor.nn.Upsample`; doubling by the nearest pixels, its default, has a kernel."""

    def execute(self, x):
        if self.scale_factor != 2 or self.mode != "nearest" or x.ndim != 4:
            return super().execute(x)
        if fits(x):
            return Double()(x)
        b, c, h, w = x.shape
        return x.reshape(b, c, h, 1, w, 1).broadcast([b, c, h, 2, w, 2]).reshape(b, c, 2 * h, 2 * w)


# ---- dropout ----

# Whether number i is kept is decided by a hash of the seed and i (a 32-bit mixer of low bias found by
# https://github.com/skeeto/hash-prospector), and so by no order of threads; backward decides the same again.
DROPOUT = """
    const uint32 seed = data["seed"], limit = data["limit"];
    const float scale = data["scale"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) {
        uint32 h = (uint32)i ^ seed;
        h = (h ^ (h >> 16)) * 0x21f0aaadu;
        h = (h ^ (h >> 15)) * 0xd35a2d97u;
        h ^= h >> 15;
        out0_p[i] = h >= limit ? in0_p[i] * scale : 0;
    }
"""


def hashes(n, seed):
    """The hashes of DROPOUT in Jittor's operators, (n,) uint32."""
    first, second, seed = (
        jt.array(np.array([number], np.uint32)) for number in (0x21F0AAAD, 0xD35A2D97, seed)
    )
    h = jt.index((n,), 0).uint32() ^ seed
    h = (h ^ (h >> 16)) * first
    h = (h ^ (h >> 15)) * second
    return (h ^ (h >> 15)).uint32()  # the operators give int32, with the same bits


class DropoutFunction(jt.Function):
    """Sets a fraction p of x to 0 and scales the rest by 1 / (1 - p); linear, so that it is its own gradient.

    `seed` is a whole number of 32 bits.
    """

    def __init__(self, p, seed):
        self.p, self.seed = p, seed

    def execute(self, x):
        limit, scale = int(self.p * 2**32), 1 / (1 - self.p)
        if fits(x):
            return kernel([x.shape], [x], DROPOUT, seed=self.seed, limit=limit, scale=scale)[0]
        kept = hashes(x.numel(), self.seed) >= jt.array(np.array([limit], np.uint32))
        return x * kept.float32().reshape(x.shape) * scale

    def grad(self, dy):
        return DropoutFunction(self.p, self.seed)(dy)


# Dropout's seeds are drawn here and not on the device: on a GPU, Jittor's set_seed does not restart its sequence.
seeds = np.random.default_rng(0)


def set_seed(seed):
    """Seeds Jittor's generator, and the seeds of the dropouts to come; use it in the place of jt.set_seed."""
    global seeds
    seeds = np.random.default_rng(seed)
    jt.set_seed(seed)


class Dropout(nn.Dropout):
    """`jittor.nn.Dropout`: off until `.train()`. Each call draws its own seed."""

    def execute(self, x):
        if not self.is_train or not 0 < self.p < 1:
            return super().execute(x)
        return DropoutFunction(self.p, int(seeds.integers(2**32)))(x)
