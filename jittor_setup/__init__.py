"""Prepares the environment in which Jittor is imported: oneDNN, the choice of CPU or GPU, a quiet screen.

Jittor reads its settings from environment variables while it is imported, and compiles itself at the first
import. A variable that the user has set always wins.
"""

import atexit
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import ssl
import sys
import tempfile
import threading
from pathlib import Path

from . import gpu
from .compiler import compile_core_faster, compile_kernels_faster

ONEDNN = "dnnl_lnx_2.2.0_cpu_gomp"  # the folder in which Jittor 1.3 looks for oneDNN before it downloads it
verdict = gpu.Verdict("cpu")  # on this machine's GPU; `prepare` decides
NEWEST_PYTHON = (3, 12)  # Jittor 1.3 needs numpy below 2, which has no wheels for a newer Python


def prepare():
    """Sets the variables that Jittor reads at import, and links oneDNN; exits with one line if it cannot work."""
    if "jittor" in sys.modules:
        raise ImportError(
            "'import common' has to come before 'import jittor': it prepares Jittor's environment"
        )
    check_requirements()
    cache = cache_folder()
    link_onednn(cache)
    defaults = {
        "FIX_TORCH_ERROR": "0",  # else Jittor imports torch wherever it is installed
    }
    if os.environ.get("JITTOR_VERBOSE", "0") in ("", "0"):
        defaults["log_silent"] = "1"
    config = python_config()
    if config is not None:
        defaults["python_config_path"] = config
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    global verdict
    verdict = gpu.decide(
        sys.argv, cache
    )  # its trial must compile the Jittor that the run then imports
    if not core_is_compiled(cache):
        print(
            "Compiling Jittor, once on this machine: about three minutes on two cores.",
            file=sys.stderr,
            flush=True,
        )


def import_jittor():
    """Imports Jittor, restores its warnings, and takes back what its import changes in other modules."""
    import numpy
    import PIL.Image

    # Jittor's libraries make the processor flush subnormals to zero; numpy warns if it notices that too late.
    numpy.finfo(numpy.float32), numpy.finfo(numpy.float64)
    https_context, image_open = ssl._create_default_https_context, PIL.Image.open
    compile_core_faster()
    import jittor
    import jittor_utils

    ssl._create_default_https_context = (
        https_context  # Jittor switches certificate checks off for urllib
    )
    PIL.Image.open = image_open  # and wraps Pillow's open
    if threading.current_thread() is threading.main_thread():
        # Jittor ends the whole process without a word when any child of it is killed by a signal.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.environ.get("JITTOR_VERBOSE", "0") in ("", "0"):
        jittor.flags.log_silent = 0
        jittor_utils.LOG.log_silent = 0
    close_compiler_pool(jittor_utils)
    compile_in_parallel(False)
    compile_kernels_faster()
    return jittor


def choose_device(wanted):
    """Sets jt.flags.use_cuda by --device, "auto" (a GPU where one is usable), "cpu" or "cuda", and says what computes.

    Raises:
        UserError: "cuda" is asked for, and no GPU can be used.
    """
    from common.errors import UserError, say

    import jittor as jt

    found = verdict
    # Jittor keeps a missing library to itself where it is silent, and computes its convolutions as plain loops.
    missing = [
        name for name in ("cudnn", "cublas", "curand") if not getattr(jt.compile_extern, name, None)
    ]
    if found.device == "cuda" and (not jt.has_cuda or missing):
        found = gpu.Verdict(
            "cpu", found.gpu, f"Jittor does not find {', '.join(missing) or 'CUDA'}"
        )
    if wanted == "cuda" and found.device == "cpu":
        raise UserError(
            f"--device cuda: {found.reason or 'no GPU was found'}; use --device cpu, or auto"
        )
    jt.flags.use_cuda = int(found.device == "cuda" and wanted != "cpu")
    if wanted != "cpu":
        say(found.line())


def compile_in_parallel(on):
    """Lets Jittor compile kernels on all cores, or one after the other; a user's choice of it stays.

    The first step of a model compiles dozens, and Jittor shows how far it is. At any other time its threads are no
    help, and a run that ends before they have begun to wait would wait for them forever.
    """
    import jittor

    if "use_parallel_op_compiler" not in os.environ:
        jittor.flags.use_parallel_op_compiler = min(os.cpu_count() or 1, 16) if on else 0


def close_compiler_pool(jittor_utils):
    """Ends the processes with which Jittor has compiled or checked its core.

    They would stay for the whole run, and a Ctrl-C, which reaches them too, would make Jittor end the run at once.
    """
    if jittor_utils.pool_size:
        jittor_utils.p.close()
        jittor_utils.p.join()
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_size = 0  # Jittor starts new ones if it needs them


