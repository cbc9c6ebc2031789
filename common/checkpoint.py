"""Checkpoints: one `.npz` that is written atomically, read strictly, and runs no code.

Every array lies under `<part>/<name>`, for example `generator/0.weight` or
`optimizer_G/m/3`. Whatever is no array (arguments, step, states of random generators)
lies in one JSON text under `meta`.
"""

from common.errors import NotFinite, UserError

import contextlib
import json
import math
import os
import re
import secrets
import tokenize
import zipfile
import zlib
from pathlib import Path

import jittor as jt
import numpy as np

FORMAT = 3
FILE_NAME = "checkpoint_last.npz"
LARGEST_META = 1 << 20  # bytes; the JSON text takes a few thousand
LARGEST_NUMBER = 1 << 53  # of steps, epochs and images; a float holds it exactly
LARGEST_HEADER = 1 << 16  # bytes before an array; numpy writes 128
# Bytes that all entries may take in memory: always this many, and more if the file is
# not much smaller. The scripts write it without compression, which makes a thousandth
# of zeros.
SMALL_MEMORY = 1 << 28
MOST_UNPACKED = 100  # times the file's size
LONGEST_NAME = 200  # letters
MOST_LOSSES = 100  # names
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What a damaged zip archive, and a damaged header of an array, may raise. The lists are
# not complete; `Reader` catches everything.
DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
HEADER_DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)
META_TYPES = {
    "script": str,
    "args": dict,
    "step": int,
    "epoch": int,
    "n_images": int,
    "phase": str,
    "losses": dict,
    "rng": dict,
    "order": dict,
    "values": dict,
}


def is_plain_name(name):
    """Whether a name of a script or of a loss can be printed as it is.

    A copy may be called `my-gan.py`, and log a `loss/adversarial`. A "$" would be a
    formula in losses.png.
    """
    return re.fullmatch(r"[\w ./:+()-]+", name) is not None and len(name) <= LONGEST_NAME


def fits_meta(meta):
    """Whether a checkpoint's JSON has the entries that the scripts write."""
    if any(type(meta.get(key)) is not kind for key, kind in META_TYPES.items()):
        return False
    if not is_plain_name(meta["script"]) or len(meta["losses"]) > MOST_LOSSES:
        return False
    for name, value in meta["losses"].items():
        if not is_plain_name(name) or type(value) is not float or not math.isfinite(value):
            return False
    if any(type(value) is not dict for value in meta["values"].values()):
        return False
    return all(is_count(meta[name]) for name in ("step", "epoch", "n_images"))


# ---- the states of a run's parts ----


def module_state(module):
    """{name: array} of a network's weights and buffers, as copies."""
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def load_module(module, state):
    # Copies: a variable that two networks share would be trained in one of them and
    # frozen by the other one's eval().
    arrays = {name: np.array(value, dtype=np.float32) for name, value in state.items()}
    module.load_state_dict(arrays)


def optimizer_moments(optimizer):
    """{name: variable} of an optimizer's moments, in a fixed order.

    They are called `m` and `values` in Adam, `values` in RMSprop.
    """
    moments = {}
    for g, group in enumerate(optimizer.param_groups):
        for key in ("m", "values"):
            for i, value in enumerate(group.get(key, [])):
                moments[f"{key}/{g}.{i}"] = value
    return moments


def lazy_state(part):
    """The state of one part: a flat dict of arrays, Jittor variables and JSON values.

    Nothing is computed: variables have a shape before they have memory.
    """
    if isinstance(part, jt.optim.Optimizer):
        return {"n_step": part.n_step, **optimizer_moments(part)}
    return part.state_dict()


def get_state(part):
    """The state of one part: a flat dict of numpy arrays and JSON values, as copies."""
    state = {}
    for name, value in lazy_state(part).items():
        state[name] = value.numpy().copy() if isinstance(value, jt.Var) else value
    return state


def set_state(part, state):
    """Puts a state of `get_state` into a part of the same type."""
    if isinstance(part, jt.nn.Module):
        load_module(part, state)
    elif isinstance(part, jt.optim.Optimizer):
        part.n_step = int(state["n_step"])
        for name, value in optimizer_moments(part).items():
            value.update(jt.array(state[name]).stop_grad())
    else:
        part.load_state_dict(state)


# ---- writing ----


def save(path, parts, meta):
    """Writes the states of {name: part} and `meta`, a dict that JSON can hold.

    The file is written beside `path`, flushed to the disk and renamed. So `path` is at
    every moment either the old checkpoint or the new one.

    Raises:
        NotFinite: a weight is NaN or infinite; `path` stays as it was.
        UserError: the file cannot be written; `path` stays as it was.
    """
    arrays = {}
    values = {}
    for part_name, part in parts.items():
        values[part_name] = {}
        for name, value in get_state(part).items():
            if not isinstance(value, np.ndarray):
                values[part_name][name] = value
                continue
            if not np.isfinite(value).all():
                raise NotFinite(f"{part_name}/{name} is no longer finite")
            arrays[f"{part_name}/{name}"] = value
    text = json.dumps({"format": FORMAT, **meta, "values": values})
    arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
    write_atomically(path, lambda file: write_npz(file, arrays), makes_folder=True)


