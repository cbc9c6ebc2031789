"""Walks through the latent space of a trained model.

All walks but `common` are for models that draw images from noise.

    python tools/explore.py results/dcgan --walk interpolate
    python tools/explore.py results/dcgan --walk arithmetic --plus 3,17,22 --minus 4,5,9
    python tools/explore.py results/dcgan --walk direction --attribute slant
    python tools/explore.py results/began --walk real
    python tools/explore.py results/cgan_mnist --walk interpolate --label 7
    python tools/explore.py results/unit --walk common
    python tools/explore.py results/stylegan2 --walk mixing --cutoff 3
    python tools/explore.py results/biggan --walk classes

The walks are

    interpolate  Eight rows, each from one random point to another. Normal noise lies
                 near a sphere, so the path follows the arc between the two points
                 (White 2016, https://arxiv.org/abs/1609.04468); for uniform noise it is
                 the straight line.
    arithmetic   The mean of --plus minus the mean of --minus, added to --base (Radford
                 2015, section 6.3.2). Samples are counted row by row, from 0, in the
                 grids of `samples/`. Four rows: minus, plus, base, result.
    direction    Five samples, each in two rows: along the direction in which an
                 attribute changes most reliably, found by logistic regression on 2,000
                 samples; and along one at right angles to it, for comparison. Nine
                 steps from -4 to 4.
    real         Eight rows, each from one image of the data to another (Berthelot 2017,
                 section 4.3). Between the two images stand the nearest images that the
                 model draws, from noise that Adam has found, and the path from one to
                 the other. It shows what the model cannot draw. The images are of the
                 test split, if the data have one. With bigan.py they are the images
                 that it draws from the codes of its encoder.
    attributes   For vaegan.py and vae.py, trained on images with attributes such as
                 faces: a row for each of eight test images, with its reconstruction,
                 and then what the decoder makes of its code with one attribute more,
                 or less where it has it (Larsen 2016, section 4.2). An attribute's
                 vector is the mean code of the training images that have it, minus that
                 of the others.
    common       For unit.py, whose two domains have their codes in one space: four
                 straight lines, each from the code of a test image of domain A to that
                 of another. Each has two rows: decoded into A, and into B.
    mixing       For stylegan2.py: a table of eight samples at its left and eight others
                 at its top (those of the first two rows of a grid). The images between
                 them have the coarse styles of the left one, those before --cutoff, and
                 the fine ones of the upper one.
    truncation   For stylegan2.py: eight samples, a row each, with w at -1 to 1 times
                 its distance from the mean of w, which is in the middle. For biggan.py:
                 a row for each of the first ten classes, whose noise has no value
                 beyond 0.05 at the left, and any values at the right.
    styles       For stylegan2.py: eight straight lines between points w.
    classes      For biggan.py: a row for each of the first eight classes, with the same
                 noise, along a straight line from its embedding to that of the next
                 class.

The picture is walk_<name>.png in the run's own folder, or in --out_dir.
"""

import copy
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common.cli import HelpFormatter, ToolParser, number
from common.data import load_attributes, load_images
from common.run import latent_noise

import jittor as jt

from tools.features.embed import nearest_noise
from tools.runs import open_run

GRID = 100  # samples in a grid of `samples/`
N_CANDIDATES = 500  # random z; the search for an image starts from the nearest
# Walks that need more than noise, and the scripts that have it.
SPECIAL_WALKS = {
    "attributes": ("vaegan", "vae"),
    "common": ("unit",),
    "mixing": ("stylegan2",),
    "truncation": ("stylegan2", "biggan"),
    "styles": ("stylegan2",),
    "classes": ("biggan",),
}
THRESHOLDS = (0.05, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, None)
N_ENCODED = 5000  # training images whose codes give the vectors of attributes
# Scripts with uniform noise and without a flag for it.
UNIFORM = ("began", "bigan", "gman", "improved_gan", "infogan")


