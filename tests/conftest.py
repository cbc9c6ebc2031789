"""Fixtures of all tests: IDX files, exit codes with their messages, small runs."""

import functools
import gzip
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import common  # noqa: F401  # prepares Jittor before any test imports it

import jittor as jt

from jittor_setup import compile_in_parallel, compiler

if "PYTEST_XDIST_WORKER" in os.environ:
    compiler.compile_without_lock()

# Temporary folders in memory, if there is room: a disk takes up to a minute to write,
# flush and remove 10,000 small files.
MEMORY = Path("/dev/shm")
is_writable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
if is_writable and shutil.disk_usage(MEMORY).free >= 2 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# The longest files, which start first, so that no worker is left with one at the end.
# Files that compile the same kernels are apart: those of the processes are those of the
# small runs.
FIRST_FILES = (
    "test_processes",
    "test_text2img",
    "test_began",
    "test_dcgan",
    "test_texts",
    "test_infogan",
    "test_spade",
    "test_runs",
    "test_contract",
)


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem
        return FIRST_FILES.index(name) if name in FIRST_FILES else len(FIRST_FILES)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def several_kernels_at_once():
    """What a test computes first is compiled on all cores, as in a run's first step."""
    compile_in_parallel(True)
    yield
    compile_in_parallel(False)


@pytest.fixture(autouse=True)
def seeded():
    """Jittor's generator starts each test in the same state."""
    jt.set_global_seed(987654321)


def idx_bytes(array):
    """A uint8 array as an IDX file: 0, 0, type 8, dimensions, sizes, pixels."""
    header = bytes([0, 0, 8, array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.tobytes()


def write_idx_folder(folder, images, labels, split="train", gz=True):
    """Writes images (N, H, W) and labels (N,), uint8, as IDX files."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, dims, array in (("images", 3, images), ("labels", 1, labels)):
        data = idx_bytes(array)
        name = f"{split}-{kind}-idx{dims}-ubyte"
        if gz:
            data = gzip.compress(data)
            name += ".gz"
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def idx_folder(tmp_path):
    """A folder with 40 random 28x28 images, labelled 0 to 9 in turn."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    return write_idx_folder(tmp_path / "digits", images, labels)


@pytest.fixture
def fails(capsys):
    """Calls a script's main; returns its exit code and its one line of error."""

    def call(main, argv):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in argv])
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1, lines
        return stopped.value.code, lines[0]

    return call


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """A function of a script's name that returns its `registry.Tiny`."""
    from registry import Tiny  # it imports this file

    return functools.cache(lambda name: Tiny(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def tiny(tiny_runs, name):
    """The small runs of the script that a test is parametrized with."""
    return tiny_runs(name)
