"""tools/evaluate.py: every number against a formula, a hand-made case or PyTorch, and what it says of bad input."""

import json
import pickle

import numpy as np
import pytest
from conftest import write_idx_folder
from PIL import Image

from common.data.decode import to_float
from common.errors import UserError
from common.networks import n_parameters
from tools import digit_classifier, evaluate, image_sets, inception, judge_translators, metrics
from tools.torch_files import read_weights

torch = pytest.importorskip("torch")
F = torch.nn.functional


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


# ---- distances of two sets ----


def test_frechet_distance_of_independent_normals_is_that_of_means_and_deviations():
    m_a, s_a, m_b, s_b = np.array([0.0, 1, 2]), np.array([1.0, 2, 0]), np.array([1.0, 1, 0]), np.array([3.0, 1, 2])
    found = metrics.frechet_distance(m_a, np.diag(s_a**2), m_b, np.diag(s_b**2))
    assert found == pytest.approx(1 + 4 + (4 + 1 + 4))  # sum of (m_a - m_b)^2 + (s_a - s_b)^2


def test_frechet_distance_of_correlated_normals_by_the_closed_form_of_two_dimensions():
    a, b = np.array([[2.0, 1], [1, 3]]), np.array([[4.0, -1], [-1, 1]])
    # The eigenvalues of the product P of two 2 x 2 covariances give tr(P^(1/2)) = sqrt(tr P + 2 sqrt(det P)).
    product = a @ b
    trace_of_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = metrics.frechet_distance(np.zeros(2), a, np.array([3.0, 4]), b)
    assert found == pytest.approx(25 + 5 + 5 - 2 * trace_of_root)


def test_frechet_distance_of_equal_normals_is_zero_also_where_they_are_flat():
    features = np.random.default_rng(0).normal(size=(5, 8))  # a covariance of rank 4
    assert metrics.frechet_distance(*metrics.gaussian(features), *metrics.gaussian(features)) < 1e-6


def test_gaussian_divides_by_n_minus_1():
    mean, covariance = metrics.gaussian([[0, 0], [2, 4], [4, 2]])
    assert mean.tolist() == [2, 2]
    assert covariance.tolist() == [[4, 2], [2, 4]]


def test_kernel_distance_of_a_few_numbers_by_hand():
    x, y = np.array([[0.0], [1], [2]]), np.array([[1.0], [3]])
    # k(x, y) = (x y + 1)^3. Pairs of x: 0 1, 0 2, 1 2; of y: 1 3; six mixed ones.
    among_x, among_y = (1 + 1 + 27) / 3, 64
    mixed = (1 + 1 + 8 + 64 + 27 + 343) / 6
    assert metrics.unbiased_mmd(x, y) == pytest.approx(among_x + among_y - 2 * mixed)


def test_kernel_distance_divides_the_product_by_the_dimension():
    x, y = np.array([[1.0, 1], [1, 1]]), np.array([[0.0, 0], [0, 0]])
    assert metrics.unbiased_mmd(x, y) == pytest.approx((2 / 2 + 1) ** 3 + 1 - 2)


def test_kernel_distance_takes_the_mean_over_blocks():
    # Constant sets: every block gives (1 + 1)^3 + 1 - 2 = 7, whatever the order.
    value, error, n_blocks, size = metrics.kernel_distance(np.ones((11, 1)), np.zeros((9, 1)), block=4)
    assert (value, error, n_blocks, size) == (pytest.approx(7), pytest.approx(0), 2, 4)
    assert metrics.kernel_distance(np.ones((3, 1)), np.zeros((9, 1)), block=4)[1:] == (None, 1, 3)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    value, error, *_ = metrics.kernel_distance(rng.normal(size=(2000, 3)), rng.normal(size=(2000, 3)), block=10)
    assert abs(value) < 3 * error  # the biased estimate, with its diagonals, is over 10 errors away
    assert error < 0.4


def test_precision_and_recall_of_points_on_a_line():
    real = np.array([[0.0], [1], [2], [3], [100]])
    # Balls of the real points to their second neighbour: [-2, 2], [0, 2], [1, 3], [1, 5], [2, 198].
    generated = np.array([[-1.9], [4], [150], [-2.5], [199]])
    precision, _ = metrics.precision_and_recall(generated, real, k=2)
    assert precision == pytest.approx(3 / 5)
    # Balls of the generated ones: -1.9 reaches 5.9 far, 4 6.5, 150 146, -2.5 6.5, 199 195; all real points lie in one.
    assert metrics.precision_and_recall(generated, real, k=2)[1] == 1


def test_recall_finds_a_lost_mode_and_precision_does_not():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(200, 2)), rng.normal(50, 1, size=(200, 2))
    precision, recall = metrics.precision_and_recall(one[:100], np.concatenate([one[100:], other[:100]]))
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_neighbours_are_the_same_in_chunks():
    a, b = (np.random.default_rng(seed).normal(size=(7, 3)) for seed in (0, 1))
    found = np.concatenate(list(metrics.squared_distances(a, b, chunk=3)))
    np.testing.assert_allclose(found, ((a[:, None] - b) ** 2).sum(2), atol=1e-12)


