// The pixels of fastload/ops/fused_augment.py on the CPU, once for each instruction set, chosen when the program runs.
//
// In: an image in any strides, and its AugmentProgram: what the stages come to for this image. Out: the result, as it
// lies in the batch. Each row passes through the cache once: fetched or warped to planes, then all steps, the
// normalization, the cut and the cast on one vector of pixels at a time; a contrast costs a pass more before that.
//
// As with the pixel kernels there is one file per instruction set and a choice at run time, not target_clones: that
// needs the IFUNCs of glibc, cannot be forced to another set by a test, and clones each function alone, so that what
// is not inlined stays narrow. These files alone may fuse multiply-adds: their contract is a tolerance, not bits.
//
// This header is included by files that are compiled for wide instruction sets: it must not bring inline code (see
// pixel_kernels.h).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

namespace fastload {

constexpr double AUGMENT_GRAY[3] = {0.2989, 0.587, 0.114};  // of red, green, blue; torchvision's
constexpr int AUGMENT_PADDING = 64;   // elements that a row of scratch has room for past the last pixel
constexpr int MAX_AUGMENT_STEPS = 8;  // four of the jitter and a clamp, C, hue, saturation

// Values are on the scale of the source: [0, top] with top = 255 for uint8 pixels and 1 for floats. Only C's offset and
// the normalization depend on it, so uint8 pixels need no division.
enum class AugmentStepKind : int32_t {
    affine,              // v = numbers[0] v + numbers[1], which is in the range as it is
    affine_capped,       // the same, at most top
    affine_clamped,      // the same, clamped
    saturation,          // v = numbers[0] v + numbers[1] r + numbers[2] g + numbers[3] b, in the range as it is
    saturation_clamped,  // the same, clamped
    // A hue shift by two sixths of a turn renames the channels, and a shift to the left is a shift to the right with
    // two channels swapped: so any shift is a shift by numbers[0] sixths, in [0, 1], of renamed channels.
    hue_rgb,
    hue_rbg,
    hue_brg,
    hue_bgr,
    hue_gbr,
    hue_grb,
    // The same of floats: a pixel with a value that is not finite becomes NaN.
    any_hue_rgb,
    any_hue_rbg,
    any_hue_brg,
    any_hue_bgr,
    any_hue_gbr,
    any_hue_grb,
    matrix,   // (r, g, b) = clamp(numbers (r, g, b, 1)), 3 rows of 4
    hsv,      // V = max, v = V - min(numbers[0], V / (V - min)) (V - v), at least 0
    any_hsv,  // the same of floats
};

struct AugmentStep {
    AugmentStepKind kind;
    float numbers[12];
};

struct AugmentProgram {
    bool flip_columns, flip_rows, warped, nearest;
    // Where warped: pixel (x, y) shows the source at (to_source[0] x + to_source[1] y + to_source[2], to_source[3] x +
    // ...).
    double to_source[6];

    int step_count;
    AugmentStep steps[MAX_AUGMENT_STEPS];
    int mean_step;  // the step whose numbers[1] is still to be multiplied with the mean of gray before it, or -1
    float top;

    float scale[3], offset[3], limit[3];           // the result is min(scale v + offset, limit)
    int cut_left, cut_right, cut_top, cut_bottom;  // half-open; nothing is cut where they are equal
    Dtype dtype;
    bool channels_last;
    bool past_cache;  // the result is larger than the caches
};

struct AugmentSource {
    const uint8_t *pixels;  // uint8, or float32 where floats
    ptrdiff_t row_stride_bytes, column_stride_bytes, channel_stride_bytes;
    int height, width, channels;  // 1 or 3 channels; (height + 1) * (width + 1) below 2^31
    bool floats;
    // As PixelKernels has it.
    void (*split_channels)(const uint8_t *rgb, int columns, bool reverse, uint8_t *out, size_t plane_stride_bytes);
};

// Scratch memory of a thread, each part aligned to 64 bytes; row_items = width rounded up to AUGMENT_PADDING, and
// AUGMENT_PADDING.
struct AugmentScratch {
    uint8_t *bytes;    // 3 rows of uint8
    float *floats;     // 3 rows of float32
    uint8_t *results;  // 3 rows of the result's type
    int32_t *keep;     // 1 row: 0 where a pixel is cut out, else -1
    uint8_t *packed;   // where warped: (height + 1) * (width + 1) pixels of four uint8, or of four float32
    size_t row_items;
};

struct AugmentKernels {
    const char *name;

    // The whole image. What it wrote is visible to other threads when it returns.
    void (*augment)(const AugmentSource &source, const AugmentProgram &program, const AugmentScratch &scratch,
                    uint8_t *out);
};

extern const AugmentKernels AUGMENT_KERNELS_BASELINE;
#if defined(__x86_64__)
extern const AugmentKernels AUGMENT_KERNELS_AVX2;
extern const AugmentKernels AUGMENT_KERNELS_AVX512;
#endif

}  // namespace fastload
