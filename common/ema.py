"""Averaged weights: an exponential moving average of a network's parameters."""

from common.checkpoint import load_module, module_state

import copy

from jittor_fast import ema_update


class EMA:
    """An exponential moving average (EMA) of a network's weights.

    Samples of averaged weights are usually better than those of the last weights
    (Yazici 2019, "The Unusual Effectiveness of Averaging in GAN Training"). After each
    update, with the n-th update's decay d,

        average = d * average + (1 - d) * weights,    d = min(decay, (1 + n) / (10 + n))

    The smaller decay of the first updates, which is TensorFlow's, keeps the random
    initial weights out of a short run's average. Batch norm's running statistics are
    averaged as the weights are.

    Args:
        network: the trained network, a `jittor.nn.Module`.
        decay: in [0, 1); with 0 nothing is averaged, and `module` is `network`.

    Attributes:
        module: the averaged copy, in eval mode.
    """

    def __init__(self, network, decay):
        self.source = network
        self.decay = decay
        self.n_updates = 0
        self.module = network
        if decay > 0:
            self.module = copy.deepcopy(network)
            self.module.eval()

    def update(self):
        """Averages once more; call it after each step of the network's optimizer."""
        if self.decay > 0:
            decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
            self.n_updates += 1
            ema_update(self.module.parameters(), self.source.parameters(), decay)

    def restart(self):
        """Starts again from the network's present weights."""
        self.n_updates = 0
        if self.decay > 0:
            load_module(self.module, module_state(self.source))

    def state_dict(self):
        """The average's Jittor variables by their names, and the number of updates."""
        state = {"n_updates": self.n_updates}
        if self.decay > 0:
            state.update(self.module.state_dict())
        return state

    def load_state_dict(self, state):
        self.n_updates = int(state["n_updates"])
        if self.n_updates < 0:
            raise ValueError(f"{self.n_updates} updates of an average")
        if self.decay > 0:
            weights = {name: state[name] for name in self.module.state_dict()}
            load_module(self.module, weights)
