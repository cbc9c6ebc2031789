"""The judge of faces: right answers, unchanged images, what it refuses."""

from common.data import faces

import numpy as np
import pytest
from untrained import write_untrained_run

import stargan as script
from tools import evaluate
from tools.judges import face_classifier, translations

SMALL = ("--width", "4", "--img_size", "32", "--n_blocks", "1")
CHANGED = ("Red_Hair", "Blue_Hair", "Eyeglasses")
NAMES = list(face_classifier.TRAITS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def values(*names):
    row = np.zeros(len(faces.ATTRIBUTES), np.float32)
    row[[faces.ATTRIBUTES.index(name) for name in names]] = 1
    return row


def test_traits_by_hand():
    rows = np.stack(
        [
            values("Longhaired", "Red_Hair", "Eyeglasses", "Skin_Dark"),
            values("Brown_Hair", "Beard", "Wearing_Hat", "Smiling", "Skin_Light"),
        ]
    )
    by_name = {name: column.tolist() for name, column in zip(NAMES, traits(rows).T)}
    assert by_name == {
        "hair": [3, 0],
        "skin": [2, 0],
        "length": [1, 0],
        "glasses": [1, 0],
        "beard": [0, 1],
        "hat": [0, 1],
    }
    logits = (rows - 0.5) * 3
    assert np.array_equal(face_classifier.traits(logits, threshold=0), traits(rows))


def traits(rows):
    return face_classifier.traits(rows, threshold=0.5)


def test_a_change_by_hand():
    """Red hair instead of black; glasses taken off. All else stays."""
    meaning = script.Attributes(list(CHANGED), list(CHANGED[:2]), may_have_none=True)
    original = traits(np.stack([values("Black_Hair", "Eyeglasses", "Skin_Dark")]))
    wanted, column = translations.wanted_traits("Red_Hair", meaning, original)
    assert NAMES[column] == "hair"
    assert wanted.tolist() == [[3, 2, 0, 1, 0, 0]]
    wanted, column = translations.wanted_traits("Eyeglasses", meaning, original)
    assert NAMES[column] == "glasses"
    assert wanted.tolist() == [[2, 2, 0, 0, 0, 0]]


class Oracle:
    """Reads traits that are written in the first pixels of an image."""

    size = 32
    description = "pixels"

    def __call__(self, pixels):
        return pixels[:, 0, 0, : len(NAMES)].astype(int)


def written(images, found):
    images = images.copy()
    images[:, :, 0, : len(NAMES)] = found[:, None]
    return images


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A function of a translator that returns the measures of an untrained run."""
    flags = ("--selected_attrs", *CHANGED, "--exclusive", *CHANGED[:2], "--may_have_none")
    folder = write_untrained_run("stargan", tmp_path / "run", *SMALL, *flags)
    drawings = faces.read_faces("test")
    original = traits(drawings.attributes)
    real_images = faces.Drawings.images

    def images(self, img_size, channels):
        return written(real_images(self, img_size, channels)[:], traits(self.attributes))

    def judge(translate):
        monkeypatch.setattr(faces.Drawings, "images", images)
        monkeypatch.setattr(translations.face_classifier, "of_faces", lambda n_steps: Oracle())
        monkeypatch.setattr(translations, "translated", translate)
        return evaluate.main(["stargan", str(folder)])

    return judge, original


def test_a_perfect_translator(judged):
    judge, original = judged

    def translate(generator, images, targets):
        found = original.copy()
        has_colour = targets[:, :2].any(1)
        # The first two columns of CHANGED are the colours 3 and 4 of HAIR.
        found[has_colour, 0] = 3 + targets[has_colour, :2].argmax(1)
        found[:, 3] = targets[:, 2]
        return written(images, found)

    measures = judge(translate)
    assert measures["before any change, read right"] == 1
    assert measures["the asked attribute"] == 1
    assert measures["all else as it was"] == 1
    assert measures["  after a change of Red_Hair"] == 1


def test_no_change_is_wrong_wherever_one_was_asked_for(judged):
    judge, _ = judged
    measures = judge(lambda generator, images, targets: images)
    assert measures["the asked attribute"] == 0
    assert measures["all else as it was"] == 1


def test_a_lost_hat_counts_as_lost(judged):
    """It is one of five other traits."""
    judge, original = judged

    def translate(generator, images, targets):
        found = original.copy()
        found[:, 5] = 0
        return written(images, found)

    measures = judge(translate)
    hats = original[:, 5].mean()
    assert hats > 0.05
    assert measures["  hat"] == pytest.approx(1 - hats)
    assert measures["all else as it was"] == pytest.approx(1 - hats / 5)


def test_a_classifier_is_measured_on_test_faces_and_kept(tmp_path, monkeypatch):
    classifier = face_classifier.of_faces(n_steps=2)
    assert list(classifier.accuracy) == NAMES
    assert all(0 <= share <= 1 for share in classifier.accuracy.values())
    assert "of test faces it reads right: hair" in classifier.description
    (file,) = (tmp_path / "cache/jittor-gan-collection").iterdir()
    assert file.name.startswith("faces-")

    def train(*args):
        raise AssertionError("the kept network should be used")

    monkeypatch.setattr(face_classifier, "train", train)
    again = face_classifier.of_faces(n_steps=2)
    assert again.accuracy == classifier.accuracy


@pytest.mark.parametrize(
    "flags",
    [
        ("--channels", "1", "--selected_attrs", "Beard"),
        ("--selected_attrs", "Beard", "Skin_Dark"),
        ("--selected_attrs", "Beard", "Smiling"),
        ("--selected_attrs", "Red_Hair", "Beard"),
    ],
)
def test_runs_that_cannot_be_judged(tmp_path, fails, flags):
    folder = write_untrained_run("stargan", tmp_path / "run", *SMALL, *flags, "--exclusive")
    code, line = fails(evaluate.main, ["stargan", folder])
    assert code == 2
    assert "only runs on faces in colour can be judged" in line
