"""Puts oneDNN where Jittor looks for it, so that Jittor does not download it.

Jittor computes its convolutions and matrix products on a CPU with oneDNN. At its first
import it downloads version 2.2 from a university's server, and fails without it. Two
packages in requirements.txt hold the same version; this file links to them.
"""

import importlib.metadata
import os
import platform
from pathlib import Path

FOLDER = "dnnl_lnx_2.2.0_cpu_gomp"  # Jittor 1.3 looks for this folder before it downloads
LIBRARY = ("onednn-cpu-gomp", "libmkldnn.so")  # a package, and a file in it
HEADERS = ("onednn-devel-cpu-gomp", "dnnl.hpp")


def link_onednn(cache):
    """Links oneDNN into Jittor's cache folder, `cache`, if its packages are installed.

    Jittor expects `<cache>/mkl/dnnl_lnx_2.2.0_cpu_gomp/lib/libmkldnn.so` and, beside
    `lib`, a folder `include`. A working installation is left alone, and a link whose
    target no longer exists is replaced. Two processes may do this at the same time.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return  # the packages hold libraries for no other system
    library = package_folder(*LIBRARY)
    headers = package_folder(*HEADERS)
    if library is None or headers is None:
        return
    target = cache / "mkl" / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    if not is_linked(cache):
        place_link(library, target / "lib")
    if not (target / "include" / "dnnl.hpp").is_file():
        place_link(headers, target / "include")


def is_linked(cache):
    """Whether Jittor finds oneDNN's library in its cache folder."""
    return (cache / "mkl" / FOLDER / "lib" / "libmkldnn.so").is_file()


def is_installed():
    """Whether the package with oneDNN's library is installed."""
    return package_folder(*LIBRARY) is not None


def package_folder(package, file_name):
    """The folder in which an installed package has a file of this name, or None."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(file.locate())
        if path.name == file_name and path.is_file():
            return path.resolve().parent
    return None


def place_link(source, link):
    """Makes `link` point to the folder `source`.

    If `link` is a real folder, with some of the files perhaps, the missing ones are
    linked.
    """
    if link.is_dir() and not link.is_symlink():
        for file in source.iterdir():
            if not (link / file.name).exists():
                place_link(file, link / file.name)
        return
    # Renaming replaces a link at once: other processes see the old one or the new one.
    temporary = link.with_name(f"{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    os.replace(temporary, link)
