"""The command line: limits, groups of flags, what is stored, and what is restored."""

from common import Parser, Run
from common.checkpoint import FILE_NAME
from common.cli import LARGEST_SIZE, MOST_VALUES, HelpFormatter, ToolParser, number, stored

import json

import numpy as np
import pytest
from small_run import make_parser, train

PAPER = {"lr": 0.5, "width": 64}


def parser(decays=False):
    """A script with some flags of each sort."""
    made = make_parser(PAPER)
    made.add_adam(b1=0.5, b2=0.9)
    made.add_sampling()
    made.add_architecture("--img_size", type=int, default=8)
    made.add_architecture("--width", type=int, default=16)
    made.add_architecture("--channels", type=int, default=1, choices=(1, 3))
    made.add_argument("--flip", action="store_true")
    made.add_argument("--names", nargs="+", default=["a"])
    made.add_argument("--labels", nargs="*", help="labels (default: all)")
    made.add_argument("--rates", nargs="+", type=float, help="two rates")
    made.add_argument("--kind", choices=("x", "y"), default="x")
    made.add_argument("--code", type=int, at_least=0, stored=False)
    if decays:
        made.add_decay(decay_epoch=2)
    return made


def parse(*flags, **options):
    return parser(**options).parse([str(flag) for flag in flags])


@pytest.fixture
def saved(tmp_path):
    """A function that leaves the checkpoint of a run with these flags in a folder."""

    def save(*flags, **options):
        args = parse("--out_dir", tmp_path / "run", "--overwrite", *flags, **options)
        with Run(args) as run:
            train(run)
        return tmp_path / "run"

    return save


