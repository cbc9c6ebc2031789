"""tools/demo.py without its page: what a visitor may enter, and what is drawn."""

from common.data.captions import encode
from common.errors import UserError
from common.images import to_uint8

import importlib.metadata
import io
import socket
import threading

import numpy as np
import pytest
from PIL import Image
from registry import ROWS, load, run, saved_arrays
from small_runs import write_run

from tools import demo
from tools.pages import drawing, objects, painting, reading
from tools.pages.kinds import kind_of
from tools.pages.networks import Networks, as_picture, load_run, source_of
from tools.pages.worker import Worker

ATTRIBUTES = ["red", "green", "blue", "bold", "inverted"]
KINDS = {
    "began": drawing.Walk,
    "biggan": drawing.Number,
    "bigan": drawing.Walk,
    "cgan_mnist": drawing.Number,
    "context_encoder": painting.HoleFiller,
    "cyclegan": painting.Translator,
    "dcgan": drawing.Walk,
    "gan": drawing.Walk,
    "gman": drawing.Walk,
    "improved_gan": drawing.Walk,
    "infogan": drawing.Codes,
    "pggan": drawing.Walk,
    "pix2pix": painting.Translator,
    "pix2pixhd": objects.ObjectPainter,
    "r3gan": drawing.Walk,
    "sgan": drawing.Number,
    "spade": painting.MapPainter,
    "srgan": painting.Enlarger,
    "stackgan": drawing.Sentence,
    "stargan": painting.AttributeEditor,
    "stylegan2": drawing.Walk,
    "text2img": drawing.Sentence,
    "unit": painting.Translator,
    "vae": drawing.Walk,
    "vaegan": drawing.Walk,
    "wgan": drawing.Walk,
    "wgan_gp": drawing.Walk,
}


def pixels_of(path):
    """A picture of a run as RGB."""
    return np.asarray(Image.open(path).convert("RGB"))


def cells(grid, side, padding=2):
    """The images (N, S, S, 3) of a grid, row by row."""
    step = side + padding
    found = []
    for top in range(padding, len(grid) - 1, step):
        for left in range(padding, grid.shape[1] - 1, step):
            found.append(grid[top : top + side, left : left + side])
    return np.array(found)


def reduced(picture, like):
    """A picture of a page without its repeated pixels, at the height of another."""
    times = len(picture) // like
    return picture[::times, ::times]


# ---- kinds ----


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_script_has_a_page(name):
    assert kind_of(load(name).parse_args([])) is KINDS[name]


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("edges", painting.Translator),
        ("color", painting.Translator),
        ("enlarge", painting.Translator),
        ("inpaint", painting.HoleFiller),
    ],
)
def test_the_task_of_a_run_decides(task, kind):
    assert kind_of(load("pix2pix").parse_args(["--task", task])) is kind


def test_a_script_without_one_is_named():
    args = load("dcgan").parse_args([])
    del args.latent_dim
    args.script = "tomorrow"
    with pytest.raises(UserError, match=r"no page for runs of tomorrow\.py"):
        kind_of(args)


# ---- networks ----


@pytest.mark.parametrize(
    ("average", "names", "source"),
    [
        ("averaged", ["generator", "discriminator"], "generator"),
        ("averaged_G", ["G", "F", "D_A", "D_B"], "G"),
        ("averaged_F", ["G", "F", "D_A", "D_B"], "F"),
        ("averaged_G", ["generator", "encoder", "discriminator"], "generator"),
        ("averaged_E", ["generator", "encoder", "discriminator"], "encoder"),
        ("averaged1", ["encoders", "generator1", "discriminator1", "generator2"], "generator1"),
        ("averaged2", ["encoders", "generator1", "discriminator1", "generator2"], "generator2"),
    ],
)
def test_the_network_of_an_average(average, names, source):
    assert source_of(average, names) == source


def test_an_average_of_no_network_is_refused():
    with pytest.raises(UserError, match="averaged_X, of no network"):
        source_of("averaged_X", ["generator"])


def test_a_missing_network_is_named():
    with pytest.raises(UserError, match="no network decoder"):
        Networks(generator=1)["decoder"]


