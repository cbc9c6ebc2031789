"""stargan.py's training step in PyTorch, each pass by itself."""

import torch
from torch.nn import functional as F

from tools.twins import update

FORWARD = {
    "Residual": lambda m, x: x + m.layers(x),
    "Generator": lambda m, x, c: m.layers(
        torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
    ),
    "Discriminator": lambda m, x: (m.realism(m.layers(x)), m.attributes(m.layers(x)).flatten(1)),
}


def classify(logits, attributes):
    return F.binary_cross_entropy_with_logits(logits, attributes, reduction="sum") / len(attributes)


def penalty_at(discriminator, between):
    """Of the gradient of each image's summed scores; `between` is a leaf."""
    between.requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between)[0].sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def train_step(G, D, optimizer_G, optimizer_D, real, labels, targets, alpha, update_G, weights):
    fake = G(real, targets)
    scores, logits = D(real)
    losses = {
        "wasserstein": scores.mean() - D(fake.detach())[0].mean(),
        "penalty": penalty_at(D, alpha * real + (1 - alpha) * fake.detach()),
        "loss_D_cls": classify(logits, labels),
    }
    loss_D = (
        -losses["wasserstein"]
        + weights["gp"] * losses["penalty"]
        + weights["cls"] * losses["loss_D_cls"]
    )
    update(optimizer_D, loss_D)
    if not update_G:
        return losses
    fake = G(real, targets)
    scores, logits = D(fake)
    losses_G = {
        "loss_G_adv": -scores.mean(),
        "loss_G_cls": classify(logits, targets),
        "loss_rec": F.l1_loss(G(fake, labels), real),
    }
    update(
        optimizer_G,
        sum(weights.get(name.split("_")[-1], 1) * loss for name, loss in losses_G.items()),
    )
    return losses | losses_G
