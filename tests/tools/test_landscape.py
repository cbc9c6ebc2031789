"""tools/landscape.py: the pictures of a folder of maps, their styles, bad input."""

from common.data.decode import to_float

import io
import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registry import images, meta, run

from tools import landscape


@pytest.fixture
def trained(tiny_runs, tmp_path):
    """The folder of a small run of spade.py."""
    return shutil.copytree(tiny_runs("spade").half, tmp_path / "run")


@pytest.fixture
def maps(tmp_path):
    """A folder of the maps 0.png to 4.png, 40 x 24 pixels, of one class each."""
    return make_maps(tmp_path / "maps", 5)


def make_maps(folder, n):
    folder.mkdir()
    for i in range(n):
        Image.fromarray(np.full((24, 40), i % 4, np.uint8)).save(folder / f"{i}.png")
    return folder


def paint(trained, maps, out, *flags):
    """{name: picture} that the command writes into `out`."""
    landscape.main([str(argument) for argument in (trained, maps, out, *flags)])
    return {file.name: Image.open(file) for file in sorted(out.iterdir())}


# ---- names, sizes, tiles ----


def test_names_sizes_and_format(trained, maps, tmp_path):
    pictures = paint(trained, maps, tmp_path / "out")
    assert list(pictures) == [f"{i}.jpg" for i in range(5)]
    for picture in pictures.values():
        assert (picture.size, picture.format, picture.mode) == ((40, 24), "JPEG", "RGB")


def test_another_size(trained, maps, tmp_path):
    pictures = paint(trained, maps, tmp_path / "out", "--out_size", "512x384")
    assert {picture.size for picture in pictures.values()} == {(512, 384)}


def test_a_single_map_and_a_checkpoint_file(trained, maps, tmp_path):
    pictures = paint(trained / "checkpoint_last.npz", maps / "3.png", tmp_path / "out")
    assert list(pictures) == ["3.jpg"]


def test_several_outputs_of_a_map(trained, tmp_path):
    maps = make_maps(tmp_path / "maps", 2)
    pictures = paint(trained, maps, tmp_path / "out", "--n_outputs", 3)
    assert list(pictures) == [f"{i}_{k}.jpg" for i in range(2) for k in range(3)]


def test_tiles_are_joined_without_seams():
    """A painter that gives each class its colour gets tiles of the training's size."""
    classes = np.random.default_rng(0).integers(5, size=(1, 70, 100))
    shapes = []

    class Colours(landscape.Painter):
        def paint(self, classes, codes):
            assert codes.shape == (1, 2) and classes.dtype == np.int32
            shapes.append(classes.shape)
            return np.stack([classes / 4, 1 - classes / 4], axis=1).astype(np.float32)

    painter = Colours(None, None, Namespace(shape=(32, 48)))
    images = painter.paint_in_tiles(classes, np.zeros((1, 2)))
    expected = np.stack([classes / 4, 1 - classes / 4], axis=1)
    assert np.allclose(images, expected, atol=1e-5)
    assert shapes == [(1, 32, 48)] * 9  # 3 x 3


def test_a_map_in_tiles(trained, tmp_path):
    """At its own size. A single tile is the picture without tiles."""
    maps = tmp_path / "maps"
    maps.mkdir()
    side = meta(trained)["args"]["img_size"]
    for name, shape in (("large", (90, 110)), ("same", (side, side))):
        labels = np.random.default_rng(1).integers(2, size=shape, dtype=np.uint8)
        Image.fromarray(labels).save(maps / f"{name}.png")
    tiles = paint(trained, maps, tmp_path / "tiles", "--tiles")
    whole = paint(trained, maps, tmp_path / "whole")
    assert tiles["large.jpg"].size == (110, 90)
    assert np.array_equal(np.asarray(tiles["same.jpg"]), np.asarray(whole["same.jpg"]))


# ---- calls that are stopped ----