@pytest.mark.parametrize("name", ["cgan_mnist", "spade", "stackgan", "cyclegan"])
def test_networks_have_the_averaged_weights(name, tmp_path):
    folder = write_run(name, tmp_path / "run")
    saved = saved_arrays(folder)
    networks = load_run(folder).networks
    for network, part in ROWS[name].networks.items():
        weights = networks[network].state_dict()
        assert weights
        for key, value in weights.items():
            assert np.array_equal(value.numpy(), saved[f"{part}/{key}"]), (network, key)
        assert not networks[network].is_training()


def test_small_pictures_are_enlarged_by_repeated_pixels():
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 20, 30)).astype(np.float32)
    picture = as_picture(images, nrow=3)
    assert picture.shape == (4 * 24, 4 * 98, 3)  # 98 pixels, four times: 392
    assert np.array_equal(picture[::4, ::4], picture[3::4, 3::4])
    assert np.array_equal(picture[8:88:4, 8:128:4, 0], to_uint8(images)[0, :, :, 0])


def test_photographs_keep_their_size():
    images = np.zeros((1, 5, 256, 100), np.float32)
    assert as_picture(images).shape == (256, 100, 3)


# ---- the pictures are those of the scripts ----


def test_a_number_is_drawn_as_by_the_script(tmp_path):
    folder = write_run("cgan_mnist", tmp_path / "run")
    flags = ["--resume", folder, "--sample_only", "--number", "5550123", "--seed", 4]
    run("cgan_mnist", *flags, "--out_dir", tmp_path / "out")
    expected = pixels_of(tmp_path / "out" / "result.png")
    model = drawing.Number(load_run(folder))
    found = model.draw(" 555-0123", "4")
    assert np.array_equal(reduced(found, len(expected)), expected)
    assert not np.array_equal(model.draw("5550123", "5"), found)


def test_a_number_is_drawn_by_a_stack(tmp_path, monkeypatch):
    stack = load_run(write_run("sgan", tmp_path / "run"))
    model = drawing.Number(stack)
    assert reduced(model.draw("314", "4"), 24).shape == (24, 3 * 22 + 2, 3)

    def draw(networks, labels, rng, args):  # an untrained stack draws grey
        images = rng.uniform(-1, 1, (len(labels), 1, 20, 20))
        return (images * labels[:, None, None, None] / 9).astype(np.float32)

    monkeypatch.setattr(stack.script, "draw", draw)
    expected = as_picture(draw(None, np.array([3, 1, 4]), np.random.default_rng([4, 3]), None), 20)
    assert np.array_equal(model.draw("314", "4"), expected)
    assert not np.array_equal(model.draw("314", "5"), expected)


@pytest.mark.parametrize("name", ["dcgan", "vae", "began"])
def test_a_walk_leads_from_the_first_sample_of_a_seed_to_that_of_another(name, tmp_path):
    folder = write_run(name, tmp_path / "run")
    model = drawing.Walk(load_run(folder))
    side = model.args.img_size
    for position, seed in ((0, 7), (drawing.N_STEPS, 8)):
        flags = ["--resume", folder, "--sample_only", "--seed", seed]
        run(name, *flags, "--out_dir", tmp_path / str(seed))
        expected = cells(pixels_of(tmp_path / str(seed) / "result.png"), side)[0]
        found = reduced(model.draw("7", "8", position), side)
        assert np.abs(found.astype(int) - expected).max() <= 1  # of a batch of another size
    strip = reduced(model.draw_strip("7", "8"), side + 4)
    middle = reduced(model.draw("7", "8", drawing.N_STEPS / 2), side)
    assert len(cells(strip, side)) == drawing.N_ON_THE_WAY
    assert np.abs(cells(strip, side)[4].astype(int) - middle).max() <= 1


def test_codes_are_those_of_the_script(tmp_path):
    folder = write_run("infogan", tmp_path / "run", "--n_continuous", 2)
    flags = ["--resume", folder, "--sample_only", "--code", 2, "--continuous", "-1.5", "0.5"]
    run("infogan", *flags, "--out_dir", tmp_path / "out")
    expected = cells(pixels_of(tmp_path / "out" / "result.png"), 8)[: drawing.N_NOISES]
    model = drawing.Codes(load_run(folder))
    found = cells(reduced(model.draw("0", 2, -1.5, 0.5), 2 + 2 * 10), 8)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", ["text2img", "stackgan"])
