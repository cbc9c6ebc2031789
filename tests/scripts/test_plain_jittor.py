"""Every page also runs with `from jittor import nn`, without jittor_fast.

The networks have the same weights' names, and give the same outputs.
"""

from common import EMA

import re
import types

import jittor as jt
import numpy as np
import pytest
from registry import EVERY_SCRIPT, ROOT, ROWS, load

import jittor_fast
from tools.describe import EXAMPLES

# Jittor's avg_pool2d counts the padding, although it is told not to.
WRONG_IN_JITTOR = [
    ("spade", "discriminator"),
    ("pix2pixhd", "generator"),
    ("pix2pixhd", "discriminator"),
]


def import_of_jittor(found):
    """`from jittor import nn`, and the import of what Jittor lacks."""
    names = re.findall(r"\w+", found[1])
    names.remove("nn")
    if not names:
        return "from jittor import nn"
    return f"from jittor_fast import {', '.join(names)}; from jittor import nn"


def with_plain_jittor(name):
    """A script as a module, whose layers are Jittor's."""
    source = (ROOT / f"{name}.py").read_text()
    plain, n_imports = re.subn(
        r"^from jittor_fast import ((?:\w+, )*nn\b(?:, \w+)*)",
        import_of_jittor,
        source,
        flags=re.MULTILINE,
    )
    assert n_imports == 1
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / f"{name}.py")
    exec(compile(plain, f"plain {name}.py", "exec"), vars(module))
    return module


def networks_of(script, args):
    """The networks that a script builds, in its order."""
    built = script.build(args)
    parts = list(built.values()) if isinstance(built, dict) else built
    return [part for part in parts if isinstance(part, jt.nn.Module) or not isinstance(part, EMA)]


def random_input(example, rng):
    """An input of the shape of an example, with a batch of twice the size."""
    shape = (2 * len(example), *example.shape[1:])
    if "int" in str(example.dtype):
        return jt.array(np.zeros(shape, np.int32))
    return jt.array(rng.uniform(-1, 1, shape).astype(np.float32))


def flat(outputs):
    """The arrays of a variable, or of those in nested tuples and lists."""
    if isinstance(outputs, jt.Var):
        return [outputs.numpy()]
    return [array for output in outputs for array in flat(output)]


@pytest.mark.parametrize("name", EVERY_SCRIPT)
def test_the_networks_of_plain_jittor(name, tiny):
    flags = [str(flag) for flag in ["--data_dir", tiny.data, *ROWS[name].flags]]
    flags += [str(flag) for flag in ROWS[name].alone]  # no dropout, whose masks differ
    args = load(name).parse_args(flags)
    if "selected_attrs" in args and args.selected_attrs is None:
        args.selected_attrs = ["bright", "dark", "old"]
    if "n_classes" in args and args.n_classes is None:
        args.n_classes = 4
    examples = EXAMPLES[name](args)
    ours = networks_of(load(name), args)
    plain = networks_of(with_plain_jittor(name), args)
    rng = np.random.default_rng(0)
    for network, other, (title, inputs) in zip(ours, plain, examples.items()):
        state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
        assert state.keys() == other.state_dict().keys(), title
        if type(other).__module__ != "common.text":  # the encoders are not on the page
            modules = {type(layer).__module__ for layer in other.modules()}
            modules.discard("jittor_fast.spectral")  # which Jittor lacks
            assert not [module for module in modules if module.startswith("jittor_fast")]
        if inputs is None:
            continue
        other.load_state_dict({key: np.array(value) for key, value in state.items()})
        network.eval()
        other.eval()
        arguments = [random_input(example, rng) for example in inputs]
        jittor_fast.set_seed(12345)
        expected = flat(network(*arguments))
        jittor_fast.set_seed(12345)
        found = flat(other(*arguments))
        assert len(found) == len(expected)
        for one, two in zip(expected, found):
            assert one.shape == two.shape and np.isfinite(two).all()
            if (name, title) in WRONG_IN_JITTOR:
                continue
            assert np.allclose(one, two, rtol=1e-3, atol=1e-4), title
