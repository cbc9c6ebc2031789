"""A run's folder: one training at a time, no run replaced unasked, no link followed."""

import common.folder
from common import Run, UserError, checkpoint
from common.errors import NotFinite
from common.folder import lock_folder, remove_temporaries
from common.log import Log

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import jittor as jt
import numpy as np
import pytest
from registry import ROOT, meta
from small_run import Numbers, arguments, train

LEFT = ".4711.0123abcd.tmp"  # the name of a temporary file of a killed process


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def train_for(out, *flags):
    with Run(arguments(out, *flags)) as run:
        return train(run)


def refused(capsys, out, *flags):
    """The one line with which a training is refused."""
    with pytest.raises(SystemExit) as stopped:
        train_for(out, *flags)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# ---- a folder that holds a run ----


def test_the_same_command_again_keeps_the_run(out, capsys):
    train_for(out, "--n_epochs", 2)
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    capsys.readouterr()
    line = refused(capsys, out, "--n_epochs", 3)
    assert line == (
        f"x.py: error: --out_dir {out} holds a run already: --resume {out} continues it, "
        "--overwrite replaces it, and another --out_dir keeps it"
    )
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before


def test_overwrite_replaces_the_run(out):
    train_for(out, "--n_epochs", 3, "--keep", 2)
    (out / "samples").mkdir()
    (out / "samples/step_0000900.png").write_bytes(b"of the first run")
    (out / "samples/mine.png").write_bytes(b"no file of a run")
    train_for(out, "--n_epochs", 1, "--overwrite")
    assert meta(out)["epoch"] == 1
    assert [file.name for file in out.glob("checkpoint*")] == ["checkpoint_last.npz"]
    assert [file.name for file in (out / "samples").iterdir()] == ["mine.png"]


def test_overwrite_keeps_the_run_until_the_new_one_trains(out):
    """Data that cannot be read, for example, must not cost the old run."""
    train_for(out, "--n_epochs", 2)
    with pytest.raises(SystemExit), Run(arguments(out, "--overwrite")):
        raise UserError("no data")
    assert meta(out)["epoch"] == 2


@pytest.mark.parametrize("other", ["--resume", "--init_from"])
def test_a_run_from_elsewhere_keeps_the_run(out, tmp_path, capsys, other):
    train_for(tmp_path / "other")
    train_for(out)
    capsys.readouterr()
    assert "holds a run already" in refused(capsys, out, other, tmp_path / "other")
    if other == "--resume":
        train_for(out, other, tmp_path / "other", "--n_epochs", 2, "--overwrite")
        assert meta(out)["epoch"] == 2


def test_what_an_interrupted_first_epoch_left_is_no_run(out):
    out.mkdir()
    (out / "losses.csv").write_text("step,epoch,loss\n1,1,0.5\n")
    train_for(out)
    assert (out / "losses.csv").read_text() == ""


def test_another_spelling_of_the_folder_is_the_same_folder(out, tmp_path, monkeypatch):
    train_for(out)
    monkeypatch.chdir(tmp_path)
    train_for("out", "--resume", out, "--n_epochs", 2)
    assert meta(out)["epoch"] == 2


# ---- two trainings at once ----


def test_a_second_training_at_the_same_time_is_refused(out, capsys):
    with Run(arguments(out)) as run:
        line = refused(capsys, out)
        assert line == (
            f"x.py: error: another training writes into --out_dir {out}: wait for its end, "
            "or give another --out_dir"
        )
        train(run)
    assert meta(out)["epoch"] == 1


def test_drawing_samples_needs_no_lock(out):
    train_for(out)
    with Run(arguments(out, "--resume", out, "--n_epochs", 2)):
        args = arguments(out, "--resume", out, "--sample_only")
        with Run(args):
            pass


@pytest.mark.parametrize("error", [UserError("wrong"), NotFinite("nan"), KeyError("a bug"), None])
def test_the_lock_ends_with_the_run(out, error):
    with pytest.raises(BaseException), Run(arguments(out)):  # noqa: B017
        raise error or SystemExit(1)
    lock_folder(out).close()


def test_the_lock_ends_with_a_run_that_cannot_begin(out, capsys):
    with pytest.raises(SystemExit):
        train_for(out, "--batch_size", 7)
    lock_folder(out).close()


