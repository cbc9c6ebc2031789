"""A model that paints label maps in which each object has a look of its own."""

import common
from common.data import instances, spread
from common.data.faces import PARTS
from common.data.instances import MOST_INSTANCES, numbered
from common.data.label_maps import Classes, colours_of
from common.data.toy.crowds import CLASSES
from common.errors import UserError
from common.images import to_uint8

import numpy as np

from tools.pages.networks import as_picture, test_items
from tools.pages.reading import classes_of, seed_of

N_OBJECTS = 5  # colours of a class that has several objects in a test map


class ObjectPainter:
    """A model that paints label maps, with random looks of their objects.

    A colour of the palette is an object: a class whose objects are seen apart has
    several colours, so that neighbours of one class can be painted.

    Args:
        run: a `TrainedRun`.

    Attributes:
        classes: (n,) int32, the class of each colour.
        colours: (n, 3) uint8.
        names: of the colours.
        maps: of the test split, (N, H, W) indices of colours; or None.
        images: of the test split, (N, C, H, W), or None.
    """

    def __init__(self, run):
        args = run.args
        self.args = args
        self.shape = args.shape
        self.script = run.script
        self.generator = run.script.trained_part(
            run.networks["generator"], args, run.reader.meta["epoch"]
        )
        total = Classes(args.n_classes, args.ignore_label).total
        self.looks = run.script.Looks(total, args.n_clusters, args.feature_dim)
        run.reader.load({"looks": self.looks}, exact=False)
        items = test_items(lambda: spread(instances.load(args, "test")))
        n_objects = np.ones(total, int)
        if items is not None and not args.no_boundary:
            n_objects = most_objects(items[0], items[1], total)
        counts = np.where(n_objects > 1, N_OBJECTS, 1)
        self.first = np.cumsum(counts) - counts  # the first colour of each class
        self.counts = counts
        self.classes = np.repeat(np.arange(total, dtype=np.int32), counts)
        self.colours = shades(self.classes, self.first, total)
        self.names = self.names_of(total)
        self.maps = None
        self.images = None
        if items is not None:
            self.maps = self.entries(items[0], items[1])
            self.images = items[2]

    def names_of(self, total):
        words = {None: CLASSES, "digits": CLASSES, "faces": PARTS}.get(self.args.data_dir)
        words = words or [str(label) for label in range(total)]
        names = []
        for k, label in enumerate(self.classes):
            number = f" {k - self.first[label] + 1}" if self.counts[label] > 1 else ""
            names.append(words[label] + number)
        return names

    def entries(self, labels, ids):
        """Maps (N, H, W) as indices of colours; a class's objects take turns."""
        found = np.zeros_like(labels)
        for k in range(len(labels)):
            given = np.zeros(len(self.counts), int)
            for name in np.unique(ids[k]):
                where = ids[k] == name
                label = labels[k][where][0]
                found[k][where] = self.first[label] + given[label] % self.counts[label]
                given[label] += 1
        return found

    def canvas_size(self):
        """(width, height): a pixel of the canvas is one of the map."""
        height, width = self.shape
        return width, height

    def coloured(self, entries):
        """A map (H, W) of indices of colours as RGB (H, W, 3) uint8, to paint on."""
        return self.colours[entries]

    def draw(self, url, seed, changes=None):
        """The painting of a map.

        Args:
            url: of the canvas.
            seed: of the looks.
            changes: for each colour, how often its object was given another look
                (default: never).
        """
        entries = classes_of(url, self.canvas_size(), self.colours)
        labels = self.classes[entries]
        ids = numbered(labels[0], entries[0])[None]
        codes = None
        if self.args.feature_dim > 0:
            codes = np.zeros((1, MOST_INSTANCES, self.args.feature_dim), np.float32)
            for name in np.unique(ids):
                entry = entries[ids == name][0]
                n_changes = 0 if changes is None else changes[entry]
                codes[0, name] = self.look(entry, seed_of(seed), n_changes)
        return as_picture(self.script.paint(self.generator, labels, ids, codes, chunk=1))

    def look(self, entry, seed, n_changes):
        """The code of an object; each change is to another one of its class's looks."""
        label = self.classes[entry]
        n = self.looks.counts[label]
        if n == 0:
            return np.zeros(self.args.feature_dim, np.float32)
        order = np.random.default_rng([seed, entry]).permutation(n)
        return self.looks.centres[label, order[n_changes % n]]

    def entry_of(self, name):
        """The index of a colour.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self.names:
            raise UserError(f"There is no object {name}.")
        return self.names.index(name)

    def warm_up(self):
        labels = np.zeros((1, *self.shape), np.int32)
        codes = None
        if self.args.feature_dim > 0:
            codes = np.zeros((1, MOST_INSTANCES, self.args.feature_dim), np.float32)
        common.predict(self.script.boundaries, labels)
        self.script.paint(self.generator, labels, labels, codes, chunk=1)


def most_objects(labels, ids, total):
    """(total,) the most objects that each class has in one of the maps (N, H, W)."""
    most = np.zeros(total, int)
    for k in range(len(labels)):
        _, where = np.unique(ids[k], return_index=True)
        counts = np.bincount(labels[k].ravel()[where], minlength=total)
        most = np.maximum(most, counts)
    return most


def shades(classes, first, total):
    """Colours (n, 3) uint8 of a palette: a class's further objects are ever lighter."""
    base = to_uint8(colours_of(np.arange(total).reshape(1, 1, total), total))[0, 0]
    number = np.arange(len(classes)) - first[classes]
    lightness = (number / (N_OBJECTS + 1))[:, None]
    return np.uint8(np.round(base[classes] * (1 - lightness) + 255 * lightness))
