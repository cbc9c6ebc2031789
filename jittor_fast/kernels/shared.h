// What all kernels have in common.
//
// A kernel is a plain function: scalars first, then the arrays that it reads, then
// those that it writes. jittor_fast/call.py pastes a header into the source of a Jittor
// operator, together with one line that calls one of its functions; Jittor compiles
// each operator as its own library.
//
// The rules that make equal runs equal in every bit, for a fixed number of threads:
//   * Loops are split between the threads statically, so that a thread always gets the
//     same share.
//   * No sum is shared between threads: a thread sums what is its own, and partial sums
//     are added in a fixed order.
//
// Jittor compiles with -Ofast: x != x is false for a NaN, and sums may be reordered.
#include <cmath>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#else
// A compiler without OpenMP ignores the pragmas: the results are the same, on one
// thread.
static inline int omp_get_max_threads() { return 1; }
static inline int omp_get_thread_num() { return 0; }
#endif

// oneDNN's product of row-major matrices, c = alpha a b + beta c, where 'T' transposes
// a or b: (transpose a, transpose b, rows of c, columns of c, depth, alpha, a, lda, b,
// ldb, beta, c, ldc).
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);

namespace jittor_fast {

// Whether n elements are worth waking the other threads, which costs microseconds, and
// much more on a busy machine.
static inline bool worth_sharing(int64_t n) { return n >= 65536; }

}  // namespace jittor_fast
