// CUB 3 has removed five names that Jittor's kernels use.
#if CUB_VERSION >= 300000
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

CUB_NAMESPACE_BEGIN

#define JITTOR_OPERATOR(Name, expression) \
    struct Name { \
        template<class A, class B> \
        __host__ __device__ auto operator()(const A& a, const B& b) const { \
            return expression; \
        } \
    };
JITTOR_OPERATOR(Max, a < b ? b : a)
JITTOR_OPERATOR(Min, b < a ? b : a)
JITTOR_OPERATOR(Sum, a + b)
#undef JITTOR_OPERATOR

template<class T, class Offset = ptrdiff_t>
using CountingInputIterator = thrust::counting_iterator<T>;

template<class T, class F, class Inner, class Offset = ptrdiff_t>
struct TransformInputIterator : thrust::transform_iterator<F, Inner, T> {
    using Base = thrust::transform_iterator<F, Inner, T>;
    __host__ __device__ TransformInputIterator(Inner inner, F f) : Base(inner, f) {}
};

CUB_NAMESPACE_END
#endif
