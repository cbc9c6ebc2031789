"""Warnings of a GAN's training that is lost: the discriminator has won, or the samples have collapsed."""

from common.errors import warn

import numpy as np

WON = (
    0.01  # a discriminator's loss below this leaves the generator without a gradient to learn from
)
PATIENCE = 20  # readings of the losses in a row


def mean_distance(images):
    """Mean Euclidean distance between pairs of (N, ...) images; 0 for a single one."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    return distances.sum() / max(len(flat) * (len(flat) - 1), 1)


class Watch:
    """Warns once when a discriminator has won, and once when samples have collapsed.

    Args:
        real: (N, C, H, W) images of the data, N >= 2, whose variety the samples should have.
        samples: what the samples are called in the warning.
        loss: the name of a discriminator's loss that is near 0 when it tells all fakes. A Wasserstein critic has none.
    """

    def __init__(self, real, samples="samples", loss=None):
        self.real_distance, self.samples, self.loss = mean_distance(np.asarray(real)), samples, loss
        self.readings, self.told = 0, set()

    def tell(self, what, message):
        if what not in self.told:
            self.told.add(what)
            warn(f"{message}; try another --loss, --lr or --seed")

    def see_losses(self, losses):
        """Takes the losses that were read, {name: float}."""
        if self.loss not in losses:
            return
        self.readings = self.readings + 1 if losses[self.loss] < WON else 0
        if self.readings == PATIENCE:
            self.tell(
                "won",
                f"the discriminator has won: {self.loss} was under {WON} in {PATIENCE} readings in a row, "
                "and the generator no longer learns from it",
            )

    def see_samples(self, images):
        """Takes samples, (N, C, H, W), in the range of the real images; one alone shows no variety."""
        if len(images) > 1 and mean_distance(np.asarray(images)) < self.real_distance / 10:
            self.tell(
                "collapse",
                f"the {self.samples} have collapsed: they differ by less than a tenth of what the data's images do",
            )
