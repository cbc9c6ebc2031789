"""Every script with two processes under mpirun: equal weights, the numbers of one process, one writer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import FLAGS, SHARED, make_data, run, saved_arrays

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed (openmpi-bin libopenmpi-dev)"),
]


def with_processes(n, name, *argv):
    """Runs a script under mpirun and gives what it printed."""
    command = ["mpirun", "-np", str(n), "--oversubscribe", sys.executable, str(ROOT / f"{name}.py"), *map(str, argv)]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **root})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", list(FLAGS))
def test_two_processes_train_as_one(name, tmp_path):
    """Four steps on two halves of each batch are four steps on the whole, within float32's tolerance.

    It holds for batch norm too, whose statistics Jittor takes over all processes. The rate is small, since Adam
    turns a gradient's rounding error into a step of full length.
    """
    data = make_data(name, tmp_path / "data")
    flags = ["--data_dir", data, *SHARED, *FLAGS[name], "--n_epochs", 1, "--lr", 1e-5]
    run(name, *flags, "--out_dir", tmp_path / "one")
    printed = with_processes(2, name, *flags, "--out_dir", tmp_path / "two")
    assert printed.count("Done; everything is in") == 1
    one, two = saved_arrays(tmp_path / "one"), saved_arrays(tmp_path / "two")
    assert one.keys() == two.keys()
    for key in one:
        if "/m/" in key or "/values/" in key or key.startswith("pool"):
            continue  # moments are as small as the gradients' rounding
        assert np.allclose(one[key], two[key], rtol=1e-3, atol=2e-4), key
    assert sorted(f.name for f in (tmp_path / "one").iterdir()) == sorted(f.name for f in (tmp_path / "two").iterdir())


@pytest.mark.parametrize("n", [1, 2])
def test_resuming_with_another_number_of_processes(tmp_path, n):
    data = make_data("dcgan", tmp_path / "data")
    flags = ["--data_dir", data, *SHARED, *FLAGS["dcgan"], "--n_epochs", 1, "--out_dir", tmp_path / "out"]
    with_processes(3 - n, "dcgan", *flags)
    with_processes(n, "dcgan", "--resume", tmp_path / "out", "--n_epochs", 2)
    rows = (tmp_path / "out/losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4", "6", "8"]
