"""The decision for or against a GPU, with stand-ins for the driver, nvcc, cuDNN and the trial of Jittor."""

import json
import os
import subprocess
import sys

import pytest

import jittor_setup
from jittor_setup import gpu, probe

SET_BY_DECIDE = (
    *("nvcc_path", "use_cutt", "use_cutlass", "use_nccl", "NVCC_APPEND_FLAGS", "cache_name"),
    *("CUDA_VISIBLE_DEVICES", "OMPI_COMM_WORLD_LOCAL_RANK", "JITTOR_NEW_CUDA"),
)
DRIVER = """
#include <cstring>
extern "C" int cuInit(unsigned) { return INIT; }
extern "C" int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
extern "C" int cuDeviceGetCount(int* n) { *n = COUNT; return 0; }
extern "C" int cuDeviceGet(int* d, int i) { *d = i; return 0; }
extern "C" int cuDeviceGetName(char* text, int, int) { std::strcpy(text, "Stand-in"); return 0; }
extern "C" int cuDeviceGetAttribute(int* v, int a, int) { *v = a == 75 ? CAPABILITY / 10 : CAPABILITY % 10; return 0; }
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """Makes a driver's library; it is compiled once for each kind."""
    folder, made = tmp_path_factory.mktemp("driver"), {}

    def make(version=12020, count=1, init=0, capability=86):
        key = (version, count, init, capability)
        if key not in made:
            path = folder / f"libcuda{len(made)}.so"
            numbers = zip(("VERSION", "COUNT", "INIT", "CAPABILITY"), key)
            defines = [f"-D{name}={number}" for name, number in numbers]
            source = folder / "driver.cc"
            source.write_text(DRIVER)
            subprocess.run(
                ["g++", "-shared", "-fPIC", *defines, str(source), "-o", str(path)], check=True
            )
            made[key] = str(path)
        return made[key]

    return make


class Machine:
    """A machine with a GPU on which all is well, until a test takes something away."""

    def __init__(self, tmp_path, monkeypatch, driver):
        self.root, self.cache, self.patch = tmp_path / "cuda", tmp_path / "cache", monkeypatch
        self.driver, self.calls = driver, tmp_path / "calls"
        self.cache.mkdir()
        for variable in SET_BY_DECIDE:
            monkeypatch.setenv(
                variable, ""
            )  # remembers what it was, so that nothing stays set after the test
            monkeypatch.delenv(variable)
        monkeypatch.setattr(gpu, "NVCC_PLACES", (str(self.root / "bin/nvcc"),))
        monkeypatch.setenv(
            "PATH",
            os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not has_nvcc(p)),
        )
        self.set_driver()
        self.set_nvcc()
        self.set_cudnn(8)
        self.set_probe("print('GPU: right numbers')")

    def set_driver(self, **numbers):
        self.patch.setattr(gpu, "DRIVERS", ("libnothing.so", self.driver(**numbers)))

    def set_nvcc(self, version="12.2", body=""):
        path = self.root / "bin/nvcc"
        path.parent.mkdir(parents=True, exist_ok=True)
        answers = f'--dryrun) echo "#$ TOP={self.root}";; *) echo release {version},;;'
        path.write_text(f'#!/bin/sh\n{body}\ncase "$1" in {answers} esac\n')
        path.chmod(0o755)
        return path

    def set_cudnn(self, major):
        header = self.root / "include/cudnn_version.h"
        header.parent.mkdir(exist_ok=True)
        header.write_text(f"#define CUDNN_MAJOR {major}\n")

    def set_probe(self, code):
        script = self.root / "probe.py"
        script.write_text(f"open({str(self.calls)!r}, 'a').write('x')\n{code}\n")
        self.patch.setattr(gpu, "PROBE", script)

    def decide(self, *argv):
        # What `decide` sets for Jittor is taken back after the test.
        for variable in (
            "nvcc_path",
            "use_cutt",
            "use_cutlass",
            "use_nccl",
            "NVCC_APPEND_FLAGS",
            "cache_name",
        ):
            if variable in os.environ:
                self.patch.setenv(variable, os.environ[variable])
            else:
                self.patch.setenv(variable, "")
                self.patch.delenv(variable)
        return gpu.decide(["script.py", *argv], self.cache)

    def probes(self):
        return len(self.calls.read_text()) if self.calls.exists() else 0


def has_nvcc(folder):
    return os.access(os.path.join(folder, "nvcc"), os.X_OK)


