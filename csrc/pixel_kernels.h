// The inner loops of the pixel path, once for each instruction set, chosen when the program runs.
//
// A resize is two passes of one primitive, `fir`: a weighted sum of taps over `lanes` independent samples that share
// their weights. Taps come in pairs whose bytes lie side by side, so that a pair is one 32-bit multiply-add lane.
// Weights have 22 fractional bits, as Pillow's: w = high * 2^11 + low with 0 <= low < 2^11, both in 16 bits, so that
// two 16-bit multiply-adds make the exact 32-bit sum on every instruction set.
//
// This header is included by files that are compiled for wide instruction sets: it must not bring inline code (the
// linker may keep the wide copy of a shared inline function, which then fails on other machines).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace fastload {

constexpr int STRIP_ROWS = 16;    // rows that the horizontal pass handles at once
constexpr int WEIGHT_BITS = 22;   // fractional bits of a weight
constexpr int LOW_BITS = 11;      // of these, in the low half
constexpr int LANE_PADDING = 64;  // bytes that a kernel may read or write past the last lane

// One channel's normalization. A division takes four times as long as the product with a reciprocal corrected by its
// own remainder (two fused multiply-adds), which nearly always gives the same bits; `exact_reciprocals` says that it
// was tried for all 256 levels and does.
struct NormalizeRule {
    float divisor, mean, std;
    float divisor_reciprocal, std_reciprocal;
    bool exact_reciprocals;
};

struct PixelKernels {
    const char *name;

    // STRIP_ROWS rows of interleaved RGB -> pairs of columns: out[columns / 2][3 channels][STRIP_ROWS][2] bytes.
    // `columns` is rounded up to a multiple of 16 by the caller, and so much can be read from each row.
    void (*gather_columns)(const uint8_t *rows, size_t stride_bytes, int columns, uint8_t *out);

    // out[lane] = clamp((sum over pairs of weights * bytes + half) >> WEIGHT_BITS), lanes a multiple of 16.
    // Pair p of lane l is the two bytes at first_pair + p * pair_stride_bytes + 2 * l; a weight entry holds the
    // 16-bit weights of both taps.
    void (*fir)(const uint8_t *first_pair, size_t pair_stride_bytes, int pairs, const int32_t *high, const int32_t *low,
                uint8_t *out, int lanes);

    // `fir` for the `count` outputs of a strip, 3 * STRIP_ROWS lanes each: output i takes pairs[i] pairs from pair
    // first_pair[i] of `columns` (as gather_columns made them), with the weights at i * weight_stride.
    void (*fir_strip)(const uint8_t *columns, int count, const int32_t *first_pair, const int32_t *pairs,
                      const int32_t *high, const int32_t *low, int weight_stride, uint8_t *out);

    // The horizontal result in[columns][3][STRIP_ROWS] -> row pairs: plane c, pair p at
    // out + c * plane_stride_bytes + p * pair_stride_bytes, [columns][2] bytes. `columns` is a multiple of 8.
    void (*scatter_rows)(const uint8_t *in, int columns, uint8_t *out, size_t plane_stride_bytes,
                         size_t pair_stride_bytes);

    // One row of interleaved RGB -> three planes, reversed where asked.
    void (*split_channels)(const uint8_t *rgb, int columns, bool reverse, uint8_t *out, size_t plane_stride_bytes);

    // out = (float(in) / divisor - mean) / std, each step rounded to float32.
    void (*normalize)(const uint8_t *in, int count, const NormalizeRule &rule, float *out);

    // To be called after the last `normalize` of an image, by the same thread: what it wrote becomes visible to others.
    void (*finish_writes)();
};

// The widest set that this machine runs, or the named one; nullptr where that name is unknown or cannot run here.
const PixelKernels *best_pixel_kernels();
const PixelKernels *pixel_kernels_named(const char *name);

extern const PixelKernels PIXEL_KERNELS_PORTABLE;
#if defined(__x86_64__)
extern const PixelKernels PIXEL_KERNELS_SSE2;
extern const PixelKernels PIXEL_KERNELS_AVX2;
extern const PixelKernels PIXEL_KERNELS_AVX512;
extern const PixelKernels PIXEL_KERNELS_VNNI;
#endif

}  // namespace fastload
