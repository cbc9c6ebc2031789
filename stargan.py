"""StarGAN: image translation between many attributes with one generator.

Choi, Choi, Kim, Ha, Kim and Choo 2018, https://arxiv.org/abs/1711.09020

    python stargan.py                                  # drawn faces, 12 minutes
    python stargan.py --data_dir digits                # coloured digits
    python stargan.py --paper --data_dir CELEBA \\
        --selected_attrs Black_Hair Blond_Hair Brown_Hair Male Young
    python stargan.py --resume results/stargan --sample_only \\
        --input my_faces --set Blue_Hair=1,Eyeglasses=0 --out_dir blue

Method
    A generator G turns an image x into an image with the attributes c, which are
    concatenated to its colours as planes of zeros and ones. A discriminator D gives
    every patch of an image a score of its realism, and classifies the image's
    attributes. With c' the attributes of x, and c those of another image of the batch
    (sections 3.1 and 3.3):

        L_D = E[D(G(x, c))] - E[D(x)]
              + lambda_gp E[(|grad S(x^)| - 1)^2] + lambda_cls E[cls(x, c')]
        L_G = -E[D(G(x, c))]
              + lambda_cls E[cls(G(x, c), c)] + lambda_rec E|x - G(G(x, c), c')|

    cls is the binary cross entropy of D's classification, summed over the attributes,
    and x^ a random point between x and G(x, c). D(x) is the mean of the patches' scores
    and S(x) their sum, as in the authors' code (github.com/yunjey/stargan, solver.py).
    D is updated n_critic times for each update of G.

What to expect
    The default run changes drawn faces: it gives them one of six colours of hair, and
    puts glasses on or takes them off. A classifier of faces then reads 96.7 % of the
    changes that were asked for in faces that the run has not seen, and 94.8 % of all
    else (hair, skin, length of the hair, glasses, beard, hat) as it was; of the faces
    before any change it reads 99.0 % right (docs/scripts/stargan.md). New glasses are
    often faint; what is lost most often is a beard, and then a hat.

    Pictures show, from left to right, an image and its translations, with one attribute
    changed in each; of attributes that exclude each other, each is set in turn. With
    --input, attributes that --set does not name stay as D classifies them. The penalty
    stays far below 1; loss_D_cls, loss_G_cls and loss_rec fall.

Differences from the paper (--paper undoes the first two)
    * 32 x 32 pixels, half of the width, four times the learning rate, 36 epochs
    * D has 6 layers from 128 x 128 pixels on, 5 at 64 and 4 at 32, where its last map
      would otherwise be smaller than 2 x 2
    * always: attributes that are folders, one for each domain, are trained with the
      same cls; the authors' code takes one softmax over all domains for them
    * always: one data set. The joint training on two of them with a mask vector
      (section 3.2) is not here.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_attributes, spread

import math
from dataclasses import dataclass

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The defaults of the authors' code (github.com/yunjey/stargan, main.py, solver.py). The
# epochs are those of its first version for CelebA, 10 + 10; the later one counts
# 100,000 + 100,000 steps.
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
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(data_dir="faces", n_epochs=36, batch_size=16, lr=0.0004)
    parser.set_defaults(sample_interval=1000)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_decay(decay_epoch=18)
    parser.add_input()
    add_architecture(parser)
    add_attributes(parser)

    parser.add_argument("--n_critic", type=int, default=5, help="updates of D for one update of G")
    parser.add_argument(
        "--lambda_gp", type=float, default=10.0, help="weight of the gradient penalty"
    )
    parser.add_argument(
        "--lambda_cls", type=float, default=1.0, help="weight of the attributes' cross entropy"
    )
    parser.add_argument(
        "--lambda_rec", type=float, default=10.0, help="weight of the reconstruction"
    )
    parser.add_argument(
        "--no_flip", action="store_true", help="no random mirroring of training images in folders"
    )
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 32, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=32)
    if (args.input is None) != (args.set is None):
        parser.error("--input and --set belong together: --input my_folder --set blue=1,bold=0")
    return args


def add_architecture(parser):
    """The flags that are stored with the weights; --resume takes them from there."""
    parser.add_images(img_size=32, channels=3)
    parser.add_architecture(
        "--width", type=int, default=32, at_most=256, help="channels next to the image"
    )
    parser.add_architecture(
        "--n_blocks",
        type=int,
        default=6,
        at_least=0,
        at_most=50,
        help="residual blocks of the generator",
    )
    parser.add_architecture(
        "--selected_attrs", nargs="+", metavar="NAME", help="attributes to train (default: all)"
    )


def add_attributes(parser):
    """Flags about attributes; `settle_attributes` finds what they leave open."""
    parser.add_argument(
        "--exclusive",
        nargs="*",
        metavar="NAME",
        help="attributes that exclude each other (default: found in the data)",
    )
    parser.add_argument(
        "--may_have_none",
        action="store_true",
        help="an image may have none of --exclusive (also found in the data)",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=0|1,...",
        stored=False,
        help="attributes to give the images of --input, such as blue=1,bold=0",
    )


# ---- networks ----


class Residual(nn.Module):
    """x (B, C, H, W)  ->  x + f(x), where f consists of two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.Conv(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels),
        )

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """images (B, channels, H, W), attributes (B, A)  ->  images in [-1, 1].

    H and W are multiples of 4.
    """

    def __init__(self, channels, n_attributes, width, n_blocks):
        super().__init__()
        c = width
        layers = [  # (B, channels + A, H, W) -> (B, width, H, W)
            nn.Conv(channels + n_attributes, c, 7, padding=3, bias=False),
            nn.InstanceNorm2d(c),
            nn.ReLU(),
        ]
        for _ in range(2):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(2 * c),
                nn.ReLU(),
            ]
            c *= 2
        for _ in range(n_blocks):
            layers += [Residual(c)]
        for _ in range(2):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, H, W) -> (B, channels, H, W)
            nn.Conv(c, channels, 7, padding=3, bias=False),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images, attributes):
        batch_size, n_attributes = attributes.shape
        height, width = images.shape[2:]
        planes = attributes.reshape(batch_size, n_attributes, 1, 1)
        planes = planes.broadcast([batch_size, n_attributes, height, width])
        return self.layers(jt.concat([images, planes], dim=1))


