"""Judges what the codes of infogan.py have come to mean; called by tools/evaluate.py.

information     L_I of the categorical code on new images, in nats; at most the code's entropy
error           share of test digits that the categorical code names wrong. A digit's category is the one to which Q
                gives most; a category stands for the digit that most of its training digits are
code j: ...     along the j-th continuous code, from -2 to 2 with all else equal: the rank correlation of the code
                and of the slant of the digit, the width of its strokes or its brightness, 1 or -1 where no step ever
                turns back; the mean over images. Then the mean attribute at both ends, its deviation over samples,
                and whether the mean goes one way in every step
"""

from common.data.decode import to_float
from common.errors import UserError
from common.networks import in_chunks

import math

import numpy as np

from tools import image_sets
from tools.explore import ATTRIBUTES
from tools.judge_translators import opened_run

N_SAMPLES = 5000  # images for the information and the deviations
N_STARTS = 200  # of walks along a continuous code
STEPS = np.linspace(-2, 2, 9, dtype=np.float32)


def best_categories(discriminator, images):
    """(N,) the category to which Q gives most for each of (N, 1, S, S) uint8 images."""
    return in_chunks(lambda x: discriminator(x)[1], to_float(images)).argmax(1)


def meanings(categories, labels, n_categories):
    """(n_categories,) the digit that most images of each category show; -1 of a category without images."""
    counts = np.zeros((n_categories, 10), int)
    np.add.at(counts, (categories, labels), 1)
    return np.where(counts.sum(1) > 0, counts.argmax(1), -1)


def error_row(discriminator, flags, mnist):
    train, test = (image_sets.digits(split, mnist, flags.img_size) for split in ("train", "test"))
    found = meanings(best_categories(discriminator, train.images), train.labels, flags.n_categories)
    error = np.mean(found[best_categories(discriminator, test.images)] != test.labels)
    stand = " ".join(map(str, found))
    return (
        "error",
        float(error),
        f"{len(test):,}; by {len(train):,} training digits the categories stand for {stand}",
    )


def information_row(script, flags, generator, discriminator, rng):
    """The row, and the images (N, 1, S, S) in [-1, 1] that it was measured on."""
    z, categories, continuous = script.latent(rng, N_SAMPLES, flags)
    images = in_chunks(generator, z, categories, continuous)
    logits = in_chunks(lambda x: discriminator(x)[1], images).astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_Q = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    bound = math.log(flags.n_categories) + log_Q[np.arange(N_SAMPLES), categories].mean()
    of = f"{N_SAMPLES:,} images; at most log {flags.n_categories} = {math.log(flags.n_categories):.4f}"
    return ("information of the category", float(bound), of), images


def rank_correlation(values):
    """(N,) Spearman's rank correlation of each row of (N, n) values with 0, 1, ..., n - 1."""
    order = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    ranks = values.argsort(1).argsort(1) - order.max()
    return ranks @ order / (order @ order)


def walks(generator, latents, i):
    """(N, 9, 1, S, S) images of N latents, with the i-th continuous code at each of STEPS."""
    z, categories, continuous = (np.repeat(values, len(STEPS), axis=0) for values in latents)
    continuous[:, i] = np.tile(STEPS, len(latents[0]))
    images = in_chunks(generator, z, categories, continuous)
    return images.reshape(-1, len(STEPS), *images.shape[1:])


def walk_rows(i, images, deviations):
    """One row for each attribute; `deviations` are those of the attributes over samples."""
    rows = []
    for name, measure in ATTRIBUTES.items():
        values = measure(images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2])
        mean = values.mean(0)
        steps = np.sign(np.diff(mean))
        way = (
            "always " + ("up" if steps[0] > 0 else "down")
            if abs(steps.sum()) == len(steps)
            else "to and fro"
        )
        of = f"mean from {mean[0]:.3f} to {mean[-1]:.3f}, {way}; deviation of samples {deviations[name]:.3f}"
        rows.append((f"code {i + 1}: {name}", float(rank_correlation(values).mean()), of))
    return rows


def judge_codes(args):
    """The table's rows (measure, value, of what) for the run `args.B`.

    Raises:
        UserError: no run of infogan.py, or one of colour images.
    """
    script, flags, reader = opened_run("infogan", args.B, built_in=False)
    if flags.channels != 1:
        raise UserError(
            f"{args.B} draws colour images, and only the codes of grey digits can be judged"
        )
    generator, discriminator = script.build(flags)
    reader.load({"generator": generator, "discriminator": discriminator}, exact=False)
    discriminator.eval()
    rng = np.random.default_rng(9)
    information, images = information_row(script, flags, generator, discriminator, rng)
    deviations = {name: measure(images).std() for name, measure in ATTRIBUTES.items()}
    rows = [information, error_row(discriminator, flags, args.mnist)]
    latents = script.latent(rng, N_STARTS, flags)
    for i in range(flags.n_continuous):
        rows += walk_rows(i, walks(generator, latents, i), deviations)
    return rows
