#include "ops/ada_axes.h"

#include <algorithm>
#include <cmath>

#include "ops/ada_lanes.h"

namespace fastload {
namespace {

// A scale beyond which a row of weights is long, and the general way as good.
constexpr double MAX_SCALE = 4;

// Result o of an axis is the sum of weights[starts[o] + k] times pixel firsts[o] + k, for k below counts[o].
template <class T>
struct AxisMatrix {
    std::vector<int> firsts, counts;
    std::vector<size_t> starts;
    std::vector<T> weights;

    void add(int first, int count, const double *values) {
        firsts.push_back(first);
        counts.push_back(count);
        starts.push_back(weights.size());
        for (int k = 0; k < count; k++) weights.push_back(static_cast<T>(values[k]));
    }
    int results() const { return static_cast<int>(firsts.size()); }
};

// Whether steps 1 to 4 of the contract only copy along an axis: sym6 is orthonormal, and no tap reaches beyond the
// mirror images.
bool only_moves(double scale, double shift, int side) {
    double pixels = shift / 2;
    return scale == 1 && pixels == std::floor(pixels) && pixels >= 4 - side && pixels <= side - 4;
}

// Adds to sums[side] what `weight` times point j of the doubled axis is made of, and to `reach` which pixels that is.
void add_point(const double *taps, int j, double weight, int side, double *sums, Span &reach) {
    Span extended = extended_span(side);
    for (int k = 0; k < 6; k++) {
        int i = first_pixel(j) + k;
        if (i < extended.start || i >= extended.stop) continue;
        int pixel = folded(i, side);
        sums[pixel] += weight * 2 * taps[j + 5 - 2 * i];
        reach = {std::min(reach.start, pixel), std::max(reach.stop, pixel + 1)};
    }
}

// Sample e of an axis is its doubled plane at scale e + shift.
template <class T>
AxisMatrix<T> axis_matrix(const double *taps, double scale, double shift, int results, int side) {
    AxisMatrix<T> matrix;
    std::vector<double> sums(static_cast<size_t>(side), 0.0);
    const bool copies = results == side && only_moves(scale, shift, side);
    const Span points = doubled_span(side);
    for (int o = 0; o < results; o++) {
        if (copies) {
            const double whole = 1;
            matrix.add(folded(o + static_cast<int>(shift / 2), side), 1, &whole);
            continue;
        }
        Span reach{side, 0};
        for (int k = 0; k < WARP_TAPS; k++) {
            const double position = scale * (2 * o + k - 5) + shift;
            if (!is_near(position, points)) continue;
            int j = static_cast<int>(std::floor(position));
            double share = position - j;
            if (j >= points.start && j < points.stop)
                add_point(taps, j, taps[k] * (1 - share), side, sums.data(), reach);
            if (j + 1 >= points.start && j + 1 < points.stop)
                add_point(taps, j + 1, taps[k] * share, side, sums.data(), reach);
        }
        double *reached = sums.data() + reach.start;
        const int count = std::max(reach.size(), 0);
        matrix.add(reach.start, count, reached);
        std::fill(reached, reached + count, 0.0);
    }
    return matrix;
}

// A row of `across.results()` points from a row of points; the adjoint adds to the latter.
template <int LANES, class T>
void cross_row(const AxisMatrix<T> &across, const T *from, T *to) {
    for (int o = 0; o < across.results(); o++) {
        const auto at = static_cast<size_t>(o);
        const T *weights = across.weights.data() + across.starts[at], *pixels = from + across.firsts[at] * LANES;
        typename Lanes<T, LANES>::Point sum = {};
        for (int k = 0; k < across.counts[at]; k++) sum += weights[k] * point<LANES>(pixels + k * LANES);
        point<LANES>(to + at * LANES) = sum;
    }
}
template <int LANES, class T>
void cross_row_adjoint(const AxisMatrix<T> &across, const T *from, T *to) {
    for (int o = 0; o < across.results(); o++) {
        const auto at = static_cast<size_t>(o);
        const T *weights = across.weights.data() + across.starts[at];
        T *pixels = to + across.firsts[at] * LANES;
        const typename Lanes<T, LANES>::Point value = point<LANES>(from + at * LANES);
        for (int k = 0; k < across.counts[at]; k++) point<LANES>(pixels + k * LANES) += weights[k] * value;
    }
}

// `down.results()` rows of `length` numbers from rows as long; the adjoint adds to the latter.
template <class T>
void sum_down(const AxisMatrix<T> &down, const T *from, size_t length, T *to) {
    std::vector<const T *> rows;
    for (int o = 0; o < down.results(); o++) {
        const auto at = static_cast<size_t>(o);
        rows.clear();
        for (int k = 0; k < down.counts[at]; k++)
            rows.push_back(from + static_cast<size_t>(down.firsts[at] + k) * length);
        sum_rows<false>(rows.data(), down.weights.data() + down.starts[at], down.counts[at], to + at * length, length);
    }
}
template <class T>
void sum_down_adjoint(const AxisMatrix<T> &down, const T *from, size_t length, T *to) {
    for (int o = 0; o < down.results(); o++) {
        const auto at = static_cast<size_t>(o);
        const T *row = from + at * length;
        for (int k = 0; k < down.counts[at]; k++)
            sum_rows<true>(&row, down.weights.data() + down.starts[at] + k, 1,
                           to + static_cast<size_t>(down.firsts[at] + k) * length, length);
    }
}

template <int LANES, class T>
void transposed(const T *from, int rows, int columns, T *to) {
    for (size_t y = 0; y < static_cast<size_t>(rows); y++)
        for (size_t x = 0; x < static_cast<size_t>(columns); x++)
            point<LANES>(to + (x * static_cast<size_t>(rows) + y) * LANES) =
                point<LANES>(from + (y * static_cast<size_t>(columns) + x) * LANES);
}

}  // namespace

bool along_axes(const Placement &to_doubled) {
    auto within = [](double scale) { return std::fabs(scale) <= MAX_SCALE; };
    if (to_doubled.xy == 0 && to_doubled.yx == 0) return within(to_doubled.xx) && within(to_doubled.yy);
    return to_doubled.xx == 0 && to_doubled.yy == 0 && within(to_doubled.xy) && within(to_doubled.yx);
}

template <int LANES, class T>
void warp_along_axes(const AdaSettings &settings, const Placement &to_doubled, const T *from, T *to,
                     AdaScratch<T> &scratch) {
    const int height = settings.size.height, width = settings.size.width;
    const bool turned = to_doubled.xy != 0 || to_doubled.yx != 0;
    // Along x of the input, and then along its y; turned, the first gives the rows of the output.
    const auto across = axis_matrix<T>(settings.warp_taps, turned ? to_doubled.xy : to_doubled.xx, to_doubled.tx,
                                       turned ? height : width, width);
    const auto down = axis_matrix<T>(settings.warp_taps, turned ? to_doubled.yx : to_doubled.yy, to_doubled.ty,
                                     turned ? width : height, height);
    const size_t line = static_cast<size_t>(width) * LANES, length = static_cast<size_t>(across.results()) * LANES;
    const size_t crossed_size = static_cast<size_t>(height) * length;
    const size_t image_size = settings.size.plane() * LANES;
    T *crossed = grown(scratch.crossed, crossed_size + image_size), *upright = crossed + crossed_size;
    if (settings.mode != AdaMode::adjoint) {
        for (size_t y = 0; y < static_cast<size_t>(height); y++)
            cross_row<LANES>(across, from + y * line, crossed + y * length);
        sum_down(down, crossed, length, turned ? upright : to);
        if (turned) transposed<LANES>(upright, down.results(), across.results(), to);
        return;
    }
    if (turned) transposed<LANES>(from, across.results(), down.results(), upright);
    std::fill(crossed, crossed + crossed_size, T{0});
    sum_down_adjoint(down, turned ? upright : from, length, crossed);
    std::fill(to, to + image_size, T{0});
    for (size_t y = 0; y < static_cast<size_t>(height); y++)
        cross_row_adjoint<LANES>(across, crossed + y * length, to + y * line);
}

#define INSTANCE(LANES, T) \
    template void warp_along_axes<LANES, T>(const AdaSettings &, const Placement &, const T *, T *, AdaScratch<T> &);
INSTANCE(1, float)
INSTANCE(4, float)
INSTANCE(1, double)
INSTANCE(4, double)
#undef INSTANCE

}  // namespace fastload
