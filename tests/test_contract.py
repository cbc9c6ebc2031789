"""What holds for every script before it trains: names, flags, --paper, --describe, bad input."""

import common

import ast
import inspect
import json
import re
import shutil

import numpy as np
import pytest
from registry import NOISE, ROOT, ROWS, load, meta, run

SCRIPTS = sorted(f.stem for f in ROOT.glob("*.py"))
OF_ALL = {
    *(
        "n_epochs",
        "batch_size",
        "lr",
        "img_size",
        "channels",
        "data_dir",
        "out_dir",
        "sample_interval",
    ),
    *(
        "checkpoint_interval",
        "log_interval",
        "keep",
        "resume",
        "init_from",
        "sample_only",
        "seed",
        "device",
        "paper",
    ),
    *("describe", "export_pkl"),
}
OF_NOISE, OF_IMAGES = {"n_samples", "samples_dir", "download"}, {"input", "img_height", "img_width"}
OF_CROPS = {"load_size", "no_crop", "no_flip"}
OF_MAPS = {"label_dir", "image_dir", "n_classes", "ignore_label"}
OF_MAPS |= {"out_size", "tiles", "ref", "ref_dir", "ref_json", "n_outputs"}

pytestmark = pytest.mark.parametrize("name", SCRIPTS)


def defaults(name, *flags):
    """{flag: value}; `shape` follows from three of them."""
    return {
        flag: value
        for flag, value in vars(load(name).parse_args([*flags])).items()
        if flag != "shape"
    }


def test_it_has_a_row(name):
    assert name in ROWS


def test_names_of_the_design(name):
    module = load(name)
    expected = {
        "parse_args": ["argv"],
        "main": ["argv"],
        "train": ["run", "args"],
        "generate": ["run", "args"],
    }
    for function, parameters in expected.items():
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters
    assert callable(module.train_step)
    assert f"python {name}.py" in module.__doc__
    assert "https://" in module.__doc__


# ---- flags ----


def attributes_read(path):
    """Names of the attributes that a file reads from something called args."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and getattr(node.value, "id", getattr(node.value, "attr", None)) == "args"
    }


def test_every_flag_is_read(name):
    """A flag of the script's own on its page, a shared one there or in the modules that run every script."""
    flags = set(defaults(name)) - {"script", "stored"}
    shared = OF_ALL | (OF_NOISE if name in NOISE else OF_IMAGES)
    assert flags >= shared
    assert (flags >= {"b1", "b2"}) == ("Adam(" in (ROOT / f"{name}.py").read_text())
    on_the_page = attributes_read(ROOT / f"{name}.py")
    modules = ["run", "flags", "log", "pictures"]
    if flags >= OF_CROPS:
        shared, modules = shared | OF_CROPS, [*modules, "data/augment"]
    if flags >= OF_MAPS:
        shared, modules = shared | OF_MAPS, [*modules, "data/label_maps", "data/hand_in"]
    in_common = set().union(*(attributes_read(ROOT / f"common/{m}.py") for m in modules))
    assert flags - on_the_page - (shared & in_common) == set()


def test_only_flags_with_a_meaning_are_offered(name, fails):
    unknown = OF_IMAGES if name in NOISE else OF_NOISE
    assert not unknown & set(defaults(name))
    for flag in unknown:
        code, line = fails(load(name).main, [f"--{flag}", "1"])
        assert (code, line) == (2, f"{name}.py: error: unrecognized arguments: --{flag} 1")


