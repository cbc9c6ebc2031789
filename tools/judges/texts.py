"""Judges text2img.py and stackgan.py: do their pictures show what the texts say?

tools/evaluate.py calls it. A run on the built-in digits is asked for each combination
of digit, colour, stroke and ground that never occurs in training, in every phrasing.
"As real ones" in the table is how often the same measure is right for real images of
these combinations. Both stages of stackgan.py are judged, each at its own size.

    digit        read by a classifier of digits in the strokes, which are what differs
                 from the ground
    colour       the nearest of the data's colours to the mean of the strokes
    ground       black or white, by the mean of the border
    stroke       thin or bold, by the width of the strokes; the limit is the width that
                 separates the training images best
    all four     the share of pictures that are right in all of these
    variety      the mean distance of two pictures of a text, divided by that of two
                 real images of a combination
    retrieval    the share of test images whose caption the encoders find, among the
                 number of captions that the table names
    median rank  of the right caption among these; 1 is best, and chance is half of
                 their number

A run on the built-in faces in colour is asked for what the faces of the test split
show, in every phrasing. A classifier of faces reads hair, skin, length of the hair,
glasses, beard and hat, "all six" is the share of pictures that are right in all of
them, and the variety is as above.

A run on other data is judged by retrieval and median rank alone, on its test split.
"""

from common.data.captions import (
    COLOURS,
    GROUNDS,
    combinations,
    described_digits,
    descriptions,
    encode,
    load_captions,
)
from common.data.faces import describe, read_faces
from common.data.layout import built_in
from common.ema import EMA
from common.errors import UserError
from common.images import to_uint8
from common.predict import predict
from common.watch import mean_distance

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from jittor_fast import nn
from tools.explore import thickness
from tools.judges import digit_classifier, face_classifier
from tools.judges.translations import (
    brightness_of_border,
    classifier_row,
    for_classifier,
    half_bold,
    read_strokes,
)
from tools.runs import open_run

N_PER_TEXT = 5  # pictures
N_CAPTIONS = 100  # among which the right one is to be found
N_PARTITIONS = 10  # of the test split, into groups of N_CAPTIONS images


# ---- what pictures show ----


class DigitReader:
    """Reads from uint8 images (N, 3, S, S) of digits what they show.

    Args:
        args: of tools/evaluate.py.
        img_size: S.

    Attributes:
        properties: the names of what is read.
        all: the measure of how often all of it is right.
        real, real_looks: uint8 images of the test split (M, 3, S, S), and what they
            show.
    """

    properties = ("digit", "colour", "stroke", "ground")
    all = "all four"

    def __init__(self, args, img_size):
        self.classifier = digit_classifier.of_digits(args.mnist, args.n_steps, half_bold)
        self.real, self.real_looks = described_digits(img_size, "test")
        images, looks = described_digits(img_size, "train")
        strokes, _, _ = self.strokes(images)
        widths = thickness(strokes)
        is_bold = looks[:, 2] == 1
        limits = np.quantile(widths, np.linspace(0.01, 0.99, 99))
        self.limit = max(limits, key=lambda limit: np.mean((widths > limit) == is_bold))

    def strokes(self, images):
        """(N, 1, S, S) strokes in [-1, 1], (N,) colours and (N,) grounds."""
        ground = (brightness_of_border(images) > 128).astype(int)
        ground_colour = GROUNDS[ground].astype(float)
        difference = np.abs(images - ground_colour[:, :, None, None]).max(1)
        colour = np.zeros(len(images), int)
        for i, (image, distance) in enumerate(zip(images, difference)):
            mean = np.zeros(3)
            if distance.max() >= 1:
                is_stroke = distance >= max(0.7 * distance.max(), 1)
                mean = image[:, is_stroke].mean(1)
            colour[i] = np.linalg.norm(COLOURS - mean, axis=1).argmin()
        contrast = np.abs(COLOURS[colour] - ground_colour).max(1)[:, None, None]
        strokes = (difference / contrast).clip(0, 1)
        return 2 * strokes[:, None] - 1, colour, ground

    def __call__(self, images):
        """(N, 4) digit, colour, stroke and ground of each image."""
        strokes, colour, ground = self.strokes(images)
        digit = read_strokes(self.classifier, (strokes[:, 0] + 1) / 2)
        return np.column_stack([digit, colour, thickness(strokes) > self.limit, ground])


