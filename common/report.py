"""index.html: a run's pictures, curves and settings on one page, without a server."""

from common.checkpoint import write_atomically

import csv
import html
import json
import time
from pathlib import Path

TEMPLATE = Path(__file__).with_name("report.html")
N_POINTS = 600  # of a curve: more than a screen shows


def write_report(folder, rows, n_steps, seconds, running):
    """Writes index.html, which shows what is in the folder of a run.

    That is config.json, samples/, losses.csv, validation.csv and result.png.

    Args:
        rows: those of losses.csv, {"step", "epoch", loss: value}.
        n_steps: steps of the whole run.
        seconds: how long this process has trained.
        running: whether the training continues; the page then reloads itself.
    """
    config = read_config(folder / "config.json")
    script = config.pop("script", "a run")
    settings = {**config.pop("args", {}), **config.pop("versions", {}), **config}
    facts = {
        "title": f"{script}: {folder.resolve().name}",
        "config": settings,
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
    # Within a <script>, "</" would end it.
    data = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("TITLE", html.escape(facts["title"]), 1)
    text = text.replace("FACTS", data, 1)
    content = text.encode("utf-8", "replace")
    write_atomically(folder / "index.html", lambda file: file.write(content))


def curves(rows, axis):
    """{"x": values of `axis`, "y": {name: values or None}} of a table's rows.

    The rows are thinned to about N_POINTS; the last one stays.
    """
    step = max(-(-len(rows) // N_POINTS), 1)
    thinned = rows[::step]
    if rows and thinned[-1] is not rows[-1]:
        thinned = [*thinned, rows[-1]]

    names = {}  # as an ordered set
    for row in thinned:
        names.update(dict.fromkeys(row))
    values = {}
    for name in names:
        if name not in ("step", "epoch"):
            values[name] = [as_number(row.get(name)) for row in thinned]
    return {"x": [int(row[axis]) for row in thinned], "y": values}


def as_number(cell):
    """A table's cell as a float; None if it is empty."""
    return None if cell in (None, "") else float(cell)


def read_config(path):
    """config.json as a dict; an empty one if it was removed or edited meanwhile."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def read_table(path):
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
