"""Runs of small, untrained networks of every script, for tools/demo.py."""

from common import EMA, checkpoint
from common.cli import stored

from registry import ROWS, load

ATTRIBUTES = ["red", "green", "blue", "bold", "inverted"]
MORE_FLAGS = {  # what a training would find in the data
    "spade": ["--n_classes", 13],
    "stargan": ["--selected_attrs", *ATTRIBUTES, "--exclusive", "red", "green", "blue"],
}
# Averages that are there with --ema_decay 0 too.
WITHOUT_AVERAGE = {"cyclegan": {"averaged_G": "G", "averaged_F": "F"}}


def write_run(name, folder, *flags):
    """Writes a checkpoint of small, untrained networks; averages have other weights."""
    script = load(name)
    argv = [*ROWS[name].flags, *MORE_FLAGS.get(name, []), *flags]
    args = script.parse_args([str(a) for a in argv])
    parts = dict(zip(ROWS[name].networks, script.build(args)))
    others = dict(zip(ROWS[name].networks, script.build(args)))
    for average, network in WITHOUT_AVERAGE.get(name, {}).items():
        parts[average] = EMA(parts[network], args.ema_decay)
    for network, part in ROWS[name].networks.items():
        if part != network:
            parts[part] = EMA(others[network], args.ema_decay)
    meta = {
        "script": name,
        "args": stored(args),
        "step": 0,
        "epoch": 0,
        "n_images": 0,
        "phase": "",
        "losses": {},
        "rng": {},
        "order": {},
    }
    folder.mkdir()
    checkpoint.save(folder / checkpoint.FILE_NAME, parts, meta)
    return folder