def write_npz(file, arrays, compression=zipfile.ZIP_STORED):
    """Writes {name: array} as an `.npz` file, as `numpy.savez` does.

    numpy leaves its archive open if the disk is full, and Python later prints a
    traceback about it.
    """
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def open_temporary(folder, suffix=".tmp"):
    """Makes a new hidden file; returns it, open for writing, and its path.

    The mode "x" refuses a name that exists, also that of a link. So nobody who has left
    files in the folder can make a run write elsewhere, and no two processes share one.
    """
    path = Path(folder) / f".{os.getpid()}.{secrets.token_hex(4)}{suffix}"
    return open(path, "xb"), path


def write_atomically(path, write, makes_folder=False, is_flushed=True):
    """Calls `write(file)` on a temporary file beside `path`, and renames it to `path`.

    If `path` is a link, the file replaces the link itself.

    Args:
        makes_folder: make the folder first if it is missing. A run does so, since
            somebody may have removed its folder meanwhile.
        is_flushed: wait until the disk has it, so that it survives a loss of power. For
            thousands of small files that takes long.

    Raises:
        UserError: the file cannot be written; `path` stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        if makes_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = open_temporary(path.parent)
        with file:
            write(file)
            file.flush()
            if is_flushed:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if not isinstance(error, OSError):
            raise
        kept = f"; the last good one is still {path}" if is_file(path) else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def is_file(path):
    """Whether a file is there; False if its folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def keep_numbered(path, step, n):
    """Copies the checkpoint under its step's number; keeps the `n` newest copies."""
    copy = path.with_name(f"checkpoint_step_{step:07d}.npz")
    write_atomically(copy, lambda file: file.write(path.read_bytes()))
    copies = list(path.parent.glob("checkpoint_step_*.npz"))
    # By date, since a run that is resumed earlier has smaller steps; the new copy
    # counts as the newest, also if the clock was set back.
    copies.sort(key=lambda file: (file == copy, file.stat().st_mtime_ns))
    for old in copies[:-n]:
        old.unlink()


def export_pickle(path, module):
    """Writes a network's weights in Jittor's own format, for `jt.load`.

    The contest asks for this format. It is a pickle: whoever loads a stranger's pickle
    runs the stranger's code.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = open_temporary(path.parent, ".tmp.pkl")
        file.close()
        try:
            module.save(str(temporary))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


# ---- reading ----


def find(path):
    """The checkpoint file of `--resume PATH`, which may also be a run's folder."""
    if not str(path):
        raise UserError("the name of a checkpoint is empty")
    try:
        path = Path(path).expanduser()
        if path.is_dir():
            path = path / FILE_NAME
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no checkpoint can be read at {path}: {error}") from error
    if not found:
        raise UserError(
            f"no checkpoint at {path}: --resume takes a checkpoint file, or a run's --out_dir"
        )
    return path


def is_count(value):
    """Whether a number of a file can count steps, epochs, images or updates."""
    return type(value) is int and 0 <= value < LARGEST_NUMBER


