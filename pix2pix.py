r"""pix2pix: image-to-image translation with a conditional GAN (Isola 2017), learnt from pairs of images.

    python pix2pix.py
    python pix2pix.py --data_dir facades --direction BtoA --img_size 256 --width 64 --batch_size 1 --n_epochs 200 \
        --decay_epoch 100
    python pix2pix.py --resume results/pix2pix --sample_only --input my_drawings --out_dir painted

A U-Net G translates an input x; a discriminator D looks at input and output together, in overlapping patches of
70 x 70 pixels, and scores whether an output is the real target y of its input:

    L_D = 1/2 E[l(D(x, y), 1)] + 1/2 E[l(D(x, G(x)), 0)]
    L_G = E[l(D(x, G(x)), 1)] + lambda E|y - G(x)|        (mean over all values)

with lambda = 100 and l the squared distance (--loss lsgan) or the cross entropy of the paper (--loss bce). The noise
of the conditional GAN is G's dropout, which therefore stays on when samples are drawn, as in the paper.

Without --data_dir, G learns to paint the outlines of digits in the colour of their class, which it must recognise.
Expect shapes filled in after an epoch, and the right colours after ten. `samples/` and `result.png` show rows of input,
output, target from the validation part; `validation.csv` has the mean distance |y - G(x)| for values in [-1, 1], and
the PSNR in dB, after each epoch.

--input translates a picture, or a folder of them, at the pictures' own aspect ratio: the shorter side becomes
img_size, and both are padded to multiples of it, since the U-Net halves its input log2(img_size) times.

Departures from the paper:
  * a quarter of its width by default (--width 64 is the paper's), and batches of 10, not 1, for small drawn images;
  * at sizes below 256 fewer than three layers have the full width, and so dropout: two at 64, one at 32;
  * least squares by default, as in the authors' later code: it needs no tuning at small batches;
  * instance norm by default, which is the paper's batch norm at its batch size of 1. --norm batch is sampled with
    its running statistics, where the paper takes those of the test batch;
  * the learning rate falls linearly towards 0 after --decay_epoch, as in the authors' code.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import csv
import math

import jittor as jt
import numpy as np
from jittor import nn

from common import fast
from common.pairs import load_pairs
from common.translate import translate_folder

SIZES = (32, 64, 128, 256, 512)
N_ROWS = 10  # validation pairs in a picture


def parse_args(argv=None):
    parser = common.Parser(
        "pix2pix", __doc__, architecture=("width", "norm", "dropout", "img_size", "channels"), of_the_call=("input",),
        n_epochs=20, batch_size=10, lr=0.0002, b1=0.5, b2=0.999, img_size=64, channels=3, sample_interval=500,
        checkpoint_interval=1, log_interval=50,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--direction", choices=("AtoB", "BtoA"), default="AtoB", help="which side of a pair is the input")
    add("--width", type=number(int, at_least=1, at_most=256), default=16,
        help="channels of the first layers (paper: 64)")
    add("--norm", choices=("instance", "batch"), default="instance", help="normalisation of both networks")
    add("--dropout", type=number(float, at_least=0, below=1), default=0.5, help="the generator's noise")
    add("--loss", choices=("lsgan", "bce"), default="lsgan", help="least squares, or cross entropy as in the paper")
    add("--lambda_L1", type=number(float, at_least=0), default=100.0, help="weight of the distance to the target")
    add("--decay_epoch", type=number(int, at_least=0), default=10, help="epochs before the learning rate falls")
    add("--no_augment", action="store_true", help="without random crops and mirroring of the training pairs")
    add("--input", default=None, help="with --sample_only: a picture, or a folder of them, to translate")
    args = parser.parse(argv)
    if args.img_size not in SIZES:
        nearest = sorted(SIZES, key=lambda size: abs(size - args.img_size))[:2]
        near = " and ".join(map(str, sorted(nearest)))
        parser.error(f"--img_size must be a power of two from 32 to 512, nearest are {near}; got {args.img_size}")
    if args.input is not None and not args.sample_only:
        parser.error("--input needs --sample_only and --resume with the checkpoint that translates")
    if args.n_samples:
        parser.error("--n_samples is not offered here: translations need inputs, which --input takes")
    return args


# ---- networks ----


def norm_layer(norm, channels):
    """Neither has a scale and a shift of its own in the case of instance norm, as in the authors' code."""
    return fast.BatchNorm(channels) if norm == "batch" else fast.InstanceNorm2d(channels, affine=False)


