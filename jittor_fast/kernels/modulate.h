// SPADE's modulation by a scale and a shift for each pixel.
#include "shared.h"

namespace jittor_fast {

// y = x (1 + gamma) + beta. `both` (images, 2 * channels, length) holds gamma and,
// `channels` channels behind it, beta.
static inline void modulate(int64_t images, int64_t channels, int64_t length, const float* x,
                            const float* both, float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(images * channels * length))
    for (int64_t p = 0; p < images * channels; p++) {
        const int64_t at = p * length;
        const int64_t scale = at + p / channels * channels * length;
        const int64_t shift = scale + channels * length;
        for (int64_t i = 0; i < length; i++)
            y[at + i] = x[at + i] * (1 + both[scale + i]) + both[shift + i];
    }
}

static inline void modulate_gradient(int64_t images, int64_t channels, int64_t length,
                                     const float* x, const float* both, const float* dy,
                                     float* dx, float* dboth) {
    #pragma omp parallel for schedule(static) if (worth_sharing(images * channels * length))
    for (int64_t p = 0; p < images * channels; p++) {
        const int64_t at = p * length;
        const int64_t scale = at + p / channels * channels * length;
        const int64_t shift = scale + channels * length;
        for (int64_t i = 0; i < length; i++) {
            dx[at + i] = dy[at + i] * (1 + both[scale + i]);
            dboth[scale + i] = dy[at + i] * x[at + i];
            dboth[shift + i] = dy[at + i];
        }
    }
}

}  // namespace jittor_fast
