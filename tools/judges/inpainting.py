"""Judges runs that fill holes, on the test split of their own data.

tools/evaluate.py calls it with the word

    inpaint   a run of context_encoder.py, or of pix2pix.py with --task inpaint: L1 and
              PSNR of the missing pixels, beside those of the mean training image. Of
              digits also the share that is read as what they are: as they were, with
              the mean image in their holes, and completed.

The holes are those of the run (--hole and --overlap). A random hole depends on the
image alone, so two runs have the same ones at the same size.
"""

from common.data.holes import hole_distances, load_with_holes
from common.data.tasks import completer
from common.errors import UserError
from common.images import to_uint8

import numpy as np

from tools.judges import digit_classifier
from tools.judges.translations import classifier_row, for_classifier, share_row
from tools.runs import open_run

BATCH = 100
MOST_MEAN = 2000  # training images of which the mean is taken, at most


def completer_of(script, generator, run_args):
    """A function of images and masks that returns completed images, all numpy.

    Images are (N, C, H, W) in [-1, 1], and masks (N, 1, H, W), 1 where pixels are
    missing.
    """
    if run_args.script == "context_encoder":
        return script.completer(generator, run_args)
    translated = completer(script.translator(generator, run_args))

    def complete(images, masks):
        return np.where(masks == 1, translated(images, masks), images)

    return complete


def channels_of(run_args):
    """Those of the images, which pix2pix.py may have in --input_channels."""
    return getattr(run_args, "input_channels", run_args.channels)


def load(run_args, split):
    """The images and masks of a run's split, as of `load_with_holes`."""
    return load_with_holes(
        run_args.data_dir,
        run_args.shape,
        channels_of(run_args),
        run_args.hole,
        getattr(run_args, "overlap", 0),
        split=split,
    )


def open_inpainting(path):
    """The script, the arguments and the `completer_of` of a run.

    Raises:
        UserError: it is no run that fills holes.
    """
    script, run_args, reader = open_run(path)
    is_task = run_args.script == "pix2pix" and run_args.task == "inpaint"
    if run_args.script != "context_encoder" and not is_task:
        raise UserError(
            f"{path} fills no holes: give a run of context_encoder.py, "
            "or of pix2pix.py with --task inpaint"
        )
    generator = script.build(run_args)[0]
    reader.load({"generator": generator}, exact=False)
    generator.eval()
    return script, run_args, completer_of(script, generator, run_args)


def mean_image(data):
    """(1, C, H, W) float32, the mean of at most MOST_MEAN images, evenly spaced."""
    n = min(len(data), MOST_MEAN)
    indices = np.linspace(0, len(data) - 1, n).astype(int)
    total = 0
    for first in range(0, n, BATCH):
        total = total + data.batch(indices[first : first + BATCH])[0].sum(0, keepdims=True)
    return np.float32(total / n)


def judge_inpaint(args):
    """The table's rows (measure, value, of what) for the run `args.B`."""
    _, run_args, complete = open_inpainting(args.B)
    test = load(run_args, "test")
    mean = mean_image(load(run_args, "train"))

    def with_mean(images, masks):
        return np.where(masks == 1, mean, images)

    images, masks = test.batch(np.arange(len(test)))
    of = f"{len(test):,}, {masks.mean():.1%} of their pixels are missing"
    found = hole_distances(complete, test)
    constant = hole_distances(with_mean, test)
    rows = [
        ("L1 of the hole", found["val_L1"], f"{of}; values in [-1, 1]"),
        ("L1 of the mean image", constant["val_L1"], of),
        ("PSNR of the hole", found["val_PSNR"], of),
        ("PSNR of the mean image", constant["val_PSNR"], of),
    ]
    labels = getattr(test.originals, "labels", None)
    if labels is None:
        return rows
    classifier = digit_classifier.of_digits(args.mnist, args.n_steps)

    def read_row(measure, images):
        digits, _ = classifier.read(for_classifier(pixels_of(images)))
        return share_row(measure, digits == labels)

    return [
        *rows,
        classifier_row("classifier", classifier),
        read_row("whole digits, read right", images),
        read_row("filled with the mean image, read right", with_mean(images, masks)),
        read_row("completed, read right", complete(images, masks)),
    ]


def pixels_of(images):
    """Images (N, C, H, W) in [-1, 1] as uint8."""
    return to_uint8(images).transpose(0, 3, 1, 2)
