"""Whether a GPU is used, with stand-ins for driver, nvcc, cuDNN and trial."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_driver import compile_driver

import jittor_setup
from jittor_setup import device, find_cuda, gpu, probe, trial

ROOT = Path(__file__).resolve().parents[2]
SET_BY_DECIDE = (
    "nvcc_path",
    "use_cutt",
    "use_cutlass",
    "use_nccl",
    "NVCC_APPEND_FLAGS",
    "cache_name",
)
READ_BY_DECIDE = ("CUDA_VISIBLE_DEVICES", "OMPI_COMM_WORLD_LOCAL_RANK", "JITTOR_NEW_CUDA")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A function that returns the path of a stand-in driver, compiled only once."""
    folder = tmp_path_factory.mktemp("driver")
    compiled = {}

    def driver_with(**values):
        key = tuple(sorted(values.items()))
        if key not in compiled:
            compiled[key] = folder / f"libcuda{len(compiled)}.so"
            compile_driver(compiled[key], **values)
        return str(compiled[key])

    return driver_with


class Machine:
    """A machine with a GPU that Jittor can use, until a test changes something."""

    def __init__(self, tmp_path, monkeypatch, driver):
        self.root = tmp_path / "cuda"
        self.cache = tmp_path / "cache"
        self.calls = tmp_path / "calls"  # one letter for each run of the trial
        self.patch = monkeypatch
        self.driver = driver
        self.cache.mkdir()
        self.forget(*SET_BY_DECIDE, *READ_BY_DECIDE)
        monkeypatch.setattr(find_cuda, "NVCC_PLACES", (str(self.root / "bin/nvcc"),))
        folders = os.environ["PATH"].split(os.pathsep)
        without_nvcc = [f for f in folders if not os.access(os.path.join(f, "nvcc"), os.X_OK)]
        monkeypatch.setenv("PATH", os.pathsep.join(without_nvcc))
        self.set_driver()
        self.set_nvcc()
        self.set_cudnn(8)
        self.set_probe("print('GPU: correct results')")

    def forget(self, *names):
        """Removes variables; setting them first makes monkeypatch restore them."""
        for name in names:
            self.patch.setenv(name, "")
            self.patch.delenv(name)

    def set_driver(self, **values):
        self.patch.setattr(find_cuda, "DRIVERS", ("libnothing.so", self.driver(**values)))

    def set_nvcc(self, version="12.2", first_command=""):
        path = self.root / "bin/nvcc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"""#!/bin/sh
{first_command}
case "$1" in
--dryrun) echo "#$ TOP={self.root}" ;;
*) echo release {version}, ;;
esac
""")
        path.chmod(0o755)

    def set_cudnn(self, major):
        header = self.root / "include/cudnn_version.h"
        header.parent.mkdir(exist_ok=True)
        header.write_text(f"#define CUDNN_MAJOR {major}\n")

    def set_probe(self, code):
        script = self.root / "probe.py"
        script.write_text(f"open({str(self.calls)!r}, 'a').write('x')\n{code}\n")
        self.patch.setattr(trial, "PROBE", script)

    def decide(self, *argv):
        return gpu.decide(["script.py", *argv], self.cache)

    def decide_again(self):
        """As `decide`, in a new process: without the variables of the last decision."""
        self.forget(*SET_BY_DECIDE)
        return self.decide()

    def n_trials(self):
        return len(self.calls.read_text()) if self.calls.exists() else 0


@pytest.fixture
def machine(tmp_path, monkeypatch, driver):
    return Machine(tmp_path, monkeypatch, driver)


def refused(machine, *texts):
    """Checks that the CPU is used, and that the reason in one line has the texts."""
    verdict = machine.decide()
    assert (verdict.device, verdict.gpu) == ("cpu", "Stand-in")
    for text in texts:
        assert text in verdict.reason
    assert verdict.line() == f"Device: CPU; Stand-in is not used: {verdict.reason}."
    assert "\n" not in verdict.line()
    assert os.environ["nvcc_path"] == ""  # Jittor then builds for the CPU
    return verdict


# ---- what decides ----


def test_a_usable_gpu(machine):
    verdict = machine.decide()
    assert verdict == ("cuda", "Stand-in", "")
    assert verdict.line() == "Device: Stand-in."
    assert os.environ["nvcc_path"] == str(machine.root / "bin/nvcc")
    for name in ("use_cutt", "use_cutlass", "use_nccl"):
        assert os.environ[name] == "0"
    assert "NVCC_APPEND_FLAGS" not in os.environ


def test_a_variable_of_the_user_is_kept(machine):
    machine.patch.setenv("use_nccl", "1")
    machine.decide()
    assert os.environ["use_nccl"] == "1"


def test_with_device_cpu_the_driver_is_not_asked(machine, monkeypatch):
    monkeypatch.setattr(gpu, "ask_driver", None)
    for flags in (["--device", "cpu"], ["--device=cpu"]):
        assert machine.decide(*flags) == ("cpu", "", "")
        assert os.environ["nvcc_path"] == ""


@pytest.mark.parametrize("values", [{"count": 0}, {"init": 100}, None])
def test_a_driver_without_a_device_and_no_driver(machine, values):
    if values is None:
        machine.patch.setattr(find_cuda, "DRIVERS", ("libnothing.so",))
    else:
        machine.set_driver(**values)
    verdict = machine.decide()
    assert verdict == ("cpu", "", "")
    assert verdict.line() == "Device: CPU (no GPU)."
    assert os.environ["nvcc_path"] == ""


@pytest.mark.parametrize(
    ("rank", "visible", "own"),
    [(0, None, "0"), (1, None, "1"), (2, None, "0"), (1, "4, 7", "7"), (None, "4,7", "4,7")],
)
def test_processes_of_one_machine_take_one_device_each(machine, monkeypatch, rank, visible, own):
    if rank is not None:
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", str(rank))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine.set_driver(count=2)
    assert machine.decide().device == "cuda"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own
    assert machine.n_trials() == 1


def test_a_driver_older_than_the_toolkit(machine):
    machine.set_driver(version=11040)
    refused(machine, "driver is for CUDA 11.4", "nvcc is 12.2")


def test_no_nvcc(machine):
    (machine.root / "bin/nvcc").unlink()
    refused(machine, "there is no nvcc", "install CUDA 12")
    assert machine.n_trials() == 0


def test_an_empty_jtcuda_is_removed(machine):
    """Jittor leaves it after a failed download, and then ignores any other nvcc."""
    (machine.cache / "jtcuda").mkdir()
    assert machine.decide().device == "cuda"
    assert not (machine.cache / "jtcuda").exists()


def test_an_nvcc_that_calls_one_in_another_folder(machine, tmp_path):
    """Jittor would take the folder above the script for the toolkit."""
    script = tmp_path / "local/bin/nvcc"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec {machine.root}/bin/nvcc "$@"\n')
    script.chmod(0o755)
    machine.patch.setenv("nvcc_path", str(script))
    assert machine.decide().device == "cuda"
    assert os.environ["nvcc_path"] == str(machine.root / "bin/nvcc")


def test_an_nvcc_that_fails(machine):
    machine.set_nvcc(first_command="exit 3")
    refused(machine, "nvcc", "code 3")


def test_an_nvcc_without_a_version(machine):
    machine.set_nvcc(version="unknown")
    refused(machine, "does not print its version")


def test_cudnn_9_and_no_cudnn(machine):
    machine.set_cudnn(9)
    refused(machine, "needs cuDNN 8", "is version 9")
    (machine.root / "include/cudnn_version.h").unlink()
    if not os.path.exists("/usr/include/cudnn_version.h"):
        refused(machine, "no cuDNN")


def test_cuda_13_and_cudnn_9_are_used_on_request(machine):
    """With the variable, through the folder that toolkit.py makes."""
    machine.set_driver(version=13000)
    machine.set_nvcc(version="13.0")
    machine.set_cudnn(9)
    refused(machine, "does not compile with CUDA 13.0", "install CUDA 12")
    machine.patch.setenv("JITTOR_NEW_CUDA", "1")
    assert machine.decide_again().device == "cuda"
    assert os.environ["nvcc_path"] == str(machine.cache / "cuda13.0/bin/nvcc")
    assert os.environ["NVCC_APPEND_FLAGS"] == "-std=c++17"


def test_a_gpu_newer_than_jittors_machine_code_gets_ptx(machine):
    machine.set_driver(capability=120)
    assert machine.decide().device == "cuda"
    assert os.environ["NVCC_APPEND_FLAGS"] == "-code=compute_90"
    assert os.environ["cache_name"] == "ptx90"


# ---- the trial ----


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.abort()", "ended with code -6"),
        ("raise SystemExit(1)", "ended with code 1"),
        ("print('GPU: a matrix product is wrong')", "failed (a matrix product is wrong)"),
        ("print('please rerun your command')", "ended with code 0"),
    ],
)
def test_a_trial_that_fails(machine, code, text):
    machine.set_probe(code)
    refused(machine, text, "gpu_probe.log")


def test_a_trial_that_hangs(machine):
    machine.patch.setattr(trial, "PROBE_SECONDS", 1)
    machine.set_probe("import time; time.sleep(60)")
    refused(machine, "took more than")


def test_a_trial_that_asks_to_be_run_again(machine):
    """Jittor may end with exit code 0 after it has compiled one of its libraries."""
    second = f"os.path.getsize({str(machine.calls)!r}) > 1"
    machine.set_probe(f"import os\nif {second}: print('GPU: correct results')")
    assert machine.decide().device == "cuda"
    assert machine.n_trials() == 2


def test_the_outcome_is_kept_until_something_changes(machine):
    for _ in range(3):
        assert machine.decide_again().device == "cuda"
    assert machine.n_trials() == 1
    machine.set_driver(version=12040)
    machine.decide_again()
    assert machine.n_trials() == 2
    os.utime(machine.root / "bin/nvcc", (1, 1))
    machine.decide_again()
    assert machine.n_trials() == 3


def test_a_failure_is_kept_too(machine):
    machine.set_probe("print('GPU: a convolution is wrong')")
    reasons = [machine.decide_again().reason for _ in range(2)]
    assert "a convolution is wrong" in reasons[0]
    assert reasons[0] == reasons[1]
    assert machine.n_trials() == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', '{"key": "x", "reason": 3}'])
def test_a_damaged_outcome_is_replaced(machine, text):
    (machine.cache / "gpu_verdict.json").write_text(text)
    assert machine.decide().device == "cuda"
    assert json.loads((machine.cache / "gpu_verdict.json").read_text())["reason"] == ""


def test_the_trials_expectations_hold_on_the_cpu():
    assert probe.wrong_result() is None


def test_the_trial_notices_wrong_results(monkeypatch):
    import jittor as jt

    monkeypatch.setattr(jt, "matmul", lambda a, b: a * 1.01 @ b)
    assert probe.wrong_result() == "a matrix product is wrong"


# ---- the device of a run ----


def verdict_is(monkeypatch, *values):
    monkeypatch.setattr(device, "verdict", gpu.Verdict(*values))
    monkeypatch.setattr(device, "_announced", False)


def test_the_device_is_named_once(monkeypatch, capsys):
    verdict_is(monkeypatch, "cpu", "Stand-in", "there is no nvcc")
    assert jittor_setup.choose_device("cpu") == 0
    assert capsys.readouterr().out == ""
    for _ in range(2):
        assert jittor_setup.choose_device("auto") == 0
    assert capsys.readouterr().out == "Device: CPU; Stand-in is not used: there is no nvcc.\n"


def test_only_the_first_process_names_the_device(monkeypatch, capsys):
    import jittor as jt

    verdict_is(monkeypatch, "cpu")
    monkeypatch.setattr(jt, "rank", 1)
    assert jittor_setup.choose_device("auto") == 0
    assert capsys.readouterr().out == ""


def test_device_cuda_without_a_usable_gpu(monkeypatch, capsys):
    verdict_is(monkeypatch, "cpu", "Stand-in", "there is no nvcc")
    problem = "--device cuda: there is no nvcc; use --device cpu, or auto"
    assert jittor_setup.device_problem("cuda") == problem
    assert jittor_setup.device_problem("auto") is None
    with pytest.raises(SystemExit) as stopped:
        jittor_setup.choose_device("cuda")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {problem}\n"


@pytest.mark.parametrize(("found", "expected"), [(True, 1), (False, 0)])
def test_a_jittor_that_lacks_cudnn_uses_the_cpu(found, expected, monkeypatch, capsys):
    import jittor as jt

    verdict_is(monkeypatch, "cuda", "Stand-in")
    monkeypatch.setattr(jt, "has_cuda", 1)
    for name in ("cudnn", "cublas", "curand"):
        monkeypatch.setattr(jt.compile_extern, name, found or name != "cudnn", raising=False)
    before = jt.flags.use_cuda
    for wanted in ("auto", "cpu"):
        assert jittor_setup.choose_device(wanted) == (expected if wanted == "auto" else 0)
    assert jt.flags.use_cuda == before
    assert ("Jittor does not find cudnn" in capsys.readouterr().out) != found
    assert (jittor_setup.device_problem("cuda") is None) == found


def test_a_run_beside_a_driver_that_cannot_be_used(tmp_path, driver):
    """From outside: nvcc is a script with nothing behind it. One line, no traceback."""
    os.symlink(driver(), tmp_path / "libcuda.so.1")
    (tmp_path / "nvcc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nvcc").chmod(0o755)
    code = """
import common, jittor_setup, jittor as jt
jt.flags.use_cuda = jittor_setup.choose_device("auto")
print(jt.rand(3))
"""
    variables = {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "nvcc_path": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert "Device: CPU; Stand-in is not used: " in done.stdout
    assert "Traceback" not in done.stderr
