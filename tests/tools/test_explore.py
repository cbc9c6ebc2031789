"""tools/explore.py: what each walk shows, on noise and generators made by hand."""

from common.data import load_images

import io
import json
import re
import zipfile

import jittor as jt
import numpy as np
import pytest
from PIL import Image
from registry import meta, run

from tools import explore
from tools.features.embed import nearest_noise


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


# ---- interpolate ----


def test_slerp_by_hand():
    """From (1, 0) to (0, 1) the middle lies on the circle, at 45 degrees.

    From (2, 0) to (0, 4) it has a norm of 3.
    """
    middle = np.array([np.sqrt(0.5), np.sqrt(0.5)])
    path = explore.slerp(np.float32([1, 0]), np.float32([0, 1]), 3)
    assert np.allclose(path, [[1, 0], middle, [0, 1]], atol=1e-6)
    path = explore.slerp(np.float32([2, 0]), np.float32([0, 4]), 3)
    assert np.allclose(path[1], 3 * middle, atol=1e-6)
    path = explore.slerp(np.float32([1, 2]), np.float32([1, 2]), 3)
    assert np.allclose(path, [[1, 2]] * 3)


def test_every_point_of_an_interpolation_keeps_the_norm_of_the_noise():
    """The middle of a straight line would have 0.7 of the norm, in 100 dimensions."""
    for a, b in zip(normal(20, 100), normal(20, 100, seed=1)):
        path = explore.slerp(a, b, 10)
        norms = np.linalg.norm(path, axis=1)
        assert np.allclose(norms, np.linspace(norms[0], norms[-1], 10), rtol=1e-5)
        steps = np.linalg.norm(np.diff(path / norms[:, None], axis=0), axis=1)
        assert np.allclose(steps, steps[0], rtol=1e-3)  # of equal length
        middle = explore.line(a, b, 11)[5]
        assert np.linalg.norm(middle) < 0.85 * norms.min()


def test_uniform_noise_takes_the_straight_line():
    path = explore.line(np.float32([0, 1]), np.float32([1, -1]), 3)
    assert path.tolist() == [[0, 1], [0.5, 0], [1, -1]]


# ---- arithmetic ----


def test_arithmetic_by_hand():
    z = np.float32([[1, 0], [0, 1], [2, 2], [4, 6]])
    found = explore.arithmetic(z, base=[3], plus=[0, 1], minus=[2])
    assert found.tolist() == [[4 + 0.5 - 2, 6 + 0.5 - 2]]
    found = explore.arithmetic(z, base=[2, 3], plus=[0], minus=[1])
    assert found.tolist() == [[3 + 1 - 0, 4 + 0 - 1]]


class Recorder:
    """A generator that remembers its noise.

    Args:
        draw: a function of noise (default: the images hold the noise itself).
    """

    def __init__(self, draw=None):
        self.seen = []
        self.draw = draw

    def __call__(self, z):
        self.seen.append(z)
        if self.draw is None:
            return z.reshape(len(z), 1, 1, -1)
        return self.draw(z)


def walk(draw, d, *flags):
    """The images of a walk, the number of them in a row, and the noise of the grids."""
    model = explore.Model(
        network=None,
        draw=draw,
        takes_noise_alone=True,
        kind="normal",
        latent_dim=d,
        rng=np.random.default_rng(3),
    )
    images, nrow = explore.walk(explore.parse_args(["run", *flags]), model)
    return images, nrow, normal(explore.GRID, d, seed=3)


def test_the_picture_of_an_arithmetic_shows_its_terms_and_its_result():
    draw = Recorder()
    flags = ("--walk", "arithmetic", "--plus", "3,17", "--minus", "4", "--base", "0,1")
    _, nrow, z = walk(draw, 5, *flags)
    minus, plus, base, result = draw.seen[0].reshape(4, nrow, 5)
    assert nrow == 2
    assert np.array_equal(minus, z[[4, 4]])  # repeated to the length of a row
    assert np.array_equal(plus, z[[3, 17]])
    assert np.array_equal(base, z[[0, 1]])
    expected = (z[0] + z[1]) / 2 + (z[3] + z[17]) / 2 - z[4]
    assert np.allclose(result, [expected] * 2, atol=1e-6)


