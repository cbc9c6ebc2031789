"""Judges text2img.py and stackgan.py: whether pictures show what their texts say; called by tools/evaluate.py.

A run on the built-in digits is asked for each combination of digit, colour, stroke and ground that never occurs in
training, in every phrasing. "As real ones" in the table is how often the same judges are right on real images of these.
Of stackgan.py each stage is judged at its own size.

    digit           read by a classifier of digits in the strokes, which are what differs from the ground
    colour          the nearest of the data's colours to the mean of the strokes
    ground          black or white, by the mean of the border
    stroke          thin or bold, by the width of the strokes against the width that separates the training images best
    all four        the share of pictures that are right in all of these
    variety         mean distance of two pictures of a text, over that of two real images of a combination
    retrieval       share of test images whose caption the encoders find among as many as are named
    median rank     of the right caption among these; 1 is best, and chance is half their number

A run on one's own data is judged by retrieval and median rank alone, of its test part.
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
from common.errors import UserError
from common.networks import EMA, in_chunks
from common.pictures import to_uint8
from common.watch import mean_distance

import numpy as np

from jittor_fast import nn
from tools import digit_classifier
from tools.explore import thickness
from tools.judge_translators import brightness_of_border, half_bold, opened_run, read_strokes

N_OF_A_TEXT = 5  # pictures
N_CAPTIONS = 100  # among which the right one is to be found
N_PARTITIONS = 10  # of the test part, into groups of so many


class Reader:
    """Says (N, 4) what (N, 3, S, S) uint8 images show: digit, colour, stroke and ground."""

    def __init__(self, args, img_size):
        self.judge = digit_classifier.of_digits(args.mnist, args.n_steps, half_bold)
        images, looks = described_digits(img_size, "train")
        widths, is_bold = thickness(self.strokes(images)[0]), looks[:, 2] == 1
        edges = np.quantile(widths, np.linspace(0.01, 0.99, 99))
        self.edge = max(edges, key=lambda edge: np.mean((widths > edge) == is_bold))

    def strokes(self, images):
        """(N, 1, S, S) strokes in [-1, 1], (N,) colours and (N,) grounds."""
        ground = (brightness_of_border(images) > 128).astype(int)
        difference = np.abs(images - GROUNDS[ground].astype(float)[:, :, None, None])
        inside = difference.max(1)
        colour = np.zeros(len(images), int)
        for i, (image, share) in enumerate(zip(images, inside)):
            mean = (
                image[:, share >= max(0.7 * share.max(), 1)].mean(1)
                if share.max() >= 1
                else np.zeros(3)
            )
            colour[i] = np.linalg.norm(COLOURS - mean, axis=1).argmin()
        contrast = np.abs(COLOURS[colour] - GROUNDS[ground].astype(float)).max(1)[:, None, None]
        return 2 * (inside / contrast).clip(0, 1)[:, None] - 1, colour, ground

    def __call__(self, images):
        strokes, colour, ground = self.strokes(images)
        digit = read_strokes(self.judge, (strokes[:, 0] + 1) / 2)
        return np.column_stack([digit, colour, thickness(strokes) > self.edge, ground])


def shown_rows(reader, images, looks, real, real_looks):
    """Of (N, 3, S, S) pictures that should show (N, 4) `looks`."""
    right, of_real = reader(images) == looks, reader(real) == real_looks
    names = ("digit", "colour", "stroke", "ground")
    columns = [(name, right[:, i], of_real[:, i]) for i, name in enumerate(names)]
    columns.append(("all four", right.all(1), of_real.all(1)))
    return [
        (
            f"the asked {name}" if name != "all four" else name,
            float(r.mean()),
            f"{len(r):,}; as real ones {o.mean():.4f}",
        )
        for name, r, o in columns
    ]


def variety_row(images, real, real_looks):
    """`images` are N_OF_A_TEXT of each text, one after another."""
    of_texts = images.reshape(-1, N_OF_A_TEXT, *images.shape[1:]) / 127.5
    groups = [real[(real_looks == c).all(1)] / 127.5 for c in np.unique(real_looks, axis=0)]
    ours, theirs = (
        np.mean([mean_distance(g) for g in part if len(g) > 1]) for part in (of_texts, groups)
    )
    return "variety", float(ours / theirs), f"{ours:.2f} over {theirs:.2f}"


def retrieval_rows(text_encoder, image_encoder, data):
    """Of a data set with captions, in groups of images whose captions are all different."""
    rng, firsts = np.random.default_rng(8), {}
    for i in rng.permutation(len(data)):
        firsts.setdefault(data.captions[i][0], i)
    texts, chosen = list(firsts), np.array(list(firsts.values()))
    v = np.concatenate(
        [
            in_chunks(image_encoder, data.batch(part)[0])
            for part in np.array_split(chosen, -(-len(chosen) // 100))
        ]
    )
    scores, n, ranks = (
        v @ in_chunks(text_encoder, encode(texts)).T,
        min(N_CAPTIONS, len(chosen)),
        [],
    )
    for _ in range(N_PARTITIONS):
        for group in rng.permutation(len(chosen))[: len(chosen) // n * n].reshape(-1, n):
            among = scores[np.ix_(group, group)]
            ranks.append(1 + (among > among.diagonal()[:, None]).sum(1))
    of = f"{len(chosen):,} images, each among {n} captions"
    return [
        ("retrieval", float(np.mean(np.concatenate(ranks) == 1)), f"{of}; chance {1 / n:.3f}"),
        ("median rank", float(np.median(np.concatenate(ranks))), of),
    ]


def opened(args):
    """Of the run `args.B`: its flags, text encoder, image encoder, and what draws.

    Returns:
        ..., a function of N texts to {stage: (N, C, S, S) numpy images in [-1, 1]}, of noise that is always the same.
    """
    script, flags, reader = opened_run(args.A, args.B, built_in=False)
    rng = np.random.default_rng(9)
    if args.A == "stackgan":
        parts = script.build(flags)
        reader.load(parts, False)
        encoders = parts["encoders"].eval()

        def draw(texts):
            noise = rng.standard_normal(
                (len(texts), flags.latent_dim + 2 * script.N_C), dtype=np.float32
            )
            return dict(zip(("stage I", "stage II"), script.drawn(parts, texts, noise, flags)))

        return (
            flags,
            encoders.text,
            lambda x: encoders.image(nn.avg_pool2d(x, flags.scale, flags.scale, 0)),
            draw,
        )
    generator, _, text_encoder, image_encoder = script.build(flags)
    ema = EMA(generator, flags.ema_decay)
    trained = {
        "generator": generator,
        "ema": ema,
        "text_encoder": text_encoder,
        "image_encoder": image_encoder,
    }
    reader.load(trained, False)

    def draw(texts):
        z = rng.standard_normal((len(texts), flags.latent_dim), dtype=np.float32)
        return {"": in_chunks(ema.module, z, in_chunks(text_encoder, encode(texts)))}

    return flags, text_encoder, image_encoder, draw


def judge_texts(args):
    """The table's rows (measure, value, of what) for the run `args.B` of the script `args.A`.

    Raises:
        UserError: no run of that script, or one of grey digits.
    """
    flags, text_encoder, image_encoder, draw = opened(args)
    test = load_captions(flags.data_dir, flags.img_size, flags.channels, flags.language, "test")
    rows = retrieval_rows(text_encoder, image_encoder, test)
    if flags.data_dir is not None:
        return rows
    if flags.channels != 3:
        raise UserError(f"{args.B} draws grey images, and only coloured digits can be judged")
    asked = combinations(held_out=True)
    texts = [
        text
        for look in asked
        for text in descriptions(look, flags.language)
        for _ in range(N_OF_A_TEXT)
    ]
    looks, shown = np.repeat(asked, len(texts) // len(asked), axis=0), []
    for stage, images in draw(texts).items():
        images, size = to_uint8(images).transpose(0, 3, 1, 2), images.shape[-1]
        judge, (real, real_looks) = Reader(args, size), described_digits(size, "test")
        of_stage = [
            *shown_rows(judge, images, looks, real, real_looks),
            variety_row(images, real, real_looks),
        ]
        shown += [
            (f"{stage}: {measure}" if stage else measure, value, of)
            for measure, value, of in of_stage
        ]
    size = judge.judge.size
    return [("judge", f"{size} x {size}", judge.judge.description), *shown, *rows]
