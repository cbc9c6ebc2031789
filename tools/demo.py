"""Opens a page in the browser to play with trained models.

    python tools/demo.py results/cgan_mnist
    python tools/demo.py results/pix2pix results/text2img results/dcgan --port 8000

RUN is the folder of a run, or a checkpoint, of any script; several runs become several
tabs. What the page asks for depends on the script:

    cgan_mnist, biggan            a number to write, or any classes
    gan, dcgan, wgan, ..., vae    two seeds, and a walk from one to the other
    infogan                       a slider for each code
    text2img, stackgan            a sentence, in the language of the run's captions
    pix2pix                       a canvas for outlines, or a picture to upload
    context_encoder               a picture to brush a hole on; also pix2pix's inpaint
    cyclegan, unit                a picture to upload, in both directions
    srgan                         a small picture to upload, which becomes larger
    stargan                       a picture, and a slider for each attribute
    spade                         a canvas for label maps, and a picture for the style
    pix2pixhd                     a canvas for label maps, and looks of their objects

The page is for this machine alone: it listens on 127.0.0.1, and needs no network.
Ctrl-C ends it. It needs gradio, on Python 3.10 to 3.12:

    pip install -r requirements-demo.txt
"""

import argparse
import importlib.metadata
import os
import signal
import socket
import sys
import tempfile
import webbrowser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common.cli import HelpFormatter, number
from common.errors import UserError, say

import jittor as jt

from jittor_setup import compile_in_parallel
from tools.pages.kinds import kind_of, model_of
from tools.pages.networks import load_run
from tools.pages.worker import Worker

INSTALL = "pip install -r requirements-demo.txt"
OLDEST_GRADIO = (6, 20)  # earlier pages load fonts and a script from elsewhere
ADDRESS = "127.0.0.1"  # other machines cannot reach it
HOSTS = f"{ADDRESS},localhost"
# gradio reads these when it is imported, or when it starts.
ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser("demo.py", description=__doc__, formatter_class=HelpFormatter)
    parser.error = lambda message: parser.exit(2, f"demo.py: error: {message}\n")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder or checkpoint of a run")
    parser.add_argument(
        "--port",
        type=number(int, at_least=1, at_most=65535),
        help="port of the page (default: the first free one from 7860 on)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute"
    )
    parser.add_argument("--no_browser", action="store_true", help="print the address only")
    parser.add_argument(
        "--share",
        action="store_true",
        help="also open a public address through a server of gradio, for everybody who knows it",
    )
    return parser.parse_args(argv)


def check_gradio():
    """Refuses to start without gradio, before any run is loaded.

    Raises:
        UserError: it is not installed, or in another version.
    """
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"the page needs gradio (Python 3.10 to 3.12): {INSTALL}") from error
    major, minor, *_ = version.split(".")
    oldest_major, oldest_minor = OLDEST_GRADIO
    if int(major) != oldest_major or int(minor) < oldest_minor:
        raise UserError(f"the page needs gradio 6.20 or a later 6, not {version}: {INSTALL}")


def check_port(port):
    """Refuses a port before any kernel is compiled.

    Raises:
        UserError: another program listens on it, or it is for the system alone.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((ADDRESS, port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be used: {error.strerror}") from error


def title_of(path, titles):
    """The name of a run's folder, or of a checkpoint's, that no other tab has."""
    path = Path(path).expanduser().resolve()
    name = path.parent.name if path.is_file() else path.name
    title = name
    n = 1
    while title in titles:
        n += 1
        title = f"{name} ({n})"
    return title


def load_models(args):
    """{title: model} of all runs, in their order.

    Raises:
        UserError: a path is no run, or a run has no page.
    """
    flags = ["--device", args.device]
    runs = {}
    for path in args.runs:  # all of them, before the first one compiles kernels
        run = load_run(path, flags)
        kind_of(run.args)
        runs[title_of(path, runs)] = run
    say("Drawing the first pictures; the first time their kernels are compiled.")
    compile_in_parallel(True)
    models = {title: model_of(run) for title, run in runs.items()}
    compile_in_parallel(False)
    return models


def prepare_environment(folder):
    """Makes gradio keep to this machine; before it is imported.

    Args:
        folder: for uploaded files and pictures.
    """
    os.environ.update(ENVIRONMENT)
    os.environ["GRADIO_TEMP_DIR"] = folder
    for name in ("NO_PROXY", "no_proxy"):  # it asks itself whether the page is there
        others = os.environ.get(name)
        os.environ[name] = f"{HOSTS},{others}" if others else HOSTS


def shows_browser():
    """Whether a browser can open a window; one in the terminal would take it over."""
    if sys.platform != "linux":
        return True
    names = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER")
    return any(os.environ.get(name) for name in names)


def open_page(args, models, worker):
    """Starts the server in threads of its own; returns the app.

    Raises:
        UserError: no port is free.
    """
    from tools.pages import layout  # only here: it imports gradio

    app = layout.blocks(models, worker)
    try:
        app.launch(
            server_name=ADDRESS,
            server_port=args.port,
            share=args.share,
            **layout.launch_options(),
        )
    except OSError as error:
        raise UserError(f"no port is free: choose another --port ({error})") from error
    return app


def serve(args):
    """Shows the page until Ctrl-C.

    Raises:
        UserError: gradio, a run or the port cannot be used.
    """
    check_gradio()
    if args.port is not None:
        check_port(args.port)
    jt.flags.use_cuda = common.choose_device(args.device)
    models = load_models(args)
    worker = Worker()
    with tempfile.TemporaryDirectory(prefix="demo_", ignore_cleanup_errors=True) as folder:
        prepare_environment(folder)
        app = open_page(args, models, worker)
        for name in (signal.SIGINT, signal.SIGTERM):  # Jittor's own handler ends at once
            signal.signal(name, signal.default_int_handler)
        say(f"The page is at {app.local_url} (Ctrl-C ends it).")
        if not args.no_browser and shows_browser():
            webbrowser.open(app.local_url)
        try:
            worker.serve()  # this thread is the one that loaded the networks
        except KeyboardInterrupt:
            say("Closed.")
        finally:
            app.close(verbose=False)


def main(argv=None):
    args = parse_args(argv)
    try:
        serve(args)
    except UserError as error:
        print(f"demo.py: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        raise SystemExit(130) from stop


if __name__ == "__main__":
    main()
