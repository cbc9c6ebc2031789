"""tools/evaluate.py: images by one way, the classifier that is kept, the table, and what it says of bad input."""

import json

import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image

from tools import digit_classifier, evaluate, image_sets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jittor-gan-collection"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def save_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}")
    return folder


# ---- image sets ----


def test_scaling_does_not_alias(tmp_path):
    # Lines one pixel wide: their mean is grey. What takes every fourth pixel gives black or white.
    stripes = np.zeros((1, 64, 64, 1), np.uint8)
    stripes[:, :, ::2] = 255
    np.savez(tmp_path / "s.npz", images=stripes)
    small = image_sets.load(str(tmp_path / "s.npz")).batch([0], 16, 1)
    assert small.shape == (1, 1, 16, 16)
    assert np.abs(small[..., 2:-2].astype(int) - 127).max() <= 3


def test_the_same_images_from_samples_and_from_a_folder(tmp_path):
    images = noise(3, 10, 12, 3)
    np.savez(tmp_path / "s.npz", images=images)
    folder = save_images(tmp_path / "folder", images)
    sets = [image_sets.load(str(path)) for path in (tmp_path / "s.npz", folder)]
    assert [len(s) for s in sets] == [3, 3]
    assert {s.resolution for s in sets} == {"12 x 10"}
    assert np.array_equal(*(s.batch([2, 0], 32, 3) for s in sets))
    assert np.array_equal(sets[0].batch([1], 32, 1), sets[1].batch([1], 32, 1))
    assert all(s.is_colour for s in sets)


def test_halves_of_pairs_side_by_side(tmp_path):
    left, right = noise(2, 8, 8, 3), noise(2, 8, 8, 3, seed=1)
    folder = str(save_images(tmp_path / "pairs", np.concatenate([left, right], axis=2)))
    for half, images in (("left", left), ("right", right)):
        found = image_sets.load(folder, half)
        assert found.resolution == "8 x 8"
        assert np.array_equal(found.batch([0, 1], 8, 3), images.transpose(0, 3, 1, 2))


def test_sizes_of_a_folder_by_its_smallest_and_largest(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in (("a", (10, 20)), ("b", (30, 20)), ("c", (20, 20))):
        Image.new("L", size).save(folder / f"{name}.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera that was held upright
    Image.new("L", (50, 40)).save(folder / "d.jpg", exif=turned)
    found = image_sets.load(str(folder))
    assert found.resolution == "10 x 20 to 40 x 50"
    assert not found.is_colour
    assert found.names == ["a", "b", "c", "d"]


def test_idx_files_as_a_folder_and_as_a_file(tmp_path):
    images, labels = noise(10, 28, 28), np.arange(10, dtype=np.uint8)
    folder = write_idx_folder(tmp_path / "idx", images, labels, "t10k")
    write_idx_folder(folder, images[:4], labels[:4])
    of_folder = image_sets.load(str(folder))
    of_file = image_sets.load(str(folder / "t10k-images-idx3-ubyte.gz"))
    assert (len(of_folder), len(of_file)) == (4, 10)
    assert of_file.labels.tolist() == list(range(10))
    assert np.array_equal(of_file.batch([7], 28, 1)[0, 0], images[7])


def test_digits_take_the_size_of_what_they_are_compared_with(tmp_path):
    np.savez(tmp_path / "s.npz", images=noise(2, 16, 16, 1))
    args = evaluate.parse_args(["digits:test", str(tmp_path / "s.npz")])
    a, b = evaluate.both_sets(args)
    assert (a.resolution, b.resolution, len(b)) == ("16 x 16", "16 x 16", 2)
    assert len(a) in (500, 10_000)  # the bundled test digits, or full MNIST's where Jittor has it


# ---- the digit classifier ----


def bars(n, seed=0):
    """(n, 1, 32, 32) pictures of ten kinds, a bright bar at ten heights on noise, and which kind each is."""
    labels = np.arange(n) % 10
    images = noise(n, 1, 32, 32, seed=seed) // 4
    for image, label in zip(images, labels):
        image[:, 3 * label : 3 * label + 3] += 180
    return images, labels


def test_classifier_learns_is_kept_and_reads_the_same(cache):
    images, labels = bars(200)
    first = digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 60))
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    second = digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 60))
    assert [f.name for f in cache.iterdir()] == [file.name]
    assert file.stat().st_mtime_ns == written
    test_images, test_labels = bars(50, seed=1)
    assert (first.read(test_images)[0] == test_labels).mean() > 0.9
    for one, other in zip(first(test_images), second(test_images)):
        assert np.array_equal(one, other)
    features, probabilities = first(test_images)
    assert features.shape == (50, 128)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    logits = features @ first.network.head[1].weight.numpy().T + first.network.head[1].bias.numpy()
    np.testing.assert_allclose(probabilities.argmax(1), logits.argmax(1))


