"""Judges the outputs of pix2pixhd.py for maps of the test split, for tools/evaluate.py.

The outputs have the codes of the images that belong to the maps. They are compared with
these images at all pixels, and where two objects of one class touch: at the pixels of
which one of the four neighbours belongs to another object of the same class. A run with
--no_boundary does not see these borders, unless the codes show them.

On the drawn crowds, a small network is trained to read the digits of the training
split from the squares around them. It then reads the digits of the test split that
touch another one, in the images and in the outputs. Digits that are covered by more
than SHARE_COVERED do not count.

At last, the code of each map's largest object of a class with several looks is replaced
by another look of its class. The change of the output is compared inside this object
and outside it.
"""

from common.data import instances
from common.data.toy import crowds
from common.errors import UserError
from common.images import to_uint8
from common.predict import predict

import jittor as jt
import numpy as np
from PIL import Image
from tqdm import tqdm

from jittor_fast import nn
from tools.runs import open_run

SIDE = 32  # of the squares that the reader sees, in pixels
MARGIN = 2  # pixels around a digit that its square shows too
SHARE_COVERED = 0.4
BATCH_SIZE = 64
LR = 0.002
MOST_SCENES = 2000  # of the training split, for the reader


# ---- where objects of one class touch ----


def touching(labels, ids):
    """(N, H, W) bool: a neighbour has the same label, and another id.

    Args:
        labels, ids: (N, H, W).
    """
    found = np.zeros(ids.shape, bool)
    rows = (labels[:, 1:] == labels[:, :-1]) & (ids[:, 1:] != ids[:, :-1])
    found[:, 1:] |= rows
    found[:, :-1] |= rows
    columns = (labels[:, :, 1:] == labels[:, :, :-1]) & (ids[:, :, 1:] != ids[:, :, :-1])
    found[:, :, 1:] |= columns
    found[:, :, :-1] |= columns
    return found


def distance_rows(labels, ids, real, painted):
    """L1 of outputs (N, C, H, W), over all pixels and where objects touch."""
    distances = np.abs(real - painted).mean(1)
    touch = touching(labels, ids)
    rows = [("L1", float(distances.mean()), f"{len(real):,} images, values in [-1, 1]")]
    if touch.any():
        of = f"{touch.sum():,} pixels, {touch.mean():.1%} of all"
        rows.append(("L1 where objects of a class touch", float(distances[touch].mean()), of))
    return rows


# ---- reading digits ----


