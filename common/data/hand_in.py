"""Pictures of a generator that paints label maps: rows to look at, and a whole folder that is handed in."""

from common.checkpoint import write_atomically
from common.data.decode import fit, list_images, open_picture, to_float
from common.data.label_maps import (
    Classes,
    check_suffixes,
    colours_of,
    load,
    n_classes,
    open_map,
    resized,
    scan,
    two_folders_of,
)
from common.data.layout import existing_folder
from common.data.targets import spread
from common.errors import UserError, say
from common.flags import number
from common.ema import in_chunks
from common.pictures import in_tiles, save_image, to_uint8

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

QUALITY = 95  # of JPEG
FLAGS = ("out_size", "tiles", "ref", "ref_dir", "ref_json", "n_outputs")  # of one call
UNFINISHED = ".unfinished.json"  # what the pictures of a folder are of, until all of them are there


def add_flags(parser):
    """Offers the flags of `paint_folder` to a script's parser."""
    add = parser.add_argument
    add(
        "--out_size",
        type=size,
        metavar="WxH",
        help="with --input: size of the pictures; a map's own, unless given",
    )
    add(
        "--tiles",
        action="store_true",
        help="with --input: paint that size in pieces as large as in training",
    )
    add("--ref", metavar="IMAGE", help="with --input: all pictures get its style")
    add(
        "--ref_dir",
        metavar="DIR",
        help="with --input: each picture gets the style of the image with the map's name",
    )
    add(
        "--ref_json",
        metavar="FILE",
        help='with --input: {"map.png": "image.jpg"}, of images in --image_dir',
    )
    add(
        "--n_outputs",
        type=number(int, at_least=1),
        default=1,
        help="with --input: pictures of random style per map",
    )


