r"""StarGAN: translation between many attributes with one generator (Choi 2018, https://arxiv.org/abs/1711.09020).

    python stargan.py
    python stargan.py --paper --data_dir CELEBA --selected_attrs Black_Hair Blond_Hair Brown_Hair Male Young
    python stargan.py --resume results/stargan --sample_only --input my_digits --set blue=1,bold=0 --out_dir blue

A generator G turns an image x, with attributes c as planes of zeros and ones beside its colours, into the image with
those attributes. A discriminator D scores the realism of patches and classifies attributes. With c' the attributes
of x, and c those of another image of the batch (sections 3.1 and 3.3):

    L_D = E[D(G(x, c))] - E[D(x)] + lambda_gp E[(|grad S(x^)| - 1)^2] + lambda_cls E[cls(x, c')]
    L_G = -E[D(G(x, c))] + lambda_cls E[cls(G(x, c), c)] + lambda_rec E|x - G(G(x, c), c')|

cls is the binary cross entropy, summed over attributes, and x^ a random point between x and G(x, c). D(x) is the mean
of the patches' scores, S(x) their sum, as in the authors' code (github.com/yunjey/stargan, solver.py).

The default colours digits: red, green or blue, some bold, some inverted (white on that colour), in 5 to 8 minutes on
two CPU cores. A row of the picture is an image, then its translations, one attribute changed in each; of attributes
that exclude each other, each is set in turn. With --input, attributes that --set does not name stay as D sees them.

The default departs from the paper, which --paper undoes, in numbers alone: a quarter of the width, four times the rate,
32 x 32 images and 40 epochs. D has 6 layers from size 128 on, 5 at 64 and 4 at 32, where its last map would be smaller
than 2 x 2.
cls is the loss for domains in folders too, where the authors' code takes one softmax over all domains.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.attributes import load_attributes
from common.data.targets import Attributes, remember_attributes, spread

import math
from functools import partial

import jittor as jt
import numpy as np

from jittor_fast import nn

# The authors' code (github.com/yunjey/stargan, main.py, solver.py): its defaults, with Adam's numbers. Epochs are
# those of its first version for CelebA, 10 + 10; the later one counts 100,000 + 100,000 steps.
PAPER = {
    "n_epochs": 20,
    "decay_epoch": 10,
    "batch_size": 16,
    "lr": 0.0001,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 128,
    "channels": 3,
    "width": 64,
    "n_blocks": 6,
    "n_critic": 5,
    "lambda_gp": 10.0,
    "lambda_cls": 1.0,
    "lambda_rec": 10.0,
}


def parse_args(argv=None):
    architecture = ("width", "n_blocks", "img_size", "channels", "selected_attrs")
    parser = common.Parser(
        "stargan", __doc__, PAPER, architecture, starts_from="images", of_the_call=("set",)
    )
    parser.set_defaults(
        n_epochs=40, batch_size=16, lr=0.0004, b1=0.5, b2=0.999, img_size=32, channels=3
    )
    parser.set_defaults(sample_interval=1000, checkpoint_interval=5, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--selected_attrs",
        nargs="+",
        metavar="NAME",
        help="attributes to learn; all of them, unless given",
    )
    add(
        "--exclusive",
        nargs="*",
        metavar="NAME",
        help="attributes that exclude each other; found, unless given",
    )
    add(
        "--may_have_none",
        action="store_true",
        help="an image may have none of --exclusive; also found",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=256),
        default=16,
        help="channels next to the image",
    )
    add(
        "--n_blocks",
        type=number(int, at_least=0, at_most=50),
        default=6,
        help="residual blocks of the generator",
    )
    add("--n_critic", type=number(int, at_least=1), default=5, help="updates of D for one of G")
    add(
        "--lambda_gp",
        type=number(float, at_least=0),
        default=10.0,
        help="weight of the gradient penalty",
    )
    add(
        "--lambda_cls",
        type=number(float, at_least=0),
        default=1.0,
        help="weight of the attributes' cross entropy",
    )
    add(
        "--lambda_rec",
        type=number(float, at_least=0),
        default=10.0,
        help="weight of the reconstruction",
    )
    parser.add_decay(20)
    add("--no_flip", action="store_true", help="without mirroring the training images of folders")
    add(
        "--set",
        metavar="NAME=0|1,...",
        help="with --input: the attributes to give it, such as blue=1,bold=0",
    )
    parser.add_tile()
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 32, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=32)
    if (args.input is None) != (args.set is None):
        parser.error("--input and --set belong together: --input my_folder --set blue=1,bold=0")
    return args


# ---- networks ----


def conv_block(conv):
    """A convolution, transposed or not, an affine instance norm and ReLU."""
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]


class Residual(nn.Module):
    """x + f(x), with f two convolutions; (B, C, H, W) both."""

    def __init__(self, channels):
        super().__init__()
        one, two = (nn.Conv(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.layers = nn.Sequential(*conv_block(one), two, nn.InstanceNorm2d(channels))

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """(B, C, H, W) images and (B, A) attributes to (B, C, H, W) images in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, channels, n_attributes, width, n_blocks):
        super().__init__()
        c = width
        layers = conv_block(nn.Conv(channels + n_attributes, width, 7, padding=3, bias=False))
        for _ in range(2):  # c doubles, height and width halve
            layers += conv_block(nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False))
            c *= 2
        layers += [Residual(c) for _ in range(n_blocks)]  # (B, 4 width, H/4, W/4)
        for _ in range(2):  # c halves, height and width double
            layers += conv_block(nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False))
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.Conv(width, channels, 7, padding=3, bias=False), nn.Tanh()
        )

    def execute(self, images, attributes):
        planes = attributes.reshape(*attributes.shape, 1, 1)
        planes = planes.broadcast([*attributes.shape, *images.shape[2:]])  # (B, A, H, W)
        return self.layers(jt.concat([images, planes], dim=1))


