"""A line that cannot be printed does not end a training; nor does a closed terminal."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from registry import ROOT, meta

FULL = Path("/dev/full")  # every write to it fails, as on a full disk

# A training of three steps an epoch, which prints a line in each.
CODE = """
import os, sys, time
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + "/common"]
sys.argv = ["x", "--device", "cpu"]
from common import Run
from small_run import Diary, Numbers, arguments
import jittor as jt

with Run(arguments(os.fsdecode(sys.stdin.buffer.readline().strip()), "--n_epochs", 40)) as run:
    run.checkpoint(diary=Diary())
    run.restore()
    data = Numbers()
    for epoch in run.epochs():
        for batch in run.batches(data):
            run.log({{"loss": jt.array([1.0])}})
            {then}
"""


def start(out, then="pass", shell="", encoding=None, **streams):
    """Starts the training in `out`.

    Args:
        then: what it does after each step.
        shell: redirections of a shell.
    """
    code = CODE.format(root=str(ROOT), tests=str(ROOT / "tests"), then=then)
    environment = dict(os.environ)
    if encoding is not None:
        environment["PYTHONIOENCODING"] = encoding
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, code],
        env=environment,
        stdin=subprocess.PIPE,
        **streams,
    )
    process.stdin.write(os.fsencode(out) + b"\n")
    process.stdin.flush()
    return process


def is_trained(out):
    return meta(out)["epoch"] == 40


def test_a_reader_that_has_enough(tmp_path):
    """As with `| head -1`."""
    out = tmp_path / "out"
    process = start(out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"epoch 1/40  step 1/120")
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait() == 0
    assert errors == (
        "warning: standard output cannot be written (Broken pipe); "
        "the script continues without it\n"
    )
    assert is_trained(out)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("shell", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_full_disk_under_the_output(tmp_path, shell):
    process = start(tmp_path / "out", shell=shell, stdout=subprocess.DEVNULL)
    process.communicate()
    assert process.returncode == 0
    assert is_trained(tmp_path / "out")


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream(tmp_path, shell):
    """As in some services."""
    process = start(tmp_path / "out", shell=shell, stderr=subprocess.PIPE)
    errors = process.communicate()[1]
    assert (process.returncode, errors) == (0, b"")
    assert is_trained(tmp_path / "out")


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("ascii", "图".encode(), b"\\u56fe"),
        ("utf-8:strict", b"\xd6\xd0", b"\\udcd6\\udcd0"),  # a name in GBK
        ("utf-8", b"a\x1b[2Jb", b"a\\x1b[2Jb"),
    ],
)
def test_a_name_that_the_output_cannot_show(tmp_path, encoding, name, shown):
    out = os.fsencode(tmp_path) + b"/" + name
    process = start(out, encoding=encoding, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output.splitlines()[-1].endswith(shown + b".")
    assert is_trained(Path(os.fsdecode(out)))


def test_a_terminal_that_closes_saves(tmp_path):
    """Its processes get SIGHUP, and nothing can be printed any more."""
    out = tmp_path / "out"
    code = CODE.format(root=str(ROOT), tests=str(ROOT / "tests"), then="time.sleep(0.1)")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    os.write(terminal, os.fsencode(out) + b"\n")
    end = time.monotonic() + 60
    while not (out / "index.html").exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.close(terminal)
    status = os.waitpid(child, 0)[1]
    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 128 + signal.SIGHUP
    assert meta(out)["step"] > 0


def test_hangup_saves_and_says_so(tmp_path):
    out = tmp_path / "out"
    process = start(
        out, then="os.kill(os.getpid(), 1)", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    errors = process.communicate()[1].decode()
    assert process.returncode == 129
    assert errors == f"Stopped at step 1 and saved; continue with --resume {out}\n"
    assert meta(out)["step"] == 1


def test_under_nohup_a_hangup_is_ignored(tmp_path):
    out = tmp_path / "out"
    code = CODE.format(root=str(ROOT), tests=str(ROOT / "tests"), then="os.kill(os.getpid(), 1)")
    process = subprocess.run(
        ["sh", "-c", 'trap \'\' HUP; exec "$0" -c "$1"', sys.executable, code],
        input=os.fsencode(out) + b"\n",
        capture_output=True,
    )
    assert process.returncode == 0
    assert is_trained(out)
