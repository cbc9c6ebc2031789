"""tools/judges/texts.py: right answers, wrong ones, and untrained networks."""

from common.data import captions, faces
from common.data.toy import drawn

import math

import jittor as jt
import numpy as np
import pytest
from registry import captioned, run
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import face_classifier, texts

SMALL = ("--width_G", "4", "--width_D", "4", "--img_size", "32", "--text_dim", "8")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_untrained_run_and_one_that_paints_what_is_asked(tmp_path, monkeypatch):
    """The second one paints digits of the data in the looks that are asked for."""
    folder = str(write_untrained_run("text2img", tmp_path / "run", *SMALL))
    poor = evaluate.main(["text2img", folder, "--n_steps", "60"])
    assert poor["all four"] < 0.1
    assert poor["variety"] < 0.1
    assert poor["retrieval"] < 0.5

    asked = captions.combinations(held_out=True)
    pixels, labels = drawn.bundled_digits("test")
    real_predict = texts.predict

    def predict(network, *arrays):
        is_generator = len(arrays) == 2
        if not is_generator:
            return real_predict(network, *arrays)
        looks = np.repeat(asked, len(arrays[0]) // len(asked), axis=0)
        chosen = [np.flatnonzero(labels == look[0])[i % 50] for i, look in enumerate(looks)]
        return captions.paint(pixels[chosen], looks[:, 1:], 32).astype(np.float32) / 127.5 - 1

    monkeypatch.setattr(texts, "predict", predict)
    perfect = evaluate.main(["text2img", folder, "--n_steps", "60"])
    assert perfect["the asked colour"] == 1
    assert perfect["the asked ground"] == 1
    assert perfect["the asked digit"] > 0.8
    assert perfect["the asked stroke"] > 0.9
    assert 0.8 < perfect["variety"] < 1.2


class Pixels:
    """A classifier that reads the six traits in the first pixels of an image."""

    size = 32
    description = "pixels"

    def __call__(self, images):
        return images[:, 0, 0, :6].astype(int)


def test_a_run_on_faces_that_forgets_beards_and_one_without_variety(tmp_path, monkeypatch):
    """Of the 218 different test faces, it draws real ones, but none with a beard."""
    folder = str(write_untrained_run("text2img", tmp_path / "run", *SMALL, "--data_dir", "faces"))
    different = np.unique(faces.read_faces("test").attributes, axis=0)
    assert len(different) == 218
    asked = face_classifier.traits(different, threshold=0.5)
    real_images = faces.Drawings.images
    shape = (218 * 5 * 2, 3, 32, 32)  # of two pictures for each of five captions
    noise = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    captions_asked = []

    def images(self, img_size, channels):
        pixels = real_images(self, img_size, channels)[:].copy()
        pixels[:, :, 0, :6] = face_classifier.traits(self.attributes, threshold=0.5)[:, None]
        return pixels

    def predict(network, *arrays):
        if len(arrays) == 1:  # the text encoder
            captions_asked[:] = [bytes(row.tolist()).rstrip(b"\0").decode() for row in arrays[0]]
            return arrays[0]
        drawn_pixels = noise.copy() if varies else np.zeros_like(noise)
        wrong = asked.copy()
        wrong[:, 4] = 0
        drawn_pixels[:, :, 0, :6] = np.repeat(wrong, 10, axis=0)[:, None]
        return drawn_pixels.astype(np.float32) / 127.5 - 1

    monkeypatch.setattr(texts, "N_PER_TEXT", 2)
    monkeypatch.setattr(texts, "predict", predict)
    monkeypatch.setattr(face_classifier, "of_faces", lambda n_steps: Pixels())
    monkeypatch.setattr(texts, "retrieval_rows", lambda *args: [])
    monkeypatch.setattr(faces.Drawings, "images", images)
    varies = True
    table = evaluate.main(["text2img", folder])
    assert captions_asked[::10] == [faces.describe(face)[0] for face in different]
    assert captions_asked[8::10] == [faces.describe(face)[4] for face in different]
    beards = different[:, faces.ATTRIBUTES.index("Beard")].mean()
    assert 0.1 < beards < 0.5
    assert table["the asked hair"] == table["the asked hat"] == 1
    assert table["the asked beard"] == pytest.approx(1 - beards)
    assert table["all six"] == pytest.approx(1 - beards)
    assert table["variety"] > 1
    varies = False
    assert evaluate.main(["text2img", folder])["variety"] == 0


def test_both_stages_are_judged(tmp_path, monkeypatch):
    """The run of one step of stage II on the built-in data; few looks are asked for."""
    real_combinations = texts.combinations

    def few_combinations(held_out):
        return real_combinations(held_out)[:3]

    monkeypatch.setattr(texts, "combinations", few_combinations)
    flags = ["--img_size", "32", "--width_G", "4", "--width_D", "2", "--n_blocks", "1"]
    flags += ["--text_dim", "8", "--latent_dim", "4", "--batch_size", "200", "--n_epochs", "1"]
    flags += ["--text_epochs", "0", "--stage1_epochs", "0", "--n_images", "200"]
    run("stackgan", *flags, "--out_dir", tmp_path / "run")
    table = evaluate.main(["stackgan", str(tmp_path / "run"), "--n_steps", "1"])
    for stage in ("stage I", "stage II"):
        assert 0 <= table[f"{stage}: the asked digit"] <= 1
        assert table[f"{stage}: variety"] >= 0
    assert 0 <= table["retrieval"] <= 1


def test_own_data_are_judged_by_retrieval_alone(tmp_path):
    captioned(tmp_path / "data")
    flags = ["--data_dir", str(tmp_path / "data"), "--channels", "1"]
    folder = str(write_untrained_run("text2img", tmp_path / "run", *SMALL, *flags))
    assert set(evaluate.main(["text2img", folder])) == {"retrieval", "median rank"}


class NumberedImages:
    """Data whose i-th item has the text i and an image of i + `moved`."""

    def __init__(self, n, moved):
        self.captions = [[f"{i:03d}"] for i in range(n)]
        self.moved = moved

    def __len__(self):
        return len(self.captions)

    def batch(self, indices):
        return (np.float32(indices)[:, None] + self.moved,)


@pytest.mark.parametrize(
    ("n", "moved", "top", "rank"), [(50, 0, 1, 1), (50, 2.7, 0, 6), (230, 0, 1, 1)]
)
def test_retrieval_by_hand(n, moved, top, rank):
    """Captions stand on a circle, and each image `moved` places further.

    At 2.7, the five captions after the right one are nearer.
    """

    def encode_places(places):
        angles = places * (2 * math.pi / n)
        return jt.concat([jt.cos(angles), jt.sin(angles)], dim=1)

    def encode_texts(texts):
        figures = (texts[:, :3] - ord("0")).float32() * jt.array(np.float32([100, 10, 1]))
        return encode_places(figures.sum(dim=1, keepdims=True))

    found = texts.retrieval_rows(encode_texts, encode_places, NumberedImages(n, moved))
    rows = {name: (value, of) for name, value, of in found}
    assert rows["retrieval"][0] == top
    assert rows["median rank"][0] == rank
    among = min(n, 100)
    expected = f"{n} images, each among {among} captions; chance {1 / among:.3f}"
    assert expected in rows["retrieval"][1]


def test_grey_digits_cannot_be_judged(tmp_path, fails):
    folder = write_untrained_run("text2img", tmp_path / "run", *SMALL, "--channels", "1")
    code, line = fails(evaluate.main, ["text2img", folder])
    assert code == 2
    assert "draws grey images" in line
