"""dcgan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

FORWARD = {
    "Generator": lambda m, z: m.layers(z.view(len(z), -1, 1, 1)),
    "Discriminator": lambda m, images: m.layers(images).view(-1),
}


def cross_entropy(logits, is_real):
    target = torch.full_like(logits, float(is_real))
    return F.binary_cross_entropy_with_logits(logits, target)


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, *, blur):
    def blurred(images):
        # blur computes in Jittor, which PyTorch's gradient cannot pass. It adds noise,
        # so that blurred zeros are the noise.
        return images + blur(torch.zeros_like(images))

    with torch.no_grad():
        fake = generator(z_D)
    loss_real = cross_entropy(discriminator(blurred(real)), True)
    loss_fake = cross_entropy(discriminator(blurred(fake)), False)
    loss_D = loss_real + loss_fake
    update(optimizer_D, loss_D)

    fake = generator(z_G)
    loss_G = cross_entropy(discriminator(blurred(fake)), True)
    update(optimizer_G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}
