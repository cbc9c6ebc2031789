"""infogan.py's training step in PyTorch, by PyTorch's own distributions."""

import math

import torch
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from tools.twins import update


def generate(m, z, categories, continuous):
    one_hot = F.one_hot(categories.long(), m.n_categories).float()
    h = m.dense(torch.cat([z, one_hot, continuous], 1))
    return 2 * torch.sigmoid(m.upwards(h.unflatten(1, m.shape))) - 1


def discriminate(m, images):
    h = m.body((images + 1) / 2)
    posterior = m.Q(h).split([m.n_categories, m.n_continuous, m.n_continuous], 1)
    return m.D(h).squeeze(1), *posterior


FORWARD = {"Generator": generate, "Discriminator": discriminate}


def cross_entropy(logits, is_real):
    target = torch.full_like(logits, float(is_real))
    return F.binary_cross_entropy_with_logits(logits, target)


def information(posterior, categories, continuous):
    logits, mean, log_deviation = posterior
    log_Q = Categorical(logits=logits).log_prob(categories.long())
    info_category = math.log(logits.shape[1]) + log_Q.mean()

    log_Q = Normal(mean, log_deviation.exp()).log_prob(continuous)
    info_continuous = (math.log(2) + log_Q).sum(1).mean()
    return info_category, info_continuous


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, latent_D, latent_G, *, lambdas
):
    lambda_category, lambda_continuous = lambdas

    with torch.no_grad():
        fake = generator(*latent_D)
    fake_logits, *posterior = discriminator(fake)
    real_logits, *_ = discriminator(real)
    loss_D = cross_entropy(real_logits, True) + cross_entropy(fake_logits, False)
    info_category, info_continuous = information(posterior, *latent_D[1:])
    gain = lambda_category * info_category + lambda_continuous * info_continuous
    update(optimizer_D, loss_D - gain)

    fake_logits, *posterior = discriminator(generator(*latent_G))
    loss_G = cross_entropy(fake_logits, True)
    info_category, info_continuous = information(posterior, *latent_G[1:])
    gain = lambda_category * info_category + lambda_continuous * info_continuous
    update(optimizer_G, loss_G - gain)
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "info_category": info_category,
        "info_continuous": info_continuous,
    }
