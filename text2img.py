"""GAN-CLS: images of texts, by a GAN whose discriminator also sees wrong texts.

Reed et al. 2016, https://arxiv.org/abs/1605.05396

    python text2img.py                            # digits, 6 minutes on two CPU cores
    python text2img.py --paper --data_dir BIRDS   # the paper's setting, own images
    python text2img.py --resume results/text2img --sample_only --text "a thin blue nine"
    python text2img.py --resume results/text2img --sample_only --walk "a one" "a seven"

Method
    First a text encoder and an image encoder are trained together, for --text_epochs.
    They turn the texts and the images of a batch into codes t and v of length 1, and
    each code has to find its partner, text i or image i, among those of the batch (a
    contrastive form of the embedding of https://arxiv.org/abs/1605.05395):

        matching = -1/2 E[log softmax_j(10 v_i . t_j)_i]
                   -1/2 E[log softmax_j(10 v_j . t_i)_i]

    After that the text encoder is fixed. A generator G turns noise z and the code t of
    a text into an image. A discriminator D gives an image x and a code t a logit
    D(x, t), which is high where D takes x for real and t for its text. A real image
    with a wrong text is therefore a fake too (algorithm 1). With the sigmoid s:

        L_D = -E[log s(D(x, t))]                     real images with their texts
              -1/2 E[log(1 - s(D(x, t_wrong)))]      real images with wrong texts
              -1/2 E[log(1 - s(D(G(z, t), t)))]      generated images
        L_G = -E[log s(D(G(z, t), t))]               G makes D take fake for real

    --interpolate adds codes halfway between two texts of the batch to those of L_G
    (GAN-INT, equation 5). Texts are read as bytes of UTF-8, so they can be in any
    language.

What to expect
    The default data are the bundled digits, coloured and described by code. A fifth of
    the combinations of digit, colour, stroke and ground never occur in training;
    result.png shows some of those, one text per row. At the end 96.8 % of such pictures
    are right in all four properties, 95.0 % of those of the same training in PyTorch,
    and 95.0 % of real pictures (docs/scripts/text2img.md). A loss_D near 1.39 = 2 log 2
    means that D guesses; near 0, that D has won and G no longer learns.

Differences from the paper (--paper undoes the first three)
    * GAN-INT, the paper's second method, is off (--interpolate)
    * the networks are smaller, the learning rate is higher, and images have 32 x 32
      pixels
    * samples are drawn from averaged weights (--ema_decay)
    * always: the text encoder reads bytes, and is trained here, with the loss above
    * always: a text is one caption of the image, and a wrong text one that the image
      does not have. In the authors' code (github.com/reedscot/icml2016) a text is the
      mean of the codes of four captions of a class, and D sees the image of another
      class instead of another text. Its G has two further residual blocks, its D one,
      and batch norm on the projected text.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.augment import augmentation
from common.data.captions import encode, load_captions, read_texts
from common.text import CachedCodes, ImageEncoder, TextEncoder, matching_loss

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Reed 2016, section 5: 600 epochs, here after 5 of the encoders. The authors' code
# (github.com/reedscot/icml2016) halves the learning rate every 100 epochs, and cuts 64
# of 76 pixels.
PAPER = {
    "n_epochs": 605,
    "text_epochs": 5,
    "interpolate": True,
    "batch_size": 64,
    "lr": 0.0002,
    "halve_every": 100,
    "img_size": 64,
    "load_size": 76,
    "width_G": 128,
    "width_D": 64,
    "latent_dim": 100,
    "text_dim": 1024,
    "ema_decay": 0.0,
}
N_PROJECTED = 128  # length of a text's code where it joins the noise in G, the image in D
N_COLUMNS = 8  # images of a text in a picture


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=45, batch_size=32, lr=0.0004)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()
    parser.add_augmentation()
    add_architecture(parser)
    add_training(parser)
    add_texts(parser)
    args = parser.parse(argv)
    if args.walk and not args.sample_only:
        parser.error("--walk needs --sample_only and --resume with the checkpoint to sample from")
    if args.text_file:
        try:
            args.text = read_texts(args.text_file)
        except common.UserError as error:
            parser.error(str(error))
    return args


def add_architecture(parser):
    """Flags that are stored with the weights; --resume takes them from there."""
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=3, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture("--text_dim", type=int, default=128, help="length of a text's code")
    parser.add_architecture(
        "--width_G", type=int, default=32, help="channels of G next to the image"
    )
    parser.add_architecture(
        "--width_D",
        type=int,
        default=32,
        help="channels of D and of the image encoder next to the image",
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
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
        help="how many of the epochs train the encoders, before the GAN",
    )
    parser.add_argument(
        "--no_wrong_texts",
        action="store_true",
        help="do not show D real images with wrong texts: a plain conditional GAN",
    )
    parser.add_argument(
        "--interpolate",
        action="store_true",
        help="train G on codes between two texts too (GAN-INT)",
    )
    parser.add_argument(
        "--halve_every",
        type=int,
        default=0,
        at_least=0,
        help="epochs after which the learning rate is halved (0: never)",
    )


def add_texts(parser):
    parser.add_argument(
        "--text", nargs="+", help="texts of the pictures (default: captions of the test split)"
    )
    parser.add_argument(
        "--text_file", metavar="FILE", stored=False, help="file with these texts, one in each line"
    )
    parser.add_argument(
        "--walk",
        nargs=2,
        metavar="TEXT",
        stored=False,
        help="with --sample_only: a walk from one text to another",
    )


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim), text (B, text_dim)  ->  images (B, channels, S, S) in [-1, 1].

    S is img_size.
    """

    def __init__(self, latent_dim, text_dim, img_size, channels, width):
        super().__init__()
        self.project = nn.Sequential(  # (B, text_dim) -> (B, N_PROJECTED)
            nn.Linear(text_dim, N_PROJECTED),
            nn.LeakyReLU(0.2),
        )
        n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
        c = width * 2**n_blocks

        layers = [  # (B, latent_dim + N_PROJECTED, 1, 1) -> (B, c, 4, 4)
            nn.ConvTranspose(latent_dim + N_PROJECTED, c, 4, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        for _ in range(n_blocks):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, S / 2, S / 2) -> (B, channels, S, S)
            nn.ConvTranspose(c, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z, text):
        h = jt.concat([z, self.project(text)], dim=1)
        return self.layers(h.reshape(len(h), -1, 1, 1))


class Discriminator(nn.Module):
    """images (B, channels, S, S), text (B, text_dim)  ->  logits (B,).

    They are high for real images with their own texts. `features` and `match` are the
    two halves, for images that are compared with several texts. S is img_size.
    """

    def __init__(self, text_dim, img_size, channels, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, S, S) -> (B, width, S / 2, S / 2)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        self.body = nn.Sequential(*layers)
        self.project = nn.Sequential(  # (B, text_dim) -> (B, N_PROJECTED)
            nn.Linear(text_dim, N_PROJECTED),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Sequential(  # (B, c + N_PROJECTED, 4, 4) -> (B, 1, 1, 1)
            nn.Conv(c + N_PROJECTED, c, 1, bias=False),
            nn.BatchNorm(c),
            nn.LeakyReLU(0.2),
            nn.Conv(c, 1, 4),
        )

    def features(self, images):
        """images (B, channels, S, S)  ->  features (B, c, 4, 4)."""
        return self.body(images)

    def match(self, features, text):
        """features (B, c, 4, 4), text (B, text_dim)  ->  logits (B,)."""
        projected = self.project(text).reshape(-1, N_PROJECTED, 1, 1)
        everywhere = projected.expand(-1, -1, 4, 4)  # the same text at each place
        return self.head(jt.concat([features, everywhere], dim=1)).reshape(-1)

    def execute(self, images, text):
        return self.match(self.features(images), text)


def initialize(network):
    """Convolutions from N(0, 0.02^2), batch norm from N(1, 0.02^2)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    generator = Generator(
        args.latent_dim, args.text_dim, args.img_size, args.channels, args.width_G
    )
    discriminator = Discriminator(args.text_dim, args.img_size, args.channels, args.width_D)
    image_encoder = ImageEncoder(args.text_dim, args.img_size, args.channels, args.width_D)
    for network in (generator, discriminator, image_encoder):
        initialize(network)
        network.train()
    text_encoder = TextEncoder(args.text_dim)  # it keeps Jittor's initial weights
    return generator, discriminator, text_encoder, image_encoder


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


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, texts, z, *, with_wrong, interpolate
):
    """Updates D, then G.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        texts: the codes (B, text_dim) of the images' texts, and those of wrong texts.
        z: noise (B, latent_dim) of D's update, and that of G's; the latter has B // 2
            more rows with `interpolate`.
        with_wrong: whether D sees real images with wrong texts.
        interpolate: whether G is also trained on codes between two texts of the batch.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    text, wrong_text = texts
    z_D, z_G = z

    # D: real images with their texts, against wrong texts and against generated images
    with jt.no_grad():
        fake = generator(z_D, text)
    features = discriminator.features(real)  # computed once, for both texts
    right_logits = discriminator.match(features, text)
    wrong_logits = discriminator.match(features, wrong_text)
    fake_logits = discriminator(fake, text)
    if not with_wrong:
        wrong_logits = fake_logits  # generated images then count in full
    loss_D = discriminator_loss(right_logits, wrong_logits, fake_logits)
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: new images, which D should take for real ones of their texts
    if interpolate:  # in the same pass, so that batch norm sees all of them together
        text = jt.concat([text, halfway(text)])
    loss_G = generator_loss(discriminator(generator(z_G, text), text))
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


def halfway(text):
    """Codes (B // 2, text_dim) between the two halves of the codes (B, text_dim)."""
    n = len(text) // 2
    return (text[:n] + text[n : 2 * n]) / 2


# ---- training ----


def train(run, args):
    augment = augmentation(args)  # of images in a folder
    data = load_captions(
        args.data_dir, args.img_size, args.channels, args.language, augment=augment
    )
    if args.text is None:
        args.text = data.examples
    generator, discriminator, text_encoder, image_encoder = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    betas = (args.b1, args.b2)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=betas)
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=betas)
    parameters_T = text_encoder.parameters() + image_encoder.parameters()
    optimizer_T = nn.Adam(parameters_T, lr=args.lr, betas=betas)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        optimizer_T=optimizer_T,
    )
    run.restore()  # from --resume or --init_from, if given

    for phase in run.phases({"encoders": args.text_epochs, "GAN": None}):  # None: the rest
        if phase == "encoders":
            train_encoders(run, data, text_encoder, image_encoder, optimizer_T)
        else:
            networks = (generator, discriminator, averaged, text_encoder)
            train_gan(run, args, data, networks, optimizer_G, optimizer_D)
    write_samples(run, averaged.module, text_encoder, args)


