"""A run's folder: one training at a time writes it, and no run is replaced unasked."""

from common import checkpoint
from common.errors import UserError, say

import contextlib
import errno
import os
import re
from pathlib import Path

LOCK_NAME = ".lock"
# What a file system without locks answers.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# What an earlier run has left, and a new run would mix with its own.
FILES_OF_A_RUN = (
    checkpoint.FILE_NAME,
    "checkpoint_step_*.npz",
    "losses.csv",
    "losses.png",
    "validation.csv",
    "samples/step_*.png",
)
TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{8}\.tmp(\.pkl)?")


def make_folder(out_dir):
    """Makes a run's folder.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        file, path = checkpoint.open_temporary(out_dir)
        file.close()
        path.unlink()
    except OSError as error:
        message = f"--out_dir {out_dir.absolute()} cannot be written: {error.strerror}"
        raise UserError(message) from error


def lock_folder(out_dir):
    """Claims a folder for one training; returns the lock, to be closed at its end.

    The lock is the kernel's. It goes with the process, also if that is killed.

    Returns:
        A file, or None on a file system without locks.

    Raises:
        UserError: another training writes into the folder.
    """
    try:
        import fcntl  # Windows has none
    except ImportError:
        return None
    path = out_dir / LOCK_NAME
    # A link in its place, which a stranger's folder may hold, is not followed.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = open(os.open(path, flags, 0o666), "r+b")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if error.errno in NO_LOCKS:
            say(f"{out_dir} lies on a file system without locks: let one training at a time use it")
            return None
        raise UserError(
            f"another training writes into --out_dir {out_dir}: wait for its end, "
            "or give another --out_dir"
        ) from error
    return lock


def check_folder(out_dir, resume, overwrite):
    """Refuses a folder that holds a run, unless it is resumed or to be replaced.

    What an interrupted first epoch has left, without a checkpoint, is no run.

    Args:
        resume: the checkpoint that is resumed, or None.

    Raises:
        UserError: it holds a run, or links to another folder.
    """
    samples = out_dir / "samples"
    if samples.is_symlink():
        raise UserError(f"{samples} is a link, through which a run does not write: remove it")
    if overwrite or continues(out_dir, resume):
        return
    found = [*out_dir.glob(checkpoint.FILE_NAME), *out_dir.glob("checkpoint_step_*.npz")]
    if found:
        raise UserError(
            f"--out_dir {out_dir} holds a run already: --resume {out_dir} continues it, "
            "--overwrite replaces it, and another --out_dir keeps it"
        )


def continues(out_dir, resume):
    """Whether the checkpoint that is resumed lies in the folder itself."""
    return resume is not None and Path(resume).resolve().parent == out_dir.resolve()


def remove_temporaries(out_dir):
    """Removes what killed processes have left half written.

    Only the holder of the folder's lock may call it: no other training writes then.
    """
    for path in out_dir.glob(".*.tmp*"):
        if TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def remove_run(out_dir):
    """Removes the files of an earlier run that a new one would not replace at once."""
    for pattern in FILES_OF_A_RUN:
        for path in out_dir.glob(pattern):
            try:
                path.unlink()
            except OSError as error:
                raise UserError(f"cannot remove {path}: {error.strerror}") from error
