"""Built-in faces: pixels, attributes, parts, captions, and who takes them."""

from common import UserError
from common.data import (
    BUILT_IN,
    faces,
    holds_digits,
    label_maps,
    load_attributes,
    load_digits,
    load_domains,
    load_images,
    load_pairs,
)
from common.data.augment import Augment
from common.data.captions import load_captions
from common.data.decode import to_float
from common.data.resolution import load_resolutions

import json
import re

import numpy as np
import pytest
from PIL import Image
from registry import ROWS, images, load, meta, run

# Rows of two faces and their attributes, read in the source's pictures and table.
BACK = "dfe7ee"
GREEN = "91cb15"
BROWN = "603a14"
DARK = "99673b"
PALE = "ffdeb4"
BEARD = "a9af50"
WHITE = "ffffff"
SHIRT = "428bca"
NECK = "8d5524"
ROWS_OF_0 = {
    2: [BACK] * 4 + [GREEN] * 8 + [BACK] * 4,
    6: [
        *(BACK, BACK, DARK, BEARD, WHITE, "588387", WHITE, DARK),
        *(DARK, WHITE, "588387", WHITE, BEARD, DARK, BACK, BACK),
    ],
    9: [BACK] * 3 + [BEARD] * 4 + ["de0f0d"] * 2 + [BEARD] * 4 + [BACK] * 3,
    13: [BACK] * 3 + [SHIRT] * 2 + [NECK] * 6 + [SHIRT] * 2 + [BACK] * 3,
}
ROWS_OF_4321 = {
    0: [BACK] * 16,
    2: [BACK] * 4 + [PALE] * 3 + [BROWN] * 2 + [PALE] * 3 + [BACK] * 4,
    15: [BACK] * 2 + ["ffdbac"] + ["ae0001"] * 10 + ["ffdbac"] + [BACK] * 2,
}
ATTRIBUTES_OF_0 = {"Green_Hair", "Beard", "Skin_Dark"}
ATTRIBUTES_OF_4321 = {"Brown_Hair", "Beard", "Skin_Light"}
# How many faces have each attribute: the sums of the table's columns.
SUMS = [2504, 843, 813, 818, 840, 856, 830, 1461, 1001, 607, 2510, 1692, 1683, 1625]
HAIR_COLOURS = ["603a14", "cab188", "28150a", "bd1700", "009bbd", "91cb15"]  # as in HAIR
# The parts of face 0: Background, Skin, Hair, Eyes, Mouth, Clothes, bearD.
PARTS_OF_0 = [
    "BBBBBBBBBBBBBBBB",
    "BBBBBBBBBBBBBBBB",
    "BBBBHHHHHHHHBBBB",
    "BBBHHHSSHSHHHBBB",
    "BBBSSSSSSSSSSBBB",
    "BBBSEEESSEEESBBB",
    "BBSDEEESSEEEDSBB",
    "BBSDSSSSSSSSDSBB",
    "BBBDSSSSSSSSDBBB",
    "BBBDDDDMMDDDDBBB",
    "BBBDDDMDDDDDDBBB",
    "BBBBDDDDDDDDBBBB",
    "BBBBBBBSSBBBBBBB",
    "BBBCCSSSSSSCCBBB",
    "BBCCCCSSSSCCCCBB",
    "BBCCCCCCCCCCCCBB",
]
LETTERS = {
    **{"B": "background", "S": "skin", "H": "hair", "E": "eyes", "M": "mouth"},
    **{"C": "clothes", "D": "beard"},
}


@pytest.fixture(scope="module")
def drawings():
    """All 5,000 faces."""
    return faces.read_faces("train", n_test=0)


def rgb(text):
    return list(bytes.fromhex(text))


# ---- the data ----


def test_all_faces_are_there_and_differ(drawings):
    assert drawings.pixels.shape == (5000, 3, 16, 16)
    assert drawings.parts.shape == (5000, 16, 16)
    assert len({face.tobytes() for face in drawings.pixels}) == 5000
    assert drawings.attributes.sum(axis=0, dtype=int).tolist() == SUMS
    for names in (faces.HAIR, faces.SKIN):
        assert (sum(drawings.has(name).astype(int) for name in names) == 1).all()


