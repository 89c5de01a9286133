// The kernels in plain C++, for any machine: the readable form of what the others do, and their twin in the tests.
#include "decode/pixel_kernels.h"

namespace fastload {
namespace {

void gather_columns(const uint8_t *rows, size_t stride_bytes, int columns, uint8_t *out) {
    for (int four = 0; four < columns / FOUR; four++)
        for (int channel = 0; channel < 3; channel++)
            for (int row = 0; row < STRIP_ROWS; row++)
                for (int tap = 0; tap < FOUR; tap++)
                    *out++ = rows[static_cast<size_t>(row) * stride_bytes +
                                  static_cast<size_t>((four * FOUR + tap) * 3 + channel)];
}

void fir(const uint8_t *first_four, size_t four_stride_bytes, const AxisWeights &axis, int i, uint8_t *out, int lanes) {
    size_t max_fours = static_cast<size_t>(axis.max_fours);
    const int32_t *entries =
        axis.entries + static_cast<size_t>(i) * static_cast<size_t>(weight_planes(WeightFormat::words)) * max_fours;
    for (int lane = 0; lane < lanes; lane++) {
        int64_t sum = int64_t{1} << (WEIGHT_BITS - 1);
        for (size_t four = 0; four < static_cast<size_t>(axis.fours[i]); four++) {
            const uint8_t *taps = first_four + four * four_stride_bytes + FOUR * static_cast<size_t>(lane);
            for (size_t tap = 0; tap < FOUR; tap++) {
                const int32_t *entry = entries + (tap % 2) * max_fours + four;
                int16_t high = static_cast<int16_t>(entry[0] >> (16 * (tap / 2)));
                int16_t low = static_cast<int16_t>(entry[2 * max_fours] >> (16 * (tap / 2)));
                sum += (int64_t{high} * (1 << axis.shift) + low) * taps[tap];
            }
        }
        int64_t value = sum >> WEIGHT_BITS;
        out[lane] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

void fir_strip(const uint8_t *columns, const AxisWeights &axis, uint8_t *out) {
    constexpr int LANES = 3 * STRIP_ROWS;
    for (int i = 0; i < axis.count; i++)
        fir(columns + static_cast<size_t>(axis.first_four[i]) * LANES * FOUR, LANES * FOUR, axis, i,
            out + static_cast<size_t>(i) * LANES, LANES);
}

void scatter_rows(const uint8_t *in, int columns, uint8_t *out, size_t plane_stride_bytes, size_t four_stride_bytes) {
    for (int column = 0; column < columns; column++)
        for (int channel = 0; channel < 3; channel++)
            for (int row = 0; row < STRIP_ROWS; row++)
                out[static_cast<size_t>(channel) * plane_stride_bytes +
                    static_cast<size_t>(row / FOUR) * four_stride_bytes +
                    static_cast<size_t>(column * FOUR + row % FOUR)] = *in++;
}

void split_channels(const uint8_t *rgb, int columns, bool reverse, uint8_t *out, size_t plane_stride_bytes) {
    for (int column = 0; column < columns; column++)
        for (int channel = 0; channel < 3; channel++)
            out[static_cast<size_t>(channel) * plane_stride_bytes +
                static_cast<size_t>(reverse ? columns - 1 - column : column)] = *rgb++;
}

void normalize(const uint8_t *in, int count, const NormalizeRule &rule, float *out) {
    for (int i = 0; i < count; i++) out[i] = (static_cast<float>(in[i]) / rule.divisor - rule.mean) / rule.std;
}

void finish_writes() {}

}  // namespace

const PixelKernels PIXEL_KERNELS_PORTABLE = {"portable", WeightFormat::words, gather_columns, nullptr, fir,
                                             fir_strip,  scatter_rows,        split_channels, nullptr, nullptr,
                                             nullptr,    normalize,           finish_writes};

}  // namespace fastload
