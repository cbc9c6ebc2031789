"""gan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: (2 * torch.sigmoid(m.output(m.hidden(z))) - 1).unflatten(1, m.shape),
    "Maxout": lambda m, x: m.linear(x).unflatten(1, (m.n_out, -1)).amax(2),
    "Discriminator": lambda m, images: m.layers((images + 1) / 2).squeeze(1),
}


def cross_entropy(logits, is_real):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(is_real)))


def train_step(G, D, optimizer_G, optimizer_D, real, z_D, z_G):
    with torch.no_grad():
        fake = G(z_D)
    loss_D = (cross_entropy(D(real), True) + cross_entropy(D(fake), False)) / 2
    update(optimizer_D, loss_D)
    loss_G = cross_entropy(D(G(z_G)), True)
    update(optimizer_G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}
