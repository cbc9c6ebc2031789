"""pix2pix.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def unet(module, x):
    skips = []
    for layer in module.down:
        x = layer(x)
        skips.append(x)
    skips.pop()
    for layer in module.up:
        x = torch.cat([layer(x), skips.pop()], 1)
    return module.last(x)


def patch_gan(module, inputs, outputs):
    return module.layers(torch.cat([inputs, outputs], 1))


def resnet(module, x):
    return module.layers(x)


def residual(module, x):
    return x + module.layers(x)


def upsample(module, x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


FORWARD = {
    "UNet": unet,
    "PatchGAN": patch_gan,
    "PixelGAN": patch_gan,
    "ResNet": resnet,
    "Residual": residual,
    "Upsample": upsample,
}


def train_step(G, D, optimizer_G, optimizer_D, inputs, targets, *, loss, lambda_L1):
    criterion = F.mse_loss if loss == "lsgan" else F.binary_cross_entropy_with_logits
    fake = G(inputs)
    real_scores = D(inputs, targets)
    fake_scores = D(inputs, fake.detach())
    on_real = criterion(real_scores, torch.ones_like(real_scores))
    on_fake = criterion(fake_scores, torch.zeros_like(fake_scores))
    loss_D = 0.5 * (on_real + on_fake)
    update(optimizer_D, loss_D)

    scores = D(inputs, fake)
    loss_G = criterion(scores, torch.ones_like(scores))
    loss_L1 = F.l1_loss(fake, targets)
    update(optimizer_G, loss_G + lambda_L1 * loss_L1)
    return {"loss_D": loss_D, "loss_G": loss_G, "loss_L1": loss_L1}
