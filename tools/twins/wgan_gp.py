"""wgan_gp.py's training step in PyTorch."""

import torch

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: m.layers(m.project(z).view(len(z), -1, 4, 4)),
    "Critic": lambda m, images: m.layers(images).view(-1),
}


def gradient_penalty(D, real, fake, alpha):
    """Gulrajani 2017, algorithm 1, lines 6 and 7."""
    between = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def train_step(G, D, optimizer_G, optimizer_D, real, z_D, z_G, alpha):
    with torch.no_grad():
        fake = G(z_D)
    wasserstein = D(real).mean() - D(fake).mean()
    penalty = gradient_penalty(D, real, fake, alpha)
    update(optimizer_D, -wasserstein + 10 * penalty)
    losses = {"wasserstein": wasserstein, "penalty": penalty}
    if z_G is None:
        return losses
    loss_G = -D(G(z_G)).mean()
    update(optimizer_G, loss_G)
    return {**losses, "loss_G": loss_G}
