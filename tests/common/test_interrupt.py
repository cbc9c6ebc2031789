"""Ctrl-C outside a training: one line and the exit code of Ctrl-C, not a traceback."""

from common import interrupt

import signal
import subprocess
import sys

import pytest
from registry import ROOT


@pytest.fixture(autouse=True)
def own_hook(monkeypatch):
    """Each test gets the hook that the imports have left, and gives it back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def test_an_interrupt_is_one_line(capsys):
    seen = []
    sys.excepthook = lambda *error: seen.append(error)
    interrupt.end_in_one_line()
    stop = KeyboardInterrupt()
    sys.excepthook(KeyboardInterrupt, stop, None)
    assert capsys.readouterr().err == "Stopped.\n"
    assert seen == []


def test_other_errors_are_printed_as_before(capsys):
    seen = []
    sys.excepthook = lambda *error: seen.append(error)
    interrupt.end_in_one_line()
    error = ValueError("a bug")
    sys.excepthook(ValueError, error, None)
    assert seen == [(ValueError, error, None)]
    assert capsys.readouterr().err == ""


def test_without_standard_error(monkeypatch):
    interrupt.end_in_one_line()
    monkeypatch.setattr(sys, "stderr", None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_a_script_that_is_interrupted():
    """Jittor's own handler would end it with exit code 1."""
    code = (
        # In the background of a shell script it would be ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import common, os, time; os.kill(os.getpid(), 2); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT  # 130 for a shell
    assert done.stderr == "Stopped.\n"


def test_an_ignored_interrupt_stays_ignored():
    """As in the background of a shell script."""
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "import common; os.kill(os.getpid(), 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- while Jittor is imported ----

IMPORT = """
import os, signal, subprocess, sys
import jittor_setup

signal.signal(signal.SIGINT, signal.default_int_handler)

def import_jittor():
{body}

jittor_setup.import_jittor = import_jittor
import common
"""
CAUGHT = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except:
        pass
"""
REPLACED = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        sys.exit(0)
"""
CHILD = """
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))  # as Jittor's handler does
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGINT)  # which a terminal sends to all processes
    child.wait()
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("body", [CAUGHT, REPLACED, CHILD], ids=["caught", "replaced", "child"])
def test_an_interrupt_of_jittors_import(body):
    code = IMPORT.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "Stopped.\n")


def test_no_signal_is_held_back_after_the_import():
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import common; "
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, []); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
