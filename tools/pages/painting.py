"""Models that translate pictures, or paint drawings and label maps."""

import common
from common.data import label_maps, spread, tasks
from common.data.decode import to_float
from common.data.label_maps import Classes, colours_of
from common.data.resolution import resize
from common.data.toy.scenes import CLASSES
from common.errors import UserError
from common.images import as_rgb, to_uint8
from common.inpainting import fill
from common.translation import in_tiles

import numpy as np

from tools.judges import inpainting
from tools.landscape import Painter
from tools.pages.networks import as_picture, test_items
from tools.pages.reading import (
    classes_of,
    hole_of,
    mask_of,
    outlines_of,
    picture_of,
    seed_of,
    slider_value,
    small_picture_of,
    transparency_of,
    url_of,
)

N_COLOURS = 12  # of a palette for outlines, at most
LEAST_SHARE = 0.003  # of the pixels of the test inputs, for a colour of the palette
ALIKE = 34  # difference in a channel, up to which two colours are one of the palette
FLAT = 0.5  # share of the pixels in the N_COLOURS commonest, above which inputs are drawings
LARGEST = 256  # pixels of the longer side of a picture that is enlarged
FINE = 256  # pixels of the longer side of a canvas for outlines, at least
HOLE = (255, 0, 255)  # the colour that a hole is brushed in


