"""The parallel layers and the optimizer against PyTorch, numpy, and Jittor's own."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn

import jittor_fast as fast
from jittor_fast import kernels, norms

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
functional = torch.nn.functional

SHAPES = [
    (2, 3, 4, 4),
    (1, 5, 7, 3),
    (3, 1, 9, 2),
    (4, 8, 65, 67),
]  # the last one is shared between the cores


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def set_affine(ours, theirs):
    for name, seed in (("weight", 1), ("bias", 2)):
        value = normal(ours.num_features, seed=seed)
        getattr(ours, name).update(jt.array(value))
        getattr(theirs, name).data = torch.tensor(value)


def gradients(ours, theirs, x, d):
    """[(Jittor's, PyTorch's)] of y, dx and of the weights' gradients, for the loss sum(y * d)."""
    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(t)
    grads = jt.grad((y * jt.array(d)).sum(), [a, *ours.parameters()[:2]])
    (z * torch.tensor(d)).sum().backward()
    expected = [z.detach(), t.grad, *(p.grad for p in theirs.parameters())]
    return list(zip([v.numpy() for v in (y, *grads)], [v.numpy() for v in expected]))


# ---- norms ----


@pytest.mark.parametrize("x", [-80.0, -25.0, -1.0, 1.0, 25.0, 80.0])
def test_softplus_does_not_saturate(x):
    """Neither do its slopes, which are the logistic function's."""
    var = jt.array([x])
    y = fast.softplus(var)
    assert np.isclose(y.item(), np.logaddexp(0, x), rtol=1e-5, atol=1e-10)
    assert np.isclose(jt.grad(y, var).item(), 1 / (1 + np.exp(-x)), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_instance_norm(shape):
    ours, theirs = fast.InstanceNorm2d(shape[1]), torch.nn.InstanceNorm2d(shape[1], affine=True)
    set_affine(ours, theirs)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (6, 5), (64, 257)])
def test_batch_norm(shape):
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(shape[1])
    ours = fast.BatchNorm(shape[1])
    set_affine(ours, theirs)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        ours.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        ours.running_var.numpy(), theirs.running_var.numpy(), rtol=1e-5, atol=1e-6
    )
    ours.eval(), theirs.eval()
    x = normal(*shape, seed=4)
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(jt.array(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [fast.BatchNorm, fast.InstanceNorm2d])
def test_norms_without_weights(norm):
    x = normal(3, 4, 5, 6)
    got, expected = (
        norm(4, affine=False)(jt.array(x)),
        getattr(nn, norm.__name__)(4, affine=False)(jt.array(x)),
    )
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("norm", [fast.BatchNorm, fast.InstanceNorm2d])
def test_norms_of_a_large_mean(norm):
    """Jittor's own computes E[x^2] - E[x]^2, and loses all digits here."""
    y = norm(2)(jt.array(100 + 0.01 * normal(4, 2, 32, 32))).numpy()
    assert y.std() == pytest.approx(0.95, abs=0.01)  # variance 1e-4, eps 1e-5


@pytest.mark.parametrize("norm", [fast.BatchNorm, fast.InstanceNorm2d])
def test_norms_have_jittors_state_and_fallback(norm, monkeypatch):
    theirs, ours = getattr(nn, norm.__name__)(4), norm(4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = jt.array(normal(3, 4, 5, 6))
    parallel = ours(x).numpy()
    state = {name: value.numpy().copy() for name, value in ours.state_dict().items()}
    monkeypatch.setattr(norms, "fits", lambda *variables: False)
    other = norm(4)
    np.testing.assert_allclose(other(x).numpy(), parallel, atol=1e-5)
    for name, value in other.state_dict().items():
        np.testing.assert_allclose(value.numpy(), state[name], atol=1e-6, err_msg=name)
    other.load_state_dict(state)
    other.eval(), ours.eval()
    np.testing.assert_allclose(other(x).numpy(), ours(x).numpy(), atol=1e-6)


@pytest.mark.parametrize("norm", [fast.BatchNorm, fast.InstanceNorm2d])
def test_norms_refuse_a_second_derivative_and_wrong_channels(norm):
    x = jt.array(normal(2, 3, 4, 4))
    g = jt.grad((norm(3)(x) ** 3).sum(), x)
    with pytest.raises(RuntimeError, match="second derivative"):
        jt.grad((g * g).sum(), x)
    with pytest.raises(ValueError, match="channels"):
        norm(1)(x)


# ---- activations, padding, dropout ----


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (5, 6)])
@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_leaky_relu(shape, scale):
    ours = fast.ReLU() if scale == 0 else fast.LeakyReLU(scale)
    for got, expected in gradients(
        ours, torch.nn.LeakyReLU(scale), normal(*shape), normal(*shape, seed=3)
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [*SHAPES, (7,)])
def test_elu(shape):
    for got, expected in gradients(
        fast.ELU(), torch.nn.ELU(), normal(*shape), normal(*shape, seed=3)
    ):
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("padding", [1, 3, (0, 2, 1, 3), 0])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 5, 7, 5), (4, 8, 65, 67)])
def test_reflection_pad(shape, padding):
    ours, theirs = fast.ReflectionPad2d(padding), torch.nn.ReflectionPad2d(padding)
    d = normal(*theirs(torch.zeros(shape)).shape, seed=3)
    for got, expected in gradients(ours, theirs, normal(*shape), d):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_reflection_pad_refuses_a_small_image():
    with pytest.raises(ValueError, match="below the size"):
        fast.ReflectionPad2d(3)(jt.zeros((1, 1, 3, 8)))


