"""SPADE, or GauGAN: paints images from label maps (Park 2019, https://arxiv.org/abs/1903.07291).

    python spade.py
    python spade.py --paper --data_dir LANDSCAPES --img_height 384 --img_width 512 --batch_size 4
    python spade.py --resume results/spade --sample_only --input MAPS --out_dir OUT --out_size 512x384 --ref_json FILE

A generator G turns a style code z and a map m with a class for each pixel into an image, by residual blocks from a
small size upwards. The map enters every norm: features x are normalized over the batch, then scaled and shifted at each
place by what convolutions see there in the map (section 3): SPADE(x, m) = gamma(m) (x - mean) / deviation + beta(m).
An encoder E gives the mean and the variance of z for an image y. Discriminators D_1 of the image and D_2 of its half
size score patches of it and its map; D_k^i are features. G and E minimize L_G + 10 L_FM + 10 L_VGG + 0.05 L_KL.

    L_D   = mean over k of E[max(0, 1 - D_k(m, y))] + E[max(0, 1 + D_k(m, G(m, z)))]
    L_G   = mean over k of -E[D_k(m, G(m, z))]
    L_FM  = mean over k of the sum over i of E|D_k^i(m, y) - D_k^i(m, G(m, z))|
    L_VGG = sum over i of w_i E|V_i(y) - V_i(G(m, z))|,    V_i features of VGG19, which is trained already
    L_KL  = KL(N(mean, variance) || N(0, 1)),    z from N(mean, variance) of E(y)

Without --data_dir, G paints digits over sky, water and ground; the time of day, which no map tells, is the style.
Rows of pictures: maps, their images, outputs with these images' styles, with the first one's, and with random ones.

The default departs from the paper, which --paper undoes: a quarter of the width, 64 x 64 pixels, few updates at higher
rates with less weight on L_KL, samples from averaged weights. Both leave L_VGG out, unless --vgg names VGG19's weights.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import hand_in, label_maps
from common.data.label_maps import one_hot
from common.data.targets import spread
from common.optional import Perceptual

import jittor as jt

from jittor_fast import nn

# Park 2019, section 4, for ADE20K; sizes and b2 of the authors' code with its encoder (github.com/NVlabs/SPADE).
PAPER = {
    "n_epochs": 200,
    "decay_epoch": 100,
    "batch_size": 32,
    "lr": 0.0001,
    "lr_ratio": 4.0,
    "b1": 0.0,
    "b2": 0.9,
}
PAPER |= {
    "img_size": 256,
    "n_doublings": 5,
    "width": 64,
    "style_dim": 256,
    "lambda_FM": 10.0,
    "lambda_KL": 0.05,
}
PAPER |= {"ema_decay": 0.0}
SCALES = {
    4: (1, 1, 1, 2, 4, 8, 16),
    5: (1, 2, 2, 4, 8, 16, 32),
    6: (1, 2, 4, 8, 16, 32, 64),
}  # of G's blocks


def parse_args(argv=None):
    architecture = (
        "width",
        "n_doublings",
        "style_dim",
        "ema_decay",
        "img_size",
        "channels",
        *label_maps.FLAGS,
    )
    parser = common.Parser(
        "spade", __doc__, PAPER, architecture, starts_from="images", of_the_call=hand_in.FLAGS
    )
    parser.set_defaults(
        n_epochs=6, batch_size=8, lr=0.0005, b1=0.0, b2=0.9, img_size=64, channels=3
    )
    parser.set_defaults(sample_interval=250, checkpoint_interval=1, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--width",
        type=number(int, at_least=1, at_most=256),
        default=16,
        help="channels of the first layers",
    )
    add(
        "--n_doublings",
        type=int,
        choices=SCALES,
        default=4,
        help="from the smallest size to the image",
    )
    add(
        "--style_dim",
        type=number(int, at_least=1, at_most=4096),
        default=16,
        help="length of the style code",
    )
    add(
        "--lr_ratio",
        type=number(float, above=0),
        default=2.0,
        help="the rate of D, as a multiple of G's --lr",
    )
    add(
        "--lambda_FM",
        type=number(float, at_least=0),
        default=10.0,
        help="weight of the feature matching",
    )
    add(
        "--lambda_KL",
        type=number(float, at_least=0),
        default=0.01,
        help="weight of the style's divergence",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.999,
        help="of the averaged weights; 0: off",
    )
    add(
        "--vgg",
        metavar="FILE",
        help="torchvision's weights of VGG19, for the perceptual loss; none without",
    )
    add(
        "--lambda_VGG",
        type=number(float, at_least=0),
        default=10.0,
        help="weight of the perceptual loss",
    )
    parser.add_decay(decay_epoch=3)
    label_maps.add_flags(parser)
    hand_in.add_flags(parser)
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, SCALES[args.n_doublings][-1], at_least=32)
    return args


# ---- networks ----


class SPADE(nn.Module):
    """(B, C, H, W) features and a (B, n_classes, H, W) map to (B, C, H, W)."""

    def __init__(self, channels, n_classes, hidden):
        super().__init__()
        self.norm = nn.BatchNorm(channels, affine=False)
        self.shared = nn.Sequential(nn.Conv(n_classes, hidden, 3, padding=1), nn.ReLU())
        self.gamma, self.beta = (nn.Conv(hidden, channels, 3, padding=1) for _ in range(2))

    def execute(self, x, maps):
        both = nn.together(
            self.shared(maps), self.gamma, self.beta
        )  # one convolution: (B, 2 C, H, W)
        return nn.modulate(self.norm(x), both)  # norm(x) (1 + gamma) + beta


class Block(nn.Module):
    """A residual block, (B, c_in, H, W) to (B, c_out, H, W); where these differ, the shortcut is learned too."""

    def __init__(self, c_in, c_out, n_classes, hidden):
        super().__init__()
        c, self.keeps = min(c_in, c_out), c_in == c_out
        self.norm_0, self.norm_1 = SPADE(c_in, n_classes, hidden), SPADE(c, n_classes, hidden)
        self.conv_0 = nn.SpectralNorm(nn.Conv(c_in, c, 3, padding=1))
        self.conv_1 = nn.SpectralNorm(nn.Conv(c, c_out, 3, padding=1))
        if not self.keeps:
            self.norm_s = SPADE(c_in, n_classes, hidden)
            self.conv_s = nn.SpectralNorm(nn.Conv(c_in, c_out, 1, bias=False))
        self.activation = nn.LeakyReLU(0.2)

    def execute(self, x, maps):
        y = self.conv_0(self.activation(self.norm_0(x, maps)))
        y = self.conv_1(self.activation(self.norm_1(y, maps)))
        return y + (x if self.keeps else self.conv_s(self.norm_s(x, maps)))


class Generator(nn.Module):
    """(B, H, W) classes and (B, style_dim) codes to (B, colours, H, W) images in [-1, 1]."""

    def __init__(self, height, width, colours, n_classes, n_doublings, style_dim, channels):
        super().__init__()
        self.n_classes, self.scales = n_classes, SCALES[n_doublings]
        self.smallest = [side // self.scales[-1] for side in (height, width)]
        c = [channels * k for k in (16, 16, 16, 16, 8, 4, 2, 1)]
        self.first = nn.Linear(style_dim, c[0] * self.smallest[0] * self.smallest[1])
        self.blocks = nn.ModuleList(
            [Block(c[i], c[i + 1], n_classes, 2 * channels) for i in range(7)]
        )
        self.last = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv(c[-1], colours, 3, padding=1), nn.Tanh()
        )

    def execute(self, labels, z):
        maps, whole = one_hot(labels, self.n_classes), self.scales[-1]
        x = self.first(z).reshape(
            len(z), -1, *self.smallest
        )  # (B, 16 channels, H / whole, W / whole)
        for block, scale in zip(self.blocks, self.scales):
            if x.shape[2] < scale * self.smallest[0]:
                x = nn.Upsample(2)(x)
            x = block(x, maps[:, :, :: whole // scale, :: whole // scale])
        return self.last(x)


def normed(*sizes, **more):
    """A convolution of D or E with spectral norm, then instance norm and the activation."""
    conv = nn.Conv(*sizes, bias=False, **more)
    norm = nn.InstanceNorm2d(conv.out_channels, affine=False)
    return nn.Sequential(nn.SpectralNorm(conv), norm, nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """(B, H, W) classes and (B, colours, H, W) images to scores of both sizes, then to all features."""

    def __init__(self, colours, n_classes, channels):
        super().__init__()
        self.n_classes, self.large, self.small = n_classes, nn.ModuleList(), nn.ModuleList()
        for layers in (self.large, self.small):
            first = nn.Conv(n_classes + colours, channels, 4, stride=2, padding=2)
            layers.append(nn.Sequential(first, nn.LeakyReLU(0.2)))
            for k, stride in ((1, 2), (2, 2), (4, 1)):
                layers.append(normed(k * channels, 2 * k * channels, 4, stride=stride, padding=2))
            layers.append(nn.Conv(8 * channels, 1, 4, padding=2))

    def execute(self, labels, images):
        x, scores, features = jt.concat([one_hot(labels, self.n_classes), images], dim=1), [], []
        for layers in (self.large, self.small):
            y = x
            for layer in layers:
                y = layer(y)
                features.append(y)
            scores.append(features.pop())
            x = nn.avg_pool2d(x, 3, stride=2, padding=1)
        return (*scores, *features)


class Encoder(nn.Module):
    """(B, colours, H, W) images to the means and the logarithms of the variances, (B, style_dim), of their codes."""

    def __init__(self, height, width, colours, style_dim, channels):
        super().__init__()
        n = max(height, width).bit_length() - 3
        self.size, c = 4 * 2**n, [colours, *(channels * min(2**i, 8) for i in range(n))]
        self.layers = nn.Sequential(
            *(normed(c[i], c[i + 1], 3, stride=2, padding=1) for i in range(n))
        )
        self.mean, self.log_variance = (
            nn.Linear(16 * c[n], style_dim) for _ in range(2)
        )  # from (B, c[n], 4, 4)

    def execute(self, images):
        if tuple(images.shape[2:]) != (self.size, self.size):
            images = nn.interpolate(images, size=(self.size, self.size), mode="bilinear")
        x = self.layers(images).reshape(len(images), -1)
        return self.mean(x), self.log_variance(x)


def initialize(module):
    """Weights from N(0, 0.02^2 * 2 / (inputs + outputs)), biases 0, as in the authors' code."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.Linear)):
            nn.init.xavier_gauss_(layer.weight, gain=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)


