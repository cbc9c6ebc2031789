"""What the C++ kernels of `fast` share: whether they can run, and how they are called."""

import jittor as jt

# Waking the other threads costs microseconds, and much more on a busy machine: fewer elements do not repay it.
HEADER = "#include <cmath>\n#define WORTH_SHARING(n) ((n) >= 65536)\n"

enabled = True  # off in tests, which then see Jittor's operators at work, as they are on a GPU


def fits(*variables):
    """Whether the kernels can run on these variables."""
    return enabled and not jt.flags.use_cuda and all(v.dtype == "float32" for v in variables)


def kernel(shapes, inputs, source, header="", /, **data):
    """Runs C++ source on float32 arrays: in0_p, in1_p, ... to out0_p, out1_p, ... of the given shapes.

    `data` are numbers that the source reads as doubles, data["name"]. They are no part of the text that is
    compiled, nor are the shapes: one kernel serves all learning rates and sizes.
    """
    return jt.code(
        shapes,
        ["float32"] * len(shapes),
        inputs,
        cpu_src=source,
        cpu_header=HEADER + header,
        data=data,
    )
