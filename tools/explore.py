"""Walks through the latent space of a trained model: any script that draws images from noise.

    python tools/explore.py results/dcgan --walk interpolate
    python tools/explore.py results/dcgan --walk arithmetic --plus 3,17,22 --minus 4,5,9
    python tools/explore.py results/dcgan --walk direction --attribute slant
    python tools/explore.py results/began --walk real
    python tools/explore.py results/cgan_mnist --walk interpolate --label 7

interpolate: eight rows, each from one random point to another. Normal noise lies near a sphere, so the way follows the
    arc between the two (White 2016, https://arxiv.org/abs/1609.04468); of uniform noise it is the straight line.
arithmetic: the mean of --plus minus the mean of --minus, added to --base (Radford 2015, section 6.3.2). The samples are
    numbered by row, from 0, in the grids of `samples/`. Four rows: minus, plus, base, result.
direction: five samples, each in two rows: along the direction in which an attribute changes most surely, found by
    logistic regression on 2,000 samples, and along one at right angles to it, for comparison. Nine steps from -4 to 4.
real: eight rows, each from one image of the data to another (Berthelot 2017, section 4.3): between the two images stand
    what the model draws nearest to either, from noise that Adam has found, and the way from one to the other. It shows
    what the model cannot draw. Images are of the test part, where the data has one.

The picture is OUT/walk_<name>.png; OUT is the run's own folder, unless --out_dir names another.
"""

import argparse
import importlib
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common import checkpoint
from common.data import load_images

from tools.embed import nearest_noise

ROOT = Path(__file__).resolve().parents[1]
GRID = 100  # samples in a grid of `samples/`
N_CANDIDATES = 500  # random z, of which the nearest is where the search for an image begins


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "explore.py", description=__doc__, formatter_class=common.flags.HelpFormatter
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message}\n")
    add = parser.add_argument
    add("run", help="the out_dir of a run, or a checkpoint")
    add(
        "--walk",
        choices=("interpolate", "arithmetic", "direction", "real"),
        required=True,
        help="what to show",
    )
    add("--out_dir", help="where the picture goes")
    add(
        "--base",
        help="arithmetic: samples to start from, such as 0,1,2; by default the grid's first row",
    )
    add("--plus", help="arithmetic: samples whose mean is added, such as 3,17,22")
    add("--minus", help="arithmetic: samples whose mean is subtracted, such as 4,5,9")
    add(
        "--attribute",
        choices=tuple(ATTRIBUTES),
        default="thickness",
        help="direction: what changes along it",
    )
    add(
        "--label",
        type=int,
        default=0,
        help="of all images, for a model with labels or with categories",
    )
    add(
        "--seed",
        type=common.number(int, at_least=0),
        help="of the noise; the run's own, unless given",
    )
    args = parser.parse_args(argv)
    if args.walk == "arithmetic" and not (args.plus and args.minus):
        parser.error(
            "--walk arithmetic needs --plus and --minus, such as --plus 3,17,22 --minus 4,5,9"
        )
    for name in ("base", "plus", "minus"):
        setattr(args, name, parse_indices(parser, name, getattr(args, name)))
    args.error = parser.error
    return args


def parse_indices(parser, name, text):
    """ "3,17,22" as a list of numbers of samples in a grid."""
    if not text:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) < GRID for part in parts):
        parser.error(
            f"--{name} must be numbers of samples from 0 to {GRID - 1}, such as 3,17,22; got {text!r}"
        )
    return [int(part) for part in parts]


# ---- walks: what noise to draw from ----


def slerp(a, b, steps):
    """(steps, d) points from a to b on the arc between their directions; the norm goes evenly from one to the other."""
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    u, v, t = a / norm_a, b / norm_b, np.linspace(0, 1, steps)[:, None]
    angle = math.acos(np.clip(u @ v, -1, 1))
    if angle < 1e-4:
        arc = (1 - t) * u + t * v
    else:
        arc = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / math.sin(angle)
    return (arc * ((1 - t) * norm_a + t * norm_b)).astype(np.float32)


def line(a, b, steps):
    """(steps, d) points from a to b on the straight line."""
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - t) * a + t * b


def arithmetic(z, base, plus, minus):
    """z[base] - mean z[minus] + mean z[plus], (n, d); several base samples are averaged too, if given.

    The mean of three samples is more stable than one (Radford 2015, section 6.3.2).
    """
    start = z[base].mean(0, keepdims=True) if base else z[:10]
    return start - z[minus].mean(0) + z[plus].mean(0)


def attribute_direction(z, values, steps=500, rate=1.0):
    """The unit vector (d,) along which logistic regression finds above-median values of an attribute."""
    target = (values > np.median(values)).astype(np.float64)
    w, b = np.zeros(z.shape[1]), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(z @ w + b))) - target
        w -= rate * (z.T @ error / len(z) + 1e-3 * w)
        b -= rate * error.mean()
    return (w / np.linalg.norm(w)).astype(np.float32)


def points_along(starts, direction):
    """(len(starts) * 9, d): nine points about each start, from -4 to 4 along a unit vector."""
    distances = np.linspace(-4, 4, 9, dtype=np.float32)[:, None]
    return [start + distances * direction for start in starts]


# ---- attributes of (N, C, H, W) images in [-1, 1] ----


def ink(images):
    """(N, H, W) in [0, 1]."""
    return (images.mean(1) + 1) / 2


def brightness(images):
    """Mean of the pixels, in [0, 1]."""
    return ink(images).mean((1, 2))


