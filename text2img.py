"""Text to image: GAN-CLS and GAN-INT (Reed 2016, https://arxiv.org/abs/1605.05396).

    python text2img.py
    python text2img.py --paper --data_dir BIRDS
    python text2img.py --resume results/text2img --sample_only --text "a bold red three on white" "thin blue 9, black"

First a text and an image encoder learn, for --text_epochs, which text belongs to which image of a batch. With codes t
and v of length 1 (a contrastive form of the embedding of https://arxiv.org/abs/1605.05395) and right pairs i:

    matching = -1/2 E[log softmax_j(10 v_i . t_j)_i + log softmax_j(10 v_j . t_i)_i]

Then t is fixed. G draws from noise z and t; D tells whether an image is real and fits its text, so real images with
wrong texts are fakes too (algorithm 1). With logits D and the logistic function s:

    loss_D = -E[log s(D(x, t))] - 1/2 E[log(1 - s(D(x, t_wrong)))] - 1/2 E[log(1 - s(D(G(z, t), t)))]
    loss_G = -E[log s(D(G(z, t), t))]

--interpolate adds loss_G of a t halfway between two texts (GAN-INT, equation 5). Texts are read as bytes of UTF-8, so
in any language. The default draws the bundled digits, coloured, in six minutes on two CPU cores. A fifth of the
combinations of digit, colour, stroke and ground never occur in training; `result.png` shows some of those, a text in
each row. It has smaller networks and a higher rate than the paper, and an average of G's weights (--ema_decay) samples.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.captions import encode, load_captions, read_texts
from common.data.text_codes import KnownCodes, TextEncoder, matching_loss

import math

import jittor as jt
import numpy as np

from jittor_fast import nn

# Reed 2016, section 5, and the authors' code, which halves the rate every 100 epochs.
PAPER = {
    "n_epochs": 600,
    "batch_size": 64,
    "lr": 0.0002,
    "halve_every": 100,
    "img_size": 64,
    "width_G": 128,
    "width_D": 64,
    "latent_dim": 100,
    "text_dim": 1024,
    "ema_decay": 0.0,
}
N_PROJECTED = 128  # of a text, where it joins the noise in G and the image in D
N_COLUMNS = 8  # of a picture


def parse_args(argv=None):
    architecture = (
        "latent_dim",
        "text_dim",
        "width_G",
        "width_D",
        "img_size",
        "channels",
        "ema_decay",
    )
    parser = common.Parser(
        "text2img", __doc__, PAPER, architecture, of_the_call=("text_file", "walk")
    )
    parser.set_defaults(
        n_epochs=45, batch_size=32, lr=0.0004, b1=0.5, b2=0.999, img_size=32, channels=3
    )
    parser.set_defaults(sample_interval=500, checkpoint_interval=5, log_interval=50)
    add, number, count = (
        parser.add_argument,
        common.number,
        common.number(int, at_least=1, at_most=4096),
    )
    add(
        "--language",
        choices=("en", "zh"),
        default="en",
        help="of the captions of the built-in digits",
    )
    add(
        "--text_epochs",
        type=number(int, at_least=0),
        default=5,
        help="epochs, of all, that train the encoders",
    )
    add("--text_dim", type=count, default=128, help="length of a text's code")
    add("--latent_dim", type=count, default=100, help="length of the noise vector")
    add("--width_G", type=count, default=32, help="channels of G next to the image")
    add(
        "--width_D",
        type=count,
        default=32,
        help="channels of D and of the image encoder next to the image",
    )
    add(
        "--no_wrong_texts",
        action="store_true",
        help="D sees no real images with wrong texts: a plain conditional GAN",
    )
    add("--interpolate", action="store_true", help="G draws texts between two others too (GAN-INT)")
    add(
        "--halve_every",
        type=number(int, at_least=0),
        default=0,
        help="epochs until the rate is halved; 0: never",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.999,
        help="of the averaged weights; 0: off",
    )
    add("--text", nargs="+", help="texts of the pictures; captions of the test part unless given")
    add("--text_file", metavar="FILE", help="the same, a text in each line")
    add("--walk", nargs=2, metavar="TEXT", help="with --sample_only: from one text to another")
    args = parser.parse(argv)
    parser.one_of(args, "img_size", (16, 32, 64, 128))
    if args.walk and not args.sample_only:
        parser.error("--walk needs --sample_only and --resume with the checkpoint to sample from")
    return args


# ---- networks ----


def downwards(img_size, channels, width):
    """Layers from (B, channels, img_size, img_size) to (B, width * img_size / 8, 4, 4)."""
    layers = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for i in range(int(math.log2(img_size)) - 3):  # channels double, height and width halve
        a, b = width * 2**i, width * 2 ** (i + 1)
        layers += [
            nn.Conv(a, b, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm(b),
            nn.LeakyReLU(0.2),
        ]
    return layers


class Generator(nn.Module):
    """(B, latent_dim) noise and (B, text_dim) codes to (B, channels, img_size, img_size) images in [-1, 1]."""

    def __init__(self, latent_dim, text_dim, img_size, channels, width):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(text_dim, N_PROJECTED), nn.LeakyReLU(0.2))
        c = width * img_size // 8
        layers = [
            nn.ConvTranspose(latent_dim + N_PROJECTED, c, 4, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        while c > width:  # from (B, c, 4, 4), c halves, height and width double
            layers += [nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm(c // 2), nn.ReLU()]
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.ConvTranspose(c, channels, 4, stride=2, padding=1), nn.Tanh()
        )

    def execute(self, z, text):
        h = jt.concat([z, self.project(text)], dim=1)
        return self.layers(h.reshape(h.shape[0], -1, 1, 1))


class Discriminator(nn.Module):
    """(B, channels, img_size, img_size) images, each with one or more (B, text_dim) codes, to (B,) logits for each."""

    def __init__(self, text_dim, img_size, channels, width):
        super().__init__()
        c = width * img_size // 8
        self.body = nn.Sequential(*downwards(img_size, channels, width))  # (B, c, 4, 4)
        self.project = nn.Sequential(nn.Linear(text_dim, N_PROJECTED), nn.LeakyReLU(0.2))
        layers = [nn.Conv(c + N_PROJECTED, c, 1, bias=False), nn.BatchNorm(c), nn.LeakyReLU(0.2)]
        self.head = nn.Sequential(*layers, nn.Conv(c, 1, 4))

    def execute(self, images, *texts):
        h = self.body(images)
        projected = [
            self.project(text).reshape(-1, N_PROJECTED, 1, 1).expand(-1, -1, 4, 4) for text in texts
        ]
        return tuple(self.head(jt.concat([h, text], dim=1)).reshape(-1) for text in projected)


def initialize(module):
    """Weights of convolutions from N(0, 0.02^2), of batch norms from N(1, 0.02^2)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    """The generator, the discriminator, the text encoder and the image encoder of these arguments."""
    image = args.img_size, args.channels
    generator = Generator(args.latent_dim, args.text_dim, *image, args.width_G)
    discriminator = Discriminator(args.text_dim, *image, args.width_D)
    body = [*downwards(*image, args.width_D), nn.Flatten()]
    image_encoder = nn.Sequential(*body, nn.Linear(2 * args.img_size * args.width_D, args.text_dim))
    for module in (generator, discriminator, image_encoder):
        initialize(module)
        module.train()
    return generator, discriminator, TextEncoder(args.text_dim), image_encoder


