"""What a run does around the loop: seeds, exit codes, when it saves, what it shows."""

import common.run
from common import EMA, Run, UserError, checkpoint
from common.errors import NotFinite
from common.seeds import mixed_seed
from common.watch import PATIENCE

import os
import signal
import time
from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import meta
from small_run import Numbers, arguments, train

from jittor_fast import nn


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# ---- how it ends ----


@pytest.mark.parametrize("error", [RuntimeError("Run cmd failed: g++"), KeyboardInterrupt()])
def test_a_stop_within_a_step_is_one_line(out, error, capsys):
    """Ctrl-C also ends the compiler that Jittor waits for, and Jittor then raises."""
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)) as run:
        run.begin_step(())
        run.on_signal(signal.SIGINT, None)
        raise error
    assert stopped.value.code == 130
    line = capsys.readouterr().err.strip()
    assert line == "Stopped within a step; the last checkpoint, if any, is kept."


def test_the_second_signal_does_not_wait_for_the_step(out):
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)) as run:
        run.begin_step(())
        run.on_signal(signal.SIGINT, None)
        run.on_signal(signal.SIGINT, None)
    assert stopped.value.code == 130


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_before_the_first_step_does_not_wait_for_it(out, capsys, number, code):
    """There is nothing to save, and checking the data may take minutes."""
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)):
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert stopped.value.code == code
    line = capsys.readouterr().err.strip()
    assert line == "Stopped before the first step; no checkpoint was written."
    assert not (out / "checkpoint_last.npz").exists()


def test_an_interrupted_call_that_does_not_train_is_one_line(out, capsys):
    args = arguments(out)
    args.sample_only = True
    with pytest.raises(SystemExit) as stopped, Run(args):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_numbers_of_a_checkpoint_that_no_schedule_can_take_are_one_line(out, capsys):
    """Without a checkpoint, it is a mistake of the script, and keeps its traceback."""
    with Run(arguments(out)) as run:
        train(run)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped, Run(arguments(out, "--resume", out)) as run:
        run.step = 10**15
        1.000004**run.step
    assert stopped.value.code == 2
    assert f"{out}/checkpoint_last.npz: a number is out of range" in capsys.readouterr().err
    with pytest.raises(OverflowError), Run(arguments(out, "--overwrite")):
        1.000004**10**15


def test_a_kernel_of_another_user_is_named(out, capsys, monkeypatch):
    """Jittor's own error is a page long and does not name it."""
    monkeypatch.setattr(common.run, "foreign_file", lambda cache: "x.so belongs to user 0")
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)):
        raise RuntimeError("Wrong inputs arguments")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "x.py: error: x.so belongs to user 0\n"


def test_an_error_of_the_system_names_the_file(out, capsys):
    with pytest.raises(SystemExit), Run(arguments(out)):
        raise PermissionError(13, "Permission denied", "/data/x")
    assert capsys.readouterr().err == "x.py: error: /data/x: Permission denied\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("wrong"), 2), (OSError(28, "full"), 2), (NotFinite("nan at step 4"), 3)],
)
def test_exit_codes(out, capsys, error, code):
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)):
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err.splitlines() == [f"x.py: error: {error}"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a bug")])
def test_other_errors_keep_their_traceback(out, error):
    with pytest.raises(type(error), match="a bug"), Run(arguments(out)):
        raise error


def test_a_run_that_ends_says_where_its_files_are(out, capsys):
    with Run(arguments(out)):
        pass
    assert capsys.readouterr().out.splitlines()[-1] == f"Done; everything is in {out}."


@pytest.mark.parametrize("sample_only", [False, True])
def test_only_a_training_waits_for_the_end_of_its_step(out, sample_only):
    """If nothing is trained, Ctrl-C ends the call at once."""
    args = arguments(out)
    args.sample_only = sample_only
    before = signal.getsignal(signal.SIGINT)
    with Run(args) as run:
        assert (signal.getsignal(signal.SIGINT) == run.on_signal) is not sample_only
    assert signal.getsignal(signal.SIGINT) == before
    assert (out / "config.json").exists() is not sample_only


# ---- seeds and noise ----


def test_noise_depends_on_the_seed(out):
    draws = []
    for seed in (0, 0, 1):
        with Run(arguments(out, "--seed", seed)) as run:
            of_training = run.normal(3).tolist()
            of_samples = run.fixed_rng().random(3).tolist()
            of_jittor = jt.rand(3).numpy().tolist()
        draws.append((of_training, of_samples, of_jittor))
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2]))


