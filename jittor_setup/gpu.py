"""Decides, before Jittor is imported, whether it can compute on this machine's GPU.

Jittor 1.3 reads its settings at its import. If a CUDA installation does not suit it,
the import itself fails, with a traceback, an abort or a download without a time limit.
So all that can be known is checked first, in this order: what the user wants, the
driver, nvcc, cuDNN, the machine code that the GPU needs. If nothing speaks against the
GPU, a separate process imports Jittor with CUDA and compares a few results with numpy's
(trial.py). If any check fails, the CPU is used, and one line says why.
"""

import os
from typing import NamedTuple

from . import toolkit, trial
from .errors import GpuUnusable
from .find_cuda import NEWEST, ask_driver, find_toolkit

# Jittor compiles for sm_90 at most, and adds no PTX that a newer GPU could translate.
NEWEST_CODE = 90


class Verdict(NamedTuple):
    """What computes.

    device: "cuda" or "cpu".
    gpu: The GPU's name, or "" if there is none.
    reason: Why the GPU is not used, or "".
    """

    device: str
    gpu: str = ""
    reason: str = ""

    def line(self):
        """The line that a run prints at its start."""
        if self.device == "cuda":
            return f"Device: {self.gpu}."
        if self.gpu:
            return f"Device: CPU; {self.gpu} is not used: {self.reason}."
        return "Device: CPU (no GPU)."


def decide(argv, cache):
    """Returns the verdict, and sets the environment variables that Jittor then reads.

    Args:
        argv: The command line. With `--device cpu` in it, CUDA is not touched.
        cache: Jittor's cache folder.
    """
    if wants_cpu(argv):
        return use_cpu(Verdict("cpu"))
    driver_version, devices = ask_driver()
    if not devices:
        return use_cpu(Verdict("cpu"))
    name, capability = devices[own_device(len(devices))]
    try:
        nvcc, cuda_version, cudnn = find_toolkit(driver_version, cache)
        os.environ.update(settings(nvcc, cuda_version, capability))
        trial.check(cache, [driver_version, [[name, capability]], nvcc, cudnn])
    except GpuUnusable as reason:
        return use_cpu(Verdict("cpu", name, str(reason)))
    return Verdict("cuda", name)


def wants_cpu(argv):
    """Whether the command line has `--device cpu` or `--device=cpu`."""
    return "--device=cpu" in argv or ("--device", "cpu") in zip(argv, argv[1:])


def use_cpu(verdict):
    """Makes Jittor build for the CPU, whatever nvcc is installed; returns `verdict`."""
    os.environ["nvcc_path"] = ""
    return verdict


def own_device(n_devices):
    """Returns the index of the device for this process, and hides the others from it.

    Under mpirun, the processes of a machine take its devices in turn. Jittor would give
    the first device to all of them.
    """
    if "OMPI_COMM_WORLD_LOCAL_RANK" not in os.environ:
        return 0
    index = int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"]) % n_devices
    if n_devices > 1:
        all_devices = ",".join(str(i) for i in range(n_devices))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or all_devices
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index].strip()
    return index


def settings(nvcc, cuda_version, capability):
    """The environment variables for a build with CUDA. Those that are set are kept.

    Args:
        nvcc: The path of nvcc, which is set in any case.
        cuda_version: Its version, (major, minor).
        capability: The GPU's compute capability, times 10.
    """
    # Jittor would download these three libraries at its import, outside any `try`.
    wanted = {"use_cutt": "0", "use_cutlass": "0", "use_nccl": "0"}
    # Jittor's cache does not notice these flags of nvcc, so a name for each goes into
    # the name of the cache.
    flags = {}
    if cuda_version[0] > NEWEST["CUDA"]:
        flags["cxx17"] = toolkit.CXX17
    if capability > NEWEST_CODE:
        # PTX, from which the driver makes machine code for the newer GPU.
        flags[f"ptx{NEWEST_CODE}"] = f"-code=compute_{NEWEST_CODE}"
    if flags:
        wanted["NVCC_APPEND_FLAGS"] = " ".join(flags.values())
        wanted["cache_name"] = "_".join(flags)
    for name in wanted:
        wanted[name] = os.environ.get(name, wanted[name])
    wanted["nvcc_path"] = nvcc
    return wanted