def test_gradient_penalty_passes_through_activation_padding_and_dropout():
    """d/dw of |d critic / dx|^2, in a critic of these layers, as PyTorch has it."""
    w, x = normal(4, 3, 3, 3), normal(2, 3, 6, 6)
    a, v = jt.array(x), jt.array(w)
    h = fast.LeakyReLU(0.2)(nn.conv2d(fast.ReflectionPad2d(1)(a), v))
    g = jt.grad((h**2).sum(), a)
    got = jt.grad((g**2).sum(), [a, v])
    t, u = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    h = functional.leaky_relu(
        functional.conv2d(functional.pad(t, (1, 1, 1, 1), mode="reflect"), u), 0.2
    )
    g = torch.autograd.grad((h**2).sum(), t, create_graph=True)[0]
    for ours, theirs in zip(got, torch.autograd.grad((g**2).sum(), [t, u])):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.9])
def test_dropout(p):
    layer = fast.Dropout(p)
    layer.train()
    jt.set_global_seed(1 << 29)
    x = jt.ones((512, 1000))
    y, again = layer(x), layer(x)
    g = jt.grad((y * 3).sum(), x)
    kept = y.numpy() != 0
    assert kept.mean() == pytest.approx(1 - p, abs=0.003)  # 4 standard deviations
    assert (
        abs(kept.mean(0).std() / np.sqrt(p * (1 - p) / 512) - 1) < 0.1
    )  # columns vary as binomials do
    np.testing.assert_allclose(y.numpy(), kept / (1 - p), rtol=1e-6)
    np.testing.assert_allclose(g.numpy(), 3 * y.numpy(), rtol=1e-6)
    agreement = ((again.numpy() != 0) == kept).mean()
    assert agreement == pytest.approx(p**2 + (1 - p) ** 2, abs=0.003)  # that of independent masks


def test_dropout_follows_the_seed_and_eval():
    layer, x, masks = fast.Dropout(0.5), jt.ones((64, 1024)), []
    assert layer(x).numpy().min() == 1  # off until .train(), as Jittor's
    layer.train()
    for seed in (123456789, 987654321, 123456789):
        jt.sync_all()
        fast.set_seed(seed)
        masks.append(layer(x).numpy())
    np.testing.assert_array_equal(masks[0], masks[2])
    assert (masks[0] != masks[1]).any()
    layer.eval()
    assert layer(x).numpy().min() == 1


