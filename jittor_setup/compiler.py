"""Compiles Jittor in four fifths of the time, and its kernels in a quarter: its headers are read once and for all.

Jittor compiles itself from 160 files at the first import, and later a kernel for each new kind of operation, by a
Python script that calls the compiler twice. Most of the time goes into reading the same headers again. Here they are
compiled once (precompiled headers of g++), and a shell script calls the compiler directly for a kernel. The machine
code of kernels is the same, but for a detail of calls of oneDNN. Whatever does not get through this way is compiled in
Jittor's own.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# What nearly every file of Jittor includes.
CORE_HEADER = """\
#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <unordered_map>
#include <unordered_set>
#include <vector>
#include "var.h"
#include "op.h"
#include "ops/op_register.h"
"""

# All kernels for the CPU begin with these two macros; the headers are those that the kernels of jittor_fast and
# of Jittor's own operators include. What a kernel does not need changes nothing in it.
KERNEL_HEADER = """\
#define JIT 1
#define JIT_cpu 1
#include <assert.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>
#include <omp.h>
#include "var.h"
#include "fused_op.h"
#include "executor.h"
#include "misc/cpu_math.h"
#include "misc/cuda_flags.h"
#include "ops/array_op.h"
#include "ops/binary_op.h"
#include "ops/broadcast_to_op.h"
#include "ops/code_op.h"
#include "ops/getitem_op.h"
#include "ops/index_op.h"
#include "ops/op_register.h"
#include "ops/reduce_op.h"
#include "ops/reindex_op.h"
#include "ops/reindex_reduce_op.h"
#include "ops/setitem_op.h"
#include "ops/ternary_op.h"
#include "ops/unary_op.h"
"""

# Jittor calls `python .../asm_tuner.py --cc_path=g++ KERNEL_op.cc FLAGS -o KERNEL_op.so`, with this for `python`.
# asm_tuner.py obeys marks in a kernel, "@begin ...", that rewrite its assembly; in the assembly of g++ 11 and newer it
# does not find them. A kernel is renamed when it is whole: another process that needs it may not wait for Jittor's lock
# (`compile_without_lock`), but where it asks for the same kernel meanwhile, it waits for that one.
SCRIPT = """\
python={python}
header={header}
case "$1" in
*/asm_tuner.py) ;;
*) exec "$python" "$@" ;;
esac
compiler=${{2#--cc_path=}}
kernel=${{3%.cc}}
exec 9> "$kernel.lock"
if command -v flock > /dev/null && ! flock -n 9; then
    flock 9
    [ "$kernel.so" -nt "$3" ] && exit
fi
if {rewrites} && grep -q @begin "$3"; then
    "$python" "$@" -include "$header" || "$python" "$@"
else
    (shift 2; exec "$compiler" "$@" -include "$header" {options} -o "$kernel.$$") && mv "$kernel.$$" "$kernel.so" ||
        "$python" "$@"
fi
result=$?
rm -f "$kernel.s" "$kernel.post.s" "$kernel.$$" "$kernel.lock"
exit $result
"""


def compile_core_faster():
    """Makes the import of Jittor that follows compile many missing files at once with a precompiled header."""
    import jittor_utils

    if usable(jittor_utils):
        jittor_utils.run_cmds = reading_headers_once(jittor_utils.run_cmds, jittor_utils.cc_path)


def reading_headers_once(run_cmds, compiler, at_least=50):
    """`jittor_utils.run_cmds`, which runs the compiler's commands first with a precompiled header.

    It does so where many of the files are not yet made. Jittor keeps the command beside the file that it has made, and
    compiles again when that changes. So the precompiled header is taken out of what was kept: a Jittor imported without
    this module finds everything done.
    """

    def run(cmds, cache_path, jittor_path, *message):
        own = [
            cmd for cmd in cmds if cmd.startswith(f'"{compiler}" ') and " -c -o " in cmd
        ]  # not nvcc's
        missing = [cmd for cmd in own if not made_by(cmd).exists()]
        if len(missing) >= at_least:
            with contextlib.suppress(Exception):  # then all are compiled as ever
                options = shlex.split(missing[0].split(" -c -o ")[0])[2:]
                header = precompiled(Path(cache_path), "core", CORE_HEADER, compiler, options)
                include = f' -include"{header}"'
                including = [cmd.replace(" -c -o ", f"{include} -c -o ") for cmd in missing]
                try:
                    run_cmds(including, cache_path, jittor_path, *message)
                finally:
                    for kept in [Path(f"{made_by(cmd)}.key") for cmd in missing]:
                        if kept.exists():
                            kept.write_text(kept.read_text().replace(include, "", 1))
        try:
            return run_cmds(cmds, cache_path, jittor_path, *message)
        finally:
            for used in Path(cache_path).glob("core_*.h*"):
                used.unlink(missing_ok=True)

    return run


def compile_kernels_faster():
    """Makes Jittor compile its kernels with a precompiled header, which the first call on a machine prepares.

    It takes four seconds and 95 MB in Jittor's cache. Where it cannot be had, kernels are compiled as Jittor does it.
    """
    import jittor as jt
    import jittor_utils

    if not usable(jittor_utils):
        return
    try:
        cache, compiler = Path(jt.flags.cache_path), jt.flags.cc_path
        # With -g it serves kernels with debugging information and without.
        header = precompiled(
            cache, "kernels", KERNEL_HEADER, compiler, ["-g", *shlex.split(jt.flags.cc_flags)]
        )
        script = header.with_suffix(".sh")
        place(script, script_for(header, compiler))
    except (OSError, ValueError, subprocess.SubprocessError):
        return
    jt.flags.python_path = f'sh "{script}"'


def made_by(command):
    """The file that a compiler's command makes."""
    return Path(shlex.split(command)[-1])


def usable(jittor_utils):
    return sys.platform.startswith("linux") and jittor_utils.cc_type == "g++"


def compile_without_lock():
    """Lets several processes compile kernels at the same time; else one of them waits for the other, for each kernel.

    For tests. Two that need the same kernel at the same time make it once. Jittor writes a kernel's source anew in each
    process, and reads it again; what is there is left alone here, else one could read it while another writes it.
    """
    import jittor as jt

    if jt.flags.python_path.startswith("sh "):
        jt.flags.disable_lock, jt.flags.rewrite_op = 1, 0


def script_for(header, compiler):
    """The shell script that compiles a kernel with a header."""
    version = subprocess.run(
        [compiler, "-dumpversion"], check=True, capture_output=True, text=True
    ).stdout
    rewrites = "false" if int(version.split(".")[0]) >= 11 else "true"
    paths = {"python": shlex.quote(sys.executable), "header": shlex.quote(str(header))}
    return SCRIPT.format(
        **paths, rewrites=rewrites, options=" ".join(["-pipe", *faster_linker(compiler)])
    )


def faster_linker(compiler):
    """The option by which the compiler links with gold, where it is installed: a fifth of a kernel's time is ld's."""
    option = "-fuse-ld=gold"
    found = subprocess.run(
        [compiler, option, "-Wl,--version"], stdin=subprocess.DEVNULL, capture_output=True
    )
    return [option] if found.returncode == 0 else []


def precompiled(folder, name, text, compiler, options):
    """The path of a header with this text, which lies in the folder beside what g++ has made of it.

    Its name holds what it depends on: the text, the options and the compiler, by its path and its date.

    Args:
        name: how the header's name begins.
        options: the compiler's, a list; those for linking do not count.

    Raises:
        OSError, subprocess.SubprocessError: It cannot be written or compiled.
    """
    options = [
        option for option in options if not option.startswith(("-l", "-L", "-Wl,", "-shared"))
    ]
    date = os.stat(shutil.which(compiler) or compiler).st_mtime_ns
    key = hashlib.md5(repr((text, options, compiler, date)).encode()).hexdigest()[:8]
    header = folder / f"{name}_{key}.h"
    made = Path(f"{header}.gch")
    if not made.is_file():
        place(header, text)
        temporary = made.with_name(f"{made.name}.{os.getpid()}")
        try:
            command = [compiler, "-x", "c++-header", str(header), *options, "-o", str(temporary)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            for older in folder.glob(f"{name}_*.gch"):
                older.unlink(missing_ok=True)
            os.replace(temporary, made)
        except (OSError, subprocess.SubprocessError):
            header.unlink(missing_ok=True)
            raise
        finally:
            temporary.unlink(missing_ok=True)
    return header


def place(path, text):
    """Writes a file, unless it is there with that text; another process sees the whole file or none."""
    if not path.is_file() or path.read_text() != text:
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)
