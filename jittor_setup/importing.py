"""Imports Jittor, and undoes what its import changes in the rest of the process."""

import atexit
import os
import signal
import ssl
import sys
import threading

from .cache import cache_folder, foreign_file
from .compiler import compile_core_faster, compile_kernels_faster
from .errors import fail, say
from .newer import mended_import

RESTARTED = "JITTOR_SETUP_RESTARTED"  # set in a process that was started again


def is_verbose():
    """Whether the user wants to see Jittor's own messages at its import."""
    return os.environ.get("JITTOR_VERBOSE", "0") not in ("", "0")


def import_jittor():
    """Imports Jittor and returns it. `prepare` has to be called first."""
    import numpy
    import PIL.Image

    # Jittor's libraries make the processor flush subnormal numbers to zero. numpy warns
    # about it, unless it computed these limits before.
    numpy.finfo(numpy.float32)
    numpy.finfo(numpy.float64)
    https_context = ssl._create_default_https_context
    image_open = PIL.Image.open
    first_import()

    import jittor
    import jittor_utils

    ssl._create_default_https_context = https_context  # Jittor stops checking certificates
    PIL.Image.open = image_open  # Jittor replaces it by a function that takes the time
    if threading.current_thread() is threading.main_thread():
        # Jittor's handler ends the process without a message if a signal kills a child.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not is_verbose():
        # `prepare` silenced the import; warnings during the run should be seen.
        jittor.flags.log_silent = 0
        jittor_utils.LOG.log_silent = 0
    close_compiler_pool(jittor_utils)
    compile_in_parallel(False)
    compile_kernels_faster()
    return jittor


def first_import():
    """Imports Jittor, with one line instead of a traceback if that fails.

    If Jittor has rebuilt a library that it had already loaded, it asks to be run again
    and ends the process with exit code 0. That happens after a call of plain Jittor,
    after an update, and if the home folder was moved.
    """
    try:
        compile_core_faster()
        with mended_import():
            import jittor  # noqa: F401
    except SystemExit as ended:
        if ended.code not in (0, None):
            raise
        import jittor_utils

        close_compiler_pool(jittor_utils)  # otherwise its processes would stay for ever
        start_again()
    except Exception as error:
        if is_verbose():
            raise
        problem = foreign_file(cache_folder())
        if problem is not None:
            fail(problem)
        text = " ".join(str(error).split())[:300]
        fail(
            f"Jittor cannot be imported ({type(error).__name__}: {text}): if its cache is damaged, "
            "remove the folder .cache/jittor in your home folder (or in JITTOR_HOME); "
            "with JITTOR_VERBOSE=1 the traceback is shown"
        )
    os.environ.pop(RESTARTED, None)


def start_again():
    """Starts the running script again, once; otherwise ends it with one line.

    A notebook, or Python with -c, has no script that could be started again.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    command = getattr(sys, "orig_argv", None)  # since Python 3.10
    if main is None or command is None or RESTARTED in os.environ:
        problem = foreign_file(cache_folder())  # one that can never be rebuilt
        if problem is not None:
            fail(problem)
        fail("Jittor has rebuilt a part of itself: run the same command again")
    say("Jittor has rebuilt a part of itself; starting again.")
    os.environ[RESTARTED] = "1"
    if sys.stdout is not None:
        sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command[1:]])


def compile_in_parallel(on):
    """Makes Jittor compile kernels on all cores (True) or one after another (False).

    The first training step compiles dozens of kernels, and Jittor shows its progress.
    Later there is little to gain, and a run that ends before Jittor's threads have
    begun to wait for work hangs: it waits for them forever. A value that the user has
    set in the environment variable use_parallel_op_compiler is kept.
    """
    import jittor

    if "use_parallel_op_compiler" in os.environ:
        return
    n_threads = min(os.cpu_count() or 1, 16)
    jittor.flags.use_parallel_op_compiler = n_threads if on else 0


def close_compiler_pool(jittor_utils):
    """Ends the processes with which Jittor compiled its core, or checked it.

    They would live as long as the run. A Ctrl-C would reach them too, and Jittor would
    then end the run at once, before it has saved a checkpoint.
    """
    if jittor_utils.pool_size:
        jittor_utils.p.close()
        jittor_utils.p.join()
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_size = 0  # Jittor starts new ones if it needs them