# ---- optimizer ----


def quadratic(params, xs, library):
    return (
        sum(((p - x) ** 2).sum() for p, x in zip(params, xs)) + (library.sin(params[0]) * 3).sum()
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"lr": 1e-4, "betas": (0.5, 0.999)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"lr": 0.1}],
)
def test_adam(options):
    options = {"lr": 0.01, **options}
    shapes = [(3, 4), (1,), (2, 3, 3, 3), (160, 130)]
    starts = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    goals = [normal(*shape, seed=9 + i) for i, shape in enumerate(shapes)]
    ours, theirs = (
        [jt.array(v) for v in starts],
        [torch.tensor(v, requires_grad=True) for v in starts],
    )
    optimizer, reference = fast.Adam(ours, **options), torch.optim.Adam(theirs, **options)
    for i in range(10):
        if i == 5:  # a schedule
            optimizer.lr = reference.param_groups[0]["lr"] = options["lr"] / 3
        optimizer.step(quadratic(ours, [jt.array(g) for g in goals], jt))
        reference.zero_grad()
        quadratic(theirs, [torch.tensor(g) for g in goals], torch).backward()
        reference.step()
    for got, expected in zip(ours, theirs):
        np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), atol=1e-6)


def test_adam_goes_on_from_its_state():
    """Ten steps are five, a copy of state and parameters, and five: with this Adam and with Jittor's layout."""

    def train(p, optimizer, n):
        for _ in range(n):
            optimizer.step(((p - 1) ** 4).sum())
        return p.numpy().copy()

    p = jt.array(normal(40, 50))
    optimizer = fast.Adam([p], lr=0.02, betas=(0.5, 0.9))
    half = train(p, optimizer, 5)
    state = copy_state(optimizer.state_dict())
    expected = train(p, optimizer, 5)
    q = jt.array(half)
    resumed = fast.Adam([q], lr=1.0)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(train(q, resumed, 5), expected)
    theirs = nn.Adam([jt.array(half)], lr=1.0)
    assert set(theirs.state_dict()["defaults"]) == set(optimizer.state_dict()["defaults"])


