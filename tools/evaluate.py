"""How good a model's pictures are: distances between two sets of images, and judges of the built-in tasks.

    python tools/evaluate.py results/dcgan/samples.npz digits
    python tools/evaluate.py results/cgan_mnist/samples.npz digits --mnist MNIST --out table.md
    python tools/evaluate.py results/pix2pix/translated FACADES/val --half_B left --features none
    python tools/evaluate.py SAMPLES PHOTOGRAPHS --inception pt_inception-2015-12-05-6726825d.pth
    python tools/evaluate.py SAMPLES PHOTOGRAPHS --features efficientnet
    python tools/evaluate.py pix2pix results/pix2pix      (also: cyclegan, stargan, usps, infogan, text2img, stackgan)
    python tools/evaluate.py modes results/dcgan/samples.npz
    python tools/evaluate.py labels results/spade
    python tools/evaluate.py labels PICTURES --maps DATA

A is what is judged, B what it should resemble. Each is a samples.npz as --n_samples writes it (`images`, (N, H, W, C)
uint8, and perhaps `labels`), a folder of images, a folder of IDX files (its training part) or one file of them, or a
word: `digits` and `digits:test` are MNIST's training and test part, of --mnist, of Jittor's data set folder, or else
the bundled ones, at the size of the other set, as the scripts load them.

Distances of the two sets, measured between features that a network computes of each image:

    FID         squared Frechet distance of two Gaussians with the features' means and covariances (Heusel 2017,
                arXiv 1706.08500); 0 is best. Too few images raise it: compare equal numbers only
    KID x 1000  squared maximum mean discrepancy with the kernel (x . y / D + 1)^3, times 1000: the mean of unbiased
                estimates from blocks of about 1,000 images, and its standard error (Binkowski 2018, arXiv 1801.01401).
                0 is best, slightly negative is possible, and few images do not raise it
    precision   share of A that lies among B's images: a measure of quality (Kynkaanniemi 2019, arXiv 1904.06991)
    recall      share of B that lies among A's images: a measure of variety. Both by the third neighbour, of equal
                numbers from A and B, at most 10,000 each

The features are by default those of a small classifier of digits, which is trained once, in about two minutes, and
kept in ~/.cache/jittor-gan-collection; they are scaled to a mean square of 1 on real test digits. Numbers of two
classifiers cannot be compared. Photographs need --inception, a file with Inception-v3's weights, and on a CPU a minute
for some 300 images; or, where that file cannot be had, --features efficientnet, a smaller network whose weights come by
pip (tools/efficientnet.py) and in whose features no published number is. Every image takes the same way to the network:
uint8 as saved, scaled by Pillow's bicubic filter, which does not alias; images that are not square are stretched. Two
random halves of the real data show what a perfect model would get.

Where a classifier of digits judges, also:

    certain     share of A in which it sees one digit with a probability over 0.9
    share of k  share of A that it reads as the digit k
    as asked    share of A that it reads as its label says, over all and in the worst class; where A has labels

Pairs, which two folders hold that have the same file names:

    L1          mean of |A - B|, for values in [-1, 1] as in the scripts
    PSNR        10 log10(255^2 / mean squared difference) in dB, the mean over the images; equal images count as 100
    SSIM        structural similarity, Gaussian window of 11 pixels (Wang 2004); 1 is best. The mean over the channels

The last lines of commands judge a run of a translator on its built-in data: whether test digits got the colour, the
style or the attribute that was asked for, and are still read as the same digit; see tools/judge_translators.py. Of a
run of infogan it tells what the codes have come to mean (tools/judge_codes.py), of one of text2img or stackgan whether
pictures show what texts of unseen combinations ask for (tools/judge_texts.py). Of samples of a run with --stacked,
modes counts the kinds of images that occur, of 1,000; see tools/judge_modes.py. With labels, a segmenter reads maps
back from what a run of spade has painted of them, or from any model's pictures of the test part's maps in DATA; see
tools/judge_labels.py.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common.checkpoint import write_atomically
from common.data.decode import workers
from common.errors import UserError, warn

from tqdm import tqdm

from jittor_setup import choose_device
from tools import (
    digit_classifier,
    efficientnet,
    image_sets,
    inception,
    judge_codes,
    judge_labels,
    judge_modes,
    judge_texts,
    judge_translators,
    metrics,
)

CHUNK = 500
FEATURES = ("digits", "inception", "efficientnet", "none")
K = 3  # of the neighbours of precision and recall
MOST_NEIGHBOURS = (
    10_000  # of these; their distances to each other grow with the square of the number
)
JUDGES = {
    **judge_translators.JUDGES,
    "infogan": judge_codes.judge_codes,
    "modes": judge_modes.judge_modes,
}
JUDGES |= {
    "labels": judge_labels.judge_labels,
    "text2img": judge_texts.judge_texts,
    "stackgan": judge_texts.judge_texts,
}


def parse_args(argv=None):
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "evaluate.py", description=__doc__, formatter_class=formatter, allow_abbrev=False
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message}\n")
    add, count = parser.add_argument, common.number(int, at_least=1)
    add("A", help=f"what is judged; or {', '.join(JUDGES)}")
    add("B", help="what it should resemble; or the out_dir of a run of that script")
    add("--out", metavar="FILE", help="write the table too, as .csv or .md")
    add("--features", choices=FEATURES, help="inception where --inception is given, else digits")
    add(
        "--inception",
        metavar="FILE",
        help="Inception-v3's weights, of pytorch-fid or of torchvision",
    )
    add("--mnist", metavar="DIR", help="folder of full MNIST's IDX files")
    add("--usps", metavar="DIR", help="folder of USPS's IDX files, for usps")
    add(
        "--maps",
        metavar="DIR",
        help="data of spade.py's layout, for labels of a folder of pictures",
    )
    for side in "AB":
        add(
            f"--half_{side}",
            choices=("left", "right"),
            help=f"which half of {side}'s images counts",
        )
    add("--max_images", type=count, help="judge so many of A and of B at most, drawn at random")
    add("--n_steps", type=count, default=2000, help="steps of the judge's training (default: 2000)")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the network computes",
    )
    return parser.parse_args(argv)


def check(args):
    """Refuses what does not belong together.

    Raises:
        UserError: it names the flag.
    """
    if args.out is not None and Path(args.out).suffix not in (".csv", ".md"):
        raise UserError(f"--out {args.out}: the table is written as .csv or .md")
    if args.inception is not None and args.features not in (None, "inception"):
        raise UserError(
            f"--inception has no use with --features {args.features}; leave one of the two out"
        )
    if args.features == "inception" and args.inception is None:
        raise UserError(f"--features inception needs {inception.WHERE}")


# ---- features ----


def choose_judge(args, a, b):
    """The network whose features are compared.

    Raises:
        UserError: the images are colour photographs, and there is nothing to judge them by.
    """
    if args.inception is not None:
        return inception.InceptionJudge(args.inception)
    if args.features == "efficientnet":
        return efficientnet.EfficientNetJudge()
    colourful = [images.name for images in (a, b) if images.is_colour]
    if colourful and args.features is None:
        raise UserError(
            f"{colourful[0]} holds colour images, which a classifier of digits cannot judge. Give {inception.WHERE}; "
            f"or {efficientnet.WHERE}; or --features digits for coloured digits, or --features none for pairs alone"
        )
    return digit_classifier.of_digits(args.mnist, args.n_steps)


def judged(judge, images, indices):
    """Features (N, D), and probabilities (N, 10) of the digits or None."""
    parts = []
    with tqdm(
        total=len(indices), desc=f"features of {images.name}", leave=False, disable=None
    ) as bar:
        for i in range(0, len(indices), CHUNK):
            parts.append(judge(images.batch(indices[i : i + CHUNK], judge.size, judge.channels)))
            bar.update(len(parts[-1][0]))
    features, probabilities = zip(*parts)
    return np.concatenate(features), None if probabilities[0] is None else np.concatenate(
        probabilities
    )


def drawn(n, most, seed):
    """The indices of at most so many of n things, in order."""
    if most is None or n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


# ---- the rows of the table: (measure, value, of what) ----


def set_rows(a, b):
    """The distances of two sets of features."""
    n_a, n_b = len(a), len(b)
    if min(n_a, n_b) <= K:
        raise UserError(
            f"distances need more than {K} images on each side, found {n_a} and {n_b}; see --features none"
        )
    if min(n_a, n_b) <= a.shape[1]:
        warn(f"FID of fewer than {a.shape[1] + 1:,} images is much too high; KID is not")
    kid, error, n_blocks, size = metrics.kernel_distance(a, b)
    n = min(n_a, n_b, MOST_NEIGHBOURS)
    precision, recall = metrics.precision_and_recall(a[drawn(n_a, n, 1)], b[drawn(n_b, n, 2)], K)
    blocks = f"{n_blocks} block{'s' if n_blocks > 1 else ''} of {size:,}"
    return [
        (
            "FID",
            metrics.frechet_distance(*metrics.gaussian(a), *metrics.gaussian(b)),
            f"{n_a:,} and {n_b:,}",
        ),
        (
            "KID x 1000",
            1000 * kid,
            blocks + ("" if error is None else f", standard error {1000 * error:.3f}"),
        ),
        ("precision", precision, f"{n:,} and {n:,}"),
        ("recall", recall, f"{n:,} and {n:,}"),
    ]


def digit_rows(probabilities, labels):
    """What the classifier reads in A."""
    n, found = len(probabilities), probabilities.argmax(1)
    rows = [("certain", np.mean(probabilities.max(1) > 0.9), f"{n:,}, over 0.9")]
    rows += [(f"share of {k}", np.mean(found == k), f"{n:,}") for k in range(10)]
    if labels is None:
        return rows
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()} are no digits; see --features"
        )
    right = {k: np.mean(found[labels == k] == k) for k in np.unique(labels)}
    worst = min(right, key=right.get)
    return [
        *rows,
        ("as asked", np.mean(found == labels), f"{n:,}"),
        ("as asked, worst", right[worst], f"{np.sum(labels == worst):,}, the {worst}"),
    ]


def pair_rows(a, b):
    """The mean distances of the images of the same names; none where the names differ."""
    if a.names is None or b.names is None:
        return []
    if set(a.names) != set(b.names):
        shared = len(set(a.names) & set(b.names))
        if shared:
            warn(f"no pairs: only {shared} names are in both, of {len(a)} and {len(b)}")
        return []
    place = {name: i for i, name in enumerate(b.names)}
    with ThreadPoolExecutor(workers()) as pool:
        measured = list(
            pool.map(lambda i: pair(a.opened(i), b.opened(place[a.names[i]])), range(len(a)))
        )
    means = np.mean(measured, axis=0)
    resized = int((a.sizes != b.sizes[[place[name] for name in a.names]]).any(1).sum())
    of = f"{len(a):,} pairs" + (f", {resized:,} of B scaled to A's size" if resized else "")
    return [
        (name, value, of)
        for name, value in zip(("L1", "PSNR", "SSIM"), means)
        if np.isfinite(value)
    ]


def pair(a, b):
    """L1, PSNR and SSIM of two Pillow images, the second at the first one's size; SSIM is NaN of too small ones."""
    a, b = (image_sets.scaled(image, a.size, 3).transpose(1, 2, 0) for image in (a, b))
    fits = min(a.shape[:2]) >= metrics.SSIM_WINDOW
    return metrics.l1(a, b), metrics.psnr(a, b), metrics.ssim(a, b) if fits else np.nan


