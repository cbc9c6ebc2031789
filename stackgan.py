"""StackGAN: an image of a text, first small, then large.

Zhang et al. 2017, https://arxiv.org/abs/1612.03242

    python stackgan.py                            # digits, 14 minutes on two CPU cores
    python stackgan.py --paper --data_dir BIRDS   # the paper's setting, own images
    python stackgan.py --resume results/stackgan --sample_only --text "a thin blue nine"

Method
    A text encoder turns a text into a code t. Stage I draws a small image G1(z, c1)
    from noise z and a blurred code c1. Stage II reads this image and the text again and
    draws a large one, G2(G1(z, c1), c2). Each stage blurs t in its own manner
    (conditioning augmentation), with noise e from N(0, 1) and a linear layer that
    computes the mean and the logarithm of the deviation from t:

        c = mean(t) + deviation(t) * e

    Each stage also has its own discriminator D, which gives an image and a code a
    logit. D distinguishes real images x with their texts from real images with wrong
    texts, of codes t_wrong, and from the stage's images x'. With the sigmoid s
    (equations 3 to 6):

        L_D = -E[log s(D(x, t))]                     real images with their texts
              -1/2 E[log(1 - s(D(x, t_wrong)))]      real images with wrong texts
              -1/2 E[log(1 - s(D(x', t)))]           generated images
        L_G = -E[log s(D(x', t))]                    G makes D take fake for real
        KL  = KL(N(mean(t), deviation(t)^2) || N(0, 1))

    and G minimizes L_G + kl_weight KL. A run has three phases. For --text_epochs, the
    text encoder and an image encoder are trained to find which text of a batch belongs
    to which image (common/text.py). Then the text encoder is fixed, and stage I is
    trained for --stage1_epochs. Then stage I is fixed too, and stage II is trained.

What to expect
    The default data are the bundled digits, coloured and described by code, at 32 and
    64 pixels. result.png shows combinations of digit, colour, stroke and ground that
    never occur in training, with a row of stage I and a row of stage II for each text.
    At the end 78.3 % of such images of stage II are right in all four properties, and
    78.6 % of those of the same training in PyTorch (docs/scripts/stackgan.md). A loss_D
    near 1.39 = 2 log 2 means that D guesses; near 0, that D has won and G no longer
    learns. Both losses start again where stage II begins.

Differences from the paper (--paper undoes the last two)
    * loss_G is the authors' non-saturating loss; the paper minimizes log(1 - s(D))
    * the KL term is averaged over the 128 numbers of c and weighted by 2, as in the
      authors' code; --kl_weight 128 gives the paper's sum
    * the paper takes a text encoder that was trained elsewhere. This one is trained
      here and reads bytes of UTF-8, so texts can be in any language.
    * stage II doubles the size of stage I (--scale); the paper's factor is 4. With
      --scale 4, stage I works at 16 x 16 pixels and its digits are less accurate.
    * the networks are smaller and the learning rate higher than in the paper, and
      samples are drawn from averaged weights (--ema_decay)

With --paper too, these are unlike the authors' code
(github.com/hanzhanggit/StackGAN): a text is one caption, not the mean of the codes of
four; mean(t) and deviation(t) are linear in t, as in the paper, without leaky ReLU; G1
and both D have no residual blocks; and the D of stage II does not narrow its 2,048
channels before they meet the text.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.augment import augmentation
from common.data.captions import encode, load_captions
from common.text import CachedCodes, Encoders

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Zhang 2017, section 4, here after 20 epochs of the encoders. Widths and kl_weight are
# those of the authors' code (github.com/hanzhanggit/StackGAN), which cuts 256 of 304
# pixels.
PAPER = {
    "n_epochs": 1220,
    "text_epochs": 20,
    "stage1_epochs": 600,
    "halve_every": 100,
    "batch_size": 64,
    "lr": 0.0002,
    "img_size": 256,
    "load_size": 304,
    "scale": 4,
    "width_G": 128,
    "width_D": 64,
    "n_blocks": 4,
    "latent_dim": 100,
    "text_dim": 1024,
    "kl_weight": 2.0,
    "ema_decay": 0.0,
}
N_C = 128  # length of c, and of a text's code where it joins the image in D
N_COLUMNS = 8  # images of a text in a picture


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=36, batch_size=32, lr=0.0004)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()
    parser.add_augmentation()
    add_architecture(parser)
    add_training(parser)
    parser.add_argument(
        "--text", nargs="+", help="texts of the pictures (default: captions of the test split)"
    )
    args = parser.parse(argv)
    sizes = [args.scale * size for size in (16, 32, 64)]  # sizes of stage I's images
    if args.img_size not in sizes:
        parser.error(
            f"--img_size {args.img_size}: with --scale {args.scale} it must be "
            f"{sizes[0]}, {sizes[1]} or {sizes[2]}"
        )
    return args


def add_architecture(parser):
    """Flags that are stored with the weights; --resume takes them from there."""
    parser.add_architecture("--img_size", type=int, default=64, help="side of stage II's images")
    parser.add_architecture(
        "--scale",
        type=int,
        choices=(2, 4),
        default=2,
        help="size of stage II's images over that of stage I's",
    )
    parser.add_architecture(
        "--channels", type=int, default=3, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture("--text_dim", type=int, default=128, help="length of a text's code")
    parser.add_architecture(
        "--width_G",
        type=int,
        default=32,
        at_least=4,
        at_most=1024,
        help="width of the generators: channels of G2's first layer",
    )
    parser.add_architecture(
        "--width_D", type=int, default=32, help="channels of the discriminators next to the image"
    )
    parser.add_architecture(
        "--n_blocks", type=int, default=2, at_least=0, help="residual blocks of G2"
    )
    parser.add_architecture(
        "--ema_decay",
        type=float,
        default=0.999,
        below=1,
        help="EMA decay of the generators (0 disables it)",
    )


def add_training(parser):
    parser.add_argument(
        "--language", choices=("en", "zh"), default="en", help="language of the digits' captions"
    )
    parser.add_argument(
        "--text_epochs",
        type=int,
        default=5,
        at_least=0,
        help="how many of the epochs train the encoders",
    )
    parser.add_argument(
        "--stage1_epochs",
        type=int,
        default=25,
        at_least=0,
        help="how many of the epochs then train stage I, before stage II",
    )
    parser.add_argument("--kl_weight", type=float, default=2.0, help="weight of KL")
    parser.add_argument(
        "--halve_every",
        type=int,
        default=0,
        at_least=0,
        help="epochs after which a stage's learning rate is halved (0: never)",
    )


# ---- networks ----


class Augmentation(nn.Module):
    """text (B, text_dim), e (B, N_C)  ->  c, mean, log_deviation, each (B, N_C).

    Conditioning augmentation blurs the code of a text with noise e from N(0, 1).
    """

    def __init__(self, text_dim):
        super().__init__()
        self.linear = nn.Linear(text_dim, 2 * N_C)

    def execute(self, text, e):
        mean, log_deviation = jt.chunk(self.linear(text), 2, dim=1)
        c = mean + jt.exp(log_deviation) * e
        return c, mean, log_deviation


def upsampling_block(c):
    """Layers (B, c, H, W)  ->  (B, c / 2, 2 H, 2 W)."""
    return [
        nn.Upsample(2),
        nn.Conv(c, c // 2, 3, padding=1, bias=False),
        nn.BatchNorm(c // 2),
        nn.ReLU(),
    ]


class Generator1(nn.Module):
    """Stage I: z, text, e  ->  images, mean, log_deviation.

    Noise z (B, latent_dim), text (B, text_dim) and noise e (B, N_C) become images (B,
    channels, size, size) in [-1, 1]. See Augmentation for the other outputs.
    """

    def __init__(self, latent_dim, text_dim, channels, size, width):
        super().__init__()
        self.augmentation = Augmentation(text_dim)
        c = width * size // 8
        layers = [  # (B, latent_dim + N_C, 1, 1) -> (B, c, 4, 4): a fully connected layer
            nn.ConvTranspose(latent_dim + N_C, c, 4, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        height = 4
        while height < size:
            layers += upsampling_block(c)
            c //= 2
            height *= 2
        layers += [  # (B, width / 2, size, size) -> (B, channels, size, size)
            nn.Conv(c, channels, 3, padding=1),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z, text, e):
        c, mean, log_deviation = self.augmentation(text, e)
        h = jt.concat([z, c], dim=1)
        images = self.layers(h.reshape(len(h), -1, 1, 1))
        return images, mean, log_deviation


class ResidualBlock(nn.Module):
    """(B, c, H, W)  ->  (B, c, H, W)."""

    def __init__(self, c):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(c, c, 3, padding=1, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
            nn.Conv(c, c, 3, padding=1, bias=False),
            nn.BatchNorm(c),
        )

    def execute(self, x):
        return nn.relu(x + self.layers(x))


class Generator2(nn.Module):
    """Stage II: images of stage I, text, e  ->  images, mean, log_deviation.

    Images (B, channels, size, size) become images (B, channels, scale * size, ...),
    both in [-1, 1]. The other inputs and outputs are those of Generator1.
    """

    def __init__(self, text_dim, channels, size, scale, width, n_blocks):
        super().__init__()
        self.augmentation = Augmentation(text_dim)
        self.down = nn.Sequential(  # (B, channels, size, size) -> (B, 4 width, size / 4, ...)
            nn.Conv(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv(2 * width, 4 * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(4 * width),
            nn.LeakyReLU(0.2),
        )
        c = 4 * width
        layers = [  # (B, c + N_C, size / 4, size / 4) -> (B, c, size / 4, size / 4)
            nn.Conv(c + N_C, c, 3, padding=1, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        for _ in range(n_blocks):
            layers += [ResidualBlock(c)]
        self.join = nn.Sequential(*layers)

        layers = []
        height = size // 4
        while height < scale * size:
            layers += upsampling_block(c)
            c //= 2
            height *= 2
        layers += [  # (B, width / scale, scale * size, ...) -> (B, channels, scale * size, ...)
            nn.Conv(c, channels, 3, padding=1),
            nn.Tanh(),
        ]
        self.up = nn.Sequential(*layers)

    def execute(self, images, text, e):
        h = self.down(images)
        c, mean, log_deviation = self.augmentation(text, e)
        everywhere = c.reshape(-1, N_C, 1, 1).expand(-1, -1, *h.shape[2:])  # at each place
        images = self.up(self.join(jt.concat([h, everywhere], dim=1)))
        return images, mean, log_deviation


class Discriminator(nn.Module):
    """images (B, channels, size, size), text (B, text_dim)  ->  logits (B,).

    They are high for real images with their own texts. `features` and `match` are the
    two halves, for images that are compared with several texts.
    """

    def __init__(self, text_dim, channels, size, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, size, size) -> (B, width, size / 2, size / 2)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        height = size // 2
        while height > 4:  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
            height //= 2
        self.body = nn.Sequential(*layers)
        self.project = nn.Sequential(  # (B, text_dim) -> (B, N_C)
            nn.Linear(text_dim, N_C),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Sequential(  # (B, c + N_C, 4, 4) -> (B, 1, 1, 1)
            nn.Conv(c + N_C, c, 1, bias=False),
            nn.BatchNorm(c),
            nn.LeakyReLU(0.2),
            nn.Conv(c, 1, 4),
        )

    def features(self, images):
        """images (B, channels, size, size)  ->  features (B, c, 4, 4)."""
        return self.body(images)

    def match(self, features, text):
        """features (B, c, 4, 4), text (B, text_dim)  ->  logits (B,)."""
        projected = self.project(text).reshape(-1, N_C, 1, 1)
        everywhere = projected.expand(-1, -1, 4, 4)  # the same text at each place
        return self.head(jt.concat([features, everywhere], dim=1)).reshape(-1)

    def execute(self, images, text):
        return self.match(self.features(images), text)


def initialize(network):
    """The authors' initial weights: N(0, 0.02^2), those of batch norm N(1, 0.02^2).

    So at first c is little but its noise, whatever the text.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.Linear):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
            nn.init.constant_(layer.bias, 0)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The encoders, and generator and discriminator of stage I and of stage II."""
    size = args.img_size // args.scale  # of stage I's images
    generator1 = Generator1(args.latent_dim, args.text_dim, args.channels, size, args.width_G)
    generator2 = Generator2(
        args.text_dim, args.channels, size, args.scale, args.width_G, args.n_blocks
    )
    discriminator1 = Discriminator(args.text_dim, args.channels, size, args.width_D)
    discriminator2 = Discriminator(args.text_dim, args.channels, args.img_size, args.width_D)
    for network in (generator1, generator2, discriminator1, discriminator2):
        initialize(network)
        network.train()
    encoders = Encoders(args.text_dim, size, args.channels)  # they keep Jittor's weights
    return encoders, generator1, discriminator1, generator2, discriminator2


# ---- losses and one training step ----


def discriminator_loss(right_logits, wrong_logits, fake_logits):
    """L_D of logits (B,): -log s(x) = softplus(-x), -log(1 - s(x)) = softplus(x).

    Args:
        right_logits, wrong_logits: of real images with right and with wrong texts.
        fake_logits: of generated images with the texts that they were drawn for.
    """
    common.check_same_shape(right_logits, wrong_logits, fake_logits)
    loss_right = nn.softplus(-right_logits).mean()
    loss_wrong = nn.softplus(wrong_logits).mean()
    loss_fake = nn.softplus(fake_logits).mean()
    return loss_right + (loss_wrong + loss_fake) / 2


def generator_loss(fake_logits):
    """L_G of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def kl_divergence(mean, log_deviation):
    """KL(N(mean, deviation^2) || N(0, 1)), the mean over all elements of (B, N_C)."""
    common.check_same_shape(mean, log_deviation)
    return ((jt.exp(2 * log_deviation) + mean**2 - 1) / 2 - log_deviation).mean()


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, texts, sources, noise, *, kl_weight
):
    """Updates a stage's D, then its G.

    Args:
        real: images (B, C, H, W) in [-1, 1], of the stage's size.
        texts: the codes (B, text_dim) of the images' texts, and those of wrong texts.
        sources: what G starts from, in D's update and in G's: noise z (B, latent_dim)
            in stage I, stage I's images in stage II.
        noise: e (B, N_C) of D's update, and that of G's.

    Returns:
        {"loss_D", "loss_G", "KL"} as Jittor scalars, KL not weighted.
    """
    text, wrong_text = texts
    source_D, source_G = sources
    e_D, e_G = noise

    # D: real images with their texts, against wrong texts and against generated images
    with jt.no_grad():
        fake, _, _ = generator(source_D, text, e_D)
    features = discriminator.features(real)  # computed once, for both texts
    right_logits = discriminator.match(features, text)
    wrong_logits = discriminator.match(features, wrong_text)
    fake_logits = discriminator(fake, text)
    loss_D = discriminator_loss(right_logits, wrong_logits, fake_logits)
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: new images, which D should take for real ones of their texts
    fake, mean, log_deviation = generator(source_G, text, e_G)
    loss_G = generator_loss(discriminator(fake, text))
    KL = kl_divergence(mean, log_deviation)
    optimizer_G.step(loss_G + kl_weight * KL)
    return {"loss_D": loss_D, "loss_G": loss_G, "KL": KL}


