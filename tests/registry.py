"""A row for each script: what the tests that hold for all scripts need to know."""

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
import pytest
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
        pixels = rng.integers(256, size=(*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")


def pairs(folder):
    images(folder / "train", 8, size=(64, 32))
    images(folder / "val", 2, size=(64, 32), seed=1)


def photographs(folder):
    """Images that are larger than the crops."""
    images(folder / "train", 8, size=(40, 36))
    images(folder / "test", 2, size=(40, 36), seed=1)


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
            small = rng.integers(4, size=(4, 4), dtype=np.uint8)
            labels = small.repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(labels).save(folder / split / "labels" / f"{i}.png")


def instance_maps(folder):
    """The layout of pix2pixHD's authors; objects of one class touch."""
    for split, n in (("train", 8), ("test", 3)):
        images(folder / f"{split}_img", n, seed=n, suffix="jpg")
        rng = np.random.default_rng(n)
        for kind, n_values in (("label", 3), ("inst", 5)):
            (folder / f"{split}_{kind}").mkdir()
            for i in range(n):
                small = rng.integers(n_values, size=(4, 4), dtype=np.uint8)
                small[0, 0] = n_values - 1
                large = small.repeat(8, axis=0).repeat(8, axis=1)
                Image.fromarray(large).save(folder / f"{split}_{kind}" / f"{i}.png")


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
        make_data: makes a small data set of the script's type in a folder.
        flags: of the smallest run; with SHARED it has 2 epochs of 4 steps.
        losses: the columns of losses.csv after step and epoch, in any order.
        networks: {network: the part of the checkpoint that --export_pkl takes its
            weights from}, which is the network's average if it has one.
        starts_from: "noise" or "images".
        augments: whether equal images reach the training step as different ones.
        alone: flags for the comparison of two processes with one: without dropout, of
            which each process draws its own.
        rates: {optimizer: its learning rate over --lr}, where they differ.
        own: optimizers whose rates and betas no flag changes.
        lazy: {optimizer: c}, where the rate is c times --lr, and the betas are --b1 and
            --b2 to the power of c.
        fixed: networks and optimizers that the smallest run leaves as they are.
    """

    make_data: Callable
    flags: list
    losses: set
    networks: dict
    starts_from: str = "noise"
    augments: bool = False
    alone: list = field(default_factory=list)
    rates: dict = field(default_factory=dict)
    own: tuple = ()
    lazy: dict = field(default_factory=dict)
    fixed: tuple = ()


SMALL = ["--img_size", 16, "--width", 4, "--latent_dim", 6, "--batch_size", 10]
TRANSLATOR = ["--img_size", 32, "--width", 4, "--batch_size", 2]
AVERAGED_GAN = {"generator": "averaged", "discriminator": "discriminator"}
GAN = {"generator": "generator", "discriminator": "discriminator"}
CRITIC = {"generator": "generator", "critic": "critic"}  # --ema_decay 0: no average

ROWS = {
    "cgan_mnist": Script(
        make_data=digits,
        flags=["--img_size", 8, "--batch_size", 10],
        losses={"loss_D", "loss_G"},
        networks=AVERAGED_GAN,
        alone=["--dropout", 0],
    ),
    "began": Script(
        make_data=digits,
        flags=SMALL,
        losses={"loss_real", "loss_fake", "loss_G", "k", "measure"},
        networks=GAN,
    ),
    "dcgan": Script(
        make_data=digits,
        flags=SMALL,
        losses={"loss_D", "loss_G"},
        networks=AVERAGED_GAN,
    ),
    "gan": Script(
        make_data=digits,
        flags=[
            *("--img_size", 8, "--width", 6, "--maxout_units", 5),
            *("--latent_dim", 6, "--batch_size", 10),
        ],
        losses={"loss_D", "loss_G"},
        networks=GAN,
        alone=["--dropout", 0, "--input_dropout", 0],
    ),
    "wgan": Script(
        make_data=digits,
        flags=[*SMALL, "--n_critic", 2, "--n_critic_long", 2],
        losses={"wasserstein", "loss_G"},
        networks=CRITIC,
        alone=["--clip", 1],  # otherwise clipping is most of what moves the weights
    ),
    "wgan_gp": Script(
        make_data=digits,
        flags=[*SMALL, "--n_critic", 2],
        losses={"wasserstein", "penalty", "loss_G"},
        networks=CRITIC,
    ),
    "stylegan2": Script(
        make_data=digits,
        flags=[
            *SMALL,
            *("--max_width", 8, "--r1_every", 2, "--path_weight", 2, "--path_every", 2),
            *("--augment", "color,translation,cutout"),
        ],
        losses={"loss_D", "loss_G", "r1", "path_length", "path_penalty"},
        networks=AVERAGED_GAN,
        # The groups of two processes are others than those of one.
        alone=["--group_size", 1],
        lazy={"optimizer_G": 2 / 3, "optimizer_D": 2 / 3},
    ),
    "biggan": Script(
        make_data=digits,
        flags=[
            *("--width", 2, "--latent_dim", 8, "--shared_dim", 5, "--batch_size", 10),
            *("--ortho_weight", 0.01),
        ],
        losses={"loss_D", "loss_G", "non_orthogonality"},
        networks=AVERAGED_GAN,
        # With 2, biases that batch norm leaves without a gradient move G most.
        alone=["--width", 16],
        rates={"optimizer_D": 2},
    ),
    "pggan": Script(
        make_data=digits,
        flags=[*SMALL, "--max_width", 8, "--stable_images", 5, "--fade_images", 5],
        losses={"wasserstein", "penalty", "drift", "loss_G"},
        networks=AVERAGED_GAN,
        # The groups of two processes are others than those of one.
        alone=["--group_size", 1],
    ),
    "r3gan": Script(
        make_data=digits,
        flags=[*SMALL, "--group_size", 2, "--gamma", 1],
        losses={"loss_D", "loss_G", "difference", "r1", "r2"},
        networks=AVERAGED_GAN,
    ),
    "vae": Script(
        make_data=digits,
        flags=["--img_size", 8, "--hidden", 7, "--latent_dim", 3, "--batch_size", 10],
        losses={"reconstruction", "kl", "elbo"},
        networks={"encoder": "encoder", "decoder": "decoder"},
    ),
    "vaegan": Script(
        make_data=digits,
        flags=[
            *("--img_size", 16, "--channels", 1, "--width", 4),
            *("--latent_dim", 5, "--batch_size", 10),
        ],
        losses={"loss_prior", "loss_llike", "loss_real", "loss_fake"},
        networks={
            "encoder": "encoder",
            "decoder": "decoder",
            "discriminator": "discriminator",
        },
    ),
    "sgan": Script(
        make_data=digits,
        own=("optimizer_E",),
        flags=[
            *("--img_size", 20, "--width", 2, "--latent_dim", 6),
            *("--encoder_epochs", 0, "--batch_size", 10),
        ],
        losses={
            *("loss_D1", "loss_D0", "loss_G1", "loss_cond1", "loss_ent1"),
            *("loss_G0", "loss_cond0", "loss_ent0"),
        },
        networks={
            "encoder": "encoder",
            "generator1": "generator1",
            "generator0": "generator0",
            "discriminator1": "discriminator1",
            "discriminator0": "discriminator0",
        },
        fixed=("encoder", "optimizer_E"),
    ),
    "improved_gan": Script(
        make_data=digits,
        flags=["--img_size", 8, "--latent_dim", 6, "--n_labels", 20, "--batch_size", 10],
        losses={"loss_unl", "loss_lab", "loss_G"},
        networks={"generator": "generator", "discriminator": "averaged_D"},
        alone=["--input_noise", 0, "--hidden_noise", 0],
    ),
    "bigan": Script(
        make_data=digits,
        flags=["--img_size", 8, "--width", 12, "--latent_dim", 5, "--batch_size", 10],
        losses={"loss_D", "loss_GE"},
        networks={
            "generator": "generator",
            "encoder": "encoder",
            "discriminator": "discriminator",
        },
    ),
    "gman": Script(
        make_data=digits,
        flags=[
            *("--img_size", 16, "--width_G", 4, "--width_D", 4, "--latent_dim", 6),
            *("--n_discriminators", 5, "--batch_size", 10),
        ],
        losses={"loss_D", "loss_G"},
        networks={"generator": "averaged", "discriminators": "discriminators"},
        alone=["--dropout", 0],
    ),
    "infogan": Script(
        make_data=digits,
        flags=[
            *("--img_size", 8, "--width", 2, "--latent_dim", 6),
            *("--n_categories", 3, "--batch_size", 10),
        ],
        losses={"loss_D", "loss_G", "info_category", "info_continuous"},
        networks=GAN,
        rates={"optimizer_G": 5},
    ),
    "text2img": Script(
        make_data=captioned,
        flags=[
            *("--img_size", 16, "--channels", 1, "--width_G", 4, "--width_D", 4),
            *("--latent_dim", 6, "--text_dim", 8, "--text_epochs", 0, "--batch_size", 8),
        ],
        augments=True,
        losses={"loss_D", "loss_G"},
        networks={
            **AVERAGED_GAN,
            "text_encoder": "text_encoder",
            "image_encoder": "image_encoder",
        },
        # With 8, biases that batch norm leaves without a gradient move D most.
        alone=["--text_dim", 64],
        fixed=("text_encoder", "image_encoder", "optimizer_T"),
    ),
    "stackgan": Script(
        make_data=captioned,
        flags=[
            *("--img_size", 32, "--channels", 1, "--scale", 2, "--width_G", 4),
            *("--width_D", 4, "--n_blocks", 1, "--latent_dim", 6, "--text_dim", 8),
            *("--text_epochs", 0, "--stage1_epochs", 0, "--batch_size", 8),
        ],
        augments=True,
        losses={"loss_D", "loss_G", "KL"},
        networks={
            "encoders": "encoders",
            "generator1": "averaged1",
            "discriminator1": "discriminator1",
            "generator2": "averaged2",
            "discriminator2": "discriminator2",
        },
        alone=["--text_dim", 64],
        fixed=(
            "encoders",
            "optimizer_encoders",
            "generator1",
            "discriminator1",
            "averaged1",
            "optimizer_generator1",
            "optimizer_discriminator1",
        ),
    ),
    "pix2pix": Script(
        make_data=pairs,
        flags=TRANSLATOR,
        losses={"loss_D", "loss_G", "loss_L1"},
        networks=GAN,
        starts_from="images",
        augments=True,
        alone=["--dropout", 0],
    ),
    "cyclegan": Script(
        make_data=domains,
        flags=[*TRANSLATOR, "--n_blocks", 1, "--pool_size", 3],
        losses={
            *("loss_D_A", "loss_D_B", "loss_G_AB", "loss_G_BA"),
            *("loss_cycle_A", "loss_cycle_B", "loss_identity_A", "loss_identity_B"),
        },
        networks={"G": "G", "F": "F", "D_A": "D_A", "D_B": "D_B"},
        starts_from="images",
        augments=True,
    ),
    "srgan": Script(
        make_data=photographs,
        flags=[*TRANSLATOR, "--n_blocks", 1, "--mse_epochs", 0],
        losses={"loss_D", "loss_adv", "loss_content"},
        networks=GAN,
        starts_from="images",
        fixed=("optimizer_MSE",),
    ),
    "unit": Script(
        make_data=domains,
        flags=[*TRANSLATOR, "--n_blocks", 1],
        losses={
            *("loss_D_A", "loss_D_B", "loss_G_AB", "loss_G_BA"),
            *("loss_rec_A", "loss_rec_B", "loss_cycle_A", "loss_cycle_B"),
            *("loss_KL", "loss_KL_cycle"),
        },
        networks={"vaes": "vaes", "D_A": "D_A", "D_B": "D_B"},
        starts_from="images",
        augments=True,
    ),
    "stargan": Script(
        make_data=folders,
        flags=[*TRANSLATOR, "--n_blocks", 1, "--n_critic", 2],
        losses={
            *("wasserstein", "penalty", "loss_D_cls"),
            *("loss_G_adv", "loss_G_cls", "loss_rec"),
        },
        networks=GAN,
        starts_from="images",
    ),
    "context_encoder": Script(
        make_data=digits,
        # The mask in the centre would not depend on the seed.
        flags=[
            *("--img_size", 16, "--width", 4, "--bottleneck", 12),
            *("--hole", "random", "--batch_size", 10),
        ],
        losses={"loss_D", "loss_adv", "loss_rec"},
        networks=GAN,
        starts_from="images",
        rates={"optimizer_G": 10},
    ),
    "spade": Script(
        make_data=label_maps,
        flags=[*TRANSLATOR, "--style_dim", 5, "--lr_ratio", 1],
        losses={"loss_D", "loss_G", "loss_FM", "loss_KL"},
        networks={
            "generator": "averaged_G",
            "encoder": "averaged_E",
            "discriminator": "discriminator",
        },
        starts_from="images",
        augments=True,
    ),
    "pix2pixhd": Script(
        make_data=instance_maps,
        flags=[
            *TRANSLATOR,
            *("--n_down", 2, "--n_blocks", 1, "--n_blocks_local", 1),
            *("--width_D", 4, "--width_E", 4, "--feature_dim", 2, "--n_clusters", 3),
            *("--global_epochs", 0, "--fixed_epochs", 0),
        ],
        losses={"loss_D", "loss_G", "loss_FM"},
        networks={
            "generator": "generator",
            "encoder": "encoder",
            "discriminator": "discriminator",
        },
        starts_from="images",
        augments=True,
        fixed=("encoder", "optimizer_global", "optimizer_coarse_D", "optimizer_enhancer"),
    ),
}
NOISE = [name for name, row in ROWS.items() if row.starts_from == "noise"]

# What common/ does around the training is tested on four scripts by default, on all
# others with `-m slow`: one from noise, one with pools, one of several phases, one
# without D.
ARCHETYPES = ("dcgan", "cyclegan", "stackgan", "vae")
EVERY_SCRIPT = [
    name if name in ARCHETYPES else pytest.param(name, marks=pytest.mark.slow) for name in ROWS
]

# The first line of losses comes before the first update of a G with --n_critic 2.
SHARED = ["--n_epochs", 2, "--sample_interval", 4, "--log_interval", 1, "--checkpoint_interval", 1]


def make_data(name, folder):
    """A small data set of the script's kind."""
    ROWS[name].make_data(folder)
    return folder


def load(name):
    """The script as a module."""
    return importlib.import_module(name)


def run(name, *argv):
    """Calls a script's main with these flags."""
    load(name).main([str(a) for a in argv])


class Tiny:
    """A script's small data and runs, made when they are first asked for.

    All tests share them: read them, and change copies alone.
    """

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder

    @cached_property
    def data(self):
        return make_data(self.name, self.folder / "data")

    @property
    def flags(self):
        """Of a run of 2 epochs of 4 steps."""
        return ["--data_dir", self.data, *SHARED, *ROWS[self.name].flags]

    @cached_property
    def whole(self):
        """The folder of a run of both epochs."""
        folder = self.folder / "whole"
        run(self.name, *self.flags, "--out_dir", folder)
        return folder

    @cached_property
    def half(self):
        """The folder of a run of the first epoch, with the files of --export_pkl."""
        folder = self.folder / "half"
        run(self.name, *self.flags, "--n_epochs", 1, "--export_pkl", "--out_dir", folder)
        return folder


# ---- what a run has left ----


def checkpoint_of(path):
    """The checkpoint file of a run's folder; a file is returned as it is."""
    return path / checkpoint.FILE_NAME if path.is_dir() else path


def saved_arrays(path):
    """{name: array} of a checkpoint, without its text."""
    with np.load(checkpoint_of(path)) as file:
        return {key: file[key] for key in file.files if key != "meta"}


def differences(one, other):
    """The arrays that differ between two runs' checkpoints, by the check sums."""
    sums = []
    for path in (one, other):
        with zipfile.ZipFile(checkpoint_of(path)) as file:
            entries = {i.filename.removesuffix(".npy"): i for i in file.infolist()}
        entries.pop("meta")
        sums.append({name: (i.file_size, i.CRC) for name, i in entries.items()})
    names = sums[0].keys() | sums[1].keys()
    return sorted(name for name in names if sums[0].get(name) != sums[1].get(name))


def meta(folder):
    """The text of a run's last checkpoint, as a dict."""
    return checkpoint.Reader(folder / checkpoint.FILE_NAME).meta


def pictures(folder):
    """{name: bytes} of a run's pictures and tables, but losses.png."""
    files = [f for f in folder.rglob("*") if f.suffix in (".png", ".csv")]
    files = [f for f in files if f.name != "losses.png"]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def assert_same_run(one, other):
    assert differences(one, other) == []
    assert pictures(one) == pictures(other)


# ---- how far a run has moved the weights ----


def weights(run):
    """Copies of the trained and the averaged weights, by their checkpoint names."""
    arrays = {}
    for part_name, part in run.parts.items():
        if not isinstance(part, (jt.nn.Module, common.EMA)):
            continue
        for name, value in checkpoint.get_state(part).items():
            if isinstance(value, np.ndarray):
                arrays[f"{part_name}/{name}"] = value
    return arrays


def weights_at_the_start(monkeypatch):
    """A dict that each later run fills with its weights before the first step."""
    before = {}
    real_restore = common.Run.restore

    def restore(run):
        real_restore(run)
        before.update(weights(run))

    monkeypatch.setattr(common.Run, "restore", restore)
    return before


def assert_same_movement(before, one, two, tolerance, fixed=()):
    """Two runs have moved each network alike; their running statistics agree.

    Args:
        before, one, two: {name: array} at the start, and after each run.
        tolerance: of the difference, as a share of the movement's length.
        fixed: networks that do not move.
    """
    endings = ("running_mean", "running_var", "weight_u")
    statistics = {key for key in before if key.endswith(endings)}
    for key in statistics:
        assert np.allclose(one[key], two[key], rtol=1e-3, atol=1e-4), key
    for part in {key.split("/")[0] for key in before}:
        keys = [key for key in before if key.split("/")[0] == part and key not in statistics]
        moved = np.concatenate([(one[key] - before[key]).ravel() for key in keys])
        other = np.concatenate([(two[key] - before[key]).ravel() for key in keys])
        assert (np.linalg.norm(moved) > 0) == (part not in fixed), part
        assert np.linalg.norm(moved - other) <= tolerance * np.linalg.norm(moved), part