def both_sets(args):
    """A and B as image sets; MNIST's digits come as the scripts load them at the other's size."""
    loaded, like = {}, None
    for side in ("B", "A") if args.A in image_sets.WORDS else ("A", "B"):
        like = loaded[side] = image_sets.load(
            getattr(args, side), getattr(args, f"half_{side}"), args.mnist, like
        )
    return loaded["A"], loaded["B"]


def evaluate(args):
    """All rows of the table of A and B."""
    a, b = both_sets(args)
    rows = [(side, f"{len(x):,} of {x.resolution}", x.name) for side, x in (("A", a), ("B", b))]
    pairs = pair_rows(a, b)
    if args.features == "none":
        if not pairs:
            raise UserError(
                "--features none leaves the pairs, and A and B are no folders with the same file names"
            )
        return rows + pairs
    judge = choose_judge(args, a, b)
    chosen = drawn(len(a), args.max_images, 3)
    features_a, probabilities = judged(judge, a, chosen)
    features_b, _ = judged(judge, b, drawn(len(b), args.max_images, 4))
    rows += [
        ("features", f"{judge.size} x {judge.size}", judge.description),
        *set_rows(features_a, features_b),
    ]
    if probabilities is not None:
        rows += digit_rows(probabilities, None if a.labels is None else a.labels[chosen])
    return rows + pairs


