"""Kernels by the precompiled header are those that Jittor's own script compiles."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jittor as jt
import jittor_utils
import numpy as np
import pytest

from jittor_setup import compiler

pytestmark = pytest.mark.skipif(
    not jt.flags.python_path.startswith("sh "), reason="Jittor compiles its own way here"
)
LOOP = "for (int i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] * 3.0625f;"
# Jittor's script rewrites the assembly between such marks, which Jittor sets itself in some kernels.
MARKED = f'//@begin replace "vmovups" "vmovupd"\n{LOOP}\n//@end\n'


@pytest.fixture(scope="module")
def kernel():
    """The command that compiled a kernel with this loop, as words, its source, and what the kernel gives for 2."""
    result = jt.code([1], "float32", [jt.array([2.0])], cpu_src=LOOP).item()
    for key in sorted(
        (Path(jt.flags.cache_path) / "jit").glob("code_*.so.key"),
        key=os.path.getmtime,
        reverse=True,
    ):
        words = shlex.split(key.read_text().splitlines()[0])
        source = next(word for word in words if word.endswith("_op.cc"))
        if LOOP in Path(source).read_text():
            return words, source, result
    raise AssertionError("the kernel was not found")


def machine_code(words, source, folder, changed=(), body=LOOP):
    """The instructions that a command makes of a copy of the source in `folder`, and the assembly that it leaves there.

    `changed` replaces words of the command, `body` the loop. Distances and addresses are left out of the instructions:
    gold lays out a program by the lengths of paths too.
    """
    folder.mkdir()
    copy = str(shutil.copy(source, folder))
    Path(copy).write_text(Path(copy).read_text().replace(LOOP, body))
    made = copy.replace("_op.cc", "_op.so")
    words = [
        copy if word == source else made if word == source.replace(".cc", ".so") else word
        for word in words
    ]
    words = [dict(changed).get(word, word) for word in words]
    subprocess.run(words, check=True, capture_output=True)
    assert {file.suffix for file in folder.iterdir()} - {".s"} == {
        ".cc",
        ".so",
    }  # nothing temporary
    words = ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", made]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    instructions = re.findall(r"^ *[0-9a-f]+:\t(.*?) *(?:#.*)?$", listed, re.MULTILINE)
    instructions = [
        re.sub(r"-?0x[0-9a-f]+\(%rip\)|\b[0-9a-f]+ (?=<)", "", line) for line in instructions
    ]
    return instructions, sorted(file.name for file in folder.glob("*.s"))


@pytest.mark.parametrize("body", [LOOP, MARKED], ids=["plain", "marked"])
def test_same_machine_code(body, kernel, tmp_path):
    words, source, result = kernel
    assert result == 6.125
    assert words[0] == "sh"
    ours, left = machine_code(words, source, tmp_path / "ours", body=body)
    words = [sys.executable, *words[2:], *compiler.faster_linker("g++")]
    theirs, _ = machine_code(words, source, tmp_path / "base", body=body)
    assert len(ours) > 100
    assert ours == theirs
    assert left == []


def test_older_compilers_rewrite_assembly(tmp_path, monkeypatch):
    """With g++ 10 a marked kernel goes through Jittor's script, others do not; here with a stand-in for Python."""
    old = tmp_path / "g++"
    old.write_text(
        '#!/bin/sh\n[ "$1" = -dumpversion ] && echo 10 && exit\nfor last; do :; done\necho g++ > "$last"\n'
    )
    old.chmod(0o755)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor last; do :; done\necho python > "${3%.cc}.so"\n')
    python.chmod(0o755)
    script = tmp_path / "kernels.sh"
    monkeypatch.setattr(compiler, "faster_linker", lambda compiler: [])
    script.write_text(
        compiler.script_for(tmp_path / "kernels.h", str(old)).replace(sys.executable, str(python))
    )
    for body, taken in ((LOOP, "g++"), (MARKED, "python")):
        (tmp_path / "kernel_op.cc").write_text(body)
        words = [
            "asm_tuner.py",
            f"--cc_path={old}",
            tmp_path / "kernel_op.cc",
            "-o",
            tmp_path / "kernel_op.so",
        ]
        words[0] = tmp_path / words[0]
        subprocess.run(["sh", script, *words], check=True)
        assert (tmp_path / "kernel_op.so").read_text() == f"{taken}\n"


