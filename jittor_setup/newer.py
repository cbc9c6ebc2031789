"""What Jittor 1.3.11 needs on a Python or a g++ that is newer than itself.

Each mend is applied from the version on that needs it, and nowhere else. All of them
act while Jittor is imported or compiled; none of its files is changed.
"""

import builtins
import contextlib
import functools
import inspect
import multiprocessing
import os
import shutil
import subprocess
import sys

# From Python 3.13 on, locals() in a function is a copy, which does not show what exec()
# has imported there since (PEP 667). Jittor imports the libraries that it has compiled
# with exec(f"import {name}"), and then reads locals()[name].
LOCALS_ARE_COPIES = (3, 13)
READERS = ("jittor.compiler", "jittor_utils")  # the modules that do so

# From Python 3.14 on, a pool's processes come from a server process, unless the program
# asks for `fork` (`forkserver`). Jittor's compile for ever then: the server imports the
# running script again, and with it Jittor, which waits for its own lock.
POOLS_DO_NOT_FORK = (3, 14)
WORKERS = "jittor.dataset.dataset"  # this module needs `fork` too

# From g++ 15 on, the standard headers include <cstdint> no longer, whose names Jittor's
# headers use; and a member that does not exist is an error also in a template of which
# nothing is made. Older compilers accept both options.
STRICT_GXX = 15
FLAGS = ("-includecstdint", "-Wno-template-body")  # no blanks: Jittor splits at them


def mends(compiler):
    """What is done for this Python and this compiler, as texts; [] on older systems."""
    done = []
    if sys.version_info[:2] >= LOCALS_ARE_COPIES:
        done.append("locals() shows imports")
    if sys.version_info[:2] >= POOLS_DO_NOT_FORK:
        done.append("pools fork")
    done += flags_for(compiler)
    return done


# ---- g++ ----


@functools.cache
def major_version(compiler):
    """The first number of a compiler's version.

    Raises:
        OSError, ValueError, subprocess.SubprocessError: The compiler does not say.
    """
    command = [compiler, "-dumpversion"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split(".")[0])


def flags_for(compiler):
    """The options without which this compiler refuses Jittor's files, as a list."""
    path = shutil.which(compiler) or compiler
    if "clang" in os.path.basename(path):
        return []
    try:
        is_strict = major_version(path) >= STRICT_GXX
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return list(FLAGS) if is_strict else []


def add_flags(compiler):
    """Adds the options of `flags_for` to cc_flags, which Jittor reads at its import.

    The processes that this one starts inherit them, and find them there.
    """
    words = os.environ.get("cc_flags", "").split()
    missing = [flag for flag in flags_for(compiler) if flag not in words]
    if missing:
        os.environ["cc_flags"] = " ".join([*words, *missing])


# ---- Python ----


@contextlib.contextmanager
def mended_import():
    """Jittor has to be imported within this context."""
    with contextlib.ExitStack() as mends:
        if sys.version_info[:2] >= POOLS_DO_NOT_FORK:
            mends.enter_context(pools_by_fork())
        if sys.version_info[:2] >= LOCALS_ARE_COPIES:
            mends.enter_context(visible_imports())
        yield


@contextlib.contextmanager
def pools_by_fork():
    """Jittor's pool and the workers of its data sets fork; the program's own do not."""
    import jittor_utils

    fork = multiprocessing.get_context("fork")
    jittor_utils.Pool = fork.Pool
    yield
    set_global(WORKERS, "mp", fork)  # its name for `multiprocessing`


@contextlib.contextmanager
def visible_imports():
    """Makes `locals` show Jittor's functions what they have imported with exec()."""
    original = builtins.locals
    builtins.locals = locals_with_imports
    try:
        yield
    finally:
        builtins.locals = original
    # Jittor also compiles libraries later, if a program asks for it.
    for name in READERS:
        set_global(name, "locals", locals_with_imports)


def set_global(module, name, value):
    """Sets a global variable of a module, if that has been imported."""
    if module in sys.modules:
        vars(sys.modules[module])[name] = value


def locals_with_imports():
    """As `locals`; in Jittor's functions, missing names are those of modules."""
    frame = inspect.currentframe().f_back
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return frame.f_locals  # of a module or a class: no copy
    if frame.f_globals.get("__name__") in READERS:
        return NamesAndModules(frame.f_locals)
    return dict(frame.f_locals)


class NamesAndModules(dict):
    """Names and their values; a name that is missing is that of an imported module."""

    def __missing__(self, name):
        return sys.modules[name]
