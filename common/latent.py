"""The noise that generators start from."""

import numpy as np

CODE = 5.0  # against normal entries of size 1: large enough that the first layer hears it


def latent_noise(rng, n, latent_dim, n_codes):
    """(n, n_codes + latent_dim) float32 noise: a code drawn uniformly (one entry CODE, the others 0), then N(0, 1).

    A continuous generator maps a connected space to connected images, so that between the 3s and the 5s it draws
    what is neither (Tanielian 2020). A mixture of n_codes normals, far from each other, leaves no such between
    (Gurumurthy 2017 have a learned mixture). The code is as in InfoGAN (Chen 2016), without its information term.
    """
    code = np.zeros((n, n_codes), np.float32)
    if n_codes:
        code[np.arange(n), rng.integers(n_codes, size=n)] = CODE
    return np.concatenate([code, rng.standard_normal((n, latent_dim), dtype=np.float32)], axis=1)
