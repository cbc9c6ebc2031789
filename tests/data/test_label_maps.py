"""Label maps and images: layouts, what a map may hold, crops, errors, drawn scenes."""

from common import UserError
from common.data import label_maps
from common.data.label_maps import Classes, colours_of, one_hot, open_map, resized
from common.data.toy.scenes import CLASSES, FIRST_DIGIT, GROUND, SKY, WATER, Scenes

import shutil
from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import images


def arguments(**flags):
    """The arguments of a script, with 32 x 32 images and these flags."""
    args = SimpleNamespace(
        data_dir=None,
        label_dir=None,
        image_dir=None,
        n_classes=None,
        ignore_label=None,
        channels=3,
        shape=(32, 32),
        load_size=None,
        no_crop=False,
        no_flip=False,
    )
    vars(args).update(flags)
    return args


def load(split="train", **flags):
    return label_maps.load(arguments(**flags), split)


def blocks(labels):
    """Labels (H, W), each as a block of 8 x 8 pixels."""
    return labels.repeat(8, axis=0).repeat(8, axis=1)


def maps(folder, n, values=(0, 1, 3), suffix="png"):
    """n maps of 32 x 32 pixels, in random blocks of these labels."""
    folder.mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng(i)
        labels = blocks(rng.choice(np.uint8(values), (4, 4)))
        labels[0, 0] = max(values)  # every map has the largest label
        Image.fromarray(labels).save(folder / f"{i}.{suffix}")


def contest(folder, n=4, **options):
    """The contest's layout: train/labels and train/imgs."""
    maps(folder / "train/labels", n, **options)
    images(folder / "train/imgs", n, suffix="jpg")
    return folder


# ---- layouts ----


def test_the_contests_layout(tmp_path, capsys):
    args = arguments(data_dir=contest(tmp_path))
    data = label_maps.load(args, "train")
    classes, pictures = data.batch([0, 2])
    assert (classes.shape, classes.dtype) == ((2, 32, 32), np.int32)
    assert (pictures.shape, pictures.dtype) == ((2, 3, 32, 32), np.float32)
    assert set(np.unique(classes)) == {0, 1, 3}
    assert args.n_classes == 4  # found: the largest label is 3
    assert "1 have no pixel: 2" in capsys.readouterr().out


def test_the_number_of_classes_is_found_when_it_is_needed(tmp_path):
    args = arguments(data_dir=contest(tmp_path))
    assert label_maps.n_classes(args) == 4
    assert args.n_classes == 4


def test_class_shares_by_hand(tmp_path, capsys):
    (tmp_path / "train/labels").mkdir(parents=True)
    labels = np.zeros((32, 32), np.uint8)
    labels[:8] = 2  # a quarter
    Image.fromarray(labels).save(tmp_path / "train/labels/0.png")
    images(tmp_path / "train/imgs", 1)
    load(data_dir=tmp_path)
    assert "Classes (train): 0 75%, 2 25%; 1 have no pixel: 1" in capsys.readouterr().out


def test_two_folders_and_a_folder_that_is_one_split(tmp_path, capsys):
    """The first is the layout of SPADE's authors."""
    contest(tmp_path)
    both = {"label_dir": tmp_path / "train/labels", "image_dir": tmp_path / "train/imgs"}
    in_two_folders = load(**both)
    with_splits = load(data_dir=tmp_path)
    one_split = load(data_dir=tmp_path / "train")
    assert in_two_folders.files == with_splits.files == one_split.files
    assert "no test split" not in capsys.readouterr().err
    assert len(load("test", **both)) == 4
    assert "no test split" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["val", "test"])
def test_the_test_split(tmp_path, name):
    contest(tmp_path)
    maps(tmp_path / name / "labels", 2)
    images(tmp_path / name / "images", 2)
    assert len(load("test", data_dir=tmp_path)) == 2


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


def test_an_ignored_label_is_the_last_class(tmp_path):
    contest(tmp_path, values=(0, 2, 255))
    args = arguments(data_dir=tmp_path, ignore_label=255)
    data = label_maps.load(args, "train")
    assert args.n_classes == 3
    assert label_maps.n_classes(args) == 4
    assert set(np.unique(data.batch([0, 1, 2, 3])[0])) == {0, 2, 3}


def test_a_hint_at_a_label_that_may_stand_for_unknown(tmp_path, capsys):
    args = arguments(data_dir=contest(tmp_path, values=(0, 2, 255)))
    label_maps.load(args, "train")
    assert args.n_classes == 256
    assert "--ignore_label 255 would make fewer classes" in capsys.readouterr().err


