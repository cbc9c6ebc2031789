"""What happens before and during the import of Jittor, but for GPUs (test_gpu.py)."""

import errno
import fcntl
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jittor_setup
from jittor_setup import cache, damage, onednn, requirements
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


def test_an_unwritable_cache_folder_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    with pytest.raises(SetupError, match="cannot write to its cache folder"):
        cache.cache_folder()


@pytest.mark.parametrize("text", ["[damaged", "[]", "5", "null", '{"JITTOR_HOME": 5}', "[" * 99999])
def test_damaged_settings_of_jittor_are_put_aside(tmp_path, monkeypatch, text):
    """Its import would fail with them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    settings = tmp_path / ".cache/jittor/config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(text)
    assert cache.cache_folder() == tmp_path / ".cache/jittor"
    assert not settings.exists()
    assert settings.with_suffix(".damaged").read_text() == text


def nobody(*args):
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_folder(tmp_path, monkeypatch):
    """As in a container with any user id: neither HOME nor an entry in passwd."""
    monkeypatch.setattr(cache.Path, "home", nobody)
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    with pytest.raises(SetupError, match=r"has no home folder.*set HOME"):
        cache.cache_folder()


def test_jittor_home_serves_as_home(tmp_path):
    code = """
import os, pathlib
real_home = pathlib.Path.home

def home():
    if "HOME" not in os.environ:
        raise RuntimeError("Could not determine home directory.")
    return real_home()

pathlib.Path.home = home
del os.environ["HOME"]
from jittor_setup import cache
print(cache.cache_folder())
print(os.environ["HOME"])
"""
    done = python(code, JITTOR_HOME=str(tmp_path))
    assert done.stdout.splitlines() == [f"{tmp_path}/.cache/jittor", str(tmp_path)]


def test_an_empty_home_is_none(monkeypatch):
    """It would be the folder /."""
    monkeypatch.setenv("HOME", "")
    assert str(cache.home_folder()) not in ("", "/")


def test_a_quota_that_is_used_up(tmp_path):
    """An empty file can still be made in the folder."""
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
import jittor_setup
jittor_setup.prepare()
"""
    done = python(code, HOME=str(tmp_path), JITTOR_HOME="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: Jittor cannot write to its cache folder {tmp_path}")


class NoExec:
    f_flag = getattr(os, "ST_NOEXEC", 8)


def test_a_file_system_without_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: NoExec)
    with pytest.raises(SetupError, match=r"noexec.*set JITTOR_HOME"):
        cache.check_programs(tmp_path)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setenv("disable_lock", "")
    monkeypatch.delenv("disable_lock")
    assert not cache.allow_no_locks(tmp_path)
    assert os.environ["disable_lock"] == "1"  # for Jittor
    with cache.locked(tmp_path / "lock"):
        pass


def test_a_folder_of_another_user(tmp_path, monkeypatch):
    folder = tmp_path / "jt1/g++/py/system/cpu/key/default/jit"
    folder.mkdir(parents=True)
    cache.check_inner_folders(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)
    with pytest.raises(SetupError, match=r"default/jit in Jittor's cache cannot be written"):
        cache.check_inner_folders(tmp_path)


def test_a_lock_of_another_user(tmp_path, monkeypatch):
    """Jittor would end with an AttributeError."""
    lock = tmp_path / "key/jittor.lock"
    (tmp_path / "key/default").mkdir(parents=True)
    lock.touch()
    monkeypatch.setattr(cache, "own_folders", lambda _: [tmp_path / "key/default"])
    cache.check_inner_folders(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != lock)
    with pytest.raises(SetupError, match=r"key/jittor.lock in Jittor's cache cannot be written"):
        cache.check_inner_folders(tmp_path)


def test_a_file_of_another_user_in_an_own_folder(tmp_path, monkeypatch):
    """It is looked for when something has failed."""
    folder = tmp_path / "jt1/jit"
    folder.mkdir(parents=True)
    (folder / "own.so").touch()
    (folder / "link.so").symlink_to("own.so")
    assert cache.foreign_file(tmp_path) is None
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # now they are another user's
    assert cache.foreign_file(tmp_path) is None  # which may be written
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder / "own.so")
    line = cache.foreign_file(tmp_path)
    assert line.startswith(f"{folder}/own.so in Jittor's cache cannot be written by this user (")
    assert line.endswith(f"'sudo rm -r {tmp_path}'")


def test_a_file_that_vanishes_meanwhile_is_nobodys(tmp_path, monkeypatch):
    """Another process may end its compiling, and remove its lock, during the search."""
    (tmp_path / "op.lock").touch()
    walk = list(os.walk(tmp_path))
    (tmp_path / "op.lock").unlink()
    monkeypatch.setattr(os, "walk", lambda folder: iter(walk))
    assert cache.foreign_file(tmp_path) is None


@pytest.mark.parametrize(("limit", "code"), [(20, 2), (64, 0)])
def test_few_files(limit, code):
    text = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
import jittor_setup
jittor_setup.prepare()
"""
    done = python(text)
    assert done.returncode == code
    if code:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: a process may open only 20 files here")


def test_a_low_limit_of_files_is_raised():
    code = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
import jittor_setup
jittor_setup.allow_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 64)
"""
    assert python(code).stdout == "True\n"


