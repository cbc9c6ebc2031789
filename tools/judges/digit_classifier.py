"""A small convolutional network that reads digits: whose features measure distances, and which says what it reads.

It is trained once on what is at hand and kept in a cache folder, under a key of its training images, its settings and
this file, so that equal calls are judged by the same network.
"""

from common import checkpoint
from common.data.decode import to_float
from common.errors import UserError, say, warn
from common.networks import in_chunks

import hashlib
import os
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from jittor_fast import nn
from tools.image_sets import digits

SIZE, N_FEATURES, BATCH = 32, 128, 100


class Classifier(nn.Module):
    """(B, 1, 32, 32) images in [-1, 1] to (B, 128) features, which are not negative, and (B, 10) logits."""

    def __init__(self):
        super().__init__()
        layers, c = [], 1
        for width in (16, 32, 64):  # (B, 64, 4, 4) at the end
            layers += [nn.Conv(c, width, 3, padding=1), nn.BatchNorm(width), nn.ReLU(), nn.Pool(2)]
            c = width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(c * 16, N_FEATURES), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(N_FEATURES, 10))

    def execute(self, x):
        features = self.body(x)
        return features, self.head(features)


class DigitJudge:
    """A trained classifier.

    Attributes:
        size, channels: of the images that it takes.
        scale: what its features are multiplied by.
        description: for the table.
    """

    size, channels = SIZE, 1

    def __init__(self, network):
        self.network, self.scale, self.description = network, 1.0, ""

    def __call__(self, pixels):
        """(N, 128) features and (N, 10) probabilities of (N, 1, 32, 32) uint8 images."""
        features, logits = in_chunks(self.network, to_float(pixels))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return features * np.float32(self.scale), powers / powers.sum(1, keepdims=True)

    def read(self, pixels):
        """(N,) digits and (N,) their probabilities."""
        probabilities = self(pixels)[1]
        return probabilities.argmax(1), probabilities.max(1)


def train(images, labels, n_steps, seed):
    """A classifier of (N, 1, 32, 32) uint8 images, from batches of 100, shifted by up to 2 pixels."""
    jt.set_global_seed(1_000_000 + seed)
    rng, network = np.random.default_rng(seed), Classifier()
    network.train()
    optimizer = nn.Adam(network.parameters(), lr=0.002)
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="edge")
    for step in tqdm(range(n_steps), desc="training the classifier", leave=False, disable=None):
        optimizer.lr = 0.002 * (1 - step / n_steps)
        chosen = rng.integers(len(images), size=BATCH)
        dy, dx = rng.integers(5, size=2)
        x = to_float(padded[chosen, :, dy : dy + SIZE, dx : dx + SIZE])
        optimizer.step(nn.cross_entropy_loss(network(jt.array(x))[1], jt.array(labels[chosen])))
        jt.sync_all()
    network.eval()
    return network


# ---- kept from one call to the next ----


def cache_folder():
    """`jittor-gan-collection` in $XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).expanduser() / "jittor-gan-collection"


def kept(images, labels, n_steps, seed=7):
    """The classifier of these images: from the cache, or trained now and put there."""
    key = hashlib.sha256(Path(__file__).read_bytes())
    for part in (
        images.tobytes(),
        labels.astype(np.int32).tobytes(),
        repr((images.shape, n_steps, seed)).encode(),
    ):
        key.update(part)
    path = cache_folder() / f"digits-{key.hexdigest()[:16]}.npz"
    network = read_kept(path)
    if network is None:
        say(f"Training a digit classifier on {len(labels):,} digits, once; it is kept as {path}.")
        network = train(images, labels.astype(np.int32), n_steps, seed)
        keep(path, network)
    return network


def read_kept(path):
    """The classifier of a file, or None where there is none that fits."""
    if not path.is_file():
        return None
    network = Classifier()
    try:
        with np.load(path) as file:
            state = {name: file[name] for name in file.files}
    except (*checkpoint.DAMAGE, ValueError, KeyError) as error:
        warn(f"{path} is damaged ({error}) and is made anew")
        return None
    expected = {name: value.shape for name, value in checkpoint.module_state(network).items()}
    if {name: value.shape for name, value in state.items()} != expected:
        warn(f"{path} holds another network and is made anew")
        return None
    checkpoint.load_module(network, state)
    network.eval()
    return network


def keep(path, network):
    """Writes a classifier; a cache that cannot be written costs another training, and no result."""
    own = path.with_name(
        f"{path.stem}.{os.getpid()}.npz"
    )  # two calls may train the same one at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(
            own, lambda file: np.savez(file, **checkpoint.module_state(network))
        )
        os.replace(own, path)
    except (OSError, UserError) as error:
        warn(f"the classifier is not kept: {error}")


# ---- of the digits at hand ----


def of_digits(mnist, n_steps, change=lambda images: images):
    """The judge of MNIST's digits after `change`, a function of (N, 1, 32, 32) uint8 images.

    Its features are scaled to a mean square of 1 on the test digits.

    Args:
        mnist: a folder of MNIST's IDX files; None takes the digits at hand.
    """

    def part(split):
        data = digits(split, mnist, SIZE)
        return change(data.images), data.labels

    images, labels = part("train")
    judge = DigitJudge(kept(images, labels, n_steps))
    test_images, test_labels = part("test")
    features, probabilities = judge(test_images)
    # Features of any size serve a classifier; with a mean square of 1 the kernel (x . y / D + 1)^3 suits them.
    judge.scale = 1 / max(np.sqrt(np.mean(np.square(features))), 1e-12)
    found, certainty = probabilities.argmax(1), probabilities.max(1)
    judge.description = (
        f"{N_FEATURES} of a classifier of {len(labels):,} digits that reads {np.mean(found == test_labels):.2%} of "
        f"{len(found):,} test digits right, {np.mean(certainty > 0.9):.2%} with over 0.9"
    )
    return judge
