"""Layers and an optimizer that use every CPU core, where Jittor's own kernels run on one thread.

Jittor leaves convolutions and matrix products to oneDNN, which uses all cores; normalisation, padding, dropout and
the optimizer are loops on one thread. Here they are small OpenMP kernels, compiled by Jittor like any other. The
classes take the arguments, hold the parameters and compute the values of their namesakes in `jittor.nn`; on a GPU
they are their namesakes.

The kernels know their first derivative only. A gradient penalty differentiates the gradient once more: a network
that is penalised (WGAN-GP's critic) must use `jittor.nn`.
"""

import jittor as jt
from jittor import nn

HEADER = "#include <omp.h>\n#include <cmath>\n#include <cstring>\n#include <cstdint>\n"


def on_cpu():
    return not jt.flags.use_cuda


def kernel(shapes, inputs, source, **data):
    """One OpenMP kernel with float32 outputs of `shapes`; `data` are numbers that its source reads as data["..."]."""
    return jt.code(shapes, ["float32"] * len(shapes), inputs, cpu_header=HEADER, cpu_src=source, data=data)


# ---- the optimizer and the moving average ----

ADAM = """
    const float b1 = data["b1"], b2 = data["b2"], step = data["step"], root = data["root"], eps = data["eps"];
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++) {
        const float g = in1_p[i];
        const float m = b1 * in2_p[i] + (1 - b1) * g;
        const float v = b2 * in3_p[i] + (1 - b2) * g * g;
        out1_p[i] = m;
        out2_p[i] = v;
        out0_p[i] = in0_p[i] - step * m / (std::sqrt(v) * root + eps);
    }
"""


class Adam(nn.Adam):
    """Adam (Kingma and Ba 2015, algorithm 1): one pass over each parameter.

    eps is added after the bias correction, as in the paper and in PyTorch (Jittor adds it before).
    """

    def step(self, loss=None, retain_graph=False):
        if not on_cpu():
            return super().step(loss, retain_graph)
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            b1, b2 = group.get("betas", self.betas)
            numbers = {
                "b1": b1,
                "b2": b2,
                "eps": group.get("eps", self.eps),
                "step": group.get("lr", self.lr) / (1 - b1**self.n_step),
                "root": (1 - b2**self.n_step) ** -0.5,
            }
            for p, g, m, v in zip(group["params"], group["grads"], group["m"], group["values"]):
                if not p.is_stop_grad():
                    new = kernel([p.shape] * 3, [p, g, m, v], ADAM, **numbers)
                    for old, value in zip((p, m, v), new):
                        old.update(value)
        self.post_step()


AVERAGE = """
    const float decay = data["decay"];
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++)
        out0_p[i] = decay * in0_p[i] + (1 - decay) * in1_p[i];
"""


def ema_update(averages, values, decay):
    """Each of `averages` becomes decay * average + (1 - decay) * value; two lists of variables of equal shapes."""
    with jt.no_grad():
        for average, value in zip(averages, values):
            if on_cpu():
                average.update(kernel([average.shape], [average, value], AVERAGE, decay=decay)[0])
            else:
                average.update(decay * average + (1 - decay) * value)


# ---- normalisation ----

# An image tensor is N x C planes of S numbers. A group that is normalised together is a plane (instance norm) or a
# channel's plane in every image (batch norm). The statistics are taken around the mean in a second pass: E[x^2] -
# E[x]^2 would lose all digits where the mean is large.

INSTANCE_FORWARD = """
    const int64_t planes = in0_shape0 * in0_shape1, S = in0->num / planes;
    const float eps = data["eps"];
    #pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < planes; p++) {
        const float* x = in0_p + p * S;
        float* y = out0_p + p * S;
        float sum = 0, squares = 0;
        for (int64_t i = 0; i < S; i++) sum += x[i];
        const float mean = sum / S;
        for (int64_t i = 0; i < S; i++) squares += (x[i] - mean) * (x[i] - mean);
        const float inverse = 1 / std::sqrt(squares / S + eps);
        for (int64_t i = 0; i < S; i++) y[i] = (x[i] - mean) * inverse;
        out1_p[p] = inverse;
    }
"""

