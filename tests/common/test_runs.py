"""What must hold for every script's runs: exact resuming, seeds, what is stored.

By default on the four scripts of `registry.ARCHETYPES`, on all others with `-m slow`.
"""

import common
import common.run
from common import checkpoint
from common.log import Log

import csv
import errno
import json
import os
import shutil
import signal

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import (
    EVERY_SCRIPT,
    NOISE,
    ROWS,
    assert_same_run,
    differences,
    load,
    meta,
    pictures,
    run,
    saved_arrays,
)

from jittor_fast import nn

every_script = pytest.mark.parametrize("name", EVERY_SCRIPT)
# For what no method changes: from noise, with pools and two of each network, of phases.
some_scripts = pytest.mark.parametrize("name", ["dcgan", "cyclegan", "stackgan"])
WHOLE = 8  # steps of a whole run
N_STEPS = 4  # of an epoch


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """losses.png takes a third of a small run, and has tests of its own."""
    monkeypatch.setattr(Log, "plot", lambda log, pause=0.0: None)


def before_step(monkeypatch, name, act):
    """Calls act(n, arguments) before a script's n-th training step.

    Tuples and lists among the step's arguments are given as their members.
    """
    script = load(name)
    real_step = script.train_step
    n_calls = 0

    def step(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        flat = []
        for value in [*args, *kwargs.values()]:
            flat += value if isinstance(value, (tuple, list)) else [value]
        act(n_calls, flat)
        return real_step(*args, **kwargs)

    monkeypatch.setattr(script, "train_step", step)


class Seen(BaseException):
    """Ends a run as a kill would: nothing catches it, nothing is saved."""


# ---- stopping and resuming ----


@every_script
def test_resuming_equals_an_undisturbed_run(name, tiny, tmp_path):
    out = shutil.copytree(tiny.half, tmp_path / "out")
    run(name, "--resume", out, "--n_epochs", 2)
    assert_same_run(tiny.whole, out)


def assert_a_stop_loses_nothing(name, tiny, tmp_path, monkeypatch, n_steps):
    def stop(n, _):
        if n == n_steps:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        before_step(patch, name, stop)
        run(name, *tiny.flags, "--out_dir", tmp_path)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert meta(tmp_path)["step"] == n_steps
    run(name, "--resume", tmp_path)
    assert_same_run(tiny.whole, tmp_path)


@every_script
def test_a_stop_after_the_first_step_loses_nothing(name, tiny, tmp_path, monkeypatch):
    """Where some optimizers have not had their first update."""
    assert_a_stop_loses_nothing(name, tiny, tmp_path, monkeypatch, 1)


@some_scripts
@pytest.mark.parametrize("n_steps", [4, 5])
def test_a_stop_around_the_end_of_an_epoch(name, tiny, tmp_path, monkeypatch, n_steps):
    """After its last step, and after the next one's first."""
    assert_a_stop_loses_nothing(name, tiny, tmp_path, monkeypatch, n_steps)


@every_script
def test_a_kill_in_the_middle_of_an_epoch_loses_no_saved_step(name, tiny, tmp_path, monkeypatch):
    """With a checkpoint after every step, only the step of the kill is lost."""

    def kill(n, _):
        if n == 7:
            raise Seen

    monkeypatch.setattr(common.run, "CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patch, pytest.raises(Seen):
        before_step(patch, name, kill)
        run(name, *tiny.flags, "--out_dir", tmp_path)
    assert (meta(tmp_path)["step"], meta(tmp_path)["epoch"]) == (6, 1)
    run(name, "--resume", tmp_path)
    assert_same_run(tiny.whole, tmp_path)


@some_scripts
def test_a_numbered_checkpoint_resumes_as_the_last_one(name, tiny, tmp_path):
    run(name, *tiny.flags, "--keep", 2, "--out_dir", tmp_path / "kept")
    numbered = sorted((tmp_path / "kept").glob("checkpoint_step_*.npz"))
    assert [file.name for file in numbered] == [
        f"checkpoint_step_{step:07d}.npz" for step in (N_STEPS, WHOLE)
    ]
    run(name, "--resume", numbered[0], "--out_dir", tmp_path / "resumed")
    assert differences(tiny.whole, tmp_path / "resumed") == []


@every_script
def test_a_rate_that_has_fallen_stays_down(name, tiny, tmp_path, monkeypatch, capsys):
    """Resumed for more epochs, a run whose rate has fallen stays slow."""
    if "decay_until" not in load(name).parse_args([]):
        pytest.skip("its rate does not fall")
    rates = []

    def see(n, args):
        (rate,) = {x.lr for x in args if isinstance(x, jt.optim.Optimizer)}
        rates.append(rate)

    before_step(monkeypatch, name, see)
    run(name, *tiny.flags, "--decay_epoch", 1, "--lr", 0.01, "--out_dir", tmp_path)
    assert "learning rate has fallen" not in capsys.readouterr().out
    run(name, "--resume", tmp_path, "--n_epochs", 4)
    assert (
        "The learning rate has fallen until epoch 2 and stays there; --decay_until 4"
        in capsys.readouterr().out
    )
    assert meta(tmp_path)["args"]["decay_until"] == 2
    per_epoch = [set(rates[i : i + N_STEPS]) for i in range(0, 4 * N_STEPS, N_STEPS)]
    assert [len(rates), *map(len, per_epoch)] == [4 * N_STEPS, 1, 1, 1, 1]
    first, second, third, fourth = (rate for epoch in per_epoch for rate in epoch)
    assert first == 0.01 > second == third == fourth > 0


@every_script
def test_a_finished_run_says_so(name, tiny, tmp_path, capsys):
    run(name, "--resume", tiny.half, "--out_dir", tmp_path)
    assert "already trained for 1 epochs" in capsys.readouterr().out


# ---- seeds ----


@every_script
def test_the_seed_decides(name, tiny, tmp_path):
    for folder, seed in (("same", 0), ("other", 1)):
        run(name, *tiny.flags, "--n_epochs", 1, "--out_dir", tmp_path / folder, "--seed", seed)
    assert_same_run(tiny.half, tmp_path / "same")
    one = pictures(tiny.half)
    other = pictures(tmp_path / "other")
    assert one.keys() == other.keys()
    assert [file for file in one if one[file] == other[file]] == []
    changed = differences(tiny.half, tmp_path / "other")
    for key, value in saved_arrays(tiny.half).items():
        # Moments that are still 0, of an optimizer that has not run, are equal.
        if value.size > 10 and value.ndim > 1 and value.any():
            assert key in changed


def first_step(monkeypatch, name, argv):
    """What a run draws until its first step: weights, inputs, and a dropout mask."""
    seen = {}

    def see(n, args):
        modules = [x for x in args if isinstance(x, jt.nn.Module)]
        seen["weights"] = [
            p.numpy() for m in modules for n, p in m.named_parameters() if n.endswith("weight")
        ]
        seen["inputs"] = [x.numpy() for x in args if isinstance(x, jt.Var)]
        seen["dropout"] = [nn.Dropout(0.5)(jt.ones((4, 100))).numpy()]
        raise Seen

    with monkeypatch.context() as patch, pytest.raises(Seen):
        before_step(patch, name, see)
        run(name, *argv)
    return seen


@every_script
def test_the_seed_reaches_everything(name, tiny, tmp_path, monkeypatch):
    one, same, other = (
        first_step(monkeypatch, name, [*tiny.flags, "--seed", seed, "--out_dir", tmp_path])
        for seed in (0, 0, 1)
    )
    for what, arrays in one.items():
        assert arrays
        assert all(np.array_equal(a, b) for a, b in zip(arrays, same[what]))
        for a, b in zip(arrays, other[what]):
            constant = a.min() == a.max()  # the scale of a norm begins at 1, whatever the seed
            assert constant or a.size < 10 or not np.array_equal(a, b), what


@every_script
def test_the_seed_reaches_the_augmentation(name, tiny, tmp_path, monkeypatch):
    """On a folder of equal images, whose order does not show."""
    if not ROWS[name].augments:
        pytest.skip("it augments nothing, or by mirroring alone")
    data = shutil.copytree(tiny.data, tmp_path / "data")
    files = sorted(data.rglob("*.png"))
    for file in files[1:]:
        shutil.copy(files[0], file)
    flags = [*tiny.flags, "--data_dir", data, "--out_dir", tmp_path / "out"]
    still = ["--no_crop", "--no_flip"]
    inputs = [
        first_step(monkeypatch, name, [*flags, "--seed", seed, *more])["inputs"][0]
        for seed, more in ((0, []), (1, []), (0, still), (1, still))
    ]
    assert not np.array_equal(inputs[0], inputs[1])
    assert np.array_equal(inputs[2], inputs[3])


# ---- what is stored ----


@every_script
def test_what_is_stored_is_what_ran(name, tiny, tmp_path, monkeypatch):
    """Intervals that divide nothing, and a rate that is nobody's default."""
    script = load(name)
    runs = []
    real_train = script.train

    def train(run, args):
        runs.append((run, args))
        return real_train(run, args)

    monkeypatch.setattr(script, "train", train)
    given = {"log_interval": 3, "sample_interval": 5, "lr": 0.00037, "seed": 11}
    if "b2" in script.parse_args([]):
        given["b2"] = 0.97
    flags = [word for flag, value in given.items() for word in (f"--{flag}", value)]
    run(name, *tiny.flags, *flags, "--out_dir", tmp_path)
    ((ran, args),) = runs
    stored = json.loads((tmp_path / "config.json").read_text())["args"]
    assert stored == meta(tmp_path)["args"]
    assert {flag: stored[flag] for flag in given} == given
    assert {flag: getattr(args, flag) for flag in stored} == stored
    for part_name, part in ran.parts.items():
        if isinstance(part, jt.optim.Optimizer) and part_name not in ROWS[name].own:
            share = ROWS[name].lazy.get(part_name, 1)
            rate = share * given["lr"] * ROWS[name].rates.get(part_name, 1)
            # gan.py's rate falls by 4e-6 of itself in each step.
            assert part.lr == pytest.approx(rate, rel=1e-4)
            assert all(group.get("lr", part.lr) == part.lr for group in part.param_groups)
            if isinstance(part, jt.nn.Adam):
                assert part.betas == (stored["b1"] ** share, given["b2"] ** share)
    with open(tmp_path / "losses.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["step_0000005.png"]


@every_script
def test_every_loss_is_logged_by_itself(name, tiny):
    """From the first step that has it on; earlier lines leave it empty."""
    with open(tiny.whole / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, WHOLE + 1))
    assert set(rows[0]) - {"step", "epoch"} == ROWS[name].losses
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row.values())
    late = {loss for loss in ROWS[name].losses if rows[0][loss] == ""}
    n_critic = meta(tiny.whole)["args"].get("n_critic", 1)
    assert bool(late) == (n_critic > 1)


@every_script
def test_exports_are_the_networks(name, tiny):
    """Each network's weights, or its average if it has one, for `jt.load`."""
    networks = ROWS[name].networks
    written = {file.name.removesuffix("_last.pkl") for file in tiny.half.glob("*.pkl")}
    assert written == set(networks)
    arrays = saved_arrays(tiny.half)
    for network, part in networks.items():
        weights = jt.load(str(tiny.half / f"{network}_last.pkl"))
        assert weights
        for key, value in weights.items():
            assert np.array_equal(np.asarray(value), arrays[f"{part}/{key}"]), key


@some_scripts
@pytest.mark.parametrize("flags", [[], ["--sample_only"]])
def test_a_finished_run_can_be_exported(name, tiny, tmp_path, flags):
    """Also with --sample_only, then of the networks that it loads."""
    run(name, "--resume", tiny.half, "--export_pkl", "--out_dir", tmp_path, *flags)
    files = sorted(tmp_path.glob("*.pkl"))
    assert files
    if not flags:
        assert len(files) == len(ROWS[name].networks)
    for file in files:
        expected = jt.load(str(tiny.half / file.name))
        found = jt.load(str(file))
        assert expected.keys() == found.keys()
        for key, value in found.items():
            assert np.array_equal(np.asarray(value), np.asarray(expected[key])), key


@every_script
def test_fine_tuning_takes_the_weights_alone(name, tiny, tmp_path, monkeypatch):
    """--init_from: the checkpoint's weights, step 0, fresh optimizers and averages."""
    runs = []
    real_restore = common.Run.restore

    def restore(run):
        real_restore(run)
        runs.append(run)
        raise Seen

    monkeypatch.setattr(common.Run, "restore", restore)
    flags = ["--data_dir", tiny.data, "--batch_size", 5, "--out_dir", tmp_path / "out", "--seed", 5]
    with pytest.raises(Seen):  # without a flag of the architecture, which the checkpoint gives
        run(name, "--init_from", tiny.half, *flags)
    (tuned,) = runs
    assert (tuned.step, tuned.epoch, tuned.losses, tuned.args.seed) == (0, 0, {}, 5)
    assert tuned.args.img_size == meta(tiny.half)["args"]["img_size"]
    arrays = saved_arrays(tiny.half)
    for part_name, part in tuned.parts.items():
        state = checkpoint.get_state(part)
        if isinstance(part, common.EMA):
            assert state.pop("n_updates") == 0
        for key, value in state.items():
            if isinstance(part, jt.nn.Module):
                assert np.array_equal(value, arrays[f"{part_name}/{key}"]), key
            elif isinstance(part, jt.optim.Optimizer):
                assert not np.any(value), key
            elif isinstance(part, common.EMA):
                assert np.array_equal(value, part.source.state_dict()[key].numpy()), key


# ---- what goes wrong in a run ----


@some_scripts
def test_a_disk_that_is_full(name, tiny, tmp_path, monkeypatch, fails):
    def write_npz(file, arrays):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = shutil.copytree(tiny.half, tmp_path / "out")
    good = (out / checkpoint.FILE_NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_npz", write_npz)
        code, line = fails(load(name).main, ["--resume", out, "--n_epochs", 2])
    assert code == 2
    assert os.strerror(errno.ENOSPC) in line
    assert "the last good one is still" in line
    assert (out / checkpoint.FILE_NAME).read_bytes() == good
    assert not list(out.glob(".*.tmp"))
    run(name, "--resume", out, "--n_epochs", 2)
    assert_same_run(tiny.whole, out)


@some_scripts
def test_a_folder_that_vanishes_is_made_again(name, tiny, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def vanish(n, _):
        if n < WHOLE:
            shutil.rmtree(out, ignore_errors=True)

    before_step(monkeypatch, name, vanish)
    run(name, *tiny.flags, "--out_dir", out)
    assert differences(tiny.whole, out) == []
    assert (out / "losses.csv").read_bytes() == (tiny.whole / "losses.csv").read_bytes()


@every_script
def test_a_picture_that_is_not_finite_stops_the_run(name, tiny, tmp_path, fails):
    """With a picture due long before the losses are read."""
    flags = ["--lr", 1e30, "--log_interval", 50, "--sample_interval", 2, "--n_epochs", 9]
    out = tmp_path / "out"
    code, line = fails(load(name).main, [*tiny.flags, *flags, "--out_dir", out])
    assert code == 3
    assert " at step " in line


@every_script
def test_a_loss_that_is_not_finite_stops_the_run(name, tiny, tmp_path, fails):
    out = shutil.copytree(tiny.half, tmp_path / "out")
    good = (out / checkpoint.FILE_NAME).read_bytes()
    code, line = fails(load(name).main, ["--resume", out, "--lr", 1e30, "--n_epochs", 9])
    assert code == 3
    assert " at step " in line
    assert (out / checkpoint.FILE_NAME).read_bytes() == good


# ---- sampling ----


@every_script
def test_sampling_needs_no_training_data(name, tiny, tmp_path):
    if name not in NOISE:
        pytest.skip("translators are given images; their own tests show it")
    before = (tiny.half / checkpoint.FILE_NAME).read_bytes()
    data = tiny.data.rename(tiny.data.with_name("moved away"))
    try:
        flags = [
            "--sample_only",
            "--n_samples",
            7,
            "--samples_dir",
            tmp_path / "png",
            "--out_dir",
            tmp_path / "out",
        ]
        run(name, "--resume", tiny.half, *flags)
    finally:
        data.rename(tiny.data)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["result.png", "samples.npz"]
    size = meta(tiny.half)["args"]["img_size"]
    with np.load(tmp_path / "out/samples.npz") as samples:
        images = samples["images"]
    assert (images.shape, images.dtype) == ((7, size, size, 1), np.uint8)
    files = sorted((tmp_path / "png").iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(7)]
    assert all(
        np.array_equal(np.asarray(Image.open(f)), image[..., 0]) for f, image in zip(files, images)
    )
    assert (tiny.half / checkpoint.FILE_NAME).read_bytes() == before


@every_script
def test_samples_do_not_disturb_the_training(name, tiny, tmp_path):
    flags = [*tiny.flags, "--n_epochs", 1, "--sample_interval", 1]
    run(name, *flags, *(["--n_samples", 3] if name in NOISE else []), "--out_dir", tmp_path)
    assert len([*(tmp_path / "samples").iterdir()]) == N_STEPS
    assert differences(tiny.half, tmp_path) == []
