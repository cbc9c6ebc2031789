"""The layers on all CPU cores against PyTorch, numpy, and Jittor's own."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn as jittor_nn

import jittor_fast
from jittor_fast import call, nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
functional = torch.nn.functional

# The last one is large enough to be shared between the cores.
SHAPES = [(2, 3, 4, 4), (1, 5, 7, 3), (3, 1, 9, 2), (4, 8, 65, 67)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def set_affine(ours, theirs):
    """Gives both norms the same weight and bias."""
    for name, seed in (("weight", 1), ("bias", 2)):
        value = normal(ours.num_features, seed=seed)
        getattr(ours, name).update(jt.array(value))
        getattr(theirs, name).data = torch.tensor(value)


def gradients(ours, theirs, x, d):
    """Both layers' y, dx and weights' gradients for the loss sum(y * d).

    Returns:
        [(Jittor's, PyTorch's), ...] as arrays.
    """
    a = jt.array(x)
    y = ours(a)
    got = [y, *jt.grad((y * jt.array(d)).sum(), [a, *ours.parameters()[:2]])]
    t = torch.tensor(x, requires_grad=True)
    z = theirs(t)
    (z * torch.tensor(d)).sum().backward()
    expected = [z.detach(), t.grad, *(p.grad for p in theirs.parameters())]
    return [(v.numpy(), w.numpy()) for v, w in zip(got, expected)]


# ---- norms ----


@pytest.mark.parametrize("shape", SHAPES)
def test_instance_norm(shape):
    ours = nn.InstanceNorm2d(shape[1])
    theirs = torch.nn.InstanceNorm2d(shape[1], affine=True)
    set_affine(ours, theirs)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (6, 5), (64, 257)])
def test_batch_norm(shape):
    """In training, the running statistics that it leaves, and in evaluation."""
    ours = nn.BatchNorm(shape[1])
    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    theirs = kind(shape[1])
    set_affine(ours, theirs)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        got = getattr(ours, name).numpy()
        expected = getattr(theirs, name).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    ours.eval()
    theirs.eval()
    x = normal(*shape, seed=4)
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(jt.array(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 4, 5, 6)])
def test_norms_of_other_dimensions(shape, enabled, monkeypatch):
    """The aliases BatchNorm1d and 3d, InstanceNorm1d and 3d."""
    monkeypatch.setattr(call, "enabled", enabled)
    dimensions = f"{len(shape) - 2}d"
    for name, options in (("BatchNorm", {}), ("InstanceNorm", {"affine": True})):
        ours = getattr(nn, name + dimensions)(3)
        theirs = getattr(torch.nn, name + dimensions)(3, **options)
        set_affine(ours, theirs)
        for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["BatchNorm", "InstanceNorm2d"])
def test_norms_without_weights(name):
    x = jt.array(normal(3, 4, 5, 6))
    got = getattr(nn, name)(4, affine=False)(x)
    expected = getattr(jittor_nn, name)(4, affine=False)(x)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("norm", [nn.BatchNorm, nn.InstanceNorm2d])
def test_norms_of_a_large_mean(norm):
    """Jittor's own computes E[x^2] - E[x]^2, and loses all digits here."""
    y = norm(2)(jt.array(100 + 0.01 * normal(4, 2, 32, 32))).numpy()
    assert y.std() == pytest.approx(0.95, abs=0.01)  # variance 1e-4, eps 1e-5


@pytest.mark.parametrize("name", ["BatchNorm", "InstanceNorm2d"])
def test_norms_have_jittors_state_and_a_fallback(name, monkeypatch):
    """In Jittor's operators they give the same outputs and running statistics."""
    norm = getattr(nn, name)
    kernel = norm(4)
    assert list(kernel.state_dict()) == list(getattr(jittor_nn, name)(4).state_dict())
    x = jt.array(normal(3, 4, 5, 6))
    expected = kernel(x).numpy()
    state = {name: value.numpy().copy() for name, value in kernel.state_dict().items()}

    monkeypatch.setattr(call, "enabled", False)
    operators = norm(4)
    np.testing.assert_allclose(operators(x).numpy(), expected, atol=1e-5)
    for key, value in operators.state_dict().items():
        np.testing.assert_allclose(value.numpy(), state[key], atol=1e-6, err_msg=key)

    operators.load_state_dict(state)
    operators.eval()
    kernel.eval()
    np.testing.assert_allclose(operators(x).numpy(), kernel(x).numpy(), atol=1e-6)


@pytest.mark.parametrize("norm", [nn.BatchNorm, nn.InstanceNorm2d])
def test_norms_refuse_a_second_derivative_and_other_channels(norm):
    x = jt.array(normal(2, 3, 4, 4))
    g = jt.grad((norm(3)(x) ** 3).sum(), x)
    with pytest.raises(RuntimeError, match="second derivative"):
        jt.grad((g * g).sum(), x)
    with pytest.raises(ValueError, match="channels"):
        norm(1)(x)


