"""stackgan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update
from tools.twins.text2img import cross_entropy, discriminate


def augment(m, text, e):
    mean, log_deviation = m.linear(text).chunk(2, 1)
    c = torch.addcmul(mean, log_deviation.exp(), e)
    return c, mean, log_deviation


def generate_small(m, z, text, e):
    c, mean, log_deviation = m.augmentation(text, e)
    h = torch.cat([z, c], 1)
    return m.layers(h[:, :, None, None]), mean, log_deviation


def generate_large(m, images, text, e):
    h = m.down(images)
    c, mean, log_deviation = m.augmentation(text, e)
    c = c[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return m.up(m.join(torch.cat([h, c], 1))), mean, log_deviation


FORWARD = {
    "Augmentation": augment,
    "Upsample": lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "ResidualBlock": lambda m, x: F.relu(x + m.layers(x)),
    "Generator1": generate_small,
    "Generator2": generate_large,
    "Discriminator": discriminate,
}


def train_step(G, D, optimizer_G, optimizer_D, real, texts, sources, noise, *, kl_weight):
    text, wrong = texts
    source_D, source_G = sources
    e_D, e_G = noise

    with torch.no_grad():
        fake, _, _ = G(source_D, text, e_D)
    right_logits, wrong_logits = D(real, text, wrong)
    (fake_logits,) = D(fake, text)
    loss_fakes = cross_entropy(wrong_logits, False) + cross_entropy(fake_logits, False)
    loss_D = cross_entropy(right_logits, True) + loss_fakes / 2
    update(optimizer_D, loss_D)

    fake, mean, log_deviation = G(source_G, text, e_G)
    (logits,) = D(fake, text)
    loss_G = cross_entropy(logits, True)
    blurred = torch.distributions.Normal(mean, log_deviation.exp())
    normal = torch.distributions.Normal(0, 1)
    KL = torch.distributions.kl_divergence(blurred, normal).mean()
    update(optimizer_G, loss_G + kl_weight * KL)
    return {"loss_D": loss_D, "loss_G": loss_G, "KL": KL}
