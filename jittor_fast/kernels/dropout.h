// Dropout, by a hash instead of a sequence of random numbers.
#include "shared.h"

namespace jittor_fast {

// A 32-bit mixer of low bias, found by https://github.com/skeeto/hash-prospector.
static inline uint32_t hashed(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x21f0aaadu;
    h = (h ^ (h >> 15)) * 0xd35a2d97u;
    return h ^ (h >> 15);
}

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
