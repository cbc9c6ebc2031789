"""CycleGAN: image translation without pairs.

Zhu, Park, Isola and Efros 2017, https://arxiv.org/abs/1703.10593

    python cyclegan.py                                  # drawn digits, 9 minutes
    python cyclegan.py --paper --data_dir HORSE2ZEBRA   # the paper's setting
    python cyclegan.py --resume results/cyclegan --sample_only \\
        --input my_photos --direction AtoB --out_dir painted

Method
    A generator G translates images a of domain A to domain B, and a generator F
    translates images b of B to A. Each domain has a discriminator, D_A and D_B, which
    gives every patch of 70 x 70 pixels a score: 1 for real images of the domain, 0 for
    translations, by least squares (Mao 2017, https://arxiv.org/abs/1611.04076). For G
    and D_B, and with A and B exchanged for F and D_A:

        L_D = 1/2 E[(D_B(b) - 1)^2] + 1/2 E[D_B(G(a))^2]
        L_G = E[(D_B(G(a)) - 1)^2]
              + lambda_A E|F(G(a)) - a| + lambda_B lambda_id E|G(b) - b|

    with means over all pixels and channels. The second term of L_G, the cycle from A to
    B and back, ties a translation to its original; lambda_A and lambda_B are 10. The
    third one, the identity term, keeps colours where nothing has to change. With
    probability 1/2 a discriminator sees an older translation from a pool of 50 instead
    of the present one, against oscillation (section 4).

What to expect
    Without --data_dir, domain A holds white digits on black, domain B other digits in
    bold dark ink on light paper. Translations are readable after one epoch; the whole
    run takes 9 minutes on two CPU cores. At its end a classifier reads 99.6 % (A to B)
    and 97.6 % (B to A) of the translated test digits as the same digit as before, and
    99.2 and 97.6 % for the same training in PyTorch (docs/scripts/cyclegan.md).

    Pictures show rows of A, G(A), F(G(A)), then B, F(B), G(F(B)), of the test set. A
    loss_D near 1/4 means that this discriminator guesses; near 0, that it has won.

Differences from the paper (--paper undoes the first two)
    * 32 x 32 pixels, half of the width, 4 epochs, and batches of 4 instead of 1
    * the identity term is on, with lambda_id = 0.5, as in the authors' PyTorch code
      (github.com/junyanz/pytorch-CycleGAN-and-pix2pix). The paper has it for paintings
      only (section 5.2).
    * always: instance norm has no scale and shift, and all convolutions have a bias, as
      in that code. In the paper's own code (github.com/junyanz/CycleGAN) instance norm
      is affine, and the discriminators pad their input by 2 pixels instead of 1.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_domains
from common.data.augment import augmentation

from functools import partial

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Zhu 2017, sections 4 and 7. The width is that of the authors' PyTorch code
# (github.com/junyanz/pytorch-CycleGAN-and-pix2pix).
PAPER = {
    "n_epochs": 200,
    "decay_epoch": 100,
    "batch_size": 1,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 256,
    "channels": 3,
    "width": 64,
    "n_blocks": 9,
    "lambda_cycle": 10.0,
    "lambda_identity": 0.0,
    "pool_size": 50,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=4, batch_size=4, lr=0.0002)
    parser.set_defaults(sample_interval=200, log_interval=20, checkpoint_interval=1)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_decay(decay_epoch=100)
    parser.add_augmentation()
    parser.add_input()
    add_architecture(parser)

    parser.add_argument(
        "--data_dir_B", help="folder of domain B, if --data_dir holds domain A alone"
    )
    parser.add_argument(
        "--lambda_cycle", type=float, default=10.0, help="weight of both cycles' distances"
    )
    parser.add_argument(
        "--lambda_A", type=float, help="weight of the cycle from A (default: --lambda_cycle)"
    )
    parser.add_argument(
        "--lambda_B", type=float, help="weight of the cycle from B (default: --lambda_cycle)"
    )
    parser.add_argument(
        "--lambda_identity",
        type=float,
        default=0.5,
        help="weight of the identity term relative to the cycle's",
    )
    parser.add_argument(
        "--direction",
        choices=("AtoB", "BtoA"),
        default="AtoB",
        stored=False,
        help="direction in which --input is translated",
    )
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 4, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=32)
    if args.n_blocks is None:
        args.n_blocks = 6 if max(args.shape) <= 128 else 9
    return args


def add_architecture(parser):
    """The flags that are stored with the weights; --resume takes them from there."""
    parser.add_images(img_size=32, channels=1)
    parser.add_architecture(
        "--width", type=int, default=32, at_most=256, help="channels of the first layers"
    )
    parser.add_architecture(
        "--n_blocks",
        type=int,
        at_least=0,
        at_most=50,
        help="residual blocks of a generator (default: 6 up to 128 pixels, 9 above)",
    )
    parser.add_architecture(
        "--upsample",
        choices=("transpose", "resize"),
        default="transpose",
        help="how a generator doubles the size; resize leaves no checkerboard",
    )
    parser.add_architecture(
        "--pool_size",
        type=int,
        default=50,
        at_least=0,
        at_most=1000,
        help="older translations kept for each discriminator",
    )
    parser.add_architecture(
        "--ema_decay",
        type=float,
        default=0.0,
        below=1,
        help="EMA decay of the generators (0 disables it)",
    )


# ---- networks ----


class Residual(nn.Module):
    """x (B, C, H, W)  ->  x + f(x), where f consists of two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=False),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=False),
        )

    def execute(self, x):
        return x + self.layers(x)


