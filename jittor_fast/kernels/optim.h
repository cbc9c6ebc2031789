// Updates of a parameter of n elements: Adam, and the moving average of weights.
#include "shared.h"

namespace jittor_fast {

// Kingma and Ba 2015, algorithm 1, with an L2 penalty of weight `decay`. `rate` is the
// learning rate with the first moment's bias correction, lr / (1 - b1^t), and
// `correction` that of the second moment, 1 / sqrt(1 - b2^t). m and v are overwritten.
static inline void adam(int64_t n, double b1, double b2, float eps, float decay, float rate,
                        float correction, const float* p, const float* gradient, float* new_p,
                        float* m, float* v) {
    // 1 - b2 is taken in double: 1 - 0.999f is off by 5e-5.
    const float keep_1 = b1;
    const float keep_2 = b2;
    const float add_1 = 1 - b1;
    const float add_2 = 1 - b2;
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) {
        const float g = gradient[i] + decay * p[i];
        const float new_m = keep_1 * m[i] + add_1 * g;
        const float new_v = keep_2 * v[i] + add_2 * g * g;
        // The compiler computes sqrt(v) as v * rsqrt(v), which is NaN where v is
        // subnormal: 1e-30 keeps clear of that.
        new_p[i] = p[i] - rate * new_m / (std::sqrt(new_v + 1e-30f) * correction + eps);
        m[i] = new_m;
        v[i] = new_v;
    }
}

// new_average = decay * average + (1 - decay) * p.
static inline void moving_average(int64_t n, double decay, const float* average, const float* p,
                                  float* new_average) {
    const float keep = decay;
    const float add = 1 - decay;
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) new_average[i] = keep * average[i] + add * p[i];
}

}  // namespace jittor_fast
