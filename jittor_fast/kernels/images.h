// Padding, pooling and upsampling of images. Each function has its transpose beside it,
// which is its gradient; and the transpose's gradient is the function itself.
//
// `planes` is images times channels; a plane has `height` rows of `width` pixels.
#include <algorithm>
#include <cstdlib>

#include "shared.h"

namespace jittor_fast {

// ---- reflection padding ----

// The row of the image that row i of the padded one shows: 1 0 1 2 ... H-1 H-2 with top
// = 1.
static inline int64_t reflected(int64_t i, int64_t top, int64_t height) {
    return height - 1 - std::abs(height - 1 - std::abs(i - top));
}

static inline void reflection_pad(int64_t planes, int64_t height, int64_t width, int64_t left,
                                  int64_t right, int64_t top, int64_t bottom, const float* images,
                                  float* padded) {
    const int64_t padded_height = top + height + bottom;
    const int64_t padded_width = left + width + right;
    #pragma omp parallel for collapse(2) schedule(static) \
        if (worth_sharing(planes * padded_height * padded_width))
    for (int64_t p = 0; p < planes; p++)
    for (int64_t i = 0; i < padded_height; i++) {
        const float* x = images + (p * height + reflected(i, top, height)) * width;
        float* y = padded + (p * padded_height + i) * padded_width;
        for (int64_t j = 0; j < left; j++) y[j] = x[left - j];
        for (int64_t j = 0; j < width; j++) y[left + j] = x[j];
        for (int64_t j = left + width; j < padded_width; j++)
            y[j] = x[2 * (width - 1) - (j - left)];
    }
}

// Adds every pixel of the padded images to the one that it was copied from. Several
// padded rows come from one row, so a thread has whole planes.
static inline void reflection_pad_transposed(int64_t planes, int64_t height, int64_t width,
                                             int64_t left, int64_t right, int64_t top,
                                             int64_t bottom, const float* padded, float* images) {
    const int64_t padded_height = top + height + bottom;
    const int64_t padded_width = left + width + right;
    #pragma omp parallel for schedule(static) \
        if (worth_sharing(planes * padded_height * padded_width))
    for (int64_t p = 0; p < planes; p++) {
        for (int64_t i = 0; i < height * width; i++) images[p * height * width + i] = 0;
        for (int64_t i = 0; i < padded_height; i++) {
            const float* y = padded + (p * padded_height + i) * padded_width;
            float* x = images + (p * height + reflected(i, top, height)) * width;
            for (int64_t j = 0; j < left; j++) x[left - j] += y[j];
            for (int64_t j = 0; j < width; j++) x[j] += y[left + j];
            for (int64_t j = left + width; j < padded_width; j++)
                x[2 * (width - 1) - (j - left)] += y[j];
        }
    }
}

// ---- average pooling ----

// The part of a window that lies inside the image: rows from `top` to below `bottom`,
// columns from `left` to below `right`. Window (i, j) begins `pad` pixels before pixel
// (i, j) * stride.
struct Window {
    int64_t top, bottom, left, right;

    Window(int64_t i, int64_t j, int64_t size, int64_t stride, int64_t pad, int64_t height,
           int64_t width)
        : top(std::max<int64_t>(0, i * stride - pad)),
          bottom(std::min(height, i * stride - pad + size)),
          left(std::max<int64_t>(0, j * stride - pad)),
          right(std::min(width, j * stride - pad + size)) {}

    float share() const { return 1.0f / ((bottom - top) * (right - left)); }
};

// The means over windows of size x size pixels, without those that lie outside of the
// image.
static inline void average_pool(int64_t planes, int64_t height, int64_t width,
                                int64_t pooled_height, int64_t pooled_width, int64_t size,
                                int64_t stride, int64_t pad, const float* images, float* pooled) {
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * height * width))
    for (int64_t p = 0; p < planes; p++) {
        const float* image = images + p * height * width;
        float* mean = pooled + p * pooled_height * pooled_width;
        for (int64_t i = 0; i < pooled_height; i++)
        for (int64_t j = 0; j < pooled_width; j++) {
            const Window window(i, j, size, stride, pad, height, width);
            float sum = 0;
            for (int64_t y = window.top; y < window.bottom; y++)
                for (int64_t x = window.left; x < window.right; x++) sum += image[y * width + x];
            mean[i * pooled_width + j] = sum * window.share();
        }
    }
}