def test_processes_that_need_the_same_kernel_at_the_same_time_make_it_once(tmp_path):
    """By a compiler that takes a second and counts its calls; a kernel that is there is made anew when Jittor asks."""
    if shutil.which("flock") is None:
        pytest.skip("flock is not installed: both make it")
    slow, log, source = tmp_path / "g++", tmp_path / "log", tmp_path / "kernel_op.cc"
    slow.write_text(
        f'#!/bin/sh\nfor last; do :; done\necho call >> {log}\nsleep 1\necho made > "$last"\n'
    )
    slow.chmod(0o755)
    script = tmp_path / "kernels.sh"
    script.write_text(compiler.script_for(tmp_path / "kernels.h", "g++"))
    source.write_text(LOOP)
    words = [
        "sh",
        script,
        "x/asm_tuner.py",
        f"--cc_path={slow}",
        source,
        "-o",
        tmp_path / "kernel_op.so",
    ]
    both = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert log.read_text() == "call\n"
    assert (tmp_path / "kernel_op.so").read_text() == "made\n"
    subprocess.run(words, check=True)
    assert log.read_text() == "call\n" * 2
    assert not list(tmp_path.glob("*.lock"))


def test_gold_links_where_it_is_installed(kernel, tmp_path):
    """It leaves a note of its version in what it links; the option is left out where g++ finds no gold."""
    installed = shutil.which("ld.gold") is not None
    assert compiler.faster_linker("g++") == ["-fuse-ld=gold"] * installed
    assert compiler.faster_linker("false") == []
    words, source, _ = kernel
    machine_code(words, source, tmp_path / "made")
    (made,) = (tmp_path / "made").glob("*.so")
    assert (b"gold 1." in made.read_bytes()) == installed


