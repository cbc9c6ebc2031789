"""Errors that end a run with one line, not a traceback; lines on the screen."""

import sys

import jittor as jt


class UserError(ValueError):
    """A user's mistake: a flag, a file, a folder. Ends a script with exit code 2."""


class NotFinite(ArithmeticError):
    """A loss or a weight is infinite or NaN. Ends a script with exit code 3."""


def say(message):
    """Prints one line, from one process only."""
    if jt.rank == 0:
        print(message, flush=True)


def warn(message):
    """Prints one line on standard error, from one process only."""
    if jt.rank == 0:
        print(f"warning: {message}", file=sys.stderr, flush=True)
