"""Every script with two processes under mpirun: equal weights, the numbers of one process, one writer."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jittor as jt
import numpy as np
import pytest
from small import FLAGS, SHARED, make_data, run, saved_arrays

from common import checkpoint

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or not jt.compile_extern.has_mpi,
    reason="needs mpirun and mpicc (Debian: openmpi-bin libopenmpi-dev)",
)


def mpirun(n, *argv, check=True, timeout=600):
    """Python under mpirun with these arguments."""
    command = ["mpirun", "-np", str(n), "--oversubscribe", sys.executable, *map(str, argv)]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment = {**os.environ, **root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def with_processes(n, name, *argv):
    """Runs a script under mpirun and gives what it printed."""
    return mpirun(n, ROOT / f"{name}.py", *argv).stdout


@pytest.mark.parametrize("name", list(FLAGS))
def test_two_processes_train_as_one(name, tmp_path):
    """Four steps on two halves of each batch are four steps on the whole, within float32's tolerance.

    It holds for batch norm too, whose statistics Jittor takes over all processes. The rate is small, since Adam
    turns a gradient's rounding error into a step of full length.
    """
    data = make_data(name, tmp_path / "data")
    flags = ["--data_dir", data, *SHARED, *FLAGS[name], "--n_epochs", 1, "--lr", 1e-5]
    flags += ["--dropout", 0] if name == "pix2pix" else []  # each process draws its own
    run(name, *flags, "--out_dir", tmp_path / "one")
    printed = with_processes(2, name, *flags, "--out_dir", tmp_path / "two")
    assert printed.count("Done; everything is in") == 1
    one, two = saved_arrays(tmp_path / "one"), saved_arrays(tmp_path / "two")
    assert one.keys() == two.keys()
    assert_same_moments(one, two)
    for key in one:
        if not is_moment(key) and not key.startswith("pool"):
            assert np.allclose(one[key], two[key], rtol=1e-3, atol=2e-4), key
    logs = (np.loadtxt(tmp_path / folder / "losses.csv", delimiter=",", skiprows=1) for folder in ("one", "two"))
    assert np.allclose(*logs, rtol=1e-3, atol=1e-4)
    assert sorted(f.name for f in (tmp_path / "one").iterdir()) == sorted(f.name for f in (tmp_path / "two").iterdir())


def is_moment(key):
    return "/m/" in key or "/values/" in key


def assert_same_moments(one, two):
    """The optimizers' means of gradients agree to 1 %, measured by their norms; weights have hardly moved.

    Gradients that are zero but for rounding (of a bias before batch norm) are compared with the largest.
    """
    for optimizer in {key.split("/")[0] for key in one if is_moment(key)}:
        keys = [key for key in one if key.startswith(optimizer + "/m/")]
        largest = max(np.linalg.norm(one[key]) for key in keys)
        assert largest > 0
        for key in keys:
            difference = np.linalg.norm(one[key] - two[key])
            assert difference <= 0.01 * np.linalg.norm(one[key]) + 1e-4 * largest, key


EQUAL = """
import importlib, sys
sys.path.insert(0, {root!r})
import common, jittor as jt, numpy as np
real_steps = common.Run.steps

def steps(run, batches):
    for batch in real_steps(run, batches):
        yield batch
        for part in run.parts.values():
            if isinstance(part, jt.nn.Module):
                for name, value in part.state_dict().items():
                    mine = value.numpy()
                    mean = jt.array(mine.astype(np.float32)).mpi_all_reduce("mean").numpy()
                    assert np.abs(mean - mine).max() <= 1e-7 * np.abs(mine).max() + 1e-12, (run.step, name)
        with open({log!r} + str(jt.rank), "a") as file:  # not to the screen, where both write at once
            file.write(f"{{run.step}}\\n")

common.Run.steps = steps
importlib.import_module({name!r}).main({argv!r})
"""


@pytest.mark.parametrize("name", list(FLAGS))
def test_processes_hold_equal_weights_after_every_step(name, tmp_path):
    argv = ["--data_dir", make_data(name, tmp_path / "data"), *SHARED, *FLAGS[name], "--n_epochs", 1]
    argv = [str(a) for a in [*argv, "--out_dir", tmp_path / "out"]]
    log = str(tmp_path / "equal")
    mpirun(2, "-c", EQUAL.format(root=str(ROOT), name=name, argv=argv, log=log))
    assert [Path(log + rank).read_text().split() for rank in "01"] == [["1", "2", "3", "4"]] * 2


def test_a_process_that_dies_ends_the_others(tmp_path):
    """Within 30 seconds, and the last checkpoint stays readable."""
    data = make_data("dcgan", tmp_path / "data")
    argv = ["--data_dir", data, *SHARED, *FLAGS["dcgan"], "--n_epochs", 100000, "--out_dir", tmp_path / "out"]
    died = tmp_path / "died"
    die = f"open({str(died)!r}, 'w').close(), os.kill(os.getpid(), 9)"
    dying = f"import os; jt.rank == 1 and run.step == 20 and ({die})"
    log, argv = str(tmp_path / "equal"), [str(a) for a in argv]
    code = EQUAL.replace("        with open(", f"        {dying}\n        with open(")
    code = code.format(root=str(ROOT), name="dcgan", argv=argv, log=log)
    done = mpirun(2, "-c", code, check=False, timeout=120)
    assert time.time() - died.stat().st_mtime < 30
    assert done.returncode != 0
    assert "30" not in Path(log + "0").read_text().split()
    assert checkpoint.Reader(tmp_path / "out/checkpoint_last.npz").meta["step"] >= 16


@pytest.mark.parametrize("n", [1, 2])
def test_resuming_with_another_number_of_processes(tmp_path, n):
    data = make_data("dcgan", tmp_path / "data")
    flags = ["--data_dir", data, *SHARED, *FLAGS["dcgan"], "--n_epochs", 1, "--out_dir", tmp_path / "out"]
    with_processes(3 - n, "dcgan", *flags)
    with_processes(n, "dcgan", "--resume", tmp_path / "out", "--n_epochs", 2)
    rows = (tmp_path / "out/losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4", "6", "8"]


def test_batch_size_must_divide_among_processes(tmp_path):
    data = make_data("cgan_mnist", tmp_path / "data")
    argv = [ROOT / "cgan_mnist.py", "--data_dir", data, "--out_dir", tmp_path / "out", "--batch_size", 9]
    done = mpirun(2, *argv, check=False)
    assert done.returncode == 2
    assert "--batch_size 9 must be a multiple of 2 processes" in done.stderr
