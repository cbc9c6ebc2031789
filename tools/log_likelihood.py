"""Estimates the log-likelihood of a VAE's test images, in nats.

    python tools/log_likelihood.py results/vae
    python tools/log_likelihood.py results/vae --importance_samples 5000 --n_eval 1000

The estimate takes K samples z_k of the encoder's q(z|x) (Burda 2016,
https://arxiv.org/abs/1509.00519, equation 8):

    log p(x) ~ log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x)

It lies between the ELBO, the mean of log w_k, and log p(x), and rises to log p(x) with
K. For a bernoulli model, grey images are made binary once, by random numbers that do
not depend on the run, so that runs can be compared. For a gaussian one, p(x) is a
density of pixels in [0, 1], with the variance that the checkpoint holds.
"""

import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common.cli import HelpFormatter, ToolParser, number

import jittor as jt

from tools.runs import load_script

AT_ONCE = 2000  # codes that are decoded together
SEED = 20131220  # of binary images and noise


def parse_args(argv=None):
    parser = ToolParser("log_likelihood.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("run", help="the out_dir of a run of vae.py, or a checkpoint")
    parser.add_argument("--data_dir", help="images to evaluate (default: the run's own data)")
    parser.add_argument(
        "--importance_samples",
        type=number(int, at_least=1),
        default=500,
        help="K, samples of z for each image",
    )
    parser.add_argument(
        "--n_eval", type=number(int, at_least=2), default=10000, help="test images, at most"
    )
    return parser.parse_args(argv)


def binarize(images, rng):
    """Numpy images (N, ...) in [0, 1] as 0 or 1, with these probabilities of 1."""
    return (rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


def log_mean_exp(x):
    """log of the mean of exp(x) over the last axis, without overflow."""
    largest = x.max(-1, keepdims=True)
    return np.log(np.exp(x - largest).mean(-1)) + largest[..., 0]


def log_weights(decoder, x, mu, logvar, noise, likelihood):
    """log w_k, (n, K) numpy.

    Args:
        decoder: from codes to logits; a gaussian one has `running_var`.
        x: images (n, C, S, S) in [0, 1], numpy.
        mu, logvar: (n, d) numpy, of q(z|x).
        noise: (n, K, d) numpy, from N(0, 1).
        likelihood: "bernoulli" or "gaussian".
    """
    log_likelihood = load_script("vae").log_likelihood
    n, k, d = noise.shape
    z = mu[:, None] + np.exp(0.5 * logvar[:, None]) * noise
    # log p(z) - log q(z|x); the factors (2 pi)^(-d/2) cancel
    noise_squares = np.einsum("nkd,nkd->nk", noise, noise, dtype=np.float64)
    z_squares = np.einsum("nkd,nkd->nk", z, z, dtype=np.float64)
    log_determinant = logvar.sum(-1, dtype=np.float64)[:, None]
    ratio = 0.5 * (noise_squares - z_squares + log_determinant)

    variance = decoder.running_var if likelihood == "gaussian" else None
    codes = z.reshape(n * k, d)
    likelihoods = []
    with jt.no_grad():
        for start in range(0, n * k, AT_ONCE):
            end = min(start + AT_ONCE, n * k)
            logits = decoder(jt.array(codes[start:end]))
            repeated = jt.array(x[np.arange(start, end) // k])
            values = log_likelihood(logits, repeated, likelihood, variance)
            likelihoods.append(values.numpy())
    return np.concatenate(likelihoods).reshape(n, k) + ratio


def evaluate(encoder, decoder, data, likelihood, n_samples, n_eval):
    """The estimate over the first `n_eval` images of a data set.

    Args:
        likelihood: "bernoulli" or "gaussian".
        n_samples: K.

    Returns:
        {"log_likelihood", "standard_error", "elbo", "kl"} in nats per image,
        "active_latents", and "n_images". A latent is active if the variance of its mean
        over the images is above 0.01 (Burda 2016, section 5.2).
    """
    rng = np.random.default_rng(SEED)
    n_eval = min(n_eval, len(data))
    group = max(AT_ONCE // n_samples, 1)
    weights = []
    means = []
    kls = []
    for start in range(0, n_eval, group):
        images = data.batch(np.arange(start, min(start + group, n_eval)))[0]
        x = (images + 1) / 2
        if likelihood == "bernoulli":
            x = binarize(x, rng)
        mu, logvar = common.predict(encoder, x)
        noise = rng.standard_normal((len(x), n_samples, mu.shape[1]), dtype=np.float32)
        weights.append(log_weights(decoder, x, mu, logvar, noise, likelihood))
        means.append(mu)
        kls.append(0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1))
    weights = np.concatenate(weights)
    estimates = log_mean_exp(weights)
    return {
        "log_likelihood": float(estimates.mean()),
        "standard_error": float(estimates.std(ddof=1) / math.sqrt(n_eval)),
        "elbo": float(weights.mean()),
        "kl": float(np.concatenate(kls).mean()),
        "active_latents": int((np.concatenate(means).var(0) > 0.01).sum()),
        "n_images": n_eval,
    }


def main(argv=None):
    """Prints the estimate of a run, and returns it as `evaluate` does."""
    args = parse_args(argv)
    flags = ["--resume", args.run, "--sample_only"]
    if args.data_dir:
        flags += ["--data_dir", args.data_dir]
    vae = load_script("vae")
    run_args = vae.parse_args(flags)
    jt.flags.use_cuda = common.choose_device(run_args.device)
    with common.Run(run_args) as run:
        data = vae.test_data(run_args)
        encoder, decoder = vae.build(run_args)
        run.checkpoint(encoder=encoder, decoder=decoder)
        run.restore()
        result = evaluate(
            encoder, decoder, data, run_args.likelihood, args.importance_samples, args.n_eval
        )
        print(
            f"{result['n_images']:,} test images: log-likelihood {result['log_likelihood']:.2f} "
            f"+- {result['standard_error']:.2f} nats ({args.importance_samples} importance "
            f"samples), ELBO {result['elbo']:.2f}, KL {result['kl']:.2f}, "
            f"{result['active_latents']} active latents"
        )
        if run_args.likelihood == "gaussian":
            deviation = decoder.running_var.item() ** 0.5
            print(f"Density of pixels in [0, 1], each with a standard deviation of {deviation:.4f}")
    return result


if __name__ == "__main__":
    main()
