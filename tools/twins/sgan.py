"""sgan.py's training steps in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def features_of(m, images):
    return m.layers((images + 1) / 2)


def generate_features(m, labels, z):
    one_hot = F.one_hot(labels.long(), m.n_classes).float()
    return m.layers(torch.cat([z, one_hot], 1))


def generate_images(m, features, z):
    h = m.dense(torch.cat([features, m.embed(z)], 1))
    return 2 * torch.sigmoid(m.layers(h.unflatten(1, m.shape))) - 1


def with_noise(m, h):
    return m.D(h).squeeze(1), torch.sigmoid(m.Q(h))


FORWARD = {
    "Encoder": lambda m, images: m.label(features_of(m, images)),
    "Generator1": generate_features,
    "Generator0": generate_images,
    "Discriminator1": lambda m, features: with_noise(m, m.body(features)),
    "Discriminator0": lambda m, images: with_noise(m, m.body((images + 1) / 2)),
    "MaxPool2d": lambda m, x: F.max_pool2d(x, 2),
    "Pool": lambda m, x: x,  # the layer within Jittor's MaxPool2d
}


def cross_entropy(logits, is_real):
    target = torch.full_like(logits, float(is_real))
    return F.binary_cross_entropy_with_logits(logits, target)


def encoder_step(encoder, optimizer, images, labels):
    loss = F.cross_entropy(encoder(images), labels.long())
    update(optimizer, loss)
    return {"cross_entropy": loss}


def train_step(networks, optimizers, real, labels, noise, *, cond_weight, entropy_weight):
    E, G1, G0, D1, D0 = networks
    optimizer_G1, optimizer_G0, optimizer_D1, optimizer_D0 = optimizers
    (z1, z0), (new_z1, new_z0) = noise

    with torch.no_grad():
        features = features_of(E, real)
        fake_features = G1(labels, z1)
        fake = G0(fake_features, z0)
    losses = {}
    for name, D, optimizer, of_real, of_fake, z in (
        ("loss_D1", D1, optimizer_D1, features, fake_features, z1),
        ("loss_D0", D0, optimizer_D0, real, fake, z0),
    ):
        real_logits, _ = D(of_real)
        fake_logits, recovered = D(of_fake)
        losses[name] = (cross_entropy(real_logits, True) + cross_entropy(fake_logits, False)) / 2
        update(optimizer, losses[name] + entropy_weight * F.mse_loss(recovered, z))

    features = G1(labels, new_z1)
    logits, recovered = D1(features)
    losses["loss_G1"] = cross_entropy(logits, True)
    losses["loss_cond1"] = F.cross_entropy(E.label(features), labels.long())
    losses["loss_ent1"] = F.mse_loss(recovered, new_z1)
    total = losses["loss_G1"] + cond_weight * losses["loss_cond1"]
    update(optimizer_G1, total + entropy_weight * losses["loss_ent1"])

    features = features.detach()
    fake = G0(features, new_z0)
    logits, recovered = D0(fake)
    losses["loss_G0"] = cross_entropy(logits, True)
    losses["loss_cond0"] = F.mse_loss(features_of(E, fake), features)
    losses["loss_ent0"] = F.mse_loss(recovered, new_z0)
    total = losses["loss_G0"] + cond_weight * losses["loss_cond0"]
    update(optimizer_G0, total + entropy_weight * losses["loss_ent0"])
    return losses
