"""The command line that all scripts share, and what --resume takes from a checkpoint."""

import argparse
import math
import os
import sys
from pathlib import Path

from common import checkpoint
from common.errors import UserError

# What a call asks for, as against what a run is: not stored with it, and not restored by --resume.
OF_THE_CALL = {"resume", "sample_only", "n_samples", "device", "out_dir", "export_pkl", "download"}


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
            raise argparse.ArgumentTypeError(f"must be {name} {wanted}".rstrip() + f", got {text!r}")
        return value

    return parse


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and adds each flag's default."""


class Parser(argparse.ArgumentParser):
    """The command line that all scripts share, to which a script adds its own flags.

    Args:
        script: the script's name without `.py`.
        doc: its docstring, shown by --help.
        architecture: the flags that fix the networks' shapes; --resume takes them from the checkpoint, and one
            that contradicts it is an error.
        of_the_call: this script's flags that are neither stored nor restored (what to draw, say).
        defaults: the defaults of the shared flags: n_epochs, batch_size, lr, b1, b2, img_size, channels,
            sample_interval, checkpoint_interval, log_interval.
    """

    def __init__(self, script, doc, architecture, of_the_call=(), **defaults):
        super().__init__(f"{script}.py", description=doc, formatter_class=HelpFormatter, allow_abbrev=False)
        self.script, self.architecture = script, set(architecture)
        self.of_the_call = OF_THE_CALL | set(of_the_call)
        count, rate, beta = number(int, at_least=1), number(float, above=0), number(float, at_least=0, below=1)
        add = self.add_argument
        add("--n_epochs", type=count, help="total epochs of the run, also when it is resumed")
        add("--batch_size", type=count, help="images in a step, over all processes")
        add("--lr", type=rate, help="learning rate")
        add("--b1", type=beta, help="Adam's decay of the mean of gradients")
        add("--b2", type=beta, help="Adam's decay of the mean of squared gradients")
        add("--img_size", type=number(int, at_least=1, at_most=4096), help="height and width of the images")
        add("--channels", type=int, choices=(1, 3), help="1 for grey images, 3 for RGB")
        add("--data_dir", help="your own data; without it the built-in data is used")
        add("--out_dir", help=f"where the run writes; results/{script} unless it is resumed elsewhere")
        add("--sample_interval", type=count, help="steps between two pictures of samples")
        add("--checkpoint_interval", type=count, help="epochs between two checkpoints")
        add("--log_interval", type=count, help="steps between two lines of losses.csv")
        add("--resume", metavar="PATH", help="a checkpoint, or the out_dir of a run, to go on from")
        add("--sample_only", action="store_true", help="with --resume: make pictures, train nothing")
        add("--n_samples", type=number(int, at_least=0), default=0, help="write so many samples to samples.npz")
        add("--seed", type=number(int, at_least=0), default=0, help="of weights, noise, dropout and data order")
        add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
        add("--export_pkl", action="store_true", help="also write generator_last.pkl, in Jittor's own format")
        self.source = ""  # of the arguments that are being parsed, where it is not the command line
        self.set_defaults(**defaults)

    def error(self, message):
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: error: {self.source}{message}\n")

    def parse(self, argv=None):
        """The arguments; with --resume, those of the checkpoint, except where the command line says otherwise."""
        argv = list(sys.argv[1:] if argv is None else argv)
        args = self.parse_args(argv)
        if args.sample_only and not args.resume:
            self.error("--sample_only needs --resume with the checkpoint to sample from")
        args.script, args.stored = self.script, {}
        if args.resume:
            args = self.merge_stored(argv, args)
        if args.out_dir is None:
            args.out_dir = str(Path(args.resume).parent) if args.resume else f"results/{self.script}"
        args.out_dir = os.path.expanduser(args.out_dir)
        kept = {a.dest for a in self._actions} - self.of_the_call - {"help"}
        args.stored = {name: value for name, value in vars(args).items() if name in kept}
        return args

    def merge_stored(self, argv, args):
        try:
            path = checkpoint.find(args.resume)
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
                    f"{meta['args'][name]}; leave the flag out, or train anew without --resume"
                )
        # The stored values pass through the same checks as typed ones: the file may come from a stranger.
        stored = self.as_argv({k: v for k, v in meta["args"].items() if k not in given | self.of_the_call}, path)
        self.source = f"{path}: "
        args = self.parse_args(stored + argv)
        self.source = ""
        args.script, args.resume = self.script, str(path)
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
            if name not in known or not isinstance(value, (str, int, float, bool, list, type(None))):
                self.error(f"{path} holds a setting that this version does not know: {name}")
            if known[name].nargs == 0:
                argv += [f"--{name}"] if value is True else []
            elif isinstance(value, list):
                argv += [f"--{name}", *map(str, value)]
            elif value is not None:
                argv.append(f"--{name}={value}")
        return argv
