"""Files of a data set: found below a folder, read as text, found by their names."""

from common.errors import UserError, warn

import os
import re
import stat
import unicodedata
from pathlib import Path

# Folders that systems fill with copies, thumbnails and deleted files: macOS's archives,
# Synology's indexes, and waste bins. Names that begin with a dot are no data either
# (macOS's ._x.jpg, .ipynb_checkpoints, .Trash-1000).
NO_DATA = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information")
# Python's names of encodings that may be guessed, and the usual ones. GB18030 is GBK
# with further characters.
ENCODINGS = {"gb18030": "GBK", "cp1252": "Windows-1252"}
LARGEST_TEXT = 1 << 28  # bytes of a table or a text; captions of two million images


def is_data(name):
    """Whether the name of a file or folder is one that data may have."""
    return not name.startswith(".") and name not in NO_DATA


# ---- below a folder ----


def find_files(folder, suffixes, warns=True):
    """All files below a folder that have one of some suffixes, sorted by path.

    Links to folders are followed. A folder to which several links lead is read once, so
    links in a circle end. One warning names what cannot be read.

    Args:
        folder: a `Path`.
        suffixes: with their dots, in lower case.
        warns: whether to print this warning.

    Raises:
        UserError: the folder itself cannot be read.
    """
    found = []  # paths relative to the folder
    left_out = {}  # relative path: the reason
    # A link to a folder above this one would lead back into it.
    seen = {identity(parent) for parent in folder.resolve().parents}
    folders = [""]
    links = []  # to folders; read after all real ones, which are then not read twice
    while folders or links:
        inner = folders.pop() if folders else links.pop(0)
        path = os.path.join(folder, inner)
        try:
            key = identity(path)
            if key in seen:
                left_out[inner] = "a link to a folder that is read already"
                continue
            seen.add(key)
            with os.scandir(path) as entries:
                sort_entries(entries, inner, suffixes, (found, folders, links), left_out)
        except OSError as error:
            if not inner:
                raise UserError(f"{folder.absolute()} cannot be read: {error.strerror}") from error
            left_out[inner] = error.strerror or type(error).__name__
        links.sort()
    if left_out and warns:
        warn(f"{folder}: not all of it is read: {in_words(left_out)}")
    # As paths are sorted: part by part.
    found.sort(key=lambda name: name.split(os.sep))
    return [folder / name for name in found]


def sort_entries(entries, inner, suffixes, lists, left_out):
    """Adds the entries of a folder to the lists of `find_files`.

    Args:
        entries: of `os.scandir`.
        inner: the folder's relative path, which ends in a separator or is "".
        lists: of files, of folders, and of links to folders.
        left_out: {relative path: reason}.
    """
    found, folders, links = lists
    for entry in entries:
        name = entry.name
        if not is_data(name):
            continue
        _, dot, ending = name.rpartition(".")
        has_suffix = (dot + ending).lower() in suffixes
        try:
            if has_suffix and entry.is_file():
                found.append(inner + name)
            elif entry.is_dir():
                which = links if entry.is_symlink() else folders
                which.append(inner + name + os.sep)
            elif (has_suffix or not dot) and is_dangling(entry):
                left_out[inner + name] = "a link that leads nowhere"
        except OSError as error:
            left_out[inner + name] = error.strerror or type(error).__name__


def is_dangling(entry):
    return entry.is_symlink() and not os.path.exists(entry.path)


def identity(path):
    """What two names of the same folder have in common."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def in_words(reasons, n=5):
    """At most n of {name: reason}, as text."""
    listed = [f"{name or '.'} ({reason})" for name, reason in sorted(reasons.items())]
    if len(listed) > n:
        listed[n:] = [f"and {len(listed) - n:,} more"]
    return ", ".join(listed)


# ---- opening ----


def check_regular(path):
    """Refuses what is no file: opening a FIFO waits for ever, and a device may not end.

    Returns:
        The size in bytes.

    Raises:
        OSError: there is nothing of that name.
        ValueError: it is no file.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{Path(path).name} is no file")
    return status.st_size


def read_text(path, may_be_pipe=False):
    """The text of a file, with a warning if its encoding had to be guessed.

    Args:
        may_be_pipe: as of `read_encoded`.

    Raises:
        UserError: as of `read_encoded`.
    """
    text, guess = read_encoded(path, may_be_pipe)
    if guess is not None:
        warn_of_encoding(path, guess)
    return text


def warn_of_encoding(path, guess):
    """Says that a text is read in an encoding that is only probable."""
    name = ENCODINGS[guess]
    warn(f"{path} is not in UTF-8 and is read as {name}; save it in UTF-8 if that is wrong")


