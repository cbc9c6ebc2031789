"""Layers and an optimizer that use every core, in the place of Jittor's own.

On a CPU Jittor runs convolutions and matrix products on all cores, and everything else on one. Here the rest is
written as small C++ kernels with OpenMP, and convolutions take fewer multiplications (`common.winograd`). Names,
arguments, attributes and initial values are those of `jittor.nn`, so that a model, its checkpoints and its
optimizer's state do not depend on which of the two it uses:

    Conv, ConvTranspose, BatchNorm, InstanceNorm2d, ReflectionPad2d, Dropout, LeakyReLU, ReLU, Tanh, Adam,
    ema_update, reflection_pad

On a GPU, for other types than float32, and for batch norm of (N, C) or under mpirun, Jittor's operators run instead.
A compiler without OpenMP ignores the pragmas: the same numbers come out, on one thread.

Second derivatives, which a gradient penalty needs: convolutions, padding, dropout and activations have them. The
two norms' kernels do not and raise RuntimeError; a penalised critic with a norm takes `jittor.nn`'s.

Every loop is split statically and no sum is shared between threads, so that equal runs with as many threads give
equal bits.
"""

import jittor as jt
from jittor import nn

from common.kernels import HEADER, fits, kernel
from common.winograd import Conv, ConvTranspose  # noqa: F401

# ---- normalisation ----

# A group is what shares a mean: a channel of the batch (batch norm) or of one image (instance norm). It lies in
# `rows` pieces of `length` numbers; piece r of group g starts at (r * groups + g) * length. Sums are formed in float
# along a piece and in double over the pieces, and the variance from the distances to the mean.
GROUPS = """
    const int64 groups = data["groups"], rows = data["rows"], length = data["length"], channels = in1_shape0;
    const float eps = data["eps"];
    const double count = rows * length;
"""

# in: x, weight, bias. out: y, mean, variance (biased).
NORM = (
    GROUPS
    + """
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 g = 0; g < groups; g++) {
        double sum = 0, squares = 0;
        for (int64 r = 0; r < rows; r++) {
            const float* x = in0_p + (r * groups + g) * length;
            float part = 0;
            for (int64 i = 0; i < length; i++) part += x[i];
            sum += part;
        }
        const float mean = sum / count;
        for (int64 r = 0; r < rows; r++) {
            const float* x = in0_p + (r * groups + g) * length;
            float part = 0;
            for (int64 i = 0; i < length; i++) part += (x[i] - mean) * (x[i] - mean);
            squares += part;
        }
        const float variance = squares / count;
        const float scale = in1_p[g % channels] / std::sqrt(variance + eps), shift = in2_p[g % channels];
        for (int64 r = 0; r < rows; r++) {
            const float* x = in0_p + (r * groups + g) * length;
            float* y = out0_p + (r * groups + g) * length;
            for (int64 i = 0; i < length; i++) y[i] = (x[i] - mean) * scale + shift;
        }
        out1_p[g] = mean;
        out2_p[g] = variance;
    }
"""
)

# With h = (x - mean) / deviation:
#     dbias = sum(dy), dweight = sum(dy * h), dx = weight / deviation * (dy - dbias / count - h * dweight / count)
# in: x, weight, mean, variance, dy. out: dx, and dweight and dbias of each group.
NORM_GRAD = (
    GROUPS
    + """
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 g = 0; g < groups; g++) {
        const float mean = in2_p[g], inverse = 1 / std::sqrt(in3_p[g] + eps);
        double sum = 0, product = 0;
        for (int64 r = 0; r < rows; r++) {
            const float *x = in0_p + (r * groups + g) * length, *dy = in4_p + (r * groups + g) * length;
            float part = 0, part_product = 0;
            for (int64 i = 0; i < length; i++) {
                part += dy[i];
                part_product += dy[i] * (x[i] - mean) * inverse;
            }
            sum += part;
            product += part_product;
        }
        const float scale = in1_p[g % channels] * inverse, a = sum / count, b = product / count * inverse;
        for (int64 r = 0; r < rows; r++) {
            const float *x = in0_p + (r * groups + g) * length, *dy = in4_p + (r * groups + g) * length;
            float* dx = out0_p + (r * groups + g) * length;
            for (int64 i = 0; i < length; i++) dx[i] = scale * (dy[i] - a - b * (x[i] - mean));
        }
        out1_p[g] = product;
        out2_p[g] = sum;
    }
"""
)


