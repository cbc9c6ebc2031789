"""The OpenMP kernels: values and gradients against PyTorch on the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import jittor as jt
import numpy as np
import pytest
from jittor import nn

from common import fast

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]


def close(mine, theirs, tolerance=1e-5):
    mine = mine.numpy() if isinstance(mine, jt.Var) else mine
    theirs = theirs.detach().numpy()
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= tolerance * max(1, np.abs(theirs).max())


def both(layer, twin, x, seed=0):
    """Output, input gradient and parameter gradients of both, for the same random output gradient."""
    weights = {name: value for name, value in twin.named_parameters()}
    for name, value in weights.items():
        getattr(layer, name).update(jt.array(value.detach().numpy().copy()))
    a, b = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = layer(a), twin(b)
    dy = np.random.default_rng(seed).standard_normal(z.shape).astype(np.float32)
    mine = jt.grad((y * jt.array(dy)).sum(), [a, *(getattr(layer, name) for name in weights)])
    (z * torch.tensor(dy)).sum().backward()
    return (y, z), list(zip(mine, [b.grad, *(value.grad for value in weights.values())]))


def randomize(twin):
    torch.manual_seed(0)
    for value in twin.parameters():
        torch.nn.init.uniform_(value, 0.5, 1.5)
    return twin


SHAPES_4D = [(2, 3, 8, 8), (1, 5, 7, 3), (4, 70, 2, 2)]


@pytest.mark.parametrize("shape", [*SHAPES_4D, (6, 3), (2, 64), (5, 131)])
@pytest.mark.parametrize("mean", [0, 100])
def test_batch_norm(shape, mean):
    x = (np.random.default_rng(1).standard_normal(shape) + mean).astype(np.float32)
    layer = fast.BatchNorm(shape[1])
    layer.train()
    twin = randomize(torch.nn.BatchNorm1d(shape[1]) if len(shape) == 2 else torch.nn.BatchNorm2d(shape[1]))
    # Around 100 a float32 has a hundredth of its digits left for the deviation.
    tolerance = 1e-5 if mean == 0 else 3e-4
    output, gradients = both(layer, twin, x)
    close(*output, tolerance)
    for pair in gradients:
        close(*pair, tolerance)
    close(layer.running_mean, twin.running_mean)
    close(layer.running_var, twin.running_var, tolerance)
    layer.eval(), twin.eval()
    close(layer(jt.array(x)), twin(torch.tensor(x)), tolerance)


@pytest.mark.parametrize("shape", SHAPES_4D)
@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm(shape, affine):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    twin = randomize(torch.nn.InstanceNorm2d(shape[1], affine=affine))
    output, gradients = both(fast.InstanceNorm2d(shape[1], affine=affine), twin, x)
    close(*output)
    for pair in gradients:
        close(*pair)


@pytest.mark.parametrize(("shape", "padding"), [((2, 3, 8, 8), 3), ((1, 1, 2, 5), 1), ((1, 2, 4, 7), 3)])
def test_reflection_pad(shape, padding):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    output, gradients = both(fast.ReflectionPad2d(padding), torch.nn.ReflectionPad2d(padding), x)
    close(*output, 0)
    close(*gradients[0])


def test_reflection_pad_needs_room():
    with pytest.raises(ValueError, match="larger images"):
        fast.ReflectionPad2d(3)(jt.zeros((1, 1, 3, 8)))


@pytest.mark.parametrize("lr", [1e-3, 0.1])
def test_adam_over_ten_steps(lr):
    rng = np.random.default_rng(4)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((3,), (5, 7), (2, 3, 4, 4))]
    gradients = [[rng.standard_normal(p.shape).astype(np.float32) * 10.0 ** -(i % 7) for p in start] for i in range(10)]
    mine, theirs = [jt.array(p) for p in start], [torch.tensor(p, requires_grad=True) for p in start]
    ours = fast.Adam(mine, lr=lr, betas=(0.5, 0.999))
    other = torch.optim.Adam(theirs, lr=lr, betas=(0.5, 0.999))
    for step in gradients:
        ours.step(sum((p * jt.array(g)).sum() for p, g in zip(mine, step)))
        for p, g in zip(theirs, step):
            p.grad = torch.tensor(g)
        other.step()
    for pair in zip(mine, theirs):
        close(*pair, 2e-6)


def test_adam_leaves_frozen_parameters_alone():
    kept, moved = jt.ones(3), jt.ones(3)
    kept.stop_grad()
    fast.Adam([kept, moved], lr=0.1).step((moved * 2).sum() + kept.sum())
    assert kept.numpy().tolist() == [1, 1, 1]
    assert np.allclose(moved.numpy(), 0.9)


def test_average():
    averages, values = [jt.array([1.0, 2.0])], [jt.array([3.0, 4.0])]
    fast.ema_update(averages, values, 0.75)
    assert averages[0].numpy().tolist() == [1.5, 2.5]
    assert values[0].numpy().tolist() == [3, 4]


def dropped(p, seed, shape=(200, 500)):
    layer = fast.Dropout(p)
    layer.train()
    jt.set_seed(seed)
    x = jt.ones(shape)
    y = layer(x)
    return y.numpy(), jt.grad((y * 3).sum(), x).numpy()


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5])
def test_dropout_rate_scale_and_gradient(p):
    y, dx = dropped(p, 1234567)
    # 100,000 coins: the share of zeros has a standard deviation of at most 0.0016.
    assert abs((y == 0).mean() - p) < 0.008
    assert np.allclose(y[y != 0], 1 / (1 - p))
    assert np.allclose(dx, y * 3)
    columns = (y == 0).mean(axis=0)  # 200 coins a column: no column is dropped or kept as a whole
    assert columns.min() > p - 0.2 and columns.max() < p + 0.2
    neighbours = np.corrcoef((y == 0)[:, :-1].ravel(), (y == 0)[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.015


def test_dropout_follows_the_seed():
    a, b, c = (dropped(0.5, seed)[0] for seed in (1234567, 1234567, 7654321))
    assert (a == b).all()
    assert 0.4 < (a == c).mean() < 0.6


def test_dropout_is_off_in_eval_mode():
    layer = fast.Dropout(0.5)
    assert (layer(jt.ones(100)).numpy() == 1).all()


def test_results_do_not_depend_on_the_number_of_threads():
    code = (
        "import common, hashlib, jittor as jt, numpy as np; from common import fast\n"
        "x = jt.array(np.random.default_rng(0).standard_normal((4, 70, 9, 9)).astype('float32'))\n"
        "jt.set_seed(1234567); d = fast.Dropout(0.3); d.train(); b = fast.BatchNorm(70); b.train()\n"
        "y = d(b(fast.ReflectionPad2d(2)(fast.InstanceNorm2d(70)(x)))); g = jt.grad((y * y).sum(), x)\n"
        "print(hashlib.md5(y.numpy().tobytes() + g.numpy().tobytes()).hexdigest())"
    )
    outputs = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_parameters_have_jittors_names():
    for mine, theirs in ((fast.BatchNorm(4), nn.BatchNorm(4)), (fast.InstanceNorm2d(4), nn.InstanceNorm2d(4))):
        assert {k: v.numpy().tolist() for k, v in mine.state_dict().items()} == {
            k: v.numpy().tolist() for k, v in theirs.state_dict().items()
        }