def test_header_is_used(kernel):
    """g++ names each header that it reads, and marks a precompiled one by "!"."""
    words, source, _ = kernel
    header = words[1].replace(".sh", ".h")
    options = [word for word in words[5:-2] if not word.startswith(("-l", "-L", "-Wl", "-shared"))]
    read = subprocess.run(
        ["g++", "-H", "-fsyntax-only", source, *options, "-include", header],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert read.startswith(f"! {header}.gch")


@pytest.mark.parametrize("damage", ["header is gone", "precompiled header is damaged"])
def test_falls_back(damage, kernel, tmp_path):
    """On Jittor's script where g++ fails; g++ itself goes on without a precompiled header that it cannot read."""
    words, source, _ = kernel
    header, expected = tmp_path / "kernels.h", [sys.executable, *words[2:]]
    if damage != "header is gone":
        header.write_text(compiler.KERNEL_HEADER)
        Path(f"{header}.gch").write_bytes(b"no such thing")
        expected = words
    script = tmp_path / "kernels.sh"
    script.write_text(compiler.script_for(header, "g++"))
    expected, _ = machine_code(expected, source, tmp_path / "first")
    assert machine_code(words, source, tmp_path / "found", {words[1]: str(script)})[0] == expected


def test_an_error_stays_one(kernel, tmp_path):
    words, source, _ = kernel
    broken = tmp_path / "broken_op.cc"
    broken.write_text("no C++\n")
    words = [str(broken) if word == source else word for word in words]
    assert (
        subprocess.run(
            [*words[:-1], str(tmp_path / "broken_op.so")], capture_output=True
        ).returncode
        != 0
    )


def precompiled(folder, program, *options):
    return compiler.precompiled(
        folder, "kernels", compiler.KERNEL_HEADER, str(program), list(options)
    )


def test_without_a_header_jittors_own_way(tmp_path, monkeypatch):
    """A compiler that fails leaves no half of a file, and Jittor's command as it was."""
    failing = tmp_path / "g++"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        precompiled(tmp_path, failing, "-O2")
    assert not list(tmp_path.glob("*.gch*"))

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


def test_header_depends_on_flags_and_compiler(tmp_path):
    working = tmp_path / "g++"
    working.write_text('#!/bin/sh\nfor last; do :; done\necho made > "$last"\n')
    working.chmod(0o755)
    made = {
        precompiled(tmp_path, working, *flags.split()) for flags in ("-O2 -lm", "-O2 -L/lib", "-O3")
    }
    assert len(made) == 2  # what concerns linking does not count
    os.utime(working, (1, 1))
    made.add(precompiled(tmp_path, working, "-O3"))
    assert len(made) == 3
    assert len(list(tmp_path.glob("*.gch"))) == 1  # 95 MB each: the older ones go
    assert np.all([header.read_text() == compiler.KERNEL_HEADER for header in made])


# ---- many files at once, as Jittor's own ----


class Compilations:
    """`run_cmds` of files `folder/<name>.cc`, and Jittor's record of what it has compiled."""

    def __init__(self, folder, **texts):
        self.folder, self.calls, self.cmds = folder, [], []
        for name, text in texts.items():
            (folder / f"{name}.cc").write_text(text)
            include = f'-I"{jt.flags.jittor_path}/src" -I"{jt.flags.cache_path}"'
            self.cmds.append(
                f'"g++" "{folder}/{name}.cc" {include} -fPIC -c -o "{folder}/{name}.o"'
            )

    def run_cmds(self, cmds, cache_path, jittor_path):
        self.calls.append([cmd.replace("  ", " ") for cmd in cmds])
        return [jittor_utils.cc.cache_compile(cmd, cache_path, jittor_path) for cmd in cmds]

    def run(self):
        """Whether each was compiled by the last call, which is the one without the header."""
        run = compiler.reading_headers_once(self.run_cmds, "g++", at_least=2)
        return run(self.cmds, str(self.folder), jt.flags.jittor_path)


def test_files_are_compiled_once_and_recorded_as_by_jittor(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "CORE_HEADER", "#include <vector>\nint from_the_header();\n")
    files = Compilations(
        tmp_path, one="int one() { return from_the_header(); }", two="int two() { return 2; }"
    )
    nvcc = files.cmds[1].replace('"g++"', f'"{shutil.which("g++")}"').replace("two.o", "three.o")
    files.cmds.append(nvcc)  # another compiler's
    # Done before, with the header: the first does not compile without it.
    assert files.run() == [False, False, True]
    assert len(files.calls) == 2 and [cmd.count("-include") for cmd in files.calls[0]] == [1, 1]
    assert files.run_cmds(files.cmds, str(tmp_path), jt.flags.jittor_path) == [False, False, False]
    assert not list(tmp_path.glob("core_*"))
    assert len(files.calls) == 3
    files.run()
    assert len(files.calls) == 4  # nothing is missing, nothing is compiled with the header


@pytest.mark.parametrize(
    "header", ["no C++", "int two();\n"], ids=["header fails", "a file fails with it"]
)
def test_files_that_fail_with_the_header_are_compiled_without(header, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "CORE_HEADER", header)
    files = Compilations(tmp_path, one="int one() { return 1; }", two="float two() { return 2; }")
    made = files.run()
    assert made[1] and (tmp_path / "one.o").exists() and (tmp_path / "two.o").exists()
    assert files.run_cmds(files.cmds, str(tmp_path), jt.flags.jittor_path) == [False, False]
    assert not list(tmp_path.glob("core_*"))
