"""Opens scripts, and the checkpoints that they have written."""

from common import checkpoint
from common.errors import UserError

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def is_script(name):
    """Whether a name, which may come from a stranger's file, is that of a script."""
    return name.isidentifier() and (ROOT / f"{name}.py").is_file()


def load_script(name):
    """The script `name`.py of this folder, as a module."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(name)


def open_run(path, script=None, flags=()):
    """Opens a checkpoint, to draw from it.

    Args:
        path: a checkpoint, or the folder of a run.
        script: the name of the script that must have written it (default: any).
        flags: further flags of the script, as strings.

    Returns:
        The script as a module, its arguments, and the checkpoint's `Reader`.

    Raises:
        UserError: there is no checkpoint, it is damaged, or another script wrote it.
    """
    path = checkpoint.find(path)
    reader = checkpoint.Reader(path)
    writer = reader.meta["script"]
    if script is not None and writer != script:
        raise UserError(f"{path} was written by {writer}.py, not by {script}.py")
    if not is_script(writer):
        raise UserError(f"{path} was written by {writer}.py, which is not in {ROOT}")
    module = load_script(writer)
    args = module.parse_args(["--resume", str(path), "--sample_only", *flags])
    return module, args, reader
