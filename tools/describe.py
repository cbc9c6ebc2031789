"""Prints the layers of a script's networks, their output shapes and parameter counts.

    python tools/describe.py dcgan.py
    python tools/describe.py dcgan.py --paper --width 64
    python tools/describe.py dcgan.py --resume results/dcgan

All flags after the script's name are the script's. The shapes are those of a batch of
one. A script that EXAMPLES does not know, such as a copy of your own, is printed
without shapes. Nothing is trained or written.
"""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.data.layout import expanded
from common.errors import UserError, print_line

import jittor as jt

from tools.runs import ROOT, load_script

# Jittor counts these among the parameters: the statistics of batch norm, the vector of
# spectral norm, and in improved_gan.py scales and noise that stay as they are.
STATISTICS = ("running_mean", "running_var", "weight_u", "fixed_scale", "reference")
CAPTION_BYTES = 20  # of the text that a text encoder is shown


# ---- what each script's networks take ----


def noise(args):
    return jt.zeros((1, args.latent_dim))


def square(args, size=None):
    """An image of a script whose images are square; `size` is its side."""
    size = size or args.img_size
    return jt.zeros((1, args.channels, size, size))


def image(args):
    """An image of a script that takes rectangular images."""
    return jt.zeros((1, args.channels, *args.shape))


def of_gan(args):
    return {"generator": [noise(args)], "discriminator": [square(args)]}


def of_wasserstein_gan(args):
    return {"generator": [noise(args)], "critic": [square(args)]}


def of_bigan(args):
    return {
        "generator": [noise(args)],
        "encoder": [square(args)],
        "discriminator": [square(args), noise(args)],
    }


def of_gman(args):
    """The discriminators share the images: one for each."""
    images = jt.zeros((args.n_discriminators, args.channels, *args.shape))
    return {"generator": [noise(args)], "discriminators": [images]}


def of_sgan(args):
    labels = jt.zeros(1, "int32")
    features = jt.zeros((1, 8 * args.width))
    return {
        "encoder": [square(args)],
        "generator1": [labels, noise(args)],
        "generator0": [features, noise(args)],
        "discriminator1": [features],
        "discriminator0": [square(args)],
    }


def of_vaegan(args):
    return {
        "encoder": [square(args)],
        "decoder": [noise(args)],
        "discriminator": [square(args)],
    }


def of_vae(args):
    return {"encoder": [square(args)], "decoder": [noise(args)]}


def of_conditional_gan(args):
    label = jt.zeros((1,), "int32")
    return {"generator": [noise(args), label], "discriminator": [square(args), label]}


def of_infogan(args):
    category = jt.zeros((1,), "int32")
    continuous = jt.zeros((1, args.n_continuous))
    return {
        "generator": [noise(args), category, continuous],
        "discriminator": [square(args)],
    }


def of_text2img(args):
    code = jt.zeros((1, args.text_dim))
    return {
        "generator": [noise(args), code],
        "discriminator": [square(args), code],
        "text_encoder": [jt.zeros((1, CAPTION_BYTES), "int32")],
        "image_encoder": [square(args)],
    }