def test_a_sentence_is_drawn_as_by_the_script(name, tmp_path):
    folder = write_run(name, tmp_path / "run")
    sentence = "一个红色的三"
    flags = ["--resume", folder, "--sample_only", "--text", sentence, "--seed", 3]
    run(name, *flags, "--out_dir", tmp_path / "out")
    model = drawing.Sentence(load_run(folder))
    side = model.args.img_size
    expected = cells(pixels_of(tmp_path / "out" / "result.png"), side)
    if name == "stackgan":  # the first four of a row of each stage
        expected = np.concatenate([expected[:4], expected[8:12]])
    picture, remark = model.draw(sentence, "3")
    found = cells(reduced(picture, 2 * (side + 2) + 2), side)
    assert remark is None
    assert np.abs(found.astype(int) - expected).max() <= 1


def write_png(path, size=(50, 40), seed=0):
    pixels = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    small = Image.fromarray(pixels).resize((8, 8)).resize(size, Image.BICUBIC)
    small.save(path)
    return path


def translated(name, folder, path, out, *flags):
    """What a script's --input makes of a square picture."""
    run(name, "--resume", folder, "--sample_only", "--input", path, "--out_dir", out, *flags)
    return pixels_of(out / path.name)


def test_a_picture_is_translated_as_by_pix2pix(tmp_path):
    folder = write_run("pix2pix", tmp_path / "run")
    path = write_png(tmp_path / "a.png", (32, 32))
    expected = translated("pix2pix", folder, path, tmp_path / "out")
    model = painting.Translator(load_run(folder))
    image, remark = model.read(path)
    assert remark is None
    assert np.array_equal(reduced(model.draw(image), 32), expected)


@pytest.mark.parametrize("task", ["edges", "color"])
def test_an_upload_becomes_what_the_task_takes(task, tmp_path):
    folder = write_run("pix2pix", tmp_path / "run", "--task", task, "--data_dir", "faces")
    path = write_png(tmp_path / "a.png", (32, 32))
    expected = translated("pix2pix", folder, path, tmp_path / "out")
    model = painting.Translator(load_run(folder))
    image, _ = model.read(path)
    assert np.array_equal(image[:, 0], image[:, 1]) == (task == "color")
    assert np.array_equal(reduced(model.draw(image), 32), expected)
    assert (model.palette is None) == (task == "color")


def test_an_upload_is_enlarged(tmp_path):
    """A picture of the small size; the script then has one tile."""
    folder = write_run("pix2pix", tmp_path / "run", "--task", "enlarge", "--data_dir", "faces")
    path = write_png(tmp_path / "a.png", (8, 8))
    expected = translated("pix2pix", folder, path, tmp_path / "out")
    model = painting.Translator(load_run(folder))
    image, _ = model.read(path)
    assert image.shape == (1, 3, 32, 32)
    assert np.array_equal(reduced(model.draw(image), 32), expected)


@pytest.mark.parametrize("hole", ["center", "random"])
@pytest.mark.parametrize("name", ["context_encoder", "pix2pix"])
def test_a_hole_is_filled_as_by_the_script(name, hole, tmp_path):
    """Brushed, as the transparent region of an upload, and by an uploaded mask."""
    flags = ["--channels", 3, "--data_dir", "faces", "--hole", hole]
    if name == "pix2pix":
        flags += ["--task", "inpaint"]
    folder = write_run(name, tmp_path / "run", *flags)
    model = painting.HoleFiller(load_run(folder))
    side = model.shape[0]
    path = write_png(tmp_path / "a.png", (side, side))
    missing = np.zeros((side, side), bool)
    missing[3:8, 9:11] = True
    mask = Image.fromarray(np.where(missing, 255, 0).astype(np.uint8))
    mask.save(tmp_path / "m.png")
    expected = translated(name, folder, path, tmp_path / "out", "--mask", tmp_path / "m.png")

    image, transparent, _ = model.read(path)
    assert not transparent.any()
    assert np.array_equal(model.read_mask(tmp_path / "m.png"), missing)
    brushed = model.read_drawing(model.url_of(image, missing))
    assert np.array_equal(brushed, missing)
    assert np.array_equal(reduced(model.draw(image, brushed), side), expected)
    with Image.open(path) as picture:
        picture.putalpha(Image.eval(mask, lambda value: 255 - value))
        picture.save(tmp_path / "t.png")
    assert np.array_equal(model.read(tmp_path / "t.png")[1], missing)


