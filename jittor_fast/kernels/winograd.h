// Convolutions with half of the multiplications or fewer; jittor_fast/winograd.py
// explains them.
//
// It defines, before this text: TAPS, the side of a filter; STRIDE, of the convolution;
// TILE, the outputs of a tile in both directions; CHUNK, the tiles that are taken at a
// time; and the matrices MATRIX_B (N, N), MATRIX_G (N, TAPS) and MATRIX_A (N, TILE).
// With * for a product of elements,
//
//     U = G w G^T    V = B x B^T    y = A^T (U V) A    dx = B^T (U^T (A dy A^T)) B
//     dw = G^T ((A dy A^T) V^T) G
#include <algorithm>
#include <vector>

#include "shared.h"

namespace jittor_fast {

const int N = TAPS + TILE - 1;  // products for each tile in both directions
const int KERNEL = TAPS * STRIDE;
// A filter with a stride is a sum of this many without one.
const int PHASES = STRIDE * STRIDE;
static const float B[N][N] = MATRIX_B;
static const float G[N][TAPS] = MATRIX_G;
static const float A[N][TILE] = MATRIX_A;

// ---- the transforms of many patches at a time ----

// Patches have E x E pixels, E = IN * S; pixel e of patch p is patches[e * width + p].
// For each of the S * S phases, product = m phase m^T; its element k for patch p is
// products[k * step + phase * phase_step + p]. `half` has room for N * IN * n elements.
template <int IN, int S>
void transform(const float (&m)[N][IN], const float* patches, int64_t width, float* products,
               int64_t step, int64_t phase_step, float* half, int64_t n) {
    for (int phase = 0; phase < S * S; phase++) {
        const float* x = patches + (phase / S * IN * S + phase % S) * width;
        float* y = products + phase * phase_step;
        for (int j = 0; j < IN; j++)
            #pragma omp simd
            for (int64_t p = 0; p < n; p++)
                for (int i = 0; i < N; i++) {
                    float sum = 0;
                    for (int k = 0; k < IN; k++)
                        sum += m[i][k] * x[(k * IN * S + j) * S * width + p];
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
void transform_back(const float (&m)[N][IN], float* patches, int64_t width, const float* products,
                    int64_t step, int64_t phase_step, float* half, int64_t n) {
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

// ---- images and their tiles ----

// (images, channels, height, width) pixels, covered by tiles: those of the
// convolution's output have TILE x TILE pixels, those of its input the E x E pixels on
// which they depend. Tiles are numbered along rows, then images; `down` times `across`
// of them cover an image.
struct Image {
    float* data;
    int64_t channels, height, width, pad, down, across;

    // Calls f for every row of pixels of the patches in every run of tiles along a row:
    //     f(index of the row's first pixel or -1 outside of the image,
    //       column of the first patch, its place in `patches`, number of patches)
    template <int E, int STEP, class F>
    void each_row(int64_t channel, int64_t first, int64_t count, F f) const {
        for (int64_t p = 0, run; p < count; p += run) {
            const int64_t tile = first + p;
            const int64_t column = tile % across;
            const int64_t row = tile / across % down;
            const int64_t plane = (tile / across / down * channels + channel) * height;
            run = std::min(across - column, count - p);
            for (int e = 0; e < E; e++) {
                const int64_t y = row * STEP - pad + e;
                f(y < 0 || y >= height ? -1 : (plane + y) * width, column * STEP - pad,
                  e * E * CHUNK + p, run);
            }
        }
    }

    // The patches of a run that lie between the image's borders: from `low` to below
    // `high`.
    template <int E, int STEP>
    void inside(int64_t x, int64_t run, int64_t& low, int64_t& high) const {
        for (low = 0; low < run && x + low * STEP < 0;) low++;
        for (high = run; high > low && x + (high - 1) * STEP + E > width;) high--;
    }

    // Copies `count` tiles of one channel from `first` on; pixels outside of the image
    // are 0.
    template <int E, int STEP>
    void gather(int64_t channel, int64_t first, int64_t count, float* patches) const {
        each_row<E, STEP>(channel, first, count, [&](int64_t row, int64_t x, int64_t place,
                                                     int64_t run) {
            float* out = patches + place;
            if (row < 0) {
                for (int e = 0; e < E; e++)
                    std::fill(out + e * CHUNK, out + e * CHUNK + run, 0.0f);
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

    // The transpose of `gather`: adds the patches to the image.
    template <int E, int STEP>
    void add(int64_t channel, int64_t first, int64_t count, const float* patches) const {
        each_row<E, STEP>(channel, first, count, [&](int64_t row, int64_t x, int64_t place,
                                                     int64_t run) {
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
            // Neighbours overlap by E - STEP pixels; each of the two loops alone
            // touches no pixel twice.
            for (int64_t t = low; t < high; t++)
                for (int e = 0; e < STEP; e++) out[x + t * STEP + e] += in[e * CHUNK + t];
            for (int64_t t = low; t < high; t++)
                for (int e = STEP; e < E; e++) out[x + t * STEP + e] += in[e * CHUNK + t];
        });
    }

    // The products (N * N, S * S * channels, CHUNK) of `count` tiles from `first` on,
    // by `m`. A thread has whole channels.
    template <int IN, int S>
    void to_products(const float (&m)[N][IN], int64_t first, int64_t count, float* out) const {
        #pragma omp parallel
        {
            std::vector<float> patches(IN * S * IN * S * CHUNK), half(N * IN * CHUNK);
            #pragma omp for schedule(static)
            for (int64_t c = 0; c < channels; c++) {
                gather<IN * S, TILE * S>(c, first, count, patches.data());
                transform<IN, S>(m, patches.data(), CHUNK, out + c * CHUNK,
                                 S * S * channels * CHUNK, channels * CHUNK, half.data(), count);
            }
        }
    }

    // The adjoint of `to_products`: adds what comes from the products to the image.
    template <int IN, int S>
    void add_products(const float (&m)[N][IN], int64_t first, int64_t count,
                      const float* in) const {
        #pragma omp parallel
        {
            std::vector<float> patches(IN * S * IN * S * CHUNK), half(N * IN * CHUNK);
            #pragma omp for schedule(static)
            for (int64_t c = 0; c < channels; c++) {
                transform_back<IN, S>(m, patches.data(), CHUNK, in + c * CHUNK,
                                      S * S * channels * CHUNK, channels * CHUNK, half.data(),
                                      count);
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

// ---- weights ----

// Weights (outputs, inputs, KERNEL, KERNEL) to products U (N * N, outputs, PHASES *
// inputs).
void weights_to_products(const float* weights, int64_t outputs, int64_t inputs, float* products) {
    const int E = KERNEL * KERNEL;
    #pragma omp parallel
    {
        std::vector<float> patches(E * inputs), half(N * TAPS * inputs);
        #pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; o++) {
            for (int64_t i = 0; i < inputs; i++)
                for (int e = 0; e < E; e++)
                    patches[e * inputs + i] = weights[(o * inputs + i) * E + e];
            transform<TAPS, STRIDE>(G, patches.data(), inputs, products + o * PHASES * inputs,
                                    outputs * PHASES * inputs, inputs, half.data(), inputs);
        }
    }
}

// The same, with each of the N * N matrices transposed: (N * N, PHASES * inputs,
// outputs).
void weights_to_transposed(const float* weights, int64_t outputs, int64_t inputs,
                           float* products) {
    const int E = KERNEL * KERNEL;
    #pragma omp parallel
    {
        std::vector<float> patches(E * outputs), half(N * TAPS * outputs);
        #pragma omp for schedule(static)
        for (int64_t i = 0; i < inputs; i++) {
            for (int64_t o = 0; o < outputs; o++)
                for (int e = 0; e < E; e++)
                    patches[e * outputs + o] = weights[(o * inputs + i) * E + e];
            transform<TAPS, STRIDE>(G, patches.data(), outputs, products + i * outputs,
                                    PHASES * inputs * outputs, inputs * outputs, half.data(),
                                    outputs);
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
                for (int e = 0; e < E; e++)
                    weights[(o * inputs + i) * E + e] = patches[e * inputs + i];
        }
    }
}

// ---- products of matrices ----

// N * N matrices, each `step` behind the one before, with rows `ld` apart.
struct Matrix {
    float* data;
    int64_t ld, step;
};

// For each of them c = a b + beta c: a (rows, depth), b (depth, columns) or,
// transposed, (columns, depth). A thread has whole pieces of columns: all threads wait
// for each other once, where a product on all threads would wait N * N times, which
// takes long on a busy machine. The schedule is dynamic, but no sum depends on which
// thread takes a piece.
void multiply(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, bool transposed,
              float beta, Matrix c) {
    // eight tasks for a thread or more
    const int64_t wanted = (8 * omp_get_max_threads() + N * N - 1) / (N * N);
    const int64_t piece = std::max<int64_t>(24, ((columns + wanted - 1) / wanted + 7) / 8 * 8);
    const int64_t pieces = (columns + piece - 1) / piece;
    #pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t k = 0; k < N * N; k++)
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t first = i * piece;
            dnnl_sgemm('N', transposed ? 'T' : 'N', rows, std::min(piece, columns - first), depth,
                       1, a.data + k * a.step, a.ld,
                       b.data + k * b.step + first * (transposed ? b.ld : 1), b.ld, beta,
                       c.data + k * c.step + first, c.ld);
        }
}

// ---- the kernel ----

// One function has all three operations, for compiling it takes seconds. `result` is
// 'x', 'y' or 'w'; `first` and `second` are the two others, in the order x, y, w: the
// input (images, inputs, height, width), the output (images, outputs, out_height,
// out_width), the weights (outputs, inputs, KERNEL, KERNEL).
//
// The scratch memory holds the products U (N * N, outputs, K) of the weights and, for
// one chunk of tiles, V (N * N, K, CHUNK) of the input and M (N * N, outputs, CHUNK) of
// the output.
static inline void winograd(int result, int64_t images, int64_t inputs, int64_t height,
                            int64_t width, int64_t outputs, int64_t out_height, int64_t out_width,
                            int64_t padding, float* first, float* second, float* out,
                            float* scratch) {
    const bool get_x = result == 'x';
    const bool get_y = result == 'y';
    const bool get_w = result == 'w';
    const int64_t K = PHASES * inputs;
    const int64_t down = (out_height + TILE - 1) / TILE;
    const int64_t across = (out_width + TILE - 1) / TILE;
    const int64_t tiles = images * down * across;
    const Image x{get_x ? out : first, inputs, height, width, padding, down, across};
    const Image y{get_y ? out : get_x ? first : second, outputs, out_height, out_width, 0, down,
                  across};
    const Matrix U{scratch, K, outputs * K};
    const Matrix V{U.data + N * N * outputs * K, CHUNK, K * CHUNK};
    const Matrix M{V.data + N * N * K * CHUNK, CHUNK, outputs * CHUNK};

    if (get_y) {
        weights_to_products(second, outputs, inputs, U.data);
        y.clear(images);
    } else if (get_x) {
        weights_to_transposed(second, outputs, inputs, U.data);
        x.clear(images);
    }
    for (int64_t tile = 0; tile < tiles; tile += CHUNK) {
        const int64_t n = std::min<int64_t>(CHUNK, tiles - tile);
        if (!get_x) x.to_products<N, STRIDE>(B, tile, n, V.data);
        if (!get_y) y.to_products<TILE, 1>(A, tile, n, M.data);
        if (get_y) {
            multiply(outputs, n, K, U, V, false, 0, M);
            y.add_products<TILE, 1>(A, tile, n, M.data);
        } else if (get_x) {
            multiply(K, n, outputs, {U.data, outputs, U.step}, M, false, 0, V);
            x.add_products<N, STRIDE>(B, tile, n, V.data);
        } else {
            multiply(outputs, K, n, M, V, true, tile > 0, U);
        }
    }
    if (get_w) products_to_weights(out, outputs, inputs, U.data);
}

}  // namespace jittor_fast
