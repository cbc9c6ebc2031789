"""The two ways in which a run ends with one line instead of a traceback, and the lines that do not end it."""

import sys

import jittor as jt


class UserError(ValueError):
    """Something that the user can put right: a flag, a file, a folder. Ends a script with exit code 2."""


class NotFinite(ArithmeticError):
    """A loss or a weight became infinite or NaN. Ends a script with exit code 3."""


def say(message):
    """One line on the screen, from one process only."""
    if jt.rank == 0:
        print(message, flush=True)


def warn(message):
    """As `say`, on standard error."""
    if jt.rank == 0:
        print(f"warning: {message}", file=sys.stderr, flush=True)
