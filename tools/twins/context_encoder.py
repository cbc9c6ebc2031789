"""context_encoder.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

RGB = torch.tensor([117.0, 104.0, 123.0])
GREY = torch.tensor([0.299, 0.587, 0.114])


def generator(module, images):
    return module.decoder(module.encoder(images))


def discriminator(module, parts):
    return module.layers(parts).flatten()


FORWARD = {"Generator": generator, "Discriminator": discriminator}


def train_step(
    G, D, optimizer_G, optimizer_D, images, masks, *, hole, overlap, lambda_rec, lambda_adv
):
    colour = RGB if images.shape[1] == 3 else (RGB * GREY).sum()
    colour = (colour / 127.5 - 1).view(1, -1, 1, 1).to(images.device)
    context = torch.where(masks == 1, colour, images)
    side = images.shape[2]
    real = images
    rim = 0
    if hole == "center":
        rim = overlap
        real = images.narrow(2, side // 4, side // 2).narrow(3, side // 4, side // 2)

    fake = G(context)
    real_logits = D(real)
    fake_logits = D(fake.detach())
    ones = torch.ones_like(real_logits)
    criterion = F.binary_cross_entropy_with_logits
    loss_D = criterion(real_logits, ones) + criterion(fake_logits, 1 - ones)
    update(optimizer_D, loss_D)

    loss_adv = criterion(D(fake), ones)
    error = (fake - real).square()
    inner = error[:, :, rim : error.shape[2] - rim, rim : error.shape[3] - rim]
    total = 10 * error.sum() - 9 * inner.sum()
    loss_rec = total / error.numel()
    update(optimizer_G, lambda_rec * loss_rec + lambda_adv * loss_adv)
    return {"loss_D": loss_D, "loss_adv": loss_adv, "loss_rec": loss_rec}
