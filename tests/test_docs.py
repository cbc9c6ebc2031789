"""The documents: every link and every command exists, and the two READMEs say the same."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
SCRIPTS = sorted(f.stem for f in ROOT.glob("*.py"))


def text(path):
    return path.read_text(encoding="utf-8")


def commands(path):
    """The lines of a document's code blocks that begin with a program, without their comments."""
    blocks = re.findall(r"^```\n(.*?)^```", text(path), re.MULTILINE | re.DOTALL)
    lines = [line.split("   ")[0].rstrip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python ", "pip ", "mpirun "))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_exists(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(path))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def parser_of(script, monkeypatch):
    """The argument parser of a script or a tool, caught while it parses."""
    caught = []

    def parse(parser, *args, **kwargs):
        caught.append(parser)
        raise SystemExit

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", parse)
    module = importlib.import_module(script)
    with pytest.raises(SystemExit):
        getattr(module, "parse_args", getattr(module, "main", None))([])
    monkeypatch.undo()
    return caught[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists(path, monkeypatch):
    for line in commands(path):
        words = shlex.split(line.split("&&")[-1])
        if words[0] != "python" or words[1] == "-m":
            continue
        file = ROOT / words[1]
        assert file.is_file(), line
        if file.stem == "doctor":  # it imports a part of `common` under another name
            known = set(re.findall(r'"(--\w+)"', text(file)))
        else:
            name = words[1][:-3].replace("/", ".")
            known = (
                set(parser_of(name, monkeypatch)._option_string_actions)
                if file.stem != "twin"
                else None
            )
        flags = [word for word in words[2:] if word.startswith("--")]
        assert known is None or set(flags) <= known, line


def test_both_readmes_have_the_same_commands():
    first, second = map(commands, READMES)
    assert first == second
    assert len(first) > 10


def test_both_readmes_have_the_same_rows():
    """Pictures, scripts, links and minutes; the words differ."""
    tables = []
    for path in READMES:
        rows = [row for row in text(path).splitlines() if row.startswith("| ![")]
        tables.append(
            [
                re.findall(r"(docs/.+?png)|`(.+?)`|(https://[^)]+)|\| ([0-9]+) \|", row)
                for row in rows
            ]
        )
    assert tables[0] == tables[1]
    names = [row[1][1][7:-3] for row in tables[0]]
    assert sorted(names) == SCRIPTS
    assert [row[0][0] for row in tables[0]] == [f"docs/thumbs/{name}.png" for name in names]
    assert all(any(number for *_, number in row) for row in tables[0])


def test_readmes_fit_on_few_screens():
    for path in READMES:
        assert len(text(path).splitlines()) <= 120
