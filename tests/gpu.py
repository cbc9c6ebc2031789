"""Checks of a GPU, for a machine that has one; pytest does not collect them.

    python tests/gpu.py list              names of all checks
    python tests/gpu.py operators         layers, derivatives, optimizers, memory
    python tests/gpu.py operators --dry   the same without a GPU
    python tests/gpu.py scripts           every script on both devices, and its speed

`operators` compares the GPU with the CPU; with --dry, Jittor's operators, which a GPU
runs, with the CPU's kernels. `scripts` resumes every script on both devices from one
checkpoint, and times its step beside the same step in PyTorch on that GPU (it needs
torch with CUDA).

Each check is a line with PASS or FAIL and what was measured. The exit code is 1 if one
has failed.
"""

import os
import sys
from pathlib import Path

os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # exact float32, to compare with the CPU
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # noqa: F401  # before jittor: finds oneDNN, the compiler and the GPU

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager

import jittor as jt
import numpy as np
from registry import ROOT, ROWS, SHARED, make_data, run

import jittor_fast
import wgan_gp
from jittor_fast import call, nn

is_dry = False  # --dry
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def uniform(*shape):
    return rng.random(shape, dtype=np.float32)


# ---- two devices ----


@contextmanager
def on_gpu(wanted):
    """The GPU or the CPU; in a dry run, Jittor's operators or the CPU's kernels."""
    use_cuda = jt.flags.use_cuda
    enabled = call.enabled
    if is_dry:
        call.enabled = not wanted
    else:
        jt.flags.use_cuda = int(wanted)
    try:
        yield
        jt.sync_all(True)
    finally:
        jt.flags.use_cuda = use_cuda
        call.enabled = enabled


def difference(compute):
    """The largest difference between both devices, as a share of the largest value.

    Args:
        compute: a function that returns a list of Jittor variables.
    """
    results = []
    for wanted in (False, True):
        with on_gpu(wanted):
            results.append([np.array(var.numpy(), np.float64) for var in compute()])
    shares = []
    for cpu, gpu in zip(*results):
        shares.append(np.abs(cpu - gpu).max() / (np.abs(cpu).max() + 1e-12))
    return max(shares)


def within(value, tolerance):
    """(whether the check has passed, what was measured)."""
    return bool(value <= tolerance), f"differs by {value:.1e}"


def layer(module, x, tolerance=1e-4):
    """Outputs and gradients of a layer agree; the outputs are weighted by cosines."""
    parameters = [p for p in module.parameters() if not p.is_stop_grad()]

    def compute():
        inputs = jt.array(x)
        y = module(inputs)
        weights = np.cos(np.arange(y.numel(), dtype=np.float32))
        loss = (y * jt.array(weights).reshape(y.shape)).sum()
        return [y, *jt.grad(loss, [inputs, *parameters])]

    return within(difference(compute), tolerance)


def function(f, x, tolerance=1e-4):
    """The values and the derivative of a function agree."""

    def compute():
        inputs = jt.array(x)
        y = f(inputs)
        return [y, jt.grad((y * y).sum(), inputs)]

    return within(difference(compute), tolerance)


# ---- operators: each returns whether it is right, and what was measured ----


def libraries():
    found = {name: bool(getattr(jt.compile_extern, name)) for name in ("cudnn", "cublas", "curand")}
    return is_dry or (bool(jt.has_cuda) and all(found.values())), str(found)


def launches():
    """Exact: a kernel that never ran leaves zeros or old values."""
    numbers = np.arange(1 << 20, dtype=np.float32)
    with on_gpu(True):
        found = (jt.array(numbers) * 2 + 1).numpy()
    return np.array_equal(found, numbers * 2 + 1), "x * 2 + 1 of a million numbers"


