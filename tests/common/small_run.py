"""A run without a network: flags, data and a loop, for tests of what surrounds it."""

from common import Parser

import numpy as np


def make_parser(paper=None):
    """The parser of a script x.py with small defaults and no groups of flags."""
    parser = Parser("x.py", "Doc.", paper or {})
    parser.set_defaults(n_epochs=1, batch_size=2, lr=0.1)
    parser.set_defaults(sample_interval=1, log_interval=1, checkpoint_interval=1)
    return parser


def arguments(out_dir, *flags):
    return make_parser().parse(["--out_dir", str(out_dir), *map(str, flags)])


class Numbers:
    """A data set of n numbers, from `first` on."""

    def __init__(self, n=6, first=0):
        self.n = n
        self.first = first

    def __len__(self):
        return self.n

    def batch(self, indices, seeds):
        return (np.float32(indices) + self.first,)


class Diary:
    """What a run has drawn so far; a checkpoint holds it.

    Attributes:
        lines: [phase, epoch, step, numbers of the batch, noise] for each step.
    """

    def __init__(self):
        self.lines = []

    def write(self, run, phase, epoch, batch):
        noise = run.normal(1).item()
        self.lines.append([phase, epoch, run.step, batch.numpy().tolist(), noise])

    def state_dict(self):
        return {"lines": self.lines}

    def load_state_dict(self, state):
        self.lines = list(state["lines"])


def train(run, data=None):
    """Trains nothing, and keeps a diary of it."""
    data = data or Numbers()
    diary = Diary()
    run.checkpoint(diary=diary)
    run.restore()
    for epoch in run.epochs():
        for (batch,) in run.batches(data):
            diary.write(run, "", epoch, batch)
    return diary.lines
