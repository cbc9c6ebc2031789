"""Times the scripts' training steps beside the same steps in PyTorch.

    python tools/benchmark.py --defaults                 # all scripts at their defaults
    python tools/benchmark.py --peer plain --peer tuned  # at larger sizes, beside twins
    python tools/benchmark.py --peer "MODE=fused steps.py" dcgan vae --rounds 5
    python tools/benchmark.py --growth                   # over sizes, batches, threads
    python tools/benchmark.py --algorithms               # of convolutions, on this CPU

A script runs its own `main` on its built-in data. A step is everything between two
batches: noise, all updates, averaging, fetching the next batch. The peers `plain`,
`tuned` and `compiled` are the script's twin (tools/twins): the same networks and losses
on the same batches. Of the twin only the part in PyTorch is timed, losses and updates.
`tuned` uses channels_last and fused Adam, and `compiled` torch.compile as well. Another
peer is a file that takes `MODEL --steps N --json` and prints {"ms_per_step": ...};
words NAME=VALUE before the file are its environment.

Every timing is its own process, and they take turns: ours, one peer, the next peer,
ours, ... The table has medians over all rounds. The peer to beat is the fastest one:
`ratio` is the median over the rounds of its time divided by ours, and `lowest` and
`highest` are the extremes. Nothing else should run meanwhile. The columns are

    of_peak       floating-point operations of convolutions and matrix products in a
                  step, per second, as a share of what a product of two large matrices
                  reaches on this machine. Second derivatives are not counted. A
                  convolution counts as the direct one, even where Winograd's algorithm
                  multiplies less.
    fetching      the share of a step that waits for its batch
    first_step_s  seconds from the script's import to the end of its first step, with
                  all kernels compiled before
    cold_s        the same with no kernel compiled, as in the first run on a new machine
                  (once, not in every round)
    memory_mb     the largest memory of the process
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SCRIPTS = sorted(file.stem for file in ROOT.glob("*.py"))
# Flags of the sizes at which scripts are timed beside a peer; others have their
# defaults.
PEER_SIZES = {
    "cgan_mnist": "--dropout 0.4",
    "dcgan": "--img_size 64 --channels 3 --width 64 --batch_size 64 --instance_noise 0",
    "wgan_gp": "--width 64",
    "vae": "",
    "pix2pix": "--img_size 256 --width 64 --batch_size 1 --loss lsgan",
    "context_encoder": "--img_size 64 --channels 3 --width 64 --overlap 2",
    "cyclegan": "--img_size 128 --channels 3 --width 64 --batch_size 1",
    "stargan": "--img_size 128 --width 64 --batch_size 8",
}
# Flags that leave out the epochs of other networks, which come first.
WITHOUT_FIRST_PHASES = {
    "srgan": "--mse_epochs 0",
    "text2img": "--text_epochs 0",
    "stackgan": "--text_epochs 0 --stage1_epochs 0",
    "pix2pixhd": "--global_epochs 0 --fixed_epochs 0",
    "sgan": "--encoder_epochs 0",
}
# Arguments of `Twin` for each peer.
TWINS = {
    "plain": {},
    "tuned": {"tuned": True},
    "compiled": {"tuned": True, "compiled": True},
}
N_WARM = 3  # steps that are not timed: they compile, and fill caches
MANY_EPOCHS = ["--n_epochs", "1000"]  # the timing ends the run


# ---- one script, in this process ----


class Enough(Exception):
    """Ends a run after its last timed step."""


class StepTimer:
    """Times the steps of a run by when its batches are fetched.

    Args:
        n_steps: how many to time, after N_WARM others.
        started: the `time.perf_counter()` at which the script's import began.

    Attributes:
        steps: the seconds of each step.
        fetches: the seconds that each batch was waited for.
        first: the seconds until the end of the first step.
    """

    def __init__(self, n_steps, started):
        self.n_steps = n_steps
        self.started = started
        self.steps = []
        self.fetches = []
        self.first = None

    def timed(self, batches):
        """Yields the batches of an iterator; a step ends when the next is asked for.

        Raises:
            Enough: all steps are timed.
        """
        last = None
        while True:
            now = finished_at()
            if last is not None:
                self.note(now, now - last)
            last = now
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.fetches.append(time.perf_counter() - now)
            yield batch

    def note(self, now, seconds):
        if self.first is None:
            self.first = now - self.started
        self.steps.append(seconds)
        if len(self.steps) == N_WARM + self.n_steps:
            raise Enough


def finished_at():
    """The time, once a GPU has done what was asked of it."""
    import jittor as jt

    if jt.flags.use_cuda:
        jt.sync_all(True)
    return time.perf_counter()


class Operations:
    """Counts the floating-point operations of convolutions and matrix products.

    It replaces the layers' `execute`, and the functions that take the weights as an
    argument. A forward pass has two for each weight that meets
    an input. Its two gradients, of the weights and of the inputs, have as many each.

    Attributes:
        count: operations until now.
    """

    def __init__(self):
        from jittor import nn

        import jittor_fast

        self.count = 0
        self.is_inside = False
        for layer in (nn.Conv, jittor_fast.nn.Conv, nn.Linear):
            layer.execute = self.counted(layer.execute, per_output=True)
        for layer in (nn.ConvTranspose, jittor_fast.nn.ConvTranspose):
            layer.execute = self.counted(layer.execute, per_output=False)
        for name, per_output in (("conv2d", True), ("linear", True), ("conv_transpose", False)):
            function = getattr(jittor_fast.nn, name)
            setattr(jittor_fast.nn, name, self.counted_function(function, per_output))

    def counted(self, execute, per_output):
        """An `execute` that counts; `per_output` is as of `run`."""

        def counting(layer, x):
            return self.run(lambda: execute(layer, x), x, layer.weight, per_output)

        return counting

    def counted_function(self, function, per_output):
        """A function of inputs and weights that counts; `per_output` is as of `run`."""

        def counting(x, weight, *args, **kwargs):
            return self.run(lambda: function(x, weight, *args, **kwargs), x, weight, per_output)

        return counting

    def run(self, compute, x, weight, per_output):
        """The result of `compute()`, which applies weights to inputs x.

        Args:
            per_output: whether each output, rather than each input, meets the weights
                of all channels on the other side.
        """
        import jittor as jt

        if self.is_inside:  # a layer that calls its base class's is one layer
            return compute()
        self.is_inside = True
        y = compute()
        self.is_inside = False
        values = y.numel() if per_output else x.numel()
        weights_each = weight.numel() / weight.shape[0]
        passes = 1 if jt.flags.no_grad else 3
        self.count += 2 * values * weights_each * passes
        return y


def peak_flops(n=2048, n_rounds=5):
    """Operations per second of the fastest product of two (n, n) float32 matrices."""
    import jittor as jt

    a = jt.random((n, n))
    b = jt.random((n, n))
    seconds = []
    for _ in range(n_rounds + 1):
        jt.sync_all(True)
        start = time.perf_counter()
        jt.matmul(a, b).sync()
        jt.sync_all(True)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[1:])  # the first one compiles


def measure(name, flags, n_steps, cold=False):
    """The times of one script, in this process.

    Args:
        name: of the script.
        flags: of the script, a list.
        cold: compile all kernels from scratch, in a folder that is removed afterwards.
    """
    started = time.perf_counter()
    from common.data import Batches

    import jittor as jt

    from tools.runs import load_script

    kernels = tempfile.TemporaryDirectory()
    if cold:
        (Path(kernels.name) / "jit").mkdir()
        jt.flags.cache_path = kernels.name
    operations = Operations()
    timer = StepTimer(n_steps, started)
    real_iter = Batches.__iter__
    Batches.__iter__ = lambda batches: timer.timed(real_iter(batches))
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Enough):
        load_script(name).main([*flags, *MANY_EPOCHS, "--out_dir", out])
    kernels.cleanup()
    if cold:
        return {"first_step_s": timer.first}

    timed_steps = timer.steps[N_WARM:]
    timed_fetches = timer.fetches[N_WARM : N_WARM + n_steps]
    seconds = sum(timed_steps)
    operations_per_step = operations.count / len(timer.steps)
    return {
        "ms_per_step": 1000 * statistics.median(timed_steps),
        "of_peak": operations_per_step / (seconds / n_steps) / peak_flops(),
        "fetching": sum(timed_fetches) / seconds,
        "first_step_s": timer.first,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_twin(name, flags, n_steps, **options):
    """The milliseconds of the part in PyTorch of a twin's step, in this process.

    Args:
        options: of `Twin`.
    """
    import torch

    from tools.runs import load_script
    from tools.twins import Twin

    script = load_script(name)
    twin = Twin(name, write_back=False, **options)
    real_step = twin.source.train_step
    seconds = []

    def wait():
        if twin.device == "cuda":
            torch.cuda.synchronize()

    def timed_step(*args, **kwargs):
        wait()
        start = time.perf_counter()
        losses = real_step(*args, **kwargs)
        wait()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == N_WARM + n_steps:
            raise Enough
        return losses

    twin.source.train_step = timed_step
    script.train_step = twin.train_step
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Enough):
        try:
            script.main([*flags, *MANY_EPOCHS, "--out_dir", out])
        except RuntimeError as error:
            if "double backward" not in str(error):
                raise
            return {"ms_per_step": float("inf")}  # torch.compile cannot do a gradient penalty
    return {"ms_per_step": 1000 * statistics.median(seconds[N_WARM:])}


# ---- the machine ----


def processor():
    """The processor's name; on Linux as in /proc/cpuinfo."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def n_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def machine():
    """The processor, Python and the date, in one line."""
    python = platform.python_version()
    return f"{processor()}, {n_cores()} cores, Python {python}, {time.strftime('%Y-%m-%d')}"


