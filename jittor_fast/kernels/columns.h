// Convolutions as products of matrices, for layers with few channels on one side.
//
// The `narrow` image has few channels, C; the `wide` one has O. A patch of the narrow
// image, all of its channels, is a column of a matrix (C * k * k, number of patches).
// The wide image is the weights, (O, C * k * k), times this matrix; both gradients are
// products with it or for it. jittor_fast/columns.py says which image is which.
#include <algorithm>
#include <vector>

#include "shared.h"

namespace jittor_fast {

// An image (C, height, width) whose patches of k x k pixels are `stride` apart. The
// first one begins `pad` pixels outside of the image, and `across` patches lie in a
// row.
struct Patches {
    int64_t C, height, width, across, k, stride, pad;

    // Calls f for every row of the matrix and every one of `rows` rows of patches from
    // `first` on:
    //     f(row of the matrix, first patch, row of the image or -1 outside of it,
    //       column of the first patch's pixel, low, high)
    // where the patches from `low` to below `high` have their pixel inside the image.
    template <class F>
    void each(int64_t first, int64_t rows, F f) const {
        for (int64_t c = 0; c < C; c++)
        for (int64_t e = 0; e < k * k; e++) {
            const int64_t left = e % k - pad;
            const int64_t low = std::min(across, left < 0 ? (-left + stride - 1) / stride : 0);
            const int64_t end =
                left >= width ? 0 : std::min(across, (width - 1 - left) / stride + 1);
            const int64_t high = std::max(low, end);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t y = (first + r) * stride - pad + e / k;
                const int64_t row = y < 0 || y >= height ? -1 : c * height + y;
                f(c * k * k + e, r * across, row, left, low, high);
            }
        }
    }

    // Fills the columns of `rows` rows of patches; pixels outside of the image are 0.
    void gather(const float* image, int64_t first, int64_t rows, float* columns) const {
        each(first, rows, [&](int64_t row, int64_t patch, int64_t y, int64_t left, int64_t low,
                              int64_t high) {
            float* out = columns + row * rows * across + patch;
            if (y < 0) low = high = across;
            const float* in = image + y * width + left;
            std::fill(out, out + low, 0.0f);
            if (stride == 1) std::copy(in + low, in + high, out + low);
            else for (int64_t j = low; j < high; j++) out[j] = in[j * stride];
            std::fill(out + high, out + across, 0.0f);
        });
    }

    // The transpose of `gather`: adds the columns to `band`, (C, length, width), which
    // holds the image's rows from `top` on.
    void scatter(const float* columns, int64_t first, int64_t rows, float* band, int64_t top,
                 int64_t length) const {
        each(first, rows, [&](int64_t row, int64_t patch, int64_t y, int64_t left, int64_t low,
                              int64_t high) {
            if (y < 0) return;
            const float* in = columns + row * rows * across + patch;
            float* out = band + (y / height * length + y % height - top) * width + left;
            if (stride == 1) for (int64_t j = low; j < high; j++) out[j] += in[j];
            else for (int64_t j = low; j < high; j++) out[j * stride] += in[j];
        });
    }
};

// A convolution between the narrow image (images, C, height, width), the wide image
// (images, O, down, patches.across) and the weights.
struct Columns {
    Patches patches;
    int64_t images, O, down;
    bool mirrored;  // the weights are (C, O, k, k), and their filters are mirrored

    int64_t depth() const { return patches.C * patches.k * patches.k; }
    int64_t pixels() const { return down * patches.across; }  // of the wide image

    // The rows of patches that are taken at a time, so that their matrix stays in the
    // cache.
    int64_t rows_at_a_time() const {
        const int64_t fitting = std::min<int64_t>(512, (1 << 17) / depth()) / patches.across;
        return std::min(down, std::max<int64_t>(1, fitting));
    }

    // The place of weight (o, c, e) in the given weights.
    int64_t place(int64_t o, int64_t c, int64_t e) const {
        const int64_t kk = patches.k * patches.k;
        return mirrored ? (c * O + o) * kk + kk - 1 - e : (o * patches.C + c) * kk + e;
    }

    // The given weights as a matrix (O, depth), or transposed.
    std::vector<float> matrix(const float* given, bool transposed) const {
        const int64_t kk = patches.k * patches.k;
        const int64_t K = depth();
        std::vector<float> weights(O * K);
        for (int64_t o = 0; o < O; o++)
        for (int64_t c = 0; c < patches.C; c++)
        for (int64_t e = 0; e < kk; e++) {
            const int64_t i = c * kk + e;
            weights[transposed ? i * O + o : o * K + i] = given[place(o, c, e)];
        }
        return weights;
    }

