"""Run in a process of its own before the first use of a GPU: does Jittor compute the right numbers on it?

Its last line is "GPU: right numbers", or "GPU: " and what is wrong.
"""

import os

import numpy as np

os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # float32 as it is, to compare with numpy


def convolution(x, w):
    """(N, C, H, W) and (K, C, 3, 3) to (N, K, H - 2, W - 2), in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    return np.einsum("nchwij,kcij->nkhw", windows, w.astype(np.float64))


def missing_library():
    """Switches the GPU on, or says what Jittor does not find for it."""
    import jittor as jt
    from jittor import compile_extern

    missing = [name for name in ("cudnn", "cublas", "curand") if not getattr(compile_extern, name)]
    if not jt.has_cuda or missing:
        return f"Jittor does not find {', '.join(missing) or 'CUDA'}"
    jt.flags.use_cuda = 1
    return None


def wrong_number():
    """What Jittor computes wrongly, against numpy; None if nothing."""
    import jittor as jt

    rng = np.random.default_rng(0)
    numbers = np.arange(1 << 20, dtype=np.float32)
    if not np.array_equal((jt.array(numbers) * 2 + 1).numpy(), numbers * 2 + 1):
        return "x * 2 + 1 is wrong"
    a, b = rng.standard_normal((2, 128, 128)).astype(np.float32)
    if not np.allclose(
        jt.matmul(jt.array(a), jt.array(b)).numpy(), a.astype(np.float64) @ b, atol=1e-3
    ):
        return "a matrix product is wrong"
    x = rng.standard_normal((2, 8, 16, 16)).astype(np.float32)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    dy = rng.standard_normal((2, 8, 14, 14)).astype(np.float32)
    vx, vw = jt.array(x), jt.array(w)
    y = jt.nn.conv2d(vx, vw)
    dx, dw = jt.grad((y * jt.array(dy)).sum(), [vx, vw])
    # The gradient for x is the convolution of the padded dy with the turned w, that for w of x with dy.
    padded = np.pad(dy, [(0, 0), (0, 0), (2, 2), (2, 2)])
    expected_dx = convolution(padded, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (14, 14), axis=(2, 3))
    expected_dw = np.einsum("ncijhw,nkhw->kcij", windows, dy.astype(np.float64))
    for name, got, expected in (
        ("", y, convolution(x, w)),
        (" for x", dx, expected_dx),
        (" for w", dw, expected_dw),
    ):
        if not np.allclose(got.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
            return f"a convolution{name and ', its gradient' + name} is wrong"
    return None


if __name__ == "__main__":
    print("GPU:", missing_library() or wrong_number() or "right numbers", flush=True)
