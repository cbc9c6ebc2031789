"""Measures how much the generators of sgan.py use their noise, for tools/evaluate.py.

accuracy   the share of test digits that the run's own encoder classifies right
features   the variance of the features that G_1 draws for one label, averaged over
           features and labels, as a share of that of the features of test digits with
           one label
images     the variance of the images that G_0 draws from the features of one test
           digit, averaged over pixels and digits, as a share of that of all test digits

Both shares are 0 for a generator that ignores its noise. Whether samples show what they
were asked for is measured on samples with their labels (--n_samples):
`python tools/evaluate.py results/sgan/samples.npz digits`.
"""

from common.predict import predict

import numpy as np

from tools.runs import open_run

N_DIGITS = 200  # test digits from whose features images are drawn
N_NOISE = 20  # images for each of them
N_FEATURES = 200  # features for each label


def judge_sgan(args):
    """The table's rows (measure, value, of what) for the run `args.B`.

    Raises:
        UserError: it is not a run of sgan.py.
    """
    script, run_args, reader = open_run(args.B, "sgan")
    networks = script.build(run_args)
    encoder, generator1, generator0, _, _ = networks
    parts = {"encoder": encoder, "generator1": generator1, "generator0": generator0}
    reader.load(parts, exact=False)
    for network in networks:
        network.eval()
    data = script.load(run_args, "test")
    images, labels = data.batch(np.arange(len(data)))
    accuracy = np.mean(predict(encoder, images).argmax(1) == labels)
    features = script.predict_features(encoder, images)

    rng = np.random.default_rng(6)
    drawn = draw_features(generator1, run_args, rng)
    of_features = variance(drawn) / variance_by_label(features, labels)
    chosen = features[:N_DIGITS]
    redrawn = [script.redraw(networks, chosen, rng, run_args) for _ in range(N_NOISE)]
    of_images = variance(np.stack(redrawn, axis=1)) / images.var(0).mean()
    return [
        ("accuracy of the encoder", float(accuracy), f"{len(images):,} test images"),
        (
            "variance of features of one label",
            float(of_features),
            f"of that of real ones; {N_FEATURES} for each of {run_args.n_classes} labels",
        ),
        (
            "variance of images of the same features",
            float(of_images),
            f"of that of all test images; {N_NOISE} for each of {len(chosen)} images",
        ),
    ]


def draw_features(generator1, run_args, rng):
    """(n_classes, N_FEATURES, d) features of G_1."""
    labels = np.repeat(np.arange(run_args.n_classes, dtype=np.int32), N_FEATURES)
    z1 = rng.random((len(labels), run_args.latent_dim), dtype=np.float32)
    features = predict(generator1, labels, z1)
    return features.reshape(run_args.n_classes, N_FEATURES, -1)


def variance(groups):
    """The mean over groups and values of the variance within a group: (n, m, ...)."""
    return groups.var(1).mean()


def variance_by_label(features, labels):
    """As `variance`, of features (N, d) in groups of equal labels (N,)."""
    return np.mean([features[labels == label].var(0).mean() for label in np.unique(labels)])
