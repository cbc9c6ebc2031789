"""Winograd's convolutions, with half of the multiplications or fewer.

Lavin and Gray 2016, https://arxiv.org/abs/1509.09308.

Two outputs of a filter with two taps,

    y0 = d0 g0 + d1 g1        y1 = d1 g0 + d2 g1

take three products instead of four:

    m0 = (d0 - d1) g0        m1 = d1 (g0 + g1)        m2 = (d2 - d1) g1
    y0 = m0 + m1             y1 = m1 + m2

In matrices y = A^T [(G g) * (B d)], and in two dimensions Y = A^T [(G g G^T) * (B d
B^T)] A: nine products instead of 16 for each tile of 2 x 2 outputs; with three taps, 16
instead of 36.
Larger tiles take fewer: 36 instead of 144 for 4 x 4 outputs. Summed over the channels
and for many tiles at once, each of them becomes a product of matrices, which processors
do best.

That serves filters of 3 x 3 and 4 x 4 with stride 1. A filter of 4 x 4 with stride 2 is
the sum of four filters of 2 x 2 with stride 1, each on every second row and column of
the image, one of its phases. A convolution is linear in the image and in the weights,
so that its derivatives, and theirs, are made of the same parts:

    U = G w G^T    V = B x B^T    y = A^T (U V) A    dx = B^T (U^T (A dy A^T)) B
    dw = G^T ((A dy A^T) V^T) G

Below some 64 channels or 32 tiles, the transforms take what the products save. The sums
are rounded otherwise than those of a direct convolution, by some 1e-6 of the largest
output, and by 1e-5 with tiles of 4 x 4.
"""

import functools
from fractions import Fraction

from jittor_fast.call import header, kernel

HEADER = header("winograd.h")

# Tiles at a time for each N = taps + tile - 1, so that they stay in the cache. Powers
# of two would collide there.
CHUNK = {3: 240, 4: 240, 5: 120, 6: 120}


def polynomial(roots):
    """The coefficients of the product of all (x - root), from x^0 on."""
    coefficients = [Fraction(1)]
    for root in roots:
        times_x = [Fraction(0), *coefficients]
        times_root = [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(times_x, times_root)]
    return coefficients


def matrices(tile, taps):
    """B (N, N), G (N, taps) and A (N, tile), N = tile + taps - 1, of fractions.

    Row i belongs to product i. A product of two polynomials is known from its values at
    N points, one of them infinity (Toom and Cook); the filter is the transpose of such
    a product. Small points give small fractions.
    """
    points = [Fraction(i) for i in (0, 1, -1, 2, -2)][: tile + taps - 2]
    B = []
    G = []
    A = []
    for point in points:
        others = [other for other in points if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        B.append([*polynomial(others), Fraction(0)])
        G.append([point**i / scale for i in range(taps)])
        A.append([point**i for i in range(tile)])
    # The point at infinity: a polynomial's highest coefficient.
    B.append(polynomial(points))
    G.append([Fraction(0)] * (taps - 1) + [Fraction(1)])
    A.append([Fraction(0)] * (tile - 1) + [Fraction(1)])
    return B, G, A


def in_c(matrix):
    """A matrix as C++ writes it."""
    rows = []
    for row in matrix:
        rows.append("{" + ", ".join(f"{float(x)!r}f" for x in row) + "}")
    return "{" + ", ".join(rows) + "}"


@functools.lru_cache(None)
def text(taps, stride, tile):
    """The header with its sizes and matrices."""
    B, G, A = matrices(tile, taps)
    defines = {
        "TAPS": taps,
        "STRIDE": stride,
        "TILE": tile,
        "CHUNK": CHUNK[taps + tile - 1],
        "MATRIX_B": in_c(B),
        "MATRIX_G": in_c(G),
        "MATRIX_A": in_c(A),
    }
    lines = [f"#define {name} {value}\n" for name, value in defines.items()]
    return "".join(lines) + HEADER


def run(tile, shapes, result, first, second):
    """One of a convolution's three operations.

    Args:
        tile: 2 or 4, outputs of a tile in both directions; with 4, at most three taps.
        shapes: a `jittor_fast.convolution.Shapes`.
        result: which operand to compute: the output "y", the input "x" or the
            weights "w".
        first, second: the two other operands, in the order x, y, w.
    """
    taps = shapes.taps
    n = taps + tile - 1
    images, inputs, height, width = shapes.x
    _, outputs, out_height, out_width = shapes.y
    scalars = {
        "result": ord(result),
        "images": images,
        "inputs": inputs,
        "height": height,
        "width": width,
        "outputs": outputs,
        "out_height": out_height,
        "out_width": out_width,
        "padding": shapes.padding,
    }
    k = inputs * shapes.stride**2
    scratch = n**2 * (outputs * k + (outputs + k) * CHUNK[n])
    output_shapes = [list(getattr(shapes, result)), [scratch]]
    header_text = text(taps, shapes.stride, tile)
    return kernel(header_text, "winograd", output_shapes, [first, second], **scalars)[0]
