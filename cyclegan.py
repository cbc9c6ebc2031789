"""CycleGAN: image translation without pairs (Zhu 2017).

    python cyclegan.py
    python cyclegan.py --data_dir horse2zebra --img_size 256 --width 64 --batch_size 1 --n_epochs 200
    python cyclegan.py --resume results/cyclegan --sample_only --input my_photos --direction AtoB --out_dir painted

Two generators translate between domains A and B, G: A to B and F: B to A, and a discriminator for each domain scores
overlapping patches. With least squares (Mao 2017), for G, D_B, and alike for F, D_A:

    L_D = 1/2 E[(D_B(b) - 1)^2] + 1/2 E[D_B(G(a))^2]
    L_G = E[(D_B(G(a)) - 1)^2] + lambda E|F(G(a)) - a| + lambda_id lambda E|G(b) - b|     (means over all values)

Without pairs, the cycle A to B to A ties a translation to its original; lambda is 10. The identity term keeps colours
where nothing has to change; lambda_id is 0.5. D sees half of the time an older translation from a pool of 50, which
keeps the two from chasing each other (section 4).

Without --data_dir, A are white digits on black, and B other digits in bold dark ink on light paper. Expect readable
translations after one epoch. Pictures show rows of A, G(A), F(G(A)), then rows of B, F(B), G(F(B)).

Departures from the paper:
  * transposed convolutions have 4 x 4 weights in place of 3 x 3, so that each output pixel sees equally many inputs;
  * an update takes the translation and the identity pass of a generator in one batch, and the real and the translated
    images of a discriminator, which is the same under instance norm and faster;
  * half the paper's width by default (--width 64 is the paper's), and batches of 4 instead of 1;
  * weights of both discriminators, and of both generators, are updated by one optimizer each, as in the authors' code;
  * translations come from an exponential moving average of the generators' weights (--ema_decay), since the trained
    ones wander: from MNIST to USPS a quarter of the 7s were read as 9s after 9,444 steps, half after 15,000.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import jittor as jt
import numpy as np
from jittor import nn

from common import fast
from common.translate import translate_folder
from common.unpaired import load_domains

N_COLUMNS = 10  # images of each domain in a picture


def parse_args(argv=None):
    parser = common.Parser(
        "cyclegan", __doc__, architecture=("width", "n_blocks", "img_size", "channels", "pool_size", "ema_decay"),
        of_the_call=("input", "direction"), n_epochs=4, batch_size=4, lr=0.0002, b1=0.5, b2=0.999, img_size=32,
        channels=1, sample_interval=200, checkpoint_interval=1, log_interval=20,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--data_dir_B", help="folder of domain B, if --data_dir is that of domain A alone")
    add("--width", type=number(int, at_least=1, at_most=256), default=32, help="channels of the first layers; paper 64")
    add("--n_blocks", type=number(int, at_least=0, at_most=50), default=None,
        help="residual blocks; 6 up to 128 pixels and 9 above, unless given")  # fmt: skip
    add("--lambda_cycle", type=number(float, at_least=0), default=10.0, help="weight of the cycle's distance")
    add("--lambda_identity", type=number(float, at_least=0), default=0.5, help="of the identity, times lambda_cycle")
    add("--pool_size", type=number(int, at_least=0, at_most=1000), default=50, help="older translations that D sees")
    add("--ema_decay", type=number(float, at_least=0, below=1), default=0.999, help="of the averaged weights; 0: off")
    add("--decay_epoch", type=number(int, at_least=0), default=100, help="epochs before the learning rate falls")
    add("--no_augment", action="store_true", help="without random crops and mirroring of images in folders")
    add("--direction", choices=("AtoB", "BtoA"), default="AtoB", help="of the translation of --input")
    add("--input", default=None, help="with --sample_only: a picture, or a folder of them, to translate")
    args = parser.parse(argv)
    if args.img_size % 4 or args.img_size < 32:
        below = max(args.img_size // 4 * 4, 32)
        parser.error(f"--img_size {args.img_size}: it must be a multiple of 4, such as {below} or {below + 4}")
    if args.input is not None and not args.sample_only:
        parser.error("--input needs --sample_only and --resume with the checkpoint that translates")
    if args.n_samples:
        parser.error("--n_samples is not offered here: translations need inputs, which --input takes")
    return args


# ---- networks ----


class Residual(nn.Module):
    """x + f(x), with f two convolutions at the same size; (B, C, H, W) both."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            fast.ReflectionPad2d(1), fast.Conv(channels, channels, 3, bias=False), norm(channels), fast.ReLU(),
            fast.ReflectionPad2d(1), fast.Conv(channels, channels, 3, bias=False), norm(channels),
        )  # fmt: skip

    def execute(self, x):
        return x + self.layers(x)


def norm(channels):
    """Instance norm without a scale and a shift of its own, as in the authors' code; no bias is needed before it."""
    return fast.InstanceNorm2d(channels, affine=False)


