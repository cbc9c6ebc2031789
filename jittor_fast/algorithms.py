"""Which algorithm a convolution takes: the fastest, timed once on a machine.

The result is kept beside Jittor's kernels. Jittor's cache folder, whose path names
processor and compiler, has a file `convolutions_<threads>_threads_<version>.json`. It
has a line for each larger operation that was ever run with these kernels: its shapes,
and its algorithm. Later runs take the same one, so that they give equal bits.

Small operations are not timed, nor are those under mpirun that no run has timed before:
they take the algorithm that is mostly the fastest.
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

# An operation with fewer multiplications is not timed; these take about a quarter of a
# millisecond on two cores.
WORTH_TIMING = 2**24

N_ROUNDS = 5
# An algorithm that takes this many times as long as the fastest in two rounds is not
# timed again.
MUCH_SLOWER = 1.5
# Bytes that are written before each timing: in training, other layers' data fill the
# caches.
CACHE_BYTES = 2**24
# Another algorithm must be this much faster than the likely one, since timings vary.
MARGIN = 0.9

# The files on which the times depend.
FILES = (
    "columns.py",
    "convolution.py",
    "winograd.py",
    "kernels/columns.h",
    "kernels/shared.h",
    "kernels/winograd.h",
)


def fastest(shapes, result, functions):
    """The name of the algorithm to run this operation with.

    Args:
        shapes: a `jittor_fast.convolution.Shapes`.
        result: "y", "x" or "w".
        functions: {algorithm: function}.
    """
    if shapes.multiplications() < WORTH_TIMING or not shapes.is_square:
        return shapes.likely()
    sizes = (*shapes.x, *shapes.w, *shapes.y[2:], shapes.stride, shapes.padding)
    key = " ".join(map(str, (result, *sizes)))
    if known().get(key) not in shapes.possible():
        if jt.in_mpi:
            known()[key] = shapes.likely()
        else:
            name = timed(shapes, result, functions)
            known()[key] = keep(key, name, shapes.possible())
    return known()[key]


# ---- what is kept ----


@functools.lru_cache(None)
def version():
    """A name for the present kernels: others are timed again."""
    folder = Path(__file__).parent
    contents = b"".join((folder / name).read_bytes() for name in FILES)
    return hashlib.sha256(contents).hexdigest()[:8]


@functools.lru_cache(None)
def known():
    """{operation: algorithm} of all runs until now."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(path().read_text()))
    return {}


def path():
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or cores
    return Path(jt.flags.cache_path) / f"convolutions_{threads}_threads_{version()}.json"


def keep(key, name, possible):
    """Adds a line to the file, and returns the algorithm that is kept there.

    That is another run's choice if it was written first.
    """
    with contextlib.suppress(OSError), open(path().with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known.cache_clear()
        kept = known()
        if kept.get(key) in possible:
            name = kept[key]
        kept[key] = name
        temporary = path().with_suffix(".new")
        temporary.write_text(json.dumps(kept, indent=0))
        temporary.replace(path())
    return name


# ---- timing ----


def finish(*variables):
    """Computes these variables, and nothing else.

    Without weak_sync=False the script's unfinished graph would run, too.
    """
    jt.sync(list(variables), device_sync=True, weak_sync=False)


def timed(shapes, result, functions):
    """The algorithm with the shortest run, of those that these shapes can take."""
    operands = [jt.ones(getattr(shapes, name)) for name in "xyw" if name != result]
    finish(*operands)
    seconds = {}
    cache = np.zeros(CACHE_BYTES, np.uint8)
    with jt.no_grad():
        for name in shapes.possible():  # compiles it, and fills the caches
            finish(functions[name](shapes, result, *operands))
        for i in range(N_ROUNDS):
            for name in shapes.possible():
                # After one round only: that can be slow by another program's fault.
                if i >= 2 and seconds[name] > MUCH_SLOWER * min(seconds.values()):
                    continue
                cache += 1
                start = time.perf_counter()
                finish(functions[name](shapes, result, *operands))
                duration = time.perf_counter() - start
                seconds[name] = min(duration, seconds.get(name, float("inf")))
    seconds[shapes.likely()] *= MARGIN
    return min(seconds, key=seconds.get)
