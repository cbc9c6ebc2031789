"""Runs of untrained networks, for the tools that open a run."""

from common import EMA, checkpoint
from common.cli import stored

from registry import load

# The parts of a checkpoint in the order in which `build` returns them, and those that
# have an average.
NETWORKS = {
    "bigan": ("generator", "encoder", "discriminator"),
    "context_encoder": ("generator",),
    "cyclegan": ("G", "F"),
    "infogan": ("generator", "discriminator"),
    "pix2pix": ("generator",),
    "sgan": ("encoder", "generator1", "generator0", "discriminator1", "discriminator0"),
    "srgan": ("generator",),
    "stargan": ("generator",),
    "text2img": ("generator", "discriminator", "text_encoder", "image_encoder"),
    "unit": ("vaes", "D_A", "D_B"),
    "vae": ("encoder", "decoder"),
    "vaegan": ("encoder", "decoder", "discriminator"),
}
AVERAGES = {
    "cyclegan": {"averaged_G": "G", "averaged_F": "F"},
    "text2img": {"averaged": "generator"},
}


# Lists that a training sets to what its data have.
LISTS = {"stargan": {"exclusive": []}, "text2img": {"text": ["a thin blue nine"]}}


def write_untrained_run(name, folder, *flags):
    """Writes the checkpoint of a script's untrained networks; returns the folder."""
    script = load(name)
    args = script.parse_args([*flags])
    for key, value in LISTS.get(name, {}).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    parts = dict(zip(NETWORKS[name], script.build(args)))
    for average, source in AVERAGES.get(name, {}).items():
        parts[average] = EMA(parts[source], args.ema_decay)
    return write_checkpoint(name, args, parts, folder)


def write_checkpoint(name, args, parts, folder):
    """Writes a checkpoint of a run that has not trained yet; returns its new folder."""
    meta = {
        "script": name,
        "args": stored(args),
        "step": 0,
        "epoch": 0,
        "n_images": 0,
        "phase": "",
        "losses": {},
        "rng": {},
        "order": {},
    }
    folder.mkdir()
    checkpoint.save(folder / checkpoint.FILE_NAME, parts, meta)
    return folder
