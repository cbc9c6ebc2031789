"""Whether Jittor can compute on this machine's GPU, decided before Jittor is imported.

Jittor 1.3 reads its settings at import, and where CUDA does not suit it the import itself fails: with a traceback, an
abort, or a download without a time limit. So everything that can be known is asked first, in this order: what the
user wants, the driver, nvcc, cuDNN, what the GPU needs. Where all of it says yes, a process of its own imports Jittor
with CUDA and compares a few numbers; that verdict is kept in Jittor's cache folder, by what it depends on. Any no is
the CPU, with a reason in one line.
"""

import ctypes
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from . import toolkit

NEWEST = {
    "CUDA": 12,
    "cuDNN": 8,
}  # Jittor 1.3.11 does not compile with newer ones (Jittor/jittor issue 666)
NEWEST_ADAPTED = {"CUDA": 13, "cuDNN": 9}  # behind the folder of `toolkit`
NEWEST_CODE = (
    90  # it compiles for sm_90 at most, and without PTX, which a newer GPU could translate
)
PROBE_SECONDS = 1800  # compiling Jittor with CUDA takes some minutes
PROBE = Path(__file__).with_name("probe.py")
NVCC_PLACES = (
    "/usr/local/cuda/bin/nvcc",
    "/usr/bin/nvcc",
    "/opt/cuda/bin/nvcc",
)  # where Jittor looks
DRIVERS = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")

# Run by a process of its own: cuInit fixes the devices that its process sees.
ASK_DRIVER = """
import ctypes, json
driver = ctypes.CDLL(NAME)
result, text = ctypes.c_int(0), ctypes.create_string_buffer(200)
def value(call, *args):
    return result.value if call(ctypes.byref(result), *args) == 0 else 0
assert driver.cuInit(0) == 0
version, devices = value(driver.cuDriverGetVersion), []
for i in range(value(driver.cuDeviceGetCount)):
    device = value(driver.cuDeviceGet, i)
    try:
        driver.cuDeviceGetName(text, 200, device)
        major, minor = (value(driver.cuDeviceGetAttribute, number, device) for number in (75, 76))
        capability = 10 * major + minor
    except AttributeError:
        capability = 0
    devices.append([text.value.decode() or "GPU", capability])
print(json.dumps([version // 1000, version % 1000 // 10, devices]))
"""


class No(Exception):
    """The GPU cannot be used; the text says why, and what would help."""


class Verdict(NamedTuple):
    """device: "cuda" or "cpu". gpu: the GPU's name, or "". reason: why a GPU is not used, or ""."""

    device: str
    gpu: str = ""
    reason: str = ""

    def line(self):
        """What a run says at its start."""
        if self.device == "cuda":
            return f"Device: {self.gpu}."
        return (
            f"Device: CPU; {self.gpu} is not used: {self.reason}."
            if self.gpu
            else "Device: CPU (no GPU)."
        )


def decide(argv, cache):
    """The verdict on this machine; sets the environment variables that Jittor then reads at its import.

    Args:
        argv: the command line; `--device cpu` leaves CUDA untouched.
        cache: Jittor's cache folder.
    """
    gpu = ""
    try:
        if wants_cpu(argv):
            return use_cpu(Verdict("cpu"))
        driver_version, devices = ask_driver()
        if not devices:
            return use_cpu(Verdict("cpu"))
        devices = [devices[own_device(len(devices))]]
        gpu = devices[0][0]
        nvcc, cuda_version, cudnn = find_toolkit(driver_version, cache)
        os.environ.update(settings(nvcc, cuda_version, [capability for _, capability in devices]))
        verdict_of_probe(cache, [driver_version, devices, nvcc, cudnn])
    except No as reason:
        return use_cpu(Verdict("cpu", gpu, str(reason)))
    return Verdict("cuda", gpu)


def own_device(n_devices):
    """The number of the device that this process takes: under mpirun each of a machine's processes its own, in turn.

    Jittor would give all of them the first one. The process sees no other device from then on.
    """
    rank = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)) % n_devices
    if n_devices > 1 and "OMPI_COMM_WORLD_LOCAL_RANK" in os.environ:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_devices)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank].strip()
    return rank


