// Activations: one pass over n elements.
#include "shared.h"

namespace jittor_fast {

// y = x where `sign` is positive, else slope * x. Forward, `sign` is x itself;
// backward, x is the gradient and `sign` anything with the sign of the activation's
// input.
static inline void leaky_relu(int64_t n, float slope, const float* sign, const float* x,
                              float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) y[i] = sign[i] > 0 ? x[i] : slope * x[i];
}

static inline void tanh(int64_t n, const float* x, float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) y[i] = std::tanh(x[i]);
}

// ELU with an alpha of 1: y = x where x is positive, else exp(x) - 1.
static inline void elu(int64_t n, const float* x, float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : std::exp(x[i]) - 1;
}

// dx = dy * dELU/dx from y = ELU(x): where x is negative, exp(x) = y + 1.
static inline void elu_gradient(int64_t n, const float* y, const float* dy, float* dx) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] > 0 ? dy[i] : (y[i] + 1) * dy[i];
}

}  // namespace jittor_fast
