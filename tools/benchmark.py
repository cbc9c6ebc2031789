"""Times the scripts' training steps beside those of the same networks in PyTorch; a command, not a test.

    python tests/benchmark.py --peer steps.py                       all scripts, at the peer's sizes
    python tests/benchmark.py --peer steps.py dcgan vae --rounds 5
    python tests/benchmark.py --defaults                            at the scripts' own defaults, without a peer
    python tests/benchmark.py --growth                              dcgan over sizes, batches and numbers of images

A script runs its own `main` on its built-in data in a process of its own; a step is everything between two batches:
noise, both updates, moving average, fetching the next batch. The peer, a file that takes `MODEL --steps N --json` and
prints {"ms_per_step": ...}, times its step in the same way, in turn: ours, theirs, ours, theirs, ... The table gives
the median over all rounds, and the median of the rounds' ratios. Nothing else should run meanwhile.

    of_peak         floating-point operations of convolutions and matrix products in a step, per second, as a share of
                    what a product of two large matrices reaches on this machine; second derivatives are not counted.
                    A convolution counts as the direct one, even where common.winograd takes half its products
    fetching        the share of a step that waits for its batch
    first_step_s    from the script's import to the end of its first step, with all kernels compiled before
    cold_s          the same with no kernel compiled, as in the first run of a new machine (once, not in every round)
    memory_mb       the process's peak
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER_SIZES = {  # the widths, sizes, batches and losses of the peer
    "cgan_mnist": ["--dropout", "0.4"],
    "dcgan": ["--img_size", "64", "--channels", "3", "--width", "64", "--batch_size", "64", "--instance_noise", "0",
              "--n_codes", "0"],
    "wgan_gp": ["--width", "64", "--n_codes", "0"],
    "vae": ["--hidden", "0"],
    "pix2pix": ["--img_size", "256", "--width", "64", "--batch_size", "1"],
    "cyclegan": ["--img_size", "128", "--channels", "3", "--width", "64", "--batch_size", "1"],
    "stargan": ["--img_size", "128", "--width", "64", "--batch_size", "8", "--lambda_id", "0"],
}
N_WARM = 3  # steps that are not timed: they compile, and fill caches


class Enough(Exception):
    """Ends a run after its last timed step."""


class Timed:
    """Batches that note how long fetching takes, and when each was fetched."""

    def __init__(self, batches, n_steps, started):
        self.batches, self.n_steps, self.started = batches, n_steps, started
        self.steps, self.fetches, self.first = [], [], None

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        last, iterator = None, iter(self.batches)
        while True:
            now = time.perf_counter()
            if last is not None:
                self.first = self.first or now - self.started
                self.steps.append(now - last)
                if len(self.steps) == N_WARM + self.n_steps:
                    raise Enough
            last = now
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.fetches.append(time.perf_counter() - now)
            yield batch


class Operations:
    """Counts the floating-point operations of convolutions and products while it is the layers' `execute`.

    A forward pass has 2 for each weight that meets an input; its two gradients, for weights and inputs, as many each.
    """

    def __init__(self):
        from jittor import nn

        from common import fast

        self.count, self.inside = 0, False
        for layer in (nn.Conv, fast.Conv, nn.Linear):
            layer.execute = self.counted(layer.execute, per_output=True)
        for layer in (nn.ConvTranspose, fast.ConvTranspose):
            layer.execute = self.counted(layer.execute, per_output=False)

    def counted(self, execute, per_output):
        import jittor as jt

        def counting(layer, x):
            if self.inside:  # a layer that calls its base class's is one layer
                return execute(layer, x)
            self.inside = True
            y = execute(layer, x)
            self.inside = False
            met = y if per_output else x  # each of its values meets the weights of all channels on the other side
            each = layer.weight.numel() / layer.weight.shape[0]
            self.count += 2 * met.numel() * each * (1 if jt.flags.no_grad else 3)
            return y

        return counting


def peak_flops(n=2048, n_rounds=5):
    """Operations per second of the fastest of some products of two (n, n) float32 matrices."""
    import jittor as jt

    a, b = jt.random((n, n)), jt.random((n, n))
    times = []
    for _ in range(n_rounds + 1):
        jt.sync_all(True)
        start = time.perf_counter()
        jt.matmul(a, b).sync()
        jt.sync_all(True)
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times[1:])


def measure(name, flags, n_steps, cold=False):
    """One script's times, in this process.

    Args:
        cold: compile all kernels anew, in a folder that is removed afterwards.
    """
    started = time.perf_counter()
    sys.path.insert(0, str(ROOT))
    import common  # isort: skip
    import jittor as jt

    kernels = tempfile.TemporaryDirectory()
    if cold:
        (Path(kernels.name) / "jit").mkdir()
        jt.flags.cache_path = kernels.name
    operations = Operations()
    timed, real_steps = [], common.Run.steps

    def steps(run, batches):
        timed.append(Timed(batches, n_steps, started) if not timed else timed[0])
        timed[0].batches = batches
        return real_steps(run, timed[0])

    common.Run.steps = steps
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Enough):
        importlib.import_module(name).main([*flags, "--n_epochs", "1000", "--out_dir", out])
    result = timed[0]
    whole = sum(result.steps[N_WARM:])
    if cold:
        kernels.cleanup()
        return {"first_step_s": result.first}
    return {
        "ms_per_step": 1000 * statistics.median(result.steps[N_WARM:]),
        "of_peak": operations.count / len(result.steps) / (whole / n_steps) / peak_flops(),
        "fetching": sum(result.fetches[N_WARM : N_WARM + n_steps]) / whole,
        "first_step_s": result.first,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_a_process(command, env=None):
    """The JSON of the last line that a command prints."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(name, flags, n_steps, *more):
    return in_a_process([__file__, "--child", name, "--steps", n_steps, "--flags", json.dumps(flags), *more])