class DigitReader(nn.Module):
    """squares (B, C, 32, 32)  ->  logits (B, 10)."""

    def __init__(self, channels):
        super().__init__()
        c = channels
        layers = []
        for width in (16, 32, 64):  # (B, c, H, W) -> (B, width, H / 2, W / 2)
            layers += [
                nn.Conv(c, width, 3, padding=1),
                nn.BatchNorm(width),
                nn.ReLU(),
                nn.Pool(2),
            ]
            c = width
        layers += [  # (B, 64, 4, 4) -> (B, 10)
            nn.Flatten(),
            nn.Linear(c * 16, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, 10),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return self.layers(x)


def squares_of(crowd, image, only_touching):
    """The squares around a scene's digits, and the digits.

    Args:
        crowd: a `crowds.Crowd`.
        image: (C, H, W) in [-1, 1], of it.
        only_touching: leave out digits that touch no other one.

    Returns:
        (n, C, 32, 32) float32 and (n,) int32.
    """
    touch = touching(crowd.labels[None], crowd.ids[None])[0]
    pixels = to_uint8(image[None])[0]
    squares = []
    digits = []
    for k, (digit, shape) in enumerate(zip(crowd.digits, crowd.shapes), 1):
        visible = crowd.ids == k
        if visible.sum() < (1 - SHARE_COVERED) * shape.sum():
            continue
        if only_touching and not (touch & visible).any():
            continue
        squares.append(square_around(shape, pixels))
        digits.append(digit)
    if not squares:
        return np.zeros((0, len(image), SIDE, SIDE), np.float32), np.zeros(0, np.int32)
    return np.stack(squares), np.int32(digits)


def square_around(shape, pixels):
    """The square of pixels (H, W, C) uint8 around a shape (H, W), as (C, 32, 32)."""
    rows, columns = np.nonzero(shape)
    side = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * MARGIN
    top = (rows.min() + rows.max() + 1 - side) / 2
    left = (columns.min() + columns.max() + 1 - side) / 2
    padding = int(side)
    padded = np.pad(pixels, [(padding, padding), (padding, padding), (0, 0)], mode="edge")
    box = np.array([left, top, left + side, top + side]) + padding
    picture = Image.fromarray(padded.squeeze(2) if padded.shape[2] == 1 else padded)
    square = np.asarray(picture.resize((SIDE, SIDE), Image.BILINEAR, box=tuple(box)))
    square = square.reshape(SIDE, SIDE, -1).transpose(2, 0, 1)
    return square / np.float32(127.5) - 1


def all_squares(source, images, only_touching):
    """`squares_of` for scenes 0, 1, ... of `crowds.Crowds` and their images."""
    squares = []
    digits = []
    for index, image in enumerate(images):
        crowd, _ = source.drawn(index)
        of_scene = squares_of(crowd, image, only_touching)
        squares.append(of_scene[0])
        digits.append(of_scene[1])
    return np.concatenate(squares), np.concatenate(digits)


def train_reader(squares, digits, n_steps, seed=0):
    """A `DigitReader` of squares (N, C, 32, 32), shifted by up to 2 pixels."""
    jt.set_global_seed(3_000_000 + seed)
    rng = np.random.default_rng(seed)
    network = DigitReader(squares.shape[1])
    network.train()
    optimizer = nn.Adam(network.parameters(), lr=LR)
    padded = np.pad(squares, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="edge")
    for step in tqdm(range(n_steps), desc="training the reader", leave=False, disable=None):
        optimizer.lr = LR * (1 - step / n_steps)
        chosen = rng.integers(len(squares), size=BATCH_SIZE)
        dy, dx = rng.integers(5, size=2)
        x = np.ascontiguousarray(padded[chosen, :, dy : dy + SIDE, dx : dx + SIDE])
        logits = network(jt.array(x))
        optimizer.step(nn.cross_entropy_loss(logits, jt.array(digits[chosen])))
        jt.sync_all()
    network.eval()
    return network


def reading_rows(train_split, source, real, painted, n_steps):
    """Which share of the digits that touch another one is read."""
    _, _, images = train_split.batch(np.arange(min(len(train_split), MOST_SCENES)))
    reader = train_reader(*all_squares(train_split.source, images, False), n_steps)
    rows = []
    for name, pictures in (("images", real), ("outputs", painted)):
        squares, digits = all_squares(source, pictures, True)
        share = float((predict(reader, squares).argmax(1) == digits).mean())
        rows.append((f"touching digits read, {name}", share, f"{len(digits):,} digits"))
    return rows


# ---- the code of one object ----


def other_looks(labels, ids, codes, looks):
    """Codes in which one object of each map has another look, and where this object is.

    It is the largest object of those whose class has at least two looks, without the
    first ones of a class in the map if it has several: a digit rather than the sky. Its
    new look is the one that is farthest from its code.

    Args:
        labels, ids: (N, H, W).
        codes: (N, M, C).
        looks: of pix2pixhd.py.

    Returns:
        New codes (N, M, C), and (N, H, W) bool; a map without such an object has none.
    """
    changed = codes.copy()
    inside = np.zeros(ids.shape, bool)
    for k in range(len(ids)):
        names, where, sizes = np.unique(ids[k], return_index=True, return_counts=True)
        classes = labels[k].ravel()[where]
        n_of_class = np.bincount(classes, minlength=len(looks.counts))[classes]
        eligible = looks.counts[classes] >= 2
        if not eligible.any():
            continue
        if (n_of_class[eligible] > 1).any():
            eligible &= n_of_class > 1
        chosen = np.where(eligible, sizes, 0).argmax()
        centres = looks.centres[classes[chosen], : looks.counts[classes[chosen]]]
        distances = ((centres - codes[k, names[chosen]]) ** 2).sum(1)
        changed[k, names[chosen]] = centres[distances.argmax()]
        inside[k] = ids[k] == names[chosen]
    return changed, inside


def change_rows(before, after, inside):
    """How much a new code changes an output inside its object, and outside it.

    Args:
        before, after: outputs (N, C, H, W).
        inside: (N, H, W) bool.
    """
    has_object = inside.any((1, 2))
    change = np.abs(after - before).mean(1)[has_object]
    inside = inside[has_object]
    within = float(change[inside].mean())
    beyond = float(change[~inside].mean())
    of = f"{len(inside):,} objects, mean change for values in [-1, 1]"
    return [
        ("another code: change inside the object", within, of),
        ("another code: change outside it", beyond, of),
        ("another code: inside over outside", within / max(beyond, 1e-12), of),
    ]


# ---- what is judged ----


def judge_instances(args):
    """The table's rows (measure, value, of what) for `args.B`, a pix2pixhd.py run."""
    script, run_args, reader = open_run(args.B, "pix2pixhd")
    train_split = instances.load(run_args, "train")
    test_split = instances.load(run_args, "test")
    generator, encoder, looks = load_networks(script, run_args, reader)
    if run_args.feature_dim > 0 and not looks.are_known():
        raise UserError(f"{args.B} has no looks yet: its training was stopped")
    labels, ids, real = test_split.batch(np.arange(len(test_split)))
    chunk = run_args.batch_size
    codes = None
    if encoder is not None:
        codes = predict(encoder, real, ids, chunk=chunk)
    painted = script.paint(generator, labels, ids, codes, chunk)
    rows = distance_rows(labels, ids, real, painted)
    if isinstance(test_split.source, crowds.Crowds):
        rows += reading_rows(train_split, test_split.source, real, painted, args.n_steps)
    if codes is not None:
        changed, inside = other_looks(labels, ids, codes, looks)
        if inside.any():
            after = script.paint(generator, labels, ids, changed, chunk)
            rows += change_rows(painted, after, inside)
    return rows


def load_networks(script, run_args, reader):
    """The generator, the encoder or None, and the looks of what `open_run` returns."""
    generator, encoder, _ = script.build(run_args)
    n_classes = instances.n_classes(run_args)
    looks = script.Looks(n_classes, run_args.n_clusters, run_args.feature_dim)
    reader.load({**script.parts_of(generator, encoder), "looks": looks}, exact=False)
    generator = script.trained_part(generator, run_args, reader.meta["epoch"])
    return generator, encoder, looks
