"""What a run does around the loop: seeds, noise, signals, exit codes, when it saves."""

import common.run
from common import Batches, Parser, Run, UserError, checkpoint
from common.errors import NotFinite
from common.run import mixed_seed

import signal
from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest


def arguments(tmp_path, *flags):
    parser = Parser("x", "Doc.", {}, architecture=("img_size",))
    parser.set_defaults(n_epochs=1, batch_size=2, lr=0.1, b1=0.5, b2=0.9, img_size=8, channels=1)
    parser.set_defaults(sample_interval=1, checkpoint_interval=1, log_interval=1)
    return parser.parse(["--out_dir", str(tmp_path / "out"), *flags])


# ---- how it ends ----


@pytest.mark.parametrize("error", [RuntimeError("Run cmd failed: g++"), KeyboardInterrupt()])
def test_stopped_within_a_step_says_so_in_one_line(tmp_path, error, capsys):
    """Ctrl-C also ends the compiler that Jittor waits for, and Jittor then raises."""
    with pytest.raises(SystemExit) as stopped, Run(arguments(tmp_path)) as run:
        run.on_signal(signal.SIGINT, None)
        raise error
    assert stopped.value.code == 130
    assert (
        capsys.readouterr().err.strip()
        == "Stopped within a step; the last checkpoint, if any, is kept."
    )


def test_an_error_without_a_signal_keeps_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), Run(arguments(tmp_path)):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("wrong"), 2), (OSError(28, "full"), 2), (NotFinite("nan"), 3)]
)
def test_exit_codes(tmp_path, capsys, error, code):
    with pytest.raises(SystemExit) as stopped, Run(arguments(tmp_path)):
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err.splitlines() == [f"x.py: error: {error}"]


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(KeyError), Run(arguments(tmp_path)):
        raise KeyError("a bug")


@pytest.mark.parametrize("flag", [None, "sample_only", "describe"])
def test_only_a_training_waits_for_the_end_of_its_step(tmp_path, flag):
    """Where nothing is trained, Ctrl-C ends a long evaluation at once."""
    args = arguments(tmp_path)
    if flag:
        setattr(args, flag, True)
    before = signal.getsignal(signal.SIGINT)
    with Run(args) as run:
        assert (signal.getsignal(signal.SIGINT) == run.on_signal) is (flag is None)
    assert signal.getsignal(signal.SIGINT) == before
    assert (tmp_path / "out").exists() is (flag != "describe")


# ---- seeds and noise ----


def test_noise_depends_on_the_seed(tmp_path):
    draws = []
    for seed in "001":
        with Run(arguments(tmp_path, "--seed", seed)) as run:
            draws.append(
                (
                    run.normal(3).tolist(),
                    run.sample_rng.random(3).tolist(),
                    jt.rand(3).numpy().tolist(),
                )
            )
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2]))


def test_seeds_are_large_and_differ():
    seeds = [mixed_seed(seed, step) for seed in range(20) for step in range(500)]
    assert len(set(seeds)) == len(seeds)
    # Jittor's generator is linear: a seed below 2^28 would begin with a number near 0.
    assert min(seeds) >= 1 << 29 and max(seeds) < 1 << 31


def test_noise_has_its_distribution(tmp_path):
    """Means and deviations within four standard errors."""
    with Run(arguments(tmp_path)) as run:
        normal, uniform = run.normal(100, 10, 10, 1).numpy(), run.uniform(100, 100).numpy()
        integers = run.integers(3, 6, 9000).numpy()
    assert (normal.shape, normal.dtype, integers.dtype) == ((100, 10, 10, 1), np.float32, np.int32)
    assert abs(normal.mean()) < 0.04 and abs(normal.std() - 1) < 0.03
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.012 and abs(uniform.std() - 12**-0.5) < 0.006
    values, counts = np.unique(integers, return_counts=True)
    assert values.tolist() == [3, 4, 5]
    assert abs(counts - 3000).max() < 4 * (9000 * 2 / 9) ** 0.5


def test_permute_gives_every_row_once(tmp_path):
    rows = np.arange(12).reshape(6, 2)
    with Run(arguments(tmp_path)) as run:
        orders = [run.permute(jt.array(rows)).numpy() for _ in range(20)]
    assert all(sorted(order.tolist()) == rows.tolist() for order in orders)
    assert len({order.tobytes() for order in orders}) > 10


def test_samples_disturb_no_training(tmp_path):
    draws = []
    for disturbs in (False, True):
        with Run(arguments(tmp_path)) as run:
            if disturbs:
                run.sample_rng.random(5)
            draws.append(run.normal(3).tolist())
    assert draws[0] == draws[1]


