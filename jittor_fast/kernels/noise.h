// Gaussian noise, by a hash instead of a sequence of random numbers.
#include "hash.h"

namespace jittor_fast {

// The upper 24 bits of a hash as a number between 0 and 1, neither of them included.
static inline float between_0_and_1(uint32_t h) { return ((h >> 8) + 0.5f) / 16777216; }

// y = x + deviation * n, where n is normally distributed by the method of Box and
// Muller: of an element's two hashes, the first one gives a length, the second one an
// angle.
static inline void add_noise(int64_t n, uint32_t seed, float deviation, const float* x,
                             float* y) {
    #pragma omp parallel for schedule(static) if (worth_sharing(n))
    for (int64_t i = 0; i < n; i++) {
        uint32_t first = hashed((uint32_t)i ^ seed);
        uint32_t second = hashed(first + 0x9e3779b9u);
        float length = std::sqrt(-2 * std::log(between_0_and_1(first)));
        float angle = 6.2831853f * between_0_and_1(second);
        y[i] = x[i] + deviation * length * std::cos(angle);
    }
}

}  // namespace jittor_fast