class Norm(jt.Function):
    """x (N, C, ...), weight (C), bias (C) to x's shape; `mean` and `variance` (groups) are kept as attributes."""

    def __init__(self, groups, rows, eps):
        self.layout = {"groups": groups, "rows": rows, "eps": eps}

    def execute(self, x, weight, bias):
        groups = self.layout["groups"]
        self.layout["length"] = x.numel() // (groups * self.layout["rows"])
        y, self.mean, self.variance = kernel([x.shape, [groups], [groups]], [x, weight, bias], NORM, **self.layout)
        self.saved = x, weight, self.mean, self.variance
        return y

    def grad(self, dy):
        return NormGrad(self.layout)(*self.saved, dy)


class NormGrad(jt.Function):
    """The gradients of `Norm` for x, weight and bias."""

    def __init__(self, layout):
        self.layout = layout

    def execute(self, x, weight, mean, variance, dy):
        groups, channels = self.layout["groups"], weight.shape[0]
        inputs = [x, weight, mean, variance, dy]
        dx, dweight, dbias = kernel([x.shape, [groups], [groups]], inputs, NORM_GRAD, **self.layout)
        if groups > channels:
            dweight, dbias = (v.reshape((-1, channels)).sum(0) for v in (dweight, dbias))
        return dx, dweight, dbias

    def grad(self, *gradients):
        raise RuntimeError("common.fast's norms have no second derivative: use jittor.nn's under a gradient penalty")


def weight_and_bias(norm):
    if norm.affine:
        return norm.weight, norm.bias
    return jt.ones(norm.num_features).stop_grad(), jt.zeros(norm.num_features).stop_grad()


class BatchNorm(nn.BatchNorm):
    """`jittor.nn.BatchNorm` for (N, C) and (N, C, H, W); running_var is unbiased, as PyTorch's is, Jittor's is not."""

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
            mean, variance = norm.mean, norm.variance
        count = x.numel() // self.num_features * (jt.world_size if self.sync else 1)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.update(self.running_mean + (mean - self.running_mean) * self.momentum)
        self.running_var.update(self.running_var + (unbiased - self.running_var) * self.momentum)
        return y

    def plain(self, x):
        """The norm in Jittor's operators: y, and the mean and the variance of the batches of all processes."""
        dims = [0, *range(2, x.ndim)]

        def average(v):
            v = v.mean(dims)
            return v.mpi_all_reduce("mean") if self.sync and jt.in_mpi else v

        mean = average(x)
        centred = x - mean.broadcast(x, dims)
        variance = average(centred * centred)
        y = centred * (self.weight / jt.sqrt(variance + self.eps)).broadcast(x, dims)
        return (y + self.bias.broadcast(x, dims) if self.affine else y), mean, variance


class InstanceNorm2d(nn.InstanceNorm2d):
    """`jittor.nn.InstanceNorm2d` for (N, C, H, W)."""

    def execute(self, x):
        if x.shape[1] != self.num_features:
            raise ValueError(f"InstanceNorm2d({self.num_features}) got {x.shape[1]} channels")
        if not fits(x):
            return super().execute(x)
        return Norm(x.shape[0] * x.shape[1], 1, self.eps)(x, *weight_and_bias(self))


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
        shape = [*x.shape[:2], x.shape[2] + sign * (top + bottom), x.shape[3] + sign * (left + right)]
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
            raise ValueError(f"ReflectionPad2d {padding} does not fit {tuple(x.shape)}: it must be below the size")
        return Pad(padding)(x)


def reflection_pad(x, padding):
    """(N, C, H, W) padded by an int or by (left, right, top, bottom), each below the image's size."""
    return ReflectionPad2d(padding)(x)


# ---- dropout ----

