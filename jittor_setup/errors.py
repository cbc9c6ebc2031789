"""What can be wrong with a machine, each as one line of text."""

import contextlib
import sys


class SetupError(Exception):
    """Jittor cannot run on this machine. The text says why, and what to do about it."""


class GpuUnusable(Exception):
    """Jittor cannot use the GPU, but can use the CPU. The text says why."""


def fail(message):
    """Ends the program with one line on standard error and exit code 2."""
    say(f"error: {message}")
    raise SystemExit(2)


def say(message):
    """Prints one line on standard error, if that is possible."""
    text = str(message).encode("ascii", "backslashreplace").decode()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
