"""Warnings of a GAN's training that is lost.

Either the discriminator has won, or the generator's samples have collapsed.
"""

from common.errors import warn

import numpy as np

# Losses of a discriminator that distinguishes all images when they are near 0. A
# Wasserstein critic has none.
DISCRIMINATOR_LOSSES = ("loss_D", "loss_D_A", "loss_D_B")
WON = 0.01  # below this, the generator's gradients vanish
PATIENCE = 20  # readings of the losses in succession
N_REAL = 50  # images of the data whose variety is measured


def mean_distance(images):
    """The mean Euclidean distance between pairs of (N, ...) images; 0 for one image."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    products = flat @ flat.T
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
    return distances.sum() / max(len(flat) * (len(flat) - 1), 1)


class Watch:
    """Warns once if a discriminator has won, and once if samples have collapsed."""

    def __init__(self):
        self.real = []
        self.real_shape = None
        self.real_distance = None
        self.n_low = dict.fromkeys(DISCRIMINATOR_LOSSES, 0)
        self.warned = set()

    def warn_once(self, topic, message):
        if topic not in self.warned:
            self.warned.add(topic)
            warn(f"{message}; a lower --lr or another --seed may help")

    def see_losses(self, losses):
        """Takes the losses that were read, {name: float}."""
        for name in self.n_low:
            if name not in losses:
                continue
            self.n_low[name] = self.n_low[name] + 1 if losses[name] < WON else 0
            if self.n_low[name] == PATIENCE:
                self.warn_once(
                    "won",
                    f"the discriminator has won: {name} was below {WON} in {PATIENCE} "
                    "readings in succession, and the generator no longer learns from it",
                )

    def see_real(self, arrays):
        """Takes a training batch, whose last array (B, C, H, W) holds real images."""
        batches = [array for array in arrays if np.ndim(array) == 4]
        if not batches:
            self.real_distance = 0.0  # there are no images to compare samples with
            return
        if batches[-1].shape[1:] != self.real_shape:  # at first, or in a phase of another size
            self.real = []
            self.real_shape = batches[-1].shape[1:]
            self.real_distance = None
        if self.real_distance is not None:
            return
        self.real += list(batches[-1])
        if len(self.real) >= N_REAL:
            self.real_distance = mean_distance(np.stack(self.real[:N_REAL]))
            self.real = []

    def see_samples(self, images):
        """Takes samples (N, C, H, W) in the range of the real images."""
        if self.real_distance is not None:
            self.compare(np.asarray(images), self.real_distance, "real images")

    def see_rows(self, rows):
        """Takes rows of images (N, C, H, W); the first row holds real images."""
        first = mean_distance(np.asarray(rows[0]))
        for row in rows[1:]:
            self.compare(np.asarray(row), first, "their inputs")

    def compare(self, images, distance, others):
        if len(images) > 1 and mean_distance(images) < distance / 10:
            self.warn_once(
                "collapse",
                f"the samples have collapsed: they differ by less than a tenth of what {others} do",
            )
