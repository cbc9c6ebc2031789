"""What a run shows and keeps of itself: config.json, a progress bar or lines, losses.csv, losses.png, index.html."""

from common.checkpoint import write_atomically
from common.errors import UserError
from common.page import write_page

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
        raise UserError(
            f"--out_dir {out_dir.absolute()} cannot be written: {error.strerror}"
        ) from error
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
        "args": args.stored,
    }
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(out_dir / "config.json", lambda file: file.write(text.encode()))


class Log:
    """Progress on the screen, and `losses.csv`, `losses.png` and `index.html` in `folder`.

    Args:
        folder: where the two files go.
        step: steps done; rows of an earlier run after this step are dropped, since they will be done again.
        n_epochs, steps_per_epoch: the whole run, for the time left.
    """

    def __init__(self, folder, step, n_epochs, steps_per_epoch):
        self.path, self.n_epochs = folder / "losses.csv", n_epochs
        self.n_steps, self.first_step = n_epochs * steps_per_epoch, step
        self.start, self.shown = time.perf_counter(), 0.0
        self.plotted = self.start
        self.rows = self.rows_until(step) if step else []
        self.names = list(self.rows[0]) if self.rows else []  # columns of the table
        self.write_rows()
        # Where nobody watches, lines are better than a bar that draws over itself.
        self.bar = (
            tqdm(total=self.n_steps, initial=step, unit="step", mininterval=0.5)
            if sys.stderr.isatty()
            else None
        )

    def rows_until(self, step):
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) <= step
        ]

    def write_rows(self):
        with open(self.path, "w", newline="") as file:
            if self.rows:
                writer = csv.DictWriter(file, self.names)
                writer.writeheader()
                writer.writerows(self.rows)

    def tick(self):
        """One step is done."""
        if self.bar is not None:
            self.bar.update()

    def add(self, step, epoch, values):
        """One line of losses, on the screen and in the file."""
        row = {"step": step, "epoch": epoch, **values}
        self.rows.append(row)
        new = [name for name in row if name not in self.names]
        if new:  # the first row, or the first with a loss that not every step has
            self.names += new
            self.write_rows()
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.names).writerow(row)
        self.write_page(running=True, pause=10)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.n_epochs}", refresh=False)
            self.bar.set_postfix_str(text, refresh=False)
        else:
            speed = (step - self.first_step) / (time.perf_counter() - self.start)
            left = (self.n_steps - step) / speed / 60
            print(
                f"epoch {epoch}/{self.n_epochs}  step {step}/{self.n_steps}  {text}  "
                f"{speed:.3g} steps/s  {left:.1f} min left",
                flush=True,
            )

    def plot(self, pause=0.0):
        """Draws losses.png, but not within `pause` seconds of the last time."""
        if len(self.rows) < 2 or time.perf_counter() - self.plotted < pause:
            return
        self.plotted = time.perf_counter()
        from matplotlib.figure import Figure  # without pyplot: no window, no global state

        figure = Figure(figsize=(8, 4))
        axes = figure.add_axes(
            (0.09, 0.12, 0.89, 0.85)
        )  # a layout that is computed takes as long as the drawing
        steps = [int(row["step"]) for row in self.rows]
        for name in self.names[2:]:
            values = [float(row.get(name) or "nan") for row in self.rows]
            line = axes.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
            axes.plot(steps, smooth(values), color=line.get_color(), label=name)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (pale: as logged, strong: moving average)")
        axes.legend()
        figure.savefig(self.path.with_suffix(".png"), dpi=100)
        del figure, axes, line
        gc.collect()  # figures are cycles of references: left to themselves, several would pile up

    def write_page(self, running, pause=0.0):
        """Writes index.html, but not within `pause` seconds of the last time."""
        now = time.perf_counter()
        if now - self.shown >= pause:
            self.shown = now
            with contextlib.suppress(
                UserError
            ):  # where a disk is full, the next checkpoint says so
                write_page(self.path.parent, self.rows, self.n_steps, now - self.start, running)

    def close(self):
        """The training has ended: no bar, and a page that waits for nothing more."""
        if self.bar is not None:
            self.bar.close()
        self.write_page(running=False)


def smooth(values, decay=0.9):
    """An exponential moving average that starts at the first value that is a number."""
    result = []
    for value in values:
        starts = not result or math.isnan(result[-1])
        result.append(value if starts else decay * result[-1] + (1 - decay) * value)
    return result


def write_validation(path, epoch, values):
    """Adds an epoch's row to a table, in the place of rows that an interrupted run wrote beyond it, and prints it.

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
    print(
        f"epoch {epoch}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()),
        flush=True,
    )
