"""Data sets of every kind that the scripts take, and batches of them.

A data set is an object with `len()` and `batch(indices, seeds)`, which gives a tuple of numpy arrays: images as
(B, C, H, W) float32 in [-1, 1] first, labels after them.
"""

from common.data.attributes import load_attributes
from common.data.batches import Batches, batch_mean, whole_batch
from common.data.digits import load_digits
from common.data.domains import load_domains
from common.data.folders import holds_digits, load_images
from common.data.pairs import load_pairs

__all__ = [
    "Batches",
    "batch_mean",
    "holds_digits",
    "load_attributes",
    "load_digits",
    "load_domains",
    "load_images",
    "load_pairs",
    "whole_batch",
]
