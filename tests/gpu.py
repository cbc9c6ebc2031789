"""Checks of a GPU, by hand on a machine that has one; pytest does not collect them.

    python tests/gpu.py operators     layers, derivatives, optimizers, memory: GPU against CPU, some minutes
    python tests/gpu.py scripts       every script resumed on both devices from one checkpoint, and the time of its step
                                      beside the same step in PyTorch on that GPU (needs torch with CUDA)

Each check is a line with PASS or FAIL and what was measured; the exit code is 1 where one has failed. On a machine
without a GPU, `operators --dry` compares the CPU's kernels with the operators that a GPU runs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # float32 as it is, to compare with the CPU
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


import jittor as jt
import numpy as np
from registry import ROOT, ROWS, SHARED, make_data, run

import jittor_fast
import wgan_gp
from jittor_fast import kernels, nn

DRY = "--dry" in sys.argv
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


@contextmanager
def on_gpu(wanted):
    """The GPU or the CPU; in a dry run the operators or the kernels of the CPU."""
    before = jt.flags.use_cuda, kernels.enabled
    if DRY:
        kernels.enabled = not wanted
    else:
        jt.flags.use_cuda = int(wanted)
    try:
        yield
        jt.sync_all(True)
    finally:
        jt.flags.use_cuda, kernels.enabled = before


def difference(compute):
    """The largest difference of what `compute()` gives on both, a list of Vars, as a share of the largest value."""
    results = []
    for wanted in (False, True):
        with on_gpu(wanted):
            results.append([np.array(var.numpy(), np.float64) for var in compute()])
    return max(np.abs(a - b).max() / (np.abs(a).max() + 1e-12) for a, b in zip(*results))


def layer(module, x, tolerance=1e-4):
    """Outputs and gradients of a layer, weighted by fixed numbers, agree."""

    def compute():
        inputs = jt.array(x)
        y = module(inputs)
        weights = jt.array(np.cos(np.arange(y.numel(), dtype=np.float32))).reshape(y.shape)
        return [
            y,
            *jt.grad(
                (y * weights).sum(),
                [inputs, *(p for p in module.parameters() if not p.is_stop_grad())],
            ),
        ]

    return within(difference(compute), tolerance)


def within(value, tolerance):
    return value <= tolerance, f"differs by {value:.1e}"


# ---- operators: each gives whether it is right, and what was seen ----


def libraries():
    found = {name: bool(getattr(jt.compile_extern, name)) for name in ("cudnn", "cublas", "curand")}
    return DRY or (bool(jt.has_cuda) and all(found.values())), str(found)


def launches():
    """Exact, since a kernel that never ran leaves zeros or old numbers."""
    numbers = np.arange(1 << 20, dtype=np.float32)
    with on_gpu(True):
        got = (jt.array(numbers) * 2 + 1).numpy()
    return np.array_equal(got, numbers * 2 + 1), "x * 2 + 1 of a million numbers"


def seeds():
    dropout, drawn = nn.Dropout(0.5), []
    dropout.train()
    with on_gpu(True):
        for _ in range(2):
            jittor_fast.set_seed(7)
            drawn.append(dropout(jt.ones((1000,))).numpy().copy())
    return np.array_equal(*drawn) and 400 < (drawn[0] == 0).sum() < 600, "equal seeds, equal masks"


def second_derivatives():
    """The gradient penalty of WGAN-GP's critic, for its weights."""
    critic = wgan_gp.Critic(32, 1, 16, 4)
    real, fake, alpha = (
        normal(8, 1, 32, 32),
        normal(8, 1, 32, 32),
        rng.random((8, 1, 1, 1), dtype=np.float32),
    )

    def compute():
        penalty = wgan_gp.gradient_penalty(critic, *map(jt.array, (real, fake, alpha)))
        return jt.grad(penalty, [p for p in critic.parameters() if p.ndim == 4])

    return within(difference(compute), 1e-3)


def optimizer(make):
    """Ten updates by gradients of 1e-9 to 1, where eps decides at one end and the rate at the other."""
    scales = np.float32(10.0) ** np.linspace(-9, 0, 1000, dtype=np.float32)

    def compute():
        p = jt.array(np.ones(1000, np.float32))
        steps = make([p])
        for _ in range(10):
            steps.step((p * jt.array(scales)).sum())
            jt.sync_all()
        return [p - 1]

    return within(difference(compute), 1e-3)


def average():
    shadow, weights = normal(70, 1000), normal(70, 1000)

    def compute():
        var = jt.array(shadow).stop_grad()
        jittor_fast.ema_update([var], [jt.array(weights)], 0.9)
        return [var]

    return within(difference(compute), 1e-6)


def memory():
    """300 steps of WGAN-GP leave as many variables alive as 100 do."""
    with on_gpu(True):
        generator, critic = wgan_gp.Generator(64, 32, 1, 16, 4), wgan_gp.Critic(32, 1, 16, 4)
        optimizers = [nn.Adam(m.parameters(), lr=1e-4) for m in (generator, critic)]
        alive = []
        for step in range(1, 301):
            z_G = jt.array(normal(16, 64)) if step % 5 == 0 else None
            noise = (
                jt.array(normal(16, 64)),
                z_G,
                jt.array(rng.random((16, 1, 1, 1), dtype=np.float32)),
            )
            wgan_gp.train_step(
                generator, critic, *optimizers, jt.array(normal(16, 1, 32, 32)), *noise
            )
            jt.sync_all()
            if step in (100, 300):
                alive.append(jt.liveness_info()["lived_vars"])
    return alive[1] <= alive[0] + 50, f"{alive[0]} and {alive[1]} variables"


