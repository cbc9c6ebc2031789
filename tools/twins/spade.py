"""spade.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

# ---- networks ----


def spectral_norm(m, x):
    """The convolution with its weight over the largest singular value.

    In training, one step of power iteration comes before it.
    """
    conv = m.conv
    matrix = conv.weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(matrix.T @ m.weight_u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
        if m.training:
            m.weight_u.copy_(u)
    weight = conv.weight / (u @ matrix @ v)
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)


def spade(m, x, maps):
    gamma, beta = m.gamma_beta(m.shared(maps)).chunk(2, dim=1)
    return m.norm(x) * (1 + gamma) + beta


def block(m, x, maps):
    y = m.conv_0(F.leaky_relu(m.norm_0(x, maps), 0.2))
    y = m.conv_1(F.leaky_relu(m.norm_1(y, maps), 0.2))
    if m.has_shortcut:
        x = m.conv_s(m.norm_s(x, maps))
    return x + y


def one_hot(labels, n_classes):
    return F.one_hot(labels.long(), n_classes).permute(0, 3, 1, 2).float()


def generator(m, labels, z):
    maps = one_hot(labels, m.n_classes)
    x = m.first(z).view(len(z), -1, *m.smallest)
    for layer, is_doubled in zip(m.blocks, m.doublings):
        if is_doubled:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = layer(x, F.interpolate(maps, size=x.shape[2:], mode="nearest"))
    return m.last(x)


def patch_discriminator(m, x):
    outputs = []
    for layer in m.layers:
        x = layer(x)
        outputs.append(x)
    return outputs


def discriminator(m, labels, images):
    x = torch.cat([one_hot(labels, m.n_classes), images], dim=1)
    half = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
    return [m.large(x), m.small(half)]


def encoder(m, images):
    square = (m.size, m.size)
    images = F.interpolate(images, size=square, mode="bilinear", align_corners=False)
    x = m.layers(images).flatten(1)
    return m.mean(x), m.log_variance(x)


def perceptual(m, real, fake):
    weights = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1}  # relu1_1, relu2_1, ...
    loss = 0
    for index, layer in enumerate(m.layers):
        real = layer(real)
        fake = layer(fake)
        if index in weights:
            loss = loss + weights[index] * F.l1_loss(fake, real.detach())
    return loss


FORWARD = {
    "SpectralNorm": spectral_norm,
    "SPADE": spade,
    "Block": block,
    "Generator": generator,
    "PatchDiscriminator": patch_discriminator,
    "Discriminator": discriminator,
    "Encoder": encoder,
    "Perceptual": perceptual,
    "MaxPool2d": lambda m, x: F.max_pool2d(x, 2),
    "Pool": lambda m, x: x,  # the layer within Jittor's MaxPool2d
}


# ---- the step ----


def discriminate(D, labels, images, fake):
    both = D(torch.cat([labels, labels]), torch.cat([images, fake]))
    pairs = [[x.chunk(2) for x in outputs] for outputs in both]
    real_outputs = [[real for real, _ in outputs] for outputs in pairs]
    fake_outputs = [[fake for _, fake in outputs] for outputs in pairs]
    return real_outputs, fake_outputs


def hinge_loss(real, fake):
    losses = []
    for real_outputs, fake_outputs in zip(real, fake):
        losses.append(F.relu(1 - real_outputs[-1]).mean() + F.relu(1 + fake_outputs[-1]).mean())
    return torch.stack(losses).mean()


def feature_matching(real, fake):
    losses = []
    for real_outputs, fake_outputs in zip(real, fake):
        pairs = zip(real_outputs[:-1], fake_outputs[:-1])
        losses.append(sum(F.l1_loss(b, a.detach()) for a, b in pairs))
    return torch.stack(losses).mean()


def train_step(
    networks, optimizers, labels, images, noise, *, lambda_FM, lambda_KL, lambda_VGG, vgg_loss=None
):
    G, E, D = networks
    optimizer_G, optimizer_D = optimizers
    mean, log_variance = E(images)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    fake = G(labels, posterior.loc + posterior.scale * noise)

    loss_D = hinge_loss(*discriminate(D, labels, images, fake.detach()))
    update(optimizer_D, loss_D)

    real_outputs, fake_outputs = discriminate(D, labels, images, fake)
    prior = torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(posterior, prior)
    losses = {
        "loss_G": -torch.stack([outputs[-1].mean() for outputs in fake_outputs]).mean(),
        "loss_FM": feature_matching(real_outputs, fake_outputs),
        "loss_KL": divergence.sum(1).mean(),
    }
    total = losses["loss_G"] + lambda_FM * losses["loss_FM"] + lambda_KL * losses["loss_KL"]
    if vgg_loss is not None:
        losses["loss_VGG"] = vgg_loss(images, fake)
        total = total + lambda_VGG * losses["loss_VGG"]
    update(optimizer_G, total)
    return {"loss_D": loss_D, **losses}