def test_classifier_is_kept_by_what_it_was_trained_on(cache):
    images, labels = bars(20)
    for changed in (
        (images, labels, 1),
        (255 - images, labels, 1),
        (images, labels[::-1], 1),
        (images, labels, 2),
    ):
        digit_classifier.kept(*changed)
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_classifier_is_trained_anew(cache, capsys, damage):
    images, labels = bars(20)
    digit_classifier.kept(images, labels, 1)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    if damage == "cut":
        file.write_bytes(good[: len(good) // 2])
    else:
        with open(file, "wb") as opened:
            np.savez(opened, weight=np.zeros(3))
    digit_classifier.kept(images, labels, 1)
    assert "made anew" in capsys.readouterr().err
    assert len(file.read_bytes()) == len(good)


def test_cache_that_cannot_be_written_costs_no_result(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images, labels = bars(20)
    assert digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 1)).read(images)[
        0
    ].shape == (20,)
    assert "is not kept" in capsys.readouterr().err


def test_features_have_a_mean_square_of_1_on_the_test_digits():
    judge = digit_classifier.of_digits(None, 1)
    features = judge(image_sets.digits("test", None, 32).images)[0]
    assert np.mean(features.astype(np.float64) ** 2) == pytest.approx(1, rel=1e-4)
    assert "test digits right" in judge.description


def test_shares_of_digits_and_worst_class():
    read = np.array([0, 0, 1, 2, 2])
    probabilities = np.full((5, 10), 0.01)
    probabilities[range(5), read] = 0.91
    probabilities[0] = [0.2, *[0.8 / 9] * 9]
    rows = {
        measure: value
        for measure, value, _ in evaluate.digit_rows(probabilities, np.array([0, 1, 1, 2, 2]))
    }
    assert rows["certain"] == pytest.approx(4 / 5)
    assert [rows[f"share of {k}"] for k in range(4)] == pytest.approx([0.4, 0.2, 0.4, 0])
    assert rows["as asked"] == pytest.approx(4 / 5)
    assert rows["as asked, worst"] == pytest.approx(1 / 2)
    assert "as asked" not in {row[0] for row in evaluate.digit_rows(probabilities, None)}


# ---- the command ----


def test_pairs_by_name_whatever_the_type_of_file(tmp_path, capsys):
    a = noise(3, 16, 16, 3)
    b = np.clip(a.astype(int) + 10, 0, 255).astype(np.uint8)
    argv = [
        str(save_images(tmp_path / "A", a)),
        str(save_images(tmp_path / "B", b, ".bmp")),
        "--features",
        "none",
    ]
    found = evaluate.main([*argv, "--out", str(tmp_path / "new" / "table.csv")])
    difference = np.abs(a.astype(float) - b)
    assert found["L1"] == pytest.approx(difference.mean() / 127.5)
    assert found["PSNR"] == pytest.approx(
        np.mean(10 * np.log10(255**2 / (difference**2).mean((1, 2, 3))))
    )
    assert 0.9 < found["SSIM"] < 1
    printed = capsys.readouterr().out
    assert "3 of 16 x 16" in printed
    assert f"{found['PSNR']:.4f}" in printed
    rows = [
        json.loads(f"[{line}]")
        for line in (tmp_path / "new" / "table.csv").read_text().splitlines()[1:]
    ]
    assert float({row[0]: row[1] for row in rows}["SSIM"]) == found["SSIM"]


def test_larger_targets_are_scaled_to_what_is_judged(tmp_path):
    small = save_images(tmp_path / "A", np.full((2, 16, 16, 3), 100, np.uint8))
    large = save_images(tmp_path / "B", np.full((2, 32, 64, 3), 151, np.uint8))
    rows = evaluate.evaluate(evaluate.parse_args([str(small), str(large), "--features", "none"]))
    assert [(row[0], row[2]) for row in rows[2:]] == [
        (m, "2 pairs, 2 of B scaled to A's size") for m in ("L1", "PSNR", "SSIM")
    ]
    assert rows[2][1] == pytest.approx(51 / 127.5)


def test_whole_table_of_samples_against_digits(tmp_path, cache):
    # One step leaves the classifier untrained, and the numbers must still be those of its features.
    digits = image_sets.digits("train", None, 28)
    samples = digits.images[:300].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "same.npz", images=samples, labels=digits.labels[:300])
    np.savez(tmp_path / "black.npz", images=np.zeros((300, 28, 28, 1), np.uint8))
    argv = ["--n_steps", "1", "--out", str(tmp_path / "t.md")]
    same = evaluate.main([str(tmp_path / "same.npz"), str(tmp_path / "same.npz"), *argv])
    black = evaluate.main(
        [str(tmp_path / "black.npz"), str(tmp_path / "same.npz"), "--max_images", "200", *argv]
    )
    assert same["FID"] == pytest.approx(0, abs=1e-4)
    assert (same["precision"], same["recall"]) == (1, 1)
    assert {"as asked", "certain", "share of 9"} <= same.keys()
    assert black["FID"] > same["FID"] + 0.1
    assert black["KID x 1000"] > 0
    assert black["recall"] == 0
    assert "as asked" not in black
    text = (tmp_path / "t.md").read_text()
    assert "| FID |" in text
    assert "| 200 and 200 |" in text
    assert "300 of 28 x 28" in text


