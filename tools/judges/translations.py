"""Judges translators on their built-in data, whose right answers are known.

tools/evaluate.py calls it with one of

    pix2pix   Outlines of test digits: are they painted in the colour of their class?
              And the L1 distance to the targets, as a share of that of the best
              constant picture.
    cyclegan, unit
              Test digits of both domains: are they read as the same digit after the
              translation, by a classifier that knows the other domain? And the mean
              brightness, compared with that of the domain.
    stargan   Test faces after each change of an attribute: does a classifier of faces
              read the change, and all else as it was? Of a run with --data_dir digits,
              test digits: colour, ground, digit, thickness of the strokes.
    usps      MNIST's test digits in the style of USPS, by a run of cyclegan.py or of
              unit.py from MNIST to USPS: are they read as the same digit, by five
              classifiers that know USPS alone? There are five since they differ by
              several per cent on images that are unlike USPS. And digits of USPS in
              the style of MNIST, by a classifier of MNIST. --usps is USPS's folder.

All images come from test splits, which no script trains on. "Wanted" in the table is
what a good run reaches.
"""

from common import checkpoint
from common.data import attributes, faces, load_digits
from common.data.decode import to_float
from common.data.layout import built_in
from common.data.toy import drawn
from common.ema import EMA
from common.errors import UserError
from common.images import to_uint8
from common.predict import predict

from functools import partial

import numpy as np

from tools.judges import digit_classifier, face_classifier, image_sets
from tools.runs import open_run

CHUNK = 20  # images that a translator takes at once
N_HELD = 1000  # digits of USPS that its classifiers do not see
N_CLASSIFIERS = 5


def open_built_in(name, path, words=("digits",)):
    """`open_run`, for a run on built-in data.

    Args:
        words: of the built-in sets that can be judged.

    Raises:
        UserError: as `open_run`, or if the run has other data.
    """
    script, run_args, reader = open_run(path, name)
    if built_in(run_args.data_dir) not in words:
        raise UserError(
            f"{checkpoint.find(path)} was trained on {run_args.data_dir}, "
            f"and only the built-in {' and '.join(words)} can be judged in this way"
        )
    return script, run_args, reader


def share_row(measure, is_right, wanted=None):
    """A row of the table: the share of `is_right`, an array of truth values."""
    of = f"{np.size(is_right):,}"
    if wanted is not None:
        of += f"; wanted: at least {wanted:.0%}"
    return measure, float(np.mean(is_right)), of


def classifier_row(measure, classifier):
    return measure, f"{classifier.size} x {classifier.size}", classifier.description


def for_classifier(pixels, channels=1):
    """uint8 images (N, C, H, W) as a classifier of 32 x 32 pixels takes them.

    Args:
        channels: 1 for a classifier of digits, 3 for that of faces.
    """
    pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    images = image_sets.of_pixels("translations", pixels)
    return images.batch(range(len(images)), digit_classifier.SIZE, channels)


def translated(generator, images, *conditions, seed=None):
    """The translations of uint8 images (N, C, H, W), uint8 as well."""
    outputs = predict(generator, to_float(images), *conditions, chunk=CHUNK, seed=seed)
    return to_uint8(outputs).transpose(0, 3, 1, 2)


# ---- pix2pix ----


def judge_pix2pix(args):
    """The table's rows (measure, value, of what) for the run `args.B`."""
    script, run_args, reader = open_built_in("pix2pix", args.B)
    if run_args.task is not None:
        raise UserError(
            f"{args.B} was trained with --task {run_args.task}, and only paintings of outlines "
            "can be judged; runs of --task inpaint by the word inpaint"
        )
    if run_args.direction != "AtoB":
        raise UserError(
            f"{args.B} draws outlines (--direction {run_args.direction}), "
            "and only paintings can be judged"
        )
    generator = script.build(run_args)[0]
    reader.load({"generator": generator}, exact=False)
    outlines, paintings, labels = drawn.outline_pairs(run_args.img_size, "test")
    outputs = translated(generator, outlines, seed=1)

    _, train_paintings, _ = drawn.outline_pairs(run_args.img_size, "train")
    constant = np.median(to_float(train_paintings), axis=0)
    targets = to_float(paintings)
    l1 = np.abs(to_float(outputs) - targets).mean()
    l1_of_constant = np.abs(constant - targets).mean()
    found = painted_colours(outputs, paintings, labels)
    return [
        share_row("painted in the colour of its class", found == labels, 0.95),
        ("L1", float(l1), f"{len(outputs):,}, values in [-1, 1]"),
        (
            "L1 / L1 of the best constant picture",
            float(l1 / l1_of_constant),
            f"{l1_of_constant:.4f}; wanted: below 0.5",
        ),
    ]


