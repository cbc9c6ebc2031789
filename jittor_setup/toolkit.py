"""Makes a folder of links that looks to Jittor like a CUDA toolkit that it knows.

Jittor 1.3.11 was written for CUDA 12 and cuDNN 8. It misses a few names in CUDA 13 and
cuDNN 9, which the headers in cuda_headers/ define. It also expects a toolkit in one
folder, while pip's wheels of CUDA are spread over several. Jittor itself is not
changed.

Nothing here has run on a GPU so far, so it is used only if the environment variable
JITTOR_NEW_CUDA is 1.
"""

import os
import re
import shutil
import site
import sys
from pathlib import Path

from .cache import locked

OPT_IN = "JITTOR_NEW_CUDA"
# CUDA 13's libraries need C++17. Jittor asks for C++14, but the last such option wins.
CXX17 = "-std=c++17"
VERSION = 3  # of the folder's content; another one makes the folder again
CUDA_HEADERS = Path(__file__).parent / "cuda_headers"
# Jittor loads four libraries of cuDNN 8 by name. In cuDNN 9, two contain the same.
CUDNN_LIBRARIES = {
    "ops_infer": "ops",
    "ops_train": "ops",
    "cnn_infer": "cnn",
    "cnn_train": "cnn",
}


# ---- what is installed ----


def wheels():
    """The folders named `nvidia`, beside other packages, in which pip installs CUDA."""
    places = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
    folders = dict.fromkeys(Path(place) / "nvidia" for place in places if place)
    return [folder for folder in folders if folder.is_dir()]


def wheel_nvcc():
    """The path of nvcc from pip's wheels, or None."""
    for folder in wheels():
        for nvcc in sorted(folder.glob("cu*/bin/nvcc")):
            return str(nvcc)
    return None


def header_folders(root):
    """Pairs of a folder and a pattern for its headers; the first file of a name counts.

    They are those of the toolkit at `root`, of wheels, and of Debian's cuDNN.
    """
    folders = [root / "include", root / "targets/x86_64-linux/include"]
    for wheel in wheels():
        folders += sorted(wheel.glob("*/include"))
    return with_system(folders, Path("/usr/include/x86_64-linux-gnu"))


def library_folders(root):
    """As `header_folders`, for libraries."""
    folders = [root / "lib64", root / "lib", root / "targets/x86_64-linux/lib"]
    for wheel in wheels():
        folders += sorted(wheel.glob("*/lib"))
    return with_system(folders, Path("/usr/lib/x86_64-linux-gnu"))


def with_system(folders, system):
    """The existing ones with the pattern "*", and the system's folder for cuDNN."""
    pairs = [(folder, "*") for folder in folders]
    pairs.append((system, "*cudnn*"))
    return [(folder, pattern) for folder, pattern in pairs if folder.is_dir()]


# ---- the folder ----


def adapted(nvcc, cuda_version, cache):
    """Makes the folder in Jittor's cache, once for each toolkit and set of wheels.

    Args:
        nvcc: The path of the real nvcc, within its toolkit.
        cuda_version: Its version, (major, minor).
        cache: Jittor's cache folder.

    Returns:
        The path of an nvcc in the folder, which calls the real one.

    Raises:
        OSError: The folder cannot be written.
    """
    with locked(cache / "cuda_folder.lock"):  # of several processes, one makes the folder
        return make(nvcc, cuda_version, cache)


def make(nvcc, cuda_version, cache):
    """As `adapted`, while no other process does it."""
    root = Path(nvcc).resolve().parents[1]
    libraries = []
    for source, pattern in library_folders(root):
        for file in sorted(source.glob(f"{pattern}.so*")):
            libraries.append(str(file))
    stamp = repr((VERSION, nvcc, cuda_version, libraries))
    folder = cache / f"cuda{cuda_version[0]}.{cuda_version[1]}"
    kept = folder / "stamp"
    if not kept.is_file() or kept.read_text() != stamp:
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        fill(temporary, root, nvcc)
        (temporary / "stamp").write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    return str(folder / "bin" / "nvcc")


def fill(folder, root, nvcc):
    """Writes nvcc, headers and libraries into a new folder."""
    write_nvcc(folder / "bin", nvcc)
    add_headers(folder / "include", root)
    add_libraries(folder / "lib64", root)


def write_nvcc(bin_folder, nvcc):
    """Writes a script that calls the real nvcc; Jittor would follow a link to it."""
    bin_folder.mkdir(parents=True)
    script = bin_folder / "nvcc"
    script.write_text(f'#!/bin/sh\nexec "{nvcc}" "$@"\n')
    script.chmod(0o755)


def add_headers(include, root):
    """Links all headers, and extends those in which Jittor misses something."""
    include.mkdir()
    for source, pattern in header_folders(root):
        for file in source.glob(pattern):
            link(file, include / file.name)
    extend(include / "cuda_runtime.h")
    extend(include / "cudnn.h")
    add_cub(include)
    if not (include / "npp.h").exists():
        shutil.copy(CUDA_HEADERS / "npp.h", include / "npp.h")


def add_cub(include):
    """Makes a folder `cub` with an extended `cub.cuh`.

    CUDA 13 keeps CUB in a folder `cccl`, beside Thrust and libcu++, which CUB includes.
    """
    if (include / "cub/cub.cuh").is_file():
        real = (include / "cub").resolve()
    elif (include / "cccl/cub/cub.cuh").is_file():
        real = (include / "cccl/cub").resolve()
        for name in ("thrust", "cuda", "nv"):
            if (include / "cccl" / name).is_dir():
                link(include / "cccl" / name, include / name)
    else:
        return
    cub = include / "cub"
    if cub.is_symlink():
        cub.unlink()
    cub.mkdir()
    for file in real.iterdir():
        link(file, cub / file.name)
    extend(cub / "cub.cuh")


def extend(header):
    """Replaces a link by a header that includes the real one, and then defines more.

    The additions are in the file of the same name in cuda_headers/. Nothing happens if
    the link does not exist.
    """
    if not header.exists():
        return
    real = header.resolve()
    additions = (CUDA_HEADERS / header.name).read_text()
    header.unlink()
    header.write_text(f'#pragma once\n#include "{real}"\n\n{additions}')


def add_libraries(lib, root):
    """Links all libraries, also under the names that a linker and Jittor look for."""
    lib.mkdir()
    for source, pattern in library_folders(root):
        for file in sorted(source.glob(pattern)):
            if re.search(r"\.(so|a)(\.|$)", file.name):
                link(file, lib / file.name)
                link(file, lib / re.sub(r"\.so\..*", ".so", file.name))
    for old, new in CUDNN_LIBRARIES.items():
        library = lib / f"libcudnn_{new}.so"
        if library.exists():
            link(library, lib / f"libcudnn_{old}.so")


def link(file, target):
    """Makes `target` a link to the file, unless there is something of this name."""
    if not os.path.lexists(target):
        target.symlink_to(file.resolve())
