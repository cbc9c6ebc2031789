"""Says what this machine lacks to run the scripts, or to use its GPU.

    python tools/doctor.py
    python tools/doctor.py --probe

It prints one line for each thing that matters, with what would help. The exit code is 0
if the scripts run, at least on the CPU, and 2 otherwise. Only --probe imports Jittor:
it compiles Jittor if that has not been done, and tries the GPU if there is one.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jittor_setup
from jittor_setup import cache, damage, find_cuda, gpu, newer, onednn, requirements
from jittor_setup.errors import GpuUnusable, SetupError

ROOT = Path(__file__).resolve().parents[1]
GIB = 1 << 30
PACKAGES = ("jittor", "numpy", "pillow", "tqdm", "matplotlib")


class Report:
    """Prints the lines; `ok` is False after one that keeps the scripts from running."""

    def __init__(self):
        self.ok = True

    def line(self, name, text, state="ok"):
        """Prints a line.

        Args:
            name: What was checked.
            text: What was found, and what would help.
            state: "ok", "note" (the scripts run without it) or "MISSING" (they do not).
        """
        print(f"{name:11} {state:8} {text}", flush=True)
        if state == "MISSING":
            self.ok = False


# ---- the checks ----


def check_software(report):
    system = platform.system()
    advice = "; on Windows use WSL (wsl --install), which is a Linux" if system == "Windows" else ""
    report.line("system", f"{platform.platform()}{advice}", "ok" if system == "Linux" else "note")
    try:
        requirements.check_python()
        report.line("Python", f"{platform.python_version()} at {sys.executable}")
    except SetupError as problem:
        report.line("Python", problem, "MISSING")
    check_packages(report)
    try:
        requirements.check_compiler()
        report.line("compiler", first_line([requirements.compiler_name(), "--version"]))
    except SetupError as problem:
        report.line("compiler", problem, "MISSING")
    try:
        requirements.python_config()
        report.line("headers", "Python's headers are installed")
    except SetupError as problem:
        report.line("headers", problem, "MISSING")
    mends = newer.mends(requirements.compiler_name())
    if mends:
        report.line("mends", f"{', '.join(mends)} (jittor_setup/newer.py)")
    check_libstdcxx(report)


def check_packages(report):
    try:
        requirements.check_packages()
    except SetupError as problem:
        report.line("packages", problem, "MISSING")
        return
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            advice = "run 'pip install -r requirements.txt'"
            report.line("packages", f"{name} is not installed: {advice}", "MISSING")
            return
    report.line("packages", ", ".join(versions))


def first_line(command):
    """The first line that a command prints, or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not answer ({error})"
    lines = done.stdout.splitlines()
    return lines[0] if lines else "?"


def check_libstdcxx(report):
    """Conda has its own libstdc++, which may be older than what g++ compiles for."""
    if "CONDA_PREFIX" not in os.environ:
        return
    libraries = sorted(Path(os.environ["CONDA_PREFIX"]).glob("lib/libstdc++.so.6.*"))
    if libraries:
        report.line(
            "libstdc++",
            f"conda's {libraries[-1].name}; if an import fails with GLIBCXX: "
            "conda install -c conda-forge libstdcxx-ng",
            "note",
        )
    else:
        report.line("libstdc++", "the system's, since conda has none here")


def check_cache(report):
    """Checks Jittor's cache folder; returns its path, or None if it is unusable."""
    try:
        folder = cache.cache_folder()
    except SetupError as problem:
        report.line("cache", problem, "MISSING")
        return None
    unusual = re.search(r"[^A-Za-z0-9_./+:\\-]", str(folder))
    if unusual:
        report.line(
            "cache",
            f"{folder} contains {unusual[0]!r}, which compilers may not accept; "
            "set JITTOR_HOME to a plain path",
            "note",
        )
    else:
        report.line("cache", folder)
    return folder