def copy_state(value):
    if isinstance(value, dict):
        return {k: copy_state(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copy_state(v) for v in value]
    return value.numpy().copy() if isinstance(value, jt.Var) else value


def test_adam_accumulates_clips_and_skips_frozen_parameters():
    p, q = jt.array(normal(5)), jt.array(normal(5)).stop_grad()
    before = q.numpy().copy()
    ours, theirs = fast.Adam([p, q], lr=0.1), nn.Adam([r := jt.array(normal(5)), q], lr=0.1)
    for optimizer, v in ((ours, p), (theirs, r)):
        optimizer.backward((v**2).sum())
        optimizer.backward((v**3).sum())
        optimizer.clip_grad_norm(0.5, 2)
        optimizer.step()
    np.testing.assert_allclose(p.numpy(), r.numpy(), atol=1e-5)
    np.testing.assert_array_equal(q.numpy(), before)


def test_adam_keeps_no_graph_from_step_to_step():
    p, counts = jt.array(normal(30, 20)), []
    optimizer = fast.Adam([p], lr=0.1)
    for _ in range(8):
        optimizer.step((p**2).sum())
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    assert counts[-1] == counts[2]
    assert all(
        v.is_stop_grad()
        for v in optimizer.param_groups[0]["m"] + optimizer.param_groups[0]["values"]
    )


def test_adam_leaves_values_alone_that_were_computed_before():
    """Jittor is lazy: what was asked of the old parameters must not see the new ones."""
    p = jt.array(normal(200, 200))
    doubled = p * 2
    expected = 2 * p.numpy()
    fast.Adam([p], lr=0.1).step((p**2).sum())
    jt.sync_all()
    np.testing.assert_array_equal(doubled.numpy(), expected)


def test_ema_update():
    shadow, params = (
        [normal(3, 4), normal(200, 100)],
        [normal(3, 4, seed=1), normal(200, 100, seed=2)],
    )
    s, p = [jt.array(v).stop_grad() for v in shadow], [jt.array(v) for v in params]
    counts = []
    for i in range(10):
        fast.ema_update(s, p, 0.5 + 0.04 * i)
        shadow = [(0.5 + 0.04 * i) * a + (0.5 - 0.04 * i) * b for a, b in zip(shadow, params)]
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    for got, expected in zip(s, shadow):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert counts[-1] == counts[1]  # no graph grows from step to step


def test_equal_runs_give_equal_bits():
    def run():
        x = jt.array(normal(4, 16, 33, 31))
        y = fast.InstanceNorm2d(16)(fast.ReflectionPad2d(2)(fast.BatchNorm(16)(x)))
        return y.numpy(), jt.grad((y**3).sum(), x).numpy()

    for first, second in zip(run(), run()):
        np.testing.assert_array_equal(first, second)


def test_layers_keep_no_graph_from_step_to_step():
    norm = [fast.BatchNorm(4), fast.LeakyReLU(0.2), fast.ReflectionPad2d(1), nn.Conv(4, 4, 3)]
    model = nn.Sequential(*norm, fast.InstanceNorm2d(4), fast.ReLU(), fast.Dropout(0.5))
    model.train()
    weights = [p for p in model.parameters() if not p.is_stop_grad()]
    optimizer, x, counts = fast.Adam(weights, lr=0.1), normal(2, 4, 8, 8), []
    for _ in range(8):
        optimizer.step((model(jt.array(x)) ** 2).sum())
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    assert counts[-1] == counts[2]


def test_tanh_is_right_where_jittors_own_gradient_is_nan():
    x = np.float32([-1000, -100, -45, -3, -0.5, 0, 0.5, 3, 45, 100, 1000])
    mine, theirs = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = fast.Tanh()(mine), torch.tanh(theirs)
    z.sum().backward()
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(jt.grad(y.sum(), mine).numpy(), theirs.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_elu_and_its_gradient(enabled, monkeypatch):
    """exp(x) - 1 below 0, with the gradient exp(x); from x = 89 on, exp(x) overflows."""
    monkeypatch.setattr(kernels, "enabled", enabled)
    x = jt.array([-3.0, -0.5, 0.5, 100.0])
    y = fast.ELU()(x)
    np.testing.assert_allclose(y.numpy(), [*np.expm1([-3, -0.5]), 0.5, 100], rtol=1e-5)
    np.testing.assert_allclose(jt.grad(y.sum(), x).numpy(), [*np.exp([-3, -0.5]), 1, 1], rtol=1e-5)


@pytest.mark.parametrize("layer, peer", [(fast.Tanh(), torch.tanh), (fast.ELU(), functional.elu)])
def test_second_derivatives_of_tanh_and_elu(layer, peer):
    x = normal(5, 7)
    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    g = jt.grad((layer(a) ** 2).sum(), a)
    expected = torch.autograd.grad((peer(t) ** 2).sum(), t, create_graph=True)[0]
    got = jt.grad((g**2).sum(), a).numpy()
    np.testing.assert_allclose(
        got, torch.autograd.grad((expected**2).sum(), t)[0].numpy(), atol=1e-5
    )


@pytest.mark.parametrize("v", [0.0, 1e-45, 1e-40, 1e-38])
def test_adam_survives_a_second_moment_that_has_all_but_vanished(v):
    p = jt.array(normal(100000))
    optimizer = fast.Adam([p], lr=0.1)
    optimizer.param_groups[0]["values"][0].update(jt.array(np.full(100000, v, np.float32)))
    optimizer.step((p * 0).sum())
    np.testing.assert_array_equal(p.numpy(), normal(100000))


@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_adagrad(weight_decay):
    start, goal = normal(3, 4), normal(3, 4, seed=1)
    ours, theirs = jt.array(start), torch.tensor(start, requires_grad=True)
    optimizer = fast.Adagrad([ours], lr=0.1, weight_decay=weight_decay)
    reference = torch.optim.Adagrad([theirs], lr=0.1, weight_decay=weight_decay)
    for _ in range(5):
        optimizer.step(((ours - jt.array(goal)) ** 2).sum())
        reference.zero_grad()
        ((theirs - torch.tensor(goal)) ** 2).sum().backward()
        reference.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=1e-6)


# ---- modulation ----


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_modulation(shape, enabled, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", enabled)
    x, gamma, beta, d = (normal(*shape, seed=seed) for seed in range(4))
    a, both = jt.array(x), jt.array(np.concatenate([gamma, beta], axis=1))
    y = fast.modulate(a, both)
    np.testing.assert_allclose(y.numpy(), x * (1 + gamma) + beta, rtol=1e-5, atol=1e-5)
    dx, dboth = jt.grad((y * jt.array(d)).sum(), [a, both])
    np.testing.assert_allclose(dx.numpy(), d * (1 + gamma), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        dboth.numpy(), np.concatenate([d * x, d], axis=1), rtol=1e-5, atol=1e-5
    )


def test_modulation_refuses_a_second_derivative_and_other_shapes():
    a, both = jt.array(normal(2, 3, 4, 4)), jt.array(normal(2, 6, 4, 4))
    dx = jt.grad((fast.modulate(a, both) ** 2).sum(), a)
    with pytest.raises(RuntimeError, match="second derivative"):
        jt.grad((dx * dx).sum(), both)
    with pytest.raises(
        ValueError, match=r"needs gamma and beta \[2, 6, 4, 4\], got \[2, 3, 4, 4\]"
    ):
        fast.modulate(a, a)


# ---- pooling ----


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("size", "sizes"), [((6, 8), (2, 2, 0)), ((7, 5), (3, 2, 1)), ((4, 4), (3, 1, 1))]
)
def test_avg_pool2d(size, sizes, enabled, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", enabled)
    x = normal(2, 3, *size)
    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    z = functional.avg_pool2d(t, *sizes, count_include_pad=False)
    d = normal(*z.shape, seed=1)
    y = fast.avg_pool2d(a, *sizes)
    grad = jt.grad((y * y * jt.array(d)).sum(), a)
    again = jt.grad((grad * grad).sum(), a)
    (expected,) = torch.autograd.grad((z * z * torch.tensor(d)).sum(), t, create_graph=True)
    (expected_again,) = torch.autograd.grad((expected * expected).sum(), t)
    for got, wanted in ((y, z), (grad, expected), (again, expected_again)):
        np.testing.assert_allclose(got.numpy(), wanted.detach().numpy(), rtol=1e-5, atol=1e-5)


# ---- upsampling ----


@pytest.mark.parametrize("enabled", [True, False])
def test_upsampling_repeats_every_pixel(enabled, monkeypatch):
    monkeypatch.setattr(kernels, "enabled", enabled)
    x, dy = normal(2, 3, 5, 4), normal(2, 3, 10, 8, seed=1)
    a, d = jt.array(x), jt.array(dy)
    y = fast.Upsample(2)(a)
    np.testing.assert_array_equal(y.numpy(), x.repeat(2, axis=2).repeat(2, axis=3))
    grad = jt.grad((y * y * d).sum(), a)  # 2 x times the sum of the four
    sums = dy.reshape(2, 3, 5, 2, 4, 2).sum((3, 5))
    np.testing.assert_allclose(grad.numpy(), 2 * x * sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        jt.grad((grad * grad).sum(), a).numpy(), 8 * x * sums**2, rtol=1e-4, atol=1e-4
    )


def test_upsampling_by_other_factors_is_jittors():
    x = normal(1, 2, 3, 3)
    np.testing.assert_array_equal(
        fast.Upsample(3)(jt.array(x)).numpy(), x.repeat(3, axis=2).repeat(3, axis=3)
    )
