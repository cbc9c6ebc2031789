"""A run from its start to its last checkpoint: what is the same for every model, around and between its steps."""

from common import checkpoint, pictures
from common.data.batches import shard
from common.errors import NotFinite, UserError
from common.log import Log, prepare_folder
from common.watch import Watch

import math
import signal
import sys
import threading
import time
from pathlib import Path

import jittor as jt
import numpy as np

import jittor_fast
from jittor_setup import choose_device, compile_in_parallel

CHECKPOINT_SECONDS = 600  # a longer epoch is saved in its middle too


class Run:
    """One call of a script, used as `with Run(args) as run:`.

    Entering chooses the device, seeds everything, makes `out_dir` and proves it writable. Leaving turns into one line a
    user's mistake (exit code 2), a number that is not finite (3), and what a signal broke off within a step (128 + it).

    Attributes:
        step, epoch: the number of the step at work, and of epochs done.
        losses: the last losses that were read, as floats.
        rng: numpy generator of the training's noise; in the same state in every process of mpirun.
        sample_rng: another one for pictures and samples, which therefore disturb no training.
    """

    def __init__(self, args):
        self.args, self.out_dir = args, Path(args.out_dir)
        self.step = self.epoch = 0
        self.rng, self.sample_rng = (
            np.random.default_rng([args.seed, stream]) for stream in (2, 3)
        )
        self.losses, self.pending, self.parts, self.exported, self.watches = {}, {}, {}, {}, []
        self.is_main = jt.rank == 0
        self.stop_signal, self.old_handlers, self.log_file, self.saved_at = (
            None,
            {},
            None,
            time.monotonic(),
        )
        # After so many steps every kind of update has run once, and its kernels are compiled.
        self.n_compiling = max(getattr(args, name, 1) for name in ("n_critic", "n_critic_long"))

    def __enter__(self):
        try:
            choose_device(self.args.device)
            if self.args.batch_size % jt.world_size:
                raise UserError(
                    f"--batch_size {self.args.batch_size} must be a multiple of {jt.world_size} processes"
                )
            if self.is_main and not self.args.describe:
                prepare_folder(self.args)
        except UserError as error:
            self.report(error, code=2)
        jt.set_global_seed(mixed_seed(self.args.seed, 0), different_seed_for_mpi=False)
        # Without a training there is nothing to save first: pictures and evaluations end at once, as any program.
        trains = not (self.args.sample_only or self.args.describe)
        if trains and threading.current_thread() is threading.main_thread():
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
            print(
                "\nStopped within a step; the last checkpoint, if any, is kept.",
                file=sys.stderr,
                flush=True,
            )
            raise SystemExit(128 + self.stop_signal) from error
        if error is None and self.is_main and not self.args.describe:
            print(f"Done; everything is in {self.out_dir}.", flush=True)

    def report(self, error, code):
        print(f"{self.args.script}.py: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(code) from error

    def on_signal(self, number, frame):
        if self.stop_signal is not None:  # asked twice: do not wait for the end of the step
            raise KeyboardInterrupt
        self.stop_signal = number

    # ---- noise: drawn for the whole batch, of which each process of mpirun gets its share ----

    def normal(self, *shape):
        """N(0, 1) noise (B, ...) float32; B is the size of the whole batch."""
        return self.shard(self.rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, *shape):
        """Noise (B, ...) float32, uniform in [0, 1)."""
        return self.shard(self.rng.random(shape, dtype=np.float32))

    def integers(self, low, high, n):
        """(n,) int32 from low to below high, uniform."""
        return self.shard(self.rng.integers(low, high, size=n, dtype=np.int32))

    def permute(self, share):
        """The rows of a batch, of which this process has a share, in random order."""
        order = self.rng.permutation(len(share) * jt.world_size).astype(np.int32)
        return self.gather(share)[self.shard(order)]

    def shard(self, array):
        """This process's share of an array or a Jittor variable over the whole batch, as a Jittor variable."""
        share = shard(array)
        return share if isinstance(share, jt.Var) else jt.array(np.ascontiguousarray(share))

    def gather(self, share):
        """The batch over all processes, from each one's share, as a Jittor variable: the opposite of `shard`."""
        if not jt.in_mpi:
            return share
        share = share.numpy()
        whole = np.zeros((jt.world_size, *share.shape), share.dtype)
        whole[jt.rank] = share
        return jt.array(whole.reshape(-1, *share.shape[1:])).mpi_all_reduce("add")

    # ---- what a checkpoint holds ----

    def track(self, exports=None, **parts):
        """Names what a checkpoint holds, and loads it where --resume or --init_from asks for it.

        Args:
            exports: {name: module} of what generates; --export_pkl writes each to <name>_last.pkl.
            parts: modules, optimizers, and objects with `state_dict()` and `load_state_dict()` (EMA, Batches).

        With --sample_only the checkpoint may hold more than these.
        """
        self.parts, self.exported = parts, exports or {}
        if self.is_main:
            prepare_folder(self.args)  # again: the data may have settled some arguments
        if jt.in_mpi:
            for module in parts.values():
                if isinstance(module, jt.nn.Module):
                    module.mpi_param_broadcast()
        if self.args.init_from:
            checkpoint.Reader(self.args.init_from).load_weights(parts)
        elif self.args.resume:
            reader = checkpoint.Reader(self.args.resume)
            reader.load(parts, exact=not self.args.sample_only)
            self.step, self.epoch = reader.meta["step"], reader.meta["epoch"]
            if not self.args.sample_only:
                self.losses = reader.meta["losses"]
                try:
                    self.rng.bit_generator.state = reader.meta["rng"]
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(
                        f"{self.args.resume}: the state of the noise is damaged"
                    ) from error
        jt.sync_all()

    def save(self):
        """Writes checkpoint_last.npz, in one process only.

        Raises:
            NotFinite: a loss or a weight is NaN or infinite; the last checkpoint is left as it was.
        """
        self.read_losses()
        self.saved_at = time.monotonic()
        if not self.is_main:
            return
        meta = {
            "script": self.args.script,
            "args": self.args.stored,
            "step": self.step,
            "epoch": self.epoch,
            "losses": self.losses,
            "rng": self.rng.bit_generator.state,
            "jittor": jt.__version__,
        }
        checkpoint.save(self.out_dir / checkpoint.FILE_NAME, self.parts, meta)
        if self.args.export_pkl:
            for name, module in self.exported.items():
                checkpoint.export_pickle(self.out_dir / f"{name}_last.pkl", module)

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
                if self.args.keep and self.is_main:
                    checkpoint.keep_numbered(
                        self.out_dir / checkpoint.FILE_NAME, self.step, self.args.keep
                    )
                self.plot(pause=30)
        self.plot()

    def steps(self, batches):
        """The batches of an epoch, or of its rest, as tuples of Jittor variables."""
        if self.is_main and self.log_file is None:
            self.log_file = Log(self.out_dir, self.step, self.args.n_epochs, len(batches))
        for arrays in batches:
            self.step += 1
            if self.n_compiling > 0:
                compile_in_parallel(True)
            # Jittor's generator (dropout) cannot be saved. Seeding it for each step makes any step repeatable.
            jittor_fast.set_seed(mixed_seed(self.args.seed, self.step, jt.rank))
            yield tuple(jt.array(array) for array in arrays)
            # Nothing may stay lazy over the end of a step: a resumed run would compute it in another order.
            jt.sync_all()
            self.n_compiling -= 1
            if self.n_compiling == 0:
                compile_in_parallel(False)
            if self.log_file is not None:
                self.log_file.tick()
            self.between_steps()

    def between_steps(self):
        """Stops where a signal asks for it, and saves where the last checkpoint is old."""
        stop, is_due = self.agree(
            self.stop_signal is not None, time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        )
        if stop:
            self.stop_signal = self.stop_signal or signal.SIGTERM
            self.save()
            self.plot()
            if self.is_main:
                print(
                    f"\nStopped at step {self.step} and saved; go on with --resume {self.out_dir}",
                    file=sys.stderr,
                )
            raise SystemExit(128 + self.stop_signal)
        if is_due:
            self.save()

    def agree(self, *wishes):
        """Which of the wishes any process has; under mpirun all must take the same way after the same step."""
        if not jt.in_mpi:
            return wishes
        with jt.flag_scope(use_cuda=0):  # a number that no GPU needs to wait for
            return jt.array(np.float32(wishes)).mpi_all_reduce("add").numpy() > 0

    def every(self, interval):
        """Whether this step is the interval's last, in the process that writes."""
        return self.is_main and self.step % interval == 0

    # ---- what it shows ----

    @property
    def sample_path(self):
        """Where this step's picture of samples goes."""
        return self.out_dir / f"samples/step_{self.step:07d}.png"

    def save_samples(self, images, **conditions):
        """Writes samples.npz, and PNG files where --samples_dir asks for them.

        Args:
            images: (N, C, H, W) in [-1, 1]; they are stored as `images`, (N, H, W, C) uint8.
            conditions: arrays of N labels or the like, stored under their names.
        """
        arrays = {"images": pictures.to_uint8(images), **conditions}
        checkpoint.write_atomically(
            self.out_dir / "samples.npz", lambda file: np.savez_compressed(file, **arrays)
        )
        if self.args.samples_dir:
            pictures.save_each(images, Path(self.args.samples_dir).expanduser())

    def watch(self, real, samples="samples", loss=None):
        """A `Watch` that also sees the losses at each reading; its arguments are those of `Watch`."""
        self.watches.append(Watch(real, samples, loss))
        return self.watches[-1]

    def log(self, losses):
        """Call it once in each step with {name: scalar Var}; the values are read at the interval only.

        A loss that not every step has, such as the generator's, keeps its last value in between.
        """
        self.pending.update(losses)
        if self.step % self.args.log_interval == 0:
            self.read_losses()
            if self.log_file is not None:
                self.log_file.add(self.step, self.epoch + 1, self.losses)
            for watch in self.watches:
                watch.see_losses(self.losses)

    def read_losses(self):
        """Turns the last losses into floats.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        pending, self.pending = self.pending, {}
        for name, value in pending.items():
            if jt.in_mpi:  # the mean over the whole batch, not over this process's share
                value = value.mpi_all_reduce("mean")
            self.losses[name] = float(value.item())
        for name, value in self.losses.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value} at step {self.step}; a lower --lr may help")

    def plot(self, pause=0.0):
        if self.log_file is not None:
            self.log_file.plot(pause)


def mixed_seed(*numbers):
    """A large seed for Jittor: its generator gives the same for 0 and 1, and starts near 0 from a small one."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1) | 1 << 29
