"""index.html: what it holds, how long its curves are, and what a browser makes of it."""

from common.log import Log, write_validation
from common.page import N_POINTS, curves, write_page

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def facts(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script id="facts" type="application/json">(.*?)</script>', text, re.DOTALL)[1]
    )


def make_run(folder, n_rows=3):
    """A folder as a run of a few steps leaves it; the name of its data tries to break out of the page."""
    config = {"script": "dcgan", "device": "cpu", "processes": 1, "versions": {"numpy": "1.26.4"}}
    config["args"] = {"lr": 0.5, "data_dir": "</script><b>\u56fe\u7247"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "samples").mkdir()
    for step in (500, 1000):
        Image.new("L", (40, 40), step // 5).save(folder / f"samples/step_{step:07d}.png")
    Image.new("L", (40, 40)).save(folder / "result.png")
    write_validation(folder / "validation.csv", 1, {"val_L1": 0.25})
    return [
        {"step": 10 * (i + 1), "epoch": 1, "loss_D": 1 / (i + 1), "loss_G": 2.0 * i}
        for i in range(n_rows)
    ]


@pytest.mark.parametrize("running", [True, False])
def test_the_page_holds_what_the_folder_holds(tmp_path, running):
    rows = make_run(tmp_path)
    write_page(tmp_path, rows, n_steps=30, seconds=61.4, running=running)
    got = facts(tmp_path)
    assert got["title"] == f"dcgan: {tmp_path.name}"
    assert got["losses"] == {
        "x": [10, 20, 30],
        "y": {"loss_D": [1.0, 0.5, 1 / 3], "loss_G": [0.0, 2.0, 4.0]},
    }
    assert got["validation"] == {"x": [1], "y": {"val_L1": [0.25]}}
    assert got["samples"] == ["step_0000500.png", "step_0001000.png"]
    assert (got["step"], got["n_steps"], got["seconds"], got["running"]) == (30, 30, 61, running)
    assert got["result"] is not running  # while a run goes on, result.png is an older run's
    assert got["config"]["data_dir"] == "</script><b>\u56fe\u7247"
    assert got["config"]["numpy"] == "1.26.4"


def test_the_page_needs_no_network(tmp_path):
    write_page(tmp_path, make_run(tmp_path), 30, 1, running=False)
    addresses = re.findall(
        r"https?://[^\"]+", (tmp_path / "index.html").read_text(encoding="utf-8")
    )
    assert all(
        address.startswith("http://www.w3.org/") for address in addresses
    )  # names of languages


def test_long_curves_are_thinned_and_keep_their_ends():
    rows = [{"step": i, "epoch": 1, "loss": float(i)} for i in range(1, 10 * N_POINTS + 2)]
    got = curves(rows, "step")
    assert N_POINTS / 2 < len(got["x"]) <= N_POINTS + 1
    assert (got["x"][0], got["x"][-1]) == (1, 10 * N_POINTS + 1)
    assert got["y"]["loss"] == got["x"]


def test_a_loss_that_not_every_row_has_is_a_gap():
    rows = [
        {"step": 1, "epoch": 1, "a": "1.5"},
        {"step": 2, "epoch": 1, "a": "", "b": 2.0},
    ]  # as read from losses.csv
    assert curves(rows, "step") == {"x": [1, 2], "y": {"a": [1.5, None], "b": [None, 2.0]}}


def test_a_log_keeps_its_page_up_to_date(tmp_path):
    log = Log(tmp_path, step=0, n_epochs=1, steps_per_epoch=4)
    log.add(1, 1, {"loss": 3.0})
    assert (facts(tmp_path)["step"], facts(tmp_path)["running"]) == (1, True)
    log.add(2, 1, {"loss": 2.0})
    assert facts(tmp_path)["step"] == 1  # written a moment ago
    log.close()
    assert (facts(tmp_path)["step"], facts(tmp_path)["running"]) == (2, False)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (Debian: chromium)")
def test_a_browser_shows_pictures_curves_and_settings(tmp_path):
    write_page(tmp_path, make_run(tmp_path, n_rows=30), n_steps=300, seconds=3700, running=False)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path}/chromium",
    ]
    page = (tmp_path / "index.html").as_uri()
    dom = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120
    ).stdout
    assert f'<h1 id="title">dcgan: {tmp_path.name}</h1>' in dom
    assert "finished \u00b7 step 300 of 300 \u00b7 1 h 1 min" in dom
    assert dom.count("<svg") == 3  # two losses, one validation
    assert 'src="samples/step_0001000.png"' in dom
    assert 'src="result.png?' in dom
    assert "&lt;/script&gt;&lt;b&gt;\u56fe\u7247" in dom