    // The wide image from the narrow one and the weights.
    void get_wide(const float* narrow, const float* given, float* wide) const {
        const std::vector<float> weights = matrix(given, false);
        const int64_t K = depth();
        const int64_t P = pixels();
        const int64_t some = rows_at_a_time();
        const int64_t chunks = (down + some - 1) / some;
        const int64_t size = patches.C * patches.height * patches.width;
        #pragma omp parallel
        {
            std::vector<float> columns(K * some * patches.across);
            #pragma omp for collapse(2) schedule(static)
            for (int64_t image = 0; image < images; image++)
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                const int64_t row = chunk * some;
                const int64_t rows = std::min(some, down - row);
                const int64_t n = rows * patches.across;
                patches.gather(narrow + image * size, row, rows, columns.data());
                dnnl_sgemm('N', 'N', O, n, K, 1, weights.data(), K, columns.data(), n, 0,
                           wide + image * O * P + row * patches.across, P);
            }
        }
    }

    // The weights' gradient from both images. Each thread has its own sum.
    void get_weights(const float* narrow, const float* wide, float* given) const {
        const int64_t K = depth();
        const int64_t P = pixels();
        const int64_t some = rows_at_a_time();
        const int64_t chunks = (down + some - 1) / some;
        const int64_t size = patches.C * patches.height * patches.width;
        std::vector<std::vector<float>> sums(omp_get_max_threads());
        #pragma omp parallel
        {
            std::vector<float> columns(K * some * patches.across);
            std::vector<float>& sum = sums[omp_get_thread_num()];
            sum.resize(O * K);
            #pragma omp for collapse(2) schedule(static)
            for (int64_t image = 0; image < images; image++)
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                const int64_t row = chunk * some;
                const int64_t rows = std::min(some, down - row);
                const int64_t n = rows * patches.across;
                patches.gather(narrow + image * size, row, rows, columns.data());
                dnnl_sgemm('N', 'T', O, K, n, 1, wide + image * O * P + row * patches.across, P,
                           columns.data(), n, 1, sum.data(), K);
            }
        }
        const int64_t kk = patches.k * patches.k;
        for (int64_t o = 0; o < O; o++)
        for (int64_t c = 0; c < patches.C; c++)
        for (int64_t e = 0; e < kk; e++) {
            float total = 0;
            // In the threads' order. The sum of a thread that did not run is empty.
            for (const auto& sum : sums)
                if (!sum.empty()) total += sum[o * K + c * kk + e];
            given[place(o, c, e)] = total;
        }
    }

    // The narrow image's gradient from the wide one's and the weights. Neighbouring
    // rows of patches overlap: each band of rows has its own sums, which are added
    // up afterwards.
    void get_narrow(const float* wide, const float* given, float* narrow) const {
        const std::vector<float> weights = matrix(given, true);
        const int64_t K = depth();
        const int64_t P = pixels();
        const int64_t some = rows_at_a_time();
        const int64_t threads = omp_get_max_threads();
        // Of each image, with `tall` rows of patches and `length` rows of pixels.
        const int64_t bands = std::min(down, (threads + images - 1) / images);
        const int64_t tall = (down + bands - 1) / bands;
        const int64_t length = (tall - 1) * patches.stride + patches.k;
        const int64_t size = patches.C * length * patches.width;
        std::vector<float> sums(images * bands * size);
        #pragma omp parallel
        {
            std::vector<float> columns(K * some * patches.across);
            #pragma omp for schedule(static)
            for (int64_t t = 0; t < images * bands; t++) {
                const int64_t begin = t % bands * tall;
                const int64_t end = std::min(down, begin + tall);
                for (int64_t row = begin; row < end; row += some) {
                    const int64_t rows = std::min(some, end - row);
                    const int64_t n = rows * patches.across;
                    dnnl_sgemm('N', 'N', K, n, O, 1, weights.data(), O,
                               wide + t / bands * O * P + row * patches.across, P, 0,
                               columns.data(), n);
                    patches.scatter(columns.data(), row, rows, sums.data() + t * size,
                                    begin * patches.stride - patches.pad, length);
                }
            }
            #pragma omp for schedule(static)
            for (int64_t i = 0; i < images * patches.C * patches.height; i++)
                add_bands(sums.data(), bands, tall, length, i, narrow + i * patches.width);
        }
    }

    // Row i of the narrow images, as the sum of the bands that it lies in.
    void add_bands(const float* sums, int64_t bands, int64_t tall, int64_t length, int64_t i,
                   float* out) const {
        const int64_t y = i % patches.height;
        const int64_t c = i / patches.height % patches.C;
        const int64_t image = i / patches.height / patches.C;
        const int64_t size = patches.C * length * patches.width;
        std::fill(out, out + patches.width, 0.0f);
        for (int64_t b = 0; b < bands; b++) {
            const int64_t line = y + patches.pad - b * tall * patches.stride;
            if (line < 0 || line >= length || b * tall >= down) continue;
            const float* in =
                sums + (image * bands + b) * size + (c * length + line) * patches.width;
            for (int64_t j = 0; j < patches.width; j++) out[j] += in[j];
        }
    }
};

// `result` is 'W' for the wide image, 'N' for the narrow one, and 'w' for the weights.
// `first` and `second` are the two others, in the order narrow image, wide image,
// weights.
static inline void columns(int result, int64_t images, int64_t narrow, int64_t height,
                           int64_t width, int64_t wide, int64_t down, int64_t across, int64_t k,
                           int64_t stride, int64_t padding, bool mirrored, const float* first,
                           const float* second, float* out) {
    const Patches patches{narrow, height, width, across, k, stride, padding};
    const Columns convolution{patches, images, wide, down, mirrored};
    if (result == 'W') convolution.get_wide(first, second, out);
    if (result == 'N') convolution.get_narrow(first, second, out);
    if (result == 'w') convolution.get_weights(first, second, out);
}

// A filter as large as the image has one patch in each: all images together are one
// product of x (images, K), y (images, O) and w (O, K). `result` is 'x', 'y' or 'w';
// `first` and `second` are the two others, in the order x, y, w.
static inline void product(int result, int64_t images, int64_t O, int64_t K, const float* first,
                           const float* second, float* out) {
    if (result == 'y') dnnl_sgemm('N', 'T', images, O, K, 1, first, K, second, K, 0, out, O);
    if (result == 'x') dnnl_sgemm('N', 'N', images, K, O, 1, first, O, second, K, 0, out, K);
    if (result == 'w') dnnl_sgemm('T', 'N', O, K, images, 1, second, O, first, K, 0, out, K);
}

}  // namespace jittor_fast