def test_a_call_that_was_stopped_is_continued(trained, maps, tmp_path, monkeypatch, capsys):
    """Pictures that are there stay; the others equal those of an undisturbed call."""
    out = tmp_path / "out"
    whole = paint(trained, maps, tmp_path / "whole")
    real_paint = landscape.paint_batch
    calls = []

    def stop(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real_paint(*args)

    monkeypatch.setattr(landscape, "paint_batch", stop)
    with pytest.raises(SystemExit) as stopped:
        paint(trained, maps, out)
    assert stopped.value.code == 130
    done = {file.name: file.stat().st_mtime_ns for file in out.glob("*.jpg")}
    assert len(done) == 2  # one batch

    monkeypatch.setattr(landscape, "paint_batch", real_paint)
    again = paint(trained, maps, out)
    assert "2 pictures are there already" in capsys.readouterr().out
    assert list(again) == list(whole)
    for name in whole:
        assert np.array_equal(np.asarray(again[name]), np.asarray(whole[name]))
    for name, time in done.items():
        assert (out / name).stat().st_mtime_ns == time


def test_another_call_starts_from_scratch(trained, maps, tmp_path):
    out = tmp_path / "out"
    paint(trained, maps, out)
    times = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    paint(trained, maps, out, "--seed", 1)
    for name, time in times.items():
        assert (out / name).stat().st_mtime_ns != time


# ---- styles ----


@pytest.fixture
def encoded(monkeypatch):
    """The images whose styles are taken, as (channels, H, W)."""
    images = []
    real_encode = landscape.Painter.encode

    def encode(painter, batch):
        images.extend(batch)
        return real_encode(painter, batch)

    monkeypatch.setattr(landscape.Painter, "encode", encode)
    return images


@pytest.mark.parametrize(
    ("flag", "expected"), [("--ref", [1, 1]), ("--ref_dir", [0, 1]), ("--ref_json", [1, 1])]
)
def test_references(trained, tmp_path, encoded, flag, expected):
    """The suffix of an image in the JSON file does not matter."""
    maps = make_maps(tmp_path / "maps", 2)
    styles = tmp_path / "styles"
    styles.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (100 * i, 50, 200)).save(styles / f"{i}.png")
    names = tmp_path / "refs.json"
    names.write_text(json.dumps({"0.png": "1.jpg", "1.png": "1.png"}))
    flags = {
        "--ref": [styles / "1.png"],
        "--ref_dir": [styles],
        "--ref_json": [names, "--image_dir", styles],
    }
    paint(trained, maps, tmp_path / "out", flag, *flags[flag])
    reds = [round((image[0].mean() + 1) * 127.5) for image in encoded]
    assert reds == [100 * i for i in expected]


def test_references_in_the_training_images(trained, tiny_runs, tmp_path, encoded):
    maps = make_maps(tmp_path / "maps", 2)
    names = tmp_path / "refs.json"
    names.write_text(json.dumps({"0.png": "3.png", "1.png": "4.jpg"}))
    paint(trained, maps, tmp_path / "out", "--ref_json", names)
    folder = tiny_runs("spade").data / "train/imgs"
    pixels = [np.asarray(Image.open(folder / f"{i}.jpg")).transpose(2, 0, 1) for i in (3, 4)]
    assert np.allclose(np.stack(encoded), to_float(np.stack(pixels)), atol=1e-5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_names_in_json_in_any_encoding(tmp_path, encoding):
    text = json.dumps({"图0.png": "照片一.jpg", "图1.png": "照片二.jpg"}, ensure_ascii=False)
    (tmp_path / "refs.json").write_bytes(text.encode(encoding))
    names = landscape.read_names([Path("图0.png"), Path("图1.png")], tmp_path / "refs.json")
    assert names == {"图0": "照片一", "图1": "照片二"}


def test_copies_of_a_notebook_are_not_painted(trained, tmp_path):
    maps = make_maps(tmp_path / "maps", 2)
    (maps / ".ipynb_checkpoints").mkdir()
    shutil.copy(maps / "0.png", maps / ".ipynb_checkpoints/0-checkpoint.png")
    assert sorted(paint(trained, maps, tmp_path / "out")) == ["0.jpg", "1.jpg"]


def test_a_note_that_is_no_text(trained, tmp_path):
    """It counts as that of another call."""
    maps = make_maps(tmp_path / "maps", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.unfinished.json").write_bytes(b"\xff\xfe")
    assert sorted(paint(trained, maps, tmp_path / "out")) == ["0.jpg", "1.jpg"]


def test_a_reference_changes_the_picture(trained, maps, tmp_path):
    """The run's seed sets random styles, and --seed others."""
    Image.new("RGB", (64, 64), (250, 50, 20)).save(tmp_path / "style.png")
    codes = {}
    for name, flags in (
        ("random", []),
        ("again", []),
        ("seed", ["--seed", 5]),
        ("reference", ["--ref", tmp_path / "style.png"]),
    ):
        seen = codes.setdefault(name, [])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                landscape.Painter,
                "paint",
                lambda painter, classes, z, seen=seen: (
                    seen.extend(z) or np.zeros((len(z), 3, *painter.args.shape))
                ),
            )
            paint(trained, maps, tmp_path / name, *flags)
    assert np.array_equal(codes["random"], codes["again"])
    assert len({code.tobytes() for code in codes["random"]}) == 5
    assert not np.allclose(codes["random"], codes["seed"])
    assert np.allclose(codes["reference"], codes["reference"][0], atol=1e-6)


# ---- bad input ----


def nothing(folder):
    return []


def missing_reference(folder):
    return ["--ref", folder / "none.png"]


def missing_folder(folder):
    return ["--ref_dir", folder / "styles"]


def two_styles(folder):
    return ["--ref", folder / "x", "--ref_dir", folder]


def style_and_outputs(folder):
    return ["--ref", folder / "x", "--n_outputs", 2]


def json_file(text):
    def prepare(folder):
        (folder / "refs.json").write_text(text)
        return ["--ref_json", folder / "refs.json", "--image_dir", folder / "maps"]

    return prepare


def another_map(array=None, name="1.png", data=None):
    def prepare(folder):
        path = folder / "maps" / name
        if data is None:
            Image.fromarray(array).save(path)
        else:
            path.write_bytes(data)
        return []

    return prepare


def flag(*flags):
    return lambda folder: flags


def two_references(folder):
    images(folder / "styles", 2)
    images(folder / "styles/more", 1, suffix="jpg")
    return ["--ref_dir", folder / "styles"]


def jpeg():
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "jpeg")
    return buffer.getvalue()


