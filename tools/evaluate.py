"""Measures what a trained model's pictures are worth; a command, not a test.

    python tests/quality.py digits results/cgan_mnist/samples.npz
    python tests/quality.py pix2pix results/pix2pix
    python tests/quality.py cyclegan results/cyclegan
    python tests/quality.py stargan results/stargan
    python tests/quality.py usps results/cyclegan --mnist MNIST --usps USPS

Digits are read by a convolutional classifier that is trained here in a few minutes, on full MNIST where --mnist names
its folder (or where it lies in Jittor's data set folder), and else on the bundled digits. Its accuracy on the test
digits is printed with every result. All pictures that are judged come from the test part, which no script trains on.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip

import jittor as jt
from jittor import nn

import cyclegan
import pix2pix
import stargan
from common import checkpoint, fast, synthetic
from common.datasets import to_float

SIZE = 32


# ---- the classifier ----


class Classifier(nn.Module):
    """(B, 1, 32, 32) images in [-1, 1] to (B, 10) logits."""

    def __init__(self):
        super().__init__()
        layers, c = [], 1
        for width in (16, 32, 64):  # (B, 64, 4, 4) at the end
            layers += [nn.Conv(c, width, 3, padding=1), fast.BatchNorm(width), fast.ReLU(), nn.Pool(2)]
            c = width
        self.layers = nn.Sequential(*layers, nn.Flatten(), fast.Dropout(0.4), nn.Linear(c * 16, 10))

    def execute(self, x):
        return self.layers(x)


def train_classifier(images, labels, n_steps, seed=7):
    """A classifier of (N, 1, 32, 32) uint8 images, from n_steps batches of 100, shifted by up to 2 pixels."""
    jt.set_global_seed(1_000_000 + seed)
    rng, model = np.random.default_rng(seed), Classifier()
    model.train()
    optimizer = fast.Adam(model.parameters(), lr=0.002)
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="edge")
    for step in range(n_steps):
        optimizer.lr = 0.002 * (1 - step / n_steps)
        chosen = rng.integers(len(images), size=100)
        dy, dx = rng.integers(5, size=2)
        x = to_float(padded[chosen, :, dy : dy + SIZE, dx : dx + SIZE])
        optimizer.step(nn.cross_entropy_loss(model(jt.array(x)), jt.array(labels[chosen])))
        jt.sync_all()
    model.eval()
    return model


def read(model, images, chunk=500):
    """(N, 10) probabilities of (N, 1, 32, 32) uint8 images."""
    with jt.no_grad():
        parts = [
            nn.softmax(model(jt.array(to_float(images[i : i + chunk]))), dim=1).numpy()
            for i in range(0, len(images), chunk)
        ]
    return np.concatenate(parts)


def digits(mnist, split, n_test=500):
    data = common.load_digits(mnist, SIZE, 1, n_classes=10, split=split, n_test=n_test)
    return data.images, data.labels


def classifier_of_digits(args, change=lambda images: images):
    """A classifier of MNIST's digits after `change`, and its accuracy on the test digits."""
    images, labels = digits(args.mnist, "train")
    model = train_classifier(change(images), labels, args.n_steps)
    images, labels = digits(args.mnist, "test")
    probabilities = read(model, change(images))
    right, certain = probabilities.argmax(1) == labels, probabilities.max(1) > 0.9
    print(f"The classifier reads {right.mean():.2%} of {len(labels):,} real test digits right, "
          f"{certain.mean():.2%} with over 0.9.")  # fmt: skip
    return model


def grey(images):
    """(N, C, H, W) or (N, H, W, C) uint8 as (N, 1, H, W) uint8 of SIZE pixels."""
    axis = 1 if images.shape[1] in (1, 3) else 3
    mean = np.uint8(images.mean(axis) + 0.5)
    return mean[:, None] if mean.shape[-1] == SIZE else synthetic.enlarge(mean, SIZE)[:, None]


def share(name, values, needed=None):
    wanted = "" if needed is None else f"  (wanted: at least {needed:.0%})"
    print(f"{name}: {np.mean(values):.2%} of {np.size(values):,}{wanted}")


# ---- samples of digits ----


def features(model, images, chunk=500):
    """(N, 1024) what the classifier's last layer sees of (N, 1, 32, 32) uint8 images."""
    *body, _ = model.layers.layers.values()
    with jt.no_grad():
        parts = [nn.Sequential(*body)(jt.array(to_float(images[i : i + chunk]))) for i in range(0, len(images), chunk)]
        return np.concatenate([part.numpy() for part in parts])


def squared_distances(a, b):
    """(N, M) between the rows of (N, D) and (M, D)."""
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T


def share_within(a, b, k=3):
    """The share of the rows of a that lie no further from some row of b than that one's k-th neighbour in b.

    Samples within data are their precision, data within samples their recall (Kynkaanniemi 2019).
    """
    radius = np.partition(squared_distances(b, b), k, axis=1)[:, k]  # the 0-th neighbour is the row itself
    return (squared_distances(a, b) <= radius).any(1).mean()