# ---- losses and the steps ----


def discriminator_loss(right_logits, wrong_logits, fake_logits):
    """Logits (B,) of real images with right and with wrong texts, and of generated ones; -log s(x) = softplus(-x)."""
    if not right_logits.shape == wrong_logits.shape == fake_logits.shape:
        raise ValueError(
            f"logits of shapes {right_logits.shape}, {wrong_logits.shape} and {fake_logits.shape}"
        )
    wrong, fake = nn.softplus(wrong_logits).mean(), nn.softplus(fake_logits).mean()
    return nn.softplus(-right_logits).mean() + (wrong + fake) / 2


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, texts, noise, with_wrong, interpolate
):
    """One update of D, then one of G; gives {"loss_D", "loss_G"}, and "loss_G_between" with `interpolate`.

    Args:
        real, texts: (B, C, H, W) images in [-1, 1]; the (B, text_dim) codes of their texts, and of wrong ones.
        noise: (B, latent_dim) of each update.
        with_wrong, interpolate: whether D sees wrong texts, and G draws texts between right and wrong ones.
    """
    with jt.no_grad():
        fake = generator(noise[0], texts[0])
    right_logits, wrong_logits = discriminator(real, *texts)
    (fake_logits,) = discriminator(fake, texts[0])
    loss_D = discriminator_loss(
        right_logits, wrong_logits if with_wrong else fake_logits, fake_logits
    )
    optimizer_D.step(loss_D)

    (logits,) = discriminator(generator(noise[1], texts[0]), texts[0])
    losses = {"loss_G": nn.softplus(-logits).mean()}
    if interpolate:
        between = (texts[0] + texts[1]) / 2
        (logits,) = discriminator(generator(noise[1], between), between)
        losses["loss_G_between"] = nn.softplus(-logits).mean()
    optimizer_G.step(sum(losses.values()))
    return {"loss_D": loss_D, **losses}


