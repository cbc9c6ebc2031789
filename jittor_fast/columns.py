"""Convolutions as products of matrices, for layers with few channels on one side, such as an image's.

A patch of the narrow image, all of its channels, is a column of a matrix (C * k * k, number of patches), and the wide
image is the weights, (O, C * k * k), times this matrix; so are both gradients products with it or for it. oneDNN's
direct convolution fills up its vectors with zeros where there are three channels; here they lie along the rows of the
image. The narrow image is the input, or, at stride 1, the output: then the convolution's gradient for its input, a
convolution with the mirrored filter, is run in its place.

A filter as large as the image has one patch in each, and all images together are one product (`product`).
"""

import math

from jittor_fast.kernels import kernel

HEADER = """
#include <algorithm>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_max_threads() { return 1; }
inline int omp_get_thread_num() { return 0; }
#endif
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                          float, float*, int64_t);

// An image (C, height, width) whose patches of k x k are `stride` apart and begin `pad` outside of it.
struct Patches {
    int64_t C, height, width, across, k, stride, pad;

    // Calls f(row of the matrix, patch, row of the image or -1, column of the first patch's pixel, patches from
    // `low` to below `high` whose pixel lies inside the image) for `rows` rows of patches.
    template <class F> void each(int64_t first, int64_t rows, F f) const {
        for (int64_t c = 0; c < C; c++)
            for (int64_t e = 0; e < k * k; e++) {
                const int64_t left = e % k - pad;
                const int64_t low = std::min(across, left < 0 ? (-left + stride - 1) / stride : 0);
                const int64_t end = left >= width ? 0 : std::min(across, (width - 1 - left) / stride + 1);
                const int64_t high = std::max(low, end);
                for (int64_t r = 0; r < rows; r++) {
                    const int64_t y = (first + r) * stride - pad + e / k;
                    f(c * k * k + e, r * across, y < 0 || y >= height ? -1 : c * height + y, left, low, high);
                }
            }
    }
    void gather(const float* image, int64_t first, int64_t rows, float* columns) const {
        each(first, rows, [&](int64_t row, int64_t patch, int64_t y, int64_t left, int64_t low, int64_t high) {
            float* out = columns + row * rows * across + patch;
            if (y < 0) low = high = across;
            const float* in = image + y * width + left;
            std::fill(out, out + low, 0.0f);
            if (stride == 1) std::copy(in + low, in + high, out + low);
            else for (int64_t j = low; j < high; j++) out[j] = in[j * stride];
            std::fill(out + high, out + across, 0.0f);
        });
    }
    // The transpose of `gather`: adds to `band`, (C, length, width), the image's rows from `top` on.
    void scatter(const float* columns, int64_t first, int64_t rows, float* band, int64_t top, int64_t length) const {
        each(first, rows, [&](int64_t row, int64_t patch, int64_t y, int64_t left, int64_t low, int64_t high) {
            if (y < 0) return;
            const float* in = columns + row * rows * across + patch;
            float* out = band + (y / height * length + y % height - top) * width + left;
            if (stride == 1) for (int64_t j = low; j < high; j++) out[j] += in[j];
            else for (int64_t j = low; j < high; j++) out[j * stride] += in[j];
        });
    }
};
"""

