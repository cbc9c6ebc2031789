"""Estimates the log-likelihood of a VAE's test images, in nats.

    python tools/log_likelihood.py results/vae
    python tools/log_likelihood.py results/vae --importance_samples 5000 --n_eval 1000

The estimate takes K samples z_k of the encoder's q(z|x) (Burda 2016, https://arxiv.org/abs/1509.00519, equation 8):

    log p(x) ~ log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x)

It lies between the ELBO, the mean of log w_k, and log p(x), and rises to log p(x) with K. For a bernoulli model grey
images are made binary once, by numbers that do not depend on the run, so that runs can be compared. For a gaussian
one p(x) is a density of pixels in [0, 1], with the variance that the checkpoint holds.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common

import jittor as jt

import vae

AT_ONCE = 2000  # codes that are decoded together


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "log_likelihood.py", description=__doc__, formatter_class=common.flags.HelpFormatter
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message}\n")
    add, number = parser.add_argument, common.number
    add("run", help="the out_dir of a run of vae.py, or a checkpoint")
    add("--data_dir", help="images to take, instead of the run's own data")
    add(
        "--importance_samples",
        type=number(int, at_least=1),
        default=500,
        help="K, samples of z for each image",
    )
    add("--n_eval", type=number(int, at_least=2), default=10000, help="test images, at most")
    return parser.parse_args(argv)


def binarize(images, rng):
    """(N, ...) numpy images in [0, 1] as 0 or 1 with those probabilities."""
    return (rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


def log_mean_exp(x):
    """log of the mean of exp(x) over the last axis, without overflow."""
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).mean(-1)) + top[..., 0]


def log_weights(decoder, x, mu, logvar, noise, likelihood):
    """log w_k, (n, K) numpy.

    Args:
        decoder: codes to logits; a gaussian one has `running_var`.
        x: (n, C, S, S) numpy images in [0, 1].
        mu, logvar: (n, d) numpy, of q(z|x).
        noise: (n, K, d) numpy from N(0, 1).
    """
    n, k, d = noise.shape
    z = mu[:, None] + np.exp(0.5 * logvar[:, None]) * noise
    # log p(z) - log q(z|x); the factors (2 pi)^(-d/2) cancel
    squares_noise, squares_z = (
        np.einsum("nkd,nkd->nk", v, v, dtype=np.float64) for v in (noise, z)
    )
    ratio = 0.5 * (squares_noise - squares_z + logvar.sum(-1, dtype=np.float64)[:, None])
    variance = decoder.running_var if likelihood == "gaussian" else None
    likelihoods = []
    with jt.no_grad():
        for i in range(0, n * k, AT_ONCE):
            logits = decoder(jt.array(z.reshape(n * k, d)[i : i + AT_ONCE]))
            repeated = jt.array(x[np.arange(i, min(i + AT_ONCE, n * k)) // k])
            likelihoods.append(vae.log_likelihood(logits, repeated, likelihood, variance).numpy())
    return np.concatenate(likelihoods).reshape(n, k) + ratio


def evaluate(encoder, decoder, data, likelihood, n_samples, n_eval):
    """The estimate over the first `n_eval` images of a data set.

    Returns:
        {"log_likelihood", "standard_error", "elbo", "kl"} in nats for each image, "active_latents", and "n_images". A
        latent is active if the variance of its mean over the images is above 0.01 (Burda 2016, section 5.2).
    """
    rng, n_eval = np.random.default_rng(20131220), min(n_eval, len(data))
    group = max(AT_ONCE // n_samples, 1)
    weights, mus, kls = [], [], []
    for i in range(0, n_eval, group):
        x = (data.batch(np.arange(i, min(i + group, n_eval)))[0] + 1) / 2
        if likelihood == "bernoulli":
            x = binarize(x, rng)
        mu, logvar = common.in_chunks(encoder, x)
        noise = rng.standard_normal((*mu.shape[:1], n_samples, mu.shape[1]), dtype=np.float32)
        weights.append(log_weights(decoder, x, mu, logvar, noise, likelihood))
        mus.append(mu)
        kls.append(0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1))
    weights, mu = np.concatenate(weights), np.concatenate(mus)
    estimates = log_mean_exp(weights)
    return {
        "log_likelihood": float(estimates.mean()),
        "standard_error": float(estimates.std(ddof=1) / math.sqrt(n_eval)),
        "elbo": float(weights.mean()),
        "kl": float(np.concatenate(kls).mean()),
        "active_latents": int((mu.var(0) > 0.01).sum()),
        "n_images": n_eval,
    }


def main(argv=None):
    args = parse_args(argv)
    flags = ["--resume", args.run, "--sample_only"] + (
        ["--data_dir", args.data_dir] if args.data_dir else []
    )
    settings = vae.parse_args(flags)
    with common.Run(settings) as run:
        data = vae.test_data(settings)
        encoder, decoder = vae.build(settings)
        run.track(encoder=encoder, decoder=decoder)
        result = evaluate(
            encoder, decoder, data, settings.likelihood, args.importance_samples, args.n_eval
        )
        print(
            f"{result['n_images']:,} test images: log-likelihood {result['log_likelihood']:.2f} +- "
            f"{result['standard_error']:.2f} nats ({args.importance_samples} importance samples), "
            f"ELBO {result['elbo']:.2f}, KL {result['kl']:.2f}, {result['active_latents']} active latents"
        )
        if settings.likelihood == "gaussian":
            print(
                f"Density of pixels in [0, 1], each with a deviation of {decoder.running_var.item() ** 0.5:.4f}"
            )
    return result


if __name__ == "__main__":
    main()
