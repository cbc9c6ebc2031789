"""infogan.py's training step in PyTorch."""

import math

import torch
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from tools.twins import update


def generate(m, z, categories, continuous):
    one_hot = F.one_hot(categories.long(), m.n_categories).float()
    h = m.dense(torch.cat([z, one_hot, continuous], 1)).unflatten(1, m.shape)
    return 2 * torch.sigmoid(m.upwards(h)) - 1


def judge(m, images):
    h = m.body((images + 1) / 2)
    return m.D(h).squeeze(1), *m.Q(h).split([m.n_categories, m.n_continuous, m.n_continuous], 1)


FORWARD = {"Generator": generate, "Discriminator": judge}


def cross_entropy(logits, is_real):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(is_real)))


def bounds(posterior, latent):
    logits, mean, log_deviation = posterior
    of_category = (
        math.log(logits.shape[1]) + Categorical(logits=logits).log_prob(latent[1].long()).mean()
    )
    of_continuous = math.log(2) + Normal(mean, log_deviation.exp()).log_prob(latent[2])
    return of_category, of_continuous.sum(1).mean()


def train_step(G, D, optimizer_G, optimizer_D, real, latent_D, latent_G, lambdas):
    def weighted(information):
        return sum(weight * bound for weight, bound in zip(lambdas, information))

    with torch.no_grad():
        fake = G(*latent_D)
    fake_logits, *posterior = D(fake)
    loss_D = cross_entropy(D(real)[0], True) + cross_entropy(fake_logits, False)
    update(optimizer_D, loss_D - weighted(bounds(posterior, latent_D)))
    fake_logits, *posterior = D(G(*latent_G))
    loss_G, information = cross_entropy(fake_logits, True), bounds(posterior, latent_G)
    update(optimizer_G, loss_G - weighted(information))
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "info_category": information[0],
        "info_continuous": information[1],
    }
