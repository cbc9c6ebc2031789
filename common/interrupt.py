"""Ctrl-C, where no training is saved: one line and exit code 130, not a traceback."""

import signal
import sys
import threading


def end_in_one_line():
    """Makes a Ctrl-C that nobody has handled print one line.

    Python ends with exit code 130 after it.
    """
    others = sys.excepthook

    def print_error(kind, error, trace):
        if not issubclass(kind, KeyboardInterrupt):
            others(kind, error, trace)
        elif sys.stderr is not None:
            print("Stopped.", file=sys.stderr, flush=True)

    sys.excepthook = print_error


def give_back_to_python():
    """Undoes Jittor's handler, which ends the process at once, with exit code 1."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)  # Python's own, or that of a notebook
    if handler is not None:
        signal.signal(signal.SIGINT, handler)
