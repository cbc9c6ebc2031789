"""k-means: points in groups around their centres."""

import numpy as np

N_ROUNDS = 100  # at most; they end when no point changes its group


def k_means(points, k, seed=0):
    """The centres of k groups of points (Lloyd's algorithm).

    The first centres are points that are drawn as in k-means++ (Arthur and
    Vassilvitskii 2007): with probabilities in proportion to the squared distance from
    the nearest centre before.

    Args:
        points: (N, d) float.
        k: the number of groups.
        seed: of the first centres.

    Returns:
        (min(k, the number of different points), d) float32.
    """
    points = np.asarray(points, np.float64)
    rng = np.random.default_rng(seed)
    centres = points[[rng.integers(len(points))]]
    distances = squared_distances(points, centres)[:, 0]
    while len(centres) < k and distances.max() > 0:
        chosen = rng.choice(len(points), p=distances / distances.sum())
        centres = np.concatenate([centres, points[[chosen]]])
        distances = np.minimum(distances, squared_distances(points, centres[-1:])[:, 0])
    groups = None
    for _ in range(N_ROUNDS):
        nearest = squared_distances(points, centres).argmin(1)
        if groups is not None and np.array_equal(nearest, groups):
            break
        groups = nearest
        for i in range(len(centres)):
            if (groups == i).any():
                centres[i] = points[groups == i].mean(0)
    return centres.astype(np.float32)


def squared_distances(points, centres):
    """(N, k) of points (N, d) and centres (k, d)."""
    return ((points[:, None] - centres[None]) ** 2).sum(2)
