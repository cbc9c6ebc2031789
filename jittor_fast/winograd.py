"""Convolutions with half of the multiplications or fewer, after Winograd (Lavin and Gray 2016, arXiv 1509.09308).

Two outputs of a filter with two taps, y0 = d0 g0 + d1 g1 and y1 = d1 g0 + d2 g1, take three products, not four:

    m0 = (d0 - d1) g0        m1 = d1 (g0 + g1)        m2 = (d2 - d1) g1        y0 = m0 + m1        y1 = m1 + m2

In matrices y = A^T [(G g) * (B d)], and in two dimensions Y = A^T [(G g G^T) * (B d B^T)] A: nine products in the
place of 16 for each tile of 2 x 2 outputs; with three taps, 16 in the place of 36. Larger tiles take fewer: for 4 x 4
outputs 36 in the place of 144. Summed over the channels and for many tiles at once, each of them becomes a product of
matrices, at which a processor is best.

That serves filters of 3 x 3 and 4 x 4 with stride 1. A filter of 4 x 4 with stride 2 is the sum of four filters of
2 x 2 with stride 1, each on every second row and column of the image: on one of its phases. A convolution is linear in
the image and in the weights, so its derivatives, and theirs, are made of the same parts:

    U = G w G^T    V = B x B^T    y = A^T (U V) A    dx = B^T (U^T (A dy A^T)) B    dw = G^T ((A dy A^T) V^T) G

Below some 64 channels or 32 tiles, the transforms take what the products save. The sums are rounded otherwise than
those of a direct convolution, by some 1e-6 of the largest output, and 1e-5 with tiles of 4 x 4.
"""

import functools
from fractions import Fraction

from jittor_fast.kernels import kernel

CHUNK = {
    3: 240,
    4: 240,
    5: 120,
    6: 120,
}  # tiles at a time for each N, so that they stay in the cache; no power of
# two, which would collide there


def matrices(tile, taps):
    """B (N, N), G (N, taps) and A (N, tile) with N = tile + taps - 1, of fractions; row i belongs to product i.

    A product of two polynomials is known from its values at N points, one of them infinity (Toom and Cook); the filter
    is the transpose of such a product. Small points give small fractions.
    """
    points = [Fraction(i) for i in (0, 1, -1, 2, -2)][: tile + taps - 2]

    def times(roots):  # the coefficients of the product of (x - root), from x^0 on
        coefficients = [Fraction(1)]
        for root in roots:
            shifted, scaled = (
                [Fraction(0), *coefficients],
                [*(-root * c for c in coefficients), Fraction(0)],
            )
            coefficients = [a + b for a, b in zip(shifted, scaled)]
        return coefficients

    b, g, a = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        b.append([*times(others), Fraction(0)])
        g.append([point**i / scale for i in range(taps)])
        a.append([point**i for i in range(tile)])
    last = [Fraction(0)]
    return (
        [*b, times(points)],
        [*g, last * (taps - 1) + [Fraction(1)]],
        [*a, last * (tile - 1) + [Fraction(1)]],
    )


def in_c(matrix):
    return (
        "{"
        + ", ".join("{" + ", ".join(f"{float(x)!r}f" for x in row) + "}" for row in matrix)
        + "}"
    )


