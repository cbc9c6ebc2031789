"""r3gan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update
from tools.twins.stylegan2 import resample


def doubling(m, x):
    x = x if m.conv is None else m.conv(x)
    return resample(x, (2, 1), up=2)


def halving(m, x):
    x = resample(x, (1, 1), down=2)
    return x if m.conv is None else m.conv(x)


FORWARD = {
    "Residual": lambda m, x: x + m.layers(x),
    "FirstImage": lambda m, z: m.images * m.linear(z)[:, :, None, None],
    "Score": lambda m, x: m.linear((m.weights * x).sum((2, 3)))[:, 0],
    "Doubling": doubling,
    "Halving": halving,
    "Generator": lambda m, z: m.layers(z),
    "Discriminator": lambda m, images: m.layers(images),
}


def scores_and_penalty(discriminator, images):
    """Scores (B,), and the mean of the squared slopes at the images."""
    images = images.detach().requires_grad_()
    scores = discriminator(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return scores, gradient.square().sum((1, 2, 3)).mean()


def train_step(networks, optimizers, real, z_D, z_G, *, gamma):
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers

    with torch.no_grad():
        fake = generator(z_D)
    real_scores, r1 = scores_and_penalty(discriminator, real)
    fake_scores, r2 = scores_and_penalty(discriminator, fake)
    difference = real_scores - fake_scores
    loss_D = F.softplus(-difference).mean()
    update(optimizer_D, loss_D + gamma / 2 * (r1 + r2))

    with torch.no_grad():
        real_scores = discriminator(real)
    loss_G = F.softplus(real_scores - discriminator(generator(z_G))).mean()
    update(optimizer_G, loss_G)
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "difference": difference.mean(),
        "r1": r1,
        "r2": r2,
    }
