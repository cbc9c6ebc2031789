"""A folder that looks to Jittor like a CUDA toolkit which it knows, made of links: to CUDA 13 and cuDNN 9.

Jittor 1.3.11 was written for CUDA 12 and cuDNN 8. Of the newer ones it misses a few names, which small headers give
back, and takes a toolkit for one folder, where pip's wheels are several. The package itself stays as it is. No GPU has
proved it yet, so it is tried only where the variable OPT_IN is 1.
"""

import fcntl
import os
import re
import shutil
import site
import sys
from pathlib import Path

OPT_IN = "JITTOR_NEW_CUDA"
CXX17 = "-std=c++17"  # CUDA 13's libraries refuse the C++14 that Jittor asks for; of two, nvcc takes the last
VERSION = 2  # of the folder's content

# CUDA 13 has no cudaDeviceProp::clockRate and ::computeMode any more, which a header of Jittor reads to rate devices;
# and one source of Jittor uses std::array without including it, which older headers did.
CUDA_RUNTIME = """#pragma once
#include "{real}"
#ifdef __cplusplus
#include <array>
#if CUDART_VERSION >= 13000
#define clockRate multiProcessorCount
#define computeMode integrated
#endif
#endif
"""

# CUB 3 has dropped five names that Jittor's kernels use.
CUB = """#pragma once
#include "{real}"
#if CUB_VERSION >= 300000
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
CUB_NAMESPACE_BEGIN
#define JITTOR_OPERATOR(Name, expression) \\
    struct Name {{ template<class A, class B> __host__ __device__ auto operator()(const A& a, const B& b) const {{ \\
        return expression; }} }};
JITTOR_OPERATOR(Max, a < b ? b : a)
JITTOR_OPERATOR(Min, b < a ? b : a)
JITTOR_OPERATOR(Sum, a + b)
template<class T, class Offset = ptrdiff_t> using CountingInputIterator = thrust::counting_iterator<T>;
template<class T, class F, class Inner, class Offset = ptrdiff_t>
struct TransformInputIterator : thrust::transform_iterator<F, Inner, T> {{
    using Base = thrust::transform_iterator<F, Inner, T>;
    __host__ __device__ TransformInputIterator(Inner inner, F f) : Base(inner, f) {{}}
}};
CUB_NAMESPACE_END
#endif
"""

# Jittor needs the limits of integers, from a library of image functions that wheels do not hold.
NPP = """#pragma once
#include <cstdint>
#define NPP_MIN_32U 0
#define NPP_MAX_32U UINT32_MAX
#define NPP_MIN_64U 0
#define NPP_MAX_64U UINT64_MAX
#define NPP_MIN_32S INT32_MIN
#define NPP_MAX_32S INT32_MAX
#define NPP_MIN_64S INT64_MIN
#define NPP_MAX_64S INT64_MAX
"""

# cuDNN 9 has lost the calls of Jittor's recurrent layers. They must compile, and fail where they are called.
RECURRENT = (
    *("cudnnSetRNNDescriptor_v6", "cudnnGetRNNParamsSize", "cudnnGetRNNWorkspaceSize"),
    *(
        "cudnnGetRNNTrainingReserveSize",
        "cudnnGetRNNLinLayerMatrixParams",
        "cudnnGetRNNLinLayerBiasParams",
    ),
    *(
        "cudnnRNNForwardTraining",
        "cudnnRNNForwardInference",
        "cudnnRNNBackwardData",
        "cudnnRNNBackwardWeights",
    ),
)
CUDNN_CALL = "template<class... A> static inline cudnnStatus_t {name}(A...) {{ return CUDNN_STATUS_NOT_SUPPORTED; }}\n"
CUDNN = """#pragma once
#include "{real}"
#if defined(__cplusplus) && CUDNN_MAJOR >= 9
extern "C++" {{
{calls}}}
#endif
"""
# Jittor loads cuDNN 8's parts by name; of cuDNN 9 two libraries hold what four did.
CUDNN_PARTS = {"ops_infer": "ops", "ops_train": "ops", "cnn_infer": "cnn", "cnn_train": "cnn"}


def wheels():
    """The folders in which pip's wheels of CUDA lie, `nvidia` in each place of packages."""
    places = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
    folders = dict.fromkeys(Path(place) / "nvidia" for place in places if place)
    return [folder for folder in folders if folder.is_dir()]


def wheel_nvcc():
    """nvcc of pip's wheels, or None."""
    return next(
        (str(nvcc) for folder in wheels() for nvcc in sorted(folder.glob("cu*/bin/nvcc"))), None
    )