JPEG = jpeg()
GREY = np.full((8, 8), 9, np.uint8)
RGB = np.zeros((8, 8, 3), np.uint8)
BAD = {
    "no reference": (missing_reference, "none.png, the reference of 0.png, is not there; 2 of 2"),
    "no folder of references": (missing_folder, "styles is not a folder"),
    "no JSON": (json_file("{"), "refs.json is no JSON file"),
    "no names": (json_file("[1]"), "refs.json is no JSON file"),
    "a map without a name": (json_file('{"0.png": "0.jpg"}'), "refs.json has no image for 1.png"),
    "a name without an image": (
        json_file('{"0.png": "x.jpg", "1.png": "0.jpg"}'),
        "x, the reference of 0.png, is not there",
    ),
    "two styles": (two_styles, "--ref and --ref_dir ask for different styles"),
    "a style and random ones": (
        style_and_outputs,
        "--ref and --n_outputs ask for different styles",
    ),
    "no size": (flag("--out_size", "512"), "--out_size: must be width x height such as 512x384"),
    "a side of 0": (flag("--out_size", "0x9"), "--out_size: must be width x height"),
    "no picture": (flag("--n_outputs", "0"), "--n_outputs: must be a whole number at least 1"),
    "a label too large": (another_map(GREY), "1.png holds the label 9"),
    "a map of colours": (another_map(RGB), "1.png is no label map: it has mode RGB"),
    "a broken map": (another_map(data=b"x"), "1.png cannot be read"),
    "a JPEG": (another_map(GREY, name="1.jpg"), "1.jpg: jpg alters the labels"),
    "two maps of a name": (another_map(GREY, name="1.bmp"), "holds two maps called 1"),
    "JPEG under another name": (another_map(data=JPEG), "1.png: its content is JPEG"),
    "two references of a name": (
        two_references,
        "the reference of 0.png may be",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line(trained, tmp_path, fails, case):
    """No picture has been painted then."""
    prepare, message = BAD[case]
    maps = make_maps(tmp_path / "maps", 2)
    out = tmp_path / "out"
    code, line = fails(landscape.main, [trained, maps, out, *prepare(tmp_path)])
    assert code == 2
    assert line.startswith("landscape.py: error: ") and message in line
    assert not list(out.glob("*.jpg"))


def test_bad_folders(trained, tiny_runs, maps, tmp_path, fails):
    """No run, another script's run, no maps, and pictures among the maps."""
    other = tiny_runs("dcgan").half
    for arguments, message in (
        ([tmp_path / "none", maps, tmp_path / "out"], "no checkpoint at"),
        ([other, maps, tmp_path / "out"], "was written by dcgan.py, not by spade.py"),
        ([trained, tmp_path / "none", tmp_path / "out"], "none is not a folder"),
        ([trained, maps, maps / "painted"], "lies within the maps"),
    ):
        code, line = fails(landscape.main, arguments)
        assert code == 2
        assert line.startswith("landscape.py: error: ") and message in line


def test_names_in_json_need_a_folder(tmp_path, maps, fails):
    """A run on the built-in scenes has no folder of training images."""
    flags = ["--width", 2, "--img_size", 32, "--batch_size", 4, "--n_images", 4, "--style_dim", 2]
    run("spade", *flags, "--out_dir", tmp_path / "run")
    (tmp_path / "refs.json").write_text(json.dumps({f"{i}.png": "x.png" for i in range(5)}))
    arguments = [tmp_path / "run", maps, tmp_path / "out", "--ref_json", tmp_path / "refs.json"]
    code, line = fails(landscape.main, arguments)
    assert code == 2
    assert "--ref_json needs --image_dir" in line