def judge_digits(args):
    """Samples in samples.npz: how certain, which digits, and whether they are what was asked for."""
    with np.load(args.path) as file:
        images, labels = file["images"], file["labels"] if "labels" in file.files else None
    model, images = classifier_of_digits(args), grey(images)
    probabilities = read(model, images)
    share("certain (over 0.9)", probabilities.max(1) > 0.9)
    found = probabilities.argmax(1)
    print("shares of the digits: " + "  ".join(f"{k}: {np.mean(found == k):.1%}" for k in range(10)))
    if labels is not None:
        share("read as asked", found == labels)
        worst = min(range(10), key=lambda k: np.mean(found[labels == k] == k))
        share(f"  the worst class, {worst}", found[labels == worst] == worst)
    n = min(3000, len(images))
    real = digits(args.mnist, "train")[0]
    real = real[np.random.default_rng(9).permutation(len(real))[: 2 * n]]
    real, others, fake = (features(model, x) for x in (real[:n], real[n:], images[:n]))
    print(f"precision {share_within(fake, real):.2f}, recall {share_within(real, fake):.2f}; other real digits have "
          f"{share_within(others, real):.2f} and {share_within(real, others):.2f}")  # fmt: skip


# ---- translators ----


def trained(script, run_dir):
    """The arguments of a run, and the reader of its checkpoint."""
    args = script.parse_args(["--resume", str(run_dir), "--sample_only"])
    return args, checkpoint.Reader(args.resume)


def judge_pix2pix(args):
    """Colours of the painted test digits, and the distance to the targets."""
    flags, reader = trained(pix2pix, args.path)
    generator, _ = pix2pix.build(flags)
    reader.load({"generator": generator}, exact=False)
    outlines, paintings, labels = synthetic.outline_pairs(flags.img_size, "test")
    outputs = (pix2pix.sample(generator, to_float(outlines), seed=1) + 1) * 127.5
    inside = np.abs(paintings.astype(int) - synthetic.COLOURS[labels][:, :, None, None]).max(1) < 8
    mean = np.stack([image[:, mask].mean(1) for image, mask in zip(outputs, inside)])
    distance = np.linalg.norm(mean[:, None] - synthetic.COLOURS.astype(float), axis=2)
    share("painted in the colour of its class", distance.argmin(1) == labels, needed=0.95)
    targets = to_float(paintings)
    constant = np.median(to_float(synthetic.outline_pairs(flags.img_size, "train")[1]), axis=0)
    l1, guess = (np.abs(x - targets).mean() for x in (outputs / 127.5 - 1, constant))
    print(f"L1 {l1:.4f}; of the best constant picture {guess:.4f}: {l1 / guess:.2f} of it (wanted: below 0.5)")


def averaged(flags, reader):
    """cyclegan's generators with the averaged weights, with which it translates."""
    G, F, _, _ = cyclegan.build(flags)
    ema_G, ema_F = (common.EMA(generator, flags.ema_decay) for generator in (G, F))
    reader.load({"G": G, "F": F, "ema_G": ema_G, "ema_F": ema_F}, exact=False)
    return ema_G.module, ema_F.module


def on_paper(images):
    return grey(synthetic.draw_on_paper(synthetic.enlarge(images[:, 0], 28), SIZE, np.random.default_rng(5)))


def judge_cyclegan(args):
    """Test digits after their translation: read as the same digit, and as bright as the other domain."""
    flags, reader = trained(cyclegan, args.path)
    G, F = averaged(flags, reader)
    domains = synthetic.digit_domains(flags.img_size, "test", flags.channels)
    for name, generator, (images, labels), other, change in (
        ("A to B", G, domains[0], domains[1][0], on_paper),
        ("B to A", F, domains[1], domains[0][0], lambda images: images),
    ):
        fake = np.uint8((cyclegan.sample(generator, to_float(images)) + 1) * 127.5 + 0.5)
        found = read(classifier_of_digits(args, change), grey(fake)).argmax(1)
        share(f"{name}: read as the same digit", found == labels, needed=0.9)
        print(f"{name}: mean brightness {fake.mean():.1f}, of the domain {other.mean():.1f}: "
              f"{fake.mean() / other.mean() - 1:+.1%} (wanted: within 10%)")  # fmt: skip


