"""The scripts' layers in PyTorch with the same weights, and the comparison of networks after a training step."""

import jittor as jt
import numpy as np
from jittor import nn


def convert(layer):
    """A layer of Jittor, or a Sequential, in PyTorch with the same weights; Jittor's ModuleList is one."""
    import torch

    tnn, name = torch.nn, type(layer).__name__
    if isinstance(layer, nn.Sequential):
        return tnn.Sequential(*[convert(child) for child in layer.layers.values()])
    if name == "Residual":
        return twin_of(layer, lambda m, x: x + m.layers(x))
    if isinstance(layer, nn.Linear):
        twin = tnn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    elif isinstance(layer, nn.Embedding):
        twin = tnn.Embedding(*layer.weight.shape)
    elif isinstance(layer, (nn.Conv, nn.ConvTranspose)):
        kind = tnn.Conv2d if isinstance(layer, nn.Conv) else tnn.ConvTranspose2d
        twin = kind(layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride,
                    padding=layer.padding, bias=layer.bias is not None)  # fmt: skip
    elif isinstance(layer, nn.BatchNorm):
        twin = LazyBatchNorm(layer.num_features)
    elif isinstance(layer, nn.InstanceNorm2d):
        twin = tnn.InstanceNorm2d(layer.num_features, affine=layer.affine)
    elif name in ("LeakyReLU", "leaky_relu"):
        return tnn.LeakyReLU(getattr(layer, "scale", 0.2))  # Jittor's own keeps its slope to itself
    elif name == "ReflectionPad2d":
        return tnn.ReflectionPad2d(layer.padding)
    elif name == "Dropout":
        return tnn.Dropout(layer.p)
    else:
        return {"ReLU": tnn.ReLU, "relu": tnn.ReLU, "Tanh": tnn.Tanh, "Flatten": tnn.Flatten}[name]()
    state = {key: torch.tensor(value.numpy().copy()) for key, value in layer.state_dict().items()}
    twin.load_state_dict(state, strict=False)
    return twin


def LazyBatchNorm(channels):
    """Batch norm of (N, C) and of (N, C, H, W), as Jittor's."""
    import torch

    class Norm(torch.nn.modules.batchnorm._BatchNorm):
        def _check_input_dim(self, x):
            pass

    return Norm(channels)


def twin_of(module, forward):
    """A PyTorch module with converted children under the same names; `forward(twin, *inputs)` is its forward pass."""
    import torch

    class Twin(torch.nn.Module):
        pass

    twin, Twin.forward = Twin(), forward
    for name, child in vars(module).items():
        if isinstance(child, nn.Module):
            setattr(twin, name, convert(child))
    return twin


def unet_forward(m, x):
    """The forward pass of pix2pix.UNet's twin."""
    import torch

    skips = []
    for layer in m.down:
        x = layer(x)
        skips.insert(0, x)
    for layer, skip in zip(m.up, skips[1:]):
        x = torch.cat([layer(x), skip], 1)
    return m.last(x)


def adam(optimizer, *modules):
    """PyTorch's Adam with the rate and the betas of a Jittor optimizer."""
    import torch

    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.Adam(parameters, lr=optimizer.lr, betas=optimizer.betas)


def update(optimizer, loss):
    """A step on this optimizer's parameters; the gradients of all others stay as they are."""
    optimizer.zero_grad()
    loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
    optimizer.step()


def tensors(*arrays):
    import torch

    return [torch.tensor(array) for array in arrays]


def variables(*arrays):
    return [jt.array(array) for array in arrays]


def assert_same_step(module, twin, optimizer):
    """Gradients, weights and running statistics agree after one step on both sides, to 1e-4.

    Adam's first update is lr * sign(gradient): where a gradient is zero but for rounding (a bias before batch norm),
    its sign is chance, and the weight is not compared.
    """
    parameters, expected = trained(module), dict(twin.named_parameters())
    assert parameters.keys() == expected.keys()
    grads = {id(p): g for group in optimizer.param_groups for p, g in zip(group["params"], group["grads"])}
    for name, parameter in parameters.items():
        if expected[name].grad is None:
            continue
        grad, want = grads[id(parameter)].numpy(), expected[name].grad.numpy()
        assert np.allclose(grad, want, rtol=1e-4, atol=1e-4 * np.abs(want).max() + 1e-7), name
        certain = np.abs(want) > 1e-3 * np.abs(want).max() + 1e-6
        assert np.allclose(parameter.numpy()[certain], expected[name].detach().numpy()[certain], rtol=1e-4, atol=1e-5)
    state = module.state_dict()
    for name, value in twin.named_buffers():
        if name in state:
            assert np.allclose(state[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-5), name


def trained(module):
    """{name: parameter}, without running statistics."""
    return {n: p for n, p in module.named_parameters() if not n.endswith(("running_mean", "running_var"))}


def assert_same_losses(got, atol=1e-6, **expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert np.isclose(got[name].item(), value.item(), rtol=1e-4, atol=atol), name
