"""The scripts' networks and training steps in PyTorch, from the same weights: what a script is held to.

`tools/twins/<script>.py` has a `train_step` with the arguments of the script's own, on PyTorch's modules, optimizers
and tensors, and FORWARD, {class name: forward pass} of the networks whose class has one of its own. `Twin` turns
the one call into the other. It needs PyTorch (`pip install torch`).
"""

import importlib

import jittor as jt
import numpy as np
import torch

from jittor_fast import nn


def convert(layer, forward=None):
    """A Jittor module in PyTorch with the same weights, under the same names.

    Args:
        forward: {class name: forward pass of a module (twin, *inputs)}.
    """
    forward, name = forward or {}, type(layer).__name__
    if name in forward:
        return twin_of(layer, forward)
    if isinstance(layer, nn.Sequential):  # Jittor's ModuleList is one
        return torch.nn.Sequential(*[convert(child, forward) for child in layer.layers.values()])
    twin = convert_plain(layer, name)
    state = {key: torch.tensor(value.numpy().copy()) for key, value in layer.state_dict().items()}
    twin.load_state_dict(state, strict=False)
    return twin.train(layer.is_training())


def convert_plain(layer, name):
    """A layer of `jittor.nn` or `jittor_fast`, without its weights."""
    tnn = torch.nn
    if isinstance(layer, nn.Linear):
        return tnn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    if isinstance(layer, nn.Embedding):
        return tnn.Embedding(*layer.weight.shape)
    if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
        kind = tnn.Conv2d if isinstance(layer, nn.Conv) else tnn.ConvTranspose2d
        sizes = {"stride": layer.stride, "padding": layer.padding, "bias": layer.bias is not None}
        if kind is tnn.ConvTranspose2d:
            sizes["output_padding"] = layer.output_padding
        return kind(layer.in_channels, layer.out_channels, layer.kernel_size, **sizes)
    if isinstance(layer, nn.BatchNorm):
        return AnyBatchNorm(layer.num_features, affine=layer.affine)
    if isinstance(layer, nn.InstanceNorm2d):
        return tnn.InstanceNorm2d(layer.num_features, affine=layer.affine)
    if name == "Upsample":
        return tnn.Upsample(scale_factor=layer.scale_factor, mode=layer.mode)
    if name == "LeakyReLU":
        return tnn.LeakyReLU(layer.scale)
    if name == "ReflectionPad2d":
        return tnn.ReflectionPad2d(layer.padding)
    if isinstance(layer, nn.Dropout):
        return tnn.Dropout(layer.p)
    kinds = {"ReLU": tnn.ReLU, "relu": tnn.ReLU, "ELU": tnn.ELU, "Tanh": tnn.Tanh}
    return (kinds | {"Flatten": tnn.Flatten, "Sigmoid": tnn.Sigmoid})[name]()


class AnyBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm of (N, C) and of (N, C, H, W), as Jittor's."""

    def _check_input_dim(self, x):
        pass


def twin_of(module, forward):
    """A PyTorch module with converted children under the same names, and the forward pass of its class."""

    class Module(torch.nn.Module):
        pass

    Module.forward = forward[type(module).__name__]
    twin = Module()
    for name, value in vars(module).items():
        if isinstance(value, nn.Module):
            setattr(twin, name, convert(value, forward))
        elif isinstance(value, jt.Var) and value.is_stop_grad():
            twin.register_buffer(name, torch.tensor(value.numpy()))
        elif isinstance(value, jt.Var):
            twin.register_parameter(name, torch.nn.Parameter(torch.tensor(value.numpy())))
        elif name not in twin.__dict__:
            setattr(twin, name, value)  # plain numbers, such as a shape
    return twin.train(module.is_training())


def update(optimizer, loss):
    """A step on this optimizer's parameters; the gradients of all others stay as they are."""
    optimizer.zero_grad()
    loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
    optimizer.step()


def freeze_statistics(module, frozen=True):
    """Lets batch norms keep their running statistics, as where PyTorch runs a pass that Jittor does not."""
    for layer in module.modules():
        if isinstance(layer, AnyBatchNorm):
            layer.momentum = 0.0 if frozen else 0.1


