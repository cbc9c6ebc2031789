"""wgan_gp.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: m.layers(m.project(z).view(len(z), -1, 4, 4)),
    "Critic": lambda m, images: m.layers(images).view(-1),
    "LayerNorm": lambda m, x: F.group_norm(x, 1, m.weight.flatten(), m.bias.flatten()),
}


def gradient_penalty(critic, real, fake, alpha):
    """Gulrajani 2017, algorithm 1, lines 6 and 7."""
    x_hat = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def train_step(
    generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, alpha, *, update_G=True
):
    with torch.no_grad():
        fake = generator(z_D)
    wasserstein = critic(real).mean() - critic(fake).mean()
    penalty = gradient_penalty(critic, real, fake, alpha)
    update(optimizer_D, -wasserstein + 10 * penalty)
    losses = {"wasserstein": wasserstein, "penalty": penalty}

    if update_G:
        loss_G = -critic(generator(z_G)).mean()
        update(optimizer_G, loss_G)
        losses["loss_G"] = loss_G
    return losses
