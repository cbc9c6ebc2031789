"""What Jittor needs on newer Pythons and with newer compilers, and nothing on older."""

import builtins
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import types

import jittor_utils
import numpy as np
import pytest
from jittor.dataset import dataset

from jittor_setup import compiler, newer, requirements
from jittor_setup.errors import SetupError

OPTIONS = ["-includecstdint", "-Wno-template-body"]


def write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def gxx(folder, version, name="g++"):
    """A stand-in for a compiler of this version; its output is its command's words."""
    answer = f'[ "$1" = -dumpversion ] && echo {version} && exit'
    write = 'words=$*; for last; do :; done; echo "$words" > "$last"'
    return str(write_program(folder / name, f"{answer}\n{write}"))


# ---- g++ ----


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("g++", "10.2.1", []),
        ("g++", "14", []),
        ("g++", "15", OPTIONS),
        ("g++-16", "16.2.0", OPTIONS),
        ("clang++-19", "19.1.7", []),
        ("g++", "", []),
    ],
)
def test_only_new_compilers_get_options(name, version, expected, tmp_path):
    assert newer.flags_for(gxx(tmp_path, version, name)) == expected


def test_a_compiler_that_fails_gets_no_options(tmp_path):
    assert newer.flags_for(str(write_program(tmp_path / "g++", "exit 1"))) == []
    assert newer.flags_for(str(tmp_path / "missing")) == []


def test_the_users_options_are_kept_and_ours_are_added_once(tmp_path, monkeypatch):
    """A child of this process has the same cc_flags, and so the same kernels."""
    monkeypatch.setenv("cc_flags", "-DMINE=1")
    newer.add_flags(gxx(tmp_path, "14"))
    assert os.environ["cc_flags"] == "-DMINE=1"
    for _ in range(2):
        newer.add_flags(gxx(tmp_path, "16", "g++-16"))
        assert os.environ["cc_flags"].split() == ["-DMINE=1", *OPTIONS]


def test_on_older_compilers_cc_flags_stay_unset(tmp_path, monkeypatch):
    monkeypatch.setenv("cc_flags", "")  # so that the end of the test restores it
    monkeypatch.delenv("cc_flags")
    newer.add_flags(gxx(tmp_path, "14"))
    assert "cc_flags" not in os.environ


def kernel_words(folder, version):
    """The words with which compile_kernel.sh calls a compiler of this version."""
    program = gxx(folder, version)
    header = folder / "kernels.h"
    script = folder / "kernels.sh"
    script.write_text(compiler.script_for(header, program))
    source = folder / "kernel_op.cc"
    source.write_text("")
    made = folder / "kernel_op.so"
    words = ["sh", script, "x/asm_tuner.py", f"--cc_path={program}", source, "-O2", *OPTIONS]
    subprocess.run([*words, "-o", made], check=True)
    return made.read_text().split()


@pytest.mark.parametrize("version", ["14", "15"])
def test_the_precompiled_header_comes_before_any_other(version, tmp_path, monkeypatch):
    """g++ does not use it after another one, such as that of -includecstdint."""
    monkeypatch.setattr(compiler, "faster_linker", lambda compiler: [])
    words = kernel_words(tmp_path, version)
    place = words.index("-include")
    assert words[place + 1] == str(tmp_path / "kernels.h")
    assert (place < words.index("-includecstdint")) == (version == "15")


def test_the_script_of_older_compilers_is_unchanged(tmp_path, monkeypatch):
    """Each kernel depends on its text: another one would compile all of them again."""
    monkeypatch.setattr(compiler, "faster_linker", lambda compiler: [])
    header = tmp_path / "kernels.h"
    old = compiler.script_for(header, gxx(tmp_path, "14"))
    new = compiler.script_for(header, gxx(tmp_path, "15", "g++-15"))
    assert old.endswith(compiler.SCRIPT.read_text())
    assert not new.endswith(compiler.SCRIPT.read_text())


def test_the_core_has_its_header_first_too(tmp_path):
    """Jittor's command is kept as it would be without the header."""
    seen = []

    def run_cmds(commands, cache_path, jittor_path):
        for command in commands:
            seen.append(shlex.split(command))
            (tmp_path / "one.o.key").write_text(f"{command}\n# one.cc: 1\n")

    command = f'"/usr/bin/g++" "{tmp_path}/one.cc" -O2 -includecstdint -c -o "{tmp_path}/one.o"'
    compiler.run_with_header(run_cmds, [command], tmp_path / "core.h", str(tmp_path), "")
    ((program, first, *_),) = seen
    assert program == "/usr/bin/g++"
    assert first == f"-include{tmp_path}/core.h"
    assert (tmp_path / "one.o.key").read_text() == f"{command}\n# one.cc: 1\n"


