"""stylegan2.py's training steps in PyTorch."""

import math

import torch
from torch.nn import functional as F

from tools.twins import update

GAIN = math.sqrt(2)
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


# ---- networks ----


def linear(m, x):
    return F.linear(x, m.weight * m.weight_gain, m.bias * m.bias_gain)


def resample(x, padding, up=1, down=1):
    """Zeros between and around the pixels, the filter, and every down-th pixel."""
    n, c, height, width = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(n, c, up * height, up * width)
    taps = TAPS.to(x.device) * up
    kernel = torch.outer(taps, taps).expand(c, 1, 4, 4)
    return F.conv2d(F.pad(x, (*padding, *padding)), kernel, stride=down, groups=c)


def conv(m, x):
    weight = m.weight * m.weight_gain
    bias = None if m.bias is None else m.bias * m.bias_gain
    if not m.down:
        return F.conv2d(x, weight, bias, padding=m.size // 2)
    if m.size == 1:
        return F.conv2d(resample(x, (1, 1), down=2), weight, bias)
    return F.conv2d(resample(x, (2, 2)), weight, bias, stride=2)


def modulated_conv(m, x, style):
    """With one convolution for all images, which is faster than weights for each."""
    if not m.demodulates:
        style = style * m.gain
    x = x * style[:, :, None, None]
    if m.up:
        x = F.conv_transpose2d(x, m.weight.transpose(0, 1), stride=2)
        x = 4 * resample(x, (1, 1))
    else:
        x = F.conv2d(x, m.weight, padding=m.size // 2)
    if m.demodulates:
        lengths = F.linear(style.square(), m.weight.square().sum((2, 3)))
        x = x * (GAIN * (lengths + 1e-8).rsqrt())[:, :, None, None]
    return x


def mapping(m, z):
    w = m.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
    if m.training:
        m.running_mean.lerp_(w.detach().mean(0), 0.005)
    return w


def styled_conv(m, x, w, noise):
    x = m.conv(x, m.style(w)) + GAIN * (m.noise_strength * noise + m.bias)
    return m.activation(x)


def synthesis(m, ws, noise=None):
    if noise is None:
        noise = torch.tensor(m.fixed_noise, device=ws.device)
    maps = noise.split([size**2 for size in m.sizes], dim=1)
    maps = [part.reshape(-1, 1, size, size) for part, size in zip(maps, m.sizes)]
    x = m.constant.expand(len(ws), -1, -1, -1)
    images = None
    for i, layer in enumerate(m.convs):
        x = layer(x, ws[:, i], maps[i])
        if i % 2 == 0:
            drawn = m.to_images[i // 2](x, ws[:, i + 1])
            images = drawn if images is None else resample(images, (2, 1), up=2) + drawn
    return images


def generator(m, z, truncation=None, noise=None):
    w = m.mapping(z)
    if truncation is not None:
        mean = m.mapping.running_mean
        w = torch.lerp(mean, w, truncation[:, None])
    return m.synthesis(w[:, None].expand(-1, m.synthesis.n_styles, -1), noise)


def deviation(m, x):
    n, _, height, width = x.shape
    groups = x.unflatten(0, (math.gcd(n, m.group_size), -1))
    added = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    added = added.repeat(len(groups)).reshape(n, 1, 1, 1).expand(-1, -1, height, width)
    return torch.cat([x, added], 1)


FORWARD = {
    "ScaledLinear": linear,
    "ScaledConv": conv,
    "ModulatedConv": modulated_conv,
    "Mapping": mapping,
    "StyledConv": styled_conv,
    "ToImage": lambda m, x, w: m.conv(x, m.style(w)) + m.bias,
    "Synthesis": synthesis,
    "Generator": generator,
    "Residual": lambda m, x: m.skip(x) + m.layers(x),
    "MinibatchDeviation": deviation,
    "Discriminator": lambda m, images: m.layers(images).view(-1),
}


def mixed(m, z, other_z, cutoff):
    """The styles of all layers."""
    first, second = m.mapping(torch.cat([z, other_z])).chunk(2)
    n = m.synthesis.n_styles
    ws = [first if i < cutoff else second for i in range(n)]
    return torch.stack(ws, 1)


# ---- differentiable augmentation ----


def augment(images, changes):
    if "brightness" in changes:
        images = images + changes["brightness"]
        grey = images.mean(1, keepdim=True)
        images = torch.lerp(grey, images, changes["saturation"])
        images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, changes["contrast"])
    if "down" in changes:
        pairs = zip(images, changes["down"].tolist(), changes["right"].tolist())
        images = torch.stack([F.pad(x, (right, -right, down, -down)) for x, down, right in pairs])
    if "row" in changes:
        side = images.shape[2]
        mask = torch.ones_like(images)
        for i, (row, column) in enumerate(zip(changes["row"], changes["column"])):
            top = max(0, int(row) - side // 4)
            left = max(0, int(column) - side // 4)
            mask[i, :, top : int(row) + side // 4, left : int(column) + side // 4] = 0
        images = images * mask
    return images


# ---- steps ----


def train_step(networks, optimizers, real, latents_G, latents_D, changes):
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    changes_G, changes_fake, changes_real = changes

    *styles, noise = latents_G
    fake = generator.synthesis(mixed(generator, *styles), noise)
    loss_G = F.softplus(-discriminator(augment(fake, changes_G))).mean()
    update(optimizer_G, loss_G)

    *styles, noise = latents_D
    with torch.no_grad():
        fake = generator.synthesis(mixed(generator, *styles), noise)
    loss_D = F.softplus(-discriminator(augment(real, changes_real))).mean()
    loss_D = loss_D + F.softplus(discriminator(augment(fake, changes_fake))).mean()
    update(optimizer_D, loss_D)
    return {"loss_D": loss_D, "loss_G": loss_G}


def r1_step(discriminator, optimizer_D, real, changes, *, weight):
    images = real.clone().requires_grad_()
    logits = discriminator(augment(images, changes))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    r1 = gradient.square().sum((1, 2, 3)).mean()
    update(optimizer_D, weight * r1 + 0 * logits.sum())
    return {"r1": r1}


def path_step(generator, optimizer_G, latents, y, *, weight):
    *styles, noise = latents
    ws = mixed(generator, *styles)
    images = generator.synthesis(ws, noise)
    y = y / math.sqrt(y.shape[2] * y.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    generator.path_running_mean.lerp_(lengths.detach().mean(), 0.01)
    penalty = (lengths - generator.path_running_mean.clone()).square().mean()
    update(optimizer_G, weight * penalty + 0 * images.sum())
    return {"path_length": lengths.mean(), "path_penalty": penalty}
