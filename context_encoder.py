"""Context encoder: fills a hole in an image from what surrounds it.

Pathak, Krahenbuhl, Donahue, Darrell and Efros 2016, https://arxiv.org/abs/1604.07379

    python context_encoder.py                           # digits, 1 minute
    python context_encoder.py --paper --data_dir PHOTOS    # the paper's setting
    python context_encoder.py --hole random --data_dir faces
    python context_encoder.py --resume results/context_encoder --sample_only \\
        --input picture.png --mask mask.png --out_dir filled

Method
    An encoder turns an image x, in which the pixels of a mask M are replaced by a
    constant colour c, into a code. A decoder turns the code into the missing part; both
    together are the generator G. A discriminator D sees the missing part alone, without
    its surroundings, and gives it a logit, which is high where it takes it for real.
    Let y be this part of x, the middle half of both sides. With the sigmoid s, lambda =
    0.999 and mu = 0.001:

        G(x)  = decoder(encoder((1 - M) x + M c))
        L_rec = E[w |y - G(x)|^2]
        L_adv = -E[log s(D(G(x)))]
        L_G   = lambda L_rec + mu L_adv
        L_D   = -E[log s(D(y))] - E[log(1 - s(D(G(x))))]

    The error is a mean over all pixels and channels. M leaves a rim of y visible, in
    which the weight w is 10, and 1 elsewhere: so the filling joins its surroundings
    (--overlap). G's learning rate is ten times that of D (--lr_ratio).

    With --hole random, M is a random region of any shape, and y is the whole image: G
    draws it, and D sees it. Only the missing pixels are used at the end.

What to expect
    Without --data_dir, G completes digits of which it sees neither the middle nor the
    class. At the end the mean |y - G(x)| over the missing pixels is 0.29 for values in
    [-1, 1], where the mean image has 0.70; and 90.0 % of the completed test digits are
    read as what they were, of whole ones 97.6 % (docs/scripts/context_encoder.md).

    Pictures show rows of images with holes, the same ones filled, and the originals, of
    the test split; validation.csv has the mean |y - G(x)| and the PSNR. The squared
    error alone is least for a blurred mean of all parts that fit; D is there to make it
    sharp. A loss_D near 1.39 = 2 log 2 means that D guesses; near 0, that D has won.

Differences from the paper (--paper undoes the first)
    * 32 x 32 pixels, a quarter of the width, a code of 512 values, 40 epochs; the rim
      is one pixel wide, which is as much of the image
    * always: networks, rim, colour, masks and the errors of --hole random are those of
      the authors' code (github.com/pathak22/context-encoder, train.lua and
      train_random.lua). In the paper the error of a random region is that of the
      missing pixels alone.
    * always: G is trained against the new D. The authors' code takes D's outputs from
      before its update.
    * always: with --hole random each image has its own mask; in the authors' code all
      images of a batch share one.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import spread
from common.data.augment import augmentation
from common.data.holes import HOLES, hole_distances, load_with_holes
from common.inpainting import fill_folder

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' README, for the centre: wtl2=0.999 overlapPred=4 nBottleneck=4000
# niter=500 loadSize=350 fineSize=128; all else from the defaults in train.lua.
PAPER = {
    "n_epochs": 500,
    "batch_size": 64,
    "lr": 0.0002,
    "lr_ratio": 10.0,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 128,
    "channels": 3,
    "width": 64,
    "bottleneck": 4000,
    "hole": "center",
    "overlap": 4,
    "lambda_rec": 0.999,
    "lambda_adv": 0.001,
    "load_size": 350,
}
COLOUR = (117, 104, 123)  # of a hole, in RGB of 8 bits: c in the authors' code
RIM_WEIGHT = 10.0  # of the error in the rim


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=40, batch_size=64, lr=0.0002)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_augmentation()
    parser.add_input(tile=False, mask=True)

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128, 256), help="side of images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=256, help="channels next to the image"
    )
    parser.add_architecture("--bottleneck", type=int, default=512, help="length of the code")
    parser.add_architecture(
        "--hole", choices=HOLES, default="center", help="where pixels are missing in training"
    )

    # Training
    parser.add_argument(
        "--overlap",
        type=int,
        default=1,
        at_least=0,
        help="width of the visible rim of the predicted part, with --hole center",
    )
    parser.add_argument(
        "--lambda_rec", type=float, default=0.999, help="weight of the squared error"
    )
    parser.add_argument(
        "--lambda_adv", type=float, default=0.001, help="weight of the adversarial loss"
    )
    parser.add_argument(
        "--lr_ratio", type=float, default=10.0, above=0, help="G's learning rate over D's, --lr"
    )
    args = parser.parse(argv)
    if 4 * args.overlap >= args.img_size:
        parser.error(
            f"--overlap {args.overlap}: nothing of the {args.img_size // 2} pixels would be "
            f"missing; it must be below {args.img_size // 4}"
        )
    return args


# ---- networks ----


def multiples(n):
    """The channels after each of n convolutions that halve an image, over the width.

    They are those of the authors' code: 1, 1, 2, 4, 8 from 128 pixels to 4.
    """
    return [2 ** max(i - max(n - 4, 0), 0) for i in range(n)]


class Generator(nn.Module):
    """images with holes (B, C, S, S)  ->  predicted parts (B, C, P, P) in [-1, 1].

    Args:
        img_size: S.
        part_size: P.
        channels: C.
        bottleneck: length of the code.
    """

    def __init__(self, img_size, part_size, channels, width, bottleneck):
        super().__init__()
        sizes = [width * k for k in multiples(int(math.log2(img_size)) - 2)]
        layers = [  # (B, C, S, S) -> (B, width, S / 2, S / 2)
            nn.Conv(channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        for c, c_next in zip(sizes, sizes[1:]):  # (B, c, H, W) -> (B, c_next, H / 2, W / 2)
            layers += [
                nn.Conv(c, c_next, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c_next),
                nn.LeakyReLU(0.2),
            ]
        layers += [  # (B, c, 4, 4) -> (B, bottleneck, 1, 1)
            nn.Conv(sizes[-1], bottleneck, 4, bias=False),
            nn.BatchNorm(bottleneck),
            nn.LeakyReLU(0.2),
        ]
        self.encoder = nn.Sequential(*layers)

        sizes = [width * k for k in multiples(int(math.log2(part_size)) - 2)]
        layers = [  # (B, bottleneck, 1, 1) -> (B, c, 4, 4)
            nn.ConvTranspose(bottleneck, sizes[-1], 4, bias=False),
            nn.BatchNorm(sizes[-1]),
            nn.ReLU(),
        ]
        for c, c_next in zip(sizes[::-1], sizes[-2::-1]):  # -> (B, c_next, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c_next, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c_next),
                nn.ReLU(),
            ]
        layers += [  # (B, width, P / 2, P / 2) -> (B, C, P, P)
            nn.ConvTranspose(width, channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        ]
        self.decoder = nn.Sequential(*layers)

    def execute(self, images):
        return self.decoder(self.encoder(images))


class Discriminator(nn.Module):
    """parts of images (B, C, P, P)  ->  logits (B,), high for real ones."""

    def __init__(self, part_size, channels, width):
        super().__init__()
        sizes = [width * k for k in multiples(int(math.log2(part_size)) - 2)]
        layers = [  # (B, C, P, P) -> (B, width, P / 2, P / 2)
            nn.Conv(channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        for c, c_next in zip(sizes, sizes[1:]):  # (B, c, H, W) -> (B, c_next, H / 2, W / 2)
            layers += [
                nn.Conv(c, c_next, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c_next),
                nn.LeakyReLU(0.2),
            ]
        layers += [nn.Conv(sizes[-1], 1, 4, bias=False)]  # (B, c, 4, 4) -> (B, 1, 1, 1)
        self.layers = nn.Sequential(*layers)

    def execute(self, parts):
        return self.layers(parts).reshape(-1)


def initialize(network):
    """Convolutions from N(0, 0.02^2), batch norm from N(1, 0.02^2) (authors' code)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)
            nn.init.constant_(layer.bias, 0)


def build(args):
    part_size = args.img_size if args.hole == "random" else args.img_size // 2
    generator = Generator(args.img_size, part_size, args.channels, args.width, args.bottleneck)
    discriminator = Discriminator(part_size, args.channels, args.width)
    for network in (generator, discriminator):
        initialize(network)
        network.train()
    return generator, discriminator


# ---- holes ----


def with_hole(images, masks):
    """Images (B, C, S, S) with the constant colour where masks (B, 1, S, S) are 1.

    Both are Jittor variables or numpy arrays.
    """
    colour = np.float32(COLOUR)
    if images.shape[1] == 1:
        colour = np.float32([colour @ (0.299, 0.587, 0.114)])  # its grey
    colour = (colour / 127.5 - 1).reshape(1, -1, 1, 1).astype(np.float32)
    return images * (1 - masks) + masks * colour


def predicted_part(images, hole):
    """The part of images (B, C, S, S) that G predicts: the middle half, or all."""
    if hole == "random":
        return images
    quarter = images.shape[2] // 4
    return images[:, :, quarter : 3 * quarter, quarter : 3 * quarter]


# ---- losses and one training step ----


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B,): -log s(x) = softplus(-x), -log(1 - s(x)) = softplus(x)."""
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def adversarial_loss(fake_logits):
    """L_adv of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def reconstruction_loss(fake, real, rim):
    """L_rec of parts (B, C, P, P), whose rim has this width."""
    common.check_same_shape(fake, real)
    side = real.shape[2]
    weights = np.full((side, side), RIM_WEIGHT, np.float32)
    weights[rim : side - rim, rim : side - rim] = 1
    return (jt.array(weights) * (real - fake) ** 2).mean()


