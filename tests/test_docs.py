"""The documents: links and commands exist, and the two READMEs say the same."""

import importlib
import re
import shlex
from functools import cache

import pytest
from registry import ROOT, ROWS

READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = sorted(ROOT.glob("docs/scripts/*.md"))
NOTEBOOK = sorted(ROOT.glob("docs/notebook/*.md"))  # its commands are of their time
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *PAGES,
    *(ROOT / folder / "README.md" for folder in ("common", "jittor_fast", "jittor_setup")),
]
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it names old flags
SCRIPTS = sorted(ROWS)  # not every file: a copy that somebody works on needs no page
TOOLS = sorted(
    f"tools.{file.stem}"
    for file in ROOT.glob("tools/*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)

SETUP = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt"
COPY = "mine.py"  # of dcgan.py, in docs/copying.md
FORWARDING = {"tools/describe.py", "tools/twin.py"}  # their flags are those of a script
# Of uv, mpirun and wsl.
OF_OTHERS = {"--python", "--clear", "--seed", "--hostfile", "--install", "--mca"}


def text(path):
    return path.read_text(encoding="utf-8")


def label(path):
    return str(path.relative_to(ROOT))


def code_blocks(path):
    """The code blocks without a language, which hold commands, layouts and the like."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text(path), re.MULTILINE | re.DOTALL)
    return [block for language, block in blocks if not language]


def commands(path):
    """The commands of the code blocks, without their comments, one for each `&&`."""
    found = []
    for block in code_blocks(path):
        for line in block.splitlines():
            for command in line.split("   ")[0].split(" && "):
                command = re.sub(r"^(\w+=\S+ )+", "", command.strip())  # environment variables
                if command.startswith(("python ", "pip ", "mpirun ")):
                    found.append(command)
    return found


def inline_commands(path):
    """What stands between backticks in the text and begins with a file and a flag."""
    prose = re.sub(r"^```.*?^```", "", text(path), flags=re.MULTILINE | re.DOTALL)
    found = []
    for code in re.findall(r"`([^`]+)`", prose):
        command = re.sub(r"^python ", "", " ".join(code.split()))
        if re.match(r"[\w/]+\.py ", command):
            found.append(f"python {command}")
    return found


# ---- links ----


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOK], ids=label)
def test_every_relative_link_exists(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(path))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_anchor_exists(path):
    """GitHub makes anchors of headings: lower case, hyphens, no punctuation."""
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", text(path)):
        if "://" in link:
            continue
        target = path.parent / link if link else path
        headings = re.findall(r"^#+ (.+)$", text(target), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", heading.lower()) for heading in headings]
        if anchor not in [name.replace(" ", "-") for name in anchors]:
            missing.append(f"{link}#{anchor}")
    assert missing == []


# ---- commands ----


@cache
def flags_of(module):
    """The flags of a script or a tool; None if it parses its own command line."""
    parser = parser_of(module)
    return None if parser is None else frozenset(parser._option_string_actions)


def parser_of(module):
    """The argument parser of a script or a tool, caught while it parses."""
    caught = []

    def parse(parser, *args, **kwargs):
        caught.append(parser)
        raise SystemExit

    loaded = importlib.import_module(module)
    entry = getattr(loaded, "parse_args", None) or loaded.main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("argparse.ArgumentParser.parse_args", parse)
        patch.setattr("argparse.ArgumentParser.parse_known_args", parse)
        with pytest.raises(SystemExit):
            entry([])
    return caught[0] if caught else None


def script_in(words):
    """The script that a tool such as tools/twin.py is to run."""
    names = [word.removesuffix(".py") for word in words if not word.startswith("-")]
    return next(name for name in names if name in SCRIPTS)


def check(command):
    """Fails if the file of a command, or one of its flags, does not exist."""
    words = shlex.split(command)
    if words[0] != "python" or words[1] == "-m" or words[1].startswith("/path/to/"):
        return
    file = "dcgan.py" if words[1] == COPY else words[1]
    assert (ROOT / file).is_file(), command
    used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
    if not used:
        return
    known = flags_of(file.removesuffix(".py").replace("/", ".")) or frozenset()
    if file in FORWARDING:
        known |= flags_of(script_in(words[2:]))
    assert used <= known, command


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_command_exists(path):
    for command in commands(path):
        check(command)


@pytest.mark.parametrize("path", CURRENT, ids=label)
def test_every_command_in_the_text_exists(path):
    for command in inline_commands(path):
        check(command)


@pytest.mark.parametrize("path", CURRENT, ids=label)
def test_every_flag_in_the_text_exists(path):
    known = set(OF_OTHERS)
    for module in [*SCRIPTS, *TOOLS]:
        known |= flags_of(module) or frozenset()
    used = set()
    for code in re.findall(r"`([^`\n]+)`", text(path)):
        used |= set(re.findall(r"(?<!\S)--\w+", code))
    assert used <= known


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_flags_on_a_scripts_page_are_its_own(path):
    """A line of a table or a list that begins with a flag speaks of that script."""
    own = flags_of(path.stem)
    starts = re.findall(r"^(?:\| |\* \*{0,2})`(--\w+)", text(path), re.MULTILINE)
    assert set(starts) <= own


# ---- the READMEs ----


def rows(path):
    """Those of the table of scripts: {script: [thumb, page, paper, minutes]}."""
    found = {}
    for line in text(path).splitlines():
        if line.startswith("| !["):
            script = re.search(r"\[`(\w+)\.py`\]", line)[1]
            thumb, page = re.findall(r"\]\((docs/[^)]+)\)", line)
            paper = re.search(r"https://[^)]+", line)[0]
            minutes = int(re.search(r"\| (\d+) \|$", line)[1])
            found[script] = [thumb, page, paper, minutes]
    return found


def test_the_first_two_blocks_are_one_line_each():
    """What sets everything up and draws a number; what passes the tests."""
    for path in READMES:
        first, second, *_ = code_blocks(path)
        assert first == f"{SETUP} && python cgan_mnist.py --number 5550123\n"
        assert second == f"{SETUP} && python -m pytest\n"
        assert text(path).startswith("# ")


def test_both_readmes_have_the_same_commands():
    first, second = (commands(path) + inline_commands(path) for path in READMES)
    assert commands(READMES[0]) == commands(READMES[1])
    assert set(first) <= set(second)
    assert len(first) > 20


def test_both_readmes_have_a_row_for_each_script():
    """With the same links and minutes, in the same order; the words differ."""
    english, chinese = map(rows, READMES)
    assert list(english.items()) == list(chinese.items())
    assert sorted(english) == SCRIPTS
    for script, (thumb, page, _, _) in english.items():
        assert (thumb, page) == (f"docs/thumbs/{script}.png", f"docs/scripts/{script}.md")


@pytest.mark.parametrize("script", SCRIPTS)
def test_minutes_and_paper_are_those_of_the_scripts_page(script):
    _, page, paper, minutes = rows(READMES[0])[script]
    page = text(ROOT / page)
    assert f"python {script}.py " in page
    assert re.search(r"(\d+) minutes? on two CPU cores", page)[1] == str(minutes)
    assert paper in page
    docstring = text(ROOT / f"{script}.py")
    assert re.search(r"(\d+) minutes?", docstring)[1] == str(minutes)
    assert paper in docstring


def test_each_script_has_one_row_in_the_results():
    table = re.findall(r"^\| \[(\w+)\.py\]", text(ROOT / "docs/results.md"), re.MULTILINE)
    assert sorted(table) == SCRIPTS


def test_both_galleries_have_the_same_commands_pictures_and_figures():
    """In the same order; the words differ."""
    english, chinese = (ROOT / f"docs/gallery{suffix}.md" for suffix in ("", ".zh-CN"))
    assert commands(english) == commands(chinese)
    assert pictures(english) == pictures(chinese)
    assert len(pictures(english)) > 3
    figures = r"\d+\.\d+"
    assert sorted(re.findall(figures, text(english))) == sorted(re.findall(figures, text(chinese)))


def pictures(path):
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", text(path))


def test_readmes_are_of_equal_length_and_not_long():
    """Their tables are left out: each script adds a line."""
    lengths = []
    for path in READMES:
        lengths.append(sum(not line.startswith("|") for line in text(path).splitlines()))
    assert max(lengths) <= 170
    assert max(lengths) - min(lengths) <= 10


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if ".zh-" not in p.name], ids=label)
def test_lines_are_not_long(path):
    """In prose; tables, pictures, headings and commands cannot be wrapped."""
    prose = re.sub(r"^```.*?^```", "", text(path), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if line and line[0] not in "|!#"]
    assert [line for line in lines if len(line) > 100] == []