def test_another_process_that_compiles_is_named(tmp_path, monkeypatch):
    """The import waits for Jittor's lock, and would not say so."""
    (tmp_path / "key/default").mkdir(parents=True)
    monkeypatch.setattr(cache, "own_folders", lambda folder: [tmp_path / "key/default"])
    assert not cache.is_busy(tmp_path)
    (tmp_path / "key/jittor.lock").touch()
    assert not cache.is_busy(tmp_path)
    monkeypatch.setattr(jittor_setup, "PATIENCE", 0.3)
    with cache.locked(tmp_path / "key/jittor.lock"):
        assert cache.is_busy(tmp_path)
        assert jittor_setup.stays_busy(tmp_path)
    assert not jittor_setup.stays_busy(tmp_path)


# ---- damaged libraries ----


def a_library():
    """A kernel of this machine's cache, or Python's own library."""
    return max(damage.libraries(cache.cache_folder()), key=os.path.getsize)


def damaged_copies(folder):
    whole = Path(a_library()).read_bytes()
    changed = bytes(255 - byte for byte in whole[:4000])
    return {
        "cut.so": whole[:3000],
        "without its end.so": whole[:-1],
        "empty.so": b"",
        "zeros.so": bytes(len(whole)),
        "other.so": changed + whole[4000:],
    }


def test_damaged_libraries_are_removed(tmp_path, monkeypatch):
    whole = Path(a_library())
    folder = tmp_path / "jit"
    folder.mkdir()
    shutil.copy(whole, folder / "whole.so")
    (folder / "source.cc").write_text("")
    for name, content in damaged_copies(folder).items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(damage, "own_folders", lambda cache: [tmp_path])
    assert damage.remove_damaged(tmp_path) == []  # another process may be writing them
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    removed = damage.remove_damaged(tmp_path)
    assert {Path(path).name for path in removed} == set(damaged_copies(folder))
    assert {path.name for path in folder.iterdir()} == {"whole.so", "source.cc"}


def test_every_library_of_this_machine_is_whole():
    found = list(damage.libraries(cache.cache_folder()))
    assert found
    assert [path for path in found if not damage.is_whole(path)] == []


# ---- requirements ----


def test_a_missing_compiler_ends_the_import_with_one_line():
    done = python("import jittor_setup; jittor_setup.prepare()", cc_path="no-such-compiler")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the C++ compiler no-such-compiler was not found")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere clang is the compiler")
def test_clang_is_refused_in_one_line():
    """Its errors in Jittor's sources would fill screens."""
    done = python("import jittor_setup; jittor_setup.prepare()", cc_path="/usr/bin/clang++-19")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: cc_path names /usr/bin/clang++-19")
    assert line.endswith("unset cc_path, or let it name a g++")


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


JITTOR = """
import os, pathlib, sys
seen = pathlib.Path(__file__).with_name("seen")
seen.write_text(seen.read_text() + "x" if seen.exists() else "x")
if len(seen.read_text()) <= {n}:
    sys.exit(0)  # as after "jit_utils updated, please rerun your command."
"""
UTILS = """
cc_type = "none"
pool_size = 0
"""
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from jittor_setup.importing import first_import
first_import()
print("trained", *sys.argv[1:])
"""


@pytest.fixture
def rebuilt(tmp_path):
    """A function that runs a script whose Jittor ends its first n imports."""

    def call(n, *command):
        (tmp_path / "jittor").mkdir()
        (tmp_path / "jittor/__init__.py").write_text(JITTOR.format(n=n))
        (tmp_path / "jittor_utils.py").write_text(UTILS)
        (tmp_path / "script.py").write_text(SCRIPT.format(root=str(ROOT)))
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    return call


AGAIN = "Jittor has rebuilt a part of itself; starting again.\n"
FAILED = "error: Jittor has rebuilt a part of itself: run the same command again\n"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.orig_argv")
@pytest.mark.parametrize("command", [["script.py"], ["-m", "script"], ["-u", "./script.py"]])
def test_a_script_starts_again_after_jittor_has_rebuilt_itself(rebuilt, command):
    """Jittor ends such an import with exit code 0, and silenced, without a word."""
    done = rebuilt(1, *command, "--text", "two words", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "trained --text two words \n", AGAIN)


def test_it_starts_again_once_only(rebuilt):
    done = rebuilt(9, "script.py")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", AGAIN + FAILED)


def test_code_without_a_script_says_that_it_has_not_run(rebuilt):
    done = rebuilt(1, "-c", SCRIPT.format(root=str(ROOT)))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", FAILED)


def test_a_failing_import_is_one_line(tmp_path):
    (tmp_path / "jittor.py").write_text("raise AttributeError('no\\nhandle')")
    (tmp_path / "jittor_utils.py").write_text(UTILS)
    code = "from jittor_setup.importing import first_import; first_import()"
    done = python(code, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Jittor cannot be imported (AttributeError: no handle)")
    done = python(code, PYTHONPATH=str(tmp_path), JITTOR_VERBOSE="1")
    assert "Traceback" in done.stderr


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