def line(capsys, *flags, **options):
    """The one line of an error, which ends the call with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*flags, **options)
    assert stopped.value.code == 2
    (text,) = capsys.readouterr().err.splitlines()
    return text


# ---- limits of numbers ----


@pytest.mark.parametrize(
    ("kind", "limits", "text", "value"),
    [
        (int, {"at_least": 1}, "1", 1),
        (int, {"at_least": 1}, "0", None),
        (int, {}, "1.5", None),
        (int, {}, "-7", -7),
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


@pytest.mark.parametrize(
    ("method", "options", "good", "bad", "message"),
    [
        # without limits
        ("add_argument", {"type": int}, ["1", "9999999"], ["0", "-1"], "whole number at least 1"),
        ("add_argument", {"type": float}, ["0", "1e9"], ["-0.1"], "a number at least 0"),
        ("add_architecture", {"type": int}, ["1", "4096"], ["0", "4097"], "1 and at most 4096"),
        ("add_architecture", {"type": float}, ["0", "5000"], ["-1"], "a number at least 0, got"),
        # one limit leaves the others
        ("add_argument", {"type": int, "at_least": 0}, ["0"], ["-1"], "at least 0"),
        (
            "add_argument",
            {"type": int, "at_most": 5},
            ["5"],
            ["0", "6"],
            "at least 1 and at most 5",
        ),
        ("add_argument", {"type": float, "above": 0}, ["0.1"], ["0"], "a number above 0, got"),
        ("add_argument", {"type": float, "below": 1}, ["0", "0.9"], ["1", "-1"], "0 and below 1,"),
        ("add_architecture", {"type": int, "at_least": 0}, ["0", "4096"], ["4097"], "at most 4096"),
        ("add_architecture", {"type": int, "at_most": 9}, ["9"], ["10"], "at most 9"),
        ("add_architecture", {"type": int, "at_most": None}, ["5000"], ["0"], "number at least 1,"),
        ("add_architecture", {"type": float, "below": 1}, ["0"], ["1"], "at least 0 and below 1,"),
        # None takes any number
        (
            "add_argument",
            {"type": int, "at_least": None},
            ["-5", "0"],
            ["x"],
            "a whole number, got",
        ),
        ("add_argument", {"type": float, "at_least": None}, ["-5.5"], ["nan"], "a number, got"),
        # choices and text have no limits
        ("add_argument", {"type": int, "choices": (0, 2)}, ["0", "2"], ["1"], "invalid choice"),
        ("add_argument", {}, ["0", "any text"], [], ""),
        # each value of a list
        ("add_argument", {"type": int, "nargs": "+"}, ["1"], ["0"], "at least 1"),
    ],
)
def test_limits_of_a_scripts_flags(method, options, good, bad, message, capsys):
    def read(text):
        made = make_parser()
        getattr(made, method)("--x", **options)
        return made.parse(["--x", text]).x

    for text in good:
        value = read(text)
        (value,) = value if isinstance(value, list) else [value]
        assert value == options.get("type", str)(text)
    for text in bad:
        with pytest.raises(SystemExit):
            read(text)
        error = capsys.readouterr().err
        assert error.startswith("x.py: error: argument --x: ")
        assert message in error
        assert text in error


def test_a_limit_is_the_architectures_own():
    assert LARGEST_SIZE == 4096
    made = parser()
    assert {"img_size", "width", "channels"} <= made.architecture
    assert not {"names", "kind", "lr"} & made.architecture


# ---- folders and defaults ----


def test_the_output_folder_is_that_of_the_script_or_of_the_resumed_run(saved, tmp_path):
    assert parse().out_dir == "results/x"
    home = parse("--out_dir", "~/y").out_dir
    assert home.endswith("/y")
    assert "~" not in home
    folder = saved()
    assert parse("--resume", folder).out_dir == str(folder)
    assert parse("--init_from", folder).out_dir == "results/x"
    elsewhere = parse("--resume", folder / FILE_NAME, "--out_dir", tmp_path / "z")
    assert elsewhere.out_dir == str(tmp_path / "z")


def test_paper_and_a_flag():
    args = parse("--paper")
    assert (args.lr, args.width, args.n_epochs) == (0.5, 64, 1)
    for flags in (("--paper", "--lr", 0.125), ("--lr", 0.125, "--paper")):
        args = parse(*flags)
        assert (args.lr, args.width) == (0.125, 64)


def test_the_help_names_groups_defaults_and_the_docstring(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "Doc." in text
    for heading in ("architecture (", "method:", "training:", "Adam:", "samples:", "checkpoints:"):
        assert heading in text
    assert "learning rate (default: 0.1)" in text
    assert "labels (default: all)\n" in text


# ---- groups of flags ----


def test_a_script_has_the_groups_that_it_asks_for(capsys):
    bare = make_parser()
    with pytest.raises(SystemExit):
        bare.parse(["--n_samples", "3"])
    assert "unrecognized arguments: --n_samples 3" in capsys.readouterr().err
    assert "b1" not in vars(bare.parse([]))


def test_images_have_a_shape():
    made = make_parser()
    made.add_images(img_size=32, channels=3)
    assert made.parse([]).shape == (32, 32)
    assert made.parse(["--img_size", "64"]).shape == (64, 64)
    assert made.parse(["--img_width", "48"]).shape == (32, 48)
    both = made.parse(["--img_height", "16", "--img_width", "48"])
    assert both.shape == (16, 48)
    assert "shape" not in stored(both)
    assert made.architecture == {"img_size", "img_height", "img_width", "channels"}


def image_line(capsys, *flags):
    made = make_parser()
    made.add_images(img_size=32, channels=1)
    made.add_augmentation()
    made.add_input()
    with pytest.raises(SystemExit) as stopped:
        made.parse([str(flag) for flag in flags])
    assert stopped.value.code == 2
    (text,) = capsys.readouterr().err.splitlines()
    return text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--load_size", 31], "--load_size 31: it must be at least 32, the side of the crop"),
        (["--load_size", 40, "--no_crop"], "drop it or --no_crop"),
        (["--input", "y"], "--input needs --sample_only and --resume"),
        (["--tile", 32], "--tile needs --input"),
        (["--img_size", 4097], "at most 4096"),
        (["--data_dir", "stacked", "--channels", 1], "stacked has 3 channels: drop --channels"),
    ],
)
def test_flags_of_images_that_do_not_fit(capsys, flags, message):
    assert message in image_line(capsys, *flags)


def test_a_crop_of_a_rectangle_needs_its_shorter_side(capsys):
    made = make_parser()
    made.add_images(img_size=32, channels=1)
    made.add_augmentation()
    flags = ["--img_width", "64", "--load_size", "40"]
    assert made.parse(flags).load_size == 40


def test_built_in_colour_images_have_3_channels():
    assert parse("--data_dir", "stacked").channels == 3
    assert parse("--data_dir", "stacked", "--channels", 3).channels == 3
    assert parse("--data_dir", "folder").channels == 1


# ---- calls that contradict themselves ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sample_only"], "--sample_only needs --resume"),
        (["--samples_dir", "y"], "--samples_dir needs --n_samples"),
        (["--resume", "no/such"], "no checkpoint at no/such"),
        (["--init_from", "no/such"], "no checkpoint at no/such"),
        (["--n_epo", "1"], "unrecognized arguments: --n_epo 1"),
    ],
)
def test_calls_that_mean_nothing(capsys, flags, message):
    assert message in line(capsys, *flags)


@pytest.mark.parametrize("other", ["--paper", "--init_from"])
def test_resume_starts_nothing(saved, capsys, other):
    folder = saved()
    more = [folder] if other == "--init_from" else []
    text = line(capsys, "--resume", folder, other, *more)
    assert "--resume continues a run as it is" in text
    assert other in text


@pytest.mark.parametrize(("size", "below", "above"), [(18, 16, 20), (4, 8, 12), (9, 8, 12)])
def test_sizes_that_are_no_multiple(capsys, size, below, above):
    made = parser()
    for good in ("8", "20"):
        made.multiple_of(made.parse(["--img_size", good]), "img_size", 4, at_least=8)
    with pytest.raises(SystemExit):
        made.multiple_of(made.parse(["--img_size", str(size)]), "img_size", 4, at_least=8)
    error = capsys.readouterr().err
    assert f"--img_size {size}: it must be a multiple of 4, such as {below} or {above}" in error


@pytest.mark.parametrize("flag", ["img_size", "img_height", "img_width"])
def test_a_side_that_is_no_multiple(capsys, flag):
    made = make_parser()
    made.add_images(img_size=32, channels=1)
    made.shape_is_multiple_of(made.parse([]), 16, at_least=32)
    with pytest.raises(SystemExit):
        made.shape_is_multiple_of(made.parse([f"--{flag}", "40"]), 16, at_least=32)
    assert f"--{flag} 40: it must be a multiple of 16" in capsys.readouterr().err


# ---- what is stored and restored ----


def test_flags_of_one_call_are_not_stored():
    flags = ["--n_samples", 9, "--samples_dir", "y", "--export_pkl", "--paper", "--code", 3]
    kept = stored(parse("--seed", 3, *flags))
    assert kept["seed"] == 3
    assert kept["lr"] == 0.5  # --paper's value, not --paper itself
    of_one_call = {"out_dir", "n_samples", "samples_dir", "export_pkl", "resume", "init_from"}
    of_one_call |= {"device", "help", "paper", "sample_only", "download", "input", "tile", "code"}
    assert of_one_call & set(kept) == set()


def test_a_value_that_is_settled_later_is_stored():
    args = parse()
    args.names = ["found", "in", "the", "data"]
    assert stored(args)["names"] == ["found", "in", "the", "data"]


def test_resume_restores_what_the_command_line_leaves_open(saved):
    folder = saved("--lr", 0.25, "--seed", 7, "--flip", "--names", "b", "c", "--width", 3)
    args = parse("--resume", folder, "--seed", 8)
    assert (args.lr, args.seed, args.flip) == (0.25, 8, True)
    assert (args.names, args.width) == (["b", "c"], 3)
    assert stored(args)["seed"] == 8


def test_init_from_takes_the_architecture_alone(saved):
    args = parse("--init_from", saved("--lr", 0.25, "--seed", 7, "--flip", "--width", 3))
    assert (args.lr, args.seed, args.flip, args.width) == (0.1, 0, False, 3)
    assert args.init_from.endswith(FILE_NAME)
    assert args.resume is None


def test_init_from_can_start_the_papers_run(saved):
    """The checkpoint's architecture remains, where --paper has another one."""
    args = parse("--init_from", saved("--width", 3), "--paper")
    assert (args.lr, args.width) == (0.5, 3)


