"""index.html: a run's pictures, curves and settings on one page that opens from the disk, without a server."""

from common.checkpoint import write_atomically

import csv
import html
import json
import time
from pathlib import Path

TEMPLATE = Path(__file__).with_name("page.html")
N_POINTS = 600  # of a curve: more than a screen shows


def write_page(folder, rows, n_steps, seconds, running):
    """Writes `folder`/index.html, which shows what is in the folder: config.json, samples/, *.csv, result.png.

    Args:
        rows: those of losses.csv, {"step", "epoch", loss: value}.
        n_steps: steps of the whole run.
        seconds: how long this process has trained.
        running: whether more will come; the page then loads itself anew from time to time.
    """
    config = read_config(folder / "config.json")
    facts = {
        "title": f"{config.pop('script', 'a run')}: {folder.resolve().name}",
        "config": {**config.pop("args", {}), **config.pop("versions", {}), **config},
        "losses": curves(rows, "step"),
        "validation": curves(read_table(folder / "validation.csv"), "epoch"),
        "samples": sorted(path.name for path in folder.glob("samples/step_*.png")),
        "result": (folder / "result.png").is_file() and not running,
        "step": int(rows[-1]["step"]) if rows else 0,
        "n_steps": n_steps,
        "seconds": round(seconds),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "running": running,
    }
    # In a <script>, "</" would end it.
    data = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")
    text = (
        TEMPLATE.read_text(encoding="utf-8")
        .replace("TITLE", html.escape(facts["title"]), 1)
        .replace("FACTS", data, 1)
    )
    write_atomically(
        folder / "index.html", lambda file: file.write(text.encode("utf-8", "replace"))
    )


def curves(rows, axis):
    """{"x": numbers of `axis`, "y": {name: values or None}} of table rows, thinned to some N_POINTS, with the last."""
    thinned = rows[:: -(-len(rows) // N_POINTS) or 1]
    if rows and thinned[-1] is not rows[-1]:
        thinned = [*thinned, rows[-1]]
    names = dict.fromkeys(name for row in thinned for name in row if name not in ("step", "epoch"))
    values = {
        name: [float(row[name]) if row.get(name) not in (None, "") else None for row in thinned]
        for name in names
    }
    return {"x": [int(row[axis]) for row in thinned], "y": values}


def read_config(path):
    """config.json as a dict; an empty one where somebody has removed or changed it during the run."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def read_table(path):
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
