"""tools/judges/metrics.py: each figure against a formula, a hand-made case or loops."""

import numpy as np
import pytest

from tools.judges import metrics


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


# ---- distances of two sets ----


def test_frechet_distance_of_independent_normals_is_that_of_means_and_deviations():
    m_a = np.array([0.0, 1, 2])
    m_b = np.array([1.0, 1, 0])
    s_a = np.array([1.0, 2, 0])
    s_b = np.array([3.0, 1, 2])
    found = metrics.frechet_distance(m_a, np.diag(s_a**2), m_b, np.diag(s_b**2))
    # sum of (m_a - m_b)^2 + (s_a - s_b)^2
    assert found == pytest.approx(1 + 4 + (4 + 1 + 4))


def test_frechet_distance_of_correlated_normals_by_the_closed_form_of_two_dimensions():
    a = np.array([[2.0, 1], [1, 3]])
    b = np.array([[4.0, -1], [-1, 1]])
    # The eigenvalues of the product P of two 2 x 2 covariances give
    # tr(P^(1/2)) = sqrt(tr P + 2 sqrt(det P)).
    product = a @ b
    trace_of_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = metrics.frechet_distance(np.zeros(2), a, np.array([3.0, 4]), b)
    assert found == pytest.approx(25 + 5 + 5 - 2 * trace_of_root)


def test_frechet_distance_of_equal_normals_is_zero_also_where_they_are_flat():
    features = np.random.default_rng(0).normal(size=(5, 8))  # a covariance of rank 4
    gaussian = metrics.gaussian(features)
    assert metrics.frechet_distance(*gaussian, *gaussian) < 1e-6


def test_gaussian_divides_by_n_minus_1():
    mean, covariance = metrics.gaussian([[0, 0], [2, 4], [4, 2]])
    assert mean.tolist() == [2, 2]
    assert covariance.tolist() == [[4, 2], [2, 4]]


def test_kernel_distance_of_a_few_numbers_by_hand():
    x = np.array([[0.0], [1], [2]])
    y = np.array([[1.0], [3]])
    # k(x, y) = (x y + 1)^3. Pairs of x: 0 1, 0 2, 1 2; of y: 1 3; six mixed ones.
    among_x = (1 + 1 + 27) / 3
    among_y = 64
    mixed = (1 + 1 + 8 + 64 + 27 + 343) / 6
    assert metrics.unbiased_mmd(x, y) == pytest.approx(among_x + among_y - 2 * mixed)


def test_kernel_distance_divides_the_product_by_the_dimension():
    x = np.ones((2, 2))
    y = np.zeros((2, 2))
    assert metrics.unbiased_mmd(x, y) == pytest.approx((2 / 2 + 1) ** 3 + 1 - 2)


def test_kernel_distance_takes_the_mean_over_blocks():
    # Constant sets: every block gives (1 + 1)^3 + 1 - 2 = 7, whatever the order.
    zeros = np.zeros((9, 1))
    value, error, *blocks = metrics.kernel_distance(np.ones((11, 1)), zeros, block=4)
    assert value == pytest.approx(7)
    assert error == pytest.approx(0)
    assert blocks == [2, 4]
    _, *rest = metrics.kernel_distance(np.ones((3, 1)), zeros, block=4)
    assert rest == [None, 1, 3]


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    y = rng.normal(size=(2000, 3))
    value, error, *_ = metrics.kernel_distance(x, y, block=10)
    # The biased estimate, with its diagonals, is more than 10 errors away.
    assert abs(value) < 3 * error
    assert error < 0.4


def test_precision_and_recall_of_points_on_a_line():
    real = np.array([[0.0], [1], [2], [3], [100]])
    generated = np.array([[-1.9], [4], [150], [-2.5], [199]])
    precision, recall = metrics.precision_and_recall(generated, real, k=2)
    # The balls of the real points reach to their second neighbour: [-2, 2], [0, 2],
    # [1, 3], [1, 5], [2, 198].
    assert precision == pytest.approx(3 / 5)
    # The balls of the generated points have the radii 5.9, 6.5, 146, 6.5 and 195. Each
    # real point lies in one of them.
    assert recall == 1


def test_recall_finds_a_lost_mode_and_precision_does_not():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 2))
    other = rng.normal(50, 1, size=(200, 2))
    real = np.concatenate([one[100:], other[:100]])
    precision, recall = metrics.precision_and_recall(one[:100], real)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_neighbours_are_the_same_in_chunks():
    a = np.random.default_rng(0).normal(size=(7, 3))
    b = np.random.default_rng(1).normal(size=(7, 3))
    found = np.concatenate(list(metrics.squared_distances(a, b, chunk=3)))
    np.testing.assert_allclose(found, ((a[:, None] - b) ** 2).sum(2), atol=1e-12)


# ---- two images ----


def test_l1_and_psnr_by_hand():
    a = np.uint8([[[0], [255]]])
    b = np.uint8([[[51], [255]]])
    # One of two pixels differs, by 51 levels, which are 2 / 255 apart.
    assert metrics.l1(a, b) == pytest.approx(0.2)
    assert metrics.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / (51**2 / 2)))
    assert metrics.psnr(a, a) == 100


def naive_ssim(a, b):
    """Wang 2004, equation 13, position by position, of two (H, W) images."""
    u = np.arange(11) - 5
    window = np.exp(-(u[:, None] ** 2 + u**2) / (2 * 1.5**2))
    window /= window.sum()
    c1 = (0.01 * 255) ** 2
    c2 = (0.03 * 255) ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x = np.float64(a[i : i + 11, j : j + 11])
            y = np.float64(b[i : i + 11, j : j + 11])
            mx = (window * x).sum()
            my = (window * y).sum()
            vx = (window * (x - mx) ** 2).sum()
            vy = (window * (y - my) ** 2).sum()
            vxy = (window * (x - mx) * (y - my)).sum()
            numerator = (2 * mx * my + c1) * (2 * vxy + c2)
            denominator = (mx**2 + my**2 + c1) * (vx + vy + c2)
            values.append(numerator / denominator)
    return np.mean(values)


def test_ssim_equals_the_definition():
    a = noise(13, 15, 3)
    b = np.uint8(a * 0.7 + noise(13, 15, 3, seed=1) * 0.3)
    expected = np.mean([naive_ssim(a[..., c], b[..., c]) for c in range(3)])
    assert 0.3 < expected < 0.95
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert metrics.ssim(a, a) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11"):
        metrics.ssim(a[:10], b[:10])