@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
def test_a_contradicted_architecture_names_both_values(saved, capsys, flag):
    folder = saved("--width", 3)
    text = line(capsys, flag, folder, "--width", 4)
    assert "--width 4 contradicts" in text
    assert "width 3" in text
    assert parse(flag, folder, "--width", 3).width == 3


def test_another_scripts_checkpoint(saved, capsys):
    other = Parser("y.py", "Doc.", {})
    folder = saved()
    with pytest.raises(SystemExit):
        other.parse(["--resume", str(folder)])
    assert "was written by x.py, not by y.py" in capsys.readouterr().err


def test_a_number_survives_to_the_last_bit(saved):
    rate = float(np.nextafter(0.1, 1))
    folder = saved("--lr", repr(rate), "--rates", 1e-300, 1 / 3)
    args = parse("--resume", folder)
    assert args.lr == rate
    assert args.rates == [1e-300, 1 / 3]


# ---- values from a stranger's checkpoint ----


def edit(folder, **values):
    """Writes a checkpoint with other stored arguments, and returns its path."""
    with np.load(folder / FILE_NAME) as file:
        arrays = dict(file)
    text = json.loads(arrays["meta"].tobytes())
    text["args"].update(values)
    arrays["meta"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    path = folder / "edited.npz"
    np.savez(path, **arrays)
    return path


def test_stored_text_never_becomes_a_flag(saved, tmp_path):
    """It does not pass through a command line."""
    names = ["a", f"--out_dir={tmp_path / 'stranger'}", "--n_epochs", "99", "--paper", "@file"]
    path = edit(saved(), names=names, data_dir="--lr=5", labels=["--flip"])
    args = parse("--resume", path)
    assert args.names == names
    assert args.labels == ["--flip"]
    assert args.data_dir == "--lr=5"
    assert args.out_dir == str(path.parent)
    assert (args.n_epochs, args.lr, args.paper, args.flip) == (1, 0.1, False, False)


@pytest.mark.parametrize("value", [True, False])
def test_a_stored_switch(saved, value):
    assert parse("--resume", edit(saved(), flip=value)).flip is value
    assert parse("--resume", edit(saved(), flip=value), "--flip").flip is True


def test_a_stored_list_may_be_empty_if_the_flag_may(saved):
    assert parse("--resume", edit(saved(), labels=[])).labels == []


def test_a_stored_list_has_a_largest_length(saved, capsys):
    """Of each text, for example, pictures are drawn."""
    path = edit(saved(), names=["a"] * (MOST_VALUES + 1))
    assert f"--names: holds {MOST_VALUES + 1:,} values" in line(capsys, "--resume", path)
    assert parse("--resume", path, "--names", "b").names == ["b"]
    assert len(parse("--resume", edit(saved(), names=["a"] * MOST_VALUES)).names) == MOST_VALUES


@pytest.mark.parametrize("name", ["labels", "rates"])
def test_samples_need_the_lists_that_a_training_finds_in_its_data(saved, capsys, name):
    full = {"labels": ["a"], "rates": [0.5]}
    path = edit(saved(), **full)
    assert parse("--resume", path, "--sample_only").labels == ["a"]
    path = edit(saved(), **{**full, name: None})
    assert f"has no value of --{name}" in line(capsys, "--resume", path, "--sample_only")
    assert getattr(parse("--resume", path), name) is None


def test_what_belongs_to_a_call_is_not_restored(saved):
    path = edit(saved(), out_dir="/x", export_pkl=True, code=7, n_samples=5, device="cuda")
    args = parse("--resume", path)
    assert args.out_dir == str(path.parent)
    assert (args.export_pkl, args.code, args.n_samples, args.device) == (False, None, 0, "auto")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "fast"),
        ("lr", -1),
        ("lr", True),
        ("lr", None),
        ("lr", [0.1]),
        ("lr", {"a": 1}),
        ("lr", float("nan")),
        ("n_epochs", 1.5),
        ("n_epochs", 0),
        ("seed", None),
        ("flip", 1),
        ("flip", "yes"),
        ("flip", None),
        ("flip", [True]),
        ("names", "a"),
        ("names", []),
        ("names", [["a"]]),
        ("names", [None]),
        ("names", {"a": 1}),
        ("rates", [0.1, "x"]),
        ("rates", [True]),
        ("kind", "z"),
        ("kind", 3),
        ("width", 5000),
        ("width", "16 --flip"),
        ("data_dir", {"a": 1}),
        ("data_dir", True),
    ],
)
def test_a_stored_value_of_another_type_is_one_line(saved, capsys, name, value):
    path = edit(saved(), **{name: value})
    text = line(capsys, "--resume", path)
    assert text.startswith(f"x.py: error: {path}: argument --{name}: ")