def batch_size(name, flags):
    if "--batch_size" in flags:
        return int(flags[flags.index("--batch_size") + 1])
    sys.path.insert(0, str(ROOT))
    return importlib.import_module(name).parse_args(flags).batch_size


def compare(names, args):
    """A row for each script: times of both sides, and what the rounds say of their ratio."""
    for name in names:
        flags = [] if args.defaults else PEER_SIZES[name]
        mine, theirs = [], []
        for _ in range(args.rounds):
            mine.append(ours(name, flags, args.steps))
            if args.peer:
                theirs.append(in_a_process([args.peer, name, "--steps", args.steps, "--json"]))
        ms = statistics.median(m["ms_per_step"] for m in mine)
        row = {
            "script": name, "flags": " ".join(flags), "ms": ms, "images_per_s": batch_size(name, flags) / ms * 1000,
            "of_peak": statistics.median(m["of_peak"] for m in mine),
            "fetching": statistics.median(m["fetching"] for m in mine),
            "first_step_s": statistics.median(m["first_step_s"] for m in mine),
            "memory_mb": max(m["memory_mb"] for m in mine),
        }  # fmt: skip
        if args.cold:
            row["cold_s"] = ours(name, flags, 1, "--cold")["first_step_s"]
        if theirs:
            row["peer_ms"] = statistics.median(t["ms_per_step"] for t in theirs)
            row["ratio"] = statistics.median(t["ms_per_step"] / m["ms_per_step"] for m, t in zip(mine, theirs))
        yield row


def growth(args):
    """dcgan's step over sizes and batches, and its fetching over numbers of images."""
    for size in (32, 64, 128):
        for batch in (1, 8, 64):
            flags = ["--img_size", str(size), "--batch_size", str(batch)]
            yield {"script": "dcgan", "flags": " ".join(flags), **ours("dcgan", flags, args.steps)}
    for n in (1_000, 10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            write_digits(Path(folder), n)
            flags = ["--data_dir", folder, "--batch_size", "64"]
            yield {"script": "dcgan", "flags": f"{n:,} images", **ours("dcgan", flags, args.steps)}


def write_digits(folder, n):
    """n random 28x28 images as IDX files."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name, magic, shape in (("images-idx3", 2051, (n, 28, 28)), ("labels-idx1", 2049, (n,))):
        header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
        pixels = rng.integers(10, size=shape, dtype=np.uint8)
        (folder / f"train-{name}-ubyte").write_bytes(header + pixels.tobytes())


def cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_table(rows):
    """A Markdown table, row by row as they come, and all rows as a list."""
    done = []
    for row in rows:
        if not done:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(map(cell, row.values())) + " |", flush=True)
        done.append(row)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(PEER_SIZES)}; all by default")
    parser.add_argument("--peer", help="a file with the same networks in PyTorch")
    parser.add_argument("--defaults", action="store_true", help="the scripts' default sizes")
    parser.add_argument("--growth", action="store_true", help="how the times grow")
    parser.add_argument("--cold", action="store_true", help="also time the first step without compiled kernels")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is timed, in turn")
    parser.add_argument("--steps", type=int, default=20, help="timed steps in a round")
    parser.add_argument("--out", help="also write the rows to this file, as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--flags", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = [name for name in args.scripts if name not in PEER_SIZES]
    if unknown or (args.defaults and args.peer):
        parser.error(f"no script {unknown[0]}" if unknown else "--defaults are not the peer's sizes: choose one")
    if args.child:
        print(json.dumps(measure(args.child, json.loads(args.flags), args.steps, args.cold)))
        return
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d')}")
    rows = print_table(growth(args) if args.growth else compare(args.scripts or list(PEER_SIZES), args))
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
