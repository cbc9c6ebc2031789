"""tools/runs.py: a checkpoint names its script, and may come from a stranger."""

from common import checkpoint
from common.errors import UserError

import json

import numpy as np
import pytest
from untrained import write_untrained_run

from tools.runs import open_run


@pytest.fixture
def folder(tmp_path):
    return write_untrained_run("pix2pix", tmp_path / "run", "--width", "4", "--img_size", "32")


def test_the_script_and_the_arguments_are_those_of_the_run(folder, tmp_path):
    script, args, reader = open_run(folder, "pix2pix", ["--out_dir", str(tmp_path / "out")])
    assert script.__name__ == "pix2pix"
    assert args.width == 4
    assert args.out_dir == str(tmp_path / "out")
    assert reader.path == folder / checkpoint.FILE_NAME


def test_the_run_of_another_script_is_refused(folder):
    with pytest.raises(UserError, match=r"was written by pix2pix\.py, not by dcgan\.py"):
        open_run(folder, "dcgan")


@pytest.mark.parametrize("name", ["gan_of_tomorrow", "os", "../dcgan", "tests.conftest", ""])
def test_no_other_module_is_imported(folder, name):
    """A checkpoint that names anything but a script of this folder."""
    path = folder / checkpoint.FILE_NAME
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].tobytes())
    meta["script"] = name
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"which is not in|is not a checkpoint of these scripts"):
        open_run(folder)