class Discriminator(nn.Module):
    """(B, C, H, W) images to (B, 1, P, Q) scores of patches, (B, A) logits of attributes; P, Q = H, W / 2^depth."""

    def __init__(self, shape, channels, n_attributes, width):
        super().__init__()
        depth = min(
            6, common.halvings(*shape), int(math.log2(min(shape))) - 1
        )  # P and Q are 2 or more
        layers, c = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.01)], width
        for _ in range(depth - 1):  # c doubles, height and width halve
            layers += [nn.Conv(c, 2 * c, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            c *= 2
        self.layers = nn.Sequential(*layers)  # (B, c, P, Q)
        self.realism = nn.Conv(c, 1, 3, padding=1, bias=False)
        self.attributes = nn.Conv(
            c, n_attributes, tuple(side // 2**depth for side in shape), bias=False
        )

    def execute(self, images):
        h = self.layers(images)
        return self.realism(h), self.attributes(h).reshape(images.shape[0], -1)


def build(args):
    """The generator and the discriminator of these arguments."""
    # Weights stay as Jittor draws them, from U(-a, a) with a = 1 / sqrt(fan in): PyTorch's, and so the authors', too.
    n_attributes = len(args.selected_attrs)
    generator = Generator(args.channels, n_attributes, args.width, args.n_blocks)
    discriminator = Discriminator(args.shape, args.channels, n_attributes, args.width)
    generator.train(), discriminator.train()
    return generator, discriminator


# ---- losses and the step ----


def classification_loss(logits, attributes):
    """The cross entropy of (B, A) logits and attributes in {0, 1}, summed over attributes, averaged over the batch."""
    return (
        nn.binary_cross_entropy_with_logits(logits, attributes, size_average=False)
        / logits.shape[0]
    )


def gradient_penalty(score, real, fake, alpha):
    """E[(|grad score(x^)| - 1)^2] at x^ = alpha real + (1 - alpha) fake, with each image's gradient as one vector.

    `score` gives (B,) numbers for (B, ...) images like real and fake; alpha (B, 1, ...) is in [0, 1].
    """
    between = alpha * real + (1 - alpha) * fake
    between.start_grad()
    gradient = jt.grad(score(between).sum(), between)
    squares = (gradient.reshape(gradient.shape[0], -1) ** 2).sum(1)
    return ((jt.sqrt(squares + 1e-12) - 1) ** 2).mean()  # the root of 0 has no derivative


def train_step(
    generator,
    discriminator,
    optimizer_G,
    optimizer_D,
    real,
    labels,
    targets,
    alpha,
    update_G,
    weights,
):
    """One update of D and, with `update_G`, one of G.

    Args:
        real, labels: (B, C, H, W) images in [-1, 1] and their (B, A) attributes in {0, 1}.
        targets: (B, A) attributes to translate to.
        alpha: (B, 1, 1, 1) in [0, 1], for the penalty.
        weights: the lambdas of the objective, {"gp", "cls", "rec"}.

    Returns:
        {"wasserstein", "penalty", "loss_D_cls"}, and with update_G {"loss_G_adv", "loss_G_cls", "loss_rec"}, as
        Jittor scalars.
    """
    n, fake = real.shape[0], generator(real, targets)
    scores, logits = discriminator(
        jt.concat([real, fake.detach()], dim=0)
    )  # without norms, one pass equals two
    wasserstein = scores[:n].mean() - scores[n:].mean()
    penalty = gradient_penalty(
        lambda x: discriminator(x)[0].sum((1, 2, 3)), real, fake.detach(), alpha
    )
    loss_D_cls = classification_loss(logits[:n], labels)
    optimizer_D.step(-wasserstein + weights["gp"] * penalty + weights["cls"] * loss_D_cls)
    losses = {"wasserstein": wasserstein, "penalty": penalty, "loss_D_cls": loss_D_cls}
    if not update_G:
        return losses
    scores, logits = discriminator(fake)
    loss_G_adv, loss_G_cls = -scores.mean(), classification_loss(logits, targets)
    loss_rec = jt.abs(generator(fake, labels) - real).mean()
    optimizer_G.step(loss_G_adv + weights["cls"] * loss_G_cls + weights["rec"] * loss_rec)
    return losses | {"loss_G_adv": loss_G_adv, "loss_G_cls": loss_G_cls, "loss_rec": loss_rec}


def learning_rate(epoch, lr, decay_epoch, decay_until):
    """The rate in an epoch, counted from 1: lr until `decay_epoch`, falling until `decay_until`, then constant."""
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    return lr * (decay_until + 1 - min(epoch, decay_until)) / (decay_until + 1 - decay_epoch)


# ---- training and translations ----


def load(args, split):
    flip = split == "train" and not args.no_flip
    return load_attributes(
        args.data_dir, args.shape, args.channels, args.selected_attrs, split, flip
    )


def draw(path, generator, images, attributes, args):
    """Writes a picture with one image a row, then its translations, one attribute changed in each; returns these."""
    targets = Attributes(args.selected_attrs, args.exclusive).all_targets(attributes)
    fakes = [common.in_chunks(generator, images, target) for target in targets]
    rows = np.stack([images, *fakes], axis=1)  # (N, 1 + A, C, H, W)
    common.save_image(rows.reshape(-1, *images.shape[1:]), path, nrow=rows.shape[1])
    return fakes


def train(run, args):
    data = load(args, "train")
    remember_attributes(args, data)
    shown = spread(load(args, "test"))
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator = networks = build(args)
    optimizer_G, optimizer_D = (
        nn.Adam(m.parameters(), lr=args.lr, betas=(args.b1, args.b2)) for m in networks
    )
    parts = {"generator": generator, "discriminator": discriminator, "batches": batches}
    run.track(
        exports={"generator": generator}, optimizer_G=optimizer_G, optimizer_D=optimizer_D, **parts
    )
    weights = {"gp": args.lambda_gp, "cls": args.lambda_cls, "rec": args.lambda_rec}
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], "translations")
    for epoch in run.epochs():
        optimizer_G.lr = optimizer_D.lr = learning_rate(
            epoch, args.lr, args.decay_epoch, args.decay_until
        )
        for real, labels in run.steps(batches):
            inputs = real, labels, run.permute(labels), run.uniform(args.batch_size, 1, 1, 1)
            update_G = run.step % args.n_critic == 0
            losses = train_step(
                *networks, optimizer_G, optimizer_D, *inputs, update_G=update_G, weights=weights
            )
            run.log(losses)
            if run.every(args.sample_interval):
                for fakes in draw(run.sample_path, generator, *shown, args):
                    watch.see_samples(fakes)
    if run.is_main:
        draw(run.out_dir / "result.png", generator, *shown, args)


def generate(run, args):
    generator, discriminator = build(args)
    run.track(generator=generator, discriminator=discriminator)
    if args.input is None:
        return draw(run.out_dir / "result.png", generator, *spread(load(args, "test")), args)
    attributes = Attributes(args.selected_attrs, args.exclusive, args.may_have_none)
    changes = attributes.parse_changes(args.set)

    def target(images):
        rows, columns = (
            slice((n - m) // 2, (n + m) // 2) for n, m in zip(images.shape[2:], args.shape)
        )
        middle = images[:, :, rows, columns]  # of the size that D takes
        _, logits = common.in_chunks(discriminator, np.ascontiguousarray(middle))
        return attributes.change(attributes.from_logits(logits), changes)

    translate, place = partial(common.in_chunks, generator), (args.shape, args.channels)
    common.translate_folder(
        run, args.input, translate, *place, multiple=4, tile=args.tile, look=target
    )


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            args.selected_attrs = args.selected_attrs or load(args, "test").names
            generator, discriminator = build(args)
            image = jt.zeros((1, args.channels, *args.shape))
            common.describe("generator", generator, image, jt.zeros((1, len(args.selected_attrs))))
            common.describe("discriminator", discriminator, image)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