# With y normalised, dx = (dy - mean(dy) - y * mean(dy * y)) / std (Ioffe and Szegedy 2015, section 3, combined).
INSTANCE_BACKWARD = """
    const int64_t planes = in0_shape0 * in0_shape1, S = in0->num / planes;
    #pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < planes; p++) {
        const float* y = in0_p + p * S;
        const float* dy = in1_p + p * S;
        float* dx = out0_p + p * S;
        float sum = 0, product = 0;
        for (int64_t i = 0; i < S; i++) { sum += dy[i]; product += dy[i] * y[i]; }
        const float a = sum / S, b = product / S, inverse = in2_p[p];
        for (int64_t i = 0; i < S; i++) dx[i] = (dy[i] - a - y[i] * b) * inverse;
    }
"""


class NormalizePlanes(jt.Function):
    """(N, C, H, W) with each plane brought to mean 0 and variance 1."""

    def execute(self, x, eps):
        shapes = [x.shape, (x.shape[0] * x.shape[1],)]
        self.y, self.inverse = kernel(shapes, [x], INSTANCE_FORWARD, eps=eps)
        return self.y

    def grad(self, dy):
        return kernel([dy.shape], [self.y, dy, self.inverse], INSTANCE_BACKWARD)[0], None


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm (Ulyanov 2016) of (N, C, H, W); as in Jittor, with weight and bias unless affine=False."""

    def execute(self, x):
        if not on_cpu():
            return super().execute(x)
        y = NormalizePlanes.apply(x, self.eps)
        if self.affine:
            y = y * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)
        return y


# A two-dimensional input has S = 1. Then a channel's numbers lie C apart, and blocks of channels are summed line by
# line instead, which reads the memory in order.
BATCH_FORWARD = """
    const int64_t N = in0_shape0, C = in0_shape1, S = in0->num / (N * C), block = S == 1 ? 64 : 1;
    const float eps = data["eps"], n = N * S;
    #pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < C; first += block) {
        const int64_t width = std::min(block, C - first);
        float mean[64] = {0}, var[64] = {0}, scale[64];
        for (int64_t i = 0; i < N; i++) {
            const float* x = in0_p + (i * C + first) * S;
            if (S == 1) for (int64_t c = 0; c < width; c++) mean[c] += x[c];
            else { float sum = 0; for (int64_t s = 0; s < S; s++) sum += x[s]; mean[0] += sum; }
        }
        for (int64_t c = 0; c < width; c++) mean[c] /= n;
        for (int64_t i = 0; i < N; i++) {
            const float* x = in0_p + (i * C + first) * S;
            if (S == 1) for (int64_t c = 0; c < width; c++) var[c] += (x[c] - mean[c]) * (x[c] - mean[c]);
            else {
                float sum = 0; const float m = mean[0];
                for (int64_t s = 0; s < S; s++) sum += (x[s] - m) * (x[s] - m);
                var[0] += sum;
            }
        }
        for (int64_t c = 0; c < width; c++) {
            var[c] /= n;
            out1_p[first + c] = mean[c];
            out2_p[first + c] = var[c];
            scale[c] = in1_p[first + c] / std::sqrt(var[c] + eps);
        }
        for (int64_t i = 0; i < N; i++) {
            const float* x = in0_p + (i * C + first) * S;
            float* y = out0_p + (i * C + first) * S;
            const float* b = in2_p + first;
            if (S == 1) for (int64_t c = 0; c < width; c++) y[c] = (x[c] - mean[c]) * scale[c] + b[c];
            else { const float m = mean[0], a = scale[0]; for (int64_t s = 0; s < S; s++) y[s] = (x[s] - m) * a + b[0]; }
        }
    }