def test_what_is_wrong_with_a_hole(tmp_path):
    folder = write_run("context_encoder", tmp_path / "run", "--hole", "center")
    model = painting.HoleFiller(load_run(folder))
    image, hole = model.example(3)
    assert hole.sum() == 6 * 6
    with pytest.raises(UserError, match="Choose a picture first"):
        model.draw(None, hole)
    with pytest.raises(UserError, match="Brush the hole first"):
        model.draw(image, np.zeros_like(hole))
    with pytest.raises(UserError, match="covers everything"):
        model.draw(image, np.ones_like(hole))
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in {
        "black": "has no hole: it is white where the hole is",
        "clear": "The mask is transparent",
        "text": "text.png cannot be used",
    }.items():
        with pytest.raises(UserError, match=message):
            model.read_mask(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="Choose a mask first"):
        model.read_mask(None)


@pytest.mark.parametrize("name", ["cyclegan", "unit"])
def test_a_picture_is_translated_in_both_directions(name, tmp_path):
    folder = write_run(name, tmp_path / "run")
    path = write_png(tmp_path / "a.png", (32, 32))
    model = painting.Translator(load_run(folder))
    image, _ = model.read(path)
    found = {}
    for flag, direction in (("AtoB", "A → B"), ("BtoA", "B → A")):
        flags = ("--direction", flag)
        expected = translated(name, folder, path, tmp_path / flag, *flags)
        found[flag] = reduced(model.draw(image, direction), 32)
        assert np.array_equal(found[flag], expected)
    assert not np.array_equal(found["AtoB"], found["BtoA"])
    assert model.palette is None
    assert [len(images) for images in model.examples.values()] == [10, 10]


def test_a_picture_is_enlarged_as_by_srgan(tmp_path):
    """At its own size, beside bicubic interpolation; a large one is reduced first."""
    folder = write_run("srgan", tmp_path / "run")
    path = write_png(tmp_path / "a.png", (40, 30))
    expected = translated("srgan", folder, path, tmp_path / "out")
    model = painting.Enlarger(load_run(folder))
    image, remark = model.read(path)
    assert remark is None
    bicubic, large = model.draw(image)
    assert np.array_equal(reduced(large, 120), expected)
    by_pillow = Image.open(path).resize((160, 120), Image.BICUBIC)
    difference = np.abs(reduced(bicubic, 120) - np.asarray(by_pillow).astype(int))
    assert difference[8:-8, 8:-8].max() <= 1
    assert model.examples.shape == (10, 3, 8, 8)
    image, remark = model.read(write_png(tmp_path / "large.png", (512, 300)))
    assert image.shape == (1, 3, 150, 256)
    assert remark == "The picture is reduced to 256 x 150 pixels first."


def test_attributes_are_changed_as_by_stargan(tmp_path):
    """Of those that exclude each other, the second is set; and one of the others."""
    folder = write_run("stargan", tmp_path / "run")
    path = write_png(tmp_path / "a.png", (32, 32))
    model = painting.AttributeEditor(load_run(folder))
    exclusive = model.attributes.exclusive
    other = next(name for name in model.names if name not in exclusive)
    flags = ("--set", f"{exclusive[1]}=1,{other}=1")
    expected = translated("stargan", folder, path, tmp_path / "out", *flags)
    image, _ = model.read(path)
    values = dict(zip(model.names, model.found(image)))
    assert set(values.values()) <= {0, 1}
    values.update(dict.fromkeys(exclusive, 0))
    values.update({exclusive[1]: 1, other: 1})
    assert np.array_equal(reduced(model.draw(image, *values.values()), 32), expected)


# ---- sliders of attributes ----


def editor(may_have_none):
    """An AttributeEditor without networks; red, green and blue exclude each other."""
    model = object.__new__(painting.AttributeEditor)
    model.names = ATTRIBUTES
    model.attributes = load("stargan").Attributes(ATTRIBUTES, ATTRIBUTES[:3], may_have_none)
    return model


