"""Paints every label map of a folder with a trained spade.py: what a contest hands in.

    python tools/landscape.py results/spade MAPS OUT
    python tools/landscape.py results/spade MAPS OUT --out_size 512x384 --ref_json FILE
    python tools/landscape.py results/spade MAPS OUT --ref photo.jpg
    python tools/landscape.py results/spade MAPS OUT --n_outputs 3

Each map becomes OUT/<name>.jpg, or OUT/<name>_0.jpg, OUT/<name>_1.jpg and so on with
--n_outputs. Its style is random, or that of a reference image:

    --ref IMAGE        the same image for all maps
    --ref_dir DIR      the image in DIR that has the map's name
    --ref_json FILE    the image that FILE names, {"map.png": "image.jpg"}, in
                       --image_dir or in the training images of the run. The suffix of
                       an image does not matter.

Maps and references are checked before the first picture is painted. If a call is
stopped, the same call continues it.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common.checkpoint import write_atomically
from common.cli import HelpFormatter, ToolParser, number
from common.data.decode import fit, list_images, open_picture, to_float
from common.data.files import read_text
from common.data.label_maps import (
    Classes,
    check_suffixes,
    open_map,
    resized,
    scan,
    two_folders_of,
)
from common.data.layout import built_in, existing_folder, expanded
from common.errors import UserError, in_words, print_line, say
from common.images import as_picture, to_uint8
from common.translation import in_tiles

import jittor as jt
from PIL import Image
from tqdm import tqdm

from tools.runs import open_run

QUALITY = 95  # of JPEG
LARGEST_SIDE = 8192  # of --out_size
# What the pictures of a folder are painted from; it lies there until all are painted.
UNFINISHED = ".unfinished.json"


def parse_args(argv=None):
    parser = ToolParser("landscape.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder or checkpoint of a run of spade.py")
    parser.add_argument("maps", metavar="MAPS", help="folder of label maps, or one label map")
    parser.add_argument("out", metavar="OUT", help="folder of the pictures")
    parser.add_argument(
        "--out_size", type=size, metavar="WxH", help="size of the pictures (default: each map's)"
    )
    parser.add_argument(
        "--tiles", action="store_true", help="paint at that size, in tiles of the training's size"
    )
    parser.add_argument("--ref", metavar="IMAGE", help="image whose style all pictures get")
    parser.add_argument("--ref_dir", metavar="DIR", help="folder of an image for each map")
    parser.add_argument("--ref_json", metavar="FILE", help="file that names an image for each map")
    parser.add_argument(
        "--image_dir",
        metavar="DIR",
        help="folder of the images of --ref_json (default: the run's training images)",
    )
    parser.add_argument(
        "--n_outputs",
        type=number(int, at_least=1),
        default=1,
        help="pictures in random styles for each map",
    )
    parser.add_argument(
        "--batch_size",
        type=number(int, at_least=1),
        help="pictures that are painted together (default: the run's)",
    )
    parser.add_argument(
        "--seed", type=number(int, at_least=0), help="seed of random styles (default: the run's)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute"
    )
    return parser.parse_args(argv)


def size(text):
    """An argparse type: the text "512x384" as (512, 384)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(is_side(part) for part in parts):
        raise argparse.ArgumentTypeError(f"must be width x height such as 512x384, got {text!r}")
    return int(parts[0]), int(parts[1])


def is_side(text):
    return text.isdecimal() and 1 <= int(text) <= LARGEST_SIDE


# ---- the trained networks ----


class Painter:
    """A trained generator and encoder, for numpy arrays.

    Args:
        generator: the generator of spade.py, usually the averaged one.
        encoder: its encoder, likewise.
        args: the run's arguments.
    """

    def __init__(self, generator, encoder, args):
        self.generator = generator
        self.encoder = encoder
        self.args = args

    def encode(self, images):
        """The style codes (N, style_dim) of images (N, channels, H, W) in [-1, 1]."""
        means, _ = common.predict(self.encoder, images, chunk=self.args.batch_size)
        return means

    def paint(self, classes, codes):
        """Images (N, channels, H, W) of classes (N, H, W) int32 in these styles."""
        return common.predict(self.generator, classes, codes, chunk=self.args.batch_size)

    def paint_in_tiles(self, classes, codes):
        """As `paint`, for any height and width.

        The tiles are as large as the training images, and joined without seams.
        """

        def paint_tile(maps):
            return self.paint(maps[:, 0].astype(np.int32), codes)

        maps = classes[:, None].astype(np.float32)
        return in_tiles(paint_tile, maps, self.args.shape)

    def random_codes(self, n, *stream):
        """Style codes (n, style_dim) that depend on the run's seed and on `stream`."""
        rng = np.random.default_rng([self.args.seed, *stream])
        return rng.standard_normal((n, self.args.style_dim), dtype=np.float32)