def of_stackgan(args):
    code = jt.zeros((1, args.text_dim))
    e = jt.zeros((1, load_script("stackgan").N_C))
    small = square(args, args.img_size // args.scale)
    return {
        "encoders": None,  # they are not part of the method
        "generator1": [noise(args), code, e],
        "discriminator1": [small, code],
        "generator2": [small, code, e],
        "discriminator2": [square(args), code],
    }


def of_pix2pix(args):
    inputs = jt.zeros((1, args.input_channels, *args.shape))
    outputs = jt.zeros((1, args.output_channels, *args.shape))
    return {"generator": [inputs], "discriminator": [inputs, outputs]}


def of_context_encoder(args):
    part = square(args, args.img_size if args.hole == "random" else args.img_size // 2)
    return {"generator": [square(args)], "discriminator": [part]}


def of_cyclegan(args):
    return {name: [image(args)] for name in ("G", "F", "D_A", "D_B")}


def of_srgan(args):
    return {
        "generator": [square(args, args.img_size // args.scale)],
        "discriminator": [square(args)],
    }


def of_unit(args):
    return {name: [image(args)] for name in ("vaes", "D_A", "D_B")}


def of_stargan(args):
    attributes = jt.zeros((1, len(args.selected_attrs)))
    return {"generator": [image(args), attributes], "discriminator": [image(args)]}


def of_spade(args):
    labels = jt.zeros((1, *args.shape), "int32")
    return {
        "generator": [labels, jt.zeros((1, args.style_dim))],
        "encoder": [image(args)],
        "discriminator": [labels, image(args)],
    }


def of_pix2pixhd(args):
    labels = jt.zeros((1, *args.shape), "int32")
    ids = jt.zeros((1, *args.shape), "int32")
    codes = []
    inputs = {}
    if args.feature_dim > 0:
        codes = [jt.zeros((1, load_script("pix2pixhd").MOST_INSTANCES, args.feature_dim))]
        inputs["encoder"] = [image(args), ids]
    return {
        "generator": [labels, ids, *codes],
        **inputs,
        "discriminator": [labels, ids, image(args)],
    }


# {script: a function of its arguments that returns {network: its inputs}}, the networks
# in the order in which the script's `build` returns them. One whose inputs are None is
# printed without shapes.
EXAMPLES = {
    "began": of_gan,
    "biggan": of_conditional_gan,
    "cgan_mnist": of_conditional_gan,
    "bigan": of_bigan,
    "improved_gan": of_gan,
    "sgan": of_sgan,
    "vaegan": of_vaegan,
    "context_encoder": of_context_encoder,
    "cyclegan": of_cyclegan,
    "dcgan": of_gan,
    "gan": of_gan,
    "gman": of_gman,
    "infogan": of_infogan,
    "pggan": of_gan,
    "pix2pix": of_pix2pix,
    "pix2pixhd": of_pix2pixhd,
    "r3gan": of_gan,
    "spade": of_spade,
    "srgan": of_srgan,
    "stackgan": of_stackgan,
    "stargan": of_stargan,
    "stylegan2": of_gan,
    "text2img": of_text2img,
    "unit": of_unit,
    "vae": of_vae,
    "wgan": of_wasserstein_gan,
    "wgan_gp": of_wasserstein_gan,
}


# ---- one network ----


def n_parameters(network):
    """The number of trained parameters, without the statistics of norms."""
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.endswith(STATISTICS)
    )


def leaves(network):
    """{name: layer} of the layers that have no layers within them."""
    layers = {}
    for name, layer in network.named_modules():
        if name and not list(layer.children()):
            layers[name] = layer
    return layers


def output_shapes(network, inputs):
    """Runs a network once, and reads the shapes; nothing is computed.

    Args:
        inputs: what the network takes, Jittor variables with a batch of one.

    Returns:
        The shapes of the network's outputs, and {layer: shape} in the order in which
        the layers run.
    """
    shapes = {}
    layers = leaves(network)

    def recorded(name, execute):
        def execute_and_record(*args):
            outputs = execute(*args)
            shapes.setdefault(name, ", ".join(flat_shapes(outputs)))
            return outputs

        return execute_and_record

    network.eval()  # a batch of one has no statistics
    for name, layer in layers.items():
        layer.execute = recorded(name, layer.execute)
    try:
        with jt.no_grad():
            outputs = network(*inputs)
    finally:
        for layer in layers.values():
            vars(layer).pop("execute", None)  # the class's own is visible again
    return flat_shapes(outputs), shapes


def flat_shapes(outputs):
    """The shapes of a variable, or of those in nested tuples and lists, as texts."""
    if not isinstance(outputs, (tuple, list)):
        return [str(tuple(outputs.shape))]
    shapes = []
    for output in outputs:
        shapes += flat_shapes(output)
    return shapes


def describe(name, network, inputs=None):
    """Prints a network's layers with their output shapes and parameters.

    Args:
        inputs: as of `output_shapes`, which leaves the network in eval mode; None to
            print no shapes.
    """
    title = name
    layers = leaves(network)
    shapes = dict.fromkeys(layers, "")
    if inputs is not None:
        outputs, shapes = output_shapes(network, inputs)
        title = f"{name}: {', '.join(flat_shapes(inputs))} -> {', '.join(outputs)}"
    rows = []
    for layer_name, shape in shapes.items():
        layer = layers[layer_name]
        rows.append((layer_name, type(layer).__name__, shape, n_parameters(layer)))
    total = n_parameters(network)
    n_others = total - sum(row[3] for row in rows)
    if n_others:
        rows.append(("", "others", "", n_others))

    print(f"\n{title}")
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for layer_name, kind, shape, count in rows:
        print(f"  {layer_name:{widths[0]}}  {kind:{widths[1]}}  {shape:{widths[2]}}  {count:>12,}")
    print(f"  {total:,} parameters ({total / 1e6:.3f} M)", flush=True)


# ---- the networks of a script ----


def load(path):
    """A script as a module: `dcgan.py`, `dcgan`, or the path of a copy elsewhere.

    Raises:
        UserError: there is no such file.
    """
    path = expanded(path)
    if path.suffix != ".py":
        path = path.with_name(f"{path.name}.py")
    if not path.is_file():
        path = ROOT / path
    if not path.is_file():
        raise UserError(f"there is no script {path}")
    if path.resolve().parent == ROOT:
        return load_script(path.stem)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def networks_and_inputs(script, args):
    """{name: (network, its inputs or None)} of what a script builds.

    A script without a row in EXAMPLES names its networks by their classes.
    """
    if args.script == "stargan" and args.selected_attrs is None:
        args.selected_attrs = script.load(args, "test").names  # as its training does
    networks = script.build(args)
    if isinstance(networks, dict):
        return {name: (network, None) for name, network in networks.items()}
    if isinstance(networks, jt.nn.Module):
        networks = [networks]
    networks = [network for network in networks if network is not None]
    if args.script in EXAMPLES:
        inputs = EXAMPLES[args.script](args)
        return {name: (network, inputs[name]) for name, network in zip(inputs, networks)}
    found = {}
    for i, network in enumerate(networks, 1):
        found[f"{i}. {type(network).__name__}"] = (network, None)
    return found


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return
    try:
        if not argv or argv[0].startswith("-"):
            raise UserError("give a script, such as dcgan.py, and then its flags")
        script = load(argv[0])
        args = script.parse_args(argv[1:])
        for name, (network, inputs) in networks_and_inputs(script, args).items():
            describe(name, network, inputs)
    except UserError as error:
        print_line("stderr", f"describe.py: error: {error}")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
