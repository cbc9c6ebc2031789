"""pix2pixhd.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update
from tools.twins.spade import one_hot, patch_discriminator, perceptual

# ---- networks ----


def boundaries(ids):
    """Differences of neighbours mark the pixels on both of their sides."""
    edges = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    rows = ids[:, 1:] != ids[:, :-1]
    edges[:, 1:] |= rows
    edges[:, :-1] |= rows
    columns = ids[:, :, 1:] != ids[:, :, :-1]
    edges[:, :, 1:] |= columns
    edges[:, :, :-1] |= columns
    return edges[:, None].float()


def average(features, ids):
    """The mean of each object's pixels, object by object."""
    c = features.shape[1]
    tables = []
    for image, image_ids in zip(features, ids):
        table = torch.zeros(MOST_INSTANCES, c, device=features.device)
        for k in image_ids.unique().tolist():
            table[k] = image[:, image_ids == k].mean(1)
        tables.append(table)
    return torch.stack(tables)


def fill(codes, ids):
    pixels = [table[image_ids.long()] for table, image_ids in zip(codes, ids)]
    return torch.stack(pixels).permute(0, 3, 1, 2)


def inputs(m, labels, ids, codes=None):
    maps = [one_hot(labels, m.n_classes)]
    if m.has_boundary:
        maps.append(boundaries(ids))
    if m.feature_dim > 0:
        maps.append(fill(codes, ids))
    return torch.cat(maps, dim=1)


def halve(x):
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def coarse(m, labels, ids, codes=None):
    return m.last(m.body(m.inputs(labels, ids, codes)))


def generator(m, labels, ids, codes=None):
    x = m.coarse.inputs(labels, ids, codes)
    return m.enhancer(x, m.coarse.body(halve(x)))


def encoder(m, images, ids):
    if images.shape[2] > m.height:
        images = F.interpolate(images, scale_factor=0.5, mode="area")
        ids = ids[:, ::2, ::2]
    return average(m.layers(images), ids)


def discriminator(m, labels, ids, images):
    x = torch.cat([m.inputs(labels, ids), images], dim=1)
    pyramid = [x, halve(x), halve(halve(x))]
    if images.shape[2] < m.height:
        pyramid = pyramid[:2]
    return [scale(level) for scale, level in zip(m.scales, pyramid[::-1])]


FORWARD = {
    "Inputs": inputs,
    "Residual": lambda m, x: x + m.layers(x),
    "GlobalGenerator": coarse,
    "Enhancer": lambda m, x, features: m.up(m.down(x) + features),
    "Generator": generator,
    "Encoder": encoder,
    "PatchDiscriminator": patch_discriminator,
    "Discriminator": discriminator,
    "Perceptual": perceptual,
    "MaxPool2d": lambda m, x: F.max_pool2d(x, 2),
    "Pool": lambda m, x: x,  # the layer within Jittor's MaxPool2d
}
MOST_INSTANCES = 1024  # rows of a table of codes


# ---- the step ----


def squares(outputs, target):
    """The sum over all sizes of the scores' mean squared distance from a target."""
    return sum(((of_size[-1] - target) ** 2).mean() for of_size in outputs)


def feature_matching(real, fake):
    losses = []
    for real_outputs, fake_outputs in zip(real, fake):
        pairs = zip(real_outputs[:-1], fake_outputs[:-1])
        losses.append(sum(F.l1_loss(b, a.detach()) for a, b in pairs))
    return torch.stack(losses).mean()


def train_step(networks, optimizers, labels, ids, images, *, lambda_FM, lambda_VGG, vgg_loss=None):
    G, E, D = networks
    optimizer_G, optimizer_D = optimizers
    codes = None if E is None else E(images, ids)
    fake = G(labels, ids, codes)

    # D's loss comes first: its pass is its own, with the weights before the step.
    loss_D = (squares(D(labels, ids, images), 1) + squares(D(labels, ids, fake.detach()), 0)) / 2
    real_outputs = D(labels, ids, images)
    fake_outputs = D(labels, ids, fake)
    losses = {
        "loss_G": squares(fake_outputs, 1),
        "loss_FM": feature_matching(real_outputs, fake_outputs),
    }
    total = losses["loss_G"] + lambda_FM * losses["loss_FM"]
    if vgg_loss is not None:
        losses["loss_VGG"] = vgg_loss(images, fake)
        total = total + lambda_VGG * losses["loss_VGG"]
    update(optimizer_G, total)
    update(optimizer_D, loss_D)
    return {"loss_D": loss_D, **losses}
