"""Prepares a machine and a process for Jittor. README.md explains each step.

Jittor reads its settings from environment variables while it is imported, and compiles
itself at its first import. So the order is

    import jittor_setup

    jittor_setup.prepare()          # checks, links, environment variables
    jittor_setup.import_jittor()    # from now on, `import jittor` gives the same module

`import common` does both. An environment variable that the user has set is kept.
"""

import contextlib
import os
import sys
import time

from . import device, gpu
from .cache import allow_no_locks, cache_folder, core_is_compiled, foreign_file, is_busy
from .damage import remove_damaged
from .device import choose_device, device_problem
from .errors import SetupError, fail, say
from .importing import compile_in_parallel, import_jittor, is_verbose
from .newer import add_flags
from .onednn import link_onednn
from .requirements import check_requirements, compiler_name, python_config

FEWEST_FILES = 40  # with 32, g++ cannot make the precompiled header
ENOUGH_FILES = 1024
PATIENCE = 10  # seconds of waiting for another process, before a line says so

__all__ = [
    "choose_device",
    "compile_in_parallel",
    "device_problem",
    "import_jittor",
    "prepare",
]


def prepare():
    """Sets the environment variables that Jittor reads, and links oneDNN.

    Ends the program with one line and exit code 2 if Jittor cannot run on this machine.
    """
    if "jittor" in sys.modules:
        raise ImportError(
            "'import common' has to come before 'import jittor': it prepares Jittor's environment"
        )
    try:
        check_requirements()
        allow_files()
        cache = cache_folder()
        has_locks = allow_no_locks(cache)
        removed = remove_damaged(cache)
        link_onednn(cache)
        set_variables()
    except SetupError as error:
        fail(error)
    except OSError as error:
        fail(foreign_file(cache_folder()) or f"Jittor's cache folder cannot be used: {error}")
    if not has_locks:
        say(f"{cache} lies on a file system without locks: start one run at a time")
    if removed:
        more = f" and {len(removed) - 1} more" if len(removed) > 1 else ""
        say(f"Removed from Jittor's cache, since damaged: {removed[0]}{more}.")
    # This comes last, because its trial has to compile the same Jittor as the run.
    device.verdict = gpu.decide(sys.argv, cache)
    if not core_is_compiled(cache):
        say("Compiling Jittor, once on this machine: about three minutes on two cores.")
    elif stays_busy(cache):
        say("Waiting for another process that compiles with Jittor.")


def stays_busy(cache):
    """Waits for Jittor's lock, as the import would; returns whether that takes long."""
    end = time.monotonic() + PATIENCE
    while is_busy(cache):
        if time.monotonic() > end:
            return True
        time.sleep(0.1)
    return False


def allow_files():
    """Lets the process open as many files as Jittor and its compilers need.

    Raises:
        SetupError: The system allows too few.
    """
    try:
        import resource  # Windows has none
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return
    allowed = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft < FEWEST_FILES:
        raise SetupError(
            f"a process may open only {soft} files here, and Jittor's compilers need "
            f"{FEWEST_FILES}: raise the limit, for example with 'ulimit -n 1024'"
        )


def set_variables():
    """Sets the environment variables that do not depend on the device."""
    # With any other value, Jittor imports torch wherever it is installed.
    os.environ.setdefault("FIX_TORCH_ERROR", "0")
    if not is_verbose():
        os.environ.setdefault("log_silent", "1")
    config = python_config()
    if config is not None:
        os.environ.setdefault("python_config_path", config)
    add_flags(compiler_name())