# ---- training ----


def train(run, args):
    augment = augmentation(args)  # of images in a folder
    data = load_captions(
        args.data_dir, args.img_size, args.channels, args.language, augment=augment
    )
    if args.text is None:
        args.text = data.examples
    encoders, generator1, discriminator1, generator2, discriminator2 = build(args)
    averaged1 = common.EMA(generator1, args.ema_decay)
    averaged2 = common.EMA(generator2, args.ema_decay)
    optimizer_encoders = adam(encoders, args)
    optimizer_G1 = adam(generator1, args)
    optimizer_D1 = adam(discriminator1, args)
    optimizer_G2 = adam(generator2, args)
    optimizer_D2 = adam(discriminator2, args)

    run.checkpoint(  # what checkpoint_last.npz holds
        encoders=encoders,
        generator1=generator1,
        discriminator1=discriminator1,
        generator2=generator2,
        discriminator2=discriminator2,
        averaged1=averaged1,
        averaged2=averaged2,
        optimizer_encoders=optimizer_encoders,
        optimizer_generator1=optimizer_G1,
        optimizer_discriminator1=optimizer_D1,
        optimizer_generator2=optimizer_G2,
        optimizer_discriminator2=optimizer_D2,
    )
    run.restore()  # from --resume or --init_from, if given

    lengths = {"encoders": args.text_epochs, "stage 1": args.stage1_epochs, "stage 2": None}
    for phase in run.phases(lengths):  # None: the rest of the run
        if phase == "encoders":
            train_encoders(run, args, data, encoders, optimizer_encoders)
        elif phase == "stage 1":
            stage1 = (generator1, discriminator1, averaged1, optimizer_G1, optimizer_D1)
            train_stage1(run, args, data, encoders, stage1)
        else:
            stage2 = (generator2, discriminator2, averaged2, optimizer_G2, optimizer_D2)
            train_stage2(run, args, data, encoders, averaged1.module, stage2)
    write_samples(run, args, encoders, averaged1.module, averaged2.module)


