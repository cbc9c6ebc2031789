"""The scripts' networks and training steps in PyTorch, with the same weights.

They are what a script is compared with. `tools/twins/<script>.py` has

    train_step    with the arguments of the script's own, on PyTorch's modules,
                  optimizers and tensors; and the steps of other phases, such as
                  mse_step, under the script's names
    FORWARD       {class name: forward pass}, a function (module, *inputs) for each
                  class of networks that has its own

`Twin` translates a call of one step into a call of the other. It needs PyTorch
(`pip install torch`).
"""

import importlib

import jittor as jt
import numpy as np
import torch
from jittor import nn  # the base classes of those in jittor_fast.nn, too

from jittor_fast import Adagrad

# Variables that are not trained.
STATISTICS = ("running_mean", "running_var", "weight_u", "fixed_scale", "reference")

# ---- networks ----


def convert(layer, forward=None):
    """A Jittor module in PyTorch, with the same weights under the same names.

    Args:
        forward: as FORWARD of a script's twin.
    """
    forward = forward or {}
    name = type(layer).__name__
    if name in forward:
        return twin_of(layer, forward)
    if isinstance(layer, nn.Sequential):  # Jittor's ModuleList is one
        children = [convert(child, forward) for child in layer.layers.values()]
        return torch.nn.Sequential(*children)
    twin = convert_plain(layer, name)
    state = {key: torch.tensor(value.numpy().copy()) for key, value in layer.state_dict().items()}
    twin.load_state_dict(state, strict=False)
    return twin.train(layer.is_training())


def convert_plain(layer, name):
    """A layer of `jittor.nn` or `jittor_fast.nn` in PyTorch, with its own weights.

    Args:
        name: that of its class.
    """
    if isinstance(layer, nn.Linear):
        has_bias = layer.bias is not None
        return torch.nn.Linear(layer.in_features, layer.out_features, bias=has_bias)
    if isinstance(layer, nn.Embedding):
        return torch.nn.Embedding(*layer.weight.shape)
    if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
        return convert_convolution(layer)
    if isinstance(layer, nn.BatchNorm):
        return AnyBatchNorm(layer.num_features, eps=layer.eps, affine=layer.affine)
    if isinstance(layer, nn.InstanceNorm2d):
        return torch.nn.InstanceNorm2d(layer.num_features, affine=layer.affine)
    if isinstance(layer, nn.Dropout):
        return torch.nn.Dropout(layer.p)
    if name == "Upsample":
        return torch.nn.Upsample(scale_factor=layer.scale_factor, mode=layer.mode)
    if name == "PReLU":
        return torch.nn.PReLU(layer.num_parameters)
    if name == "PixelShuffle":
        return torch.nn.PixelShuffle(layer.upscale_factor)
    if name == "LeakyReLU":
        return torch.nn.LeakyReLU(layer.scale)
    if name == "ReflectionPad2d":
        return torch.nn.ReflectionPad2d(layer.padding)
    if name == "relu":  # what Jittor's own nn.ReLU() is
        return torch.nn.ReLU()
    return getattr(torch.nn, name)()  # ReLU, ELU, Tanh, Sigmoid, Flatten


def convert_convolution(layer):
    sizes = {
        "stride": layer.stride,
        "padding": layer.padding,
        "groups": layer.groups,
        "bias": layer.bias is not None,
    }
    layer_class = torch.nn.Conv2d
    if isinstance(layer, nn.ConvTranspose):
        layer_class = torch.nn.ConvTranspose2d
        sizes["output_padding"] = layer.output_padding
    return layer_class(layer.in_channels, layer.out_channels, layer.kernel_size, **sizes)


class AnyBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm of (N, C) and of (N, C, H, W), as Jittor's."""

    def _check_input_dim(self, x):
        pass


