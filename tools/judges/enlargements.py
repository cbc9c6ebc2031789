"""Judges enlarged images, for tools/evaluate.py, as the literature does.

Originals are cropped to a multiple of the factor, shrunk by antialiased bicubic
interpolation, rounded to 8 bits, and enlarged again: by bicubic interpolation and by a
run of srgan.py. Both are compared with the originals by their luma (Y of BT.601), with
a border of as many pixels as the factor left out: PSNR, SSIM, and sharpness, which is
the gradient energy over that of the originals.

On the drawn scenes a classifier also reads the digits that no other one covers, before
and after. It has been trained on squares of originals in grey, in which digits had the
colours and stripes of random other classes: it reads their shapes alone.
"""

from common.data.decode import list_images, open_image, pixels_of, size_of, to_float
from common.data.layout import built_in, expanded
from common.data.resolution import resize, shrink
from common.data.toy import scenes
from common.errors import UserError
from common.images import to_uint8
from common.predict import predict
from common.translation import in_tiles

import numpy as np

from tools.judges import digit_classifier, metrics
from tools.judges.translations import classifier_row, for_classifier, share_row
from tools.runs import open_run

CHUNK = 20  # images that a generator enlarges at once
VISIBLE = 0.9  # share of a digit's ink that no later digit covers, for one that is read
N_PAINTED = 2  # pictures of each training map, for the classifier


# ---- an enlarged image beside its original ----


def check_size(name, size, border):
    """Refuses an image of (width, height) that is too small for the window of SSIM."""
    least = metrics.SSIM_WINDOW + 2 * border
    if min(size) < least:
        raise UserError(
            f"{name}: {size[0]} x {size[1]} pixels are too few; with a border of {border} "
            f"left out, both sides need {least}"
        )


def compare(image, original, border):
    """PSNR, SSIM and both gradient energies of uint8 images (H, W, 1 or 3)."""
    image = metrics.without_border(metrics.luma(image), border)
    original = metrics.without_border(metrics.luma(original), border)
    return (
        metrics.psnr(image, original),
        metrics.ssim(image, original),
        metrics.gradient_energy(image),
        metrics.gradient_energy(original),
    )


def rows_of(measured, of, prefix=""):
    """The table's rows: means over the images, from what `compare` has returned."""
    psnr, ssim, energy, energy_of_originals = np.mean(measured, axis=0)
    return [
        (f"{prefix}PSNR of luma", float(psnr), of),
        (f"{prefix}SSIM of luma", float(ssim), of),
        (f"{prefix}sharpness", float(energy / max(energy_of_originals, 1e-12)), of),
    ]


# ---- a run ----


def judge_srgan(args):
    """The table's rows (measure, value, of what) for the run `args.B`."""
    script, run_args, reader = open_run(args.B, "srgan")
    generator = script.build(run_args)[0]
    reader.load({"generator": generator}, exact=False)
    if args.photos is not None:
        return photo_rows(generator, run_args, script.TILE, args.photos)
    data = script.load(run_args, "test")
    originals = []
    enlarged = {"bicubic": [], "enlarged": []}
    for first in range(0, len(data), CHUNK):
        indices = range(first, min(first + CHUNK, len(data)))
        small, large = data.batch(indices)
        originals.append(to_uint8(large))
        enlarged["bicubic"].append(to_uint8(resize(small, large.shape[2:])))
        enlarged["enlarged"].append(to_uint8(predict(generator, small)))
    originals = np.concatenate(originals)
    pictures = {how: np.concatenate(parts) for how, parts in enlarged.items()}
    check_size("the test images", originals.shape[2:0:-1], run_args.scale)
    rows = []
    of = f"{len(originals):,} of {run_args.img_size} x {run_args.img_size}"
    for how, images in pictures.items():
        pairs = zip(images, originals)
        measured = [compare(image, original, run_args.scale) for image, original in pairs]
        rows += rows_of(measured, of, f"{how}: ")
    if built_in(run_args.data_dir) == "digits":
        rows += digit_rows(run_args, originals, pictures, args.n_steps)
    return rows


# ---- photographs ----