def check_limits(report, folder):
    """Locks in the cache folder, open files, and what a loss of power has damaged."""
    try:
        jittor_setup.allow_files()
    except SetupError as problem:
        report.line("files", problem, "MISSING")
    if cache.allow_no_locks(folder):
        report.line("locks", "the cache folder's file system has them")
    else:
        report.line(
            "locks", "none on the cache folder's file system: start one run at a time", "note"
        )
    damaged = [path for path in damage.libraries(folder) if not damage.is_whole(path)]
    for path in damaged[:3]:
        report.line("damaged", f"{path}; the next run removes it and compiles again", "note")


def check_resources(report, folder):
    free = shutil.disk_usage(folder).free / GIB
    report.line(
        "disk", f"{free:.1f} GiB free there; Jittor takes about 0.5", "ok" if free > 2 else "note"
    )
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        report.line(
            "memory", f"{memory:.1f} GiB, {os.cpu_count()} cores", "ok" if memory > 3 else "note"
        )


def check_compiled(report, folder):
    """What is in Jittor's cache folder already."""
    if cache.core_is_compiled(folder):
        report.line("Jittor", "compiled for this machine")
    else:
        report.line("Jittor", "not compiled yet: the first run takes minutes")
    if onednn.is_installed() or onednn.is_linked(folder):
        report.line("oneDNN", "installed")
    else:
        report.line(
            "oneDNN",
            "missing: Jittor downloads it, unless you run 'pip install -r requirements.txt'",
            "note",
        )


def check_gpu(report, folder, probe):
    """The driver, nvcc and cuDNN, one by one, and then what a run would decide."""
    driver, devices = find_cuda.ask_driver()
    if not devices:
        report.line("GPU", "none found, no NVIDIA driver answers; scripts use the CPU")
        return
    names = []
    for name, capability in devices:
        names.append(f"{name} (capability {capability / 10:.1f})")
    report.line("GPU", f"{', '.join(names)}; the driver is for CUDA {driver[0]}.{driver[1]}")
    try:
        find_cuda.find_toolkit(driver, folder, report.line)
    except GpuUnusable as reason:
        report.line("verdict", f"scripts use the CPU: {reason}", "note")
        return
    if not probe:
        report.line("verdict", "nothing speaks against it; --probe, or the first run, tries it")
        return
    verdict = gpu.decide([], folder)
    if verdict.reason:
        report.line("verdict", verdict.reason, "note")
    else:
        report.line("verdict", "Jittor computes correct results on it")


def check_processes(report):
    for command, package in (("mpirun", "openmpi-bin"), ("mpicc", "libopenmpi-dev")):
        found = shutil.which(command)
        text = found or f"missing; only runs with several processes need it (Debian: {package})"
        report.line(command, text, "ok" if found else "note")
    if os.environ.get("use_nccl", "0") != "0":
        report.line("NCCL", "as use_nccl says")
    else:
        report.line("NCCL", "not used: several processes exchange gradients through the host")


def check_import(report):
    """Imports Jittor in a separate process and computes one sum."""
    code = "import common, jittor as jt; print((jt.ones(3) * 2).sum().item())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout.split()[-1:] == ["6.0"]:
        report.line("Jittor", "it computes on the CPU")
    else:
        lines = done.stderr.strip().splitlines() or ["?"]
        report.line("Jittor", f"it fails: {lines[-1]}", "MISSING")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probe", action="store_true", help="import Jittor, and try the GPU")
    args = parser.parse_args(argv)
    report = Report()
    check_software(report)
    folder = check_cache(report)
    if folder is not None:
        check_limits(report, folder)
        check_resources(report, folder)
        check_compiled(report, folder)
        check_gpu(report, folder, args.probe)
    check_processes(report)
    if args.probe and report.ok:
        check_import(report)
    if not report.ok:
        print("The scripts do not run yet: see the lines with MISSING.")
        raise SystemExit(2)
    print("The scripts run on this machine.")
    raise SystemExit(0)


if __name__ == "__main__":
    main()
