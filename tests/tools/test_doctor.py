"""tools/doctor.py as a command: a healthy machine, and machines that lack something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_gpu import DRIVER

ROOT = Path(__file__).resolve().parents[1]


def doctor(*flags, **variables):
    """Exit code and {name: (state, text)} of the lines."""
    command = [sys.executable, str(ROOT / "tools/doctor.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.stderr == ""
    lines = {
        line[:11].strip(): (line[12:20].strip(), line[21:])
        for line in done.stdout.splitlines()[:-1]
    }
    return done.returncode, lines, done.stdout.splitlines()[-1]


def test_a_machine_on_which_the_scripts_run():
    code, lines, verdict = doctor()
    assert code == 0
    assert verdict == "The scripts run on this machine."
    assert {
        "system",
        "Python",
        "packages",
        "compiler",
        "headers",
        "cache",
        "disk",
        "Jittor",
        "oneDNN",
        "GPU",
    } <= set(lines)
    assert "jittor 1.3" in lines["packages"][1]
    assert "MISSING" not in [state for state, _ in lines.values()]


def test_it_imports_no_jittor(tmp_path):
    """A module of that name that ends the program stands in the way."""
    (tmp_path / "jittor.py").write_text("raise SystemExit(9)")
    assert doctor(PYTHONPATH=str(tmp_path))[0] == 0


def test_a_missing_compiler():
    code, lines, verdict = doctor(cc_path="no-such-compiler")
    assert code == 2
    assert lines["packages"][0] == "MISSING"
    assert "no-such-compiler was not found" in lines["packages"][1]
    assert "do not run yet" in verdict


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, lines, _ = doctor(HOME=str(tmp_path / "file"), JITTOR_HOME="")
    assert code == 2
    assert lines["cache"][0] == "MISSING"
    assert "cannot write its cache folder" in lines["cache"][1]


def test_a_cache_with_a_space_in_its_path(tmp_path):
    code, lines, _ = doctor(HOME=str(tmp_path / "a b"), JITTOR_HOME="")
    assert code == 0
    assert lines["cache"][0] == "note"
    assert "set JITTOR_HOME" in lines["cache"][1]
    assert "not compiled yet" in lines["Jittor"][1]


# ---- with a stand-in for a GPU's driver, nvcc and cuDNN ----


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """Variables under which a driver for CUDA 13, nvcc of the version in NVCC and cuDNN 8 are found."""
    root = tmp_path_factory.mktemp("gpu")
    (root / "driver.cc").write_text(DRIVER)
    numbers = [f"-D{name}" for name in ("VERSION=13000", "COUNT=1", "INIT=0", "CAPABILITY=86")]
    library = ["-shared", "-fPIC", *numbers, root / "driver.cc", "-o", root / "libcuda.so.1"]
    subprocess.run(["g++", *map(str, library)], check=True)
    for folder in ("bin", "include"):
        (root / folder).mkdir()
    nvcc = (
        f'#!/bin/sh\ncase "$1" in --dryrun) echo "#$ TOP={root}";; *) echo release $NVCC,;; esac\n'
    )
    (root / "bin/nvcc").write_text(nvcc)
    (root / "bin/nvcc").chmod(0o755)
    (root / "include/cudnn_version.h").write_text("#define CUDNN_MAJOR 8\n")
    path = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"LD_LIBRARY_PATH": str(root), "PATH": path, "nvcc_path": ""}


def test_a_gpu_that_can_be_tried(gpu, tmp_path):
    code, lines, _ = doctor(**gpu, NVCC="12.2", HOME=str(tmp_path))
    assert code == 0
    assert lines["GPU"] == ("ok", "Stand-in (capability 8.6); the driver is for CUDA 13.0")
    assert lines["nvcc"][1].startswith("12.2 at ")
    assert lines["cuDNN"][1].endswith("cudnn_version.h")
    assert lines["verdict"] == (
        "ok",
        "nothing speaks against it; --probe, or the first run, tries it",
    )


@pytest.mark.parametrize(
    ("version", "reason"), [("13.0", "does not compile with CUDA 13.0"), ("14.1", "driver")]
)
def test_a_gpu_that_cannot_be_used(version, reason, gpu, tmp_path):
    code, lines, _ = doctor(**gpu, NVCC=version, HOME=str(tmp_path))
    assert code == 0
    assert lines["verdict"][0] == "note" and reason in lines["verdict"][1]
    assert "cuDNN" not in lines
