"""SPADE, or GauGAN: images painted from label maps.

Park 2019, https://arxiv.org/abs/1903.07291

    python spade.py     # digits over sky, water and ground, 12 minutes on two CPU cores
    python spade.py --paper --data_dir LANDSCAPES --batch_size 4 \\
        --img_height 384 --img_width 512    # the paper's setting, own images; for a GPU
    python tools/landscape.py results/spade MAPS OUT    # paints every map of a folder
    python tools/evaluate.py labels results/spade

Method
    A generator G paints an image from a label map m, which has a class for each pixel,
    and from a style code z. It is a chain of residual blocks that begins at a small
    size. The map enters at every normalization layer: features x are normalized over
    the batch, then scaled and shifted, pixel by pixel, by gamma and beta, which
    convolutions compute from the map (section 3; 1 + gamma is the authors' code):

        SPADE(x, m) = (1 + gamma(m)) (x - mean) / deviation + beta(m)

    An encoder E gives the mean and the variance of z for an image y. There are two
    discriminators: D_1 sees an image and its map, D_2 sees both at half the size. The
    score D_k(m, y) is high where a patch of the image looks real; D_k^i are the
    features of D_k's i-th layer.

        L_D   = mean over k of E[max(0, 1 - D_k(m, y))] + E[max(0, 1 + D_k(m, G(m, z)))]
        L_G   = mean over k of -E[D_k(m, G(m, z))]
        L_FM  = mean over k of the sum over i of E|D_k^i(m, y) - D_k^i(m, G(m, z))|
        L_VGG = sum over i of w_i E|V_i(y) - V_i(G(m, z))|
        L_KL  = KL(N(mean, variance) || N(0, 1)),    z from N(mean, variance) of E(y)

    V_i are features of VGG19, which was trained before. D minimizes L_D; G and E
    minimize L_G + 10 L_FM + 10 L_VGG + 0.05 L_KL.

What to expect
    The built-in scenes are digits over sky, water and ground. The map does not
    determine the time of day; that is the style. The rows of the pictures are maps,
    their images, and outputs in the styles of these images, in the first image's
    style, and in random styles. At the end, a segmenter that reads real scenes with a
    mean IoU of 0.985 reads the outputs with 0.785, and with 0.823 after the same
    training in PyTorch (docs/scripts/spade.md). At a loss_D of 2, D only guesses; near
    0, it has won. At a loss_KL of 0, the style would be lost.

Differences from the paper
    which --paper undoes:
    * 64 x 64 pixels, a quarter of the width
    * higher learning rates and less weight on L_KL, since a default run has few updates
    * samples are drawn from averaged weights (--ema_decay)
    and which it leaves:
    * L_VGG is left out unless --vgg names VGG19's weights, which come with no script
    * the encoder, an option in the authors' code, is always there
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common import vgg
from common.data import label_maps, spread

import math

import jittor as jt
import numpy as np

# jittor.nn on all CPU cores, what it lacks, and jt.chunk with a faster gradient
from jittor_fast import SpectralNorm, chunk, nn

# Park 2019, section 4, for ADE20K. Sizes and b2 are those of the authors' code with its
# encoder (github.com/NVlabs/SPADE).
PAPER = {
    "n_epochs": 200,
    "decay_epoch": 100,
    "batch_size": 32,
    "lr": 0.0001,
    "lr_ratio": 4.0,
    "b1": 0.0,
    "b2": 0.9,
    "img_size": 256,
    "n_doublings": 5,
    "width": 64,
    "style_dim": 256,
    "lambda_FM": 10.0,
    "lambda_KL": 0.05,
    "ema_decay": 0.0,
}

# Whether the features are doubled in size before each of G's seven blocks, by
# --n_doublings.
DOUBLINGS = {
    4: (False, False, False, True, True, True, True),
    5: (False, True, False, True, True, True, True),
    6: (False, True, True, True, True, True, True),
}


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=6, batch_size=8, lr=0.0005)
    parser.set_defaults(sample_interval=250, checkpoint_interval=1)
    parser.add_adam(b1=0.0, b2=0.9)
    parser.add_decay(decay_epoch=3)

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_images(img_size=64, channels=3)
    parser.add_architecture(
        "--n_doublings", type=int, default=4, choices=DOUBLINGS, help="how often G doubles its size"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=256, help="channels next to the image"
    )
    parser.add_architecture("--style_dim", type=int, default=16, help="length of z")
    parser.add_architecture(
        "--ema_decay",
        type=float,
        default=0.999,
        below=1,
        help="EMA decay of G and E (0 disables it)",
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

    # Data
    parser.add_argument(
        "--label_dir", metavar="DIR", help="folder of maps, with --image_dir, instead of --data_dir"
    )
    parser.add_argument("--image_dir", metavar="DIR", help="folder of images with the maps' names")
    parser.add_augmentation()

    # Training
    parser.add_argument(
        "--lr_ratio", type=float, default=2.0, above=0, help="D's learning rate over G's --lr"
    )
    parser.add_argument("--lambda_FM", type=float, default=10.0, help="weight of L_FM")
    parser.add_argument("--lambda_KL", type=float, default=0.01, help="weight of L_KL")
    parser.add_argument("--lambda_VGG", type=float, default=10.0, help="weight of L_VGG")
    parser.add_argument(
        "--vgg", metavar="FILE", help="VGG19's weights as .npz (default: no perceptual loss)"
    )
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 2**args.n_doublings, at_least=32)
    vgg.check_name(parser, args.vgg)
    return args


# ---- generator ----


class SPADE(nn.Module):
    """x (B, channels, H, W) and maps (B, n_classes, H, W)  ->  (B, channels, H, W)."""

    def __init__(self, channels, n_classes, hidden):
        super().__init__()
        self.norm = nn.BatchNorm(channels, affine=False)
        self.shared = nn.Sequential(
            nn.Conv(n_classes, hidden, 3, padding=1),
            nn.ReLU(),
        )
        # gamma and beta are two convolutions of the same input. One convolution with
        # twice as many outputs computes the same, and reads its input only once.
        self.gamma_beta = nn.Conv(hidden, 2 * channels, 3, padding=1)

    def execute(self, x, maps):
        normalized = self.norm(x)
        hidden = self.shared(maps)
        gamma, beta = chunk(self.gamma_beta(hidden), 2, dim=1)
        return normalized * (1 + gamma) + beta


class Block(nn.Module):
    """x (B, c_in, H, W) and maps (B, n_classes, H, W)  ->  (B, c_out, H, W).

    A residual block, whose shortcut is trained too if c_in and c_out differ.
    """

    def __init__(self, c_in, c_out, n_classes, hidden):
        super().__init__()
        c = min(c_in, c_out)
        self.norm_0 = SPADE(c_in, n_classes, hidden)
        self.norm_1 = SPADE(c, n_classes, hidden)
        self.conv_0 = SpectralNorm(nn.Conv(c_in, c, 3, padding=1))
        self.conv_1 = SpectralNorm(nn.Conv(c, c_out, 3, padding=1))
        self.has_shortcut = c_in != c_out
        if self.has_shortcut:
            self.norm_s = SPADE(c_in, n_classes, hidden)
            self.conv_s = SpectralNorm(nn.Conv(c_in, c_out, 1, bias=False))
        self.activation = nn.LeakyReLU(0.2)

    def execute(self, x, maps):
        y = self.conv_0(self.activation(self.norm_0(x, maps)))
        y = self.conv_1(self.activation(self.norm_1(y, maps)))
        if self.has_shortcut:
            x = self.conv_s(self.norm_s(x, maps))
        return x + y


class Generator(nn.Module):
    """labels (B, H, W) and z (B, style_dim)  ->  images (B, channels, H, W) in [-1, 1].

    Labels are classes from 0 to n_classes - 1, and (H, W) = shape.
    """

    def __init__(self, shape, channels, n_classes, style_dim, width, n_doublings):
        super().__init__()
        self.n_classes = n_classes
        self.doublings = DOUBLINGS[n_doublings]
        self.smallest = [side // 2**n_doublings for side in shape]
        n_pixels = self.smallest[0] * self.smallest[1]
        hidden = 2 * width  # channels between a map and its gamma and beta

        self.first = nn.Linear(style_dim, 16 * width * n_pixels)
        self.blocks = nn.ModuleList(
            [
                Block(16 * width, 16 * width, n_classes, hidden),
                Block(16 * width, 16 * width, n_classes, hidden),
                Block(16 * width, 16 * width, n_classes, hidden),
                Block(16 * width, 8 * width, n_classes, hidden),
                Block(8 * width, 4 * width, n_classes, hidden),
                Block(4 * width, 2 * width, n_classes, hidden),
                Block(2 * width, width, n_classes, hidden),
            ]
        )
        self.double = nn.Upsample(2)
        self.last = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def execute(self, labels, z):
        maps = label_maps.one_hot(labels, self.n_classes)
        x = self.first(z).reshape(len(z), -1, *self.smallest)
        for block, is_doubled in zip(self.blocks, self.doublings):
            if is_doubled:  # (B, c, H, W) -> (B, c, 2 H, 2 W)
                x = self.double(x)
            x = block(x, shrink(maps, x.shape[2]))
        return self.last(x)


def shrink(maps, height):
    """Maps (B, C, H, W) at a smaller height that divides H, by nearest neighbours."""
    step = maps.shape[2] // height
    return maps[:, :, ::step, ::step]


# ---- discriminator and encoder ----


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
                    SpectralNorm(nn.Conv(c, 2 * c, 4, stride=stride, padding=2, bias=False)),
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
    """labels (B, H, W) and images (B, channels, H, W)  ->  the outputs of D_1 and D_2.

    They are two lists, each of four features and of the scores behind them.
    """

    def __init__(self, channels, n_classes, width):
        super().__init__()
        self.n_classes = n_classes
        self.large = PatchDiscriminator(n_classes + channels, width)
        self.small = PatchDiscriminator(n_classes + channels, width)

    def execute(self, labels, images):
        maps = label_maps.one_hot(labels, self.n_classes)
        x = jt.concat([maps, images], dim=1)
        half = nn.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return [self.large(x), self.small(half)]


class Encoder(nn.Module):
    """images (B, channels, H, W)  ->  mean and log variance of z, both (B, style_dim).

    Images are scaled to a square, whose side is the largest power of two that is not
    above the longer side of `shape`, (height, width).
    """

    def __init__(self, shape, channels, style_dim, width):
        super().__init__()
        n_halvings = int(math.log2(max(shape))) - 2  # to 4 x 4
        self.size = 4 * 2**n_halvings
        c_in = channels
        layers = []
        for i in range(n_halvings):  # (B, c_in, S, S) -> (B, c, S / 2, S / 2)
            c = width * min(2**i, 8)
            layers += [
                SpectralNorm(nn.Conv(c_in, c, 3, stride=2, padding=1, bias=False)),
                nn.InstanceNorm2d(c, affine=False),
                nn.LeakyReLU(0.2),
            ]
            c_in = c
        self.layers = nn.Sequential(*layers)
        self.mean = nn.Linear(16 * c, style_dim)  # from (B, c, 4, 4)
        self.log_variance = nn.Linear(16 * c, style_dim)

    def execute(self, images):
        square = (self.size, self.size)
        if tuple(images.shape[2:]) != square:
            images = nn.interpolate(images, size=square, mode="bilinear")
        x = self.layers(images).reshape(len(images), -1)
        return self.mean(x), self.log_variance(x)


# ---- initial weights ----


def initialize(network):
    """Weights from N(0, 0.02^2 * 2 / (n_in + n_out)), biases 0: the authors' code.

    n_in and n_out are the inputs and the outputs of a layer, times its filter's size.
    """
    for name, layer in network.named_modules():
        if not isinstance(layer, (nn.Conv, nn.Linear)):
            continue
        if name.endswith("gamma_beta"):
            # As two convolutions: with both in one, n_out would be twice as large, and
            # the initial weights would be smaller than the authors'.
            outputs, *inputs = layer.weight.shape
            gamma = nn.init.xavier_gauss((outputs // 2, *inputs), gain=0.02)
            beta = nn.init.xavier_gauss((outputs // 2, *inputs), gain=0.02)
            layer.weight.assign(jt.concat([gamma, beta]))
        else:
            nn.init.xavier_gauss_(layer.weight, gain=0.02)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 0)


def build(args):
    n_classes = label_maps.n_classes(args)
    generator = Generator(
        args.shape, args.channels, n_classes, args.style_dim, args.width, args.n_doublings
    )
    encoder = Encoder(args.shape, args.channels, args.style_dim, args.width)
    discriminator = Discriminator(args.channels, n_classes, args.width)
    for network in (generator, encoder, discriminator):
        initialize(network)
        network.train()
    return generator, encoder, discriminator


# ---- losses and one training step ----


def discriminator_loss(real, fake):
    """L_D of the discriminator's outputs for real and for generated images."""
    loss = 0
    for real_outputs, fake_outputs in zip(real, fake):
        real_scores = real_outputs[-1]
        fake_scores = fake_outputs[-1]
        common.check_same_shape(real_scores, fake_scores)
        loss += jt.maximum(1 - real_scores, 0).mean() + jt.maximum(1 + fake_scores, 0).mean()
    return loss / len(real)


