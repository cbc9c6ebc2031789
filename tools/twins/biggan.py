"""biggan.py's training step in PyTorch."""

import torch
from torch.nn import functional as F

from tools.twins import update

# ---- networks ----


def spectral_norm(m, x):
    """The layer with its weight over the largest singular value, as of spade.py."""
    matrix = m.conv.weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(matrix.T @ m.weight_u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
        if m.training:
            m.weight_u.copy_(u)
    weight = m.conv.weight / (u @ matrix @ v)
    return torch.func.functional_call(m.conv, {"weight": weight}, (x,))


def doubling_conv(m, x):
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(x, m.weight, m.bias, padding=1)


def halving_conv(m, x):
    return F.avg_pool2d(F.conv2d(x, m.weight, m.bias, padding=1), 2)


def attention(m, x):
    theta = m.theta(x).flatten(2)
    phi = F.max_pool2d(m.phi(x), 2).flatten(2)
    g = F.max_pool2d(m.g(x), 2).flatten(2)
    beta = F.softmax(theta.transpose(1, 2) @ phi, dim=-1)
    values = (g @ beta.transpose(1, 2)).unflatten(2, x.shape[2:])
    return x + m.gamma * m.out(values)


def conditional_batch_norm(m, x, conditions):
    gain = 1 + m.gain(conditions)[:, :, None, None]
    return torch.addcmul(m.bias(conditions)[:, :, None, None], m.norm(x), gain)


def generator_block(m, x, conditions):
    h = m.conv_1(F.relu(m.norm_1(x, conditions)))
    h = m.conv_2(F.relu(m.norm_2(h, conditions)))
    return h + m.upsample(m.skip(x))


def generator(m, z, labels):
    e = m.embedding(labels)
    first, *others = z.chunk(m.n_pieces, dim=1)
    x = m.first(first).unflatten(1, (-1, 4, 4))
    for i, (block, piece) in enumerate(zip(m.blocks, others)):
        x = block(x, torch.cat([e, piece], 1))
        if i == m.attention_after:
            x = m.attention(x)
    return m.last(x)


def discriminator_block(m, x):
    h = x if m.is_first else F.relu(x)
    h = m.conv_2(F.relu(m.conv_1(h)))
    if m.down:
        x = F.avg_pool2d(x, 2)
    return h + (x if m.skip is None else m.skip(x))


def discriminator(m, images, labels):
    h = m.layers(images).sum((2, 3))
    return m.psi(h)[:, 0] + (m.embedding(labels) * h).sum(1)


FORWARD = {
    "SpectralNorm": spectral_norm,
    "DoublingConv": doubling_conv,
    "HalvingConv": halving_conv,
    "Attention": attention,
    "ConditionalBatchNorm": conditional_batch_norm,
    "GeneratorBlock": generator_block,
    "Generator": generator,
    "DiscriminatorBlock": discriminator_block,
    "Discriminator": discriminator,
}


# ---- the step ----


def non_orthogonality(network):
    penalty = 0
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and name.endswith("weight") and name != "embedding.weight":
            products = weight.flatten(1) @ weight.flatten(1).T
            penalty = penalty + (products - torch.diag(products.diagonal())).square().sum()
    return penalty


def train_step(networks, optimizers, real, labels, inputs_D, inputs_G=None, *, ortho_weight):
    G, D = networks
    optimizer_G, optimizer_D = optimizers

    z, fake_labels = inputs_D
    with torch.no_grad():
        fake = G(z, fake_labels)
    both = D(torch.cat([real, fake]), torch.cat([labels, fake_labels]))
    real_scores, fake_scores = both.chunk(2)
    loss_D = F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()
    update(optimizer_D, loss_D)
    losses = {"loss_D": loss_D}

    if inputs_G is not None:
        z, fake_labels = inputs_G
        loss_G = -D(G(z, fake_labels), fake_labels).mean()
        losses["loss_G"] = loss_G
        if ortho_weight > 0:
            losses["non_orthogonality"] = non_orthogonality(G)
            loss_G = loss_G + ortho_weight * losses["non_orthogonality"]
        update(optimizer_G, loss_G)
    return losses
