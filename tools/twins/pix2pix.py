"""pix2pix.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def unet(m, x):
    skips = []
    for layer in m.down:
        x = layer(x)
        skips.append(x)
    skips.pop()
    for layer in m.up:
        x = torch.cat([layer(x), skips.pop()], 1)
    return m.last(x)


FORWARD = {
    "UNet": unet,
    "PatchGAN": lambda m, inputs, outputs: m.layers(torch.cat([inputs, outputs], 1)),
    "ResNet": lambda m, x: m.layers(x),
    "Residual": lambda m, x: x + m.layers(x),
    "Upsample": lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
}


def train_step(G, D, optimizer_G, optimizer_D, inputs, targets, loss, lambda_L1):
    criterion = F.mse_loss if loss == "lsgan" else F.binary_cross_entropy_with_logits
    fake = G(inputs)
    real_scores, fake_scores = D(inputs, targets), D(inputs, fake.detach())
    on_real = criterion(real_scores, torch.ones_like(real_scores))
    on_fake = criterion(fake_scores, torch.zeros_like(fake_scores))
    loss_D = 0.5 * (on_real + on_fake)
    update(optimizer_D, loss_D)
    scores = D(inputs, fake)
    loss_G, loss_L1 = criterion(scores, torch.ones_like(scores)), F.l1_loss(fake, targets)
    update(optimizer_G, loss_G + lambda_L1 * loss_L1)
    return {"loss_D": loss_D, "loss_G": loss_G, "loss_L1": loss_L1}