def parse_args(argv=None):
    parser = ToolParser("explore.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("run", help="the out_dir of a run, or a checkpoint")
    parser.add_argument(
        "--walk",
        choices=("interpolate", "arithmetic", "direction", "real", *SPECIAL_WALKS),
        required=True,
        help="what to show",
    )
    parser.add_argument("--out_dir", help="folder of the picture (default: the run's own)")
    parser.add_argument(
        "--base",
        help="arithmetic: samples to start from, such as 0,1,2 (default: the grid's first row)",
    )
    parser.add_argument("--plus", help="arithmetic: samples whose mean is added, such as 3,17,22")
    parser.add_argument(
        "--minus", help="arithmetic: samples whose mean is subtracted, such as 4,5,9"
    )
    parser.add_argument(
        "--attribute",
        choices=tuple(ATTRIBUTES),
        default="thickness",
        help="direction: what changes along it",
    )
    parser.add_argument(
        "--label",
        type=int,
        default=0,
        help="label or category of all images, for a model that has them",
    )
    parser.add_argument(
        "--cutoff",
        type=number(int, at_least=0),
        help="mixing: how many layers count as coarse (default: half of them)",
    )
    parser.add_argument(
        "--seed", type=number(int, at_least=0), help="seed of the noise (default: the run's own)"
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
    """The text "3,17,22" as a list of indices of samples in a grid."""
    if not text:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) < GRID for part in parts):
        parser.error(
            f"--{name} must be samples from 0 to {GRID - 1}, such as 3,17,22; got {text!r}"
        )
    return [int(part) for part in parts]


# ---- walks: which noise to draw from ----


def slerp(a, b, steps):
    """Points (steps, d) from a to b, on the arc between their directions.

    The norm changes linearly from that of a to that of b.
    """
    norm_a = np.linalg.norm(a)
    norm_b = np.linalg.norm(b)
    u = a / norm_a
    v = b / norm_b
    t = np.linspace(0, 1, steps)[:, None]
    angle = math.acos(np.clip(u @ v, -1, 1))
    if angle < 1e-4:
        arc = (1 - t) * u + t * v
    else:
        arc = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / math.sin(angle)
    return (arc * ((1 - t) * norm_a + t * norm_b)).astype(np.float32)


def line(a, b, steps):
    """Points (steps, d) from a to b, on the straight line."""
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - t) * a + t * b


def arithmetic(z, base, plus, minus):
    """z[base] - mean z[minus] + mean z[plus], (n, d).

    Several base samples are averaged, too: the mean of three samples is more stable
    than one (Radford 2015, section 6.3.2). Without base samples, n is 10: it is done
    for each of the first ten.
    """
    start = z[base].mean(0, keepdims=True) if base else z[:10]
    return start - z[minus].mean(0) + z[plus].mean(0)


def attribute_direction(z, values, steps=500, rate=1.0):
    """The direction (d,), of length 1, along which an attribute rises above its median.

    It is found by logistic regression.

    Args:
        z: noise (N, d).
        values: (N,) of the attribute in the images of z.
    """
    target = (values > np.median(values)).astype(np.float64)
    w = np.zeros(z.shape[1])
    b = 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(z @ w + b))) - target
        w -= rate * (z.T @ error / len(z) + 1e-3 * w)
        b -= rate * error.mean()
    return (w / np.linalg.norm(w)).astype(np.float32)


def points_along(start, direction):
    """Nine points (9, d) around a start (d,), from -4 to 4 along a direction."""
    distances = np.linspace(-4, 4, 9, dtype=np.float32)[:, None]
    return start + distances * direction


# ---- attributes of (N, C, H, W) images in [-1, 1] ----


def ink(images):
    """The mean of the channels, (N, H, W) in [0, 1]."""
    return (images.mean(1) + 1) / 2


def brightness(images):
    """The mean of the pixels, in [0, 1]."""
    return ink(images).mean((1, 2))


def thickness(images):
    """The width of the strokes in pixels.

    A line of width w has an area of w for each 2 pixels of its two edges.
    """
    x = ink(images)
    edges = np.abs(np.diff(x, axis=1)).sum((1, 2)) + np.abs(np.diff(x, axis=2)).sum((1, 2))
    return 2 * x.sum((1, 2)) / np.maximum(edges, 1e-6)


def slant(images):
    """The lean to the right, in columns for each row upwards, by second moments."""
    x = ink(images)
    rows, columns = np.mgrid[: x.shape[1], : x.shape[2]]
    total = np.maximum(x.sum((1, 2)), 1e-6)[:, None, None]
    dr = rows - (x * rows).sum((1, 2), keepdims=True) / total
    dc = columns - (x * columns).sum((1, 2), keepdims=True) / total
    return -(x * dr * dc).sum((1, 2)) / np.maximum((x * dr * dr).sum((1, 2)), 1e-6)


