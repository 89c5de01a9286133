#include "ops/ada_filter.h"

#include <algorithm>

#include "ops/ada_lanes.h"
#include "ops/ada_lattice.h"

namespace fastload {
namespace {

template <class T>
void filter_row(const T *taps, int width, const T *from, T *to, T *line) {
    for (int i = -BAND_MARGIN; i < width + BAND_MARGIN; i++) line[i + BAND_MARGIN] = from[folded(i, width)];
    const T *rows[BAND_TAPS];
    for (int t = 0; t < BAND_TAPS; t++) rows[t] = line + t;
    sum_rows<false>(rows, taps, BAND_TAPS, to, static_cast<size_t>(width));
}

// line: the row between 2 BAND_MARGIN zeros on both sides, and then what goes to each pixel and each mirror image.
template <class T>
void filter_row_adjoint(const T *taps, int width, const T *from, T *to, T *line) {
    const int padded = width + 4 * BAND_MARGIN;
    std::fill(line, line + padded, T{0});
    std::copy(from, from + width, line + 2 * BAND_MARGIN);
    T *spread = line + padded;
    const T *rows[BAND_TAPS];
    for (int t = 0; t < BAND_TAPS; t++) rows[t] = line + (BAND_TAPS - 1 - t);
    sum_rows<false>(rows, taps, BAND_TAPS, spread, static_cast<size_t>(width + 2 * BAND_MARGIN));
    std::copy(spread + BAND_MARGIN, spread + BAND_MARGIN + width, to);
    for (int i = 1; i <= BAND_MARGIN; i++) {
        to[folded(-i, width)] += spread[BAND_MARGIN - i];
        to[folded(width - 1 + i, width)] += spread[BAND_MARGIN + width - 1 + i];
    }
}

template <class T>
void filter_columns(const T *taps, int height, int width, const T *from, T *to) {
    const T *rows[BAND_TAPS];
    for (int y = 0; y < height; y++) {
        for (int t = 0; t < BAND_TAPS; t++)
            rows[t] = from + static_cast<ptrdiff_t>(folded(y + t - BAND_MARGIN, height)) * width;
        sum_rows<false>(rows, taps, BAND_TAPS, to + static_cast<ptrdiff_t>(y) * width, static_cast<size_t>(width));
    }
}

template <class T>
void filter_columns_adjoint(const T *taps, int height, int width, const T *from, T *to) {
    const T *rows[BAND_TAPS];
    T weights[BAND_TAPS];
    std::fill(to, to + static_cast<ptrdiff_t>(height) * width, T{0});
    for (int i = -BAND_MARGIN; i < height + BAND_MARGIN; i++) {
        int count = 0;
        for (int t = 0; t < BAND_TAPS; t++) {
            const int y = i - t + BAND_MARGIN;
            if (y < 0 || y >= height) continue;
            rows[count] = from + static_cast<ptrdiff_t>(y) * width;
            weights[count++] = taps[t];
        }
        sum_rows<true>(rows, weights, count, to + static_cast<ptrdiff_t>(folded(i, height)) * width,
                       static_cast<size_t>(width));
    }
}

}  // namespace

template <class T>
void ada_filter(const AdaSettings &settings, const T *gains, T *planes, AdaScratch<T> &scratch) {
    if (std::all_of(gains, gains + BANDS, [](T gain) { return gain == 1; })) return;
    const int height = settings.size.height, width = settings.size.width;
    T taps[BAND_TAPS];
    for (int t = 0; t < BAND_TAPS; t++) {
        double tap = 0;
        for (int band = 0; band < BANDS; band++) tap += gains[band] * settings.bands[band][t];
        taps[t] = static_cast<T>(tap);
    }
    T *filtered = grown(scratch.filtered, settings.size.plane());
    T *line = grown(scratch.line, 2 * static_cast<size_t>(width) + 6 * BAND_MARGIN);
    for (int c = 0; c < settings.size.channels; c++, planes += settings.size.plane()) {
        const bool adjoint = settings.mode == AdaMode::adjoint;
        for (ptrdiff_t y = 0; y < height; y++)
            (adjoint ? filter_row_adjoint<T> : filter_row<T>)(taps, width, planes + y * width, filtered + y * width,
                                                              line);
        (adjoint ? filter_columns_adjoint<T> : filter_columns<T>)(taps, height, width, filtered, planes);
    }
}

template void ada_filter<float>(const AdaSettings &, const float *, float *, AdaScratch<float> &);
template void ada_filter<double>(const AdaSettings &, const double *, double *, AdaScratch<double> &);

}  // namespace fastload