@pytest.mark.parametrize(
    ("index", "rows", "attributes"),
    [(0, ROWS_OF_0, ATTRIBUTES_OF_0), (4321, ROWS_OF_4321, ATTRIBUTES_OF_4321)],
)
def test_two_faces_by_hand(drawings, index, rows, attributes):
    for row, colours in rows.items():
        expected = [rgb(colour) for colour in colours]
        assert drawings.pixels[index, :, row].T.tolist() == expected
    assert {name for name in faces.ATTRIBUTES if drawings.has(name)[index]} == attributes


def test_parts_of_a_face_by_hand(drawings):
    expected = [[faces.PARTS.index(LETTERS[letter]) for letter in row] for row in PARTS_OF_0]
    assert drawings.parts[0].tolist() == expected


@pytest.mark.parametrize(
    ("part", "attribute"),
    [("glasses", "Eyeglasses"), ("hat", "Wearing_Hat"), ("beard", "Beard")],
)
def test_parts_agree_with_attributes(drawings, part, attribute):
    is_drawn = (drawings.parts == faces.PARTS.index(part)).any((1, 2))
    assert np.array_equal(is_drawn, drawings.has(attribute))


def test_hair_has_the_colour_of_the_attribute(drawings):
    """Under 182 hats it cannot be seen."""
    is_hair = drawings.parts == faces.PARTS.index("hair")
    palette = np.uint8([rgb(colour) for colour in HAIR_COLOURS])
    expected = palette[drawings.classes()]
    for face, mask, colour in zip(drawings.pixels, is_hair, expected):
        drawn = face[:, mask].T
        assert (drawn == colour).all()
    is_hidden = ~is_hair.any((1, 2))
    assert is_hidden.sum() == 182
    assert drawings.has("Wearing_Hat")[is_hidden].all()


def test_the_last_500_are_the_test_split(drawings):
    train = faces.read_faces("train")
    for split in ("test", "val"):
        test = faces.read_faces(split)
        assert (len(train.pixels), len(test.pixels)) == (4500, 500)
        assert np.array_equal(np.concatenate([train.pixels, test.pixels]), drawings.pixels)
        together = np.concatenate([train.attributes, test.attributes])
        assert np.array_equal(together, drawings.attributes)


# ---- sizes and colours ----


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_pixels_become_squares(drawings, factor):
    size = 16 * factor
    larger = drawings.images(size, 3)[7]
    assert larger.shape == (3, size, size)
    for dy in range(factor):
        for dx in range(factor):
            assert np.array_equal(larger[:, dy::factor, dx::factor], drawings.pixels[7])


def test_a_margin_repeats_the_outermost_pixels():
    drawing = np.arange(256, dtype=np.uint8).reshape(16, 16)
    larger = faces.enlarge(drawing, (37, 37))
    assert larger.shape == (37, 37)
    assert np.array_equal(larger[2:34:2, 2:34:2], drawing)
    assert (larger[:4, :4] == drawing[0, 0]).all()
    assert (larger[32:, 32:] == drawing[15, 15]).all()
    assert np.array_equal(larger[0, 2:34:2], drawing[0])


def test_grey_is_that_of_pillow(drawings):
    found = faces.grey(drawings.pixels[:50])
    for grey, colour in zip(found, drawings.pixels[:50]):
        picture = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
        assert np.array_equal(grey[0], np.asarray(picture.convert("L")))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (28, "multiple of 16, such as 16 or 32"),
        (8, "multiple of 16, such as 16 or 32"),
        ((32, 48), "square, not 32 x 48"),
    ],
)
def test_sizes_that_cannot_be_drawn(size, message):
    for load_one in (
        lambda: load_images("faces", size, 3),
        lambda: load_digits("faces", size, 3),
        lambda: load_captions("faces", size, 3),
        lambda: load_attributes("faces", size, 3),
        lambda: load_domains("faces", None, size, 3),
        lambda: load_pairs("faces", size, 3),
    ):
        with pytest.raises(UserError, match=message):
            load_one()


# ---- the loaders ----


def test_images_are_the_faces_and_labels_their_hair(drawings):
    for data in (load_images("faces", 32, 3), load_digits("faces", 32, 3, 6)):
        pixels, labels = data.batch(np.array([0, 4321]))
        assert len(data) == 5000
        assert labels.tolist() == [5, 0]
        assert np.array_equal(pixels[:, :, ::2, ::2], to_float(drawings.pixels[[0, 4321]]))


