"""A judge of pictures that were painted from label maps; called by tools/evaluate.py.

A small segmenter learns to read maps from the training part's real images. It then reads the test part's real images,
and the pictures painted from the test part's maps. Intersection over union (IoU) of a class: the pixels that are of it
in both maps, as a share of those that are of it in one of them, over the test part; its mean is over the classes.

On the drawn scenes of spade.py, whose maps do not tell the time of day, also: what the style of another scene does.
"""

from common.data import label_maps
from common.data.decode import fit, list_images, open_image, to_float
from common.data.hand_in import Painter
from common.data.toy import scenes
from common.errors import UserError
from common.networks import EMA, in_chunks

from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from jittor_fast import nn
from tools.judge_translators import opened_run

BATCH, WIDTH, RATE = 8, 16, 0.005
CHUNK = 20
GROUNDS = (scenes.SKY, scenes.WATER, scenes.GROUND)


class Segmenter(nn.Module):
    """(B, C, H, W) images to (B, n_classes, H, W) logits; H and W are multiples of 4."""

    def __init__(self, channels, n_classes):
        super().__init__()
        w = WIDTH
        self.fine, self.middle = block(channels, w), block(w, 2 * w, stride=2)
        self.coarse, self.middle_up = block(2 * w, 4 * w, stride=2), block(6 * w, 2 * w)
        self.fine_up, self.last, self.doubled = (
            block(3 * w, w),
            nn.Conv(w, n_classes, 1),
            nn.Upsample(2),
        )

    def execute(self, x):
        fine = self.fine(x)
        middle = self.middle(fine)
        x = self.middle_up(jt.concat([self.doubled(self.coarse(middle)), middle], dim=1))
        return self.last(self.fine_up(jt.concat([self.doubled(x), fine], dim=1)))


def block(c_in, c_out, stride=1):
    conv = nn.Conv(c_in, c_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm(c_out), nn.ReLU())


def train_segmenter(data, channels, n_classes, n_steps, seed=0):
    """A segmenter of the pairs (classes, image) of a data set."""
    jt.set_global_seed(2_000_000 + seed)
    rng, network = np.random.default_rng(seed), Segmenter(channels, n_classes)
    network.train()
    optimizer, weights = nn.Adam(network.parameters(), lr=RATE), class_weights(data, n_classes)
    for step in tqdm(range(n_steps), desc="training the segmenter", leave=False, disable=None):
        optimizer.lr = RATE * (1 - step / n_steps)
        classes, images = data.batch(
            rng.integers(len(data), size=BATCH), rng.integers(2**63, size=BATCH)
        )
        optimizer.step(nn.cross_entropy_loss(network(jt.array(images)), jt.array(classes), weights))
        jt.sync_all()
    network.eval()
    return network


def class_weights(data, n_classes):
    """Weights by which rare classes count in the loss: 1 over the root of their share of the pixels."""
    classes, _ = data.batch(np.arange(min(200, len(data))))
    shares = np.bincount(classes.ravel(), minlength=n_classes) / classes.size
    return jt.array((1 / np.sqrt(np.maximum(shares, 1e-3))).astype(np.float32))


def mean_iou(confusion):
    """The mean IoU over the classes that (true class, read class) counts of pixels hold."""
    both, either = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    present = confusion.sum(1) > 0
    return float((both[present] / either[present]).mean())


def read(network, images, classes, n_classes):
    """The counts of pixels (true class, read class)."""
    found = in_chunks(network, images, chunk=CHUNK).argmax(1)
    return np.bincount((classes * n_classes + found).ravel(), minlength=n_classes**2).reshape(
        n_classes, n_classes
    )


def iou_rows(real, painted):
    """Rows of the table for the counts of real images, and {how painted: counts}."""
    rows, n = [("real images: mean IoU", mean_iou(real), f"{real.sum():,} pixels")], mean_iou(real)
    for how, counts in painted.items():
        share = mean_iou(counts) / n
        rows.append(
            (
                f"{how}: mean IoU",
                mean_iou(counts),
                f"{share:.1%} of that of real images; wanted: at least 90%",
            )
        )
        rows.append(
            (
                f"{how}: right pixels",
                float(np.trace(counts) / counts.sum()),
                f"{counts.sum():,} pixels",
            )
        )
    return rows


# ---- style ----


