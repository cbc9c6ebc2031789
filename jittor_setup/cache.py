"""Jittor's cache folder, in which it keeps its compiled core, kernels and libraries."""

import contextlib
import glob
import hashlib
import importlib.util
import json
import os
import platform
import tempfile
from pathlib import Path

from .errors import SetupError


def cache_folder():
    """Creates Jittor's cache folder, `<JITTOR_HOME>/.cache/jittor`; returns its path.

    JITTOR_HOME is an environment variable. Without it, Jittor takes the value that it
    was given last, and the home folder if there has been none.

    Raises:
        SetupError: The folder cannot be created or written to.
    """
    settings = Path.home() / ".cache" / "jittor" / "config.json"
    if os.environ.get("JITTOR_HOME") == "":
        del os.environ["JITTOR_HOME"]  # Jittor would take the empty text for a path
    home = os.environ.get("JITTOR_HOME") or remembered_home(settings) or Path.home()
    cache = Path(os.path.abspath(home)) / ".cache" / "jittor"
    # Jittor also writes its settings, wherever the cache is.
    for folder in (cache, settings.parent):
        check_writable(folder)
    return cache


def remembered_home(settings):
    """The JITTOR_HOME of an earlier run, from Jittor's settings; None without one."""
    try:
        return json.loads(settings.read_text()).get("JITTOR_HOME")
    except (OSError, ValueError, AttributeError):  # missing or damaged
        return None


def check_writable(folder):
    """Creates the folder; raises a SetupError if no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SetupError(
            f"Jittor cannot write to its cache folder {folder} ({error.strerror}): "
            "make it writable, or set HOME and JITTOR_HOME to a folder that is"
        ) from error


def core_is_compiled(cache):
    """Whether the cache holds the core of this Jittor, compiled for this Python."""
    installed = importlib.util.find_spec("jittor_utils")
    if installed is None:
        return False
    # Jittor names a folder by this part of a hash of its own path.
    key = hashlib.md5(installed.origin.encode()).hexdigest()[:4]
    python = f"py{platform.python_version()}"
    pattern = cache / "jt*" / "*" / python / "*" / "*" / key / "**" / "jittor_core*"
    return bool(glob.glob(str(pattern), recursive=True))


@contextlib.contextmanager
def locked(path):
    """Lets one process at a time run what is inside; the others wait for it.

    The file at `path` is created and stays.
    """
    import fcntl  # not at the top of the file, since Windows has none

    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
