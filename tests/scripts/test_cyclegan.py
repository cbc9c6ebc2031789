"""cyclegan.py: published sizes, one step against PyTorch, the pool, both directions."""

import common

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import run

import cyclegan as script
from jittor_fast import nn

TINY = ["--img_size", "32", "--width", "4", "--n_blocks", "1", "--channels", "3"]


def pixels(*shape, seed=0):
    """Random values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


# ---- the paper ----


def test_parameters_of_the_paper():
    """The authors' PyTorch code prints 11.378 M and 2.765 M, with nine blocks.

    github.com/junyanz/pytorch-CycleGAN-and-pix2pix
    """
    networks = script.build(script.parse_args(["--paper"]))
    counts = [round(n_parameters(network) / 1e6, 3) for network in networks]
    assert counts == [11.378, 11.378, 2.765, 2.765]


@pytest.mark.parametrize(
    ("identity", "upsample"), [(0.5, "transpose"), (0.0, "transpose"), (0.5, "resize")]
)
def test_step_against_pytorch(identity, upsample):
    """The domains and the pools differ, so a swapped direction would be found.

    The L1 distance and ReLU have kinks, where rounding decides about a gradient. With
    these seeds no value lies so near to one.
    """
    twins = pytest.importorskip("tools.twins")
    networks = script.build(script.parse_args([*TINY, "--upsample", upsample]))
    G, F, D_A, D_B = networks
    betas = (0.5, 0.999)
    optimizer_G = nn.Adam(G.parameters() + F.parameters(), lr=0.01, betas=betas)
    optimizer_D = nn.Adam(D_A.parameters() + D_B.parameters(), lr=0.01, betas=betas)
    real_A = jt.array(pixels(2, 3, 32, 32, seed=12))
    real_B = jt.array(pixels(2, 3, 32, 32, seed=13) / 2)
    older_A = jt.array(pixels(2, 3, 32, 32, seed=14))
    older_B = jt.array(pixels(2, 3, 32, 32, seed=15))

    arguments = [
        networks,
        (optimizer_G, optimizer_D),
        real_A,
        real_B,
        lambda fake: older_A,
        lambda fake: older_B,
    ]
    weights = {"lambdas": (10.0, 4.0), "lambda_identity": identity}
    twin = twins.Twin("cyclegan", write_back=False)
    expected = twin.train_step(*arguments, **weights)
    found = script.train_step(*arguments, **weights)
    twins.assert_same_losses(found, expected)
    assert len(found) == (8 if identity else 6)
    for network in (G, F):
        twins.assert_same_step(network, twin.module(network), optimizer_G)
    for network in (D_A, D_B):
        twins.assert_same_step(network, twin.module(network), optimizer_D)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], (10, 10)), (["--lambda_cycle", 3], (3, 3)), (["--lambda_B", 4], (10, 4))],
)
def test_weights_of_the_cycles(tiny_runs, tmp_path, monkeypatch, flags, expected):
    seen = []
    step = script.train_step

    def train_step(*args, lambdas, **options):
        seen.append(lambdas)
        return step(*args, lambdas=lambdas, **options)

    monkeypatch.setattr(script, "train_step", train_step)
    run("cyclegan", *tiny_runs("cyclegan").flags, *flags, "--out_dir", tmp_path)
    assert set(seen) == {expected}


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.l1_distance(jt.zeros((2, 3)), jt.zeros((2, 1)))
    _, _, D_A, _ = script.build(script.parse_args(TINY))
    with pytest.raises(ValueError, match="different shapes"):
        script.discriminator_loss(D_A, jt.zeros((2, 3, 32, 32)), jt.zeros((1, 3, 32, 32)))


# ---- networks ----


def test_a_score_depends_on_a_patch_of_70_pixels(monkeypatch):
    """There its gradient is not zero.

    Instance norm is left out: it makes each score depend on the whole image.
    """
    monkeypatch.setattr(script.nn, "InstanceNorm2d", lambda *args, **options: nn.Identity())
    image = jt.array(pixels(1, 1, 128, 128))
    scores = script.PatchGAN(1, 2)(image)
    assert scores.shape == [1, 1, 14, 14]
    rows, columns = np.nonzero(jt.grad(scores[0, 0, 6, 7], image).numpy()[0, 0])
    assert len(rows) == 70 * 70
    assert np.ptp(rows) == 69
    assert np.ptp(columns) == 69


@pytest.mark.parametrize(
    ("flags", "n"), [([], 6), (["--img_size", "256"], 9), (["--n_blocks", "2"], 2)]
)
def test_number_of_residual_blocks(flags, n):
    G, F, _, _ = script.build(script.parse_args(["--width", "1", *flags]))
    for generator in (G, F):
        blocks = [m for m in generator.modules() if isinstance(m, script.Residual)]
        assert len(blocks) == n


# ---- the pool ----


def values(*numbers):
    """Images of one pixel each, as a Jittor variable (B, 1, 1, 1)."""
    return jt.array(np.float32(numbers).reshape(-1, 1, 1, 1))


def test_the_pool_fills_and_then_exchanges():
    """Half of the later images pass; each other one returns an image of the pool."""
    rng = np.random.default_rng(0)
    pool = script.ImagePool(2, (1, 1, 1))
    assert pool.exchange(values(1, 2), rng).numpy().ravel().tolist() == [1, 2]
    kept = [1.0, 2.0]
    n_passed = 0
    for value in range(3, 103):
        found = pool.exchange(values(value), rng).item()
        if found == value:
            n_passed += 1
        else:
            kept[kept.index(found)] = value
        assert sorted(pool.state_dict()["images"].ravel()) == sorted(kept)
    assert 35 <= n_passed <= 65


def test_the_pool_takes_a_batch_one_image_after_the_other():
    """An image can be exchanged for an earlier one of its own batch."""
    rng = np.random.default_rng(0)
    same_rng = np.random.default_rng(0)
    pool = script.ImagePool(3, (1, 1, 1))
    kept = []
    n_of_own_batch = 0
    for batch in np.arange(80, dtype=np.float32).reshape(10, 8):
        expected = []
        for value in batch:
            if len(kept) < 3:
                kept.append(value)
                expected.append(value)
            elif same_rng.random() < 0.5:
                k = same_rng.integers(3)
                expected.append(kept[k])
                kept[k] = value
            else:
                expected.append(value)
        found = pool.exchange(values(*batch), rng)
        assert found.numpy().ravel().tolist() == expected
        assert pool.state_dict()["images"].ravel().tolist() == kept
        n_of_own_batch += sum(e != own and e in batch for e, own in zip(expected, batch))
    assert n_of_own_batch > 0


def test_a_pool_of_size_zero_passes_everything():
    pool = script.ImagePool(0, (1, 1, 1))
    found = pool.exchange(values(1, 2, 3), np.random.default_rng(0))
    assert found.numpy().ravel().tolist() == [1, 2, 3]


# ---- both directions ----


@pytest.mark.parametrize(("direction", "name"), [("AtoB", "G"), ("BtoA", "F")])
def test_direction_chooses_the_generator(tiny_runs, tmp_path, direction, name):
    """--input through G and through F, compared with the exported weights."""
    half = tiny_runs("cyclegan").half
    picture = np.random.default_rng(3).integers(256, size=(32, 32), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    flags = ["--input", tmp_path / "x.png", "--direction", direction, "--out_dir", tmp_path / "o"]
    run("cyclegan", "--resume", half, "--sample_only", *flags)

    G, F, _, _ = script.build(script.parse_args(["--resume", str(half), "--sample_only"]))
    generator = G if name == "G" else F
    generator.load(str(half / f"{name}_last.pkl"))
    image = np.float32(picture)[None, None] / 127.5 - 1
    translation = common.predict(generator, image)[0, 0]
    expected = np.clip((translation + 1) * 127.5, 0, 255)
    found = np.asarray(Image.open(tmp_path / "o/x.png"), np.float32)
    assert np.abs(found - expected).max() <= 1


# ---- bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--img_size", 50], "such as 48 or 52"),
        (["--n_samples", 5], "--n_samples"),
        (["--input", "x"], "--input needs --sample_only"),
        (["--direction", "AtoC"], "--direction"),
    ],
)
def test_bad_flags(fails, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line
