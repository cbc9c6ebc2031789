"""Images with attributes: CelebA's table, a folder for each domain, coloured digits."""

from common import UserError
from common.data import load_attributes

import numpy as np
import pytest
from registry import folders, images

HEADER = ["Black_Hair", "Blond_Hair", "Male", "Young"]
BITS = [  # every combination; images 0, 4 and 8 have neither hair colour
    [i >> k & 1 for k in range(4)] for i in range(12)
]


def celeba(folder, values=BITS, suffix="txt", rows=None):
    """Makes a folder of 12 images in CelebA's layout.

    Args:
        values: in {0, 1}, which are written as -1 and 1.
        suffix: "txt" for CelebA's format; "csv" for one with a byte order mark and
            CRLF, as some copies have it.
        rows: lists of texts, which are written as they are, instead of `values`.
    """
    images(folder / "img_align_celeba", 12)
    if rows is None:
        rows = []
        for i, bits in enumerate(values):
            rows.append([f"{i}.png", *(str(2 * bit - 1) for bit in bits)])
    if suffix == "txt":
        lines = ["12", " ".join(HEADER) + " ", *("  ".join(row) for row in rows)]
        (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    else:
        lines = [",".join(row) for row in [["image_id", *HEADER], *rows]]
        text = "\ufeff" + "\r\n".join(lines) + "\r\n"
        (folder / "list_attr_celeba.csv").write_text(text, newline="")


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_celeba_layout(tmp_path, suffix, capsys):
    celeba(tmp_path, suffix=suffix)
    data = load_attributes(tmp_path, 32, 3, ["Male", "Black_Hair", "Blond_Hair"])
    assert len(data) == 11
    assert data.names == ["Male", "Black_Hair", "Blond_Hair"]
    assert data.exclusive == ["Black_Hair", "Blond_Hair"]
    assert data.attributes.tolist() == [[i >> 2 & 1, i & 1, i >> 1 & 1] for i in range(11)]
    assert data.attributes.dtype == np.float32
    captured = capsys.readouterr()
    assert "Male 4, Black_Hair 5, Blond_Hair 5" in captured.out
    assert captured.err == ""


def test_the_end_of_celebas_list_is_the_test_split(tmp_path, capsys):
    celeba(tmp_path)
    data = load_attributes(tmp_path, 32, 3, split="test")
    assert [file.name for file in data.images] == ["11.png"]  # a tenth of 12
    assert data.attributes.tolist() == [BITS[11]]
    assert capsys.readouterr().err == ""


def test_images_that_are_not_listed_and_rows_without_an_image(tmp_path):
    celeba(tmp_path, BITS[:4])
    (tmp_path / "img_align_celeba/2.png").unlink()
    data = load_attributes(tmp_path, 32, 3, ["Black_Hair"])
    assert [file.name for file in data.images] == ["0.png", "1.png", "3.png"]
    assert data.attributes.tolist() == [[0], [1], [1]]


def test_an_archive_that_unpacks_to_a_folder_within_itself(tmp_path):
    celeba(tmp_path)
    (tmp_path / "img_align_celeba").rename(tmp_path / "unpacked")
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "unpacked").rename(tmp_path / "img_align_celeba/img_align_celeba")
    assert len(load_attributes(tmp_path, 32, 3)) == 11


def test_a_broken_image_is_left_out_with_its_attributes(tmp_path, capsys):
    celeba(tmp_path)
    (tmp_path / "img_align_celeba/1.png").write_bytes(b"no image")
    data = load_attributes(tmp_path, 32, 3)
    assert data.attributes.tolist() == [BITS[0], *BITS[2:11]]
    assert "1.png" in capsys.readouterr().err