# ---- processes that take turns ----


def in_a_process(command, env=None):
    """The JSON of the last line that a command of Python prints.

    Args:
        env: {name: value} of further environment variables.
    """
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(name, flags, n_steps, *more, env=None):
    """What `measure`, or `measure_twin` with --twin, returns in a new process."""
    command = [__file__, "--child", name, "--steps", n_steps, "--flags", json.dumps(flags)]
    return in_a_process([*command, *more], env)


def peer_ms(peer, name, flags, n_steps):
    """The milliseconds of a peer's step: one of TWINS, or `[NAME=VALUE ...] FILE`."""
    if peer in TWINS:
        return ours(name, flags, n_steps, "--twin", peer)["ms_per_step"]
    *settings, file = shlex.split(peer)
    env = dict(setting.split("=", 1) for setting in settings)
    return in_a_process([file, name, "--steps", n_steps, "--json"], env)["ms_per_step"]


def batch_size(name, flags):
    from tools.runs import load_script

    return load_script(name).parse_args(flags).batch_size


def compare(names, args):
    """Yields a row for each script: its times, and those of the fastest peer."""
    for name in names:
        flags = WITHOUT_FIRST_PHASES.get(name, "").split()
        if not args.defaults:
            flags += PEER_SIZES.get(name, "").split()
        mine = []
        theirs = {peer: [] for peer in args.peer}
        for _ in range(args.rounds):
            mine.append(ours(name, flags, args.steps))
            for peer, times in theirs.items():
                times.append(peer_ms(peer, name, flags, args.steps))
        row = own_columns(name, flags, mine)
        if args.cold:
            row["cold_s"] = ours(name, flags, 1, "--cold")["first_step_s"]
        row.update(columns_of_the_fastest([m["ms_per_step"] for m in mine], theirs))
        yield row


