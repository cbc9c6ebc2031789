"""The shared command line: numbers within limits, what is stored, --paper, the schedule of a rate, sizes."""

from common import Parser, Run, number
from common.checkpoint import FILE_NAME

import json

import numpy as np
import pytest


def parser(starts_from="noise", decays=False):
    made = Parser(
        "x",
        "Doc.",
        {"lr": 0.5, "width": 64},
        architecture=("img_size", "width"),
        starts_from=starts_from,
    )
    made.set_defaults(n_epochs=4, batch_size=2, lr=0.1, b1=0.5, b2=0.9, img_size=8, channels=1)
    made.set_defaults(sample_interval=1, checkpoint_interval=1, log_interval=1)
    made.add_argument("--width", type=number(int, at_least=1), default=16)
    made.add_argument("--flip", action="store_true")
    made.add_argument("--names", nargs="+", default=["a"])
    if decays:
        made.add_decay(2)
    return made


def parse(*flags, **options):
    return parser(**options).parse([str(flag) for flag in flags])


@pytest.fixture
def saved(tmp_path):
    """A function that leaves the checkpoint of a run with these flags, and gives its folder."""

    def save(*flags, **options):
        args = parse("--out_dir", tmp_path / "run", *flags, **options)
        with Run(args) as run:
            run.track()
            run.save()
        return tmp_path / "run"

    return save


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
    read = number(kind, **limits)
    if value is None:
        with pytest.raises(Exception, match="must be a"):
            read(text)
    else:
        assert read(text) == value
        assert type(read(text)) is kind


def test_out_dir_defaults_to_results_or_to_the_resumed_run(saved, tmp_path):
    assert parse().out_dir == "results/x"
    assert (
        parse("--out_dir", "~/y").out_dir.endswith("/y")
        and "~" not in parse("--out_dir", "~/y").out_dir
    )
    folder = saved()
    assert parse("--resume", folder).out_dir == str(folder)
    assert parse("--resume", folder / FILE_NAME, "--out_dir", tmp_path / "z").out_dir == str(
        tmp_path / "z"
    )
    assert parse("--init_from", folder).out_dir == "results/x"


def test_what_is_of_the_call_is_not_stored():
    stored = parse(
        "--seed", 3, "--n_samples", 9, "--samples_dir", "y", "--export_pkl", "--paper"
    ).stored
    assert stored["seed"] == 3
    of_the_call = {
        "out_dir",
        "n_samples",
        "samples_dir",
        "export_pkl",
        "resume",
        "init_from",
        "device",
        "help",
    }
    assert not (of_the_call | {"paper", "describe", "sample_only", "download", "input"}) & set(
        stored
    )


def test_resume_restores_what_the_command_line_leaves_open(saved):
    folder = saved("--lr", 0.25, "--seed", 7, "--flip", "--names", "b", "c", "--width", 3)
    args = parse("--resume", folder, "--seed", 8)
    assert (args.lr, args.seed, args.flip, args.names, args.width) == (0.25, 8, True, ["b", "c"], 3)
    assert args.stored["seed"] == 8


def test_init_from_takes_the_architecture_alone(saved):
    args = parse("--init_from", saved("--lr", 0.25, "--seed", 7, "--flip", "--width", 3))
    assert (args.lr, args.seed, args.flip, args.width) == (0.1, 0, False, 3)
    assert args.init_from.endswith(FILE_NAME) and args.resume is None


def test_init_from_can_begin_the_papers_run(saved):
    """--paper chooses the numbers; where it contradicts the checkpoint's architecture, the checkpoint's stands."""
    args = parse("--init_from", saved("--width", 3), "--paper")
    assert (args.lr, args.width) == (0.5, 3)


def line(capsys, *flags, **options):
    with pytest.raises(SystemExit) as stopped:
        parse(*flags, **options)
    assert stopped.value.code == 2
    (text,) = capsys.readouterr().err.splitlines()
    return text


@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
def test_a_contradicted_architecture_names_both_values(saved, capsys, flag):
    text = line(capsys, flag, saved("--width", 3), "--width", 4)
    assert "--width 4 contradicts" in text and "width 3" in text
    assert parse(flag, saved("--width", 3), "--width", 3).width == 3