def adam(network, args):
    return nn.Adam(network.parameters(), lr=args.lr, betas=(args.b1, args.b2))


def train_encoders(run, args, data, encoders, optimizer):
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, text, _ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            small = nn.avg_pool2d(real, args.scale)  # to the size of stage I
            matching = encoders(small, text)
            optimizer.step(matching)
            run.log({"matching": matching})


def train_stage1(run, args, data, encoders, stage):
    generator, discriminator, averaged, optimizer_G, optimizer_D = stage
    codes = CachedCodes(encoders.text, data.codes)  # the encoder is fixed from here on
    for epoch in run.epochs():
        lr = common.step_decay(epoch, args.lr, args.halve_every)
        optimizer_G.lr = lr
        optimizer_D.lr = lr
        for real, text, wrong_text in run.batches(data):
            z, e, _ = step_noise(run, args)
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                nn.avg_pool2d(real, args.scale),
                [codes(text), codes(wrong_text)],
                z,
                e,
                kl_weight=args.kl_weight,
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                texts, z, e, _ = picture_inputs(run, args)
                small = draw_stage1(encoders, averaged.module, texts, z, e)
                run.save_grid(enlarge(small, args.scale), nrow=N_COLUMNS)


def train_stage2(run, args, data, encoders, generator1, stage):
    generator, discriminator, averaged, optimizer_G, optimizer_D = stage
    codes = CachedCodes(encoders.text, data.codes)
    generator1.eval()  # stage I is fixed, also the statistics of its batch norm
    for epoch in run.epochs():
        lr = common.step_decay(epoch, args.lr, args.halve_every)
        optimizer_G.lr = lr
        optimizer_D.lr = lr
        for real, text, wrong_text in run.batches(data):
            z, e, e1 = step_noise(run, args)
            z_D, z_G = z
            e1_D, e1_G = e1
            texts = [codes(text), codes(wrong_text)]
            with jt.no_grad():
                small_D, _, _ = generator1(z_D, texts[0], e1_D)
                small_G, _, _ = generator1(z_G, texts[0], e1_G)
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                real,
                texts,
                [small_D, small_G],
                e,
                kl_weight=args.kl_weight,
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                save_picture(run, args, encoders, generator1, averaged.module)


