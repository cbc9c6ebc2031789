// A hash, from which kernels take their random numbers.
#include "shared.h"

namespace jittor_fast {

// A 32-bit mixer of low bias, found by https://github.com/skeeto/hash-prospector.
static inline uint32_t hashed(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x21f0aaadu;
    h = (h ^ (h >> 15)) * 0xd35a2d97u;
    return h ^ (h >> 15);
}

}  // namespace jittor_fast
