"""Judges pictures that were painted from label maps, for tools/evaluate.py.

A small network, the segmenter, is trained to read maps from the real images of the
training split. It then reads the real images of the test split, and the pictures that
were painted from the test split's maps. Intersection over union (IoU) of a class: the
pixels that have it in both maps, as a share of those that have it in at least one, over
the test split. Its mean is over the classes.

On the drawn scenes of spade.py, whose maps do not show the time of day, it also
measures what the style of another scene does.
"""

from common.data import label_maps
from common.data.decode import fit, list_images, open_image, to_float
from common.data.layout import existing_folder, expanded
from common.data.toy import scenes
from common.errors import UserError
from common.predict import predict

from types import SimpleNamespace

import jittor as jt
import numpy as np
from tqdm import tqdm

from jittor_fast import nn
from tools.landscape import load_painter
from tools.runs import open_run

BATCH_SIZE = 8
WIDTH = 16
LR = 0.005
CHUNK = 20  # images that the segmenter reads at once
GROUNDS = (scenes.SKY, scenes.WATER, scenes.GROUND)


# ---- the segmenter ----


class Segmenter(nn.Module):
    """images (B, C, H, W)  ->  logits (B, n_classes, H, W).

    H and W are multiples of 4.
    """

    def __init__(self, channels, n_classes):
        super().__init__()
        w = WIDTH
        self.fine = block(channels, w)
        self.middle = block(w, 2 * w, stride=2)
        self.coarse = block(2 * w, 4 * w, stride=2)
        self.middle_up = block(6 * w, 2 * w)
        self.fine_up = block(3 * w, w)
        self.last = nn.Conv(w, n_classes, 1)
        self.doubled = nn.Upsample(2)

    def execute(self, x):
        fine = self.fine(x)  # (B, w, H, W)
        middle = self.middle(fine)  # (B, 2 w, H / 2, W / 2)
        coarse = self.coarse(middle)  # (B, 4 w, H / 4, W / 4)
        x = self.middle_up(jt.concat([self.doubled(coarse), middle], dim=1))
        x = self.fine_up(jt.concat([self.doubled(x), fine], dim=1))
        return self.last(x)


