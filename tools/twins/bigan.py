"""bigan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F


def generate(m, z):
    h = m.second(torch.cat([m.first(z), z], 1))
    return (2 * torch.sigmoid(m.output(h)) - 1).unflatten(1, m.shape)


def encode(m, images):
    return 2 * torch.sigmoid(m.output(m.hidden((images + 1) / 2))) - 1


def discriminate(m, images, z):
    h = m.first((images + 1) / 2)
    return m.output(m.second(torch.cat([h, z], 1))).squeeze(1)


FORWARD = {"Generator": generate, "Encoder": encode, "Discriminator": discriminate}


def cross_entropy(logits, is_encoded):
    target = torch.full_like(logits, float(is_encoded))
    return F.binary_cross_entropy_with_logits(logits, target)


def train_step(networks, optimizers, real, z):
    G, E, D = networks
    optimizer_D, optimizer_GE = optimizers
    encoded = D(real, E(real))
    generated = D(G(z), z)
    loss_D = (cross_entropy(encoded, True) + cross_entropy(generated, False)) / 2
    loss_GE = (cross_entropy(encoded, False) + cross_entropy(generated, True)) / 2

    optimizer_D.zero_grad()
    optimizer_GE.zero_grad()
    loss_D.backward(inputs=list(D.parameters()), retain_graph=True)
    loss_GE.backward(inputs=[*G.parameters(), *E.parameters()])
    optimizer_D.step()
    optimizer_GE.step()
    return {"loss_D": loss_D, "loss_GE": loss_GE}
