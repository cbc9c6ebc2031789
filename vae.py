"""Variational auto-encoder (Kingma and Welling 2013), and the plain auto-encoder beside it.

    python vae.py
    python vae.py --latent_dim 2
    python vae.py --resume results/vae --sample_only --evaluate

An encoder gives a normal distribution q(z|x) = N(mu, diag(sigma^2)) for each image x, a decoder a distribution
p(x|z); with the prior p(z) = N(0, I) both are trained to raise a lower bound of the log-likelihood log p(x):

    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)),    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)

Both terms are summed over pixels and latents, in nats, and averaged over the batch. (Averaging the pixels alone would
weigh the KL term a thousandfold, and q would collapse to the prior.) --beta weighs the KL term (Higgins 2017).

With --likelihood bernoulli pixels are binarized anew at every step, a pixel of grey 0.3 being white with probability
0.3 (Salakhutdinov and Murray 2008); with gaussian they are real, with a unit variance. --model ae minimizes the
reconstruction term alone, with z = mu; it has no prior to sample from.

--evaluate estimates log p(x) of the test part from K samples z_k of q (Burda 2016):

    log p(x) ~ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)

Departures from the paper: convolutions and one hidden layer of 500 units, Adam, a rate that falls by 3 % an
epoch. Expect readable samples after ten epochs.
"""

import common  # isort: skip  # prepares Jittor, so it comes before `import jittor`

import math

import jittor as jt
import numpy as np
from jittor import nn
from PIL import Image

from common import fast
from common.folders import load_images

N_TEST = 500  # bundled digits kept for the test part
LOG_2PI = math.log(2 * math.pi)