def generator_loss(fake):
    """L_G of the discriminator's outputs for generated images."""
    loss = 0
    for outputs in fake:
        loss -= outputs[-1].mean()
    return loss / len(fake)


def feature_matching(real, fake):
    """L_FM of the discriminator's outputs for real and for generated images."""
    loss = 0
    for real_outputs, fake_outputs in zip(real, fake):
        for real_features, fake_features in zip(real_outputs[:-1], fake_outputs[:-1]):
            common.check_same_shape(real_features, fake_features)
            loss += jt.abs(real_features.detach() - fake_features).mean()
    return loss / len(real)


def divergence(mean, log_variance):
    """L_KL of (B, style_dim): summed over a code, averaged over the batch."""
    return 0.5 * (mean**2 + jt.exp(log_variance) - 1 - log_variance).sum(1).mean()


def discriminate(discriminator, labels, images, fake):
    """The discriminator's outputs for real and for generated images of the same maps.

    Both pass through it together: spectral norm's power iteration moves with each pass,
    so that with two passes the weights would differ a little.
    """
    n = len(labels)
    outputs = discriminator(jt.concat([labels, labels]), jt.concat([images, fake]))
    real_outputs = []
    fake_outputs = []
    for of_scale in outputs:
        real_outputs.append([x[:n] for x in of_scale])
        fake_outputs.append([x[n:] for x in of_scale])
    return real_outputs, fake_outputs


