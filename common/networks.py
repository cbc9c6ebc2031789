"""What is done with any network: average its weights, evaluate it in chunks, describe it."""

from common.checkpoint import load_module, module_state
from common.run import mixed_seed

import copy
import math

import jittor as jt
import numpy as np

import jittor_fast


class EMA:
    """An exponential moving average of a module's weights, which samples better than the last weights do.

    After each update, shadow = d * shadow + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) at the
    n-th update, so that a short run is not an average of its random start (Yazici 2019, "The Unusual
    Effectiveness of Averaging in GAN Training"; the warm-up is TensorFlow's). Batch norm's running statistics
    are averaged as the weights are.

    `module` is the averaged copy, in eval mode. With decay 0 it is the trained module itself.
    """

    def __init__(self, module, decay):
        self.source, self.decay, self.n_updates = module, decay, 0
        self.module = module
        if decay > 0:
            self.module = copy.deepcopy(module)
            self.module.eval()

    def update(self):
        """Call it once after each step of the trained module's optimizer."""
        if self.decay > 0:
            decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
            self.n_updates += 1
            jittor_fast.ema_update(self.module.parameters(), self.source.parameters(), decay)

    def restart(self):
        """Begins anew from the trained module's weights."""
        self.n_updates = 0
        if self.decay > 0:
            load_module(self.module, module_state(self.source))

    def state_dict(self):
        weights = {} if self.decay == 0 else module_state(self.module)
        return {"n_updates": self.n_updates, **weights}

    def load_state_dict(self, state):
        self.n_updates = int(state["n_updates"])
        if self.decay > 0:
            load_module(self.module, {name: state[name] for name in self.module.state_dict()})


def halvings(height, width):
    """How often both sides can be halved without a rest."""
    both = math.gcd(height, width)
    return (both & -both).bit_length() - 1


def in_chunks(network, *arrays, chunk=500, seed=None):
    """A network's outputs for numpy arrays (N, ...), computed `chunk` rows at a time, without gradients.

    A module is in eval mode meanwhile, and afterwards as it was.

    Args:
        network: a module or a function of as many variables as there are arrays.
        seed: for layers that draw random numbers in eval mode too; the same seed gives the same outputs.

    Returns:
        One numpy array (N, ...), or a tuple of them where the network gives a tuple.
    """
    trains = isinstance(network, jt.nn.Module) and network.is_training()
    if trains:
        network.eval()
    parts = []
    jt.sync_all()  # what still waits, a training step say, is computed as without pictures, from its own random numbers
    with jt.no_grad():
        for i in range(0, len(arrays[0]), chunk):
            if seed is not None:
                jittor_fast.set_seed(mixed_seed(seed, i))
            outputs = network(*(jt.array(array[i : i + chunk]) for array in arrays))
            several = isinstance(outputs, tuple)
            parts.append([output.numpy() for output in (outputs if several else (outputs,))])
    if trains:
        network.train()
    joined = tuple(np.concatenate(part) for part in zip(*parts))
    return joined if several else joined[0]


def n_parameters(module):
    """The number of trained parameters: without the statistics of batch norm and spectral norm."""
    names = module.named_parameters()
    return sum(
        p.numel()
        for name, p in names
        if not name.endswith(("running_mean", "running_var", "weight_u"))
    )


def describe(name, module, *inputs):
    """Prints a network's layers with their output shapes and parameters.

    Args:
        inputs: what the network takes, as Jittor variables with a batch of one.
    """
    rows = []

    def recorded(layer_name, layer):
        execute = layer.execute

        def run(*args):
            result = execute(*args)
            rows.append(
                (layer_name, type(layer).__name__, tuple(result.shape), n_parameters(layer))
            )
            return result

        return run

    total = n_parameters(module)
    leaves = [(n, layer) for n, layer in module.named_modules() if n and not [*layer.children()]]
    for layer_name, layer in leaves:
        layer.execute = recorded(layer_name, layer)
    module.eval()  # a batch of one has no statistics
    with jt.no_grad():
        outputs = module(*inputs)
    for _, layer in leaves:
        del layer.execute
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    shapes = (", ".join(str(tuple(v.shape)) for v in group) for group in (inputs, outputs))
    print(f"\n{name}: {' -> '.join(shapes)}")
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for layer_name, kind, shape, count in rows:
        print(
            f"  {layer_name:{widths[0]}}  {kind:{widths[1]}}  {shape!s:22}  {count:>12,}".rstrip()
        )
    print(f"  {total:,} parameters ({total / 1e6:.3f} M)", flush=True)
