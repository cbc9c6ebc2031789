"""Times the scripts' training steps beside the same steps in PyTorch.

    python tools/benchmark.py --defaults                            all scripts at their own defaults, without a peer
    python tools/benchmark.py --peer plain --peer tuned             all scripts beside their twins, at larger sizes
    python tools/benchmark.py --peer "MODE=fused steps.py" dcgan vae --rounds 5
    python tools/benchmark.py --growth                              dcgan over sizes, batches, threads and images
    python tools/benchmark.py --ways                                which way convolutions take on this machine

A script runs its own `main` on its built-in data; a step is everything between two batches: noise, all updates,
moving average, fetching the next batch. `plain`, `tuned` and `compiled` are the script's twin (`tools/twins`): the same
networks and losses on the same batches, of which the part in PyTorch alone is timed, losses and updates; tuned is with
channels_last and fused Adam, compiled with torch.compile as well. Another peer is a file that takes `MODEL --steps N
--json` and prints {"ms_per_step": ...}; words NAME=VALUE before the file are its environment. Every timing is a process
of its own, in turn: ours, one peer, the next peer, ours, ... The table gives medians over all rounds. The peer to beat
is the fastest: `ratio` is the median of its time through ours, round by round, and `lowest` and `highest` are the
extremes. Nothing else should run meanwhile.

    of_peak         floating-point operations of convolutions and matrix products in a step, per second, as a share of
                    what a product of two large matrices reaches on this machine; second derivatives are not counted.
                    A convolution counts as the direct one, even where jittor_fast.winograd takes fewer products
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
SCRIPTS = sorted(file.stem for file in ROOT.glob("*.py"))
PEER_SIZES = {  # beside a peer; other scripts have their own defaults
    "cgan_mnist": "--dropout 0.4",
    "dcgan": "--img_size 64 --channels 3 --width 64 --batch_size 64 --instance_noise 0",
    "wgan_gp": "--width 64",
    "vae": "",
    "pix2pix": "--img_size 256 --width 64 --batch_size 1 --loss lsgan",
    "cyclegan": "--img_size 128 --channels 3 --width 64 --batch_size 1",
    "stargan": "--img_size 128 --width 64 --batch_size 8",
}
# Without the epochs of other networks that come first.
FIRST = {"text2img": "--text_epochs 0", "stackgan": "--text_epochs 0 --stage1_epochs 0"}
TWINS = {"plain": {}, "tuned": {"tuned": True}, "compiled": {"tuned": True, "compiled": True}}
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
        import jittor as jt

        last, iterator = None, iter(self.batches)
        while True:
            if jt.flags.use_cuda:
                jt.sync_all(True)  # a step has ended when the GPU has
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


        self.count, self.inside = 0, False
        for layer in (nn.Conv, nn.Conv, nn.Linear):
            layer.execute = self.counted(layer.execute, per_output=True)
        for layer in (nn.ConvTranspose, nn.ConvTranspose):
            layer.execute = self.counted(layer.execute, per_output=False)

    def counted(self, execute, per_output):
        import jittor as jt

        def counting(layer, x):
            if self.inside:  # a layer that calls its base class's is one layer
                return execute(layer, x)
            self.inside = True
            y = execute(layer, x)
            self.inside = False
            met = (
                y if per_output else x
            )  # each of its values meets the weights of all channels on the other side
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
    import common

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


def measure_twin(name, flags, n_steps, **options):
    """Milliseconds of the part in PyTorch of a step of the script's twin, in this process."""
    sys.path.insert(0, str(ROOT))
    import torch

    from tools.twins import Twin

    script, twin, times = importlib.import_module(name), Twin(name, write_back=False, **options), []
    step = twin.source.train_step

    def wait():
        if twin.device == "cuda":
            torch.cuda.synchronize()

    def timed(*args, **kwargs):
        wait()
        start = time.perf_counter()
        losses = step(*args, **kwargs)
        wait()
        times.append(time.perf_counter() - start)
        if len(times) == N_WARM + n_steps:
            raise Enough
        return losses

    twin.source.train_step, script.train_step = timed, twin.train_step
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Enough):
        try:
            script.main([*flags, "--n_epochs", "1000", "--out_dir", out])
        except RuntimeError as error:
            if "double backward" not in str(error):
                raise
            return {"ms_per_step": float("inf")}  # torch.compile cannot do a gradient penalty
    return {"ms_per_step": 1000 * statistics.median(times[N_WARM:])}


