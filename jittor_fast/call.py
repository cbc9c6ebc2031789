"""How the C++ kernels are called, and whether they can run.

The functions of `kernels/*.h` are compiled by Jittor, each with the operator that calls
it.
"""

from pathlib import Path

import jittor as jt

FOLDER = Path(__file__).with_name("kernels")

enabled = True  # tests switch the kernels off, to run Jittor's operators as on a GPU


def fits(*variables):
    """Whether the kernels can run on these variables: float32 on a CPU."""
    return enabled and not jt.flags.use_cuda and all(v.dtype == "float32" for v in variables)


def header(name):
    """The text of a file in `kernels`, with the files of that folder that it includes.

    Jittor names a compiled kernel after its text, so that a changed file is compiled
    again. A path to include would not be noticed.
    """
    lines = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith('#include "'):
            line = header(line.split('"')[1])
        lines.append(line)
    return "\n".join(lines) + "\n"


def call(function, n_inputs, n_outputs, scalars):
    """The line of C++ that calls a kernel: scalars, then inputs, then outputs.

    Args:
        scalars: {name: value}. Jittor hands the values over as doubles at each call;
            the compiled text has only their names. So one kernel serves all sizes
            and rates.
    """
    arguments = [f'data["{name}"]' for name in scalars]
    arguments += [f"in{i}_p" for i in range(n_inputs)]
    arguments += [f"out{i}_p" for i in range(n_outputs)]
    return f"jittor_fast::{function}({', '.join(arguments)});"


def kernel(text, function, shapes, inputs, /, **scalars):
    """Calls a C++ function on float32 arrays.

    Args:
        text: of the header that holds the function.
        function: its name.
        shapes: of the outputs.
        inputs: Vars.
        scalars: the function's first arguments, in the order of its parameters.

    Returns:
        A list of the outputs.
    """
    return jt.code(
        shapes,
        ["float32"] * len(shapes),
        inputs,
        cpu_src=call(function, len(inputs), len(shapes), scalars),
        cpu_header=text,
        data=scalars,
    )
