"""began.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def decode(m, h):
    first = m.project(h).unflatten(1, (m.width, 8, 8))
    x = m.sizes[0](first)
    for size in list(m.sizes)[1:]:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if m.skip_connections:
            first = F.interpolate(first, scale_factor=2, mode="nearest")
            x = torch.cat([x, first], 1)
        x = size(x)
    return m.image(x)


FORWARD = {
    "Decoder": decode,
    "AutoEncoder": lambda m, images: m.decoder(m.encoder(images)),
}


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, *, k):
    with torch.no_grad():
        fake = generator(z_D)
    loss_real = F.l1_loss(discriminator(real), real)
    loss_fake = F.l1_loss(discriminator(fake), fake)
    update(optimizer_D, loss_real - k * loss_fake)

    fake = generator(z_G)
    loss_G = F.l1_loss(discriminator(fake), fake)
    update(optimizer_G, loss_G)
    return {"loss_real": loss_real, "loss_fake": loss_fake, "loss_G": loss_G}
