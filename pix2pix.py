"""pix2pix: image-to-image translation from pairs, by a conditional GAN.

Isola, Zhu, Zhou and Efros 2017, https://arxiv.org/abs/1611.07004

    python pix2pix.py                                   # outlines of digits, 9 minutes
    python pix2pix.py --paper --data_dir FACADES --direction BtoA
    python pix2pix.py --task color --data_dir PHOTOS    # pairs are made: grey, colour
    python pix2pix.py --resume results/pix2pix --sample_only \\
        --input my_drawings --out_dir painted

Method
    A U-Net G translates an input x. A discriminator D sees input and output together,
    and gives each patch of 70 x 70 pixels (--n_layers_D) a logit, which is high where
    it takes the output for the real target y of this input. With the sigmoid s and
    lambda = 100 (sections 3.1 and 3.3):

        L_D = -1/2 E[log s(D(x, y))] - 1/2 E[log(1 - s(D(x, G(x))))]
        L_G = -E[log s(D(x, G(x)))] + lambda E|y - G(x)|

    with means over all pixels and channels. --loss lsgan takes the squared distances of
    D's scores from 1 and 0 instead, as CycleGAN does. The noise of the conditional GAN
    is G's dropout, which stays on when samples are drawn, and batch norm uses the
    statistics of the present batch, also in samples (section 3.3).

    --task makes x from y, so that any folder of images will do: the drawn edges of y, y
    in grey, y with a white hole, or its small copy (common/data/tasks.py).

What to expect
    Without --data_dir, G paints outlines of digits in the colour of their class, which
    it must recognize. Shapes are filled in after one epoch, and the colours are right
    after ten; the whole run takes 9 minutes on two CPU cores. At its end 96.4 % of the
    test outlines have the right colour and the mean |y - G(x)| is 0.029; for the same
    training in PyTorch 96.2 % and 0.030 (docs/scripts/pix2pix.md).

    Pictures show rows of inputs, outputs and targets of the validation set.
    validation.csv has the mean |y - G(x)| for values in [-1, 1], and the PSNR. A loss_D
    near 1/4 (0.69 with --loss bce) means that D guesses; near 0, that D has won.

Differences from the paper (--paper undoes all but the last)
    * 64 x 64 pixels, a quarter of the width, batches of 10, 20 epochs. At this size two
      upward layers have the full width that dropout follows, instead of three.
    * least squares (--loss), of which the authors' code gives the choice
    * instance norm (--norm), which is what batch norm is in a batch of one image
      (section 3.3). In larger batches, batch norm would make a picture depend on the
      others of its batch.
    * the learning rate falls over the second half of the epochs, as in the authors'
      PyTorch code (github.com/junyanz/pytorch-CycleGAN-and-pix2pix); in their first
      code (github.com/phillipi/pix2pix), and with --paper, it is constant
    * always: --task edges draws Canny's edges, not those of a network (HED), and --task
      color predicts red, green and blue, not the colours of Lab as the first code
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_pairs, spread
from common.data.augment import augmentation
from common.data.holes import HOLES
from common.data.pairs import distances
from common.data.tasks import SCALE, TASKS, completer, load_task_pairs, prepare
from common.inpainting import fill_folder

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Isola 2017, sections 3.1, 3.3, 6.1 and 6.2, for facades.
PAPER = {
    "n_epochs": 200,
    "decay_epoch": 200,  # nothing falls
    "batch_size": 1,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 256,
    "channels": 3,
    "width": 64,
    "n_layers_D": 3,
    "norm": "batch",
    "dropout": 0.5,
    "loss": "bce",
    "lambda_L1": 100.0,
}


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=20, batch_size=10, lr=0.0002, checkpoint_interval=1)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_decay(decay_epoch=10)
    parser.add_augmentation()
    parser.add_input(mask=True)
    add_architecture(parser)

    parser.add_argument(
        "--task",
        choices=TASKS,
        help="make the inputs from the images of --data_dir, which are then no pairs: drawn "
        "edges, grey images, images with a hole, or small copies",
    )
    parser.add_argument("--hole", choices=HOLES, default="center", help="hole of --task inpaint")
    parser.add_argument(
        "--direction",
        choices=("AtoB", "BtoA"),
        default="AtoB",
        help="BtoA takes the second image of a pair as the input",
    )
    parser.add_argument(
        "--dropout", type=float, default=0.5, below=1, help="dropout, which is G's noise"
    )
    parser.add_argument(
        "--loss", choices=("bce", "lsgan"), default="lsgan", help="adversarial loss"
    )
    parser.add_argument(
        "--lambda_L1", type=float, default=100.0, help="weight of the distance to the target"
    )
    args = parser.parse(argv)
    if args.input_channels is None:
        args.input_channels = args.channels
    if args.output_channels is None:
        args.output_channels = args.channels
    parser.shape_is_multiple_of(args, 32, at_least=32)
    if min(args.shape) < 3 * 2**args.n_layers_D:
        parser.error(
            f"--n_layers_D {args.n_layers_D} needs images of at least "
            f"{3 * 2**args.n_layers_D} pixels, got {args.shape[0]} x {args.shape[1]}"
        )
    parser.multiple_of(args, "tile", divisor(args), at_least=32)
    check_task(parser, args)
    return args


def check_task(parser, args):
    """Refuses flags that do not suit --task; an input to enlarge is taken in tiles."""
    if args.task is not None and args.direction != "AtoB":
        parser.error("--direction swaps the images of pairs, and --task makes its own pairs")
    if args.mask is not None and args.task != "inpaint":
        parser.error("--mask needs a run of --task inpaint")
    if args.tile is not None and args.task == "inpaint":
        parser.error("--tile has no use with --task inpaint, which looks around the hole alone")
    if args.task == "inpaint" and args.input_channels != args.output_channels:
        parser.error("--task inpaint completes its inputs: give both the same channels")
    if args.task == "enlarge" and args.input is not None and args.tile is None:
        args.tile = min(args.shape)


def add_architecture(parser):
    """The flags that are stored with the weights; --resume takes them from there."""
    parser.add_images(img_size=64, channels=3)
    parser.add_architecture(
        "--input_channels", type=int, at_most=256, help="channels of inputs (default: --channels)"
    )
    parser.add_architecture(
        "--output_channels", type=int, at_most=256, help="channels of outputs (default: --channels)"
    )
    parser.add_architecture(
        "--width", type=int, default=16, at_most=256, help="channels of the first layers"
    )
    parser.add_architecture(
        "--n_layers_D",
        type=int,
        choices=range(6),
        default=3,
        help="strided layers of D, for patches of 1, 16, 34, 70, 142 or 286 pixels",
    )
    parser.add_architecture(
        "--norm",
        choices=("instance", "batch"),
        default="instance",
        help="normalization in both networks",
    )
    parser.add_architecture(
        "--arch",
        choices=("unet", "resnet"),
        default="unet",
        help="generator: the paper's, or CycleGAN's",
    )
    parser.add_architecture(
        "--upsample",
        choices=("transpose", "resize"),
        default="transpose",
        help="how the generator doubles the size; resize leaves no checkerboard",
    )


def divisor(args):
    """The sides of every image that the generator takes are multiples of it."""
    if args.arch == "resnet":
        return 4
    return 2 ** common.halvings(*args.shape)


# ---- networks ----


class Noise(nn.Dropout):
    """Dropout that is on in samples too: it is the noise of G (section 3.1)."""

    def execute(self, x):
        self.is_train = True  # eval() has set it to False
        return super().execute(x)


class BatchNorm(nn.BatchNorm):
    """Batch norm by the present batch in samples too (section 3.3).

    It has running statistics, but never uses them.
    """

    def execute(self, x):
        if self.is_train:
            return super().execute(x)
        mean = x.mean([0, 2, 3], keepdims=True)
        variance = ((x - mean) ** 2).mean([0, 2, 3], keepdims=True)
        scale = self.weight.reshape(1, -1, 1, 1) / jt.sqrt(variance + self.eps)
        return (x - mean) * scale + self.bias.reshape(1, -1, 1, 1)


def norm_layer(norm, channels):
    return BatchNorm(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


class UNet(nn.Module):
    """inputs (B, c_in, H, W)  ->  outputs (B, c_out, H, W), both in [-1, 1].

    n convolutions halve the image, down to one pixel if H = W = 2^n, and n transposed
    ones double it again. Each of the latter also gets the output of its counterpart,
    the convolution at the same size.

    Args:
        n: H and W are multiples of 2^n.
        norm: "instance" or "batch".
        upsample: see `upsampling`.
    """

    def __init__(self, n, c_in, c_out, width, norm, dropout, upsample):
        super().__init__()
        c = [min(width * 2**i, 8 * width) for i in range(n)]  # after i + 1 convolutions

        self.down = nn.ModuleList()
        self.down.append(nn.Conv(c_in, width, 4, stride=2, padding=1, bias=False))
        for i in range(1, n):  # (B, c[i - 1], H, W) -> (B, c[i], H / 2, W / 2)
            layers = [
                nn.LeakyReLU(0.2),
                nn.Conv(c[i - 1], c[i], 4, stride=2, padding=1, bias=False),
            ]
            if i < n - 1:  # the one pixel at the bottom has no variance
                layers += [norm_layer(norm, c[i])]
            self.down.append(nn.Sequential(*layers))

        self.up = nn.ModuleList()
        for i in range(n - 1, 0, -1):  # (B, inputs, H, W) -> (B, c[i - 1], 2 H, 2 W)
            inputs = c[i] if i == n - 1 else 2 * c[i]  # with the counterpart's output
            layers = [nn.ReLU()]
            layers += upsampling(upsample, inputs, c[i - 1], 4, bias=False)
            layers += [norm_layer(norm, c[i - 1])]
            if c[i - 1] == 8 * width and i >= n - 3:  # the first three of full width
                layers += [Noise(dropout)]
            self.up.append(nn.Sequential(*layers))

        layers = [nn.ReLU()]
        layers += upsampling(upsample, 2 * width, c_out, 4, bias=True)
        layers += [nn.Tanh()]
        self.last = nn.Sequential(*layers)

    def execute(self, x):
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        skips.pop()  # the bottom itself
        for layer in self.up:
            x = jt.concat([layer(x), skips.pop()], dim=1)
        return self.last(x)


class PatchGAN(nn.Module):
    """inputs (B, C, H, W), outputs (B, C', H, W)  ->  (B, 1, H / 2^n - 2, W / 2^n - 2).

    These are scores, logits with --loss bce, which are high for real targets. Each
    depends on a patch of 16 x 16 pixels with n = 1, of 34 with 2, 70 with 3, 142 with 4
    and 286 with 5 (appendix 6.1.2; the authors' PyTorch code).

    Args:
        channels: C + C'.
        n: how many layers halve the image, at least 1.
    """

    def __init__(self, channels, width, norm, n):
        super().__init__()
        layers = [  # (B, channels, H, W) -> (B, width, H / 2, W / 2)
            nn.Conv(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        c_in = width
        for i in range(1, n + 1):  # ... -> (B, c, H / 2^n - 1, W / 2^n - 1)
            c = min(width * 2**i, 8 * width)
            stride = 2 if i < n else 1
            layers += [
                nn.Conv(c_in, c, 4, stride=stride, padding=1, bias=False),
                norm_layer(norm, c),
                nn.LeakyReLU(0.2),
            ]
            c_in = c
        layers += [nn.Conv(c_in, 1, 4, padding=1)]  # -> (B, 1, H / 2^n - 2, W / 2^n - 2)
        self.layers = nn.Sequential(*layers)

    def execute(self, inputs, outputs):
        return self.layers(jt.concat([inputs, outputs], dim=1))


class PixelGAN(nn.Module):
    """inputs (B, C, H, W), outputs (B, C', H, W)  ->  scores (B, 1, H, W).

    As PatchGAN, with patches of one pixel (appendix 6.1.2).
    """

    def __init__(self, channels, width, norm):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv(width, 2 * width, 1, bias=False),
            norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv(2 * width, 1, 1),
        )

    def execute(self, inputs, outputs):
        return self.layers(jt.concat([inputs, outputs], dim=1))


def initialize(network):
    """Weights from N(0, 0.02^2) (section 6.2), of norms from N(1, 0.02^2); biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)
        elif isinstance(layer, (nn.BatchNorm, nn.InstanceNorm2d)):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)
            nn.init.constant_(layer.bias, 0)


def build(args):
    c_in = args.input_channels
    c_out = args.output_channels
    if args.arch == "resnet":
        n_blocks = 6 if max(args.shape) <= 128 else 9
        generator = ResNet(
            n_blocks, c_in, c_out, args.width, args.norm, args.dropout, args.upsample
        )
    else:
        n = common.halvings(*args.shape)
        generator = UNet(n, c_in, c_out, args.width, args.norm, args.dropout, args.upsample)
    if args.n_layers_D == 0:
        discriminator = PixelGAN(c_in + c_out, args.width, args.norm)
    else:
        discriminator = PatchGAN(c_in + c_out, args.width, args.norm, args.n_layers_D)
    for network in (generator, discriminator):
        initialize(network)
        network.train()
    return generator, discriminator


# ---- losses and one training step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (any shape), all of which should be `target`.

    Args:
        target: 1 or 0.
        loss: "bce" for cross entropy, where the scores are logits, or "lsgan".
    """
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def discriminator_loss(real_scores, fake_scores, loss):
    """L_D of scores (B, 1, P, Q).

    Half of the sum slows D down relative to G (section 3.3).
    """
    common.check_same_shape(real_scores, fake_scores)
    real_loss = adversarial_loss(real_scores, 1.0, loss)
    fake_loss = adversarial_loss(fake_scores, 0.0, loss)
    return (real_loss + fake_loss) / 2


def l1_distance(outputs, targets):
    """The mean of |output - target| over all values of two batches (B, C, H, W)."""
    common.check_same_shape(outputs, targets)
    return (outputs - targets).abs().mean()


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, inputs, targets, *, loss, lambda_L1
):
    """Updates D, then G against the new D.

    Args:
        inputs, targets: images (B, C, H, W) and (B, C', H, W) in [-1, 1].
        loss: "bce" or "lsgan".

    Returns:
        {"loss_D", "loss_G", "loss_L1"} as Jittor scalars. loss_G is the adversarial
        loss alone; loss_L1 is not weighted.
    """
    # D: real targets against outputs
    fake = generator(inputs)
    real_scores = discriminator(inputs, targets)
    fake_scores = discriminator(inputs, fake.detach())
    loss_D = discriminator_loss(real_scores, fake_scores, loss)
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: D should take the same outputs for real, and they should equal the targets
    loss_G = adversarial_loss(discriminator(inputs, fake), 1.0, loss)
    loss_L1 = l1_distance(fake, targets)
    optimizer_G.step(loss_G + lambda_L1 * loss_L1)
    return {"loss_D": loss_D, "loss_G": loss_G, "loss_L1": loss_L1}


# ---- training ----


def train(run, args):
    validation = load(args, "val")
    fixed_inputs, fixed_targets = spread(validation)
    data = load(args, "train", augment=augmentation(args))
    generator, discriminator = build(args)
    translate = translator(generator, args)
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=betas)
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=betas)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        lr = common.linear_decay(epoch, args.lr, args.decay_epoch, args.decay_until)
        optimizer_G.lr = lr
        optimizer_D.lr = lr
        for inputs, targets in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                inputs,
                targets,
                loss=args.loss,
                lambda_L1=args.lambda_L1,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_rows(fixed_inputs, translate(fixed_inputs), fixed_targets)
        run.save_validation(epoch, **distances(translate, validation, args.batch_size))
        run.save_rows(fixed_inputs, translate(fixed_inputs), fixed_targets, to="result.png")


# ---- translations ----


def load(args, split, **options):
    channels = (args.input_channels, args.output_channels)
    if args.task is not None:
        return load_task_pairs(
            args.task, args.data_dir, args.shape, channels, args.hole, split, **options
        )
    return load_pairs(args.data_dir, args.shape, channels, args.direction, split, **options)


def translator(generator, args):
    """A function of inputs (N, C, H, W) that returns their outputs, both numpy.

    Its second argument is the index of the first input. It seeds the dropout, so that
    the same inputs always get the same outputs.
    """

    def translate(inputs, first=0):
        # In chunks of a training batch, whose statistics batch norm uses.
        return common.predict(generator, inputs, chunk=args.batch_size, seed=args.seed + first)

    return translate


def generate(run, args):
    """Translates --input with a checkpoint, or else the inputs of the pictures."""
    generator, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    translate = translator(generator, args)

    if args.input is None:
        inputs, targets = spread(load(args, "val"))
        run.save_rows(inputs, translate(inputs), targets, to="result.png")
        return

    channels = args.input_channels
    if args.task == "inpaint":
        complete = completer(translate)
        fill_folder(run, args.input, args.mask, complete, args.shape, channels, hole=args.hole)
        return

    common.translate_folder(
        run,
        args.input,
        translate,
        args.shape,
        channels,
        multiple=divisor(args),
        tile=args.tile,
        by=SCALE if args.task == "enlarge" else 1,  # `prepare` enlarges the picture
        prepare=prepare(args.task),
    )


# ---- --upsample resize (Odena 2016, https://distill.pub/2016/deconv-checkerboard) ----


def upsampling(method, c_in, c_out, kernel_size, bias):
    """A list of layers; (B, c_in, H, W)  ->  (B, c_out, 2 H, 2 W).

    Args:
        method: "transpose" for a transposed convolution. Its kernels overlap unevenly,
            or with uneven weights, which can be seen as a checkerboard. "resize" for
            nearest neighbours and a 3 x 3 convolution, which leave none.
        kernel_size: of the transposed convolution, 3 or 4.
    """
    if method == "resize":
        return [
            nn.Upsample(2),
            nn.Conv(c_in, c_out, 3, padding=1, bias=bias),
        ]
    return [
        nn.ConvTranspose(
            c_in,
            c_out,
            kernel_size,
            stride=2,
            padding=1,
            output_padding=kernel_size % 2,
            bias=bias,
        )
    ]


# ---- --arch resnet: CycleGAN's generator (Johnson 2016, arXiv 1603.08155) ----


class Residual(nn.Module):
    """x (B, C, H, W)  ->  x + f(x), where f is two convolutions with noise between."""

    def __init__(self, channels, norm, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv(channels, channels, 3, bias=False),
            norm_layer(norm, channels),
            nn.ReLU(),
            Noise(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv(channels, channels, 3, bias=False),
            norm_layer(norm, channels),
        )

    def execute(self, x):
        return x + self.layers(x)


class ResNet(nn.Module):
    """inputs (B, c_in, H, W)  ->  outputs (B, c_out, H, W), both in [-1, 1].

    H and W are multiples of 4. The norms have a shift, so the convolutions before them
    have no bias.

    Args:
        n_blocks: residual blocks; in the authors' code 6 up to 128 pixels, and 9 above.
        norm, dropout, upsample: as of `UNet`.
    """

    def __init__(self, n_blocks, c_in, c_out, width, norm, dropout, upsample):
        super().__init__()
        c = width
        layers = [  # (B, c_in, H, W) -> (B, width, H, W)
            nn.ReflectionPad2d(3),
            nn.Conv(c_in, c, 7, bias=False),
            norm_layer(norm, c),
            nn.ReLU(),
        ]
        for _ in range(2):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1, bias=False),
                norm_layer(norm, 2 * c),
                nn.ReLU(),
            ]
            c *= 2
        for _ in range(n_blocks):
            layers += [Residual(c, norm, dropout)]
        for _ in range(2):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += upsampling(upsample, c, c // 2, 3, bias=False)
            layers += [
                norm_layer(norm, c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, H, W) -> (B, c_out, H, W)
            nn.ReflectionPad2d(3),
            nn.Conv(c, c_out, 7),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return self.layers(x)


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
