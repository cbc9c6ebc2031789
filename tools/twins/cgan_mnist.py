"""cgan_mnist.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def with_label(m, x, labels):
    return torch.cat([x.flatten(1), m.label_embedding(labels)], 1)


def projection(m, images, labels):
    h = m.features(images)
    return m.realism(h).squeeze(1) + torch.einsum("bi,bi->b", m.label_embedding(labels), h)


FORWARD = {
    "Generator": lambda m, z, labels: m.layers(with_label(m, z, labels)).unflatten(1, m.shape),
    "Discriminator": lambda m, images, labels: m.layers(with_label(m, images, labels)).squeeze(1),
    "ConvGenerator": lambda m, z, labels: m.layers(
        m.project(with_label(m, z, labels)).unflatten(1, (m.top, 4, 4))
    ),
    "ProjectionDiscriminator": projection,
}


def adversarial_loss(scores, target, loss):
    criterion = F.binary_cross_entropy_with_logits if loss == "bce" else F.mse_loss
    return criterion(scores, torch.full_like(scores, target))


def train_step(G, D, optimizer_G, optimizer_D, real, labels, z, wanted, wrong_labels, loss):
    fake = G(z, wanted)
    loss_G = adversarial_loss(D(fake, wanted), 1.0, loss)
    update(optimizer_G, loss_G)
    fakes = [adversarial_loss(D(fake.detach(), wanted), 0.0, loss)]
    if loss == "matching":
        fakes.append(adversarial_loss(D(real, wrong_labels), 0.0, loss))
    loss_D = (adversarial_loss(D(real, labels), 1.0, loss) + sum(fakes) / len(fakes)) / 2
    update(optimizer_D, loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D}