ATTRIBUTES = {"thickness": thickness, "slant": slant, "brightness": brightness}


# ---- the model ----


@dataclass
class Model:
    """A trained model that draws images from noise.

    Attributes:
        network: the generator, averaged if the run has an average, or the decoder.
        draw: a function of noise (N, latent_dim) that returns images (N, C, H, W) in
            [-1, 1], both numpy.
        takes_noise_alone: whether `network` itself draws images from noise alone.
        kind: "normal" or "uniform", of its noise.
        latent_dim: the length of its noise.
        rng: the numpy generator of the noise, in the state that it has for the grids in
            `samples/`.
        encoder: a module of images (N, C, H, W) that finds their noise, or None.
    """

    network: Any
    draw: Callable
    takes_noise_alone: bool
    kind: str
    latent_dim: int
    rng: np.random.Generator
    encoder: Any = None

    def noise(self, n):
        """New noise (n, latent_dim); at first with n = GRID, that of the grids."""
        return latent_noise(self.rng, self.kind, n, self.latent_dim)

    def path_between(self, a, b, steps):
        path = line if self.kind == "uniform" else slerp
        return path(a, b, steps)


def is_explorable(reader, flags):
    """Whether a checkpoint holds a generator of noise, or of noise and labels."""
    parts = reader.meta["values"]
    draws = "generator" in parts or "decoder" in parts
    return draws and hasattr(flags, "latent_dim") and not hasattr(flags, "text_dim")


def load_model(run, script, flags, label):
    """The `Model` of a run that resumes its checkpoint.

    Args:
        label: of the images, for a model with labels or categories.
    """
    networks = script.build(flags)
    has_decoder = hasattr(script, "decode")
    encoder = None
    if has_decoder:
        _, network, *_ = networks
        run.checkpoint(decoder=network)
    else:
        network, *others = networks
        loaded = {"generator": network}
        if flags.script == "bigan":
            encoder, _ = others
            loaded["encoder"] = encoder
        # improved_gan.py averages its discriminator.
        if hasattr(flags, "ema_decay") and flags.script != "improved_gan":
            averaged = common.EMA(network, flags.ema_decay)
            network = averaged.module
            loaded["averaged"] = averaged
        run.checkpoint(**loaded)
    run.restore()

    conditions = conditions_of(flags, label)

    def draw(z):
        if has_decoder:
            return script.decode(network, z)
        repeated = [np.repeat(condition, len(z), axis=0) for condition in conditions]
        return common.predict(network, z, *repeated)

    return Model(
        network=network,
        draw=draw,
        takes_noise_alone=not has_decoder and not conditions,
        kind=getattr(flags, "noise", "uniform" if flags.script in UNIFORM else "normal"),
        latent_dim=flags.latent_dim,
        rng=run.fixed_rng(),
        encoder=encoder,
    )


def conditions_of(flags, label):
    """What a generator takes beside noise, as a list of arrays (1, ...).

    Continuous codes of infogan.py are 0.

    Raises:
        UserError: the model has no such label.
    """
    n_labels = getattr(flags, "n_classes", getattr(flags, "n_categories", None))
    if n_labels is None or flags.script == "improved_gan":  # its D has classes, not its G
        return []
    if not 0 <= label < n_labels:
        raise common.UserError(f"--label {label}: the model's labels are 0 to {n_labels - 1}")
    conditions = [np.array([label], np.int32)]
    if hasattr(flags, "n_continuous"):
        conditions.append(np.zeros((1, flags.n_continuous), np.float32))
    return conditions


# ---- pictures ----


def walk(args, model):
    """The images (N, C, H, W) of a walk, and the number of images in a row."""
    z = model.noise(GRID)
    if args.walk == "interpolate":
        starts = model.noise(8)
        ends = model.noise(8)
        paths = [model.path_between(start, end, 10) for start, end in zip(starts, ends)]
        return model.draw(np.concatenate(paths)), 10
    if args.walk == "arithmetic":
        base = z[args.base] if args.base else z[:10]
        result = arithmetic(z, args.base, args.plus, args.minus)
        rows = [z[args.minus], z[args.plus], base, result]
        n_columns = max(len(row) for row in rows)
        repeated = [np.resize(row, (n_columns, z.shape[1])) for row in rows]
        return model.draw(np.concatenate(repeated)), n_columns
    points = model.noise(2000)
    values = ATTRIBUTES[args.attribute](model.draw(points))
    along = attribute_direction(points, values)
    across = model.noise(1)[0]
    across -= across @ along * along
    across /= np.linalg.norm(across)
    rows = []
    for start in z[:5]:
        rows += [points_along(start, along), points_along(start, across)]
    return model.draw(np.concatenate(rows)), 9