class Discriminator(nn.Module):
    """images (B, channels, H, W)  ->  scores of patches, and logits of the attributes.

    The scores are (B, 1, H / 2^depth, W / 2^depth), the logits (B, A). The depth is 6,
    or less for small images, so that the map of the scores is at least 2 x 2.
    """

    def __init__(self, shape, channels, n_attributes, width):
        super().__init__()
        depth = min(6, common.halvings(*shape), int(math.log2(min(shape))) - 1)
        c = width
        layers = [  # (B, channels, H, W) -> (B, width, H / 2, W / 2)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.01),
        ]
        for _ in range(depth - 1):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1),
                nn.LeakyReLU(0.01),
            ]
            c *= 2
        self.layers = nn.Sequential(*layers)

        last_map = tuple(side // 2**depth for side in shape)
        self.realism = nn.Conv(c, 1, 3, padding=1, bias=False)
        self.attributes = nn.Conv(c, n_attributes, last_map, bias=False)

    def execute(self, images):
        features = self.layers(images)
        scores = self.realism(features)
        logits = self.attributes(features)  # (B, A, 1, 1)
        return scores, logits.reshape(len(images), -1)

    def total_score(self, images):
        """S(x), the sum (B,) of each image's scores."""
        scores, _ = self(images)
        return scores.sum((1, 2, 3))


def build(args):
    # The weights stay as Jittor draws them, from U(-a, a) with a = 1 / sqrt(fan in).
    # That is PyTorch's distribution too, and therefore the authors'.
    n_attributes = len(args.selected_attrs)
    generator = Generator(args.channels, n_attributes, args.width, args.n_blocks)
    discriminator = Discriminator(args.shape, args.channels, n_attributes, args.width)
    generator.train()
    discriminator.train()
    return generator, discriminator


# ---- losses and one training step ----


def classification_loss(logits, attributes):
    """Cross entropy, summed over the attributes, averaged over the batch.

    Args:
        logits: (B, A).
        attributes: (B, A) in {0, 1}.
    """
    common.check_same_shape(logits, attributes)
    total = nn.binary_cross_entropy_with_logits(logits, attributes, size_average=False)
    return total / len(logits)


def gradient_penalty(score, real, fake, alpha):
    """E[(|grad score(x^)| - 1)^2] at x^ = alpha real + (1 - alpha) fake.

    Args:
        score: a function of images (B, ...) that returns (B,).
        real, fake: images (B, ...).
        alpha: (B, 1, ...) in [0, 1].
    """
    common.check_same_shape(real, fake)
    between = alpha * real + (1 - alpha) * fake
    between.start_grad()
    gradient = jt.grad(score(between).sum(), between)
    squares = (gradient.reshape(len(gradient), -1) ** 2).sum(1)
    norms = jt.sqrt(squares + 1e-12)  # the root of 0 has no derivative
    return ((norms - 1) ** 2).mean()


def reconstruction_loss(images, originals):
    """The mean of |image - original| over all values of two batches (B, C, H, W)."""
    common.check_same_shape(images, originals)
    return jt.abs(images - originals).mean()


def train_step(networks, optimizers, real, labels, targets, alpha, *, update_G, weights):
    """Updates D, and then G if update_G is true.

    Args:
        networks: the generator and the discriminator.
        optimizers: those of G and of D.
        real: images (B, C, H, W) in [-1, 1].
        labels: their attributes (B, A) in {0, 1}.
        targets: attributes (B, A) to translate to.
        alpha: (B, 1, 1, 1) in [0, 1], which places the points x^ of the penalty.
        weights: the lambdas of the objective, {"gp", "cls", "rec"}.

    Returns:
        {"wasserstein", "penalty", "loss_D_cls"}, and with update_G also {"loss_G_adv",
        "loss_G_cls", "loss_rec"}, as unweighted Jittor scalars.
    """
    generator, discriminator = networks
    optimizer_G, optimizer_D = optimizers

    # D: real images against translations
    fake = generator(real, targets)
    fake_D = fake.detach()
    n = len(real)
    # One pass for both: without norms, images do not depend on each other.
    scores, logits = discriminator(jt.concat([real, fake_D], dim=0))
    wasserstein = scores[:n].mean() - scores[n:].mean()
    penalty = gradient_penalty(discriminator.total_score, real, fake_D, alpha)
    loss_D_cls = classification_loss(logits[:n], labels)
    loss_D = -wasserstein + weights["gp"] * penalty + weights["cls"] * loss_D_cls
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates
    losses = {"wasserstein": wasserstein, "penalty": penalty, "loss_D_cls": loss_D_cls}
    if not update_G:
        return losses

    # G: translations that D takes for real, with the targets, and that lead back
    scores, logits = discriminator(fake)
    loss_G_adv = -scores.mean()
    loss_G_cls = classification_loss(logits, targets)
    loss_rec = reconstruction_loss(generator(fake, labels), real)
    optimizer_G.step(loss_G_adv + weights["cls"] * loss_G_cls + weights["rec"] * loss_rec)
    losses["loss_G_adv"] = loss_G_adv
    losses["loss_G_cls"] = loss_G_cls
    losses["loss_rec"] = loss_rec
    return losses


# ---- training ----


def train(run, args):
    data = load(args, "train")
    settle_attributes(args, data)
    fixed_images, fixed_labels = spread(load(args, "test"))
    networks = build(args)
    generator, discriminator = networks
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizers = (optimizer_G, optimizer_D)
    weights = {"gp": args.lambda_gp, "cls": args.lambda_cls, "rec": args.lambda_rec}

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
        for real, labels in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            targets = run.permute(labels)  # those of other images of the batch
            alpha = run.uniform(args.batch_size, 1, 1, 1)
            update_G = run.step % args.n_critic == 0
            losses = train_step(
                networks,
                optimizers,
                real,
                labels,
                targets,
                alpha,
                update_G=update_G,
                weights=weights,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                write_columns(run, generator, fixed_images, fixed_labels, args)
    write_columns(run, generator, fixed_images, fixed_labels, args, to="result.png")


# ---- translations ----


def load(args, split):
    flip = split == "train" and not args.no_flip
    return load_attributes(
        args.data_dir, args.shape, args.channels, args.selected_attrs, split, flip
    )


def write_columns(run, generator, images, labels, args, to=None):
    """Writes a column of images, and one of translations for each attribute."""
    attributes = Attributes(args.selected_attrs, args.exclusive, args.may_have_none)
    columns = [images]
    for targets in attributes.all_targets(labels):
        columns.append(common.predict(generator, images, targets))
    run.save_rows(*columns, columns=True, to=to)


def generate(run, args):
    """Translates --input with a checkpoint, or else the test images of the pictures."""
    generator, discriminator = build(args)
    run.checkpoint(generator=generator, discriminator=discriminator)
    run.restore()

    if args.input is None:
        images, labels = spread(load(args, "test"))
        write_columns(run, generator, images, labels, args, to="result.png")
        return

    attributes = Attributes(args.selected_attrs, args.exclusive, args.may_have_none)
    changes = attributes.parse_changes(args.set)

    def condition(images):
        """The attributes (1, A) that D finds in an image, with the changes of --set."""
        height, width = args.shape  # the only size that D takes
        top = (images.shape[2] - height) // 2
        left = (images.shape[3] - width) // 2
        middle = images[:, :, top : top + height, left : left + width]
        _, logits = common.predict(discriminator, np.ascontiguousarray(middle))
        return attributes.change(attributes.from_logits(logits), changes)

    def translate(images, targets):
        return common.predict(generator, images, targets)

    common.translate_folder(
        run,
        args.input,
        translate,
        args.shape,
        args.channels,
        multiple=4,
        tile=args.tile,
        condition=condition,
    )


# ---- attributes ----


@dataclass(frozen=True)
class Attributes:
    """What the columns of attributes (N, A) mean, which are float32 in {0, 1}.

    Attributes:
        names: the names of the A columns.
        exclusive: those names that exclude each other, such as hair colours.
        may_have_none: whether an image may have none of `exclusive`, as a bald head has
            no hair colour; otherwise it has exactly one.
    """

    names: list
    exclusive: list
    may_have_none: bool = False

    def exclusive_columns(self):
        return [self.names.index(name) for name in self.exclusive]

    def change(self, attributes, changes):
        """Attributes (N, A) with some of them set.

        Args:
            changes: {name: 0 or 1}. An exclusive attribute that is set to 1 clears the
                others.
        """
        result = attributes.copy()
        for name, value in changes.items():
            if value == 1 and name in self.exclusive:
                result[:, self.exclusive_columns()] = 0
            result[:, self.names.index(name)] = value
        return result

    def all_targets(self, attributes):
        """A list of A arrays (N, A), in each of which one attribute is changed.

        Exclusive attributes are set, the others flipped.
        """
        targets = []
        for column, name in enumerate(self.names):
            if name in self.exclusive:
                target = self.change(attributes, {name: 1})
            else:
                target = attributes.copy()
                target[:, column] = 1 - target[:, column]
            targets.append(target)
        return targets

    def from_logits(self, logits):
        """The attributes (N, A) that a classifier finds, from its logits (N, A).

        They are those with a logit above 0. Of exclusive ones it is the likeliest only,
        which needs no logit above 0 where an image has exactly one of them.
        """
        attributes = (logits > 0).astype(np.float32)
        if self.exclusive:
            columns = self.exclusive_columns()
            likeliest = logits[:, columns].argmax(1)
            one_hot = np.eye(len(columns), dtype=np.float32)[likeliest]
            if self.may_have_none:
                one_hot *= attributes[:, columns]
            attributes[:, columns] = one_hot
        return attributes

    def parse_changes(self, text):
        """The text "blue=1,bold=0" as {"blue": 1, "bold": 0}.

        Raises:
            UserError: a name or value is unknown, two exclusive attributes are set, or
                an image would be left with none of them, but must have one.
        """
        changes = {}
        for item in text.split(","):
            name, _, value = item.strip().partition("=")
            if name not in self.names or value not in ("0", "1"):
                expected = ",".join(f"{name}=0|1" for name in self.names)
                raise common.UserError(f"--set takes {expected}; got {item.strip()!r}")
            changes[name] = int(value)

        listed = ", ".join(self.exclusive)
        values = [changes[name] for name in self.exclusive if name in changes]
        if sum(values) > 1:
            raise common.UserError(f"--set {text}: an image has only one of {listed}")
        if values and sum(values) == 0 and not self.may_have_none:
            raise common.UserError(
                f"--set {text}: an image has exactly one of {listed}; set that one to 1"
            )
        return changes


def settle_attributes(args, data):
    """Sets --selected_attrs, --exclusive and --may_have_none to what the data have.

    Raises:
        UserError: --exclusive names an attribute that is not selected.
    """
    args.selected_attrs = data.names
    exactly_one = data.exactly_one
    if args.exclusive is None:
        args.exclusive = data.exclusive
    else:
        unknown = [name for name in args.exclusive if name not in data.names]
        if unknown:
            raise common.UserError(
                f"--exclusive: {', '.join(unknown)} is not one of {', '.join(data.names)}"
            )
        columns = [data.names.index(name) for name in args.exclusive]
        exactly_one = bool((data.attributes[:, columns].sum(1) == 1).all())
    if args.exclusive and not exactly_one:
        args.may_have_none = True


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
