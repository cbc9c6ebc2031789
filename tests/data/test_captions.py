"""Images with captions: a table, text files, digits described by code; texts as numbers; wrong captions."""

from common import Batches, UserError
from common.data import captions
from common.data.captions import combinations, descriptions, encode, load_captions

import numpy as np
import pytest
from registry import images

COLOURS = ["red", "green", "blue", "orange", "purple"]


def text_of(code):
    """The text of (L,) numbers, by the definition of UTF-8."""
    return bytes(code[code > 0].astype(np.uint8)).decode()


# ---- texts as numbers ----


def test_bytes_of_utf8_by_hand():
    """ "Ab" in small letters is 97, 98; e with an acute accent 195, 169; the Chinese one 228, 184, 128."""
    codes = encode(["Ab", " é ", "一"])
    assert codes.dtype == np.int32
    assert codes[:, :3].tolist() == [[97, 98, 0], [195, 169, 0], [228, 184, 128]]
    assert codes.shape == (3, 3 + captions.ROOM) and not codes[:, 3:].any()


def test_long_texts_are_cut():
    assert encode(["x" * 1000]).shape == (1, captions.LONGEST + captions.ROOM)


# ---- digits ----


@pytest.mark.parametrize("column", range(4))
def test_a_fifth_is_held_out_and_of_each_value_equally(column):
    held, used = combinations(True), combinations(False)
    assert (len(held), len(used)) == (40, 160)
    assert not {tuple(c) for c in held} & {tuple(c) for c in used}
    n_values = captions.SHAPE[column]
    assert np.bincount(held[:, column], minlength=n_values).tolist() == [40 // n_values] * n_values


def test_descriptions_say_all_four():
    english, chinese = (descriptions((3, 0, 1, 1), language) for language in ("en", "zh"))
    assert len(set(english)) == len(english) == len(set(chinese)) == len(chinese) == 5
    for text in english:
        assert all(word in text for word in ("three", "red", "bold", "white"))
        assert not any(word in text for word in ("black", "thin", "green", "two"))
    for text in chinese:
        assert all(word in text for word in "三红粗白")
        assert not any(word in text for word in "黑细绿二")


def test_an_image_is_what_its_captions_say():
    """The ground at the corners, the colour in the middle of strokes; no combination of training in the test."""
    for split, held_out in (("train", False), ("test", True)):
        pixels, looks = captions.described_digits(32, split)
        allowed = {tuple(c) for c in combinations(held_out)}
        assert {tuple(c) for c in looks} <= allowed
        assert np.array_equal(pixels[:, :, 0, 0], captions.GROUNDS[looks[:, 3]])
        ink = (
            np.abs(pixels.astype(int) - captions.COLOURS[looks[:, 1]][:, :, None, None]).max(1) < 12
        )
        paper = (
            np.abs(pixels.astype(int) - captions.GROUNDS[looks[:, 3]][:, :, None, None]).max(1) < 12
        )
        assert np.mean(ink.sum((1, 2)) > 8) > 0.97
        assert ((ink | paper).mean((1, 2)) > 0.5).all()
        bold = looks[:, 2] == 1
        assert (~paper[bold]).mean() > 1.4 * (~paper[~bold]).mean()
    assert len(pixels) == 500


def test_a_set_of_digits():
    data = load_captions(None, 16)
    pixels, text, wrong = data.batch(np.arange(10), np.arange(10))
    assert (pixels.shape, pixels.dtype, text.dtype) == ((10, 3, 16, 16), np.float32, np.int32)
    assert text.shape == wrong.shape == (10, data.codes.shape[1])
    for i in range(10):
        assert text_of(text[i]) in data.captions[i]
        assert text_of(wrong[i]) not in data.captions[i]
    used = {t for c in combinations(False) for t in descriptions(c)}
    assert len(data.examples) == captions.N_EXAMPLES and not set(data.examples) & used
    again = data.batch(np.arange(10), np.arange(10))
    assert all(np.array_equal(a, b) for a, b in zip((pixels, text, wrong), again))
    assert not np.array_equal(text, data.batch(np.arange(10), np.arange(10, 20))[1])


def test_another_epoch_brings_other_phrasings():
    batches = Batches(load_captions(None, 16), 4500, 0)
    (one,), (two,) = batches, batches
    assert sorted(map(text_of, one[1])) != sorted(map(text_of, two[1]))


# ---- folders ----


def table(folder, text, n=12):
    images(folder, n)
    (folder / "captions.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_table_with_several_captions_of_an_image(tmp_path):
    """A byte order mark, other columns, a comma within a caption; each fifth, from the first, is a test."""
    rows = [f'{i}.png,{i},"caption, {i}"' for i in range(12)] + ["4.png,x,another one"]
    folder = table(tmp_path / "data", "\ufefffile,number,caption\n" + "\n".join(rows) + "\n")
    data, test = (load_captions(folder, 16, split=split) for split in ("train", "test"))
    order = sorted(f"{i}.png" for i in range(12))
    assert [file.name for file in test.images] == [order[0], order[5], order[10]]
    assert [file.name for file in data.images] == [name for i, name in enumerate(order) if i % 5]
    by_name = {file.name: group for file, group in zip(data.images, data.captions)}
    assert by_name["4.png"] == ["caption, 4", "another one"]
    assert data.examples == [f"caption, {name[:-4]}" for name in (order[0], order[5], order[10])]


def test_text_files_beside_images_and_in_another_folder(tmp_path):
    images(tmp_path / "images/a", 3)
    images(tmp_path / "images/b", 1)
    (tmp_path / "images/b/0.png").rename(tmp_path / "images/b/bird.png")
    (tmp_path / "text").mkdir()
    for i in range(3):
        (tmp_path / f"images/a/{i}.txt").write_text(
            f"number {i}\n\nthe same again {i}\n", encoding="utf-8"
        )
    (tmp_path / "text/bird.txt").write_text("一只鸟", encoding="utf-8")
    found = captions.read_captions(tmp_path)
    assert {file.name: texts for file, texts in found.items()} == {
        **{f"{i}.png": [f"number {i}", f"the same again {i}"] for i in range(3)},
        "bird.png": ["一只鸟"],
    }


def test_folders_of_the_parts(tmp_path):
    for part, n in (("train", 4), ("val", 3)):
        table(
            tmp_path / part,
            "file,caption\n" + "".join(f"{i}.png,{part} {i}\n" for i in range(n)),
            n,
        )
    assert [len(load_captions(tmp_path, 16, split=split)) for split in ("train", "test")] == [4, 3]
    assert load_captions(tmp_path, 16).examples == ["val 0", "val 1", "val 2"]


def test_images_without_a_caption_are_left_out(tmp_path, capsys):
    folder = table(
        tmp_path / "data",
        "file,caption\n" + "".join(f"{i}.png,c {i}\n" for i in range(2, 12)) + "no.png,x\n",
    )
    load_captions(folder, 16)
    assert "2 of 12 images have no caption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,caption\n0.png,x\n", "columns file and caption; found: name, caption"),
        ("", "no rows"),
        ("file,caption\nother.png,x\n", "expected images with captions.csv"),
        (
            "file,caption\n" + "".join(f"{i}.png,the same\n" for i in range(12)),
            "images with different captions",
        ),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_captions(table(tmp_path / "data", text), 16)


def test_a_table_that_is_no_text(tmp_path):
    images(tmp_path / "data", 2)
    (tmp_path / "data/captions.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot be read"):
        load_captions(tmp_path / "data", 16)


def test_no_captions_at_all(tmp_path):
    images(tmp_path / "data", 2)
    with pytest.raises(UserError, match=r"a \.txt of the same name"):
        load_captions(tmp_path / "data", 16)
