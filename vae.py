"""VAE: a variational auto-encoder.

Kingma and Welling 2013, https://arxiv.org/abs/1312.6114

    python vae.py                              # digits, 2 minutes on two CPU cores
    python vae.py --latent_dim 2               # also draws the plane of the two latents
    python vae.py --paper --download           # the paper's setting, on full MNIST
    python vae.py --data_dir PHOTOS --img_size 64 --channels 3 --latent_dim 64
    python tools/log_likelihood.py results/vae

Method
    For each image x, an encoder gives a normal distribution of latent codes z,
    q(z|x) = N(mu, diag(sigma^2)). For each code, a decoder gives a distribution of
    images, p(x|z). With the prior p(z) = N(0, I), both are trained to raise a lower
    bound of log p(x), in nats. It is estimated from one z = mu + sigma * noise for each
    image, with noise ~ N(0, I) (equation 10):

        ELBO = log p(x|z) - KL(q(z|x) || p(z))
        KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)

    Both terms are summed, over pixels and over latents, and averaged over the batch.
    The weights have a prior N(0, I) too (the paper's MAP criterion), which is a weight
    decay of 1 / (number of images). --beta weights the KL term (Higgins 2017,
    https://openreview.net/forum?id=Sy2fzU9gl).

    The decoder gives a logit l for each pixel. With the logistic function s, p(x|z) is
    one of two (--likelihood):

    bernoulli, for grey digits
        A pixel is white with probability s(l). Training images are binarized: a grey
        value of 0.3 becomes white with probability 0.3, drawn again in every step
        (Salakhutdinov and Murray 2008, "On the Quantitative Analysis of Deep Belief
        Networks").
    gaussian, for photographs and colour
        A pixel is N(s(l), v) with the same v for all pixels. For each batch, v is set
        to its maximum-likelihood value, the mean squared error (Rybkin 2021,
        https://arxiv.org/abs/2006.13202), with a lower bound equal to the variance of
        rounding to 256 levels. The ELBO is then that of a density of pixels in [0, 1],
        and may be positive.

What to expect
    Digits can be read after 15 epochs. At the end the estimated log p(x) of test images
    is -101.9 nats, and -102.2 for the same training in PyTorch (docs/scripts/vae.md).
    `elbo` rises. A `kl` of 0 means that the code is not used. reconstructions.png shows
    test images beside their reconstructions, scatter.png shows their codes.

Differences from the paper (--paper undoes all of them)
    * both networks are convolutional, with ReLU, and start from Jittor's initial
      weights (--arch conv)
    * Adam instead of Adagrad (--optimizer), and batches of 128 images, not 100
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import batch_mean, holds_digits, load_images

import math
from statistics import NormalDist

import jittor as jt
import numpy as np

# jittor.nn on all CPU cores (`from jittor import nn` works too), and what Jittor lacks
from jittor_fast import Adagrad, nn

# Kingma 2013, section 5 and appendix C, for MNIST. The paper took the best of the
# learning rates 0.01, 0.02 and 0.1, and 3, 5, 10, 20 or 200 latents. Its figure 2 ends
# at 10^8 images, which are 1,667 epochs of 60,000.
PAPER = {
    "n_epochs": 1667,
    "batch_size": 100,
    "lr": 0.01,
    "optimizer": "adagrad",
    "img_size": 28,
    "channels": 1,
    "arch": "mlp",
    "hidden": 500,
    "latent_dim": 20,
    "likelihood": "bernoulli",
}
N_TEST = 500  # bundled digits that are kept for the test split
SMALLEST_VARIANCE = 1 / 255**2 / 12  # of rounding to 256 levels in [0, 1]


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=60, batch_size=128, lr=0.001)
    parser.add_adam(b1=0.9, b2=0.999)
    parser.add_sampling()
    add_network_flags(parser)

    # Training
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the KL term")
    parser.add_argument(
        "--optimizer",
        choices=("adam", "adagrad"),
        default="adam",
        help="optimizer of both networks",
    )
    parser.add_argument(
        "--lr_decay",
        type=float,
        default=1.0,
        above=0,
        at_most=1,
        help="factor of the learning rate after each epoch",
    )

    args = parser.parse(argv)
    if args.arch == "conv":
        parser.multiple_of(args, "img_size", 4, at_least=4)
    if args.likelihood is None:
        are_grey_digits = args.channels == 1 and holds_digits(args.data_dir)
        args.likelihood = "bernoulli" if are_grey_digits else "gaussian"
    return args


def add_network_flags(parser):
    """Adds the flags that are stored with the weights.

    --resume takes them from the checkpoint.
    """
    parser.add_architecture("--img_size", type=int, default=28, help="side of the images")
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture(
        "--arch",
        choices=("conv", "mlp"),
        default="conv",
        help="convolutions, or one hidden layer as in the paper",
    )
    parser.add_architecture("--latent_dim", type=int, default=20, help="length of z")
    parser.add_architecture(
        "--hidden", type=int, default=500, help="units of the hidden dense layer"
    )
    parser.add_architecture(
        "--likelihood",
        choices=("bernoulli", "gaussian"),
        help="p(x|z) of a pixel (default: bernoulli for grey digits, otherwise gaussian)",
    )


# ---- networks ----


class Encoder(nn.Module):
    """images (B, C, S, S) in [0, 1]  ->  mu, log sigma^2 of q(z|x), (B, latent_dim)."""

    def __init__(self, arch, latent_dim, hidden, img_size, channels):
        super().__init__()
        if arch == "mlp":
            layers = [  # (B, C, S, S) -> (B, hidden)
                nn.Flatten(),
                nn.Linear(channels * img_size**2, hidden),
                nn.Tanh(),
            ]
        else:
            layers = [
                nn.Conv(channels, 32, 4, stride=2, padding=1),  # -> (B, 32, S / 2, S / 2)
                nn.ReLU(),
                nn.Conv(32, 64, 4, stride=2, padding=1),  # -> (B, 64, S / 4, S / 4)
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(64 * (img_size // 4) ** 2, hidden),  # -> (B, hidden)
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.mu = nn.Linear(hidden, latent_dim)
        self.logvar = nn.Linear(hidden, latent_dim)

    def execute(self, x):
        h = self.layers(x)
        return self.mu(h), self.logvar(h)


class Decoder(nn.Module):
    """codes (B, latent_dim)  ->  logits (B, C, S, S)."""

    def __init__(self, arch, latent_dim, hidden, img_size, channels, likelihood):
        super().__init__()
        self.image = (channels, img_size, img_size)
        if arch == "mlp":
            self.between = (hidden,)
            self.dense = nn.Sequential(  # (B, latent_dim) -> (B, hidden)
                nn.Linear(latent_dim, hidden),
                nn.Tanh(),
            )
            self.output = nn.Linear(hidden, channels * img_size**2)  # -> (B, C S S)
        else:
            self.between = (64, img_size // 4, img_size // 4)
            self.dense = nn.Sequential(  # (B, latent_dim) -> (B, 64 S/4 S/4)
                nn.Linear(latent_dim, hidden),
                nn.ReLU(),
                nn.Linear(hidden, math.prod(self.between)),
                nn.ReLU(),
            )
            self.output = nn.Sequential(
                nn.ConvTranspose(64, 32, 4, stride=2, padding=1),  # -> (B, 32, S / 2, S / 2)
                nn.ReLU(),
                nn.ConvTranspose(32, channels, 4, stride=2, padding=1),  # -> (B, C, S, S)
            )
        if likelihood == "gaussian":
            # The running mean of the batches' v, which only tools/log_likelihood.py
            # reads: it needs one v for all test images.
            self.running_var = jt.ones(1).stop_grad()

    def execute(self, z):
        features = self.dense(z).reshape(-1, *self.between)
        return self.output(features).reshape(-1, *self.image)


def initialize(network):
    """Weights and biases from N(0, 0.01^2).

    This is how https://github.com/y0ast/Variational-Autoencoder reads section 5.
    """
    for parameter in network.parameters():
        if not parameter.is_stop_grad():
            nn.init.gauss_(parameter, mean=0, std=0.01)


def build(args):
    shape = (args.arch, args.latent_dim, args.hidden, args.img_size, args.channels)
    encoder = Encoder(*shape)
    decoder = Decoder(*shape, args.likelihood)
    if args.arch == "mlp":
        initialize(encoder)
        initialize(decoder)
    return encoder, decoder


# ---- the bound and one training step ----


def log_likelihood(logits, x, likelihood, variance=None):
    """log p(x|z) of each image in nats, (B,).

    Args:
        logits: of the decoder, (B, C, S, S).
        x: images (B, C, S, S) in [0, 1].
        likelihood: "bernoulli" or "gaussian".
        variance: v (1,), for gaussian only.
    """
    common.check_same_shape(logits, x)
    if likelihood == "bernoulli":
        # log s(l) for a white pixel, log(1 - s(l)) for a black one: x l - log(1 + e^l),
        # in the form that cannot overflow
        pixels = x * logits - jt.maximum(logits, 0) - jt.log(1 + jt.exp(-jt.abs(logits)))
    else:
        squares = (x - jt.sigmoid(logits)) ** 2
        pixels = -0.5 * (squares / variance + jt.log(2 * math.pi * variance))
    return pixels.reshape(len(x), -1).sum(1)


def best_variance(logits, x):
    """The v (1,) that maximizes a batch's likelihood: its mean squared error.

    The likelihood's derivative with respect to v is 0 there, so v can be treated as a
    constant in the ELBO.
    """
    mean_square = ((x - jt.sigmoid(logits)) ** 2).mean()
    return jt.maximum(batch_mean(mean_square), SMALLEST_VARIANCE)


def kl_divergence(mu, logvar):
    """KL(N(mu, sigma^2) || N(0, I)) of each image in nats, (B,)."""
    common.check_same_shape(mu, logvar)
    return 0.5 * (mu**2 + jt.exp(logvar) - 1 - logvar).sum(1)


def train_step(encoder, decoder, optimizer, x, noise, *, beta, likelihood):
    """Updates both networks.

    Args:
        x: images (B, C, S, S) in [0, 1], binary for bernoulli.
        noise: (B, latent_dim) from N(0, 1).
        beta: weight of the KL term.
        likelihood: "bernoulli" or "gaussian".

    Returns:
        {"reconstruction", "kl", "elbo"} in nats as Jittor scalars; `reconstruction` is
        log p(x|z).
    """
    # encoder: one code for each image, from q(z|x)
    mu, logvar = encoder(x)
    z = mu + jt.exp(0.5 * logvar) * noise

    # decoder: the likelihood of each image, given its code
    logits = decoder(z)
    variance = None
    if likelihood == "gaussian":
        variance = best_variance(logits, x)
        # for tools/log_likelihood.py; the training itself never reads it
        decoder.running_var.update(0.9 * decoder.running_var + 0.1 * variance)
    reconstruction = log_likelihood(logits, x, likelihood, variance).mean()

    # both: the bound is raised, so its negative is the loss
    kl = kl_divergence(mu, logvar).mean()
    loss = beta * kl - reconstruction
    optimizer.step(loss)  # Jittor: computes the gradients of both networks, and updates
    return {"reconstruction": reconstruction, "kl": kl, "elbo": reconstruction - kl}


# ---- training ----


def test_data(args):
    return load_images(args.data_dir, args.img_size, args.channels, split="test", n_test=N_TEST)


def build_optimizer(encoder, decoder, n_images, args):
    parameters = [*encoder.parameters(), *decoder.parameters()]
    # The prior's gradient, that of -log N(0, I), is the weight itself. The ELBO is that
    # of one image, so the prior of all images is divided by their number.
    decay = 1 / n_images
    if args.optimizer == "adam":
        betas = (args.b1, args.b2)
        return nn.Adam(parameters, lr=args.lr, betas=betas, weight_decay=decay)
    return Adagrad(parameters, lr=args.lr, weight_decay=decay)


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels, n_test=N_TEST)
    test = test_data(args)
    encoder, decoder = build(args)
    optimizer = build_optimizer(encoder, decoder, len(data), args)

    # what checkpoint_last.npz holds
    run.checkpoint(encoder=encoder, decoder=decoder, optimizer=optimizer)
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    for epoch in run.epochs():  # saves a checkpoint at --checkpoint_interval
        optimizer.lr = args.lr * args.lr_decay ** (epoch - 1)
        for images, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            x = (images + 1) / 2
            if args.likelihood == "bernoulli":  # white with the grey value's probability
                x = (run.uniform(args.batch_size, *x.shape[1:]) < x).float32()
            noise = run.normal(args.batch_size, args.latent_dim)
            losses = train_step(
                encoder, decoder, optimizer, x, noise, beta=args.beta, likelihood=args.likelihood
            )
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(decode(decoder, fixed_z))
    write_reconstructions(run, encoder, decoder, test)
    write_samples(run, decoder, args)


# ---- reconstructions and samples ----


def encode(encoder, images):
    """Images (N, C, S, S) in [-1, 1]  ->  the mu of their codes; both numpy."""
    mu, _ = common.predict(encoder, (images + 1) / 2)
    return mu


def decode(decoder, z):
    """codes (N, latent_dim)  ->  means of p(x|z), images (N, C, S, S) in [-1, 1].

    Both are numpy arrays.
    """

    def means(z):
        return 2 * jt.sigmoid(decoder(z)) - 1

    return common.predict(means, z)


def write_reconstructions(run, encoder, decoder, test):
    """Writes reconstructions.png and scatter.png, of up to 1,000 test images.

    The first shows 50 images, each beside the image that is decoded from its mu; the
    second shows mu of all.
    """
    images, *labels = test.batch(np.arange(min(len(test), 1000)))
    mu = encode(encoder, images)
    pairs = np.stack([images[:50], decode(decoder, mu[:50])], axis=1)
    run.save_grid(pairs.reshape(-1, *images.shape[1:]), to="reconstructions.png")
    run.save_scatter(mu, labels[0] if labels else None, to="scatter.png")


def write_samples(run, decoder, args):
    """Writes result.png, and what the flags ask for.

    These are plane.png with two latents (figure 4 of the paper), and samples.npz with
    --n_samples.
    """
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(decode(decoder, fixed_z), to="result.png")
    if args.latent_dim == 2:
        run.save_grid(decode(decoder, plane(side=20)), to="plane.png", nrow=20, padding=0)
    if args.n_samples:
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(decode(decoder, z))


def plane(side):
    """A square of codes (side^2, 2) at equal quantiles of the normal distribution.

    z1 grows to the right, z2 upwards.
    """
    quantiles = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    quantiles = np.float32(quantiles)
    z1 = np.tile(quantiles, side)
    z2 = np.repeat(quantiles[::-1], side)
    return np.stack([z1, z2], axis=1)


def generate(run, args):
    """Draws samples from a checkpoint."""
    _, decoder = build(args)
    run.checkpoint(decoder=decoder)
    run.restore()
    write_samples(run, decoder, args)


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