@pytest.mark.parametrize(
    ("may_have_none", "moved", "values", "expected"),
    [
        (False, 2, [1, 0, 0.25, 1, 0], [0.75, 0, 0.25, 1, 0]),
        (False, 0, [0.5, 0.6, 0.4, 0, 1], [0.5, 0.3, 0.2, 0, 1]),
        (False, 0, [0.4, 0, 0, 0, 1], [0.4, 0.3, 0.3, 0, 1]),
        (False, 3, [1, 0, 0, 0.5, 0], [1, 0, 0, 0.5, 0]),
        (True, 2, [1, 0, 0.25, 1, 0], [0.75, 0, 0.25, 1, 0]),
        (True, 0, [0.4, 0, 0, 0, 1], [0.4, 0, 0, 0, 1]),
        (True, 0, [0.2, 0.3, 0, 0, 1], [0.2, 0.3, 0, 0, 1]),
    ],
)
def test_exclusive_attributes_give_way(may_have_none, moved, values, expected):
    found = editor(may_have_none).moved(moved, values)
    assert found == pytest.approx(expected)


# ---- canvases ----


def test_outlines_are_drawn_in_black_on_white(tmp_path):
    """The palette of the built-in outlines; their smooth edges are no colours."""
    folder = write_run("pix2pix", tmp_path / "run")
    model = painting.Translator(load_run(folder))
    assert model.palette.tolist() == [[255, 255, 255], [0, 0, 0]]
    assert model.canvas_size() == (256, 256)
    example = model.examples[""][:1]
    assert np.array_equal(model.read_drawing(model.url_of(example)), example)


def test_a_palette_holds_the_colours_of_flat_pictures():
    colours = np.array([[0, 0, 255], [255, 0, 0], [0, 170, 0]])
    classes = np.random.default_rng(0).choice(3, (2, 40, 40), p=[0.6, 0.3, 0.1])
    images = (colours[classes] / 127.5 - 1).transpose(0, 3, 1, 2)
    assert painting.palette_of(images).tolist() == colours.tolist()


def test_colours_of_a_jpeg_are_not_exact():
    colours = np.array([[5, 50, 250], [250, 90, 5], [30, 250, 220]])
    rng = np.random.default_rng(0)
    classes = rng.choice(3, (2, 40, 40), p=[0.6, 0.3, 0.1])
    pixels = colours[classes] + rng.integers(-5, 6, (2, 40, 40, 3))
    palette = painting.palette_of((pixels / 127.5 - 1).transpose(0, 3, 1, 2))
    assert len(palette) == 3
    assert np.abs(palette - colours).max() <= 17


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photographs_have_no_palette(channels):
    images = np.random.default_rng(0).uniform(-1, 1, (4, channels, 32, 32))
    if channels == 1:
        images = images.repeat(2, axis=3)
    assert painting.palette_of(images) is None


def test_lines_become_smooth():
    pixels = np.full((8, 8, 3), 255, np.uint8)
    pixels[:, 1] = 0  # a quarter of the first column of 2 x 2 pixels
    image = reading.outlines_of(reading.url_of(pixels), (8, 8), (2, 2), [255, 255, 255])
    assert image.shape == (1, 3, 2, 2)
    assert np.allclose(image[0, 0, :, 0], 0.5, atol=0.01)  # three quarters white
    assert (image[0, :, :, 1] == 1).all()


