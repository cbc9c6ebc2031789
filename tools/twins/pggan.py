"""pggan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def double(images):
    return F.interpolate(images, scale_factor=2, mode="nearest")


def deviation(m, x):
    n, _, height, width = x.shape
    groups = min(n, m.group_size)
    y = x.reshape(groups, n // groups, *x.shape[1:])
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
    return torch.cat([x, y.repeat(groups, 1, height, width)], dim=1)


def generator(m, z, size=None, alpha=1.0):
    level = m.sizes.index(size or m.sizes[-1])
    x = z
    for i in range(level):
        x = m.blocks[i](x)
    images = m.to_images[level](m.blocks[level](x))
    if alpha < 1:
        images = alpha * images + (1 - alpha) * double(m.to_images[level - 1](x))
    return images


def discriminator(m, images, alpha=1.0):
    level = m.sizes.index(images.shape[2])
    x = m.from_images[level](images)
    if level > 0:
        x = m.blocks[level - 1](x)
        if alpha < 1:
            small = m.from_images[level - 1](F.avg_pool2d(images, 2))
            x = alpha * x + (1 - alpha) * small
    for i in reversed(range(level - 1)):
        x = m.blocks[i](x)
    return m.last(x)[:, 0]


def first_image(m, z):
    return F.linear(z, m.weight * m.scale).reshape(len(z), -1, 4, 4) + m.bias


FORWARD = {
    "ScaledLinear": lambda m, x: F.linear(x, m.weight * m.scale, m.bias),
    "ScaledConv": lambda m, x: F.conv2d(x, m.weight * m.scale, m.bias, padding=m.padding),
    "FirstImage": first_image,
    "PixelNorm": lambda m, x: x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt(),
    "MinibatchDeviation": deviation,
    "Halving": lambda m, x: F.avg_pool2d(x, 2),
    "Generator": generator,
    "Discriminator": discriminator,
}


def train_step(networks, optimizers, real, z_D, z_G, u, *, alpha):
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    size = real.shape[2]

    with torch.no_grad():
        fake = generator(z_D, size, alpha)
    real_scores = discriminator(real, alpha)
    wasserstein = real_scores.mean() - discriminator(fake, alpha).mean()
    x_hat = (u * real + (1 - u) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x_hat, alpha).sum(), x_hat, create_graph=True)
    penalty = ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
    drift = real_scores.square().mean()
    update(optimizer_D, -wasserstein + 10 * penalty + 0.001 * drift)

    loss_G = -discriminator(generator(z_G, size, alpha), alpha).mean()
    update(optimizer_G, loss_G)
    return {"wasserstein": wasserstein, "penalty": penalty, "drift": drift, "loss_G": loss_G}
