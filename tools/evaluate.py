"""Measures how good a model's pictures are.

    python tools/evaluate.py results/dcgan/samples.npz digits
    python tools/evaluate.py results/dcgan/samples.npz digits --mnist MNIST --out t.md
    python tools/evaluate.py TRANSLATED FACADES/val --half_B left --features none
    python tools/evaluate.py SAMPLES PHOTOGRAPHS --inception WEIGHTS
    python tools/evaluate.py SAMPLES PHOTOGRAPHS --features efficientnet
    python tools/evaluate.py pix2pix results/pix2pix    # or one of the words below
    python tools/evaluate.py modes results/dcgan/samples.npz
    python tools/evaluate.py labels results/spade
    python tools/evaluate.py labels PICTURES --maps DATA
    python tools/evaluate.py srgan results/srgan --photos PHOTOGRAPHS
    python tools/evaluate.py instances results/pix2pixhd

A is what is evaluated, B what it should resemble. Each of them is a samples.npz as
--n_samples writes it (`images`, (N, H, W, C) uint8, and perhaps `labels`), a folder of
images, a folder of IDX files (its training split) or one file of them, or a word:
`digits` and `digits:test` are MNIST's training and test split, from --mnist, from
Jittor's data folder, or else the bundled digits, at the size of the other set, as the
scripts load them.

Distances of the two sets, measured between features that a network computes of each
image:

    FID         squared Frechet distance of two Gaussians with the features' means and
                covariances (Heusel 2017, arXiv 1706.08500); 0 is best. Too few images
                raise it: compare equal numbers of images only.
    KID x 1000  squared maximum mean discrepancy with the kernel (x . y / D + 1)^3,
                times 1000: the mean of unbiased estimates from blocks of about 1,000
                images, and its standard error (Binkowski 2018, arXiv 1801.01401). 0 is
                best, slightly negative is possible, and few images do not raise it.
    precision   share of A that lies among B's images: a measure of quality
                (Kynkaanniemi 2019, arXiv 1904.06991)
    recall      share of B that lies among A's images: a measure of variety. Both use
                the third neighbour, and equally many images of A and B, at most 10,000
                of each.

By default the features are those of a small classifier of digits, which is trained
once, in about two minutes, and kept in ~/.cache/jittor-gan-collection; they are scaled
to a mean square of 1 on real test digits. Figures of two classifiers cannot be
compared. Photographs need --inception, a file with Inception-v3's weights
(tools/features/inception.py names two), and on a CPU a minute for about 300 images. If
that file cannot be had, --features efficientnet takes a smaller network whose weights
come by pip (tools/features/efficientnet.py); no published figure uses its features.
Every image reaches the network in the same way: its uint8 pixels as they were saved,
scaled by Pillow's bicubic filter, which does not alias; images that are not square are
stretched. Two random halves of the real data show what a perfect model would get.

With a classifier of digits, also:

    certain     share of A in which it sees one digit with a probability over 0.9
    share of k  share of A that it reads as the digit k
    as asked    share of A that it reads as its label says, over all and in the worst
                class; if A has labels

For two folders with the same file names, the mean over all pairs of

    L1          mean of |A - B|, for values in [-1, 1] as in the scripts
    PSNR        10 log10(255^2 / mean squared difference) in dB; equal images count as
                100
    SSIM        structural similarity, Gaussian window of 11 pixels (Wang 2004); 1 is
                best. The mean over the channels.

With --luma N, as the literature on super-resolution compares enlarged images with
originals: PSNR and SSIM of the luma alone (Y of BT.601, from 16 to 235, rounded), with
a border of N pixels left out, N mostly being the factor of the enlargement; and

    sharpness   gradient energy of A over that of B: the mean squared difference of
                neighbouring pixels of the luma. Below 1, A is blurred.

If A is one of these words, B is evaluated on the task of a script:

    pix2pix, cyclegan, unit,           a run of a translator on its built-in data: do
    stargan, usps                      test digits get the colour or the style that was
                                       asked for, and are they still read as the same
                                       digit? Do test faces get the attribute, and keep
                                       all others? (tools/judges/translations.py)
    vae, vaegan                        a run: how near are reconstructions, how sharp
                                       are they and samples? What is read in them?
                                       (tools/judges/autoencoders.py)
    bigan                              a run: do near codes belong to equal digits, and
                                       are images reconstructed? (tools/judges/bigan.py)
    infogan                            a run: what have its codes come to mean?
                                       (tools/judges/codes.py)
    sgan                               a run: do its generators use their noise?
                                       (tools/judges/sgan.py)
    text2img, stackgan                 a run: do pictures show what texts of unseen
                                       combinations, or of test faces, ask for?
                                       (tools/judges/texts.py)
    modes                              samples of a run with --data_dir stacked: how
                                       many of the 1,000 modes occur?
                                       (tools/judges/modes.py)
    inpaint                            a run of context_encoder.py, or of pix2pix.py
                                       with --task inpaint: how near are filled holes
                                       to what was there, and are completed digits read
                                       as what they are? (tools/judges/inpainting.py)
    srgan                              a run of srgan.py: bicubic interpolation and
                                       the run's enlargements of its test images, or of
                                       --photos, beside the originals
                                       (tools/judges/enlargements.py)
    labels                             a run of spade.py, or any model's pictures of the
                                       maps in the test split of DATA: can a network
                                       read the maps back from them?
                                       (tools/judges/labels.py)
    instances                          a run of pix2pixhd.py: how far are its outputs
                                       from the images where objects of one class touch?
                                       Are digits read? What does the code of one object
                                       change? (tools/judges/instances.py)
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint import write_atomically
from common.cli import ToolParser, number
from common.data.decode import workers
from common.data.layout import expanded
from common.errors import UserError, in_words, print_line, warn

import jittor as jt
from tqdm import tqdm

from jittor_setup import choose_device
from tools.features import efficientnet, inception
from tools.judges import (
    autoencoders,
    bigan,
    codes,
    digit_classifier,
    enlargements,
    image_sets,
    inpainting,
    instances,
    labels,
    metrics,
    modes,
    sgan,
    texts,
    translations,
)

CHUNK = 500
FEATURES = ("digits", "inception", "efficientnet", "none")
K = 3  # which neighbour precision and recall use
# Points whose neighbours are searched, at most: the distances to each other grow with
# the square of their number.
MOST_NEIGHBOURS = 10_000
JUDGES = {
    **translations.JUDGES,
    "vae": autoencoders.judge_vae,
    "vaegan": autoencoders.judge_vaegan,
    "bigan": bigan.judge_bigan,
    "infogan": codes.judge_codes,
    "instances": instances.judge_instances,
    "modes": modes.judge_modes,
    "inpaint": inpainting.judge_inpaint,
    "labels": labels.judge_labels,
    "sgan": sgan.judge_sgan,
    "srgan": enlargements.judge_srgan,
    "text2img": texts.judge_texts,
    "stackgan": texts.judge_texts,
}


def parse_args(argv=None):
    parser = ToolParser(
        "evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    count = number(int, at_least=1)
    parser.add_argument("A", help=f"what is evaluated; or {', '.join(JUDGES)}")
    parser.add_argument("B", help="what it should resemble; or what A, if a word, evaluates")
    parser.add_argument("--out", metavar="FILE", help="write the table too, as .csv or .md")
    parser.add_argument(
        "--features",
        choices=FEATURES,
        help="whose features are compared (default: inception with --inception, else digits)",
    )
    parser.add_argument(
        "--inception",
        metavar="FILE",
        help="Inception-v3's weights, of pytorch-fid or of torchvision",
    )
    parser.add_argument("--mnist", metavar="DIR", help="folder of full MNIST's IDX files")
    parser.add_argument("--usps", metavar="DIR", help="folder of USPS's IDX files, for usps")
    parser.add_argument(
        "--maps", metavar="DIR", help="data in the layout of spade.py, for labels of PICTURES"
    )
    parser.add_argument(
        "--photos", metavar="DIR", help="photographs to shrink and enlarge again, for srgan"
    )
    parser.add_argument(
        "--luma",
        type=number(int, at_least=0),
        metavar="N",
        help="compare pairs by their luma, without a border of N pixels",
    )
    for side in "AB":
        parser.add_argument(
            f"--half_{side}",
            choices=("left", "right"),
            help=f"which half of {side}'s images counts",
        )
    parser.add_argument(
        "--max_images", type=count, help="images of A and of B, at most, drawn at random"
    )
    parser.add_argument(
        "--n_steps",
        type=count,
        default=2000,
        help="training steps of the classifier, or of the network of labels (default: 2000)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute"
    )
    return parser.parse_args(argv)


def check(args):
    """Refuses flags that exclude each other.

    Raises:
        UserError: it names the flags.
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


