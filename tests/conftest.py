"""Fixtures of all tests: IDX bytes, a script's exit code with its message, and its tiny runs."""

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

from jittor_setup import compile_in_parallel, compiler

if "PYTEST_XDIST_WORKER" in os.environ:
    compiler.compile_without_lock()

IN_MEMORY = Path(
    "/dev/shm"
)  # writing, flushing and removing 10,000 small files costs a disk up to a minute
if (
    IN_MEMORY.is_dir()
    and os.access(IN_MEMORY, os.W_OK)
    and shutil.disk_usage(IN_MEMORY).free >= 2 * 2**30
):
    os.environ.setdefault(
        "PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY)
    )  # where pytest makes its temporary folders


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left with one at the end, but not two that compile the same.

    The processes' kernels are those of the scripts' tiny runs, which the files in the middle of this order repeat.
    """
    order = [
        "test_processes",
        "test_text2img",
        "test_began",
        "test_dcgan",
        "test_judge_codes",
        "test_infogan",
    ]
    order += ["test_spade", "test_scripts", "test_contract"]
    items.sort(
        key=lambda item: order.index(item.path.stem) if item.path.stem in order else len(order)
    )


@pytest.fixture(autouse=True)
def several_kernels_at_once():
    """What a test computes first is compiled on all cores, as in a run's first step."""
    compile_in_parallel(True)
    yield
    compile_in_parallel(False)


def idx_bytes(array):
    """An IDX file of a uint8 array, by the format's definition: 0, 0, type 8, dimensions, sizes, pixels."""
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_idx_folder(folder, images, labels, split="train", gz=True):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, dims, array in (("images", 3, images), ("labels", 1, labels)):
        data = idx_bytes(array)
        name = f"{split}-{kind}-idx{dims}-ubyte" + (".gz" if gz else "")
        (folder / name).write_bytes(gzip.compress(data) if gz else data)
    return folder


@pytest.fixture
def idx_folder(tmp_path):
    """A folder with 40 random 28x28 images, labelled 0 to 9 in turn."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(40, 28, 28), dtype=np.uint8)
    return write_idx_folder(tmp_path / "digits", images, np.arange(40, dtype=np.uint8) % 10)


@pytest.fixture
def fails(capsys):
    """Calls a script's main and gives its exit code and the one line that it printed on standard error."""

    def call(main, argv):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in argv])
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1, lines
        return stopped.value.code, lines[0]

    return call


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """A function of a script's name that gives its `registry.Tiny`, the same one to all tests."""
    from registry import Tiny  # it imports this file

    return functools.cache(lambda name: Tiny(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def tiny(tiny_runs, name):
    """The runs of the script for which a test is parametrized."""
    return tiny_runs(name)