# ---- direction ----


def bar(width, lean=0.0, brightness=1.0):
    """(1, 1, 32, 32): a bar of 20 rows on black, which leans to the right."""
    image = np.full((1, 1, 32, 32), -1.0, np.float32)
    for row in range(6, 26):
        left = round(16 - width / 2 + lean * (15.5 - row))
        image[0, 0, row, left : left + width] = 2 * brightness - 1
    return image


def test_thickness_is_the_width_of_a_bar():
    # A bar of w x 20 pixels has an area of 20 w and edges of 2 * 20 + 2 w pixels.
    for w in (2, 4, 6):
        expected = 2 * 20 * w / (40 + 2 * w)
        assert np.isclose(explore.thickness(bar(w))[0], expected, rtol=1e-5)


def test_slant_is_the_lean_of_a_bar():
    for lean in (-0.5, 0.0, 0.5):
        assert np.isclose(explore.slant(bar(3, lean))[0], lean, atol=0.03)


def test_brightness_is_the_mean():
    found = explore.brightness(bar(4, brightness=0.5))[0]
    assert np.isclose(found, 0.5 * 4 * 20 / 32**2)


def test_the_direction_is_the_axis_that_decides():
    z = normal(2000, 5)
    w = np.float32([0.6, 0, -0.8, 0, 0])
    direction = explore.attribute_direction(z, np.exp(z @ w))
    assert np.isclose(np.linalg.norm(direction), 1, atol=1e-6)
    assert direction @ w > 0.99


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bars(z):
    """A generator of blurred bars from noise (B, 6).

    Three axes change their width, lean and brightness.
    """
    rows, columns = np.mgrid[-15.5:16, -15.5:16]
    axes = [(0.6 * z[:, i] + 0.8 * z[:, i + 3])[:, None, None] for i in range(3)]
    width = 2 + np.exp(0.4 * axes[0])
    lean = 0.4 * np.tanh(axes[1])
    brightness = sigmoid(1 + axes[2])
    inside = sigmoid(2 * (width - np.abs(columns + lean * rows))) * (np.abs(rows) < 11)
    return (2 * brightness * inside - 1)[:, None].astype(np.float32)


@pytest.mark.parametrize("attribute", ["thickness", "slant", "brightness"])
def test_an_attribute_is_monotone_along_its_direction(attribute):
    """From each of 50 starts, it rises in all of nine steps, and far overall."""
    z = normal(2000, 6)
    measure = explore.ATTRIBUTES[attribute]
    spread = measure(bars(z)).std()
    along = explore.attribute_direction(z, measure(bars(z)))
    values = np.stack([measure(bars(z[:50] + d * along)) for d in np.linspace(-2, 2, 9)])
    assert (np.diff(values, axis=0) > 0).all()
    assert (values[-1] - values[0]).mean() > 2 * spread


def test_a_walk_along_a_direction_and_one_across_it():
    draw = Recorder(bars)
    images, nrow, z = walk(draw, 6, "--walk", "direction", "--attribute", "slant")
    walked = draw.seen[-1].reshape(5, 2, 9, 6)
    assert (images.shape, nrow) == ((90, 1, 32, 32), 9)
    assert np.allclose(walked[:, :, 4], z[:5, None], atol=1e-5)  # the starts, in the middle
    along, across = (walked[0, i, 8] - walked[0, i, 0] for i in range(2))
    products = [along @ along, across @ across, along @ across]
    assert np.allclose(products, [64, 64, 0], atol=1e-3)
    slants = explore.slant(images).reshape(5, 2, 9)
    assert (np.diff(slants[:, 0], axis=1) > 0).all()
    assert np.ptp(slants[:, 1], axis=1).max() < 0.5 * np.ptp(slants[:, 0], axis=1).min()


# ---- runs ----