def test_fewer_classes_than_colours_of_hair_are_refused():
    with pytest.raises(UserError, match="label 5, but --n_classes is 5"):
        load_digits("faces", 32, 3, 5)


def test_attributes_of_the_test_split(drawings):
    """Face 4500 is the first one."""
    data = load_attributes("faces", 16, 3, ["Smiling", "Red_Hair", "Blue_Hair"], split="test")
    assert len(data) == 500
    assert data.names == ["Smiling", "Red_Hair", "Blue_Hair"]
    assert (data.exclusive, data.exactly_one) == (["Red_Hair", "Blue_Hair"], False)
    pixels, attributes = data.batch([0, 499], [1, 2])
    assert np.array_equal(pixels, to_float(drawings.pixels[[4500, 4999]]))
    for name, column in zip(data.names, attributes.T):
        assert column.tolist() == drawings.has(name)[[4500, 4999]].tolist()


def test_attributes_by_default():
    data = load_attributes("faces", 16, 3)
    assert data.names == list(faces.CHOSEN)
    assert (data.exclusive, data.exactly_one) == (list(faces.HAIR), True)


def test_half_of_the_faces_with_attributes_are_mirrored(drawings):
    data = load_attributes("faces", 16, 3, flip=True)
    pixels, _ = data.batch([0] * 200, range(200))
    original = to_float(drawings.pixels[0])
    is_mirrored = (pixels == original[:, :, ::-1]).all((1, 2, 3))
    assert (is_mirrored | (pixels == original).all((1, 2, 3))).all()
    assert 70 < is_mirrored.sum() < 130


def test_domains_have_black_and_blond_hair(drawings):
    data = load_domains("faces", None, 16, 3)
    assert len(data) == max(drawings.has(name)[:4500].sum() for name in faces.DOMAINS)
    for domain, colour in zip(data.domains, ("28150a", "cab188")):
        (pixels,) = domain.batch(range(len(domain)))
        shows = (pixels == to_float(np.uint8(rgb(colour)))[:, None, None]).all(1).any((1, 2))
        assert shows.mean() > 0.95  # otherwise a hat hides it


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs_are_grey_and_coloured(drawings, direction):
    data = load_pairs("faces", 16, (1, 3) if direction == "AtoB" else (3, 1), direction, "val")
    assert len(data) == 500
    inputs, targets = data.batch([0])
    grey, colour = (inputs, targets) if direction == "AtoB" else (targets, inputs)
    assert np.array_equal(colour[0], to_float(drawings.pixels[4500]))
    assert np.array_equal(grey, to_float(faces.grey(drawings.pixels[[4500]])))


def test_both_of_a_pair_are_cropped_and_mirrored_equally(drawings):
    """A crop moves the face by whole pixels of the image."""
    data = load_pairs("faces", 64, 3, augment=Augment())
    grey, colour = data.batch([0] * 30, range(30))
    expected = [faces.grey(np.uint8(np.rint(127.5 * (x[None] + 1))))[0, 0] for x in colour]
    assert np.array_equal(grey[:, 0], to_float(np.stack(expected)))
    assert len({face.tobytes() for face in colour}) > 15
    shifted = faces.enlarge(drawings.pixels[0], (72, 72))
    crops = set()
    for top in range(9):
        for left in range(9):
            crop = to_float(shifted[:, top : top + 64, left : left + 64])
            crops |= {crop.tobytes(), crop[:, :, ::-1].tobytes()}
    assert {face.tobytes() for face in colour} <= crops


def test_label_maps_have_the_parts(drawings):
    args = load("spade").parse_args(["--data_dir", "faces", "--img_size", "32"])
    data = label_maps.load(args, "test")
    classes, pixels = data.batch([3])
    assert args.n_classes == len(faces.PARTS) == 9
    assert classes.dtype == np.int32
    assert np.array_equal(classes[0, ::2, 1::2], drawings.parts[4503])
    assert np.array_equal(pixels[0, :, 1::2, ::2], to_float(drawings.pixels[4503]))
    args = load("spade").parse_args(["--data_dir", "faces", "--n_classes", "8"])
    with pytest.raises(UserError, match="the built-in faces have 9 classes"):
        label_maps.load(args, "train")