def build(args):
    """The generator, the encoder and the discriminator of these arguments."""
    shape, classes = (*args.shape, args.channels), label_maps.n_classes(args)
    generator = Generator(*shape, classes, args.n_doublings, args.style_dim, args.width)
    networks = (
        generator,
        Encoder(*shape, args.style_dim, args.width),
        Discriminator(shape[2], classes, args.width),
    )
    for module in networks:
        initialize(module)
        module.train()
    return networks


# ---- losses and the step ----


def discriminator_loss(real, fake):
    """The hinge loss of D's outputs for real and for generated images, the mean over both sizes."""
    return (
        sum(
            jt.maximum(1 - r, 0).mean() + jt.maximum(1 + f, 0).mean()
            for r, f in zip(real[:2], fake[:2])
        )
        / 2
    )


def generator_losses(real, fake):
    """L_G and L_FM of D's outputs for real and for generated images."""
    if [x.shape for x in real] != [x.shape for x in fake]:
        raise ValueError("outputs of different shapes for real and for generated images")
    distances = [jt.abs(r.detach() - f).mean() for r, f in zip(real[2:], fake[2:])]
    return -(fake[0].mean() + fake[1].mean()) / 2, sum(distances) / 2


def divergence(mean, log_variance):
    """KL(N(mean, variance) || N(0, 1)) of (B, style_dim): the sum over a code, averaged over the batch."""
    return 0.5 * (mean**2 + jt.exp(log_variance) - 1 - log_variance).sum(1).mean()


