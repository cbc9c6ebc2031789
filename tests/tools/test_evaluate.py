"""tools/evaluate.py: sets of images, the kept classifier, the table, and bad input."""

import csv
import io
import struct
import zipfile

import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image

from tools import evaluate
from tools.judges import digit_classifier, image_sets
from tools.judges.digit_classifier import DigitClassifier, trained_on


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of kept classifiers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jittor-gan-collection"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def save_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}")
    return folder


# ---- image sets ----


def test_scaling_does_not_alias(tmp_path):
    """The mean of lines of one pixel is grey; every fourth pixel is black or white."""
    stripes = np.zeros((1, 64, 64, 1), np.uint8)
    stripes[:, :, ::2] = 255
    np.savez(tmp_path / "s.npz", images=stripes)
    small = image_sets.load(str(tmp_path / "s.npz")).batch([0], 16, 1)
    assert small.shape == (1, 1, 16, 16)
    assert np.abs(small[..., 2:-2].astype(int) - 127).max() <= 3


def test_samples_and_a_folder_give_the_same_images(tmp_path):
    images = noise(3, 10, 12, 3)
    np.savez(tmp_path / "s.npz", images=images)
    folder = save_images(tmp_path / "folder", images)
    one = image_sets.load(str(tmp_path / "s.npz"))
    other = image_sets.load(str(folder))
    for images in (one, other):
        assert len(images) == 3
        assert images.resolution == "12 x 10"
        assert images.is_colour
    assert np.array_equal(one.batch([2, 0], 32, 3), other.batch([2, 0], 32, 3))
    assert np.array_equal(one.batch([1], 32, 1), other.batch([1], 32, 1))


def test_halves_of_pairs_side_by_side(tmp_path):
    left = noise(2, 8, 8, 3)
    right = noise(2, 8, 8, 3, seed=1)
    folder = str(save_images(tmp_path / "pairs", np.concatenate([left, right], axis=2)))
    for half, images in (("left", left), ("right", right)):
        found = image_sets.load(folder, half)
        assert found.resolution == "8 x 8"
        assert np.array_equal(found.batch([0, 1], 8, 3), images.transpose(0, 3, 1, 2))