# ---- captions ----

TOLD = {  # {attribute: the word that says so, and the word that denies it}
    "en": {
        "Smiling": ("happy", "sad"),
        "Longhaired": ("long", "short"),
        "Beard": ("beard", None),
        "Eyeglasses": ("glasses", None),
        "Wearing_Hat": ("hat", None),
        **{name: (name.removesuffix("_Hair").lower(), None) for name in faces.HAIR},
        **{name: (name.removeprefix("Skin_").lower(), None) for name in faces.SKIN},
    },
    "zh": {
        "Smiling": ("开心", "难过"),
        "Longhaired": ("长", "短"),
        "Beard": ("胡子", None),
        "Eyeglasses": ("眼镜", None),
        "Wearing_Hat": ("帽子", None),
        **dict(zip(faces.HAIR, [(word, None) for word in "棕金黑红蓝绿"])),
        **dict(zip(faces.SKIN, [(word, None) for word in ("浅", "中等", "深")])),
    },
}


def test_captions_of_the_source():
    """Those of faces 0, 3 and 6 in its table."""
    data = load_captions("faces", 16)
    assert data.captions[0][0] == "a sad face with short green hair and dark skin, with a beard"
    assert data.captions[3][0] == (
        "a sad face with short blond hair and medium skin, wearing glasses"
    )
    assert data.captions[6][0] == (
        "a happy face with short blue hair and light skin, with a beard, wearing glasses"
    )
    assert load_captions("faces", 16, language="zh").captions[0][0] == (
        "一张难过的脸，绿色短发，深肤色，有胡子"
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_say_what_the_attributes_say(drawings, language):
    rows = np.unique(drawings.attributes, axis=0)
    assert len(rows) == 402  # combinations that occur
    for row in rows:
        captions = faces.describe(row, language)
        assert len(set(captions)) == 5
        for caption in captions:
            words = set(re.findall(r"\w+", caption)) if language == "en" else caption
            for name, (word, opposite) in TOLD[language].items():
                value = row[faces.ATTRIBUTES.index(name)] == 1
                assert (word in words) == value, caption
                assert opposite is None or (opposite in words) != value, caption


def test_no_two_looks_share_a_caption(drawings):
    for language in ("en", "zh"):
        rows = np.unique(drawings.attributes, axis=0)
        captions = [caption for row in rows for caption in faces.describe(row, language)]
        assert len(set(captions)) == len(captions)
        assert max(len(caption.encode()) for caption in captions) <= 201  # the encoder's limit


# ---- the words ----


def test_the_words():
    assert BUILT_IN == ("digits", "faces", "stacked")
    assert holds_digits("digits")
    assert not holds_digits("faces")


def test_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("faces", "digits"):
        images(tmp_path / word, 2)
        assert len(load_images(f"./{word}", 8, 3)) == 2
        assert len(load_images(tmp_path / word, 8, 3)) == 2
        assert len(load_images(word, 16, 3)) >= 5000


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one.batch([1, 7], [3, 4]), other.batch([1, 7], [3, 4])):
        assert np.array_equal(a, b)


def test_the_word_for_the_default():
    same(load_images("digits", 28, 1), load_images(None, 28, 1))
    same(load_digits("digits", 28, 1), load_digits(None, 28, 1))
    same(load_captions("digits", 16), load_captions(None, 16))
    same(load_attributes("digits", 16, 3), load_attributes(None, 16, 3))
    same(load_domains("digits", None, 16, 3), load_domains(None, None, 16, 3))
    same(load_pairs("digits", 16, 3), load_pairs(None, 16, 3))
    copies = [load_resolutions(word, 32, 4, 3, "train") for word in ("digits", None)]
    same(*copies)
    parse = load("spade").parse_args
    spade = [parse(["--img_size", "32"]), parse(["--img_size", "32", "--data_dir", "digits"])]
    same(*(label_maps.load(args, "train") for args in spade))


WITHOUT_STACKED = [
    *("cgan_mnist", "text2img", "stackgan", "pix2pix"),
    *("cyclegan", "stargan", "spade", "srgan"),
]