def train_step(networks, optimizer_G, optimizer_D, labels, images, noise, weights, perceptual=None):
    """One update of D, then one of G and E against the new D, with (B, style_dim) noise from N(0, 1) for the codes.

    `weights` are the lambdas, {"FM", "KL", "VGG"}, the last one's loss `perceptual` of real and generated images.
    Returns {"loss_D", "loss_G", "loss_FM", "loss_KL", "loss_VGG" where it is there} as Jittor scalars, not weighted.
    """
    generator, encoder, discriminator = networks
    mean, log_variance = encoder(images)
    fake, n = generator(labels, mean + jt.exp(0.5 * log_variance) * noise), len(labels)

    def discriminate(fake):  # D sees real and generated images in one pass
        both = discriminator(jt.concat([labels, labels]), jt.concat([images, fake]))
        return [x[:n] for x in both], [x[n:] for x in both]

    loss_D = discriminator_loss(*discriminate(fake.detach()))
    optimizer_D.step(loss_D)
    loss_G, loss_FM = generator_losses(*discriminate(fake))
    others = {"FM": loss_FM, "KL": divergence(mean, log_variance)}
    others |= {"VGG": perceptual(images, fake)} if perceptual else {}
    optimizer_G.step(loss_G + sum(weights[name] * loss for name, loss in others.items()))
    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        **{f"loss_{name}": loss for name, loss in others.items()},
    }