# ---- two images ----


def test_l1_and_psnr_by_hand():
    a, b = np.uint8([[[0], [255]]]), np.uint8([[[51], [255]]])
    assert metrics.l1(a, b) == pytest.approx(0.2)  # 51 levels of two pixels, 2 / 255 apart each
    assert metrics.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / (51**2 / 2)))
    assert metrics.psnr(a, a) == 100


def naive_ssim(a, b):
    """Wang 2004, equation 13, position by position, of two (H, W) images."""
    u = np.arange(11) - 5
    window = np.exp(-(u[:, None] ** 2 + u**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = (np.float64(image[i : i + 11, j : j + 11]) for image in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            vxy = (window * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


def test_ssim_equals_the_definition():
    a = noise(13, 15, 3)
    b = np.uint8(a * 0.7 + noise(13, 15, 3, seed=1) * 0.3)
    expected = np.mean([naive_ssim(a[..., c], b[..., c]) for c in range(3)])
    assert 0.3 < expected < 0.95
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert metrics.ssim(a, a) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11"):
        metrics.ssim(a[:10], b[:10])


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
    first = digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 60), "")
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    second = digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 60), "")
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
    for changed in ((images, labels, 1), (255 - images, labels, 1), (images, labels[::-1], 1), (images, labels, 2)):
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
    assert digit_classifier.DigitJudge(digit_classifier.kept(images, labels, 1), "").read(images)[0].shape == (20,)
    assert "is not kept" in capsys.readouterr().err


def test_shares_of_digits_and_worst_class():
    read = np.array([0, 0, 1, 2, 2])
    probabilities = np.full((5, 10), 0.01)
    probabilities[range(5), read] = 0.91
    probabilities[0] = [0.2, *[0.8 / 9] * 9]
    rows = {measure: value for measure, value, _ in evaluate.digit_rows(probabilities, np.array([0, 1, 1, 2, 2]))}
    assert rows["certain"] == pytest.approx(4 / 5)
    assert [rows[f"share of {k}"] for k in range(4)] == pytest.approx([0.4, 0.2, 0.4, 0])
    assert rows["as asked"] == pytest.approx(4 / 5)
    assert rows["as asked, worst"] == pytest.approx(1 / 2)
    assert "as asked" not in {row[0] for row in evaluate.digit_rows(probabilities, None)}


# ---- Inception-v3 and files of PyTorch's ----


def test_weights_from_both_formats_without_pytorch(tmp_path):
    state = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (1, 2)), torch.nn.BatchNorm2d(3)).state_dict()
    for legacy in (True, False):
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        found = read_weights(tmp_path / "w.pth")
        assert found.keys() == state.keys()
        assert all(np.array_equal(found[name], value.numpy()) for name, value in state.items())


class Harmful:
    def __reduce__(self):
        return eval, ("open('harm', 'w')",)


