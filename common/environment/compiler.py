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
# asm_tuner.py is needed for what stands between "@begin" and "@end"; the assembly that it leaves is 1.6 MB a kernel.
SCRIPT = """\
python={python}
header={header}
case "$1" in
*/asm_tuner.py) ;;
*) exec "$python" "$@" ;;
esac
compiler=${{2#--cc_path=}}
kernel=${{3%_op.cc}}
if grep -q @begin "$3"; then
    "$python" "$@" -include "$header" || "$python" "$@"
else
    (shift 2; exec "$compiler" "$@" -include "$header") || "$python" "$@"
fi
result=$?
rm -f "${{kernel}}_op.s" "${{kernel}}_op.post.s"
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
        header = precompiled(Path(jt.flags.cache_path), shutil.which(jt.flags.cc_path), jt.flags.cc_flags)
        script = header.with_suffix(".sh")
        place(script, SCRIPT.format(python=shlex.quote(sys.executable), header=shlex.quote(str(header))))
    except (OSError, subprocess.SubprocessError):
        return
    jt.flags.python_path = f'sh "{script}"'


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
