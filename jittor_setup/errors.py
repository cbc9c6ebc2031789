"""What can be wrong with a machine, each as one line of text."""

import sys


class SetupError(Exception):
    """Jittor cannot run on this machine. The text says why, and what to do about it."""


class GpuUnusable(Exception):
    """Jittor cannot use the GPU, but can use the CPU. The text says why."""


def fail(message):
    """Ends the program with one line on standard error and exit code 2."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(2)