# ---- training and samples ----


def train(run, args):
    data = load_captions(
        args.data_dir, args.img_size, args.channels, args.language, download=args.download
    )
    args.text = args.stored["text"] = args.text or data.examples
    batches = common.Batches(data, args.batch_size, args.seed)
    generator, discriminator, text_encoder, image_encoder = build(args)
    ema, adam = common.EMA(generator, args.ema_decay), {"lr": args.lr, "betas": (args.b1, args.b2)}
    optimizer_G, optimizer_D = (
        nn.Adam(network.parameters(), **adam) for network in (generator, discriminator)
    )
    optimizer_T = nn.Adam([*text_encoder.parameters(), *image_encoder.parameters()], **adam)
    networks = {
        "generator": generator,
        "discriminator": discriminator,
        "text_encoder": text_encoder,
    }
    optimizers = {
        "optimizer_G": optimizer_G,
        "optimizer_D": optimizer_D,
        "optimizer_T": optimizer_T,
    }
    run.track(
        {"generator": ema.module},
        **networks,
        image_encoder=image_encoder,
        ema=ema,
        **optimizers,
        batches=batches,
    )
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    known_codes = None
    for epoch in run.epochs():
        optimizer_G.lr = optimizer_D.lr = args.lr / 2 ** (
            (epoch - 1) // (args.halve_every or args.n_epochs)
        )
        for real, text, wrong in run.steps(batches):
            if epoch <= args.text_epochs:
                matching = matching_loss(image_encoder(real), text_encoder(text))
                optimizer_T.step(matching)
                run.log({"matching": matching})
                continue
            known_codes = known_codes or KnownCodes(text_encoder, data.codes)
            texts = known_codes(text), known_codes(wrong)
            noise = [run.normal(args.batch_size, args.latent_dim) for _ in range(2)]
            terms = not args.no_wrong_texts, args.interpolate
            run.log(
                train_step(
                    generator, discriminator, optimizer_G, optimizer_D, real, texts, noise, *terms
                )
            )
            ema.update()
            if run.every(args.sample_interval):
                images = drawn(ema.module, common.in_chunks(text_encoder, encode(args.text)), args)
                common.save_image(images, run.sample_path, nrow=N_COLUMNS)
                watch.see_samples(images)
    write_results(run, ema.module, text_encoder, args)


def drawn(generator, codes, args):
    """The images of a picture: of each code in a row, and of equal noise in a column."""
    z = np.random.default_rng(args.seed).standard_normal(
        (N_COLUMNS, args.latent_dim), dtype=np.float32
    )
    return common.in_chunks(
        generator, np.tile(z, (len(codes), 1)), np.repeat(codes, N_COLUMNS, axis=0)
    )


def generate(run, args):
    generator, _, text_encoder, _ = build(args)
    ema = common.EMA(generator, args.ema_decay)
    run.track(generator=generator, text_encoder=text_encoder, ema=ema)
    write_results(run, ema.module, text_encoder, args)


def write_results(run, generator, text_encoder, args):
    """result.png, of the texts or of the way between two, and the samples of --n_samples with their captions."""
    if not run.is_main:
        return
    codes = common.in_chunks(text_encoder, encode(args.text))
    rows = (
        np.linspace(*common.in_chunks(text_encoder, encode(args.walk)), 10) if args.walk else codes
    )
    common.save_image(drawn(generator, rows, args), run.out_dir / "result.png", nrow=N_COLUMNS)
    if args.n_samples:
        chosen = np.arange(args.n_samples) % len(args.text)
        z = run.sample_rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
        run.save_samples(
            common.in_chunks(generator, z, codes[chosen]), captions=np.array(args.text)[chosen]
        )


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.text_file:
            args.text = args.stored["text"] = read_texts(args.text_file)
        if args.describe:
            generator, discriminator, text_encoder, image_encoder = build(args)
            image, code = (
                jt.zeros((1, args.channels, args.img_size, args.img_size)),
                jt.zeros((1, args.text_dim)),
            )
            common.describe("generator", generator, jt.zeros((1, args.latent_dim)), code)
            common.describe("discriminator", discriminator, image, code)
            common.describe("text_encoder", text_encoder, jt.zeros((1, 20), "int32"))
            common.describe("image_encoder", image_encoder, image)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