def load_painter(script, args, reader):
    """The `Painter` of averaged weights, from what `open_run` returns.

    Raises:
        UserError: the checkpoint is damaged, or does not fit its own arguments.
    """
    generator, encoder, _ = script.build(args)
    averaged_G = common.EMA(generator, args.ema_decay)
    averaged_E = common.EMA(encoder, args.ema_decay)
    parts = {
        "generator": generator,
        "encoder": encoder,
        "averaged_G": averaged_G,
        "averaged_E": averaged_E,
    }
    reader.load(parts, exact=False)
    return Painter(averaged_G.module, averaged_E.module, args)


# ---- what to paint ----


@dataclass(frozen=True)
class Job:
    """One picture that is to be painted.

    Attributes:
        label_map: the file of its map.
        reference: the file of the image whose style it gets; None for a random style.
        target: the file to write.
        stream: (index of the map, index among its outputs), for a random style.
    """

    label_map: Path
    reference: Optional[Path]
    target: Path
    stream: tuple


def find_maps(source, classes):
    """The files of all label maps, each of which has been read.

    Args:
        source: a folder, or one file.
        classes: the `Classes` that the maps may hold.

    Raises:
        UserError: there is none, one cannot be read, or two have the same name.
    """
    if source.is_file():
        maps = [source]
    else:
        maps = list_images(source)
        check_suffixes(maps)
    stems = set()
    for label_map in maps:
        if label_map.stem in stems:
            raise UserError(
                f"{source} holds two maps called {label_map.stem}, which would be one picture"
            )
        stems.add(label_map.stem)
    scan(maps, classes)
    return maps


def find_references(maps, args, run_args):
    """The file of a reference image for each map, or None for a random style.

    Raises:
        UserError: one is missing, or two flags ask for different styles.
    """
    flags = [name for name in ("ref", "ref_dir", "ref_json") if getattr(args, name) is not None]
    if flags and args.n_outputs > 1:
        flags.append("n_outputs")
    if len(flags) > 1:
        raise UserError(f"--{flags[0]} and --{flags[1]} ask for different styles: leave one out")

    if args.ref is not None:
        references = [expanded(args.ref)] * len(maps)
    elif args.ref_dir is not None:
        names = {label_map.stem: label_map.stem for label_map in maps}
        references = look_up(maps, names, existing_folder(args.ref_dir))
    elif args.ref_json is not None:
        names = read_names(maps, expanded(args.ref_json))
        references = look_up(maps, names, image_folder(args, run_args))
    else:
        return [None] * len(maps)

    missing = [i for i, reference in enumerate(references) if not reference.is_file()]
    if missing:
        first = missing[0]
        message = f"{references[first]}, the reference of {maps[first].name}, is not there"
        if len(missing) > 1:
            message += f"; {len(missing)} of {len(maps)} references are missing"
        raise UserError(message)
    return references


def look_up(maps, names, folder):
    """The image in a folder for each map; of a missing one, where it should be.

    Args:
        names: {map's name: image's name}, without suffixes.

    Raises:
        UserError: several images have the name of a reference.
    """
    images = defaultdict(list)
    for image in list_images(folder):
        images[image.stem].append(image)
    references = []
    for label_map in maps:
        name = names[label_map.stem]
        found = images[name] or [folder / name]
        if len(found) > 1:
            raise UserError(
                f"the reference of {label_map.name} may be {found[0]} or {found[1]}: "
                "one of them must go"
            )
        references.append(found[0])
    return references


def read_names(maps, path):
    """{map's name: image's name} of --ref_json, without suffixes.

    Raises:
        UserError: it is not such a file, or has no image for a map.
    """
    names = {}
    try:
        for label_map, image in json.loads(read_text(path, may_be_pipe=True)).items():
            names[Path(label_map).stem] = Path(image).stem
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f'--ref_json {path} is no JSON file such as {{"map.png": "image.jpg"}} ({error})'
        ) from error
    absent = [label_map.name for label_map in maps if label_map.stem not in names]
    if absent:
        raise UserError(
            f"--ref_json {path} has no image for {absent[0]}; "
            f"{len(absent)} of {len(maps)} maps have none"
        )
    return names


def image_folder(args, run_args):
    """The folder of the images that --ref_json names."""
    folder = args.image_dir or run_args.image_dir
    if folder is not None:
        return existing_folder(folder)
    folders = None
    if built_in(run_args.data_dir) is None:
        folders = two_folders_of(existing_folder(run_args.data_dir), "train")
    if folders is None:
        raise UserError("--ref_json needs --image_dir, the folder of the images that it names")
    return folders[1]


def list_jobs(maps, references, out_dir, n_outputs):
    jobs = []
    for i, (label_map, reference) in enumerate(zip(maps, references)):
        for k in range(n_outputs):
            name = label_map.stem if n_outputs == 1 else f"{label_map.stem}_{k}"
            jobs.append(Job(label_map, reference, out_dir / f"{name}.jpg", (i, k)))
    return jobs


