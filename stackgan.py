"""StackGAN: a picture of a text, first small, then large (Zhang 2017, https://arxiv.org/abs/1612.03242).

    python stackgan.py
    python stackgan.py --paper --data_dir BIRDS
    python stackgan.py --resume results/stackgan --sample_only --text "a bold red three on white" "thin blue 9, black"

Stage I draws a small image x = G1(z, c1) from noise z and the code t of a text. Stage II reads that image and the text
once more and draws it anew, larger: x = G2(G1(z, c1), c2). Each blurs t in its own way (conditioning augmentation):

    c = mean(t) + deviation(t) * e,    e from N(0, 1)

and has a discriminator that tells real images with their texts from real ones with wrong texts and from generated ones.
With its logits D and the logistic function s (equations 3 to 6):

    loss_D = -E[log s(D(real, t))] - 1/2 E[log(1 - s(D(real, t_wrong)))] - 1/2 E[log(1 - s(D(x, t)))]
    loss_G = -E[log s(D(x, t))],    and G minimizes loss_G + kl_weight KL(N(mean(t), deviation(t)^2) || N(0, 1))

First a text encoder learns for --text_epochs, with one of images, which text of a batch is which image's (the paper
takes one ready-made; this one reads bytes, so any language). Then stage I trains, for --stage1_epochs, and then, with
all that fixed, stage II. Of the authors' code is loss_G, the paper's being log(1 - s(D)), and KL as a mean over c, of
weight 2; the paper's sum is --kl_weight 128. The default draws the bundled digits, coloured, at 32 and 64 pixels, in
some 14 minutes on two CPU cores; with --scale 4 stage I, of 16 pixels, knows the digits less well. `result.png` shows
combinations that never occur in training, a row of stage I and one of stage II for a text. Networks are smaller, the
rate is higher, averaged weights (--ema_decay) sample.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data.captions import encode, load_captions
from common.data.text_codes import Encoders, KnownCodes

import jittor as jt
import numpy as np

from jittor_fast import nn

# Zhang 2017, section 4 (here after 20 epochs of the encoders); widths, kl_weight: github.com/hanzhanggit/StackGAN
PAPER = {
    "n_epochs": 1220,
    "text_epochs": 20,
    "stage1_epochs": 600,
    "halve_every": 100,
    "batch_size": 64,
    "lr": 0.0002,
}
PAPER |= {
    "img_size": 256,
    "scale": 4,
    "width_G": 128,
    "width_D": 64,
    "n_blocks": 4,
    "latent_dim": 100,
}
PAPER |= {"text_dim": 1024, "kl_weight": 2.0, "ema_decay": 0.0}
N_C = 128  # numbers of c, and of a text where it joins an image in D
N_COLUMNS = 8  # of a picture
NETWORKS = "encoders", "generator1", "generator2", "discriminator1", "discriminator2"
OF_A_STAGE = "generator", "discriminator", "optimizer_generator", "optimizer_discriminator"


def parse_args(argv=None):
    architecture = (
        "latent_dim",
        "text_dim",
        "width_G",
        "width_D",
        "n_blocks",
        "scale",
        "ema_decay",
    )
    parser = common.Parser("stackgan", __doc__, PAPER, (*architecture, "img_size", "channels"))
    parser.set_defaults(
        n_epochs=36, batch_size=32, lr=0.0004, b1=0.5, b2=0.999, img_size=64, channels=3
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
    add(
        "--stage1_epochs",
        type=number(int, at_least=0),
        default=25,
        help="epochs, after these, that train stage I",
    )
    add(
        "--scale",
        type=int,
        choices=(2, 4),
        default=2,
        help="size of stage II's images over that of stage I's",
    )
    add("--text_dim", type=count, default=128, help="length of a text's code")
    add("--latent_dim", type=count, default=100, help="length of the noise vector")
    add(
        "--width_G",
        type=number(int, at_least=4, at_most=1024),
        default=32,
        help="of the generators: G2's first layer",
    )
    add(
        "--width_D",
        type=count,
        default=32,
        help="channels of D and of the image encoder next to the image",
    )
    add("--n_blocks", type=number(int, at_least=0), default=2, help="residual blocks of G2")
    add(
        "--kl_weight",
        type=number(float, at_least=0),
        default=2.0,
        help="weight of the texts' divergence",
    )
    add(
        "--halve_every",
        type=number(int, at_least=0),
        default=0,
        help="epochs until a stage's rate halves; 0: never",
    )
    add(
        "--ema_decay",
        type=number(float, at_least=0, below=1),
        default=0.999,
        help="of the averaged weights; 0: off",
    )
    add("--text", nargs="+", help="texts of the pictures; captions of the test part unless given")
    args = parser.parse(argv)
    parser.one_of(args, "img_size", [args.scale * size for size in (16, 32, 64)])
    return args


class Augmentation(nn.Module):
    """(B, text_dim) codes and e (B, N_C) from N(0, 1) to c, the mean, and the log of the deviation, (B, N_C) each."""

    def __init__(self, text_dim):
        super().__init__()
        self.linear = nn.Linear(text_dim, 2 * N_C)

    def execute(self, text, e):
        mean, log_deviation = jt.chunk(self.linear(text), 2, dim=1)
        return mean + jt.exp(log_deviation) * e, mean, log_deviation


def conv(a, b, kernel, stride=1, activation=None):
    """A convolution that keeps height and width, or with stride 2 halves them; batch norm; ReLU."""
    layer = nn.Conv(a, b, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
    return [layer, nn.BatchNorm(b), activation or nn.ReLU()]


def upwards(c, size, channels, target):
    """Layers from (B, c, size, size) to (B, channels, target, target) in [-1, 1]; c halves as the size doubles."""
    layers = []
    while size < target:
        layers += [nn.Upsample(2), *conv(c, c // 2, 3)]
        c, size = c // 2, 2 * size
    return nn.Sequential(*layers, nn.Conv(c, channels, 3, padding=1), nn.Tanh())


class Generator1(nn.Module):
    """z (B, latent_dim), text (B, text_dim), e (B, N_C) to images (B, channels, size, size) and c's moments."""

    def __init__(self, latent_dim, text_dim, channels, size, width):
        super().__init__()
        self.augmentation, c = Augmentation(text_dim), width * size // 8
        first = nn.ConvTranspose(
            latent_dim + N_C, c, 4, bias=False
        )  # a fully connected layer, to (B, c, 4, 4)
        self.layers = nn.Sequential(
            first, nn.BatchNorm(c), nn.ReLU(), upwards(c, 4, channels, size)
        )

    def execute(self, z, text, e):
        c, *moments = self.augmentation(text, e)
        return self.layers(jt.concat([z, c], dim=1).unsqueeze(2).unsqueeze(3)), *moments


class ResidualBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.Sequential(*conv(c, c, 3), *conv(c, c, 3)[:2])

    def execute(self, x):
        return nn.relu(x + self.layers(x))


class Generator2(nn.Module):
    """As Generator1, in the place of z with its images (B, channels, size, size), to `scale` times that size."""

    def __init__(self, text_dim, channels, size, scale, width, n_blocks):
        super().__init__()
        self.augmentation, c = Augmentation(text_dim), 4 * width
        layers = [nn.Conv(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for a in (width, 2 * width):
            layers += conv(a, 2 * a, 4, stride=2, activation=nn.LeakyReLU(0.2))
        self.down = nn.Sequential(*layers)  # (B, c, size / 4, size / 4)
        self.join = nn.Sequential(
            *conv(c + N_C, c, 3), *[ResidualBlock(c) for _ in range(n_blocks)]
        )
        self.up = upwards(c, size // 4, channels, scale * size)

    def execute(self, images, text, e):
        h, (c, *moments) = self.down(images), self.augmentation(text, e)
        c = c.unsqueeze(2).unsqueeze(3).expand(-1, -1, *h.shape[2:])
        return self.up(self.join(jt.concat([h, c], dim=1))), *moments


class Discriminator(nn.Module):
    """(B, channels, size, size) images, each with one or more (B, text_dim) codes, to (B,) logits for each."""

    def __init__(self, text_dim, channels, size, width):
        super().__init__()
        layers, c = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        while c < width * size // 8:
            layers += conv(c, 2 * c, 4, stride=2, activation=nn.LeakyReLU(0.2))
            c *= 2
        self.body = nn.Sequential(*layers)  # to (B, c, 4, 4)
        self.project = nn.Sequential(nn.Linear(text_dim, N_C), nn.LeakyReLU(0.2))
        self.head = nn.Sequential(
            *conv(c + N_C, c, 1, activation=nn.LeakyReLU(0.2)), nn.Conv(c, 1, 4)
        )

    def execute(self, images, *texts):
        h = self.body(images)
        projected = [
            self.project(text).reshape(-1, N_C, 1, 1).expand(-1, -1, 4, 4) for text in texts
        ]
        return tuple(self.head(jt.concat([h, text], dim=1)).reshape(-1) for text in projected)


def build(args):
    """{name: the encoders, both stages' networks, the generators' averages}; first weights as in the authors' code."""
    small, text_dim = (args.channels, args.img_size // args.scale), args.text_dim
    networks = {
        "generator1": Generator1(args.latent_dim, text_dim, *small, args.width_G),
        "generator2": Generator2(text_dim, *small, args.scale, args.width_G, args.n_blocks),
        "discriminator1": Discriminator(text_dim, *small, args.width_D),
        "discriminator2": Discriminator(text_dim, args.channels, args.img_size, args.width_D),
    }
    for layer in (layer for network in networks.values() for layer in network.modules()):
        if isinstance(layer, (nn.Conv, nn.ConvTranspose, nn.BatchNorm)):
            nn.init.gauss_(layer.weight, mean=float(isinstance(layer, nn.BatchNorm)), std=0.02)
    networks |= {"encoders": Encoders(text_dim, *small)}
    return networks | {
        f"ema{n}": common.EMA(networks[f"generator{n}"], args.ema_decay) for n in "12"
    }


def discriminator_loss(right_logits, wrong_logits, fake_logits):
    """Logits (B,) of real images with right and with wrong texts, and of generated ones; -log s(x) = softplus(-x)."""
    wrong, fake = nn.softplus(wrong_logits).mean(), nn.softplus(fake_logits).mean()
    return nn.softplus(-right_logits).mean() + (wrong + fake) / 2


def kl_divergence(mean, log_deviation):
    """KL(N(mean, deviation^2) || N(0, 1)), averaged over all numbers of (B, N_C)."""
    return ((jt.exp(2 * log_deviation) + mean**2 - 1) / 2 - log_deviation).mean()


def train_step(
    generator, discriminator, optimizer_G, optimizer_D, real, texts, sources, noise, *, kl_weight
):
    """One update of a stage's D, then one of its G; gives {"loss_D", "loss_G", "KL"}.

    Args:
        real, texts: (B, C, H, W) images in [-1, 1]; the (B, text_dim) codes of their texts, and of wrong ones.
        sources: of each update, what G starts from: noise (B, latent_dim), or stage I's images in [-1, 1].
        noise: of each update, (B, N_C) that blur the texts.
    """
    with jt.no_grad():
        fake, *_ = generator(sources[0], texts[0], noise[0])
    right_logits, wrong_logits = discriminator(real, *texts)
    (fake_logits,) = discriminator(fake, texts[0])
    loss_D = discriminator_loss(right_logits, wrong_logits, fake_logits)
    optimizer_D.step(loss_D)

    fake, *moments = generator(sources[1], texts[0], noise[1])
    (logits,) = discriminator(fake, texts[0])
    loss_G, divergence = nn.softplus(-logits).mean(), kl_divergence(*moments)
    optimizer_G.step(loss_G + kl_weight * divergence)
    return {"loss_D": loss_D, "loss_G": loss_G, "KL": divergence}


def train(run, args):
    data = load_captions(
        args.data_dir, args.img_size, args.channels, args.language, download=args.download
    )
    args.text = args.stored["text"] = args.text or data.examples
    parts, batches = build(args), common.Batches(data, args.batch_size, args.seed)
    encoders, adam = parts["encoders"], {"lr": args.lr, "betas": (args.b1, args.b2)}
    parts |= {f"optimizer_{name}": nn.Adam(parts[name].parameters(), **adam) for name in NETWORKS}
    run.track({f"generator{n}": parts[f"ema{n}"].module for n in "12"}, **parts, batches=batches)
    watch = run.watch(data.batch(np.arange(min(100, len(data))))[0], loss="loss_D")
    known_codes = None
    for epoch in run.epochs():
        stage = 2 if epoch > args.text_epochs + args.stage1_epochs else 1
        trained = [parts[f"{name}{stage}"] for name in OF_A_STAGE]
        n_done = epoch - 1 - args.text_epochs - (stage == 2) * args.stage1_epochs
        trained[2].lr = trained[3].lr = args.lr / 2 ** (
            n_done // (args.halve_every or args.n_epochs)
        )
        for real, text, wrong in run.steps(batches):
            small = nn.avg_pool2d(real, args.scale, args.scale, 0)
            if epoch <= args.text_epochs:
                matching = encoders(small, text)
                parts["optimizer_encoders"].step(matching)
                run.log({"matching": matching})
                continue
            sources = [run.normal(args.batch_size, args.latent_dim) for _ in range(2)]
            noise = [run.normal(args.batch_size, N_C) for _ in range(4)]
            known_codes = known_codes or KnownCodes(encoders.text, data.codes)
            texts = known_codes(text), known_codes(wrong)
            if stage == 2:
                parts["ema1"].module.eval()
                with jt.no_grad():
                    sources = [
                        parts["ema1"].module(z, texts[0], e)[0] for z, e in zip(sources, noise[2:])
                    ]
            images = small if stage == 1 else real
            run.log(
                train_step(*trained, images, texts, sources, noise[:2], kl_weight=args.kl_weight)
            )
            parts[f"ema{stage}"].update()
            if run.every(args.sample_interval):
                watch.see_samples(save_rows(run.sample_path, parts, args)[stage - 1])
    write_results(run, parts, args)


def drawn(parts, texts, noise, args):
    """Numpy images of both stages, from N texts and (N, latent_dim + 2 * N_C) noise."""
    codes = common.in_chunks(parts["encoders"].text, encode(texts))
    z, e1, e2 = np.split(noise, [args.latent_dim, args.latent_dim + N_C], axis=1)
    small, *_ = common.in_chunks(parts["ema1"].module, z, codes, e1)
    return small, common.in_chunks(parts["ema2"].module, small, codes, e2)[0]


def save_rows(path, parts, args):
    """Saves, for each text, a row of stage I and one of stage II, of equal noise in a column; gives both as large."""
    noise = np.random.default_rng(args.seed).standard_normal(
        (N_COLUMNS, args.latent_dim + 2 * N_C), dtype=np.float32
    )
    small, large = drawn(
        parts, np.repeat(args.text, N_COLUMNS), np.tile(noise, (len(args.text), 1)), args
    )
    both = np.stack([small.repeat(args.scale, axis=2).repeat(args.scale, axis=3), large])
    rows = both.reshape(2, -1, N_COLUMNS, *large.shape[1:]).swapaxes(0, 1)
    common.save_image(rows.reshape(-1, *large.shape[1:]), path, nrow=N_COLUMNS)
    return both


def generate(run, args):
    parts = build(args)
    run.track(**parts)
    write_results(run, parts, args)


def write_results(run, parts, args):
    """result.png, and stage II's images of --n_samples with their captions."""
    if not run.is_main:
        return
    save_rows(run.out_dir / "result.png", parts, args)
    if args.n_samples:
        texts = np.resize(args.text, args.n_samples)
        noise = run.sample_rng.standard_normal(
            (args.n_samples, args.latent_dim + 2 * N_C), dtype=np.float32
        )
        run.save_samples(drawn(parts, texts, noise, args)[1], captions=texts)


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            small, large = (
                jt.zeros((1, args.channels, s, s))
                for s in (args.img_size // args.scale, args.img_size)
            )
            text, z, e = (jt.zeros((1, n)) for n in (args.text_dim, args.latent_dim, N_C))
            inputs = (z, text, e), (small, text, e), (small, text), (large, text)
            for name, examples in zip(
                NETWORKS[1:], inputs
            ):  # without the encoders, which are no part of the method
                common.describe(name, build(args)[name], *examples)
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