def test_seeds_are_large_and_differ():
    seeds = [mixed_seed(seed, step) for seed in range(20) for step in range(500)]
    assert len(set(seeds)) == len(seeds)
    # Jittor's generator is linear: after a seed below 2^28 its first number is near 0.
    assert min(seeds) >= 1 << 29
    assert max(seeds) < 1 << 31


def test_normal_noise_has_its_distribution(out):
    """The mean and the deviation lie within four standard errors."""
    with Run(arguments(out)) as run:
        normal = run.normal(100, 10, 10, 1).numpy()
        latent = run.noise("normal", 100, 100).numpy()
    assert (normal.shape, normal.dtype) == ((100, 10, 10, 1), np.float32)
    assert (latent.shape, latent.dtype) == ((100, 100), np.float32)
    for values in (normal, latent):
        assert abs(values.mean()) < 4 * 10000**-0.5
        assert abs(values.std() - 1) < 4 * 20000**-0.5


def test_uniform_noise_has_its_distribution(out):
    with Run(arguments(out)) as run:
        uniform = run.uniform(100, 100).numpy()
        latent = run.noise("uniform", 100, 100).numpy()
    assert (latent.shape, latent.dtype) == ((100, 100), np.float32)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert latent.min() >= -1
    assert latent.max() < 1
    # The standard error of the mean is the deviation, 12**-0.5, over 100.
    assert abs(uniform.mean() - 0.5) < 4 * 12**-0.5 / 100
    assert abs(uniform.std() - 12**-0.5) < 0.006
    assert abs(latent.mean()) < 4 * 3**-0.5 / 100


def test_integers_are_equally_frequent(out):
    with Run(arguments(out)) as run:
        integers = run.integers(3, 6, 9000).numpy()
    assert integers.dtype == np.int32
    values, counts = np.unique(integers, return_counts=True)
    assert values.tolist() == [3, 4, 5]
    assert abs(counts - 3000).max() < 4 * (9000 * 2 / 9) ** 0.5


def test_permute_gives_every_row_once(out):
    rows = np.arange(12).reshape(6, 2)
    with Run(arguments(out)) as run:
        orders = [run.permute(jt.array(rows)).numpy() for _ in range(20)]
    assert all(sorted(order.tolist()) == rows.tolist() for order in orders)
    assert len({order.tobytes() for order in orders}) > 10


def test_fixed_noise_is_the_same_at_each_call(out):
    with Run(arguments(out)) as run:
        one = run.fixed_noise("uniform", 3, 2)
        run.normal(5)
        assert np.array_equal(one, run.fixed_noise("uniform", 3, 2))
        assert run.fixed_rng().random() == run.fixed_rng().random()
    assert (one.shape, one.dtype) == ((3, 2), np.float32)


def test_samples_do_not_disturb_the_training(out):
    draws = []
    for draws_samples in (False, True):
        with Run(arguments(out)) as run:
            if draws_samples:
                run.fixed_noise("normal", 5, 2)
                run.fixed_rng().random(5)
            draws.append(run.normal(3).tolist())
    assert draws[0] == draws[1]


# ---- when it saves ----


@pytest.fixture
def saves(monkeypatch):
    """A list that gets (step, epoch) of each checkpoint that is written."""
    written = []
    real_save = checkpoint.save

    def save(path, parts, meta):
        written.append((meta["step"], meta["epoch"]))
        real_save(path, parts, meta)

    monkeypatch.setattr(checkpoint, "save", save)
    return written


def train_for(out, *flags):
    """Trains on six numbers in batches of two: three steps an epoch."""
    with Run(arguments(out, *flags)) as run:
        return train(run)


def test_it_saves_at_the_interval_and_at_the_end(out, saves):
    train_for(out, "--n_epochs", 5, "--checkpoint_interval", 2)
    assert saves == [(6, 2), (12, 4), (15, 5)]


