"""losses.csv, losses.png, validation.csv and config.json."""

from common import UserError
from common.cli import stored
from common.log import Log, prepare_folder, smooth, write_validation

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_run import arguments


def lines(folder):
    return (folder / "losses.csv").read_text().split()


# ---- losses.csv ----


def test_a_line_for_each_reading(tmp_path, capsys):
    log = Log(tmp_path, step=0)
    log.set_length(n_steps=8, n_epochs=2)
    log.add(2, 1, {"loss_D": 0.5, "loss_G": 1.25})
    log.add(6, 2, {"loss_D": 0.25, "loss_G": 2.0})
    assert lines(tmp_path) == ["step,epoch,loss_D,loss_G", "2,1,0.5,1.25", "6,2,0.25,2.0"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("epoch 1/2  step 2/8  loss_D 0.5  loss_G 1.25  ")
    assert shown[1].startswith("epoch 2/2  step 6/8  loss_D 0.25  loss_G 2  ")


def test_a_run_in_images_has_no_last_epoch(tmp_path, capsys):
    log = Log(tmp_path, step=0)
    log.set_length(n_steps=8, n_epochs=None)
    log.add(2, 1, {"loss": 0.5})
    assert capsys.readouterr().out.startswith("epoch 1  step 2/8  loss 0.5  ")


def test_a_loss_gets_its_column_when_it_first_appears(tmp_path):
    log = Log(tmp_path, step=0)
    log.add(1, 1, {"loss_D": 0.5})
    assert lines(tmp_path) == ["step,epoch,loss_D", "1,1,0.5"]
    log.add(2, 1, {"loss_D": 0.25, "loss_G": 3.0})
    log.add(3, 1, {"loss_D": 0.125, "loss_G": 4.0})
    assert lines(tmp_path) == [
        "step,epoch,loss_D,loss_G",
        "1,1,0.5,",
        "2,1,0.25,3.0",
        "3,1,0.125,4.0",
    ]
    log.plot()
    assert Image.open(tmp_path / "losses.png").size == (800, 400)


LOSSES = [
    {"loss_D": 0.1},
    {"loss_D": 1 / 3, "loss_G": 2.5},
    {"loss_D": 1e-9, "loss_G": 2.5},
    {"loss_D": 4, "x": 1},
]


def write_steps(folder, *parts):
    """One log for each range of steps, as of a run and its resumed parts."""
    folder.mkdir()
    for steps in parts:
        log = Log(folder, steps[0] - 1)
        for step in steps:
            log.add(step, 1, LOSSES[step - 1])
        log.close()
    return (folder / "losses.csv").read_bytes()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_log_is_the_undisturbed_one(tmp_path, stop):
    """Each part has one line beyond the last checkpoint; a column may come late."""
    whole = write_steps(tmp_path / "whole", range(1, 5))
    resumed = write_steps(tmp_path / "parts", range(1, stop + 2), range(stop + 1, 5))
    assert whole == resumed
    assert whole.decode().splitlines()[0] == "step,epoch,loss_D,loss_G,x"


def test_a_damaged_line_does_not_stop_a_resumed_run(tmp_path):
    """A kill may cut the last line."""
    (tmp_path / "losses.csv").write_text("step,epoch,loss\n1,1,0.5\n2,1,0.25\nx")
    Log(tmp_path, step=2).add(3, 1, {"loss": 0.125})
    assert lines(tmp_path) == ["step,epoch,loss", "1,1,0.5", "2,1,0.25", "3,1,0.125"]


def test_a_new_run_starts_a_new_log(tmp_path):
    Log(tmp_path, step=0).add(1, 1, {"loss": 1.0})
    Log(tmp_path, step=0)
    assert (tmp_path / "losses.csv").read_text() == ""


# ---- losses.png ----


def test_curves_are_drawn_from_two_lines_on_and_not_too_often(tmp_path):
    picture = tmp_path / "losses.png"
    log = Log(tmp_path, step=0)
    log.add(1, 1, {"loss": 1.0})
    log.plot()
    assert not picture.exists()
    log.add(2, 1, {"loss": 1.0})
    log.plot()
    picture.unlink()
    log.plot(pause=1000)
    assert not picture.exists()
    log.plot()
    assert picture.exists()


def test_smooth_is_an_exponential_average():
    assert np.allclose(smooth([1, 2, 0], decay=0.5), [1, 1.5, 0.75])


def test_smooth_starts_where_a_late_loss_starts():
    found = smooth([float("nan"), 2, 0], decay=0.5)
    assert np.isnan(found[0])
    assert np.allclose(found[1:], [2, 1])


# ---- validation.csv ----


def test_the_validation_table_drops_epochs_that_are_done_again(tmp_path):
    table = tmp_path / "validation.csv"
    write_validation(table, {epoch: {"L1": epoch / 4, "L2": 0.0} for epoch in (1, 2, 3)})
    write_validation(table, {2: {"L1": 9.0, "L2": 1.0}})
    with open(table) as file:
        rows = list(csv.reader(file))
    assert rows == [["epoch", "L1", "L2"], ["1", "0.25", "0.0"], ["2", "9.0", "1.0"]]


# ---- config.json ----


def test_the_config_says_what_runs(tmp_path):
    args = arguments(tmp_path / "new" / "out", "--seed", 3)
    prepare_folder(args)
    (file,) = (tmp_path / "new" / "out").iterdir()
    config = json.loads(file.read_text())
    assert file.name == "config.json"
    assert (config["script"], config["device"], config["processes"]) == ("x", "cpu", 1)
    assert config["args"] == stored(args)
    assert config["args"]["seed"] == 3
    assert config["versions"]["numpy"] == np.__version__


def test_drawing_samples_leaves_the_config_alone(tmp_path):
    args = arguments(tmp_path)
    args.sample_only = True
    prepare_folder(args)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        prepare_folder(arguments(tmp_path / "file" / "out"))
