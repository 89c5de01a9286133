// The inner loops of the pixel path, once for each instruction set, chosen when the program runs.
//
// A resize is two passes of one primitive, `fir`: a weighted sum of taps over `lanes` independent samples that share
// their weights. Taps come in fours whose bytes lie side by side, so that a four is one 32-bit lane.
// Weights have 22 fractional bits, as Pillow's. 16 of a weight's bits are enough for most outputs: the kernels sum with
// those, add what the rest can amount to at the least and at the most, and take up the rest only where the two would
// round differently. So every instruction set gives Pillow's bits, at little more than the cost of 16-bit weights.
//
// This header is included by files that are compiled for wide instruction sets: it must not bring inline code (the
// linker may keep the wide copy of a shared inline function, which then fails on other machines).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace fastload {

constexpr int STRIP_ROWS = 16;     // rows that the horizontal pass handles at once
constexpr int FOUR = 4;            // taps that lie side by side
constexpr int WEIGHT_BITS = 22;    // fractional bits of a weight
constexpr int FRONT_PADDING = 64;  // bytes that gather_columns may read before a row
constexpr int LANE_PADDING = 64;   // bytes that a kernel may read or write past the last lane

// A weight is high * 2^shift + low, both signed. How the four weights of a four lie in 32-bit entries, in planes:
enum class WeightFormat {
    bytes,  // high / 256 rounded, what is left of high, low: a byte each; 3 planes
    words,  // high of taps 0 and 2, of 1 and 3, low of taps 0 and 2, of 1 and 3; 4 planes
};
constexpr int weight_planes(WeightFormat format) { return format == WeightFormat::bytes ? 3 : 4; }

// The weights of one axis. Output i takes fours[i] fours of taps from first_four[i]; its weights are
// entries[(i * planes + plane) * max_fours + four].
struct AxisWeights {
    int count, max_fours;
    int shift;  // bits of `low`
    const int32_t *first_four, *fours, *entries;
    // Whether the rest is taken up seldom enough to be worth a test, which the processor cannot predict; else always.
    bool rest_is_rare;
    // In units of 2^shift: half of the last place plus the least that `low` can amount to; how much more at the most.
    const int32_t *least, *spread;
};

// One channel's normalization. A division takes four times as long as the product with a reciprocal corrected by its
// own remainder (two fused multiply-adds), which nearly always gives the same bits; `exact_reciprocals` says that it
// was checked for all 256 values.
struct NormalizeRule {
    float divisor, mean, std;
    float divisor_reciprocal, std_reciprocal;
    bool exact_reciprocals;
};

struct PixelKernels {
    const char *name;

    // Which weights `fir` and `fir_strip` take.
    WeightFormat weights;

    // STRIP_ROWS rows of interleaved RGB -> fours of columns: out[columns / 4][3 channels][STRIP_ROWS][4] bytes.
    // `columns` is a multiple of 16; LANE_PADDING bytes more can be read from each row.
    void (*gather_columns)(const uint8_t *rows, size_t stride_bytes, int columns, uint8_t *out);

    // The same from three planes of bytes, plane_stride_bytes apart. nullptr where the set has no such kernel.
    void (*gather_planes)(const uint8_t *planes, size_t plane_stride_bytes, size_t stride_bytes, int columns,
                          uint8_t *out);

    // out[lane] = clamp((sum of weights * bytes + half) >> WEIGHT_BITS) for output i of `axis`, lanes a multiple of 16.
    // Four f of lane l is the bytes at first_four + f * four_stride_bytes + 4 * l.
    void (*fir)(const uint8_t *first_four, size_t four_stride_bytes, const AxisWeights &axis, int i, uint8_t *out,
                int lanes);

    // `fir` for all outputs of a strip, 3 * STRIP_ROWS lanes each, from columns as gather_columns made them.
    void (*fir_strip)(const uint8_t *columns, const AxisWeights &axis, uint8_t *out);

    // The horizontal result in[columns][3][STRIP_ROWS] -> fours of rows: plane c, four f at
    // out + c * plane_stride_bytes + f * four_stride_bytes, [columns][4] bytes. `columns` is a multiple of 4.
    void (*scatter_rows)(const uint8_t *in, int columns, uint8_t *out, size_t plane_stride_bytes,
                         size_t four_stride_bytes);

    // One row of interleaved RGB -> three planes, reversed where asked.
    void (*split_channels)(const uint8_t *rgb, int columns, bool reverse, uint8_t *out, size_t plane_stride_bytes);

    // One row of a plane, reversed. nullptr where gather_planes is.
    void (*reverse_row)(const uint8_t *in, int columns, uint8_t *out);

    // One row of luma and chroma -> three planes of RGB, with the bits of libjpeg's conversion. All three may be read,
    // and the planes written, LANE_PADDING past `columns`. nullptr where the set has no such kernel.
    void (*ycc_to_rgb)(const uint8_t *luma, const uint8_t *const chroma[2], int columns, uint8_t *out,
                       size_t plane_stride_bytes);

    // The same with chroma of half the size, interpolated as libjpeg does ("fancy upsampling"): near[c] and far[c] are
    // rows of chroma that begin at the column of the first luma, which is even; one sample before it and
    // LANE_PADDING past columns / 2 are read too. `sums` has room for 2 * (columns / 2 + 2 * LANE_PADDING) words.
    void (*halved_ycc_to_rgb)(const uint8_t *luma, const uint8_t *const near[2], const uint8_t *const far[2],
                              int columns, uint16_t *sums, uint8_t *out, size_t plane_stride_bytes);

    // out = (float(in) / divisor - mean) / std, each step rounded to float32.
    void (*normalize)(const uint8_t *in, int count, const NormalizeRule &rule, float *out);

    // To be called after the last `normalize` of an image, by the same thread: what it wrote becomes visible to others.
    void (*finish_writes)();
};

extern const PixelKernels PIXEL_KERNELS_PORTABLE;
#if defined(__x86_64__)
extern const PixelKernels PIXEL_KERNELS_SSE2;
extern const PixelKernels PIXEL_KERNELS_AVX2;
extern const PixelKernels PIXEL_KERNELS_AVX512;
extern const PixelKernels PIXEL_KERNELS_VNNI;
#endif

}  // namespace fastload
