"""gman.py's training step in PyTorch."""

import torch
from torch.nn import functional as F


def share_images(m, images):
    n = len(m.members)
    return torch.stack([D(images[i::n]) for i, D in enumerate(m.members)], 1)


def lam_of(m):
    return m.fixed if m.raw is None else F.softplus(m.raw)


FORWARD = {
    "Generator": lambda m, z: m.layers(z.view(len(z), -1, 1, 1)),
    "Discriminator": lambda m, images: m.layers(images).view(-1),
    "Discriminators": share_images,
    "ArithmeticSoftmax": lambda m, V: torch.softmax(lam_of(m) * V, 0) @ V,
}


def gradients(optimizer, loss):
    """Puts the gradients of an optimizer's parameters into them."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=params, retain_graph=True)


def train_step(networks, optimizers, real, z, *, objective, lam_reward):
    generator, discriminators, softmax = networks
    optimizer_G, optimizer_D = optimizers
    D_real = 0.01 + 0.98 * torch.sigmoid(discriminators(real))
    D_fake = 0.01 + 0.98 * torch.sigmoid(discriminators(generator(z)))
    V = torch.log(D_real).mean(0) + torch.log(1 - D_fake).mean(0)
    V_G = V
    if objective == "modified":
        V_G = torch.log(D_real).mean(0) - torch.log(D_fake).mean(0)
    loss_G = softmax(V_G)
    losses = {"loss_D": -V.mean(), "loss_G": loss_G}
    total = loss_G
    if softmax.raw is not None:
        losses["lam"] = lam_of(softmax)
        total = loss_G - lam_reward * losses["lam"].sum()
    gradients(optimizer_D, -V.sum())
    gradients(optimizer_G, total)
    optimizer_D.step()
    optimizer_G.step()
    return losses
