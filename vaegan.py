"""VAE/GAN: a variational auto-encoder that compares images by what D sees in them.

Larsen, Sonderby, Larochelle and Winther 2016, https://arxiv.org/abs/1512.09300

    python vaegan.py                              # drawn faces, 6 minutes on two cores
    python vaegan.py --data_dir digits --channels 1
    python vaegan.py --paper --data_dir CELEBA    # the authors' setting
    python vaegan.py --resume results/vaegan --sample_only --n_samples 100
    python tools/explore.py results/vaegan --walk attributes

Method
    As in a VAE (vae.py), an encoder gives each image x a normal distribution
    q(z|x) = N(mean, deviation^2) of codes, and a decoder turns a code into an image.
    But a squared error of pixels punishes a sharp detail in the wrong place more than
    none at all. Here a discriminator D is trained to distinguish images x from
    reconstructions x~ of z ~ q(z|x), and from images x_p of codes z_p ~ N(0, I); and
    the error is that of its features D_l, the output of its layer l (equations 5 to
    8). With D's logits and the sigmoid s:

        L_prior = KL(q(z|x) || N(0, I))
        L_llike = E[1/2 |D_l(x) - D_l(x~)|^2]             summed over the features
        L_real  = -E[log s(D(x))]
        L_fake  = -1/2 E[log(1 - s(D(x~)))] - 1/2 E[log(1 - s(D(x_p)))]

    Each network has its own loss (algorithm 1; the weights are the authors' code's):

        encoder          L_prior + L_llike
        decoder          gamma L_llike + (1 - gamma) 2 L_fool
        discriminator    0.66 L_real + 0.34 L_fake

    with L_fool = -L_fake in the paper (--objective original). An image that D sees
    through entirely has no gradient then, and the decoder is never told what is wrong
    with it. So L_fool is L_fake with -log s(D) for log(1 - s(D)) here, as in most GANs.

    So the GAN's gradients do not reach the encoder, and the discriminator is not
    trained to make reconstructions look equal. All are updated at once, from the same
    images. Where the discriminator is far ahead, L_real or L_fake is below 0.68 - 0.35,
    and it is not updated; where one of them is above 0.68 + 0.35, the decoder is not.

What to expect
    Pictures show ten test images, their reconstructions, and images of random codes.
    Near log 2 = 0.69 for L_real and L_fake, D guesses.

Differences from the authors' code (--paper undoes the first two)
    * 32 x 32 pixels, a quarter of the width, a larger gamma for that, fewer updates
    * L_fool, see above: with the paper's, half of the random images stay noise
    * always: one pass of the decoder and of the discriminator for all images of a step,
      so that batch norm sees them together; the code has separate passes for L_llike
    * always: the learning rate is 0.0003 throughout, and there is no weight decay. The
      code begins at 0.02 / 64 = 0.00031, and has a decay of 0.00001.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import batch_mean, load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The authors' code (github.com/andersbll/autoencoding_beyond_pixels, celeba_aegan.py,
# aegan.py, architectures.py): 150 epochs of 250 batches.
PAPER = {
    "n_images": 150 * 250 * 64,
    "batch_size": 64,
    "lr": 0.0003,
    "img_size": 64,
    "channels": 3,
    "width": 64,
    "latent_dim": 128,
    "gamma": 1e-5,
    "objective": "original",
}
REAL_WEIGHT = 0.66  # of L_real; L_fake has the rest
EQUILIBRIUM = 0.68
MARGIN = 0.35
N_TEST = 500  # bundled digits that are kept for tests
N_SHOWN = 10  # test images in a picture


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=30, batch_size=32, lr=0.0003, data_dir="faces")
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=3, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=64, help="length of z")
    parser.add_architecture(
        "--width",
        type=int,
        default=16,
        at_least=2,
        at_most=512,
        help="channels of the encoder's first layer",
    )

    # Training
    parser.add_argument(
        "--gamma",
        type=float,
        default=1e-3,
        at_most=1,
        help="weight of the reconstruction in the decoder's loss",
    )
    parser.add_argument(
        "--objective",
        choices=("original", "modified"),
        default="modified",
        help="the decoder minimizes log(1 - D), or -log D",
    )
    return parser.parse(argv)


# ---- networks ----


def halving_block(c_in, c_out):
    """Layers (B, c_in, H, W)  ->  (B, c_out, H / 2, W / 2)."""
    return [
        nn.Conv(c_in, c_out, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm(c_out),
        nn.ReLU(),
    ]


def doubling_block(c_in, c_out):
    """Layers (B, c_in, H, W)  ->  (B, c_out, 2 H, 2 W)."""
    return [
        nn.ConvTranspose(c_in, c_out, 5, stride=2, padding=2, output_padding=1, bias=False),
        nn.BatchNorm(c_out),
        nn.ReLU(),
    ]


class Encoder(nn.Module):
    """images (B, channels, S, S)  ->  mean, log variance of q(z|x), (B, latent_dim)."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        layers = halving_block(channels, width)  # -> (B, width, S / 2, S / 2)
        layers += halving_block(width, 2 * width)
        layers += halving_block(2 * width, 4 * width)  # -> (B, 4 width, S / 8, S / 8)
        layers += [  # -> (B, 16 width)
            nn.Flatten(),
            nn.Linear(4 * width * (img_size // 8) ** 2, 16 * width, bias=False),
            nn.BatchNorm(16 * width),
            nn.ReLU(),
        ]
        self.layers = nn.Sequential(*layers)
        self.mean = nn.Linear(16 * width, latent_dim)
        self.log_variance = nn.Linear(16 * width, latent_dim)

    def execute(self, images):
        h = self.layers(images)
        return self.mean(h), self.log_variance(h)


class Decoder(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        self.shape = (4 * width, img_size // 8, img_size // 8)
        n_features = math.prod(self.shape)
        self.dense = nn.Sequential(  # (B, latent_dim) -> (B, 4 width S/8 S/8)
            nn.Linear(latent_dim, n_features, bias=False),
            nn.BatchNorm(n_features),
            nn.ReLU(),
        )
        layers = doubling_block(4 * width, 4 * width)  # -> (B, 4 width, S / 4, S / 4)
        layers += doubling_block(4 * width, 2 * width)
        layers += doubling_block(2 * width, width // 2)  # -> (B, width / 2, S, S)
        layers += [
            nn.Conv(width // 2, channels, 5, padding=2),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(self.dense(z).reshape(-1, *self.shape))


class Discriminator(nn.Module):
    """images (B, channels, S, S)  ->  logits (B,), high for real, and features.

    The features (B, 4 width, S / 8, S / 8) are D_l: those of the last convolution,
    before its norm.
    """

    def __init__(self, img_size, channels, width):
        super().__init__()
        layers = [
            nn.Conv(channels, width // 2, 5, padding=2),  # -> (B, width / 2, S, S)
            nn.ReLU(),
        ]
        layers += halving_block(width // 2, 2 * width)
        layers += halving_block(2 * width, 4 * width)  # -> (B, 4 width, S / 4, S / 4)
        layers += [nn.Conv(4 * width, 4 * width, 5, stride=2, padding=2, bias=False)]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Sequential(  # (B, 4 width, S / 8, S / 8) -> (B, 1)
            nn.BatchNorm(4 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * width * (img_size // 8) ** 2, 8 * width, bias=False),
            nn.BatchNorm(8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, 1),
        )

    def execute(self, images):
        features = self.features(images)
        return self.logits(features).reshape(-1), features


def build(args):
    sizes = (args.img_size, args.channels, args.width)
    encoder = Encoder(args.latent_dim, *sizes)
    decoder = Decoder(args.latent_dim, *sizes)
    discriminator = Discriminator(*sizes)
    for network in (encoder, decoder, discriminator):
        network.train()
    return encoder, decoder, discriminator


# ---- losses and one training step ----


def prior_loss(mean, log_variance):
    """L_prior of (B, latent_dim): summed over a code, averaged over the batch."""
    common.check_same_shape(mean, log_variance)
    return 0.5 * (mean**2 + jt.exp(log_variance) - 1 - log_variance).sum(1).mean()


def likelihood_loss(features, reconstructed):
    """L_llike of features (B, C, H, W), without the constant of a normal density."""
    common.check_same_shape(features, reconstructed)
    return 0.5 * ((features - reconstructed) ** 2).sum((1, 2, 3)).mean()


def gan_losses(logits, n_real):
    """L_real and L_fake of logits (3 B,), of which the first n_real = B are of images.

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    return nn.softplus(-logits[:n_real]).mean(), nn.softplus(logits[n_real:]).mean()


def fooling_loss(fake_logits, objective):
    """L_fool of logits (2 B,), by which the decoder gets D's gradients.

    Args:
        objective: "original" for E[log(1 - D)], "modified" for -E[log D].
    """
    if objective == "original":
        return -nn.softplus(fake_logits).mean()
    return nn.softplus(-fake_logits).mean()


def who_is_updated(loss_real, loss_fake):
    """Whether the decoder and the discriminator are updated (two bools).

    Args:
        loss_real, loss_fake: numbers, which are log 2 where D only guesses.
    """
    lower = min(loss_real, loss_fake)
    higher = max(loss_real, loss_fake)
    discriminator = lower >= EQUILIBRIUM - MARGIN
    decoder = higher <= EQUILIBRIUM + MARGIN
    if not (decoder or discriminator):
        return True, True
    return decoder, discriminator


def train_step(networks, optimizers, real, noise, z_p, *, gamma, objective):
    """Updates the encoder, and decoder and discriminator where it is their turn.

    Args:
        networks, optimizers: of the encoder, the decoder and the discriminator.
        real: images (B, C, H, W) in [-1, 1].
        noise: (B, latent_dim) from N(0, 1), from which z is drawn.
        z_p: codes (B, latent_dim) from N(0, 1).
        gamma: weight of the reconstruction in the decoder's loss.
        objective: that of the decoder; see `fooling_loss`.

    Returns:
        {"loss_prior", "loss_llike", "loss_real", "loss_fake"} as Jittor scalars.
    """
    encoder, decoder, discriminator = networks
    optimizer_E, optimizer_dec, optimizer_D = optimizers
    n = len(real)

    mean, log_variance = encoder(real)
    z = mean + jt.exp(0.5 * log_variance) * noise
    fake = decoder(jt.concat([z, z_p], dim=0))  # reconstructions, then samples
    logits, features = discriminator(jt.concat([real, fake], dim=0))

    loss_prior = prior_loss(mean, log_variance)
    loss_llike = likelihood_loss(features[:n], features[n : 2 * n])
    loss_real, loss_fake = gan_losses(logits, n)
    decoder_moves, discriminator_moves = who_is_updated(
        batch_mean(loss_real).item(), batch_mean(loss_fake).item()
    )

    # All gradients are those of the same pass: an update does not change its graph.
    optimizer_E.step(loss_prior + loss_llike, retain_graph=True)
    if decoder_moves:
        loss_fool = fooling_loss(logits[n:], objective)
        loss = gamma * loss_llike + (1 - gamma) * 2 * loss_fool
        optimizer_dec.step(loss, retain_graph=True)
    if discriminator_moves:
        optimizer_D.step(REAL_WEIGHT * loss_real + (1 - REAL_WEIGHT) * loss_fake)
    return {
        "loss_prior": loss_prior,
        "loss_llike": loss_llike,
        "loss_real": loss_real,
        "loss_fake": loss_fake,
    }


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, n_test=N_TEST)
    shown = test_images(args)
    networks = build(args)
    encoder, decoder, discriminator = networks
    optimizers = []
    for network in networks:
        optimizers.append(nn.RMSprop(network.parameters(), lr=args.lr, alpha=0.9))
    optimizer_E, optimizer_dec, optimizer_D = optimizers

    run.checkpoint(  # what checkpoint_last.npz holds
        encoder=encoder,
        decoder=decoder,
        discriminator=discriminator,
        optimizer_E=optimizer_E,
        optimizer_dec=optimizer_dec,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits or faces also has labels (*_), which are not used.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            noise = run.normal(args.batch_size, args.latent_dim)
            z_p = run.normal(args.batch_size, args.latent_dim)
            losses = train_step(
                networks,
                optimizers,
                real,
                noise,
                z_p,
                gamma=args.gamma,
                objective=args.objective,
            )
            run.log(losses)
            if run.every(args.sample_interval):
                save_picture(run, encoder, decoder, shown, args)
    write_samples(run, encoder, decoder, shown, args)


# ---- samples ----


def encode(encoder, images):
    """Images (N, C, S, S) in [-1, 1]  ->  the means of their codes; both numpy."""
    means, _ = common.predict(encoder, images)
    return means


def decode(decoder, z):
    """codes (N, latent_dim)  ->  images (N, C, S, S) in [-1, 1]; both numpy."""
    return common.predict(decoder, z)


def test_images(args):
    """The first N_SHOWN images (N, C, S, S) of the test split, numpy."""
    data = load_images(args.data_dir, args.img_size, args.channels, split="test", n_test=N_TEST)
    images, *_ = data.batch(np.arange(min(N_SHOWN, len(data))))
    return images


def save_picture(run, encoder, decoder, shown, args, to=None):
    """Saves test images, their reconstructions, and images of random codes.

    Args:
        shown: the test images (N, C, S, S).
        to: a file name in the output folder (default: that of the step's samples).
    """
    reconstructed = decode(decoder, encode(encoder, shown))
    samples = decode(decoder, run.fixed_noise("normal", 5 * len(shown), args.latent_dim))
    images = np.concatenate([shown, reconstructed, samples])
    run.save_grid(images, to=to, nrow=len(shown), watched=samples)


def write_samples(run, encoder, decoder, shown, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    save_picture(run, encoder, decoder, shown, args, to="result.png")
    write_asked(run, decoder, args)


def write_asked(run, decoder, args):
    """Writes samples.npz if --n_samples asks for it."""
    if args.n_samples:
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(decode(decoder, z))


def generate(run, args):
    """Draws samples from a checkpoint; reconstructions would need the data."""
    _, decoder, _ = build(args)
    run.checkpoint(decoder=decoder)
    run.restore()
    z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(decode(decoder, z), to="result.png")
    write_asked(run, decoder, args)


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