def test_help_shows_every_flag(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        load(name).parse_args(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    flags = set(defaults(name)) - {"script", "stored"}
    assert [
        flag for flag in sorted(flags) if not re.search(rf"^  --{flag}\b", text, re.MULTILINE)
    ] == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--n_epochs", "0"],
        ["--batch_size", "-1"],
        ["--lr", "-0.1"],
        ["--lr", "inf"],
        ["--b1", "1"],
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
        else:
            argv += [f"--{flag}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return argv


def test_paper_selects_the_published_setting(name):
    paper = load(name).PAPER
    assert set(paper) <= set(defaults(name))
    chosen = defaults(name, "--paper")
    assert {flag: chosen[flag] for flag in paper} == paper
    assert {flag: chosen["stored"][flag] for flag in paper} == paper
    typed = defaults(
        name, *as_argv(paper)
    )  # each value is one that the command line accepts, and of its type
    assert {flag: (type(typed[flag]), typed[flag]) for flag in paper} == {
        k: (type(v), v) for k, v in paper.items()
    }
    usual = defaults(name)
    others = set(usual) - set(paper) - {"paper", "stored"}
    assert {flag: chosen[flag] for flag in others if flag != "decay_until"} == {
        flag: usual[flag] for flag in others if flag != "decay_until"
    }


@pytest.mark.parametrize("order", [1, -1])
def test_a_flag_wins_over_the_paper(name, order):
    chosen = defaults(
        name, *[flag for part in (["--paper"], ["--lr", "0.125"])[::order] for flag in part]
    )
    assert chosen["lr"] == chosen["stored"]["lr"] == 0.125
    assert chosen["batch_size"] == load(name).PAPER["batch_size"]


@pytest.mark.parametrize("flag", ["--paper", "--init_from"])
def test_a_resumed_run_is_not_begun_anew(name, tiny, fails, flag):
    code, line = fails(
        load(name).main,
        ["--resume", tiny.half, flag, *([tiny.half] if flag == "--init_from" else [])],
    )
    assert code == 2
    assert "--resume" in line and flag in line


# ---- what a checkpoint fixes ----


def architecture(name, monkeypatch):
    """The flags that fix the shapes of the script's networks."""
    seen, real = [], common.Parser.parse
    with monkeypatch.context() as patch:
        patch.setattr(
            common.Parser,
            "parse",
            lambda parser, argv: seen.append(parser.architecture) or real(parser, argv),
        )
        load(name).parse_args([])
    return seen[0]


@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
def test_the_architecture_is_the_checkpoints(name, tiny, fails, monkeypatch, flag):
    stored, usual = meta(tiny.half)["args"], defaults(name)
    args, flags = defaults(name, flag, str(tiny.half)), architecture(name, monkeypatch)
    assert (
        {f: args[f] for f in flags} == {f: stored[f] for f in flags} != {f: usual[f] for f in flags}
    )
    size = 4 * stored["img_size"]
    code, line = fails(load(name).main, [flag, tiny.half, "--img_size", size])
    assert code == 2
    assert f"--img_size {size} contradicts" in line
    assert f"img_size {stored['img_size']};" in line


def test_resuming_restores_every_setting_and_fine_tuning_the_architecture_alone(
    name, tiny, monkeypatch
):
    stored, usual = meta(tiny.half)["args"], defaults(name)
    resumed, tuned = (defaults(name, flag, str(tiny.half)) for flag in ("--resume", "--init_from"))
    assert {flag: resumed[flag] for flag in stored} == stored
    assert tuned["batch_size"] != stored["batch_size"] and tuned["n_epochs"] != stored["n_epochs"]
    others = set(stored) - architecture(name, monkeypatch)
    assert {flag: tuned[flag] for flag in others} == {flag: usual[flag] for flag in others}


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_foreign_file_as_checkpoint(name, content, fails, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    code, line = fails(load(name).parse_args, ["--resume", str(tmp_path / "x.npz")])
    assert code == 2
    assert str(tmp_path / "x.npz") in line


def test_an_older_format_is_named(name, tiny, fails, tmp_path):
    with np.load(tiny.half / "checkpoint_last.npz") as file:
        arrays = dict(file)
    text = {**json.loads(arrays["meta"].tobytes()), "format": 1}
    np.savez(
        tmp_path / "old.npz",
        **{**arrays, "meta": np.frombuffer(json.dumps(text).encode(), np.uint8)},
    )
    code, line = fails(load(name).main, ["--resume", tmp_path / "old.npz"])
    assert code == 2
    assert str(tmp_path / "old.npz") in line
    assert "format 1" in line and "format 2" in line


# ---- what is missing ----


def test_missing_data_is_found_before_training(name, fails, tmp_path):
    missing = tmp_path / "no such folder"
    code, line = fails(load(name).main, ["--data_dir", missing, "--out_dir", tmp_path / "out"])
    assert code == 2
    assert str(missing) in line


def test_out_dir_that_cannot_be_made(name, fails, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, line = fails(load(name).main, ["--out_dir", tmp_path / "file" / "out"])
    assert code == 2
    assert "cannot be written" in line


# ---- --describe ----


def test_describe_prints_pytorchs_counts_and_does_nothing_else(
    name, tiny, tmp_path, monkeypatch, capsys
):
    """The totals, and each output's shape, are those of the networks' twins."""
    torch = pytest.importorskip("torch")
    from tools.twins import Twin

    described, real = [], common.describe

    def describe(title, module, *inputs):
        described.append((title, module, inputs))
        return real(title, module, *inputs)

    monkeypatch.setattr(common, "describe", describe)
    monkeypatch.chdir(tmp_path)
    run(name, *ROWS[name].flags, "--describe", "--data_dir", tiny.data)
    assert list(tmp_path.iterdir()) == []
    sections = capsys.readouterr().out.split("\n\n")[-len(described) :]
    for (title, module, inputs), section in zip(described, sections):
        head, *layers, total = section.strip().splitlines()
        twin = Twin(name).module(module).eval()
        n = sum(p.numel() for p in twin.parameters())
        assert total.split() == [f"{n:,}", "parameters", f"({n / 1e6:.3f}", "M)"]
        assert sum(int(row.split()[-1].replace(",", "")) for row in layers) == n
        with torch.no_grad():
            outputs = twin(*(torch.tensor(x.numpy()) for x in inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert head == f"{title}: " + " -> ".join(
            ", ".join(str(tuple(v.shape)) for v in group) for group in (inputs, outputs)
        )
    assert len(described) >= 2


def test_describe_of_a_checkpoint_leaves_it_alone(name, tiny, tmp_path):
    out = shutil.copytree(tiny.half, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    run(name, "--resume", out, "--describe")
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
