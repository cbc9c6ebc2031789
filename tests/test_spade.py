"""spade.py: the step against PyTorch, losses by hand, published counts and settings; what is handed in."""

import json
import shutil

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import load, run

import spade as script
from common import fast
from common.data import hand_in
from common.networks import n_parameters


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


SMALL = ["--width", "4", "--img_size", "32", "--style_dim", "5", "--n_classes", "4"]


# ---- the step ----


def test_step_is_pytorchs():
    """Of a rectangle, whose images are stretched for the encoder."""
    pytest.importorskip("torch")
    from tools.twins import Twin, assert_same_losses, assert_same_step

    rng = np.random.default_rng(0)
    networks = G, E, D = script.build(script.parse_args([*SMALL, "--img_width", "64"]))
    for p in weights(G, E, D):  # at the start they are so small that rounding tells in the first layers' gradients
        if p.ndim > 1:
            p.assign(20 * p)
    optimizer_G, optimizer_D = (fast.Adam(w, lr=0.001, betas=(0.0, 0.9)) for w in (weights(G, E), weights(D)))
    labels = jt.array(rng.integers(4, size=(3, 32, 64), dtype=np.int32))
    images = jt.array(rng.uniform(-1, 1, (3, 3, 32, 64)).astype(np.float32))
    noise, twin = jt.array(rng.standard_normal((3, 5)).astype(np.float32)), Twin("spade", write_back=False)
    arguments = networks, optimizer_G, optimizer_D, labels, images, noise, 10.0, 0.05
    expected = twin.train_step(*arguments)
    assert_same_losses(script.train_step(*arguments), expected)
    for module, optimizer in ((D, optimizer_D), (G, optimizer_G), (E, optimizer_G)):
        assert_same_step(module, twin.module(module), optimizer)


def weights(*modules):
    return [p for module in modules for p in module.parameters()]
