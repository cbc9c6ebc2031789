"""Makes g++ compile Jittor and its kernels faster: it reads Jittor's headers only once.

Jittor compiles itself from 160 files at its first import. Later it compiles a kernel
for each new type of operation, by a Python script that calls the compiler twice. Most
of the time goes into reading the same headers again and again. Here g++ compiles the
headers beforehand (precompiled headers), and a shell script calls it directly for a
kernel. The core then takes four fifths of the time, and a kernel a quarter. A kernel's
machine code stays the same, except for a detail in calls of oneDNN.

Everything that fails this way is compiled in Jittor's own way.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from .newer import flags_for, major_version

FOLDER = Path(__file__).parent
# The name of a precompiled header is a hash of this text, and the command for each
# kernel contains the name. So a change, also of a comment, compiles all kernels again.
CORE_HEADER = (FOLDER / "headers/core.h").read_text()  # for the files of Jittor's core
KERNEL_HEADER = (FOLDER / "headers/kernels.h").read_text()  # for kernels on the CPU
SCRIPT = FOLDER / "compile_kernel.sh"
HEADER_LAST = 'exec "$compiler" "$@" -include "$header"'  # in the script
HEADER_FIRST = 'exec "$compiler" -include "$header" "$@"'


def usable(jittor_utils):
    """Whether Jittor compiles with g++ on Linux; elsewhere nothing here applies."""
    return sys.platform.startswith("linux") and jittor_utils.cc_type == "g++"


# ---- Jittor's core ----


def compile_core_faster():
    """Makes the following import of Jittor use a precompiled header for its core."""
    import jittor_utils

    if usable(jittor_utils):
        jittor_utils.run_cmds = reading_headers_once(jittor_utils.run_cmds, jittor_utils.cc_path)


def reading_headers_once(run_cmds, compiler, at_least=50):
    """Adds to `jittor_utils.run_cmds` a first pass that uses a precompiled header.

    Args:
        run_cmds: Jittor's function, which runs a list of commands of the compiler.
        compiler: The path of g++. The commands of other compilers, as nvcc, are not
            touched.
        at_least: The number of missing files from which on the header is worth its
            time.

    Returns:
        A function that replaces `run_cmds`.
    """

    def run(cmds, cache_path, jittor_path, *message):
        missing = []
        for command in cmds:
            if is_compilation(command, compiler) and not output_file(command).exists():
                missing.append(command)
        if len(missing) >= at_least:
            # Whatever fails here is compiled below, without the header.
            with contextlib.suppress(Exception):
                header = core_header(missing[0], compiler, Path(cache_path))
                run_with_header(run_cmds, missing, header, cache_path, jittor_path, *message)
        try:
            return run_cmds(cmds, cache_path, jittor_path, *message)
        finally:
            for used in Path(cache_path).glob("core_*.h*"):
                used.unlink(missing_ok=True)

    return run


def run_with_header(run_cmds, commands, header, cache_path, jittor_path, *message):
    """Runs commands with a header added, and hides from Jittor that it was there.

    Jittor keeps each command in a file beside its output, and compiles again if the
    command has changed. So the header is removed from the kept commands. A Jittor that
    is imported without this package then finds all of its files up to date.
    """
    include = f' -include"{header}"'
    changed = []
    for command in commands:
        compiler, options = command.split('" ', 1)
        # In front of all options, since one may include a header too: g++ uses a
        # precompiled header only if it is the first.
        changed.append(f'{compiler}"{include} {options}')
    try:
        run_cmds(changed, cache_path, jittor_path, *message)
    finally:
        for command in commands:
            kept = Path(f"{output_file(command)}.key")
            if kept.exists():
                kept.write_text(kept.read_text().replace(include, "", 1))


def core_header(command, compiler, folder):
    """Makes the precompiled header, with the options of one of Jittor's commands."""
    _, _, *options = shlex.split(command.split(" -c -o ")[0])  # the compiler, the source, ...
    return precompiled(folder, "core", CORE_HEADER, compiler, options)


def is_compilation(command, compiler):
    """Whether a command makes an object file with this compiler."""
    return command.startswith(f'"{compiler}" ') and " -c -o " in command


def output_file(command):
    """The path of the file that a command of the compiler makes."""
    return Path(shlex.split(command)[-1])


# ---- kernels ----