class FaceReader:
    """The same for faces, whose six traits a classifier reads."""

    properties = tuple(face_classifier.TRAITS)
    all = "all six"

    def __init__(self, args, img_size):
        self.classifier = face_classifier.of_faces(args.n_steps)
        drawings = read_faces("test")
        self.real = drawings.images(img_size, 3)[:]
        self.real_looks = face_classifier.traits(drawings.attributes, threshold=0.5)

    def __call__(self, images):
        """(N, 6) the traits of each image."""
        return self.classifier(for_classifier(images, 3))


READERS = {"digits": DigitReader, "faces": FaceReader}


def property_rows(reader, images, looks):
    """Rows about pictures (N, 3, S, S) that should show `looks` (N, properties)."""
    is_right = reader(images) == looks
    is_right_of_real = reader(reader.real) == reader.real_looks
    rows = []
    for i, name in enumerate(reader.properties):
        rows.append(property_row(f"the asked {name}", is_right[:, i], is_right_of_real[:, i]))
    rows.append(property_row(reader.all, is_right.all(1), is_right_of_real.all(1)))
    return rows


def property_row(measure, is_right, is_right_of_real):
    of = f"{len(is_right):,}; as real ones {is_right_of_real.mean():.4f}"
    return measure, float(is_right.mean()), of


def variety_row(images, real, real_looks):
    """A row about pictures that are N_PER_TEXT of each text, one after another."""
    of_texts = images.reshape(-1, N_PER_TEXT, *images.shape[1:]) / 127.5
    ours = np.mean([mean_distance(group) for group in of_texts])
    of_combinations = []
    for look in np.unique(real_looks, axis=0):
        group = real[(real_looks == look).all(1)] / 127.5
        if len(group) > 1:
            of_combinations.append(mean_distance(group))
    theirs = np.mean(of_combinations)
    return "variety", float(ours / theirs), f"{ours:.2f} over {theirs:.2f}"


# ---- how well the encoders find captions ----


