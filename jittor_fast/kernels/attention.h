// Dot-product attention between the pixels of images.
//
// An image has queries (depth, pixels), keys (depth, places) and values (size, places),
// as convolutions give them: a channel is a row. The weights of a pixel are the softmax
// over all places of its products with the keys. Each thread has whole images; oneDNN's
// product of matrices then runs on that thread alone.
#include <algorithm>
#include <vector>

#include "shared.h"

namespace jittor_fast {

// weights (pixels, places) of each image, and result = values weights^T, (size, pixels).
static inline void attend(int64_t images, int64_t depth, int64_t size, int64_t pixels,
                          int64_t places, const float* queries, const float* keys,
                          const float* values, float* result, float* weights) {
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < images; n++) {
        float* w = weights + n * pixels * places;
        dnnl_sgemm('T', 'N', pixels, places, depth, 1, queries + n * depth * pixels, pixels,
                   keys + n * depth * places, places, 0, w, places);
        for (int64_t i = 0; i < pixels; i++) {
            float* row = w + i * places;
            float largest = row[0];
            for (int64_t j = 1; j < places; j++) largest = std::max(largest, row[j]);
            float sum = 0;
            for (int64_t j = 0; j < places; j++) {
                row[j] = std::exp(row[j] - largest);
                sum += row[j];
            }
            const float share = 1 / sum;
            for (int64_t j = 0; j < places; j++) row[j] *= share;
        }
        dnnl_sgemm('N', 'T', size, pixels, places, 1, values + n * size * places, places, w,
                   places, 0, result + n * size * pixels, pixels);
    }
}

// The gradients of `attend`. With dw = dresult^T values, softmax gives the products of
// queries and keys the gradient
//     ds_ij = w_ij (dw_ij - sum_k w_ik dw_ik)
static inline void attend_gradient(int64_t images, int64_t depth, int64_t size, int64_t pixels,
                                   int64_t places, const float* queries, const float* keys,
                                   const float* values, const float* weights,
                                   const float* dresult, float* dqueries, float* dkeys,
                                   float* dvalues) {
    #pragma omp parallel
    {
        std::vector<float> slopes(pixels * places);
        float* s = slopes.data();
        #pragma omp for schedule(static)
        for (int64_t n = 0; n < images; n++) {
            const float* q = queries + n * depth * pixels;
            const float* k = keys + n * depth * places;
            const float* w = weights + n * pixels * places;
            const float* dy = dresult + n * size * pixels;
            dnnl_sgemm('T', 'N', pixels, places, size, 1, dy, pixels, values + n * size * places,
                       places, 0, s, places);
            for (int64_t i = 0; i < pixels; i++) {
                const float* row = w + i * places;
                float* slope = s + i * places;
                float mean = 0;
                for (int64_t j = 0; j < places; j++) mean += row[j] * slope[j];
                for (int64_t j = 0; j < places; j++) slope[j] = row[j] * (slope[j] - mean);
            }
            dnnl_sgemm('N', 'T', depth, pixels, places, 1, k, places, s, places, 0,
                       dqueries + n * depth * pixels, pixels);
            dnnl_sgemm('N', 'N', depth, places, pixels, 1, q, pixels, s, places, 0,
                       dkeys + n * depth * places, places);
            dnnl_sgemm('N', 'N', size, places, pixels, 1, dy, pixels, w, places, 0,
                       dvalues + n * size * places, places);
        }
    }
}

}  // namespace jittor_fast
