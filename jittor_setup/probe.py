"""Checks whether Jittor computes correct results on the GPU.

trial.py runs this file as a separate process before the first use of a GPU. The last
line of its output is "GPU: correct results", or "GPU: " and what is wrong.
"""

import os
import sys
from pathlib import Path

import numpy as np

# Full float32 precision instead of TF32, for the comparison with numpy.
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def missing_library():
    """Switches the GPU on and returns None, or returns what Jittor does not find."""
    from jittor_setup.newer import mended_import

    with mended_import():
        import jittor as jt

    missing = []
    for name in ("cudnn", "cublas", "curand"):
        if not getattr(jt.compile_extern, name):
            missing.append(name)
    if not jt.has_cuda or missing:
        return f"Jittor does not find {', '.join(missing) or 'CUDA'}"
    jt.flags.use_cuda = 1
    return None


def wrong_result():
    """Compares results of Jittor with numpy's; returns what is wrong, or None."""
    rng = np.random.default_rng(0)
    return wrong_elements() or wrong_product(rng) or wrong_convolution(rng)


def wrong_elements():
    """2 x + 1 for a million values: exact, and wrong if a kernel was never launched."""
    import jittor as jt

    x = np.arange(1 << 20, dtype=np.float32)
    y = jt.array(x) * 2 + 1
    return None if np.array_equal(y.numpy(), x * 2 + 1) else "x * 2 + 1 is wrong"


def wrong_product(rng):
    """The product of two 128 x 128 matrices."""
    import jittor as jt

    a, b = rng.standard_normal((2, 128, 128)).astype(np.float32)
    product = jt.matmul(jt.array(a), jt.array(b)).numpy()
    expected = a.astype(np.float64) @ b
    return None if np.allclose(product, expected, atol=1e-3) else "a matrix product is wrong"


def wrong_convolution(rng):
    """A 3 x 3 convolution of 16 x 16 images, and its gradients for both inputs."""
    import jittor as jt

    x = rng.standard_normal((2, 8, 16, 16)).astype(np.float32)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    dy = rng.standard_normal((2, 8, 14, 14)).astype(np.float32)
    var_x = jt.array(x)
    var_w = jt.array(w)
    y = jt.nn.conv2d(var_x, var_w)
    dx, dw = jt.grad((y * jt.array(dy)).sum(), [var_x, var_w])

    # dx is the convolution of the padded dy with w, turned by 180 degrees and with its
    # channels exchanged; dw is the convolution of x with dy.
    padded = np.pad(dy, [(0, 0), (0, 0), (2, 2), (2, 2)])
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    x_by_channel = x.transpose(1, 0, 2, 3)
    dy_by_channel = dy.transpose(1, 0, 2, 3)
    if differs(y, convolution(x, w)):
        return "a convolution is wrong"
    if differs(dx, convolution(padded, turned)):
        return "a convolution's gradient for x is wrong"
    if differs(dw, convolution(x_by_channel, dy_by_channel).transpose(1, 0, 2, 3)):
        return "a convolution's gradient for w is wrong"
    return None


def convolution(x, w):
    """(N, C, H, W) and (K, C, h, w) to (N, K, H - h + 1, W - w + 1), in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(
        x.astype(np.float64), w.shape[2:], axis=(2, 3)
    )
    return np.einsum("nchwij,kcij->nkhw", windows, w.astype(np.float64))


def differs(var, expected):
    """Whether a Var differs from an array by a thousandth of its largest value."""
    tolerance = 1e-3 * np.abs(expected).max()
    return not np.allclose(var.numpy(), expected, rtol=1e-3, atol=tolerance)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    print("GPU:", missing_library() or wrong_result() or "correct results", flush=True)