def choose_features(args, a, b):
    """The network whose features are compared.

    Raises:
        UserError: the images are in colour, and no features for photographs are given.
    """
    if args.inception is not None:
        return inception.InceptionFeatures(args.inception)
    if args.features == "efficientnet":
        return efficientnet.EfficientNetFeatures()
    colourful = [images.name for images in (a, b) if images.is_colour]
    if colourful and args.features is None:
        raise UserError(
            f"{colourful[0]} holds colour images, which a classifier of digits cannot judge. "
            f"Give {inception.WHERE}; or {efficientnet.WHERE}; or --features digits for coloured "
            "digits, or --features none for pairs alone"
        )
    return digit_classifier.of_digits(args.mnist, args.n_steps)


def features_of(network, images, indices):
    """Features (N, D), and the digits' probabilities (N, 10) or None.

    Args:
        network: what `choose_features` returns.
        images: an `ImageSet`.
        indices: (N,) which of its images.
    """
    features = []
    probabilities = []
    title = f"features of {images.name}"
    with tqdm(total=len(indices), desc=title, leave=False, disable=None) as bar:
        for start in range(0, len(indices), CHUNK):
            chunk = indices[start : start + CHUNK]
            found = network(images.batch(chunk, network.size, network.channels))
            features.append(found[0])
            probabilities.append(found[1])
            bar.update(len(chunk))
    if probabilities[0] is None:
        return np.concatenate(features), None
    return np.concatenate(features), np.concatenate(probabilities)


