"""losses.csv and losses.png: columns as they appear, rows that are done again, the table of validation."""

from common import Parser, UserError
from common.log import Log, prepare_folder, smooth, write_validation

import csv
import json

import numpy as np
import pytest
from PIL import Image


def lines(folder):
    return (folder / "losses.csv").read_text().split()


def test_a_line_for_each_reading(tmp_path, capsys):
    log = Log(tmp_path, step=0, n_epochs=2, steps_per_epoch=4)
    log.add(2, 1, {"loss_D": 0.5, "loss_G": 1.25})
    log.add(6, 2, {"loss_D": 0.25, "loss_G": 2.0})
    assert lines(tmp_path) == ["step,epoch,loss_D,loss_G", "2,1,0.5,1.25", "6,2,0.25,2.0"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("epoch 1/2  step 2/8  loss_D 0.5  loss_G 1.25  ")
    assert shown[1].startswith("epoch 2/2  step 6/8  loss_D 0.25  loss_G 2  ")


def test_a_loss_gets_its_column_when_it_first_appears(tmp_path):
    log = Log(tmp_path, 0, 1, 4)
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


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_log_is_the_undisturbed_one(tmp_path, stop):
    """Byte by byte, also where a row lies beyond the last checkpoint and where a column came late."""
    rows = [
        {"loss_D": 0.1},
        {"loss_D": 1 / 3, "loss_G": 2.5},
        {"loss_D": 1e-9, "loss_G": 2.5},
        {"loss_D": 4, "x": 1},
    ]
    for name, parts in (
        ("whole", [range(1, 5)]),
        ("parts", [range(1, stop + 2), range(stop + 1, 5)]),
    ):
        (tmp_path / name).mkdir()
        for steps in parts:
            log = Log(tmp_path / name, steps[0] - 1, 1, 4)
            for step in steps:
                log.add(step, 1, rows[step - 1])
            log.close()
    whole, resumed = ((tmp_path / name / "losses.csv").read_bytes() for name in ("whole", "parts"))
    assert whole == resumed
    assert whole.decode().splitlines()[0] == "step,epoch,loss_D,loss_G,x"


def test_a_new_run_begins_a_new_log(tmp_path):
    Log(tmp_path, 0, 1, 4).add(1, 1, {"loss": 1.0})
    Log(tmp_path, 0, 1, 4)
    assert (tmp_path / "losses.csv").read_text() == ""


def test_nothing_is_drawn_of_one_row_or_too_soon(tmp_path):
    log = Log(tmp_path, 0, 1, 4)
    log.add(1, 1, {"loss": 1.0})
    log.plot()
    assert not (tmp_path / "losses.png").exists()
    log.add(2, 1, {"loss": 1.0})
    log.plot()
    (tmp_path / "losses.png").unlink()
    log.plot(pause=1000)
    assert not (tmp_path / "losses.png").exists()
    log.plot()
    assert (tmp_path / "losses.png").exists()


def test_smooth_is_an_exponential_average():
    assert np.allclose(smooth([1, 2, 0], decay=0.5), [1, 1.5, 0.75])


def test_smooth_begins_where_a_late_loss_begins():
    got = smooth([float("nan"), 2, 0], decay=0.5)
    assert np.isnan(got[0])
    assert np.allclose(got[1:], [2, 1])


def test_the_validation_table_drops_rows_that_are_done_again(tmp_path, capsys):
    table = tmp_path / "validation.csv"
    for epoch in (1, 2, 3):
        write_validation(table, epoch, {"L1": epoch / 4, "L2": 0.0})
    write_validation(table, 2, {"L1": 9.0, "L2": 1.0})
    with open(table) as file:
        assert [*csv.reader(file)] == [
            ["epoch", "L1", "L2"],
            ["1", "0.25", "0.0"],
            ["2", "9.0", "1.0"],
        ]
    assert capsys.readouterr().out.splitlines()[-1] == "epoch 2: L1 9.0000  L2 1.0000"


def arguments(folder, *flags):
    parser = Parser("x", "Doc.", {}, architecture=())
    return parser.parse(["--out_dir", str(folder), *flags])


def test_config_says_what_runs(tmp_path):
    args = arguments(tmp_path / "new" / "out", "--seed", "3")
    prepare_folder(args)
    (file,) = (tmp_path / "new" / "out").iterdir()
    config = json.loads(file.read_text())
    assert (file.name, config["script"], config["device"], config["processes"]) == (
        "config.json",
        "x",
        "cpu",
        1,
    )
    assert config["args"] == args.stored
    assert config["args"]["seed"] == 3
    assert config["versions"]["numpy"] == np.__version__


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        prepare_folder(arguments(tmp_path / "file" / "out"))