def twin_of(module, forward):
    """A module whose class has its own forward pass, with its children converted."""

    class Module(torch.nn.Module):
        pass

    Module.forward = forward[type(module).__name__]
    twin = Module()
    variables = dict(vars(module))  # a copy: is_training() can add one
    for name, value in variables.items():
        if isinstance(value, nn.Module):
            setattr(twin, name, convert(value, forward))
        elif isinstance(value, jt.Var) and is_statistic(module, name):
            twin.register_buffer(name, torch.tensor(value.numpy()))
        elif isinstance(value, jt.Var):
            twin.register_parameter(name, torch.nn.Parameter(torch.tensor(value.numpy())))
        elif name not in twin.__dict__:
            setattr(twin, name, value)  # a plain value, such as a shape
    return twin.train(module.is_training())


def is_statistic(module, name):
    """Whether a variable of a module is not trained.

    In eval mode no variable has a gradient, so that its name decides.
    """
    if module.is_training():
        return getattr(module, name).is_stop_grad()
    return name.endswith(STATISTICS)


# ---- optimizers ----


def convert_optimizer(optimizer, params, fused):
    """A new PyTorch optimizer of `params` with the settings of Jittor's.

    Args:
        fused: whether Adam is PyTorch's fused one.
    """
    if isinstance(optimizer, nn.Adam):
        return torch.optim.Adam(
            params,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=fused,
        )
    if isinstance(optimizer, Adagrad):
        return torch.optim.Adagrad(
            params, lr=optimizer.lr, eps=optimizer.eps, weight_decay=optimizer.weight_decay
        )
    if isinstance(optimizer, nn.RMSprop):
        return torch.optim.RMSprop(
            params, lr=optimizer.lr, alpha=optimizer.alpha, eps=optimizer.eps
        )
    return torch.optim.SGD(params, lr=optimizer.lr, momentum=optimizer.momentum)