class Reader:
    """Reads a checkpoint that may come from a stranger.

    Nothing is unpickled, and no array is read before its header is checked. Whatever
    zipfile, numpy or json raise for a damaged file becomes a UserError: there is no
    complete list of it.

    Attributes:
        meta: the dict that was given to `save`.

    Raises:
        UserError: the file is no checkpoint, or is damaged.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.check_memory(archive)
                self.names = [name.removesuffix(".npy") for name in archive.namelist()]
                self.meta = self.read_meta(archive)
        except UserError:
            raise
        except Exception as error:
            message = f"{self.path} is not a checkpoint, or is damaged ({error})"
            raise UserError(message) from error

    def check_memory(self, archive):
        """Refuses a small file whose entries would unpack to gigabytes."""
        n_bytes = sum(info.file_size for info in archive.infolist())
        size = self.path.stat().st_size
        if n_bytes > max(SMALL_MEMORY, MOST_UNPACKED * size):
            raise UserError(
                f"{self.path} has {size:,} bytes, and would take {n_bytes:,} bytes of memory"
            )

    def read_meta(self, archive):
        damaged = UserError(f"{self.path} is not a checkpoint of these scripts")
        if "meta" not in self.names or len(set(self.names)) != len(self.names):
            raise damaged
        if archive.getinfo("meta.npy").file_size > LARGEST_META:
            raise damaged
        try:
            text = self.read_array(archive, "meta", None, np.uint8).tobytes()
            meta = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged from error
        if not isinstance(meta, dict) or type(meta.get("format")) is not int:
            raise damaged
        if meta["format"] != FORMAT:
            found = meta["format"]
            raise UserError(
                f"{self.path} has format {found}, and this version reads format {FORMAT}"
            )
        if not fits_meta(meta):
            raise damaged
        return meta

    def read_array(self, archive, name, shape, dtype):
        """One array, after its header is checked against what is expected.

        Args:
            shape: None for one dimension of any length; the caller has checked its
            size.
        """
        info = archive.getinfo(name + ".npy")
        damaged = UserError(f"{self.path}: entry {name} is damaged")
        if info.compress_type not in COMPRESSIONS:
            raise damaged
        with archive.open(info) as file:
            try:
                found_shape, fortran, found_dtype = read_header(file)
            except zipfile.BadZipFile:  # its text says that the check sum is wrong
                raise
            except Exception as error:
                raise damaged from error
            if shape is None and len(found_shape) == 1 and found_shape[0] <= info.file_size:
                shape = found_shape
            if found_shape != shape or found_dtype != dtype or fortran:
                found = f"{found_dtype}{list(found_shape)}"
                wanted = f"{np.dtype(dtype)}{list(shape) if shape is not None else ''}"
                raise UserError(f"{self.path}: {name} is {found}, expected {wanted}")
            n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            if not n_bytes < info.file_size <= n_bytes + LARGEST_HEADER:
                raise damaged
            data = file.read(n_bytes + 1)
        if len(data) != n_bytes:
            raise damaged
        return np.frombuffer(data, dtype).reshape(shape).copy()

    def load(self, parts, exact=True):
        """Loads every part of {name: part}; nothing changes unless all of them fit.

        Args:
            exact: the file must hold nothing else. Otherwise other parts may lie in it
                unread: the discriminator, for example, when only samples are drawn.

        Raises:
            UserError: an array is missing, unexpected, damaged or of another shape.
        """
        expected = {}
        missing = []
        for part_name, part in parts.items():
            stored_values = self.meta["values"].get(part_name, {})
            # A stranger's arguments may ask for networks beyond all memory: until its
            # arrays are known to fit, nothing of them is computed.
            for name, value in lazy_state(part).items():
                full_name = f"{part_name}/{name}"
                if isinstance(value, (np.ndarray, jt.Var)):
                    expected[full_name] = value
                    if full_name not in self.names:
                        missing.append(full_name)
                elif type(stored_values.get(name)) is not type(value):
                    missing.append(full_name)
                elif type(value) is int and not is_count(stored_values[name]):
                    raise UserError(f"{self.path}: {full_name} is {stored_values[name]}")

        unexpected = []
        for name in self.names:
            is_known = name == "meta" or name in expected
            if not is_known and (exact or name.split("/")[0] in parts):
                unexpected.append(name)
        self.refuse(missing, unexpected)
        self.apply(parts, self.read_arrays(expected))

    def refuse(self, missing, unexpected):
        lists = []
        for word, names in (("missing", missing), ("unexpected", unexpected)):
            if names:
                more = ", ..." if len(names) > 5 else ""
                lists.append(f"{word}: {', '.join(names[:5])}{more}")
        if lists:
            raise UserError(f"{self.path} does not fit this model; {'; '.join(lists)}")

    def load_weights(self, parts):
        """Loads the weights of networks alone; averages start again from them."""
        modules = {name: m for name, m in parts.items() if isinstance(m, jt.nn.Module)}
        self.load(modules, exact=False)
        for part in parts.values():
            if hasattr(part, "restart"):
                part.restart()

    def read_arrays(self, expected):
        """{name: array} of the file, with the shapes and types of `expected`."""
        arrays = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name, like in expected.items():
                    dtype = np.dtype(str(like.dtype))
                    array = self.read_array(archive, name, tuple(like.shape), dtype)
                    if not np.isfinite(array).all():
                        raise UserError(f"{self.path}: {name} holds NaN or infinite values")
                    arrays[name] = array
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.path} is damaged ({error})") from error
        return arrays

    def apply(self, parts, arrays):
        for part_name, part in parts.items():
            state = dict(self.meta["values"].get(part_name, {}))
            prefix = part_name + "/"
            for name, array in arrays.items():
                if name.startswith(prefix):
                    state[name.removeprefix(prefix)] = array
            try:
                set_state(part, state)
            except Exception as error:
                message = f"{self.path}: the state of {part_name} is damaged ({error})"
                raise UserError(message) from error


def read_npz(path):
    """{name: array} of an `.npz` file that may come from a stranger.

    Nothing is unpickled.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:
        raise UserError(f"{path} cannot be read as an .npz file: {error}") from error


def read_header(file):
    """(shape, whether in Fortran's order, dtype) of an `.npy` file.

    Only the version that numpy writes for arrays of plain numbers is read. Its header
    has at most 64 KB; that of a later version could ask for 4 GB.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    raise ValueError(f"unknown version {version}")