class Translator:
    """A model that translates a picture: in one direction, or in two.

    Args:
        run: a `TrainedRun`.

    Attributes:
        directions: {name: network}.
        examples: {name: test images (N, C, H, W), or None}.
        palette: (n, 3) uint8, the colours of the inputs, that of the ground first, if
            they are drawings; or None.
    """

    def __init__(self, run):
        self.args = run.args
        self.shape = run.args.shape
        self.task = getattr(run.args, "task", None)
        both = both_directions(run.networks)
        if both:
            self.directions = dict(zip(("A → B", "B → A"), both))
            items = test_items(lambda: run.script.fixed_images(run.args))
            self.examples = dict(zip(self.directions, items or (None, None)))
            self.palette = None
        else:
            self.directions = {"": run.networks["generator"]}
            items = test_items(lambda: spread(run.script.load(run.args, "test"))[0])
            self.examples = {"": items}
            self.palette = palette_of(items) if self.task in (None, "edges") else None
        self.channels = getattr(run.args, "input_channels", run.args.channels)

    def canvas_size(self):
        """(width, height) of a canvas: a multiple of the shape, for smooth lines."""
        height, width = self.shape
        times = max(1, FINE // max(self.shape))
        return times * width, times * height

    def brush(self):
        """The diameter of a line on the canvas that is 1.5 pixels wide in the image."""
        return max(1, round(1.5 * self.canvas_size()[0] / self.shape[1]))

    def url_of(self, image):
        """An image (1, C, H, W), to draw on."""
        times = self.canvas_size()[0] // self.shape[1]
        pixels = to_uint8(as_rgb(image))[0]
        return url_of(pixels.repeat(times, axis=0).repeat(times, axis=1))

    def read(self, path):
        """The image of an uploaded file, as the task takes it; a remark or None."""
        if self.task == "enlarge":
            small = [side // tasks.SCALE for side in self.shape]
            image, remark = picture_of(path, self.channels, small)
        else:
            image, remark = picture_of(path, self.channels, self.shape)
        if self.task in ("color", "enlarge"):
            image = tasks.of_upload(self.task, image)
        return image, remark

    def read_drawing(self, url):
        """The image (1, C, H, W) of a canvas."""
        image = outlines_of(url, self.canvas_size(), self.shape, self.palette[0])
        if self.channels == 1:
            image = image.mean(1, keepdims=True)
        return image

    def draw(self, image, direction=""):
        """The translation of an image (1, C, H, W)."""
        if image is None:
            raise UserError("Choose a picture first.")
        if direction not in self.directions:
            raise UserError(f"There is no direction {direction}.")
        # Dropout's seed, so that the same picture always gets the same answer.
        output = common.predict(self.directions[direction], image, seed=self.args.seed)
        return as_picture(output)

    def warm_up(self):
        image = np.zeros((1, self.channels, *self.shape), np.float32)
        for direction in self.directions:
            self.draw(image, direction)


class HoleFiller:
    """A model that fills a hole, which a visitor brushes or uploads.

    Args:
        run: a `TrainedRun`.

    Attributes:
        examples: (images (N, C, H, W), masks (N, 1, H, W)) of the test split, or None.
    """

    def __init__(self, run):
        self.args = run.args
        self.shape = run.args.shape
        self.channels = inpainting.channels_of(run.args)
        self.complete = inpainting.completer_of(run.script, run.networks["generator"], run.args)
        self.examples = test_items(lambda: spread(inpainting.load(run.args, "test")))

    def canvas_size(self):
        """(width, height) of a canvas: a multiple of the shape."""
        height, width = self.shape
        times = max(1, FINE // max(self.shape))
        return times * width, times * height

    def url_of(self, image, hole):
        """An image (1, C, H, W) with its hole (H, W) in the colour HOLE."""
        times = self.canvas_size()[0] // self.shape[1]
        pixels = to_uint8(as_rgb(image))[0]
        pixels = np.where(hole[..., None], np.uint8(HOLE), pixels)
        return url_of(pixels.repeat(times, axis=0).repeat(times, axis=1))

    def example(self, index):
        """A test image (1, C, H, W), and its hole (H, W) bool."""
        images, masks = self.examples
        return images[index : index + 1], masks[index, 0] == 1

    def read(self, path):
        """An upload's image, its transparent region, and a remark or None."""
        image, remark = picture_of(path, self.channels, self.shape)
        return image, transparency_of(path, self.shape), remark

    def read_mask(self, path):
        """The hole (H, W) bool of an uploaded mask."""
        return mask_of(path, self.shape)

    def read_drawing(self, url):
        """The hole (H, W) bool of a canvas."""
        return hole_of(url, self.canvas_size(), self.shape, HOLE)

    def draw(self, image, hole):
        """An image (1, C, H, W) with its hole (H, W) bool filled."""
        if image is None:
            raise UserError("Choose a picture first.")
        if not hole.any():
            raise UserError("Brush the hole first.")
        if hole.all():
            raise UserError("The hole covers everything, and leaves nothing to start from.")
        pixels = to_uint8(image)[0].transpose(2, 0, 1)
        overlap = getattr(self.args, "overlap", 0)
        filled = fill(pixels, hole, self.complete, self.shape, self.args.hole, overlap)
        return as_picture(to_float(filled)[None])

    def warm_up(self):
        image = np.zeros((1, self.channels, *self.shape), np.float32)
        hole = np.zeros(self.shape, bool)
        hole[self.shape[0] // 2, self.shape[1] // 2] = True
        self.draw(image, hole)


def both_directions(networks):
    """The translations A to B and B to A of a run, or None if it has one direction."""
    if "vaes" in networks:
        return networks["vaes"].A_to_B, networks["vaes"].B_to_A
    if "G" in networks:
        return networks["G"], networks["F"]
    return None


def palette_of(images):
    """The colours (n, 3) uint8 of images that are drawings, the commonest first.

    Images count as drawings if most of their pixels have one of a few colours.

    Args:
        images: (N, C, H, W) in [-1, 1], or None.

    Returns:
        None if they are photographs, or if there are none.
    """
    if images is None or images.shape[1] not in (1, 3):
        return None
    # Four bits for each channel: the colours of a JPEG are not exact.
    pixels = np.round(to_uint8(as_rgb(images)).reshape(-1, 3) / 17).astype(np.uint8)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts)
    order = order[counts[order] >= LEAST_SHARE * len(pixels)]
    if len(order) < 2:
        return None
    palette = 17 * colours[order].astype(int)
    if (np.ptp(palette, axis=1) == 0).all():
        # Grey ones are the smooth edges of lines, except the ground and the ink.
        order = order[[0, np.abs(palette - palette[0])[:, 0].argmax()]]
        palette = 17 * colours[order].astype(int)
    if counts[order[:N_COLOURS]].sum() < FLAT * len(pixels):
        return None
    return np.uint8(distinct(palette)[:N_COLOURS])


def distinct(colours):
    """The colours that do not resemble one before them; (n, 3) integers."""
    kept = []
    for colour in colours:
        if all(np.abs(colour - other).max() > ALIKE for other in kept):
            kept.append(colour)
    return kept


class Enlarger:
    """A model that enlarges a picture of any size.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        self.channels = run.args.channels
        self.generator = run.networks["generator"]
        self.tile = run.script.TILE
        self.examples = test_items(lambda: spread(run.script.load(run.args, "test"))[0])

    def read(self, path):
        """The image of an uploaded file, LARGEST at most, and a remark or None."""
        return small_picture_of(path, self.channels, LARGEST)

    def draw(self, image):
        """Two enlargements of an image (1, C, H, W): bicubic, and the model's."""
        if image is None:
            raise UserError("Choose a picture first.")
        scale = self.args.scale
        bicubic = resize(image, (scale * image.shape[2], scale * image.shape[3]))
        large = in_tiles(
            lambda tiles: common.predict(self.generator, tiles),
            image,
            (self.tile, self.tile),
        )
        return as_picture(bicubic), as_picture(large)

    def warm_up(self):
        self.draw(np.zeros((1, self.channels, 8, 8), np.float32))


class AttributeEditor:
    """A model that changes the attributes of a picture.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        self.shape = run.args.shape
        self.channels = run.args.channels
        self.generator = run.networks["generator"]
        self.discriminator = run.networks["discriminator"]
        self.attributes = run.script.Attributes(
            run.args.selected_attrs, run.args.exclusive or [], run.args.may_have_none
        )
        self.names = self.attributes.names
        self.examples = test_items(lambda: spread(run.script.load(run.args, "test"))[0])

    def read(self, path):
        """The image of an uploaded file, and a remark or None."""
        return picture_of(path, self.channels, self.shape)

    def found(self, image):
        """The attributes that D finds in an image (1, C, H, W), as floats 0 or 1."""
        _, logits = common.predict(self.discriminator, image)
        return self.attributes.from_logits(logits)[0].tolist()

    def moved(self, moved, values):
        """The values after one slider was moved: exclusive attributes share a sum of 1.

        Args:
            moved: the index of the slider.
            values: those of all sliders, in [0, 1].
        """
        values = [slider_value(value, 0, 1) for value in values]
        if self.names[moved] not in self.attributes.exclusive:
            return values
        others = [k for k in self.attributes.exclusive_columns() if k != moved]
        rest = 1 - values[moved]
        total = sum(values[k] for k in others)
        for k in others:
            if total > 0:
                # An image that may have none of them is not given more of the others.
                scale = rest / total if not self.attributes.may_have_none else min(1, rest / total)
                values[k] *= scale
            elif not self.attributes.may_have_none:
                values[k] = rest / len(others)
        return values

    def draw(self, image, *values):
        """The translation of an image (1, C, H, W) to attributes in [0, 1]."""
        if image is None:
            raise UserError("Choose a picture first.")
        return as_picture(common.predict(self.generator, image, np.float32([values])))

    def warm_up(self):
        image = np.zeros((1, self.channels, *self.shape), np.float32)
        self.draw(image, *self.found(image))


class MapPainter:
    """A model that paints label maps, in a random style or in that of a picture.

    Args:
        run: a `TrainedRun`.

    Attributes:
        colours: (n, 3) uint8, one for each class.
        names: of the classes.
        maps, images: of the test split, (N, H, W) and (N, C, H, W), or None.
    """

    def __init__(self, run):
        args = run.args
        self.args = args
        self.shape = args.shape
        self.painter = Painter(run.networks["generator"], run.networks["encoder"], args)
        n = Classes(args.n_classes, args.ignore_label).total
        self.colours = to_uint8(colours_of(np.arange(n).reshape(1, 1, n), n))[0, 0]
        is_built_in = not (args.data_dir or args.label_dir)
        self.names = list(CLASSES) if is_built_in else [str(k) for k in range(n)]
        items = test_items(lambda: spread(label_maps.load(args, "test")))
        self.maps, self.images = items or (None, None)

    def canvas_size(self):
        """(width, height): a pixel of the canvas is one of the map."""
        height, width = self.shape
        return width, height

    def coloured(self, classes):
        """A map (H, W) as RGB (H, W, 3) uint8, to paint on."""
        return self.colours[classes]

    def read(self, path):
        """The image of an uploaded file, and a remark or None."""
        return picture_of(path, self.args.channels, self.shape)

    def draw(self, url, seed, style=None):
        """The painting of a map.

        Args:
            url: of the canvas.
            seed: of a random style.
            style: an image (1, C, H, W) whose style is used instead, or None.
        """
        classes = classes_of(url, self.canvas_size(), self.colours)
        if style is not None:
            z = self.painter.encode(style)
        else:
            rng = np.random.default_rng([seed_of(seed), 3])
            z = rng.standard_normal((1, self.args.style_dim), dtype=np.float32)
        return as_picture(self.painter.paint(classes, z))

    def warm_up(self):
        classes = np.zeros((1, *self.shape), np.int32)
        style = np.zeros((1, self.args.channels, *self.shape), np.float32)
        self.painter.paint(classes, self.painter.encode(style))