@pytest.mark.parametrize("name", WITHOUT_STACKED)
def test_scripts_that_do_not_take_stacked_digits(name, fails, tmp_path):
    flags = ["--data_dir", "stacked", "--out_dir", tmp_path / "out"]
    code, line = fails(load(name).main, flags)
    assert code == 2
    assert "--data_dir digits or --data_dir faces, or a folder" in line
    assert "./stacked" in line


# ---- the command line ----


def parsed(name, *flags):
    return load(name).parse_args([str(flag) for flag in flags])


@pytest.mark.parametrize("name", list(ROWS))
def test_a_script_needs_no_further_flag(name):
    args = parsed(name, "--data_dir", "faces")
    assert args.channels == 3
    assert args.img_size % 16 == 0
    assert args.img_size == parsed(name).img_size or parsed(name).img_size == 28
    if name == "cgan_mnist":
        assert (args.n_classes, args.number) == (6, "012345")


def test_flags_win_over_what_the_word_settles():
    args = parsed(
        *("cgan_mnist", "--data_dir", "faces", "--channels", 1),
        *("--img_size", 48, "--n_classes", 7),
    )
    assert (args.channels, args.img_size, args.n_classes) == (1, 48, 7)


def edited(folder, **values):
    """A run's checkpoint with other stored arguments."""
    with np.load(folder / "checkpoint_last.npz") as file:
        arrays = dict(file)
    text = json.loads(arrays["meta"].tobytes())
    text["args"].update(values)
    arrays["meta"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(folder / "edited.npz", **arrays)
    return folder / "edited.npz"


def test_a_checkpoint_wins_over_what_the_word_settles(tmp_path):
    """A run of stargan.py without a word is from before faces were its default."""
    for name in ("vae", "stargan"):
        flags = [*ROWS[name].flags, "--img_size", SMALLEST.get(name, 16), "--channels", 1]
        flags += ["--data_dir", "faces", "--n_images", 10, "--batch_size", 10]
        run(name, *flags, "--out_dir", tmp_path / name)
    for flag in ("--resume", "--init_from"):
        args = parsed("vae", flag, tmp_path / "vae", "--data_dir", "faces")
        assert (args.channels, args.img_size) == (1, 16)
    old = edited(tmp_path / "stargan", data_dir=None)
    assert parsed("stargan", "--resume", old).data_dir == "digits"
    old = edited(tmp_path / "vae", data_dir=None)
    assert parsed("vae", "--resume", old).data_dir is None


def test_two_scripts_have_faces_by_default(capsys):
    """Those whose method needs attributes."""
    for name in ROWS:
        shows_attributes = name in ("stargan", "vaegan")
        assert parsed(name).data_dir == ("faces" if shows_attributes else None)
        with pytest.raises(SystemExit):
            parsed(name, "--help")
        text = " ".join(capsys.readouterr().out.split())
        default = "faces" if shows_attributes else "digits"
        assert f"digits, faces, stacked (default: {default})" in text


# ---- scripts ----

OF_32_PIXELS = (
    "biggan",
    "cyclegan",
    "pix2pix",
    "sgan",
    "spade",
    "srgan",
    "stackgan",
    "stargan",
    "unit",
)
SMALLEST = dict.fromkeys(OF_32_PIXELS, 32)


@pytest.mark.parametrize("name", list(ROWS))
def test_scripts_train_on_faces_and_draw_in_colour(name, tmp_path):
    out = tmp_path / "out"
    flags = [*ROWS[name].flags, "--img_size", SMALLEST.get(name, 16), "--channels", 3]
    if name in ("biggan", "cgan_mnist"):
        flags += ["--n_classes", 6]
    flags += ["--data_dir", "faces", "--n_images", 20, "--batch_size", 10]
    run(name, *flags, "--out_dir", out)
    pixels = np.asarray(Image.open(out / "result.png"))
    assert pixels.ndim == 3 and (pixels != pixels[..., :1]).any()
    stored = meta(out)["args"]
    assert (stored["data_dir"], stored["channels"]) == ("faces", 3)
    args = parsed(name, "--resume", out)
    assert (args.data_dir, args.img_size) == ("faces", SMALLEST.get(name, 16))
