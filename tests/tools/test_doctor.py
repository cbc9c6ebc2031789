"""tools/doctor.py as a command, on machines that lack something or nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_driver import compile_driver

ROOT = Path(__file__).resolve().parents[2]


def doctor(**variables):
    """Runs the command with these environment variables.

    Returns:
        The exit code, {name: (state, text)} of its lines, and the last line.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/doctor.py")],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    table = {line[:11].strip(): (line[12:20].strip(), line[21:]) for line in lines}
    return done.returncode, table, last


def test_a_healthy_machine():
    code, lines, last = doctor()
    assert code == 0
    assert last == "The scripts run on this machine."
    for name in ("system", "Python", "compiler", "headers", "cache", "disk", "oneDNN", "GPU"):
        assert lines[name][0] in ("ok", "note")
    assert "jittor 1.3" in lines["packages"][1]
    assert "MISSING" not in [state for state, _ in lines.values()]


def test_jittor_is_not_imported(tmp_path):
    """A module named jittor that ends the program comes first in the path."""
    (tmp_path / "jittor.py").write_text("raise SystemExit(9)")
    assert doctor(PYTHONPATH=str(tmp_path))[0] == 0


def test_a_missing_compiler():
    code, lines, last = doctor(cc_path="no-such-compiler")
    assert code == 2
    assert lines["compiler"][0] == "MISSING"
    assert "no-such-compiler was not found" in lines["compiler"][1]
    assert "do not run yet" in last


def test_an_unwritable_cache_folder(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, lines, _ = doctor(HOME=str(tmp_path / "file"), JITTOR_HOME="")
    assert code == 2
    assert lines["cache"][0] == "MISSING"
    assert "cannot write to its cache folder" in lines["cache"][1]


def test_a_cache_folder_with_a_space_in_its_path(tmp_path):
    code, lines, _ = doctor(HOME=str(tmp_path / "a b"), JITTOR_HOME="")
    assert code == 0
    assert lines["cache"][0] == "note"
    assert "set JITTOR_HOME" in lines["cache"][1]
    assert "not compiled yet" in lines["Jittor"][1]


def test_few_files():
    command = ["sh", "-c", 'ulimit -n 24; exec "$0" "$1"', sys.executable, ROOT / "tools/doctor.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "files       MISSING  a process may open only 24 files here" in done.stdout


def test_damaged_settings_of_jittor(tmp_path):
    (tmp_path / ".cache/jittor").mkdir(parents=True)
    (tmp_path / ".cache/jittor/config.json").write_text("[]")
    code, lines, _ = doctor(HOME=str(tmp_path), JITTOR_HOME="")
    assert (code, lines["cache"][0], lines["locks"][0]) == (0, "ok", "ok")


def test_a_damaged_kernel(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from jittor_setup import cache
for folder in cache.own_folders(cache.cache_folder()):
    print(folder)
"""
    command = [sys.executable, "-c", code, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own = Path(done.stdout.splitlines()[0])
    parts = own.parts[own.parts.index(".cache") :]
    kernel = tmp_path.joinpath(*parts, "jit", "kernel.so")
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(b"\x7fELF")
    code, lines, _ = doctor(HOME=str(tmp_path), JITTOR_HOME="")
    assert code == 0
    assert lines["damaged"] == ("note", f"{kernel}; the next run removes it and compiles again")


# ---- with stand-ins for a GPU's driver, nvcc and cuDNN ----

NVCC = """#!/bin/sh
case "$1" in
--dryrun) echo "#$ TOP=ROOT" ;;
*) echo release $NVCC, ;;
esac
"""


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """Environment variables for a driver of CUDA 13, cuDNN 8, and nvcc $NVCC."""
    root = tmp_path_factory.mktemp("gpu")
    compile_driver(root / "libcuda.so.1", version=13000)
    (root / "bin").mkdir()
    (root / "bin/nvcc").write_text(NVCC.replace("ROOT", str(root)))
    (root / "bin/nvcc").chmod(0o755)
    (root / "include").mkdir()
    (root / "include/cudnn_version.h").write_text("#define CUDNN_MAJOR 8\n")
    path = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"LD_LIBRARY_PATH": str(root), "PATH": path, "nvcc_path": ""}


def test_a_gpu_that_can_be_tried(gpu, tmp_path):
    code, lines, _ = doctor(**gpu, NVCC="12.2", HOME=str(tmp_path))
    assert code == 0
    assert lines["GPU"] == ("ok", "Stand-in (capability 8.6); the driver is for CUDA 13.0")
    assert lines["nvcc"][1].startswith("12.2 at ")
    assert lines["cuDNN"][1].endswith("cudnn_version.h")
    assert lines["verdict"][0] == "ok"
    assert "--probe, or the first run, tries it" in lines["verdict"][1]


@pytest.mark.parametrize(
    ("version", "reason"),
    [("13.0", "does not compile with CUDA 13.0"), ("14.1", "update the driver")],
)
def test_a_gpu_that_cannot_be_used(version, reason, gpu, tmp_path):
    code, lines, _ = doctor(**gpu, NVCC=version, HOME=str(tmp_path))
    assert code == 0
    assert lines["verdict"][0] == "note"
    assert reason in lines["verdict"][1]
    assert "cuDNN" not in lines
