"""Small functions that several scripts need."""

import math


def check_same_shape(*tensors):
    """Refuses tensors of different shapes, which a loss would broadcast silently.

    Raises:
        ValueError: the shapes differ; all of them are named.
    """
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(f"tensors of different shapes: {', '.join(map(str, shapes))}")


def linear_decay(epoch, lr, decay_epoch, decay_until):
    """The learning rate of an epoch, counted from 1.

    It is `lr` until `decay_epoch`, then falls linearly until `decay_until`, whose epoch
    has the last step down, and stays constant after that. Where `decay_until` is not
    greater than `decay_epoch`, nothing falls.
    """
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    remaining = decay_until + 1 - min(epoch, decay_until)
    return lr * remaining / (decay_until + 1 - decay_epoch)


def step_decay(epoch, lr, halve_every):
    """The learning rate of an epoch, counted from 1: halved every `halve_every` epochs.

    With 0 it stays `lr`.
    """
    if halve_every == 0:
        return lr
    return lr / 2 ** ((epoch - 1) // halve_every)


def halvings(height, width):
    """How many times both sides of an image can be halved exactly."""
    divisor = math.gcd(height, width)
    count = 0
    while divisor % 2 == 0:
        divisor //= 2
        count += 1
    return count
