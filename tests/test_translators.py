"""pix2pix.py, cyclegan.py, stargan.py: their data, parts of the method by hand, translating folders, bad input."""

import importlib

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from small import FLAGS, SHARED, folders, images, make_data, run

import cyclegan
import pix2pix
import stargan
from common import UserError, fast, synthetic
from common.attributes import load_attributes
from common.pairs import load_pairs
from common.unpaired import load_domains

# ---- drawn data ----


def test_drawn_sets_are_the_same_in_every_run_and_share_no_digit():
    train, test = (synthetic.bundled_digits(split) for split in ("train", "test"))
    assert [len(train[1]), len(test[1])] == [4500, 500]
    assert np.bincount(test[1]).tolist() == [50] * 10
    seen = {image.tobytes() for image in train[0]}
    assert not [image for image in test[0] if image.tobytes() in seen]
    for make in (synthetic.outline_pairs, synthetic.coloured_digits):
        one, other = make(32, "test"), make(32, "test")
        assert all(np.array_equal(a, b) for a, b in zip(one, other))


def test_outlines_tell_no_colour_and_paintings_have_that_of_their_class():
    outlines, paintings, labels = synthetic.outline_pairs(64, "test")
    assert outlines.shape == paintings.shape == (500, 3, 64, 64)
    assert (outlines == outlines[:, :1]).all()  # grey
    assert (paintings[:, :, 0, 0] == synthetic.GROUND).all()
    for k in range(10):
        painting = paintings[labels == k][0].reshape(3, -1).T.astype(int)
        assert (np.abs(painting - synthetic.COLOURS[k]).max(1) == 0).sum() > 50


def test_no_digit_is_in_both_domains():
    (white, labels_A), (inked, labels_B) = synthetic.digit_domains(32, "train")
    assert white.shape == inked.shape == (2250, 1, 32, 32)
    assert white.mean() < 60 < 150 < inked.mean()
    assert np.bincount(labels_A).tolist() == np.bincount(labels_B).tolist() == [225] * 10
    pixels, _ = synthetic.bundled_digits("train")
    halves = [{image.tobytes() for image in half} for half in (pixels[:2250], pixels[2250:])]
    assert not halves[0] & halves[1]


def test_coloured_digits_have_exactly_one_colour():
    pictures, attributes, _ = synthetic.coloured_digits(32, "test")
    assert (attributes[:, :3].sum(1) == 1).all()
    for k in range(3):
        mean = pictures[attributes[:, k] == 1].mean((0, 2, 3))
        assert mean.argmax() == k
    inverted = attributes[:, 4] == 1
    corners = pictures[:, :, 0, 0]  # of the ground
    assert not corners[~inverted].any()
    assert (corners[inverted] == synthetic.ATTRIBUTE_COLOURS[attributes[inverted, :3].argmax(1)]).all()
    assert (pictures.min(1).max((1, 2))[inverted] > 240).all()  # the digit is white
    assert (pictures.min(1).max((1, 2))[~inverted] < 70).all()


# ---- pairs ----


def pair_image(path, left, right, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], 2 * size[0], 3), np.uint8)
    pixels[:, : size[0]], pixels[:, size[0] :] = left, right
    Image.fromarray(pixels).save(path)


def test_side_by_side_pairs_and_both_directions(tmp_path):
    pair_image(tmp_path / "train/x.png", 255, 0)
    for direction, expected in (("AtoB", [1, -1]), ("BtoA", [-1, 1])):
        inputs, targets = load_pairs(tmp_path, 32, 3, direction).batch([0])
        assert [inputs.mean(), targets.mean()] == expected


def test_two_folders_of_equal_names(tmp_path):
    for side, value in (("A", 255), ("B", 0)):
        (tmp_path / f"train{side}").mkdir()
        suffix = {"A": "png", "B": "bmp"}[side]
        Image.new("L", (32, 32), value).save(tmp_path / f"train{side}/x.{suffix}")
    inputs, targets = load_pairs(tmp_path, 32, 3).batch([0])
    assert [inputs.mean(), targets.mean()] == [1, -1]


