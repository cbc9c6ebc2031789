// Dropout, by a hash instead of a sequence of random numbers.
#include "hash.h"

namespace jittor_fast {

// y = scale * x where the hash of the element's index and the seed is at least `limit`,
// else 0. So the mask does not depend on the order of threads, and backward finds the
// same one again.
static inline void dropout(int64_t n, uint32_t seed, uint32_t limit, float scale, const float* x,
                           float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) {
        y[i] = hashed((uint32_t)i ^ seed) >= limit ? x[i] * scale : 0;
    }
}

}  // namespace jittor_fast