def test_bad_input_is_one_line(tmp_path, fails):
    colour = save_images(tmp_path / "colour", noise(5, 12, 12, 3))
    other = save_images(tmp_path / "other", noise(2, 12, 12, 3))
    (tmp_path / "empty").mkdir()
    for name, arrays in {
        "other": {"pixels": noise(2, 8, 8, 1)},
        "float": {"images": np.zeros((2, 8, 8, 1))},
        "labels": {"images": noise(2, 8, 8, 1), "labels": np.zeros(3, int)},
        "objects": {"images": np.array([{}], dtype=object)},
        "small": {"images": noise(3, 8, 8, 1)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "text.npz").write_text("no archive")
    for argv, message in {
        (colour, colour): "pt_inception-2015-12-05-6726825d.pth",
        (colour, other, "--features", "none"): "no folders with the same file names",
        (colour, colour, "--inception", tmp_path / "none.pth"): "is no file",
        (
            colour,
            colour,
            "--inception",
            tmp_path / "text.npz",
        ): "cannot be read as PyTorch's weights",
        (colour, colour, "--features", "inception"): "needs --inception FILE",
        (colour, colour, "--features", "none", "--inception", "x"): "leave one of the two out",
        (colour, colour, "--out", "table.txt"): ".csv or .md",
        (colour, "nothing"): "nothing is neither",
        (tmp_path / "empty", colour): "images; found: nothing",
        (tmp_path / "other.npz", "digits"): "found: pixels",
        (tmp_path / "float.npz", "digits"): "must be uint8 (N, H, W, C)",
        (tmp_path / "labels.npz", "digits"): "2 images, but 3 labels",
        (tmp_path / "objects.npz", "digits"): "cannot be read",
        (tmp_path / "text.npz", "digits"): "cannot be read",
        (tmp_path / "small.npz", tmp_path / "small.npz", "--n_steps", "1"): "more than 3 images",
        ("digits", "digits", "--mnist", "nowhere"): "--mnist nowhere is not a folder",
        (colour, colour, "--max_images", "0"): "at least 1",
        ("pix2pix", tmp_path / "empty"): "no checkpoint",
    }.items():
        code, line = fails(evaluate.main, argv)
        assert (code, message in line) == (2, True), line