def block(c_in, c_out, stride=1):
    return nn.Sequential(
        nn.Conv(c_in, c_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm(c_out),
        nn.ReLU(),
    )


def train_segmenter(data, channels, n_classes, n_steps, seed=0):
    """A segmenter of the pairs (classes, image) of a data set."""
    jt.set_global_seed(2_000_000 + seed)
    rng = np.random.default_rng(seed)
    network = Segmenter(channels, n_classes)
    network.train()
    optimizer = nn.Adam(network.parameters(), lr=LR)
    weights = class_weights(data, n_classes)
    for step in tqdm(range(n_steps), desc="training the segmenter", leave=False, disable=None):
        optimizer.lr = LR * (1 - step / n_steps)
        indices = rng.integers(len(data), size=BATCH_SIZE)
        seeds = rng.integers(2**63, size=BATCH_SIZE)
        classes, images = data.batch(indices, seeds)
        logits = network(jt.array(images))
        optimizer.step(nn.cross_entropy_loss(logits, jt.array(classes), weights))
        jt.sync_all()
    network.eval()
    return network


def class_weights(data, n_classes):
    """The weight of each class in the loss, larger for rare ones.

    It is 1 over the root of the class's share of the pixels.
    """
    classes, _ = data.batch(np.arange(min(200, len(data))))
    shares = np.bincount(classes.ravel(), minlength=n_classes) / classes.size
    return jt.array((1 / np.sqrt(np.maximum(shares, 1e-3))).astype(np.float32))


def read(network, images, classes, n_classes):
    """The counts of pixels (true class, read class) of images with maps `classes`."""
    found = predict(network, images, chunk=CHUNK).argmax(1)
    pairs = (classes * n_classes + found).ravel()
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def mean_iou(counts):
    """The mean IoU over the classes that occur.

    Args:
        counts: of pixels, (true class, read class).
    """
    both = np.diag(counts)
    either = counts.sum(0) + counts.sum(1) - both
    occurs = counts.sum(1) > 0
    return float((both[occurs] / either[occurs]).mean())


def iou_rows(real, painted):
    """Rows of the table, from the counts of real images and {how painted: counts}."""
    best = mean_iou(real)
    rows = [("real images: mean IoU", best, f"{real.sum():,} pixels")]
    for how, counts in painted.items():
        iou = mean_iou(counts)
        of = f"{iou / best:.1%} of that of real images; wanted: at least 90%"
        rows.append((f"{how}: mean IoU", iou, of))
        share = float(np.trace(counts) / counts.sum())
        rows.append((f"{how}: right pixels", share, f"{counts.sum():,} pixels"))
    return rows


# ---- style ----


def ground_colours(classes, images):
    """(N, 3, C) mean colours in [-1, 1] of sky, water and ground in each image.

    They are NaN for what an image does not show.
    """
    means = np.full((len(images), len(GROUNDS), images.shape[1]), np.nan)
    for i, (labels, image) in enumerate(zip(classes, images)):
        for k, ground in enumerate(GROUNDS):
            if (labels == ground).any():
                means[i, k] = image[:, labels == ground].mean(1)
    return means


def style_rows(classes, real, painted, times, chosen):
    """How far pictures have the colours of the scenes whose style they were given.

    Args:
        classes: the maps (N, H, W).
        real: the scenes, (N, C, H, W) in [-1, 1].
        painted: a picture of each map with the style of another scene.
        times: (N,) the scenes' times of day.
        chosen: (N,) the index of the scene whose style each picture has.
    """
    colours = ground_colours(classes, painted)
    real_colours = ground_colours(classes, real)
    of_time = []
    for time in range(len(scenes.TIMES)):
        of_time.append(np.nanmean(real_colours[times == time], axis=0))
    of_time = np.stack(of_time)  # (times, 3, C)
    span = of_time.max(0) - of_time.min(0)
    off = float(np.nanmean(np.abs(colours - real_colours[chosen]) / span))
    distance = np.nansum((colours[:, None] - of_time) ** 2, axis=(2, 3))
    share = float(np.mean(distance.argmin(1) == times[chosen]))
    of = f"{len(chosen)} pictures, mean colours of sky, water and ground"
    name = "style of another scene"
    return [
        (f"{name}: colours off by", off, f"{of}, as shares of their span over times"),
        (f"{name}: its time of day", share, of),
    ]


# ---- what is judged ----


def judge_labels(args):
    """The table's rows (measure, value, of what) for `args.B`.

    It is a run of spade.py, or with `args.maps` a folder of pictures of the maps in the
    test split of that data.
    """
    if args.maps is None:
        return judge_run(args)
    return judge_folder(args)


def judge_run(args):
    script, run_args, reader = open_run(args.B, "spade")
    train_split = label_maps.load(run_args, "train")
    test_split = label_maps.load(run_args, "test")
    n_classes = label_maps.n_classes(run_args)
    painter = load_painter(script, run_args, reader)
    classes, real = test_split.batch(np.arange(len(test_split)))
    own = painter.encode(real)
    chosen = np.roll(np.arange(len(real)), 1)
    pictures = {
        "painted, style of the image": painter.paint(classes, own),
        "painted, style of another": painter.paint(classes, own[chosen]),
        "painted, random style": painter.paint(classes, painter.random_codes(len(real), 6)),
    }
    segmenter = train_segmenter(train_split, run_args.channels, n_classes, args.n_steps)
    counts = {}
    for how, images in pictures.items():
        counts[how] = read(segmenter, images, classes, n_classes)
    rows = iou_rows(read(segmenter, real, classes, n_classes), counts)
    if isinstance(test_split, scenes.Scenes):
        painted = pictures["painted, style of another"]
        rows += style_rows(classes, real, painted, test_split.times, chosen)
    return rows


def judge_folder(args):
    """Pictures of any model, with the names of the maps.

    The size of the first one, cut to a multiple of 4, is that of all.
    """
    folder = expanded(args.B)
    pictures = {}
    for file in list_images(folder):
        if file.stem in pictures:
            raise UserError(f"{pictures[file.stem]} and {file} have the same name: one must go")
        pictures[file.stem] = file
    width, height = open_image(next(iter(pictures.values())), 3).size
    shape = (height - height % 4, width - width % 4)
    maps = existing_folder(args.maps)
    train_split = label_maps.load(arguments(maps, shape), "train")
    test_split = label_maps.load(arguments(maps, shape), "test")
    stems = [label_map.stem for label_map, _ in test_split.files]
    absent = [stem for stem in stems if stem not in pictures]
    if absent:
        raise UserError(
            f"{folder} has no picture of {absent[0]}; {len(absent)} of {len(stems)} maps lack one"
        )
    painted = np.stack([fit(open_image(pictures[stem], 3), shape) for stem in stems])
    classes, real = test_split.batch(np.arange(len(test_split)))
    n_classes = max(train_split.classes.total, test_split.classes.total)
    segmenter = train_segmenter(train_split, 3, n_classes, args.n_steps)
    return iou_rows(
        read(segmenter, real, classes, n_classes),
        {"painted": read(segmenter, to_float(painted), classes, n_classes)},
    )


def arguments(data_dir, shape):
    """The arguments that `label_maps.load` reads, for a folder of data."""
    return SimpleNamespace(
        data_dir=data_dir,
        shape=shape,
        channels=3,
        label_dir=None,
        image_dir=None,
        n_classes=None,
        ignore_label=None,
        no_crop=False,
        no_flip=False,
        load_size=None,
    )