def fail(message):
    """Ends the program with one line on standard error and exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check_requirements():
    """Python, numpy, Jittor and the compiler, each with the one line that says what to do about it."""
    if sys.version_info[:2] > NEWEST_PYTHON:
        fail(
            f"Python {platform.python_version()} is too new for Jittor 1.3: "
            "use Python 3.9 to 3.12, for example 'python3.11 -m venv env'"
        )
    try:
        numpy_version = importlib.metadata.version("numpy")
        importlib.metadata.version("jittor")
    except importlib.metadata.PackageNotFoundError as missing:
        fail(
            f"the package {missing.name or missing} is not installed: run 'pip install -r requirements.txt'"
        )
    if int(numpy_version.split(".")[0]) >= 2:
        fail(f"numpy {numpy_version} does not work with Jittor 1.3: run 'pip install \"numpy<2\"'")
    compiler = os.environ.get("cc_path") or "g++"
    if shutil.which(compiler) is None:
        fail(
            f"the C++ compiler {compiler} was not found, and Jittor compiles its kernels with it: "
            "install it, for example 'sudo apt install g++'"
        )


def python_config():
    """The pythonX.Y-config of the Python that a virtual environment was made from, or None.

    Jittor asks it for Python's headers, but does not look beside that Python, where pyenv and conda have it.
    """
    name = f"python3.{sys.version_info.minor}-config"
    path = Path(sys.base_prefix) / "bin" / name
    if path.is_file():
        return str(path)
    if not any((Path(folder) / name).is_file() for folder in ("/usr/bin", "/usr/local/bin")):
        fail(
            f"{name} was not found, and Jittor needs Python's headers: install python3.{sys.version_info.minor}-dev"
        )
    return None


def cache_folder():
    """Jittor's cache folder, `<JITTOR_HOME or home>/.cache/jittor`, made and proved writable."""
    settings = (
        Path.home() / ".cache" / "jittor" / "config.json"
    )  # Jittor keeps an earlier JITTOR_HOME here
    try:
        remembered = (
            json.loads(settings.read_text()).get("JITTOR_HOME") if settings.is_file() else None
        )
    except (OSError, ValueError):
        remembered = None
    if os.environ.get("JITTOR_HOME") == "":
        del os.environ["JITTOR_HOME"]  # Jittor would take it for a path
    home = Path(os.environ.get("JITTOR_HOME") or remembered or Path.home())
    cache = Path(os.path.abspath(home)) / ".cache" / "jittor"
    for folder in {cache, settings.parent}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            fail(
                f"Jittor cannot write its cache folder {folder} ({error.strerror}): "
                "make it writable, or set HOME and JITTOR_HOME to a folder that is"
            )
    return cache


def link_onednn(cache):
    """Links the oneDNN of the Python wheels to where Jittor looks; without the wheels Jittor downloads its own.

    Jittor wants `<cache>/mkl/dnnl_lnx_2.2.0_cpu_gomp/{lib/libmkldnn.so,include}`. A working installation
    there is left alone; a link whose target has gone is replaced. Two processes may do this at once.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return
    target = cache / "mkl" / ONEDNN
    library = wheel_folder("onednn-cpu-gomp", "libmkldnn.so")
    headers = wheel_folder("onednn-devel-cpu-gomp", "dnnl.hpp")
    if library is None or headers is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "lib" / "libmkldnn.so").is_file():
        place_link(library, target / "lib")
    if not (target / "include" / "dnnl.hpp").is_file():
        place_link(headers, target / "include")


def wheel_folder(package, file_name):
    """The folder in which an installed package has `file_name`, or None."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        located = Path(file.locate())
        if file.name == file_name and located.is_file():
            return located.resolve().parent
    return None


def place_link(source, link):
    """Makes `link` point to the folder `source`; in the place of a half-filled folder, links what is in `source`."""
    if link.is_dir() and not link.is_symlink():
        for file in source.iterdir():
            if not (link / file.name).exists():
                place_link(file, link / file.name)
        return
    # A link under a name of its own, then renamed: another process sees the old link or the new, never none.
    temporary = link.with_name(f"{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    os.replace(temporary, link)


def core_is_compiled(cache):
    """Whether Jittor's compiled core for this Python and this installation lies in the cache."""
    installed = importlib.util.find_spec("jittor_utils").origin
    key = hashlib.md5(installed.encode()).hexdigest()[:4]  # Jittor names the folder so
    pattern = str(
        cache
        / "jt*"
        / "*"
        / f"py{platform.python_version()}"
        / "*"
        / "*"
        / key
        / "**"
        / "jittor_core*"
    )
    return bool(glob.glob(pattern, recursive=True))
