"""tools/judges/autoencoders.py: figures by hand, equal images, untrained runs."""

from common.data import faces

import numpy as np
import pytest
from untrained import write_untrained_run

from tools import evaluate
from tools.judges import autoencoders

VAE = ("--hidden", "8", "--latent_dim", "4")
VAEGAN = ("--width", "4", "--img_size", "16", "--latent_dim", "4")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_pixels_by_hand():
    """An edge of 255 becomes one of 51; a column of three differs by 204."""
    edge = np.uint8([[[0, 0, 255]] * 3])[..., None]
    weak = np.uint8([[[0, 0, 51]] * 3])[..., None]
    flat = np.zeros_like(edge)
    pictures = {"images": edge, "reconstructions": weak, "samples": flat}
    found = {name: value for name, value, _ in autoencoders.pixel_rows(pictures)}
    assert np.isclose(found["reconstructions: L1"], 204 / 255 / 3)
    assert np.isclose(found["reconstructions: PSNR"], 10 * np.log10(255**2 / (204**2 / 3)))
    assert np.isclose(found["reconstructions: sharpness"], (51 / 255) ** 2)
    assert found["samples: sharpness"] == 0


def test_faces_that_are_reconstructed_without_error_keep_their_traits():
    """With a classifier of few steps, the figures of both are low, but equal."""
    pixels = faces.read_faces("test").images(32, 3)[:].transpose(0, 2, 3, 1)
    pictures = {"images": pixels, "reconstructions": pixels}
    rows = autoencoders.face_rows(pictures, n_steps=20)
    found = {name: value for name, value, _ in rows[1:]}
    for trait in ("hair", "glasses", "hat"):
        of_images = found[f"images: {trait} read right"]
        assert 0.1 < of_images < 1
        assert found[f"reconstructions: {trait} read right"] == of_images
    pictures["reconstructions"] = 255 - pixels
    rows = autoencoders.face_rows(pictures, n_steps=20)
    found = {name: value for name, value, _ in rows[1:]}
    assert found["reconstructions: hair read right"] < found["images: hair read right"]


@pytest.mark.parametrize(
    "name, flags, measure",
    [
        ("vae", VAE, "images: read right"),
        ("vaegan", VAEGAN, "images: hair read right"),
        ("vaegan", (*VAEGAN, "--data_dir", "stacked"), None),
    ],
)
def test_an_untrained_run(tmp_path, fails, name, flags, measure):
    folder = write_untrained_run(name, tmp_path / "run", *flags)
    found = evaluate.main([name, str(folder), "--n_steps", "100"])
    assert found["reconstructions: PSNR"] < 15
    assert found["samples: sharpness"] < 0.5
    assert ("classifier" in found) == (measure is not None)
    if measure is not None:
        reconstructed = measure.replace("images", "reconstructions")
        assert found[reconstructed] < found[measure]

    other = {"vae": "vaegan", "vaegan": "vae"}[name]
    code, line = fails(evaluate.main, [other, folder])
    assert code == 2
    assert f"was written by {name}.py, not by {other}.py" in line
