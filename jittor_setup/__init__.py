"""Prepares a machine and a process for Jittor. README.md explains each step.

Jittor reads its settings from environment variables while it is imported, and compiles
itself at its first import. So the order is

    import jittor_setup

    jittor_setup.prepare()          # checks, links, environment variables
    jittor_setup.import_jittor()    # from now on, `import jittor` gives the same module

`import common` does both. An environment variable that the user has set is kept.
"""

import os
import sys

from . import device, gpu
from .cache import cache_folder, core_is_compiled
from .device import choose_device, device_problem
from .errors import SetupError, fail
from .importing import compile_in_parallel, import_jittor, is_verbose
from .onednn import link_onednn
from .requirements import check_requirements, python_config

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
        cache = cache_folder()
        link_onednn(cache)
        set_variables()
    except SetupError as error:
        fail(error)
    # This comes last, because its trial has to compile the same Jittor as the run.
    device.verdict = gpu.decide(sys.argv, cache)
    if not core_is_compiled(cache):
        print(
            "Compiling Jittor, once on this machine: about three minutes on two cores.",
            file=sys.stderr,
            flush=True,
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
