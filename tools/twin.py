"""Trains a script's twin: the same run, with each training step computed by PyTorch.

    python tools/twin.py dcgan --n_samples 10000 --out_dir results/dcgan_twin

All flags after the script's name are the script's. Initial weights, data, noise,
averaging and pictures are the script's own, so that tools/evaluate.py can compare the
two runs; only dropout draws other random numbers. It needs PyTorch (`pip install
torch`). A twin cannot be resumed, since the state of its optimizers is PyTorch's.
"""

import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.runs import ROOT, load_script


def names():
    """The scripts that have a twin."""
    files = (ROOT / "tools" / "twins").glob("*.py")
    return sorted(file.stem for file in files if file.stem != "__init__")


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    name = Path(argv[0]).stem if argv else None
    if name not in names() or "--resume" in argv:
        print(
            f"twin.py: error: give a script of {', '.join(names())}, "
            "then its flags without --resume",
            file=sys.stderr,
        )
        raise SystemExit(2)
    script = load_script(name)
    from tools.twins import Twin  # here, since it needs PyTorch

    twin = Twin(name)
    seconds = 0.0

    def timed(step, *args, **kwargs):
        nonlocal seconds
        start = time.perf_counter()
        losses = twin.step(step, *args, **kwargs)
        seconds += time.perf_counter() - start
        return losses

    for step in twin.steps():
        setattr(script, step, partial(timed, step))
    script.main(argv[1:])
    print(f"PyTorch's steps took {seconds / 60:.1f} minutes, with the copies to and from it.")


if __name__ == "__main__":
    main()