def wants_cpu(argv):
    return "--device=cpu" in argv or any(
        pair == ("--device", "cpu") for pair in zip(argv, argv[1:])
    )


def use_cpu(verdict):
    """Asks Jittor for its CPU build, also where nvcc_path names an nvcc that cannot be used."""
    os.environ["nvcc_path"] = ""
    return verdict


def output(command, seconds, problem):
    """What a command prints; No with `problem` where it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise No(f"{problem}: no answer in {seconds} seconds") from None
    except OSError as error:
        raise No(f"{problem}: {error.strerror}") from error
    if done.returncode:
        raise No(f"{problem}: it ends with code {done.returncode}")
    return done.stdout + done.stderr


def ask_driver():
    """The CUDA version that the driver supports, (major, minor), and [name, capability] of each device."""
    for name in DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        try:
            answer = output([sys.executable, "-c", ASK_DRIVER.replace("NAME", repr(name))], 30, "")
            major, minor, devices = json.loads(answer.splitlines()[-1])
        except (
            No,
            ValueError,
            IndexError,
        ):  # a driver without a device, or in a container that was given none
            return (0, 0), []
        return (major, minor), devices
    return (0, 0), []


def find_toolkit(driver_version, cache, tell=lambda name, text: None):
    """nvcc, its version (major, minor), and the header of a cuDNN, that Jittor can use; `tell` hears of each."""
    adapts = os.environ.get(toolkit.OPT_IN) == "1"
    newest = NEWEST_ADAPTED if adapts else NEWEST
    nvcc, cuda_version = find_nvcc(cache, toolkit.wheel_nvcc() if adapts else None)
    tell("nvcc", f"{cuda_version[0]}.{cuda_version[1]} at {nvcc}")
    check_versions(driver_version, cuda_version, newest["CUDA"])
    if adapts:
        nvcc = adapted(nvcc, cuda_version, cache)
    cudnn = find_cudnn(nvcc, newest["cuDNN"])
    tell("cuDNN", cudnn)
    return nvcc, cuda_version, cudnn


def find_nvcc(cache, last=None):
    """The nvcc that Jittor would take, or else `last`, as a path within its toolkit, and its version (major, minor)."""
    jtcuda = cache / "jtcuda"
    if jtcuda.is_dir() and not any(jtcuda.iterdir()):
        jtcuda.rmdir()  # left by a download that failed; with it Jittor ignores every other nvcc
    candidates = [
        *sorted(jtcuda.glob("*/bin/nvcc"), reverse=True),
        os.environ.get("nvcc_path"),
        shutil.which("nvcc"),
    ]
    nvcc = next(
        (
            str(path)
            for path in [*candidates, *NVCC_PLACES, last]
            if path and os.access(path, os.X_OK)
        ),
        None,
    )
    if nvcc is None:
        raise No("there is no nvcc; install CUDA 12 (its toolkit) and cuDNN 8")
    # Jittor takes the folder above nvcc's for the toolkit, which is wrong for a script that calls the real one.
    found = re.search(
        r"^#\$ TOP=(.*)$",
        output([nvcc, "--dryrun", "-x", "cu", "/dev/null"], 30, nvcc),
        re.MULTILINE,
    )
    if found:
        real = Path(found[1].strip()).resolve() / "bin" / "nvcc"
        nvcc = str(real) if real.is_file() else nvcc
    version = re.search(r"release (\d+)\.(\d+)", output([nvcc, "--version"], 30, nvcc))
    if version is None:
        raise No(f"{nvcc} does not tell its version")
    return nvcc, tuple(map(int, version.groups()))


def adapted(nvcc, cuda_version, cache):
    """As `toolkit.adapted`; No where the folder cannot be written."""
    try:
        return toolkit.adapted(nvcc, cuda_version, cache)
    except OSError as error:
        raise No(f"a folder for CUDA cannot be made in {cache}: {error.strerror}") from error


def check_versions(driver, cuda, newest):
    names = [f"{major}.{minor}" for major, minor in (driver, cuda)]
    if cuda[0] > driver[0]:
        raise No(
            f"its driver is for CUDA {names[0]}, and nvcc is {names[1]}; update the driver, or install an older CUDA"
        )
    if cuda[0] > newest:
        raise No(
            f"Jittor 1.3 does not compile with CUDA {names[1]}; install CUDA 12 and cuDNN 8 beside it"
        )


def find_cudnn(nvcc, newest):
    """The header that names cuDNN's version, beside nvcc or among the system's."""
    root = Path(nvcc).resolve().parents[1]
    folders = [root / "include", root / "targets/x86_64-linux/include", Path("/usr/include")]
    folders += [Path("/usr/include/x86_64-linux-gnu")]
    for folder in folders:
        header = folder / "cudnn_version.h"
        if header.is_file():
            major = re.search(r"#define\s+CUDNN_MAJOR\s+(\d+)", header.read_text(errors="replace"))
            if major and int(major[1]) > newest:
                raise No(f"Jittor 1.3 needs cuDNN {newest}, and {header} is version {major[1]}")
            return str(header.resolve())
    raise No(f"there is no cuDNN beside {root}; install cuDNN {newest} for this CUDA")


def settings(nvcc, cuda_version, capabilities):
    """The variables for a CUDA build; one that the user has set stays."""
    # Jittor would download the first three at its import, outside any `try`.
    wanted = {"use_cutt": "0", "use_cutlass": "0", "use_nccl": "0"}
    flags = {}  # of nvcc, and what Jittor's cache is named by them, since it does not see them
    if cuda_version[0] > NEWEST["CUDA"]:
        flags["cxx17"] = toolkit.CXX17
    if max(capabilities) > NEWEST_CODE:  # PTX too, from which the driver makes the newer GPU's code
        flags[f"ptx{NEWEST_CODE}"] = f"-code=compute_{NEWEST_CODE}"
    if flags:
        wanted |= {"NVCC_APPEND_FLAGS": " ".join(flags.values()), "cache_name": "_".join(flags)}
    return {
        **{name: os.environ.get(name, value) for name, value in wanted.items()},
        "nvcc_path": nvcc,
    }


# ---- the probe ----


def verdict_of_probe(cache, depends_on):
    """Nothing where Jittor has computed right numbers on the GPU, now or earlier; else No."""
    stamps = [os.stat(path).st_mtime_ns for path in depends_on[-2:]]
    compiler = os.environ.get("cc_path") or "g++"
    version = output([compiler, "--version"], 30, compiler).splitlines()[0]
    key = [*depends_on, stamps, version, sys.version, importlib.metadata.version("jittor")]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    kept, log = cache / "gpu_verdict.json", cache / "gpu_probe.log"
    with open(cache / "gpu_probe.lock", "w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # of several processes one probes, the others read its verdict
        reason = read_verdict(kept, digest)
        if reason is None:
            reason = probe(log)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"key": digest, "reason": reason}))
            os.replace(temporary, kept)
    if reason:
        raise No(f"{reason}; see {log}, and remove {kept} to try again")


def read_verdict(kept, digest):
    """The reason that is kept for this machine, "" for a GPU that works; None where nothing readable is."""
    try:
        verdict = json.loads(kept.read_text())
        return (
            verdict["reason"]
            if verdict["key"] == digest and isinstance(verdict["reason"], str)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def probe(log):
    """Imports Jittor with CUDA and compares numbers, in a process of its own; "" or what went wrong."""
    print(
        "Trying the GPU, once on this machine: Jittor compiles for it, which takes some minutes.",
        file=sys.stderr,
    )
    for _ in range(2):  # Jittor may end its first import with the code 0 and ask for another one
        with open(log, "w") as file:
            try:
                command, quiet = [sys.executable, str(PROBE)], subprocess.DEVNULL
                done = subprocess.run(
                    command, stdout=file, stderr=file, stdin=quiet, timeout=PROBE_SECONDS
                )
            except subprocess.TimeoutExpired:
                return f"the trial of the GPU took more than {PROBE_SECONDS / 60:.0f} minutes"
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        if done.returncode or (last and last[0].startswith("GPU: ")):
            break
    if last == ["GPU: right numbers"] and done.returncode == 0:
        return ""
    if last and last[0].startswith("GPU: "):
        return f"the trial of the GPU failed ({last[0][5:]})"
    return f"the trial of the GPU ended with code {done.returncode}"