def test_classes_by_hand():
    labels = np.int32([[0, 2], [255, 1]])
    assert Classes(3, 255).of(labels).tolist() == [[0, 2], [3, 1]]
    assert Classes(3, 255).total == 4
    assert Classes(3).total == 3


def test_maps_are_resized_to_the_nearest_label():
    labels = np.int32([[0, 9], [5, 7]])
    assert resized(labels, (4, 6)).tolist() == [[0, 0, 0, 9, 9, 9]] * 2 + [[5, 5, 5, 7, 7, 7]] * 2
    stripes = np.int32([[0, 9] * 50])
    assert set(np.unique(resized(stripes, (7, 7)))) <= {0, 9}  # nothing between two labels


def test_one_hot_by_hand():
    classes = np.int32([[[0, 2], [1, 2]]])
    expected = [[[[1, 0], [0, 0]], [[0, 0], [1, 0]], [[0, 1], [0, 1]]]]
    assert one_hot(jt.array(classes), 3).numpy().tolist() == expected


def test_the_colours_of_classes_differ():
    colours = colours_of(np.arange(29, dtype=np.int32)[None, None], 29)[0, :, 0]
    distance = np.abs(colours[:, :, None] - colours[:, None]).max(axis=0)
    assert distance[~np.eye(29, dtype=bool)].min() > 0.05
    assert np.abs(colours).max() <= 1


# ---- crops ----


@pytest.fixture
def matching(tmp_path):
    """One map, and its image at twice the size: label 1 is white, 0 black."""
    labels = blocks(np.random.default_rng(0).integers(2, size=(8, 12), dtype=np.uint8))
    pixels = (255 * labels).repeat(2, axis=0).repeat(2, axis=1)
    for name, array in (("labels", labels), ("imgs", pixels)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "x.png")
    return tmp_path


def test_a_map_and_its_image_are_cropped_and_mirrored_equally(matching):
    data = load(data_dir=matching, shape=(32, 64))
    seen = set()
    for seed in range(20):
        classes, pictures = data.batch([0], [seed])
        assert classes.shape == (1, 32, 64)
        agreement = (pictures[0, 0] > 0) == classes[0]
        assert agreement.mean() > 0.93  # the edges of the image are smooth
        seen.add(classes.tobytes())
    assert len(seen) > 10


def test_without_crops_and_mirroring(matching):
    data = load(data_dir=matching, no_crop=True, no_flip=True)
    assert len({data.batch([0], [seed])[0].tobytes() for seed in range(5)}) == 1


# ---- errors ----


def replaced(array, mode=None, **options):
    """A function that makes a folder in which the map 1.png is another file."""

    def make(folder):
        contest(folder)
        Image.fromarray(array, mode).save(folder / "train/labels/1.png", **options)

    return make


def jpeg_maps(folder):
    contest(folder, suffix="jpg")


def without_an_image(folder):
    contest(folder)
    (folder / "train/imgs/2.jpg").unlink()


def without_a_map(folder):
    contest(folder)
    (folder / "train/labels/2.png").unlink()


def two_maps_of_a_name(folder):
    contest(folder)
    labels = folder / "train/labels"
    shutil.copy(labels / "2.png", labels / "2.bmp")


def images_alone(folder):
    images(folder / "train/imgs", 2)


def empty_folders(folder):
    (folder / "labels").mkdir(parents=True)
    (folder / "imgs").mkdir()


def broken_maps(folder):
    contest(folder)
    for file in (folder / "train/labels").iterdir():
        file.write_bytes(b"x")


