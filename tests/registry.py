"""One row for each script: what the tests that hold for all of them need to know. A new script is a new row."""

import common
from common import checkpoint

import importlib
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Callable

import jittor as jt
import numpy as np
from conftest import write_idx_folder
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


# ---- data: what makes a small set in a folder ----


def digits(folder):
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        write_idx_folder(
            folder, rng.integers(256, size=(40, 28, 28), dtype=np.uint8), labels, split
        )


def images(folder, n, size=(32, 32), seed=0, suffix="png"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(256, size=(*size[::-1], 3), dtype=np.uint8)).save(
            folder / f"{i}.{suffix}"
        )


def pairs(folder):
    images(folder / "train", 8, size=(64, 32))
    images(folder / "val", 2, size=(64, 32), seed=1)


def domains(folder):
    images(folder / "trainA", 8)
    images(folder / "trainB", 5, size=(40, 30), seed=1)
    images(folder / "testA", 3, seed=2)
    images(folder / "testB", 2, seed=3)


def folders(folder):
    for k, name in enumerate(("bright", "dark", "old")):
        images(folder / name, 3 - k % 2, seed=k)


def label_maps(folder):
    for split, n in (("train", 8), ("val", 3)):
        images(folder / split / "imgs", n, seed=n, suffix="jpg")
        (folder / split / "labels").mkdir()
        rng = np.random.default_rng(n)
        for i in range(n):
            labels = (
                rng.integers(4, size=(4, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            )
            Image.fromarray(labels).save(folder / split / "labels" / f"{i}.png")


def captioned(folder):
    images(folder, 40)
    rows = "".join(
        f"{i}.png,a {'red' if i % 2 else 'blue'} picture of {i % 5}\n" for i in range(40)
    )
    (folder / "captions.csv").write_text("file,caption\n" + rows)


# ---- the rows ----


@dataclass(frozen=True)
class Script:
    """What is particular to one script.

    Attributes:
        make_data: makes a small set of the script's kind in a folder.
        flags: of the smallest run; with SHARED it has 2 epochs of 4 steps.
        losses: the columns of losses.csv after step and epoch, in any order.
        exports: {name in --export_pkl: the part of the checkpoint that holds its weights}.
        starts_from: "noise" or "images".
        augments: whether equal images reach the training step as different ones.
        alone: flags for the comparison of two processes with one: no dropout, of which each draws its own.
        rates: {optimizer: its learning rate over --lr}, where the two differ.
        fixed: networks and optimizers that the smallest run leaves as they are.
    """

    make_data: Callable
    flags: list
    losses: set
    exports: dict
    starts_from: str = "noise"
    augments: bool = False
    alone: list = field(default_factory=list)
    rates: dict = field(default_factory=dict)
    fixed: tuple = ()


def gan(flags, losses=("loss_D", "loss_G"), **more):
    flags = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10, *flags]
    return Script(digits, flags, set(losses), **{"exports": {"generator": "ema"}, **more})


def translator(make_data, flags, losses, exports, **more):
    flags = ["--img_size", 32, "--width", 4, "--batch_size", 2, *flags]
    return Script(make_data, flags, set(losses), exports, "images", **more)


STAGE_1 = "generator1", "discriminator1", "optimizer_generator1", "optimizer_discriminator1", "ema1"
ROWS = {
    "cgan_mnist": Script(
        digits,
        ["--img_size", 8, "--batch_size", 10],
        {"loss_D", "loss_G"},
        {"generator": "ema"},
        alone=["--dropout", 0],
    ),
    "began": Script(
        digits,
        ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10],
        {"loss_real", "loss_fake", "loss_G", "k", "measure"},
        {"generator": "generator"},
    ),
    "dcgan": gan([]),
    "gan": Script(
        digits,
        ["--img_size", 8, "--width", 6, "--maxout_units", 5, "--latent_dim", 6, "--batch_size", 10],
        {"loss_D", "loss_G"},
        {"generator": "generator"},
        alone=["--dropout", 0, "--input_dropout", 0],
    ),
    "wgan": gan(
        ["--n_critic", 2, "--n_critic_long", 2],
        ("wasserstein", "loss_G"),
        exports={"generator": "generator"},
        alone=["--clip", 1],  # else clipping is most of the way that weights go
    ),
    "wgan_gp": gan(
        ["--n_critic", 2], ("wasserstein", "penalty", "loss_G"), exports={"generator": "generator"}
    ),
    "vae": Script(
        digits,
        ["--img_size", 8, "--hidden", 7, "--latent_dim", 3, "--batch_size", 10],
        {"reconstruction", "kl", "elbo"},
        {"decoder": "decoder"},
    ),
    "infogan": Script(
        digits,
        ["--img_size", 8, "--width", 2, "--latent_dim", 6, "--n_categories", 3, "--batch_size", 10],
        {"loss_D", "loss_G", "info_category", "info_continuous"},
        {"generator": "generator"},
        rates={"optimizer_G": 5},
    ),
    "text2img": Script(
        captioned,
        [
            *(
                "--img_size",
                16,
                "--channels",
                1,
                "--width_G",
                4,
                "--width_D",
                4,
                "--latent_dim",
                6,
                "--text_dim",
                8,
            ),
            *("--text_epochs", 0, "--batch_size", 8),
        ],
        {"loss_D", "loss_G"},
        {"generator": "ema"},
        alone=[
            "--text_dim",
            64,
        ],  # else biases that batch norm leaves without a gradient are much of D's way
        fixed=("text_encoder", "image_encoder", "optimizer_T"),
    ),
    "stackgan": Script(
        captioned,
        [
            *(
                "--img_size",
                32,
                "--channels",
                1,
                "--scale",
                2,
                "--width_G",
                4,
                "--width_D",
                4,
                "--n_blocks",
                1,
            ),
            *(
                "--latent_dim",
                6,
                "--text_dim",
                8,
                "--text_epochs",
                0,
                "--stage1_epochs",
                0,
                "--batch_size",
                8,
            ),
        ],
        {"loss_D", "loss_G", "KL"},
        {"generator1": "ema1", "generator2": "ema2"},
        alone=["--text_dim", 64],
        fixed=("encoders", "optimizer_encoders", *STAGE_1),
    ),
    "pix2pix": translator(
        pairs,
        [],
        {"loss_D", "loss_G", "loss_L1"},
        {"generator": "generator"},
        augments=True,
        alone=["--dropout", 0],
    ),
    "cyclegan": translator(
        domains,
        ["--n_blocks", 1, "--pool_size", 3],
        {
            f"loss_{name}"
            for name in (
                "D_A",
                "D_B",
                "G_AB",
                "G_BA",
                "cycle_A",
                "cycle_B",
                "identity_A",
                "identity_B",
            )
        },
        {"G": "G", "F": "F"},
        augments=True,
    ),
    "stargan": translator(
        folders,
        ["--n_blocks", 1, "--n_critic", 2],
        {"wasserstein", "penalty", "loss_D_cls", "loss_G_adv", "loss_G_cls", "loss_rec"},
        {"generator": "generator"},
    ),
    "spade": translator(
        label_maps,
        ["--style_dim", 5, "--lr_ratio", 1],
        {"loss_D", "loss_G", "loss_FM", "loss_KL"},
        {"generator": "ema_G", "encoder": "ema_E"},
        augments=True,
    ),
}
# The first line of losses comes before the first update of a G with --n_critic 2.
SHARED = ["--n_epochs", 2, "--sample_interval", 4, "--log_interval", 1, "--checkpoint_interval", 1]
NOISE = [name for name, row in ROWS.items() if row.starts_from == "noise"]


