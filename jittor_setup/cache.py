"""Jittor's cache folder, in which it keeps its compiled core, kernels and libraries."""

import contextlib
import errno
import glob
import hashlib
import importlib.util
import json
import os
import platform
import tempfile
from pathlib import Path

from .errors import SetupError

# What a file system without locks answers.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
LOCK_NAME = "jittor.lock"  # Jittor's own
TRIAL_BYTES = 1 << 18  # a full quota lets an empty file be made


def cache_folder():
    """Creates Jittor's cache folder, `<JITTOR_HOME>/.cache/jittor`; returns its path.

    JITTOR_HOME is an environment variable. Without it, Jittor takes the value that it
    was given last, and the home folder if there has been none.

    Raises:
        SetupError: The folder cannot be created, written to or used.
    """
    if os.environ.get("JITTOR_HOME") == "":
        del os.environ["JITTOR_HOME"]  # Jittor would take the empty text for a path
    user_home = home_folder()
    settings = user_home / ".cache" / "jittor" / "config.json"
    home = os.environ.get("JITTOR_HOME") or remembered_home(settings) or user_home
    cache = Path(os.path.abspath(home)) / ".cache" / "jittor"
    # Jittor also writes its settings, wherever the cache is.
    for folder in (settings.parent, cache):
        check_writable(folder)
    check_programs(cache)
    check_inner_folders(cache)
    return cache


def home_folder():
    """The user's home folder, which Jittor needs also with a JITTOR_HOME.

    A container may run under a user id without a name and without HOME. The
    JITTOR_HOME then becomes the home folder.
    """
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]  # otherwise it would be the folder /
    try:
        return Path.home()
    except RuntimeError:
        pass
    if "JITTOR_HOME" not in os.environ:
        raise SetupError(
            f"the user with the id {os.getuid()} has no home folder, where Jittor keeps what it "
            "compiles: set HOME to a folder that can be written"
        )
    os.environ["HOME"] = os.environ["JITTOR_HOME"]
    return Path.home()


def remembered_home(settings):
    """The JITTOR_HOME of an earlier run, from Jittor's settings; None without one.

    Damaged settings are renamed: Jittor's import would fail with them.
    """
    try:
        text = settings.read_text()
    except OSError:  # none, or `check_writable` says why
        return None
    except ValueError:
        text = ""
    try:
        found = json.loads(text)
        home = found.get("JITTOR_HOME")
        if home is None or isinstance(home, str):
            return home
    except (ValueError, AttributeError, RecursionError):
        pass
    with contextlib.suppress(OSError):
        os.replace(settings, settings.with_suffix(".damaged"))
    return None


# ---- what a folder must allow ----


def check_writable(folder):
    """Creates the folder; raises a SetupError if no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
    except OSError as error:
        raise SetupError(
            f"Jittor cannot write to its cache folder {folder} ({error.strerror}): "
            "make it writable, or set HOME and JITTOR_HOME to a folder that is"
        ) from error


def check_programs(cache):
    """Raises a SetupError on a file system whose files cannot be executed.

    There Jittor can compile its kernels, but not load them.
    """
    if os.statvfs(cache).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise SetupError(
            f"Jittor's cache folder {cache} lies on a file system that is mounted with noexec, "
            "so that no kernel can be loaded from it: set JITTOR_HOME to a folder elsewhere"
        )


def check_inner_folders(cache):
    """Raises a SetupError if a folder in the cache, or its lock, is another user's.

    One `sudo python gan.py` with the user's HOME is enough for that.
    """
    for folder in inner_folders(cache):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise SetupError(of_another_user(folder, cache))
    for folder in own_folders(cache):
        lock = folder.parent / LOCK_NAME
        if lock.exists() and not os.access(lock, os.R_OK | os.W_OK):
            raise SetupError(of_another_user(lock, cache))


def of_another_user(path, cache):
    """The line about something in the cache that this user cannot write."""
    return (
        f"{path} in Jittor's cache cannot be written by this user (it belongs to user "
        f"{path.lstat().st_uid}): remove {cache} with that user's rights, for example "
        f"with 'sudo rm -r {cache}'"
    )


def foreign_file(cache):
    """The line about a file in the cache that is another user's; None if none is.

    A `sudo python gan.py` leaves such files in the user's own folders too. All files
    are looked at, which takes too long for anything but explaining an error.
    """
    for folder, _, names in os.walk(cache):
        for name in sorted(names):
            path = Path(folder, name)
            try:
                is_own = path.is_symlink() or path.stat().st_uid == os.getuid()
            except FileNotFoundError:  # another process has removed it meanwhile
                continue
            if not is_own and not os.access(path, os.R_OK | os.W_OK):
                return of_another_user(path, cache)
    return None


def inner_folders(cache):
    """The folders of Jittor's core and kernels: jt*/g++*/py*/system/CPU/key/*/*."""
    levels = [cache]
    for _ in range(8):
        below = []
        for folder in levels:
            below += subfolders(folder)
        yield from below
        levels = below


def subfolders(folder):
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # its own access has been checked before
        return []
    return [Path(entry.path) for entry in found if entry.name != "mkl"]


def allow_no_locks(cache):
    """Lets Jittor work on a file system without locks; returns whether it has them."""
    import fcntl  # not at the top of the file, since Windows has none

    with tempfile.TemporaryFile(dir=cache) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            os.environ.setdefault("disable_lock", "1")
            return False
    return True


def core_is_compiled(cache):
    """Whether the cache holds the core of this Jittor, compiled for this Python."""
    for folder in own_folders(cache):
        if glob.glob(f"{glob.escape(str(folder))}/**/jittor_core*", recursive=True):
            return True
    return False


def own_folders(cache):
    """The folders in which this Jittor keeps what it has compiled for this Python."""
    installed = importlib.util.find_spec("jittor_utils")
    if installed is None:
        return []
    # Jittor names a folder by this part of a hash of its own path.
    key = hashlib.md5(installed.origin.encode()).hexdigest()[:4]
    python = f"py{platform.python_version()}"
    return sorted(cache.glob(f"jt*/*/{python}/*/*/{key}/*"))


def is_busy(cache):
    """Whether another process holds Jittor's lock, for which an import would wait."""
    import fcntl

    for folder in own_folders(cache):
        try:
            with open(folder.parent / LOCK_NAME, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is no such file yet, or no locks
            continue
    return False


@contextlib.contextmanager
def locked(path):
    """Lets one process at a time run what is inside; the others wait for it.

    The file at `path` is created and stays.
    """
    import fcntl  # not at the top of the file, since Windows has none

    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
