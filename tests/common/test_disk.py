"""A disk that is full or read-only, and a folder that vanishes, lose no training."""

import common.run
from common import Run, checkpoint
from common.errors import _warned

import errno
import os
import shutil
import signal

import jittor as jt
import numpy as np
import pytest
from registry import differences, meta
from small_run import Diary, Numbers, arguments


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def no_line_was_printed_yet():
    _warned.clear()


def train(out, *flags, after=None):
    """Trains epochs of three steps, with a loss and a picture in each step.

    Args:
        after: called with the run after each step, within the loop.
    """
    data = Numbers()
    diary = Diary()
    with Run(arguments(out, *flags)) as run:
        run.checkpoint(diary=diary)
        run.restore()
        for epoch in run.epochs():
            for (batch,) in run.batches(data):
                diary.write(run, "", epoch, batch)
                run.log({"loss": jt.array([1.0 / run.step])})
                run.save_grid(np.zeros((1, 1, 4, 4), np.float32))
                if after is not None:
                    after(run)
            run.save_validation(epoch, L1=1.0)
        run.save_grid(np.zeros((1, 1, 4, 4), np.float32), to="result.png")


class Disk:
    """Makes every fsync fail while it is full."""

    def __init__(self, monkeypatch):
        self.is_full = False
        self.monkeypatch = monkeypatch
        real_sync = os.fsync

        def fsync(number):
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_sync(number)

        monkeypatch.setattr(os, "fsync", fsync)


def tables(out):
    return [(out / name).read_text() for name in ("losses.csv", "validation.csv")]


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_folder_that_vanishes_is_made_again(out, tmp_path, capsys, how):
    train(tmp_path / "whole", "--n_epochs", 3)

    def vanish(run):
        if run.step == 4 and how == "removed":
            shutil.rmtree(out)
        elif run.step == 4:
            out.rename(tmp_path / "elsewhere")

    capsys.readouterr()
    train(out, "--n_epochs", 3, after=vanish)
    assert differences(tmp_path / "whole", out) == []
    assert (out / "losses.csv").read_text() == (tmp_path / "whole/losses.csv").read_text()
    for name in ("config.json", "result.png", "samples/step_0000009.png", ".lock"):
        assert (out / name).is_file()
    errors = capsys.readouterr().err.splitlines()
    assert errors == [f"warning: {out} was removed or renamed meanwhile, and is made again"]


def test_a_disk_that_is_full_for_a_while_costs_nothing(out, tmp_path, monkeypatch, capsys):
    """The checkpoint is tried again, and the tables are written whole."""
    train(tmp_path / "whole", "--n_epochs", 4)
    disk = Disk(monkeypatch)
    saved = []

    def fill(run):
        disk.is_full = 2 <= run.step < 8
        saved.append(meta(out)["step"] if (out / "checkpoint_last.npz").exists() else 0)

    capsys.readouterr()
    monkeypatch.setattr(common.run, "RETRY_SECONDS", 0)
    train(out, "--n_epochs", 4, after=fill)
    # Epochs end after steps 3 and 6, when the disk is full; the save after step 8 is
    # one that was tried again.
    assert saved == [0, 0, 0, 0, 0, 0, 0, 0, 8, 9, 9, 9]
    assert differences(tmp_path / "whole", out) == []
    assert tables(out) == tables(tmp_path / "whole")
    errors = capsys.readouterr().err.splitlines()
    wanted = f"warning: cannot write {out}/checkpoint_last.npz: {os.strerror(errno.ENOSPC)}; "
    assert [line for line in errors if "checkpoint_last" in line] == [
        wanted + "the training continues, and tries again every minute"
    ]
    assert all(line.startswith("warning: cannot write ") for line in errors)


def test_a_disk_that_stays_full_ends_with_one_error(out, monkeypatch, capsys):
    train(out, "--n_epochs", 1)
    good = (out / "checkpoint_last.npz").read_bytes()
    disk = Disk(monkeypatch)
    disk.is_full = False

    def fill(run):
        disk.is_full = True

    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train(out, "--resume", out, "--n_epochs", 2, after=fill)
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    path = out / "checkpoint_last.npz"
    assert errors == [
        f"x.py: error: cannot write {path}: {os.strerror(errno.ENOSPC)}; "
        f"the last good one is still {path}"
    ]
    assert path.read_bytes() == good
    assert list(out.glob(".*.tmp*")) == []


def test_a_stop_on_a_full_disk_is_an_error(out, monkeypatch, capsys):
    disk = Disk(monkeypatch)

    def fill(run):
        disk.is_full = True
        run.on_signal(signal.SIGTERM, None)

    with pytest.raises(SystemExit) as stopped:
        train(out, after=fill)
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert "x.py: error: cannot write" in text
    assert "and saved" not in text


def test_what_could_not_be_saved_is_saved_when_the_run_ends_otherwise(out, monkeypatch, capsys):
    """The end of the training finds the disk free again."""
    disk = Disk(monkeypatch)
    real_end = Run.__exit__

    def end(run, *error):
        disk.is_full = False
        return real_end(run, *error)

    def fill(run):
        disk.is_full = True

    monkeypatch.setattr(Run, "__exit__", end)
    with pytest.raises(SystemExit) as stopped:
        train(out, "--n_epochs", 2, after=fill)  # it cannot write result.png
    assert stopped.value.code == 2
    assert "result.png" in capsys.readouterr().err
    assert meta(out)["step"] == 6


def test_numpy_leaves_no_message_about_a_full_disk(tmp_path, capfd):
    """`numpy.savez` leaves its archive open, which complains when it is collected."""

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            raise OSError(errno.ENOSPC, "full")

    arrays = {"x": np.zeros(10)}
    with pytest.raises(common.UserError, match="full"):
        checkpoint.write_atomically(
            tmp_path / "x.npz", lambda file: checkpoint.write_npz(Full(file), arrays)
        )
    assert capfd.readouterr().err == ""


def test_an_npz_is_that_of_numpy(tmp_path):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.array("text")}
    with open(tmp_path / "own.npz", "wb") as file:
        checkpoint.write_npz(file, arrays)
    np.savez(tmp_path / "numpy.npz", **arrays)
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "numpy.npz") as expected:
        assert own.files == expected.files
        for name in own.files:
            assert own[name].dtype == expected[name].dtype
            assert np.array_equal(own[name], expected[name])


# ---- pictures of a training that diverges ----


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_that_is_not_finite_ends_as_a_loss_does(out, capsys, value):
    """A picture may be due before the losses are read."""

    def draw(run):
        if run.step == 2:
            run.save_grid(np.full((1, 1, 4, 4), value, np.float32))

    with pytest.raises(SystemExit) as stopped:
        train(out, "--log_interval", 50, after=draw)
    assert stopped.value.code == 3
    assert capsys.readouterr().err == (
        "x.py: error: images hold values that are NaN or infinite at step 2; "
        "a lower --lr may help\n"
    )
    assert not (out / "checkpoint_last.npz").exists()
