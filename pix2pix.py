"""pix2pix: translates images, learned from pairs, by a conditional GAN (Isola 2017, https://arxiv.org/abs/1611.07004).

    python pix2pix.py
    python pix2pix.py --paper --data_dir FACADES --direction BtoA
    python pix2pix.py --resume results/pix2pix --sample_only --input my_drawings --out_dir painted

A U-Net G translates an input x. A discriminator D sees input and output together and scores each patch of 70 x 70
pixels: is this output the real target y of its input? With logits D(x, y), the logistic function s and lambda = 100
(sections 3.1 and 3.3)

    L_D = -1/2 E[log s(D(x, y))] - 1/2 E[log(1 - s(D(x, G(x))))]
    L_G = -E[log s(D(x, G(x)))] + lambda E|y - G(x)|        (mean over all values)

--loss lsgan takes squared distances of D to 1 and 0 instead, as CycleGAN does. The noise of the conditional GAN is G's
dropout, which stays on in samples, and norms take the statistics of the batch at hand, also in samples (section 3.3).

Without --data_dir, G paints outlines of digits in the colour of their class, which it must recognize, in nine minutes
on two CPU cores: shapes are filled in after an epoch, the colours are right after ten. Pictures show rows of inputs,
outputs and targets of the validation part; validation.csv has the mean |y - G(x)| for values in [-1, 1] and the PSNR.

--arch resnet is the authors' other generator, CycleGAN's, with dropout; --upsample resize leaves no checkerboard.

The default departs from the paper, which --paper undoes:
  * a quarter of the width and 64 x 64 pixels, where two upward layers have the full width that dropout follows;
  * least squares, of which the authors' code gives the choice;
  * --norm instance, over each image by itself: what batch norm is in a batch of one image (section 3.3). In larger
    ones a picture would depend on the others of its batch.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_pairs
from common.data.augment import augmentation
from common.data.pairs import distances
from common.data.targets import spread
from common.log import write_validation
from common.optional import ResNet, doubled
from common.pictures import save_rows

from functools import partial

import jittor as jt

from jittor_fast import nn

# Isola 2017, sections 3.1, 3.3, 6.1 and 6.2, for facades; the decay is that of the authors' PyTorch code
# (github.com/junyanz/pytorch-CycleGAN-and-pix2pix).
PAPER = {"n_epochs": 200, "decay_epoch": 100, "batch_size": 1, "lr": 0.0002, "b1": 0.5, "b2": 0.999}
PAPER |= {"img_size": 256, "channels": 3, "width": 64, "norm": "batch", "dropout": 0.5}
PAPER |= {"loss": "bce", "lambda_L1": 100.0}


def parse_args(argv=None):
    architecture = (
        "arch",
        "upsample",
        "width",
        "norm",
        "img_size",
        "channels",
        "input_channels",
        "output_channels",
    )
    parser = common.Parser("pix2pix", __doc__, PAPER, architecture, starts_from="images")
    parser.set_defaults(
        n_epochs=20, batch_size=10, lr=0.0002, b1=0.5, b2=0.999, img_size=64, channels=3
    )
    parser.set_defaults(sample_interval=500, checkpoint_interval=1, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--input_channels",
        type=number(int, at_least=1, at_most=256),
        help="of the inputs, if not --channels",
    )
    add(
        "--output_channels",
        type=number(int, at_least=1, at_most=256),
        help="of the outputs, if not --channels",
    )
    add(
        "--direction",
        choices=("AtoB", "BtoA"),
        default="AtoB",
        help="which side of a pair is the input",
    )
    add(
        "--arch",
        choices=("unet", "resnet"),
        default="unet",
        help="the generator: the paper's, or CycleGAN's",
    )
    add(
        "--upsample",
        choices=("transpose", "resize"),
        default="transpose",
        help="how the generator doubles sizes",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=256),
        default=16,
        help="channels of the first layers",
    )
    add(
        "--norm",
        choices=("instance", "batch"),
        default="instance",
        help="normalization in both networks",
    )
    add(
        "--dropout",
        type=number(float, at_least=0, below=1),
        default=0.5,
        help="the generator's noise",
    )
    add("--loss", choices=("bce", "lsgan"), default="lsgan", help="the adversarial loss")
    add(
        "--lambda_L1",
        type=number(float, at_least=0),
        default=100.0,
        help="weight of the distance to the target",
    )
    parser.add_augmentation()
    parser.add_tile()
    parser.add_decay(decay_epoch=10)
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 32, at_least=32)
    parser.multiple_of(args, "tile", divisor(args), at_least=32)
    return args


def divisor(args):
    """What divides the sides of all images that the generator takes."""
    return 2 ** common.halvings(*args.shape) if args.arch == "unet" else 4


# ---- networks ----


class Noise(nn.Dropout):
    """Dropout that is never off: it is the noise of the conditional GAN, in samples too (Isola 2017, section 3.1)."""

    def execute(self, x):
        self.is_train = True
        return super().execute(x)


class BatchNorm(nn.BatchNorm):
    """Takes the statistics of the batch at hand in samples too, not the running ones (Isola 2017, section 3.3)."""

    def execute(self, x):
        return super().execute(x) if self.is_train else self.plain(x)[0]


def norm_layer(norm, channels):
    return BatchNorm(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


class UNet(nn.Module):
    """(B, C, H, W) inputs to (B, C', H, W) outputs, both in [-1, 1]; H and W are multiples of 2^n.

    n convolutions halve the image, down to one pixel where H = W = 2^n; as many transposed ones double it, and each
    sees its counterpart's output too. Dropout follows the first three upward layers of full width. The last alone has a
    bias.
    """

    def __init__(self, n, c_in, c_out, width, norm, dropout, upsample):
        super().__init__()
        c = [min(width * 2**i, width * 8) for i in range(n)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.down.append(nn.Conv(c_in, width, 4, stride=2, padding=1, bias=False))
        for i in range(1, n):  # (B, c[i], H / 2^(i + 1), W / 2^(i + 1))
            conv = nn.Conv(c[i - 1], c[i], 4, stride=2, padding=1, bias=False)
            normed = (
                [norm_layer(norm, c[i])] if i < n - 1 else []
            )  # the one pixel at the bottom has no variance
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), conv, *normed))
        for i in range(n - 1, 0, -1):  # (B, c[i - 1], H / 2^i, W / 2^i)
            inputs = c[i] if i == n - 1 else 2 * c[i]
            conv = doubled(upsample, inputs, c[i - 1], size=4, bias=False)
            noise = [Noise(dropout)] if c[i - 1] == 8 * width and i >= n - 3 else []
            self.up.append(nn.Sequential(nn.ReLU(), *conv, norm_layer(norm, c[i - 1]), *noise))
        last = doubled(upsample, 2 * width, c_out, size=4, bias=True)
        self.last = nn.Sequential(nn.ReLU(), *last, nn.Tanh())

    def execute(self, x):
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        skips.pop()
        for layer in self.up:
            x = jt.concat([layer(x), skips.pop()], dim=1)
        return self.last(x)


class PatchGAN(nn.Module):
    """(B, C, S, S) inputs and (B, C', S, S) outputs to (B, 1, S/8 - 2, S/8 - 2) scores of patches of 70 x 70 pixels."""

    def __init__(self, channels, width, norm):
        super().__init__()
        layers, c = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        for stride in (2, 2, 1):
            layers += [nn.Conv(c, 2 * c, 4, stride=stride, padding=1, bias=False)]
            layers += [norm_layer(norm, 2 * c), nn.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(*layers, nn.Conv(c, 1, 4, stride=1, padding=1))

    def execute(self, inputs, outputs):
        return self.layers(jt.concat([inputs, outputs], dim=1))


def initialize(module):
    """Weights from N(0, 0.02^2) (Isola 2017, section 6.2), of norms from N(1, 0.02^2); biases 0."""
    for layer in module.modules():
        is_norm = isinstance(layer, (nn.BatchNorm, nn.InstanceNorm2d))
        if is_norm or isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=float(is_norm), std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)


def build(args):
    """The generator and the discriminator of these arguments."""
    channels = args.input_channels, args.output_channels
    if args.arch == "unet":
        n = common.halvings(*args.shape)
        generator = UNet(n, *channels, args.width, args.norm, args.dropout, args.upsample)
    else:
        layers = partial(norm_layer, args.norm), partial(Noise, args.dropout), args.upsample
        n = 6 if max(args.shape) <= 128 else 9
        generator = ResNet(n, *channels, args.width, *layers)
    discriminator = PatchGAN(sum(channels), args.width, args.norm)
    for module in (generator, discriminator):
        initialize(module)
        module.train()
    return generator, discriminator


# ---- losses and the step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (any shape) that should all be `target`, 1 or 0; scores are logits for bce."""
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def discriminator_loss(real_scores, fake_scores, loss):
    """Half the loss of each side, which slows D down against G (Isola 2017, section 3.3)."""
    return (adversarial_loss(real_scores, 1.0, loss) + adversarial_loss(fake_scores, 0.0, loss)) / 2


def l1_distance(outputs, targets):
    """The mean of |output - target| over all values of two equal shapes."""
    if outputs.shape != targets.shape:
        raise ValueError(
            f"outputs and targets of different shapes: {outputs.shape} and {targets.shape}"
        )
    return (outputs - targets).abs().mean()


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, inputs, targets, loss, lambda_L1
):
    """One update of D, then one of G against the new D; inputs and targets are (B, C, H, W) in [-1, 1].

    Returns {"loss_D", "loss_G", "loss_L1"} as Jittor scalars: loss_G is the adversarial part, loss_L1 is not weighted.
    """
    fake = generator(inputs)
    loss_D = discriminator_loss(
        discriminator(inputs, targets), discriminator(inputs, fake.detach()), loss
    )
    optimizer_D.step(loss_D)

    loss_G = adversarial_loss(discriminator(inputs, fake), 1.0, loss)
    loss_L1 = l1_distance(fake, targets)
    optimizer_G.step(loss_G + lambda_L1 * loss_L1)
    return {"loss_D": loss_D, "loss_G": loss_G, "loss_L1": loss_L1}


def learning_rate(epoch, lr, decay_epoch, decay_until):
    """The rate in an epoch, counted from 1: lr until `decay_epoch`, falling until `decay_until`, then constant."""
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    return lr * (decay_until + 1 - min(epoch, decay_until)) / (decay_until + 1 - decay_epoch)


# ---- training and translations ----


def translator(generator, args):
    """A function of (N, C, H, W) numpy inputs, and of the first one's number for the dropout, that translates them."""
    return lambda inputs, first=0: common.in_chunks(
        generator, inputs, chunk=args.batch_size, seed=args.seed + first
    )


def load(args, split, **more):
    channels = args.input_channels, args.output_channels
    return load_pairs(args.data_dir, args.shape, channels, args.direction, split, **more)


def train(run, args):
    validation = load(args, "val")
    shown, data = spread(validation), load(args, "train", augment=augmentation(args))
    batches = common.Batches(data, args.batch_size, args.seed)
    networks = generator, discriminator = build(args)
    betas = (args.b1, args.b2)
    optimizers = optimizer_G, optimizer_D = [
        nn.Adam(m.parameters(), lr=args.lr, betas=betas) for m in networks
    ]
    parts = {"generator": generator, "discriminator": discriminator, "batches": batches}
    run.track(
        exports={"generator": generator}, optimizer_G=optimizer_G, optimizer_D=optimizer_D, **parts
    )
    draw = translator(generator, args)
    watch = run.watch(shown[1], "translations", loss="loss_D")
    for epoch in run.epochs():
        optimizer_G.lr = optimizer_D.lr = learning_rate(
            epoch, args.lr, args.decay_epoch, args.decay_until
        )
        for inputs, targets in run.steps(batches):
            run.log(
                train_step(
                    *networks,
                    *optimizers,
                    inputs,
                    targets,
                    loss=args.loss,
                    lambda_L1=args.lambda_L1,
                )
            )
            if run.every(args.sample_interval):
                watch.see_samples(write_rows(run.sample_path, draw, *shown))
        if run.is_main:
            write_validation(
                run.out_dir / "validation.csv", epoch, distances(draw, validation, args.batch_size)
            )
            write_rows(run.out_dir / "result.png", draw, *shown)


def write_rows(path, draw, inputs, targets):
    """Writes rows of inputs, outputs and targets, and gives the outputs."""
    outputs = draw(inputs)
    save_rows(path, inputs, outputs, targets)
    return outputs


def generate(run, args):
    """Translates --input, or the validation pairs of the pictures."""
    generator, _ = build(args)
    run.track(generator=generator)
    draw = translator(generator, args)
    if args.input is None:
        write_rows(run.out_dir / "result.png", draw, *spread(load(args, "val")))
    else:
        common.translate_folder(
            run, args.input, draw, args.shape, args.input_channels, divisor(args), args.tile
        )


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            generator, discriminator = build(args)
            images = [
                jt.zeros((1, c, *args.shape)) for c in (args.input_channels, args.output_channels)
            ]
            common.describe("generator", generator, images[0])
            common.describe("discriminator", discriminator, *images)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
