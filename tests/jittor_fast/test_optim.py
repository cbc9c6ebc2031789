"""Adam, Adagrad and the moving average of weights against PyTorch and numpy."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn as jittor_nn

import jittor_fast
from jittor_fast import call, nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def copied(value):
    """A copy of an optimizer's state, with arrays instead of Vars."""
    if isinstance(value, dict):
        return {key: copied(v) for key, v in value.items()}
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value.numpy().copy() if isinstance(value, jt.Var) else value


# ---- Adam ----


def loss_of(params, goals, library):
    distances = sum(((p - goal) ** 2).sum() for p, goal in zip(params, goals))
    return distances + (library.sin(params[0]) * 3).sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"lr": 1e-4, "betas": (0.5, 0.999)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"lr": 0.1}],
)
def test_adam(options):
    """Ten steps, with a smaller learning rate from the sixth on."""
    options = {"lr": 0.01, **options}
    shapes = [(3, 4), (1,), (2, 3, 3, 3), (160, 130)]
    starts = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    goals = [normal(*shape, seed=9 + i) for i, shape in enumerate(shapes)]
    ours = [jt.array(v) for v in starts]
    theirs = [torch.tensor(v, requires_grad=True) for v in starts]
    optimizer = nn.Adam(ours, **options)
    reference = torch.optim.Adam(theirs, **options)
    for i in range(10):
        if i == 5:
            optimizer.lr = options["lr"] / 3
            reference.param_groups[0]["lr"] = options["lr"] / 3
        optimizer.step(loss_of(ours, [jt.array(g) for g in goals], jt))
        reference.zero_grad()
        loss_of(theirs, [torch.tensor(g) for g in goals], torch).backward()
        reference.step()
    for got, expected in zip(ours, theirs):
        np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), atol=1e-6)


def test_adam_continues_from_its_state():
    """Ten steps equal five, a copy of state and parameters, and five.

    The state has Jittor's layout.
    """

    def train(p, optimizer, n):
        for _ in range(n):
            optimizer.step(((p - 1) ** 4).sum())
        return p.numpy().copy()

    p = jt.array(normal(40, 50))
    optimizer = nn.Adam([p], lr=0.02, betas=(0.5, 0.9))
    half = train(p, optimizer, 5)
    state = copied(optimizer.state_dict())
    expected = train(p, optimizer, 5)

    q = jt.array(half)
    resumed = nn.Adam([q], lr=1.0)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(train(q, resumed, 5), expected)
    theirs = jittor_nn.Adam([jt.array(half)], lr=1.0)
    assert set(theirs.state_dict()["defaults"]) == set(optimizer.state_dict()["defaults"])


def test_adam_accumulates_clips_and_skips_frozen_parameters():
    """As Jittor's own."""
    frozen = jt.array(normal(5)).stop_grad()
    before = frozen.numpy().copy()
    results = []
    for library in (nn, jittor_nn):
        p = jt.array(normal(5))
        optimizer = library.Adam([p, frozen], lr=0.1)
        optimizer.backward((p**2).sum())
        optimizer.backward((p**3).sum())
        optimizer.clip_grad_norm(0.5, 2)
        optimizer.step()
        results.append(p.numpy())
    np.testing.assert_allclose(*results, atol=1e-5)
    np.testing.assert_array_equal(frozen.numpy(), before)


def test_adam_keeps_no_graph_from_step_to_step():
    p = jt.array(normal(30, 20))
    optimizer = nn.Adam([p], lr=0.1)
    counts = []
    for _ in range(8):
        optimizer.step((p**2).sum())
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    assert counts[-1] == counts[2]
    (group,) = optimizer.param_groups
    assert all(v.is_stop_grad() for v in group["m"] + group["values"])


def test_adam_leaves_alone_what_was_computed_before():
    """Jittor is lazy: what depends on the old parameters must not see the new ones."""
    p = jt.array(normal(200, 200))
    doubled = p * 2
    expected = 2 * p.numpy()
    nn.Adam([p], lr=0.1).step((p**2).sum())
    jt.sync_all()
    np.testing.assert_array_equal(doubled.numpy(), expected)


@pytest.mark.parametrize("v", [0.0, 1e-45, 1e-40, 1e-38])
def test_adam_survives_a_second_moment_that_has_all_but_vanished(v):
    p = jt.array(normal(100000))
    optimizer = nn.Adam([p], lr=0.1)
    optimizer.param_groups[0]["values"][0].update(jt.array(np.full(100000, v, np.float32)))
    optimizer.step((p * 0).sum())
    np.testing.assert_array_equal(p.numpy(), normal(100000))


def test_adam_in_operators_has_the_papers_eps(monkeypatch):
    """With gradients of 1e-7, an eps of 3.2e-7 would quarter the first step."""
    monkeypatch.setattr(call, "enabled", False)
    start = normal(50)
    p = jt.array(start)
    expected = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = nn.Adam([p], lr=0.01, betas=(0.5, 0.9))
    reference = torch.optim.Adam([expected], lr=0.01, betas=(0.5, 0.9))
    for gradient in 1e-7 * normal(3, 50, seed=1):
        optimizer.step((p * jt.array(gradient)).sum())
        expected.grad = torch.tensor(gradient, dtype=torch.float64)
        reference.step()
    assert np.abs(p.numpy() - start).max() > 0.02
    np.testing.assert_allclose(p.numpy(), expected.detach().numpy(), atol=1e-5)


# ---- Adagrad ----


@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_adagrad(weight_decay):
    start = normal(3, 4)
    goal = normal(3, 4, seed=1)
    ours = jt.array(start)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = jittor_fast.Adagrad([ours], lr=0.1, weight_decay=weight_decay)
    reference = torch.optim.Adagrad([theirs], lr=0.1, weight_decay=weight_decay)
    for _ in range(5):
        optimizer.step(((ours - jt.array(goal)) ** 2).sum())
        reference.zero_grad()
        ((theirs - torch.tensor(goal)) ** 2).sum().backward()
        reference.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=1e-6)


# ---- the moving average of weights ----


def test_ema_update():
    """Ten updates with a changing decay, after which no graph has grown."""
    shadow = [normal(3, 4), normal(200, 100)]
    params = [normal(3, 4, seed=1), normal(200, 100, seed=2)]
    s = [jt.array(v).stop_grad() for v in shadow]
    p = [jt.array(v) for v in params]
    counts = []
    for i in range(10):
        decay = 0.5 + 0.04 * i
        jittor_fast.ema_update(s, p, decay)
        shadow = [decay * a + (1 - decay) * b for a, b in zip(shadow, params)]
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    for got, expected in zip(s, shadow):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert counts[-1] == counts[1]
