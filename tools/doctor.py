"""Says what on this machine keeps the scripts from running, or from using its GPU, and what would cure it.

    python tools/doctor.py
    python tools/doctor.py --probe

One line for each thing that matters; exit code 0 where the scripts run, on the CPU at least, else 2. Jittor is
imported with --probe alone: that compiles it, if that has not been done, and tries the GPU, if there is one.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "common")
)  # importing all of `common` would import Jittor

import jittor_setup
from jittor_setup import gpu

ROOT = Path(__file__).resolve().parents[1]
GIB = 1 << 30


class Report:
    """Prints lines; `ok` is False once something has been found without which no script runs."""

    def __init__(self):
        self.ok = True

    def line(self, name, text, state="ok"):
        print(f"{name:11} {state:8} {text}", flush=True)
        self.ok = self.ok and state != "MISSING"


def complaint(check):
    """What a check of `jittor_setup` says before it would end the program; None where all is well."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            check()
    except SystemExit:
        return errors.getvalue().strip().removeprefix("error: ")
    return None


def check_software(report):
    system = platform.system()
    windows = (
        "; on Windows use WSL (wsl --install), which is a Linux" if system == "Windows" else ""
    )
    report.line("system", f"{platform.platform()}{windows}", "ok" if system == "Linux" else "note")
    report.line("Python", f"{platform.python_version()} at {sys.executable}")
    problem = complaint(jittor_setup.check_requirements)
    packages = []
    for name in ("jittor", "numpy", "pillow", "tqdm", "matplotlib"):
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            packages.append(f"{name} missing")
            problem = problem or f"{name} is not installed: run 'pip install -r requirements.txt'"
    report.line("packages", problem or ", ".join(packages), "MISSING" if problem else "ok")
    compiler = os.environ.get("cc_path") or "g++"
    if shutil.which(compiler):
        report.line("compiler", first_line([compiler, "--version"]))
    problem = complaint(jittor_setup.python_config)
    report.line("headers", problem or "Python's headers are there", "MISSING" if problem else "ok")
    check_libstdcxx(report)


def first_line(command):
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.splitlines()
            or ["?"]
        )[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not answer ({error})"


def check_libstdcxx(report):
    """Conda brings a libstdc++ of its own, which may be older than what the system's g++ compiles for."""
    if "CONDA_PREFIX" not in os.environ:
        return
    own = sorted(Path(os.environ["CONDA_PREFIX"]).glob("lib/libstdc++.so.6.*"))
    text = (
        f"conda's {own[-1].name}; if an import fails with GLIBCXX: "
        if own
        else "none of conda's own"
    )
    cure = "conda install -c conda-forge libstdcxx-ng" if own else ""
    report.line("libstdc++", text + cure, "note" if own else "ok")


def check_cache(report):
    problem = complaint(jittor_setup.cache_folder)
    if problem:
        report.line("cache", problem, "MISSING")
        return None
    cache = jittor_setup.cache_folder()
    odd = re.search(r"[^A-Za-z0-9_./+:\\-]", str(cache))
    if odd:
        text = f"{cache} holds {odd[0]!r}, which compilers may not take; set JITTOR_HOME to a plain path"
        report.line("cache", text, "note")
    else:
        report.line("cache", str(cache))
    free = shutil.disk_usage(cache).free / GIB
    report.line(
        "disk", f"{free:.1f} GiB free there; Jittor takes about 0.5", "ok" if free > 2 else "note"
    )
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        report.line(
            "memory", f"{memory:.1f} GiB, {os.cpu_count()} cores", "ok" if memory > 3 else "note"
        )
    try:
        compiled = jittor_setup.core_is_compiled(cache)
    except AttributeError:  # without Jittor, of which an earlier line has told
        compiled = False
    report.line(
        "Jittor",
        "compiled for this machine" if compiled else "not compiled yet: minutes at the first run",
    )
    wheels = jittor_setup.wheel_folder("onednn-cpu-gomp", "libmkldnn.so")
    linked = (cache / "mkl" / jittor_setup.ONEDNN / "lib/libmkldnn.so").is_file()
    text = (
        "there"
        if wheels or linked
        else "not there: Jittor downloads it, or run 'pip install -r requirements.txt'"
    )
    report.line("oneDNN", text, "ok" if wheels or linked else "note")
    return cache


def check_gpu(report, cache, probe):
    """The driver, nvcc and cuDNN one by one; then the verdict, as a run would come to it."""
    driver, devices = gpu.ask_driver()
    if not devices:
        report.line("GPU", "none that a driver of NVIDIA's answers for; the CPU computes")
        return
    names = ", ".join(f"{name} (capability {capability / 10:.1f})" for name, capability in devices)
    report.line("GPU", f"{names}; the driver is for CUDA {driver[0]}.{driver[1]}")
    try:
        gpu.find_toolkit(driver, cache, report.line)
        if probe:
            verdict = gpu.decide([], cache)
            report.line(
                "verdict",
                verdict.reason or "Jittor computes right numbers on it",
                state(verdict.reason),
            )
        else:
            report.line(
                "verdict", "nothing speaks against it; --probe, or the first run, tries it", "ok"
            )
    except gpu.No as reason:
        report.line("verdict", f"the CPU computes: {reason}", "note")


def state(reason):
    return "note" if reason else "ok"


def check_processes(report):
    for command, package in (("mpirun", "openmpi-bin"), ("mpicc", "libopenmpi-dev")):
        found = shutil.which(command)
        text = found or f"not there; only several processes need it (Debian: {package})"
        report.line(command, text, "ok" if found else "note")
    on = os.environ.get("use_nccl", "0") != "0"
    report.line(
        "NCCL",
        "as use_nccl says"
        if on
        else "not used: gradients of several processes go through the host",
    )


def import_jittor():
    """What an import of Jittor, in a process of its own, ends with."""
    command = [
        sys.executable,
        "-c",
        "import common, jittor as jt; print((jt.ones(3) * 2).sum().item())",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    right = done.returncode == 0 and done.stdout.split()[-1:] == ["6.0"]
    return (
        "it computes on the CPU"
        if right
        else f"it fails: {(done.stderr.strip().splitlines() or ['?'])[-1]}",
        right,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probe", action="store_true", help="import Jittor, and try the GPU")
    args, report = parser.parse_args(argv), Report()
    check_software(report)
    cache = check_cache(report)
    if cache is not None:
        check_gpu(report, cache, args.probe)
    check_processes(report)
    if args.probe and report.ok:
        text, right = import_jittor()
        report.line("Jittor", text, "ok" if right else "MISSING")
    print(
        "The scripts run on this machine."
        if report.ok
        else "The scripts do not run yet: see the lines with MISSING."
    )
    raise SystemExit(0 if report.ok else 2)


if __name__ == "__main__":
    main()
