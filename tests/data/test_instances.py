"""Label maps with instance maps: layouts, numbering, errors, drawn crowds; k-means."""

from common.clusters import k_means
from common.data import instances
from common.data.instances import MOST_INSTANCES, numbered
from common.data.toy import crowds
from common.errors import UserError

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from registry import images, instance_maps


def arguments(**flags):
    """The arguments of a script, with 32 x 32 images and these flags."""
    args = SimpleNamespace(
        data_dir=None,
        resume=None,
        init_from=None,
        no_boundary=False,
        n_classes=None,
        ignore_label=None,
        channels=3,
        shape=(32, 32),
        load_size=None,
        no_crop=True,
        no_flip=True,
    )
    vars(args).update(flags)
    return args


def load(split="train", **flags):
    return instances.load(arguments(**flags), split)


@pytest.fixture
def data(tmp_path):
    """A folder in the layout of the authors."""
    instance_maps(tmp_path / "data")
    return tmp_path / "data"


# ---- layouts ----


def test_the_layout_of_the_authors(data):
    args = arguments(data_dir=data)
    labels, ids, pictures = instances.load(args, "train").batch(range(8))
    assert (labels.shape, labels.dtype) == ((8, 32, 32), np.int32)
    assert (ids.shape, ids.dtype) == ((8, 32, 32), np.int32)
    assert (pictures.shape, pictures.dtype) == ((8, 3, 32, 32), np.float32)
    assert args.n_classes == 3
    assert not args.no_boundary
    stored = np.asarray(Image.open(data / "train_label/2.png"))
    assert np.array_equal(labels[2], stored)
    # Two blocks are one instance if both values are equal.
    raw = np.asarray(Image.open(data / "train_inst/2.png")).astype(int)
    pairs = 10 * stored + raw
    same = pairs.ravel()[:, None] == pairs.ravel()
    assert np.array_equal(ids[2].ravel()[:, None] == ids[2].ravel(), same)


def test_folders_of_splits(data, tmp_path):
    """train/labels and so on hold the same as train_label and so on."""
    for split in ("train", "test"):
        for ours, theirs in (("labels", "label"), ("instances", "inst"), ("imgs", "img")):
            shutil.copytree(data / f"{split}_{theirs}", tmp_path / "other" / split / ours)
    for split, n in (("train", 8), ("test", 3)):
        one = load(split, data_dir=data)
        other = load(split, data_dir=tmp_path / "other")
        assert len(one) == n
        for a, b in zip(one.batch(range(n)), other.batch(range(n))):
            assert np.array_equal(a, b)
    assert len(load(data_dir=tmp_path / "other/train")) == 8


def test_names_of_cityscapes(data):
    endings = {"label": "gtFine_labelIds", "inst": "gtFine_instanceIds", "img": "leftImg8bit"}
    before = load(data_dir=data).batch(range(8))
    for kind, ending in endings.items():
        for file in (data / f"train_{kind}").iterdir():
            file.rename(file.with_name(f"aachen_{file.stem}_000019_{ending}{file.suffix}"))
    for one, other in zip(before, load(data_dir=data).batch(range(8))):
        assert np.array_equal(one, other)


def test_ids_of_sixteen_bits(data):
    """Cityscapes writes 1000 times the class, plus a number."""
    for file in (data / "train_inst").iterdir():
        ids = np.asarray(Image.open(file)).astype(np.uint16)
        Image.fromarray(26000 + ids).save(file)
    _, ids, _ = load(data_dir=data).batch(range(8))
    assert ids.max() < 15


