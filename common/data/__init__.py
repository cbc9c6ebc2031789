"""Data sets for the scripts, and batches of them.

A data set is an object with `len()` and `batch(indices, seeds)`, which returns a tuple
of numpy arrays: images (B, C, H, W) float32 in [-1, 1] first, labels after them.
"""

from common.data.attributes import load_attributes
from common.data.batches import Batches, batch_mean, spread, whole_batch
from common.data.digits import load_digits
from common.data.domains import load_domains
from common.data.folders import holds_digits, load_images
from common.data.layout import BUILT_IN, is_built_in
from common.data.pairs import load_pairs

__all__ = [
    "BUILT_IN",
    "Batches",
    "batch_mean",
    "holds_digits",
    "is_built_in",
    "load_attributes",
    "load_digits",
    "load_domains",
    "load_images",
    "load_pairs",
    "spread",
    "whole_batch",
]
