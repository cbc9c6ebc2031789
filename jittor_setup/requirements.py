"""Checks what Jittor needs for its import: Python, packages, a C++ compiler."""

import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from .errors import SetupError

NEWEST_PYTHON = (3, 14)  # of those that were tried; newer.py has what 3.13 and 3.14 need
OLDER_PYTHON = (
    "run 'conda create -n jittor python=3.12', or 'uv venv --python 3.12', and install there"
)


def check_requirements():
    """Raises a SetupError for the first requirement that is not met."""
    check_python()
    check_packages()
    check_compiler()


def check_python():
    """Raises a SetupError if Jittor does not work with this Python."""
    version = platform.python_version()
    if sys.version_info[:2] > NEWEST_PYTHON:
        raise SetupError(
            f"Python {version} is too new for Jittor 1.3, which runs on Python 3.9 to "
            f"{'.'.join(map(str, NEWEST_PYTHON))}: {OLDER_PYTHON}"
        )
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SetupError(
            f"this Python {version} is free-threaded, and Jittor 1.3 and numpy 1.26 need "
            f"the global interpreter lock: {OLDER_PYTHON}"
        )


def check_packages():
    """Raises a SetupError if numpy or Jittor is missing, or numpy is too new."""
    try:
        numpy_version = importlib.metadata.version("numpy")
        importlib.metadata.version("jittor")
    except importlib.metadata.PackageNotFoundError as missing:
        raise SetupError(
            f"the package {missing.name or missing} is not installed: "
            "run 'pip install -r requirements.txt'"
        ) from None
    if int(numpy_version.split(".")[0]) >= 2:
        raise SetupError(
            f"numpy {numpy_version} does not work with Jittor 1.3: run 'pip install \"numpy<2\"'"
        )


def compiler_name():
    """The C++ compiler that Jittor calls."""
    return os.environ.get("cc_path") or "g++"


def check_compiler():
    """Raises a SetupError if the C++ compiler does not exist, or is clang on Linux.

    Jittor 1.3's sources for Linux cast pointers to members into pointers to functions,
    which g++ allows and clang does not.
    """
    compiler = compiler_name()
    if sys.platform == "linux" and "clang" in os.path.basename(compiler):
        raise SetupError(
            f"cc_path names {compiler}, and clang cannot compile Jittor 1.3 on Linux: "
            "unset cc_path, or let it name a g++"
        )
    if shutil.which(compiler) is None:
        raise SetupError(
            f"the C++ compiler {compiler} was not found, and Jittor compiles its kernels "
            "with it: install it, for example with 'sudo apt install g++'"
        )


def python_config():
    """Finds pythonX.Y-config, which Jittor asks for the folder of Python's headers.

    Jittor looks for it in /usr/bin and /usr/local/bin only. pyenv, conda and uv have it
    beside the Python that a virtual environment was made from.

    Returns:
        The path beside that Python, or None if Jittor finds one itself.

    Raises:
        SetupError: There is none.
    """
    version = f"python3.{sys.version_info.minor}"
    name = f"{version}-config"
    path = Path(sys.base_prefix) / "bin" / name
    if path.is_file():
        return str(path)
    for folder in ("/usr/bin", "/usr/local/bin"):
        if (Path(folder) / name).is_file():
            return None
    raise SetupError(
        f"{name} was not found, and Jittor needs Python's headers: install {version}-dev, "
        f"for example with 'sudo apt install {version}-dev'"
    )
