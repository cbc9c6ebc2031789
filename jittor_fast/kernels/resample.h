// Resampling by a short filter, and products of images with a factor for each channel.
//
// `planes` is images times channels; a plane has `height` rows of `width` pixels.
#include <algorithm>
#include <vector>

#include "shared.h"

namespace jittor_fast {

// ---- resampling by the filter 1 3 3 1 ----

struct Resampling {
    int64_t planes, height, width, new_height, new_width, before;
    float gain;
};

// Puts UP - 1 zeros behind every pixel and `before` zeros before the first one, filters
// the result in both directions by `gain` / 8 times (1, 3, 3, 1), and keeps every
// DOWN-th pixel. Pixels behind the last one are 0.
template <int UP, int DOWN>
static inline void resample_planes(const Resampling& sizes, const float* images, float* result) {
    const int64_t height = sizes.height, width = sizes.width, before = sizes.before;
    const float one = sizes.gain / 8, three = 3 * one;
    // A row that is filled up with zeros: all that any output pixel reads.
    const int64_t length = std::max((sizes.new_width - 1) * DOWN + 4, before + width * UP);
    #pragma omp parallel if (worth_sharing(sizes.planes * sizes.new_height * sizes.new_width))
    {
        std::vector<float> zeros(width, 0.0f), filled(length, 0.0f);
        float* __restrict row = filled.data();
        #pragma omp for schedule(static)
        for (int64_t p = 0; p < sizes.planes; p++) {
            const float* image = images + p * height * width;
            for (int64_t i = 0; i < sizes.new_height; i++) {
                const float* x[4];  // the four rows of the image under the filter
                for (int64_t k = 0; k < 4; k++) {
                    const int64_t at = i * DOWN - before + k;
                    const bool is_inside = at >= 0 && at % UP == 0 && at / UP < height;
                    x[k] = is_inside ? image + at / UP * width : zeros.data();
                }
                const float *a = x[0], *b = x[1], *c = x[2], *d = x[3];
                for (int64_t j = 0; j < width; j++)
                    row[before + j * UP] = one * (a[j] + d[j]) + three * (b[j] + c[j]);
                float* __restrict y = result + (p * sizes.new_height + i) * sizes.new_width;
                for (int64_t j = 0; j < sizes.new_width; j++) {
                    const float* r = row + j * DOWN;
                    y[j] = one * (r[0] + r[3]) + three * (r[1] + r[2]);
                }
            }
        }
    }
}

static inline void fir_resample(int64_t planes, int64_t height, int64_t width,
                                int64_t new_height, int64_t new_width, int64_t up, int64_t down,
                                int64_t before, float gain, const float* images, float* result) {
    const Resampling sizes = {planes, height, width, new_height, new_width, before, gain};
    if (up == 2) resample_planes<2, 1>(sizes, images, result);
    else if (down == 2) resample_planes<1, 2>(sizes, images, result);
    else resample_planes<1, 1>(sizes, images, result);
}

// ---- a factor for each channel of each image ----

// y = factor[plane] * x, in planes of `length` pixels.
static inline void modulate(int64_t planes, int64_t length, const float* x, const float* factor,
                            float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * length))
    for (int64_t p = 0; p < planes; p++) {
        const float f = factor[p];
        for (int64_t i = p * length; i < (p + 1) * length; i++) y[i] = f * x[i];
    }
}

// y = factor[plane] * x + shift[plane].
static inline void modulate_and_shift(int64_t planes, int64_t length, const float* x,
                                      const float* factor, const float* shift, float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * length))
    for (int64_t p = 0; p < planes; p++) {
        const float f = factor[p];
        const float s = shift[p];
        for (int64_t i = p * length; i < (p + 1) * length; i++) y[i] = f * x[i] + s;
    }
}

// The sum of x over each plane.
static inline void plane_sums(int64_t planes, int64_t length, const float* x, float* sums) {
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * length))
    for (int64_t p = 0; p < planes; p++) {
        float sum = 0;
        for (int64_t i = p * length; i < (p + 1) * length; i++) sum += x[i];
        sums[p] = sum;
    }
}

// The sum of x * y over each plane.
static inline void plane_products(int64_t planes, int64_t length, const float* x, const float* y,
                                  float* sums) {
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * length))
    for (int64_t p = 0; p < planes; p++) {
        float sum = 0;
        for (int64_t i = p * length; i < (p + 1) * length; i++) sum += x[i] * y[i];
        sums[p] = sum;
    }
}

}  // namespace jittor_fast