class Generator(nn.Module):
    """(B, C, H, W) images to as many of the other domain, in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, channels, width, n_blocks):
        super().__init__()
        layers = [fast.ReflectionPad2d(3), fast.Conv(channels, width, 7, bias=False), norm(width), fast.ReLU()]
        c = width
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [fast.Conv(c, 2 * c, 3, stride=2, padding=1, bias=False), norm(2 * c), fast.ReLU()]
            c *= 2
        layers += [Residual(c) for _ in range(n_blocks)]
        for _ in range(2):
            layers += [fast.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False), norm(c // 2), fast.ReLU()]
            c //= 2
        self.layers = nn.Sequential(*layers, fast.ReflectionPad2d(3), fast.Conv(width, channels, 7), fast.Tanh())

    def execute(self, images):
        return self.layers(images)


class PatchGAN(nn.Module):
    """(B, C, S, S) images to (B, 1, S / 8 - 2, S / 8 - 2) scores, each of a patch of 70 x 70 pixels."""

    def __init__(self, channels, width):
        super().__init__()
        layers, c = [fast.Conv(channels, width, 4, stride=2, padding=1), fast.LeakyReLU(0.2)], width
        for stride in (2, 2, 1):
            layers += [fast.Conv(c, 2 * c, 4, stride=stride, padding=1, bias=False), norm(2 * c), fast.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(*layers, fast.Conv(c, 1, 4, padding=1))

    def execute(self, images):
        return self.layers(images)


def initialise(module):
    """Weights from N(0, 0.02^2), biases zero (Zhu 2017, section 7.1)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0)


def build(args):
    """G: A to B, F: B to A, and the discriminators of A and of B."""
    n_blocks = args.n_blocks if args.n_blocks is not None else (6 if args.img_size <= 128 else 9)
    generators = [Generator(args.channels, args.width, n_blocks) for _ in range(2)]
    discriminators = [PatchGAN(args.channels, args.width) for _ in range(2)]
    for module in (*generators, *discriminators):
        initialise(module)
        module.train()
    return (*generators, *discriminators)


class ImagePool:
    """Up to `size` earlier translations, as numpy copies (Shrivastava 2017, section 2.3).

    Args:
        shape: (C, H, W) of one.
    """

    def __init__(self, size, shape):
        self.images, self.count = np.zeros((size, *shape), np.float32), 0

    def exchange(self, images, rng):
        """(B, C, H, W) images; once the pool is full, about half of them change places with older ones."""
        images = images.copy()
        for i in range(len(images)):
            if self.count < len(self.images):
                self.images[self.count] = images[i]
                self.count += 1
            elif self.count and rng.random() < 0.5:
                k = rng.integers(self.count)
                old = self.images[k].copy()
                self.images[k], images[i] = images[i], old
        return images

    def state_dict(self):
        return {"images": self.images, "count": self.count}

    def load_state_dict(self, state):
        self.images, self.count = np.array(state["images"]), int(state["count"])
        if not 0 <= self.count <= len(self.images):
            raise ValueError("the pool holds more images than its size")


# ---- losses and the step ----


def l1_distance(images, others):
    """The mean of |image - other| over all values of two equal shapes."""
    if images.shape != others.shape:
        raise ValueError(f"images of different shapes: {images.shape} and {others.shape}")
    return (images - others).abs().mean()


def in_one_pass(network, first, second):
    """network(first) and network(second), from one batch."""
    both = network(jt.concat([first, second], dim=0))
    return both[: first.shape[0]], both[first.shape[0] :]


def discriminator_loss(discriminator, real, fake):
    """Half the squared distance of each side's scores from 1 and from 0."""
    real_scores, fake_scores = in_one_pass(discriminator, real, fake)
    return (((real_scores - 1) ** 2).mean() + (fake_scores**2).mean()) / 2


def train_step(networks, optimizer_G, optimizer_D, real_A, real_B, recall_A, recall_B, lambda_cycle, lambda_identity):
    """One update of both generators, then one of both discriminators.

    Args:
        networks: G, F, D_A, D_B as `build` gives them.
        real_A, real_B: (B, C, S, S) images in [-1, 1], of as many images each.
        recall_A, recall_B: functions of translations without gradient that give those which D shall see.

    Returns:
        {"loss_G", "loss_D", "loss_cycle", "loss_identity"} as Jittor scalars; loss_G is the adversarial part alone.
    """
    G, F, D_A, D_B = networks
    if lambda_identity > 0:
        (fake_B, same_B), (fake_A, same_A) = in_one_pass(G, real_A, real_B), in_one_pass(F, real_B, real_A)
        loss_identity = l1_distance(same_A, real_A) + l1_distance(same_B, real_B)
    else:
        fake_B, fake_A, loss_identity = G(real_A), F(real_B), jt.zeros(1).sum()
    loss_G = ((D_B(fake_B) - 1) ** 2).mean() + ((D_A(fake_A) - 1) ** 2).mean()
    loss_cycle = l1_distance(F(fake_B), real_A) + l1_distance(G(fake_A), real_B)
    optimizer_G.step(loss_G + lambda_cycle * (loss_cycle + lambda_identity * loss_identity))

    loss_D = discriminator_loss(D_A, real_A, recall_A(fake_A.detach()))
    loss_D = loss_D + discriminator_loss(D_B, real_B, recall_B(fake_B.detach()))
    optimizer_D.step(loss_D)
    return {"loss_G": loss_G, "loss_D": loss_D, "loss_cycle": loss_cycle, "loss_identity": loss_identity}