def photo_rows(generator, run_args, tile, folder):
    """The rows for a folder of photographs, or for one, at their own sizes."""
    folder = expanded(folder)
    files = [folder] if folder.is_file() else list_images(folder)
    scale = run_args.scale
    sizes = []
    for file in files:  # all of them, before the first one takes minutes
        width, height = (side // scale * scale for side in size_of(file))
        check_size(file, (width, height), scale)
        sizes.append((width, height))
    measured = {"bicubic": [], "enlarged": []}
    for file, (width, height) in zip(files, sizes):
        original = pixels_of(open_image(file, run_args.channels))[:, :height, :width]
        small = shrink(original, scale)
        bicubic = resize(small, (height, width)).transpose(1, 2, 0)
        enlarged = in_tiles(
            lambda tiles: predict(generator, tiles), to_float(small)[None], (tile, tile)
        )
        original = original.transpose(1, 2, 0)
        measured["bicubic"].append(compare(bicubic, original, scale))
        measured["enlarged"].append(compare(to_uint8(enlarged)[0], original, scale))
    rows = []
    for how, values in measured.items():
        rows += rows_of(values, f"{len(files):,} of {folder}", f"{how}: ")
    return rows


# ---- digits of the drawn scenes ----


def digit_rows(run_args, originals, pictures, n_steps):
    """The shares of digits that are read right.

    Args:
        originals: (N, S, S, C) uint8, the test scenes.
        pictures: {how enlarged: the same}.
        n_steps: the length of the classifier's training.
    """
    test = scenes.Scenes(run_args.img_size, run_args.img_size, "test", run_args.channels)
    visible = [visible_digits(test, index)[1] for index in range(len(test))]
    labels = np.array([one.digit for placed in visible for one in placed])
    classifier = scene_classifier(run_args.img_size, run_args.channels, n_steps)

    def are_right(images):
        squares = squares_of(images.transpose(0, 3, 1, 2), visible)
        return classifier.read(squares)[0] == labels

    before = are_right(originals)
    rows = [
        classifier_row("classifier", classifier),
        share_row("originals: digits read right", before),
    ]
    for how, images in pictures.items():
        measure, share, of = share_row(f"{how}: digits read right", are_right(images))
        rows.append((measure, share, f"{of}; {share / before.mean():.1%} of the originals' share"))
    return rows


def visible_digits(data, index):
    """The map (H, W) of a scene, and its digits that no other one covers."""
    labels, placed = data.draw_map(data.rng_of(index))
    visible = []
    for one in placed:
        is_seen = one.cut(labels)[one.shape] == scenes.FIRST_DIGIT + one.digit
        if is_seen.mean() >= VISIBLE:
            visible.append(one)
    return labels, visible


def squares_of(images, visible):
    """The squares of digits as the classifier takes them, (M, 1, 32, 32) uint8.

    Args:
        images: (N, C, S, S) uint8.
        visible: for each image, a list of its digits.
    """
    squares = []
    for image, placed in zip(images, visible):
        squares += [for_classifier(one.cut(image)[None]) for one in placed]
    return np.concatenate(squares)


def scene_classifier(size, channels, n_steps):
    """The classifier of digits in scenes, which knows their shapes alone."""
    data = scenes.Scenes(size, size, "train", channels)
    images = []
    visible = []
    for index in range(len(data)):
        labels, placed = visible_digits(data, index)
        for k in range(N_PAINTED):
            rng = np.random.default_rng([15, index, k])
            images.append(painted_otherwise(labels, data, rng))
            visible.append(placed)
    squares = squares_of(images, visible)
    digits = np.array([one.digit for placed in visible for one in placed])
    classifier = digit_classifier.DigitClassifier(
        digit_classifier.trained_on(squares, digits, n_steps)
    )
    classifier.description = f"a classifier of {len(digits):,} digits in scenes, by their shapes"
    return classifier


def painted_otherwise(labels, data, rng):
    """A map (H, W) as a picture (C, H, W) in which the classes have exchanged looks."""
    look = rng.permutation(10)
    is_digit = labels >= scenes.FIRST_DIGIT
    others = look[np.where(is_digit, labels - scenes.FIRST_DIGIT, 0)]
    exchanged = np.where(is_digit, scenes.FIRST_DIGIT + others, labels)
    picture = scenes.paint(exchanged, rng.integers(len(scenes.TIMES)), rng)
    return picture if data.channels == 3 else scenes.grey(picture[None])[0]
