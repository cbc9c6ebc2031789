"""Ctrl-C, where no training is saved: one line and exit code 130, not a traceback."""

import os
import sys

# Jupyter sets this variable for its kernels, in which Jittor leaves Ctrl-C to Python.
JUPYTER = "JPY_PARENT_PID"


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


def import_jittor():
    """Imports Jittor; a Ctrl-C meanwhile and afterwards is Python's.

    Jittor's own handlers end the process at once, with exit code 1, and its import
    catches all errors in places. It is left alone while Jittor compiles itself, in
    several processes.
    """
    import jittor_setup  # takes time: a Ctrl-C should already be one line
    from jittor_setup.cache import cache_folder, own_folders

    folders = own_folders(cache_folder())
    is_compiled = any(any(folder.glob("jittor_core*.so")) for folder in folders)
    leaves_it_to_python = is_compiled and JUPYTER not in os.environ
    pressed = []
    handler = None
    if leaves_it_to_python:
        os.environ[JUPYTER] = str(os.getppid())
        handler = listen(pressed)
    try:
        jittor_setup.import_jittor()
    except BaseException:  # whatever became of the KeyboardInterrupt
        if not pressed:
            raise
    finally:
        if leaves_it_to_python:
            del os.environ[JUPYTER]
        end_in_one_line()  # again: Jittor has installed a hook of its own
        give_back_to_python(handler)
    if pressed:
        raise KeyboardInterrupt


def listen(pressed):
    """Notes each Ctrl-C in a list, and holds back what Jittor hears of its children.

    A Ctrl-C ends the children too, such as a compiler that is asked for its version,
    and Jittor takes that for a lack of memory.

    Returns:
        Python's handler, or None if there is another one or this is not the main
        thread; nothing is changed then.
    """
    import signal  # not at the top of the file: it would take time before the first hook
    import threading

    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or handler is not signal.default_int_handler:
        return None

    def stop(number, frame):
        pressed.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    return handler


def give_back_to_python(handler=None):
    """Undoes Jittor's handlers of Ctrl-C, and of a process that has ended.

    Args:
        handler: what `listen` has returned.
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        return
    was_listening = handler is not None
    if not was_listening:
        handler = signal.getsignal(signal.SIGINT)  # Python's own, or that of a notebook
    if handler is not None:
        signal.signal(signal.SIGINT, handler)
    if hasattr(signal, "SIGCHLD"):  # Windows has none
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if was_listening and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
