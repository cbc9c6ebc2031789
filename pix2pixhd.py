"""pix2pixHD: large images from label maps, with a choice of looks for each object.

Wang 2018, https://arxiv.org/abs/1711.11585

    python pix2pixhd.py     # crowds of digits over sky, water and ground; 11 minutes
    python pix2pixhd.py --paper --data_dir CITYSCAPES   # the paper's setting, for a GPU
    python pix2pixhd.py --resume results/pix2pixhd --sample_only --seed 1  # other looks
    python pix2pixhd.py --resume results/pix2pixhd --sample_only \\
        --maps LABELS --instance_maps INSTANCES    # paints every map of a folder
    python tools/evaluate.py instances results/pix2pixhd

Method
    A label map m gives a class to each pixel, and an instance map says which pixels
    belong to the same object. Where two objects of one class touch, m does not show it.
    The instance map does: b is 1 at pixels of which one of the four neighbours belongs
    to another object, and 0 elsewhere. An encoder E computes features of an image y,
    and averages them over each object. These codes c are what m and b leave open, such
    as an object's colour.

    The global generator G1 paints G1(m, b, c) at half the size. Then the local enhancer
    G2 paints the whole size. It adds the last features of G1 to its own.
    A discriminator D_k sees an image and its m and b; each D_k sees them at another
    size. The score D_k(y) is high where a patch of y looks real; D_k^i are the features
    of D_k's i-th layer. With x = G(m, b, c), and sums over the sizes k:

        L_D   = 1/2 sum over k of E[(D_k(y) - 1)^2] + E[D_k(x)^2]
        L_G   = sum over k of E[(D_k(x) - 1)^2]
        L_FM  = mean over k of the sum over i of E|D_k^i(y) - D_k^i(x)|
        L_VGG = sum over i of w_i E|V_i(y) - V_i(x)|

    V_i are features of VGG19, which was trained before. D minimizes L_D; G and E
    minimize L_G + 10 L_FM + 10 L_VGG.

    A run has three phases. For --global_epochs, G1 and E are trained with the D_k of
    the two smaller sizes. Then E is fixed. For --fixed_epochs, G1 is fixed too, and G2
    is trained with all D_k. Then G1 and G2 are trained together. After the first phase,
    the codes of each class in the training images are put into groups (k-means). The
    centre of a group is a look that objects of the class can have in new images.

What to expect
    The built-in scenes are crowds of digits in front of sky, water and ground. All
    digits are of one class. The rows of result.png are maps with their boundaries,
    their images, outputs with these images' codes, and two with random looks. D only
    guesses at a loss_D of 0.25 for each size, which is 0.5 in the first phase and 0.75
    later; near 0, it has won.

Differences from the paper
    which --paper undoes:
    * 64 x 64 pixels, narrow networks that halve the size once, and batches of 4 for 12
      epochs
    and which it leaves:
    * L_VGG is left out unless --vgg names VGG19's weights, which come with no script
    * the encoder, an option in the authors' code, is always there, unless --feature_dim
      is 0; it sees images of half the size
    * two pixels are of one object if they have the same id and the same class
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common import vgg
from common.clusters import k_means
from common.data import instances, label_maps, spread
from common.data.instances import MOST_INSTANCES
from common.data.label_maps import Classes
from common.errors import say
from common.translation import write_picture

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' code (github.com/NVIDIA/pix2pixHD, options/, scripts/train_512p_feat.sh
# and train_1024p_feat_24G.sh): 100 + 100 epochs of G1, then 50 + 50 with G2.
PAPER = {
    "n_epochs": 300,
    "global_epochs": 200,
    "fixed_epochs": 10,
    "decay_epoch": 250,
    "batch_size": 1,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_height": 1024,
    "img_width": 2048,
    "n_down": 4,
    "n_blocks": 9,
    "n_blocks_local": 3,
    "width": 32,
    "width_D": 64,
    "width_E": 16,
    "feature_dim": 3,
    "n_clusters": 10,
    "lambda_FM": 10.0,
    "lambda_VGG": 10.0,
}
N_SCALES = 3  # sizes at which the discriminators see an image; two of them see G1's
SMALLEST_SHARE = 1 / 64  # of an image, for an object whose code becomes part of a look
MOST_SCENES = 2000  # training images whose codes are put into groups


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=12, batch_size=4, lr=0.0002)
    parser.set_defaults(sample_interval=500, checkpoint_interval=1)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_decay(decay_epoch=9)
    add_architecture(parser)
    add_maps(parser)
    parser.add_augmentation()
    parser.add_argument(
        "--global_epochs",
        type=int,
        default=6,
        at_least=0,
        help="how many of the epochs train G1, at half the size",
    )
    parser.add_argument(
        "--fixed_epochs",
        type=int,
        default=1,
        at_least=0,
        help="how many of the epochs then train G2 with a fixed G1, before both are trained",
    )
    parser.add_argument("--lambda_FM", type=float, default=10.0, help="weight of L_FM")
    parser.add_argument("--lambda_VGG", type=float, default=10.0, help="weight of L_VGG")
    parser.add_argument(
        "--vgg", metavar="FILE", help="VGG19's weights as .npz (default: no perceptual loss)"
    )
    parser.add_argument(
        "--maps", metavar="DIR", stored=False, help="with --sample_only: label maps to paint"
    )
    parser.add_argument(
        "--instance_maps", metavar="DIR", stored=False, help="instance maps with these names"
    )
    args = parser.parse(argv)
    check_maps(parser, args)
    parser.shape_is_multiple_of(args, 2 ** (args.n_down + 1), at_least=2 ** (args.n_down + 2))
    vgg.check_name(parser, args.vgg)
    return args


def check_maps(parser, args):
    """Refuses maps to paint that do not belong to the call, or to the networks."""
    if args.maps is None and args.instance_maps is not None:
        parser.error("--instance_maps belongs to --maps, the label maps to paint")
    if args.maps is None:
        return
    if not args.sample_only:
        parser.error("--maps needs --sample_only and --resume with the checkpoint to use")
    if args.no_boundary and args.instance_maps is not None:
        parser.error("--instance_maps: the networks were trained without instance maps")
    if not args.no_boundary and args.instance_maps is None:
        parser.error("--maps: the networks read instance maps too; give --instance_maps")


def add_architecture(parser):
    """Flags that are stored with the weights; --resume takes them from there."""
    parser.add_images(img_size=64, channels=3)
    parser.add_architecture(
        "--n_down", type=int, default=1, at_most=6, help="how often G1 and E halve the size"
    )
    parser.add_architecture(
        "--n_blocks", type=int, default=4, at_least=0, at_most=50, help="residual blocks of G1"
    )
    parser.add_architecture(
        "--n_blocks_local", type=int, default=2, at_least=0, at_most=50, help="the same of G2"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=256, help="channels of G2's first layer; G1: twice"
    )
    parser.add_architecture(
        "--width_D", type=int, default=32, at_most=256, help="channels of D's first layer"
    )
    parser.add_architecture(
        "--width_E", type=int, default=8, at_most=256, help="channels of E's first layer"
    )
    parser.add_architecture(
        "--feature_dim",
        type=int,
        default=3,
        at_least=0,
        at_most=64,
        help="length of an object's code (0: no encoder)",
    )
    parser.add_architecture(
        "--n_clusters", type=int, default=10, at_most=1000, help="looks of each class, at most"
    )


def add_maps(parser):
    """Flags of what the networks read from maps; --resume takes them too."""
    parser.add_architecture(
        "--no_boundary", action="store_true", help="leave out the boundaries between objects"
    )
    parser.add_architecture(
        "--n_classes",
        type=int,
        at_most=label_maps.LARGEST_LABEL + 1,
        help="labels are below this number (default: found in the maps)",
    )
    parser.add_architecture(
        "--ignore_label",
        type=int,
        at_least=0,
        at_most=label_maps.LARGEST_LABEL,
        help="label of unknown pixels, which becomes the last class",
    )


# ---- what the networks see ----


def boundaries(ids):
    """ids (B, H, W)  ->  b (B, 1, H, W).

    It is 1 where one of the four neighbours has another id, and 0 elsewhere.
    """
    up = jt.concat([ids[:, :1], ids[:, :-1]], dim=1)
    down = jt.concat([ids[:, 1:], ids[:, -1:]], dim=1)
    left = jt.concat([ids[:, :, :1], ids[:, :, :-1]], dim=2)
    right = jt.concat([ids[:, :, 1:], ids[:, :, -1:]], dim=2)
    differs = (ids != up) | (ids != down) | (ids != left) | (ids != right)
    return differs.float32().unsqueeze(1)


def rows_of(ids):
    """ids (B, H, W)  ->  (B H W,): each pixel's row in a table of all objects.

    The table has MOST_INSTANCES rows for each image.
    """
    first_rows = MOST_INSTANCES * jt.arange(len(ids)).reshape(-1, 1, 1)
    return (ids + first_rows).reshape(-1)


def average(features, ids):
    """The mean features of each object.

    Args:
        features: (B, C, H, W).
        ids: (B, H, W) int32, from 0 to MOST_INSTANCES - 1.

    Returns:
        (B, MOST_INSTANCES, C), 0 for an id without pixels.
    """
    n, c = features.shape[:2]
    pixels = features.permute(0, 2, 3, 1).reshape(-1, c)
    pixels = jt.concat([pixels, jt.ones((len(pixels), 1))], dim=1)  # the ones are counted
    table = [n * MOST_INSTANCES, c + 1]
    sums = pixels.reindex_reduce("add", table, ["@e0(i0)", "i1"], extras=[rows_of(ids)])
    means = sums[:, :c] / jt.maximum(sums[:, c:], 1)
    return means.reshape(n, MOST_INSTANCES, c)


def fill(codes, ids):
    """codes (B, MOST_INSTANCES, C), ids (B, H, W)  ->  codes of pixels (B, C, H, W)."""
    n, height, width = ids.shape
    c = codes.shape[2]
    pixels = codes.reshape(-1, c)[rows_of(ids)]
    return pixels.reshape(n, height, width, c).permute(0, 3, 1, 2)


class Inputs(nn.Module):
    """labels, ids, codes  ->  (B, n_channels, H, W): m, b and c of each pixel.

    Labels are classes (B, H, W) from 0 to n_classes - 1; ids and codes as of `average`.
    Codes are None if feature_dim is 0.
    """

    def __init__(self, n_classes, has_boundary, feature_dim):
        super().__init__()
        self.n_classes = n_classes
        self.has_boundary = has_boundary
        self.feature_dim = feature_dim
        self.n_channels = n_classes + has_boundary + feature_dim

    def execute(self, labels, ids, codes=None):
        maps = [label_maps.one_hot(labels, self.n_classes)]
        if self.has_boundary:
            maps += [boundaries(ids)]
        if self.feature_dim > 0:
            maps += [fill(codes, ids)]
        return jt.concat(maps, dim=1)


# ---- generator ----


class Residual(nn.Module):
    """x (B, C, H, W)  ->  x + f(x), where f consists of two convolutions."""

    def __init__(self, c):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv(c, c, 3),
            nn.InstanceNorm2d(c, affine=False),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv(c, c, 3),
            nn.InstanceNorm2d(c, affine=False),
        )

    def execute(self, x):
        return x + self.layers(x)


def first_layers(c_in, c):
    """Layers (B, c_in, H, W)  ->  (B, c, H, W)."""
    return [
        nn.ReflectionPad2d(3),
        nn.Conv(c_in, c, 7),
        nn.InstanceNorm2d(c, affine=False),
        nn.ReLU(),
    ]


def halving(c):
    """Layers (B, c, H, W)  ->  (B, 2 c, H / 2, W / 2)."""
    return [
        nn.Conv(c, 2 * c, 3, stride=2, padding=1),
        nn.InstanceNorm2d(2 * c, affine=False),
        nn.ReLU(),
    ]


def doubling(c):
    """Layers (B, c, H, W)  ->  (B, c / 2, 2 H, 2 W)."""
    return [
        nn.ConvTranspose(c, c // 2, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(c // 2, affine=False),
        nn.ReLU(),
    ]


def last_layers(c, c_out):
    """Layers (B, c, H, W)  ->  (B, c_out, H, W) in [-1, 1]."""
    return [
        nn.ReflectionPad2d(3),
        nn.Conv(c, c_out, 7),
        nn.Tanh(),
    ]


class GlobalGenerator(nn.Module):
    """G1: labels, ids, codes (see Inputs)  ->  images (B, channels, H, W) in [-1, 1].

    H and W are multiples of 2^n_down.
    """

    def __init__(self, inputs, channels, width, n_down, n_blocks):
        super().__init__()
        self.inputs = inputs
        c = width
        layers = first_layers(inputs.n_channels, c)
        for _ in range(n_down):
            layers += halving(c)
            c *= 2
        for _ in range(n_blocks):
            layers += [Residual(c)]
        for _ in range(n_down):
            layers += doubling(c)
            c //= 2
        self.body = nn.Sequential(*layers)
        self.last = nn.Sequential(*last_layers(c, channels))

    def features(self, x):
        """x of Inputs  ->  (B, width, H, W), from which G1 makes its image."""
        return self.body(x)

    def execute(self, labels, ids, codes=None):
        return self.last(self.features(self.inputs(labels, ids, codes)))


class Enhancer(nn.Module):
    """G2: x (B, c_in, H, W) and G1's features  ->  images (B, channels, H, W).

    The features are (B, 2 width, H / 2, W / 2), and the images lie in [-1, 1].
    """

    def __init__(self, c_in, channels, width, n_blocks):
        super().__init__()
        self.down = nn.Sequential(*first_layers(c_in, width), *halving(width))
        layers = []
        for _ in range(n_blocks):
            layers += [Residual(2 * width)]
        layers += doubling(2 * width)
        layers += last_layers(width, channels)
        self.up = nn.Sequential(*layers)

    def execute(self, x, features):
        return self.up(self.down(x) + features)


class Generator(nn.Module):
    """G1 and G2 together: labels, ids, codes  ->  images, all of the whole size.

    Attributes:
        coarse: G1, which works on its own at half the size.
        enhancer: G2.
    """

    def __init__(self, inputs, channels, width, n_down, n_blocks, n_blocks_local):
        super().__init__()
        self.coarse = GlobalGenerator(inputs, channels, 2 * width, n_down, n_blocks)
        self.enhancer = Enhancer(inputs.n_channels, channels, width, n_blocks_local)

    def parameters_of_whole_images(self):
        """All parameters but those of G1's last layers, which make its own image."""
        return self.coarse.body.parameters() + self.enhancer.parameters()

    def execute(self, labels, ids, codes=None):
        x = self.coarse.inputs(labels, ids, codes)
        return self.enhancer(x, self.coarse.features(halve(x)))