# Whether number i is kept is decided by a hash of the seed and i (a 32-bit mixer of low bias found by
# https://github.com/skeeto/hash-prospector), and so by no order of threads; backward decides the same again.
DROPOUT = """
    const uint32 seed = (uint32)(in1_p[0] * 16777216) * 0x9e3779b9u;
    const uint32 limit = data["p"] * 4294967296.0;
    const float scale = 1 / (1 - data["p"]);
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) {
        uint32 h = (uint32)i ^ seed;
        h = (h ^ (h >> 16)) * 0x21f0aaadu;
        h = (h ^ (h >> 15)) * 0xd35a2d97u;
        h ^= h >> 15;
        out0_p[i] = h >= limit ? in0_p[i] * scale : 0;
    }
"""


class DropoutFunction(jt.Function):
    """Sets a fraction p of x to 0 and scales the rest by 1 / (1 - p); linear, so that it is its own gradient.

    `seed` is a Var of one number in [0, 1), of which 24 bits count.
    """

    def __init__(self, p, seed):
        self.p, self.seed = p, seed

    def execute(self, x):
        return kernel([x.shape], [x, self.seed], DROPOUT, p=self.p)[0]

    def grad(self, dy):
        return DropoutFunction(self.p, self.seed)(dy)


class Dropout(nn.Dropout):
    """`jittor.nn.Dropout`: off until `.train()`. Each call draws one number from Jittor's generator."""

    def execute(self, x):
        if not self.is_train or not 0 < self.p < 1 or not fits(x):
            return super().execute(x)
        return DropoutFunction(self.p, jt.random((1,)).stop_grad())(x)


# ---- optimizer ----

# in: p, gradient. out: the new p; m and v, which are overwritten.
ADAM = """
    // 1 - b2 is taken in double: 1 - 0.999f is off by 5e-5.
    const float b1 = data["b1"], b2 = data["b2"], c1 = 1 - data["b1"], c2 = 1 - data["b2"];
    const float decay = data["decay"], eps = data["eps"];
    const float rate = data["rate"], correction = data["correction"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) {
        const float gradient = in1_p[i] + decay * in0_p[i];
        const float m = b1 * out1_p[i] + c1 * gradient;
        const float v = b2 * out2_p[i] + c2 * gradient * gradient;
        // The compiler computes sqrt(v) as v * rsqrt(v), which is NaN where v is subnormal: 1e-30 keeps clear of that.
        out0_p[i] = in0_p[i] - rate * m / (std::sqrt(v + 1e-30f) * correction + eps);
        out1_p[i] = m;
        out2_p[i] = v;
    }
"""


class Adam(nn.Adam):
    """`jittor.nn.Adam` with eps where the paper (Kingma and Ba 2015, algorithm 1) and PyTorch have it:

        p -= lr * (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)
    """

    def step(self, loss=None, retain_graph=False):
        if jt.flags.use_cuda:
            return super().step(loss, retain_graph)
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            b1, b2 = group.get("betas", self.betas)
            numbers = {
                "b1": b1, "b2": b2, "eps": group.get("eps", self.eps),
                "decay": group.get("weight_decay", self.weight_decay),
                "rate": group.get("lr", self.lr) / (1 - b1**self.n_step),
                "correction": (1 - b2**self.n_step) ** -0.5,
            }  # fmt: skip
            for p, g, m, v in zip(group["params"], group["grads"], group["m"], group["values"]):
                if not p.is_stop_grad():
                    new = jt.empty(p.shape)
                    # Whatever is still to be computed from the old p must find it unchanged. The moments have no
                    # other reader; overwriting them halves the time.
                    jt.code([p, g, m, v, new], [new, m, v], cpu_src=ADAM, cpu_header=HEADER, data=numbers)
                    p.update(new)
        self.post_step()


# in: the shadow, what it follows. out: the new shadow.
EMA = """
    const float decay = data["decay"], rest = 1 - data["decay"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = decay * in0_p[i] + rest * in1_p[i];
"""


def ema_update(shadow, params, decay):
    """shadow = decay * shadow + (1 - decay) * params, for two lists of Vars; sync the shadow in every step.

    Without a sync the next call's graph grows upon this one's, and memory with it.
    """
    with jt.no_grad():
        for s, p in zip(shadow, params):
            if fits(s, p):
                s.update(kernel([s.shape], [s, p], EMA, decay=decay)[0])
            else:
                s.update(decay * s + (1 - decay) * p)
