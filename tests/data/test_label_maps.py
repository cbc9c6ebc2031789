"""Label maps and images: layouts, what a map may hold, bad maps in one line, crops alike; the drawn scenes."""

from common import UserError
from common.data import label_maps
from common.data.label_maps import Classes, colours_of, one_hot, open_map, resized
from common.data.scenes import CLASSES, FIRST_DIGIT, GROUND, SKY, WATER, Scenes

import shutil

import numpy as np
import pytest
from PIL import Image
from registry import images

import spade


def maps(folder, n, values=(0, 1, 3), size=(32, 32), suffix="png"):
    """n maps of grey blocks with these labels."""
    folder.mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng(i)
        labels = (
            rng.choice(np.uint8(values), (size[1] // 8, size[0] // 8))
            .repeat(8, axis=0)
            .repeat(8, axis=1)
        )
        labels[0, 0] = max(values)
        Image.fromarray(labels).save(folder / f"{i}.{suffix}")


def contest(folder, n=4, **more):
    """The contest's layout: train/labels and train/imgs."""
    maps(folder / "train/labels", n, **more)
    images(folder / "train/imgs", n, suffix="jpg")
    return folder


def load(*flags, split="train"):
    args = spade.parse_args(["--img_size", "32", *map(str, flags)])
    return label_maps.load(args, split), args


# ---- layouts ----


def test_the_contests_layout(tmp_path, capsys):
    data, args = load("--data_dir", contest(tmp_path))
    classes, pictures = data.batch([0, 2])
    assert (classes.shape, classes.dtype, pictures.shape) == ((2, 32, 32), np.int32, (2, 3, 32, 32))
    assert set(np.unique(classes)) == {0, 1, 3}
    assert args.n_classes == args.stored["n_classes"] == 4  # found: the largest label is 3
    assert "1 have no pixel: 2" in capsys.readouterr().out
    assert label_maps.n_classes(args) == 4


def test_class_shares_by_hand(tmp_path, capsys):
    (tmp_path / "train/labels").mkdir(parents=True)
    labels = np.zeros((32, 32), np.uint8)
    labels[:8] = 2  # a quarter
    Image.fromarray(labels).save(tmp_path / "train/labels/x.png")
    images(tmp_path / "imgs", 1)
    (tmp_path / "train/imgs").mkdir()
    (tmp_path / "imgs/0.png").rename(tmp_path / "train/imgs/x.png")
    load("--data_dir", tmp_path)
    assert "Classes (train): 0 75%, 2 25%; 1 have no pixel: 1" in capsys.readouterr().out


def test_spades_own_layout_and_a_folder_that_is_one_part(tmp_path, capsys):
    contest(tmp_path)
    both = ["--label_dir", tmp_path / "train/labels", "--image_dir", tmp_path / "train/imgs"]
    one, other, third = (
        load(*both)[0],
        load("--data_dir", tmp_path)[0],
        load("--data_dir", tmp_path / "train")[0],
    )
    assert one.files == other.files == third.files
    assert "no test part" not in capsys.readouterr().err
    test_part = load(*both, split="test")[0]
    assert len(test_part) == 4 and "no test part" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["val", "test"])
def test_the_test_part(tmp_path, name):
    contest(tmp_path)
    maps(tmp_path / name / "labels", 2)
    images(tmp_path / name / "images", 2)
    assert len(load("--data_dir", tmp_path, split="test")[0]) == 2


# ---- what a map holds ----


def test_palettes_and_depths_give_the_same_labels(tmp_path):
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    palette = Image.fromarray(labels, "P")
    palette.putpalette([255 - k // 3 for k in range(768)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(labels).save(tmp_path / "grey.bmp")
    for file in tmp_path.iterdir():
        assert np.array_equal(open_map(file), labels), file
    Image.fromarray(labels > 31).save(tmp_path / "bit.png")
    assert np.array_equal(open_map(tmp_path / "bit.png"), labels > 31)


def test_an_ignored_label_is_the_last_class(tmp_path, capsys):
    contest(tmp_path, values=(0, 2, 255))
    data, args = load("--data_dir", tmp_path, "--ignore_label", 255)
    assert (args.n_classes, label_maps.n_classes(args)) == (3, 4)
    assert set(np.unique(data.batch([0, 1, 2, 3])[0])) == {0, 2, 3}
    capsys.readouterr()
    assert load("--data_dir", tmp_path)[1].n_classes == 256
    assert "--ignore_label 255 would make fewer classes" in capsys.readouterr().err


def test_maps_are_resized_to_the_nearest_label():
    labels = np.int32([[0, 9], [5, 7]])
    assert resized(labels, (4, 6)).tolist() == [[0, 0, 0, 9, 9, 9]] * 2 + [[5, 5, 5, 7, 7, 7]] * 2
    assert set(np.unique(resized(np.int32([[0, 9] * 50]), (7, 7)))) <= {
        0,
        9,
    }  # never between two labels


def test_one_hot_and_colours():
    import jittor as jt

    classes = np.int32([[[0, 2], [1, 2]]])
    expected = [[[[1, 0], [0, 0]], [[0, 0], [1, 0]], [[0, 1], [0, 1]]]]
    assert one_hot(jt.array(classes), 3).numpy().tolist() == expected
    colours = colours_of(np.arange(29, dtype=np.int32)[None, None], 29)[0, :, 0]
    distance = np.abs(colours[:, :, None] - colours[:, None]).max(0) + 9 * np.eye(29)
    assert distance.min() > 0.05 and colours.min() >= -1 and colours.max() <= 1


# ---- crops ----


def test_a_map_and_its_image_are_cropped_and_mirrored_alike(tmp_path):
    """The image is painted from the map, at twice its size: label 1 is white, 0 black."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(8, 12), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    for name, pixels in (
        ("labels", labels),
        ("imgs", (255 * labels).repeat(2, axis=0).repeat(2, axis=1)),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.png")
    data, _ = load("--data_dir", tmp_path, "--img_height", 32, "--img_width", 64)
    seen = set()
    for seed in range(20):
        classes, pictures = data.batch([0], [seed])
        assert classes.shape == (1, 32, 64)
        assert (
            (pictures[0, 0] > 0) == classes[0]
        ).mean() > 0.93  # but for the edges, which are smooth
        seen.add(classes.tobytes())
    assert len(seen) > 10
    still, _ = load("--data_dir", tmp_path, "--no_crop", "--no_flip")
    assert len({still.batch([0], [seed])[0].tobytes() for seed in range(5)}) == 1


# ---- bad data ----


def replaced(make):
    """A folder in which the map 1.png is another file."""

    def prepare(folder):
        contest(folder)
        make(folder / "train/labels/1.png")

    return prepare


def save(array, mode=None, **more):
    return replaced(lambda path: Image.fromarray(array, mode).save(path, **more))


SQUARE = np.zeros((32, 32), np.uint8)
BAD = {
    "colours": (
        save(np.zeros((32, 32, 3), np.uint8)),
        [],
        "1.png is no label map: it has mode RGB",
    ),
    "transparency": (
        save(np.zeros((32, 32, 4), np.uint8)),
        [],
        "1.png is no label map: it has mode RGBA",
    ),
    "grey and transparency": (save(np.zeros((32, 32, 2), np.uint8), "LA"), [], "it has mode LA"),
    "fractions": (
        save(np.zeros((32, 32), np.float32), format="tiff"),
        [],
        "1.png is no label map: it has mode F",
    ),
    "negative labels": (
        save(np.full((32, 32), -1, np.int32), format="tiff"),
        [],
        "holds -1 to -1; labels start at 0",
    ),
    "a label too large": (
        contest,
        ["--n_classes", 3],
        "labels/0.png holds the label 3 in .* go from 0 to 2; 4 of 4",
    ),
    "16 bits": (
        save(np.full((32, 32), 300, np.uint16)),
        [],
        "1.png holds the label 300 in 1,024 pixels, .* 0 to 255",
    ),
    "another shape": (save(SQUARE[:16]), [], "their shapes differ: 32 x 16 and 32 x 32"),
    "JPEG": (lambda d: contest(d, suffix="jpg"), [], "0.jpg: jpg alters the labels"),
    "no image": (
        lambda d: (contest(d), (d / "train/imgs/2.jpg").unlink()),
        [],
        r"no partner in .*imgs: .*labels/2.png",
    ),
    "no map": (
        lambda d: (contest(d), (d / "train/labels/2.png").unlink()),
        [],
        r"no partner in .*labels: .*imgs/2.jpg",
    ),
    "two maps of a name": (
        lambda d: shutil.copy(contest(d) / "train/labels/2.png", d / "train/labels/2.bmp"),
        [],
        r"labels/2.bmp and 2.png have one name",
    ),
    "images alone": (
        lambda d: images(d / "train/imgs", 2),
        [],
        r"expected train/labels .* found: train",
    ),
    "no file": (
        lambda d: (d / "labels").mkdir(parents=True) or (d / "imgs").mkdir(),
        [],
        "found: nothing",
    ),
    "broken maps": (
        lambda d: [k.write_bytes(b"x") for k in spoilt(d)],
        [],
        "4 of 4 images cannot be read",
    ),
    "one folder of two": (
        contest,
        ["--label_dir", "x"],
        "--label_dir and --image_dir belong together",
    ),
}


def spoilt(folder):
    return sorted((contest(folder) / "train/labels").iterdir())


@pytest.mark.parametrize("case", BAD)
def test_bad_maps_end_in_one_line(tmp_path, case):
    make, flags, message = BAD[case]
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as error:
        load("--data_dir", tmp_path / "data", *flags)
    assert "\n" not in str(error.value)


def test_scenes_have_their_own_classes():
    with pytest.raises(UserError, match="13 classes"):
        load("--n_classes", 5)


# ---- the drawn scenes ----


def test_scenes_follow_from_their_number_and_share_no_digit():
    train, test = Scenes(32, 64, "train"), Scenes(32, 64, "test")
    assert [len(train), len(test)] == [2000, 200]
    assert not {x.tobytes() for x in train.pixels} & {x.tobytes() for x in test.pixels}
    again = Scenes(32, 64, "train")
    assert all(np.array_equal(a, b) for a, b in zip(train.batch([3, 5]), again.batch([3, 5])))
    assert np.bincount(train.times).tolist() == [500] * 4


def test_a_map_does_not_tell_the_time_of_day():
    """Sky over water over ground in every map; the colours of each differ by time of day, by nothing else as much."""
    data = Scenes(48, 48, "test")
    classes, pictures = data.batch(range(80))
    assert set(np.unique(classes)) == set(range(len(CLASSES)))
    assert ((classes[:, 0] == SKY) | (classes[:, 0] >= FIRST_DIGIT)).all()
    assert ((classes[:, -1] == GROUND) | (classes[:, -1] >= FIRST_DIGIT)).all()
    for name in (SKY, WATER, GROUND):
        means = np.stack([x[:, c == name].mean(1) for c, x in zip(classes, pictures)])
        of_time = np.stack([means[data.times[:80] == t].mean(0) for t in range(4)])
        within = np.concatenate([means[data.times[:80] == t] - of_time[t] for t in range(4)])
        between = np.abs(of_time[:, None] - of_time).max(-1) + 9 * np.eye(4)
        assert np.abs(within).max() < between.min()


def test_grey_scenes():
    assert Scenes(32, 32, "test", channels=1).batch([0])[1].shape == (1, 1, 32, 32)


def test_classes_by_hand():
    labels = np.int32([[0, 2], [255, 1]])
    assert Classes(3, 255).of(labels).tolist() == [[0, 2], [3, 1]]
    assert (Classes(3, 255).total, Classes(3).total) == (4, 3)