def choose_indices(n, most, seed):
    """The indices of at most `most` of n things, drawn at random, in order."""
    if most is None or n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


# ---- the rows of the table: (measure, value, of what) ----


def distance_rows(a, b):
    """The distances of two sets of features."""
    n_a = len(a)
    n_b = len(b)
    if min(n_a, n_b) <= K:
        raise UserError(
            f"distances need more than {K} images on each side, found {n_a} and {n_b}; "
            "see --features none"
        )
    if min(n_a, n_b) <= a.shape[1]:
        warn(f"FID of fewer than {a.shape[1] + 1:,} images is much too high; KID is not")
    fid = metrics.frechet_distance(*metrics.gaussian(a), *metrics.gaussian(b))
    kid, error, n_blocks, size = metrics.kernel_distance(a, b)
    blocks = f"{n_blocks} block{'s' if n_blocks > 1 else ''} of {size:,}"
    if error is not None:
        blocks += f", standard error {1000 * error:.3f}"
    n = min(n_a, n_b, MOST_NEIGHBOURS)
    some_a = a[choose_indices(n_a, n, 1)]
    some_b = b[choose_indices(n_b, n, 2)]
    precision, recall = metrics.precision_and_recall(some_a, some_b, K)
    return [
        ("FID", fid, f"{n_a:,} and {n_b:,}"),
        ("KID x 1000", 1000 * kid, blocks),
        ("precision", precision, f"{n:,} and {n:,}"),
        ("recall", recall, f"{n:,} and {n:,}"),
    ]