HEADER = """
#include <algorithm>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_max_threads() { return 1; }
#endif
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                          float, float*, int64_t);
const int N = TAPS + TILE - 1, KERNEL = TAPS * STRIDE, PHASES = STRIDE * STRIDE;
static const float B[N][N] = MATRIX_B, G[N][TAPS] = MATRIX_G, A[N][TILE] = MATRIX_A;

// Patches of E x E pixels, E = IN * S, many at a time: pixel e of patch p is patches[e * width + p]. For each of the
// S * S phases, product = m phase m^T; its number k for patch p is products[k * step + phase * phase_step + p].
template <int IN, int S>
void transform(const float (&m)[N][IN], const float* patches, int64_t width, float* products, int64_t step,
               int64_t phase_step, float* half, int64_t n) {
    for (int phase = 0; phase < S * S; phase++) {
        const float* x = patches + (phase / S * IN * S + phase % S) * width;
        float* y = products + phase * phase_step;
        for (int j = 0; j < IN; j++)
            #pragma omp simd
            for (int64_t p = 0; p < n; p++)
                for (int i = 0; i < N; i++) {
                    float sum = 0;
                    for (int k = 0; k < IN; k++) sum += m[i][k] * x[(k * IN * S + j) * S * width + p];
                    half[(i * IN + j) * n + p] = sum;
                }
        for (int i = 0; i < N; i++)
            #pragma omp simd
            for (int64_t p = 0; p < n; p++)
                for (int j = 0; j < N; j++) {
                    float sum = 0;
                    for (int k = 0; k < IN; k++) sum += m[j][k] * half[(i * IN + k) * n + p];
                    y[(i * N + j) * step + p] = sum;
                }
    }
}

// The adjoint of `transform`: phase = m^T product m.
template <int IN, int S>
void transform_back(const float (&m)[N][IN], float* patches, int64_t width, const float* products, int64_t step,
                    int64_t phase_step, float* half, int64_t n) {
    for (int phase = 0; phase < S * S; phase++) {
        float* x = patches + (phase / S * IN * S + phase % S) * width;
        const float* y = products + phase * phase_step;
        for (int i = 0; i < N; i++)
            #pragma omp simd
            for (int64_t p = 0; p < n; p++)
                for (int j = 0; j < IN; j++) {
                    float sum = 0;
                    for (int k = 0; k < N; k++) sum += m[k][j] * y[(i * N + k) * step + p];
                    half[(i * IN + j) * n + p] = sum;
                }
        for (int j = 0; j < IN; j++)
            #pragma omp simd
            for (int64_t p = 0; p < n; p++)
                for (int i = 0; i < IN; i++) {
                    float sum = 0;
                    for (int k = 0; k < N; k++) sum += m[k][i] * half[(k * IN + j) * n + p];
                    x[(i * IN * S + j) * S * width + p] = sum;
                }
    }
}

// (images, channels, height, width) pixels, covered by tiles: those of the convolution's output have TILE x TILE
// pixels, those of its input the E x E pixels on which they depend. Tiles are numbered along rows, then images.
struct Image {
    float* data;
    int64_t channels, height, width, pad, down, across;

    // Calls f(number of the row's first pixel or -1 outside of the image, column of the first patch, its place in
    // `patches`, patches) for every row of the patches in every run of tiles along a row.
    template <int E, int STEP, class F> void each_row(int64_t channel, int64_t first, int64_t count, F f) const {
        for (int64_t p = 0, run; p < count; p += run) {
            const int64_t tile = first + p, column = tile % across, row = tile / across % down;
            const int64_t plane = (tile / across / down * channels + channel) * height;
            run = std::min(across - column, count - p);
            for (int e = 0; e < E; e++) {
                const int64_t y = row * STEP - pad + e;
                f(y < 0 || y >= height ? -1 : (plane + y) * width, column * STEP - pad, e * E * CHUNK + p, run);
            }
        }
    }
    // The patches of a run that lie between the image's borders: from `low` to below `high`.
    template <int E, int STEP> void inside(int64_t x, int64_t run, int64_t& low, int64_t& high) const {
        for (low = 0; low < run && x + low * STEP < 0;) low++;
        for (high = run; high > low && x + (high - 1) * STEP + E > width;) high--;
    }
    template <int E, int STEP> void gather(int64_t channel, int64_t first, int64_t count, float* patches) const {
        each_row<E, STEP>(channel, first, count, [&](int64_t row, int64_t x, int64_t place, int64_t run) {
            float* out = patches + place;
            if (row < 0) {
                for (int e = 0; e < E; e++) std::fill(out + e * CHUNK, out + e * CHUNK + run, 0.0f);
                return;
            }
            const float* in = data + row;
            int64_t low, high;
            inside<E, STEP>(x, run, low, high);
            for (int64_t t = 0; t < run; t++)
                if (t < low || t >= high)
                    for (int e = 0; e < E; e++) {
                        const int64_t i = x + t * STEP + e;
                        out[e * CHUNK + t] = i < 0 || i >= width ? 0 : in[i];
                    }
            for (int64_t t = low; t < high; t++)
                for (int e = 0; e < E; e++) out[e * CHUNK + t] = in[x + t * STEP + e];
        });
    }
    template <int E, int STEP> void add(int64_t channel, int64_t first, int64_t count, const float* patches) const {
        each_row<E, STEP>(channel, first, count, [&](int64_t row, int64_t x, int64_t place, int64_t run) {
            if (row < 0) return;
            const float* in = patches + place;
            float* out = data + row;
            int64_t low, high;
            inside<E, STEP>(x, run, low, high);
            for (int64_t t = 0; t < run; t++)
                if (t < low || t >= high)
                    for (int e = 0; e < E; e++) {
                        const int64_t i = x + t * STEP + e;
                        if (i >= 0 && i < width) out[i] += in[e * CHUNK + t];
                    }
            // Neighbours overlap by E - STEP pixels; each of the two loops alone touches no pixel twice.
            for (int64_t t = low; t < high; t++)
                for (int e = 0; e < STEP; e++) out[x + t * STEP + e] += in[e * CHUNK + t];
            for (int64_t t = low; t < high; t++)
                for (int e = STEP; e < E; e++) out[x + t * STEP + e] += in[e * CHUNK + t];
        });
    }

    // Products (N * N, S * S * channels, CHUNK) of tiles `first` on; a thread does whole channels.
    template <int IN, int S> void to_products(const float (&m)[N][IN], int64_t first, int64_t count, float* out) const {
        #pragma omp parallel
        {
            std::vector<float> patches(IN * S * IN * S * CHUNK), half(N * IN * CHUNK);
            #pragma omp for schedule(static)
            for (int64_t c = 0; c < channels; c++) {
                gather<IN * S, TILE * S>(c, first, count, patches.data());
                transform<IN, S>(m, patches.data(), CHUNK, out + c * CHUNK, S * S * channels * CHUNK,
                                 channels * CHUNK, half.data(), count);
            }
        }
    }
    template <int IN, int S> void add_products(const float (&m)[N][IN], int64_t first, int64_t count,
                                               const float* in) const {
        #pragma omp parallel
        {
            std::vector<float> patches(IN * S * IN * S * CHUNK), half(N * IN * CHUNK);
            #pragma omp for schedule(static)
            for (int64_t c = 0; c < channels; c++) {
                transform_back<IN, S>(m, patches.data(), CHUNK, in + c * CHUNK, S * S * channels * CHUNK,
                                      channels * CHUNK, half.data(), count);
                add<IN * S, TILE * S>(c, first, count, patches.data());
            }
        }
    }
    void clear(int64_t images) const {
        #pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < images * channels; i++)
            std::fill(data + i * height * width, data + (i + 1) * height * width, 0.0f);
    }
};

// Weights (outputs, inputs, KERNEL, KERNEL) to products U (N * N, outputs, PHASES * inputs).
void weights_to_products(const float* weights, int64_t outputs, int64_t inputs, float* products) {
    const int E = KERNEL * KERNEL;
    #pragma omp parallel
    {
        std::vector<float> patches(E * inputs), half(N * TAPS * inputs);
        #pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; o++) {
            for (int64_t i = 0; i < inputs; i++)
                for (int e = 0; e < E; e++) patches[e * inputs + i] = weights[(o * inputs + i) * E + e];
            transform<TAPS, STRIDE>(G, patches.data(), inputs, products + o * PHASES * inputs,
                                    outputs * PHASES * inputs, inputs, half.data(), inputs);
        }
    }
}

// The same, with each of the N * N matrices transposed: (N * N, PHASES * inputs, outputs).
void weights_to_transposed(const float* weights, int64_t outputs, int64_t inputs, float* products) {
    const int E = KERNEL * KERNEL;
    #pragma omp parallel
    {
        std::vector<float> patches(E * outputs), half(N * TAPS * outputs);
        #pragma omp for schedule(static)
        for (int64_t i = 0; i < inputs; i++) {
            for (int64_t o = 0; o < outputs; o++)
                for (int e = 0; e < E; e++) patches[e * outputs + o] = weights[(o * inputs + i) * E + e];
            transform<TAPS, STRIDE>(G, patches.data(), outputs, products + i * outputs, PHASES * inputs * outputs,
                                    inputs * outputs, half.data(), outputs);
        }
    }
}

// The adjoint of `weights_to_products`.
void products_to_weights(float* weights, int64_t outputs, int64_t inputs, const float* products) {
    const int E = KERNEL * KERNEL;
    #pragma omp parallel
    {
        std::vector<float> patches(E * inputs), half(N * TAPS * inputs);
        #pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; o++) {
            transform_back<TAPS, STRIDE>(G, patches.data(), inputs, products + o * PHASES * inputs,
                                         outputs * PHASES * inputs, inputs, half.data(), inputs);
            for (int64_t i = 0; i < inputs; i++)
                for (int e = 0; e < E; e++) weights[(o * inputs + i) * E + e] = patches[e * inputs + i];
        }
    }
}

// N * N matrices, each `step` behind the one before, with rows `ld` apart.
struct Matrix { float* data; int64_t ld, step; };

// For each of them c = a b + beta c: a (rows, depth), b (depth, columns) or, transposed, (columns, depth). A thread
// does whole pieces of columns: all threads wait for each other once, where a product on all threads would wait N * N
// times, which takes long on a busy machine.
void multiply(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, bool transposed, float beta, Matrix c) {
    const int64_t wanted = (8 * omp_get_max_threads() + N * N - 1) / (N * N);  // eight tasks for a thread or more
    const int64_t piece = std::max<int64_t>(24, ((columns + wanted - 1) / wanted + 7) / 8 * 8);
    const int64_t pieces = (columns + piece - 1) / piece;
    #pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t k = 0; k < N * N; k++)
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t first = i * piece;
            dnnl_sgemm('N', transposed ? 'T' : 'N', rows, std::min(piece, columns - first), depth, 1,
                       a.data + k * a.step, a.ld, b.data + k * b.step + first * (transposed ? b.ld : 1), b.ld, beta,
                       c.data + k * c.step + first, c.ld);
        }
}
"""

