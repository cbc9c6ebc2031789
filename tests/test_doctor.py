"""tools/doctor.py as a command: a healthy machine, and machines that lack something."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def doctor(*flags, **variables):
    """Exit code and {name: (state, text)} of the lines."""
    command = [sys.executable, str(ROOT / "tools/doctor.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.stderr == ""
    lines = {line[:11].strip(): (line[12:20].strip(), line[21:]) for line in done.stdout.splitlines()[:-1]}
    return done.returncode, lines, done.stdout.splitlines()[-1]


def test_a_machine_on_which_the_scripts_run():
    code, lines, verdict = doctor()
    assert code == 0
    assert verdict == "The scripts run on this machine."
    assert {"system", "Python", "packages", "compiler", "headers", "cache", "disk", "Jittor", "oneDNN", "GPU"} <= set(
        lines
    )
    assert "jittor 1.3" in lines["packages"][1]
    assert "MISSING" not in [state for state, _ in lines.values()]


def test_it_imports_no_jittor(tmp_path):
    """A module of that name that ends the program stands in the way."""
    (tmp_path / "jittor.py").write_text("raise SystemExit(9)")
    assert doctor(PYTHONPATH=str(tmp_path))[0] == 0


def test_a_missing_compiler():
    code, lines, verdict = doctor(cc_path="no-such-compiler")
    assert code == 2
    assert lines["packages"][0] == "MISSING"
    assert "no-such-compiler was not found" in lines["packages"][1]
    assert "do not run yet" in verdict


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, lines, _ = doctor(HOME=str(tmp_path / "file"), JITTOR_HOME="")
    assert code == 2
    assert lines["cache"][0] == "MISSING"
    assert "cannot write its cache folder" in lines["cache"][1]


def test_a_cache_with_a_space_in_its_path(tmp_path):
    code, lines, _ = doctor(HOME=str(tmp_path / "a b"), JITTOR_HOME="")
    assert code == 0
    assert lines["cache"][0] == "note"
    assert "set JITTOR_HOME" in lines["cache"][1]
    assert "not compiled yet" in lines["Jittor"][1]