# ---- when it saves ----


class Numbers:
    """Six numbers in batches of two: three steps an epoch."""

    def __len__(self):
        return 6

    def batch(self, indices, seeds):
        return (np.float32(indices),)


def steps_saved(tmp_path, monkeypatch, *flags):
    """(step, epoch) of each checkpoint of a run, in the order in which they were written."""
    saved, real = [], checkpoint.save

    def save(path, parts, meta):
        saved.append((meta["step"], meta["epoch"]))
        real(path, parts, meta)

    monkeypatch.setattr(checkpoint, "save", save)
    with Run(arguments(tmp_path, "--n_epochs", "5", *flags)) as run:
        batches = Batches(Numbers(), 2, seed=0)
        run.track(batches=batches)
        for _ in run.epochs():
            for _ in run.steps(batches):
                run.log({"loss": jt.array([float(run.step)])})
    return saved


def test_it_saves_at_the_interval_and_at_the_end(tmp_path, monkeypatch):
    assert steps_saved(tmp_path, monkeypatch, "--checkpoint_interval", "2") == [
        (6, 2),
        (12, 4),
        (15, 5),
    ]


def test_it_saves_in_the_middle_of_an_epoch_where_the_last_checkpoint_is_old(tmp_path, monkeypatch):
    clock = iter(range(0, 10000, 100))  # every look at the clock is 100 seconds after the last
    monkeypatch.setattr(common.run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(common.run, "CHECKPOINT_SECONDS", 250)
    saved = steps_saved(tmp_path, monkeypatch, "--checkpoint_interval", "100")
    # One look at the run's start, one after each step, one at each checkpoint.
    assert saved == [(3, 0), (6, 1), (9, 2), (12, 3), (15, 4), (15, 5)]


def test_the_newest_numbered_checkpoints_are_kept(tmp_path, monkeypatch):
    steps_saved(tmp_path, monkeypatch, "--keep", "2")
    names = sorted(file.name for file in (tmp_path / "out").glob("checkpoint*"))
    assert names == [
        "checkpoint_last.npz",
        "checkpoint_step_0000012.npz",
        "checkpoint_step_0000015.npz",
    ]
    last, newest = (tmp_path / "out" / name for name in (names[0], names[2]))
    assert last.read_bytes() == newest.read_bytes()
    assert checkpoint.Reader(tmp_path / "out" / names[1]).meta["epoch"] == 4


def test_without_keep_there_is_one(tmp_path, monkeypatch):
    steps_saved(tmp_path, monkeypatch)
    assert [file.name for file in (tmp_path / "out").glob("checkpoint*")] == ["checkpoint_last.npz"]


# ---- losses ----


def test_losses_are_read_at_the_interval_and_keep_their_last_value(tmp_path):
    with Run(arguments(tmp_path, "--log_interval", "2")) as run:
        batches = Batches(Numbers(), 2, seed=0)
        for _ in run.epochs():
            seen = []
            for _ in run.steps(batches):
                late = {"loss_G": jt.array([10.0])} if run.step == 1 else {}
                run.log({"loss_D": jt.array([float(run.step)]), **late})
                seen.append(dict(run.losses))
    assert seen == [{}, {"loss_D": 2.0, "loss_G": 10.0}, {"loss_D": 2.0, "loss_G": 10.0}]
    assert run.losses == {"loss_D": 3.0, "loss_G": 10.0}  # the last save reads them


def test_the_watches_see_what_was_read(tmp_path, capsys):
    real = np.random.default_rng(0).random((5, 1, 2, 2))
    with Run(arguments(tmp_path, "--n_epochs", "9")) as run:
        batches = Batches(Numbers(), 2, seed=0)
        run.watch(real, loss="loss_D")
        for _ in run.epochs():
            for _ in run.steps(batches):
                run.log({"loss_D": jt.array([0.0])})
    assert capsys.readouterr().err.count("the discriminator has won: loss_D") == 1


def test_a_loss_that_is_not_finite_names_its_step(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped, Run(arguments(tmp_path)) as run:
        batches = Batches(Numbers(), 2, seed=0)
        run.track(batches=batches)
        for _ in run.epochs():
            for _ in run.steps(batches):
                run.log({"loss": jt.array([float("nan") if run.step == 2 else 1.0])})
    assert stopped.value.code == 3
    assert capsys.readouterr().err == "x.py: error: loss is nan at step 2; a lower --lr may help\n"
    assert not (tmp_path / "out/checkpoint_last.npz").exists()
