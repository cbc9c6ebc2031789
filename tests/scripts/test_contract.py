"""What holds for every script before it trains: names, flags, --paper, bad input."""

from common import Parser
from common.cli import stored

import ast
import inspect
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from registry import EVERY_SCRIPT, NOISE, ROOT, ROWS, load, meta

OF_EVERY_RUN = {
    *("n_epochs", "n_images", "batch_size", "lr", "seed", "device", "paper", "data_dir"),
    *("out_dir", "sample_interval", "log_interval", "checkpoint_interval", "keep"),
    *("export_pkl", "overwrite", "resume", "init_from", "sample_only"),
}
# Groups of flags that a script asks for: they come together, and common/ reads them.
GROUPS = {
    "add_adam": {"b1", "b2"},
    "add_sampling": {"n_samples", "samples_dir", "download"},
    "add_images": {"img_size", "img_height", "img_width", "channels"},
    "add_augmentation": {"load_size", "no_crop", "no_flip"},
    "add_decay": {"decay_epoch", "decay_until"},
    "add_input": {"input"},
}
SETTLED = {"script", "stored_names", "shape"}  # no flags

every_script = pytest.mark.parametrize("name", list(ROWS))
# What common/ does with any script's checkpoint: by default on four of them.
heavy = pytest.mark.parametrize("name", EVERY_SCRIPT)


def parsed(name, *flags):
    """{flag: value} of a call."""
    args = vars(load(name).parse_args([str(flag) for flag in flags]))
    return {flag: value for flag, value in args.items() if flag not in SETTLED}


def test_every_script_of_the_repository_has_a_row():
    """A copy of one's own in this folder needs none."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "*.py"], capture_output=True, text=True, check=True
    )
    scripts = {path.removesuffix(".py") for path in listed.stdout.split() if "/" not in path}
    assert scripts == set(ROWS)


@every_script
def test_names_of_the_design(name):
    module = load(name)
    expected = {
        "parse_args": ["argv"],
        "build": ["args"],
        "train": ["run", "args"],
        "generate": ["run", "args"],
        "main": ["argv"],
    }
    for function, parameters in expected.items():
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters
    assert callable(module.train_step)
    assert f"python {name}.py" in module.__doc__
    assert "https://" in module.__doc__
    for heading in ("\nMethod\n", "\nWhat to expect\n", "\nDifferences from "):
        assert heading in module.__doc__


@every_script
def test_few_positional_arguments_in_the_step(name):
    parameters = inspect.signature(load(name).train_step).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 8


# ---- flags ----


def attributes_read(path):
    """The names of the attributes that a file reads from something called args."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = getattr(node.value, "id", getattr(node.value, "attr", None))
            if owner == "args":
                names.add(node.attr)
    return names


@every_script
def test_every_flag_is_read(name):
    """On the page, or in the modules of common/ that run every script."""
    read = attributes_read(ROOT / f"{name}.py")
    for module in ("run", "cli", "log", "translation", "data/augment", "data/label_maps"):
        read |= attributes_read(ROOT / f"common/{module}.py")
    page = (ROOT / f"{name}.py").read_text()
    own = set(re.findall(r'add_(?:argument|architecture)\(\s*"--(\w+)"', page))
    flags = set(parsed(name))
    assert own <= flags
    assert own - attributes_read(ROOT / f"{name}.py") - read == set()
    assert flags - own - set().union(OF_EVERY_RUN, *GROUPS.values(), {"tile", "mask"}) == set()


@every_script
def test_flags_come_in_groups(name):
    flags = set(parsed(name))
    page = (ROOT / f"{name}.py").read_text()
    assert flags >= OF_EVERY_RUN
    for method, group in GROUPS.items():
        if f"parser.{method}(" in page:
            assert flags >= group
    assert ("parser.add_adam(" in page) == ("Adam(" in page)
    assert ("parser.add_sampling(" in page) == (name in NOISE)


