"""The command line that all scripts share, and what --resume and --init_from take from a checkpoint."""

from common import checkpoint
from common.errors import UserError, say

import argparse
import math
import os
import sys
from pathlib import Path

# What a call asks for; a run is not described by it, so it is neither stored nor restored by --resume.
OF_THE_CALL = {
    "resume",
    "init_from",
    "sample_only",
    "n_samples",
    "samples_dir",
    "input",
    "device",
    "out_dir",
}
OF_THE_CALL |= {"tile", "export_pkl", "download", "paper", "describe"}


def number(kind, at_least=None, above=None, below=None, at_most=None):
    """An argparse type for an int or a float within limits; the error says what would be right."""
    limits = [("at least", at_least), ("above", above), ("below", below), ("at most", at_most)]
    wanted = " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)
    name = {int: "a whole number", float: "a number"}[kind]

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        fits = (at_least is None or value >= at_least) and (above is None or value > above)
        fits = fits and (below is None or value < below) and (at_most is None or value <= at_most)
        if not math.isfinite(value) or not fits:
            raise argparse.ArgumentTypeError(
                f"must be {name} {wanted}".rstrip() + f", got {text!r}"
            )
        return value

    return parse


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and adds each flag's default."""


class Parser(argparse.ArgumentParser):
    """The command line that all scripts share, to which a script adds its own flags.

    A script sets the defaults of n_epochs, batch_size, lr, b1, b2, img_size, channels, sample_interval,
    checkpoint_interval and log_interval with `set_defaults`.

    Args:
        script: the script's name without `.py`.
        doc: its docstring, shown by --help.
        paper: {flag: value} of the published setting, which --paper selects.
        architecture: the flags that fix the networks' shapes. --resume and --init_from take them from the
            checkpoint, and one that contradicts it is an error.
        starts_from: "noise" offers --n_samples, --samples_dir and --download; "images" offers --input, --img_height and
            --img_width, and the result has `shape`, (height, width).
        of_the_call: this script's flags that are neither stored nor restored (what to draw, say).
        uses_adam: offers --b1 and --b2.
    """

    def __init__(
        self, script, doc, paper, architecture, starts_from="noise", of_the_call=(), uses_adam=True
    ):
        super().__init__(
            f"{script}.py", description=doc, formatter_class=HelpFormatter, allow_abbrev=False
        )
        self.script, self.paper, self.architecture = script, paper, set(architecture)
        self.of_the_call = OF_THE_CALL | set(of_the_call)
        self.source = ""  # of the arguments that are being parsed, where it is not the command line
        count, rate, beta = (
            number(int, at_least=1),
            number(float, above=0),
            number(float, at_least=0, below=1),
        )
        add = self.add_argument
        add("--n_epochs", type=count, help="total epochs of the run, also when it is resumed")
        add("--batch_size", type=count, help="images in a step, over all processes")
        add("--lr", type=rate, help="learning rate")
        if uses_adam:
            add("--b1", type=beta, help="Adam's decay of the mean of gradients")
            add("--b2", type=beta, help="Adam's decay of the mean of squared gradients")
        add(
            "--img_size",
            type=number(int, at_least=1, at_most=4096),
            help="height and width of the images",
        )
        add("--channels", type=int, choices=(1, 3), help="1 for grey images, 3 for RGB")
        add("--data_dir", help="your own data; without it the built-in data is used")
        add(
            "--out_dir",
            help=f"where the run writes; results/{script} unless it is resumed elsewhere",
        )
        add("--sample_interval", type=count, help="steps between two pictures of samples")
        add(
            "--checkpoint_interval",
            type=count,
            help="epochs between two checkpoints; one is due every ten minutes",
        )
        add("--log_interval", type=count, help="steps between two lines of losses.csv")
        add(
            "--keep",
            type=number(int, at_least=0),
            default=0,
            help="so many numbered checkpoints are kept too",
        )
        add("--resume", metavar="PATH", help="a checkpoint, or the out_dir of a run, to go on from")
        add(
            "--init_from",
            metavar="PATH",
            help="a checkpoint whose weights a new run starts from (fine-tuning)",
        )
        add(
            "--sample_only", action="store_true", help="with --resume: make pictures, train nothing"
        )
        add(
            "--seed",
            type=number(int, at_least=0),
            default=0,
            help="of weights, noise, dropout and data order",
        )
        add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
        add(
            "--paper",
            action="store_true",
            help="the published setting, instead of this script's defaults",
        )
        add(
            "--describe",
            action="store_true",
            help="print the networks' layers, shapes and parameters, and end",
        )
        add(
            "--export_pkl",
            action="store_true",
            help="also write what generates in Jittor's own format, *_last.pkl",
        )
        if starts_from == "noise":
            add(
                "--n_samples",
                type=number(int, at_least=0),
                default=0,
                help="write so many samples to samples.npz",
            )
            add(
                "--samples_dir",
                metavar="DIR",
                help="write the samples of --n_samples as PNG files too",
            )
            add(
                "--download",
                action="store_true",
                help="fetch full MNIST (11 MB) into Jittor's data set folder",
            )
        else:
            self.architecture |= {"img_height", "img_width"}
            add(
                "--img_height",
                type=number(int, at_least=1, at_most=4096),
                help="where it is not --img_size",
            )
            add(
                "--img_width",
                type=number(int, at_least=1, at_most=4096),
                help="where it is not --img_size",
            )
            add(
                "--input",
                metavar="PATH",
                help="with --sample_only: a picture, or a folder of them, to translate",
            )

    def add_decay(self, decay_epoch):
        """Offers --decay_epoch and --decay_until, of a rate that falls linearly."""
        count = number(int, at_least=0)
        self.add_argument(
            "--decay_epoch", type=count, default=decay_epoch, help="epochs before the rate falls"
        )
        self.add_argument(
            "--decay_until",
            type=count,
            help="epoch with the last step down; n_epochs, unless given",
        )

    def add_augmentation(self):
        """Offers --load_size, --no_crop and --no_flip, of training images in folders."""
        add = self.add_argument
        size = number(int, at_least=1, at_most=8192)
        add(
            "--load_size",
            type=size,
            help="shorter side before the random crop; 286 for an image of 256, and so on",
        )
        add("--no_crop", action="store_true", help="without random crops of the training images")
        add("--no_flip", action="store_true", help="without mirroring every other training image")

    def error(self, message):
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: error: {self.source}{message}\n")

    # ---- checks that several scripts need ----

    def one_of(self, args, name, values):
        """Refuses a size that is none of `values`, and names the nearest."""
        value = getattr(args, name)
        if value not in values:
            nearest = min(values, key=lambda v: abs(v - value))
            listed = ", ".join(map(str, values[:-1])) + f" or {values[-1]}"
            self.error(f"--{name} {value}: it must be {listed}; nearest is {nearest}")

    def multiple_of(self, args, name, factor, at_least):
        """Refuses a size that `factor` does not divide, or that is too small; one that is not given passes."""
        value = getattr(args, name)
        if value is not None and (value % factor or value < at_least):
            below = max(value // factor * factor, at_least)
            self.error(
                f"--{name} {value}: it must be a multiple of {factor}, such as {below} or {below + factor}"
            )

    def shape_is_multiple_of(self, args, factor, at_least):
        """Refuses a height or a width that `factor` does not divide, or that is too small."""
        for name in ("img_size", "img_height", "img_width"):
            self.multiple_of(args, name, factor, at_least)

    def add_tile(self):
        """Offers --tile."""
        size = number(int, at_least=1, at_most=4096)
        self.add_argument(
            "--tile",
            type=size,
            help="translate --input at its own size, in squares of so many pixels",
        )

    def check_crops(self, args):
        if getattr(args, "load_size", None) is None:
            return
        if args.no_crop:
            self.error("--load_size is the size before the random crop: leave it or --no_crop out")
        if args.load_size < min(args.shape):
            self.error(
                f"--load_size {args.load_size}: it must be at least {min(args.shape)}, the side to cut out of it"
            )

    def check_call(self, args):
        if args.sample_only and not args.resume:
            self.error("--sample_only needs --resume with the checkpoint to sample from")
        if args.resume and (args.paper or args.init_from):
            other = "--paper" if args.paper else "--init_from"
            self.error(
                f"--resume goes on with a run as it is, and {other} begins one: leave one of the two out"
            )
        if getattr(args, "input", None) is not None and not args.sample_only:
            self.error(
                "--input needs --sample_only and --resume with the checkpoint that translates"
            )
        if getattr(args, "tile", None) is not None and args.input is None:
            self.error("--tile needs --input, the pictures to translate in tiles")
        if getattr(args, "samples_dir", None) and not args.n_samples:
            self.error("--samples_dir needs --n_samples, the number of samples to write")

    # ---- parsing ----

    def parse(self, argv=None):
        """The arguments; with --resume, those of the checkpoint, except where the command line says otherwise."""
        argv = list(sys.argv[1:] if argv is None else argv)
        if "--paper" in argv:
            self.set_defaults(**self.paper)
        args = self.parse_args(argv)
        self.check_call(args)
        args.script = self.script
        if args.resume or args.init_from:
            args = self.merge_stored(argv, args)
        if args.out_dir is None:
            args.out_dir = (
                str(Path(args.resume).parent) if args.resume else f"results/{self.script}"
            )
        args.out_dir = os.path.expanduser(args.out_dir)
        if "input" in args:
            args.shape = (args.img_height or args.img_size, args.img_width or args.img_size)
        self.check_crops(args)
        self.settle_decay(args)
        self.settle_channels(args, argv)
        kept = {a.dest for a in self._actions} - self.of_the_call - {"help"}
        args.stored = {name: value for name, value in vars(args).items() if name in kept}
        return args

    def settle_channels(self, args, argv):
        """--stacked makes images of three channels, which no flag need say; inputs and outputs have --channels."""
        for name in ("input_channels", "output_channels"):
            if name in args and getattr(args, name) is None:
                setattr(args, name, args.channels)
        if getattr(args, "stacked", False):
            if "channels" in self.given(argv) and args.channels != 3:
                self.error("--stacked makes images of 3 channels: leave --channels out")
            args.channels = 3

    def settle_decay(self, args):
        """A run that is resumed for more epochs keeps the schedule of its first call: a fallen rate never jumps up."""
        if "decay_until" not in args:
            return
        if args.decay_until is None or (
            args.resume and args.decay_until <= args.decay_epoch
        ):  # nothing fell yet
            args.decay_until = args.n_epochs
        elif args.resume and args.n_epochs > args.decay_until > args.decay_epoch:
            say(
                f"The learning rate has fallen until epoch {args.decay_until} and stays there; "
                f"--decay_until {args.n_epochs} would spread its fall over all epochs."
            )

    def merge_stored(self, argv, args):
        try:
            path = checkpoint.find(args.resume or args.init_from)
            meta = checkpoint.Reader(path).meta
        except UserError as error:
            self.error(str(error))
        if meta["script"] != self.script:
            self.error(f"{path} was written by {meta['script']}.py, not by {self.prog}")
        given = self.given(argv)
        for name in sorted(self.architecture & given & set(meta["args"])):
            if meta["args"][name] != getattr(args, name):
                self.error(
                    f"--{name} {getattr(args, name)} contradicts {path}, which was trained with {name} "
                    f"{meta['args'][name]}; leave the flag out, or train anew without the checkpoint"
                )
        restored = {k: v for k, v in meta["args"].items() if k not in given | self.of_the_call}
        if args.init_from:
            restored = {k: v for k, v in restored.items() if k in self.architecture}
        # The stored values pass through the same checks as typed ones: the file may come from a stranger.
        stored = self.as_argv(restored, path)
        resumes, self.source = bool(args.resume), f"{path}: "
        args = self.parse_args(stored + argv)
        self.source, args.script = "", self.script
        setattr(args, "resume" if resumes else "init_from", str(path))
        return args

    def given(self, argv):
        """Names of the flags that the command line itself sets."""
        defaults = {action.dest: action.default for action in self._actions}
        saved = dict(self._defaults)
        try:
            self._defaults.clear()
            for action in self._actions:
                action.default = argparse.SUPPRESS
            return set(vars(self.parse_args(argv)))
        finally:
            self._defaults.update(saved)
            for action in self._actions:
                action.default = defaults[action.dest]

    def as_argv(self, stored, path):
        known = {action.dest: action for action in self._actions}
        argv = []
        for name, value in stored.items():
            if name not in known and value is False:
                continue  # a switch of an earlier version that was not set
            if name not in known or not isinstance(
                value, (str, int, float, bool, list, type(None))
            ):
                self.error(f"{path} holds a setting that this version does not know: {name}")
            if known[name].nargs == 0:
                argv += [f"--{name}"] if value is True else []
            elif isinstance(value, list):
                argv += [f"--{name}", *map(str, value)]
            elif value is not None:
                argv.append(f"--{name}={value}")
        return argv
