"""Finds the noise from which a generator draws what is nearest to given images."""

from common.networks import in_chunks

import jittor as jt
import numpy as np

from jittor_fast import nn

N_STEPS, RATE = 400, 0.05


def nearest_noise(generator, images, candidates):
    """Noise z whose images G(z) are near to `images` x: Adam minimizes |x - G(z)|, the mean over pixels, for each x.

    Each z begins as the candidate whose image is nearest.

    Args:
        generator: a module of (N, d) noise; it is left in eval mode.
        images: (N, C, H, W) numpy, in [-1, 1].
        candidates: (M, d) numpy noise.

    Returns:
        z (N, d) numpy, and the distances (N,) of the beginning and of the end.
    """
    generator.eval()
    drawn = in_chunks(generator, candidates)
    distances = np.stack([np.abs(drawn - image).mean((1, 2, 3)) for image in images])  # (N, M)
    target, z = jt.array(images), jt.array(candidates[distances.argmin(1)])
    z.start_grad()
    optimizer = nn.Adam([z], lr=RATE, betas=(0.9, 0.999))
    for _ in range(N_STEPS):
        optimizer.step(jt.abs(target - generator(z)).mean((1, 2, 3)).sum())
        jt.sync_all()
    found = z.numpy()
    return found, distances.min(1), np.abs(in_chunks(generator, found) - images).mean((1, 2, 3))