def painted_colours(outputs, paintings, labels):
    """(N,) the class whose colour is nearest to the mean colour of each digit.

    Args:
        outputs, paintings: (N, 3, S, S) uint8; the paintings say where the digit is.
        labels: (N,).
    """
    colours = drawn.COLOURS[labels].astype(int)[:, :, None, None]
    is_inside = np.abs(paintings - colours).max(1) < 8
    means = [image[:, mask].mean(1) for image, mask in zip(outputs, is_inside)]
    return nearest(np.stack(means), drawn.COLOURS)


def nearest(colours, palette):
    """(N,) the index of the nearest colour in a palette (M, 3), for (N, 3) colours."""
    differences = colours[:, None] - palette.astype(float)
    return np.linalg.norm(differences, axis=2).argmin(1)


# ---- cyclegan and unit ----


def open_both(script, run_args, reader):
    """The translators A to B and B to A of a run, averaged ones if there are any."""
    if run_args.script == "unit":
        vaes, _, _ = script.build(run_args)
        reader.load({"vaes": vaes}, exact=False)
        return vaes.A_to_B, vaes.B_to_A
    G, F, _, _ = script.build(run_args)
    averaged_G = EMA(G, run_args.ema_decay)
    averaged_F = EMA(F, run_args.ema_decay)
    parts = {"G": G, "F": F, "averaged_G": averaged_G, "averaged_F": averaged_F}
    reader.load(parts, exact=False)
    return averaged_G.module, averaged_F.module


def on_paper(images):
    """(N, 1, 32, 32) white digits on black, as dark ones on paper."""
    small = drawn.enlarge(images[:, 0], 28)
    sheets = drawn.draw_on_paper(small, digit_classifier.SIZE, np.random.default_rng(5))
    return for_classifier(sheets)


def judge_both(name, args):
    """The table's rows (measure, value, of what) for the run `args.B` of a script."""
    script, run_args, reader = open_built_in(name, args.B)
    A_to_B, B_to_A = open_both(script, run_args, reader)
    domains = drawn.digit_domains(run_args.img_size, "test", run_args.channels)
    (white, white_labels), (inked, inked_labels) = domains
    classifier_B = digit_classifier.of_digits(args.mnist, args.n_steps, on_paper)
    classifier_A = digit_classifier.of_digits(args.mnist, args.n_steps)
    return [
        *domain_rows("A to B", classifier_B, translated(A_to_B, white), white_labels, inked),
        *domain_rows("B to A", classifier_A, translated(B_to_A, inked), inked_labels, white),
    ]


def domain_rows(name, classifier, fake, labels, real):
    """Rows about translations `fake` of digits `labels` into the domain of `real`."""
    found, _ = classifier.read(for_classifier(fake))
    brightness = float(fake.mean() / real.mean() - 1)
    return [
        classifier_row(f"{name}: classifier", classifier),
        share_row(f"{name}: read as the same digit", found == labels, 0.9),
        (
            f"{name}: brighter than the domain by",
            brightness,
            f"{real.mean():.1f} of 255; wanted: within 10%",
        ),
    ]


def judge_usps(args):
    """As `judge_both`, for a run from MNIST to USPS."""
    if args.usps is None:
        raise UserError("usps needs --usps, the folder of USPS's IDX files")
    script, run_args, reader = open_run(args.B)
    if run_args.script not in ("cyclegan", "unit"):
        raise UserError(f"{args.B} is a run of {run_args.script}.py, not of cyclegan.py or unit.py")
    A_to_B, B_to_A = open_both(script, run_args, reader)
    usps = load_digits(args.usps, digit_classifier.SIZE, 1, n_classes=10)
    classifiers, held = usps_classifiers(usps, args)

    def row(measure, images, labels, wanted=None):
        is_right = [classifier.read(images)[0] == labels for classifier in classifiers]
        _, value, of = share_row(measure, is_right, wanted)
        each = ", ".join(f"{np.mean(r):.4f}" for r in is_right)
        return measure, value, f"{of}; one by one {each}"

    test = load_digits(
        args.mnist,
        run_args.img_size,
        run_args.channels,
        n_classes=10,
        split="test",
        n_test=image_sets.N_TEST,
    )
    as_they_are = for_classifier(test.images)
    in_style = for_classifier(translated(A_to_B, test.images))
    back = load_digits(args.usps, run_args.img_size, run_args.channels, n_classes=10)
    in_style_of_mnist = for_classifier(translated(B_to_A, back.images[held]))
    of_mnist = digit_classifier.of_digits(args.mnist, args.n_steps)
    found, _ = of_mnist.read(in_style_of_mnist)
    as_it_is, _ = of_mnist.read(usps.images[held])
    return [
        row(
            "USPS digits that the classifiers have not seen, read right",
            usps.images[held],
            usps.labels[held],
        ),
        row("MNIST's test digits as they are, read right", as_they_are, test.labels),
        row("in the style of USPS, read as the same digit", in_style, test.labels, 0.9),
        share_row("USPS digits, read by a classifier of MNIST", as_it_is == usps.labels[held]),
        share_row("the same, in the style of MNIST", found == usps.labels[held]),
    ]


