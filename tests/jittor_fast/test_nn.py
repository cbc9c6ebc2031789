"""`jittor_fast.nn` is `jittor.nn` to a script that imports it."""

import inspect

import pytest
from jittor import nn as jittor_nn

from jittor_fast import call, nn


def public(module):
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def replaced():
    """The names of Jittor's that mean something else in our `nn`."""
    ours = public(nn)
    return sorted(name for name, value in public(jittor_nn).items() if ours[name] is not value)


def parameters(value):
    """[(name, default)] of a function, or of a constructor without self."""
    if not inspect.isclass(value):
        signature = inspect.signature(value)
        return [(p.name, p.default) for p in signature.parameters.values()]
    if value.__name__ in ("relu", "leaky_relu"):
        # Jittor makes these modules from functions; their constructors take all
        # arguments but the first one, x.
        function = inspect.getclosurevars(value.execute).nonlocals["func"]
        return parameters(function)[1:]
    return parameters(value.__init__)[1:]


def test_what_is_replaced():
    """Each layer that the README lists."""
    layers = "Conv ConvTranspose BatchNorm InstanceNorm2d ReflectionPad2d Upsample Dropout"
    activations = "LeakyReLU ReLU ELU Tanh"
    others = "Adam avg_pool2d softplus"
    assert set(f"{layers} {activations} {others}".split()) <= set(replaced())


def test_nothing_is_there_that_jittor_lacks():
    """So a page runs with `from jittor import nn` too."""
    assert public(nn).keys() == public(jittor_nn).keys()


@pytest.mark.parametrize("name", replaced())
def test_arguments_are_jittors(name):
    """Names, order and defaults."""
    assert parameters(getattr(nn, name)) == parameters(getattr(jittor_nn, name))


@pytest.mark.parametrize("name", replaced())
def test_other_names_are_jittors(name):
    """Where Jittor has two names for one layer, so has our `nn`."""
    for other, value in public(jittor_nn).items():
        if value is getattr(jittor_nn, name):
            assert getattr(nn, other) is getattr(nn, name), other


def test_headers_hold_what_they_include():
    """A kernel's text is whole, since Jittor names the compiled kernel after it."""
    text = call.header("winograd.h")
    assert '#include "' not in text
    assert "worth_sharing" in text