// Gives every pixel of a window its share of the window's value. Windows overlap, so a
// thread has whole planes.
static inline void average_pool_transposed(int64_t planes, int64_t height, int64_t width,
                                           int64_t pooled_height, int64_t pooled_width,
                                           int64_t size, int64_t stride, int64_t pad,
                                           const float* pooled, float* images) {
    #pragma omp parallel for schedule(static) \
        if (worth_sharing(planes * pooled_height * pooled_width))
    for (int64_t p = 0; p < planes; p++) {
        const float* mean = pooled + p * pooled_height * pooled_width;
        float* image = images + p * height * width;
        for (int64_t i = 0; i < height * width; i++) image[i] = 0;
        for (int64_t i = 0; i < pooled_height; i++)
        for (int64_t j = 0; j < pooled_width; j++) {
            const Window window(i, j, size, stride, pad, height, width);
            const float share = window.share();
            for (int64_t y = window.top; y < window.bottom; y++)
                for (int64_t x = window.left; x < window.right; x++)
                    image[y * width + x] += mean[i * pooled_width + j] * share;
        }
    }
}

// ---- the largest of 2 x 2 pixels ----

// The largest of each four pixels, and which of them it is; of equal ones, the first.
static inline void max_pool(int64_t planes, int64_t height, int64_t width, const float* images,
                            float* pooled, float* places) {
    const int64_t across = width / 2;
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * height * width))
    for (int64_t row = 0; row < planes * (height / 2); row++) {
        const float* x = images + (row / (height / 2) * height + row % (height / 2) * 2) * width;
        for (int64_t j = 0; j < across; j++) {
            const float four[4] = {x[2 * j], x[2 * j + 1], x[width + 2 * j], x[width + 2 * j + 1]};
            int64_t place = 0;
            for (int64_t k = 1; k < 4; k++)
                if (four[k] > four[place]) place = k;
            pooled[row * across + j] = four[place];
            places[row * across + j] = place;
        }
    }
}

// Gives each value to the pixel that was the largest; the others get 0.
static inline void max_pool_transposed(int64_t planes, int64_t height, int64_t width,
                                       const float* pooled, const float* places, float* images) {
    const int64_t across = width / 2;
    #pragma omp parallel for schedule(static) if (worth_sharing(planes * height * width))
    for (int64_t p = 0; p < planes; p++) {
        float* image = images + p * height * width;
        for (int64_t i = 0; i < height * width; i++) image[i] = 0;
        for (int64_t i = 0; i < height / 2; i++)
        for (int64_t j = 0; j < across; j++) {
            const int64_t at = (p * (height / 2) + i) * across + j;
            const int64_t place = places[at];
            image[(2 * i + place / 2) * width + 2 * j + place % 2] = pooled[at];
        }
    }
}

// ---- doubling by the nearest pixels ----

// Each pixel becomes four. A row of the image becomes two, which lie one behind the
// other.
static inline void double_pixels(int64_t planes, int64_t height, int64_t width,
                                 const float* images, float* doubled) {
    const int64_t rows = planes * height;
    #pragma omp parallel for schedule(static) if (worth_sharing(5 * rows * width))
    for (int64_t row = 0; row < rows; row++) {
        const float* x = images + row * width;
        float* y = doubled + row * 4 * width;
        for (int64_t i = 0; i < width; i++) {
            y[2 * i] = x[i];
            y[2 * i + 1] = x[i];
            y[2 * (width + i)] = x[i];
            y[2 * (width + i) + 1] = x[i];
        }
    }
}

// Each pixel is the sum of four.
static inline void double_pixels_transposed(int64_t planes, int64_t height, int64_t width,
                                            const float* doubled, float* images) {
    const int64_t rows = planes * height;
    #pragma omp parallel for schedule(static) if (worth_sharing(5 * rows * width))
    for (int64_t row = 0; row < rows; row++) {
        const float* y = doubled + row * 4 * width;
        float* x = images + row * width;
        for (int64_t i = 0; i < width; i++) {
            const float above = y[2 * i] + y[2 * i + 1];
            const float below = y[2 * (width + i)] + y[2 * (width + i) + 1];
            x[i] = above + below;
        }
    }
}

}  // namespace jittor_fast