# ---- painting ----


def paint_folder(args):
    """Paints all maps, except those that an earlier, stopped call has painted.

    Raises:
        UserError: the run, a map or a reference cannot be used; nothing is painted.
    """
    flags = ["--device", args.device]
    if args.batch_size is not None:
        flags += ["--batch_size", str(args.batch_size)]
    if args.seed is not None:
        flags += ["--seed", str(args.seed)]
    script, run_args, reader = open_run(args.run, "spade", flags)
    jt.flags.use_cuda = common.choose_device(args.device)

    source = expanded(args.maps)
    out_dir = expanded(args.out)
    # realpath: in links that lead in a circle, Path.resolve is a RuntimeError.
    real_out = Path(os.path.realpath(out_dir))
    if Path(os.path.realpath(source)) in (real_out, *real_out.parents):
        raise UserError(f"{out_dir} lies within the maps {source}: choose another folder")
    maps = find_maps(source, Classes(run_args.n_classes, run_args.ignore_label))
    references = find_references(maps, args, run_args)
    painter = load_painter(script, run_args, reader)

    out_dir.mkdir(parents=True, exist_ok=True)
    jobs = list_jobs(maps, references, out_dir, args.n_outputs)
    if continues(out_dir, args, run_args):
        n_jobs = len(jobs)
        jobs = [job for job in jobs if not job.target.is_file()]
        say(f"{n_jobs - len(jobs):,} pictures are there already.")
    paint_jobs(jobs, painter, args)
    (out_dir / UNFINISHED).unlink()
    say(f"Painted {len(maps):,} maps into {out_dir}.")


def continues(out_dir, args, run_args):
    """Whether this call continues a stopped one; the folder notes what it is painting.

    It does if run, maps, styles and sizes are the same.
    """
    path = Path(run_args.resume)
    call = {
        "checkpoint": str(path.resolve()),
        "written": path.stat().st_mtime_ns,
        "seed": run_args.seed,
    }
    for name in ("maps", "out_size", "tiles", "ref", "ref_dir", "ref_json", "image_dir"):
        call[name] = getattr(args, name)
    call["n_outputs"] = args.n_outputs
    text = json.dumps(call).encode()
    note = out_dir / UNFINISHED
    is_same = note.is_file() and note.read_bytes() == text
    write_atomically(note, lambda file: file.write(text))
    return is_same


def paint_jobs(jobs, painter, args):
    """Paints the jobs in batches, and shows the progress."""
    batch_size = painter.args.batch_size
    with tqdm(total=len(jobs), desc="painting", disable=None) as bar:
        for first in range(0, len(jobs), batch_size):
            batch = jobs[first : first + batch_size]
            paint_batch(batch, painter, args)
            bar.update(len(batch))
            n_done = first + len(batch)
            if bar.disable and n_done // 100 > first // 100:  # no terminal: a line for each 100
                say(f"{n_done:,} of {len(jobs):,} pictures are painted.")


def paint_batch(jobs, painter, args):
    """Paints the jobs of a batch, and writes the pictures."""
    run_args = painter.args
    classes = Classes(run_args.n_classes, run_args.ignore_label)
    maps = []
    codes = []
    sizes = []
    for job in jobs:
        labels = open_map(job.label_map)
        height, width = labels.shape
        if args.out_size is not None:
            width, height = args.out_size
        shape = (height, width) if args.tiles else run_args.shape
        maps.append(classes.of(resized(labels, shape)))
        codes.append(style_of(job, painter))
        sizes.append((width, height))

    if args.tiles:
        images = []
        for one_map, code in zip(maps, codes):
            images.append(painter.paint_in_tiles(one_map[None], code[None])[0])
    else:
        images = painter.paint(np.stack(maps), np.stack(codes))
    for job, image, picture_size in zip(jobs, images, sizes):
        write_jpeg(image, picture_size, job.target)


def style_of(job, painter):
    """The style code (style_dim,) of a job."""
    if job.reference is None:
        return painter.random_codes(1, 5, *job.stream)[0]
    shape = painter.args.shape
    pixels = fit(open_picture(job.reference, painter.args.channels, at_least=shape), shape)
    return painter.encode(to_float(pixels[None]))[0]


def write_jpeg(image, picture_size, path):
    """Writes an image (C, H, W) in [-1, 1] at a size (width, height)."""
    picture = as_picture(to_uint8(image[None])[0]).resize(picture_size, Image.BICUBIC)
    write_atomically(path, lambda file: picture.save(file, "JPEG", quality=QUALITY))


def main(argv=None):
    args = parse_args(argv)
    try:
        paint_folder(args)
    except (UserError, OSError, MemoryError) as error:
        print_line("stderr", f"landscape.py: error: {in_words(error)}")
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        print("\nStopped; the same call continues.", file=sys.stderr, flush=True)
        raise SystemExit(130) from stop


if __name__ == "__main__":
    main()