OPERATORS = {
    "libraries": libraries,
    "kernels are launched": launches,
    "seeds repeat": seeds,
    "linear": lambda: layer(nn.Linear(300, 200), normal(64, 300)),
    "convolution, stride 2": lambda: layer(
        nn.Conv(16, 32, 4, stride=2, padding=1), normal(8, 16, 32, 32)
    ),
    "convolution, 7 x 7": lambda: layer(nn.Conv(8, 8, 7), normal(2, 8, 20, 20)),
    "transposed convolution": lambda: layer(
        nn.ConvTranspose(32, 16, 4, stride=2, padding=1), normal(8, 32, 16, 16)
    ),
    "from one pixel": lambda: layer(nn.ConvTranspose(32, 64, 4), normal(8, 32, 1, 1)),
    "batch norm": lambda: layer(nn.BatchNorm(16), normal(8, 16, 9, 9)),
    "instance norm": lambda: layer(nn.InstanceNorm2d(16), normal(8, 16, 9, 9)),
    "instance norm of a large mean": lambda: layer(
        nn.InstanceNorm2d(2), 100 + 0.01 * normal(4, 2, 32, 32), 1e-2
    ),
    "reflection padding": lambda: layer(nn.ReflectionPad2d(3), normal(2, 3, 9, 9)),
    "upsampling": lambda: layer(nn.Upsample(2), normal(2, 3, 9, 9)),
    "leaky ReLU": lambda: layer(nn.LeakyReLU(0.2), normal(9, 99)),
    "ReLU": lambda: layer(nn.ReLU(), normal(9, 99)),
    "tanh": lambda: layer(nn.Tanh(), np.float32([[-80, -1, 0, 1, 80]]), 1e-3),
    "ELU": lambda: layer(nn.ELU(), np.float32([[-80, -1, 0, 1, 100]])),
    "second derivatives": second_derivatives,
    "Adam": lambda: optimizer(lambda p: nn.Adam(p, lr=1e-3)),
    "RMSProp": lambda: optimizer(lambda p: nn.RMSprop(p, lr=1e-3)),
    "moving average": average,
    "memory": memory,
}


# ---- scripts ----


def goes_on_alike(name, folder):
    """A second epoch on the GPU has the losses of one on the CPU, from the same checkpoint, at a small rate."""
    data = make_data(name, folder / "data")
    flags = ["--data_dir", data, *SHARED, *ROWS[name].flags, *ROWS[name].alone, "--lr", 1e-5]
    run(name, *flags, "--n_epochs", 1, "--device", "cpu", "--out_dir", folder / "start")
    last = []
    for device in ("cpu", "cuda"):
        go_on = ["--resume", folder / "start", "--n_epochs", 2, "--device", device]
        run(name, *go_on, "--out_dir", folder / device)
        last.append(np.loadtxt(folder / device / "losses.csv", delimiter=",", skiprows=1)[-1, 2:])
    return within(np.max(np.abs(last[0] - last[1]) / (np.abs(last[0]) + 1e-2)), 2e-2)


def speed(name, folder):
    """A step of the default run beside the same in PyTorch, as `tools/benchmark.py` times them; float32 in both."""
    command = [
        sys.executable,
        ROOT / "tools/benchmark.py",
        "--defaults",
        "--rounds",
        "1",
        "--out",
        folder / "speed",
    ]
    subprocess.run(
        [*command, "--peer", "plain", "--peer", "tuned", name],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    (row,) = json.loads((folder / "speed").read_text())["rows"]
    return row[
        "ratio"
    ] > 0, "{ms:.1f} ms, {peer} PyTorch {peer_ms:.1f} ms, ratio {ratio:.2f}".format(**row)


def without_a_visible_gpu(folder):
    command, hidden = (
        [sys.executable, ROOT / "vae.py", "--n_epochs", "1"],
        {**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    codes = []
    for flags in ([], ["--device", "cuda"]):
        argv = [*command, *flags, "--out_dir", folder / "hidden"]
        codes.append(subprocess.run(argv, env=hidden, capture_output=True, cwd=ROOT).returncode)
    return codes == [0, 2], f"exit codes {codes}"


def check(name, measure):
    """Prints one line, and gives whether it passed."""
    start = time.time()
    try:
        passed, seen = measure()
    except Exception as error:  # a check that breaks is a check that fails; the others go on
        passed, seen = False, f"{type(error).__name__}: {str(error)[:300]}"
    print("PASS" if passed else "FAIL", f"{name}: {seen} ({time.time() - start:.0f} s)", flush=True)
    return passed


def main():
    if sys.argv[1:2] == ["operators"]:
        results = [check(name, measure) for name, measure in OPERATORS.items()]
    elif sys.argv[1:] == ["scripts"]:
        results = []
        for name in ROWS:
            folder = Path(tempfile.mkdtemp())
            results.append(
                check(f"{name} on both devices", lambda name=name, f=folder: goes_on_alike(name, f))
            )
            results.append(check(f"{name}'s step", lambda name=name, f=folder: speed(name, f)))
        results.append(
            check("no visible GPU", lambda: without_a_visible_gpu(Path(tempfile.mkdtemp())))
        )
    else:
        sys.exit(__doc__)
    print(f"{results.count(False)} of {len(results)} failed")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
