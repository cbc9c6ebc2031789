"""biggan.py: published sizes, layers by hand, truncation, a step against PyTorch."""

import jittor as jt
import numpy as np
import pytest

import biggan as script
from jittor_fast import nn
from tools.describe import n_parameters

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
twins = pytest.importorskip("tools.twins")
F = torch.nn.functional

TINY = [
    *("--width", "2", "--latent_dim", "8", "--shared_dim", "5"),
    *("--channels", "3", "--n_classes", "4"),
]
N = 6


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def labels(seed=0):
    return jt.array(np.random.default_rng(seed).integers(0, 4, N).astype(np.int32))


@pytest.fixture
def networks():
    """Small networks whose attention has an influence, as after some training."""
    networks = script.build(script.parse_args(TINY))
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, script.Attention):
                layer.gamma.assign(jt.array(np.float32([0.7])))
    return networks


# ---- the published setting ----


def build_lazily(flags, monkeypatch):
    """Networks without their initial weights, which would take minutes at this size."""
    monkeypatch.setattr(script, "initialize", lambda network: None)
    return script.build(script.parse_args(flags))


def test_parameters_of_the_paper(monkeypatch):
    """Those that google/compare_gan's resnet_biggan.py lists and tests.

    Without the embedding of 1,000 classes they are the total in the notes of the
    authors' PyTorch code.
    """
    generator, discriminator = build_lazily(["--paper"], monkeypatch)
    assert n_parameters(generator) == 70_433_988
    assert n_parameters(discriminator) == 87_982_370
    assert 70_433_988 - 1000 * 128 + 87_982_370 == 158_288_358


def test_parameters_at_256_pixels(monkeypatch):
    """Of the same list: z of 7 x 20, attention at 128 pixels in G and at 64 in D.

    D there has no 1 x 1 convolution in the block that keeps its 768 channels, although
    it halves the image; the authors' PyTorch code has it.
    """
    flags = ["--paper", "--img_size", "256", "--latent_dim", "140"]
    _, discriminator = build_lazily(flags, monkeypatch)
    generator, _ = build_lazily([*flags, "--attention", "128"], monkeypatch)
    assert n_parameters(generator) == 82_097_604
    assert n_parameters(discriminator) == 98_635_298 + 768 * 769


@pytest.mark.parametrize("size", [32, 64])
def test_sizes(size):
    args = script.parse_args([*TINY, "--img_size", str(size), "--latent_dim", "20"])
    generator, discriminator = script.build(args)
    images = generator(jt.array(normal(2, 20)), jt.array(np.int32([0, 3])))
    assert images.shape == [2, 3, size, size]
    assert np.abs(images.numpy()).max() <= 1
    assert discriminator(images, jt.array(np.int32([0, 3]))).shape == [2]


def test_attention_is_at_its_size():
    """Behind the block of G and behind that of D whose images have this size."""
    for size, after, index in ((8, 0, 2), (16, 1, 1)):
        args = script.parse_args([*TINY, "--attention", str(size)])
        generator, discriminator = script.build(args)
        assert generator.attention_after == after
        layers = discriminator.layers
        found = [i for i in range(len(layers)) if isinstance(layers[i], script.Attention)]
        assert found == [index]
    generator, discriminator = script.build(script.parse_args([*TINY, "--attention", "0"]))
    for network in (generator, discriminator):
        assert not any(isinstance(layer, script.Attention) for layer in network.modules())


# ---- layers ----


@pytest.mark.parametrize("name", ["DoublingConv", "HalvingConv"])
def test_convolutions_that_change_the_size(name):
    """A 4 x 4 filter with stride 2 equals doubling or halving around a 3 x 3 filter."""
    layer = getattr(script, name)(3, 5)
    weight = normal(5, 3, 3, 3)
    bias = normal(5, seed=1)
    layer.weight.assign(jt.array(weight))
    layer.bias.assign(jt.array(bias))
    x = torch.tensor(normal(2, 3, 6, 6, seed=2))
    found = layer(jt.array(x.numpy())).numpy()
    if name == "DoublingConv":
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(x, torch.tensor(weight), torch.tensor(bias), padding=1)
    if name == "HalvingConv":
        expected = F.avg_pool2d(expected, 2)
    assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_conditional_batch_norm_by_hand():
    """Values 1 and 3 become -1 and 1; then (1 + W_g c) h + W_b c for each image."""
    layer = script.ConditionalBatchNorm(2, 1)
    layer.train()
    layer.gain.conv.weight.assign(jt.array(np.float32([[3, 4]])))
    layer.bias.conv.weight.assign(jt.array(np.float32([[0, 2]])))
    x = jt.array(np.float32([1, 3]).reshape(2, 1, 1, 1))
    conditions = jt.array(np.float32([[1, 0], [0, 1]]))
    found = layer(x, conditions).numpy().ravel()
    # Spectral norm divides (3, 4) by 5 and (0, 2) by 2: gains 1.6 and 1.8, biases 0, 1.
    assert np.allclose(found, [-1.6, 1.8 + 1], atol=1e-4)


