"""Checkpoints: one `.npz` file that is written atomically, loaded strictly, and can run no code.

Every array lies under `<part>/<name>`, for example `generator/0.weight` or `optimizer_G/m/3`. Everything that is
not an array (arguments, step, states of random generators) lies in one JSON text under `meta`.
"""

from common.errors import NotFinite, UserError

import json
import os
import tokenize
import zipfile
import zlib
from pathlib import Path

import jittor as jt
import numpy as np

FORMAT = 2
DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
# what numpy's parser of a header may raise
HEADER_DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)
FILE_NAME = "checkpoint_last.npz"
LARGEST_META = 1 << 20  # bytes; the JSON text takes a few thousand


def module_state(module):
    """Weights and buffers as copies in numpy."""
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def load_module(module, state):
    # Copies: a Var that two modules share would be trained in one and frozen by the other's eval().
    module.load_state_dict(
        {name: np.array(value, dtype=np.float32) for name, value in state.items()}
    )


def optimizer_slots(optimizer):
    """{name: Var} of an optimizer's moments (Adam: `m`, `values`; RMSprop: `values`), in a fixed order."""
    slots = {}
    for g, group in enumerate(optimizer.param_groups):
        for key in ("m", "values"):
            for i, value in enumerate(group.get(key, [])):
                slots[f"{key}/{g}.{i}"] = value
    return slots


def get_state(part):
    """One part's state as a flat dict of numpy arrays and JSON values."""
    if isinstance(part, jt.nn.Module):
        return module_state(part)
    if isinstance(part, jt.optim.Optimizer):
        arrays = {name: value.numpy().copy() for name, value in optimizer_slots(part).items()}
        return {"n_step": part.n_step, **arrays}
    return part.state_dict()


def set_state(part, state):
    """Puts what `get_state` gave back into a part of the same kind."""
    if isinstance(part, jt.nn.Module):
        load_module(part, state)
    elif isinstance(part, jt.optim.Optimizer):
        part.n_step = int(state["n_step"])
        for name, value in optimizer_slots(part).items():
            value.update(jt.array(state[name]).stop_grad())
    else:
        part.load_state_dict(state)


def save(path, parts, meta):
    """Writes the parts' states and `meta` (a dict that JSON can hold) to `path`.

    The file is written beside `path`, flushed to the disk and renamed, so that `path` is at every moment either
    the old checkpoint or the new one.

    Raises:
        NotFinite: a weight is NaN or infinite; `path` is left as it was.
        UserError: the file cannot be written; `path` is left as it was.
    """
    arrays, values = {}, {}
    for part_name, part in parts.items():
        values[part_name] = {}
        for name, value in get_state(part).items():
            if isinstance(value, np.ndarray):
                if not np.isfinite(value).all():
                    raise NotFinite(f"{part_name}/{name} is no longer finite")
                arrays[f"{part_name}/{name}"] = value
            else:
                values[part_name][name] = value
    text = json.dumps({"format": FORMAT, **meta, "values": values})
    arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, **arrays))


def write_atomically(path, write):
    """Calls `write(file)` on a temporary file in the same folder and renames it to `path`."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = f"; the last good one is still {path}" if path.exists() else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def keep_numbered(path, step, n):
    """Keeps the checkpoint `path` under the number of its step too, and the newest `n` of such copies."""
    copy = path.with_name(f"checkpoint_step_{step:07d}.npz")
    write_atomically(copy, lambda file: file.write(path.read_bytes()))
    copies = sorted(
        path.parent.glob("checkpoint_step_*.npz"), key=lambda file: file.stat().st_mtime_ns
    )
    for old in copies[:-n]:
        old.unlink()


def find(path):
    """The checkpoint file for `--resume PATH`, which may also be the folder of a run."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"no checkpoint at {path}: --resume takes a checkpoint file, or the --out_dir of a run"
        )
    return path