def digit_rows(probabilities, labels):
    """What the classifier reads in A.

    Args:
        probabilities: (N, 10).
        labels: (N,), or None.
    """
    n = len(probabilities)
    found = probabilities.argmax(1)
    rows = [("certain", np.mean(probabilities.max(1) > 0.9), f"{n:,}, over 0.9")]
    for k in range(10):
        rows.append((f"share of {k}", np.mean(found == k), f"{n:,}"))
    if labels is None:
        return rows
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()} are not digits; see --features"
        )
    shares = {k: np.mean(found[labels == k] == k) for k in np.unique(labels)}
    worst = min(shares, key=shares.get)
    return [
        *rows,
        ("as asked", np.mean(found == labels), f"{n:,}"),
        ("as asked, worst", shares[worst], f"{np.sum(labels == worst):,}, the {worst}"),
    ]


def pair_rows(a, b, border=None):
    """The mean distances of images with the same names; no rows if the names differ.

    Args:
        border: of --luma, or None.
    """
    if a.names is None or b.names is None:
        return []
    names_a = stems(a.names)
    names_b = stems(b.names)
    if len(set(names_a)) < len(a) or len(set(names_b)) < len(b):
        # Names that differ only in their suffix: the whole names decide.
        if not set(a.names) & set(b.names):
            warn("no pairs: some files have names that differ only in their suffixes")
        names_a = a.names
        names_b = b.names
    n_shared = len(set(names_a) & set(names_b))
    if not n_shared == len(a) == len(b):
        if n_shared:
            warn(f"no pairs: only {n_shared} names are in both, of {len(a)} and {len(b)}")
        return []
    place = {name: i for i, name in enumerate(names_b)}
    partners = [place[name] for name in names_a]
    n_resized = int((a.sizes != b.sizes[partners]).any(1).sum())
    if border is not None:
        return luma_rows(a, b, partners, border)

    def distances(index):
        return distances_of_pair(a.open_one(index), b.open_one(partners[index]))

    with ThreadPoolExecutor(workers()) as pool:
        measured = list(pool.map(distances, range(len(a))))
    of = f"{len(a):,} pairs"
    if n_resized:
        of += f", {n_resized:,} of B scaled to A's size"
    rows = []
    for name, value in zip(("L1", "PSNR", "SSIM"), np.mean(measured, axis=0)):
        if np.isfinite(value):
            rows.append((name, value, of))
    return rows


def stems(names):
    """Paths without their suffixes."""
    return [Path(name).with_suffix("").as_posix() for name in names]


def distances_of_pair(a, b):
    """L1, PSNR and SSIM of Pillow images, the second scaled to the first one's size.

    SSIM is NaN if they are too small for it.
    """
    pixels_a = image_sets.scaled(a, a.size, 3).transpose(1, 2, 0)
    pixels_b = image_sets.scaled(b, a.size, 3).transpose(1, 2, 0)
    ssim = np.nan
    if min(pixels_a.shape[:2]) >= metrics.SSIM_WINDOW:
        ssim = metrics.ssim(pixels_a, pixels_b)
    return metrics.l1(pixels_a, pixels_b), metrics.psnr(pixels_a, pixels_b), ssim