ZEROS = np.zeros((32, 32), np.uint8)
BAD = {  # name: (a function that makes the data, further flags, the message)
    "colours": (
        replaced(np.zeros((32, 32, 3), np.uint8)),
        {},
        "1.png is no label map: it has mode RGB",
    ),
    "transparency": (
        replaced(np.zeros((32, 32, 4), np.uint8)),
        {},
        "1.png is no label map: it has mode RGBA",
    ),
    "grey and transparency": (
        replaced(np.zeros((32, 32, 2), np.uint8), "LA"),
        {},
        "it has mode LA",
    ),
    "fractions": (
        replaced(np.zeros((32, 32), np.float32), format="tiff"),
        {},
        "1.png is no label map: it has mode F",
    ),
    "negative labels": (
        replaced(np.full((32, 32), -1, np.int32), format="tiff"),
        {},
        "holds -1 to -1; labels start at 0",
    ),
    "a label too large": (
        contest,
        {"n_classes": 3},
        "labels/0.png holds the label 3 in .* go from 0 to 2; 4 of 4",
    ),
    "16 bits": (
        replaced(np.full((32, 32), 300, np.uint16)),
        {},
        "1.png holds the label 300 in 1,024 pixels, .* 0 to 255",
    ),
    "another shape": (
        replaced(ZEROS[:16]),
        {},
        "their shapes differ: 32 x 16 and 32 x 32",
    ),
    "JPEG": (jpeg_maps, {}, "0.jpg: jpg alters the labels"),
    "no image": (without_an_image, {}, r"no partner in .*imgs: .*labels/2.png"),
    "no map": (without_a_map, {}, r"no partner in .*labels: .*imgs/2.jpg"),
    "two maps of a name": (
        two_maps_of_a_name,
        {},
        r"labels/2.bmp and 2.png have the same name",
    ),
    "images alone": (images_alone, {}, r"expected train/labels .* found: train"),
    "no file": (empty_folders, {}, "found: nothing"),
    "broken maps": (broken_maps, {}, "4 of 4 images cannot be read"),
    "one folder of two": (
        contest,
        {"label_dir": "x"},
        "--label_dir and --image_dir belong together",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_maps_end_in_one_line(tmp_path, case):
    make, flags, message = BAD[case]
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as error:
        load(data_dir=tmp_path / "data", **flags)
    assert "\n" not in str(error.value)


def test_scenes_have_their_own_classes():
    with pytest.raises(UserError, match="13 classes"):
        load(n_classes=5)


# ---- the drawn scenes ----


def test_scenes_depend_on_their_index_and_share_no_digit():
    train = Scenes(32, 64, "train")
    test = Scenes(32, 64, "test")
    assert (len(train), len(test)) == (2000, 200)
    seen = {digit.tobytes() for digit in train.pixels}
    assert not any(digit.tobytes() in seen for digit in test.pixels)
    assert np.bincount(train.times).tolist() == [500] * 4

    again = Scenes(32, 64, "train")
    for array, same in zip(train.batch([3, 5]), again.batch([3, 5])):
        assert np.array_equal(array, same)


def test_every_map_has_sky_over_water_over_ground():
    classes, _ = Scenes(48, 48, "test").batch(range(80))
    assert set(np.unique(classes)) == set(range(len(CLASSES)))
    for row, name in ((0, SKY), (-1, GROUND)):
        labels = classes[:, row]
        assert ((labels == name) | (labels >= FIRST_DIGIT)).all()


@pytest.mark.parametrize("name", [SKY, WATER, GROUND])
def test_the_time_of_day_changes_the_colours_most(name):
    data = Scenes(48, 48, "test")
    classes, pictures = data.batch(range(80))
    times = data.times[:80]
    means = np.stack([x[:, c == name].mean(axis=1) for c, x in zip(classes, pictures)])
    of_time = np.stack([means[times == t].mean(axis=0) for t in range(4)])
    within = np.abs(means - of_time[times])
    between = np.abs(of_time[:, None] - of_time).max(axis=-1)
    assert within.max() < between[~np.eye(4, dtype=bool)].min()


def test_grey_scenes():
    _, pictures = Scenes(32, 32, "test", channels=1).batch([0])
    assert pictures.shape == (1, 1, 32, 32)


# ---- EXIF, and content that its suffix denies ----


@pytest.mark.parametrize("both", [True, False])
def test_a_map_is_turned_like_its_image(tmp_path, both):
    """Orientation 6 says: turn it by 90 degrees clockwise to see it upright."""
    labels = np.zeros((16, 32), np.uint8)
    labels[:, 16:] = 3
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(labels)
    photograph = upright.point(lambda label: 80 * label).convert("RGB")
    for folder in ("labels", "imgs"):
        (tmp_path / folder).mkdir()
    photograph.rotate(90, expand=True).save(tmp_path / "imgs/0.jpg", quality=95, exif=exif)
    if both:
        upright.rotate(90, expand=True).save(tmp_path / "labels/0.png", exif=exif)
    else:
        upright.save(tmp_path / "labels/0.png")
    assert np.array_equal(open_map(tmp_path / "labels/0.png"), labels)
    data = load(data_dir=tmp_path, shape=(16, 32), no_crop=True, no_flip=True)
    classes, pixels = data.batch([0])
    assert np.array_equal(classes[0], labels)
    assert (pixels[0, 0, :, 2:14] < -0.9).all()
    assert (pixels[0, 0, :, 18:30] > 0.8).all()


@pytest.mark.parametrize("stored_as", ["JPEG", "WEBP"])
def test_lossy_content_is_no_map(tmp_path, stored_as):
    contest(tmp_path)
    path = tmp_path / "train/labels/2.png"
    Image.fromarray(ZEROS).save(path, stored_as)
    with pytest.raises(UserError, match=rf"2\.png: its content is {stored_as}"):
        load(data_dir=tmp_path)