class Reader:
    """Reads a checkpoint that may come from a stranger: no pickle, and no array before its header is checked.

    `meta` is the dict that was given to `save`.

    Raises:
        UserError: the file is not a checkpoint, is damaged, or does not fit the parts to be loaded.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.names = [name.removesuffix(".npy") for name in archive.namelist()]
                self.meta = self.read_meta(archive)
        except DAMAGE as error:
            raise UserError(f"{self.path} is not a checkpoint, or is damaged ({error})") from error

    def read_meta(self, archive):
        damaged = UserError(f"{self.path} is not a checkpoint of these scripts")
        if "meta" not in self.names or len(set(self.names)) != len(self.names):
            raise damaged
        size = archive.getinfo("meta.npy").file_size
        if size > LARGEST_META:
            raise damaged
        try:
            meta = json.loads(self.read_array(archive, "meta", None, np.uint8).tobytes())
        except (ValueError, RecursionError) as error:
            raise damaged from error
        kinds = {
            "script": str,
            "args": dict,
            "step": int,
            "epoch": int,
            "losses": dict,
            "values": dict,
        }
        if not isinstance(meta, dict) or type(meta.get("format")) is not int:
            raise damaged
        if meta["format"] != FORMAT:
            raise UserError(
                f"{self.path} has format {meta['format']}, and this version reads format {FORMAT}"
            )
        if any(type(meta.get(key)) is not kind for key, kind in kinds.items()):
            raise damaged
        if any(type(value) is not float for value in meta["losses"].values()):
            raise damaged
        return meta

    def read_array(self, archive, name, shape, dtype):
        """One array, after its header has been checked against what is expected and against the file's size."""
        info = archive.getinfo(name + ".npy")
        with archive.open(info) as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                found_shape, fortran, found_dtype = read_header(file)
            except HEADER_DAMAGE as error:
                raise UserError(f"{self.path}: entry {name} is damaged") from error
            if shape is None:  # the caller has checked the size
                shape = (
                    found_shape
                    if len(found_shape) == 1 and found_shape[0] <= info.file_size
                    else None
                )
            if found_shape != shape or found_dtype != dtype or fortran:
                raise UserError(
                    f"{self.path}: {name} is {found_dtype}{list(found_shape)}, expected {np.dtype(dtype)}"
                    f"{list(shape) if shape is not None else ''}"
                )
            n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            data = file.read(n_bytes + 1)
        if len(data) != n_bytes:
            raise UserError(f"{self.path}: entry {name} is damaged")
        return np.frombuffer(data, dtype).reshape(shape).copy()

    def load(self, parts, exact=True):
        """Loads every part of `parts`; nothing is changed unless all of them fit.

        With `exact` the file must hold nothing else; without, other parts (the discriminator, say, when only
        samples are asked for) may lie in it unread.
        """
        expected, missing = {}, []
        for part_name, part in parts.items():
            for name, value in get_state(part).items():
                full = f"{part_name}/{name}"
                if isinstance(value, np.ndarray):
                    expected[full] = value
                    missing += [full] if full not in self.names else []
                elif type(self.meta["values"].get(part_name, {}).get(name)) is not type(value):
                    missing.append(full)
        unexpected = [n for n in self.names if n != "meta" and n not in expected]
        unexpected = [n for n in unexpected if exact or n.split("/")[0] in parts]
        if missing or unexpected:
            lists = [
                f"{k}: {', '.join(v[:5])}{', ...' if len(v) > 5 else ''}"
                for k, v in (("missing", missing), ("unexpected", unexpected))
                if v
            ]
            raise UserError(f"{self.path} does not fit this model; {'; '.join(lists)}")
        self.apply(parts, self.read_arrays(expected))

    def load_weights(self, parts):
        """Loads the weights of modules alone; averages begin anew from them, everything else stays fresh."""
        self.load(
            {name: part for name, part in parts.items() if isinstance(part, jt.nn.Module)},
            exact=False,
        )
        for part in parts.values():
            if hasattr(part, "restart"):
                part.restart()

    def read_arrays(self, expected):
        arrays = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name, like in expected.items():
                    arrays[name] = self.read_array(archive, name, like.shape, like.dtype)
                    if not np.isfinite(arrays[name]).all():
                        raise UserError(f"{self.path}: {name} holds NaN or infinite values")
        except DAMAGE as error:
            raise UserError(f"{self.path} is damaged ({error})") from error
        return arrays

    def apply(self, parts, arrays):
        for part_name, part in parts.items():
            prefix = part_name + "/"
            state = {
                name[len(prefix) :]: value
                for name, value in arrays.items()
                if name.startswith(prefix)
            }
            try:
                set_state(part, {**self.meta["values"].get(part_name, {}), **state})
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.path}: the state of {part_name} is damaged ({error})"
                ) from error


def export_pickle(path, module):
    """Writes a module's weights in Jittor's own format, for `jt.load`, as the contest asks.

    It is a pickle: whoever loads a pickle from a stranger runs the stranger's code.
    """
    temporary = path.with_name(path.name + ".tmp.pkl")
    module.save(str(temporary))
    os.replace(temporary, path)
