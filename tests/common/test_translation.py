"""Pictures through a network that translates: size, tiles, where they are written."""

from common import UserError, translate_folder
from common.translation import in_tiles, tile_starts, write_picture

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def read(path):
    return np.asarray(Image.open(path))


def run_into(out_dir, resume=None):
    """What `translate_folder` needs of a run."""
    return SimpleNamespace(out_dir=Path(out_dir), args=SimpleNamespace(resume=resume))


# ---- tiles ----


def test_where_tiles_start():
    """Tiles of 32 share 8 pixels or more, and reach both ends."""
    assert tile_starts(32, 32) == [0]
    assert tile_starts(33, 32) == [0, 1]
    assert tile_starts(56, 32) == [0, 24]
    assert tile_starts(57, 32) == [0, 12, 25]
    assert tile_starts(64, 32) == [0, 16, 32]
    for side in range(32, 200):
        starts = tile_starts(side, 32)
        assert starts[0] == 0
        assert starts[-1] == side - 32
        assert max(np.diff(starts), default=0) <= 24


@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [
        (64, 64, (32, 32)),
        (97, 61, (32, 32)),
        (33, 200, (32, 32)),
        (32, 32, (32, 32)),
        (9, 50, (32, 48)),
    ],
)
def test_tiles_of_a_function_of_each_pixel_are_the_whole(height, width, tile):
    """Two images, from three channels to two; all tiles have one shape."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    shapes = set()

    def translate(x):
        shapes.add(x.shape)
        return np.tanh(np.stack([x[:, 0] * x[:, 1], x[:, 2] - 0.5], axis=1))

    found = in_tiles(translate, images, tile)
    assert shapes == {(2, 3, *tile)}
    expected = translate(images)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_tiles_have_no_seams():
    """Tiles of different values: equal steps over the 8 pixels that they share."""
    values = iter(range(3))
    images = np.zeros((1, 1, 32, 80), np.float32)
    found = in_tiles(lambda x: np.full_like(x, next(values)), images, (32, 32))[0, 0]
    assert np.array_equal(found, found[:1].repeat(32, axis=0))
    row = found[0]
    assert np.allclose(row[[0, 23, 32, 47, 56, 79]], [0, 0, 1, 1, 2, 2])
    steps = (np.arange(8) + 0.5) / 8
    assert np.allclose(row[24:32], steps)
    assert np.allclose(row[48:56], 1 + steps)


# ---- translate_folder ----


@pytest.fixture
def mine(tmp_path):
    """A folder of pictures that are translated."""
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def translate_all(source, out_dir, translate=np.negative, **options):
    """Translates to (16, 24) RGB, by default to the negative."""
    settings = {"multiple": 8, **options}
    translate_folder(run_into(out_dir), source, translate, (16, 24), 3, **settings)


def test_an_image_covers_the_trained_shape_at_its_own_ratio(tmp_path, mine):
    """The network gets sides that are multiples of 8, padded by reflection."""
    Image.new("RGB", (60, 60), (255, 0, 51)).save(mine / "square.png")
    Image.new("RGB", (100, 40), (255, 0, 51)).save(mine / "wide.png")
    shapes = []

    def translate(images):
        shapes.append(images.shape)
        return -images

    translate_all(mine, tmp_path / "out", translate)
    assert shapes == [(1, 3, 24, 24), (1, 3, 16, 40)]
    assert read(tmp_path / "out/square.png").shape == (24, 24, 3)
    assert read(tmp_path / "out/wide.png").shape == (16, 40, 3)
    assert np.unique(read(tmp_path / "out/wide.png").reshape(-1, 3), axis=0).tolist() == [
        [0, 255, 204]
    ]


def test_the_padding_is_cropped(tmp_path):
    """16 x 27 pixels are padded to 16 x 32, to the right, by reflection."""
    rows = np.arange(16 * 27 * 3, dtype=np.uint8).reshape(16, 27, 3)
    Image.fromarray(rows).save(tmp_path / "x.png")
    seen = []

    def translate(images):
        seen.append(images)
        return images

    translate_all(tmp_path / "x.png", tmp_path / "out", translate)
    assert seen[0].shape == (1, 3, 16, 32)
    assert np.array_equal(seen[0][..., 27:], seen[0][..., 25:20:-1])
    assert np.array_equal(read(tmp_path / "out/x.png"), rows)


def test_tiles_keep_the_size_of_the_image(tmp_path, mine):
    Image.new("RGB", (70, 50), (200, 100, 50)).save(mine / "large.png")
    Image.new("RGB", (20, 30), (200, 100, 50)).save(mine / "small.png")
    shapes = set()

    def translate(images):
        shapes.add(images.shape)
        return -images

    translate_all(mine, tmp_path / "out", translate, tile=32)
    assert shapes == {(1, 3, 32, 32)}
    assert read(tmp_path / "out/large.png").shape == (50, 70, 3)
    assert read(tmp_path / "out/small.png").shape == (30, 20, 3)
    assert np.unique(read(tmp_path / "out/large.png").reshape(-1, 3), axis=0).tolist() == [
        [55, 155, 205]
    ]


@pytest.mark.parametrize(("tile", "shape"), [(None, (16, 24, 3)), (40, (60, 90, 3))])
def test_what_depends_on_the_whole_image_reaches_each_tile(tmp_path, mine, tile, shape):
    """The condition is computed once, from the image at the size that covers."""
    Image.new("RGB", (90, 60), (255, 0, 0)).save(mine / "x.png")
    seen = []

    def condition(image):
        seen.append(image.shape)
        return np.full((1, 3, 1, 1), 0.2, np.float32)

    def translate(images, factor):
        return images * factor

    translate_all(mine, tmp_path / "out", translate, tile=tile, condition=condition)
    assert seen == [(1, 3, 16, 24)]
    found = read(tmp_path / "out/x.png")
    assert found.shape == shape
    assert found[7, 9].tolist() == [153, 102, 102]  # 0.2 and -0.2 of [-1, 1]


def test_folders_and_names_are_kept(tmp_path, capsys):
    for name in ("a.png", "deep/er/b.jpg", "deep/c.PNG"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16)).save(tmp_path / "in" / name)
    translate_all(tmp_path / "in", tmp_path / "out")
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    names = sorted(str(file.relative_to(tmp_path / "out")) for file in files)
    assert names == ["a.png", "deep/c.PNG", "deep/er/b.jpg"]
    assert f"Translated 3 images into {tmp_path / 'out'}." in capsys.readouterr().out


def test_the_trained_runs_own_folder_gets_a_subfolder(tmp_path):
    Image.new("RGB", (24, 16)).save(tmp_path / "x.png")
    run = run_into(tmp_path / "run", resume=str(tmp_path / "run" / "checkpoint_last.npz"))
    translate_folder(run, tmp_path / "x.png", np.negative, (16, 24), 3, multiple=8)
    assert [f.name for f in (tmp_path / "run" / "translated").iterdir()] == ["x.png"]


@pytest.mark.parametrize("source", [".", "x.png"])
def test_an_input_is_never_overwritten(tmp_path, source):
    Image.new("RGB", (24, 16)).save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(UserError, match="holds the --input itself, which it would overwrite"):
        translate_all(tmp_path / source, tmp_path)
    assert (tmp_path / "x.png").read_bytes() == before


def test_a_strip_that_would_not_fit_into_memory(tmp_path, mine):
    Image.new("RGB", (500, 60)).save(mine / "long.png")
    with pytest.raises(UserError, match="500 x 60 pixels are longer than 8 to 1"):
        translate_all(mine, tmp_path / "out")


def test_strips_are_left_out_before_the_first_picture(tmp_path, mine, capsys):
    for name in ("a", "c"):
        Image.new("RGB", (24, 16)).save(mine / f"{name}.png")
    Image.new("RGB", (500, 60)).save(mine / "b.png")
    warnings = []

    def translate(images):
        warnings.append(capsys.readouterr().err)
        return images

    translate_all(mine, tmp_path / "out", translate)
    assert f"skipping 1 of 3 images: {mine}/b.png (500 x 60 pixels" in warnings[0]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    translate_all(mine, tmp_path / "tiles", tile=32)  # tiles can be any number
    assert (tmp_path / "tiles/b.png").is_file()


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("x.png", (6000, 1100), "become 24000 x 4400, and at most 100,000,000 in all are written"),
        ("x.webp", (4096, 8), "become 16384 x 32, and at most 16,383 along a side of a .webp file"),
        ("x.JPG", (8, 16_376), "become 32 x 65504, and at most 65,500 along a side of a .JPG file"),
    ],
)
def test_enlargements_that_no_file_holds(tmp_path, mine, capsys, name, size, reason):
    """They are left out before the first picture is enlarged."""
    Image.new("L", size).save(mine / name)
    settings = {"tile": 16, "by": 4}
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels would {reason}"):
        translate_all(mine, tmp_path / "out", **settings)
    Image.new("L", (5, 3)).save(mine / "small.png")

    def enlarge(images):
        assert f"skipping 1 of 2 images: {mine}/{name}" in capsys.readouterr().err
        return images.repeat(4, axis=2).repeat(4, axis=3)

    translate_all(mine, tmp_path / "out", enlarge, **settings)
    (found,) = (tmp_path / "out").iterdir()
    assert found.name == "small.png" and read(found).shape == (12, 20, 3)


def test_as_large_as_a_file_may_be(tmp_path, mine):
    Image.new("L", (16_383, 1)).save(mine / "x.webp")
    translate_all(mine, tmp_path / "out", tile=32)
    assert read(tmp_path / "out/x.webp").shape == (1, 16_383, 3)


def test_a_picture_that_breaks_meanwhile_is_left_out(tmp_path, mine, capsys):
    """So is a damaged one of a large folder, of which only the headers are checked."""
    for name in "abc":
        Image.new("RGB", (24, 16)).save(mine / f"{name}.png")

    def translate(images):
        (mine / "b.png").write_bytes(b"no image")
        return images

    translate_all(mine, tmp_path / "out", translate)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    captured = capsys.readouterr()
    assert f"{mine}/b.png cannot be read" in captured.err
    assert "Translated 2 images" in captured.out


@pytest.mark.parametrize("inner", ["out", "deep/er/out"])
def test_translations_are_no_input_of_the_next_call(mine, inner):
    Image.new("RGB", (24, 16)).save(mine / "x.png")
    with pytest.raises(UserError, match="lies within the --input"):
        translate_all(mine, mine / inner)
    assert [file.name for file in mine.iterdir()] == ["x.png"]
    translate_all(mine / "x.png", mine / inner)  # a single picture takes no others along
    assert (mine / inner / "x.png").is_file()


def test_other_formats_are_counted(tmp_path, mine, capsys):
    for name in ("x.png", "y.gif", "z.gif"):
        Image.new("RGB", (24, 16)).save(mine / name)
    translate_all(mine, tmp_path / "out")
    captured = capsys.readouterr()
    assert "pictures of other formats are passed over: 2 .gif" in captured.err
    assert "Translated 1 images" in captured.out


def test_nothing_to_translate(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"1 of 1 images cannot be read.*text\.png"):
        translate_all(tmp_path / "text.png", tmp_path / "out")
    with pytest.raises(UserError, match="nowhere is neither a picture nor a folder"):
        translate_all(tmp_path / "nowhere", tmp_path / "out")


def test_broken_images_are_left_out_and_named(tmp_path, mine, capsys):
    for name in "abc":
        Image.new("RGB", (24, 16)).save(mine / f"{name}.png")
    (mine / "broken.png").write_bytes((mine / "a.png").read_bytes()[:40])
    translate_all(mine, tmp_path / "out")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["a.png", "b.png", "c.png"]
    assert "broken.png" in capsys.readouterr().err


# ---- write_picture ----

PICTURE = np.float32([[[-1, 0]], [[1, -1]], [[0.5, 2]]])  # (3, 1, 2)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_picture_of_8_bits(tmp_path, suffix):
    write_picture(PICTURE, tmp_path / f"x.{suffix}")
    assert read(tmp_path / f"x.{suffix}").tolist() == [[[0, 255, 191], [128, 0, 255]]]


def test_a_picture_in_strips(tmp_path):
    """Lines become bytes a few hundred at a time, of which none is lost."""
    lines = np.linspace(-1, 1, 1000, dtype=np.float32)
    write_picture(np.tile(lines[:, None], (3, 1, 2)), tmp_path / "x.png")
    expected = np.floor((lines.astype(np.float64) + 1) / 2 * 255 + 0.5)
    assert read(tmp_path / "x.png")[:, 1, 2].tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["x.gif", "photo"])
def test_a_suffix_that_is_not_read_gets_another_one(tmp_path, name):
    write_picture(PICTURE, tmp_path / name)
    (found,) = tmp_path.iterdir()
    assert found.name == f"{name}.png"
    assert Image.open(found).format == "PNG"


def test_a_picture_that_a_format_does_not_hold(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*x\.webp: .*16383"):
        write_picture(np.zeros((1, 1, 16_384), np.float32), tmp_path / "x.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.npy"])
def test_a_link_in_the_place_of_a_translation_is_replaced(tmp_path, name):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "mine.txt")
    write_picture(PICTURE, tmp_path / name)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / name).stat().st_size > 50
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_picture_that_loses_detail(tmp_path, suffix):
    write_picture(np.zeros((3, 8, 8), np.float32), tmp_path / f"x.{suffix}")
    pixels = read(tmp_path / f"x.{suffix}")
    assert pixels.shape == (8, 8, 3)
    assert abs(pixels.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_the_quality_does_not_depend_on_the_case_of_a_suffix(tmp_path, suffix):
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    write_picture(noise, tmp_path / f"x.{suffix}")
    write_picture(noise, tmp_path / f"y.{suffix.upper()}")
    lower = (tmp_path / f"x.{suffix}").read_bytes()
    assert (tmp_path / f"y.{suffix.upper()}").read_bytes() == lower


def test_arrays_in_the_range_from_0_to_1(tmp_path):
    write_picture(PICTURE, tmp_path / "x.npy")
    assert np.allclose(np.load(tmp_path / "x.npy"), [[[0, 1, 0.75], [0.5, 0, 1]]])
    write_picture(PICTURE[:1], tmp_path / "grey.npy")
    assert np.allclose(np.load(tmp_path / "grey.npy"), [[0, 0.5]])
    assert np.load(tmp_path / "x.npy").dtype == np.float32


def test_channels_that_no_picture_has_become_an_array(tmp_path):
    write_picture(PICTURE[:2], tmp_path / "two.png")
    assert np.allclose(np.load(tmp_path / "two.png.npy"), [[[0, 1], [0.5, 0]]])
