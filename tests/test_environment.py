"""What is decided before Jittor is imported: links to oneDNN, and what is missing (the GPU: test_gpu.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jittor_setup

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Stand-ins for the two wheels, and an empty cache."""
    prefix = tmp_path / "prefix"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "include").mkdir()
    (prefix / "lib" / "libmkldnn.so").write_text("new library")
    (prefix / "include" / "dnnl.hpp").write_text("new header")
    folders = {"libmkldnn.so": prefix / "lib", "dnnl.hpp": prefix / "include"}
    monkeypatch.setattr(jittor_setup, "wheel_folder", lambda package, name: folders[name])
    monkeypatch.setattr(jittor_setup.platform, "system", lambda: "Linux")
    monkeypatch.setattr(jittor_setup.platform, "machine", lambda: "x86_64")
    return tmp_path / "cache"


def library(cache):
    return cache / "mkl" / jittor_setup.ONEDNN / "lib" / "libmkldnn.so"


def test_links_are_made(wheels):
    jittor_setup.link_onednn(wheels)
    assert library(wheels).read_text() == "new library"
    assert (library(wheels).parents[1] / "include" / "dnnl.hpp").read_text() == "new header"


def test_a_working_installation_is_left_alone(wheels):
    library(wheels).parent.mkdir(parents=True)
    library(wheels).write_text("old library")
    jittor_setup.link_onednn(wheels)
    assert library(wheels).read_text() == "old library"


def test_a_dangling_link_is_repaired(wheels):
    library(wheels).parents[1].mkdir(parents=True)
    library(wheels).parent.symlink_to(wheels / "gone")
    jittor_setup.link_onednn(wheels)
    assert library(wheels).read_text() == "new library"


def test_a_half_filled_folder_is_completed(wheels):
    library(wheels).parent.mkdir(parents=True)
    jittor_setup.link_onednn(wheels)
    assert library(wheels).read_text() == "new library"


def test_without_the_wheels_jittor_goes_its_own_way(wheels, monkeypatch):
    monkeypatch.setattr(jittor_setup, "wheel_folder", lambda package, name: None)
    jittor_setup.link_onednn(wheels)
    assert not wheels.exists()


def test_cache_folder_follows_jittor_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "other"))
    assert jittor_setup.cache_folder() == tmp_path / "other" / ".cache" / "jittor"
    monkeypatch.setenv("JITTOR_HOME", "")
    assert jittor_setup.cache_folder() == tmp_path / "home" / ".cache" / "jittor"
    assert "JITTOR_HOME" not in os.environ  # Jittor would take an empty one for a path
    # Jittor remembers an earlier JITTOR_HOME in this file.
    (tmp_path / "home/.cache/jittor/config.json").write_text(
        f'{{"JITTOR_HOME": "{tmp_path / "kept"}"}}'
    )
    assert jittor_setup.cache_folder() == tmp_path / "kept" / ".cache" / "jittor"


def one_line(capsys, call):
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    assert "cannot write its cache folder" in one_line(capsys, jittor_setup.cache_folder)


def test_no_compiler(monkeypatch, capsys):
    monkeypatch.delenv("cc_path", raising=False)
    monkeypatch.setattr(jittor_setup.shutil, "which", lambda name: None)
    assert "g++ was not found" in one_line(capsys, jittor_setup.check_requirements)


def test_numpy_2(monkeypatch, capsys):
    monkeypatch.setattr(jittor_setup.importlib.metadata, "version", lambda name: "2.1.0")
    assert "numpy 2.1.0 does not work" in one_line(capsys, jittor_setup.check_requirements)


def test_python_too_new(monkeypatch, capsys):
    monkeypatch.setattr(jittor_setup.sys, "version_info", (3, 13, 0))
    assert "too new" in one_line(capsys, jittor_setup.check_requirements)


def test_jittor_missing(monkeypatch, capsys):
    def version(name):
        raise jittor_setup.importlib.metadata.PackageNotFoundError("jittor")

    monkeypatch.setattr(jittor_setup.importlib.metadata, "version", version)
    assert "pip install -r requirements.txt" in one_line(capsys, jittor_setup.check_requirements)


def python(code, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_import_is_silent_and_restores_what_jittor_changes():
    code = (
        "import PIL.Image, ssl; before = PIL.Image.open, ssl._create_default_https_context\n"
        "import common\n"
        "assert (PIL.Image.open, ssl._create_default_https_context) == before"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_jittor_first_is_an_error():
    done = python("import sys; sys.modules['jittor'] = None\nimport common")
    assert "has to come before" in done.stderr


def test_a_variable_of_the_user_wins(monkeypatch):
    done = python(
        "import common, os; print(os.environ['use_parallel_op_compiler'])",
        use_parallel_op_compiler="2",
    )
    assert done.stdout == "2\n"


@pytest.mark.parametrize(
    ("setting", "expected"), [({}, "0 2 0"), ({"use_parallel_op_compiler": "0"}, "0 0 0")]
)
def test_kernels_are_compiled_in_parallel_in_the_first_step_alone(setting, expected):
    code = (
        "import os\n"
        "os.cpu_count = lambda: 2\n"
        "import common, jittor as jt\n"
        "from jittor_setup import compile_in_parallel\n"
        "seen = [jt.flags.use_parallel_op_compiler]\n"
        "for on in (True, False):\n"
        "    compile_in_parallel(on)\n"
        "    seen.append(jt.flags.use_parallel_op_compiler)\n"
        "print(*seen)\n"
    )
    assert python(code, **setting).stdout.split("\n")[-2] == expected


def test_a_killed_child_does_not_end_the_process():
    """Jittor's own handler of SIGCHLD would."""
    code = (
        "import common, signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "child.kill()\n"
        "print(child.wait() == -signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_python_config_is_found_beside_the_python_of_the_environment(tmp_path, monkeypatch, capsys):
    name = f"python3.{sys.version_info.minor}-config"
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).touch()
    assert jittor_setup.python_config() == str(tmp_path / "bin" / name)
    (tmp_path / "bin" / name).unlink()
    monkeypatch.setattr(jittor_setup.Path, "is_file", lambda path: False)
    with pytest.raises(SystemExit) as stopped:
        jittor_setup.python_config()
    assert stopped.value.code == 2
    assert f"install python3.{sys.version_info.minor}-dev" in capsys.readouterr().err