def test_paper_and_a_flag():
    assert (parse("--paper").lr, parse("--paper").width, parse("--paper").n_epochs) == (0.5, 64, 4)
    for flags in (("--paper", "--lr", 0.125), ("--lr", 0.125, "--paper")):
        assert (parse(*flags).lr, parse(*flags).width) == (0.125, 64)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sample_only"], "--sample_only needs --resume"),
        (["--samples_dir", "y"], "--samples_dir needs --n_samples"),
        (["--resume", "no/such"], "no checkpoint at no/such"),
        (["--init_from", "no/such"], "no checkpoint at no/such"),
        (["--input", "y"], "unrecognized arguments: --input"),
    ],
)
def test_calls_that_mean_nothing(capsys, flags, message):
    assert message in line(capsys, *flags)


def test_calls_that_mean_nothing_for_images(capsys):
    assert "--input needs --sample_only and --resume" in line(
        capsys, "--input", "y", starts_from="images"
    )
    for flag in ("--n_samples", "--samples_dir", "--download"):
        assert f"unrecognized arguments: {flag}" in line(capsys, flag, "1", starts_from="images")


@pytest.mark.parametrize("other", ["--paper", "--init_from"])
def test_resume_begins_nothing(saved, capsys, other):
    folder = saved()
    text = line(capsys, "--resume", folder, other, *([folder] if other == "--init_from" else []))
    assert "--resume goes on with a run as it is" in text and other in text


def test_another_scripts_checkpoint(saved, capsys):
    folder, other = saved(), Parser("y", "Doc.", {}, architecture=())
    with pytest.raises(SystemExit):
        other.parse(["--resume", str(folder)])
    assert "was written by x.py, not by y.py" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "nearest"), [(9, 8), (13, 16), (100, 32), (1, 8)])
def test_sizes_of_a_list(capsys, size, nearest):
    checks = parser()
    checks.one_of(checks.parse(["--img_size", "16"]), "img_size", (8, 16, 32))
    with pytest.raises(SystemExit):
        checks.one_of(checks.parse(["--img_size", str(size)]), "img_size", (8, 16, 32))
    assert capsys.readouterr().err.endswith(
        f"--img_size {size}: it must be 8, 16 or 32; nearest is {nearest}\n"
    )


@pytest.mark.parametrize(("size", "below", "above"), [(18, 16, 20), (4, 8, 12), (9, 8, 12)])
def test_sizes_by_a_factor(capsys, size, below, above):
    checks = parser()
    for good in ("8", "20"):
        checks.multiple_of(checks.parse(["--img_size", good]), "img_size", 4, at_least=8)
    with pytest.raises(SystemExit):
        checks.multiple_of(checks.parse(["--img_size", str(size)]), "img_size", 4, at_least=8)
    assert f"must be a multiple of 4, such as {below} or {above}" in capsys.readouterr().err


# ---- a rate that falls ----


def test_a_rate_falls_until_the_last_epoch():
    args = parse(decays=True)
    assert (args.decay_epoch, args.decay_until) == (2, 4)
    assert args.stored["decay_until"] == 4
    assert parse("--decay_until", 3, decays=True).decay_until == 3
    assert "decay_until" not in parse()


def test_a_resumed_run_keeps_its_schedule_and_says_so(saved, capsys):
    folder = saved(decays=True)
    capsys.readouterr()
    args = parse("--resume", folder, "--n_epochs", 9, decays=True)
    assert (args.n_epochs, args.decay_until, args.stored["decay_until"]) == (9, 4, 4)
    assert "has fallen until epoch 4 and stays there; --decay_until 9" in capsys.readouterr().out
    assert (
        parse("--resume", folder, "--n_epochs", 9, "--decay_until", 9, decays=True).decay_until == 9
    )
    parse("--resume", folder, decays=True)
    assert "learning rate" not in capsys.readouterr().out


def test_a_rate_that_has_not_begun_to_fall_falls_over_the_longer_run(saved):
    folder = saved("--n_epochs", 1, decays=True)
    assert parse("--resume", folder, "--n_epochs", 9, decays=True).decay_until == 9


def test_a_switch_of_an_earlier_version(saved, capsys):
    """One that was off is gone without a trace; one that was on is an error that names it."""
    for value in (False, True):
        with np.load(saved() / FILE_NAME) as file:
            arrays = dict(file)
        text = json.loads(arrays["meta"].tobytes())
        text["args"]["no_augment"] = value
        path = saved() / "older.npz"
        np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(text).encode(), np.uint8)})
        if value:
            assert "a setting that this version does not know: no_augment" in line(
                capsys, "--resume", path
            )
        else:
            assert "no_augment" not in vars(parse("--resume", path))


def test_every_stored_value_survives_the_way_through_the_file(saved):
    """Numbers come back as the same numbers, to the last bit."""
    rate = float(np.nextafter(0.1, 1))
    assert parse("--resume", saved("--lr", rate)).lr == rate