class UNet(nn.Module):
    """(B, C, S, S) inputs to (B, C, S, S) outputs, both in [-1, 1]; S = img_size.

    log2(S) convolutions halve the image down to one pixel; as many transposed ones double it again, and each sees
    the output of its counterpart too. Dropout follows the first three upward layers of full width.
    """

    def __init__(self, img_size, channels, width, norm, dropout):
        super().__init__()
        n = int(math.log2(img_size))
        c = [min(width * 2**i, width * 8) for i in range(n)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.down.append(fast.Conv(channels, width, 4, stride=2, padding=1))
        for i in range(1, n):
            # One pixel is left at the bottom: it cannot be normalised.
            normed = [norm_layer(norm, c[i])] if i < n - 1 else []
            conv = fast.Conv(c[i - 1], c[i], 4, stride=2, padding=1, bias=not normed)
            self.down.append(nn.Sequential(fast.LeakyReLU(0.2), conv, *normed))  # (B, c[i], S / 2^(i+1), ...)
        for i in range(n - 1, 0, -1):
            inputs = c[i] if i == n - 1 else 2 * c[i]
            noise = [fast.Dropout(dropout)] if c[i - 1] == 8 * width and i >= n - 3 else []
            conv = fast.ConvTranspose(inputs, c[i - 1], 4, stride=2, padding=1, bias=False)
            self.up.append(nn.Sequential(fast.ReLU(), conv, norm_layer(norm, c[i - 1]), *noise))
        self.last = nn.Sequential(
            fast.ReLU(), fast.ConvTranspose(2 * width, channels, 4, stride=2, padding=1), fast.Tanh()
        )

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
    """(B, C, S, S) inputs and outputs to (B, 1, S / 8 - 2, S / 8 - 2) scores, each of a patch of 70 x 70 pixels."""

    def __init__(self, channels, width, norm):
        super().__init__()
        layers, c = [fast.Conv(2 * channels, width, 4, stride=2, padding=1), fast.LeakyReLU(0.2)], width
        for stride in (2, 2, 1):
            layers += [fast.Conv(c, 2 * c, 4, stride=stride, padding=1, bias=False), norm_layer(norm, 2 * c),
                       fast.LeakyReLU(0.2)]  # fmt: skip
            c *= 2
        self.layers = nn.Sequential(*layers, fast.Conv(c, 1, 4, stride=1, padding=1))

    def execute(self, inputs, outputs):
        return self.layers(jt.concat([inputs, outputs], dim=1))


def initialise(module):
    """Weights from N(0, 0.02^2), those of norms from N(1, 0.02^2), biases zero (Isola 2017, section 6.2)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.BatchNorm)):
            mean = 1.0 if isinstance(layer, nn.BatchNorm) else 0.0
            jt.init.gauss_(layer.weight, mean, 0.02)
            if layer.bias is not None:
                jt.init.constant_(layer.bias, 0.0)


# ---- losses and the step ----


def adversarial_loss(scores, target, loss):
    """The mean loss of scores (any shape) that should all be `target`, 1 or 0; scores are logits for bce."""
    if loss == "bce":
        return nn.binary_cross_entropy_with_logits(scores, jt.full_like(scores, target))
    return ((scores - target) ** 2).mean()


def l1_distance(outputs, targets):
    """The mean of |output - target| over all values of two equal shapes."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs are {outputs.shape}, targets {targets.shape}")
    return (outputs - targets).abs().mean()


def discriminator_loss(real_scores, fake_scores, loss):
    """Half the loss of each side, which slows D down relative to G (Isola 2017, section 3.3)."""
    return (adversarial_loss(real_scores, 1.0, loss) + adversarial_loss(fake_scores, 0.0, loss)) / 2


def train_step(generator, discriminator, optimizer_G, optimizer_D, inputs, targets, loss, lambda_L1):
    """One update of D, then one of G against the new D.

    Args:
        inputs, targets: (B, C, S, S) images in [-1, 1].

    Returns:
        {"loss_G", "loss_D", "loss_L1"} as Jittor scalars; loss_G is the adversarial part alone.
    """
    fake = generator(inputs)
    loss_D = discriminator_loss(discriminator(inputs, targets), discriminator(inputs, fake.detach()), loss)
    optimizer_D.step(loss_D)

    loss_G = adversarial_loss(discriminator(inputs, fake), 1.0, loss)
    loss_L1 = l1_distance(fake, targets)
    optimizer_G.step(loss_G + lambda_L1 * loss_L1)
    return {"loss_G": loss_G, "loss_D": loss_D, "loss_L1": loss_L1}


