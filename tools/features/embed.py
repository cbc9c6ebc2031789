"""Finds the noise from which a generator draws the nearest images to given ones."""

from common.predict import predict

import jittor as jt
import numpy as np

from jittor_fast import nn

N_STEPS = 400
RATE = 0.05  # learning rate of Adam


def nearest_noise(generator, images, candidates):
    """Noise z whose images G(z) are near given images x.

    For each x, Adam minimizes |x - G(z)|, the mean over its pixels. It starts from the
    candidate whose image is the nearest.

    Args:
        generator: a module of noise (N, d); it is left in eval mode.
        images: (N, C, H, W) numpy, in [-1, 1].
        candidates: noise (M, d), numpy.

    Returns:
        z (N, d) numpy, and the distances (N,) before and after the search.
    """
    generator.eval()
    drawn = predict(generator, candidates)
    distances = np.stack([np.abs(drawn - image).mean((1, 2, 3)) for image in images])  # (N, M)
    target = jt.array(images)
    z = jt.array(candidates[distances.argmin(1)])
    z.start_grad()
    optimizer = nn.Adam([z], lr=RATE, betas=(0.9, 0.999))
    for _ in range(N_STEPS):
        loss = jt.abs(target - generator(z)).mean((1, 2, 3)).sum()
        optimizer.step(loss)
        jt.sync_all()
    found = z.numpy()
    last = np.abs(predict(generator, found) - images).mean((1, 2, 3))
    return found, distances.min(1), last