def learning_rate(epoch, lr, n_epochs, decay_epoch):
    """The rate in an epoch, counted from 1: lr up to `decay_epoch`, then falling linearly towards 0 after the last."""
    if epoch <= decay_epoch:
        return lr
    return lr * (n_epochs + 1 - epoch) / (n_epochs + 1 - decay_epoch)


# ---- samples ----


def sample(generator, images, chunk=10):
    """(N, C, H, W) numpy translations in [-1, 1] of numpy images."""
    with jt.no_grad():
        return np.concatenate(
            [generator(jt.array(images[i : i + chunk])).numpy() for i in range(0, len(images), chunk)]
        )


def write_rows(path, G, F, a, b):
    """A picture of six rows: A, G(A), F(G(A)), B, F(B), G(F(B))."""
    fake_B, fake_A = sample(G, a), sample(F, b)
    rows = [a, fake_B, sample(F, fake_B), b, fake_A, sample(G, fake_A)]
    common.save_image(np.concatenate(rows), path, nrow=len(a))


def translate(run, G, F, args):
    """--sample_only: translates --input, or the test part where there is none."""
    generator = G if args.direction == "AtoB" else F
    if args.input is not None:
        translate_folder(run, args.input, lambda images: sample(generator, images), args.img_size, args.channels,
                         multiple=4)  # fmt: skip
    else:
        write_rows(run.out_dir / "result.png", G, F, *shown_images(args))


def shown_images(args):
    """As many images of A and of B from the test part, (n, C, S, S) each."""
    data = load_domains(args.data_dir, args.data_dir_B, args.img_size, args.channels, split="test")
    n = min(N_COLUMNS, *map(len, data.domains))
    return [domain.batch(np.arange(n), [0] * n)[0] for domain in data.domains]


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        if args.sample_only:
            G, F, _, _ = build(args)
            ema_G, ema_F = (common.EMA(generator, args.ema_decay) for generator in (G, F))
            run.track(G=G, F=F, ema_G=ema_G, ema_F=ema_F)
            translate(run, ema_G.module, ema_F.module, args)
            return run.losses

        shown = shown_images(args)
        data = load_domains(args.data_dir, args.data_dir_B, args.img_size, args.channels, augment=not args.no_augment)
        batches = common.Batches(data, args.batch_size, args.seed)
        G, F, D_A, D_B = networks = build(args)
        ema_G, ema_F = (common.EMA(generator, args.ema_decay) for generator in (G, F))
        optimizer_G, optimizer_D = (
            fast.Adam([*one.parameters(), *other.parameters()], lr=args.lr, betas=(args.b1, args.b2))
            for one, other in ((G, F), (D_A, D_B))
        )
        pool_A, pool_B = (ImagePool(args.pool_size, (args.channels, args.img_size, args.img_size)) for _ in range(2))
        run.track(G=G, F=F, D_A=D_A, D_B=D_B, ema_G=ema_G, ema_F=ema_F, optimizer_G=optimizer_G,
                  optimizer_D=optimizer_D, pool_A=pool_A, pool_B=pool_B, batches=batches)  # fmt: skip

        def recall(pool):  # the pool sees the whole batch, also where several processes share it
            return lambda fake: run.shard(pool.exchange(run.gather(fake).numpy(), run.rng))

        for epoch in run.epochs():
            optimizer_G.lr = optimizer_D.lr = learning_rate(epoch, args.lr, args.n_epochs, args.decay_epoch)
            for real_A, real_B in run.steps(batches):
                run.log(train_step(networks, optimizer_G, optimizer_D, real_A, real_B, recall(pool_A), recall(pool_B),
                                   args.lambda_cycle, args.lambda_identity))  # fmt: skip
                ema_G.update(), ema_F.update()
                if run.every(args.sample_interval):
                    path = run.out_dir / f"samples/step_{run.step:07d}.png"
                    write_rows(path, ema_G.module, ema_F.module, *shown)
        if run.is_main:
            write_rows(run.out_dir / "result.png", ema_G.module, ema_F.module, *shown)
    return run.losses


if __name__ == "__main__":
    main()
