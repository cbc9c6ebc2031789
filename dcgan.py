"""DCGAN: a GAN made of convolutions.

Radford, Metz and Chintala 2015, https://arxiv.org/abs/1511.06434

    python dcgan.py                             # digits, 7 minutes on two CPU cores
    python dcgan.py --paper --data_dir PHOTOS   # the paper's setting, own images
    python dcgan.py --resume results/dcgan --sample_only --n_samples 100
    python tools/explore.py results/dcgan --walk interpolate

Method
    A generator G turns noise z into an image. A discriminator D gives an image x a
    logit D(x), which is high where D takes x for real. Both are trained in turn, each
    on fresh noise (Goodfellow 2014, https://arxiv.org/abs/1406.2661, algorithm 1, with
    the non-saturating L_G of its section 3); s is the sigmoid:

        L_D = -E[log s(D(x))] - E[log(1 - s(D(G(z))))]    D separates real and fake
        L_G = -E[log s(D(G(z)))]                          G makes D take fake for real

    G and D consist of convolutions, with batch norm everywhere except at G's output and
    D's input, ReLU in G, leaky ReLU in D, and tanh at G's output (section 3).

What to expect
    Digits appear after 5 epochs. At the end the FID in a digit classifier's features is
    1.03, and 1.06 for the same training in PyTorch (docs/scripts/dcgan.md). A loss_D
    near 1.39 = 2 log 2 means that D guesses; near 0, that D has won and G no longer
    learns.

Differences from the paper (--paper undoes all of them)
    * 32 x 32 pixels, a quarter of the width and of the batch, three times the learning
      rate, since a default run has few updates
    * Gaussian noise is added to every image that D sees (--instance_noise, Sonderby
      2016, https://arxiv.org/abs/1610.04490). Without it, D quickly memorizes a small
      data set and G gets no useful gradient.
    * z is normal, not uniform (--noise): a walk between two points can follow the
      sphere
    * samples are drawn from averaged weights (--ema_decay)

With --paper too, kernels are 4 x 4 and there is no weight decay, as in
github.com/soumith/dcgan.torch. The authors' code has 5 x 5 and a decay of 1e-5.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Radford 2015, section 4. Width and epochs are those of the authors' code
# (github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py).
PAPER = {
    "n_epochs": 25,
    "batch_size": 128,
    "lr": 0.0002,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 64,
    "channels": 3,
    "width": 128,
    "latent_dim": 100,
    "noise": "uniform",
    "instance_noise": 0.0,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=60, batch_size=32, lr=0.0006)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--width", type=int, default=32, at_most=1024, help="channels next to the image"
    )
    parser.add_architecture(
        "--noise", choices=("normal", "uniform"), default="normal", help="N(0, 1), or [-1, 1]"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.999, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--instance_noise", type=float, default=0.5, help="standard deviation of D's input noise"
    )
    return parser.parse(argv)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
        c = width * 2**n_blocks

        layers = [  # (B, latent_dim, 1, 1) -> (B, c, 4, 4)
            nn.ConvTranspose(latent_dim, c, 4, bias=False),
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
        layers += [  # (B, width, img_size / 2, ...) -> (B, channels, img_size, img_size)
            nn.ConvTranspose(c, channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(z.reshape(len(z), -1, 1, 1))


class Discriminator(nn.Module):
    """images (B, channels, img_size, img_size)  ->  logits (B,), high for real ones."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size / 2, ...)
            nn.Conv(channels, c, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [nn.Conv(c, 1, 4, bias=False)]  # (B, c, 4, 4) -> (B, 1, 1, 1)
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def initialize(network):
    """Convolutions from N(0, 0.02^2), batch norm from N(1, 0.02^2) (section 4)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width)
    discriminator = Discriminator(args.img_size, args.channels, args.width)
    for network in (generator, discriminator):
        initialize(network)
        network.train()
    return generator, discriminator


# ---- losses and one training step ----


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B,).

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """L_G of logits (B,)."""
    return nn.softplus(-fake_logits).mean()


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, *, blur):
    """Updates D, then G.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) of the two updates.
        blur: a function that adds instance noise to the images that D sees.

    Returns:
        {"loss_D", "loss_G"} as Jittor scalars.
    """
    # D: real images against generated ones
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z_D)
    loss_D = discriminator_loss(discriminator(blur(real)), discriminator(blur(fake)))
    optimizer_D.step(loss_D)  # Jittor: computes the gradients of D's parameters, and updates

    # G: new images, which D should take for real
    fake = generator(z_G)
    loss_G = generator_loss(discriminator(blur(fake)))
    optimizer_G.step(loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G}


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, discriminator = build(args)
    averaged = common.EMA(generator, args.ema_decay)  # samples are drawn from its weights
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    def blur(images):  # instance noise, drawn again for each batch that D sees
        if args.instance_noise == 0:
            return images
        return images + args.instance_noise * run.normal(args.batch_size, *images.shape[1:])

    fixed_z = run.fixed_noise(args.noise, 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            z_D = run.noise(args.noise, args.batch_size, args.latent_dim)
            z_G = run.noise(args.noise, args.batch_size, args.latent_dim)
            losses = train_step(
                generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, blur=blur
            )
            averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise(args.noise, 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise(args.noise, args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    run.checkpoint(generator=generator, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, args)


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