def step_noise(run, args):
    """The noise of one step: pairs, for D's update and for G's.

    Returns:
        z (B, latent_dim) twice; e (B, N_C) twice, for the stage in training; and e
        twice for stage I, when stage II is in training.
    """
    z = [run.normal(args.batch_size, args.latent_dim) for _ in range(2)]
    e = [run.normal(args.batch_size, N_C) for _ in range(2)]
    # Training stage I draws this pair too, and does not use it, so that a step draws
    # equally much noise in both stages.
    e1 = [run.normal(args.batch_size, N_C) for _ in range(2)]
    return z, e, e1


# ---- samples ----


def draw_stage1(encoders, generator1, texts, z, e1):
    """Numpy images (N, C, S, S) of N texts, from noise (N, latent_dim) and (N, N_C)."""
    codes = common.predict(encoders.text, encode(texts))
    images, _, _ = common.predict(generator1, z, codes, e1)
    return images


def draw_stage2(encoders, generator2, texts, small, e2):
    """Numpy images of N texts, from stage I's images and noise (N, N_C)."""
    codes = common.predict(encoders.text, encode(texts))
    images, _, _ = common.predict(generator2, small, codes, e2)
    return images


def fixed_noise(run, n, latent_dim):
    """z, e1 and e2 of n images as numpy, the same at every call."""
    rng = run.fixed_rng()
    z = rng.standard_normal((n, latent_dim), dtype=np.float32)
    e1 = rng.standard_normal((n, N_C), dtype=np.float32)
    e2 = rng.standard_normal((n, N_C), dtype=np.float32)
    return z, e1, e2


