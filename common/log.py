"""What a run shows and keeps: progress, config.json, losses.csv, index.html."""

from common.checkpoint import write_atomically
from common.cli import stored
from common.errors import UserError, is_terminal, say, warn, warn_once
from common.folder import make_folder
from common.report import read_table, write_report

import contextlib
import csv
import gc
import io
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm


def prepare_folder(args):
    """Makes a run's `out_dir` and, for a training, writes config.json into it.

    Raises:
        UserError: the folder cannot be made or written.
    """
    out_dir = Path(args.out_dir)
    make_folder(out_dir)
    if args.sample_only:
        return
    config = {
        "script": args.script,
        "device": "cuda" if jt.flags.use_cuda else "cpu",
        "processes": jt.world_size,
        "versions": {
            "python": platform.python_version(),
            "jittor": jt.__version__,
            "numpy": np.__version__,
        },
        "args": stored(args),
    }
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(out_dir / "config.json", lambda file: file.write(text.encode()))


class Log:
    """Progress on the screen, and losses.csv, losses.png and index.html in `folder`.

    A file that cannot be written, as on a full disk, is a warning: the rows stay in
    memory, and the next one writes all of them.

    Args:
        folder: the run's `out_dir`.
        step: steps done. Rows of an earlier run after this step are dropped, since
            these steps will be done again.
    """

    def __init__(self, folder, step):
        self.path = folder / "losses.csv"
        self.first_step = step
        self.n_steps = step
        self.n_epochs = None
        self.start = time.perf_counter()
        self.plotted = self.start
        self.shown = 0.0  # when index.html was written; 0 before the first row
        self.ticked = self.start
        self.longest = 0.0  # seconds of a step, with what comes between two steps
        self.rows = self.rows_until(step) if step else []
        self.names = list(self.rows[0]) if self.rows else []  # columns of the table
        self.is_whole = False  # whether the file holds all rows
        self.write_rows()
        self.bar = None
        if is_terminal(sys.stderr):  # in a file, lines are better than a bar
            self.bar = tqdm(initial=step, unit="step", mininterval=0.5)

    def set_length(self, n_steps, n_epochs):
        """Sets the length of the whole run, for the time left.

        Args:
            n_epochs: None if the run's length is given in images.
        """
        self.n_steps = n_steps
        self.n_epochs = n_epochs
        if self.bar is not None:
            self.bar.total = n_steps

    def rows_until(self, step):
        rows = read_table(self.path, "step")
        if not rows:
            keep_edited(self.path)
        return [row for row in rows if int(row["step"]) <= step]

    def write_rows(self):
        """Replaces the file by all rows: at every moment it is whole."""
        table = as_table(self.names, self.rows)
        try:
            write_atomically(self.path, lambda file: file.write(table), makes_folder=True)
            self.is_whole = True
        except UserError as error:
            self.is_whole = False
            warn_once(f"{error}; the training continues, and keeps its rows in memory")

    def append(self, row):
        """Adds one row to the file, which costs the same however long the file is."""
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.names).writerow(row)
        try:
            with open(self.path, "r+b", buffering=0) as file:  # not "a": it must exist
                file.seek(0, 2)
                line = text.getvalue().encode()
                self.is_whole = file.write(line) == len(line)
        except OSError:  # full, or removed: `write_rows` says so if it fails too
            self.is_whole = False

    def tick(self):
        """Counts a step, and says once a minute on the page that the run lives."""
        if self.bar is not None:
            self.bar.update()
        now = time.perf_counter()
        self.longest = max(self.longest, now - self.ticked)
        self.ticked = now
        if self.shown:
            self.write_report(running=True, pause=60)

    def add(self, step, epoch, values):
        """Adds a line of losses, {name: float}, to the screen and to the file."""
        row = {"step": step, "epoch": epoch, **values}
        self.rows.append(row)
        new = [name for name in row if name not in self.names]
        self.names += new
        if self.is_whole and not new:
            self.append(row)
        if new or not self.is_whole:  # or the first row with a loss that not every step has
            self.write_rows()
        self.write_report(running=True, pause=10)
        self.show(step, epoch, values)

    def show(self, step, epoch, values):
        """Prints a line of losses, or puts it into the progress bar."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        epochs = f"epoch {epoch}"
        if self.n_epochs is not None:
            epochs += f"/{self.n_epochs}"
        if self.bar is not None:
            self.bar.set_description(epochs, refresh=False)
            self.bar.set_postfix_str(losses, refresh=False)
            return
        speed = (step - self.first_step) / (time.perf_counter() - self.start)
        minutes = (self.n_steps - step) / speed / 60
        say(
            f"{epochs}  step {step}/{self.n_steps}  {losses}  "
            f"{speed:.3g} steps/s  {minutes:.1f} min left"
        )

    def plot(self, pause=0.0):
        """Draws losses.png, unless it was drawn within the last `pause` seconds."""
        if len(self.rows) < 2 or time.perf_counter() - self.plotted < pause:
            return
        self.plotted = time.perf_counter()
        from matplotlib.figure import Figure  # without pyplot: no window, no global state

        figure = Figure(figsize=(8, 4))
        # Fixed axes: a layout that is computed takes as long as the drawing.
        axes = figure.add_axes((0.09, 0.12, 0.89, 0.85))
        steps = [int(row["step"]) for row in self.rows]
        for name in self.names[2:]:
            values = [float(row.get(name) or "nan") for row in self.rows]
            line = axes.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
            # A "$" would begin a formula.
            label = name.replace("$", r"\$")
            axes.plot(steps, smooth(values), color=line.get_color(), label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (pale: as logged, strong: moving average)")
        axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, dpi=100, format="png")
        try:
            write_atomically(
                self.path.with_suffix(".png"), lambda file: file.write(picture.getvalue())
            )
        except UserError as error:
            warn_once(f"{error}; the training continues")
        # Figures are cycles of references; without a collection they would pile up.
        del figure, axes, line
        gc.collect()

    def write_report(self, running, pause=0.0):
        """Writes index.html, unless it was written within the last `pause` seconds."""
        now = time.perf_counter()
        if now - self.shown < pause:
            return
        self.shown = now
        with contextlib.suppress(UserError):  # if the disk is full, the checkpoint says so
            write_report(
                self.path.parent,
                self.rows,
                self.n_steps,
                now - self.start,
                running,
                patience=round(180 + 4 * self.longest),
            )

    def end_bar(self):
        if self.bar is not None:
            self.bar.close()

    def close(self):
        """Ends the progress bar, and index.html's waiting for more."""
        self.end_bar()
        if not self.is_whole:
            self.write_rows()
        self.write_report(running=False)


