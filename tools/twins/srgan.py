"""srgan.py's training steps in PyTorch, both phases."""

import torch
from torch.nn import functional as F

from tools.twins import update


def residual(module, x):
    return x + module.layers(x)


def generator(module, small):
    x = module.head((small + 1) / 2)
    return module.tail(x + module.blocks(x))


def discriminator(module, images):
    return module.layers(images).reshape(-1)


def vgg54(module, images, originals):
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)

    def features(x):
        x = (x.expand(-1, 3, -1, -1) + 1) / 2
        return module.layers((x - mean.to(x)) / deviation.to(x)) / 12.75

    return (features(images) - features(originals).detach()).pow(2).sum(1).mean()


def padded(x, kernel, stride):
    """TensorFlow's padding of (B, C, S, S), where S is a multiple of the stride."""
    above = (kernel - stride) // 2
    below = kernel - stride - above
    return F.pad(x, (above, below, above, below))


def depthwise(module, x):
    x = padded(x, module.kernel, module.stride)
    return F.conv2d(x, module.weight, stride=module.stride, groups=x.shape[1])


def block(module, x):
    y = x
    if module.widens:
        y = F.relu6(module.bn0(module.expand_conv(y)))
    y = F.relu6(module.bn1(module.depthwise_conv(y)))
    y = module.bn2(module.project_conv(y))
    return x + y if module.adds_input else y


def efficientnet_loss(module, images, originals):
    network = module.network

    def features(x):
        x = (127.5 * (x.expand(-1, 3, -1, -1) + 1) - 127) / 128
        x = F.relu6(network.bn0(network.conv_stem(padded(x, 3, 2))))
        return network.blocks[:5](x) / 360

    return (features(images) - features(originals).detach()).pow(2).sum(1).mean()


FORWARD = {
    "Residual": residual,
    "Generator": generator,
    "Discriminator": discriminator,
    "VGG54": vgg54,
    "EfficientNetLoss": efficientnet_loss,
    "EfficientNet": lambda m, x: x,  # only its layers are used
    "Block": block,
    "Depthwise": depthwise,
    "MaxPool2d": lambda m, x: F.max_pool2d(x, 2),
    "Pool": lambda m, x: x,  # the layer within Jittor's MaxPool2d
}


def mse_step(G, optimizer_G, small, large):
    loss_MSE = F.mse_loss(G(small), large)
    update(optimizer_G, loss_MSE)
    return {"loss_MSE": loss_MSE}


def train_step(networks, optimizers, small, large, *, content_loss, lambda_adv):
    """The content loss is that of a module, or the squared error for any function."""
    G, D = networks
    optimizer_G, optimizer_D = optimizers
    content = content_loss if isinstance(content_loss, torch.nn.Module) else F.mse_loss
    bce = F.binary_cross_entropy_with_logits
    fake = G(small)
    real_logits = D(large)
    fake_logits = D(fake.detach())
    loss_real = bce(real_logits, torch.ones_like(real_logits))
    loss_D = loss_real + bce(fake_logits, torch.zeros_like(fake_logits))
    update(optimizer_D, loss_D)

    logits = D(fake)
    loss_adv = bce(logits, torch.ones_like(logits))
    loss_content = content(fake, large)
    update(optimizer_G, loss_content + lambda_adv * loss_adv)
    return {"loss_D": loss_D, "loss_adv": loss_adv, "loss_content": loss_content}
