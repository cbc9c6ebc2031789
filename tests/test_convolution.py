"""Convolutions by all their ways, against numbers worked out by hand and against PyTorch's; which way is taken."""

import json
from fractions import Fraction

import jittor as jt
import numpy as np
import pytest
from jittor import nn

import jittor_fast as fast
from jittor_fast import convolution, kernels, ways, winograd

# images, inputs, height, width, outputs, kernel, stride, padding
SHAPES = [
    (2, 5, 8, 8, 7, 3, 1, 1),
    (3, 4, 7, 9, 6, 3, 1, 0),  # odd sizes: tiles reach beyond the output
    (1, 4, 6, 6, 8, 3, 1, 2),  # output larger than the input
    (2, 3, 8, 8, 4, 4, 2, 1),
    (2, 6, 9, 11, 4, 4, 2, 1),  # the last row and column of the input are in no patch
    (3, 2, 4, 4, 3, 4, 2, 0),  # a single output for each image
    (1, 4, 40, 50, 8, 4, 2, 1),  # more tiles than a chunk
    (2, 6, 9, 7, 3, 4, 1, 1),  # fewer outputs than inputs: mirrored columns
]
COVERED = [
    (3, 5, 4, 4, 6, 4, 1, 0),
    (2, 4, 3, 3, 1, 3, 2, 0),
]  # the filter is as large as the image
OTHER = [
    (1, 3, 12, 11, 4, 7, 1, 3),
    (2, 2, 9, 9, 5, 3, 2, 1),
    (1, 5, 8, 7, 2, 7, 1, 0),
    (1, 3, 5, 5, 2, 1, 1, 0),
]
ALL_WAYS = ("direct", "columns", "winograd2", "winograd4")


def taking(way, monkeypatch):
    """Lets all convolutions take this way, and gives the list of the operations that took it."""
    calls = []

    def forced(shapes, result, functions):
        assert way in shapes.possible()
        calls.append(result)
        return way

    monkeypatch.setattr(ways, "fastest", forced)
    return calls


def layer_of(cls, weight, **options):
    """A layer with these weights, (outputs, inputs, k, k) or for a transposed one (inputs, outputs, k, k)."""
    first, second = np.shape(weight)[:2]
    inputs, outputs = (second, first) if cls is fast.Conv else (first, second)
    layer = cls(inputs, outputs, np.shape(weight)[2], bias=False, **options)
    layer.weight.update(jt.array(np.asarray(weight, np.float32)))
    return layer


@pytest.mark.parametrize("way", ALL_WAYS)
def test_by_hand_3x3(way, monkeypatch):
    calls = taking(way, monkeypatch)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    # The sums of the 3 x 3 windows of 0 .. 15; then the pixel that lies below to the right of the window's centre.
    got = layer_of(fast.Conv, np.ones((1, 1, 3, 3)))(jt.array(x)).numpy()
    np.testing.assert_allclose(got, [[[[45, 54], [81, 90]]]], rtol=1e-5)
    corner = np.zeros((1, 1, 3, 3))
    corner[0, 0, 2, 2] = 1
    np.testing.assert_allclose(
        layer_of(fast.Conv, corner)(jt.array(x)).numpy(), [[[[10, 11], [14, 15]]]], rtol=1e-5
    )
    assert calls == ["y", "y"]


@pytest.mark.parametrize("way", ALL_WAYS)
def test_by_hand_4x4_with_stride_2(way, monkeypatch):
    calls = taking(way, monkeypatch)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    ones = np.ones((1, 1, 4, 4))
    # With a border of zeros each window holds 3 x 3 pixels: those around 5, 6, 9 and 10.
    got = layer_of(fast.Conv, ones, stride=2, padding=1)(jt.array(x)).numpy()
    np.testing.assert_allclose(got, [[[[45, 54], [81, 90]]]], rtol=1e-5)
    # Transposed: each of the 2 x 2 numbers spreads over 4 x 4 pixels, two apart; the border is cut off.
    y = np.array([[[[1, 2], [3, 4]]]], np.float32)
    got = layer_of(fast.ConvTranspose, ones, stride=2, padding=1)(jt.array(y)).numpy()
    np.testing.assert_allclose(
        got, [[[[1, 3, 3, 2], [4, 10, 10, 6], [4, 10, 10, 6], [3, 7, 7, 4]]]], rtol=1e-5
    )
    assert calls == ["y", "x"]