def test_the_resolution_of_a_folder_names_its_smallest_and_largest_image(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in (("a", (10, 20)), ("b", (30, 20)), ("c", (20, 20))):
        Image.new("L", size).save(folder / f"{name}.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("L", (50, 40)).save(folder / "d.jpg", exif=turned)
    found = image_sets.load(str(folder))
    assert found.resolution == "10 x 20 to 40 x 50"
    assert not found.is_colour
    assert found.names == ["a.png", "b.png", "c.png", "d.jpg"]


def test_idx_files_as_a_folder_and_as_a_file(tmp_path):
    images = noise(10, 28, 28)
    labels = np.arange(10, dtype=np.uint8)
    folder = write_idx_folder(tmp_path / "idx", images, labels, "t10k")
    write_idx_folder(folder, images[:4], labels[:4])
    of_folder = image_sets.load(str(folder))
    of_file = image_sets.load(str(folder / "t10k-images-idx3-ubyte.gz"))
    assert len(of_folder) == 4
    assert len(of_file) == 10
    assert of_file.labels.tolist() == list(range(10))
    assert np.array_equal(of_file.batch([7], 28, 1)[0, 0], images[7])


def test_digits_have_the_size_of_the_other_set(tmp_path):
    np.savez(tmp_path / "s.npz", images=noise(2, 16, 16, 1))
    a, b = evaluate.load_both(evaluate.parse_args(["digits:test", str(tmp_path / "s.npz")]))
    assert a.resolution == b.resolution == "16 x 16"
    assert len(b) == 2
    assert len(a) in (500, 10_000)  # the bundled digits, or full MNIST if Jittor has it


# ---- the digit classifier ----


def bars(n, seed=0):
    """Pictures (n, 1, 32, 32) of a bright bar on noise, and its height, 0 to 9."""
    labels = np.arange(n) % 10
    images = noise(n, 1, 32, 32, seed=seed) // 4
    for image, label in zip(images, labels):
        image[:, 3 * label : 3 * label + 3] += 180
    return images, labels


def test_the_classifier_learns_is_kept_and_reads_the_same(cache):
    images, labels = bars(200)
    first = DigitClassifier(trained_on(images, labels, 60))
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    second = DigitClassifier(trained_on(images, labels, 60))
    assert list(cache.iterdir()) == [file]
    assert file.stat().st_mtime_ns == written

    test_images, test_labels = bars(50, seed=1)
    digits, _ = first.read(test_images)
    assert (digits == test_labels).mean() > 0.9
    for one, other in zip(first(test_images), second(test_images)):
        assert np.array_equal(one, other)
    features, probabilities = first(test_images)
    assert features.shape == (50, 128)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    last = first.network.head[1]
    logits = features @ last.weight.numpy().T + last.bias.numpy()
    assert np.array_equal(probabilities.argmax(1), logits.argmax(1))


def test_a_classifier_is_kept_for_each_training(cache):
    images, labels = bars(20)
    trained_on(images, labels, 1)
    trained_on(255 - images, labels, 1)
    trained_on(images, labels[::-1], 1)
    trained_on(images, labels, 2)
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "another network"])
def test_a_damaged_classifier_is_trained_again(cache, capsys, damage):
    images, labels = bars(20)
    trained_on(images, labels, 1)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(good[: len(good) // 2])
    else:
        np.savez(file, weight=np.zeros(3))
    trained_on(images, labels, 1)
    assert "made again" in capsys.readouterr().err
    assert len(file.read_bytes()) == len(good)


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images, labels = bars(20)
    digits, _ = DigitClassifier(trained_on(images, labels, 1)).read(images)
    assert digits.shape == (20,)
    assert "is not kept" in capsys.readouterr().err


def test_features_have_a_mean_square_of_1_on_the_test_digits():
    classifier = digit_classifier.of_digits(None, 1)
    features, _ = classifier(image_sets.digits("test", None, 32).images)
    assert np.mean(features.astype(np.float64) ** 2) == pytest.approx(1, rel=1e-4)
    assert "test digits right" in classifier.description


def test_shares_of_digits_and_of_the_worst_class():
    """It reads 0 0 1 2 2 where 0 1 1 2 2 was asked for; the first is not certain."""
    probabilities = np.full((5, 10), 0.01)
    probabilities[range(5), [0, 0, 1, 2, 2]] = 0.91
    probabilities[0] = [0.2, *[0.8 / 9] * 9]
    asked = np.array([0, 1, 1, 2, 2])
    rows = {measure: value for measure, value, _ in evaluate.digit_rows(probabilities, asked)}
    assert rows["certain"] == pytest.approx(4 / 5)
    assert [rows[f"share of {k}"] for k in range(4)] == pytest.approx([0.4, 0.2, 0.4, 0])
    assert rows["as asked"] == pytest.approx(4 / 5)
    assert rows["as asked, worst"] == pytest.approx(1 / 2)
    without_labels = {row[0] for row in evaluate.digit_rows(probabilities, None)}
    assert "as asked" not in without_labels


# ---- the command ----


def test_pairs_are_found_by_name_whatever_the_type_of_file(tmp_path, capsys):
    a = noise(3, 16, 16, 3)
    b = np.clip(a.astype(int) + 10, 0, 255).astype(np.uint8)
    folder_a = save_images(tmp_path / "A", a)
    folder_b = save_images(tmp_path / "B", b, ".bmp")
    table = tmp_path / "new" / "table.csv"
    argv = [str(folder_a), str(folder_b), "--features", "none", "--out", str(table)]
    found = evaluate.main(argv)
    difference = np.abs(a.astype(float) - b)
    mse = (difference**2).mean((1, 2, 3))
    assert found["L1"] == pytest.approx(difference.mean() / 127.5)
    assert found["PSNR"] == pytest.approx(np.mean(10 * np.log10(255**2 / mse)))
    assert 0.9 < found["SSIM"] < 1

    printed = capsys.readouterr().out
    assert "3 of 16 x 16" in printed
    assert f"{found['PSNR']:.4f}" in printed
    with open(table) as file:
        values = {row["measure"]: row["value"] for row in csv.DictReader(file)}
    assert float(values["SSIM"]) == found["SSIM"]


def test_larger_targets_are_scaled_to_the_size_of_a(tmp_path):
    small = save_images(tmp_path / "A", np.full((2, 16, 16, 3), 100, np.uint8))
    large = save_images(tmp_path / "B", np.full((2, 32, 64, 3), 151, np.uint8))
    args = evaluate.parse_args([str(small), str(large), "--features", "none"])
    _, _, *pairs = evaluate.evaluate(args)
    assert [measure for measure, _, _ in pairs] == ["L1", "PSNR", "SSIM"]
    assert {of for _, _, of in pairs} == {"2 pairs, 2 of B scaled to A's size"}
    assert pairs[0][1] == pytest.approx(51 / 127.5)


@pytest.mark.parametrize("shape", [(12, 14, 3), (12, 14), (12, 14, 1)])
def test_arrays_as_the_scripts_write_them(tmp_path, shape):
    """Against the same values as pictures, of the same names."""
    rng = np.random.default_rng(0)
    for folder in ("arrays", "pictures"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        pixels = rng.integers(256, size=shape, dtype=np.uint8)
        np.save(tmp_path / f"arrays/{i}.npy", np.float32(pixels / 255))
        Image.fromarray(pixels.squeeze()).save(tmp_path / f"pictures/{i}.png")
    for a, b in (("arrays", "pictures"), ("pictures", "arrays"), ("arrays", "arrays")):
        argv = [str(tmp_path / a), str(tmp_path / b), "--features", "none"]
        found = evaluate.main(argv)
        assert [found["L1"], found["PSNR"], found["SSIM"]] == pytest.approx([0, 100, 1])
        assert found["A"] == "3 of 14 x 12"


def test_two_files_of_one_name_have_their_own_partners(tmp_path, capsys):
    images = noise(2, 12, 12, 3)
    for folder in ("A", "B"):
        save_images(tmp_path / folder, images)
        save_images(tmp_path / folder, 255 - images, ".bmp")
    found = evaluate.main([str(tmp_path / "A"), str(tmp_path / "B"), "--features", "none"])
    assert [found["L1"], found["PSNR"], found["SSIM"]] == pytest.approx([0, 100, 1])
    save_images(tmp_path / "C", images, ".tif")
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path / "A"), str(tmp_path / "C"), "--features", "none"])
    assert "names that differ only in their suffixes" in capsys.readouterr().err