# ---- activations ----


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (5, 6)])
@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_leaky_relu(shape, scale):
    ours = nn.ReLU() if scale == 0 else nn.LeakyReLU(scale)
    theirs = torch.nn.LeakyReLU(scale)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("alpha", [1.0, 0.7])
@pytest.mark.parametrize("shape", [*SHAPES, (7,)])
def test_elu(shape, alpha):
    ours = nn.ELU(alpha)
    theirs = torch.nn.ELU(alpha)
    for got, expected in gradients(ours, theirs, normal(*shape), normal(*shape, seed=3)):
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_elu_has_a_gradient_where_exp_overflows(enabled, monkeypatch):
    """That is from x = 89 on. Below 0 it is exp(x) - 1, with the gradient exp(x)."""
    monkeypatch.setattr(call, "enabled", enabled)
    x = jt.array([-3.0, -0.5, 0.5, 100.0])
    y = nn.ELU()(x)
    np.testing.assert_allclose(y.numpy(), [*np.expm1([-3, -0.5]), 0.5, 100], rtol=1e-5)
    slopes = jt.grad(y.sum(), x).numpy()
    np.testing.assert_allclose(slopes, [*np.exp([-3, -0.5]), 1, 1], rtol=1e-5)


def test_tanh_is_right_where_jittors_own_gradient_is_nan():
    x = np.float32([-1000, -100, -45, -3, -0.5, 0, 0.5, 3, 45, 100, 1000])
    ours = jt.array(x)
    y = nn.Tanh()(ours)
    theirs = torch.tensor(x, requires_grad=True)
    z = torch.tanh(theirs)
    z.sum().backward()
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(jt.grad(y.sum(), ours).numpy(), theirs.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("layer, peer", [(nn.Tanh(), torch.tanh), (nn.ELU(), functional.elu)])
def test_second_derivatives_of_tanh_and_elu(layer, peer):
    x = normal(5, 7)
    a = jt.array(x)
    g = jt.grad((layer(a) ** 2).sum(), a)
    got = jt.grad((g**2).sum(), a)
    t = torch.tensor(x, requires_grad=True)
    (h,) = torch.autograd.grad((peer(t) ** 2).sum(), t, create_graph=True)
    (expected,) = torch.autograd.grad((h**2).sum(), t)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("x", [-80.0, -25.0, -1.0, 1.0, 25.0, 80.0])
def test_softplus(x):
    """Its slopes, which are the logistic function's, are exact far below 0, too."""
    var = jt.array([x])
    y = nn.softplus(var)
    assert np.isclose(y.item(), np.logaddexp(0, x), rtol=1e-5, atol=1e-7)
    assert np.isclose(jt.grad(y, var).item(), 1 / (1 + np.exp(-x)), rtol=1e-5)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_softplus_has_beta(beta):
    x = normal(40)
    expected = functional.softplus(torch.tensor(x), beta=beta).numpy()
    np.testing.assert_allclose(nn.softplus(jt.array(x), beta).numpy(), expected, rtol=1e-5)


# ---- padding ----


@pytest.mark.parametrize("padding", [1, 3, (0, 2, 1, 3), 0])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 5, 7, 5), (4, 8, 65, 67)])
def test_reflection_pad(shape, padding):
    ours = nn.ReflectionPad2d(padding)
    theirs = torch.nn.ReflectionPad2d(padding)
    d = normal(*theirs(torch.zeros(shape)).shape, seed=3)
    for got, expected in gradients(ours, theirs, normal(*shape), d):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_reflection_pad_refuses_a_small_image():
    with pytest.raises(ValueError, match="below the size"):
        nn.ReflectionPad2d(3)(jt.zeros((1, 1, 3, 8)))


def test_gradient_penalty_passes_through_activation_and_padding():
    """d/dw of |d critic / dx|^2, in a critic of these layers, as PyTorch has it."""
    w = normal(4, 3, 3, 3)
    x = normal(2, 3, 6, 6)
    a = jt.array(x)
    v = jt.array(w)
    h = nn.LeakyReLU(0.2)(jittor_nn.conv2d(nn.ReflectionPad2d(1)(a), v))
    g = jt.grad((h**2).sum(), a)
    got = jt.grad((g**2).sum(), [a, v])

    t = torch.tensor(x, requires_grad=True)
    u = torch.tensor(w, requires_grad=True)
    padded = functional.pad(t, (1, 1, 1, 1), mode="reflect")
    h = functional.leaky_relu(functional.conv2d(padded, u), 0.2)
    (g,) = torch.autograd.grad((h**2).sum(), t, create_graph=True)
    for ours, theirs in zip(got, torch.autograd.grad((g**2).sum(), [t, u])):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-3)


# ---- pooling ----