def compile_kernels_faster():
    """Makes the imported Jittor compile its kernels with a precompiled header.

    The first call on a machine prepares the header, which takes four seconds and 95 MB
    in Jittor's cache. If it cannot be made, Jittor compiles as usual.
    """
    import jittor as jt
    import jittor_utils

    if not usable(jittor_utils):
        return
    compiler = jt.flags.cc_path
    try:
        # With -g, the header serves kernels with and without debugging information.
        options = ["-g", *shlex.split(jt.flags.cc_flags)]
        header = precompiled(Path(jt.flags.cache_path), "kernels", KERNEL_HEADER, compiler, options)
        script = header.with_suffix(".sh")
        place(script, script_for(header, compiler))
    except (OSError, ValueError, subprocess.SubprocessError):
        return
    jt.flags.python_path = f'sh "{script}"'


def script_for(header, compiler):
    """The text of the shell script that compiles a kernel with this header."""
    rewrites = "true" if major_version(compiler) < 11 else "false"
    options = ["-pipe", *faster_linker(compiler)]
    script = SCRIPT.read_text()
    if flags_for(compiler):
        # They include a header, and g++ uses a precompiled one only if it is the first.
        # For other compilers the script stays as it is: all kernels depend on it.
        script = script.replace(HEADER_LAST, HEADER_FIRST)
    return (
        f"python={shlex.quote(interpreter())}\n"
        f"header={shlex.quote(str(header))}\n"
        f"rewrites={rewrites}\n"
        f"options='{' '.join(options)}'\n"
        f"{script}"
    )


def interpreter():
    """The path of this Python, the same whether it was called python or python3.

    All kernels depend on it.
    """
    path = Path(sys.executable)
    other = path.with_name("python3")
    return str(other if other.exists() and other.samefile(path) else path)


def faster_linker(compiler):
    """The options that make the compiler link with gold; none without gold.

    With ld, linking takes a fifth of a kernel's time.
    """
    option = "-fuse-ld=gold"
    found = subprocess.run(
        [compiler, option, "-Wl,--version"], stdin=subprocess.DEVNULL, capture_output=True
    )
    return [option] if found.returncode == 0 else []


def compile_without_lock():
    """Lets several processes compile kernels at the same time. This is for the tests.

    With Jittor's lock, each process waits for the others at every kernel. Without it,
    two processes that need the same kernel still compile it only once
    (compile_kernel.sh). Jittor would also write the source of a kernel again in each
    process, and a process could read it while another one writes it. So existing
    sources are kept.
    """
    import jittor as jt

    if jt.flags.python_path.startswith("sh "):
        jt.flags.disable_lock = 1
        jt.flags.rewrite_op = 0


# ---- precompiled headers ----


def precompiled(folder, name, text, compiler, options):
    """Writes a header with this text and compiles it, unless that has been done.

    The name of the file contains a hash of what the result depends on: the text, the
    options, and the path and date of the compiler. Older headers of the same name are
    deleted.

    Args:
        folder: The folder of the header, a Path.
        name: The beginning of the header's name.
        text: The header's text.
        compiler: The path of g++.
        options: A list of its options. Those for linking are left out.

    Returns:
        The path of the header, which lies beside what g++ made of it.

    Raises:
        OSError, subprocess.SubprocessError: It cannot be written or compiled.
    """
    linking = ("-l", "-L", "-Wl,", "-shared")
    options = [option for option in options if not option.startswith(linking)]
    date = os.stat(shutil.which(compiler) or compiler).st_mtime_ns
    key = hashlib.md5(repr((text, options, compiler, date)).encode()).hexdigest()[:8]
    header = folder / f"{name}_{key}.h"
    if not Path(f"{header}.gch").is_file():
        place(header, text)
        compile_header(header, compiler, options)
        for older in folder.glob(f"{name}_*.gch"):
            if older.name != f"{header.name}.gch":
                older.unlink(missing_ok=True)
    return header


def compile_header(header, compiler, options):
    """Makes `<header>.gch` at once and complete; on failure, deletes the header too."""
    made = Path(f"{header}.gch")
    temporary = made.with_name(f"{made.name}.{os.getpid()}")
    command = [compiler, "-x", "c++-header", str(header), *options, "-o", str(temporary)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        os.replace(temporary, made)
    except (OSError, subprocess.SubprocessError):
        header.unlink(missing_ok=True)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def place(path, text):
    """Writes a file, unless it has this text; other processes never see half of it."""
    if path.is_file() and path.read_text() == text:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