def test_crops_are_those_of_the_image(tmp_path):
    """All three are cropped and mirrored alike, and the ids are numbered afterwards."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(4, size=(36, 36), dtype=np.uint8)
    for kind, array in (("label", pixels), ("inst", 3 - pixels)):
        (tmp_path / f"train_{kind}").mkdir()
        Image.fromarray(array).save(tmp_path / f"train_{kind}/0.png")
    (tmp_path / "train_img").mkdir()
    Image.fromarray((60 * pixels)[..., None].repeat(3, 2)).save(tmp_path / "train_img/0.png")
    data = load(data_dir=tmp_path, no_crop=False, no_flip=False, load_size=36)
    for seed in range(5):
        labels, ids, pictures = data.batch([0], [seed])
        assert np.array_equal(labels, ids)
        assert np.allclose(pictures[0, 0], labels[0] * 60 / 127.5 - 1, atol=1e-6)


# ---- what is missing, or does not fit ----


def message_of(**flags):
    with pytest.raises(UserError) as raised:
        load(**flags)
    return str(raised.value)


def test_instance_maps_without_label_maps(data):
    shutil.rmtree(data / "train_label")
    message = message_of(data_dir=data)
    assert "train_inst has no label maps beside it" in message


def test_maps_without_images(data):
    shutil.rmtree(data / "train_img")
    assert "expected train_label" in message_of(data_dir=data)


@pytest.mark.parametrize("kind", ["label", "inst", "img"])
def test_a_file_without_its_partner(data, kind):
    next(iter(sorted((data / f"train_{kind}").iterdir()))).unlink()
    message = message_of(data_dir=data)
    assert "1 files have no partner in" in message
    assert f"train_{kind}" in message


def test_instance_maps_of_one_split_alone(data):
    """The networks of the training split see boundaries."""
    shutil.rmtree(data / "test_inst")
    args = arguments(data_dir=data)
    instances.load(args, "train")
    with pytest.raises(UserError, match="has no instance maps beside it, as the training split"):
        instances.load(args, "test")


def test_sizes_that_differ(data):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(data / "train_inst/3.png")
    message = message_of(data_dir=data)
    assert "belong together, but their sizes differ: 32 x 32 and 16 x 16" in message


def test_shapes_of_map_and_image_that_differ(data):
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(data / "train_img/3.jpg")
    assert "their shapes differ: 32 x 32 and 32 x 16" in message_of(data_dir=data)


def test_lossy_instance_maps(data):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(data / "train_inst/9.jpg")
    assert "no partner" in message_of(data_dir=data)
    (data / "train_inst/9.jpg").unlink()
    (data / "train_inst/3.png").unlink()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(data / "train_inst/3.jpg")
    assert "jpg alters the labels of a map" in message_of(data_dir=data)


def test_a_photograph_as_an_instance_map(tmp_path):
    """It has more values than a scene has objects."""
    for kind in ("label", "inst"):
        (tmp_path / f"train_{kind}").mkdir()
    images(tmp_path / "train_img", 1, size=(64, 64))
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "train_label/0.png")
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "train_inst/0.png")
    message = message_of(data_dir=tmp_path, shape=(64, 64))
    assert "train_inst/0.png is no instance map: it has 4,096 ids, and at most 1,024" in message


# ---- numbers ----


def test_numbers_by_hand():
    labels = np.int32([[0, 0, 1], [2, 1, 1]])
    ids = np.int32([[0, 7, 7], [0, 7, 9]])
    # In the order of (label, id): (0, 0), (0, 7), (1, 7), (1, 9), (2, 0).
    assert numbered(labels, ids).tolist() == [[0, 1, 2], [4, 2, 3]]
    at_most = np.arange(MOST_INSTANCES, dtype=np.int32).reshape(-1, 32)
    assert np.array_equal(numbered(np.zeros_like(at_most), at_most), at_most)
    with pytest.raises(ValueError, match="1,025 instances"):
        numbered(np.zeros((1, 1025), np.int32), np.arange(1025, dtype=np.int32)[None])


def test_faces_have_a_code_for_each_class(capsys):
    args = arguments(data_dir="faces")
    labels, ids, pictures = instances.load(args, "train").batch([0, 1])
    assert args.no_boundary and args.n_classes == 9
    assert "There are no instance maps" in capsys.readouterr().out
    assert pictures.shape == (2, 3, 32, 32)
    for label, number in zip(labels, ids):
        assert len(np.unique(label)) == len(np.unique(number))
        assert len(np.unique(label * 100 + number)) == len(np.unique(label))


# ---- crowds ----


def test_crowds_are_the_same_in_every_run():
    one = load().batch([0, 5, 1999])
    other = load().batch([0, 5, 1999])
    for a, b in zip(one, other):
        assert np.array_equal(a, b)
    assert (len(load()), len(load("test"))) == (2000, 200)


def test_crowds_show_what_their_maps_say():
    """A digit's inner pixels have its colour alone, and its rim is dark."""
    data = crowds.Crowds(64, 64, "train")
    for index in range(20):
        crowd, _ = data.drawn(index)
        labels, ids, picture = data.load(index)
        assert np.array_equal(labels == crowds.DIGIT, ids > 0)
        rims = crowds.borders(ids)
        for k in range(1, len(crowd.digits) + 1):
            pixels = picture[:, ids == k]
            inner = picture[:, (ids == k) & ~rims]
            if inner.size == 0:
                continue
            assert (inner == inner[:, :1]).all()
            outer = picture[:, (ids == k) & rims].astype(float)
            assert np.allclose(outer, crowds.RIM * inner[:, :1], atol=1)
            assert pixels.shape[1] <= crowd.shapes[k - 1].sum()


def test_digits_of_a_crowd_touch():
    data = crowds.Crowds(64, 64, "test")
    n_touching = 0
    for index in range(len(data)):
        crowd, _ = data.drawn(index)
        both = np.stack([crowd.ids[:, 1:], crowd.ids[:, :-1]])
        n_touching += ((both[0] != both[1]) & (both > 0).all(0)).any()
    assert n_touching > 0.9 * len(data)


def test_the_splits_of_crowds_share_no_digit():
    train = crowds.Crowds(32, 32, "train")
    test = crowds.Crowds(32, 32, "test")
    seen = {image.tobytes() for image in train.pixels}
    assert not any(image.tobytes() in seen for image in test.pixels)


@pytest.mark.parametrize("shape", [(32, 32), (48, 96), (128, 64)])
def test_crowds_of_any_shape(shape):
    labels, ids, picture = crowds.Crowds(*shape, "train", 1).load(3)
    assert labels.shape == ids.shape == shape
    assert picture.shape == (1, *shape)


# ---- k-means ----


def test_k_means_by_hand():
    points = [[0, 0], [0, 2], [10, 0], [10, 2], [10, 4]]
    assert sorted(k_means(points, 2).tolist()) == [[0, 1], [10, 2]]
    assert k_means(points, 1).tolist() == [[6, 1.6000000238418579]]


def test_k_means_of_few_points():
    assert sorted(k_means([[1.0], [1.0], [2.0]], 5).tolist()) == [[1], [2]]
    assert k_means([[3.0]], 2).tolist() == [[3]]


@pytest.mark.parametrize("seed", range(3))
def test_k_means_finds_groups_that_lie_apart(seed):
    rng = np.random.default_rng(seed)
    centres = np.float64([[0, 0], [5, 0], [0, 5], [5, 5]])
    points = centres.repeat(50, axis=0) + 0.2 * rng.standard_normal((200, 2))
    found = k_means(points, 4, seed)
    order = np.lexsort(np.round(found.T))
    expected = np.stack([points[50 * k : 50 * k + 50].mean(0) for k in (0, 1, 2, 3)])
    assert np.allclose(found[order], expected, atol=1e-5)
