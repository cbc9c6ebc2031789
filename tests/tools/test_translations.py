"""tools/judges/translations.py: right answers, unchanged images, untrained networks."""

from common.data.toy import drawn

import numpy as np
import pytest
from conftest import write_idx_folder
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import image_sets, translations

SMALL = ("--width", "4", "--img_size", "32")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_pix2pix_untrained_and_perfect(tmp_path, monkeypatch):
    folder = str(write_untrained_run("pix2pix", tmp_path / "run", *SMALL))
    poor = evaluate.main(["pix2pix", folder])
    assert poor["painted in the colour of its class"] < 0.5
    assert poor["L1 / L1 of the best constant picture"] > 1

    _, paintings, _ = drawn.outline_pairs(32, "test")
    monkeypatch.setattr(translations, "translated", lambda *args, seed: paintings)
    perfect = evaluate.main(["pix2pix", folder])
    assert perfect["painted in the colour of its class"] == 1
    assert perfect["L1"] == 0
    assert perfect["L1 / L1 of the best constant picture"] == 0


def test_stargan_perfect_and_without_any_change(tmp_path, monkeypatch):
    """Perfect except for the thickness of the strokes.

    Without a change, the ground is wrong after one change of five. Three changes ask
    for a colour, which one image in three has already; the place of the colour is wrong
    after the last change.
    """
    flags = ("--data_dir", "digits", "--n_blocks", "1", "--selected_attrs", *drawn.ATTRIBUTES)
    folder = write_untrained_run("stargan", tmp_path / "run", *SMALL, *flags)
    _, attributes, _ = drawn.coloured_digits(32, "test")
    is_inverted = attributes[:, 4] == 1

    def repainted(generator, images, targets):
        ink = translations.strokes(images, is_inverted)[:, None]
        colour = targets[:, :3].argmax(1)
        paint = drawn.ATTRIBUTE_COLOURS[colour][:, :, None, None]
        inverted = paint + (255.0 - paint) * ink
        return np.uint8(np.where(targets[:, 4, None, None, None] == 1, inverted, paint * ink))

    argv = ["stargan", str(folder), "--n_steps", "1"]
    monkeypatch.setattr(translations, "translated", repainted)
    perfect = evaluate.main(argv)
    assert perfect["the asked colour"] == 1
    assert perfect["the asked ground"] == 1

    monkeypatch.setattr(translations, "translated", lambda generator, images, targets: images)
    unchanged = evaluate.main(argv)
    assert unchanged["the asked ground"] == pytest.approx(4 / 5)
    assert 2 / 5 <= unchanged["the asked colour"] <= 3 / 5
    assert unchanged["  after a change of bold"] == unchanged["before any change, read right"]


def test_cyclegan_without_any_change(tmp_path, monkeypatch):
    flags = ("--channels", "1", "--n_blocks", "1")
    folder = write_untrained_run("cyclegan", tmp_path / "run", *SMALL, *flags)
    monkeypatch.setattr(translations, "translated", lambda generator, images: images)
    found = evaluate.main(["cyclegan", str(folder), "--n_steps", "1"])
    (white, _), (inked, _) = drawn.digit_domains(32, "test", 1)
    ratio = white.mean() / inked.mean()
    assert found["A to B: brighter than the domain by"] == pytest.approx(ratio - 1)
    assert found["B to A: brighter than the domain by"] == pytest.approx(1 / ratio - 1)
    assert 0 <= found["A to B: read as the same digit"] <= 1


def test_usps_is_judged_by_five_classifiers(tmp_path, monkeypatch):
    """On digits that are grey levels, after one step of training."""
    monkeypatch.setattr(translations, "N_HELD", 20)
    labels = np.arange(40, dtype=np.uint8) % 10
    pixels = np.broadcast_to(labels[:, None, None] * np.uint8(25), (40, 16, 16))
    usps = write_idx_folder(tmp_path / "usps", np.ascontiguousarray(pixels), labels)
    flags = ("--channels", "1", "--n_blocks", "1")
    folder = write_untrained_run("cyclegan", tmp_path / "run", *SMALL, *flags)
    monkeypatch.setattr(translations, "translated", lambda generator, images: images)
    found = evaluate.main(["usps", str(folder), "--usps", str(usps), "--n_steps", "1"])
    as_they_are = found["MNIST's test digits as they are, read right"]
    assert found["in the style of USPS, read as the same digit"] == as_they_are
    as_they_are = found["USPS digits, read by a classifier of MNIST"]
    assert found["the same, in the style of MNIST"] == as_they_are
    cache = tmp_path / "cache" / "jittor-gan-collection"
    assert len(list(cache.iterdir())) == 5 + 1  # of USPS, and one of MNIST


def test_what_cannot_be_judged_is_refused(tmp_path, fails):
    folder = write_untrained_run("pix2pix", tmp_path / "back", *SMALL, "--direction", "BtoA")
    other = write_untrained_run("pix2pix", tmp_path / "other", *SMALL, "--data_dir", "facades")
    drawn_faces = write_untrained_run("pix2pix", tmp_path / "f", *SMALL, "--data_dir", "faces")
    for argv, message in {
        ("pix2pix", folder): "--direction BtoA",
        ("pix2pix", other): "was trained on facades",
        ("pix2pix", drawn_faces): "only the built-in digits can be judged",
        ("stargan", folder): "was written by pix2pix.py, not by stargan.py",
        ("usps", folder): "needs --usps",
        ("cyclegan", tmp_path): "no checkpoint",
    }.items():
        code, line = fails(evaluate.main, argv)
        assert code == 2
        assert message in line


def test_strokes_and_colours_are_found_in_the_built_in_data():
    images, attributes, _ = drawn.coloured_digits(32, "test")
    is_inverted = attributes[:, 4] == 1
    ink = translations.strokes(images, is_inverted)
    colours = translations.nearest_colour(images, ink, is_inverted)
    assert (colours == attributes[:, :3].argmax(1)).all()
    assert ((translations.brightness_of_border(images) > 128) == is_inverted).all()
    assert 0.05 < (ink > 0.5).mean() < 0.4  # the digit and not its ground, in both kinds


def test_about_half_of_every_class_is_bold():
    digits = image_sets.digits("train", None, 32)
    is_bold = (translations.half_bold(digits.images) != digits.images).any((1, 2, 3))
    shares = [is_bold[digits.labels == k].mean() for k in range(10)]
    assert 0.4 < min(shares) <= max(shares) < 0.6
