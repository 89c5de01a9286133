// The kernels in plain C++, for any machine: the readable form of what the others do, and their twin in the tests.
#include "pixel_kernels.h"

namespace fastload {
namespace {

void gather_columns(const uint8_t *rows, size_t stride_bytes, int columns, uint8_t *out) {
    for (int pair = 0; pair < columns / 2; pair++)
        for (int channel = 0; channel < 3; channel++)
            for (int row = 0; row < STRIP_ROWS; row++)
                for (int tap = 0; tap < 2; tap++)
                    *out++ = rows[static_cast<size_t>(row) * stride_bytes +
                                  static_cast<size_t>((pair * 2 + tap) * 3 + channel)];
}

void fir(const uint8_t *first_pair, size_t pair_stride_bytes, int pairs, const int32_t *high, const int32_t *low,
         uint8_t *out, int lanes) {
    for (int lane = 0; lane < lanes; lane++) {
        int64_t sum = int64_t{1} << (WEIGHT_BITS - 1);
        for (int pair = 0; pair < pairs; pair++) {
            const uint8_t *taps =
                first_pair + static_cast<size_t>(pair) * pair_stride_bytes + 2 * static_cast<size_t>(lane);
            for (int tap = 0; tap < 2; tap++) {
                int16_t weight_high = static_cast<int16_t>(high[pair] >> (16 * tap));
                int16_t weight_low = static_cast<int16_t>(low[pair] >> (16 * tap));
                sum += (int64_t{weight_high} * (1 << LOW_BITS) + weight_low) * taps[tap];
            }
        }
        int64_t value = sum >> WEIGHT_BITS;
        out[lane] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

void fir_strip(const uint8_t *columns, int count, const int32_t *first_pair, const int32_t *pairs, const int32_t *high,
               const int32_t *low, int weight_stride, uint8_t *out) {
    constexpr int LANES = 3 * STRIP_ROWS;
    for (int i = 0; i < count; i++)
        fir(columns + static_cast<size_t>(first_pair[i]) * LANES * 2, LANES * 2, pairs[i],
            high + static_cast<size_t>(i) * weight_stride, low + static_cast<size_t>(i) * weight_stride,
            out + static_cast<size_t>(i) * LANES, LANES);
}

void scatter_rows(const uint8_t *in, int columns, uint8_t *out, size_t plane_stride_bytes, size_t pair_stride_bytes) {
    for (int column = 0; column < columns; column++)
        for (int channel = 0; channel < 3; channel++)
            for (int row = 0; row < STRIP_ROWS; row++)
                out[static_cast<size_t>(channel) * plane_stride_bytes +
                    static_cast<size_t>(row / 2) * pair_stride_bytes + static_cast<size_t>(column * 2 + row % 2)] =
                    *in++;
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

const PixelKernels PIXEL_KERNELS_PORTABLE = {"portable",   gather_columns, fir,       fir_strip,
                                             scatter_rows, split_channels, normalize, finish_writes};

}  // namespace fastload