def halve(x):
    """(B, C, H, W)  ->  (B, C, H / 2, W / 2)."""
    return nn.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


# ---- encoder and discriminators ----


class Encoder(nn.Module):
    """E: images (B, channels, H, W), ids (B, H, W)  ->  codes, as those of `average`.

    They lie in [-1, 1]. H is `height`, or twice that: then the images are halved first.
    """

    def __init__(self, height, channels, feature_dim, width, n_down):
        super().__init__()
        self.height = height
        c = width
        layers = first_layers(channels, c)
        for _ in range(n_down):
            layers += halving(c)
            c *= 2
        for _ in range(n_down):
            layers += doubling(c)
            c //= 2
        layers += last_layers(c, feature_dim)
        self.layers = nn.Sequential(*layers)

    def execute(self, images, ids):
        if images.shape[2] > self.height:
            _, ids, images = at_half_size(ids, ids, images)
        return average(self.layers(images), ids)


def at_half_size(labels, ids, images):
    """A batch as G1 sees it: every other pixel of maps, means of 2 x 2 pixels."""
    return labels[:, ::2, ::2], ids[:, ::2, ::2], nn.avg_pool2d(images, 2)


class PatchDiscriminator(nn.Module):
    """(B, c_in, H, W)  ->  the outputs of five layers, a list.

    The first four are features, the last one is scores (B, 1, h, w). Each score is for
    a patch of the input, and high for a real one.
    """

    def __init__(self, c_in, width):
        super().__init__()
        c = width
        layers = [  # (B, c_in, H, W) -> (B, width, H / 2 + 1, W / 2 + 1)
            nn.Sequential(
                nn.Conv(c_in, c, 4, stride=2, padding=2),
                nn.LeakyReLU(0.2),
            )
        ]
        for stride in (2, 2, 1):  # the sides are divided by the stride, and 1 is added
            layers += [
                nn.Sequential(
                    nn.Conv(c, 2 * c, 4, stride=stride, padding=2),
                    nn.InstanceNorm2d(2 * c, affine=False),
                    nn.LeakyReLU(0.2),
                )
            ]
            c *= 2
        layers += [nn.Conv(c, 1, 4, padding=2)]
        self.layers = nn.ModuleList(layers)

    def execute(self, x):
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class Discriminator(nn.Module):
    """labels, ids, images (B, channels, H, W)  ->  the outputs of the D_k.

    Each D_k belongs to one size. Images of the whole size, whose height is `height`,
    are seen by all N_SCALES of them, and images of half the size by all but the last.
    The outputs are lists of PatchDiscriminator, those of the smallest size first.
    """

    def __init__(self, inputs, channels, height, width):
        super().__init__()
        self.inputs = inputs
        self.height = height
        scales = []
        for _ in range(N_SCALES):
            scales += [PatchDiscriminator(inputs.n_channels + channels, width)]
        self.scales = nn.ModuleList(scales)

    def coarse_parameters(self):
        """The parameters of those D_k that see G1's images."""
        return self.scales[0].parameters() + self.scales[1].parameters()

    def execute(self, labels, ids, images):
        x = jt.concat([self.inputs(labels, ids), images], dim=1)
        n_scales = N_SCALES if images.shape[2] == self.height else N_SCALES - 1
        outputs = []
        for k in reversed(range(n_scales)):
            outputs.insert(0, self.scales[k](x))
            x = halve(x)
        return outputs