def test_jitter_and_mirroring_are_the_same_for_both_sides(tmp_path):
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None]
    pair_image(tmp_path / "train/x.png", ramp, ramp)
    data = load_pairs(tmp_path, 32, 3, augment=True)
    seen = set()
    for seed in range(20):
        inputs, targets = data.batch([0], [seed])
        assert np.array_equal(inputs, targets)
        seen.add(bool(inputs[0, 0, 0, 0] < inputs[0, 0, 0, -1]))
    assert seen == {True, False}  # mirrored and not
    assert len({data.batch([0], [seed])[0].tobytes() for seed in range(20)}) > 5  # several crops


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: images(d / "train", 2, (33, 32)), "33 x 32 pixels cannot be halved"),
        (lambda d: (images(d / "trainA", 2), images(d / "trainB", 3)), "1 images have no partner"),
        (lambda d: (images(d / "trainA", 2), images(d / "trainB", 2, (40, 32))), "sizes differ: 32 x 32 and 40 x 32"),
        (lambda d: images(d / "elsewhere", 2), "holds neither train/"),
        (lambda d: (d / "train").mkdir(parents=True), "holds no png"),
    ],
)
def test_bad_pairs(tmp_path, fails, make, message):
    make(tmp_path / "data")
    code, line = fails(pix2pix.main, ["--data_dir", tmp_path / "data", "--out_dir", tmp_path / "out"])
    assert code == 2
    assert message in line


# ---- unpaired domains ----


def test_domains_of_different_sizes(tmp_path):
    """An epoch shows every image of the larger domain once, and random ones of the smaller."""
    images(tmp_path / "trainA", 2, (50, 40))
    images(tmp_path / "trainB", 7, (32, 64), seed=1)
    data = load_domains(tmp_path, None, 32, 1)
    assert len(data) == 7
    a, b = data.batch(range(7), range(0, 7 << 8, 1 << 8))
    assert a.shape == b.shape == (7, 1, 32, 32)
    assert len({x.tobytes() for x in b}) == 7
    assert len({x.tobytes() for x in a}) == 2


def test_domains_of_equal_size_are_not_paired_by_their_order(tmp_path):
    images(tmp_path / "train/A", 5)
    images(tmp_path / "train/B", 5, seed=1)
    data = load_domains(tmp_path, None, 32, 3)
    partners = {data.batch([2], [seed << 8])[1].tobytes() for seed in range(50)}
    assert len(partners) == 5


def test_idx_folder_against_image_folder(tmp_path, idx_folder):
    images(tmp_path / "pictures", 3)
    data = load_domains(idx_folder, tmp_path / "pictures", 32, 3)
    a, b = data.batch([0], [0])
    assert a.shape == b.shape == (1, 3, 32, 32)
    assert np.array_equal(a[:, 0], a[:, 1])  # grey digits as colour


@pytest.mark.parametrize(
    ("make", "flags", "message"),
    [
        (lambda d: images(d / "trainA", 2), [], "trainB is not a folder"),
        (lambda d: (images(d / "trainA", 2), (d / "trainB").mkdir()), [], "holds no png"),
        (lambda d: images(d / "x", 2), [], "holds neither trainA/ and trainB/"),
        (lambda d: images(d, 2), ["--data_dir_B", "no such folder"], "no such folder"),
    ],
)
def test_bad_domains(tmp_path, fails, make, flags, message):
    make(tmp_path / "data")
    code, line = fails(cyclegan.main, ["--data_dir", tmp_path / "data", "--out_dir", tmp_path / "out", *flags])
    assert code == 2
    assert message in line


def test_pool_by_hand():
    """It fills first; then each image is exchanged for an older one, or passes."""
    rng, pool = np.random.default_rng(0), cyclegan.ImagePool(2, (1, 1, 1))
    first = np.float32([1, 2]).reshape(2, 1, 1, 1)
    assert np.array_equal(pool.exchange(first, rng), first)
    kept, passed, exchanged = [1.0, 2.0], 0, 0
    for value in range(3, 103):
        (got,) = pool.exchange(np.full((1, 1, 1, 1), value, np.float32), rng).ravel()
        if got == value:
            passed += 1
        else:
            exchanged += 1
            kept[kept.index(got)] = value
        assert sorted(pool.images.ravel()) == sorted(kept)
    assert 35 <= passed <= 65
    assert passed + exchanged == 100


def test_pool_of_size_zero_passes_everything():
    x = np.ones((3, 1, 1, 1), np.float32)
    assert np.array_equal(cyclegan.ImagePool(0, (1, 1, 1)).exchange(x, np.random.default_rng(0)), x)


# ---- attributes ----


def celeba(folder, rows=None, suffix="txt"):
    images(folder / "img_align_celeba", 12)
    header = ["Black_Hair", "Blond_Hair", "Male", "Young"]
    rows = rows or [[f"{i}.png", *(str(2 * (i >> k & 1) - 1) for k in range(4))] for i in range(12)]
    if suffix == "txt":
        text = "12\n" + " ".join(header) + " \n" + "".join("  ".join(row) + "\n" for row in rows)
        (folder / "list_attr_celeba.txt").write_text(text)
    else:
        lines = [["image_id", *header], *rows]
        text = "\ufeff" + "\r\n".join(",".join(line) for line in lines) + "\r\n"
        (folder / "list_attr_celeba.csv").write_text(text, newline="")


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_celeba_layout(tmp_path, suffix, capsys):
    """Values 1 and -1 as 1 and 0; the .csv has a byte order mark and CRLF, as some copies do."""
    celeba(tmp_path, suffix=suffix)
    data = load_attributes(tmp_path, 32, 3, ["Male", "Black_Hair", "Blond_Hair"])
    assert len(data) == 11  # the last tenth is the test part
    assert data.names == ["Male", "Black_Hair", "Blond_Hair"]
    assert data.exclusive == ["Black_Hair", "Blond_Hair"]
    assert data.attributes.tolist() == [[i >> 2 & 1, i & 1, i >> 1 & 1] for i in range(11)]
    assert "Male 4, Black_Hair 5, Blond_Hair 5" in capsys.readouterr().out


