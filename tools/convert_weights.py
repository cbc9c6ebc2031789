"""Converts a file of PyTorch's weights into an `.npz`, which holds no code.

    python tools/convert_weights.py VGG19.pth vgg19.npz

`spade.py --vgg vgg19.npz` reads the result, for torchvision's `vgg19`. The names of the
arrays are those of the state dict, `features.0.weight` and so on. PyTorch itself is not
needed, and no code of the file runs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint import write_atomically
from common.cli import ToolParser
from common.data.layout import expanded
from common.errors import UserError, print_line
from common.torch_files import read_weights


def parse_args(argv=None):
    parser = ToolParser(
        "convert_weights.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="a state dict that PyTorch has saved")
    parser.add_argument("target", metavar="TARGET", help="the .npz file to write")
    args = parser.parse_args(argv)
    if not args.target.endswith(".npz"):
        parser.error(f"{args.target}: the target ends in .npz")
    return args


def convert(source, target):
    """Writes the weights of a file of PyTorch to an `.npz` file.

    Raises:
        UserError: the source cannot be read, or the target cannot be written.
    """
    weights = read_weights(expanded(source))
    target = expanded(target)
    write_atomically(target, lambda file: np.savez(file, **weights))
    print(f"Wrote {len(weights)} arrays to {target}.")


def main(argv=None):
    args = parse_args(argv)
    try:
        convert(args.source, args.target)
    except UserError as error:
        print_line("stderr", f"convert_weights.py: error: {error}")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