def test_a_folder_for_each_domain(tmp_path):
    folders(tmp_path)
    data = load_attributes(tmp_path, 32, 3)
    assert data.names == data.exclusive == ["bright", "dark", "old"]
    assert data.attributes.tolist() == [[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 3
    chosen = load_attributes(tmp_path, 32, 3, ["old", "dark"])
    assert chosen.names == chosen.exclusive == ["old", "dark"]
    assert chosen.attributes.tolist() == [[1, 0]] * 3 + [[0, 1]] * 2


# ---- lists of other systems ----


def rows_with(name, change=str):
    """The rows of BITS, with file names of a pattern, and changed values."""
    return [[name.format(i), *(change(2 * bit - 1) for bit in bits)] for i, bits in enumerate(BITS)]


@pytest.mark.parametrize("suffix", ["txt", "csv"])
@pytest.mark.parametrize(
    "name",
    ["{}.jpg", "{}", "{}.PNG", "img_align_celeba/{}.png", "C:\\celeba\\{}.jpg", "./{}.png"],
)
def test_names_of_other_systems_find_their_images(tmp_path, suffix, name):
    """CelebA's own list says .jpg, and its img_align_celeba_png holds .png."""
    celeba(tmp_path, suffix=suffix, rows=rows_with(name))
    data = load_attributes(tmp_path, 32, 3)
    assert [file.name for file in data.images] == [f"{i}.png" for i in range(11)]
    assert data.attributes.tolist() == BITS[:11]


def test_spaces_in_names_and_beside_commas(tmp_path):
    celeba(tmp_path / "txt", rows=rows_with("face {}.png"))
    folder = tmp_path / "txt/img_align_celeba"
    for i in range(12):
        (folder / f"{i}.png").rename(folder / f"face {i}.png")
    assert load_attributes(tmp_path / "txt", 32, 3).attributes.tolist() == BITS[:11]
    celeba(tmp_path / "csv", suffix="csv", rows=rows_with(" {}.png", " {} ".format))
    assert load_attributes(tmp_path / "csv", 32, 3).attributes.tolist() == BITS[:11]


@pytest.mark.parametrize("separator", [";", "\t", ",", ", "])
def test_wrong_separators_are_named(tmp_path, separator):
    suffix = "txt" if "," in separator else "csv"
    celeba(tmp_path)
    path = tmp_path / f"list_attr_celeba.{suffix}"
    (tmp_path / "list_attr_celeba.txt").unlink()
    lines = [separator.join(row) for row in [["image_id", *HEADER], *rows_with("{}.png")]]
    path.write_text("\n".join(lines))
    found = {";": "semicolons", "\t": "tabs"}.get(separator, "commas")
    expected = "spaces" if suffix == "txt" else "commas"
    with pytest.raises(UserError, match=f"separated by {found}; those .* by {expected}"):
        load_attributes(tmp_path, 32, 3, ["Male"])


def test_a_list_of_other_images_shows_both_names(tmp_path):
    celeba(tmp_path, rows=rows_with("{:06d}.jpg"))
    message = r"none of the 12 images .*: it lists 000000\.jpg, and 0\.png is there"
    with pytest.raises(UserError, match=message):
        load_attributes(tmp_path, 32, 3)


def test_a_list_with_an_endless_field(tmp_path):
    celeba(tmp_path, suffix="csv", rows=[["x" * 200_000, "1", "1", "1", "1"]])
    with pytest.raises(UserError, match=r"list_attr_celeba\.csv cannot be read: field larger"):
        load_attributes(tmp_path, 32, 3)


# ---- attributes that exclude each other ----


def test_an_image_may_have_no_hair_colour(tmp_path):
    """Image 0 has neither colour, so not every image has exactly one."""
    celeba(tmp_path / "bald")
    assert not load_attributes(tmp_path / "bald", 32, 3).exactly_one
    hair = [[i % 2, 1 - i % 2, *BITS[i][2:]] for i in range(12)]
    celeba(tmp_path / "hair", hair)
    data = load_attributes(tmp_path / "hair", 32, 3)
    assert data.exactly_one
    assert data.exclusive == ["Black_Hair", "Blond_Hair"]


@pytest.mark.parametrize("bald", [3, 11])
def test_the_training_split_decides_for_both_splits(tmp_path, bald):
    """Image 11 is the test split."""
    hair = [[i % 2, 1 - i % 2, *BITS[i][2:]] for i in range(12)]
    hair[bald][:2] = [0, 0]
    celeba(tmp_path, hair)
    for split in ("train", "test"):
        data = load_attributes(tmp_path, 32, 3, split=split)
        assert data.exactly_one == (bald == 11)


def test_a_single_hair_colour_excludes_nothing(tmp_path):
    celeba(tmp_path)
    data = load_attributes(tmp_path, 32, 3, ["Male", "Black_Hair"])
    assert data.exclusive == []
    assert not data.exactly_one


def test_domains_have_exactly_one(tmp_path):
    folders(tmp_path)
    assert load_attributes(tmp_path, 32, 3).exactly_one
    assert load_attributes(tmp_path, 32, 3, ["dark", "old"]).exactly_one


@pytest.mark.parametrize(
    ("selected", "exclusive", "exactly_one"),
    [
        (None, ["red", "green", "blue"], True),
        (["bold", "blue", "red", "green"], ["blue", "red", "green"], True),
        (["red", "green", "bold"], ["red", "green"], False),  # a blue digit has neither
        (["bold", "inverted"], [], False),
    ],
)
def test_coloured_digits(selected, exclusive, exactly_one):
    data = load_attributes(None, 16, 3, selected, split="test")
    assert data.exclusive == exclusive
    assert data.exactly_one == exactly_one
    columns = [data.names.index(name) for name in exclusive]
    counts = data.attributes[:, columns].sum(axis=1)
    assert exactly_one == bool((counts == 1).all())
    pixels, attributes = next(data.stream([[5, 6]], [0] * 500))
    assert pixels.shape == (2, 3, 16, 16)
    assert attributes.tolist() == data.attributes[5:7].tolist()


# ---- errors ----


def one_value(folder):
    """Every image is male, and none is blond."""
    celeba(folder, [[1, 0, 1, i % 2] for i in range(12)])


def short_row(folder):
    celeba(folder, rows=[["0.png", "1", "1", "1", "1"], ["1.png", "1"]])


def word_for_a_number(folder):
    celeba(folder, rows=[["0.png", "1", "1", "x", "1"]])


def images_alone(folder):
    images(folder / "img_align_celeba", 2)


def table_alone(folder):
    celeba(folder)
    (folder / "img_align_celeba").rename(folder / "x")


def one_folder(folder):
    images(folder / "one", 2)


@pytest.mark.parametrize(
    ("make", "selected", "message"),
    [
        (celeba, ["Blnd_Hair"], "nearest: Blond_Hair"),
        (celeba, ["Male", "Male"], "names Male twice"),
        (one_value, ["Male"], "every image has the attribute Male"),
        (one_value, ["Blond_Hair"], "no image has the attribute Blond_Hair"),
        (short_row, None, "row 3: expected a file"),
        (word_for_a_number, None, "row 2: expected a file name"),
        (images_alone, None, "expected list_attr_celeba.txt"),
        (table_alone, None, "expected img_align_celeba/"),
        (one_folder, None, "two or more folders, one for each domain; found: one"),
        (folders, ["bright"], "every image has the attribute bright"),
    ],
)
def test_bad_attributes(tmp_path, make, selected, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        load_attributes(tmp_path / "data", 32, 3, selected)