def test_photographs_with_odd_exif_entries(tmp_path):
    """The orientation is a text; the pixels are whole."""
    entry = struct.pack("<HHHI", 1, 0x0112, 2, 2) + b"6\0\0\0" + bytes(4)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry
    (tmp_path / "A").mkdir()
    for i in range(2):
        picture = Image.fromarray(noise(1, 12, 14, 3)[0])
        picture.save(tmp_path / f"A/{i}.jpg", exif=block)
    found = evaluate.main([str(tmp_path / "A"), str(tmp_path / "A"), "--features", "none"])
    assert found["A"] == "2 of 14 x 12"
    assert found["L1"] == 0


def replaced_entry(data, **fields):
    """An archive with the entry images.npy, whose description is changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", data)
        for field, value in fields.items():
            setattr(archive.filelist[0], field, value)
    return buffer.getvalue()


def array_of(values, version=1, n_bytes=None, shape=None):
    """A .npy file of some values, whose header may claim another shape or length."""
    shape = values.shape if shape is None else shape
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = (len(header) if n_bytes is None else n_bytes).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + values.tobytes()


SAMPLES = np.zeros((2, 8, 8, 1), np.uint8)
ARCHIVES = {
    "an array called archive": array_of(SAMPLES),
    "an entry that is no array": replaced_entry(b"no array"),
    "an empty entry": replaced_entry(b""),
    "an array beyond 64 bits": replaced_entry(array_of(SAMPLES, shape=(2**70, 8, 8, 1))),
    "an array of 90 TiB": replaced_entry(array_of(SAMPLES, shape=(10**12, 10, 10, 1))),
    "a header of 1 GB": replaced_entry(array_of(SAMPLES, 2, 1 << 30)),
    "an unknown compression": replaced_entry(array_of(SAMPLES), compress_type=99),
    "an encrypted entry": replaced_entry(array_of(SAMPLES), flag_bits=1),
    "damaged LZMA": replaced_entry(array_of(SAMPLES), compress_type=zipfile.ZIP_LZMA),
    "an entry of 1 TB": replaced_entry(array_of(SAMPLES), file_size=1 << 40),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_of_strangers_are_one_line(tmp_path, fails, case):
    path = tmp_path / "samples.npz"
    path.write_bytes(ARCHIVES[case])
    code, line = fails(evaluate.main, [path, "digits"])
    assert code == 2
    assert f"{path} cannot be read as an .npz file of arrays" in line


def test_the_whole_table_of_samples_against_digits(tmp_path):
    """With an untrained classifier, the distances are those of its features."""
    digits = image_sets.digits("train", None, 28)
    images = digits.images[:300].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "real.npz", images=images, labels=digits.labels[:300])
    np.savez(tmp_path / "black.npz", images=np.zeros((300, 28, 28, 1), np.uint8))
    real = str(tmp_path / "real.npz")
    flags = ["--n_steps", "1", "--out", str(tmp_path / "t.md")]
    same = evaluate.main([real, real, *flags])
    black = evaluate.main([str(tmp_path / "black.npz"), real, "--max_images", "200", *flags])
    assert same["FID"] == pytest.approx(0, abs=1e-4)
    assert same["precision"] == 1
    assert same["recall"] == 1
    assert {"as asked", "certain", "share of 9"} <= same.keys()
    assert black["FID"] > same["FID"] + 0.1
    assert black["KID x 1000"] > 0
    assert black["recall"] == 0
    assert "as asked" not in black

    text = (tmp_path / "t.md").read_text()
    assert "| FID |" in text
    assert "| 200 and 200 |" in text
    assert "300 of 28 x 28" in text


def test_bad_input_ends_in_one_line(tmp_path, fails):
    colour = save_images(tmp_path / "colour", noise(5, 12, 12, 3))
    other = save_images(tmp_path / "other", noise(2, 12, 12, 3))
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    np.savez(tmp_path / "other.npz", pixels=noise(2, 8, 8, 1))
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 8, 8, 1)))
    np.savez(tmp_path / "labels.npz", images=noise(2, 8, 8, 1), labels=np.zeros(3, int))
    np.savez(tmp_path / "objects.npz", images=np.array([{}], dtype=object))
    np.savez(tmp_path / "small.npz", images=noise(3, 8, 8, 1))
    small = tmp_path / "small.npz"
    for argv, message in {
        (colour, colour): "pt_inception-2015-12-05-6726825d.pth",
        (colour, other, "--features", "none"): "not folders with the same file names",
        (colour, colour, "--inception", tmp_path / "none.pth"): "is no file",
        (colour, colour, "--inception", text): "cannot be read",
        (colour, colour, "--features", "inception"): "needs --inception FILE",
        (colour, colour, "--features", "none", "--inception", "x"): "leave one of the two out",
        (colour, colour, "--out", "table.txt"): ".csv or .md",
        (colour, "nothing"): "nothing is neither",
        (empty, colour): "images; found: nothing",
        (tmp_path / "other.npz", "digits"): "found: pixels",
        (tmp_path / "float.npz", "digits"): "must be uint8 (N, H, W, C)",
        (tmp_path / "labels.npz", "digits"): "2 images, but 3 labels",
        (tmp_path / "objects.npz", "digits"): "cannot be read",
        (text, "digits"): "cannot be read",
        (small, small, "--n_steps", "1"): "more than 3 images",
        ("digits", "digits", "--mnist", "nowhere"): "--mnist nowhere is not a folder",
        (colour, colour, "--max_images", "0"): "at least 1",
        ("pix2pix", empty): "no checkpoint",
    }.items():
        code, line = fails(evaluate.main, argv)
        assert code == 2
        assert message in line