def train_step(
    networks, optimizers, labels, images, noise, *, lambda_FM, lambda_KL, lambda_VGG, vgg_loss=None
):
    """Updates D, then G and E together.

    Args:
        networks: the generator, the encoder and the discriminator.
        optimizers: of G and E, and of D.
        labels: classes (B, H, W) int32.
        images: (B, channels, H, W) in [-1, 1], of these maps.
        noise: (B, style_dim) from N(0, 1).
        vgg_loss: a function of real and generated images that returns L_VGG, or None.

    Returns:
        {"loss_D", "loss_G", "loss_FM", "loss_KL"}, and "loss_VGG" if there is one, as
        Jittor scalars without their weights.
    """
    generator, encoder, discriminator = networks
    optimizer_G, optimizer_D = optimizers
    mean, log_variance = encoder(images)
    z = mean + jt.exp(0.5 * log_variance) * noise
    fake = generator(labels, z)

    # D: real images against generated ones
    real_outputs, fake_outputs = discriminate(discriminator, labels, images, fake.detach())
    loss_D = discriminator_loss(real_outputs, fake_outputs)
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G and E: the same images, which the new D should take for real
    real_outputs, fake_outputs = discriminate(discriminator, labels, images, fake)
    loss_G = generator_loss(fake_outputs)
    loss_FM = feature_matching(real_outputs, fake_outputs)
    loss_KL = divergence(mean, log_variance)
    losses = {"loss_D": loss_D, "loss_G": loss_G, "loss_FM": loss_FM, "loss_KL": loss_KL}
    total = loss_G + lambda_FM * loss_FM + lambda_KL * loss_KL
    if vgg_loss is not None:
        losses["loss_VGG"] = vgg_loss(images, fake)
        total = total + lambda_VGG * losses["loss_VGG"]
    optimizer_G.step(total)
    return losses


