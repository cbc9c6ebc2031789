"""text2img.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update


def encode_text(m, texts):
    h = m.layers(m.embedding(texts).transpose(1, 2).unsqueeze(2))
    is_text = (texts > 0)[:, None, None]
    code = m.output((h * is_text).amax(3).flatten(1))
    return F.normalize(code, dim=1) * code.shape[1] ** 0.5


def generate(m, z, text):
    h = torch.cat([z, m.project(text)], 1)
    return m.layers(h[:, :, None, None])


def discriminate(m, images, *texts):
    """Logits (B,) of the images with each of the texts."""
    features = m.body(images)
    logits = []
    for text in texts:
        projected = m.project(text)[:, :, None, None].expand(-1, -1, 4, 4)
        logits.append(m.head(torch.cat([features, projected], 1)).flatten())
    return logits


FORWARD = {
    "ImageEncoder": lambda m, images: m.layers(images),
    "TextEncoder": encode_text,
    "Generator": generate,
    "Discriminator": discriminate,
}


def cross_entropy(logits, is_real):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(is_real)))


def train_step(G, D, optimizer_G, optimizer_D, real, texts, z, *, with_wrong, interpolate):
    text, wrong = texts
    z_D, z_G = z

    with torch.no_grad():
        fake = G(z_D, text)
    right_logits, wrong_logits = D(real, text, wrong)
    (fake_logits,) = D(fake, text)
    loss_fake = cross_entropy(fake_logits, False)
    if with_wrong:
        loss_fake = (cross_entropy(wrong_logits, False) + loss_fake) / 2
    loss_D = cross_entropy(right_logits, True) + loss_fake
    update(optimizer_D, loss_D)

    if interpolate:
        n = len(text) // 2
        text = torch.cat([text, torch.lerp(text[:n], text[n : 2 * n], 0.5)])
    (logits,) = D(G(z_G, text), text)
    loss_G = cross_entropy(logits, True)
    update(optimizer_G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}