def read_encoded(path, may_be_pipe=False):
    """The text of a file, and its encoding if that had to be guessed, otherwise None.

    It is UTF-8, with or without a byte order mark. A text that is not, and may come
    from an older Windows, is read as GBK or as Windows-1252.

    Args:
        may_be_pipe: whether the path may be that of a pipe, as a shell makes one for
            <(command). In a data set nobody would write into it.

    Raises:
        UserError: it cannot be read, is no file, is too long, or is no text.
    """
    try:
        most = LARGEST_TEXT if may_be_pipe else min(check_regular(path), LARGEST_TEXT)
        with open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        try:
            return data.decode("utf-8-sig"), None
        except UnicodeDecodeError:
            guess = likely_encoding(data)
            return data.decode(guess), guess
    except (OSError, ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as text: {reason}") from error


def likely_encoding(data):
    """The encoding of bytes that are not UTF-8: "gb18030" (GBK) or "cp1252".

    Chinese characters are pairs of bytes above 127, and mostly follow each other; in
    Windows-1252 such bytes are accented letters, mostly between plain ones.

    Raises:
        ValueError: they are no such text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is in UTF-16; save it in UTF-8")
    if re.search(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", data):
        raise ValueError("it is neither in UTF-8, nor a text of another encoding")
    runs = re.findall(rb"[\x80-\xff]+", data)
    n_single = sum(len(run) == 1 for run in runs)
    return "cp1252" if 2 * n_single > sum(map(len, runs)) else "gb18030"


# ---- files that a table names ----


class Names:
    """Finds the files of a folder by the names that a table of another system has.

    A table names a file by its path in the folder, by the end of this path, or by a
    longer path that ends with it. Slashes of Windows, upper and lower case, and
    suffixes of images may differ.

    Args:
        folder: a `Path`.
        files: the files below it.
        suffixes: those that may be exchanged or missing.
        table: the table's path, for errors.
    """

    def __init__(self, folder, files, suffixes, table):
        self.folder = folder
        self.suffixes = suffixes
        self.table = table
        start = len(folder.parts)
        self.parts = {file: file.parts[start:] for file in files}
        self.exact = {"/".join(parts): file for file, parts in self.parts.items()}
        self.whole = {}  # key of the path: files
        self.ends = None  # key of an end of the path: files
        self.used = {}  # file: (name in the table, whether it is literally the file's)

    def find(self, name):
        """The file of that name, or None.

        Raises:
            UserError: several files may be meant, or one file has two names.
        """
        file = self.exact.get(name)
        if file is not None:
            return self.use(file, tuple(name.split("/")))
        parts = tuple(part for part in name.strip().replace("\\", "/").split("/"))
        parts = tuple(part.strip() for part in parts if part not in ("", "."))
        if not parts:
            return None
        file = self.exact.get("/".join(parts))
        if file is not None:
            return self.use(file, parts)
        candidates = self.candidates(parts)
        if not candidates:
            return None
        if len(candidates) > 1:
            first, second = (self.shown(candidate) for candidate in candidates[:2])
            raise UserError(
                f"{self.table}: {name} may be {first} or {second}; "
                f"write the path from {self.folder}"
            )
        return self.use(candidates[0], parts)

    def candidates(self, parts):
        """The files that a name may mean, given as the parts of its path."""
        if self.ends is None:
            self.index()
        found = self.ends.get(self.key(parts), [])
        for start in range(1, len(parts)):
            found = found or self.whole.get(self.key(parts[start:]), [])
        suffix = Path(parts[-1]).suffix.lower()
        same = [file for file in found if file.suffix.lower() == suffix]
        found = same or found
        same = [file for file in found if self.is_literal(file, parts)]
        return same or found

    def index(self):
        """Makes the dicts of keys; tables whose names are exact do not need them."""
        self.ends = {}
        for file, parts in self.parts.items():
            key = self.key(parts)
            self.whole.setdefault(key, []).append(file)
            pieces = key.split("/")
            for start in range(len(pieces)):
                self.ends.setdefault("/".join(pieces[start:]), []).append(file)

    def key(self, parts):
        """A path without what may differ: case, suffix, and how accents are stored."""
        path = "/".join(parts)
        stem, dot, ending = path.rpartition(".")
        if (dot + ending).lower() in self.suffixes:
            path = stem
        return unicodedata.normalize("NFC", path).casefold()

    def is_literal(self, file, parts):
        """Whether the parts are literally the end of a file's path."""
        return self.parts[file][-len(parts) :] == parts

    def use(self, file, parts):
        """Notes that a table names a file.

        Raises:
            UserError: it has named this file in another way before, and the two need
                not mean the same file.
        """
        is_literal = self.is_literal(file, parts)
        before, was_literal = self.used.setdefault(file, (parts, is_literal))
        if before != parts and not (is_literal and was_literal):
            raise UserError(
                f"{self.table}: {'/'.join(before)} and {'/'.join(parts)} would both be "
                f"{self.shown(file)}"
            )
        return file

    def shown(self, file):
        """A file's path in the folder."""
        return "/".join(self.parts[file])

    def none_found(self, names):
        """The error for a table of which no name is found."""
        example = self.shown(next(iter(self.parts)))
        return UserError(
            f"none of the {len(names):,} images that {self.table} lists lies in {self.folder}: "
            f"it lists {names[0]}, and {example} is there"
        )