# One kernel has all three operations, for compiling takes seconds. The scratch memory holds the products U
# (N * N, outputs, K) of the weights and, for one chunk of tiles, V (N * N, K, CHUNK) of the input and
# M (N * N, outputs, CHUNK) of the output.
SOURCE = """
    const bool get_y = data["result"] == 'y', get_x = data["result"] == 'x', get_w = data["result"] == 'w';
    const int64_t images = data["images"], inputs = data["inputs"], outputs = data["outputs"], K = PHASES * inputs;
    const int64_t height = data["out_height"], width = data["out_width"];
    const int64_t down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE, tiles = images * down * across;
    const Image x{get_x ? out0_p : in0_p, inputs, (int64_t)data["height"], (int64_t)data["width"],
                  (int64_t)data["padding"], down, across};
    const Image y{get_y ? out0_p : get_x ? in0_p : in1_p, outputs, height, width, 0, down, across};
    const Matrix U{out1_p, K, outputs * K}, V{U.data + N * N * outputs * K, CHUNK, K * CHUNK};
    const Matrix M{V.data + N * N * K * CHUNK, CHUNK, outputs * CHUNK};

    if (get_y) {
        weights_to_products(in1_p, outputs, inputs, U.data);
        y.clear(images);
    } else if (get_x) {
        weights_to_transposed(in1_p, outputs, inputs, U.data);
        x.clear(images);
    }
    for (int64_t first = 0; first < tiles; first += CHUNK) {
        const int64_t n = std::min<int64_t>(CHUNK, tiles - first);
        if (!get_x) x.to_products<N, STRIDE>(B, first, n, V.data);
        if (!get_y) y.to_products<TILE, 1>(A, first, n, M.data);
        if (get_y) {
            multiply(outputs, n, K, U, V, false, 0, M);
            y.add_products<TILE, 1>(A, first, n, M.data);
        } else if (get_x) {
            multiply(K, n, outputs, {U.data, outputs, U.step}, M, false, 0, V);
            x.add_products<N, STRIDE>(B, first, n, V.data);
        } else {
            multiply(outputs, K, n, M, V, true, first > 0, U);
        }
    }
    if (get_w) products_to_weights(out0_p, outputs, inputs, U.data);
"""