def update(optimizer, loss):
    """A step on this optimizer's parameters; all other gradients stay as they are."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=params)
    optimizer.step()


# ---- a training step ----


def flat(values):
    """The items of nested tuples, lists and dicts."""
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, (tuple, list)):
        return [values]
    items = []
    for value in values:
        items += flat(value)
    return items


class Twin:
    """A script's training step in PyTorch, called with what the script's own takes.

    These are Jittor's modules, optimizers and variables. The first call converts
    modules and optimizers; afterwards PyTorch's have their own state. It computes on
    the GPU if Jittor does.

    Args:
        script: the script's name without `.py`.
        write_back: whether each call puts PyTorch's weights into the Jittor modules, so
            that the script continues with them.
        tuned: use channels_last and fused Adam, for speed.
        compiled: use torch.compile for the networks, too.
    """

    def __init__(self, script, write_back=True, tuned=False, compiled=False):
        self.source = importlib.import_module(f"tools.twins.{script}")
        self.write_back = write_back
        self.tuned = tuned
        self.compiled = compiled
        self.modules = {}  # {id: (Jittor's, PyTorch's)}; the former keeps its id in use
        self.optimizers = {}  # likewise
        self.parameters = {}  # {id of Jittor's: PyTorch's}
        self.device = "cpu"  # the first call sets it

    def steps(self):
        """The names of the script's steps: "train_step", and those of other phases."""
        return [name for name in vars(self.source) if name.endswith("_step")]

    def train_step(self, *args, **kwargs):
        """The losses of one step, {name: Jittor scalar}."""
        return self.step("train_step", *args, **kwargs)

    def step(self, name, *args, **kwargs):
        """As `train_step`, for the step with this name."""
        self.device = "cuda" if jt.flags.use_cuda else "cpu"
        # Modules first: an optimizer is converted with their parameters.
        for kind in (nn.Module, jt.optim.Optimizer):
            for value in flat([args, kwargs]):
                if isinstance(value, kind):
                    self.get(value)
        args = [self.get(value) for value in args]
        kwargs = {name: self.get(value) for name, value in kwargs.items()}
        losses = getattr(self.source, name)(*args, **kwargs)
        if self.write_back:
            self.copy_weights()
        return {name: jt.array(np.float32([loss.item()])) for name, loss in losses.items()}

    def get(self, value):
        """PyTorch's counterpart of an argument."""
        if isinstance(value, dict):
            return {key: self.get(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(self.get(item) for item in value)
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, jt.optim.Optimizer):
            return self.optimizer(value)
        if isinstance(value, jt.Var):
            return self.tensor(value)
        if callable(value):
            return self.function(value)
        return value

    def tensor(self, variable):
        tensor = torch.tensor(variable.numpy(), device=self.device)
        if self.tuned and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def function(self, function):
        """A function of tensors, from one of variables; no gradient passes it."""

        def function_of_tensors(*tensors):
            variables = [jt.array(tensor.detach().cpu().numpy()) for tensor in tensors]
            return self.get(function(*variables))

        return function_of_tensors

    def module(self, module):
        if id(module) not in self.modules:
            twin = convert(module, self.source.FORWARD).to(self.device)
            if self.tuned:
                twin = twin.to(memory_format=torch.channels_last)
            theirs = dict(twin.named_parameters())
            for name, parameter in module.named_parameters():
                if name in theirs:
                    self.parameters[id(parameter)] = theirs[name]
            if self.compiled:
                twin = torch.compile(twin)
            self.modules[id(module)] = (module, twin)
        return self.modules[id(module)][1]

    def optimizer(self, optimizer):
        if id(optimizer) not in self.optimizers:
            params = []
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if id(parameter) in self.parameters:  # not a norm's statistics
                        params.append(self.parameters[id(parameter)])
            twin = convert_optimizer(optimizer, params, fused=self.tuned)
            self.optimizers[id(optimizer)] = (optimizer, twin)
        optimizer, twin = self.optimizers[id(optimizer)]
        for group in twin.param_groups:  # the script changes these as it trains
            group["lr"] = optimizer.lr
            if isinstance(optimizer, nn.Adam):
                group["betas"] = optimizer.betas
            if isinstance(optimizer, nn.SGD):
                group["momentum"] = optimizer.momentum
        return twin

    def copy_weights(self):
        """Puts PyTorch's weights and statistics into Jittor's modules."""
        for module, twin in self.modules.values():
            theirs = dict(twin.named_parameters())
            theirs.update(twin.named_buffers())
            for name, parameter in module.named_parameters():
                if name in theirs:
                    parameter.assign(jt.array(theirs[name].detach().cpu().numpy().copy()))


# ---- comparison after one step ----


def assert_same_step(module, twin, optimizer):
    """After one step on both sides, gradients, weights and statistics agree to 1e-4.

    A gradient that is zero except for rounding, such as that of a bias before a norm,
    is compared with the network's largest one. Its sign is chance, and so is Adam's
    first update of that weight, which is therefore not compared.

    Args:
        module, optimizer: Jittor's.
        twin: the module in PyTorch.
    """
    parameters = trained(module)
    expected = dict(twin.named_parameters())
    assert parameters.keys() == expected.keys()
    gradients = {}
    for group in optimizer.param_groups:
        for parameter, gradient in zip(group["params"], group.get("grads", ())):
            gradients[id(parameter)] = gradient
    compared = [name for name in parameters if expected[name].grad is not None]
    largest = max((expected[name].grad.abs().max().item() for name in compared), default=0.0)
    for name in compared:
        found = gradients[id(parameters[name])].numpy()
        gradient = expected[name].grad.numpy()
        tolerance = 1e-4 * np.abs(gradient).max() + 3e-6 * largest
        assert np.allclose(found, gradient, rtol=1e-4, atol=tolerance), name
        smallest = 1e-3 * np.abs(gradient).max() + 1e-5 * largest + 1e-6
        is_certain = np.abs(gradient) > smallest
        weights = parameters[name].numpy()[is_certain]
        expected_weights = expected[name].detach().numpy()[is_certain]
        assert np.allclose(weights, expected_weights, rtol=1e-4, atol=1e-5), name
    state = module.state_dict()
    for name, value in twin.named_buffers():
        if name in state:
            assert np.allclose(state[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-5), name


def trained(module):
    """{name: parameter} of a Jittor module, without the statistics of norms."""
    parameters = module.named_parameters()
    return {name: value for name, value in parameters if not name.endswith(STATISTICS)}


def assert_same_losses(found, expected, atol=1e-6):
    """The same losses under the same names: Jittor's scalars, and PyTorch's."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.isclose(found[name].item(), value.item(), rtol=1e-4, atol=atol), name