class Generator(nn.Module):
    """images (B, channels, H, W)  ->  images of the other domain, in [-1, 1].

    H and W are multiples of 4.
    """

    def __init__(self, channels, width, n_blocks, upsample):
        super().__init__()
        c = width
        layers = [  # (B, channels, H, W) -> (B, width, H, W)
            nn.ReflectionPad2d(3),
            nn.Conv(channels, c, 7),
            nn.InstanceNorm2d(c, affine=False),
            nn.ReLU(),
        ]
        for _ in range(2):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1),
                nn.InstanceNorm2d(2 * c, affine=False),
                nn.ReLU(),
            ]
            c *= 2
        for _ in range(n_blocks):
            layers += [Residual(c)]
        for _ in range(2):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += upsampling(upsample, c, c // 2)
            layers += [
                nn.InstanceNorm2d(c // 2, affine=False),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, H, W) -> (B, channels, H, W)
            nn.ReflectionPad2d(3),
            nn.Conv(c, channels, 7),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


class PatchGAN(nn.Module):
    """images (B, channels, H, W)  ->  scores (B, 1, H / 8 - 2, W / 8 - 2).

    Each score depends on a patch of 70 x 70 pixels; it is high for real images.
    """

    def __init__(self, channels, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, H, W) -> (B, width, H / 2, W / 2)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for stride in (2, 2, 1):  # ... -> (B, 8 width, H / 8 - 1, W / 8 - 1)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(2 * c, affine=False),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [nn.Conv(c, 1, 4, padding=1)]  # -> (B, 1, H / 8 - 2, W / 8 - 2)
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


def initialize(network):
    """Weights from N(0, 0.02^2) (Zhu 2017, section 7.1), biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            nn.init.constant_(layer.bias, 0)


def build(args):
    """G: A to B, F: B to A, and the discriminators of A and of B."""
    G = Generator(args.channels, args.width, args.n_blocks, args.upsample)
    F = Generator(args.channels, args.width, args.n_blocks, args.upsample)
    D_A = PatchGAN(args.channels, args.width)
    D_B = PatchGAN(args.channels, args.width)
    for network in (G, F, D_A, D_B):
        initialize(network)
        network.train()
    return G, F, D_A, D_B


# ---- the pool of older translations ----


class ImagePool:
    """Up to `size` earlier translations (Shrivastava 2017, section 2.3).

    Args:
        size: how many images it keeps; 0 passes all images unchanged.
        shape: (C, H, W) of an image.
    """

    def __init__(self, size, shape):
        self.shape = shape
        self.images = [jt.zeros(shape) for _ in range(size)]
        self.count = 0  # images that are in the pool

    def exchange(self, images, rng):
        """Exchanges some of a batch of new translations for older ones.

        While the pool is not full, it keeps a copy of each image. Afterwards each
        image changes places, with probability 1/2, with a random one of the pool.

        Args:
            images: a Jittor variable (B, C, H, W), detached from the generator.
            rng: a numpy generator.

        Returns:
            (B, C, H, W)
        """
        size = len(self.images)
        exchanged = []
        for image in images:
            if self.count < size:
                self.images[self.count] = image
                self.count += 1
            elif size > 0 and rng.random() < 0.5:
                k = rng.integers(size)
                older = self.images[k]
                self.images[k] = image
                image = older
            exchanged.append(image)
        exchanged = jt.stack(exchanged, dim=0)
        jt.sync(self.images)  # or the images would hold the graphs of earlier steps
        return exchanged

    def state_dict(self):
        images = np.array([image.numpy() for image in self.images], np.float32)
        return {"images": images.reshape(-1, *self.shape), "count": self.count}

    def load_state_dict(self, state):
        self.images = [jt.array(image) for image in state["images"]]
        self.count = int(state["count"])
        if not 0 <= self.count <= len(self.images):
            raise ValueError("the pool holds more images than its size")


# ---- losses and one training step ----


def in_one_pass(network, first, second):
    """network(first) and network(second), computed as one batch.

    Under instance norm images do not depend on each other, and one pass is faster.
    """
    outputs = network(jt.concat([first, second], dim=0))
    return outputs[: len(first)], outputs[len(first) :]


def discriminator_loss(discriminator, real, fake):
    """L_D of images (B, C, H, W): half of the sum (Zhu 2017, section 7.1)."""
    common.check_same_shape(real, fake)
    real_scores, fake_scores = in_one_pass(discriminator, real, fake)
    return (((real_scores - 1) ** 2).mean() + (fake_scores**2).mean()) / 2


def generator_loss(fake_scores):
    """The adversarial term of L_G, of scores (B, 1, P, Q)."""
    return ((fake_scores - 1) ** 2).mean()


def l1_distance(images, others):
    """The mean of |image - other| over all values of two batches (B, C, H, W)."""
    common.check_same_shape(images, others)
    return (images - others).abs().mean()


def translate_both(G, F, real_A, real_B, with_identity):
    """G(real_A), F(real_B), and {name: loss} of the identity term, if it is wanted."""
    if not with_identity:
        return G(real_A), F(real_B), {}
    fake_B, idt_B = in_one_pass(G, real_A, real_B)
    fake_A, idt_A = in_one_pass(F, real_B, real_A)
    identity = {
        "loss_identity_A": l1_distance(idt_A, real_A),
        "loss_identity_B": l1_distance(idt_B, real_B),
    }
    return fake_B, fake_A, identity


def train_step(
    networks, optimizers, real_A, real_B, pooled_A, pooled_B, *, lambdas, lambda_identity
):
    """Updates both generators, then both discriminators.

    Args:
        networks: G, F, D_A and D_B.
        optimizers: of the generators, and of the discriminators.
        real_A, real_B: images (B, C, H, W) in [-1, 1].
        pooled_A, pooled_B: functions that exchange some of the translations to A and to
            B, (B, C, H, W), for older ones.
        lambdas: lambda_A and lambda_B.

    Returns:
        {name: loss} as Jittor scalars without their weights; the identity's losses only
        if lambda_identity is above 0.
    """
    G, F, D_A, D_B = networks
    optimizer_G, optimizer_D = optimizers
    lambda_A, lambda_B = lambdas

    # G and F: translations that D should take for real, and that lead back
    fake_B, fake_A, identity = translate_both(G, F, real_A, real_B, lambda_identity > 0)
    loss_G_AB = generator_loss(D_B(fake_B))
    loss_G_BA = generator_loss(D_A(fake_A))
    loss_cycle_A = l1_distance(F(fake_B), real_A)
    loss_cycle_B = l1_distance(G(fake_A), real_B)
    distance_A = loss_cycle_A + lambda_identity * identity.get("loss_identity_A", 0)
    distance_B = loss_cycle_B + lambda_identity * identity.get("loss_identity_B", 0)
    loss_G = loss_G_AB + loss_G_BA + lambda_A * distance_A + lambda_B * distance_B
    optimizer_G.step(loss_G)  # Jittor: computes the gradients of G and F, and updates them

    # D_A and D_B: real images against translations, some of them older
    loss_D_A = discriminator_loss(D_A, real_A, pooled_A(fake_A.detach()))
    loss_D_B = discriminator_loss(D_B, real_B, pooled_B(fake_B.detach()))
    optimizer_D.step(loss_D_A + loss_D_B)
    return {
        "loss_G_AB": loss_G_AB,
        "loss_G_BA": loss_G_BA,
        "loss_cycle_A": loss_cycle_A,
        "loss_cycle_B": loss_cycle_B,
        **identity,
        "loss_D_A": loss_D_A,
        "loss_D_B": loss_D_B,
    }


# ---- training ----


def train(run, args):
    fixed_A, fixed_B = fixed_images(args)
    data = load(args, "train", augment=augmentation(args))
    networks = build(args)
    G, F, D_A, D_B = networks
    averaged_G = common.EMA(G, args.ema_decay)
    averaged_F = common.EMA(F, args.ema_decay)
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(G.parameters() + F.parameters(), lr=args.lr, betas=betas)
    optimizer_D = nn.Adam(D_A.parameters() + D_B.parameters(), lr=args.lr, betas=betas)
    optimizers = (optimizer_G, optimizer_D)
    pool_A = ImagePool(args.pool_size, (args.channels, *args.shape))
    pool_B = ImagePool(args.pool_size, (args.channels, *args.shape))

    run.checkpoint(  # what checkpoint_last.npz holds
        G=G,
        F=F,
        D_A=D_A,
        D_B=D_B,
        averaged_G=averaged_G,
        averaged_F=averaged_F,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        pool_A=pool_A,
        pool_B=pool_B,
    )
    run.restore()  # from --resume or --init_from, if given

    pooled_A = partial(run.exchange, pool_A)
    pooled_B = partial(run.exchange, pool_B)
    lambda_A = args.lambda_cycle if args.lambda_A is None else args.lambda_A
    lambda_B = args.lambda_cycle if args.lambda_B is None else args.lambda_B
    weights = {"lambdas": (lambda_A, lambda_B), "lambda_identity": args.lambda_identity}
    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        lr = common.linear_decay(epoch, args.lr, args.decay_epoch, args.decay_until)
        optimizer_G.lr = lr
        optimizer_D.lr = lr
        for real_A, real_B in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            losses = train_step(networks, optimizers, real_A, real_B, pooled_A, pooled_B, **weights)
            averaged_G.update()
            averaged_F.update()
            run.log(losses)
            if run.every(args.sample_interval):
                write_rows(run, averaged_G.module, averaged_F.module, fixed_A, fixed_B)
    write_rows(run, averaged_G.module, averaged_F.module, fixed_A, fixed_B, to="result.png")


# ---- translations ----


def load(args, split, **options):
    return load_domains(args.data_dir, args.data_dir_B, args.shape, args.channels, split, **options)


def fixed_images(args):
    """The first images of A and of B in the test set, up to 10 each; (n, C, H, W)."""
    data = load(args, "test")
    domain_A, domain_B = data.domains
    indices = np.arange(min(10, len(domain_A), len(domain_B)))
    fixed_A, *_ = domain_A.batch(indices)
    fixed_B, *_ = domain_B.batch(indices)
    return fixed_A, fixed_B


def write_rows(run, G, F, real_A, real_B, to=None):
    """Writes rows of A, G(A), F(G(A)), then B, F(B), G(F(B))."""
    fake_B = common.predict(G, real_A)
    rec_A = common.predict(F, fake_B)
    fake_A = common.predict(F, real_B)
    rec_B = common.predict(G, fake_A)
    run.save_rows(real_A, fake_B, rec_A, real_B, fake_A, rec_B, to=to)


def generate(run, args):
    """Translates --input with a checkpoint, or else the test images of the pictures."""
    G, F, _, _ = build(args)
    averaged_G = common.EMA(G, args.ema_decay)
    averaged_F = common.EMA(F, args.ema_decay)
    run.checkpoint(G=G, F=F, averaged_G=averaged_G, averaged_F=averaged_F)
    run.restore()

    if args.input is None:
        fixed_A, fixed_B = fixed_images(args)
        write_rows(run, averaged_G.module, averaged_F.module, fixed_A, fixed_B, to="result.png")
        return

    averaged = averaged_G if args.direction == "AtoB" else averaged_F

    def translate(images):
        return common.predict(averaged.module, images)

    common.translate_folder(
        run, args.input, translate, args.shape, args.channels, multiple=4, tile=args.tile
    )


# ---- --upsample resize (Odena 2016, https://distill.pub/2016/deconv-checkerboard) ----


def upsampling(method, c_in, c_out):
    """A list of layers; (B, c_in, H, W)  ->  (B, c_out, 2 H, 2 W).

    Args:
        method: "transpose" for the paper's transposed convolution. Its kernels overlap
            unevenly, which can be seen as a checkerboard. "resize" for nearest
            neighbours and a convolution, which leave none.
    """
    if method == "resize":
        return [
            nn.Upsample(2),
            nn.Conv(c_in, c_out, 3, padding=1),
        ]
    return [nn.ConvTranspose(c_in, c_out, 3, stride=2, padding=1, output_padding=1)]


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