def test_a_folder_for_each_domain(tmp_path):
    folders(tmp_path)
    data = load_attributes(tmp_path, 32, 3)
    assert data.names == data.exclusive == ["bright", "dark", "old"]
    assert data.attributes.tolist() == [[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 3


def one_value(folder):
    celeba(folder, [[f"{i}.png", "1", "-1", "1", str(2 * (i % 2) - 1)] for i in range(12)])


@pytest.mark.parametrize(
    ("make", "flags", "message"),
    [
        (celeba, ["--selected_attrs", "Blnd_Hair"], "nearest: Blond_Hair"),
        (celeba, ["--selected_attrs", "Male", "Male"], "names Male twice"),
        (one_value, ["--selected_attrs", "Male"], "every image has the attribute Male"),
        (one_value, ["--selected_attrs", "Blond_Hair"], "no image has the attribute Blond_Hair"),
        (lambda d: celeba(d, [["0.png", "1", "1", "1", "1"], ["1.png", "1"]]), [], "row 3: expected a file name"),
        (lambda d: celeba(d, [["0.png", "1", "1", "x", "1"]]), [], "row 2: expected a file name"),
        (lambda d: images(d / "img_align_celeba", 2), [], "list_attr_celeba.txt"),
        (lambda d: images(d / "one", 2), [], "two or more folders"),
        (folders, ["--exclusive", "none"], "--exclusive: none is none of bright, dark, old"),
    ],
)
def test_bad_attributes(tmp_path, fails, make, flags, message):
    make(tmp_path / "data")
    argv = ["--data_dir", tmp_path / "data", "--out_dir", tmp_path / "out", "--batch_size", 2, *flags]
    code, line = fails(stargan.main, argv)
    assert code == 2
    assert message in line


def test_changes_of_attributes_by_hand():
    names, exclusive = ["red", "green", "bold"], ["red", "green"]
    have = np.float32([[1, 0, 1]])
    assert stargan.change(have, names, exclusive, {"green": 1, "bold": 0}).tolist() == [[0, 1, 0]]
    targets = stargan.all_targets(have, names, exclusive)
    assert [t.tolist() for t in targets] == [[[1, 0, 1]], [[0, 1, 1]], [[1, 0, 0]]]


def test_classification_loss_by_hand():
    """Summed over attributes, averaged over the batch: two images, each log 2 for a logit of 0, and log(1 + e^-2)."""
    logits, wanted = np.float32([[0, 2], [0, -2]]), np.float32([[1, 1], [0, 0]])
    loss = stargan.classification_loss(jt.array(logits), jt.array(wanted)).item()
    assert np.isclose(loss, np.log(2) + np.log1p(np.exp(-2)))


# ---- networks ----


@pytest.mark.parametrize(("size", "rows"), [(64, 6), (256, 30)])
def test_patchgan_scores_patches_of_70_pixels(size, rows):
    """Receptive field: 1 + 3 (1 + 1 + 2 * (1 + 2 * (1 + ...))) = 70 for kernels of 4, strides 2, 2, 2, 1, 1."""
    field = 1
    for stride in (1, 1, 2, 2, 2):
        field = field * stride + 4 - stride
    assert field == 70
    score = pix2pix.PatchGAN(3, 2, "instance")
    x = jt.zeros((1, 3, size, size))
    assert score(x, x).shape == cyclegan.PatchGAN(3, 2)(x).shape == [1, 1, rows, rows]


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512])
def test_unet_of_every_size(size):
    generator = pix2pix.UNet(size, 1, 1, "instance", 0.5)
    assert generator(jt.zeros((1, 1, size, size))).shape == [1, 1, size, size]
    assert len(generator.down) == int(np.log2(size))


def test_dropout_stays_on_in_samples():
    """It is the noise: other seeds give other pictures, the same seed the same."""
    jt.set_global_seed(987654321)
    generator, _ = pix2pix.build(pix2pix.parse_args(["--img_size", "32", "--width", "4"]))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    one, same, other = (pix2pix.sample(generator, x, seed) for seed in (1 << 29, 1 << 29, 1 << 30))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert generator.is_training()


