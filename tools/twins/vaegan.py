"""vaegan.py's training step in PyTorch, by PyTorch's own distributions."""

import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F


def encode(m, images):
    h = m.layers(images)
    return m.mean(h), m.log_variance(h)


def discriminate(m, images):
    features = m.features(images)
    return m.logits(features).squeeze(1), features


FORWARD = {
    "Encoder": encode,
    "Decoder": lambda m, z: m.layers(m.dense(z).unflatten(1, m.shape)),
    "Discriminator": discriminate,
}


def cross_entropy(logits, is_real):
    target = torch.full_like(logits, float(is_real))
    return F.binary_cross_entropy_with_logits(logits, target)


def train_step(networks, optimizers, real, noise, z_p, *, gamma, objective):
    encoder, decoder, discriminator = networks
    optimizer_E, optimizer_dec, optimizer_D = optimizers
    n = len(real)

    mean, log_variance = encoder(real)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    fake = decoder(torch.cat([posterior.loc + posterior.scale * noise, z_p]))
    logits, features = discriminator(torch.cat([real, fake]))

    loss_prior = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    loss_llike = F.mse_loss(features[n : 2 * n], features[:n], reduction="sum") / (2 * n)
    loss_real = cross_entropy(logits[:n], True)
    loss_fake = cross_entropy(logits[n:], False)
    values = (loss_real.item(), loss_fake.item())
    decoder_moves = max(values) <= 0.68 + 0.35
    discriminator_moves = min(values) >= 0.68 - 0.35
    if not decoder_moves and not discriminator_moves:
        decoder_moves = True
        discriminator_moves = True

    moving = [(optimizer_E, encoder, loss_prior + loss_llike)]
    if decoder_moves:
        loss_fool = cross_entropy(logits[n:], True) if objective == "modified" else -loss_fake
        moving.append((optimizer_dec, decoder, gamma * loss_llike + (1 - gamma) * 2 * loss_fool))
    if discriminator_moves:
        moving.append((optimizer_D, discriminator, 0.66 * loss_real + 0.34 * loss_fake))
    for optimizer, network, loss in moving:
        optimizer.zero_grad()
        loss.backward(inputs=list(network.parameters()), retain_graph=True)
    for optimizer, _, _ in moving:
        optimizer.step()
    return {
        "loss_prior": loss_prior,
        "loss_llike": loss_llike,
        "loss_real": loss_real,
        "loss_fake": loss_fake,
    }