# ---- locals() and exec() ----

READER = """
def load(name):
    exec(f"import {name}")
    return locals()[name]

def names(argument):
    local = 1
    return dict(locals())

class Class:
    inside = 1
    locals()["more"] = 2

locals()["of_the_module"] = 3
"""


def module(name):
    """A module with this code and our `locals`."""
    made = types.ModuleType(name)
    made.locals = newer.locals_with_imports
    exec(compile(READER, name, "exec"), vars(made))
    return made


@pytest.mark.parametrize("name", newer.READERS)
def test_imports_by_exec_are_seen_in_jittors_modules(name):
    assert module(name).load("fractions") is sys.modules["fractions"]
    with pytest.raises(ModuleNotFoundError):
        module(name).load("no_such_module")


@pytest.mark.parametrize("name", ["jittor_utils", "another"])
def test_otherwise_locals_are_as_ever(name):
    made = module(name)
    assert made.names(7) == {"argument": 7, "local": 1}
    assert made.Class.more == 2
    assert made.of_the_module == 3


@pytest.mark.skipif(sys.version_info < (3, 13), reason="there, all modules see imports by exec")
def test_other_modules_do_not_see_imports_by_exec():
    with pytest.raises(KeyError):
        module("another").load("fractions")


@pytest.fixture
def restored(monkeypatch):
    """Undoes what `mended_import` changes."""
    monkeypatch.setattr(jittor_utils, "Pool", jittor_utils.Pool)
    monkeypatch.setattr(dataset, "mp", dataset.mp)
    for name in newer.READERS:
        monkeypatch.setattr(sys.modules[name], "locals", None, raising=False)
        monkeypatch.delattr(sys.modules[name], "locals")


@pytest.mark.parametrize("version", [(3, 12, 9), (3, 13, 0), (3, 14, 1)])
def test_each_mend_applies_from_its_version_on(version, restored, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(jittor_utils, "Pool", None)
    monkeypatch.setattr(dataset, "mp", None)
    python_locals = builtins.locals
    with newer.mended_import():
        during = builtins.locals
    assert builtins.locals is python_locals
    is_new = version >= (3, 13)
    assert during is (newer.locals_with_imports if is_new else python_locals)
    for name in newer.READERS:
        assert ("locals" in vars(sys.modules[name])) == is_new
    if version >= (3, 14):
        fork = multiprocessing.get_context("fork")
        assert jittor_utils.Pool.__self__ is fork
        assert dataset.mp is fork
    else:
        assert jittor_utils.Pool is None
        assert dataset.mp is None


def test_a_failing_import_restores_locals(restored, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    python_locals = builtins.locals
    with pytest.raises(SystemExit), newer.mended_import():
        raise SystemExit(0)  # as after "jit_utils updated"
    assert builtins.locals is python_locals


def test_jittor_compiles_a_module_of_c(tmp_path):
    """jittor_utils.compile_module reads locals() in a program that runs already."""
    from jittor import compiler as jittor_compiler

    code = """#include "common.h"
namespace jittor {
// @pyjt(thrice)
inline int thrice(int x) { return 3 * x; }
}"""
    made = jittor_utils.compile_module(code, jittor_compiler.cc_flags)
    assert made.thrice(14) == 42


class Squares(dataset.Dataset):
    def __getitem__(self, i):
        return np.float32([i * i])


def test_workers_of_a_data_set_of_jittors():
    """They inherit the data set, which cannot be sent to them."""
    squares = Squares(batch_size=5, num_workers=2)
    squares.set_attrs(total_len=20)
    try:
        batches = [batch.numpy().reshape(-1) for batch in squares]
    finally:
        squares.terminate()
    assert np.array_equal(np.concatenate(batches), np.arange(20.0) ** 2)


# ---- Pythons that are refused ----


def test_a_python_that_was_not_tried_is_refused_with_a_cure(monkeypatch):
    major, minor = requirements.NEWEST_PYTHON
    monkeypatch.setattr(sys, "version_info", (major, minor + 1, 0))
    with pytest.raises(SetupError, match="too new for Jittor") as refused:
        requirements.check_requirements()
    assert "conda create -n jittor python=3.12" in str(refused.value)
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(sys, "version_info", (major, minor, 0))
    requirements.check_python()


def test_a_free_threaded_python_is_refused(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: 1)
    with pytest.raises(SetupError, match="free-threaded") as refused:
        requirements.check_requirements()
    assert "uv venv --python 3.12" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_requirements_stop_no_python():
    """A line of them made pip end on Python 3.13 and newer."""
    text = (compiler.FOLDER.parent / "requirements.txt").read_text()
    assert "python_version" not in text
    assert re.search(r"^numpy>=1\.23,<2 ", text, re.MULTILINE)