@pytest.mark.parametrize(("tile", "taps"), [(2, 2), (2, 3), (2, 4), (4, 2), (4, 3)])
def test_winograds_matrices_give_the_filter_exactly(tile, taps):
    d, g = (
        [Fraction(i * i - 7) for i in range(tile + taps - 1)],
        [Fraction(2 * i + 3) for i in range(taps)],
    )
    b_rows, g_rows, a_rows = winograd.matrices(tile, taps)
    products = [
        sum(map(Fraction.__mul__, b, d)) * sum(map(Fraction.__mul__, r, g))
        for b, r in zip(b_rows, g_rows)
    ]
    outputs = [sum(row[i] * m for row, m in zip(a_rows, products)) for i in range(tile)]
    assert outputs == [sum(d[i + j] * g[j] for j in range(taps)) for i in range(tile)]


def cases():
    for shape in SHAPES + OTHER:
        for way in ALL_WAYS:
            tiled = {(3, 1): ALL_WAYS, (4, 2): ALL_WAYS, (4, 1): ALL_WAYS[:3]}.get(
                shape[5:7], ALL_WAYS[:2]
            )
            if way in tiled:
                yield shape, way
    yield from ((shape, way) for shape in COVERED for way in ("direct", "columns", "product"))


# kernel, stride and padding down and across
OBLONG = [((1, 5), 1, (0, 2)), ((3, 1), (2, 1), (1, 0)), (3, (1, 2), 1), ((2, 3), 1, 0)]
DIRECT = [(2, 5, 9, 12, 4, *sizes) for sizes in OBLONG]


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("shape", "way"), [*cases(), *((shape, "direct") for shape in DIRECT)])
def test_values_and_both_derivatives(name, shape, way, monkeypatch):
    calls = taking(way, monkeypatch)
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    images, inputs, height, width, outputs, k, stride, padding = shape
    if shape in COVERED and name == "ConvTranspose":
        height = width = 1  # from one pixel to an image
    jt.set_global_seed(0)  # a sum that nearly cancels would be off by more of its own size
    ours = getattr(fast, name)(inputs, outputs, k, stride=stride, padding=padding)
    theirs = getattr(torch.nn, f"{name}2d")(inputs, outputs, k, stride=stride, padding=padding)
    theirs.weight.data, theirs.bias.data = (
        torch.tensor(v.numpy()) for v in (ours.weight, ours.bias)
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, inputs, height, width), dtype=np.float32)
    u = rng.standard_normal(tuple(ours.weight.shape), dtype=np.float32)

    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(t)
    d = rng.standard_normal(tuple(z.shape), dtype=np.float32)
    parts = jt.grad((jt.tanh(y) * jt.array(d)).sum(), [a, ours.weight, ours.bias])
    again = jt.grad((parts[0] ** 2).sum() + (parts[1] * jt.array(u)).sum(), [a, ours.weight])
    loss = (torch.tanh(z) * torch.tensor(d)).sum()
    expected = torch.autograd.grad(loss, [t, theirs.weight, theirs.bias], create_graph=True)
    scalar = (expected[0] ** 2).sum() + (expected[1] * torch.tensor(u)).sum()
    expected_again = torch.autograd.grad(scalar, [t, theirs.weight])
    for got, wanted in zip([y, *parts, *again], [z, *expected, *expected_again]):
        wanted = wanted.detach().numpy()
        np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert set(calls) == {"x", "y", "w"}