def test_fine_tuning_reads_the_stored_architecture_alone(saved, capsys):
    assert parse("--init_from", edit(saved(), lr="fast", no_such_flag=1)).lr == 0.1
    text = line(capsys, "--init_from", edit(saved(), width="16 --flip"))
    assert "argument --width: must be a whole number" in text


@pytest.mark.parametrize("name", ["no_such_flag", "stored_names", "script", "shape", "help"])
def test_an_unknown_setting_is_one_line(saved, capsys, name):
    text = line(capsys, "--resume", edit(saved(), **{name: 1}))
    assert f"a setting that this version does not know: {name}" in text


def test_a_setting_of_an_earlier_version_that_was_not_used_is_skipped(saved):
    """Such as --minibatch_discrimination in dcgan.py's checkpoints."""
    path = edit(saved(), no_such_flag=None)
    for flag in ("--resume", "--init_from"):
        assert not hasattr(parse(flag, path), "no_such_flag")


# ---- the decay of a learning rate ----


def test_a_rate_falls_until_the_last_epoch():
    args = parse("--n_epochs", 4, decays=True)
    assert (args.decay_epoch, args.decay_until) == (2, 4)
    assert stored(args)["decay_until"] == 4
    assert parse("--n_epochs", 4, "--decay_until", 3, decays=True).decay_until == 3
    assert "decay_until" not in parse()


