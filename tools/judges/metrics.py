"""The figures of tools/evaluate.py, from features or from pixels, in numpy alone."""

import numpy as np

# ---- two sets of features ----


def gaussian(features):
    """The mean (D,) of features (N, D), and their covariance (D, D), with N - 1."""
    features = np.asarray(features, np.float64)
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b):
    """The squared Frechet distance of two Gaussians.

    For Inception's features it is the FID (Heusel 2017, equation 6):

        |m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))

    C_a C_b has the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2), which `eigh`
    finds as real numbers even if a covariance is singular.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b)
    return float(max(distance - 2 * np.sqrt(product.clip(0)).sum(), 0))


def kernel_distance(a, b, block=1000, seed=0):
    """The KID: the squared maximum mean discrepancy under k(x, y) = (x . y / D + 1)^3.

    Both sets are shuffled and divided into blocks of at least `block` features, or into
    one block if there are fewer (Binkowski 2018, section 4). Each block gives an
    unbiased estimate, which may be negative:

        mean of k(x, x') over x != x'  +  mean of k(y, y') over y != y'
            -  2 * mean of k(x, y)

    Args:
        a, b: features (N, D) and (M, D); N and M are at least 2.

    Returns:
        The mean over the blocks; its standard error (None for one block); the number of
        blocks; and how many features of either set are in a block.
    """
    n = min(len(a), len(b))
    n_blocks = max(1, n // block)
    size = n // n_blocks
    rng = np.random.default_rng(seed)
    blocks = []
    for features in (a, b):
        chosen = rng.permutation(len(features))[: n_blocks * size]
        blocks.append(np.asarray(features, np.float64)[chosen].reshape(n_blocks, size, -1))
    estimates = [unbiased_mmd(x, y) for x, y in zip(*blocks)]
    error = None
    if n_blocks > 1:
        error = float(np.std(estimates, ddof=1) / np.sqrt(n_blocks))
    return float(np.mean(estimates)), error, n_blocks, size


def unbiased_mmd(x, y):
    """The estimate of one block of `kernel_distance`, from (N, D) and (M, D)."""

    def kernel(p, q):
        return (p @ q.T / p.shape[1] + 1) ** 3

    def mean_of_others(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return mean_of_others(kernel(x, x)) + mean_of_others(kernel(y, y)) - 2 * kernel(x, y).mean()


def precision_and_recall(generated, real, k=3):
    """How much of the generated set looks real, and how much of the real one is drawn.

    A set covers the balls around its points that reach to each point's k-th neighbour
    in the set. Precision is the share of the generated points that the real set covers,
    recall the share of the real points that the generated set covers (Kynkaanniemi
    2019). Compare equal numbers of points only: more points have smaller balls.

    Args:
        generated, real: features (N, D) and (M, D), of more than k points each.
    """
    # Differences of large numbers would lose digits.
    centre = np.mean(real, axis=0, dtype=np.float64)
    generated = np.asarray(generated, np.float64) - centre
    real = np.asarray(real, np.float64) - centre
    return share_covered(generated, real, k), share_covered(real, generated, k)


def share_covered(points, others, k):
    """The share of points (N, D) within the balls around others (M, D)."""
    radii = []
    for distances in squared_distances(others, others):
        # The 0-th neighbour is the point itself.
        radii.append(np.partition(distances, k, axis=1)[:, k])
    radii = np.concatenate(radii)
    is_covered = [(d <= radii).any(1) for d in squared_distances(points, others)]
    return float(np.concatenate(is_covered).mean())


def squared_distances(a, b, chunk=1000):
    """Yields the squared distances (chunk, M) from points of a to all points of b."""
    squares = (b**2).sum(1)
    for start in range(0, len(a), chunk):
        part = a[start : start + chunk]
        yield ((part**2).sum(1)[:, None] + squares - 2 * part @ b.T).clip(0)


# ---- two images ----


def l1(a, b):
    """The mean of |a - b| of two uint8 images, with values scaled to [-1, 1]."""
    return float(np.abs(a.astype(np.float64) - b).mean() / 127.5)


def psnr(a, b):
    """10 log10(255^2 / the mean of (a - b)^2) of two uint8 images, in dB.

    It is at most 100, which equal images have.
    """
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    if mse == 0:
        return 100.0
    return float(min(10 * np.log10(255**2 / mse), 100))


SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def ssim(a, b):
    """The mean structural similarity of uint8 images (H, W, C); 1 if they are equal.

    Local means, variances and the covariance are weighted by a Gaussian of 11 x 11
    pixels with standard deviation 1.5; K1 = 0.01, K2 = 0.03, L = 255 (Wang 2004,
    section III-C). Positions where the window does not lie inside the image are left
    out, and colour images give the mean over their channels. No image is scaled down
    first.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    if min(a.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs sides of at least {SSIM_WINDOW} pixels, got {a.shape[1]} x {a.shape[0]}"
        )
    a = a.astype(np.float64)
    b = b.astype(np.float64)
    c1 = (0.01 * 255) ** 2
    c2 = (0.03 * 255) ** 2
    mean_a = gaussian_mean(a)
    mean_b = gaussian_mean(b)
    variance_a = gaussian_mean(a * a) - mean_a**2
    variance_b = gaussian_mean(b * b) - mean_b**2
    covariance = gaussian_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float((luminance * structure).mean())


def gaussian_mean(image):
    """(H, W, C)  ->  (H - 10, W - 10, C), the weighted mean around each pixel.

    Only pixels around which the whole window lies inside the image have one.
    """
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    height, width = (side - SSIM_WINDOW + 1 for side in image.shape[:2])
    rows = sum(w * image[i : i + height] for i, w in enumerate(weights))
    return sum(w * rows[:, i : i + width] for i, w in enumerate(weights))


# ---- enlarged images, as the literature on super-resolution compares them ----


def luma(pixels):
    """The luma (H, W, 1) of an image (H, W, 3), both uint8: Y of ITU-R BT.601.

    It goes from 16 to 235, and is rounded, as MATLAB's `rgb2ycbcr` returns it. An image
    (H, W, 1) is returned as it is.
    """
    if pixels.shape[2] == 1:
        return pixels
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.uint8(np.floor(16 + pixels @ weights + 0.5))[..., None]


def without_border(image, border):
    """(H, W, C) without `border` pixels on each side."""
    height, width = image.shape[:2]
    return image[border : height - border, border : width - border]


def gradient_energy(image):
    """How sharp an image (H, W, C) is: the mean of the squared differences.

    Each pixel has two, to its right and to its lower neighbour; they are added.
    """
    image = image.astype(np.float64)
    right = image[:-1, 1:] - image[:-1, :-1]
    down = image[1:, :-1] - image[:-1, :-1]
    return float((right**2 + down**2).mean())