def smooth(values, decay=0.9):
    """An exponential moving average that starts at the first value that is a number."""
    result = []
    for value in values:
        if not result or math.isnan(result[-1]):
            result.append(value)
        else:
            result.append(decay * result[-1] + (1 - decay) * value)
    return result


def write_validation(path, epochs):
    """Writes a table with a row for each epoch.

    The file's rows of earlier epochs stay; later ones are an interrupted run's.

    Args:
        epochs: {epoch: {name: float}}, all that this process has measured, of which the
            file may lack some. The names are the same in every epoch.
    """
    rows = read_table(path, "epoch")
    if not rows:
        keep_edited(path)
    rows = [row for row in rows if int(row["epoch"]) < min(epochs)]
    rows += [{"epoch": epoch, **values} for epoch, values in epochs.items()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = as_table(names, rows)
    try:
        write_atomically(path, lambda file: file.write(table), makes_folder=True)
    except UserError as error:
        warn_once(f"{error}; the training continues, and keeps its rows in memory")


def as_table(names, rows):
    """The text of a table, as bytes; empty without rows."""
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def keep_edited(path):
    """Renames a table that counts as absent, but holds something.

    Somebody may have edited it, and the run is going to write its own.
    """
    kept = path.with_name(path.name + ".old")
    number = 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.name}.old{number}")
    try:
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 0:
            path.rename(kept)
            warn(f"what {path} held is kept as {kept}")
    except OSError as error:
        warn(f"{path} cannot be kept as {kept}: {error.strerror}")
