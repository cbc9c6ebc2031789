"""dcgan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def discriminate(m, features):
    M = torch.einsum("na,abc->nbc", features, m.weight)
    distances = (M[:, None] - M[None]).abs().sum(3)
    return torch.cat([features, torch.exp(-distances).sum(1)], 1)


FORWARD = {
    "Generator": lambda m, z: m.layers(z.view(len(z), -1, 1, 1)),
    "MinibatchDiscrimination": discriminate,
    "Discriminator": lambda m, images: m.layers(images).view(-1),
}


def one_sided(logits, is_real, loss):
    target = torch.full_like(logits, float(is_real))
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, target)
    if loss == "lsgan":
        return F.mse_loss(logits, target) / 2
    return F.relu(1 - logits if is_real else 1 + logits).mean()


def train_step(G, D, optimizer_G, optimizer_D, real, z_D, z_G, noise, loss):
    with torch.no_grad():
        fake = G(z_D)
    loss_D = one_sided(D(real + noise()), True, loss) + one_sided(D(fake + noise()), False, loss)
    update(optimizer_D, loss_D)
    logits = D(G(z_G) + noise())
    loss_G = -logits.mean() if loss == "hinge" else one_sided(logits, True, loss)
    update(optimizer_G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}