def test_each_colour_is_its_class():
    colours = np.uint8([[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    classes = np.random.default_rng(0).integers(3, size=(4, 6))
    url = reading.url_of(colours[classes])
    assert np.array_equal(reading.classes_of(url, (6, 4), colours)[0], classes)
    almost = np.clip(colours[classes].astype(int) + 20, 0, 255).astype(np.uint8)
    found = reading.classes_of(reading.url_of(almost), (6, 4), colours)
    assert np.array_equal(found[0], classes)


def test_a_map_is_painted_in_the_style_of_a_picture_or_of_a_seed(tmp_path):
    folder = write_run("spade", tmp_path / "run")
    model = painting.MapPainter(load_run(folder))
    assert model.names[:3] == ["sky", "water", "ground"]
    assert len(np.unique(model.colours, axis=0)) == 13
    url = reading.url_of(model.coloured(model.maps[0]))
    style = model.images[1:2]
    code = model.painter.encode(style)
    expected = to_uint8(model.painter.paint(model.maps[:1], code))[0]
    assert np.array_equal(reduced(model.draw(url, "0", style), 32), expected)
    assert not np.array_equal(model.draw(url, "1"), model.draw(url, "2"))
    assert np.array_equal(model.draw(url, "1"), model.draw(url, "1"))


def test_objects_are_painted_with_looks_of_their_own(tmp_path):
    """Digits have five colours; another look of one object changes nothing else's."""
    model = objects.ObjectPainter(load_run(write_run("pix2pixhd", tmp_path / "run")))
    digits = [f"digit {k}" for k in range(1, 6)]
    assert model.names == ["sky", "water", "ground", *digits]
    assert len(np.unique(model.colours, axis=0)) == 8
    entries = model.maps[0]
    url = reading.url_of(model.coloured(entries))
    labels = model.classes[entries][None]
    ids = objects.numbered(labels[0], entries)[None]
    codes = np.zeros((1, objects.MOST_INSTANCES, 2), np.float32)
    for name in np.unique(ids):
        codes[0, name] = model.look(entries[ids[0] == name][0], 5, 0)
    expected = to_uint8(model.script.paint(model.generator, labels, ids, codes, 1))[0]
    assert np.array_equal(reduced(model.draw(url, "5"), 32), expected)
    assert not np.array_equal(model.draw(url, "5"), model.draw(url, "6"))

    entry = entries.max()
    assert model.entry_of(model.names[entry]) == entry
    looks = [tuple(model.look(entry, 5, n)) for n in range(4)]
    assert len(set(looks[:3])) == 3 and looks[3] == looks[0]
    changes = [0] * 8
    changes[entry] = 1
    assert not np.array_equal(model.draw(url, "5", changes), model.draw(url, "5"))
    with pytest.raises(UserError, match="no object digit 9"):
        model.entry_of("digit 9")


def test_a_class_with_one_object_in_each_map_has_one_colour():
    labels = np.int32([[[0, 0, 1, 1]], [[0, 1, 1, 1]]])
    ids = np.int32([[[0, 0, 1, 2]], [[0, 1, 1, 1]]])
    assert objects.most_objects(labels, ids, 3).tolist() == [1, 2, 0]


def test_without_the_data_there_are_no_test_pictures(tmp_path, capsys):
    """The run of somebody else, whose data are not here."""
    for name in (
        "pix2pix",
        "stargan",
        "cyclegan",
        "unit",
        "spade",
        "pix2pixhd",
        "context_encoder",
        "srgan",
    ):
        folder = write_run(name, tmp_path / name, "--data_dir", tmp_path / "gone")
        model = KINDS[name](load_run(folder))
        shown = model.maps if hasattr(model, "maps") else model.examples
        assert shown in (None, {"": None}, {"A → B": None, "B → A": None})
        assert "no test pictures" in capsys.readouterr().err


# ---- what a visitor may enter ----


@pytest.mark.parametrize(
    ("text", "seed"),
    [("0", 0), (" 12 ", 12), ("１２", 12), ("4294967295", 4294967295), ("007", 7)],
)
def test_seeds(text, seed):
    assert reading.seed_of(text) == seed


@pytest.mark.parametrize(
    "text", ["", None, "-1", "1.5", "abc", "4294967296", "9" * 9999, "1e3", "١٢"]
)
def test_no_seeds(text):
    with pytest.raises(UserError, match="whole number from 0 to 4,294,967,295") as raised:
        reading.seed_of(text)
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize(
    ("text", "n", "labels"),
    [
        ("5550123", 10, [5, 5, 5, 0, 1, 2, 3]),
        (" 555-01 23 ", 10, [5, 5, 5, 0, 1, 2, 3]),
        ("５５", 10, [5, 5]),
        ("3 17,22", 26, [3, 17, 22]),
        ("9" * 40, 10, [9] * 40),
    ],
)
def test_labels(text, n, labels):
    assert reading.labels_of(text, n).tolist() == labels


@pytest.mark.parametrize(
    ("text", "n", "message"),
    [
        ("", 10, "Write a number"),
        (None, 10, "Write a number"),
        ("12a", 10, "a is none"),
        ("128", 5, "8 is none"),
        ("1" * 1000, 10, "at most 40 digits or labels; got 1,000"),
        ("3 26", 26, "26 is none"),
        ("9" * 1000, 26, r"9+\.\.\. is none"),
        ("<b>", 10, "< is none"),
    ],
)
def test_no_labels(text, n, message):
    with pytest.raises(UserError, match=message) as raised:
        reading.labels_of(text, n)
    assert len(str(raised.value)) < 120


def test_a_slider_whose_field_is_empty():
    assert reading.slider_value(0.5, 0, 1) == 0.5
    for value in (None, float("nan"), 1.5, -1):
        with pytest.raises(UserError, match="number from 0 to 1"):
            reading.slider_value(value, 0, 1)


def test_sentences():
    assert reading.sentence_of(" a red one ") == ("a red one", None)
    for text in ("", "  ", None):
        with pytest.raises(UserError, match="Write a sentence"):
            reading.sentence_of(text)


def test_a_long_sentence_is_cut_with_a_remark():
    text, remark = reading.sentence_of("红" * 10_000)
    assert "first 201 bytes" in remark
    assert encode([text]).shape == (1, 201 + 8)
    assert reading.sentence_of("红" * 67)[1] is None  # 201 bytes


def test_half_of_a_character_does_no_harm():
    text, _ = reading.sentence_of("a \ud83d")
    assert encode([text])[0, :3].tolist() == list(b"a ?")


def broken_png(path):
    write_png(path)
    path.write_bytes(path.read_bytes()[:200])


def text_file(path):
    path.write_text("no picture")


def bomb(path):
    """A PNG of 20,000 x 20,000 pixels, of which only the header is true."""
    header = Image.new("1", (1, 1))
    file = io.BytesIO()
    header.save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("write", [broken_png, text_file, bomb, empty])
def test_bad_uploads(write, tmp_path):
    path = tmp_path / "upload.png"
    write(path)
    with pytest.raises(UserError, match=r"upload\.png cannot be used .* Give a PNG") as raised:
        reading.picture_of(path, 3, (32, 32))
    assert str(tmp_path) not in str(raised.value)


def test_no_upload():
    with pytest.raises(UserError, match="Choose a picture first"):
        reading.picture_of(None, 3, (32, 32))


def test_the_first_frame_of_a_gif(tmp_path):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    path = tmp_path / "moving.GIF"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    image, remark = reading.picture_of(path, 3, (32, 32))
    assert image[0, :, 5, 5].tolist() == [1, -1, -1]
    assert remark == "Of a GIF only the first frame is used."


def test_an_upload_of_any_size_and_mode(tmp_path):
    red = Image.new("RGBA", (90, 30), (255, 0, 0, 255))
    red.save(tmp_path / "a.png")
    image, remark = reading.picture_of(tmp_path / "a.png", 3, (32, 48))
    assert (image.shape, image.dtype, remark) == ((1, 3, 32, 48), np.float32, None)
    assert image[0, :, 5, 5].tolist() == [1, -1, -1]
    grey, _ = reading.picture_of(tmp_path / "a.png", 1, (32, 48))
    assert grey.shape == (1, 1, 32, 48)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "canvas is empty"),
        ("", "canvas is empty"),
        ("hello", "cannot be read"),
        ("data:image/png;base64,AAAA", "cannot be read"),
        ("data:image/png;base64,???", "cannot be read"),
        ("data:image/jpeg;base64,AAAA", "cannot be read"),
        (reading.URL_START + "A" * 17_000_000, "cannot be read"),
        (reading.url_of(np.zeros((9, 8, 3), np.uint8)), "8 x 9 pixels"),
    ],
    ids=range(8),
)
def test_bad_drawings(url, message):
    with pytest.raises(UserError, match=message):
        reading.drawing_of(url, (8, 8))


