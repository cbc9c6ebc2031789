"""Judges of the translators on their built-in data, whose right answers are known; called by tools/evaluate.py.

    pix2pix     outlines of test digits: painted in the colour of their class; L1 distance to the targets, as a share of
                the distance of the best constant picture
    cyclegan    test digits of both domains: read as the same digit after the translation, by a classifier that knows
                the other domain; mean brightness against the domain's
    stargan     test digits after every change of an attribute: colour, ground, digit, thickness of strokes
    usps        MNIST's test digits in the style of USPS: read as the same digit, by five classifiers that know USPS
                alone, since one differs from the next by several per cent on what is unlike USPS (--usps names it)

Everything judged comes from test parts, which no script trains on. "Wanted" in the table is what a good run reaches.
"""

from common import checkpoint
from common.data import load_digits
from common.data.decode import to_float
from common.data.targets import Attributes
from common.data.toy import drawn
from common.errors import UserError
from common.networks import EMA, in_chunks
from common.pictures import to_uint8

import importlib

import numpy as np

from tools import digit_classifier, image_sets

CHUNK = 20  # images that a translator takes at once
N_HELD = 1000  # digits of USPS that its classifiers do not see
N_CLASSIFIERS = 5
WANTED = "wanted: at least {:.0%}"


def opened_run(name, path, built_in=True):
    """The script of a run, its arguments, and the reader of its checkpoint.

    Raises:
        UserError: there is no checkpoint, another script has written it, or, with `built_in`, the run was not trained
            on the built-in data.
    """
    path = checkpoint.find(path)
    reader = checkpoint.Reader(path)
    if reader.meta["script"] != name:
        raise UserError(f"{path} was written by {reader.meta['script']}.py, not by {name}.py")
    script = importlib.import_module(name)
    flags = script.parse_args(["--resume", str(path), "--sample_only"])
    if built_in and flags.data_dir is not None:
        raise UserError(
            f"{path} was trained on {flags.data_dir}, and only the built-in data can be judged so"
        )
    return script, flags, reader


def share_row(measure, right, wanted=None):
    of = f"{np.size(right):,}" + ("" if wanted is None else "; " + WANTED.format(wanted))
    return measure, float(np.mean(right)), of


def grey(pixels):
    """(N, C, H, W) uint8 as the classifier takes it."""
    images = image_sets.of_pixels(
        "translations", np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    )
    return images.batch(range(len(images)), digit_classifier.SIZE, 1)


def translated(generator, *arrays, seed=None):
    """(N, C, H, W) uint8 translations of uint8 images, of which further arrays are conditions."""
    images, *conditions = arrays
    outputs = in_chunks(generator, to_float(images), *conditions, chunk=CHUNK, seed=seed)
    return to_uint8(outputs).transpose(0, 3, 1, 2)


# ---- pix2pix ----


def judge_pix2pix(args):
    script, flags, reader = opened_run("pix2pix", args.B)
    if flags.direction != "AtoB":
        raise UserError(
            f"{args.B} draws outlines (--direction {flags.direction}), and only paintings can be judged"
        )
    generator = script.build(flags)[0]
    reader.load({"generator": generator}, exact=False)
    outlines, paintings, labels = drawn.outline_pairs(flags.img_size, "test")
    outputs = translated(generator, outlines, seed=1)
    inside = np.abs(paintings.astype(int) - drawn.COLOURS[labels][:, :, None, None]).max(1) < 8
    mean = np.stack([image[:, mask].mean(1) for image, mask in zip(outputs, inside)])
    distance = np.linalg.norm(mean[:, None] - drawn.COLOURS.astype(float), axis=2)
    constant = np.median(to_float(drawn.outline_pairs(flags.img_size, "train")[1]), axis=0)
    l1, guess = (np.abs(x - to_float(paintings)).mean() for x in (to_float(outputs), constant))
    return [
        share_row("painted in the colour of its class", distance.argmin(1) == labels, 0.95),
        ("L1", float(l1), f"{len(outputs):,}, values in [-1, 1]"),
        (
            "L1 / L1 of the best constant picture",
            float(l1 / guess),
            f"{guess:.4f}; wanted: below 0.5",
        ),
    ]


