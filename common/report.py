"""index.html: a run's pictures, curves and settings on one page, without a server."""

from common.checkpoint import MOST_LOSSES, is_file, is_plain_name, write_atomically
from common.errors import warn_once

import csv
import html
import io
import json
import math
import time
from pathlib import Path

# Read at once: a checkout that changes or goes meanwhile must not end a training.
TEMPLATE = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
N_POINTS = 600  # of a curve: more than a screen shows
MOST_COLUMNS = MOST_LOSSES + 2  # of a table; losses.png draws a line for each
LARGEST_CONFIG = 1 << 20  # bytes of config.json; a run writes a few thousand
LARGEST_TABLE = 1 << 30  # bytes of losses.csv; ten million steps with a line each


def write_report(folder, rows, n_steps, seconds, running, patience=600):
    """Writes index.html, which shows what is in the folder of a run.

    That is config.json, samples/, losses.csv, validation.csv and result.png.

    Args:
        rows: those of losses.csv, {"step", "epoch", loss: value}.
        n_steps: steps of the whole run.
        seconds: how long this process has trained.
        running: whether the training continues; the page then reloads itself.
        patience: seconds after which a running training has written the page again. If
            it has not, it was killed, which it could not write.
    """
    config = read_config(folder / "config.json")
    script = config.pop("script", "a run")
    settings = {**config.pop("args", {}), **config.pop("versions", {}), **config}
    samples = sorted(path.name for path in folder.glob("samples/step_*.png"))
    facts = {
        "title": f"{script}: {folder.resolve().name}",
        "config": settings,
        "losses": curves(rows, "step"),
        "validation": curves(read_table(folder / "validation.csv", "epoch"), "epoch"),
        "samples": [name for name in samples if is_count(name[len("step_") : -len(".png")])],
        "result": is_file(folder / "result.png") and not running,
        "step": int(rows[-1]["step"]) if rows else 0,
        "n_steps": n_steps,
        "seconds": round(seconds),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "written_at": time.time(),
        "running": running,
        "patience": patience,
    }
    # Within a <script>, "</" would end it.
    data = json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    # Split at both places first: a name may contain the words themselves.
    before_title, rest = TEMPLATE.split("TITLE", 1)
    before_facts, end = rest.split("FACTS", 1)
    text = before_title + html.escape(facts["title"]) + before_facts + data + end
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
    """A table's cell as a float; None if it is empty, NaN or infinite."""
    value = math.nan if cell in (None, "") else float(cell)
    return value if math.isfinite(value) else None


def is_count(text):
    """Whether a text is a step or an epoch, as a run writes it."""
    return text.isdecimal() and text.isascii() and len(text) < 18


# ---- files that somebody may have edited ----


def read_config(path):
    """config.json as a dict; an empty one if it was removed or edited meanwhile."""
    if not is_file(path):
        return {}
    try:
        text = read_bytes(path, LARGEST_CONFIG).decode("utf-8")
        # A browser reads neither NaN nor infinity.
        config = dict(json.loads(text, parse_constant=str, parse_float=finite_or_text))
        for name in ("args", "versions"):
            config[name] = dict(config.get(name, {}))
        json.dumps(config)  # it may be nested too deeply
    except (OSError, ValueError, TypeError, RecursionError):
        warn_once(f"{path} is not what a run writes, and is not shown")
        return {}
    return config


def read_table(path, axis):
    """The rows of losses.csv or validation.csv, [{column: text}].

    A last row that a kill has cut is left out. Any other damage, such as a
    spreadsheet's, makes the table count as absent, with a warning.

    Args:
        axis: the column that every row has, a whole number: "step" or "epoch".
    """
    if not is_file(path):
        return []
    try:
        text = read_bytes(path, LARGEST_TABLE).decode("utf-8").rstrip("\0")
        reader = csv.reader(io.StringIO(text, newline=""))
        names = next(reader, [])
        rows = [dict(zip(names, cells)) if len(cells) == len(names) else {} for cells in reader]
    except (OSError, ValueError, csv.Error):
        names = [""]
        rows = []
    if rows and not fits_table(rows[-1], axis):
        rows.pop()
    fits = not names or (axis in names and len(set(names)) == len(names) <= MOST_COLUMNS)
    if not fits or not all(is_plain_name(name) for name in names):
        rows = [{}]
    if not all(fits_table(row, axis) for row in rows):
        warn_once(f"{path} is not what a run writes, and counts as absent")
        return []
    return rows


def finite_or_text(text):
    return float(text) if math.isfinite(float(text)) else text


def read_bytes(path, most):
    """The content of a file; a ValueError if it has more than `most` bytes."""
    if path.stat().st_size > most:
        raise ValueError(f"{path} is too large")
    return path.read_bytes()


def fits_table(row, axis):
    """Whether each cell is what a run writes: a number, or nothing for a late loss."""
    if not is_count(row.get(axis, "")):
        return False
    return all(cell == "" or is_number(cell) for cell in row.values())


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True