# ---- training ----


def train(run, args):
    vgg_loss = vgg.Perceptual(args.vgg) if args.vgg is not None else None
    data = label_maps.load(args, "train")
    shown = spread(label_maps.load(args, "test"))
    networks = build(args)
    generator, encoder, discriminator = networks
    averaged_G = common.EMA(generator, args.ema_decay)
    averaged_E = common.EMA(encoder, args.ema_decay)
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(generator.parameters() + encoder.parameters(), lr=args.lr, betas=betas)
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr * args.lr_ratio, betas=betas)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        encoder=encoder,
        discriminator=discriminator,
        averaged_G=averaged_G,
        averaged_E=averaged_E,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        optimizer_G.lr = common.linear_decay(epoch, args.lr, args.decay_epoch, args.decay_until)
        optimizer_D.lr = args.lr_ratio * optimizer_G.lr
        for labels, images in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            noise = run.normal(args.batch_size, args.style_dim)
            losses = train_step(
                networks,
                (optimizer_G, optimizer_D),
                labels,
                images,
                noise,
                lambda_FM=args.lambda_FM,
                lambda_KL=args.lambda_KL,
                lambda_VGG=args.lambda_VGG,
                vgg_loss=vgg_loss,
            )
            averaged_G.update()
            averaged_E.update()
            run.log(losses)
            if run.every(args.sample_interval):
                write_rows(run, averaged_G.module, averaged_E.module, shown, args)
    write_rows(run, averaged_G.module, averaged_E.module, shown, args, to="result.png")