def seeds():
    dropout = nn.Dropout(0.5)
    dropout.train()
    masks = []
    with on_gpu(True):
        for _ in range(2):
            jittor_fast.set_seed(7)
            masks.append(dropout(jt.ones((1000,))).numpy().copy())
    n_dropped = (masks[0] == 0).sum()
    passed = np.array_equal(*masks) and 400 < n_dropped < 600
    return passed, f"equal seeds, equal masks of {n_dropped} in 1000"


def second_derivatives():
    """The gradient penalty of WGAN-GP, derived by the critic's weights."""
    critic = wgan_gp.Critic(32, 1, 16, 4, layer_norm=False)
    real = normal(8, 1, 32, 32)
    fake = normal(8, 1, 32, 32)
    alpha = uniform(8, 1, 1, 1)

    def compute():
        penalty = wgan_gp.gradient_penalty(critic, jt.array(real), jt.array(fake), jt.array(alpha))
        return jt.grad(penalty, [p for p in critic.parameters() if p.ndim == 4])

    return within(difference(compute), 1e-3)


def spectral_norm():
    """In eval mode, since each training call improves the norm's estimate."""
    module = jittor_fast.SpectralNorm(nn.Conv(8, 16, 3, padding=1))
    module.eval()
    return layer(module, normal(4, 8, 9, 9))


def slices():
    def halves(x):
        one, other = jittor_fast.chunk(x, 2, 1)
        return one * other

    return function(halves, normal(4, 8, 9, 9))


def optimizer(make):
    """Ten updates by gradients of 1e-9 to 1: eps decides for the smallest of them."""
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
    shadow = normal(70, 1000)
    weights = normal(70, 1000)

    def compute():
        var = jt.array(shadow).stop_grad()
        jittor_fast.ema_update([var], [jt.array(weights)], 0.9)
        return [var]

    return within(difference(compute), 1e-6)


def memory(first=100, last=300):
    """After 300 steps of WGAN-GP as many variables are alive as after 100."""
    with on_gpu(True):
        generator = wgan_gp.Generator(64, 32, 1, 16, 4)
        critic = wgan_gp.Critic(32, 1, 16, 4, layer_norm=False)
        optimizer_G = nn.Adam(generator.parameters(), lr=1e-4)
        optimizer_D = nn.Adam(critic.parameters(), lr=1e-4)
        alive = []
        for step in range(1, last + 1):
            real = jt.array(normal(16, 1, 32, 32))
            z_D = jt.array(normal(16, 64))
            z_G = jt.array(normal(16, 64))
            alpha = jt.array(uniform(16, 1, 1, 1))
            wgan_gp.train_step(
                generator,
                critic,
                optimizer_G,
                optimizer_D,
                real,
                z_D,
                z_G,
                alpha,
                update_G=step % 5 == 0,
            )
            jt.sync_all()
            if step in (first, last):
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
    "spectral norm": spectral_norm,
    "batch norm": lambda: layer(nn.BatchNorm(16), normal(8, 16, 9, 9)),
    "instance norm": lambda: layer(nn.InstanceNorm2d(16), normal(8, 16, 9, 9)),
    "instance norm of a large mean": lambda: layer(
        nn.InstanceNorm2d(2), 100 + 0.01 * normal(4, 2, 32, 32), 1e-2
    ),
    "reflection padding": lambda: layer(nn.ReflectionPad2d(3), normal(2, 3, 9, 9)),
    "upsampling": lambda: layer(nn.Upsample(2), normal(2, 3, 9, 9)),
    "average pooling": lambda: function(
        lambda x: nn.avg_pool2d(x, 3, 2, 1, count_include_pad=False), normal(2, 3, 9, 9)
    ),
    "slices": slices,
    "leaky ReLU": lambda: layer(nn.LeakyReLU(0.2), normal(9, 99)),
    "ReLU": lambda: layer(nn.ReLU(), normal(9, 99)),
    "tanh": lambda: layer(nn.Tanh(), np.float32([[-80, -1, 0, 1, 80]]), 1e-3),
    "ELU": lambda: layer(nn.ELU(), np.float32([[-80, -1, 0, 1, 100]])),
    "softplus": lambda: function(nn.softplus, np.float32([[-80, -1, 0, 1, 80]])),
    "second derivatives": second_derivatives,
    "Adam": lambda: optimizer(lambda p: nn.Adam(p, lr=1e-3)),
    "RMSProp": lambda: optimizer(lambda p: nn.RMSprop(p, lr=1e-3)),
    "Adagrad": lambda: optimizer(lambda p: jittor_fast.Adagrad(p, lr=1e-3)),
    "moving average": average,
    "memory": memory,
}


