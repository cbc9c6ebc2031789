"""The folder that looks like a CUDA toolkit: its links and its headers."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_driver import compile_driver

from jittor_setup import find_cuda, gpu, toolkit
from jittor_setup.errors import GpuUnusable

ROOT = Path(__file__).resolve().parents[2]

# Stand-ins for the real headers, with as much as the additions need.
CUDA_RUNTIME = """
#define CUDART_VERSION 13000
struct cudaDeviceProp { int multiProcessorCount, integrated; };
"""
CUDNN = """
#define CUDNN_MAJOR 9
enum cudnnStatus_t { CUDNN_STATUS_SUCCESS, CUDNN_STATUS_NOT_SUPPORTED = 3000 };
"""
CUB = """
#define CUB_VERSION 300000
#define CUB_NAMESPACE_BEGIN namespace cub {
#define CUB_NAMESPACE_END }
#define __host__
#define __device__
#include <cstddef>
"""
COUNTING_ITERATOR = "namespace thrust { template<class T> struct counting_iterator {}; }"
TRANSFORM_ITERATOR = """
namespace thrust {
template<class F, class I, class T> struct transform_iterator {
    F f;
    I i;
    transform_iterator(I i, F f) : f(f), i(i) {}
};
}
"""
FILES = {  # a toolkit without libraries, and wheels with cuBLAS and cuDNN 9
    "cuda/bin/nvcc": '#!/bin/sh\necho "real nvcc $@"\n',
    "cuda/include/cuda_runtime.h": CUDA_RUNTIME,
    "cuda/include/cccl/cub/cub.cuh": CUB,
    "cuda/include/cccl/cub/block.cuh": "",
    "cuda/include/cccl/cuda/std/array": "",
    "cuda/include/cccl/thrust/iterator/counting_iterator.h": COUNTING_ITERATOR,
    "cuda/include/cccl/thrust/iterator/transform_iterator.h": TRANSFORM_ITERATOR,
    "cuda/lib64/libcudart.so.13": "",
    "site/nvidia/cu13/include/cublas.h": "",
    "site/nvidia/cu13/lib/libcublas.so.13": "",
    "site/nvidia/cudnn/include/cudnn.h": CUDNN,
    "site/nvidia/cudnn/include/cudnn_version.h": "#define CUDNN_MAJOR 9\n",
    "site/nvidia/cudnn/lib/libcudnn.so.9": "",
    "site/nvidia/cudnn/lib/libcudnn_ops.so.9": "ops",
    "site/nvidia/cudnn/lib/libcudnn_cnn.so.9": "cnn",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder with the files above and an empty cache."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "cuda/bin/nvcc").chmod(0o755)
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(toolkit, "wheels", lambda: [tmp_path / "site/nvidia"])
    return tmp_path


def adapted(machine):
    return toolkit.adapted(str(machine / "cuda/bin/nvcc"), (13, 0), machine / "cache")


def output_of_program(machine, code):
    """Compiles a C++ program with the folder's headers and returns what it prints."""
    adapted(machine)
    source = machine / "program.cc"
    program = machine / "program"
    source.write_text(code)
    include = machine / "cache/cuda13.0/include"
    command = ["g++", "-std=c++14", f"-I{include}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


def test_nvcc_is_a_script_that_calls_the_real_one(machine):
    """Jittor would follow a link, to the real toolkit's folder."""
    nvcc = machine / "cache/cuda13.0/bin/nvcc"
    assert adapted(machine) == str(nvcc)
    assert not nvcc.is_symlink()
    done = subprocess.run([str(nvcc), "--version", "a b"], capture_output=True, text=True)
    assert done.stdout == "real nvcc --version a b\n"


def test_libraries_are_linked_under_the_names_that_are_looked_for(machine):
    adapted(machine)
    lib = machine / "cache/cuda13.0/lib64"
    for name in ("libcudart.so", "libcublas.so", "libcudnn.so", "libcudnn.so.9"):
        assert (lib / name).exists()
    for half in ("ops", "cnn"):
        for use in ("infer", "train"):
            assert (lib / f"libcudnn_{half}_{use}.so").read_text() == half


def test_cuda_runtime_defines_what_cuda_13_removed(machine):
    code = """
#include <cuda_runtime.h>
#include <cstdio>
int main() {
    cudaDeviceProp p{7, 2};
    std::array<int, 2> both{p.clockRate, p.computeMode};  // <array> is included too
    std::printf("%d %d", both[0], both[1]);
}
"""
    assert output_of_program(machine, code) == "7 2"


def test_calls_of_recurrent_layers_compile_and_fail(machine):
    code = """
#include <cudnn.h>
#include <cstdio>
int main() { std::printf("%d", cudnnRNNForwardTraining(1, nullptr)); }
"""
    assert output_of_program(machine, code) == "3000"


def test_cub_defines_what_version_3_removed(machine):
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
    std::printf("%d %d %d ", cub::Max()(2, 3), cub::Min()(2, 3), cub::Sum()(2, 3));
    std::printf("%d %d", twice.f(twice.i), NPP_MIN_32S);
}
"""
    assert output_of_program(machine, code) == "3 2 5 42 -2147483648"


def test_the_folder_is_made_again_only_for_other_libraries(machine):
    adapted(machine)
    stamp = machine / "cache/cuda13.0/stamp"
    made = stamp.stat().st_mtime_ns
    adapted(machine)
    assert stamp.stat().st_mtime_ns == made
    (machine / "site/nvidia/cu13/lib/libcurand.so.10").write_text("")
    adapted(machine)
    assert stamp.stat().st_mtime_ns != made
    assert (machine / "cache/cuda13.0/lib64/libcurand.so").exists()
    names = sorted(file.name for file in (machine / "cache").iterdir())
    assert names == ["cuda13.0", "cuda_folder.lock"]  # nothing temporary is left


def test_cudnn_9_is_found_in_the_folder(machine):
    nvcc = adapted(machine)
    assert find_cuda.find_cudnn(nvcc, newest=9).endswith("cudnn_version.h")
    with pytest.raises(GpuUnusable, match="needs cuDNN 8"):
        find_cuda.find_cudnn(nvcc, newest=8)


def test_settings_of_cuda_13(monkeypatch):
    for name in ("NVCC_APPEND_FLAGS", "cache_name"):
        monkeypatch.delenv(name, raising=False)
    settings = gpu.settings("nvcc", (13, 0), 120)
    assert settings["NVCC_APPEND_FLAGS"] == "-std=c++17 -code=compute_90"
    assert settings["cache_name"] == "cxx17_ptx90"
    assert "NVCC_APPEND_FLAGS" not in gpu.settings("nvcc", (12, 2), 90)


# ---- the real CUDA 13, without a GPU ----

REDUCTION = """
#include <cuda_runtime.h>
#include <cub/cub.cuh>
struct Square { __device__ float operator()(float x) const { return x * x; } };
int main() {
    float *x = nullptr, *y = nullptr;
    size_t bytes = 0;
    cub::TransformInputIterator<float, Square, float*> squares(x, Square());
    cub::CountingInputIterator<int> counter(0);
    cub::DeviceReduce::Reduce(nullptr, bytes, squares, y, 9, cub::Max(), 0.f);
    cub::DeviceReduce::Reduce(nullptr, bytes, counter, y, 9, cub::Sum(), 0.f);
    cub::DeviceReduce::Reduce(nullptr, bytes, x, y, 9, cub::Min(), 0.f);
}
"""


def has_wheels():
    headers = [path for folder in toolkit.wheels() for path in folder.glob("*/include/cudnn.h")]
    return toolkit.wheel_nvcc() is not None and bool(headers)


@pytest.fixture(scope="module")
def jittor_cache(tmp_path_factory):
    """Jittor's cache after a trial with the wheels and a stand-in driver.

    The core of Jittor is compiled until its first call of the driver, which fails.
    """
    home = tmp_path_factory.mktemp("home")
    compile_driver(home / "libcuda.so.1", version=13000)
    environment = {**os.environ, "HOME": str(home), "LD_LIBRARY_PATH": str(home)}
    environment[toolkit.OPT_IN] = "1"
    for name in ("JITTOR_HOME", "cache_name", "nvcc_path"):  # the test process has set them
        environment.pop(name, None)
    code = "from jittor_setup import cache, gpu; print(gpu.decide([], cache.cache_folder()).reason)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.startswith("the trial of the GPU ended with code -6")
    cache = home / ".cache/jittor"
    log = (cache / "gpu_probe.log").read_text(errors="replace")
    assert "cudaErrorCallRequiresNewerDriver" in log
    return cache


@pytest.mark.slow
@pytest.mark.skipif(not has_wheels(), reason="needs the wheels of requirements-cuda.txt")
def test_jittor_compiles_with_the_wheels(jittor_cache):
    """Its core, and what it compiles for cuDNN, cuBLAS, cuRAND and CUB."""
    (core,) = jittor_cache.glob("jt*/**/cxx17/cu13*/jittor_core*.so")
    kept = (core.parent / "obj_files/array_op.cc.o.key").read_text().splitlines()[0]
    compiler, source, *options = shlex.split(kept)
    options = [*options[: options.index("-c")], "-fsyntax-only"]
    libraries = Path(source).parents[2] / "extern/cuda"
    for name in ("cudnn", "cublas", "curand", "cub"):
        include = [f"-I{libraries / path}" for path in ("inc", f"{name}/inc", f"{name}/ops")]
        sources = sorted((libraries / name).rglob("*.cc"))
        assert sources
        for each in sources:
            subprocess.run([compiler, *options, *include, str(each)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not has_wheels(), reason="needs the wheels of requirements-cuda.txt")
def test_nvcc_compiles_reductions_with_the_removed_names(jittor_cache, tmp_path):
    (tmp_path / "reduction.cu").write_text(REDUCTION)
    (nvcc,) = jittor_cache.glob("cuda13.*/bin/nvcc")
    include = f"-I{nvcc.parents[1] / 'include'}"
    flags = [toolkit.CXX17, include, "-arch=sm_86", "-c", "-o", tmp_path / "reduction.o"]
    subprocess.run([nvcc, *flags, tmp_path / "reduction.cu"], check=True)
