"""Kernels and files that are compiled with a precompiled header equal Jittor's own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jittor as jt
import jittor_utils
import pytest

from jittor_setup import compiler

pytestmark = pytest.mark.skipif(
    not jt.flags.python_path.startswith("sh "), reason="Jittor compiles in its own way here"
)
LOOP = "for (int i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] * 3.0625f;"
# Jittor's script rewrites the assembly between such marks, which some kernels contain.
MARKED = f'//@begin replace "vmovups" "vmovupd"\n{LOOP}\n//@end\n'


def write_program(path, text):
    """Writes a shell script that stands in for a compiler."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# ---- kernels ----


@pytest.fixture(scope="module")
def kernel():
    """A kernel with this loop: its command in words, its source, its result for 2."""
    result = jt.code([1], "float32", [jt.array([2.0])], cpu_src=LOOP).item()
    keys = (Path(jt.flags.cache_path) / "jit").glob("code_*.so.key")
    for key in sorted(keys, key=os.path.getmtime, reverse=True):
        words = shlex.split(key.read_text().splitlines()[0])
        source = next(word for word in words if word.endswith("_op.cc"))
        if LOOP in Path(source).read_text():
            return words, source, result
    raise AssertionError("the kernel was not found")


def compile_copy(words, source, folder, body=LOOP):
    """Compiles a copy of a kernel in a new folder.

    Args:
        words: The words of the command for the kernel.
        source: The kernel's source, one of the words.
        folder: The new folder.
        body: Replaces the loop.

    Returns:
        The path of the library.
    """
    folder.mkdir()
    copy = folder / Path(source).name
    library = copy.with_suffix(".so")
    copy.write_text(Path(source).read_text().replace(LOOP, body))
    new_names = {source: str(copy), source.replace(".cc", ".so"): str(library)}
    words = [new_names.get(word, word) for word in words]
    subprocess.run(words, check=True, capture_output=True)
    return library


def instructions(library):
    """The instructions of a library, without distances and addresses.

    Those depend on the lengths of paths, by which gold lays out a program.
    """
    command = ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", str(library)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^ *[0-9a-f]+:\t(.*?) *(?:#.*)?$", listed, re.MULTILINE)
    return [re.sub(r"-?0x[0-9a-f]+\(%rip\)|\b[0-9a-f]+ (?=<)", "", line) for line in lines]


@pytest.mark.parametrize("body", [LOOP, MARKED], ids=["plain", "marked"])
def test_the_machine_code_is_that_of_jittors_script(body, kernel, tmp_path):
    words, source, result = kernel
    assert result == 6.125
    assert words[0] == "sh"
    ours = compile_copy(words, source, tmp_path / "ours", body)
    assert {file.suffix for file in ours.parent.iterdir()} == {".cc", ".so"}
    by_jittor = [sys.executable, *words[2:], *compiler.faster_linker("g++")]
    theirs = compile_copy(by_jittor, source, tmp_path / "theirs", body)
    assert len(instructions(ours)) > 100
    assert instructions(ours) == instructions(theirs)


def test_with_older_compilers_jittors_script_rewrites_assembly(tmp_path, monkeypatch):
    """With g++ 10, marked kernels go through it. g++ and Python are stand-ins."""
    answer_10 = '[ "$1" = -dumpversion ] && echo 10 && exit'
    write_output = 'for last; do :; done\necho g++ > "$last"'
    old = write_program(tmp_path / "g++", f"{answer_10}\n{write_output}")
    python = write_program(tmp_path / "python", 'echo python > "${3%.cc}.so"')
    monkeypatch.setattr(compiler, "faster_linker", lambda compiler: [])
    monkeypatch.setattr(sys, "executable", str(python))
    script = tmp_path / "kernels.sh"
    script.write_text(compiler.script_for(tmp_path / "kernels.h", str(old)))
    source = tmp_path / "kernel_op.cc"
    made = tmp_path / "kernel_op.so"
    command = ["sh", script, tmp_path / "asm_tuner.py", f"--cc_path={old}", source, "-o", made]
    for body, compiled_by in ((LOOP, "g++"), (MARKED, "python")):
        source.write_text(body)
        subprocess.run(command, check=True)
        assert made.read_text() == f"{compiled_by}\n"


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock, both compile it")
def test_two_processes_compile_the_same_kernel_only_once(tmp_path):
    """The stand-in for g++ takes a second, and logs its calls."""
    log = tmp_path / "log"
    slow = write_program(
        tmp_path / "g++",
        f'for last; do :; done\necho call >> {log}\nsleep 1\necho made > "$last"',
    )
    script = tmp_path / "kernels.sh"
    script.write_text(compiler.script_for(tmp_path / "kernels.h", "g++"))
    source = tmp_path / "kernel_op.cc"
    source.write_text(LOOP)
    made = tmp_path / "kernel_op.so"
    command = ["sh", script, "x/asm_tuner.py", f"--cc_path={slow}", source, "-o", made]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert log.read_text() == "call\n"
    assert made.read_text() == "made\n"

    subprocess.run(command, check=True)  # later, Jittor may ask for the kernel again
    assert log.read_text() == "call\n" * 2
    assert not list(tmp_path.glob("*.lock"))


