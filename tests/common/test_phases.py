"""Runs of several phases: their order and length, and how a stopped one continues."""

from common import Run

import signal

import numpy as np
import pytest
from registry import meta
from small_run import Diary, Numbers, arguments

# Each phase has its own batch size, and the last one its own data.
DATA = {"a": Numbers(6), "b": Numbers(6, first=10), "none": Numbers(6), "c": Numbers(5, first=20)}
SIZES = {"a": 2, "b": 3, "none": 2, "c": 2}


class Case:
    """Phases and the flags of their run.

    Attributes:
        expected: (phase, epoch within it, images of the step) of each step.
    """

    def __init__(self, lengths, in_images, flags, expected):
        self.lengths = lengths
        self.in_images = in_images
        self.flags = flags
        self.expected = expected


CASES = {
    # 6 numbers in batches of 2 and of 3, then 5 in batches of 2 (one is left out)
    "epochs": Case(
        lengths={"a": 1, "none": 0, "b": 2, "c": None},
        in_images=False,
        flags=["--n_epochs", 5],
        expected=[("a", 1, 2)] * 3
        + [("b", 1, 3)] * 2
        + [("b", 2, 3)] * 2
        + [("c", 1, 2)] * 2
        + [("c", 2, 2)] * 2,
    ),
    # a ends at image 7, within its second epoch and with its fourth batch; b at image
    # 7 + 9, with the third batch after image 8; c with the run.
    "images": Case(
        lengths={"a": 7, "none": 0, "b": 9, "c": None},
        in_images=True,
        flags=["--n_images", 22],
        expected=[("a", 1, 2)] * 3
        + [("a", 2, 2)]
        + [("b", 1, 3)] * 2
        + [("b", 2, 3)]
        + [("c", 1, 2)] * 2
        + [("c", 2, 2)],
    ),
    # a and b end with an epoch
    "images, whole epochs": Case(
        lengths={"a": 6, "b": 12, "c": 4},
        in_images=True,
        flags=["--n_epochs", 1],
        expected=[("a", 1, 2)] * 3 + [("b", 1, 3)] * 2 + [("b", 2, 3)] * 2 + [("c", 1, 2)] * 2,
    ),
    # phases in epochs within a run in images: it ends in the second epoch of b
    "epochs of a run in images": Case(
        lengths={"a": 1, "b": 2, "c": None},
        in_images=False,
        flags=["--n_images", 14],
        expected=[("a", 1, 2)] * 3 + [("b", 1, 3)] * 2 + [("b", 2, 3)],
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def train(run, lengths, in_images):
    """Trains nothing, and keeps a diary of it."""
    diary = Diary()
    run.checkpoint(diary=diary)
    run.restore()
    for phase in run.phases(lengths, in_images):
        for epoch in run.epochs():
            for (batch,) in run.batches(DATA[phase], SIZES[phase]):
                diary.write(run, phase, epoch, batch)
    return diary.lines


def train_case(case, out, *flags, lengths=None):
    with Run(arguments(out, *flags)) as run:
        return train(run, lengths or case.lengths, case.in_images)


def stop_at(monkeypatch, step):
    """The next run gets a SIGTERM in this step."""
    real_write = Diary.write

    def write(diary, run, *what):
        real_write(diary, run, *what)
        if run.step == step:
            run.on_signal(signal.SIGTERM, None)

    monkeypatch.setattr(Diary, "write", write)


@every_case
def test_phases_epochs_and_batches(case, tmp_path):
    lines = train_case(case, tmp_path, *case.flags)
    seen = [(phase, epoch, len(batch)) for phase, epoch, _, batch, _ in lines]
    assert seen == case.expected
    assert [line[2] for line in lines] == list(range(1, len(lines) + 1))
    stored = meta(tmp_path)
    assert stored["phase"] == case.expected[-1][0]
    assert stored["n_images"] == sum(n for _, _, n in case.expected)


@every_case
def test_each_phase_begins_with_a_new_epoch_of_its_data(case, tmp_path):
    """The batches of an epoch hold each of the data at most once."""
    epochs = {}
    for phase, epoch, _, batch, _ in train_case(case, tmp_path, *case.flags):
        epochs.setdefault((phase, epoch), []).extend(batch)
    for (phase, _), numbers in epochs.items():
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(DATA[phase].batch(np.arange(len(DATA[phase])), None)[0])


@every_case
def test_a_stop_in_any_step_loses_nothing(case, tmp_path, monkeypatch):
    """In the middle of a phase, in its last step, and in the first of the next."""
    whole = train_case(case, tmp_path / "whole", *case.flags)
    final = meta(tmp_path / "whole")
    for step in range(1, len(whole) + 1):
        out = tmp_path / str(step)
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            stop_at(patch, step)
            train_case(case, out, *case.flags)
        assert stopped.value.code == 128 + signal.SIGTERM
        assert meta(out)["step"] == step
        assert train_case(case, out, "--resume", out) == whole, step
        resumed = meta(out)
        for key in ("step", "epoch", "n_images", "phase", "first_epoch", "order", "rng"):
            assert resumed[key] == final[key], (step, key)


class Killed(BaseException):
    """Ends a run at once, as a kill would."""


def kill_before(monkeypatch, step):
    real_begin = Run.begin_step

    def begin_step(run, arrays):
        if run.step + 1 == step:
            raise Killed
        real_begin(run, arrays)

    monkeypatch.setattr(Run, "begin_step", begin_step)


@every_case
def test_a_kill_between_two_phases_loses_nothing(case, tmp_path, monkeypatch):
    """The last checkpoint is then that of the first phase's end."""
    whole = train_case(case, tmp_path / "whole", *case.flags)
    phases = [line[0] for line in whole]
    boundaries = [i + 1 for i in range(1, len(phases)) if phases[i] != phases[i - 1]]
    assert boundaries
    for step in boundaries:
        out = tmp_path / str(step)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_before(patch, step)
            train_case(case, out, *case.flags)
        assert meta(out)["step"] == step - 1
        assert train_case(case, out, "--resume", out) == whole, step


def test_a_finished_run_says_so(tmp_path, capsys):
    case = CASES["epochs"]
    train_case(case, tmp_path, *case.flags)
    capsys.readouterr()
    train_case(case, tmp_path, "--resume", tmp_path)
    assert capsys.readouterr().out.count("already trained for 5 epochs") == 1


def test_a_run_that_continues_does_not_say_so(tmp_path, monkeypatch, capsys):
    case = CASES["epochs"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, 4)  # the first step of b
        train_case(case, tmp_path, *case.flags)
    capsys.readouterr()
    train_case(case, tmp_path, "--resume", tmp_path)
    assert "already trained" not in capsys.readouterr().out


def test_more_epochs_make_the_last_phase_longer(tmp_path):
    case = CASES["epochs"]
    whole = train_case(case, tmp_path / "whole", "--n_epochs", 6)
    train_case(case, tmp_path / "half", "--n_epochs", 4)
    resumed = train_case(case, tmp_path / "half", "--resume", tmp_path / "half", "--n_epochs", 6)
    assert resumed == whole


def test_more_images_make_the_last_phase_longer(tmp_path):
    case = CASES["images"]
    whole = train_case(case, tmp_path / "whole", "--n_images", 30)
    train_case(case, tmp_path / "half", "--n_images", 21)
    resumed = train_case(case, tmp_path / "half", "--resume", tmp_path / "half", "--n_images", 30)
    assert resumed == whole


def test_a_run_that_ended_within_a_phase_continues_there(tmp_path):
    """--n_epochs 2 ends in the first epoch of b."""
    case = CASES["epochs"]
    whole = train_case(case, tmp_path / "whole", *case.flags)
    half = train_case(case, tmp_path / "half", "--n_epochs", 2)
    assert [line[0] for line in half] == ["a"] * 3 + ["b"] * 2
    resumed = train_case(case, tmp_path / "half", "--resume", tmp_path / "half", *case.flags)
    assert resumed == whole


# ---- flags that contradict a checkpoint ----


@pytest.mark.parametrize(
    ("case", "step", "lengths", "into"),
    [
        ("epochs", 2, {"a": 0, "b": 2, "c": None}, "b"),  # within a, which is left out
        ("epochs", 6, {"a": 1, "b": 1, "c": None}, "c"),  # in b's second epoch
        ("epochs", 6, {"a": 4, "b": 2, "c": None}, "a"),
        ("epochs", 6, {"a": 0, "b": 9, "c": None}, "b"),  # whose epochs would be other ones
        ("epochs", 10, {"a": 1, "b": 9, "c": None}, "b"),
        ("images", 3, {"a": 4, "b": 9, "c": None}, "b"),
        ("images", 6, {"a": 40, "b": 9, "c": None}, "a"),
        ("images", 6, {"a": 1, "b": 1, "c": None}, "c"),
    ],
)
def test_a_contradicting_phase_is_one_line(
    case, step, lengths, into, tmp_path, monkeypatch, capsys
):
    case = CASES[case]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_at(patch, step)
        train_case(case, tmp_path, *case.flags)
    capsys.readouterr()
    before = (tmp_path / "checkpoint_last.npz").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        train_case(case, tmp_path, "--resume", tmp_path, lengths=lengths)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    saved_in = case.expected[step - 1][0]
    where = f"and these flags put it into {into}"
    if into == saved_in:
        where = "which these flags begin after 0 epochs instead of 1"
    assert f"was saved in the phase {saved_in}, {where}" in line
    assert (tmp_path / "checkpoint_last.npz").read_bytes() == before


# ---- networks of their own ----


class Counter:
    """A part that counts the steps of its phase."""

    def __init__(self, start):
        self.count = start

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def grow(out, *flags):
    """Each phase has its own parts, which begin with what the phase before has left."""
    counts = []
    with Run(arguments(out, *flags)) as run:
        reached = 100
        for phase in run.phases({"a": 6, "b": 6, "c": 4}, in_images=True):
            counter = Counter(reached)
            run.checkpoint(**{phase: counter})
            run.restore()
            for _ in run.epochs():
                for _ in run.batches(DATA[phase], SIZES[phase]):
                    counter.count += 1
            reached = counter.count
            counts.append((phase, reached))
    return counts


@pytest.mark.parametrize("step", range(1, 8))
def test_phases_with_their_own_parts(tmp_path, monkeypatch, step):
    """At the end of a phase, a checkpoint has the parts of that phase alone."""
    whole = grow(tmp_path / "whole")
    assert whole == [("a", 103), ("b", 105), ("c", 107)]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("common.run.CHECKPOINT_SECONDS", 0)
        kill_before(patch, step + 1)
        grow(tmp_path / "half")
        raise Killed  # after the last step
    resumed = grow(tmp_path / "half", "--resume", tmp_path / "half")
    assert resumed == whole[-len(resumed) :]
    assert resumed[-1] == whole[-1]
