// A convolution's bias. Images are (images, channels, length), with `length` pixels
// each.
#include "shared.h"

namespace jittor_fast {

// y = x + bias[channel].
static inline void add_bias(int64_t images, int64_t channels, int64_t length, const float* x,
                            const float* bias, float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(images * channels * length))
    for (int64_t p = 0; p < images * channels; p++) {
        const float b = bias[p % channels];
        for (int64_t i = p * length; i < (p + 1) * length; i++) y[i] = x[i] + b;
    }
}

// The sum of each channel over all images and pixels, which is the gradient of the
// bias: in float along an image's channel, and in double over the images.
static inline void sum_channels(int64_t images, int64_t channels, int64_t length, const float* x,
                                float* sums) {
    #pragma omp parallel for schedule(static) if (worth_sharing(images * channels * length))
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t image = 0; image < images; image++) {
            const float* pixels = x + (image * channels + c) * length;
            float part = 0;
            for (int64_t i = 0; i < length; i++) part += pixels[i];
            sum += part;
        }
        sums[c] = sum;
    }
}

}  // namespace jittor_fast