def test_gold_links_if_it_is_installed(kernel, tmp_path):
    """gold writes its version into what it links."""
    installed = shutil.which("ld.gold") is not None
    assert compiler.faster_linker("g++") == (["-fuse-ld=gold"] if installed else [])
    assert compiler.faster_linker("false") == []
    words, source, _ = kernel
    made = compile_copy(words, source, tmp_path / "made")
    assert (b"gold 1." in made.read_bytes()) == installed


def test_the_precompiled_header_is_used(kernel, tmp_path):
    """With -H, g++ lists the headers that it reads, "!" before a precompiled one."""
    words, source, _ = kernel
    header = words[1].replace(".sh", ".h")
    log = tmp_path / "log"
    listing = write_program(tmp_path / "g++", f'exec "{words[3][10:]}" -H "$@" 2> {log}')
    words = [*words[:3], f"--cc_path={listing}", *words[4:]]
    compile_copy(words, source, tmp_path / "made")
    assert log.read_text().startswith(f"! {header}.gch")


@pytest.mark.parametrize("damage", ["the header is gone", "the precompiled header is damaged"])
def test_a_damaged_header_does_not_stop_a_kernel(damage, kernel, tmp_path):
    """Without the header, Jittor's script compiles; if g++ cannot use it, g++ alone."""
    words, source, _ = kernel
    header = tmp_path / "kernels.h"
    expected_words = [sys.executable, *words[2:]]
    if damage == "the precompiled header is damaged":
        header.write_text(compiler.KERNEL_HEADER)
        Path(f"{header}.gch").write_bytes(b"damaged")
        expected_words = words
    script = tmp_path / "kernels.sh"
    script.write_text(compiler.script_for(header, "g++"))
    expected = compile_copy(expected_words, source, tmp_path / "expected")
    made = compile_copy(["sh", str(script), *words[2:]], source, tmp_path / "made")
    assert instructions(made) == instructions(expected)


def test_an_error_in_a_kernel_is_reported(kernel, tmp_path):
    words, source, _ = kernel
    with pytest.raises(subprocess.CalledProcessError):
        compile_copy(words, source, tmp_path / "broken", body="no C++")


# ---- the header of the kernels ----


def precompiled(folder, program, *options):
    return compiler.precompiled(
        folder, "kernels", compiler.KERNEL_HEADER, str(program), list(options)
    )


def test_a_compiler_that_fails_leaves_no_file(tmp_path):
    failing = write_program(tmp_path / "g++", "exit 1")
    with pytest.raises(subprocess.CalledProcessError):
        precompiled(tmp_path, failing, "-O2")
    assert list(tmp_path.iterdir()) == [failing]


def test_without_a_header_jittor_compiles_in_its_own_way(monkeypatch):
    def fail(*arguments):
        raise OSError

    before = jt.flags.python_path
    try:
        jt.flags.python_path = sys.executable  # as after Jittor's import
        with monkeypatch.context() as patch:
            patch.setattr(compiler, "precompiled", fail)
            compiler.compile_kernels_faster()
        assert jt.flags.python_path == sys.executable
        compiler.compile_kernels_faster()
        assert jt.flags.python_path == before
    finally:
        jt.flags.python_path = before


