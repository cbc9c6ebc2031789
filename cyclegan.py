"""CycleGAN: image translation without pairs (Zhu 2017, https://arxiv.org/abs/1703.10593).

    python cyclegan.py
    python cyclegan.py --paper --data_dir HORSE2ZEBRA
    python cyclegan.py --resume results/cyclegan --sample_only --input my_photos --direction AtoB --out_dir painted

Two generators translate between domains A and B, G: A to B and F: B to A; a discriminator for each domain scores
patches of 70 x 70 pixels by least squares (Mao 2017, https://arxiv.org/abs/1611.04076). For G, D_B, and alike F, D_A:

    L_D = 1/2 E[(D_B(b) - 1)^2] + 1/2 E[D_B(G(a))^2]
    L_G = E[(D_B(G(a)) - 1)^2] + lambda E|F(G(a)) - a| + lambda_id lambda E|G(b) - b|     (means over all values)

The cycle A to B to A ties a translation to its original; lambda is 10. The identity term keeps colours where nothing
has to change. D sees half of the time an older translation from a pool of 50, against oscillation (section 4).

Without --data_dir, A are white digits on black and B others in bold dark ink on light paper: nine minutes on two CPU
cores, readable after one epoch. Pictures show rows of A, G(A), F(G(A)), then B, F(B), G(F(B)), of the test part.

The default departs from the paper, which --paper undoes:
  * half of the width, 32 x 32 pixels, 4 epochs, and batches of 4, not 1;
  * the identity term is on, lambda_id 0.5, as in the authors' code; the paper has it for paintings alone (section 5.2).
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_domains
from common.data.augment import augmentation
from common.optional import doubled

from functools import partial

import jittor as jt
import numpy as np

from jittor_fast import nn

# Zhu 2017, sections 4 and 7; width of the authors' PyTorch code (github.com/junyanz/pytorch-CycleGAN-and-pix2pix).
PAPER = {"n_epochs": 200, "decay_epoch": 100, "batch_size": 1, "lr": 0.0002, "b1": 0.5, "b2": 0.999}
PAPER |= {
    "img_size": 256,
    "channels": 3,
    "width": 64,
    "n_blocks": 9,
    "lambda_cycle": 10.0,
    "lambda_identity": 0.0,
}
PAPER |= {"pool_size": 50, "ema_decay": 0.0}


def parse_args(argv=None):
    architecture = (
        "upsample",
        "width",
        "n_blocks",
        "img_size",
        "channels",
        "pool_size",
        "ema_decay",
    )
    parser = common.Parser(
        "cyclegan", __doc__, PAPER, architecture, starts_from="images", of_the_call=("direction",)
    )
    parser.set_defaults(
        n_epochs=4, batch_size=4, lr=0.0002, b1=0.5, b2=0.999, img_size=32, channels=1
    )
    parser.set_defaults(sample_interval=200, checkpoint_interval=1, log_interval=20)
    add, number = parser.add_argument, common.number
    add("--data_dir_B", help="folder of domain B, if --data_dir is that of domain A alone")
    add(
        "--upsample",
        choices=("transpose", "resize"),
        default="transpose",
        help="how the generators double sizes",
    )
    add(
        "--width",
        type=number(int, at_least=1, at_most=256),
        default=32,
        help="channels of the first layers",
    )
    add(
        "--n_blocks",
        type=number(int, at_least=0, at_most=50),
        help="residual blocks; 6 up to 128 pixels, 9 above",
    )
    add(
        "--lambda_cycle",
        type=number(float, at_least=0),
        default=10.0,
        help="weight of the cycle's distance",
    )
    add(
        "--lambda_identity",
        type=number(float, at_least=0),
        default=0.5,
        help="of the identity, times lambda_cycle",
    )
    add(
        "--pool_size",
        type=number(int, at_least=0, at_most=1000),
        default=50,
        help="older translations that D sees",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.0,
        help="of averaged weights; 0: off",
    )
    parser.add_augmentation()
    parser.add_tile()
    add(
        "--direction",
        choices=("AtoB", "BtoA"),
        default="AtoB",
        help="of the translation of --input",
    )
    parser.add_decay(decay_epoch=100)
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 4, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=32)
    return args


# ---- networks: instance norm without scale and shift, and biases everywhere, as in the authors' code ----


def normed(conv):
    return [conv, nn.InstanceNorm2d(conv.out_channels, affine=False)]


class Residual(nn.Module):
    """x + f(x), with f two convolutions at the same size; (B, C, H, W) both."""

    def __init__(self, channels):
        super().__init__()
        layers = [nn.ReflectionPad2d(1), *normed(nn.Conv(channels, channels, 3)), nn.ReLU()]
        layers += [nn.ReflectionPad2d(1), *normed(nn.Conv(channels, channels, 3))]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """(B, C, H, W) images to as many of the other domain, in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, channels, width, n_blocks, upsample):
        super().__init__()
        layers, c = [nn.ReflectionPad2d(3), *normed(nn.Conv(channels, width, 7)), nn.ReLU()], width
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [*normed(nn.Conv(c, 2 * c, 3, stride=2, padding=1)), nn.ReLU()]
            c *= 2
        layers += [Residual(c) for _ in range(n_blocks)]
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, width, H, W)
            conv = doubled(upsample, c, c // 2, size=3)
            layers += [*conv, nn.InstanceNorm2d(c // 2, affine=False), nn.ReLU()]
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.ReflectionPad2d(3), nn.Conv(width, channels, 7), nn.Tanh()
        )

    def execute(self, images):
        return self.layers(images)


class PatchGAN(nn.Module):
    """(B, C, H, W) images to (B, 1, H / 8 - 2, W / 8 - 2) scores, each of a patch of 70 x 70 pixels."""

    def __init__(self, channels, width):
        super().__init__()
        layers, c = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        for stride in (2, 2, 1):
            layers += [*normed(nn.Conv(c, 2 * c, 4, stride=stride, padding=1)), nn.LeakyReLU(0.2)]
            c *= 2
        self.layers = nn.Sequential(*layers, nn.Conv(c, 1, 4, padding=1))

    def execute(self, images):
        return self.layers(images)


def initialize(module):
    """Weights from N(0, 0.02^2) (Zhu 2017, section 7.1), biases 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            nn.init.constant_(layer.bias, 0)


def build(args):
    """G: A to B, F: B to A, and the discriminators of A and of B."""
    n_blocks = args.n_blocks if args.n_blocks is not None else (6 if max(args.shape) <= 128 else 9)
    generators = [Generator(args.channels, args.width, n_blocks, args.upsample) for _ in range(2)]
    networks = (*generators, *(PatchGAN(args.channels, args.width) for _ in range(2)))
    for module in networks:
        initialize(module)
        module.train()
    return networks


class ImagePool:
    """Up to `size` earlier translations, (size, C, H, W), where the networks are (Shrivastava 2017, section 2.3)."""

    def __init__(self, size, shape):
        self.images, self.count = jt.zeros((size, *shape)).stop_grad(), 0

    def exchange(self, images, rng):
        """(B, C, H, W) images; once the pool is full, about half of them change places with older ones."""
        size = len(self.images)
        kept, given = (
            list(range(size)),
            list(range(size, size + len(images))),
        )  # rows of pool and images together
        for i in range(len(images)):
            if self.count < size:
                kept[self.count] = given[i]
                self.count += 1
            elif self.count and rng.random() < 0.5:
                k = rng.integers(self.count)
                kept[k], given[i] = given[i], kept[k]
        together = jt.concat([self.images, images], dim=0)
        self.images = together[kept].stop_grad()
        self.images.sync()  # else the pool would be a chain of all the networks' earlier steps
        return together[given]

    def state_dict(self):
        return {"images": self.images.numpy(), "count": self.count}

    def load_state_dict(self, state):
        self.images, self.count = jt.array(state["images"]).stop_grad(), int(state["count"])
        if not 0 <= self.count <= len(self.images):
            raise ValueError("the pool holds more images than its size")


# ---- losses and the step ----


def l1_distance(images, others):
    """The mean of |image - other| over all values of two equal shapes."""
    if images.shape != others.shape:
        raise ValueError(f"images of different shapes: {images.shape} and {others.shape}")
    return (images - others).abs().mean()


def in_one_pass(network, first, second):
    """network(first) and network(second), from one batch: the same under instance norm, and faster."""
    both = network(jt.concat([first, second], dim=0))
    return both[: first.shape[0]], both[first.shape[0] :]


def discriminator_loss(discriminator, real, fake):
    """Half the squared distance of each side's scores from 1 and from 0 (Zhu 2017, section 7.1)."""
    real_scores, fake_scores = in_one_pass(discriminator, real, fake)
    return (((real_scores - 1) ** 2).mean() + (fake_scores**2).mean()) / 2


def train_step(
    networks,
    optimizer_G,
    optimizer_D,
    real_A,
    real_B,
    recall_A,
    recall_B,
    lambda_cycle,
    lambda_identity,
):
    """One update of both generators, then one of both discriminators; images are (B, C, H, W) in [-1, 1].

    recall_A and recall_B turn translations into those which the discriminators see. Returns every loss, unweighted, as
    a Jittor scalar; the identity's only where it has a weight.
    """
    G, F, D_A, D_B = networks
    if lambda_identity > 0:
        (fake_B, same_B), (fake_A, same_A) = (
            in_one_pass(G, real_A, real_B),
            in_one_pass(F, real_B, real_A),
        )
        identity = {
            "loss_identity_A": l1_distance(same_A, real_A),
            "loss_identity_B": l1_distance(same_B, real_B),
        }
    else:
        fake_B, fake_A, identity = G(real_A), F(real_B), {}
    adversarial = {
        "loss_G_AB": ((D_B(fake_B) - 1) ** 2).mean(),
        "loss_G_BA": ((D_A(fake_A) - 1) ** 2).mean(),
    }
    cycle = {
        "loss_cycle_A": l1_distance(F(fake_B), real_A),
        "loss_cycle_B": l1_distance(G(fake_A), real_B),
    }
    distances = sum(cycle.values()) + lambda_identity * sum(identity.values())
    optimizer_G.step(sum(adversarial.values()) + lambda_cycle * distances)

    loss_D_A = discriminator_loss(D_A, real_A, recall_A(fake_A.detach()))
    loss_D_B = discriminator_loss(D_B, real_B, recall_B(fake_B.detach()))
    optimizer_D.step(loss_D_A + loss_D_B)
    return {**adversarial, **cycle, **identity, "loss_D_A": loss_D_A, "loss_D_B": loss_D_B}


def learning_rate(epoch, lr, decay_epoch, decay_until):
    """The rate in an epoch, counted from 1: lr until `decay_epoch`, falling until `decay_until`, then constant."""
    if epoch <= decay_epoch or decay_until <= decay_epoch:
        return lr
    return lr * (decay_until + 1 - min(epoch, decay_until)) / (decay_until + 1 - decay_epoch)


# ---- training and translations ----


def shown_images(args):
    """As many images of A and of B from the test part, (n, C, H, W) each."""
    data = load_domains(args.data_dir, args.data_dir_B, args.shape, args.channels, split="test")
    n = min(10, *map(len, data.domains))
    return [domain.batch(np.arange(n), [0] * n)[0] for domain in data.domains]


def train(run, args):
    shown = shown_images(args)
    data = load_domains(
        args.data_dir, args.data_dir_B, args.shape, args.channels, augment=augmentation(args)
    )
    batches = common.Batches(data, args.batch_size, args.seed)
    networks = G, F, D_A, D_B = build(args)
    ema_G, ema_F = (common.EMA(generator, args.ema_decay) for generator in (G, F))
    optimizer_G = nn.Adam([*G.parameters(), *F.parameters()], lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(
        [*D_A.parameters(), *D_B.parameters()], lr=args.lr, betas=(args.b1, args.b2)
    )
    pools = [ImagePool(args.pool_size, (args.channels, *args.shape)) for _ in range(2)]
    parts = {
        "G": G,
        "F": F,
        "D_A": D_A,
        "D_B": D_B,
        "ema_G": ema_G,
        "ema_F": ema_F,
        "optimizer_G": optimizer_G,
    }
    parts |= {
        "optimizer_D": optimizer_D,
        "pool_A": pools[0],
        "pool_B": pools[1],
        "batches": batches,
    }
    run.track(exports={"G": ema_G.module, "F": ema_F.module}, **parts)

    recalls = [
        lambda fake, pool=pool: run.shard(pool.exchange(run.gather(fake), run.rng))
        for pool in pools
    ]
    weights = {"lambda_cycle": args.lambda_cycle, "lambda_identity": args.lambda_identity}
    watches = [
        run.watch(shown[k], f"translations to {'AB'[k]}", loss=f"loss_D_{'AB'[k]}")
        for k in range(2)
    ]
    for epoch in run.epochs():
        optimizer_G.lr = optimizer_D.lr = learning_rate(
            epoch, args.lr, args.decay_epoch, args.decay_until
        )
        for real_A, real_B in run.steps(batches):
            run.log(
                train_step(networks, optimizer_G, optimizer_D, real_A, real_B, *recalls, **weights)
            )
            ema_G.update(), ema_F.update()
            if run.every(args.sample_interval):
                for watch, images in zip(
                    watches, write_rows(run.sample_path, ema_G.module, ema_F.module, *shown)
                ):
                    watch.see_samples(images)
    if run.is_main:
        write_rows(run.out_dir / "result.png", ema_G.module, ema_F.module, *shown)


def write_rows(path, G, F, a, b):
    """Writes rows of A, G(A), F(G(A)), B, F(B), G(F(B)), and gives F(B) and G(A)."""
    fake_B, fake_A = common.in_chunks(G, a), common.in_chunks(F, b)
    rows = [a, fake_B, common.in_chunks(F, fake_B), b, fake_A, common.in_chunks(G, fake_A)]
    common.save_image(np.concatenate(rows), path, nrow=len(a))
    return fake_A, fake_B


def generate(run, args):
    """Translates --input, or the test images of the pictures."""
    G, F, _, _ = build(args)
    ema_G, ema_F = (common.EMA(generator, args.ema_decay) for generator in (G, F))
    run.track(G=G, F=F, ema_G=ema_G, ema_F=ema_F)
    if args.input is None:
        write_rows(run.out_dir / "result.png", ema_G.module, ema_F.module, *shown_images(args))
    else:
        generator = (ema_G if args.direction == "AtoB" else ema_F).module
        draw = partial(common.in_chunks, generator)
        common.translate_folder(
            run, args.input, draw, args.shape, args.channels, multiple=4, tile=args.tile
        )


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            for name, module in zip(("G", "F", "D_A", "D_B"), build(args)):
                common.describe(name, module, jt.zeros((1, args.channels, *args.shape)))
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
