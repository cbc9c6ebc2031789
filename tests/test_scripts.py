"""What must hold for the runs of every script: exact resuming, seeds, sampling without data, losses that go wrong."""

import importlib
import signal

import numpy as np
import pytest
from small import FLAGS, SHARED, differences, make_data, run

from common import checkpoint

TRANSLATORS = {"pix2pix", "cyclegan", "stargan"}

pytestmark = pytest.mark.parametrize("name", list(FLAGS))


@pytest.fixture
def short(name, tmp_path):
    """The flags of a run of 2 epochs of 4 steps."""
    return ["--data_dir", make_data(name, tmp_path / "data"), *SHARED, *FLAGS[name]]


def pictures(folder):
    """{name: bytes} of the pictures and tables of a run."""
    files = [f for f in folder.rglob("*") if f.suffix in (".png", ".csv") and f.name != "losses.png"]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def stop_after(monkeypatch, name, n_steps):
    """Makes the script's n-th step end with a SIGTERM to this process."""
    script, calls = importlib.import_module(name), []
    real_step = script.train_step

    def step(*args):
        calls.append(1)
        if len(calls) == n_steps:
            signal.raise_signal(signal.SIGTERM)
        return real_step(*args)

    monkeypatch.setattr(script, "train_step", step)


def test_resuming_equals_an_undisturbed_run(name, short, tmp_path):
    run(name, *short, "--out_dir", tmp_path / "whole")
    run(name, *short, "--out_dir", tmp_path / "halves", "--n_epochs", 1)
    run(name, "--resume", tmp_path / "halves", "--n_epochs", 2)
    assert differences(tmp_path / "whole", tmp_path / "halves") == []
    assert pictures(tmp_path / "whole") == pictures(tmp_path / "halves")


@pytest.mark.parametrize("n_steps", [3, 4, 5])
def test_a_stop_at_any_step_loses_nothing(name, short, tmp_path, monkeypatch, n_steps):
    run(name, *short, "--out_dir", tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        stop_after(patch, name, n_steps)
        run(name, *short, "--out_dir", tmp_path / "stopped")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert checkpoint.Reader(tmp_path / "stopped/checkpoint_last.npz").meta["step"] == n_steps
    run(name, "--resume", tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []
    assert pictures(tmp_path / "whole") == pictures(tmp_path / "stopped")


def test_the_seed_decides(name, short, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(name, *short, "--n_epochs", 1, "--out_dir", tmp_path / folder, "--seed", seed)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert (tmp_path / "a/result.png").read_bytes() != (tmp_path / "c/result.png").read_bytes()
    changed = differences(tmp_path / "a", tmp_path / "c")
    assert {key.split("/")[0] for key in changed} >= {key.split("/")[0] for key in changed if "weight" in key} != set()


def test_sampling_needs_no_training_data(name, short, tmp_path):
    if name in TRANSLATORS:
        pytest.skip("translators are given images; their own tests show it")
    data = short[1]
    run(name, *short, "--n_epochs", 1, "--out_dir", tmp_path / "run")
    before = (tmp_path / "run/checkpoint_last.npz").read_bytes()
    data.rename(tmp_path / "moved away")
    out = tmp_path / "samples"
    run(name, "--resume", tmp_path / "run", "--sample_only", "--n_samples", 7, "--out_dir", out)
    assert sorted(f.name for f in out.iterdir()) == ["result.png", "samples.npz"]
    with np.load(out / "samples.npz") as samples:
        size = int(FLAGS[name][1])
        assert samples["images"].shape == (7, size, size, 1)
        assert samples["images"].dtype == np.uint8
    assert (tmp_path / "run/checkpoint_last.npz").read_bytes() == before


def test_a_finished_run_says_so(name, short, tmp_path, capsys):
    run(name, *short, "--n_epochs", 1, "--out_dir", tmp_path / "out")
    capsys.readouterr()
    run(name, "--resume", tmp_path / "out")
    assert "trained for 1 epochs already" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run(name, short, tmp_path, fails):
    run(name, *short, "--n_epochs", 1, "--out_dir", tmp_path / "out")
    good = (tmp_path / "out/checkpoint_last.npz").read_bytes()
    main = importlib.import_module(name).main
    code, line = fails(main, ["--resume", tmp_path / "out", "--lr", 1e30, "--n_epochs", 9])
    assert code == 3
    assert " at step " in line
    assert (tmp_path / "out/checkpoint_last.npz").read_bytes() == good
