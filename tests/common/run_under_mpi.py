"""Run by mpirun in each process: scripts one after the other, with one import.

    mpirun -np 2 python run_under_mpi.py RUNS

RUNS is a JSON file, [{"name": script, "argv": its flags, "log": path, "dies_at": step
of process 1, or null}]. After every step each process asserts that all hold the same
weights, and adds the step's number to `log` + its rank.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import common

import jittor as jt
import numpy as np

real_batches = common.Run.batches


def checked_batches(log, dies_at):
    """Run.batches with the assertion.

    It writes to a file: several processes would mix their lines on a screen.
    """

    def batches(run, data, batch_size=None):
        for batch in real_batches(run, data, batch_size):
            yield batch
            # As at the end of a step. Weights computed one by one would be averaged in
            # another order than in a process that has drawn a picture.
            jt.sync_all()
            for part in run.parts.values():
                if isinstance(part, jt.nn.Module):
                    assert_equal(run, part)
            if jt.rank == 1 and run.step == dies_at:
                Path(f"{log}died").touch()
                os.kill(os.getpid(), 9)
            with open(f"{log}{jt.rank}", "a") as file:
                file.write(f"{run.step}\n")

    return batches


def assert_equal(run, module):
    for name, value in module.state_dict().items():
        mine = value.numpy()
        mean = jt.array(mine.astype(np.float32)).mpi_all_reduce("mean").numpy()
        assert np.abs(mean - mine).max() <= 1e-7 * np.abs(mine).max() + 1e-12, (run.step, name)


def main(runs):
    for each in runs:
        common.Run.batches = checked_batches(each["log"], each["dies_at"])
        try:
            importlib.import_module(each["name"]).main(each["argv"])
        except BaseException:
            with open(f"{each['log']}{jt.rank}", "a") as file:
                file.write(traceback.format_exc())
            os._exit(1)  # at once: the other process waits for this one, and mpirun ends it


main(json.loads(Path(sys.argv[1]).read_text()))
