"""stargan.py's training step in PyTorch.

Every pass is computed on its own, where the script joins passes.
"""

import torch
from torch.nn import functional as F

from tools.twins import update


def residual(module, x):
    return x + module.layers(x)


def generator(module, images, attributes):
    planes = attributes[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return module.layers(torch.cat([images, planes], dim=1))


def discriminator(module, images):
    scores = module.realism(module.layers(images))
    logits = module.attributes(module.layers(images))
    return scores, logits.flatten(1)


FORWARD = {
    "Residual": residual,
    "Generator": generator,
    "Discriminator": discriminator,
}


def classify(logits, attributes):
    total = F.binary_cross_entropy_with_logits(logits, attributes, reduction="sum")
    return total / len(attributes)


def penalty_at(D, between):
    """The penalty of the gradient of each image's summed scores.

    Args:
        between: a leaf (B, C, H, W).
    """
    between.requires_grad_()
    scores, _ = D(between)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def train_step(networks, optimizers, real, labels, targets, alpha, *, update_G, weights):
    G, D = networks
    optimizer_G, optimizer_D = optimizers

    fake = G(real, targets).detach()
    real_scores, logits = D(real)
    fake_scores, _ = D(fake)
    wasserstein = real_scores.mean() - fake_scores.mean()
    penalty = penalty_at(D, alpha * real + (1 - alpha) * fake)
    loss_D_cls = classify(logits, labels)
    update(optimizer_D, -wasserstein + weights["gp"] * penalty + weights["cls"] * loss_D_cls)
    losses = {"wasserstein": wasserstein, "penalty": penalty, "loss_D_cls": loss_D_cls}
    if not update_G:
        return losses

    fake = G(real, targets)
    scores, logits = D(fake)
    loss_G_adv = -scores.mean()
    loss_G_cls = classify(logits, targets)
    loss_rec = F.l1_loss(G(fake, labels), real)
    update(optimizer_G, loss_G_adv + weights["cls"] * loss_G_cls + weights["rec"] * loss_rec)
    losses["loss_G_adv"] = loss_G_adv
    losses["loss_G_cls"] = loss_G_cls
    losses["loss_rec"] = loss_rec
    return losses
