"""Trains a script's twin: the same run, with each training step computed by PyTorch.

    python tools/twin.py dcgan --n_epochs 60 --n_samples 10000 --out_dir results/dcgan_twin

All flags after the script's name are the script's. Initial weights, data, noise, averaging and pictures are the
script's own, so that the two runs can be compared by `tools/evaluate.py`; only dropout draws other numbers. Needs
PyTorch (`pip install torch`). A twin cannot be resumed: its optimizers' state is PyTorch's.
"""

import importlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from tools.twins import Twin


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    root = Path(__file__).resolve().parents[1]
    names = sorted(
        file.stem for file in (root / "tools/twins").glob("*.py") if file.stem != "__init__"
    )
    if not argv or argv[0] not in names or "--resume" in argv:
        print(
            f"twin.py: error: give a script of {', '.join(names)}, then its flags without --resume",
            file=sys.stderr,
        )
        raise SystemExit(2)
    script, twin = importlib.import_module(argv[0]), Twin(argv[0])
    seconds = 0.0

    def train_step(*args, **kwargs):
        nonlocal seconds
        start = time.perf_counter()
        losses = twin.train_step(*args, **kwargs)
        seconds += time.perf_counter() - start
        return losses

    script.train_step = train_step
    result = script.main(argv[1:])
    print(f"PyTorch's steps took {seconds / 60:.1f} minutes, with the copies between the two.")
    return result


if __name__ == "__main__":
    main()
