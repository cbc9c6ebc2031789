"""A run, from its start to its last checkpoint: what surrounds every training loop."""

from common import checkpoint, folder, images
from common.cli import stored
from common.data.batches import Batches, shard
from common.data.mnist import download_mnist, mnist_folder
from common.ema import EMA
from common.errors import NotFinite, UserError, in_words, print_line, say, warn
from common.log import Log, prepare_folder, write_validation
from common.seeds import mixed_seed
from common.watch import Watch

import contextlib
import math
import operator
import os
import signal
import sys
import threading
import time
import traceback
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import jittor as jt
import numpy as np

from jittor_fast import set_seed
from jittor_setup import compile_in_parallel
from jittor_setup.cache import cache_folder, foreign_file
from jittor_setup.errors import SetupError

CHECKPOINT_SECONDS = 600  # longer epochs are saved in their middle too
# SIGHUP comes when the terminal of a run is closed. Windows has none.
SIGHUP = getattr(signal, "SIGHUP", signal.SIGTERM)
STOPPING = (signal.SIGINT, signal.SIGTERM, SIGHUP)  # save and stop a training
RETRY_SECONDS = 60  # until a checkpoint that could not be written is tried again


@dataclass
class Phase:
    """A part of a run; most runs have one. It ends at the first of its two limits.

    Attributes:
        name: empty in a run of one phase.
        first_epoch: epochs of the run that were done when the phase began.
        last_epoch: epochs of the run after which it ends, or infinity.
        last_image: images of the run after which it ends, or infinity.
    """

    name: str
    first_epoch: int
    last_epoch: float
    last_image: float

    def is_over(self, epoch, n_images):
        return epoch >= self.last_epoch or n_images >= self.last_image


@dataclass
class StoredPhase:
    """Where a checkpoint's run was in its phase and in its data.

    Attributes:
        name, first_epoch: of the `Phase`.
        position, start_of_epoch: see `Batches`.
        batch_size: of the phase, over all processes.
        n_items: of the data set; None in a checkpoint that does not say it.
    """

    name: str
    first_epoch: int
    position: int
    batch_size: int
    n_items: Optional[int]
    start_of_epoch: dict

    def order(self):
        """The state of the `Batches`."""
        return {"start_of_epoch": self.start_of_epoch, "position": self.position}