@every_script
def test_help_shows_every_flag(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        load(name).parse_args(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for flag in parsed(name):
        assert re.search(rf"^  --{flag}\b", text, re.MULTILINE), flag


@every_script
@pytest.mark.parametrize(
    "flags",
    [
        ["--n_epochs", "0"],
        ["--n_images", "0"],
        ["--batch_size", "-1"],
        ["--lr", "-0.1"],
        ["--lr", "inf"],
        ["--img_size", "0"],
        ["--channels", "2"],
        ["--sample_interval", "0"],
        ["--checkpoint_interval", "x"],
        ["--keep", "-1"],
        ["--seed", "-1"],
        ["--device", "tpu"],
        ["--sample_only"],
        ["--resume", "no/such/folder"],
        ["--init_from", "no/such/folder"],
        ["--no_such_flag", "1"],
        ["--n_epo", "1"],
    ],
)
def test_bad_flags_end_in_one_line(name, flags, fails):
    code, line = fails(load(name).parse_args, flags)
    assert code == 2
    assert line.startswith(f"{name}.py: error: ")
    assert flags[0].lstrip("-") in line or flags[-1] in line


# ---- the paper's setting ----


def as_argv(settings):
    argv = []
    for flag, value in settings.items():
        if isinstance(value, bool):
            argv += [f"--{flag}"] if value else []
        elif isinstance(value, (list, tuple)):
            argv += [f"--{flag}", *value]
        else:
            argv += [f"--{flag}", value]
    return argv


@every_script
def test_paper_selects_the_published_setting(name):
    paper = load(name).PAPER
    usual = parsed(name)
    assert set(paper) <= set(usual)
    chosen = parsed(name, "--paper")
    assert {flag: chosen[flag] for flag in paper} == paper
    args = load(name).parse_args(["--paper"])
    assert {flag: stored(args)[flag] for flag in paper} == paper

    # Each value is one that the command line accepts, and of its type.
    typed = parsed(name, *as_argv(paper))
    for flag, value in paper.items():
        assert (type(typed[flag]), typed[flag]) == (type(value), value)

    # Flags that the paper does not set keep their defaults.
    for flag in set(usual) - set(paper) - {"paper", "decay_until"}:
        assert chosen[flag] == usual[flag] or flag.endswith("_channels"), flag


@every_script
@pytest.mark.parametrize("order", [1, -1])
def test_a_flag_wins_over_the_paper(name, order):
    pair = [["--paper"], ["--lr", "0.125"]][::order]
    chosen = parsed(name, *pair[0], *pair[1])
    assert chosen["lr"] == 0.125
    assert chosen["batch_size"] == load(name).PAPER["batch_size"]


# ---- what a checkpoint fixes ----


def architecture(name, monkeypatch):
    """The flags that fix the shapes of the script's networks."""
    seen = []
    real = Parser.parse

    def parse(parser, argv):
        seen.append(parser.architecture)
        return real(parser, argv)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse", parse)
        load(name).parse_args([])
    return seen[0]


@heavy
@pytest.mark.parametrize("flag", ["--paper", "--init_from"])
def test_a_resumed_run_is_not_started_again(name, tiny, fails, flag):
    more = [tiny.half] if flag == "--init_from" else []
    code, line = fails(load(name).main, ["--resume", tiny.half, flag, *more])
    assert code == 2
    assert "--resume" in line and flag in line


@heavy
@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
def test_the_architecture_is_the_checkpoints(name, tiny, fails, monkeypatch, flag):
    kept = meta(tiny.half)["args"]
    usual = parsed(name)
    args = parsed(name, flag, tiny.half)
    flags = architecture(name, monkeypatch)
    assert {f: args[f] for f in flags} == {f: kept[f] for f in flags}
    assert {f: args[f] for f in flags} != {f: usual[f] for f in flags}
    size = 4 * kept["img_size"]
    code, line = fails(load(name).main, [flag, tiny.half, "--img_size", size])
    assert code == 2
    assert f"--img_size {size}" in line


@heavy
def test_what_resuming_and_fine_tuning_restore(name, tiny, monkeypatch):
    """--resume restores every setting, --init_from the architecture alone."""
    kept = meta(tiny.half)["args"]
    usual = parsed(name)
    resumed = parsed(name, "--resume", tiny.half)
    tuned = parsed(name, "--init_from", tiny.half)
    assert {flag: resumed[flag] for flag in kept} == kept
    assert tuned["batch_size"] != kept["batch_size"] and tuned["n_epochs"] != kept["n_epochs"]
    for flag in set(kept) - architecture(name, monkeypatch):
        assert tuned[flag] == usual[flag] or flag.endswith("_channels"), flag


@every_script
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_foreign_file_as_checkpoint(name, content, fails, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    code, line = fails(load(name).parse_args, ["--resume", str(tmp_path / "x.npz")])
    assert code == 2
    assert str(tmp_path / "x.npz") in line


@heavy
def test_an_older_format_is_named(name, tiny, fails, tmp_path):
    with np.load(tiny.half / "checkpoint_last.npz") as file:
        arrays = dict(file)
    text = {**json.loads(arrays["meta"].tobytes()), "format": 2}
    arrays["meta"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    code, line = fails(load(name).main, ["--resume", tmp_path / "old.npz"])
    assert code == 2
    assert str(tmp_path / "old.npz") in line
    assert "format 2" in line and "format 3" in line


# ---- what is missing ----


@every_script
def test_missing_data_is_found_before_training(name, fails, tmp_path):
    missing = tmp_path / "no such folder"
    code, line = fails(load(name).main, ["--data_dir", missing, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert str(missing) in line


@every_script
def test_out_dir_that_cannot_be_made(name, fails, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, line = fails(load(name).main, ["--out_dir", tmp_path / "file" / "out"])
    assert code == 2
    assert "cannot be written" in line