@pytest.fixture
def trained(tiny_runs):
    """A function of a script's name that returns the folder of a short run."""
    return lambda name: tiny_runs(name).half


@pytest.mark.parametrize(
    "name",
    [
        *("began", "biggan", "gan", "dcgan", "wgan_gp", "wgan", "vae", "cgan_mnist", "infogan"),
        "pggan",
        "r3gan",
        "stylegan2",
    ],
)
def test_every_script_with_a_latent_space_can_be_explored(trained, tmp_path, name):
    flags = {"cgan_mnist": ["--label", "7"], "infogan": ["--label", "2"]}.get(name, [])
    out = tmp_path / "walk"
    explore.main([str(trained(name)), "--walk", "interpolate", "--out_dir", str(out), *flags])
    (picture,) = out.iterdir()
    assert picture.name == "walk_interpolate.png"
    size = meta(trained(name))["args"]["img_size"]
    assert Image.open(picture).size == ((size + 2) * 10 + 2, (size + 2) * 8 + 2)


@pytest.mark.parametrize("name", ["decoder", "averaged"])
def test_a_checkpoint_may_not_say_which_networks_there_are(trained, tmp_path, fails, name):
    """A stranger's file could name parts that its script does not have."""
    with zipfile.ZipFile(trained("gan") / "checkpoint_last.npz") as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    text = json.loads(np.load(io.BytesIO(entries["meta.npy"])).tobytes())
    text["values"][name] = {}
    array = io.BytesIO()
    np.save(array, np.frombuffer(json.dumps(text).encode(), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for entry, content in {**entries, "meta.npy": array.getvalue()}.items():
            archive.writestr(entry, content)
    explore.main([str(tmp_path / "x.npz"), "--walk", "interpolate", "--out_dir", str(tmp_path)])
    assert (tmp_path / "walk_interpolate.png").is_file()


@pytest.mark.parametrize("name", ["began", "bigan", "dcgan", "improved_gan"])
def test_a_walk_between_real_images(trained, tmp_path, capsys, name):
    """Each row starts and ends with a real image; the search brings G nearer."""
    explore.main([str(trained(name)), "--walk", "real", "--out_dir", str(tmp_path)])
    args = meta(trained(name))["args"]
    size = args["img_size"]
    picture = np.asarray(Image.open(tmp_path / "walk_real.png"))
    assert picture.shape == ((size + 2) * 8 + 2, (size + 2) * 12 + 2)
    pixels = load_images(args["data_dir"], size, 1, split="test").images[:, 0]
    for row in range(8):
        for column in (0, 11):
            top = (size + 2) * row + 2
            left = (size + 2) * column + 2
            shown = picture[top : top + size, left : left + size]
            assert (shown == pixels).all((1, 2)).any()
    printed = capsys.readouterr().out
    if name == "bigan":  # its encoder finds the noise
        assert "when found" not in printed
        return
    first, last = re.search(r": ([0-9.]+) for .* ([0-9.]+) when found", printed).groups()
    assert float(last) < float(first)


def test_vectors_of_attributes_by_hand():
    codes = np.float32([[0, 0], [2, 4], [4, 0], [6, 2]])
    attributes = np.float32([[1, 0], [1, 1], [0, 0], [0, 0]])
    vectors = explore.attribute_vectors(codes, attributes)
    assert np.allclose(vectors, [[-4, 1], [2 - 10 / 3, 4 - 2 / 3]])


@pytest.mark.parametrize("name", ["vae", "vaegan"])
def test_attributes_are_changed_one_at_a_time(tmp_path, capsys, name):
    flags = ["--img_size", 16, "--channels", 3, "--latent_dim", 4, "--n_images", 32]
    flags += ["--data_dir", "faces", "--batch_size", 16, "--out_dir", tmp_path]
    run(name, *flags, *(["--width", 4] if name == "vaegan" else ["--hidden", 8]))
    explore.main([str(tmp_path), "--walk", "attributes"])
    printed = capsys.readouterr().out
    n_attributes = printed.split("reconstruction; ")[1].split(", changed")[0].count(",") + 1
    assert n_attributes > 5
    picture = Image.open(tmp_path / "walk_attributes.png")
    assert picture.size == ((2 + n_attributes) * 18 + 2, 8 * 18 + 2)


def test_attributes_need_images_that_have_some(trained, fails):
    code, line = fails(explore.main, [trained("vae"), "--walk", "attributes"])
    assert code == 2
    code, line = fails(explore.main, [trained("dcgan"), "--walk", "attributes"])
    assert code == 2
    assert "is for runs of vaegan.py and vae.py, not of dcgan.py" in line


def test_a_mixing_table_by_hand():
    """Three styles of one number each: the first from the left, others from above."""
    left = np.float32([[[1], [2], [3]], [[4], [5], [6]]])
    top = np.float32([[[10], [20], [30]], [[40], [50], [60]]])
    cells, nrow = explore.mixing_table(left, top)
    assert nrow == 3
    assert cells[1:, :, 0].tolist() == [
        *([10, 20, 30], [40, 50, 60]),
        *([1, 2, 3], [1, 20, 30], [1, 50, 60]),
        *([4, 5, 6], [4, 20, 30], [4, 50, 60]),
    ]
    cells, _ = explore.mixing_table(left, top, cutoff=3)
    assert np.array_equal(cells[4], left[0])


@pytest.mark.parametrize(
    ("walk", "rows", "columns"), [("mixing", 9, 9), ("truncation", 8, 9), ("styles", 8, 10)]
)
def test_walks_through_styles(trained, tmp_path, walk, rows, columns):
    """Samples that a walk starts from, and where it must show one image again."""
    folder = trained("stylegan2")
    explore.main([str(folder), "--walk", walk, "--out_dir", str(tmp_path)])
    picture = np.asarray(Image.open(tmp_path / f"walk_{walk}.png"))
    size = meta(folder)["args"]["img_size"]
    assert picture.shape == ((size + 2) * rows + 2, (size + 2) * columns + 2)

    def cell(picture, row, column):
        top = (size + 2) * row + 2
        left = (size + 2) * column + 2
        return picture[top : top + size, left : left + size].astype(int)

    grid = np.asarray(Image.open(folder / "result.png"))
    if walk == "mixing":  # both rims are samples of the grid
        assert np.abs(cell(picture, 3, 0) - cell(grid, 0, 2)).max() <= 1
        assert np.abs(cell(picture, 0, 3) - cell(grid, 1, 0)).max() <= 1
    elif walk == "truncation":  # the sample at 1, and the mean of w at 0
        assert np.abs(cell(picture, 3, 8) - cell(grid, 0, 3)).max() <= 1
        assert np.abs(cell(picture, 3, 4) - cell(picture, 5, 4)).max() <= 1


def test_walks_through_styles_are_for_one_script(trained, fails):
    code, line = fails(explore.main, [trained("dcgan"), "--walk", "mixing"])
    assert code == 2
    assert "for runs of stylegan2.py" in line
    code, line = fails(explore.main, [trained("stylegan2"), "--walk", "mixing", "--cutoff", 7])
    assert code == 2
    assert "the model has 6 layers" in line
    code, line = fails(explore.main, [trained("stylegan2"), "--walk", "classes"])
    assert code == 2
    assert "for runs of biggan.py" in line


def cells_of(path, size, columns):
    """The images (rows, columns, size, size) of a picture."""
    picture = np.asarray(Image.open(path))[2:, 2:].astype(int)
    step = size + 2
    rows = len(picture) // step
    cells = picture[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return cells.transpose(0, 2, 1, 3)[:, :, :size, :size]


def test_a_walk_from_truncated_noise_to_all_noise(trained, tmp_path):
    """A row for each class; where no value is beyond 2, the last two agree."""
    folder = trained("biggan")
    explore.main([str(folder), "--walk", "truncation", "--out_dir", str(tmp_path)])
    cells = cells_of(tmp_path / "walk_truncation.png", 32, 9)
    assert cells.shape == (10, 9, 32, 32)
    changed = (np.abs(np.diff(cells, axis=1)) > 1).any((2, 3))  # (10, 8)
    assert changed[:, :3].all()
    assert not changed[:, -1].all()


def test_a_walk_from_class_to_class(trained, tmp_path):
    """A row begins as the grid's noise draws its class, and ends in the next class."""
    folder = trained("biggan")
    explore.main([str(folder), "--walk", "classes", "--out_dir", str(tmp_path)])
    cells = cells_of(tmp_path / "walk_classes.png", 32, 10)
    assert cells.shape == (8, 10, 32, 32)
    grid = cells_of(folder / "result.png", 32, 10)
    assert np.abs(cells[0, 0] - grid[0, 0]).max() <= 1
    steps = np.abs(np.diff(cells, axis=1)).sum((2, 3))
    assert (steps > 0).all()


class Grid(jt.nn.Module):
    """(B, 16)  ->  images (B, 1, 4, 4)."""

    def execute(self, x):
        return x.reshape(-1, 1, 4, 4)


def test_the_noise_of_an_image_is_found():
    """The images of a linear generator come from known noise, which the search finds.

    The generator's weights stay as they are.
    """
    rng = np.random.default_rng(0)
    generator = jt.nn.Sequential(jt.nn.Linear(3, 16), Grid())
    weight = generator[0].weight.numpy().copy()
    z = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    candidates = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    images = generator(jt.array(z)).numpy()
    found, first, last = nearest_noise(generator, images, candidates)
    assert np.allclose(found, z, atol=0.02)
    assert (last < 0.2 * first).all()
    assert np.array_equal(generator[0].weight.numpy(), weight)


@pytest.mark.parametrize("name", ["biggan", "cgan_mnist", "vae"])
def test_a_model_of_more_than_noise_has_no_walk_between_images(trained, fails, name):
    code, line = fails(explore.main, [trained(name), "--walk", "real"])
    assert code == 2
    assert "from noise alone" in line


def test_samples_are_counted_as_in_the_grids(trained, tmp_path):
    """Sample 0, with the same minus and plus, is the upper left image of result.png."""
    flags = ["--plus", "5", "--minus", "5", "--base", "0", "--out_dir", str(tmp_path)]
    explore.main([str(trained("dcgan")), "--walk", "arithmetic", *flags])
    walk = np.asarray(Image.open(tmp_path / "walk_arithmetic.png")).astype(int)
    grid = np.asarray(Image.open(trained("dcgan") / "result.png"))
    size = meta(trained("dcgan"))["args"]["img_size"]
    top = 3 * (size + 2) + 2
    result = walk[top : top + size, 2 : 2 + size]
    assert np.abs(result - grid[2 : 2 + size, 2 : 2 + size]).max() <= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--walk", "fly"], "--walk"),
        (["--walk", "arithmetic", "--plus", "1"], "--plus and --minus"),
        (
            ["--walk", "arithmetic", "--plus", "1,x", "--minus", "2"],
            "--plus must be samples from 0 to 99",
        ),
        (["--walk", "arithmetic", "--plus", "1", "--minus", "100"], "--minus must be"),
        (["--walk", "direction", "--attribute", "colour"], "--attribute"),
        (["--walk", "interpolate"], "no checkpoint at"),
    ],
)
def test_bad_flags(fails, tmp_path, flags, message):
    code, line = fails(explore.main, [tmp_path / "none", *flags])
    assert code == 2
    assert message in line


@pytest.mark.parametrize("name", ["pix2pix", "text2img"])
def test_a_model_of_images_or_texts_has_no_latent_space(trained, fails, name):
    code, line = fails(explore.main, [trained(name), "--walk", "interpolate"])
    assert code == 2
    assert "draws no images from noise" in line


def test_a_label_that_the_model_does_not_have(trained, fails):
    flags = ["--walk", "interpolate", "--label", "10"]
    code, line = fails(explore.main, [trained("cgan_mnist"), *flags])
    assert code == 2
    assert "labels are 0 to 9" in line
