"""The folder that stands for a CUDA toolkit: its links, and its headers, compiled against stand-ins."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_gpu import DRIVER

from jittor_setup import gpu, toolkit

RUNTIME = """
#define CUDART_VERSION 13000
struct cudaDeviceProp { int multiProcessorCount, integrated; };
"""
CUDNN = """
#define CUDNN_MAJOR 9
enum cudnnStatus_t { CUDNN_STATUS_SUCCESS, CUDNN_STATUS_NOT_SUPPORTED = 3000 };
"""
CUB_FILE = """
#define CUB_VERSION 300000
#define CUB_NAMESPACE_BEGIN namespace cub {
#define CUB_NAMESPACE_END }
#define __host__
#define __device__
#include <cstddef>
"""
ITERATORS = {
    "counting": "namespace thrust { template<class T> struct counting_iterator {}; }",
    "transform": """
namespace thrust {
template<class F, class I, class T> struct transform_iterator {
    F f;
    I i;
    transform_iterator(I i, F f) : f(f), i(i) {}
};
}""",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A toolkit of CUDA 13 with its compiler alone, wheels with a library and cuDNN 9, and a cache."""
    files = {
        "cuda/bin/nvcc": '#!/bin/sh\necho "real nvcc $@"\n',
        "cuda/include/cuda_runtime.h": RUNTIME,
        "cuda/include/cccl/cub/cub.cuh": CUB_FILE,
        "cuda/include/cccl/cub/block.cuh": "",
        "cuda/include/cccl/cuda/std/array": "",
        "cuda/lib64/libcudart.so.13": "",
        "site/nvidia/cu13/include/cublas.h": "",
        "site/nvidia/cu13/lib/libcublas.so.13": "",
        "site/nvidia/cudnn/include/cudnn.h": CUDNN,
        "site/nvidia/cudnn/include/cudnn_version.h": "#define CUDNN_MAJOR 9\n",
        **{f"site/nvidia/cudnn/lib/libcudnn{part}.so.9": part for part in ("", "_ops", "_cnn")},
        **{f"cuda/include/cccl/thrust/iterator/{k}_iterator.h": v for k, v in ITERATORS.items()},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cuda/bin/nvcc").chmod(0o755)
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(toolkit, "wheels", lambda: [tmp_path / "site/nvidia"])
    return tmp_path


def adapted(machine):
    return toolkit.adapted(str(machine / "cuda/bin/nvcc"), (13, 0), machine / "cache")


def runs(machine, code):
    """What a C++ program prints that includes from the folder, compiled as Jittor compiles."""
    adapted(machine)
    source, program = machine / "program.cc", machine / "program"
    source.write_text(code)
    include = machine / "cache/cuda13.0/include"
    subprocess.run(
        ["g++", "-std=c++14", f"-I{include}", str(source), "-o", str(program)], check=True
    )
    return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


def test_nvcc_is_a_file_that_calls_the_real_one(machine):
    """Jittor follows a link to find the toolkit's folder."""
    nvcc = machine / "cache/cuda13.0/bin/nvcc"
    assert adapted(machine) == str(nvcc)
    assert not nvcc.is_symlink()
    answer = subprocess.run([str(nvcc), "--version", "a b"], capture_output=True, text=True).stdout
    assert answer == "real nvcc --version a b\n"


def test_libraries_of_all_places_have_the_names_that_a_linker_wants(machine):
    adapted(machine)
    lib = machine / "cache/cuda13.0/lib64"
    assert {"libcudart.so", "libcublas.so", "libcudnn.so", "libcudnn.so.9"} <= {
        file.name for file in lib.iterdir()
    }
    for name, part in {
        "ops_infer": "_ops",
        "ops_train": "_ops",
        "cnn_infer": "_cnn",
        "cnn_train": "_cnn",
    }.items():
        assert (lib / f"libcudnn_{name}.so").read_text() == part


def test_the_runtimes_header_has_what_cuda_13_dropped(machine):
    code = """
#include <cuda_runtime.h>
#include <cstdio>
int main() {
    cudaDeviceProp p{7, 2};
    std::array<int, 2> both{p.clockRate, p.computeMode};  // its header is included too
    std::printf("%d %d", both[0], both[1]);
}"""
    assert runs(machine, code) == "7 2"


def test_recurrent_calls_compile_and_fail(machine):
    code = '#include <cudnn.h>\n#include <cstdio>\nint main() { std::printf("%d", cudnnRNNForwardTraining(1, nullptr)); }'
    assert runs(machine, code) == "3000"


def test_cub_has_the_dropped_names_beside_its_own_files(machine):
    code = """
#include <cub/cub.cuh>
#include <cub/block.cuh>
#include <npp.h>
#include <cstdio>
struct Double { int operator()(int x) { return 2 * x; } };
int main() {
    cub::TransformInputIterator<int, Double, int> twice(21, Double());
    cub::CountingInputIterator<int> counter;
    (void)counter;
    std::printf("%d %d %d %d %d", cub::Max()(2, 3), cub::Min()(2, 3), cub::Sum()(2, 3), twice.f(twice.i), NPP_MIN_32S);
}"""
    assert runs(machine, code) == "3 2 5 42 -2147483648"


def test_the_folder_is_made_once_and_again_for_other_libraries(machine):
    adapted(machine)
    stamp = machine / "cache/cuda13.0/stamp"
    made = stamp.stat().st_mtime_ns
    adapted(machine)
    assert stamp.stat().st_mtime_ns == made
    (machine / "site/nvidia/cu13/lib/libcurand.so.10").write_text("")
    adapted(machine)
    assert stamp.stat().st_mtime_ns != made
    assert (machine / "cache/cuda13.0/lib64/libcurand.so").exists()
    assert sorted(f.name for f in (machine / "cache").iterdir()) == ["cuda13.0", "cuda_folder.lock"]


def test_cudnn_9_is_found_in_the_folder(machine):
    nvcc = adapted(machine)
    assert gpu.find_cudnn(nvcc, newest=9).endswith("cudnn_version.h")
    with pytest.raises(gpu.No, match="needs cuDNN 8"):
        gpu.find_cudnn(nvcc, newest=8)


def test_settings_of_cuda_13(monkeypatch):
    for name in ("NVCC_APPEND_FLAGS", "cache_name"):
        monkeypatch.delenv(name, raising=False)
    wanted = gpu.settings("nvcc", (13, 0), [90, 120])
    assert wanted["NVCC_APPEND_FLAGS"] == "-std=c++17 -code=compute_90"
    assert wanted["cache_name"] == "cxx17_ptx90"
    assert "NVCC_APPEND_FLAGS" not in gpu.settings("nvcc", (12, 2), [90])


# ---- the real CUDA 13, without a GPU ----

REDUCTION = """
#include <cuda_runtime.h>
#include <cub/cub.cuh>
struct Square { __device__ float operator()(float x) const { return x * x; } };
int main() {
    float *x = nullptr, *y = nullptr;
    size_t bytes = 0;
    cub::TransformInputIterator<float, Square, float*> squares(x, Square());
    cub::DeviceReduce::Reduce(nullptr, bytes, squares, y, 9, cub::Max(), 0.f);
    cub::DeviceReduce::Reduce(nullptr, bytes, cub::CountingInputIterator<int>(0), y, 9, cub::Sum(), 0.f);
    cub::DeviceReduce::Reduce(nullptr, bytes, x, y, 9, cub::Min(), 0.f);
}
"""


def has_wheels():
    headers = [path for folder in toolkit.wheels() for path in folder.glob("*/include/cudnn.h")]
    return toolkit.wheel_nvcc() is not None and bool(headers)


@pytest.mark.slow
@pytest.mark.skipif(not has_wheels(), reason="needs the wheels of requirements-cuda.txt")
def test_jittor_compiles_with_cuda_13(tmp_path):
    """Its core by the real way, until it calls the stand-in driver; then what it compiles for the libraries."""
    (tmp_path / "driver.cc").write_text(DRIVER)
    numbers = [f"-D{name}" for name in ("VERSION=13000", "COUNT=1", "INIT=0", "CAPABILITY=86")]
    library = [
        "-shared",
        "-fPIC",
        *numbers,
        tmp_path / "driver.cc",
        "-o",
        tmp_path / "libcuda.so.1",
    ]
    subprocess.run(["g++", *map(str, library)], check=True)
    variables = {"HOME": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path), toolkit.OPT_IN: "1"}
    set_by_jittor = ("JITTOR_HOME", "cache_name", "nvcc_path")
    environment = {
        name: value for name, value in os.environ.items() if name not in set_by_jittor
    } | variables
    code = "import jittor_setup; print(jittor_setup.gpu.decide([], jittor_setup.cache_folder()).reason)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(toolkit.__file__).parents[1],
    )
    cache = tmp_path / ".cache/jittor"
    assert done.stdout.startswith("the trial of the GPU ended with code -6")
    assert "cudaErrorCallRequiresNewerDriver" in (cache / "gpu_probe.log").read_text(
        errors="replace"
    )
    (core,) = cache.glob("jt*/**/cxx17/cu13*/jittor_core*.so")

    compiler, source, *options = shlex.split(
        (core.parent / "obj_files/array_op.cc.o.key").read_text().splitlines()[0]
    )
    options = [*options[: options.index("-c")], "-fsyntax-only"]
    libraries = Path(source).parents[2] / "extern/cuda"
    for name in ("cudnn", "cublas", "curand", "cub"):
        include = [f"-I{libraries / path}" for path in ("inc", f"{name}/inc", f"{name}/ops")]
        sources = sorted(map(str, (libraries / name).rglob("*.cc")))
        assert sources
        for each in sources:
            subprocess.run([compiler, *options, *include, each], check=True)

    (tmp_path / "reduction.cu").write_text(REDUCTION)
    (nvcc,) = cache.glob("cuda13.*/bin/nvcc")
    flags = [
        toolkit.CXX17,
        f"-I{nvcc.parents[1] / 'include'}",
        "-arch=sm_86",
        "-c",
        "-o",
        tmp_path / "reduction.o",
    ]
    subprocess.run([nvcc, *flags, tmp_path / "reduction.cu"], check=True)
