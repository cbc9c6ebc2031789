"""tools/judges/inpainting.py: perfect fillings, mean fillings, what is no such run."""

from common.data.holes import load_with_holes

import numpy as np
import pytest
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import inpainting

SMALL = {
    "context_encoder": ("--width", "4", "--bottleneck", "12"),
    "pix2pix": ("--width", "4", "--img_size", "32", "--channels", "1", "--task", "inpaint"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def judge(folder):
    return evaluate.main(["inpaint", str(folder), "--n_steps", "1"])


@pytest.mark.parametrize("name", list(SMALL))
def test_untrained_and_perfect(name, tmp_path, monkeypatch):
    folder = write_untrained_run(name, tmp_path / "run", *SMALL[name], "--hole", "random")
    poor = judge(folder)
    assert poor["L1 of the hole"] > 0.3

    monkeypatch.setattr(inpainting, "completer_of", lambda *args: lambda images, masks: images)
    perfect = judge(folder)
    assert perfect["L1 of the hole"] == 0
    assert perfect["completed, read right"] == perfect["whole digits, read right"]


def test_the_same_random_holes_for_both_scripts(tmp_path):
    """So the mean image is equally far."""
    found = []
    for name, flags in SMALL.items():
        folder = write_untrained_run(name, tmp_path / name, *flags, "--hole", "random")
        rows = judge(folder)
        found.append((rows["L1 of the mean image"], rows["PSNR of the mean image"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", list(SMALL))
def test_only_missing_pixels_are_replaced(name, tmp_path):
    folder = write_untrained_run(name, tmp_path / "run", *SMALL[name])
    _, args, complete = inpainting.open_inpainting(folder)
    images, masks = inpainting.load(args, "test").batch([0, 1])
    completed = complete(images, masks)
    overlap = 1 if name == "context_encoder" else 0
    assert masks[0].sum() == (16 - 2 * overlap) ** 2
    assert np.array_equal(completed[masks == 0], images[masks == 0])
    assert not np.array_equal(completed[masks == 1], images[masks == 1])


def test_the_mean_image():
    data = load_with_holes(None, 16, 1, "center")
    expected = data.batch(np.arange(0, len(data)))[0].mean(0)
    assert np.allclose(inpainting.mean_image(data)[0], expected, atol=0.05)


def test_faces_are_not_read(tmp_path):
    flags = ("--data_dir", "faces", "--channels", "3")
    folder = write_untrained_run(
        "context_encoder", tmp_path / "run", *SMALL["context_encoder"], *flags
    )
    assert set(judge(folder)) == {
        "L1 of the hole",
        "L1 of the mean image",
        "PSNR of the hole",
        "PSNR of the mean image",
    }


def test_what_cannot_be_judged_is_refused(tmp_path, fails):
    plain = write_untrained_run("pix2pix", tmp_path / "plain", *SMALL["pix2pix"][:4])
    task = write_untrained_run("pix2pix", tmp_path / "task", *SMALL["pix2pix"])
    for argv, message in {
        ("inpaint", plain): "fills no holes: give a run of context_encoder.py",
        ("pix2pix", task): "was trained with --task inpaint",
    }.items():
        code, line = fails(evaluate.main, argv)
        assert code == 2
        assert message in line
