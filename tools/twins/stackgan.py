"""stackgan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update
from tools.twins.text2img import cross_entropy, judge


def augment(m, text, e):
    mean, log_deviation = m.linear(text).chunk(2, 1)
    return torch.addcmul(mean, log_deviation.exp(), e), mean, log_deviation


def draw_small(m, z, text, e):
    c, mean, log_deviation = m.augmentation(text, e)
    return m.layers(torch.cat([z, c], 1)[:, :, None, None]), mean, log_deviation


def draw_large(m, images, text, e):
    h = m.down(images)
    c, mean, log_deviation = m.augmentation(text, e)
    c = c[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return m.up(m.join(torch.cat([h, c], 1))), mean, log_deviation


FORWARD = {
    "Augmentation": augment,
    "Upsample": lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "ResidualBlock": lambda m, x: F.relu(x + m.layers(x)),
    "Generator1": draw_small,
    "Generator2": draw_large,
    "Discriminator": judge,
}


def train_step(G, D, optimizer_G, optimizer_D, real, texts, sources, noise, kl_weight):
    text, wrong = texts
    with torch.no_grad():
        fake, *_ = G(sources[0], text, noise[0])
    right_logits, wrong_logits = D(real, text, wrong)
    (fake_logits,) = D(fake, text)
    fakes = cross_entropy(wrong_logits, False) + cross_entropy(fake_logits, False)
    loss_D = cross_entropy(right_logits, True) + fakes / 2
    update(optimizer_D, loss_D)
    fake, mean, log_deviation = G(sources[1], text, noise[1])
    loss_G = cross_entropy(*D(fake, text), True)
    blurred = torch.distributions.Normal(mean, log_deviation.exp())
    KL = torch.distributions.kl_divergence(blurred, torch.distributions.Normal(0, 1)).mean()
    update(optimizer_G, loss_G + kl_weight * KL)
    return {"loss_D": loss_D, "loss_G": loss_G, "KL": KL}
