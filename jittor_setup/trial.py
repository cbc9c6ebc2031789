"""Tries the GPU with probe.py, once for each state of the machine.

probe.py runs as a separate process, since Jittor may abort or hang if CUDA does not
suit it. The outcome is kept in Jittor's cache folder, with a hash of all that it
depends on.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from .cache import locked
from .errors import GpuUnusable, say
from .find_cuda import output
from .requirements import compiler_name

PROBE = Path(__file__).with_name("probe.py")
PROBE_SECONDS = 1800  # compiling Jittor with CUDA takes some minutes


def check(cache, found):
    """Returns if Jittor works on the GPU, according to this trial or an earlier one.

    Args:
        cache: Jittor's cache folder.
        found: What was found on this machine, as JSON could store it. The last two are
            the paths of nvcc and of cuDNN's header.

    Raises:
        GpuUnusable: It does not.
    """
    key = key_of(found)
    kept = cache / "gpu_verdict.json"
    log = cache / "gpu_probe.log"
    # If several processes start together, one tries and the others read what it found.
    with locked(cache / "gpu_probe.lock"):
        reason = read_verdict(kept, key)
        if reason is None:
            reason = run_probe(log)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"key": key, "reason": reason}))
            os.replace(temporary, kept)
    if reason:
        raise GpuUnusable(f"{reason}; see {log}, and remove {kept} to try again")


def key_of(found):
    """A hash of everything that the outcome of the trial depends on."""
    compiler = compiler_name()
    key = [
        *found,
        [os.stat(path).st_mtime_ns for path in found[-2:]],
        output([compiler, "--version"], compiler).splitlines()[0],
        sys.version,
        importlib.metadata.version("jittor"),
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def read_verdict(path, key):
    """The reason kept for this key, "" if the GPU works; None if nothing is kept."""
    try:
        verdict = json.loads(path.read_text())
        if verdict["key"] == key and isinstance(verdict["reason"], str):
            return verdict["reason"]
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged
        pass
    return None


def run_probe(log):
    """Runs probe.py, with its output in the file `log`; returns "" or the failure."""
    say("Trying the GPU, once on this machine: Jittor compiles for it, which takes some minutes.")
    # Jittor may end its first import with exit code 0 and ask for the program to be run
    # again, when it has rebuilt a library that it had already loaded.
    for _ in range(2):
        with open(log, "w") as file:
            try:
                code = subprocess.run(
                    [sys.executable, str(PROBE)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    timeout=PROBE_SECONDS,
                ).returncode
            except subprocess.TimeoutExpired:
                return f"the trial of the GPU took more than {PROBE_SECONDS / 60:.0f} minutes"
        lines = log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else ""
        if code != 0 or last.startswith("GPU: "):
            break
    if code == 0 and last == "GPU: correct results":
        return ""
    if last.startswith("GPU: "):
        return f"the trial of the GPU failed ({last[len('GPU: ') :]})"
    return f"the trial of the GPU ended with code {code}"
