"""Seeds of Jittor's generator."""

import numpy as np


def mixed_seed(*numbers):
    """A large seed for Jittor that depends on all the numbers.

    Jittor's generator gives the same sequence for the seeds 0 and 1, and starts near 0
    from any small seed.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1) | 1 << 29
