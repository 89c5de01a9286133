// The warp of fastload/ops/affine_warp.py of one image, by the way that fits its matrix.
//
// In: an image of any strides, G_inv [3, 3]. Out: the warped image [C, H, W], or in the adjoint mode the adjoint
// applied. Promises: those of ada.h; channels are worked on four at a time.
#pragma once
#include "ops/ada.h"

namespace fastload {

// `source` and `out` may be the same planes.
template <class T>
void ada_warp(const AdaSettings &settings, const T *G_inv, const AdaSource<T> &source, T *out, AdaScratch<T> &scratch);

// The image as planes [C, H, W].
template <class T>
void copy_planes(const AdaSize &size, const AdaSource<T> &source, T *out);

}  // namespace fastload
