// Weight norm: the rows of a matrix get the lengths of another vector.
#include "shared.h"

namespace jittor_fast {

// w = scale * v / |v| for each of `rows` rows, and the lengths |v|.
static inline void weight_norm(int64_t rows, int64_t columns, const float* v, const float* scale,
                               float* w, float* lengths) {
    #pragma omp parallel for schedule(static) if (worth_sharing(rows * columns))
    for (int64_t i = 0; i < rows; i++) {
        const float* row = v + i * columns;
        float squares = 0;
        for (int64_t j = 0; j < columns; j++) squares += row[j] * row[j];
        lengths[i] = std::sqrt(squares);
        float factor = scale[i] / lengths[i];
        for (int64_t j = 0; j < columns; j++) w[i * columns + j] = factor * row[j];
    }
}

// With the unit row u = v / |v|:
//
//     dscale = u . dw,    dv = scale / |v| (dw - dscale u)
static inline void weight_norm_gradient(int64_t rows, int64_t columns, const float* v,
                                        const float* scale, const float* lengths,
                                        const float* dw, float* dv, float* dscale) {
    #pragma omp parallel for schedule(static) if (worth_sharing(rows * columns))
    for (int64_t i = 0; i < rows; i++) {
        const float* row = v + i * columns;
        const float* gradient = dw + i * columns;
        float product = 0;
        for (int64_t j = 0; j < columns; j++) product += row[j] * gradient[j];
        dscale[i] = product / lengths[i];
        float factor = scale[i] / lengths[i];
        float along = dscale[i] / lengths[i];
        for (int64_t j = 0; j < columns; j++) {
            dv[i * columns + j] = factor * (gradient[j] - along * row[j]);
        }
    }
}

}  // namespace jittor_fast
