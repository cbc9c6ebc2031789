"""vae.py's training step in PyTorch, by PyTorch's own distributions."""

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from tools.twins import update


def encode(m, x):
    h = m.layers(x)
    return m.mu(h), m.logvar(h)


def decode(m, z):
    features = m.dense(z).view(-1, *m.between)
    return m.output(features).view(-1, *m.image)


FORWARD = {"Encoder": encode, "Decoder": decode}


def pixel_distribution(decoder, logits, x, likelihood):
    if likelihood == "bernoulli":
        return Bernoulli(logits=logits, validate_args=False)
    mean = torch.sigmoid(logits)
    # The gradient passes through the variance too, as in Rybkin's own code.
    variance = ((x - mean) ** 2).mean().clamp(min=1 / 255**2 / 12)
    decoder.running_var.mul_(0.9).add_(0.1 * variance.detach())
    return Normal(mean, variance.sqrt())


def train_step(encoder, decoder, optimizer, x, noise, *, beta, likelihood):
    mu, logvar = encoder(x)
    posterior = Normal(mu, torch.exp(logvar / 2))
    prior = Normal(torch.zeros_like(mu), 1.0)
    logits = decoder(mu + posterior.stddev * noise)

    pixels = pixel_distribution(decoder, logits, x, likelihood)
    reconstruction = pixels.log_prob(x).sum((1, 2, 3)).mean()
    kl = kl_divergence(posterior, prior).sum(1).mean()
    update(optimizer, beta * kl - reconstruction)
    return {"reconstruction": reconstruction, "kl": kl, "elbo": reconstruction - kl}
