"""cyclegan.py: published numbers, a step against PyTorch, patches, the pool, both directions, pictures, bad input."""

from common.networks import in_chunks, n_parameters

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images, meta, run

import cyclegan as script
import pix2pix
from jittor_fast import nn

TINY = ["--img_size", "32", "--width", "4", "--n_blocks", "1", "--channels", "3"]


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def adam(*modules):
    return nn.Adam(
        [p for module in modules for p in module.parameters()], lr=0.01, betas=(0.5, 0.999)
    )


# ---- the paper ----


def test_parameters_of_the_paper():
    """The authors' PyTorch code prints 11.378 M and 2.765 M (junyanz/pytorch-CycleGAN-and-pix2pix, nine blocks)."""
    counts = [n_parameters(module) / 1e6 for module in script.build(script.parse_args(["--paper"]))]
    assert [round(count, 3) for count in counts] == [11.378, 11.378, 2.765, 2.765]


def test_settings_of_the_paper():
    """Zhu 2017, sections 4 and 7.1."""
    args = script.parse_args(["--paper"])
    assert (args.n_epochs, args.batch_size, args.lr, args.b1, args.b2) == (
        200,
        1,
        0.0002,
        0.5,
        0.999,
    )
    assert (args.decay_epoch, args.decay_until) == (100, 200)
    assert (args.img_size, args.width, args.n_blocks, args.pool_size) == (256, 64, 9, 50)
    assert (args.lambda_cycle, args.lambda_identity, args.ema_decay) == (10, 0, 0)


@pytest.mark.parametrize(
    ("epoch", "decay_until"), [(1, 4), (2, 4), (3, 4), (4, 4), (9, 4), (9, 2), (9, 1)]
)
def test_the_rate_falls_as_that_of_pix2pix(epoch, decay_until):
    one, other = (
        s.learning_rate(epoch, 0.1, decay_epoch=2, decay_until=decay_until)
        for s in (script, pix2pix)
    )
    assert one == other


@pytest.mark.parametrize(
    ("identity", "upsample"), [(0.5, "transpose"), (0.0, "transpose"), (0.5, "resize")]
)
def test_a_step_is_that_of_pytorch(identity, upsample):
    """Losses of both directions by their names, too: the two domains and the two pools differ."""
    twins = pytest.importorskip("tools.twins")
    networks = G, F, D_A, D_B = script.build(script.parse_args([*TINY, "--upsample", upsample]))
    optimizers, twin = (adam(G, F), adam(D_A, D_B)), twins.Twin("cyclegan", write_back=False)
    real_A, real_B, old_A, old_B = (jt.array(pixels(2, 3, 32, 32, seed=seed)) for seed in range(4))
    recalls = [lambda fake, old=old: old for old in (old_A, old_B)]
    weights = {"lambda_cycle": 10.0, "lambda_identity": identity}
    want = twin.train_step(networks, *optimizers, real_A, real_B / 2, *recalls, **weights)
    got = script.train_step(networks, *optimizers, real_A, real_B / 2, *recalls, **weights)
    twins.assert_same_losses(got, want)
    assert len(got) == (8 if identity else 6)
    for module, optimizer in zip(networks, [optimizers[0]] * 2 + [optimizers[1]] * 2):
        twins.assert_same_step(module, twin.module(module), optimizer)


def test_the_distance_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        script.l1_distance(jt.zeros((2, 3)), jt.zeros((2, 1)))


# ---- networks ----


def test_a_score_sees_a_patch_of_70_pixels(monkeypatch):
    """Where its gradient is not zero; without norms, which let every pixel of an image into each score."""
    monkeypatch.setattr(script, "normed", lambda conv: [conv])
    image = jt.array(pixels(1, 1, 128, 128))
    scores = script.PatchGAN(1, 2)(image)
    assert scores.shape == [1, 1, 14, 14]
    rows, columns = np.nonzero(jt.grad(scores[0, 0, 6, 7], image).numpy()[0, 0])
    assert len(rows) == 70 * 70
    assert np.ptp(rows) == np.ptp(columns) == 69


@pytest.mark.parametrize(
    ("flags", "n"), [([], 6), (["--img_size", "256"], 9), (["--n_blocks", "2"], 2)]
)
def test_residual_blocks_follow_the_size(flags, n):
    G, F, *_ = script.build(script.parse_args(["--width", "1", *flags]))
    assert [
        sum(isinstance(m, script.Residual) for m in generator.modules()) for generator in (G, F)
    ] == [n, n]


# ---- the pool ----


def test_pool_by_hand():
    """It fills first; then each image is exchanged for an older one, or passes."""
    rng, pool = np.random.default_rng(0), script.ImagePool(2, (1, 1, 1))
    first = np.float32([1, 2]).reshape(2, 1, 1, 1)
    assert np.array_equal(pool.exchange(jt.array(first), rng).numpy(), first)
    kept, passed, exchanged = [1.0, 2.0], 0, 0
    for value in range(3, 103):
        got = pool.exchange(jt.array(np.full((1, 1, 1, 1), value, np.float32)), rng).item()
        if got == value:
            passed += 1
        else:
            exchanged += 1
            kept[kept.index(got)] = value
        assert sorted(pool.images.numpy().ravel()) == sorted(kept)
    assert 35 <= passed <= 65
    assert passed + exchanged == 100


