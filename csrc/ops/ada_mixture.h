// The warp of fastload/ops/affine_warp.py for single samples of the lattice, without the doubled plane.
//
// In: a point of the lattice, and an image of points (see ada_lanes.h), [H, W]. Out: the sample, a sum of 7 x 7 pixels;
// or the other way, what the sample adds to these pixels.
#pragma once
#include "ops/ada_lanes.h"
#include "ops/ada_lattice.h"

namespace fastload {

template <class T, int LANES>
class PixelMixture {
   public:
    PixelMixture(const WarpTaps<T> &taps, const Placement &to_doubled, const AdaSize &size)
        : taps_(taps), to_doubled_(to_doubled), height_(size.height), width_(size.width) {}

    void sample(double ex, double ey, const T *image, T *to) const {
        const Mixture x = across(ex, ey), y = down(ex, ey);
        Point sum = {};
        for (int v = 0; v < 7 && x.any && y.any; v++) {
            const T *row = image + row_start(y.pixels[v]);
            Point line = {};
            for (int u = 0; u < 7; u++) line += x.weights[u] * point<LANES>(row + x.pixels[u] * LANES);
            sum += y.weights[v] * line;
        }
        point<LANES>(to) = sum;
    }

    void scatter(double ex, double ey, const T *from, T *image) const {
        const Mixture x = across(ex, ey), y = down(ex, ey);
        for (int v = 0; v < 7 && x.any && y.any; v++) {
            T *row = image + row_start(y.pixels[v]);
            const Point line = y.weights[v] * point<LANES>(from);
            for (int u = 0; u < 7; u++) point<LANES>(row + x.pixels[u] * LANES) += x.weights[u] * line;
        }
    }

   private:
    using Point = typename Lanes<T, LANES>::Point;
    // One coordinate of a sample. What takes no part stands for a pixel that does, with a weight of 0: times another
    // pixel, which may hold NaN, it would be more than nothing.
    struct Mixture {
        ptrdiff_t pixels[7];
        T weights[7];
        bool any;
    };

    Mixture across(double ex, double ey) const {
        return mixture(to_doubled_.xx * ex + to_doubled_.xy * ey + to_doubled_.tx, width_);
    }
    Mixture down(double ex, double ey) const {
        return mixture(to_doubled_.yx * ex + to_doubled_.yy * ey + to_doubled_.ty, height_);
    }
    ptrdiff_t row_start(ptrdiff_t row) const { return row * width_ * LANES; }

    Mixture mixture(double position, int side) const {
        const Span points = doubled_span(side), extended = extended_span(side);
        const bool near = is_near(position, points);
        position = kept_near(position, points);
        const int j = static_cast<int>(std::floor(position));
        const T share = static_cast<T>(position - j);
        const bool has_left = j >= points.start && j < points.stop;
        const bool has_right = j + 1 >= points.start && j + 1 < points.stop;
        const T left = has_left ? 1 - share : T{0}, right = has_right ? share : T{0};
        // The pixels of point j + 1 are those of j for an odd j, and begin one later for an even one.
        const int later = (j & 1) ? 0 : 1;
        const T *of_left = taps_.up(j), *of_right = taps_.up(j + 1) - later;
        Mixture found;
        found.any = false;
        ptrdiff_t any_pixel = 0;
        bool there[7];
        for (int k = 0; k < 7; k++) {
            const int i = first_pixel(j) + k;
            there[k] = near && i >= extended.start && i < extended.stop &&
                       ((has_left && k < 6) || (has_right && k >= later && k < 6 + later));
            found.pixels[k] = there[k] ? folded(i, side) : 0;
            found.weights[k] = there[k] ? left * of_left[k] + right * of_right[k] : T{0};
            if (there[k]) any_pixel = found.pixels[k];
            found.any = found.any || there[k];
        }
        for (int k = 0; k < 7; k++)
            if (!there[k]) found.pixels[k] = any_pixel;
        return found;
    }

    const WarpTaps<T> &taps_;
    const Placement to_doubled_;
    const int height_, width_;
};

}  // namespace fastload