def test_a_resumed_run_keeps_its_schedule_and_says_so(saved, capsys):
    folder = saved("--n_epochs", 4, decays=True)
    capsys.readouterr()
    args = parse("--resume", folder, "--n_epochs", 9, decays=True)
    assert (args.n_epochs, args.decay_until) == (9, 4)
    assert stored(args)["decay_until"] == 4
    assert "has fallen until epoch 4 and stays there; --decay_until 9" in capsys.readouterr().out
    longer = parse("--resume", folder, "--n_epochs", 9, "--decay_until", 9, decays=True)
    assert longer.decay_until == 9
    parse("--resume", folder, decays=True)
    assert "learning rate" not in capsys.readouterr().out


def test_a_rate_that_has_not_begun_to_fall_falls_over_the_longer_run(saved):
    folder = saved("--n_epochs", 1, decays=True)
    assert parse("--resume", folder, "--n_epochs", 9, decays=True).decay_until == 9


# ---- empty values and home folders ----


@pytest.mark.parametrize("name", ["data_dir", "out_dir", "resume", "init_from", "names", "kind"])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_an_error(capsys, name, value):
    """An unset variable of a shell script must not start from scratch."""
    text = line(capsys, f"--{name}", value)
    if name == "kind":
        assert "invalid choice" in text
    else:
        assert text == f"x.py: error: argument --{name}: the value is empty"


def test_an_empty_value_among_others_is_an_error(capsys):
    assert "--names: the value is empty" in line(capsys, "--names", "a", "")


@pytest.mark.parametrize("name", ["data_dir", "out_dir", "resume", "init_from"])
def test_the_home_of_nobody(capsys, name):
    text = line(capsys, f"--{name}", "~nosuchuser/x")
    assert text == (
        f"x.py: error: --{name} ~nosuchuser/x: there is no such home folder "
        "(a name: ./~nosuchuser/x)"
    )


def test_a_tilde_in_other_texts_is_no_home():
    assert parse("--names", "~nosuchuser").names == ["~nosuchuser"]


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, 2**53])
def test_a_number_beyond_all_bounds(capsys, value):
    assert "--seed: must be a whole number at least 0, got" in line(capsys, "--seed", value)


def test_an_error_is_one_line_whatever_it_quotes(capsys):
    text = line(capsys, "--seed", "1\n\x1b[2J\u2028")
    assert text.endswith(r"'1\n\x1b[2J\u2028'")


def test_overwriting_needs_a_training(saved, capsys):
    text = line(capsys, "--resume", saved(), "--sample_only", "--overwrite")
    assert "--overwrite starts a training" in text


# ---- tools ----


@pytest.fixture
def tool():
    parser = ToolParser("x.py", formatter_class=HelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", default=None)
    return parser


def test_a_tools_flags(tool):
    args = tool.parse_args(["a", "--out", "b"])
    assert (args.run, args.out) == ("a", "b")
    assert tool.parse_args(["a"]).out is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["", "--out", "b"], "argument run: the value is empty"),
        (["a", "--out", " "], "argument out: the value is empty"),
        (["a", "--o\x1b[2J"], "unrecognized arguments: --o\\x1b[2J"),
    ],
)
def test_errors_of_a_tools_flags(tool, capsys, argv, message):
    with pytest.raises(SystemExit) as stopped:
        tool.parse_args(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"x.py: error: {message}\n"