def processor():
    """The processor's name; on Linux as /proc/cpuinfo has it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def n_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine():
    return f"{processor()}, {n_cores()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


def in_a_process(command, env=None):
    """The JSON of the last line that a command prints."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(name, flags, n_steps, *more, env=None):
    return in_a_process(
        [__file__, "--child", name, "--steps", n_steps, "--flags", json.dumps(flags), *more], env
    )


def peer_ms(peer, name, flags, n_steps):
    """Milliseconds of a step of a peer: one of TWINS, or `[NAME=VALUE ...] FILE`."""
    if peer in TWINS:
        return ours(name, flags, n_steps, "--twin", peer)["ms_per_step"]
    *settings, file = shlex.split(peer)
    env = dict(setting.split("=", 1) for setting in settings)
    return in_a_process([file, name, "--steps", n_steps, "--json"], env)["ms_per_step"]


def batch_size(name, flags):
    if "--batch_size" in flags:
        return int(flags[flags.index("--batch_size") + 1])
    sys.path.insert(0, str(ROOT))
    return importlib.import_module(name).parse_args(flags).batch_size


def compare(names, args):
    """A row for each script: its times, and what the rounds say of the fastest peer."""
    for name in names:
        flags = FIRST.get(name, "").split() + (
            [] if args.defaults else PEER_SIZES.get(name, "").split()
        )
        mine, theirs = [], {peer: [] for peer in args.peer}
        for _ in range(args.rounds):
            mine.append(ours(name, flags, args.steps))
            for peer, times in theirs.items():
                times.append(peer_ms(peer, name, flags, args.steps))
        medians = {key: statistics.median(m[key] for m in mine) for key in mine[0]}
        row = {"script": name, "flags": " ".join(flags), "ms": medians["ms_per_step"]}
        row["images_per_s"] = batch_size(name, flags) / row["ms"] * 1000
        row |= {key: medians[key] for key in ("of_peak", "fetching", "first_step_s")}
        row["memory_mb"] = max(m["memory_mb"] for m in mine)
        if args.cold:
            row["cold_s"] = ours(name, flags, 1, "--cold")["first_step_s"]
        yield row | beside_the_fastest([m["ms_per_step"] for m in mine], theirs)


def beside_the_fastest(mine, theirs):
    """What a row says of the peers.

    Args:
        mine: milliseconds of our step, round by round.
        theirs: {peer: milliseconds, round by round}.
    """
    if not theirs:
        return {}
    fastest = min(theirs, key=lambda peer: statistics.median(theirs[peer]))
    ratios = [t / m for m, t in zip(mine, theirs[fastest])]
    row = {
        "peer": fastest,
        "peer_ms": statistics.median(theirs[fastest]),
        "ratio": statistics.median(ratios),
    }
    return row | {"lowest": min(ratios), "highest": max(ratios)}


def growth(args):
    """Times and memory of cyclegan over sizes, and of dcgan over batches, threads and numbers of images."""

    def row(script, varies, value, *flags, **more):
        return {
            "script": script,
            "varies": varies,
            "value": value,
            **ours(script, list(flags), args.steps, **more),
        }

    for size in (32, 64, 128, 256, 512):
        flags = "--img_size", str(size), "--batch_size", "1", "--width", "16"
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
            yield row(
                "dcgan", "images in the folder", n, "--data_dir", folder, "--batch_size", "64"
            )