# ---- cyclegan ----


def averaged(path, built_in=True):
    """The arguments of a run of cyclegan, and its generators A to B and B to A, with averaged weights."""
    script, flags, reader = opened_run("cyclegan", path, built_in)
    G, F, *_ = script.build(flags)
    ema_G, ema_F = (EMA(generator, flags.ema_decay) for generator in (G, F))
    reader.load({"G": G, "F": F, "ema_G": ema_G, "ema_F": ema_F}, exact=False)
    return flags, ema_G.module, ema_F.module


def on_paper(images):
    """(N, 1, 32, 32) white digits on black as dark ones on paper."""
    small = drawn.enlarge(images[:, 0], 28)
    return grey(drawn.draw_on_paper(small, digit_classifier.SIZE, np.random.default_rng(5)))


def as_they_are(images):
    return images


def judge_cyclegan(args):
    flags, G, F = averaged(args.B)
    white, inked = drawn.digit_domains(flags.img_size, "test", flags.channels)
    rows = []
    for name, generator, (images, labels), other, change in (
        ("A to B", G, white, inked[0], on_paper),
        ("B to A", F, inked, white[0], as_they_are),
    ):
        fake = translated(generator, images)
        judge = digit_classifier.of_digits(args.mnist, args.n_steps, change)
        brightness = float(fake.mean() / other.mean() - 1)
        rows += [
            (f"{name}: judge", f"{judge.size} x {judge.size}", judge.description),
            share_row(f"{name}: read as the same digit", judge.read(grey(fake))[0] == labels, 0.9),
            (
                f"{name}: brighter than the domain by",
                brightness,
                f"{other.mean():.1f} of 255; wanted: within 10%",
            ),
        ]
    return rows


def judge_usps(args):
    if args.usps is None:
        raise UserError("usps needs --usps, the folder of USPS's IDX files")
    size = digit_classifier.SIZE
    flags, G, _ = averaged(args.B, built_in=False)
    usps = load_digits(args.usps, size, 1, n_classes=10)
    if len(usps) <= N_HELD:
        raise UserError(
            f"--usps {args.usps}: {N_HELD:,} digits are held back, and it holds {len(usps):,}"
        )
    held, used = np.split(np.random.default_rng(3).permutation(len(usps)), [N_HELD])
    networks = [
        digit_classifier.kept(usps.images[used], usps.labels[used], args.n_steps, seed)
        for seed in range(N_CLASSIFIERS)
    ]
    judges = [digit_classifier.DigitJudge(network) for network in networks]

    def row(measure, images, labels, wanted=None):
        right = [judge.read(images)[0] == labels for judge in judges]
        _, value, of = share_row(measure, right, wanted)
        return measure, value, f"{of}; one by one " + ", ".join(f"{np.mean(r):.4f}" for r in right)

    test = load_digits(
        args.mnist,
        flags.img_size,
        flags.channels,
        n_classes=10,
        split="test",
        n_test=image_sets.N_TEST,
    )
    return [
        row(
            "USPS digits that the classifiers have not seen, read right",
            usps.images[held],
            usps.labels[held],
        ),
        row("MNIST's test digits as they are, read right", grey(test.images), test.labels),
        row(
            "in the style of USPS, read as the same digit",
            grey(translated(G, test.images)),
            test.labels,
            0.9,
        ),
    ]


# ---- stargan ----