def train_step(
    generator,
    discriminator,
    optimizer_G,
    optimizer_D,
    images,
    masks,
    *,
    hole,
    overlap,
    lambda_rec,
    lambda_adv,
):
    """Updates D, then G against the new D.

    Args:
        images: whole ones (B, C, S, S) in [-1, 1].
        masks: (B, 1, S, S), 1 where pixels are missing.
        hole: "center" or "random".
        overlap: the width of the rim in pixels, for "center".
        lambda_rec, lambda_adv: the weights of L_rec and of L_adv in L_G.

    Returns:
        {"loss_D", "loss_adv", "loss_rec"} as Jittor scalars, the last two not weighted.
    """
    # D: real parts against predicted ones
    real = predicted_part(images, hole)
    fake = generator(with_hole(images, masks))
    loss_D = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: the parts should be the missing ones, and D should take them for real
    loss_adv = adversarial_loss(discriminator(fake))
    rim = overlap if hole == "center" else 0
    loss_rec = reconstruction_loss(fake, real, rim)
    optimizer_G.step(lambda_rec * loss_rec + lambda_adv * loss_adv)
    return {"loss_D": loss_D, "loss_adv": loss_adv, "loss_rec": loss_rec}


# ---- training ----


def train(run, args):
    validation = load(args, "val")
    fixed_images, fixed_masks = spread(validation)
    data = load(args, "train", augment=augmentation(args))
    generator, discriminator = build(args)
    complete = completer(generator, args)
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr_ratio * args.lr, betas=betas)
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=betas)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for images, masks in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                images,
                masks,
                hole=args.hole,
                overlap=args.overlap,
                lambda_rec=args.lambda_rec,
                lambda_adv=args.lambda_adv,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                save_pictures(run, complete, fixed_images, fixed_masks)
        run.save_validation(epoch, **hole_distances(complete, validation))
        save_pictures(run, complete, fixed_images, fixed_masks, to="result.png")


