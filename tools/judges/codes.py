"""Measures what the codes of infogan.py have come to mean, for tools/evaluate.py.

information  L_I of the categorical code on new images, in nats; at most the code's
             entropy
error        the share of test digits that the categorical code names wrong. A
             digit's category is the likeliest one for Q; a category stands for the
             digit that most of its training digits are. Batch norm takes the
             training's statistics, two thirds of which are those of generated
             images, and in a second figure the statistics of 500 real digits at a
             time, as Q's training took those of one kind of images at a time.
code j: ...  along the j-th continuous code, from -2 to 2 with all else equal: the
             rank correlation of the code and the digit's slant, the width of its
             strokes, or its brightness. It is 1 or -1 if no step ever turns back;
             the mean over images. Then the mean attribute at both ends, its
             standard deviation over samples, and whether the mean changes in one
             direction in every step.
"""

from common.data.decode import to_float
from common.errors import UserError
from common.predict import predict

import math

import numpy as np

from jittor_fast import nn
from tools.explore import ATTRIBUTES
from tools.judges import image_sets
from tools.runs import open_run

N_SAMPLES = 5000  # images for the information and the standard deviations
N_STARTS = 200  # of walks along a continuous code
STEPS = np.linspace(-2, 2, 9, dtype=np.float32)


def judge_codes(args):
    """The table's rows (measure, value, of what) for the run `args.B`.

    Raises:
        UserError: it is not a run of infogan.py, or one of colour images.
    """
    script, run_args, reader = open_run(args.B, "infogan")
    if run_args.channels != 1:
        raise UserError(
            f"{args.B} draws colour images, and only the codes of grey digits can be judged"
        )
    generator, discriminator = script.build(run_args)
    reader.load({"generator": generator, "discriminator": discriminator}, exact=False)
    discriminator.eval()
    rng = np.random.default_rng(9)
    latent = script.fixed_latent(rng, N_SAMPLES, run_args)
    _, categories, _ = latent
    images = predict(generator, *latent)
    rows = [
        information_row(discriminator, images, categories, run_args.n_categories),
        error_row(discriminator, run_args, args.mnist),
    ]
    use_statistics_of_batches(discriminator)
    name, error, of = error_row(discriminator, run_args, args.mnist)
    rows.append((f"{name}, by the statistics of real digits", error, of))
    deviations = {name: measure(images).std() for name, measure in ATTRIBUTES.items()}
    starts = script.fixed_latent(rng, N_STARTS, run_args)
    for i in range(run_args.n_continuous):
        rows += walk_rows(i, walks(generator, starts, i), deviations)
    return rows


# ---- the categorical code ----


def use_statistics_of_batches(discriminator):
    """Batch norm then takes those of a batch, and its running ones do not change."""
    for layer in discriminator.modules():
        if isinstance(layer, nn.BatchNorm):
            layer.train()
            layer.momentum = 0


def category_logits(discriminator, images):
    """Q's logits (N, n_categories) of images (N, 1, S, S) in [-1, 1]."""
    return predict(lambda x: discriminator(x)[1], images)


def best_categories(discriminator, images):
    """(N,) the likeliest category, for Q, of (N, 1, S, S) uint8 images."""
    return category_logits(discriminator, to_float(images)).argmax(1)


def meanings(categories, labels, n_categories):
    """(n_categories,) the digit that most images of each category show.

    It is -1 for a category without images.
    """
    counts = np.zeros((n_categories, 10), int)
    np.add.at(counts, (categories, labels), 1)
    return np.where(counts.sum(1) > 0, counts.argmax(1), -1)


def error_row(discriminator, run_args, mnist):
    train_digits = image_sets.digits("train", mnist, run_args.img_size)
    test_digits = image_sets.digits("test", mnist, run_args.img_size)
    categories = best_categories(discriminator, train_digits.images)
    found = meanings(categories, train_digits.labels, run_args.n_categories)
    read = found[best_categories(discriminator, test_digits.images)]
    error = float(np.mean(read != test_digits.labels))
    of = (
        f"{len(test_digits):,}; by {len(train_digits):,} training digits the categories "
        f"stand for {' '.join(map(str, found))}"
    )
    return "error", error, of


def information_row(discriminator, images, categories, n_categories):
    """L_I of images (N, 1, S, S) that were drawn with these categories (N,)."""
    logits = category_logits(discriminator, images).astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_Q = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    entropy = math.log(n_categories)
    bound = entropy + log_Q[np.arange(len(images)), categories].mean()
    of = f"{len(images):,} images; at most log {n_categories} = {entropy:.4f}"
    return "information of the category", float(bound), of


# ---- the continuous codes ----


def rank_correlation(values):
    """(N,) Spearman's rank correlation of each row of (N, n) values with 0 to n - 1."""
    order = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    ranks = values.argsort(1).argsort(1) - order.max()
    return ranks @ order / (order @ order)


def walks(generator, starts, i):
    """Images (N, 9, 1, S, S) with the i-th continuous code at each of STEPS.

    Args:
        starts: noise, categories and continuous codes of N images.
    """
    n = len(starts[0])
    z, categories, continuous = (np.repeat(values, len(STEPS), axis=0) for values in starts)
    continuous[:, i] = np.tile(STEPS, n)
    images = predict(generator, z, categories, continuous)
    return images.reshape(n, len(STEPS), *images.shape[1:])


def walk_rows(i, images, deviations):
    """A row for each attribute.

    Args:
        i: the index of the continuous code.
        images: of `walks`.
        deviations: {attribute: its standard deviation over samples}.
    """
    rows = []
    for name, measure in ATTRIBUTES.items():
        values = measure(images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2])
        mean = values.mean(0)
        steps = np.diff(mean)
        direction = "in both directions"
        if (steps > 0).all():
            direction = "always up"
        elif (steps < 0).all():
            direction = "always down"
        of = (
            f"mean from {mean[0]:.3f} to {mean[-1]:.3f}, {direction}; "
            f"deviation of samples {deviations[name]:.3f}"
        )
        rows.append((f"code {i + 1}: {name}", float(rank_correlation(values).mean()), of))
    return rows