def initialize(network):
    """Weights from N(0, 0.02^2), as in the authors' code; biases stay as they are."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)


def build(args):
    """The generator, the encoder and the discriminator; the encoder may be None."""
    n_classes = instances.n_classes(args)
    has_boundary = not args.no_boundary
    height = args.shape[0]
    generator = Generator(
        Inputs(n_classes, has_boundary, args.feature_dim),
        args.channels,
        args.width,
        args.n_down,
        args.n_blocks,
        args.n_blocks_local,
    )
    encoder = None
    if args.feature_dim > 0:
        encoder = Encoder(height // 2, args.channels, args.feature_dim, args.width_E, args.n_down)
    inputs_D = Inputs(n_classes, has_boundary, feature_dim=0)
    discriminator = Discriminator(inputs_D, args.channels, height, args.width_D)
    for network in (generator, encoder, discriminator):
        if network is not None:
            initialize(network)
            network.train()
    return generator, encoder, discriminator


# ---- losses and one training step ----


def discriminator_loss(real, fake):
    """L_D of the discriminators' outputs for real and for generated images."""
    loss = 0
    for real_outputs, fake_outputs in zip(real, fake):
        real_scores = real_outputs[-1]
        fake_scores = fake_outputs[-1]
        common.check_same_shape(real_scores, fake_scores)
        loss += ((real_scores - 1) ** 2).mean() + (fake_scores**2).mean()
    return loss / 2


