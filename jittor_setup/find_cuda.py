"""Finds what Jittor needs for a GPU: the driver, nvcc and cuDNN."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import toolkit
from .errors import GpuUnusable

# Jittor 1.3.11 does not compile with newer versions (issue 666 of Jittor/jittor).
NEWEST = {"CUDA": 12, "cuDNN": 8}
NEWEST_ADAPTED = {"CUDA": 13, "cuDNN": 9}  # with the folder that toolkit.py makes
NVCC_PLACES = (  # where Jittor looks
    "/usr/local/cuda/bin/nvcc",
    "/usr/bin/nvcc",
    "/opt/cuda/bin/nvcc",
)
DRIVERS = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
ASK_DRIVER = Path(__file__).with_name("ask_driver.py")
SECONDS = 30  # to wait for an answer of the driver or of nvcc


def output(command, problem):
    """What a command prints.

    Raises:
        GpuUnusable: The command fails or does not end; the message begins with
            `problem`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise GpuUnusable(f"{problem}: no answer in {SECONDS} seconds") from None
    except OSError as error:
        raise GpuUnusable(f"{problem}: {error.strerror}") from error
    if done.returncode:
        raise GpuUnusable(f"{problem}: it ended with code {done.returncode}")
    return done.stdout + done.stderr


# ---- the driver ----


def ask_driver():
    """Asks the driver for its CUDA version and its devices.

    Returns:
        The newest CUDA version that it supports, (major, minor), and for each device
        [name, compute capability times 10]. There are no devices if there is no driver,
        or one that does not work, as in a container that was given no GPU.
    """
    for library in DRIVERS:
        if not can_be_loaded(library):
            continue
        try:
            answer = output([sys.executable, str(ASK_DRIVER), library], library)
            major, minor, devices = json.loads(answer.splitlines()[-1])
        except (GpuUnusable, ValueError, IndexError):
            return (0, 0), []
        return (major, minor), devices
    return (0, 0), []


def can_be_loaded(library):
    """Whether the system finds this shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


# ---- nvcc and cuDNN ----


def find_toolkit(driver_version, cache, report=lambda name, text: None):
    """Finds an nvcc and a cuDNN that Jittor can use.

    Args:
        driver_version: The newest CUDA version that the driver supports, (major,
            minor).
        cache: Jittor's cache folder.
        report: Called with a name and a text for everything that is found.

    Returns:
        The path of nvcc, its version (major, minor), and the path of cuDNN's header.

    Raises:
        GpuUnusable: Something is missing or has the wrong version.
    """
    adapts = os.environ.get(toolkit.OPT_IN) == "1"
    newest = NEWEST_ADAPTED if adapts else NEWEST
    nvcc, cuda_version = find_nvcc(cache, toolkit.wheel_nvcc() if adapts else None)
    report("nvcc", f"{cuda_version[0]}.{cuda_version[1]} at {nvcc}")
    check_versions(driver_version, cuda_version, newest["CUDA"])
    if adapts:
        try:
            nvcc = toolkit.adapted(nvcc, cuda_version, cache)
        except OSError as error:
            raise GpuUnusable(
                f"a folder for CUDA cannot be made in {cache}: {error.strerror}"
            ) from error
    cudnn = find_cudnn(nvcc, newest["cuDNN"])
    report("cuDNN", cudnn)
    return nvcc, cuda_version, cudnn


def find_nvcc(cache, last=None):
    """Finds the nvcc that Jittor would take, or else `last`.

    Returns:
        Its path, within its toolkit, and its version (major, minor).
    """
    nvcc = first_nvcc(cache, last)
    if nvcc is None:
        raise GpuUnusable("there is no nvcc; install CUDA 12 (its toolkit) and cuDNN 8")
    # Jittor takes the folder above nvcc's for the toolkit. That is wrong for a script
    # in another folder that calls the real nvcc, which itself says where its toolkit
    # is.
    steps = output([nvcc, "--dryrun", "-x", "cu", "/dev/null"], nvcc)
    top = re.search(r"^#\$ TOP=(.*)$", steps, re.MULTILINE)
    if top:
        real = Path(top[1].strip()).resolve() / "bin" / "nvcc"
        if real.is_file():
            nvcc = str(real)
    version = re.search(r"release (\d+)\.(\d+)", output([nvcc, "--version"], nvcc))
    if version is None:
        raise GpuUnusable(f"{nvcc} does not print its version")
    return nvcc, (int(version[1]), int(version[2]))


def first_nvcc(cache, last):
    """The first nvcc in Jittor's order of places, or else `last`."""
    jtcuda = cache / "jtcuda"  # for a toolkit that Jittor has downloaded
    if jtcuda.is_dir() and not any(jtcuda.iterdir()):
        # A download that failed has left it, and with it Jittor ignores any other nvcc.
        jtcuda.rmdir()
    places = [
        *sorted(jtcuda.glob("*/bin/nvcc"), reverse=True),
        os.environ.get("nvcc_path"),
        shutil.which("nvcc"),
        *NVCC_PLACES,
        last,
    ]
    for path in places:
        if path and os.access(path, os.X_OK):
            return str(path)
    return None


def check_versions(driver, cuda, newest):
    """Raises a GpuUnusable if CUDA is too new for the driver or for Jittor.

    Args:
        driver, cuda: Versions, (major, minor).
        newest: The newest major version of CUDA that Jittor can use.
    """
    cuda_name = f"{cuda[0]}.{cuda[1]}"
    if cuda[0] > driver[0]:
        raise GpuUnusable(
            f"its driver is for CUDA {driver[0]}.{driver[1]}, and nvcc is {cuda_name}; "
            "update the driver, or install an older CUDA"
        )
    if cuda[0] > newest:
        raise GpuUnusable(
            f"Jittor 1.3 does not compile with CUDA {cuda_name}; "
            "install CUDA 12 and cuDNN 8 beside it"
        )


def find_cudnn(nvcc, newest):
    """The path of the header with cuDNN's version, in nvcc's toolkit or in the system.

    Raises:
        GpuUnusable: There is none, or the first one has a major version above `newest`.
    """
    root = Path(nvcc).resolve().parents[1]
    folders = (
        root / "include",
        root / "targets/x86_64-linux/include",
        Path("/usr/include"),
        Path("/usr/include/x86_64-linux-gnu"),
    )
    for folder in folders:
        header = folder / "cudnn_version.h"
        if not header.is_file():
            continue
        major = re.search(r"#define\s+CUDNN_MAJOR\s+(\d+)", header.read_text(errors="replace"))
        if major and int(major[1]) > newest:
            raise GpuUnusable(
                f"Jittor 1.3 needs cuDNN {newest}, and {header} is version {major[1]}"
            )
        return str(header.resolve())
    raise GpuUnusable(f"there is no cuDNN beside {root}; install cuDNN {newest} for this CUDA")