def own_columns(name, flags, rounds):
    """The columns about a script.

    Args:
        rounds: what `measure` returned, round by round.
    """
    medians = {key: statistics.median(m[key] for m in rounds) for key in rounds[0]}
    ms = medians["ms_per_step"]
    return {
        "script": name,
        "flags": " ".join(flags),
        "ms": ms,
        "images_per_s": batch_size(name, flags) / ms * 1000,
        "of_peak": medians["of_peak"],
        "fetching": medians["fetching"],
        "first_step_s": medians["first_step_s"],
        "memory_mb": max(m["memory_mb"] for m in rounds),
    }


def columns_of_the_fastest(mine, theirs):
    """The columns about the peer with the lowest median; none without peers.

    Args:
        mine: milliseconds of our step, round by round.
        theirs: {peer: milliseconds, round by round}.
    """
    if not theirs:
        return {}
    fastest = min(theirs, key=lambda peer: statistics.median(theirs[peer]))
    ratios = [t / m for m, t in zip(mine, theirs[fastest])]
    return {
        "peer": fastest,
        "peer_ms": statistics.median(theirs[fastest]),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


# ---- how times grow ----


def growth(args):
    """Yields rows of times and memory while one thing varies.

    For cyclegan.py it is the size of the images; for dcgan.py the batch, the threads
    and the number of images.
    """

    def row(script, varies, value, *flags, **more):
        found = ours(script, list(flags), args.steps, **more)
        return {"script": script, "varies": varies, "value": value, **found}

    for size in (32, 64, 128, 256, 512):
        flags = ("--img_size", str(size), "--batch_size", "1", "--width", "16")
        yield row("cyclegan", "pixels of an image", size**2, *flags)
    for batch in (1, 4, 16, 64):
        yield row("dcgan", "images in a batch", batch, "--batch_size", str(batch))
    threads = 1
    while threads <= n_cores():
        yield row("dcgan", "threads", threads, env={"OMP_NUM_THREADS": str(threads)})
        threads *= 2
    for n in (1_000, 10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            link_images(Path(folder), n)
            flags = ("--data_dir", folder, "--batch_size", "64")
            yield row("dcgan", "images in the folder", n, *flags)


def link_images(folder, n):
    """Makes n image files, which are links to ten, a thousand in a folder."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(256, size=(48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    for i in range(10, n):
        if i % 1000 == 10:
            (folder / str(i // 1000)).mkdir()
        os.symlink(folder / f"{i % 10}.png", folder / str((i - 10) // 1000) / f"{i}.png")


def plot_growth(rows, path):
    """Draws the rows of `growth`: a column for each thing that varies.

    The dotted lines grow in proportion to it.
    """
    from matplotlib.figure import Figure

    measures = {
        "ms_per_step": "ms per step",
        "first_step_s": "first step, s",
        "memory_mb": "memory, MB",
    }
    columns = {}
    for row in rows:
        columns.setdefault((row["script"], row["varies"]), []).append(row)
    figure = Figure(figsize=(3 * len(columns), 6), layout="constrained")
    axes = figure.subplots(len(measures), len(columns), sharex="col", squeeze=False)
    for column, ((script, varies), group) in zip(axes.T, columns.items()):
        x = [row["value"] for row in group]
        for plot, (key, title) in zip(column, measures.items()):
            y = [row[key] for row in group]
            plot.loglog(x, y, marker="o")
            plot.loglog(x, [y[0] * value / x[0] for value in x], ":", color="grey")
            plot.set_ylabel(title)
            plot.set_ylim(0.5 * min(y), 2 * max(y))
        column[0].set_title(script)
        column[-1].set_xlabel(varies)
    figure.savefig(path, dpi=70)


# ---- convolutions ----


def algorithms():
    """Yields a row for each operation of a convolution that this machine has timed."""
    import common  # noqa: F401  # prepares Jittor

    from jittor_fast.algorithms import known

    operations = {
        "y": "forward",
        "x": "gradient of the input",
        "w": "gradient of the weights",
    }
    for key, algorithm in sorted(known().items()):
        result, *sizes = key.split()  # of x, of w, of an output's sides; stride, padding
        yield {
            "operation": operations[result],
            "input": " x ".join(sizes[:4]),
            "weights": " x ".join(sizes[4:8]),
            "stride": sizes[10],
            "padding": sizes[11],
            "algorithm": algorithm,
        }


# ---- the command ----


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scripts",
        nargs="*",
        metavar="SCRIPT",
        help=f"{', '.join(SCRIPTS)} (default: all, or those that a peer's file can time)",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        help="plain, tuned, compiled, or a file; may be given several times",
    )
    parser.add_argument(
        "--algorithms",
        action="store_true",
        help="list the algorithm that each convolution takes on this machine",
    )
    parser.add_argument("--defaults", action="store_true", help="use the scripts' default sizes")
    parser.add_argument("--growth", action="store_true", help="show how times and memory grow")
    parser.add_argument(
        "--cold", action="store_true", help="also time the first step without compiled kernels"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timings of each side, in turn")
    parser.add_argument("--steps", type=int, default=20, help="timed steps in a round")
    parser.add_argument(
        "--out",
        help="also write the rows to this file, as JSON, and with --growth a plot beside it",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--flags", help=argparse.SUPPRESS)
    parser.add_argument("--twin", choices=TWINS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    has_file = bool(set(args.peer) - set(TWINS))
    offered = list(PEER_SIZES) if has_file else SCRIPTS
    unknown = [name for name in args.scripts if name not in offered]
    if unknown:
        parser.error(f"no {unknown[0]} to time; there are {', '.join(offered)}")
    if args.defaults and has_file:
        parser.error("--defaults are not the sizes of a peer's file: choose one")
    args.scripts = args.scripts or offered
    return args


def run_child(args):
    """What one process of `ours` does: it times one script, and prints JSON."""
    flags = json.loads(args.flags)
    if args.twin:
        result = measure_twin(args.child, flags, args.steps, **TWINS[args.twin])
    else:
        result = measure(args.child, flags, args.steps, args.cold)
    print(json.dumps(result))


def as_cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_table(rows):
    """Prints a Markdown table, row by row as they come, and returns all rows."""
    done = []
    for row in rows:
        if not done:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(map(as_cell, row.values())) + " |", flush=True)
        done.append(row)
    return done


def main(argv=None):
    args = parse_args(argv)
    if args.child:
        run_child(args)
        return
    print(machine() + "\n", flush=True)
    if args.algorithms:
        rows = print_table(algorithms())
    elif args.growth:
        rows = print_table(growth(args))
    else:
        rows = print_table(compare(args.scripts, args))
    if args.out:
        result = {"machine": machine(), "rows": rows}
        Path(args.out).write_text(json.dumps(result, indent=2) + "\n")
        if args.growth:
            plot_growth(rows, Path(args.out).with_suffix(".png"))


if __name__ == "__main__":
    main()