def make_data(name, folder):
    """A small data set of the script's kind."""
    ROWS[name].make_data(folder)
    return folder


def load(name):
    return importlib.import_module(name)


def run(name, *argv):
    return load(name).main([str(a) for a in argv])


class Tiny:
    """A script's small data and runs, made when they are first asked for; tests read them, and change copies alone."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    @cached_property
    def data(self):
        return make_data(self.name, self.folder / "data")

    @property
    def flags(self):
        """Of a run of 2 epochs of 4 steps."""
        return ["--data_dir", self.data, *SHARED, *ROWS[self.name].flags]

    @cached_property
    def whole(self):
        """A run of both epochs."""
        run(self.name, *self.flags, "--out_dir", self.folder / "whole")
        return self.folder / "whole"

    @cached_property
    def half(self):
        """A run of the first epoch, with the files of --export_pkl."""
        run(
            self.name,
            *self.flags,
            "--n_epochs",
            1,
            "--export_pkl",
            "--out_dir",
            self.folder / "half",
        )
        return self.folder / "half"


# ---- what a run has left ----


def saved_arrays(path):
    """Everything in a checkpoint, a file or the last one of a run, but its text."""
    with np.load(path / checkpoint.FILE_NAME if path.is_dir() else path) as file:
        return {key: file[key] for key in file.files if key != "meta"}


def differences(one, other):
    """Names of the arrays that differ between the checkpoints of two runs, by the check sums in the files."""
    sums = []
    for path in (one, other):
        with zipfile.ZipFile(path / checkpoint.FILE_NAME if path.is_dir() else path) as file:
            sums.append({i.filename[: -len(".npy")]: (i.file_size, i.CRC) for i in file.infolist()})
    one, other = sums
    return sorted(
        key for key in one.keys() | other.keys() if key != "meta" and one.get(key) != other.get(key)
    )


def meta(folder):
    return checkpoint.Reader(folder / checkpoint.FILE_NAME).meta


def pictures(folder):
    """{name: bytes} of the pictures and tables of a run."""
    files = [
        f for f in folder.rglob("*") if f.suffix in (".png", ".csv") and f.name != "losses.png"
    ]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def assert_same_run(one, other):
    assert differences(one, other) == []
    assert pictures(one) == pictures(other)


# ---- the way that weights go ----


def weights(run):
    """Copies of the trained and of the averaged weights, by the names that they have in a checkpoint."""
    kinds = (jt.nn.Module, common.EMA)
    states = {
        name: checkpoint.get_state(part)
        for name, part in run.parts.items()
        if isinstance(part, kinds)
    }
    arrays = {
        f"{name}/{key}": value for name, state in states.items() for key, value in state.items()
    }
    return {key: value for key, value in arrays.items() if isinstance(value, np.ndarray)}


def weights_at_the_start(monkeypatch):
    """A dict that each run to come fills with its weights of before its first step."""
    before, real_track = {}, common.Run.track

    def track(run, exports=None, **parts):
        real_track(run, exports, **parts)
        before.update(weights(run))

    monkeypatch.setattr(common.Run, "track", track)
    return before


def assert_same_way(before, one, two, tolerance, fixed=()):
    """Each network has gone the same way in both runs, within a share of its length; running statistics agree.

    Args:
        fixed: networks that go nowhere.
    """
    statistics = {
        key for key in before if key.endswith(("running_mean", "running_var", "weight_u"))
    }
    for key in statistics:
        assert np.allclose(one[key], two[key], rtol=1e-3, atol=1e-4), key
    for part in {key.split("/")[0] for key in before}:
        keys = [key for key in before if key.split("/")[0] == part and key not in statistics]
        way, other = (
            np.concatenate([(run[key] - before[key]).ravel() for key in keys]) for run in (one, two)
        )
        assert (np.linalg.norm(way) > 0) == (part not in fixed), part
        assert np.linalg.norm(way - other) <= tolerance * np.linalg.norm(way), part
