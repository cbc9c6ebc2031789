"""One's own pictures through a trained translator: a folder in, a folder of the same names out."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.datasets import say, to_float
from common.errors import UserError
from common.folders import check_images, list_images, open_image
from common.images import to_uint8

LONGEST = 8  # times the shorter side; a longer strip would not fit into memory


def translate_folder(run, source, translate, img_size, channels, multiple):
    """Writes one translation for each image of `source`, under the same name and at the same aspect ratio.

    An image is scaled until its shorter side is `img_size`, the scale that the network was trained at. Where the
    architecture needs sides that divide by `multiple`, it is padded by reflection to the right and below, and the
    translation is cut back.

    Args:
        run: the translations go to its out_dir, in the subfolders of `source`; into `translated` within it where
            it is the trained run's own folder.
        source: an image, or a folder that is searched recursively.
        translate: a function of a (1, channels, H, W) float32 numpy image in [-1, 1] that gives one of the same
            height and width with 1 or 3 channels.
        channels: 1 or 3, of the images that `translate` takes.

    Returns:
        The number of images written.

    Raises:
        UserError: nothing to read, too much of it broken, or an output that would overwrite its input.
    """
    source = Path(source).expanduser()
    files = [source] if source.is_file() else list_images(source)
    root = source.parent if source.is_file() else source
    out_dir = run.out_dir
    if run.args.resume and out_dir.resolve() == Path(run.args.resume).resolve().parent:
        out_dir = out_dir / "translated"
    if out_dir.resolve() == root.resolve():
        raise UserError(f"--out_dir {out_dir} holds the --input itself, which would be overwritten")
    files = check_images(files, channels)
    if not files:
        raise UserError(f"--input {source.absolute()} cannot be read as an image")
    for file in files:
        target = out_dir / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        translate_file(file, target, translate, img_size, channels, multiple)
    say(f"Translated {len(files)} images into {out_dir}.")
    return len(files)


def translate_file(source, target, translate, img_size, channels, multiple):
    """As `translate_folder`, for one file."""
    image = open_image(source, channels, at_least=img_size)
    if max(image.size) > LONGEST * min(image.size):
        raise UserError(f"{source}: {image.width} x {image.height} pixels are longer than {LONGEST} to 1")
    scale = img_size / min(image.size)
    width, height = (max(img_size, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.BICUBIC)).reshape(height, width, channels)
    padding = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    padded = np.pad(pixels, padding, mode="reflect").transpose(2, 0, 1)
    result = to_uint8(translate(to_float(padded[None])))[0, :height, :width]
    Image.fromarray(result[..., 0] if result.shape[-1] == 1 else result).save(target, quality=95)
