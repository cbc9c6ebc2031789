"""Batch norm, instance norm and modulation on all CPU cores; see `jittor_fast` for what all layers have in common."""

import jittor as jt
from jittor import nn

from jittor_fast.kernels import fits, kernel

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
        y, self.mean, self.variance = kernel(
            [x.shape, [groups], [groups]], [x, weight, bias], NORM, **self.layout
        )
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
        raise RuntimeError(
            "jittor_fast's norms have no second derivative: use jittor.nn's under a gradient penalty"
        )


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
        """The norm in Jittor's operators: y, mean and variance; in training, of the batches of all processes."""
        dims = [0, *range(2, x.ndim)]

        def average(v):
            v = v.mean(dims)
            return v.mpi_all_reduce("mean") if self.sync and self.is_train and jt.in_mpi else v

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
        if fits(x):
            return Norm(x.shape[0] * x.shape[1], 1, self.eps)(x, *weight_and_bias(self))
        # Jittor's own takes E[x^2] - E[x]^2 for the variance, which a large mean swallows.
        centred = x - x.mean([2, 3], keepdims=True)
        y = centred / jt.sqrt((centred * centred).mean([2, 3], keepdims=True) + self.eps)
        if not self.affine:
            return y
        return y * self.weight.broadcast(x, [0, 2, 3]) + self.bias.broadcast(x, [0, 2, 3])


# A channel of x has `length` numbers; its scale lies in `both`, and its shift `channels` channels behind.
CHANNELS = """
    const int64 channels = in0_shape1, length = in0_shape2 * in0_shape3;
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 p = 0; p < in0_shape0 * channels; p++) {
        const int64 at = p * length, scale = at + p / channels * channels * length, shift = scale + channels * length;
        for (int64 i = 0; i < length; i++) {
"""

# in: x, both. out: y.
MODULATE = (
    CHANNELS + "out0_p[at + i] = in0_p[at + i] * (1 + in1_p[scale + i]) + in1_p[shift + i]; } }"
)

# in: x, both, dy. out: dx, dboth.
MODULATE_GRAD = (
    CHANNELS
    + """
            out0_p[at + i] = in2_p[at + i] * (1 + in1_p[scale + i]);
            out1_p[scale + i] = in2_p[at + i] * in0_p[at + i];
            out1_p[shift + i] = in2_p[at + i];
        }
    }
"""
)


class Modulate(jt.Function):
    """y, of x's shape, from x (N, C, H, W) and both (N, 2 C, H, W)."""

    def execute(self, x, both):
        self.saved = x, both
        return kernel([x.shape], [x, both], MODULATE)[0]

    def grad(self, dy):
        return ModulateGrad()(*self.saved, dy)


class ModulateGrad(jt.Function):
    """The gradients of `Modulate` for x and both."""

    def execute(self, x, both, dy):
        return tuple(kernel([x.shape, both.shape], [x, both, dy], MODULATE_GRAD))

    def grad(self, *gradients):
        raise RuntimeError("jittor_fast.modulate has no second derivative")


def modulate(x, both):
    """x (1 + gamma) + beta (Park 2019), of x's shape.

    Args:
        x: (N, C, H, W).
        both: (N, 2 C, H, W), gamma and behind it beta.

    Raises:
        ValueError: `both` has another shape.
    """
    n, c, h, w = x.shape
    if tuple(both.shape) != (n, 2 * c, h, w):
        raise ValueError(
            f"modulate: {list(x.shape)} needs gamma and beta {[n, 2 * c, h, w]}, got {list(both.shape)}"
        )
    if fits(x, both):
        return Modulate()(x, both)
    return x * (1 + both[:, :c]) + both[:, c:]
