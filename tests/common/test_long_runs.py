"""Memory, file handles and threads do not grow with the steps."""

import subprocess
import sys
from pathlib import Path

import pytest
from registry import ROOT, ROWS, make_data

pytestmark = pytest.mark.slow

# The library that draws losses.png takes 28 MB, which come half a minute into a run;
# it draws here before the run.
PROBE = """
import importlib, io, os, sys, threading
from matplotlib.figure import Figure
figure = Figure()
figure.add_axes((0.1, 0.1, 0.9, 0.9)).plot([0, 1], label="a")
figure.savefig(io.BytesIO())
sys.path.insert(0, {root!r})
import common
real_batches = common.Run.batches
first, last = {first}, {last}
sizes = []

def measure(step):
    memory = sorted(sizes[-50:])[25]  # a picture or a checkpoint takes memory for a moment
    print("PROBE", step, memory, len(os.listdir("/proc/self/fd")), threading.active_count())

def batches(run, data, batch_size=None):
    for batch in real_batches(run, data, batch_size):
        yield batch
        sizes.append(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        if run.step in (first, last):
            measure(run.step)
        if run.step == last:
            run.stop_signal = 15

common.Run.batches = batches
importlib.import_module({name!r}).main({argv!r})
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [(name, *((1000, 10000) if name == "cgan_mnist" else (400, 1200))) for name in ROWS],
)
def test_nothing_grows(name, first, last, tmp_path):
    """cgan_mnist as it runs by default, the others small; after the first pictures."""
    argv = ["--out_dir", str(tmp_path / "out"), "--n_epochs", "100000", "--sample_interval", "100"]
    if name != "cgan_mnist":
        argv += ["--data_dir", str(make_data(name, tmp_path / "data")), *map(str, ROWS[name].flags)]
    code = PROBE.format(root=str(ROOT), first=first, last=last, name=name, argv=argv)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=1800, cwd=tmp_path
    )
    assert done.returncode == 128 + 15, done.stderr[-3000:]
    early, late = (
        [int(v) for v in line.split()[1:]]
        for line in done.stdout.splitlines()
        if line.startswith("PROBE")
    )
    assert (early[0], late[0]) == (first, last)
    assert late[1] < 1.02 * early[1], (
        f"{early[1] / 1e6:.1f} MB after {first} steps, {late[1] / 1e6:.1f} after {last}"
    )
    assert late[2] <= early[2]
    assert late[3] <= early[3]
