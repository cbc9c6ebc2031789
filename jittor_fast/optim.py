"""Adam and the moving average of weights, each as one pass over a parameter on all CPU cores; and Adagrad."""

import jittor as jt
from jittor import nn

from jittor_fast.kernels import HEADER, fits, kernel

# in: p, gradient. out: the new p; m and v, which are overwritten.
ADAM = """
    // 1 - b2 is taken in double: 1 - 0.999f is off by 5e-5.
    const float b1 = data["b1"], b2 = data["b2"], c1 = 1 - data["b1"], c2 = 1 - data["b2"];
    const float decay = data["decay"], eps = data["eps"];
    const float rate = data["rate"], correction = data["correction"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) {
        const float gradient = in1_p[i] + decay * in0_p[i];
        const float m = b1 * out1_p[i] + c1 * gradient;
        const float v = b2 * out2_p[i] + c2 * gradient * gradient;
        // The compiler computes sqrt(v) as v * rsqrt(v), which is NaN where v is subnormal: 1e-30 keeps clear of that.
        out0_p[i] = in0_p[i] - rate * m / (std::sqrt(v + 1e-30f) * correction + eps);
        out1_p[i] = m;
        out2_p[i] = v;
    }
"""


class Adam(nn.Adam):
    """`jittor.nn.Adam` with eps where the paper (Kingma and Ba 2015, algorithm 1) and PyTorch have it:

    p -= lr * (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)
    """

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            b1, b2 = group.get("betas", self.betas)
            numbers = {
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
                if not fits(p, g, m, v):
                    adam_in_operators(p, g, m, v, **numbers)
                    continue
                new = jt.empty(p.shape)
                # Under mpirun Jittor makes p depend on all gradients, and the next network's derivatives would pass
                # through theirs.
                old = p.detach() if jt.in_mpi else p
                # Whatever is still to be computed from the old p must find it unchanged. The moments have no other
                # reader; overwriting them halves the time.
                jt.code(
                    [old, g, m, v, new], [new, m, v], cpu_src=ADAM, cpu_header=HEADER, data=numbers
                )
                p.update(new)
        self.post_step()


def adam_in_operators(p, g, m, v, b1, b2, eps, decay, rate, correction):
    """The update of ADAM in Jittor's operators; Jittor's own has an eps of 3.2e-7 in effect at the first step."""
    g = g + decay * p
    m.update(b1 * m + (1 - b1) * g)
    v.update(b2 * v + (1 - b2) * g * g)
    p.update(p - rate * m / (jt.sqrt(v + 1e-30) * correction + eps))


class Adagrad(jt.optim.Optimizer):
    """Adagrad (Duchi 2011, "Adaptive Subgradient Methods"), which Jittor lacks, in its operators; as PyTorch's:

    g += weight_decay * p,    v += g^2,    p -= lr * g / (sqrt(v) + eps)
    """

    def __init__(self, params, lr, eps=1e-10, weight_decay=0):
        super().__init__(params, lr)
        self.eps, self.weight_decay = eps, weight_decay
        for group in self.param_groups:
            group["values"] = [jt.zeros(p.shape, p.dtype).stop_grad() for p in group["params"]]

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            for p, g, v in zip(group["params"], group["grads"], group["values"]):
                if not p.is_stop_grad():
                    g = g + self.weight_decay * p
                    v.update(v + g * g)
                    # 1e-30 as in Adam above
                    p.update(p - group.get("lr", self.lr) * g / (jt.sqrt(v + 1e-30) + self.eps))
        self.post_step()


# in: the shadow, what it follows. out: the new shadow.
EMA = """
    const float decay = data["decay"], rest = 1 - data["decay"];
    #pragma omp parallel for schedule(static) if (WORTH_SHARING(in0->num))
    for (int64 i = 0; i < in0->num; i++) out0_p[i] = decay * in0_p[i] + rest * in1_p[i];
"""


def ema_update(shadow, params, decay):
    """shadow = decay * shadow + (1 - decay) * params, for two lists of Vars; sync the shadow in every step.

    Without a sync the next call's graph grows upon this one's, and memory with it.
    """
    with jt.no_grad():
        for s, p in zip(shadow, params):
            if fits(s, p):
                s.update(kernel([s.shape], [s, p], EMA, decay=decay)[0])
            else:
                s.update(decay * s + (1 - decay) * p)
