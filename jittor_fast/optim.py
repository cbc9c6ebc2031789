"""Adam, Adagrad, and the moving average of weights."""

import jittor as jt
from jittor import nn

from jittor_fast.call import call, fits, header, kernel

HEADER = header("optim.h")


class Adam(nn.Adam):
    """`jittor.nn.Adam`, with eps where the paper and PyTorch have it:

        p -= lr * (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)

    (Kingma and Ba 2015, algorithm 1). Jittor's own eps acts as 3.2e-7 in the first
    step.
    """

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            b1, b2 = group.get("betas", self.betas)
            scalars = {
                "b1": b1,
                "b2": b2,
                "eps": group.get("eps", self.eps),
                "decay": group.get("weight_decay", self.weight_decay),
                "rate": group.get("lr", self.lr) / (1 - b1**self.n_step),
                "correction": (1 - b2**self.n_step) ** -0.5,
            }
            for p, g, m, v in zip(group["params"], group["grads"], group["m"], group["values"]):
                if p.is_stop_grad():
                    continue
                if fits(p, g, m, v):
                    adam_kernel(p, g, m, v, scalars)
                else:
                    adam_in_operators(p, g, m, v, **scalars)
        self.post_step()


def adam_kernel(p, g, m, v, scalars):
    """Updates the parameter p with the gradient g, and its moments m and v."""
    scalars = {"n": p.numel(), **scalars}
    # What is still to be computed from the old p must find it unchanged, so that it
    # gets new memory. The moments have no other reader; overwriting them halves the
    # time.
    new = jt.empty(p.shape)
    # Under mpirun Jittor makes p depend on all gradients, and the next network's
    # derivatives would pass through theirs.
    old = p.detach() if jt.in_mpi else p
    # The call reads p and g, and writes new, m and v.
    source = call("adam", 2, 3, scalars)
    inputs = [old, g, m, v, new]
    jt.code(inputs, [new, m, v], cpu_src=source, cpu_header=HEADER, data=scalars)
    p.update(new)


def adam_in_operators(p, g, m, v, b1, b2, eps, decay, rate, correction):
    """The same update in Jittor's operators."""
    g = g + decay * p
    m.update(b1 * m + (1 - b1) * g)
    v.update(b2 * v + (1 - b2) * g * g)
    # 1e-30 is explained in kernels/optim.h.
    p.update(p - rate * m / (jt.sqrt(v + 1e-30) * correction + eps))


class Adagrad(jt.optim.Optimizer):
    """Adagrad (Duchi 2011, "Adaptive Subgradient Methods"), as in PyTorch:

        g += weight_decay * p
        v += g^2
        p -= lr * g / (sqrt(v) + eps)

    Jittor lacks it. It runs in Jittor's operators.
    """

    def __init__(self, params, lr, eps=1e-10, weight_decay=0):
        super().__init__(params, lr)
        self.eps = eps
        self.weight_decay = weight_decay
        for group in self.param_groups:
            group["values"] = [jt.zeros(p.shape, p.dtype).stop_grad() for p in group["params"]]

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            lr = group.get("lr", self.lr)
            for p, g, v in zip(group["params"], group["grads"], group["values"]):
                if p.is_stop_grad():
                    continue
                g = g + self.weight_decay * p
                v.update(v + g * g)
                # 1e-30 is explained in kernels/optim.h.
                p.update(p - lr * g / (jt.sqrt(v + 1e-30) + self.eps))
        self.post_step()


def ema_update(shadow, params, decay):
    """shadow = decay * shadow + (1 - decay) * params, for two lists of Vars.

    Sync the shadow in every step: without that, the graph of the next call grows upon
    this one's, and memory with it.
    """
    with jt.no_grad():
        for s, p in zip(shadow, params):
            if fits(s, p):
                scalars = {"n": s.numel(), "decay": decay}
                s.update(kernel(HEADER, "moving_average", [s.shape], [s, p], **scalars)[0])
            else:
                s.update(decay * s + (1 - decay) * p)
