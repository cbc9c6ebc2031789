"""The trained networks of a run, and pictures as a page shows them."""

import common
from common.errors import UserError, warn
from common.images import as_rgb, make_grid, to_uint8

import math
from dataclasses import dataclass
from typing import Any

import jittor as jt
import numpy as np

from tools.runs import open_run

# Pictures whose longer side has fewer pixels are enlarged, unless their images are
# photographs, of which nobody wants to see the pixels.
SMALLEST = 384
PHOTOGRAPH = 256


class Networks(dict):
    """{name: network}; a name that is missing is a UserError."""

    def __missing__(self, name):
        raise UserError(f"the checkpoint holds no network {name}")


@dataclass
class TrainedRun:
    """A run whose networks are loaded.

    Attributes:
        script: the script that trained it, as a module.
        args: its arguments.
        networks: the `Networks` in eval mode, with averaged weights where there are.
        reader: the checkpoint's `Reader`, for what is no network.
    """

    script: Any
    args: Any
    networks: Networks
    reader: Any = None


def load_run(path, flags=()):
    """The `TrainedRun` of a run's folder, or of a checkpoint.

    Raises:
        UserError: it is none, or is damaged.
    """
    script, args, reader = open_run(path, flags=flags)
    return TrainedRun(script, args, load_networks(script, args, reader), reader)


def load_networks(script, args, reader):
    """The networks that a script builds, with the weights of a checkpoint.

    A checkpoint holds the networks first, in the order in which `build` returns them;
    their names, and those of their averages, are the script's.

    Args:
        reader: the `checkpoint.Reader`.

    Raises:
        UserError: the checkpoint is damaged, or does not fit its own arguments.
    """
    names = list(reader.meta["values"])
    built = script.build(args)
    if isinstance(built, jt.nn.Module):
        built = [built]
    built = [network for network in built if network is not None]  # pix2pixhd.py's encoder
    networks = Networks(zip(names, built))
    parts = dict(networks)
    for name in names:
        if name.startswith("averaged"):
            source = source_of(name, list(networks))
            parts[name] = common.EMA(networks[source], args.ema_decay)
    reader.load(parts, exact=False)
    for name, part in parts.items():
        if isinstance(part, common.EMA):
            networks[source_of(name, list(networks))] = part.module
    for network in networks.values():
        network.eval()
    return networks


def source_of(average, names):
    """The name of the network of an average.

    Args:
        average: such as "averaged", "averaged_G" or "averaged1": the letter or number
            begins or ends the name of the network. Without one it is the first.
        names: of the networks.

    Raises:
        UserError: there is none; the file was not written by the script.
    """
    mark = average.removeprefix("averaged").strip("_").lower()
    for name in names:
        if name.lower().startswith(mark) or name.endswith(mark):
            return name
    raise UserError(f"the checkpoint holds an average, {average}, of no network")


def test_items(load):
    """The first array of `load()`, or None if the run's data are not there any more.

    Args:
        load: a function that returns some items of a test split as arrays.
    """
    try:
        return load()
    except (UserError, OSError) as error:
        warn(f"the page shows no test pictures: {error}")
        return None


def as_picture(images, nrow=1):
    """Images as one picture (height, width, 3) uint8, each pixel repeated if small.

    Args:
        images: (N, C, H, W) in [-1, 1]; of more than three channels the first three.
        nrow: images in a row.
    """
    pixels = to_uint8(as_rgb(images))
    padding = 0 if len(images) == 1 else 2
    grid = make_grid(pixels, nrow, padding)
    times = 1
    if max(images.shape[2:]) < PHOTOGRAPH:
        times = math.ceil(SMALLEST / max(grid.shape[:2]))
    return np.ascontiguousarray(grid.repeat(times, axis=0).repeat(times, axis=1))
