"""Errors that end a run with one line, not a traceback; lines on the screen.

A line that cannot be printed never ends a run: a terminal may be closed, the reader of
a pipe may have ended, a disk may be full, or a file's name may be no text.
"""

import contextlib
import os
import sys

import jittor as jt

LONGEST_LINE = 4000  # letters; a stranger's file could hold a text of a megabyte


class UserError(ValueError):
    """A user's mistake: a flag, a file, a folder. Ends a script with exit code 2."""


class NotFinite(ArithmeticError):
    """A loss, a weight or a sample is infinite or NaN. Ends a script with code 3."""


def say(message):
    """Prints one line, from one process only."""
    if jt.rank == 0:
        print_line("stdout", message)


def warn(message):
    """Prints one line on standard error, from one process only."""
    if jt.rank == 0:
        print_line("stderr", f"warning: {message}")


_warned = set()


def warn_once(message):
    """Like `warn`, but the same line appears only once in a process."""
    if message not in _warned:
        _warned.add(message)
        warn(message)


def in_words(error):
    """The text of an error; of the system's own errors, the file and the reason."""
    name = getattr(error, "filename", None)
    if isinstance(error, OSError) and isinstance(name, (str, bytes)) and error.strerror:
        return f"{os.fsdecode(name)}: {error.strerror}"
    if isinstance(error, MemoryError):
        return str(error) or "there is not enough memory"
    return str(error)


def plain(text):
    r"""A text with its control characters as escapes, so that it is one line.

    Names of files, and texts from a stranger's file, could otherwise clear the terminal
    or write a second line.
    """
    return "".join(repr(c)[1:-1] if is_control(c) else c for c in str(text))


def shortened(text):
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} ..."


def is_control(character):
    code = ord(character)
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029)


# ---- the streams ----


def escape_on_streams():
    """Makes both streams write what their encoding lacks as an escape.

    Python does so for standard error only; an error on standard output ended the run.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # that of a notebook has no such method
            stream.reconfigure(errors="backslashreplace")


def print_line(stream_name, message):
    """Prints one line, or gives up the stream if that fails.

    Args:
        stream_name: "stdout" or "stderr".
    """
    stream = getattr(sys, stream_name)
    if stream is None:  # closed before Python started
        return
    try:
        print(shortened(plain(message)), file=stream, flush=True)
    except (OSError, ValueError) as error:
        give_up(stream_name)
        if stream_name == "stdout":
            reason = getattr(error, "strerror", None) or error
            warn(f"standard output cannot be written ({reason}); the script continues without it")


def give_up(stream_name):
    """Sends everything that is still printed on a stream to nowhere.

    Otherwise Python would try again to write what is left when it ends, and would end
    with exit code 120.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, getattr(sys, stream_name).fileno())
    except (OSError, ValueError, AttributeError):  # a stream without a file
        setattr(sys, stream_name, open(os.devnull, "w"))  # noqa: SIM115
    finally:
        with contextlib.suppress(OSError):
            os.close(nowhere)


def is_terminal(stream):
    """Whether a standard stream is a terminal; it may be None, or closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
