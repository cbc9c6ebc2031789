"""A small convolutional network that reads the attributes of the built-in faces.

It is trained once on the faces of the training split, which a translator sees too, and
kept in a cache folder. It is measured on those of the test split, which neither sees.
"""

from common.data.augment import mirror
from common.data.decode import to_float
from common.data.faces import ATTRIBUTES, HAIR, SKIN, read_faces
from common.errors import say
from common.predict import predict

import hashlib
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from jittor_fast import nn
from tools.judges.digit_classifier import cache_folder, keep, read_kept

SIZE = 32  # of the images, in pixels
BATCH_SIZE = 100
LR = 0.002
SHIFT = 2  # pixels by which training images move, at most

# What is read in a face: attributes of which it has exactly one, or a single attribute.
# Not whether it smiles: a mouth is a few pixels in one of 23 shapes, and the network
# reads only two thirds of them right.
TRAITS = {
    "hair": HAIR,
    "skin": SKIN,
    "length": ("Longhaired",),
    "glasses": ("Eyeglasses",),
    "beard": ("Beard",),
    "hat": ("Wearing_Hat",),
}


def columns(names):
    """The indices of attributes."""
    return [ATTRIBUTES.index(name) for name in names]


def traits(values, threshold):
    """(N, 6) int: the value of each of TRAITS.

    Of exclusive attributes it is the index of the largest one; of a single one, 1 if it
    is above the threshold, else 0.

    Args:
        values: (N, 14), attributes in {0, 1} or a network's logits of them.
        threshold: 0.5 for attributes, 0 for logits.
    """
    found = []
    for names in TRAITS.values():
        chosen = values[:, columns(names)]
        found.append(chosen.argmax(1) if len(names) > 1 else chosen[:, 0] > threshold)
    return np.stack(found, axis=1).astype(int)


class Network(nn.Module):
    """images (B, 3, 32, 32) in [-1, 1]  ->  logits (B, 14) of their attributes."""

    def __init__(self):
        super().__init__()
        c = 3
        layers = []
        for width in (32, 64, 64):  # (B, c, H, W) -> (B, width, H / 2, W / 2)
            layers += [
                nn.Conv(c, width, 3, padding=1),
                nn.BatchNorm(width),
                nn.ReLU(),
                nn.Pool(2),
            ]
            c = width
        layers += [  # (B, 64, 4, 4) -> (B, 14)
            nn.Flatten(),
            nn.Linear(c * 16, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, len(ATTRIBUTES)),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return self.layers(x)


class FaceClassifier:
    """A trained network, for uint8 images.

    Attributes:
        accuracy: {trait: the share of test faces in which it is read right}.
    """

    size = SIZE

    def __init__(self, network):
        self.network = network
        self.accuracy = {}

    def __call__(self, pixels):
        """(N, 6) the traits that it reads in uint8 images (N, 3, 32, 32)."""
        return traits(predict(self.network, to_float(pixels)), threshold=0)

    @property
    def description(self):
        listed = ", ".join(f"{name} {share:.1%}" for name, share in self.accuracy.items())
        return f"a classifier of faces; of test faces it reads right: {listed}"


def train(images, attributes, n_steps, seed):
    """A network trained on (N, 3, 32, 32) uint8 images, moved and mirrored at random.

    Args:
        attributes: (N, 14) float32 in {0, 1}.
    """
    jt.set_global_seed(3_000_000 + seed)
    rng = np.random.default_rng(seed)
    network = Network()
    network.train()
    optimizer = nn.Adam(network.parameters(), lr=LR)
    margins = [(0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)]
    padded = np.pad(images, margins, mode="edge")
    for step in tqdm(range(n_steps), desc="training the classifier", leave=False, disable=None):
        optimizer.lr = LR * (1 - step / n_steps)
        chosen = rng.integers(len(images), size=BATCH_SIZE)
        dy, dx = rng.integers(2 * SHIFT + 1, size=2)
        moved = padded[chosen, :, dy : dy + SIZE, dx : dx + SIZE]
        logits = network(jt.array(to_float(mirror(moved, rng))))
        loss = nn.binary_cross_entropy_with_logits(logits, jt.array(attributes[chosen]))
        optimizer.step(loss)
        jt.sync_all()
    network.eval()
    return network


def of_faces(n_steps, seed=8):
    """The classifier of the built-in faces: from the cache, or trained now.

    Args:
        n_steps: the length of its training.
    """
    training = read_faces("train")
    images = training.images(SIZE, 3)[:]
    key = hashlib.sha256(Path(__file__).read_bytes())
    key.update(images.tobytes())
    key.update(repr((n_steps, seed)).encode())
    path = cache_folder() / f"faces-{key.hexdigest()[:16]}.npz"
    network = read_kept(path, Network())
    if network is None:
        say(f"Training a classifier on {len(images):,} faces, once; it is kept as {path}.")
        network = train(images, training.attributes.astype(np.float32), n_steps, seed)
        keep(path, network)
    classifier = FaceClassifier(network)
    test = read_faces("test")
    found = classifier(test.images(SIZE, 3)[:])
    is_right = found == traits(test.attributes, threshold=0.5)
    classifier.accuracy = dict(zip(TRAITS, is_right.mean(0)))
    return classifier
