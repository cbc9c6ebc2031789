"""Puts weights that were read from a file into a network."""

from common.checkpoint import load_module
from common.errors import UserError


def load_fitting(network, weights, path, name):
    """Loads the weights that a network has; the others in the file are ignored.

    Args:
        network: a Jittor module.
        weights: {name: array}.
        path: the file that they come from, for the error.
        name: of the network, for the error.

    Raises:
        UserError: a weight of the network is missing or has another shape.
    """
    wrong = []
    for key, value in network.state_dict().items():
        if key not in weights or weights[key].shape != tuple(value.shape):
            wrong.append(key)
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        raise UserError(f"{path} does not fit {name}: {', '.join(wrong[:3])}{more}")
    load_module(network, {key: weights[key] for key in network.state_dict()})
