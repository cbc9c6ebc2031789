r"""StarGAN: translation between any number of attributes with a single generator (Choi 2018).

    python stargan.py
    python stargan.py --data_dir celeba --selected_attrs Black_Hair Blond_Hair Brown_Hair Male Young --img_size 128 \
        --width 64 --lr 0.0001 --n_epochs 20 --decay_epoch 10
    python stargan.py --resume results/stargan --sample_only --input my_digits --set blue=1,bold=0 --out_dir blue

A generator G takes an image x and attributes c, as planes of zeros and ones beside the colours, and gives the image
with those attributes. A discriminator D scores the realism of patches, and tells attributes. With labels c' of x and
c those of another image:

    L_D = E[D(G(x, c))] - E[D(x)] + 10 E[(|grad S(x^)| - 1)^2] + E[cls(x, c')]
    L_G = -E[D(G(x, c))] + E[cls(G(x, c), c)] + 10 E|x - G(G(x, c), c')| + lambda_id E|x - G(x, c')|

cls is the cross entropy of each attribute, summed over attributes; x^ lies at random between x and G(x, c). D(x) is the
mean of n patches' scores, S(x) their sum, as in the authors' code: the gradient of D then has a norm of about 1/n, and
the reconstruction more weight against it. A step is an update of D; G is updated in every --n_critic-th.

Without --data_dir, the images are coloured digits, red, green or blue, some bold, some inverted: the ground has the
colour then, and the digit is white. Pictures show one image a row: the original, then each attribute changed; of
attributes that exclude each other, such as colours of hair, each is tried in the place of the one that was there.

--input translates a picture, or a folder of them. Attributes that --set does not name stay as D sees them.

Departures from the paper:
  * the last term, the identity under an image's own attributes (as CycleGAN's), is not in the paper: without it a short
    training can settle on shapes that come back but are not the digits any more; --lambda_id 0 leaves it out;
  * no instance norm before G's residual blocks, where it would take the attributes' constant planes out again;
  * a quarter of the paper's width and four times its rate by default, for small drawn images;
  * the rate falls linearly after --decay_epoch, in epochs, as in the authors' code in steps.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import math

import jittor as jt
import numpy as np
from jittor import nn

from common import fast
from common.attributes import load_attributes
from common.translate import translate_folder

SIZES = (32, 64, 128, 256)
PENALTY = 10.0  # lambda_gp, section 3.3
N_ROWS = 10


def parse_args(argv=None):
    parser = common.Parser(
        "stargan", __doc__,
        architecture=("width", "n_blocks", "img_size", "channels", "selected_attrs"), of_the_call=("input", "set"),
        n_epochs=40, batch_size=16, lr=0.0004, b1=0.5, b2=0.999, img_size=32, channels=3, sample_interval=1000,
        checkpoint_interval=5, log_interval=50,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--selected_attrs", nargs="+", metavar="NAME", help="attributes to learn; all domains, unless given")
    add("--exclusive", nargs="*", metavar="NAME", help="attributes of which an image has one; found, unless given")
    add("--width", type=number(int, at_least=1, at_most=256), default=16, help="channels of the first layers; paper 64")
    add("--n_blocks", type=number(int, at_least=0, at_most=50), default=6, help="residual blocks of the generator")
    add("--n_critic", type=number(int, at_least=1), default=5, help="updates of D for one of G")
    add("--lambda_cls", type=number(float, at_least=0), default=1.0, help="weight of the attributes' cross entropy")
    add("--lambda_rec", type=number(float, at_least=0), default=10.0, help="weight of the reconstruction's distance")
    add("--lambda_id", type=number(float, at_least=0), default=10.0, help="weight of the identity's distance; paper 0")
    add("--decay_epoch", type=number(int, at_least=0), default=20, help="epochs before the learning rate falls")
    add("--no_augment", action="store_true", help="without mirroring images in folders")
    add("--input", default=None, help="with --sample_only: a picture, or a folder of them, to translate")
    add("--set", default=None, help="with --input: the attributes to give it, such as blue=1,bold=0")
    args = parser.parse(argv)
    if args.img_size not in SIZES:
        nearest = min(SIZES, key=lambda size: abs(size - args.img_size))
        parser.error(f"--img_size {args.img_size}: it must be 32, 64, 128 or 256; nearest is {nearest}")
    if args.input is not None and not args.sample_only:
        parser.error("--input needs --sample_only and --resume with the checkpoint that translates")
    if (args.input is None) != (args.set is None):
        parser.error("--input and --set belong together: --input my_folder --set blue=1,bold=0")
    if args.n_samples:
        parser.error("--n_samples is not offered here: translations need inputs, which --input takes")
    args.log_interval += -args.log_interval % args.n_critic  # both networks' losses are known then
    if args.set is not None:
        args.set = parse_changes(parser, args.set, args.selected_attrs or [])
    return args


def parse_changes(parser, text, names):
    """"blue=1,bold=0" as {"blue": 1, "bold": 0}."""
    changes = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in names or value not in ("0", "1"):
            parser.error(f"--set takes {'=0|1,'.join(names)}=0|1; got {part.strip()!r}")
        changes[name] = int(value)
    return changes


# ---- networks ----


class Residual(nn.Module):
    """x + f(x), with f two convolutions at the same size; (B, C, H, W) both."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            fast.Conv(channels, channels, 3, padding=1, bias=False), fast.InstanceNorm2d(channels), fast.ReLU(),
            fast.Conv(channels, channels, 3, padding=1, bias=False), fast.InstanceNorm2d(channels),
        )  # fmt: skip

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """(B, C, H, W) images and (B, A) attributes to as many images in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, channels, n_attributes, width, n_blocks):
        super().__init__()
        # No norm here: it would subtract what a constant plane adds, and leave its trace at the border alone.
        layers, c = [fast.Conv(channels + n_attributes, width, 7, padding=3), fast.ReLU()], width
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [fast.Conv(c, 2 * c, 4, stride=2, padding=1), fast.ReLU()]
            c *= 2
        layers += [Residual(c) for _ in range(n_blocks)]
        for _ in range(2):
            layers += [fast.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False), fast.InstanceNorm2d(c // 2),
                       fast.ReLU()]  # fmt: skip
            c //= 2
        self.layers = nn.Sequential(*layers, fast.Conv(width, channels, 7, padding=3, bias=False), fast.Tanh())

    def execute(self, images, attributes):
        planes = attributes.reshape(*attributes.shape, 1, 1)
        planes = planes.broadcast([*attributes.shape, *images.shape[2:]])
        return self.layers(jt.concat([images, planes], dim=1))


class Discriminator(nn.Module):
    """(B, C, S, S) images to (B, 1, 2, 2) scores of patches and (B, A) logits of attributes."""

    def __init__(self, img_size, channels, n_attributes, width):
        super().__init__()
        layers, c = [fast.Conv(channels, width, 4, stride=2, padding=1), fast.LeakyReLU(0.01)], width
        for _ in range(int(math.log2(img_size)) - 2):  # until (B, c, 2, 2)
            layers += [fast.Conv(c, 2 * c, 4, stride=2, padding=1), fast.LeakyReLU(0.01)]
            c *= 2
        self.layers = nn.Sequential(*layers)
        self.realism = fast.Conv(c, 1, 3, padding=1, bias=False)
        self.attributes = fast.Conv(c, n_attributes, 2, bias=False)

    def execute(self, images):
        h = self.layers(images)
        return self.realism(h), self.attributes(h).reshape(images.shape[0], -1)


def build(args):
    """The generator and the discriminator of these arguments."""
    n_attributes = len(args.selected_attrs)
    generator = Generator(args.channels, n_attributes, args.width, args.n_blocks)
    discriminator = Discriminator(args.img_size, args.channels, n_attributes, args.width)
    generator.train(), discriminator.train()
    return generator, discriminator


# ---- losses and the step ----


def classification_loss(logits, attributes):
    """The cross entropy of (B, A) logits and attributes in {0, 1}, summed over attributes, averaged over the batch."""
    if logits.shape != attributes.shape:
        raise ValueError(f"logits are {logits.shape}, attributes {attributes.shape}")
    losses = jt.maximum(logits, 0) - logits * attributes + jt.log(1 + jt.exp(-jt.abs(logits)))
    return losses.sum() / logits.shape[0]


def gradient_penalty(score, real, fake, alpha):
    """E[(|grad score(x^)| - 1)^2] at x^ = alpha real + (1 - alpha) fake, the norm taken over each image as a whole.

    Args:
        score: a function of images that gives one score for each, or several whose sum is taken.
        real, fake: (B, ...) of equal shapes; fake carries no gradient.
        alpha: (B, 1, ...) one number in [0, 1] for each image.
    """
    between = alpha * real + (1 - alpha) * fake
    between.start_grad()
    gradient = jt.grad(score(between).sum(), between)
    squares = (gradient.reshape(gradient.shape[0], -1) ** 2).sum(1)
    return ((jt.sqrt(squares + 1e-12) - 1) ** 2).mean()  # the root of 0 has no derivative


def discriminator_step(discriminator, optimizer, real, fake, labels, alpha, lambda_cls):
    """One update of D; see `train_step`."""
    n = real.shape[0]
    scores, logits = discriminator(jt.concat([real, fake], dim=0))  # without norms, one pass equals two
    wasserstein = scores[:n].mean() - scores[n:].mean()
    loss_cls = classification_loss(logits[:n], labels)
    penalty = gradient_penalty(lambda x: discriminator(x)[0].sum((1, 2, 3)), real, fake, alpha)
    optimizer.step(-wasserstein + PENALTY * penalty + lambda_cls * loss_cls)
    return {"wasserstein": wasserstein, "penalty": penalty, "loss_D_cls": loss_cls}


def reconstructions(generator, fake, real, labels, identity=True):
    """The distances E|G(fake, labels) - real| and E|G(real, labels) - real|, the second 0 without `identity`."""
    if not identity:
        return (generator(fake, labels) - real).abs().mean(), jt.zeros(1)
    n = real.shape[0]
    both = generator(jt.concat([fake, real], dim=0), jt.concat([labels, labels], dim=0))  # instance norm keeps it exact
    return (both[:n] - real).abs().mean(), (both[n:] - real).abs().mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, labels, targets, alpha, update_G, lambda_cls,
               lambda_rec, lambda_id):  # fmt: skip
    """One update of D and, with `update_G`, one of G.

    Args:
        real, labels: (B, C, S, S) images in [-1, 1] and their (B, A) attributes in {0, 1}.
        targets: (B, A) attributes to translate to.
        alpha: (B, 1, 1, 1) in [0, 1], for the penalty.

    Returns:
        Jittor scalars: {"wasserstein", "penalty", "loss_D_cls"}, and with update_G
        {"loss_G_cls", "loss_rec", "loss_id"}.
    """
    if not update_G:
        with jt.no_grad():
            fake = generator(real, targets)
        return discriminator_step(discriminator, optimizer_D, real, fake, labels, alpha, lambda_cls)
    fake = generator(real, targets)
    losses = discriminator_step(discriminator, optimizer_D, real, fake.detach(), labels, alpha, lambda_cls)
    scores, logits = discriminator(fake)
    loss_cls = classification_loss(logits, targets)
    loss_rec, loss_id = reconstructions(generator, fake, real, labels, identity=lambda_id > 0)
    optimizer_G.step(-scores.mean() + lambda_cls * loss_cls + lambda_rec * loss_rec + lambda_id * loss_id)
    return {**losses, "loss_G_cls": loss_cls, "loss_rec": loss_rec, "loss_id": loss_id}


def learning_rate(epoch, lr, n_epochs, decay_epoch):
    """The rate in an epoch, counted from 1: lr up to `decay_epoch`, then falling linearly towards 0 after the last."""
    if epoch <= decay_epoch:
        return lr
    return lr * (n_epochs + 1 - epoch) / (n_epochs + 1 - decay_epoch)


# ---- samples ----


def sample(generator, images, attributes, chunk=20):
    """(N, C, H, W) numpy translations in [-1, 1] of numpy images to (N, A) attributes."""
    with jt.no_grad():
        parts = [
            generator(jt.array(images[i : i + chunk]), jt.array(attributes[i : i + chunk])).numpy()
            for i in range(0, len(images), chunk)
        ]
    return np.concatenate(parts)


def change(attributes, names, exclusive, changes):
    """(N, A) attributes with some set to 0 or 1; of exclusive ones, setting one clears the others.

    Args:
        changes: {name: 0 or 1}.
    """
    result = attributes.copy()
    for name, value in changes.items():
        if value and name in exclusive:
            result[:, [names.index(other) for other in exclusive]] = 0
        result[:, names.index(name)] = value
    return result


def all_targets(attributes, names, exclusive):
    """For each name, (N, A) attributes with it changed: exclusive ones are set, the others flipped."""
    targets = []
    for k, name in enumerate(names):
        flipped = attributes.copy()
        flipped[:, k] = 1 - flipped[:, k]
        targets.append(change(attributes, names, exclusive, {name: 1}) if name in exclusive else flipped)
    return targets


def write_grid(path, generator, images, attributes, args):
    """A picture with one image a row: the original, then every target."""
    targets = all_targets(attributes, args.selected_attrs, args.exclusive)
    columns = [images, *(sample(generator, images, target) for target in targets)]
    common.save_image(np.stack(columns, 1).reshape(-1, *images.shape[1:]), path, nrow=len(columns))


def seen_attributes(discriminator, images, exclusive, names):
    """(N, A) attributes in {0, 1} as the discriminator sees them; of exclusive ones the likeliest alone."""
    with jt.no_grad():
        logits = discriminator(jt.array(images))[1].numpy()
    attributes = (logits > 0).astype(np.float32)
    columns = [names.index(name) for name in exclusive]
    if columns:
        attributes[:, columns] = np.eye(len(columns), dtype=np.float32)[logits[:, columns].argmax(1)]
    return attributes


def translator(generator, discriminator, args):
    """A function that gives (1, C, H, W) images the attributes of --set."""
    names, exclusive = args.selected_attrs, args.exclusive

    def translate(images):
        top, left = ((side - args.img_size) // 2 for side in images.shape[2:])
        middle = images[:, :, top : top + args.img_size, left : left + args.img_size]  # all that D can see
        attributes = seen_attributes(discriminator, np.ascontiguousarray(middle), exclusive, names)
        return sample(generator, images, change(attributes, names, exclusive, args.set))

    return translate


def load(args, split):
    return load_attributes(args.data_dir, args.img_size, args.channels, args.selected_attrs, split,
                           augment=split == "train" and not args.no_augment)  # fmt: skip


def shown_images(args):
    """Images of the test part and their attributes, for the pictures."""
    data = load(args, "test")
    return data.batch(np.linspace(0, len(data) - 1, min(N_ROWS, len(data))).astype(int))


def remember_attributes(args, data):
    """Attributes that were found in the data are arguments of the run, for its checkpoint."""
    exclusive = data.exclusive if args.exclusive is None else args.exclusive
    unknown = [name for name in exclusive if name not in data.names]
    if unknown:
        raise common.UserError(f"--exclusive: {', '.join(unknown)} is none of {', '.join(data.names)}")
    args.selected_attrs, args.exclusive = data.names, exclusive
    args.stored.update(selected_attrs=data.names, exclusive=exclusive)


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        if args.sample_only:
            generator, discriminator = build(args)
            run.track(generator=generator, discriminator=discriminator)
            if args.input is not None:
                translate_folder(run, args.input, translator(generator, discriminator, args), args.img_size,
                                 args.channels, multiple=4)  # fmt: skip
            else:
                write_grid(run.out_dir / "result.png", generator, *shown_images(args), args)
            return run.losses

        data = load(args, "train")
        remember_attributes(args, data)
        shown = shown_images(args)
        batches = common.Batches(data, args.batch_size, args.seed)
        generator, discriminator = build(args)
        optimizer_G = fast.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        optimizer_D = fast.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
        run.track(generator=generator, discriminator=discriminator, optimizer_G=optimizer_G, optimizer_D=optimizer_D,
                  batches=batches)  # fmt: skip
        last = {}
        for epoch in run.epochs():
            optimizer_G.lr = optimizer_D.lr = learning_rate(epoch, args.lr, args.n_epochs, args.decay_epoch)
            for real, labels in run.steps(batches):
                targets = run.shard(run.gather(labels).numpy()[run.rng.permutation(args.batch_size)])
                alpha = run.shard(run.rng.random((args.batch_size, 1, 1, 1), dtype=np.float32))
                update_G = run.step % args.n_critic == 0
                losses = train_step(generator, discriminator, optimizer_G, optimizer_D, real, labels, targets, alpha,
                                    update_G, args.lambda_cls, args.lambda_rec, args.lambda_id)  # fmt: skip
                last = {**last, **losses}
                run.log(last)
                if run.every(args.sample_interval):
                    write_grid(run.out_dir / f"samples/step_{run.step:07d}.png", generator, *shown, args)
        if run.is_main:
            write_grid(run.out_dir / "result.png", generator, *shown, args)
    return run.losses


if __name__ == "__main__":
    main()
