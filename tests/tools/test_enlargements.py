"""tools/judges/enlargements.py: figures by hand, runs, photographs, digits."""

from common.data import resolution
from common.data.toy import scenes

import numpy as np
import pytest
from PIL import Image
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import enlargements, metrics

SMALL = ("--width", "4", "--n_blocks", "1", "--img_size", "32")


@pytest.fixture(autouse=True)
def few_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scenes, "N_SCENES", {"train": 30, "test": 20})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


# ---- figures ----


def test_luma_of_pure_colours():
    """BT.601 for 8 bits: black 16, white 235, red 81, green 145, blue 41."""
    colours = np.uint8([[[0, 0, 0], [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    assert metrics.luma(colours)[0, :, 0].tolist() == [16, 235, 81, 145, 41]
    grey = noise(4, 5, 1)
    assert np.array_equal(metrics.luma(grey), grey)


def test_figures_of_two_greys_by_hand():
    """Grey 100 has luma 101.88, and 110 has 110.47: 102 and 110, which differ by 8.

    Of two constant images, SSIM is (2 a b + c) / (a^2 + b^2 + c), c = (0.01 * 255)^2.
    """
    one = np.full((20, 20, 3), 100, np.uint8)
    other = np.full((20, 20, 3), 110, np.uint8)
    psnr, ssim, *energies = enlargements.compare(one, other, 4)
    assert psnr == pytest.approx(10 * np.log10(255**2 / 64))
    c = 2.55**2
    assert ssim == pytest.approx((2 * 102 * 110 + c) / (102**2 + 110**2 + c))
    assert energies == [0, 0]


def test_figures_against_formulas():
    one = noise(24, 20, 3)
    other = noise(24, 20, 3, seed=1)

    def luma(image):
        r, g, b = image.astype(float).transpose(2, 0, 1) / 255
        return np.round(16 + 65.481 * r + 128.553 * g + 24.966 * b)[2:-2, 2:-2]

    a = luma(one)
    b = luma(other)
    psnr, ssim, energy, energy_of_original = enlargements.compare(one, other, 2)
    assert psnr == pytest.approx(20 * np.log10(255) - 10 * np.log10(np.mean((a - b) ** 2)))
    assert ssim == pytest.approx(metrics.ssim(np.uint8(a)[..., None], np.uint8(b)[..., None]))
    for found, y in ((energy, a), (energy_of_original, b)):
        expected = 0
        for i in range(19):
            for j in range(15):
                expected += (y[i, j + 1] - y[i, j]) ** 2 + (y[i + 1, j] - y[i, j]) ** 2
        assert found == pytest.approx(expected / (19 * 15))


def test_a_border_does_not_count():
    one = noise(24, 24, 3)
    other = one.copy()
    other[:, -3:] = 0
    other[:3] = 0
    psnr, ssim, energy, energy_of_original = enlargements.compare(other, one, 3)
    assert (psnr, ssim) == (100, pytest.approx(1))
    assert energy == energy_of_original
    assert enlargements.compare(other, one, 2)[0] < 30


# ---- pairs of files ----


def save(folder, *images):
    folder.mkdir()
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return str(folder)


def test_pairs_by_their_luma(tmp_path, fails):
    a = noise(30, 40, 3)
    b = noise(30, 40, 3, seed=1)
    one = save(tmp_path / "one", a, b)
    other = save(tmp_path / "other", b, b)
    found = evaluate.main([one, other, "--features", "none", "--luma", "4"])
    expected = enlargements.compare(a, b, 4)
    assert found["PSNR of luma"] == pytest.approx((expected[0] + 100) / 2)
    assert found["SSIM of luma"] == pytest.approx((expected[1] + 1) / 2)
    assert found["sharpness"] == pytest.approx((expected[2] / expected[3] + 1) / 2)
    smaller = save(tmp_path / "smaller", a, b[:20])
    code, line = fails(evaluate.main, [smaller, other, "--features", "none", "--luma", "4"])
    assert code == 2
    assert "1.png is 40 x 20 in A and 40 x 30 in B" in line
    code, line = fails(evaluate.main, [one, other, "--features", "none", "--luma", "10"])
    assert code == 2
    assert "40 x 30 pixels are too few; with a border of 10 left out, both sides need 31" in line
    named = save(tmp_path / "named", a)
    code, line = fails(evaluate.main, [named, other, "--features", "none", "--luma", "1"])
    assert code == 2
    assert "no files with the same names" in line


# ---- runs ----


def perfect(monkeypatch, originals):
    """A generator that returns the originals, (N, C, H, W) uint8, in their order."""
    remaining = [original.astype(np.float32) / 127.5 - 1 for original in originals]

    def predict(network, images):
        return np.stack([remaining.pop(0) for _ in images])

    monkeypatch.setattr(enlargements, "predict", predict)


def test_scenes_untrained_and_perfect(tmp_path, monkeypatch):
    folder = str(write_untrained_run("srgan", tmp_path / "run", *SMALL))
    argv = ["srgan", folder, "--n_steps", "1"]
    poor = evaluate.main(argv)
    test = scenes.Scenes(32, 32, "test")
    originals = [test.load(index)[1] for index in range(20)]
    perfect(monkeypatch, originals)
    good = evaluate.main(argv)
    assert good["enlarged: PSNR of luma"] == 100
    assert good["enlarged: SSIM of luma"] == pytest.approx(1)
    assert good["enlarged: sharpness"] == pytest.approx(1)
    assert good["enlarged: digits read right"] == good["originals: digits read right"]
    assert poor["enlarged: PSNR of luma"] < poor["bicubic: PSNR of luma"]
    assert poor["bicubic: sharpness"] < 0.8

    values = []
    for original in originals:
        small = resolution.shrink(original, 4)
        large = resolution.resize(small, (32, 32)).transpose(1, 2, 0)
        values.append(enlargements.compare(large, original.transpose(1, 2, 0), 4)[:2])
    expected = np.mean(values, axis=0)
    for run in (poor, good):
        found = [run["bicubic: PSNR of luma"], run["bicubic: SSIM of luma"]]
        assert found == pytest.approx(expected, rel=1e-3)


def test_photographs(tmp_path, monkeypatch, fails):
    """They are cropped to multiples of 4; one that is too small is refused."""
    folder = str(write_untrained_run("srgan", tmp_path / "run", *SMALL))
    images = [noise(30, 43, 3), noise(24, 24, 3, seed=1)]
    photos = save(tmp_path / "photos", *images)
    monkeypatch.setattr("srgan.TILE", 128)  # one tile, and the picture padded to it
    padded = []
    for image in images:
        cropped = image[: len(image) // 4 * 4, : image.shape[1] // 4 * 4].transpose(2, 0, 1)
        height, width = cropped.shape[1:]
        margins = [(0, 0), (0, 512 - height), (0, 512 - width)]
        padded.append(np.pad(cropped, margins))
    perfect(monkeypatch, padded)
    found = evaluate.main(["srgan", folder, "--photos", photos])
    assert found["enlarged: PSNR of luma"] == 100
    assert found["enlarged: sharpness"] == pytest.approx(1)
    assert 10 < found["bicubic: PSNR of luma"] < 30
    assert "classifier" not in found
    photos = save(tmp_path / "tiny", noise(18, 30, 3))
    code, line = fails(evaluate.main, ["srgan", folder, "--photos", photos])
    assert code == 2
    assert "0.png: 28 x 16 pixels are too few" in line


def test_a_run_of_faces_has_no_digits(tmp_path):
    folder = write_untrained_run("srgan", tmp_path / "run", *SMALL, "--data_dir", "faces")
    found = evaluate.main(["srgan", str(folder)])
    assert "bicubic: SSIM of luma" in found and "classifier" not in found


# ---- digits in scenes ----


def test_digits_that_are_covered_are_left_out():
    data = scenes.Scenes(64, 64, "train")
    shares = []
    for index in range(len(data)):
        labels, visible = enlargements.visible_digits(data, index)
        assert np.array_equal(labels, data.load(index)[0])
        _, placed = data.draw_map(data.rng_of(index))
        last = placed[-1]  # nothing can cover it
        assert [last.top, last.left] in [[one.top, one.left] for one in visible]
        shares.append(len(visible) / len(placed))
        for one in visible:
            ink = one.cut(labels)[one.shape]
            assert np.mean(ink == scenes.FIRST_DIGIT + one.digit) >= 0.9
    assert 0.4 < np.mean(shares) < 0.9


def test_the_classifiers_digits_have_the_looks_of_others():
    """A map of a single digit is painted in all ten colours."""
    data = scenes.Scenes(32, 32, "train")
    labels = np.full((32, 32), scenes.SKY, np.uint8)
    labels[8:24, 8:24] = scenes.FIRST_DIGIT + 3
    hues = set()
    for k in range(60):
        picture = enlargements.painted_otherwise(labels, data, np.random.default_rng(k))
        inside = picture[:, 8:24, 8:24].reshape(3, -1).mean(1)
        assert np.abs(picture[:, 8:24, 8:24].mean((1, 2)) - picture[:, :4].mean((1, 2))).max() > 1
        hues.add(tuple(np.round(inside / 40).astype(int)))
    assert len(hues) > 10