"""

BATCH_BACKWARD = """
    const int64_t N = in0_shape0, C = in0_shape1, S = in0->num / (N * C), block = S == 1 ? 64 : 1;
    const float eps = data["eps"], n = N * S;
    #pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < C; first += block) {
        const int64_t width = std::min(block, C - first);
        float sum[64] = {0}, product[64] = {0}, a[64], b[64], scale[64];
        const float* mean = in2_p + first;
        for (int64_t i = 0; i < N; i++) {
            const float* x = in0_p + (i * C + first) * S;
            const float* dy = in1_p + (i * C + first) * S;
            if (S == 1)
                for (int64_t c = 0; c < width; c++) { sum[c] += dy[c]; product[c] += dy[c] * (x[c] - mean[c]); }
            else {
                float s0 = 0, s1 = 0; const float m = mean[0];
                for (int64_t s = 0; s < S; s++) { s0 += dy[s]; s1 += dy[s] * (x[s] - m); }
                sum[0] += s0; product[0] += s1;
            }
        }
        for (int64_t c = 0; c < width; c++) {
            const float inverse = 1 / std::sqrt(in3_p[first + c] + eps);
            out1_p[first + c] = product[c] * inverse;
            out2_p[first + c] = sum[c];
            scale[c] = in4_p[first + c] * inverse;
            a[c] = sum[c] / n;
            b[c] = product[c] * inverse * inverse / n;
        }
        for (int64_t i = 0; i < N; i++) {
            const float* x = in0_p + (i * C + first) * S;
            const float* dy = in1_p + (i * C + first) * S;
            float* dx = out0_p + (i * C + first) * S;
            if (S == 1)
                for (int64_t c = 0; c < width; c++) dx[c] = (dy[c] - a[c] - (x[c] - mean[c]) * b[c]) * scale[c];
            else {
                const float m = mean[0], a0 = a[0], b0 = b[0], k = scale[0];
                for (int64_t s = 0; s < S; s++) dx[s] = (dy[s] - a0 - (x[s] - m) * b0) * k;
            }
        }
    }
