"""cgan_mnist.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def with_label(m, x, labels):
    return torch.cat([x.flatten(1), m.label_embedding(labels)], 1)


def generate(m, z, labels):
    return m.layers(with_label(m, z, labels)).unflatten(1, m.shape)


def discriminate(m, images, labels):
    return m.layers(with_label(m, images, labels)).squeeze(1)


def generate_by_convolutions(m, z, labels):
    h = m.project(with_label(m, z, labels))
    return m.layers(h.unflatten(1, (m.n_features, 4, 4)))


def discriminate_by_projection(m, images, labels):
    h = m.features(images)
    projection = torch.einsum("bi,bi->b", m.label_embedding(labels), h)
    return m.psi(h).squeeze(1) + projection


FORWARD = {
    "Generator": generate,
    "Discriminator": discriminate,
    "ConvGenerator": generate_by_convolutions,
    "ProjectionDiscriminator": discriminate_by_projection,
}


def adversarial_loss(scores, target, loss):
    criterion = F.binary_cross_entropy_with_logits if loss == "bce" else F.mse_loss
    return criterion(scores, torch.full_like(scores, target))


def train_step(networks, optimizers, real, labels, z, fake_labels, wrong_labels, *, loss):
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers

    fake = generator(z, fake_labels)
    loss_G = adversarial_loss(discriminator(fake, fake_labels), 1.0, loss)
    update(optimizer_G, loss_G)

    fake_scores = discriminator(fake.detach(), fake_labels)
    loss_fake = adversarial_loss(fake_scores, 0.0, loss)
    if loss == "matching":
        wrong_scores = discriminator(real, wrong_labels)
        loss_fake = (loss_fake + adversarial_loss(wrong_scores, 0.0, loss)) / 2
    loss_real = adversarial_loss(discriminator(real, labels), 1.0, loss)
    loss_D = (loss_real + loss_fake) / 2
    update(optimizer_D, loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D}