def retrieval_rows(text_encoder, image_encoder, data):
    """Rows about a data set with captions.

    The images are in groups whose captions are all different.
    """
    rng = np.random.default_rng(8)
    firsts = {}  # {caption: the first image that has it}
    for index in rng.permutation(len(data)):
        firsts.setdefault(data.captions[index][0], index)
    chosen = np.array(list(firsts.values()))
    image_codes = []
    for part in np.array_split(chosen, -(-len(chosen) // 100)):
        image_codes.append(predict(image_encoder, data.batch(part)[0]))
    text_codes = predict(text_encoder, encode(list(firsts)))
    scores = np.concatenate(image_codes) @ text_codes.T

    n = min(N_CAPTIONS, len(chosen))
    ranks = []
    for _ in range(N_PARTITIONS):
        order = rng.permutation(len(chosen))
        for group in order[: len(chosen) // n * n].reshape(-1, n):
            among = scores[np.ix_(group, group)]
            ranks.append(1 + (among > among.diagonal()[:, None]).sum(1))
    ranks = np.concatenate(ranks)
    of = f"{len(chosen):,} images, each among {n} captions"
    return [
        ("retrieval", float(np.mean(ranks == 1)), f"{of}; chance {1 / n:.3f}"),
        ("median rank", float(np.median(ranks)), of),
    ]


# ---- the model of a run ----


@dataclass
class Model:
    """A trained model that draws images of texts.

    Attributes:
        text_encoder: from encoded texts to codes (N, text_dim).
        image_encoder: from images (N, C, S, S) to codes, of the size that `draw` draws.
        draw: a function of N texts that returns {stage: images (N, C, S, S) in
            [-1, 1]}, from the same noise in each run of this tool.
    """

    text_encoder: Any
    image_encoder: Callable
    draw: Callable


def load_text2img(script, run_args, reader):
    generator, _, text_encoder, image_encoder = script.build(run_args)
    averaged = EMA(generator, run_args.ema_decay)
    parts = {
        "generator": generator,
        "averaged": averaged,
        "text_encoder": text_encoder,
        "image_encoder": image_encoder,
    }
    reader.load(parts, exact=False)
    rng = np.random.default_rng(9)

    def draw(texts):
        z = rng.standard_normal((len(texts), run_args.latent_dim), dtype=np.float32)
        codes = predict(text_encoder, encode(texts))
        return {"": predict(averaged.module, z, codes)}

    return Model(text_encoder, image_encoder, draw)


def load_stackgan(script, run_args, reader):
    encoders, generator1, _, generator2, _ = script.build(run_args)
    averaged1 = EMA(generator1, run_args.ema_decay)
    averaged2 = EMA(generator2, run_args.ema_decay)
    parts = {
        "encoders": encoders,
        "generator1": generator1,
        "generator2": generator2,
        "averaged1": averaged1,
        "averaged2": averaged2,
    }
    reader.load(parts, exact=False)
    encoders.eval()
    rng = np.random.default_rng(9)
    sizes = [run_args.latent_dim, script.N_C, script.N_C]

    def draw(texts):
        noise = rng.standard_normal((len(texts), sum(sizes)), dtype=np.float32)
        z, e1, e2 = np.split(noise, np.cumsum(sizes)[:-1], axis=1)
        small = script.draw_stage1(encoders, averaged1.module, texts, z, e1)
        large = script.draw_stage2(encoders, averaged2.module, texts, small, e2)
        return {"stage I": small, "stage II": large}

    def image_encoder(images):  # the encoder takes images of stage I's size
        return encoders.image(nn.avg_pool2d(images, run_args.scale, run_args.scale, 0))

    return Model(encoders.text, image_encoder, draw)


LOADERS = {"text2img": load_text2img, "stackgan": load_stackgan}


# ---- what is judged ----


def judge_texts(args):
    """The table's rows (measure, value, of what) for the run `args.B` of `args.A`.

    Raises:
        UserError: it is not a run of that script, or one of grey digits.
    """
    script, run_args, reader = open_run(args.B, args.A)
    model = LOADERS[args.A](script, run_args, reader)
    test = load_captions(
        run_args.data_dir, run_args.img_size, run_args.channels, run_args.language, "test"
    )
    retrieval = retrieval_rows(model.text_encoder, model.image_encoder, test)
    word = built_in(run_args.data_dir)
    is_grey = run_args.channels != 3
    if word == "digits" and is_grey:
        raise UserError(f"{args.B} draws grey images, and only coloured digits can be judged")
    if word not in READERS or is_grey:
        return retrieval

    texts = []
    looks = []
    for captions, look in ASKED[word](run_args.language):
        for text in captions:
            texts += [text] * N_PER_TEXT
            looks += [look] * N_PER_TEXT
    rows = []
    for stage, images in model.draw(texts).items():
        images = to_uint8(images).transpose(0, 3, 1, 2)
        reader = READERS[word](args, images.shape[-1])
        if not rows:
            rows.append(classifier_row("classifier", reader.classifier))
        rows += stage_rows(reader, stage, images, np.array(looks))
    return rows + retrieval


def asked_digits(language):
    """The captions of each combination that never occurs in training, and its look."""
    return [(descriptions(look, language), look) for look in combinations(held_out=True)]


def asked_faces(language):
    """The captions of each different face of the test split, and its traits."""
    different = np.unique(read_faces("test").attributes, axis=0)
    looks = face_classifier.traits(different, threshold=0.5)
    return [(describe(face, language), look) for face, look in zip(different, looks)]


ASKED = {"digits": asked_digits, "faces": asked_faces}


def stage_rows(reader, stage, images, looks):
    """Rows about pictures (N, 3, S, S) uint8 that should show `looks` (N, properties).

    They are N_PER_TEXT of each text, one after another.
    """
    rows = property_rows(reader, images, looks)
    rows.append(variety_row(images, reader.real, reader.real_looks))
    prefix = f"{stage}: " if stage else ""
    return [(prefix + measure, value, of) for measure, value, of in rows]