@pytest.fixture
def machine(tmp_path, monkeypatch, driver):
    return Machine(tmp_path, monkeypatch, driver)


def test_a_gpu_on_which_all_is_well(machine):
    verdict = machine.decide()
    assert verdict == ("cuda", "Stand-in", "")
    assert verdict.line() == "Device: Stand-in."
    assert os.environ["nvcc_path"] == str(machine.root / "bin/nvcc")
    assert [os.environ[name] for name in ("use_cutt", "use_cutlass", "use_nccl")] == ["0", "0", "0"]
    assert "NVCC_APPEND_FLAGS" not in os.environ


@pytest.mark.parametrize(
    ("rank", "visible", "own"),
    [(0, None, "0"), (1, None, "1"), (2, None, "0"), (1, "4, 7", "7"), (None, "4,7", "4,7")],
)
def test_processes_of_one_machine_take_a_device_each(machine, monkeypatch, rank, visible, own):
    for name, value in (("OMPI_COMM_WORLD_LOCAL_RANK", rank), ("CUDA_VISIBLE_DEVICES", visible)):
        if value is not None:
            monkeypatch.setenv(name, str(value))
    machine.set_driver(count=2)
    assert machine.decide().device == "cuda"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own
    assert machine.probes() == 1


def test_new_cuda_and_cudnn_by_choice(machine, monkeypatch):
    """With the variable they are tried, behind the folder that `toolkit` makes."""
    machine.set_driver(version=13000)
    machine.set_nvcc(version="13.0")
    machine.set_cudnn(9)
    refused(machine, "does not compile with CUDA 13.0")
    monkeypatch.setenv("JITTOR_NEW_CUDA", "1")
    assert machine.decide().device == "cuda"
    assert os.environ["nvcc_path"] == str(machine.cache / "cuda13.0/bin/nvcc")
    assert os.environ["NVCC_APPEND_FLAGS"] == "-std=c++17"


def refused(machine, *parts):
    """A CPU with a reason that has all the parts, for a run that never touches CUDA."""
    verdict = machine.decide()
    assert (verdict.device, verdict.gpu) == ("cpu", "Stand-in")
    assert all(part in verdict.reason for part in parts), verdict.reason
    assert verdict.line() == f"Device: CPU; Stand-in is not used: {verdict.reason}."
    assert "\n" not in verdict.line()
    assert os.environ["nvcc_path"] == ""
    return verdict


def test_the_cpu_on_demand_asks_no_driver(machine, monkeypatch):
    monkeypatch.setattr(gpu, "ask_driver", None)
    for flags in (["--device", "cpu"], ["--device=cpu"]):
        assert machine.decide(*flags) == ("cpu", "", "")
        assert os.environ["nvcc_path"] == ""


@pytest.mark.parametrize("numbers", [{"count": 0}, {"init": 100}])
def test_a_driver_without_a_device(machine, numbers):
    machine.set_driver(**numbers)
    assert machine.decide() == ("cpu", "", "")


def test_no_driver(machine, monkeypatch):
    monkeypatch.setattr(gpu, "DRIVERS", ("libnothing.so",))
    verdict = machine.decide()
    assert verdict.line() == "Device: CPU (no GPU)."
    assert os.environ["nvcc_path"] == ""


def test_no_nvcc(machine):
    (machine.root / "bin/nvcc").unlink()
    refused(machine, "there is no nvcc", "install CUDA 12")
    assert machine.probes() == 0


def test_an_empty_jtcuda_is_removed(machine):
    (machine.cache / "jtcuda").mkdir()
    assert machine.decide().device == "cuda"
    assert not (machine.cache / "jtcuda").exists()


def test_an_nvcc_that_is_a_script_elsewhere(machine, tmp_path):
    """Jittor would take the folder above it for the toolkit."""
    wrapper = tmp_path / "local/bin/nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(f'#!/bin/sh\nexec {machine.root}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    machine.patch.setenv("nvcc_path", str(wrapper))
    assert machine.decide().device == "cuda"
    assert os.environ["nvcc_path"] == str(machine.root / "bin/nvcc")


def test_an_nvcc_that_fails(machine):
    machine.set_nvcc(body="exit 3")
    refused(machine, "nvcc", "code 3")


def test_an_nvcc_without_a_version(machine):
    machine.set_nvcc(version="unknown")
    refused(machine, "does not tell its version")


