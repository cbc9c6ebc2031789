"""Images with captions: a table, text files, described digits; texts as bytes."""

from common import UserError
from common.data import Batches, captions
from common.data.augment import Augment
from common.data.captions import combinations, descriptions, encode, load_captions

import os

import numpy as np
import pytest
from PIL import Image
from registry import images

# ---- texts as bytes ----


def text_of(code):
    """The text of (L,) codes, by the definition of UTF-8."""
    return bytes(code[code > 0].astype(np.uint8)).decode()


def test_bytes_of_utf8_by_hand():
    """The bytes of a and b, of e with an acute accent, and of the Chinese one."""
    codes = encode(["Ab", " é ", "一"])
    assert codes.dtype == np.int32
    assert codes.shape == (3, 3 + captions.ROOM)
    assert codes[:, :3].tolist() == [[97, 98, 0], [195, 169, 0], [228, 184, 128]]
    assert not codes[:, 3:].any()


def test_long_texts_are_cut():
    assert encode(["x" * 1000]).shape == (1, captions.LONGEST + captions.ROOM)


def test_a_byte_of_the_command_line_that_is_no_text():
    """As Python reads `--text caf\xe9` in a UTF-8 locale."""
    text = os.fsdecode(b"caf\xe9")
    assert encode([text])[0, :5].tolist() == [*b"caf?", 0]


# ---- described digits ----


