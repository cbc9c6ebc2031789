"""What a run does around the loop: flags, seeds, the log."""

import signal

import jittor as jt
import numpy as np
import pytest

from common import Parser, Run, UserError, number
from common.errors import NotFinite
from common.log import Log, smooth
from common.run import mixed_seed


def parser():
    return Parser("x", "Doc.", architecture=("img_size",), n_epochs=1, batch_size=2, lr=0.1, b1=0.5, b2=0.9,
                  img_size=8, channels=1, sample_interval=1, checkpoint_interval=1, log_interval=1)  # fmt: skip


def arguments(tmp_path, *flags):
    return parser().parse(["--out_dir", str(tmp_path / "out"), *flags])


@pytest.mark.parametrize(
    ("kind", "limits", "text", "value"),
    [
        (int, {"at_least": 1}, "1", 1),
        (int, {"at_least": 1}, "0", None),
        (int, {}, "1.5", None),
        (float, {"above": 0}, "1e-3", 0.001),
        (float, {"above": 0}, "0", None),
        (float, {"below": 1}, "1", None),
        (float, {"at_most": 1}, "1", 1.0),
        (float, {}, "nan", None),
        (float, {}, "inf", None),
        (float, {}, "", None),
    ],
)
def test_number(kind, limits, text, value):
    parse = number(kind, **limits)
    if value is None:
        with pytest.raises(Exception, match="must be a"):
            parse(text)
    else:
        assert parse(text) == value
        assert type(parse(text)) is kind


def test_out_dir_defaults_to_results(tmp_path):
    assert parser().parse([]).out_dir == "results/x"
    assert arguments(tmp_path).out_dir == str(tmp_path / "out")


def test_what_is_of_the_call_is_not_stored(tmp_path):
    stored = arguments(tmp_path, "--seed", "3", "--n_samples", "9").stored
    assert stored["seed"] == 3
    assert not {"out_dir", "n_samples", "resume", "device", "help"} & set(stored)


@pytest.mark.parametrize("error", [RuntimeError("Run cmd failed: g++"), KeyboardInterrupt()])
def test_stopped_within_a_step_says_so_in_one_line(tmp_path, error, capsys):
    """Ctrl-C also ends the compiler that Jittor waits for, and Jittor then raises."""
    with pytest.raises(SystemExit) as stopped, Run(arguments(tmp_path)) as run:
        run.on_signal(signal.SIGINT, None)
        raise error
    assert stopped.value.code == 130
    assert capsys.readouterr().err.strip() == "Stopped within a step; the last checkpoint, if any, is kept."


def test_an_error_without_a_signal_keeps_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), Run(arguments(tmp_path)):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(("error", "code"), [(UserError("wrong"), 2), (OSError(28, "full"), 2), (NotFinite("nan"), 3)])
def test_exit_codes(tmp_path, capsys, error, code):
    with pytest.raises(SystemExit) as stopped, Run(arguments(tmp_path)):
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err.splitlines() == [f"x.py: error: {error}"]


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(KeyError), Run(arguments(tmp_path)):
        raise KeyError("a bug")


@pytest.mark.parametrize("trains", [True, False])
def test_only_a_training_waits_for_the_end_of_its_step(tmp_path, trains):
    """Where nothing is trained, Ctrl-C ends a long evaluation at once."""
    args = arguments(tmp_path)
    args.sample_only, before = not trains, signal.getsignal(signal.SIGINT)
    with Run(args) as run:
        assert (signal.getsignal(signal.SIGINT) == run.on_signal) is trains
    assert signal.getsignal(signal.SIGINT) == before


def test_noise_depends_on_the_seed(tmp_path):
    draws = []
    for seed in "001":
        with Run(arguments(tmp_path, "--seed", seed)) as run:
            draws.append((run.rng.standard_normal(3).tolist(), jt.rand(3).numpy().tolist()))
    assert draws[0] == draws[1]
    assert draws[0][0] != draws[2][0] and draws[0][1] != draws[2][1]


def test_seeds_are_large_and_differ():
    seeds = [mixed_seed(seed, step) for seed in range(20) for step in range(500)]
    assert len(set(seeds)) == len(seeds)
    # Jittor's generator is linear: a seed below 2^28 would begin with a number near 0.
    assert min(seeds) >= 1 << 29 and max(seeds) < 1 << 31


def test_log_drops_rows_that_will_be_done_again(tmp_path):
    log = Log(tmp_path, step=0, n_epochs=1, steps_per_epoch=4)
    for step in (1, 2, 3):
        log.add(step, 1, {"loss": step / 2})
    log = Log(tmp_path, step=2, n_epochs=1, steps_per_epoch=4)
    log.add(3, 1, {"loss": 9.0})
    assert (tmp_path / "losses.csv").read_text().split() == ["step,epoch,loss", "1,1,0.5", "2,1,1.0", "3,1,9.0"]
    log.plot()
    assert (tmp_path / "losses.png").stat().st_size > 1000


def test_a_new_run_begins_a_new_log(tmp_path):
    Log(tmp_path, 0, 1, 4).add(1, 1, {"loss": 1.0})
    Log(tmp_path, 0, 1, 4)
    assert (tmp_path / "losses.csv").read_text() == ""


def test_smooth_is_an_exponential_average():
    assert np.allclose(smooth([1, 2, 0], decay=0.5), [1, 1.5, 0.75])