# ---- completed images ----


def load(args, split, **options):
    return load_with_holes(
        args.data_dir,
        args.img_size,
        args.channels,
        args.hole,
        args.overlap,
        split=split,
        **options,
    )


def completer(generator, args):
    """A function of images and masks that returns completed images, all numpy.

    Images are (N, C, S, S) in [-1, 1], and masks (N, 1, S, S), 1 where pixels are
    missing.
    """

    def complete(images, masks):
        drawn = images.copy()
        # A view of the part that G predicts.
        predicted_part(drawn, args.hole)[:] = common.predict(generator, with_hole(images, masks))
        return np.where(masks == 1, drawn, images)

    return complete


def save_pictures(run, complete, images, masks, to=None):
    """Rows of images with holes, of completed ones, and of the originals."""
    run.save_rows(with_hole(images, masks), complete(images, masks), images, to=to)


def generate(run, args):
    """Fills the holes of --input with a checkpoint, or else those of the pictures."""
    generator, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    complete = completer(generator, args)
    if args.input is None:
        images, masks = spread(load(args, "val"))
        save_pictures(run, complete, images, masks, to="result.png")
        return

    fill_folder(
        run,
        args.input,
        args.mask,
        complete,
        args.shape,
        args.channels,
        hole=args.hole,
        overlap=args.overlap,
    )


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
