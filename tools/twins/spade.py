"""spade.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def spectral_norm(m, x):
    """A step of power iteration, then the convolution with the weight over its largest singular value."""
    conv, weight = m.conv, m.conv.weight
    rows = weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(rows.T @ m.weight_u, dim=0)
        u = F.normalize(rows @ v, dim=0)
        if m.training:
            m.weight_u.copy_(u)
    return F.conv2d(x, weight / (u @ rows @ v), conv.bias, conv.stride, conv.padding)


def spade(m, x, maps):
    seen = m.shared(maps)
    return m.norm(x) * (1 + m.gamma(seen)) + m.beta(seen)


def block(m, x, maps):
    shortcut = x if m.keeps else m.conv_s(m.norm_s(x, maps))
    x = m.conv_0(F.leaky_relu(m.norm_0(x, maps), 0.2))
    return shortcut + m.conv_1(F.leaky_relu(m.norm_1(x, maps), 0.2))


def one_hot(labels, n):
    return F.one_hot(labels.long(), n).permute(0, 3, 1, 2).float()


def generator(m, labels, z):
    maps = one_hot(labels, m.n_classes)
    x = m.first(z).view(len(z), -1, *m.smallest)
    for b, scale in zip(m.blocks, m.scales):
        size = [scale * side for side in m.smallest]
        x = F.interpolate(x, size=size, mode="nearest")
        x = b(x, F.interpolate(maps, size=size, mode="nearest"))
    return m.last(x)


def discriminator(m, labels, images):
    x = torch.cat([one_hot(labels, m.n_classes), images], 1)
    scores, features = [], []
    for layers in (m.large, m.small):
        y = x
        for layer in layers:
            y = layer(y)
            features.append(y)
        scores.append(features.pop())
        x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    return (*scores, *features)


def encoder(m, images):
    images = F.interpolate(images, size=(m.size, m.size), mode="bilinear", align_corners=False)
    x = m.layers(images).flatten(1)
    return m.mean(x), m.log_variance(x)


def perceptual(m, real, fake):
    total = 0
    for k, part in enumerate(m.parts):
        real, fake = part(real), part(fake)
        total = total + F.l1_loss(fake, real.detach()) / (32, 16, 8, 4, 1)[k]
    return total


FORWARD = {
    "Perceptual": perceptual,
    "MaxPool2d": lambda m, x: F.max_pool2d(x, 2),
    "Pool": lambda m, x: x,  # within Jittor's MaxPool2d
    "SpectralNorm": spectral_norm,
    "SPADE": spade,
    "Block": block,
    "Generator": generator,
    "Discriminator": discriminator,
    "Encoder": encoder,
}


def train_step(networks, optimizer_G, optimizer_D, labels, images, noise, weights, perceptual=None):
    G, E, D = networks
    mean, log_variance = E(images)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    fake = G(labels, posterior.loc + posterior.scale * noise)

    def outputs(fake):
        both = D(torch.cat([labels, labels]), torch.cat([images, fake]))
        return [x.chunk(2) for x in both]

    hinge = [
        F.relu(1 - real).mean() + F.relu(1 + f).mean() for real, f in outputs(fake.detach())[:2]
    ]
    loss_D = torch.stack(hinge).mean()
    update(optimizer_D, loss_D)

    seen = outputs(fake)
    loss_G = -torch.stack([f.mean() for _, f in seen[:2]]).mean()
    loss_FM = sum(F.l1_loss(f, real.detach()) for real, f in seen[2:]) / 2
    prior = torch.distributions.Normal(0.0, 1.0)
    loss_KL = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    losses = {"loss_G": loss_G, "loss_FM": loss_FM, "loss_KL": loss_KL}
    total = loss_G + weights["FM"] * loss_FM + weights["KL"] * loss_KL
    if perceptual is not None:
        losses["loss_VGG"] = perceptual(images, fake)
        total = total + weights["VGG"] * losses["loss_VGG"]
    update(optimizer_G, total)
    return {"loss_D": loss_D, **losses}
