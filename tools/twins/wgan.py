"""wgan.py's training step in PyTorch."""

import torch

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: m.layers(z.view(len(z), -1, 1, 1)),
    "Critic": lambda m, images: m.layers(images).view(-1),
}


def train_step(generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, *, clip, update_G=True):
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-clip, clip)
        fake = generator(z_D)
    wasserstein = critic(real).mean() - critic(fake).mean()
    update(optimizer_D, -wasserstein)
    losses = {"wasserstein": wasserstein}

    if update_G:
        loss_G = -critic(generator(z_G)).mean()
        update(optimizer_G, loss_G)
        losses["loss_G"] = loss_G
    return losses
