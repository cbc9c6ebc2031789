"""index.html: what it holds, how long its curves are, and what a browser shows."""

from common import report
from common.log import Log, write_validation
from common.report import N_POINTS, curves, write_report

import json
import math
import re
import shutil
import subprocess

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BREAKS_OUT = "</script><b>\u56fe\u7247"  # a name of data that would end the page's script


def text_of(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def facts(folder):
    pattern = r'<script id="facts" type="application/json">(.*?)</script>'
    return json.loads(re.search(pattern, text_of(folder), re.DOTALL)[1])


def make_run(folder, n_rows=3):
    """Leaves a folder as a run of a few steps does; returns the rows of its losses."""
    config = {"script": "dcgan", "device": "cpu", "processes": 1, "versions": {"numpy": "1.26.4"}}
    config["args"] = {"lr": 0.5, "data_dir": BREAKS_OUT}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "samples").mkdir()
    for step in (500, 1000):
        Image.new("L", (40, 40), step // 5).save(folder / f"samples/step_{step:07d}.png")
    Image.new("L", (40, 40)).save(folder / "result.png")
    write_validation(folder / "validation.csv", {1: {"val_L1": 0.25}})
    rows = []
    for i in range(n_rows):
        rows.append({"step": 10 * (i + 1), "epoch": 1, "loss_D": 1 / (i + 1), "loss_G": 2.0 * i})
    return rows


def shown(folder):
    """The page's document after a browser has run its code."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={folder}/chromium",
        "--dump-dom",
        (folder / "index.html").as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("running", [True, False])
def test_the_report_holds_what_the_folder_holds(tmp_path, running):
    rows = make_run(tmp_path)
    write_report(tmp_path, rows, n_steps=30, seconds=61.4, running=running)
    found = facts(tmp_path)
    assert found["title"] == f"dcgan: {tmp_path.name}"
    assert found["losses"] == {
        "x": [10, 20, 30],
        "y": {"loss_D": [1.0, 0.5, 1 / 3], "loss_G": [0.0, 2.0, 4.0]},
    }
    assert found["validation"] == {"x": [1], "y": {"val_L1": [0.25]}}
    assert found["samples"] == ["step_0000500.png", "step_0001000.png"]
    assert (found["step"], found["n_steps"], found["seconds"]) == (30, 30, 61)
    assert found["running"] is running
    assert found["result"] is not running  # during a run, result.png is an older run's
    assert found["config"]["data_dir"] == BREAKS_OUT
    assert found["config"]["numpy"] == "1.26.4"


def test_the_report_needs_no_network(tmp_path):
    write_report(tmp_path, make_run(tmp_path), 30, 1, running=False)
    addresses = re.findall(r"https?://[^\"]+", text_of(tmp_path))
    # The names of SVG and HTML, which a browser does not fetch.
    assert all(address.startswith("http://www.w3.org/") for address in addresses)


@pytest.mark.parametrize("content", ["", "[1]", "{", "null"])
def test_a_config_that_was_edited_leaves_the_settings_empty(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    write_report(tmp_path, [], 30, 1, running=True)
    assert facts(tmp_path)["config"] == {}
    assert facts(tmp_path)["title"] == f"a run: {tmp_path.name}"


def test_long_curves_are_thinned_and_keep_their_ends():
    rows = [{"step": i, "epoch": 1, "loss": float(i)} for i in range(1, 10 * N_POINTS + 2)]
    found = curves(rows, "step")
    assert N_POINTS / 2 < len(found["x"]) <= N_POINTS + 1
    assert (found["x"][0], found["x"][-1]) == (1, 10 * N_POINTS + 1)
    assert found["y"]["loss"] == found["x"]


def test_a_loss_that_not_every_row_has_is_a_gap():
    rows = [
        {"step": 1, "epoch": 1, "a": "1.5"},
        {"step": 2, "epoch": 1, "a": "", "b": 2.0},  # as read from losses.csv
    ]
    assert curves(rows, "step") == {"x": [1, 2], "y": {"a": [1.5, None], "b": [None, 2.0]}}


def test_a_log_keeps_its_report_up_to_date(tmp_path):
    log = Log(tmp_path, step=0)
    log.set_length(n_steps=4, n_epochs=1)
    log.add(1, 1, {"loss": 3.0})
    assert (facts(tmp_path)["step"], facts(tmp_path)["running"]) == (1, True)
    log.add(2, 1, {"loss": 2.0})
    assert facts(tmp_path)["step"] == 1  # it was written a moment ago
    log.close()
    assert (facts(tmp_path)["step"], facts(tmp_path)["running"]) == (2, False)
    assert facts(tmp_path)["n_steps"] == 4


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (Debian: chromium)")
def test_a_browser_shows_pictures_curves_and_settings(tmp_path):
    rows = make_run(tmp_path, n_rows=30)
    write_report(tmp_path, rows, n_steps=300, seconds=3700, running=False)
    dom = shown(tmp_path)
    assert f'<h1 id="title">dcgan: {tmp_path.name}</h1>' in dom
    assert "finished \u00b7 step 300 of 300 \u00b7 1 h 1 min" in dom
    assert dom.count("<svg") == 3  # two losses, one validation
    assert 'src="samples/step_0001000.png"' in dom
    assert 'src="result.png?' in dom
    assert "&lt;/script&gt;&lt;b&gt;\u56fe\u7247" in dom


# ---- names and tables that somebody has made or edited ----


@pytest.mark.parametrize("name", ["FACTS", "TITLE", "TITLE FACTS TITLE", "a</script>"])
def test_a_folder_called_as_a_word_of_the_page(tmp_path, name):
    folder = tmp_path.joinpath(*name.split("/"))
    folder.mkdir(parents=True)
    write_report(folder, make_run(folder), n_steps=30, seconds=1, running=False)
    assert facts(folder)["title"] == f"dcgan: {folder.name}"
    assert facts(folder)["losses"]["x"] == [10, 20, 30]
    title = re.search("<title>(.*?)</title>", text_of(folder))[1]
    assert title == "dcgan: " + folder.name.replace("<", "&lt;").replace(">", "&gt;")


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")],
)
def test_values_that_json_lacks(tmp_path, value, text):
    """A browser would show an empty page."""
    rows = make_run(tmp_path)
    rows[1]["loss_D"] = value
    config = json.loads((tmp_path / "config.json").read_text())
    config["args"].update(lr=value, betas=[0.5, value])
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "validation.csv").write_text(f"epoch,val_L1\n1,{value}\n2,0.5\n")
    write_report(tmp_path, rows, 30, 1, running=False)
    pattern = r'type="application/json">(.*?)</script>'
    found = json.loads(
        re.search(pattern, text_of(tmp_path), re.DOTALL)[1], parse_constant=no_constant
    )
    assert found["losses"]["y"]["loss_D"] == [1.0, None, 1 / 3]
    assert found["validation"]["y"]["val_L1"] == [None, 0.5]
    assert found["config"]["lr"] == text
    assert found["config"]["betas"] == [0.5, text]


def test_a_number_beyond_all_floats(tmp_path):
    (tmp_path / "config.json").write_text('{"args": {"lr": 1e999}}')
    write_report(tmp_path, [], 30, 1, running=False)
    assert facts(tmp_path)["config"]["lr"] == "1e999"


@pytest.mark.parametrize("number", ["\u0661", "1" * 30, "x", ""])
def test_pictures_that_no_run_has_written(tmp_path, number):
    """The page shows the step as a number."""
    make_run(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / f"samples/step_{number}.png")
    write_report(tmp_path, [], 30, 1, running=False)
    assert facts(tmp_path)["samples"] == ["step_0000500.png", "step_0001000.png"]


@pytest.mark.parametrize(("name", "most"), [("config.json", "CONFIG"), ("validation.csv", "TABLE")])
def test_files_beyond_all_sizes_count_as_absent(tmp_path, monkeypatch, name, most):
    make_run(tmp_path)
    monkeypatch.setattr(report, f"LARGEST_{most}", (tmp_path / name).stat().st_size - 1)
    write_report(tmp_path, [], 30, 1, running=False)
    key = "config" if name == "config.json" else "validation"
    assert facts(tmp_path)[key] in ({}, {"x": [], "y": {}})


@pytest.mark.parametrize("content", ['{"args": 3}', '{"versions": "x"}', "[" * 99999, "\\xff"])
def test_a_config_that_is_none_is_a_warning(tmp_path, capsys, content):
    (tmp_path / "config.json").write_text(content)
    for _ in range(2):
        write_report(tmp_path, [], 30, 1, running=True)
    assert facts(tmp_path)["config"] == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: {tmp_path}/config.json is not what a run writes, and is not shown"


EDITED = {
    "two rows in one line": b"step,epoch,loss\n1,1,0.5\n2,1,0.253,1,0.5\n4,1,0.5\n",
    "a word": b"step,epoch,loss\n1,1,low\n2,1,0.5\n",
    "no UTF-8": b"step,epoch,loss\n1,1,\xff\n2,1,0.5\n",
    "semicolons": b"step;epoch;loss\n1;1;0.5\n2;1;0.5\n",
    "an error of a spreadsheet": b"step,epoch,loss\n1,1,#DIV/0!\n2,1,0.5\n",
    "a decimal comma": b'step,epoch,loss\n1,1,"0,5"\n2,1,"0,5"\n',
    "no steps": b"epoch,loss\n1,0.5\n2,0.5\n",
    "steps that are no numbers": b"step,epoch,loss\n1.0,1,0.5\n2.0,1,0.5\n",
    "a formula as a name": b"step,epoch,$x$\n1,1,0.5\n2,1,0.5\n",
    "a column twice": b"step,epoch,loss,loss\n1,1,0.5,1\n2,1,0.5,1\n",
    "thousands of columns": ",".join(["step,epoch", *(f"loss_{i}" for i in range(5000))]).encode()
    + b"\n"
    + b"1,1"
    + b",0.5" * 5000
    + b"\n2,1"
    + b",0.5" * 5000
    + b"\n",
    "a long field": b"step,epoch,loss\n1,1," + b"x" * 200_000 + b"\n2,1,0.5\n",
}


@pytest.mark.parametrize("how", EDITED)
def test_an_edited_table_counts_as_absent_and_is_kept(tmp_path, capsys, how):
    (tmp_path / "losses.csv").write_bytes(EDITED[how])
    log = Log(tmp_path, step=2)
    log.add(3, 1, {"loss": 0.25})
    log.plot()
    log.close()
    assert (tmp_path / "losses.csv").read_text().split() == ["step,epoch,loss", "3,1,0.25"]
    assert (tmp_path / "losses.csv.old").read_bytes() == EDITED[how]
    path = tmp_path / "losses.csv"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path} is not what a run writes, and counts as absent",
        f"warning: what {path} held is kept as {path}.old",
    ]


def test_what_was_kept_is_not_replaced(tmp_path):
    for text in ("step;epoch\n1;1\n2;1\n", "step|epoch\n1|1\n2|1\n"):
        (tmp_path / "losses.csv").write_text(text)
        Log(tmp_path, step=2)
    assert (tmp_path / "losses.csv.old").read_text() == "step;epoch\n1;1\n2;1\n"
    assert (tmp_path / "losses.csv.old2").read_text() == "step|epoch\n1|1\n2|1\n"


@pytest.mark.parametrize("end", [b"2,1", b"2,1,", b"2,1,0.2,", b"\0\0\0", b"2,1,0.\0\0", b"x"])
def test_a_table_that_was_cut_loses_its_last_row(tmp_path, capsys, end):
    (tmp_path / "losses.csv").write_bytes(b"step,epoch,loss\n1,1,0.5\n" + end)
    log = Log(tmp_path, step=1)
    assert log.rows == [{"step": "1", "epoch": "1", "loss": "0.5"}]
    assert capsys.readouterr().err == ""


def test_an_edited_validation_table_is_kept(tmp_path, capsys):
    path = tmp_path / "validation.csv"
    path.write_text("1;2\n#DIV/0!\n")
    write_report(tmp_path, [], 30, 1, running=True)
    assert facts(tmp_path)["validation"] == {"x": [], "y": {}}
    write_validation(path, {2: {"L1": 0.5}})
    assert path.read_text().split() == ["epoch,L1", "2,0.5"]
    assert (tmp_path / "validation.csv.old").read_text() == "1;2\n#DIV/0!\n"


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (Debian: chromium)")
@pytest.mark.parametrize(("age", "state"), [(0, "running"), (3600, "no longer running")])
def test_a_killed_run_is_not_shown_as_running(tmp_path, age, state):
    """It cannot say so; a living run writes the page every minute."""
    write_report(tmp_path, make_run(tmp_path), n_steps=300, seconds=1, running=True)
    text = text_of(tmp_path)
    written = facts(tmp_path)["written_at"]
    (tmp_path / "index.html").write_text(text.replace(str(written), str(written - age)))
    assert f"{state} \u00b7 step 30 of 300" in shown(tmp_path)


def test_how_long_a_run_may_be_silent_depends_on_its_steps(tmp_path):
    log = Log(tmp_path, step=0)
    log.set_length(n_steps=4, n_epochs=1)
    log.ticked -= 1000  # a step of 1,000 seconds
    log.tick()
    log.add(1, 1, {"loss": 3.0})
    assert 4180 <= facts(tmp_path)["patience"] <= 4190


def test_a_living_run_writes_the_page_every_minute(tmp_path, monkeypatch):
    log = Log(tmp_path, step=0)
    log.set_length(n_steps=4, n_epochs=1)
    log.tick()
    assert not (tmp_path / "index.html").exists()  # there is nothing to show
    log.add(1, 1, {"loss": 3.0})
    first = facts(tmp_path)["written_at"]
    log.tick()
    assert facts(tmp_path)["written_at"] == first
    log.shown -= 61
    log.tick()
    assert facts(tmp_path)["written_at"] > first