def picture_inputs(run, args):
    """Texts, z, e1 and e2 for N_COLUMNS images of each text, with the same noise."""
    texts = np.repeat(args.text, N_COLUMNS)
    noise = fixed_noise(run, N_COLUMNS, args.latent_dim)
    z, e1, e2 = [np.tile(columns, (len(args.text), 1)) for columns in noise]
    return texts, z, e1, e2


def enlarge(images, scale):
    """(N, C, H, W)  ->  (N, C, scale * H, scale * W), each pixel repeated."""
    return images.repeat(scale, axis=2).repeat(scale, axis=3)


def save_picture(run, args, encoders, generator1, generator2, to=None):
    """Saves a row of stage I, enlarged, and a row of stage II for each text.

    Args:
        to: a file name in the output folder (default: that of the step's samples).
    """
    texts, z, e1, e2 = picture_inputs(run, args)
    small = draw_stage1(encoders, generator1, texts, z, e1)
    large = draw_stage2(encoders, generator2, texts, small, e2)
    enlarged = enlarge(small, args.scale)
    rows = []
    for first in range(0, len(texts), N_COLUMNS):
        rows.append(enlarged[first : first + N_COLUMNS])
        rows.append(large[first : first + N_COLUMNS])
    run.save_grid(np.concatenate(rows), to=to, nrow=N_COLUMNS, watched=large)


def write_samples(run, args, encoders, generator1, generator2):
    """Writes result.png, and samples.npz of stage II if --n_samples asks for it."""
    save_picture(run, args, encoders, generator1, generator2, to="result.png")
    if args.n_samples:
        texts = np.resize(args.text, args.n_samples)  # the texts take turns
        z, e1, e2 = fixed_noise(run, args.n_samples, args.latent_dim)
        small = draw_stage1(encoders, generator1, texts, z, e1)
        run.save_samples(draw_stage2(encoders, generator2, texts, small, e2), captions=texts)


def generate(run, args):
    """Draws samples from a checkpoint."""
    encoders, generator1, _, generator2, _ = build(args)
    averaged1 = common.EMA(generator1, args.ema_decay)
    averaged2 = common.EMA(generator2, args.ema_decay)
    run.checkpoint(
        encoders=encoders,
        generator1=generator1,
        generator2=generator2,
        averaged1=averaged1,
        averaged2=averaged2,
    )
    run.restore()
    write_samples(run, args, encoders, averaged1.module, averaged2.module)


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
