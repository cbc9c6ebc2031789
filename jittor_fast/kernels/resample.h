// Resampling by a short filter, and products of images with a factor for each channel.
//
// `planes` is images times channels; a plane has `height` rows of `width` pixels.
#include <vector>

#include "shared.h"

namespace jittor_fast {

// ---- resampling by the filter 1 3 3 1 ----

// Puts `up` - 1 zeros behind every pixel and `before` zeros before the first one, filters
// the result in both directions by `gain` / 8 times (1, 3, 3, 1), and keeps every
// `down`-th pixel. Pixels behind the last one are 0.
static inline void fir_resample(int64_t planes, int64_t height, int64_t width,
                                int64_t new_height, int64_t new_width, int64_t up, int64_t down,
                                int64_t before, float gain, const float* images, float* result) {
    const float filter[4] = {gain / 8, 3 * gain / 8, 3 * gain / 8, gain / 8};
    // The columns of a row that is filled up with zeros: all that any output pixel reads.
    const int64_t last = (new_width - 1) * down + 4;
    const int64_t end = before + width * up;
    const int64_t length = last > end ? last : end;
    #pragma omp parallel if (worth_sharing(planes * new_height * new_width))
    {
        std::vector<float> sums(width);
        std::vector<float> row(length, 0.0f);
        #pragma omp for schedule(static)
        for (int64_t p = 0; p < planes; p++) {
            const float* image = images + p * height * width;
            float* y = result + p * new_height * new_width;
            for (int64_t i = 0; i < new_height; i++) {
                for (int64_t j = 0; j < width; j++) sums[j] = 0;
                for (int64_t k = 0; k < 4; k++) {
                    const int64_t at = i * down - before + k;
                    if (at < 0 || at % up != 0 || at / up >= height) continue;
                    const float* x = image + at / up * width;
                    for (int64_t j = 0; j < width; j++) sums[j] += filter[k] * x[j];
                }
                for (int64_t j = 0; j < width; j++) row[before + j * up] = sums[j];
                for (int64_t j = 0; j < new_width; j++) {
                    const float* x = row.data() + j * down;
                    y[i * new_width + j] = filter[0] * x[0] + filter[1] * x[1] +
                                           filter[2] * x[2] + filter[3] * x[3];
                }
            }
        }
    }
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