def learning_rate(epoch, lr, decay_epoch, decay_until):
    """The rate in an epoch, counted from 1: lr until `decay_epoch`, falling until `decay_until`, then constant."""
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    return lr * (decay_until + 1 - min(epoch, decay_until)) / (decay_until + 1 - decay_epoch)


# ---- training and pictures ----


def train(run, args):
    perceptual = Perceptual(args.vgg) if args.vgg else None
    data, shown = label_maps.load(args, "train"), spread(label_maps.load(args, "test"))
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, encoder, discriminator = networks = build(args)
    ema_G, ema_E = averages = [common.EMA(m, args.ema_decay) for m in (generator, encoder)]
    optimizer_G = nn.Adam(
        generator.parameters() + encoder.parameters(), lr=args.lr, betas=(args.b1, args.b2)
    )
    optimizer_D = nn.Adam(
        discriminator.parameters(), lr=args.lr * args.lr_ratio, betas=(args.b1, args.b2)
    )
    parts = {
        "generator": generator,
        "encoder": encoder,
        "discriminator": discriminator,
        "batches": batches,
    }
    parts |= {
        "ema_G": ema_G,
        "ema_E": ema_E,
        "optimizer_G": optimizer_G,
        "optimizer_D": optimizer_D,
    }
    run.track(exports={"generator": ema_G.module, "encoder": ema_E.module}, **parts)
    weights = {"FM": args.lambda_FM, "KL": args.lambda_KL, "VGG": args.lambda_VGG}
    painter, watch = hand_in.Painter(*averages, args), run.watch(shown[1], "outputs", loss="loss_D")
    for epoch in run.epochs():
        optimizer_G.lr = learning_rate(epoch, args.lr, args.decay_epoch, args.decay_until)
        optimizer_D.lr = args.lr_ratio * optimizer_G.lr
        for labels, images in run.steps(batches):
            inputs = labels, images, run.normal(args.batch_size, args.style_dim)
            run.log(train_step(networks, optimizer_G, optimizer_D, *inputs, weights, perceptual))
            ema_G.update(), ema_E.update()
            if run.every(args.sample_interval):
                watch.see_samples(painter.write_rows(run.sample_path, *shown))
    if run.is_main:
        painter.write_rows(run.out_dir / "result.png", *shown)


def generate(run, args):
    """Paints the maps of --input, or those of the test part."""
    generator, encoder, _ = build(args)
    ema_G, ema_E = averages = [common.EMA(m, args.ema_decay) for m in (generator, encoder)]
    run.track(generator=generator, encoder=encoder, ema_G=ema_G, ema_E=ema_E)
    hand_in.paint(run, hand_in.Painter(*averages, args))


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            generator, encoder, discriminator = build(args)
            labels, image = (
                jt.zeros((1, *args.shape), dtype="int32"),
                jt.zeros((1, args.channels, *args.shape)),
            )
            common.describe("generator", generator, labels, jt.zeros((1, args.style_dim)))
            common.describe("encoder", encoder, image)
            common.describe("discriminator", discriminator, labels, image)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