def test_a_file_that_would_run_code_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for legacy in (True, False):
        torch.save({"weight": Harmful()}, "w.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match="eval"):
            read_weights("w.pth")
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match="eval"):
        read_weights("w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("legacy", [True, False])
def test_damaged_weights_are_one_error(tmp_path, legacy):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    data = (tmp_path / "w.pth").read_bytes()
    for end in (0, 10, len(data) // 2, len(data) - 30):
        (tmp_path / "w.pth").write_bytes(data[:end])
        with pytest.raises(UserError, match="cannot be read"):
            read_weights(tmp_path / "w.pth")


def torch_inception(x, w, of_2015):
    """Inception-v3's features in PyTorch's functions, written after torchvision/models/inception.py.

    With `of_2015` its pools are those of pytorch-fid's inception.py.
    """

    def conv(x, name, **options):
        x = F.conv2d(x, w[name + ".conv.weight"], **options)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(w[f"{name}.bn.{n}"] for n in names), eps=0.001))

    def same(x, name):
        return conv(x, name, padding=[side // 2 for side in w[name + ".conv.weight"].shape[2:]])

    def chain(x, block, *names):
        for name in names:
            x = same(x, f"{block}.branch{name}")
        return x

    def average(x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=not of_2015)

    def halved(x, block, first, last):
        return conv(chain(x, block, *first), f"{block}.branch{last}", stride=2)

    x = same(conv(conv(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3"), "Conv2d_2b_3x3")
    x = conv(same(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
    x = F.max_pool2d(x, 3, 2)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        parts = [chain(x, b, "1x1"), chain(x, b, "5x5_1", "5x5_2"), chain(x, b, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")]
        x = torch.cat([*parts, chain(average(x), b, "_pool")], 1)
    b = "Mixed_6a"
    x = torch.cat(
        [halved(x, b, [], "3x3"), halved(x, b, ["3x3dbl_1", "3x3dbl_2"], "3x3dbl_3"), F.max_pool2d(x, 3, 2)], 1
    )
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        sevens = chain(x, b, "7x7_1", "7x7_2", "7x7_3")
        doubled = chain(x, b, *(f"7x7dbl_{i}" for i in range(1, 6)))
        x = torch.cat([chain(x, b, "1x1"), sevens, doubled, chain(average(x), b, "_pool")], 1)
    b = "Mixed_7a"
    sevens = halved(x, b, ["7x7x3_1", "7x7x3_2", "7x7x3_3"], "7x7x3_4")
    x = torch.cat([halved(x, b, ["3x3_1"], "3x3_2"), sevens, F.max_pool2d(x, 3, 2)], 1)
    for b in ("Mixed_7b", "Mixed_7c"):
        y, z = chain(x, b, "3x3_1"), chain(x, b, "3x3dbl_1", "3x3dbl_2")
        forks = [chain(y, b, "3x3_2a"), chain(y, b, "3x3_2b"), chain(z, b, "3x3dbl_3a"), chain(z, b, "3x3dbl_3b")]
        pooled = F.max_pool2d(x, 3, 1, 1) if of_2015 and b == "Mixed_7c" else average(x)
        x = torch.cat([chain(x, b, "1x1"), *forks, chain(pooled, b, "_pool")], 1)
    return x.mean((2, 3))


@pytest.fixture(scope="module")
def inception_weights():
    rng = np.random.default_rng(0)

    def drawn(name, shape):
        if name.endswith(("running_var", "bn.weight")):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1, shape)

    shapes = {name: tuple(value.shape) for name, value in inception.Inception(of_2015=True).state_dict().items()}
    return {name: torch.tensor(drawn(name, shape), dtype=torch.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("n_classes", [1000, 1008])
def test_inception_equals_pytorch(tmp_path, inception_weights, n_classes):
    head = {"fc.weight": torch.zeros(n_classes, 2048), "fc.bias": torch.zeros(n_classes)}
    torch.save({**inception_weights, **head}, tmp_path / "w.pth")
    judge = inception.InceptionJudge(tmp_path / "w.pth")
    # torchvision counts 27,161,264 parameters; 2,049,000 are the last layer's and 3,326,696 the second classifier's.
    assert n_parameters(judge.network) == 27_161_264 - 2_049_000 - 3_326_696
    images = noise(2, 3, 171, 171)  # a smaller image passes through the same layers
    features, read = judge(images)
    with torch.no_grad():
        expected = torch_inception(torch.tensor(to_float(images)), inception_weights, n_classes == 1008).numpy()
    assert read is None
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


# ---- the command ----


def test_pairs_by_name_whatever_the_type_of_file(tmp_path, capsys):
    a = noise(3, 16, 16, 3)
    b = np.clip(a.astype(int) + 10, 0, 255).astype(np.uint8)
    argv = [str(save_images(tmp_path / "A", a)), str(save_images(tmp_path / "B", b, ".bmp")), "--features", "none"]
    found = evaluate.main([*argv, "--out", str(tmp_path / "new" / "table.csv")])
    difference = np.abs(a.astype(float) - b)
    assert found["L1"] == pytest.approx(difference.mean() / 127.5)
    assert found["PSNR"] == pytest.approx(np.mean(10 * np.log10(255**2 / (difference**2).mean((1, 2, 3)))))
    assert 0.9 < found["SSIM"] < 1
    printed = capsys.readouterr().out
    assert "3 of 16 x 16" in printed
    assert f"{found['PSNR']:.4f}" in printed
    rows = [json.loads(f"[{line}]") for line in (tmp_path / "new" / "table.csv").read_text().splitlines()[1:]]
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
    black = evaluate.main([str(tmp_path / "black.npz"), str(tmp_path / "same.npz"), "--max_images", "200", *argv])
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
        (colour, colour, "--inception", tmp_path / "text.npz"): "cannot be read as PyTorch's weights",
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


# ---- judges of translators ----


def test_changes_set_one_colour_and_flip_the_others():
    found = judge_translators.changes(np.array([[1, 0, 0, 1, 0]]))
    assert [target[0].tolist() for target in found] == [
        [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 1, 1],
    ]  # fmt: skip


def test_strokes_and_colours_are_found_in_the_built_in_data():
    images, attributes, _ = judge_translators.drawn.coloured_digits(32, "test")
    inverted = attributes[:, 4] == 1
    ink = judge_translators.strokes(images, inverted)
    assert (judge_translators.nearest_colour(images, ink, inverted) == attributes[:, :3].argmax(1)).all()
    assert ((judge_translators.brightness_of_border(images) > 128) == inverted).all()
    assert 0.05 < (ink > 0.5).mean() < 0.4  # the digit, in both kinds, and not its ground