def ground_colours(classes, images):
    """(N, 3, C) mean colours in [-1, 1] of sky, water and ground in each image; NaN where one is not there."""
    means = np.full((len(images), len(GROUNDS), images.shape[1]), np.nan)
    for i, (found, image) in enumerate(zip(classes, images)):
        for k, ground in enumerate(GROUNDS):
            if (found == ground).any():
                means[i, k] = image[:, found == ground].mean(1)
    return means


def style_rows(classes, real, painted, times, chosen):
    """How far pictures with the styles of the scenes `chosen`, (N,) indices, have the colours of these."""
    colours, means = ground_colours(classes, painted), ground_colours(classes, real)
    of_time = np.stack(
        [np.nanmean(means[times == t], axis=0) for t in range(len(scenes.TIMES))]
    )  # (times, 3, C)
    span = of_time.max(0) - of_time.min(0)
    off = np.abs(colours - means[chosen]) / span
    distance = np.nansum((colours[:, None] - of_time) ** 2, axis=(2, 3))
    of = f"{len(chosen)} pictures, mean colours of sky, water and ground"
    return [
        (
            "style of another scene: colours off by",
            float(np.nanmean(off)),
            f"{of}, as shares of their span over times",
        ),
        (
            "style of another scene: its time of day",
            float(np.mean(distance.argmin(1) == times[chosen])),
            of,
        ),
    ]


# ---- what is judged ----


def judge_labels(args):
    """The table's rows for `args.B`: a run of spade.py, or pictures of the maps of the test part of `args.maps`."""
    return judge_run(args) if args.maps is None else judge_folder(args)


def judge_folder(args):
    """Any model's pictures in a folder, with the names of the maps; the first one's size is that of all."""
    folder = Path(args.B).expanduser()
    pictures = {file.stem: file for file in list_images(folder)}
    width, height = open_image(next(iter(pictures.values())), 3).size
    shape = (height - height % 4, width - width % 4)
    train_part, test_part = (
        label_maps.load(Flags(args.maps, shape), split) for split in ("train", "test")
    )
    absent = [label_map.stem for label_map, _ in test_part.files if label_map.stem not in pictures]
    if absent:
        raise UserError(
            f"{folder} has no picture of {absent[0]}; {len(absent)} of {len(test_part)} maps are so"
        )
    painted = [
        fit(open_image(pictures[label_map.stem], 3), shape) for label_map, _ in test_part.files
    ]
    classes, real = test_part.batch(np.arange(len(test_part)))
    total = max(train_part.classes.total, test_part.classes.total)
    segmenter = train_segmenter(train_part, 3, total, args.n_steps)
    counts = [
        read(segmenter, images, classes, total) for images in (real, to_float(np.stack(painted)))
    ]
    return iou_rows(counts[0], {"painted": counts[1]})


class Flags:
    """What `label_maps.load` reads, of a folder."""

    def __init__(self, data_dir, shape):
        self.data_dir, self.shape, self.stored, self.channels = data_dir, shape, {}, 3
        self.label_dir = self.image_dir = self.n_classes = self.ignore_label = None
        self.no_crop, self.no_flip, self.load_size = False, False, None


def judge_run(args):
    script, flags, reader = opened_run("spade", args.B, built_in=False)
    train_part, test_part = (label_maps.load(flags, split) for split in ("train", "test"))
    total = label_maps.n_classes(flags)
    generator, encoder, _ = script.build(flags)
    ema_G, ema_E = EMA(generator, flags.ema_decay), EMA(encoder, flags.ema_decay)
    reader.load(
        {"generator": generator, "encoder": encoder, "ema_G": ema_G, "ema_E": ema_E}, exact=False
    )
    painter = Painter(ema_G, ema_E, flags)
    classes, real = test_part.batch(np.arange(len(test_part)))
    own, n = painter.encode(real), len(real)
    chosen = np.roll(np.arange(n), 1)
    pictures = {
        "painted, style of the image": painter.paint(classes, own),
        "painted, style of another": painter.paint(classes, own[chosen]),
        "painted, random style": painter.paint(classes, painter.random_codes(n, 6)),
    }
    segmenter = train_segmenter(train_part, flags.channels, total, args.n_steps)
    painted = {how: read(segmenter, images, classes, total) for how, images in pictures.items()}
    rows = iou_rows(read(segmenter, real, classes, total), painted)
    if isinstance(test_part, scenes.Scenes):
        rows += style_rows(
            classes, real, pictures["painted, style of another"], test_part.times, chosen
        )
    return rows