def walk_between_images(model, flags):
    """As `walk`, from each of eight images of the data to another."""
    if not model.takes_noise_alone:
        raise common.UserError(
            f"--walk real is for generators of images from noise alone, not for {flags.script}.py"
        )
    data = load_images(flags.data_dir, flags.img_size, flags.channels, split="test")
    chosen = model.rng.choice(len(data), 16, replace=len(data) < 16)
    images = data.batch(chosen)[0]
    if model.encoder is not None:
        z = common.predict(model.encoder, images)
    else:
        z, first, last = nearest_noise(model.network, images, model.noise(N_CANDIDATES))
        print(
            f"|x - G(z)|: {first.mean():.4f} for the nearest of {N_CANDIDATES} random z, "
            f"{last.mean():.4f} when found."
        )
    rows = []
    for i in range(0, 16, 2):
        between = model.draw(model.path_between(z[i], z[i + 1], 10))
        rows += [images[i : i + 1], between, images[i + 1 : i + 2]]
    return np.concatenate(rows), 12


def walk_through_attributes(run, script, flags):
    """As `walk`: test images, reconstructed, and with each attribute changed."""
    if flags.data_dir in (None, "digits"):
        raise common.UserError(
            "--walk attributes needs a run on images with attributes, such as --data_dir faces"
        )
    encoder, decoder, *_ = script.build(flags)
    run.checkpoint(encoder=encoder, decoder=decoder)
    run.restore()
    data = load_attributes(flags.data_dir, flags.img_size, flags.channels)
    images, attributes = data.batch(np.arange(min(len(data), N_ENCODED)))
    vectors = attribute_vectors(script.encode(encoder, images), attributes)

    data = load_attributes(flags.data_dir, flags.img_size, flags.channels, split="test")
    images, attributes = data.batch(np.arange(min(len(data), 8)))
    z = script.encode(encoder, images)
    rows = []
    for image, code, has in zip(images, z, attributes):
        signs = 1 - 2 * has[:, None]  # an attribute that is there is taken away
        codes = np.concatenate([code[None], code + signs * vectors])
        rows += [image[None], script.decode(decoder, codes.astype(np.float32))]
    names = ", ".join(data.names)
    print(f"Columns: a test image, its reconstruction; {names}, changed one at a time.")
    return np.concatenate(rows), 2 + len(data.names)


def attribute_vectors(codes, attributes):
    """(A, d): the mean code of those that have an attribute, minus that of the others.

    Args:
        codes: (N, d).
        attributes: (N, A) in {0, 1}, each with both values.
    """
    vectors = []
    for column in attributes.T:
        vectors.append(codes[column == 1].mean(0) - codes[column == 0].mean(0))
    return np.stack(vectors)


def walk_through_the_common_space(run, script, flags):
    """As `walk`, between codes of images of domain A."""
    vaes, *_ = script.build(flags)
    run.checkpoint(vaes=vaes)
    run.restore()
    images, _ = script.fixed_images(flags)
    codes = common.predict(vaes.encode_A, images[:8])
    rows = []
    for start, end in zip(codes[::2], codes[1::2]):
        path = line(start.ravel(), end.ravel(), 10).reshape(-1, *start.shape)
        rows += [common.predict(vaes.decode_A, path), common.predict(vaes.decode_B, path)]
    return np.concatenate(rows), 10


def walk_through_styles(args, model):
    """As `walk`, for the generator of stylegan2.py, which has styles."""
    network = model.network
    z = model.noise(GRID)
    if args.walk == "truncation":
        factors = np.linspace(-1, 1, 9, dtype=np.float32)
        return common.predict(network, np.repeat(z[:8], 9, axis=0), np.tile(factors, 8)), 9
    if args.walk == "styles":
        starts = common.predict(network.mapping, model.noise(8))
        ends = common.predict(network.mapping, model.noise(8))
        w = np.concatenate([line(start, end, 10) for start, end in zip(starts, ends)])
        return common.predict(network.synthesis, all_layers(network, w)), 10
    w = common.predict(network.mapping, z[:16])
    styles, nrow = mixing_table(all_layers(network, w[:8]), all_layers(network, w[8:]), args.cutoff)
    images = common.predict(network.synthesis, styles)
    images[0] = -1  # the corner of the table
    return images, nrow


