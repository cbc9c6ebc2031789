"""improved_gan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def weight_norm(m, x):
    scale = m.fixed_scale if m.scale is None else m.fixed_scale * m.scale
    return F.linear(x, torch._weight_norm(m.weight, scale[:, None], 0), m.bias)


def minibatch_discrimination(m, features):
    M = torch.einsum("na,abc->nbc", features, m.weight)
    distances = (M[:, None] - M[None]).abs().sum(3)
    return torch.cat([features, (-distances).exp().sum(1)], 1)


def virtual_batch_norm(m, x):
    n = 64
    places = tuple(range(2, x.ndim))
    reference = x[:n].transpose(0, 1).flatten(1)  # (C, R ...)
    outputs = [F.batch_norm(x[:n], None, None, m.weight, m.bias, training=True, eps=1e-5)]
    for image in x[n:]:
        own = image.flatten(1).mean(1) if places else image
        own_square = (image**2).flatten(1).mean(1) if places else image**2
        mean = (n * reference.mean(1) + own) / (n + 1)
        variance = (n * (reference**2).mean(1) + own_square) / (n + 1) - mean**2
        shape = (-1, *[1] * len(image.shape[1:]))
        normalized = (image - mean.view(shape)) / (variance + 1e-5).sqrt().view(shape)
        outputs.append((normalized * m.weight.view(shape) + m.bias.view(shape))[None])
    return torch.cat(outputs)


def generate(m, z):
    if m.reference is not None:
        z = torch.cat([m.reference, z])
    if m.is_convolutional:
        images = torch.tanh(m.layers(z[:, :, None, None]))
    else:
        images = 2 * torch.sigmoid(m.layers((z + 1) / 2)) - 1
    if m.reference is not None:
        images = images[64:]
    return images.reshape(-1, *m.shape)


def features_of(m, images):
    return m.layers(images if m.is_convolutional else (images + 1) / 2)


FORWARD = {
    "Noise": lambda m, x: x + m.deviation * torch.randn_like(x) if m.training else x,
    "Softplus": lambda m, x: F.softplus(x),
    "WeightNormLinear": weight_norm,
    "MinibatchDiscrimination": minibatch_discrimination,
    "VirtualBatchNorm": virtual_batch_norm,
    "Generator": generate,
    "Discriminator": lambda m, images: m.last(features_of(m, images)),
}


def distance_from(means, network):
    parameters = dict(network.named_parameters())
    return sum(((parameters[name] - mean) ** 2).sum() for name, mean in means.items())


def train_step(networks, optimizers, real, labeled, z, means, *, settings):
    optimizer_G, optimizer_D = optimizers
    losses = discriminator_losses(networks, real, labeled, z[0], settings)
    loss = settings["unlabeled_weight"] * losses["loss_unl"] + losses.get("loss_lab", 0)
    if settings["history_weight"] > 0:
        loss = loss + settings["history_weight"] * distance_from(means[1], networks[1])
    update(optimizer_D, loss)

    losses["loss_G"] = generator_loss(networks, real, z[1], settings["matches_features"])
    loss = losses["loss_G"]
    if settings["history_weight"] > 0:
        loss = loss + settings["history_weight"] * distance_from(means[0], networks[0])
    update(optimizer_G, loss)
    return losses


def discriminator_losses(networks, real, labeled, z, settings):
    G, D = networks
    with torch.no_grad():
        fake = G(z)
    of_real = torch.logsumexp(D(real), 1)
    of_fake = torch.logsumexp(D(fake), 1)
    target = torch.full_like(of_real, 1 - settings["label_smoothing"])
    loss_real = F.binary_cross_entropy_with_logits(of_real, target)
    loss_fake = F.binary_cross_entropy_with_logits(of_fake, torch.zeros_like(of_fake))
    losses = {"loss_unl": (loss_real + loss_fake) / 2}
    if labeled is not None:
        images, labels = labeled
        losses["loss_lab"] = F.cross_entropy(D(images), labels.long())
    return losses


def generator_loss(networks, real, z, matches_features):
    G, D = networks
    fake = G(z)
    if matches_features:
        with torch.no_grad():
            target = features_of(D, real).mean(0)
        return F.mse_loss(features_of(D, fake).mean(0), target)
    of_fake = torch.logsumexp(D(fake), 1)
    return F.binary_cross_entropy_with_logits(of_fake, torch.ones_like(of_fake))