def test_pool_exchanges_a_batch_one_image_after_the_other():
    """As a pool of numpy arrays would: an image may change places with an earlier one of its own batch."""
    pool, rng, same_rng = (
        script.ImagePool(3, (1, 1, 1)),
        np.random.default_rng(0),
        np.random.default_rng(0),
    )
    kept, of_own_batch = [], 0
    for batch in np.arange(80, dtype=np.float32).reshape(10, 8):
        expected = batch.copy()
        for i, value in enumerate(batch):
            if len(kept) < 3:
                kept.append(value)
            elif same_rng.random() < 0.5:
                k = same_rng.integers(3)
                kept[k], expected[i] = value, kept[k]
        of_own_batch += sum(
            value in batch and value != batch[i] for i, value in enumerate(expected)
        )
        assert (
            pool.exchange(jt.array(batch.reshape(8, 1, 1, 1)), rng).numpy().ravel().tolist()
            == expected.tolist()
        )
        assert pool.images.numpy().ravel().tolist() == kept
    assert of_own_batch > 0


def test_pool_of_size_zero_passes_everything():
    x = np.ones((3, 1, 1, 1), np.float32)
    assert np.array_equal(
        script.ImagePool(0, (1, 1, 1)).exchange(jt.array(x), np.random.default_rng(0)).numpy(), x
    )


# ---- both directions ----


def test_each_direction_has_a_watch(tiny_runs, tmp_path, monkeypatch):
    """With the images of the domain that it translates to, and with that domain's discriminator."""
    seen, data = [], tiny_runs("cyclegan").data
    watch = script.common.Run.watch

    def recorded(self, real, samples="samples", loss=None):
        seen.append((samples, loss, real))
        return watch(self, real, samples, loss)

    monkeypatch.setattr(script.common.Run, "watch", recorded)
    run("cyclegan", *tiny_runs("cyclegan").flags, "--n_epochs", 1, "--out_dir", tmp_path / "run")
    assert [row[:2] for row in seen] == [
        ("translations to A", "loss_D_A"),
        ("translations to B", "loss_D_B"),
    ]
    for letter, (_, _, real) in zip("AB", seen):
        (first, *_) = sorted((data / f"test{letter}").iterdir())
        mean = np.asarray(Image.open(first).convert("L").resize((32, 32))).mean() / 127.5 - 1
        assert np.isclose(real[0].mean(), mean, atol=0.02)


def test_exports_are_both_generators(tiny_runs, tmp_path):
    half = tiny_runs("cyclegan").half
    args = script.parse_args(["--resume", str(half), "--sample_only", "--out_dir", str(tmp_path)])
    x, outputs = pixels(1, args.channels, 32, 32), {}
    for name, module in zip("GF", script.build(args)):
        module.load(str(half / f"{name}_last.pkl"))
        outputs[name] = in_chunks(module, x)
        with np.load(half / "checkpoint_last.npz") as file:
            saved = {k.split("/", 1)[1]: file[k] for k in file.files if k.startswith(f"{name}/")}
        for key, value in module.state_dict().items():
            assert np.array_equal(value.numpy(), saved[key])
    assert not np.allclose(outputs["G"], outputs["F"])
    assert {f"loss_{name}" for name in ("G_AB", "G_BA", "cycle_A", "cycle_B", "D_A", "D_B")} < set(
        meta(half)["losses"]
    )


def test_direction_chooses_the_generator(tiny_runs, tmp_path):
    """--input through G and through F, by hand from the exported weights."""
    half = tiny_runs("cyclegan").half
    Image.fromarray(np.random.default_rng(3).integers(256, size=(32, 32), dtype=np.uint8)).save(
        tmp_path / "x.png"
    )
    args = script.parse_args(["--resume", str(half), "--sample_only"])
    image = np.asarray(Image.open(tmp_path / "x.png"), np.float32)[None, None] / 127.5 - 1
    for direction, name, module in zip(("AtoB", "BtoA"), "GF", script.build(args)):
        module.load(str(half / f"{name}_last.pkl"))
        out = tmp_path / direction
        flags = ["--input", tmp_path / "x.png", "--direction", direction, "--out_dir", out]
        run("cyclegan", "--resume", half, "--sample_only", *flags)
        expected = np.clip((in_chunks(module, image)[0, 0] + 1) * 127.5, 0, 255)
        assert np.abs(np.asarray(Image.open(out / "x.png"), np.float32) - expected).max() <= 1


# ---- translating one's own pictures ----


def test_a_folder_becomes_a_folder_of_the_same_names(tiny_runs, tmp_path):
    half, mine, out = tiny_runs("cyclegan").half, tmp_path / "mine", tmp_path / "out"
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (half / "checkpoint_last.npz").read_bytes()
    run("cyclegan", "--resume", half, "--sample_only", "--input", mine, "--out_dir", out)
    sizes = {str(f.relative_to(out)): Image.open(f).size for f in out.rglob("*") if f.is_file()}
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (half / "checkpoint_last.npz").read_bytes() == before


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