"""


class NormalizeBatch(jt.Function):
    """(N, C, ...) normalised over everything but C, times weight plus bias; also the mean and variance (C,)."""

    def execute(self, x, weight, bias, eps):
        self.eps, self.x, self.weight = eps, x, weight
        shapes = [x.shape, weight.shape, weight.shape]
        y, self.mean, self.var = kernel(shapes, [x, weight, bias], BATCH_FORWARD, eps=eps)
        return y, self.mean, self.var

    def grad(self, dy, _mean, _var):
        shapes = [dy.shape, self.weight.shape, self.weight.shape]
        inputs = [self.x, dy, self.mean, self.var, self.weight]
        return *kernel(shapes, inputs, BATCH_BACKWARD, eps=self.eps), None


class BatchNorm(nn.BatchNorm):
    """Batch norm (Ioffe and Szegedy 2015) of (N, C) or (N, C, H, W).

    The running variance is the unbiased one, as in PyTorch (Jittor's is biased). Under mpirun the statistics are
    those of the whole batch, by Jittor's own code.
    """

    def execute(self, x):
        if not (on_cpu() and self.is_train and self.affine) or jt.in_mpi:
            return super().execute(x)
        y, mean, var = NormalizeBatch.apply(x, self.weight, self.bias, self.eps)
        n = x.numel() // x.shape[1]
        for running, value in ((self.running_mean, mean), (self.running_var, var * (n / max(n - 1, 1)))):
            running.update(running + (value.detach() - running) * self.momentum)
        return y


# ---- padding, dropout ----

# Line i of a padded axis is line |i - p| of the input, mirrored at the far end: reflection without the edge itself.
REFLECT = """
    const int64_t H = in0_shape2, W = in0_shape3, P = data["padding"], HP = H + 2 * P, WP = W + 2 * P;
    auto mirror = [](int64_t i, int64_t n) { i = i < 0 ? -i : i; return i < n ? i : 2 * (n - 1) - i; };
    #pragma omp parallel for schedule(static)
    for (int64_t plane = 0; plane < in0_shape0 * in0_shape1; plane++)
        for (int64_t i = 0; i < HP; i++) {
            const float* x = in0_p + (plane * H + mirror(i - P, H)) * W;
            float* y = out0_p + (plane * HP + i) * WP;
            for (int64_t j = 0; j < P; j++) { y[j] = x[P - j]; y[P + W + j] = x[W - 2 - j]; }
            std::memcpy(y + P, x, W * sizeof(float));
        }
"""

REFLECT_BACKWARD = """
    const int64_t H = out0_shape2, W = out0_shape3, P = data["padding"], HP = H + 2 * P, WP = W + 2 * P;
    auto mirror = [](int64_t i, int64_t n) { i = i < 0 ? -i : i; return i < n ? i : 2 * (n - 1) - i; };
    #pragma omp parallel for schedule(static)
    for (int64_t plane = 0; plane < out0_shape0 * out0_shape1; plane++) {
        std::memset(out0_p + plane * H * W, 0, H * W * sizeof(float));
        for (int64_t i = 0; i < HP; i++) {
            float* dx = out0_p + (plane * H + mirror(i - P, H)) * W;
            const float* dy = in0_p + (plane * HP + i) * WP;
            for (int64_t j = 0; j < W; j++) dx[j] += dy[P + j];
            for (int64_t j = 0; j < P; j++) { dx[P - j] += dy[j]; dx[W - 2 - j] += dy[P + W + j]; }
        }
    }
"""


class Reflect(jt.Function):
    def execute(self, x, padding):
        self.shape, self.padding = x.shape, padding
        n, c, height, width = x.shape
        return kernel([(n, c, height + 2 * padding, width + 2 * padding)], [x], REFLECT, padding=padding)[0]

    def grad(self, dy):
        return kernel([self.shape], [dy], REFLECT_BACKWARD, padding=self.padding)[0], None


class ReflectionPad2d(nn.Module):
    """(N, C, H, W) to (N, C, H + 2p, W + 2p), mirrored at the edges; p must be below H and W."""

    def __init__(self, padding):
        super().__init__()
        self.padding = padding

    def execute(self, x):
        if min(x.shape[2:]) <= self.padding:
            raise ValueError(f"reflection padding of {self.padding} needs larger images than {x.shape[2:]}")
        if on_cpu():
            return Reflect.apply(x, self.padding)
        return nn.ReflectionPad2d(self.padding)(x)


# Which numbers are kept follows from a hash of their index and one random number, so that the result does not depend
# on the number of threads, and the backward pass needs no stored mask. The hash is the finalizer of MurmurHash3.
DROPOUT = """
    const uint32_t seed = in1_p[0] * 16777216.0f, threshold = data["p"] * 4294967295.0;
    const float scale = 1 / (1 - data["p"]);
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++) {
        uint32_t h = uint32_t(i) * 2654435761u ^ seed * 2246822519u;
        h ^= h >> 16; h *= 0x85ebca6bu; h ^= h >> 13; h *= 0xc2b2ae35u; h ^= h >> 16;
        out0_p[i] = h < threshold ? 0.0f : in0_p[i] * scale;
    }
"""


class DropSome(jt.Function):
    def execute(self, x, p):
        self.p, self.seed = p, jt.rand(1)
        return kernel([x.shape], [x, self.seed], DROPOUT, p=p)[0]

    def grad(self, dy):
        return kernel([dy.shape], [dy, self.seed], DROPOUT, p=self.p)[0], None


class Dropout(nn.Dropout):
    """Dropout (Srivastava 2014): zeros with probability p, the rest times 1 / (1 - p); off until `train()`.

    What is dropped follows from Jittor's random generator, so that `jt.set_seed` makes it repeatable.
    """

    def execute(self, x):
        if not on_cpu() or not self.is_train or self.p == 0:
            return super().execute(x)
        return DropSome.apply(x, self.p)