def size(text):
    """The text "512x384" as (512, 384), an argparse type."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 1 <= int(part) <= 8192 for part in parts):
        raise argparse.ArgumentTypeError(f"must be width x height such as 512x384, got {text!r}")
    return int(parts[0]), int(parts[1])


class Painter:
    """A trained generator and encoder, at work on numpy arrays.

    Args:
        ema_G, ema_E: the averages of a generator of (B, H, W) classes and codes, and of an encoder whose first output
            is an image's code.
        args: the run's arguments.
    """

    def __init__(self, ema_G, ema_E, args):
        self.generator, self.encoder, self.args = ema_G.module, ema_E.module, args

    def encode(self, images):
        """The codes (N, style_dim) of images (N, 3, H, W)."""
        return in_chunks(self.encoder, images, chunk=self.args.batch_size)[0]

    def paint(self, classes, codes):
        """Images (N, 3, H, W) of maps (N, H, W) and codes."""
        return in_chunks(self.generator, classes, codes, chunk=self.args.batch_size)

    def paint_in_tiles(self, classes, codes):
        """The same of maps (N, H, W) of any size, in pieces of the training's (height, width), joined without seams."""

        def paint(maps):
            return self.paint(maps[:, 0].astype(np.int32), codes)

        return in_tiles(paint, classes[:, None].astype(np.float32), self.args.shape)

    def random_codes(self, n, *stream):
        """(n, style_dim) codes that follow from the run's seed and from `stream`."""
        rng = np.random.default_rng([self.args.seed, *stream])
        return rng.standard_normal((n, self.args.style_dim), dtype=np.float32)

    def write_rows(self, path, classes, images):
        """Writes rows of maps, images, and outputs of the images' own style, of the first one's, and of random ones.

        Returns:
            The outputs of the images' own style.
        """
        own = self.encode(images)
        styles = own, np.repeat(own[:1], len(own), axis=0), self.random_codes(len(own), 4)
        outputs = [self.paint(classes, codes) for codes in styles]
        rows = np.concatenate([images, *outputs]).repeat(3 // images.shape[1], axis=1)
        maps = colours_of(classes, n_classes(self.args))
        save_image(np.concatenate([maps, rows]), path, nrow=len(classes))
        return outputs[0]


# ---- a folder that is handed in ----


def paint(run, painter):
    """Writes result.png of the test part, or with --input one picture of each map."""
    if run.args.input is None:
        painter.write_rows(run.out_dir / "result.png", *spread(load(run.args, "test")))
    else:
        paint_folder(run, painter)


def paint_folder(run, painter):
    """Writes `<stem>.jpg` into the run's out_dir for each map of --input; with --n_outputs K `<stem>_0.jpg` and so on.

    A call that was stopped is continued where it is repeated: pictures that are there are not painted again.

    Args:
        run: its arguments have the flags of `add_flags`.

    Raises:
        UserError: a map or a reference is missing or cannot be used; found before the first picture is painted.
    """
    args = run.args
    maps = find_input(args)
    references = find_references(maps, args)
    out_dir = run.out_dir
    if args.resume and out_dir.resolve() == Path(args.resume).resolve().parent:
        out_dir = out_dir / "painted"
    out_dir.mkdir(parents=True, exist_ok=True)
    is_done = begun(out_dir, args)
    jobs = []
    for i, (label_map, reference) in enumerate(zip(maps, references)):
        for k in range(args.n_outputs):
            target = out_dir / (
                f"{label_map.stem}_{k}.jpg" if args.n_outputs > 1 else f"{label_map.stem}.jpg"
            )
            if not (is_done and target.is_file()):
                jobs.append((label_map, reference, target, (i, k)))
    if len(jobs) < len(maps) * args.n_outputs:
        say(f"{len(maps) * args.n_outputs - len(jobs):,} pictures are there already.")
    with tqdm(total=len(jobs), desc="painting", disable=None) as bar:
        for first in range(0, len(jobs), args.batch_size):
            chunk = jobs[first : first + args.batch_size]
            write_pictures(chunk, painter, args)
            bar.update(len(chunk))
            if bar.disable and (first + len(chunk)) // 100 > first // 100:
                say(f"{first + len(chunk):,} of {len(jobs):,} pictures are painted.")
    (out_dir / UNFINISHED).unlink()
    say(f"Painted {len(maps):,} maps into {out_dir}.")


def find_input(args):
    """The maps of --input, all of which have been read."""
    source = Path(args.input).expanduser()
    if not source.is_file():
        check_suffixes(source)
    maps = [source] if source.is_file() else list_images(source)
    stems = [label_map.stem for label_map in maps]
    if len({*stems}) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UserError(
            f"--input {source} holds two maps called {twice}, which would be one picture"
        )
    scan(maps, Classes(args.n_classes, args.ignore_label))
    return maps


def find_references(maps, args):
    """An image for each map, or None for a random style."""
    flags = [name for name in ("ref", "ref_dir", "ref_json") if getattr(args, name) is not None]
    if len(flags) > 1 or (flags and args.n_outputs > 1):
        raise UserError(
            f"--{flags[0]} and --{[*flags, 'n_outputs'][1]} ask for different styles: leave one out"
        )
    if args.ref is not None:
        references = [Path(args.ref).expanduser()] * len(maps)
    elif args.ref_dir is not None:
        images = {image.stem: image for image in list_images(args.ref_dir)}
        references = [
            images.get(label_map.stem, Path(args.ref_dir) / label_map.stem) for label_map in maps
        ]
    elif args.ref_json is not None:
        references = read_references(maps, Path(args.ref_json).expanduser(), image_folder(args))
    else:
        return [None] * len(maps)
    missing = [i for i, reference in enumerate(references) if not reference.is_file()]
    if missing:
        more = f"; {len(missing)} of {len(maps)} references are missing" if len(missing) > 1 else ""
        raise UserError(
            f"{references[missing[0]]}, the reference of {maps[missing[0]].name}, is not there{more}"
        )
    return references


def image_folder(args):
    """Where the images of --ref_json lie: --image_dir, or the images of the training part of --data_dir."""
    if args.image_dir is not None:
        return existing_folder(args.image_dir)
    found = (
        None if args.data_dir is None else two_folders_of(existing_folder(args.data_dir), "train")
    )
    if found is None:
        raise UserError("--ref_json needs --image_dir, the folder of the images that it names")
    return found[1]


def read_references(maps, path, folder):
    """The images in `folder` that a file {"x.png": "y.jpg"} names; the suffix of an image is not looked at."""
    try:
        names = json.loads(path.read_text())
        named = {Path(key).stem: Path(value).stem for key, value in names.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f'--ref_json {path} is no JSON file such as {{"map.png": "image.jpg"}} ({error})'
        ) from error
    absent = [label_map.name for label_map in maps if label_map.stem not in named]
    if absent:
        raise UserError(
            f"--ref_json {path} has no image for {absent[0]}; {len(absent)} of {len(maps)} maps are so"
        )
    images = {image.stem: image for image in list_images(folder)}
    return [images.get(named[label_map.stem], folder / named[label_map.stem]) for label_map in maps]


def begun(out_dir, args):
    """Whether a call with these flags has begun to fill a folder; notes there that one has."""
    checkpoint = Path(args.resume)
    flags = ("input", "out_size", "tiles", "ref", "ref_dir", "ref_json", "n_outputs", "seed")
    call = {"checkpoint": str(checkpoint.resolve()), "written": checkpoint.stat().st_mtime_ns}
    call = json.dumps(call | {name: getattr(args, name) for name in flags})
    note = out_dir / UNFINISHED
    is_begun = note.is_file() and note.read_text() == call
    write_atomically(note, lambda file: file.write(call.encode()))
    return is_begun


def write_pictures(jobs, painter, args):
    """Paints (map, reference, target, stream of random numbers) of a batch."""
    classes, maps, sizes = Classes(args.n_classes, args.ignore_label), [], []
    codes = np.empty((len(jobs), args.style_dim), np.float32)
    for i, (label_map, reference, _, stream) in enumerate(jobs):
        found = open_map(label_map)
        sizes.append(args.out_size or found.shape[::-1])
        maps.append(classes.of(resized(found, sizes[-1][::-1] if args.tiles else args.shape)))
        if reference is None:
            codes[i] = painter.random_codes(1, 5, *stream)[0]
        else:
            style = fit(open_picture(reference, args.channels, at_least=args.shape), args.shape)
            codes[i] = painter.encode(to_float(style[None]))[0]
    if args.tiles:
        images = (
            painter.paint_in_tiles(one[None], code[None])[0] for one, code in zip(maps, codes)
        )
    else:
        images = painter.paint(np.stack(maps), codes)
    for image, (_, _, target, _), size in zip(images, jobs, sizes):
        pixels = to_uint8(image[None])[0]
        picture = Image.fromarray(pixels[..., 0] if args.channels == 1 else pixels).resize(
            size, Image.BICUBIC
        )
        write_atomically(
            target, lambda file, picture=picture: picture.save(file, "JPEG", quality=QUALITY)
        )
