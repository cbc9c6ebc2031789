"""What holds for every script, whatever its model: names, flags, side effects, length."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import common

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(f.stem for f in ROOT.glob("*.py"))
SHARED_FLAGS = {
    "n_epochs", "batch_size", "lr", "b1", "b2", "img_size", "channels", "data_dir", "out_dir", "sample_interval",
    "checkpoint_interval", "resume", "sample_only", "n_samples", "seed", "device",
}  # fmt: skip

pytestmark = pytest.mark.parametrize("name", SCRIPTS)


def source(name):
    return (ROOT / f"{name}.py").read_text()


def test_import_has_no_side_effect(name, tmp_path):
    """It writes nothing, prints nothing, reads no argument and draws no random number."""
    code = (
        "import random, sys; import numpy as np; import common, jittor as jt\n"
        "sys.argv = ['x', '--no_such_flag']\n"
        "jt.set_seed(123456789); before = np.random.get_state()[1].tolist(), random.getstate()\n"
        f"import {name}\n"
        "assert (np.random.get_state()[1].tolist(), random.getstate()) == before\n"
        "first = jt.rand(1).item(); jt.set_seed(123456789); assert jt.rand(1).item() == first\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_names_of_the_design(name):
    module = importlib.import_module(name)
    for function in ("parse_args", "train_step", "main"):
        assert callable(getattr(module, function))
    for function in (module.parse_args, module.main):
        assert list(inspect.signature(function).parameters) == ["argv"]
    assert module.__doc__.count("python ") >= 1


def test_every_flag_is_read(name):
    module = importlib.import_module(name)
    text = source(name) + "".join(f.read_text() for f in (ROOT / "common").glob("*.py"))
    flags = set(vars(module.parse_args([]))) - {"script", "stored"}
    assert flags >= SHARED_FLAGS
    assert [flag for flag in sorted(flags) if not re.search(rf"args\.{flag}\b", text)] == []


def test_help_shows_every_flag(name, capsys):
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stopped:
        module.parse_args(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert [flag for flag in SHARED_FLAGS if f"--{flag}" not in text] == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--n_epochs", "0"],
        ["--batch_size", "-1"],
        ["--lr", "-0.1"],
        ["--lr", "inf"],
        ["--b1", "1"],
        ["--img_size", "0"],
        ["--channels", "2"],
        ["--sample_interval", "0"],
        ["--checkpoint_interval", "x"],
        ["--n_samples", "-1"],
        ["--seed", "-1"],
        ["--device", "tpu"],
        ["--sample_only"],
        ["--resume", "no/such/folder"],
        ["--no_such_flag", "1"],
        ["--n_epo", "1"],
    ],
)
def test_bad_flags_end_in_one_line(name, flags, fails):
    code, line = fails(importlib.import_module(name).parse_args, flags)
    assert code == 2
    assert line.startswith(f"{name}.py: error: ")
    assert flags[0].lstrip("-") in line or flags[-1] in line


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_foreign_file_as_checkpoint(name, content, fails, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    code, line = fails(importlib.import_module(name).parse_args, ["--resume", str(tmp_path / "x.npz")])
    assert code == 2
    assert str(tmp_path / "x.npz") in line


def test_missing_data_is_found_before_training(name, fails, tmp_path):
    missing = tmp_path / "no such folder"
    code, line = fails(importlib.import_module(name).main, ["--data_dir", missing, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert str(missing) in line


def test_out_dir_that_cannot_be_made(name, fails, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, line = fails(importlib.import_module(name).main, ["--out_dir", tmp_path / "file" / "out"])
    assert code == 2
    assert "cannot be written" in line


def test_no_script_imports_another(name):
    imported = set()
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert not imported & set(SCRIPTS)


def test_functions_are_short(name):
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(source(name)))
        if isinstance(node, ast.FunctionDef)
    }
    assert {function: n for function, n in lengths.items() if n > 50} == {}


def test_few_public_names(name):
    assert len(common.__all__) <= 12
    assert all(hasattr(common, public) for public in common.__all__)