def test_an_empty_canvas():
    white = reading.url_of(np.full((8, 8, 3), 255, np.uint8))
    with pytest.raises(UserError, match="canvas is empty"):
        reading.outlines_of(white, (8, 8), (8, 8), np.uint8([255, 255, 255]))
    assert reading.outlines_of(white, (8, 8), (8, 8), np.uint8([0, 0, 0])).min() == 1


# ---- one thread ----


@pytest.fixture
def worker():
    worker = Worker()
    thread = threading.Thread(target=worker.serve)
    thread.start()
    yield worker
    worker.stop()
    thread.join(10)
    assert not thread.is_alive()


def in_threads(function, n):
    """Calls a function of 0 to n - 1 in n threads at once; returns the results."""
    results = [None] * n

    def call(i):
        results[i] = function(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_twenty_visitors_get_their_own_answers(worker, tmp_path):
    folder = write_run("cgan_mnist", tmp_path / "run")
    model = worker.call(lambda: drawing.Number(load_run(folder)))
    seen = set()

    def draw(text, seed):
        seen.add(threading.get_ident())
        return model.draw(text, seed)

    alone = [worker.call(draw, f"{i:04d}", str(i)) for i in range(20)]
    together = in_threads(lambda i: worker.call(draw, f"{i:04d}", str(i)), 20)
    assert len(seen) == 1
    assert len({picture.tobytes() for picture in alone}) == 20
    for one, other in zip(alone, together):
        assert np.array_equal(one, other)


def test_an_error_reaches_its_visitor_alone(worker):
    def half(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError):
        worker.call(half, 0)
    assert worker.call(half, 4) == 0.25


def test_nobody_waits_for_a_closed_page():
    worker = Worker()
    worker.stop()
    worker.serve()
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(int)


# ---- the command ----


def with_gradio(monkeypatch, version):
    def find(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", find)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "the page needs gradio (Python 3.10 to 3.12): pip install"),
        ("5.49.1", "needs gradio 6.20 or a later 6, not 5.49.1: pip install"),
        ("6.19.0", "not 6.19.0"),
        ("7.0.0", "not 7.0.0"),
    ],
)
def test_without_the_right_gradio(version, message, monkeypatch, fails, tmp_path):
    with_gradio(monkeypatch, version)
    code, line = fails(demo.main, [tmp_path])
    assert code == 2
    assert line.startswith("demo.py: error: ")
    assert message in line


