"""Chooses between the CPU and the GPU, once Jittor is imported."""

from . import gpu
from .errors import fail

# What was found out about this machine's GPU. `prepare` replaces it.
verdict = gpu.Verdict("cpu")

_announced = False  # whether the line about the device has been printed


def choose_device(wanted):
    """Returns the value of jt.flags.use_cuda: 1 for the GPU, 0 for the CPU.

        jt.flags.use_cuda = choose_device("auto")

    Prints one line that names the device, unless the CPU was asked for. The line
    appears only once in a run, and with several processes only the first one prints it.
    If "cuda" is wanted and cannot be used, the program ends with one line and exit code
    2. A command-line parser can ask `device_problem` before that.

    Args:
        wanted: "auto" (a GPU if there is a usable one), "cpu" or "cuda".
    """
    if wanted == "cpu":
        return 0
    problem = device_problem(wanted)
    if problem is not None:
        fail(problem)
    found = checked_verdict()
    announce(found)
    return int(found.device == "cuda")


def device_problem(wanted):
    """The reason, in one line, why a device cannot be used; None if it can.

    Args:
        wanted: As in `choose_device`. Only "cuda" can have a problem.
    """
    if wanted != "cuda":
        return None
    found = checked_verdict()
    if found.device == "cuda":
        return None
    reason = found.reason or "no GPU was found"
    return f"--device cuda: {reason}; use --device cpu, or auto"


def checked_verdict():
    """`verdict`, or the CPU if the imported Jittor lacks something for the GPU.

    If a library is missing, a silenced Jittor does not say so, and computes
    convolutions on the GPU as plain loops.
    """
    import jittor as jt

    if verdict.device == "cpu":
        return verdict
    missing = []
    for name in ("cudnn", "cublas", "curand"):
        if not getattr(jt.compile_extern, name, None):
            missing.append(name)
    if jt.has_cuda and not missing:
        return verdict
    return gpu.Verdict("cpu", verdict.gpu, f"Jittor does not find {', '.join(missing) or 'CUDA'}")


def announce(found):
    """Prints a verdict, once in a run and from one process only."""
    global _announced
    import jittor as jt

    if jt.rank == 0 and not _announced:
        print(found.line(), flush=True)
    _announced = True
