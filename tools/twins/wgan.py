"""wgan.py's training step in PyTorch."""

import torch

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: m.layers(z.view(len(z), -1, 1, 1)),
    "Critic": lambda m, images: m.layers(images).view(-1),
}


def train_step(G, D, optimizer_G, optimizer_D, real, z_D, z_G, clip):
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.clamp_(-clip, clip)
        fake = G(z_D)
    wasserstein = D(real).mean() - D(fake).mean()
    update(optimizer_D, -wasserstein)
    if z_G is None:
        return {"wasserstein": wasserstein}
    loss_G = -D(G(z_G)).mean()
    update(optimizer_G, loss_G)
    return {"wasserstein": wasserstein, "loss_G": loss_G}