def test_what_is_no_run_is_named(monkeypatch, fails, tmp_path):
    with_gradio(monkeypatch, "6.31.0")
    (tmp_path / "text.npz").write_text("no checkpoint")
    for path in (tmp_path / "gone", tmp_path / "text.npz"):
        code, line = fails(demo.main, [path])
        assert code == 2
        assert str(path) in line


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port(port, fails):
    code, line = fails(demo.main, ["run", "--port", port])
    assert code == 2
    assert "--port" in line


def test_a_port_that_is_taken(monkeypatch, fails):
    with_gradio(monkeypatch, "6.31.0")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code, line = fails(demo.main, ["run", "--port", port])
    assert code == 2
    assert f"--port {port} cannot be used" in line


def test_nothing_is_shared_unless_somebody_asks():
    assert demo.parse_args(["run"]).share is False
    assert demo.parse_args(["run", "--share"]).share is True


def test_titles_of_tabs(tmp_path):
    file = tmp_path / "b" / "checkpoint_last.npz"
    file.parent.mkdir()
    file.touch()
    assert demo.title_of(tmp_path / "a", {}) == "a"
    assert demo.title_of(file, {"a": 1}) == "b"
    assert demo.title_of(file, {"b": 1, "b (2)": 1}) == "b (3)"


@pytest.mark.parametrize(
    ("platform", "name", "shows"),
    [
        ("linux", None, False),  # a browser in the terminal would take it over
        ("linux", "DISPLAY", True),
        ("linux", "WAYLAND_DISPLAY", True),
        ("linux", "WSL_DISTRO_NAME", True),
        ("darwin", None, True),
    ],
)
def test_a_browser_opens_where_there_is_a_screen(platform, name, shows, monkeypatch):
    monkeypatch.setattr(demo.sys, "platform", platform)
    for each in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER"):
        monkeypatch.delenv(each, raising=False)
    if name is not None:
        monkeypatch.setenv(name, "x")
    assert demo.shows_browser() is shows


def test_the_environment_keeps_to_this_machine(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.com")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    for name in (*demo.ENVIRONMENT, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "before")  # restored after the test
    demo.prepare_environment("/somewhere")
    assert demo.os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert demo.os.environ["GRADIO_TEMP_DIR"] == "/somewhere"
    assert demo.os.environ["no_proxy"] == "127.0.0.1,localhost,example.com"
    assert demo.os.environ["NO_PROXY"] == "127.0.0.1,localhost"
