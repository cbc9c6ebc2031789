"""A network's outputs for numpy arrays, as pictures and evaluations need them."""

from common.seeds import mixed_seed

import jittor as jt
import numpy as np

from jittor_fast import set_seed


def predict(network, *arrays, chunk=500, seed=None):
    """A network's outputs for numpy arrays (N, ...), without gradients.

    A module is in eval mode meanwhile, and afterwards in the mode that it had.

    Args:
        network: a module, or a function of as many Jittor variables as there are
            arrays.
        chunk: how many of the N are computed at a time.
        seed: for layers that draw random numbers in eval mode too; the same seed gives
            the same outputs.

    Returns:
        One numpy array (N, ...), or a tuple of them where the network returns a tuple.
    """
    was_training = isinstance(network, jt.nn.Module) and network.is_training()
    if was_training:
        network.eval()

    # Jittor is lazy: what still waits from a training step must be computed before a
    # new seed and eval mode, or a run with pictures would differ from one without.
    jt.sync_all()

    chunks = []
    with jt.no_grad():
        for start in range(0, len(arrays[0]), chunk):
            if seed is not None:
                set_seed(mixed_seed(seed, start))
            inputs = [jt.array(array[start : start + chunk]) for array in arrays]
            outputs = network(*inputs)
            returns_tuple = isinstance(outputs, tuple)
            if not returns_tuple:
                outputs = (outputs,)
            chunks.append([output.numpy() for output in outputs])

    if was_training:
        network.train()
    joined = tuple(np.concatenate(parts) for parts in zip(*chunks))
    return joined if returns_tuple else joined[0]