# ---- the table ----


def shown(value):
    return (
        value
        if isinstance(value, str)
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4f}"
    )


def lines(rows, kind):
    """The table as text for the screen, as Markdown or as CSV with all digits of the numbers."""
    if kind == ".csv":
        quoted = (
            (m, value if isinstance(value, str) else repr(float(value)), of)
            for m, value, of in rows
        )
        return [
            "measure,value,of",
            *(",".join('"' + c.replace('"', '""') + '"' for c in row) for row in quoted),
        ]
    table = [(measure, shown(value), of) for measure, value, of in rows]
    if kind == ".md":
        return [
            "| measure | value | of |",
            "|---|---:|---|",
            *(f"| {' | '.join(row)} |" for row in table),
        ]
    widths = [max(len(row[i]) for row in table) for i in (0, 1)]
    return [f"{measure:{widths[0]}}  {value:>{widths[1]}}  {of}" for measure, value, of in table]


def write(path, rows):
    text = "\n".join(lines(rows, path.suffix)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def main(argv=None):
    """Prints the table of A and B, and gives its rows as {measure: value}."""
    args = parse_args(argv)
    try:
        check(args)
        choose_device(args.device)
        rows = JUDGES[args.A](args) if args.A in JUDGES else evaluate(args)
        print("\n".join(lines(rows, "")), flush=True)
        if args.out is not None:
            write(Path(args.out).expanduser(), rows)
    except (UserError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    return {measure: value for measure, value, _ in rows}


if __name__ == "__main__":
    main()
