// The warp of fastload/ops/affine_warp.py where an output's column hangs on one coordinate of the input alone, and its
// row on the other: two passes of sums, each with a matrix of its own.
//
// In: an image of points (see ada_lanes.h), [H, W]. Out: the warped one, or for the adjoint the sum over what was
// warped. Promises: whole pixels of translation without a scale copy exactly, as far as one reflection reaches.
#pragma once
#include "ops/ada.h"
#include "ops/ada_lattice.h"

namespace fastload {

// Whether both passes exist, and are short enough to be the faster way.
bool along_axes(const Placement &to_doubled);

// scratch.crossed is used; from and to: [H, W] points, not the same memory.
template <int LANES, class T>
void warp_along_axes(const AdaSettings &settings, const Placement &to_doubled, const T *from, T *to,
                     AdaScratch<T> &scratch);

}  // namespace fastload
