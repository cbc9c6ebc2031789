"""What happens before and during the import of Jittor, but for GPUs (test_gpu.py)."""

import importlib.metadata
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from jittor_setup import cache, onednn, requirements
from jittor_setup.errors import SetupError

ROOT = Path(__file__).resolve().parents[2]


def python(code, **variables):
    """Runs code in a new Python process in the repository's folder."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


# ---- oneDNN ----


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder, and stand-ins for the two packages."""
    folders = {}
    for folder, (package, file_name) in (("lib", onednn.LIBRARY), ("include", onednn.HEADERS)):
        folders[package] = tmp_path / "prefix" / folder
        folders[package].mkdir(parents=True)
        (folders[package] / file_name).write_text("from the package")
    monkeypatch.setattr(onednn, "package_folder", lambda package, name: folders[package])
    monkeypatch.setattr(onednn.platform, "system", lambda: "Linux")
    monkeypatch.setattr(onednn.platform, "machine", lambda: "x86_64")
    return tmp_path / "cache"


def library(cache):
    return cache / "mkl" / "dnnl_lnx_2.2.0_cpu_gomp" / "lib" / "libmkldnn.so"


def test_onednn_is_linked_where_jittor_looks(empty_cache):
    onednn.link_onednn(empty_cache)
    assert library(empty_cache).read_text() == "from the package"
    header = library(empty_cache).parents[1] / "include" / "dnnl.hpp"
    assert header.read_text() == "from the package"
    assert onednn.is_linked(empty_cache)


def test_a_working_onednn_is_left_alone(empty_cache):
    library(empty_cache).parent.mkdir(parents=True)
    library(empty_cache).write_text("Jittor's")
    onednn.link_onednn(empty_cache)
    assert library(empty_cache).read_text() == "Jittor's"


@pytest.mark.parametrize("before", ["a dangling link", "an empty folder"])
def test_an_incomplete_onednn_is_repaired(before, empty_cache):
    folder = library(empty_cache).parent
    folder.parent.mkdir(parents=True)
    if before == "a dangling link":
        folder.symlink_to(empty_cache / "deleted")
    else:
        folder.mkdir()
    onednn.link_onednn(empty_cache)
    assert library(empty_cache).read_text() == "from the package"


def test_without_the_packages_nothing_is_linked(empty_cache, monkeypatch):
    monkeypatch.setattr(onednn, "package_folder", lambda package, name: None)
    onednn.link_onednn(empty_cache)
    assert not empty_cache.exists()


# ---- the cache folder ----


def test_the_cache_folder_follows_jittor_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "other"))
    assert cache.cache_folder() == tmp_path / "other/.cache/jittor"

    monkeypatch.setenv("JITTOR_HOME", "")
    assert cache.cache_folder() == tmp_path / "home/.cache/jittor"
    assert "JITTOR_HOME" not in os.environ  # Jittor would take the empty text for a path

    # Jittor keeps an earlier JITTOR_HOME in this file.
    settings = tmp_path / "home/.cache/jittor/config.json"
    settings.write_text(f'{{"JITTOR_HOME": "{tmp_path / "kept"}"}}')
    assert cache.cache_folder() == tmp_path / "kept/.cache/jittor"
    settings.write_text("[damaged")
    assert cache.cache_folder() == tmp_path / "home/.cache/jittor"


def test_an_unwritable_cache_folder_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    with pytest.raises(SetupError, match="cannot write to its cache folder"):
        cache.cache_folder()


# ---- requirements ----


def test_a_missing_compiler_ends_the_import_with_one_line():
    done = python("import jittor_setup; jittor_setup.prepare()", cc_path="no-such-compiler")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the C++ compiler no-such-compiler was not found")


def test_numpy_2_is_an_error(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1.0")
    with pytest.raises(SetupError, match=r"numpy 2\.1\.0 does not work"):
        requirements.check_requirements()


def test_a_missing_package_is_an_error(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError("jittor")

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SetupError, match="jittor is not installed: run 'pip install -r"):
        requirements.check_requirements()


def test_a_newer_python_gets_the_same_advice_from_us_and_from_pip(monkeypatch):
    """A line of requirements.txt is a path that does not exist, which pip prints."""
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(SetupError) as ours:
        requirements.check_requirements()
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (pips,) = [line for line in lines if 'python_version >= "3.13"' in line]
    for text in (str(ours.value), urllib.parse.unquote(pips)):
        assert "conda create -n jittor python=3.11" in text
        assert "uv venv --python 3.11" in text


def test_python_config_is_found_beside_the_base_python(tmp_path, monkeypatch):
    name = f"python3.{sys.version_info.minor}-config"
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).touch()
    assert requirements.python_config() == str(tmp_path / "bin" / name)

    monkeypatch.setattr(requirements.Path, "is_file", lambda path: False)
    with pytest.raises(SetupError, match=rf"install python3\.{sys.version_info.minor}-dev"):
        requirements.python_config()


# ---- the import ----


def test_the_import_is_silent_and_undoes_what_jittor_changes():
    code = """
import PIL.Image, ssl
before = PIL.Image.open, ssl._create_default_https_context
import common
assert (PIL.Image.open, ssl._create_default_https_context) == before
"""
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_jittor_first_is_an_error():
    done = python("import sys; sys.modules['jittor'] = None\nimport common")
    assert "has to come before" in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, "0 2 0\n"), ({"use_parallel_op_compiler": "3"}, "3 3 3\n")]
)
def test_kernels_are_compiled_in_parallel_on_request(variables, expected):
    """At first they are not, and a value of the user's is kept."""
    code = """
import os
os.cpu_count = lambda: 2
import jittor_setup
jittor_setup.prepare()
jt = jittor_setup.import_jittor()
seen = [jt.flags.use_parallel_op_compiler]
for on in (True, False):
    jittor_setup.compile_in_parallel(on)
    seen.append(jt.flags.use_parallel_op_compiler)
print(*seen)
"""
    assert python(code, **variables).stdout == expected


def test_a_killed_child_does_not_end_the_process():
    """Jittor's handler of SIGCHLD would end it."""
    code = """
import common, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
child.kill()
print(child.wait() == -signal.SIGKILL)
"""
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
