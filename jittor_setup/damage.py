"""Finds damaged libraries in Jittor's cache, which its next import compiles again.

A loss of power, or a full disk, can leave a library cut off or empty. Jittor then ends
with a traceback at each import, or hangs in a way that only SIGKILL ends.
"""

import os
import struct
import sys
import time

from .cache import own_folders

FOLDERS = ("", "jit", "custom_ops")  # in a folder of `own_folders`
RECENT = 60  # seconds: another process may be writing a library that is newer
HEADER = 64  # bytes of an ELF file's header


def remove_damaged(cache):
    """Removes the damaged libraries of this Jittor; returns their paths.

    Raises:
        OSError: One cannot be removed.
    """
    removed = []
    if not sys.platform.startswith("linux"):
        return removed  # its libraries are no ELF files
    for path in libraries(cache):
        if not is_whole(path) and time.time() - os.stat(path).st_mtime > RECENT:
            os.unlink(path)
            removed.append(path)
    return removed


def libraries(cache):
    """The paths of the core, of kernels and of operators in the cache."""
    for folder in own_folders(cache):
        for name in FOLDERS:
            try:
                with os.scandir(folder / name) as entries:
                    yield from [entry.path for entry in entries if entry.name.endswith(".so")]
            except OSError:  # there is no such folder yet
                continue


def is_whole(path):
    """Whether a file is a library that reaches as far as its header says.

    The header of an ELF file holds the place, entry size and number of its sections,
    whose table is the last thing in the file.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            header = file.read(HEADER)
            size = os.fstat(file.fileno()).st_size
    except OSError:  # it has just been replaced
        return True
    if len(header) < HEADER or header[:5] != b"\x7fELF\x02":  # 2: of 64 bits
        return False
    (table,) = struct.unpack_from("<Q", header, 40)
    entry_size, n_entries = struct.unpack_from("<HH", header, 58)
    return table + entry_size * n_entries <= size
