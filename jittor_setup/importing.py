"""Imports Jittor, and undoes what its import changes in the rest of the process."""

import atexit
import os
import signal
import ssl
import threading

from .compiler import compile_core_faster, compile_kernels_faster


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
    compile_core_faster()

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