POOLS = [((6, 8), (2, 2, 0)), ((7, 5), (3, 2, 1)), ((5, 5), (3, 1, 1))]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("size", "sizes"), POOLS)
def test_avg_pool2d(size, sizes, counted, enabled, monkeypatch):
    """Values, first and second derivatives, with the padding in the means or not."""
    monkeypatch.setattr(call, "enabled", enabled)
    x = normal(2, 3, *size)
    t = torch.tensor(x, requires_grad=True)
    z = functional.avg_pool2d(t, *sizes, count_include_pad=counted)
    d = normal(*z.shape, seed=1)
    (expected,) = torch.autograd.grad((z * z * torch.tensor(d)).sum(), t, create_graph=True)
    (expected_again,) = torch.autograd.grad((expected * expected).sum(), t)

    a = jt.array(x)
    y = nn.avg_pool2d(a, *sizes, count_include_pad=counted)
    grad = jt.grad((y * y * jt.array(d)).sum(), a)
    again = jt.grad((grad * grad).sum(), a)
    for got, wanted in ((y, z), (grad, expected), (again, expected_again)):
        np.testing.assert_allclose(got.numpy(), wanted.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "count_include_pad": False},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ],
)
def test_avg_pool2d_has_jittors_arguments(options):
    x = normal(2, 3, 8, 8)
    expected = functional.avg_pool2d(torch.tensor(x), **options).numpy()
    np.testing.assert_allclose(nn.avg_pool2d(jt.array(x), **options).numpy(), expected, atol=1e-6)


# ---- upsampling ----


@pytest.mark.parametrize("enabled", [True, False])
def test_upsampling_repeats_every_pixel(enabled, monkeypatch):
    monkeypatch.setattr(call, "enabled", enabled)
    x = normal(2, 3, 5, 4)
    dy = normal(2, 3, 10, 8, seed=1)
    a = jt.array(x)
    y = nn.Upsample(2)(a)
    np.testing.assert_array_equal(y.numpy(), x.repeat(2, axis=2).repeat(2, axis=3))
    grad = jt.grad((y * y * jt.array(dy)).sum(), a)  # 2 x times the sum of the four
    sums = dy.reshape(2, 3, 5, 2, 4, 2).sum((3, 5))
    np.testing.assert_allclose(grad.numpy(), 2 * x * sums, rtol=1e-5, atol=1e-5)
    again = jt.grad((grad * grad).sum(), a).numpy()
    np.testing.assert_allclose(again, 8 * x * sums**2, rtol=1e-4, atol=1e-4)


def test_upsampling_by_other_factors_is_jittors():
    x = normal(1, 2, 3, 3)
    expected = x.repeat(3, axis=2).repeat(3, axis=3)
    np.testing.assert_array_equal(nn.Upsample(3)(jt.array(x)).numpy(), expected)


# ---- dropout ----


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.9])
def test_dropout(p):
    layer = nn.Dropout(p)
    layer.train()
    jt.set_global_seed(1 << 29)
    x = jt.ones((512, 1000))
    y = layer(x)
    again = layer(x)
    g = jt.grad((y * 3).sum(), x)
    kept = y.numpy() != 0
    assert kept.mean() == pytest.approx(1 - p, abs=0.003)  # 4 standard deviations
    # columns vary as binomials do
    assert abs(kept.mean(0).std() / np.sqrt(p * (1 - p) / 512) - 1) < 0.1
    np.testing.assert_allclose(y.numpy(), kept / (1 - p), rtol=1e-6)
    np.testing.assert_allclose(g.numpy(), 3 * y.numpy(), rtol=1e-6)
    agreement = ((again.numpy() != 0) == kept).mean()
    assert agreement == pytest.approx(p**2 + (1 - p) ** 2, abs=0.003)  # independent masks


def test_dropout_follows_the_seed_and_eval():
    layer = nn.Dropout(0.5)
    x = jt.ones((64, 1024))
    assert layer(x).numpy().min() == 1  # off until .train(), as Jittor's
    layer.train()
    masks = []
    for seed in (123456789, 987654321, 123456789):
        jt.sync_all()
        jittor_fast.set_seed(seed)
        masks.append(layer(x).numpy())
    np.testing.assert_array_equal(masks[0], masks[2])
    assert (masks[0] != masks[1]).any()
    layer.eval()
    assert layer(x).numpy().min() == 1


# ---- all of them ----


def test_equal_runs_give_equal_bits():
    def run():
        x = jt.array(normal(4, 16, 33, 31))
        y = nn.InstanceNorm2d(16)(nn.ReflectionPad2d(2)(nn.BatchNorm(16)(x)))
        return y.numpy(), jt.grad((y**3).sum(), x).numpy()

    for first, second in zip(run(), run()):
        np.testing.assert_array_equal(first, second)


def test_layers_keep_no_graph_from_step_to_step():
    model = nn.Sequential(
        nn.BatchNorm(4),
        nn.LeakyReLU(0.2),
        nn.ReflectionPad2d(1),
        jittor_nn.Conv(4, 4, 3),
        nn.InstanceNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
    )
    model.train()
    optimizer = nn.Adam([p for p in model.parameters() if not p.is_stop_grad()], lr=0.1)
    x = normal(2, 4, 8, 8)
    counts = []
    for _ in range(8):
        optimizer.step((model(jt.array(x)) ** 2).sum())
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_vars"])
    assert counts[-1] == counts[2]
