// The warp of fastload/ops/affine_warp.py by any matrix, for one rectangle of the output.
//
// In: an image of points (see ada_lanes.h), [H, W]. Out: a rectangle of the warped one; or the other way, what the
// rectangle adds to the image, the exact adjoint. Promises: no more memory than ada.h says. Tiles keep the part of the
// doubled plane that they look at in the cache. Where a matrix makes images so small that this part would be large,
// each sample is summed from its 7 x 7 pixels instead.
#pragma once
#include "ops/ada.h"
#include "ops/ada_lanes.h"
#include "ops/ada_lattice.h"
#include "ops/ada_mixture.h"

namespace fastload {

// With 32, 64 and 128 a rotation of 256 x 256 pixels in three channels takes 3.5, 3.0 and 2.8 ms, and the memory of a
// thread is 1.8, 7 and 27 MiB.
constexpr int WARP_TILE = 64;

// A rectangle of the output, in pixels.
struct WarpTile {
    int x, y, width, height;
};

template <class T, int LANES>
class TileWarp {
   public:
    TileWarp(const AdaSettings &settings, const Placement &to_doubled, AdaScratch<T> &scratch);
    void forward(const WarpTile &tile, const T *image, T *out);
    // Adds to the image what the tile's part of the gradient [H, W] gives.
    void adjoint(const WarpTile &tile, const T *gradient, T *image);

   private:
    using Point = typename Lanes<T, LANES>::Point;
    void look_at(const WarpTile &tile);
    Span pixels_below(Span points, int side) const;
    Span rows_below(int height) const;
    void upsample(const T *image);
    void upsample_adjoint(T *image);
    void widen_row(const T *row, T *to);
    void widen_row_adjoint(const T *from, T *row);
    template <class Visit>
    void visit_row(int row, Visit visit);
    void sample_row(int row, const T *image);
    void scatter_row(int row, T *image);
    T *lattice_point(int column) { return ((column & 1) ? odd_ : even_) + (column >> 1) * LANES; }
    bool gradient_row(int row, const T *gradient);

    const Placement to_doubled_;
    const int height_, width_;
    AdaScratch<T> &scratch_;
    const WarpTaps<T> taps_;
    const PixelMixture<T, LANES> pixels_;

    WarpTile tile_{};
    Span box_x_{}, box_y_{};  // the part of the doubled plane that is kept
    bool from_pixels_ = false;
    size_t pitch_ = 0;  // numbers in a row of the doubled plane
    T *even_ = nullptr, *odd_ = nullptr, *doubled_ = nullptr;
};

}  // namespace fastload
