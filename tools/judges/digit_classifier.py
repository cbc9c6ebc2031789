"""A small convolutional network that reads digits, for features and for judging them.

It is trained once on the digits at hand and kept in a cache folder. Its file is named
by a hash of the training images, the settings and this source file, so that equal calls
use the same network.
"""

from common import checkpoint
from common.data.decode import to_float
from common.errors import UserError, say, warn
from common.predict import predict

import hashlib
import os
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from jittor_fast import nn
from tools.judges.image_sets import digits

SIZE = 32  # of the images, in pixels
N_FEATURES = 128
BATCH_SIZE = 100
LR = 0.002


class Network(nn.Module):
    """images (B, 1, 32, 32) in [-1, 1]  ->  features (B, 128), logits (B, 10).

    The features are not negative.
    """

    def __init__(self):
        super().__init__()
        c = 1
        layers = []
        for width in (16, 32, 64):  # (B, c, H, W) -> (B, width, H / 2, W / 2)
            layers += [
                nn.Conv(c, width, 3, padding=1),
                nn.BatchNorm(width),
                nn.ReLU(),
                nn.Pool(2),
            ]
            c = width
        layers += [  # (B, 64, 4, 4) -> (B, N_FEATURES)
            nn.Flatten(),
            nn.Linear(c * 16, N_FEATURES),
            nn.ReLU(),
        ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(N_FEATURES, 10))

    def execute(self, x):
        features = self.body(x)
        return features, self.head(features)


class DigitClassifier:
    """A trained network, for uint8 images.

    Attributes:
        size, channels: of the images that it takes.
        scale: the factor of its features.
        description: what it is, for the table.
    """

    size = SIZE
    channels = 1

    def __init__(self, network):
        self.network = network
        self.scale = 1.0
        self.description = ""

    def __call__(self, pixels):
        """Features (N, 128) and probabilities (N, 10) of uint8 (N, 1, 32, 32)."""
        features, logits = predict(self.network, to_float(pixels))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = powers / powers.sum(1, keepdims=True)
        return features * np.float32(self.scale), probabilities

    def read(self, pixels):
        """(N,) digits and (N,) their probabilities."""
        _, probabilities = self(pixels)
        return probabilities.argmax(1), probabilities.max(1)


def train(images, labels, n_steps, seed):
    """A network trained on (N, 1, 32, 32) uint8 images, shifted by up to 2 pixels."""
    jt.set_global_seed(1_000_000 + seed)
    rng = np.random.default_rng(seed)
    network = Network()
    network.train()
    optimizer = nn.Adam(network.parameters(), lr=LR)
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="edge")
    for step in tqdm(range(n_steps), desc="training the classifier", leave=False, disable=None):
        optimizer.lr = LR * (1 - step / n_steps)
        chosen = rng.integers(len(images), size=BATCH_SIZE)
        dy, dx = rng.integers(5, size=2)
        x = to_float(padded[chosen, :, dy : dy + SIZE, dx : dx + SIZE])
        _, logits = network(jt.array(x))
        optimizer.step(nn.cross_entropy_loss(logits, jt.array(labels[chosen])))
        jt.sync_all()
    network.eval()
    return network


# ---- kept from one call to the next ----


def cache_folder():
    """`jittor-gan-collection` in $XDG_CACHE_HOME (default: ~/.cache)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).expanduser() / "jittor-gan-collection"


def trained_on(images, labels, n_steps, seed=7):
    """The network of these images: from the cache, or trained now and put there.

    Args:
        images: (N, 1, 32, 32) uint8.
        labels: (N,).
        n_steps: the length of the training.
    """
    labels = labels.astype(np.int32)
    key = hashlib.sha256(Path(__file__).read_bytes())
    key.update(images.tobytes())
    key.update(labels.tobytes())
    key.update(repr((images.shape, n_steps, seed)).encode())
    path = cache_folder() / f"digits-{key.hexdigest()[:16]}.npz"
    network = read_kept(path, Network())
    if network is None:
        say(f"Training a digit classifier on {len(labels):,} digits, once; it is kept as {path}.")
        network = train(images, labels, n_steps, seed)
        keep(path, network)
    return network


def read_kept(path, network):
    """A network with the weights in a file, or None if there are none that fit."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            state = {name: file[name] for name in file.files}
    except Exception as error:  # whatever is wrong with it
        warn(f"{path} is damaged ({error}) and is made again")
        return None
    expected = {name: value.shape for name, value in checkpoint.module_state(network).items()}
    if {name: value.shape for name, value in state.items()} != expected:
        warn(f"{path} holds another network and is made again")
        return None
    checkpoint.load_module(network, state)
    network.eval()
    return network


def keep(path, network):
    """Writes a network; if that fails, the next call has to train it again."""
    # Two calls may train the same network at once.
    own = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    state = checkpoint.module_state(network)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(own, lambda file: np.savez(file, **state))
        os.replace(own, path)
    except (OSError, UserError) as error:
        warn(f"the classifier is not kept: {error}")


# ---- of the digits at hand ----


def unchanged(images):
    return images


def of_digits(mnist, n_steps, change=unchanged):
    """The classifier of MNIST's digits.

    Its features are scaled to a mean square of 1 on the test digits.

    Args:
        mnist: a folder of MNIST's IDX files; None takes the digits at hand.
        n_steps: the length of its training.
        change: a function of (N, 1, 32, 32) uint8 images that changes what it reads.
    """
    train_digits = digits("train", mnist, SIZE)
    test_digits = digits("test", mnist, SIZE)
    network = trained_on(change(train_digits.images), train_digits.labels, n_steps)
    classifier = DigitClassifier(network)
    features, probabilities = classifier(change(test_digits.images))
    # Features of any size serve a classifier; the kernel (x . y / D + 1)^3 needs a mean
    # square of about 1.
    classifier.scale = 1 / max(np.sqrt(np.mean(np.square(features))), 1e-12)
    is_right = probabilities.argmax(1) == test_digits.labels
    is_certain = probabilities.max(1) > 0.9
    classifier.description = (
        f"{N_FEATURES} of a classifier of {len(train_digits):,} digits that reads "
        f"{np.mean(is_right):.2%} of {len(test_digits):,} test digits right, "
        f"{np.mean(is_certain):.2%} with over 0.9"
    )
    return classifier