def learning_rate(epoch, lr, n_epochs, decay_epoch):
    """The rate in an epoch, counted from 1: lr up to `decay_epoch`, then falling linearly towards 0 after the last."""
    if epoch <= decay_epoch:
        return lr
    return lr * (n_epochs + 1 - epoch) / (n_epochs + 1 - decay_epoch)


# ---- samples ----


def sample(generator, inputs, seed, chunk=10):
    """(N, C, H, W) numpy translations in [-1, 1] of numpy inputs: norms as in evaluation, dropout on."""
    generator.eval()
    for layer in generator.modules():
        if isinstance(layer, nn.Dropout):
            layer.is_train = True
    jt.sync_all()  # what waits to be computed, such as a training step, has drawn its own random numbers then
    jt.set_seed(seed)  # Run seeds again before the next training step
    with jt.no_grad():
        outputs = [generator(jt.array(inputs[i : i + chunk])).numpy() for i in range(0, len(inputs), chunk)]
    generator.train()
    return np.concatenate(outputs)


def validate(generator, data, seed):
    """The mean L1 distance for values in [-1, 1], and the mean of the images' PSNR in dB, over all validation pairs."""
    l1, psnr = [], []
    for i in range(0, len(data), 10):
        inputs, targets = data.batch(range(i, min(i + 10, len(data))))
        difference = sample(generator, inputs, seed + i) - targets
        l1 += list(np.abs(difference).mean(axis=(1, 2, 3)))
        mse = (difference**2).mean(axis=(1, 2, 3))
        psnr += list(10 * np.log10(4 / np.maximum(mse, 1e-10)))  # the values' range is 2, its square 4
    return {"val_L1": float(np.mean(l1)), "val_PSNR": float(np.mean(psnr))}


def write_validation(path, epoch, values):
    """Adds an epoch's row to validation.csv, in the place of rows that an interrupted run wrote beyond it."""
    rows = []
    if path.is_file():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *values])
        writer.writeheader()
        writer.writerows([*rows, {"epoch": epoch, **values}])
    print(f"epoch {epoch}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()), flush=True)


def write_rows(path, generator, pairs, seed):
    """A picture of three rows: inputs, outputs, targets."""
    inputs, targets = pairs
    common.save_image(np.concatenate([inputs, sample(generator, inputs, seed), targets]), path, nrow=len(inputs))


def build(args):
    """The generator and the discriminator of these arguments."""
    generator = UNet(args.img_size, args.channels, args.width, args.norm, args.dropout)
    discriminator = PatchGAN(args.channels, args.width, args.norm)
    for module in (generator, discriminator):
        initialise(module)
        module.train()
    return generator, discriminator


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        data = []
        if args.input is None:
            kind = (args.img_size, args.channels, args.direction)
            validation = load_pairs(args.data_dir, *kind, split="val")
            shown = validation.batch(np.linspace(0, len(validation) - 1, min(N_ROWS, len(validation))).astype(int))
            if not args.sample_only:
                data = load_pairs(args.data_dir, *kind, augment=not args.no_augment)
                batches = common.Batches(data, args.batch_size, args.seed)

        generator, discriminator = build(args)
        seed = 1 + (args.seed << 8)  # of the samples' dropout
        if args.sample_only:
            run.track(generator=generator)
            if args.input is not None:
                translate_folder(run, args.input, lambda image: sample(generator, image, seed),
                                 args.img_size, args.channels, multiple=args.img_size)  # fmt: skip
            else:
                write_rows(run.out_dir / "result.png", generator, shown, seed)
            return run.losses

        optimizer_G = fast.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        optimizer_D = fast.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        run.track(generator=generator, discriminator=discriminator, optimizer_G=optimizer_G, optimizer_D=optimizer_D,
                  batches=batches)  # fmt: skip
        scores = {}
        for epoch in run.epochs():
            optimizer_G.lr = optimizer_D.lr = learning_rate(epoch, args.lr, args.n_epochs, args.decay_epoch)
            for inputs, targets in run.steps(batches):
                run.log(train_step(generator, discriminator, optimizer_G, optimizer_D, inputs, targets, args.loss,
                                   args.lambda_L1))  # fmt: skip
                if run.every(args.sample_interval):
                    write_rows(run.out_dir / f"samples/step_{run.step:07d}.png", generator, shown, seed)
            if run.is_main:
                scores = validate(generator, validation, seed)
                write_validation(run.out_dir / "validation.csv", epoch, scores)
        if run.is_main:
            write_rows(run.out_dir / "result.png", generator, shown, seed)
    return {**run.losses, **scores}


if __name__ == "__main__":
    main()