@functools.lru_cache(None)
def header(taps, stride, tile):
    """HEADER with its sizes and matrices."""
    defines = {"TAPS": taps, "STRIDE": stride, "TILE": tile, "CHUNK": CHUNK[taps + tile - 1]}
    defines |= zip(("MATRIX_B", "MATRIX_G", "MATRIX_A"), map(in_c, matrices(tile, taps)))
    return "".join(f"#define {name} {value}\n" for name, value in defines.items()) + HEADER


def run(tile, shapes, result, first, second):
    """The operation with this result, "y", "x" or "w", on the two other operands in the order x, y, w.

    Args:
        tile: 2 or 4, outputs of a tile in both directions; with 4, at most three taps.
        shapes: a `jittor_fast.convolution.Shapes`.
    """
    taps, (images, inputs, height, width), (outputs, out_height, out_width) = (
        shapes.taps,
        shapes.x,
        shapes.y[1:],
    )
    n = taps + tile - 1
    k = inputs * shapes.stride**2
    scratch = n**2 * (outputs * k + (outputs + k) * CHUNK[n])
    numbers = {
        "images": images,
        "inputs": inputs,
        "height": height,
        "width": width,
        "outputs": outputs,
        "out_height": out_height,
        "out_width": out_width,
        "padding": shapes.padding,
    }
    output = [list(getattr(shapes, result)), [scratch]]
    source = SOURCE, header(taps, shapes.stride, tile)
    return kernel(output, [first, second], *source, result=ord(result), **numbers)[0]