def usps_classifiers(usps, args):
    """Several classifiers of USPS, and the indices of the digits that none has seen.

    Args:
        usps: a data set of USPS's training digits.
    """
    if len(usps) <= N_HELD:
        raise UserError(
            f"--usps {args.usps}: {N_HELD:,} digits are held back, and it holds {len(usps):,}"
        )
    held, used = np.split(np.random.default_rng(3).permutation(len(usps)), [N_HELD])
    images = usps.images[used]
    labels = usps.labels[used]
    classifiers = []
    for seed in range(N_CLASSIFIERS):
        network = digit_classifier.trained_on(images, labels, args.n_steps, seed)
        classifiers.append(digit_classifier.DigitClassifier(network))
    return classifiers, held


# ---- stargan ----


def judge_stargan(args):
    """The table's rows (measure, value, of what) for the run `args.B`."""
    script, run_args, reader = open_built_in("stargan", args.B, ("digits", "faces"))
    generator = script.build(run_args)[0]
    reader.load({"generator": generator}, exact=False)
    if run_args.data_dir == "faces":
        meaning = script.Attributes(
            run_args.selected_attrs, run_args.exclusive, run_args.may_have_none
        )
        return faces_rows(generator, run_args, meaning, args.n_steps)
    return coloured_digits_rows(script, generator, run_args, args)


# ---- stargan on faces ----


def faces_rows(generator, run_args, meaning, n_steps):
    """The rows for a generator of faces, of which a change asks for one attribute.

    Args:
        meaning: the script's `Attributes`.
        n_steps: the length of the classifier's training.
    """
    check_face_attributes(meaning, run_args.channels)
    drawings = faces.read_faces("test")
    images = drawings.images(run_args.img_size, 3)[:]
    labels = attributes.faces_table(drawings, meaning.names).values
    classifier = face_classifier.of_faces(n_steps)
    original = face_classifier.traits(drawings.attributes, threshold=0.5)
    read_before = classifier(for_classifier(images, 3))

    asked = {}  # {attribute: whether it is read after each change to it}
    kept = []  # whether each other trait is read as in the drawing, (N, 5) for each change
    for name, targets in zip(meaning.names, meaning.all_targets(labels)):
        fake = translated(generator, images, targets)
        wanted, column = wanted_traits(name, meaning, original)
        is_right = classifier(for_classifier(fake, 3)) == wanted
        is_changed = wanted[:, column] != original[:, column]
        asked[name] = is_right[is_changed, column]
        kept.append((np.delete(is_right, column, axis=1), column))

    rows = [classifier_row("classifier", classifier)]
    rows.append(share_row("before any change, read right", read_before == original))
    rows.append(share_row("the asked attribute", np.concatenate(list(asked.values())), 0.95))
    for name, is_right in asked.items():
        rows.append(share_row(f"  after a change of {name}", is_right))
    all_kept = np.concatenate([is_right.ravel() for is_right, _ in kept])
    rows.append(share_row("all else as it was", all_kept, 0.95))
    for k, trait in enumerate(face_classifier.TRAITS):
        parts = []
        for is_right, column in kept:
            if column != k:
                parts.append(is_right[:, k - (k > column)])
        rows.append(share_row(f"  {trait}", np.concatenate(parts)))
    return rows


def check_face_attributes(meaning, channels):
    """Refuses runs whose attributes or colours the classifier does not know.

    A change to a skin would leave a face with two of them, or with none.
    """
    known = {name for names in face_classifier.TRAITS.values() for name in names}
    known -= set(faces.SKIN)
    colours = [name for name in meaning.names if name in faces.HAIR]
    if channels != 3 or not known.issuperset(meaning.names) or colours != meaning.exclusive:
        raise UserError(
            "only runs on faces in colour can be judged, without the attributes of the skin and "
            "Smiling, and with several colours of hair or none"
        )


def wanted_traits(name, meaning, original):
    """The traits (N, 6) after a change of an attribute, and the column that changes.

    Args:
        name: the attribute, which is set if it is exclusive, and otherwise flipped.
        meaning: the script's `Attributes`.
        original: (N, 6) the traits before.
    """
    column = [name in names for names in face_classifier.TRAITS.values()].index(True)
    wanted = original.copy()
    if name in meaning.exclusive:
        wanted[:, column] = faces.HAIR.index(name)
    else:
        wanted[:, column] = 1 - wanted[:, column]
    return wanted, column


