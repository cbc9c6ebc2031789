"""Compiles kernels in a quarter of the time: without Python, and with Jittor's headers read once and for all.

Jittor compiles a kernel by a Python script, which calls the compiler twice, and nine tenths of the time go into reading
the same headers again. Here they are compiled once (a precompiled header of g++), and a shell script calls the compiler
directly. The machine code is the same. Where a kernel needs Jittor's script, or the shell script does not get through,
Jittor's script runs as ever.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# All kernels for the CPU begin with these two macros; the headers are those that the kernels of common/fast and
# of Jittor's own operators include. What a kernel does not need changes nothing in it.
HEADER = """\
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
# does not find them. A kernel is renamed when it is whole: another process that needs it may not wait for the lock.
SCRIPT = """\
python={python}
header={header}
case "$1" in
*/asm_tuner.py) ;;
*) exec "$python" "$@" ;;
esac
compiler=${{2#--cc_path=}}
kernel=${{3%.cc}}
if {rewrites} && grep -q @begin "$3"; then
    "$python" "$@" -include "$header" || "$python" "$@"
else
    (shift 2; exec "$compiler" "$@" -include "$header" -o "$kernel.$$") && mv "$kernel.$$" "$kernel.so" ||
        "$python" "$@"
fi
result=$?
rm -f "$kernel.s" "$kernel.post.s" "$kernel.$$"
exit $result
"""


def compile_faster():
    """Makes Jittor compile its kernels with a precompiled header, which the first call on a machine prepares.

    It takes four seconds and 95 MB in Jittor's cache. Where it cannot be had, kernels are compiled as Jittor does it.
    """
    import jittor as jt
    import jittor_utils

    if not sys.platform.startswith("linux") or jittor_utils.cc_type != "g++":
        return
    try:
        compiler = shutil.which(jt.flags.cc_path)
        header = precompiled(Path(jt.flags.cache_path), compiler, jt.flags.cc_flags)
        script = header.with_suffix(".sh")
        place(script, script_for(header, compiler))
    except (OSError, ValueError, subprocess.SubprocessError):
        return
    jt.flags.python_path = f'sh "{script}"'


def compile_without_lock():
    """Lets several processes compile kernels at the same time; else one of them waits for the other, for each kernel.

    For tests. Two that compile the same kernel both make it, whole.
    """
    import jittor as jt

    if jt.flags.python_path.startswith("sh "):
        jt.flags.disable_lock = 1


def script_for(header, compiler):
    """The shell script that compiles a kernel with a header."""
    version = subprocess.run([compiler, "-dumpversion"], check=True, capture_output=True, text=True).stdout
    rewrites = "false" if int(version.split(".")[0]) >= 11 else "true"
    return SCRIPT.format(python=shlex.quote(sys.executable), header=shlex.quote(str(header)), rewrites=rewrites)


def precompiled(cache, compiler, flags):
    """The path of the header, which lies in the folder `cache` beside what g++ has made of it.

    Its name holds what it depends on: the text, the flags and the compiler, by its path and its date.

    Raises:
        OSError, subprocess.SubprocessError: It cannot be written or compiled.
    """
    options = [flag for flag in shlex.split(flags) if not flag.startswith(("-l", "-L", "-Wl,", "-shared"))]
    compiler_date = os.stat(compiler).st_mtime_ns
    key = hashlib.md5(repr((HEADER, options, compiler, compiler_date)).encode()).hexdigest()[:8]
    header = cache / f"kernels_{key}.h"
    made = Path(f"{header}.gch")
    if not made.is_file():
        place(header, HEADER)
        temporary = made.with_name(f"{made.name}.{os.getpid()}")
        try:
            # With -g it serves kernels with debugging information and without.
            command = [compiler, "-g", "-x", "c++-header", str(header), *options, "-o", str(temporary)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            for older in cache.glob("kernels_*.gch"):
                older.unlink(missing_ok=True)
            os.replace(temporary, made)
        finally:
            temporary.unlink(missing_ok=True)
    return header


def place(path, text):
    """Writes a file, unless it is there with that text; another process sees the whole file or none."""
    if not path.is_file() or path.read_text() != text:
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)
