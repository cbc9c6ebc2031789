"""Runs of small, untrained networks of every script, for tools/demo.py."""

from common import EMA
from common.data import instances, label_maps

import numpy as np
from registry import ROWS, load
from untrained import write_checkpoint

# Averages that are there with --ema_decay 0 too.
WITHOUT_AVERAGE = {"cyclegan": {"averaged_G": "G", "averaged_F": "F"}}


def find_in_data(name, script, args):
    """Sets what a training finds in the built-in data."""
    built_in = script.parse_args([])
    if name == "spade":
        label_maps.load(built_in, "test")
        args.n_classes = built_in.n_classes
    elif name == "pix2pixhd":
        instances.load(built_in, "test")
        args.n_classes = built_in.n_classes
    elif name == "stargan":
        data = script.load(built_in, "test")
        script.settle_attributes(args, data)
    elif name in ("text2img", "stackgan") and args.text is None:
        args.text = ["a thin blue nine"]


def write_run(name, folder, *flags):
    """Writes a checkpoint of small, untrained networks; averages have other weights."""
    script = load(name)
    args = script.parse_args([str(a) for a in (*ROWS[name].flags, *flags)])
    find_in_data(name, script, args)
    parts = dict(zip(ROWS[name].networks, script.build(args)))
    others = dict(zip(ROWS[name].networks, script.build(args)))
    for average, network in WITHOUT_AVERAGE.get(name, {}).items():
        parts[average] = EMA(parts[network], args.ema_decay)
    for network, part in ROWS[name].networks.items():
        if part != network:
            parts[part] = EMA(others[network], args.ema_decay)
    if name == "pix2pixhd":
        parts["looks"] = random_looks(script, args)
    return write_checkpoint(name, args, parts, folder)


def random_looks(script, args):
    """Looks of pix2pixhd.py, all of them known."""
    looks = script.Looks(args.n_classes, args.n_clusters, args.feature_dim)
    looks.centres[:] = np.random.default_rng(0).uniform(-1, 1, looks.centres.shape)
    looks.counts[:] = args.n_clusters
    return looks