def all_layers(network, w):
    """w (N, latent_dim) as the styles (N, n_styles, latent_dim) of all layers."""
    return np.repeat(w[:, None], network.synthesis.n_styles, axis=1)


def mixing_table(left, top, cutoff=None):
    """The styles of the cells of a table, row by row, and the number in a row.

    The first row and the first column have the styles of `top` and of `left`; the cell
    in their corner has no meaning.

    Args:
        left, top: styles (n, n_styles, latent_dim).
        cutoff: how many styles a cell has of `left` (default: half of them).

    Raises:
        UserError: there are not so many.
    """
    n_styles = left.shape[1]
    if cutoff is None:
        cutoff = n_styles // 2
    if cutoff > n_styles:
        raise common.UserError(f"--cutoff {cutoff}: the model has {n_styles} layers with styles")
    cells = [top[:1], top]
    for row in left:
        mixed = top.copy()
        mixed[:, :cutoff] = row[:cutoff]
        cells += [row[None], mixed]
    return np.concatenate(cells), len(top) + 1


def walk_through_classes(args, model, script, flags):
    """As `walk`, for the generator of biggan.py: truncation, or from class to class."""
    network = model.network
    if args.walk == "truncation":
        labels = np.arange(min(flags.n_classes, 10), dtype=np.int32)
        columns = []
        for threshold in THRESHOLDS:
            rng = copy.deepcopy(model.rng)  # values within a threshold stay as they are
            z = script.truncated_noise(rng, len(labels), model.latent_dim, threshold)
            columns.append(common.predict(network, z, labels))
        images = np.stack(columns, axis=1)
        return images.reshape(-1, *images.shape[2:]), len(THRESHOLDS)
    network.eval()
    labels = np.arange(min(flags.n_classes, 8), dtype=np.int32)
    starts = common.predict(network.embedding, labels)
    ends = common.predict(network.embedding, (labels + 1) % flags.n_classes)
    e = np.concatenate([line(start, end, 10) for start, end in zip(starts, ends)])
    z = np.repeat(model.noise(GRID)[: len(labels)], 10, axis=0)
    return common.predict(network.draw, z, e), 10


def check_walk(name, reader, flags):
    """Refuses a walk that the model of a checkpoint does not have.

    Raises:
        UserError: it draws no images from noise, or lacks what the walk needs.
    """
    scripts = SPECIAL_WALKS.get(name)
    if scripts is not None and flags.script not in scripts:
        offered = " and ".join(f"{script}.py" for script in scripts)
        raise common.UserError(f"--walk {name} is for runs of {offered}, not of {flags.script}.py")
    if name != "common" and not is_explorable(reader, flags):
        raise common.UserError(
            f"{flags.script}.py draws no images from noise, or from noise and a label: "
            "it has no latent space to walk through"
        )


def main(argv=None):
    args = parse_args(argv)
    flags = []
    if args.out_dir is not None:
        flags += ["--out_dir", args.out_dir]
    if args.seed is not None:
        flags += ["--seed", str(args.seed)]
    try:
        script, run_args, reader = open_run(args.run, flags=flags)
        check_walk(args.walk, reader, run_args)
    except common.UserError as error:
        args.error(str(error))
    jt.flags.use_cuda = common.choose_device(run_args.device)
    with common.Run(run_args) as run:
        if args.walk == "common":
            images, nrow = walk_through_the_common_space(run, script, run_args)
        elif args.walk == "attributes":
            images, nrow = walk_through_attributes(run, script, run_args)
        elif args.walk == "real":
            model = load_model(run, script, run_args, args.label)
            images, nrow = walk_between_images(model, run_args)
        elif run_args.script == "biggan" and args.walk in SPECIAL_WALKS:
            model = load_model(run, script, run_args, args.label)
            images, nrow = walk_through_classes(args, model, script, run_args)
        elif args.walk in SPECIAL_WALKS:
            model = load_model(run, script, run_args, args.label)
            images, nrow = walk_through_styles(args, model)
        else:
            model = load_model(run, script, run_args, args.label)
            images, nrow = walk(args, model)
        common.save_image(images, run.out_dir / f"walk_{args.walk}.png", nrow=nrow)


if __name__ == "__main__":
    main()