def sources(root, kind):
    """The folders of headers ("include") or libraries ("lib") of a toolkit at `root`, of wheels, of Debian's cuDNN."""
    names = ("include",) if kind == "include" else ("lib64", "lib")
    own = [root / name for name in names] + [root / "targets/x86_64-linux" / names[-1]]
    of_wheels = [path for folder in wheels() for path in sorted(folder.glob(f"*/{names[-1]}"))]
    system = Path(
        "/usr/include/x86_64-linux-gnu" if kind == "include" else "/usr/lib/x86_64-linux-gnu"
    )
    found = [(folder, "*") for folder in [*own, *of_wheels]] + [(system, "*cudnn*")]
    return [(folder, pattern) for folder, pattern in found if folder.is_dir()]


def adapted(nvcc, cuda_version, cache):
    """The nvcc of a folder in `cache` that Jittor can compile with: made once for each toolkit and set of wheels.

    Args:
        nvcc: the real one, within its toolkit.
        cuda_version: its version, (major, minor).
    """
    with open(cache / "cuda_folder.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one makes it
        return make(nvcc, cuda_version, cache)


def make(nvcc, cuda_version, cache):
    """As `adapted`, in the only process that does it."""
    root = Path(nvcc).resolve().parents[1]
    libraries = [
        str(file)
        for folder, pattern in sources(root, "lib")
        for file in sorted(folder.glob(pattern + ".so*"))
    ]
    stamp = repr((VERSION, nvcc, cuda_version, libraries))
    folder = cache / f"cuda{cuda_version[0]}.{cuda_version[1]}"
    made = folder / "bin" / "nvcc"
    if not (folder / "stamp").is_file() or (folder / "stamp").read_text() != stamp:
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        fill(temporary, root, nvcc, stamp)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    return str(made)


def fill(folder, root, nvcc, stamp):
    """Writes the folder's scripts, headers and links; a file that comes first hides a later one of its name."""
    include, lib, bin_ = (folder / name for name in ("include", "lib64", "bin"))
    for path in (include, lib, bin_):
        path.mkdir(parents=True)
    # A script, since Jittor would follow a link to the toolkit behind it.
    (bin_ / "nvcc").write_text(f'#!/bin/sh\nexec "{nvcc}" "$@"\n')
    (bin_ / "nvcc").chmod(0o755)
    for source, pattern in sources(root, "include"):
        for file in source.glob(pattern):
            link(file, include / file.name)
    for source, pattern in sources(root, "lib"):
        for file in sorted(source.glob(pattern)):
            if re.search(r"\.(so|a)(\.|$)", file.name):
                link(file, lib / file.name)
                link(
                    file, lib / re.sub(r"\.so\..*", ".so", file.name)
                )  # the name that a linker looks for
    for old, new in CUDNN_PARTS.items():
        if (lib / f"libcudnn_{new}.so").exists():
            link((lib / f"libcudnn_{new}.so").resolve(), lib / f"libcudnn_{old}.so")
    wrap(include / "cuda_runtime.h", CUDA_RUNTIME)
    wrap(
        include / "cudnn.h",
        CUDNN,
        calls="".join(CUDNN_CALL.format(name=name) for name in RECURRENT),
    )
    if not (include / "npp.h").exists():
        (include / "npp.h").write_text(NPP)
    wrap_cub(include)
    (folder / "stamp").write_text(stamp)


def wrap_cub(include):
    """`cub/cub.cuh` with what CUB 3 lacks; CUDA 13 keeps it in a folder of its own, beside thrust's and libcu++'s."""
    for place in (include, include / "cccl"):
        if not (place / "cub/cub.cuh").is_file():
            continue
        if place != include:
            for name in ("thrust", "cuda", "nv"):
                if (place / name).is_dir():
                    link(place / name, include / name)
        real = (place / "cub").resolve()
        if (include / "cub").is_symlink():
            (include / "cub").unlink()
        (include / "cub").mkdir()
        for file in real.iterdir():
            link(file, include / "cub" / file.name)
        wrap(include / "cub" / "cub.cuh", CUB)
        return


def wrap(header, text, **values):
    """Puts a header of its own in the place of a link, which includes the real one; nothing where there is none."""
    if header.exists():
        real = header.resolve()
        header.unlink()
        header.write_text(text.format(real=real, **values))


def link(source, target):
    if not os.path.lexists(target):
        target.symlink_to(source.resolve())