HOLDER = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import common
from pathlib import Path
from common.folder import lock_folder
lock = lock_folder(Path({out!r}))
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_lock_goes_with_a_killed_process(out):
    out.mkdir()
    code = HOLDER.format(root=str(ROOT), tests=str(ROOT / "tests"), out=str(out))
    command = [sys.executable, "-c", code, "--device", "cpu"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(UserError, match="another training"):
        lock_folder(out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock_folder(out).close()


def test_a_file_system_without_locks(out, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    train_for(out)
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{out} lies on a file system without locks: let one training at a time use it"
    )
    assert meta(out)["epoch"] == 1


# ---- temporary files ----


WRITER = """
import sys
sys.path.insert(0, {root!r})
import common
import time
from common.checkpoint import write_atomically
content = {letter!r}.encode() * 3_000_000
end = time.time() + 2
while time.time() < end:
    write_atomically({path!r}, lambda file: file.write(content))
"""


def test_two_writers_never_tear_a_file(tmp_path):
    """As two calls of --sample_only do, which take no lock."""
    path = tmp_path / "file"
    processes = []
    for letter in "ab":
        code = WRITER.format(root=str(ROOT), letter=letter, path=str(path))
        command = [sys.executable, "-c", code, "--device", "cpu"]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    seen = set()
    while any(process.poll() is None for process in processes):
        time.sleep(0.01)
        if path.exists():
            seen.add(path.read_bytes())
    assert [process.communicate()[1] for process in processes] == [b"", b""]
    assert {(content[:1], len(content)) for content in seen} == {(b"a", 3000000), (b"b", 3000000)}
    assert all(len(set(content)) == 1 for content in seen)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_killed_runs_left_goes_at_the_next_start(out):
    out.mkdir()
    (out / LEFT).write_bytes(b"half a checkpoint")
    (out / f"{LEFT}.pkl").write_bytes(b"half a network")
    (out / ".mine.tmp").write_bytes(b"no file of a run")
    train_for(out)
    names = {file.name for file in out.iterdir()}
    assert {LEFT, f"{LEFT}.pkl"} & names == set()
    assert ".mine.tmp" in names


def test_a_link_called_as_a_temporary_file_is_removed_and_not_its_target(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / LEFT).symlink_to(tmp_path / "target")
    remove_temporaries(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["target"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "x").write_text("old")

    def write(file):
        file.write(b"new")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(UserError, match=r"cannot write .*x: full"):
        checkpoint.write_atomically(tmp_path / "x", write)
    with pytest.raises(KeyError):
        checkpoint.write_atomically(tmp_path / "x", lambda file: {}["a bug"])
    assert (tmp_path / "x").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


# ---- links in a stranger's folder ----

NAMES = ("checkpoint_last.npz", "config.json", "index.html", "losses.csv", "losses.png")


@pytest.mark.parametrize("name", [*NAMES, "result.png", "validation.csv", "samples.npz"])
def test_a_link_in_the_place_of_a_run_s_file_is_replaced(out, tmp_path, name):
    target = tmp_path / "mine"
    target.write_text("my own file")
    train_for(out, "--n_epochs", 2, "--seed", 1)
    resumed = checkpoint.Reader(out / "checkpoint_last.npz").path.rename(out / "stored.npz")
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(target)
    args = arguments(out, "--resume", resumed, "--n_epochs", 4)
    args.samples_dir = None
    with Run(args) as run:
        data = Numbers()
        run.checkpoint()
        for epoch in run.epochs():
            for _ in run.batches(data):
                run.log({"loss": jt.array([1.0])})
            run.save_validation(epoch, L1=0.5)
        run.save_grid(np.zeros((1, 1, 4, 4), np.float32), to="result.png")
        run.save_samples(np.zeros((1, 1, 4, 4), np.float32))
    assert target.read_text() == "my own file"
    assert not (out / name).is_symlink()
    assert (out / name).stat().st_size > 0


@pytest.mark.parametrize("name", [".lock", "samples"])
def test_a_link_that_a_run_would_write_through_is_refused(out, tmp_path, capsys, name):
    (tmp_path / "mine").mkdir()
    out.mkdir()
    (out / name).symlink_to(tmp_path / "mine")
    assert str(out / name) in refused(capsys, out)
    assert list((tmp_path / "mine").iterdir()) == []


# ---- losses.csv ----


def test_a_long_table_costs_no_more_for_each_row(tmp_path, monkeypatch):
    """A row is appended; the table is written whole at the start only."""
    rows = "".join(f"{step},1,0.5\n" for step in range(1, 100001))
    (tmp_path / "losses.csv").write_text("step,epoch,loss\n" + rows)
    written = []
    real_write = common.log.write_atomically

    def write(path, *args, **options):
        written.append(path.name)
        real_write(path, *args, **options)

    monkeypatch.setattr(common.log, "write_atomically", write)
    log = Log(tmp_path, step=100000)
    for step in range(100001, 100201):
        log.add(step, 1, {"loss": 0.25})
    assert written == ["losses.csv"]
    lines = (tmp_path / "losses.csv").read_text().split()
    assert len(lines) == 100201
    assert (lines[1], lines[-1]) == ("1,1,0.5", "100200,1,0.25")


def test_a_kill_while_the_table_is_replaced_loses_nothing(tmp_path, monkeypatch):
    (tmp_path / "losses.csv").write_text("step,epoch,loss\n1,1,0.5\n")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Log(tmp_path, step=1)
    assert (tmp_path / "losses.csv").read_text() == "step,epoch,loss\n1,1,0.5\n"