def train_encoders(run, data, text_encoder, image_encoder, optimizer_T):
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, text, _ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            matching = matching_loss(image_encoder(real), text_encoder(text))
            optimizer_T.step(matching)
            run.log({"matching": matching})


def train_gan(run, args, data, networks, optimizer_G, optimizer_D):
    generator, discriminator, averaged, text_encoder = networks
    codes = CachedCodes(text_encoder, data.codes)  # the encoder is fixed from here on
    shown = common.predict(text_encoder, encode(args.text))  # the codes of the pictures
    n_images_G = args.batch_size
    if args.interpolate:
        n_images_G += args.batch_size // 2
    for epoch in run.epochs():  # counted from 1, without those of the encoders
        lr = common.step_decay(epoch, args.lr, args.halve_every)
        optimizer_G.lr = lr
        optimizer_D.lr = lr
        for real, text, wrong_text in run.batches(data):
            texts = [codes(text), codes(wrong_text)]
            z_D = run.normal(args.batch_size, args.latent_dim)
            z_G = run.normal(n_images_G, args.latent_dim)
            losses = train_step(
                generator,
                discriminator,
                optimizer_G,
                optimizer_D,
                real,
                texts,
                [z_D, z_G],
                with_wrong=not args.no_wrong_texts,
                interpolate=args.interpolate,
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(draw_rows(run, averaged.module, shown), nrow=N_COLUMNS)


# ---- samples ----


def draw_rows(run, generator, codes):
    """Draws N_COLUMNS images of each code, with the same noise in each column.

    Args:
        codes: (N, text_dim) numpy.

    Returns:
        Images (N * N_COLUMNS, C, H, W) in [-1, 1], those of a code side by side.
    """
    z = run.fixed_noise("normal", N_COLUMNS, run.args.latent_dim)
    z = np.tile(z, (len(codes), 1))
    return common.predict(generator, z, np.repeat(codes, N_COLUMNS, axis=0))


def write_samples(run, generator, text_encoder, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    codes = common.predict(text_encoder, encode(args.text))
    rows = codes
    if args.walk:
        first, last = common.predict(text_encoder, encode(args.walk))
        rows = np.linspace(first, last, 10)
    run.save_grid(draw_rows(run, generator, rows), to="result.png", nrow=N_COLUMNS)
    if args.n_samples:  # the texts take turns
        chosen = np.arange(args.n_samples) % len(args.text)
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        images = common.predict(generator, z, codes[chosen])
        run.save_samples(images, captions=np.array(args.text)[chosen])


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _, text_encoder, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    run.checkpoint(generator=generator, text_encoder=text_encoder, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, text_encoder, args)


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