def test_it_saves_within_an_epoch_if_the_last_checkpoint_is_old(out, saves, monkeypatch):
    clock = iter(range(0, 10000, 100))  # each look at the clock is 100 seconds after the last
    monkeypatch.setattr(common.run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(common.run, "CHECKPOINT_SECONDS", 250)
    train_for(out, "--n_epochs", 5, "--checkpoint_interval", 100)
    # It looks at the run's start, after each step and at each checkpoint.
    assert saves == [(3, 0), (6, 1), (9, 2), (12, 3), (15, 4), (15, 5)]


def test_the_newest_numbered_checkpoints_are_kept(out):
    train_for(out, "--n_epochs", 5, "--keep", 2)
    names = sorted(file.name for file in out.glob("checkpoint*"))
    assert names == [
        "checkpoint_last.npz",
        "checkpoint_step_0000012.npz",
        "checkpoint_step_0000015.npz",
    ]
    assert (out / names[0]).read_bytes() == (out / names[2]).read_bytes()
    assert checkpoint.Reader(out / names[1]).meta["epoch"] == 4


def test_without_keep_there_is_one_checkpoint(out):
    train_for(out, "--n_epochs", 2)
    assert [file.name for file in out.glob("checkpoint*")] == ["checkpoint_last.npz"]


def stop_after(monkeypatch, step):
    """Each later run gets a SIGTERM in this step."""
    real_begin = Run.begin_step

    def begin_step(run, arrays):
        real_begin(run, arrays)
        if run.step == step:
            run.on_signal(signal.SIGTERM, None)

    monkeypatch.setattr(Run, "begin_step", begin_step)


@pytest.mark.parametrize("step", range(1, 7))
def test_a_stopped_run_continues_where_it_was(out, tmp_path, step, monkeypatch):
    whole = train_for(tmp_path / "whole", "--n_epochs", 2)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        stop_after(patch, step)
        train_for(out, "--n_epochs", 2)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert meta(out)["step"] == step
    assert train_for(out, "--resume", out) == whole


@pytest.mark.parametrize("n", [4, 8])
def test_data_that_have_changed_within_an_epoch(out, n, monkeypatch, capsys):
    """Nothing is damaged, and the line says what has changed."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_after(patch, 2)
        train_for(out)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped, Run(arguments(out, "--resume", out)) as run:
        train(run, Numbers(n))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"x.py: error: the data set has {n} images, and had 6 when {out}/checkpoint_last.npz was "
        "saved within an epoch: give the same data, or start with --init_from\n"
    )


def test_data_that_have_changed_between_epochs(out, capsys):
    train_for(out)
    with Run(arguments(out, "--resume", out, "--n_epochs", 2)) as run:
        train(run, Numbers(4))
    assert capsys.readouterr().err == (
        "warning: the data set has 4 images, and had 6 at the last checkpoint\n"
    )
    assert meta(out)["step"] == 5


def test_a_stop_says_how_to_continue(out, monkeypatch, capsys):
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit):
        train_for(out)
    line = capsys.readouterr().err.strip()
    assert line == f"Stopped at step 2 and saved; continue with --resume {out}"


# ---- lengths in images ----


@pytest.mark.parametrize(
    ("n_images", "step", "epoch"), [(1, 1, 0), (5, 3, 1), (6, 3, 1), (7, 4, 1), (12, 6, 2)]
)
def test_it_stops_at_the_first_step_that_reaches_the_images(out, n_images, step, epoch):
    """Three steps of two images are an epoch, whatever --n_epochs says."""
    lines = train_for(out, "--n_images", n_images, "--n_epochs", 1)
    assert [line[2] for line in lines] == list(range(1, step + 1))
    stored = meta(out)
    assert (stored["step"], stored["n_images"], stored["epoch"]) == (step, 2 * step, epoch)


@pytest.mark.parametrize("n_images", range(1, 15))
def test_more_images_continue_within_the_epoch(out, tmp_path, n_images):
    whole = train_for(tmp_path / "whole", "--n_images", 14)
    train_for(out, "--n_images", n_images)
    assert train_for(out, "--resume", out, "--n_images", 14) == whole


@pytest.mark.parametrize("step", range(1, 5))
def test_a_stopped_run_of_images_continues_where_it_was(out, tmp_path, step, monkeypatch):
    whole = train_for(tmp_path / "whole", "--n_images", 8)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_after(patch, step)
        train_for(out, "--n_images", 8)
    assert meta(out)["n_images"] == 2 * step
    assert train_for(out, "--resume", out) == whole
    assert meta(out)["epoch"] == 1


@pytest.mark.parametrize("n_images", [6, 8])
def test_a_stop_in_the_last_step_still_runs_the_end_of_the_epoch(out, n_images, monkeypatch):
    """A page may validate there, and a resumed run, which is over, would not."""
    ends = []
    stop_after(monkeypatch, n_images // 2)
    with pytest.raises(SystemExit), Run(arguments(out, "--n_images", n_images)) as run:
        data = Numbers()
        for epoch in run.epochs():
            for _ in run.batches(data):
                pass
            ends.append(epoch)
    assert ends == list(range(1, 1 + -(-n_images // 6)))


def test_a_finished_run_says_so(out, capsys):
    train_for(out, "--n_images", 4)
    capsys.readouterr()
    train_for(out, "--resume", out)
    assert "already trained for 0 epochs; a larger --n_epochs (or --n_images)" in (
        capsys.readouterr().out
    )


# ---- losses ----


def test_losses_are_read_at_the_interval_and_keep_their_last_value(out):
    data = Numbers()
    seen = []
    with Run(arguments(out, "--log_interval", 2)) as run:
        for _ in run.epochs():
            for _ in run.batches(data):
                losses = {"loss_D": jt.array([float(run.step)])}
                if run.step == 1:
                    losses["loss_G"] = jt.array([10.0])
                run.log(losses)
                seen.append(dict(run.losses))
    assert seen == [{}, {"loss_D": 2.0, "loss_G": 10.0}, {"loss_D": 2.0, "loss_G": 10.0}]
    assert run.losses == {"loss_D": 3.0, "loss_G": 10.0}  # the last save reads them
    lines = (out / "losses.csv").read_text().split()
    assert lines == ["step,epoch,loss_D,loss_G", "2,1,2.0,10.0"]


def test_a_loss_that_is_not_finite_names_its_step(out, capsys):
    data = Numbers()
    with pytest.raises(SystemExit) as stopped, Run(arguments(out)) as run:
        for _ in run.epochs():
            for _ in run.batches(data):
                run.log({"loss": jt.array([float("nan") if run.step == 2 else 1.0])})
    assert stopped.value.code == 3
    assert capsys.readouterr().err == "x.py: error: loss is nan at step 2; a lower --lr may help\n"
    assert not (out / "checkpoint_last.npz").exists()


def test_the_watch_sees_what_was_read(out, capsys):
    data = Numbers()
    n_epochs = 1 + PATIENCE // 3
    with Run(arguments(out, "--n_epochs", n_epochs)) as run:
        for _ in run.epochs():
            for _ in run.batches(data):
                run.log({"loss_D": jt.array([0.0])})
    assert capsys.readouterr().err.count("the discriminator has won: loss_D") == 1


def test_every_counts_steps(out):
    data = Numbers()
    with Run(arguments(out)) as run:
        for _ in run.epochs():
            steps = [run.step for _ in run.batches(data) if run.every(2)]
    assert steps == [2]


# ---- pictures and samples ----


class Noise:
    """A data set of 60 images of uniform noise, (1, 4, 4) in [-1, 1]."""

    images = np.random.default_rng(0).uniform(-1, 1, (60, 1, 4, 4)).astype(np.float32)

    def __len__(self):
        return len(self.images)

    def batch(self, indices, seeds):
        return (self.images[indices],)


def collapses(capsys):
    return capsys.readouterr().err.count("have collapsed")


def test_a_grid_is_written_under_its_step_and_watched(out, capsys):
    """An image counts as real once the run has seen 50."""
    samples = Noise.images[:10]
    with Run(arguments(out, "--batch_size", 50)) as run:
        for _ in run.epochs():
            for _ in run.batches(Noise()):
                run.save_grid(samples)
                run.save_grid(jt.array(samples))
                assert collapses(capsys) == 0
                run.save_grid(0.09 * samples, to="result.png")  # not watched
                assert collapses(capsys) == 0
                run.save_grid(jt.array(0.09 * samples), nrow=5, padding=1)
                assert collapses(capsys) == 1
                run.save_grid(0.09 * samples)  # warned of already
                assert collapses(capsys) == 0
    assert Image.open(out / "samples/step_0000001.png").size == (10 * 6 + 2, 6 + 2)
    assert Image.open(out / "result.png").size == (10 * 6 + 2, 6 + 2)


def test_a_grid_may_have_its_own_watched_samples(out, capsys):
    """Images that are drawn from one input each may be as equal as their inputs."""
    samples = Noise.images[:10]
    with Run(arguments(out, "--batch_size", 50)) as run:
        for _ in run.epochs():
            for _ in run.batches(Noise()):
                run.save_grid(0.09 * samples, nrow=5, padding=1, watched=samples)
    assert collapses(capsys) == 0
    assert Image.open(out / "samples/step_0000001.png").size == (5 * 5 + 1, 2 * 5 + 1)


def test_rows_are_compared_with_the_first(out, capsys):
    real = Noise.images[:5]
    grey = np.concatenate([real, real, real], axis=1)  # one of the rows in colour
    with Run(arguments(out)) as run:
        run.save_rows(real, 0.2 * grey)
        run.save_rows(real, real, 0.09 * real, to="result.png", columns=True)  # not watched
        assert collapses(capsys) == 0
        run.save_rows(real, real, 0.09 * real)
        assert collapses(capsys) == 1
    assert Image.open(out / "samples/step_0000000.png").size == (5 * 6 + 2, 3 * 6 + 2)
    assert Image.open(out / "result.png").size == (3 * 6 + 2, 5 * 6 + 2)


def test_points_are_written_as_a_picture(out):
    points = np.random.default_rng(0).normal(size=(30, 3))
    with Run(arguments(out)) as run:
        run.save_scatter(points, np.arange(30) % 10, to="latent.png")
        run.save_scatter(points[:, :1], None, to="line.png")
    assert Image.open(out / "latent.png").size == (600, 500)
    assert Image.open(out / "line.png").size == (600, 500)


def test_samples_and_their_conditions_are_stored(out, tmp_path):
    args = arguments(out)
    args.samples_dir = str(tmp_path / "png")
    samples = np.float32([-1, 0, 1]).reshape(3, 1, 1, 1)
    with Run(args) as run:
        run.save_samples(jt.array(samples), labels=np.arange(3))
    with np.load(out / "samples.npz") as file:
        stored = dict(file)
    assert stored["images"].ravel().tolist() == [0, 128, 255]
    assert (stored["images"].shape, stored["images"].dtype) == ((3, 1, 1, 1), np.uint8)
    assert stored["labels"].tolist() == [0, 1, 2]
    assert sorted(file.name for file in (tmp_path / "png").iterdir()) == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]


# ---- --export_pkl ----


def train_two_networks(run):
    """One network has an average, whose weights differ from its own; one has none."""
    first = nn.Linear(2, 1)
    second = nn.Linear(3, 1)
    parts = {"first": first, "second": second, "averaged": EMA(first, 0.5)}
    run.checkpoint(**parts)
    run.restore()
    data = Numbers()
    for _ in run.epochs():
        for _ in run.batches(data):
            first.weight.update(first.weight + 1)
            parts["averaged"].update()
    return parts


def exported(folder):
    """{network: {name: array}} of the files of --export_pkl."""
    networks = {}
    for file in folder.glob("*.pkl"):
        weights = jt.load(str(file))
        networks[file.name] = {name: np.asarray(value) for name, value in weights.items()}
    return networks


def assert_exported(folder, parts):
    """The average of the network that has one, and the other network as it is."""
    found = exported(folder)
    assert sorted(found) == ["first_last.pkl", "second_last.pkl"]
    averaged = parts["averaged"].module.state_dict()
    for name, value in found["first_last.pkl"].items():
        assert np.array_equal(value, averaged[name].numpy())
    for name, value in found["second_last.pkl"].items():
        assert np.array_equal(value, parts["second"].state_dict()[name].numpy())
    weight = parts["first"].weight.numpy()
    assert not np.array_equal(found["first_last.pkl"]["weight"], weight)


def test_each_network_or_its_average_is_exported(out):
    with Run(arguments(out, "--export_pkl")) as run:
        parts = train_two_networks(run)
    assert_exported(out, parts)


def test_nothing_is_exported_without_the_flag(out):
    with Run(arguments(out)) as run:
        train_two_networks(run)
    assert exported(out) == {}


def test_a_finished_run_can_be_exported(out, tmp_path):
    with Run(arguments(out)) as run:
        parts = train_two_networks(run)
    flags = ["--resume", out, "--export_pkl"]
    with Run(arguments(tmp_path / "again", *flags)) as run:
        train_two_networks(run)
    assert_exported(tmp_path / "again", parts)


def test_without_an_average_the_network_itself_is_exported(out):
    """With --ema_decay 0 there is an EMA object that averages nothing."""
    with Run(arguments(out, "--export_pkl")) as run:
        network = nn.Linear(2, 1)
        run.checkpoint(network=network, averaged=EMA(network, 0))
        run.restore()
        for _ in run.epochs():
            for _ in run.batches(Numbers()):
                pass
    assert list(exported(out)) == ["network_last.pkl"]
    assert np.array_equal(exported(out)["network_last.pkl"]["weight"], network.weight.numpy())
