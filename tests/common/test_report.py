"""index.html: what it holds, how long its curves are, and what a browser shows."""

from common.log import Log, write_validation
from common.report import N_POINTS, curves, write_report

import json
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
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path}/chromium",
        "--dump-dom",
        (tmp_path / "index.html").as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert f'<h1 id="title">dcgan: {tmp_path.name}</h1>' in dom
    assert "finished \u00b7 step 300 of 300 \u00b7 1 h 1 min" in dom
    assert dom.count("<svg") == 3  # two losses, one validation
    assert 'src="samples/step_0001000.png"' in dom
    assert 'src="result.png?' in dom
    assert "&lt;/script&gt;&lt;b&gt;\u56fe\u7247" in dom
