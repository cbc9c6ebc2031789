"""Counts the modes of stacked digits, three digits as the channels of one image; called by tools/evaluate.py.

A classifier of digits reads each channel, so that an image has one of 1,000 modes (Metz 2017, arXiv 1611.02163). As
in the literature, 26,000 samples are read where there are as many, and the table gives

    modes    how many of the 1,000 occur
    KL       sum over the modes of p log(p / q), with p the modes' shares in the samples and q in the data: the product
             of the three digits' shares in the training part. Samples that spread as the data does have some 999 / 2N

    certain  the share whose three digits the classifier reads with a probability over 0.9 each. It reads a digit in a
             blot, too, so that many modes with few certain samples are blots; the modes of the certain are counted too
    precision, recall    of the features of all three channels together, against as many stacks of training digits

and all but the certain of equally many stacks of test digits, which is the best that samples could get: the classifier
errs, and 26,000 draws miss a mode now and then.
"""

from common.errors import UserError, warn

import numpy as np
from PIL import Image

from tools import digit_classifier, image_sets, metrics

N_SAMPLES = 26_000  # Metz 2017, section 3.3.1
CERTAIN = 0.9
K, MOST_NEIGHBOURS = (
    3,
    10_000,
)  # of precision and recall; these take the K-th neighbour of so many at most


def judge_modes(args):
    """The table's rows (measure, value, of what) for the samples `args.B`.

    Raises:
        UserError: they are no colour images, or too few.
    """
    samples = image_sets.load(args.B, args.half_B, args.mnist)
    if not samples.is_colour:
        raise UserError(
            f"{args.B} holds grey images, and the modes are of stacked digits, as --stacked trains on"
        )
    n = min(args.max_images or N_SAMPLES, len(samples))
    if n <= K:
        raise UserError(
            f"{n} image{'s' if n > 1 else ''} of {args.B}: precision and recall need more than {K}"
        )
    if n < N_SAMPLES:
        warn(f"{n:,} samples: other figures are of {N_SAMPLES:,}, and fewer find fewer modes")
    judge = digit_classifier.of_digits(args.mnist, args.n_steps)
    chosen = np.sort(np.random.default_rng(3).permutation(len(samples))[:n])
    found, certain, features = read_stacks(judge, [samples.opened(i) for i in chosen])

    expected, real, real_features, target = real_stacks(judge, args.mnist, n)
    m = len(target)
    some = np.random.default_rng(6).permutation(n)[:m]
    precision, recall = metrics.precision_and_recall(features[some], target, K)
    best_precision, best_recall = metrics.precision_and_recall(real_features[some], target, K)
    return [
        ("samples", f"{n:,} of {samples.resolution}", samples.name),
        ("classifier", f"{judge.size} x {judge.size}", judge.description),
        ("modes", len(np.unique(found)), "of 1,000"),
        (
            "KL",
            divergence(found, expected),
            f"{n:,} samples; spread as the data: {999 / (2 * n):.4f}",
        ),
        ("certain", float(certain.mean()), f"all three digits over {CERTAIN}"),
        ("modes of the certain", len(np.unique(found[certain])), f"{certain.sum():,} samples"),
        ("precision", precision, f"{m:,} and {m:,}"),
        ("recall", recall, f"{m:,} and {m:,}"),
        ("modes of real stacks", len(np.unique(real)), f"{n:,} of test digits"),
        ("KL of real stacks", divergence(real, expected), ""),
        ("precision of real stacks", best_precision, f"{m:,} and {m:,}"),
        ("recall of real stacks", best_recall, f"{m:,} and {m:,}"),
    ]


def real_stacks(judge, mnist, n):
    """What n samples are compared with.

    Returns:
        The share (1,000,) of each mode in the training part; the modes (n,) and the features (n, 3 D) of stacks of test
        digits; the features (m, 3 D) of stacks of training digits, m at most MOST_NEIGHBOURS.
    """
    train = image_sets.digits("train", mnist, judge.size)
    share = np.bincount(train.labels, minlength=10) / len(train)
    expected = np.einsum("a,b,c->abc", share, share, share).ravel()
    test = image_sets.digits("test", mnist, judge.size)
    drawn = np.random.default_rng(4).integers(len(test), size=(n, 3))
    modes, _, features = joined(*(values[drawn] for values in read_digits(judge, test.images)))
    m = min(n, MOST_NEIGHBOURS)
    drawn = np.random.default_rng(5).integers(len(train), size=3 * m)
    return expected, modes, features, read_digits(judge, train.images[drawn])[2].reshape(m, -1)


def read_digits(judge, pixels):
    """Of (N, 1, S, S) uint8 images: the digits (N,), whether each is certain (N,), and the features (N, D)."""
    features, probabilities = judge(pixels)
    return probabilities.argmax(1), probabilities.max(1) > CERTAIN, features


def joined(digits, certain, features):
    """Of N stacks' channels (N, 3), (N, 3), (N, 3, D): modes (N,), whether all are certain (N,), features (N, 3 D)."""
    return digits @ [100, 10, 1], certain.all(1), features.reshape(len(features), -1)


def read_stacks(judge, stacks):
    """`joined` of Pillow images."""
    channels = []
    for channel in range(3):
        pixels = np.stack([scaled_channel(stack, channel, judge.size) for stack in stacks])
        channels.append(read_digits(judge, pixels[:, None]))
    return joined(*(np.stack(values, axis=1) for values in zip(*channels)))


def scaled_channel(image, channel, size):
    return np.asarray(image.getchannel(channel).resize((size, size), Image.BICUBIC))


def divergence(modes, expected):
    """The KL divergence of the shares of (N,) modes from `expected`, in nats."""
    share = np.bincount(modes, minlength=len(expected)) / len(modes)
    occurs = share > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(share[occurs] * np.log(share[occurs] / expected[occurs])))