# in: two of narrow image, wide image and weights, in this order. out: the third. A thread does whole rows of patches.
SOURCE = """
    const bool get_wide = data["result"] == 'W', get_narrow = data["result"] == 'N', mirrored = data["mirrored"];
    const int64_t images = data["images"], C = data["narrow"], O = data["wide"], k = data["k"], K = C * k * k;
    const int64_t height = data["height"], width = data["width"];
    const int64_t down = data["down"], across = data["across"], P = down * across;
    const Patches patches{C, height, width, across, k, (int64_t)data["stride"], (int64_t)data["padding"]};
    const float *narrow = in0_p, *wide = get_narrow ? in0_p : in1_p;
    // Rows of patches at a time, so that their matrix stays in the cache.
    const int64_t some = std::min(down, std::max<int64_t>(1, std::min<int64_t>(512, (1 << 17) / K) / across));
    const int64_t chunks = (down + some - 1) / some;

    // The place of weight (o, c, e) in the given weights.
    auto place = [&](int64_t o, int64_t c, int64_t e) {
        return mirrored ? (c * O + o) * k * k + k * k - 1 - e : (o * C + c) * k * k + e;
    };
    std::vector<float> weights(get_wide || get_narrow ? O * K : 0);  // (O, K), or (K, O) for the narrow image
    if (get_wide || get_narrow)
        for (int64_t o = 0; o < O; o++)
            for (int64_t c = 0; c < C; c++)
                for (int64_t e = 0; e < k * k; e++) {
                    const int64_t i = c * k * k + e;
                    weights[get_wide ? o * K + i : i * O + o] = in1_p[place(o, c, e)];
                }

    if (get_narrow) {
        // Neighbouring rows of patches overlap: each band of rows has its own sums, which are added afterwards.
        const int64_t stride = patches.stride, threads = omp_get_max_threads();
        const int64_t bands = std::min(down, (threads + images - 1) / images), tall = (down + bands - 1) / bands;
        const int64_t length = (tall - 1) * stride + k, size = C * length * width;
        std::vector<float> sums(images * bands * size);
        #pragma omp parallel
        {
            std::vector<float> columns(K * some * across);
            #pragma omp for schedule(static)
            for (int64_t t = 0; t < images * bands; t++) {
                const int64_t begin = t % bands * tall, end = std::min(down, begin + tall);
                for (int64_t row = begin; row < end; row += some) {
                    const int64_t rows = std::min(some, end - row), n = rows * across;
                    dnnl_sgemm('N', 'N', K, n, O, 1, weights.data(), O, wide + t / bands * O * P + row * across, P, 0,
                               columns.data(), n);
                    patches.scatter(columns.data(), row, rows, sums.data() + t * size,
                                    begin * stride - patches.pad, length);
                }
            }
            #pragma omp for schedule(static)
            for (int64_t i = 0; i < images * C * height; i++) {
                const int64_t y = i % height, c = i / height % C, image = i / height / C;
                float* out = out0_p + i * width;
                std::fill(out, out + width, 0.0f);
                for (int64_t b = 0; b < bands; b++) {
                    const int64_t line = y + patches.pad - b * tall * stride;
                    if (line < 0 || line >= length || b * tall >= down) continue;
                    const float* in = sums.data() + (image * bands + b) * size + (c * length + line) * width;
                    for (int64_t j = 0; j < width; j++) out[j] += in[j];
                }
            }
        }
        return;
    }
    std::vector<std::vector<float>> sums(omp_get_max_threads());  // of the weights' gradient, for each thread
    #pragma omp parallel
    {
        std::vector<float> columns(K * some * across);
        std::vector<float>& sum = sums[omp_get_thread_num()];
        if (!get_wide) sum.resize(O * K);
        #pragma omp for collapse(2) schedule(static)
        for (int64_t image = 0; image < images; image++)
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                const int64_t row = chunk * some, rows = std::min(some, down - row), n = rows * across;
                patches.gather(narrow + image * C * height * width, row, rows, columns.data());
                if (get_wide)
                    dnnl_sgemm('N', 'N', O, n, K, 1, weights.data(), K, columns.data(), n, 0,
                               out0_p + image * O * P + row * across, P);
                else
                    dnnl_sgemm('N', 'T', O, K, n, 1, wide + image * O * P + row * across, P, columns.data(), n, 1,
                               sum.data(), K);
            }
    }
    if (!get_wide)
        for (int64_t o = 0; o < O; o++)
            for (int64_t c = 0; c < C; c++)
                for (int64_t e = 0; e < k * k; e++) {
                    float total = 0;
                    for (auto& sum : sums) if (!sum.empty()) total += sum[o * K + c * k * k + e];
                    out0_p[place(o, c, e)] = total;
                }
"""


def run(shapes, result, first, second):
    """The operation with this result, "y", "x" or "w", on the two other operands in the order x, y, w.

    Args:
        shapes: a `jittor_fast.convolution.Shapes`.
    """
    mirrored = shapes.mirrored()
    narrow, wide = (shapes.y, shapes.x) if mirrored else (shapes.x, shapes.y)
    numbers = {
        "images": narrow[0],
        "narrow": narrow[1],
        "height": narrow[2],
        "width": narrow[3],
        "wide": wide[1],
        "down": wide[2],
        "across": wide[3],
        "k": shapes.w[2],
        "stride": shapes.stride,
        "padding": shapes.w[2] - 1 - shapes.padding if mirrored else shapes.padding,
        "mirrored": int(mirrored),
    }
    if result == "w" and mirrored:
        first, second = second, first
    kind = "w" if result == "w" else "N" if (result == "y") == mirrored else "W"
    shape = getattr(shapes, result)
    return kernel([list(shape)], [first, second], SOURCE, HEADER, result=ord(kind), **numbers)[0]


# in: two of images (images, K), outputs (images, O) and weights (O, K), in this order. out: the third.
PRODUCT = """
    const int64_t images = data["images"], O = data["O"], K = data["K"];
    if (data["result"] == 'y') dnnl_sgemm('N', 'T', images, O, K, 1, in0_p, K, in1_p, K, 0, out0_p, O);
    if (data["result"] == 'x') dnnl_sgemm('N', 'N', images, K, O, 1, in0_p, O, in1_p, K, 0, out0_p, K);
    if (data["result"] == 'w') dnnl_sgemm('T', 'N', O, K, images, 1, in1_p, O, in0_p, K, 0, out0_p, K);
"""


def product(shapes, result, first, second):
    """`run` where the filter covers the whole image."""
    sizes = {"images": shapes.x[0], "O": shapes.w[0], "K": math.prod(shapes.w[1:])}
    shape = list(getattr(shapes, result))
    return kernel([shape], [first, second], PRODUCT, HEADER, result=ord(result), **sizes)[0]