def judge_stargan(args):
    script, flags, reader = opened_run("stargan", args.B)
    generator, names = script.build(flags)[0], list(drawn.ATTRIBUTES)
    reader.load({"generator": generator}, exact=False)
    if list(flags.selected_attrs or []) != names:
        raise UserError(
            f"{args.B} was not trained on the built-in data, whose attributes are {', '.join(names)}"
        )
    images, attributes, labels = drawn.coloured_digits(flags.img_size, "test")
    judge = digit_classifier.of_digits(args.mnist, args.n_steps, half_bold)
    targets = Attributes(names, names[:3]).all_targets(attributes.astype(np.float32))
    wanted = np.concatenate(targets)
    fake = np.concatenate([translated(generator, images, target) for target in targets])
    inverted, bold = wanted[:, 4] == 1, wanted[:, 3] == 1
    ink, ink_before = strokes(fake, inverted), strokes(images, attributes[:, 4] == 1)
    right = read_strokes(judge, ink) == np.tile(labels, len(targets))
    thick = [
        x[mask].mean() / x[~mask].mean()
        for x, mask in ((ink, bold), (ink_before, attributes[:, 3] == 1))
    ]
    return [
        ("judge", f"{judge.size} x {judge.size}", judge.description),
        share_row("before any change, read right", read_strokes(judge, ink_before) == labels),
        share_row(
            "the asked colour", nearest_colour(fake, ink, inverted) == wanted[:, :3].argmax(1), 0.97
        ),
        share_row("the asked ground", (brightness_of_border(fake) > 128) == inverted, 0.97),
        share_row("still the same digit", right, 0.95),
        *(
            share_row(f"  after a change of {n}", r)
            for n, r in zip(names, right.reshape(len(targets), -1))
        ),
        (
            "ink of bold digits / of thin ones",
            float(thick[0]),
            f"{len(fake):,}; in the data {thick[1]:.2f}",
        ),
    ]


def half_bold(images):
    """(N, 1, 32, 32) digits, as many of them bold as in the built-in data.

    They are drawn at random: the bundled digits run through the classes in turn, and of every second one, either all or
    none of a class would be bold.
    """
    bold = drawn.enlarge(drawn.dilate(drawn.enlarge(images[:, 0], 28), 1), digit_classifier.SIZE)[
        :, None
    ]
    chosen = np.random.default_rng(6).integers(2, size=len(images)) == 1
    return np.where(chosen[:, None, None, None], bold, images)


def strokes(images, inverted):
    """(N, 3, S, S) coloured digits in [0, 255] as (N, S, S) in [0, 1]: 1 on the digit, 0 on its ground.

    A colour has its largest channel far from black, and its smallest far from white.
    """
    on_black = images.max(1) / float(drawn.ATTRIBUTE_COLOURS.max(1).min())
    dull = float(drawn.ATTRIBUTE_COLOURS.min(1).max())
    white = (images.min(1) - dull) / (255 - dull)
    return np.where(inverted[:, None, None], white, on_black).clip(0, 1)


def read_strokes(judge, ink):
    """(N,) digits that are read in (N, S, S) strokes."""
    return judge.read(grey(np.uint8(ink * 255)[:, None]))[0]


def nearest_colour(images, ink, inverted):
    """(N,) which colour of the built-in data the digit has, or its ground where the image is inverted."""
    painted = (ink > 0.5) != inverted[:, None, None]
    seen = np.stack(
        [
            image[:, mask].mean(1) if mask.any() else np.zeros(3)
            for image, mask in zip(images, painted)
        ]
    )
    return np.linalg.norm(seen[:, None] - drawn.ATTRIBUTE_COLOURS.astype(float), axis=2).argmin(1)


def brightness_of_border(images):
    """(N,) the mean of the largest channel along the four sides of (N, 3, S, S)."""
    sides = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return np.concatenate(sides, axis=2).max(1).mean(1)


JUDGES = {
    "pix2pix": judge_pix2pix,
    "cyclegan": judge_cyclegan,
    "stargan": judge_stargan,
    "usps": judge_usps,
}