def judge_usps(args):
    """MNIST's test digits in the style of USPS: read as the same digit by classifiers that know USPS alone.

    Five of them, since one differs from the next by several per cent on what is unlike USPS.
    """
    flags, reader = trained(cyclegan, args.path)
    G, _ = averaged(flags, reader)
    data = common.load_digits(args.usps, SIZE, 1, n_classes=10)
    order = np.random.default_rng(3).permutation(len(data))
    held, used = order[:1000], order[1000:]
    models = [train_classifier(data.images[used], data.labels[used], args.n_steps, seed) for seed in range(5)]

    def report(what, images, labels, needed=None):
        right = [read(model, images).argmax(1) == labels for model in models]
        share(what, right, needed)
        print("  one by one: " + "  ".join(f"{np.mean(r):.2%}" for r in right))

    report("USPS digits that the classifiers have not seen, read right", data.images[held], data.labels[held])
    test = common.load_digits(args.mnist, flags.img_size, flags.channels, n_classes=10, split="test")
    fake = np.uint8((cyclegan.sample(G, to_float(test.images)) + 1) * 127.5 + 0.5)
    report("MNIST's test digits as they are, read right", grey(test.images), test.labels)
    report("in the style of USPS, read as the same digit", grey(fake), test.labels, needed=0.9)


def judge_stargan(args):
    """Test digits after every change: colour, ground, digit."""
    flags, reader = trained(stargan, args.path)
    generator, _ = stargan.build(flags)
    reader.load({"generator": generator}, exact=False)
    names = flags.selected_attrs
    images, attributes, labels = synthetic.coloured_digits(flags.img_size, "test")
    model = classifier_of_digits(args, every_second_bold)
    share("  of these, before any change, read right", read_strokes(model, images, attributes, names) == labels)
    targets = stargan.all_targets(attributes.astype(np.float32), names, flags.exclusive)
    fake = np.concatenate([(stargan.sample(generator, to_float(images), t) + 1) * 127.5 for t in targets])
    wanted = np.concatenate(targets)
    colour = wanted[:, [names.index(n) for n in ("red", "green", "blue")]].argmax(1)
    inverted = wanted[:, names.index("inverted")] == 1
    ink = strokes(fake, inverted)
    painted = (ink > 0.5) != inverted[:, None, None]  # the digit, or else its ground
    seen = np.stack([image[:, mask].mean(1) if mask.any() else np.zeros(3) for image, mask in zip(fake, painted)])
    palette = synthetic.ATTRIBUTE_COLOURS.astype(float)
    share("the asked colour", np.linalg.norm(seen[:, None] - palette, axis=2).argmin(1) == colour, needed=0.97)
    border = np.concatenate([fake[:, :, 0], fake[:, :, -1], fake[:, :, :, 0], fake[:, :, :, -1]], axis=2)
    share("the asked ground", (border.max(1).mean(1) > 128) == inverted, needed=0.97)
    found = read_strokes(model, fake, wanted, names)
    share("still the same digit", found == np.tile(labels, len(targets)), needed=0.95)
    for name, right in zip(names, (found == np.tile(labels, len(targets))).reshape(len(targets), -1)):
        share(f"  after a change of {name}", right)
    bold, bold_data = wanted[:, names.index("bold")] == 1, attributes[:, names.index("bold")] == 1
    data = strokes(images, attributes[:, names.index("inverted")] == 1)
    print(f"ink of bold digits against thin ones: {ink[bold].mean() / ink[~bold].mean():.2f}; in the data "
          f"{data[bold_data].mean() / data[~bold_data].mean():.2f}")  # fmt: skip


def every_second_bold(images):
    """(N, 1, 32, 32) digits, as many of them bold as in the built-in data."""
    bold = synthetic.enlarge(synthetic.dilate(synthetic.enlarge(images[:, 0], 28), 1), SIZE)[:, None]
    return np.where(np.arange(len(images))[:, None, None, None] % 2, bold, images)


def read_strokes(model, images, attributes, names):
    """(N,) digits that the classifier reads in coloured images."""
    ink = strokes(images, attributes[:, names.index("inverted")] == 1)
    return read(model, grey(np.uint8(ink * 255)[:, None])).argmax(1)


def strokes(images, inverted):
    """(N, 3, S, S) coloured digits in [0, 255] as (N, S, S) in [0, 1]: 1 on the digit, 0 on its ground.

    A colour has its largest channel far from black, and its smallest far from white.
    """
    on_black = images.max(1) / synthetic.ATTRIBUTE_COLOURS.max(1).min()
    dull = float(synthetic.ATTRIBUTE_COLOURS.min(1).max())
    white = (images.min(1) - dull) / (255 - dull)
    return np.where(inverted[:, None, None], white, on_black).clip(0, 1)


JUDGES = {
    "digits": judge_digits, "pix2pix": judge_pix2pix, "cyclegan": judge_cyclegan, "stargan": judge_stargan,
    "usps": judge_usps,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(JUDGES))
    parser.add_argument("path", help="samples.npz, or the folder of a run")
    parser.add_argument("--mnist", help="folder of full MNIST's IDX files, for the classifier")
    parser.add_argument("--usps", help="folder of USPS's IDX files, for usps")
    parser.add_argument("--n_steps", type=int, default=2000, help="steps of the classifier's training")
    args = parser.parse_args()
    JUDGES[args.what](args)


if __name__ == "__main__":
    main()
