// The points that the warp of fastload/ops/affine_warp.py reads: the lattice of half pixels, its doubled plane, its
// mirrors.
//
// Any numbers are allowed, NaN and infinities, too: positions are brought into range before they become integers.
#pragma once
#include <cmath>

#include "ops/ada.h"

namespace fastload {

// The taps of the wavelet, as they are met.
template <class T>
class WarpTaps {
   public:
    explicit WarpTaps(const double *taps) {
        for (int k = 0; k < WARP_TAPS; k++) down_[k] = static_cast<T>(taps[k]);
        for (int parity = 0; parity < 2; parity++)
            for (int k = 0; k < 6; k++) {
                half_[parity][k] = down_[2 * k + parity];
                up_[parity][k + 1] = 2 * down_[WARP_TAPS - 1 - parity - 2 * k];
            }
    }
    const T *down() const { return down_; }
    // Those of `down` for even or for odd samples.
    const T *half(int e) const { return half_[e & 1]; }
    // Six of point j of the doubled plane, for the pixels from first_pixel(j) on; with a 0 before and after them.
    const T *up(int j) const { return up_[j & 1] + 1; }

   private:
    T down_[WARP_TAPS], half_[2][6], up_[2][8] = {};
};

// Half-open.
struct Span {
    int start, stop;
    int size() const { return stop - start; }
};

// Sample e = (x, y) of the lattice is the doubled plane at (xx x + xy y + tx, yx x + yy y + ty).
struct Placement {
    double xx, xy, tx, yx, yy, ty;
};

template <class T>
Placement placement(const T *G_inv, const AdaSize &size) {
    double a = G_inv[0], b = G_inv[1], c = G_inv[3], d = G_inv[4];
    double center_x = (size.width - 1) / 2.0, center_y = (size.height - 1) / 2.0;
    // In this order the translation alone is what remains where the matrix is 1.
    double tx = 2 * (G_inv[2] + ((center_x - a * center_x) - b * center_y));
    double ty = 2 * (G_inv[5] + ((center_y - d * center_y) - c * center_x));
    return {a, b, tx, c, d, ty};
}

// The points of the doubled plane along a side, and the pixels of the extended image.
inline Span doubled_span(int side) { return {-2 * (side - 1), 4 * side - 2}; }
inline Span extended_span(int side) { return {-(side - 1), 2 * side - 1}; }

// The pixel whose mirror image lies at a position of extended_span.
inline int folded(int position, int side) {
    if (position < 0) return -position;
    return position < side ? position : 2 * side - 2 - position;
}

// The first of the six pixels that point j of the doubled plane is made of; the last is five further.
inline int first_pixel(int j) { return (j - 5) >> 1; }

// Whether a sample at this position contributes to any point of the span.
inline bool is_near(double position, Span span) { return position >= span.start - 1 && position < span.stop; }

// The position, clamped to one point outside the span, where all is 0; NaN becomes that point, too.
inline double kept_near(double position, Span span) {
    double low = span.start - 1, high = span.stop;
    double above = position > low ? position : low;
    return above < high ? above : high;
}

}  // namespace fastload