def test_the_header_depends_on_options_and_compiler(tmp_path):
    working = write_program(tmp_path / "g++", 'for last; do :; done\necho made > "$last"')
    first = precompiled(tmp_path, working, "-O2", "-lm")
    assert precompiled(tmp_path, working, "-O2", "-L/lib") == first  # only linking differs
    second = precompiled(tmp_path, working, "-O3")
    os.utime(working, (1, 1))
    third = precompiled(tmp_path, working, "-O3")
    assert len({first, second, third}) == 3
    for header in (first, second, third):
        assert header.read_text() == compiler.KERNEL_HEADER
    assert len(list(tmp_path.glob("*.gch"))) == 1  # 95 MB each: the older ones are deleted


# ---- the files of Jittor's core ----


class Compilations:
    """Two files or more, and Jittor's functions that compile them."""

    def __init__(self, folder, **texts):
        self.folder = folder
        self.calls = []  # the commands of each call of `run_cmds`
        self.commands = []
        include = f'-I"{jt.flags.jittor_path}/src" -I"{jt.flags.cache_path}"'
        for name, text in texts.items():
            (folder / f"{name}.cc").write_text(text)
            path = folder / name
            self.commands.append(f'"g++" "{path}.cc" {include} -fPIC -c -o "{path}.o"')

    def run_cmds(self, commands, cache_path, jittor_path):
        """As Jittor's function of this name: returns which files it has compiled."""
        commands = [command.replace("  ", " ") for command in commands]
        self.calls.append(commands)
        compile_one = jittor_utils.cc.cache_compile
        return [compile_one(command, cache_path, jittor_path) for command in commands]

    def run(self):
        """Compiles with the header first; returns what the second pass compiled."""
        run = compiler.reading_headers_once(self.run_cmds, "g++", at_least=2)
        return run(self.commands, str(self.folder), jt.flags.jittor_path)

    def run_without_us(self):
        return self.run_cmds(self.commands, str(self.folder), jt.flags.jittor_path)


def test_files_are_compiled_once_and_recorded_as_jittor_does(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "CORE_HEADER", "#include <vector>\nint from_the_header();\n")
    one = "int one() { return from_the_header(); }"  # does not compile without the header
    files = Compilations(tmp_path, one=one, two="int two() { return 2; }")
    # The command of another compiler, such as nvcc, is not changed.
    other = files.commands[1].replace('"g++"', f'"{shutil.which("g++")}"')
    files.commands.append(other.replace("two.o", "three.o"))

    assert files.run() == [False, False, True]
    assert [command.count("-include") for command in files.calls[0]] == [1, 1]
    assert len(files.calls) == 2
    assert files.run_without_us() == [False, False, False]
    assert not list(tmp_path.glob("core_*"))

    files.calls.clear()
    files.run()
    assert len(files.calls) == 1  # no file is missing, so there is no first pass


@pytest.mark.parametrize(
    "header", ["no C++", "int two();\n"], ids=["the header fails", "a file fails with it"]
)
def test_files_that_fail_with_the_header_are_compiled_without(header, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "CORE_HEADER", header)
    files = Compilations(tmp_path, one="int one() { return 1; }", two="float two() { return 2; }")
    compiled = files.run()
    assert compiled[1]
    assert (tmp_path / "one.o").exists()
    assert (tmp_path / "two.o").exists()
    assert files.run_without_us() == [False, False]
    assert not list(tmp_path.glob("core_*"))


def test_python_and_python3_compile_with_the_same_script(monkeypatch, tmp_path):
    """Else kernels that `python` has compiled would be compiled again for `python3`."""
    program = tmp_path / "python3"
    program.symlink_to(sys.executable)
    (tmp_path / "python").symlink_to("python3")
    texts = []
    for name in ("python", "python3"):
        monkeypatch.setattr(sys, "executable", str(tmp_path / name))
        texts.append(compiler.script_for(tmp_path / "kernels.h", "g++"))
    assert texts[0] == texts[1]
    assert f"python={program}\n" in texts[0]
