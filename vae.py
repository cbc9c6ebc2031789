"""VAE: a variational auto-encoder (Kingma and Welling 2013, https://arxiv.org/abs/1312.6114).

    python vae.py
    python vae.py --latent_dim 2
    python vae.py --paper --download
    python vae.py --data_dir PHOTOS --img_size 64 --channels 3 --latent_dim 64
    python tools/log_likelihood.py results/vae

An encoder gives a normal distribution q(z|x) = N(mu, diag(sigma^2)) for each image x, a decoder a distribution
p(x|z). With the prior p(z) = N(0, I) both are trained to raise a lower bound of log p(x), in nats, estimated from one
z = mu + sigma * noise for each image (equation 10 of the paper):

    ELBO = log p(x|z) - KL(q(z|x) || p(z)),    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)

Both terms are summed, over pixels and over latents, and averaged over the batch. The weights have a prior N(0, I) too
(the paper's MAP criterion): a weight decay of 1 / (number of images). --beta weighs the KL term (Higgins 2017,
https://openreview.net/forum?id=Sy2fzU9gl).

The decoder gives a logit l for each pixel; with the logistic function s, --likelihood is one of
  * bernoulli, for grey digits: a pixel is white with probability s(l). One of grey 0.3 is made white with probability
    0.3, anew at every step (Salakhutdinov and Murray 2008, "On the Quantitative Analysis of Deep Belief Networks").
  * gaussian, for photographs and colour: N(s(l), v), with one v for all pixels. A batch takes the v under which it is
    likeliest, its mean squared error (Rybkin 2021, https://arxiv.org/abs/2006.13202), but not less than the rounding to
    256 values brings. The ELBO is then of a density of pixels in [0, 1], and may be positive.

A default run takes two minutes on two CPU cores; digits can be read after 15 epochs. It departs from the paper, which
--paper undoes:
  * both networks are convolutional, with ReLU, and start from Jittor's initial weights (--arch conv);
  * Adam in the place of Adagrad (--optimizer).
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import holds_digits, load_images
from common.pictures import save_scatter

import math
from statistics import NormalDist

import jittor as jt
import numpy as np

from jittor_fast import nn

# Kingma 2013, section 5 and appendix C, for MNIST. It took the best of the rates 0.01, 0.02 and 0.1, and 3, 5, 10, 20
# or 200 latents. Its figure 2 ends at 10^8 images: so many epochs of 60,000.
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
N_TEST = 500  # bundled digits kept for the test part
SMALLEST_VARIANCE = 1 / 255**2 / 12  # of rounding to 256 values in [0, 1]


def parse_args(argv=None):
    architecture = ("arch", "latent_dim", "hidden", "img_size", "channels", "likelihood")
    parser = common.Parser("vae", __doc__, PAPER, architecture)
    parser.set_defaults(
        n_epochs=60, batch_size=128, lr=0.001, b1=0.9, b2=0.999, img_size=28, channels=1
    )
    parser.set_defaults(sample_interval=500, checkpoint_interval=5, log_interval=50)
    add, number = parser.add_argument, common.number
    add(
        "--arch",
        choices=("conv", "mlp"),
        default="conv",
        help="convolutions, or one hidden layer as in the paper",
    )
    add(
        "--latent_dim",
        type=number(int, at_least=1, at_most=4096),
        default=20,
        help="length of the code z",
    )
    add(
        "--hidden",
        type=number(int, at_least=1, at_most=4096),
        default=500,
        help="units of the hidden dense layer",
    )
    add(
        "--likelihood",
        choices=("bernoulli", "gaussian"),
        help="of a pixel; by the kind of data, unless given",
    )
    add("--beta", type=number(float, at_least=0), default=1.0, help="weight of the KL term")
    add("--optimizer", choices=("adam", "adagrad"), default="adam", help="what updates the weights")
    add(
        "--lr_decay",
        type=number(float, above=0, at_most=1),
        default=1.0,
        help="factor of the rate for each epoch",
    )
    args = parser.parse(argv)
    if args.arch == "conv":
        parser.multiple_of(args, "img_size", 4, at_least=4)
    if args.likelihood is None:
        grey_digits = args.channels == 1 and holds_digits(args.data_dir)
        args.likelihood = args.stored["likelihood"] = "bernoulli" if grey_digits else "gaussian"
    return args


# ---- networks ----


class Encoder(nn.Module):
    """(B, C, S, S) images in [0, 1] to mu and log sigma^2 of q(z|x), (B, latent_dim) each."""

    def __init__(self, arch, latent_dim, hidden, img_size, channels):
        super().__init__()
        if arch == "mlp":
            layers = [nn.Flatten(), nn.Linear(channels * img_size**2, hidden), nn.Tanh()]
        else:
            layers = [nn.Conv(channels, 32, 4, stride=2, padding=1), nn.ReLU()]  # (B, 32, S/2, S/2)
            layers += [nn.Conv(32, 64, 4, stride=2, padding=1), nn.ReLU()]  # (B, 64, S/4, S/4)
            layers += [nn.Flatten(), nn.Linear(64 * (img_size // 4) ** 2, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.mu, self.logvar = nn.Linear(hidden, latent_dim), nn.Linear(hidden, latent_dim)

    def execute(self, x):
        h = self.layers(x)
        return self.mu(h), self.logvar(h)


class Decoder(nn.Module):
    """(B, latent_dim) codes to (B, C, S, S) logits; `running_var` (1,) is the running mean of the batches' v."""

    def __init__(self, arch, latent_dim, hidden, img_size, channels, likelihood):
        super().__init__()
        self.image = (channels, img_size, img_size)
        if arch == "mlp":
            self.between = (hidden,)
            self.dense = nn.Sequential(nn.Linear(latent_dim, hidden), nn.Tanh())
            self.output = nn.Linear(hidden, channels * img_size**2)
        else:
            self.between = (64, img_size // 4, img_size // 4)
            layers = [nn.Linear(latent_dim, hidden), nn.ReLU()]
            self.dense = nn.Sequential(
                *layers, nn.Linear(hidden, math.prod(self.between)), nn.ReLU()
            )
            layers = [
                nn.ConvTranspose(64, 32, 4, stride=2, padding=1),
                nn.ReLU(),
            ]  # (B, 32, S/2, S/2)
            self.output = nn.Sequential(
                *layers, nn.ConvTranspose(32, channels, 4, stride=2, padding=1)
            )
        if likelihood == "gaussian":
            self.running_var = jt.ones(1).stop_grad()

    def execute(self, z):
        return self.output(self.dense(z).reshape(-1, *self.between)).reshape(-1, *self.image)


def initialize(module):
    """Weights and biases from N(0, 0.01^2), as https://github.com/y0ast/Variational-Autoencoder reads section 5."""
    for parameter in module.parameters():
        if not parameter.is_stop_grad():
            nn.init.gauss_(parameter, mean=0, std=0.01)


def build(args):
    """The encoder and the decoder of these arguments."""
    shape = (args.arch, args.latent_dim, args.hidden, args.img_size, args.channels)
    encoder, decoder = Encoder(*shape), Decoder(*shape, args.likelihood)
    if args.arch == "mlp":
        initialize(encoder)
        initialize(decoder)
    return encoder, decoder


# ---- the bound and the step ----


def log_likelihood(logits, x, likelihood, variance=None):
    """(B,) log p(x|z) in nats of (B, C, S, S) images in [0, 1], from the decoder's logits and v (for gaussian)."""
    if logits.shape != x.shape:
        raise ValueError(f"logits {logits.shape} and images {x.shape} differ in shape")
    if likelihood == "bernoulli":
        # log s(l) for white, log(1 - s(l)) for black: x l - log(1 + e^l), in the form that cannot overflow
        pixels = x * logits - jt.maximum(logits, 0) - jt.log(1 + jt.exp(-jt.abs(logits)))
    else:
        pixels = -0.5 * ((x - jt.sigmoid(logits)) ** 2 / variance + jt.log(2 * math.pi * variance))
    return pixels.reshape(x.shape[0], -1).sum(1)


def best_variance(logits, x):
    """(1,) the variance under which a batch has the greatest likelihood: its mean squared error.

    There the likelihood's derivative by the variance is 0, so that it may stand as a constant in the ELBO.
    """
    return jt.maximum(common.batch_mean(((x - jt.sigmoid(logits)) ** 2).mean()), SMALLEST_VARIANCE)


def kl_divergence(mu, logvar):
    """(B,) KL(N(mu, sigma^2) || N(0, I)) in nats, summed over the latents."""
    return 0.5 * (mu**2 + jt.exp(logvar) - 1 - logvar).sum(1)


def train_step(encoder, decoder, optimizer, x, noise, beta, likelihood):
    """One update of both networks.

    Args:
        x: (B, C, S, S) images in [0, 1].
        noise: (B, latent_dim) from N(0, 1).

    Returns:
        {"reconstruction", "kl", "elbo"} in nats as Jittor scalars; the first is log p(x|z).
    """
    mu, logvar = encoder(x)
    logits = decoder(mu + jt.exp(0.5 * logvar) * noise)
    variance = None
    if likelihood == "gaussian":
        variance = best_variance(logits, x)
        decoder.running_var.update(0.9 * decoder.running_var + 0.1 * variance)
    reconstruction = log_likelihood(logits, x, likelihood, variance).mean()
    kl = kl_divergence(mu, logvar).mean()
    optimizer.step(beta * kl - reconstruction)
    return {"reconstruction": reconstruction, "kl": kl, "elbo": reconstruction - kl}


# ---- training, reconstructions and samples ----


def latent(run, n, args):
    """(n, latent_dim) numpy codes from the prior."""
    return run.sample_rng.standard_normal((n, args.latent_dim), dtype=np.float32)


def drawn_by(decoder):
    """A function of (N, latent_dim) codes that gives the means of p(x|z), (N, C, S, S) in [-1, 1], both numpy."""
    return lambda z: common.in_chunks(lambda z: 2 * jt.sigmoid(decoder(z)) - 1, z)


def test_data(args):
    return load_images(
        args.data_dir, args.img_size, args.channels, args.download, split="test", n_test=N_TEST
    )


def train(run, args):
    data, test = (
        load_images(args.data_dir, args.img_size, args.channels, args.download, n_test=N_TEST),
        test_data(args),
    )
    batches = common.Batches(data, args.batch_size, args.seed)
    encoder, decoder = build(args)
    parameters, decay = [*encoder.parameters(), *decoder.parameters()], 1 / len(data)
    if args.optimizer == "adam":
        optimizer = nn.Adam(parameters, lr=args.lr, betas=(args.b1, args.b2), weight_decay=decay)
    else:
        optimizer = nn.Adagrad(parameters, lr=args.lr, weight_decay=decay)
    run.track(
        exports={"decoder": decoder},
        encoder=encoder,
        decoder=decoder,
        optimizer=optimizer,
        batches=batches,
    )
    draw, grid_z = drawn_by(decoder), latent(run, 100, args)
    for epoch in run.epochs():
        optimizer.lr = args.lr * args.lr_decay ** (epoch - 1)
        for images, *_ in run.steps(batches):
            x = (images + 1) / 2
            if args.likelihood == "bernoulli":
                x = (run.uniform(args.batch_size, *x.shape[1:]) < x).float32()
            noise = run.normal(args.batch_size, args.latent_dim)
            run.log(train_step(encoder, decoder, optimizer, x, noise, args.beta, args.likelihood))
            if run.every(args.sample_interval):
                common.save_image(draw(grid_z), run.sample_path)
    if run.is_main:
        write_reconstructions(run, encoder, draw, test)
    write_results(run, draw, grid_z, args)


def load_generator(run, args):
    """The function of `drawn_by`, with the decoder of the checkpoint."""
    _, decoder = build(args)
    run.track(decoder=decoder)
    return drawn_by(decoder)


def generate(run, args):
    write_results(run, load_generator(run, args), latent(run, 100, args), args)


def write_reconstructions(run, encoder, draw, test):
    """reconstructions.png: test images beside what is decoded from their mu; scatter.png: mu of up to 1,000 of them."""
    images, *labels = test.batch(np.arange(min(len(test), 1000)))
    mu, _ = common.in_chunks(encoder, (images + 1) / 2)
    pairs = np.stack([images[:50], draw(mu[:50])], axis=1)
    common.save_image(pairs.reshape(-1, *images.shape[1:]), run.out_dir / "reconstructions.png")
    save_scatter(mu, labels[0] if labels else None, run.out_dir / "scatter.png")


def write_results(run, draw, grid_z, args):
    """result.png, the plane of two latents (figure 4 of the paper), and the samples of --n_samples."""
    if not run.is_main:
        return
    common.save_image(draw(grid_z), run.out_dir / "result.png")
    if args.latent_dim == 2:
        common.save_image(draw(plane(side=20)), run.out_dir / "plane.png", nrow=20, padding=0)
    if args.n_samples:
        run.save_samples(draw(latent(run, args.n_samples, args)))


def plane(side):
    """(side^2, 2) codes at equal quantiles of the normal distribution; z1 grows to the right, z2 upwards."""
    quantiles = np.float32([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    return np.stack([np.tile(quantiles, side), np.repeat(quantiles[::-1], side)], axis=1)


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:  # sets jt.flags.use_cuda by --device, and all seeds by --seed
        if args.describe:
            encoder, decoder = build(args)
            common.describe(
                "encoder", encoder, jt.zeros((1, args.channels, args.img_size, args.img_size))
            )
            common.describe("decoder", decoder, jt.zeros((1, args.latent_dim)))
        elif args.sample_only:
            generate(run, args)
        else:
            train(run, args)
    return run.losses


if __name__ == "__main__":
    main()
