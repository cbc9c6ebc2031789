"""The command line of all scripts, and what --resume and --init_from restore."""

from common import checkpoint
from common.data import BUILT_IN, faces
from common.errors import UserError, print_line, say

import argparse
import math
import os
import sys
from pathlib import Path

from jittor_setup import device_problem

# These flags describe one call, not the run: they are neither stored nor restored.
OF_THE_CALL = {
    "device",
    "download",
    "export_pkl",
    "init_from",
    "input",
    "mask",
    "n_samples",
    "out_dir",
    "overwrite",
    "paper",
    "resume",
    "sample_only",
    "samples_dir",
    "tile",
}
# Flags that name a file or a folder, in which "~" stands for a home folder.
PATHS = ("data_dir", "init_from", "input", "mask", "out_dir", "resume", "samples_dir", "vgg")
MOST_VALUES = 1000  # of a stored list, such as texts that are drawn
LARGEST_SIZE = 4096  # of images and layers: a typing error must not ask for all memory


def number(kind, at_least=None, above=None, below=None, at_most=None):
    """An argparse type for an int or a float within limits.

    Its error says what would be right.
    """
    limits = [("at least", at_least), ("above", above), ("below", below), ("at most", at_most)]
    wanted = " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)
    name = {int: "a whole number", float: "a number"}[kind]

    def fits(value):
        return (
            math.isfinite(value)
            and (kind is float or abs(value) < checkpoint.LARGEST_NUMBER)
            and (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (below is None or value < below)
            and (at_most is None or value <= at_most)
        )

    def parse(text):
        try:
            value = kind(text)
            math.isfinite(value)  # not an int of 400 digits
        except (ValueError, OverflowError):
            value = math.nan
        if not fits(value):
            message = f"must be {name} {wanted}".rstrip()
            raise argparse.ArgumentTypeError(f"{message}, got {text!r}")
        return value

    return parse


def with_limits(options, at_most=None):
    """The keyword arguments of `add_argument`, with its limits turned into a type.

    Without limits of its own, an int is at least 1 and a float at least 0.

    Args:
        at_most: of an int without such a limit.
    """
    options = dict(options)
    limits = {}
    for name in ("at_least", "above", "below", "at_most"):
        if name in options:
            limits[name] = options.pop(name)
    if options.get("type") in (int, float) and "choices" not in options:
        if "at_least" not in limits and "above" not in limits:
            limits["at_least"] = 1 if options["type"] is int else 0
        if at_most is not None and options["type"] is int:
            limits.setdefault("at_most", at_most)
        options["type"] = number(options["type"], **limits)
    return options


def stored(args):
    """{flag: value} of what a run stores in its checkpoint and in config.json."""
    return {name: getattr(args, name) for name in args.stored_names}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and adds each flag's default."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=28)

    def _get_help_string(self, action):
        if "default" in (action.help or ""):
            return action.help
        if action.dest == "data_dir" and action.default is None:
            return f"{action.help} (default: digits)"
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class ToolParser(argparse.ArgumentParser):
    """A tool's command line: an error is one line, and an empty value is an error."""

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            if isinstance(value, str) and not value.strip():
                self.error(f"argument {name}: the value is empty")
        return parsed

    def error(self, message):
        """Prints the error in one line, without argparse's usage text."""
        print_line("stderr", f"{self.prog}: error: {message}")
        raise SystemExit(2)


class Parser(argparse.ArgumentParser):
    """A script's command line: the flags of every run, and those that the script adds.

    A script calls

        add_adam, add_sampling, add_input, ...   for groups of shared flags
        add_architecture                         for flags that fix its networks
        add_argument                             for all its other flags

    and `set_defaults` for the defaults of shared flags. The last two take argparse's
    arguments and the limits `at_least`, `above`, `below` and `at_most`. Without them an
    int is at least 1, a float at least 0, and an architecture's int at most 4096.
    `at_least=None` takes any number.
    --resume and --init_from take the architecture from the checkpoint; a flag that
    contradicts it is an error.

    Args:
        file: the script's `__file__`; its name is that of the run's default folder.
        doc: the script's docstring, shown by --help.
        paper: {flag: value} of the published setting, which --paper selects.
    """

    def __init__(self, file, doc, paper):
        self.script = Path(file).stem
        super().__init__(
            f"{self.script}.py",
            description=doc,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.paper = paper
        self.architecture = set()
        self.of_the_call = set(OF_THE_CALL)
        self.source = ""  # of the values that are checked, if not the command line
        self.architecture_group = self.add_argument_group(
            "architecture (stored with the weights; --resume takes it from the checkpoint)"
        )
        self.method_group = self.add_argument_group("method")
        self.add_training_flags()
        self.add_output_flags()
        self.add_resume_flags()

    # ---- the flags of every run ----

    def add_training_flags(self):
        group = self.add_argument_group("training")
        count = number(int, at_least=1)
        group.add_argument("-h", "--help", action="help", help="show this text and exit")
        group.add_argument(
            "--data_dir", help="your own data, or a built-in set: digits, faces, stacked"
        )
        group.add_argument(
            "--n_epochs", type=count, help="length of the whole run, including resumed parts"
        )
        group.add_argument(
            "--n_images", type=count, help="length of the run in images, instead of --n_epochs"
        )
        group.add_argument("--batch_size", type=count, help="images per step, over all processes")
        group.add_argument("--lr", type=number(float, above=0), help="learning rate")
        group.add_argument(
            "--seed",
            type=number(int, at_least=0),
            default=0,
            help="seed of weights, noise, dropout and data order",
        )
        group.add_argument(
            "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute"
        )
        group.add_argument(
            "--paper", action="store_true", help="use the published setting as defaults"
        )

    def add_output_flags(self):
        group = self.add_argument_group("output")
        count = number(int, at_least=1)
        group.add_argument(
            "--out_dir",
            help=f"output folder (default: results/{self.script}, or the folder that is resumed)",
        )
        group.add_argument(
            "--overwrite", action="store_true", help="replace the run that --out_dir holds"
        )
        group.add_argument(
            "--sample_interval", type=count, help="steps between two pictures of samples"
        )
        group.add_argument(
            "--log_interval", type=count, help="steps between two lines of losses.csv"
        )
        group.add_argument(
            "--checkpoint_interval",
            type=count,
            help="epochs between two checkpoints; long epochs also save every 10 minutes",
        )
        group.add_argument(
            "--keep",
            type=number(int, at_least=0),
            default=0,
            help="also keep the N newest numbered checkpoints",
        )
        group.add_argument(
            "--export_pkl",
            action="store_true",
            help="also write the networks in Jittor's own format, NAME_last.pkl",
        )
        self.set_defaults(sample_interval=500, log_interval=50, checkpoint_interval=5)

    def add_resume_flags(self):
        group = self.add_argument_group("checkpoints")
        group.add_argument(
            "--resume", metavar="PATH", help="continue from a checkpoint, or a run's folder"
        )
        group.add_argument(
            "--init_from",
            metavar="PATH",
            help="start a new run from a checkpoint's weights (fine-tuning)",
        )
        group.add_argument(
            "--sample_only", action="store_true", help="with --resume: draw, do not train"
        )

    # ---- groups of flags that a script asks for ----

    def add_adam(self, b1, b2):
        """Adds --b1 and --b2, with these defaults."""
        group = self.add_argument_group("Adam")
        beta = number(float, at_least=0, below=1)
        group.add_argument("--b1", type=beta, default=b1, help="decay rate of the first moment")
        group.add_argument("--b2", type=beta, default=b2, help="decay rate of the second moment")

    def add_sampling(self):
        """Adds --n_samples, --samples_dir and --download, for generators of noise."""
        group = self.add_argument_group("samples")
        group.add_argument(
            "--n_samples",
            type=number(int, at_least=0),
            default=0,
            help="number of samples to write to samples.npz",
        )
        group.add_argument(
            "--samples_dir", metavar="DIR", help="also write these samples as PNG files"
        )
        group.add_argument(
            "--download",
            action="store_true",
            help="download full MNIST (11 MB) into Jittor's data folder",
        )

    def add_images(self, img_size, channels):
        """Adds --img_size, --img_height, --img_width and --channels.

        The parsed arguments have `shape`, (height, width).
        """
        group = self.architecture_group
        size = number(int, at_least=1, at_most=LARGEST_SIZE)
        group.add_argument(
            "--img_size", type=size, default=img_size, help="height and width of the images"
        )
        group.add_argument("--img_height", type=size, help="height, if it is not --img_size")
        group.add_argument("--img_width", type=size, help="width, if it is not --img_size")
        group.add_argument(
            "--channels", type=int, choices=(1, 3), default=channels, help="1 for grey, 3 for RGB"
        )
        self.architecture.update(("img_size", "img_height", "img_width", "channels"))

    def add_input(self, tile=True, mask=False):
        """Adds --input, for networks that translate images; --tile, --mask if asked."""
        group = self.add_argument_group("translation")
        group.add_argument(
            "--input",
            metavar="PATH",
            help="with --sample_only: a picture, or a folder of pictures, to translate",
        )
        if tile:
            group.add_argument(
                "--tile",
                type=number(int, at_least=1, at_most=LARGEST_SIZE),
                help="translate --input at its own size, in square tiles of this side",
            )
        if mask:
            group.add_argument(
                "--mask",
                metavar="PATH",
                help="where --input has its hole: a picture that is white there, or a folder of "
                "them (default: where --input is transparent)",
            )

    def add_decay(self, decay_epoch):
        """Adds --decay_epoch and --decay_until, for `common.linear_decay`."""
        group = self.add_argument_group("learning-rate decay")
        count = number(int, at_least=0)
        group.add_argument(
            "--decay_epoch",
            type=count,
            default=decay_epoch,
            help="epochs at the full rate, before the linear decay",
        )
        group.add_argument(
            "--decay_until", type=count, help="last epoch of the decay (default: --n_epochs)"
        )

    def add_augmentation(self):
        """Adds --load_size, --no_crop and --no_flip, for training images in folders."""
        group = self.add_argument_group("augmentation of images in folders")
        group.add_argument(
            "--load_size",
            type=number(int, at_least=1, at_most=2 * LARGEST_SIZE),
            help="shorter side before the random crop (default: 286 / 256 of the image size)",
        )
        group.add_argument("--no_crop", action="store_true", help="no random crops")
        group.add_argument("--no_flip", action="store_true", help="no random mirroring")

    # ---- a script's own flags ----

    def add_argument(self, *names, stored=True, **options):
        """Adds a flag of the method.

        Args:
            stored: False for a flag of one call, such as what to draw: a checkpoint
                does not store it.
            options: as argparse's, and the limits of numbers (see the class).
        """
        action = self.method_group.add_argument(*names, **with_limits(options))
        if not stored:
            self.of_the_call.add(action.dest)
        return action

    def add_architecture(self, *names, **options):
        """Adds a flag that fixes the networks, and is stored with their weights."""
        options = with_limits(options, at_most=LARGEST_SIZE)
        action = self.architecture_group.add_argument(*names, **options)
        self.architecture.add(action.dest)
        return action

    def error(self, message):
        """Prints the error in one line, without argparse's usage text."""
        print_line("stderr", f"{self.prog}: error: {self.source}{message}")
        raise SystemExit(2)

    # ---- checks that several scripts need ----

    def multiple_of(self, args, name, factor, at_least):
        """Refuses a size that is too small or no multiple of `factor`; None passes."""
        value = getattr(args, name)
        if value is not None and (value % factor or value < at_least):
            below = max(value // factor * factor, at_least)
            self.error(
                f"--{name} {value}: it must be a multiple of {factor}, "
                f"such as {below} or {below + factor}"
            )

    def shape_is_multiple_of(self, args, factor, at_least):
        """Refuses a height or width that is too small or no multiple of `factor`."""
        for name in ("img_size", "img_height", "img_width"):
            self.multiple_of(args, name, factor, at_least)

    def check_call(self, args):
        """Refuses flags that need another flag, or exclude each other."""
        if args.sample_only and not args.resume:
            self.error("--sample_only needs --resume with the checkpoint to sample from")
        if args.sample_only and args.overwrite:
            self.error("--overwrite starts a training, and --sample_only draws without one")
        if args.resume and (args.paper or args.init_from):
            other = "--paper" if args.paper else "--init_from"
            self.error(
                f"--resume continues a run as it is, and {other} starts one: use one of them"
            )
        if getattr(args, "input", None) is not None and not args.sample_only:
            self.error("--input needs --sample_only and --resume with the checkpoint to use")
        if getattr(args, "tile", None) is not None and args.input is None:
            self.error("--tile needs --input, the pictures to translate in tiles")
        if getattr(args, "mask", None) is not None and args.input is None:
            self.error("--mask needs --input, the pictures whose holes it shows")
        if getattr(args, "samples_dir", None) and not args.n_samples:
            self.error("--samples_dir needs --n_samples, the number of samples to write")
        problem = device_problem(args.device)
        if problem:
            self.error(problem)

    def check_texts(self, argv, args):
        """Refuses empty values, and home folders of users that do not exist.

        An empty value is mostly a variable of a shell script that is not set. Without
        this check, `--resume "$RUN"` would start from scratch.
        """
        for name in sorted(self.given(argv)):
            value = getattr(args, name)
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and not text.strip() for text in texts):
                self.error(f"argument --{name}: the value is empty")
            if name in PATHS and os.path.expanduser(value).startswith("~"):
                self.error(f"--{name} {value}: there is no such home folder (a name: ./{value})")

    def check_crops(self, args):
        if getattr(args, "load_size", None) is None:
            return
        if args.no_crop:
            self.error("--load_size is the size before the random crop: drop it or --no_crop")
        if args.load_size < min(args.shape):
            self.error(
                f"--load_size {args.load_size}: it must be at least {min(args.shape)}, "
                "the side of the crop"
            )

    # ---- parsing ----

    def parse(self, argv=None):
        """The arguments of a call.

        With --resume they are those of the checkpoint, except where the command line
        says otherwise; --init_from takes the architecture alone.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        if "--paper" in argv:
            self.set_defaults(**self.paper)
        args = self.parse_args(argv)
        self.check_texts(argv, args)
        self.check_call(args)
        if args.resume or args.init_from:
            args = self.merge_stored(argv, args)
        given = self.given(argv)
        if "n_epochs" in given and "n_images" not in given:
            args.n_images = None  # that of --paper or of the checkpoint
        args.script = self.script
        if args.out_dir is None and args.resume:
            args.out_dir = str(Path(args.resume).parent)
        elif args.out_dir is None:
            args.out_dir = f"results/{self.script}"
        args.out_dir = os.path.expanduser(args.out_dir)
        self.settle_built_in(args, argv)
        if "img_height" in args:
            height = args.img_height or args.img_size
            width = args.img_width or args.img_size
            args.shape = (height, width)
        elif "img_size" in args:
            args.shape = (args.img_size, args.img_size)
        self.check_crops(args)
        self.settle_decay(args)
        kept = {action.dest for action in self._actions} - self.of_the_call - {"help"}
        args.stored_names = sorted(kept)
        return args

    def settle_built_in(self, args, argv):
        """Sets what a built-in set decides and no flag says.

        That is the number of its channels and classes, and a size at which it can be
        drawn. A checkpoint has decided it already.
        """
        if args.data_dir not in BUILT_IN:
            return
        given = self.given(argv)
        if args.data_dir == "stacked" and "channels" in args:
            if "channels" in given and args.channels != 3:
                self.error(f"--data_dir {args.data_dir} has 3 channels: drop --channels")
            args.channels = 3
        if args.data_dir != "faces" or args.resume or args.init_from:
            return
        if "channels" in args and "channels" not in given:
            args.channels = 3
        if "img_size" in args and "img_size" not in given and args.img_size % faces.SIDE:
            args.img_size = 2 * faces.SIDE
        # That of spade.py is None: it finds its classes in its maps.
        if getattr(args, "n_classes", None) is not None and "n_classes" not in given:
            args.n_classes = len(faces.HAIR)

    def settle_decay(self, args):
        """Keeps the first call's schedule when a run is resumed for more epochs.

        Otherwise a learning rate that has fallen would jump up again.
        """
        if "decay_until" not in args:
            return
        nothing_fell = args.resume and args.decay_until and args.decay_until <= args.decay_epoch
        if args.decay_until is None or nothing_fell:
            args.decay_until = args.n_epochs
        elif args.resume and args.n_epochs > args.decay_until > args.decay_epoch:
            say(
                f"The learning rate has fallen until epoch {args.decay_until} and stays there; "
                f"--decay_until {args.n_epochs} would spread its fall over all epochs."
            )

    # ---- values from a checkpoint ----

    def merge_stored(self, argv, args):
        """The arguments, with stored values where the command line has none."""
        try:
            path = checkpoint.find(args.resume or args.init_from)
            meta = checkpoint.Reader(path).meta
        except UserError as error:
            self.error(str(error))
        if meta["script"] != self.script:
            self.error(f"{path} was written by {meta['script']}.py, not by {self.prog}")

        given = self.given(argv)
        stored = meta["args"]
        for name in sorted(self.architecture & given & set(stored)):
            if stored[name] != getattr(args, name):
                self.error(
                    f"--{name} {getattr(args, name)} contradicts {path}, which was trained with "
                    f"{name} {stored[name]}; drop the flag, or train from scratch"
                )
        restored = argparse.Namespace()
        known = {action.dest for action in self._actions}
        for name, value in stored.items():
            if value is None and name not in known:
                continue  # a flag of an earlier version, which that run did not use
            wanted = name not in self.of_the_call
            if args.init_from:
                wanted = name in self.architecture
            if wanted and name not in given:
                setattr(restored, name, self.checked(name, value, path))
        merged = self.parse_args(argv, restored)
        setattr(merged, "resume" if args.resume else "init_from", str(path))
        if args.sample_only:
            self.check_lists(merged, path)
        return merged

    def check_lists(self, args, path):
        """Refuses a list without a value, if nothing is trained.

        A training sets it to what the data have, and its checkpoint stores that.
        """
        for action in self._actions:
            is_stored = action.dest not in self.of_the_call
            is_list = action.nargs in ("+", "*")
            if is_stored and is_list and getattr(args, action.dest) is None:
                self.error(f"{path} has no value of --{action.dest}")

    def given(self, argv):
        """The names of the flags that the command line itself sets."""
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

    def checked(self, name, value, path):
        """A stored value, checked as a typed one is: the file may be a stranger's.

        It never passes through the command line, so that no text in it becomes a flag.
        """
        actions = {action.dest: action for action in self._actions}
        if name not in actions or name == "help":
            self.error(f"{path} holds a setting that this version does not know: {name}")
        action = actions[name]
        self.source = f"{path}: "
        if action.nargs == 0:
            if not isinstance(value, bool):
                self.error(f"argument --{name}: must be true or false, got {value!r}")
        elif isinstance(value, list):
            if action.nargs not in ("+", "*"):
                self.error(f"argument --{name}: must be one value, got {value!r}")
            if action.nargs == "+" and not value:
                self.error(f"argument --{name}: must be a list of one value or more, got []")
            if len(value) > MOST_VALUES:
                self.error(
                    f"argument --{name}: holds {len(value):,} values, and at most {MOST_VALUES:,} "
                    "are taken from a file: give the flag itself"
                )
            value = [self.checked_text(action, item) for item in value]
        elif action.nargs in ("+", "*") and value is not None:
            self.error(f"argument --{name}: must be a list, got {value!r}")
        elif value is not None:
            value = self.checked_text(action, value)
        elif name == "data_dir":
            value = "digits" if action.default else None  # of a run before faces were its default
        elif action.default is not None:
            self.error(f"argument --{name}: must be a value, got {value!r}")
        self.source = ""
        return value

    def checked_text(self, action, value):
        """One stored value through the type and the choices of its flag."""
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.error(f"argument --{action.dest}: unexpected value {value!r}")
        try:
            converted = self._get_value(action, str(value))
            self._check_value(action, converted)
        except argparse.ArgumentError as error:
            self.error(str(error))
        return converted
