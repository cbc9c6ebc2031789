// Two halves of an array along one dimension.
//
// The array is (outer, 2, inner): `outer` is the product of the dimensions before the
// one that is halved, `inner` that of half of it and of those behind it.
#include <algorithm>

#include "shared.h"

namespace jittor_fast {

static inline void halve(int64_t outer, int64_t inner, const float* x, float* first,
                         float* second) {
    #pragma omp parallel for schedule(static) if (worth_sharing(2 * outer * inner))
    for (int64_t i = 0; i < outer; i++) {
        const float* in = x + 2 * i * inner;
        std::copy(in, in + inner, first + i * inner);
        std::copy(in + inner, in + 2 * inner, second + i * inner);
    }
}

// The transpose of `halve`.
static inline void join(int64_t outer, int64_t inner, const float* first, const float* second,
                        float* x) {
    #pragma omp parallel for schedule(static) if (worth_sharing(2 * outer * inner))
    for (int64_t i = 0; i < outer; i++) {
        float* out = x + 2 * i * inner;
        std::copy(first + i * inner, first + (i + 1) * inner, out);
        std::copy(second + i * inner, second + (i + 1) * inner, out + inner);
    }
}

}  // namespace jittor_fast
