// Batch norm and instance norm.
//
// A group is a set of elements with one mean: a channel of the batch (batch norm), or a
// channel of one image (instance norm). It lies in several pieces of `length` elements;
// piece r of group g starts at element (r * groups + g) * length. `weight` and `bias`
// have a value for each channel.
//
// Sums are formed in float along a piece and in double over the pieces. The variance is
// the mean of (x - mean)^2, since E[x^2] - E[x]^2 loses all digits where the mean is
// large.
#include "shared.h"

namespace jittor_fast {

// y = (x - mean) * weight / sqrt(variance + eps) + bias, with each group's mean and
// (biased) variance.
static inline void normalize(int64_t groups, int64_t pieces, int64_t length, int64_t channels,
                             float eps, const float* x, const float* weight, const float* bias,
                             float* y, float* means, float* variances) {
    const double count = pieces * length;
    #pragma omp parallel for schedule(static) if (worth_sharing(groups * pieces * length))
    for (int64_t g = 0; g < groups; g++) {
        double sum = 0;
        double squares = 0;
        for (int64_t r = 0; r < pieces; r++) {
            const float* in = x + (r * groups + g) * length;
            float part = 0;
            for (int64_t i = 0; i < length; i++) part += in[i];
            sum += part;
        }
        const float mean = sum / count;
        for (int64_t r = 0; r < pieces; r++) {
            const float* in = x + (r * groups + g) * length;
            float part = 0;
            for (int64_t i = 0; i < length; i++) part += (in[i] - mean) * (in[i] - mean);
            squares += part;
        }
        const float variance = squares / count;
        const float scale = weight[g % channels] / std::sqrt(variance + eps);
        const float shift = bias[g % channels];
        for (int64_t r = 0; r < pieces; r++) {
            const float* in = x + (r * groups + g) * length;
            float* out = y + (r * groups + g) * length;
            for (int64_t i = 0; i < length; i++) out[i] = (in[i] - mean) * scale + shift;
        }
        means[g] = mean;
        variances[g] = variance;
    }
}

// The gradients of `normalize`. With h = (x - mean) / deviation, of each group:
//     dbias   = sum(dy)
//     dweight = sum(dy * h)
//     dx      = weight / deviation * (dy - dbias / count - h * dweight / count)
static inline void normalize_gradient(int64_t groups, int64_t pieces, int64_t length,
                                      int64_t channels, float eps, const float* x,
                                      const float* weight, const float* means,
                                      const float* variances, const float* dy, float* dx,
                                      float* dweight, float* dbias) {
    const double count = pieces * length;
    #pragma omp parallel for schedule(static) if (worth_sharing(groups * pieces * length))
    for (int64_t g = 0; g < groups; g++) {
        const float mean = means[g];
        const float inverse = 1 / std::sqrt(variances[g] + eps);
        double sum = 0;
        double product = 0;
        for (int64_t r = 0; r < pieces; r++) {
            const float* in = x + (r * groups + g) * length;
            const float* slope = dy + (r * groups + g) * length;
            float part = 0;
            float part_product = 0;
            for (int64_t i = 0; i < length; i++) {
                part += slope[i];
                part_product += slope[i] * (in[i] - mean) * inverse;
            }
            sum += part;
            product += part_product;
        }
        const float scale = weight[g % channels] * inverse;
        const float a = sum / count;
        const float b = product / count * inverse;
        for (int64_t r = 0; r < pieces; r++) {
            const float* in = x + (r * groups + g) * length;
            const float* slope = dy + (r * groups + g) * length;
            float* out = dx + (r * groups + g) * length;
            for (int64_t i = 0; i < length; i++) {
                out[i] = scale * (slope[i] - a - b * (in[i] - mean));
            }
        }
        dweight[g] = product;
        dbias[g] = sum;
    }
}

}  // namespace jittor_fast