def generator_loss(fake):
    """L_G of the discriminators' outputs for generated images."""
    loss = 0
    for outputs in fake:
        loss += ((outputs[-1] - 1) ** 2).mean()
    return loss


def feature_matching(real, fake):
    """L_FM of the discriminators' outputs for real and for generated images."""
    loss = 0
    for real_outputs, fake_outputs in zip(real, fake):
        for real_features, fake_features in zip(real_outputs[:-1], fake_outputs[:-1]):
            common.check_same_shape(real_features, fake_features)
            loss += jt.abs(real_features.detach() - fake_features).mean()
    return loss / len(real)


def train_step(networks, optimizers, labels, ids, images, *, lambda_FM, lambda_VGG, vgg_loss=None):
    """Updates G and D; both gradients are those of the weights before the step.

    Args:
        networks: the generator, the encoder and the discriminator. The generator is G1
            for images of half the size. The encoder may be None.
        optimizers: that of what is trained of G and E, and that of D.
        labels: classes (B, H, W) int32.
        ids: (B, H, W) int32, of the instances.
        images: (B, channels, H, W) in [-1, 1], of these maps.
        vgg_loss: a function of real and generated images that returns L_VGG, or None.

    Returns:
        {"loss_D", "loss_G", "loss_FM"}, and "loss_VGG" if there is one, as Jittor
        scalars without their weights.
    """
    generator, encoder, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    codes = None
    if encoder is not None:
        codes = encoder(images, ids)
    fake = generator(labels, ids, codes)

    # G and E: images that D should take for real
    real_outputs = discriminator(labels, ids, images)
    fake_outputs = discriminator(labels, ids, fake)
    loss_G = generator_loss(fake_outputs)
    loss_FM = feature_matching(real_outputs, fake_outputs)
    losses = {"loss_G": loss_G, "loss_FM": loss_FM}
    total = loss_G + lambda_FM * loss_FM
    if vgg_loss is not None:
        losses["loss_VGG"] = vgg_loss(images, fake)
        total = total + lambda_VGG * losses["loss_VGG"]
    # Jittor: computes the gradients of the optimizer's parameters, and updates. The
    # outputs are kept for D's gradients.
    optimizer_G.step(total, retain_graph=True)

    # D: the same outputs, for real images and for generated ones
    loss_D = discriminator_loss(real_outputs, fake_outputs)
    optimizer_D.step(loss_D)
    return {"loss_D": loss_D, **losses}


