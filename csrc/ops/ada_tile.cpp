#include "ops/ada_tile.h"

#include <algorithm>
#include <cmath>

namespace fastload {
namespace {

// Of the doubled plane against the lattice, in points: the memory of a thread is bounded by it. 49 products per sample
// take 18 ms for 256 x 256 pixels; so much of the plane takes 10, and the part that is usual 3.
constexpr int MAX_DOUBLED = 16;
// Zeros on both sides of a row that is halved by twelve taps at places half as many.
constexpr int HALVING_MARGIN = WARP_TAPS;

// Points of the span that lie next to places from `low` to `high`; at least one.
Span box(double low, double high, Span span) {
    // kept_near's range is the span and one more on both sides.
    int start = std::max(static_cast<int>(std::floor(kept_near(low, span))), span.start);
    int stop = std::min(static_cast<int>(std::floor(kept_near(high, span))) + 2, span.stop);
    start = std::min(start, span.stop - 1);
    return {start, std::max(stop, start + 1)};
}

}  // namespace

template <class T, int LANES>
TileWarp<T, LANES>::TileWarp(const AdaSettings &settings, const Placement &to_doubled, AdaScratch<T> &scratch)
    : to_doubled_(to_doubled),
      height_(settings.size.height),
      width_(settings.size.width),
      scratch_(scratch),
      taps_(settings.warp_taps),
      pixels_(taps_, to_doubled, settings.size) {}

template <class T, int LANES>
void TileWarp<T, LANES>::forward(const WarpTile &tile, const T *image, T *out) {
    look_at(tile);
    if (!from_pixels_) upsample(image);
    const size_t length = static_cast<size_t>(tile.width) * LANES;
    T *window = grown(scratch_.window, WARP_TAPS * length);
    for (int row = 0; row < 2 * tile.height + 10; row++) {
        sample_row(row, image);
        const T *rows[WARP_TAPS];
        for (int k = 0; k < WARP_TAPS; k++) rows[k] = ((k & 1) ? odd_ : even_) + (k >> 1) * LANES;
        sum_rows<false>(rows, taps_.down(), WARP_TAPS, window + static_cast<size_t>(row % WARP_TAPS) * length, length);
        const int first = row - (WARP_TAPS - 1);
        if (first < 0 || (first & 1)) continue;
        for (int k = 0; k < WARP_TAPS; k++) rows[k] = window + static_cast<size_t>((first + k) % WARP_TAPS) * length;
        const size_t at = static_cast<size_t>(tile.y + first / 2) * static_cast<size_t>(width_);
        sum_rows<false>(rows, taps_.down(), WARP_TAPS, out + (at + static_cast<size_t>(tile.x)) * LANES, length);
    }
}

template <class T, int LANES>
void TileWarp<T, LANES>::adjoint(const WarpTile &tile, const T *gradient, T *image) {
    look_at(tile);
    if (!from_pixels_) std::fill(doubled_, doubled_ + static_cast<size_t>(box_y_.size() + 3) * pitch_, T{0});
    for (int row = 0; row < 2 * tile.height + 10; row++)
        if (gradient_row(row, gradient)) scatter_row(row, image);
    if (!from_pixels_) upsample_adjoint(image);
}

// Sets the part of the doubled plane that the tile looks at, and the memory for it.
template <class T, int LANES>
void TileWarp<T, LANES>::look_at(const WarpTile &tile) {
    tile_ = tile;
    const double ex[2] = {2.0 * tile.x - 5, 2.0 * (tile.x + tile.width) + 4};
    const double ey[2] = {2.0 * tile.y - 5, 2.0 * (tile.y + tile.height) + 4};
    auto span = [&](double along_x, double along_y, double shift, int side) {
        double first = along_x * ex[0] + along_y * ey[0] + shift, low = first, high = first;
        for (int corner = 1; corner < 4; corner++) {
            double at = along_x * ex[corner & 1] + along_y * ey[corner >> 1] + shift;
            if (at < low) low = at;
            if (at > high) high = at;
        }
        return box(low, high, doubled_span(side));
    };
    box_x_ = span(to_doubled_.xx, to_doubled_.xy, to_doubled_.tx, width_);
    box_y_ = span(to_doubled_.yx, to_doubled_.yy, to_doubled_.ty, height_);
    const auto points = [](int width, int height) { return static_cast<size_t>(width) * static_cast<size_t>(height); };
    from_pixels_ =
        points(box_x_.size() + 3, box_y_.size() + 3) > MAX_DOUBLED * points(2 * tile.width + 10, 2 * tile.height + 10);
    const size_t half = static_cast<size_t>(tile.width + 5) * LANES;
    even_ = grown(scratch_.even, half);
    odd_ = grown(scratch_.odd, half);
    if (from_pixels_) return;
    pitch_ = static_cast<size_t>(box_x_.size() + 3) * LANES;
    doubled_ = grown(scratch_.doubled, pitch_ * static_cast<size_t>(box_y_.size() + 3));
}

// The places of the extended image that points of the doubled plane are made of.
template <class T, int LANES>
Span TileWarp<T, LANES>::pixels_below(Span points, int side) const {
    Span extended = extended_span(side);
    return {std::max(first_pixel(points.start), extended.start),
            std::min(first_pixel(points.stop - 1) + 6, extended.stop)};
}

// The rows of the image that the box is made of: mirror images fold to neighbours.
template <class T, int LANES>
Span TileWarp<T, LANES>::rows_below(int height) const {
    Span pixels = pixels_below(box_y_, height), rows{height, 0};
    for (int i = pixels.start; i < pixels.stop; i++) {
        int row = folded(i, height);
        rows = {std::min(rows.start, row), std::max(rows.stop, row + 1)};
    }
    return rows;
}

// Steps 1 and 2 of the contract, within the box; around it a ring of zeros, two of them at the ends.
template <class T, int LANES>
void TileWarp<T, LANES>::upsample(const T *image) {
    const Span below = rows_below(height_), extended = extended_span(height_);
    const size_t length = static_cast<size_t>(box_x_.size()) * LANES, line = static_cast<size_t>(width_) * LANES;
    T *across = grown(scratch_.across, static_cast<size_t>(below.size()) * length);
    for (int row = below.start; row < below.stop; row++)
        widen_row(image + static_cast<size_t>(row) * line, across + static_cast<size_t>(row - below.start) * length);
    std::fill(doubled_, doubled_ + pitch_, T{0});
    T *to = doubled_ + pitch_;
    for (int j = box_y_.start; j < box_y_.stop; j++, to += pitch_) {
        const T *rows[6];
        T weights[6];
        int count = 0;
        for (int k = 0; k < 6; k++) {
            int i = first_pixel(j) + k;
            if (i < extended.start || i >= extended.stop) continue;
            rows[count] = across + static_cast<size_t>(folded(i, height_) - below.start) * length;
            weights[count++] = taps_.up(j)[k];
        }
        std::fill(to, to + LANES, T{0});
        sum_rows<false>(rows, weights, count, to + LANES, length);
        std::fill(to + LANES + length, to + pitch_, T{0});
    }
    std::fill(to, to + 2 * pitch_, T{0});
}

template <class T, int LANES>
void TileWarp<T, LANES>::upsample_adjoint(T *image) {
    const Span below = rows_below(height_), pixels = pixels_below(box_y_, height_);
    const size_t length = static_cast<size_t>(box_x_.size()) * LANES, line = static_cast<size_t>(width_) * LANES;
    const size_t margin = HALVING_MARGIN * LANES, step = length + 2 * margin;
    T *across = grown(scratch_.across, static_cast<size_t>(below.size()) * step);
    std::fill(across, across + static_cast<size_t>(below.size()) * step, T{0});
    for (int i = pixels.start; i < pixels.stop; i++) {
        const T *rows[WARP_TAPS];
        T weights[WARP_TAPS];
        int count = 0;
        for (int k = 0; k < WARP_TAPS; k++) {
            int j = 2 * i - 5 + k;
            if (j < box_y_.start || j >= box_y_.stop) continue;
            rows[count] = doubled_ + static_cast<size_t>(j - box_y_.start + 1) * pitch_ + LANES;
            weights[count++] = 2 * taps_.down()[k];
        }
        T *to = across + static_cast<size_t>(folded(i, height_) - below.start) * step + margin;
        sum_rows<true>(rows, weights, count, to, length);
    }
    for (int row = below.start; row < below.stop; row++)
        widen_row_adjoint(across + static_cast<size_t>(row - below.start) * step + margin,
                          image + static_cast<size_t>(row) * line);
}

// The points of the box along x from a row of the image.
template <class T, int LANES>
void TileWarp<T, LANES>::widen_row(const T *row, T *to) {
    const int first = first_pixel(box_x_.start), stop = first_pixel(box_x_.stop - 1) + 6;
    const Span extended = extended_span(width_);
    T *pixels = grown(scratch_.extended, static_cast<size_t>(stop - first) * LANES);
    for (int i = first; i < stop; i++) {
        const bool there = i >= extended.start && i < extended.stop;
        Point &pixel = point<LANES>(pixels + static_cast<size_t>(i - first) * LANES);
        if (there)
            pixel = point<LANES>(row + static_cast<size_t>(folded(i, width_)) * LANES);
        else
            pixel = Point{};
    }
    for (int j = box_x_.start; j < box_x_.stop; j++, to += LANES) {
        const T *from = pixels + static_cast<size_t>(first_pixel(j) - first) * LANES, *taps = taps_.up(j);
        Point sum = {};
        for (int k = 0; k < 6; k++) sum += taps[k] * point<LANES>(from + k * LANES);
        point<LANES>(to) = sum;
    }
}

// from: points of the box, with zeros on both sides.
template <class T, int LANES>
void TileWarp<T, LANES>::widen_row_adjoint(const T *from, T *row) {
    const Span pixels = pixels_below(box_x_, width_);
    for (int i = pixels.start; i < pixels.stop; i++) {
        const T *points = from + (2 * i - 5 - box_x_.start) * LANES;
        Point sum = {};
        for (int k = 0; k < WARP_TAPS; k++) sum += (2 * taps_.down()[k]) * point<LANES>(points + k * LANES);
        point<LANES>(row + static_cast<size_t>(folded(i, width_)) * LANES) += sum;
    }
}

// Calls visit(points, pitch, share_x, share_y, sample) for each sample of a row of the lattice: `points` is the first
// of the four points of the doubled plane that it lies between.
template <class T, int LANES>
template <class Visit>
void TileWarp<T, LANES>::visit_row(int row, Visit visit) {
    typedef double Pair __attribute__((vector_size(16)));
    // Counted from the ring of zeros, so that what is inside is positive and rounds down when it is cut.
    const double ey = 2.0 * tile_.y - 5 + row, start_x = box_x_.start - 1, start_y = box_y_.start - 1;
    const Pair base = {to_doubled_.xy * ey + (to_doubled_.tx - start_x),
                       to_doubled_.yy * ey + (to_doubled_.ty - start_y)};
    const Pair step = {to_doubled_.xx, to_doubled_.yx}, low = {0, 0};
    const Pair high = {box_x_.size() + 1.0, box_y_.size() + 1.0};
    const int columns = 2 * tile_.width + 10;
    for (int column = 0; column < columns; column++) {
        Pair point = base + step * (2.0 * tile_.x - 5 + column);
        // Positions before the ring, and NaN, move behind it, where no neighbour is read.
        point = point >= low ? point : high;
        point = point < high ? point : high;
        const int x = static_cast<int>(point[0]), y = static_cast<int>(point[1]);
        const size_t at = static_cast<size_t>(y) * pitch_ + static_cast<size_t>(x) * LANES;
        visit(doubled_ + at, static_cast<T>(point[0] - x), static_cast<T>(point[1] - y), lattice_point(column));
    }
}

// Step 3 of the contract for a row of the lattice, into even_ and odd_.
template <class T, int LANES>
void TileWarp<T, LANES>::sample_row(int row, const T *image) {
    if (!from_pixels_) {
        const size_t pitch = pitch_;
        visit_row(row, [pitch](const T *points, T share_x, T share_y, T *sample) {
            const Point &left = point<LANES>(points), &below = point<LANES>(points + pitch);
            const Point top = left + share_x * (point<LANES>(points + LANES) - left);
            const Point bottom = below + share_x * (point<LANES>(points + pitch + LANES) - below);
            point<LANES>(sample) = top + share_y * (bottom - top);
        });
        return;
    }
    for (int column = 0; column < 2 * tile_.width + 10; column++)
        pixels_.sample(2.0 * tile_.x - 5 + column, 2.0 * tile_.y - 5 + row, image, lattice_point(column));
}

template <class T, int LANES>
void TileWarp<T, LANES>::scatter_row(int row, T *image) {
    if (!from_pixels_) {
        const size_t pitch = pitch_;
        visit_row(row, [pitch](T *points, T share_x, T share_y, const T *sample) {
            const Point bottom = share_y * point<LANES>(sample), top = point<LANES>(sample) - bottom;
            const Point right = share_x * top, right_below = share_x * bottom;
            point<LANES>(points) += top - right;
            point<LANES>(points + LANES) += right;
            point<LANES>(points + pitch) += bottom - right_below;
            point<LANES>(points + pitch + LANES) += right_below;
        });
        return;
    }
    for (int column = 0; column < 2 * tile_.width + 10; column++)
        pixels_.scatter(2.0 * tile_.x - 5 + column, 2.0 * tile_.y - 5 + row, lattice_point(column), image);
}

// Step 4's adjoint for a row of the lattice, into even_ and odd_; false where it is all 0.
template <class T, int LANES>
bool TileWarp<T, LANES>::gradient_row(int row, const T *gradient) {
    const size_t length = static_cast<size_t>(tile_.width) * LANES, margin = 5 * LANES;
    const T *rows[6];
    T weights[6];
    int count = 0;
    for (int k = 0; k < 6; k++) {
        const int y = (row >> 1) - k;
        if (y < 0 || y >= tile_.height) continue;
        const size_t at = static_cast<size_t>(tile_.y + y) * static_cast<size_t>(width_);
        rows[count] = gradient + (at + static_cast<size_t>(tile_.x)) * LANES;
        weights[count++] = taps_.half(row)[k];
    }
    if (!count) return false;
    T *line = grown(scratch_.gradient, length + 2 * margin);
    std::fill(line, line + margin, T{0});
    sum_rows<false>(rows, weights, count, line + margin, length);
    std::fill(line + margin + length, line + 2 * margin + length, T{0});
    for (int k = 0; k < 6; k++) rows[k] = line + (5 - k) * LANES;
    sum_rows<false>(rows, taps_.half(0), 6, even_, length + margin);
    sum_rows<false>(rows, taps_.half(1), 6, odd_, length + margin);
    return true;
}

template class TileWarp<float, 1>;
template class TileWarp<float, 4>;
template class TileWarp<double, 1>;
template class TileWarp<double, 4>;

}  // namespace fastload