def plot_growth(rows, path):
    """Draws what --growth has measured: a column for each thing that varies; the dotted lines grow in proportion."""
    from matplotlib.figure import Figure

    measures = {
        "ms_per_step": "ms a step",
        "first_step_s": "first step, s",
        "memory_mb": "memory, MB",
    }
    columns = {}
    for row in rows:
        columns.setdefault((row["script"], row["varies"]), []).append(row)
    figure = Figure(figsize=(3 * len(columns), 6), layout="constrained")
    axes = figure.subplots(len(measures), len(columns), sharex="col", squeeze=False)
    for column, ((script, varies), group) in zip(axes.T, columns.items()):
        values = [row["value"] for row in group]
        for cell, (key, name) in zip(column, measures.items()):
            cell.loglog(values, [row[key] for row in group], marker="o")
            cell.loglog(
                values, [group[0][key] * value / values[0] for value in values], ":", color="grey"
            )
            cell.set_ylabel(name)
            cell.set_ylim(0.5 * min(row[key] for row in group), 2 * max(row[key] for row in group))
        column[0].set_title(script)
        column[-1].set_xlabel(varies)
    figure.savefig(path, dpi=70)


def link_images(folder, n):
    """n image files, which are links to ten, a thousand in a folder."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(256, size=(48, 48), dtype=np.uint8)).save(folder / f"{i}.png")
    for i in range(10, n):
        if i % 1000 == 10:
            (folder / str(i // 1000)).mkdir()
        os.symlink(folder / f"{i % 10}.png", folder / str((i - 10) // 1000) / f"{i}.png")


def ways():
    """A row for each operation that this machine has timed."""
    sys.path.insert(0, str(ROOT))

    from jittor_fast.ways import known

    names = {"y": "forward", "x": "gradient of the input", "w": "gradient of the weights"}
    for key, way in sorted(known().items()):
        result, *numbers = key.split()
        x, w, (_, _, stride, padding) = numbers[:4], numbers[4:8], numbers[8:]
        row = {"operation": names[result], "input": " x ".join(x), "weights": " x ".join(w)}
        yield row | {"stride": stride, "padding": padding, "way": way}


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


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}; all by default")
    add(
        "--peer",
        action="append",
        default=[],
        help="plain, tuned, compiled, or a file; may be given several times",
    )
    add("--ways", action="store_true", help="list the ways that convolutions take on this machine")
    add("--defaults", action="store_true", help="the scripts' default sizes")
    add("--growth", action="store_true", help="how the times grow")
    add("--cold", action="store_true", help="also time the first step without compiled kernels")
    add("--rounds", type=int, default=3, help="how often each side is timed, in turn")
    add("--steps", type=int, default=20, help="timed steps in a round")
    add(
        "--out",
        help="also write the rows to this file, as JSON, and with --growth a plot beside it",
    )
    add("--child", help=argparse.SUPPRESS)
    add("--flags", help=argparse.SUPPRESS)
    add("--twin", choices=TWINS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    offered = PEER_SIZES if set(args.peer) - set(TWINS) else SCRIPTS
    unknown = [name for name in args.scripts if name not in offered]
    if unknown:
        parser.error(f"no {unknown[0]} to time; there are {', '.join(offered)}")
    if args.defaults and set(args.peer) - set(TWINS):
        parser.error("--defaults are not the sizes of a peer's file: choose one")
    args.scripts = args.scripts or list(offered)
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.child:
        what = args.child, json.loads(args.flags), args.steps
        print(
            json.dumps(
                measure_twin(*what, **TWINS[args.twin]) if args.twin else measure(*what, args.cold)
            )
        )
        return
    print(machine() + "\n", flush=True)
    rows = print_table(
        ways() if args.ways else growth(args) if args.growth else compare(args.scripts, args)
    )
    if args.out:
        Path(args.out).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
        if args.growth:
            plot_growth(rows, Path(args.out).with_suffix(".png"))


if __name__ == "__main__":
    main()