@pytest.mark.parametrize("way", ["direct", "columns"])
def test_a_transposed_convolution_with_output_padding(way, monkeypatch):
    """As CycleGAN's, from odd and even sizes to their doubles; the bias is in the last row and column, too."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    calls = taking(way, monkeypatch)
    jt.set_global_seed(0)
    sizes = {"stride": 2, "padding": 1, "output_padding": 1}
    ours, theirs = fast.ConvTranspose(5, 3, 3, **sizes), torch.nn.ConvTranspose2d(5, 3, 3, **sizes)
    theirs.weight.data, theirs.bias.data = (
        torch.tensor(v.numpy()) for v in (ours.weight, ours.bias)
    )
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 6), dtype=np.float32)
    a, t = jt.array(x), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(t)
    assert tuple(y.shape) == tuple(z.shape) == (2, 3, 14, 12)
    got = [y, *jt.grad(jt.tanh(y).sum(), [a, ours.weight, ours.bias])]
    expected = [z, *torch.autograd.grad(torch.tanh(z).sum(), [t, theirs.weight, theirs.bias])]
    for one, other in zip(got, expected):
        other = other.detach().numpy()
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=2e-5 * np.abs(other).max())
    assert set(calls) == {"x", "y", "w"}


def test_what_the_kernels_cannot_do_is_left_to_jittor(monkeypatch):
    calls = taking("direct", monkeypatch)
    image = jt.array(np.ones((2, 8, 8, 8), np.float32))
    for other in (
        fast.Conv(8, 8, 3, padding=1, groups=2),
        fast.Conv(8, 8, 3, padding=2, dilation=2),
        fast.ConvTranspose(8, 8, 3, dilation=2),
    ):
        other(image)
    assert not calls


def shapes_of(inputs, outputs, size, k=3, stride=1, images=1):
    out = size // stride
    x, y = (images, inputs, size, size), (images, outputs, out, out)
    return convolution.Shapes(x, (outputs, inputs, k, k), y, stride, (k - stride + 1) // 2)


def test_the_likely_way():
    assert shapes_of(3, 64, 128, 4, 2).likely() == "columns"  # an image comes in
    assert shapes_of(64, 3, 128, 7).likely() == "columns"  # an image comes out
    assert shapes_of(256, 256, 32).likely() == "winograd4"
    assert (
        shapes_of(512, 512, 12, images=2).likely() == "winograd2"
    )  # 18 tiles of 4 x 4, 72 of 2 x 2
    assert shapes_of(256, 512, 32, 4).likely() == "winograd2"
    assert shapes_of(1024, 1024, 4).likely() == "direct"  # 4 tiles
    assert shapes_of(64, 64, 16).likely() == "direct"  # too small to matter
    assert convolution.Shapes((2, 8, 4, 4), (9, 8, 4, 4), (2, 9, 1, 1), 1, 0).likely() == "product"


class Clock:
    """Ways that take given numbers of seconds, by a clock of their own."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.runs = 0.0, dict.fromkeys(seconds, 0)
        self.functions = {way: self.way(way, duration) for way, duration in seconds.items()}
        monkeypatch.setattr(ways.time, "perf_counter", lambda: self.now)

    def way(self, name, duration):
        def run(shapes, result, first, second):
            self.now += duration
            self.runs[name] += 1
            return first

        return run


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing timed yet, and a folder of its own for what is kept."""
    monkeypatch.setattr(ways, "path", lambda: tmp_path / "kept.json")
    monkeypatch.setattr(ways, "WORTH_TIMING", 100)
    ways.known.cache_clear()
    yield tmp_path / "kept.json"
    ways.known.cache_clear()


def test_the_fastest_is_taken_and_kept(fresh, monkeypatch):
    layer = shapes_of(8, 8, 6)
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert ways.fastest(layer, "y", clock.functions) == "winograd2"
    assert clock.runs["columns"] == 3  # once untimed; after two rounds it is left out
    assert clock.runs["winograd2"] == 1 + ways.N_ROUNDS
    assert json.loads(fresh.read_text()) == {"y 1 8 6 6 8 8 3 3 6 6 1 1": "winograd2"}

    ways.known.cache_clear()  # as in another run
    slow = Clock(monkeypatch, direct=0.001, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert ways.fastest(layer, "y", slow.functions) == "winograd2"
    assert sum(slow.runs.values()) == 0
    assert ways.fastest(layer, "x", slow.functions) == "direct"


def test_a_small_lead_over_the_likely_way_does_not_count(fresh, monkeypatch):
    clock = Clock(monkeypatch, direct=0.0100, columns=0.0095, winograd2=0.02, winograd4=0.02)
    assert shapes_of(8, 8, 6).likely() == "direct"
    assert ways.fastest(shapes_of(8, 8, 6), "w", clock.functions) == "direct"


def test_one_disturbed_round_does_not_exclude_a_way(fresh, monkeypatch):
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.020, winograd4=0.020)
    fast_way, calls = clock.functions["winograd2"], []

    def disturbed(*args):
        calls.append(None)
        clock.now += (
            0.5 if len(calls) == 2 else -0.015
        )  # the first timed call; the others take 5 ms
        return fast_way(*args)

    assert (
        ways.fastest(shapes_of(8, 8, 6), "y", clock.functions | {"winograd2": disturbed})
        == "winograd2"
    )


def test_other_kernels_are_timed_anew(tmp_path, monkeypatch):
    kept = ways.path()
    assert ways.kernels() in kept.name
    for name in ("columns", "convolution", "winograd"):
        (tmp_path / f"{name}.py").write_text("other")
    monkeypatch.setattr(ways, "__file__", str(tmp_path / "ways.py"))
    ways.kernels.cache_clear()
    other = ways.path()
    ways.kernels.cache_clear()
    assert other != kept and other.parent == kept.parent


def test_what_another_run_kept_first_holds(fresh, monkeypatch):
    key = "y 1 8 6 6 8 8 3 3 6 6 1 1"
    assert ways.known() == {}
    fresh.write_text(
        json.dumps({key: "columns"})
    )  # written by a run that began later and was faster
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert ways.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "columns"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"y 1 8 6 6 8 8 3 3 6 6 1 1": "nonsense"}'])
def test_a_damaged_file_is_timed_anew(text, fresh, monkeypatch):
    fresh.write_text(text)
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert ways.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "winograd2"


def test_small_layers_and_unwritable_folders_run(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, direct=0.010, columns=0.001, winograd2=0.007, winograd4=0.008)
    assert ways.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "direct"
    assert sum(clock.runs.values()) == 0
    monkeypatch.setattr(ways, "path", lambda: tmp_path / "absent" / "kept.json")
    monkeypatch.setattr(ways, "WORTH_TIMING", 100)
    ways.known.cache_clear()
    assert ways.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "columns"
    ways.known.cache_clear()


def test_timing_leaves_the_unfinished_graph_alone(fresh, monkeypatch):
    pending = jt.array(np.ones((3, 3), np.float32)) * 2
    ways.timed(shapes_of(8, 8, 6), "y", convolution.WAYS)
    assert ",0)[" in pending.debug_msg()  # no memory yet
    assert pending.numpy().tolist() == [[2, 2, 2]] * 3
    assert ",0)[" not in pending.debug_msg()


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_is_jittors_layer_otherwise(name, monkeypatch):
    ours, plain = (getattr(module, name)(64, 64, 3, padding=1) for module in (fast, nn))
    values = {key: v.numpy() for key, v in plain.named_parameters()}
    assert set(values) == {"weight", "bias"}
    ours.load_state_dict(values)
    x = jt.array(np.random.default_rng(0).standard_normal((2, 64, 8, 8), dtype=np.float32))
    expected = plain(x).numpy()
    np.testing.assert_allclose(
        ours(x).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    monkeypatch.setattr(convolution, "onednn_is_loaded", lambda: False)
    np.testing.assert_array_equal(ours(x).numpy(), expected)


def test_wrong_channels_are_refused_as_by_jittor(monkeypatch):
    calls = taking("direct", monkeypatch)
    for layer in (fast.Conv(4, 4, 3), fast.ConvTranspose(4, 4, 3)):
        with pytest.raises((AssertionError, RuntimeError)):
            layer(jt.array(np.ones((1, 5, 8, 8), np.float32))).sync()
    assert not calls


@pytest.mark.parametrize("way", ALL_WAYS)
def test_equal_calls_give_equal_bits(way, monkeypatch):
    taking(way, monkeypatch)
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((4, 64, 16, 16), dtype=np.float32))
    layer = fast.Conv(64, 96, 4, stride=2, padding=1)
    results = []
    for _ in range(3):
        y = layer(x)
        results.append([v.numpy() for v in (y, *jt.grad((y**2).sum(), [x, layer.weight]))])
    for result in results[1:]:
        for got, expected in zip(result, results[0]):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("enabled", [True, False])
def test_together_is_each_layer_by_itself(enabled, monkeypatch):
    """Outputs, and the gradients for the input and for all weights and biases, against PyTorch's separate layers."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of this test")
    monkeypatch.setattr(kernels, "enabled", enabled)
    rng = np.random.default_rng(0)
    x, d = (rng.standard_normal((2, c, 6, 7), dtype=np.float32) for c in (4, 8))
    ours = [fast.Conv(4, outputs, 3, padding=1) for outputs in (5, 3)]
    theirs = [torch.nn.Conv2d(4, outputs, 3, padding=1) for outputs in (5, 3)]
    for a, b in zip(ours, theirs):
        a.load_state_dict({name: value.detach().numpy() for name, value in b.named_parameters()})
    x_ours, x_theirs = jt.array(x), torch.tensor(x, requires_grad=True)
    y = fast.together(x_ours, *ours)
    z = torch.cat([layer(x_theirs) for layer in theirs], dim=1)
    (z * torch.tensor(d)).sum().backward()
    parameters = [p for layer in ours for p in (layer.weight, layer.bias)]
    got = [y, *jt.grad((y * jt.array(d)).sum(), [x_ours, *parameters])]
    expected = [z, x_theirs.grad, *(p.grad for layer in theirs for p in (layer.weight, layer.bias))]
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-4)