# ---- stargan on coloured digits ----


def coloured_digits_rows(script, generator, run_args, args):
    names = list(drawn.ATTRIBUTES)
    if list(run_args.selected_attrs or []) != names:
        raise UserError(
            f"{args.B} was not trained on the built-in data, "
            f"whose attributes are {', '.join(names)}"
        )
    images, looks, labels = drawn.coloured_digits(run_args.img_size, "test")
    classifier = digit_classifier.of_digits(args.mnist, args.n_steps, half_bold)
    meaning = script.Attributes(names, names[:3])
    all_targets = meaning.all_targets(looks.astype(np.float32))
    fake = np.concatenate([translated(generator, images, targets) for targets in all_targets])

    wanted = np.concatenate(all_targets)
    is_bold = wanted[:, 3] == 1
    is_inverted = wanted[:, 4] == 1
    ink = strokes(fake, is_inverted)
    ink_before = strokes(images, looks[:, 4] == 1)
    is_right_before = read_strokes(classifier, ink_before) == labels
    is_right = read_strokes(classifier, ink) == np.tile(labels, len(names))
    has_colour = nearest_colour(fake, ink, is_inverted) == wanted[:, :3].argmax(1)
    has_ground = (brightness_of_border(fake) > 128) == is_inverted
    rows = [
        classifier_row("classifier", classifier),
        share_row("before any change, read right", is_right_before),
        share_row("the asked colour", has_colour, 0.97),
        share_row("the asked ground", has_ground, 0.97),
        share_row("still the same digit", is_right, 0.95),
    ]
    for name, is_right_then in zip(names, is_right.reshape(len(names), -1)):
        rows.append(share_row(f"  after a change of {name}", is_right_then))
    in_data = ink_ratio(ink_before, looks[:, 3] == 1)
    of = f"{len(fake):,}; in the data {in_data:.2f}"
    rows.append(("ink of bold digits / of thin ones", float(ink_ratio(ink, is_bold)), of))
    return rows


def ink_ratio(ink, is_bold):
    """The mean ink (N, S, S) of bold digits over that of thin ones."""
    return ink[is_bold].mean() / ink[~is_bold].mean()


def half_bold(images):
    """(N, 1, 32, 32) digits, of which about half are bold, as in the built-in data.

    Which ones is random: the bundled digits run through the classes in turn, so that of
    every second digit, either all or none of a class would be bold.
    """
    bold = drawn.dilate(drawn.enlarge(images[:, 0], 28), 1)
    bold = drawn.enlarge(bold, digit_classifier.SIZE)[:, None]
    is_bold = np.random.default_rng(6).integers(2, size=len(images)) == 1
    return np.where(is_bold[:, None, None, None], bold, images)


# ---- strokes and colours ----


def strokes(images, is_inverted):
    """Coloured digits as strokes (N, S, S): 1 on the digit, 0 on its ground.

    A colour has its largest channel far from black, and its smallest far from white.

    Args:
        images: (N, 3, S, S) in [0, 255].
        is_inverted: (N,) whether the digit is white on a coloured ground.
    """
    on_black = images.max(1) / float(drawn.ATTRIBUTE_COLOURS.max(1).min())
    dull = float(drawn.ATTRIBUTE_COLOURS.min(1).max())
    white = (images.min(1) - dull) / (255 - dull)
    return np.where(is_inverted[:, None, None], white, on_black).clip(0, 1)


def read_strokes(classifier, ink):
    """(N,) digits that are read in strokes (N, S, S)."""
    digits, _ = classifier.read(for_classifier(np.uint8(ink * 255)[:, None]))
    return digits


def nearest_colour(images, ink, is_inverted):
    """(N,) the colour of the digit, or of its ground if the image is inverted.

    It is an index of the built-in data's colours.

    Args:
        images: (N, 3, S, S) in [0, 255].
        ink: their strokes (N, S, S).
    """
    is_painted = (ink > 0.5) != is_inverted[:, None, None]
    means = np.zeros((len(images), 3))
    for mean, image, mask in zip(means, images, is_painted):
        if mask.any():
            mean[:] = image[:, mask].mean(1)
    return nearest(means, drawn.ATTRIBUTE_COLOURS)


def brightness_of_border(images):
    """(N,) the mean of the largest channel along the four sides of (N, 3, S, S)."""
    sides = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return np.concatenate(sides, axis=2).max(1).mean(1)


JUDGES = {
    "pix2pix": judge_pix2pix,
    "cyclegan": partial(judge_both, "cyclegan"),
    "unit": partial(judge_both, "unit"),
    "stargan": judge_stargan,
    "usps": judge_usps,
}