# ---- scripts ----


def continues_equally(name, folder):
    """A second epoch has the losses of the CPU, from one checkpoint, at a low rate."""
    data = make_data(name, folder / "data")
    flags = ["--data_dir", data, *SHARED, *ROWS[name].flags, *ROWS[name].alone, "--lr", 1e-5]
    run(name, *flags, "--n_epochs", 1, "--device", "cpu", "--out_dir", folder / "start")
    last = []
    for device in ("cpu", "cuda"):
        resumed = ["--resume", folder / "start", "--n_epochs", 2, "--device", device]
        run(name, *resumed, "--out_dir", folder / device)
        losses = np.loadtxt(folder / device / "losses.csv", delimiter=",", skiprows=1)
        last.append(losses[-1, 2:])
    cpu, gpu = last
    return within(np.max(np.abs(cpu - gpu) / (np.abs(cpu) + 1e-2)), 2e-2)


def speed(name, folder):
    """A default step beside the same in PyTorch, timed by tools/benchmark.py."""
    command = [
        *(sys.executable, ROOT / "tools/benchmark.py", "--defaults"),
        *("--rounds", "1", "--out", folder / "speed"),
        *("--peer", "plain", "--peer", "tuned", name),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (row,) = json.loads((folder / "speed").read_text())["rows"]
    measured = "{ms:.1f} ms, {peer} PyTorch {peer_ms:.1f} ms, ratio {ratio:.2f}".format(**row)
    return row["ratio"] > 0, measured


def without_a_visible_gpu(folder):
    """A script then uses the CPU; with --device cuda it ends with an error."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    codes = []
    for flags in ([], ["--device", "cuda"]):
        command = [sys.executable, ROOT / "vae.py", "--n_epochs", "1", "--out_dir", folder, *flags]
        done = subprocess.run(command, env=hidden, capture_output=True, cwd=ROOT)
        codes.append(done.returncode)
    return codes == [0, 2], f"exit codes {codes}"


def script_checks():
    """{name: check} of all scripts."""
    checks = {}
    for name in ROWS:
        checks[f"{name} on both devices"] = lambda n=name: continues_equally(n, new_folder())
        checks[f"{name}'s step"] = lambda n=name: speed(n, new_folder())
    checks["no visible GPU"] = lambda: without_a_visible_gpu(new_folder())
    return checks


def new_folder():
    return Path(tempfile.mkdtemp())


# ---- the command line ----


def passes(name, check):
    """Prints one line, and returns whether the check has passed."""
    start = time.time()
    try:
        passed, measured = check()
    except Exception as error:  # a check that breaks has failed; the others still run
        passed = False
        measured = f"{type(error).__name__}: {str(error)[:300]}"
    word = "PASS" if passed else "FAIL"
    print(f"{word} {name}: {measured} ({time.time() - start:.0f} s)", flush=True)
    return passed


def main(argv):
    global is_dry
    is_dry = "--dry" in argv
    if argv == ["list"]:
        print(*OPERATORS, *script_checks(), sep="\n")
        return
    if argv == ["scripts"]:
        checks = script_checks()
    elif argv in (["operators"], ["operators", "--dry"]):
        checks = OPERATORS
    else:
        sys.exit(__doc__)
    results = [passes(name, check) for name, check in checks.items()]
    print(f"{results.count(False)} of {len(results)} checks failed")
    sys.exit(not all(results))


if __name__ == "__main__":
    main(sys.argv[1:])
