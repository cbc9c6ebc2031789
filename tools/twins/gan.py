"""gan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def generate(m, z):
    images = 2 * torch.sigmoid(m.output(m.hidden(m.z_scale * z))) - 1
    return images.unflatten(1, m.shape)


FORWARD = {
    "Generator": generate,
    "Maxout": lambda m, x: m.linear(x).unflatten(1, (m.n_out, -1)).amax(2),
    "Discriminator": lambda m, images: m.layers((images + 1) / 2).squeeze(1),
}


def cross_entropy(logits, is_real):
    target = torch.full_like(logits, float(is_real))
    return F.binary_cross_entropy_with_logits(logits, target)


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G):
    with torch.no_grad():
        fake = generator(z_D)
    loss_real = cross_entropy(discriminator(real), True)
    loss_fake = cross_entropy(discriminator(fake), False)
    loss_D = (loss_real + loss_fake) / 2
    update(optimizer_D, loss_D)

    loss_G = cross_entropy(discriminator(generator(z_G)), True)
    update(optimizer_G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}
