"""Counts the modes of stacked digits, which are three digits as channels of an image.

A classifier of digits reads each channel, so that an image has one of 1,000 modes (Metz
2017, arXiv 1611.02163). As in the literature, 26,000 samples are read if there are as
many. The table of tools/evaluate.py has

    modes              how many of the 1,000 occur
    KL                 sum over the modes of p log(p / q). p are the modes' shares in
                       the samples, q in the data: the product of the three digits'
                       shares in the training split. N samples that are spread as the
                       data have about 999 / 2N.
    certain            the share of samples whose three digits the classifier reads with
                       a probability over 0.9 each. It reads a digit in a blot, too, so
                       many modes with few certain samples are blots; the modes of the
                       certain samples are counted as well.
    precision, recall  of the features of all three channels together, against as many
                       stacks of training digits

and all but "certain" for equally many stacks of test digits, which is the best that
samples can reach: the classifier errs, and 26,000 draws miss a mode now and then.
"""

from common.errors import UserError, warn

import numpy as np
from PIL import Image

from tools.judges import digit_classifier, image_sets, metrics

N_SAMPLES = 26_000  # Metz 2017, section 3.3.1
CERTAIN = 0.9
K = 3  # which neighbour precision and recall use
MOST_NEIGHBOURS = 10_000  # points whose neighbours are searched, at most


def judge_modes(args):
    """The table's rows (measure, value, of what) for the samples `args.B`."""
    samples, n = load_samples(args)
    classifier = digit_classifier.of_digits(args.mnist, args.n_steps)
    chosen = np.sort(np.random.default_rng(3).permutation(len(samples))[:n])
    stacks = [samples.open_one(index) for index in chosen]
    modes, is_certain, features = read_stacks(classifier, stacks)
    expected = expected_shares(args.mnist)
    real_modes, real_features = real_stacks(classifier, args.mnist, n)

    target = training_features(classifier, args.mnist, min(n, MOST_NEIGHBOURS))
    m = len(target)
    some = np.random.default_rng(6).permutation(n)[:m]
    precision, recall = metrics.precision_and_recall(features[some], target, K)
    best_precision, best_recall = metrics.precision_and_recall(real_features[some], target, K)
    spread = f"{n:,} samples; spread as the data: {999 / (2 * n):.4f}"
    certain_modes = np.unique(modes[is_certain])
    return [
        ("samples", f"{n:,} of {samples.resolution}", samples.name),
        ("classifier", f"{classifier.size} x {classifier.size}", classifier.description),
        ("modes", len(np.unique(modes)), "of 1,000"),
        ("KL", divergence(modes, expected), spread),
        ("certain", float(is_certain.mean()), f"all three digits over {CERTAIN}"),
        ("modes of the certain", len(certain_modes), f"{is_certain.sum():,} samples"),
        ("precision", precision, f"{m:,} and {m:,}"),
        ("recall", recall, f"{m:,} and {m:,}"),
        ("modes of real stacks", len(np.unique(real_modes)), f"{n:,} of test digits"),
        ("KL of real stacks", divergence(real_modes, expected), ""),
        ("precision of real stacks", best_precision, f"{m:,} and {m:,}"),
        ("recall of real stacks", best_recall, f"{m:,} and {m:,}"),
    ]


def load_samples(args):
    """The samples, and how many of them are read.

    Raises:
        UserError: they are not colour images, or too few.
    """
    samples = image_sets.load(args.B, args.half_B, args.mnist)
    if not samples.is_colour:
        raise UserError(
            f"{args.B} holds grey images, and the modes are those of stacked digits, "
            "the data of --data_dir stacked"
        )
    n = min(args.max_images or N_SAMPLES, len(samples))
    if n <= K:
        raise UserError(
            f"{n} image{'s' if n > 1 else ''} of {args.B}: precision and recall need more than {K}"
        )
    if n < N_SAMPLES:
        warn(f"{n:,} samples: other figures are of {N_SAMPLES:,}, and fewer find fewer modes")
    return samples, n


# ---- what samples are compared with ----


def expected_shares(mnist):
    """The share (1,000,) of each mode in stacks of training digits."""
    labels = image_sets.digits("train", mnist, digit_classifier.SIZE).labels
    share = np.bincount(labels, minlength=10) / len(labels)
    return np.einsum("a,b,c->abc", share, share, share).ravel()


def real_stacks(classifier, mnist, n):
    """The modes (n,) and the features (n, 3 D) of stacks of test digits."""
    test_digits = image_sets.digits("test", mnist, classifier.size)
    chosen = np.random.default_rng(4).integers(len(test_digits), size=(n, 3))
    found = read_digits(classifier, test_digits.images)
    modes, _, features = join_channels(*(values[chosen] for values in found))
    return modes, features


def training_features(classifier, mnist, n):
    """The features (n, 3 D) of stacks of training digits."""
    train_digits = image_sets.digits("train", mnist, classifier.size)
    chosen = np.random.default_rng(5).integers(len(train_digits), size=3 * n)
    _, _, features = read_digits(classifier, train_digits.images[chosen])
    return features.reshape(n, -1)


# ---- reading ----


def read_digits(classifier, pixels):
    """What is read in uint8 images (N, 1, S, S).

    Returns:
        The digits (N,), whether each one is certain (N,), and the features (N, D).
    """
    features, probabilities = classifier(pixels)
    return probabilities.argmax(1), probabilities.max(1) > CERTAIN, features


def join_channels(digits, is_certain, features):
    """What is read in N stacks, from what is read in their channels.

    Args:
        digits, is_certain: (N, 3).
        features: (N, 3, D).

    Returns:
        The modes (N,), whether all digits are certain (N,), and the features (N, 3 D).
    """
    modes = digits @ [100, 10, 1]
    return modes, is_certain.all(1), features.reshape(len(features), -1)


def read_stacks(classifier, stacks):
    """As `join_channels`, for a list of Pillow images."""
    found = []
    for channel in range(3):
        pixels = np.stack([scaled_channel(stack, channel, classifier.size) for stack in stacks])
        found.append(read_digits(classifier, pixels[:, None]))
    return join_channels(*(np.stack(values, axis=1) for values in zip(*found)))


def scaled_channel(image, channel, size):
    return np.asarray(image.getchannel(channel).resize((size, size), Image.BICUBIC))


def divergence(modes, expected):
    """The KL divergence of the shares of modes (N,) from `expected`, in nats."""
    share = np.bincount(modes, minlength=len(expected)) / len(modes)
    occurs = share > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(share[occurs] * np.log(share[occurs] / expected[occurs])))