class Twin:
    """A script's training step in PyTorch, called with Jittor's modules, optimizers and variables.

    The first call converts modules and optimizers; afterwards theirs are PyTorch's own. With `write_back`, each
    call puts PyTorch's weights into the Jittor modules, so that the script goes on with them.

    Args:
        script: the script's name without `.py`. It computes on the GPU where Jittor does.
        tuned: with channels_last and fused Adam, for speed.
        compiled: networks by torch.compile too.
    """

    def __init__(self, script, write_back=True, tuned=False, compiled=False):
        self.source, self.tuned = importlib.import_module(f"tools.twins.{script}"), tuned
        self.compiled = compiled
        self.write_back, self.modules, self.optimizers, self.owners = write_back, {}, {}, {}
        self.device = "cpu"  # the first call knows whether it is the GPU

    def train_step(self, *args, **kwargs):
        self.device = "cuda" if jt.flags.use_cuda else "cpu"
        values = [*args, *kwargs.values()]
        for kind in (
            nn.Module,
            jt.optim.Optimizer,
        ):  # an optimizer's parameters belong to converted modules
            for value in values:
                for item in value if isinstance(value, (tuple, list)) else [value]:
                    if isinstance(item, kind):
                        self.get(item)
        losses = self.source.train_step(
            *map(self.get, args), **{k: self.get(v) for k, v in kwargs.items()}
        )
        if self.write_back:
            self.copy_weights()
        return {name: jt.array(np.float32([loss.item()])) for name, loss in losses.items()}

    def get(self, value):
        """PyTorch's counterpart of an argument."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.get, value))
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, jt.optim.Optimizer):
            return self.optimizer(value)
        if isinstance(value, jt.Var):
            tensor = torch.tensor(value.numpy(), device=self.device)
            tuned = self.tuned and tensor.ndim == 4
            return tensor.contiguous(memory_format=torch.channels_last) if tuned else tensor
        if callable(
            value
        ):  # takes and gives tensors, as it takes and gives variables in the script
            return lambda *inputs: self.get(
                value(*(jt.array(x.detach().cpu().numpy()) for x in inputs))
            )
        return value

    def module(self, module):
        if id(module) not in self.modules:
            twin = convert(module, self.source.FORWARD).to(self.device)
            if self.tuned:
                twin = twin.to(memory_format=torch.channels_last)
            self.modules[id(module)] = module, torch.compile(twin) if self.compiled else twin
            theirs = dict(twin.named_parameters())
            for name, parameter in module.named_parameters():
                if name in theirs:
                    self.owners[id(parameter)] = theirs[name]
        return self.modules[id(module)][1]

    def optimizer(self, optimizer):
        if id(optimizer) not in self.optimizers:
            params = [
                self.owners[id(p)]
                for g in optimizer.param_groups
                for p in g["params"]
                if id(p) in self.owners
            ]
            if isinstance(optimizer, nn.Adam):
                decay = {"eps": optimizer.eps, "weight_decay": optimizer.weight_decay}
                twin = torch.optim.Adam(
                    params, lr=optimizer.lr, betas=optimizer.betas, fused=self.tuned, **decay
                )
            elif isinstance(optimizer, nn.Adagrad):
                decay = {"eps": optimizer.eps, "weight_decay": optimizer.weight_decay}
                twin = torch.optim.Adagrad(params, lr=optimizer.lr, **decay)
            elif isinstance(optimizer, nn.RMSprop):
                twin = torch.optim.RMSprop(
                    params, lr=optimizer.lr, alpha=optimizer.alpha, eps=optimizer.eps
                )
            else:
                twin = torch.optim.SGD(params, lr=optimizer.lr, momentum=optimizer.momentum)
            self.optimizers[id(optimizer)] = optimizer, twin
        optimizer, twin = self.optimizers[id(optimizer)]
        for group in twin.param_groups:
            group["lr"] = optimizer.lr  # the script's schedule moves it
            if "momentum" in group and isinstance(optimizer, nn.SGD):
                group["momentum"] = optimizer.momentum
        return twin

    def copy_weights(self):
        for module, twin in self.modules.values():
            theirs = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
            for name, parameter in module.named_parameters():
                if name in theirs:
                    parameter.assign(jt.array(theirs[name].detach().cpu().numpy().copy()))


# ---- comparison after one step ----


def assert_same_step(module, twin, optimizer):
    """Gradients, weights and running statistics agree after one step on both sides, to 1e-4.

    Where a gradient is zero but for rounding (of a bias before a norm), it is held to the largest of the network; its
    sign, and with it Adam's first update, is chance, and the weight is not compared.
    """
    parameters, expected = trained(module), dict(twin.named_parameters())
    assert parameters.keys() == expected.keys()
    grads = {
        id(p): g
        for group in optimizer.param_groups
        for p, g in zip(group["params"], group.get("grads", ()))
    }
    compared = [name for name in parameters if expected[name].grad is not None]
    largest = max((expected[name].grad.abs().max().item() for name in compared), default=0.0)
    for name in compared:
        parameter = parameters[name]
        grad, want = grads[id(parameter)].numpy(), expected[name].grad.numpy()
        assert np.allclose(
            grad, want, rtol=1e-4, atol=1e-4 * np.abs(want).max() + 3e-6 * largest
        ), name
        certain = np.abs(want) > 1e-3 * np.abs(want).max() + 1e-5 * largest + 1e-6
        assert np.allclose(
            parameter.numpy()[certain],
            expected[name].detach().numpy()[certain],
            rtol=1e-4,
            atol=1e-5,
        )
    state = module.state_dict()
    for name, value in twin.named_buffers():
        if name in state:
            assert np.allclose(state[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-5), name


def trained(module):
    """{name: parameter}, without running statistics."""
    return {
        n: p
        for n, p in module.named_parameters()
        if not n.endswith(("running_mean", "running_var", "weight_u"))
    }


def assert_same_losses(got, expected, atol=1e-6):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert np.isclose(got[name].item(), value.item(), rtol=1e-4, atol=atol), name