@pytest.mark.parametrize(("size", "n"), [(32, 1), (64, 2), (256, 3)])
def test_dropout_follows_the_first_layers_of_full_width(size, n):
    generator = pix2pix.UNet(size, 3, 1, "instance", 0.5)
    assert len([m for m in generator.modules() if isinstance(m, fast.Dropout)]) == n


@pytest.mark.parametrize(("size", "n"), [(128, 6), (256, 9)])
def test_residual_blocks_follow_the_size(size, n):
    G, *_ = cyclegan.build(cyclegan.parse_args(["--img_size", str(size), "--width", "1"]))
    assert sum(isinstance(m, cyclegan.Residual) for m in G.modules()) == n


# ---- translating one's own pictures ----

TRANSLATE = {"pix2pix": [], "cyclegan": ["--direction", "BtoA"], "stargan": ["--set", "dark=1"]}


@pytest.fixture(params=list(TRANSLATE))
def trained(request, tmp_path):
    name = request.param
    data = make_data(name, tmp_path / "data")
    run(name, "--data_dir", data, *SHARED, *FLAGS[name], "--n_epochs", 1, "--out_dir", tmp_path / "run")
    data.rename(tmp_path / "moved away")
    return name, tmp_path / "run"


def test_a_folder_becomes_a_folder_of_the_same_names(trained, tmp_path):
    name, run_dir = trained
    mine = tmp_path / "mine"
    images(mine / "deep", 1, (90, 45))
    Image.new("L", (20, 40), 7).save(mine / "grey.jpg")
    before = (run_dir / "checkpoint_last.npz").read_bytes()
    out = tmp_path / "out"
    run(name, "--resume", run_dir, "--sample_only", "--input", mine, "--out_dir", out, *TRANSLATE[name])
    sizes = {str(f.relative_to(out)): Image.open(f).size for f in out.rglob("*") if f.is_file()}
    assert sizes == {"deep/0.png": (64, 32), "grey.jpg": (32, 64)}
    assert (run_dir / "checkpoint_last.npz").read_bytes() == before


def test_one_image_and_no_out_dir(trained, tmp_path):
    name, run_dir = trained
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    run(name, "--resume", run_dir, "--sample_only", "--input", tmp_path / "x.png", *TRANSLATE[name])
    assert Image.open(run_dir / "translated/x.png").size == (32, 32)


def test_an_input_is_never_overwritten(trained, tmp_path, fails):
    name, run_dir = trained
    images(tmp_path / "mine", 1)
    flags = ["--input", tmp_path / "mine", "--out_dir", tmp_path / "mine", *TRANSLATE[name]]
    code, line = fails(importlib.import_module(name).main, ["--resume", run_dir, "--sample_only", *flags])
    assert code == 2
    assert "overwritten" in line


def test_nothing_to_translate(trained, tmp_path, fails):
    name, run_dir = trained
    main = importlib.import_module(name).main
    for path in (tmp_path / "nowhere", run_dir / "config.json"):
        flags = ["--input", path, "--out_dir", tmp_path / "o", *TRANSLATE[name]]
        code, line = fails(main, ["--resume", run_dir, "--sample_only", *flags])
        assert code == 2
        assert str(path) in line


@pytest.mark.parametrize("text", ["blue", "blue=2", "grey=1", "dark=", ""])
def test_bad_set(tmp_path, fails, text):
    run("stargan", "--data_dir", make_data("stargan", tmp_path / "data"), *SHARED, *FLAGS["stargan"], "--n_epochs", 1,
        "--out_dir", tmp_path / "run")  # fmt: skip
    flags = ["--resume", tmp_path / "run", "--sample_only", "--input", tmp_path, "--set", text]
    code, line = fails(stargan.main, flags)
    assert code == 2
    assert "--set takes bright=0|1,dark=0|1,old=0|1" in line


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (pix2pix, ["--img_size", 100], "nearest are 64 and 128"),
        (cyclegan, ["--img_size", 50], "such as 48 or 52"),
        (stargan, ["--img_size", 100], "nearest is 128"),
        (pix2pix, ["--n_samples", 5], "--input"),
        (cyclegan, ["--input", "x"], "--input needs --sample_only"),
        (stargan, ["--input", "x"], "--input needs --sample_only"),
        (pix2pix, ["--direction", "AtoC"], "--direction"),
    ],
)
def test_bad_flags(fails, script, flags, message):
    code, line = fails(script.main, flags)
    assert code == 2
    assert message in line


def test_errors_of_the_loaders_are_user_errors(tmp_path):
    for load in (load_pairs, lambda *a: load_domains(a[0], None, *a[1:]), load_attributes):
        with pytest.raises(UserError, match="is not a folder"):
            load(tmp_path / "nowhere", 32, 3)
