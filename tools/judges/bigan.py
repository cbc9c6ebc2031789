"""Measures what the encoder of bigan.py has found, for tools/evaluate.py.

1-NN ...         the share of test digits whose nearest training digit (by Euclidean
                 distance) has the same label: in the features of the encoder's last
                 hidden layer, in its codes, in the features of an untrained encoder,
                 and in pixels
reconstruction   the mean distance |x - G(E(x))| of test digits x, for pixels in [0, 1];
                 the mean distance of G(E(x)) from another test digit; and the first
                 divided by the second. At 1, nothing of x is reconstructed.

They are NNC_e-, NNC_e, EGr and EGr_b of the authors' code
(github.com/jeffdonahue/bigan).
"""

from common.data.decode import to_float
from common.errors import UserError
from common.predict import predict

import jittor as jt
import numpy as np

from tools.judges import image_sets
from tools.runs import open_run

CHUNK = 1000  # test digits that are compared at a time


def judge_bigan(args):
    """The table's rows (measure, value, of what) for the run `args.B`.

    Raises:
        UserError: it is not a run of bigan.py, or one of colour images.
    """
    script, run_args, reader = open_run(args.B, "bigan")
    if run_args.channels != 1:
        raise UserError(f"{args.B} draws colour images, and digits are grey")
    jt.set_global_seed(0)  # of the untrained encoder
    _, untrained, _ = script.build(run_args)
    generator, encoder, _ = script.build(run_args)
    reader.load({"generator": generator, "encoder": encoder}, exact=False)
    for network in (untrained, generator, encoder):
        network.eval()

    train = image_sets.digits("train", args.mnist, run_args.img_size)
    test = image_sets.digits("test", args.mnist, run_args.img_size)
    of = f"{len(test):,} test digits, among {len(train):,} training digits"
    rows = []
    for name, codes_of in (
        ("features", encoder.features),
        ("codes", encoder),
        ("features of an untrained encoder", untrained.features),
        ("pixels", lambda images: images.reshape(len(images), -1)),
    ):
        share = nearest_share(
            predict(codes_of, to_float(train.images)),
            train.labels,
            predict(codes_of, to_float(test.images)),
            test.labels,
        )
        rows.append((f"1-NN in {name}", share, of))
    images = to_float(test.images)
    return rows + reconstruction_rows(images, predict(generator, predict(encoder, images)))


def nearest_share(codes, labels, test_codes, test_labels):
    """The share of test codes whose nearest code has their label.

    Args:
        codes, test_codes: (N, d) and (M, d).
        labels, test_labels: (N,) and (M,).
    """
    # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, and the last term is the same for all a.
    squares = (codes**2).sum(1) / 2
    n_right = 0
    for first in range(0, len(test_codes), CHUNK):
        part = test_codes[first : first + CHUNK]
        nearest = (squares - part @ codes.T).argmin(1)
        n_right += (labels[nearest] == test_labels[first : first + CHUNK]).sum()
    return float(n_right / len(test_codes))


def reconstruction_rows(images, reconstructed):
    """Of images and their reconstructions (N, 1, S, S) in [-1, 1]."""
    of = f"{len(images):,} test digits; pixels in [0, 1]"
    distance = mean_distance(images, reconstructed)
    of_others = mean_distance(np.roll(images, 1, axis=0), reconstructed)
    return [
        ("reconstruction: distance", distance, of),
        ("reconstruction: distance from another digit", of_others, of),
        ("reconstruction: ratio", distance / of_others, of),
    ]


def mean_distance(images, others):
    """The mean of |x - y| over pairs of images (N, ...) in [-1, 1], as in [0, 1]."""
    differences = (images - others).reshape(len(images), -1) / 2
    return float(np.sqrt((differences**2).sum(1)).mean())