def thickness(images):
    """Width of the strokes in pixels: a line of width w has area w for every 2 pixels of its two edges."""
    x = ink(images)
    edges = np.abs(np.diff(x, axis=1)).sum((1, 2)) + np.abs(np.diff(x, axis=2)).sum((1, 2))
    return 2 * x.sum((1, 2)) / np.maximum(edges, 1e-6)


def slant(images):
    """Lean to the right: columns to the right for every row up, by second moments."""
    x = ink(images)
    rows, columns = np.mgrid[: x.shape[1], : x.shape[2]]
    total = np.maximum(x.sum((1, 2)), 1e-6)[:, None, None]
    dr = rows - (x * rows).sum((1, 2), keepdims=True) / total
    dc = columns - (x * columns).sum((1, 2), keepdims=True) / total
    return -(x * dr * dc).sum((1, 2)) / np.maximum((x * dr * dr).sum((1, 2)), 1e-6)


ATTRIBUTES = {"thickness": thickness, "slant": slant, "brightness": brightness}


# ---- pictures ----


def walk(args, draw, latent, path_between):
    """The images (N, C, H, W) of a walk, and how many stand in a row.

    Args:
        draw: images of (N, d) noise.
        latent: (n, d) noise; its first call gives the noise of the grids in `samples/`.
        path_between: `slerp` or `line`.
    """
    z = latent(GRID)
    if args.walk == "interpolate":
        return draw(
            np.concatenate([path_between(a, b, 10) for a, b in zip(latent(8), latent(8))])
        ), 10
    if args.walk == "arithmetic":
        rows = [z[args.minus], z[args.plus], z[args.base] if args.base else z[:10]]
        columns = max(map(len, rows))
        rows.append(arithmetic(z, args.base, args.plus, args.minus))
        return draw(
            np.concatenate([np.resize(row, (columns, z.shape[1])) for row in rows])
        ), columns
    points = latent(2000)
    along = attribute_direction(points, ATTRIBUTES[args.attribute](draw(points)))
    off = latent(1)[0]
    off -= off @ along * along
    off /= np.linalg.norm(off)
    rows = [
        row
        for start in z[:5]
        for direction in (along, off)
        for row in points_along([start], direction)
    ]
    return draw(np.concatenate(rows)), 9


def walk_between_images(run, flags, latent, path_between):
    """As `walk`, from each of eight images of the data to another."""
    if (
        "generator" not in run.parts
        or hasattr(flags, "n_classes")
        or hasattr(flags, "n_categories")
    ):
        raise common.UserError(
            f"--walk real is for generators of images from noise alone, not for {flags.script}.py"
        )
    stacked = getattr(flags, "stacked", False)
    data = load_images(
        flags.data_dir, flags.img_size, flags.channels, split="test", stacked=stacked
    )
    chosen = run.sample_rng.choice(len(data), 16, replace=len(data) < 16)
    images = data.batch(chosen)[0]
    generator = run.parts["ema"].module if "ema" in run.parts else run.parts["generator"]
    z, first, last = nearest_noise(generator, images, latent(N_CANDIDATES))
    print(
        f"|x - G(z)|: {first.mean():.4f} for the nearest of {N_CANDIDATES} random z, {last.mean():.4f} when found."
    )
    rows = []
    for i in range(0, 16, 2):
        between = common.in_chunks(generator, path_between(z[i], z[i + 1], 10))
        rows += [images[i : i + 1], between, images[i + 1 : i + 2]]
    return np.concatenate(rows), 12


def load(args):
    """The script that wrote a checkpoint, and the arguments with which it samples from it."""
    path = checkpoint.find(args.run)
    name = checkpoint.Reader(path).meta["script"]
    if (
        not (ROOT / f"{name}.py").is_file() or not name.isidentifier()
    ):  # the file may come from a stranger
        raise common.UserError(f"{path} was written by {name}.py, which is not here")
    script = importlib.import_module(name)
    if not hasattr(script, "load_generator"):
        raise common.UserError(
            f"{name}.py draws no images from noise, so it has no latent space to walk through"
        )
    flags = ["--resume", str(path), "--sample_only"]
    flags += [] if args.out_dir is None else ["--out_dir", args.out_dir]
    return script, script.parse_args(
        flags + ([] if args.seed is None else ["--seed", str(args.seed)])
    )


def explore(run, args, script, flags):
    draw = script.load_generator(run, flags)
    n_classes = getattr(flags, "n_classes", getattr(flags, "n_categories", None))
    if n_classes is not None:
        if not 0 <= args.label < n_classes:
            raise common.UserError(
                f"--label {args.label}: the model's labels are 0 to {n_classes - 1}"
            )
        draw_labelled = draw

        def draw(z):
            return draw_labelled(z, np.full(len(z), args.label, np.int32))

    uniform = getattr(flags, "noise", getattr(script, "NOISE", "normal")) == "uniform"

    def latent(n):
        if uniform:
            return run.sample_rng.uniform(-1, 1, (n, flags.latent_dim)).astype(np.float32)
        return run.sample_rng.standard_normal((n, flags.latent_dim), dtype=np.float32)

    path_between = line if uniform else slerp
    if args.walk == "real":
        images, nrow = walk_between_images(run, flags, latent, path_between)
    else:
        images, nrow = walk(args, draw, latent, path_between)
    common.save_image(images, run.out_dir / f"walk_{args.walk}.png", nrow=nrow)


def main(argv=None):
    args = parse_args(argv)
    try:
        script, flags = load(args)
    except common.UserError as error:
        args.error(str(error))
    with common.Run(flags) as run:
        explore(run, args, script, flags)


if __name__ == "__main__":
    main()