# ---- pictures ----


def write_rows(run, generator, encoder, shown, args, to=None):
    """Writes maps, their images, and outputs in three kinds of styles, a row each.

    The styles are those of the images themselves, that of the first image, and random
    ones.

    Args:
        shown: labels (N, H, W) and images (N, channels, H, W), numpy.
        to: a file name in the output folder (default: samples/step_<number>.png).
    """
    labels, images = shown
    maps = label_maps.colours_of(labels, label_maps.n_classes(args))
    own_z, _ = common.predict(encoder, images, chunk=args.batch_size)
    first_z = np.repeat(own_z[:1], len(own_z), axis=0)
    random_z = run.fixed_noise("normal", len(own_z), args.style_dim)
    rows = [maps, images]
    for z in (own_z, first_z, random_z):
        rows.append(common.predict(generator, labels, z, chunk=args.batch_size))
    run.save_rows(*rows, to=to)


def generate(run, args):
    """Paints maps of the test split; tools/landscape.py paints those of a folder."""
    shown = spread(label_maps.load(args, "test"))
    generator, encoder, _ = build(args)
    averaged_G = common.EMA(generator, args.ema_decay)
    averaged_E = common.EMA(encoder, args.ema_decay)
    run.checkpoint(
        generator=generator, encoder=encoder, averaged_G=averaged_G, averaged_E=averaged_E
    )
    run.restore()
    write_rows(run, averaged_G.module, averaged_E.module, shown, args, to="result.png")


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