def as_set(rows):
    return {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("column", range(4))
def test_a_fifth_is_held_out_of_all_and_of_each_value(column):
    held_out = combinations(True)
    used = combinations(False)
    assert (len(held_out), len(used)) == (40, 160)
    assert not as_set(held_out) & as_set(used)
    n_values = captions.SHAPE[column]
    counts = np.bincount(held_out[:, column], minlength=n_values)
    assert counts.tolist() == [40 // n_values] * n_values


@pytest.mark.parametrize(
    ("language", "words", "others"),
    [
        ("en", ["three", "red", "bold", "white"], ["black", "thin", "green", "two"]),
        ("zh", "三红粗白", "黑细绿二"),
    ],
)
def test_descriptions_name_all_four(language, words, others):
    texts = descriptions((3, 0, 1, 1), language)
    assert len(texts) == len(set(texts)) == 5
    for text in texts:
        assert all(word in text for word in words)
        assert not any(word in text for word in others)


@pytest.mark.parametrize(("split", "held_out"), [("train", False), ("test", True)])
def test_an_image_is_as_its_captions_say(split, held_out):
    """The ground shows at the corners, the colour in the middle of the strokes."""
    pixels, looks = captions.described_digits(32, split)
    if split == "test":
        assert len(pixels) == 500
    assert as_set(looks) <= as_set(combinations(held_out))

    ground = captions.GROUNDS[looks[:, 3]]
    colour = captions.COLOURS[looks[:, 1]]
    assert np.array_equal(pixels[:, :, 0, 0], ground)
    ink = np.abs(pixels.astype(int) - colour[:, :, None, None]).max(axis=1) < 12
    paper = np.abs(pixels.astype(int) - ground[:, :, None, None]).max(axis=1) < 12
    assert np.mean(ink.sum(axis=(1, 2)) > 8) > 0.97
    assert ((ink | paper).mean(axis=(1, 2)) > 0.5).all()

    is_bold = looks[:, 2] == 1
    assert (~paper[is_bold]).mean() > 1.4 * (~paper[~is_bold]).mean()


def test_a_set_of_digits():
    data = load_captions(None, 16)
    indices = np.arange(10)
    pixels, text, wrong = data.batch(indices, np.arange(10))
    assert (pixels.shape, pixels.dtype) == ((10, 3, 16, 16), np.float32)
    assert (text.shape, text.dtype) == ((10, data.codes.shape[1]), np.int32)
    assert wrong.shape == text.shape
    for i in range(10):
        assert text_of(text[i]) in data.captions[i]
        assert text_of(wrong[i]) not in data.captions[i]

    again = data.batch(indices, np.arange(10))
    for array, same in zip((pixels, text, wrong), again):
        assert np.array_equal(array, same)
    assert not np.array_equal(text, data.batch(indices, np.arange(10, 20))[1])


def test_examples_are_captions_of_the_test_split():
    data = load_captions(None, 16)
    assert len(data.examples) == captions.N_EXAMPLES
    for combination in combinations(held_out=False):
        assert not set(data.examples) & set(descriptions(combination))


def test_another_epoch_has_other_phrasings():
    batches = Batches(load_captions(None, 16), 4500, np.random.default_rng(0))
    ((_, first, _),) = batches
    ((_, second, _),) = batches
    assert sorted(map(text_of, first)) != sorted(map(text_of, second))


# ---- folders ----


def table(folder, rows, n=12, header="file,caption"):
    """A folder of n images with a table of these lines."""
    images(folder, n)
    text = "".join(f"{line}\n" for line in [header, *rows])
    (folder / "captions.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_table_with_several_captions_of_an_image(tmp_path):
    """It has a byte order mark, other columns, and commas within captions.

    Every fifth image, starting with the first, is in the test split.
    """
    rows = [f'{i}.png,{i},"caption, {i}"' for i in range(12)]
    rows.append("4.png,x,another one")
    folder = table(tmp_path / "data", rows, header="\ufefffile,number,caption")
    data = load_captions(folder, 16, split="train")
    test = load_captions(folder, 16, split="test")

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
    for i in range(3):
        text = f"number {i}\n\nthe same again {i}\n"
        (tmp_path / f"images/a/{i}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/bird.txt").write_text("一只鸟", encoding="utf-8")
    found = captions.read_captions(tmp_path)
    assert {file.name: texts for file, texts in found.items()} == {
        "0.png": ["number 0", "the same again 0"],
        "1.png": ["number 1", "the same again 1"],
        "2.png": ["number 2", "the same again 2"],
        "bird.png": ["一只鸟"],
    }


def test_a_folder_for_each_split(tmp_path):
    for split, n in (("train", 4), ("val", 3)):
        table(tmp_path / split, [f"{i}.png,{split} {i}" for i in range(n)], n)
    train = load_captions(tmp_path, 16, split="train")
    assert len(train) == 4
    assert train.examples == ["val 0", "val 1", "val 2"]
    assert len(load_captions(tmp_path, 16, split="test")) == 3


def test_photographs_are_cropped_and_mirrored_and_keep_their_captions(tmp_path):
    """An image that is dark on the left, and bright from column 16 of 32 on."""
    folder = table(tmp_path / "data", [f"{i}.png,caption {i}" for i in range(10)])
    for i in range(10):
        step = np.repeat(np.uint8([[0] * 16 + [255] * 16]), 32, axis=0)
        Image.fromarray(step).save(folder / f"{i}.png")
    still = load_captions(folder, 28, 1, augment=Augment(crop=False, flip=False))
    moved = load_captions(folder, 28, 1, augment=Augment(load_size=32))
    seen = set()
    for seed in range(60):
        pixels, text, wrong = moved.load(0, seed)
        _, same_text, same_wrong = still.load(0, seed)
        assert np.array_equal(text, same_text)
        assert np.array_equal(wrong, same_wrong)
        seen.add((pixels[0, 0, 0] > 127, int((pixels[0, 0] < 127).sum())))
    # The crop begins in one of the columns 0 to 4: 16 to 12 dark columns remain.
    assert seen == {(mirrored, dark) for mirrored in (False, True) for dark in range(12, 17)}


def test_images_without_a_caption_are_left_out(tmp_path, capsys):
    rows = [f"{i}.png,c {i}" for i in range(2, 12)]
    rows.append("no.png,x")
    load_captions(table(tmp_path / "data", rows), 16)
    assert "2 of 12 images have no caption" in capsys.readouterr().err


# ---- tables of other systems ----

SENTENCE = "a red bird, with blue wings, on a branch"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,caption", f"0.png,{SENTENCE}"),
        ("file,caption", f'0.png,"{SENTENCE}"'),
        ("file,caption", f"0.png,{SENTENCE},,"),
        ("file, caption", f"0.png, {SENTENCE}"),
        ("file, caption", f'0.png, "{SENTENCE}"'),
        ("id,File,Caption", f"0,0.png,{SENTENCE}"),
        ("caption,file", f'"{SENTENCE}",0.png'),
        ("\ufefffile,caption", f"./0.png,{SENTENCE}"),
        ("file,caption", f".\\0.png,{SENTENCE}"),
        ("file,caption", f"C:\\birds\\0.PNG,{SENTENCE}"),
        ("file,caption", f"/home/me/birds/0.png,{SENTENCE}"),
        ("file,caption", f"0,{SENTENCE}"),
        ("file,caption", f" 0.jpg ,{SENTENCE}"),
    ],
)
def test_a_sentence_and_its_image_in_any_notation(tmp_path, header, row):
    folder = table(tmp_path / "data", [row], n=2, header=header)
    ((file, texts),) = captions.read_captions(folder).items()
    assert file.name == "0.png"
    assert texts == [SENTENCE]


@pytest.mark.parametrize(
    ("encoding", "texts", "name"),
    [
        ("gbk", ["一只红色的鸟", "一棵树,很高"], "GBK"),
        ("cp1252", ["un oiseau étrange, très beau", "a tree – “tall”"], "Windows-1252"),
    ],
)
def test_encodings_of_an_older_windows(tmp_path, capsys, encoding, texts, name):
    folder = table(tmp_path / "data", [], n=2)
    rows = "".join(f"{i}.png,{text}\r\n" for i, text in enumerate(texts))
    (folder / "captions.csv").write_bytes(f"file,caption\r\n{rows}".encode(encoding))
    assert list(captions.read_captions(folder).values()) == [[text] for text in texts]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"is read as {name}" in line

    (folder / "captions.csv").unlink()
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_bytes(text.encode(encoding))
    assert list(captions.read_captions(folder).values()) == [[text] for text in texts]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"0.txt is not in UTF-8 and is read as {name}" in line


def two_folders(folder, n=2):
    for name in ("cats", "dogs"):
        images(folder / name, n)
    return folder


def test_a_name_that_two_images_have(tmp_path):
    folder = two_folders(tmp_path)
    (folder / "captions.csv").write_text("file,caption\n0.png,a cat\n")
    with pytest.raises(UserError, match=r"0\.png may be cats/0\.png or dogs/0\.png"):
        captions.read_captions(folder)
    (folder / "captions.csv").write_text("file,caption\ndata/cats/0.png,a cat\ndogs/0,a dog\n")
    found = captions.read_captions(folder)
    assert found == {folder / "cats/0.png": ["a cat"], folder / "dogs/0.png": ["a dog"]}


def test_an_image_that_two_names_have(tmp_path):
    """The images of two folders were put into one."""
    folder = table(tmp_path / "data", ["cats/0.png,a cat", "dogs/0.png,a dog"], n=1)
    with pytest.raises(UserError, match=r"cats/0\.png and dogs/0\.png would both be 0\.png"):
        captions.read_captions(folder)


def test_rows_without_an_image_are_counted(tmp_path, capsys):
    folder = table(tmp_path / "data", ["0.png,a", "7.png,b", "8.png,c", "1.png,d"], n=2)
    assert len(captions.read_captions(folder)) == 2
    assert "2 of 4 rows of" in capsys.readouterr().err


def test_texts_of_equal_names_in_different_folders(tmp_path):
    """Each image has its own, beside it or in a tree of texts."""
    two_folders(tmp_path / "images")
    for name in ("cats", "dogs"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / f"texts/{name}/{i}.txt").write_text(f"{name} {i}")
    (tmp_path / "images/dogs/1.txt").write_text("beside")
    found = {f"{f.parent.name}/{f.name}": t for f, t in captions.read_captions(tmp_path).items()}
    assert found == {
        "cats/0.png": ["cats 0"],
        "cats/1.png": ["cats 1"],
        "dogs/0.png": ["dogs 0"],
        "dogs/1.png": ["beside"],
    }


def test_a_text_beside_an_image_is_no_other_ones(tmp_path, capsys):
    two_folders(tmp_path, 1)
    (tmp_path / "dogs/0.txt").write_text("a dog")
    assert captions.read_captions(tmp_path) == {tmp_path / "dogs/0.png": ["a dog"]}
    assert "1 of 2 images have no caption" in capsys.readouterr().err


def test_a_text_that_may_be_two_images(tmp_path):
    two_folders(tmp_path, 1)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/0.txt").write_text("a dog")
    with pytest.raises(UserError, match=r"texts/0\.txt may be the text of .*cats/0.*dogs/0"):
        captions.read_captions(tmp_path)


def test_an_empty_text_is_no_caption(tmp_path, capsys):
    images(tmp_path / "data", 3)
    for i in range(3):
        (tmp_path / f"data/{i}.txt").write_text("\n" if i == 1 else f"bird {i}")
    found = captions.read_captions(tmp_path / "data")
    assert [file.name for file in found] == ["0.png", "2.png"]
    assert "1 of 3 images have no caption" in capsys.readouterr().err


def test_texts_that_are_no_files(tmp_path):
    images(tmp_path / "data", 2)
    (tmp_path / "data/0.txt").write_text("a bird")
    os.mkfifo(tmp_path / "data/1.txt")
    (tmp_path / "data/1.png.txt").symlink_to("/dev/full")
    assert list(captions.read_captions(tmp_path / "data").values()) == [["a bird"]]
    (tmp_path / "data/captions.csv").symlink_to("/dev/zero")
    assert list(captions.read_captions(tmp_path / "data").values()) == [["a bird"]]


def test_a_wrong_caption_is_found_if_there_is_one(monkeypatch):
    """Only the image after 1,000 others has another caption than "a bird"."""
    texts = [["a bird"]] * 1000 + [["a tree", "a bird"]]
    pixels = np.zeros((1001, 3, 8, 8), np.uint8)
    data = captions.CaptionedImages(pixels, texts, 8, 3, [])
    monkeypatch.setattr(captions, "N_TRIES", 3)
    for seed in range(20):
        _, own, wrong = data.load(0, seed)
        assert text_of(own) == "a bird"
        assert text_of(wrong) == "a tree"


# ---- errors ----


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,caption", ["0.png,x"], "columns file and caption; found: name, caption"),
        ("", [], "no rows"),
        (
            "file,caption",
            ["other.png,x"],
            r"none of the 1 images that .*/captions.csv lists lies in .*/data: "
            r"it lists other.png, and 0.png is there",
        ),
        ("file;caption", ["0.png;x"], "found: file;caption"),
        ("caption,file", ["a bird, red,0.png"], "line 2: 3 columns, but the first line has 2"),
        (
            "file,caption",
            ["0.png,a bird", '1.png,"a bird', '2.png,"a tree"'],
            r"captions.csv, line \d: .*quotation marks",
        ),
        (
            "file,caption",
            [f"{i}.png,{text}" for i in range(12) for text in ("a bird", "a tree")[: 1 + (i == 4)]],
            r"/4.png has all 2 captions of the train split, so none is wrong for it",
        ),
        (
            "file,caption",
            [f"{i}.png,the same" for i in range(12)],
            "images with different captions",
        ),
        ("file,caption", ["0.png,the only one"], "found 0 for the train split"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, header, rows, message):
    folder = table(tmp_path / "data", rows, header=header)
    with pytest.raises(UserError, match=message):
        load_captions(folder, 16)


def test_a_table_that_is_not_text(tmp_path):
    images(tmp_path / "data", 2)
    (tmp_path / "data/captions.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot be read"):
        load_captions(tmp_path / "data", 16)


def test_no_captions_at_all(tmp_path):
    images(tmp_path / "data", 2)
    with pytest.raises(UserError, match=r"a \.txt of the same name"):
        load_captions(tmp_path / "data", 16)