class Run:
    """One call of a script, used as `with common.Run(args) as run:`.

    On entry it seeds all generators, creates `out_dir`, checks that it is writable and,
    for a training, claims it. On exit it reports in one line: a user's mistake (exit
    code 2), a loss that is not finite (3), or a step that a signal interrupted (128 +
    signal). Under mpirun any error of one process ends all of them.

    Attributes:
        step: the present training step, counted from 1.
        epoch: how many epochs are done.
        n_images: how many images the training has been shown.
        losses: {name: float} of the last losses that were read.
    """

    def __init__(self, args):
        self.args = args
        self.out_dir = Path(args.out_dir)
        self.is_main = jt.rank == 0
        self.step = 0
        self.epoch = 0
        self.n_images = 0
        self.losses = {}
        self.validation = {}  # {epoch: values} that this process has measured
        self.pending = {}  # losses that have not been read yet
        self.parts = {}
        self.reader = None
        self.phase = self.phase_of("", 0, None)
        self.rng = np.random.default_rng([args.seed, 2])  # the noise of the training
        self.order_rng = np.random.default_rng([args.seed, 1])
        self.order = None  # the batches of the present data set
        self.stored = None  # the checkpoint's phase and order, until its phase continues
        self.watch = Watch()
        self.log_file = None
        self.lock = None  # of `out_dir`, while it trains
        self.save_error = None  # why the last checkpoint could not be written
        self.saved_at = time.monotonic()
        self.has_begun = False  # whether this call has begun a training step
        self.is_in_step = False
        self.lacks_pictures = False  # whether the last one could not be written
        self.stop_signal = None
        self.all_stop = False  # whether all processes end after this step
        self.old_handlers = {}
        # After this many steps every kind of update has run once and is compiled.
        self.n_compiling = max(getattr(args, name, 1) for name in ("n_critic", "n_critic_long"))

    # ---- entry and exit ----

    def __enter__(self):
        try:
            self.begin()
        except BaseException as error:
            self.release()
            self.end_with(error)
            raise
        seed = mixed_seed(self.args.seed, 0)
        jt.set_global_seed(seed, different_seed_for_mpi=False)
        set_seed(seed)  # of noise and dropout before the first step too
        # Without a training there is nothing to save: Ctrl-C ends such a call at once.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and not self.args.sample_only:
            for name in STOPPING:
                self.old_handlers[name] = signal.signal(name, self.on_signal)
            if self.old_handlers.get(SIGHUP) == signal.SIG_IGN:  # under nohup it stays ignored
                signal.signal(SIGHUP, signal.SIG_IGN)
        return self

    def begin(self):
        args = self.args
        if args.batch_size % jt.world_size:
            raise UserError(
                f"--batch_size {args.batch_size} must be a multiple of {jt.world_size} processes"
            )
        if self.is_main:
            if not args.sample_only:
                self.claim_folder()
            prepare_folder(args)
            if getattr(args, "download", False):
                download_mnist(mnist_folder())
        if args.init_from:
            self.reader = checkpoint.Reader(args.init_from)
        elif args.resume:
            self.reader = checkpoint.Reader(args.resume)
            self.restore_position()

    def claim_folder(self):
        """Locks `out_dir` for this training, unless it holds another run."""
        folder.make_folder(self.out_dir)
        self.lock = folder.lock_folder(self.out_dir)
        folder.check_folder(self.out_dir, self.args.resume, self.args.overwrite)
        if self.lock is not None:
            folder.remove_temporaries(self.out_dir)

    def restore_position(self):
        """Takes from the checkpoint where the run stands, before its networks exist."""
        meta = self.reader.meta
        self.step = meta["step"]
        self.epoch = meta["epoch"]
        self.n_images = meta["n_images"]
        if self.args.sample_only:
            return
        self.losses = meta["losses"]
        try:
            self.rng.bit_generator.state = meta["rng"]
            self.order_rng.bit_generator.state = meta["order"]["rng"]
            self.stored = StoredPhase(
                name=meta["phase"],
                first_epoch=operator.index(meta["first_epoch"]),
                position=operator.index(meta["order"]["position"]),
                batch_size=operator.index(meta["order"]["batch_size"]),
                n_items=meta["order"].get("n_items"),
                start_of_epoch=meta["order"]["start_of_epoch"],
            )
        except Exception as error:  # whatever numpy raises for a damaged state
            message = f"{self.args.resume}: the state of the noise or of the data order is damaged"
            raise UserError(f"{message} ({error})") from error

    def __exit__(self, kind, error, trace):
        try:
            if self.save_error is not None:
                error = self.save_again(error)
            if self.log_file is not None:
                self.log_file.close()
        finally:
            self.release()
        if error is not None:
            self.end_with(error)
        elif self.is_main:
            say(f"Done; everything is in {self.out_dir}.")

    def release(self):
        """Gives back the signals and the folder."""
        for name, handler in self.old_handlers.items():
            signal.signal(name, handler)
        self.old_handlers = {}
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def end_with(self, error):
        """Ends the script with one line for an error that has one.

        Other errors keep their traceback: this method returns, and they are raised
        again.
        """
        if isinstance(error, NotFinite):
            message = str(error)
            if "at step" not in message:
                message += f" at step {self.step}; a lower --lr may help"
            self.report(message, 3, error)
        if isinstance(error, (UserError, OSError, MemoryError)):
            self.report(in_words(error), 2, error)
        if isinstance(error, OverflowError) and self.args.resume:
            # A schedule of the learning rate, for example, at the 10^15th step.
            message = f"{self.args.resume}: a number is out of range at step {self.step}"
            self.report(f"{message} ({error})", 2, error)
        if isinstance(error, (RuntimeError, KeyboardInterrupt)) and self.stop_signal is not None:
            # Ctrl-C also reaches a kernel's compiler, and Jittor then fails; or it was
            # pressed twice.
            message = "Stopped within a step; the last checkpoint, if any, is kept."
            if not self.has_begun:
                message = "Stopped before the first step; no checkpoint was written."
            self.end(message, 128 + self.stop_signal, error)
        if isinstance(error, RuntimeError) and jittor_problem() is not None:
            self.report(jittor_problem(), 2, error)
        if isinstance(error, KeyboardInterrupt):  # of a call that does not train
            self.end("Stopped.", 128 + signal.SIGINT, error)
        if jt.in_mpi and not self.all_stop:
            is_exit = isinstance(error, SystemExit)
            code = error.code if is_exit and isinstance(error.code, int) else 1
            trace = (
                ""
                if is_exit
                else "".join(traceback.format_exception(type(error), error, error.__traceback__))
            )
            end_all_processes(code, trace or str(error))

    def report(self, message, code, error):
        self.end(f"{self.args.script}.py: error: {message}", code, error)

    def end(self, line, code, error):
        print_line("stderr", line)
        if jt.in_mpi:
            end_all_processes(code)
        raise SystemExit(code) from error

    def on_signal(self, number, frame):
        """Asks for the end after this step, which saves.

        The second signal does not wait for the step. Nor does one before the first
        step: there is nothing to save yet, and checking the data may take minutes.
        """
        is_second = self.stop_signal is not None
        self.stop_signal = self.stop_signal or number
        if is_second or not self.has_begun:
            raise KeyboardInterrupt

    # ---- what a checkpoint holds ----

    def checkpoint(self, **parts):
        """Names what a checkpoint holds.

        Args:
            parts: networks, optimizers, and objects with `state_dict()` and
                `load_state_dict()`, such as an EMA.
        """
        self.parts = parts

    def restore(self):
        """Loads the parts of `checkpoint` from --resume or --init_from, if given.

        --init_from loads the networks' weights alone. With --sample_only the checkpoint
        may hold more than the parts.

        Raises:
            UserError: the checkpoint is damaged, or does not fit the networks.
        """
        if self.is_main:
            prepare_folder(self.args)  # again: the data may have settled some arguments
        for part in self.parts.values():
            if jt.in_mpi and isinstance(part, jt.nn.Module):
                part.mpi_param_broadcast()
        if self.reader is not None and self.args.init_from:
            self.reader.load_weights(self.parts)
        elif self.reader is not None:
            self.reader.load(self.parts, exact=not self.args.sample_only)
        self.reader = None  # a later phase continues from what is in memory
        jt.sync_all()
        if self.args.resume:
            self.export()

    def save(self):
        """Writes checkpoint_last.npz, in one process only.

        If that fails, as on a full disk, the training continues, and the next step
        after a minute tries again. The run's end reports what could never be written.

        Raises:
            NotFinite: a loss or a weight is NaN or infinite; the last checkpoint is
                kept.
        """
        self.read_losses()
        self.saved_at = time.monotonic()
        if not self.is_main:
            return
        try:
            self.renew_folder()
            self.write_checkpoint()
            self.save_error = None
        except UserError as error:
            if self.save_error is None:
                warn(f"{error}; the training continues, and tries again every minute")
            self.save_error = error
            self.saved_at += RETRY_SECONDS - CHECKPOINT_SECONDS

    def renew_folder(self):
        """Makes `out_dir` again, and claims it, if somebody has removed it."""
        if checkpoint.is_file(self.out_dir / "config.json"):
            return
        prepare_folder(self.args)
        if self.lock is not None:
            self.lock.close()
            self.lock = folder.lock_folder(self.out_dir)
        warn(f"{self.out_dir} was removed or renamed meanwhile, and is made again")

    def save_again(self, error):
        """Tries a last time to write the state that could not be written.

        Within a step there is no state to save: a part of the networks is updated.

        Args:
            error: what ends the run, or None.

        Returns:
            What ends the run now.
        """
        if not self.is_in_step:
            try:
                self.renew_folder()
                self.write_checkpoint()
                self.save_error = None
            except (UserError, NotFinite) as failure:
                self.save_error = failure
        hides = error is None or isinstance(error, (SystemExit, UserError, OSError))
        return self.save_error if hides and self.save_error is not None else error

    def write_checkpoint(self):
        meta = {
            "script": self.args.script,
            "args": stored(self.args),
            "step": self.step,
            "epoch": self.epoch,
            "n_images": self.n_images,
            "phase": self.phase.name,
            "first_epoch": self.phase.first_epoch,
            "losses": self.losses,
            "rng": self.rng.bit_generator.state,
            "order": {
                **self.order.state_dict(),
                "batch_size": self.order.batch_size,
                "n_items": len(self.order.data),
                "rng": self.order_rng.bit_generator.state,
            },
            "jittor": jt.__version__,
        }
        checkpoint.save(self.out_dir / checkpoint.FILE_NAME, self.parts, meta)
        self.export()

    def export(self):
        """Writes each network, or its average if it has one, to <name>_last.pkl."""
        if not (self.args.export_pkl and self.is_main):
            return
        modules = {name: m for name, m in self.parts.items() if isinstance(m, jt.nn.Module)}
        averages = [part for part in self.parts.values() if isinstance(part, EMA)]
        for name, module in modules.items():
            for average in averages:
                if average.source is module:
                    module = average.module
            checkpoint.export_pickle(self.out_dir / f"{name}_last.pkl", module)

    # ---- the loop ----

    def phases(self, lengths, in_images=False):
        """Yields the names of the phases that are still to train, in order.

        `epochs` then yields the epochs of that phase. Call `checkpoint` and `restore`
        within a phase if its networks are its own. After --resume the first phase is
        the checkpoint's, even if it has no epoch left: its networks are restored, and
        the next phase begins with them. Each phase begins with a new epoch of its data.

        Args:
            lengths: {name: length}, in epochs, or in images with `in_images`. A phase
                of length 0 is left out. The last one may have the length None: it lasts
                until the run ends. Phases in epochs end with the run at the latest.
        """
        end = 0
        for name, length in lengths.items():
            start = end
            end += length or 0
            self.phase = self.phase_of(name, start, length, in_images)
            is_stored = self.stored is not None and self.stored.name == name
            if is_stored and in_images:
                self.phase.first_epoch = self.stored.first_epoch
            elif not is_stored and self.phase.is_over(self.epoch, self.n_images):
                continue
            if self.stored is not None:  # `batches` has not continued it
                self.check_phase(self.stored, start, in_images)
            if not is_stored:
                self.stored = None
            self.order = None
            yield name
        if self.args.resume and self.log_file is None:
            self.say_finished()

    def check_phase(self, stored, start, in_images):
        """Refuses a phase that the checkpoint's epochs or images do not lead to.

        Args:
            stored: the checkpoint's `StoredPhase`, after which nothing was trained.
            start: epochs or images of the run after which `phase` begins.
        """
        where = f"and these flags put it into {self.phase.name}"
        if stored.name == self.phase.name:
            fits = stored.first_epoch == self.phase.first_epoch
            where = (
                f"which these flags begin after {self.phase.first_epoch} epochs "
                f"instead of {stored.first_epoch}"
            )
        elif in_images:  # the last batch of a phase may exceed its length
            fits = 0 <= self.n_images - start < stored.batch_size
        else:
            fits = self.epoch == start and stored.position == 0
        if not fits:
            raise UserError(
                f"{self.args.resume} was saved in the phase {stored.name}, {where}: "
                "give the phases the lengths of its training"
            )

    def phase_of(self, name, start, length, in_images=False):
        """The `Phase` that begins at `start`; see `phases`."""
        first_epoch = self.epoch if in_images else start
        last_epoch = self.args.n_epochs
        last_image = math.inf
        if self.args.n_images is not None:  # it replaces --n_epochs
            last_epoch = math.inf
            last_image = self.args.n_images
        if length is not None and in_images:
            last_epoch = math.inf
            last_image = start + length
        elif length is not None:
            last_epoch = min(start + length, last_epoch)
        return Phase(name, first_epoch, last_epoch, last_image)

    def epochs(self):
        """Yields the numbers of the epochs still to train, from 1 in each phase.

        Saves a checkpoint and draws losses.png at --checkpoint_interval, and at the
        end.
        """
        if self.phase.is_over(self.epoch, self.n_images) and not self.phase.name:
            self.say_finished()
        while not self.phase.is_over(self.epoch, self.n_images):
            yield self.epoch - self.phase.first_epoch + 1
            if self.order.position == 0:  # not stopped in the middle by --n_images
                self.epoch += 1
            ends = self.phase.is_over(self.epoch, self.n_images)
            if self.epoch % self.args.checkpoint_interval == 0 or ends:
                self.save()
                if self.args.keep and self.is_main and self.save_error is None:
                    self.keep_numbered()
                self.plot(pause=30)
            if self.ends_in_images():
                self.between_steps()
        self.plot()

    def keep_numbered(self):
        path = self.out_dir / checkpoint.FILE_NAME
        try:
            checkpoint.keep_numbered(path, self.step, self.args.keep)
        except (UserError, OSError) as error:
            warn(f"{error}; the training continues without this copy of the checkpoint")

    def ends_in_images(self):
        """Whether this step was the last one, of a length in images."""
        return self.n_images >= self.phase.last_image

    def say_finished(self):
        say(
            f"{self.args.resume} is already trained for {self.epoch} epochs; "
            "a larger --n_epochs (or --n_images) trains it further."
        )

    def batches(self, data, batch_size=None):
        """Yields the batches of an epoch, or of its rest after --resume.

        It counts steps, seeds Jittor for each one, saves a checkpoint every ten
        minutes, and saves and ends the run on Ctrl-C.

        Args:
            data: a data set, with `len()` and `batch(indices, seeds)`.
            batch_size: over all processes (default: --batch_size). A phase may have its
                own.

        Yields:
            Tuples of Jittor variables, as the data set gives them.
        """
        self.order = self.order_of(data, batch_size or self.args.batch_size)
        if self.is_main:
            self.open_log()
        for arrays in self.order:
            self.begin_step(arrays)
            yield tuple(jt.array(array) for array in arrays)
            self.end_step()
            n_given = self.order.position
            if self.ends_in_images() and n_given < len(self.order) * self.order.batch_size:
                break

    def begin_step(self, arrays):
        self.step += 1
        self.has_begun = True
        self.is_in_step = True
        self.watch.see_real(arrays)
        if self.n_compiling > 0:
            compile_in_parallel(True)
        # The state of Jittor's generator (dropout) cannot be saved. A seed for each
        # step makes every step repeatable.
        set_seed(mixed_seed(self.args.seed, self.step, jt.rank))

    def end_step(self):
        # Nothing may stay lazy beyond the end of a step: a resumed run would compute it
        # in another order.
        jt.sync_all()
        self.is_in_step = False
        self.n_images += self.order.batch_size
        self.n_compiling -= 1
        if self.n_compiling == 0:
            compile_in_parallel(False)
        if self.log_file is not None:
            self.log_file.tick()
        if not self.ends_in_images():  # otherwise `epochs` saves, after the page's last lines
            self.between_steps()

    def order_of(self, data, batch_size):
        """The batches of a data set, in the order of the run's seed."""
        order = self.order
        if order is not None and order.data is data and order.batch_size == batch_size:
            return order
        order = Batches(data, batch_size, self.order_rng)
        if self.stored is not None:
            self.check_size(len(data))
            try:
                order.load_state_dict(self.stored.order())
            except Exception as error:  # whatever numpy raises for a damaged state
                message = f"{self.args.resume}: the state of the data order is damaged ({error})"
                raise UserError(message) from error
            self.stored = None
        return order

    def check_size(self, n_items):
        """Compares the data set's size with that of the run which is resumed.

        Its order within an epoch depends on the size.
        """
        before = self.stored.n_items
        if before is None or before == n_items:
            return
        if self.stored.position > 0:
            raise UserError(
                f"the data set has {n_items} images, and had {before} when {self.args.resume} was "
                "saved within an epoch: give the same data, or start with --init_from"
            )
        warn(f"the data set has {n_items} images, and had {before} at the last checkpoint")

    def open_log(self):
        """Opens losses.csv, and tells it how many steps the run will have."""
        if self.log_file is None:
            if not folder.continues(self.out_dir, self.args.resume):
                folder.remove_run(self.out_dir)
            self.log_file = Log(self.out_dir, self.step)
        if self.phase.last_image < math.inf:
            n_left = -(-(self.phase.last_image - self.n_images) // self.order.batch_size)
            self.log_file.set_length(self.step + n_left, None)
        else:
            done = self.order.position // self.order.batch_size
            n_left = (self.args.n_epochs - self.epoch) * len(self.order) - done
            self.log_file.set_length(self.step + n_left, self.args.n_epochs)

    def between_steps(self):
        """Saves if the last checkpoint is old, and stops if a signal asked for it."""
        is_stopped = self.stop_signal is not None
        is_due = time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        is_stopped, is_due = self.any_process(is_stopped, is_due)
        if is_stopped:
            self.stop_signal = self.stop_signal or signal.SIGTERM
            self.save()
            self.all_stop = True
            if self.save_error is not None:
                raise self.save_error
            self.plot()
            if self.is_main:
                self.end_bar()
                message = f"Stopped at step {self.step} and saved"
                print_line("stderr", f"{message}; continue with --resume {self.out_dir}")
            raise SystemExit(128 + self.stop_signal)
        if is_due:
            self.save()

    def end_bar(self):
        """Ends the progress bar's line, so that a message has its own."""
        if self.log_file is not None:
            self.log_file.end_bar()

    def any_process(self, *wishes):
        """Which of the wishes any process has: all must act after the same step."""
        if not jt.in_mpi:
            return wishes
        with jt.flag_scope(use_cuda=0):  # a scalar that no GPU needs to wait for
            return jt.array(np.float32(wishes)).mpi_all_reduce("add").numpy() > 0

    def every(self, interval):
        """Whether this step is a multiple of `interval`, in the process that writes."""
        return self.is_main and self.step % interval == 0

    # ---- noise, for the whole batch; each process of mpirun gets its share ----

    def noise(self, kind, n, dim):
        """(n, dim) noise as a Jittor variable: "normal", or "uniform" in [-1, 1]."""
        return self.shard(latent_noise(self.rng, kind, n, dim))

    def normal(self, *shape):
        """N(0, 1) noise (B, ...), as a Jittor variable."""
        return self.shard(self.rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, *shape):
        """Noise (B, ...), uniform in [0, 1), as a Jittor variable."""
        return self.shard(self.rng.random(shape, dtype=np.float32))

    def integers(self, low, high, n):
        """(n,) int32 from low to below high, uniform, as a Jittor variable."""
        return self.shard(self.rng.integers(low, high, size=n, dtype=np.int32))

    def cycle(self, n, size):
        """(size,) int32 0, 1, ... n - 1, 0, 1, ... as a Jittor variable."""
        return self.shard(np.arange(size, dtype=np.int32) % n)

    def fixed_noise(self, kind, n, dim):
        """(n, dim) noise as numpy, the same at every call: it depends on the seed."""
        return latent_noise(self.fixed_rng(), kind, n, dim)

    def fixed_rng(self):
        """A numpy generator for samples, in the same state at every call."""
        return np.random.default_rng([self.args.seed, 3])

    def permute(self, batch):
        """The rows of a batch in random order; under mpirun, over all processes."""
        whole = self.gather(batch)
        order = self.rng.permutation(len(whole)).astype(np.int32)
        return whole[self.shard(order)]

    def exchange(self, pool, images):
        """The images of a batch (B, C, H, W) after `pool.exchange(images, rng)`.

        Under mpirun the pool gets the batch of all processes.
        """
        return self.shard(pool.exchange(self.gather(images), self.rng))

    def shard(self, array):
        """This process's share of a whole batch, as a Jittor variable."""
        share = shard(array)
        return share if isinstance(share, jt.Var) else jt.array(np.ascontiguousarray(share))

    def gather(self, share):
        """The whole batch, from each process's share: the inverse of `shard`."""
        if not jt.in_mpi:
            return share
        share = share.numpy()
        whole = np.zeros((jt.world_size, *share.shape), share.dtype)
        whole[jt.rank] = share
        return jt.array(whole.reshape(-1, *share.shape[1:])).mpi_all_reduce("add")

    # ---- what a run shows ----

    def save_grid(self, samples, to=None, nrow=10, padding=2, watched=None):
        """Writes samples as one picture, and warns once if they have collapsed.

        Args:
            samples: (N, C, H, W) in [-1, 1], numpy or Jittor.
            to: a file name in `out_dir` (default: samples/step_<number>.png).
            nrow, padding: see `common.save_image`.
            watched: the samples that the warning is about (default: all).
        """
        if not self.is_main:
            return
        self.write(to, lambda path: images.save_image(samples, path, nrow, padding))
        if to is None:
            self.watch.see_samples(samples if watched is None else watched)

    def write(self, to, save):
        """Calls `save(path)` for a picture.

        One of the training that cannot be written, as on a full disk, is left out.

        Args:
            to: a file name in `out_dir`, or None for a picture of this step.
        """
        if to is not None:
            save(self.out_dir / to)
            return
        path = self.out_dir / f"samples/step_{self.step:07d}.png"
        try:
            save(path)
            self.lacks_pictures = False
        except UserError as error:
            if not self.lacks_pictures:
                warn(f"{error}; the training continues without pictures")
            self.lacks_pictures = True

    def save_rows(self, *rows, to=None, columns=False):
        """Writes rows of equally many images, and warns once if one row has collapsed.

        Args:
            rows: (N, C, H, W) in [-1, 1] as numpy, real images first; C may differ.
            to: a file name in `out_dir` (default: samples/step_<number>.png).
            columns: draw each of `rows` as a column.
        """
        if not self.is_main:
            return
        self.write(to, lambda path: images.save_rows(path, *rows, columns=columns))
        if to is None:
            self.watch.see_rows(rows)

    def save_scatter(self, points, labels, to):
        """Writes points (N, d) as a picture, coloured by label, to a file in `out_dir`.

        Args:
            labels: (N,), or None.
        """
        if self.is_main:
            images.save_scatter(points, labels, self.out_dir / to)

    def save_samples(self, samples, **conditions):
        """Writes samples.npz, and PNG files if --samples_dir is given.

        Args:
            samples: (N, C, H, W) in [-1, 1]; stored as `images`, (N, H, W, C) uint8.
            conditions: arrays of N labels or the like, stored under their names.
        """
        if not self.is_main:
            return
        arrays = {"images": images.to_uint8(samples), **conditions}
        path = self.out_dir / "samples.npz"
        compression = zipfile.ZIP_DEFLATED
        checkpoint.write_atomically(
            path, lambda file: checkpoint.write_npz(file, arrays, compression)
        )
        if self.args.samples_dir:
            images.save_each(samples, Path(self.args.samples_dir).expanduser())

    def save_validation(self, epoch, **values):
        """Writes an epoch's values, floats, to validation.csv and to the screen."""
        if not self.is_main:
            return
        self.validation[epoch] = values
        write_validation(self.out_dir / "validation.csv", self.validation)
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        say(f"epoch {epoch}: {text}")

    def log(self, losses):
        """Takes {name: scalar Jittor variable} once in each step.

        The values are read, and written to losses.csv, at --log_interval only. A loss
        that not every step has, such as the generator's, keeps its last value in
        between.
        """
        self.pending.update(losses)
        if self.step % self.args.log_interval == 0:
            self.read_losses()
            if self.log_file is not None:
                self.log_file.add(self.step, self.epoch + 1, self.losses)
            self.watch.see_losses(self.losses)

    def read_losses(self):
        """Turns the last losses into floats.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        pending = self.pending
        self.pending = {}
        for name, value in pending.items():
            if jt.in_mpi:  # the mean over the whole batch
                value = value.mpi_all_reduce("mean")
            self.losses[name] = float(value.item())
        for name, value in self.losses.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value} at step {self.step}; a lower --lr may help")

    def plot(self, pause=0.0):
        if self.log_file is not None:
            self.log_file.plot(pause)


def latent_noise(rng, kind, n, dim):
    """(n, dim) float32 noise of a numpy generator.

    Args:
        kind: "normal" for N(0, 1), "uniform" for [-1, 1].
    """
    if kind == "normal":
        return rng.standard_normal((n, dim), dtype=np.float32)
    return rng.uniform(-1, 1, (n, dim)).astype(np.float32)


def jittor_problem():
    """The line about a kernel of another user, which Jittor cannot load; or None."""
    try:
        return foreign_file(cache_folder())
    except SetupError as error:
        return str(error)


def end_all_processes(code, text=""):
    """Ends this process of mpirun at once, which makes mpirun end the others.

    They would otherwise wait for ever for this one's share of a sum, and so would this
    one in MPI's own end.

    Args:
        text: printed on standard error.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()
    os._exit(code)