def test_attention_by_loops():
    layer = script.Attention(8)
    layer.eval()
    layer.gamma.assign(jt.array(np.float32([0.5])))
    x = normal(2, 8, 4, 6)
    weights = {}
    for name in ("theta", "phi", "g", "out"):
        norm = getattr(layer, name)
        weight = norm.conv.weight
        weights[name] = (weight / norm.sigma(weight)).numpy()[:, :, 0, 0]
    expected = x.copy()
    for n in range(2):
        theta, phi, g = (
            np.einsum("oc,chw->ohw", weights[name], x[n]) for name in ("theta", "phi", "g")
        )
        phi = phi.reshape(1, 2, 2, 3, 2).max((2, 4)).reshape(1, 6)
        g = g.reshape(4, 2, 2, 3, 2).max((2, 4)).reshape(4, 6)
        for i in range(4):
            for j in range(6):
                products = theta[:, i, j] @ phi
                beta = np.exp(products) / np.exp(products).sum()
                expected[n, :, i, j] += 0.5 * weights["out"] @ (g @ beta)
    assert np.allclose(layer(jt.array(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_attention_starts_as_the_identity():
    x = normal(2, 8, 4, 4)
    assert np.array_equal(script.Attention(8)(jt.array(x)).numpy(), x)


def test_each_block_gets_its_piece_of_z(networks):
    """z's last piece reaches the last block alone, and the class all of them."""
    generator, _ = networks
    generator.eval()
    inputs = []

    class Spy:
        def __init__(self, block):
            self.block = block

        def __call__(self, x, conditions):
            inputs.append(conditions.numpy())
            return self.block(x, conditions)

    generator.blocks = [Spy(block) for block in generator.blocks]
    z = normal(N, 8)
    images = generator(jt.array(z), labels()).numpy()
    e = generator.embedding(labels()).numpy()
    for i, conditions in enumerate(inputs):
        assert np.array_equal(conditions, np.concatenate([e, z[:, 2 * i + 2 : 2 * i + 4]], 1))
    drawn = generator.draw(jt.array(z), jt.array(e)).numpy()
    assert np.allclose(drawn, images, atol=1e-6)


def test_the_score_is_a_projection(networks):
    """psi(h) + <v(y), h>, both weights over their largest singular values."""
    _, discriminator = networks
    discriminator.eval()
    images = jt.array(normal(N, 3, 32, 32))
    h = discriminator.layers(images).numpy().sum((2, 3))
    v = discriminator.embedding.conv.weight.numpy()
    v = v / discriminator.embedding.sigma(jt.array(v)).item()
    psi = discriminator.psi.conv.weight.numpy()
    psi = psi / np.linalg.norm(psi)
    y = labels().numpy()
    expected = (h @ psi.T)[:, 0] + (v[y] * h).sum(1)  # the bias starts at 0
    found = discriminator(images, labels()).numpy()
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_are_sums_over_all_pixels(networks):
    """Behind the last ReLU, so none of them is negative."""
    _, discriminator = networks
    assert discriminator.layers(jt.array(normal(N, 3, 32, 32))).numpy().min() >= 0


# ---- initial weights ----


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (40, 4), (6, 6)])
def test_orthogonal_weights(shape):
    """W W^T = I, or W^T W = I where W is taller than wide."""
    W = script.orthogonal(shape)
    assert W.shape == shape
    W = W.reshape(shape[0], -1)
    products = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    assert np.allclose(products, np.eye(len(products)), atol=1e-5)


def test_all_directions_are_equally_likely():
    """Without the signs of R, diagonal elements of Q would mostly be negative."""
    jt.set_global_seed(12345)
    diagonals = [np.diag(script.orthogonal((3, 3))) for _ in range(400)]
    assert np.abs(np.mean(diagonals, axis=0)).max() < 0.12  # four standard errors


def test_all_weights_start_orthogonal(networks):
    n_found = 0
    for network in networks:
        for name, value in network.named_parameters():
            if name.endswith("weight") and value.ndim > 1:
                n_found += 1
                W = value.numpy().reshape(len(value), -1)
                W = W if W.shape[0] <= W.shape[1] else W.T
                assert np.allclose(W @ W.T, np.eye(len(W)), atol=1e-5), name
            elif name.endswith("conv.bias"):
                assert not value.numpy().any(), name
    assert n_found > 40


# ---- losses ----


def test_the_losses_by_hand():
    real = jt.array(np.float32([2, 0.5]))
    fake = jt.array(np.float32([-3, 1]))
    assert script.discriminator_loss(real, fake).item() == pytest.approx(0.5 / 2 + 2 / 2)
    assert script.generator_loss(fake).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(jt.zeros((2, 1)), jt.zeros(2))


class TwoWeights(nn.Module):
    """One weight that counts, and the embedding, which does not."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.embedding = nn.Embedding(2, 3)
        self.norm = nn.BatchNorm(3)


def test_non_orthogonality_by_hand():
    """Rows (1, 2, 0) and (3, 1, 1): their product 5 is twice beside the diagonal."""
    network = TwoWeights()
    weight = np.float32([[1, 2, 0], [3, 1, 1]])
    network.linear.weight.assign(jt.array(weight))
    penalty = script.non_orthogonality(network)
    assert penalty.item() == pytest.approx(50)
    gradient = jt.grad(penalty, network.linear.weight).numpy()
    # 4 (W W^T without its diagonal) W
    assert np.allclose(gradient, 4 * np.float32([[0, 5], [5, 0]]) @ weight)


# ---- truncation ----


def test_no_value_is_beyond_the_threshold():
    for threshold in (0.04, 0.5, 2.0):
        z = script.truncated_noise(np.random.default_rng(0), 500, 8, threshold)
        assert z.shape == (500, 8) and z.dtype == np.float32
        assert np.abs(z).max() <= threshold


def test_truncated_noise_is_a_truncated_normal():
    """Its variance is 1 - 2 t p(t) / P(|z| < t): 0.2911 for t = 1, 0.7737 for 2."""
    for threshold, variance in ((1.0, 0.2911), (2.0, 0.7737)):
        z = script.truncated_noise(np.random.default_rng(0), 20000, 8, threshold)
        assert np.isclose(z.var(), variance, rtol=0.02)
        assert abs(z.mean()) < 0.01


def test_values_within_the_threshold_stay():
    whole = script.truncated_noise(np.random.default_rng(0), 100, 8, None)
    z = script.truncated_noise(np.random.default_rng(0), 100, 8, 1.0)
    is_inside = np.abs(whole) <= 1
    assert np.array_equal(z[is_inside], whole[is_inside])
    assert not np.isclose(z[~is_inside], whole[~is_inside]).any()


# ---- against PyTorch ----


@pytest.mark.parametrize("ortho_weight", [0.0, 0.01])
def test_step_against_pytorch(networks, ortho_weight):
    optimizers = tuple(
        nn.Adam(network.parameters(), lr=0.001, betas=(0.0, 0.999)) for network in networks
    )
    arguments = (
        networks,
        optimizers,
        jt.array(normal(N, 3, 32, 32, seed=5)),
        labels(1),
        (jt.array(normal(N, 8, seed=6)), labels(2)),
        (jt.array(normal(N, 8, seed=7)), labels(3)),
    )
    twin = twins.Twin("biggan", write_back=False)
    expected = twin.train_step(*arguments, ortho_weight=ortho_weight)
    found = script.train_step(*arguments, ortho_weight=ortho_weight)
    assert ("non_orthogonality" in found) == (ortho_weight > 0)
    twins.assert_same_losses(found, expected)
    for network, optimizer in zip(networks, optimizers):
        twins.assert_same_step(network, twin.module(network), optimizer)


def test_without_inputs_g_stays(networks):
    """All but what each pass through it changes: statistics, and power iterations."""
    optimizers = tuple(nn.SGD(network.parameters(), lr=0.1) for network in networks)
    before = [{k: v.numpy() for k, v in n.named_parameters()} for n in networks]
    losses = script.train_step(
        networks,
        optimizers,
        jt.array(normal(N, 3, 32, 32)),
        labels(1),
        (jt.array(normal(N, 8)), labels()),
        ortho_weight=0.1,
    )
    assert losses.keys() == {"loss_D"}
    moved = [
        {k for k, v in network.named_parameters() if not np.array_equal(v.numpy(), old[k])}
        for network, old in zip(networks, before)
    ]
    assert all(name.endswith(twins.STATISTICS) for name in moved[0])
    assert "layers.0.conv_1.conv.weight" in moved[1]


# ---- flags ----


def test_the_grid_has_a_row_for_each_class():
    args = script.parse_args(["--n_classes", "3"])
    assert script.labels_of_grid(args).tolist() == [0] * 10 + [1] * 10 + [2] * 10
    args = script.parse_args(["--n_classes", "1000"])
    assert script.labels_of_grid(args).reshape(-1, 10)[:, 0].tolist() == list(range(20))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 48], "--img_size"),
        (["--latent_dim", 81], "multiple of 4, such as 80 or 84"),
        (["--truncation", 0], "--truncation"),
        (["--attention", 24], "--attention"),
        (["--attention", 32], "at most half of --img_size 32"),
        (["--width", 1], "--width"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