def parse_args(argv=None):
    parser = common.Parser(
        "vae", __doc__, architecture=("model", "latent_dim", "hidden", "img_size", "channels", "likelihood"),
        of_the_call=("evaluate", "importance_samples", "n_eval"), n_epochs=60, batch_size=128, lr=0.001, b1=0.9,
        b2=0.999, img_size=28, channels=1, sample_interval=500, checkpoint_interval=5, log_interval=50,
    )  # fmt: skip
    add, number = parser.add_argument, common.number
    add("--model", choices=("vae", "ae"), default="vae", help="variational, or a plain auto-encoder")
    add("--latent_dim", type=number(int, at_least=1, at_most=4096), default=20, help="length of the code z")
    add("--hidden", type=number(int, at_least=0, at_most=4096), default=500, help="units of the dense layer; 0: none")
    add("--beta", type=number(float, at_least=0), default=1.0, help="weight of the KL term")
    add("--lr_decay", type=number(float, above=0, at_most=1), default=0.97, help="factor of the rate for each epoch")
    add("--likelihood", choices=("bernoulli", "gaussian"), default="bernoulli", help="of the pixels")
    add("--download", action="store_true", help="fetch full MNIST (11 MB) into Jittor's data set folder")
    add("--evaluate", action="store_true", help="estimate the log-likelihood of the test part")
    add("--importance_samples", type=number(int, at_least=1), default=500, help="samples of z for each test image")
    add("--n_eval", type=number(int, at_least=2), default=10000, help="test images for --evaluate, at most")
    args = parser.parse(argv)
    if args.img_size % 4:
        below = max(args.img_size // 4 * 4, 4)
        parser.error(f"--img_size {args.img_size}: it must be a multiple of 4, such as {below} or {below + 4}")
    if args.model == "ae" and (args.evaluate or args.n_samples):
        parser.error("--model ae has no prior to sample from and no likelihood: no --evaluate, no --n_samples")
    return args


# ---- networks ----


class Encoder(nn.Module):
    """(B, C, S, S) images in [0, 1] to mu and log sigma^2, (B, latent_dim) each."""

    def __init__(self, latent_dim, hidden, img_size, channels):
        super().__init__()
        flat = 64 * (img_size // 4) ** 2
        self.layers = nn.Sequential(
            nn.Conv(channels, 32, 4, stride=2, padding=1), fast.ReLU(),  # (B, 32, S/2, S/2)
            nn.Conv(32, 64, 4, stride=2, padding=1), fast.ReLU(),  # (B, 64, S/4, S/4)
            nn.Flatten(), *([nn.Linear(flat, hidden), fast.ReLU()] if hidden else []),
        )  # fmt: skip
        self.mu, self.logvar = nn.Linear(hidden or flat, latent_dim), nn.Linear(hidden or flat, latent_dim)

    def execute(self, x):
        h = self.layers(x)
        return self.mu(h), self.logvar(h)


class Decoder(nn.Module):
    """(B, latent_dim) codes to (B, C, S, S): logits (bernoulli) or means (gaussian) of the pixels."""

    def __init__(self, latent_dim, hidden, img_size, channels):
        super().__init__()
        self.side = img_size // 4
        dense = [nn.Linear(latent_dim, hidden), fast.ReLU()] if hidden else []
        self.project = nn.Sequential(*dense, nn.Linear(hidden or latent_dim, 64 * self.side**2), fast.ReLU())
        self.layers = nn.Sequential(
            nn.ConvTranspose(64, 32, 4, stride=2, padding=1), fast.ReLU(),
            nn.ConvTranspose(32, channels, 4, stride=2, padding=1),
        )  # fmt: skip

    def execute(self, z):
        return self.layers(self.project(z).reshape(-1, 64, self.side, self.side))


def build(args):
    """The encoder and the decoder of these arguments."""
    shape = (args.latent_dim, args.hidden, args.img_size, args.channels)
    return Encoder(*shape), Decoder(*shape)


# ---- losses and the step ----


def log_likelihood(output, x, likelihood):
    """(B,) log p(x|z) in nats, summed over the pixels, from the decoder's output; both (B, C, S, S)."""
    if output.shape != x.shape:
        raise ValueError(f"output {output.shape} and image {x.shape} differ in shape")
    if likelihood == "bernoulli":
        # log s(l) for white, log(1 - s(l)) for black: x l - log(1 + e^l), in the form that cannot overflow
        pixels = x * output - jt.maximum(output, 0) - jt.log(1 + jt.exp(-jt.abs(output)))
    else:
        pixels = -0.5 * ((x - output) ** 2 + LOG_2PI)
    return pixels.reshape(x.shape[0], -1).sum(1)


def kl_divergence(mu, logvar):
    """(B,) KL(N(mu, sigma^2) || N(0, I)) in nats, summed over the latents."""
    return 0.5 * (mu**2 + jt.exp(logvar) - 1 - logvar).sum(1)


def train_step(encoder, decoder, optimizer, x, noise, beta, likelihood, model):
    """One update of both networks on (B, C, S, S) images in [0, 1] and (B, latent_dim) normal noise.

    Returns:
        {"reconstruction", "kl", "elbo"} in nats as Jittor scalars; for the auto-encoder the first alone.
    """
    mu, logvar = encoder(x)
    z = mu if model == "ae" else mu + jt.exp(0.5 * logvar) * noise
    reconstruction = log_likelihood(decoder(z), x, likelihood).mean()
    if model == "ae":
        optimizer.step(-reconstruction)
        return {"reconstruction": reconstruction}
    kl = kl_divergence(mu, logvar).mean()
    optimizer.step(beta * kl - reconstruction)
    return {"reconstruction": reconstruction, "kl": kl, "elbo": reconstruction - kl}


def binarize(images, rng):
    """(N, ...) numpy images in [0, 1] as 0 or 1 with those probabilities."""
    return (rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


# ---- pictures and figures ----


def to_pixels(output, likelihood):
    """The decoder's output as numpy pixels in [0, 1]."""
    return (jt.sigmoid(output) if likelihood == "bernoulli" else output).numpy().clip(0, 1)


def encode(encoder, images, chunk=500):
    """mu and log sigma^2, (N, latent_dim) numpy, of (N, C, S, S) numpy images in [0, 1]."""
    with jt.no_grad():
        parts = [[v.numpy() for v in encoder(jt.array(images[i : i + chunk]))] for i in range(0, len(images), chunk)]
    return tuple(np.concatenate(part) for part in zip(*parts))


def decode(decoder, z, likelihood, chunk=500):
    """(N, C, S, S) numpy pixels in [0, 1] of (N, latent_dim) numpy codes."""
    with jt.no_grad():
        parts = [to_pixels(decoder(jt.array(z[i : i + chunk])), likelihood) for i in range(0, len(z), chunk)]
    return np.concatenate(parts)


def plane(decoder, likelihood, side=20):
    """The decoded plane of two latents: (side^2, C, S, S) at equal quantiles of the normal distribution."""
    from statistics import NormalDist

    quantiles = np.float32([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    return decode(decoder, np.stack([np.tile(quantiles, side), np.repeat(quantiles[::-1], side)], 1), likelihood)


def scatter(codes, labels, path):
    """A picture of (N, 2) codes, or of the first two principal components of longer ones, coloured by label."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    axes_names = ("z1", "z2")
    if codes.shape[1] > 2:
        centred = codes - codes.mean(0)
        codes, axes_names = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T, ("PC 1", "PC 2")
    elif codes.shape[1] == 1:
        codes, axes_names = np.concatenate([codes, np.zeros_like(codes)], 1), ("z1", "")
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    points = axes.scatter(codes[:, 0], codes[:, 1], c=labels, cmap="tab10", s=4)
    axes.set_xlabel(axes_names[0]), axes.set_ylabel(axes_names[1])
    if labels is not None:
        figure.colorbar(points, label="label")
    figure.savefig(path, dpi=100)


def write_pictures(run, encoder, decoder, args, images, labels, z):
    """Reconstructions, scatter and, for the vae, samples from the prior; images are (N, C, S, S) in [0, 1]."""
    out, likelihood = run.out_dir, args.likelihood
    mu, _ = encode(encoder, images)
    pairs = np.stack([images[:50], decode(decoder, mu[:50], likelihood)], 1)  # original beside its reconstruction
    common.save_image(pairs.reshape(-1, *images.shape[1:]), out / "reconstructions.png", value_range=(0, 1))
    scatter(mu, labels, out / "scatter.png")
    if args.model == "vae":
        write_samples(run, decoder, args, z)
    else:
        Image.open(out / "reconstructions.png").save(out / "result.png")


def write_samples(run, decoder, args, z):
    common.save_image(decode(decoder, z, args.likelihood), run.out_dir / "result.png", value_range=(0, 1))
    if args.latent_dim == 2:
        common.save_image(plane(decoder, args.likelihood), run.out_dir / "plane.png", nrow=20, padding=0,
                          value_range=(0, 1))  # fmt: skip


def log_mean_exp(x):
    """log of the mean of exp(x) over the last axis, without overflow."""
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).mean(-1)) + top[..., 0]


def importance_weights(decoder, x, mu, logvar, noise, likelihood):
    """(n, K) log p(x|z_k) p(z_k) / q(z_k|x) for (n, ...) images and (n, K, latent_dim) normal noise."""
    n, k, d = noise.shape
    z = mu[:, None] + np.exp(0.5 * logvar[:, None]) * noise
    # log p(z) - log q(z|x); the factors (2 pi)^(-d/2) cancel
    squares_noise, squares_z = (np.einsum("nkd,nkd->nk", v, v, dtype=np.float64) for v in (noise, z))
    ratio = 0.5 * (squares_noise - squares_z + logvar.sum(-1)[:, None])
    output = decoder(jt.array(z.reshape(n * k, d)))
    repeated = jt.array(np.repeat(x, k, axis=0))
    return log_likelihood(output, repeated, likelihood).numpy().reshape(n, k) + ratio


def evaluate(encoder, decoder, images, args, at_once=2000):
    """ELBO, KL and the importance-weighted log-likelihood of (N, C, S, S) images in [0, 1], in nats per image.

    Grey images are binarized once, with a seed that does not depend on the run, so that runs can be compared.

    Returns:
        {"elbo", "kl", "log_likelihood", "standard_error", "active_latents"}; a latent is active if the variance of its
        mean over the images is above 0.01 (Burda 2016, section 5.2).
    """
    rng = np.random.default_rng(20131220)
    x = binarize(images, rng) if args.likelihood == "bernoulli" else images
    mu, logvar = encode(encoder, x)
    k, weights = args.importance_samples, []
    group = max(at_once // k, 1)
    with jt.no_grad():
        for i in range(0, len(x), group):
            part = slice(i, i + group)
            noise = rng.standard_normal((len(x[part]), k, args.latent_dim), dtype=np.float32)
            weights.append(importance_weights(decoder, x[part], mu[part], logvar[part], noise, args.likelihood))
    weights = np.concatenate(weights)
    estimates = log_mean_exp(weights)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1)
    return {
        "elbo": float(weights.mean()),
        "kl": float(kl.mean()),
        "log_likelihood": float(estimates.mean()),
        "standard_error": float(estimates.std(ddof=1) / math.sqrt(len(estimates))),
        "active_latents": int((mu.var(0) > 0.01).sum()),
    }


def print_evaluation(encoder, decoder, args):
    images, _ = all_images(test_data(args), args.n_eval)
    result = evaluate(encoder, decoder, images, args)
    print(
        f"Test part, {len(images):,} images: log-likelihood {result['log_likelihood']:.2f} +- "
        f"{result['standard_error']:.2f} nats ({args.importance_samples} importance samples), "
        f"ELBO {result['elbo']:.2f}, KL {result['kl']:.2f}, {result['active_latents']} active latents"
    )


# ---- data ----


def test_data(args):
    return load_images(args.data_dir, args.img_size, args.channels, args.download, split="test", n_test=N_TEST)


def all_images(data, limit):
    """Up to `limit` images in [0, 1], and their labels or None."""
    images, *labels = data.batch(np.arange(min(limit, len(data))))
    return (images + 1) / 2, labels[0] if labels else None


def main(argv=None):
    args = parse_args(argv)
    with common.Run(args) as run:
        sample_rng = np.random.default_rng([args.seed, 3])  # of its own, so that pictures disturb no training
        encoder, decoder = build(args)
        z = sample_rng.standard_normal((100, args.latent_dim), dtype=np.float32)
        if args.sample_only:
            run.track(encoder=encoder, decoder=decoder)
            if args.model == "ae":
                raise common.UserError("--model ae has no prior to sample from: train it to get reconstructions")
            finish(run, decoder, encoder, args, z, sample_rng)
            return run.losses

        data = load_images(args.data_dir, args.img_size, args.channels, args.download, n_test=N_TEST)
        batches = common.Batches(data, args.batch_size, args.seed)
        optimizer = fast.Adam([*encoder.parameters(), *decoder.parameters()], lr=args.lr, betas=(args.b1, args.b2))
        run.track(encoder=encoder, decoder=decoder, optimizer=optimizer, batches=batches)
        shown, labels = all_images(test_data(args), 2000)
        for epoch in run.epochs():
            optimizer.lr = args.lr * args.lr_decay ** (epoch - 1)
            for images, *_ in run.steps(batches):
                x = (images + 1) / 2
                if args.likelihood == "bernoulli":
                    uniform = run.rng.random((args.batch_size, *x.shape[1:]), dtype=np.float32)
                    x = (run.shard(uniform) < x).float32()
                noise = run.shard(run.rng.standard_normal((args.batch_size, args.latent_dim), dtype=np.float32))
                run.log(train_step(encoder, decoder, optimizer, x, noise, args.beta, args.likelihood, args.model))
                if run.every(args.sample_interval) and args.model == "vae":
                    path = run.out_dir / f"samples/step_{run.step:07d}.png"
                    common.save_image(decode(decoder, z, args.likelihood), path, value_range=(0, 1))
        if run.is_main:
            write_pictures(run, encoder, decoder, args, shown, labels, z)
            finish(run, decoder, encoder, args, z, sample_rng)
    return run.losses


def finish(run, decoder, encoder, args, z, rng):
    """Samples from the prior, and what --n_samples and --evaluate ask for."""
    if args.model == "vae":
        write_samples(run, decoder, args, z)
    if args.n_samples:
        codes = rng.standard_normal((args.n_samples, args.latent_dim), dtype=np.float32)
        run.save_samples(decode(decoder, codes, args.likelihood) * 2 - 1)
    if args.evaluate:
        print_evaluation(encoder, decoder, args)


if __name__ == "__main__":
    main()
