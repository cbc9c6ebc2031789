"""The form of the code: what imports what, nothing packed, short functions."""

import common

import ast
import os
import subprocess
import sys

import pytest
from registry import ROOT, ROWS

# A copy of one's own in this folder need not obey these rules.
SCRIPTS = [ROOT / f"{name}.py" for name in ROWS]
PACKAGES = {name: sorted((ROOT / name).rglob("*.py")) for name in ("common", "jittor_fast")}
PACKAGES["jittor_setup"] = sorted((ROOT / "jittor_setup").rglob("*.py"))
PACKAGES["tools"] = sorted((ROOT / "tools").rglob("*.py"))
PACKAGES["tests"] = sorted((ROOT / "tests").rglob("*.py"))
PRODUCT = [*SCRIPTS, *PACKAGES["common"], *PACKAGES["jittor_fast"], *PACKAGES["jittor_setup"]]
PRODUCT += PACKAGES["tools"]
LONGEST_FUNCTION = 45  # lines
FLAGS = ("parse_args", "add_flags")  # a list of flags is as long as it is


def label(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """The full names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (package, node.module)))
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


# ---- what imports what ----


def test_common_has_few_public_names():
    assert len(common.__all__) <= 12
    assert all(hasattr(common, public) for public in common.__all__)


FORBIDDEN = {
    "jittor_fast": {"common", "jittor_setup", "tools", "tests"},
    "jittor_setup": {"common", "jittor_fast", "tools", "tests"},
    "common": {"tools", "tests"},
    "tools": {"tests"},
}


@pytest.mark.parametrize(
    ("package", "path"),
    [(package, path) for package in FORBIDDEN for path in PACKAGES[package]],
    ids=lambda value: value if isinstance(value, str) else label(value),
)
def test_imports_between_folders_run_one_way(package, path):
    """Of the folders, only tools may import a script."""
    tops = {name.split(".")[0] for name in imported(path)}
    forbidden = set(FORBIDDEN[package])
    if package != "tools":
        forbidden |= {script.stem for script in SCRIPTS}
    assert tops & forbidden == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=label)
def test_a_script_imports_no_other_script(path):
    tops = {name.split(".")[0] for name in imported(path)}
    others = {script.stem for script in SCRIPTS} - {path.stem}
    assert tops & (others | {"tools", "tests", "torch"}) == set()


IMPORTS = """
import random, sys
import numpy as np
import common, jittor as jt
sys.argv = ["x", "--no_such_flag"]
for name in {names}:
    jt.set_seed(123456789)
    before = np.random.get_state()[1].tolist(), random.getstate()
    __import__(name)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before, name
    first = jt.rand(1).item()
    jt.set_seed(123456789)
    assert jt.rand(1).item() == first, name
"""


def test_importing_a_script_has_no_side_effect(tmp_path):
    """It writes and prints nothing, reads no argument, draws no random number."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    code = IMPORTS.format(names=[script.stem for script in SCRIPTS])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# ---- what a page shows, and what it does not ----


@pytest.mark.parametrize("path", SCRIPTS, ids=label)
def test_a_page_chooses_its_device_as_code(path):
    targets = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            targets += [ast.unparse(target) for target in node.targets]
    assert targets.count("jt.flags.use_cuda") == 1


@pytest.mark.parametrize("path", SCRIPTS, ids=label)
def test_a_page_does_not_show_processes(path):
    """What mpirun needs lies in common/."""
    text = path.read_text()
    words = ("world_size", "jt.rank", "mpirun", "mpi_", "is_main", ".shard(", ".gather(")
    assert [word for word in words if word in text] == []


# ---- nothing packed ----


def packed_lines(tree):
    """The lines that do several things at once to be short.

    A tuple of calls is assigned to a tuple of names, a name gets its value within
    another assignment, or calls stand side by side as one statement.
    """
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            has_call = any(isinstance(part, ast.Call) for part in ast.walk(node.value))
            is_pair = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
            is_chain = len(node.targets) > 1
            if (is_pair or is_chain) and has_call:
                lines.append(node.lineno)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    ("code", "is_packed"),
    [
        ("a, b = f(x), g(y)", True),
        ("a, b = x, g(y)", True),
        ("a = b, c = f(x)", True),
        ("f(x), g(y)", True),
        ("a, b = f(x)", False),
        ("a, b = b, a", False),
        ("f(x)", False),
        ("a = (f(x), g(y))", False),
    ],
)
def test_what_counts_as_packed(code, is_packed):
    assert bool(packed_lines(ast.parse(code))) == is_packed


@pytest.mark.parametrize("path", PRODUCT, ids=label)
def test_nothing_is_packed(path):
    assert packed_lines(ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", PRODUCT, ids=label)
def test_functions_have_about_forty_lines(path):
    lengths = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in FLAGS:
            lengths[node.name] = node.end_lineno - node.lineno + 1
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", [*PRODUCT, *PACKAGES["tests"]], ids=label)
def test_the_formatter_is_never_switched_off(path):
    text = path.read_text()
    assert "fmt: " + "skip" not in text
    assert "fmt: " + "off" not in text