def luma_rows(a, b, partners, border):
    """The rows of --luma, for pairs of equal sizes.

    Args:
        partners: for each image of a, the index of its partner in b.

    Raises:
        UserError: the sizes of a pair differ, or an image is too small.
    """
    for name, size, other in zip(a.names, a.sizes, b.sizes[partners]):
        if (size != other).any():
            raise UserError(
                f"--luma compares images of equal sizes, and {name} is {size[0]} x {size[1]} in A "
                f"and {other[0]} x {other[1]} in B"
            )
        enlargements.check_size(name, size, border)

    def compared(index):
        one = image_sets.scaled(a.open_one(index), a.sizes[index], 3).transpose(1, 2, 0)
        other = image_sets.scaled(b.open_one(partners[index]), a.sizes[index], 3)
        return enlargements.compare(one, other.transpose(1, 2, 0), border)

    with ThreadPoolExecutor(workers()) as pool:
        measured = list(pool.map(compared, range(len(a))))
    return enlargements.rows_of(measured, f"{len(a):,} pairs")


def load_both(args):
    """A and B as image sets; MNIST's digits come at the other set's size."""
    if args.A in image_sets.WORDS:
        b = image_sets.load(args.B, args.half_B, args.mnist)
        a = image_sets.load(args.A, args.half_A, args.mnist, like=b)
    else:
        a = image_sets.load(args.A, args.half_A, args.mnist)
        b = image_sets.load(args.B, args.half_B, args.mnist, like=a)
    return a, b


def evaluate(args):
    """All rows of the table of A and B."""
    a, b = load_both(args)
    rows = [
        ("A", f"{len(a):,} of {a.resolution}", a.name),
        ("B", f"{len(b):,} of {b.resolution}", b.name),
    ]
    pairs = pair_rows(a, b, args.luma)
    if args.luma is not None and not pairs:
        raise UserError("--luma compares pairs, and A and B have no files with the same names")
    if args.features == "none":
        if not pairs:
            raise UserError(
                "--features none leaves the pairs, and A and B are not folders with the same "
                "file names"
            )
        return rows + pairs
    network = choose_features(args, a, b)
    chosen = choose_indices(len(a), args.max_images, 3)
    features_a, probabilities = features_of(network, a, chosen)
    features_b, _ = features_of(network, b, choose_indices(len(b), args.max_images, 4))
    rows.append(("features", f"{network.size} x {network.size}", network.description))
    rows += distance_rows(features_a, features_b)
    if probabilities is not None:
        rows += digit_rows(probabilities, None if a.labels is None else a.labels[chosen])
    return rows + pairs


# ---- the table ----


def as_shown(value):
    """A value as text, as the screen and Markdown show it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}"


def screen_lines(rows):
    texts_of_rows = [(measure, as_shown(value), of) for measure, value, of in rows]
    widths = [max(len(row[i]) for row in texts_of_rows) for i in range(2)]
    return [
        f"{measure:{widths[0]}}  {value:>{widths[1]}}  {of}" for measure, value, of in texts_of_rows
    ]


def markdown_lines(rows):
    lines = ["| measure | value | of |", "|---|---:|---|"]
    for measure, value, of in rows:
        lines.append(f"| {measure} | {as_shown(value)} | {of} |")
    return lines


def csv_lines(rows):
    """With all digits of the values."""
    lines = ["measure,value,of"]
    for measure, value, of in rows:
        text = value if isinstance(value, str) else repr(float(value))
        cells = [cell.replace('"', '""') for cell in (measure, text, of)]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    return lines


def write(path, rows):
    """Writes the table as .csv or .md."""
    lines = csv_lines(rows) if path.suffix == ".csv" else markdown_lines(rows)
    text = "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def main(argv=None):
    """Prints the table of A and B, and returns its rows as {measure: value}."""
    args = parse_args(argv)
    try:
        check(args)
        jt.flags.use_cuda = choose_device(args.device)
        rows = JUDGES[args.A](args) if args.A in JUDGES else evaluate(args)
        print("\n".join(screen_lines(rows)), flush=True)
        if args.out is not None:
            write(expanded(args.out), rows)
    except (UserError, OSError, MemoryError) as error:
        print_line("stderr", f"evaluate.py: error: {in_words(error)}")
        raise SystemExit(2) from error
    return {measure: value for measure, value, _ in rows}


if __name__ == "__main__":
    main()