# ---- training ----


def train(run, args):
    vgg_loss = vgg.Perceptual(args.vgg) if args.vgg is not None else None
    data = instances.load(args, "train")
    shown = spread(instances.load(args, "test"))
    generator, encoder, discriminator = build(args)
    looks = Looks(instances.n_classes(args), args.n_clusters, args.feature_dim)
    weights_E = [] if encoder is None else encoder.parameters()
    optimizer_global = adam(generator.coarse.parameters() + weights_E, args)
    optimizer_coarse_D = adam(discriminator.coarse_parameters(), args)
    optimizer_enhancer = adam(generator.enhancer.parameters(), args)
    optimizer_G = adam(generator.parameters_of_whole_images(), args)
    optimizer_D = adam(discriminator.parameters(), args)

    run.checkpoint(  # what checkpoint_last.npz holds
        **parts_of(generator, encoder),
        discriminator=discriminator,
        looks=looks,
        optimizer_global=optimizer_global,
        optimizer_coarse_D=optimizer_coarse_D,
        optimizer_enhancer=optimizer_enhancer,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    whole = (generator, encoder, discriminator)
    stages = {
        "global": (
            (generator.coarse, encoder, discriminator),
            optimizer_global,
            optimizer_coarse_D,
        ),
        "enhancer": (whole, optimizer_enhancer, optimizer_D),
        "both": (whole, optimizer_G, optimizer_D),
    }
    lengths = {"global": args.global_epochs, "enhancer": args.fixed_epochs, "both": None}
    for phase in run.phases(lengths):  # None: the rest of the run
        networks, *optimizers = stages[phase]
        train_phase(run, args, data, shown, networks, optimizers, vgg_loss)
        if encoder is not None and (phase == "global" or not looks.are_known()):
            looks.find(encoder, data, args.batch_size)  # E is fixed from here on
            if run.has_begun:  # otherwise the checkpoint is already what it was
                run.save()
    generator = trained_part(generator, args, run.epoch)
    write_rows(run, generator, encoder, looks, shown, args, to="result.png")


def parts_of(generator, encoder):
    """{name: network} for a checkpoint, without an encoder that is None."""
    if encoder is None:
        return {"generator": generator}
    return {"generator": generator, "encoder": encoder}


def adam(parameters, args):
    return nn.Adam(parameters, lr=args.lr, betas=(args.b1, args.b2))


def train_phase(run, args, data, shown, networks, optimizers, vgg_loss):
    """Trains for a phase; G1 alone is trained with images of half the size."""
    generator, encoder, _ = networks
    is_half = isinstance(generator, GlobalGenerator)
    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        lr = rate(args, epoch, run.phase.first_epoch, is_half)
        for optimizer in optimizers:
            optimizer.lr = lr
        for labels, ids, images in run.batches(data):  # counts the steps; Ctrl-C saves
            if is_half:
                labels, ids, images = at_half_size(labels, ids, images)
            losses = train_step(
                networks,
                optimizers,
                labels,
                ids,
                images,
                lambda_FM=args.lambda_FM,
                lambda_VGG=args.lambda_VGG,
                vgg_loss=vgg_loss,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                write_rows(run, generator, encoder, None, shown, args)


def rate(args, epoch, first_epoch, is_half):
    """The learning rate of a phase's epoch, counted from 1.

    That of G1 falls linearly in the second half of --global_epochs. Then it is the full
    one again, and falls after --decay_epoch.
    """
    if is_half:
        n_epochs = args.global_epochs
        return common.linear_decay(epoch, args.lr, n_epochs // 2, n_epochs)
    return common.linear_decay(first_epoch + epoch, args.lr, args.decay_epoch, args.decay_until)


# ---- looks ----


class Looks:
    """The codes that objects of a class can have in new images.

    Attributes:
        centres: (n_classes, n_clusters, feature_dim) float32, of groups of codes.
        counts: (n_classes,) int32, how many of them are known. A class that is in no
            training image has none, and its objects get the code 0.
    """

    def __init__(self, n_classes, n_clusters, feature_dim):
        self.centres = np.zeros((n_classes, n_clusters, feature_dim), np.float32)
        self.counts = np.zeros(n_classes, np.int32)

    def are_known(self):
        return self.counts.any()

    def find(self, encoder, data, chunk):
        """Puts the codes of each class into groups, for MOST_SCENES items of `data`.

        As in the authors' code, small objects do not count, unless a class has no
        other ones.
        """
        labels = []
        codes = []
        shares = []
        for first in range(0, min(len(data), MOST_SCENES), chunk):
            items = range(first, min(first + chunk, len(data), MOST_SCENES))
            maps, ids, images = data.batch(items)
            found = common.predict(encoder, images, ids)
            for k in range(len(maps)):
                names, where, counts = np.unique(ids[k], return_index=True, return_counts=True)
                labels.append(maps[k].ravel()[where])
                codes.append(found[k, names])
                shares.append(counts / ids[k].size)
        labels = np.concatenate(labels)
        codes = np.concatenate(codes)
        is_large = np.concatenate(shares) > SMALLEST_SHARE
        for label in range(len(self.counts)):
            chosen = labels == label
            if (chosen & is_large).any():
                chosen &= is_large
            if chosen.any():
                centres = k_means(codes[chosen], self.centres.shape[1])
                self.centres[label, : len(centres)] = centres
                self.counts[label] = len(centres)

    def draw(self, labels, ids, rng):
        """Random codes (N, MOST_INSTANCES, feature_dim) of the objects of N maps.

        Args:
            labels, ids: (N, H, W), numpy.
            rng: a numpy generator.
        """
        codes = np.zeros((len(ids), MOST_INSTANCES, self.centres.shape[2]), np.float32)
        for k in range(len(ids)):
            names, where = np.unique(ids[k], return_index=True)
            for name, label in zip(names, labels[k].ravel()[where]):
                if self.counts[label] > 0:
                    codes[k, name] = self.centres[label, rng.integers(self.counts[label])]
        return codes

    def state_dict(self):
        return {"centres": self.centres, "counts": self.counts}

    def load_state_dict(self, state):
        if state["counts"].min() < 0 or state["counts"].max() > self.centres.shape[1]:
            raise ValueError("more looks than there is room for")
        self.centres = np.array(state["centres"])
        self.counts = np.array(state["counts"])


# ---- pictures ----


def trained_part(generator, args, epoch):
    """G1 until the first epoch that trains G2 is done, and then both.

    Args:
        epoch: how many epochs of the run are done.
    """
    if args.global_epochs > 0 and epoch <= args.global_epochs:
        return generator.coarse
    return generator


def paint(generator, labels, ids, codes, chunk):
    """Images (N, channels, H, W) of numpy maps (N, H, W), with these codes or None.

    If the generator is G1, its images are enlarged.
    """
    step = 2 if isinstance(generator, GlobalGenerator) else 1
    arrays = [labels[:, ::step, ::step], ids[:, ::step, ::step]]
    if codes is not None:
        arrays += [codes]
    images = common.predict(generator, *arrays, chunk=chunk)
    return images.repeat(step, axis=2).repeat(step, axis=3)


def write_rows(run, generator, encoder, looks, shown, args, to=None):
    """Writes maps, their images, and outputs, a row each.

    The outputs have the images' own codes, and in two further rows random looks, if
    these are known.

    Args:
        generator: G1 or both.
        encoder, looks: may be None.
        shown: labels and ids (N, H, W) and images (N, channels, H, W), numpy.
        to: a file name in the output folder (default: samples/step_<number>.png).
    """
    labels, ids, images = shown
    codes = [None]
    if encoder is not None:
        codes = [common.predict(encoder, images, ids, chunk=args.batch_size)]
    if encoder is not None and looks is not None:
        rng = run.fixed_rng()
        codes += [looks.draw(labels, ids, rng) for _ in range(2)]
    rows = [coloured_maps(labels, ids, instances.n_classes(args)), images]
    for of_row in codes:
        rows.append(paint(generator, labels, ids, of_row, args.batch_size))
    run.save_rows(*rows, to=to)


def coloured_maps(labels, ids, n_classes):
    """Pictures (N, 3, H, W) in [-1, 1] of numpy maps, with black boundaries."""
    colours = label_maps.colours_of(labels, n_classes)
    edges = common.predict(boundaries, ids)
    return np.where(edges > 0, np.float32(-1), colours)


def paint_folder(run, generator, looks, args):
    """Paints the label maps of --maps, each with random looks, into `painted`.

    They are scaled until they cover the size of the training, and their centre is
    cropped.
    """
    classes = Classes(args.n_classes, args.ignore_label)
    files = instances.find_maps(args.maps, args.instance_maps, classes)
    rng = run.fixed_rng()
    for name, (label_map, instance_map) in files.items():
        labels, ids = instances.load_maps(label_map, instance_map, args.shape, classes)
        codes = looks.draw(labels, ids, rng) if args.feature_dim > 0 else None
        image = paint(generator, labels, ids, codes, chunk=1)[0]
        write_picture(image, run.out_dir / "painted" / f"{name}.png")
    say(f"Painted {len(files)} maps into {run.out_dir / 'painted'}.")


def generate(run, args):
    """Paints the maps of --maps, or some of the test split."""
    shown = spread(instances.load(args, "test")) if args.maps is None else None
    generator, encoder, _ = build(args)
    looks = Looks(instances.n_classes(args), args.n_clusters, args.feature_dim)
    run.checkpoint(**parts_of(generator, encoder), looks=looks)
    run.restore()
    if encoder is not None and not looks.are_known():  # the training was stopped
        looks.find(encoder, instances.load(args, "train"), args.batch_size)
    generator = trained_part(generator, args, run.epoch)
    if args.maps is not None:
        paint_folder(run, generator, looks, args)
    else:
        write_rows(run, generator, encoder, looks, shown, args, to="result.png")


def main(argv=None):
    args = parse_args(argv)
    jt.flags.use_cuda = common.choose_device(args.device)  # 1 where a GPU works, else 0
    with common.Run(args) as run:  # seeds, the output folder, errors in one line
        if args.sample_only:
            generate(run, args)
        else:
            train(run, args)


if __name__ == "__main__":
    main()