def test_a_driver_that_is_too_old(machine):
    machine.set_driver(version=11040)
    refused(machine, "driver is for CUDA 11.4", "nvcc is 12.2")


def test_cuda_13(machine):
    machine.set_driver(version=13000)
    machine.set_nvcc(version="13.0")
    refused(machine, "CUDA 13.0", "install CUDA 12")


def test_cudnn_9_and_none(machine):
    machine.set_cudnn(9)
    refused(machine, "needs cuDNN 8", "is version 9")
    (machine.root / "include/cudnn_version.h").unlink()
    if not os.path.exists("/usr/include/cudnn_version.h"):
        refused(machine, "no cuDNN")


def test_a_gpu_newer_than_what_jittor_compiles_for(machine):
    machine.set_driver(capability=120)
    assert machine.decide().device == "cuda"
    assert os.environ["NVCC_APPEND_FLAGS"] == "-code=compute_90"
    assert os.environ["cache_name"] == "ptx90"


def test_a_variable_of_the_user_stays(machine):
    machine.patch.setenv("use_nccl", "1")
    machine.decide()
    assert os.environ["use_nccl"] == "1"


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("import os; os.abort()", ["ended with code -6"]),
        ("raise SystemExit(1)", ["ended with code 1"]),
        ("print('GPU: a matrix product is wrong')", ["failed (a matrix product is wrong)"]),
        ("print('please rerun your command')", ["ended with code 0"]),
    ],
)
def test_a_trial_that_fails(machine, code, parts):
    machine.set_probe(code)
    refused(machine, *parts, "gpu_probe.log")


def test_a_trial_that_hangs(machine):
    machine.patch.setattr(gpu, "PROBE_SECONDS", 1)
    machine.set_probe("import time; time.sleep(60)")
    refused(machine, "took more than")


def test_an_import_that_asks_for_another_one(machine):
    """Jittor may end with code 0 after compiling a part of itself."""
    machine.set_probe(
        f"import os; os.path.getsize({str(machine.calls)!r}) > 1 and print('GPU: right numbers')"
    )
    assert machine.decide().device == "cuda"
    assert machine.probes() == 2


def test_the_verdict_is_kept_until_something_changes(machine):
    assert [machine.decide().device for _ in range(3)] == ["cuda"] * 3
    assert machine.probes() == 1
    machine.set_driver(version=12040)
    machine.decide()
    assert machine.probes() == 2
    os.utime(machine.root / "bin/nvcc", (1, 1))
    machine.decide()
    assert machine.probes() == 3


def test_a_no_is_kept_too(machine):
    machine.set_probe("print('GPU: a convolution is wrong')")
    reasons = {refused(machine).reason for _ in range(2)}
    assert len(reasons) == 1
    assert machine.probes() == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', '{"key": "x", "reason": 3}'])
def test_a_damaged_verdict_is_made_anew(machine, text):
    (machine.cache / "gpu_verdict.json").write_text(text)
    assert machine.decide().device == "cuda"
    assert json.loads((machine.cache / "gpu_verdict.json").read_text())["reason"] == ""


def test_the_trials_numbers_are_those_of_the_cpu():
    assert probe.wrong_number() is None


def test_the_trial_notices_wrong_numbers(monkeypatch):
    import jittor as jt

    monkeypatch.setattr(jt, "matmul", lambda a, b: a * 1.01 @ b)
    assert probe.wrong_number() == "a matrix product is wrong"


@pytest.mark.skipif(jittor_setup.verdict.device == "cuda", reason="this machine has a usable GPU")
def test_device_cuda_gives_the_reason(monkeypatch):
    from common import UserError

    monkeypatch.setattr(jittor_setup, "verdict", gpu.Verdict("cpu", "Stand-in", "there is no nvcc"))
    with pytest.raises(UserError, match="--device cuda: there is no nvcc"):
        jittor_setup.choose_device("cuda")


def test_a_script_runs_on_the_cpu_beside_a_driver_that_cannot_be_used(tmp_path, driver):
    """From outside: an nvcc that is a script and nothing behind it; one line, no traceback."""
    os.symlink(driver(version=12020), tmp_path / "libcuda.so.1")
    (tmp_path / "nvcc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nvcc").chmod(0o755)
    code = "import jittor_setup; jittor_setup.choose_device('auto'); import jittor; print(jittor.rand(3))"
    variables = {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert "Device: CPU; Stand-in is not used: " in done.stdout
    assert "Traceback" not in done.stderr
