"""Which way a convolution takes: the fastest, timed once on a machine and kept beside Jittor's kernels.

The file `convolutions_<threads>_threads_<kernels>.json` in Jittor's cache folder, whose path names processor and
compiler, has a line for each larger operation that was ever run with these kernels: its shapes, and the way it takes.
Later runs take the same way, so that they give equal bits. Small operations are not timed, nor those under mpirun that
no run has timed before: they take the way that is mostly the fastest.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import time
from pathlib import Path

import jittor as jt
import numpy as np

WORTH_TIMING = 2**24  # multiplications, about a quarter of a millisecond on two cores
N_ROUNDS = 5
MUCH = 1.5  # a way that in two rounds takes so many times as long as the fastest is not timed again
OTHERS = (
    2**24
)  # bytes that are written before each timing: in training, other layers' data fill the caches
MARGIN = 0.9  # another way must be so much faster than the likely one: timings vary


def fastest(shapes, result, functions):
    """The name of the way to run this operation.

    Args:
        shapes: a `jittor_fast.convolution.Shapes`.
        result: "y", "x" or "w".
        functions: {way: function}.
    """
    if shapes.multiplications() < WORTH_TIMING or not shapes.is_square:
        return shapes.likely()
    key = " ".join(
        map(str, (result, *shapes.x, *shapes.w, *shapes.y[2:], shapes.stride, shapes.padding))
    )
    if known().get(key) not in shapes.possible():
        known()[key] = (
            shapes.likely()
            if jt.in_mpi
            else keep(key, timed(shapes, result, functions), shapes.possible())
        )
    return known()[key]


@functools.lru_cache(None)
def kernels():
    """A name for the present kernels: other ones are timed anew."""
    files = (
        Path(__file__).with_name(f"{name}.py") for name in ("columns", "convolution", "winograd")
    )
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


@functools.lru_cache(None)
def known():
    """{operation: way} of all runs until now."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(path().read_text()))
    return {}


def path():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or cores
    return Path(jt.flags.cache_path) / f"convolutions_{threads}_threads_{kernels()}.json"


def keep(key, way, possible):
    """Adds a line to the file, unless another run was faster; returns the way that is kept there."""
    with contextlib.suppress(OSError), open(path().with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known.cache_clear()
        kept = known()
        way = kept[key] = kept[key] if kept.get(key) in possible else way
        temporary = path().with_suffix(".new")
        temporary.write_text(json.dumps(kept, indent=0))
        temporary.replace(path())
    return way


def timed(shapes, result, functions):
    """The fastest of the ways that these shapes can take, by the shortest of some runs."""

    def finish(
        *variables,
    ):  # and nothing else: without weak_sync=False the script's unfinished graph would run, too
        jt.sync(list(variables), device_sync=True, weak_sync=False)

    operands = [jt.ones(getattr(shapes, name)) for name in "xyw" if name != result]
    finish(*operands)
    seconds, others = {}, np.zeros(OTHERS, np.uint8)
    with jt.no_grad():
        for way in shapes.possible():  # compiles, and fills the caches
            finish(functions[way](shapes, result, *operands))
        for i in range(N_ROUNDS):
            for way in shapes.possible():
                if i >= 2 and seconds[way] > MUCH * min(
                    seconds.values()
                ):  # one round can be another program's fault
                    continue
                others += 1
                start = time.perf_counter()
                finish(functions[way](shapes, result, *operands))
                seconds[way] = min(time.perf_counter() - start, seconds.get(way, float("inf")))
    seconds[shapes.likely()] *= MARGIN
    return min(seconds, key=seconds.get)
