"""text2img.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def encode_text(m, texts):
    h = m.layers(m.embedding(texts).transpose(1, 2).unsqueeze(2))
    code = m.output((h * (texts > 0)[:, None, None]).amax(3).flatten(1))
    return F.normalize(code, dim=1) * code.shape[1] ** 0.5


def generate(m, z, text):
    return m.layers(torch.cat([z, m.project(text)], 1)[:, :, None, None])


def judge(m, images, *texts):
    h = m.body(images)
    tiled = [m.project(text)[:, :, None, None].expand(-1, -1, 4, 4) for text in texts]
    return tuple(m.head(torch.cat([h, text], 1)).flatten() for text in tiled)


FORWARD = {"TextEncoder": encode_text, "Generator": generate, "Discriminator": judge}


def cross_entropy(logits, is_real):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(is_real)))


def train_step(G, D, optimizer_G, optimizer_D, real, texts, noise, with_wrong, interpolate):
    text, wrong = texts
    with torch.no_grad():
        fake = G(noise[0], text)
    right_logits, wrong_logits = D(real, text, wrong)
    fakes = [wrong_logits, *D(fake, text)] if with_wrong else D(fake, text)
    loss_D = cross_entropy(right_logits, True) + sum(cross_entropy(x, False) for x in fakes) / len(
        fakes
    )
    update(optimizer_D, loss_D)
    losses = {"loss_G": cross_entropy(*D(G(noise[1], text), text), True)}
    if interpolate:
        between = torch.lerp(text, wrong, 0.5)
        losses["loss_G_between"] = cross_entropy(*D(G(noise[1], between), between), True)
    update(optimizer_G, sum(losses.values()))
    return {"loss_D": loss_D, **losses}
