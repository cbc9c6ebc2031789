"""A run that is killed at any moment continues from its last checkpoint.

The long form, 50 kills over all scripts:

    python -m pytest -m slow tests/common/test_kills.py
"""

from common import checkpoint

import random
import signal
import subprocess
import sys
import time

import pytest
from registry import ROOT, ROWS, SHARED, differences, make_data, run

STEPS_PER_EPOCH = 4  # of the small runs; a checkpoint after each epoch

# A run whose saves take long, so that kills hit them, and which says every step that it
# has finished.
VICTIM = """
import importlib, os, sys, time
sys.path.insert(0, {root!r})
import common
real_sync = os.fsync
real_replace = os.replace
real_batches = common.Run.batches

def slow(real):
    def call(*args):
        time.sleep(0.2)
        return real(*args)
    return call

os.fsync, os.replace = slow(real_sync), slow(real_replace)

def batches(run, data, batch_size=None):
    for batch in real_batches(run, data, batch_size):
        yield batch
        print("STEP", run.step, flush=True)

common.Run.batches = batches
importlib.import_module({name!r}).main({argv!r})
"""


def start(name, argv):
    code = VICTIM.format(root=str(ROOT), name=name, argv=[str(a) for a in argv])
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def saved_step(folder):
    try:
        return checkpoint.Reader(folder / checkpoint.FILE_NAME).meta["step"]
    except FileNotFoundError:
        return 0


def kill_once(name, argv, folder, seconds):
    """Kills a run after `seconds` of its loop, and checks what is left.

    Returns:
        Whether it was still running.
    """
    before = saved_step(folder) if (folder / checkpoint.FILE_NAME).exists() else 0
    process = start(name, argv)
    for line in process.stdout:  # the clock starts with the loop, not with the import
        if line.startswith("Data"):
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0]
    done = [int(line.split()[1]) for line in rest.splitlines() if line.startswith("STEP")]
    exists = (folder / checkpoint.FILE_NAME).exists()
    saved = saved_step(folder) if exists else 0
    assert saved >= before
    assert max(done, default=before) - saved <= STEPS_PER_EPOCH
    return process.returncode == -signal.SIGKILL


def survives(name, n_kills, tmp_path, seed):
    rng = random.Random(seed)
    data = make_data(name, tmp_path / "data")
    flags = ["--data_dir", data, *SHARED, *ROWS[name].flags, "--n_epochs", 4]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(name, *flags, "--out_dir", whole)
    n_hit = 0
    for _ in range(n_kills):
        resumed = (killed / checkpoint.FILE_NAME).exists()
        argv = ["--resume", killed, "--n_epochs", 4] if resumed else [*flags, "--out_dir", killed]
        n_hit += kill_once(name, argv, killed, rng.uniform(0, 3))
    if (killed / checkpoint.FILE_NAME).exists():
        run(name, "--resume", killed, "--n_epochs", 4)
    else:
        run(name, *flags, "--out_dir", killed)
    assert differences(whole, killed) == []
    assert n_hit > 0


def test_a_killed_run_continues(tmp_path):
    survives("dcgan", 3, tmp_path, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ROWS))
def test_many_kills(name, tmp_path):
    survives(name, 8 if name == "dcgan" else 7, tmp_path, seed=1)
