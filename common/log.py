"""What a run shows and keeps: progress, config.json, losses.csv, index.html."""

from common.checkpoint import write_atomically
from common.cli import stored
from common.errors import UserError
from common.report import write_report

import contextlib
import csv
import gc
import json
import math
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
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        probe = out_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"--out_dir {out_dir.absolute()} cannot be written: {error.strerror}"
        raise UserError(message) from error
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
        self.shown = 0.0
        self.rows = self.rows_until(step) if step else []
        self.names = list(self.rows[0]) if self.rows else []  # columns of the table
        self.write_rows()
        self.bar = None
        if sys.stderr.isatty():  # in a file, lines are better than a bar
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
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            rows = list(csv.DictReader(file))
        numbered = [row for row in rows if (row.get("step") or "").isdigit()]
        return [row for row in numbered if int(row["step"]) <= step]

    def write_rows(self):
        with open(self.path, "w", newline="") as file:
            if self.rows:
                writer = csv.DictWriter(file, self.names)
                writer.writeheader()
                writer.writerows(self.rows)

    def tick(self):
        """Counts a step."""
        if self.bar is not None:
            self.bar.update()

    def add(self, step, epoch, values):
        """Adds a line of losses, {name: float}, to the screen and to the file."""
        row = {"step": step, "epoch": epoch, **values}
        self.rows.append(row)
        new = [name for name in row if name not in self.names]
        if new:  # the first row, or the first with a loss that not every step has
            self.names += new
            self.write_rows()
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.names).writerow(row)
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
        print(
            f"{epochs}  step {step}/{self.n_steps}  {losses}  "
            f"{speed:.3g} steps/s  {minutes:.1f} min left",
            flush=True,
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
            axes.plot(steps, smooth(values), color=line.get_color(), label=name)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (pale: as logged, strong: moving average)")
        axes.legend()
        figure.savefig(self.path.with_suffix(".png"), dpi=100)
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
            write_report(self.path.parent, self.rows, self.n_steps, now - self.start, running)

    def close(self):
        """Ends the progress bar, and index.html's waiting for more."""
        if self.bar is not None:
            self.bar.close()
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


def write_validation(path, epoch, values):
    """Adds an epoch's row to a table, and prints it.

    Rows that an interrupted run wrote for this epoch and later ones are dropped.

    Args:
        values: {name: float}, the same names in every epoch.
    """
    rows = []
    if path.is_file():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *values])
        writer.writeheader()
        writer.writerows([*rows, {"epoch": epoch, **values}])
    text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
    print(f"epoch {epoch}: {text}", flush=True)
