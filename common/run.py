"""A run from its start to its last checkpoint: device, seeds, resuming, logging, stopping.

A script keeps its own loop; `Run` gives it the numbers of epochs and the batches, and does between the steps what
is the same for every model.
"""

import json
import math
import platform
import signal
import sys
import threading
from pathlib import Path

import jittor as jt
import numpy as np

from common import checkpoint
from common.data.batches import shard
from common.environment import compile_in_parallel
from common.errors import NotFinite, UserError
from common.log import Log
from common.pictures import to_uint8


class Run:
    """One call of a script, used as `with Run(args) as run:`.

    Entering chooses the device, seeds everything, makes `out_dir` and proves it writable. Leaving turns a user's
    mistake into one line and exit code 2, a number that is not finite into one line and exit code 3,
    and what a signal broke off within a step into one line and exit code 128 + its number.

    Attributes:
        step, epoch: the number of the step at work, and of epochs done.
        rng: numpy generator of the noise; in the same state in every process of mpirun.
        losses: the last losses that were read, as floats.
    """

    def __init__(self, args):
        self.args, self.out_dir = args, Path(args.out_dir)
        self.step = self.epoch = 0
        self.rng = np.random.default_rng([args.seed, 2])
        self.losses, self.pending, self.parts = {}, {}, {}
        self.is_main = jt.rank == 0
        self.stop_signal, self.old_handlers, self.log_file = None, {}, None

    def __enter__(self):
        try:
            self.choose_device()
            if self.args.batch_size % jt.world_size:
                raise UserError(f"--batch_size {self.args.batch_size} must be a multiple of {jt.world_size} processes")
            if self.is_main:
                self.prepare_folder()
        except UserError as error:
            self.report(error, code=2)
        jt.set_global_seed(mixed_seed(self.args.seed, 0), different_seed_for_mpi=False)
        # Without a training there is nothing to save first: pictures and evaluations end at once, as any program.
        if threading.current_thread() is threading.main_thread() and not self.args.sample_only:
            for name in (signal.SIGINT, signal.SIGTERM):
                self.old_handlers[name] = signal.signal(name, self.on_signal)
        return self

    def __exit__(self, kind, error, traceback):
        for name, handler in self.old_handlers.items():
            signal.signal(name, handler)
        if self.log_file is not None:
            self.log_file.close()
        if isinstance(error, NotFinite):
            self.report(error, code=3)
        if isinstance(error, (UserError, OSError)):
            self.report(error, code=2)
        if isinstance(error, (RuntimeError, KeyboardInterrupt)) and self.stop_signal is not None:
            # Ctrl-C reaches the compiler of a kernel too, and Jittor then fails; or it was pressed twice.
            print("\nStopped within a step; the last checkpoint, if any, is kept.", file=sys.stderr, flush=True)
            raise SystemExit(128 + self.stop_signal) from error
        if error is None and self.is_main:
            print(f"Done; everything is in {self.out_dir}.", flush=True)

    def report(self, error, code):
        print(f"{self.args.script}.py: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(code) from error

    def choose_device(self):
        wanted = self.args.device
        if wanted == "cuda" and not jt.has_cuda:
            raise UserError("--device cuda: Jittor finds no usable GPU; use --device cpu, or auto")
        jt.flags.use_cuda = int(bool(jt.has_cuda) and wanted != "cpu")
        if wanted == "auto" and not jt.has_cuda and self.is_main:
            print("Device: CPU (no usable GPU).", flush=True)

    def prepare_folder(self):
        """Makes the folder and writes config.json into it, which also proves that it can be written."""
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
            probe = self.out_dir / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--out_dir {self.out_dir.absolute()} cannot be written: {error.strerror}") from error
        if not self.args.sample_only:
            versions = {"python": platform.python_version(), "jittor": jt.__version__, "numpy": np.__version__}
            config = {
                "script": self.args.script,
                "device": "cuda" if jt.flags.use_cuda else "cpu",
                "processes": jt.world_size,
                "versions": versions,
                "args": self.args.stored,
            }
            text = json.dumps(config, indent=2) + "\n"
            checkpoint.write_atomically(self.out_dir / "config.json", lambda file: file.write(text.encode()))

    def on_signal(self, number, frame):
        if self.stop_signal is not None:  # asked twice: do not wait for the end of the step
            raise KeyboardInterrupt
        self.stop_signal = number

    # ---- what a checkpoint holds ----

    def track(self, **parts):
        """Names what a checkpoint holds, and loads it where --resume asks for it.

        Args:
            parts: modules, optimizers, and objects with `state_dict()` and `load_state_dict()` (EMA, Batches). The
                first module is what --export_pkl writes, unless there is an `ema`.

        With --sample_only the checkpoint may hold more than these.
        """
        self.parts = parts
        if jt.in_mpi:
            for module in parts.values():
                if isinstance(module, jt.nn.Module):
                    module.mpi_param_broadcast()
        if self.args.resume:
            reader = checkpoint.Reader(self.args.resume)
            reader.load(parts, exact=not self.args.sample_only)
            self.step, self.epoch = reader.meta["step"], reader.meta["epoch"]
            if not self.args.sample_only:
                try:
                    self.rng.bit_generator.state = reader.meta["rng"]
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(f"{self.args.resume}: the state of the noise is damaged") from error
        jt.sync_all()

    def save(self):
        """Writes checkpoint_last.npz, in one process only.

        Raises:
            NotFinite: a loss or a weight is NaN or infinite; the last checkpoint is left as it was.
        """
        self.read_losses()
        if not self.is_main:
            return
        meta = {
            "script": self.args.script,
            "args": self.args.stored,
            "step": self.step,
            "epoch": self.epoch,
            "rng": self.rng.bit_generator.state,
            "jittor": jt.__version__,
        }
        checkpoint.save(self.out_dir / checkpoint.FILE_NAME, self.parts, meta)
        if self.args.export_pkl:
            module = self.parts["ema"].module if "ema" in self.parts else next(iter(self.parts.values()))
            checkpoint.export_pickle(self.out_dir / "generator_last.pkl", module)

    # ---- the loop ----

    def epochs(self):
        """The numbers, from 1, of the epochs still to do; a checkpoint at the interval and after the last."""
        n_epochs = self.args.n_epochs
        if self.epoch >= n_epochs and self.is_main:
            print(
                f"{self.args.resume} has been trained for {self.epoch} epochs already; "
                f"give --n_epochs more than that to train it further."
            )
        while self.epoch < n_epochs:
            yield self.epoch + 1
            self.epoch += 1
            if self.epoch % self.args.checkpoint_interval == 0 or self.epoch == n_epochs:
                self.save()
                self.plot(pause=30)
        self.plot()

    def steps(self, batches):
        """The batches of an epoch, or of its rest, as tuples of Jittor variables."""
        if self.is_main and self.log_file is None:
            self.log_file = Log(self.out_dir, self.step, self.args.n_epochs, len(batches))
        first_step = not self.losses  # of this process
        for arrays in batches:
            self.step += 1
            if first_step:
                compile_in_parallel(True)
            # Jittor's generator (dropout) cannot be saved. Seeding it for each step makes any step repeatable.
            jt.set_seed(mixed_seed(self.args.seed, self.step, jt.rank))
            yield tuple(jt.array(array) for array in arrays)
            # Nothing may stay lazy over the end of a step: a resumed run would compute it in another order.
            jt.sync_all()
            if first_step:
                compile_in_parallel(False)
                first_step = False
            if self.log_file is not None:
                self.log_file.tick()
            if self.must_stop():
                self.stop_here()

    def every(self, interval):
        """Whether this step is the interval's last, in the process that writes."""
        return self.is_main and self.step % interval == 0

    def shard(self, array):
        """This process's share of an array over the whole batch, as a Jittor variable."""
        return jt.array(np.ascontiguousarray(shard(array)))

    def gather(self, share):
        """The batch over all processes, from each one's share, as a Jittor variable: the opposite of `shard`."""
        if not jt.in_mpi:
            return share
        share = share.numpy()
        whole = np.zeros((jt.world_size, *share.shape), share.dtype)
        whole[jt.rank] = share
        return jt.array(whole.reshape(-1, *share.shape[1:])).mpi_all_reduce("add")

    def save_samples(self, images, **conditions):
        """Writes samples.npz: `images` (N, C, H, W) in [-1, 1] as (N, H, W, C) uint8, and arrays of N conditions."""
        arrays = {"images": to_uint8(images), **conditions}
        checkpoint.write_atomically(self.out_dir / "samples.npz", lambda file: np.savez_compressed(file, **arrays))

    def must_stop(self):
        """Whether a signal asks for the end; under mpirun all processes must agree on the step."""
        if not jt.in_mpi:
            return self.stop_signal is not None
        asked = jt.array(np.float32([self.stop_signal is not None])).mpi_all_reduce("add").item()
        if asked and self.stop_signal is None:
            self.stop_signal = signal.SIGTERM
        return asked > 0

    def stop_here(self):
        self.save()
        self.plot()
        if self.is_main:
            print(f"\nStopped at step {self.step} and saved; go on with --resume {self.out_dir}", file=sys.stderr)
        raise SystemExit(128 + self.stop_signal)

    # ---- the log ----

    def log(self, losses):
        """Call it once in each step with {name: scalar Var}; the values are read at the interval only."""
        self.pending = losses
        if self.step % self.args.log_interval == 0:
            self.read_losses()
            if self.log_file is not None:
                self.log_file.add(self.step, self.epoch + 1, self.losses)

    def read_losses(self):
        """Turns the last losses into floats.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        if self.pending:
            if jt.in_mpi:  # the mean over the whole batch, not over this process's share
                self.pending = {name: value.mpi_all_reduce("mean") for name, value in self.pending.items()}
            self.losses, self.pending = {name: float(value.item()) for name, value in self.pending.items()}, {}
        for name, value in self.losses.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value} at step {self.step}; a lower --lr may help")

    def plot(self, pause=0.0):
        if self.log_file is not None:
            self.log_file.plot(pause)


def mixed_seed(*numbers):
    """A large seed for Jittor: its generator gives the same for 0 and 1, and starts near 0 from a small one."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1) | 1 << 29
